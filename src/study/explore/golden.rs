//! Numbers that the program computed from a page's own weights, and that the page must compute again.

use serde::{Deserialize, Serialize};

use super::view::PointWeights;
use super::{Practice, PracticeConfig, Trained};
use crate::engine::device::Executor;
use crate::engine::device::cpu::Cpu;
use crate::engine::error::Result;
use crate::engine::isa::Isa;

/// Draws of the bound.
const DRAWS: usize = 50;
/// Of the draws.
const SEED: u64 = 1;
/// Updates of a stretch of the training, and how many stretches there are.
const UPDATES: u32 = 10;
const STRETCHES: usize = 3;

/// One thread, and kernels that round as WebAssembly does.
pub fn executor() -> Executor {
    Executor::new(Cpu::with_isa(1, Isa::Portable))
}

/// What a page must compute, at one point z and for its first image x.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Golden {
    /// (0.1, 0.5, 0, 0, …), and behind it μ of q(z|x): two points, `[2, K]`.
    pub z: Vec<f32>,
    /// Some pixels.
    pub pixels: Vec<usize>,
    /// E[x|z] there, of the first point.
    pub mean: Vec<f32>,
    /// Their spread, if the likelihood has one.
    pub sigma: Option<Vec<f32>>,
    /// μ of q(z|x).
    pub mu: Vec<f32>,
    /// log σ² of q(z|x).
    pub logvar: Vec<f32>,
    /// log p(x|z) of both points.
    pub likelihood: Vec<f32>,
    /// log p(z).
    pub prior: Vec<f32>,
    /// log q(z|x).
    pub posterior: Vec<f32>,
    /// ∂/∂z log p(x|z), `[2, K]`.
    pub likelihood_slope: Vec<f32>,
    /// ∂/∂z log p(z).
    pub prior_slope: Vec<f32>,
    /// ∂/∂z log q(z|x).
    pub posterior_slope: Vec<f32>,
    /// k of the bound.
    pub draws: usize,
    /// The seed of its draws.
    pub seed: u64,
    /// log (1/k) Σ w over k draws from q(z|x).
    pub bound: f64,
    /// Updates of each stretch of the usual training in a page.
    pub updates: u32,
    /// Its mean loss over each of the first stretches.
    pub losses: Vec<f64>,
}

impl Golden {
    /// The numbers of a model.
    ///
    /// # Errors
    /// From the executor.
    pub fn of(trained: &mut Trained) -> Result<Golden> {
        let Trained { bundle, model, view } = trained;
        let (latent, d) = (model.vae.config.latent, model.vae.config.pixels());
        let x: Vec<f32> = bundle.images[..d].iter().map(|&b| f32::from(b) / 255.0).collect();
        let q = view.encode(model, &x)?;
        let first = [0.1, 0.5].into_iter().chain(std::iter::repeat(0.0)).take(latent);
        let z: Vec<f32> = first.chain(q.mu.iter().copied()).collect();
        let pixels: Vec<usize> = (0..24).map(|i| (2 * i + 1) * d / 48).collect();
        let at = |all: Vec<f32>| pixels.iter().map(|&p| all[p]).collect::<Vec<f32>>();
        let (mean, sigma) = view.decode(model, &z[..latent])?;
        let PointWeights { likelihood, prior, posterior } = view.log_weights(model, &x, &z)?;
        let slopes = view.slopes(model, &x, &z)?;
        let draws = view.encoder_draws(model, &x, DRAWS, SEED)?;
        let bound = view.log_weights(model, &x, &draws)?.bound();
        let mut practice = Practice::new(PracticeConfig::default(), executor())?;
        let losses = (0..STRETCHES).map(|_| practice.step(UPDATES).map(|stretch| stretch.loss));
        Ok(Golden {
            mean: at(mean),
            sigma: sigma.map(at),
            mu: q.mu,
            logvar: q.logvar,
            likelihood,
            prior,
            posterior,
            likelihood_slope: slopes.likelihood,
            prior_slope: slopes.prior,
            posterior_slope: slopes.posterior,
            draws: DRAWS,
            seed: SEED,
            bound,
            updates: UPDATES,
            losses: losses.collect::<Result<_>>()?,
            z,
            pixels,
        })
    }
}
