//! The last two axes swapped by way of rank 3.
//!
//! `reshape(transpose(reshape(x, [-1, a, b]), [0, 2, 1]), [.., b, a])`, as PyTorch writes the keys of
//! attention.
//!
//! Becomes `Transpose`, which products of matrices and other transpositions take in.

use super::view::View;
use super::{Found, Pattern};
use crate::graph::{Attributes, Node, OpId};

pub static PATTERN: Pattern = Pattern { name: "swap", find };

fn find(view: &View<'_>, node: &Node) -> Option<Found> {
    let turned = if node.op.is("Reshape") { view.made_by(node.input(0)?, "Transpose")? } else { return None };
    let flat = view.made_by(turned.input(0)?, "Reshape")?;
    let x = view.input(flat, 0)?;
    let (from, to) = (view.dims(x)?, view.dims(node.output(0)?)?);
    let (flat, rank) = (view.dims(flat.output(0)?)?, from.len());
    if turned.attributes.ints("perm") != Ok(Some(vec![0, 2, 1])) || rank < 3 || to.len() != rank {
        return None;
    }
    let (outer, last) = from.split_at(rank - 2);
    let same = flat.len() == 3
        && flat[1..].iter().zip(last).all(|(a, b)| a.same(b))
        && to[..rank - 2].iter().zip(outer).all(|(a, b)| a.same(b))
        && to[rank - 2..].iter().zip(last.iter().rev()).all(|(a, b)| a.same(b));
    let rank = i64::try_from(rank).ok()?;
    let perm: Vec<i64> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
    same.then(|| Found::unary(OpId::standard("Transpose"), Attributes::none().with("perm", perm), x))
}
