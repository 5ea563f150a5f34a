//! Loop
//!
//! Forward:  while the condition holds, at most `M` times, `cond, states, stacked = body(i, cond, states)`.
//! Backward: a Scan from the last step to the first, as that of Scan; the node is made to stack the
//!           step's number, of which there are as many as there were steps, and the states.
//! Shapes:   those of the body's operators; a state has the same shape in every step. The number of
//!           steps may be known only when the model runs.
//! Opsets:   11 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Loop.html>

use crate::autodiff::steps::{Saved, Stack, State, Steps};
use crate::autodiff::{Ctx, Inputs, Rule, RuleError, Wanted};
use crate::graph::{Attribute, DType, Dim, Fact, ValueId};

pub static RULE: Rule = Rule { domain: "", op: "Loop", opsets: 11..=24, inputs: Inputs::Subgraphs(gradient) };

fn gradient(ctx: &mut Ctx<'_>, wanted: &[Wanted]) -> Result<Vec<Option<ValueId>>, RuleError> {
    let node = ctx.node();
    let Some(Attribute::Graph(body)) = node.attributes.get("body") else {
        return Err(RuleError::Unsupported("attribute \"body\" is missing".into()));
    };
    let states = body.formal_inputs().len().checked_sub(2).filter(|states| states + 2 == node.inputs.len());
    let counts = states.and_then(|states| Some((states, body.graph.outputs().len().checked_sub(states + 1)?)));
    let Some((states, stacked)) = counts else {
        return Err(RuleError::Unsupported("its body does not fit its inputs and outputs".into()));
    };
    for index in 0..states {
        same_shape(ctx, body.graph.fact(body.graph.outputs()[index + 1]), ctx.x(index + 2)?)?;
    }
    let counter = |input: usize, dtype: DType| Saved {
        input,
        always: input == 0,
        fact: Fact { dtype: Some(dtype), shape: None },
    };
    let saved = (2..states + 2).map(|input| Saved { input, always: false, fact: Fact::default() });
    let steps = Steps {
        body,
        states: (0..states)
            .map(|index| State { input: index + 2, output: index + 1, outer: index + 2, result: index })
            .collect(),
        items: Vec::new(),
        stacks: (0..stacked)
            .map(|index| Stack { output: index + states + 1, result: index + states, axis: 0, reverse: false })
            .collect(),
        saved: [counter(0, DType::I64), counter(1, DType::Bool)].into_iter().chain(saved).collect(),
    };
    steps.gradients(ctx, wanted)
}

/// States are stacked, so that one may not grow.
fn same_shape(ctx: &Ctx<'_>, after: &Fact, before: ValueId) -> Result<(), RuleError> {
    let first = ctx.b.fact(before);
    let ranks = first.rank().zip(after.rank()).is_none_or(|(a, b)| a == b);
    let pairs = first.shape.iter().flatten().zip(after.shape.iter().flatten());
    let sizes = pairs.filter_map(|(a, b): (&Dim, &Dim)| a.known().zip(b.known())).all(|(a, b)| a == b);
    if ranks && sizes {
        return Ok(());
    }
    let name = ctx.name(before);
    Err(RuleError::Unsupported(format!("the shape of its state \"{name}\" changes from {first} to {after}")))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::control::{Case, Inner, check};
    use crate::graph::{Attributes, DType, Tensor};

    const EMBEDDED: &str = "tract has no Loop";
    const STATE: [&[usize]; 3] = [&[], &[], &[2, 2]];

    /// `h = sin(h w) + i`, until a sum is reached.
    fn body(inner: &mut Inner, limit: Option<f64>) {
        let (i, condition, h, w) = (inner.formal(0), inner.formal(1), inner.formal(2), inner.captured("w"));
        let product = inner.b.op("MatMul", &[h, w], Attributes::none());
        let y = inner.b.unary("Sin", product);
        let number = inner.b.cast(i, DType::F32);
        let next = inner.b.add(y, number);
        let go = limit.map(|limit| {
            let sum = inner.b.reduce("ReduceSum", next, &[0, 1], false);
            inner.b.compare("Less", sum, limit)
        });
        inner.outputs = vec![go.unwrap_or(condition), next, product];
    }

    fn case(name: &'static str, count: Option<i64>) -> Case {
        let case = Case::new(name, "Loop").outer("w", &[2, 2]);
        let case = match count {
            Some(count) => case.fed(Tensor::scalar(count)),
            None => case.absent(),
        };
        case.fed(Tensor::scalar(true))
            .input(&[2, 2])
            .outputs(2)
            .formal_types(&[DType::I64, DType::Bool])
            .not_embedded(EMBEDDED)
    }

    #[test]
    fn gradients() {
        check(&[
            case("fixed count", Some(3)).body("body", &STATE, |inner| body(inner, None)),
            case("ends by its condition", None).body("body", &STATE, |inner| body(inner, Some(9.0))),
            case("either", Some(10)).body("body", &STATE, |inner| body(inner, Some(5.0))),
            case("only the state", Some(3)).body("body", &STATE, |inner| body(inner, None)).in_loss(&[0]),
            case("only what is stacked", Some(2)).body("body", &STATE, |inner| body(inner, None)).in_loss(&[1]),
        ]);
    }

    #[test]
    fn a_growing_state_is_refused() {
        let grows = |inner: &mut Inner| {
            let (condition, h) = (inner.formal(1), inner.formal(2));
            let next = inner.b.op("Concat", &[h, h], Attributes::none().with("axis", 0));
            inner.outputs = vec![condition, next, next];
        };
        let error = case("grows", Some(2)).body("body", &STATE, grows).error();
        assert!(error.contains("changes from float32[2,2] to float32[4,2]"), "{error}");
    }
}
