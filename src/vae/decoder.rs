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
    /// The last layer: the one [output](super::Facts::outputs) of the likelihood, as in `decoder.logits`, `[hidden, D]`; or
    /// `decoder.heads`, `[hidden, 2D]`, for two, as with f_μ in the first D columns and the raw f_σ in the last D.
    pub heads: Linear,
    likelihood: Likelihood,
}

impl Decoder {
    pub(super) fn new(config: &VaeConfig) -> Decoder {
        let hidden = Mlp::new("decoder", config.latent, &config.decoder, config.activation);
        let fan_in = config.decoder.last().copied().unwrap_or(config.latent);
        let pixels = config.pixels();
        let likelihood = config.likelihood;
        let parts: Vec<String> = likelihood.facts().outputs.iter().map(|output| format!("decoder.{output}")).collect();
        let heads = match &parts[..] {
            [one] => Linear::new(one, fan_in, pixels),
            several => Linear::side_by_side("decoder.heads", several, fan_in, pixels),
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
