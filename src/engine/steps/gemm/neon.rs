//! NEON: tiles of up to 6 × 16.
//!
//! Registers (32 q): 24 accumulators, 4 for the row of B, up to 4 for the broadcasts of A. Loads per FMA:
//! (6 + 4) / 24 = 0.42, for cores with 2 to 4 FMAs and 2 or 3 loads per cycle.
//! Panels of 16, 12, 8 and 4 columns, so that at most 3 lanes idle.

use super::micro::{Class, Micro, MicroKernels, Vector, class, micro};
use super::pack;
use std::arch::aarch64::*;

#[target_feature(enable = "neon")]
unsafe fn kernel<V: Vector, const MR: usize, const NV: usize, const TA: bool, const IN_PLACE: bool>(t: &Micro) {
    // SAFETY: the caller's promise about `t`; the feature is enabled here.
    unsafe { micro::<V, MR, NV, TA, IN_PLACE>(t) }
}

/// See the module.
pub(super) static FAMILY: MicroKernels = MicroKernels {
    rows: 6,
    classes: &[
        class!(float32x4_t, 4; 1 2 3 4 5 6),
        class!(float32x4_t, 3; 1 2 3 4 5 6),
        class!(float32x4_t, 2; 1 2 3 4 5 6),
        class!(float32x4_t, 1; 1 2 3 4 5 6),
    ],
    pack_transposed: pack::pack_transposed,
};

// SAFETY (all methods): called only from `kernel`, which enables NEON; pointers are the caller's promise.
impl Vector for float32x4_t {
    const LANES: usize = 4;
    /// The number of lanes: NEON has no masked memory access.
    type Mask = usize;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see the impl.
        unsafe { vdupq_n_f32(0.0) }
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { vld1q_dup_f32(p) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see the impl.
        unsafe { vst1q_f32(p, self) }
    }
    #[inline(always)]
    unsafe fn fma(self, x: Self, y: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vfmaq_f32(self, x, y) }
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> Self::Mask {
        n
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: Self::Mask) -> Self {
        let mut lanes = [0.0_f32; 4];
        // SAFETY: `p` is readable for the n ≤ 4 masked lanes.
        unsafe {
            if n == 4 {
                return vld1q_f32(p);
            }
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: Self::Mask) {
        let mut lanes = [0.0_f32; 4];
        // SAFETY: `p` is writable for the n ≤ 4 masked lanes.
        unsafe {
            if n == 4 {
                return vst1q_f32(p, self);
            }
            vst1q_f32(lanes.as_mut_ptr(), self);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
}
