//! The checkpoint of a phase: of the model's own weights, or of what a device has trained.
//!
//! Weights, statistics and the property bag are taken over as they are. So is the state of the optimizer while no
//! parameter joins: those that freeze leave it, the count of steps goes on.
//!
//! When a parameter joins, AdamW needs care, because one count `t` corrects the averages of all parameters: averages that
//! start at zero beside a large `t` give steps of several times the learning rate. So the averages are written anew as if
//! there had been `n = min(t, round(1 / (1 - beta1)))` steps, with the same corrected values:
//!
//! ```text
//! m = (m / (1 - beta1^t)) (1 - beta1^n)
//! v = (v / (1 - beta2^t)) (1 - beta2^n)
//! t = n
//! ```
//!
//! What joins has zeros, or with [`OnReturn::Keep`] the corrected averages that it had when it froze. Those wait in the
//! checkpoint as parameters of the name [`names::parked`] that no graph reads.

use super::graphs::Phase;
use super::optimizer::{is_adam, moments};
use super::{ClassicError, names};
use crate::artifacts::{Checkpoint, OptimizerGroup};
use crate::graph::{DType, Fact, Tensor};
use crate::optim::OptimizerSpec;
use crate::plan::OnReturn;
use std::collections::{BTreeMap, HashMap};

const MOMENTS: [&str; 2] = ["momentum0", "momentum1"];

impl Phase {
    /// Returns the checkpoint of a run that begins in this phase.
    pub fn initial(&self) -> Checkpoint {
        let list = |names: &[String]| names.iter().map(|name| (name.clone(), self.values[name].clone())).collect();
        Checkpoint { trains: list(&self.trains), frozen: list(&self.frozen), ..Checkpoint::default() }
    }

    /// Returns the checkpoint of a run that goes on in this phase from what it has trained so far.
    ///
    /// # Errors
    /// The checkpoint is of another model, or its optimizer state of another optimizer.
    pub fn carried(
        &self,
        spec: &OptimizerSpec,
        from: &Checkpoint,
        on_return: OnReturn,
    ) -> Result<Checkpoint, ClassicError> {
        let found: HashMap<&str, &Tensor> =
            from.trains.iter().chain(&from.frozen).map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let known = |name: &str| self.values.contains_key(name) || names::is_ours(name);
        if let Some(name) = found.keys().find(|name| !known(name)) {
            return Err(ClassicError::Stranger { name: (*name).to_string() });
        }
        let mut result = self.initial();
        for (name, tensor) in result.trains.iter_mut().chain(&mut result.frozen) {
            match found.get(name.as_str()) {
                Some(value) => *tensor = fitting(name, value, tensor)?,
                // A phase without Dropout has no count.
                None if names::is_ours(name) => {}
                None => return Err(ClassicError::Missing { name: name.clone() }),
            }
        }
        if let Some(count) = found.get(names::COUNT).filter(|_| !self.values.contains_key(names::COUNT)) {
            result.frozen.push((names::COUNT.into(), (*count).clone()));
        }
        result.properties.clone_from(&from.properties);
        if let Some(group) = from.optimizer.first().filter(|group| group.step > 0) {
            let state = Averages { phase: self, spec, group, waiting: &found, keeps: on_return == OnReturn::Keep };
            let (group, parked) = state.carried()?;
            result.optimizer.push(group);
            result.frozen.extend(parked);
        }
        Ok(result)
    }
}

/// Returns the values that a checkpoint has for the parameters of a model, which are given with their own.
///
/// # Errors
/// The checkpoint is of another model.
pub fn restored(
    parameters: &BTreeMap<String, Tensor>,
    checkpoint: &Checkpoint,
) -> Result<BTreeMap<String, Tensor>, ClassicError> {
    let mut values = BTreeMap::new();
    for (name, tensor) in checkpoint.trains.iter().chain(&checkpoint.frozen).filter(|(name, _)| !names::is_ours(name)) {
        let like = parameters.get(name).ok_or_else(|| ClassicError::Stranger { name: name.clone() })?;
        values.insert(name.clone(), fitting(name, tensor, like)?);
    }
    match parameters.keys().find(|name| !values.contains_key(*name)) {
        Some(name) => Err(ClassicError::Missing { name: name.clone() }),
        None => Ok(values),
    }
}

fn fitting(name: &str, value: &Tensor, like: &Tensor) -> Result<Tensor, ClassicError> {
    if (value.dtype(), value.shape()) == (like.dtype(), like.shape()) {
        return Ok(value.clone());
    }
    let shown = |tensor: &Tensor| Fact::fixed(tensor.dtype(), tensor.shape()).to_string();
    Err(ClassicError::Shape { name: name.to_string(), found: shown(value), expected: shown(like) })
}

/// The optimizer state at a phase change.
struct Averages<'a> {
    phase: &'a Phase,
    spec: &'a OptimizerSpec,
    group: &'a OptimizerGroup,
    /// Everything of the checkpoint by name.
    waiting: &'a HashMap<&'a str, &'a Tensor>,
    keeps: bool,
}

type Named = Vec<(String, Tensor)>;

impl Averages<'_> {
    fn carried(&self) -> Result<(OptimizerGroup, Named), ClassicError> {
        let joins = self.phase.trains.iter().any(|name| !self.group.moments.contains_key(name));
        let anew = joins && is_adam(self.spec);
        let step = if anew { self.group.step.min(memory(self.spec)) } else { self.group.step };
        let mut moments = BTreeMap::new();
        for name in &self.phase.trains {
            let like = &self.phase.values[name];
            let averages = match self.group.moments.get(name) {
                Some(averages) => {
                    let averages = self.checked(name, averages)?;
                    if anew { self.rescaled(averages, self.group.step, step) } else { averages }
                }
                None => self.joining(name, like, step)?,
            };
            moments.insert(name.clone(), averages);
        }
        let parked = if self.keeps { self.parked()? } else { Vec::new() };
        let (name, initial_lr) = (self.group.name.clone(), self.group.initial_lr);
        Ok((OptimizerGroup { name, step, initial_lr, moments }, parked))
    }

    /// Returns the averages of a parameter in the order of [`MOMENTS`].
    fn checked(&self, name: &str, averages: &Named) -> Result<Named, ClassicError> {
        let expected = moments(self.spec);
        let wrong = || ClassicError::Moments {
            name: name.to_string(),
            found: averages.len(),
            expected,
            optimizer: self.spec.kind.to_string(),
        };
        if averages.len() != expected {
            return Err(wrong());
        }
        let like = self.phase.values.get(name);
        let mut ordered = Vec::with_capacity(expected);
        for moment in &MOMENTS[..expected] {
            let (_, tensor) = averages.iter().find(|(known, _)| known == moment).ok_or_else(wrong)?;
            let what = format!("{moment} of {name}");
            let tensor = like.map_or_else(|| Ok(tensor.clone()), |like| fitting(&what, tensor, like))?;
            ordered.push(((*moment).to_string(), tensor));
        }
        Ok(ordered)
    }

    fn joining(&self, name: &str, like: &Tensor, step: i64) -> Result<Named, ClassicError> {
        let mut averages = Vec::new();
        for moment in &MOMENTS[..moments(self.spec)] {
            let waiting = self.waiting.get(names::parked(name, moment).as_str()).filter(|_| self.keeps);
            let tensor = match waiting {
                Some(tensor) => fitting(&names::parked(name, moment), tensor, like)?,
                None => Tensor::zeros(DType::F32, like.shape()),
            };
            averages.push(((*moment).to_string(), tensor));
        }
        Ok(self.scaled(averages, |beta| after(beta, step)))
    }

    /// Returns the corrected averages of what is frozen in this phase: those that wait, and those that begin to.
    fn parked(&self) -> Result<Named, ClassicError> {
        let mut parked = Vec::new();
        for name in self.phase.frozen.iter().filter(|_| is_adam(self.spec)) {
            if let Some(averages) = self.group.moments.get(name) {
                let corrected = self.scaled(self.checked(name, averages)?, |beta| 1.0 / after(beta, self.group.step));
                parked.extend(corrected.into_iter().map(|(moment, tensor)| (names::parked(name, &moment), tensor)));
                continue;
            }
            let waiting = MOMENTS.iter().map(|moment| names::parked(name, moment));
            parked.extend(waiting.filter_map(|name| Some((name.clone(), (*self.waiting.get(name.as_str())?).clone()))));
        }
        Ok(parked)
    }

    fn rescaled(&self, averages: Named, from: i64, to: i64) -> Named {
        if from == to {
            return averages;
        }
        self.scaled(averages, |beta| after(beta, to) / after(beta, from))
    }

    fn scaled(&self, averages: Named, factor: impl Fn(f64) -> f64) -> Named {
        let betas = self.spec.betas();
        let scaled = |((moment, tensor), beta): ((String, Tensor), f64)| {
            let elements = tensor.to_vec::<f32>().unwrap_or_default();
            let factor = factor(beta);
            let elements = elements.into_iter().map(|value| (f64::from(value) * factor) as f32).collect();
            (moment, Tensor::from_vec(tensor.shape(), elements))
        };
        averages.into_iter().zip(betas).map(scaled).collect()
    }
}

/// Returns the steps that the average of gradients reaches back.
fn memory(spec: &OptimizerSpec) -> i64 {
    let [beta, _] = spec.betas();
    ((1.0 / (1.0 - beta)).round() as i64).max(1)
}

/// Returns the weight of all gradients together in an average after some steps: `1 - beta^t`.
fn after(beta: f64, steps: i64) -> f64 {
    1.0 - beta.powf(steps as f64)
}
