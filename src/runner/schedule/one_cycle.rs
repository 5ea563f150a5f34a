//! One-cycle: from `b / div_factor` up to `b` and down to `b / (div_factor final_div_factor)` (`OneCycleLR` with
//! `max_lr = b` and `total_steps = T`).
//!
//! The rise ends at `t = pct_start T - 1`, the fall at `t = T - 1`. With `three_phase` the fall first mirrors the rise,
//! to `b / div_factor` at `t = 2 pct_start T - 2`, then goes on to the end. Between two rates `u` and `v` the rate is
//! `v + (u - v) (1 + cos(pi p)) / 2`, or with `anneal = "linear"` `u + (v - u) p`, `p` in [0, 1]. Momentum is left as
//! it is, as with `cycle_momentum = False`.

use super::{At, Per, Problem, Shape, not_above_0};
use serde::{Deserialize, Serialize};

/// A rise and a fall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OneCycle {
    /// Fraction of the run that the rise takes, in (0, 1), with `three_phase` at most 0.5; 0.3 by default.
    #[serde(default = "pct_start")]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1)))]
    pub pct_start: f64,
    /// How much lower than the base rate the first one is, above 0; 25 by default.
    #[serde(default = "div_factor")]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub div_factor: f64,
    /// How much lower than the first rate the last one is, above 0; 10000 by default.
    #[serde(default = "final_div_factor")]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub final_div_factor: f64,
    /// The curve: `"cosine"` (default) or `"linear"`.
    #[serde(default)]
    pub anneal: Anneal,
    /// Whether the fall goes to the first rate and then on to the last; false by default.
    #[serde(default)]
    pub three_phase: bool,
    /// What is counted: `"step"` (default) or `"epoch"`.
    #[serde(default = "Per::step")]
    pub per: Per,
    /// Steps over which the rate rises to its full value, before the cycle.
    #[serde(default)]
    pub warmup_steps: u64,
}

/// The curve between two rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cosine,
    /// A line.
    Linear,
}

fn pct_start() -> f64 {
    0.3
}

fn div_factor() -> f64 {
    25.0
}

fn final_div_factor() -> f64 {
    1e4
}

impl Anneal {
    fn between(self, from: f64, to: f64, fraction: f64) -> f64 {
        match self {
            Anneal::Cosine => to + (from - to) * (1.0 + (std::f64::consts::PI * fraction).cos()) / 2.0,
            Anneal::Linear => from + (to - from) * fraction,
        }
    }
}

impl Shape for OneCycle {
    fn rate(&self, at: &At<'_>) -> f64 {
        let (total, done) = (at.total as f64, at.done as f64);
        let first = at.base / self.div_factor;
        let last = first / self.final_div_factor;
        let rise = (self.pct_start * total - 1.0, first, at.base);
        let end = total - 1.0;
        let phases = match self.three_phase {
            true => vec![rise, (2.0 * self.pct_start * total - 2.0, at.base, first), (end, first, last)],
            false => vec![rise, (end, at.base, last)],
        };
        let mut start = 0.0;
        for (end, from, to) in phases {
            if done <= end {
                let span: f64 = end - start;
                let fraction = if span > 0.0 { (done - start) / span } else { 1.0 };
                return self.anneal.between(from, to, fraction);
            }
            start = f64::max(end, 0.0);
        }
        last
    }

    fn problem(&self) -> Option<Problem> {
        let most = if self.three_phase { 0.5 } else { 1.0 };
        let within = self.pct_start > 0.0 && (self.pct_start < 1.0) && self.pct_start <= most;
        let range = if self.three_phase { "(0, 0.5]" } else { "(0, 1)" };
        let start = (!within)
            .then(|| ("schedule.pct_start", format!("expected a fraction in {range}, found {}", self.pct_start)));
        start
            .or_else(|| not_above_0("schedule.div_factor", "a divisor", self.div_factor))
            .or_else(|| not_above_0("schedule.final_div_factor", "a divisor", self.final_div_factor))
    }

    fn pace(&self) -> (Per, u64) {
        (self.per, self.warmup_steps)
    }
}
