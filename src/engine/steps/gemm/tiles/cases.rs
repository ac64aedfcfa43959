//! Matrices that are hard to multiply, and products of them with what they should be.

use super::super::Way;
use super::pack::rounded;
use super::{HALVES, TileGemm, Tiles};
use crate::engine::isa::Isa;
use crate::engine::rng::{Draw, OPERANDS};
use crate::engine::steps::gemm::{Destination, Gemm, TILE_MAX, Tile};

/// u = 2⁻²⁴, half a unit in the last place of 1.
pub(super) const U: f64 = 1.0 / (1 << 24) as f64;
/// The least normal number: what is smaller is lost.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// Matrices that are hard in one way each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HardMatrices {
    /// Uniform in (−1, 1).
    Random,
    /// Of both signs, 2⁻³⁰ to 2³⁰.
    Wide,
    /// Quotients of normals: a few are far larger than the rest.
    Tailed,
    /// Pairs of products that differ by a millionth.
    Cancelling,
    /// A around the least normal number, B around 1.
    Denormal,
    /// Sums up to 3·10³⁸.
    NearOverflow,
}

pub(super) const CASES: [HardMatrices; 6] = [
    HardMatrices::Random,
    HardMatrices::Wide,
    HardMatrices::Tailed,
    HardMatrices::Cancelling,
    HardMatrices::Denormal,
    HardMatrices::NearOverflow,
];

impl HardMatrices {
    /// Number i of factor 0 or 1 at step p of k.
    pub fn number(self, factor: u32, i: usize, p: usize, k: usize) -> f32 {
        let draw = |stream: u32| Draw { seed: u64::from(factor), step: i as u32, stream };
        let half = k / 2;
        // The second half of the sum repeats the first.
        let at = if self == HardMatrices::Cancelling && p >= half { p - half } else { p } as u64;
        let uniform = draw(OPERANDS).uniform(at) * 2.0 - 1.0 + f32::EPSILON;
        let other = || draw(OPERANDS + 1).uniform(at);
        match self {
            HardMatrices::Random => uniform,
            HardMatrices::Wide => uniform.signum() * (other() * 60.0 - 30.0).exp2(),
            HardMatrices::Tailed => draw(OPERANDS).normal(at) / draw(OPERANDS + 1).normal(at).abs().max(1e-4),
            HardMatrices::Cancelling if factor == 1 && p >= half => -uniform * (1.0 + 1e-6 * other()),
            HardMatrices::Cancelling => uniform,
            HardMatrices::Denormal if factor == 0 => uniform * (other() * 20.0 - 140.0).exp2(),
            HardMatrices::Denormal => uniform,
            HardMatrices::NearOverflow if factor == 0 => uniform.abs() * 1e19,
            HardMatrices::NearOverflow => uniform.abs() * 3e19 / k as f32,
        }
    }
}

/// op(A) [m, k] and op(B) [n, k], and how they are stored.
pub(super) struct HardProduct {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub ta: bool,
    pub tb: bool,
}

/// What a run leaves: C [m, n] and the column sums of op(B).
pub(super) type Found = (Vec<f32>, Vec<f32>);

impl HardProduct {
    pub fn new(case: HardMatrices, m: usize, n: usize, k: usize, ta: bool, tb: bool) -> HardProduct {
        let numbers = |factor, rows| (0..rows * k).map(|x| case.number(factor, x / k, x % k, k)).collect();
        HardProduct { m, n, k, a: numbers(0, m), b: numbers(1, n), ta, tb }
    }

    /// Rows of `k` numbers as they are stored: transposed or not, 3 longer than need be, NaN around.
    fn stored(numbers: &[f32], k: usize, along_k: bool) -> (Vec<f32>, usize) {
        let rows = numbers.len().checked_div(k).unwrap_or(0);
        let ld = if along_k { k } else { rows } + 3;
        let mut all = vec![f32::NAN; if along_k { rows } else { k } * ld + 1];
        for (x, number) in numbers.iter().enumerate() {
            let (i, p) = (x / k, x % k);
            all[1 + if along_k { i * ld + p } else { p * ld + i }] = *number;
        }
        (all, ld)
    }

    /// Runs `gemm` of the leading dimensions, in one of the two orders of its chunks, to memory or to an epilogue.
    pub fn run(&self, gemm: impl Fn(usize, usize) -> Gemm, to_epilogue: bool, reverse: bool) -> Found {
        let (n, ldc) = (self.n, self.n + 2);
        let (a, lda) = HardProduct::stored(&self.a, self.k, !self.ta);
        let (b, ldb) = HardProduct::stored(&self.b, self.k, self.tb);
        let gemm = gemm(lda, ldb);
        let mut c = vec![f32::NAN; self.m * ldc];
        let mut sums = vec![f32::NAN; n];
        let mut scratch = vec![f32::NAN; gemm.scratch() + 16];
        let scratch = scratch.as_mut_ptr();
        let scratch = scratch.wrapping_add(scratch.align_offset(64));
        let mut order: Vec<usize> = (0..gemm.chunks()).collect();
        if reverse {
            order.reverse();
        }
        let mut delivered = vec![false; self.m * n];
        for chunk in order {
            let to = c.as_mut_ptr();
            let mut deliver = |tile: Tile| {
                assert!(tile.rows * tile.cols <= TILE_MAX);
                for (i, j) in (0..tile.rows).flat_map(|i| (0..tile.cols).map(move |j| (i, j))) {
                    let (row, col) = (tile.r0 + i, tile.c0 + j);
                    assert!(!std::mem::replace(&mut delivered[row * n + col], true), "delivered twice: {tile:?}");
                    // SAFETY: inside C, and inside the tile, which is the receiver's to overwrite.
                    unsafe {
                        *to.add(row * ldc + col) = std::mem::replace(&mut *tile.acc.add(i * tile.ld + j), f32::NAN)
                    };
                }
            };
            let out = match to_epilogue {
                true => Destination::Tiles(&mut deliver),
                false => Destination::Store { c: to, ldc },
            };
            // SAFETY: the operands were made for this product; chunks run one after the other.
            unsafe { gemm.run(chunk, a[1..].as_ptr(), b[1..].as_ptr(), scratch, out, Some(sums.as_mut_ptr())) };
        }
        let (rows, beyond): (Vec<&[f32]>, Vec<&[f32]>) = c.chunks(ldc).map(|row| row.split_at(n)).unzip();
        assert!(beyond.concat().iter().all(|x| x.is_nan()), "written outside C");
        (rows.concat(), sums)
    }

    pub fn gemm(&self, tiles: Tiles) -> impl Fn(usize, usize) -> Gemm {
        let (m, n, k, ta, tb) = (self.m, self.n, self.k, self.ta, self.tb);
        move |lda, ldb| {
            let way = Way::Tiles(TileGemm::new(tiles, Isa::detect(), m, n, k, (ta, lda), (tb, ldb)));
            Gemm { n, way }
        }
    }

    /// The bits of C on tiles.
    pub fn on(&self, tiles: Tiles) -> Vec<u32> {
        self.run(self.gemm(tiles), false, false).0.iter().map(|x| x.to_bits()).collect()
    }

    pub fn on_vectors(&self) -> Found {
        let (m, n, k, ta, tb) = (self.m, self.n, self.k, self.ta, self.tb);
        self.run(|lda, ldb| Gemm::new(Isa::detect(), m, n, k, ta, tb, lda, ldb), false, false)
    }

    /// For each element the sum in f64, Σ|a·b|, and Σ(|a| + |b|).
    fn exact(&self) -> Vec<[f64; 3]> {
        let row = |of: &[f32], i: usize| of[i * self.k..][..self.k].to_vec();
        let element = |x: usize| {
            let pairs = row(&self.a, x / self.n).into_iter().zip(row(&self.b, x % self.n));
            pairs.fold([0.0; 3], |[sum, size, factors], (a, b)| {
                let (a, b) = (f64::from(a), f64::from(b));
                [sum + a * b, size + (a * b).abs(), factors + a.abs() + b.abs()]
            })
        };
        (0..self.m * self.n).map(element).collect()
    }

    /// The largest error of `found` in units of u · Σ|a·b|, and the largest as a part of what is allowed: `allowed` such units
    /// and `lost` least normal numbers for every factor and addition.
    pub fn errors(&self, found: &[f32], allowed: f64, lost: f64) -> (f64, f64) {
        self.exact().iter().zip(found).fold((0.0, 0.0), |(most, part): (f64, f64), (&[sum, size, factors], &c)| {
            let error = (f64::from(c) - sum).abs();
            assert!(error.is_finite(), "{c} for {sum}");
            let allowed = allowed * U * size + lost * LEAST * (factors + 6.0 * self.k as f64 + 100.0);
            (most.max(error / (U * size)), part.max(error / allowed))
        })
    }
}

/// Two bands of so many steps times parts, with numbers of many sizes.
pub(super) fn noise_bands(steps_and_parts: usize) -> [Vec<u16>; 2] {
    let number = |factor: u32| move |i: usize| rounded(HardMatrices::Wide.number(factor, 0, i, 0));
    [0, 1].map(|factor| (0..steps_and_parts * 2 * HALVES).map(number(factor)).collect())
}
