//! The product on vector units: one chain of multiply-adds per element, in f32.
//!
//! ```text
//!   for a block of k            (one block unless k is large)
//!     for a panel of columns    (the width of the register tile)
//!       op(B)[block, panel] becomes one contiguous packed panel
//!       for a tile of rows      (the height of the register tile)
//!         C[tile, panel] += op(A)[tile, block] · packed panel       the micro-kernel
//! ```
//!
//! A is read in place, along rows and over short blocks of k also along columns: the kernel broadcasts its elements, and those
//! reads keep up. Over long blocks a chunk's columns of A are packed first, tile by tile (`blocks.rs` says when and why).
//!
//! Packing B costs almost nothing: the first tile of rows reads the matrix in place and leaves the packed panel
//! behind for the others; only a B stored as [n, k] needs a pass of its own, which transposes it.
//!
//! Every element of C is one chain of multiply-adds in the order of p, whichever chunk, tile or block of k it falls
//! into (a later block continues from what C holds). Its bits therefore depend on the operands and on whether the
//! family has a fused multiply-add, and on nothing else: not on threads, chunks, tile sizes or layouts.

#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::blocks::{Blocks, Chunk, even};
use super::micro::{Class, Micro, MicroKernels};
#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::simd128;
use super::{Destination, Tile, hand_over, pack, portable};
use crate::engine::isa::Isa;
use std::ops::Range;

/// [`Gemm`](super::Gemm) on vector units.
pub(super) struct VectorGemm {
    isa: Isa,
    family: &'static MicroKernels,
    ta: bool,
    tb: bool,
    lda: usize,
    ldb: usize,
    pub blocks: Blocks,
}

impl VectorGemm {
    /// See [`Gemm::new`](super::Gemm::new).
    pub fn new(isa: Isa, m: usize, n: usize, k: usize, ta: bool, tb: bool, lda: usize, ldb: usize) -> VectorGemm {
        let family = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &avx512::FAMILY,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::FAMILY,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => &neon::FAMILY,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa::Simd128 => &simd128::FAMILY,
            _ => &portable::FAMILY,
        };
        VectorGemm { isa, family, ta, tb, lda, ldb, blocks: Blocks::new(family, m, n, k, ta, tb) }
    }

    /// Floats of scratch of one call of [`VectorGemm::run`].
    pub fn scratch(&self) -> usize {
        self.blocks.panel + self.blocks.tiles + self.blocks.packed_a
    }

    /// See [`Gemm::run`](super::Gemm::run).
    ///
    /// # Safety
    /// As there.
    pub unsafe fn run(
        &self,
        chunk: usize,
        a: *const f32,
        b: *const f32,
        scratch: *mut f32,
        mut out: Destination<'_>,
        b_sums: Option<*mut f32>,
    ) {
        let chunk = &self.blocks.chunks[chunk];
        for block in 0..self.blocks.depths {
            let depth = even(self.blocks.k, self.blocks.depths, block);
            if self.blocks.packed_a > 0 {
                // SAFETY: the caller's promise; the scratch has room for the rows of any chunk.
                unsafe { self.pack_a(chunk, &depth, a, scratch.add(self.blocks.panel + self.blocks.tiles)) };
            }
            let mut col = chunk.cols.start;
            while col < chunk.cols.end {
                let (class, cols) = self.family.class(chunk.cols.end - col);
                let strip = Strip { chunk, class, col, cols, p0: depth.start, k: depth.len() };
                // SAFETY: the caller's promise; a strip lies inside its chunk, which lies inside C.
                unsafe {
                    let sums = b_sums.filter(|_| chunk.rows.start == 0);
                    self.strip(&strip, a, b, scratch, &mut out, sums);
                }
                col += cols;
            }
        }
    }

    /// Packs a block of k of the chunk's rows of an A stored [k, m]: each tile of rows becomes [depth, rows].
    ///
    /// # Safety
    /// As [`VectorGemm::run`]; `to` has room for the rows of the chunk over the block.
    unsafe fn pack_a(&self, chunk: &Chunk, depth: &Range<usize>, a: *const f32, to: *mut f32) {
        let rows = chunk.rows.len();
        let tiles = rows.div_ceil(self.family.rows);
        for p in depth.clone() {
            for tile in 0..tiles {
                let part = even(rows, tiles, tile);
                // SAFETY: row p of the stored A, and the same step of the tile's part of the scratch.
                unsafe {
                    let from = a.add(p * self.lda + chunk.rows.start + part.start);
                    let at = to.add(part.start * depth.len() + (p - depth.start) * part.len());
                    pack::copy_few(from, at, part.len());
                }
            }
        }
    }

    /// One packed panel of B against all rows of the chunk.
    ///
    /// # Safety
    /// As [`VectorGemm::run`].
    unsafe fn strip(
        &self,
        s: &Strip<'_>,
        a: *const f32,
        b: *const f32,
        scratch: *mut f32,
        out: &mut Destination<'_>,
        b_sums: Option<*mut f32>,
    ) {
        let (panel, width) = (scratch, s.class.width);
        let rows = &s.chunk.rows;
        let tiles = rows.len().div_ceil(self.family.rows);
        // SAFETY: all offsets are of elements of the matrices; the panel has room for `k`·width floats.
        unsafe {
            let b = b.add(if self.tb { s.col * self.ldb + s.p0 } else { s.p0 * self.ldb + s.col });
            if self.tb {
                (self.family.pack_transposed)(b, self.ldb, s.k, s.cols, width, panel);
            }
            if let Some(sums) = b_sums {
                let (b, ld) = if self.tb { (panel.cast_const(), width) } else { (b, self.ldb) };
                pack::column_sums(self.isa, s.k, b, ld, s.cols, sums.add(s.col), s.p0 > 0);
            }
            for tile in 0..tiles {
                let part = even(rows.len(), tiles, tile);
                let r0 = rows.start + part.start;
                let in_place = !self.tb && tile == 0;
                let (c, ldc) = self.target(s, r0, scratch, out);
                let (a, lda) = match self.blocks.packed_a {
                    0 => (a.add(if self.ta { s.p0 * self.lda + r0 } else { r0 * self.lda + s.p0 }), self.lda),
                    _ => {
                        let packed = scratch.add(self.blocks.panel + self.blocks.tiles + part.start * s.k);
                        (packed.cast_const(), part.len())
                    }
                };
                let micro = Micro {
                    k: s.k,
                    a,
                    lda,
                    b: if in_place { b } else { panel },
                    ldb: self.ldb,
                    pack: if in_place && tiles > 1 { panel } else { std::ptr::null_mut() },
                    c,
                    ldc,
                    cols: s.cols,
                    resume: s.p0 > 0,
                    fetch: matches!(out, Destination::Store { .. }),
                };
                let last = s.p0 + s.k == self.blocks.k;
                if let Destination::Tiles(epilogue) = out
                    && last
                {
                    epilogue.announce(r0..r0 + part.len(), s.col..s.col + s.cols);
                }
                (s.class.kernels[self.ta as usize][in_place as usize][part.len() - 1])(&micro);
                if let Destination::Tiles(epilogue) = out
                    && last
                {
                    hand_over(*epilogue, Tile { r0, rows: part.len(), c0: s.col, cols: s.cols, acc: c, ld: ldc });
                }
            }
        }
    }

    /// Where the kernel puts C[r0.., col..]: C itself, or scratch. A single block of k uses the scratch of one tile
    /// over and over, so that it stays in L1; several blocks need the whole chunk.
    fn target(&self, s: &Strip<'_>, r0: usize, scratch: *mut f32, out: &Destination<'_>) -> (*mut f32, usize) {
        match *out {
            Destination::Store { c, ldc } => (c.wrapping_add(r0 * ldc + s.col), ldc),
            Destination::Tiles(_) if self.blocks.depths == 1 => {
                (scratch.wrapping_add(self.blocks.panel), s.class.width)
            }
            Destination::Tiles(_) => {
                let ld = self.blocks.tile_ld;
                let offset = (r0 - s.chunk.rows.start) * ld + (s.col - s.chunk.cols.start);
                (scratch.wrapping_add(self.blocks.panel + offset), ld)
            }
        }
    }
}

/// A block of k of one panel of a chunk: op(B)[p0..p0 + k, col..col + cols].
struct Strip<'a> {
    chunk: &'a Chunk,
    class: &'static Class,
    col: usize,
    cols: usize,
    p0: usize,
    k: usize,
}
