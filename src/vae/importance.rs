//! Draws from the encoder and their weights w = p(x, z)/q(z|x): what every bound and every estimate of log p(x) is
//! made of.

use super::Vae;
use super::gaussian::{DiagonalGaussian, log_standard_normal, repeat_rows};
use super::share::{Minibatch, Share};
use crate::engine::graph::Var;
use crate::vae::streams;

/// More stochastic layers than anyone has trained in this way.
pub(super) const MOST_LAYERS: usize = streams::LATENT.len();

/// k draws for each image, of every stochastic layer.
#[derive(Clone, Debug)]
pub struct Draws<'g> {
    /// k.
    pub samples: usize,
    /// z₁, z₂, … from below, `[k·B, K_l]` each; row s·B + i is draw s for image i.
    pub z: Vec<Var<'g>>,
    /// q(z₁|x), one row per image.
    pub first: DiagonalGaussian<'g>,
}

/// The logarithms that make up a weight, `[k, B]` each.
#[derive(Clone, Copy, Debug)]
pub struct LogWeights<'g> {
    /// log p(x|z).
    pub likelihood: Var<'g>,
    /// log p(z), over all layers.
    pub prior: Var<'g>,
    /// log q(z|x), over all layers.
    pub posterior: Var<'g>,
}

impl<'g> LogWeights<'g> {
    /// log w = log p(x|z) + β (log p(z) − log q(z|x)), `[k, B]`.
    #[track_caller]
    pub fn log_weight(self, beta: Option<Var<'g>>) -> Var<'g> {
        let ratio = self.prior - self.posterior;
        self.likelihood + beta.map_or(ratio, |beta| beta * ratio)
    }
}

impl Vae {
    /// k draws of all layers from q for each of the images x, `[B, D]`, with reparameterised noise.
    #[track_caller]
    pub fn draw<'g>(&self, images: impl Into<Minibatch<'g>>, samples: usize) -> Draws<'g> {
        let Minibatch { x, share } = images.into();
        self.draw_share(self.encoder.apply(x), samples, share)
    }

    /// As [`Vae::draw`], where q(z₁|x) is known already.
    #[track_caller]
    pub fn draw_from<'g>(&self, first: DiagonalGaussian<'g>, samples: usize) -> Draws<'g> {
        self.draw_share(first, samples, first.mu.shape()[0].into())
    }

    #[track_caller]
    fn draw_share<'g>(&self, first: DiagonalGaussian<'g>, samples: usize, share: Share) -> Draws<'g> {
        let mut z = Vec::new();
        let mut q = first.repeated(samples);
        for (layer, stream) in streams::LATENT.into_iter().take(self.upper.len() + 1).enumerate() {
            let noise = |shape: &[usize]| first.mu.graph().normal(shape, stream);
            z.push(q.sample(share.of_noise(samples, q.mu.shape()[1], noise)));
            if let Some(upper) = self.upper.get(layer) {
                q = upper.posterior.apply(z[layer]);
            }
        }
        Draws { samples, z, first }
    }

    /// The densities of the points `z` (of all layers, from below, `[k·B, K_l]`) for the images x, `[B, D]`, where
    /// `first` is q(z₁|x). With `frozen`, q's parameters are constants of the reverse pass, and only z carries a gradient
    /// into log q. With `training`, the likelihood is that of a batch that is learned from.
    #[track_caller]
    pub fn log_weights<'g>(
        &self,
        x: Var<'g>,
        first: DiagonalGaussian<'g>,
        z: &[Var<'g>],
        frozen: bool,
        training: bool,
    ) -> LogWeights<'g> {
        let samples = z[0].shape()[0] / x.shape()[0];
        let per_draw = |terms: Var<'g>| terms.sum(&[1]).reshape(&[samples, x.shape()[0]]);
        let first = if frozen { first.detached() } else { first };
        let mut posterior = per_draw(first.repeated(samples).log_density(z[0]));
        for (l, upper) in self.upper.iter().enumerate() {
            let q = if frozen { upper.posterior.apply_frozen(z[l]) } else { upper.posterior.apply(z[l]) };
            posterior = posterior + per_draw(q.log_density(z[l + 1]));
        }
        let prior = self.log_prior(z).reshape(&[samples, x.shape()[0]]);
        LogWeights { likelihood: per_draw(-self.pixel_nll(x, z[0], training)), prior, posterior }
    }

    /// log p(z) over all layers, `[rows, 1]`, of points z from below, `[rows, K_l]`.
    #[track_caller]
    pub fn log_prior<'g>(&self, z: &[Var<'g>]) -> Var<'g> {
        let per_row = |terms: Var<'g>| terms.sum_keep(&[1]);
        let top = per_row(log_standard_normal(z[z.len() - 1]));
        let layers = self.upper.iter().enumerate();
        layers.fold(top, |sum, (l, upper)| sum + per_row(upper.prior.apply(z[l + 1]).log_density(z[l])))
    }

    /// −log p(x|z) for each pixel of each draw, `[k·B, D]`.
    #[track_caller]
    pub(super) fn pixel_nll<'g>(&self, x: Var<'g>, z: Var<'g>, training: bool) -> Var<'g> {
        let raw = self.decoder.apply(z);
        let x = repeat_rows(x, z.shape()[0] / x.shape()[0]);
        let likelihood = self.config.likelihood;
        if training { likelihood.training_nll(raw, x) } else { likelihood.nll(raw, x) }
    }

    /// log p(x|z), `[rows, 1]`, of images and points of the lowest layer, row by row.
    #[track_caller]
    pub fn log_likelihood<'g>(&self, x: Var<'g>, z: Var<'g>) -> Var<'g> {
        -self.pixel_nll(x, z, false).sum_keep(&[1])
    }

    /// z of all layers drawn from the prior, from below: the topmost from N(0, I), each lower one from p(z_l|z_{l+1}).
    /// `stream` numbers the noise of the topmost layer, the layers below follow.
    #[track_caller]
    pub fn ancestral<'g>(&self, g: &'g crate::engine::graph::Graph, rows: usize, stream: u32) -> Vec<Var<'g>> {
        let mut z = vec![g.normal(&[rows, self.config.top_latent()], stream)];
        for (upper, number) in self.upper.iter().rev().zip(1..) {
            let p = upper.prior.apply(z[z.len() - 1]);
            z.push(p.sample(g.normal(&p.mu.shape(), stream + number)));
        }
        z.reverse();
        z
    }
}
