//! Sequences: SequenceConstruct, SequenceInsert, SequenceErase, SequenceAt, SplitToSequence,
//! ConcatFromSequence, SequenceMap
//!
//! Forward:  tensors into a list and out of it.
//! Backward: none here. Where the length of the list and the positions are known, the list is taken
//!           apart before differentiation (`facts::fold`) and none of these operators is left. A list
//!           that a `Loop` fills becomes a scan output there.
//! Shapes:   any.
//! Opsets:   11 to 24.
//! <https://onnx.ai/onnx/operators/onnx__SequenceAt.html>

use crate::autodiff::{InputRule, Inputs, Rule};

const REASON: &str = "the length of a sequence, or a position in it, is known only while the model runs; with every \
                      size on which it depends fixed, a gradient passes";

pub static CONCAT_FROM_SEQUENCE: Rule = rule("ConcatFromSequence");
pub static SEQUENCE_AT: Rule = rule("SequenceAt");
pub static SEQUENCE_CONSTRUCT: Rule = rule("SequenceConstruct");
pub static SEQUENCE_ERASE: Rule = rule("SequenceErase");
pub static SEQUENCE_INSERT: Rule = rule("SequenceInsert");
pub static SEQUENCE_MAP: Rule = rule("SequenceMap");
pub static SPLIT_TO_SEQUENCE: Rule = rule("SplitToSequence");

const fn rule(op: &'static str) -> Rule {
    Rule { domain: "", op, opsets: 11..=24, inputs: Inputs::Variadic(InputRule::Missing(REASON)) }
}

#[cfg(test)]
mod tests {
    use crate::autodiff::gradients;
    use crate::facts::fold;
    use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor, ValueId};
    #[cfg(feature = "runner")]
    use crate::graph::{OpId, Origin, Subgraph};
    use std::collections::HashSet;

    fn model_of(b: Builder) -> Model {
        Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
    }

    fn at(b: &mut Builder, sequence: ValueId, index: i64) -> ValueId {
        let index = b.constant("index", Tensor::scalar(index));
        b.op("SequenceAt", &[sequence, index], Attributes::none())
    }

    /// A loop over the rows of `x` that fills two lists: `states` are stacked, `parts` concatenated.
    #[cfg(feature = "runner")]
    fn filled() -> Model {
        let mut b = Builder::new("filled");
        let dims = vec![Dim::Symbol("steps".into()), Dim::Symbol("batch".into()), Dim::Known(3)];
        let x = b.input("x", Fact::new(DType::F32, dims));
        b.input("w", Fact::fixed(DType::F32, &[3]));
        let size = b.op("Shape", &[x], Attributes::none().with("start", 0).with("end", 1));
        let count = b.squeeze(size, &[0]);
        let go = b.constant("go", Tensor::scalar(true));
        let lists = [(); 2].map(|()| b.op("SequenceEmpty", &[], Attributes::none()));
        let mut inner = Builder::new("body");
        inner.enter(Origin::Forward, "body");
        let step = inner.input("step", Fact::fixed(DType::I64, &[]));
        let more = inner.input("more", Fact::fixed(DType::Bool, &[]));
        let names = ["states", "state", "parts", "x", "w"];
        let [states, state, parts, all, factor] = names.map(|name| inner.input(name, Fact::default()));
        let row = inner.op("Gather", &[all, step], Attributes::none());
        let next = inner.mul(state, factor);
        let next = inner.add(next, row);
        let part = inner.mul(next, next);
        let states = inner.op("SequenceInsert", &[states, next], Attributes::none());
        let parts = inner.op("SequenceInsert", &[parts, part], Attributes::none());
        let more = inner.unary("Identity", more);
        [more, states, next, parts].into_iter().for_each(|value| inner.mark_output(value));
        let body = Subgraph { graph: inner.finish(), captures: vec!["x".into(), "w".into()] };
        let zero = b.constant("zero", Tensor::scalar(0_i64));
        let first = b.op("Gather", &[x, zero], Attributes::none());
        let inputs = [count, go, lists[0], first, lists[1]].map(Some);
        let attributes = Attributes::none().with("body", body);
        let given = b.ops(&OpId::standard("Loop"), &inputs, attributes, 3);
        let stacked = b.op("ConcatFromSequence", &[given[0]], Attributes::none().with("axis", -1).with("new_axis", 1));
        let joined = b.op("ConcatFromSequence", &[given[2]], Attributes::none().with("axis", 1));
        let last = at(&mut b, given[0], -1);
        let sums = [(stacked, 3), (joined, 2), (last, 2), (given[1], 2)].map(|(value, rank)| {
            let squared = b.mul(value, value);
            b.reduce("ReduceSum", squared, &(0..rank).collect::<Vec<i64>>(), false)
        });
        let loss = b.op("Sum", &sums, Attributes::none());
        b.output(loss, "loss");
        model_of(b)
    }

    /// Every operator on lists: the loss is `sum(c * y)` of what comes out of them.
    #[cfg(feature = "runner")]
    fn plumbing() -> Model {
        let mut b = Builder::new("sequences");
        let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(3)]));
        let w = b.input("w", Fact::fixed(DType::F32, &[3]));
        let rows = b.op("Mul", &[x, w], Attributes::none());
        let columns = b.op("SplitToSequence", &[rows], Attributes::none().with("axis", -1).with("keepdims", 0));
        let (first, second, last) = (at(&mut b, columns, 0), at(&mut b, columns, -2), at(&mut b, columns, 2));
        let square = b.mul(second, second);
        let list = b.op("SequenceConstruct", &[first, square], Attributes::none());
        let place = b.constant("place", Tensor::scalar(-1_i64));
        let list = b.op("SequenceInsert", &[list, last, place], Attributes::none());
        let list = b.op("SequenceInsert", &[list, square], Attributes::none());
        let place = b.constant("place", Tensor::scalar(-4_i64));
        let list = b.op("SequenceErase", &[list, place], Attributes::none());
        let list = b.unary("Identity", list);
        let stacked = b.op("ConcatFromSequence", &[list], Attributes::none().with("axis", -1).with("new_axis", 1));
        let parts = b.ints("parts", &[1, 2]);
        let parts = b.op("SplitToSequence", &[stacked, parts], Attributes::none().with("axis", 1));
        let length = b.unary("SequenceLength", parts);
        let length = b.cast(length, DType::F32);
        let wide = at(&mut b, parts, 1);
        let both = b.op("SequenceConstruct", &[wide, stacked], Attributes::none());
        let joined = b.op("ConcatFromSequence", &[both], Attributes::none().with("axis", 1));
        let y = b.mul(joined, length);
        let factors = b.initializer("factors", Tensor::from_vec(&[5], vec![1.0_f32, -2.0, 3.0, 0.5, 4.0]));
        let y = b.mul(y, factors);
        let loss = b.reduce("ReduceSum", y, &[0, 1], false);
        b.output(loss, "loss");
        model_of(b)
    }

    #[cfg(feature = "runner")]
    #[test]
    fn gradients_pass_all_plumbing_of_known_length() {
        let x = Tensor::from_vec(&[2, 3], vec![0.5_f32, -1.0, 2.0, 1.5, 0.25, -0.75]);
        check(&plumbing, &x);
    }

    #[cfg(feature = "runner")]
    #[test]
    fn gradients_pass_lists_that_a_loop_fills() {
        let x = Tensor::from_vec(&[3, 1, 3], vec![0.5_f32, -0.3, 0.2, 0.1, 0.25, -0.75, 0.4, 0.3, -0.2]);
        check(&filled, &x);
    }

    /// Compares the gradients of the folded model with a difference of the model.
    #[cfg(feature = "runner")]
    fn check(make: &dyn Fn() -> Model, x: &Tensor) {
        use crate::runner::{evaluate, testing};
        let model = crate::facts::complete(&make()).model;
        let model = fold(&model, &HashSet::new());
        assert!(!model.graph.nodes().iter().any(|node| node.op.name.contains("Sequence")));
        let ids = ["x", "w"].map(|name| model.graph.find(name).unwrap());
        let loss = model.graph.outputs()[0];
        let mut b = Builder::extend(model.graph);
        let grads = gradients(&mut b, 18, loss, &ids).unwrap();
        let (dx, dw) = (grads[0].unwrap(), grads[1].unwrap());
        b.output(dx, "dx");
        b.output(dw, "dw");
        let folded = model_of(b);
        let w = Tensor::from_vec(&[3], vec![2.0_f32, -0.5, 1.25]);
        let mut engine = testing::onnxruntime();
        let found = evaluate(&mut engine, &folded, &[("x", x), ("w", &w)]).unwrap();
        let direction = [1.0, -0.5, 0.25, 0.75, 1.0, -1.0, 0.5, 0.25, -0.5];
        let mut along = |step: f32| {
            let moved = |tensor: &Tensor, by: &[f32]| {
                let values = tensor.to_vec::<f32>().unwrap();
                let values = values.iter().zip(by).map(|(value, by)| value + step * by).collect();
                Tensor::from_vec(tensor.shape(), values)
            };
            let (x, w) = (moved(x, &direction), moved(&w, &[0.5, 1.0, -0.75]));
            evaluate(&mut engine, &make(), &[("x", &x), ("w", &w)]).unwrap()[0].to_f64s().unwrap()[0]
        };
        let numeric = (along(1e-2) - along(-1e-2)) / 2e-2;
        let dot = |grad: &Tensor, by: &[f32]| -> f64 {
            grad.to_f64s().unwrap().iter().zip(by).map(|(grad, by)| grad * f64::from(*by)).sum()
        };
        let analytic = dot(&found[1], &direction) + dot(&found[2], &[0.5, 1.0, -0.75]);
        assert!((numeric - analytic).abs() < 2e-3 * (1.0 + analytic.abs()), "{numeric} and {analytic}");
    }

    #[test]
    fn lists_of_unknown_length_are_named() {
        let mut b = Builder::new("sequences");
        let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(6)]));
        let parts = b.op("SplitToSequence", &[x], Attributes::none().with("axis", 0));
        let y = at(&mut b, parts, 0);
        b.refine(y, &Fact::fixed(DType::F32, &[1, 6]));
        let loss = b.reduce("ReduceSum", y, &[0, 1], false);
        b.output(loss, "loss");
        let model = fold(&model_of(b), &HashSet::new());
        let (x, loss) = (model.graph.find("x").unwrap(), model.graph.outputs()[0]);
        let mut b = Builder::extend(model.graph);
        let found = gradients(&mut b, 18, loss, &[x]).unwrap_err().to_string();
        assert!(found.starts_with("node \"SequenceAt\": the gradient of SequenceAt to input 0"), "{found}");
    }
}
