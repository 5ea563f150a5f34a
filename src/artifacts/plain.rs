//! Standard operators for what the training tools fused or replaced in the forward part.
//!
//! ```text
//! ConcatTraining(..)     Concat(..)
//! Gelu(x)                x (1 + erf(x / sqrt 2)) / 2
//! BiasGelu(x, b)         Gelu(x + b)
//! FastGelu(x[, b])       x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
//! QuickGelu(x)           x sigmoid(alpha x)
//! ```

use crate::graph::{Attributes, Builder, Node, Origin, ValueId};
use std::f64::consts::{PI, SQRT_2};

/// Returns the first output of a node of the domain `com.microsoft` in standard operators; `None`
/// for a node that stays as it is.
///
/// # Errors
/// The node lacks an input or has an attribute of another type.
pub(super) fn rewrite(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Result<Option<ValueId>, String> {
    if node.op.domain != "com.microsoft" {
        return Ok(None);
    }
    let input = |index: usize| {
        let found = inputs.get(index).copied().flatten();
        found.ok_or_else(|| format!("node \"{}\" ({}) has no input {index}", node.name, node.op))
    };
    b.enter(Origin::Forward, &node.name);
    Ok(Some(match node.op.name.as_str() {
        "ConcatTraining" => {
            let axis = node.attributes.int("axis", 0).map_err(|error| format!("node \"{}\": {error}", node.name))?;
            let all: Vec<ValueId> = inputs.iter().copied().flatten().collect();
            b.op("Concat", &all, Attributes::none().with("axis", axis))
        }
        "Gelu" => gelu(b, input(0)?),
        "BiasGelu" => {
            let x = b.add(input(0)?, input(1)?);
            gelu(b, x)
        }
        "FastGelu" => {
            let x = input(0)?;
            let x = if inputs.len() > 1 { b.add(x, input(1)?) } else { x };
            let square = b.mul(x, x);
            let cube = b.mul(square, x);
            let cube = b.scale(cube, 0.044715);
            let sum = b.add(x, cube);
            let inner = b.scale(sum, (2.0 / PI).sqrt());
            let wave = b.unary("Tanh", inner);
            half(b, x, wave)
        }
        "QuickGelu" => {
            let x = input(0)?;
            let alpha = node.attributes.float("alpha", 1.702);
            let scaled = b.scale(x, f64::from(alpha.map_err(|error| format!("node \"{}\": {error}", node.name))?));
            let gate = b.unary("Sigmoid", scaled);
            b.mul(x, gate)
        }
        _ => return Ok(None),
    }))
}

fn gelu(b: &mut Builder, x: ValueId) -> ValueId {
    let scaled = b.scale(x, 1.0 / SQRT_2);
    let wave = b.unary("Erf", scaled);
    half(b, x, wave)
}

/// `x (1 + wave) / 2`
fn half(b: &mut Builder, x: ValueId, wave: ValueId) -> ValueId {
    let shifted = b.shift(wave, 1.0);
    let product = b.mul(x, shifted);
    b.scale(product, 0.5)
}
