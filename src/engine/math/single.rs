//! `f32` functions as straight-line arithmetic.
//!
//! Each is made of correctly rounded + − × ÷, comparisons with a selection, integer operations and bit casts, in the
//! order written, with no fused multiply-add. So a plain loop over it inside [`Isa::run`](crate::engine::isa::Isa::run) is
//! vectorised, and the result has the same bits on every processor; in CUDA C the same text is `__fmul_rn`,
//! `__fadd_rn`, `__fdiv_rn`. The bounds are in units in the last place (ulp) of the exact result; `tests/math.rs`
//! asserts them, and for the functions of one argument they were checked over all 2³² of them.
//!
//! The polynomials are minimax fits (Remez weights for the relative error of the function, coefficients rounded to
//! `f32` one at a time from the lowest power). The reductions are those of Cephes and fdlibm.

/// 1.5·2²³: adding it to a float below 2²² rounds that float to an integer and leaves the integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 to 15 bits, so that k·LN2_HI is exact for |k| ≤ 512.
const LN2_HI: f32 = 0.693_145_75;
/// ln 2 − LN2_HI
const LN2_LO: f32 = 1.428_606_8e-6;
/// The sign bit.
const SIGN: u32 = 0x8000_0000;
/// The bits of √½: the logarithms take mantissas from [√½, √2).
const SQRT_HALF: u32 = 0x3f35_04f3;

/// eˣ, within 1.1 ulp.
///
/// x = k·ln 2 + r with |r| ≤ ½ ln 2, then 2ᵏ·(1 + (r + r²·q(r))). ∞ above 88.72. Underflow is gradual: the results are
/// denormal below −87.34, to within 1.1 of their own last place, and 0 below −103.97.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (k, p) = reduce_exp(clamp(x, -104.0, 89.0));
    scale(1.0 + p, k)
}

/// eˣ − 1, within 1.9 ulp, also where it is near 0.
///
/// With k and r as in [`exp`]: 2ᵏ·((eʳ − 1) + (1 − 2⁻ᵏ)). ∞ above 88.72, −1 below −17.33; keeps the sign of 0.
#[inline(always)]
pub fn expm1(x: f32) -> f32 {
    let (k, p) = reduce_exp(clamp(x, -18.0, 89.0));
    with_sign_of(scale(p + (1.0 - exp2_minus(k)), k), x)
}

/// eˣ − 1 − x, within 3.5 ulp, also where it is near 0 and the two terms agree in all their digits. ∞ above 88.72.
///
/// For |x| ≤ 1 the series x²·(1/2! + x/3! + … + x⁹/11!), cut off below 5e-9 of it, beyond it [`expm1`] less x.
#[inline(always)]
pub fn expm1mx(x: f32) -> f32 {
    let z = x * x;
    let series = polynomial(
        x,
        z,
        [
            0.5,
            1.666_666_7e-1,
            4.166_666_8e-2,
            8.333_334e-3,
            1.388_888_9e-3,
            1.984_127e-4,
            2.480_158_8e-5,
            2.755_732e-6,
            2.755_732e-7,
            2.505_210_8e-8,
        ],
    );
    // −x ≥ −89 changes nothing but ∞ − ∞ at ∞.
    let difference = expm1(x) - if x > 89.0 { 89.0 } else { x };
    if x.abs() <= 1.0 { z * series } else { difference }
}

/// ln x, within 0.9 ulp. −∞ at ±0, NaN below; denormal arguments count in full.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let (k, m) = split(if tiny { x * 8_388_608.0 } else { x });
    let y = log_reduced(if tiny { k.wrapping_sub(23) } else { k }, m - 1.0);
    let y = if x < f32::INFINITY { y } else { x };
    let outside = if x == 0.0 { f32::NEG_INFINITY } else { f32::NAN };
    if x > 0.0 { y } else { outside }
}

/// ln x for positive, normal, finite x: [`log`] without the special cases, same bits.
#[inline(always)]
pub fn log_normal(x: f32) -> f32 {
    let (k, m) = split(x);
    log_reduced(k, m - 1.0)
}

/// ln(1 + x), within 1.5 ulp, also where it is near 0. −∞ at −1, NaN below; keeps the sign of 0.
///
/// u = 1 + x is rounded and loses `lost` = 1 + x − u exactly (Knuth's two-sum). With u = 2ᵏ·m the logarithm is taken of
/// m + lost·2⁻ᵏ; for k = 0 the sum (m − 1) + lost is x itself, so nothing of a small x is lost.
#[inline(always)]
pub fn log1p(x: f32) -> f32 {
    let u = 1.0 + x;
    let b = u - 1.0;
    let lost = (1.0 - (u - b)) + (x - b);
    let (k, m) = split(u);
    let y = with_sign_of(log_reduced(k, (m - 1.0) + lost * exp2_minus(k)), x);
    let y = if x < f32::INFINITY { y } else { x };
    let outside = if x == -1.0 { f32::NEG_INFINITY } else { f32::NAN };
    if x > -1.0 { y } else { outside }
}

/// tanh x, within 2.6 ulp: t/(t + 2) with t = e^(2|x|) − 1, and the sign of x. ±1 beyond 9.02.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let (k, p) = reduce_exp(clamp(2.0 * x.abs(), 0.0, 20.0));
    let t = (p + (1.0 - exp2_minus(k))) * exp2i(k);
    with_sign_of(t / (t + 2.0), x)
}

/// xᶜ for finite c, within 0.6 ulp, with the special cases of C's `pow`.
///
/// 2^(c·log₂|x|) is computed in `f64`, because c·log₂|x| needs 7 bits more than the result has, and rounded once at the
/// end. Negative x: for odd c the sign is kept, for even c it is dropped, for any other c the result is NaN.
/// A loop over x is vectorised if c is a local value, not read through a reference.
#[inline(always)]
pub fn pow(x: f32, c: f64) -> f32 {
    // What depends on c alone is kept in numbers and masks, so that a loop over x is free of branches on c.
    let whole = c.trunc() == c;
    let odd = whole & ((c * 0.5).trunc() != c * 0.5);
    let (sign, not_a_number) = (if odd { SIGN } else { 0 }, if whole { 0 } else { !SIGN });
    let zero_or_infinity = |c: f64| if c > 0.0 { 0.0 } else { f32::INFINITY };
    let at_zero = if c == 0.0 { 1.0 } else { zero_or_infinity(c) };
    let at_infinity = if c == 0.0 { 1.0 } else { zero_or_infinity(-c) };
    let at_nan = if c == 0.0 { 1.0 } else { f32::NAN };

    let a = x.abs();
    let y = exp2_f64(c * log2_f64(a)) as f32;
    let y = if a == 0.0 { at_zero } else { y };
    let y = if a < f32::INFINITY { y } else { at_infinity };
    let outside = if (x < 0.0) & (a < f32::INFINITY) { not_a_number } else { 0 };
    let y = f32::from_bits(y.to_bits() | (x.to_bits() & sign) | outside);
    if x.is_nan() { at_nan } else { y }
}

/// c₀ + c₁x + c₂x² + …, given z = x²: the even and the odd powers by Horner's rule in z, then even + x·odd.
///
/// Half the latency of one Horner chain, which matters more than the one operation it adds.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, z: f32, c: [f32; N]) -> f32 {
    let mut p = [0.0; 2];
    p[(N - 1) & 1] = c[N - 1];
    p[N & 1] = c[N - 2];
    for i in (0..N - 2).rev() {
        p[i & 1] = p[i & 1] * z + c[i];
    }
    p[0] + x * p[1]
}

/// 2ᵏ for −127 ≤ k ≤ 127, where 2⁻¹²⁷ reads as 0.
#[inline(always)]
fn exp2i(k: i32) -> f32 {
    f32::from_bits((k.wrapping_add(127) << 23) as u32)
}

/// 2⁻ᵏ for −127 ≤ k; 0 from k = 127 on, where it would vanish beside 1.
#[inline(always)]
fn exp2_minus(k: i32) -> f32 {
    exp2i((if k > 127 { 127 } else { k }).wrapping_neg())
}

/// y·2ᵏ for −252 ≤ k ≤ 254 in two steps, so that neither factor overflows and the product underflows gradually.
#[inline(always)]
fn scale(y: f32, k: i32) -> f32 {
    let half = k >> 1;
    y * exp2i(half) * exp2i(k.wrapping_sub(half))
}

/// `y`, which is 0 or has the sign of `x` already, with the sign of `x`: so f(−0) = −0.
#[inline(always)]
fn with_sign_of(y: f32, x: f32) -> f32 {
    f32::from_bits(y.to_bits() | (x.to_bits() & SIGN))
}

/// x limited to [lo, hi]; NaN stays.
#[inline(always)]
fn clamp(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x > hi { hi } else { x };
    if x < lo { lo } else { x }
}

/// x = k·ln 2 + r with |r| ≤ ½ ln 2: (k, eʳ − 1).
#[inline(always)]
fn reduce_exp(x: f32) -> (i32, f32) {
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let n = t - ROUND;
    let k = (t.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let r = (x - n * LN2_HI) - n * LN2_LO;
    let z = r * r;
    // (eʳ − 1 − r)/r², relative error of eʳ − 1 below 1.4e-8
    let q = polynomial(r, z, [0.5, 1.666_654_5e-1, 4.166_640_3e-2, 8.366_406e-3, 1.394_065_8e-3]);
    (k, r + z * q)
}

/// x = 2ᵏ·m with m in [√½, √2), for positive, normal, finite x.
#[inline(always)]
fn split(x: f32) -> (i32, f32) {
    let k = (x.to_bits().wrapping_sub(SQRT_HALF) as i32) >> 23;
    (k, f32::from_bits(x.to_bits().wrapping_sub((k << 23) as u32)))
}

/// ln(2ᵏ·(1 + f)) for 1 + f in [√½, √2): k·ln 2 + (f + (f³·q(f) − f²/2)).
#[inline(always)]
fn log_reduced(k: i32, f: f32) -> f32 {
    let k = k as f32;
    let z = f * f;
    // (ln(1 + f) − f + f²/2)/f³, relative error of ln(1 + f) below 5.9e-9
    let q = polynomial(
        f,
        z,
        [
            3.333_333e-1,
            -2.500_082e-1,
            2.000_124e-1,
            -1.662_340_2e-1,
            1.420_161e-1,
            -1.315_975_3e-1,
            1.276_211_4e-1,
            -7.635_894_4e-2,
        ],
    );
    let y = ((f * z) * q + k * LN2_LO) - 0.5 * z;
    (f + y) + k * LN2_HI
}

/// log₂ a in `f64` to 4e-12 of itself, for positive finite a.
#[inline(always)]
fn log2_f64(a: f32) -> f64 {
    let tiny = a < f32::MIN_POSITIVE;
    let (k, m) = split(if tiny { a * 8_388_608.0 } else { a });
    let k = if tiny { k.wrapping_sub(23) } else { k };
    let m = f64::from(m);
    // log₂ m = s·L(s²), s = (m − 1)/(m + 1)
    let s = (m - 1.0) / (m + 1.0);
    let w = s * s;
    let l = 0.340_744_174_681_572_8;
    let l = l * w + 0.411_671_993_839_845_3;
    let l = l * w + 0.577_083_596_410_537_3;
    let l = l * w + 0.961_796_673_285_564_1;
    let l = l * w + 2.885_390_081_790_128;
    f64::from(k) + s * l
}

/// 2ʸ in `f64` to 4e-11 of itself, with y limited to [−200, 200], which is beyond the range of `f32`.
#[inline(always)]
fn exp2_f64(y: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5·2⁵²
    let y = if y > 200.0 { 200.0 } else { y };
    let y = if y < -200.0 { -200.0 } else { y };
    let t = y + ROUND;
    let g = y - (t - ROUND);
    let p = 1.520_192_138_852_553_7e-5;
    let p = p * g + 1.546_929_114_565_741_5e-4;
    let p = p * g + 1.333_392_256_423_715_7e-3;
    let p = p * g + 9.618_027_253_678_161e-3;
    let p = p * g + 5.550_410_353_447_319e-2;
    let p = p * g + 2.402_265_119_815_717_2e-1;
    let p = p * g + 6.931_471_807_284_472e-1;
    let p = p * g + 9.999_999_999_616_821e-1;
    // The low bits of t hold the integer, so shifting them into the exponent field scales by its power of two.
    p * f64::from_bits(t.to_bits().wrapping_add(1023) << 52)
}
