//! Optimizers as graph construction: one graph that moves every trainable parameter one step.
//!
//! An [`OptimizerSpec`] is the `[optimizer]` table of a job. Its graph reads `lr` and, for each
//! parameter `P`, `P`, `P.grad` and the slots `P.<slot>`; it writes `P.next` and `P.<slot>.next`.
//! Update rules, defaults and the meaning of options are PyTorch's. What is frozen is not in the
//! list of parameters and so nowhere in the graph.
//!
//! At run time `P` and `P.next` are one buffer, and so are a slot and its `.next`. Therefore
//! whatever reads one of them is an ancestor of the node that writes its `.next`.
//!
//! What this module does not do: learning-rate schedules (the runner feeds `lr`), or hold slots.

mod adam;
mod adamw;
mod clip;
mod sgd;

use crate::error::ErrorKind;
use crate::graph::{Builder, DType, Fact, Graph, Origin, ValueId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;

/// Which optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent.
    Sgd,
    /// Adam, with weight decay added to the gradient.
    Adam,
    /// Adam, with weight decay apart from the gradient.
    AdamW,
}

impl OptimizerKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [OptimizerKind; 3] = [OptimizerKind::Sgd, OptimizerKind::Adam, OptimizerKind::AdamW];

    /// Returns the name a job file uses.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerKind::Sgd => "sgd",
            OptimizerKind::Adam => "adam",
            OptimizerKind::AdamW => "adamw",
        }
    }

    /// Returns the kind of a name.
    pub fn from_name(name: &str) -> Option<OptimizerKind> {
        OptimizerKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for OptimizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An optimizer with its options; `None` takes PyTorch's default. An option of another kind is
/// an error, not ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSpec {
    /// Which optimizer.
    pub kind: OptimizerKind,
    /// Base learning rate of the job, at least 0; default 0.001. The graph reads the rate of the
    /// step from its input.
    #[serde(default = "default_lr")]
    pub lr: f64,
    /// Decay of the velocity per step, at least 0, for `sgd`; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Steps along the velocity of the next step, for `sgd` with momentum; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Pull towards 0 per unit of learning rate, at least 0; default 0, for `adamw` 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Decays of the averages of gradient and squared gradient, each in [0, 1), for `adam` and
    /// `adamw`; default [0.9, 0.999].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// Added to the root of the squared gradients, at least 0, for `adam` and `adamw`; default
    /// 1e-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Largest L2 norm of all gradients of a step together, above 0; default no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f32>,
}

fn default_lr() -> f64 {
    1e-3
}

/// What an optimizer remembers of a parameter between steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotSpec {
    /// Name after the parameter's and a dot.
    pub name: &'static str,
    /// True for one float32 number, false for a tensor of the parameter's dtype and shape.
    pub scalar: bool,
    /// Value of every element before the first step.
    pub initial: f64,
}

/// An optimizer that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
pub enum OptimError {
    #[error("the optimizer {kind} has no option {option}")]
    Option { kind: OptimizerKind, option: &'static str },
    #[error("the optimizer {kind} needs {option} {range}, found {found}")]
    Range { kind: OptimizerKind, option: &'static str, range: &'static str, found: String },
    #[error("the optimizer sgd needs momentum above 0 for nesterov")]
    Nesterov,
    #[error("parameter \"{parameter}\" is {found}, an optimizer updates float32 or float64")]
    DType { parameter: String, found: String },
    #[error("{first} and {second} both need the name \"{name}\" in the optimizer graph")]
    Collision { name: String, first: String, second: String },
}

impl OptimError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OptimError::Option { .. } | OptimError::Range { .. } | OptimError::Nesterov => ErrorKind::Usage,
            OptimError::DType { .. } | OptimError::Collision { .. } => ErrorKind::Unsupported,
        }
    }
}

impl OptimizerSpec {
    /// Returns an optimizer with default options.
    pub fn new(kind: OptimizerKind) -> OptimizerSpec {
        OptimizerSpec {
            kind,
            lr: default_lr(),
            momentum: None,
            nesterov: None,
            weight_decay: None,
            betas: None,
            eps: None,
            clip_norm: None,
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// An option belongs to another kind or is out of its range.
    pub fn validate(&self) -> Result<(), OptimError> {
        let kind = self.kind;
        let sgd = kind == OptimizerKind::Sgd;
        let given = [
            (self.momentum.is_some(), "momentum", sgd),
            (self.nesterov.is_some(), "nesterov", sgd),
            (self.betas.is_some(), "betas", !sgd),
            (self.eps.is_some(), "eps", !sgd),
        ];
        if let Some((_, option, _)) = given.into_iter().find(|(given, _, allowed)| *given && !*allowed) {
            return Err(OptimError::Option { kind, option });
        }
        let least = [
            ("lr", self.lr),
            ("momentum", self.momentum()),
            ("weight_decay", self.weight_decay()),
            ("eps", self.eps()),
        ];
        let range = |option, range, found: String| Err(OptimError::Range { kind, option, range, found });
        if let Some((option, value)) = least.into_iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
            return range(option, "of at least 0", value.to_string());
        }
        if self.betas().iter().any(|beta| !(0.0..1.0).contains(beta)) {
            return range("betas", "in [0, 1)", format!("{:?}", self.betas()));
        }
        if let Some(limit) = self.clip_norm.filter(|limit| !(*limit > 0.0 && limit.is_finite())) {
            return range("clip_norm", "above 0", limit.to_string());
        }
        if self.nesterov() && self.momentum() == 0.0 {
            return Err(OptimError::Nesterov);
        }
        Ok(())
    }

    /// Returns the slots of every parameter, in the order of the graph's inputs.
    pub fn slots(&self) -> Vec<SlotSpec> {
        match self.kind {
            OptimizerKind::Sgd => sgd::slots(self),
            OptimizerKind::Adam | OptimizerKind::AdamW => adam::slots(),
        }
    }

    /// Returns the graph of one step over the named parameters.
    ///
    /// # Errors
    /// The options are wrong, a parameter is not float32 or float64, or two names collide.
    pub fn graph(&self, parameters: &[(String, Fact)]) -> Result<Graph, OptimError> {
        self.validate()?;
        self.check_parameters(parameters)?;
        let slots = self.slots();
        let mut b = Builder::new("optimizer");
        let lr = b.input("lr", Fact::fixed(DType::F32, &[]));
        let mut states = Vec::with_capacity(parameters.len());
        for (name, fact) in parameters {
            let value = b.input(name, fact.clone());
            let grad = b.input(&format!("{name}.grad"), fact.clone());
            let held = slots.iter().map(|slot| {
                let fact = if slot.scalar { Fact::fixed(DType::F32, &[]) } else { fact.clone() };
                b.input(&format!("{name}.{}", slot.name), fact)
            });
            states.push(State { value, grad, slots: held.collect() });
        }
        if let Some(limit) = self.clip_norm.filter(|_| !states.is_empty()) {
            let grads: Vec<ValueId> = states.iter().map(|state| state.grad).collect();
            let clipped = clip::build(&mut b, limit, &grads);
            states.iter_mut().zip(clipped).for_each(|(state, grad)| state.grad = grad);
        }
        for ((name, fact), state) in parameters.iter().zip(&states) {
            b.enter(Origin::Update(name.clone()), &format!("{name}/update"));
            let dtype = b.dtype(state.value);
            let lr = if dtype == DType::F32 { lr } else { b.cast(lr, dtype) };
            let next = match self.kind {
                OptimizerKind::Sgd => sgd::step(self, &mut b, lr, state),
                OptimizerKind::Adam => adam::step(self, &mut b, lr, state),
                OptimizerKind::AdamW => adamw::step(self, &mut b, lr, state),
            };
            b.refine(next.value, fact);
            b.output(next.value, &format!("{name}.next"));
            for (slot, value) in slots.iter().zip(next.slots) {
                b.output(value, &format!("{name}.{}.next", slot.name));
            }
        }
        Ok(b.finish())
    }

    fn check_parameters(&self, parameters: &[(String, Fact)]) -> Result<(), OptimError> {
        let mut taken = HashMap::from([("lr".to_string(), "the learning rate".to_string())]);
        for (parameter, fact) in parameters {
            if !matches!(fact.dtype, Some(DType::F32 | DType::F64)) {
                return Err(OptimError::DType { parameter: parameter.clone(), found: fact.to_string() });
            }
            let mut names = vec![parameter.clone(), format!("{parameter}.grad"), format!("{parameter}.next")];
            for slot in self.slots() {
                names.extend([format!("{parameter}.{}", slot.name), format!("{parameter}.{}.next", slot.name)]);
            }
            for name in names {
                let second = format!("parameter \"{parameter}\"");
                if let Some(first) = taken.insert(name.clone(), second.clone()) {
                    return Err(OptimError::Collision { name, first, second });
                }
            }
        }
        Ok(())
    }

    fn momentum(&self) -> f64 {
        self.momentum.unwrap_or(0.0)
    }

    fn nesterov(&self) -> bool {
        self.nesterov.unwrap_or(false)
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay.unwrap_or(if self.kind == OptimizerKind::AdamW { 1e-2 } else { 0.0 })
    }

    fn betas(&self) -> [f64; 2] {
        self.betas.unwrap_or([0.9, 0.999])
    }

    fn eps(&self) -> f64 {
        self.eps.unwrap_or(1e-8)
    }
}

/// What an update of one parameter reads.
struct State {
    value: ValueId,
    grad: ValueId,
    slots: Vec<ValueId>,
}

/// What an update of one parameter makes.
struct Next {
    value: ValueId,
    slots: Vec<ValueId>,
}

#[cfg(all(test, feature = "runner"))]
mod testing;
#[cfg(test)]
mod tests;
