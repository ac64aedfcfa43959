//! The matrix products by themselves: the ladder (kernels/dev/), every rung launched, checked and timed, and every kernel
//! that plans can take, checked.

use super::Cuda;
use super::driver::{Buffer, Lane, Launch};
use super::params::{GemmParams, words, zeroed};
use super::probe::Version;
use crate::device::Precision;
use crate::error::Result;
use crate::rng::Draw;
use crate::steps::gemm::cuda::{self as gemm, LADDER};

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

impl Cuda {
    /// Runs every rung that this GPU can run on C = A·B, [n, n] each with normal numbers; n a multiple of 8.
    ///
    /// # Panics
    /// When n is not a multiple of 8, which some rungs need.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) from the device.
    pub fn climb_ladder(&self, n: usize, repetitions: usize) -> Result<Vec<Rung>> {
        let takes = |rung: &gemm::Rung| n.is_multiple_of(rung.multiple);
        assert!(n > 0 && LADDER.iter().all(takes), "the ladder takes multiples of 8, not {n}");
        let numbers = |stream: u32| -> Vec<f32> {
            let draw = Draw { seed: 1, step: 0, stream };
            (0..(n * n) as u64).map(|i| draw.normal(i)).collect()
        };
        let (a, b) = (numbers(0), numbers(1));
        let truth = product(&a, &b, n);
        let buffers = [0, 1, 2].map(|_| self.driver.alloc(4 * n * n, "matrices of the ladder"));
        let [da, db, dc] = buffers;
        let (da, db, dc) = (da?, db?, dc?);
        self.driver.upload(da.address(), &a)?;
        self.driver.upload(db.address(), &b)?;

        let Version(major, minor) = self.driver.gpu.compute_capability;
        let usual = gemm::choose(n, n, n, Precision::F32, (major, minor), false);
        let workspace = self.driver.alloc(4 * usual.workspace, "the partial products of the ladder")?;
        let tickets = self.driver.alloc(4 * usual.tickets, "the tickets of the ladder")?;
        let size = n as i32;
        let params = GemmParams {
            a: da.address(),
            b: db.address(),
            c: dc.address(),
            m: size,
            n: size,
            k: size,
            lda: size,
            ldb: size,
            ldc: size,
            alpha: 1.0,
            splits: 1,
            k_per_split: size,
            ..zeroed()
        };
        let split = GemmParams {
            splits: usual.splits as i32,
            k_per_split: usual.k_per_split as i32,
            workspace: workspace.address(),
            tickets: tickets.address(),
            ..params
        };
        let usable = LADDER.iter().filter(|rung| rung.cc <= (major, minor));
        let rungs = usable.map(|rung| (rung.name, rung.grid(n, n), 1, rung.threads, rung.shared_bytes, &params));
        let last = (usual.kernel, usual.grid, usual.splits, usual.threads, usual.shared_bytes, &split);
        let mut results = Vec::new();
        for (kernel, (x, y), z, threads, shared, params) in rungs.chain([last]) {
            let function = self.driver.function(kernel)?;
            self.driver.allow_shared(function, shared)?;
            let launch = Launch { function, kernel, grid: [x, y, z], threads, shared, params: words(params) };
            // Not a number until the kernel has written it.
            self.driver.upload(dc.address(), &vec![f32::NAN; n * n])?;
            self.driver.launch(&launch, Lane::Main)?;
            let mut c = vec![0.0; n * n];
            self.driver.download(dc.address(), &mut c)?;
            let mut seconds = f64::INFINITY;
            for _ in 0..repetitions {
                seconds = seconds.min(self.driver.time(|| self.driver.launch(&launch, Lane::Main))?);
            }
            results.push(Rung { kernel, error: distance(&c, &truth), seconds });
        }
        Ok(results)
    }
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
    /// Runs every kernel of the matrix product that this GPU can run, with one split and with several, on C = A·B with
    /// column sums of B, [n, n] each with normal numbers.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) from the device.
    pub fn check_products(&self, n: usize) -> Result<Vec<ProductCheck>> {
        let numbers = |stream: u32| -> Vec<f32> {
            let draw = Draw { seed: 2, step: 0, stream };
            (0..(n * n) as u64).map(|i| draw.normal(i)).collect()
        };
        let (a, b) = (numbers(0), numbers(1));
        let truth = product(&a, &b, n);
        let sums: Vec<f64> = (0..n).map(|j| b.iter().skip(j).step_by(n).map(|&v| f64::from(v)).sum()).collect();
        let upload = |values: &[f32]| -> Result<Buffer> {
            let buffer = self.driver.alloc(4 * values.len(), "a matrix")?;
            self.driver.upload(buffer.address(), values)?;
            Ok(buffer)
        };
        let (a, b) = (upload(&a)?, upload(&b)?);
        let Version(major, minor) = self.driver.gpu.compute_capability;
        let mut checks = Vec::new();
        for choice in gemm::every(n, n, n, (major, minor), false) {
            let (c, column_sums) = (upload(&vec![f32::NAN; n * n])?, upload(&vec![f32::NAN; n])?);
            let workspace = self.driver.alloc(4 * choice.workspace, "partial products")?;
            let tickets = self.driver.alloc(4 * choice.tickets, "tickets")?;
            let size = n as i32;
            let params = GemmParams {
                a: a.address(),
                b: b.address(),
                c: c.address(),
                col_sums: column_sums.address(),
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
            let function = self.driver.function(choice.kernel)?;
            let grid = [choice.grid.0, choice.grid.1, choice.splits];
            let (kernel, threads, shared) = (choice.kernel, choice.threads, choice.shared_bytes);
            let launch = Launch { function, kernel, grid, threads, shared, params: words(&params) };
            self.driver.launch(&launch, Lane::Main)?;
            let (mut found, mut found_sums) = (vec![0.0; n * n], vec![0.0; n]);
            self.driver.download(c.address(), &mut found)?;
            self.driver.download(column_sums.address(), &mut found_sums)?;
            checks.push(ProductCheck {
                kernel,
                splits: choice.splits,
                product: distance(&found, &truth),
                column_sums: distance(&found_sums, &sums),
            });
        }
        Ok(checks)
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
