//! Old and upgraded models give the same numbers; what cannot be upgraded is named.

use super::*;
use crate::graph::{Attributes, DType, Dim, Fact, OpId, Origin, Tensor, check};
use std::collections::BTreeMap;

fn model(graph: Graph, opset: i64) -> Model {
    Model { graph, opsets: BTreeMap::from([(String::new(), opset)]), ir_version: 4, ..Model::default() }
}

/// One node of an opset, its inputs `x0`, `x1`, ..
struct Case {
    opset: i64,
    op: &'static str,
    attributes: Attributes,
    inputs: Vec<Option<Tensor>>,
    fixed: bool,
    outputs: usize,
}

#[cfg_attr(not(feature = "runner"), allow(dead_code))]
impl Case {
    fn new(opset: i64, op: &'static str, shape: &[usize]) -> Case {
        let count = shape.iter().product();
        let values = (0..count).map(|index: usize| ((index * 37 + 11) % 61) as f32 / 10.0 - 3.0).collect();
        let inputs = vec![Some(Tensor::from_vec::<f32>(shape, values))];
        Case { opset, op, attributes: Attributes::none(), inputs, fixed: true, outputs: 1 }
    }

    fn with(mut self, name: &str, value: impl Into<Attribute>) -> Case {
        self.attributes.set(name, value);
        self
    }

    fn ints(self, name: &str, values: &[i64]) -> Case {
        self.with(name, values)
    }

    /// Adds an initializer.
    fn and(mut self, tensor: Tensor) -> Case {
        self.inputs.push(Some(tensor));
        self
    }

    fn floats(self, shape: &[usize], values: &[f32]) -> Case {
        self.and(Tensor::from_vec(shape, values.to_vec()))
    }

    /// Leaves dtype and shape of `x0` unknown to the pass: it reads them through a node.
    fn unknown(mut self) -> Case {
        self.fixed = false;
        self
    }

    fn outputs(mut self, count: usize) -> Case {
        self.outputs = count;
        self
    }

    fn build(&self) -> Model {
        let mut b = Builder::new("case");
        let mut ids = Vec::new();
        for (index, tensor) in self.inputs.iter().enumerate() {
            ids.push(tensor.as_ref().map(|tensor| match index {
                0 => b.input("x0", Fact::fixed(tensor.dtype(), tensor.shape())),
                _ => b.initializer(&format!("x{index}"), tensor.clone()),
            }));
        }
        if !self.fixed {
            let copy = b.declare("copy", Fact::default());
            b.push_node(Node {
                name: "copy".into(),
                op: OpId::standard("Identity"),
                overload: String::new(),
                inputs: vec![ids[0]],
                outputs: vec![Some(copy)],
                attributes: Attributes::none(),
                origin: Origin::Forward,
                metadata: Vec::new(),
            });
            ids[0] = Some(copy);
        }
        b.enter(Origin::Forward, "net");
        let outputs = b.ops(&OpId::standard(self.op), &ids, self.attributes.clone(), self.outputs);
        for (index, output) in outputs.into_iter().enumerate() {
            let indices = index == 1 && ["TopK", "MaxPool"].contains(&self.op);
            let dtype = if indices { DType::I64 } else { DType::F32 };
            b.refine(output, &Fact { dtype: Some(dtype), shape: None });
            b.mark_output(output);
        }
        model(b.finish(), self.opset)
    }
}

#[cfg(feature = "runner")]
#[test]
fn upgraded_models_give_the_same_numbers() {
    use crate::runner::{evaluate, testing};
    let scales = [1.0, 1.0, 2.0, 3.0];
    let image = [1, 2, 3, 4];
    let mut cases = vec![
        Case::new(7, "Squeeze", &[2, 1, 3]).ints("axes", &[1]),
        Case::new(11, "Squeeze", &[2, 1, 3, 1]),
        Case::new(12, "Unsqueeze", &[2, 3]).ints("axes", &[0, -1]),
        Case::new(7, "Split", &[6, 2]).ints("split", &[1, 5]).outputs(2),
        Case::new(7, "Split", &[6, 2]).outputs(3),
        Case::new(11, "Split", &[2, 6]).with("axis", 1).outputs(2),
        Case::new(13, "Split", &[6, 2]).outputs(2),
        Case::new(13, "Split", &[6, 2]).and(Tensor::ints(&[4, 2])).outputs(2),
        Case::new(9, "Dropout", &[2, 3]).with("ratio", 0.25f32),
        Case::new(10, "Dropout", &[2, 3]),
        Case::new(7, "Clip", &[2, 3]).with("min", 0.0f32).with("max", 2.0f32),
        Case::new(10, "Clip", &[2, 3]).with("max", 1.0f32),
        Case::new(10, "Clip", &[2, 3]).with("min", -0.5f32).unknown(),
        Case::new(10, "Clip", &[2, 3]),
        Case::new(7, "Pad", &[2, 3]).ints("pads", &[1, 0, 0, 2]).with("value", 1.5f32),
        Case::new(7, "Pad", &[2, 3]).ints("pads", &[1, 0, 0, 2]).with("value", 1.5f32).unknown(),
        Case::new(10, "Pad", &[3, 3]).ints("pads", &[1, 0, 1, 2]).with("mode", "reflect"),
        Case::new(10, "Pad", &[3, 3]).ints("pads", &[1, 0, 0, -1]),
        Case::new(7, "Slice", &[4, 5]).ints("starts", &[1, -3]).ints("ends", &[4, 1000]).ints("axes", &[0, 1]),
        Case::new(9, "Slice", &[4, 5]).ints("starts", &[1]).ints("ends", &[-1]),
        Case::new(7, "TopK", &[3, 5]).with("k", 2).outputs(2),
        Case::new(7, "Upsample", &image).with("scales", Attribute::Floats(scales.to_vec())),
        Case::new(7, "Upsample", &image).with("scales", Attribute::Floats(scales.to_vec())).with("mode", "linear"),
        Case::new(9, "Upsample", &image).floats(&[4], &scales),
        Case::new(9, "Upsample", &image).floats(&[4], &[1.0, 1.0, 1.5, 2.5]),
        Case::new(9, "Upsample", &image).floats(&[4], &scales).with("mode", "linear"),
        Case::new(10, "Resize", &image).floats(&[4], &scales),
        Case::new(10, "Resize", &image).floats(&[4], &[1.0, 1.0, 0.5, 0.7]).with("mode", "linear"),
        Case::new(11, "Resize", &image).floats(&[0], &[]).floats(&[4], &scales),
        Case::new(11, "Resize", &image).floats(&[0], &[]).floats(&[0], &[]).and(Tensor::ints(&[1, 2, 5, 7])),
        Case::new(13, "Resize", &image).floats(&[0], &[]).floats(&[4], &[1.0, 1.0, 0.5, 0.5]).with("mode", "cubic"),
        Case::new(10, "RoiAlign", &[1, 2, 6, 6])
            .floats(&[1, 4], &[0.5, 0.5, 4.0, 5.0])
            .and(Tensor::ints(&[0]))
            .with("output_height", 2)
            .with("output_width", 3),
        Case::new(9, "Scatter", &[3, 2]).and(Tensor::from_vec(&[1, 2], vec![2i64, 0])).floats(&[1, 2], &[9.0, 8.0]),
        Case::new(7, "Gemm", &[2, 3]).floats(&[3, 2], &[1.0; 6]).floats(&[2], &[0.5, 1.0]),
        Case::new(7, "Reshape", &[2, 6]).and(Tensor::ints(&[3, -1])),
        Case::new(7, "AveragePool", &image).ints("kernel_shape", &[2, 2]).ints("pads", &[0, 1, 1, 0]),
        Case::new(11, "AveragePool", &image)
            .ints("kernel_shape", &[2, 2])
            .ints("strides", &[2, 3])
            .with("ceil_mode", 1),
        Case::new(8, "MaxPool", &image).ints("kernel_shape", &[2, 2]).outputs(2),
        Case::new(11, "ConvTranspose", &image)
            .floats(&[2, 1, 2, 2], &[1.0, -1.0, 0.5, 2.0, 0.25, 1.5, -0.5, 1.0])
            .ints("strides", &[2, 2])
            .with("auto_pad", "SAME_UPPER"),
        Case::new(7, "Gather", &[4, 2]).and(Tensor::ints(&[3, 0])),
        Case::new(7, "HardSigmoid", &[4, 2]),
        Case::new(14, "Trilu", &[4, 4]).with("upper", 0),
        Case::new(16, "GridSample", &[1, 1, 3, 3]).floats(&[1, 1, 2, 2], &[0.1, -0.5, 0.9, 0.3]),
        Case::new(17, "LayerNormalization", &[2, 3]).floats(&[3], &[1.0, 2.0, 0.5]),
        Case::new(12, "LayerNormalization", &[2, 3]).floats(&[3], &[1.0, 2.0, 0.5]),
        Case::new(17, "SimplifiedLayerNormalization", &[2, 3]).floats(&[3], &[1.0, 2.0, 0.5]),
    ];
    for opset in [7, 11, 17] {
        for op in [
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSumSquare",
        ] {
            cases.push(Case::new(opset, op, &[2, 3, 4]).ints("axes", &[1, 2]).with("keepdims", 0));
            cases.push(Case::new(opset, op, &[2, 3, 4]).ints("axes", &[0]));
            cases.push(Case::new(opset, op, &[2, 3, 4]));
        }
    }
    cases.push(Case::new(12, "ReduceSum", &[2, 3, 4]).ints("axes", &[-1]));
    cases.push(Case::new(13, "ReduceSum", &[2, 3, 4]).and(Tensor::ints(&[1])).with("keepdims", 0));
    for op in ["Softmax", "LogSoftmax", "Hardmax"] {
        for (opset, shape, axis) in [
            (7, &[2, 3][..], 1),
            (7, &[2, 3, 4], 1),
            (11, &[2, 3, 4], -2),
            (9, &[2, 3, 4], 0),
            (12, &[2, 3, 1, 1], 1),
            (12, &[2, 3, 4], 2),
            (11, &[2, 3, 4], -1),
            (13, &[2, 3, 4], 1),
        ] {
            cases.push(Case::new(opset, op, shape).with("axis", axis));
            cases.push(Case::new(opset, op, shape).with("axis", axis).unknown());
        }
        cases.push(Case::new(12, op, &[2, 3, 4]));
        cases.push(Case::new(13, op, &[2, 3, 4]));
    }
    for opset in [7, 9, 14] {
        let mut norm = Case::new(opset, "BatchNormalization", &image).with("epsilon", 0.1f32);
        for values in [[1.0, 2.0], [0.5, -0.5], [0.1, 0.2], [1.0, 3.0]] {
            norm = norm.floats(&[2], &values);
        }
        cases.push(norm);
    }
    let mut engine = testing::onnxruntime();
    let mut failures = Vec::new();
    for case in &cases {
        let old = case.build();
        let new = upgrade(&old).unwrap();
        check(&new.graph).unwrap();
        assert_eq!((new.opset(), new.ir_version), (18, 8));
        let names = |model: &Model| -> Vec<String> {
            model.graph.outputs().iter().map(|id| model.graph.value_name(*id).to_string()).collect()
        };
        assert_eq!(names(&old), names(&new), "{} {}", case.op, case.opset);
        let feeds = [("x0", case.inputs[0].as_ref().unwrap())];
        let results = (evaluate(&mut engine, &old, &feeds), evaluate(&mut engine, &new, &feeds));
        let same = match &results {
            (Ok(old), Ok(new)) => old.iter().zip(new).all(|(old, new)| {
                let pairs = old.to_f64s().unwrap().into_iter().zip(new.to_f64s().unwrap());
                let close = |(a, b): (f64, f64)| (a - b).abs() <= 1e-6 * (1.0 + a.abs());
                old.shape() == new.shape() && old.dtype() == new.dtype() && pairs.into_iter().all(close)
            }),
            _ => false,
        };
        if !same {
            failures.push(format!("{} {}: {results:?}\n{}", case.op, case.opset, crate::graph::dump(&new.graph)));
        }
    }
    assert!(failures.is_empty(), "{} of {}\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn what_has_no_equal_is_named() {
    let sizes = |case: Case| case.floats(&[4], &[1.0, 1.0, 0.5, 0.5]);
    let cases = [
        (Case::new(6, "Relu", &[2]), "the model has opset 6, opsets 7 to 24 can be read"),
        (Case::new(25, "Relu", &[2]), "the model has opset 25, opsets 7 to 24 can be read"),
        (
            Case::new(9, "Frobnicate", &[2]),
            "node \"net/Frobnicate\": operator Frobnicate of opset 9 is not known to mean the same at opset 18",
        ),
        (
            Case::new(9, "GridSample", &[2]),
            "node \"net/GridSample\": operator GridSample of opset 9 is not known to mean the same at opset 18",
        ),
        (
            Case::new(7, "BatchNormalization", &[2, 2]).with("spatial", 0),
            "node \"net/BatchNormalization\": operator BatchNormalization of opset 7 has no equal at opset 18: statistics per element (spatial 0) exist no more",
        ),
        (
            Case::new(9, "BatchNormalization", &[2, 2]).outputs(3),
            "node \"net/BatchNormalization\": operator BatchNormalization of opset 9 has no equal at opset 18: the statistics of its training mode are used",
        ),
        (
            Case::new(10, "Dropout", &[2, 2]).outputs(2),
            "node \"net/Dropout\": operator Dropout of opset 10 has no equal at opset 18: the mask is used",
        ),
        (
            sizes(Case::new(10, "Resize", &[1, 1, 4, 4])),
            "node \"net/Resize\": operator Resize of opset 10 has no equal at opset 18: which pixel is nearest was not defined for scales below 1",
        ),
        (
            Case::new(8, "Scan", &[2]),
            "node \"net/Scan\": operator Scan of opset 8 is not known to mean the same at opset 18",
        ),
        (Case::new(12, "Softmax", &[2]).with("axis", 1.0f32), "node \"net/Softmax\": operator Softmax of opset 12"),
        (
            Case::new(23, "RMSNormalization", &[2]),
            "node \"net/RMSNormalization\": operator RMSNormalization of opset 23 is not known to mean the same at opset 21",
        ),
        (
            Case::new(24, "Cast", &[2]).with("to", 1).with("round_mode", "down"),
            "node \"net/Cast\": operator Cast of opset 24 has no equal at opset 21: attribute \"round_mode\" came later",
        ),
        (
            Case::new(23, "Cast", &[2]).with("to", 23),
            "node \"net/Cast\": operator Cast of opset 23 has no equal at opset 21: it casts to dtype 23, which came later",
        ),
    ];
    for (case, expected) in cases {
        assert_eq!(upgrade(&case.build()).unwrap_err().to_string(), expected);
    }
}

#[test]
fn newer_models_keep_their_nodes() {
    for (opset, target) in [(18, 18), (20, 20), (21, 21), (22, 21), (23, 21), (24, 21)] {
        for op in ["Conv", "Gelu", "ReduceMean", "Softmax", "Dropout", "TopK"] {
            let old = Case::new(opset, op, &[2, 3]).build();
            let new = upgrade(&old).unwrap();
            assert_eq!((new.opset(), new.ir_version), (target, old.ir_version), "{op} {opset}");
            assert_eq!(crate::graph::dump(&new.graph), crate::graph::dump(&old.graph));
        }
    }
}

#[test]
fn names_stay_and_other_domains_are_not_touched() {
    let mut b = Builder::new("net");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("N".into()), Dim::Known(3), Dim::Known(4)]));
    let custom = OpId { domain: "com.example".into(), name: "Softmax".into() };
    let y = b.ops(&custom, &[Some(x)], Attributes::none().with("axis", 0), 1)[0];
    let y = b.op("Softmax", &[y], Attributes::none());
    b.rename(y, "Softmax/shape");
    let dropped = b.ops(&OpId::standard("Dropout"), &[Some(y)], Attributes::none(), 2)[0];
    b.mark_output(dropped);
    b.mark_output(y);
    let mut old = model(b.finish(), 9);
    old.opsets.insert("com.example".into(), 3);
    let new = upgrade(&old).unwrap();
    check(&new.graph).unwrap();
    assert_eq!(new.opsets, BTreeMap::from([(String::new(), 18), ("com.example".into(), 3)]));
    let ops: Vec<String> = new.graph.nodes().iter().map(|node| format!("{} {}", node.op, node.name)).collect();
    let expected = [
        "com.example.Softmax Softmax",
        "Flatten Softmax_1/Flatten",
        "Softmax Softmax_1/Softmax",
        "Shape Softmax_1/Shape",
        "Reshape Softmax_1",
        "Dropout Dropout",
    ];
    assert_eq!(ops, expected);
    assert_eq!(new.graph.node(NodeId(5)).outputs.len(), 1);
    let ratio = new.graph.find("Dropout/ratio").unwrap();
    assert_eq!(new.graph.constant(ratio), Some(Tensor::scalar(0.5f32)));
    for output in old.graph.outputs() {
        assert!(new.graph.find(old.graph.value_name(*output)).is_some());
    }
}
