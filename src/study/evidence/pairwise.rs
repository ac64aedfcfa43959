//! log p(x_b|z_c) of every image with every point.

use crate::engine::graph::Var;
use crate::vae::{Likelihood, Raw, Vae};

/// log p(x_b|z_c), `[C, B]`, of the points z of the lowest layer, `[C, K]`, and images given as columns, `[D, B]`. Each
/// point is decoded once.
///
/// Where log p is linear in x, as for the (continuous) Bernoulli with its logits l, this is a matrix product and a sum for
/// each point:
///
/// ```text
/// log p(x|z) = l·x − Σ softplus(l) (+ Σ log C(l))
/// ```
///
/// Otherwise every pair has its own row of pixels. (Expanding the square of a Gaussian would make it a product too, and would
/// lose in the cancellation what a small σ then magnifies.)
#[track_caller]
pub fn pairwise_log_likelihood<'g>(vae: &Vae, z: Var<'g>, columns: Var<'g>) -> Var<'g> {
    let likelihood = vae.config.likelihood;
    let raw = vae.decoder.apply(z);
    if likelihood.facts().is_linear {
        // −log p of the image of zeros is what does not depend on x.
        let dark = likelihood.nll(raw, z.graph().full(&raw.values.shape(), 0.0)).sum_keep(&[1]);
        return raw.values.matmul(columns) - dark;
    }
    let (points, width) = (z.shape()[0], raw.values.shape()[1]);
    let (pixels, images) = (columns.shape()[0], columns.shape()[1]);
    let rows = points * images;
    let values = raw.values.reshape(&[points, 1, width]).broadcast_to(&[points, images, width]);
    let values = values.reshape(&[rows, width]);
    let x = columns.t().reshape(&[1, images, pixels]).broadcast_to(&[points, images, pixels]);
    let nll = likelihood.nll(Raw { values, shared: raw.shared }, x.reshape(&[rows, pixels]));
    -nll.sum(&[1]).reshape(&[points, images])
}

/// How many points fit into a step with `images` images, if it is to have about `rows` rows of pixels.
pub(super) fn points_per_step(likelihood: Likelihood, images: usize, rows: usize) -> usize {
    if likelihood.facts().is_linear { rows } else { rows.div_ceil(images) }
}
