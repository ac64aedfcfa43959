//! The matrix products by themselves: every rung of the ladder (kernels/dev/) and every kernel that plans can take, against f64. On a
//! GPU if there is one, elsewhere under the emulated driver.

#![cfg(feature = "cuda")]

mod common;

use common::{cuda, under_all_schedules};
use elbo::engine::device::Precision;
use elbo::engine::device::cuda::planes::Factors;
use elbo::engine::device::cuda::probe::{Version, probe};
use elbo::engine::rng::Draw;

/// Every kernel of the ladder computes the product of every shape that it says it takes, as exactly as it says, and gives
/// the reason for every other one.
#[test]
fn every_rung_of_the_ladder_is_right() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    let capability = probe(0).unwrap().compute_capability;
    for [m, n, k] in
        [[8, 8, 8], [40, 40, 40], [1, 1, 1], [3, 130, 5], [131, 7, 33], [132, 140, 100], [129, 133, 71], [5, 9, 330]]
    {
        let rungs = gpu.climb_ladder([m, n, k], 1).unwrap();
        assert_eq!(rungs.len(), 14, "{rungs:?}");
        for (i, rung) in rungs.iter().enumerate() {
            let multiple = if (5..8).contains(&i) { 4 } else { 1 };
            let bound = match rung.kernel {
                "dev_gemm_8" | "dev_gemm_9" | "dev_gemm_11" | "dev_gemm_12" => 6e-3,
                "dev_gemm_10_x3" => 3e-5,
                _ => 1e-6,
            };
            match &rung.climbed {
                Ok(climbed) => {
                    assert!(climbed.error < bound, "{m} {n} {k}: {rung:?}");
                    assert!(climbed.seconds >= 0.0 && climbed.splitting >= 0.0, "{m} {n} {k}: {rung:?}");
                    assert_eq!(climbed.apart.is_some(), rung.kernel == "dev_gemm_12", "{m} {n} {k}: {rung:?}");
                }
                Err(reason) if reason.starts_with("takes") => assert!(m % multiple + n % multiple + k % multiple > 0),
                Err(reason) => {
                    let hopper = ["dev_gemm_11", "dev_gemm_12"].contains(&rung.kernel);
                    let fits = if hopper { capability == Version(9, 0) } else { capability >= Version(8, 0) };
                    assert!(!fits && reason.starts_with("needs"), "{m} {n} {k}: {rung:?}");
                }
            }
        }
    }
}

/// No rung depends on who runs first.
#[test]
fn the_rungs_of_the_ladder_give_the_same_under_every_schedule() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    let errors = || -> Vec<Option<f64>> {
        let rungs = gpu.climb_ladder([132, 12, 100], 1).unwrap();
        rungs.into_iter().map(|rung| rung.climbed.ok().map(|climbed| climbed.error)).collect()
    };
    let found = under_all_schedules(errors);
    assert!(found.iter().all(|(_, errors)| *errors == found[0].1), "{found:?}");
}

/// One bf16 product has 8 bits; three have 16; six are as good as a chain in f32, and better over a long k, as their sums
/// are rounded once in 32 steps.
#[test]
fn six_products_of_planes_are_as_exact_as_f32() {
    let Some(gpu) = cuda(Precision::Bf16) else { return };
    for (factors, k) in [(Factors::Normal, 40), (Factors::Normal, 500), (Factors::Positive, 500)] {
        let [one, three, six, chain] = gpu.split_errors(factors, k).unwrap();
        assert!(six < 2.0 * chain.max(1.0), "{factors:?}, k = {k}: six {six}, chain {chain}");
        assert!(three > 2.0 * six && three < 256.0, "{factors:?}, k = {k}: three {three}, six {six}");
        assert!(one > 64.0 * three && one < 65536.0 * 2.0, "{factors:?}, k = {k}: one {one}, three {three}");
    }
}

/// Every precision's product is timed in a kernel of that precision, after the check of some of its rows, which tells a
/// coarser product from a finer one.
#[test]
fn products_are_checked_and_timed_in_every_precision() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    // 72 rows: one of three is checked, 24 in all.
    for n in [8, 72] {
        let timed = gpu.time_products(n, 2, 3).unwrap();
        assert_eq!(timed.iter().map(|t| t.precision).collect::<Vec<_>>(), Precision::ALL, "{timed:?}");
        for t in &timed {
            assert!(t.kernel.starts_with(&format!("gemm_{}_", t.precision)), "n = {n}: {t:?}");
            assert!(t.least > 0.0 && t.least <= t.median && t.median.is_finite(), "n = {n}: {t:?}");
        }
        let errors: Vec<f64> = timed.iter().map(|t| t.error).collect();
        assert!(errors[0] < 1e-6 && errors[3] < 1e-2, "n = {n}: {errors:?}");
        assert!(errors.windows(2).all(|two| two[1] > 2.0 * two[0]), "n = {n}: {errors:?}");
    }
}

/// Every kernel of the matrix product, also those that only large products take, with and without splits of k, for operands in
/// all orders.
#[test]
fn every_product_kernel_is_right() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    let (plain, both) = ((false, false), (true, true));
    for (n, transposed) in [(136, plain), (257, plain), (131, (false, true)), (131, (true, false)), (131, both)] {
        let checks = gpu.check_products(n, transposed).unwrap();
        assert!(checks.len() >= 6 && checks.iter().any(|c| c.splits > 1), "{checks:?}");
        for check in checks {
            let bound = match check.kernel {
                name if name.starts_with("gemm_bf16_") || name.starts_with("gemm_planes_") => 6e-3,
                name if name.starts_with("gemm_tf32_") => 6e-4,
                name if name.starts_with("gemm_bf16x3_") => 3e-5,
                _ => 1e-6,
            };
            assert!(check.product < bound && check.column_sums < 1e-6, "n = {n}, transposed {transposed:?}: {check:?}");
        }
    }
}

/// What is not finite comes out of every kernel as f32 arithmetic gives it, whatever the factors are rounded to or cut
/// into; small factors are as exact as the precision promises down to where bf16 ends.
#[test]
fn products_of_infinities_are_those_of_f32() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    const N: usize = 136;
    let normal = |stream| (0..(N * N) as u64).map(move |i| Draw { seed: 9, step: 0, stream }.normal(i));
    let (mut a, mut b): (Vec<f32>, Vec<f32>) = (normal(0).collect(), normal(1).collect());
    // Rows of A, each with what its elements of C must be; columns 0 to 2 of B hold a 0, a 1 and an infinity where
    // these rows have theirs, and −∞ in another place.
    let (at, other) = (70, 131);
    a[N + at] = f32::INFINITY;
    a[2 * N + at] = f32::NEG_INFINITY;
    (a[3 * N + at], a[3 * N + other]) = (f32::INFINITY, f32::INFINITY);
    a[4 * N + at] = f32::NAN;
    // Exactly a bf16, so that its other parts are 0.
    (b[at * N], b[at * N + 1], b[at * N + 2], b[other * N + 2]) = (0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY);
    (a[at], a[other]) = (1.0, 1.0);
    let plain = |i: usize, j: usize| (0..N).map(|p| a[i * N + p] * b[p * N + j]).sum::<f32>();
    for (kernel, splits, c) in gpu.every_product(N, &a, &b).unwrap() {
        for i in 0..N {
            for j in 0..N {
                let (found, expected) = (c[i * N + j], plain(i, j));
                let same = if expected.is_finite() { found.is_finite() } else { found.to_bits() == expected.to_bits() };
                let same = same || found.is_nan() && expected.is_nan();
                assert!(same, "{kernel}, {splits} splits, [{i}, {j}]: {found} instead of {expected}");
            }
        }
    }
}

/// Down to the sizes that the documentation of [`Precision`] gives, cut factors are as exact as others.
#[test]
fn small_factors_are_as_exact_as_the_documentation_says() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    const N: usize = 40;
    let draw = |stream| (0..(N * N) as u64).map(move |i| Draw { seed: 10, step: 0, stream }.uniform(i) + 1.0);
    let b: Vec<f32> = draw(1).collect();
    let error = |prefix: &str, size: f32| {
        let a: Vec<f32> = draw(0).map(|v| v * size).collect();
        let exact = |i: usize, j: usize| (0..N).map(|p| f64::from(a[i * N + p]) * f64::from(b[p * N + j])).sum::<f64>();
        let mut worst = 0.0f64;
        for (_, _, c) in gpu.every_product(N, &a, &b).unwrap().iter().filter(|(name, ..)| name.starts_with(prefix)) {
            for (e, found) in c.iter().enumerate() {
                worst = worst.max((f64::from(*found) / exact(e / N, e % N) - 1.0).abs());
            }
        }
        worst
    };
    for (kernels, least, bound) in [("gemm_bf16x6", 8e-34, 1e-6), ("gemm_bf16x3", 6e-36, 3e-5)] {
        let (inside, below) = (error(kernels, least), error(kernels, least / 1000.0));
        assert!(inside < bound && below > bound, "{kernels}: {inside:e} at {least:e}, {below:e} a thousandth of it");
    }
    assert!(error("gemm_f32", 8e-36) < 1e-6);
}

/// Tiles of two sizes whose sums are made in the same order (kernels/gemm.cu): with every split the same bits.
#[test]
fn two_tiles_have_the_same_bits() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    const N: usize = 136;
    let normal = |stream| (0..(N * N) as u64).map(move |i| Draw { seed: 12, step: 0, stream }.normal(i));
    let (a, b): (Vec<f32>, Vec<f32>) = (normal(0).collect(), normal(1).collect());
    let products = gpu.every_product(N, &a, &b).unwrap();
    let of = |name: &str| -> Vec<(u32, Vec<u32>)> {
        let own = products.iter().filter(|(kernel, ..)| *kernel == name);
        own.map(|(_, splits, c)| (*splits, c.iter().map(|x| x.to_bits()).collect())).collect()
    };
    let (wide, square) = (of("gemm_f32_64x32"), of("gemm_f32_32x32"));
    assert_eq!(wide.iter().map(|(splits, _)| *splits).collect::<Vec<_>>(), [1, 3]);
    assert!(wide == square);
    // With several chains of additions a sum has other bits: the comparison above could have failed.
    assert!(wide[0].1 != wide[1].1 && wide[0].1 != of("gemm_f32_64x64")[0].1);
}
