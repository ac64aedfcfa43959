//! The matrix products by themselves: the ladder (kernels/dev/), every rung launched, checked and timed, every kernel
//! that plans can take, checked, and the one that they do take, timed in every precision.

use super::Cuda;
use super::driver::{DeviceBuffer, Launch};
use super::params::{GemmParams, words, zeroed};
use super::probe::Version;
use crate::engine::device::Precision;
use crate::engine::error::{Error, Result};
use crate::engine::rng::{Draw, OPERANDS};
use crate::engine::steps::gemm::cuda::{self as gemm, GemmLaunch, LADDER};

/// What one kernel of the ladder did.
#[derive(Clone, Debug, PartialEq)]
pub struct RungResult {
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

/// The time of a product in the kernel that plans use for its shape and precision.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedProduct {
    /// How exactly it multiplies.
    pub precision: Precision,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks that shared the k of one tile.
    pub splits: u32,
    /// ‖C − C₆₄‖ / ‖C₆₄‖ in the Frobenius norm over the rows that were computed in f64 too.
    pub error: f64,
    /// The median of the repetitions, in seconds of one product on the device.
    pub median: f64,
    /// The shortest of them.
    pub least: f64,
}

/// The rows of a timed product that are checked: in f64 on the host, all rows of a large one would take minutes.
const CHECKED_ROWS: usize = 32;

/// The error of a right product of numbers from the normal distribution, [n, n]: at most that of cutting the factors
/// (the bounds of tests/device.rs) and, generously, n additions of relative error 2⁻²⁴ that all go one way.
fn largest_error(precision: Precision, n: usize) -> f64 {
    let of_factors = match precision {
        Precision::F32 => 0.0,
        Precision::Bf16x3 => 3e-5,
        Precision::Tf32 => 6e-4,
        Precision::Bf16 => 6e-3,
    };
    of_factors + n as f64 * 2f64.powi(-24)
}

impl Cuda {
    /// Times C = A·B, [n, n] each with normal numbers, in every precision with the kernel that plans take. Every
    /// product is checked before it is timed. A repetition is `launches` launches between two events; one goes ahead
    /// unmeasured.
    ///
    /// # Panics
    /// When n, `launches` or `repetitions` is 0.
    ///
    /// # Errors
    /// [`Error::Device`] from the device, and when a product is wrong.
    pub fn time_products(&self, n: usize, launches: usize, repetitions: usize) -> Result<Vec<TimedProduct>> {
        assert!(n > 0 && launches > 0 && repetitions > 0, "n {n}, {launches} launches, {repetitions} repetitions");
        let matrices = Matrices::new(self, n, n.div_ceil(CHECKED_ROWS))?;
        let time = |&precision: &Precision| {
            let choice = gemm::choose(n, n, n, precision, self.capability(), false);
            let run = matrices.run(self, &choice, false)?;
            let (kernel, error) = (choice.kernel, matrices.error(&run.c));
            if error.is_nan() || error > largest_error(precision, n) {
                return Err(Error::Device {
                    device: self.gpu().name.clone(),
                    reason: format!("{kernel} computes a product of {n} with error {error:.1e} in {precision}"),
                    remedy: "please report this with the output of `elbo info`".into(),
                });
            }
            let repetition = || {
                let enqueue = || (0..launches).try_for_each(|_| self.driver.launch(&run.launch));
                Ok(self.driver.time(enqueue)? / launches as f64)
            };
            repetition()?;
            let mut seconds = (0..repetitions).map(|_| repetition()).collect::<Result<Vec<f64>>>()?;
            seconds.sort_by(f64::total_cmp);
            let median = (seconds[(repetitions - 1) / 2] + seconds[repetitions / 2]) / 2.0;
            Ok(TimedProduct { precision, kernel, splits: choice.splits, error, median, least: seconds[0] })
        };
        Precision::ALL.iter().map(time).collect()
    }

    /// Runs every rung that this GPU can run on C = A·B, [n, n] each with normal numbers; n a multiple of 8.
    ///
    /// # Panics
    /// When n is not a multiple of 8, which some rungs need.
    ///
    /// # Errors
    /// [`Error::Device`] from the device.
    pub fn climb_ladder(&self, n: usize, repetitions: usize) -> Result<Vec<RungResult>> {
        assert!(n > 0 && n.is_multiple_of(8), "the ladder takes multiples of 8, not {n}");
        debug_assert!(LADDER.iter().all(|rung| 8 % rung.multiple == 0));
        let matrices = Matrices::new(self, n, 1)?;
        let cc = self.capability();
        let rungs = LADDER.iter().filter(|rung| rung.cc <= cc).map(|rung| GemmLaunch {
            kernel: rung.name,
            grid: rung.grid(n, n),
            threads: rung.threads,
            shared_bytes: rung.shared_bytes,
            splits: 1,
            k_per_split: n as u32,
            workspace: 0,
            tickets: 0,
            cycles: 0,
        });
        let usual = gemm::choose(n, n, n, Precision::F32, cc, false);
        let climb = |choice: GemmLaunch| {
            let run = matrices.run(self, &choice, false)?;
            let mut seconds = f64::INFINITY;
            for _ in 0..repetitions {
                seconds = seconds.min(self.driver.time(|| self.driver.launch(&run.launch))?);
            }
            Ok(RungResult { kernel: choice.kernel, error: matrices.error(&run.c), seconds })
        };
        rungs.chain([usual]).map(climb).collect()
    }

    /// Runs every kernel of the matrix product that this GPU can run, with one split and with several, on C = A·B with
    /// column sums of B, [n, n] each with normal numbers.
    ///
    /// # Errors
    /// [`Error::Device`] from the device.
    pub fn check_products(&self, n: usize) -> Result<Vec<ProductCheck>> {
        let matrices = Matrices::new(self, n, 1)?;
        let check = |choice: GemmLaunch| {
            let run = matrices.run(self, &choice, true)?;
            Ok(ProductCheck {
                kernel: choice.kernel,
                splits: choice.splits,
                product: matrices.error(&run.c),
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
    /// [`Error::Device`] from the device.
    pub fn every_product(&self, n: usize, a: &[f32], b: &[f32]) -> Result<Vec<(&'static str, u32, Vec<f32>)>> {
        let matrices = Matrices::of(self, n, a, b, 1)?;
        let compute = |choice: GemmLaunch| Ok((choice.kernel, choice.splits, matrices.run(self, &choice, false)?.c));
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
    a: DeviceBuffer,
    b: DeviceBuffer,
    /// Of so many rows of A·B, one is in `truth`.
    every: usize,
    /// A·B: its rows 0, `every`, 2·`every` …
    truth: Vec<f64>,
    /// Σ over the rows of B.
    column_sums: Vec<f64>,
}

/// A launch that ran, with its results. What it points to lives as long.
struct RungRun {
    launch: Launch,
    c: Vec<f32>,
    column_sums: Vec<f32>,
    _memory: [DeviceBuffer; 4],
}

impl Matrices {
    fn new(cuda: &Cuda, n: usize, every: usize) -> Result<Matrices> {
        let numbers = |step: u32| -> Vec<f32> {
            let draw = Draw { seed: 1, step, stream: OPERANDS };
            (0..(n * n) as u64).map(|i| draw.normal(i)).collect()
        };
        Matrices::of(cuda, n, &numbers(0), &numbers(1), every)
    }

    fn of(cuda: &Cuda, n: usize, a: &[f32], b: &[f32], every: usize) -> Result<Matrices> {
        assert!(a.len() == n * n && b.len() == n * n, "{} and {} numbers for n = {n}", a.len(), b.len());
        let mut column_sums = vec![0.0; n];
        for row in b.chunks_exact(n) {
            column_sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        let truth = product(a, b, n, every);
        Ok(Matrices { n, a: cuda.matrix(a)?, b: cuda.matrix(b)?, every, truth, column_sums })
    }

    /// How far C is from A·B, in the rows that are known.
    fn error(&self, c: &[f32]) -> f64 {
        let rows = c.chunks_exact(self.n).step_by(self.every);
        distance(rows.flatten(), &self.truth)
    }

    /// Launches a kernel once and reads what it wrote; without `sums` the column sums stay NaN.
    fn run(&self, cuda: &Cuda, choice: &GemmLaunch, sums: bool) -> Result<RungRun> {
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
        driver.launch(&launch)?;
        let (mut found, mut found_sums) = (vec![0.0; n * n], vec![0.0; n]);
        driver.download(c.address(), &mut found)?;
        driver.download(column_sums.address(), &mut found_sums)?;
        Ok(RungRun { launch, c: found, column_sums: found_sums, _memory: [c, column_sums, workspace, tickets] })
    }
}

impl Cuda {
    /// Numbers on the device.
    fn matrix(&self, values: &[f32]) -> Result<DeviceBuffer> {
        let buffer = self.driver.alloc(4 * values.len(), "a matrix")?;
        self.driver.upload(buffer.address(), values)?;
        Ok(buffer)
    }
}

/// One of `every` rows of A·B in f64, row by row so that B streams.
fn product(a: &[f32], b: &[f32], n: usize, every: usize) -> Vec<f64> {
    let mut c = vec![0.0; n.div_ceil(every) * n];
    for (row, a) in c.chunks_exact_mut(n).zip(a.chunks_exact(n).step_by(every)) {
        for (a, b) in a.iter().zip(b.chunks_exact(n)) {
            row.iter_mut().zip(b).for_each(|(c, b)| *c += f64::from(*a) * f64::from(*b));
        }
    }
    c
}

fn distance<'a>(found: impl IntoIterator<Item = &'a f32>, truth: &[f64]) -> f64 {
    let square = |v: f64| v * v;
    let error: f64 = found.into_iter().zip(truth).map(|(f, t)| square(f64::from(*f) - t)).sum();
    (error / truth.iter().map(|t| square(*t)).sum::<f64>()).sqrt()
}
