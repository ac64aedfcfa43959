//! Values, first and second derivatives in f32 where naive formulas overflow, underflow or cancel.
//!
//! The truth is the same graph in f64, whose formulas `tests/gradcheck.rs` checks; a few closed forms guard against both
//! being wrong in one way. Wherever the truth is representable, f32 is finite and within [`ULPS`] units in the last
//! place, or within the absolute error that a formula is allowed by [`cancels`]. Where the truth exceeds f32, the result
//! is infinite. It is never NaN.

use elbo::engine::ops::ScalarFn;
use elbo::{Device, Graph, Interp, Key, Params, Var, grad, grad_with};

/// Error allowed for f, f′ and f″: the functions themselves are within 2.5 ulp, their products add up.
const ULPS: [f64; 3] = [4.0, 8.0, 16.0];

const POINTS: [f64; 15] =
    [0.0, 1e-6, -1e-6, 1.0, -1.0, 20.0, -20.0, 88.0, -88.0, 89.0, -89.0, 300.0, -300.0, 1e4, -1e4];

/// Absolute error of formulas that subtract nearly equal numbers by design, for the derivative of the given order.
///
/// 1 − tanh² loses its digits where tanh is nearly ±1, and so do the sums of terms of opposite sign in the derivatives of
/// SiLU and GELU. All of them are beside values of about 1 and end at 0, where an error of a
/// few 2⁻²⁴ changes no sum of gradients.
fn cancels(f: ScalarFn, order: usize) -> f64 {
    let unit = 2f64.powi(-24);
    match (f, order) {
        (ScalarFn::Tanh, 1 | 2) | (ScalarFn::Sigmoid, 2) => 4.0 * unit,
        (ScalarFn::Gelu | ScalarFn::Silu, 1 | 2) => 16.0 * unit,
        _ => 0.0,
    }
}

/// The distance of neighbouring f32 at `v`.
fn ulp(v: f64) -> f64 {
    let exponent = v.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    2f64.powf(exponent - 23.0)
}

/// What is wrong with `found` as f32 for `truth`, if anything.
fn compare(found: f32, truth: f64, ulps: f64, absolute: f64) -> Option<String> {
    if truth.abs() > f64::from(f32::MAX) {
        let same = found.is_infinite() && f64::from(found).signum() == truth.signum();
        return (!same).then(|| format!("{found}, the truth {truth:e} exceeds f32"));
    }
    let error = (f64::from(found) - truth).abs();
    let allowed = ulps * ulp(truth) + absolute;
    // Not `error > allowed`, which is false for NaN.
    (!matches!(error.partial_cmp(&allowed), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)))
        .then(|| format!("{found:e}, truth {truth:e}, off by {:.1} ulp", error / ulp(truth)))
}

/// y and its first two derivatives in the scalar `x`.
fn derivatives<'g>(x: Var<'g>, y: Var<'g>) -> [Var<'g>; 3] {
    let d1 = grad(y, &[x])[0];
    [y, d1, grad(d1, &[x])[0]]
}

/// The value of `of` at x = `at` in f32 and in f64, for one and the same argument.
fn both<'g>(x: Var<'g>, at: f64, of: Var<'g>) -> (f32, f64) {
    let (g, at) = (x.graph(), f64::from(at as f32));
    let (mut single, mut double) = (Interp::<f32>::new(g), Interp::<f64>::new(g));
    single.set_input(x, &[at]);
    double.set_input(x, &[at]);
    (single.eval(of)[0], double.eval(of)[0])
}

#[test]
fn every_row_of_the_table_and_its_derivatives() {
    let mut failed = Vec::new();
    let mut compared = 0;
    for &f in ScalarFn::ALL {
        let g = Graph::new();
        let x = g.input(&[]);
        let orders = derivatives(x, x.map(f));
        for at in POINTS {
            for (order, &y) in orders.iter().enumerate() {
                let (found, truth) = both(x, at, y);
                if order == 0 && !truth.is_finite() && !f.name().starts_with("exp") {
                    break; // outside the domain: log, log1p, sqrt
                }
                if let Some(problem) = compare(found, truth, ULPS[order], cancels(f, order)) {
                    failed.push(format!("{}, order {order}, at {at:e}: {problem}", f.name()));
                }
                compared += 1;
                if truth.is_infinite() {
                    break; // an end of the domain: √x has no slope at 0
                }
            }
        }
    }
    assert!(compared > 500, "{compared} comparisons");
    assert!(failed.is_empty(), "{} failures\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn closed_forms_far_out() {
    let sigmoid_at_minus_20 = 1.0 / (1.0 + 20f64.exp());
    let table: [(ScalarFn, f64, [f64; 3]); 14] = [
        (ScalarFn::Softplus, 1e4, [1e4, 1.0, 0.0]),
        (ScalarFn::Softplus, -1e4, [0.0, 0.0, 0.0]),
        (ScalarFn::Softplus, 0.0, [2f64.ln(), 0.5, 0.25]),
        (
            ScalarFn::Softplus,
            -20.0,
            [(-20f64).exp().ln_1p(), sigmoid_at_minus_20, sigmoid_at_minus_20.powi(2) * 20f64.exp()],
        ),
        (ScalarFn::Sigmoid, 300.0, [1.0, 0.0, 0.0]),
        (ScalarFn::Sigmoid, -300.0, [0.0, 0.0, 0.0]),
        (ScalarFn::Sigmoid, 0.0, [0.5, 0.25, 0.0]),
        (ScalarFn::Tanh, 300.0, [1.0, 0.0, 0.0]),
        (ScalarFn::Tanh, 0.0, [0.0, 1.0, 0.0]),
        (ScalarFn::Silu, -1e4, [0.0, 0.0, 0.0]),
        (ScalarFn::Silu, 1e4, [1e4, 1.0, 0.0]),
        (ScalarFn::Gelu, 1e4, [1e4, 1.0, 0.0]),
        (ScalarFn::Gelu, -1e4, [0.0, 0.0, 0.0]),
        (ScalarFn::Log1p, 1e-6, [f64::from(1e-6f32).ln_1p(), 1.0 / 1.000_001, -1.0 / 1.000_001f64.powi(2)]),
    ];
    for (f, at, truths) in table {
        let g = Graph::new();
        let x = g.input(&[]);
        for (order, (y, truth)) in derivatives(x, x.map(f)).into_iter().zip(truths).enumerate() {
            let (single, double) = both(x, at, y);
            let problem = compare(single, truth, ULPS[order], 0.0);
            assert!(problem.is_none(), "{}, order {order}, at {at}: {}", f.name(), problem.unwrap());
            assert!(
                (double - truth).abs() <= 1e-14 * truth.abs() + 1e-100,
                "{}, order {order}, at {at}: {double}",
                f.name()
            );
        }
    }
}

/// e^−300 and e^−10000 are 0 in f32, so that a row of ±1e4 shows whether the maximum was taken out.
#[test]
fn log_sum_exp_of_huge_numbers() {
    let rows: [([f64; 3], f64, [f64; 3]); 5] = [
        ([1e4, 1e4, 1e4], 1e4 + 3f64.ln(), [1.0 / 3.0; 3]),
        ([-1e4, -1e4, -1e4], -1e4 + 3f64.ln(), [1.0 / 3.0; 3]),
        ([1e4, -1e4, 0.0], 1e4, [1.0, 0.0, 0.0]),
        (
            [-1e4, -1e4 - 1.0, -2e4],
            -1e4 + (-1f64).exp().ln_1p(),
            [0.731_058_578_630_004_9, 0.268_941_421_369_995_1, 0.0],
        ),
        ([1e-6, -1e-6, 0.0], 3f64.ln(), [1.0 / 3.0; 3]),
    ];
    for (values, truth, weights) in rows {
        let g = Graph::new();
        let x = g.input(&[3]);
        let y = x.log_sum_exp(&[0]);
        let d = grad(y, &[x])[0];
        let curvature = grad((d * g.tensor(&[3], &[1.0, -2.0, 0.5])).sum_all(), &[x])[0];
        let mut run = Interp::<f32>::new(&g);
        run.set_input(x, &values);
        let found = run.eval(y)[0];
        assert!(compare(found, truth, 2.0, 1e-6).is_none(), "{values:?}: {found} instead of {truth}");
        for (w, truth) in run.eval(d).iter().zip(weights) {
            assert!(compare(*w, truth, 4.0, 1e-6).is_none(), "{values:?}: {w} instead of {truth}");
        }
        let mean = weights[0] - 2.0 * weights[1] + 0.5 * weights[2];
        for ((h, w), u) in run.eval(curvature).iter().zip(weights).zip([1.0, -2.0, 0.5]) {
            let truth = w * (u - mean);
            assert!(compare(*h, truth, 8.0, 1e-6).is_none(), "{values:?}: {h} instead of {truth}");
        }
    }
}

/// A row of logits, its softmax p and ln p to f32's last places, also where every e^x overflows or underflows; and both
/// gradients of dy = (1, −2, 0.5): p (dy − Σ p dy), and dy − p Σ dy.
#[test]
fn softmax_of_huge_numbers() {
    const DY: [f64; 3] = [1.0, -2.0, 0.5];
    for values in [
        [0.0, 1.0, -1.0],
        [300.0, -300.0, 299.0],
        [-300.0, -300.5, -301.0],
        [1e4, 1e4, 1e4],
        [1e4, -1e4, 0.0],
        [-1e4, -1e4 - 1.0, -2e4],
        [1e-6, -1e-6, 0.0],
        [f64::NEG_INFINITY, 2.0, 3.0],
    ] {
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = values.iter().map(|x| (x - most).exp()).sum();
        let log_p = values.map(|x| (x - most) - sum.ln());
        let p = log_p.map(f64::exp);
        let mean: f64 = p.iter().zip(DY).map(|(p, dy)| p * dy).sum();
        let total: f64 = DY.iter().sum();
        let g = Graph::new();
        let x = g.buffer("x", &[3]);
        let (y, z) = (x.softmax(0), x.log_softmax(0));
        let dy = g.tensor(&[3], &DY);
        let [slope, log_slope] = [y, z].map(|y| grad_with(y, dy, &[x])[0]);
        let results = [y, z, slope, log_slope];
        let (mut single, mut double) = (Interp::<f32>::new(&g), Interp::<f64>::new(&g));
        single.set("x", &values).unwrap();
        double.set("x", &values).unwrap();
        let kernels = on_the_cpu(&g, &values.map(|v| v as f32), results);
        for i in 0..3 {
            let truths = [p[i], log_p[i], p[i] * (DY[i] - mean), DY[i] - p[i] * total];
            for (n, (what, truth)) in results.into_iter().zip(truths).enumerate() {
                // ln p is as exact as its largest term, and a gradient as the terms that are subtracted.
                for found in [single.eval(what)[i], kernels[n][i]] {
                    let problem = compare(found, truth, 8.0, 4.0 * f64::from(f32::EPSILON));
                    assert!(problem.is_none(), "{values:?}[{i}], result {n}: {}", problem.unwrap());
                }
                let exact = double.eval(what)[i];
                assert!(exact == truth || (exact - truth).abs() <= 1e-14 * (1.0 + truth.abs()), "{exact} {truth}");
            }
        }
    }
}

/// The values of `results` by the CPU's kernels, where the buffer `x` is `values`.
fn on_the_cpu<'g, const N: usize>(g: &'g Graph, values: &[f32], results: [Var<'g>; N]) -> [Vec<f32>; N] {
    let executor = Device::Cpu { threads: 1 }.open().unwrap();
    let mut f = executor.compile(g, results).unwrap();
    let mut state = executor.state(&Params::of(g), 0).unwrap();
    state.write("x", values).unwrap();
    f.call(&mut state, Key::new(0), &[]).unwrap()
}

/// A row whose largest logit is infinite is no distribution: NaN, and the rows beside it are not touched.
#[test]
fn softmax_of_a_row_without_a_distribution() {
    let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
    let rows = [[low, low], [high, 1.0], [f64::NAN, 0.0], [low, 5.0]];
    let g = Graph::new();
    let x = g.buffer("x", &[4, 2]);
    let values = [x.softmax(1), x.log_softmax(1)];
    let mut run = Interp::<f32>::new(&g);
    run.set("x", &rows.concat()).unwrap();
    let kernels = on_the_cpu(&g, &rows.concat().iter().map(|&v| v as f32).collect::<Vec<_>>(), values);
    for (n, last) in [[0.0, 1.0], [low, 0.0]].into_iter().enumerate() {
        for found in [&run.eval(values[n]), &kernels[n]] {
            assert!(found[..6].iter().all(|v| v.is_nan()), "{found:?}");
            assert_eq!([f64::from(found[6]), f64::from(found[7])], last);
        }
    }
}

/// −log p(x|l) = softplus(l) − x·l, d/dl = σ(l) − x, d²/dl² = σ(l)σ(−l).
///
/// For x = 1 and large l the two terms of the loss agree in all their digits, and so do σ(l) and x in the gradient: the
/// absolute error is the last place of |l|, and of 1. The second derivative does not cancel.
#[test]
fn cross_entropy_on_logits() {
    for pixel in [0.0, 0.25, 0.5, 1.0] {
        let g = Graph::new();
        let l = g.input(&[]);
        let orders = derivatives(l, l.softplus() - l * pixel);
        for at in POINTS {
            let at = f64::from(at as f32);
            let tail = (-at.abs()).exp();
            let sigmoid = if at >= 0.0 { 1.0 / (1.0 + tail) } else { tail / (1.0 + tail) };
            let loss = if pixel == 1.0 { (-at).max(0.0) } else { at.max(0.0) - pixel * at } + tail.ln_1p();
            let truths = [loss, sigmoid - pixel, tail / (1.0 + tail).powi(2)];
            let absolute = [ulp(at), 2f64.powi(-23), 0.0];
            for (order, &y) in orders.iter().enumerate() {
                let problem = compare(both(l, at, y).0, truths[order], ULPS[order], absolute[order]);
                assert!(problem.is_none(), "pixel {pixel}, logit {at}, order {order}: {}", problem.unwrap());
            }
        }
    }
}

/// SiLU and GELU are x·σ(v), and both have a tail that is small and not 0: no digit may be lost by cancellation. The
/// function is as sensitive to the rounding of v as e^v is, by a factor |v|; SiLU's v = x is exact, GELU's is rounded a
/// few times.
#[test]
fn tails_of_silu_and_gelu() {
    for (f, per_v, from) in [(ScalarFn::Silu, 0.0, -100.0), (ScalarFn::Gelu, 3.0, -10.5)] {
        let (mut worst, mut at_worst) = (0.0, 0.0);
        for i in 0..20_000 {
            let x = (from + (8.0 - from) * f64::from(i) / 20_000.0) as f32;
            let at = f64::from(x);
            let v = if f == ScalarFn::Silu {
                at
            } else {
                2.0 * (2.0 / std::f64::consts::PI).sqrt() * (at + 0.044715 * at.powi(3))
            };
            let truth = at * if v > 0.0 { 1.0 / (1.0 + (-v).exp()) } else { v.exp() / (1.0 + v.exp()) };
            let error = (f64::from(f.eval(x)) - truth).abs() / ulp(truth) / (4.5 + per_v * v.abs());
            if error > worst {
                (worst, at_worst) = (error, x);
            }
        }
        println!("{}: {worst:.2} of what is allowed, at {at_worst}", f.name());
        assert!(worst <= 1.0, "{}({at_worst}): {worst:.2} times what is allowed", f.name());
    }
}

/// Their slopes keep their sign and most digits in the tail, where 1 − tanh² and 1 + tanh had none.
#[test]
fn slopes_in_the_tails_of_silu_and_gelu() {
    for (f, points) in [(ScalarFn::Silu, [-5.0, -12.0, -40.0, -80.0]), (ScalarFn::Gelu, [-4.0, -5.5, -7.0, -9.0])] {
        let g = Graph::new();
        let x = g.input(&[]);
        let slope = derivatives(x, x.map(f))[1];
        for at in points {
            let (found, truth) = both(x, at, slope);
            assert!((f64::from(found) / truth - 1.0).abs() < 5e-5, "{}′({at}) = {found:e}, not {truth:e}", f.name());
        }
    }
}

/// KL(N(μ, e^lv) ‖ N(0, 1)) = ½(μ² + expm1mx(lv)): golden values, and value, gradient and curvature everywhere, also near
/// lv = 0, where e^lv − 1 and lv agree in all their digits.
#[test]
fn divergence_from_the_prior() {
    let kl = |mu: Var<'_>, lv: Var<'_>| -> f64 {
        let y = elbo::vae::kl_to_standard_normal(mu, lv);
        Interp::<f64>::new(y.graph()).eval(y)[0]
    };
    for (mu, lv, truth) in
        [(1.0, 0.0, 0.5), (0.0, 4f64.ln(), 0.806_852_819_440_054_7), (0.5, -1.0, 0.308_939_720_585_721_17)]
    {
        let g = Graph::new();
        let found = kl(g.tensor(&[], &[mu]), g.tensor(&[], &[lv]));
        assert!((found - truth).abs() < 1e-15, "KL({mu}, {lv}) = {found}, not {truth}");
    }
    let g = Graph::new();
    let lv = g.input(&[]);
    let orders = derivatives(lv, lv.expm1mx()); // twice the KL, so that ½·∞ is no question
    for at in POINTS {
        let at = f64::from(at as f32);
        // Without cancellation in f64 either: the series' first terms are enough below 1e-3.
        let near = 0.5 * at * at * (1.0 + at / 3.0 + at * at / 12.0);
        let truths = [if at.abs() < 1e-3 { near } else { at.exp_m1() - at }, at.exp_m1(), at.exp()];
        for (order, &y) in orders.iter().enumerate() {
            let (found, double) = both(lv, at, y);
            let problem = compare(found, truths[order], ULPS[order], 0.0);
            assert!(problem.is_none(), "lv = {at}, order {order}: {}", problem.unwrap());
            assert!(!double.is_nan());
        }
    }
}

#[test]
fn the_comparison_notices() {
    assert!(compare(f32::NAN, 1.0, 1e9, 1e9).is_some());
    assert!(compare(f32::INFINITY, 1.0, 1e9, 1e9).is_some());
    assert!(compare(3e38, 1e39, 1e9, 1e9).is_some());
    assert!(compare(f32::NEG_INFINITY, 1e39, 1.0, 0.0).is_some());
    assert!(compare(1.0 + 9.0 * f32::EPSILON, 1.0, 8.0, 0.0).is_some());
    assert!(compare(1.0 + 7.0 * f32::EPSILON, 1.0, 8.0, 0.0).is_none());
    assert!(compare(f32::INFINITY, 1e39, 1.0, 0.0).is_none());
    assert!(compare(0.0, 0.0, 0.0, 0.0).is_none());
}
