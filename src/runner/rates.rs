//! Learning rates of single parameters: the factors of the policy, and the rise of what trains again.

use super::train::{RunError, Setup};
use crate::graph::Tensor;
use crate::plan::{FreezePlan, History, OnReturn, Point};
use crate::training::{Prepared, Rate, Rates};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What the rates of single parameters follow from.
#[derive(Clone, Debug)]
pub(super) struct UnitRates {
    /// Trainable parameters: their positions are those of the factors.
    positions: HashMap<String, usize>,
    /// Whether the policy or the plan gives factors.
    scaled: bool,
    warm_up_steps: Option<usize>,
    trained: HashSet<String>,
    current: HashSet<String>,
    /// The step at which a parameter that was frozen came back.
    returned: BTreeMap<String, usize>,
}

/// What of it a run must know to go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedRates {
    trained: BTreeSet<String>,
    current: BTreeSet<String>,
    returned: BTreeMap<String, usize>,
}

impl UnitRates {
    /// Returns the rates of a run.
    ///
    /// # Errors
    /// The policy gives factors that are none.
    pub(super) fn new(setup: &Setup<'_>, prepared: &Prepared) -> Result<UnitRates, RunError> {
        let freezing = &setup.freezing;
        let by_policy = match freezing.planner {
            Some(planner) => planner.lr_scale(Point::START, &History::default(), 0)?.is_some(),
            None => false,
        };
        let stretches = freezing.plan.epochs.iter().flat_map(|epoch| epoch.stretches());
        let by_plan = freezing.planner.is_none() && stretches.into_iter().any(|epoch| !epoch.lr_scale.is_empty());
        let warm_up_steps = (freezing.on_return == OnReturn::WarmUp).then_some(freezing.warm_up_steps);
        let positions = prepared.trainable().into_iter().map(String::from).zip(0..).collect();
        Ok(UnitRates {
            positions,
            scaled: by_policy || by_plan,
            warm_up_steps,
            trained: HashSet::new(),
            current: HashSet::new(),
            returned: BTreeMap::new(),
        })
    }

    fn vary(&self) -> bool {
        self.scaled || self.warm_up_steps.is_some()
    }

    /// Returns how the graphs of a phase take the factors.
    pub(super) fn rates(&self) -> Rates<'_> {
        let rates = self.positions.iter().filter(|_| self.vary());
        rates.map(|(name, position)| (name.as_str(), Rate::Varies(*position))).collect()
    }

    /// Notes what trains from a step on.
    pub(super) fn trains(&mut self, names: &[String], started: usize) {
        let current: HashSet<String> = names.iter().cloned().collect();
        if self.warm_up_steps.is_some() {
            for name in current.iter().filter(|name| !self.current.contains(*name) && self.trained.contains(*name)) {
                self.returned.insert(name.clone(), started);
            }
        }
        self.trained.extend(names.iter().cloned());
        self.current = current;
    }

    /// Returns what trains now.
    pub(super) fn current(&self) -> &HashSet<String> {
        &self.current
    }

    /// Returns what a run must know to go on: what has trained comes back when it freezes and trains again.
    pub(super) fn saved(&self) -> SavedRates {
        let sorted = |names: &HashSet<String>| names.iter().cloned().collect();
        SavedRates { trained: sorted(&self.trained), current: sorted(&self.current), returned: self.returned.clone() }
    }

    /// Goes on from what was saved.
    pub(super) fn restore(&mut self, saved: SavedRates) {
        self.trained = saved.trained.into_iter().collect();
        self.current = saved.current.into_iter().collect();
        self.returned = saved.returned;
    }

    /// Returns the factors of the step that begins at `at`, after `started` steps; `None` where all are 1 throughout.
    pub(super) fn scales(
        &self,
        setup: &Setup<'_>,
        plan: &FreezePlan,
        history: &History,
        delay: usize,
        at: Point,
        started: usize,
    ) -> Result<Option<Tensor>, RunError> {
        if !self.vary() {
            return Ok(None);
        }
        let mut factors = vec![1f32; self.positions.len()];
        let mut scale = |name: &str, factor: f64| {
            if let Some(own) = self.positions.get(name).and_then(|position| factors.get_mut(*position)) {
                *own *= factor as f32;
            }
        };
        match setup.freezing.planner.filter(|_| self.scaled) {
            Some(planner) => {
                let given = planner.lr_scale(at, history, delay)?.unwrap_or_default();
                given.into_iter().for_each(|(name, factor)| scale(name, factor));
            }
            None => {
                let entry = at.epoch.checked_sub(1).and_then(|epoch| plan.epochs.get(epoch));
                let given = entry.map(|epoch| &epoch.at(at.after).lr_scale).into_iter().flatten();
                given.for_each(|(name, factor)| scale(name, *factor));
            }
        }
        for (name, since) in self.warm_up_steps.iter().flat_map(|_| &self.returned) {
            let steps = self.warm_up_steps.unwrap_or(0).max(1) as f64;
            scale(name, ((started - since + 1) as f64 / steps).min(1.0));
        }
        Ok(Some(Tensor::from_vec(&[factors.len()], factors)))
    }
}
