//! Optimizers as graph construction: one graph that moves every trainable parameter one step.
//!
//! An [`OptimizerSpec`] is the `[optimizer]` table of a job. Its graph reads `lr` and, for each
//! parameter `P`, `P`, `P.grad` and the slots `P.<slot>`; it writes `P.next` and `P.<slot>.next`.
//! Where the rate of some parameter varies on its own, it also reads `lr_scale`.
//! Update rules, defaults and the meaning of options are PyTorch's. What is frozen is not in the
//! list of parameters and so nowhere in the graph. A count of steps is a slot, so that the averages
//! of a parameter that starts to train late are corrected from its own start.
//!
//! At run time `P` and `P.next` are one buffer, and so are a slot and its `.next`. Therefore
//! whatever reads one of them is an ancestor of the node that writes its `.next`.
//!
//! What this module does not do: learning-rate schedules (the runner feeds `lr` and `lr_scale`), or
//! hold slots.

mod adagrad;
mod adam;
mod adamw;
mod clip;
mod fused;
mod kind;
mod lion;
mod muon;
mod rates;
mod rmsprop;
mod sgd;
mod spec;

pub use kind::OptimizerKind;
pub use spec::{AdjustLr, Group, OptimizerSpec};

use crate::error::ErrorKind;
use crate::graph::{Builder, DType, Fact, Graph, Origin, ValueId};
use std::borrow::Cow;
use std::collections::HashMap;

/// A parameter that an optimizer updates, with what is its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Name.
    pub name: String,
    /// Dtype and shape.
    pub fact: Fact,
    /// Factor of the learning rate.
    pub lr_scale: f64,
    /// Element of the input `lr_scale` that is another factor of it, given with each step.
    pub element: Option<usize>,
    /// Weight decay, where it is not the optimizer's.
    pub weight_decay: Option<f64>,
    /// True where the fallback of `muon` updates it although it is a matrix.
    pub fallback: bool,
}

impl Parameter {
    /// Returns a parameter without settings of its own.
    pub fn new(name: &str, fact: Fact) -> Parameter {
        Parameter { name: name.to_string(), fact, lr_scale: 1.0, element: None, weight_decay: None, fallback: false }
    }
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

impl SlotSpec {
    fn zeros(name: &'static str) -> SlotSpec {
        SlotSpec { name, scalar: false, initial: 0.0 }
    }

    /// A count of the steps of this parameter, from 0.
    fn count() -> SlotSpec {
        SlotSpec { name: "step", scalar: true, initial: 0.0 }
    }
}

/// An optimizer that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum OptimError {
    #[error("the optimizer {kind} has no option {option}")]
    Option { kind: OptimizerKind, option: &'static str },
    #[error("the optimizer {kind} needs {option} {range}, found {found}")]
    Range { kind: OptimizerKind, option: &'static str, range: &'static str, found: String },
    #[error("the optimizer sgd needs momentum above 0 and no dampening for nesterov")]
    Nesterov,
    #[error("the optimizer sgd needs momentum above 0 for dampening")]
    Dampening,
    #[error("a fallback optimizer has no {option}")]
    Fallback { option: &'static str },
    #[error("parameter \"{parameter}\" is {found}, an optimizer updates float32 or float64")]
    DType { parameter: String, found: String },
    #[error("the learning rate of parameter \"{parameter}\" needs a factor of at least 0, found {found}")]
    Rate { parameter: String, found: f64 },
    #[error("{first} and {second} both need the name \"{name}\" in the optimizer graph")]
    Collision { name: String, first: String, second: String },
}

impl OptimError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OptimError::DType { .. } | OptimError::Collision { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Usage,
        }
    }
}

impl OptimizerSpec {
    /// Returns the slots of a parameter without settings of its own, for `muon` of a matrix, in the
    /// order of the graph's inputs.
    pub fn slots(&self) -> Vec<SlotSpec> {
        match self.kind {
            OptimizerKind::Sgd => sgd::slots(self),
            OptimizerKind::Adam | OptimizerKind::AdamW => adam::slots(self),
            OptimizerKind::RmsProp => rmsprop::slots(self),
            OptimizerKind::Adagrad => adagrad::slots(self),
            OptimizerKind::Lion => lion::slots(),
            OptimizerKind::Muon => muon::slots(),
        }
    }

    /// Returns the slots of a parameter.
    pub fn slots_of(&self, parameter: &Parameter) -> Vec<SlotSpec> {
        self.of(parameter).0.slots()
    }

    /// Returns true when the fallback updates a parameter.
    pub fn falls_back(&self, parameter: &Parameter) -> bool {
        self.kind == OptimizerKind::Muon && (parameter.fallback || parameter.fact.rank() != Some(2))
    }

    /// Returns the options that act on a parameter, and the factor of its learning rate.
    fn of(&self, parameter: &Parameter) -> (Cow<'_, OptimizerSpec>, f64) {
        let flat = parameter.fact.rank().is_some_and(|rank| rank < 2);
        let falls = self.falls_back(parameter);
        let (mut spec, mut scale) = (Cow::Borrowed(self), parameter.lr_scale);
        if falls {
            (spec, scale) = match &self.fallback {
                Some(fallback) => (Cow::Borrowed(&**fallback), scale * fallback.lr() / self.lr()),
                None => (Cow::Owned(OptimizerSpec::new(OptimizerKind::AdamW)), scale),
            };
        }
        let decay = parameter.weight_decay.or((flat && self.decay_1d == Some(false)).then_some(0.0));
        if decay.is_some() {
            spec.to_mut().weight_decay = decay;
        }
        (spec, scale)
    }

    /// Returns the graph of one step over the parameters.
    ///
    /// # Errors
    /// The options are wrong, a parameter is not float32 or float64, or two names collide.
    pub fn graph(&self, parameters: &[Parameter]) -> Result<Graph, OptimError> {
        self.graph_with_scales(parameters, 0)
    }

    /// Returns the graph of one step over the parameters whose input `lr_scale`, where a parameter
    /// reads it, has at least `length` elements.
    ///
    /// # Errors
    /// See [`graph`](Self::graph).
    pub fn graph_with_scales(&self, parameters: &[Parameter], length: usize) -> Result<Graph, OptimError> {
        self.graph_of(parameters, length, false)
    }

    /// As [`graph_with_scales`](Self::graph_with_scales); with `fused`, the update of a float32 parameter is one
    /// operator of our own where there is one.
    ///
    /// # Errors
    /// See [`graph`](Self::graph).
    pub fn graph_of(&self, parameters: &[Parameter], length: usize, fused: bool) -> Result<Graph, OptimError> {
        self.validate()?;
        let needed = rates::length(parameters);
        self.check_parameters(parameters, needed > 0)?;
        let mut b = Builder::new("optimizer");
        let lr = b.input("lr", Fact::fixed(DType::F32, &[]));
        let scales = (needed > 0).then(|| rates::input(&mut b, needed.max(length)));
        let mut states = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            let (name, fact) = (&parameter.name, &parameter.fact);
            let value = b.input(name, fact.clone());
            let grad = b.input(&format!("{name}.grad"), fact.clone());
            let held = self.slots_of(parameter).into_iter().map(|slot| {
                let fact = if slot.scalar { Fact::fixed(DType::F32, &[]) } else { fact.clone() };
                b.input(&format!("{name}.{}", slot.name), fact)
            });
            states.push(State { value, grad, slots: held.collect() });
        }
        let limits = [(self.clip_value, clip::by_value as Clipping), (self.clip_norm, clip::by_norm)];
        for (limit, clipping) in limits.into_iter().filter_map(|(limit, clipping)| Some((limit?, clipping))) {
            let grads: Vec<ValueId> = states.iter().map(|state| state.grad).collect();
            let clipped = if grads.is_empty() { grads } else { clipping(&mut b, limit, &grads) };
            states.iter_mut().zip(clipped).for_each(|(state, grad)| state.grad = grad);
        }
        let rates = scales.map(|scales| rates::build(&mut b, lr, scales, parameters)).unwrap_or_default();
        for (parameter, state) in parameters.iter().zip(&states) {
            let name = &parameter.name;
            b.enter(Origin::Update(name.clone()), &format!("{name}/update"));
            let dtype = b.dtype(state.value);
            let (spec, scale) = self.of(parameter);
            let mut lr = match parameter.element.and_then(|element| rates.get(&(dtype, element))) {
                Some(rate) => *rate,
                None if dtype == DType::F32 => lr,
                None => b.cast(lr, dtype),
            };
            if scale != 1.0 {
                lr = b.scale(lr, scale);
            }
            let own = if fused { fused::step(&spec, &mut b, lr, state) } else { None };
            let next = own.unwrap_or_else(|| spec.step(&mut b, lr, state));
            b.refine(next.value, &parameter.fact);
            b.output(next.value, &format!("{name}.next"));
            for (slot, value) in spec.slots().iter().zip(next.slots) {
                b.output(value, &format!("{name}.{}.next", slot.name));
            }
        }
        Ok(b.finish())
    }

    fn step(&self, b: &mut Builder, lr: ValueId, state: &State) -> Next {
        match self.kind {
            OptimizerKind::Sgd => sgd::step(self, b, lr, state),
            OptimizerKind::Adam if self.decoupled_weight_decay == Some(true) => adamw::step(self, b, lr, state),
            OptimizerKind::Adam => adam::step(self, b, lr, state),
            OptimizerKind::AdamW => adamw::step(self, b, lr, state),
            OptimizerKind::RmsProp => rmsprop::step(self, b, lr, state),
            OptimizerKind::Adagrad => adagrad::step(self, b, lr, state),
            OptimizerKind::Lion => lion::step(self, b, lr, state),
            OptimizerKind::Muon => muon::step(self, b, lr, state),
        }
    }

    fn check_parameters(&self, parameters: &[Parameter], scaled: bool) -> Result<(), OptimError> {
        let mut taken = HashMap::from([("lr".to_string(), "the learning rate".to_string())]);
        if scaled {
            taken.insert(rates::LR_SCALE.into(), "the factors of the learning rate".into());
        }
        for parameter in parameters {
            let (name, fact) = (&parameter.name, &parameter.fact);
            if !matches!(fact.dtype, Some(DType::F32 | DType::F64)) {
                return Err(OptimError::DType { parameter: name.clone(), found: fact.to_string() });
            }
            let found = parameter.lr_scale;
            if !(found >= 0.0 && found.is_finite()) {
                return Err(OptimError::Rate { parameter: name.clone(), found });
            }
            let mut names = vec![name.clone(), format!("{name}.grad"), format!("{name}.next")];
            for slot in self.slots_of(parameter) {
                names.extend([format!("{name}.{}", slot.name), format!("{name}.{}.next", slot.name)]);
            }
            let second = format!("parameter \"{name}\"");
            for name in names {
                if let Some(first) = taken.insert(name.clone(), second.clone()) {
                    return Err(OptimError::Collision { name, first, second });
                }
            }
        }
        Ok(())
    }
}

/// Appends a way of clipping gradients to a limit.
type Clipping = fn(&mut Builder, f32, &[ValueId]) -> Vec<ValueId>;

/// What an update of one parameter reads.
struct State {
    value: ValueId,
    grad: ValueId,
    slots: Vec<ValueId>,
}

/// Appends `p (1 - lr weight_decay)`.
fn shrunk(b: &mut Builder, weight_decay: f64, lr: ValueId, state: &State) -> ValueId {
    if weight_decay == 0.0 {
        return state.value;
    }
    let decay = b.scale(lr, -weight_decay);
    let kept = b.shift(decay, 1.0);
    b.mul(state.value, kept)
}

/// Appends `grad + weight_decay p`.
fn decayed(b: &mut Builder, weight_decay: f64, state: &State) -> ValueId {
    if weight_decay == 0.0 {
        return state.grad;
    }
    let pull = b.scale(state.value, weight_decay);
    b.add(state.grad, pull)
}

/// Appends `beta old + (1 - beta) new`.
fn blend(b: &mut Builder, old: ValueId, new: ValueId, beta: f64) -> ValueId {
    let kept = b.scale(old, beta);
    let added = b.scale(new, 1.0 - beta);
    b.add(kept, added)
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
