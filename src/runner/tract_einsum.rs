//! Einsum with every axis spelled out, as tract reads a shorter equation in its own way.
//!
//! It lets go of the axes of an ellipsis that an operand lacks, and of an empty output.

use super::tract_stable::last;
use crate::graph::{Attributes, Builder, Node, ValueId};

/// Einsum without ellipsis, implicit output or empty output; the last node is returned, not appended.
pub(super) fn einsum(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Option<Node> {
    let text = node.attributes.text("equation", "").ok()?;
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let ranks: Option<Vec<usize>> = inputs.iter().map(|input| b.fact((*input)?).rank()).collect();
    let (terms, output) = spelled(&text, &ranks?)?;
    let equation =
        |output: &str| Attributes::none().with("equation", format!("{}->{output}", terms.join(",")).as_str());
    if !output.is_empty() {
        return Some(Node { inputs: inputs.to_vec(), attributes: equation(&output), ..node.clone() });
    }
    let kept = terms.iter().find_map(|term| term.chars().next())?.to_string();
    let sums = b.ops(&node.op, inputs, equation(&kept), 1);
    let axes = b.ints("axes", &[0]);
    Some(Node {
        attributes: Attributes::none().with("keepdims", 0_i64),
        ..last(node, "ReduceSum", &[*sums.first()?, axes])
    })
}

/// Returns the labels of the operands and of the output, one letter for each axis.
fn spelled(text: &str, ranks: &[usize]) -> Option<(Vec<String>, String)> {
    let (left, right) = text.split_once("->").map_or((text, None), |(left, right)| (left, Some(right)));
    let free: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|letter| !text.contains(*letter)).collect();
    let terms: Vec<&str> = left.split(',').collect();
    let hidden = |term: &str, rank: usize| match term.contains("...") {
        true => (rank + 3).checked_sub(term.len()),
        false => (rank == term.len()).then_some(0),
    };
    let counts: Vec<usize> = terms.iter().zip(ranks).map(|(term, rank)| hidden(term, *rank)).collect::<Option<_>>()?;
    let letters: String = free.get(..counts.iter().copied().max()?)?.iter().collect();
    let full = |(term, count): (&&str, &usize)| term.replace("...", &letters[letters.len() - count..]);
    let terms: Vec<String> = terms.iter().zip(&counts).map(full).collect();
    let output = match right {
        Some(right) => right.replace("...", &letters),
        None => {
            let all: String = terms.concat();
            let mut once: Vec<char> =
                all.chars().filter(|c| all.matches(*c).count() == 1 && !letters.contains(*c)).collect();
            once.sort_unstable();
            letters.chars().chain(once).collect()
        }
    };
    Some((terms, output))
}

#[cfg(test)]
mod tests {
    use super::spelled;

    #[test]
    fn every_axis_gets_a_letter() {
        let cases: [(&str, &[usize], &str); 7] = [
            ("...d,de->...e", &[3, 2], "abd,de->abe"),
            ("...ij,...jk", &[4, 3], "abij,bjk->abik"),
            ("ba", &[2], "ba->ab"),
            ("ij->", &[2], "ij->"),
            ("ii", &[2], "ii->"),
            ("i...->...", &[3], "iab->ab"),
            ("ij->", &[3], "none"),
        ];
        for (text, ranks, expected) in cases {
            let found = spelled(text, ranks).map(|(terms, output)| format!("{}->{output}", terms.join(",")));
            assert_eq!(found.unwrap_or("none".into()), expected, "{text}");
        }
    }
}
