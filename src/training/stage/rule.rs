//! The optimizer operators of `ai.onnx.preview.training`: what a node says, and its update of one
//! parameter in standard operators.

use super::{PREVIEW, StageError, adagrad, adam, momentum};
use crate::graph::{Builder, DType, Node, ValueId};

/// Which operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Adam,
    Momentum,
    Adagrad,
}

/// The attributes of a node; those that its operator lacks are 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Coefficients {
    pub alpha: f64,
    pub beta: f64,
    pub epsilon: f64,
    pub norm_coefficient: f64,
    pub norm_coefficient_post: f64,
    pub decay_factor: f64,
    pub nesterov: bool,
}

/// An optimizer node: inputs `R, T`, then each group of tensors for all parameters.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub kind: Kind,
    /// Parameters that the node updates.
    pub count: usize,
    coefficients: Coefficients,
}

/// What the updates of all parameters of a node share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalars {
    pub rate: ValueId,
    pub factor: Option<ValueId>,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Adam => "Adam",
            Kind::Momentum => "Momentum",
            Kind::Adagrad => "Adagrad",
        }
    }

    /// Tensors that the node reads for each parameter.
    pub fn reads(self) -> usize {
        if self == Kind::Adam { 4 } else { 3 }
    }

    /// Tensors that the node writes for each parameter.
    pub fn writes(self) -> usize {
        if self == Kind::Adam { 3 } else { 2 }
    }
}

impl Rule {
    /// Reads a node; `None` where it is no optimizer.
    pub fn of(node: &Node) -> Result<Option<Rule>, StageError> {
        let kind = [Kind::Adam, Kind::Momentum, Kind::Adagrad].into_iter().find(|kind| node.op.name == kind.name());
        let Some(kind) = kind.filter(|_| node.op.domain == PREVIEW) else { return Ok(None) };
        let fail = |reason: String| StageError::Node { node: node.name.clone(), op: node.op.name.clone(), reason };
        let tensors = node.inputs.len().saturating_sub(2);
        let count = tensors / kind.reads();
        if count == 0 || tensors != count * kind.reads() || node.inputs.iter().any(Option::is_none) {
            let reason = format!("expected R, T and {} tensors for each parameter, found {tensors}", kind.reads());
            return Err(fail(reason));
        }
        if node.outputs.len() > count * kind.writes() {
            let reason = format!("expected {} outputs, found {}", count * kind.writes(), node.outputs.len());
            return Err(fail(reason));
        }
        let known: &[&str] = match kind {
            Kind::Adam => &["alpha", "beta", "epsilon", "norm_coefficient", "norm_coefficient_post"],
            Kind::Momentum => &["alpha", "beta", "mode", "norm_coefficient"],
            Kind::Adagrad => &["decay_factor", "epsilon", "norm_coefficient"],
        };
        if let Some((name, _)) = node.attributes.iter().find(|(name, _)| !known.contains(name)) {
            return Err(fail(format!("unknown attribute \"{name}\"")));
        }
        let number = |name: &str, default: Option<f32>| {
            if !known.contains(&name) {
                return Ok(0.0);
            }
            if default.is_none() && node.attributes.get(name).is_none() {
                return Err(fail(format!("attribute \"{name}\" is missing")));
            }
            let value = node.attributes.float(name, default.unwrap_or(0.0));
            value.map(f64::from).map_err(|error| fail(error.to_string()))
        };
        // Momentum requires every attribute; the others have defaults.
        let or = |default: f32| (kind != Kind::Momentum).then_some(default);
        let mode = node.attributes.text("mode", "").map_err(|error| fail(error.to_string()))?;
        if kind == Kind::Momentum && !["standard", "nesterov"].contains(&mode.as_str()) {
            return Err(fail(format!("mode is \"{mode}\", expected \"standard\" or \"nesterov\"")));
        }
        let coefficients = Coefficients {
            alpha: number("alpha", or(0.9))?,
            beta: number("beta", or(0.999))?,
            epsilon: number("epsilon", or(1e-6))?,
            norm_coefficient: number("norm_coefficient", or(0.0))?,
            norm_coefficient_post: number("norm_coefficient_post", or(0.0))?,
            decay_factor: number("decay_factor", or(0.0))?,
            nesterov: mode == "nesterov",
        };
        Ok(Some(Rule { kind, count, coefficients }))
    }

    /// Returns the inputs that belong to parameter `index`, without `R` and `T`.
    pub fn inputs(&self, node: &Node, index: usize) -> Vec<ValueId> {
        (0..self.kind.reads()).filter_map(|group| node.input(2 + group * self.count + index)).collect()
    }

    /// Returns the parameter that an output belongs to, and which of its tensors it is.
    pub fn output(&self, position: usize) -> (usize, usize) {
        (position % self.count, position / self.count)
    }

    /// Appends what the parameters of a dtype share. `r` and `t` are scalars of float64.
    pub fn scalars(&self, b: &mut Builder, r: ValueId, t: ValueId, dtype: DType) -> Scalars {
        let c = &self.coefficients;
        let rate = match self.kind {
            Kind::Adam => adam::rate(c, b, r, t),
            Kind::Momentum => r,
            Kind::Adagrad => adagrad::rate(c, b, r, t),
        };
        let factor = if self.kind == Kind::Momentum { momentum::factor(c, b, t) } else { None };
        let mut cast = |value| if dtype == DType::F64 { value } else { b.cast(value, dtype) };
        Scalars { rate: cast(rate), factor: factor.map(&mut cast) }
    }

    /// Appends the update of one parameter and returns its new tensors, in the order of outputs.
    pub fn step(&self, b: &mut Builder, scalars: &Scalars, tensors: &[ValueId]) -> Vec<ValueId> {
        let c = &self.coefficients;
        match self.kind {
            Kind::Adam => adam::step(c, b, scalars, tensors),
            Kind::Momentum => momentum::step(c, b, scalars, tensors),
            Kind::Adagrad => adagrad::step(c, b, scalars, tensors),
        }
    }
}

/// Appends `norm_coefficient X + G`.
pub(super) fn regularized(c: &Coefficients, b: &mut Builder, x: ValueId, g: ValueId) -> ValueId {
    if c.norm_coefficient == 0.0 {
        return g;
    }
    let pull = b.scale(x, c.norm_coefficient);
    b.add(pull, g)
}
