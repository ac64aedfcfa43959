//! Images that the model draws itself, pixels and all, with the z they were made from: the only images of which an exact
//! draw from the posterior is known.

use super::observed::name;
use crate::engine::error::{Error, Result};
use crate::engine::graph::Graph;
use crate::engine::rng::Draw;
use crate::vae::streams;
use crate::vae::{Likelihood, Model, evaluation_seed};

/// z ~ p(z), x ~ p(x|z).
#[derive(Clone, Debug, PartialEq)]
pub struct Simulated {
    /// z of every stochastic layer, from below, `[N, K_l]`.
    pub z: Vec<Vec<f32>>,
    /// `[N, D]`.
    pub x: Vec<f32>,
}

/// Draws `count` images, a pure function of `seed`.
///
/// # Errors
/// [`Error::Argument`] for none; and from the executor.
pub fn simulate(model: &mut Model, count: usize, seed: u64) -> Result<Simulated> {
    if count == 0 {
        return Err(Error::argument("simulated images", 0, "at least one"));
    }
    let z_name = |layer: usize| name(&format!("simulated z{layer}"), count);
    let layers = model.vae.config.latents().len();
    let bound = model.plan(&format!("simulate {count}"), |vae| {
        let g = Graph::new();
        let z = vae.ancestral(&g, count, streams::PRIOR);
        z.iter().enumerate().for_each(|(layer, &z)| g.store(&z_name(layer), z));
        g.store(&name("simulated raw", count), vae.decoder.apply(z[0]).values);
        g
    })?;
    let seed = evaluation_seed(seed).wrapping_add(10);
    model.aside(seed, |model| model.exec.run(bound, 1))?;
    let z = (0..layers).map(|layer| model.exec.read(&z_name(layer))).collect::<Result<_>>()?;
    let raw = model.exec.read(&name("simulated raw", count))?;
    let likelihood = model.vae.config.likelihood;
    let shared = if likelihood.has_shared_sigma() { model.exec.read("decoder.sigma")?[0] } else { 0.0 };
    let pixels = model.vae.config.pixels();
    let width = raw.len() / count;
    let noise = Draw { seed, step: 0, stream: streams::SIMULATED_PIXELS };
    let pixel = |i: usize| {
        let row = &raw[i / pixels * width..][..width];
        let second = if width > pixels { row[pixels + i % pixels] } else { shared };
        draw_pixel(likelihood, f64::from(row[i % pixels]), f64::from(second), noise, i as u64) as f32
    };
    Ok(Simulated { z, x: (0..count * pixels).map(pixel).collect() })
}

/// x ~ p(x|z) of a pixel from the decoder's numbers for it: a logit or a mean, and a raw spread.
fn draw_pixel(likelihood: Likelihood, first: f64, spread: f64, noise: Draw, i: u64) -> f64 {
    let uniform = || f64::from(noise.uniform(i));
    let softplus = |r: f64| r.max(0.0) + (-r.abs()).exp().ln_1p();
    match likelihood {
        Likelihood::Bernoulli => f64::from(uniform() < 1.0 / (1.0 + (-first).exp())),
        Likelihood::Gaussian { sigma_floor }
        | Likelihood::GaussianShared { sigma_floor }
        | Likelihood::GaussianOptimal { sigma_floor } => {
            first + (sigma_floor + softplus(spread)) * f64::from(noise.normal(i))
        }
        Likelihood::ContinuousBernoulli => continuous_bernoulli_quantile(first, uniform()),
        Likelihood::DiscretisedLogistic { scale_floor } => {
            let u = uniform() + 0.5f64.powi(25); // never 0
            let value = first + (scale_floor + softplus(spread)) * (u / (1.0 - u)).ln();
            (value * 255.0).round().clamp(0.0, 255.0) / 255.0
        }
    }
}

/// x with P(X ≤ x) = (e^(lx) − 1)/(e^l − 1) = u. For l > 0 it is the mirror image, so that nothing overflows.
fn continuous_bernoulli_quantile(l: f64, u: f64) -> f64 {
    if l.abs() < 1e-6 {
        u
    } else if l > 0.0 {
        1.0 - continuous_bernoulli_quantile(-l, 1.0 - u)
    } else {
        (u * l.exp_m1()).ln_1p() / l
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean over many draws of f(pixel).
    fn mean(likelihood: Likelihood, first: f64, spread: f64, f: impl Fn(f64) -> f64) -> f64 {
        let noise = Draw { seed: 5, step: 0, stream: 0 };
        (0..40_000).map(|i| f(draw_pixel(likelihood, first, spread, noise, i))).sum::<f64>() / 40_000.0
    }

    #[test]
    fn pixels_have_the_moments_of_their_distributions() {
        let sigma = 0.1 + 2f64.ln();
        let gaussian = Likelihood::Gaussian { sigma_floor: 0.1 };
        // Tolerances are four standard errors of 40 000 draws.
        assert!((mean(Likelihood::Bernoulli, 3f64.ln(), 0.0, |x| x) - 0.75).abs() < 0.009);
        assert!((mean(gaussian, 0.3, 0.0, |x| x) - 0.3).abs() < 0.02 * sigma);
        assert!((mean(gaussian, 0.3, 0.0, |x| (x - 0.3).powi(2)) - sigma * sigma).abs() < 0.03 * sigma * sigma);
        for l in [-40.0, -2.0, 1e-9, 0.5, 40.0] {
            let exact = if f64::abs(l) < 1e-6 { 0.5 } else { -1.0 / (-l).exp_m1() - 1.0 / l };
            assert!((mean(Likelihood::ContinuousBernoulli, l, 0.0, |x| x) - exact).abs() < 0.006, "l = {l}");
        }
        let logistic = Likelihood::DiscretisedLogistic { scale_floor: 0.02 };
        let byte = |x: f64| f64::from(((x * 255.0).round() / 255.0 - x).abs() < 1e-12);
        assert_eq!(mean(logistic, 0.4, -50.0, byte), 1.0);
        assert!((mean(logistic, 0.4, -50.0, |x| x) - 0.4).abs() < 0.001);
    }
}
