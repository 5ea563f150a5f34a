//! One policy a file, and the list of them.

mod budget;
mod cyclic;
mod fisher;
mod freezeout;
mod geometric;
mod gradient;
mod linear;
mod none;
mod plasticity;
mod relative_change;
mod similarity;
mod steps;
mod svcca_linear;
#[cfg(test)]
mod tests;
mod thaw;

pub use budget::Budget;
pub use cyclic::Cyclic;
pub use fisher::Fisher;
pub use freezeout::FreezeOut;
pub use geometric::Geometric;
pub use gradient::Gradient;
pub use linear::{Arithmetic, Linear};
pub use none::Nothing;
pub use plasticity::Plasticity;
pub use relative_change::RelativeChange;
pub use similarity::Similarity;
pub use steps::Steps;
pub use svcca_linear::SvccaLinear;
pub use thaw::Thaw;

use super::{Knob, Knobs, PlanError, PlanOptions, Policy, Preset, Range, Run};
use crate::error::nearest;
use crate::modules::UnitKind;

/// A policy that can be asked for by name.
pub struct Entry {
    /// Its name in a job file and on the command line.
    pub name: &'static str,
    /// Its settings.
    pub knobs: &'static [Knob],
    /// What it freezes as one where nothing else is asked for; `None` for a leaf.
    pub unit: Option<UnitKind>,
    /// The head of its file: idea, signals, knobs, when it does nothing, source, negative results.
    pub card: &'static str,
    /// Makes it from its settings.
    pub new: fn(&Knobs<'_>) -> Result<Box<dyn Policy>, PlanError>,
}

impl Entry {
    /// Returns the text of the card.
    pub fn text(&self) -> String {
        let lines = self.card.lines().take_while(|line| line.starts_with("//!"));
        let text = |line: &str| {
            let text = line.trim_start_matches("//!");
            format!("{}\n", text.strip_prefix(' ').unwrap_or(text))
        };
        lines.map(text).collect()
    }

    /// Returns the first sentence of the card.
    pub fn about(&self) -> String {
        let text = self.text();
        text.split("\n\n").next().unwrap_or_default().replace('\n', " ").trim().to_string()
    }
}

/// Every policy, in the order in which they are shown.
#[rustfmt::skip]
pub static POLICIES: &[&Entry] = &[
    &linear::ENTRY,
    &freezeout::ENTRY,
    &svcca_linear::ENTRY,
    &geometric::ENTRY,
    &steps::ENTRY,
    &thaw::ENTRY,
    &cyclic::ENTRY,
    &gradient::ENTRY,
    &plasticity::ENTRY,
    &similarity::ENTRY,
    &fisher::ENTRY,
    &relative_change::ENTRY,
    &budget::ENTRY,
    &none::ENTRY,
];

/// Of how many samples outputs are compared.
const SAMPLES: Knob = Knob {
    name: "samples",
    about: "samples that outputs are taken of",
    range: Range::Count(4),
    default: Preset::Count(256),
};

/// Returns every `step`-th step of a run, without the last one.
fn every(run: Run, step: usize) -> Vec<usize> {
    let step = step.max(1);
    (step..run.steps()).step_by(step).collect()
}

/// Returns the policy of a name, if there is one.
pub fn entry(name: &str) -> Option<&'static Entry> {
    POLICIES.iter().find(|entry| entry.name == name).copied()
}

/// Returns the policy of a name.
///
/// # Errors
/// No policy has this name.
pub fn named(name: &str) -> Result<&'static Entry, PlanError> {
    let names = || POLICIES.iter().map(|entry| entry.name);
    entry(name).ok_or_else(|| PlanError::UnknownPolicy {
        name: name.into(),
        nearest: nearest(name, names()).map(String::from),
        known: names().collect::<Vec<_>>().join(", "),
    })
}

/// Returns the policy that `options` name.
///
/// # Errors
/// No policy has this name, or one of its settings is unknown or out of range.
pub fn find(options: &PlanOptions) -> Result<Box<dyn Policy>, PlanError> {
    let entry = named(&options.policy)?;
    (entry.new)(&Knobs::new(entry.name, entry.knobs, &options.knobs)?)
}
