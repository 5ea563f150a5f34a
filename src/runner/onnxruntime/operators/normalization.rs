//! Batch normalization with a residual and an activation.

use super::call::{Call, Reader};
use super::{Compute, Definition};
use freeze_plan_kernels::norm::{self, Backward, Gradients, Normalization, Statistics};
use freeze_plan_kernels::{Activation, Exec};

pub(super) static BATCH_NORMALIZATION: Definition = Definition {
    name: "BatchNormalization",
    inputs: &[true, true, true, false],
    outputs: &[false, false, false, false],
    make: |node| Ok(Box::new(Forward { activation: activation(node)?, epsilon: node.float("epsilon", 1e-5) })),
};

pub(super) static BATCH_NORMALIZATION_GRAD: Definition = Definition {
    name: "BatchNormalizationGrad",
    inputs: &[true, false, false, true, true, true, true, true],
    outputs: &[false, false, false, false],
    make: |node| Ok(Box::new(Backwards { activation: activation(node)?, epsilon: None })),
};

pub(super) static FIXED_NORMALIZATION: Definition = Definition {
    name: "FixedNormalization",
    inputs: &[true, true, true, true, true, false],
    outputs: &[true],
    make: |node| Ok(Box::new(Fixed { activation: activation(node)?, epsilon: node.float("epsilon", 1e-5) })),
};

pub(super) static FIXED_NORMALIZATION_GRAD: Definition = Definition {
    name: "FixedNormalizationGrad",
    inputs: &[true, false, false, true, true, true, true, true],
    outputs: &[false, false, false, false],
    make: |node| {
        let epsilon = Some(node.float("epsilon", 1e-5));
        Ok(Box::new(Backwards { activation: activation(node)?, epsilon }))
    },
};

pub(super) static RUNNING_STATISTICS: Definition = Definition {
    name: "RunningStatistics",
    inputs: &[true, true, true, true, true],
    outputs: &[true, true],
    make: |node| {
        let [keep, add] = [node.float("keep", 0.9), node.float("add", 0.1)];
        Ok(Box::new(Running { keep, add, unbiased: node.int("unbiased", 0) != 0 }))
    },
};

/// Returns the activation that a node's attributes name, none where they do not.
pub(super) fn activation(node: &Reader<'_, '_>) -> Result<Activation, String> {
    match node.text("activation").as_str() {
        "none" | "" => Ok(Activation::None),
        "relu" => Ok(Activation::Relu),
        "clip" => {
            let (min, max) = (node.float("min", f32::NEG_INFINITY), node.float("max", f32::INFINITY));
            Ok(Activation::Clip { min, max })
        }
        other => Err(format!("activation \"{other}\" is not known")),
    }
}

/// Returns rows and channels of an image.
fn rows(shape: &[usize]) -> (usize, usize) {
    let channels = shape.last().copied().unwrap_or(1);
    (shape.iter().take(shape.len().saturating_sub(1)).product(), channels)
}

struct Forward {
    activation: Activation,
    epsilon: f32,
}

impl Compute for Forward {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (x, scale, bias, residual) = (call.input(0)?, call.input(1)?, call.input(2)?, call.optional(3)?);
        let (rows, channels) = rows(&x.shape);
        let norm =
            Normalization { rows, channels, scale: scale.elements, bias: bias.elements, activation: self.activation };
        let y = call.optional_output(0, &x.shape)?;
        let mut rest = [const { Vec::new() }; 3];
        let [mean, var, inv_std] = &mut rest;
        let mean = or_own(call.optional_output(1, &[channels])?, mean, channels);
        let var = or_own(call.optional_output(2, &[channels])?, var, channels);
        let inv_std = or_own(call.optional_output(3, &[channels])?, inv_std, channels);
        let residual = residual.map(|residual| residual.elements);
        let mut statistics = Statistics { mean, var, inv_std };
        match y {
            Some(y) => norm::forward(Exec::on(call), &norm, x.elements, residual, self.epsilon, y, statistics),
            None => norm::statistics(Exec::on(call), rows, channels, x.elements, self.epsilon, &mut statistics),
        }
        Ok(())
    }
}

/// Returns an output, or room for it where nobody reads it.
fn or_own<'a>(output: Option<&'a mut [f32]>, own: &'a mut Vec<f32>, len: usize) -> &'a mut [f32] {
    match output {
        Some(output) => output,
        None => {
            own.resize(len, 0.0);
            own
        }
    }
}

struct Fixed {
    activation: Activation,
    epsilon: f32,
}

impl Compute for Fixed {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (x, scale, bias, mean, var) =
            (call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?, call.input(4)?);
        let residual = call.optional(5)?.map(|residual| residual.elements);
        let (rows, channels) = rows(&x.shape);
        let norm =
            Normalization { rows, channels, scale: scale.elements, bias: bias.elements, activation: self.activation };
        let mut inv_std = vec![0.0; channels];
        norm::inverse_std(var.elements, self.epsilon, &mut inv_std);
        let y = call.output(0, &x.shape)?;
        norm::apply(Exec::on(call), &norm, x.elements, mean.elements, &inv_std, residual, y);
        Ok(())
    }
}

struct Backwards {
    activation: Activation,
    /// Where the statistics are given: what is added to the variance.
    epsilon: Option<f32>,
}

impl Compute for Backwards {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (dy, more, y, x) = (call.input(0)?, call.optional(1)?, call.optional(2)?, call.input(3)?);
        let [scale, bias, mean, spread] = [call.input(4)?, call.input(5)?, call.input(6)?, call.input(7)?];
        let (rows, channels) = rows(&x.shape);
        let norm =
            Normalization { rows, channels, scale: scale.elements, bias: bias.elements, activation: self.activation };
        let dys: Vec<&[f32]> = [Some(dy.elements), more.map(|more| more.elements)].into_iter().flatten().collect();
        let mut inv_std = spread.elements.to_vec();
        if let Some(epsilon) = self.epsilon {
            norm::inverse_std(spread.elements, epsilon, &mut inv_std);
        }
        let from =
            Backward { dys: &dys, y: y.map(|y| y.elements), x: x.elements, mean: mean.elements, inv_std: &inv_std };
        let to = Gradients {
            dx: call.optional_output(0, &x.shape)?,
            dscale: call.optional_output(1, &[channels])?,
            dbias: call.optional_output(2, &[channels])?,
            dresidual: call.optional_output(3, &x.shape)?,
        };
        match self.epsilon {
            None => norm::backward(Exec::on(call), &norm, &from, to),
            Some(_) => norm::backward_fixed(Exec::on(call), &norm, &from, to),
        }
        Ok(())
    }
}

struct Running {
    keep: f32,
    add: f32,
    /// Whether the variance is that of a sample.
    unbiased: bool,
}

impl Compute for Running {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let count = rows(&call.input(4)?.shape).0 as f32;
        let factor = if self.unbiased { count / (count - 1.0).max(1.0) } else { 1.0 };
        for (index, factor) in [(0, 1.0), (1, factor)] {
            let batch = call.input(index)?;
            let next = call.moved(index + 2, index)?.ok_or("a running statistic is missing")?;
            if next.len() != batch.elements.len() {
                return Err(format!("{} running statistics of {} channels", next.len(), batch.elements.len()));
            }
            for (next, batch) in next.iter_mut().zip(batch.elements) {
                *next = *next * self.keep + batch * factor * self.add;
            }
        }
        Ok(())
    }
}
