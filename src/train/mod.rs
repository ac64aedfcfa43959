//! The loop: epochs of shuffled batches, an evaluation after each, and a state that can be left and taken up again.
//!
//! ```no_run
//! use elbo::engine::device::Device;
//! use elbo::train::{TrainConfig, Trainer};
//! use elbo::vae::VaeConfig;
//! use std::sync::atomic::AtomicBool;
//!
//! # fn main() -> elbo::Result<()> {
//! let config = TrainConfig::new(VaeConfig::new(20));
//! let images = config.data.load()?;
//! let mut trainer = Trainer::new(config, &images, Device::Cpu { threads: 0 })?;
//! trainer.run(&mut (), &AtomicBool::new(false))?;
//! println!("test −ELBO {:.2}", trainer.evaluate()?.neg_elbo());
//! # Ok(()) }
//! ```

mod alarm;
mod config;
mod experiment;
mod place;
pub mod ranks;
mod report;
mod run;
mod start;
pub mod sweep;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

pub use alarm::{Alarm, COLLAPSED_KL};
pub use config::{Difference, OutputBias, Source, TrainConfig};
pub use experiment::{EpochSchedules, Experiment, RateSchedule};
pub use report::{EpochRecord, EpochTiming, INTERVALS, Observer, StepRecord, StepReport, Sums};
pub(crate) use run::quoted;
pub use run::{Entry, Journals, Run, SessionRecord, checkpoint};

use crate::data::Splits;
use crate::engine::clock::Stopwatch;
use crate::engine::device::room::must_fit;
use crate::engine::device::{Call, Device, Executor, Key, Moment, Rows, Snapshot, call};
use crate::engine::error::{Error, Remedy, Result};
use crate::train::checkpoint::{Checkpoint, ImageHashes, families};
use crate::train::ranks::{Ranks, SharedUpdate, TrainStep};
use crate::vae::{BETA, DeviceVae, Evaluation, Evaluator, HiddenUnits, Inspector, LEARNING_RATE, Vae};

/// The data slot of the training images.
pub const TRAIN: &str = "train";
/// The data slot of the test images.
pub const TEST: &str = "test";
/// The first test images, in which active and dead units are counted after every epoch.
const WATCHED: &str = "watched";
/// Their number: twice what Burda et al. counted in. Either count is less than 1 % of the work of a usual epoch.
pub(crate) const WATCHED_IMAGES: usize = 1000;

/// How far a run got: the counters, and the sums of the epoch that is running.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps, which number the noise.
    pub step: u32,
    /// Whole epochs.
    pub epoch: u32,
    /// Images of the running epoch that were learned from.
    pub cursor: u32,
    /// Updates.
    pub updates: u32,
    /// Over those images.
    pub sums: Sums,
}

/// Which of the two sizes of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BatchSize {
    Full,
    Rest,
}

/// How a call of [`Trainer::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// The stop flag was raised, or the limit of updates reached; the run can be continued.
    Stopped,
}

/// A model being trained.
pub struct Trainer {
    config: TrainConfig,
    model: DeviceVae,
    /// The step on a full batch, and on the smaller one at the end of an epoch.
    full: Option<TrainStep>,
    rest: Option<TrainStep>,
    images: usize,
    /// Which images they are, and the test images.
    hashes: ImageHashes,
    /// How far the run is. The sums are those of the running epoch, while they are not in a step.
    progress: Progress,
    /// The size of the step in which the sums go on.
    running: Option<BatchSize>,
    test: Evaluator,
    watched: Inspector,
    /// Those that train the model together, if they are several.
    ranks: Option<Rc<dyn Ranks>>,
    exchange: Option<String>,
    /// Stop when this many updates were made, as if the stop flag had been raised then.
    pub pause_at: Option<u32>,
}

impl Trainer {
    /// A run from its beginning.
    ///
    /// # Errors
    /// [`Error::Argument`] when the configuration is not valid or the images are not of the model's size.
    pub fn new(config: TrainConfig, data: &Splits, device: Device) -> Result<Trainer> {
        config.validate()?;
        Trainer::new_on(config, data, device.open()?)
    }

    /// As [`Trainer::new`], on an executor that is there already.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn new_on(config: TrainConfig, data: &Splits, executor: Executor) -> Result<Trainer> {
        config.validate()?;
        let mut model = DeviceVae::initial_on(Vae::new(config.model.clone())?, config.seed, executor)?;
        // A checkpoint is made of three arrays of every parameter, which are read, encoded and put together in turn.
        let checkpoint = 3 * 3 * size_of::<f32>() as u64 * model.vae.params().count() as u64;
        must_fit(checkpoint, "a checkpoint of this model", Remedy::smaller())?;
        let train = start::training_images(&config, &data.train)?;
        train.load_into(&mut model, TRAIN)?;
        data.test.load_into(&mut model, TEST)?;
        data.test.first(WATCHED_IMAGES).load_into(&mut model, WATCHED)?;
        start::write_parameters(&mut model, &config, &train)?;
        start::write_moments(&mut model, &config)?;
        let (images, batch) = (train.rows, config.batch);
        let [full, rest] = steps(images, batch, |rows| TrainStep::alone(&model, &config, rows))?;
        Ok(Trainer {
            full,
            rest,
            test: model.evaluator(TEST)?,
            watched: model.inspector(WATCHED)?,
            hashes: ImageHashes::of(&train, &data.test),
            config,
            model,
            images,
            progress: Progress::default(),
            running: None,
            ranks: None,
            exchange: None,
            pause_at: None,
        })
    }

    /// A run from where a checkpoint left it: from here on its numbers are those of a run that was never interrupted.
    ///
    /// # Errors
    /// As [`Trainer::new`]; [`Error::File`] when the images are others than those of the checkpoint, its counters do not fit
    /// them, or when it has no moments.
    pub fn resume(checkpoint: &Checkpoint, data: &Splits, device: Device) -> Result<Trainer> {
        checkpoint.config.validate()?;
        Trainer::resume_on(checkpoint, data, device.open()?)
    }

    /// As [`Trainer::resume`], on an executor that is there already.
    ///
    /// # Errors
    /// As [`Trainer::resume`].
    pub fn resume_on(checkpoint: &Checkpoint, data: &Splits, executor: Executor) -> Result<Trainer> {
        let mut trainer = Trainer::new_on(checkpoint.config.clone(), data, executor)?;
        if let Some((set, there, here)) = checkpoint.images.as_ref().and_then(|i| i.difference(&trainer.hashes)) {
            let (found, expected) = (format!("others, with the hash {here}"), format!("those of the run, {there}"));
            let remedy = "resume it with the images that it was trained on, or start a new run on these";
            return Err(in_checkpoint(set, found, expected, remedy.into()));
        }
        let p = &checkpoint.progress;
        if p.cursor as usize >= trainer.images || !(p.cursor as usize).is_multiple_of(trainer.config.batch) {
            let expected = format!("a whole number of batches of a set of {} images", trainer.images);
            let remedy = "resume it with the images that it was trained on".into();
            return Err(in_checkpoint("position in the epoch", p.cursor.to_string(), expected, remedy));
        }
        for (prefix, moment, name) in trainer.arrays() {
            let values = checkpoint.slots.get(&format!("{prefix}{name}")).ok_or_else(|| {
                let expected = "also the optimiser's moments, which an exported file lacks".into();
                let remedy = "resume the run folder that it was exported from, or use the file with sample, reconstruct \
                              and eval";
                in_checkpoint("tensors", "parameters alone".into(), expected, remedy.into())
            })?;
            trainer.model.state.write_moment(&name, moment, values)?;
        }
        trainer.model.state.updates = u64::from(p.updates);
        trainer.progress = p.clone();
        Ok(trainer)
    }

    /// From here on each update is made together with `ranks`, whose trainers are all in the state of this one, by its
    /// checkpoint. Trainers of ranks other than 0 evaluate nothing, and their observers hear of no epoch.
    ///
    /// # Errors
    /// As [`ranks::check`]; from the executor.
    pub fn share(&mut self, ranks: Rc<dyn Ranks>) -> Result<()> {
        ranks::check(&self.config, ranks.size())?;
        let update = SharedUpdate::new(&self.model, &self.config, ranks.clone())?;
        self.exchange = update.words.clone();
        let update = Rc::new(RefCell::new(update));
        let step = |rows: usize| TrainStep::shared(&self.model, &self.config, rows, &update);
        [self.full, self.rest] = steps(self.images, self.config.batch, step)?;
        self.ranks = Some(ranks);
        Ok(())
    }

    /// How many processes train the model together.
    pub fn ranks(&self) -> usize {
        self.ranks.as_ref().map_or(1, |ranks| ranks.size())
    }

    /// How GPUs of several processes sum their gradients, for people; nothing of one process or of CPUs.
    pub fn exchange(&self) -> Option<&str> {
        self.exchange.as_deref()
    }

    /// What is trained, on what, and how.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// How far the run is, with the sums of the epoch that is running, between two calls of [`Trainer::run`].
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The model, to draw from and to look into.
    pub fn model(&mut self) -> &mut DeviceVae {
        &mut self.model
    }

    /// Trains until all epochs are done, `stop` is raised, or [`Trainer::pause_at`] is reached. The flag is
    /// looked at between updates, every few of them: what has begun is finished.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the loss is no longer a finite number, and what `observer` returns.
    pub fn run(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        while self.progress.epoch < self.config.epochs {
            let start = Stopwatch::start();
            let before = self.progress.cursor;
            if self.finish_epoch(observer, stop)? == Outcome::Stopped {
                return Ok(Outcome::Stopped);
            }
            if self.ranks.as_ref().is_some_and(|ranks| ranks.rank() > 0) {
                self.turn_to_next_epoch();
                continue;
            }
            let train_seconds = start.seconds();
            let record = self.close_epoch()?;
            let timing = EpochTiming {
                epoch: record.epoch,
                train_seconds,
                test_seconds: start.seconds() - train_seconds,
                images_per_second: (self.images - before as usize) as f64 / train_seconds,
                device: self.model.executor.describe(),
                build: env!("ELBO_BUILD").into(),
                ranks: self.ranks(),
            };
            observer.epoch(self, &record, &timing)?;
        }
        Ok(Outcome::Finished)
    }

    /// The remaining updates of the running epoch. However they end, the sums come back from the executor.
    fn finish_epoch(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        let ended = self.update_until(observer, stop);
        let settled = self.settle();
        let outcome = ended?;
        settled.map(|()| outcome)
    }

    /// Makes updates until the epoch ends or a stop is asked for. The loss is looked at as it becomes known, which on a
    /// GPU is a few updates later; nothing here waits for it.
    fn update_until(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        loop {
            let done = self.progress.cursor as usize;
            if done == self.images {
                return Ok(Outcome::Finished);
            }
            let made = self.progress.updates;
            let asked = (stop.load(Ordering::Relaxed), self.model.executor.steps_per_call());
            let (stop, steps) = self.ranks.as_ref().map_or(asked, |ranks| ranks::agree(&**ranks, asked.0, asked.1));
            if stop || self.pause_at.is_some_and(|limit| made >= limit) {
                return Ok(Outcome::Stopped);
            }
            let whole = (self.images - done) / self.config.batch;
            let (batch, updates) = match whole {
                0 => (BatchSize::Rest, 1),
                _ => (BatchSize::Full, whole.min(steps).min(self.until_interval_ends(done))),
            };
            let allowed = self.pause_at.map_or(updates, |limit| (limit - made) as usize);
            self.go_on_in(batch)?;
            self.update(batch, updates.min(allowed))?;
            let made = self.progress.updates;
            let Some(Snapshot { cursor, updates, totals }) = self.step(batch).peek_totals(made)? else { continue };
            let sums = Sums::from_totals(&totals);
            must_be_finite(|| format!("loss by update {updates}"), sums.loss)?;
            observer.step(&StepReport {
                epoch: self.progress.epoch + 1,
                epochs: self.config.epochs,
                updates: updates as u32,
                images: cursor as usize,
                of: self.images,
                means: sums.per_image(cursor as usize),
            });
        }
    }

    /// Updates until the interval that `done` images of the epoch lie in is over. How updates are grouped changes no number;
    /// this way the means of the intervals do not depend on the clock either.
    fn until_interval_ends(&self, done: usize) -> usize {
        let interval = done * INTERVALS / self.images + 1;
        let end = (interval * self.images).div_ceil(INTERVALS);
        (end - done).div_ceil(self.config.batch)
    }

    fn step(&mut self, batch: BatchSize) -> &mut TrainStep {
        let step = if batch == BatchSize::Full { &mut self.full } else { &mut self.rest };
        step.as_mut().expect("a step for every size of batch")
    }

    /// Makes `updates` updates.
    fn update(&mut self, batch: BatchSize, updates: usize) -> Result<()> {
        let Trainer { config, model, progress, .. } = self;
        let step = if batch == BatchSize::Full { &mut self.full } else { &mut self.rest };
        let step = step.as_mut().expect("a step for every size of batch");
        let key = Key { seed: config.seed, step: progress.step };
        let rows = Rows { cursor: progress.cursor, epoch: progress.epoch, shuffle: config.shuffle };
        let (rate, beta) = (|done| config.lr.at(done), |done| config.warmup.at(done));
        let schedules: &[(&str, call::Schedule<'_>)] = &[(LEARNING_RATE, &rate), (BETA, &beta)];
        step.run(&mut model.state, &Call { key, rows, steps: updates, schedules })?;
        progress.step = progress.step.wrapping_add(updates as u32);
        progress.updates += updates as u32;
        progress.cursor += (updates * step.batch_rows()) as u32;
        Ok(())
    }

    /// Lets the epoch's sums go on in a step. They stay inside the device from update to update, so that the order of
    /// the additions does not depend on how updates are grouped, and is the same in a run that was interrupted.
    fn go_on_in(&mut self, batch: BatchSize) -> Result<()> {
        if self.running != Some(batch) {
            self.settle()?;
            let sums = self.progress.sums.to_totals();
            self.step(batch).set_totals(&sums)?;
            self.running = Some(batch);
        }
        Ok(())
    }

    /// Waits for all updates that were asked for, and takes the sums back.
    fn settle(&mut self) -> Result<()> {
        if let Some(batch) = self.running.take() {
            self.progress.sums = Sums::from_totals(&self.step(batch).take_totals()?);
            must_be_finite(|| format!("loss by update {}", self.progress.updates), self.progress.sums.loss)?;
        }
        Ok(())
    }

    /// Evaluates, records, and turns to the next epoch.
    fn close_epoch(&mut self) -> Result<EpochRecord> {
        let test = self.evaluate()?;
        must_be_finite(|| format!("test loss of epoch {}", self.progress.epoch + 1), test.neg_elbo())?;
        let (active_units, dead_units) = (Some(self.active_units()?), Some(self.dead_units()?));
        let train = self.progress.sums.per_image(self.images);
        let updates = self.progress.updates;
        let last = u64::from(updates.saturating_sub(1));
        let epoch = self.progress.epoch + 1;
        self.turn_to_next_epoch();
        Ok(EpochRecord {
            epoch,
            updates,
            lr: self.config.lr.at(last),
            beta: self.config.warmup.at(last),
            train_neg_elbo: train.rec + train.kl,
            train_rec: train.rec,
            train_kl: train.kl,
            train_loss: train.loss,
            test_neg_elbo: test.neg_elbo(),
            test_rec: test.rec,
            test_kl: test.kl,
            active_units,
            dead_units,
        })
    }

    fn turn_to_next_epoch(&mut self) {
        self.progress = Progress { epoch: self.progress.epoch + 1, cursor: 0, sums: Sums::default(), ..self.progress };
    }

    /// −ELBO of the test set with the parameters as they are: β = 1, one draw of z per image.
    ///
    /// # Errors
    /// From the executor.
    pub fn evaluate(&mut self) -> Result<Evaluation> {
        self.test.run(&mut self.model, self.config.seed)
    }

    /// The number of dimensions of z in use: those with Var_x(E_q[z_k|x]) > 0.01 over the first 1000 test images.
    ///
    /// # Errors
    /// From the executor.
    pub fn active_units(&mut self) -> Result<usize> {
        Ok(self.watched.encode(&mut self.model, self.config.seed)?.active_units())
    }

    /// The dead units of every hidden layer ([`HiddenUnits::dead`]) over the first 1000 test images.
    ///
    /// # Errors
    /// From the executor.
    pub fn dead_units(&mut self) -> Result<Vec<HiddenUnits>> {
        self.watched.dead_units(&mut self.model, self.config.seed)
    }

    /// (prefix in a checkpoint, kind, parameter) of every array that the run keeps.
    fn arrays(&self) -> Vec<(&'static str, Moment, String)> {
        let names = self.model.state.params().iter().map(|p| p.name.clone()).collect::<Vec<_>>().into_iter();
        let families = families(&self.config.objective.optimizer);
        names.flat_map(|name| families.iter().map(move |&(prefix, kind)| (prefix, kind, name.clone()))).collect()
    }

    /// All that is needed to continue from here.
    ///
    /// # Errors
    /// [`Error::Diverged`] when a parameter or a moment is no longer a finite number; [`Error::Slot`] from the executor.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let mut slots = BTreeMap::new();
        for (prefix, moment, name) in self.arrays() {
            let (values, array) = (self.model.state.read_moment(&name, moment)?, format!("{prefix}{name}"));
            // The last update's loss was that of the parameters before it.
            if let Some(&value) = values.iter().find(|v| !v.is_finite()) {
                must_be_finite(|| format!("{array} after update {}", self.progress.updates), f64::from(value))?;
            }
            slots.insert(array, values);
        }
        let Sums { rec, kl, loss } = self.progress.sums;
        must_be_finite(|| format!("sums of the epoch by update {}", self.progress.updates), rec + kl + loss)?;
        let (config, progress, images) = (self.config.clone(), self.progress.clone(), Some(self.hashes.clone()));
        Ok(Checkpoint { config, progress, images, slots })
    }
}

/// The steps on a full batch of `batch` of the `images`, and on those that are left at the end of an epoch, where there are such.
fn steps(images: usize, batch: usize, step: impl Fn(usize) -> Result<TrainStep>) -> Result<[Option<TrainStep>; 2]> {
    Ok([
        (images >= batch).then(|| step(batch)).transpose()?,
        (!images.is_multiple_of(batch)).then(|| step(images % batch)).transpose()?,
    ])
}

/// What is wrong with the contents of a checkpoint, whose file is known to the caller alone.
fn in_checkpoint(field: &str, found: String, expected: String, remedy: String) -> Error {
    Error::File { path: "checkpoint".into(), field: field.into(), found, expected, remedy }
}

/// A loss that has left the finite numbers does not come back.
fn must_be_finite(field: impl Fn() -> String, value: f64) -> Result<()> {
    let remedy = || "lower the learning rate, or limit the gradient's norm".to_string();
    if value.is_finite() { Ok(()) } else { Err(Error::Diverged { field: field(), found: value, remedy: remedy() }) }
}
