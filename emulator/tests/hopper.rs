//! Tile copies, mbarriers and products of a warpgroup: a right ring gives the same bits under every schedule, and each wrong
//! one is caught, with its reason.

use std::ffi::c_void;
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{
    self, CUtensorMapDataType_enum as Type, CUtensorMapSwizzle_enum as Swizzle, cudaError_enum as Code,
};
use elbo_emulator::{Emulator, Failure};

mod common;

use common::SCHEDULES;

/// The emulator with tests/kernels/hopper.cu as this process's CUDA driver; one test at a time.
fn emulator() -> Option<MutexGuard<'static, Emulator>> {
    static EMULATOR: LazyLock<Option<Mutex<Emulator>>> = LazyLock::new(|| {
        let library = common::kernels("hopper.cu", "hopper", false)?;
        Some(Mutex::new(Emulator::open(&library, true).expect("the library opens")))
    });
    EMULATOR.as_ref().map(|emulator| emulator.lock().unwrap_or_else(PoisonError::into_inner))
}

const M: usize = 60;
const N: usize = 100;
const K: usize = 300;

/// Mirrors RingParams of hopper.cu.
#[repr(C)]
struct RingParams {
    a: sys::CUtensorMap,
    b: sys::CUtensorMap,
    out: *mut f32,
    k: i32,
    bug: i32,
    pad: [i32; 12],
}

/// Mirrors StoredParams of hopper.cu.
#[repr(C)]
struct StoredParams {
    a: *const u16,
    b: *const u16,
    out: *mut f32,
    k: i32,
    bug: i32,
}

/// Eighths of small integers: exact in bf16, and so are their products and sums.
fn value(i: usize) -> f32 {
    ((i * 37 + 11) % 31) as f32 / 8.0 - 1.5
}

fn bf16(v: f32) -> u16 {
    (v.to_bits() >> 16) as u16
}

/// A matrix of bf16, 16-byte aligned, with rows of whole chunks of 8. What fills the rows up must not be read.
struct Plane {
    chunks: Vec<u128>,
    rows: usize,
    columns: usize,
}

impl Plane {
    fn new(rows: usize, columns: usize) -> Plane {
        let pitch = columns.next_multiple_of(8);
        let number = |i: usize| if i % pitch < columns { bf16(value(i / pitch * columns + i % pitch)) } else { 0x7fff };
        let chunk = |c: usize| (0..8).fold(0, |word, i| word | u128::from(number(8 * c + i)) << (16 * i));
        Plane { chunks: (0..rows * pitch / 8).map(chunk).collect(), rows, columns }
    }

    fn map(&mut self, box_rows: u32) -> sys::CUtensorMap {
        let stride = 2 * self.columns.next_multiple_of(8) as u64;
        let size = [self.columns as u64, self.rows as u64];
        let address = self.chunks.as_mut_ptr().cast();
        encode(2, address, size, stride, [64, box_rows], Swizzle::CU_TENSOR_MAP_SWIZZLE_128B).expect("a good map")
    }
}

fn encode(
    rank: u32,
    address: *mut c_void,
    size: [u64; 2],
    stride: u64,
    side: [u32; 2],
    swizzle: Swizzle,
) -> Result<sys::CUtensorMap, sys::CUresult> {
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: all pointers are to live variables with as many numbers as the rank, at most 2, says.
    let code = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            rank,
            address,
            size.as_ptr(),
            &stride,
            side.as_ptr(),
            [1, 1].as_ptr(),
            sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    if code == Code::CUDA_SUCCESS { Ok(map) } else { Err(code) }
}

fn ring(emulator: &Emulator, bug: i32) -> Result<Vec<f32>, Failure> {
    let (mut a, mut b, mut out) = (Plane::new(M, K), Plane::new(K, N), vec![f32::NAN; 64 * 128]);
    let params = RingParams { a: a.map(64), b: b.map(64), out: out.as_mut_ptr(), k: K as i32, bug, pad: [0; 12] };
    // SAFETY: the struct mirrors the kernel's; memory is as large as the kernel needs.
    unsafe { emulator.launch("check_ring", [1, 1, 1], [160, 1, 1], 1024 + 2 * 24576 + 32, &params)? };
    Ok(out)
}

fn failure(emulator: &Emulator, schedule: &str, bug: i32) -> (Failure, String) {
    emulator.set_schedule(schedule).unwrap();
    emulator.clear();
    let failure = ring(emulator, bug).expect_err(&format!("bug {bug}"));
    (failure, emulator.last_report())
}

/// The product in the matrix, and zeros beyond its edges.
fn check(out: &[f32], [m, n, k]: [usize; 3], schedule: &str) {
    for (i, found) in out.iter().enumerate() {
        let (row, column) = (i / 128, i % 128);
        let inside = row < m && column < n;
        let exact: f32 = (0..if inside { k } else { 0 }).map(|p| value(row * k + p) * value(p * n + column)).sum();
        assert_eq!(*found, exact, "row {row}, column {column} under {schedule}");
    }
}

#[test]
fn a_ring_of_copies_and_products_is_right_under_every_schedule() {
    let Some(emulator) = emulator() else { return };
    for schedule in SCHEDULES {
        emulator.set_schedule(schedule).unwrap();
        check(&ring(&emulator, 0).unwrap_or_else(|e| panic!("{e:?}: {}", emulator.last_report())), [M, N, K], schedule);
    }
}

#[test]
fn every_wrong_ring_is_reported_with_its_reason_and_line() {
    let Some(emulator) = emulator() else { return };
    for (bug, expected, words) in [
        (1, Failure::Failed, " for the four warps of its warpgroup"),
        (2, Failure::Failed, "warp 3 of the warpgroup has ended"),
        (3, Failure::Failed, "which lacks 1 of 4 arrivals and 0 announced bytes"),
        (4, Failure::Failed, "to which 128 bytes more have come than were announced"),
        (5, Failure::Failed, "are still on their way: fewer bytes were announced than the copies bring"),
        (6, Failure::Failed, "which lacks 0 of 1 arrivals and 128 announced bytes"),
        (9, Failure::Failed, "accumulator 5 of lane 0 was written to before the wait"),
        (10, Failure::Failed, "is still on its way, by tma_load_2d at hopper.cu:"),
        (11, Failure::Failed, "there was no wgmma_fence() before"),
        (12, Failure::Failed, "was made with no fence_mbarrier_init() since"),
        (13, Failure::Failed, "over operands of the product of wgmma_m64n128k16_bf16 at hopper.cu:"),
        (14, Failure::Failed, "nobody has waited for the product"),
        (15, Failure::Failed, "one arrival more than the 1 of phase"),
        (16, Failure::Misaligned, "of shared memory, no multiple of 128"),
        (17, Failure::Failed, "was overwritten"),
        (18, Failure::Failed, "threads 0 and 32 of the warpgroup name different operands"),
        (19, Failure::Failed, "mbarrier_arrive_expect_tx at hopper.cu:"),
        (20, Failure::Failed, "the block has ended, and the copy is still on its way"),
        (21, Failure::Failed, "there is no mbarrier at byte"),
        (22, Failure::Failed, "the descriptor of A has no swizzle, which is not emulated"),
        (23, Failure::Failed, "the descriptor of A has bits set that mean nothing"),
        (24, Failure::Failed, "the descriptor of A begins within a pattern of its swizzle"),
    ] {
        // Who waits for the wrong phase meets a copy only if one was started before.
        let (failure, report) = failure(&emulator, if bug == 10 { "reverse" } else { "forward" }, bug);
        assert_eq!(failure, expected, "bug {bug}: {report}");
        assert!(report.contains(words) && report.contains("hopper.cu:"), "bug {bug}: {report}");
    }
    assert!(ring(&emulator, 0).is_ok());
}

/// No bug hides under another order of things.
#[test]
fn every_wrong_ring_is_caught_under_every_schedule() {
    let Some(emulator) = emulator() else { return };
    for schedule in SCHEDULES {
        emulator.set_schedule(schedule).unwrap();
        let right = ring(&emulator, 0).unwrap();
        // Of the others it depends on who is how far.
        for bug in (1..25).filter(|bug| ![13, 19, 20].contains(bug)) {
            emulator.set_schedule(schedule).unwrap();
            let found = ring(&emulator, bug);
            let differs =
                found.as_ref().is_ok_and(|out| out.iter().zip(&right).any(|(a, b)| a.to_bits() != b.to_bits()));
            assert!(found.is_err() || differs, "bug {bug} under {schedule}");
        }
    }
}

#[test]
fn a_wrong_swizzle_gives_a_wrong_product_and_an_early_read_none() {
    let Some(emulator) = emulator() else { return };
    emulator.set_schedule("forward").unwrap();
    let (right, swizzled) = (ring(&emulator, 0).unwrap(), ring(&emulator, 7).unwrap());
    assert!(swizzled.iter().all(|v| v.is_finite()) && swizzled != right);
    assert!(ring(&emulator, 8).unwrap()[..128].iter().all(|v| v.is_nan()));
}

#[test]
fn products_see_what_threads_stored_after_a_fence_and_not_before() {
    let Some(emulator) = emulator() else { return };
    let numbers = |count: usize| -> Vec<u16> { (0..count).map(|i| bf16(value(i))).collect() };
    let (a, b) = (numbers(64 * 64), numbers(64 * 128));
    let run = |bug: i32| {
        let mut out = vec![f32::NAN; 64 * 128];
        let params = StoredParams { a: a.as_ptr(), b: b.as_ptr(), out: out.as_mut_ptr(), k: 64, bug };
        // SAFETY: the struct mirrors the kernel's; memory is as large as the kernel needs.
        unsafe { emulator.launch("check_stored", [1, 1, 1], [128, 1, 1], 1024 + 24576, &params) }.map(|()| out)
    };
    for schedule in SCHEDULES {
        emulator.set_schedule(schedule).unwrap();
        check(&run(0).unwrap(), [64, 128, 64], schedule);
        emulator.clear();
        assert_eq!(run(1), Err(Failure::Failed));
        assert!(emulator.last_report().contains("and no fence_proxy_async() followed"), "{}", emulator.last_report());
    }
}

/// What the race detector knows of mbarriers: nothing is said of the right ring. The library of its own has no driver that
/// cudarc finds; maps are the same bytes in both.
#[test]
fn the_race_detector_knows_mbarriers() {
    let Some(emulator) = emulator() else { return };
    let library = common::kernels("hopper.cu", "hopper-races", true).expect("the other one is there");
    let races = Emulator::open(&library, false).unwrap();
    assert!(races.detects_races() && !emulator.detects_races());
    for schedule in SCHEDULES {
        races.set_schedule(schedule).unwrap();
        check(&ring(&races, 0).unwrap_or_else(|e| panic!("{e:?}: {}", races.last_report())), [M, N, K], schedule);
    }
    let (_, report) = failure(&races, "forward", 17);
    assert!(report.contains("race in shared memory"), "{report}");
}

/// Mirrors TilesParams of kernels/dev/warpgroup.cuh.
#[repr(C)]
struct TilesParams {
    a: sys::CUtensorMap,
    b: sys::CUtensorMap,
    c: *mut f32,
    bias: *const f32,
    m: i32,
    n: i32,
    k: i32,
    ldc: i32,
    pad: [i32; 8],
}

/// Rung 11 of the ladder by itself, compiled for the race detector, on several blocks and more strips than stages.
#[test]
fn the_race_detector_has_nothing_against_the_ladder() {
    let Some(_emulator) = emulator() else { return };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/dev/gemm_11_wgmma_sm90a.cu");
    let library = elbo_emulator::build(&source, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("rung-11-races"), true);
    let races = Emulator::open(&library.expect("the kernel compiles"), false).unwrap();
    let [m, n, k] = [131, 70, 250];
    let (mut a, mut b) = (Plane::new(m, k), Plane::new(k, n));
    for schedule in SCHEDULES {
        races.set_schedule(schedule).unwrap();
        let mut c = vec![f32::NAN; m * n];
        let params = TilesParams {
            a: a.map(128),
            b: b.map(64),
            c: c.as_mut_ptr(),
            bias: std::ptr::null(),
            m: m as i32,
            n: n as i32,
            k: k as i32,
            ldc: n as i32,
            pad: [0; 8],
        };
        // SAFETY: the struct mirrors the kernel's; memory is as large as the kernel needs.
        let done = unsafe { races.launch("dev_gemm_11", [1, 2, 1], [288, 1, 1], 99376, &params) };
        done.unwrap_or_else(|e| panic!("{e:?}: {}", races.last_report()));
        for (i, found) in c.iter().enumerate() {
            let exact: f32 = (0..k).map(|p| value(i / n * k + p) * value(p * n + i % n)).sum();
            assert_eq!(*found, exact, "row {}, column {} under {schedule}", i / n, i % n);
        }
    }
}

#[test]
fn maps_that_a_gpu_would_refuse_are_refused() {
    let Some(_emulator) = emulator() else { return };
    use Swizzle::{CU_TENSOR_MAP_SWIZZLE_64B as SWIZZLE_64B, CU_TENSOR_MAP_SWIZZLE_128B as SWIZZLE_128B};
    let mut memory = vec![0u128; 64];
    let good = |at| encode(2, at, [60, 4], 128, [64, 4], SWIZZLE_128B);
    let start: *mut c_void = memory.as_mut_ptr().cast();
    assert!(good(start).is_ok());
    let invalid = Err(Code::CUDA_ERROR_INVALID_VALUE);
    let code = |result: Result<sys::CUtensorMap, sys::CUresult>| result.map(|_| ());
    assert_eq!(code(good(start.wrapping_byte_add(8))), invalid);
    assert_eq!(code(good(std::ptr::null_mut())), invalid);
    assert_eq!(code(encode(0, start, [60, 4], 128, [64, 4], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(6, start, [60, 4], 128, [64, 4], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(2, start, [0, 4], 128, [64, 4], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(2, start, [60, 4], 120, [64, 4], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(2, start, [72, 4], 128, [64, 4], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(2, start, [60, 4], 1 << 40, [64, 4], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(2, start, [60, 4], 128, [72, 4], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(2, start, [60, 4], 128, [64, 4], SWIZZLE_64B)), invalid);
    assert_eq!(code(encode(2, start, [60, 4], 128, [60, 4], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(2, start, [60, 4], 128, [64, 257], SWIZZLE_128B)), invalid);
    assert_eq!(code(encode(2, start, [60, 4], 128, [64, 0], SWIZZLE_128B)), invalid);
}
