//! The choice of algorithms, against a made-up cuDNN that computes what it is asked for on the emulated device.

use super::super::emulated::Emulated;
use super::*;
use crate::runner::cuda::gpu::Element;
use std::cell::RefCell;

/// What the made-up library has: names of algorithms by layout, as measuring and as guessing gives them.
#[derive(Default)]
struct Table {
    measured: HashMap<&'static str, Vec<Found<&'static str>>>,
    guessed: HashMap<&'static str, Vec<Found<&'static str>>>,
    /// Algorithms that fail when they run.
    broken: Vec<&'static str>,
    log: RefCell<Vec<String>>,
}

fn found(algorithm: &'static str, memory: usize, deterministic: bool) -> Found<&'static str> {
    Found { algorithm, memory, deterministic }
}

impl Calls for Table {
    type Prepared = (Convolution, Layout);
    type Algorithm = &'static str;

    fn prepare(&self, convolution: &Convolution, layout: Layout) -> Result<Self::Prepared, String> {
        Ok((*convolution, layout))
    }

    fn measure(&self, of: &Self::Prepared, _: [u64; 3], room: Room) -> Result<Vec<Found<&'static str>>, String> {
        self.log.borrow_mut().push(format!("measure {} {}", name(of.1), room.1));
        self.measured.get(name(of.1)).cloned().ok_or_else(|| "not supported".to_string())
    }

    fn guess(&self, of: &Self::Prepared) -> Result<Vec<Found<&'static str>>, String> {
        self.log.borrow_mut().push(format!("guess {}", name(of.1)));
        self.guessed.get(name(of.1)).cloned().ok_or_else(|| "not supported".to_string())
    }

    fn run(&self, of: &Self::Prepared, algorithm: &'static str, arrays: [u64; 3], room: Room) -> Result<(), String> {
        self.log.borrow_mut().push(format!("run {algorithm} {}", room.1));
        if self.broken.contains(&algorithm) {
            return Err(format!("{algorithm} is broken"));
        }
        let (convolution, layout) = of;
        let gpu = Emulated::default();
        if *layout == Layout::Last {
            return gpu.convolve(convolution, arrays[0], arrays[1], arrays[2]);
        }
        let matrices = Copies::of(Layout::First, convolution).matrices;
        let mut copies: Vec<Vec<u128>> = Vec::new();
        let mut plain = arrays;
        for (index, matrix) in matrices.iter().enumerate() {
            let Some(([outer, pixels, channels], bytes)) = matrix else { continue };
            let copy = vec![0_u128; bytes / 16];
            plain[index] = copy.as_ptr() as u64;
            copies.push(copy);
            if index < 2 {
                turned(&gpu, convolution.element, arrays[index], plain[index], [*outer, *channels, *pixels])?;
            }
        }
        gpu.convolve(convolution, plain[0], plain[1], plain[2])?;
        let Some((sizes, _)) = matrices[2] else { return Ok(()) };
        turned(&gpu, convolution.element, plain[2], arrays[2], sizes)
    }
}

const LIMIT: usize = 64 << 20;

fn settings(search: Search) -> Settings {
    Settings { search, tf32: true, deterministic: true, workspace: LIMIT }
}

fn convolution(part: Part) -> Convolution {
    Convolution {
        part,
        element: Element::F32,
        x: [2, 5, 6, 8],
        w: [12, 3, 3, 4],
        y: [2, 3, 3, 12],
        strides: [2, 2],
        dilations: [1, 1],
        pads: [1, 1],
        groups: 2,
    }
}

/// Memory of the three arrays, filled, and a workspace that refuses more than `most` bytes.
fn run(
    convolutions: &mut Convolutions<Table>,
    convolution: &Convolution,
    most: usize,
) -> (Result<(), String>, Vec<f32>) {
    let values = |count: usize| (0..count).map(|at| ((at * 37 + 11) % 29) as f32 / 29.0 - 0.5).collect::<Vec<f32>>();
    let sizes = [convolution.x, convolution.w, convolution.y].map(|shape| shape.iter().product::<usize>());
    let [x, w, y] = sizes;
    let sizes = match convolution.part {
        Part::Forward => [x, w, y],
        Part::Input => [y, w, x],
        Part::Weight => [x, y, w],
    };
    let (first, second, output) = (values(sizes[0]), values(sizes[1]), vec![0.0_f32; sizes[2]]);
    let arrays = [&first, &second, &output].map(|array| array.as_ptr() as u64);
    let mut room = Vec::new();
    let mut workspace = |bytes: usize| {
        if bytes > most {
            return Err(format!("no {bytes} bytes"));
        }
        room = vec![u128::MAX; bytes.div_ceil(16) + 16];
        Ok((room.as_ptr() as u64).next_multiple_of(256))
    };
    let gpu = Emulated::default();
    let result = convolutions.convolve(convolution, Work { gpu: &gpu, arrays, workspace: &mut workspace });
    (result, output)
}

fn convolutions(calls: Table, settings: Settings) -> Convolutions<Table> {
    Convolutions { calls, settings, choices: HashMap::new() }
}

fn log(convolutions: &Convolutions<Table>) -> Vec<String> {
    convolutions.calls.log.borrow_mut().drain(..).collect()
}

#[test]
fn the_fastest_that_fits_is_taken_once() {
    let list = vec![found("random", 0, false), found("large", LIMIT + 1, true), found("good", 300, true)];
    let table = Table { measured: [("last", list)].into(), ..Table::default() };
    let mut all = convolutions(table, settings(Search::Measured));
    for expected in [vec![format!("measure last {LIMIT}"), "run good 300".into()], vec!["run good 300".to_string()]] {
        assert_eq!(run(&mut all, &convolution(Part::Forward), usize::MAX).0, Ok(()));
        assert_eq!(log(&all), expected);
    }
    assert_eq!(run(&mut all, &convolution(Part::Weight), usize::MAX).0, Ok(()));
    assert_eq!(log(&all), [format!("measure last {LIMIT}"), "run good 300".into()]);
}

#[test]
fn results_that_differ_are_taken_where_they_may() {
    let list = vec![found("random", 0, false), found("good", 0, true)];
    let table = Table { measured: [("last", list)].into(), ..Table::default() };
    let mut all = convolutions(table, Settings { deterministic: false, ..settings(Search::Measured) });
    assert_eq!(run(&mut all, &convolution(Part::Forward), usize::MAX).0, Ok(()));
    assert_eq!(log(&all), [format!("measure last {LIMIT}"), "run random 0".into()]);
}

#[test]
fn less_workspace_is_measured_with_less() {
    let table = Table { measured: [("last", vec![found("good", 0, true)])].into(), ..Table::default() };
    let mut all = convolutions(table, settings(Search::Measured));
    assert_eq!(run(&mut all, &convolution(Part::Forward), 40 << 20).0, Ok(()));
    assert_eq!(log(&all), [format!("measure last {}", 32 << 20), "run good 0".into()]);
    let mut all = convolutions(Table { measured: all.calls.measured, ..Table::default() }, settings(Search::Measured));
    assert_eq!(run(&mut all, &convolution(Part::Forward), 1000).0, Ok(()));
    assert_eq!(log(&all), ["measure last 0", "run good 0"]);
}

#[test]
fn what_fails_is_followed_by_the_next() {
    let guessed = vec![found("second", 0, true), found("third", 64, true)];
    let table = Table {
        measured: [("last", vec![found("first", 0, true)])].into(),
        guessed: [("last", guessed)].into(),
        broken: vec!["first", "second"],
        ..Table::default()
    };
    let mut all = convolutions(table, settings(Search::Measured));
    assert_eq!(run(&mut all, &convolution(Part::Input), usize::MAX).0, Ok(()));
    let expected = [&format!("measure last {LIMIT}"), "run first 0", "guess last", "run second 0", "run third 64"];
    assert_eq!(log(&all), expected);
}

#[test]
fn copies_channels_first_compute_the_same() {
    for part in [Part::Forward, Part::Input, Part::Weight] {
        let mut found_by = ["last", "first"].map(|layout| {
            let table = Table { guessed: [(layout, vec![found("good", 512, true)])].into(), ..Table::default() };
            let mut all = convolutions(table, settings(Search::Heuristic));
            let (result, output) = run(&mut all, &convolution(part), usize::MAX);
            assert_eq!(result, Ok(()), "{part:?}");
            let last = ["guess last", "run good 512"];
            let first = ["guess last", "guess first", "run good 512"];
            assert_eq!(log(&all), if layout == "last" { last.to_vec() } else { first.to_vec() });
            output
        });
        let [last, first] = &mut found_by;
        assert!(last.iter().any(|value| *value != 0.0) && last == first, "{part:?}");
    }
}

#[test]
fn a_convolution_without_algorithm_says_why() {
    let table = Table {
        guessed: [("first", vec![found("broken", 0, true)])].into(),
        broken: vec!["broken"],
        ..Table::default()
    };
    let mut all = convolutions(table, settings(Search::Heuristic));
    let error = run(&mut all, &convolution(Part::Forward), usize::MAX).0.unwrap_err();
    assert!(error.contains("channels-last: not supported; channels-first: broken is broken"), "{error}");
    assert!(all.choices.is_empty());
}

#[test]
fn a_missing_library_is_an_error_that_names_it() {
    match Cudnn::new(0, settings(Search::Measured)) {
        Ok(_) => eprintln!("skipped: cuDNN is there"),
        Err(error) => assert!(error.contains("cudnn"), "{error}"),
    }
}
