//! The graph in which some nodes compute in the low dtype.

use super::Settings;
use super::table::{self, Row};
use crate::graph::{Builder, DType, Fact, Graph, Node, Origin, Tensor, ValueId, prune};
use std::collections::{HashMap, HashSet};

/// Returns the graph in which the nodes that have a row compute in the low dtype, and the number of its casts.
pub(super) fn cast(graph: &Graph, rows: &[Option<&'static Row>], settings: &Settings) -> (Graph, usize) {
    let mut b = Builder::new(graph.name());
    b.reserve(graph.values().map(|(_, value)| value.name.clone()));
    let captured = graph.nodes().iter().flat_map(Node::captured).filter_map(|name| graph.find(name));
    let named: HashSet<ValueId> = captured.chain(graph.outputs().iter().copied()).collect();
    let mut pass = Pass { graph, settings, b, plain: HashMap::new(), low: HashMap::new(), named };
    for id in graph.inputs() {
        let input = pass.b.input(graph.value_name(*id), graph.fact(*id).clone());
        pass.plain.insert(*id, input);
    }
    for (id, ..) in graph.initializers().filter(|(id, ..)| !graph.inputs().contains(id)) {
        let value = pass.b.copy_value(graph, id);
        pass.plain.insert(id, value);
    }
    for (node, row) in graph.nodes().iter().zip(rows) {
        pass.b.enter(node.origin.clone(), &node.name);
        match row {
            Some(row) => pass.low_node(node, row),
            None => pass.plain_node(node),
        }
    }
    for output in graph.outputs() {
        let value = pass.plain[output];
        pass.b.mark_output(value);
    }
    let made = prune(&pass.b.finish());
    let old: HashSet<&str> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
    let casts = made.nodes().iter().filter(|node| node.op.is("Cast") && !old.contains(node.name.as_str())).count();
    (made, casts)
}

struct Pass<'g> {
    graph: &'g Graph,
    settings: &'g Settings,
    b: Builder,
    /// Values of the old graph in the new one, of their own dtype.
    plain: HashMap<ValueId, ValueId>,
    /// The same in the low dtype; of a simulated graph in float32, rounded to it.
    low: HashMap<ValueId, ValueId>,
    /// Values whose names are read from outside: outputs, and those of subgraphs.
    named: HashSet<ValueId>,
}

impl Pass<'_> {
    fn is_float32(&self, id: ValueId) -> bool {
        self.graph.fact(id).dtype == Some(DType::F32)
    }

    /// Returns a value as it was.
    fn plain(&mut self, id: ValueId) -> ValueId {
        if let Some(value) = self.plain.get(&id) {
            return *value;
        }
        let value = self.to(self.low[&id], DType::F32, id);
        self.plain.insert(id, value);
        value
    }

    /// Returns a float32 value in the low dtype.
    fn low(&mut self, id: ValueId) -> ValueId {
        if let Some(value) = self.low.get(&id) {
            return *value;
        }
        let value = match self.constant(id) {
            Some(tensor) => {
                let origin = Origin::Forward;
                self.b.enter(origin, self.graph.value_name(id));
                self.b.constant(&self.settings.low.dtype().to_string(), tensor)
            }
            None => self.round(self.plain[&id], id),
        };
        self.low.insert(id, value);
        value
    }

    /// Returns the elements of a constant in the low dtype.
    fn constant(&self, id: ValueId) -> Option<Tensor> {
        let rounded = self.graph.constant(id)?.rounded(self.settings.low.dtype())?;
        if self.settings.simulated { rounded.cast_float(DType::F32) } else { Some(rounded) }
    }

    /// Appends what brings a float32 value into the low dtype.
    fn round(&mut self, value: ValueId, of: ValueId) -> ValueId {
        let low = self.to(value, self.settings.low.dtype(), of);
        if self.settings.simulated { self.to(low, DType::F32, of) } else { low }
    }

    /// Appends a cast of a value that stands for one of the old graph.
    fn to(&mut self, value: ValueId, dtype: DType, of: ValueId) -> ValueId {
        let name = self.graph.value_name(of);
        self.b.enter(self.origin(of), name);
        let cast = self.b.cast(value, dtype);
        let fact = Fact { dtype: Some(dtype), shape: self.graph.fact(of).shape.clone() };
        self.b.refine(cast, &fact);
        cast
    }

    fn origin(&self, id: ValueId) -> Origin {
        self.graph.producer(id).map_or(Origin::Forward, |node| self.graph.node(node).origin.clone())
    }

    /// Appends a node that computes in the low dtype.
    fn low_node(&mut self, node: &Node, row: &Row) {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (index, input) in node.inputs.iter().enumerate() {
            inputs.push(input.map(|id| match row.inputs.has(index) && self.is_float32(id) {
                true => self.low(id),
                false => self.plain(id),
            }));
        }
        let mut made = Vec::new();
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for (index, output) in node.outputs.iter().enumerate() {
            let Some(id) = *output else {
                outputs.push(None);
                continue;
            };
            if !(row.outputs.has(index) && self.is_float32(id)) {
                let value = self.b.copy_value(self.graph, id);
                self.plain.insert(id, value);
                outputs.push(Some(value));
                continue;
            }
            let simulated = self.settings.simulated;
            let dtype = if simulated { DType::F32 } else { self.settings.low.dtype() };
            let fact = Fact { dtype: Some(dtype), shape: self.graph.fact(id).shape.clone() };
            let own = !simulated && !self.named.contains(&id);
            self.b.enter(node.origin.clone(), self.graph.value_name(id));
            let name = if own { self.graph.value_name(id).to_string() } else { self.b.unique("computed") };
            let value = self.b.declare(&name, fact);
            outputs.push(Some(value));
            made.push((id, value));
        }
        self.b.push_node(Node { inputs, outputs, ..node.clone() });
        for (id, value) in made {
            if self.settings.simulated {
                let rounded = self.round(value, id);
                self.low.insert(id, rounded);
                self.plain.insert(id, rounded);
                self.b.rename(rounded, self.graph.value_name(id));
                continue;
            }
            self.low.insert(id, value);
            if self.named.contains(&id) {
                let plain = self.plain(id);
                self.b.rename(plain, self.graph.value_name(id));
            }
        }
    }

    /// Appends a node as it is.
    fn plain_node(&mut self, node: &Node) {
        if self.undoes(node) {
            return;
        }
        let either = table::find(&node.op).map_or(&[][..], |row| row.either);
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (index, input) in node.inputs.iter().enumerate() {
            let known = |id: &ValueId| self.plain.get(id).or_else(|| self.low.get(id)).copied();
            let any = input.and_then(|id| known(&id).filter(|_| either.contains(&index)));
            inputs.push(any.or_else(|| input.map(|id| self.plain(id))));
        }
        let outputs = self.b.copy_node(self.graph, node, &inputs);
        self.plain.extend(node.outputs.iter().zip(&outputs).filter_map(|(old, new)| Some(((*old)?, (*new)?))));
        // What the model itself casts from the low dtype is there in it.
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return };
        let from_low = self.graph.fact(input).dtype == Some(self.settings.low.dtype());
        if node.op.is("Cast") && from_low && self.is_float32(output) && !self.settings.simulated {
            let low = self.plain(input);
            self.low.insert(output, low);
        }
    }

    /// Takes the low form of a value for what the model itself casts to the low dtype.
    fn undoes(&mut self, node: &Node) -> bool {
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return false };
        let to_low = self.graph.fact(output).dtype == Some(self.settings.low.dtype());
        let fits = node.op.is("Cast") && to_low && !self.named.contains(&output) && !self.settings.simulated;
        let low = self.low.get(&input).copied().filter(|_| fits && self.is_float32(input));
        self.plain.extend(low.map(|low| (output, low)));
        low.is_some()
    }
}
