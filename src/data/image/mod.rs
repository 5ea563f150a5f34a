//! Pictures as rows of a column: decoded, resized, cropped, changed at random while training, normalised.
//!
//! The order, which is torchvision's: a random resized crop, or `resize`, then a random or the middle crop; flips;
//! numbers in [0, 1]; brightness, contrast and saturation in a random order; `mean` and `std`; erasing. What is random
//! is in [`augment`](super::augment). Sizes are `[height, width]`.
//!
//! What this module does not do: find files (`formats`), or mix the rows of a batch (`augment`).

mod decode;
mod options;
mod picture;
mod pictured;
mod resize;
#[cfg(test)]
pub(super) mod testing;
mod transform;

pub(super) use decode::{decode, size_of};
pub use options::{Extent, ImageOptions, Interpolation, Layout, PixelType};
pub(super) use picture::{Area, Picture, Pixels};
pub(super) use pictured::{Pictured, image_column, tensor_of};
pub(super) use resize::resized;
pub(super) use transform::Transform;
