//! What a person sees of a run: the plan in a few lines, a line for each epoch and each freeze, and on a terminal one
//! live line below them.

mod live;
mod phases;
mod standing;
mod text;

pub use text::metric;

use super::printable::{line, lines};
use crate::plan::FreezePlan;
use crate::report::{plan_brief, plan_table};
use crate::runner::{Precision, RunEvent, Timed, what_is_kept, what_is_not_finite};
use crate::sinks::Sink;
use console::Term;
use live::Live;
use phases::Phases;
use standing::Standing;
use std::io::{self, IsTerminal, Write};
use text::{count, loss, metric_value, percent, rate, wrap};

/// Seconds between two lines about steps where there is no live line.
const BETWEEN: f64 = 10.0;
/// Columns that a live line leaves free: a terminal writes `^C` there.
const FREE: usize = 3;

/// What a run shows
#[derive(clap::Args, Clone, Debug)]
pub struct ScreenArgs {
    /// Show the plan as a table first, with all its notes
    #[arg(long, conflicts_with = "no_plan")]
    show_plan: bool,
    /// Do not show the plan first
    #[arg(long)]
    no_plan: bool,
    /// Show only warnings and the result
    #[arg(long, short)]
    quiet: bool,
    /// Write the events of the run to stdout, one JSON object a line; the result goes to stderr then
    #[arg(long)]
    pub json: bool,
}

/// The display of a run, on stderr.
pub struct Screen {
    args: ScreenArgs,
    printer: Printer,
    standing: Standing,
    phases: Phases,
    /// The line of a phase whose predecessor was not told yet.
    pending: Option<String>,
    /// When a line was printed last, and when memory was looked at, in seconds of the run.
    printed: f64,
    looked: f64,
}

/// Prints lines above the live line.
#[derive(Clone)]
pub struct Printer {
    live: Option<Live>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Freeze,
    Warning,
}

impl Screen {
    /// Returns a display that shows nothing yet.
    pub fn new(args: &ScreenArgs) -> Screen {
        let dumb = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb") && cfg!(unix);
        let shared = args.json && io::stdout().is_terminal();
        let live = io::stderr().is_terminal() && !dumb && !args.quiet && !shared;
        Screen {
            args: args.clone(),
            printer: Printer { live: live.then(|| Live::new(Term::stderr())) },
            standing: Standing::default(),
            phases: Phases::default(),
            pending: None,
            printed: 0.0,
            looked: f64::NEG_INFINITY,
        }
    }

    /// Shows the plan, as far as it was asked for.
    pub fn plan(&mut self, plan: &FreezePlan) {
        self.standing.units = plan.units.len();
        self.phases.plan(plan);
        if self.args.show_plan {
            self.printer.raw(&format!("{}\n", lines(&plan_table(plan))));
        } else if !self.args.no_plan && !self.args.quiet {
            plan_brief(plan).iter().for_each(|text| self.printer.line(text));
            if !plan.summary.notes.is_empty() {
                let notes = count(plan.summary.notes.len(), "note");
                self.printer.line(&format!("({notes} on this plan: --show-plan shows the table and all notes)"));
            }
            self.printer.raw("\n");
        }
    }

    /// Prints what is good to know and no warning.
    pub fn note(&self, text: &str) {
        if !self.args.quiet {
            self.printer.line(text);
        }
    }

    /// Prints what the search for an engine says: warnings in any case.
    pub fn engine(&self, text: &str) {
        match text.starts_with("warning") {
            true => self.printer.line(text),
            false => self.note(text),
        }
    }

    /// Returns what prints lines from elsewhere, such as the handler of a signal.
    pub fn printer(&self) -> Printer {
        self.printer.clone()
    }

    fn show(&mut self, timed: &Timed) {
        self.standing.take(timed);
        let phase = self.pending.take().map(|text| (Tone::Freeze, text));
        let is_speed = matches!(timed.event, RunEvent::Speed { .. });
        let mut told = match &timed.event {
            RunEvent::Speed { .. } => {
                let measured = self.phases.measured(&timed.event, self.standing.epoch);
                measured.map(|text| (Tone::Freeze, text)).into_iter().collect()
            }
            RunEvent::Phase { .. } => {
                self.pending = self.phases.begins(&timed.event);
                Vec::new()
            }
            event => told(event, self.standing.epochs),
        };
        // What the phase before took is told after the next one has begun.
        let place = if is_speed { told.len() } else { 0 };
        phase.into_iter().for_each(|line| told.insert(place, line));
        told.iter().for_each(|(tone, text)| self.tell(timed, *tone, text));
        self.refresh(timed);
    }

    fn tell(&mut self, timed: &Timed, tone: Tone, text: &str) {
        if self.args.quiet && tone != Tone::Warning {
            return;
        }
        self.printed = timed.time;
        self.printer.toned(tone, text);
    }

    /// Shows where the run stands.
    fn refresh(&mut self, timed: &Timed) {
        if timed.time - self.looked >= 1.0 {
            (self.standing.memory, self.looked) = (resident_bytes(), timed.time);
        }
        match (&self.printer.live, &timed.event) {
            (Some(live), RunEvent::End { .. }) => live.close(),
            (Some(live), RunEvent::Start { .. }) => live.set("preparing the first phase".into()),
            (Some(live), RunEvent::Phase { .. } | RunEvent::Step { .. } | RunEvent::Epoch { .. }) => {
                live.set(self.standing.line(columns().saturating_sub(FREE)));
            }
            (None, RunEvent::Step { .. }) if !self.args.quiet && timed.time - self.printed >= BETWEEN => {
                self.tell(timed, Tone::Plain, &self.standing.line(usize::MAX));
            }
            _ => {}
        }
    }
}

impl Sink for Screen {
    fn name(&self) -> String {
        "stderr".into()
    }

    fn take(&mut self, timed: &Timed) -> io::Result<()> {
        self.show(timed);
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.printer.clear();
    }
}

impl Printer {
    /// Prints a line.
    pub fn line(&self, text: &str) {
        self.toned(Tone::Plain, text);
    }

    /// Takes the live line away.
    pub fn clear(&self) {
        self.live.iter().for_each(Live::close);
    }

    fn toned(&self, tone: Tone, text: &str) {
        let width = if io::stderr().is_terminal() { columns() } else { usize::MAX };
        let style = match tone {
            Tone::Plain => console::Style::new(),
            Tone::Freeze => console::Style::new().cyan(),
            Tone::Warning => console::Style::new().yellow(),
        };
        let style = style.for_stderr();
        let text = line(text);
        let lines: Vec<String> = wrap(&text, width).iter().map(|line| format!("{}\n", style.apply_to(line))).collect();
        self.raw(&lines.concat());
    }

    /// Prints text as it is. That stderr is closed is no reason to stop.
    fn raw(&self, text: &str) {
        match &self.live {
            Some(live) => live.print(text),
            None => {
                let _ = io::stderr().lock().write_all(text.as_bytes());
            }
        }
    }
}

/// Returns the columns of the terminal.
fn columns() -> usize {
    usize::from(Term::stderr().size().1).max(10)
}

/// Returns the lines of an event that is told as it stands.
fn told(event: &RunEvent, epochs: usize) -> Vec<(Tone, String)> {
    let text = match event {
        RunEvent::Start { engine, engine_version, device, threads, precision, .. } => {
            let precision = if *precision == Precision::Fp32 { String::new() } else { format!(", {precision}") };
            format!("{engine} {engine_version} on {device}, {}{precision}", count(*threads, "thread"))
        }
        RunEvent::Epoch { epoch, train_loss, metrics, seconds, samples_per_second, wait_seconds, .. } => {
            let loss_first = metrics.get_key_value("loss").into_iter();
            let others = metrics.iter().filter(|(name, _)| *name != "loss");
            let metrics = loss_first.chain(others).enumerate().map(|(index, (name, value))| {
                format!("{}{name} {}", if index == 0 { "eval " } else { "" }, metric_value(name, *value))
            });
            let mut fields = vec![format!("epoch {epoch:>3}/{epochs}"), format!("loss {}", loss(*train_loss))];
            fields.extend(metrics);
            fields.extend([format!("{seconds:.1} s"), format!("{}/s", rate(*samples_per_second))]);
            let waited = wait_seconds / seconds.max(f64::MIN_POSITIVE);
            fields.extend((waited >= 0.01).then(|| format!("waiting for data {}", percent(waited))));
            fields.join("  ")
        }
        RunEvent::Cache { .. } => what_is_kept(event).unwrap_or_default(),
        RunEvent::Warning { message } => return vec![(Tone::Warning, format!("warning: {message}"))],
        RunEvent::Resume { epoch, step, .. } => format!("goes on in epoch {epoch}, after step {step}"),
        RunEvent::Rollback { epoch, to_epoch, metric, before, after, delay, .. } => {
            let after = after.map_or_else(|| "no number".into(), |after| metric_value(metric, after));
            format!(
                "rollback after epoch {epoch}: eval {metric} went from {} to {after}; back to epoch {to_epoch}, freezes \
                 come {} later",
                metric_value(metric, *before),
                count(*delay, "epoch")
            )
        }
        RunEvent::Nonfinite { epoch, step, .. } => {
            let what = what_is_not_finite(event).unwrap_or_default();
            return vec![(Tone::Warning, format!("warning: epoch {epoch}, step {step}: {what}"))];
        }
        RunEvent::LossScale { epoch, step, scale, overflow: true } => {
            format!("epoch {epoch}, step {step}: overflow, the step is skipped; the scale of the loss is now {scale}")
        }
        RunEvent::EarlyStop { epoch, metric, best_epoch, best, evaluations } => {
            let since = match (best_epoch, best) {
                (Some(epoch), Some(best)) => format!(" since epoch {epoch} ({})", metric_value(metric, *best)),
                _ => String::new(),
            };
            let times = count(usize::try_from(*evaluations).unwrap_or(usize::MAX), "evaluation");
            format!("stopping early after epoch {epoch}: {metric} did not get better in {times}{since}")
        }
        RunEvent::Ceiling(ceiling) => {
            let mut told: Vec<(Tone, String)> =
                ceiling.sentences().into_iter().map(|sentence| (Tone::Plain, sentence)).collect();
            if let Some((tone, reason)) = told.last_mut().filter(|_| ceiling.reason.is_some()) {
                *tone = Tone::Warning;
                reason.insert_str(0, "warning: ");
            }
            return told;
        }
        RunEvent::Gain { predicted, steps, gain, .. } => format!(
            "predicted to save {}; the steps saved {}, with phase changes {}",
            percent(*predicted),
            percent(*steps),
            percent(*gain)
        ),
        _ => return Vec::new(),
    };
    vec![(Tone::Plain, text)]
}

/// Returns the resident memory of this process in bytes; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
