//! Which parameters are frozen when, for questions by name.

use crate::names::Names;
use freeze_plan::plan::FreezePlan;

/// The frozen sets of a plan as sorted numbers of names. Stretches that follow each other with the same set
/// share one.
pub(crate) struct Lookup {
    sets: Vec<Vec<usize>>,
    /// For each epoch the steps that come before and the set that holds from there on.
    epochs: Vec<Vec<(usize, usize)>>,
}

impl Lookup {
    pub fn of(plan: &FreezePlan, names: &Names) -> Lookup {
        let mut sets: Vec<Vec<usize>> = Vec::new();
        let mut before: Option<&[String]> = None;
        let epochs = plan.epochs.iter().map(|epoch| {
            let stretches = epoch.stretches().map(|stretch| {
                if before != Some(&stretch.frozen) {
                    before = Some(&stretch.frozen);
                    let mut set: Vec<usize> = stretch.frozen.iter().filter_map(|name| names.number(name)).collect();
                    set.sort_unstable();
                    sets.push(set);
                }
                (stretch.after, sets.len() - 1)
            });
            stretches.collect()
        });
        let epochs = epochs.collect();
        Lookup { sets, epochs }
    }

    /// Returns whether a name is frozen after some steps of an epoch, from 1.
    pub fn is_frozen(&self, epoch: usize, after: usize, name: usize) -> bool {
        let stretches = epoch.checked_sub(1).and_then(|position| self.epochs.get(position));
        let holds = stretches.and_then(|stretches| stretches.iter().rev().find(|stretch| stretch.0 <= after));
        let set = holds.and_then(|stretch| self.sets.get(stretch.1));
        set.is_some_and(|set| set.binary_search(&name).is_ok())
    }
}
