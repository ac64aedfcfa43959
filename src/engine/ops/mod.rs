//! The operations: for each its shape rule, its vector-Jacobian product and its meaning, side by side.
//!
//! | file | operations |
//! |---|---|
//! | [`scalar`] | functions of one and two numbers, element by element: the table |
//! | [`matmul`] | the matrix product with transposition flags |
//! | [`reduce`] | sums and maxima over axes, and their inverse, broadcasting |
//! | [`softmax`] | the softmax of rows and its logarithm, with their gradients |
//! | [`layout`] | reshape, transpose, columns, rows and elements by index, stop_gradient |
//! | [`custom`] | rules of differentiation and operations of one's own |
//! | [`rule`] | what the rules say, as text |
//!
//! The contract of a rule of differentiation: it gets the inputs, the value y and dy = ∂loss/∂y, and *pushes nodes*
//! for ∂loss/∂input. It never computes anything. That is what makes a gradient something that can be differentiated
//! again, printed, and fused with the forward pass.

pub mod custom;
pub mod layout;
pub mod matmul;
pub mod reduce;
pub mod rule;
pub mod scalar;
pub mod softmax;

use crate::engine::graph::{Ctl, Graph, Id, Node, Slot, Var};
use crate::engine::math::Real;
use crate::engine::shape::Shape;
pub use rule::OpRule;
pub use scalar::{BinaryFn, ScalarFn};

/// A value that is not computed from others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Leaf {
    /// A scalar constant, as the bits of an f64.
    Const(u64),
    /// A constant array, by its number.
    Tensor(u32),
    /// The content of a parameter or state slot.
    Slot(Slot),
    /// The current batch of a data slot, divided by the f32 of these bits.
    Batch(Slot, u32),
    /// Standard normal noise of a stream.
    Normal(u32),
    /// Uniform noise of a stream.
    Uniform(u32),
    /// A scalar that changes from step to step.
    Ctl(Ctl),
}

/// An operation. The shape of the result is part of the node, so `Broadcast` and `Reshape` carry none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// See [`Leaf`].
    Leaf(Leaf),
    /// A function of one number from the table.
    Scalar(ScalarFn),
    /// x^c for a constant c, as the bits of an f64.
    Pow(u64),
    /// A function of two numbers.
    Binary(BinaryFn),
    /// condition ≠ 0 ? a : b.
    Select,
    /// op(A)·op(B), each transposed if its flag is set.
    MatMul {
        /// Read the left operand transposed.
        ta: bool,
        /// Read the right operand transposed.
        tb: bool,
    },
    /// Sum over the axes of the bit set; they stay as size 1.
    Sum(u8),
    /// Maximum over the axes of the bit set; they stay as size 1.
    MaxOver(u8),
    /// The softmax of every row, or its logarithm.
    Softmax {
        /// The logarithm.
        log: bool,
    },
    /// The gradient of `Softmax` as an operation on its value and ∂loss/∂value.
    SoftmaxGrad {
        /// Of the logarithm.
        log: bool,
    },
    /// Repeats along dimensions of size 1.
    Broadcast,
    /// The same elements in another shape.
    Reshape,
    /// A matrix transposed.
    Transpose,
    /// Columns `start …` of the last dimension.
    SliceCols(u32),
    /// Zeros around columns `start …` of the last dimension: the transpose of `SliceCols`.
    PadCols(u32),
    /// Two matrices side by side.
    ConcatCols,
    /// Rows of a table by index.
    GatherRows,
    /// Sums rows into a table by index: the transpose of `GatherRows`.
    ScatterRows,
    /// One element of every row by index.
    Pick,
    /// Each number into its row by index, between zeros: the transpose of `Pick`.
    Place,
    /// The value, without a gradient.
    StopGradient,
    /// The value, with the rule of differentiation of this number.
    CustomVjp(u32),
    /// The operation of one's own of this number.
    Custom(u32),
}

impl Op {
    /// The operation's name for tables and error messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Leaf(Leaf::Const(_)) => "const",
            Op::Leaf(Leaf::Tensor(_)) => "tensor",
            Op::Leaf(Leaf::Slot(_)) => "slot",
            Op::Leaf(Leaf::Batch(..)) => "batch",
            Op::Leaf(Leaf::Normal(_)) => "normal",
            Op::Leaf(Leaf::Uniform(_)) => "uniform",
            Op::Leaf(Leaf::Ctl(_)) => "ctl",
            Op::Scalar(f) => f.name(),
            Op::Pow(_) => "pow",
            Op::Binary(f) => f.name(),
            Op::Select => "select",
            Op::MatMul { .. } => "matmul",
            Op::Sum(_) => "sum",
            Op::MaxOver(_) => "max_over",
            Op::Softmax { log: false } => "softmax",
            Op::Softmax { log: true } => "log_softmax",
            Op::SoftmaxGrad { log: false } => "softmax_grad",
            Op::SoftmaxGrad { log: true } => "log_softmax_grad",
            Op::Broadcast => "broadcast",
            Op::Reshape => "reshape",
            Op::Transpose => "transpose",
            Op::SliceCols(_) => "slice_cols",
            Op::PadCols(_) => "pad_cols",
            Op::ConcatCols => "concat_cols",
            Op::GatherRows => "gather_rows",
            Op::ScatterRows => "scatter_rows",
            Op::Pick => "pick",
            Op::Place => "place",
            Op::StopGradient => "stop_gradient",
            Op::CustomVjp(_) => "custom_vjp",
            Op::Custom(_) => "custom_op",
        }
    }

    /// The operation with its inputs, as one would write it.
    pub fn describe<'a>(&self, ins: &[String], slot_name: impl Fn(Slot) -> &'a str) -> String {
        let axes =
            |bits: u8| (0..8).filter(|i| bits >> i & 1 == 1).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
        let name = self.name();
        match *self {
            Op::Leaf(Leaf::Const(bits)) => format!("{:?}", f64::from_bits(bits)),
            Op::Leaf(Leaf::Tensor(i)) => format!("tensor #{i}"),
            Op::Leaf(Leaf::Slot(slot)) => slot_name(slot).to_string(),
            Op::Leaf(Leaf::Batch(slot, unit)) => {
                let unit = f32::from_bits(unit);
                let per = if unit == 1.0 { String::new() } else { format!(" / {unit}") };
                format!("batch of {}{per}", slot_name(slot))
            }
            Op::Leaf(Leaf::Normal(stream) | Leaf::Uniform(stream)) => format!("{name} noise, stream {stream}"),
            Op::Leaf(Leaf::Ctl(field)) => format!("ctl {field:?}"),
            Op::Pow(c) => format!("pow({}, {:?})", ins[0], f64::from_bits(c)),
            Op::MatMul { ta, tb } => {
                let mark = |t: bool| if t { "ᵀ" } else { "" };
                format!("matmul({}{}, {}{})", ins[0], mark(ta), ins[1], mark(tb))
            }
            Op::Sum(bits) | Op::MaxOver(bits) => format!("{name}({}, axes {})", ins[0], axes(bits)),
            Op::SliceCols(start) | Op::PadCols(start) => format!("{name}({}, from {start})", ins[0]),
            _ => format!("{name}({})", ins.join(", ")),
        }
    }

    /// Whether the value is that of the operand: the two differ only for the reverse pass.
    pub fn is_alias(&self) -> bool {
        matches!(self, Op::StopGradient | Op::CustomVjp(_))
    }

    /// Whether the value is computed element by element from operands of the same shape.
    pub fn is_pointwise(&self) -> bool {
        matches!(self, Op::Scalar(_) | Op::Pow(_) | Op::Binary(_) | Op::Select)
    }
}

/// What a rule of differentiation works with.
pub(crate) struct Cotangents<'g, 'a> {
    /// The graph that nodes are pushed to.
    pub graph: &'g Graph,
    /// The values that get cotangents: the inputs of the node, or those of its custom rule.
    pub ins: &'a [Id],
    /// Its value.
    pub y: Var<'g>,
    /// ∂loss/∂y.
    pub dy: Var<'g>,
    /// Receives (which input, ∂loss/∂input).
    pub out: &'a mut Vec<(usize, Var<'g>)>,
}

impl<'g> Cotangents<'g, '_> {
    /// Input `i` as a value.
    pub fn x(&self, i: usize) -> Var<'g> {
        self.graph.var(self.ins[i])
    }

    /// Hands over ∂loss/∂input `i`.
    pub fn give(&mut self, i: usize, dx: Var<'g>) {
        assert_eq!(dx.shape(), self.x(i).shape(), "a gradient has the shape of its input");
        self.out.push((i, dx));
    }
}

/// Pushes ∂loss/∂input for every input of `node` that has one.
pub(crate) fn vjp(node: &Node, c: &mut Cotangents<'_, '_>) {
    let dy = c.dy;
    match node.op {
        Op::Leaf(_) | Op::StopGradient => {}
        Op::CustomVjp(rule) => c.graph.rule(rule).vjp(c),
        Op::Custom(op) => custom::vjp(&*c.graph.custom_op(op), c),
        Op::Scalar(f) => {
            if let Some(dx) = f.vjp(c.x(0), c.y, dy) {
                c.give(0, dx);
            }
        }
        Op::Pow(bits) => {
            let p = f64::from_bits(bits);
            let dx = dy * (c.x(0).pow(p - 1.0) * p);
            c.give(0, dx);
        }
        Op::Binary(f) => {
            let (da, db) = f.vjp(c.x(0), c.x(1), c.y, dy);
            da.into_iter().for_each(|da| c.give(0, da));
            db.into_iter().for_each(|db| c.give(1, db));
        }
        Op::Select => {
            let zero = c.graph.full(&dy.shape(), 0.0);
            let (da, db) = (c.x(0).select(dy, zero), c.x(0).select(zero, dy));
            c.give(1, da);
            c.give(2, db);
        }
        Op::MatMul { ta, tb } => matmul::vjp(ta, tb, c),
        Op::Sum(_) | Op::MaxOver(_) | Op::Broadcast => reduce::vjp(node.op, c),
        Op::Softmax { .. } | Op::SoftmaxGrad { .. } => softmax::vjp(node.op, c),
        _ => layout::vjp(node.op, c),
    }
}

fn pow_rule() -> OpRule {
    OpRule::new("x^p", &[("x", "dy * (x^(p−1) * p)")])
}

fn select_rule() -> OpRule {
    OpRule::new("q ≠ 0 ? a : b", &[("q", "0"), ("a", "q.select(dy, 0)"), ("b", "q.select(0, dy)")])
}

/// The value of a node that has inputs, from their values: the definition every kernel is tested against.
pub(crate) fn eval<F: Real>(node: &Node, shapes: &[Shape], ins: &[&[F]]) -> Vec<F> {
    match node.op {
        Op::Scalar(f) => {
            let mut out = vec![F::default(); ins[0].len()];
            f.eval_slice(ins[0], &mut out);
            out
        }
        Op::Pow(bits) => ins[0].iter().map(|x| x.powf(f64::from_bits(bits))).collect(),
        Op::Binary(f) => ins[0].iter().zip(ins[1]).map(|(&a, &b)| f.eval(a, b)).collect(),
        Op::Select => {
            let pairs = ins[1].iter().zip(ins[2]);
            ins[0].iter().zip(pairs).map(|(&q, (&a, &b))| F::select(q != F::default(), a, b)).collect()
        }
        Op::MatMul { ta, tb } => matmul::eval(ta, tb, shapes, ins),
        Op::Sum(_) | Op::MaxOver(_) | Op::Broadcast => reduce::eval(node, shapes[0], ins[0]),
        Op::Softmax { .. } | Op::SoftmaxGrad { .. } => softmax::eval(node.op, node.shape, ins),
        Op::Leaf(leaf) => unreachable!("{leaf:?} is read from memory, not computed"),
        Op::Custom(op) => unreachable!("operation {op} is the graph's, see custom::eval"),
        _ => layout::eval(node, shapes, ins),
    }
}

/// Element-by-element operations, and the operators.
impl<'g> Var<'g> {
    #[track_caller]
    pub(crate) fn unary(self, op: Op) -> Var<'g> {
        let g = self.graph();
        if op == Op::Scalar(ScalarFn::Neg) {
            // −(−x) = x, and constants are folded, so that subtraction leaves no chains behind.
            let node = g.node(self.id());
            if node.op == op {
                return g.var(node.ins[0]);
            }
        }
        if let (Some(v), Op::Scalar(f)) = (self.as_constant(), op) {
            return g.full(&self.shape(), f.eval(v));
        }
        g.push(op, &[self], self.shape())
    }

    #[track_caller]
    fn binary(self, f: BinaryFn, other: Var<'g>) -> Var<'g> {
        let shape = common_shape(f.name(), &[self, other]);
        let (a, b) = (self.broadcast_to(&shape), other.broadcast_to(&shape));
        if let Some(simple) = simplify(f, a, b) {
            return simple;
        }
        // a + b and b + a are one node.
        let swap = matches!(f, BinaryFn::Add | BinaryFn::Mul) && a.id() > b.id();
        let (a, b) = if swap { (b, a) } else { (a, b) };
        let g = self.graph();
        g.push(Op::Binary(f), &[a, b], shape)
    }

    /// A row of the table by its value, element by element: `x.map(ScalarFn::Exp)` is `x.exp()`.
    #[track_caller]
    pub fn map(self, f: ScalarFn) -> Var<'g> {
        self.unary(Op::Scalar(f))
    }

    /// A function of two numbers by its value, element by element: `a.zip(BinaryFn::Add, b)` is `a + b`.
    #[track_caller]
    pub fn zip(self, f: BinaryFn, other: Var<'g>) -> Var<'g> {
        self.binary(f, other)
    }

    /// x^c for a constant exponent; d/dx = c x^(c−1).
    #[track_caller]
    pub fn pow(self, exponent: f64) -> Var<'g> {
        match exponent {
            0.0 => self.graph().full(&self.shape(), 1.0),
            1.0 => self,
            2.0 => self.square(),
            c => self.unary(Op::Pow(c.to_bits())),
        }
    }

    /// max(x, 0) + slope · min(x, 0).
    #[track_caller]
    pub fn leaky_relu(self, slope: f64) -> Var<'g> {
        self.relu() - (-self).relu() * slope
    }

    /// The larger of two values, element by element; the gradient of a tie goes to `self`.
    #[track_caller]
    pub fn maximum(self, other: Var<'g>) -> Var<'g> {
        self.binary(BinaryFn::Max, other)
    }

    /// The smaller of two values, element by element; the gradient of a tie goes to `self`.
    #[track_caller]
    pub fn minimum(self, other: Var<'g>) -> Var<'g> {
        self.binary(BinaryFn::Min, other)
    }

    /// 1 where self < other, else 0.
    #[track_caller]
    pub fn lt(self, other: Var<'g>) -> Var<'g> {
        self.binary(BinaryFn::Lt, other)
    }

    /// 1 where self ≤ other, else 0.
    #[track_caller]
    pub fn le(self, other: Var<'g>) -> Var<'g> {
        self.binary(BinaryFn::Le, other)
    }

    /// 1 where self > other, else 0.
    #[track_caller]
    pub fn gt(self, other: Var<'g>) -> Var<'g> {
        other.binary(BinaryFn::Lt, self)
    }

    /// 1 where self ≥ other, else 0.
    #[track_caller]
    pub fn ge(self, other: Var<'g>) -> Var<'g> {
        other.binary(BinaryFn::Le, self)
    }

    /// 1 where both are equal, else 0.
    #[track_caller]
    pub fn equal(self, other: Var<'g>) -> Var<'g> {
        self.binary(BinaryFn::Eq, other)
    }

    /// `a` where self ≠ 0, `b` elsewhere. The gradient goes to the operand that was chosen.
    #[track_caller]
    pub fn select(self, a: Var<'g>, b: Var<'g>) -> Var<'g> {
        let shape = common_shape("select", &[self, a, b]);
        let (q, a, b) = (self.broadcast_to(&shape), a.broadcast_to(&shape), b.broadcast_to(&shape));
        self.graph().push(Op::Select, &[q, a, b], shape)
    }
}

/// The shape that all `values` broadcast to.
#[track_caller]
fn common_shape(what: &str, values: &[Var<'_>]) -> Shape {
    let mut common = Shape::scalar();
    for x in values {
        values[0].meets(what, *x);
        let Some(shape) = common.broadcast(&x.shape()) else {
            let made: Vec<String> = values.iter().map(|x| x.made()).collect();
            panic!("{what}: shapes do not broadcast, {}", made.join(" and "))
        };
        common = shape;
    }
    common
}

/// The identities that differentiation produces over and over: x + 0, x · 1, x · (−1), and two constants.
///
/// x · 0 stays: it is NaN where x is infinite, and hiding that would hide the bug that made it.
fn simplify<'g>(f: BinaryFn, a: Var<'g>, b: Var<'g>) -> Option<Var<'g>> {
    let (ca, cb) = (a.as_constant(), b.as_constant());
    if let (Some(x), Some(y)) = (ca, cb) {
        return Some(a.graph().full(&a.shape(), f.eval(x, y)));
    }
    match (f, ca, cb) {
        (BinaryFn::Add, Some(0.0), _) | (BinaryFn::Mul, Some(1.0), _) => Some(b),
        (BinaryFn::Add | BinaryFn::Sub, _, Some(0.0)) | (BinaryFn::Mul | BinaryFn::Div, _, Some(1.0)) => Some(a),
        (BinaryFn::Sub, Some(0.0), _) | (BinaryFn::Mul, Some(-1.0), _) => Some(-b),
        (BinaryFn::Mul | BinaryFn::Div, _, Some(-1.0)) => Some(-a),
        (BinaryFn::Add, ..) => layout::merge_padded(a, b),
        _ => None,
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $f:ident;)*) => {$(
        impl<'g> std::ops::$trait for Var<'g> {
            type Output = Var<'g>;
            #[track_caller]
            fn $method(self, other: Var<'g>) -> Var<'g> {
                self.binary(BinaryFn::$f, other)
            }
        }
        impl<'g> std::ops::$trait<f64> for Var<'g> {
            type Output = Var<'g>;
            #[track_caller]
            fn $method(self, other: f64) -> Var<'g> {
                self.binary(BinaryFn::$f, self.graph().constant(other))
            }
        }
        impl<'g> std::ops::$trait<Var<'g>> for f64 {
            type Output = Var<'g>;
            #[track_caller]
            fn $method(self, other: Var<'g>) -> Var<'g> {
                other.graph().constant(self).binary(BinaryFn::$f, other)
            }
        }
    )*};
}

operators! {
    Add add Add;
    Sub sub Sub;
    Mul mul Mul;
    Div div Div;
}

impl<'g> std::ops::Neg for Var<'g> {
    type Output = Var<'g>;
    #[track_caller]
    fn neg(self) -> Var<'g> {
        self.negate()
    }
}
