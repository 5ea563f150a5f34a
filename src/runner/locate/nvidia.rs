//! Sees that a device of NVIDIA can be used before an ONNX Runtime is chosen for it, and that its libraries are there.

use super::fetch::FetchError;
use super::{LocateError, LocateOptions, pinned};
use crate::runner::cuda::{self, CudaError};
use crate::runner::surroundings::Surroundings;
use std::path::Path;

/// Checks the driver and the device for the CUDA of `provider`; of the ONNX Runtime that is fetched, when there is none yet.
pub(super) fn device(index: u32, provider: Option<&Path>, surroundings: &Surroundings) -> Result<(), LocateError> {
    let cuda = provider.map_or(Ok(super::wheels::CUDA), cuda::cuda_of)?;
    cuda::usable((surroundings.driver)()?, index, cuda)?;
    Ok(())
}

/// Loads NVIDIA's libraries for a provider; those that are nowhere are fetched.
pub(super) fn libraries(
    provider: &Path,
    options: &LocateOptions,
    surroundings: &Surroundings,
    say: &mut dyn FnMut(&str),
) -> Result<(), LocateError> {
    let mut missing = cuda::load(provider, surroundings)?.missing;
    let packages: Vec<String> = missing.iter().filter_map(package).collect();
    let releases = pinned::nvidia(&packages);
    if !releases.is_empty() && !options.offline {
        let fetched = pinned::fetch_nvidia(&releases, surroundings, say);
        fetched.map_err(|reason| missing_and(&missing, reason))?;
        missing = cuda::load(provider, surroundings)?.missing;
    }
    missing.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}

fn package(error: &CudaError) -> Option<String> {
    match error {
        CudaError::MissingLibrary { package, .. } => package.clone(),
        _ => None,
    }
}

fn missing_and(missing: &[CudaError], reason: FetchError) -> LocateError {
    let names = missing.iter().filter_map(|error| match error {
        CudaError::MissingLibrary { name, .. } => Some(name.clone()),
        _ => None,
    });
    LocateError::FetchNvidia { missing: names.collect(), reason }
}
