//! Runs a job in portions, as its standard input says: this program's side of `run.py`.
//!
//! `steps JOB.toml [--set KEY=VALUE].. [--runtime FILE] [--bare]`. Each line of the input is answered by a line of JSON:
//! - `steps N` trains N steps: `walls`, seconds from the end of one step to that of the next (of the first step of an
//!   epoch, from the last event before it, so that checkpoints do not count), and `losses`;
//! - `bare N`, with `--bare`, runs the sessions of the last step N times with nothing between: `walls`;
//! - `run` trains to the end: `seconds` from now on, with all that goes with a run, and those of the `steps` alone.
//!
//! The first line of the output tells what the job is. What a job does is what `freeze-plan train` does with it; between
//! two commands the run waits inside its report of an event. The program ends with its input.

#[path = "../../tests/delegate.rs"]
mod delegate;

use delegate::{Delegate, Hooks};
use freeze_plan::error::ErrorKind;
use freeze_plan::graph::Tensor;
use freeze_plan::runner::{BindingId, Engine, EngineError, LocateOptions, RunEvent};
use freeze_plan::trainer::{EngineOptions, Parts, Start, Trainer, TrainerError, engine, load_job};
use serde_json::json;
use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), TrainerError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let job = args.first().ok_or_else(|| TrainerError::new(ErrorKind::Usage, "steps JOB.toml"))?;
    let given = args.iter().zip(args.iter().skip(1)).filter(|(flag, _)| *flag == "--set");
    let sets: Vec<String> = given.map(|(_, value)| value.clone()).collect();
    let mut note = |text: &str| eprintln!("{text}");
    let job = load_job(job.as_ref(), &sets, &mut note)?;
    let parts = Parts { file: PathBuf::from(&args[0]), note: Some(&mut note), ..Parts::default() };
    let trainer = Trainer::with(job, parts)?;
    let run = &trainer.job().run;
    let device = run.device().map_err(|error| TrainerError::new(ErrorKind::Usage, error.to_string()))?;
    let runtime = args.iter().position(|arg| arg == "--runtime").and_then(|at| args.get(at + 1)).map(PathBuf::from);
    let options = LocateOptions { runtime, device, ..LocateOptions::default() };
    let mut engine = engine(&options, &EngineOptions::of(run), &mut |text| eprintln!("{text}"))?;
    let replay = Rc::new(RefCell::new(Replay::default()));
    let mut watched = None;
    let engine: &mut dyn Engine = match args.iter().any(|arg| arg == "--bare") {
        true => watched.insert(Delegate(Watched { engine, replay: Rc::clone(&replay) })),
        false => engine.as_mut(),
    };
    let mut turns = Turns::new(replay);
    trainer.run(engine, Start::Over, &mut |event| turns.take(&event), &AtomicBool::new(false))?;
    Ok(())
}

/// What is asked for, and what was measured since.
enum Task {
    /// The graphs of the first phase are being made.
    Start,
    /// So many more steps.
    Steps(usize),
    /// The next step follows a replay, and does not count.
    Bare,
    /// All that is left.
    Whole(Instant),
}

struct Turns {
    task: Task,
    /// When the last event was.
    mark: Instant,
    walls: Vec<f64>,
    losses: Vec<f64>,
    engine: String,
    replay: Rc<RefCell<Replay>>,
}

impl Turns {
    fn new(replay: Rc<RefCell<Replay>>) -> Turns {
        let (walls, losses) = (Vec::new(), Vec::new());
        Turns { task: Task::Start, mark: Instant::now(), walls, losses, engine: String::new(), replay }
    }

    fn take(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Start { engine, engine_version, device, threads, .. } => {
                let place = if device == "cpu" { format!("{threads} threads") } else { device.clone() };
                self.engine = format!("{engine} {engine_version}, {place}");
            }
            RunEvent::Phase { predicted_step_cost, seconds, nodes, frozen, .. } => {
                if matches!(self.task, Task::Start) {
                    let (engine, predicted) = (&self.engine, predicted_step_cost);
                    let about = json!({"engine": engine, "predicted": predicted, "nodes": nodes, "frozen": frozen,
                                       "phase_seconds": seconds});
                    println!("{about}");
                    self.wait();
                }
            }
            RunEvent::Step { loss, .. } => self.step(*loss),
            RunEvent::End { .. } => {
                if let Task::Whole(start) = self.task {
                    let steps = self.walls.iter().sum::<f64>();
                    println!("{}", json!({"seconds": start.elapsed().as_secs_f64(), "steps": steps}));
                }
            }
            RunEvent::Warning { message } => eprintln!("warning: {message}"),
            _ => {}
        }
        self.mark = Instant::now();
    }

    fn step(&mut self, loss: f64) {
        let wall = self.mark.elapsed().as_secs_f64();
        self.replay.borrow_mut().step_ends();
        if matches!(self.task, Task::Bare) {
            return self.wait();
        }
        self.walls.push(wall);
        self.losses.push(loss);
        if let Task::Steps(left) = &mut self.task {
            *left = left.saturating_sub(1);
            if *left == 0 {
                println!("{}", json!({"walls": self.walls, "losses": self.losses}));
                self.wait();
            }
        }
    }

    /// Waits for the next command.
    fn wait(&mut self) {
        self.walls.clear();
        self.losses.clear();
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line).unwrap_or(0);
        let mut words = line.split_whitespace();
        let (word, count) = (words.next(), words.next().and_then(|word| word.parse().ok()).unwrap_or(1));
        self.task = match word {
            Some("steps") => Task::Steps(count),
            Some("bare") => {
                self.replay.borrow_mut().ask(count);
                Task::Bare
            }
            Some("run") => Task::Whole(Instant::now()),
            Some(word) => {
                eprintln!("error: unknown command \"{word}\"");
                std::process::exit(2)
            }
            None if read == 0 => std::process::exit(0),
            None => Task::Steps(count),
        };
    }
}

/// The runs of sessions that make up a step.
#[derive(Default)]
struct Replay {
    /// Those since the end of the last step.
    current: Vec<BindingId>,
    /// Those of the last step.
    last: Vec<BindingId>,
    /// How often they are to be run before the next step.
    asked: usize,
}

impl Replay {
    fn step_ends(&mut self) {
        self.last = std::mem::take(&mut self.current);
    }

    fn ask(&mut self, count: usize) {
        self.asked = count;
    }
}

/// Notes which sessions run, and runs them again when asked.
struct Watched {
    engine: Box<dyn Engine>,
    replay: Rc<RefCell<Replay>>,
}

impl Watched {
    fn replay(&mut self) -> Result<(), EngineError> {
        let (asked, bindings) = {
            let mut replay = self.replay.borrow_mut();
            (std::mem::take(&mut replay.asked), replay.last.clone())
        };
        let mut walls = Vec::with_capacity(asked);
        for _ in 0..asked {
            let clock = Instant::now();
            for binding in &bindings {
                self.engine.run(*binding)?;
            }
            walls.push(clock.elapsed().as_secs_f64());
        }
        if asked > 0 {
            println!("{}", json!({"walls": walls}));
        }
        Ok(())
    }
}

impl Hooks for Watched {
    fn inner(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    fn inner_mut(&mut self) -> &mut dyn Engine {
        self.engine.as_mut()
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        self.replay()?;
        self.replay.borrow_mut().current.push(binding);
        self.engine.run(binding)
    }
}
