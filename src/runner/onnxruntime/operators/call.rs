//! What a kernel sees of ONNX Runtime: attributes, inputs, outputs and threads.

use super::Definition;
use freeze_plan_kernels::Pool;
use ort::operator::{ComputeContext, KernelContext};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// Reads a node's attributes.
pub(super) struct Reader<'c, 'a>(pub(super) &'c KernelContext<'a>);

impl Reader<'_, '_> {
    /// Returns a list of sizes.
    ///
    /// # Errors
    /// The attribute is missing, has another length, or a negative entry.
    pub(super) fn sizes<const N: usize>(&self, name: &str) -> Result<[usize; N], String> {
        let list = self.0.get::<Vec<i64>>(name).ok_or_else(|| format!("attribute \"{name}\" is missing"))?;
        let sizes: Option<Vec<usize>> = list.iter().map(|size| usize::try_from(*size).ok()).collect();
        let sizes = sizes.ok_or_else(|| format!("attribute \"{name}\" is {list:?}, which has a negative entry"))?;
        sizes.try_into().map_err(|_| format!("attribute \"{name}\" is {list:?}, expected {N} entries"))
    }

    /// Returns an integer, `default` where it is not given.
    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.0.get(name).unwrap_or(default)
    }

    /// Returns a number, `default` where it is not given.
    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.0.get(name).unwrap_or(default)
    }

    /// Returns a text, empty where it is not given.
    pub(super) fn text(&self, name: &str) -> String {
        self.0.get(name).unwrap_or_default()
    }
}

/// One run of a node.
pub(super) struct Call<'c> {
    context: &'c ComputeContext,
    threads: usize,
    definition: &'static Definition,
    /// What a task on another thread failed with.
    failed: Mutex<Option<String>>,
}

/// Elements and shape of an input.
pub(super) struct Input<'c> {
    pub elements: &'c [f32],
    pub shape: Vec<usize>,
}

impl Input<'_> {
    /// Returns the shape as four sizes.
    ///
    /// # Errors
    /// It has another rank.
    pub fn image(&self) -> Result<[usize; 4], String> {
        <[usize; 4]>::try_from(self.shape.as_slice()).map_err(|_| format!("an image has shape {:?}", self.shape))
    }
}

impl<'c> Call<'c> {
    pub(super) fn new(context: &'c ComputeContext, threads: usize, definition: &'static Definition) -> Call<'c> {
        Call { context, threads, definition, failed: Mutex::new(None) }
    }

    /// Returns an input that must be there.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn input(&self, index: usize) -> Result<Input<'c>, String> {
        self.optional(index)?.ok_or_else(|| format!("input {index} is missing"))
    }

    /// Returns an input where it is there.
    ///
    /// # Errors
    /// ONNX Runtime refuses it.
    pub(super) fn optional(&self, index: usize) -> Result<Option<Input<'c>>, String> {
        let count = self.context.num_inputs().map_err(|error| error.to_string())?;
        if index >= count.min(self.definition.inputs.len()) {
            return Ok(None);
        }
        let Some(value) = self.context.input(index).map_err(|error| error.to_string())? else { return Ok(None) };
        let (shape, elements) = value.try_extract_tensor::<f32>().map_err(|error| error.to_string())?;
        let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        // SAFETY: the elements belong to the run, which outlives the call.
        let elements = unsafe { std::slice::from_raw_parts(elements.as_ptr(), elements.len()) };
        Ok(Some(Input { elements, shape }))
    }

    /// Returns an output that must be there.
    ///
    /// # Errors
    /// It is not, or ONNX Runtime refuses the shape.
    pub(super) fn output(&self, index: usize, shape: &[usize]) -> Result<&'c mut [f32], String> {
        self.optional_output(index, shape)?.ok_or_else(|| format!("output {index} is missing"))
    }

    /// Returns an output where somebody reads it.
    ///
    /// # Errors
    /// ONNX Runtime refuses the shape.
    pub(super) fn optional_output(&self, index: usize, shape: &[usize]) -> Result<Option<&'c mut [f32]>, String> {
        let count = self.context.num_outputs().map_err(|error| error.to_string())?;
        if index >= count {
            return Ok(None);
        }
        let shape: Vec<i64> = shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
        let value = self.context.output(index, shape).map_err(|error| error.to_string())?;
        let Some(mut value) = value else { return Ok(None) };
        let (_, elements) = value.try_extract_tensor_mut::<f32>().map_err(|error| error.to_string())?;
        // SAFETY: the elements belong to the run, which outlives the call, and each output is taken once.
        Ok(Some(unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr(), elements.len()) }))
    }

    /// Returns the failure of a task, if there was one.
    pub(super) fn finish(&self) -> Result<(), String> {
        let failed = self.failed.lock().map(|mut failed| failed.take());
        failed.ok().flatten().map_or(Ok(()), Err)
    }
}

// SAFETY: ONNX Runtime's context of a run may be read from any thread while the kernel computes.
unsafe impl Sync for Call<'_> {}

impl Pool for Call<'_> {
    fn threads(&self) -> usize {
        self.threads.max(1)
    }

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        let failed = &self.failed;
        let guarded = |index: usize| {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(index))) {
                if let Ok(mut failed) = failed.lock() {
                    failed.get_or_insert(message(&panic));
                }
            }
        };
        if count <= 1 || self.threads <= 1 {
            (0..count).for_each(guarded);
        } else if let Err(error) = self.context.par_for(count, count, guarded) {
            panic!("{error}");
        }
    }
}

/// Returns the text of a panic.
pub(super) fn message(panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a kernel panicked").to_string()
}
