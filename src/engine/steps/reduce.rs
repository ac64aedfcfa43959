//! Sums and maxima over axes: out[o, i] = Σ_r x[o, r, i] for x seen as [outer, reduced, inner].
//!
//! Sums run in the order of r, in blocks that depend on the shape only.

use super::Region;
use crate::engine::isa::Isa;

/// Elements read by one chunk, about.
const ELEMENTS_PER_CHUNK: usize = 8192;

pub(crate) struct Bound {
    pub isa: Isa,
    pub max: bool,
    pub x: Region,
    pub out: Region,
    pub outer: usize,
    pub reduced: usize,
    pub inner: usize,
}

impl Bound {
    /// (outer indices of a chunk, inner indices of a chunk).
    fn block(&self) -> (usize, usize) {
        let inner = (ELEMENTS_PER_CHUNK / self.reduced.max(1)).clamp(16, self.inner.max(16)).min(self.inner.max(1));
        let outer = (ELEMENTS_PER_CHUNK / (self.reduced * inner).max(1)).max(1);
        (outer, inner)
    }

    pub(crate) fn chunks(&self) -> usize {
        let (o, i) = self.block();
        self.outer.div_ceil(o) * self.inner.div_ceil(i)
    }

    /// # Safety
    /// `x` is [outer · reduced · inner] elements in its rows, `out` [outer · inner] contiguous; nobody else writes `out`.
    pub(crate) unsafe fn run(&self, chunk: usize) {
        let (block_o, block_i) = self.block();
        let across = self.inner.div_ceil(block_i);
        let (o0, i0) = (chunk / across * block_o, chunk % across * block_i);
        let width = block_i.min(self.inner - i0);
        for o in o0..(o0 + block_o).min(self.outer) {
            // SAFETY: this part of `out` belongs to this chunk.
            let out = unsafe { std::slice::from_raw_parts_mut(self.out.ptr.add(o * self.inner + i0), width) };
            self.isa.run(
                #[inline(always)]
                || {
                    out.fill(if self.max { f32::NEG_INFINITY } else { 0.0 });
                    if self.reduced == 0 {
                        return;
                    }
                    if self.inner == 1 {
                        // SAFETY: one row of `reduced` elements.
                        out[0] = fold_row(unsafe { self.elements(o * self.reduced, self.reduced) }, self.max);
                        return;
                    }
                    for r in 0..self.reduced {
                        // SAFETY: `width` elements of one row of x.
                        let x = unsafe { self.elements((o * self.reduced + r) * self.inner + i0, width) };
                        for (y, &v) in out.iter_mut().zip(x) {
                            *y = if self.max { maximum(*y, v) } else { *y + v };
                        }
                    }
                },
            );
        }
    }

    /// Elements `at .. at + n` of x in row-major order; they lie in one row, or x is contiguous.
    ///
    /// # Safety
    /// The elements are inside x.
    unsafe fn elements(&self, at: usize, n: usize) -> &[f32] {
        let (row, col) = (at / self.x.cols, at % self.x.cols);
        // SAFETY: as promised by the caller.
        unsafe { std::slice::from_raw_parts(self.x.at(row, col), n) }
    }
}

#[inline(always)]
fn maximum(a: f32, b: f32) -> f32 {
    crate::engine::math::Real::max(a, b)
}

/// Sixteen running folds, then their fold in order.
#[inline(always)]
fn fold_row(x: &[f32], max: bool) -> f32 {
    let start = if max { f32::NEG_INFINITY } else { 0.0 };
    let mut lanes = [start; 16];
    let blocks = x.chunks_exact(16);
    let rest = blocks.remainder();
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane = if max { maximum(*lane, v) } else { *lane + v };
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane = if max { maximum(*lane, v) } else { *lane + v };
    }
    lanes.iter().fold(start, |a, &b| if max { maximum(a, b) } else { a + b })
}
