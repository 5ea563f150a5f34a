//! What is random about pictures while training: where they are cut, flips, colours, what is erased, and which are mixed.
//!
//! Every choice is drawn for the seed of the data, the epoch and the sample, or the batch where rows are mixed, each
//! kind with random numbers of its own: a run that goes on sees what it would have seen, whatever the number of threads,
//! and one kind more does not change the others. The choices are those of torchvision's transforms of the same names.
//! In evaluation nothing is random.

mod colours;
mod crop;
mod erase;
mod mix;
mod options;

pub(super) use colours::adjust;
pub use crop::{RandomCrop, RandomResizedCrop};
pub use erase::Erasing;
pub(super) use erase::erase;
pub use mix::Mix;
pub use options::AugmentOptions;
