//! The `f32` functions against `f64`: error bounds, limits, order, and the same bits on every instruction set.

use elbo::engine::isa::Isa;
use elbo::engine::math::{Real, map_f32, single};

/// A function of the table: name, ours, the reference, the bound in ulp, the hash of its results over [`sweep`].
struct Row {
    name: &'static str,
    ours: fn(f32) -> f32,
    exact: fn(f64) -> f64,
    ulp: f64,
    hash: u64,
}

#[rustfmt::skip]
const TABLE: [Row; 8] = [
    Row { name: "exp", ours: single::exp, exact: f64::exp, ulp: 1.1, hash: 0x85130bd7f5f80fe6 },
    Row { name: "expm1", ours: single::expm1, exact: f64::exp_m1, ulp: 1.9, hash: 0xba9dcfaf1be24e31 },
    Row { name: "log", ours: single::log, exact: f64::ln, ulp: 0.9, hash: 0xe2807756fcaf8b16 },
    Row { name: "log1p", ours: single::log1p, exact: f64::ln_1p, ulp: 1.5, hash: 0xf943ef042f33cd6b },
    Row { name: "tanh", ours: single::tanh, exact: f64::tanh, ulp: 2.6, hash: 0xc8ffa6308ab8aea8 },
    Row {
        name: "pow(-2.5)", ours: |x| single::pow(x, -2.5), exact: |x| x.powf(-2.5),
        ulp: 0.6, hash: 0x10558fd1d6a2fdde,
    },
    Row {
        name: "pow(3)", ours: |x| single::pow(x, 3.0), exact: |x| x.powf(3.0),
        ulp: 0.6, hash: 0xd229375de0792763,
    },
    Row { name: "expm1mx", ours: single::expm1mx, exact: Real::expm1mx, ulp: 3.5, hash: 0xe22dce278b0e6195 },
];

/// Every 1009th bit pattern (all signs, exponents, denormals, infinities, NaN), and ±16 in small steps.
fn sweep() -> Vec<f32> {
    let patterns = (0..=u32::MAX).step_by(1009).map(f32::from_bits);
    patterns.chain((-1_000_000..=1_000_000).map(|i| i as f32 * 1.6e-5)).collect()
}

/// |got − want| in units in the last place of `want`, the unit of denormals being the smallest.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got == rounded || (got.is_nan() && want.is_nan()) {
        return if rounded.is_finite() { ulp_distance(got, want) } else { 0.0 };
    }
    if got.is_finite() && rounded.is_finite() { ulp_distance(got, want) } else { f64::INFINITY }
}

fn ulp_distance(got: f32, want: f64) -> f64 {
    let power = f32::from_bits((want as f32).abs().max(f32::MIN_POSITIVE).to_bits() & 0x7f80_0000);
    (f64::from(got) - want).abs() / (f64::from(power) * f64::from(f32::EPSILON))
}

/// FNV-1a over the bits, with every NaN counted as the same.
fn hash(values: &[f32]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |h, v| {
        let bits = if v.is_nan() { 0x7fc0_0000 } else { v.to_bits() };
        (h ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn errors_stay_within_the_stated_bounds() {
    let xs = sweep();
    for row in &TABLE {
        let errors = xs.iter().map(|x| (ulps((row.ours)(*x), (row.exact)(f64::from(*x))), *x));
        let (found, worst) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        println!("{:10} {found:.3} ulp at {worst:e}", row.name);
        assert!(found <= row.ulp, "{}({worst:e}) is off by {found} ulp, stated {}", row.name, row.ulp);
    }
}

#[test]
fn every_instruction_set_gives_the_recorded_bits() {
    let xs = sweep();
    let mut ys = vec![0.0; xs.len()];
    for isa in Isa::available() {
        // Written out, because a loop over function pointers would not be vectorised and so would test nothing.
        let mut check = |i: usize, run: &dyn Fn(&[f32], &mut [f32])| {
            run(&xs, &mut ys);
            assert_eq!(hash(&ys), TABLE[i].hash, "{} on {isa}: {:#018x}", TABLE[i].name, hash(&ys));
        };
        check(0, &|x, y| map_f32(isa, single::exp, x, y));
        check(1, &|x, y| map_f32(isa, single::expm1, x, y));
        check(2, &|x, y| map_f32(isa, single::log, x, y));
        check(3, &|x, y| map_f32(isa, single::log1p, x, y));
        check(4, &|x, y| map_f32(isa, single::tanh, x, y));
        check(5, &|x, y| map_f32(isa, |x| single::pow(x, -2.5), x, y));
        check(6, &|x, y| map_f32(isa, |x| single::pow(x, 3.0), x, y));
        check(7, &|x, y| map_f32(isa, single::expm1mx, x, y));
    }
    for row in &TABLE {
        let ys: Vec<f32> = xs.iter().map(|x| (row.ours)(*x)).collect();
        assert_eq!(hash(&ys), row.hash, "{} one by one", row.name);
    }
}

#[test]
fn limits_agree_with_the_reference() {
    let tiny = f32::from_bits(1);
    let xs = [
        0.0,
        tiny,
        1e-40,
        f32::MIN_POSITIVE,
        1e-20,
        1e-6,
        0.5,
        1.0,
        20.0,
        88.0,
        88.722_83,
        88.722_84,
        89.0,
        103.9,
        104.1,
        300.0,
        1e4,
        1e30,
        f32::MAX,
        f32::INFINITY,
    ];
    for row in &TABLE {
        for x in xs.iter().flat_map(|x| [*x, -*x]) {
            let (got, want) = ((row.ours)(x), (row.exact)(f64::from(x)));
            let (name, ulp) = (row.name, row.ulp);
            assert!(ulps(got, want) <= ulp, "{name}({x:e}) = {got:e}, expected {want:e}");
            assert!(
                got.is_nan() || got.is_sign_negative() == want.is_sign_negative(),
                "{name}({x:e}): sign of {got:e}"
            );
        }
        assert!((row.ours)(f32::NAN).is_nan(), "{}(NaN)", row.name);
    }
}

#[test]
fn powers_agree_with_the_reference() {
    let xs = [0.0, 1e-42, 1e-30, 0.1, 0.7, 1.0, 1.000_001, 1.5, 2.0, 10.0, 1e10, f32::MAX, f32::INFINITY, f32::NAN];
    for c in
        [0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 3.0, -3.0, 1.0 / 3.0, -0.7, 17.0, 1e3, -1e3, 1e300, 9_007_199_254_740_993.0]
    {
        for x in xs.iter().flat_map(|x| [*x, -*x]) {
            let (got, want) = (single::pow(x, c), f64::from(x).powf(c));
            assert!(ulps(got, want) <= 0.6, "pow({x:e}, {c}) = {got:e}, expected {want:e}");
            assert!(
                got.is_nan() || got.is_sign_negative() == want.is_sign_negative(),
                "pow({x:e}, {c}): sign of {got:e}"
            );
        }
    }
}

#[test]
fn functions_never_decrease_by_more_than_their_error() {
    for row in &TABLE[..5] {
        let ys: Vec<f32> = (-90_000..90_000).map(|i| (row.ours)(i as f32 * 1e-3)).filter(|y| !y.is_nan()).collect();
        let slack = 2.0 * row.ulp as f32 * f32::EPSILON;
        assert!(ys.windows(2).all(|w| w[0] <= w[1] || w[0] - w[1] <= slack * w[1].abs()), "{} decreases", row.name);
        assert!(ys.windows(1000).all(|w| w[0] <= w[999]), "{} decreases", row.name);
    }
}

#[test]
fn inverse_functions_undo_each_other() {
    for i in -3000..3000 {
        let x = i as f32 * 1e-3;
        let (a, b) = (single::log(single::exp(x)), single::log1p(single::expm1(x)));
        let scale = 4.0 * f32::EPSILON * (1.0 + 1.0 / single::exp(x)).max(x.abs());
        assert!((a - x).abs() <= scale && (b - x).abs() <= scale, "{x}: {a} {b}");
    }
}

#[test]
fn choices_propagate_nan_from_either_side() {
    fn check<F: Real>() {
        let (one, two, nan) = (F::from_f32(1.0), F::from_f64(2.0), F::from_f64(f64::NAN));
        assert!(one.max(two) == two && two.max(one) == two && one.min(two) == one && two.min(one) == one);
        for v in [nan.max(one), one.max(nan), nan.min(one), one.min(nan)] {
            assert!(v.to_f64().is_nan());
        }
        assert!(F::select(true, one, two) == one && F::select(false, one, two) == two);
        assert!(F::default() == F::from_f64(0.0));
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn both_types_share_one_text() {
    fn all<F: Real>(x: f64) -> [f64; 10] {
        let x = F::from_f64(x);
        let y = [x.exp(), x.expm1(), x.log(), x.log1p(), x.sqrt(), x.abs(), x.tanh(), x.powf(1.5), x.powf(-2.0), -x];
        y.map(F::to_f64)
    }
    for x in [0.25, 1.0, 3.5, 20.0] {
        for (single, double) in all::<f32>(x).into_iter().zip(all::<f64>(x)) {
            assert!((single - double).abs() <= 3e-7 * double.abs(), "{x}: {single} {double}");
        }
    }
}
