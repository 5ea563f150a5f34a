//! The activations of recurrent layers with their derivatives.

use crate::autodiff::RuleError;
use crate::graph::{Attributes, Builder, ValueId};

/// An activation with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::autodiff) enum Activation {
    /// `alpha * x + beta`
    Affine(f64, f64),
    /// `x` from 0 on, `alpha * (exp(x) - 1)` below
    Elu(f64),
    /// `alpha * x + beta` between 0 and 1
    HardSigmoid(f64, f64),
    /// `x` from 0 on, `alpha * x` below
    LeakyRelu(f64),
    /// `x` from 0 on
    Relu,
    /// `alpha * tanh(beta * x)`
    ScaledTanh(f64, f64),
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `log(1 + exp(x))`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
    /// `tanh(x)`
    Tanh,
    /// `x` above alpha
    ThresholdedRelu(f64),
}

impl Activation {
    /// Reads an activation; it takes its parameters from the front of the lists.
    ///
    /// # Errors
    /// The name is not known, or a parameter is left out for which engines differ.
    pub fn read(
        name: &str,
        alpha: &mut impl Iterator<Item = f32>,
        beta: &mut impl Iterator<Item = f32>,
    ) -> Result<Activation, RuleError> {
        let needs = |value: Option<f32>, which: &str| {
            let reason = || RuleError::Unsupported(format!("activation {name} needs an explicit {which}"));
            value.map(f64::from).ok_or_else(reason)
        };
        Ok(match name.to_ascii_lowercase().as_str() {
            "affine" => Activation::Affine(needs(alpha.next(), "alpha")?, needs(beta.next(), "beta")?),
            "elu" => Activation::Elu(alpha.next().map_or(1.0, f64::from)),
            "hardsigmoid" => {
                Activation::HardSigmoid(alpha.next().map_or(0.2, f64::from), beta.next().map_or(0.5, f64::from))
            }
            "leakyrelu" => Activation::LeakyRelu(alpha.next().map_or(0.01, f64::from)),
            "relu" => Activation::Relu,
            "scaledtanh" => Activation::ScaledTanh(needs(alpha.next(), "alpha")?, needs(beta.next(), "beta")?),
            "sigmoid" => Activation::Sigmoid,
            "softplus" => Activation::Softplus,
            "softsign" => Activation::Softsign,
            "tanh" => Activation::Tanh,
            "thresholdedrelu" => Activation::ThresholdedRelu(needs(alpha.next(), "alpha")?),
            _ => return Err(RuleError::Unsupported(format!("activation \"{name}\" is not known"))),
        })
    }

    /// Returns the activation of `x`.
    fn value(self, b: &mut Builder, x: ValueId) -> ValueId {
        let alpha = |alpha: f64| Attributes::none().with("alpha", alpha as f32);
        match self {
            Activation::Affine(alpha, beta) => {
                let scaled = b.scale(x, alpha);
                b.shift(scaled, beta)
            }
            Activation::Elu(a) => b.op("Elu", &[x], alpha(a)),
            Activation::HardSigmoid(a, beta) => b.op("HardSigmoid", &[x], alpha(a).with("beta", beta as f32)),
            Activation::LeakyRelu(a) => b.op("LeakyRelu", &[x], alpha(a)),
            Activation::Relu => b.unary("Relu", x),
            Activation::ScaledTanh(alpha, beta) => {
                let scaled = b.scale(x, beta);
                let tanh = b.unary("Tanh", scaled);
                b.scale(tanh, alpha)
            }
            Activation::Sigmoid => b.unary("Sigmoid", x),
            Activation::Softplus => b.unary("Softplus", x),
            Activation::Softsign => b.unary("Softsign", x),
            Activation::Tanh => b.unary("Tanh", x),
            Activation::ThresholdedRelu(a) => b.op("ThresholdedRelu", &[x], alpha(a)),
        }
    }

    /// Returns the derivative where the output alone gives it.
    fn slope_at(self, b: &mut Builder, y: ValueId) -> Option<ValueId> {
        match self {
            Activation::Relu => {
                let positive = b.compare("Greater", y, 0.0);
                let dtype = b.dtype(y);
                Some(b.cast(positive, dtype))
            }
            Activation::Sigmoid => {
                let square = b.mul(y, y);
                Some(b.sub(y, square))
            }
            Activation::Tanh => {
                let (one, square) = (b.like(y, 1.0), b.mul(y, y));
                Some(b.sub(one, square))
            }
            _ => None,
        }
    }

    /// Returns the derivative at `x` with output `y`.
    fn slope(self, b: &mut Builder, x: ValueId, y: ValueId) -> ValueId {
        let above = |b: &mut Builder, bound: f64| {
            let above = b.compare("Greater", x, bound);
            let dtype = b.dtype(x);
            b.cast(above, dtype)
        };
        match self {
            Activation::Affine(alpha, _) => {
                let alpha = b.like(x, alpha);
                b.expand_like(alpha, x)
            }
            Activation::Elu(alpha) => {
                let (positive, one, below) = (b.compare("Greater", x, 0.0), b.like(x, 1.0), b.shift(y, alpha));
                b.select(positive, one, below)
            }
            Activation::HardSigmoid(alpha, _) => {
                let (low, high) = (b.compare("Greater", y, 0.0), b.compare("Less", y, 1.0));
                let within = b.op("And", &[low, high], Attributes::none());
                let dtype = b.dtype(x);
                let within = b.cast(within, dtype);
                b.scale(within, alpha)
            }
            Activation::LeakyRelu(alpha) => {
                let (positive, one, below) = (b.compare("Greater", x, 0.0), b.like(x, 1.0), b.like(x, alpha));
                b.select(positive, one, below)
            }
            Activation::ScaledTanh(alpha, beta) => {
                let square = b.mul(y, y);
                let scaled = b.scale(square, if alpha == 0.0 { 0.0 } else { -beta / alpha });
                b.shift(scaled, alpha * beta)
            }
            Activation::Softplus => b.unary("Sigmoid", x),
            Activation::Softsign => {
                let size = b.unary("Abs", y);
                let one = b.like(y, 1.0);
                let rest = b.sub(one, size);
                b.mul(rest, rest)
            }
            Activation::ThresholdedRelu(alpha) => above(b, alpha),
            Activation::Relu | Activation::Sigmoid | Activation::Tanh => {
                self.slope_at(b, y).expect("invariant: their outputs give the derivative")
            }
        }
    }
}

/// An activation of a layer whose pre-activations are limited to `-clip..clip`.
#[derive(Clone, Copy, Debug)]
pub(in crate::autodiff) struct Gate {
    pub activation: Activation,
    pub clip: Option<f64>,
}

impl Gate {
    /// Returns the gate's value.
    pub fn value(self, b: &mut Builder, x: ValueId) -> ValueId {
        let limited = self.limited(b, x);
        self.activation.value(b, limited)
    }

    /// Returns the gate's derivative at `x` with value `y`; where `x` is clipped it is 0.
    pub fn slope(self, b: &mut Builder, x: ValueId, y: ValueId) -> ValueId {
        let limited = self.limited(b, x);
        let slope = self.activation.slope(b, limited, y);
        let Some(clip) = self.clip else { return slope };
        let size = b.unary("Abs", x);
        let within = b.compare("LessOrEqual", size, clip);
        let dtype = b.dtype(x);
        let within = b.cast(within, dtype);
        b.mul(slope, within)
    }

    /// Returns the derivative where the value alone gives it.
    pub fn slope_at(self, b: &mut Builder, y: ValueId) -> Option<ValueId> {
        if self.clip.is_some() { None } else { self.activation.slope_at(b, y) }
    }

    fn limited(self, b: &mut Builder, x: ValueId) -> ValueId {
        let Some(clip) = self.clip else { return x };
        let (low, high) = (b.like(x, -clip), b.like(x, clip));
        b.op("Clip", &[x, low, high], Attributes::none())
    }
}
