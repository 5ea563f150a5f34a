//! `ScatterND` with a reduction becomes `ScatterElements` on a view of the data in which the indexed
//! axes are one: ONNX Runtime's CPU kernel loses updates of repeated indices when it has several
//! threads, without an error.

use crate::autodiff::Ctx;
use crate::autodiff::rules::flattened;
use crate::graph::{Attributes, Builder, Graph, Node, NodeId, Replaced, ValueId};

/// Returns true for a `ScatterND` that reduces.
pub(super) fn reduces(node: &Node) -> bool {
    node.op.is("ScatterND") && node.attributes.text("reduction", "none").is_ok_and(|reduction| reduction != "none")
}

/// Appends the equal of the node; `None` where shapes are not known well enough.
pub(super) fn summed(b: &mut Builder, graph: &Graph, node: &Node, inputs: &[Option<ValueId>]) -> Option<Replaced> {
    let (&[Some(data), Some(indices), Some(updates)], output) = (inputs, node.output(0)?) else { return None };
    let known = b.fact(data).rank().is_some() && b.fact(indices).dim(-1).is_some_and(|dim| dim.known().is_some());
    if !known || b.fact(indices).dim(-1).and_then(|dim| dim.known()) == Some(0) {
        return None;
    }
    b.enter(node.origin.clone(), &node.name);
    let mut ctx = Ctx::new(b, 18, (NodeId(0), node), Vec::new());
    let (view, places, updates, axis) = flattened(&mut ctx, data, indices, updates).ok()?;
    let reduction = node.attributes.text("reduction", "none").ok()?;
    let attributes = Attributes::none().with("axis", axis).with("reduction", reduction.as_str());
    let reduced = b.op("ScatterElements", &[view, places, updates], attributes);
    let shape = b.shape_of(data);
    let result = b.op("Reshape", &[reduced, shape], Attributes::none().with("allowzero", 1));
    b.refine(result, graph.fact(output));
    b.rename(result, graph.value_name(output));
    Some(vec![Some(result)])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::lower;
    use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
    use crate::runner::{evaluate, testing};

    #[test]
    fn repeated_indices_lose_no_update() {
        let (rows, count) = (2, 8192);
        for symbolic in [false, true] {
            let mut b = Builder::new("scatter");
            let size = if symbolic { Dim::Symbol("n".into()) } else { Dim::Known(count) };
            let data = b.input("data", Fact::fixed(DType::F32, &[rows, 3]));
            let indices = b.input("indices", Fact::new(DType::I64, vec![size.clone(), Dim::Known(2)]));
            let updates = b.input("updates", Fact::new(DType::F32, vec![size]));
            let y = b.op("ScatterND", &[data, indices, updates], Attributes::none().with("reduction", "add"));
            b.rename(y, "y");
            b.mark_output(y);
            let graph = lower(&b.finish());
            assert!(graph.nodes().iter().all(|node| !node.op.is("ScatterND")));
            let opsets = [(String::new(), 18)].into_iter().collect();
            let model = Model { graph, opsets, ir_version: 8, ..Model::default() };
            let places = (0..count as i64).flat_map(|at| [at % 2 - 2, at % 3]);
            let feeds = [
                ("data", &Tensor::zeros(DType::F32, &[rows, 3])),
                ("indices", &Tensor::from_vec(&[count, 2], places.collect::<Vec<i64>>())),
                ("updates", &Tensor::float_full(DType::F32, &[count], 1.0)),
            ];
            for mut engine in testing::engines() {
                let found = evaluate(engine.as_mut(), &model, &feeds).unwrap()[0].to_f64s().unwrap();
                let expected: Vec<f64> = [0, 1]
                    .iter()
                    .flat_map(|row| [0, 1, 2].map(|column| (row, column)))
                    .map(|(row, column)| (0..count).filter(|at| at % 2 == *row && at % 3 == column).count() as f64)
                    .collect();
                assert_eq!(found, expected, "{}", engine.info().name);
            }
        }
    }
}
