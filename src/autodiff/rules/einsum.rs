//! Einsum
//!
//! Forward:  `y` = sums of products of elements, as the equation says.
//! Backward: `dx_i = Einsum(dy, the other inputs)` with the labels of x_i as output. A label that only x_i has
//!           is expanded, one along which x_i was broadcast is summed, and where x_i repeats a label only
//!           the diagonal gets a gradient.
//! Shapes:   any known ranks; dimensions under `...` that are not fixed must be the same symbols.
//! Opsets:   12 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Einsum.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, DType, Dim, ValueId};

pub static RULE: Rule =
    Rule { domain: "", op: "Einsum", opsets: 12..=24, inputs: Inputs::Variadic(InputRule::Each(gradient)) };

/// An equation without dots: they have become labels.
#[derive(Debug, PartialEq)]
struct Equation {
    terms: Vec<Vec<char>>,
    output: Vec<char>,
    /// The labels that stand for dots.
    dots: Vec<char>,
}

impl Equation {
    fn parse(text: &str, ranks: &[usize]) -> Result<Equation, RuleError> {
        let wrong = || RuleError::Unsupported(format!("equation \"{text}\" does not fit inputs of ranks {ranks:?}"));
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left.to_string(), right.to_string()),
            None => (text.clone(), implicit(&text)),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(wrong());
        }
        let named = |term: &str| term.chars().filter(|letter| *letter != '.').count();
        let mut counts = Vec::new();
        for (term, rank) in terms.iter().zip(ranks) {
            let count = rank.checked_sub(named(term)).ok_or_else(wrong)?;
            if count > 0 && !term.contains("...") {
                return Err(wrong());
            }
            counts.push(count);
        }
        let most = counts.iter().copied().max().unwrap_or(0);
        let free = ('a'..='z').chain('A'..='Z').filter(|letter| !text.contains(*letter));
        let dots: Vec<char> = free.take(most).collect();
        if dots.len() < most {
            return Err(wrong());
        }
        let spelled = |term: &str, count: usize| -> Vec<char> {
            let labels: String = dots[most - count..].iter().collect();
            term.replace("...", &labels).chars().collect()
        };
        let terms: Vec<Vec<char>> = terms.iter().zip(&counts).map(|(term, count)| spelled(term, *count)).collect();
        let output = spelled(&right, most);
        if terms.iter().flatten().chain(&output).any(|label| !label.is_ascii_alphabetic()) {
            return Err(wrong());
        }
        Ok(Equation { terms, output, dots })
    }
}

/// Returns the output that a left side means by itself: dots, then the labels that appear once, sorted.
fn implicit(left: &str) -> String {
    let mut labels: Vec<char> = left.chars().filter(|label| left.matches(*label).count() == 1).collect();
    labels.retain(|label| label.is_alphabetic());
    labels.sort_unstable();
    let dots = if left.contains("...") { "..." } else { "" };
    format!("{dots}{}", labels.into_iter().collect::<String>())
}

fn gradient(ctx: &mut Ctx<'_>, index: usize) -> Result<ValueId, RuleError> {
    let count = ctx.node().inputs.len();
    let inputs = (0..count).map(|input| ctx.x(input)).collect::<Result<Vec<ValueId>, _>>()?;
    let dims = inputs.iter().map(|input| ctx.dims(*input)).collect::<Result<Vec<Vec<Dim>>, _>>()?;
    let ranks: Vec<usize> = dims.iter().map(Vec::len).collect();
    let equation = Equation::parse(&ctx.attributes().text("equation", "")?, &ranks)?;
    let (x, labels) = (inputs[index], &equation.terms[index]);
    let others: Vec<usize> = (0..count).filter(|other| *other != index).collect();
    let mut kept: Vec<char> = Vec::new();
    for (label, dim) in labels.iter().zip(&dims[index]) {
        let full = full_size(&equation, &dims, *label);
        let one = Dim::Known(1);
        let summed = *dim == one && full != one;
        if dim.known().is_none() && equation.dots.contains(label) && !dim.same(&full) {
            let (value, found) = (ctx.name(x), format!("{} against {full}", ctx.b.fact(x)));
            return Err(RuleError::NoShape { value, dims: format!("under \"...\" ({label})"), found });
        }
        let elsewhere = equation.output.contains(label) || others.iter().any(|o| equation.terms[*o].contains(label));
        if elsewhere && !summed && !kept.contains(label) {
            kept.push(*label);
        }
    }
    let mut grad = contract(ctx, &equation, &inputs, &others, &kept)?;
    let first = |position: usize| labels.iter().position(|label| *label == labels[position]) == Some(position);
    let missing = (0..labels.len()).filter(|at| !first(*at) || !kept.contains(&labels[*at]));
    let missing: Vec<i64> = missing.map(|position| position as i64).collect();
    if !missing.is_empty() {
        grad = ctx.b.unsqueeze(grad, &missing);
    }
    for position in (0..labels.len()).filter(|position| !first(*position)) {
        grad = on_diagonal(ctx, grad, x, position, labels)?;
    }
    let shape = &ctx.b.fact(grad).shape;
    let exact = shape.as_ref().is_some_and(|shape| shape.iter().zip(&dims[index]).all(|(a, b)| a.same(b)));
    Ok(if exact { grad } else { ctx.b.expand_like(grad, x) })
}

/// Returns the size that a label has where it is not broadcast.
fn full_size(equation: &Equation, dims: &[Vec<Dim>], label: char) -> Dim {
    let pairs = equation.terms.iter().zip(dims).flat_map(|(term, dims)| term.iter().zip(dims));
    let mut sizes = pairs.filter(|(other, dim)| **other == label && **dim != Dim::Known(1)).map(|(_, dim)| dim);
    sizes.next().cloned().unwrap_or(Dim::Known(1))
}

/// Multiplies dy by the other inputs and sums over the labels that are not kept.
fn contract(
    ctx: &mut Ctx<'_>,
    equation: &Equation,
    inputs: &[ValueId],
    others: &[usize],
    kept: &[char],
) -> Result<ValueId, RuleError> {
    let dy = ctx.dy()?;
    if others.is_empty() && equation.output == kept {
        return Ok(dy);
    }
    let text = |labels: &[char]| labels.iter().collect::<String>();
    let mut left: Vec<String> = others.iter().map(|other| text(&equation.terms[*other])).collect();
    let mut values: Vec<ValueId> = others.iter().map(|other| inputs[*other]).collect();
    let scalar = equation.output.is_empty();
    if !scalar {
        left.insert(0, text(&equation.output));
        values.insert(0, dy);
    }
    let equation = format!("{}->{}", left.join(","), text(kept));
    let product = ctx.b.op("Einsum", &values, Attributes::none().with("equation", equation.as_str()));
    Ok(if scalar { ctx.b.mul(product, dy) } else { product })
}

/// Keeps a gradient of x where the index at `position` equals that of the same label before.
fn on_diagonal(
    ctx: &mut Ctx<'_>,
    grad: ValueId,
    x: ValueId,
    position: usize,
    labels: &[char],
) -> Result<ValueId, RuleError> {
    let first = labels.iter().position(|label| *label == labels[position]).unwrap_or(position);
    let counter = match ctx.dims(x)?[position].known() {
        Some(size) => ctx.b.ints("index", &(0..size as i64).collect::<Vec<i64>>()),
        None => {
            let at = position as i64;
            let size = ctx.b.op("Shape", &[x], Attributes::none().with("start", at).with("end", at + 1));
            let size = ctx.b.squeeze(size, &[0]);
            let (zero, one) = (ctx.b.scalar(DType::I64, 0.0), ctx.b.scalar(DType::I64, 1.0));
            ctx.b.op("Range", &[zero, size, one], Attributes::none())
        }
    };
    let along = |ctx: &mut Ctx<'_>, at: usize| {
        let mut shape = vec![1; labels.len()];
        shape[at] = -1;
        ctx.b.reshape(counter, &shape)
    };
    let (row, column) = (along(ctx, first), along(ctx, position));
    let equal = ctx.b.op("Equal", &[row, column], Attributes::none());
    Ok(super::shared::masked(ctx, equal, grad))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::Equation;
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let einsum = |name, equation: &str| Case::new(name, "Einsum").linear().text("equation", equation);
        check(&[
            einsum("product", "ij,jk->ik").input(&[2, 3]).input(&[3, 4]).batch(),
            einsum("implicit output", "ij,jk").input(&[2, 3]).input(&[3, 4]),
            einsum("implicit transposition", "ba").input(&[2, 3]).batch(),
            einsum("spaces and capitals", " b H d , H d e -> b H e ").input(&[2, 3, 4]).input(&[3, 4, 2]).batch(),
            einsum("attention", "bhqd,bhkd->bhqk").input(&[2, 2, 3, 4]).input(&[2, 2, 5, 4]),
            einsum("dots", "...ij,...jk->...ik").input(&[4, 2, 2, 3]).input(&[4, 2, 3, 2]),
            einsum("broadcast dots", "...ij,...jk->...ik")
                .input(&[2, 1, 2, 3])
                .input(&[1, 4, 3, 2])
                .not_embedded("tract broadcasts nothing"),
            einsum("dots, symbolic batch", "...d,de->...e").input(&[2, 5, 3]).input(&[3, 4]).batch(),
            einsum("dots in the middle", "i...j,j->...i").input(&[2, 3, 4]).input(&[4]),
            einsum("outer", "i,j->ij").input(&[3]).input(&[2]),
            einsum("inner", "i,i->").input(&[3]).input(&[3]),
            einsum("sum of one", "ij->j").input(&[2, 3]).batch(),
            einsum("sum of all", "ij->").input(&[2, 3]),
            einsum("a label of one input", "ij,k->k").input(&[2, 3]).input(&[4]),
            einsum("three", "bi,oij,bj->bo").input(&[2, 3]).input(&[4, 3, 5]).input(&[2, 5]),
            einsum("diagonal", "ii->i").input(&[3, 3]),
            einsum("trace", "ii").input(&[3, 3]),
            einsum("diagonal and batch", "bii->bi").input(&[2, 3, 3]).batch(),
            einsum("diagonal of a product", "iij,jk->ik").input(&[2, 2, 3]).input(&[3, 2]).not_embedded("tract fails"),
            einsum("triple diagonal", "iii->i").input(&[2, 2, 2]),
            einsum("label of size 1", "ij,jk->ik")
                .input(&[2, 1])
                .input(&[3, 2])
                .not_embedded("tract broadcasts nothing"),
            einsum("attention, symbols", "bhqd,bhkd->bhqk").input(&[2, 2, 3, 4]).input(&[2, 2, 5, 4]).symbols(&[
                (0, 0, "batch"),
                (1, 0, "batch"),
                (0, 2, "queries"),
                (1, 2, "keys"),
            ]),
            einsum("dots, symbols", "...ij,...jk->...ik")
                .input(&[4, 2, 2, 3])
                .input(&[4, 2, 3, 2])
                .symbols(&[(0, 0, "batch"), (1, 0, "batch")]),
            einsum("diagonal, symbols", "bii->bi").input(&[2, 3, 3]).symbols(&[(0, 0, "b"), (0, 1, "n"), (0, 2, "n")]),
            einsum("scalar operand", ",ij->ij").input(&[]).input(&[2, 3]),
            einsum("constant", "ij,jk->ik").input(&[2, 3]).fixed(Tensor::from_vec(&[3, 1], vec![1.0_f32, -2.0, 0.5])),
            einsum("large", "ij,j->i")
                .values(&[1, 2], &[1e30, 0.0])
                .values(&[2], &[3.0, -1e30])
                .expect(0, &[3.0, -1e30])
                .expect(1, &[1e30, 0.0]),
        ]);
    }

    #[test]
    fn equations() {
        let parse = |text: &str, ranks: &[usize]| {
            let found = Equation::parse(text, ranks).ok()?;
            let text = |labels: &Vec<char>| labels.iter().collect::<String>();
            Some(format!("{}->{}", found.terms.iter().map(text).collect::<Vec<_>>().join(","), text(&found.output)))
        };
        assert_eq!(parse("...ij, ...jk", &[3, 4]).as_deref(), Some("bij,abjk->abik"));
        assert_eq!(parse("ba,cB", &[2, 2]).as_deref(), Some("ba,cB->Babc"));
        assert_eq!(parse("i...->...", &[3]).as_deref(), Some("iab->ab"));
        for (text, ranks) in [("ij,jk->ik", &[2_usize][..]), ("ij", &[3]), ("ij", &[1]), ("i2", &[2]), ("..i", &[3])] {
            assert_eq!(parse(text, ranks), None, "{text}");
        }
    }
}
