//! Convolutions of cuDNN: which of its algorithms computes one, and in which layout.
//!
//! An algorithm is looked for once for every convolution: with images channels-last, and where cuDNN has none for that,
//! with copies of images and weights channels-first. Looking for it by measuring runs each algorithm and waits for it, so
//! the first run of a convolution must not be one that is captured in a CUDA graph.

use super::gpu::{Convolution, Gpu, Part};
use super::turn::turned;
use std::collections::HashMap;
use std::sync::Mutex;

mod library;
#[cfg(all(test, unix))]
mod tests;

use library::Library;

/// How an algorithm is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The fastest by trial.
    Measured,
    /// The first that cuDNN proposes.
    Heuristic,
}

/// What convolutions may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub search: Search,
    /// Whether products of float32 may be rounded to TF32.
    pub tf32: bool,
    /// Whether only algorithms are taken that give the same result each time.
    pub deterministic: bool,
    /// Most bytes of workspace of an algorithm.
    pub workspace: usize,
}

/// The order of axes of images and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Layout {
    /// Channels-last: images `[N, H, W, C]`, weights `[M, kH, kW, C/g]`.
    Last,
    /// Channels-first: images `[N, C, H, W]`, weights `[M, C/g, kH, kW]`.
    First,
}

/// An algorithm that cuDNN names.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found<A> {
    algorithm: A,
    /// Bytes of workspace.
    memory: usize,
    deterministic: bool,
}

/// Where workspace lies, and its bytes.
type Room = (u64, usize);

/// What is asked of cuDNN. Arrays are the two inputs of a convolution, as its part names them, and its output.
trait Calls {
    /// What describes a convolution to it.
    type Prepared;
    type Algorithm: Copy;

    fn prepare(&self, convolution: &Convolution, layout: Layout) -> Result<Self::Prepared, String>;

    /// Returns the algorithms that run, the fastest first. Writes the output.
    fn measure(&self, of: &Self::Prepared, arrays: [u64; 3], room: Room)
    -> Result<Vec<Found<Self::Algorithm>>, String>;

    /// Returns the algorithms that should run, the best first.
    fn guess(&self, of: &Self::Prepared) -> Result<Vec<Found<Self::Algorithm>>, String>;

    fn run(&self, of: &Self::Prepared, algorithm: Self::Algorithm, arrays: [u64; 3], room: Room) -> Result<(), String>;
}

/// How a convolution is computed.
struct Choice<C: Calls> {
    layout: Layout,
    prepared: C::Prepared,
    algorithm: C::Algorithm,
    memory: usize,
}

/// Convolutions, with the choices that were made.
struct Convolutions<C: Calls> {
    calls: C,
    settings: Settings,
    choices: HashMap<Convolution, Choice<C>>,
}

/// Where the two inputs and the output of a convolution lie, who turns copies of them, and who gives workspace.
struct Work<'a> {
    gpu: &'a dyn Gpu,
    arrays: [u64; 3],
    workspace: &'a mut dyn FnMut(usize) -> Result<u64, String>,
}

/// cuDNN on a stream.
pub(super) struct Cudnn(Mutex<Convolutions<Library>>);

impl Cudnn {
    /// Returns cuDNN for a stream of the context that is current.
    ///
    /// # Errors
    /// The library is missing, too old or incomplete, or refuses the stream.
    pub(super) fn new(stream: u64, settings: Settings) -> Result<Cudnn, String> {
        let calls = Library::new(stream, settings.tf32)?;
        Ok(Cudnn(Mutex::new(Convolutions { calls, settings, choices: HashMap::new() })))
    }

    /// Computes a convolution, of the context that is current. `workspace` returns room of so many bytes, aligned to 256,
    /// which the next call may give again; it is not that of the node's scratch, which holds arrays. The turning of
    /// copies is asked of `gpu`, which must be on the same stream.
    ///
    /// # Errors
    /// cuDNN has no algorithm for it, or fails.
    pub(super) fn convolve(
        &self,
        gpu: &dyn Gpu,
        convolution: &Convolution,
        arrays: [u64; 3],
        workspace: &mut dyn FnMut(usize) -> Result<u64, String>,
    ) -> Result<(), String> {
        let mut convolutions = self.0.lock().map_err(|error| error.to_string())?;
        convolutions.convolve(convolution, Work { gpu, arrays, workspace })
    }
}

/// Less workspace than this is not worth a search of its own.
const LEAST: usize = 16 << 20;

impl<C: Calls> Convolutions<C> {
    fn convolve(&mut self, convolution: &Convolution, mut work: Work<'_>) -> Result<(), String> {
        if let Some(choice) = self.choices.get(convolution) {
            return execute(&self.calls, convolution, choice, &mut work);
        }
        let choice = self.choose(convolution, &mut work)?;
        self.choices.insert(*convolution, choice);
        Ok(())
    }

    /// Returns the first choice that computes a convolution, which it then has.
    fn choose(&self, convolution: &Convolution, work: &mut Work<'_>) -> Result<Choice<C>, String> {
        let mut reasons = Vec::new();
        for layout in [Layout::Last, Layout::First] {
            match self.choose_in(layout, convolution, work) {
                Ok(choice) => return Ok(choice),
                Err(reason) => reasons.push(format!("channels-{}: {reason}", name(layout))),
            }
        }
        Err(format!("cuDNN has no algorithm for {convolution:?}: {}", reasons.join("; ")))
    }

    fn choose_in(&self, layout: Layout, convolution: &Convolution, work: &mut Work<'_>) -> Result<Choice<C>, String> {
        let mut prepared = self.calls.prepare(convolution, layout)?;
        let mut reason = "none is proposed".to_string();
        let searches = [Search::Measured, Search::Heuristic];
        for search in &searches[usize::from(self.settings.search == Search::Heuristic)..] {
            let found = match search {
                Search::Measured => self.measured(layout, convolution, &prepared, work),
                Search::Heuristic => self.calls.guess(&prepared),
            };
            let found = found.unwrap_or_else(|error| {
                reason = error;
                Vec::new()
            });
            let fits = |found: &&Found<C::Algorithm>| {
                found.memory <= self.settings.workspace && (found.deterministic || !self.settings.deterministic)
            };
            for Found { algorithm, memory, .. } in found.iter().filter(fits) {
                let choice = Choice { layout, prepared, algorithm: *algorithm, memory: *memory };
                match execute(&self.calls, convolution, &choice, work) {
                    Ok(()) => return Ok(choice),
                    Err(error) => reason = error,
                }
                prepared = choice.prepared;
            }
        }
        Err(reason)
    }

    /// Measures the algorithms with as much workspace as there is, up to the limit.
    fn measured(
        &self,
        layout: Layout,
        convolution: &Convolution,
        prepared: &C::Prepared,
        work: &mut Work<'_>,
    ) -> Result<Vec<Found<C::Algorithm>>, String> {
        let copies = Copies::of(layout, convolution);
        let mut room = self.settings.workspace;
        loop {
            match take(work, copies.bytes() + room) {
                Ok(at) => {
                    let arrays = copies.filled(work, convolution, at)?;
                    return self.calls.measure(prepared, arrays, (at + copies.bytes() as u64, room));
                }
                Err(error) if room == 0 => return Err(error),
                Err(_) => room = if room / 2 < LEAST { 0 } else { room / 2 },
            }
        }
    }
}

fn name(layout: Layout) -> &'static str {
    match layout {
        Layout::Last => "last",
        Layout::First => "first",
    }
}

fn take(work: &mut Work<'_>, bytes: usize) -> Result<u64, String> {
    if bytes == 0 { Ok(0) } else { (work.workspace)(bytes) }
}

fn execute<C: Calls>(
    calls: &C,
    convolution: &Convolution,
    choice: &Choice<C>,
    work: &mut Work<'_>,
) -> Result<(), String> {
    let copies = Copies::of(choice.layout, convolution);
    let at = take(work, copies.bytes() + choice.memory)?;
    let arrays = copies.filled(work, convolution, at)?;
    let room = (at + copies.bytes() as u64, choice.memory);
    calls.run(&choice.prepared, choice.algorithm, arrays, room)?;
    copies.back(work, convolution, arrays)
}

/// Copies of arrays in another layout.
struct Copies {
    /// Each array as matrices of channels by pixels, and the bytes of its copy; `None` for one that needs none.
    matrices: [Option<([usize; 3], usize)>; 3],
}

impl Copies {
    fn of(layout: Layout, convolution: &Convolution) -> Copies {
        let matrix = |[outer, height, width, channels]: [usize; 4]| {
            let turns = layout == Layout::First && channels > 1 && height * width > 1;
            let bytes = (outer * height * width * channels * convolution.element.size()).next_multiple_of(256);
            turns.then_some(([outer, height * width, channels], bytes))
        };
        let Convolution { x, w, y, .. } = *convolution;
        let arrays = match convolution.part {
            Part::Forward => [x, w, y],
            Part::Input => [y, w, x],
            Part::Weight => [x, y, w],
        };
        Copies { matrices: arrays.map(matrix) }
    }

    fn bytes(&self) -> usize {
        self.matrices.iter().flatten().map(|(_, bytes)| bytes).sum()
    }

    /// Copies the inputs to room from `at` on; returns where the arrays are then.
    fn filled(&self, work: &Work<'_>, convolution: &Convolution, at: u64) -> Result<[u64; 3], String> {
        let (mut arrays, mut next) = (work.arrays, at);
        for (index, (array, matrix)) in arrays.iter_mut().zip(&self.matrices).enumerate() {
            let Some((sizes, bytes)) = matrix else { continue };
            if index < 2 {
                turned(work.gpu, convolution.element, *array, next, *sizes)?;
            }
            *array = next;
            next += *bytes as u64;
        }
        Ok(arrays)
    }

    /// Copies the output back.
    fn back(&self, work: &Work<'_>, convolution: &Convolution, arrays: [u64; 3]) -> Result<(), String> {
        let Some(([outer, pixels, channels], _)) = self.matrices[2] else { return Ok(()) };
        turned(work.gpu, convolution.element, arrays[2], work.arrays[2], [outer, channels, pixels])
    }
}
