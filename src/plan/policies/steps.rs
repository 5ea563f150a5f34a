//! Freezes and unfreezes what a list says, epoch by epoch.
//!
//! *Idea.* Each entry of the list says what is frozen from its moment on, until the next entry. Before the first one
//! nothing is. An entry replaces the one before it, so units freeze and thaw in both directions:
//!
//! ```toml
//! steps = [
//!     { epoch = 3, frozen = 4 },                               # the first 4 units, while epoch 3 trains
//!     { epoch = 6, step = 200, frozen = ["stem.*", "re:layer1.*"] },  # these, after 200 steps of epoch 6
//!     { epoch = 8, frozen = 0 },                               # nothing
//! ]
//! ```
//!
//! `frozen` is a count of units from the input side, a fraction of the units with a decimal point (0.5, rounded
//! down), or patterns on unit paths: globs, or regular expressions after `re:`. With `unit = "parameter"` a unit is a
//! single tensor and its path the tensor's name.
//!
//! *Signals.* None: epochs and steps. With unknown steps an entry within an epoch is shown at the start of the next.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `steps` | entries with `epoch` (from 1), `step` (done in that epoch, from 0) and `frozen`, in order of time | | none, it must be given |
//!
//! On the command line also `--set steps=3:4,6+200:0.5,8:0`, that is `EPOCH:FROZEN` or `EPOCH+STEP:FROZEN`.
//!
//! *Does nothing* where every entry freezes 0 units.
//!
//! *Source.* What users of many libraries ask for: freezing and unfreezing at epoch N as configuration.
//!
//! *Known negative results.* Those of the list: freezing early costs accuracy, and what is frozen above a unit that
//! trains saves its weight gradient only.

use super::Entry;
use crate::error::nearest;
use crate::modules::Unit;
use crate::plan::selection::{Pattern, nearby};
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, PlanError, Policy, Preset, Range, Run};
use serde_json::{Map, Value};

/// Freezes what a list says.
#[derive(Clone)]
pub struct Steps {
    entries: Vec<Step>,
    settings: Map<String, Value>,
}

/// From when on what is frozen.
#[derive(Clone)]
struct Step {
    epoch: usize,
    after: usize,
    frozen: Named,
}

#[derive(Clone)]
enum Named {
    First(usize),
    Share(f64),
    Matching(Vec<(String, Pattern)>),
}

const KNOB: &str = "steps";
const FORM: &str = "a list such as [{ epoch = 3, frozen = 4 }, { epoch = 6, frozen = [\"stem.*\"] }], or 3:4,6:0";
const KEYS: [&str; 3] = ["epoch", "step", "frozen"];

pub(super) static ENTRY: Entry = Entry {
    name: "steps",
    knobs: &[Knob {
        name: KNOB,
        about: "what is frozen from which epoch, and step of it, on",
        range: Range::Any,
        default: Preset::Unset("none"),
    }],
    unit: None,
    card: include_str!("steps.rs"),
    new: |knobs| Ok(Box::new(Steps::new(knobs)?)),
};

impl Steps {
    fn new(knobs: &Knobs<'_>) -> Result<Steps, PlanError> {
        let entries = match knobs.given(KNOB) {
            None => Vec::new(),
            Some(Value::String(text)) => numbered(text.split(','), |item| short(item.trim()))?,
            Some(Value::Array(list)) => numbered(list, table)?,
            Some(other) => return Err(wrong(other.to_string())),
        };
        for (position, pair) in entries.windows(2).enumerate() {
            if let [before, entry] = pair
                && (before.epoch, before.after) >= (entry.epoch, entry.after)
            {
                let reason = format!("{} does not come after {}", entry.moment(), before.moment());
                return Err(PlanError::Item { name: KNOB, item: position + 2, reason });
            }
        }
        Ok(Steps { entries, settings: knobs.settings() })
    }
}

impl Step {
    /// Returns after how many steps of the run it holds.
    fn position(&self, run: Run) -> usize {
        let within = if run.steps_per_epoch == 1 { usize::from(self.after > 0) } else { self.after };
        (self.epoch - 1).saturating_mul(run.steps_per_epoch).saturating_add(within)
    }

    fn moment(&self) -> String {
        match self.after {
            0 => format!("epoch {}", self.epoch),
            after => format!("step {after} of epoch {}", self.epoch),
        }
    }

    fn frozen(&self, units: &[Unit]) -> FrozenSet {
        match &self.frozen {
            Named::First(count) => FrozenSet::prefix(units.len(), *count),
            Named::Share(share) => FrozenSet::prefix(units.len(), (share * units.len() as f64) as usize),
            Named::Matching(patterns) => {
                let matches = |unit: &Unit| patterns.iter().any(|(_, pattern)| pattern.matches(&unit.path));
                FrozenSet::from(units.iter().map(matches).collect::<Vec<bool>>())
            }
        }
    }

    /// Returns what is wrong with it for a model.
    fn misfit(&self, units: &[Unit]) -> Option<String> {
        match &self.frozen {
            Named::First(count) if *count > units.len() => {
                Some(format!("frozen is {count}, the model has {} units", units.len()))
            }
            Named::First(_) | Named::Share(_) => None,
            Named::Matching(patterns) => {
                let matches_none =
                    |pattern: &&(String, Pattern)| !units.iter().any(|unit| pattern.1.matches(&unit.path));
                let (text, _) = patterns.iter().find(matches_none)?;
                let near = nearby(units.iter().map(|unit| unit.path.as_str()), text);
                let near: Vec<String> = near.iter().map(|name| format!("\"{name}\"")).collect();
                let near = if near.is_empty() { String::new() } else { format!(" (near: {})", near.join(", ")) };
                Some(format!("pattern \"{text}\" matches no unit{near}"))
            }
        }
    }

    /// Returns what is wrong with it for a run.
    fn outside(&self, run: Run) -> Option<String> {
        if self.epoch > run.epochs {
            return Some(format!("epoch {} comes after the last one, {}", self.epoch, run.epochs));
        }
        let beyond = run.steps_per_epoch > 1 && self.after >= run.steps_per_epoch;
        beyond.then(|| format!("step {} is not within an epoch of {} steps", self.after, run.steps_per_epoch))
    }
}

/// Reads entries, each with its number, from 1, where one is refused.
fn numbered<T>(
    items: impl IntoIterator<Item = T>,
    read: impl Fn(T) -> Result<Step, String>,
) -> Result<Vec<Step>, PlanError> {
    let item = |(position, item)| read(item).map_err(|reason| (position, reason));
    let entries: Result<Vec<Step>, (usize, String)> = items.into_iter().enumerate().map(item).collect();
    entries.map_err(|(position, reason)| PlanError::Item { name: KNOB, item: position + 1, reason })
}

/// Reads `EPOCH:FROZEN` or `EPOCH+STEP:FROZEN`.
fn short(text: &str) -> Result<Step, String> {
    let form = || format!("\"{text}\" is not EPOCH:FROZEN or EPOCH+STEP:FROZEN");
    let (moment, frozen) = text.split_once(':').ok_or_else(form)?;
    let (epoch, after) = moment.split_once('+').unwrap_or((moment, "0"));
    let number = |text: &str| text.trim().parse::<u64>().map(Value::from).map_err(|_| form());
    let frozen = serde_json::from_str::<Value>(frozen.trim()).ok().filter(Value::is_number).ok_or_else(form)?;
    step(&number(epoch)?, &number(after)?, &frozen)
}

/// Reads a table with the keys of [`KEYS`].
fn table(value: &Value) -> Result<Step, String> {
    let table = value.as_object().ok_or_else(|| format!("found {value}, expected {{ epoch = .., frozen = .. }}"))?;
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let meant = nearest(key, KEYS).map(|name| format!(" (nearest: \"{name}\")")).unwrap_or_default();
        return Err(format!("there is no key \"{key}\"{meant}, expected {}", KEYS.join(", ")));
    }
    let required = |key: &str| table.get(key).ok_or_else(|| format!("{key} is not given"));
    step(required("epoch")?, table.get("step").unwrap_or(&Value::from(0)), required("frozen")?)
}

fn step(epoch: &Value, after: &Value, frozen: &Value) -> Result<Step, String> {
    let whole = |name: &str, value: &Value, least: u64| {
        let number = value.as_u64().filter(|number| *number >= least).and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| format!("{name} is {value}, expected a whole number of {least} or more"))
    };
    Ok(Step { epoch: whole("epoch", epoch, 1)?, after: whole("step", after, 0)?, frozen: named(frozen)? })
}

fn named(value: &Value) -> Result<Named, String> {
    let refused = || format!("frozen is {value}, expected a count of units, a fraction in [0, 1] or patterns");
    let pattern = |value: &Value| {
        let text = value.as_str().ok_or_else(refused)?;
        let pattern = Pattern::new("frozen", text).map_err(|error| error.to_string())?;
        Ok((text.to_string(), pattern))
    };
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(count), _) => usize::try_from(count).map(Named::First).map_err(|_| refused()),
            (None, Some(share)) if (0.0..=1.0).contains(&share) => Ok(Named::Share(share)),
            _ => Err(refused()),
        },
        Value::String(_) => Ok(Named::Matching(vec![pattern(value)?])),
        Value::Array(list) => Ok(Named::Matching(list.iter().map(pattern).collect::<Result<_, String>>()?)),
        _ => Err(refused()),
    }
}

fn wrong(found: impl Into<String>) -> PlanError {
    PlanError::Knob { name: KNOB, found: found.into(), expected: FORM.into() }
}

impl Policy for Steps {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let holds = |entry: &&Step| entry.position(at.run()) <= at.steps();
        let last = self.entries.iter().take_while(holds).last();
        Decision::of(last.map_or_else(|| FrozenSet::none(at.units.len()), |entry| entry.frozen(at.units)))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn points(&self, run: Run, _units: usize) -> Vec<usize> {
        self.entries.iter().map(|entry| entry.position(run)).collect()
    }

    fn check(&self, units: &[Unit]) -> Result<(), PlanError> {
        if self.entries.is_empty() {
            return Err(wrong(if self.settings.contains_key(KNOB) { "empty" } else { "not given" }));
        }
        first(&self.entries, |entry| entry.misfit(units))
    }

    fn check_run(&self, run: Run) -> Result<(), PlanError> {
        first(&self.entries, |entry| entry.outside(run))
    }
}

/// Refuses the first entry with which something is wrong.
fn first(entries: &[Step], wrong: impl Fn(&Step) -> Option<String>) -> Result<(), PlanError> {
    let mut refused = entries.iter().enumerate().filter_map(|(position, entry)| Some((position, wrong(entry)?)));
    refused.next().map_or(Ok(()), |(position, reason)| Err(PlanError::Item { name: KNOB, item: position + 1, reason }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{frozen, policy};
    use super::*;
    use crate::error::ErrorKind;
    use crate::plan::testing::{chain, six_units};
    use crate::plan::{PlanOptions, build};
    use serde_json::json;

    fn options(steps: Value) -> PlanOptions {
        PlanOptions::of("steps").with("steps", steps)
    }

    fn counts(steps: Value, epochs: usize) -> Vec<usize> {
        let plan = build(&six_units().inputs(epochs), &options(steps)).unwrap();
        plan.epochs.iter().map(|epoch| epoch.frozen_units).collect()
    }

    #[test]
    fn units_freeze_and_thaw_when_the_list_says() {
        let steps = json!([
            {"epoch": 3, "frozen": 4},
            {"epoch": 6, "frozen": ["stem.*", "re:^layer1.*conv"]},
            {"epoch": 8, "frozen": 0},
            {"epoch": 9, "frozen": 0.5},
            {"epoch": 10, "frozen": "fc"},
        ]);
        assert_eq!(counts(steps.clone(), 10), [0, 0, 4, 4, 4, 4, 4, 0, 3, 1]);
        let plan = build(&six_units().inputs(10), &options(steps)).unwrap();
        let long = "layer1.0.a_module_with_a_long_path.conv2.weight";
        let named = ["stem.conv.weight", "stem.bn.weight", "stem.bn.bias", "layer1.0.conv1.weight", long];
        assert_eq!(plan.epochs[5].frozen, named);
        assert_eq!(plan.epochs[9].frozen, ["fc.weight", "fc.bias"]);
    }

    #[test]
    fn the_short_form_says_the_same() {
        let long =
            json!([{"epoch": 3, "frozen": 4}, {"epoch": 6, "step": 20, "frozen": 0.5}, {"epoch": 8, "frozen": 0}]);
        let run = Run { epochs: 9, steps_per_epoch: 50 };
        let chain = chain(6);
        let both = [long, json!("3:4, 6+20:0.5,8:0")].map(|steps| policy(&options(steps)));
        assert_eq!(both[0].points(run, 6), [100, 270, 350]);
        assert_eq!(both[0].points(run, 6), both[1].points(run, 6));
        assert_eq!(frozen(both[0].as_ref(), &chain, run), frozen(both[1].as_ref(), &chain, run));
    }

    #[test]
    fn a_step_within_an_epoch_acts_there_or_at_the_start_of_the_next() {
        let steps = policy(&options(json!("1+3:2,2+9:0")));
        let chain = chain(3);
        let known = Run { epochs: 3, steps_per_epoch: 10 };
        assert_eq!(steps.points(known, 3), [3, 19]);
        assert_eq!(frozen(steps.as_ref(), &chain, known), ["...", "##.", "...", "..."]);
        let unknown = Run { epochs: 3, steps_per_epoch: 1 };
        assert_eq!(frozen(steps.as_ref(), &chain, unknown), ["...", "##.", "...", "..."]);
        let mut inputs = chain.inputs(3);
        inputs.steps_per_epoch = 10;
        let plan = build(&inputs, &options(json!("1+3:2,2+9:0"))).unwrap();
        let changes: Vec<(usize, usize, usize)> = plan
            .epochs
            .iter()
            .flat_map(|epoch| &epoch.changes)
            .map(|change| (change.epoch, change.after, change.frozen_units))
            .collect();
        assert_eq!(changes, [(1, 3, 2), (2, 9, 0)]);
    }

    #[test]
    fn few_units_and_short_runs_are_taken_as_they_are() {
        for (units, text, expected) in [(0, "1:0", ""), (1, "1:1", "#"), (2, "1:1", "#."), (2, "1:0.9", "#.")] {
            let policy = policy(&options(json!(text)));
            let run = Run { epochs: 1, steps_per_epoch: 1 };
            assert_eq!(frozen(policy.as_ref(), &chain(units), run), [expected, expected]);
        }
    }

    #[test]
    fn mistakes_are_named_with_their_entry() {
        let expected = "expected a list such as [{ epoch = 3, frozen = 4 }, { epoch = 6, frozen = [\"stem.*\"] }], \
                        or 3:4,6:0";
        let short = |text: &str| format!("steps, entry 1: \"{text}\" is not EPOCH:FROZEN or EPOCH+STEP:FROZEN");
        let frozen = "expected a count of units, a fraction in [0, 1] or patterns";
        let cases = [
            (json!([]), format!("steps is empty, {expected}")),
            (json!(3), format!("steps is 3, {expected}")),
            (json!("3"), short("3")),
            (json!("3:x"), short("3:x")),
            (json!("-3:2"), short("-3:2")),
            (json!(["3:2"]), "steps, entry 1: found \"3:2\", expected { epoch = .., frozen = .. }".into()),
            (json!("0:2"), "steps, entry 1: epoch is 0, expected a whole number of 1 or more".into()),
            (json!([{"epoch": 1, "frozen": 1}, {"epoch": 2}]), "steps, entry 2: frozen is not given".into()),
            (json!([{"epoch": 1, "frozen": -1}]), format!("steps, entry 1: frozen is -1, {frozen}")),
            (json!([{"epoch": 1, "frozen": 1.5}]), format!("steps, entry 1: frozen is 1.5, {frozen}")),
            (json!([{"epoch": 1, "frozen": [1]}]), format!("steps, entry 1: frozen is [1], {frozen}")),
            (
                json!([{"epoch": 1, "frozn": 1}]),
                "steps, entry 1: there is no key \"frozn\" (nearest: \"frozen\"), expected epoch, step, frozen".into(),
            ),
            (json!("6:4,3:0"), "steps, entry 2: epoch 3 does not come after epoch 6".into()),
            (json!("6+5:4,6+5:0"), "steps, entry 2: step 5 of epoch 6 does not come after step 5 of epoch 6".into()),
            (json!("1:1,11:0"), "steps, entry 2: epoch 11 comes after the last one, 10".into()),
            (json!("1:1,2+100:0"), "steps, entry 2: step 100 is not within an epoch of 100 steps".into()),
            (json!("1:7"), "steps, entry 1: frozen is 7, the model has 6 units".into()),
            (
                json!([{"epoch": 1, "frozen": ["fc", "stme.*"]}]),
                "steps, entry 1: pattern \"stme.*\" matches no unit (near: \"stem.bn\")".into(),
            ),
            (json!([{"epoch": 1, "frozen": ["*.bias"]}]), "steps, entry 1: pattern \"*.bias\" matches no unit".into()),
            (
                json!([{"epoch": 1, "frozen": ["re:("]}]),
                "steps, entry 1: frozen pattern \"re:(\" is no regular expression: unclosed group".into(),
            ),
        ];
        let missing = build(&six_units().inputs(10), &PlanOptions::of("steps")).unwrap_err().to_string();
        assert_eq!(missing, format!("steps is not given, {expected}"));
        let model = six_units();
        let mut inputs = model.inputs(10);
        inputs.steps_per_epoch = 100;
        let mut failures = Vec::new();
        for (steps, expected) in cases {
            let error = build(&inputs, &options(steps.clone())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            if error.to_string() != expected {
                failures.push(format!("{steps}\n   gives {error}\nexpected {expected}"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
