//! Optimisers, and learning rates as functions of the number of updates.
//!
//! An optimiser is not built from graph nodes: all parameters lie in one flat buffer, so that an update is one pass
//! over four arrays (p, g, m, v) whatever the number of layers. [`Optimizer::update`] is that pass, shared by the
//! reference interpreter and the CPU kernel.

use serde::{Deserialize, Serialize};

use crate::engine::graph::Var;
use crate::engine::math::Real;

/// A first moment (Adam's m, SGD's momentum) nearer to zero than this is zero.
///
/// Where a gradient has become exactly zero (a unit that is dead, a pixel that is always black), m shrinks by β₁ in each
/// update until it is denormal, below 1.2e-38, and stays there: 0.9·x rounds back to x at the end. A processor that
/// computes with denormals by microcode takes some hundred cycles for each of them, in every later update. 1e-30 is
/// far enough above that `rate · m` is a normal number too, and far enough below anything that matters: with Adam's usual
/// ε = 1e-8 such a moment moves a parameter by less than lr · 1e-22.
pub const LEAST_FIRST_MOMENT: f64 = 1e-30;
/// A second moment (Adam's v) below this is zero, for the reason of [`LEAST_FIRST_MOMENT`]. √v < 1e-18 then, which beside
/// ε is nothing as long as ε ≥ 1e-9.
pub const LEAST_SECOND_MOMENT: f64 = 1e-36;

/// x, or 0 where |x| < `least`; NaN stays.
#[inline(always)]
fn or_zero<F: Real>(x: F, least: F) -> F {
    F::select(x.abs() < least, F::from_f64(0.0), x)
}

/// An update rule. The gradient g is of the loss that is minimised; lr comes from [`LrSchedule`]. Moments next to zero are
/// zero: [`LEAST_FIRST_MOMENT`], [`LEAST_SECOND_MOMENT`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// Adam (Kingma & Ba 2015, arXiv 1412.6980) with the bias corrections c₁ = 1 − β₁ᵗ, c₂ = 1 − β₂ᵗ:
    ///
    /// ```text
    /// m ← β₁ m + (1 − β₁) g
    /// v ← β₂ v + (1 − β₂) g²
    /// p ← p − (lr / c₁) · m / (√v / √c₂ + ε)
    /// ```
    Adam {
        /// Decay of the first moment, usually 0.9.
        beta1: f64,
        /// Decay of the second moment, usually 0.999.
        beta2: f64,
        /// Added to the root, usually 1e-8.
        eps: f64,
    },
    /// Stochastic gradient descent with heavy-ball momentum μ as in PyTorch: m ← μ m + g; p ← p − lr · m.
    Sgd {
        /// μ in [0, 1); 0 is plain descent.
        momentum: f64,
    },
}

/// The numbers of one update, computed once per step in f64.
#[derive(Clone, Copy, Debug)]
pub struct UpdateScalars {
    /// lr / c₁ for Adam, lr for SGD.
    pub rate: f64,
    /// 1 / √c₂ for Adam; unused by SGD.
    pub root_scale: f64,
}

impl Optimizer {
    /// Adam with its usual constants.
    pub fn adam() -> Optimizer {
        Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }

    /// The scalars of update number `t` (1 for the first) at learning rate `lr`.
    pub fn scalars(&self, lr: f64, t: u32) -> UpdateScalars {
        match *self {
            Optimizer::Adam { beta1, beta2, .. } => {
                let t = i32::try_from(t).unwrap_or(i32::MAX);
                UpdateScalars { rate: lr / (1.0 - beta1.powi(t)), root_scale: 1.0 / (1.0 - beta2.powi(t)).sqrt() }
            }
            Optimizer::Sgd { .. } => UpdateScalars { rate: lr, root_scale: 1.0 },
        }
    }

    /// One update in place over flat arrays of equal length: `p` parameters, `g` gradient, `m` and `v` the moments
    /// (`v` is left alone by SGD). The gradient is multiplied by `scale` first (clipping; 1 otherwise).
    #[inline(always)]
    pub fn update<F: Real>(&self, s: UpdateScalars, scale: F, p: &mut [F], g: &[F], m: &mut [F], v: &mut [F]) {
        let n = p.len();
        let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
        let rate = F::from_f64(s.rate);
        let least = F::from_f64(LEAST_FIRST_MOMENT);
        match *self {
            Optimizer::Adam { beta1, beta2, eps } => {
                let (b1, b2, eps) = (F::from_f64(beta1), F::from_f64(beta2), F::from_f64(eps));
                let (a1, a2) = (F::from_f64(1.0 - beta1), F::from_f64(1.0 - beta2));
                let root = F::from_f64(s.root_scale);
                let least_v = F::from_f64(LEAST_SECOND_MOMENT);
                for i in 0..n {
                    let gi = g[i] * scale;
                    m[i] = or_zero(b1 * m[i] + a1 * gi, least);
                    v[i] = or_zero(b2 * v[i] + a2 * gi * gi, least_v);
                    p[i] = p[i] - rate * m[i] / (v[i].sqrt() * root + eps);
                }
            }
            Optimizer::Sgd { momentum } => {
                let mu = F::from_f64(momentum);
                for i in 0..n {
                    m[i] = or_zero(mu * m[i] + g[i] * scale, least);
                    p[i] = p[i] - rate * m[i];
                }
            }
        }
    }
}

/// The exponential moving average of the parameters (Polyak & Juditsky 1992 for the plain mean), which is often better
/// than the last of them: after update t the average a of the parameters p₁ … p_t is
///
/// ```text
/// a_t = Σᵢ d^(t−i) pᵢ / Σᵢ d^(t−i)                            a true mean, of about 1/(1 − d) updates, for every t
/// a_t = a_(t−1) + w_t (p_t − a_(t−1))      w_t = (1 − d)/(1 − dᵗ)        the same, one update at a time
/// ```
///
/// The usual recursion a ← d·a + (1 − d)·p begins at 0 and is short of the mean by the factor 1 − dᵗ, or begins at the
/// initial values and remembers them for long. Dividing that factor into the weight (w₁ = 1, w_∞ = 1 − d) leaves no bias to
/// correct when a is read, and no initial value that matters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ema {
    /// d in [0, 1), usually 0.999 to 0.9999; 0 is the last parameters.
    pub decay: f64,
}

impl Ema {
    /// w_t for update number `t` (1 for the first).
    pub fn weight(&self, t: u32) -> f64 {
        (1.0 - self.decay) / -(f64::from(t) * self.decay.ln()).exp_m1()
    }

    /// The weight in a step that follows `done` updates and so finds p after update number `done`: a schedule for
    /// [`Graph::average`](crate::engine::graph::Graph::average). The first step takes the initial values whole, and the second
    /// forgets them.
    pub fn schedule(&self, done: u64) -> f64 {
        if done == 0 { 1.0 } else { self.weight(u32::try_from(done).unwrap_or(u32::MAX)) }
    }
}

/// The factor that brings the gradients' global norm ‖g‖ = √Σ gᵢ² down to `max_norm`: min(1, max_norm / ‖g‖), a
/// scalar node for [`Graph::optimize_scaled`](crate::engine::graph::Graph::optimize_scaled) (Pascanu et al. 2013).
///
/// # Panics
/// When `grads` is empty.
pub fn clip_scale<'g>(grads: &[Var<'g>], max_norm: f64) -> Var<'g> {
    let squares = grads.iter().map(|g| g.square().sum_all());
    let norm = squares.reduce(|a, b| a + b).expect("clip_scale needs at least one gradient").sqrt();
    let limit = norm.graph().constant(max_norm);
    // norm = 0 must not divide: max(norm, limit) is never below the limit.
    limit / norm.maximum(limit)
}

/// The learning rate as a function of the number of updates made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LrSchedule {
    /// The same rate always.
    Constant {
        /// The rate.
        lr: f64,
    },
    /// `lr` until the first step listed, from each listed step on that step's rate.
    Steps {
        /// The rate before the first listed step.
        lr: f64,
        /// (number of updates made, rate from there on), in increasing order.
        at: Vec<(u64, f64)>,
    },
    /// lr_end + ½ (lr − lr_end)(1 + cos(π t / T)), and lr_end after T updates (Loshchilov & Hutter 2017).
    Cosine {
        /// The rate at the start.
        lr: f64,
        /// The rate at the end.
        lr_end: f64,
        /// T, in updates.
        steps: u64,
    },
}

impl LrSchedule {
    /// The rate of the update that follows `done` updates.
    pub fn at(&self, done: u64) -> f64 {
        match self {
            LrSchedule::Constant { lr } => *lr,
            LrSchedule::Steps { lr, at } => at.iter().rev().find(|(from, _)| done >= *from).map_or(*lr, |&(_, r)| r),
            LrSchedule::Cosine { lr, lr_end, steps } => {
                let part = done.min(*steps) as f64 / (*steps).max(1) as f64;
                lr_end + 0.5 * (lr - lr_end) * (1.0 + (std::f64::consts::PI * part).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_meet_their_end_points() {
        let cosine = LrSchedule::Cosine { lr: 1.0, lr_end: 0.1, steps: 10 };
        assert_eq!(cosine.at(0), 1.0);
        assert!((cosine.at(5) - 0.55).abs() < 1e-12);
        assert!((cosine.at(10) - 0.1).abs() < 1e-12);
        assert_eq!(cosine.at(10), cosine.at(99));
        let steps = LrSchedule::Steps { lr: 1.0, at: vec![(3, 0.5), (7, 0.1)] };
        assert_eq!([steps.at(2), steps.at(3), steps.at(6), steps.at(7)], [1.0, 0.5, 0.5, 0.1]);
    }

    #[test]
    fn adam_first_update_is_the_learning_rate() {
        // With bias correction the first step is lr · g/|g|, whatever the size of g.
        let adam = Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 0.0 };
        let (mut p, mut m, mut v) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        adam.update(adam.scalars(0.01, 1), 1.0, &mut p, &[1e-3, -50.0], &mut m, &mut v);
        assert!((p[0] + 0.01).abs() < 1e-15 && (p[1] - 0.01).abs() < 1e-15, "{p:?}");
    }

    #[test]
    fn a_moving_average_is_a_weighted_mean_from_the_first_update_on() {
        let ps = [[3.0, -1.0], [2.5, 4.0], [-0.5, 4.0], [0.0, 0.125]];
        for decay in [0.0, 0.5, 0.9, 0.9999] {
            let ema = Ema { decay };
            let mut a = [0.0, 1e2];
            for t in 1..=ps.len() {
                for i in 0..2 {
                    a[i] += ema.weight(t as u32) * (ps[t - 1][i] - a[i]);
                    let weights = (0..t).map(|k| decay.powi((t - 1 - k) as i32));
                    let mean = weights.clone().zip(ps).map(|(w, p)| w * p[i]).sum::<f64>() / weights.sum::<f64>();
                    assert!((a[i] - mean).abs() < 1e-12 * (1.0 + mean.abs()), "d {decay}, t {t}: {} not {mean}", a[i]);
                }
            }
        }
        assert_eq!(Ema { decay: 0.75 }.weight(u32::MAX), 0.25);
    }

    #[test]
    fn momentum_sums_gradients() {
        let sgd = Optimizer::Sgd { momentum: 0.5 };
        let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
        for t in 1..=2 {
            sgd.update(sgd.scalars(0.1, t), 1.0, &mut p, &[1.0], &mut m, &mut v);
        }
        assert!((p[0] - (1.0 - 0.1 * 1.0 - 0.1 * 1.5)).abs() < 1e-15);
    }
}
