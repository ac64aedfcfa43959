//! The numbers the ops are written over: [`Real`], which is `f64` with the functions of the standard library and
//! `f32` with the branch-free forms of [`single`].
//!
//! Read the trait first, then [`single`], where each function says its formula, its error and its limits.
//!
//! ```
//! use elbo::engine::math::Real;
//! fn softplus<F: Real>(x: F) -> F {
//!     let zero = F::from_f64(0.0);
//!     x.max(zero) + (-x.abs()).exp().log1p()
//! }
//! assert_eq!(softplus(200.0_f32), 200.0);
//! ```

pub mod single;

use std::fmt::{Debug, Display};
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::engine::isa::Isa;

/// A floating-point number: `f64` for the oracle, `f32` for the kernels.
///
/// In generic code the methods below are the ones called. On a concrete `f32` the inherent methods of the standard
/// library win (`x.exp()` is then the C library's): write `Real::exp(x)` or [`single::exp`] there.
pub trait Real:
    Copy
    + PartialOrd
    + Debug
    + Display
    + Default
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The nearest number of this type.
    fn from_f64(v: f64) -> Self;
    /// The same value in `f64`.
    fn to_f64(self) -> f64;
    /// The same value in this type.
    fn from_f32(v: f32) -> Self;
    /// eˣ
    fn exp(self) -> Self;
    /// eˣ − 1 without cancellation near 0
    fn expm1(self) -> Self;
    /// eˣ − 1 − x without cancellation near 0
    fn expm1mx(self) -> Self;
    /// ln x
    fn log(self) -> Self;
    /// ln(1 + x) without cancellation near 0
    fn log1p(self) -> Self;
    /// √x, correctly rounded
    fn sqrt(self) -> Self;
    /// |x|
    fn abs(self) -> Self;
    /// tanh x
    fn tanh(self) -> Self;
    /// xᶜ for a finite constant exponent `c`
    fn powf(self, c: f64) -> Self;
    /// The larger of two numbers, NaN if either is; of two equal numbers (+0 and −0), `o`.
    fn max(self, o: Self) -> Self;
    /// The smaller of two numbers, NaN if either is; of two equal numbers (+0 and −0), `o`.
    fn min(self, o: Self) -> Self;
    /// `a` where `cond` holds, otherwise `b`; both are evaluated.
    fn select(cond: bool, a: Self, b: Self) -> Self;
}

/// `max`, `min` and `select` read the same for both types.
macro_rules! choices {
    () => {
        #[inline(always)]
        fn max(self, o: Self) -> Self {
            if self > o || self.is_nan() { self } else { o }
        }
        #[inline(always)]
        fn min(self, o: Self) -> Self {
            if self < o || self.is_nan() { self } else { o }
        }
        #[inline(always)]
        fn select(cond: bool, a: Self, b: Self) -> Self {
            if cond { a } else { b }
        }
    };
}

#[rustfmt::skip]
impl Real for f32 {
    #[inline(always)] fn from_f64(v: f64) -> f32 { v as f32 }
    #[inline(always)] fn to_f64(self) -> f64 { f64::from(self) }
    #[inline(always)] fn from_f32(v: f32) -> f32 { v }
    #[inline(always)] fn exp(self) -> f32 { single::exp(self) }
    #[inline(always)] fn expm1(self) -> f32 { single::expm1(self) }
    #[inline(always)] fn expm1mx(self) -> f32 { single::expm1mx(self) }
    #[inline(always)] fn log(self) -> f32 { single::log(self) }
    #[inline(always)] fn log1p(self) -> f32 { single::log1p(self) }
    #[inline(always)] fn sqrt(self) -> f32 { f32::sqrt(self) }
    #[inline(always)] fn abs(self) -> f32 { f32::abs(self) }
    #[inline(always)] fn tanh(self) -> f32 { single::tanh(self) }
    #[inline(always)] fn powf(self, c: f64) -> f32 { single::pow(self, c) }
    choices!();
}

#[rustfmt::skip]
impl Real for f64 {
    #[inline(always)] fn from_f64(v: f64) -> f64 { v }
    #[inline(always)] fn to_f64(self) -> f64 { self }
    #[inline(always)] fn from_f32(v: f32) -> f64 { f64::from(v) }
    #[inline(always)] fn exp(self) -> f64 { f64::exp(self) }
    #[inline(always)] fn expm1(self) -> f64 { f64::exp_m1(self) }
    #[inline(always)] fn expm1mx(self) -> f64 { expm1mx_f64(self) }
    #[inline(always)] fn log(self) -> f64 { f64::ln(self) }
    #[inline(always)] fn log1p(self) -> f64 { f64::ln_1p(self) }
    #[inline(always)] fn sqrt(self) -> f64 { f64::sqrt(self) }
    #[inline(always)] fn abs(self) -> f64 { f64::abs(self) }
    #[inline(always)] fn tanh(self) -> f64 { f64::tanh(self) }
    #[inline(always)] fn powf(self, c: f64) -> f64 { f64::powf(self, c) }
    choices!();
}

/// eˣ − 1 − x: for |x| ≤ 1 the series x²(1/2! + x/3! + x²/4! + …), whose terms fall below the last place before the
/// twentieth, and the difference beyond, where it loses two bits at most.
fn expm1mx_f64(x: f64) -> f64 {
    if x.abs() > 1.0 {
        return if x == f64::INFINITY { x } else { x.exp_m1() - x };
    }
    let sum = (3..=21).rev().fold(0.0, |sum, n| (sum + 1.0) * x / f64::from(n));
    0.5 * x * x * (1.0 + sum)
}

/// `dst[i]` = f(`src[i]`), vectorised for `isa` when `f` is branch-free.
///
/// # Panics
/// If the slices differ in length.
#[inline]
pub fn map_f32(isa: Isa, f: impl Fn(f32) -> f32, src: &[f32], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "map_f32: source and destination differ in length");
    isa.run(
        #[inline(always)]
        || {
            for (d, s) in dst.iter_mut().zip(src) {
                *d = f(*s);
            }
        },
    )
}
