//! Models whose inputs are sequences of tensors, for which a [`Fact`](crate::graph::Fact) has no word.

use super::export::model_proto;
use super::{proto, tensor};
use crate::graph::Model;
use prost::Message;

/// Returns the ONNX file of a model whose named inputs are sequences of tensors of the dtype that they have in the graph.
pub fn to_bytes_with_sequences(model: &Model, sequences: &[&str]) -> Vec<u8> {
    let mut proto = model_proto(model, &mut tensor::export);
    let declared = proto.graph.iter_mut().flat_map(|graph| graph.input.iter_mut().chain(&mut graph.value_info));
    for value in declared.filter(|value| value.name.as_deref().is_some_and(|name| sequences.contains(&name))) {
        let elements = value.r#type.take().map(Box::new);
        let sequence =
            proto::r#type::Value::SequenceType(Box::new(proto::r#type::SequenceType { elem_type: elements }));
        value.r#type = Some(proto::Type { value: Some(sequence), denotation: None });
    }
    proto.encode_to_vec()
}
