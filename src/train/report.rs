//! What a run reports, and who listens.

use serde::{Deserialize, Serialize};

use super::Trainer;
use crate::engine::error::Result;
use crate::vae::HiddenUnits;

/// The two terms of −ELBO and their weighted sum; sums over images while an epoch runs, means when it is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// −log p(x|z), in nats.
    pub rec: f64,
    /// KL(q(z|x) ‖ p(z)), in nats.
    pub kl: f64,
    /// rec + β·kl, what is minimised.
    pub loss: f64,
}

impl Sums {
    /// The sums as a [training step](crate::vae::training_step) has them.
    pub(super) fn from_totals(totals: &[f64]) -> Sums {
        let &[rec, kl, loss] = totals else { unreachable!("a training step has three totals") };
        Sums { rec, kl, loss }
    }

    /// The totals of a training step.
    pub(super) fn to_totals(self) -> [f64; 3] {
        [self.rec, self.kl, self.loss]
    }

    /// Each sum divided by the number of images.
    pub fn per_image(&self, images: usize) -> Sums {
        let n = images.max(1) as f64;
        Sums { rec: self.rec / n, kl: self.kl / n, loss: self.loss / n }
    }
}

/// One line of `metrics.jsonl`. Nothing in it depends on the clock; all values are in nats per image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Passes over the training set so far.
    pub epoch: u32,
    /// Updates so far.
    pub updates: u32,
    /// The learning rate of the last update.
    pub lr: f64,
    /// β of the last update.
    pub beta: f64,
    /// −ELBO (β = 1) of the training images, each at the moment it was learned from.
    pub train_neg_elbo: f64,
    /// Its first term.
    pub train_rec: f64,
    /// Its second term.
    pub train_kl: f64,
    /// What was minimised, rec + β·kl.
    pub train_loss: f64,
    /// −ELBO (β = 1) of the test images after the epoch, one draw of z per image.
    pub test_neg_elbo: f64,
    /// Its first term.
    pub test_rec: f64,
    /// Its second term.
    pub test_kl: f64,
    /// The number of dimensions of z in use ([`Trainer::active_units`]); none in files of older versions.
    #[serde(default)]
    pub active_units: Option<usize>,
    /// The dead units of every hidden layer ([`Trainer::dead_units`]); none in files of older versions.
    #[serde(default)]
    pub dead_units: Option<Vec<HiddenUnits>>,
}

/// One line of `timing.jsonl`: what differs between two runs with the same numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochTiming {
    /// The epoch.
    pub epoch: u32,
    /// Wall-clock seconds of the updates of this epoch that were made in this session.
    pub train_seconds: f64,
    /// Wall-clock seconds of the evaluation.
    pub test_seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
    /// The device and its precision; empty in journals of versions that did not write it down.
    #[serde(default)]
    pub device: String,
    /// The compiler and the platform of the program; empty as above.
    #[serde(default)]
    pub build: String,
    /// The processes that trained together; not written down where it was one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub ranks: usize,
}

pub(super) fn one() -> usize {
    1
}

pub(super) fn is_one(ranks: &usize) -> bool {
    *ranks == 1
}

/// One line of `steps.jsonl`: means over the images of one of the [intervals](INTERVALS) of an epoch, each image at the
/// moment it was learned from; in nats per image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Updates of the run at the end of the interval.
    pub updates: u32,
    /// Images in the interval.
    pub images: usize,
    /// −log p(x|z).
    pub rec: f64,
    /// KL(q(z|x) ‖ p(z)).
    pub kl: f64,
    /// rec + β·kl, what was minimised.
    pub loss: f64,
}

/// The intervals of an epoch of which `steps.jsonl` has the means; fewer where an epoch has fewer updates, or where a GPU was
/// further already when it was asked.
pub const INTERVALS: usize = 20;

/// Where a run is, as far as it is known: a GPU may be some updates further.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// The epoch that is running, counted from 1.
    pub epoch: u32,
    /// The number of epochs of the run.
    pub epochs: u32,
    /// Updates of the run so far.
    pub updates: u32,
    /// Images of this epoch that were learned from.
    pub images: usize,
    /// Images of an epoch.
    pub of: usize,
    /// Means over these images.
    pub means: Sums,
}

/// Who wants to know how a run goes. Every method does nothing unless it is written.
pub trait Observer {
    /// Called after every few updates, with the newest means that are known without waiting for the device.
    fn step(&mut self, _report: &StepReport) {}

    /// Called by [`Run::train`](super::Run::train) before [`Observer::epoch`], with the intervals of that epoch.
    ///
    /// # Errors
    /// What it returns ends the run.
    fn intervals(&mut self, _steps: &[StepRecord]) -> Result<()> {
        Ok(())
    }

    /// Called after every epoch and its evaluation, in a state that a checkpoint can be taken of.
    ///
    /// # Errors
    /// What it returns ends the run.
    fn epoch(&mut self, _trainer: &Trainer, _record: &EpochRecord, _timing: &EpochTiming) -> Result<()> {
        Ok(())
    }
}

/// Listens to nothing.
impl Observer for () {}
