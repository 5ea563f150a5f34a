//! What an operator sees of a device: kernels, convolutions and room, in the order in which they are asked for.

#[cfg(test)]
use crate::graph::DType;

/// The type of the elements that a kernel reads and writes; its arithmetic is float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::runner) enum Element {
    F32,
    F16,
    BF16,
}

impl Element {
    /// Returns every type.
    pub(in crate::runner) const ALL: [Element; 3] = [Element::F32, Element::F16, Element::BF16];

    /// Returns the bytes of an element.
    pub(in crate::runner) fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::BF16 => 2,
        }
    }

    /// Returns the name by which a kernel's source knows it.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Element::F32 => "T_F32",
            Element::F16 => "T_F16",
            Element::BF16 => "T_BF16",
        }
    }

    /// Returns it as a type of tensors.
    #[cfg(test)]
    pub(in crate::runner) fn dtype(self) -> DType {
        match self {
            Element::F32 => DType::F32,
            Element::F16 => DType::F16,
            Element::BF16 => DType::BF16,
        }
    }
}

/// A file of kernels.
#[derive(Debug)]
pub(in crate::runner) struct Source {
    /// Its name, without ending.
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

/// A struct of arguments as its kernel declares it.
///
/// # Safety
/// `repr(C)`, without padding that is not initialized, and field by field what the kernel's source has: pointers as
/// `u64`, `i64` as `i64`, `float` as `f32`, `u32` as `u32`.
pub(super) unsafe trait Arguments: Copy {}

/// A kernel that is started.
pub(in crate::runner) struct Launch<'a> {
    pub(super) source: &'static Source,
    pub(super) kernel: &'static str,
    pub(super) element: Element,
    /// Blocks by dimension.
    pub(super) grid: [u32; 2],
    /// Threads of a block, at most 1024; a multiple of 32 where the kernel sums over its block.
    pub(super) block: u32,
    pub(super) arguments: &'a [u8],
}

/// What a convolution computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::runner) enum Part {
    /// `y` of `x` and `w`.
    Forward,
    /// `dx` of `dy` and `w`.
    Input,
    /// `dw` of `x` and `dy`.
    Weight,
}

/// A convolution of images `[N, H, W, C]` with weights `[M, kH, kW, C/g]`, all of one element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::runner) struct Convolution {
    pub part: Part,
    pub element: Element,
    /// Shape of the image that is read, or whose gradient is written.
    pub x: [usize; 4],
    /// Shape of the weights.
    pub w: [usize; 4],
    /// Shape of the output.
    pub y: [usize; 4],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Rows and columns of zeros on each side: the same before and after.
    pub pads: [usize; 2],
    pub groups: usize,
}

/// A device, or what stands for one in tests. Everything that is asked for happens in that order.
pub(in crate::runner) trait Gpu: Send + Sync {
    /// Returns the number of its multiprocessors.
    fn processors(&self) -> u32;

    /// Starts a kernel.
    ///
    /// # Errors
    /// The kernel does not compile, or the device refuses it.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), String>;

    /// Writes zeros to `bytes` bytes.
    ///
    /// # Errors
    /// The device fails.
    fn zero(&self, at: u64, bytes: usize) -> Result<(), String>;

    /// Copies bytes on the device.
    ///
    /// # Errors
    /// The device fails.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), String>;

    /// Returns room of at least so many bytes, aligned to 256, which may hold anything and is given again by the next
    /// call: a node asks once.
    ///
    /// # Errors
    /// There is no memory.
    fn scratch(&self, bytes: usize) -> Result<u64, String>;

    /// Computes a convolution: of its two inputs, as its part names them, to its output.
    ///
    /// # Errors
    /// The device has none for these sizes, or fails.
    fn convolve(&self, convolution: &Convolution, first: u64, second: u64, output: u64) -> Result<(), String>;
}

impl dyn Gpu + '_ {
    /// Starts a kernel on `work` pieces of work, one for each thread or, on a device with fewer threads, more.
    pub(super) fn each<A: Arguments>(
        &self,
        source: &'static Source,
        kernel: &'static str,
        element: Element,
        work: usize,
        arguments: &A,
    ) -> Result<(), String> {
        const BLOCK: usize = 256;
        let most = self.processors() as usize * 16;
        let blocks = work.div_ceil(BLOCK).clamp(1, most);
        self.blocks(source, kernel, element, [blocks, 1], BLOCK, arguments)
    }

    /// Starts a kernel in blocks of `block` threads; the second dimension of the grid is at most 65535.
    pub(super) fn blocks<A: Arguments>(
        &self,
        source: &'static Source,
        kernel: &'static str,
        element: Element,
        grid: [usize; 2],
        block: usize,
        arguments: &A,
    ) -> Result<(), String> {
        let size = |size: usize| u32::try_from(size).map_err(|_| format!("{kernel}: {size} blocks are too many"));
        let (grid, block) = ([size(grid[0])?, size(grid[1])?], size(block)?);
        // SAFETY: arguments are plain bytes, by the contract of their trait.
        let arguments =
            unsafe { std::slice::from_raw_parts(std::ptr::from_ref(arguments).cast::<u8>(), size_of::<A>()) };
        self.launch(&Launch { source, kernel, element, grid, block, arguments })
    }
}
