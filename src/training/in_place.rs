//! Whether state may be updated in place: the same buffer bound as an input and as an output.
//!
//! An engine runs a node as soon as its inputs are there, so an update that overwrites `p` may
//! run before another node has read `p`. That is safe exactly when every node that reads `p`,
//! directly or through an operator that only renames memory, comes before the node that writes
//! the output on every schedule: when it is an ancestor of the writer, or the writer itself and
//! that works element by element.

use crate::graph::{Graph, INTERNAL_DOMAIN, NodeId, ValueId};
use std::collections::HashSet;

/// Operators whose output may be the memory of their first input.
const VIEWS: [&str; 7] = ["Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"];
/// Operators that read each element before writing the one at the same place.
const ELEMENTWISE: [&str; 8] = ["Add", "Sub", "Mul", "Div", "Where", "Sum", "Max", "Min"];
/// Operators of our own that do so with all state that they write.
const STEPS: [&str; 2] = ["AdamStep", "SgdStep"];

/// A pair that must not share a buffer.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum InPlaceError {
    #[error(
        "\"{state}\" cannot be updated in place: node \"{reader}\" ({op}) may read it after node \"{writer}\" has written \"{output}\""
    )]
    LateReader { state: String, output: String, reader: String, op: String, writer: String },
    #[error(
        "\"{state}\" cannot be updated in place: node \"{writer}\" ({op}) reads it while writing \"{output}\" and does not work element by element"
    )]
    NotElementwise { state: String, output: String, writer: String, op: String },
    #[error("\"{state}\" cannot be updated in place: it is also the graph output \"{output}\"")]
    IsOutput { state: String, output: String },
    #[error("\"{name}\" is no {role} of the graph")]
    Unknown { name: String, role: &'static str },
}

/// Checks that each `(input, output)` pair may share one buffer.
///
/// # Errors
/// Names the first pair and the node for which that is not safe on every schedule.
pub fn check_in_place(graph: &Graph, pairs: &[(String, String)]) -> Result<(), InPlaceError> {
    let consumers = graph.consumers();
    let unknown = |name: &str, role| InPlaceError::Unknown { name: name.to_string(), role };
    for (input, output) in pairs {
        let state = graph.find(input).filter(|id| graph.inputs().contains(id));
        let state = state.ok_or_else(|| unknown(input, "input"))?;
        let target = graph.find(output).filter(|id| graph.outputs().contains(id));
        let target = target.ok_or_else(|| unknown(output, "output"))?;
        let writer = graph.producer(target).ok_or_else(|| unknown(output, "computed output"))?;
        check_pair(graph, &consumers, state, target, writer)?;
    }
    Ok(())
}

fn check_pair(
    graph: &Graph,
    consumers: &[Vec<NodeId>],
    state: ValueId,
    target: ValueId,
    writer: NodeId,
) -> Result<(), InPlaceError> {
    let name = |id| graph.value_name(id).to_string();
    let before = ancestors(graph, writer);
    let mut views = vec![state];
    let mut seen = HashSet::from([state]);
    while let Some(view) = views.pop() {
        if view != target && graph.outputs().contains(&view) {
            return Err(InPlaceError::IsOutput { state: name(state), output: name(view) });
        }
        for reader in &consumers[view.0] {
            let node = graph.node(*reader);
            let is_view = node.op.domain.is_empty() && VIEWS.contains(&node.op.name.as_str());
            if *reader == writer {
                let own = node.op.domain == INTERNAL_DOMAIN && STEPS.contains(&node.op.name.as_str());
                let elementwise = own || node.op.domain.is_empty() && ELEMENTWISE.contains(&node.op.name.as_str());
                let same_shape = graph.fact(view).shape == graph.fact(target).shape;
                if !(elementwise && same_shape || is_view) {
                    return Err(InPlaceError::NotElementwise {
                        state: name(state),
                        output: name(target),
                        writer: node.name.clone(),
                        op: node.op.to_string(),
                    });
                }
            } else if !before.contains(reader) {
                return Err(InPlaceError::LateReader {
                    state: name(state),
                    output: name(target),
                    reader: node.name.clone(),
                    op: node.op.to_string(),
                    writer: graph.node(writer).name.clone(),
                });
            }
            if is_view && node.input(0) == Some(view) {
                views.extend(node.output(0).filter(|output| seen.insert(*output)));
            }
        }
    }
    Ok(())
}

fn ancestors(graph: &Graph, node: NodeId) -> HashSet<NodeId> {
    let mut found = HashSet::new();
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        let inputs = graph.node(node).inputs.iter().flatten();
        let captured = graph.node(node).captured().filter_map(|name| graph.find(name)).collect::<Vec<_>>();
        for input in inputs.chain(&captured) {
            if let Some(producer) = graph.producer(*input)
                && found.insert(producer)
            {
                open.push(producer);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, DType, Fact};

    fn pair() -> [(String, String); 1] {
        [("w".to_string(), "w.next".to_string())]
    }

    fn weight(b: &mut Builder) -> (ValueId, ValueId) {
        b.enter(crate::graph::Origin::Update("w".into()), "");
        let w = b.input("w", Fact::fixed(DType::F32, &[2, 2]));
        let dy = b.input("dy", Fact::fixed(DType::F32, &[2, 2]));
        (w, dy)
    }

    #[test]
    fn a_reader_beside_the_writer_is_refused() {
        let mut b = Builder::new("step");
        let (w, dy) = weight(&mut b);
        let next = b.sub(w, dy);
        b.output(next, "w.next");
        let dx = b.op("MatMul", &[dy, w], crate::graph::Attributes::none());
        b.output(dx, "dx");
        let error = check_in_place(&b.finish(), &pair()).unwrap_err();
        assert!(matches!(&error, InPlaceError::LateReader { reader, .. } if reader == "MatMul"), "{error}");
    }

    #[test]
    fn a_reader_before_the_writer_is_accepted() {
        let mut b = Builder::new("step");
        let (w, dy) = weight(&mut b);
        let dx = b.op("MatMul", &[dy, w], crate::graph::Attributes::none());
        let decay = b.scale(w, 0.1);
        let step = b.add(dx, decay);
        let next = b.sub(w, step);
        b.output(next, "w.next");
        assert_eq!(check_in_place(&b.finish(), &pair()), Ok(()));
    }

    #[test]
    fn a_reader_of_a_view_counts_as_a_reader() {
        let mut b = Builder::new("step");
        let (w, dy) = weight(&mut b);
        let flat = b.reshape(w, &[-1]);
        let next = b.sub(w, dy);
        b.output(next, "w.next");
        let size = b.unary("Abs", flat);
        b.output(size, "size");
        let error = check_in_place(&b.finish(), &pair()).unwrap_err();
        assert!(matches!(error, InPlaceError::LateReader { .. }), "{error}");
    }

    #[test]
    fn a_reader_inside_a_subgraph_counts_as_a_reader() {
        use crate::graph::{Attribute, Attributes};
        let mut b = Builder::new("step");
        let (w, dy) = weight(&mut b);
        let next = b.sub(w, dy);
        b.output(next, "w.next");
        let body = Attribute::Opaque { encoded: bytes::Bytes::new(), captures: vec!["w".into()] };
        let branch = b.op("If", &[dy], Attributes::none().with("then_branch", body));
        b.output(branch, "y");
        let error = check_in_place(&b.finish(), &pair()).unwrap_err();
        assert!(matches!(&error, InPlaceError::LateReader { op, .. } if op == "If"), "{error}");
    }

    #[test]
    fn a_writer_that_mixes_elements_is_refused() {
        let mut b = Builder::new("step");
        let (w, dy) = weight(&mut b);
        let next = b.op("MatMul", &[w, dy], crate::graph::Attributes::none());
        b.output(next, "w.next");
        let error = check_in_place(&b.finish(), &pair()).unwrap_err();
        assert!(matches!(error, InPlaceError::NotElementwise { .. }), "{error}");
    }
}
