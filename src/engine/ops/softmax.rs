//! The softmax, which makes a distribution of a row of logits, and its logarithm. Rows run along the last axis.
//!
//! ```text
//! y = e^(x − m) / Σ e^(x − m),   m = max x          dx = y (dy − Σ y dy)
//! y = x − m − ln Σ e^(x − m)                        dx = dy − e^y Σ dy
//! ```
//!
//! Derivation: ∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ − yⱼ) for the softmax, and δᵢⱼ − e^yⱼ for its logarithm; multiply by dyᵢ and sum over i.
//! Both gradients are operations of their own, so that each is one pass over a row as well. They are functions of y and
//! dy, linear in dy, and what is derived from them is composed of sums and products.

use super::{Cotangents, Op, OpRule};
use crate::engine::graph::Var;
use crate::engine::math::Real;
use crate::engine::shape::Shape;

impl<'g> Var<'g> {
    /// eˣ / Σ eˣ over `axis`: positive numbers with sum 1. Never overflows, and an x of −∞ counts as impossible: 0. Where
    /// the largest x of a row is infinite there is no such distribution, and the row is NaN.
    ///
    /// One kernel over the last axis; over another it is composed of several.
    ///
    /// # Panics
    /// When the value has no such axis.
    #[track_caller]
    pub fn softmax(self, axis: usize) -> Var<'g> {
        if self.is_last(axis) { self.rowwise(false) } else { self.log_softmax(axis).exp() }
    }

    /// x − ln Σ eˣ over `axis`: the logarithm of [`Var::softmax`], exact where that underflows.
    ///
    /// # Panics
    /// When the value has no such axis.
    #[track_caller]
    pub fn log_softmax(self, axis: usize) -> Var<'g> {
        if self.is_last(axis) {
            return self.rowwise(true);
        }
        self - self.log_sum_exp(&[axis]).reshape(&self.shape().with_ones(1 << axis))
    }

    #[track_caller]
    fn is_last(self, axis: usize) -> bool {
        let shape = self.shape();
        assert!(axis < shape.len(), "axis {axis} of {}, which has {} axes", self.made(), shape.len());
        axis + 1 == shape.len()
    }

    #[track_caller]
    fn rowwise(self, log: bool) -> Var<'g> {
        self.graph().push(Op::Softmax { log }, &[self], self.shape())
    }
}

/// Σ over the last axis, which stays as size 1.
fn row_sum(x: Var<'_>) -> Var<'_> {
    x.sum_keep(&[x.shape().len() - 1])
}

pub(super) fn vjp(op: Op, c: &mut Cotangents<'_, '_>) {
    match op {
        Op::Softmax { log } => {
            let dx = c.graph.push(Op::SoftmaxGrad { log }, &[c.y, c.dy], c.dy.shape());
            c.give(0, dx);
        }
        Op::SoftmaxGrad { log } => {
            // The operation is g(y, u), and dg what arrives: ∂⟨dg, g⟩/∂y and ∂⟨dg, g⟩/∂u.
            let (y, u, dg) = (c.x(0), c.x(1), c.dy);
            let (dy, du) = if log {
                let p = y.exp();
                (-(dg * p * row_sum(u)), dg - row_sum(dg * p))
            } else {
                let across = row_sum(dg * y);
                (dg * (u - row_sum(y * u)) - u * across, y * (dg - across))
            };
            c.give(0, dy);
            c.give(1, du);
        }
        _ => unreachable!("{op:?} is no softmax"),
    }
}

pub(super) fn rule(log: bool) -> OpRule {
    match log {
        false => OpRule::new("e^x / Σ e^x over each row", &[("x", "y * (dy − Σ y dy)")]),
        true => OpRule::new("x − ln Σ e^x over each row", &[("x", "dy − e^y Σ dy")]),
    }
}

/// Of the gradient: p the softmax, l its logarithm, u the cotangent that it is made of.
pub(super) fn gradient_rule(log: bool) -> OpRule {
    match log {
        false => OpRule::new("p * (u − Σ p u)", &[("p", "dy * (u − Σ p u) − u Σ dy p"), ("u", "p * (dy − Σ dy p)")]),
        true => OpRule::new("u − e^l Σ u", &[("l", "−dy e^l Σ u"), ("u", "dy − Σ dy e^l")]),
    }
}

pub(super) fn eval<F: Real>(op: Op, shape: Shape, ins: &[&[F]]) -> Vec<F> {
    let cols = shape.matrix().1.max(1);
    let zero = F::default();
    let mut out = ins[0].to_vec();
    for (r, row) in out.chunks_exact_mut(cols).enumerate() {
        match op {
            Op::Softmax { log } => {
                let m = row.iter().fold(F::from_f64(f64::NEG_INFINITY), |m, &x| m.max(x));
                let sum = row.iter().fold(zero, |sum, &x| sum + (x - m).exp());
                row.iter_mut().for_each(|x| *x = if log { (*x - m) - sum.log() } else { (*x - m).exp() / sum });
            }
            Op::SoftmaxGrad { log } => {
                let dy = &ins[1][r * cols..][..cols];
                let weigh = |y: F, dy: F| if log { dy } else { y * dy };
                let sum = row.iter().zip(dy).fold(zero, |sum, (&y, &dy)| sum + weigh(y, dy));
                row.iter_mut().zip(dy).for_each(|(y, &dy)| *y = if log { dy - y.exp() * sum } else { *y * (dy - sum) });
            }
            _ => unreachable!("{op:?} is no softmax"),
        }
    }
    out
}
