//! AVX2 and FMA: tiles of up to 6 × 16.
//!
//! Registers (16 ymm): 12 accumulators, 2 for the row of B, 1 or 2 for the broadcasts of A. Loads per FMA:
//! (6 + 2) / 12 = 0.67, below the one load per FMA these cores can do; 12 accumulators cover 2 FMAs per cycle at a
//! latency of 4 or 5. One ymm (8 columns) for narrow panels.

use super::micro::{Class, Micro, MicroKernels, Vector, class, micro};
use super::pack;
use crate::engine::steps::prefetch;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
unsafe fn kernel<V: Vector, const MR: usize, const NV: usize, const TA: bool, const IN_PLACE: bool>(t: &Micro) {
    // SAFETY: the caller's promise about `t`; the features are enabled here.
    unsafe { micro::<V, MR, NV, TA, IN_PLACE>(t) }
}

/// See the module.
pub(super) static FAMILY: MicroKernels = MicroKernels {
    rows: 6,
    classes: &[class!(__m256, 2; 1 2 3 4 5 6), class!(__m256, 1; 1 2 3 4 5 6)],
    pack_transposed,
};

// SAFETY (all methods): called only from functions that enable AVX2 and FMA; pointers are the caller's promise.
impl Vector for __m256 {
    const LANES: usize = 8;
    type Mask = __m256i;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_broadcast_ss(&*p) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see the impl.
        unsafe { _mm256_storeu_ps(p, self) }
    }
    #[inline(always)]
    unsafe fn fma(self, x: Self, y: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_fmadd_ps(x, y, self) }
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> Self::Mask {
        // SAFETY: see the impl.
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, mask: Self::Mask) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_maskload_ps(p, mask) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, mask: Self::Mask) {
        // SAFETY: see the impl.
        unsafe { _mm256_maskstore_ps(p, mask, self) }
    }
}

/// Floats of k between a prefetch and its use when packing: two cache lines, about 300 cycles of shuffling.
const PACK_AHEAD: usize = 32;

/// Transposes 8 columns (rows of the stored B) × 4 of k at a time.
///
/// All columns of 16 steps of k come before the next 16: each cache line of the source is read once, and the panel is
/// written as one stream. The AVX-512 family uses this too: 512-bit shuffles (16 × 16 or 16 × 4) were no faster on
/// Zen 4, 0.30 to 0.46 cycles per float against 0.31 to 0.37.
///
/// # Safety
/// As [`super::pack::PackTransposed`]; AVX2 must be there; `width` is a multiple of 8.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn pack_transposed(src: *const f32, ld: usize, k: usize, cols: usize, width: usize, dst: *mut f32) {
    // SAFETY: whole 8 × 4 pieces lie inside the source and the panel; `pack_edge` is given what is left.
    unsafe {
        let (cols8, k4) = (cols & !7, k & !3);
        for p in (0..k4).step_by(16) {
            for c in 0..cols {
                prefetch(src.wrapping_add(c * ld + p + PACK_AHEAD));
            }
            for c in (0..cols8).step_by(8) {
                for q in (p..k4.min(p + 16)).step_by(4) {
                    transpose8x4(src.add(c * ld + q), ld, dst.add(q * width + c), width);
                }
            }
        }
        pack::pack_edge(src, ld, 0..k, cols8..width, cols, width, dst);
        pack::pack_edge(src, ld, k4..k, 0..cols8, cols, width, dst);
    }
}

/// dst[q, c] = src[c, q] for c < 8, q < 4: loads of four floats from rows c and c + 4 into the halves of a vector, then
/// a 4 × 4 transposition inside the halves (8 shuffles).
///
/// # Safety
/// The two pieces must be readable and writable.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose8x4(src: *const f32, ld: usize, dst: *mut f32, width: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let rows = |c: usize| {
            let (low, high) = (_mm_loadu_ps(src.add(c * ld)), _mm_loadu_ps(src.add((c + 4) * ld)));
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
        };
        let (r0, r1, r2, r3) = (rows(0), rows(1), rows(2), rows(3));
        let (t0, t1) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
        let (t2, t3) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
        _mm256_storeu_ps(dst, _mm256_shuffle_ps::<0x44>(t0, t2));
        _mm256_storeu_ps(dst.add(width), _mm256_shuffle_ps::<0xee>(t0, t2));
        _mm256_storeu_ps(dst.add(2 * width), _mm256_shuffle_ps::<0x44>(t1, t3));
        _mm256_storeu_ps(dst.add(3 * width), _mm256_shuffle_ps::<0xee>(t1, t3));
    }
}
