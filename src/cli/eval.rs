//! `elbo eval`.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, Id, ValueEnum, ValueHint};
use serde_json::{Value, json};

use super::answer::Answer;
use super::options::{self, Machine, Overrides, effects};
use super::{estimates, phase, scale, use_run};
use crate::engine::error::Result;
use crate::study::evidence::Annealing;
use crate::vae::Encoded;

/// Evaluate a run on test images, with any estimators of log p(x)
#[derive(Args)]
pub struct Eval {
    /// The run: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Seed of the draws of z [default: that of the run, which repeats its last figure]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Estimators of log p(x), separated by commas
    ///
    /// elbo; iwae: importance samples from the encoder; prior: naive, samples from the prior; quadrature: exact, for one or
    /// two latent dimensions; ais: annealing; harmonic: the harmonic mean, which fails.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub estimators: Vec<EstimatorName>,
    /// Samples per image of iwae, prior and harmonic [default: 5000]
    #[arg(long, value_name = "K")]
    pub samples: Option<usize>,
    /// Number of test images for --estimators, from the first on [default: all for elbo alone, else 100]
    ///
    /// They are the same for all estimators of a table.
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Bounds from both sides by ais for N images that the model draws itself
    ///
    /// Bidirectional Monte Carlo: the only check of ais that needs no other estimate.
    #[arg(long, value_name = "N")]
    pub bdmc: Option<usize>,
    #[command(flatten)]
    pub answer: Answer,
    #[command(flatten)]
    pub annealing: Overrides<Annealing>,
    #[command(flatten)]
    pub machine: Machine,
}

/// An estimator of log p(x), by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EstimatorName {
    Elbo,
    Iwae,
    Prior,
    Quadrature,
    Ais,
    Harmonic,
}

impl Eval {
    /// Evaluates a model and looks at its latent dimensions.
    pub fn run(&self) -> Result<()> {
        self.no_idle_option()?;
        let device = self.machine.device()?;
        let checkpoint = use_run::open(&self.run)?;
        let data = use_run::images(&self.run, &checkpoint, &self.data)?;
        estimates::check(self, &checkpoint.config.model, data.test.rows)?;
        let mut model = checkpoint.model(device)?;
        model.watch = phase::watch(false);
        data.test.load_into(&mut model, "test")?;
        let seed = self.seed.unwrap_or(checkpoint.config.seed);
        let result = model.evaluate("test", seed)?;
        let text = scale::summary(&checkpoint.config.model, &data.test, &result);
        let mut report = scale::report(&checkpoint.config.model, &data.test, &result);
        let (below, units) = match model.vae.upper.is_empty() {
            true => dimensions(&model.encode("test", seed)?),
            false => layers(&model.encode_layers("test", data.test.rows, seed)?),
        };
        report["latent"] = units;
        if !self.answer.json {
            // Before the estimates, which may take hours.
            super::print(&format!("{text}{below}"))?;
        }
        if !self.estimators.is_empty() || self.bdmc.is_some() {
            self.machine.say_why_no_gpu()?;
        }
        let text = estimates::estimates(self, &mut model, data.test.rows, seed, &mut report)?;
        self.answer.give(&text, &report)
    }

    /// Samples per image, where that is asked.
    pub fn samples(&self) -> usize {
        self.samples.unwrap_or(5000)
    }

    /// Refuses options of estimators that are not asked for.
    fn no_idle_option(&self) -> Result<()> {
        use EstimatorName::{Ais, Harmonic, Iwae, Prior};
        let asked = |names: &[EstimatorName]| self.estimators.iter().any(|name| names.contains(name));
        if !asked(&[Iwae, Prior, Harmonic]) {
            let because = "none of --estimators is iwae, prior or harmonic";
            let samples = [("samples", self.samples.is_some())];
            effects::without_effect(samples, because, "--estimators iwae (say) beside it")?;
        }
        if !asked(&[Ais]) && self.bdmc.is_none() {
            let because = "--estimators does not name ais, and --bdmc is not given";
            let ids: Vec<Id> = options::ids::<Annealing>().collect();
            let typed = ids.iter().map(|id| (id.as_str(), self.annealing.has(id.as_str())));
            effects::without_effect(typed, because, "--estimators ais (say) beside it")?;
        }
        if self.estimators.is_empty() {
            let images = [("images", self.images.is_some())];
            effects::without_effect(images, "--estimators names none", "--estimators elbo (say) beside it")?;
        }
        Ok(())
    }
}

/// The active units of every stochastic layer. A KL for each dimension has no meaning there: the prior of a lower layer is
/// p(z_l|z_{l+1}) and not N(0, I).
fn layers(encoded: &[Encoded]) -> (String, Value) {
    let mut text = "active latent dimensions (variance of the mean over images > 0.01)\n".to_string();
    for (layer, number) in encoded.iter().zip(1..) {
        let (active, all) = (layer.active_units(), layer.latent);
        writeln!(text, "  stochastic layer {number}, from below: {active} of {all}").expect("writing to a string");
    }
    let layer = |layer: &Encoded| json!({ "active": layer.active_units(), "of": layer.latent });
    (text, json!({ "layers": encoded.iter().map(layer).collect::<Vec<_>>() }))
}

/// KL and spread of each latent dimension, the largest KL first.
fn dimensions(encoded: &Encoded) -> (String, Value) {
    let (kl, variance) = (encoded.kl_per_dimension(), encoded.variance_of_means());
    let mut order: Vec<usize> = (0..encoded.latent).collect();
    order.sort_by(|&a, &b| kl[b].total_cmp(&kl[a]));
    let mut text = format!(
        "{} of {} latent dimensions are active (variance of the mean over images > 0.01)\n  dimension    KL, nats   variance of the mean\n",
        encoded.active_units(),
        encoded.latent
    );
    for &k in &order {
        writeln!(text, "{:>11}{:>12.4}{:>23.4}", k + 1, kl[k], variance[k]).expect("writing to a string");
    }
    let dimension = |k: usize| json!({ "dimension": k + 1, "kl": kl[k], "variance_of_mean": variance[k] });
    let dimensions: Vec<Value> = order.into_iter().map(dimension).collect();
    (text, json!({ "layers": [{ "active": encoded.active_units(), "of": encoded.latent }], "dimensions": dimensions }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_sorted_and_active_ones_counted() {
        // z₁ is ±2 with a small variance; z₂ is the prior.
        let logvar = vec![-2.0, 0.0, -2.0, 0.0];
        let encoded = Encoded { latent: 2, mu: vec![2.0, 0.0, -2.0, 0.0], logvar };
        assert_eq!(encoded.active_units(), 1);
        assert_eq!(encoded.variance_of_means(), [4.0, 0.0]);
        let kl = encoded.kl_per_dimension();
        assert!((kl[0] - 0.5 * (4.0 + (-2f64).exp_m1() + 2.0)).abs() < 1e-12 && kl[1] == 0.0);
        let (text, found) = dimensions(&encoded);
        assert_eq!(found["dimensions"][0]["dimension"], 1);
        assert!(text.starts_with("1 of 2") && text.lines().nth(2).unwrap().trim().starts_with("1 "), "{text}");
    }
}
