//! Scan
//!
//! Forward:  for each step, `states, stacked = body(states, items)`.
//! Backward: a Scan from the last step to the first whose body runs the forward body again on the
//!           states before the step, which the node is made to stack too, and goes back through it;
//!           gradients of the states and sums of those of captured values are carried along.
//! Shapes:   those of the body's operators; the number of steps may be a symbol.
//! Opsets:   9 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Scan.html>

use crate::autodiff::steps::{Item, Saved, Stack, State, Steps};
use crate::autodiff::{Ctx, Inputs, Rule, RuleError, Wanted};
use crate::graph::{Attribute, Fact, ValueId};

pub static RULE: Rule = Rule { domain: "", op: "Scan", opsets: 9..=24, inputs: Inputs::Subgraphs(gradient) };

fn gradient(ctx: &mut Ctx<'_>, wanted: &[Wanted]) -> Result<Vec<Option<ValueId>>, RuleError> {
    let node = ctx.node();
    let Some(Attribute::Graph(body)) = node.attributes.get("body") else {
        return Err(RuleError::Unsupported("attribute \"body\" is missing".into()));
    };
    let scanned = usize::try_from(node.attributes.int("num_scan_inputs", 0)?).unwrap_or_default();
    let counts = node.inputs.len().checked_sub(scanned);
    let counts = counts.and_then(|states| Some((states, body.graph.outputs().len().checked_sub(states)?)));
    let Some((states, stacked)) = counts.filter(|_| body.formal_inputs().len() == node.inputs.len()) else {
        return Err(RuleError::Unsupported("its body does not fit its inputs and outputs".into()));
    };
    let list = |name: &str, count: usize| -> Result<Vec<i64>, RuleError> {
        let values = node.attributes.ints(name)?.unwrap_or_else(|| vec![0; count]);
        let reason = || RuleError::Unsupported(format!("attribute \"{name}\" has {} entries", values.len()));
        if values.len() == count { Ok(values) } else { Err(reason()) }
    };
    let (axes, directions) = (list("scan_input_axes", scanned)?, list("scan_input_directions", scanned)?);
    let (out_axes, out_directions) = (list("scan_output_axes", stacked)?, list("scan_output_directions", stacked)?);
    let steps = Steps {
        body,
        states: (0..states).map(|index| State { input: index, output: index, outer: index, result: index }).collect(),
        items: (0..scanned)
            .map(|index| Item {
                input: states + index,
                outer: states + index,
                axis: axes[index],
                reverse: directions[index] == 1,
            })
            .collect(),
        stacks: (0..stacked)
            .map(|index| Stack {
                output: states + index,
                result: states + index,
                axis: out_axes[index],
                reverse: out_directions[index] == 1,
            })
            .collect(),
        saved: (0..states).map(|input| Saved { input, always: false, fact: Fact::default() }).collect(),
    };
    steps.gradients(ctx, wanted)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::control::{Case, Inner, check};
    use crate::graph::Attributes;

    /// `h = tanh(h u + x w)`, which the step gives too, times `h`.
    fn cell(inner: &mut Inner) {
        let (h, x) = (inner.formal(0), inner.formal(1));
        let (u, w) = (inner.captured("u"), inner.captured("w"));
        let b = &mut inner.b;
        let (old, new) = (b.op("MatMul", &[h, u], Attributes::none()), b.op("MatMul", &[x, w], Attributes::none()));
        let sum = b.add(old, new);
        let next = b.unary("Tanh", sum);
        let given = b.mul(next, h);
        inner.outputs = vec![next, given];
    }

    /// A scan of `cell` over `x` with the steps at `axis`.
    fn scan(name: &'static str, axis: usize) -> Case {
        let mut x = vec![2, 3];
        x.insert(axis, 4);
        Case::new(name, "Scan").outer("u", &[3, 3]).outer("w", &[3, 3]).input(&[2, 3]).input(&x).outputs(2)
    }

    #[test]
    fn gradients() {
        let shapes: [&[usize]; 2] = [&[2, 3], &[2, 3]];
        check(&[
            scan("plain", 0).body("body", &shapes, cell).int("num_scan_inputs", 1),
            scan("along other axes, backwards", 1)
                .body("body", &shapes, cell)
                .int("num_scan_inputs", 1)
                .ints("scan_input_axes", &[1])
                .ints("scan_input_directions", &[1])
                .ints("scan_output_axes", &[-1])
                .ints("scan_output_directions", &[1]),
            scan("only the last state", 0).body("body", &shapes, cell).int("num_scan_inputs", 1).in_loss(&[0]),
            scan("only what the steps give", 0).body("body", &shapes, cell).int("num_scan_inputs", 1).in_loss(&[1]),
            scan("any number of steps", 0)
                .body("body", &shapes, cell)
                .int("num_scan_inputs", 1)
                .symbol(3, 0)
                .in_loss(&[0, 1]),
        ]);
    }

    #[test]
    fn states_of_which_one_depends_on_another() {
        let body = |inner: &mut Inner| {
            let (a, s, x) = (inner.formal(0), inner.formal(1), inner.formal(2));
            let w = inner.captured("w");
            let sum = inner.b.add(a, s);
            let product = inner.b.mul(s, w);
            let given = inner.b.mul(sum, x);
            inner.outputs = vec![sum, product, given, x];
        };
        let shapes: [&[usize]; 3] = [&[2], &[2], &[2]];
        check(&[
            Case::new("two states", "Scan")
                .outer("w", &[2])
                .input(&[2])
                .input(&[2])
                .input(&[3, 2])
                .outputs(4)
                .body("body", &shapes, body)
                .int("num_scan_inputs", 1),
            Case::new("one of them in the loss", "Scan")
                .outer("w", &[2])
                .input(&[2])
                .input(&[2])
                .input(&[3, 2])
                .outputs(4)
                .body("body", &shapes, body)
                .int("num_scan_inputs", 1)
                .in_loss(&[0]),
        ]);
    }

    #[test]
    fn a_scan_in_a_scan() {
        let body = |inner: &mut Inner| {
            let shapes: [&[usize]; 2] = [&[3], &[3]];
            let (h, x) = (inner.formal(0), inner.formal(1));
            let inside = inner.nested(&shapes, |inner| {
                let (h, x, w) = (inner.formal(0), inner.formal(1), inner.captured("w"));
                let product = inner.b.mul(h, w);
                let sum = inner.b.add(product, x);
                let next = inner.b.unary("Sin", sum);
                inner.outputs = vec![next];
            });
            let attributes = Attributes::none().with("body", inside).with("num_scan_inputs", 1);
            let next = inner.b.op("Scan", &[h, x], attributes);
            inner.outputs = vec![next];
        };
        check(&[Case::new("nested", "Scan")
            .outer("w", &[3])
            .input(&[3])
            .input(&[2, 4, 3])
            .outputs(1)
            .body("body", &[&[3], &[4, 3]], body)
            .int("num_scan_inputs", 1)
            .not_embedded("tract goes wrong in a Scan in a Scan")]);
    }

    #[test]
    fn fewer_nodes_for_fewer_gradients() {
        let shapes: [&[usize]; 2] = [&[2, 3], &[2, 3]];
        let case = || scan("plain", 0).body("body", &shapes, cell).int("num_scan_inputs", 1);
        let nodes = |wanted: &[usize]| case().nodes(wanted);
        assert!(nodes(&[0]) < nodes(&[0, 1]));
        assert!(nodes(&[3]) < nodes(&[0, 1, 2, 3]));
    }
}
