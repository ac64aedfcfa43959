//! Optimisers, learning-rate schedules and KL warm-up: what changes from step to step, as plain values.
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
#[serde(tag = "kind", rename_all = "snake_case")]
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

/// The weight β of the KL term as a function of the number of updates made: linear from 0 to `beta` over `steps`
/// updates, then constant (Bowman et al. 2016; β as in Higgins et al. 2017).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KlWarmup {
    /// The final weight; 1 is the evidence lower bound.
    pub beta: f64,
    /// Length of the ramp in updates; 0 starts at `beta`.
    pub steps: u64,
}

impl KlWarmup {
    /// β of the step that follows `done` updates.
    pub fn at(&self, done: u64) -> f64 {
        if done >= self.steps { self.beta } else { self.beta * done as f64 / self.steps as f64 }
    }
}

/// Everything that changes from step to step, in one small block beside the memory of an executor, so that a plan
/// holds no number that would be frozen into it. [`Control::tick`] ends a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The seed of noise and shuffling.
    pub seed: u64,
    /// Counts steps for the noise: every step draws other numbers.
    pub step: u32,
    /// Counts epochs for the shuffling.
    pub epoch: u32,
    /// The position in the epoch of the batch's first row.
    pub cursor: u32,
    /// Whether batches follow the epoch's permutation or the data's own order.
    pub shuffle: bool,
    /// The number of optimiser updates made.
    pub updates: u32,
    /// The learning rate.
    pub lr: LrSchedule,
    /// The weight of the KL term.
    pub warmup: KlWarmup,
}

impl Control {
    /// Step 0 of epoch 0, in the data's order, learning rate 1e-3, β = 1.
    pub fn new(seed: u64) -> Control {
        Control {
            seed,
            step: 0,
            epoch: 0,
            cursor: 0,
            shuffle: false,
            updates: 0,
            lr: LrSchedule::Constant { lr: 1e-3 },
            warmup: KlWarmup { beta: 1.0, steps: 0 },
        }
    }

    /// The learning rate of this step.
    pub fn learning_rate(&self) -> f64 {
        self.lr.at(u64::from(self.updates))
    }

    /// The KL weight β of this step.
    pub fn beta(&self) -> f64 {
        self.warmup.at(u64::from(self.updates))
    }

    /// Ends a step that read `rows` rows of data and made an update if `updated`.
    pub fn tick(&mut self, rows: usize, updated: bool) {
        self.step = self.step.wrapping_add(1);
        self.cursor += rows as u32;
        self.updates += u32::from(updated);
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
        let warm = KlWarmup { beta: 2.0, steps: 4 };
        assert_eq!([warm.at(0), warm.at(2), warm.at(4), warm.at(9)], [0.0, 1.0, 2.0, 2.0]);
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
    fn momentum_sums_gradients() {
        let sgd = Optimizer::Sgd { momentum: 0.5 };
        let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
        for t in 1..=2 {
            sgd.update(sgd.scalars(0.1, t), 1.0, &mut p, &[1.0], &mut m, &mut v);
        }
        assert!((p[0] - (1.0 - 0.1 * 1.0 - 0.1 * 1.5)).abs() < 1e-15);
    }
}
