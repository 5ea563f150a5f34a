//! Trains the digit fixtures with every freezing policy and prints what each gave as a table in Markdown.
//!
//! `cargo bench --bench policies -- [--seeds N] [--only NAME] [--output FILE]`. Runs are interleaved: all policies with
//! one seed, then all with the next, on one thread. A seed is that of the run and of the order of rows; all start from
//! the weights of the file.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A fixture, and what freezing policies are run on it.
struct Fixture {
    folder: &'static str,
    about: &'static str,
}

const FIXTURES: [Fixture; 2] = [
    Fixture {
        folder: "digits",
        about: "small residual network with BatchNorm, SGD with momentum, cosine rate, 20 epochs of 23 steps",
    },
    Fixture {
        folder: "digits_vit",
        about: "vision transformer of 4 blocks with Dropout, AdamW, cosine rate, 30 epochs of 23 steps",
    },
];

/// A policy with its settings, and other keys of the job that go with it.
const POLICIES: &[(&str, &[&str], &[&str])] = &[
    ("none", &[], &[]),
    ("linear", &[], &[]),
    ("linear", &["freeze_start=0.0"], &[]),
    ("linear", &[], &["freeze.batch_norm=frozen"]),
    ("freezeout", &[], &["schedule={kind=\"constant\"}"]),
    ("freezeout", &["t_0=0.5", "how=linear", "scaled=false"], &["schedule={kind=\"constant\"}"]),
    ("svcca-linear", &[], &[]),
    ("geometric", &["alpha=0.1"], &[]),
    ("steps", &["steps=[{epoch=8,frozen=2},{epoch=14,frozen=4}]"], &[]),
    ("thaw", &[], &[]),
    ("cyclic", &[], &[]),
    ("gradient", &[], &[]),
    ("plasticity", &["every=10", "window=3", "tolerance=1e-4"], &[]),
    ("similarity", &[], &[]),
    ("fisher", &[], &[]),
    ("relative-change", &["rate=0.5"], &[]),
    ("budget", &[], &["freeze.on_return=keep"]),
];

/// What a run gave.
#[derive(Clone, Debug, Default)]
struct Result {
    accuracy: f64,
    /// Seconds of all steps.
    steps: f64,
    /// Seconds of the whole run.
    total: f64,
    /// Seconds to get phases ready and to measure signals.
    beside: f64,
    phases: usize,
    /// Flops of the plan that was followed, relative to nothing frozen.
    flops: f64,
    /// Share of the units that is frozen at the end.
    frozen: f64,
    /// Fraction of the steps' time that was predicted to be saved, and that was; medians of steps by frozen set.
    gain: Option<(f64, f64)>,
}

fn run(fixture: &Fixture, (policy, settings, more): (&str, &[&str], &[&str]), seed: usize) -> Result {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::temp_dir().join(format!("freeze-plan-policies-{}", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_freeze-plan"));
    command
        .arg("train")
        .arg(root.join("fixtures").join(fixture.folder).join("job.toml"))
        .arg("--overwrite")
        .arg("--no-plan");
    let mut set = vec![
        format!("run.dir={:?}", folder.display().to_string()),
        "run.threads=1".into(),
        "run.log_every=1".into(),
        format!("run.seed={seed}"),
        format!("data.seed={seed}"),
        format!("freeze={{policy={policy:?}}}"),
    ];
    set.extend(settings.iter().map(|setting| format!("freeze.{setting}")));
    set.extend(more.iter().map(|setting| (*setting).to_string()));
    set.iter().for_each(|setting| {
        command.arg("--set").arg(setting);
    });
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let result = read(&folder);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn read(folder: &Path) -> Result {
    let events = std::fs::read_to_string(folder.join("events.jsonl")).expect("a run writes its events");
    let mut result = Result::default();
    for event in events.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event is JSON")) {
        let number = |key: &str| event[key].as_f64().unwrap_or(0.0);
        match event["event"].as_str().unwrap_or_default() {
            "step" => result.steps += number("seconds"),
            "phase" => {
                result.beside += number("seconds");
                result.phases += 1;
            }
            "gain" => result.gain = Some((number("predicted_steps"), number("steps"))),
            "observation" => result.beside += number("seconds"),
            "end" => {
                result.accuracy = event["metrics"]["accuracy"].as_f64().unwrap_or(0.0);
                result.total = number("seconds");
            }
            _ => {}
        }
    }
    let plan = std::fs::read_to_string(folder.join("plan.json")).expect("a run writes its plan");
    let plan: Value = serde_json::from_str(&plan).expect("a plan is JSON");
    result.flops = plan["summary"]["cost_ratio"].as_f64().unwrap_or(1.0);
    let (units, last) =
        (plan["units"].as_array().map_or(1, Vec::len), plan["epochs"].as_array().and_then(|e| e.last()));
    let last = last.map(|epoch| epoch["changes"].as_array().and_then(|c| c.last()).unwrap_or(epoch).clone());
    result.frozen = last.and_then(|epoch| epoch["frozen_units"].as_f64()).unwrap_or(0.0) / units.max(1) as f64;
    result
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let seeds: usize = value("--seeds").and_then(|text| text.parse().ok()).unwrap_or(3);
    let only = value("--only");
    let mut page = String::new();
    for fixture in &FIXTURES {
        let chosen =
            POLICIES.iter().filter(|policy| policy.0 == "none" || only.as_deref().is_none_or(|only| only == policy.0));
        let chosen: Vec<_> = chosen.collect();
        let mut results: Vec<Vec<Result>> = vec![Vec::new(); chosen.len()];
        for seed in 0..seeds {
            for (policy, results) in chosen.iter().zip(&mut results) {
                let result = run(fixture, (policy.0, policy.1, policy.2), seed);
                eprintln!("{} seed {seed} {} {:?}: {result:?}", fixture.folder, policy.0, policy.1);
                results.push(result);
            }
        }
        page += &table(fixture, &chosen, &results);
    }
    print!("{page}");
    if let Some(path) = value("--output") {
        std::fs::write(&path, page).expect("the table can be written");
    }
}

fn table(fixture: &Fixture, policies: &[&(&str, &[&str], &[&str])], results: &[Vec<Result>]) -> String {
    let mut text = format!("### `fixtures/{}`\n\n{}.\n\n", fixture.folder, capital(fixture.about));
    text += "| policy | accuracy, mean (seeds) | run, s | flops saved | steps predicted / measured | beside `none` | phases and signals, s | phases | frozen at the end |\n";
    text += "|---|---|---|---|---|---|---|---|---|\n";
    let base = results.first().expect("the first policy is none");
    for (policy, results) in policies.iter().zip(results) {
        let settings: Vec<&str> = policy.1.iter().chain(policy.2).copied().collect();
        let settings = if settings.is_empty() { String::new() } else { format!(" ({})", settings.join(", ")) };
        let accuracies: Vec<String> = results.iter().map(|result| format!("{:.2}", 100.0 * result.accuracy)).collect();
        // Each run beside the one with nothing frozen of the same seed, which was made in the same round.
        let saved = results.iter().zip(base).map(|(result, base)| 1.0 - result.steps / base.steps);
        let gains: Vec<(f64, f64)> = results.iter().filter_map(|result| result.gain).collect();
        let gain = match gains.as_slice() {
            [] => "–".to_string(),
            gains => format!(
                "{:.0} / {:.0} %",
                100.0 * median(gains.iter().map(|gain| gain.0)),
                100.0 * median(gains.iter().map(|gain| gain.1))
            ),
        };
        text += &format!(
            "| `{}`{settings} | {:.2} % ({}) | {:.1} | {:.1} % | {gain} | {:.0} % | {:.1} | {:.0} | {:.0} % |\n",
            policy.0,
            100.0 * mean(results.iter().map(|result| result.accuracy)),
            accuracies.join(", "),
            median(results.iter().map(|result| result.total)),
            100.0 * mean(results.iter().map(|result| 1.0 - result.flops)),
            100.0 * median(saved),
            median(results.iter().map(|result| result.beside)),
            mean(results.iter().map(|result| result.phases as f64)),
            100.0 * mean(results.iter().map(|result| result.frozen)),
        );
    }
    text + "\n"
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
