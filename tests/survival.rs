//! The program is killed, stopped, starved of disk and given damaged files; it goes on as if nothing had happened, or says
//! what is wrong.
//!
//! `FREEZE_PLAN_KILLS=200 cargo test --release survival` kills it 200 times; by default few times.

use crate::engines::fixture;
use freeze_plan::checkpoint::{Store, load};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const EPOCHS: usize = 6;

/// A job in a folder of its own: 36 steps that freeze and unfreeze within epochs, a checkpoint every second step.
struct Job {
    folder: tempfile::TempDir,
    more: String,
    digits: bool,
}

impl Job {
    fn new() -> Job {
        Job { folder: tempfile::tempdir().unwrap(), more: String::new(), digits: false }
    }

    fn with(more: &str) -> Job {
        Job { more: more.into(), ..Job::new() }
    }

    fn file(&self) -> PathBuf {
        let path = self.folder.path().join("job.toml");
        let (files, column) = match self.digits {
            false => (["freezing/mlp.onnx", "freezing/mlp.npz"], "x"),
            true => (["digits/model.onnx", "parity/digits.npz"], "images"),
        };
        let [model, data] = files.map(|name| fixture(name).display().to_string());
        let text = format!(
            "model = '{model}'\n[data]\ntrain = '{data}'\neval = '{data}'\ninputs = {{ x = \"{column}\" }}\ntarget = \"labels\"\n\
             batch = 8\nseed = 5\n[loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"adamw\"\nlr = 0.01\n\
             [schedule]\nkind = \"step\"\nstep_size = 2\n[freeze]\npolicy = \"steps\"\non_return = \"keep\"\n\
             steps = [{{ epoch = 1, step = 3, frozen = 1 }}, {{ epoch = 2, step = 4, frozen = 2 }}, \
             {{ epoch = 3, frozen = 0 }}, {{ epoch = 4, step = 2, frozen = 1 }}, {{ epoch = 5, step = 5, frozen = 0 }}]\n\
             [ema]\ndecay = 0.9\n[eval]\nbest = \"loss\"\n[checkpoint]\nevery = 2\n\
             [run]\nepochs = {EPOCHS}\ndir = \"run\"\nthreads = 1\nlog_every = 1\nceiling_steps = 0\n{}",
            self.more
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn store(&self) -> Store {
        Store::new(&self.run().join("checkpoints"), 2)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freeze-plan"));
        command.arg("train").arg(self.file()).arg("--no-plan").args(args).stdin(Stdio::null());
        command
    }

    fn train(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until the run's folder shows something.
    fn until(&self, child: &mut Child, shows: impl Fn(&Job) -> bool) -> bool {
        let clock = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if shows(self) {
                return true;
            }
            assert!(clock.elapsed() < Duration::from_secs(120), "the run hangs");
        }
        false
    }

    /// Returns what a run must leave, whatever happened to it on the way.
    fn left(&self) -> Left {
        let latest = self.store().latest().unwrap().unwrap();
        assert!(latest.damaged.is_empty(), "{:?}", latest.damaged);
        let best = load(&self.store().best().unwrap()).unwrap();
        Left {
            model: fs::read(self.run().join("model.onnx")).unwrap(),
            plan: fs::read_to_string(self.run().join("plan.json")).unwrap(),
            groups: latest.checkpoint.groups,
            best: (best.epoch, best.step),
            log: self.log(),
        }
    }

    /// Returns the steps and epochs of the log, without times.
    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.run().join("events.jsonl")).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let keep = |event: &Value| event["event"] == "step" || event["event"] == "epoch";
        let mut events: Vec<Value> = events.filter(keep).collect();
        for event in &mut events {
            let times = ["time", "seconds", "wait_seconds", "samples_per_second", "peak_bytes"];
            times.iter().for_each(|key| drop(event.as_object_mut().unwrap().remove(*key)));
        }
        events
    }

    fn step(&self) -> u64 {
        self.store().latest().unwrap().map_or(0, |latest| latest.checkpoint.step)
    }
}

#[derive(Debug, PartialEq)]
struct Left {
    model: Vec<u8>,
    plan: String,
    groups: std::collections::BTreeMap<String, freeze_plan::checkpoint::Tensors>,
    best: (u64, u64),
    log: Vec<Value>,
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns what a run leaves that nothing happens to.
fn undisturbed(more: &str) -> Left {
    let job = Job::with(more);
    let left = left_of(&job);
    assert_eq!(left.log.iter().filter(|event| event["event"] == "step").count(), 6 * EPOCHS);
    left
}

fn left_of(job: &Job) -> Left {
    let output = job.train(&[]);
    assert!(output.status.success(), "{}", error(&output));
    job.left()
}

/// Numbers that look random and are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Returns true while something whose name begins so is in a folder.
fn there(folder: &Path, start: &str) -> bool {
    let entries = folder.read_dir().into_iter().flatten().filter_map(Result::ok);
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(start))
}

#[test]
fn a_run_that_is_killed_at_any_moment_ends_as_one_that_never_was() {
    let kills: usize = std::env::var("FREEZE_PLAN_KILLS").ok().map_or(6, |kills| kills.parse().unwrap());
    let clock = Instant::now();
    let expected = undisturbed("");
    let whole = clock.elapsed().as_millis() as u64;
    let mut random = Random(kills as u64);
    let (mut done, mut in_checkpoint, mut in_model, mut runs) = (0, 0, 0, 0);
    while done < kills {
        let job = Job::new();
        runs += 1;
        let mut reached = 0;
        loop {
            let mut child = job.start(&["--resume"]);
            // Of what takes a moment only, the moment is waited for.
            let killed = match (done < kills, done % 3) {
                (false, _) => false,
                (_, 0) => {
                    let moment = Duration::from_millis(random.below(whole));
                    let start = Instant::now();
                    job.until(&mut child, |_| start.elapsed() >= moment)
                }
                (_, 1) => {
                    let skip = Duration::from_millis(random.below(whole / 2));
                    let start = Instant::now();
                    let folder = job.run().join("checkpoints");
                    job.until(&mut child, |_| start.elapsed() >= skip && there(&folder, ".unfinished-"))
                }
                _ => job.until(&mut child, |job| there(&job.run(), ".model.onnx.")),
            };
            if killed {
                child.kill().unwrap();
                child.wait().unwrap();
                in_checkpoint += usize::from(there(&job.run().join("checkpoints"), ".unfinished-"));
                in_model += usize::from(there(&job.run(), ".model.onnx."));
                done += 1;
                let latest = job.store().latest().unwrap();
                assert!(latest.is_none_or(|latest| latest.damaged.is_empty()));
                let now = job.step();
                assert!(now >= reached, "from step {reached} back to {now}");
                reached = now;
                continue;
            }
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", error(&output));
            break;
        }
        let left = job.left();
        assert_eq!(left.log, expected.log, "run {runs}");
        assert!(left == expected, "run {runs} ends otherwise");
        assert!(!there(&job.run().join("checkpoints"), ".unfinished-") && !there(&job.run(), ".model.onnx."));
    }
    eprintln!(
        "{done} kills in {runs} runs, {in_checkpoint} while a checkpoint and {in_model} while the model was written"
    );
    assert!(in_checkpoint > 0, "no kill met the writing of a checkpoint");
}

/// Sends a signal to a run after it has done some steps, and returns how it ended.
fn signalled(job: &Job, signal: &str, times: usize) -> Output {
    let mut child = job.start(&[]);
    assert!(job.until(&mut child, |job| job.step() >= 4));
    for _ in 0..times {
        let status = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
        assert!(status.success() || times > 1);
    }
    child.wait_with_output().unwrap()
}

#[test]
fn signals_end_a_run_with_a_checkpoint_and_a_code_of_their_own() {
    let expected = undisturbed("");
    for (signal, code, told) in
        [("TERM", 143, "SIGTERM: stopping"), ("INT", 130, "Ctrl-C: stopping"), ("HUP", 129, "SIGHUP")]
    {
        let job = Job::new();
        let output = signalled(&job, signal, 1);
        assert_eq!(output.status.code(), Some(code), "{}", error(&output));
        assert!(error(&output).contains(told), "{}", error(&output));
        let last = job.log().into_iter().rev().find(|event| event["event"] == "step").unwrap();
        assert_eq!(job.step(), last["step"].as_u64().unwrap(), "the last step is saved");
        let again = job.train(&["--resume"]);
        assert!(again.status.success(), "{}", error(&again));
        assert!(job.left() == expected, "{signal}");
    }
    let job = Job::new();
    let output = signalled(&job, "INT", 2);
    assert_eq!(output.status.code(), Some(130));
    let again = job.train(&["--resume"]);
    assert!(again.status.success(), "{}", error(&again));
    assert!(job.left() == expected, "twice");
}

/// Runs the program where no file may be longer than some kB, as on a disk that is full.
fn on_a_full_disk(job: &Job, kilobytes: usize, args: &[&str]) -> Output {
    let mut command = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$@\"");
    command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_freeze-plan"), "train"]).arg(job.file()).arg("--no-plan");
    command.args(args).output().unwrap()
}

#[test]
fn a_full_disk_costs_no_more_than_the_work_since_the_last_checkpoint() {
    let digits = || Job { digits: true, more: "seed = 1\n".into(), ..Job::new() };
    let steps = "freeze.steps=2:1,4:3";
    let whole = digits();
    let output = whole.train(&["--set", steps]);
    assert!(output.status.success(), "{}", error(&output));
    let job = digits();
    let mut child = job.start(&["--set", steps]);
    assert!(job.until(&mut child, |job| job.step() >= 4));
    child.kill().unwrap();
    child.wait().unwrap();
    let before = job.step();
    // Logs and plans have room, tensors have not.
    let size = |path: PathBuf| fs::metadata(path).unwrap().len() / 1024;
    let latest = job.store().latest().unwrap().unwrap().path;
    let values = size(latest.join("values.safetensors"));
    let room = size(job.run().join("plan.json")) + 30;
    assert!(values > room, "{values} {room}");
    let output = on_a_full_disk(&job, room as usize, &["--resume", "--set", steps]);
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    let text = error(&output);
    assert!(text.contains("warning: no checkpoint of step") && text.contains("the last is of step"), "{text}");
    assert!(text.contains("model.onnx: File too large"), "{text}");
    assert_eq!(job.step(), before, "what was saved before is still there");
    assert!(!there(&job.run().join("checkpoints"), ".unfinished-") && !there(&job.run(), ".model.onnx."));
    let again = job.train(&["--resume", "--set", steps]);
    assert!(again.status.success(), "{}", error(&again));
    assert!(job.left() == whole.left());
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_taken() {
    let expected = undisturbed("");
    let job = Job::new();
    assert_eq!(signalled(&job, "TERM", 1).status.code(), Some(143));
    let newest = job.store().list()[0].1.join("slots.safetensors");
    let mut bytes = fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&newest, bytes).unwrap();
    let output = job.train(&["--resume"]);
    assert!(output.status.success(), "{}", error(&output));
    let text = error(&output);
    assert!(text.contains("slots.safetensors is damaged: its sha256 is"), "{text}");
    assert!(text.contains("the run goes on from the checkpoint before it"), "{text}");
    assert!(job.left() == expected);
    for (_, path) in job.store().list() {
        fs::remove_file(path.join("run.json")).unwrap();
    }
    let output = job.train(&["--resume"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("cannot read") && error(&output).contains("run.json"), "{}", error(&output));
}

#[test]
fn a_changed_job_is_accepted_or_refused_key_by_key() {
    let job = Job::new();
    assert_eq!(signalled(&job, "TERM", 1).status.code(), Some(143));
    let refused = |args: &[&str]| {
        let output = job.train(&[&["--resume"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", error(&output));
        error(&output)
    };
    let text = refused(&["--set", "optimizer.lr=0.5", "--set", "data.batch=4", "--set", "run.log_every=3"]);
    assert!(text.contains("optimizer.lr was 0.01 and is 0.5: the slots are those"), "{text}");
    assert!(text.contains("data.batch was 8 and is 4: the rows and their order"), "{text}");
    assert!(!text.contains("log_every"), "{text}");
    let text = refused(&["--set", "freeze.steps=2:1"]);
    assert!(text.contains("freeze.steps was ") && text.contains("a part of it is done"), "{text}");
    let text = refused(&["--set", "schedule.kind=cosine", "--set", "schedule={kind=\"cosine\"}"]);
    assert!(text.contains("schedule.kind was \"step\" and is \"cosine\""), "{text}");
    let output = job.train(&["--resume", "--dry-run", "--set", "optimizer.lr=0.5"]);
    assert_eq!(output.status.code(), Some(2), "{}", error(&output));
    let output = job.train(&["--resume", "--dry-run", "--set", "run.threads=2"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", error(&output));
    for part in ["a step and a batch of the eval data ran", "run.threads was 1 and is 2", "48 rows", "would go on from"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    // The rates of this schedule do not depend on the length of the run.
    let output = job.train(&["--resume", "--set", "run.epochs=7", "--set", "run.threads=2"]);
    assert!(output.status.success(), "{}", error(&output));
    let text = error(&output);
    assert!(text.contains("run.epochs was 6 and is 7: what is done stays as it is"), "{text}");
    assert!(text.contains("run.threads was 1 and is 2: the run need not end with the same bits"), "{text}");
    assert_eq!(job.step(), 42);
}

#[test]
fn what_cannot_go_on_says_why() {
    let job = Job::new();
    // Nothing is there yet: the run begins, as a job of a cluster wants it that always resumes.
    let output = job.train(&["--resume"]);
    assert!(output.status.success(), "{}", error(&output));
    assert!(error(&output).contains("holds no checkpoint: the run begins"), "{}", error(&output));
    let left = job.left();
    // A run that is over is over.
    let output = job.train(&["--resume"]);
    assert!(output.status.success(), "{}", error(&output));
    assert!(job.left() == left);
    let output = job.train(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error(&output).contains("holds an earlier run") && error(&output).contains("--resume"),
        "{}",
        error(&output)
    );
    let output = job.train(&["--set", "run.dir=/proc/freeze-plan"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("cannot make the folder /proc/freeze-plan"), "{}", error(&output));
    let output = job.train(&["--resume", "--set", "data.train=gone.npz"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("cannot read") && error(&output).contains("gone.npz"), "{}", error(&output));

    let held = Job::new();
    let mut child = held.start(&[]);
    assert!(held.until(&mut child, |job| job.step() >= 2));
    let output = held.train(&["--resume"]);
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    assert!(error(&output).contains("another process trains in"), "{}", error(&output));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_best_epoch_is_what_is_written_where_that_is_wanted() {
    let job = Job::with("");
    let output = job.train(&[
        "--set",
        "checkpoint.export=best",
        "--set",
        "schedule={kind=\"multistep\", milestones=[3], gamma=1000.0}",
        "--set",
        "checkpoint.keep=1",
    ]);
    assert!(output.status.success(), "{}", error(&output));
    let epochs: Vec<Value> = job.log().into_iter().filter(|event| event["event"] == "epoch").collect();
    let loss = |event: &Value| event["metrics"]["loss"].as_f64().unwrap_or(f64::MAX);
    let best = epochs.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap()["epoch"].as_u64().unwrap();
    assert!(best < EPOCHS as u64, "the last epoch is the best: the test shows nothing");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains(&format!("(weights of epoch {best}, the best)")), "{told}");
    let kept = load(&job.store().best().unwrap()).unwrap();
    assert_eq!(kept.epoch, best);
    let model = freeze_plan::onnx::read(&job.run().join("model.onnx")).unwrap().model;
    for (_, value, tensor) in model.graph.initializers() {
        assert!(kept.groups["averages"].get(&value.name).is_none_or(|average| average == tensor), "{}", value.name);
    }
}
