//! Operators of our own on a device.
//!
//! Each has the name, attributes, inputs and outputs of the operator on the CPU (`runner/onnxruntime/operators`), which
//! is its twin in tests; here data may be float16 or bfloat16, too.

mod convolution;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod gelu;
#[cfg(all(test, unix))]
mod image_tests;
mod layer_norm;
mod normalization;
mod optimizer;
#[cfg(all(test, unix))]
mod optimizer_tests;
mod pooling;
mod rows;
mod softmax;
#[cfg(all(test, unix))]
mod tests;
mod tiles;

use super::gpu::{Element, Gpu};
use std::any::Any;

/// What an input or output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runner) enum Kind {
    /// Elements of the operator's type.
    Data,
    /// float32, whatever the operator's type is.
    Float,
    /// int64.
    Int,
}

/// An input or output of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runner) struct Port {
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
}

/// A port of data that must be there.
const DATA: Port = Port { kind: Kind::Data, required: true };
/// One of data.
const OPTIONAL: Port = Port { kind: Kind::Data, required: false };
/// One of float32 that must be there.
const FLOAT: Port = Port { kind: Kind::Float, required: true };
/// One of float32.
const OPTIONAL_FLOAT: Port = Port { kind: Kind::Float, required: false };
/// One of integers that must be there.
const INT: Port = Port { kind: Kind::Int, required: true };

/// Returns what computes a node with these attributes.
type Make = fn(&dyn Attributes) -> Result<Box<dyn Compute>, String>;

/// An operator: what it is called, what it takes, and who computes it.
pub(in crate::runner) struct Definition {
    pub name: &'static str,
    pub inputs: &'static [Port],
    pub outputs: &'static [Port],
    /// Returns what computes a node with these attributes.
    pub make: Make,
}

impl Definition {
    /// Returns the types of elements that there is an operator of.
    pub fn elements(&self) -> &'static [Element] {
        let typed = self.inputs.iter().chain(self.outputs).any(|port| port.kind == Kind::Data);
        if typed { &Element::ALL } else { &[Element::F32] }
    }
}

/// Every operator.
pub(in crate::runner) static DEFINITIONS: &[&Definition] = &[
    &convolution::CONV,
    &convolution::CONV_INPUT_GRAD,
    &convolution::CONV_WEIGHT_GRAD,
    &cross_entropy::SOFTMAX_CROSS_ENTROPY,
    &cross_entropy::SOFTMAX_CROSS_ENTROPY_GRAD,
    &dropout::DROPOUT,
    &elementwise::CLIP_GRAD,
    &elementwise::RELU_GRAD,
    &embedding::EMBEDDING_GRAD,
    &gelu::GELU,
    &gelu::GELU_GRAD,
    &layer_norm::LAYER_NORMALIZATION,
    &layer_norm::LAYER_NORMALIZATION_GRAD,
    &normalization::BATCH_NORMALIZATION,
    &normalization::BATCH_NORMALIZATION_GRAD,
    &normalization::FIXED_NORMALIZATION,
    &normalization::FIXED_NORMALIZATION_GRAD,
    &normalization::RUNNING_STATISTICS,
    &optimizer::ADAM_STEP,
    &optimizer::SGD_STEP,
    &pooling::AVERAGE_POOL,
    &pooling::AVERAGE_POOL_GRAD,
    &pooling::GLOBAL_AVERAGE_POOL,
    &pooling::GLOBAL_AVERAGE_POOL_GRAD,
    &pooling::MAX_POOL,
    &pooling::MAX_POOL_GRAD,
    &softmax::SOFTMAX,
    &softmax::SOFTMAX_GRAD,
];

/// The attributes of a node.
pub(in crate::runner) trait Attributes {
    fn int(&self, name: &str) -> Option<i64>;
    fn float(&self, name: &str) -> Option<f32>;
    fn ints(&self, name: &str) -> Option<Vec<i64>>;
    fn floats(&self, name: &str) -> Option<Vec<f32>>;
    fn text(&self, name: &str) -> Option<String>;
}

/// Computes a node.
pub(in crate::runner) trait Compute: Send {
    /// Asks the device for everything that computes it.
    ///
    /// # Errors
    /// Sizes that do not fit together, or the device fails.
    fn compute(&mut self, node: &dyn Node) -> Result<(), String>;
}

/// An input or output on the device.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::runner) struct Array {
    /// Where its elements lie: aligned to 16 bytes at least.
    pub at: u64,
    pub shape: Vec<usize>,
}

impl Array {
    /// Returns the number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the shape as four sizes.
    ///
    /// # Errors
    /// It has another rank.
    fn image(&self) -> Result<[usize; 4], String> {
        <[usize; 4]>::try_from(self.shape.as_slice()).map_err(|_| format!("an image has shape {:?}", self.shape))
    }
}

/// One run of a node.
pub(in crate::runner) trait Node {
    fn gpu(&self) -> &dyn Gpu;

    /// Returns the type of the operator's data.
    fn element(&self) -> Element;

    /// Returns an input where it is there.
    ///
    /// # Errors
    /// The engine refuses it.
    fn find(&self, index: usize) -> Result<Option<Array>, String>;

    /// Returns an output of this shape where somebody reads it. It may lie where an input lies that is bound to it.
    ///
    /// # Errors
    /// The engine refuses the shape.
    fn wanted(&self, index: usize, shape: &[usize]) -> Result<Option<Array>, String>;
}

impl dyn Node + '_ {
    /// Returns an input that must be there.
    ///
    /// # Errors
    /// It is not.
    fn input(&self, index: usize) -> Result<Array, String> {
        self.find(index)?.ok_or_else(|| format!("input {index} is missing"))
    }

    /// Returns an output that must be there.
    ///
    /// # Errors
    /// It is not, or the engine refuses the shape.
    fn output(&self, index: usize, shape: &[usize]) -> Result<Array, String> {
        self.wanted(index, shape)?.ok_or_else(|| format!("output {index} is missing"))
    }

    /// Returns two inputs of one shape.
    ///
    /// # Errors
    /// One is missing, or their shapes differ.
    fn alike(&self, first: usize, second: usize) -> Result<[Array; 2], String> {
        let [a, b] = [self.input(first)?, self.input(second)?];
        if a.shape != b.shape {
            return Err(format!("inputs {first} and {second} have shapes {:?} and {:?}", a.shape, b.shape));
        }
        Ok([a, b])
    }
}

/// Returns an attribute that is a list of sizes.
///
/// # Errors
/// The attribute is missing, has another length, or a negative entry.
fn sizes<const N: usize>(node: &dyn Attributes, name: &str) -> Result<[usize; N], String> {
    let list = node.ints(name).ok_or_else(|| format!("attribute \"{name}\" is missing"))?;
    let sizes: Option<Vec<usize>> = list.iter().map(|size| usize::try_from(*size).ok()).collect();
    let sizes = sizes.ok_or_else(|| format!("attribute \"{name}\" is {list:?}, which has a negative entry"))?;
    sizes.try_into().map_err(|_| format!("attribute \"{name}\" is {list:?}, expected {N} entries"))
}

/// Returns a number of elements as a kernel takes it.
fn long(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Computes a node; a panic becomes its error.
///
/// # Errors
/// Those of the node.
pub(in crate::runner) fn computed(compute: &mut dyn Compute, node: &dyn Node) -> Result<(), String> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compute.compute(node)));
    result.unwrap_or_else(|panic| Err(message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("an operator panicked").to_string()
}
