//! The variational autoencoder: how an image comes about, why that cannot be learned directly, and what is maximised
//! instead.
//!
//! # The story
//!
//! An image x is generated in two throws. First its causes, z ~ N(0, I), a point of a K-dimensional space of which
//! nothing is observed; then its pixels, x ~ p(x|z), whose parameters are computed from z by a network, the
//! [`Decoder`]: a Bernoulli rate for each pixel, or a Gaussian N(f_μ(z), f_σ(z)²) ([`Likelihood`]). To learn is to
//! make the observed images probable,
//!
//! ```text
//! log p(x) = log ∫ p(x|z) p(z) dz
//! ```
//!
//! Averaging p(x|z) over draws from the prior wastes nearly all of them: for a given 7, nearly every z decodes to
//! something that is not this 7, and gives p(x|z) ≈ 0. It takes about e^KL(p(z|x) ‖ p(z)) draws to meet those that
//! count (Chatterjee & Diaconis 2018, arXiv 1511.01437), hundreds at 6 nats and ten million at 16. One must know where
//! to look. A second network, the [encoder](Conditional), answers that: q(z|x) = N(μ(x), diag e^(lv(x))).
//!
//! # The bound
//!
//! Put q into the integral and read it as an expectation; the logarithm is concave, so by Jensen's inequality
//!
//! ```text
//! log p(x) = log E_q[ p(x|z) p(z) / q(z|x) ]
//!          ≥ E_q[ log p(x|z) + log p(z) − log q(z|x) ]
//!          = E_q[ log p(x|z) ] − KL(q(z|x) ‖ p(z))            = ELBO(x)
//! ```
//!
//! the *evidence lower bound*: how well the image is rebuilt from z, less what it costs, in nats, to say z. Writing
//! p(x) = p(x|z) p(z) / p(z|x) inside the expectation gives what Jensen gave away:
//!
//! ```text
//! log p(x) − ELBO(x) = E_q[ log q(z|x) − log p(z|x) ] = KL(q(z|x) ‖ p(z|x)) ≥ 0
//! ```
//!
//! The gap is zero exactly when q is the posterior. What is raised is the sum log p(x) + (−gap), not each of its
//! terms. log p(x) does not depend on the encoder, and a step there does nothing but close the gap. A step of the
//! decoder moves both, and may lower log p(x) where that makes its posterior easier to meet: with p(x|z) = N(wz, 1), w
//! = 1, x = 2 and q = N(0, 1) the ELBO has the slope −1 in w, and log p(x) the slope +½. What holds is log p(x) ≥
//! ELBO(x), before and after.
//!
//! # The gradient
//!
//! The expectation is over a distribution that is itself being learned. With ε ~ N(0, I) and z = μ + e^(lv/2)·ε
//! ([`DiagonalGaussian::sample`]) the randomness no longer depends on the parameters, and one draw per image gives an unbiased
//! gradient (Kingma & Welling 2014, arXiv 1312.6114; Rezende et al. 2014, arXiv 1401.4082). The KL term needs no draw:
//! for two Gaussians it has a [closed form](DiagonalGaussian::kl).
//!
//! All numbers are in nats per image, and it is −ELBO that is printed and minimised: an upper bound on −log p(x).
//!
//! At test time there is no x: draw z ~ N(0, I) and decode it ([`sampling`]).
//!
//! Read on: [`gaussian.rs`](Conditional) → [`likelihood/`](Likelihood) → [`importance.rs`](LogWeights) →
//! [`elbo.rs`](terms) → [`objective.rs`](training_step), where the other bounds and the estimators of their gradients
//! are.

mod binarisation;
mod bound;
mod config;
mod decoder;
mod elbo;
mod gaussian;
mod importance;
mod kl;
mod layout;
mod likelihood;
mod model;
mod objective;
mod share;
pub(crate) mod streams;
mod throw;
mod warmup;
pub mod watch;

pub use binarisation::Binarisation;
pub use bound::{Bound, BoundKind, Estimator, KlTerm};
pub(crate) use config::is_default;
pub use config::{StochasticLayer, UpdateRule, VaeConfig};
pub use decoder::Decoder;
pub(crate) use decoder::SHARED_SIGMA;
pub use elbo::{Terms, evaluation, pixels, posteriors, reconstruction, sampling, slopes, terms};
pub(crate) use elbo::{images, posterior_draw};
pub use gaussian::{Conditional, DiagonalGaussian, Spread};
pub use importance::{Draws, LogWeights};
pub use kl::kl_to_standard_normal;
pub use likelihood::{Baseline, Facts, Histograms, Likelihood, PixelDistribution, Raw};
pub(crate) use model::{Batched, EVALUATION_BATCH, batches, evaluation_seed};
pub use model::{DeviceVae, Encoded, Evaluation, Evaluator, HiddenUnits, Inspector};
pub use objective::{BETA, LEARNING_RATE, StepGradients, bound_gradients, step_gradients, step_update, training_step};
pub use share::{Minibatch, Share};
pub use throw::PixelNumbers;
pub use warmup::KlWarmup;

use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Var};
use crate::engine::nn::{Linear, Mlp};
use crate::engine::params::Params;

/// An encoder and a decoder that fit together.
#[derive(Clone, Debug)]
pub struct Vae {
    /// What the two were built from.
    pub config: VaeConfig,
    /// q(z₁|x), the usual model's q(z|x).
    pub encoder: Conditional,
    /// The stochastic layers above the first, from below.
    pub upper: Vec<Upper>,
    /// p(x|z₁).
    pub decoder: Decoder,
}

/// The two directions between z_l and z_{l+1}.
#[derive(Clone, Debug)]
pub struct Upper {
    /// q(z_{l+1}|z_l), named `encoder2`, `encoder3`, …
    pub posterior: Conditional,
    /// p(z_l|z_{l+1}), named `decoder2`, `decoder3`, …
    pub prior: Conditional,
}

impl Vae {
    /// The model a configuration describes.
    ///
    /// # Errors
    /// [`Error::Argument`] when the configuration is not [valid](VaeConfig::validate).
    pub fn new(config: VaeConfig) -> Result<Vae> {
        config.validate()?;
        if config.upper.len() >= importance::MOST_LAYERS {
            let expected = format!("at most {}", importance::MOST_LAYERS);
            return Err(Error::argument("stochastic layers", config.upper.len() + 1, expected));
        }
        let c = &config;
        let between = |name: String, from: usize, widths: &[usize], to: usize| {
            Conditional::new(&name, from, widths, to, c.activation, c.spread)
        };
        let encoder = between("encoder".into(), c.pixels(), &c.encoder, c.latent);
        let latents = c.latents();
        let upper = c.upper.iter().zip(latents.windows(2)).zip(2..).map(|((layer, k), number)| Upper {
            posterior: between(format!("encoder{number}"), k[0], &layer.encoder, k[1]),
            prior: between(format!("decoder{number}"), k[1], &layer.decoder, k[0]),
        });
        let upper = upper.collect();
        let decoder = Decoder::new(c);
        Ok(Vae { config, encoder, upper, decoder })
    }

    /// All layers: from the pixels up through the encoders, and down through the decoders to the pixels.
    pub fn layers(&self) -> Vec<&Linear> {
        let up = self.encoder.layers().chain(self.upper.iter().flat_map(|u| u.posterior.layers()));
        let down = self.upper.iter().rev().flat_map(|u| u.prior.layers()).chain(self.decoder.layers());
        up.chain(down).collect()
    }

    /// The hidden layers of every network, in the order of [`Vae::layers`], and what the network reads: 0 for x, l for
    /// z_l.
    pub fn hidden(&self) -> Vec<(&Mlp, usize)> {
        let up = self.upper.iter().enumerate().map(|(i, u)| (&u.posterior.hidden, i + 1));
        let down = self.upper.iter().enumerate().rev().map(|(i, u)| (&u.prior.hidden, i + 2));
        [(&self.encoder.hidden, 0)].into_iter().chain(up).chain(down).chain([(&self.decoder.hidden, 1)]).collect()
    }

    /// The encoder's parameters φ in the graph `g`: those of all q.
    #[track_caller]
    pub fn encoder_params<'g>(&self, g: &'g Graph) -> Vec<Var<'g>> {
        let upper = self.upper.iter().flat_map(|u| u.posterior.params(g));
        self.encoder.params(g).into_iter().chain(upper).collect()
    }

    /// The decoder's parameters θ in the graph `g`: those of all p.
    #[track_caller]
    pub fn decoder_params<'g>(&self, g: &'g Graph) -> Vec<Var<'g>> {
        let upper = self.upper.iter().rev().flat_map(|u| u.prior.params(g));
        upper.chain(self.decoder.params(g)).collect()
    }

    /// All parameters: of every layer from the pixels up and down again, then the spread that all pixels share, if the
    /// likelihood has one.
    pub fn params(&self) -> Params {
        let mut params = Params::new();
        self.layers().into_iter().for_each(|layer| params.layer(layer, self.config.init));
        if self.config.likelihood.has_shared_sigma() {
            params.declare(SHARED_SIGMA, &[1], |_| vec![0.0]);
        }
        params
    }
}
