//! Operators of our own on a device, as ONNX Runtime custom operators of its execution provider.
//!
//! What each computes stands in `runner/cuda/operators`.

use crate::graph::INTERNAL_DOMAIN;
use crate::runner::cuda::gpu::{Element, Gpu};
use crate::runner::cuda::operators::{Array, Attributes, Compute, DEFINITIONS, Definition, Kind, Node, Port, computed};
use ort::AsPointer;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{DynValue, TensorElementType};
use std::sync::Arc;

/// Returns the domain of our operators on a device that sessions reach through an execution provider of this name; the
/// processor's where there is none.
///
/// # Errors
/// ONNX Runtime refuses an operator.
pub(in super::super) fn domain(gpu: &Arc<dyn Gpu>, provider: Option<&'static str>) -> ort::Result<OperatorDomain> {
    let all = DEFINITIONS.iter().flat_map(|definition| definition.elements().iter().map(move |e| (*definition, *e)));
    all.into_iter().try_fold(OperatorDomain::new(INTERNAL_DOMAIN)?, |domain, (definition, element)| {
        domain.add(Own { definition, element, gpu: Arc::clone(gpu), provider })
    })
}

struct Own {
    definition: &'static Definition,
    element: Element,
    gpu: Arc<dyn Gpu>,
    provider: Option<&'static str>,
}

impl Own {
    fn element_type(&self, port: &Port) -> TensorElementType {
        match (port.kind, self.element) {
            (Kind::Int, _) => TensorElementType::Int64,
            (Kind::Data, Element::F16) => TensorElementType::Float16,
            (Kind::Data, Element::BF16) => TensorElementType::Bfloat16,
            (Kind::Float, _) | (Kind::Data, Element::F32) => TensorElementType::Float32,
        }
    }

    fn error(&self, reason: &str) -> ort::Error {
        ort::Error::new(format!("{}: {reason}", self.definition.name))
    }
}

impl Operator for Own {
    type Kernel<'attr> = Running;

    fn name(&self) -> &str {
        self.definition.name
    }

    fn execution_provider_type(&self) -> Option<&str> {
        self.provider
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let input = |port: &Port| match port.required {
            true => OperatorInput::required(self.element_type(port)),
            false => OperatorInput::optional(self.element_type(port)),
        };
        self.definition.inputs.iter().map(input).collect::<Vec<_>>()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let output = |port: &Port| match port.required {
            true => OperatorOutput::required(self.element_type(port)),
            false => OperatorOutput::optional(self.element_type(port)),
        };
        self.definition.outputs.iter().map(output).collect::<Vec<_>>()
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Running> {
        let compute = (self.definition.make)(&Reader(context)).map_err(|reason| self.error(&reason))?;
        Ok(Running { definition: self.definition, element: self.element, compute, gpu: Arc::clone(&self.gpu) })
    }
}

struct Reader<'c, 'a>(&'c KernelContext<'a>);

impl Attributes for Reader<'_, '_> {
    fn int(&self, name: &str) -> Option<i64> {
        self.0.get(name)
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.0.get(name)
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.0.get(name)
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.0.get(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)
    }
}

/// A node that runs.
struct Running {
    definition: &'static Definition,
    element: Element,
    compute: Box<dyn Compute>,
    gpu: Arc<dyn Gpu>,
}

impl Kernel for Running {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let run = Call { context, definition: self.definition, element: self.element, gpu: &*self.gpu };
        computed(&mut *self.compute, &run)
            .map_err(|reason| ort::Error::new(format!("{}: {reason}", self.definition.name)))
    }
}

struct Call<'c> {
    context: &'c ComputeContext,
    definition: &'static Definition,
    element: Element,
    gpu: &'c dyn Gpu,
}

impl Node for Call<'_> {
    fn gpu(&self) -> &dyn Gpu {
        self.gpu
    }

    fn element(&self) -> Element {
        self.element
    }

    fn find(&self, index: usize) -> Result<Option<Array>, String> {
        let count = self.context.num_inputs().map_err(|error| error.to_string())?;
        if index >= count.min(self.definition.inputs.len()) {
            return Ok(None);
        }
        let value = self.context.input(index).map_err(|error| error.to_string())?;
        Ok(value.map(|value| array(&value)))
    }

    fn wanted(&self, index: usize, shape: &[usize]) -> Result<Option<Array>, String> {
        let count = self.context.num_outputs().map_err(|error| error.to_string())?;
        if index >= count {
            return Ok(None);
        }
        let shape: Vec<i64> = shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
        let value = self.context.output(index, shape).map_err(|error| error.to_string())?;
        Ok(value.map(|value| array(&value)))
    }
}

fn array(value: &DynValue) -> Array {
    let shape = value.shape().iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
    let mut at = std::ptr::null_mut();
    // SAFETY: the value is a live tensor of this run, and the call writes one pointer. A tensor has data.
    let status = unsafe { (ort::api().GetTensorMutableData)(value.ptr().cast_mut(), &mut at) };
    // SAFETY: the status is the one that was just returned.
    let at = unsafe { ort::Error::result_from_status(status) }.map_or(0, |()| at as u64);
    Array { at, shape }
}
