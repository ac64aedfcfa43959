//! The matrix products by themselves: every rung of the ladder (kernels/dev/) and every kernel that plans can take, against f64. On a
//! GPU if there is one, elsewhere under the emulated driver.

#![cfg(feature = "cuda")]

mod common;

use common::{cuda, under_all_schedules};
use elbo::engine::device::Precision;
use elbo::engine::device::cuda::planes::Factors;
use elbo::engine::device::cuda::probe::{Version, probe};

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

/// Every kernel of the matrix product, also those that only large products take, with and without splits of k.
#[test]
fn every_product_kernel_is_right() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    for n in [136, 257] {
        let checks = gpu.check_products(n).unwrap();
        assert!(checks.len() >= 6 && checks.iter().any(|c| c.splits > 1), "{checks:?}");
        for check in checks {
            let bound = match check.kernel {
                name if name.starts_with("gemm_bf16_") => 6e-3,
                name if name.starts_with("gemm_tf32_") => 6e-4,
                name if name.starts_with("gemm_bf16x3_") => 3e-5,
                _ => 1e-6,
            };
            assert!(check.product < bound && check.column_sums < 1e-6, "n = {n}: {check:?}");
        }
    }
}
