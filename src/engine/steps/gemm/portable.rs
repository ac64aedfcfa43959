//! No particular instruction set: tiles of up to 4 × 8 that the compiler vectorises.
//!
//! On x86-64 it finds SSE2: 8 accumulators, 2 for the row of B, 1 or 2 broadcasts and a product fit 16 xmm registers.
//! Multiplication and addition round separately here (`f32::mul_add` without hardware is a library call), so the bits
//! differ from those of the fused families.

use super::micro::{Class, Micro, MicroKernels, Vector, class, micro};
use super::pack;

/// # Safety
/// As [`micro`].
unsafe fn kernel<V: Vector, const MR: usize, const NV: usize, const TA: bool, const IN_PLACE: bool>(t: &Micro) {
    // SAFETY: the caller's promise about `t`.
    unsafe { micro::<V, MR, NV, TA, IN_PLACE>(t) }
}

/// See the module.
pub(super) static FAMILY: MicroKernels = MicroKernels {
    rows: 4,
    classes: &[class!(Four, 2; 1 2 3 4), class!(Four, 1; 1 2 3 4)],
    pack_transposed: pack::pack_transposed,
};

/// Four floats, aligned as the compiler's 128-bit vectors.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Four([f32; 4]);

// SAFETY (all methods): plain Rust; pointers are the caller's promise.
impl Vector for Four {
    const LANES: usize = 4;
    /// The number of lanes.
    type Mask = usize;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Four([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: see the impl.
        Four([unsafe { *p }; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see the impl.
        Four(unsafe { p.cast::<[f32; 4]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see the impl.
        unsafe { p.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, x: Self, y: Self) -> Self {
        let (s, x, y) = (self.0, x.0, y.0);
        Four([s[0] + x[0] * y[0], s[1] + x[1] * y[1], s[2] + x[2] * y[2], s[3] + x[3] * y[3]])
    }
    #[inline(always)]
    unsafe fn mask(n: usize) -> Self::Mask {
        n
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: Self::Mask) -> Self {
        if n == 4 {
            // SAFETY: all four lanes are inside the mask.
            return unsafe { Self::load(p) };
        }
        let mut lanes = [0.0; 4];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: lane i is inside the mask.
            *lane = unsafe { *p.add(i) };
        }
        Four(lanes)
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: Self::Mask) {
        for (i, lane) in self.0.iter().enumerate().take(n) {
            // SAFETY: lane i is inside the mask.
            unsafe { *p.add(i) = *lane };
        }
    }
}
