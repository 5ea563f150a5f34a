//! A device for tests: kernels are compiled with the system's C compiler and run on the processor, one thread of a block
//! after the other between two barriers, and convolutions are those of `freeze_plan_kernels`. Its memory is the
//! process's.

use super::gpu::{Convolution, Element, Gpu, Launch, Part, Source};
use super::kernels::text;
use crate::graph::{DType, Tensor};
use freeze_plan_kernels::Serial;
use freeze_plan_kernels::conv::Conv2d;
use libloading::Library;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::process::Command;
use std::sync::{LazyLock, Mutex};

const SCHEDULER: &str = include_str!("kernels/emulated.c");

type Start = unsafe extern "C" fn(unsafe extern "C" fn(*const c_void), *const c_void, u32, u32, u32);

/// What was compiled; kernels of one library share static memory, so one runs at a time.
static LIBRARIES: LazyLock<Mutex<HashMap<(&'static str, Element), Library>>> = LazyLock::new(Mutex::default);

/// The device.
#[derive(Default)]
pub(in crate::runner) struct Emulated {
    scratch: Mutex<Vec<u128>>,
}

fn compile(source: &Source, element: Element) -> Result<Library, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (file, library) = (folder.path().join("kernels.c"), folder.path().join("kernels.so"));
    std::fs::write(&file, format!("{}\n{SCHEDULER}", text(source, element))).map_err(|error| error.to_string())?;
    let output = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Wno-unused-function", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&file)
        .arg("-lm")
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("warning") {
        return Err(format!("{}.cu for {element:?}: {said}", source.name));
    }
    // SAFETY: the library is what was just compiled; it has no initializers.
    unsafe { Library::new(&library) }.map_err(|error| error.to_string())
}

impl Gpu for Emulated {
    fn processors(&self) -> u32 {
        1
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), String> {
        let mut libraries = LIBRARIES.lock().map_err(|error| error.to_string())?;
        let key = (launch.source.name, launch.element);
        let library = match libraries.entry(key) {
            Entry::Occupied(compiled) => compiled.into_mut(),
            Entry::Vacant(place) => place.insert(compile(launch.source, launch.element)?),
        };
        let [x, y] = launch.grid;
        // SAFETY: the functions have these signatures; the arguments are those of the kernel, by `Arguments`.
        unsafe {
            let kernel = library.get::<unsafe extern "C" fn(*const c_void)>(launch.kernel.as_bytes());
            let kernel = *kernel.map_err(|error| error.to_string())?;
            let start = library.get::<Start>(b"emulated_launch").map_err(|error| error.to_string())?;
            start(kernel, launch.arguments.as_ptr().cast(), x, y, launch.block);
        }
        Ok(())
    }

    fn zero(&self, at: u64, bytes: usize) -> Result<(), String> {
        // SAFETY: the caller's pointer is to memory of this process of so many bytes.
        unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) };
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), String> {
        // SAFETY: as above, for both.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn scratch(&self, bytes: usize) -> Result<u64, String> {
        let mut block = self.scratch.lock().map_err(|error| error.to_string())?;
        // Not zeros, so that nobody relies on what it holds; 256 bytes more, to align it.
        *block = vec![u128::MAX; bytes.div_ceil(16) + 16];
        Ok((block.as_ptr() as u64).next_multiple_of(256))
    }

    fn convolve(&self, convolution: &Convolution, first: u64, second: u64, output: u64) -> Result<(), String> {
        let Convolution { part, element, x, w, y, strides, dilations, pads, groups } = *convolution;
        let geometry = Conv2d {
            batch: x[0],
            input: [x[1], x[2]],
            in_channels: x[3],
            output: [y[1], y[2]],
            out_channels: y[3],
            kernel: [w[1], w[2]],
            strides,
            dilations,
            pads: [pads[0], pads[1], pads[0], pads[1]],
            groups,
        };
        geometry.check().map_err(|error| error.to_string())?;
        let size = |shape: [usize; 4]| shape.iter().product::<usize>();
        let mut work = Vec::new();
        match part {
            Part::Forward => {
                let (image, weights) = (read(first, size(x), element), turned(&read(second, size(w), element), w));
                let mut out = vec![0.0; size(y)];
                geometry.forward(&Serial, image.as_slice(), &weights, None, &mut out, &mut work);
                write(output, &out, element);
            }
            Part::Input => {
                let (dy, weights) = (read(first, size(y), element), turned(&read(second, size(w), element), w));
                let mut out = vec![0.0; size(x)];
                geometry.input_grad(&Serial, &dy, &weights, &mut out, &mut work);
                write(output, &out, element);
            }
            Part::Weight => {
                let (image, dy) = (read(first, size(x), element), read(second, size(y), element));
                let mut out = vec![0.0; size(w)];
                geometry.weight_grad(&Serial, image.as_slice(), &dy, &mut out, &mut work);
                // [M, C/g, kH * kW] to [M, kH * kW, C/g].
                write(output, &turned(&out, [w[0], 1, w[3], w[1] * w[2]]), element);
            }
        }
        Ok(())
    }
}

/// Returns `[M, a, b, c]` as `[M, c, a, b]`.
fn turned(values: &[f32], [m, a, b, c]: [usize; 4]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for m in 0..m {
        for c_at in 0..c {
            out.extend((0..a * b).map(|at| values[(m * a * b + at) * c + c_at]));
        }
    }
    out
}

fn read(at: u64, count: usize, element: Element) -> Vec<f32> {
    // SAFETY: the caller's pointer is to `count` elements of this type.
    let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, count * element.size()) };
    let tensor = Tensor::new(element.dtype(), vec![count], bytes.to_vec().into()).ok();
    let floats = tensor.and_then(|tensor| tensor.cast_float(DType::F32)?.to_vec().ok());
    floats.expect("invariant: as many bytes as elements")
}

fn write(at: u64, values: &[f32], element: Element) {
    let tensor = Tensor::from_vec(&[values.len()], values.to_vec()).cast_float(element.dtype());
    let tensor = tensor.expect("invariant: both types are floating-point");
    let bytes = tensor.bytes();
    // SAFETY: the caller's pointer is to as many elements of this type.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
}
