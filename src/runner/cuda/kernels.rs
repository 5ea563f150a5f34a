//! The sources of the kernels.

use super::gpu::{Element, Source};

/// What every source includes.
pub(super) const HEADER: &str = include_str!("kernels/device.h");

pub(super) static BATCH_NORM: Source = source("batch_norm", include_str!("kernels/batch_norm.cu"));
pub(super) static CONV: Source = source("conv", include_str!("kernels/conv.cu"));
pub(super) static POOL: Source = source("pool", include_str!("kernels/pool.cu"));
pub(super) static ELEMENTWISE: Source = source("elementwise", include_str!("kernels/elementwise.cu"));
pub(super) static CROSS_ENTROPY: Source = source("cross_entropy", include_str!("kernels/cross_entropy.cu"));
pub(super) static DROPOUT: Source = source("dropout", include_str!("kernels/dropout.cu"));
pub(super) static EMBEDDING: Source = source("embedding", include_str!("kernels/embedding.cu"));
pub(super) static GELU: Source = source("gelu", include_str!("kernels/gelu.cu"));
pub(super) static LAYER_NORM: Source = source("layer_norm", include_str!("kernels/layer_norm.cu"));
pub(super) static OPTIMIZER: Source = source("optimizer", include_str!("kernels/optimizer.cu"));
pub(super) static SOFTMAX: Source = source("softmax", include_str!("kernels/softmax.cu"));

/// Every source.
#[cfg(test)]
pub(super) static SOURCES: &[&Source] = &[
    &BATCH_NORM,
    &CONV,
    &CROSS_ENTROPY,
    &DROPOUT,
    &ELEMENTWISE,
    &EMBEDDING,
    &GELU,
    &LAYER_NORM,
    &OPTIMIZER,
    &POOL,
    &SOFTMAX,
];

const fn source(name: &'static str, text: &'static str) -> Source {
    Source { name, text }
}

/// Returns the whole text of a source for an element type.
pub(super) fn text(source: &Source, element: Element) -> String {
    let body = source.text.replacen("#include \"device.h\"\n", HEADER, 1);
    format!("#define {}\n{body}", element.symbol())
}
