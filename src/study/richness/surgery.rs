//! The KL term of the bound taken apart (Hoffman & Johnson 2016, "ELBO surgery").

use std::f64::consts::PI;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Uncertain;
use crate::engine::isa::Isa;
use crate::engine::rng::Draw;
use crate::vae::Encoded;
use crate::vae::streams;
use crate::vae::watch::Watch;

/// How the average KL(q(z|x) ‖ p(z)) divides into what z tells about x and how far the aggregate is from the prior:
///
/// ```text
/// q(z)               = (1/N) Σ_n q(z|x_n)                          the aggregate of N images
/// I_q(x;z)           = E_n E_q(z|x_n)[ ln q(z|x_n) − ln q(z) ]
/// KL(q(z) ‖ p(z))    = E_n E_q(z|x_n)[ ln q(z) − ln p(z) ]
/// sum of the two     = E_n KL(q(z|x_n) ‖ p(z))
/// ```
///
/// One z is drawn for each image; q(z) is computed exactly. The sum contains the image's own term, so that
/// q(z) ≥ q(z|x_n)/N and I_q ≤ ln N: among N images, z cannot tell more than which of them it was. Of all the images
/// there could be, I_q is larger and KL(q(z) ‖ p(z)) smaller by as much: near ln N the two are bounds, not estimates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surgery {
    /// N.
    pub images: usize,
    /// I_q(x;z), in nats.
    pub information: Uncertain,
    /// KL(q(z) ‖ p(z)), in nats.
    pub marginal_kl: Uncertain,
    /// E_n KL(q(z|x_n) ‖ p(z)) in closed form, in nats: what the two should add up to.
    pub kl: f64,
    /// ln N.
    pub saturation: f64,
}

/// I_q closer than this to ln N, in nats, says more about N than about the model.
const NEAR: f64 = 0.5;

impl Surgery {
    /// Of the images encoded in `encoded`, the draws a pure function of `seed`.
    pub fn of(encoded: &Encoded, seed: u64, watch: &Watch) -> Surgery {
        let k = encoded.latent;
        let images = encoded.mu.len() / k;
        let mixture = Mixture::new(encoded);
        let done = AtomicUsize::new(0);
        let terms = |n: usize| {
            watch.at("KL term taken apart", done.fetch_add(1, Ordering::Relaxed) + 1, images);
            let (z, noise) = draw(encoded, n, seed);
            let lv = &encoded.logvar[n * k..][..k];
            let own: f64 = (0..k).map(|d| at(noise[d]).powi(2) + at(lv[d]) + (2.0 * PI).ln()).sum::<f64>() * -0.5;
            let prior: f64 = z.iter().map(|v| v * v + (2.0 * PI).ln()).sum::<f64>() * -0.5;
            let whole = mixture.log_density(&z);
            (own - whole, whole - prior)
        };
        let (information, marginal): (Vec<f64>, Vec<f64>) = (0..images).into_par_iter().map(terms).unzip();
        Surgery {
            images,
            information: Uncertain::mean(&information),
            marginal_kl: Uncertain::mean(&marginal),
            kl: encoded.kl_per_dimension().iter().sum(),
            saturation: (images as f64).ln(),
        }
    }

    /// Whether I_q is within 0.5 nats of ln N: then it is a lower bound on what z tells about x, and no estimate of it.
    pub fn is_saturated(&self) -> bool {
        self.information.value > self.saturation - NEAR
    }
}

/// z ~ q(z|x_n), `[K]`, and the standard normal noise that it is made of.
pub(super) fn draw(encoded: &Encoded, n: usize, seed: u64) -> (Vec<f64>, Vec<f32>) {
    let k = encoded.latent;
    let mut noise = vec![0.0f32; k];
    Draw { seed, step: n as u32, stream: streams::SURGERY }.fill_normal(Isa::detect(), 0, &mut noise);
    let (mu, lv) = (&encoded.mu[n * k..][..k], &encoded.logvar[n * k..][..k]);
    let z = (0..k).map(|d| at(mu[d]) + (0.5 * at(lv[d])).exp() * at(noise[d])).collect();
    (z, noise)
}

fn at(v: f32) -> f64 {
    f64::from(v)
}

/// Components whose densities are computed side by side, in vectors.
const LANES: usize = 32;

/// An equal mixture of Gaussians with diagonal covariance.
pub(super) struct Mixture {
    dimensions: usize,
    components: usize,
    /// Mean and 1/σ² of each dimension, `[block, dimension, 2, lane]`.
    blocks: Vec<[[f64; LANES]; 2]>,
    /// −½ Σ ln 2πσ².
    normaliser: Vec<f64>,
}

impl Mixture {
    pub(super) fn new(encoded: &Encoded) -> Mixture {
        let dimensions = encoded.latent;
        let components = encoded.mu.len() / dimensions;
        let mut blocks = vec![[[0.0; LANES]; 2]; components.div_ceil(LANES) * dimensions];
        for (i, (&mu, &lv)) in encoded.mu.iter().zip(&encoded.logvar).enumerate() {
            let (n, d) = (i / dimensions, i % dimensions);
            let block = &mut blocks[n / LANES * dimensions + d];
            (block[0][n % LANES], block[1][n % LANES]) = (at(mu), (-at(lv)).exp());
        }
        let normaliser = |lv: &[f32]| -0.5 * lv.iter().map(|&v| at(v) + (2.0 * PI).ln()).sum::<f64>();
        let normaliser = encoded.logvar.chunks_exact(dimensions).map(normaliser).collect();
        Mixture { dimensions, components, blocks, normaliser }
    }

    /// ln q(z) = ln Σ_n q(z|x_n) − ln N; −∞ without components.
    pub(super) fn log_density(&self, z: &[f64]) -> f64 {
        if self.components == 0 {
            return f64::NEG_INFINITY;
        }
        let mut terms = Vec::with_capacity(self.components);
        for (block, normaliser) in self.blocks.chunks_exact(self.dimensions).zip(self.normaliser.chunks(LANES)) {
            let mut squares = [0.0; LANES];
            for ([mean, precision], z) in block.iter().zip(z) {
                for i in 0..LANES {
                    squares[i] += (z - mean[i]) * (z - mean[i]) * precision[i];
                }
            }
            terms.extend(normaliser.iter().zip(squares).map(|(c, s)| c - 0.5 * s));
        }
        let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        most + terms.iter().map(|t| (t - most).exp()).sum::<f64>().ln() - (self.components as f64).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_posterior_that_is_the_prior_tells_nothing() {
        let encoded = Encoded { latent: 3, mu: vec![0.0; 300], logvar: vec![0.0; 300] };
        let s = Surgery::of(&encoded, 1, &Watch::default());
        assert!(s.information.value.abs() < 1e-12 && s.marginal_kl.value.abs() < 1e-12 && s.kl == 0.0, "{s:?}");
        assert!(!s.is_saturated());
    }

    #[test]
    fn posteriors_that_never_overlap_tell_which_image_it_was() {
        let mu = (0..100).map(|i| i as f32).collect();
        let s = Surgery::of(&Encoded { latent: 1, mu, logvar: vec![-10.0; 100] }, 1, &Watch::default());
        assert!((s.information.value - 100f64.ln()).abs() < 1e-9 && s.is_saturated(), "{s:?}");
    }

    #[test]
    fn the_parts_add_up_to_the_whole_in_closed_form() {
        // Two clusters at ±2 with σ = ½ in the first of two dimensions.
        let mu = (0..2000).flat_map(|n| [if n % 2 == 0 { 2.0 } else { -2.0 }, 0.1]).collect();
        let encoded = Encoded { latent: 2, mu, logvar: vec![0.25f32.ln(); 4000] };
        let of = |seed: u64| Surgery::of(&encoded, seed, &Watch::default());
        let s = of(7);
        let error = s.information.standard_error + s.marginal_kl.standard_error;
        let sum = s.information.value + s.marginal_kl.value;
        assert!((sum - s.kl).abs() < 3.0 * error && error < 0.2, "{sum} ± {error}, {}", s.kl);
        // ln 2, less the little overlap at 4 standard deviations from the middle.
        assert!((s.information.value - 2f64.ln()).abs() < 0.01, "{s:?}");
        assert_eq!(s, of(7));
        assert_ne!(s, of(8));
    }
}
