//! Loads NVIDIA's libraries, so that whoever asks for one of them by name gets it.
//!
//! A library that is loaded answers to its name in every later search of the loader, wherever its file lies. So ONNX
//! Runtime's provider, cuDNN and the crate `cudarc` find what was loaded here without `LD_LIBRARY_PATH`.

use super::{CudaError, names, requires::requires};
use std::path::{Path, PathBuf};

/// A library that is loaded, and stays loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The name under which it is looked for.
    pub name: String,
    /// The file, where the loader tells it.
    pub path: Option<PathBuf>,
}

impl Library {
    /// Returns the version that the library tells: of CUDA for its runtime, else of cuDNN.
    pub fn version(&self) -> Option<String> {
        match names::stem(&self.name)? {
            "cudart" => runtime_version(&self.name),
            "cudnn" => cudnn_version(&self.name),
            _ => None,
        }
    }
}

fn runtime_version(name: &str) -> Option<String> {
    let mut version = 0_i32;
    // SAFETY: the function has this type in every version of the runtime, writes one number and needs no driver.
    let status = unsafe {
        let library = libloading::Library::new(name).ok()?;
        library.get::<unsafe extern "C" fn(*mut i32) -> i32>(b"cudaRuntimeGetVersion").ok()?(&raw mut version)
    };
    (status == 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
}

fn cudnn_version(name: &str) -> Option<String> {
    // SAFETY: the function has this type in every version of cuDNN and only returns a number.
    let version = unsafe {
        let library = libloading::Library::new(name).ok()?;
        library.get::<unsafe extern "C" fn() -> usize>(b"cudnnGetVersion").ok()?()
    };
    Some(format!("{}.{}.{}", version / 10_000, version % 10_000 / 100, version % 100))
}

/// Returns the CUDA that cuDNN is built with; `None` where it does not tell.
fn cuda_of_cudnn(name: &str) -> Option<u32> {
    // SAFETY: as above.
    let version = unsafe {
        let library = libloading::Library::new(name).ok()?;
        library.get::<unsafe extern "C" fn() -> usize>(b"cudnnGetCudartVersion").ok()?()
    };
    u32::try_from(version / 1000).ok().filter(|cuda| *cuda > 0)
}

/// Returns true for the folder of a Python package of cuDNN for another CUDA: the packages for CUDA 12 and 13 put files of
/// the same names into the same folder, and only what is written beside tells which was installed.
fn is_for_another(folder: &Path, name: &str, cuda: u32) -> bool {
    if names::stem(name) != Some("cudnn") {
        return false;
    }
    let Some(entries) = folder.ancestors().nth(3).and_then(|packages| packages.read_dir().ok()) else { return false };
    let entries = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    let installed: Vec<String> = entries
        .filter(|entry| entry.ends_with(".dist-info"))
        .filter_map(|entry| Some(entry.strip_prefix("nvidia_cudnn_cu")?.split_once('-')?.0.to_string()))
        .collect();
    !installed.is_empty() && !installed.contains(&cuda.to_string())
}

/// Loads libraries by name, each once, with what they are linked with before them.
pub(super) struct Loading<'a> {
    /// The CUDA they are for.
    pub cuda: u32,
    /// The folders that are searched when the system's loader does not know a name.
    pub folders: &'a dyn Fn() -> Vec<PathBuf>,
    /// What was loaded, in that order.
    pub loaded: Vec<Library>,
    /// What is being loaded, from the outermost.
    pub within: Vec<String>,
}

impl Loading<'_> {
    /// Loads the library `name`, which `needed_by` needs.
    ///
    /// # Errors
    /// It is nowhere, or does not load, or one that it needs.
    pub fn load(&mut self, name: &str, needed_by: &str) -> Result<(), CudaError> {
        let known = |loaded: &[Library]| loaded.iter().any(|library| library.name == name);
        if known(&self.loaded) || self.within.iter().any(|outer| outer == name) {
            return Ok(());
        }
        if let Ok(path) = open(Path::new(name)) {
            return self.loaded(name, path);
        }
        let cuda = self.cuda;
        let package = names::package(name, cuda);
        let folders = if package.is_some() { (self.folders)() } else { Vec::new() };
        let mut broken = None;
        let fitting = folders.iter().filter(|folder| !is_for_another(folder, name, cuda));
        for file in fitting.map(|folder| folder.join(name)).filter(|file| file.is_file()) {
            self.within.push(name.into());
            let outcome = self.load_file(name, &file);
            self.within.pop();
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        let needed_by = needed_by.to_string();
        let missing = CudaError::MissingLibrary { name: name.into(), needed_by, package, looked: folders };
        Err(broken.unwrap_or(missing))
    }

    fn load_file(&mut self, name: &str, file: &Path) -> Result<(), CudaError> {
        let cuda = self.cuda;
        for other in requires(file)?.iter().filter(|other| names::package(other, cuda).is_some()) {
            self.load(other, name)?;
        }
        self.whole(name, file)?;
        let path = open(file).map_err(|reason| self.broken(name, file, reason))?;
        self.loaded(name, path.or(Some(file.to_path_buf())))
    }

    /// Takes note of a loaded library, unless it is cuDNN for another CUDA, whose name is the same.
    fn loaded(&mut self, name: &str, path: Option<PathBuf>) -> Result<(), CudaError> {
        if names::stem(name) == Some("cudnn")
            && let Some(found) = cuda_of_cudnn(name).filter(|found| *found != self.cuda)
        {
            let reason = format!("it is for CUDA {found}, CUDA {} is needed", self.cuda);
            return Err(self.broken(name, path.as_deref().unwrap_or(Path::new(name)), reason));
        }
        self.loaded.push(Library { name: name.into(), path });
        Ok(())
    }

    fn broken(&self, name: &str, file: &Path, reason: String) -> CudaError {
        CudaError::BrokenLibrary {
            name: name.into(),
            path: file.to_path_buf(),
            package: names::package(name, self.cuda),
            reason,
        }
    }

    /// Checks that the parts of cuDNN, which it opens at its first use, lie beside it.
    fn whole(&self, name: &str, file: &Path) -> Result<(), CudaError> {
        if names::stem(name) != Some("cudnn") {
            return Ok(());
        }
        let mut parts = names::CUDNN_PARTS.iter().map(|part| name.replacen("cudnn", &format!("cudnn_{part}"), 1));
        match parts.find(|part| !file.with_file_name(part).is_file()) {
            None => Ok(()),
            Some(part) => Err(CudaError::MissingLibrary {
                package: names::package(&part, self.cuda),
                name: part,
                needed_by: name.into(),
                looked: file.parent().map(Path::to_path_buf).into_iter().collect(),
            }),
        }
    }
}

/// Loads a library for good, its symbols visible to all, and returns its file, or why it does not load.
fn open(name: &Path) -> Result<Option<PathBuf>, String> {
    #[cfg(unix)]
    {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: NVIDIA's libraries have no demands on who loads them, and none is unloaded again.
        let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
        Ok(file_of(library.map_err(|error| reason(&error))?.into_raw()))
    }
    #[cfg(windows)]
    {
        use libloading::os::windows::{LOAD_WITH_ALTERED_SEARCH_PATH, Library};
        let flags = if name.is_absolute() { LOAD_WITH_ALTERED_SEARCH_PATH } else { 0 };
        // SAFETY: as above.
        let library = unsafe { Library::load_with_flags(name, flags) };
        let _ = library.map_err(|error| reason(&error))?.into_raw();
        Ok(None)
    }
}

/// Returns the file of a loaded library.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn file_of(handle: *mut std::ffi::c_void) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    #[repr(C)]
    struct LinkMap {
        address: usize,
        name: *const std::ffi::c_char,
    }
    let mut map: *const LinkMap = std::ptr::null();
    // SAFETY: the handle is one of `dlopen` that is never closed; the loader writes the address of its own record, which
    // starts with these two fields and whose name ends with a zero byte.
    let name = unsafe {
        if libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) != 0 || map.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr((*map).name)
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
    path.is_absolute().then(|| path.to_path_buf())
}

#[cfg(all(unix, not(all(target_os = "linux", target_env = "gnu"))))]
fn file_of(_: *mut std::ffi::c_void) -> Option<PathBuf> {
    None
}

/// Returns what the loader says of a failure.
pub(super) fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
