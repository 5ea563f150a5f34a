//! A checkpoint file as data.

use super::{ArtifactsError, schema};
use crate::graph::{DType, Tensor, TensorError};
use crate::onnx::map;
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Version of the format.
pub(super) const VERSION: i32 = 2;

/// What a checkpoint holds. The elements stay mapped.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Parameters with a gradient, in file order.
    pub trains: Vec<(String, Tensor)>,
    /// Parameters without one, among them running statistics, in file order.
    pub frozen: Vec<(String, Tensor)>,
    /// Optimizer state, one entry per parameter group.
    pub optimizer: Vec<OptimizerGroup>,
    /// The property bag.
    pub properties: Vec<(String, Property)>,
}

/// The state of an optimizer's parameter group.
#[derive(Clone, Debug)]
pub struct OptimizerGroup {
    /// Name of the group.
    pub name: String,
    /// Completed steps.
    pub step: i64,
    /// Learning rate that schedules start from.
    pub initial_lr: f32,
    /// Moments by parameter name, each with its own name.
    pub moments: BTreeMap<String, Vec<(String, Tensor)>>,
}

/// A value of the property bag.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Property {
    Int(i64),
    Float(f32),
    Text(String),
}

impl Checkpoint {
    /// Returns a parameter's value, of those that train and those that do not.
    pub fn parameter(&self, name: &str) -> Option<&Tensor> {
        self.trains.iter().chain(&self.frozen).find(|(known, _)| known == name).map(|(_, tensor)| tensor)
    }
}

/// Reads a checkpoint file.
///
/// # Errors
/// It cannot be read, is damaged, is of another version, or holds no values.
pub fn read(path: &Path) -> Result<Checkpoint, ArtifactsError> {
    let fail = |reason: String| ArtifactsError::Checkpoint { path: path.to_path_buf(), reason };
    if path.is_dir() {
        return Err(fail(
            "it is a folder, as ONNX Runtime wrote before version 1.15; save it with 1.15 or later".into(),
        ));
    }
    let bytes = map_file(path)?;
    let root = schema::root(&bytes).map_err(fail)?;
    let version = root.version().unwrap_or(0);
    if version != VERSION {
        return Err(fail(format!("its format is version {version}, expected {VERSION}")));
    }
    let state = root.module_state().ok_or_else(|| fail("it holds no parameters".into()))?;
    if state.is_nominal_state().unwrap_or(false) {
        return Err(fail("it is a nominal checkpoint, which names parameters without their values".into()));
    }
    let mut file =
        Reader { path, bytes: &bytes, external: None, is_external: state.has_external_data().unwrap_or(false) };
    let mut checkpoint = Checkpoint {
        trains: file.tensors(state.requires_grad_params())?,
        frozen: file.tensors(state.frozen_params())?,
        ..Checkpoint::default()
    };
    let mut names = HashSet::new();
    let all = checkpoint.trains.iter().chain(&checkpoint.frozen);
    if let Some((twice, _)) = all.into_iter().find(|(name, _)| !names.insert(name.as_str())) {
        return Err(fail(format!("parameter \"{twice}\" is in it twice")));
    }
    for group in root.optimizer_groups().iter().flatten() {
        checkpoint.optimizer.push(file.group(group)?);
    }
    checkpoint.properties = root.property_bag().map(properties).unwrap_or_default();
    Ok(checkpoint)
}

/// Maps a regular file.
fn map_file(path: &Path) -> Result<Bytes, ArtifactsError> {
    let fail = |source| ArtifactsError::Read { path: path.to_path_buf(), source };
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(ArtifactsError::Checkpoint { path: path.to_path_buf(), reason: "it is no regular file".into() });
    }
    map(path).map_err(fail)
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a Bytes,
    external: Option<Bytes>,
    is_external: bool,
}

type Tensors<'a> = flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<schema::Tensor<'a>>>;

impl Reader<'_> {
    fn fail(&self, reason: String) -> ArtifactsError {
        ArtifactsError::Checkpoint { path: self.path.to_path_buf(), reason }
    }

    fn tensors(&mut self, list: Option<Tensors<'_>>) -> Result<Vec<(String, Tensor)>, ArtifactsError> {
        list.iter().flatten().map(|tensor| self.tensor(&tensor)).collect()
    }

    fn tensor(&mut self, tensor: &schema::Tensor<'_>) -> Result<(String, Tensor), ArtifactsError> {
        let name = tensor.name().unwrap_or_default().to_string();
        if name.is_empty() {
            return Err(self.fail("a tensor has no name".into()));
        }
        let dtype = DType::from_code(tensor.data_type().unwrap_or(0));
        if dtype.size() == 0 {
            return Err(self.fail(format!("tensor \"{name}\" has the dtype {dtype}, which is not supported")));
        }
        let dims: Vec<i64> = tensor.dims().iter().flatten().collect();
        let shape = dims.iter().map(|dim| usize::try_from(*dim)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| self.fail(format!("tensor \"{name}\" has the dimensions {dims:?}")))?;
        let offset = tensor.external_data_offset().unwrap_or(-1);
        let data = match (offset, tensor.raw_data()) {
            (..0, Some(raw)) => self.bytes.slice_ref(raw.bytes()),
            (..0, None) => Bytes::new(),
            (offset, _) => self.external(&name, dtype, &shape, offset)?,
        };
        let read = Tensor::new(dtype, shape, data);
        let tensor = read.map_err(|error| self.fail(format!("tensor \"{name}\": {error}")))?;
        Ok((name, tensor))
    }

    fn external(&mut self, name: &str, dtype: DType, shape: &[usize], offset: i64) -> Result<Bytes, ArtifactsError> {
        if !self.is_external {
            return Err(self.fail(format!("tensor \"{name}\" lies in an external file, but the checkpoint has none")));
        }
        if self.external.is_none() {
            self.external = Some(open_external(self.path)?);
        }
        let bytes = self.external.as_ref().expect("invariant: opened above");
        let size = shape.iter().try_fold(dtype.size(), |size, dim| size.checked_mul(*dim));
        let size = size.ok_or_else(|| {
            self.fail(format!("tensor \"{name}\": {}", TensorError::Overflow { shape: shape.to_vec() }))
        })?;
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(size)).filter(|end| *end <= bytes.len());
        match (start, end) {
            (Some(start), Some(end)) => Ok(bytes.slice(start..end)),
            _ => Err(self.fail(format!(
                "tensor \"{name}\" has {size} bytes from {offset} on in its external file, which holds {}",
                bytes.len()
            ))),
        }
    }

    fn group(&mut self, group: schema::OptimizerGroup<'_>) -> Result<OptimizerGroup, ArtifactsError> {
        let mut moments = BTreeMap::new();
        for state in group.optimizer_states().iter().flatten() {
            let tensors = self.tensors(state.momentums())?;
            moments.insert(state.param_name().unwrap_or_default().to_string(), tensors);
        }
        Ok(OptimizerGroup {
            name: group.group_name().unwrap_or_default().to_string(),
            step: group.step().unwrap_or(0),
            initial_lr: group.initial_learning_rate().unwrap_or(0.0),
            moments,
        })
    }
}

/// Maps `<checkpoint>.data`, which must lie in the checkpoint's own folder.
fn open_external(checkpoint: &Path) -> Result<Bytes, ArtifactsError> {
    let mut path = checkpoint.as_os_str().to_os_string();
    path.push(".data");
    let path = PathBuf::from(path);
    let real = |path: &Path| {
        let found = path.canonicalize();
        found.map_err(|source| ArtifactsError::Read { path: path.to_path_buf(), source })
    };
    if real(&path)?.parent() != real(checkpoint)?.parent() {
        return Err(ArtifactsError::Checkpoint { path, reason: "it leads out of the checkpoint's folder".into() });
    }
    map_file(&path)
}

fn properties(bag: schema::PropertyBag<'_>) -> Vec<(String, Property)> {
    let ints = bag.ints();
    let ints = ints.iter().flatten().map(|p| (p.name(), Property::Int(p.value().unwrap_or(0))));
    let floats = bag.floats();
    let floats = floats.iter().flatten().map(|p| (p.name(), Property::Float(p.value().unwrap_or(0.0))));
    let texts = bag.strings();
    let texts = texts.iter().flatten().map(|p| (p.name(), Property::Text(p.value().unwrap_or_default().to_string())));
    ints.chain(floats).chain(texts).map(|(name, value)| (name.unwrap_or_default().to_string(), value)).collect()
}
