//! A plan: made of a model or read, written, and what it says as a whole.

use crate::lookup::Lookup;
use crate::make;
use crate::model::fp_model;
use crate::names::Names;
use crate::options::fp_options;
use crate::out::{Grows, at, give, owned, path as path_of, some, text as text_of};
use crate::status::{Failure, fp_status, guard};
use bytes::Bytes;
use freeze_plan::plan::{self, EpochPlan, FreezePlan, sha256_hex};
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// A plan. Threads may share it; it must not be freed while one uses it.
pub struct fp_plan {
    pub(crate) plan: FreezePlan,
    pub(crate) names: Names,
    pub(crate) lookup: Lookup,
    /// How many of the names, the first ones, are parameters of units.
    pub(crate) parameters: usize,
    file: Option<Bytes>,
    digest: OnceLock<String>,
}

/// A plan as a whole. Costs are those of flops, relative to a run with nothing frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fp_summary {
    /// Mean cost of a step.
    pub cost_ratio: f64,
    /// The largest speedup this can give.
    pub ceiling: f64,
    /// As cost_ratio, when the output of what is frozen comes from a cache.
    pub cached_cost_ratio: f64,
    /// As ceiling, with that cache.
    pub cached_ceiling: f64,
    /// What the plan can save at most, or why it cannot pay, in one sentence.
    pub verdict: *const c_char,
    /// Sentences for a person, which fp_plan_note() returns.
    pub notes: usize,
    /// Whether it saves 2 % or more.
    pub pays: bool,
}

impl Grows for fp_summary {}

impl fp_plan {
    fn of(plan: FreezePlan, file: Option<Bytes>) -> Result<fp_plan, Failure> {
        let mut names = Names::default();
        names.extend(plan.units.iter().flat_map(|unit| &unit.parameters))?;
        let parameters = names.len();
        names.extend(plan.units.iter().flat_map(|unit| [&unit.path, &unit.class]))?;
        names.extend(plan.units.iter().flat_map(|unit| &unit.shared))?;
        let stretches = || plan.epochs.iter().flat_map(EpochPlan::stretches);
        names.extend(stretches().flat_map(|stretch| stretch.statistics.iter().chain(&stretch.dropout_off)))?;
        names.extend(plan.summary.notes.iter().chain([&plan.summary.verdict]))?;
        let lookup = Lookup::of(&plan, &names);
        Ok(fp_plan { plan, names, lookup, parameters, file, digest: OnceLock::new() })
    }

    pub(crate) fn make(model: &fp_model, epochs: usize, options: &fp_options) -> Result<fp_plan, Failure> {
        fp_plan::of(make::plan(model, epochs, options)?, Some(model.loaded.file.bytes.clone()))
    }

    fn to_json(&self) -> String {
        match &self.file {
            Some(bytes) if self.plan.model.sha256.is_empty() => {
                let mut plan = self.plan.clone();
                plan.model.sha256 = self.digest.get_or_init(|| sha256_hex(bytes)).clone();
                plan.to_json()
            }
            _ => self.plan.to_json(),
        }
    }
}

/// Plans a run of a model over some epochs. Options may be NULL, which is the linear policy with its
/// defaults. The plan stays when the model is freed. fp_plan_free() frees the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_make(
    model: Option<&fp_model>,
    epochs: usize,
    options: Option<&fp_options>,
    plan: Option<&mut MaybeUninit<Box<fp_plan>>>,
) -> fp_status {
    guard(|| {
        let (model, out) = (some(model, "model")?, some(plan, "plan")?);
        let made = match options {
            Some(options) => fp_plan::make(model, epochs, options)?,
            None => fp_plan::make(model, epochs, &fp_options::default())?,
        };
        out.write(Box::new(made));
        Ok(())
    })
}

/// Reads a plan file. fp_plan_free() frees the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_read(path: *const c_char, plan: Option<&mut MaybeUninit<Box<fp_plan>>>) -> fp_status {
    guard(|| {
        // SAFETY: the header asks for a C string or NULL.
        let path = unsafe { path_of(path, "path")? };
        some(plan, "plan")?.write(Box::new(fp_plan::of(plan::read(&path)?, None)?));
        Ok(())
    })
}

/// Reads the text of a plan file. fp_plan_free() frees the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_from_json(
    json: *const c_char,
    plan: Option<&mut MaybeUninit<Box<fp_plan>>>,
) -> fp_status {
    guard(|| {
        // SAFETY: the header asks for a C string or NULL.
        let json = unsafe { text_of(json, "json")? };
        let parsed = plan::parse("the plan".as_ref(), json)?;
        some(plan, "plan")?.write(Box::new(fp_plan::of(parsed, None)?));
        Ok(())
    })
}

/// Returns the text of the plan file, as freeze-plan --format json writes it. The first call for a plan that
/// was made of a model reads the whole model for its digest. fp_string_free() frees the text.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_to_json(plan: Option<&fp_plan>, json: Option<&mut MaybeUninit<*mut c_char>>) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        some(json, "json")?.write(owned(plan.to_json())?);
        Ok(())
    })
}

/// Returns the plan as a whole; size is sizeof *summary. Its text lives as long as the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_summary(plan: Option<&fp_plan>, summary: *mut fp_summary, size: usize) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        let found = &plan.plan.summary;
        let value = fp_summary {
            cost_ratio: found.cost_ratio,
            ceiling: found.ceiling,
            cached_cost_ratio: found.cached_cost_ratio,
            cached_ceiling: found.cached_ceiling,
            verdict: plan.names.text(&found.verdict),
            notes: found.notes.len(),
            pays: found.pays,
        };
        // SAFETY: the header asks for room of that size or NULL.
        unsafe { give(summary, size, "summary", value) }
    })
}

/// Returns a sentence for a person, of those that fp_summary counts. It lives as long as the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_note(
    plan: Option<&fp_plan>,
    index: usize,
    note: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        let found = at(&plan.plan.summary.notes, index, "note")?;
        some(note, "note")?.write(plan.names.text(found));
        Ok(())
    })
}

/// Frees a plan. NULL is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_free(plan: Option<Box<fp_plan>>) {
    guard(|| {
        drop(plan);
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Handles may be shared by threads.
    #[test]
    fn handles_are_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<fp_model>();
        shared::<fp_plan>();
        shared::<fp_options>();
    }
}
