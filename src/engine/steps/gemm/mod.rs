//! The matrix product on the CPU: C = op(A)·op(B), packed and register-tiled.
//!
//! ```text
//!   C[i, j] = Σ_p op(A)[i, p] · op(B)[p, j]        C: [m, n], op(A): [m, k], op(B): [k, n], row-major
//! ```
//!
//! There are two ways to compute it. On *vector units* every element is one chain of multiply-adds in f32: `vector.rs`
//! (the loops around the kernel), `micro.rs` (the kernel, one text for every instruction set), `avx512.rs` (which tile,
//! and why), `blocks.rs` (how the work is cut), `pack.rs`. On *tile units* (AMX) factors are cut into bf16:
//! `tiles/mod.rs` has the arithmetic and the loops, `tiles/twin.rs` the same bits in plain Rust. `product.rs` is the
//! product as a step of a plan.
//!
//! Either way C is cut into *chunks*, rectangles that threads claim in any order, and the bits of an element depend on
//! its operands, the shape, and the arithmetic that was chosen, and on nothing else: not on threads, chunks or layouts.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod micro;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod portable;
mod product;
#[cfg(feature = "cuda")]
pub(crate) mod rungs;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
pub mod tiles;
mod vector;

pub(crate) use product::{Product, Target};

use std::ops::Range;

use crate::engine::isa::Isa;
use tiles::{TileGemm, Tiles};
use vector::VectorGemm;

/// Most elements (rows × columns) of a [`Tile`].
pub const TILE_MAX: usize = 256;

/// Most columns of a [`Tile`].
pub const TILE_COLUMNS: usize = 64;

/// A finished piece of C: C[r0 + i, c0 + j] is `acc[i·ld + j]`.
///
/// The memory is scratch of the calling thread, hot in its L1 cache, and the receiver's to overwrite.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// First row.
    pub r0: usize,
    /// Number of rows.
    pub rows: usize,
    /// First column.
    pub c0: usize,
    /// Number of columns, at most [`TILE_COLUMNS`]; rows·cols ≤ [`TILE_MAX`].
    pub cols: usize,
    /// The values.
    pub acc: *mut f32,
    /// Leading dimension of the values.
    pub ld: usize,
}

/// Where the product goes.
pub enum Destination<'a> {
    /// Into memory: C[i, j] is `c[i·ldc + j]`, written and never read before it was written.
    Store {
        /// C[0, 0] of the whole product, whichever chunk runs.
        c: *mut f32,
        /// Leading dimension of C, at least n.
        ldc: usize,
    },
    /// To an epilogue: every element of the chunk is handed over in exactly one tile.
    Tiles(&'a mut dyn Epilogue),
}

/// What becomes of the tiles of a product.
pub trait Epilogue {
    /// The elements of these rows and columns are computed next: time to ask for what is needed with them.
    fn announce(&mut self, rows: Range<usize>, cols: Range<usize>) {
        let _ = (rows, cols);
    }

    /// Some elements are there.
    fn take(&mut self, tile: Tile);
}

impl<F: FnMut(Tile)> Epilogue for F {
    fn take(&mut self, tile: Tile) {
        self(tile)
    }
}

/// A matrix product of fixed shape, cut into independent chunks of work. See the module for the formula.
pub struct Gemm {
    n: usize,
    way: Way,
}

/// What computes a product.
enum Way {
    Vectors(VectorGemm),
    Tiles(TileGemm),
}

impl Gemm {
    /// Plans op(A)·op(B), [m, k]·[k, n], on vector units.
    ///
    /// `ta`: A is stored [k, m], else [m, k]; `tb`: B is stored [n, k], else [k, n]; `lda` and `ldb` are the distances
    /// in floats between stored rows. `isa` must be one of [`Isa::available`].
    pub fn new(isa: Isa, m: usize, n: usize, k: usize, ta: bool, tb: bool, lda: usize, ldb: usize) -> Gemm {
        Gemm { n, way: Way::Vectors(VectorGemm::new(isa, m, n, k, ta, tb, lda, ldb)) }
    }

    /// Plans it on tiles, if they are as exact at this depth as their precision says: `f32` takes them from
    /// [`tiles::EXACT_FROM`] on. The rest is as in [`Gemm::new`]; `isa` prepares the factors.
    pub fn on_tiles(
        tiles: Tiles,
        isa: Isa,
        m: usize,
        n: usize,
        k: usize,
        ta: bool,
        tb: bool,
        lda: usize,
        ldb: usize,
    ) -> Gemm {
        match tiles.serve(k) {
            true => Gemm { n, way: Way::Tiles(TileGemm::new(tiles, isa, m, n, k, (ta, lda), (tb, ldb))) },
            false => Gemm::new(isa, m, n, k, ta, tb, lda, ldb),
        }
    }

    /// Columns of C.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of chunks: independent pieces of work, on vector units of roughly equal size with smaller ones at the
    /// end, so that threads that claim them in order finish together.
    pub fn chunks(&self) -> usize {
        match &self.way {
            Way::Vectors(gemm) => gemm.blocks.chunks.len(),
            Way::Tiles(gemm) => gemm.chunks.len(),
        }
    }

    /// Floats of scratch that one call of [`Gemm::run`] needs, aligned to 64 bytes.
    pub fn scratch(&self) -> usize {
        match &self.way {
            Way::Vectors(gemm) => gemm.scratch(),
            Way::Tiles(gemm) => gemm.scratch(),
        }
    }

    /// Computes one chunk, and with `b_sums` also Σ_p op(B)[p, j] in f32 for the columns it owns (one chunk owns each
    /// column).
    ///
    /// # Safety
    /// `chunk` < [`Gemm::chunks`]; `a` and `b` point to the matrices described to [`Gemm::new`]; `scratch` is the
    /// caller's alone, [`Gemm::scratch`] floats; `b_sums` has n floats; with `Destination::Store`, C is writable and each
    /// chunk runs on one thread at a time.
    pub unsafe fn run(
        &self,
        chunk: usize,
        a: *const f32,
        b: *const f32,
        scratch: *mut f32,
        out: Destination<'_>,
        b_sums: Option<*mut f32>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match &self.way {
                Way::Vectors(gemm) => gemm.run(chunk, a, b, scratch, out, b_sums),
                Way::Tiles(gemm) => gemm.run(chunk, a, b, scratch, out, b_sums),
            }
        }
    }
}

/// Gives a register tile to the epilogue in pieces of at most [`TILE_MAX`] elements.
fn hand_over(epilogue: &mut dyn Epilogue, whole: Tile) {
    let most = TILE_MAX / whole.cols;
    let mut done = 0;
    while done < whole.rows {
        let rows = most.min(whole.rows - done);
        let acc = whole.acc.wrapping_add(done * whole.ld);
        epilogue.take(Tile { r0: whole.r0 + done, rows, acc, ..whole });
        done += rows;
    }
}
