//! The matrix products by themselves: the ladder (kernels/dev/), every rung launched, checked and timed, and every kernel
//! that plans can take, checked.

use super::Cuda;
use super::driver::{Buffer, Lane, Launch};
use super::params::{GemmParams, words, zeroed};
use super::probe::Version;
use crate::device::Precision;
use crate::error::Result;
use crate::rng::Draw;
use crate::steps::gemm::cuda::{self as gemm, Choice, LADDER};

/// What one kernel of the ladder did.
#[derive(Clone, Debug, PartialEq)]
pub struct Rung {
    /// The kernel's name: `dev_gemm_1` … and at the end the kernel that plans use for this shape.
    pub kernel: &'static str,
    /// ‖C − C₆₄‖ / ‖C₆₄‖ in the Frobenius norm, C₆₄ computed in f64 on the host.
    pub error: f64,
    /// The shortest of the repetitions, in seconds on the device.
    pub seconds: f64,
}

/// How far a kernel's results are from the same in f64, relative in the Frobenius norm.
#[derive(Clone, Debug, PartialEq)]
pub struct ProductCheck {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks that shared the k of one tile.
    pub splits: u32,
    /// Of C.
    pub product: f64,
    /// Of the column sums of B.
    pub column_sums: f64,
}

impl Cuda {
    /// Runs every rung that this GPU can run on C = A·B, [n, n] each with normal numbers; n a multiple of 8.
    ///
    /// # Panics
    /// When n is not a multiple of 8, which some rungs need.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) from the device.
    pub fn climb_ladder(&self, n: usize, repetitions: usize) -> Result<Vec<Rung>> {
        assert!(n > 0 && n.is_multiple_of(8), "the ladder takes multiples of 8, not {n}");
        debug_assert!(LADDER.iter().all(|rung| 8 % rung.multiple == 0));
        let matrices = Matrices::new(self, n)?;
        let cc = self.capability();
        let rungs = LADDER.iter().filter(|rung| rung.cc <= cc).map(|rung| Choice {
            kernel: rung.name,
            grid: rung.grid(n, n),
            threads: rung.threads,
            shared_bytes: rung.shared_bytes,
            splits: 1,
            k_per_split: n as u32,
            workspace: 0,
            tickets: 0,
        });
        let usual = gemm::choose(n, n, n, Precision::F32, cc, false);
        let climb = |choice: Choice| {
            let run = matrices.run(self, &choice, false)?;
            let mut seconds = f64::INFINITY;
            for _ in 0..repetitions {
                seconds = seconds.min(self.driver.time(|| self.driver.launch(&run.launch, Lane::Main))?);
            }
            Ok(Rung { kernel: choice.kernel, error: distance(&run.c, &matrices.truth), seconds })
        };
        rungs.chain([usual]).map(climb).collect()
    }

    /// Runs every kernel of the matrix product that this GPU can run, with one split and with several, on C = A·B with
    /// column sums of B, [n, n] each with normal numbers.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) from the device.
    pub fn check_products(&self, n: usize) -> Result<Vec<ProductCheck>> {
        let matrices = Matrices::new(self, n)?;
        let check = |choice: Choice| {
            let run = matrices.run(self, &choice, true)?;
            Ok(ProductCheck {
                kernel: choice.kernel,
                splits: choice.splits,
                product: distance(&run.c, &matrices.truth),
                column_sums: distance(&run.column_sums, &matrices.column_sums),
            })
        };
        gemm::every(n, n, n, self.capability()).into_iter().map(check).collect()
    }

    /// C = A·B, [n, n] each, row-major, by every kernel of the matrix product that this GPU can run, with one split and
    /// with several: the kernel's name, its splits, and C.
    ///
    /// # Panics
    /// When A or B has another number of elements than n².
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) from the device.
    pub fn every_product(&self, n: usize, a: &[f32], b: &[f32]) -> Result<Vec<(&'static str, u32, Vec<f32>)>> {
        let matrices = Matrices::of(self, n, a, b)?;
        let compute = |choice: Choice| Ok((choice.kernel, choice.splits, matrices.run(self, &choice, false)?.c));
        gemm::every(n, n, n, self.capability()).into_iter().map(compute).collect()
    }

    fn capability(&self) -> (u32, u32) {
        let Version(major, minor) = self.driver.gpu.compute_capability;
        (major, minor)
    }
}

/// A and B on the device, and what comes out in f64.
struct Matrices {
    n: usize,
    a: Buffer,
    b: Buffer,
    /// A·B.
    truth: Vec<f64>,
    /// Σ over the rows of B.
    column_sums: Vec<f64>,
}

/// A launch that ran, with its results. What it points to lives as long.
struct Run {
    launch: Launch,
    c: Vec<f32>,
    column_sums: Vec<f32>,
    _memory: [Buffer; 4],
}

impl Matrices {
    fn new(cuda: &Cuda, n: usize) -> Result<Matrices> {
        let numbers = |stream: u32| -> Vec<f32> {
            let draw = Draw { seed: 1, step: 0, stream };
            (0..(n * n) as u64).map(|i| draw.normal(i)).collect()
        };
        Matrices::of(cuda, n, &numbers(0), &numbers(1))
    }

    fn of(cuda: &Cuda, n: usize, a: &[f32], b: &[f32]) -> Result<Matrices> {
        assert!(a.len() == n * n && b.len() == n * n, "{} and {} numbers for n = {n}", a.len(), b.len());
        let mut column_sums = vec![0.0; n];
        for row in b.chunks_exact(n) {
            column_sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        let truth = product(a, b, n);
        Ok(Matrices { n, a: cuda.matrix(a)?, b: cuda.matrix(b)?, truth, column_sums })
    }

    /// Launches a kernel once and reads what it wrote; without `sums` the column sums stay NaN.
    fn run(&self, cuda: &Cuda, choice: &Choice, sums: bool) -> Result<Run> {
        let (n, driver) = (self.n, &cuda.driver);
        // Not a number until the kernel has written it.
        let (c, column_sums) = (cuda.matrix(&vec![f32::NAN; n * n])?, cuda.matrix(&vec![f32::NAN; n])?);
        let workspace = driver.alloc(4 * choice.workspace, "partial products")?;
        let tickets = driver.alloc(4 * choice.tickets, "tickets")?;
        let size = n as i32;
        let params = GemmParams {
            a: self.a.address(),
            b: self.b.address(),
            c: c.address(),
            col_sums: if sums { column_sums.address() } else { 0 },
            workspace: workspace.address(),
            tickets: tickets.address(),
            m: size,
            n: size,
            k: size,
            lda: size,
            ldb: size,
            ldc: size,
            alpha: 1.0,
            splits: choice.splits as i32,
            k_per_split: choice.k_per_split as i32,
            ..zeroed()
        };
        let function = driver.function(choice.kernel)?;
        driver.allow_shared(function, choice.shared_bytes)?;
        let grid = [choice.grid.0, choice.grid.1, choice.splits];
        let (kernel, threads, shared) = (choice.kernel, choice.threads, choice.shared_bytes);
        let launch = Launch { function, kernel, grid, threads, shared, params: words(&params) };
        driver.launch(&launch, Lane::Main)?;
        let (mut found, mut found_sums) = (vec![0.0; n * n], vec![0.0; n]);
        driver.download(c.address(), &mut found)?;
        driver.download(column_sums.address(), &mut found_sums)?;
        Ok(Run { launch, c: found, column_sums: found_sums, _memory: [c, column_sums, workspace, tickets] })
    }
}

impl Cuda {
    /// Numbers on the device.
    fn matrix(&self, values: &[f32]) -> Result<Buffer> {
        let buffer = self.driver.alloc(4 * values.len(), "a matrix")?;
        self.driver.upload(buffer.address(), values)?;
        Ok(buffer)
    }
}

/// A·B in f64, row by row so that B streams.
fn product(a: &[f32], b: &[f32], n: usize) -> Vec<f64> {
    let mut c = vec![0.0; n * n];
    for (row, a) in c.chunks_exact_mut(n).zip(a.chunks_exact(n)) {
        for (a, b) in a.iter().zip(b.chunks_exact(n)) {
            row.iter_mut().zip(b).for_each(|(c, b)| *c += f64::from(*a) * f64::from(*b));
        }
    }
    c
}

fn distance(found: &[f32], truth: &[f64]) -> f64 {
    let square = |v: f64| v * v;
    let error: f64 = found.iter().zip(truth).map(|(f, t)| square(f64::from(*f) - t)).sum();
    (error / truth.iter().map(|t| square(*t)).sum::<f64>()).sqrt()
}
