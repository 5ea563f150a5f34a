//! The loss of a phase: what it reads of the model and of the data, and its nodes.

use super::forward::Forward;
use super::{Prepared, TrainingError, names};
use crate::graph::{Fact, Graph, Origin, ValueId};
use crate::losses::{FusedLoss, IGNORE_INDEX, LossKind, LossSpec, TargetKind, total};

/// What a loss compares with: an input of the train and eval graphs.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Name of the input.
    pub input: String,
    /// Name that the loss gives it; `None` for the target without a name.
    pub name: Option<String>,
    /// Dtype and shape.
    pub fact: Fact,
    /// The number of classes and the label that does not count, where it holds class indices.
    pub labels: Option<(usize, i64)>,
    /// The axis and the number of classes, where it holds a probability for each class.
    pub probabilities: Option<(usize, usize)>,
}

/// Returns the targets of a loss, each once. `output` is the model output that a loss reads which
/// names none.
///
/// # Errors
/// The loss does not fit the outputs.
pub fn targets(prepared: &Prepared, loss: &LossSpec, output: Option<&str>) -> Result<Vec<Target>, TrainingError> {
    let graph = &prepared.model.graph;
    loss.validate()?;
    let mut found: Vec<Target> = Vec::new();
    for term in loss.terms() {
        let facts: Vec<Fact> = predictions(graph, term, output)?.into_iter().map(|id| graph.fact(id).clone()).collect();
        let Some(fact) = term.target_fact(&facts)? else { continue };
        let input = names::target(term.target.as_deref());
        let classes = facts.first().and_then(|fact| term.classes(fact));
        let soft = term.target_kind == TargetKind::Probabilities;
        let probabilities = classes.filter(|_| soft);
        let classes = classes.filter(|_| !soft);
        let labels = classes.map(|(_, classes)| (classes, term.ignore_index.unwrap_or(IGNORE_INDEX)));
        if !found.iter().any(|target| target.input == input) {
            found.push(Target { input, name: term.target.clone(), fact, labels, probabilities });
        }
    }
    Ok(found)
}

/// Returns the model outputs that a loss reads which is no sum.
///
/// # Errors
/// The model has no such output.
pub(super) fn predictions(graph: &Graph, term: &LossSpec, output: Option<&str>) -> Result<Vec<ValueId>, TrainingError> {
    match &term.outputs {
        Some(names) => names.iter().map(|name| prediction(graph, Some(name))).collect(),
        None => Ok(vec![prediction(graph, term.output.as_deref().or(output))?]),
    }
}

/// Returns the model output of a name; the first where `None`.
///
/// # Errors
/// The model has no such output.
pub fn prediction(graph: &Graph, output: Option<&str>) -> Result<ValueId, TrainingError> {
    match output {
        None => graph.outputs().first().copied().ok_or(TrainingError::NoOutput),
        Some(name) => {
            let found = graph.outputs().iter().find(|id| graph.value_name(**id) == name);
            found.copied().ok_or_else(|| TrainingError::UnknownOutput {
                name: name.to_string(),
                known: graph.outputs().iter().map(|id| graph.value_name(*id)).collect::<Vec<_>>().join(", "),
            })
        }
    }
}

/// Appends the loss and its targets.
///
/// # Errors
/// The loss does not fit the outputs.
pub(super) fn add_loss(
    f: &mut Forward,
    graph: &Graph,
    loss: &LossSpec,
    output: Option<&str>,
) -> Result<ValueId, TrainingError> {
    loss.validate()?;
    let mut parts = Vec::with_capacity(loss.terms().len());
    for term in loss.terms() {
        let mut values = Vec::new();
        for old in predictions(graph, term, output)? {
            let value = f.map[&old];
            f.b.refine(value, graph.fact(old));
            values.push(value);
        }
        let facts: Vec<Fact> = values.iter().map(|id| f.b.fact(*id).clone()).collect();
        let input = names::target(term.target.as_deref());
        let target = term.target_fact(&facts)?.map(|fact| {
            let known = f.b.graph().find(&input);
            known.unwrap_or_else(|| f.b.input(&input, fact))
        });
        f.b.enter(Origin::Loss, "loss");
        parts.push((term.build(&mut f.b, &values, target)?, term.weight.unwrap_or(1.0)));
    }
    f.b.enter(Origin::Loss, "loss");
    Ok(total(&mut f.b, &parts))
}

/// Appends a loss that is one operator of our own, and its target; `None` where there is none for it.
///
/// # Errors
/// The loss does not fit the output.
pub(super) fn add_fused_loss(
    f: &mut Forward,
    graph: &Graph,
    loss: &LossSpec,
    output: Option<&str>,
) -> Result<Option<FusedLoss>, TrainingError> {
    loss.validate()?;
    let [term] = loss.terms() else { return Ok(None) };
    if term.kind != LossKind::CrossEntropy || term.weight.is_some_and(|weight| weight != 1.0) {
        return Ok(None);
    }
    let Some(old) = predictions(graph, term, output)?.first().copied() else { return Ok(None) };
    let value = f.map[&old];
    f.b.refine(value, graph.fact(old));
    let input = names::target(term.target.as_deref());
    let fact = term.target_fact(&[f.b.fact(value).clone()])?;
    let fact = fact.filter(|_| f.b.graph().find(&input).is_none());
    let Some(fact) = fact.filter(|_| term.is_fused(f.b.fact(value)).unwrap_or(false)) else { return Ok(None) };
    let target = f.b.input(&input, fact);
    Ok(term.build_fused(&mut f.b, value, target)?)
}

/// Returns the names that the loss and its targets take, with their meanings; not that of the loss
/// where it is an output of the model which has that name.
pub(super) fn reserved(graph: &Graph, loss: &LossSpec, output: Option<&str>) -> Vec<(String, String)> {
    let mut reserved = Vec::new();
    let own = loss.kind == LossKind::Output && loss.weight.is_none_or(|weight| weight == 1.0);
    let id = prediction(graph, loss.output.as_deref().or(output)).ok().filter(|_| own);
    let itself = id.is_some_and(|id| graph.value_name(id) == names::LOSS && graph.fact(id).rank() == Some(0));
    if !itself {
        reserved.push((names::LOSS.to_string(), "the loss".to_string()));
    }
    for term in loss.terms().iter().filter(|term| term.kind.has_target()) {
        let meaning = term.target.as_ref().map_or_else(|| "the target".into(), |name| format!("the target \"{name}\""));
        reserved.push((names::target(term.target.as_deref()), meaning));
    }
    reserved
}
