//! The emulator accepts correct kernels, with the same bits under every schedule, and catches broken ones.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use elbo_emulator::{Emulator, Failure};

#[path = "common/checks.rs"]
mod checks;
mod common;

use checks::{
    ASYNC, BOUNDS, CheckParams, DIVERGENCE, LDMATRIX, LDMATRIX_TRANS, ROUNDS, SUM, TICKET, TRANSPOSE, VOTES,
    WARP_MEMORY,
};

/// The test kernels; one test at a time, because the schedule and the report are the process's.
fn emulator() -> Option<MutexGuard<'static, Emulator>> {
    static EMULATOR: LazyLock<Option<Mutex<Emulator>>> = LazyLock::new(|| {
        let library = common::checks("checks", false)?;
        Some(Mutex::new(Emulator::open(&library, false).expect("the library opens")))
    });
    EMULATOR.as_ref().map(|emulator| emulator.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn correct_kernels_give_the_same_bits_under_every_schedule() {
    let Some(emulator) = emulator() else { return };
    let number = |i: usize| (i % 97) as f32 + 0.25;
    let sums = SUM.same_under_all(&emulator);
    assert_eq!(sums, [0, 1, 2].map(|block| (256 * block..256 * (block + 1)).map(number).sum::<f32>()));
    let transposed = TRANSPOSE.same_under_all(&emulator);
    assert!((0..4096).all(|i| transposed[i] == number(i % 64 * 64 + i / 64)));
    ROUNDS.same_under_all(&emulator);
    WARP_MEMORY.same_under_all(&emulator);
    let up = DIVERGENCE.same_under_all(&emulator);
    assert!((0..64).all(|t| up[t] == (if t % 32 == 0 { 2 * t } else { 2 * t - 1 }) as f32));
    let total = TICKET.same_under_all(&emulator);
    assert_eq!(total[0], (0..224).map(number).sum::<f32>());
    let votes = VOTES.same_under_all(&emulator);
    assert!((0..64).all(|t| votes[t] == (1 + 2 * i32::from(t >= 32) + 4 + 80 + 2048) as f32));
}

#[test]
fn an_asynchronous_copy_is_complete_after_its_wait_and_not_before() {
    let Some(emulator) = emulator() else { return };
    let out = ASYNC.same_under_all(&emulator);
    let expected = |i: usize| {
        let source = i / 32 * 32 + (i + 7) % 32;
        if source == 133 { 0.0 } else { (source % 97) as f32 + 0.25 }
    };
    assert!((0..160).all(|i| out[i] == expected(i)));
    let early = ASYNC.run(&emulator, 1).unwrap();
    assert!(early[..128].iter().all(|v| !v.is_nan()) && early[128..].iter().all(|v| v.is_nan()));
    assert!(ASYNC.is_caught(&emulator, 2));
}

#[test]
fn a_missing_barrier_changes_bits_under_some_schedule() {
    let Some(emulator) = emulator() else { return };
    for check in [&SUM, &TRANSPOSE, &ROUNDS, &WARP_MEMORY] {
        assert!(check.is_caught(&emulator, 1), "{}", check.kernel);
    }
}

#[test]
fn blocks_that_do_not_wait_for_each_other_are_found_by_their_order() {
    let Some(emulator) = emulator() else { return };
    assert!(TICKET.is_caught(&emulator, 2));
}

#[test]
fn divergence_is_reported_with_the_line_and_never_hangs() {
    let Some(emulator) = emulator() else { return };
    for (bug, words) in [
        (1, ["divergent barrier", "__syncthreads at checks.cu:"]),
        (2, ["divergent warp", "__shfl_down_sync at checks.cu:"]),
        (3, ["the calling lane 16 is not in the mask", "__shfl_sync at checks.cu:"]),
        (4, ["divergent warp", "__syncwarp at checks.cu:"]),
        (5, ["thread (40,0,0) to (63,0,0) has ended", "waits in __shfl_up_sync at checks.cu:"]),
    ] {
        let (failure, report) = DIVERGENCE.failure(&emulator, bug);
        assert_eq!(failure, Failure::Failed, "bug {bug}: {report}");
        assert!(words.iter().all(|word| report.contains(word)), "bug {bug}: {report}");
    }
    // The emulator is usable after a failure.
    assert!(DIVERGENCE.run(&emulator, 0).is_ok());
}

/// The test runs itself in another process, because that is what ends.
#[test]
fn an_endless_loop_ends_the_process_with_a_report() {
    let Some(emulator) = emulator() else { return };
    if std::env::var_os("ELBO_EMU_TIMEOUT").is_some() {
        let _ = DIVERGENCE.run(&emulator, 6);
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_endless_loop_ends_the_process_with_a_report", "--nocapture"])
        .env("ELBO_EMU_TIMEOUT", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("an endless loop, in checks.cu:"), "{text}");
}

#[test]
fn accesses_that_a_gpu_would_refuse_are_reported() {
    let Some(emulator) = emulator() else { return };
    for (bug, expected, word) in [
        (4, Failure::Misaligned, "no multiple of 16"),
        (5, Failure::IllegalAddress, "behind the end of shared memory"),
        (6, Failure::IllegalAddress, "index 6 is outside 'float"),
        (7, Failure::IllegalAddress, "no memory of the device: 0x4"),
    ] {
        let (failure, report) = BOUNDS.failure(&emulator, bug);
        assert_eq!(failure, expected, "bug {bug}: {report}");
        assert!(report.contains(word) && report.contains("checks.cu:"), "bug {bug}: {report}");
    }
}

#[test]
fn matrices_come_to_the_lanes_that_mma_wants_them_in() {
    let Some(emulator) = emulator() else { return };
    let x: Vec<f32> = (0..512).map(|i| (i % 97) as f32 + 0.25).collect();
    for check in [&LDMATRIX, &LDMATRIX_TRANS] {
        assert_eq!(check.same_under_all(&emulator), x);
        // Rows 0 and 8 of the eight chunks lie where they would without the swizzle; all others are found elsewhere.
        let unswizzled = check.run(&emulator, 4).unwrap();
        let wrong: Vec<usize> =
            (0..16).filter(|row| (0..32).any(|i| unswizzled[row * 32 + i] != x[row * 32 + i])).collect();
        assert_eq!(wrong, [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]);
    }
}

#[test]
fn rows_and_lanes_that_ldmatrix_cannot_take_are_reported() {
    let Some(emulator) = emulator() else { return };
    for (check, name) in [(&LDMATRIX, "ldmatrix_x4"), (&LDMATRIX_TRANS, "ldmatrix_x4_trans")] {
        for (bug, expected, words) in [
            (1, Failure::Misaligned, "is no multiple of 16"),
            (2, Failure::Failed, "thread (16,0,0) to (31,0,0)"),
            (3, Failure::Failed, "thread (16,0,0) to (31,0,0) has ended"),
            (5, Failure::IllegalAddress, "is not in shared memory"),
        ] {
            let (failure, report) = check.failure(&emulator, bug);
            assert_eq!(failure, expected, "bug {bug}: {report}");
            let site = format!("{name} at checks.cu:");
            assert!(report.contains(words) && report.contains(&site), "bug {bug}: {report}");
        }
    }
}

#[test]
fn launches_outside_the_limits_are_refused() {
    let Some(emulator) = emulator() else { return };
    let launch = |kernel, grid, block, shared| {
        let params =
            CheckParams { x: std::ptr::null(), out: std::ptr::null_mut(), ticket: std::ptr::null_mut(), n: 0, bug: 0 };
        // SAFETY: no launch below gets as far as running the kernel.
        unsafe { emulator.launch(kernel, grid, block, shared, &params) }
    };
    assert_eq!(launch("no_such_kernel", [1, 1, 1], [32, 1, 1], 0), Err(Failure::NotFound));
    assert_eq!(launch("check_bounds", [1, 1, 1], [33, 1, 1], 128), Err(Failure::InvalidLaunch));
    assert_eq!(launch("check_sum", [1, 1, 1], [1025, 1, 1], 128), Err(Failure::InvalidLaunch));
    assert_eq!(launch("check_bounds", [0, 1, 1], [32, 1, 1], 128), Err(Failure::InvalidLaunch));
    assert_eq!(launch("check_bounds", [1, 65536, 1], [32, 1, 1], 128), Err(Failure::InvalidLaunch));
    assert_eq!(launch("check_bounds", [1, 1, 1], [32, 1, 1], 228 << 10), Err(Failure::InvalidLaunch));
    assert!(emulator.set_schedule("sideways").is_err());
}

/// Mirrors MmaParams of checks.cu.
#[repr(C)]
struct MmaParams {
    a: *const u16,
    b: *const u16,
    a32: *const f32,
    b32: *const f32,
    out: *mut f32,
    kind: i32,
}

#[test]
fn tensor_core_products_are_those_of_three_loops() {
    let Some(emulator) = emulator() else { return };
    // Small integers over a power of two: exact in bf16, and so are their products and sums.
    let value = |i: usize| ((i * 37 + 11) % 31) as f32 / 8.0 - 1.5;
    let bf16 = |v: f32| (v.to_bits() >> 16) as u16;
    for kind in 0..3 {
        let k = if kind == 2 { 8 } else { 16 };
        let a32: Vec<f32> = (0..16 * k).map(value).collect(); // [16, k]
        let b32: Vec<f32> = (0..8 * k).map(|i| value(i + 5)).collect(); // [8, k]; kind 1: [k, 8]
        let (a, b) =
            (a32.iter().map(|v| bf16(*v)).collect::<Vec<_>>(), b32.iter().map(|v| bf16(*v)).collect::<Vec<_>>());
        // Bits that TF32 does not have must not count.
        let a32_dirty: Vec<f32> = a32.iter().map(|v| f32::from_bits(v.to_bits() | 0x1fff)).collect();
        let mut out = vec![f32::NAN; 128];
        let params = MmaParams {
            a: a.as_ptr(),
            b: b.as_ptr(),
            a32: a32_dirty.as_ptr(),
            b32: b32.as_ptr(),
            out: out.as_mut_ptr(),
            kind,
        };
        // SAFETY: the struct mirrors the kernel's, and the memory has the sizes that the kernel reads and writes.
        unsafe { emulator.launch("check_mma", [1, 1, 1], [32, 1, 1], 768, &params) }.unwrap();
        for row in 0..16 {
            for col in 0..8 {
                let element = |i: usize| if kind == 1 { b32[i * 8 + col] } else { b32[col * k + i] };
                let expected: f32 = (0..k).map(|i| a32[row * k + i] * element(i)).sum();
                assert_eq!(out[row * 8 + col], expected, "kind {kind}, row {row}, column {col}");
            }
        }
    }
}

/// One row of A times one column of B in bf16, k = 16.
fn tensor_sum(emulator: &Emulator, row: [f32; 16], column: [f32; 16]) -> f32 {
    let bf16 = |v: &f32| (v.to_bits() >> 16) as u16;
    let a: Vec<u16> = row.iter().map(bf16).chain([0; 240]).collect();
    let b: Vec<u16> = column.iter().map(bf16).chain([0; 112]).collect();
    let mut out = vec![f32::NAN; 128];
    let (a32, b32) = (std::ptr::null(), std::ptr::null());
    let params = MmaParams { a: a.as_ptr(), b: b.as_ptr(), a32, b32, out: out.as_mut_ptr(), kind: 0 };
    // SAFETY: the struct mirrors the kernel's, which reads no f32 for this kind; the memory has the sizes that it uses.
    unsafe { emulator.launch("check_mma", [1, 1, 1], [32, 1, 1], 768, &params) }.unwrap();
    out[0]
}

/// A sum of the tensor cores that f32 cannot hold is infinite, as in every other unit, and one that it can hold is not.
#[test]
fn tensor_core_sums_overflow_to_infinity() {
    let Some(emulator) = emulator() else { return };
    let with = |first: f32, second: f32| {
        let row = std::array::from_fn(|i| if i < 2 { 2f32.powi(100) } else { 0.0 });
        let column = std::array::from_fn(|i| [first, second].get(i).copied().unwrap_or(1.0));
        tensor_sum(&emulator, row, column)
    };
    assert_eq!(with(2f32.powi(100), 1.0), f32::INFINITY);
    assert_eq!(with(-2f32.powi(28), 0.0), f32::NEG_INFINITY);
    assert_eq!(with(2f32.powi(27), 2f32.powi(27)), f32::INFINITY);
    assert_eq!(with(2f32.powi(27), 2f32.powi(26)), 1.5 * 2f32.powi(127));
    // In between the sum is too large, and in the end it is not: addends are as wide as they need to be.
    assert_eq!(with(2f32.powi(28), -2f32.powi(27)), 2f32.powi(127));
    assert_eq!(with(f32::INFINITY, 1.0), f32::INFINITY);
    assert!(with(f32::INFINITY, f32::NEG_INFINITY).is_nan() && with(f32::NAN, 1.0).is_nan());
}

/// Every addend is cut off where the largest one of its eight ends, and not only their sum.
#[test]
fn tensor_cores_cut_off_each_addend() {
    let Some(emulator) = emulator() else { return };
    let sum = |small: f32| tensor_sum(&emulator, [1.0; 16], std::array::from_fn(|i| if i == 0 { 1.0 } else { small }));
    let units = |v: f32| f64::from(v - 1.0) / 2f64.powi(-23);
    // Added first and cut off once, fifteen of these would be 3.75 units.
    assert_eq!(units(sum(2f32.powi(-25))), 0.0);
    assert_eq!(units(sum(-(2f32.powi(-25)))), 0.0);
    // One bit more than f32 has is kept: seven halves of a unit are cut off to three, and eight are four.
    assert_eq!(units(sum(2f32.powi(-24))), 7.0);
    assert_eq!(units(sum(2f32.powi(-23))), 15.0);
    // Without a large one among them nothing is lost.
    let even = tensor_sum(&emulator, [2f32.powi(-25); 16], [1.0; 16]);
    assert_eq!(even, 2f32.powi(-21));
}
