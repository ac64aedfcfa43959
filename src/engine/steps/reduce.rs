//! Sums and maxima over axes: out[o, i] = Σ_r x[o, r, i] for x seen as [outer, reduced, inner].
//!
//! Sums run in the order of r, in blocks that depend on the shape only.

#[cfg(feature = "cuda")]
use std::mem::offset_of;

use super::{Context, Kernel, Region, Work};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{
    Lower,
    params::{ReduceParams, zeroed},
};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::isa::Isa;
use crate::engine::math::Real;
use crate::engine::plan::View;

/// Elements read by one chunk, about.
const ELEMENTS_PER_CHUNK: usize = 8192;

/// A reduction as a step.
#[derive(Debug)]
pub(crate) struct Reduce {
    /// Maximum instead of sum.
    pub max: bool,
    /// The operand, contiguous.
    pub x: View,
    /// The result, [outer, inner].
    pub out: View,
    /// (outer, reduced, inner).
    pub sizes: (usize, usize, usize),
}

impl Kernel for Reduce {
    fn name(&self) -> &'static str {
        if self.max { "reduce_max" } else { "reduce_sum" }
    }

    fn detail(&self) -> String {
        let (o, r, i) = self.sizes;
        format!("[{o}, {r}, {i}] → [{o}, {i}]")
    }

    fn reads(&self) -> Vec<View> {
        vec![self.x]
    }

    fn writes(&self) -> Vec<View> {
        vec![self.out]
    }

    fn flops(&self) -> u64 {
        self.x.size() as u64
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        let (outer, reduced, inner) = self.sizes;
        let (x, out) = (to.region(&self.x), to.region(&self.out));
        Box::new(ReduceWork { isa: to.isa, max: self.max, x, out, outer, reduced, inner })
    }

    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        let (outer, reduced, inner) = self.sizes;
        let (kernel, grid, threads, shared, per_part) = launch(outer, reduced, inner);
        let parts = reduced.div_ceil(per_part.max(1)).max(1);
        let params = ReduceParams {
            x: to.address(&self.x),
            out: to.address(&self.out),
            outer: outer as i32,
            reduced: reduced as i32,
            inner: inner as i32,
            max: i32::from(self.max),
            parts: parts as i32,
            per_part: per_part as i32,
            ..zeroed()
        };
        let launch = to.launch(kernel, grid, threads, shared, &params)?;
        if parts > 1 {
            let fields = [offset_of!(ReduceParams, workspace), offset_of!(ReduceParams, tickets)];
            to.shares_sums(launch, outer * parts, outer, fields);
        }
        Ok(())
    }
}

/// (kernel, grid, threads, shared bytes, elements of a row that a block folds) of a reduction; see kernels/reduce.cu.
#[cfg(feature = "cuda")]
fn launch(outer: usize, reduced: usize, inner: usize) -> (&'static str, [u32; 3], u32, u32, usize) {
    // What one block folds of a row before the row is shared, and the blocks of a launch of shared rows.
    const LONG: usize = 32_768;
    const BLOCKS: usize = 256;
    if inner == 1 {
        if reduced > LONG && (1..=BLOCKS / 2).contains(&outer) {
            let per_part = reduced.div_ceil(BLOCKS / outer).next_multiple_of(4).max(LONG);
            return ("reduce_rows", [reduced.div_ceil(per_part) as u32, outer as u32, 1], 1024, 128, per_part);
        }
        let team = match reduced {
            0..=1024 => 32,
            1025..=LONG => 256,
            _ => 1024,
        };
        let threads = team.max(256);
        let blocks = (outer * team).div_ceil(threads).max(1);
        return ("reduce_rows", [blocks as u32, 1, 1], threads as u32, 128, reduced);
    }
    let along = match reduced {
        0..=8 => 1,
        9..=512 => 8,
        _ => 32,
    };
    ("reduce_cols", [(outer * inner).div_ceil(256 / along).max(1) as u32, 1, 1], 256, 1024, reduced)
}

struct ReduceWork {
    isa: Isa,
    max: bool,
    x: Region,
    out: Region,
    outer: usize,
    reduced: usize,
    inner: usize,
}

impl ReduceWork {
    /// (outer indices of a chunk, inner indices of a chunk).
    fn block(&self) -> (usize, usize) {
        let inner = (ELEMENTS_PER_CHUNK / self.reduced.max(1)).clamp(16, self.inner.max(16)).min(self.inner.max(1));
        let outer = (ELEMENTS_PER_CHUNK / (self.reduced * inner).max(1)).max(1);
        (outer, inner)
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

impl Work for ReduceWork {
    fn chunks(&self) -> usize {
        let (o, i) = self.block();
        self.outer.div_ceil(o) * self.inner.div_ceil(i)
    }

    unsafe fn run(&self, chunk: usize, _: &Context<'_>) {
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
                        let x = unsafe { self.elements(o * self.reduced, self.reduced) };
                        out[0] = if self.max {
                            fold_row(x, f32::NEG_INFINITY, maximum)
                        } else {
                            fold_row(x, 0.0, |a, b| a + b)
                        };
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
}

/// The larger of two numbers, as [`Real::max`].
#[inline(always)]
pub(super) fn maximum(a: f32, b: f32) -> f32 {
    Real::max(a, b)
}

/// Sixteen running folds from `start`, which changes nothing, then their fold in order.
#[inline(always)]
pub(super) fn fold_row(x: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let blocks = x.chunks_exact(16);
    let rest = blocks.remainder();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &v)| *lane = fold(*lane, v));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, &v)| *lane = fold(*lane, v));
    lanes.into_iter().fold(start, fold)
}
