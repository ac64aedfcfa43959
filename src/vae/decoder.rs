//! p(x|z): what z looks like.

use super::config::VaeConfig;
use super::likelihood::{Likelihood, Raw};
use crate::engine::graph::{Graph, Var};
use crate::engine::nn::{Linear, Mlp};

/// The parameter with the spread that all pixels share, for the likelihoods that have one.
pub(crate) const SHARED_SIGMA: &str = "decoder.sigma";

/// z `[rows, K]` to the raw parameters of p(x|z), which the [`Likelihood`] reads.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// `decoder.0`, `decoder.1`, …
    pub hidden: Mlp,
    /// The last layer: `decoder.logits`, `[hidden, D]`, for (continuous) Bernoulli pixels; `decoder.mu`, `[hidden, D]`, for
    /// Gaussian ones with a common σ; `decoder.heads`, `[hidden, 2D]`, for those with a spread of their own, with f_μ in
    /// the first D columns and the raw f_σ in the last D.
    pub heads: Linear,
    likelihood: Likelihood,
}

impl Decoder {
    pub(super) fn new(config: &VaeConfig) -> Decoder {
        let hidden = Mlp::new("decoder", config.latent, &config.decoder, config.activation);
        let fan_in = config.decoder.last().copied().unwrap_or(config.latent);
        let pixels = config.pixels();
        let likelihood = config.likelihood;
        let heads = match likelihood {
            Likelihood::Bernoulli | Likelihood::ContinuousBernoulli => Linear::new("decoder.logits", fan_in, pixels),
            Likelihood::GaussianShared { .. } | Likelihood::GaussianOptimal { .. } => {
                Linear::new("decoder.mu", fan_in, pixels)
            }
            Likelihood::Gaussian { .. } | Likelihood::DiscretisedLogistic { .. } => {
                let parts = ["decoder.mu".to_string(), "decoder.sigma".to_string()];
                Linear::side_by_side("decoder.heads", &parts, fan_in, pixels)
            }
        };
        Decoder { hidden, heads, likelihood }
    }

    /// What the decoder says about the images of z.
    #[track_caller]
    pub fn apply<'g>(&self, z: Var<'g>) -> Raw<'g> {
        let values = self.heads.apply(self.hidden.apply(z));
        let shared = self.likelihood.has_shared_sigma().then(|| z.graph().param(SHARED_SIGMA, &[1]).reshape(&[]));
        Raw { values, shared }
    }

    /// E[x|z], the image to show for z, `[rows, D]`.
    #[track_caller]
    pub fn mean<'g>(&self, z: Var<'g>) -> Var<'g> {
        self.likelihood.mean(self.apply(z))
    }

    /// Its layers, from z on.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.hidden.layers.iter().chain([&self.heads])
    }

    /// Its parameters in the graph `g`.
    #[track_caller]
    pub fn params<'g>(&self, g: &'g Graph) -> Vec<Var<'g>> {
        let shared = self.likelihood.has_shared_sigma().then(|| g.param(SHARED_SIGMA, &[1]));
        self.layers().flat_map(|layer| layer.params(g)).chain(shared).collect()
    }
}
