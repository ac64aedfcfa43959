//! The matrix products by themselves: the ladder (kernels/dev/), every rung launched, checked and timed, every kernel
//! that plans can take, checked, and the one that they do take, timed in every precision.
//!
//! `planes.rs` launches the rungs that take their operands cut into planes of bf16, `tiles.rs` those of Hopper alone.

use super::Cuda;
use super::driver::{DeviceBuffer, Launch};
use super::params::{GemmParams, LadderParams, words, zeroed};
use super::planes::{self, CHUNK, make_planes};
use super::probe::Version;
use super::tiles;
use crate::engine::device::Precision;
use crate::engine::error::{Error, Result};
use crate::engine::rng::{Draw, OPERANDS};
use crate::engine::steps::gemm::cuda::{self as gemm, Finish, GemmLaunch};
use crate::engine::steps::gemm::rungs::{LADDER, Rung};

/// What became of one kernel of the ladder.
#[derive(Clone, Debug, PartialEq)]
pub struct RungResult {
    /// The kernel's name: `dev_gemm_1` … and at the end the kernel that plans use for this shape.
    pub kernel: &'static str,
    /// What it did, or why it cannot run for this shape or on this GPU.
    pub climbed: std::result::Result<Climbed, String>,
}

/// What one kernel of the ladder did.
#[derive(Clone, Debug, PartialEq)]
pub struct Climbed {
    /// ‖C − C₆₄‖ / ‖C₆₄‖ in the Frobenius norm, C₆₄ computed in f64 on the host; with bias and activation, of the result.
    pub error: f64,
    /// The shortest of the repetitions, in seconds on the device, from the operands in f32 to C.
    pub seconds: f64,
    /// Of it, cutting the operands into planes of bf16; 0 for the kernels that take them in f32.
    pub splitting: f64,
    /// For the rung whose product ends with bias and activation: the same as `seconds`, with these in a kernel of their own.
    pub apart: Option<f64>,
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

/// The time of a product in the kernel that plans use for its shape and precision, and of making planes of its factors if it takes them.
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
/// (the bounds of tests/device_ladder.rs) and, generously, n additions of relative error 2⁻²⁴ that all go one way.
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
        let matrices = Matrices::new(self, [n; 3], n.div_ceil(CHECKED_ROWS))?;
        let time = |&precision: &Precision| {
            let choice = gemm::choose(n, n, n, precision, self.capability(), Finish::STORE);
            let run = matrices.run(self, &choice, false)?;
            let (kernel, error) = (choice.kernel, matrices.error(&run.c, &[]));
            if error.is_nan() || error > largest_error(precision, n) {
                return Err(Error::Device {
                    device: self.gpu().name.clone(),
                    reason: format!("{kernel} computes a product of {n} with error {error:.1e} in {precision}"),
                    remedy: "please report this with the output of `elbo info`".into(),
                });
            }
            let repetition = || {
                let all =
                    || run.makes_planes.iter().chain([&run.launch]).try_for_each(|launch| self.driver.launch(launch));
                let enqueue = || (0..launches).try_for_each(|_| all());
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

    /// Runs every rung of the ladder on C = A·B, [m, n] = [m, k]·[k, n], with normal numbers.
    ///
    /// # Panics
    /// When m, n, k or `repetitions` is 0.
    ///
    /// # Errors
    /// [`Error::Device`] from the device.
    pub fn climb_ladder(&self, [m, n, k]: [usize; 3], repetitions: usize) -> Result<Vec<RungResult>> {
        assert!(m * n * k > 0 && repetitions > 0, "[{m}, {k}]·[{k}, {n}], {repetitions} repetitions");
        let matrices = Matrices::new(self, [m, n, k], 1)?;
        let cc = self.capability();
        let rung = |rung: &'static Rung| {
            let climbed = match rung.obstacle([m, n, k], cc) {
                Some(obstacle) => Err(obstacle),
                // A program may have been built without Hopper's machine code, which nothing else can stand in for.
                None if rung.tiles && self.driver.function(rung.name).is_err() => Err(format!(
                    "needs machine code for compute capability {}.{}: build with ELBO_CUDA_ARCH=90",
                    cc.0, cc.1
                )),
                None => Ok(matrices.time(self, &matrices.climb(self, rung)?, repetitions)?),
            };
            Ok(RungResult { kernel: rung.name, climbed })
        };
        let mut results = LADDER.iter().map(rung).collect::<Result<Vec<_>>>()?;
        let usual = gemm::choose(m, n, k, Precision::F32, cc, Finish::STORE);
        let climbed = Ok(matrices.time(self, &matrices.run(self, &usual, false)?, repetitions)?);
        results.push(RungResult { kernel: usual.kernel, climbed });
        Ok(results)
    }

    /// Runs every kernel of the matrix product that this GPU can run, with one split and with several, on C = A·B with
    /// column sums of B, [n, n] each with normal numbers. `transposed`: which of A and B is stored transposed.
    ///
    /// # Errors
    /// [`Error::Device`] from the device.
    pub fn check_products(&self, n: usize, transposed: (bool, bool)) -> Result<Vec<ProductCheck>> {
        let matrices = Matrices::new(self, [n; 3], 1)?.stored(self, transposed)?;
        let check = |choice: GemmLaunch| {
            let run = matrices.run(self, &choice, true)?;
            Ok(ProductCheck {
                kernel: choice.kernel,
                splits: choice.splits,
                product: matrices.error(&run.c, &[]),
                column_sums: distance(&run.column_sums, &matrices.column_sums),
            })
        };
        gemm::every(n, n, n, true, self.capability()).into_iter().map(check).collect()
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
        let matrices = Matrices::of(self, [n; 3], a, b, 1)?;
        let compute = |choice: GemmLaunch| Ok((choice.kernel, choice.splits, matrices.run(self, &choice, false)?.c));
        gemm::every(n, n, n, false, self.capability()).into_iter().map(compute).collect()
    }

    pub(super) fn capability(&self) -> (u32, u32) {
        let Version(major, minor) = self.driver.gpu.compute_capability;
        (major, minor)
    }
}

/// A and B on the device, and what comes out in f64.
pub(super) struct Matrices {
    /// m, n, k.
    pub shape: [usize; 3],
    pub a: DeviceBuffer,
    pub b: DeviceBuffer,
    /// Whether they are stored transposed: for the kernels of plans.
    transposed: (bool, bool),
    /// Of so many rows of A·B, one is in `truth`.
    every: usize,
    /// A·B: its rows 0, `every`, 2·`every` …
    truth: Vec<f64>,
    /// Σ over the rows of B.
    column_sums: Vec<f64>,
}

/// A launch that ran, with its results. What it points to lives as long.
pub(super) struct RungRun {
    /// What cuts the operands into planes before; empty for a kernel that takes them in f32.
    pub makes_planes: Vec<Launch>,
    pub launch: Launch,
    pub c: Vec<f32>,
    /// Σ over the rows of B; empty if they were not asked for.
    pub column_sums: Vec<f32>,
    /// What was added to the rows of A·B before all below zero became zero; empty if nothing was.
    pub bias: Vec<f32>,
    /// Launches with the same result, if the comparison with them is of interest.
    pub apart: Vec<Launch>,
    pub memory: Vec<DeviceBuffer>,
}

impl Matrices {
    fn new(cuda: &Cuda, [m, n, k]: [usize; 3], every: usize) -> Result<Matrices> {
        let numbers = |step: u32, count: usize| -> Vec<f32> {
            let draw = Draw { seed: 1, step, stream: OPERANDS };
            (0..count as u64).map(|i| draw.normal(i)).collect()
        };
        Matrices::of(cuda, [m, n, k], &numbers(0, m * k), &numbers(1, k * n), every)
    }

    pub fn of(cuda: &Cuda, [m, n, k]: [usize; 3], a: &[f32], b: &[f32], every: usize) -> Result<Matrices> {
        assert!(a.len() == m * k && b.len() == k * n, "{} and {} numbers for {m}, {n}, {k}", a.len(), b.len());
        let mut column_sums = vec![0.0; n];
        for row in b.chunks_exact(n) {
            column_sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        let truth = product(a, b, [m, n, k], every);
        let (shape, a, b) = ([m, n, k], cuda.matrix(a)?, cuda.matrix(b)?);
        Ok(Matrices { shape, a, b, transposed: (false, false), every, truth, column_sums })
    }

    /// The same matrices in another order.
    fn stored(self, cuda: &Cuda, transposed: (bool, bool)) -> Result<Matrices> {
        let [m, n, k] = self.shape;
        let turn = |matrix: DeviceBuffer, [rows, cols]: [usize; 2], turned: bool| {
            if !turned {
                return Ok(matrix);
            }
            let mut values = vec![0.0; rows * cols];
            cuda.driver.download(matrix.address(), &mut values)?;
            let columns = (0..cols).flat_map(|j| values.iter().skip(j).step_by(cols).copied());
            cuda.matrix(&columns.collect::<Vec<f32>>())
        };
        let (a, b) = (turn(self.a, [m, k], transposed.0)?, turn(self.b, [k, n], transposed.1)?);
        Ok(Matrices { a, b, transposed, ..self })
    }

    /// How far C is from A·B, or from max(A·B + bias, 0) if there is a bias, in the rows that are known.
    fn error(&self, c: &[f32], bias: &[f32]) -> f64 {
        let rows = c.chunks_exact(self.shape[1]).step_by(self.every);
        if bias.is_empty() {
            return distance(rows.flatten(), &self.truth);
        }
        let finished = |(sum, bias): (&f64, &f32)| (sum + f64::from(*bias)).max(0.0);
        let truth: Vec<f64> = self.truth.iter().zip(bias.iter().cycle()).map(finished).collect();
        distance(rows.flatten(), &truth)
    }

    /// Launches a rung of the ladder once and reads what it wrote.
    pub fn climb(&self, cuda: &Cuda, rung: &Rung) -> Result<RungRun> {
        if rung.tiles {
            return tiles::run(cuda, self, rung);
        }
        if rung.planes > 0 {
            return planes::run(cuda, self, rung);
        }
        let ([m, n, k], driver) = (self.shape, &cuda.driver);
        // Not a number until the kernel has written it.
        let c = cuda.matrix(&vec![f32::NAN; m * n])?;
        let params = LadderParams {
            a: self.a.address(),
            b: self.b.address(),
            c: c.address(),
            m: m as i32,
            n: n as i32,
            k: k as i32,
            lda: k as i32,
            ldb: n as i32,
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
        driver.launch(&launch)?;
        let mut found = vec![0.0; m * n];
        driver.download(c.address(), &mut found)?;
        let (makes_planes, column_sums, bias, apart) = (vec![], vec![], vec![], vec![]);
        Ok(RungRun { makes_planes, launch, c: found, column_sums, bias, apart, memory: vec![c] })
    }

    /// The times of a kernel that ran.
    fn time(&self, cuda: &Cuda, run: &RungRun, repetitions: usize) -> Result<Climbed> {
        let driver = &cuda.driver;
        let shortest = |launches: &[&Launch]| {
            let mut seconds = f64::INFINITY;
            for _ in 0..repetitions {
                let enqueue = || launches.iter().try_for_each(|launch| driver.launch(launch));
                seconds = seconds.min(driver.time(enqueue)?);
            }
            Ok::<f64, Error>(seconds)
        };
        let makes_planes: Vec<&Launch> = run.makes_planes.iter().collect();
        let splitting = if makes_planes.is_empty() { 0.0 } else { shortest(&makes_planes)? };
        let seconds = shortest(&[makes_planes.as_slice(), &[&run.launch]].concat())?;
        let apart: Vec<&Launch> = run.apart.iter().collect();
        let apart = if apart.is_empty() { None } else { Some(shortest(&[makes_planes, apart].concat())?) };
        Ok(Climbed { error: self.error(&run.c, &run.bias), seconds, splitting, apart })
    }

    /// Launches a kernel once and reads what it wrote.
    fn run(&self, cuda: &Cuda, choice: &GemmLaunch, sums: bool) -> Result<RungRun> {
        let ([m, n, k], driver) = (self.shape, &cuda.driver);
        // Not a number until the kernel has written it.
        let c = cuda.matrix(&vec![f32::NAN; m * n])?;
        let column_sums = cuda.matrix(&vec![f32::NAN; if sums { n } else { 0 }])?;
        let workspace = driver.alloc(4 * choice.workspace, "partial products")?;
        let tickets = driver.alloc(4 * choice.tickets, "tickets")?;
        let (ta, tb) = self.transposed;
        let (a_stored, b_stored) = (if ta { [k, m] } else { [m, k] }, if tb { [n, k] } else { [k, n] });
        let (mut makes_planes, mut planes) = (vec![], vec![]);
        for (matrix, [rows, cols]) in [(&self.a, a_stored), (&self.b, b_stored)] {
            let pitch = cols.next_multiple_of(CHUNK);
            let plane = driver.alloc(if choice.planes { 2 * rows * pitch } else { 0 }, "a plane of bf16")?;
            if choice.planes {
                makes_planes.push(make_planes(cuda, matrix.address(), &plane, [rows, cols, pitch], 1)?);
            }
            planes.push(plane);
        }
        let params = GemmParams {
            a: self.a.address(),
            b: self.b.address(),
            c: c.address(),
            col_sums: if sums { column_sums.address() } else { 0 },
            workspace: workspace.address(),
            tickets: tickets.address(),
            m: m as i32,
            n: n as i32,
            k: k as i32,
            lda: a_stored[1] as i32,
            ldb: b_stored[1] as i32,
            ldc: n as i32,
            alpha: 1.0,
            ta: i32::from(ta),
            tb: i32::from(tb),
            splits: choice.splits as i32,
            k_per_split: choice.k_per_split as i32,
            tiles_m: choice.grid.1 as i32,
            a_plane: planes[0].address(),
            b_plane: planes[1].address(),
            a_pitch: a_stored[1].next_multiple_of(CHUNK) as i32,
            b_pitch: b_stored[1].next_multiple_of(CHUNK) as i32,
            ..zeroed()
        };
        let function = driver.function(choice.kernel)?;
        let shared = choice.shared_bytes;
        driver.allow_shared(function, shared)?;
        let grid = choice.blocks();
        let (kernel, threads) = (choice.kernel, choice.threads);
        let launch = Launch { function, kernel, grid, threads, shared, params: words(&params) };
        makes_planes.iter().chain([&launch]).try_for_each(|launch| driver.launch(launch))?;
        let mut run = RungRun {
            makes_planes,
            launch,
            c: vec![0.0; m * n],
            column_sums: vec![0.0; if sums { n } else { 0 }],
            bias: vec![],
            apart: vec![],
            memory: [c, column_sums, workspace, tickets].into_iter().chain(planes).collect(),
        };
        driver.download(run.memory[0].address(), &mut run.c)?;
        driver.download(run.memory[1].address(), &mut run.column_sums)?;
        Ok(run)
    }
}

impl Cuda {
    /// Numbers on the device.
    pub(super) fn matrix(&self, values: &[f32]) -> Result<DeviceBuffer> {
        let buffer = self.driver.alloc(4 * values.len(), "a matrix")?;
        self.driver.upload(buffer.address(), values)?;
        Ok(buffer)
    }
}

/// One of `every` rows of A·B in f64, row by row so that B streams.
fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3], every: usize) -> Vec<f64> {
    let mut c = vec![0.0; m.div_ceil(every) * n];
    for (row, a) in c.chunks_exact_mut(n).zip(a.chunks_exact(k).step_by(every)) {
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
