//! GroupNorm and SkipGroupNorm of `com.microsoft`
//!
//! `y = act((x - mean) / sqrt(var + epsilon) * gamma + beta)`, mean and var of each group of channels;
//! `act` is nothing or, with `activation` 1, `t * sigmoid(t)`. SkipGroupNorm does so with
//! `x + skip + bias`, which is its second output.
//! Shapes:   x `[N, H, W, C]` or, with `channels_last` 0, `[N, C, H, W]`; gamma, beta and bias `[C]`, skip
//!           like x, `[N, 1, 1, C]` or `[N, C]`. C is fixed.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupNorm>

use super::shared::{copy, size};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::autodiff::internal::swish_node;
use crate::graph::ValueId;

pub static GROUP: Decomposition =
    Decomposition { domain: "com.microsoft", op: "GroupNorm", opsets: 1..=1, build: plain };
pub static SKIP: Decomposition =
    Decomposition { domain: "com.microsoft", op: "SkipGroupNorm", opsets: 1..=1, build: skip };

fn plain(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let x = parts.x(0)?;
    Ok(vec![normalized(parts, x)?])
}

fn skip(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (x, mut skip) = (parts.x(0)?, parts.x(3)?);
    let last = parts.attributes().int("channels_last", 1)? != 0;
    if parts.rank(skip)? == 2 {
        skip = parts.b.unsqueeze(skip, if last { &[1, 2] } else { &[2, 3] });
    }
    let fact = parts.b.fact(x).clone();
    let mut sum = parts.b.add(x, skip);
    parts.b.refine(sum, &fact);
    if let Some(bias) = parts.input(4) {
        let bias = by_channel(parts, bias, last);
        sum = parts.b.add(sum, bias);
        parts.b.refine(sum, &fact);
    }
    let y = normalized(parts, sum)?;
    Ok(vec![y, if parts.has_output(1) { copy(parts, sum) } else { sum }])
}

fn by_channel(parts: &mut Parts<'_>, value: ValueId, last: bool) -> ValueId {
    if last { value } else { parts.b.reshape(value, &[-1, 1, 1]) }
}

fn normalized(parts: &mut Parts<'_>, x: ValueId) -> Result<ValueId, RuleError> {
    let (gamma, beta, last) = (parts.x(1)?, parts.x(2)?, parts.attributes().int("channels_last", 1)? != 0);
    let (groups, activation) = (parts.attributes().int("groups", 1)?, parts.attributes().int("activation", 0)?);
    let epsilon = f64::from(parts.attributes().float("epsilon", 1e-5)?);
    let channels = size(parts, x, if last { 3 } else { 1 })?;
    if groups < 1 || channels % groups != 0 {
        return Err(RuleError::Unsupported(format!("{channels} channels do not make {groups} groups")));
    }
    let (apart, axes) = match last {
        true => (parts.b.reshape(x, &[0, -1, groups, channels / groups]), [1, 3]),
        false => (parts.b.reshape(x, &[0, groups, channels / groups, -1]), [2, 3]),
    };
    let mean = parts.b.reduce("ReduceMean", apart, &axes, true);
    let centered = parts.b.sub(apart, mean);
    let square = parts.b.mul(centered, centered);
    let var = parts.b.reduce("ReduceMean", square, &axes, true);
    let shifted = parts.b.shift(var, epsilon);
    let std = parts.b.unary("Sqrt", shifted);
    let normal = parts.b.div(centered, std);
    let normal = parts.b.reshape_like(normal, x);
    let dtype = parts.dtype(x);
    let [gamma, beta] = [gamma, beta].map(|value| {
        let value = if parts.dtype(value) == dtype { value } else { parts.b.cast(value, dtype) };
        by_channel(parts, value, last)
    });
    let scaled = parts.b.mul(normal, gamma);
    let y = parts.b.add(scaled, beta);
    match activation {
        0 => Ok(y),
        1 => Ok(swish_node(parts.b, y, 1.0)),
        other => Err(RuleError::Unsupported(format!("activation {other} is not known"))),
    }
}

/// The CPU kernels of ONNX Runtime lack both operators; the numbers are PyTorch's.
#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let of = |op, name, activation| {
            Case::new(name, op).domain("com.microsoft").int("groups", 2).int("activation", activation)
        };
        check(&[
            of("GroupNorm", "channels last", 0)
                .input(&[1, 2, 2, 4])
                .range(&[4], 0.5, 1.5)
                .input(&[4])
                .batch()
                .reference(&[
                    0.170_736_25,
                    0.935_483_1,
                    0.381_831_2,
                    1.511_278_6,
                    0.280_244_5,
                    -1.345_538_7,
                    0.117_741_95,
                    -1.209_592_8,
                    1.951_921_7,
                    0.236_310_4,
                    0.964_978_6,
                    0.967_104_4,
                    -0.267_296_7,
                    2.217_687,
                    1.776_366,
                    -1.584_703_2,
                ]),
            of("GroupNorm", "channels first, swish, epsilon", 1)
                .int("channels_last", 0)
                .float("epsilon", 0.1)
                .input(&[1, 4, 2, 1])
                .range(&[4], 0.5, 1.5)
                .input(&[4])
                .reference(&[
                    0.032_587_6,
                    0.360_942_9,
                    -0.165_22,
                    1.645_770_9,
                    1.198_752_3,
                    0.185_400_7,
                    -0.211_051_1,
                    0.026_936_7,
                ]),
            of("SkipGroupNorm", "skip of each channel, bias", 1)
                .outputs(2)
                .input(&[1, 2, 1, 4])
                .range(&[4], 0.5, 1.5)
                .input(&[4])
                .input(&[1, 4])
                .input(&[4])
                .reference(&[
                    -0.040_640_8,
                    2.334_898,
                    0.259_170_05,
                    1.822_043_7,
                    0.027_406_1,
                    -0.147_227_7,
                    0.123_257_3,
                    -0.032_910_6,
                ]),
        ]);
    }
}
