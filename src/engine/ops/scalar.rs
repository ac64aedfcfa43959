//! THE TABLE: one row per scalar function, and a second one of the functions of two numbers.
//!
//! A row gives the name, the value as an expression over any [`Real`], and the derivative as an expression over
//! graph values. From that one text come the f64 oracle, the f32 CPU kernel (the same expression over our own
//! vectorisable [`Real`] functions), the method of [`Var`], the rule of differentiation, its text
//! ([`ScalarFn::derivative`]), and the row in the tests, which run over [`ScalarFn::ALL`].
//!
//! In a derivative `x` is the argument, `y` the value and `dy` = ∂loss/∂y. A derivative is made of graph nodes, so it
//! can be differentiated again. Prefer `y` to `x` where both serve: then `x` need not be kept until the backward pass.

use crate::engine::graph::Var;
use crate::engine::math::Real;
use crate::engine::ops::Op;
use crate::engine::ops::rule::readable;

macro_rules! scalar_table {
    ($($(#[doc = $doc:literal])* $variant:ident $name:ident ($x:ident) = $value:expr;
       dx($dx_x:ident, $dx_y:ident, $dy:ident): $dx:expr;)*) => {
        /// A function of one real number, applied element by element.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        pub enum ScalarFn { $($(#[doc = $doc])* $variant,)* }

        impl ScalarFn {
            /// Every row of the table.
            pub const ALL: &'static [ScalarFn] = &[$(ScalarFn::$variant,)*];

            /// The function's name, as in the method of [`Var`].
            pub fn name(self) -> &'static str {
                match self { $(ScalarFn::$variant => stringify!($name),)* }
            }

            /// What the row says about itself: the formula, and the derivative behind `d/dx =`.
            pub fn doc(self) -> &'static str {
                match self { $(ScalarFn::$variant => concat!($($doc),*).trim(),)* }
            }

            /// The value as an expression of `x`, as it stands in the table: `x.max(0.0) + (-x.abs()).exp().log1p()`.
            pub fn formula(self) -> String {
                readable(match self { $(ScalarFn::$variant => stringify!($value),)* })
            }

            /// ∂loss/∂x as an expression of `x`, the value `y` and `dy`, as it stands in the table: `dy * x.sigmoid()`; `0`
            /// where the derivative is zero almost everywhere.
            pub fn derivative(self) -> String {
                readable(match self { $(ScalarFn::$variant => stringify!($dx),)* })
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
            $($(#[doc = $doc])* #[track_caller] pub fn $name(self) -> Var<'g> { self.unary(Op::Scalar(ScalarFn::$variant)) })*
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
pub(crate) const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// The cubic term.
pub(crate) const GELU_CUBIC: f64 = 0.044715;

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

macro_rules! binary_table {
    ($($(#[doc = $doc:literal])* $variant:ident $name:ident ($a:ident, $b:ident) = $value:expr;
       da, db($back_a:ident, $back_b:ident, $y:ident, $dy:ident): $da:expr, $db:expr;)*) => {
        /// A function of two real numbers, applied element by element to operands of one shape.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        pub enum BinaryFn { $($(#[doc = $doc])* $variant,)* }

        impl BinaryFn {
            /// Every function.
            pub const ALL: &'static [BinaryFn] = &[$(BinaryFn::$variant,)*];

            /// The function's name.
            pub fn name(self) -> &'static str {
                match self { $(BinaryFn::$variant => stringify!($name),)* }
            }

            /// What the row says about itself.
            pub fn doc(self) -> &'static str {
                match self { $(BinaryFn::$variant => concat!($($doc),*).trim(),)* }
            }

            /// The value as an expression of `a` and `b`, as it stands in the table.
            pub fn formula(self) -> String {
                readable(match self { $(BinaryFn::$variant => stringify!($value),)* })
            }

            /// ∂loss/∂a and ∂loss/∂b as expressions of `a`, `b`, the value `y` and `dy`, as they stand in the table; `0` where
            /// the derivative is zero almost everywhere.
            pub fn derivatives(self) -> [String; 2] {
                match self { $(BinaryFn::$variant => [readable(stringify!($da)), readable(stringify!($db))],)* }
            }

            /// The value at (a, b).
            #[inline(always)]
            pub fn eval<F: Real>(self, a: F, b: F) -> F {
                match self { $(BinaryFn::$variant => { let ($a, $b) = (a, b); $value })* }
            }

            /// (∂loss/∂a, ∂loss/∂b) from the operands, y = f(a, b) and dy = ∂loss/∂y.
            pub(crate) fn vjp<'g>(
                self,
                a: Var<'g>,
                b: Var<'g>,
                y: Var<'g>,
                dy: Var<'g>,
            ) -> (Option<Var<'g>>, Option<Var<'g>>) {
                match self {
                    $(BinaryFn::$variant => {
                        #[allow(unused_variables)]
                        let ($back_a, $back_b, $y, $dy) = (a, b, y, dy);
                        ($da.into(), $db.into())
                    })*
                }
            }
        }
    };
}

#[inline(always)]
fn truth<F: Real>(t: bool) -> F {
    F::select(t, c(1.0), c(0.0))
}

/// Zeros of the shape of `like`.
fn zero(like: Var<'_>) -> Var<'_> {
    like.graph().full(&like.shape(), 0.0)
}

binary_table! {
    /// a + b
    Add add(a, b) = a + b;
    da, db(a, b, y, dy): dy, dy;

    /// a − b
    Sub sub(a, b) = a - b;
    da, db(a, b, y, dy): dy, -dy;

    /// a · b
    Mul mul(a, b) = a * b;
    da, db(a, b, y, dy): dy * b, dy * a;

    /// a / b
    Div div(a, b) = a / b;
    da, db(a, b, y, dy): dy / b, -(dy * y / b);

    /// The larger operand; at a tie the gradient goes to a
    Max max(a, b) = a.max(b);
    da, db(a, b, y, dy): a.lt(b).select(zero(dy), dy), a.lt(b).select(dy, zero(dy));

    /// The smaller operand; at a tie the gradient goes to a
    Min min(a, b) = a.min(b);
    da, db(a, b, y, dy): b.lt(a).select(zero(dy), dy), b.lt(a).select(dy, zero(dy));

    /// 1 where a < b, else 0
    Lt lt(a, b) = truth(a < b);
    da, db(a, b, y, dy): None, None;

    /// 1 where a ≤ b, else 0
    Le le(a, b) = truth(a <= b);
    da, db(a, b, y, dy): None, None;

    /// 1 where a = b, else 0
    Eq eq(a, b) = truth(a == b);
    da, db(a, b, y, dy): None, None;
}
