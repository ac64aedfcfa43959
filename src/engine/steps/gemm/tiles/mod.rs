//! The product on tile units: factors as sums of bf16, sums in f32.
//!
//! A tile unit (AMX) multiplies tiles of bf16 and adds in f32: C += A·B for A 16 × 32, B 32 × 16 and C 16 × 16. All
//! that is lost is lost where factors are rounded to bf16, so they are cut into parts, as on a GPU
//! (`kernels/gemm_tensor.cuh`):
//!
//! ```text
//!   precision   factors                        products                                       error of a product
//!   bf16        a ≈ a₀, 8 bits                 a₀b₀                                           2⁻⁷
//!   bf16x3      a ≈ a₀ + a₁                    a₀b₀ + (a₀b₁ + a₁b₀)                           2⁻¹⁵
//!   f32         a = a₀ + a₁ + a₂, 24 bits      a₀b₀ + (a₀b₂ + a₀b₁ + a₁b₁ + a₁b₀ + a₂b₀)      2⁻²⁴
//! ```
//!
//! with aᵢ = bf16(a − a₀ − … − aᵢ₋₁), an exact difference rounded to nearest even. The small products in parentheses
//! have a sum of their own over a block of k, 2⁻⁷ as large as that of a₀b₀: what is rounded in it does not count, in
//! whatever order it is added, so the order is the one that loads fewest tiles. Where Σ a₀b₀ is infinite or no number
//! the small sum is left out, which would be ∞ − ∞ or ∞ · 0 there: ∞ · b is ∞ with its sign, and ∞ · 0 and ∞ − ∞ are
//! NaN, as in f32.
//!
//! **Error.** One instruction adds 16 products in each of two chains, then the two, then that to C
//! ([`Additions::Chains`]). With u = 2⁻²⁴ and K = ⌈k/32⌉ a product goes through at most 17 + K additions in the large
//! sum and 17 + 5K in the small one; two more join the sums and the blocks, of which there are ⌈k/512⌉. So the error of
//! an element is at most
//!
//! ```text
//!   f32      (3 + ⌈k/512⌉ + (17 + K)·(1 + 2⁻⁷) + (17 + 5K)·2⁻⁶) u · Σ|a·b|        f32 chain: k u · Σ|a·b|
//! ```
//!
//! in which one u is for the products left out (a₁b₂, a₂b₁, a₂b₂). From k = 32 on that is less than the bound of the
//! chain of f32, whose place it takes there at the earliest ([`EXACT_FROM`]). For bf16x3 and bf16 the error of the
//! factors, about 2⁻¹⁵ and 2⁻⁷ of Σ|a·b|, is to be added.
//!
//! **Range.** Tile units take numbers below 2⁻¹²⁶ ≈ 1.2·10⁻³⁸ for 0, parts and sums alike. Three parts hold every
//! number from 2⁻¹⁰³ ≈ 1·10⁻³¹ on, two parts keep their 16 bits from 2⁻¹¹⁰ ≈ 8·10⁻³⁴ on. Of what is smaller a factor
//! loses up to 2⁻¹²⁶, and each addition that much again.
//!
//! The loops: factors of a chunk are cut and packed for a block of k, those of B all at once, those of A a band of 32
//! rows at a time, in *steps* of 32 of k padded by zeros. A band of A with a band of B gives 2 × 2 tiles of C, in one
//! loop over the steps for the small products and another for the large ones (`amx.rs`). Matrices whose sides are no
//! multiples of 32 compute padding that is not stored. The packing and the sizes of chunks were chosen without a
//! machine to measure them on.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(test)]
mod cases;
mod cut;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod emulated;
mod pack;
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
mod probe;
#[cfg(test)]
mod tests;
mod twin;
mod unit;

pub use twin::Additions;
pub use unit::{TileUnit, Tiles};

use super::blocks::{Chunk, even};
use super::{Destination, Tile, hand_over};
use crate::engine::isa::Isa;
use cut::{DEPTH, chunks};
use pack::{Factor, TileSide};
use std::ops::Range;

/// Least k at which six products of bf16 have a smaller error bound than one chain in f32.
pub const EXACT_FROM: usize = 32;

/// Rows and columns of a tile of C.
const TILE: usize = 16;
/// Steps of k in one instruction.
const STEP: usize = 32;
/// Rows of A, or columns of B, that go through the loop over k together: two tiles.
const BAND: usize = 2 * TILE;
/// Words of 16 bits in a tile of A or B.
const HALVES: usize = TILE * STEP;
/// Sums of a band of A with a band of B.
const SUMS: usize = BAND * BAND;

/// Which products of parts are added up: pairs (part of A, part of B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartProducts {
    /// a₀b₀.
    Large,
    /// What two parts add to it.
    TwoSmall,
    /// What three parts add to it.
    FiveSmall,
}

impl PartProducts {
    /// In the order in which a step adds them; neighbours share a part, whose tiles are loaded once.
    const fn pairs(self) -> &'static [(usize, usize)] {
        match self {
            PartProducts::Large => &[(0, 0)],
            PartProducts::TwoSmall => &[(0, 1), (1, 0)],
            PartProducts::FiveSmall => &[(0, 2), (0, 1), (1, 1), (1, 0), (2, 0)],
        }
    }
}

/// A packed band of A and one of B: for every step and part two tiles.
#[derive(Clone, Copy)]
struct Bands<'a> {
    a: &'a [u16],
    b: &'a [u16],
    parts: usize,
    steps: usize,
}

/// Four tiles of 16 × 16, side by side in pairs: the layout of tile registers in memory.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct TileSums([f32; SUMS]);

impl TileSums {
    /// Row i from column 16 · `half` on.
    fn row(&self, i: usize, half: usize) -> &[f32] {
        &self.0[((i / TILE * 2 + half) * TILE + i % TILE) * TILE..][..TILE]
    }
}

/// [`Gemm`](super::Gemm) on tile units.
pub(super) struct TileGemm {
    tiles: Tiles,
    isa: Isa,
    k: usize,
    a: Strides,
    b: Strides,
    /// Blocks of k, at least 1: an empty sum is stored too.
    depths: usize,
    pub chunks: Vec<Chunk>,
    /// Most rows and columns of a chunk.
    most: (usize, usize),
}

/// How a factor lies in memory.
#[derive(Clone, Copy)]
struct Strides {
    /// Whether its numbers are neighbours along k.
    along_k: bool,
    ld: usize,
}

impl Strides {
    /// From row i of op(A), or column i of op(B), at step p of k on.
    fn factor(self, base: *const f32, i: usize, p: usize) -> Factor {
        let (outer, inner) = if self.along_k { (self.ld, 1) } else { (1, self.ld) };
        Factor { first: base.wrapping_add(i * outer + p * inner), outer, inner }
    }
}

impl TileGemm {
    /// Each factor with whether it is stored transposed, and its leading dimension.
    pub fn new(
        tiles: Tiles,
        isa: Isa,
        m: usize,
        n: usize,
        k: usize,
        (ta, lda): (bool, usize),
        (tb, ldb): (bool, usize),
    ) -> TileGemm {
        let chunks = chunks(m, n, k);
        let most = |f: fn(&Chunk) -> usize| chunks.iter().map(f).max().unwrap_or(0).next_multiple_of(BAND);
        TileGemm {
            tiles,
            isa,
            k,
            a: Strides { along_k: !ta, ld: lda },
            b: Strides { along_k: tb, ld: ldb },
            depths: k.div_ceil(DEPTH).max(1),
            most: (most(|c| c.rows.len()), most(|c| c.cols.len())),
            chunks,
        }
    }

    fn parts(&self) -> usize {
        self.tiles.parts()
    }

    /// Halfwords of a packed band of `steps` steps.
    fn band(&self, steps: usize) -> usize {
        steps * self.parts() * 2 * HALVES
    }

    /// Floats of the packed bands of a chunk: all of B and one of A.
    fn packed(&self) -> usize {
        let steps = self.k.div_ceil(STEP).div_ceil(self.depths);
        (self.most.1 / BAND + 1) * self.band(steps) / 2
    }

    /// Floats of scratch of one call of [`TileGemm::run`]: packed bands, then pieces of C for an epilogue.
    pub fn scratch(&self) -> usize {
        self.packed() + if self.depths == 1 { SUMS } else { self.most.0 * self.most.1 }
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
        let chunk = &self.chunks[chunk];
        // Per chunk instead of per thread: nothing is left to release when a thread parks.
        self.tiles.unit().configure();
        for block in 0..self.depths {
            let steps = even(self.k.div_ceil(STEP), self.depths, block);
            let depth = (steps.start * STEP).min(self.k)..(steps.end * STEP).min(self.k);
            let band = self.band(steps.len());
            let bands_of_b = chunk.cols.len().div_ceil(BAND);
            // SAFETY: the caller's scratch has room for the packed bands of every block, and nobody else uses it.
            let packed = unsafe { std::slice::from_raw_parts_mut(scratch.cast::<u16>(), (bands_of_b + 1) * band) };
            let (packed_b, packed_a) = packed.split_at_mut(bands_of_b * band);
            for (i, col) in chunk.cols.clone().step_by(BAND).enumerate() {
                let cols = BAND.min(chunk.cols.end - col);
                let factor = self.b.factor(b, col, depth.start);
                // SAFETY: these columns of op(B), and their sums, are the caller's.
                unsafe {
                    factor.pack(
                        self.isa,
                        TileSide::Right,
                        self.parts(),
                        cols,
                        depth.len(),
                        &mut packed_b[i * band..][..band],
                    );
                    if let Some(sums) = b_sums.filter(|_| chunk.rows.start == 0) {
                        factor.sums(self.isa, cols, depth.len(), sums.add(col), depth.start > 0);
                    }
                }
            }
            for row in chunk.rows.clone().step_by(BAND) {
                let rows = BAND.min(chunk.rows.end - row);
                // SAFETY: these rows of op(A) are the caller's.
                unsafe {
                    let factor = self.a.factor(a, row, depth.start);
                    factor.pack(self.isa, TileSide::Left, self.parts(), rows, depth.len(), packed_a);
                }
                for (i, col) in chunk.cols.clone().step_by(BAND).enumerate() {
                    let b = &packed_b[i * band..][..band];
                    let bands = Bands { a: packed_a, b, parts: self.parts(), steps: steps.len() };
                    let piece = OutputPiece { chunk, row, rows, col, cols: BAND.min(chunk.cols.end - col) };
                    // SAFETY: the caller's promise.
                    unsafe { self.finish(&piece, &bands, &depth, scratch, &mut out) };
                }
            }
        }
        self.tiles.unit().release();
    }

    /// Multiplies two bands and adds them to the piece of C that they are a part of.
    ///
    /// # Safety
    /// As [`TileGemm::run`].
    unsafe fn finish(
        &self,
        piece: &OutputPiece<'_>,
        bands: &Bands<'_>,
        depth: &Range<usize>,
        scratch: *mut f32,
        out: &mut Destination<'_>,
    ) {
        let sums = self.sums(bands);
        let (c, ld) = self.target(piece, scratch, out);
        for i in 0..piece.rows {
            for half in 0..piece.cols.div_ceil(TILE) {
                let cols = TILE.min(piece.cols - half * TILE);
                // SAFETY: inside the piece, which is this thread's.
                let to = unsafe { std::slice::from_raw_parts_mut(c.wrapping_add(i * ld + half * TILE), cols) };
                let from = &sums.row(i, half)[..cols];
                if depth.start == 0 {
                    to.copy_from_slice(from);
                } else {
                    to.iter_mut().zip(from).for_each(|(c, sum)| *c += sum);
                }
            }
        }
        if let Destination::Tiles(epilogue) = out
            && depth.end == self.k
        {
            let (r0, c0) = (piece.row, piece.col);
            hand_over(*epilogue, Tile { r0, rows: piece.rows, c0, cols: piece.cols, acc: c, ld });
        }
    }

    /// The product of two bands.
    fn sums(&self, bands: &Bands<'_>) -> TileSums {
        let unit = self.tiles.unit();
        let mut large = TileSums([0.0; SUMS]);
        let small_terms = match self.parts() {
            1 => None,
            2 => Some(PartProducts::TwoSmall),
            _ => Some(PartProducts::FiveSmall),
        };
        unit.accumulate(self.isa, PartProducts::Large, bands, &mut large);
        if let Some(terms) = small_terms {
            let mut small = TileSums([0.0; SUMS]);
            unit.accumulate(self.isa, terms, bands, &mut small);
            for (large, small) in large.0.iter_mut().zip(&small.0) {
                *large = if large.is_finite() { *large + small } else { *large };
            }
        }
        large
    }

    /// Where a piece of C lies: in C, or in scratch, which is used over and over unless several blocks add to it.
    fn target(&self, piece: &OutputPiece<'_>, scratch: *mut f32, out: &Destination<'_>) -> (*mut f32, usize) {
        let own = scratch.wrapping_add(self.packed());
        match *out {
            Destination::Store { c, ldc } => (c.wrapping_add(piece.row * ldc + piece.col), ldc),
            Destination::Tiles(_) if self.depths == 1 => (own, BAND),
            Destination::Tiles(_) => {
                let ld = self.most.1;
                (own.wrapping_add((piece.row - piece.chunk.rows.start) * ld + piece.col - piece.chunk.cols.start), ld)
            }
        }
    }
}

/// What a band of A and a band of B give.
struct OutputPiece<'a> {
    chunk: &'a Chunk,
    row: usize,
    rows: usize,
    col: usize,
    cols: usize,
}
