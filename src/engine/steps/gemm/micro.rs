//! The micro-kernel: one text for every instruction set.
//!
//! A tile of C, `rows` × `NV` vectors wide, lives in registers for the whole loop over k. Each turn of the loop is one
//! outer product: `NV` loads bring a row of B, `rows` broadcasts bring a column of A, and `rows·NV` fused
//! multiply-adds use them,
//!
//! ```text
//!   acc[i][j] += A[i, p] · B[p, j]        loads per FMA = (rows + NV) / (rows·NV)
//! ```
//!
//! so a large tile needs few loads. The processor must also hide the latency of the FMA (4 cycles): it wants at least
//! 4 × (FMAs per cycle) independent accumulators, which every tile used here has. The families (`avx512.rs`, …) state
//! the register count of their tile.

use crate::engine::steps::prefetch;

/// One call of a micro-kernel: C[0..rows, 0..cols] (+)= A·B over `k`.
pub(super) struct Micro {
    pub k: usize,
    /// op(A)[0, 0]. Element (i, p) is at `a[i·lda + p]`, or at `a[p·lda + i]` where A is read transposed.
    pub a: *const f32,
    pub lda: usize,
    /// op(B)[0, 0], row p at `b[p·ldb..]`: a packed panel, or the matrix itself (`Source::InPlace`).
    pub b: *const f32,
    pub ldb: usize,
    /// Where the first row tile leaves the packed panel as it reads B in place; null if nobody will read it.
    pub pack: *mut f32,
    pub c: *mut f32,
    pub ldc: usize,
    /// Columns of the tile: more than (NV − 1)·LANES and at most NV·LANES.
    pub cols: usize,
    /// The k-chain goes on from what C holds (a later block of k) instead of from zero.
    pub resume: bool,
    /// C may be far away: ask for its lines before the loop over k, so that they are there to be stored to after it.
    pub fetch: bool,
}

/// A compiled micro-kernel for a fixed number of rows.
pub(super) type MicroKernel = unsafe fn(&Micro);

/// A vector of `LANES` floats.
///
/// # Safety
/// Every method needs the instruction set of the implementing type; pointers must be valid for the lanes named.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// Selects the first lanes of a vector.
    type Mask: Copy;
    unsafe fn zero() -> Self;
    unsafe fn splat(p: *const f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// self + x·y, fused where the hardware has it.
    unsafe fn fma(self, x: Self, y: Self) -> Self;
    /// The mask of the first `n` lanes, 1 ≤ n ≤ LANES.
    unsafe fn mask(n: usize) -> Self::Mask;
    /// Loads the masked lanes, zeros elsewhere; touches no memory outside the mask.
    unsafe fn load_part(p: *const f32, mask: Self::Mask) -> Self;
    unsafe fn store_part(self, p: *mut f32, mask: Self::Mask);
}

/// Steps of k between the prefetch of a row of B in place and its use: a load from L3 takes about 200 cycles, a step of
/// a full AVX-512 tile 24. Rows of a matrix lie too far apart for the hardware's prefetcher.
const AHEAD: usize = 10;

/// The body of every micro-kernel; each family compiles it with its own `#[target_feature]`.
///
/// `TA`: A is read along its columns. `IN_PLACE`: B is the caller's matrix (partial last vector, masked) and is
/// written to `pack` on the way, NV stores among NV·MR multiply-adds; otherwise B is a packed, zero-padded panel.
///
/// # Safety
/// `t` must describe readable A and B and a writable C (and `pack`, of `k`·NV·LANES floats, unless null).
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the index is also the row or column of the tile; iterators hide that")]
pub(super) unsafe fn micro<V: Vector, const MR: usize, const NV: usize, const TA: bool, const IN_PLACE: bool>(
    t: &Micro,
) {
    // SAFETY: the caller describes the matrices; `mask` covers the last vector's part inside `cols`.
    unsafe {
        let full = t.cols == NV * V::LANES;
        let mask = V::mask(t.cols - (NV - 1) * V::LANES);
        let (k, lda, ldb) = (t.k, t.lda, t.ldb);
        let (mut a, mut b, mut pack) = (t.a, t.b, t.pack);
        let mut acc = [[V::zero(); NV]; MR];
        if t.resume {
            for i in 0..MR {
                for j in 0..NV {
                    let c = t.c.add(i * t.ldc + j * V::LANES);
                    acc[i][j] = if full || j + 1 < NV { V::load(c) } else { V::load_part(c, mask) };
                }
            }
        } else if t.fetch {
            for i in 0..MR {
                prefetch(t.c.add(i * t.ldc));
                prefetch(t.c.add(i * t.ldc + t.cols - 1));
            }
        }
        for _ in 0..k {
            let mut row = [V::zero(); NV];
            for j in 0..NV {
                let p = b.add(j * V::LANES);
                row[j] = if IN_PLACE && j + 1 == NV { V::load_part(p, mask) } else { V::load(p) };
            }
            if IN_PLACE {
                prefetch(b.wrapping_add(AHEAD * ldb));
                prefetch(b.wrapping_add(AHEAD * ldb + t.cols - 1));
            }
            if IN_PLACE && !pack.is_null() {
                for j in 0..NV {
                    row[j].store(pack.add(j * V::LANES));
                }
                pack = pack.add(NV * V::LANES);
            }
            for i in 0..MR {
                let x = V::splat(a.add(if TA { i } else { i * lda }));
                for j in 0..NV {
                    acc[i][j] = acc[i][j].fma(x, row[j]);
                }
            }
            a = a.wrapping_add(if TA { lda } else { 1 });
            b = b.wrapping_add(if IN_PLACE { ldb } else { NV * V::LANES });
        }
        for i in 0..MR {
            for j in 0..NV {
                let c = t.c.add(i * t.ldc + j * V::LANES);
                if full || j + 1 < NV { acc[i][j].store(c) } else { acc[i][j].store_part(c, mask) }
            }
        }
    }
}

/// The kernels of one panel width.
pub(super) struct Class {
    /// Columns of a packed panel: NV·LANES.
    pub width: usize,
    /// `kernels[ta][in_place][rows − 1]`.
    pub kernels: [[&'static [MicroKernel]; 2]; 2],
}

/// What an instruction set offers to the blocked loop.
pub(super) struct MicroKernels {
    /// Most rows of a tile.
    pub rows: usize,
    /// Panel widths, widest first. Together they cover every number of columns with less than one of the
    /// narrowest vectors wasted.
    pub classes: &'static [Class],
    /// Packs op(B) when B is stored [n, k].
    pub pack_transposed: super::pack::PackTransposed,
}

impl MicroKernels {
    /// The class for the first panel of `rest` columns, and how many of them it takes.
    ///
    /// The narrowest class that covers `rest`, unless more than a narrow vector of it would idle; then the widest that
    /// fits. With widths 32, 16, 8 a tail of 20 becomes 16 + 4 (24 lanes), a tail of 28 one panel of 32.
    pub fn class(&self, rest: usize) -> (&'static Class, usize) {
        let narrowest = self.classes[self.classes.len() - 1].width;
        let fits = self.classes.iter().find(|c| c.width <= rest);
        let covers = self.classes.iter().rev().find(|c| c.width >= rest && c.width - rest < narrowest);
        let class = covers.or(fits).expect("the narrowest class covers what no class fits into");
        (class, class.width.min(rest))
    }
}

/// A `Class` for vector `$v`, `$nv` of them, from the family's generic `kernel` and the list of row counts.
macro_rules! class {
    ($v:ty, $nv:literal; $($mr:literal)*) => {
        Class {
            width: $nv * <$v as Vector>::LANES,
            kernels: [
                [&[$(kernel::<$v, $mr, $nv, false, false>),*], &[$(kernel::<$v, $mr, $nv, false, true>),*]],
                [&[$(kernel::<$v, $mr, $nv, true, false>),*], &[$(kernel::<$v, $mr, $nv, true, true>),*]],
            ],
        }
    };
}
pub(super) use class;
