//! WebAssembly's 128-bit vectors: tiles of up to 4 × 8.
//!
//! A browser on x86-64 turns them into SSE or AVX with 16 registers: 8 accumulators, 2 for the row of B, 1 or 2 broadcasts
//! and a product. Multiplication and addition round separately, as in the portable family, so the bits are the same as
//! there. The relaxed extension has a fused multiply-add, but one that rounds once on some machines and twice on others: a
//! page would show different numbers to different readers.

use super::micro::{Class, Micro, MicroKernels, Vector, class, micro};
use super::pack;
use std::arch::wasm32::*;

/// # Safety
/// As [`micro`].
unsafe fn kernel<V: Vector, const MR: usize, const NV: usize, const TA: bool, const IN_PLACE: bool>(t: &Micro) {
    // SAFETY: the caller's promise about `t`.
    unsafe { micro::<V, MR, NV, TA, IN_PLACE>(t) }
}

/// See the module.
pub(super) static FAMILY: MicroKernels = MicroKernels {
    rows: 4,
    classes: &[class!(v128, 2; 1 2 3 4), class!(v128, 1; 1 2 3 4)],
    pack_transposed: pack::pack_transposed,
};

// SAFETY (all methods): the module is compiled with simd128 only; pointers are the caller's promise.
impl Vector for v128 {
    const LANES: usize = 4;
    /// The number of lanes: there is no masked memory access.
    type Mask = usize;
    #[inline(always)]
    unsafe fn zero() -> Self {
        f32x4_splat(0.0)
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: see the impl.
        unsafe { v128_load32_splat(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see the impl; no alignment is asked for.
        unsafe { v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see the impl; no alignment is asked for.
        unsafe { v128_store(p.cast(), self) }
    }
    #[inline(always)]
    unsafe fn fma(self, x: Self, y: Self) -> Self {
        f32x4_add(self, f32x4_mul(x, y))
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
                return v128_load(p.cast());
            }
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            v128_load(lanes.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: Self::Mask) {
        let mut lanes = [0.0_f32; 4];
        // SAFETY: `p` is writable for the n ≤ 4 masked lanes.
        unsafe {
            if n == 4 {
                return v128_store(p.cast(), self);
            }
            v128_store(lanes.as_mut_ptr().cast(), self);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
}
