//! A sample of a unit's output that is small enough to compare.

use super::floats;
use crate::checkpoint::Tensors;
use crate::graph::Tensor;
use crate::signals::{Activations, Layout, Similarities};
use std::sync::OnceLock;

/// The most neurons of a unit that are compared.
const NEURONS: usize = 1024;
/// The most features of a sample that its similarity to others is taken of.
const FEATURES: usize = 4096;

/// What is kept of a unit's output.
#[derive(Clone, Debug, Default)]
pub(super) struct Probe {
    /// Positions x neurons, row by row: every position of every sample is a datapoint, as in a comparison within a
    /// layer.
    positions: Table,
    /// Samples x features, row by row.
    samples: Table,
    /// Positions that were looked at.
    offered: usize,
    /// How alike the samples are, once it was asked for.
    alike: OnceLock<Option<Similarities>>,
}

/// Rows of equal length.
#[derive(Clone, Debug, Default)]
struct Table {
    values: Vec<f32>,
    width: usize,
}

/// Which parts of an output are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// Samples of all batches.
    pub samples: usize,
    /// Whether positions are wanted.
    pub positions: bool,
    /// Whether samples are wanted.
    pub features: bool,
}

impl Table {
    fn tensor(&self) -> Tensor {
        Tensor::from_vec(&[self.values.len() / self.width.max(1), self.width], self.values.clone())
    }

    fn of(tensor: &Tensor) -> Option<Table> {
        Some(Table { values: tensor.to_vec().ok()?, width: *tensor.shape().get(1)? })
    }
}

impl Probe {
    /// Adds its tensors under names that begin with `name`, and returns the positions that were looked at.
    pub(super) fn saved(&self, name: &str, tensors: &mut Tensors) -> usize {
        tensors.insert(format!("{name}/positions"), self.positions.tensor());
        tensors.insert(format!("{name}/samples"), self.samples.tensor());
        self.offered
    }

    /// Returns the sample that was saved.
    pub(super) fn of(name: &str, offered: usize, tensors: &Tensors) -> Option<Probe> {
        let table = |part: &str| tensors.get(&format!("{name}/{part}")).and_then(Table::of);
        Some(Probe { positions: table("positions")?, samples: table("samples")?, offered, alike: OnceLock::new() })
    }

    /// Adds the output of a batch of `rows` samples, of which the first `wanted` count. `channels` says that neurons
    /// are axis 1.
    ///
    /// At most [`NEURONS`] neurons, twice as many positions (of at least 512 neurons) and [`FEATURES`] features are
    /// kept, evenly spaced.
    pub(super) fn add(&mut self, output: &Tensor, channels: bool, rows: usize, wanted: usize, keep: Keep) {
        let shape = output.shape();
        let of_samples = shape.first() == Some(&rows);
        let samples = if of_samples { wanted.min(rows) } else { shape.first().copied().unwrap_or(1) };
        let values = floats(output);
        let each = values.len() / shape.first().copied().unwrap_or(1).max(1);
        if each == 0 {
            return;
        }
        if keep.features && of_samples {
            let kept = spaced(each, FEATURES);
            self.samples.width = kept.len();
            for sample in values.chunks_exact(each).take(samples) {
                self.samples.values.extend(kept.iter().map(|feature| sample[*feature]));
            }
        }
        if keep.positions {
            let neurons = match channels {
                true => shape.get(1).copied().unwrap_or(1),
                false if shape.len() < 2 => 1,
                false => shape.last().copied().unwrap_or(1),
            };
            let inner = each / neurons.max(1);
            let kept = spaced(neurons, NEURONS);
            self.positions.width = kept.len();
            let most = 2 * kept.len().clamp(512, NEURONS);
            let total = keep.samples.max(1) * inner;
            // Odd, so that the positions of an image do not fall into few of its columns.
            let stride = if total > most { total.div_ceil(most) | 1 } else { 1 };
            let first = self.offered;
            self.offered += samples * inner;
            for position in (0..samples * inner).filter(|position| (first + position).is_multiple_of(stride)) {
                let (sample, at) = (position / inner, position % inner);
                let (step, first) = if channels { (inner, at) } else { (1, at * neurons) };
                let start = sample * each + first;
                self.positions.values.extend(kept.iter().map(|neuron| values[start + neuron * step]));
            }
        }
    }

    /// Returns the positions or samples as activations.
    pub(super) fn activations(&self) -> Option<Activations> {
        self.positions.activations()
    }

    /// Returns the positions in batches of at most `size`.
    pub(super) fn batches(&self, size: usize) -> Vec<Activations> {
        let width = self.positions.width.max(1);
        let parts = self.positions.values.chunks(size * width);
        parts.filter_map(|part| Activations::of_slice(part, &[part.len() / width, width], Layout::Last).ok()).collect()
    }

    /// Returns how alike the samples are.
    pub(super) fn similarities(&self) -> Option<&Similarities> {
        let alike = || self.samples.activations().map(|samples| Similarities::of(&samples));
        self.alike.get_or_init(alike).as_ref()
    }
}

impl Table {
    fn activations(&self) -> Option<Activations> {
        let rows = self.values.len().checked_div(self.width)?;
        Activations::of_slice(&self.values, &[rows, self.width], Layout::Last).ok()
    }
}

/// Returns at most `most` of `count` positions, evenly spaced from the first on.
fn spaced(count: usize, most: usize) -> Vec<usize> {
    let kept = count.min(most);
    (0..kept).map(|index| index * count / kept).collect()
}
