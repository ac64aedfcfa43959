//! The parts of a recipe file.

use serde::{Deserialize, Serialize};
use toml::Table;

use crate::train::EpochSchedules;

/// Paper and code of an experiment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publication {
    /// Title, authors, year.
    pub paper: String,
    /// The number on arXiv.
    pub arxiv: String,
    /// Where the code is.
    pub code: String,
}

/// Which images a recipe is for, told apart by their number and mean.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requirement {
    /// The name of the data set.
    pub images: String,
    /// Their number in the training set.
    pub train: usize,
    /// Their number in the test set.
    pub test: usize,
    /// The mean of the training set's pixels, in [0, 1].
    pub train_mean: f64,
}

/// The schedule of an experiment.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stages {
    /// One after the other.
    pub stages: Vec<Stage>,
    /// Weight of the KL term.
    pub beta: f64,
    /// Epochs over which that weight rises from 0.
    pub kl_warmup: f64,
}

impl Default for Stages {
    fn default() -> Stages {
        let EpochSchedules { beta, kl_warmup, .. } = EpochSchedules::default();
        Stages { stages: Vec::new(), beta, kl_warmup }
    }
}

/// Epochs with one learning rate.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// How long.
    pub epochs: u32,
    /// The learning rate in it.
    pub lr: f64,
}

/// Settings on top of a recipe's.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Variant {
    /// One line that says what it is.
    pub about: String,
    /// On top of the recipe's.
    pub config: Table,
}

/// How a trained model is judged.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationSpec {
    /// Importance samples per image of the estimate of log p(x); 0 for no estimate.
    pub nll_samples: usize,
    /// From the first test image on.
    pub nll_images: usize,
    /// Training images, from the first on, over which the variance of the mean is taken.
    pub active_unit_images: usize,
}

/// What `expected.value` is a value of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The estimate of −log p(x) with `evaluation.nll_samples` samples.
    #[default]
    Nll,
    /// −ELBO, one draw of z per image.
    NegElbo,
}

/// The number to reach, in nats per test image.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expected {
    /// Which number.
    pub metric: Metric,
    /// None where no number was published.
    pub value: Option<f64>,
    /// A result is within it if it is no farther away.
    pub band: f64,
    /// Where the two come from.
    pub basis: String,
}

/// A number by somebody else, in nats per test image.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Whose.
    pub who: String,
    /// Where it is to be read.
    #[serde(rename = "where")]
    pub place: String,
    /// The number.
    pub value: f64,
}

/// A number by this program.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredHere {
    /// In nats per test image.
    pub value: f64,
    /// Which runs.
    pub what: String,
    /// How long the training took, where that was measured.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// On what.
    pub machine: String,
    /// When.
    pub date: String,
}
