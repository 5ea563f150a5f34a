//! Which initializers are parameters, which are running statistics, and which are buffers.
//!
//! A file marks none of its initializers as trainable, except that PyTorch's `torch.export`-based
//! exporter leaves the signature of its program in the graph's metadata. Otherwise the way an
//! initializer is read decides, and its name where that leaves doubt. A *state name* is one that a
//! person gave: it has no `::`, `/` or `:`, and is no number and no exporter's counter (`val_12`,
//! `Constant_3`, `lifted_tensor_0`). Elements are looked at in tensors of at most 1024 elements. In this
//! order, the first that applies:
//!
//! 1. What the user says (`--parameter`, `--buffer`).
//! 2. A *buffer* is what has no gradient: integers, booleans and strings (index tables, position ids,
//!    packed weights, zero points); what no node reads; scales and zero points of quantisation; what only shapes, indices and conditions are made of, or what no
//!    gradient of an output reaches.
//! 3. What the signature of the exported program calls a parameter or a buffer. A buffer that is read
//!    as in 4 is a statistic.
//! 4. Inputs 3 and 4 of `BatchNormalization` are *running statistics*, unless the same tensor is
//!    also a weight elsewhere.
//! 5. With a state name, it is a buffer by name and use: a name of buffers (`inv_freq`, `pos_encoder.pe`
//!    with values of sines, `attn_mask`, `*_mask`, `position_ids`, `cos_cached`, `window`, `mel_basis`, ..);
//!    `weight_u` and `weight_v` beside `weight_orig`, the vectors of spectral normalization;
//!    a vector that shifts or scales a graph input (`pixel_mean`); the one number that `Where` fills in;
//!    a square matrix of zeros and large negative numbers added before `Softmax`; frequencies multiplied
//!    with positions and read only by `Cos` and `Sin`; scale and bias of a BatchNorm that was written out
//!    in `Add`, `Sqrt` and `Mul`, which is how frozen ones are.
//! 6. Whatever its name, a tensor of rank 1 or more is a *parameter* as the weight or bias of `Conv`,
//!    `ConvTranspose`, `Gemm`, `MatMul`, `Einsum`, a normalisation, `PRelu`, `LSTM`, `GRU` or
//!    `RNN`, and as the table (rank 2 or more) of `Gather`. This includes the folded
//!    `onnx::MatMul_123`. An unnamed scale of ones or bias of zeros of a normalisation is what
//!    exporters write for "no affine part": a buffer.
//! 7. With a state name, a tensor is a parameter wherever a gradient can reach it (`Add`, `Mul`,
//!    `Concat`, ..), if it has more than one element, a dotted name or the name of a scale
//!    (`logit_scale`, `temperature`).
//! 8. Without one, it is a parameter in `Add`, `Sub`, `Mul` and `Div` only as a bias or scale: at
//!    most one of its dimensions is not 1, it has more than one element, and it has a scope of
//!    TensorFlow's or the other operand is the output of a linear operator or a normalisation.
//!    What only the nodes of a subgraph read (`If`, `Loop`, `Scan`) is told by 3, 6 and 7.
//! 9. Everything else is a constant, which counts as a buffer.
//!
//! Not told apart without the signature: a float buffer with a name of its author's own that is used as
//! a parameter would be, such as a fixed bias. `--buffer PATTERN` says so.

use super::names::is_state_name;
use super::roles::Roles;
use super::uses::carries_gradient;
use crate::graph::{DType, Graph, Model, ValueId};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// What an initializer is to training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A parameter that gradients update.
    Trainable,
    /// A running statistic that forward passes update.
    Statistic,
    /// Nothing updates it.
    Buffer,
}

/// An initializer and its role.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its value.
    pub value: ValueId,
    /// Name of the initializer.
    pub name: String,
    /// What it is to training.
    pub role: Role,
    /// What decided the role, for a person.
    pub reason: Cow<'static, str>,
}

impl Param {
    /// Returns true for a tensor that is of interest to a person even where it is no parameter: one
    /// with a name of its author's.
    pub fn is_named(&self) -> bool {
        self.role != Role::Buffer || is_state_name(&self.name)
    }
}

/// Returns the floating-point values that some node reads as data, so that they could train.
pub fn trainable_values(graph: &Graph) -> HashSet<ValueId> {
    let slots = graph.nodes().iter().flat_map(|node| {
        let slots = node.inputs.iter().enumerate().filter(|(input, _)| carries_gradient(node, *input));
        slots.filter_map(|(_, value)| *value)
    });
    slots.filter(|value| graph.fact(*value).dtype.is_some_and(DType::is_float)).collect()
}

/// Roles that were asked for, with the request, by the value of the initializer.
pub type Overrides = HashMap<ValueId, (Role, String)>;

/// Returns the floating-point initializers and those of any dtype with a name of their author's, in
/// file order.
pub fn parameters(model: &Model) -> Vec<Param> {
    parameters_with(model, &Overrides::new())
}

/// Returns the same with the roles that were asked for.
pub fn parameters_with(model: &Model, overrides: &Overrides) -> Vec<Param> {
    let roles = Roles::new(model);
    let listed = |name: &str, float: bool| float || is_state_name(name);
    let all = model.graph.initializers();
    let all = all.filter(|(_, value, tensor)| listed(&value.name, tensor.dtype().is_float()));
    let param = |(id, value, _): (ValueId, &crate::graph::Value, _)| {
        let (role, reason) = match overrides.get(&id) {
            Some((role, request)) => (*role, Cow::Owned(request.clone())),
            None => roles.of(id),
        };
        Param { value: id, name: value.name.clone(), role, reason }
    };
    all.map(param).collect()
}
