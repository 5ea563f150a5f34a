//! The calls of cuDNN's library, which is loaded at run time.

use super::super::gpu::{Convolution, Element, Part};
use super::{Calls, Found, Layout, Room};
use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys::{self, cudnnStatus_t as Status};
use std::ffi::{c_int, c_void};

/// The file, as it is named where it is missing.
const FILE: &str = if cfg!(windows) { "cudnn64_9.dll" } else { "libcudnn.so.9" };

/// Every function that is called.
const FUNCTIONS: &[&str] = &[
    "cudnnConvolutionBackwardData",
    "cudnnConvolutionBackwardFilter",
    "cudnnConvolutionForward",
    "cudnnCreate",
    "cudnnCreateConvolutionDescriptor",
    "cudnnCreateFilterDescriptor",
    "cudnnCreateTensorDescriptor",
    "cudnnDestroy",
    "cudnnDestroyConvolutionDescriptor",
    "cudnnDestroyFilterDescriptor",
    "cudnnDestroyTensorDescriptor",
    "cudnnFindConvolutionBackwardDataAlgorithmEx",
    "cudnnFindConvolutionBackwardFilterAlgorithmEx",
    "cudnnFindConvolutionForwardAlgorithmEx",
    "cudnnGetConvolutionBackwardDataAlgorithm_v7",
    "cudnnGetConvolutionBackwardFilterAlgorithm_v7",
    "cudnnGetConvolutionForwardAlgorithm_v7",
    "cudnnGetVersion",
    "cudnnSetConvolution2dDescriptor",
    "cudnnSetConvolutionGroupCount",
    "cudnnSetConvolutionMathType",
    "cudnnSetFilter4dDescriptor",
    "cudnnSetStream",
    "cudnnSetTensor4dDescriptor",
];

/// The first version whose functions have the types that are used here.
const VERSION: usize = 90_000;

/// Algorithms that are asked for: more than there are of each part.
const MOST: usize = 16;

pub(super) struct Library {
    handle: sys::cudnnHandle_t,
    tf32: bool,
}

// SAFETY: a handle may be used by any thread, by one at a time: `Cudnn` has it behind a lock.
unsafe impl Send for Library {}

fn failed(call: &str) -> impl Fn(CudnnError) -> String {
    move |error| format!("{call}: {error}")
}

impl Library {
    /// Opens the library for a stream.
    pub(super) fn new(stream: u64, tf32: bool) -> Result<Library, String> {
        // SAFETY: cuDNN's library may be opened by anybody.
        if !unsafe { sys::is_culib_present() } {
            return Err(format!("{FILE} is missing: it is part of cuDNN 9"));
        }
        // SAFETY: the library is there, so that this does not panic; symbols are only looked for.
        let missing = |name: &&&str| unsafe { sys::culib().get::<*const c_void>(name.as_bytes()).is_err() };
        if let Some(name) = FUNCTIONS.iter().find(missing) {
            return Err(format!("{FILE} has no function {name}"));
        }
        let version = result::get_version();
        if version < VERSION {
            return Err(format!("{FILE} is version {version}, expected {VERSION} or later"));
        }
        let handle = result::create_handle().map_err(failed("cudnnCreate"))?;
        let library = Library { handle, tf32 };
        // SAFETY: the handle is live, and the caller's stream is one of its context.
        unsafe { result::set_stream(handle, stream as sys::cudaStream_t) }.map_err(failed("cudnnSetStream"))?;
        Ok(library)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle is live and used no more. What a failure would say comes too late.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Descriptors of a convolution.
pub(super) struct Prepared {
    part: Part,
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

// SAFETY: descriptors are plain memory that cuDNN reads when it is asked; `Cudnn` has them behind a lock.
unsafe impl Send for Prepared {}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: each descriptor was created or is null, and is used no more.
        unsafe {
            let _ = (!self.x.is_null()).then(|| result::destroy_tensor_descriptor(self.x));
            let _ = (!self.w.is_null()).then(|| result::destroy_filter_descriptor(self.w));
            let _ = (!self.y.is_null()).then(|| result::destroy_tensor_descriptor(self.y));
            let _ = (!self.convolution.is_null()).then(|| result::destroy_convolution_descriptor(self.convolution));
        }
    }
}

/// An algorithm of each part, with the kind of arithmetic that it was found for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Algorithm {
    kind: Kind,
    math: sys::cudnnMathType_t,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Input(sys::cudnnConvolutionBwdDataAlgo_t),
    Weight(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// Returns the sizes as cuDNN takes them: outer axis, channels, height, width.
fn sizes([outer, height, width, channels]: [usize; 4]) -> Result<[c_int; 4], String> {
    let size = |size: usize| c_int::try_from(size).map_err(|_| format!("an axis of {size} is too long"));
    Ok([size(outer)?, size(channels)?, size(height)?, size(width)?])
}

fn pair([a, b]: [usize; 2]) -> Result<[c_int; 2], String> {
    let [.., a, b] = sizes([1, a, b, 1])?;
    Ok([a, b])
}

/// Calls a function of a part that writes what it found about algorithms.
macro_rules! found {
    ($kind:expr, $perf:ty, $call:literal, |$count:ident, $results:ident| $ask:expr) => {{
        // SAFETY: a result is plain numbers, all of which may be zero.
        let mut results: [$perf; MOST] = unsafe { std::mem::zeroed() };
        let mut count: c_int = 0;
        let ($count, $results): (*mut c_int, *mut $perf) = (&raw mut count, results.as_mut_ptr());
        // SAFETY: the handle and descriptors are live, arrays and workspace are those of the caller, and there is room
        // for as many results as are asked for.
        unsafe { $ask }.result().map_err(failed($call))?;
        let count = usize::try_from(count).unwrap_or(0).min(MOST);
        let good = results[..count].iter().filter(|perf| perf.status == Status::CUDNN_STATUS_SUCCESS);
        Ok(good
            .map(|perf| Found {
                algorithm: Algorithm { kind: $kind(perf.algo), math: perf.mathType },
                memory: perf.memory,
                deterministic: perf.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
            })
            .collect())
    }};
}

impl Calls for Library {
    type Prepared = Prepared;
    type Algorithm = Algorithm;

    fn prepare(&self, convolution: &Convolution, layout: Layout) -> Result<Prepared, String> {
        let Convolution { part, element, x, w, y, strides, dilations, pads, groups } = *convolution;
        let format = match layout {
            Layout::Last => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
            Layout::First => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
        };
        let dtype = match element {
            Element::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            Element::F16 => sys::cudnnDataType_t::CUDNN_DATA_HALF,
            Element::BF16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        };
        let math = match (element, self.tf32) {
            (Element::F16 | Element::BF16, _) => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            (Element::F32, true) => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            (Element::F32, false) => sys::cudnnMathType_t::CUDNN_FMA_MATH,
        };
        let ([pad_h, pad_w], [stride_h, stride_w]) = (pair(pads)?, pair(strides)?);
        let ([dilation_h, dilation_w], [groups, _]) = (pair(dilations)?, pair([groups, 1])?);
        let (x, w, y) = (sizes(x)?, sizes(w)?, sizes(y)?);
        let mut of = Prepared {
            part,
            x: std::ptr::null_mut(),
            w: std::ptr::null_mut(),
            y: std::ptr::null_mut(),
            convolution: std::ptr::null_mut(),
        };
        of.x = result::create_tensor_descriptor().map_err(failed("cudnnCreateTensorDescriptor"))?;
        of.w = result::create_filter_descriptor().map_err(failed("cudnnCreateFilterDescriptor"))?;
        of.y = result::create_tensor_descriptor().map_err(failed("cudnnCreateTensorDescriptor"))?;
        of.convolution = result::create_convolution_descriptor().map_err(failed("cudnnCreateConvolutionDescriptor"))?;
        // SAFETY: the descriptors are those that were just created.
        unsafe {
            let tensor = failed("cudnnSetTensor4dDescriptor");
            result::set_tensor4d_descriptor(of.x, format, dtype, x).map_err(&tensor)?;
            result::set_tensor4d_descriptor(of.y, format, dtype, y).map_err(&tensor)?;
            result::set_filter4d_descriptor(of.w, dtype, format, w).map_err(failed("cudnnSetFilter4dDescriptor"))?;
            result::set_convolution2d_descriptor(
                of.convolution,
                pad_h,
                pad_w,
                stride_h,
                stride_w,
                dilation_h,
                dilation_w,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )
            .map_err(failed("cudnnSetConvolution2dDescriptor"))?;
            result::set_convolution_group_count(of.convolution, groups)
                .map_err(failed("cudnnSetConvolutionGroupCount"))?;
            result::set_convolution_math_type(of.convolution, math).map_err(failed("cudnnSetConvolutionMathType"))?;
        }
        Ok(of)
    }

    fn measure(&self, of: &Prepared, arrays: [u64; 3], room: Room) -> Result<Vec<Found<Algorithm>>, String> {
        let [first, second] = [arrays[0], arrays[1]].map(|at| at as *const c_void);
        let (output, workspace, size) = (arrays[2] as *mut c_void, room.0 as *mut c_void, room.1);
        let (handle, conv, most) = (self.handle, of.convolution, MOST as c_int);
        match of.part {
            Part::Forward => found!(
                Kind::Forward,
                sys::cudnnConvolutionFwdAlgoPerf_t,
                "cudnnFindConvolutionForwardAlgorithmEx",
                |count, results| sys::cudnnFindConvolutionForwardAlgorithmEx(
                    handle, of.x, first, of.w, second, conv, of.y, output, most, count, results, workspace, size
                )
            ),
            Part::Input => found!(
                Kind::Input,
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                "cudnnFindConvolutionBackwardDataAlgorithmEx",
                |count, results| sys::cudnnFindConvolutionBackwardDataAlgorithmEx(
                    handle, of.w, second, of.y, first, conv, of.x, output, most, count, results, workspace, size
                )
            ),
            Part::Weight => found!(
                Kind::Weight,
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                "cudnnFindConvolutionBackwardFilterAlgorithmEx",
                |count, results| sys::cudnnFindConvolutionBackwardFilterAlgorithmEx(
                    handle, of.x, first, of.y, second, conv, of.w, output, most, count, results, workspace, size
                )
            ),
        }
    }

    fn guess(&self, of: &Prepared) -> Result<Vec<Found<Algorithm>>, String> {
        let (handle, conv, most) = (self.handle, of.convolution, MOST as c_int);
        match of.part {
            Part::Forward => found!(
                Kind::Forward,
                sys::cudnnConvolutionFwdAlgoPerf_t,
                "cudnnGetConvolutionForwardAlgorithm_v7",
                |count, results| sys::cudnnGetConvolutionForwardAlgorithm_v7(
                    handle, of.x, of.w, conv, of.y, most, count, results
                )
            ),
            Part::Input => found!(
                Kind::Input,
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                "cudnnGetConvolutionBackwardDataAlgorithm_v7",
                |count, results| sys::cudnnGetConvolutionBackwardDataAlgorithm_v7(
                    handle, of.w, of.y, conv, of.x, most, count, results
                )
            ),
            Part::Weight => found!(
                Kind::Weight,
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                "cudnnGetConvolutionBackwardFilterAlgorithm_v7",
                |count, results| sys::cudnnGetConvolutionBackwardFilterAlgorithm_v7(
                    handle, of.x, of.y, conv, of.w, most, count, results
                )
            ),
        }
    }

    fn run(&self, of: &Prepared, algorithm: Algorithm, arrays: [u64; 3], room: Room) -> Result<(), String> {
        let [first, second] = [arrays[0], arrays[1]].map(|at| at as *const c_void);
        let (output, workspace, size) = (arrays[2] as *mut c_void, room.0 as *mut c_void, room.1);
        let (one, zero) = (1.0_f32, 0.0_f32);
        let alpha = std::ptr::from_ref(&one).cast::<c_void>();
        let beta = std::ptr::from_ref(&zero).cast::<c_void>();
        let (handle, conv) = (self.handle, of.convolution);
        // SAFETY: the handle and descriptors are live, arrays and workspace are those of the caller, and the factors are
        // float32, as cuDNN takes them for all three types.
        unsafe {
            result::set_convolution_math_type(conv, algorithm.math).map_err(failed("cudnnSetConvolutionMathType"))?;
            let (status, call) = match algorithm.kind {
                Kind::Forward(algo) => (
                    sys::cudnnConvolutionForward(
                        handle, alpha, of.x, first, of.w, second, conv, algo, workspace, size, beta, of.y, output,
                    ),
                    "cudnnConvolutionForward",
                ),
                Kind::Input(algo) => (
                    sys::cudnnConvolutionBackwardData(
                        handle, alpha, of.w, second, of.y, first, conv, algo, workspace, size, beta, of.x, output,
                    ),
                    "cudnnConvolutionBackwardData",
                ),
                Kind::Weight(algo) => (
                    sys::cudnnConvolutionBackwardFilter(
                        handle, alpha, of.x, first, of.y, second, conv, algo, workspace, size, beta, of.w, output,
                    ),
                    "cudnnConvolutionBackwardFilter",
                ),
            };
            status.result().map_err(failed(call))
        }
    }
}
