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
use freeze_plan::planner::{ATTACHED, read_plan};
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
    /// The model file without a plan that is attached to it, whose digest the plan says.
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
        fp_plan::of(make::plan(model, epochs, options)?, Some(model.loaded.file.without_metadata(ATTACHED)))
    }

    /// Checks that the model holds the parameters of the plan.
    fn fits(&self, model: &fp_model) -> Result<(), Failure> {
        let (graph, planned) = (&model.loaded.analysis.model.graph, &self.plan.model.file);
        let other = |what: String| Failure::bad_input(format!("the plan is for {planned}, not for this model: {what}"));
        for unit in &self.plan.units {
            let mut elements = 0u64;
            for name in &unit.parameters {
                let held = graph.find(name).and_then(|id| graph.value(id).initializer.as_ref());
                let held = held.ok_or_else(|| other(format!("it has no initializer \"{name}\"")))?;
                elements = elements.saturating_add(held.len() as u64);
            }
            if elements != unit.elements {
                let expected = unit.elements;
                return Err(other(format!("unit \"{}\" has {elements} elements, expected {expected}", unit.path)));
            }
        }
        Ok(())
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

/// Reads a plan: a plan file, a model to which one is attached, or the folder of a run. fp_plan_free() frees the
/// plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_read(path: *const c_char, plan: Option<&mut MaybeUninit<Box<fp_plan>>>) -> fp_status {
    guard(|| {
        // SAFETY: the header asks for a C string or NULL.
        let path = unsafe { path_of(path, "path")? };
        some(plan, "plan")?.write(Box::new(fp_plan::of(read_plan(&path)?, None)?));
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

/// Checks that a plan is for a model: that the model holds the parameters of the plan, of the same sizes. It is
/// FP_BAD_INPUT where it does not. The values do not matter, so the trained model passes too.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_check(plan: Option<&fp_plan>, model: Option<&fp_model>) -> fp_status {
    guard(|| {
        let (plan, model) = (some(plan, "plan")?, some(model, "model")?);
        plan.fits(model)
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
    use freeze_plan::onnx;
    use freeze_plan::planner::attach;
    use std::ffi::CString;
    use std::path::{Path, PathBuf};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
    }

    fn planned(path: &Path) -> fp_plan {
        fp_plan::make(&fp_model::read(path).unwrap(), 4, &fp_options::default()).unwrap()
    }

    /// The plan of a model does not depend on whether one is attached to it, and is read from where it is.
    #[test]
    fn a_plan_is_for_the_model_without_the_one_that_is_attached() {
        let folder = tempfile::tempdir().unwrap();
        let [model, with] = ["model.onnx", "with.onnx"].map(|name| folder.path().join(name));
        std::fs::copy(fixture("digits/model.onnx"), &model).unwrap();
        let text = planned(&model).to_json();
        let plan = plan::parse(&model, &text).unwrap();
        std::fs::write(&with, attach(&onnx::read(&model).unwrap(), &plan).unwrap()).unwrap();
        let again: FreezePlan = plan::parse(&with, &planned(&with).to_json()).unwrap();
        assert_eq!(again.model.sha256, plan.model.sha256);
        std::fs::write(folder.path().join("plan.json"), &text).unwrap();
        for path in [&with, &folder.path().join("plan.json"), folder.path()] {
            let path = CString::new(path.to_str().unwrap()).unwrap();
            let mut read = MaybeUninit::uninit();
            // SAFETY: the path is a C string, and what is taken was written by a call that returned FP_OK.
            let read = unsafe {
                assert_eq!(fp_plan_read(path.as_ptr(), Some(&mut read)), fp_status::FP_OK, "{path:?}");
                read.assume_init()
            };
            assert!(read.plan == plan, "{path:?}");
        }
    }

    #[test]
    fn a_plan_fits_the_model_it_was_made_of_and_no_other() {
        for name in ["digits/model.onnx", "merged/folded.onnx", "classic/frozen"] {
            let model = fp_model::read(&fixture(name)).unwrap();
            fp_plan::make(&model, 4, &fp_options::default()).unwrap().fits(&model).unwrap();
        }
        let digits = planned(&fixture("digits/model.onnx"));
        let other = fp_model::read(&fixture("digits_vit/model.onnx")).unwrap();
        let failure = format!("{:?}", digits.fits(&other).unwrap_err());
        assert!(failure.contains("FP_BAD_INPUT") && failure.contains("it has no initializer"), "{failure}");
        let mut larger = digits;
        larger.plan.units[0].elements += 1;
        let model = fp_model::read(&fixture("digits/model.onnx")).unwrap();
        let failure = format!("{:?}", larger.fits(&model).unwrap_err());
        assert!(failure.contains("has 144 elements, expected 145"), "{failure}");
    }

    /// Handles may be shared by threads.
    #[test]
    fn handles_are_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<fp_model>();
        shared::<fp_plan>();
        shared::<fp_options>();
    }
}
