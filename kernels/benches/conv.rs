//! Convolutions of three networks on one thread: microseconds and GFLOP/s per layer and direction.
//!
//! `cargo bench -p freeze-plan-kernels --bench conv -- [PART OF A NETWORK'S NAME] [--csv]`; the same table
//! by PyTorch: `python benches/conv.py`, which runs both and shows ratios where it is given the binary.

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
fn parse(line: &str) -> Conv2d {
    let n: Vec<usize> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let [batch, h, w, c, m, k, s, p] = n[..] else { panic!("eight numbers: {line}") };
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

/// For each line of the input (a layer, a direction and a number of rounds) writes the least and the
/// median seconds.
fn main() {
    let mut work = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        let rounds: usize = words[9].parse().expect("a number of rounds");
        let conv = parse(&words[..8].join(" "));
        conv.check().expect("the sizes of a convolution");
        let (mut x, mut w) = (Values::new(conv.input_len()), Values::new(conv.weight_len()));
        let mut y = Values::new(conv.output_len());
        let mut times: Vec<f64> = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                match words[8] {
                    "forward" => conv.forward(&Serial, &*x.get(), w.get(), None, y.get(), &mut work),
                    "input" => conv.input_grad(&Serial, y.get(), w.get(), x.get(), &mut work),
                    _ => conv.weight_grad(&Serial, &*x.get(), y.get(), w.get(), &mut work),
                }
                black_box((x.get(), w.get(), y.get()));
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{} {}", times[0], times[times.len() / 2]);
    }
}
