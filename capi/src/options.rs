//! Options of a plan, by name.

use crate::out::{some, text};
use crate::status::{Failure, fp_status, guard};
use freeze_plan::plan::PlanOptions;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ffi::c_char;
use std::mem::MaybeUninit;

/// Options of a plan. One thread at a time may change them.
#[derive(Clone, Default)]
pub struct fp_options {
    pub(crate) plan: PlanOptions,
    pub(crate) batch: Option<usize>,
    pub(crate) shapes: Vec<(String, Vec<usize>)>,
    pub(crate) steps_per_epoch: usize,
    pub(crate) slots: Option<u64>,
}

impl fp_options {
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let plan = &mut self.plan;
        match name {
            "policy" => plan.policy = value.into(),
            "unit" => plan.unit = Some(read(name, value)?),
            "freeze" => plan.freeze.push(value.into()),
            "keep" => plan.keep.push(value.into()),
            "parameter" => plan.parameter.push(value.into()),
            "buffer" => plan.buffer.push(value.into()),
            "batch_norm" => plan.batch_norm = read(name, value)?,
            "dropout" => plan.dropout = read(name, value)?,
            "on_return" => plan.on_return = read(name, value)?,
            "warm_up_steps" => plan.warm_up_steps = read(name, value)?,
            "rollback" => plan.rollback = Some(read(name, value)?),
            "prefix" => plan.prefix = read(name, value)?,
            "batch" => self.batch = Some(read(name, value)?),
            "shape" => self.shapes.push(shape(value)?),
            "steps_per_epoch" => self.steps_per_epoch = read(name, value)?,
            "slots" => self.slots = Some(read(name, value)?),
            _ => drop(plan.knobs.insert(name.into(), value_of(value))),
        }
        Ok(())
    }
}

/// Returns a value, which is JSON or a word as it stands.
fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

fn read<T: DeserializeOwned>(name: &str, value: &str) -> Result<T, Failure> {
    serde_json::from_value(value_of(value)).map_err(|error| Failure::usage(format!("{name} is \"{value}\": {error}")))
}

fn shape(text: &str) -> Result<(String, Vec<usize>), Failure> {
    let wrong = || Failure::usage(format!("shape is \"{text}\", expected NAME=D,D,..")).hint("such as x=1,3,224,224");
    let (name, dims) = text.split_once('=').ok_or_else(wrong)?;
    let dims = dims.split(',').map(|dim| dim.trim().parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    Ok((name.to_string(), dims))
}

/// Makes options with every value at its default. fp_options_free() frees them.
#[unsafe(no_mangle)]
pub extern "C" fn fp_options_new(options: Option<&mut MaybeUninit<Box<fp_options>>>) -> fp_status {
    guard(|| {
        some(options, "options")?.write(Box::default());
        Ok(())
    })
}

/// Sets an option by the name that it has in the table freeze of a job file, to a value as on the command
/// line:
///
/// - policy: its name; "linear" by default
/// - freeze_start and the other settings of the policy: a number, a word, or JSON
/// - unit: "leaf", "composer", "block" or "parameter"
/// - freeze, keep: a pattern; each call adds one
/// - parameter, buffer: a pattern for what trains, and for what never does; each call adds one
/// - batch_norm: "train" or "frozen"
/// - dropout: "train" or "off"
/// - batch: the batch size that costs are counted for; 1 by default
/// - shape: the shape of an input, as "x=1,3,224,224"; each call adds one
/// - steps_per_epoch: for policies that act within an epoch; not known by default
/// - slots: tensors that the optimizer keeps for each parameter; by default those of the training step in
///   the file, else 1
///
/// and on_return, warm_up_steps, rollback, prefix, which a run reads from the plan. Whether the policy has
/// such a setting, and whether a pattern matches anything, is checked by fp_plan_make(). A call that fails
/// changes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_options_set(
    options: Option<&mut fp_options>,
    name: *const c_char,
    value: *const c_char,
) -> fp_status {
    guard(|| {
        // SAFETY: the header asks for C strings or NULL.
        let (name, value) = unsafe { (text(name, "name")?, text(value, "value")?) };
        some(options, "options")?.set(name, value)
    })
}

/// Frees options. NULL is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn fp_options_free(options: Option<Box<fp_options>>) {
    guard(|| {
        drop(options);
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_are_those_of_a_job_by_name() {
        let mut options = fp_options::default();
        for (name, value) in [
            ("policy", "freezeout"),
            ("t_0", "0.25"),
            ("how", "linear"),
            ("unit", "block"),
            ("freeze", "conv1.*"),
            ("freeze", "bn1"),
            ("keep", "fc"),
            ("batch_norm", "frozen"),
            ("batch", "64"),
            ("shape", "x=1, 3,8,8"),
            ("steps_per_epoch", "20"),
            ("slots", "2"),
        ] {
            options.set(name, value).unwrap();
        }
        let table = json!({"policy": "freezeout", "t_0": 0.25, "how": "linear", "unit": "block",
            "freeze": ["conv1.*", "bn1"], "keep": ["fc"], "batch_norm": "frozen"});
        assert_eq!(options.plan, serde_json::from_value::<PlanOptions>(table).unwrap());
        assert_eq!((options.batch, options.steps_per_epoch, options.slots), (Some(64), 20, Some(2)));
        assert_eq!(options.shapes, [("x".to_string(), vec![1, 3, 8, 8])]);
    }

    #[test]
    fn a_value_that_cannot_be_read_changes_nothing() {
        let mut options = fp_options::default();
        let wrong = [
            ("unit", "branch", "unit is \"branch\": unknown variant"),
            ("batch", "-1", "batch is \"-1\": invalid value"),
            ("batch", "many", "batch is \"many\": invalid type"),
            ("shape", "x", "shape is \"x\", expected NAME=D,D,.."),
            ("shape", "x=1,a", "shape is \"x=1,a\", expected NAME=D,D,.."),
        ];
        for (name, value, expected) in wrong {
            let failure = format!("{:?}", options.set(name, value).unwrap_err()).replace("\\\"", "\"");
            assert!(failure.contains(expected), "{failure}");
        }
        assert_eq!((options.plan, options.batch, options.shapes.len()), (PlanOptions::default(), None, 0));
    }
}
