//! Packing: rearranging op(B) so that the micro-kernel reads it as one stream, and the column sums read on the way.
//!
//! A packed panel is [k, width], contiguous, zero beyond the matrix. Where B is stored [k, n] no separate pass packs
//! it: the first row tile does, as it reads B in place (see `micro.rs`). Where B is stored [n, k] it must be transposed.

use crate::engine::isa::Isa;
use std::ops::Range;

/// Packs `cols` rows of `src` (leading dimension `ld`, `k` floats each) into columns of the panel `dst` [k, width].
///
/// # Safety
/// `src` readable for `cols` rows of `k`; `dst` writable for k·width floats; cols ≤ width.
pub(super) type PackTransposed =
    unsafe fn(src: *const f32, ld: usize, k: usize, cols: usize, width: usize, dst: *mut f32);

/// [`PackTransposed`] in plain Rust, for families without their own shuffles.
///
/// # Safety
/// As [`PackTransposed`].
pub(super) unsafe fn pack_transposed(src: *const f32, ld: usize, k: usize, cols: usize, width: usize, dst: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { pack_edge(src, ld, 0..k, 0..width, cols, width, dst) }
}

/// The part `depth` × `columns` of a packed panel, element by element; columns from `cols` on become zero.
///
/// # Safety
/// As [`PackTransposed`], for that part.
pub(super) unsafe fn pack_edge(
    src: *const f32,
    ld: usize,
    depth: Range<usize>,
    columns: Range<usize>,
    cols: usize,
    width: usize,
    dst: *mut f32,
) {
    for j in columns {
        for p in depth.clone() {
            // SAFETY: j < cols and p < k stay inside the source; p·width + j inside the panel.
            unsafe { *dst.add(p * width + j) = if j < cols { *src.add(j * ld + p) } else { 0.0 } };
        }
    }
}

/// Copies a few floats: fours, of which the last overlaps the one before, since a call of `memcpy` takes longer than that.
///
/// # Safety
/// Both readable and writable for `n` floats, and apart from each other.
#[inline(always)]
pub(super) unsafe fn copy_few(from: *const f32, to: *mut f32, n: usize) {
    // SAFETY: all fours lie inside the n floats.
    unsafe {
        if n < 4 {
            for i in 0..n {
                *to.add(i) = *from.add(i);
            }
            return;
        }
        let four =
            |at: usize| to.add(at).cast::<[f32; 4]>().write_unaligned(from.add(at).cast::<[f32; 4]>().read_unaligned());
        for at in (0..n - 4).step_by(4) {
            four(at);
        }
        four(n - 4);
    }
}

/// Columns that [`column_sums`] keeps in registers at once: the widest panel of any family.
pub(super) const SUM_COLUMNS: usize = 32;

/// `out[j] = Σ_p b[p·ld + j]`, j < cols ≤ [`SUM_COLUMNS`], in order of p; `resume` continues from what `out` holds.
///
/// # Safety
/// `b` readable for `k` rows of `cols`; `out` writable for `cols`.
pub(super) unsafe fn column_sums(
    isa: Isa,
    k: usize,
    b: *const f32,
    ld: usize,
    cols: usize,
    out: *mut f32,
    resume: bool,
) {
    isa.run(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out, cols) };
        let mut sums = [0.0; SUM_COLUMNS];
        if resume {
            sums[..cols].copy_from_slice(out);
        }
        for p in 0..k {
            // SAFETY: row p of the caller's matrix.
            let row = unsafe { std::slice::from_raw_parts(b.wrapping_add(p * ld), cols) };
            // A full panel has a constant trip count, so that its sums stay in registers.
            if let Ok(row) = <&[f32; SUM_COLUMNS]>::try_from(row) {
                sums.iter_mut().zip(row).for_each(|(s, x)| *s += x);
            } else {
                sums.iter_mut().zip(row).for_each(|(s, x)| *s += x);
            }
        }
        out.copy_from_slice(&sums[..cols]);
    });
}
