//! What goes with frozen parameters without being one: the running statistics of BatchNormalization,
//! and Dropout.
//!
//! A [`Companion`] belongs to something frozen when, of one of its alternatives, every parameter is
//! frozen. [`Companions::held`] says for a frozen set which statistics stay, which Dropout passes its
//! input on, and which scales and biases of BatchNormalization train all the same.

use super::BatchNorm;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// What Dropout does in frozen units: the option `dropout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FrozenDropout {
    /// It drops, as in Composer.
    #[default]
    Train,
    /// It passes its input on, as in AutoFreeze.
    Off,
}

/// What kind of companion it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompanionKind {
    /// BatchNormalization with its running statistics.
    Statistics,
    /// A Dropout that drops while the model trains.
    Dropout,
}

/// A set of parameters, as positions in the list that [`Companions::new`] is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSet(Vec<u64>);

impl ParameterSet {
    /// Adds a position.
    pub fn insert(&mut self, position: usize) {
        let word = position / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (position % 64);
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &ParameterSet) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }

    /// Returns true when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Returns true when all of it is in another set.
    pub fn is_subset(&self, other: &ParameterSet) -> bool {
        let word = |index: usize| other.0.get(index).copied().unwrap_or(0);
        self.0.iter().enumerate().all(|(index, own)| own & !word(index) == 0)
    }

    /// Returns the positions, smallest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let bits = |(index, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(bits)
    }
}

/// One BatchNormalization, or several that share statistics; or one Dropout.
#[derive(Clone, Debug, PartialEq)]
pub struct Companion {
    /// What it is.
    pub kind: CompanionKind,
    /// The node, for people; the first of several.
    pub node: String,
    /// Path of the module that runs the node.
    pub module: String,
    /// The running statistics, or the output of the Dropout. None for a BatchNormalization without running
    /// statistics.
    pub names: Vec<String>,
    /// Trainable scale and bias; none of a Dropout.
    pub affine: Vec<String>,
    /// The alternatives; an empty one never counts.
    pub freezes_with: Vec<ParameterSet>,
}

/// The companions of a model's parameters.
#[derive(Clone, Debug, Default)]
pub struct Companions {
    parameters: HashMap<String, usize>,
    list: Vec<Companion>,
}

/// The companions of a model's parameters, and what becomes of them in frozen units.
#[derive(Clone, Copy, Debug)]
pub struct Accompanied<'a> {
    /// The companions.
    pub companions: &'a Companions,
    /// What BatchNormalization does.
    pub batch_norm: BatchNorm,
    /// What Dropout does.
    pub dropout: FrozenDropout,
}

/// What a frozen set brings with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held<'a> {
    /// Running statistics that stay, and that their BatchNormalization normalizes by.
    pub statistics: Vec<&'a str>,
    /// Outputs of the Dropout nodes that pass their input on.
    pub dropout_off: Vec<&'a str>,
    /// Parameters of the frozen set that train all the same.
    pub trains: Vec<&'a str>,
}

impl Held<'_> {
    /// Returns statistics and Dropout outputs: with the frozen parameters, the names that `training` and
    /// `cost` take for what is frozen.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.statistics.iter().chain(&self.dropout_off).copied()
    }
}

impl Companions {
    /// Returns companions whose alternatives hold positions in `parameters`.
    pub fn new(parameters: impl IntoIterator<Item = String>, list: Vec<Companion>) -> Companions {
        Companions { parameters: parameters.into_iter().zip(0..).collect(), list }
    }

    /// Returns the companions, in evaluation order of their nodes.
    pub fn iter(&self) -> impl Iterator<Item = &Companion> {
        self.list.iter()
    }

    /// Returns, by the name of each running mean, the scale and bias with which it stays.
    pub fn statistics_with_affine(&self) -> HashMap<String, Vec<String>> {
        let norms = self.list.iter().filter(|companion| companion.kind == CompanionKind::Statistics);
        let with = |companion: &Companion| Some((companion.names.first()?.clone(), companion.affine.clone()));
        norms.filter_map(with).filter(|(_, affine)| !affine.is_empty()).collect()
    }

    /// Returns what the parameters `frozen` bring with them. `frozen` is what policy and patterns chose, before
    /// [`Held::trains`] is taken out of it; what `explicit` names, which patterns chose, is never taken out.
    pub fn held(
        &self,
        frozen: &HashSet<&str>,
        explicit: &HashSet<&str>,
        batch_norm: BatchNorm,
        dropout: FrozenDropout,
    ) -> Held<'_> {
        let mut held = Held::default();
        if frozen.is_empty() || batch_norm == BatchNorm::Train && dropout == FrozenDropout::Train {
            return held;
        }
        let mut set = ParameterSet::default();
        frozen.iter().filter_map(|name| self.parameters.get(*name)).for_each(|position| set.insert(*position));
        let mut seen: HashSet<&str> = HashSet::new();
        for companion in &self.list {
            if batch_norm.affine_trains() {
                let chosen = |name: &&str| frozen.contains(name) && !explicit.contains(name);
                let affine = companion.affine.iter().map(String::as_str).filter(chosen);
                held.trains.extend(affine.filter(|name| seen.insert(name)));
            }
            let (wanted, names) = match companion.kind {
                CompanionKind::Statistics => (batch_norm.statistics_stay(), &mut held.statistics),
                CompanionKind::Dropout => (dropout == FrozenDropout::Off, &mut held.dropout_off),
            };
            let belongs = |with: &ParameterSet| !with.is_empty() && with.is_subset(&set);
            if wanted && companion.freezes_with.iter().any(belongs) {
                names.extend(companion.names.iter().map(String::as_str));
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: [&str; 5] = ["conv.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias"];

    fn set(names: &[&str]) -> ParameterSet {
        let mut set = ParameterSet::default();
        names.iter().for_each(|name| set.insert(PARAMETERS.iter().position(|known| known == name).unwrap()));
        set
    }

    fn companion(kind: CompanionKind, names: &[&str], affine: &[&str], alternatives: &[&[&str]]) -> Companion {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Companion {
            kind,
            node: "node".into(),
            module: String::new(),
            names: owned(names),
            affine: owned(affine),
            freezes_with: alternatives.iter().map(|names| set(names)).collect(),
        }
    }

    fn companions() -> Companions {
        use CompanionKind::{Dropout, Statistics};
        let affine = &["bn.weight", "bn.bias"][..];
        let list = vec![
            companion(Statistics, &["bn.mean", "bn.var"], affine, &[affine]),
            companion(Statistics, &["plain.mean", "plain.var"], &[], &[&PARAMETERS[..3], &["conv.weight"]]),
            companion(Dropout, &["dropped"], &[], &[&PARAMETERS[..3], &["fc.weight", "fc.bias"]]),
            companion(Dropout, &["of the input"], &[], &[&[]]),
        ];
        Companions::new(PARAMETERS.map(String::from), list)
    }

    #[test]
    fn a_companion_goes_with_one_whole_alternative() {
        use BatchNorm::{AffineTrains, AllTrain, Frozen, Train};
        struct Case {
            frozen: &'static [&'static str],
            explicit: &'static [&'static str],
            options: (BatchNorm, FrozenDropout),
            expected: &'static str,
        }
        let off = FrozenDropout::Off;
        let body = &["conv.weight", "bn.weight", "bn.bias"];
        let head = &["fc.weight", "fc.bias"];
        let part = &["conv.weight", "bn.bias"];
        let cases = [
            Case { frozen: body, explicit: &[], options: (Train, FrozenDropout::Train), expected: "| |" },
            Case { frozen: body, explicit: &[], options: (Train, off), expected: "| dropped |" },
            Case {
                frozen: body,
                explicit: &[],
                options: (Frozen, FrozenDropout::Train),
                expected: "bn.mean bn.var plain.mean plain.var | |",
            },
            Case { frozen: part, explicit: &[], options: (Frozen, off), expected: "plain.mean plain.var | |" },
            Case { frozen: head, explicit: &[], options: (Frozen, off), expected: "| dropped |" },
            Case {
                frozen: body,
                explicit: &[],
                options: (AffineTrains, off),
                expected: "bn.mean bn.var plain.mean plain.var | dropped | bn.weight bn.bias",
            },
            Case { frozen: part, explicit: &[], options: (AllTrain, off), expected: "| | bn.bias" },
            Case { frozen: body, explicit: &["bn.bias"], options: (AllTrain, off), expected: "| dropped | bn.weight" },
            Case { frozen: &[], explicit: &[], options: (AffineTrains, off), expected: "| |" },
        ];
        let companions = companions();
        for Case { frozen, explicit, options: (batch_norm, dropout), expected } in cases {
            let of = |names: &[&'static str]| names.iter().copied().collect::<HashSet<&str>>();
            let held = companions.held(&of(frozen), &of(explicit), batch_norm, dropout);
            let lists = [held.statistics, held.dropout_off, held.trains].map(|list| list.join(" "));
            let shown = lists.join(" | ").replace("  ", " ");
            assert_eq!(shown.trim(), expected, "{frozen:?} {batch_norm} {dropout:?}");
        }
    }

    #[test]
    fn sets_of_many_parameters_are_compared_by_words() {
        let mut even = ParameterSet::default();
        (0..5000).step_by(2).for_each(|position| even.insert(position));
        let mut all = even.clone();
        let mut odd = ParameterSet::default();
        (1..5000).step_by(2).for_each(|position| odd.insert(position));
        all.extend(&odd);
        assert_eq!(all.iter().collect::<Vec<_>>(), (0..5000).collect::<Vec<_>>());
        assert!(even.is_subset(&all) && !all.is_subset(&even) && !even.is_subset(&odd));
        assert_eq!(even.iter().take(3).collect::<Vec<_>>(), [0, 2, 4]);
        let mut far = ParameterSet::default();
        far.insert(4999);
        assert!(far.is_subset(&odd) && !far.is_subset(&even) && ParameterSet::default().is_subset(&far));
        assert!(ParameterSet::default().is_empty() && !far.is_empty());
    }
}
