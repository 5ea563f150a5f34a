//! Convolutions of three networks on one thread: GFLOP/s per layer and direction.
//!
//! `cargo bench -p freeze-plan-kernels --bench conv -- [NETWORK]` shows the layers of `conv.txt`. With
//! `--serve` the program times what it reads, for `conv.py`, which compares with PyTorch.

use freeze_plan_kernels::Serial;
use freeze_plan_kernels::conv::Conv2d;
use std::hint::black_box;
use std::io::BufRead;
use std::time::Instant;

/// Values that start at a cache line.
struct Values {
    all: Vec<f32>,
    start: usize,
    len: usize,
}

impl Values {
    fn new(len: usize) -> Values {
        let all: Vec<f32> = (0..len + 16).map(|index| ((index * 7919) % 2003) as f32 / 1001.0 - 1.0).collect();
        let start = all.as_ptr().align_offset(64);
        Values { all, start, len }
    }

    fn get(&mut self) -> &mut [f32] {
        &mut self.all[self.start..self.start + self.len]
    }
}

/// Reads `batch height width in_channels out_channels kernel stride pad`.
fn parse(words: &[&str]) -> Conv2d {
    let n: Vec<usize> = words.iter().map(|word| word.parse().expect("a number")).collect();
    let [batch, h, w, c, m, k, s, p] = n[..] else { panic!("eight numbers: {words:?}") };
    Conv2d {
        batch,
        input: [h, w],
        in_channels: c,
        output: [h, w].map(|size| (size + 2 * p - k) / s + 1),
        out_channels: m,
        kernel: [k, k],
        strides: [s, s],
        dilations: [1, 1],
        pads: [p; 4],
        groups: 1,
    }
}

/// Returns the least and the median seconds of some rounds.
fn time(conv: &Conv2d, direction: &str, rounds: usize, work: &mut Vec<f32>) -> [f64; 2] {
    conv.check().expect("the sizes of a convolution");
    let (mut x, mut w) = (Values::new(conv.input_len()), Values::new(conv.weight_len()));
    let mut y = Values::new(conv.output_len());
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            match direction {
                "forward" => conv.forward(&Serial, &*x.get(), w.get(), None, y.get(), work),
                "input" => conv.input_grad(&Serial, y.get(), w.get(), x.get(), work),
                _ => conv.weight_grad(&Serial, &*x.get(), y.get(), w.get(), work),
            }
            black_box((x.get(), w.get(), y.get()));
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2]]
}

/// Times each line of the input: a layer, a direction and a number of rounds.
fn serve() {
    let mut work = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [layer @ .., direction, rounds] = &words[..] else { continue };
        let [least, median] = time(&parse(layer), direction, rounds.parse().expect("a number"), &mut work);
        println!("{least} {median}");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.iter().any(|argument| argument == "--serve") {
        return serve();
    }
    let wanted = arguments.first().map_or("", String::as_str);
    let mut work = Vec::new();
    println!("{:44}{:>9}{:>9}{:>9}  GFLOP/s", "", "forward", "input", "weight");
    for line in include_str!("conv.txt").lines().filter(|line| !line.starts_with('#') && line.starts_with(wanted)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let conv = parse(&words[1..9]);
        let flops = 2 * conv.output_len() * conv.weight_len() / conv.out_channels;
        let rates = ["forward", "input", "weight"]
            .map(|direction| flops as f64 / time(&conv, direction, 15, &mut work)[0] * 1e-9);
        println!("{line:44}{:9.0}{:9.0}{:9.0}", rates[0], rates[1], rates[2]);
    }
}
