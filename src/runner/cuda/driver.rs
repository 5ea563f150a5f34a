//! What NVIDIA's driver says of itself and of the devices.

use super::{CudaError, names};
use cudarc::driver::{DriverError, result, sys};
use std::ffi::{CStr, c_char, c_uint};
use std::path::Path;

/// A device of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// Its number, as CUDA counts.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its compute capability, as (major, minor).
    pub capability: (u32, u32),
    /// Its memory, in bytes.
    pub memory: u64,
}

/// NVIDIA's driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that it serves, as (major, minor).
    pub cuda: (u32, u32),
    /// Its own version, such as 580.95.05.
    pub version: Option<String>,
    /// The devices.
    pub devices: Vec<Accelerator>,
}

impl Driver {
    /// Asks the driver.
    ///
    /// # Errors
    /// There is none, or it does not work.
    pub fn read() -> Result<Driver, CudaError> {
        present()?;
        let mut version = 0;
        // SAFETY: the library was found; it writes one number.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
        let version = u32::try_from(version).unwrap_or(0);
        let cuda = (version / 1000, version % 1000 / 10);
        let devices = match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Vec::new(),
            other => other.map_err(failed("cuInit")).and_then(|()| devices())?,
        };
        Ok(Driver { cuda, version: kernel(), devices })
    }

    /// Returns the free memory of a device in bytes; `None` where the driver does not tell. It takes the device's context,
    /// which takes some memory itself while nothing else uses it.
    pub fn free_memory(&self, index: u32) -> Option<u64> {
        let device = result::device::get(i32::try_from(index).ok()?).ok()?;
        let before = result::ctx::get_current().ok()?;
        // SAFETY: the device is one of the driver; the context is current on this thread only between here and the
        // restoration below, and is given back.
        unsafe {
            let context = result::primary_ctx::retain(device).ok()?;
            let free = result::ctx::set_current(context).and_then(|()| result::mem_get_info()).ok();
            let _ = result::ctx::set_current(before.unwrap_or(std::ptr::null_mut()));
            let _ = result::primary_ctx::release(device);
            u64::try_from(free?.0).ok()
        }
    }
}

/// Returns an error when there is no driver; the functions of `cudarc` panic then.
fn present() -> Result<(), CudaError> {
    // SAFETY: the driver's library has no demands on who loads it, and it stays loaded.
    match unsafe { libloading::Library::new(names::DRIVER) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => {
            let reason = super::library::reason(&error);
            let named = format!("{}: ", names::DRIVER);
            Err(CudaError::NoDriver { reason: reason.strip_prefix(&named).unwrap_or(&reason).to_string() })
        }
    }
}

fn failed(call: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| {
        let text = |text: Result<&CStr, DriverError>| {
            text.map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
        };
        let reason = format!("{} ({})", text(error.error_string()), text(error.error_name()));
        CudaError::Driver { call, reason }
    }
}

fn devices() -> Result<Vec<Accelerator>, CudaError> {
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    (0..count).map(accelerator).collect()
}

fn accelerator(index: i32) -> Result<Accelerator, CudaError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = result::device::get(index).map_err(failed("cuDeviceGet"))?;
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
    let attribute = |attribute| {
        // SAFETY: the device is one of the driver.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map(|value| u32::try_from(value).unwrap_or(0)).map_err(failed("cuDeviceGetAttribute"))
    };
    // SAFETY: the device is one of the driver.
    let memory = unsafe { result::device::total_mem(device) }.map_err(failed("cuDeviceTotalMem"))?;
    Ok(Accelerator {
        index: u32::try_from(index).unwrap_or(0),
        name,
        capability: (attribute(MAJOR)?, attribute(MINOR)?),
        memory: u64::try_from(memory).unwrap_or(u64::MAX),
    })
}

/// Returns the version of the driver in the kernel.
fn kernel() -> Option<String> {
    let file = std::fs::read_to_string(Path::new("/proc/driver/nvidia/version")).ok();
    file.as_deref().and_then(version_in).or_else(management)
}

/// Finds the version in what the kernel's driver writes: the first dotted number of the first line.
fn version_in(text: &str) -> Option<String> {
    let dotted = |word: &&str| {
        word.contains('.')
            && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.lines().next()?.split_whitespace().find(dotted).map(str::to_string)
}

/// Asks NVIDIA's management library for the version of the driver.
fn management() -> Option<String> {
    let name = if cfg!(windows) { "nvml.dll" } else { "libnvidia-ml.so.1" };
    let mut text = [0_u8; 96];
    // SAFETY: the three functions have these types in every version of the library; it writes at most the given number of
    // bytes, and is shut down before it is unloaded.
    let status = unsafe {
        let library = libloading::Library::new(name).ok()?;
        let init = library.get::<unsafe extern "C" fn() -> i32>(b"nvmlInit_v2").ok()?;
        let version =
            library.get::<unsafe extern "C" fn(*mut c_char, c_uint) -> i32>(b"nvmlSystemGetDriverVersion").ok()?;
        let shutdown = library.get::<unsafe extern "C" fn() -> i32>(b"nvmlShutdown").ok()?;
        if init() != 0 {
            return None;
        }
        let status = version(text.as_mut_ptr().cast(), 96);
        shutdown();
        status
    };
    let text = CStr::from_bytes_until_nul(&text).ok()?.to_str().ok()?;
    (status == 0 && !text.is_empty()).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_writes_the_version_in_one_of_two_ways() {
        let cases = [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC 13.2.0",
                "550.54.15",
            ),
            ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (a@b)", "580.95.05"),
        ];
        for (text, expected) in cases {
            assert_eq!(version_in(text).as_deref(), Some(expected));
        }
        assert_eq!(version_in(""), None);
        assert_eq!(version_in("NVRM version: v1."), None);
    }

    #[test]
    fn no_driver_is_an_error_and_no_panic() {
        match Driver::read() {
            Ok(driver) => assert!(driver.cuda.0 > 0),
            Err(error) => assert!(!error.hint().is_empty(), "{error}"),
        }
    }
}
