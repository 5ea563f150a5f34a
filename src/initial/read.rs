//! Weights of a file.

use super::{InitialError, few, selected, set, tensor};
use crate::checkpoint;
use crate::data::read_tensors;
use crate::graph::Tensor;
use crate::onnx;
use crate::training::Prepared;
use std::collections::BTreeMap;
use std::path::Path;

/// What was taken of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Tensors that the model has from now on.
    pub taken: usize,
    /// Tensors of the model that the file does not have.
    pub missing: Vec<String>,
    /// Tensors of the file that have another shape or are no numbers, each with both.
    pub unfit: Vec<String>,
}

impl Taken {
    /// Returns what was not taken, in one line; `None` where all was.
    pub fn rest(&self) -> Option<String> {
        let missing = (!self.missing.is_empty()).then(|| format!("not in the file: {}", few(&self.missing)));
        let unfit = (!self.unfit.is_empty()).then(|| format!("of another form: {}", few(&self.unfit)));
        let parts: Vec<String> = missing.into_iter().chain(unfit).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Replaces the parameters and running statistics that `only` speaks for (all with no pattern) by the tensors of the
/// same names in a checkpoint, the newest one of a run's folder, a `.safetensors`, an `.npz` or an `.onnx`. Numbers are
/// converted to the model's dtype. What else the file holds is passed over.
///
/// # Errors
/// The file cannot be read, has none of the tensors or, with `strict`, not all of them in the model's shapes.
pub fn read(prepared: &mut Prepared, path: &Path, only: &[String], strict: bool) -> Result<Taken, InitialError> {
    let names = selected(prepared, only)?;
    let mut file = tensors(path)?;
    let graph = &prepared.model.graph;
    let has: Vec<String> = file.keys().cloned().collect();
    let (mut values, mut found) = (Vec::new(), Taken::default());
    let of = names.len();
    for name in names {
        let held = graph.find(&name).and_then(|id| graph.value(id).initializer.as_ref());
        let (Some(held), Some(new)) = (held, file.remove(&name)) else {
            found.missing.push(name);
            continue;
        };
        let same = new.dtype() == held.dtype() && new.shape() == held.shape();
        let converted = || {
            let numbers = new.to_f64s().filter(|_| new.shape() == held.shape())?;
            tensor(held.dtype(), held.shape(), numbers)
        };
        match if same { Some(new.clone()) } else { converted() } {
            Some(tensor) => values.push((name, tensor)),
            None => {
                let form = |tensor: &Tensor| format!("{}{:?}", tensor.dtype(), tensor.shape());
                found.unfit.push(format!("\"{name}\" is {}, expected {}", form(&new), form(held)));
            }
        }
    }
    found.taken = values.len();
    let path = || path.to_path_buf();
    if strict && !found.unfit.is_empty() {
        return Err(InitialError::Unfit { path: path(), unfit: found.unfit });
    }
    if values.is_empty() && found.unfit.is_empty() {
        return Err(InitialError::Nothing { path: path(), has });
    }
    if values.is_empty() {
        return Err(InitialError::Unfit { path: path(), unfit: found.unfit });
    }
    if strict && !found.missing.is_empty() {
        return Err(InitialError::Missing { path: path(), missing: found.missing, of });
    }
    set(prepared, values);
    Ok(found)
}

/// Returns all tensors of a file.
fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, InitialError> {
    if path.is_dir() {
        let of_run = path.join("checkpoints");
        let folder = if of_run.is_dir() { of_run.as_path() } else { path };
        let store = checkpoint::Store::new(folder, 1);
        let newest = if store.list().is_empty() { None } else { store.latest()?.map(|latest| latest.checkpoint) };
        return Ok(newest.map_or_else(|| checkpoint::load(folder), Ok)?.tensors());
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("onnx") => {
            let graph = onnx::read(path)?.model.graph;
            Ok(graph.initializers().map(|(_, value, tensor)| (value.name.clone(), tensor.clone())).collect())
        }
        Some("npz" | "safetensors") => Ok(read_tensors(path, None)?.into_iter().collect()),
        _ => Err(InitialError::Format { path: path.to_path_buf() }),
    }
}
