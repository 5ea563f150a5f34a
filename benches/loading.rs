//! Rows a second that a loader makes of a folder of images: `cargo bench --no-default-features --features cli --bench
//! loading -- FOLDER WORKERS [train]`. Pictures are resized to 256 and cropped to 224; with `train` a random crop is
//! resized, flipped.
//!
//! benches/loading.py measures torchvision's DataLoader the same way.

use freeze_plan::data::{BatchOptions, Batches, DataOptions, Dataset, Feed, LastBatch, Loader, Loading, Sampler};
use freeze_plan::graph::{DType, Tensor};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [folder, workers, more @ ..] = args.as_slice() else {
        return Err("expected FOLDER WORKERS [train]".into());
    };
    let options: DataOptions = match more {
        [] => serde_json::from_str(r#"{"image": {"resize": 256, "crop": 224, "normalise": "imagenet"}}"#)?,
        _ => serde_json::from_str(
            r#"{"image": {"crop": 224, "normalise": "imagenet"},
                "augment": {"random_resized_crop": {}, "horizontal_flip": 0.5}}"#,
        )?,
    };
    let data = Dataset::open(folder.as_ref(), &options, None)?;
    let feed = |name: &str, dtype| -> Result<Feed, Box<dyn std::error::Error>> {
        let position = data.position(name)?;
        Ok(Feed { source: data.source().clone(), column: position, ..Feed::of(name, Tensor::ints(&[0]), dtype) })
    };
    let feeds = vec![feed("images", DType::F32)?, feed("labels", DType::I64)?];
    let order = BatchOptions { size: 32, seed: 0, sampler: Sampler::Shuffle, last_batch: LastBatch::Drop };
    let batches = Batches::new(feeds, order)?;
    let workers: usize = workers.parse()?;
    let loader = Loader::new(&batches, Loading { workers, prefetch: 2 * workers });
    let epoch = |epoch: u64| -> Result<(), Box<dyn std::error::Error>> {
        (0..batches.len()).try_for_each(|index| loader.take(epoch, index).0.map(drop).map_err(Into::into))
    };
    epoch(1)?;
    let clock = Instant::now();
    epoch(2)?;
    println!("{:.1} rows/s with {workers} workers", batches.rows() as f64 / clock.elapsed().as_secs_f64());
    Ok(())
}
