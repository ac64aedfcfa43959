//! Cutting factors into parts of bf16, and the layout of their tiles.
//!
//! A band is 32 rows of op(A), or 32 columns of op(B). For every step of 32 of k and every part it has two tiles of 1
//! KiB:
//!
//! ```text
//!   left    rows of A:      element (i, p) at i·32 + p
//!   right   columns of B:   element (j, p) at (p/2)·32 + 2·j + p mod 2: pairs along k lie side by side
//! ```
//!
//! What lies beyond the matrix is zero: along k it adds nothing, and sums beyond m and n are not stored.

use super::super::pack::column_sums;
use super::{BAND, HALVES, STEP, TILE};
use crate::engine::isa::Isa;

/// Of which factor a tile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TileSide {
    Left,
    Right,
}

/// Rows of op(A), or columns of op(B), from one element on: element (i, p) is `first[i·outer + p·inner]`.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub first: *const f32,
    pub outer: usize,
    pub inner: usize,
}

/// x rounded to bf16, to nearest even; NaN stays NaN.
#[inline(always)]
pub(super) fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if x.is_nan() { bits | 1 << 22 } else { nearest } >> 16) as u16
}

/// The number that a bf16 is.
#[inline(always)]
pub(super) fn widened(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

impl Factor {
    /// Cuts and packs `count` rows or columns over `depth` of k.
    ///
    /// # Safety
    /// The elements named must be readable.
    ///
    /// # Panics
    /// When `packed` is not a band of so many steps, of 1 to 3 parts.
    pub unsafe fn pack(self, isa: Isa, side: TileSide, parts: usize, count: usize, depth: usize, packed: &mut [u16]) {
        assert!(count <= BAND && packed.len() == depth.div_ceil(STEP) * parts * 2 * HALVES);
        // SAFETY: the caller's promise.
        isa.run(|| unsafe {
            match (side, parts) {
                (TileSide::Left, 1) => self.cut::<1, false>(count, depth, packed),
                (TileSide::Left, 2) => self.cut::<2, false>(count, depth, packed),
                (TileSide::Left, 3) => self.cut::<3, false>(count, depth, packed),
                (TileSide::Right, 1) => self.cut::<1, true>(count, depth, packed),
                (TileSide::Right, 2) => self.cut::<2, true>(count, depth, packed),
                (TileSide::Right, 3) => self.cut::<3, true>(count, depth, packed),
                _ => unreachable!("{parts} parts"),
            }
        });
    }

    /// # Safety
    /// As [`Factor::pack`].
    #[inline(always)]
    unsafe fn cut<const PARTS: usize, const RIGHT: bool>(self, count: usize, depth: usize, packed: &mut [u16]) {
        for (step, packed) in packed.chunks_exact_mut(PARTS * 2 * HALVES).enumerate() {
            let p0 = step * STEP;
            for half in 0..2 {
                let rows = count.saturating_sub(half * TILE).min(TILE);
                // SAFETY: the first `rows` rows of this half over what is left of k.
                let mut rest = unsafe { self.load(half * TILE, rows, p0, STEP.min(depth - p0)) };
                for part in 0..PARTS {
                    let tile = &mut packed[(part * 2 + half) * HALVES..][..HALVES];
                    for (i, row) in rest.iter_mut().enumerate() {
                        for (p, x) in row.iter_mut().enumerate() {
                            let near = rounded(*x);
                            *x -= widened(near);
                            tile[if RIGHT { p / 2 * STEP + 2 * i + p % 2 } else { i * STEP + p }] = near;
                        }
                    }
                }
            }
        }
    }

    /// Elements (i0.., p0..), with zeros beyond `rows` and `depth`; read along memory.
    ///
    /// # Safety
    /// The elements named must be readable.
    #[inline(always)]
    unsafe fn load(self, i0: usize, rows: usize, p0: usize, depth: usize) -> [[f32; STEP]; TILE] {
        let mut block = [[0.0; STEP]; TILE];
        // SAFETY: row or column after row or column of what the caller named.
        let line = |i, p, len| unsafe {
            std::slice::from_raw_parts(self.first.wrapping_add((i0 + i) * self.outer + (p0 + p) * self.inner), len)
        };
        if self.inner == 1 {
            block.iter_mut().take(rows).enumerate().for_each(|(i, to)| to[..depth].copy_from_slice(line(i, 0, depth)));
        } else {
            for p in 0..depth {
                block.iter_mut().zip(line(0, p, rows)).for_each(|(to, x)| to[p] = *x);
            }
        }
        block
    }

    /// `out[i] = Σ_p` of the elements (i, p), in f32 and in order of p; `resume` continues from what `out` holds.
    ///
    /// # Safety
    /// The elements named must be readable, `count` floats of `out` writable.
    pub unsafe fn sums(self, isa: Isa, count: usize, depth: usize, out: *mut f32, resume: bool) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.inner > 1 {
                return column_sums(isa, depth, self.first, self.inner, count, out, resume);
            }
            for (i, sum) in std::slice::from_raw_parts_mut(out, count).iter_mut().enumerate() {
                let row = std::slice::from_raw_parts(self.first.wrapping_add(i * self.outer), depth);
                *sum = row.iter().fold(if resume { *sum } else { 0.0 }, |sum, x| sum + x);
            }
        }
    }
}
