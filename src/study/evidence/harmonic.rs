//! The harmonic mean of the likelihood (Newton & Raftery 1994), which does not work, and is here to be seen failing.
//!
//! ```text
//! E_{p(z|x)}[1/p(x|z)] = ∫ p(z)/p(x) dz = 1/p(x)        −log (1/n) Σ 1/p(x|z_i),  z_i ~ p(z|x)
//! ```
//!
//! is exact in expectation, and its value is above log p(x) in expectation by Jensen's inequality. But the mean is carried by
//! the z that the posterior avoids: where the data say much, 1/p(x|z) has infinite variance under the posterior. For a
//! likelihood of variance v in one dimension and the prior N(0, 1) that is so exactly for v ≤ 1. What comes out depends on
//! the smallest p(x|z) met so far and hardly on p(x); Neal (2008) called it the worst Monte Carlo method ever.

use super::Estimate;
use super::accumulate::LogMeanExp;
use crate::engine::rng::Draw;
use crate::vae::streams;

/// The harmonic mean of likelihoods, from log p(x|z) at draws from the posterior.
pub fn harmonic_mean(log_likelihoods: &[f64]) -> Estimate {
    let mut inverse = LogMeanExp::default();
    log_likelihoods.iter().for_each(|v| inverse.push(-v));
    Estimate { value: -inverse.value(), ..inverse.estimate() }
}

/// Draws from the posterior by sampling-importance-resampling (Rubin 1987): `draws` numbers of weighted draws, with
/// replacement, with probabilities w/Σw. `which` numbers the image's noise.
///
/// # Panics
/// When there are no weights.
pub fn resample(log_w: &[f64], draws: usize, seed: u64, which: u32) -> Vec<usize> {
    let max = log_w.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    let cumulative: Vec<f64> = log_w
        .iter()
        .map(|v| {
            sum += (v - max).exp();
            sum
        })
        .collect();
    let noise = Draw { seed, step: which, stream: streams::RESAMPLING };
    let last = cumulative.len().checked_sub(1).expect("weights to draw by");
    let pick = |i: u64| cumulative.partition_point(|&c| c <= f64::from(noise.uniform(i)) * sum).min(last);
    (0..draws as u64).map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resampling_follows_the_weights() {
        let log_w = [-1000.0, -1000.0 + 3f64.ln(), f64::NEG_INFINITY, -2000.0];
        let drawn = resample(&log_w, 40_000, 7, 0);
        let share = |n: usize| drawn.iter().filter(|&&i| i == n).count() as f64 / 40_000.0;
        // 1/4 and 3/4 within four standard errors, √(3/16/40000) = 0.0022.
        assert!((share(0) - 0.25).abs() < 0.009 && (share(1) - 0.75).abs() < 0.009, "{} {}", share(0), share(1));
        assert_eq!(share(2) + share(3), 0.0);
        assert_ne!(resample(&log_w, 100, 7, 1), drawn[..100]);
    }

    #[test]
    fn the_mean_is_harmonic() {
        let found = harmonic_mean(&[-800.0, -800.0 + 2f64.ln()]);
        // 2/(1/1 + 1/2) = 4/3
        assert!((found.value - (-800.0 + (4.0f64 / 3.0).ln())).abs() < 1e-12);
    }
}
