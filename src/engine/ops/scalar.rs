//! THE TABLE: one row per scalar function.
//!
//! A row gives the name, the value as an expression over any [`Real`], and the derivative as an expression over
//! graph values. From that one text come the f64 oracle, the f32 CPU kernel (the same expression over our own
//! vectorisable [`Real`] functions), the method of [`Var`], the rule of differentiation, and the row in the tests,
//! which run over [`ScalarFn::ALL`].
//!
//! In a derivative `x` is the argument, `y` the value and `dy` = ∂loss/∂y. A derivative is made of graph nodes, so it
//! can be differentiated again. Prefer `y` to `x` where both serve: then `x` need not be kept until the backward pass.

use crate::engine::graph::Var;
use crate::engine::math::Real;
use crate::engine::ops::Op;

macro_rules! scalar_table {
    ($($(#[$doc:meta])* $variant:ident $name:ident ($x:ident) = $value:expr;
       dx($dx_x:ident, $dx_y:ident, $dy:ident): $dx:expr;)*) => {
        /// A function of one real number, applied element by element.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        pub enum ScalarFn { $($(#[$doc])* $variant,)* }

        impl ScalarFn {
            /// Every row of the table.
            pub const ALL: &'static [ScalarFn] = &[$(ScalarFn::$variant,)*];

            /// The function's name, as in the method of [`Var`].
            pub fn name(self) -> &'static str {
                match self { $(ScalarFn::$variant => stringify!($name),)* }
            }

            /// The value at `x`.
            #[inline(always)]
            pub fn eval<F: Real>(self, x: F) -> F {
                match self { $(ScalarFn::$variant => { let $x = x; $value })* }
            }

            /// `dst[i] = f(src[i])`: one loop per row, so that each vectorises.
            #[inline(always)]
            pub fn eval_slice<F: Real>(self, src: &[F], dst: &mut [F]) {
                match self {
                    $(ScalarFn::$variant => for (d, &$x) in dst.iter_mut().zip(src) { *d = $value; })*
                }
            }

            /// ∂loss/∂x from x, y = f(x) and dy = ∂loss/∂y; `None` where the derivative is zero almost everywhere.
            pub(crate) fn vjp<'g>(self, x: Var<'g>, y: Var<'g>, dy: Var<'g>) -> Option<Var<'g>> {
                match self {
                    $(ScalarFn::$variant => {
                        #[allow(unused_variables)]
                        let ($dx_x, $dx_y, $dy) = (x, y, dy);
                        $dx.into()
                    })*
                }
            }
        }

        impl<'g> Var<'g> {
            $($(#[$doc])* #[track_caller] pub fn $name(self) -> Var<'g> { self.unary(Op::Scalar(ScalarFn::$variant)) })*
        }
    };
}

#[inline(always)]
fn c<F: Real>(v: f64) -> F {
    F::from_f64(v)
}

/// σ(x) from e^(−|x|): no overflow on either side.
#[inline(always)]
fn sigmoid<F: Real>(x: F) -> F {
    let e = (-x.abs()).exp();
    F::select(x >= c(0.0), c(1.0), e) / (c::<F>(1.0) + e)
}

/// x·σ(2u) for u of the sign of x, from h = e^(−|u|): x/(1 + h²) for u ≥ 0 and (x·h)·h/(1 + h²) below, where nothing
/// cancels and the product underflows gradually, once and at the end.
#[inline(always)]
fn gated<F: Real>(x: F, u: F) -> F {
    let h = (-u.abs()).exp();
    F::select(u >= c(0.0), x, x * h * h) / (c::<F>(1.0) + h * h)
}

/// The inner function of the tanh form of GELU, √(2/π)(x + 0.044715 x³).
#[inline(always)]
fn gelu_inner<F: Real>(x: F) -> F {
    c::<F>(GELU_SCALE) * (x + c::<F>(GELU_CUBIC) * x * x * x)
}

/// √(2/π).
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044715;

scalar_table! {
    /// eˣ; d/dx = eˣ
    Exp exp(x) = x.exp();
    dx(x, y, dy): dy * y;

    /// eˣ − 1 without cancellation near 0; d/dx = eˣ
    Expm1 expm1(x) = x.expm1();
    dx(x, y, dy): dy * x.exp();

    /// eˣ − 1 − x without cancellation near 0, where it is x²/2; d/dx = eˣ − 1
    Expm1mx expm1mx(x) = x.expm1mx();
    dx(x, y, dy): dy * x.expm1();

    /// ln x; d/dx = 1/x
    Log log(x) = x.log();
    dx(x, y, dy): dy / x;

    /// ln(1 + x) without cancellation near 0; d/dx = 1/(1 + x)
    Log1p log1p(x) = x.log1p();
    dx(x, y, dy): dy / (x + 1.0);

    /// √x; d/dx = 1/(2√x)
    Sqrt sqrt(x) = x.sqrt();
    dx(x, y, dy): dy * 0.5 / y;

    /// x²; d/dx = 2x
    Square square(x) = x * x;
    dx(x, y, dy): dy * (x * 2.0);

    /// |x|; d/dx = sign x, with 0 at 0
    Abs abs(x) = x.abs();
    dx(x, y, dy): dy * x.sign();

    /// −1, 0 or 1; the derivative is 0
    Sign sign(x) = F::select(x > c(0.0), c(1.0), F::select(x < c(0.0), c(-1.0), c(0.0)));
    dx(x, y, dy): None;

    /// 1 for x > 0, else 0; the derivative is 0
    Step step(x) = F::select(x > c(0.0), c(1.0), c(0.0));
    dx(x, y, dy): None;

    /// −x; d/dx = −1
    Neg negate(x) = -x;
    dx(x, y, dy): -dy;

    /// max(x, 0); d/dx = 1 for x > 0, else 0, read off the value
    Relu relu(x) = x.max(c(0.0));
    dx(x, y, dy): dy * y.step();

    /// tanh x; d/dx = 1 − tanh² x
    Tanh tanh(x) = x.tanh();
    dx(x, y, dy): dy * (1.0 - y.square());

    /// σ(x) = 1/(1 + e⁻ˣ); d/dx = σ(x) σ(−x), which does not cancel as σ(1 − σ) does for large x
    Sigmoid sigmoid(x) = sigmoid(x);
    dx(x, y, dy): dy * y * (-x).sigmoid();

    /// softplus(x) = ln(1 + eˣ) = max(x, 0) + ln(1 + e^(−|x|)); eˣ is never formed for x > 0. d/dx = σ(x)
    Softplus softplus(x) = x.max(c(0.0)) + (-x.abs()).exp().log1p();
    dx(x, y, dy): dy * x.sigmoid();

    /// x σ(x), also called swish; d/dx = σ(x) + x σ(x) σ(−x)
    Silu silu(x) = gated(x, x * c(0.5));
    dx(x, y, dy): dy * (x.sigmoid() + y * (-x).sigmoid());

    /// GELU in its tanh form, ½x(1 + tanh(√(2/π)(x + 0.044715x³))) (Hendrycks & Gimpel 2016; PyTorch's
    /// `approximate="tanh"`), computed as x σ(2u), u = √(2/π)(x + 0.044715x³), because 1 + tanh u has no digits left for
    /// x < −5; d/dx = σ(2u) + x σ(2u) σ(−2u) 2u′
    Gelu gelu(x) = gated(x, gelu_inner(x));
    dx(x, y, dy): {
        let v = (x + x * x * x * GELU_CUBIC) * (2.0 * GELU_SCALE);
        let dv = (x.square() * (3.0 * GELU_CUBIC) + 1.0) * (2.0 * GELU_SCALE);
        dy * (v.sigmoid() + y * (-v).sigmoid() * dv)
    };
}

/// A function of two real numbers, applied element by element to operands of one shape.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum BinaryFn {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// The larger operand; at a tie the gradient goes to a
    Max,
    /// The smaller operand; at a tie the gradient goes to a
    Min,
    /// 1 where a < b, else 0
    Lt,
    /// 1 where a ≤ b, else 0
    Le,
    /// 1 where a = b, else 0
    Eq,
}

impl BinaryFn {
    /// Every function.
    pub const ALL: &'static [BinaryFn] = &[
        BinaryFn::Add,
        BinaryFn::Sub,
        BinaryFn::Mul,
        BinaryFn::Div,
        BinaryFn::Max,
        BinaryFn::Min,
        BinaryFn::Lt,
        BinaryFn::Le,
        BinaryFn::Eq,
    ];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            BinaryFn::Add => "add",
            BinaryFn::Sub => "sub",
            BinaryFn::Mul => "mul",
            BinaryFn::Div => "div",
            BinaryFn::Max => "max",
            BinaryFn::Min => "min",
            BinaryFn::Lt => "lt",
            BinaryFn::Le => "le",
            BinaryFn::Eq => "eq",
        }
    }

    /// The value at (a, b).
    #[inline(always)]
    pub fn eval<F: Real>(self, a: F, b: F) -> F {
        let truth = |t: bool| F::select(t, c(1.0), c(0.0));
        match self {
            BinaryFn::Add => a + b,
            BinaryFn::Sub => a - b,
            BinaryFn::Mul => a * b,
            BinaryFn::Div => a / b,
            BinaryFn::Max => a.max(b),
            BinaryFn::Min => a.min(b),
            BinaryFn::Lt => truth(a < b),
            BinaryFn::Le => truth(a <= b),
            BinaryFn::Eq => truth(a == b),
        }
    }

    /// (∂loss/∂a, ∂loss/∂b) from the operands, y = f(a, b) and dy = ∂loss/∂y.
    pub(crate) fn vjp<'g>(self, a: Var<'g>, b: Var<'g>, y: Var<'g>, dy: Var<'g>) -> (Option<Var<'g>>, Option<Var<'g>>) {
        let zero = || dy.graph().full(&dy.shape(), 0.0);
        match self {
            BinaryFn::Add => (Some(dy), Some(dy)),
            BinaryFn::Sub => (Some(dy), Some(-dy)),
            BinaryFn::Mul => (Some(dy * b), Some(dy * a)),
            BinaryFn::Div => (Some(dy / b), Some(-(dy * y / b))),
            BinaryFn::Max => {
                let b_wins = a.lt(b);
                (Some(b_wins.select(zero(), dy)), Some(b_wins.select(dy, zero())))
            }
            BinaryFn::Min => {
                let b_wins = b.lt(a);
                (Some(b_wins.select(zero(), dy)), Some(b_wins.select(dy, zero())))
            }
            BinaryFn::Lt | BinaryFn::Le | BinaryFn::Eq => (None, None),
        }
    }
}
