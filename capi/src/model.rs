//! A model: its modules and its tensors.

use crate::names::Names;
use crate::out::{Grows, at, give, owned, path as path_of, some};
use crate::status::{Failure, fp_status, guard};
use bytes::Bytes;
use freeze_plan::modules::{Module, ModuleId, Param, Role};
use freeze_plan::planner::Loaded;
use std::collections::HashMap;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::path::Path;

/// No module.
///
/// cbindgen:ignore
pub const FP_NONE: usize = usize::MAX;

/// A model that was read and analysed. Threads may share it; it must not be freed while one uses it.
pub struct fp_model {
    pub(crate) loaded: Loaded,
    modules: Vec<ModuleId>,
    positions: HashMap<ModuleId, usize>,
    tensors: Vec<Param>,
    names: Names,
}

/// A module of a model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fp_module {
    /// Path from the root, such as "layer1.0.conv1"; that of the root is "".
    pub path: *const c_char,
    /// Class, or the operator that reads its first parameter; "" where there is none.
    pub class_name: *const c_char,
    /// Index of the module that holds it; FP_NONE for the root.
    pub parent: usize,
    /// Parameters that it holds itself.
    pub parameters: usize,
}

impl Grows for fp_module {}

/// What a tensor is to training.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fp_role {
    /// A parameter, which gradients update.
    FP_PARAMETER = 0,
    /// A running statistic, which forward passes update.
    FP_STATISTIC = 1,
    /// A buffer, which nothing updates.
    FP_BUFFER = 2,
}

/// A tensor that the file holds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fp_tensor {
    /// Name of the initializer.
    pub name: *const c_char,
    /// What it is to training.
    pub role: fp_role,
    /// Elements.
    pub elements: u64,
    /// Bytes of its values.
    pub bytes: u64,
    /// Index of the module that holds it; FP_NONE where none does.
    pub module: usize,
}

impl Grows for fp_tensor {}

impl fp_model {
    fn of(loaded: Loaded) -> Result<fp_model, Failure> {
        let analysis = &loaded.analysis;
        let modules: Vec<ModuleId> = analysis.tree.iter().map(|(id, _)| id).collect();
        let positions = modules.iter().enumerate().map(|(position, id)| (*id, position)).collect();
        let tensors: Vec<Param> = analysis.parameters.iter().filter(|tensor| tensor.is_named()).cloned().collect();
        let mut names = Names::default();
        for (_, module) in analysis.tree.iter() {
            names.extend([&module.path, &module.class].into_iter().chain(&module.parameters))?;
        }
        names.extend(tensors.iter().map(|tensor| &tensor.name))?;
        Ok(fp_model { loaded, modules, positions, tensors, names })
    }

    pub(crate) fn read(path: &Path) -> Result<fp_model, Failure> {
        fp_model::of(Loaded::read(path)?)
    }

    fn module(&self, index: usize) -> Result<&Module, Failure> {
        Ok(self.loaded.analysis.tree.module(*at(&self.modules, index, "module")?))
    }

    fn position(&self, id: Option<ModuleId>) -> usize {
        id.and_then(|id| self.positions.get(&id).copied()).unwrap_or(FP_NONE)
    }
}

/// Reads a model. The path is that of an ONNX file, or of ONNX Runtime's training artifacts: their folder or
/// one of their files. Weights are mapped: the files must not change while the model or a plan that was made
/// of it lives. fp_model_free() frees the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_model_read(
    path: *const c_char,
    model: Option<&mut MaybeUninit<Box<fp_model>>>,
) -> fp_status {
    guard(|| {
        // SAFETY: the header asks for a C string or NULL.
        let path = unsafe { path_of(path, "path")? };
        some(model, "model")?.write(Box::new(fp_model::read(&path)?));
        Ok(())
    })
}

/// Reads a model from the bytes of an ONNX file, which are copied. The path stands in messages and in plans,
/// and data outside of the file are looked for in its folder; NULL stands for "model.onnx". fp_model_free()
/// frees the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_model_from_bytes(
    bytes: *const u8,
    length: usize,
    path: *const c_char,
    model: Option<&mut MaybeUninit<Box<fp_model>>>,
) -> fp_status {
    guard(|| {
        let path = match path.is_null() {
            true => "model.onnx".into(),
            // SAFETY: the header asks for a C string or NULL.
            false => unsafe { path_of(path, "path")? },
        };
        let model = some(model, "model")?;
        let bytes = match (bytes.is_null(), length) {
            (_, 0) => Bytes::new(),
            (true, _) => return Err(Failure::usage("bytes is NULL")),
            // SAFETY: the header asks for `length` bytes that may be read.
            (false, _) => Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(bytes, length) }),
        };
        model.write(Box::new(fp_model::of(Loaded::parse(&path, bytes)?)?));
        Ok(())
    })
}

/// Counts the modules. They stand in registration order, each before those that it holds; index 0 is the
/// root.
#[unsafe(no_mangle)]
pub extern "C" fn fp_model_modules(model: Option<&fp_model>, count: Option<&mut MaybeUninit<usize>>) -> fp_status {
    guard(|| {
        let model = some(model, "model")?;
        some(count, "count")?.write(model.modules.len());
        Ok(())
    })
}

/// Returns a module; size is sizeof *module. Its texts live as long as the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_model_module(
    model: Option<&fp_model>,
    index: usize,
    module: *mut fp_module,
    size: usize,
) -> fp_status {
    guard(|| {
        let model = some(model, "model")?;
        let found = model.module(index)?;
        let value = fp_module {
            path: model.names.text(&found.path),
            class_name: model.names.text(&found.class),
            parent: model.position(found.parent),
            parameters: found.parameters.len(),
        };
        // SAFETY: the header asks for room of that size or NULL.
        unsafe { give(module, size, "module", value) }
    })
}

/// Returns the name of a parameter that a module holds itself. It lives as long as the model.
#[unsafe(no_mangle)]
pub extern "C" fn fp_model_module_parameter(
    model: Option<&fp_model>,
    module: usize,
    index: usize,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    guard(|| {
        let model = some(model, "model")?;
        let found = at(&model.module(module)?.parameters, index, "parameter")?;
        some(name, "name")?.write(model.names.text(found));
        Ok(())
    })
}

/// Counts the parameters, running statistics and buffers, which stand in file order. Constants without a name
/// of their author's are left out.
#[unsafe(no_mangle)]
pub extern "C" fn fp_model_tensors(model: Option<&fp_model>, count: Option<&mut MaybeUninit<usize>>) -> fp_status {
    guard(|| {
        let model = some(model, "model")?;
        some(count, "count")?.write(model.tensors.len());
        Ok(())
    })
}

/// Returns a tensor; size is sizeof *tensor. Its name lives as long as the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_model_tensor(
    model: Option<&fp_model>,
    index: usize,
    tensor: *mut fp_tensor,
    size: usize,
) -> fp_status {
    guard(|| {
        let model = some(model, "model")?;
        let found = at(&model.tensors, index, "tensor")?;
        let held = model.loaded.analysis.model.graph.value(found.value).initializer.as_ref();
        let value = fp_tensor {
            name: model.names.text(&found.name),
            role: match found.role {
                Role::Trainable => fp_role::FP_PARAMETER,
                Role::Statistic => fp_role::FP_STATISTIC,
                Role::Buffer => fp_role::FP_BUFFER,
            },
            elements: held.map_or(0, |held| held.len() as u64),
            bytes: held.map_or(0, |held| held.bytes().len() as u64),
            module: model.position(model.loaded.analysis.tree.owner(&found.name)),
        };
        // SAFETY: the header asks for room of that size or NULL.
        unsafe { give(tensor, size, "tensor", value) }
    })
}

/// Returns the modules with their parameters as a text for a person. fp_string_free() frees it.
#[unsafe(no_mangle)]
pub extern "C" fn fp_model_tree(model: Option<&fp_model>, text: Option<&mut MaybeUninit<*mut c_char>>) -> fp_status {
    guard(|| {
        let analysis = &some(model, "model")?.loaded.analysis;
        some(text, "text")?.write(owned(analysis.tree.text(&analysis.model))?);
        Ok(())
    })
}

/// Frees a model. Plans that were made of it stay. NULL is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn fp_model_free(model: Option<Box<fp_model>>) {
    guard(|| {
        drop(model);
        Ok(())
    });
}
