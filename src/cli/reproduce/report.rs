//! What a reproduction found, as JSON and as text.

use std::fmt;

use serde::Serialize;

use super::super::plural;
use super::super::recipe::{EvaluationSpec, Metric, Recipe};
use crate::study::evidence::Summary;
use crate::train::TrainConfig;

/// Everything that is found out, as it is written to `reproduction.json`.
#[derive(Serialize)]
pub struct ReproductionReport {
    pub format: &'static str,
    pub recipe: Recipe,
    pub protocol: Option<String>,
    pub stages: usize,
    pub epochs: u32,
    /// Whether the images are those that the published numbers are for.
    pub own_images: bool,
    pub config: TrainConfig,
    pub device: String,
    pub build: &'static str,
    /// −ELBO, its terms, in nats per test image.
    pub test: TermsRecord,
    /// The estimate of −log p(x).
    pub nll: Option<Summary>,
    /// Of each stochastic layer, from below.
    pub active_units: Vec<Active>,
    /// Training images that they were counted on.
    pub active_unit_images: usize,
    /// Ours, that of `recipe.expected`.
    pub value: f64,
    /// Within the band; none where there is no number, or the run is not the whole experiment.
    pub within: Option<bool>,
    pub seconds: Seconds,
}

/// −ELBO and its terms.
#[derive(Clone, Copy, Serialize)]
pub struct TermsRecord {
    pub images: usize,
    pub neg_elbo: f64,
    pub rec: f64,
    pub kl: f64,
}

/// The active units of one layer.
#[derive(Serialize)]
pub struct Active {
    pub active: usize,
    pub of: usize,
}

/// Wall-clock seconds of each part. Training is the sum over the journal's epochs, of all sessions; an epoch that was
/// interrupted counts from where it was taken up.
#[derive(Clone, Copy, Serialize)]
pub struct Seconds {
    pub training: f64,
    pub test_after_each_epoch: f64,
    pub nll: f64,
    pub active_units: f64,
}

impl fmt::Display for ReproductionReport {
    /// Ours, the published numbers, the verdict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.numbers(f)?;
        writeln!(f, "{}", self.verdict())?;
        self.tail(f)
    }
}

impl ReproductionReport {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (recipe, config) = (&self.recipe, &self.config);
        writeln!(f, "{}: {}\n  {}", recipe.name, recipe.title, config.model.describe())?;
        writeln!(f, "  bound {}, batch {}, seed {}", config.objective.bound, config.batch, config.seed)?;
        if let Some((name, about)) = recipe.protocol(self.protocol.as_deref()).ok().flatten() {
            writeln!(f, "  protocol {name}: {about}")?;
        }
        let (stages, epochs) = (recipe.stages(), self.all_epochs());
        writeln!(f, "  stages {} of {stages}, epochs {} of {epochs}\n", self.stages, self.epochs)
    }

    fn all_epochs(&self) -> u32 {
        self.recipe.epochs(None).unwrap_or(self.epochs)
    }

    fn numbers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TermsRecord { images, neg_elbo, rec, kl } = self.test;
        writeln!(f, "nats per test image")?;
        writeln!(f, "{neg_elbo:>9.2}  ours: −ELBO = rec {rec:.2} + KL {kl:.2}, {images} images, one draw each")?;
        if let Some(n) = &self.nll {
            writeln!(
                f,
                "{:>9.2}  ours: NLL with {:.0} samples of each of {} images; ± {:.2} (images) ± {:.3} (samples)",
                n.nll, n.samples, n.images, n.standard_error, n.monte_carlo_error
            )?;
        }
        let comparable = self.recipe.expected.metric == Metric::NegElbo || self.nll.is_some();
        for p in &self.recipe.published {
            let difference = if comparable { format!("; ours is {:+.2}", self.value - p.value) } else { String::new() };
            writeln!(f, "{:>9.2}  {}, {}{difference}", p.value, p.who, p.place)?;
        }
        for m in &self.recipe.measured {
            let took = m.seconds.map_or(String::new(), |s| format!(", {s:.0} s"));
            writeln!(f, "{:>9.2}  this program before: {}; {}, {}{took}", m.value, m.what, m.machine, m.date)?;
        }
        Ok(())
    }

    fn verdict(&self) -> String {
        let (recipe, expected) = (&self.recipe, &self.recipe.expected);
        match (expected.value, self.within) {
            (None, _) => "no number was published for this experiment".into(),
            (Some(value), Some(within)) => {
                let verdict = if within { "within" } else { "NOT within" };
                format!("{verdict} the band {value:.2} ± {:.2} ({})", expected.band, expected.basis)
            }
            (Some(_), None) if !self.own_images => {
                format!("no verdict: the published numbers are for {}", recipe.data.images)
            }
            (Some(_), None) if self.stages < recipe.stages() => format!(
                "no verdict: the published numbers are for all {} stages, {}; this run has {}",
                recipe.stages(),
                plural(self.all_epochs() as usize, "epoch"),
                self.epochs
            ),
            (Some(_), None) => {
                let EvaluationSpec { nll_samples, nll_images, .. } = recipe.evaluation;
                format!(
                    "no verdict: the published numbers are with {nll_samples} samples for each of {nll_images} images"
                )
            }
        }
    }

    fn tail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units: Vec<String> = self.active_units.iter().map(|a| format!("{} of {}", a.active, a.of)).collect();
        let (units, images) = (units.join(", "), self.active_unit_images);
        writeln!(f, "active units, from below: {units} (variance of the mean over {images} training images > 0.01)")?;
        let Seconds { training, test_after_each_epoch: test, nll, active_units } = self.seconds;
        writeln!(
            f,
            "seconds: training {training:.1}, test after each epoch {test:.1}, NLL {nll:.1}, active units {active_units:.1}; {}",
            self.device
        )?;
        self.recipe.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vae::VaeConfig;

    fn report(name: &str, value: f64, within: Option<bool>) -> ReproductionReport {
        let recipe = Recipe::load(name).unwrap();
        let nll = Summary {
            images: 10_000,
            samples: 5000.0,
            nll: value,
            standard_error: 0.2,
            monte_carlo_error: 0.01,
            effective_samples: None,
        };
        ReproductionReport {
            format: "test",
            protocol: recipe.protocol.clone(),
            stages: recipe.stages(),
            epochs: recipe.epochs(None).unwrap(),
            own_images: true,
            config: TrainConfig::new(VaeConfig::new(2)),
            device: "a device".into(),
            build: "a build",
            test: TermsRecord { images: 10_000, neg_elbo: 90.0, rec: 65.0, kl: 25.0 },
            nll: Some(nll),
            active_units: vec![Active { active: 19, of: 50 }],
            active_unit_images: 500,
            value,
            within,
            seconds: Seconds { training: 1.0, test_after_each_epoch: 2.0, nll: 3.0, active_units: 4.0 },
            recipe,
        }
    }

    #[test]
    fn the_verdict_says_what_a_result_is_worth() {
        let text = report("iwae-1l-iwae-k50", 84.59, Some(true)).to_string();
        let parts = ["84.78  Burda et al. 2015, table 1; ours is -0.19", "\nwithin the band 84.78 ± 0.50", "19 of 50"];
        parts.iter().for_each(|part| assert!(text.contains(part), "{text}\nlacks {part}"));
        let text = report("iwae-1l-iwae-k50", 88.0, Some(false)).to_string();
        assert!(text.contains("NOT within the band 84.78"), "{text}");
        let fewer = ReproductionReport { stages: 3, epochs: 13, ..report("iwae-1l-iwae-k50", 99.0, None) }.to_string();
        assert!(fewer.contains("for all 8 stages, 3280 epochs; this run has 13"), "{fewer}");
        let other = ReproductionReport { own_images: false, ..report("iwae-1l-iwae-k50", 99.0, None) }.to_string();
        assert!(other.contains("no verdict: the published numbers are for MNIST"), "{other}");
        let short = report("iwae-1l-iwae-k50", 99.0, None).to_string();
        assert!(short.contains("5000 samples for each of 10000 images"), "{short}");
        let before = report("pytorch-example", 105.7, Some(true)).to_string();
        assert!(
            before.contains("105.75  this program before: mean of seeds 1, 2 and 3") && before.contains("AMD EPYC")
        );
        // What is expected is somebody else's number, with its source.
        let peer =
            "105.57  the example rerun in PyTorch 2.11 by benches/peers/example_torch.py, mean of seeds 1, 2 and 3";
        assert!(before.contains(peer) && before.contains("within the band 105.57 ± 0.50 (PyTorch's example rerun"));
        assert!(report("kingma-welling", 99.0, None).to_string().contains("no number was published"));
    }
}
