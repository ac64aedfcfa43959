//! AVX-512: tiles of up to 12 × 32.
//!
//! Registers (32 zmm): 24 accumulators, 2 for the row of B; the broadcast of A is a memory operand or one more.
//! Loads per FMA: (12 + 2) / 24 = 0.58, so one load port per FMA pipe is enough. A 12-row tile reads a packed panel
//! of B at 128 bytes per 24 FMAs, slow enough for the panel to stream from L2: blocking k for L1 gains nothing.
//! Any of 8×32, 10×32, 12×32, 14×32, 8×48, 6×64, 16×16 ran at 93 % of the FMA peak or more on packed data (Zen 4); the
//! taller one is kept because it asks least of L2 on cores with two 512-bit FMAs per cycle.
//!
//! Narrow panels: one zmm (16 columns), or one ymm (8 columns), which Zen cores execute at twice the rate.

use super::micro::{Class, Micro, MicroKernels, Vector, class, micro};
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn kernel<V: Vector, const MR: usize, const NV: usize, const TA: bool, const IN_PLACE: bool>(t: &Micro) {
    // SAFETY: the caller's promise about `t`; the features are enabled here.
    unsafe { micro::<V, MR, NV, TA, IN_PLACE>(t) }
}

/// See the module.
pub(super) static FAMILY: MicroKernels = MicroKernels {
    rows: 12,
    classes: &[
        class!(__m512, 2; 1 2 3 4 5 6 7 8 9 10 11 12),
        class!(__m512, 1; 1 2 3 4 5 6 7 8 9 10 11 12),
        class!(__m256, 1; 1 2 3 4 5 6 7 8 9 10 11 12),
    ],
    pack_transposed: super::avx2::pack_transposed,
};

// SAFETY (all methods): called only from `kernel`, which enables the features; pointers are the caller's promise.
impl Vector for __m512 {
    const LANES: usize = 16;
    type Mask = __mmask16;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see the impl.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm512_set1_ps(*p) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see the impl.
        unsafe { _mm512_storeu_ps(p, self) }
    }
    #[inline(always)]
    unsafe fn fma(self, x: Self, y: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm512_fmadd_ps(x, y, self) }
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> Self::Mask {
        (u32::MAX >> (32 - n)) as __mmask16
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, mask: Self::Mask) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm512_maskz_loadu_ps(mask, p) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, mask: Self::Mask) {
        // SAFETY: see the impl.
        unsafe { _mm512_mask_storeu_ps(p, mask, self) }
    }
}
