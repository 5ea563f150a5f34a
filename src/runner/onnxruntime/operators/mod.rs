//! Operators of our own, as ONNX Runtime custom operators on the CPU.
//!
//! What each computes stands where its gradient rule is (`autodiff/native`) or its chain is fused (`runner/native`);
//! the numerics are those of `kernels`. Images are channels-last here.
//!
//! A kernel that panics fails its run with the message; nothing unwinds into ONNX Runtime.

mod call;
mod convolution;
mod cross_entropy;
pub(super) mod device;
mod elementwise;
mod normalization;
mod optimizer;
mod pooling;
mod rows;

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
    &cross_entropy::SOFTMAX_CROSS_ENTROPY,
    &cross_entropy::SOFTMAX_CROSS_ENTROPY_GRAD,
    &elementwise::CLIP_GRAD,
    &elementwise::RELU_GRAD,
    &normalization::BATCH_NORMALIZATION,
    &normalization::BATCH_NORMALIZATION_GRAD,
    &normalization::FIXED_NORMALIZATION,
    &normalization::FIXED_NORMALIZATION_GRAD,
    &normalization::RUNNING_STATISTICS,
    &optimizer::ADAM_STEP,
    &optimizer::SGD_STEP,
    &rows::DROPOUT,
    &rows::EMBEDDING_GRAD,
    &rows::GELU,
    &rows::GELU_GRAD,
    &rows::LAYER_NORMALIZATION,
    &rows::LAYER_NORMALIZATION_GRAD,
    &rows::SOFTMAX,
    &rows::SOFTMAX_GRAD,
    &pooling::AVERAGE_POOL,
    &pooling::AVERAGE_POOL_GRAD,
    &pooling::GLOBAL_AVERAGE_POOL,
    &pooling::GLOBAL_AVERAGE_POOL_GRAD,
    &pooling::MAX_POOL,
    &pooling::MAX_POOL_GRAD,
];

/// Inputs that are int64, by operator and position; all others are float32.
const INTEGERS: &[(&str, usize)] =
    &[("Dropout", 1), ("Dropout", 2), ("EmbeddingGrad", 0), ("SoftmaxCrossEntropy", 1), ("SoftmaxCrossEntropyGrad", 2)];

/// Returns the name of every operator.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().map(|definition| definition.name)
}

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
        let input = |(index, required): (usize, &bool)| {
            let integers = INTEGERS.contains(&(self.definition.name, index));
            let element = if integers { TensorElementType::Int64 } else { TensorElementType::Float32 };
            if *required { OperatorInput::required(element) } else { OperatorInput::optional(element) }
        };
        self.definition.inputs.iter().enumerate().map(input).collect::<Vec<_>>()
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

#[cfg(test)]
mod tests {
    use crate::autodiff::own;
    use crate::graph::{Attributes, Builder, DType, Fact, INTERNAL_DOMAIN, Model, Tensor};
    use crate::runner::{evaluate, testing};

    /// `ReluGrad` of values of these numbers of elements.
    fn run(sizes: [usize; 2]) -> Result<Vec<Tensor>, String> {
        let mut b = Builder::new("gradient");
        let inputs = ["dy", "y"].map(|name| Some(b.input(name, Fact { dtype: Some(DType::F32), shape: None })));
        let dx = b.ops(&own("ReluGrad"), &inputs, Attributes::none(), 1)[0];
        b.refine(dx, &Fact { dtype: Some(DType::F32), shape: None });
        b.output(dx, "dx");
        let opsets = [(String::new(), 18), (INTERNAL_DOMAIN.to_string(), 1)].into();
        let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
        let [dy, y] = sizes.map(|size| Tensor::float_full(DType::F32, &[1, 1, 1, size], 2.0));
        evaluate(&mut testing::onnxruntime(), &model, &[("dy", &dy), ("y", &y)]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_kernel_that_panics_fails_its_run() {
        let error = run([5, 4]).unwrap_err();
        assert!(error.contains("ReluGrad: dy, y and dx have 5 elements"), "{error}");
        assert_eq!(run([5, 5]).unwrap()[0].to_f64s().unwrap(), [2.0; 5]);
    }

    #[test]
    fn a_task_that_panics_on_another_thread_fails_its_run() {
        use super::call::guarded;
        let failed = std::sync::Mutex::new(None);
        std::thread::scope(|scope| {
            scope.spawn(|| guarded(&failed, &|index| assert!(index != 7, "task {index}"), 7));
            scope.spawn(|| guarded(&failed, &|_| {}, 8));
        });
        assert_eq!(failed.into_inner().unwrap().as_deref(), Some("task 7"));
    }
}
