use std::f64::consts::PI;

use super::*;
use crate::engine::grad::grad;
use crate::engine::graph::Graph;
use crate::engine::interp::Interp;

fn plain(values: Var<'_>) -> Raw<'_> {
    Raw { values, shared: None }
}

#[test]
fn bernoulli_is_finite_with_the_right_gradient_at_any_logit() {
    let logits = [-1e4, -300.0, -88.0, -1.0, 0.0, 1.0, 88.0, 300.0, 1e4];
    for x in [0.0, 0.3, 1.0] {
        let g = Graph::new();
        let l = g.tensor(&[1, 9], &logits);
        let nll = Likelihood::Bernoulli.nll(plain(l), g.full(&[1, 9], x));
        let d = grad(nll.sum_all(), &[l])[0];
        let (mut f32s, mut f64s) = (Interp::<f32>::new(&g), Interp::<f64>::new(&g));
        for (i, &l) in logits.iter().enumerate() {
            let exact = l.max(0.0) - x * l + (-l.abs()).exp().ln_1p();
            assert!((f64s.eval(nll)[i] - exact).abs() <= 1e-12 * exact.abs() + 1e-12);
            assert!((f64::from(f32s.eval(nll)[i]) - exact).abs() <= 1e-5 * exact.abs() + 1e-6);
            assert!((f64::from(f32s.eval(d)[i]) - (1.0 / (1.0 + (-l).exp()) - x)).abs() < 1e-6);
        }
    }
}

#[test]
fn the_sigmoid_is_one_long_before_it_is_zero() {
    let sigmoid = |l: f32| 1.0 / (1.0 + (-l).exp());
    // The formulas that are not used here, at the logit of a pixel that is wrongly thought white, and black.
    assert!((1.0 - sigmoid(16.0)).ln().is_finite() && (1.0 - sigmoid(17.0)).ln() == f32::NEG_INFINITY);
    assert!(sigmoid(-80.0).ln().is_finite() && sigmoid(-104.0).ln() == f32::NEG_INFINITY);
    let g = Graph::new();
    let l = g.tensor(&[1, 2], &[17.0, -104.0]);
    let nll = Likelihood::Bernoulli.nll(plain(l), g.tensor(&[1, 2], &[0.0, 1.0]));
    assert_eq!(Interp::<f32>::new(&g).eval(nll), [17.0, 104.0]);
}

#[test]
fn a_pixel_at_the_floor_earns_its_nats() {
    let floor = Likelihood::SIGMA_FLOOR;
    let g = Graph::new();
    // Exact means; raw sigmas from far below the floor up.
    let raw = plain(g.tensor(&[1, 8], &[0.5, 0.5, 0.5, 0.5, -200.0, -5.0, 0.0, 3.0]));
    let nll = Likelihood::Gaussian { sigma_floor: floor }.nll(raw, g.full(&[1, 4], 0.5));
    let earned: Vec<f64> = Interp::<f64>::new(&g).eval(nll).iter().map(|n| -n).collect();
    assert!((earned[0] - 1.383_646_559_789_373).abs() < 1e-12 && earned.is_sorted_by(|a, b| a > b), "{earned:?}");
}

#[test]
fn gaussian_is_its_density_above_the_floor() {
    let g = Graph::new();
    let raw = plain(g.tensor(&[1, 4], &[0.2, 0.9, -50.0, 0.0])); // means 0.2, 0.9; raw sigmas −50, 0
    let x = g.tensor(&[1, 2], &[0.25, 0.5]);
    let p = Likelihood::Gaussian { sigma_floor: 0.1 };
    let nll = Interp::<f64>::new(&g).eval(p.nll(raw, x));
    let density = |x: f64, m: f64, s: f64| (-0.5 * ((x - m) / s).powi(2)).exp() / (s * (2.0 * PI).sqrt());
    assert!((nll[0] + density(0.25, 0.2, 0.1).ln()).abs() < 1e-12);
    assert!((nll[1] + density(0.5, 0.9, 0.1 + 2f64.ln()).ln()).abs() < 1e-12);
    assert_eq!(Interp::<f64>::new(&g).eval(p.mean(raw)), [0.2, 0.9]);
}

/// Errors ±0.3 and ±0.1: MSE 0.05.
fn shared(g: &Graph) -> (Raw<'_>, Var<'_>, Var<'_>) {
    let r = g.tensor(&[], &[0.4]);
    let values = g.tensor(&[2, 2], &[0.3, 0.5, 0.1, 0.2]);
    (Raw { values, shared: Some(r) }, g.tensor(&[2, 2], &[0.0, 0.8, 0.2, 0.1]), r)
}

#[test]
fn one_sigma_is_that_of_the_parameter() {
    let g = Graph::new();
    let (raw, x, r) = shared(&g);
    let p = Likelihood::GaussianShared { sigma_floor: 0.1 };
    let loss = p.nll(raw, x).sum_all();
    let d = grad(loss, &[r])[0];
    let mut run = Interp::<f64>::new(&g);
    let sigma = 0.1 + 0.4f64.exp().ln_1p();
    let exact = 4.0 * (sigma.ln() + 0.5 * (2.0 * PI).ln()) + 0.5 * 0.2 / sigma.powi(2);
    assert!((run.eval(loss)[0] - exact).abs() < 1e-12);
    let slope = (4.0 / sigma - 0.2 / sigma.powi(3)) / (1.0 + (-0.4f64).exp());
    assert!((run.eval(d)[0] - slope).abs() < 1e-12);
}

#[test]
fn the_optimal_sigma_is_the_root_of_the_mean_squared_error() {
    let g = Graph::new();
    let (raw, x, r) = shared(&g);
    let p = Likelihood::GaussianOptimal { sigma_floor: 0.01 };
    let loss = p.training_nll(raw, x).sum_all();
    let d = grad(loss, &[raw.values, r]);
    let own = grad(p.nll(raw, x).sum_all(), &[r])[0];
    let mut run = Interp::<f64>::new(&g);
    // D/2·(ln 2π·MSE + 1) for the D = 4 pixels of the batch, and D/(2·MSE)·∂MSE = Σ (m − x)/MSE.
    assert!((run.eval(loss)[0] - 2.0 * ((2.0 * PI * 0.05).ln() + 1.0)).abs() < 1e-12);
    let expected = [0.3, -0.3, -0.1, 0.1].map(|e| e / 0.05);
    let found = run.eval(d[0]);
    assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-11), "{found:?}");
    // decoder.sigma is moved as the likelihood with that sigma moves it, and does not change the value.
    assert!((run.eval(d[1])[0] - run.eval(own)[0]).abs() < 1e-12 && run.eval(own)[0] != 0.0);
}

#[test]
fn an_optimal_sigma_stops_at_its_floor() {
    let g = Graph::new();
    let raw = Raw { values: g.tensor(&[1, 2], &[0.5, 0.5]), shared: Some(g.constant(0.0)) };
    let p = Likelihood::GaussianOptimal { sigma_floor: 0.1 };
    let loss = p.training_nll(raw, raw.values).sum_all();
    let found = Interp::<f64>::new(&g).eval(loss)[0];
    assert!((found - 2.0 * (0.1f64.ln() + 0.5 * (2.0 * PI).ln())).abs() < 1e-12, "{found}");
}

#[test]
fn the_continuous_bernoulli_integrates_to_one_and_has_its_mean() {
    let logits = [-60.0, -5.0, -0.21, -0.19, -1e-6, 0.0, 1e-3, 0.15, 0.25, 1.0, 8.0, 60.0];
    let steps = 20_000;
    for l in logits {
        let g = Graph::new();
        let raw = plain(g.tensor(&[1, 1], &[l]));
        let xs: Vec<f64> = (0..=steps).map(|i| i as f64 / steps as f64).collect();
        let x = g.tensor(&[1, steps + 1], &xs);
        let wide = plain(raw.values.broadcast_to(&[1, steps + 1]));
        let nll = Likelihood::ContinuousBernoulli.nll(wide, x);
        let mut run = Interp::<f64>::new(&g);
        let density: Vec<f64> = run.eval(nll).iter().map(|n| (-n).exp()).collect();
        // Simpson's rule.
        let weight = |i: usize| match i {
            0 => 1.0,
            i if i == steps => 1.0,
            i if i % 2 == 1 => 4.0,
            _ => 2.0,
        };
        let sum = |f: &dyn Fn(usize) -> f64| (0..=steps).map(|i| weight(i) * f(i)).sum::<f64>() / (3 * steps) as f64;
        let (mass, mean) = (sum(&|i| density[i]), sum(&|i| density[i] * xs[i]));
        assert!((mass - 1.0).abs() < 1e-9, "l = {l}: {mass}");
        let found = run.eval(Likelihood::ContinuousBernoulli.mean(raw))[0];
        assert!((found - mean).abs() < 1e-9, "l = {l}: {found} against {mean}");
    }
}

#[test]
fn the_continuous_bernoulli_has_a_smooth_gradient_through_zero() {
    // d/dl of −log C is 1/sinh(l) − 1/l = −l/6 + 7l³/360 − …, on both sides of the seam at 0.2.
    let logits = [-0.2001, -0.1999, -0.01, 0.0, 0.1, 0.1999, 0.2001, 3.0, 90.0];
    let g = Graph::new();
    let l = g.tensor(&[1, 9], &logits);
    let x = g.full(&[1, 9], 0.5);
    let nll = Likelihood::ContinuousBernoulli.nll(plain(l), x).sum_all();
    let slope = grad(nll, &[l])[0];
    let (f32s, f64s) = (Interp::<f32>::new(&g).eval(slope), Interp::<f64>::new(&g).eval(slope));
    for (i, l) in logits.into_iter().enumerate() {
        let own = if l == 0.0 { 0.0 } else { 1.0 / f64::sinh(l) - 1.0 / l };
        let exact = 1.0 / (1.0 + f64::exp(-l)) - 0.5 + own;
        assert!((f64s[i] - exact).abs() < 1e-10, "l = {l}: {} against {exact}", f64s[i]);
        assert!((f64::from(f32s[i]) - exact).abs() < 3e-6, "l = {l}: {} against {exact}", f32s[i]);
    }
}

#[test]
fn the_discretised_logistic_sums_to_one_over_the_bytes() {
    let p = Likelihood::DiscretisedLogistic { scale_floor: 0.002 };
    for (mean, r) in [(0.5, 0.0), (0.0, -3.0), (1.2, -6.0), (0.3, -50.0), (-4.0, 2.0)] {
        let g = Graph::new();
        let bytes: Vec<f64> = (0..256).map(|i| f64::from(i) / 255.0).collect();
        let x = g.tensor(&[256, 1], &bytes);
        let raw = plain(g.tensor(&[1, 2], &[mean, r]).broadcast_to(&[256, 2]));
        let nll = p.nll(raw, x);
        let slope = grad(nll.sum_all(), &[raw.values])[0];
        let mut run = Interp::<f64>::new(&g);
        let total: f64 = run.eval(nll).iter().map(|n| (-n).exp()).sum();
        assert!((total - 1.0).abs() < 1e-9, "mean {mean}, r {r}: {total}");
        let mut single = Interp::<f32>::new(&g);
        assert!(single.eval(nll).iter().all(|n| n.is_finite() && *n > -1e-6), "a probability is at most 1");
        assert!(single.eval(slope).iter().all(|d| d.is_finite()));
    }
}

#[test]
fn the_mean_of_the_discretised_logistic_is_that_of_its_bytes() {
    let p = Likelihood::DiscretisedLogistic { scale_floor: 0.002 };
    let softplus_inverse = |s: f64| (s - 0.002).exp_m1().ln();
    for scale in [0.0021, 0.01, 0.1, 1.0] {
        for location in [-0.5, -0.01, 0.0, 0.02, 0.3, 0.5, 0.97, 1.0, 1.2] {
            let g = Graph::new();
            let bytes: Vec<f64> = (0..256).map(|i| f64::from(i) / 255.0).collect();
            let one = g.tensor(&[1, 2], &[location, softplus_inverse(scale)]);
            let nll = p.nll(plain(one.broadcast_to(&[256, 2])), g.tensor(&[256, 1], &bytes));
            let mean = p.mean(plain(one));
            let mut run = Interp::<f64>::new(&g);
            let exact: f64 = run.eval(nll).iter().zip(&bytes).map(|(n, x)| x * (-n).exp()).sum();
            let found = run.eval(mean)[0];
            assert!((found - exact).abs() <= HALF_CELL, "m = {location}, s = {scale}: {found} against {exact}");
            let single = f64::from(Interp::<f32>::new(&g).eval(mean)[0]);
            assert!((single - found).abs() < 2e-6, "m = {location}, s = {scale}: {single} against {found}");
            if location == 0.0 && scale == 0.1 {
                assert!((exact - 0.1 * LN_2).abs() < 1e-4, "not the location: {exact}");
            }
        }
    }
}

#[test]
fn bits_per_dimension_only_of_probabilities() {
    let logistic = Likelihood::DiscretisedLogistic { scale_floor: 0.002 };
    assert_eq!(logistic.bits_per_dimension(8.0 * 784.0 * LN_2, 784, false), Some(8.0));
    assert_eq!(Likelihood::Bernoulli.bits_per_dimension(784.0 * LN_2, 784, true), Some(1.0));
    assert_eq!(Likelihood::Bernoulli.bits_per_dimension(100.0, 784, false), None);
    assert_eq!(Likelihood::ContinuousBernoulli.bits_per_dimension(100.0, 784, false), None);
    assert_eq!(Likelihood::Gaussian { sigma_floor: 0.1 }.bits_per_dimension(100.0, 784, false), None);
}
