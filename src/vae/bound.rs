//! Which lower bound of log p(x) is maximised, and how its gradient is estimated: the choices. What they mean in
//! formulas is in [`training_step`](super::training_step)'s file.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::config::VaeConfig;
use crate::engine::error::{Error, Result};
use crate::engine::names::names;

/// A lower bound of log p(x) from k draws z₁ … z_k ~ q(z|x) with the weights w_i = p(x, z_i) / q(z_i|x).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundKind {
    /// The mean of log w_i: the evidence lower bound, with less noise for a larger k but the same expectation.
    #[default]
    Elbo,
    /// L_k = E log (1/k) Σ w_i, the importance weighted bound of Burda et al. 2015 (arXiv 1509.00519): L_1 is the ELBO,
    /// L_k ≤ L_{k+1} ≤ log p(x).
    Iwae,
}

/// How KL(q(z|x) ‖ p(z)) enters the ELBO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlTerm {
    /// In closed form, for two Gaussians.
    #[default]
    Analytic,
    /// As log q(z|x) − log p(z) at the draws: the only way where there is no closed form (several stochastic layers).
    MonteCarlo,
}

/// How the gradient of the bound with respect to the encoder's parameters φ is estimated. The decoder's gradient
/// is the same in all: Σ w̃_i ∇θ log w_i, with w̃_i = 1/k for the ELBO and w_i/Σw for L_k.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// The derivative of the sampled bound through z = μ + σε and through log q.
    #[default]
    Total,
    /// Sticking the landing: log q's own parameters are constants, so that the part of the gradient whose expectation is
    /// zero is left out, and nothing is left to chance where q is the posterior (Roeder et al. 2017, arXiv 1703.09194).
    /// Unbiased for the ELBO; biased for L_k with k > 1.
    StickingTheLanding,
    /// The doubly reparameterised gradient of L_k: Σ w̃_i² (∂ log w_i/∂z_i)(∂z_i/∂φ) (Tucker et al. 2019, arXiv
    /// 1810.04152), with the factor w̃_i (1 − β + β w̃_i) for a KL weight β other than 1. Unbiased. Its signal-to-noise ratio
    /// grows as √k for k far beyond χ²(p(z|x) ‖ q) (how far, `elbo lab` shows), where that of [`Estimator::Total`] falls as
    /// 1/√k for k ≫ χ²; for smaller k it may fall too.
    DoublyReparameterised,
    /// REINFORCE: Σ log w_i · ∇φ log q(z_i|x) / k (Williams 1992), without a derivative through z. For study: its
    /// variance is what reparameterisation saves.
    ScoreFunction,
    /// The same with the mean of the other draws' log w (with k = 1, of the other images') subtracted from log w_i.
    ScoreFunctionBaseline,
}

/// The bound, its sampling and its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Optimisation"))]
pub struct Bound {
    /// What is maximised: elbo, or iwae.
    ///
    /// iwae is the importance weighted bound of several draws.
    #[cfg_attr(
        feature = "cli",
        arg(id = "bound", long = "bound", value_name = "NAME", default_value_t, hide_short_help = true)
    )]
    pub kind: BoundKind,
    /// k, draws of z per image.
    #[cfg_attr(feature = "cli", arg(long, value_name = "K", default_value_t = Bound::ELBO.samples, hide_short_help = true))]
    pub samples: usize,
    /// The KL term of the ELBO: analytic or monte_carlo; usually analytic where there is a closed form.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", hide_short_help = true))]
    pub kl: KlTerm,
    /// How the gradient for the encoder is estimated.
    ///
    /// total, sticking_the_landing, doubly_reparameterised, score_function or score_function_baseline.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", default_value_t, hide_short_help = true))]
    pub estimator: Estimator,
    /// Nats of KL below which a dimension is not pushed further; none for the plain KL.
    ///
    /// Σ_j max(λ, mean over the batch of KL_j) (Kingma et al. 2016, arXiv 1606.04934, there per group of dimensions).
    #[cfg_attr(feature = "cli", arg(long, value_name = "NATS", hide_short_help = true))]
    pub free_bits: Option<f64>,
}

impl Default for Bound {
    fn default() -> Bound {
        Bound::ELBO
    }
}

impl Bound {
    /// The ELBO with one draw per image and the KL in closed form.
    pub const ELBO: Bound =
        Bound { kind: BoundKind::Elbo, samples: 1, kl: KlTerm::Analytic, estimator: Estimator::Total, free_bits: None };

    /// L_k with the plain gradient.
    pub const fn iwae(k: usize) -> Bound {
        Bound { kind: BoundKind::Iwae, samples: k, kl: KlTerm::MonteCarlo, ..Bound::ELBO }
    }

    /// Whether the KL term has a closed form that this gradient allows.
    pub fn has_closed_form(&self, model: &VaeConfig) -> bool {
        self.kind == BoundKind::Elbo && self.estimator == Estimator::Total && model.upper.is_empty()
    }

    /// The option, and its value, by which what is learned from an image depends on the other images of its batch, if there
    /// is one: then the gradient of a batch is not the sum of its images'.
    pub fn of_the_batch(&self, model: &VaeConfig) -> Option<(&'static str, String)> {
        let others = self.estimator == Estimator::ScoreFunctionBaseline && self.samples == 1;
        if model.likelihood.facts().needs_batch {
            return Some(("likelihood", model.likelihood.to_string()));
        }
        match self.free_bits {
            Some(nats) => Some(("free bits", nats.to_string())),
            None if others => Some(("estimator", format!("{} of one draw", self.estimator))),
            None => None,
        }
    }

    /// Checks every field, and that they fit each other and the model.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the field, what it holds and what it may hold.
    pub fn validate(&self, model: &VaeConfig) -> Result<()> {
        let wrong = |field: &str, found: String, expected: &str| Err(Error::argument(field, found, expected));
        if !(1..=10_000).contains(&self.samples) {
            return wrong("samples", self.samples.to_string(), "a number of draws per image from 1 to 10000");
        }
        let analytic = self.kl == KlTerm::Analytic;
        if self.kind == BoundKind::Iwae && analytic {
            return wrong("kl", self.kl.to_string(), "monte_carlo with the iwae bound, whose weights are single draws");
        }
        if analytic && !model.upper.is_empty() {
            return wrong("kl", self.kl.to_string(), "monte_carlo with several stochastic layers: no closed form");
        }
        let sampled = !matches!(self.estimator, Estimator::Total);
        if sampled && analytic {
            let expected = "total with the KL in closed form; the other estimators need kl = monte_carlo";
            return wrong("estimator", self.estimator.to_string(), expected);
        }
        let score = matches!(self.estimator, Estimator::ScoreFunction | Estimator::ScoreFunctionBaseline);
        if score && self.kind == BoundKind::Iwae {
            return wrong("estimator", self.estimator.to_string(), "a score function estimator with the elbo only");
        }
        if self.estimator == Estimator::DoublyReparameterised && self.kind == BoundKind::Elbo {
            let expected = "sticking_the_landing with the elbo, which is the same for equal weights";
            return wrong("estimator", self.estimator.to_string(), expected);
        }
        if let Some(nats) = self.free_bits {
            if !(nats >= 0.0 && nats.is_finite()) {
                return wrong("free bits", nats.to_string(), "nats per dimension ≥ 0");
            }
            if !analytic {
                return wrong("free bits", nats.to_string(), "none, unless the KL is in closed form");
            }
        }
        if model.likelihood.facts().needs_batch && (self.kind == BoundKind::Iwae || self.estimator != Estimator::Total)
        {
            let expected = "the elbo with the total gradient: one sigma is best for the batch, not for one draw";
            return wrong("bound", format!("{self} with likelihood {}", model.likelihood), expected);
        }
        Ok(())
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind, self.samples)?;
        if self.kind == BoundKind::Elbo && self.kl != KlTerm::Analytic {
            write!(f, ", KL by {}", self.kl)?;
        }
        if self.estimator != Estimator::Total {
            write!(f, ", gradient {}", self.estimator)?;
        }
        match self.free_bits {
            Some(nats) => write!(f, ", {nats} free nats per dimension"),
            None => Ok(()),
        }
    }
}

names!(BoundKind, "bound": Elbo "elbo", Iwae "iwae");
names!(KlTerm, "kl": Analytic "analytic", MonteCarlo "monte_carlo");
names!(Estimator, "estimator":
    Total "total",
    StickingTheLanding "sticking_the_landing",
    DoublyReparameterised "doubly_reparameterised",
    ScoreFunction "score_function",
    ScoreFunctionBaseline "score_function_baseline",
);

#[cfg(test)]
mod tests {
    use super::super::config::StochasticLayer;
    use super::super::likelihood::Likelihood;
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration_files() {
        for e in Estimator::ALL {
            assert_eq!(e.name().parse::<Estimator>().unwrap(), *e);
            assert_eq!(serde_json::to_string(e).unwrap(), format!("\"{e}\""));
        }
        for k in BoundKind::ALL {
            assert_eq!(serde_json::to_string(k).unwrap(), format!("\"{k}\""));
        }
        for k in KlTerm::ALL {
            assert_eq!(serde_json::to_string(k).unwrap(), format!("\"{k}\""));
        }
        let message = "dreg".parse::<Estimator>().unwrap_err().to_string();
        assert!(message.contains("doubly_reparameterised") && message.contains("dreg"), "{message}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        let plain = VaeConfig::new(2);
        Bound::ELBO.validate(&plain).unwrap();
        Bound::iwae(5).validate(&plain).unwrap();
        let deep = VaeConfig {
            upper: vec![StochasticLayer { encoder: vec![8], latent: 2, decoder: vec![8] }],
            ..VaeConfig::new(4)
        };
        let dreg = Estimator::DoublyReparameterised;
        let score = Estimator::ScoreFunction;
        let optimal = VaeConfig { likelihood: Likelihood::gaussian_optimal(0.01), ..plain.clone() };
        let cases: [(Bound, &VaeConfig, &str); 9] = [
            (Bound { samples: 0, ..Bound::ELBO }, &plain, "samples"),
            (Bound { kl: KlTerm::Analytic, ..Bound::iwae(5) }, &plain, "kl"),
            (Bound::ELBO, &deep, "stochastic layers"),
            (Bound { estimator: Estimator::StickingTheLanding, ..Bound::ELBO }, &plain, "estimator"),
            (Bound { estimator: score, ..Bound::iwae(5) }, &plain, "score"),
            (Bound { estimator: dreg, kl: KlTerm::MonteCarlo, ..Bound::ELBO }, &plain, "sticking"),
            (Bound { free_bits: Some(-1.0), ..Bound::ELBO }, &plain, "free bits"),
            (Bound { free_bits: Some(0.5), ..Bound::iwae(2) }, &plain, "free bits"),
            (Bound::iwae(5), &optimal, "sigma"),
        ];
        for (bound, model, field) in cases {
            let message = bound.validate(model).unwrap_err().to_string();
            assert!(message.contains(field), "{bound}: {message} does not name {field}");
        }
    }

    #[test]
    fn missing_fields_of_older_files_have_their_old_meaning() {
        assert_eq!(serde_json::from_str::<Bound>("{}").unwrap(), Bound::ELBO);
        assert!(serde_json::from_str::<Bound>("{\"depth\":1}").unwrap_err().to_string().contains("depth"));
        assert_eq!(Bound::ELBO.to_string(), "elbo-1");
        let dreg = Bound { estimator: Estimator::DoublyReparameterised, ..Bound::iwae(50) };
        assert_eq!(dreg.to_string(), "iwae-50, gradient doubly_reparameterised");
    }
}
