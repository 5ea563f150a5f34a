//! A guess of the loss, from the model's outputs and what the data hold.

use super::columns::{described, fits, is_target};
use crate::data::{Column, Dataset, Draw, Sample, check_labels};
use crate::graph::{Dim, Fact, Graph, Tensor, ValueId};
use crate::losses::{IGNORE_INDEX, LossKind, LossSpec};

/// A loss, with the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// The loss.
    pub kind: LossKind,
    /// The output that it reads.
    pub output: String,
    /// Why this one, in sentences.
    pub why: Vec<String>,
    /// What the target is, where there is one.
    pub target: Option<Fact>,
    /// The column that it is in.
    pub column: Option<String>,
}

/// Returns the loss of a model; columns in `taken` feed inputs. `None` for a model without outputs of numbers.
pub fn guess(graph: &Graph, data: Option<&Dataset>, taken: &[String]) -> Option<Guess> {
    let outputs = outputs(graph);
    let first = *outputs.first()?;
    if is_loss(graph, first) {
        let why = vec![format!("{}: the model computes its loss itself", shown(graph, first))];
        let output = graph.value_name(first).to_string();
        return Some(Guess { kind: LossKind::Output, output, why, target: None, column: None });
    }
    let by_data = data.and_then(|data| outputs.iter().find_map(|output| by_data(graph, *output, data, taken)));
    Some(by_data.unwrap_or_else(|| by_shape(graph, first)))
}

/// Returns the outputs of numbers, the likeliest prediction first.
fn outputs(graph: &Graph) -> Vec<ValueId> {
    let mut outputs: Vec<ValueId> = graph
        .outputs()
        .iter()
        .copied()
        .filter(|id| graph.fact(*id).dtype.is_none_or(|dtype| dtype.is_float()))
        .collect();
    let rank = |id: &ValueId| {
        let name = graph.value_name(*id).to_lowercase();
        match () {
            () if is_loss(graph, *id) => 0,
            () if name.contains("logits") => 1,
            () => 2,
        }
    };
    outputs.sort_by_key(rank);
    outputs
}

/// Returns true for an output of one element whose name says that it is a loss, or that is alone.
fn is_loss(graph: &Graph, id: ValueId) -> bool {
    let one = graph.fact(id).sizes().is_some_and(|sizes| sizes.iter().all(|size| *size == 1));
    let scalar = graph.fact(id).rank() == Some(0);
    one && (graph.value_name(id).to_lowercase().contains("loss") || scalar && graph.outputs().len() == 1)
}

fn by_data(graph: &Graph, output: ValueId, data: &Dataset, taken: &[String]) -> Option<Guess> {
    let fact = graph.fact(output);
    let mut columns: Vec<&Column> = data.columns().iter().filter(|column| !taken.contains(&column.name)).collect();
    columns.sort_by_key(|column| (!is_target(&column.name), column.name != graph.value_name(output)));
    let classes = if ends_in(graph, output) == Some("LogSoftmax") { LossKind::Nll } else { LossKind::CrossEntropy };
    let kinds: &[LossKind] = &[classes, LossKind::BinaryCrossEntropy, LossKind::Mse];
    kinds.iter().find_map(|kind| {
        let target = LossSpec::new(*kind).target_fact(std::slice::from_ref(fact)).ok()??;
        let column = columns.iter().find(|column| {
            fits(data, &column.name, &target)
                && first(data, &column.name).is_some_and(|values| holds(*kind, fact, &column.name, &values))
        })?;
        let what = match kind {
            LossKind::Mse => "numbers",
            LossKind::BinaryCrossEntropy => "zeros and ones",
            _ => "class indices",
        };
        let mut why =
            vec![format!("{}, and the column {} holds {what}", shown(graph, output), described(data, column))];
        why.extend(caution(graph, output, *kind));
        let output = graph.value_name(output).to_string();
        Some(Guess { kind: *kind, output, why, target: Some(target), column: Some(column.name.clone()) })
    })
}

/// Returns the first rows of a column.
fn first(data: &Dataset, name: &str) -> Option<Tensor> {
    const ROWS: usize = 4096;
    let samples: Vec<Sample> = (0..data.rows().min(ROWS)).map(Sample::of).collect();
    let mut read = data.source().read(&[data.position(name).ok()?], &samples, Draw::Fixed).ok()?;
    Some(read.swap_remove(0))
}

/// Returns true where the values of a column are what a loss takes.
fn holds(kind: LossKind, prediction: &Fact, name: &str, column: &Tensor) -> bool {
    match kind {
        LossKind::CrossEntropy | LossKind::Nll => match LossSpec::new(kind).classes(prediction) {
            Some((_, classes)) => classes > 1 && check_labels(name, column, classes, Some(IGNORE_INDEX)).is_ok(),
            None => true,
        },
        LossKind::BinaryCrossEntropy => {
            column.to_f64s().is_some_and(|values| values.iter().all(|value| *value == 0.0 || *value == 1.0))
        }
        _ => true,
    }
}

fn by_shape(graph: &Graph, output: ValueId) -> Guess {
    let fact = graph.fact(output);
    let end = ends_in(graph, output);
    let known = |axis: i64| fact.dim(axis).and_then(Dim::known);
    let ids = graph.inputs().iter().any(|id| graph.fact(*id).dtype.is_some_and(|dtype| !dtype.is_float()));
    let one_class = fact.rank().is_some_and(|rank| rank < 2) || known(-1) == Some(1);
    let as_input = || {
        let first = graph.inputs().first().map(|id| graph.fact(*id));
        let rest = |fact: &Fact| fact.shape.as_ref().map(|shape| shape.iter().skip(1).cloned().collect::<Vec<_>>());
        fact.rank().is_some_and(|rank| rank > 2)
            && first.is_some_and(|first| first.is_float() && rest(first) == rest(fact))
    };
    let (kind, reason) = match end {
        Some("LogSoftmax") => (LossKind::Nll, "ends in LogSoftmax: nll takes class indices"),
        Some("Softmax") => (LossKind::CrossEntropy, "ends in Softmax: its classes are told apart by class indices"),
        Some("Sigmoid") => (LossKind::Mse, "ends in Sigmoid: mse takes numbers in [0, 1]"),
        _ if fact.rank().is_none() => (LossKind::Mse, "is of unknown shape: mse takes numbers of its shape"),
        _ if as_input() => (LossKind::Mse, "has the shape of the input: mse takes numbers of that shape"),
        _ if one_class => {
            (LossKind::Mse, "is one number: mse takes numbers; binary-cross-entropy would take zeros and ones")
        }
        _ if fact.rank() == Some(3) && !ids => {
            (LossKind::Mse, "is a sequence of numbers: mse takes numbers of its shape")
        }
        _ => (
            LossKind::CrossEntropy,
            "looks like a score for each class: cross-entropy takes class indices; mse would take numbers",
        ),
    };
    let mut why = vec![format!("{} {reason}", shown(graph, output))];
    why.extend(caution(graph, output, kind));
    let target = LossSpec::new(kind).target_fact(std::slice::from_ref(fact)).ok().flatten();
    Guess { kind, output: graph.value_name(output).to_string(), why, target, column: None }
}

/// Returns what is wrong with a loss on an output that is no logit.
fn caution(graph: &Graph, output: ValueId, kind: LossKind) -> Option<String> {
    let end = ends_in(graph, output)?;
    let clash = matches!((end, kind), ("Softmax", LossKind::CrossEntropy) | ("Sigmoid", LossKind::BinaryCrossEntropy));
    clash.then(|| format!("Careful: {kind} applies a {end} itself, so better export the model without its last {end}"))
}

/// Returns the operator that an output comes from.
fn ends_in(graph: &Graph, output: ValueId) -> Option<&str> {
    graph.producer(output).map(|id| graph.node(id).op.name.as_str())
}

fn shown(graph: &Graph, id: ValueId) -> String {
    format!("the output {} {}", graph.value_name(id), graph.fact(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType};
    use std::path::Path;

    fn graph(op: &str, dtype: DType, rest: &[usize], name: &str) -> Graph {
        let mut b = Builder::new("g");
        let dims = std::iter::once(Dim::Symbol("batch".into())).chain(rest.iter().map(|size| Dim::Known(*size)));
        let x = b.input("x", Fact::new(dtype, dims.collect()));
        let y = b.op(op, &[x], Attributes::none());
        b.rename(y, name);
        b.mark_output(y);
        b.finish()
    }

    #[test]
    fn shape_and_last_operator_decide_without_data() {
        let cases: [(&str, &[usize], &str, LossKind); 8] = [
            ("Relu", &[10], "y", LossKind::CrossEntropy),
            ("Relu", &[1], "y", LossKind::Mse),
            ("Relu", &[], "y", LossKind::Mse),
            ("LogSoftmax", &[10], "y", LossKind::Nll),
            ("Softmax", &[10], "y", LossKind::CrossEntropy),
            ("Sigmoid", &[10], "y", LossKind::Mse),
            ("Relu", &[3, 8, 8], "y", LossKind::Mse),
            ("Relu", &[6, 4], "y", LossKind::Mse),
        ];
        for (op, rest, name, expected) in cases {
            let found = guess(&graph(op, DType::F32, rest, name), None, &[]).unwrap();
            assert_eq!(found.kind, expected, "{op} {rest:?}: {:?}", found.why);
            assert_eq!(found.why.len(), if op == "Softmax" { 2 } else { 1 }, "{:?}", found.why);
        }
        let mut b = Builder::new("g");
        let x = b.input("x", Fact::fixed(DType::F32, &[4]));
        let y = b.op("ReduceMean", &[x], Attributes::none().with("keepdims", 0));
        b.rename(y, "total_loss");
        b.mark_output(y);
        assert_eq!(guess(&b.finish(), None, &[]).unwrap().kind, LossKind::Output);
    }

    #[test]
    fn data_decide_where_there_are_some() {
        let labels = |values: &[i64]| Tensor::ints(values);
        let floats = |shape: &[usize], values: &[f32]| Tensor::from_vec(shape, values.to_vec());
        let cases: [(&[usize], &str, Tensor, Option<LossKind>); 6] = [
            (&[3], "labels", labels(&[0, 2]), Some(LossKind::CrossEntropy)),
            (&[3], "anything", floats(&[2, 3], &[0.0, 1.0, 1.0, 0.0, 0.0, 1.0]), Some(LossKind::BinaryCrossEntropy)),
            (&[3], "anything", floats(&[2, 3], &[0.5, 1.0, 1.0, 0.0, 0.0, 1.0]), Some(LossKind::Mse)),
            (&[1], "y", floats(&[2, 1], &[0.0, 1.0]), Some(LossKind::BinaryCrossEntropy)),
            (&[3], "labels", labels(&[0, 3]), None),
            (&[1], "labels", labels(&[0, 0]), None),
        ];
        for (rest, name, column, expected) in cases {
            let data = Dataset::new(Path::new("a.npz"), vec![(name.into(), column)]).unwrap();
            let found = guess(&graph("Relu", DType::F32, rest, "y"), Some(&data), &[]).unwrap();
            assert_eq!(found.column.as_deref(), expected.map(|_| name), "{rest:?} {name}: {found:?}");
            assert!(expected.is_none_or(|expected| expected == found.kind), "{rest:?} {name}: {found:?}");
            let taken = guess(&graph("Relu", DType::F32, rest, "y"), Some(&data), &[name.into()]).unwrap();
            assert_eq!(taken.column, None, "a column that feeds an input is no target");
        }
    }
}
