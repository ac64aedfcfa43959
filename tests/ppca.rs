//! The linear Gaussian model, where log p(x), the posterior, the ELBO and all gradients are known exactly.
//!
//! ```text
//! z ~ N(0, I_K),  x|z ~ N(W z + μ, σ² I_D),  r = x − μ,  M = WᵀW + σ² I
//! log p(x)  = −½ [ D ln 2π + (D − K) ln σ² + ln det M + (‖r‖² − (Wᵀr)ᵀ M⁻¹ (Wᵀr))/σ² ]
//! p(z|x)    = N(m*, σ² M⁻¹),  m* = M⁻¹ Wᵀr
//! ELBO(q)   = E_q[log p(x|z)] − KL(q ‖ N(0, I)) = log p(x) − KL(q ‖ p(z|x))       for q = N(m, diag e^lv)
//! ```
//!
//! (Tipping & Bishop 1999; Lucas et al. 2019, arXiv 1911.02469.) Everything here is made of graph nodes, with M⁻¹ and
//! ln det M by Gaussian elimination, so that gradients go through it; the expected numbers were computed elsewhere.

use std::f64::consts::PI;

use elbo::engine::rng::Draw;
use elbo::{Graph, Interp, Var, grad};

/// A model with one image x and an approximate posterior q, in plain numbers.
struct Setting {
    d: usize,
    k: usize,
    w: Vec<f64>,
    mu: Vec<f64>,
    ln_variance: f64,
    x: Vec<f64>,
    m: Vec<f64>,
    lv: Vec<f64>,
}

/// The same as nodes, with what follows from it.
struct DeviceVae<'g> {
    g: &'g Graph,
    w: Var<'g>,           // [D, K]
    mu: Var<'g>,          // [D, 1]
    ln_variance: Var<'g>, // []
    m: Var<'g>,           // [K, 1]
    lv: Var<'g>,          // [K, 1]
    log_px: Var<'g>,
    big_m: Var<'g>,     // M [K, K]
    posterior: Var<'g>, // σ² M⁻¹ [K, K]
    m_star: Var<'g>,    // [K, 1]
    kl_prior: Var<'g>,
    kl_posterior: Var<'g>,
    elbo: Var<'g>,
}

/// (A⁻¹, ln det A) of a positive definite matrix by Gauss-Jordan elimination of [A | I].
fn inverse<'g>(a: Var<'g>) -> (Var<'g>, Var<'g>) {
    let (g, k) = (a.graph(), a.shape()[0]);
    let identity: Vec<f64> = (0..k * k).map(|i| if i / k == i % k { 1.0 } else { 0.0 }).collect();
    let both = g.concat_cols(&[a, g.tensor(&[k, k], &identity)]);
    let mut rows: Vec<Var> = (0..k).map(|i| both.gather_rows(g.tensor(&[1], &[i as f64]))).collect();
    let mut ln_det = g.constant(0.0);
    for pivot in 0..k {
        let p = rows[pivot].slice_cols(pivot, 1);
        ln_det = ln_det + p.log().sum_all();
        let normalised = rows[pivot] / p;
        for (i, row) in rows.iter_mut().enumerate() {
            *row = if i == pivot { normalised } else { *row - row.slice_cols(pivot, 1) * normalised };
        }
    }
    let right: Vec<Var> = rows.iter().map(|r| r.slice_cols(k, k).t()).collect();
    (g.concat_cols(&right).t(), ln_det)
}

fn model<'g>(g: &'g Graph, s: &Setting) -> DeviceVae<'g> {
    let (d, k) = (s.d, s.k);
    let (w, mu) = (g.param("w", &[d, k]), g.param("mu", &[d, 1]));
    let (m, lv) = (g.param("m", &[k, 1]), g.param("lv", &[k, 1]));
    let ln_variance = g.param("ln_variance", &[]);
    let variance = ln_variance.exp();
    let r = g.tensor(&[d, 1], &s.x) - mu;
    let identity: Vec<f64> = (0..k * k).map(|i| if i / k == i % k { 1.0 } else { 0.0 }).collect();
    let identity = g.tensor(&[k, k], &identity);
    let big_m = w.matmul_t(true, w, false) + identity * variance;
    let (m_inverse, ln_det) = inverse(big_m);
    let wr = w.matmul_t(true, r, false);
    let m_star = m_inverse.matmul(wr);
    let explained = (wr * m_star).sum_all();
    let (df, kf) = (d as f64, k as f64);
    let log_px =
        (ln_variance * (df - kf) + ln_det + (r.square().sum_all() - explained) / variance + df * (2.0 * PI).ln())
            * -0.5;

    let spread = lv.exp(); // d = diag of q's covariance
    let rest = r - w.matmul(m);
    let scatter = (w.square().matmul(spread)).sum_all(); // Σ d_i ‖w_i‖²
    let fit = (rest.square().sum_all() + scatter) / variance * -0.5 - (ln_variance + (2.0 * PI).ln()) * (0.5 * df);
    let kl_prior = (m.square() + lv.expm1() - lv).sum_all() * 0.5;
    let off = m - m_star;
    let trace = (big_m * identity).matmul(spread).sum_all();
    let distance = off.matmul_t(true, big_m.matmul(off), false).sum_all();
    let kl_posterior = ((trace + distance) / variance - kf - lv.sum_all() - ln_det + ln_variance * kf) * 0.5;
    let posterior = m_inverse * variance;
    let elbo = fit - kl_prior;
    DeviceVae { g, w, mu, ln_variance, m, lv, log_px, big_m, posterior, m_star, kl_prior, kl_posterior, elbo }
}

fn interpreter<'g>(g: &'g Graph, s: &Setting) -> Interp<'g, f64> {
    let mut run = Interp::new(g);
    let all = [("w", &s.w), ("mu", &s.mu), ("m", &s.m), ("lv", &s.lv), ("ln_variance", &vec![s.ln_variance])];
    all.iter().for_each(|(name, values)| run.set(name, values).unwrap());
    run
}

#[track_caller]
fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance * e.abs().max(1.0), "{found:?}, expected {expected:?}");
    }
}

/// W = [[1, ½], [0, −1], [2, ¼]], μ = (.1, −.2, .3), σ² = ½, x = (.7, .4, −1.1).
fn golden(m: [f64; 2], d: [f64; 2]) -> Setting {
    Setting {
        d: 3,
        k: 2,
        w: vec![1.0, 0.5, 0.0, -1.0, 2.0, 0.25],
        mu: vec![0.1, -0.2, 0.3],
        ln_variance: 0.5f64.ln(),
        x: vec![0.7, 0.4, -1.1],
        m: m.to_vec(),
        lv: d.iter().map(|d| d.ln()).collect(),
    }
}

#[test]
fn golden_vector() {
    let s = golden([0.2, -0.3], [0.3, 0.6]);
    let g = Graph::new();
    let t = model(&g, &s);
    let mut run = interpreter(&g, &s);
    close(&run.eval(t.big_m), &[5.5, 1.0, 1.0, 1.8125], 1e-12);
    close(&run.eval(t.m_star), &[-0.3721254355400697, -0.15331010452961674], 1e-12);
    let covariance = [0.10104529616724739, -0.05574912891986063, -0.05574912891986063, 0.30662020905923343];
    close(&run.eval(t.posterior), &covariance, 1e-12);
    close(&run.eval(t.log_px), &[-5.268787639681589], 1e-12);
    close(&run.eval(t.elbo), &[-7.745119042820065], 1e-12);
    close(&run.eval(t.kl_prior), &[0.3723992140459634], 1e-12);
    close(&run.eval(t.kl_posterior), &[2.4763314031384756], 1e-12);
    let d = grad(t.elbo, &[t.m, t.lv]);
    close(&run.eval(d[0]), &[-6.0, -0.6125], 1e-12);
    close(&run.eval(d[1]), &[-1.15, -0.5875], 1e-12);
}

#[test]
fn the_best_diagonal_q_leaves_the_golden_gap() {
    // m* = M⁻¹Wᵀr and d* = σ²/diag M: the gap is ½(Σ ln M_ii − ln det M), whatever x is.
    let s = golden([-0.3721254355400697, -0.15331010452961674], [0.5 / 5.5, 0.5 / 1.8125]);
    let g = Graph::new();
    let t = model(&g, &s);
    let mut run = interpreter(&g, &s);
    close(&run.eval(t.elbo), &[-5.321642083194201], 1e-12);
    close(&run.eval(t.log_px - t.elbo), &[0.052854443512611926], 1e-12);
    close(&run.eval(t.kl_posterior), &[0.052854443512611926], 1e-12);
    close(&run.eval(t.kl_prior), &[1.1072510244531928], 1e-12);
    // It is a maximum: no slope, and the curvature is negative.
    let d = grad(t.elbo, &[t.m, t.lv]);
    close(&run.eval(d[0]), &[0.0; 2], 1e-12);
    close(&run.eval(d[1]), &[0.0; 2], 1e-12);
    for x in [t.m, t.lv] {
        let curvature = grad(grad(t.elbo, &[x])[0].sum_all(), &[x])[0];
        assert!(run.eval(curvature.sum_all())[0] < 0.0);
    }
}

/// A model with D = 3 … 6 and K = 1 … 4 ≤ D at random.
fn random_setting(seed: u64) -> Setting {
    let (d, k) = (3 + seed as usize % 4, 1 + seed as usize % 3);
    let numbers = |stream: u32, n: usize| -> Vec<f64> {
        let draw = Draw { seed, step: 0, stream };
        (0..n as u64).map(|i| f64::from(draw.normal(i))).collect()
    };
    Setting {
        d,
        k,
        w: numbers(0, d * k),
        mu: numbers(1, d),
        ln_variance: 0.5 * numbers(2, 1)[0] - 0.5,
        x: numbers(3, d),
        m: numbers(4, k),
        lv: numbers(5, k),
    }
}

#[test]
fn elbo_and_divergence_add_up_to_the_evidence() {
    for seed in 0..24 {
        let s = random_setting(seed);
        let g = Graph::new();
        let t = model(&g, &s);
        let mut run = interpreter(&g, &s);
        let (sum, log_px) = (run.eval(t.elbo + t.kl_posterior)[0], run.eval(t.log_px)[0]);
        close(&[sum], &[log_px], 1e-12);
        assert!(run.eval(t.kl_posterior)[0] > 0.0);
        // log p(x) does not depend on q, so the gradients in q of the two parts cancel.
        let (a, b) = (grad(t.elbo, &[t.m, t.lv]), grad(t.kl_posterior, &[t.m, t.lv]));
        for (a, b) in a.iter().zip(&b) {
            let size = run.eval(a.abs().sum_all())[0].max(1.0);
            run.eval(*a + *b).iter().for_each(|v| assert!(v.abs() < 1e-12 * size, "seed {seed}: {v}"));
        }
    }
}

/// ∂ELBO in all parameters against the closed forms, in plain numbers.
#[test]
fn gradients_of_the_bound_are_the_closed_forms() {
    let random = (0..12).map(random_setting);
    for s in random.chain([golden([0.2, -0.3], [0.3, 0.6])]) {
        let g = Graph::new();
        let t = model(&g, &s);
        let mut run = interpreter(&g, &s);
        let d = grad(t.elbo, &[t.m, t.lv, t.w, t.mu, t.ln_variance]);
        let (dims, k, variance) = (s.d, s.k, s.ln_variance.exp());
        let w = |i: usize, j: usize| s.w[i * k + j];
        // r − W m
        let rest: Vec<f64> =
            (0..dims).map(|i| s.x[i] - s.mu[i] - (0..k).map(|j| w(i, j) * s.m[j]).sum::<f64>()).collect();
        let spread: Vec<f64> = s.lv.iter().map(|lv| lv.exp()).collect();
        let norm = |j: usize| (0..dims).map(|i| w(i, j) * w(i, j)).sum::<f64>();
        let dm = |j: usize| (0..dims).map(|i| w(i, j) * rest[i]).sum::<f64>() / variance - s.m[j];
        let dlv = |j: usize| 0.5 * (1.0 - spread[j]) - 0.5 * spread[j] * norm(j) / variance;
        let dw = |e: usize| (rest[e / k] * s.m[e % k] - s.w[e] * spread[e % k]) / variance;
        let scatter: f64 = (0..k).map(|j| spread[j] * norm(j)).sum();
        let square: f64 = rest.iter().map(|r| r * r).sum();
        close(&run.eval(d[0]), &(0..k).map(dm).collect::<Vec<_>>(), 1e-12);
        close(&run.eval(d[1]), &(0..k).map(dlv).collect::<Vec<_>>(), 1e-12);
        close(&run.eval(d[2]), &(0..dims * k).map(dw).collect::<Vec<_>>(), 1e-12);
        close(&run.eval(d[3]), &rest.iter().map(|r| r / variance).collect::<Vec<_>>(), 1e-12);
        close(&run.eval(d[4]), &[0.5 * (square + scatter) / variance - 0.5 * dims as f64], 1e-12);
    }
}

/// Fisher's identity: ∂ log p(x) = E_{p(z|x)}[∂ log p(x, z)], so that ∂/∂W = [(r − W m*) m*ᵀ − W Σ]/σ². The left side
/// is differentiated through the elimination.
#[test]
fn gradients_of_the_evidence_go_through_the_inverse() {
    for seed in 0..8 {
        let s = random_setting(seed);
        let g = Graph::new();
        let t = model(&g, &s);
        let mut run = interpreter(&g, &s);
        let r = t.g.tensor(&[s.d, 1], &s.x) - t.mu;
        let rest = r - t.w.matmul(t.m_star);
        let variance = t.ln_variance.exp();
        let dw = (rest.matmul_t(false, t.m_star, true) - t.w.matmul(t.posterior)) / variance;
        let d = grad(t.log_px, &[t.w, t.mu, t.m]);
        let (found, expected) = (run.eval(d[0]), run.eval(dw));
        close(&found, &expected, 1e-11);
        let (found, expected) = (run.eval(d[1]), run.eval(rest / variance));
        close(&found, &expected, 1e-11);
        assert!(run.eval(d[2]).iter().all(|&v| v == 0.0), "log p(x) does not depend on q");
    }
}
