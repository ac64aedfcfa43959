//! Rules of differentiation and operations of one's own.
//!
//! ```text
//! y = custom_vjp(x₁ … xₙ; value, rule)      y = value           dx₁ … dxₙ = rule(x₁ … xₙ, y, dy)
//! y = custom_op(op, x₁ … xₙ)                y = op(x₁ … xₙ)     dx₁ … dxₙ = op.vjp(x₁ … xₙ, y, dy)
//! ```
//!
//! The first computes nothing: to the planner y is another name of `value`, as a `stop_gradient` is. What is new is only
//! where the reverse pass goes on: not into `value`, but at the inputs, with what the rule pushes. The second is a kernel
//! of its own, by a [`CustomOp`].

use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::{Cotangents, OpRule};
use crate::engine::graph::{Id, Var};
use crate::engine::math::Real;
use crate::engine::shape::Shape;

/// The cotangents of the inputs from the inputs, y and dy.
type Vjp = dyn for<'g> Fn(&[Var<'g>], Var<'g>, Var<'g>) -> Vec<Var<'g>>;

/// A rule of differentiation of one's own; it lives in the graph.
#[derive(Clone)]
pub(crate) struct CustomRule {
    /// The values that get cotangents.
    pub inputs: Vec<Id>,
    vjp: Rc<Vjp>,
}

/// The value `y` with the vector-Jacobian product `vjp`: the reverse pass hands the closure the inputs, the value and
/// dy = ∂loss/∂y, and takes what it returns as ∂loss/∂input, one for each input and of its shape. It pushes nodes and
/// computes nothing, like every rule of this crate, so that it can be differentiated again; what it does not use of
/// `inputs`, `y` and `dy` costs nothing.
///
/// `y` is any value, of the inputs or not; nothing flows into it. With an input that is `y` itself, the closure changes a
/// gradient on its way (clips it, scales it, turns it round).
///
/// The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432) takes a step for the identity:
///
/// ```
/// use elbo::{custom_vjp, grad, Graph, Interp};
/// let g = Graph::new();
/// let x = g.tensor(&[3], &[-1.0, 0.5, 2.0]);
/// let bit = custom_vjp(&[x], x.step(), |_, _, dy| vec![dy]);
/// let dx = grad((bit * 3.0).sum_all(), &[x])[0];
/// let mut run = Interp::<f64>::new(&g);
/// assert_eq!(run.eval(bit), [0.0, 1.0, 1.0]);
/// assert_eq!(run.eval(dx), [3.0; 3]);
/// ```
///
/// # Panics
/// When an input is of another graph than `y`; in the reverse pass, when the closure returns another number of cotangents
/// than there are inputs, or one with another shape than its input.
#[track_caller]
pub fn custom_vjp<'g>(
    inputs: &[Var<'g>],
    y: Var<'g>,
    vjp: impl for<'a> Fn(&[Var<'a>], Var<'a>, Var<'a>) -> Vec<Var<'a>> + 'static,
) -> Var<'g> {
    for x in inputs {
        y.meets("custom_vjp", *x);
    }
    let inputs = inputs.iter().map(|x| x.id()).collect();
    y.graph().with_rule(y, CustomRule { inputs, vjp: Rc::new(vjp) })
}

impl CustomRule {
    pub(super) fn vjp(&self, c: &mut Cotangents<'_, '_>) {
        let inputs: Vec<Var> = self.inputs.iter().map(|&id| c.graph.var(id)).collect();
        give_all("custom_vjp", (self.vjp)(&inputs, c.y, c.dy), c);
    }
}

/// Hands over the cotangents that somebody else's rule has returned.
fn give_all<'g>(what: &str, cotangents: Vec<Var<'g>>, c: &mut Cotangents<'g, '_>) {
    let (given, wanted) = (cotangents.len(), c.ins.len());
    assert!(given == wanted, "{what} of {}: {given} cotangents for {wanted} inputs", c.y.made());
    for (i, dx) in cotangents.into_iter().enumerate() {
        let x = c.x(i);
        x.meets(what, dx);
        x.has_shape_of(&format!("{what} of {}: input {i} and its cotangent", c.y.made()), dx);
        c.give(i, dx);
    }
}

/// The value of an input, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, F> {
    /// Its shape.
    pub shape: Shape,
    /// Its elements.
    pub values: &'a [F],
}

impl<'a, F> Operand<'a, F> {
    /// Some rows, whose columns are the last dimension: what [`CustomOp::run`] needs of an operand with the value's rows.
    ///
    /// # Panics
    /// When there are no such rows.
    pub fn rows(&self, rows: Range<usize>) -> &'a [F] {
        let cols = self.shape.matrix().1;
        &self.values[rows.start * cols..rows.end * cols]
    }
}

/// An operation with kernels of its own, for [`custom_op`]. It is evaluated in f64 by the interpreter and in f32 on the CPU.
/// A GPU, for which no kernel can be brought, takes what the operation is [composed](CustomOp::compose) of; of one that is
/// composed of nothing, compiling a function for it is an [`Error::Device`](crate::Error::Device).
///
/// The planner treats it like a matrix product: its operands are in memory, contiguous, and so is its value, which what is
/// element-by-element around it is not fused with. Every call is a node of its own; equal calls are not found to be equal.
///
/// ```
/// use std::ops::Range;
/// use elbo::gradcheck::{gradcheck, Point};
/// use elbo::{custom_op, CustomOp, Operand, Shape, Var};
///
/// /// y[i, j] = Σ x[i, k] over k ≤ j, or over k ≥ j: each is the transpose of the other.
/// #[derive(Debug)]
/// struct RunningSum { backwards: bool }
///
/// impl CustomOp for RunningSum {
///     fn name(&self) -> &'static str { "running_sum" }
///     fn shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
///         if inputs[0].is_empty() { Err("a scalar has no running sum".into()) } else { Ok(inputs[0]) }
///     }
///     fn vjp<'g>(&self, _: &[Var<'g>], _: Var<'g>, dy: Var<'g>) -> Vec<Var<'g>> {
///         vec![custom_op(RunningSum { backwards: !self.backwards }, &[dy])]
///     }
///     fn eval(&self, inputs: &[Operand<'_, f64>], out: &mut [f64]) {
///         let (rows, cols) = inputs[0].shape.matrix();
///         for at in 0..rows * cols {
///             let (row, j) = (at / cols * cols, at % cols);
///             let summed = if self.backwards { row + j..row + cols } else { row..row + j + 1 };
///             out[at] = inputs[0].values[summed].iter().sum();
///         }
///     }
///     fn run(&self, inputs: &[Operand<'_, f32>], rows: Range<usize>, out: &mut [f32]) {
///         let (x, cols) = (inputs[0].rows(rows), inputs[0].shape.matrix().1);
///         for (x, out) in x.chunks(cols.max(1)).zip(out.chunks_mut(cols.max(1))) {
///             let mut sum = 0.0;
///             for j in 0..cols {
///                 let j = if self.backwards { cols - 1 - j } else { j };
///                 sum += x[j];
///                 out[j] = sum;
///             }
///         }
///     }
/// }
///
/// let point = Point::new().input("x", &[2, 3], &[0.1, -0.7, 1.3, 0.4, 0.0, -0.2]);
/// gradcheck(|_, x| custom_op(RunningSum { backwards: false }, x).tanh(), &point).assert();
/// ```
pub trait CustomOp: fmt::Debug + Send + Sync {
    /// The name, for the tape, the plan and messages.
    fn name(&self) -> &'static str;

    /// The shape of the value.
    ///
    /// # Errors
    /// Why there is no value of inputs of these shapes: [`custom_op`] panics with it and with the lines that made them.
    fn shape(&self, inputs: &[Shape]) -> Result<Shape, String>;

    /// ∂loss/∂input for every input, of its shape, as nodes; see [`custom_vjp`]. Zeros, `dy.graph().full(…, 0.0)`, for an
    /// input that has no gradient.
    fn vjp<'g>(&self, inputs: &[Var<'g>], y: Var<'g>, dy: Var<'g>) -> Vec<Var<'g>>;

    /// The definition: all of the value, row-major, into `out`, which holds zeros.
    fn eval(&self, inputs: &[Operand<'_, f64>], out: &mut [f64]);

    /// The kernel: `rows` of the value, whose columns are its last dimension, into `out`, which holds anything. Threads run
    /// it for different rows at the same time. For the same bits with any cut it computes each row in one way.
    fn run(&self, inputs: &[Operand<'_, f32>], rows: Range<usize>, out: &mut [f32]);

    /// The same value, of the same shape, as nodes of the graph, for devices without a kernel for this operation; none if it
    /// cannot be had. What it is made of may hold other operations of one's own, which are composed in their turn.
    fn compose<'g>(&self, inputs: &[Var<'g>]) -> Option<Var<'g>> {
        let _ = inputs;
        None
    }

    /// Floating-point operations for the whole value, about: the plan's table shows them, and the rows are cut into pieces
    /// for threads by them. One for each element unless said otherwise.
    fn flops(&self, inputs: &[Shape], value: Shape) -> u64 {
        let _ = inputs;
        value.size() as u64
    }
}

/// The most inputs that an operation can have.
pub(crate) const MOST_INPUTS: usize = 3;

/// op(x₁ … xₙ) for an operation of one's own and up to three inputs.
///
/// # Panics
/// Without inputs or with more than three, with inputs of two graphs, or when the operation has no value of inputs of these
/// shapes; in the reverse pass as [`custom_vjp`].
#[track_caller]
pub fn custom_op<'g>(op: impl CustomOp + 'static, inputs: &[Var<'g>]) -> Var<'g> {
    let name = op.name();
    let count = inputs.len();
    assert!((1..=MOST_INPUTS).contains(&count), "{name}: {count} inputs, where one to {MOST_INPUTS} can be had");
    for x in inputs {
        inputs[0].meets(name, *x);
    }
    let shapes: Vec<Shape> = inputs.iter().map(|x| x.shape()).collect();
    match op.shape(&shapes) {
        Ok(shape) => inputs[0].graph().with_op(Arc::new(op), inputs, shape),
        Err(why) => {
            let made: Vec<String> = inputs.iter().map(|x| x.made()).collect();
            panic!("{name}: {why}: {}", made.join(" and "))
        }
    }
}

pub(super) fn vjp_rule() -> OpRule {
    OpRule::new("a value with a rule of its own", &[("x", "what the rule makes of the inputs, y and dy")])
}

pub(super) fn op_rule() -> OpRule {
    OpRule::new("an operation of one's own", &[("x", "what its vjp makes of the inputs, y and dy")])
}

/// Pushes what the operation's rule returns.
pub(super) fn vjp(op: &dyn CustomOp, c: &mut Cotangents<'_, '_>) {
    let inputs: Vec<Var> = (0..c.ins.len()).map(|i| c.x(i)).collect();
    give_all(op.name(), op.vjp(&inputs, c.y, c.dy), c);
}

/// The value by the operation's definition, whatever the interpreter's numbers are.
pub(crate) fn eval<F: Real>(op: &dyn CustomOp, shape: Shape, shapes: &[Shape], ins: &[&[F]]) -> Vec<F> {
    let wide: Vec<Vec<f64>> = ins.iter().map(|x| x.iter().map(|v| v.to_f64()).collect()).collect();
    let operands: Vec<Operand<f64>> =
        shapes.iter().zip(&wide).map(|(&shape, values)| Operand { shape, values }).collect();
    let mut out = vec![0.0; shape.size()];
    op.eval(&operands, &mut out);
    out.into_iter().map(F::from_f64).collect()
}
