//! Quadrature where the mass is hard to find: far out, far narrower than the grid, in several places.
//!
//! Linear Gaussian models have x ~ N(μ, WᵀW + σ²I) (W as the decoder stores it, `[K, D]`), hence log p(x) in closed form; a model
//! with two modes is summed up here over points laid by hand around both.

mod common;

use common::linear::{cpu, linear, raw_sigma};
use elbo::engine::nn::Activation;
use elbo::study::evidence::{Exact, Observed, Quadrature, Summary, quadrature};
use elbo::vae::{DeviceVae, Likelihood, Vae, VaeConfig};

/// The σ that a model has whose parameter was written as f32.
fn stored(sigma: f64) -> f64 {
    0.01 + f64::from(raw_sigma(sigma)).exp().ln_1p()
}

/// log N(x; 0, WᵀW + σ²I) by the determinant of M = WWᵀ + σ²I, `[K, K]`, K ≤ 2, and the least
/// (|x − Wᵀm|² + σ²|m|²)/σ² = xᵀ(WᵀW + σ²I)⁻¹x, which does not feel the rounding of m.
fn closed_form(w: &[f32], x: &[f32], sigma: f64, latent: usize) -> f64 {
    let (d, variance) = (x.len(), sigma * sigma);
    let w = |k: usize, i: usize| f64::from(w[k * d + i]);
    let product = |i: usize, j: usize| (0..d).map(|p| w(i, p) * w(j, p)).sum::<f64>();
    let m = |i: usize, j: usize| product(i, j) + if i == j { variance } else { 0.0 };
    let b: Vec<f64> = (0..latent).map(|k| (0..d).map(|p| w(k, p) * f64::from(x[p])).sum()).collect();
    let (determinant, mean) = match latent {
        1 => (m(0, 0), vec![b[0] / m(0, 0)]),
        _ => {
            let determinant = m(0, 0) * m(1, 1) - m(0, 1) * m(0, 1);
            let solved = [m(1, 1) * b[0] - m(0, 1) * b[1], m(0, 0) * b[1] - m(0, 1) * b[0]];
            (determinant, solved.map(|v| v / determinant).to_vec())
        }
    };
    let rest = |p: usize| f64::from(x[p]) - (0..latent).map(|k| mean[k] * w(k, p)).sum::<f64>();
    let square = (0..d).map(|p| rest(p).powi(2)).sum::<f64>() / variance + mean.iter().map(|m| m * m).sum::<f64>();
    let logs = (d - latent) as f64 * variance.ln() + determinant.ln() + d as f64 * (2.0 * std::f64::consts::PI).ln();
    -0.5 * (logs + square)
}

/// Quadrature of one image by a linear model, whose encoder says N(m, diag e^lv).
fn of_linear(w: &[f32], x: &[f32], sigma: f64, m: &[f32], lv: &[f32]) -> (Exact, f64) {
    let mut model = linear(cpu(2), w, &vec![0.0; x.len()], sigma, m, lv);
    let observed = Observed::encode(&mut model, x.to_vec()).unwrap();
    let found = quadrature(&mut model, &observed, &Quadrature::default()).unwrap().remove(0);
    (found, closed_form(w, x, stored(sigma), m.len()))
}

#[track_caller]
fn right(found: &Exact, expected: f64) {
    let off = (found.log_p - expected).abs();
    assert!(off < 1e-5 && found.error < 1e-6 && found.found(), "log p(x) = {expected}, found {found:?}");
    assert!(found.elbo_error < 1e-6 * found.elbo.abs().max(1.0) && found.gap() >= 0.0, "{found:?}");
}

#[test]
fn the_mass_is_followed_beyond_the_grid() {
    // The posterior's mean is about 18.5, or (18.5, −18.9); the encoder has not heard of it, or points elsewhere.
    for m in [0.1, 25.0] {
        let (found, log_p) = of_linear(&[1.0], &[18.7], 0.1, &[m], &[-1.0]);
        right(&found, log_p);
        assert!((18.0..19.0).contains(&found.mean[0]), "{found:?}");
    }
    let w = [1.0, 0.0, 0.5, 0.0, 1.0, -0.4];
    let (found, log_p) = of_linear(&w, &[18.7, -19.1, 17.0], 0.2, &[0.3, -0.2], &[-2.0, -3.0]);
    right(&found, log_p);
    assert!((18.0..19.0).contains(&found.mean[0]) && (-19.0..-18.0).contains(&found.mean[1]), "{found:?}");
}

#[test]
fn a_posterior_far_narrower_than_the_grid_is_found() {
    // 1000 z under σ = 0.013: a standard deviation of 1.3e-5, a thousandth of the common grid's finest spacing.
    let (found, log_p) = of_linear(&[1000.0], &[432.17], 0.013, &[0.3], &[-6.0]);
    right(&found, log_p);
    let deviation = found.covariance[0].sqrt();
    assert!((deviation / 1.3e-5 - 1.0).abs() < 1e-3 && found.spacing < 1.3e-5, "{found:?}");

    // Two dimensions, and axes that are not those of the plane: 1.3e-5 along one, 1e-2 along the other.
    let w = [800.0, 0.6, -0.8, 600.0, -0.8, 0.6];
    let (found, log_p) = of_linear(&w, &[250.0, 0.3, -0.2], 0.013, &[0.3, 0.1], &[-6.0, -5.0]);
    right(&found, log_p);
    // And with q as narrow as the posterior.
    let (found, log_p) = of_linear(&[1000.0], &[432.17], 0.013, &[0.43217], &[-22.0]);
    right(&found, log_p);
    assert!(found.gap() < 10.0, "{found:?}");
}

#[test]
fn what_no_grid_resolves_is_not_found() {
    let mut model = linear(cpu(2), &[1000.0], &[0.0], 0.013, &[0.3], &[-6.0]);
    let observed = Observed::encode(&mut model, vec![432.17]).unwrap();
    let coarse = Quadrature { finest: 0.01, ..Quadrature::default() };
    let found = quadrature(&mut model, &observed, &coarse).unwrap().remove(0);
    assert!(!found.found() && !found.converged(&coarse), "{found:?} claims what it has not");
    assert!(!Summary::of_shared(&[found.estimate()]).monte_carlo_error.is_finite());
}

/// x ~ N(a (softplus z + softplus(−z)), σ²): for large z that is a|z|, and the posterior has a mode on either side of 0. The
/// encoder knows one of them.
fn two_sided(a: f32, sigma: f64, m: f32) -> DeviceVae {
    let config = VaeConfig {
        image: [1, 1],
        activation: Activation::Softplus,
        likelihood: Likelihood::gaussian_shared(0.01),
        ..VaeConfig::new(1).hidden(&[2])
    };
    let mut model = DeviceVae::initial_on(Vae::new(config).unwrap(), 1, cpu(2)).unwrap();
    let mut write = |name: &str, values: &[f32]| model.state.write(name, values).unwrap();
    write("encoder.heads.weight", &[0.0; 4]);
    write("encoder.heads.bias", &[m, -4.0]);
    write("decoder.0.weight", &[1.0, -1.0]);
    write("decoder.0.bias", &[0.0; 2]);
    write("decoder.mu.weight", &[a, a]);
    write("decoder.mu.bias", &[0.0]);
    write("decoder.sigma", &[raw_sigma(sigma)]);
    model
}

#[test]
fn every_mode_is_counted() {
    // Beyond the grid, between its points, and both; modes at ±place of standard deviation about σ/a.
    for (a, sigma, place) in [(1.0f32, 0.05, 15.0), (100.0, 0.02, 3.0), (100.0, 0.02, 23.0)] {
        let mut model = two_sided(a, sigma, place as f32 + 0.2);
        let x = a * place as f32;
        let observed = Observed::encode(&mut model, vec![x]).unwrap();
        let found = quadrature(&mut model, &observed, &Quadrature::default()).unwrap().remove(0);
        let (sigma, half) = (stored(sigma), 0.5 * (2.0 * std::f64::consts::PI).ln());
        let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
        let joint = |z: f64| {
            let e = (f64::from(x) - f64::from(a) * (softplus(z) + softplus(-z))) / sigma;
            -0.5 * (e * e + z * z) - sigma.ln() - 2.0 * half
        };
        // One side, with ± 40 standard deviations around the mode at 0.05 of them; the other is its mirror image.
        let mode = (1..200_000).map(|i| f64::from(i) * 2e-4).max_by(|&p, &q| joint(p).total_cmp(&joint(q))).unwrap();
        let h = 0.05 * sigma / f64::from(a);
        let top = joint(mode);
        let sum: f64 = (-800..=800).map(|i| (joint(mode + f64::from(i) * h) - top).exp()).sum();
        let log_p = top + (2.0 * h * sum).ln();
        right(&found, log_p);
        assert!(found.mean[0].abs() < 1e-6 && (found.covariance[0].sqrt() / mode - 1.0).abs() < 0.01, "{found:?}");
    }
}

#[test]
fn mass_beyond_the_edge_is_found_though_the_grid_holds_some() {
    // x ~ N(tanh(5 (z − 10)), σ²) with x = 1: at z = 0 the joint density is e^(−200), and falls towards ±12 with the prior
    // alone, so that the common grid converges; beyond z = 10 it is e^(−50).
    let config = VaeConfig {
        image: [1, 1],
        activation: Activation::Tanh,
        likelihood: Likelihood::gaussian_shared(0.01),
        ..VaeConfig::new(1).hidden(&[1])
    };
    // With the foot of the slope at 10, which the common grid may still see, and at 14, which it cannot.
    for place in [10.0f32, 14.0] {
        let mut model = DeviceVae::initial_on(Vae::new(config.clone()).unwrap(), 1, cpu(2)).unwrap();
        let mut write = |name: &str, values: &[f32]| model.state.write(name, values).unwrap();
        write("encoder.heads.weight", &[0.0; 2]);
        write("encoder.heads.bias", &[0.0, -1.0]);
        write("decoder.0.weight", &[5.0]);
        write("decoder.0.bias", &[-5.0 * place]);
        write("decoder.mu.weight", &[1.0]);
        write("decoder.mu.bias", &[0.0]);
        write("decoder.sigma", &[raw_sigma(0.1)]);
        let observed = Observed::encode(&mut model, vec![1.0]).unwrap();
        let found = quadrature(&mut model, &observed, &Quadrature::default()).unwrap().remove(0);
        let sigma = stored(0.1);
        let joint = |z: f64| {
            let e = (1.0 - (5.0 * (z - f64::from(place))).tanh()) / sigma;
            -0.5 * (e * e + z * z) - sigma.ln() - (2.0 * std::f64::consts::PI).ln()
        };
        let h = 1e-4;
        let sum: f64 = (-200_000..=400_000).map(|i| (joint(f64::from(i) * h) + 50.0).exp()).sum();
        let log_p = (sum * h).ln() - 50.0;
        assert!((found.log_p - log_p).abs() < 1e-4 && found.found(), "log p(x) = {log_p}, found {found:?}");
    }
}
