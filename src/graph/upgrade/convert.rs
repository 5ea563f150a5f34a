//! One operator of an opset in 7 to 17, rewritten for opset 18.

use super::{TARGET, UpgradeError, list};
use crate::graph::{AttrError, Attribute, Attributes, Builder, DType, Dim, Node, OpId, Tensor, ValueId};
use std::collections::HashSet;

/// Returns the node for opset 18, on inputs of the builder and outputs of the old graph. Nodes and
/// constants it needs are appended in the builder's scope.
pub(super) fn node(
    b: &mut Builder,
    node: &Node,
    inputs: Vec<Option<ValueId>>,
    read: &HashSet<ValueId>,
    opset: i64,
) -> Result<Node, UpgradeError> {
    let new = Node { inputs, ..node.clone() };
    if !node.op.domain.is_empty() {
        return Ok(new);
    }
    let mut convert = Convert { b, node: new, read, opset };
    match convert.apply() {
        Ok(()) => Ok(convert.node),
        Err(fault) => Err(fault.at(node, opset)),
    }
}

enum Fault {
    Unknown,
    Reason(&'static str),
    Attribute(AttrError),
}

impl Fault {
    fn at(self, node: &Node, opset: i64) -> UpgradeError {
        let (node, op) = (node.name.clone(), node.op.to_string());
        match self {
            Fault::Unknown => UpgradeError::Unknown { node, op, opset, target: TARGET },
            Fault::Reason(reason) => {
                UpgradeError::Convert { node, op, opset, target: TARGET, reason: reason.to_string() }
            }
            Fault::Attribute(source) => UpgradeError::Attribute { node, op, opset, source },
        }
    }
}

impl From<AttrError> for Fault {
    fn from(error: AttrError) -> Fault {
        Fault::Attribute(error)
    }
}

type Outcome = Result<(), Fault>;

struct Convert<'a> {
    b: &'a mut Builder,
    node: Node,
    read: &'a HashSet<ValueId>,
    opset: i64,
}

impl Convert<'_> {
    fn apply(&mut self) -> Outcome {
        let opset = self.opset;
        let op = self.node.op.name.clone();
        match op.as_str() {
            "ReduceSum" if opset < 13 => self.axes(),
            "ReduceSum" => Ok(()),
            "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
            | "ReduceProd" | "ReduceSumSquare" => self.axes(),
            "Squeeze" | "Unsqueeze" if opset < 13 => self.axes(),
            "Split" => self.split(),
            "Softmax" | "LogSoftmax" | "Hardmax" if opset < 13 => self.softmax(),
            "Dropout" if opset < 12 => self.dropout(),
            "Clip" if opset < 11 => self.clip(),
            "Pad" if opset < 11 => self.pad(),
            "Slice" if opset < 10 => self.slice(),
            "TopK" if opset < 10 => self.top_k(),
            "Upsample" if opset < 10 => self.upsample(),
            "Resize" => self.resize(),
            "BatchNormalization" if opset < 14 => self.batch_norm(),
            "RoiAlign" if opset < 16 => {
                self.node.attributes.set("coordinate_transformation_mode", "output_half_pixel");
                Ok(())
            }
            "Scatter" if opset < 11 => {
                self.node.op = OpId::standard("ScatterElements");
                Ok(())
            }
            "OneHot" if opset < 11 => Err(Fault::Reason("negative indices meant \"off\" and now count from the end")),
            "ConvTranspose" if opset < 11 => self.conv_transpose(),
            _ if list::CONVERTED.contains(&op.as_str()) || list::known(&op, opset) => Ok(()),
            _ => Err(Fault::Unknown),
        }
    }

    /// Takes an attribute of integers away.
    fn take_ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, Fault> {
        let values = self.node.attributes.ints(name)?;
        self.node.attributes.remove(name);
        Ok(values)
    }

    /// Moves the attribute `axes` to input 1.
    fn axes(&mut self) -> Outcome {
        if let Some(axes) = self.take_ints("axes")?.filter(|axes| !axes.is_empty()) {
            let axes = self.b.ints("axes", &axes);
            self.node.inputs.truncate(1);
            self.node.inputs.push(Some(axes));
        }
        Ok(())
    }

    fn split(&mut self) -> Outcome {
        if self.opset < 13
            && let Some(sizes) = self.take_ints("split")?
        {
            let sizes = self.b.ints("split", &sizes);
            self.node.inputs.truncate(1);
            self.node.inputs.push(Some(sizes));
        }
        if self.node.input(1).is_none() {
            self.node.inputs.truncate(1);
            self.node.attributes.set("num_outputs", self.node.outputs.len() as i64);
        }
        Ok(())
    }

    /// Softmax over everything from `axis` on, as it was before opset 13.
    fn softmax(&mut self) -> Outcome {
        let axis = self.node.attributes.int("axis", 1)?;
        let Some(x) = self.node.input(0) else { return Err(Fault::Unknown) };
        let one = Dim::Known(1);
        let last = self.b.fact(x).shape.as_ref().is_some_and(|shape| {
            let front = if axis < 0 { axis + shape.len() as i64 } else { axis };
            usize::try_from(front).is_ok_and(|front| shape.iter().skip(front + 1).all(|dim| *dim == one))
        });
        if axis == -1 || last {
            self.node.attributes.set("axis", axis);
            return Ok(());
        }
        let flat = self.b.op("Flatten", &[x], Attributes::none().with("axis", axis));
        let op = self.node.op.name.clone();
        let result = self.b.op(&op, &[flat], Attributes::none().with("axis", -1));
        let shape = self.b.shape_of(x);
        self.node.op = OpId::standard("Reshape");
        self.node.inputs = vec![Some(result), Some(shape)];
        self.node.attributes = Attributes::none();
        Ok(())
    }

    /// Drops outputs after the first, which nothing may read.
    fn only_first_output(&mut self, reason: &'static str) -> Outcome {
        if self.node.outputs.iter().skip(1).flatten().any(|output| self.read.contains(output)) {
            return Err(Fault::Reason(reason));
        }
        self.node.outputs.truncate(1);
        Ok(())
    }

    fn dropout(&mut self) -> Outcome {
        self.only_first_output("the mask is used")?;
        let ratio = self.node.attributes.float("ratio", 0.5)?;
        self.node.attributes.remove("ratio");
        let ratio = self.b.constant("ratio", Tensor::scalar(ratio));
        self.node.inputs.truncate(1);
        self.node.inputs.push(Some(ratio));
        Ok(())
    }

    /// Adds a number of the dtype of input 0: a constant, or a cast where the dtype is not known.
    fn number(&mut self, part: &str, value: f32) -> Result<ValueId, Fault> {
        let Some(x) = self.node.input(0) else { return Err(Fault::Unknown) };
        Ok(match self.b.fact(x).dtype {
            Some(dtype @ (DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::I64 | DType::I32)) => {
                self.b.constant(part, Tensor::float_scalar(dtype, f64::from(value)))
            }
            _ => {
                let number = self.b.constant(part, Tensor::scalar(value));
                self.b.op("CastLike", &[number, x], Attributes::none())
            }
        })
    }

    fn clip(&mut self) -> Outcome {
        let low = self.node.attributes.float("min", f32::MIN)?;
        let high = self.node.attributes.float("max", f32::MAX)?;
        let (low, high) = (self.number("min", low)?, self.number("max", high)?);
        self.node.inputs.truncate(1);
        self.node.inputs.extend([Some(low), Some(high)]);
        self.node.attributes.remove("min");
        self.node.attributes.remove("max");
        Ok(())
    }

    fn pad(&mut self) -> Outcome {
        let Some(pads) = self.take_ints("pads")? else { return Err(Fault::Reason("it has no pads")) };
        let value = self.node.attributes.float("value", 0.0)?;
        self.node.attributes.remove("value");
        let pads = self.b.ints("pads", &pads);
        self.node.inputs.truncate(1);
        self.node.inputs.push(Some(pads));
        if value != 0.0 {
            let value = self.number("value", value)?;
            self.node.inputs.push(Some(value));
        }
        Ok(())
    }

    fn slice(&mut self) -> Outcome {
        let (starts, ends) = (self.take_ints("starts")?, self.take_ints("ends")?);
        let (Some(starts), Some(ends)) = (starts, ends) else {
            return Err(Fault::Reason("it has no starts or no ends"));
        };
        let axes = self.take_ints("axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        self.node.inputs.truncate(1);
        for (part, values) in [("starts", starts), ("ends", ends), ("axes", axes)] {
            let values = self.b.ints(part, &values);
            self.node.inputs.push(Some(values));
        }
        Ok(())
    }

    fn top_k(&mut self) -> Outcome {
        let count = self.node.attributes.int("k", -1)?;
        if count < 0 {
            return Err(Fault::Reason("it has no k"));
        }
        self.node.attributes.remove("k");
        let count = self.b.ints("k", &[count]);
        self.node.inputs.truncate(1);
        self.node.inputs.push(Some(count));
        Ok(())
    }

    fn upsample(&mut self) -> Outcome {
        if self.opset < 9 {
            let scales = match self.node.attributes.get("scales") {
                Some(Attribute::Floats(scales)) => scales.clone(),
                _ => return Err(Fault::Reason("it has no scales")),
            };
            self.node.attributes.remove("scales");
            let scales = self.b.constant("scales", Tensor::from_vec(&[scales.len()], scales));
            self.node.inputs.truncate(1);
            self.node.inputs.push(Some(scales));
        }
        self.node.op = OpId::standard("Resize");
        self.asymmetric()
    }

    /// Resize as it was before opset 11, for `X, scales` that do not shrink.
    fn asymmetric(&mut self) -> Outcome {
        let scales = self.node.input(1).ok_or(Fault::Reason("it has no scales"))?;
        let mode = self.node.attributes.text("mode", "nearest")?;
        if mode != "nearest" && mode != "linear" {
            return Err(Fault::Reason("its mode is neither nearest nor linear"));
        }
        self.node.inputs = vec![self.node.input(0), None, Some(scales)];
        self.node.attributes.set("coordinate_transformation_mode", "asymmetric");
        if mode == "nearest" {
            self.node.attributes.set("nearest_mode", "floor");
        }
        Ok(())
    }

    fn resize(&mut self) -> Outcome {
        if self.opset < 11 {
            let scales = self.node.input(1).and_then(|scales| self.b.graph().constant(scales)?.to_f64s());
            let grows = scales.is_some_and(|scales| scales.iter().all(|scale| *scale >= 1.0));
            if !grows && self.node.attributes.text("mode", "nearest")? == "nearest" {
                return Err(Fault::Reason("which pixel is nearest was not defined for scales below 1"));
            }
            return self.asymmetric();
        }
        let mode = self.node.attributes.text("coordinate_transformation_mode", "half_pixel")?;
        if mode == "tf_half_pixel_for_nn" {
            return Err(Fault::Reason("tf_half_pixel_for_nn exists no more"));
        }
        for input in self.node.inputs.iter_mut().skip(1) {
            let constant = input.and_then(|input| self.b.graph().constant(input));
            if constant.is_some_and(|tensor| tensor.is_empty()) {
                *input = None;
            }
        }
        Ok(())
    }

    fn batch_norm(&mut self) -> Outcome {
        if self.opset < 9 {
            if self.node.attributes.int("spatial", 1)? != 1 {
                return Err(Fault::Reason("statistics per element (spatial 0) exist no more"));
            }
            self.node.attributes.remove("spatial");
        }
        self.only_first_output("the statistics of its training mode are used")
    }

    fn conv_transpose(&mut self) -> Outcome {
        let mode = self.node.attributes.text("auto_pad", "NOTSET")?;
        let sized = self.node.attributes.get("output_shape").is_some();
        if mode.starts_with("SAME") || sized {
            return Err(Fault::Reason("which side takes the odd padding has changed"));
        }
        Ok(())
    }
}
