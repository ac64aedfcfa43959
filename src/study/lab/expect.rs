//! What every estimator's mean and noise are on the known model, for any k, without a draw.
//!
//! With u = w/p(x) = p(z|x)/q(z) and S = u₁ + … + u_k, the estimators of L_k are ratios whose denominators are powers of S, and
//!
//! ```text
//! 1/Sⁿ = 1/Γ(n) ∫₀^∞ tⁿ⁻¹ e^(−tS) dt,       log S = ∫₀^∞ (e^(−t) − e^(−tS)) dt/t
//! ```
//!
//! turns them into products over the draws, which are independent. With v = tu, M = E_q[e^(−v)], and A = d log u/dφ
//! (`total`), C = (∂ log u/∂z)(∂z/∂φ) (`sticking the landing`), dt = t dτ:
//!
//! ```text
//! L_k − log p(x) = ∫ (e^(−t) − Mᵏ) dτ − ln k
//! E  Σ u A/S     = k ∫ Mᵏ⁻¹ E[v A e^(−v)] dτ                                                   (C for A: sticking)
//! E |Σ u A/S|²   =   ∫ k Mᵏ⁻¹ E[v² |A|² e^(−v)] + k(k − 1) Mᵏ⁻² |E[v A e^(−v)]|² dτ
//! E  Σ u² C/S²   = k ∫ Mᵏ⁻¹ E[v² C e^(−v)] dτ                                     (doubly reparameterised)
//! E |Σ u² C/S²|² = ⅙ ∫ k Mᵏ⁻¹ E[v⁴ |C|² e^(−v)] + k(k − 1) Mᵏ⁻² |E[v² C e^(−v)]|² dτ
//! ```
//!
//! One table of these expectations over τ serves every k. Both integrals, over τ and over the plane of ε, are sums in equal
//! steps of functions that are analytic and vanish at both ends, so that they converge faster than any power of the step. The
//! estimators of the ELBO are means of k independent terms and need moments of one draw alone.

use std::f64::consts::PI;

use rayon::prelude::*;

use super::contestant::{Contestant, Network};
use super::known::{LATENT, LinearGaussian, PIXELS, PlaneGaussian};
use crate::vae::{BoundKind, Estimator, KlTerm};

/// Components of the encoder's gradient: m, then lv.
const PHI: usize = 2 * LATENT;
/// The step in ε and how far it goes.
const STEP: f64 = 0.125;
const REACH: i32 = 72;
/// The step in τ and where it begins: below, nothing is left but (k − 1)e^τ.
const LOG_STEP: f64 = 0.4;
const LOG_START: f64 = -42.0;
/// Nodes with less weight do not decide where the sum over τ ends.
const NEGLIGIBLE: f64 = 1e-16;

/// What is expected of an estimator.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientMoments {
    /// Its expectation.
    pub mean: Vec<f64>,
    /// √(trace of its covariance).
    pub noise: f64,
}

impl GradientMoments {
    /// The length of the expectation.
    pub fn size(&self) -> f64 {
        self.mean.iter().map(|m| m * m).sum::<f64>().sqrt()
    }

    fn of(mean: Vec<f64>, variance: f64) -> GradientMoments {
        GradientMoments { mean, noise: variance.max(0.0).sqrt() }
    }
}

/// A point ε of the plane with everything that an estimator makes of the draw z = m + σε.
struct QuadratureNode {
    weight: f64,
    log_u: f64,
    /// d log u/dφ.
    total: [f64; PHI],
    /// (∂ log u/∂z)(∂z/∂φ).
    path: [f64; PHI],
    /// ∇φ log q at a held z.
    score: [f64; PHI],
    /// The ELBO's gradient with the KL term in closed form.
    closed: [f64; PHI],
    /// ∇θ log p(x|z).
    theta: [f64; PIXELS],
}

impl QuadratureNode {
    fn at(model: &LinearGaussian, q: &PlaneGaussian, e: [f64; LATENT]) -> QuadratureNode {
        let p = model.posterior();
        let sigma = q.variance.map(f64::sqrt);
        let z = [0, 1].map(|j| q.mean[j] + sigma[j] * e[j]);
        // ∂ log p(z|x)/∂z
        let slope = [0, 1].map(|j| (p.mean[j] - z[j]) / p.variance[j]);
        let log_ratio = |j: usize| {
            let off = z[j] - p.mean[j];
            0.5 * ((q.variance[j] / p.variance[j]).ln() - off * off / p.variance[j] + e[j] * e[j])
        };
        let both =
            |mean: &dyn Fn(usize) -> f64, spread: &dyn Fn(usize) -> f64| [mean(0), mean(1), spread(0), spread(1)];
        let through = |j: usize| 0.5 * sigma[j] * e[j];
        let path = |j: usize| slope[j] + e[j] / sigma[j];
        let likelihood = |j: usize| slope[j] + z[j];
        QuadratureNode {
            weight: STEP * STEP * (-0.5 * (e[0] * e[0] + e[1] * e[1])).exp() / (2.0 * PI),
            log_u: log_ratio(0) + log_ratio(1),
            total: both(&|j| slope[j], &|j| through(j) * slope[j] + 0.5),
            path: both(&path, &|j| through(j) * path(j)),
            score: both(&|j| e[j] / sigma[j], &|j| 0.5 * (e[j] * e[j] - 1.0)),
            closed: both(&|j| likelihood(j) - q.mean[j], &|j| through(j) * likelihood(j) + 0.5 * (1.0 - q.variance[j])),
            theta: model.bias_slope(z),
        }
    }
}

/// E[vᵃ f e^(−v)] and E[v²ᵃ |f|² e^(−v)] at one τ.
#[derive(Clone, Copy)]
struct Damped<const N: usize> {
    first: [f64; N],
    second: f64,
}

impl<const N: usize> Damped<N> {
    const ZERO: Damped<N> = Damped { first: [0.0; N], second: 0.0 };

    fn add(&mut self, weight: f64, power: f64, f: &[f64; N]) {
        let mut square = 0.0;
        for (sum, f) in self.first.iter_mut().zip(f) {
            *sum += weight * power * f;
            square += f * f;
        }
        self.second += weight * power * power * square;
    }
}

/// One row of the table over τ.
struct MixtureRow {
    t: f64,
    /// E[e^(−v)].
    survival: f64,
    total: Damped<PHI>,
    sticking: Damped<PHI>,
    doubly: Damped<PHI>,
    theta: Damped<PIXELS>,
}

impl MixtureRow {
    fn at(nodes: &[QuadratureNode], log_t: f64) -> MixtureRow {
        let mut row = MixtureRow {
            t: log_t.exp(),
            survival: 0.0,
            total: Damped::ZERO,
            sticking: Damped::ZERO,
            doubly: Damped::ZERO,
            theta: Damped::ZERO,
        };
        for node in nodes {
            let v = (log_t + node.log_u).exp();
            let weight = node.weight * (-v).exp();
            if weight > 0.0 {
                row.survival += weight;
                row.total.add(weight, v, &node.total);
                row.sticking.add(weight, v, &node.path);
                row.doubly.add(weight, v * v, &node.path);
                row.theta.add(weight, v, &node.theta);
            }
        }
        row
    }
}

/// The expectations of all estimators at one q.
pub struct Oracle {
    nodes: Vec<QuadratureNode>,
    rows: Vec<MixtureRow>,
    log_p: f64,
}

impl Oracle {
    /// Makes the tables.
    pub fn new(model: &LinearGaussian, q: &PlaneGaussian) -> Oracle {
        let axis = || (-REACH..=REACH).map(|i| f64::from(i) * STEP);
        let nodes: Vec<QuadratureNode> =
            axis().flat_map(|a| axis().map(move |b| QuadratureNode::at(model, q, [a, b]))).collect();
        let counted = nodes.iter().filter(|node| node.weight > NEGLIGIBLE);
        // e^(−e^4) is nothing.
        let end = counted.map(|node| 4.0 - node.log_u).fold(4.0, f64::max);
        let steps = ((end - LOG_START) / LOG_STEP).ceil() as usize;
        let rows =
            (0..=steps).into_par_iter().map(|i| MixtureRow::at(&nodes, LOG_START + LOG_STEP * i as f64)).collect();
        Oracle { nodes, rows, log_p: model.log_evidence() }
    }

    /// log p(x) − L_k, in nats.
    pub fn gap(&self, k: usize) -> f64 {
        let k = k as f64;
        let integral: f64 = self.rows.iter().map(|row| (-row.t).exp() - row.survival.powf(k)).sum();
        k.ln() - LOG_STEP * integral
    }

    /// What to expect of an estimator with k draws.
    pub fn of(&self, contestant: &Contestant, k: usize) -> GradientMoments {
        let n = k as f64;
        match (contestant.bound, contestant.estimator, contestant.side) {
            (BoundKind::Iwae, _, Network::Decoder) => self.ratio(k, 1.0, |row| row.theta),
            (BoundKind::Iwae, Estimator::StickingTheLanding, _) => self.ratio(k, 1.0, |row| row.sticking),
            (BoundKind::Iwae, Estimator::DoublyReparameterised, _) => self.ratio(k, 6.0, |row| row.doubly),
            (BoundKind::Iwae, ..) => self.ratio(k, 1.0, |row| row.total),
            (_, _, Network::Decoder) => self.average(n, |node| node.theta),
            (_, Estimator::ScoreFunction, _) => self.score(n),
            (_, Estimator::ScoreFunctionBaseline, _) if k == 1 => self.score(n),
            (_, Estimator::ScoreFunctionBaseline, _) => self.covariance(n),
            (_, Estimator::StickingTheLanding, _) => self.average(n, |node| node.path),
            _ if contestant.kl == KlTerm::Analytic => self.average(n, |node| node.closed),
            _ => self.average(n, |node| node.total),
        }
    }

    /// The sums over τ, with 1/Γ of the power in the second moment.
    fn ratio<const N: usize>(&self, k: usize, gamma: f64, of: impl Fn(&MixtureRow) -> Damped<N>) -> GradientMoments {
        let (n, power) = (k as f64, k as i32);
        let (mut mean, mut second) = (vec![0.0; N], 0.0);
        for row in &self.rows {
            let (damped, others) = (of(row), row.survival.powi(power - 1));
            mean.iter_mut().zip(damped.first).for_each(|(sum, f)| *sum += LOG_STEP * n * others * f);
            second += LOG_STEP * n * others * damped.second;
            if k > 1 {
                let pairs: f64 = damped.first.iter().map(|f| f * f).sum();
                second += LOG_STEP * n * (n - 1.0) * row.survival.powi(power - 2) * pairs;
            }
        }
        let square: f64 = mean.iter().map(|m| m * m).sum();
        GradientMoments::of(mean, second / gamma - square)
    }

    fn expect(&self, f: impl Fn(&QuadratureNode) -> f64) -> f64 {
        self.nodes.iter().map(|node| node.weight * f(node)).sum()
    }

    /// The mean of k independent terms.
    fn average<const N: usize>(&self, k: f64, of: impl Fn(&QuadratureNode) -> [f64; N]) -> GradientMoments {
        let mean: Vec<f64> = (0..N).map(|j| self.expect(|node| of(node)[j])).collect();
        let variance: f64 = (0..N).map(|j| self.expect(|node| (of(node)[j] - mean[j]).powi(2))).sum();
        GradientMoments::of(mean, variance / k)
    }

    /// (1/k) Σ log w ∇ log q.
    fn score(&self, k: f64) -> GradientMoments {
        self.average(k, |node| node.score.map(|s| (self.log_p + node.log_u) * s))
    }

    /// With the mean of the other draws as a baseline the estimator is the sample covariance of log w and the score, whose
    /// variance is [μ₂₂ − μ₁₁² (k − 2)/(k − 1) + μ₂₀ μ₀₂/(k − 1)]/k.
    fn covariance(&self, k: f64) -> GradientMoments {
        let centre = self.expect(|node| node.log_u);
        let spread = self.expect(|node| (node.log_u - centre).powi(2));
        let mut variance = 0.0;
        let mean: Vec<f64> = (0..PHI)
            .map(|j| {
                let both = self.expect(|node| (node.log_u - centre) * node.score[j]);
                let fourth = self.expect(|node| ((node.log_u - centre) * node.score[j]).powi(2));
                let score = self.expect(|node| node.score[j].powi(2));
                variance += (fourth - both * both * (k - 2.0) / (k - 1.0) + spread * score / (k - 1.0)) / k;
                both
            })
            .collect();
        GradientMoments::of(mean, variance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(bound: BoundKind, estimator: Estimator) -> Contestant {
        Contestant { bound, kl: KlTerm::MonteCarlo, estimator, side: Network::Encoder }
    }

    #[test]
    fn every_unbiased_estimator_expects_the_slope_of_its_bound() {
        let model = LinearGaussian::new().unwrap();
        let q = model.q_at(1.5).unwrap();
        let oracle = Oracle::new(&model, &q);
        let moved = |number: usize, h: f64| {
            let mut q = q;
            match number {
                0 | 1 => q.mean[number] += h,
                _ => q.variance[number - 2] *= h.exp(),
            }
            Oracle::new(&model, &q)
        };
        let h = 1e-3;
        let pairs: Vec<[Oracle; 2]> = [0, 3].map(|j| [moved(j, h), moved(j, -h)]).into();
        for k in [2, 5, 64] {
            for estimator in [Estimator::Total, Estimator::DoublyReparameterised] {
                let mean = oracle.of(&named(BoundKind::Iwae, estimator), k).mean;
                for (pair, j) in pairs.iter().zip([0, 3]) {
                    let slope = (pair[1].gap(k) - pair[0].gap(k)) / (2.0 * h);
                    let allowed = 1e-5 * (1.0 + slope.abs());
                    assert!((mean[j] - slope).abs() < allowed, "{estimator} k = {k}, {j}: {} against {slope}", mean[j]);
                }
            }
        }
        for contestant in Contestant::ALL.iter().filter(|c| c.bound == BoundKind::Elbo) {
            let mean = oracle.of(contestant, 3).mean;
            for (found, exact) in mean.iter().zip(model.elbo_gradient(&q)) {
                assert!((found - exact).abs() < 1e-9, "{}: {mean:?}", contestant.name());
            }
        }
    }

    #[test]
    fn one_draw_of_the_importance_bound_is_the_elbo() {
        let model = LinearGaussian::new().unwrap();
        let q = model.q_at(3.0).unwrap();
        let oracle = Oracle::new(&model, &q);
        assert!((oracle.gap(1) - model.gap(&q)).abs() < 1e-8, "{} against {}", oracle.gap(1), model.gap(&q));
        for (of_k, of_elbo) in [
            (Estimator::Total, Estimator::Total),
            (Estimator::DoublyReparameterised, Estimator::StickingTheLanding),
            (Estimator::StickingTheLanding, Estimator::StickingTheLanding),
        ] {
            let (a, b) = (oracle.of(&named(BoundKind::Iwae, of_k), 1), oracle.of(&named(BoundKind::Elbo, of_elbo), 1));
            assert!((a.noise - b.noise).abs() < 1e-6 * b.noise, "{of_k}: {} against {}", a.noise, b.noise);
            assert!(a.mean.iter().zip(&b.mean).all(|(a, b)| (a - b).abs() < 1e-7), "{of_k}: {a:?} against {b:?}");
        }
        // Bounds rise, and the gap is χ²/2k in the end.
        let near = model.q_at(0.5).unwrap();
        let oracle = Oracle::new(&model, &near);
        let gaps = [1, 2, 4, 64, 4096].map(|k| oracle.gap(k));
        assert!(gaps.windows(2).all(|g| g[0] > g[1] && g[1] > 0.0), "{gaps:?}");
        let limit = model.chi_square(&near) / (2.0 * 4096.0);
        assert!((gaps[4] / limit - 1.0).abs() < 2e-3, "{} against {limit}", gaps[4]);
    }

    #[test]
    fn noise_at_the_posterior_is_that_of_the_closed_forms() {
        // σ⁻² in the mean and ½ in the log-variance for the total derivative, (σ⁻¹ − σ)² in the mean with the KL in closed form.
        let model = LinearGaussian::new().unwrap();
        let q = model.posterior();
        let oracle = Oracle::new(&model, &q);
        let total: f64 = q.variance.iter().map(|v| 1.0 / v + 0.5).sum();
        for k in [1, 7] {
            for bound in [BoundKind::Elbo, BoundKind::Iwae] {
                let found = oracle.of(&named(bound, Estimator::Total), k).noise;
                assert!((found * (k as f64).sqrt() - total.sqrt()).abs() < 1e-6, "{bound} {k}: {found}");
                assert!(oracle.of(&named(bound, Estimator::StickingTheLanding), k).noise < 1e-6);
            }
        }
        let closed = oracle.of(&Contestant::ALL[0], 1).noise;
        let mean: f64 = q.variance.iter().map(|v| (v.sqrt().recip() - v.sqrt()).powi(2)).sum();
        // In lv: ½σε·(−ε/σ + z), less its mean: ½(σ² − 1)(ε² − 1) + ½σεm.
        let spread: f64 =
            (0..2).map(|j| 0.5 * (q.variance[j] - 1.0).powi(2) + 0.25 * q.variance[j] * q.mean[j].powi(2)).sum();
        assert!((closed - (mean + spread).sqrt()).abs() < 1e-9, "{closed}");
    }

    #[test]
    fn ratios_follow_the_laws_once_the_weights_have_averaged_out() {
        let model = LinearGaussian::new().unwrap();
        let oracle = Oracle::new(&model, &model.q_at(0.5).unwrap());
        for contestant in Contestant::ALL {
            let ratio = |k: usize| {
                let e = oracle.of(&contestant, k);
                e.size() / e.noise
            };
            let slope = (ratio(16_384) / ratio(4096)).ln() / 4f64.ln();
            let name = contestant.name();
            assert!((slope - contestant.law()).abs() < 0.01, "{name}: k^{slope}, the law is {}", contestant.law());
        }
    }
}
