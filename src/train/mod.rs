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
pub mod checkpoint;
mod config;
mod folder;
mod place;
mod report;
mod start;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use alarm::{Alarm, COLLAPSED_KL};
pub use config::{OutputBias, Source, TrainConfig};
pub use folder::RunFolder;
pub use report::{EpochRecord, EpochTiming, Observer, StepReport, Sums};

use crate::data::{Dataset, Splits};
use crate::engine::device::memory::SMALLER;
use crate::engine::device::room::must_fit;
use crate::engine::device::{Bound, Device, Moment, Snapshot};
use crate::engine::error::{Error, Result};
use crate::engine::optim::Control;
use crate::train::checkpoint::{Checkpoint, families};
use crate::vae::{Evaluation, HiddenUnits, Model, Vae, training_graph};

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
    model: Model,
    /// The step on a full batch, and on the smaller one at the end of an epoch.
    full: Option<Bound>,
    rest: Option<Bound>,
    images: usize,
    /// Sums of the running epoch, while they are not in the executor.
    sums: Sums,
    /// The plan in which they go on.
    running: Option<Bound>,
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
        let mut model = Model::initial(Vae::new(config.model.clone())?, config.seed, device)?;
        // A checkpoint is made of three arrays of every parameter, which are read, encoded and put together in turn.
        let checkpoint = 3 * 3 * size_of::<f32>() as u64 * model.vae.parameter_count() as u64;
        must_fit(checkpoint, "a checkpoint of this model", SMALLER)?;
        let train = start::training_images(&config, &data.train)?;
        model.load(TRAIN, &train)?;
        model.load(TEST, &data.test)?;
        model.load(WATCHED, &first(&data.test, WATCHED_IMAGES))?;
        start::write_parameters(&mut model, &config, &train)?;
        let images = train.rows;
        let graph = |rows: usize| training_graph(&model.vae, &config.objective, TRAIN, rows);
        let batch = config.batch;
        let graphs =
            [(images >= batch).then(|| graph(batch)), (!images.is_multiple_of(batch)).then(|| graph(images % batch))];
        let [full, rest] = graphs.map(|g| g.map(|g| model.bind(&g)).transpose());
        let (full, rest) = (full?, rest?);
        start::write_moments(&mut model, &config)?;
        let (shuffle, lr, warmup) = (config.shuffle, config.lr.clone(), config.warmup);
        *model.exec.control_mut() = Control { shuffle, lr, warmup, ..Control::new(config.seed) };
        Ok(Trainer { config, model, full, rest, images, sums: Sums::default(), running: None, pause_at: None })
    }

    /// A run from where a checkpoint left it: from here on its numbers are those of a run that was never interrupted.
    ///
    /// # Errors
    /// As [`Trainer::new`]; [`Error::File`] when the checkpoint's counters do not fit the data, or when it has no
    /// moments.
    pub fn resume(checkpoint: &Checkpoint, data: &Splits, device: Device) -> Result<Trainer> {
        let mut trainer = Trainer::new(checkpoint.config.clone(), data, device)?;
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
            trainer.model.exec.write_moment(&name, moment, values)?;
        }
        let control = trainer.model.exec.control_mut();
        (control.step, control.epoch, control.cursor, control.updates) = (p.step, p.epoch, p.cursor, p.updates);
        trainer.sums = p.sums;
        Ok(trainer)
    }

    /// What is trained, on what, and how.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Writes down where the images are to be found; nothing is read.
    pub fn set_source(&mut self, source: Source) {
        self.config.data = source;
    }

    /// The model, to draw from and to look into.
    pub fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// Trains until all epochs are done, `stop` is raised, or [`Trainer::pause_at`] is reached. The flag is
    /// looked at between updates, every few of them: what has begun is finished.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the loss is no longer a finite number, and what `observer` returns.
    pub fn run(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        while self.control().epoch < self.config.epochs {
            let start = Instant::now();
            let before = self.control().cursor;
            if self.finish_epoch(observer, stop)? == Outcome::Stopped {
                return Ok(Outcome::Stopped);
            }
            let train_seconds = start.elapsed().as_secs_f64();
            let record = self.close_epoch()?;
            let timing = EpochTiming {
                epoch: record.epoch,
                train_seconds,
                test_seconds: start.elapsed().as_secs_f64() - train_seconds,
                images_per_second: (self.images - before as usize) as f64 / train_seconds,
                device: self.model.exec.describe(),
                build: env!("ELBO_BUILD").into(),
            };
            observer.epoch(self, &record, &timing)?;
        }
        Ok(Outcome::Finished)
    }

    fn control(&self) -> &Control {
        self.model.exec.control()
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
            let done = self.control().cursor as usize;
            if done == self.images {
                return Ok(Outcome::Finished);
            }
            if stop.load(Ordering::Relaxed) || self.pause_at.is_some_and(|limit| self.control().updates >= limit) {
                return Ok(Outcome::Stopped);
            }
            let whole = (self.images - done) / self.config.batch;
            let (bound, updates) =
                if whole > 0 { (self.full, whole.min(self.model.exec.steps_per_call())) } else { (self.rest, 1) };
            let bound = bound.expect("a plan for every size of batch");
            let allowed = self.pause_at.map_or(updates, |limit| (limit - self.control().updates) as usize);
            self.go_on_in(bound)?;
            self.model.exec.run(bound, updates.min(allowed))?;
            let Some(Snapshot { cursor, updates, sums }) = self.model.exec.peek_metrics(bound)? else { continue };
            let sums = Sums::from_metrics(&sums);
            must_be_finite(|| format!("loss by update {updates}"), sums.loss)?;
            observer.step(&StepReport {
                epoch: self.control().epoch + 1,
                epochs: self.config.epochs,
                images: cursor as usize,
                of: self.images,
                means: sums.per_image(cursor as usize),
            });
        }
    }

    /// Lets the epoch's sums go on in a plan. They stay inside the executor from update to update, so that the order of
    /// the additions does not depend on how updates are grouped, and is the same in a run that was interrupted.
    fn go_on_in(&mut self, bound: Bound) -> Result<()> {
        if self.running != Some(bound) {
            self.settle()?;
            self.model.exec.set_metrics(bound, &self.sums.to_metrics())?;
            self.running = Some(bound);
        }
        Ok(())
    }

    /// Waits for all updates that were asked for, and takes the sums back.
    fn settle(&mut self) -> Result<()> {
        if let Some(bound) = self.running.take() {
            self.sums = Sums::from_metrics(&self.model.exec.take_metrics(bound)?);
            must_be_finite(|| format!("loss by update {}", self.control().updates), self.sums.loss)?;
        }
        Ok(())
    }

    /// Evaluates, records, and turns to the next epoch.
    fn close_epoch(&mut self) -> Result<EpochRecord> {
        let test = self.evaluate()?;
        must_be_finite(|| format!("test loss of epoch {}", self.control().epoch + 1), test.neg_elbo())?;
        let (active_units, dead_units) = (Some(self.active_units()?), Some(self.dead_units()?));
        let train = self.sums.per_image(self.images);
        let control = self.model.exec.control_mut();
        let last = control.updates.saturating_sub(1);
        (control.epoch, control.cursor) = (control.epoch + 1, 0);
        let record = EpochRecord {
            epoch: control.epoch,
            updates: control.updates,
            lr: control.lr.at(u64::from(last)),
            beta: control.warmup.at(u64::from(last)),
            train_neg_elbo: train.rec + train.kl,
            train_rec: train.rec,
            train_kl: train.kl,
            train_loss: train.loss,
            test_neg_elbo: test.neg_elbo(),
            test_rec: test.rec,
            test_kl: test.kl,
            active_units,
            dead_units,
        };
        self.sums = Sums::default();
        Ok(record)
    }

    /// −ELBO of the test set with the parameters as they are: β = 1, one draw of z per image.
    ///
    /// # Errors
    /// From the executor.
    pub fn evaluate(&mut self) -> Result<Evaluation> {
        self.model.evaluate(TEST, self.config.seed)
    }

    /// The number of dimensions of z in use: those with Var_x(E_q[z_k|x]) > 0.01 over the first 1000 test images.
    ///
    /// # Errors
    /// From the executor.
    pub fn active_units(&mut self) -> Result<usize> {
        Ok(self.model.encode(WATCHED, self.config.seed)?.active_units())
    }

    /// The dead units of every hidden layer ([`HiddenUnits::dead`]) over the first 1000 test images.
    ///
    /// # Errors
    /// From the executor.
    pub fn dead_units(&mut self) -> Result<Vec<HiddenUnits>> {
        self.model.dead_units(WATCHED, self.config.seed)
    }

    /// (prefix in a checkpoint, kind, parameter) of every array that the run keeps.
    fn arrays(&self) -> Vec<(&'static str, Moment, String)> {
        let names = self.model.vae.parameters().into_iter().map(|(name, _)| name);
        let families = families(&self.config.objective.optimizer);
        names.flat_map(|name| families.iter().map(move |&(prefix, kind)| (prefix, kind, name.clone()))).collect()
    }

    /// All that is needed to continue from here.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when a parameter or a moment is no longer a finite number; [`Error::Slot`] from the executor.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let mut slots = BTreeMap::new();
        for (prefix, moment, name) in self.arrays() {
            let (values, array) = (self.model.exec.read_moment(&name, moment)?, format!("{prefix}{name}"));
            // The last update's loss was that of the parameters before it.
            if let Some(&value) = values.iter().find(|v| !v.is_finite()) {
                must_be_finite(|| format!("{array} after update {}", self.control().updates), f64::from(value))?;
            }
            slots.insert(array, values);
        }
        let c = self.control();
        let Sums { rec, kl, loss } = self.sums;
        must_be_finite(|| format!("sums of the epoch by update {}", c.updates), rec + kl + loss)?;
        let progress = Progress { step: c.step, epoch: c.epoch, cursor: c.cursor, updates: c.updates, sums: self.sums };
        Ok(Checkpoint { config: self.config.clone(), progress, slots })
    }
}

/// The first `images` images of a set.
fn first(data: &Dataset, images: usize) -> Dataset {
    let rows = images.min(data.rows);
    let labels = data.labels.as_ref().map(|labels| labels[..rows].to_vec());
    Dataset {
        name: data.name.clone(),
        split: data.split,
        images: data.images[..rows * data.cols].to_vec(),
        rows,
        labels,
        ..*data
    }
}

/// What is wrong with the contents of a checkpoint, whose file is known to the caller alone.
fn in_checkpoint(field: &str, found: String, expected: String, remedy: String) -> Error {
    Error::File { path: "checkpoint".into(), field: field.into(), found, expected, remedy }
}

/// A loss that has left the finite numbers does not come back.
fn must_be_finite(field: impl Fn() -> String, value: f64) -> Result<()> {
    let remedy = || "lower --lr, or limit the gradient with --clip".to_string();
    if value.is_finite() { Ok(()) } else { Err(Error::NotFinite { field: field(), found: value, remedy: remedy() }) }
}
