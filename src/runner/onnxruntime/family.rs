//! A graph with open sizes on a device: one session for each set of sizes that it is bound to.
//!
//! With its sizes fixed, ONNX Runtime computes shapes once, when a session is made, so nothing of the graph stays on the
//! processor and its runs can be captured. On the processor, and for graphs that are bound to many sets of sizes, one
//! session serves all.

use super::sessions::{Prepared, Source};
use crate::graph::{Dim, Fact, Model};
use crate::runner::engine::EngineError;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The sizes that open dimensions have, by the text of the dimension.
pub(super) type Sizes = HashMap<String, usize>;

/// Most sets of sizes that have a session of their own.
const MOST: usize = 4;

/// A graph and its sessions.
pub(super) struct Family {
    pub(super) name: String,
    /// Outputs that are scalars.
    pub(super) scalars: HashSet<String>,
    /// What inputs have open sizes.
    open: HashMap<String, Fact>,
    /// The graph, where further sessions of it may be made.
    model: Option<Arc<Model>>,
    members: Vec<(Sizes, Prepared)>,
}

impl Family {
    /// Makes a graph's first session, for the sizes that were bound first where it has the same; where it has sizes that
    /// are not known, its sessions are made when they are.
    ///
    /// # Errors
    /// ONNX Runtime refuses the graph.
    pub(super) fn new(source: &Source, model: &Model) -> Result<Family, EngineError> {
        let graph = &model.graph;
        let scalars =
            graph.outputs().iter().filter(|id| graph.fact(**id).sizes().is_some_and(|sizes| sizes.is_empty()));
        let scalars = scalars.map(|id| graph.value_name(*id).to_string()).collect();
        let mut open = HashMap::new();
        if source.fixes_sizes {
            let inputs = graph.inputs().iter().filter(|id| symbols(graph.fact(**id)).next().is_some());
            open = inputs.map(|id| (graph.value_name(*id).to_string(), graph.fact(*id).clone())).collect();
        }
        let known = source.sizes.lock().map(|sizes| sizes.clone()).unwrap_or_default();
        let names: HashSet<&String> = open.values().flat_map(symbols).map(|(_, name)| name).collect();
        let sizes: Sizes = known.into_iter().filter(|(name, _)| names.contains(name)).collect();
        let known = sizes.len() == names.len();
        let members = if known { vec![(sizes.clone(), source.session(model, &sizes)?)] } else { Vec::new() };
        let model = (!open.is_empty()).then(|| Arc::new(model.clone()));
        Ok(Family { name: graph.name().to_string(), scalars, open, model, members })
    }

    /// Returns the number of the session for inputs of these shapes, which is made where there is none.
    ///
    /// # Errors
    /// ONNX Runtime refuses the graph.
    pub(super) fn member(
        &mut self,
        source: &Source,
        shape: impl Fn(&str) -> Option<Vec<usize>>,
    ) -> Result<usize, EngineError> {
        let Some(model) = &self.model else { return Ok(0) };
        let mut sizes = Sizes::new();
        for (name, fact) in &self.open {
            let Some(shape) = shape(name) else { continue };
            sizes.extend(symbols(fact).filter_map(|(axis, text)| Some((text.clone(), *shape.get(axis)?))));
        }
        if let Ok(mut known) = source.sizes.lock() {
            // Those of the first full batch, rather than of a smaller last one.
            for (name, size) in &sizes {
                known.entry(name.clone()).or_insert(*size);
            }
        }
        let found = |sizes: &Sizes| self.members.iter().position(|(own, _)| own == sizes);
        if self.members.len() >= MOST && found(&sizes).is_none() {
            sizes.clear();
        }
        if let Some(member) = found(&sizes) {
            return Ok(member);
        }
        let session = source.session(model, &sizes)?;
        self.members.push((sizes, session));
        Ok(self.members.len() - 1)
    }

    /// Returns a session.
    pub(super) fn get(&self, member: usize) -> &Prepared {
        &self.members.get(member).expect("invariant: sessions stay as long as their graph").1
    }

    /// Returns a session, to run it.
    pub(super) fn get_mut(&mut self, member: usize) -> &mut Prepared {
        &mut self.members.get_mut(member).expect("invariant: sessions stay as long as their graph").1
    }

    /// Returns the name of the graph and a session, to run it.
    pub(super) fn named(&mut self, member: usize) -> (&str, &mut Prepared) {
        let (_, session) = self.members.get_mut(member).expect("invariant: sessions stay as long as their graph");
        (&self.name, session)
    }

    /// Returns the session that was made last; `None` where none was yet.
    pub(super) fn last(&self) -> Option<&Prepared> {
        self.members.last().map(|(_, session)| session)
    }
}

/// Returns the open dimensions of a fact: their axes and texts.
fn symbols(fact: &Fact) -> impl Iterator<Item = (usize, &String)> {
    let dims = fact.shape.iter().flatten().enumerate();
    dims.filter_map(|(axis, dim)| match dim {
        Dim::Symbol(name) => Some((axis, name)),
        Dim::Known(_) | Dim::Unknown => None,
    })
}

#[cfg(test)]
mod tests {
    use super::MOST;
    use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
    use crate::runner::engine::{Engine, Target};
    use crate::runner::testing;

    /// `y = x / size(x)` of `[n, m]`.
    fn model() -> Model {
        let mut b = Builder::new("sizes");
        let dims = ["n", "m"].map(|name| Dim::Symbol(name.into())).to_vec();
        let x = b.input("x", Fact::new(DType::F32, dims));
        let size = b.unary("Size", x);
        let size = b.op("Cast", &[size], Attributes::none().with("to", 1_i64));
        let y = b.op("Div", &[x, size], Attributes::none());
        b.output(y, "y");
        let opsets = [(String::new(), 18)].into();
        Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() }
    }

    #[test]
    fn every_set_of_sizes_computes_and_few_have_a_session() {
        let mut engine = testing::onnxruntime().fixing_sizes();
        let session = engine.load(&model()).unwrap();
        assert_eq!(engine.sessions.get(session.0).members.len(), 0, "sizes are not known yet");
        for n in [3_usize, 5, 3, 1, 7, 2, 9, 3, 2] {
            let x = Tensor::from_vec(&[n, 2], vec![1_f32; 2 * n]);
            let buffer = engine.allocate(&x).unwrap();
            let binding = engine.bind(session, &[("x", buffer)], &[("y", Target::Host)]).unwrap();
            let y = engine.run(binding).unwrap().remove(0);
            assert_eq!(y.shape(), [n, 2]);
            assert!(y.to_f64s().unwrap().iter().all(|y| (y * 2.0 * n as f64 - 1.0).abs() < 1e-6));
            engine.unbind(binding);
            engine.free(buffer);
        }
        let members = &engine.sessions.get(session.0).members;
        assert_eq!(members.len(), MOST + 1, "one serves all that have none of their own");
        assert!(members.iter().filter(|(sizes, _)| sizes.is_empty()).count() == 1);
        // The sizes that were bound first are those of the next graph, too.
        let next = engine.load(&model()).unwrap();
        let (sizes, _) = &engine.sessions.get(next.0).members[0];
        assert_eq!((sizes.get("n"), sizes.get("m")), (Some(&3), Some(&2)));
    }
}
