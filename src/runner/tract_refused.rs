//! Operators that tract runs and that mean something else there.
//!
//! The gradients are those of what ONNX Runtime computes; on these nodes tract would compute a
//! forward pass that they do not belong to.

use crate::graph::{Dim, Graph, Node};

/// Returns why tract must not run the graph, whose operators are those of an opset.
pub(super) fn refused(graph: &Graph, opset: i64) -> Option<String> {
    graph.nodes().iter().filter(|node| node.op.domain.is_empty()).find_map(|node| {
        let reason = match node.op.name.as_str() {
            "DFT" if opset >= 20 => dft(graph, node),
            "GlobalLpPool" => Some("it takes the root of the mean instead of the sum"),
            "GridSample" => grid_sample(node),
            "Resize" => resize(graph, node),
            _ => None,
        }?;
        Some(format!("node \"{}\": operator {}: {reason}", node.name, node.op))
    })
}

fn dft(graph: &Graph, node: &Node) -> Option<&'static str> {
    let rank = graph.fact(node.input(0)?).rank();
    (node.input(2).is_none() && rank != Some(3)).then_some("it takes axis 1 where none is given")
}

fn grid_sample(node: &Node) -> Option<&'static str> {
    let padding = node.attributes.text("padding_mode", "zeros").ok()?;
    let mode = node.attributes.text("mode", "linear").ok()?;
    let pixelwise = padding == "reflection" || (padding == "border" && mode.ends_with("cubic"));
    pixelwise.then_some("it moves the places inside the image, not the pixels that they read")
}

/// The forms in which ONNX Runtime leaves the letter of ONNX, which tract follows.
fn resize(graph: &Graph, node: &Node) -> Option<&'static str> {
    let places = node.attributes.text("coordinate_transformation_mode", "half_pixel").ok()?;
    let mode = node.attributes.text("mode", "nearest").ok()?;
    let from: Vec<Option<usize>> = graph.fact(node.input(0)?).shape.as_ref()?.iter().map(Dim::known).collect();
    let to: Vec<Option<usize>> = graph.fact(node.output(0)?).shape.as_ref()?.iter().map(Dim::known).collect();
    let shrunk = from.iter().zip(&to).any(|(from, to)| from != to && *to == Some(1));
    if places == "pytorch_half_pixel" && mode != "nearest" && shrunk {
        return Some("it reads the one pixel that is left elsewhere");
    }
    let copied = from == to || node.attributes.int("antialias", 0).ok()? != 0;
    let scales = graph.constant(node.input(2)?)?.to_f64s()?;
    let rank = i64::try_from(from.len()).ok()?;
    let axes = node.attributes.ints("axes").ok()?.unwrap_or_else(|| (0..rank).collect());
    axes.iter().zip(scales).filter(|(_, scale)| *scale != 1.0).find_map(|(axis, scale)| {
        let axis = usize::try_from(if *axis < 0 { axis + rank } else { *axis }).ok()?;
        let (from, to) = ((*from.get(axis)?)?, (*to.get(axis)?)?);
        if from == to && copied {
            return Some("it resizes an axis of which the size stays the same");
        }
        let whole = to < 2 || (from as f32 * scale as f32).fract() == 0.0;
        (places == "align_corners" && !whole).then_some("it takes the corners of a size that is not whole")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType, Fact, OpId, Tensor};

    #[test]
    fn nodes_that_mean_something_else() {
        struct Case {
            op: &'static str,
            attributes: &'static [(&'static str, &'static str)],
            scales: &'static [f32],
            refused: bool,
        }
        let resize = |attributes, scales, refused| Case { op: "Resize", attributes, scales, refused };
        let sample = |attributes, refused| Case { op: "GridSample", attributes, scales: &[], refused };
        const LINEAR: (&str, &str) = ("mode", "linear");
        const CORNERS: (&str, &str) = ("coordinate_transformation_mode", "align_corners");
        const HALF: (&str, &str) = ("coordinate_transformation_mode", "pytorch_half_pixel");
        let cases = [
            Case { op: "GlobalLpPool", attributes: &[], scales: &[], refused: true },
            Case { op: "DFT", attributes: &[], scales: &[], refused: true },
            Case { op: "GlobalMaxPool", attributes: &[], scales: &[], refused: false },
            sample(&[("padding_mode", "border")], false),
            sample(&[("padding_mode", "border"), ("mode", "cubic")], true),
            sample(&[("padding_mode", "reflection")], true),
            resize(&[LINEAR], &[1.0, 1.0, 2.0, 1.5], false),
            resize(&[LINEAR, HALF], &[1.0, 1.0, 2.0, 0.25], true),
            resize(&[LINEAR, CORNERS], &[1.0, 1.0, 2.0, 1.5], false),
            resize(&[LINEAR, CORNERS], &[1.0, 1.0, 2.0, 1.3], true),
            resize(&[], &[1.0, 1.0, 1.1, 1.1], true),
            resize(&[], &[1.0, 1.0, 2.0, 1.1], false),
        ];
        for (index, case) in cases.iter().enumerate() {
            let mut b = Builder::new("case");
            let x = b.input("x", Fact::fixed(DType::F32, &[1, 1, 4, 4]));
            let inputs = match case.op {
                "Resize" => vec![Some(x), None, Some(b.initializer("s", Tensor::from_vec(&[4], case.scales.to_vec())))],
                "GridSample" => vec![Some(x), Some(b.input("grid", Fact::fixed(DType::F32, &[1, 2, 2, 2])))],
                _ => vec![Some(x)],
            };
            let attributes =
                case.attributes.iter().fold(Attributes::none(), |all, (name, value)| all.with(name, *value));
            let y = b.ops(&OpId::standard(case.op), &inputs, attributes, 1)[0];
            b.mark_output(y);
            assert_eq!(refused(&b.finish(), 20).is_some(), case.refused, "case {index}, {}", case.op);
        }
    }
}
