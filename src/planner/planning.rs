//! The front door: a plan in one expression.

use super::{Analysis, Basis, Loaded, PlannerError, Request, identify, sizes};
use crate::cost::{CostModel, UnitCost};
use crate::error::in_one_line;
use crate::modules::{ModuleTree, Param, Unit, UnitKind};
use crate::onnx::OnnxFile;
use crate::plan::{FreezePlan, PlanOptions, Policy, write};
use bytes::Bytes;
use serde_json::Value;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// A plan that is asked for: which model, how long, which policy. [`Planning::run`] makes it, [`Planning::open`] also
/// gives what it is made from.
///
/// What is not said is as on the command line: the policy `linear` with its defaults, units that are leaf modules, batches
/// of one sample, an optimizer that keeps one tensor for each parameter (SGD with momentum). What the model's file says
/// of its own training holds: what training artifacts keep frozen and what a training step of the file does not update is
/// frozen throughout.
///
/// ```
/// let plan = freeze_plan::plan("fixtures/digits/model.onnx").epochs(10).with("freeze_start", 0.25).batch(64).run()?;
/// assert_eq!(plan.epochs[9].frozen_units, 10);
/// # Ok::<(), freeze_plan::planner::PlannerError>(())
/// ```
#[must_use = "nothing is read before `run` or `open`"]
pub struct Planning {
    source: Source,
    epochs: usize,
    steps_per_epoch: usize,
    batch: usize,
    shapes: Vec<(String, Vec<usize>)>,
    slots: Option<u64>,
    options: PlanOptions,
    own: Option<Box<dyn Policy>>,
}

/// Where the model comes from.
enum Source {
    Path(PathBuf),
    Bytes(PathBuf, Bytes),
}

/// A policy by its name, or one of the caller's.
#[non_exhaustive]
pub enum PolicyChoice {
    /// One of [`policies`](crate::plan::policies), with the settings of [`Planning::with`].
    Named(String),
    /// One of the caller's.
    Own(Box<dyn Policy>),
}

impl From<&str> for PolicyChoice {
    fn from(name: &str) -> PolicyChoice {
        PolicyChoice::Named(name.into())
    }
}

impl From<String> for PolicyChoice {
    fn from(name: String) -> PolicyChoice {
        PolicyChoice::Named(name)
    }
}

impl From<Box<dyn Policy>> for PolicyChoice {
    fn from(policy: Box<dyn Policy>) -> PolicyChoice {
        PolicyChoice::Own(policy)
    }
}

impl<P: Policy + 'static> From<P> for PolicyChoice {
    fn from(policy: P) -> PolicyChoice {
        PolicyChoice::Own(Box::new(policy))
    }
}

impl std::fmt::Debug for PolicyChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PolicyChoice::Named(name) => f.debug_tuple("Named").field(name).finish(),
            PolicyChoice::Own(policy) => f.debug_tuple("Own").field(&policy.name()).finish(),
        }
    }
}

impl std::fmt::Debug for Planning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let model = match &self.source {
            Source::Path(path) | Source::Bytes(path, _) => path,
        };
        let policy = self.own.as_ref().map_or(self.options.policy.as_str(), |policy| policy.name());
        let mut shown = f.debug_struct("Planning");
        shown.field("model", model).field("epochs", &self.epochs).field("policy", &policy).finish_non_exhaustive()
    }
}

impl Planning {
    /// Returns a plan to be made of an ONNX file, or of a folder with ONNX Runtime's training artifacts.
    pub fn of(model: impl AsRef<Path>) -> Planning {
        Planning::from(Source::Path(model.as_ref().into()))
    }

    /// Returns a plan to be made of the bytes of an ONNX file. `name` stands in messages and in the plan; its folder is where
    /// data outside of the file are looked for. Where there are no folders, [`Planning::run_on`] plans what
    /// [`read_bytes_with`](crate::onnx::read_bytes_with) reads.
    ///
    /// ```
    /// let bytes = std::fs::read("fixtures/digits/model.onnx")?;
    /// let plan = freeze_plan::Planning::of_bytes("digits.onnx", bytes).epochs(4).run()?;
    /// assert_eq!((plan.epochs.len(), plan.model.file.as_str()), (4, "digits.onnx"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of_bytes(name: impl AsRef<Path>, bytes: impl Into<Bytes>) -> Planning {
        Planning::from(Source::Bytes(name.as_ref().into(), bytes.into()))
    }

    fn from(source: Source) -> Planning {
        Planning {
            source,
            epochs: 10,
            steps_per_epoch: 0,
            batch: 1,
            shapes: Vec::new(),
            slots: None,
            options: PlanOptions::default(),
            own: None,
        }
    }

    /// Sets the epochs of the run. Default 10.
    pub fn epochs(mut self, epochs: usize) -> Planning {
        self.epochs = epochs;
        self
    }

    /// Sets the steps of an epoch, for policies that decide within epochs. Default: not known.
    pub fn steps_per_epoch(mut self, steps: usize) -> Planning {
        self.steps_per_epoch = steps;
        self
    }

    /// Sets the samples of a batch, which costs are counted for. Default 1.
    pub fn batch(mut self, samples: usize) -> Planning {
        self.batch = samples;
        self
    }

    /// Sets the shape of an input that leaves more open than the batch.
    pub fn shape(mut self, input: &str, shape: &[usize]) -> Planning {
        self.shapes.push((input.into(), shape.into()));
        self
    }

    /// Sets the tensors that the optimizer keeps for each parameter: SGD 0, with momentum 1, Adam 2. Default: those of the
    /// training step that the file carries, else 1.
    pub fn slots(mut self, slots: u64) -> Planning {
        self.slots = Some(slots);
        self
    }

    /// Sets who decides: the name of a policy, or a policy of the caller's. Default `linear`.
    pub fn policy(mut self, policy: impl Into<PolicyChoice>) -> Planning {
        match policy.into() {
            PolicyChoice::Named(name) => (self.options.policy, self.own) = (name, None),
            PolicyChoice::Own(policy) => self.own = Some(policy),
        }
        self
    }

    /// Sets a setting of the named policy, such as `freeze_start`; `freeze-plan policies NAME` lists them.
    pub fn with(mut self, setting: &str, value: impl Into<Value>) -> Planning {
        self.options = self.options.with(setting, value);
        self
    }

    /// Sets what is frozen as one. Default: what the policy is made for, most often leaf modules.
    pub fn unit(mut self, unit: UnitKind) -> Planning {
        self.options.unit = Some(unit);
        self
    }

    /// Freezes in every epoch what a pattern on unit paths and parameter names matches.
    pub fn freeze(mut self, pattern: &str) -> Planning {
        self.options.freeze.push(pattern.into());
        self
    }

    /// Never freezes what a pattern on unit paths and parameter names matches.
    pub fn keep(mut self, pattern: &str) -> Planning {
        self.options.keep.push(pattern.into());
        self
    }

    /// Sets all options of the table `[freeze]` at once, those that were set before included.
    pub fn options(mut self, options: PlanOptions) -> Planning {
        self.options = options;
        self
    }

    /// Reads the model and makes the plan. No weight is read.
    ///
    /// # Errors
    /// The file is no model, an option is out of range, or a pattern matches nothing.
    pub fn run(self) -> Result<FreezePlan, PlannerError> {
        self.open()?.plan()
    }

    /// Reads the model and finds its units and their costs.
    ///
    /// # Errors
    /// As [`Planning::run`].
    pub fn open(mut self) -> Result<Opened, PlannerError> {
        let loaded = match std::mem::replace(&mut self.source, Source::Path(PathBuf::new())) {
            Source::Path(path) => Loaded::read(path)?,
            Source::Bytes(name, bytes) => Loaded::parse(name, bytes)?,
        };
        let loaded = loaded.with_roles(&self.options.parameter, &self.options.buffer)?;
        Ok(Opened { basis: self.basis(&loaded)?, loaded })
    }

    /// Makes the plan of a model that was read already, and not of the one that this was begun with: for several plans of
    /// one model.
    ///
    /// # Errors
    /// As [`Planning::run`].
    pub fn run_on(self, loaded: &Loaded) -> Result<FreezePlan, PlannerError> {
        let (parameter, buffer) = (&self.options.parameter, &self.options.buffer);
        let loaded = match (parameter, buffer) == (&loaded.analysis.asked.0, &loaded.analysis.asked.1) {
            true => Cow::Borrowed(loaded),
            false => Cow::Owned(loaded.clone().with_roles(parameter, buffer)?),
        };
        self.basis(&loaded)?.plan()
    }

    fn basis(self, loaded: &Loaded) -> Result<Basis, PlannerError> {
        if let Some((name, reason)) = self.options.problem() {
            return Err(PlannerError::Option { name, reason });
        }
        let (step, unused) = match loaded.step() {
            Some(Ok(step)) => (Some(step), None),
            Some(Err(error)) => (None, Some(format!("the training information is not used: {}", in_one_line(&error)))),
            None => (None, None),
        };
        let request = Request {
            epochs: self.epochs,
            steps_per_epoch: self.steps_per_epoch,
            options: &self.options,
            slots: self.slots.or(step.as_ref().map(|step| step.slots)).unwrap_or(1),
            own_slots: Default::default(),
            sizes: sizes(&loaded.analysis.model.graph, self.batch, &self.shapes)?,
        };
        let mut basis = loaded.basis(&request, self.batch, step.as_ref(), self.own)?;
        basis.notes.extend(unused);
        Ok(basis)
    }
}

/// A model that was opened for planning.
///
/// ```
/// let model = freeze_plan::plan("fixtures/digits/model.onnx").batch(64).open()?;
/// for (unit, cost) in model.units().iter().zip(model.costs()) {
///     println!("{:<16} {:<8} {:>8} elements {:>12} flops", unit.path, unit.class, cost.elements, cost.flops.total());
/// }
/// let plan = model.plan()?;
/// assert_eq!(plan.units.len(), model.units().len());
/// # Ok::<(), freeze_plan::planner::PlannerError>(())
/// ```
pub struct Opened {
    loaded: Loaded,
    basis: Basis,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Opened");
        shown.field("file", &self.loaded.file.path).field("units", &self.units().len()).finish_non_exhaustive()
    }
}

impl Opened {
    /// Returns the file.
    pub fn file(&self) -> &OnnxFile {
        &self.loaded.file
    }

    /// Returns the model with its facts and parameters.
    pub fn analysis(&self) -> &Analysis {
        &self.loaded.analysis
    }

    /// Returns the module tree.
    pub fn tree(&self) -> &ModuleTree {
        &self.loaded.analysis.tree
    }

    /// Returns the trainable parameters, running statistics and buffers, in file order.
    pub fn parameters(&self) -> &[Param] {
        &self.loaded.analysis.parameters
    }

    /// Returns what a policy freezes as one, from the input side.
    pub fn units(&self) -> &[Unit] {
        self.basis.units()
    }

    /// Returns what each unit costs.
    pub fn costs(&self) -> &[UnitCost] {
        self.basis.costs()
    }

    /// Returns what a step costs with any set of parameters frozen.
    pub fn step_costs(&self) -> &CostModel {
        self.basis.step_costs()
    }

    /// Makes the plan.
    ///
    /// # Errors
    /// A pattern matches nothing, or the policy does not fit the units.
    pub fn plan(&self) -> Result<FreezePlan, PlannerError> {
        self.basis.plan()
    }

    /// Makes the plan as a plan file has it: with the digest of the model's file, all bytes of which this reads.
    ///
    /// # Errors
    /// As [`Opened::plan`].
    pub fn identified_plan(&self) -> Result<FreezePlan, PlannerError> {
        let mut plan = self.plan()?;
        identify(&mut plan, &self.loaded.file);
        Ok(plan)
    }

    /// Writes a plan of the model to a file, with the digest of all bytes of the model's file, which this reads.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, plan: &FreezePlan, path: impl AsRef<Path>) -> Result<(), PlannerError> {
        let mut plan = plan.clone();
        identify(&mut plan, &self.loaded.file);
        Ok(write(path.as_ref(), &plan)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Decision, FrozenSet, Moment};
    use std::path::PathBuf;

    fn digits() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits/model.onnx")
    }

    struct First;

    impl Policy for First {
        fn name(&self) -> &str {
            "first"
        }

        fn decide(&self, at: &Moment<'_>) -> Decision {
            Decision::of(FrozenSet::prefix(at.units.len(), at.completed))
        }
    }

    #[test]
    fn a_policy_is_named_or_the_callers() {
        let depths = |planning: Planning| -> Vec<usize> {
            planning.run().unwrap().epochs.iter().map(|epoch| epoch.frozen_units).collect()
        };
        assert_eq!(depths(Planning::of(digits()).epochs(3).policy(First)), [0, 1, 2]);
        assert_eq!(depths(Planning::of(digits()).epochs(3).policy(Box::new(First) as Box<dyn Policy>)), [0, 1, 2]);
        assert_eq!(depths(Planning::of(digits()).epochs(3).policy(First).policy("none")), [0, 0, 0]);
        let keep = Planning::of(digits()).epochs(3).policy(First).keep("conv1").run().unwrap();
        assert!(keep.epochs[2].frozen.iter().all(|name| !name.starts_with("conv1")));
    }

    #[test]
    fn the_plan_is_that_of_the_parts() {
        let open = || Planning::of(digits()).epochs(5).batch(64).with("freeze_start", 0.2).slots(2).open().unwrap();
        let model = open();
        let options = PlanOptions::default().with("freeze_start", 0.2);
        let file = crate::onnx::read(&digits()).unwrap();
        let analysis = Analysis::of(&file.model);
        let sizes = sizes(&analysis.model.graph, 64, &[]).unwrap();
        let own_slots = Default::default();
        let request = Request { epochs: 5, steps_per_epoch: 0, options: &options, slots: 2, own_slots, sizes };
        assert_eq!(model.plan().unwrap(), super::super::plan(&file, &analysis, &request).unwrap());
        assert_eq!(model.units().len(), model.costs().len());
        assert_eq!(model.tree().registration(), analysis.tree.registration());
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |planning: Planning| planning.run().unwrap_err().to_string();
        assert!(error(Planning::of("none.onnx")).contains("none.onnx"));
        assert!(error(Planning::of(digits()).policy("liner")).contains("liner"));
        assert!(error(Planning::of(digits()).with("freeze_stat", 0.5)).contains("freeze_stat"));
        assert!(error(Planning::of(digits()).batch(0)).contains("found 0"));
        assert!(error(Planning::of(digits()).shape("y", &[1])).contains("\"y\""));
    }

    #[test]
    fn a_written_plan_names_the_file_it_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let model = Planning::of(digits()).open().unwrap();
        model.write(&model.plan().unwrap(), &path).unwrap();
        assert_eq!(crate::plan::read(&path).unwrap().model.sha256.len(), 64);
    }
}
