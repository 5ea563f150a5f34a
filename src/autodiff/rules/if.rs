//! If
//!
//! Forward:  what the branch of the condition gives.
//! Backward: an If on the same condition whose branches run the forward branches again and go back
//!           through them; a branch that does not read a value gives zeros for it.
//! Shapes:   those of the branches' operators.
//! Opsets:   7 to 24.
//! <https://onnx.ai/onnx/operators/onnx__If.html>

use crate::autodiff::inside::Inside;
use crate::autodiff::{Ctx, Inputs, Place, Rule, RuleError, Wanted};
use crate::graph::{Attribute, Attributes, OpId, ValueId};

pub static RULE: Rule = Rule { domain: "", op: "If", opsets: 7..=24, inputs: Inputs::Subgraphs(gradient) };

fn gradient(ctx: &mut Ctx<'_>, wanted: &[Wanted]) -> Result<Vec<Option<ValueId>>, RuleError> {
    let names: Vec<&str> = wanted
        .iter()
        .map(|wanted| match &wanted.place {
            Place::Captured(name) => Ok(name.as_str()),
            Place::Input(_) => Err(RuleError::Unsupported("its condition has no gradient".into())),
        })
        .collect::<Result<_, _>>()?;
    let mut branches = Vec::new();
    for attribute in ["then_branch", "else_branch"] {
        let Some(Attribute::Graph(branch)) = ctx.attributes().get(attribute) else {
            return Err(RuleError::Unsupported(format!("attribute \"{attribute}\" is missing")));
        };
        let mut inside = Inside::of(ctx, branch, &[], &names)?;
        let mut seeds = Vec::new();
        for (index, output) in inside.outputs.clone().into_iter().enumerate() {
            if let Some(grad) = ctx.grad(index) {
                let grad = inside.captured(ctx, grad);
                seeds.push((output, grad));
            }
        }
        let read: Vec<Option<ValueId>> = names.iter().map(|name| inside.b.graph().find(name)).collect();
        let wrt: Vec<ValueId> = read.iter().flatten().copied().collect();
        let mut found = inside.pull_back(&seeds, &wrt)?.into_iter();
        let grads: Vec<Option<ValueId>> = read.iter().map(|read| read.and_then(|_| found.next().flatten())).collect();
        branches.push((attribute, inside, grads));
    }
    let depends: Vec<bool> =
        (0..wanted.len()).map(|index| branches.iter().any(|(.., grads)| grads[index].is_some())).collect();
    let mut attributes = Attributes::none();
    for (attribute, mut inside, grads) in branches {
        let mut outputs = Vec::new();
        for (index, grad) in grads.into_iter().enumerate().filter(|(index, _)| depends[*index]) {
            outputs.push(match grad {
                Some(grad) => grad,
                None => {
                    let like = inside.captured(ctx, wanted[index].value);
                    let zero = inside.b.like(like, 0.0);
                    inside.b.expand_like(zero, like)
                }
            });
        }
        attributes.set(attribute, inside.finish(&[], 0, &outputs).0);
    }
    let count = depends.iter().filter(|depends| **depends).count();
    if count == 0 {
        return Ok(vec![None; wanted.len()]);
    }
    let condition = ctx.x(0)?;
    let mut results = ctx.b.ops(&OpId::standard("If"), &[Some(condition)], attributes, count).into_iter();
    let gradient = |(wanted, depends): (&Wanted, bool)| {
        let result = if depends { results.next() } else { None }?;
        let fact = ctx.b.fact(wanted.value).clone();
        ctx.b.refine(result, &fact);
        Some(result)
    };
    Ok(wanted.iter().zip(depends).map(gradient).collect())
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::control::{Case, Inner, check};
    use crate::graph::{Attributes, Tensor};

    const EMBEDDED: &str = "tract takes conditions that are fixed";

    fn then(inner: &mut Inner) {
        let (a, b) = (inner.captured("a"), inner.captured("b"));
        let product = inner.b.op("MatMul", &[a, b], Attributes::none());
        let y = inner.b.unary("Tanh", product);
        inner.outputs = vec![y, a];
    }

    fn otherwise(inner: &mut Inner) {
        let (a, c) = (inner.captured("a"), inner.captured("c"));
        let product = inner.b.mul(a, c);
        let y = inner.b.unary("Sin", product);
        let sum = inner.b.add(y, a);
        inner.outputs = vec![y, sum];
    }

    fn case(name: &'static str, condition: bool) -> Case {
        Case::new(name, "If")
            .outer("a", &[2, 2])
            .outer("b", &[2, 2])
            .outer("c", &[2, 2])
            .fed(Tensor::scalar(condition))
            .outputs(2)
            .body("then_branch", &[], then)
            .body("else_branch", &[], otherwise)
            .not_embedded(EMBEDDED)
    }

    #[test]
    fn gradients() {
        check(&[
            case("first branch", true),
            case("second branch", false),
            case("first output", true).in_loss(&[0]),
            case("second output, second branch", false).in_loss(&[1]),
            case("symbolic batch", false).symbol(0, 0).symbol(2, 0),
        ]);
    }

    #[test]
    fn an_if_in_a_scan() {
        // Steps of which the item decides what is done.
        let body = |inner: &mut Inner| {
            let (h, x) = (inner.formal(0), inner.formal(1));
            let sum = inner.b.reduce("ReduceSum", x, &[0], false);
            let positive = inner.b.compare("Greater", sum, 0.0);
            let names = [h, x].map(|id| inner.b.graph().value_name(id).to_string());
            let branches = ["Tanh", "Sin"].map(|op| {
                inner.nested(&[], |inner| {
                    let (h, x, a) = (inner.captured(&names[0]), inner.captured(&names[1]), inner.captured("a"));
                    let product = inner.b.mul(h, a);
                    let sum = inner.b.add(product, x);
                    let y = inner.b.unary(op, sum);
                    inner.outputs = vec![y];
                })
            });
            let [then, otherwise] = branches;
            let attributes = Attributes::none().with("then_branch", then).with("else_branch", otherwise);
            let next = inner.b.op("If", &[positive], attributes);
            inner.outputs = vec![next];
        };
        check(&[Case::new("in a scan", "Scan")
            .outer("a", &[3])
            .input(&[3])
            .input(&[4, 3])
            .outputs(1)
            .body("body", &[&[3], &[3]], body)
            .int("num_scan_inputs", 1)
            .not_embedded(EMBEDDED)]);
    }

    #[test]
    fn fewer_nodes_for_fewer_gradients() {
        let nodes = |wanted: &[usize]| case("count", true).nodes(wanted);
        assert!(nodes(&[1]) < nodes(&[0, 1, 2]));
        assert!(nodes(&[2]) < nodes(&[0, 1, 2]));
    }

    #[test]
    fn random_numbers_are_refused() {
        let random = |inner: &mut Inner| {
            let a = inner.captured("a");
            let noise = inner.b.unary("RandomNormalLike", a);
            let y = inner.b.mul(noise, a);
            inner.outputs = vec![y, a];
        };
        let error = case("random", true).body("then_branch", &[], random).error();
        assert!(error.contains("would draw other numbers"), "{error}");
    }
}
