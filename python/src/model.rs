//! A model, from a file, a folder of training artifacts, or bytes.

use crate::failure::Failure;
use freeze_plan::Planning;
use freeze_plan::planner::Loaded;
use std::path::PathBuf;

/// Where a model comes from: a path, or bytes that are called by it.
pub struct Source {
    /// The path; with bytes it is for messages, and its folder holds external files.
    pub path: PathBuf,
    /// The bytes of the file, where the caller has them.
    pub data: Option<Vec<u8>>,
}

impl Source {
    /// Returns a plan to be made of the model.
    pub fn planning(self) -> Planning {
        match self.data {
            Some(data) => Planning::of_bytes(self.path, data),
            None => Planning::of(self.path),
        }
    }

    /// Reads and analyses the model. No weight is read.
    pub fn load(self) -> Result<Loaded, Failure> {
        Ok(match self.data {
            Some(data) => Loaded::parse(self.path, data)?,
            None => Loaded::read(self.path)?,
        })
    }
}
