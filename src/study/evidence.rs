//! Estimates of log p(x) of a trained model: how much the ELBO gives away.
//!
//! ```text
//! log p(x) = log ∫ p(x|z) p(z) dz
//! ```
//!
//! No estimate is exact, and each errs in its own way:
//!
//! | file | estimator | error |
//! |---|---|---|
//! | [`importance.rs`](importance) | the importance weighted bound L_k, draws from q(z\|x) | below; by χ²(p(z\|x) ‖ q)/2k for k ≫ χ² (conditions: see there) |
//! | [`importance.rs`](importance) with [`Proposal::Prior`] | the same with draws from the prior: naive Monte Carlo | below; needs about e^KL(p(z\|x) ‖ p(z)) draws |
//! | [`quadrature.rs`](quadrature) | the trapezoid rule, for one or two latent dimensions | estimated: below 1e-6 for a smooth decoder, 1e-3 for one with kinks; infinite where the mass was not found |
//! | [`ais.rs`](ais) | annealed importance sampling with Hamiltonian transitions | below; above from an exact draw |
//! | [`harmonic.rs`](harmonic_mean) | the harmonic mean of p(x\|z) over the posterior | above, and unbounded: it fails |
//!
//! All are in nats per image. Functions run in f32 on any [`Executor`](crate::Executor), sums over draws are made on the host in f64.
//! Images are read once ([`Observed`]), so that all estimators see the same draw of dynamic binarisation. Every result is a
//! pure function of the seed on one device, for any number of threads.
//!
//! Quadrature in the order of reading: [`quadrature.rs`](quadrature) (the common grid, `grid.rs`, looked over by `scan.rs`),
//! `sums.rs` (what is summed, and the error), `local.rs` (an image on a grid of its own), `density.rs` (the climb to its modes).

mod accumulate;
mod ais;
mod density;
mod grid;
mod harmonic;
mod hmc;
mod importance;
mod local;
mod observed;
mod pairwise;
mod quadrature;
mod scan;
mod simulate;
mod sums;

pub use accumulate::{LogMeanExp, Moments, group_bounds};
pub use ais::{Annealing, Sandwich, ais, sandwich};
pub use harmonic::{harmonic_mean, resample};
pub use importance::{Importance, Proposal, Sampling, importance, log_weights};
pub use observed::Observed;
pub use pairwise::pairwise_log_likelihood;
pub use quadrature::{Exact, Quadrature, check_quadrature, quadrature};
pub use simulate::{Simulated, simulate};

use serde::Serialize;

use crate::engine::error::Result;
use crate::vae::DeviceVae;

/// What an estimator says about one image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// log p(x), or a bound on it, in nats.
    pub value: f64,
    /// The standard error of `value` over the draws; NaN where one draw cannot tell.
    pub standard_error: f64,
    /// (Σw)²/Σw²: as many equally weighted draws would be as good; none where draws have no weights.
    pub effective_samples: Option<f64>,
    /// Draws (or chains, or grid points).
    pub samples: u64,
}

/// Estimates averaged over images, as a negative log-likelihood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The number of images.
    pub images: usize,
    /// Draws per image, mean.
    pub samples: f64,
    /// −value, mean over images, in nats per image.
    pub nll: f64,
    /// The standard error of `nll` as a mean over images drawn from a population: their standard deviation over √images.
    pub standard_error: f64,
    /// The standard error of `nll` over the draws alone, for these very images.
    pub monte_carlo_error: f64,
    /// Mean over images, where there are weights.
    pub effective_samples: Option<f64>,
}

impl Summary {
    /// The mean over images whose draws are independent.
    ///
    /// # Panics
    /// When there are no estimates.
    pub fn of(estimates: &[Estimate]) -> Summary {
        let independent = estimates.iter().map(|e| e.standard_error.powi(2)).sum::<f64>().sqrt();
        Summary::with_error(estimates, independent / estimates.len() as f64)
    }

    /// As [`Summary::of`] for images that share their draws: then errors do not average out, and `monte_carlo_error` is
    /// their mean, the most it can be.
    pub fn of_shared(estimates: &[Estimate]) -> Summary {
        let sum: f64 = estimates.iter().map(|e| e.standard_error).sum();
        Summary::with_error(estimates, sum / estimates.len() as f64)
    }

    fn with_error(estimates: &[Estimate], monte_carlo_error: f64) -> Summary {
        assert!(!estimates.is_empty(), "a mean over no images");
        let mut values = Moments::default();
        estimates.iter().for_each(|e| values.push(-e.value));
        let n = estimates.len() as f64;
        let effective: Option<f64> = estimates.iter().map(|e| e.effective_samples).sum();
        Summary {
            images: estimates.len(),
            samples: estimates.iter().map(|e| e.samples as f64).sum::<f64>() / n,
            nll: values.mean(),
            standard_error: values.standard_error(),
            monte_carlo_error,
            effective_samples: effective.map(|sum| sum / n),
        }
    }
}

/// −log p(x) of the first `images` images of the slot `slot` by `samples` importance samples per image from q(z|x), as in
/// Burda et al. 2015, who take 5000: an upper bound in expectation.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when the slot has fewer images, or a number is 0; and from the executor.
pub fn nll(model: &mut DeviceVae, slot: &str, images: usize, samples: usize, seed: u64) -> Result<Summary> {
    let observed = Observed::read(model, slot, images, seed)?;
    let sampling = Sampling { samples, bounds: Vec::new(), seed };
    let estimates = importance(model, &observed, Proposal::Posterior, &sampling)?;
    Ok(Summary::of(&estimates.into_iter().map(|i| i.estimate).collect::<Vec<_>>()))
}
