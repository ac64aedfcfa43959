//! A training in the page: the crate's own [`Trainer`] on the built-in digits, a few updates at a time.

use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ModelView, SHOWN, ShownImages};
use crate::data::{Dataset, Splits};
use crate::engine::device::{Executor, Key, Rows};
use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Var};
use crate::engine::interp::Interp;
use crate::engine::optim::LrSchedule;
use crate::study::derive::Derivation;
use crate::train::{EpochRecord, EpochTiming, Observer, Source, Sums, TRAIN, TrainConfig, Trainer};
use crate::vae::{DeviceVae, Evaluation, VaeConfig, images, terms};

/// Images of a derivation: its numbers are f64, node by node, and every leaf is checked by differences.
const TAPE_IMAGES: usize = 2;

/// What is trained in a page. What is left out is as in [`PracticeConfig::default`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PracticeConfig {
    /// K.
    pub latent: usize,
    /// Units of the one hidden layer of the encoder, and of the decoder.
    pub hidden: usize,
    /// B, images per update.
    pub batch: usize,
    /// Of Adam.
    pub learning_rate: f64,
    /// Training images.
    pub train_size: usize,
    /// Test images.
    pub test_size: usize,
    /// Of initial values, order and noise.
    pub seed: u64,
}

impl Default for PracticeConfig {
    /// A plane within a minute: 784-64-2-64-784.
    fn default() -> PracticeConfig {
        PracticeConfig {
            latent: 2,
            hidden: 64,
            batch: 64,
            learning_rate: 2e-3,
            train_size: 2000,
            test_size: 200,
            seed: 1,
        }
    }
}

impl PracticeConfig {
    /// The configuration of the run, which has no end.
    pub fn train_config(&self) -> TrainConfig {
        TrainConfig {
            data: Source::Digits { seed: 1, train: self.train_size, test: self.test_size },
            seed: self.seed,
            epochs: 1_000_000,
            batch: self.batch,
            lr: LrSchedule::Constant { lr: self.learning_rate },
            ..TrainConfig::new(VaeConfig::new(self.latent).hidden(&[self.hidden]))
        }
    }

    /// The command that trains the same for `updates` updates.
    pub fn command(&self, updates: u32) -> String {
        let PracticeConfig { latent, hidden, batch, learning_rate, train_size, test_size, seed } = self;
        let epochs = self.train_config().updates(1.0, *train_size).max(1);
        format!(
            "elbo train --latent {latent} --hidden {hidden} --batch {batch} --lr {learning_rate} --seed {seed} --train-size \
             {train_size} --test-size {test_size} --epochs {} --pause-at {updates}",
            u64::from(updates).div_ceil(epochs).max(1)
        )
    }
}

/// What a few updates came to: means over the images that were learned from, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// Updates made since the beginning.
    pub updates: u32,
    /// −ELBO per image.
    pub loss: f64,
    /// −log p(x|z) per image.
    pub rec: f64,
    /// KL(q(z|x) ‖ p(z)) per image.
    pub kl: f64,
}

/// A training in progress.
pub struct Practice {
    config: PracticeConfig,
    trainer: Trainer,
    train: Dataset,
    test: Dataset,
    view: ModelView,
}

impl Practice {
    /// A training from its beginning.
    ///
    /// # Errors
    /// [`Error::Argument`] naming what is out of range.
    pub fn new(config: PracticeConfig, executor: Executor) -> Result<Practice> {
        let run = config.train_config();
        run.validate()?;
        let Splits { train, test } = run.data.load()?;
        let splits = Splits { train, test };
        let mut trainer = Trainer::new_on(run, &splits, executor)?;
        splits.test.load_into(trainer.model(), SHOWN)?;
        Ok(Practice { config, trainer, train: splits.train, test: splits.test, view: ModelView::default() })
    }

    /// What is trained.
    pub fn config(&self) -> &PracticeConfig {
        &self.config
    }

    /// Makes `updates` updates. They are those of [`PracticeConfig::command`], however they are portioned.
    ///
    /// # Errors
    /// [`Error::Argument`] for none; [`Error::Diverged`] when the loss is no finite number any more.
    pub fn step(&mut self, updates: u32) -> Result<Stretch> {
        if updates == 0 {
            return Err(Error::argument("updates", 0, "at least one"));
        }
        let before = self.trainer.progress().clone();
        let mut epochs = Closed { images: self.config.train_size, ..Closed::default() };
        self.trainer.pause_at = Some(before.updates + updates);
        self.trainer.run(&mut epochs, &AtomicBool::new(false))?;
        let after = self.trainer.progress();
        let images = epochs.count * self.config.train_size + after.cursor as usize - before.cursor as usize;
        let mean = |of: fn(&Sums) -> f64| (of(&epochs.sums) + of(&after.sums) - of(&before.sums)) / images as f64;
        Ok(Stretch { updates: after.updates, loss: mean(|s| s.loss), rec: mean(|s| s.rec), kl: mean(|s| s.kl) })
    }

    /// −ELBO of the test images, one draw of z each.
    ///
    /// # Errors
    /// From the executor.
    pub fn evaluate(&mut self) -> Result<Evaluation> {
        self.trainer.evaluate()
    }

    /// The chain rule of the next update, with every number: −ELBO of the first two images of its batch, with the noise that
    /// it will have for them, and the gradient of every parameter.
    ///
    /// # Errors
    /// From the executor.
    pub fn tape(&mut self) -> Result<Derivation> {
        let progress = self.trainer.progress().clone();
        let rows = self.config.train_size.min(TAPE_IMAGES);
        let g = Graph::new();
        let model = self.trainer.model();
        let params = model.vae.params();
        let terms = terms(&model.vae, images(&g, &model.vae, TRAIN, rows));
        let mut run = Interp::<f64>::new(&g);
        let vars = params.vars(&g);
        for param in params.iter() {
            let values: Vec<f64> = model.state.read(&param.name)?.into_iter().map(f64::from).collect();
            run.set(&param.name, &values)?;
        }
        run.load(TRAIN, &self.train.images[..], self.train.cols)?;
        let key = Key { seed: self.config.seed, step: progress.step };
        run.at(key, Rows::shuffled(progress.epoch).from(progress.cursor));
        let leaves: Vec<(&str, Var)> = params.iter().map(|param| param.name.as_str()).zip(vars).collect();
        let names = [("rec", terms.rec), ("kl", terms.kl)];
        let loss = (terms.rec + terms.kl) * (1.0 / rows as f64);
        let title = format!("-ELBO of {rows} images, update {}", progress.updates + 1);
        Ok(Derivation::of(&title, loss, &leaves, &names, &mut run, 1))
    }

    pub(super) fn parts(&mut self) -> (&mut DeviceVae, &mut ModelView) {
        (self.trainer.model(), &mut self.view)
    }

    pub(super) fn shown(&self) -> ShownImages<'_> {
        ShownImages { images: &self.test.images, labels: self.test.labels.as_deref() }
    }

    pub(super) fn about(&self) -> Value {
        json!({
            "title": "A training in this page",
            "data": self.test.name,
            "command": self.config.command(self.trainer.progress().updates.max(1)),
        })
    }
}

/// The sums of the epochs that end in a stretch.
#[derive(Default)]
struct Closed {
    images: usize,
    count: usize,
    sums: Sums,
}

impl Observer for Closed {
    fn epoch(&mut self, _: &Trainer, record: &EpochRecord, _: &EpochTiming) -> Result<()> {
        let images = self.images as f64;
        self.count += 1;
        self.sums.rec += record.train_rec * images;
        self.sums.kl += record.train_kl * images;
        self.sums.loss += record.train_loss * images;
        Ok(())
    }
}
