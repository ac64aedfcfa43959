//! Sums and maxima over axes, and broadcasting, which is the transpose of the sum.
//!
//! ```text
//! y = Σ_axes x             dx = dy repeated along the axes           (each x counts once)
//! y = x repeated           dx = Σ over the repeated axes of dy        (x counts once per copy)
//! y = max_axes x           dx = dy where x = y, shared by ties
//! log Σ exp x = m + log Σ exp(x − m),  m = max x without a gradient   (never overflows; m itself where m = ±∞)
//! ```
//!
//! Broadcasting is undone here and nowhere else: element-by-element rules see operands of one shape.

use super::{Cotangents, Op, OpRule};
use crate::engine::graph::{Node, Var};
use crate::engine::math::Real;
use crate::engine::shape::{Shape, for_each_offset};

#[track_caller]
fn axes_bits(shape: Shape, axes: &[usize]) -> u8 {
    let mut bits = 0;
    for &axis in axes {
        assert!(axis < shape.len(), "axis {axis} of a value of shape {shape}");
        assert!(bits >> axis & 1 == 0, "axis {axis} is named twice in {axes:?}");
        bits |= 1 << axis;
    }
    bits
}

impl<'g> Var<'g> {
    #[track_caller]
    fn reduce(self, op: fn(u8) -> Op, bits: u8) -> Var<'g> {
        let g = self.graph();
        let shape = self.shape().with_ones(bits);
        if shape == self.shape() {
            return self;
        }
        g.push(op(bits), &[self], shape)
    }

    /// Σ over `axes`, which disappear from the shape.
    #[track_caller]
    pub fn sum(self, axes: &[usize]) -> Var<'g> {
        let shape = self.shape();
        self.sum_keep(axes).reshape(&shape.without(axes_bits(shape, axes)))
    }

    /// Σ over `axes`, which stay as size 1, so that the result broadcasts against the operand.
    #[track_caller]
    pub fn sum_keep(self, axes: &[usize]) -> Var<'g> {
        self.reduce(Op::Sum, axes_bits(self.shape(), axes))
    }

    /// Σ over everything, a scalar.
    #[track_caller]
    pub fn sum_all(self) -> Var<'g> {
        let all: Vec<usize> = (0..self.shape().len()).collect();
        self.sum(&all)
    }

    /// The mean over `axes`, which disappear from the shape.
    #[track_caller]
    pub fn mean(self, axes: &[usize]) -> Var<'g> {
        let sum = self.sum(axes);
        let count: usize = axes.iter().map(|&axis| self.shape()[axis]).product();
        sum * (1.0 / count as f64)
    }

    /// The mean over everything, a scalar.
    #[track_caller]
    pub fn mean_all(self) -> Var<'g> {
        self.sum_all() * (1.0 / self.shape().size() as f64)
    }

    /// The maximum over `axes`, which disappear from the shape; −∞ over an empty axis.
    #[track_caller]
    pub fn max(self, axes: &[usize]) -> Var<'g> {
        let shape = self.shape();
        self.max_keep(axes).reshape(&shape.without(axes_bits(shape, axes)))
    }

    /// The maximum over `axes`, which stay as size 1. Ties share the gradient equally.
    #[track_caller]
    pub fn max_keep(self, axes: &[usize]) -> Var<'g> {
        self.reduce(Op::MaxOver, axes_bits(self.shape(), axes))
    }

    /// The index of the largest element over `axis`, which disappears from the shape: the first of several, ∞ where the
    /// largest is NaN. It has no gradient.
    ///
    /// The share of rows that a classifier reads rightly is `scores.argmax(1).equal(labels).mean_all()`, for labels of shape
    /// `[rows]`.
    #[track_caller]
    pub fn argmax(self, axis: usize) -> Var<'g> {
        let (g, shape) = (self.graph(), self.shape());
        let largest = self.max_keep(&[axis]);
        let mut along = vec![1; shape.len()];
        along[axis] = shape[axis];
        let numbers = g.tensor(&along, &(0..shape[axis]).map(|i| -(i as f64)).collect::<Vec<_>>());
        -self.equal(largest).select(numbers, g.constant(f64::NEG_INFINITY)).max(&[axis])
    }

    /// ln Σ exp over `axes`, which disappear from the shape; finite whenever the largest element is, and else the
    /// largest element: −∞ where all are, ∞ where one is. d/dx = e^(x − y), the softmax, and 0 where y is infinite.
    #[track_caller]
    pub fn log_sum_exp(self, axes: &[usize]) -> Var<'g> {
        let shape = self.shape();
        let m = self.max_keep(axes).stop_gradient();
        let below = self - m;
        // ∞ − ∞ must reach neither the sum nor, as 0/0, the gradient: such a row counts as zeros.
        let finite = m.broadcast_to(&shape).abs().lt(self.graph().constant(f64::INFINITY));
        let kept = finite.select(below, self.graph().constant(0.0)).exp().sum_keep(axes).log() + m;
        kept.reshape(&shape.without(axes_bits(shape, axes)))
    }

    /// The value repeated to `shape` under NumPy's rule.
    ///
    /// # Panics
    /// When `shape` does not extend this value's shape.
    #[track_caller]
    pub fn broadcast_to(self, shape: &[usize]) -> Var<'g> {
        let (from, to) = (self.shape(), Shape::new(shape));
        if from == to {
            return self;
        }
        assert!(from.broadcast(&to) == Some(to), "{} does not broadcast to {to}", self.made());
        let g = self.graph();
        let node = g.node(self.id());
        let source = if node.op == Op::Broadcast { g.var(node.ins[0]) } else { self };
        // Leading dimensions of 1 first, so that a broadcast keeps the rank and its transpose is a plain sum.
        let mut lead = vec![1; to.len() - source.shape().len()];
        lead.extend_from_slice(&source.shape());
        let source = source.reshape(&lead);
        if source.shape() == to { source } else { g.push(Op::Broadcast, &[source], to) }
    }
}

pub(super) fn vjp(op: Op, c: &mut Cotangents<'_, '_>) {
    let (x, dy) = (c.x(0), c.dy);
    let dx = match op {
        Op::Sum(_) => dy.broadcast_to(&x.shape()),
        Op::Broadcast => {
            let (from, to) = (x.shape(), dy.shape());
            let stretched: Vec<usize> = (0..to.len()).filter(|&axis| from[axis] != to[axis]).collect();
            dy.sum_keep(&stretched)
        }
        Op::MaxOver(bits) => {
            let axes: Vec<usize> = (0..x.shape().len()).filter(|axis| bits >> axis & 1 == 1).collect();
            let hit = x.equal(c.y);
            hit * (dy / hit.sum_keep(&axes))
        }
        _ => unreachable!("{op:?} is no reduction"),
    };
    c.give(0, dx);
}

pub(super) fn sum_rule() -> OpRule {
    OpRule::new("Σ x over the axes", &[("x", "dy repeated along the axes")])
}

pub(super) fn broadcast_rule() -> OpRule {
    OpRule::new("x repeated", &[("x", "Σ dy over the repeated axes")])
}

pub(super) fn max_rule() -> OpRule {
    OpRule::new("max x over the axes", &[("x", "(x = y) * (dy / Σ (x = y) over the axes)")])
}

pub(super) fn eval<F: Real>(node: &Node, from: Shape, x: &[F]) -> Vec<F> {
    let to = node.shape;
    let mut out = Vec::with_capacity(to.size());
    match node.op {
        Op::Broadcast => for_each_offset(&to, &from.broadcast_strides(&to), |o| out.push(x[o])),
        Op::Sum(_) | Op::MaxOver(_) => {
            let summing = matches!(node.op, Op::Sum(_));
            out.resize(to.size(), if summing { F::default() } else { F::from_f64(f64::NEG_INFINITY) });
            let mut values = x.iter();
            for_each_offset(&from, &to.broadcast_strides(&from), |o| {
                let v = *values.next().expect("one offset per element");
                out[o] = if summing { out[o] + v } else { out[o].max(v) };
            });
        }
        _ => unreachable!("{:?} is no reduction", node.op),
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::{Graph, Interp, grad};

    #[test]
    fn the_first_of_the_largest_is_found_along_any_axis() {
        let g = Graph::new();
        let x = g.tensor(&[2, 3], &[1.0, 4.0, 4.0, f64::NEG_INFINITY, -1.0, -2.0]);
        let mut run = Interp::<f32>::new(&g);
        assert_eq!((run.eval(x.argmax(1)), run.eval(x.argmax(0))), (vec![1.0, 1.0], vec![0.0, 0.0, 0.0]));
        let broken = g.tensor(&[1, 2], &[1.0, f64::NAN]);
        assert_eq!(run.eval(grad(x.argmax(1).sum_all(), &[x])[0]), [0.0; 6]);
        assert_eq!(run.eval(broken.argmax(1)), [f32::INFINITY]);
        let nothing = g.full(&[2], f64::NEG_INFINITY);
        assert_eq!(run.eval(nothing.argmax(0)), [0.0]);
    }
}
