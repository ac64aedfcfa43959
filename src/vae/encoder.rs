//! q(z|x): where to look for the z that made x.

use super::config::VaeConfig;
use super::kl::kl_to_standard_normal;
use crate::graph::Var;
use crate::nn::{Linear, Mlp};

/// x `[B, D]` to the mean and log-variance of q(z|x), `[B, K]` each.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// `encoder.0`, `encoder.1`, …
    pub hidden: Mlp,
    /// `encoder.heads`, `[hidden, 2K]`: μ in the first K columns, log σ² in the last K. One product instead of two that
    /// read the same input; checkpoints have the two apart, as `encoder.mu` and `encoder.logvar`.
    pub heads: Linear,
    latent: usize,
}

/// q(z|x) = N(μ, diag e^lv) of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Posterior<'g> {
    /// μ, `[B, K]`.
    pub mu: Var<'g>,
    /// lv = log σ², `[B, K]`: any real number is a valid log-variance, so that nothing has to be clipped.
    pub logvar: Var<'g>,
}

impl Encoder {
    pub(super) fn new(config: &VaeConfig) -> Encoder {
        let hidden = Mlp::new("encoder", config.pixels(), &config.encoder, config.activation);
        let fan_in = config.encoder.last().copied().unwrap_or(config.pixels());
        Encoder { hidden, heads: Linear::new("encoder.heads", fan_in, 2 * config.latent), latent: config.latent }
    }

    /// q(z|x) for images x, `[B, D]`.
    #[track_caller]
    pub fn apply<'g>(&self, x: Var<'g>) -> Posterior<'g> {
        let heads = self.heads.apply(self.hidden.apply(x)); // [B, 2K]
        Posterior { mu: heads.slice_cols(0, self.latent), logvar: heads.slice_cols(self.latent, self.latent) }
    }
}

impl<'g> Posterior<'g> {
    /// z = μ + e^(lv/2)·ε, `[B, K]`, the reparameterised draw: for noise ε ~ N(0, I) that is drawn apart from them, z
    /// is a differentiable function of μ and lv.
    #[track_caller]
    pub fn sample(self, noise: Var<'g>) -> Var<'g> {
        self.mu + (self.logvar * 0.5).exp() * noise
    }

    /// KL(q(z|x) ‖ N(0, I)), one number per image and dimension, `[B, K]`.
    #[track_caller]
    pub fn kl(self) -> Var<'g> {
        kl_to_standard_normal(self.mu, self.logvar)
    }
}
