use super::*;
use crate::graph::{Attributes, Builder, DType, Dim, Fact, Tensor};
use crate::onnx::read;
use std::collections::{HashMap, HashSet};
use std::path::Path;

fn fixtures() -> Vec<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut found = Vec::new();
    for folder in ["digits", "digits_vit", "parity", "trees", "graphs"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")));
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn model_of(b: Builder) -> Model {
    Model { graph: b.finish(), opsets: [(String::new(), 17)].into(), ir_version: 8, ..Model::default() }
}

fn without_info(model: &Model) -> Model {
    let mut model = model.clone();
    for node in model.graph.nodes.clone() {
        for output in node.outputs.iter().flatten() {
            model.graph.values[output.0].fact = Fact::default();
        }
    }
    model
}

fn batch(model: &Model, size: usize) -> Model {
    let symbols = model.graph.inputs().iter().flat_map(|id| model.graph.fact(*id).shape.iter().flatten());
    let sizes: HashMap<String, usize> =
        symbols.filter_map(|dim| if let Dim::Symbol(name) = dim { Some((name.clone(), size)) } else { None }).collect();
    model.with_graph(model.graph.with_sizes(&sizes))
}

#[test]
fn every_fixture_is_known_once_the_batch_is_fixed() {
    let mut failures = Vec::new();
    for path in fixtures() {
        let model = batch(&without_info(&read(&path).unwrap().model), 5);
        let completed = complete(&model);
        let graph = &completed.model.graph;
        let open: Vec<String> = graph
            .nodes()
            .iter()
            .flat_map(|node| node.outputs.iter().flatten().map(move |id| (node, *id)))
            .filter(|(_, id)| graph.fact(*id).sizes().is_none() || graph.fact(*id).dtype.is_none())
            .map(|(node, id)| format!("{} of {}: {}", graph.value_name(id), node.op, graph.fact(id)))
            .collect();
        if !open.is_empty() {
            failures.push(format!("{}: {:?} {:?}", path.display(), &open[..open.len().min(3)], completed.notes));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_files_own_facts_agree_with_ours() {
    let mut failures = Vec::new();
    for path in fixtures() {
        let file = read(&path).unwrap().model;
        let completed = complete(&without_info(&file)).model;
        for (id, value) in file.graph.values() {
            let (said, found) = (&value.fact, completed.graph.fact(id));
            let differs = |(a, b): (&Dim, &Dim)| matches!((a, b), (Dim::Known(a), Dim::Known(b)) if a != b);
            let pairs = said.shape.iter().flatten().zip(found.shape.iter().flatten());
            let rank = said.rank().zip(found.rank()).is_some_and(|(a, b)| a != b);
            let dtype = said.dtype.zip(found.dtype).is_some_and(|(a, b)| a != b);
            if rank || dtype || pairs.into_iter().any(differs) {
                failures.push(format!("{} {}: {said} in the file, {found} found", path.display(), value.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_named_batch_survives_shape_arithmetic() {
    let mut b = Builder::new("reshape");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4), Dim::Known(6)]));
    let shape = b.unary("Shape", x);
    let first = b.ints("first", &[0]);
    let rows = b.op("Gather", &[shape, first], Attributes::none());
    let rest = b.ints("rest", &[24]);
    let target = b.op("Concat", &[rows, rest], Attributes::none().with("axis", 0));
    let y = b.op("Reshape", &[x, target], Attributes::none());
    let normalized = b.op("LayerNormalization", &[y, y], Attributes::none());
    b.mark_output(normalized);
    let model = model_of(b);
    let completed = complete(&model);
    assert_eq!(completed.model.graph.fact(y).to_string(), "float32[batch,24]", "{:?}", completed.notes);
}

#[test]
fn a_fixed_shape_needs_no_tract() {
    let mut b = Builder::new("reshape");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4, 6]));
    let shape = b.unary("Shape", x);
    let zero = b.constant("zero", Tensor::scalar(0i64));
    let rows = b.op("Gather", &[shape, zero], Attributes::none());
    let twice = b.constant("two", Tensor::scalar(2i64));
    let rows = b.op("Mul", &[rows, twice], Attributes::none());
    let rows = b.unsqueeze(rows, &[0]);
    let rest = b.ints("rest", &[-1]);
    let target = b.op("Concat", &[rows, rest], Attributes::none().with("axis", 0));
    let y = b.op("Reshape", &[x, target], Attributes::none());
    b.mark_output(y);
    let known = Known::of(&model_of(b), &[], &[]);
    assert_eq!(known.facts[y.0].to_string(), "float32[4,12]");
}

#[test]
fn what_stays_unknown_is_said() {
    let mut b = Builder::new("unknown");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    let op = crate::graph::OpId { domain: "org.example".into(), name: "Mystery".into() };
    let y = b.ops(&op, &[Some(x)], Attributes::none(), 1)[0];
    b.mark_output(y);
    let model = model_of(b);
    let notes = complete(&model).notes;
    assert!(notes.iter().any(|note| note.contains("\"Mystery:0\"")), "{notes:?}");
}

#[test]
fn a_stale_batch_in_the_file_is_noticed() {
    let mut b = Builder::new("stale");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4)]));
    let y = b.unary("Relu", x);
    let z = b.unary("Neg", y);
    b.mark_output(z);
    let mut model = model_of(b);
    model.graph.values[y.0].fact = Fact::fixed(DType::F32, &[1, 4]);
    let completed = complete(&model);
    assert_eq!(completed.model.graph.fact(z).to_string(), "float32[batch,4]");
    let said: Vec<String> = completed.contradictions.iter().map(Contradiction::to_string).collect();
    let expected = "\"Relu:0\" is float32[batch,4] by inference and float32[1,4] by the file: the first is used";
    assert_eq!(said, [expected]);
    assert_eq!((completed.source(x), completed.source(z)), (Source::File, Source::Inference));
    assert!(completed.notes.iter().any(|note| note == expected), "{:?}", completed.notes);
}

#[test]
fn inputs_without_names_get_some() {
    let mut b = Builder::new("unnamed");
    let x = b.input("input:0", Fact::new(DType::F32, vec![Dim::Unknown, Dim::Known(4), Dim::Unknown]));
    let y = b.op("Flatten", &[x], Attributes::none());
    b.mark_output(y);
    let completed = complete(&model_of(b));
    assert_eq!(completed.model.graph.fact(y).to_string(), "float32[input_0.0,4*input_0.2]");
    let sizes = HashMap::from([("input_0.0".into(), 2), ("input_0.2".into(), 3)]);
    assert_eq!(with_sizes(&completed.model, &sizes).graph.fact(y).to_string(), "float32[2,12]");
}

#[test]
fn sequences_are_taken_apart() {
    let mut b = Builder::new("sequences");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(6)]));
    let sizes = b.ints("sizes", &[2, 4]);
    let parts = b.op("SplitToSequence", &[x, sizes], Attributes::none().with("axis", 1));
    let at = |b: &mut Builder, sequence, index: i64| {
        let index = b.constant("index", Tensor::scalar(index));
        b.op("SequenceAt", &[sequence, index], Attributes::none())
    };
    let (first, last) = (at(&mut b, parts, 0), at(&mut b, parts, -1));
    let empty = b.op("SequenceEmpty", &[], Attributes::none());
    let one = b.op("SequenceInsert", &[empty, last], Attributes::none());
    let two = b.op("SequenceInsert", &[one, first], Attributes::none());
    let joined = b.op("ConcatFromSequence", &[two], Attributes::none().with("axis", 1));
    let length = b.op("SequenceLength", &[two], Attributes::none());
    let scale = b.cast(length, DType::F32);
    let y = b.mul(joined, scale);
    b.mark_output(y);
    b.mark_output(first);
    let completed = complete(&model_of(b));
    assert_eq!(completed.model.graph.fact(last).to_string(), "float32[batch,4]");
    assert_eq!(completed.gaps, []);
    let folded = fold(&completed.model, &HashSet::new()).graph;
    crate::graph::check(&folded).unwrap();
    let ops: Vec<&str> = folded.nodes().iter().map(|node| node.op.name.as_str()).collect();
    assert_eq!(ops, ["Split", "Identity", "Concat", "Mul"]);
    let concat = folded.nodes()[2].outputs[0].unwrap();
    assert_eq!(folded.fact(concat).to_string(), "float32[batch,6]");
    let scale = folded.constant(folded.nodes()[3].input(1).unwrap()).unwrap();
    assert_eq!(scale.to_f64s().unwrap(), [2.0]);
    assert_eq!(folded.value_name(folded.outputs()[1]), "SequenceAt:0");
}

#[test]
fn what_is_in_an_optional_value_is_known() {
    let mut b = Builder::new("optional");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(6)]));
    let maybe = b.op("Optional", &[x], Attributes::none());
    let y = b.op("OptionalGetElement", &[maybe], Attributes::none());
    let list = b.op("SequenceConstruct", &[x, y], Attributes::none());
    let maybe = b.op("Optional", &[list], Attributes::none());
    let list = b.op("OptionalGetElement", &[maybe], Attributes::none());
    let index = b.constant("index", Tensor::scalar(1i64));
    let z = b.op("SequenceAt", &[list, index], Attributes::none());
    let z = b.unary("Neg", z);
    b.mark_output(z);
    let completed = complete(&model_of(b));
    let facts = [y, z].map(|value| completed.model.graph.fact(value).to_string());
    assert_eq!(facts, ["float32[batch,6]", "float32[batch,6]"]);
    let folded = fold(&completed.model, &HashSet::new()).graph;
    let ops: Vec<&str> = folded.nodes().iter().map(|node| node.op.name.as_str()).collect();
    assert_eq!(ops, ["Optional", "OptionalGetElement", "Neg"]);
}

#[test]
fn sequences_of_unknown_length_stay() {
    let mut b = Builder::new("sequences");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(6)]));
    let parts = b.op("SplitToSequence", &[x], Attributes::none().with("axis", 0));
    let index = b.constant("index", Tensor::scalar(0i64));
    let y = b.op("SequenceAt", &[parts, index], Attributes::none());
    b.mark_output(y);
    let completed = complete(&model_of(b));
    let gaps: Vec<String> = completed.gaps.iter().map(Gap::to_string).collect();
    assert_eq!(gaps, ["the shape of \"SequenceAt:0\" is not known, lost by node \"SequenceAt\" (SequenceAt)"]);
    let ops = |model: &Model| model.graph.nodes().iter().map(|node| node.op.name.clone()).collect::<Vec<_>>();
    assert_eq!(ops(&fold(&completed.model, &HashSet::new())), ops(&completed.model));
}

#[test]
fn a_known_branch_takes_the_place_of_an_if() {
    let branch = |op: &str| {
        let mut b = Builder::new(op);
        let x = b.input("x", Fact::default());
        let axes = b.ints("axes", &[1]);
        let y = b.op(op, &[x, axes], Attributes::none());
        b.mark_output(y);
        crate::graph::Subgraph { graph: b.finish(), captures: vec!["x".into()] }
    };
    let mut b = Builder::new("if");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(1), Dim::Known(6)]));
    let shape = b.unary("Shape", x);
    let one = b.constant("one", Tensor::scalar(1i64));
    let size = b.op("Gather", &[shape, one], Attributes::none());
    let condition = b.op("Equal", &[size, one], Attributes::none());
    let branches = Attributes::none().with("then_branch", branch("Squeeze")).with("else_branch", branch("Unsqueeze"));
    let y = b.op("If", &[condition], branches);
    let z = b.unary("Relu", y);
    b.mark_output(z);
    let completed = complete(&model_of(b));
    assert_eq!(completed.model.graph.fact(z).to_string(), "float32[batch,6]");
    let folded = fold(&completed.model, &HashSet::new()).graph;
    crate::graph::check(&folded).unwrap();
    let ops: Vec<&str> = folded.nodes().iter().map(|node| node.op.name.as_str()).collect();
    assert_eq!(ops, ["Shape", "Squeeze", "Relu"]);
    assert_eq!(folded.fact(folded.nodes()[1].outputs[0].unwrap()).to_string(), "float32[batch,6]");
}

#[test]
fn what_will_change_is_not_evaluated() {
    let mut b = Builder::new("scale");
    let x = b.input("x", Fact::fixed(DType::F32, &[2]));
    let scale = b.initializer("scale", Tensor::scalar(4.0f32));
    let root = b.unary("Sqrt", scale);
    let y = b.mul(x, root);
    b.mark_output(y);
    let model = model_of(b);
    let count = |keep: &[&str]| fold(&model, &keep.iter().copied().collect()).graph.nodes().len();
    assert_eq!((count(&[]), count(&["scale"])), (1, 2));
}

#[test]
fn thousands_of_nodes_take_linear_time() {
    let mut b = Builder::new("chain");
    let mut x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(8)]));
    for _ in 0..2_000 {
        let shape = b.unary("Shape", x);
        let y = b.unary("Relu", x);
        x = b.op("Reshape", &[y, shape], Attributes::none());
    }
    b.mark_output(x);
    let model = model_of(b);
    let completed = complete(&without_info(&model));
    assert_eq!(completed.model.graph.fact(x).to_string(), "float32[batch,8]");
    assert_eq!(completed.gaps, []);
}

#[test]
fn an_empty_part_of_a_shape_is_known() {
    let mut b = Builder::new("unflatten");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(96)]));
    let shape = b.unary("Shape", x);
    let [start, split, end, far] = [0, 1, 2, i64::MAX].map(|place| b.ints("place", &[place]));
    let head = b.op("Slice", &[shape, start, split], Attributes::none());
    let tail = b.op("Slice", &[shape, end, far], Attributes::none());
    let sizes = b.ints("sizes", &[3, 32]);
    let target = b.op("Concat", &[head, sizes, tail], Attributes::none().with("axis", 0));
    let y = b.op("Reshape", &[x, target], Attributes::none());
    b.mark_output(y);
    let known = Known::of(&model_of(b), &[], &[]);
    assert_eq!(known.facts[y.0].to_string(), "float32[batch,3,32]");
}

/// A Loop over `h [batch, 4]` whose body scales it by the root of `gain`, or doubles its rows.
fn looped(grows: bool) -> (Model, crate::graph::ValueId, crate::graph::ValueId) {
    let mut inner = Builder::new("body");
    inner.input("i", Fact::fixed(DType::I64, &[]));
    let condition = inner.input("go", Fact::fixed(DType::Bool, &[]));
    let h = inner.input("h", Fact::default());
    let gain = inner.input("gain", Fact::default());
    let zero = inner.input("zero", Fact::default());
    let axes = inner.ints("axes", &[0]);
    let shape = inner.unary("Shape", h);
    let place = inner.op("Unsqueeze", &[zero, axes], Attributes::none());
    let end = inner.ints("end", &[2]);
    let size = inner.op("Slice", &[shape, place, end, place], Attributes::none());
    let root = inner.unary("Sqrt", gain);
    let scaled = inner.mul(h, root);
    let placed = inner.op("Reshape", &[scaled, size], Attributes::none());
    let both = inner.op("Concat", &[placed, placed], Attributes::none().with("axis", 0));
    let next = inner.unary("Relu", if grows { both } else { placed });
    let go = inner.unary("Identity", condition);
    let given = inner.unary("Exp", placed);
    [go, next, given].into_iter().for_each(|id| inner.mark_output(id));
    let captures = vec!["gain".into(), "zero".into()];
    let body = crate::graph::Subgraph { graph: inner.finish(), captures };
    let mut b = Builder::new("loop");
    let first = b.input("first", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4)]));
    let count = b.input("count", Fact::fixed(DType::I64, &[]));
    b.initializer("gain", Tensor::scalar(4.0f32));
    b.initializer("zero", Tensor::scalar(0i64));
    let inputs = [Some(count), None, Some(first)];
    let outputs = b.ops(&crate::graph::OpId::standard("Loop"), &inputs, Attributes::none().with("body", body), 2);
    outputs.iter().for_each(|id| b.mark_output(*id));
    (model_of(b), outputs[0], outputs[1])
}

#[test]
fn a_state_that_keeps_its_shape_has_it_in_every_step() {
    let facts = |grows: bool| {
        let (model, state, stacked) = looped(grows);
        let graph = complete(&without_info(&model)).model.graph;
        [graph.fact(state).to_string(), graph.fact(stacked).to_string()]
    };
    assert_eq!(facts(false), ["float32[batch,4]", "float32[_Loop.steps,batch,4]"]);
    assert_eq!(facts(true), ["float32[?,4]", "float32[_Loop.steps,?,4]"]);
}

#[test]
fn bodies_are_folded() {
    let ops = |keep: &[&str]| {
        let folded = fold(&complete(&looped(false).0).model, &keep.iter().copied().collect()).graph;
        let crate::graph::Attribute::Graph(body) = folded.nodes()[0].attributes.get("body").unwrap() else { panic!() };
        crate::graph::check(&body.graph).unwrap();
        let ops: Vec<String> = body.graph.nodes().iter().map(|node| node.op.name.clone()).collect();
        (ops.join(" "), body.captures.join(" "))
    };
    let kept = "Shape Slice Sqrt Mul Reshape Relu Identity Exp";
    assert_eq!(ops(&["gain"]), (kept.to_string(), "gain".to_string()));
    assert_eq!(ops(&[]), (kept.replace("Sqrt ", ""), String::new()));
}

#[test]
fn shapes_of_inputs_fix_what_they_say() {
    let mut b = Builder::new("open");
    let dims = vec![Dim::Symbol("batch".into()), Dim::Unknown, Dim::Symbol("width".into())];
    let x = b.input("x", Fact::new(DType::F32, dims));
    let free = b.input("free", Fact { dtype: Some(DType::F32), shape: None });
    let y = b.unary("Relu", x);
    let z = b.unary("Relu", free);
    [y, z].into_iter().for_each(|id| b.mark_output(id));
    let model = complete(&model_of(b)).model;
    let facts = |shapes: &[(&str, &[Option<usize>])]| {
        let shapes: Vec<_> = shapes.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
        let graph = with_shapes(&model, &shapes).graph;
        [y, z].map(|id| graph.fact(id).to_string())
    };
    assert_eq!(facts(&[("x", &[None, Some(5), Some(7)])]), ["float32[batch,5,7]", "float32[..]"]);
    assert_eq!(facts(&[("x", &[Some(2), None, None]), ("free", &[Some(3), None])])[0], "float32[2,x.1,width]");
    assert_eq!(facts(&[("free", &[Some(3), None])]), ["float32[batch,x.1,width]", "float32[3,free.1]"]);
    assert_eq!(facts(&[("x", &[Some(2)]), ("other", &[])]), ["float32[batch,x.1,width]", "float32[..]"]);
}
