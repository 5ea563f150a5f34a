//! A model with everything that is known of it before a plan is made: facts, module tree, parameters.

use crate::facts;
use crate::graph::Model;
use crate::modules::{
    ModuleTree, Param, Role, notes as notes_of, parameters, parameters_with, recover_with, trainable_values, untie,
};
use crate::plan::{PlanError, overrides};
use std::collections::HashMap;

/// A model with what the planner knows of it.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The model at its own opset, with every fact that could be found and merged parameters
    /// separated.
    pub model: Model,
    /// Who owns what in it.
    pub tree: ModuleTree,
    /// Trainable parameters, running statistics and buffers, in file order.
    pub parameters: Vec<Param>,
    /// The patterns for parameters and for buffers that the roles were told with.
    pub asked: (Vec<String>, Vec<String>),
    /// What could not be found out.
    pub notes: Vec<String>,
}

impl Analysis {
    /// Analyses a model.
    pub fn of(model: &Model) -> Analysis {
        Analysis::with(model, &HashMap::new(), None)
    }

    /// Analyses a model that `probe` may run where shapes stay unknown otherwise, with numbers for
    /// its named sizes.
    pub fn with(model: &Model, sizes: &HashMap<String, usize>, probe: Option<&mut dyn facts::Probe>) -> Analysis {
        Analysis::as_written_with(&untie(model).model, sizes, probe)
    }

    /// Analyses a model whose merged parameters are meant to be one.
    pub fn as_written(model: &Model) -> Analysis {
        Analysis::as_written_with(model, &HashMap::new(), None)
    }

    /// As [`Analysis::with`], for a model whose merged parameters are meant to be one.
    pub fn as_written_with(
        model: &Model,
        sizes: &HashMap<String, usize>,
        probe: Option<&mut dyn facts::Probe>,
    ) -> Analysis {
        let completed = facts::complete_with(model, sizes, probe);
        let facts::Completed { model, mut notes, .. } = completed;
        let parameters = parameters(&model);
        let tree = recover_with(&model, &parameters);
        notes.extend(notes_of(&model, &tree, &parameters));
        Analysis { tree, parameters, asked: Default::default(), model, notes }
    }

    /// Returns the analysis with the roles that the user tells by pattern.
    ///
    /// # Errors
    /// A pattern is no glob, or matches nothing that it can speak for.
    pub fn with_roles(mut self, parameter: &[String], buffer: &[String]) -> Result<Analysis, PlanError> {
        if parameter.is_empty() && buffer.is_empty() {
            return Ok(self);
        }
        let values = trainable_values(&self.model.graph);
        let can_train = |param: &Param| values.contains(&param.value);
        let overrides = overrides(&self.tree, &self.parameters, &can_train, parameter, buffer)?;
        self.parameters = parameters_with(&self.model, &overrides);
        self.tree = recover_with(&self.model, &self.parameters);
        self.asked = (parameter.to_vec(), buffer.to_vec());
        Ok(self)
    }

    /// Returns the analysis of the model with these shapes of its inputs; `None` is a size that stays
    /// as it is.
    pub fn with_shapes(self, shapes: &[(String, Vec<Option<usize>>)]) -> Analysis {
        Analysis { model: facts::with_shapes(&self.model, shapes), ..self }
    }

    /// Returns the names of the trainable parameters, in file order.
    pub fn trainable(&self) -> Vec<&str> {
        let trainable = self.parameters.iter().filter(|parameter| parameter.role == Role::Trainable);
        trainable.map(|parameter| parameter.name.as_str()).collect()
    }
}
