//! Measures the signals that a policy wants, from one point to the next.

use super::engine::Engine;
use super::phase::Phase;
use super::run::Run;
use super::state::State;
use super::train::{RunError, Setup};
use crate::graph::Tensor;
use crate::plan::Signal;
use crate::training::{Prepared, names};
use std::collections::{BTreeMap, HashMap};

/// What is gathered in an interval.
#[derive(Clone)]
pub(super) struct Observer {
    signals: Vec<Signal>,
    /// Parameters of each unit.
    units: Vec<Vec<String>>,
    /// Sums of gradients.
    sums: HashMap<String, Vec<f64>>,
    /// Sums over the steps of squared gradients, and the steps.
    squares: HashMap<String, (f64, usize)>,
    /// Weights before the last step of the interval.
    before: HashMap<String, Tensor>,
    /// Change of the weights in it.
    changes: HashMap<String, (f64, usize)>,
}

impl Observer {
    /// Returns what measures the signals of the run's policy; `None` where it wants none.
    pub(super) fn new(
        _engine: &mut dyn Engine,
        setup: &Setup<'_>,
        _prepared: &Prepared,
    ) -> Result<Option<Observer>, RunError> {
        let Some(planner) = setup.freezing.planner.filter(|planner| !planner.policy().signals().is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Observer {
            signals: planner.policy().signals(),
            units: planner.units().iter().map(|unit| unit.parameters.clone()).collect(),
            sums: HashMap::new(),
            squares: HashMap::new(),
            before: HashMap::new(),
            changes: HashMap::new(),
        }))
    }

    fn wants(&self, signal: Signal) -> bool {
        self.signals.contains(&signal)
    }

    /// Looks at the gradients of a step, and at the weights before the `last` one of an interval.
    pub(super) fn before_update(
        &mut self,
        engine: &mut dyn Engine,
        phase: &Phase,
        state: &State,
        last: bool,
    ) -> Result<(), RunError> {
        let gradients = self.wants(Signal::GradientSum) || self.wants(Signal::GradientSquare);
        for name in self.units.iter().flatten() {
            let port = names::grad(name);
            let Some((_, buffer)) = phase.passed().iter().find(|(own, _)| *own == port) else { continue };
            if gradients {
                let values = engine.read(*buffer)?.to_f64s().unwrap_or_default();
                let square = self.squares.entry(name.clone()).or_default();
                *square = (square.0 + values.iter().map(|value| value * value).sum::<f64>(), square.1 + 1);
                let sums = self.sums.entry(name.clone()).or_insert_with(|| vec![0.0; values.len()]);
                sums.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
            }
            if last && self.signals.contains(&Signal::WeightChange) {
                self.before.insert(name.clone(), engine.read(state.value(name))?);
            }
        }
        Ok(())
    }

    /// Looks at the weights after the `last` step of an interval.
    pub(super) fn after_update(&mut self, engine: &mut dyn Engine, state: &State, last: bool) -> Result<(), RunError> {
        if !last {
            return Ok(());
        }
        for (name, before) in std::mem::take(&mut self.before) {
            let (before, now) = (before.to_f64s(), engine.read(state.value(&name))?.to_f64s());
            let (before, now) = (before.unwrap_or_default(), now.unwrap_or_default());
            let change =
                |(before, now): (&f64, &f64)| if *before == 0.0 { 0.0 } else { ((before - now) / before).abs() };
            self.changes.insert(name, (before.iter().zip(&now).map(change).sum(), before.len()));
        }
        Ok(())
    }

    /// Returns the signals of the interval, and begins the next one.
    pub(super) fn measure(
        &mut self,
        _engine: &mut dyn Engine,
        _run: &Run<'_>,
    ) -> Result<BTreeMap<Signal, Vec<Option<f64>>>, RunError> {
        let (sums, squares) = (std::mem::take(&mut self.sums), std::mem::take(&mut self.squares));
        let changes = std::mem::take(&mut self.changes);
        let total = |unit: &Vec<String>, value: &dyn Fn(&str) -> Option<f64>| {
            let values: Vec<f64> = unit.iter().filter_map(|name| value(name)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>())
        };
        let mut signals = BTreeMap::new();
        for signal in &self.signals {
            let of_unit = |unit: &Vec<String>| match signal {
                Signal::GradientSum => {
                    total(unit, &|name| Some(sums.get(name)?.iter().map(|sum| sum.abs()).sum::<f64>()))
                }
                Signal::GradientSquare => {
                    total(unit, &|name| squares.get(name).map(|(sum, steps)| sum / (*steps).max(1) as f64))
                }
                Signal::WeightChange => {
                    let elements = total(unit, &|name| changes.get(name).map(|change| change.1 as f64))?;
                    Some(total(unit, &|name| changes.get(name).map(|change| change.0))? / elements.max(1.0))
                }
                _ => None,
            };
            signals.insert(*signal, self.units.iter().map(of_unit).collect());
        }
        Ok(signals)
    }
}
