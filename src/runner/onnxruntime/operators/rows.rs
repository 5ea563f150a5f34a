//! What transformers are made of beside matrix products: operators on rows, the last axis.

use super::call::{Call, Input, Reader};
use super::{Compute, Definition};
use freeze_plan_kernels::gelu::{self, Form};
use freeze_plan_kernels::softmax::{self, Kind};
use freeze_plan_kernels::{Exec, dropout, embedding, layer_norm};

pub(super) static GELU: Definition = Definition {
    name: "Gelu",
    inputs: &[true],
    outputs: &[true],
    make: |node| Ok(Box::new(Gelu { form: form(node)?, gradient: false })),
};

pub(super) static GELU_GRAD: Definition = Definition {
    name: "GeluGrad",
    inputs: &[true, true],
    outputs: &[true],
    make: |node| Ok(Box::new(Gelu { form: form(node)?, gradient: true })),
};

pub(super) static SOFTMAX: Definition = Definition {
    name: "Softmax",
    inputs: &[true],
    outputs: &[true],
    make: |_| Ok(Box::new(Softmax { gradient: false })),
};

pub(super) static SOFTMAX_GRAD: Definition = Definition {
    name: "SoftmaxGrad",
    inputs: &[true, true],
    outputs: &[true],
    make: |_| Ok(Box::new(Softmax { gradient: true })),
};

pub(super) static LAYER_NORMALIZATION: Definition = Definition {
    name: "LayerNormalization",
    inputs: &[true, true, false],
    outputs: &[true, false, false],
    make: |node| Ok(Box::new(LayerNormalization { epsilon: node.float("epsilon", 1e-5) })),
};

pub(super) static LAYER_NORMALIZATION_GRAD: Definition = Definition {
    name: "LayerNormalizationGrad",
    inputs: &[true, true, true, true, true],
    outputs: &[false, false, false],
    make: |_| Ok(Box::new(LayerNormalizationGrad)),
};

pub(super) static EMBEDDING_GRAD: Definition = Definition {
    name: "EmbeddingGrad",
    inputs: &[true, true],
    outputs: &[true],
    make: |node| {
        let rows = usize::try_from(node.int("rows", -1)).map_err(|_| "attribute \"rows\" is missing")?;
        Ok(Box::new(EmbeddingGrad { rows }))
    },
};

pub(super) static DROPOUT: Definition = Definition {
    name: "Dropout",
    inputs: &[true, true, true],
    outputs: &[true],
    make: |node| {
        let least = u64::try_from(node.int("least", -1)).map_err(|_| "attribute \"least\" is missing")?;
        Ok(Box::new(Dropout { least, factor: node.float("factor", 1.0) }))
    },
};

fn form(node: &Reader<'_, '_>) -> Result<Form, String> {
    match node.text("approximate").as_str() {
        "" | "none" => Ok(Form::Erf),
        "tanh" => Ok(Form::Tanh),
        other => Err(format!("approximate \"{other}\" is not known")),
    }
}

/// Returns two inputs of one shape.
fn alike<'c>(call: &Call<'c>) -> Result<[Input<'c>; 2], String> {
    let [a, b] = [call.input(0)?, call.input(1)?];
    if a.shape != b.shape {
        return Err(format!("inputs have shapes {:?} and {:?}", a.shape, b.shape));
    }
    Ok([a, b])
}

struct Gelu {
    form: Form,
    gradient: bool,
}

impl Compute for Gelu {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        if self.gradient {
            let [dy, x] = alike(call)?;
            let dx = call.output(0, &x.shape)?;
            gelu::backward(Exec::on(call), self.form, None, x.elements, dy.elements, dx);
        } else {
            let x = call.input(0)?;
            let y = call.output(0, &x.shape)?;
            gelu::forward(Exec::on(call), self.form, None, x.elements, y);
        }
        Ok(())
    }
}

struct Softmax {
    gradient: bool,
}

impl Compute for Softmax {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        if self.gradient {
            let [dy, y] = alike(call)?;
            let ((_, width), dx) = (y.rows()?, call.output(0, &y.shape)?);
            softmax::backward(Exec::on(call), Kind::Softmax, width, y.elements, dy.elements, dx);
        } else {
            let x = call.input(0)?;
            let ((_, width), y) = (x.rows()?, call.output(0, &x.shape)?);
            softmax::forward(Exec::on(call), Kind::Softmax, width, x.elements, y);
        }
        Ok(())
    }
}

struct LayerNormalization {
    epsilon: f32,
}

impl Compute for LayerNormalization {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.optional(2)?);
        let ((rows, _), mut of_rows) = (x.rows()?, x.shape.clone());
        of_rows.pop();
        of_rows.push(1);
        let y = call.output(0, &x.shape)?;
        let mut own = [vec![0.0; rows], vec![0.0; rows]];
        let [mean, inv_std] = &mut own;
        let mean = call.optional_output(1, &of_rows)?.unwrap_or(mean);
        let inv_std = call.optional_output(2, &of_rows)?.unwrap_or(inv_std);
        let bias = bias.map(|bias| bias.elements);
        layer_norm::forward(Exec::on(call), x.elements, scale.elements, bias, self.epsilon, y, mean, inv_std);
        Ok(())
    }
}

struct LayerNormalizationGrad;

impl Compute for LayerNormalizationGrad {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let [dy, x] = alike(call)?;
        let [scale, mean, inv_std] = [call.input(2)?.elements, call.input(3)?.elements, call.input(4)?.elements];
        let width = scale.len();
        let saved = layer_norm::Saved { x: x.elements, scale, mean, inv_std };
        let dx = call.optional_output(0, &x.shape)?;
        let mut own = [vec![0.0; width], vec![0.0; width]];
        let [dscale, dbias] = &mut own;
        let dscale = call.optional_output(1, &[width])?.unwrap_or(dscale);
        let dbias = call.optional_output(2, &[width])?.unwrap_or(dbias);
        layer_norm::backward(Exec::on(call), saved, dy.elements, dx, dscale, dbias);
        Ok(())
    }
}

struct EmbeddingGrad {
    rows: usize,
}

impl Compute for EmbeddingGrad {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (indices, dy) = (call.integers(0)?, call.input(1)?);
        let (_, width) = dy.rows()?;
        let dw = call.output(0, &[self.rows, width])?;
        embedding::backward(Exec::on(call), width, indices.elements, dy.elements, dw);
        Ok(())
    }
}

struct Dropout {
    least: u64,
    factor: f32,
}

impl Compute for Dropout {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (x, r, c) = (call.input(0)?, call.integers(1)?, call.integers(2)?);
        let split = x.shape.len().saturating_sub(c.shape.len());
        let (front, ones) = r.shape.split_at(split.min(r.shape.len()));
        let whole = r.shape.len() <= x.shape.len() && ones.iter().all(|size| *size == 1);
        let rows: usize = front.iter().product();
        if !whole || c.shape != x.shape[split..] || rows != x.shape[..split].iter().product::<usize>() {
            return Err(format!("numbers of {:?} and {:?} do not span {:?}", r.shape, c.shape, x.shape));
        }
        let y = call.output(0, &x.shape)?;
        dropout::dropout(Exec::on(call), r.elements, c.elements, self.least, self.factor, x.elements, y);
        Ok(())
    }
}
