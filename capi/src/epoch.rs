//! What a plan says of an epoch.

use crate::out::{Grows, at, give, some, text};
use crate::plan::fp_plan;
use crate::status::{Failure, fp_status, guard};
use freeze_plan::error::nearest;
use freeze_plan::plan::EpochPlan;
use std::ffi::c_char;
use std::mem::MaybeUninit;

/// What a plan says of an epoch, at its start or after some of its steps: what is frozen, and what a step is then
/// predicted to cost. The functions that are named list it at the start; those with _at after as many steps.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fp_epoch {
    /// Frozen parameters, which fp_plan_frozen() names.
    pub frozen: usize,
    /// Units of which every parameter is frozen.
    pub frozen_units: usize,
    /// Running statistics that stay, which fp_plan_statistic() names.
    pub statistics: usize,
    /// Dropout nodes that pass their input on, of which fp_plan_dropout_off() names the outputs.
    pub dropout_off: usize,
    /// Changes of what is frozen within the epoch, which fp_plan_change() places.
    pub changes: usize,
    /// The schedule's value in [0, 1].
    pub fraction: f64,
    /// Flops of a step relative to one with nothing frozen.
    pub step_cost: f64,
    /// The same, when the output of what was frozen already in the epoch before comes from a cache.
    pub cached_step_cost: f64,
    /// Flops of the forward pass of a step.
    pub forward_flops: u64,
    /// Flops of the backward pass of a step.
    pub backward_flops: u64,
    /// Bytes of gradients and optimizer slots.
    pub state_bytes: u64,
    /// Bytes that the forward pass makes and the backward pass reads.
    pub activation_bytes: u64,
}

impl Grows for fp_epoch {}

impl fp_plan {
    fn epoch(&self, epoch: usize) -> Result<&EpochPlan, Failure> {
        let found = epoch.checked_sub(1).and_then(|position| self.plan.epochs.get(position));
        let expected = || format!("epoch is {epoch}, expected 1 to {}", self.plan.epochs.len());
        found.ok_or_else(|| Failure::usage(expected()).hint("epochs count from 1"))
    }

    /// Returns what holds after some steps of an epoch.
    fn stretch(&self, epoch: usize, after: usize) -> Result<&EpochPlan, Failure> {
        Ok(self.epoch(epoch)?.at(after))
    }

    /// Returns the number of a parameter of a unit.
    fn parameter(&self, name: &str) -> Result<usize, Failure> {
        let number = self.names.number(name).filter(|number| *number < self.parameters);
        number.ok_or_else(|| {
            let failure = Failure::usage(format!("the plan has no parameter \"{name}\""));
            let known = self.plan.units.iter().flat_map(|unit| &unit.parameters);
            match nearest(name, known.map(String::as_str)) {
                Some(near) => failure.hint(format!("nearest: \"{near}\"")),
                None => failure,
            }
        })
    }

    fn is_frozen(&self, epoch: usize, after: usize, name: &str) -> Result<bool, Failure> {
        self.epoch(epoch)?;
        Ok(self.lookup.is_frozen(epoch, after, self.parameter(name)?))
    }

    fn lr_scale(&self, epoch: usize, after: usize, name: &str) -> Result<f64, Failure> {
        let stretch = self.stretch(epoch, after)?;
        self.parameter(name)?;
        Ok(stretch.lr_scale.get(name).copied().unwrap_or(1.0))
    }

    /// Writes what holds after some steps of an epoch.
    ///
    /// # Safety
    /// As for [`give`].
    unsafe fn give_epoch(&self, epoch: usize, after: usize, out: *mut fp_epoch, size: usize) -> Result<(), Failure> {
        let found = self.stretch(epoch, after)?;
        let predicted = &found.predicted;
        let value = fp_epoch {
            frozen: found.frozen.len(),
            frozen_units: found.frozen_units,
            statistics: found.statistics.len(),
            dropout_off: found.dropout_off.len(),
            changes: self.epoch(epoch)?.changes.len(),
            fraction: found.fraction,
            step_cost: predicted.step_cost,
            cached_step_cost: predicted.cached_step_cost,
            forward_flops: predicted.forward_flops,
            backward_flops: predicted.backward_flops,
            state_bytes: predicted.state_bytes,
            activation_bytes: predicted.activation_bytes,
        };
        // SAFETY: as for this function.
        unsafe { give(out, size, "out", value) }
    }

    /// Writes a name of one of the lists of a stretch.
    fn listed(
        &self,
        stretch: &EpochPlan,
        list: impl Fn(&EpochPlan) -> &[String],
        index: usize,
        what: &str,
        name: Option<&mut MaybeUninit<*const c_char>>,
    ) -> Result<(), Failure> {
        let found = at(list(stretch), index, what)?;
        some(name, "name")?.write(self.names.text(found));
        Ok(())
    }
}

/// Counts the epochs. Those that other functions take count from 1.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_epochs(plan: Option<&fp_plan>, count: Option<&mut MaybeUninit<usize>>) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        some(count, "count")?.write(plan.plan.epochs.len());
        Ok(())
    })
}

/// Returns what the plan says of an epoch at its start; size is sizeof *out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_epoch(
    plan: Option<&fp_plan>,
    epoch: usize,
    out: *mut fp_epoch,
    size: usize,
) -> fp_status {
    // SAFETY: the header asks for the same.
    unsafe { fp_plan_epoch_at(plan, epoch, 0, out, size) }
}

/// Returns what the plan says of an epoch after some steps of it; size is sizeof *out. The number of changes is
/// that of the whole epoch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_epoch_at(
    plan: Option<&fp_plan>,
    epoch: usize,
    after: usize,
    out: *mut fp_epoch,
    size: usize,
) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        // SAFETY: the header asks for room of that size or NULL.
        unsafe { plan.give_epoch(epoch, after, out, size) }
    })
}

/// Returns the name of a parameter that is frozen at the start of an epoch, in the order of the units. It
/// lives as long as the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_frozen(
    plan: Option<&fp_plan>,
    epoch: usize,
    index: usize,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    fp_plan_frozen_at(plan, epoch, 0, index, name)
}

/// Returns the name of a parameter that is frozen after some steps of an epoch, in the order of the units. It
/// lives as long as the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_frozen_at(
    plan: Option<&fp_plan>,
    epoch: usize,
    after: usize,
    index: usize,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        plan.listed(plan.stretch(epoch, after)?, |stretch| &stretch.frozen, index, "frozen parameter", name)
    })
}

/// Returns the name of a running statistic that stays in an epoch and is used in place of that of the batch.
/// It lives as long as the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_statistic(
    plan: Option<&fp_plan>,
    epoch: usize,
    index: usize,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    fp_plan_statistic_at(plan, epoch, 0, index, name)
}

/// Returns the name of a running statistic that stays after some steps of an epoch. It lives as long as the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_statistic_at(
    plan: Option<&fp_plan>,
    epoch: usize,
    after: usize,
    index: usize,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        plan.listed(plan.stretch(epoch, after)?, |stretch| &stretch.statistics, index, "statistic", name)
    })
}

/// Returns the name of the output of a Dropout node that passes its input on in an epoch. It lives as long as
/// the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_dropout_off(
    plan: Option<&fp_plan>,
    epoch: usize,
    index: usize,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    fp_plan_dropout_off_at(plan, epoch, 0, index, name)
}

/// Returns the name of the output of a Dropout node that passes its input on after some steps of an epoch. It
/// lives as long as the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_dropout_off_at(
    plan: Option<&fp_plan>,
    epoch: usize,
    after: usize,
    index: usize,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        plan.listed(plan.stretch(epoch, after)?, |stretch| &stretch.dropout_off, index, "Dropout output", name)
    })
}

/// Returns after how many steps of an epoch what is frozen changes for the time of that index, from 0.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_change(
    plan: Option<&fp_plan>,
    epoch: usize,
    index: usize,
    after: Option<&mut MaybeUninit<usize>>,
) -> fp_status {
    guard(|| {
        let found = at(&some(plan, "plan")?.epoch(epoch)?.changes, index, "change")?;
        some(after, "after")?.write(found.after);
        Ok(())
    })
}

/// Tells whether a parameter is frozen at the start of an epoch. A name that no unit has is an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_is_frozen(
    plan: Option<&fp_plan>,
    epoch: usize,
    name: *const c_char,
    frozen: Option<&mut MaybeUninit<bool>>,
) -> fp_status {
    // SAFETY: the header asks for the same.
    unsafe { fp_plan_is_frozen_at(plan, epoch, 0, name, frozen) }
}

/// Tells whether a parameter is frozen after some steps of an epoch. A name that no unit has is an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_is_frozen_at(
    plan: Option<&fp_plan>,
    epoch: usize,
    after: usize,
    name: *const c_char,
    frozen: Option<&mut MaybeUninit<bool>>,
) -> fp_status {
    guard(|| {
        // SAFETY: the header asks for a C string or NULL.
        let name = unsafe { text(name, "name")? };
        let found = some(plan, "plan")?.is_frozen(epoch, after, name)?;
        some(frozen, "frozen")?.write(found);
        Ok(())
    })
}

/// Returns the factor on the learning rate of a parameter at the start of an epoch; 1 for most policies.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_lr_scale(
    plan: Option<&fp_plan>,
    epoch: usize,
    name: *const c_char,
    scale: Option<&mut MaybeUninit<f64>>,
) -> fp_status {
    // SAFETY: the header asks for the same.
    unsafe { fp_plan_lr_scale_at(plan, epoch, 0, name, scale) }
}

/// Returns the factor on the learning rate of a parameter after some steps of an epoch: that which holds from the
/// last change on. A policy that anneals changes it with each step, which no plan lists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_lr_scale_at(
    plan: Option<&fp_plan>,
    epoch: usize,
    after: usize,
    name: *const c_char,
    scale: Option<&mut MaybeUninit<f64>>,
) -> fp_status {
    guard(|| {
        // SAFETY: the header asks for a C string or NULL.
        let name = unsafe { text(name, "name")? };
        let found = some(plan, "plan")?.lr_scale(epoch, after, name)?;
        some(scale, "scale")?.write(found);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fp_model;
    use crate::options::fp_options;
    use std::ffi::CStr;
    use std::path::Path;

    fn planned(settings: &[(&str, &str)]) -> fp_plan {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/digits/model.onnx");
        let mut options = fp_options::default();
        settings.iter().for_each(|(name, value)| options.set(name, value).unwrap());
        fp_plan::make(&fp_model::read(&path).unwrap(), 10, &options).unwrap()
    }

    impl fp_plan {
        /// Returns what is frozen after some steps of an epoch, as a caller lists it.
        fn names_at(&self, epoch: usize, after: usize) -> Vec<String> {
            let (mut found, mut name) = (MaybeUninit::<fp_epoch>::uninit(), MaybeUninit::uninit());
            // SAFETY: there is room for an epoch, and what is taken was written by a call that returned FP_OK.
            unsafe {
                let size = size_of::<fp_epoch>();
                assert_eq!(fp_plan_epoch_at(Some(self), epoch, after, found.as_mut_ptr(), size), fp_status::FP_OK);
                let names = (0..found.assume_init().frozen).map(|index| {
                    let status = fp_plan_frozen_at(Some(self), epoch, after, index, Some(&mut name));
                    assert_eq!(status, fp_status::FP_OK);
                    CStr::from_ptr(name.assume_init()).to_str().unwrap().to_string()
                });
                names.collect()
            }
        }
    }

    #[test]
    fn a_parameter_is_frozen_where_the_lists_name_it() {
        let changing = [("policy", "svcca-linear"), ("steps_per_epoch", "7")];
        let steps = r#"[{"epoch": 2, "frozen": 4}, {"epoch": 5, "frozen": 1}, {"epoch": 8, "frozen": 6}]"#;
        let both_ways = [("policy", "steps"), ("steps", steps)];
        for (settings, within) in [(&changing, true), (&both_ways, false)] {
            let plan = planned(settings);
            let (mut yes, mut changes) = (0, 0);
            for epoch in &plan.plan.epochs {
                changes += epoch.changes.len();
                for after in 0..7 {
                    let stretch = epoch.at(after);
                    let frozen = &stretch.frozen;
                    assert_eq!(plan.names_at(epoch.epoch, after), *frozen);
                    for name in plan.plan.units.iter().flat_map(|unit| &unit.parameters) {
                        let expected = frozen.contains(name);
                        yes += usize::from(expected);
                        assert_eq!(
                            plan.is_frozen(epoch.epoch, after, name).unwrap(),
                            expected,
                            "{name} {}",
                            epoch.epoch
                        );
                    }
                }
            }
            assert_eq!((yes > 0, changes > 0), (true, within));
        }
    }
}
