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
//! Averaging p(x|z) over draws from the prior is hopeless: for a given 7, nearly every z decodes to something that is
//! not this 7, and gives p(x|z) ≈ 0. One must know where to look. A second network, the [`Encoder`], answers that:
//! q(z|x) = N(μ(x), diag e^(lv(x))).
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
//! So raising the ELBO does two things at once, and cannot tell which: it makes x more probable, and it pulls q
//! towards the true posterior. The gap is zero exactly when q is the posterior.
//!
//! # The gradient
//!
//! The expectation is over a distribution that is itself being learned. With ε ~ N(0, I) and z = μ + e^(lv/2)·ε
//! ([`Posterior::sample`]) the randomness no longer depends on the parameters, and one draw per image gives an unbiased
//! gradient (Kingma & Welling 2014, arXiv 1312.6114; Rezende et al. 2014, arXiv 1401.4082). The KL term needs no draw:
//! for two Gaussians it has a [closed form](Posterior::kl).
//!
//! All numbers are in nats per image, and it is −ELBO that is printed and minimised: an upper bound on −log p(x).
//!
//! At test time there is no x: draw z ~ N(0, I) and decode it ([`sampling_graph`]).
//!
//! Read on: [`encoder.rs`](Encoder) → [`likelihood.rs`](Likelihood) → [`elbo.rs`](training_graph).

mod config;
mod decoder;
mod elbo;
mod encoder;
mod kl;
mod layout;
mod likelihood;
mod model;

pub use config::{Objective, VaeConfig};
pub use decoder::Decoder;
pub use elbo::{
    Terms, decode_graph, encode_graph, evaluation_graph, reconstruction_graph, sampling_graph, terms, training_graph,
};
pub use encoder::{Encoder, Posterior};
pub use kl::kl_to_standard_normal;
pub use layout::Piece;
pub use likelihood::{Binarisation, Likelihood};
pub use model::{Encoded, Evaluation, Model};

use crate::error::Result;
use crate::nn::{Init, Linear};

/// An encoder and a decoder that fit together.
#[derive(Clone, Debug)]
pub struct Vae {
    /// What the two were built from.
    pub config: VaeConfig,
    /// q(z|x).
    pub encoder: Encoder,
    /// p(x|z).
    pub decoder: Decoder,
}

impl Vae {
    /// The model a configuration describes.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when the configuration is not [valid](VaeConfig::validate).
    pub fn new(config: VaeConfig) -> Result<Vae> {
        config.validate()?;
        let (encoder, decoder) = (Encoder::new(&config), Decoder::new(&config));
        Ok(Vae { config, encoder, decoder })
    }

    /// All layers, from the pixels in to the pixels out.
    pub fn layers(&self) -> Vec<&Linear> {
        let encoder = self.encoder.hidden.layers.iter().chain([&self.encoder.heads]);
        encoder.chain(self.decoder.hidden.layers.iter()).chain([&self.decoder.heads]).collect()
    }

    /// The initial values of all parameters, a pure function of `seed`.
    pub fn init(&self, seed: u64) -> Vec<Init> {
        self.layers().into_iter().enumerate().flat_map(|(i, layer)| layer.init(seed, i)).collect()
    }

    /// The number of trainable numbers.
    pub fn parameter_count(&self) -> usize {
        self.layers().iter().map(|l| (l.fan_in + 1) * l.fan_out).sum()
    }
}
