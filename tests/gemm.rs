//! The CPU matrix product against plain sums, for every instruction set this processor has.
//!
//! Every element must be *exactly* the chain of multiply-adds in the order of k (fused or not, as the family says), and
//! close to the f64 sum. What lies between and around the matrices is NaN, so that a read outside spoils a result and a
//! write outside is seen.

use elbo::engine::isa::Isa;
use elbo::engine::steps::gemm::{Destination, Gemm, TILE_COLUMNS, TILE_MAX, Tile};

const SIZES: [usize; 18] = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 100, 129, 257];
const DEPTHS: [usize; 11] = [0, 1, 2, 3, 8, 17, 33, 64, 100, 129, 257];
const TRANSPOSES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// Floats kept NaN before and after each matrix.
const GUARD: usize = 37;

/// A stored matrix inside a NaN-filled buffer, `shift` floats off its natural alignment.
struct Stored {
    data: Vec<f32>,
    first: usize,
    ld: usize,
}

impl Stored {
    fn new(rows: usize, cols: usize, ld: usize, shift: usize, at: impl Fn(usize, usize) -> f32) -> Stored {
        let first = GUARD + shift;
        let mut data = vec![f32::NAN; first + rows * ld + GUARD];
        for i in 0..rows {
            for j in 0..cols {
                data[first + i * ld + j] = at(i, j);
            }
        }
        Stored { data, first, ld }
    }
    fn ptr(&self) -> *const f32 {
        self.data[self.first..].as_ptr()
    }
    fn get(&self, i: usize, j: usize) -> f32 {
        self.data[self.first + i * self.ld + j]
    }
}

/// Numbers in (−1, 1) with full mantissas, a pure function of position.
fn noise(seed: usize, i: usize, j: usize) -> f32 {
    let mut x = ((seed << 60) + (i << 30) + j + 1) as u64;
    x = (x ^ (x >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    ((x >> 40) as f32 + 0.5) / (1 << 23) as f32 - 1.0
}

/// The exact expectation: C as one chain per element, with and without fusing, and the column sums of op(B).
struct Expected {
    m: usize,
    n: usize,
    k: usize,
    fused: Vec<f32>,
    plain: Vec<f32>,
    b_sums: Vec<f32>,
}

impl Expected {
    fn new(m: usize, n: usize, k: usize) -> Expected {
        let a: Vec<f32> = (0..m * k).map(|x| noise(1, x / k, x % k)).collect();
        let b: Vec<f32> = (0..n * k).map(|x| noise(2, x / n, x % n)).collect();
        let mut e = Expected { m, n, k, fused: vec![0.0; m * n], plain: vec![0.0; m * n], b_sums: vec![0.0; n] };
        for p in 0..k {
            for j in 0..n {
                e.b_sums[j] += b[p * n + j];
            }
        }
        for i in 0..m {
            for j in 0..n {
                let (mut wide, mut size) = (0.0_f64, 0.0_f64);
                let (mut fused, mut plain) = (0.0_f32, 0.0_f32);
                for p in 0..k {
                    let (x, y) = (a[i * k + p], b[p * n + j]);
                    fused = x.mul_add(y, fused);
                    plain += x * y;
                    wide += f64::from(x) * f64::from(y);
                    size += (f64::from(x) * f64::from(y)).abs();
                }
                let bound = (k + 1) as f64 * f64::from(f32::EPSILON) * size;
                assert!((f64::from(fused) - wide).abs() <= bound, "the reference itself, at {i}, {j}");
                (e.fused[i * n + j], e.plain[i * n + j]) = (fused, plain);
            }
        }
        e
    }
}

/// How a product is run.
#[derive(Clone, Copy, Debug)]
struct Case {
    isa: Isa,
    ta: bool,
    tb: bool,
    /// Floats added to each leading dimension.
    pad: usize,
    /// Floats by which the operands are off 64-byte alignment.
    shift: usize,
    tiles: bool,
    reverse: bool,
}

fn run(e: &Expected, case: Case) {
    let Case { isa, ta, tb, pad, shift, tiles, reverse } = case;
    let (m, n, k) = (e.m, e.n, e.k);
    let a = if ta {
        Stored::new(k, m, m + pad, shift, |p, i| noise(1, i, p))
    } else {
        Stored::new(m, k, k + pad, shift, |i, p| noise(1, i, p))
    };
    let b = if tb {
        Stored::new(n, k, k + pad, shift + 1, |j, p| noise(2, p, j))
    } else {
        Stored::new(k, n, n + pad, shift + 1, |p, j| noise(2, p, j))
    };
    let mut c = Stored::new(m, n, n + pad, shift + 2, |_, _| f32::NAN);
    let mut sums = vec![f32::NAN; n + 2 * GUARD];
    let gemm = Gemm::new(isa, m, n, k, ta, tb, a.ld, b.ld);
    let mut scratch = vec![f32::NAN; gemm.scratch() + 16];
    let scratch = scratch.as_mut_ptr();
    let scratch = scratch.wrapping_add(scratch.align_offset(64));
    let order: Vec<usize> = if reverse { (0..gemm.chunks()).rev().collect() } else { (0..gemm.chunks()).collect() };
    for chunk in order {
        let (ldc, first) = (c.ld, c.first);
        let c_ptr = c.data[first..].as_mut_ptr();
        let mut deliver = |t: Tile| {
            assert!(t.rows * t.cols <= TILE_MAX && t.cols <= TILE_COLUMNS && t.rows > 0 && t.cols > 0, "{t:?}");
            for i in 0..t.rows {
                for j in 0..t.cols {
                    let to = &mut c.data[first + (t.r0 + i) * ldc + t.c0 + j];
                    assert!(to.is_nan(), "{case:?}: delivered twice in {t:?}");
                    // SAFETY: inside the tile, which is the receiver's to overwrite.
                    unsafe { *to = std::mem::replace(&mut *t.acc.add(i * t.ld + j), f32::NAN) };
                }
            }
        };
        let out = if tiles { Destination::Tiles(&mut deliver) } else { Destination::Store { c: c_ptr, ldc } };
        let b_sums = sums[GUARD..].as_mut_ptr();
        // SAFETY: the operands were made for this product; chunks run one after the other.
        unsafe { gemm.run(chunk, a.ptr(), b.ptr(), scratch, out, (!reverse).then_some(b_sums)) };
    }
    let want = if isa == Isa::Portable { &e.plain } else { &e.fused };
    for i in 0..m {
        for j in 0..n {
            let (got, want) = (c.get(i, j), want[i * n + j]);
            assert!(got.to_bits() == want.to_bits(), "{m}×{n}×{k} {case:?}: C[{i}, {j}] = {got}, not {want}");
        }
    }
    let written = c.data.iter().filter(|x| !x.is_nan()).count();
    assert_eq!(written, m * n, "{m}×{n}×{k} {case:?}: elements written outside C");
    if !reverse {
        assert_eq!(sums[GUARD..GUARD + n], e.b_sums, "{m}×{n}×{k} {case:?}: column sums of B");
        assert!(sums[..GUARD].iter().chain(&sums[GUARD + n..]).all(|x| x.is_nan()), "sums written outside");
    }
}

/// All instruction sets, transposes and outputs of one shape, chunks in both orders.
fn all_ways(m: usize, n: usize, k: usize, pads: &[usize]) {
    let e = Expected::new(m, n, k);
    for isa in Isa::available() {
        for (ta, tb) in TRANSPOSES {
            for (tiles, reverse) in [(false, false), (true, true)] {
                let pad = pads[(m + n + usize::from(tiles)) % pads.len()];
                run(&e, Case { isa, ta, tb, pad, shift: (m + 3 * n) % 16, tiles, reverse });
            }
        }
    }
}

#[test]
fn every_edge() {
    for (x, m) in SIZES.into_iter().enumerate() {
        for (y, n) in SIZES.into_iter().enumerate() {
            all_ways(m, n, DEPTHS[(x + 4 * y) % DEPTHS.len()], &[0, 5]);
        }
    }
}

#[test]
fn the_shapes_of_the_networks() {
    for (m, n, k) in [(128, 400, 784), (128, 40, 400), (96, 400, 20), (32, 784, 400), (784, 400, 32), (20, 400, 96)] {
        all_ways(m, n, k, &[0]);
    }
    for (m, n, k) in [(20, 200, 784), (20, 200, 50), (20, 50, 200), (784, 200, 20), (200, 100, 20), (180, 200, 784)] {
        all_ways(m, n, k, &[0]);
    }
}

#[test]
fn long_sums_are_one_chain_over_several_blocks() {
    all_ways(19, 50, 2500, &[0, 3]);
    all_ways(300, 70, 1030, &[0, 3]);
}

/// A read along its columns is packed there, over one block of k and over two.
#[test]
fn high_and_deep_products() {
    all_ways(800, 200, 300, &[0, 3]);
    all_ways(790, 140, 900, &[0, 3]);
    // The widest panels, those of AVX-512.
    all_ways(1600, 256, 257, &[0]);
}

#[test]
fn one_dimension_of_4097() {
    all_ways(4097, 5, 7, &[0]);
    all_ways(3, 4097, 17, &[1]);
    all_ways(5, 9, 4097, &[0]);
}

/// Powers of two, whose rows collide in the cache, and several bands of rows.
#[test]
fn colliding_leading_dimensions() {
    for (m, n, k) in [(256, 80, 512), (100, 70, 512), (512, 300, 40), (256, 33, 1024)] {
        let pads: Vec<usize> = vec![0, 1024 - k.min(1024)];
        all_ways(m, n, k, &pads);
    }
}

#[test]
fn empty_products() {
    for isa in Isa::available() {
        assert_eq!(Gemm::new(isa, 0, 5, 7, false, false, 7, 5).chunks(), 0);
        assert_eq!(Gemm::new(isa, 5, 0, 7, false, false, 7, 0).chunks(), 0);
    }
}

#[test]
fn the_tile_memory_does_not_depend_on_the_run() {
    let gemm = Gemm::new(Isa::detect(), 128, 400, 784, false, false, 784, 400);
    assert!(gemm.chunks() >= 16, "too few chunks for 16 threads: {}", gemm.chunks());
    assert!(gemm.scratch() * 4 < 1 << 20, "scratch outgrows L2: {} floats", gemm.scratch());
}
