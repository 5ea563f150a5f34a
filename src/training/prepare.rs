//! One form for every model: one opset, shape arithmetic evaluated, parameters told from
//! statistics.

use super::TrainingError;
use crate::analysis::Analysis;
use crate::autodiff::{AutodiffError, Form, Manner, Rules, decompose, is_newer};
use crate::facts;
use crate::graph::{Model, upgrade};
use crate::modules::{Param, Role, Unit, UnitKind, units};
use std::collections::HashMap;

/// A model that graphs can be built from.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The model at opset 18 to 21, with every fact that could be found.
    pub model: Model,
    /// Trainable parameters and running statistics, in file order.
    pub parameters: Vec<Param>,
    /// Module path by node name, for errors.
    pub modules: HashMap<String, String>,
    /// Leaf units, which patterns of parameter groups name.
    pub units: Vec<Unit>,
    /// In which operators the graphs of its phases are written: portable ones, unless an engine that has others runs
    /// them.
    pub form: Form,
    /// Whether the gradients of its phases are computed of the loss times an input, [`names::SCALE`](super::names::SCALE).
    pub scaled: bool,
    /// Gradient rules of the caller; see [`Prepared::with_rules`].
    pub rules: Rules,
}

impl Prepared {
    /// Returns the names of the trainable parameters, in file order.
    pub fn trainable(&self) -> Vec<&str> {
        self.with_role(Role::Trainable)
    }

    /// Returns the names of the running statistics, in file order.
    pub fn statistics(&self) -> Vec<&str> {
        self.with_role(Role::Statistic)
    }

    /// Returns the model with gradient rules of the caller, which go before the built-in ones in every phase.
    pub fn with_rules(self, rules: Rules) -> Prepared {
        Prepared { rules: rules.at(&self.model.opsets), ..self }
    }

    /// Returns how the gradients of its phases are built.
    pub(super) fn manner(&self) -> Manner {
        Manner { form: self.form, rules: self.rules.clone() }
    }

    /// Names the module of the node at which a gradient cannot be built.
    pub(super) fn at(&self, source: AutodiffError) -> TrainingError {
        let module = source.node().and_then(|node| self.modules.get(node));
        TrainingError::Gradient { module: module.cloned().unwrap_or_default(), source }
    }

    fn with_role(&self, role: Role) -> Vec<&str> {
        self.parameters.iter().filter(|p| p.role == role).map(|p| p.name.as_str()).collect()
    }
}

/// Prepares an analysed model for [`super::build`].
///
/// # Errors
/// An operator cannot be brought to opset 18, or the model has no trainable parameter.
pub fn prepare(analysis: &Analysis) -> Result<Prepared, TrainingError> {
    let tree = &analysis.tree;
    let nodes = analysis.model.graph.node_ids();
    let modules = nodes.map(|(id, node)| (node.name.clone(), tree.module(tree.module_of_node(id)).path.clone()));
    let keep = analysis.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let modules: HashMap<String, String> = modules.collect();
    let graph = decompose(&analysis.model.graph, &analysis.model.opsets, |node| is_newer(&node.op));
    let graph = graph.map_err(|source| {
        let module = source.node().and_then(|node| modules.get(node));
        TrainingError::Gradient { module: module.cloned().unwrap_or_default(), source }
    })?;
    let model = facts::fold(&upgrade(&analysis.model.with_graph(graph))?, &keep);
    let in_model = |parameter: &Param| Some(Param { value: model.graph.find(&parameter.name)?, ..parameter.clone() });
    let parameters = analysis.parameters.iter().filter_map(in_model).collect();
    let units = units(tree, UnitKind::Leaf);
    let (form, rules) = (Form::Portable, Rules::new());
    let prepared = Prepared { modules, parameters, model, units, form, scaled: false, rules };
    if prepared.trainable().is_empty() {
        return Err(TrainingError::NoParameters);
    }
    Ok(prepared)
}
