//! Compiles kernels for a device, and keeps what was compiled.

use super::gpu::{Element, Source};
use super::kernels::text;
use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};
use std::ffi::CString;
use std::path::PathBuf;

/// Compiles for one kind of device.
pub(super) struct Compiler {
    /// Compute capability: major and minor.
    capability: (i32, i32),
    /// Where machine code is kept from one process to the next; nowhere where there is no such folder.
    cache: Option<PathBuf>,
}

impl Compiler {
    /// Returns one for devices of a compute capability.
    pub(super) fn new(capability: (i32, i32), cache: Option<PathBuf>) -> Compiler {
        Compiler { capability, cache }
    }

    /// Returns the machine code of a source for an element type.
    ///
    /// # Errors
    /// NVRTC is not there, or refuses the source.
    pub(super) fn machine_code(&self, source: &Source, element: Element) -> Result<Vec<u8>, String> {
        let text = text(source, element);
        let version = version()?;
        let (major, minor) = self.capability;
        let key = Sha256::digest(format!("{version:?} {major}.{minor}\n{text}"));
        let key: String = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let kept = self.cache.as_ref().map(|folder| folder.join(format!("{}-{key}.cubin", source.name)));
        if let Some(code) = kept.as_ref().and_then(|path| std::fs::read(path).ok()).filter(|code| !code.is_empty()) {
            return Ok(code);
        }
        let code = compile(source.name, &text, &format!("--gpu-architecture=sm_{major}{minor}"))
            .map_err(|reason| format!("{}.cu for {}: {reason}", source.name, element.symbol()))?;
        if let Some(path) = kept {
            // Without it the next process compiles again.
            let _ = keep(&path, &code);
        }
        Ok(code)
    }
}

fn keep(path: &std::path::Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, code)?;
    file.persist(path)?;
    Ok(())
}

/// Returns NVRTC's version, major and minor.
fn version() -> Result<(i32, i32), String> {
    // SAFETY: this only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        return Err("NVRTC, NVIDIA's compiler of kernels (libnvrtc), cannot be loaded".into());
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to integers that live.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().map_err(|error| error.to_string())?;
    Ok((major, minor))
}

fn compile(name: &str, text: &str, architecture: &str) -> Result<Vec<u8>, String> {
    let c_string = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let (source, file) = (c_string(text)?, c_string(&format!("{name}.cu"))?);
    let program = result::create_program(&source, Some(&file)).map_err(|error| error.to_string())?;
    // SAFETY: the program was just made and is destroyed once, at the end; the buffers have the sizes that NVRTC told.
    unsafe {
        let compiled = result::compile_program(program, &[architecture, "--std=c++17"]);
        let code = match compiled {
            Ok(()) => {
                let mut size = 0;
                sys::nvrtcGetCUBINSize(program, &mut size).result().and_then(|()| {
                    let mut code = vec![0_u8; size];
                    sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result().map(|()| code)
                })
            }
            Err(error) => Err(error),
        };
        let log = result::get_program_log(program).unwrap_or_default();
        let _ = result::destroy_program(program);
        code.map_err(|error| {
            let log: Vec<u8> = log.iter().map(|byte| byte.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
            format!("{error}: {}", String::from_utf8_lossy(&log))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::SOURCES;
    use super::*;

    #[test]
    fn every_kernel_compiles_for_every_architecture() {
        if let Err(reason) = version() {
            eprintln!("skipped: {reason}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for capability in [(8, 0), (9, 0), (10, 0)] {
            let compiler = Compiler::new(capability, Some(folder.path().to_path_buf()));
            for source in SOURCES {
                for element in Element::ALL {
                    let code = compiler.machine_code(source, element).unwrap();
                    assert!(code.starts_with(b"\x7fELF"), "{}", source.name);
                    assert_eq!(compiler.machine_code(source, element), Ok(code));
                }
            }
        }
        let wrong = compile("wrong", "nothing", "--gpu-architecture=sm_90").unwrap_err();
        assert!(wrong.contains("wrong.cu"), "{wrong}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 3 * 3 * SOURCES.len());
    }
}
