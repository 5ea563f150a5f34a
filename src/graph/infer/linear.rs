//! Products of matrices and their kin.

use super::{Call, DType, Dim, Fact, both, broadcast};
use std::collections::HashMap;

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    let integer = |shape| call.give([Fact { dtype: Some(DType::I32), shape }]);
    match call.name() {
        "MatMul" => call.like(matmul(call.shape(0), call.shape(1))),
        "MatMulInteger" => integer(matmul(call.shape(0), call.shape(1))),
        "QLinearMatMul" => call.give([Fact { dtype: call.dtype(7), shape: matmul(call.shape(0), call.shape(3)) }]),
        "Gemm" => call.like(gemm(call, 1)),
        "Einsum" => call.like(einsum(call)),
        "Det" => call.like(call.shape(0).and_then(|shape| Some(shape.get(..shape.len().checked_sub(2)?)?.to_vec()))),
        _ => None,
    }
}

/// Returns the shape of NumPy's `matmul`.
pub(super) fn matmul(a: Option<&[Dim]>, b: Option<&[Dim]>) -> Option<Vec<Dim>> {
    let (a, b) = (a?, b?);
    match (a, b) {
        ([], _) | (_, []) => None,
        ([_], [_]) => Some(Vec::new()),
        ([_], [batch @ .., _, columns]) => Some([batch, std::slice::from_ref(columns)].concat()),
        ([rest @ .., _], [_]) => Some(rest.to_vec()),
        ([batch_a @ .., rows, _], [batch_b @ .., _, columns]) => {
            let mut shape = broadcast(&[Some(batch_a), Some(batch_b)])?;
            shape.extend([rows.clone(), columns.clone()]);
            Some(shape)
        }
    }
}

/// Returns the shape of the product of the first input and the one at `second`.
pub(super) fn gemm(call: &Call, second: usize) -> Option<Vec<Dim>> {
    let side = |index: usize, axis: i64| match call.shape(index) {
        Some(shape) => shape.get(usize::try_from(axis).ok()?).cloned(),
        None => Some(Dim::Unknown),
    };
    Some(vec![side(0, call.int("transA", 0)?.min(1))?, side(second, 1 - call.int("transB", 0)?.min(1))?])
}

/// The spot of `...` in a term.
const DOTS: char = '.';

fn einsum(call: &Call) -> Option<Vec<Dim>> {
    let equation = call.text("equation", "")?.replace(' ', "").replace("...", ".");
    let (left, output) = match equation.split_once("->") {
        Some((left, output)) => (left.to_string(), output.to_string()),
        None => (equation.clone(), implicit(&equation)),
    };
    let mut letters: HashMap<char, Dim> = HashMap::new();
    let mut dots: Vec<Dim> = Vec::new();
    let mut dots_known = true;
    for (index, term) in left.split(',').enumerate() {
        let named = term.chars().filter(|letter| *letter != DOTS).count();
        let Some(shape) = call.shape(index) else {
            dots_known &= !term.contains(DOTS);
            continue;
        };
        let extra = shape.len().checked_sub(named)?;
        if extra > 0 && !term.contains(DOTS) {
            return None;
        }
        let mut dims = shape.iter();
        for letter in term.chars() {
            if letter == DOTS {
                let part: Vec<Dim> = dims.by_ref().take(extra).cloned().collect();
                dots = broadcast(&[Some(&dots), Some(&part)])?;
                continue;
            }
            let dim = dims.next()?;
            let slot = letters.entry(letter).or_insert(Dim::Unknown);
            *slot = match (&*slot, dim) {
                (Dim::Known(1), other) if *other != Dim::Unknown => other.clone(),
                (slot, dim) => both(slot, dim),
            };
        }
    }
    if output.contains(DOTS) && !dots_known {
        return None;
    }
    let mut shape = Vec::new();
    for letter in output.chars() {
        match letter {
            DOTS => shape.extend(dots.iter().cloned()),
            letter => shape.push(letters.get(&letter).cloned().unwrap_or(Dim::Unknown)),
        }
    }
    Some(shape)
}

/// Returns the output term that a left side means by itself: dots, then the letters that appear
/// once, sorted.
fn implicit(left: &str) -> String {
    let mut output: Vec<char> = left.chars().filter(|letter| left.matches(*letter).count() == 1).collect();
    output.retain(|letter| letter.is_alphabetic());
    output.sort_unstable();
    let dots = if left.contains(DOTS) { "." } else { "" };
    format!("{dots}{}", output.into_iter().collect::<String>())
}
