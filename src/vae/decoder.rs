//! p(x|z): what z looks like.

use super::config::VaeConfig;
use super::likelihood::Likelihood;
use crate::graph::Var;
use crate::nn::{Linear, Mlp};

/// z `[B, K]` to the raw parameters of p(x|z), which the [`Likelihood`] reads.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// `decoder.0`, `decoder.1`, …
    pub hidden: Mlp,
    /// The last layer: `decoder.logits`, `[hidden, D]`, for Bernoulli pixels; `decoder.heads`, `[hidden, 2D]`, for
    /// Gaussian ones, with f_μ in the first D columns and the raw f_σ in the last D.
    pub heads: Linear,
    likelihood: Likelihood,
}

impl Decoder {
    pub(super) fn new(config: &VaeConfig) -> Decoder {
        let hidden = Mlp::new("decoder", config.latent, &config.decoder, config.activation);
        let fan_in = config.decoder.last().copied().unwrap_or(config.latent);
        let name = match config.likelihood {
            Likelihood::Bernoulli => "decoder.logits",
            Likelihood::Gaussian { .. } => "decoder.heads",
        };
        let fan_out = config.pixels() * config.likelihood.parameters_per_pixel();
        Decoder { hidden, heads: Linear::new(name, fan_in, fan_out), likelihood: config.likelihood }
    }

    /// The raw parameters of p(x|z), `[B, D]` or `[B, 2D]`.
    #[track_caller]
    pub fn apply<'g>(&self, z: Var<'g>) -> Var<'g> {
        self.heads.apply(self.hidden.apply(z))
    }

    /// E[x|z], the image to show for z, `[B, D]`.
    #[track_caller]
    pub fn mean<'g>(&self, z: Var<'g>) -> Var<'g> {
        self.likelihood.mean(self.apply(z))
    }
}
