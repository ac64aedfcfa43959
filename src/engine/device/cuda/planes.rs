//! Matrices cut into planes of bf16 (kernels/planes.cuh); the ladder's rungs 9 and 10, which multiply them, and how exact sums of
//! their products are.

use super::Cuda;
use super::driver::{Address, DeviceBuffer, Launch, Pod};
use super::ladder::{Matrices, RungRun};
use super::params::{MakePlanesParams, words};
use crate::engine::error::{Error, Result};
use crate::engine::plan::View;
use crate::engine::rng::{Draw, OPERANDS};
use crate::engine::steps::gemm::rungs::{LADDER, Rung};

/// Of the products of planes, as kernels/dev/planes.cuh declares it.
#[repr(C)]
#[derive(Clone, Copy)]
struct PlanesParams {
    a: Address,
    b: Address,
    c: Address,
    m: i32,
    n: i32,
    k: i32,
    a_pitch: i32,
    b_pitch: i32,
    ldc: i32,
}

// The size that kernels/dev/planes.cuh asserts, which is that of the fields: there is no padding.
const _: () = assert!(size_of::<PlanesParams>() == 3 * 8 + 6 * 4);

// SAFETY: numbers without padding, by the assertion above.
unsafe impl Pod for PlanesParams {}

/// Numbers of a chunk, the 16 bytes that the kernels copy at a time: a plane's rows are whole ones.
pub(super) const CHUNK: usize = 8;

/// The kernel that makes planes, and the threads of its blocks, each of which makes two neighbours into words.
pub(super) const MAKE_PLANES: &str = "make_planes";
pub(super) const THREADS: u32 = 256;

/// Numbers from a row of a plane to the next, of a factor as it is stored.
pub(crate) fn plane_pitch(of: &View) -> usize {
    of.cols.next_multiple_of(CHUNK)
}

/// Blocks that make planes with so many rows.
pub(super) fn plane_blocks(rows: usize, pitch: usize) -> u32 {
    assert!(rows * pitch / 2 < 1 << 32, "a plane of {rows} by {pitch}");
    (rows * pitch / 2).div_ceil(THREADS as usize) as u32
}

/// Cuts the operands into planes, multiplies, and reads what came out.
pub(super) fn run(cuda: &Cuda, matrices: &Matrices, rung: &Rung) -> Result<RungRun> {
    let ([m, n, k], driver) = (matrices.shape, &cuda.driver);
    let (a_pitch, b_pitch) = (k.next_multiple_of(CHUNK), n.next_multiple_of(CHUNK));
    let planes = |rows: usize, pitch: usize| driver.alloc(2 * rung.planes * rows * pitch, "planes of bf16");
    let (a, b) = (planes(m, a_pitch)?, planes(k, b_pitch)?);
    // Not a number until the kernel has written it.
    let c = cuda.matrix(&vec![f32::NAN; m * n])?;
    let makes_planes = vec![
        make_planes(cuda, matrices.a.address(), &a, [m, k, a_pitch], rung.planes)?,
        make_planes(cuda, matrices.b.address(), &b, [k, n, b_pitch], rung.planes)?,
    ];
    let params = PlanesParams {
        a: a.address(),
        b: b.address(),
        c: c.address(),
        m: m as i32,
        n: n as i32,
        k: k as i32,
        a_pitch: a_pitch as i32,
        b_pitch: b_pitch as i32,
        ldc: n as i32,
    };
    let (columns, rows) = rung.grid(m, n);
    let launch = Launch {
        function: driver.function(rung.name)?,
        kernel: rung.name,
        grid: [columns, rows, 1],
        threads: rung.threads,
        shared: rung.shared_bytes,
        params: words(&params),
    };
    for launch in makes_planes.iter().chain([&launch]) {
        driver.launch(launch)?;
    }
    let mut found = vec![0.0; m * n];
    driver.download(c.address(), &mut found)?;
    let memory = vec![a, b, c];
    Ok(RungRun { makes_planes, launch, c: found, column_sums: vec![], bias: vec![], apart: vec![], memory })
}

/// The launch that cuts a matrix [rows, cols] into planes whose rows are `pitch` long.
pub(super) fn make_planes(
    cuda: &Cuda,
    from: Address,
    to: &DeviceBuffer,
    [rows, cols, pitch]: [usize; 3],
    planes: usize,
) -> Result<Launch> {
    let params = MakePlanesParams {
        from,
        to: to.address(),
        rows: rows as i32,
        cols: cols as i32,
        ld: cols as i32,
        pitch: pitch as i32,
        planes: planes as i32,
        pad: 0,
    };
    let (kernel, grid) = (MAKE_PLANES, [plane_blocks(rows, pitch), 1, 1]);
    let function = cuda.driver.function(kernel)?;
    Ok(Launch { function, kernel, grid, threads: THREADS, shared: 0, params: words(&params) })
}

/// The arithmetics of [`Cuda::split_errors`], in the order of its errors.
pub const ARITHMETICS: [&str; 4] = ["bf16", "bf16 ×3", "bf16 ×6", "f32, one chain"];

/// Rows and columns of the products that [`Cuda::split_errors`] looks at: a tile.
const SIDE: usize = 128;

/// What the factors of a product are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// From the normal distribution: sums in which positive and negative products nearly cancel.
    Normal,
    /// Their magnitudes: sums that grow with k, where a bias of the additions would show.
    Positive,
}

impl Cuda {
    /// How far products of depth k are from the same in f64: of the 128 × 128 elements the largest
    /// |c − c₆₄| / Σ|a·b|, in units of 2⁻²⁴, for each of [`ARITHMETICS`]. The first three are computed by rungs 9 and 10 on
    /// this device, the chain of fused multiply-adds by the host.
    ///
    /// # Panics
    /// When k is 0.
    ///
    /// # Errors
    /// [`Error::Device`] from the device, and when it has no tensor cores.
    pub fn split_errors(&self, factors: Factors, k: usize) -> Result<[f64; 4]> {
        assert!(k > 0, "a product of depth 0");
        let shape = [SIDE, SIDE, k];
        let numbers = |step: u32| -> Vec<f32> {
            let draw = Draw { seed: 1, step, stream: OPERANDS };
            let normal = (0..(SIDE * k) as u64).map(|i| draw.normal(i));
            normal.map(|x| if factors == Factors::Positive { x.abs() } else { x }).collect()
        };
        let (a, b) = (numbers(0), numbers(1));
        let matrices = Matrices::of(self, shape, &a, &b, 1)?;
        let exact = TrueProduct::of(&a, &b, k);
        let mut errors = vec![];
        for rung in LADDER.iter().filter(|rung| rung.planes > 0 && !rung.tiles) {
            if let Some(obstacle) = rung.obstacle(shape, self.capability()) {
                return Err(Error::Device {
                    device: self.gpu().name.clone(),
                    reason: format!("{} {obstacle}", rung.name),
                    remedy: "use a GPU with tensor cores for bf16, or the emulated driver".into(),
                });
            }
            errors.push(exact.largest_error(&matrices.climb(self, rung)?.c));
        }
        errors.push(exact.largest_error(&chain(&a, &b, k)));
        Ok(errors.try_into().expect("three rungs of planes, and the chain"))
    }
}

/// A product in f64, and what its elements' errors are measured by.
struct TrueProduct {
    sums: Vec<f64>,
    /// Σ|a·b|.
    magnitudes: Vec<f64>,
}

impl TrueProduct {
    fn of(a: &[f32], b: &[f32], k: usize) -> TrueProduct {
        let mut exact = TrueProduct { sums: vec![0.0; SIDE * SIDE], magnitudes: vec![0.0; SIDE * SIDE] };
        for (row, a) in a.chunks_exact(k).enumerate() {
            for (a, b) in a.iter().zip(b.chunks_exact(SIDE)) {
                for (column, b) in b.iter().enumerate() {
                    let product = f64::from(*a) * f64::from(*b);
                    exact.sums[row * SIDE + column] += product;
                    exact.magnitudes[row * SIDE + column] += product.abs();
                }
            }
        }
        exact
    }

    /// In units of 2⁻²⁴ Σ|a·b|. An element that is no number is infinitely wrong.
    fn largest_error(&self, found: &[f32]) -> f64 {
        let of = |((c, sum), magnitude): ((&f32, &f64), &f64)| (f64::from(*c) - sum).abs() / magnitude * 2f64.powi(24);
        let errors = found.iter().zip(&self.sums).zip(&self.magnitudes).map(of);
        errors.fold(0.0, |most, error| if error.is_nan() { f64::INFINITY } else { most.max(error) })
    }
}

/// C by one chain of fused multiply-adds in f32 for each element.
fn chain(a: &[f32], b: &[f32], k: usize) -> Vec<f32> {
    let mut c = vec![0.0; SIDE * SIDE];
    for (row, a) in c.chunks_exact_mut(SIDE).zip(a.chunks_exact(k)) {
        for (a, b) in a.iter().zip(b.chunks_exact(SIDE)) {
            row.iter_mut().zip(b).for_each(|(c, b)| *c = a.mul_add(*b, *c));
        }
    }
    c
}
