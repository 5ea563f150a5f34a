//! The epochs and steps of a run.

use super::engine::Engine;
use super::event::RunEvent;
use super::guard::{Before, Verdict};
use super::improvement::{Stall, best};
use super::memory::peak_bytes;
use super::nonfinite::{Bad, wrong};
use super::phase::{Feed, Share};
use super::phases::misplaced;
use super::run::{Place, Run};
use super::schedule::lr_at;
use super::train::RunError;
use crate::metrics::Results;
use crate::plan::{EpochRecord, Point};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How the training of an epoch ended.
pub(super) enum Flow {
    /// All its steps that belong to the segment are done.
    Done,
    /// It was asked to stop.
    Stopped,
    /// What comes next is another segment than it was.
    Replanned,
}

impl Run<'_> {
    /// Trains the steps of an epoch from `from` on, those of a segment that ends within it up to `until`.
    pub(super) fn epoch(
        &mut self,
        engine: &mut dyn Engine,
        epoch: usize,
        from: usize,
        until: Option<usize>,
        report: &mut dyn FnMut(RunEvent),
        stop: &AtomicBool,
    ) -> Result<Flow, RunError> {
        if from == 0 {
            (self.place.loss, self.place.samples, self.place.seconds, self.place.wait) = (0.0, 0, 0.0, 0.0);
        }
        self.keep_start(engine)?;
        let count = self.setup.steps_per_epoch();
        let end = until.unwrap_or(count).min(count);
        for number in from..end {
            self.take_constants(engine, epoch, report)?;
            let clock = Instant::now();
            if let Err(error) = self.step(engine, epoch, number, report) {
                // The step was not begun: what was done so far is worth keeping.
                if matches!(error, RunError::Data(_)) && self.last_saved != Some(self.place.started) {
                    self.checkpoint(engine, epoch, false, false, report)?;
                }
                return Err(error);
            }
            let seconds = clock.elapsed().as_secs_f64();
            self.judge_cache(engine, report);
            self.place.seconds += seconds;
            self.pace.iter_mut().for_each(|pace| pace.step(seconds));
            self.place.at = if number + 1 == count {
                Point { epoch: epoch + 1, after: 0 }
            } else {
                Point { epoch, after: number + 1 }
            };
            self.look_ahead(engine, seconds)?;
            let stopped = stop.load(Ordering::Relaxed);
            let replanned = self.observes() && {
                self.observe(engine, report)?;
                number + 1 < count && self.replan(report)?
            };
            self.within = !replanned && number + 1 < end;
            if stopped && number + 1 < count {
                self.checkpoint(engine, epoch, false, true, report)?;
                return Ok(Flow::Stopped);
            }
            if number + 1 < count && self.saves_now() {
                self.checkpoint(engine, epoch, false, false, report)?;
            }
            if replanned {
                return Ok(Flow::Replanned);
            }
        }
        self.within = false;
        if end < count {
            return Ok(Flow::Done);
        }
        let flow = self.epoch_ends(engine, epoch, stop.load(Ordering::Relaxed), report)?;
        Ok(if stop.load(Ordering::Relaxed) { Flow::Stopped } else { flow })
    }

    /// Reports an epoch, and decides again.
    fn epoch_ends(
        &mut self,
        engine: &mut dyn Engine,
        epoch: usize,
        stops: bool,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<Flow, RunError> {
        let epochs = self.plan.epochs.len();
        let evaluated = self.setup.evaluation.is_due(epoch, epochs) || self.guard.is_armed();
        let results = if evaluated { self.results(engine)? } else { Results::default() };
        let Results { scalars, per_class, confusion, mut undefined } = results;
        let infinite = scalars.iter().filter(|(_, value)| !value.is_finite());
        undefined.extend(infinite.map(|(metric, _)| (metric.clone(), "it is not finite".to_string())));
        let metrics = finite(scalars);
        for (metric, reason) in &undefined {
            if self.undefined.insert(metric.clone()) {
                let message = format!("the eval metric {metric} is not defined after epoch {epoch}: {reason}");
                report(RunEvent::Warning { message });
            }
        }
        let Place { loss, samples, seconds, wait, .. } = self.place;
        let train_loss = loss / samples.max(1) as f64;
        let evaluated = evaluated && self.setup.eval.is_some();
        let mut record = EpochRecord { evaluated, ..EpochRecord::default() };
        record.metrics.extend(metrics.clone());
        record.metrics.insert("train_loss".into(), train_loss);
        self.history.epochs.push(record);
        report(RunEvent::Epoch {
            epoch,
            train_loss,
            metrics: metrics.clone(),
            per_class,
            confusion,
            undefined,
            seconds,
            samples_per_second: samples as f64 / seconds,
            wait_seconds: wait,
            peak_bytes: peak_bytes(),
            device_peak_bytes: engine.device_memory().map(|memory| memory.peak),
        });
        if let Verdict::Back(armed) = self.guard.judge(&metrics) {
            self.delay += armed.delay;
            report(armed.event(epoch, &metrics, self.delay));
            self.phases.discard(engine);
            self.state.restore(engine, &armed.run.snapshot)?;
            let Before { place, history, rates, memory, .. } = armed.run;
            (self.place, self.history, self.rates) = (place, history, rates);
            self.evaluated = None;
            if let (Some(observer), Some(memory)) = (&mut self.observer, memory) {
                observer.restore(memory);
            }
            self.decide_again()?;
            self.checkpoint(engine, self.last_epoch(), false, stops, report)?;
            return Ok(Flow::Replanned);
        }
        if let Some(Stall { best, evaluations }) = self.stall().filter(|_| epoch < epochs) {
            let (best_epoch, best) = best.unzip();
            let metric = self.setup.evaluation.early_stopping.as_ref().map(|early| early.metric.name());
            report(RunEvent::EarlyStop { epoch, metric: metric.unwrap_or_default(), best_epoch, best, evaluations });
            self.checkpoint(engine, epoch, self.is_best(), stops, report)?;
            return Ok(Flow::Replanned);
        }
        let replanned = self.adapts() && self.replan(report)?;
        if replanned {
            self.follow_decision(engine)?;
        }
        let best = self.is_best();
        self.checkpoint(engine, epoch, best, stops, report)?;
        Ok(if replanned { Flow::Replanned } else { Flow::Done })
    }

    /// Trains one step: the batches of one update.
    fn step(
        &mut self,
        engine: &mut dyn Engine,
        epoch: usize,
        number: usize,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<(), RunError> {
        let setup = self.setup;
        let batches = setup.train.len();
        let first = number * setup.accumulate.max(1);
        let indices = first..(first + setup.accumulate.max(1)).min(batches);
        let (steps, epochs) = (setup.steps_per_epoch() as u64, self.plan.epochs.len() as u64);
        let at = self.place.started as u64;
        let lr = setup
            .objective
            .lr()
            .map(|base| lr_at(setup.schedule, base, at, steps * epochs, steps, &self.history.epochs));
        let scales =
            self.rates.scales(setup, &self.plan, &self.history, self.delay, self.place.at, self.place.started)?;
        self.place.started += 1;
        let rows: usize = indices.clone().map(|index| setup.train.rows_of(index)).sum();
        let last = self.observes();
        let Run { phases, state, observer, rates, loader, averager, watch, cache, .. } = self;
        let phase = phases.current();
        if let Some(scale) = self.place.scale {
            phase.set_scale(engine, scale.scale)?;
        }
        phase.keep(engine)?;
        let (mut loss, mut seconds, mut wait) = (0.0, 0.0, 0.0);
        for index in indices.clone() {
            let (mut batch, waited) = loader.take(epoch as u64, index);
            let mut cache = cache.as_mut().filter(|cache| cache.is_used());
            let read = cache.as_ref().map(|_| setup.train.rows_read(epoch as u64, index)).unwrap_or_default();
            // What was left out of a batch that was made ahead may be wanted after all.
            if batch.as_ref().is_ok_and(|batch| batch.len() < setup.train.width())
                && !cache.as_mut().is_some_and(|cache| cache.has(phase, &read))
            {
                batch = setup.train.batch(epoch as u64, index);
            }
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    phase.put_back(engine)?;
                    self.place.started -= 1;
                    return Err(error.into());
                }
            };
            wait += waited;
            let weight = setup.train.rows_of(index) as f64 / rows.max(1) as f64;
            let share = Share { weight, first: index == indices.start };
            let clock = Instant::now();
            if engine.info().remote
                && let Some(next) = loader.next()
            {
                phase.ahead(engine, &next);
            }
            let feed = Feed { at: (epoch - 1) * batches + index + 1, batch: &batch, share };
            let own = match cache {
                Some(cache) => cache.backward(engine, phase, &feed, epoch, &read)?,
                None => phase.backward(engine, feed.at, &batch, share)?,
            };
            seconds += clock.elapsed().as_secs_f64();
            if let Some(gradient) = wrong(engine, phase, own)? {
                if self.place.shrink_scale(&setup.computing) {
                    phase.put_back(engine)?;
                    self.place.scale_event(epoch, true).into_iter().for_each(report);
                    return Ok(());
                }
                let bad = Bad { index, of: indices, loss: own, gradient, lr, epoch };
                return self.nonfinite(engine, &bad, report);
            }
            loss += own * weight;
        }
        let clock = Instant::now();
        if let Some(observer) = observer {
            observer.before_update(engine, phase, state, last.then_some(rates.current()))?;
        }
        let lr = phase.update(engine, lr, scales.as_ref())?;
        if let Some(observer) = observer {
            observer.after_update(engine, state)?;
        }
        watch.good();
        misplaced(&phase.on_processor(engine), &engine.info().device, report);
        if let Some(averager) = averager {
            averager.step(engine, state, self.place.started)?;
        }
        seconds += clock.elapsed().as_secs_f64();
        let place = &mut self.place;
        place.loss += loss * rows as f64;
        place.samples += rows;
        place.wait += wait;
        place.interval_loss += loss;
        place.interval_steps += 1;
        place.lr = lr.unwrap_or(0.0);
        if place.grow_scale(&setup.computing) {
            place.scale_event(epoch, false).into_iter().for_each(&mut *report);
        }
        if place.started.is_multiple_of(setup.log_every.max(1)) {
            report(RunEvent::Step { epoch, step: place.started, loss, lr, seconds, wait_seconds: wait });
        }
        Ok(())
    }

    /// Returns true where a checkpoint is due within an epoch.
    fn saves_now(&self) -> bool {
        let every = self.setup.checkpoints.as_ref().and_then(|checkpoints| checkpoints.every);
        every.is_some_and(|every| self.place.started.is_multiple_of(every.max(1)))
    }

    /// Returns true where the epoch that ended last is the best one so far.
    fn is_best(&self) -> bool {
        let found = self.setup.evaluation.chooses().and_then(|metric| best(&self.history, &metric));
        found.is_some_and(|(epoch, _)| epoch == self.history.epochs.len())
    }
}

/// Leaves out what JSON cannot hold.
fn finite(metrics: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    metrics.into_iter().filter(|(_, value)| value.is_finite()).collect()
}
