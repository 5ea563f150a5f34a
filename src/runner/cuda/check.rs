//! Whether a provider can run on a device.

use super::driver::{Accelerator, Driver};
use super::library::{Library, Loading};
use super::{CudaError, names, places::places, requires::requires};
use crate::runner::surroundings::Surroundings;
use std::path::{Path, PathBuf};

/// What a run on a device uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The driver, with all devices.
    pub driver: Driver,
    /// The device.
    pub device: Accelerator,
    /// NVIDIA's libraries, all loaded.
    pub libraries: Libraries,
}

/// NVIDIA's libraries for a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libraries {
    /// The CUDA that the provider is built for.
    pub cuda: u32,
    /// Those that were found; they are loaded.
    pub loaded: Vec<Library>,
}

/// Checks that device `index` can be used with the CUDA provider in the file `provider`, and loads what the provider
/// needs, so that ONNX Runtime and our operators find it.
///
/// # Errors
/// Something is missing or too old; the error names it.
pub fn check(index: u32, provider: &Path) -> Result<Ready, CudaError> {
    check_in(index, provider, &Surroundings::of_process())
}

/// Returns NVIDIA's libraries that there are for a provider, and why others are not.
///
/// # Errors
/// The provider is none.
pub fn libraries(provider: &Path) -> Result<(Libraries, Vec<CudaError>), CudaError> {
    load(provider, &Surroundings::of_process()).map(|Found { found, missing }| (found, missing))
}

fn check_in(index: u32, provider: &Path, surroundings: &Surroundings) -> Result<Ready, CudaError> {
    let cuda = cuda_of(provider)?;
    let (driver, device) = usable((surroundings.driver)()?, index, cuda)?;
    let libraries = load(provider, surroundings)?;
    match libraries.missing.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Ready { driver, device, libraries: libraries.found }),
    }
}

/// Libraries for a provider, and why others were not found.
pub(in crate::runner) struct Found {
    pub found: Libraries,
    pub missing: Vec<CudaError>,
}

/// Returns the CUDA that a provider is built for.
pub(in crate::runner) fn cuda_of(provider: &Path) -> Result<u32, CudaError> {
    if !provider.is_file() {
        return Err(CudaError::NoProvider { provider: provider.to_path_buf() });
    }
    let reason = || "it is linked with no CUDA".to_string();
    names::cuda_of(&requires(provider)?)
        .ok_or_else(|| CudaError::Unreadable { path: provider.to_path_buf(), reason: reason() })
}

/// Loads what a provider is linked with, and what is opened at run time.
pub(in crate::runner) fn load(provider: &Path, surroundings: &Surroundings) -> Result<Found, CudaError> {
    let cuda = cuda_of(provider)?;
    let folders = std::cell::OnceCell::new();
    let folders = || -> Vec<PathBuf> { folders.get_or_init(|| places(provider, surroundings)).clone() };
    let mut loading = Loading { cuda, folders: &folders, loaded: Vec::new(), within: Vec::new() };
    let mut missing = Vec::new();
    let linked = requires(provider)?.into_iter().filter(|name| names::package(name, cuda).is_some());
    let linked = linked.map(|name| (name, names::PROVIDER));
    let opened = names::opened(cuda).into_iter().map(|name| (name, "a run on CUDA"));
    for (name, needed_by) in linked.chain(opened) {
        if let Err(error) = loading.load(&name, needed_by)
            && !missing.contains(&error)
        {
            missing.push(error);
        }
    }
    let _ = loading.load(&names::transforms(cuda), names::PROVIDER);
    Ok(Found { found: Libraries { cuda, loaded: loading.loaded }, missing })
}

/// Returns the driver with the device `index`, when both serve this CUDA.
pub(in crate::runner) fn usable(driver: Driver, index: u32, cuda: u32) -> Result<(Driver, Accelerator), CudaError> {
    if driver.cuda.0 < cuda {
        return Err(CudaError::DriverTooOld { found: driver.cuda, version: driver.version, needed: cuda });
    }
    let count = driver.devices.len();
    let Some(device) = driver.devices.iter().find(|device| device.index == index).cloned() else {
        return Err(if count == 0 { CudaError::NoDevice } else { CudaError::NoSuchDevice { index, count } });
    };
    let needed = names::oldest_capability(cuda);
    if device.capability < needed {
        let found = device.capability;
        return Err(CudaError::DeviceTooOld { index, name: device.name, found, needed, cuda });
    }
    Ok((driver, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_and_device_are_judged_by_the_cuda_of_the_provider() {
        let device = |index, capability| Accelerator { index, name: "NVIDIA X".into(), capability, memory: 1 << 34 };
        let devices = vec![device(0, (9, 0)), device(1, (7, 0))];
        let driver = Driver { cuda: (13, 0), version: Some("580.95.05".into()), devices };
        let old = Driver { cuda: (12, 4), version: Some("550.54.15".into()), ..driver.clone() };
        let bare = Driver { devices: Vec::new(), ..driver.clone() };
        let nameless = Driver { version: None, ..old.clone() };
        let cases = [
            (&driver, 0, 13, Ok(0)),
            (&old, 0, 12, Ok(0)),
            (&driver, 1, 12, Ok(1)),
            (&old, 0, 13, Err("it is 550.54.15, for CUDA 12.4, CUDA 13 is needed")),
            (&nameless, 0, 13, Err("too old: it is for CUDA 12.4")),
            (&bare, 0, 13, Err("NVIDIA's driver finds no device")),
            (&driver, 2, 13, Err("there is no device cuda:2: the driver finds 2, cuda:0 to cuda:1")),
            (&driver, 1, 13, Err("cuda:1 (NVIDIA X) has compute capability 7.0, CUDA 13 needs 7.5 or newer")),
        ];
        for (driver, index, cuda, expected) in cases {
            match (usable(driver.clone(), index, cuda), expected) {
                (Ok((_, device)), Ok(expected)) => assert_eq!(device.index, expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{found:?}, expected {expected:?}"),
            }
        }
        let error = usable(old, 0, 13).unwrap_err();
        assert_eq!(error.hint(), "install NVIDIA's driver 580 or newer");
    }
}
