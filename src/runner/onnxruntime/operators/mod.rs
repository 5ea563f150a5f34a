//! Operators of our own, as ONNX Runtime custom operators on the CPU.
//!
//! What each computes stands where its gradient rule is (`autodiff/native`) or its chain is fused (`runner/native`);
//! the numerics are those of `kernels`. Images are channels-last here.
//!
//! A kernel that panics fails its run with the message; nothing unwinds into ONNX Runtime.

mod call;
mod convolution;
mod elementwise;
mod normalization;
mod pooling;

use crate::graph::INTERNAL_DOMAIN;
use call::{Call, Reader};
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// An operator: what it is called, what it takes, and who computes it.
struct Definition {
    name: &'static str,
    /// Whether each input must be there.
    inputs: &'static [bool],
    /// Whether each output must be there.
    outputs: &'static [bool],
    /// Returns what computes a node with these attributes.
    make: fn(&Reader<'_, '_>) -> Result<Box<dyn Compute>, String>,
}

/// Computes a node.
trait Compute: Send {
    /// Computes it; `scratch` may hold anything and grow.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    fn compute(&mut self, call: &Call<'_>, scratch: &mut Vec<f32>) -> Result<(), String>;
}

/// Every operator.
static DEFINITIONS: &[&Definition] = &[
    &convolution::CONV,
    &convolution::CONV_INPUT_GRAD,
    &convolution::CONV_WEIGHT_GRAD,
    &elementwise::CLIP_GRAD,
    &elementwise::RELU_GRAD,
    &normalization::BATCH_NORMALIZATION,
    &normalization::BATCH_NORMALIZATION_GRAD,
    &normalization::FIXED_NORMALIZATION,
    &normalization::FIXED_NORMALIZATION_GRAD,
    &pooling::AVERAGE_POOL,
    &pooling::AVERAGE_POOL_GRAD,
    &pooling::GLOBAL_AVERAGE_POOL,
    &pooling::GLOBAL_AVERAGE_POOL_GRAD,
    &pooling::MAX_POOL,
    &pooling::MAX_POOL_GRAD,
];

/// Returns the domain of our operators, for sessions with `threads` threads within an operator.
///
/// # Errors
/// ONNX Runtime refuses an operator.
pub(super) fn domain(threads: usize) -> ort::Result<OperatorDomain> {
    let domain = OperatorDomain::new(INTERNAL_DOMAIN)?;
    let scratch = Scratch::default();
    let own = |definition| Own { definition, threads, scratch: Arc::clone(&scratch) };
    DEFINITIONS.iter().try_fold(domain, |domain, definition| domain.add(own(definition)))
}

/// Room for what a kernel computes on the way, which all nodes of an engine use one after the other.
type Scratch = Arc<Mutex<Vec<f32>>>;

struct Own {
    definition: &'static Definition,
    threads: usize,
    scratch: Scratch,
}

impl Operator for Own {
    type Kernel<'attr> = Running;

    fn name(&self) -> &str {
        self.definition.name
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let float = TensorElementType::Float32;
        let input =
            |required: &bool| if *required { OperatorInput::required(float) } else { OperatorInput::optional(float) };
        self.definition.inputs.iter().map(input).collect::<Vec<_>>()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let float = TensorElementType::Float32;
        let output =
            |required: &bool| if *required { OperatorOutput::required(float) } else { OperatorOutput::optional(float) };
        self.definition.outputs.iter().map(output).collect::<Vec<_>>()
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Running> {
        let compute = (self.definition.make)(&Reader(context)).map_err(|reason| self.error(&reason))?;
        let scratch = Arc::clone(&self.scratch);
        Ok(Running { definition: self.definition, compute, threads: self.threads, scratch })
    }
}

impl Own {
    fn error(&self, reason: &str) -> ort::Error {
        ort::Error::new(format!("{}: {reason}", self.definition.name))
    }
}

/// A node that runs.
struct Running {
    definition: &'static Definition,
    compute: Box<dyn Compute>,
    threads: usize,
    scratch: Scratch,
}

impl Kernel for Running {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call::new(context, self.threads, self.definition);
        let mut own = Vec::new();
        let mut shared = self.scratch.try_lock();
        let scratch = shared.as_deref_mut().unwrap_or(&mut own);
        let result = catch_unwind(AssertUnwindSafe(|| self.compute.compute(&call, scratch)));
        let result = result.unwrap_or_else(|panic| Err(call::message(&panic))).and_then(|()| call.finish());
        result.map_err(|reason| ort::Error::new(format!("{}: {reason}", self.definition.name)))
    }
}
