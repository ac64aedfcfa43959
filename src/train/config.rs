//! Everything that decides a run's numbers.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::place;
use crate::data::{self, Splits};
use crate::engine::device::room::must_fit;
use crate::engine::error::{Error, Result};
use crate::engine::optim::{LrSchedule, Optimizer};
use crate::vae::{KlWarmup, UpdateRule, VaeConfig};

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// The program's own digits, drawn on the spot.
    Digits {
        /// Which digits; not the seed of the run, so that runs of many seeds see the same images.
        seed: u64,
        /// The number of training images.
        train: usize,
        /// The number of test images.
        test: usize,
    },
    /// A folder with IDX files.
    Folder {
        /// The folder. In a run a relative path counts from the run's own folder, elsewhere from the current one.
        path: PathBuf,
        /// [`Splits::fingerprint`] of the images that a run is of, which its data must keep; none if nothing is known of
        /// them yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        images: Option<String>,
    },
}

impl Source {
    /// The digits a run uses when nothing else is asked for.
    pub const DIGITS: Source = Source::Digits { seed: 1, train: 30_000, test: 5_000 };

    /// Draws or reads the images.
    ///
    /// # Errors
    /// As [`data::load`]; [`Error::Argument`] for a set without images; [`Error::File`] for images that are not those of
    /// the fingerprint; [`Error::Device`] when they do not fit into memory.
    pub fn load(&self) -> Result<Splits> {
        match self {
            Source::Digits { seed, train, test } => {
                /// More would not be numbered apart from the test set.
                const MOST: usize = 10_000_000;
                for (field, count) in [("train size", *train), ("test size", *test)] {
                    if !(1..=MOST).contains(&count) {
                        return Err(Error::argument(field, count, format!("a number of images from 1 to {MOST}")));
                    }
                }
                // Once for the program, once for the executor.
                let bytes = 2 * ((*train + *test) * data::digits::PIXELS) as u64;
                must_fit(bytes, "so many digits", "draw fewer of them")?;
                Ok(Splits::digits(*seed, *train, *test))
            }
            Source::Folder { path, images } => {
                let splits = data::load(path)?;
                for set in [&splits.train, &splits.test] {
                    if set.rows == 0 {
                        return Err(Error::File {
                            path: path.clone(),
                            field: format!("{:?} images", set.split),
                            found: "none".into(),
                            expected: "at least one image".into(),
                            remedy: "name a folder with MNIST's four IDX files".into(),
                        });
                    }
                }
                if let Some(expected) = images
                    && splits.fingerprint() != *expected
                {
                    return Err(Error::File {
                        path: path.clone(),
                        field: "images".into(),
                        found: format!("others, with the fingerprint {}", splits.fingerprint()),
                        expected: format!("those of the run, with the fingerprint {expected}"),
                        remedy: "name the folder that the run was trained on, or start a new run on these".into(),
                    });
                }
                Ok(splits)
            }
        }
    }

    /// What a run in the folder `run` writes down: a relative path as it is seen from there, so that the two can be moved together and
    /// used from anywhere, and the fingerprint of its images.
    #[must_use]
    pub fn of_run(&self, run: &Path, images: &Splits) -> Source {
        match self {
            Source::Folder { path, .. } => {
                let path = if path.is_absolute() { path.clone() } else { place::seen_from(path, run) };
                Source::Folder { path, images: Some(images.fingerprint()) }
            }
            digits => digits.clone(),
        }
    }

    /// What was written down by a run in the folder `run`, as it is seen from the current folder. Without a fingerprint it
    /// was written by an older version or through the library, and counts from the current folder already.
    #[must_use]
    pub fn seen_from_here(&self, run: &Path) -> Source {
        match self {
            Source::Folder { path, images: Some(images) } => {
                Source::Folder { path: run.join(path), images: Some(images.clone()) }
            }
            other => other.clone(),
        }
    }

    /// What was written down by a run in the folder `from`, for a file in the folder `to`.
    #[must_use]
    pub fn moved(&self, from: &Path, to: &Path) -> Source {
        match self {
            Source::Folder { path, images: Some(images) } if path.is_relative() => {
                Source::Folder { path: place::seen_from(&from.join(path), to), images: Some(images.clone()) }
            }
            other => other.clone(),
        }
    }

    /// Whether the images are the same as far as is known: runs of older versions have no fingerprint.
    pub fn may_be(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Folder { images: Some(a), .. }, Source::Folder { images: Some(b), .. }) => a == b,
            (Source::Folder { .. }, Source::Folder { .. }) => true,
            (a, b) => a == b,
        }
    }
}

/// Where the bias of the decoder's last layer starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum OutputBias {
    /// Where the initialisation puts it.
    #[default]
    Init,
    /// At the logit of each pixel's mean p over the training images, ln(p/(1 − p)) with p kept within [0.001, 0.999]
    /// (Burda et al. 2015): the model that ignores z then starts at one rate per pixel, not at a fair coin.
    Data,
}

/// A run: model, data, objective, schedule, seed. Two runs with equal configurations give equal bytes.
///
/// With the feature `cli` also the options of a training, but for images, seed and epochs, which each command asks for in
/// its own way, and for what [`EpochSchedules`](super::EpochSchedules) says in epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct TrainConfig {
    /// The model.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub model: VaeConfig,
    /// The images.
    #[cfg_attr(feature = "cli", arg(skip = Source::DIGITS))]
    pub data: Source,
    /// The seed of initial values, shuffling and noise.
    #[cfg_attr(feature = "cli", arg(skip = TrainConfig::default().seed))]
    pub seed: u64,
    /// The number of passes over the training set.
    #[cfg_attr(feature = "cli", arg(skip = TrainConfig::default().epochs))]
    pub epochs: u32,
    /// B, images per update; the last update of an epoch takes what is left.
    #[cfg_attr(feature = "cli", arg(long, value_name = "B", default_value_t = TrainConfig::default().batch))]
    #[cfg_attr(feature = "cli", arg(help_heading = "Optimisation"))]
    pub batch: usize,
    /// The update rule.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub objective: UpdateRule,
    /// The learning rate over the updates.
    #[cfg_attr(feature = "cli", arg(skip = TrainConfig::default().lr))]
    pub lr: LrSchedule,
    /// β over the updates.
    #[cfg_attr(feature = "cli", arg(skip = TrainConfig::default().warmup))]
    pub warmup: KlWarmup,
    /// Whether an epoch goes through the training images in a new random order, or always in their own.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    #[cfg_attr(feature = "cli", arg(long = "no-shuffle", action = clap::ArgAction::Set, num_args = 0))]
    #[cfg_attr(feature = "cli", arg(default_missing_value = "false", hide_short_help = true))]
    #[cfg_attr(feature = "cli", arg(help = "Go through the training images in their own order in every epoch"))]
    pub shuffle: bool,
    /// Only the first so many training images are learned from; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", hide_short_help = true))]
    pub train_images: Option<usize>,
    /// Where the bias of the pixels' logits starts.
    #[serde(default, skip_serializing_if = "crate::vae::is_default")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", value_enum, default_value_t, hide_short_help = true))]
    pub output_bias: OutputBias,
    /// What Adam's second moment starts at, usually 0.
    ///
    /// With v₀ > 0 the first updates are smaller, as if gradients of the size √v₀ had been seen; the bias correction takes
    /// no notice.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "V", default_value_t = 0.0, hide_short_help = true))]
    pub second_moment: f64,
}

impl Default for TrainConfig {
    /// The usual run of the usual model.
    fn default() -> TrainConfig {
        TrainConfig::new(VaeConfig::default())
    }
}

fn yes() -> bool {
    true
}

fn is_yes(flag: &bool) -> bool {
    *flag
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl TrainConfig {
    /// The usual toy run: built-in digits, 10 epochs, batch 128, Adam at 1e-3, β = 1.
    pub fn new(model: VaeConfig) -> TrainConfig {
        TrainConfig {
            model,
            data: Source::DIGITS,
            seed: 1,
            epochs: 10,
            batch: 128,
            objective: UpdateRule::elbo(Optimizer::adam(), None),
            lr: LrSchedule::Constant { lr: 1e-3 },
            warmup: KlWarmup { beta: 1.0, steps: 0 },
            shuffle: true,
            train_images: None,
            output_bias: OutputBias::Init,
            second_moment: 0.0,
        }
    }

    /// The number of updates in `epochs` epochs, of a training set of `rows` images if no fewer are asked for.
    pub fn updates(&self, epochs: f64, rows: usize) -> u64 {
        let per_epoch = self.train_images.unwrap_or(rows).div_ceil(self.batch.max(1));
        (epochs * per_epoch as f64).round() as u64
    }

    /// The fields in which `other` differs, by the names in `config.json`, with dots between nested ones.
    pub fn differences(&self, other: &TrainConfig) -> Vec<Difference> {
        let mut found = Vec::new();
        let values = [self, other].map(|config| serde_json::to_value(config).expect("a configuration is plain data"));
        compare(String::new(), &values[0], &values[1], &mut found);
        found
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<()> {
        self.model.validate()?;
        self.objective.validate()?;
        self.objective.bound.validate(&self.model)?;
        if self.batch == 0 || self.batch > 1 << 20 {
            return Err(Error::argument("batch", self.batch, "a number of images from 1 to 1048576"));
        }
        if self.epochs > 1_000_000 {
            return Err(Error::argument("epochs", self.epochs, "at most 1000000"));
        }
        if !(self.warmup.beta >= 0.0 && self.warmup.beta.is_finite()) {
            return Err(Error::argument("beta", self.warmup.beta, "a number ≥ 0; 1 is the evidence lower bound"));
        }
        if self.train_images == Some(0) {
            return Err(Error::argument("train images", 0, "a number of images ≥ 1"));
        }
        if self.output_bias == OutputBias::Data && self.model.likelihood.raw_of_mean(0.5).is_none() {
            let found = format!("data with the likelihood {}", self.model.likelihood);
            return Err(Error::argument(
                "output bias",
                found,
                "init, unless the mean of a pixel alone decides what the decoder should say, as with bernoulli",
            ));
        }
        let adam = matches!(self.objective.optimizer, Optimizer::Adam { .. });
        if !(self.second_moment >= 0.0 && self.second_moment.is_finite() && (adam || self.second_moment == 0.0)) {
            let expected = "a number ≥ 0, and 0 without adam, which alone has one";
            return Err(Error::argument("second moment", self.second_moment, expected));
        }
        let rate = |field: &str, lr: f64| match lr >= 0.0 && lr.is_finite() {
            true => Ok(()),
            false => Err(Error::argument(field, lr, "a number ≥ 0")),
        };
        match &self.lr {
            LrSchedule::Constant { lr } => rate("lr", *lr),
            LrSchedule::Cosine { lr, lr_end, .. } => rate("lr", *lr).and(rate("last lr of the cosine", *lr_end)),
            LrSchedule::Steps { lr, at } => {
                rate("lr", *lr)?;
                if at.windows(2).any(|w| w[0].0 >= w[1].0) {
                    let expected = "steps in increasing order";
                    return Err(Error::argument("lr schedule", format!("{at:?}"), expected));
                }
                at.iter().try_for_each(|&(_, lr)| rate("lr schedule", lr))
            }
        }
    }
}

/// A field in which two configurations differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The field, as in `model.encoder`.
    pub field: String,
    /// Its value in the first, null where it is left out because it is usual.
    pub first: Value,
    /// Its value in the second.
    pub second: Value,
}

fn compare(field: String, first: &Value, second: &Value, found: &mut Vec<Difference>) {
    match (first, second) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let name = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
                compare(name, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ if first == second => {}
        _ => found.push(Difference { field, first: first.clone(), second: second.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vae::Likelihood;

    #[test]
    fn every_field_is_checked_and_named() {
        TrainConfig::new(VaeConfig::new(20)).validate().unwrap();
        let fails = |change: fn(&mut TrainConfig), field: &str| {
            let mut config = TrainConfig::new(VaeConfig::new(20));
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message} does not name {field}");
        };
        fails(|c| c.batch = 0, "batch");
        fails(|c| c.epochs = u32::MAX, "epochs");
        fails(|c| c.warmup.beta = f64::NAN, "beta");
        fails(|c| c.lr = LrSchedule::Constant { lr: -1.0 }, "lr");
        fails(|c| c.lr = LrSchedule::Steps { lr: 1.0, at: vec![(5, 0.1), (5, 0.2)] }, "increasing");
        fails(|c| c.model.latent = 0, "latent");
        fails(|c| c.train_images = Some(0), "train images");
        fails(|c| c.second_moment = -1.0, "second moment");
        fails(|c| c.second_moment = f64::NAN, "second moment");
        let sgd = |c: &mut TrainConfig| {
            c.objective.optimizer = Optimizer::Sgd { momentum: 0.9 };
            c.second_moment = 1.0;
        };
        fails(sgd, "second moment");
        let gaussian = |c: &mut TrainConfig| {
            c.model.likelihood = Likelihood::gaussian(0.1);
            c.output_bias = OutputBias::Data;
        };
        fails(gaussian, "output bias");
        let empty = Source::Digits { seed: 0, train: 0, test: 1 };
        assert!(empty.load().unwrap_err().to_string().contains("train size"));
    }

    #[test]
    fn every_field_that_differs_is_named_with_both_values() {
        let config = TrainConfig::default();
        assert_eq!(config.differences(&config), []);
        let mut other = TrainConfig { seed: 2, second_moment: 0.5, ..config.clone() };
        other.model.encoder = vec![300];
        other.objective.optimizer = Optimizer::Sgd { momentum: 0.9 };
        let found = config.differences(&other);
        let fields: Vec<&str> = found.iter().map(|d| d.field.as_str()).collect();
        let optimizer = ["beta1", "beta2", "eps", "kind", "momentum"].map(|name| format!("objective.optimizer.{name}"));
        let mut wanted = vec!["model.encoder", "second_moment", "seed"];
        wanted.extend(optimizer.iter().map(String::as_str));
        wanted.sort_unstable();
        let mut sorted = fields.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, wanted);
        let encoder = found.iter().find(|d| d.field == "model.encoder").unwrap();
        assert_eq!((encoder.first.to_string(), encoder.second.to_string()), ("[400]".into(), "[300]".into()));
    }

    #[test]
    fn a_configuration_survives_json() {
        let mut config = TrainConfig::new(VaeConfig::new(2));
        config.lr = LrSchedule::Cosine { lr: 0.1 + 0.2, lr_end: 1e-300 / 3.0, steps: 9 };
        config.data = Source::Folder { path: "some/where".into(), images: None };
        let text = serde_json::to_string_pretty(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
    }
    #[test]
    fn what_is_usual_is_not_written_down_and_what_is_not_survives() {
        let usual = TrainConfig::new(VaeConfig::new(2));
        let text = serde_json::to_string(&usual).unwrap();
        for field in ["shuffle", "train_images", "output_bias", "second_moment"] {
            assert!(!text.contains(field), "{field} in {text}: older programs could not read this");
        }
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), usual);
        let other = TrainConfig {
            shuffle: false,
            train_images: Some(59_600),
            output_bias: OutputBias::Data,
            second_moment: 0.0025,
            ..usual
        };
        let text = serde_json::to_string(&other).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), other);
    }
}
