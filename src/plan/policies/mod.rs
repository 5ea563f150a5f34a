//! One policy a file, and the list of them.

mod budget;
mod fisher;
mod gradient;
mod linear;
mod none;
mod plasticity;
mod relative_change;
mod similarity;

pub use budget::Budget;
pub use fisher::Fisher;
pub use gradient::Gradient;
pub use linear::{Arithmetic, Linear};
pub use none::Nothing;
pub use plasticity::Plasticity;
pub use relative_change::RelativeChange;
pub use similarity::Similarity;

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
        lines.map(|line| line.trim_start_matches("//!").trim_start_matches(' ').to_string() + "\n").collect()
    }

    /// Returns the first sentence of the card.
    pub fn about(&self) -> String {
        let text = self.text();
        text.split("\n\n").next().unwrap_or_default().replace('\n', " ").trim().to_string()
    }
}

/// Every policy, in the order in which they are shown.
pub static POLICIES: &[&Entry] = &[
    &linear::ENTRY,
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

/// Returns the policy of a name.
pub fn entry(name: &str) -> Option<&'static Entry> {
    POLICIES.iter().find(|entry| entry.name == name).copied()
}

/// Returns the policy that `options` name.
///
/// # Errors
/// No policy has this name, or one of its settings is unknown or out of range.
pub fn find(options: &PlanOptions) -> Result<Box<dyn Policy>, PlanError> {
    let names = || POLICIES.iter().map(|entry| entry.name);
    match entry(&options.policy) {
        Some(entry) => (entry.new)(&Knobs::new(entry.name, entry.knobs, &options.knobs)?),
        None => Err(PlanError::UnknownPolicy {
            name: options.policy.clone(),
            nearest: nearest(&options.policy, names()).map(String::from),
            known: names().collect::<Vec<_>>().join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_list() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/policies");
        let source = include_str!("mod.rs");
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let module = file.trim_end_matches(".rs");
            assert!(module == "mod" || source.contains(&format!("&{module}::ENTRY")), "{file} is in no list");
        }
    }

    #[test]
    fn a_policy_is_found_by_its_name_and_has_it() {
        for entry in POLICIES {
            assert_eq!(find(&PlanOptions::of(entry.name)).unwrap().name(), entry.name);
            assert!(entry.about().ends_with('.') && entry.text().contains("*Source.*"), "{}", entry.name);
        }
    }

    #[test]
    fn an_unknown_policy_is_refused_with_the_nearest() {
        let text = |name: &str| find(&PlanOptions::of(name)).err().expect("no such policy").to_string();
        let known: Vec<&str> = POLICIES.iter().map(|entry| entry.name).collect();
        let known = known.join(", ");
        let near = format!("there is no policy \"linaer\" (nearest: \"linear\"), expected one of {known}");
        assert_eq!(text("linaer"), near);
        assert_eq!(text("quadratic"), format!("there is no policy \"quadratic\", expected one of {known}"));
    }
}
