//! The bounds and the estimators of their gradients on the linear Gaussian model, where everything is known.
//!
//! One suite of checks is run on the engine in f64 (interpreter), in f32 (plan, CPU) and on CUDA (emulated or real);
//! and on three well-known mistakes, each of which it must refuse.
//!
//! Model: z ~ N(0, I_2), x|z ~ N(W z + μ, ½ I_3), the golden vector of tests/ppca.rs, with q(z|x) = N(m, diag d) that is
//! not the posterior. L_1 and its gradients are known in closed form; L_5 has none, and is compared with finite
//! differences of a few lines of plain Rust that share nothing with the engine.

mod common;

use std::collections::BTreeMap;

use elbo::engine::device::{Call, Executor, Key, Precision, Schedule};
use elbo::engine::nn::Activation;
use elbo::engine::rng::Draw;
use elbo::vae::{
    BETA, Bound, BoundKind, DiagonalGaussian, Estimator, KlTerm, Likelihood, Vae, VaeConfig, bound_gradients,
};
use elbo::{Cpu, Graph, Interp, Var, grad};

const D: usize = 3;
const K: usize = 2;
const X: [f64; D] = [0.7, 0.4, -1.1];
const MEANS: [f64; D] = [0.1, -0.2, 0.3];
/// As the decoder stores it, `[K, D]`.
const W: [f64; K * D] = [1.0, 0.0, 2.0, 0.5, -1.0, 0.25];
const VARIANCE: f64 = 0.5;
const M: [f64; K] = [0.2, -0.3];
const SPREAD: [f64; K] = [0.3, 0.6];
const FLOOR: f64 = 0.1;

const LOG_PX: f64 = -5.268787639681589;
const ELBO: f64 = -7.745119042820065;

/// The outputs of a graph of the suite with their sizes: the value per image, then gradients of it.
const OUTPUTS: [(&str, usize); 6] = [("value", 1), ("dm", K), ("dlv", K), ("dW", K * D), ("dmu", D), ("dr", 1)];

fn model() -> Vae {
    let config = VaeConfig {
        image: [1, D],
        activation: Activation::Identity,
        likelihood: Likelihood::gaussian_shared(FLOOR),
        ..VaeConfig::new(K).hidden(&[])
    };
    Vae::new(config).unwrap()
}

/// softplus⁻¹(σ − floor).
fn raw_sigma(sigma: f64) -> f64 {
    (sigma - FLOOR).exp_m1().ln()
}

/// The parameters: an encoder that says the same of every image, and the golden decoder.
fn parameters() -> Named {
    let q: Vec<f64> = M.iter().copied().chain(SPREAD.map(f64::ln)).collect();
    vec![
        ("encoder.heads.weight", vec![0.0; D * 2 * K]),
        ("encoder.heads.bias", q),
        ("decoder.mu.weight", W.to_vec()),
        ("decoder.mu.bias", MEANS.to_vec()),
        ("decoder.sigma", vec![raw_sigma(VARIANCE.sqrt())]),
    ]
}

/// What is checked: value per image and gradients, all of what is *maximised*.
type Estimate<'g> = (Var<'g>, Vec<Var<'g>>, Vec<Var<'g>>);

/// The [`OUTPUTS`] of the estimate for `rows` copies of x.
fn outputs<'g>(g: &'g Graph, rows: usize, build: impl FnOnce(&Vae, Var<'g>) -> Estimate<'g>) -> [Var<'g>; 6] {
    let x: Vec<f64> = X.iter().copied().cycle().take(rows * D).collect();
    let (value, phi, theta) = build(&model(), g.tensor(&[rows, D], &x));
    let heads = phi[1].reshape(&[1, 2 * K]);
    [value.reshape(&[1]), heads.slice_cols(0, K), heads.slice_cols(K, K), theta[0], theta[1], theta[2]]
}

/// The engine's own estimate of a bound.
fn engine(bound: Bound) -> impl for<'g> Fn(&Vae, Var<'g>) -> Estimate<'g> {
    move |vae, x| {
        bound.validate(&vae.config).unwrap();
        let rows = x.shape()[0] as f64;
        let step = bound_gradients(vae, &bound, x);
        let up = |d: &[_]| d.iter().map(|&d: &Var| -d).collect();
        (step.loss * (-1.0 / rows), up(&step.encoder), up(&step.decoder))
    }
}

/// Who runs the graph.
#[derive(Clone, Copy, PartialEq)]
enum Machine {
    Interp64,
    Cpu32,
    Cuda32,
}

/// Mean and standard error by output.
type Estimated = BTreeMap<String, Vec<(f64, f64)>>;

/// Mean and standard error of every output over `steps` runs with fresh noise, of `rows` copies of x each; `None` where
/// CUDA is skipped.
fn estimate(
    (rows, build): (usize, impl for<'g> Fn(&Vae, Var<'g>) -> Estimate<'g>),
    parameters: &Named,
    machine: Machine,
    steps: u32,
    seed: u64,
    beta: f64,
) -> Option<Estimated> {
    let executor = match machine {
        Machine::Interp64 => Executor::reference(),
        Machine::Cpu32 => Executor::new(Cpu::new(2)),
        Machine::Cuda32 => common::on_cuda(Precision::F32)?,
    };
    let g = Graph::new();
    let mut f = executor.compile(&g, outputs(&g, rows, build)).unwrap();
    let mut state = executor.state(&model().params(), 0).unwrap();
    for (name, values) in parameters {
        state.write(name, &values.iter().map(|&v| v as f32).collect::<Vec<_>>()).unwrap();
    }
    let mut runs: [Vec<Vec<f32>>; 6] = Default::default();
    for step in 0..steps {
        let schedules: &[(&str, Schedule)] = &[(BETA, &|_| beta)];
        f.run(&mut state, &Call { schedules, ..Call::once(Key { seed, step }) }).unwrap();
        runs.iter_mut().zip(f.values().unwrap()).for_each(|(all, values)| all.push(values));
    }
    let summary = OUTPUTS.iter().zip(runs).map(|(&(name, size), runs)| {
        let column = |i: usize| mean_and_error(runs.iter().map(move |run| f64::from(run[i])));
        (name.into(), (0..size).map(column).collect())
    });
    Some(summary.collect())
}

/// The mean and its standard error.
fn mean_and_error(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// The expectations: value and gradients of L_1 in closed form, of L_k by finite differences with common noise, with
/// their standard errors.
fn exact(k: usize, beta: f64) -> BTreeMap<String, Vec<(f64, f64)>> {
    if k == 1 && beta == 1.0 {
        let rest: Vec<f64> =
            (0..D).map(|i| X[i] - MEANS[i] - (0..K).map(|j| W[j * D + i] * M[j]).sum::<f64>()).collect();
        let norm = |j: usize| (0..D).map(|i| W[j * D + i].powi(2)).sum::<f64>();
        let dm = (0..K).map(|j| (0..D).map(|i| W[j * D + i] * rest[i]).sum::<f64>() / VARIANCE - M[j]);
        let dlv = (0..K).map(|j| 0.5 * (1.0 - SPREAD[j]) - 0.5 * SPREAD[j] * norm(j) / VARIANCE);
        let dw = (0..K * D).map(|e| (rest[e % D] * M[e / D] - W[e] * SPREAD[e / D]) / VARIANCE);
        let scatter: f64 = (0..K).map(|j| SPREAD[j] * norm(j)).sum();
        let square: f64 = rest.iter().map(|r| r * r).sum();
        let dr = (0.5 * (square + scatter) / VARIANCE - 0.5 * D as f64) * ln_variance_by_raw();
        let lists: [(&str, Vec<f64>); 6] = [
            ("value", vec![ELBO]),
            ("dm", dm.collect()),
            ("dlv", dlv.collect()),
            ("dW", dw.collect()),
            ("dmu", rest.iter().map(|r| r / VARIANCE).collect()),
            ("dr", vec![dr]),
        ];
        return lists.into_iter().map(|(n, v)| (n.into(), v.into_iter().map(|v| (v, 0.0)).collect())).collect();
    }
    let start: Vec<f64> = [&M[..], &SPREAD.map(f64::ln), &W, &MEANS, &[raw_sigma(VARIANCE.sqrt())]].concat();
    let sets = 60_000;
    let mut columns = vec![Vec::with_capacity(sets); 1 + start.len()];
    for set in 0..sets as u32 {
        let draw = Draw { seed: 99, step: set, stream: 0 };
        let noise: Vec<f64> = (0..(k * K) as u64).map(|i| f64::from(draw.normal(i))).collect();
        columns[0].push(plain_bound(&start, &noise, beta));
        for p in 0..start.len() {
            let at = |h: f64| {
                let mut moved = start.clone();
                moved[p] += h;
                plain_bound(&moved, &noise, beta)
            };
            columns[1 + p].push((at(1e-5) - at(-1e-5)) / 2e-5);
        }
    }
    let mut all = columns.iter().map(|c| mean_and_error(c.iter().copied()));
    OUTPUTS.iter().map(|&(name, size)| (name.into(), all.by_ref().take(size).collect())).collect()
}

/// d ln σ²/dr for σ = floor + softplus(r).
fn ln_variance_by_raw() -> f64 {
    let sigma = VARIANCE.sqrt();
    2.0 / sigma / (1.0 + (-raw_sigma(sigma)).exp())
}

/// log (1/k) Σ w_i, log w_i = log p(x|z_i) + β (log p(z_i) − log q(z_i|x)), for z_i = m + √d·ε_i, in plain numbers: [m, ln d, W, μ, r] and ε `[k, K]`.
fn plain_bound(p: &[f64], noise: &[f64], beta: f64) -> f64 {
    let (m, lv, w, mu) = (&p[..K], &p[K..2 * K], &p[2 * K..2 * K + K * D], &p[2 * K + K * D..][..D]);
    let sigma = FLOOR + p[p.len() - 1].exp().ln_1p();
    let ln_normal = |e: f64| -0.5 * e * e - 0.5 * (2.0 * std::f64::consts::PI).ln();
    let logs: Vec<f64> = noise
        .chunks_exact(K)
        .map(|e| {
            let z: Vec<f64> = (0..K).map(|j| m[j] + (0.5 * lv[j]).exp() * e[j]).collect();
            let pixel = |i: usize| {
                let mean = mu[i] + (0..K).map(|j| w[j * D + i] * z[j]).sum::<f64>();
                ln_normal((X[i] - mean) / sigma) - sigma.ln()
            };
            let ratio = |j: usize| ln_normal(z[j]) - (ln_normal(e[j]) - 0.5 * lv[j]);
            (0..D).map(pixel).sum::<f64>() + beta * (0..K).map(ratio).sum::<f64>()
        })
        .collect();
    let top = logs.iter().copied().fold(f64::MIN, f64::max);
    top + (logs.iter().map(|l| (l - top).exp()).sum::<f64>() / logs.len() as f64).ln()
}

/// Compares estimates with expectations: every number within five standard errors of both, or an answer that names the
/// first one that is not. With `only`, some of the outputs.
fn compare(
    found: &BTreeMap<String, Vec<(f64, f64)>>,
    expected: &BTreeMap<String, Vec<(f64, f64)>>,
    only: &[&str],
    rounding: f64,
) -> Result<(), String> {
    for (name, size) in OUTPUTS {
        if !only.is_empty() && !only.contains(&name) {
            continue;
        }
        for i in 0..size {
            let ((f, ef), (e, ee)) = (found[name][i], expected[name][i]);
            let allowed = 5.0 * (ef * ef + ee * ee).sqrt() + rounding * e.abs().max(1.0);
            if (f - e).abs() > allowed || !f.is_finite() {
                return Err(format!("{name}[{i}] is {f}, expected {e}, allowed {allowed}"));
            }
        }
    }
    Ok(())
}

/// The suite: the estimate of L_k has the right value, lies below log p(x), and has the right gradients.
fn suite(k: usize, machine: Machine, build: impl for<'g> Fn(&Vae, Var<'g>) -> Estimate<'g>) -> Result<(), String> {
    let (rows, steps) = if machine == Machine::Cuda32 { (150, 12) } else { (1500, 40) };
    let Some(found) = estimate((rows, build), &parameters(), machine, steps, 7, 1.0) else { return Ok(()) };
    let (value, error) = found["value"][0];
    if value > LOG_PX + 5.0 * error {
        return Err(format!("the bound {value} lies above log p(x) = {LOG_PX}"));
    }
    compare(&found, &exact(k, 1.0), &[], if machine == Machine::Interp64 { 1e-9 } else { 2e-5 })
}

fn bounds() -> Vec<Bound> {
    let elbo = |estimator, samples| Bound { kl: KlTerm::MonteCarlo, estimator, samples, ..Bound::ELBO };
    vec![
        Bound::ELBO,
        Bound { samples: 3, ..Bound::ELBO },
        elbo(Estimator::Total, 1),
        elbo(Estimator::Total, 4),
        elbo(Estimator::StickingTheLanding, 1),
        elbo(Estimator::ScoreFunction, 2),
        elbo(Estimator::ScoreFunctionBaseline, 1),
        elbo(Estimator::ScoreFunctionBaseline, 4),
        Bound::iwae(1),
        Bound::iwae(5),
        Bound { estimator: Estimator::DoublyReparameterised, ..Bound::iwae(5) },
    ]
}

fn order(bound: &Bound) -> usize {
    if bound.kind == BoundKind::Iwae { bound.samples } else { 1 }
}

#[test]
fn every_estimator_is_right_in_f64() {
    for bound in bounds() {
        suite(order(&bound), Machine::Interp64, engine(bound)).unwrap_or_else(|e| panic!("{bound}: {e}"));
    }
}

#[test]
fn every_estimator_is_right_in_a_plan() {
    for bound in bounds() {
        suite(order(&bound), Machine::Cpu32, engine(bound)).unwrap_or_else(|e| panic!("{bound}: {e}"));
    }
}

#[test]
fn every_estimator_is_right_on_cuda() {
    for bound in bounds() {
        suite(order(&bound), Machine::Cuda32, engine(bound)).unwrap_or_else(|e| panic!("{bound}: {e}"));
    }
}

/// A weight β of the KL term is in log w, and so in the score that the estimators treat differently.
#[test]
fn the_gradients_of_a_weighted_bound_are_right() {
    for beta in [0.3, 2.0] {
        let expected = exact(5, beta);
        for estimator in [Estimator::Total, Estimator::DoublyReparameterised] {
            let build = engine(Bound { estimator, ..Bound::iwae(5) });
            let found = estimate((1500, build), &parameters(), Machine::Interp64, 40, 7, beta).unwrap();
            compare(&found, &expected, &[], 1e-9).unwrap_or_else(|e| panic!("β = {beta}, {estimator}: {e}"));
        }
    }
}

/// The mistakes. Each is the importance weighted bound with one thing wrong, as found in the wild.
#[derive(Clone, Copy)]
enum Mistake {
    None,
    /// Σ w̃_i log w_i with the weights w̃ not taken as constants.
    WeightsNotDetached,
    /// log w with −log p(x|z) where log p(x|z) belongs: the worst draws get the largest weights.
    ReconstructionSign,
    /// z = m + lv·ε: the noise scaled by the log-variance.
    NoiseByLogVariance,
}

fn with_mistake(mistake: Mistake, k: usize) -> impl for<'g> Fn(&Vae, Var<'g>) -> Estimate<'g> {
    move |vae, x| {
        let g = x.graph();
        let rows = x.shape()[0];
        let first = vae.encoder.apply(x);
        let q = first.repeated(k);
        let noise = g.normal(&q.mu.shape(), 1);
        let z = match mistake {
            Mistake::NoiseByLogVariance => q.mu + q.logvar * noise,
            _ => q.sample(noise),
        };
        let w = vae.log_weights(x, first, &[z], false, true);
        let log_w = match mistake {
            Mistake::ReconstructionSign => w.prior - w.posterior - w.likelihood,
            _ => w.log_weight(None),
        };
        let value = (log_w.log_sum_exp(&[0]) - (k as f64).ln()).sum_all() * (1.0 / rows as f64);
        let weights = (log_w - log_w.max_keep(&[0]).stop_gradient()).exp();
        let weights = weights / weights.sum_keep(&[0]);
        let weights = if matches!(mistake, Mistake::WeightsNotDetached) { weights } else { weights.stop_gradient() };
        let surrogate = (weights * log_w).sum_all() * (1.0 / rows as f64);
        (value, grad(surrogate, &vae.encoder_params(g)), grad(surrogate, &vae.decoder_params(g)))
    }
}

/// The suite must be able to tell: the same code without a mistake passes, and with each of the three it fails.
#[test]
fn wrong_importance_weighting_is_refused() {
    let run = |mistake| suite(5, Machine::Interp64, with_mistake(mistake, 5));
    run(Mistake::None).unwrap();
    let failures =
        [(Mistake::WeightsNotDetached, "d"), (Mistake::ReconstructionSign, ""), (Mistake::NoiseByLogVariance, "")];
    for (mistake, starts) in failures {
        let answer = run(mistake).expect_err("the suite must refuse a wrong gradient");
        assert!(answer.starts_with(starts), "{answer}");
    }
}

/// L_1 ≤ L_2 ≤ … ≤ log p(x), and the gap log p(x) − L_1 is the golden KL(q ‖ p(z|x)).
#[test]
fn the_bounds_are_in_order() {
    let mut last: Option<(usize, f64, f64)> = None;
    for k in [1, 2, 5, 20, 100] {
        let build = engine(Bound::iwae(k));
        let found = estimate((4000 / k, build), &parameters(), Machine::Cpu32, 60, 3, 1.0).unwrap();
        let (value, error) = found["value"][0];
        if let Some((before, lower, its_error)) = last {
            let apart = 3.0 * (error * error + its_error * its_error).sqrt();
            assert!(value > lower + apart, "L_{before} = {lower}, L_{k} = {value}, which is not above it by {apart}");
        } else {
            assert!((LOG_PX - value - 2.4763314031384756).abs() < 5.0 * error, "{value}");
        }
        assert!(value < LOG_PX + 3.0 * error, "L_{k} = {value} ± {error}");
        last = Some((k, value, error));
    }
}

/// Per-image gradients with respect to the mean and log-variance of q: `[rows, K]` each.
fn per_image<'g>(vae: &Vae, g: &'g Graph, rows: usize, q: ([f64; K], [f64; K]), frozen: bool) -> [Var<'g>; 2] {
    let repeat = |row: &[f64]| row.iter().copied().cycle().take(rows * row.len()).collect::<Vec<_>>();
    let x = g.tensor(&[rows, D], &repeat(&X));
    let (mu, logvar) = (g.tensor(&[rows, K], &repeat(&q.0)), g.tensor(&[rows, K], &repeat(&q.1.map(f64::ln))));
    let first = DiagonalGaussian { mu, logvar };
    let z = first.sample(g.normal(&[rows, K], 1));
    let log_w = vae.log_weights(x, first, &[z], frozen, false).log_weight(None);
    let d = grad(log_w.sum_all(), &[mu, logvar]);
    [d[0], d[1]]
}

/// Values by parameter.
type Named = Vec<(&'static str, Vec<f64>)>;

/// W with orthogonal columns, so that the posterior is diagonal: its mean and variances.
fn diagonal() -> (Named, [f64; K], [f64; K]) {
    let w = [1.0, 0.0, 2.0, 0.4, -1.0, -0.2];
    let mut all = parameters();
    all[2].1 = w.to_vec();
    let m_diagonal = [0, 1].map(|j| (0..D).map(|i| w[j * D + i] * w[j * D + i]).sum::<f64>() + VARIANCE);
    let mean = [0, 1].map(|j| (0..D).map(|i| w[j * D + i] * (X[i] - MEANS[i])).sum::<f64>() / m_diagonal[j]);
    (all, mean, m_diagonal.map(|m| VARIANCE / m))
}

/// At the posterior: sticking the landing leaves nothing to chance, the full Monte Carlo gradient has variance σ⁻² in
/// the mean and ½ in the log-variance, and with the KL in closed form it is (σ⁻¹ − σ)², in between.
#[test]
fn at_the_posterior_sticking_the_landing_is_exactly_zero() {
    let vae = model();
    let (parameters, mean, spread) = diagonal();
    let rows = 40_000;
    let run = |g: &Graph, vars: [Var<'_>; 2]| -> [Vec<f64>; 2] {
        let mut run = Interp::<f64>::new(g);
        for (name, values) in &parameters {
            if g.slots().iter().any(|s| s.name == *name) {
                run.set(name, values).unwrap();
            }
        }
        vars.map(|v| run.eval(v))
    };
    let column = |values: &[f64], j: usize| values.iter().skip(j).step_by(K).copied().collect::<Vec<f64>>();
    let variance = |values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64
    };

    let g = Graph::new();
    let frozen = per_image(&vae, &g, rows, (mean, spread), true);
    for d in run(&g, frozen) {
        assert!(d.iter().all(|v| v.abs() < 1e-12), "largest {}", d.iter().fold(0.0f64, |a, v| a.max(v.abs())));
    }

    let g = Graph::new();
    let total = per_image(&vae, &g, rows, (mean, spread), false);
    let [dm, dlv] = run(&g, total);
    for (j, spread) in spread.into_iter().enumerate() {
        let (vm, vl) = (variance(column(&dm, j)), variance(column(&dlv, j)));
        assert!((vm * spread - 1.0).abs() < 0.04, "σ⁻² = {}, found {vm}", 1.0 / spread);
        assert!((vl - 0.5).abs() < 0.02, "½, found {vl}");
    }

    // KL in closed form: only log p(x|z) is sampled.
    let g = Graph::new();
    let repeat = |row: &[f64]| row.iter().copied().cycle().take(rows * row.len()).collect::<Vec<_>>();
    let x = g.tensor(&[rows, D], &repeat(&X));
    let (mu, logvar) = (g.tensor(&[rows, K], &repeat(&mean)), g.tensor(&[rows, K], &repeat(&spread.map(f64::ln))));
    let q = DiagonalGaussian { mu, logvar };
    let z = q.sample(g.normal(&[rows, K], 1));
    let elbo = vae.log_likelihood(x, z).sum_all() - q.kl().sum_all();
    let dm = grad(elbo, &[mu])[0];
    let [dm, _] = run(&g, [dm, dm]);
    for (j, spread) in spread.into_iter().enumerate() {
        let (found, sigma) = (variance(column(&dm, j)), spread.sqrt());
        let expected = (1.0 / sigma - sigma).powi(2);
        assert!((found / expected - 1.0).abs() < 0.04, "(1/σ − σ)² = {expected}, found {found}");
        assert!(found < 1.0 / spread);
    }
}

/// f(z) = z², z ~ N(μ, σ²): pathwise variance 4σ² in μ and 4μ² + 8σ² in σ, score function μ⁴/σ² + 14μ² + 15σ².
#[test]
fn variances_of_the_two_kinds_of_gradient_are_those_of_the_book() {
    let (mu, sigma, rows) = (1.0, 0.7, 200_000);
    let g = Graph::new();
    let zero = g.input(&[rows, 1]);
    let (m, s) = (g.full(&[rows, 1], mu) + zero, g.full(&[rows, 1], sigma) + zero);
    let z = m + s * g.normal(&[rows, 1], 1);
    let path = grad(z.square().sum_all(), &[m, s]);
    let held = z.stop_gradient();
    let q = DiagonalGaussian { mu: m, logvar: s.square().log() };
    let score = grad((held.square() * q.log_density(held)).sum_all(), &[m])[0];
    let linear = grad(z.sum_all(), &[m])[0];
    let mut run = Interp::<f64>::new(&g);
    let values = [path[0], path[1], score, linear].map(|v| run.eval(v));
    let check = |values: &[f64], mean: f64, variance: f64| {
        let (found, _) = mean_and_error(values.iter().copied());
        let spread = values.iter().map(|v| (v - found).powi(2)).sum::<f64>() / rows as f64;
        assert!((found - mean).abs() < 5.0 * (variance / rows as f64).sqrt() + 1e-12, "{found} against {mean}");
        assert!((spread - variance).abs() <= 0.05 * variance, "{spread} against {variance}");
    };
    check(&values[0], 2.0 * mu, 4.0 * sigma * sigma);
    check(&values[1], 2.0 * sigma, 4.0 * mu * mu + 8.0 * sigma * sigma);
    check(&values[2], 2.0 * mu, mu.powi(4) / sigma.powi(2) + 14.0 * mu * mu + 15.0 * sigma * sigma);
    check(&values[3], 1.0, 0.0);
}

/// Sticking the landing is not the gradient of L_k for k > 1: the bias that the doubly reparameterised gradient mends.
#[test]
fn sticking_the_landing_is_biased_for_more_than_one_draw() {
    let stl = Bound { estimator: Estimator::StickingTheLanding, ..Bound::iwae(5) };
    let found = estimate((1500, engine(stl)), &parameters(), Machine::Interp64, 40, 7, 1.0).unwrap();
    let answer = compare(&found, &exact(5, 1.0), &["dm", "dlv"], 1e-9);
    assert!(answer.is_err(), "the bias was not seen");
    compare(&found, &exact(5, 1.0), &["value", "dW", "dmu", "dr"], 1e-9).unwrap();
}

/// χ²(p(z|x) ‖ N(m, D)) of Gaussians, with the golden posterior N(n, S):
///
/// ```text
/// 1 + χ² = |D|/√(|S| |2D − S|) · exp((n − m)ᵀ(2D − S)⁻¹(n − m))
/// ```
fn chi_square(m: [f64; K], d: [f64; K]) -> f64 {
    let (n, [a, b, c]) =
        ([-0.3721254355400697, -0.15331010452961674], [0.10104529616724739, -0.05574912891886063, 0.30662020905923343]);
    let (p, q, r) = (2.0 * d[0] - a, -b, 2.0 * d[1] - c);
    let (u, v) = (n[0] - m[0], n[1] - m[1]);
    let determinant = p * r - q * q;
    let exponent = (r * u * u - 2.0 * q * u * v + p * v * v) / determinant;
    d[0] * d[1] / ((a * c - b * b) * determinant).sqrt() * exponent.exp() - 1.0
}

/// The signal-to-noise ratio |mean|/standard deviation of one image's gradient of L_k. Once the weights have averaged out, for
/// k ≫ χ²(p(z|x) ‖ q), it goes as √k for the decoder, as 1/√k for the encoder (Rainforth et al. 2018), and as √k with the
/// doubly reparameterised gradient (Tucker et al. 2019). For k ≪ χ², where one draw has nearly all the weight, the latter
/// falls. The table of docs/book/src/gradients.md: `--nocapture`.
#[test]
fn signal_to_noise_goes_as_the_root_of_k_once_the_weights_have_averaged_out() {
    let near = (M, SPREAD);
    let far = ([0.6, -0.3], [0.12, 0.35]);
    let (chi_near, chi_far) = (chi_square(near.0, near.1), chi_square(far.0, far.1));
    assert!((2.0..3.0).contains(&chi_near) && (2000.0..2300.0).contains(&chi_far), "χ² = {chi_near}, {chi_far}");
    let ratios = |q: ([f64; K], [f64; K]), estimator: Estimator, name: &str, ks: [usize; 3]| -> [f64; 3] {
        let mut with_q = parameters();
        with_q[1].1 = q.0.into_iter().chain(q.1.map(f64::ln)).collect();
        let found = ks.map(|k| {
            // 50 images per step: the spread over steps is that of one image by √50.
            let build = engine(Bound { estimator, ..Bound::iwae(k) });
            let found = estimate((50, build), &with_q, Machine::Cpu32, 800, 5, 1.0).unwrap();
            let (mean, error) = found[name][0];
            mean.abs() / (error * (800f64 * 50.0).sqrt())
        });
        println!("χ² {:8.2}  {estimator:<24} {name:<4} k = {ks:?}: {found:.3?}", chi_square(q.0, q.1));
        found
    };
    // Between the first and the last a power of ½ is a factor of 4.
    let slope = |r: [f64; 3]| (r[2] / r[0]).ln() / 16f64.ln();
    let (total, doubly) = (Estimator::Total, Estimator::DoublyReparameterised);
    let encoder = slope(ratios(near, total, "dlv", [16, 64, 256]));
    assert!((-0.85..-0.25).contains(&encoder), "encoder: k^{encoder:.2}, expected about −½");
    let decoder = slope(ratios(near, total, "dmu", [16, 64, 256]));
    assert!((0.3..0.7).contains(&decoder), "decoder: k^{decoder:.2}, expected about ½");
    for name in ["dm", "dlv"] {
        let grows = slope(ratios(near, doubly, name, [16, 64, 256]));
        assert!((0.4..0.65).contains(&grows), "{name}, doubly reparameterised, k ≫ χ²: k^{grows:.2}, expected about ½");
    }
    let falls = slope(ratios(far, doubly, "dm", [4, 16, 64]));
    assert!((-0.4..-0.15).contains(&falls), "doubly reparameterised, k ≪ χ²: k^{falls:.2}, expected to fall");
    ratios(far, total, "dm", [4, 16, 64]);
}
