//! Where a run stands: what its one live line shows.

use super::text::{bytes, duration, loss, metric_value, rate};
use crate::runner::{RunEvent, Timed};

/// How much the newest step counts in the mean of the seconds of a step, at least.
const NEWEST: f64 = 0.05;

/// What stands between two fields.
const GAP: &str = "  ";

/// Where a run stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub epochs: usize,
    pub steps: usize,
    /// Units of the plan.
    pub units: usize,
    pub epoch: usize,
    pub step: usize,
    pub frozen_units: usize,
    /// Resident memory in bytes; 0 where the system does not tell.
    pub memory: u64,
    /// The most bytes that were held on a device, where that has a memory of its own.
    pub device_memory: Option<u64>,
    samples_per_step: f64,
    loss: Option<f64>,
    metric: Option<(String, f64)>,
    /// Mean seconds of a step with its batch, and how many it is taken of.
    seconds: f64,
    measured: usize,
    /// Seconds from the last step of an epoch to its end.
    evaluation: f64,
    last: Option<f64>,
}

impl Standing {
    /// Takes an event.
    pub fn take(&mut self, timed: &Timed) {
        match &timed.event {
            RunEvent::Start { epochs, steps, samples, .. } => {
                (self.epochs, self.steps) = (*epochs, *steps);
                self.samples_per_step = (samples * epochs) as f64 / (*steps).max(1) as f64;
            }
            RunEvent::Phase { epoch, frozen_units, .. } => {
                (self.epoch, self.frozen_units, self.last) = (*epoch, *frozen_units, None);
            }
            RunEvent::Step { epoch, step, loss, seconds, .. } => {
                (self.epoch, self.step, self.loss) = (*epoch, *step, Some(*loss));
                let seconds = self.last.map_or(*seconds, |last| timed.time - last);
                self.measured += 1;
                self.seconds += (seconds - self.seconds) * f64::max(1.0 / self.measured as f64, NEWEST);
                self.last = Some(timed.time);
            }
            RunEvent::Epoch { metrics, device_peak_bytes, .. } => {
                self.device_memory = *device_peak_bytes;
                self.evaluation = self.last.take().map_or(0.0, |last| timed.time - last);
                let named = |name: &str| metrics.get_key_value(name);
                let first = || metrics.iter().find(|(name, _)| *name != "loss");
                let shown = named("accuracy").or_else(first).or(named("loss"));
                if let Some((name, value)) = shown {
                    self.metric = Some((name.clone(), *value));
                }
            }
            RunEvent::Resume { epoch, step, .. } => (self.epoch, self.step) = (*epoch, *step),
            RunEvent::Rollback { to_epoch, to_step, .. } => (self.epoch, self.step) = (*to_epoch, *to_step),
            _ => {}
        }
    }

    /// Returns the seconds that the rest of the run is expected to take; `None` before the first step.
    fn left(&self) -> Option<f64> {
        let steps = self.steps.saturating_sub(self.step) as f64;
        let epochs = (self.epochs + 1).saturating_sub(self.epoch.max(1)) as f64;
        (self.measured > 0).then_some(steps * self.seconds + epochs * self.evaluation)
    }

    /// Returns the fields of the line, each with its rank: what has a low one is shown first.
    fn fields(&self) -> Vec<(u8, String)> {
        let mut fields = vec![(0, format!("epoch {}/{}", self.epoch, self.epochs))];
        fields.push((4, format!("step {}/{}", self.step, self.steps)));
        fields.extend(self.loss.map(|value| (1, format!("loss {}", loss(value)))));
        let metric = self.metric.as_ref();
        fields.extend(metric.map(|(name, value)| {
            let name = if name == "loss" { "eval loss" } else { name };
            (5, format!("{name} {}", metric_value(name, *value)))
        }));
        if self.measured > 0 && self.seconds > 0.0 {
            fields.push((6, format!("{} samples/s", rate(self.samples_per_step / self.seconds))));
        }
        fields.extend(self.left().map(|left| (3, format!("{} left", duration(left)))));
        let units = if self.units > 0 { format!("/{}", self.units) } else { String::new() };
        fields.push((2, format!("{}{units} frozen", self.frozen_units)));
        fields.extend((self.memory > 0).then(|| (7, bytes(self.memory))));
        fields.extend(self.device_memory.map(|held| (8, format!("{} on the device", bytes(held)))));
        fields
    }

    /// Returns the line in at most `width` columns, with as many fields as have room.
    pub fn line(&self, width: usize) -> String {
        let mut fields = self.fields();
        let mut ranks: Vec<u8> = fields.iter().map(|field| field.0).collect();
        ranks.sort();
        let mut room = width.saturating_add(GAP.len());
        for rank in ranks {
            let Some(position) = fields.iter().position(|field| field.0 == rank) else { continue };
            let taken = console::measure_text_width(&fields[position].1) + GAP.len();
            match room.checked_sub(taken) {
                Some(left) => room = left,
                None if rank > 0 => drop(fields.remove(position)),
                None => return console::truncate_str(&fields[position].1, width, "").into_owned(),
            }
        }
        fields.iter().map(|field| field.1.as_str()).collect::<Vec<_>>().join(GAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn standing() -> Standing {
        let mut standing = Standing { units: 13, memory: 118_000_000, ..Standing::default() };
        let start = RunEvent::Start {
            version: String::new(),
            engine: String::new(),
            engine_version: String::new(),
            device: String::new(),
            threads: 1,
            operators: Default::default(),
            vectors: String::new(),
            precision: Default::default(),
            parameters: 1,
            epochs: 20,
            steps: 600,
            samples: 1_920,
        };
        let step =
            |epoch, step| RunEvent::Step { epoch, step, loss: 0.051_23, lr: None, seconds: 0.125, wait_seconds: 0.0 };
        let phase = RunEvent::Phase {
            epoch: 12,
            after: 0,
            frozen: 8,
            frozen_units: 4,
            seconds: 1.0,
            stall_seconds: 0.0,
            predicted_step_cost: 0.8,
            predicted_step_seconds: None,
            nodes: 9,
            recomputed: Vec::new(),
            prefix_nodes: 0,
            memory_estimate: None,
        };
        let epoch = RunEvent::Epoch {
            epoch: 11,
            train_loss: 0.5,
            metrics: BTreeMap::from([("loss".into(), 0.125), ("accuracy".into(), 0.975)]),
            per_class: Default::default(),
            confusion: Default::default(),
            undefined: Default::default(),
            seconds: 3.0,
            samples_per_second: 4.0,
            wait_seconds: 0.0,
            peak_bytes: 5,
            device_peak_bytes: None,
        };
        let events = [
            (0.0, start),
            (1.0, step(11, 330)),
            (3.0, epoch),
            (4.0, phase),
            (5.0, step(12, 331)),
            (5.125, step(12, 332)),
        ];
        for (time, event) in events {
            standing.take(&Timed { event, time });
        }
        standing
    }

    #[test]
    fn a_line_has_what_there_is_room_for() {
        let cases = [
            (
                200,
                "epoch 12/20  step 332/600  loss 0.0512  accuracy 97.50 %  512 samples/s  0:52 left  4/13 frozen  118 MB",
            ),
            (80, "epoch 12/20  step 332/600  loss 0.0512  accuracy 97.50 %  0:52 left  4/13 frozen"),
            (77, "epoch 12/20  step 332/600  loss 0.0512  512 samples/s  0:52 left  4/13 frozen"),
            (75, "epoch 12/20  step 332/600  loss 0.0512  0:52 left  4/13 frozen  118 MB"),
            (37, "epoch 12/20  loss 0.0512  4/13 frozen"),
            (12, "epoch 12/20"),
            (7, "epoch 1"),
        ];
        for (width, expected) in cases {
            assert_eq!(standing().line(width), expected, "in {width} columns");
        }
        let on_device = Standing { device_memory: Some(9_300_000_000), ..standing() };
        assert!(on_device.line(200).ends_with("118 MB  9.3 GB on the device"));
    }

    #[test]
    fn time_left_counts_steps_and_evaluations() {
        // 268 steps of 1/8 s and nine evaluations of 2 s.
        assert_eq!(standing().left(), Some(268.0 * 0.125 + 9.0 * 2.0));
        assert_eq!(Standing::default().left(), None);
    }
}
