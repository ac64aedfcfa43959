//! The ladder's rungs 11 and 12: copies of tiles and products of warpgroups (kernels/dev/warpgroup.cuh), which exist on
//! Hopper alone.

use super::Cuda;
use super::driver::{Address, DeviceBuffer, Launch, Pod};
use super::ladder::{Matrices, RungRun};
use super::params::words;
use super::planes::{CHUNK, make_planes};
use super::tensor_map::TensorMap;
use crate::engine::error::{Error, Result};
use crate::engine::rng::{Draw, OPERANDS};
use crate::engine::steps::gemm::rungs::Rung;

/// Of the products of tiles, as kernels/dev/warpgroup.cuh declares it.
#[repr(C)]
#[derive(Clone, Copy)]
struct TilesParams {
    a: TensorMap,
    b: TensorMap,
    c: Address,
    bias: Address,
    m: i32,
    n: i32,
    k: i32,
    ldc: i32,
    pad: [i32; 8],
}

// The size that kernels/dev/warpgroup.cuh asserts, which is that of the fields: there is no padding.
const _: () = assert!(size_of::<TilesParams>() == 2 * 128 + 2 * 8 + 12 * 4);

// SAFETY: numbers without padding, by the assertion above.
unsafe impl Pod for TilesParams {}

/// Rows and columns of a box of A and of one of B: `A_BYTES` and `B_BYTES` of the kernels are their sizes.
const BOXES: [[u32; 2]; 2] = [[128, 64], [64, 64]];

/// Threads of a block of `dev_epilogue`, each of which takes an element.
const THREADS: u32 = 256;

/// Cuts the operands into planes, multiplies, and reads what came out.
pub(super) fn run(cuda: &Cuda, matrices: &Matrices, rung: &Rung) -> Result<RungRun> {
    let ([m, n, k], driver) = (matrices.shape, &cuda.driver);
    let (a_pitch, b_pitch) = (k.next_multiple_of(CHUNK), n.next_multiple_of(CHUNK));
    let plane = |rows: usize, pitch: usize| driver.alloc(2 * rows * pitch, "a plane of bf16");
    let (a, b) = (plane(m, a_pitch)?, plane(k, b_pitch)?);
    let draw = Draw { seed: 1, step: 2, stream: OPERANDS };
    let bias: Vec<f32> = (0..if rung.epilogue { n as u64 } else { 0 }).map(|i| draw.normal(i)).collect();
    let bias_there = cuda.matrix(&bias)?;
    let makes_planes = vec![
        make_planes(cuda, matrices.a.address(), &a, [m, k, a_pitch], 1)?,
        make_planes(cuda, matrices.b.address(), &b, [k, n, b_pitch], 1)?,
    ];
    let params = TilesParams {
        a: driver.tensor_map(a.address(), [m, k], a_pitch, BOXES[0])?,
        b: driver.tensor_map(b.address(), [k, n], b_pitch, BOXES[1])?,
        c: 0,
        bias: if rung.epilogue { bias_there.address() } else { 0 },
        m: m as i32,
        n: n as i32,
        k: k as i32,
        ldc: n as i32,
        pad: [0; 8],
    };
    let work = TilesRun { cuda, rung, params, size: m * n };
    let c = work.result()?;
    let launch = work.product(rung.name, &c)?;
    makes_planes.iter().chain([&launch]).try_for_each(|launch| driver.launch(launch))?;
    let found = work.read(&c)?;
    let mut run = RungRun {
        makes_planes,
        launch,
        c: found,
        column_sums: vec![],
        bias,
        apart: vec![],
        memory: vec![a, b, bias_there, c],
    };
    if rung.epilogue {
        let c = work.result()?;
        run.apart = work.apart(&c, &run.c)?;
        run.memory.push(c);
    }
    Ok(run)
}

/// The launches of a rung on planes that are there, into whichever result.
struct TilesRun<'a> {
    cuda: &'a Cuda,
    rung: &'a Rung,
    params: TilesParams,
    /// Elements of the result.
    size: usize,
}

impl TilesRun<'_> {
    /// A result that is not a number until kernels have written it.
    fn result(&self) -> Result<DeviceBuffer> {
        self.cuda.matrix(&vec![f32::NAN; self.size])
    }

    fn read(&self, c: &DeviceBuffer) -> Result<Vec<f32>> {
        let mut found = vec![0.0; self.size];
        self.cuda.driver.download(c.address(), &mut found)?;
        Ok(found)
    }

    fn product(&self, kernel: &'static str, c: &DeviceBuffer) -> Result<Launch> {
        let (columns, rows) = self.rung.grid(self.params.m as usize, self.params.n as usize);
        let shared = self.rung.shared_bytes;
        let launch = self.launch(kernel, [columns, rows, 1], self.rung.threads, shared, c)?;
        self.cuda.driver.allow_shared(launch.function, shared)?;
        Ok(launch)
    }

    /// The same result with the epilogue in a launch of its own, which must have the bits that are expected.
    fn apart(&self, c: &DeviceBuffer, expected: &[f32]) -> Result<Vec<Launch>> {
        let blocks = self.size.div_ceil(THREADS as usize) as u32;
        let launches =
            vec![self.product("dev_gemm_11", c)?, self.launch("dev_epilogue", [blocks, 1, 1], THREADS, 0, c)?];
        launches.iter().try_for_each(|launch| self.cuda.driver.launch(launch))?;
        if self.read(c)?.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()) {
            return Ok(launches);
        }
        Err(Error::Device {
            device: self.cuda.gpu().name.clone(),
            reason: format!("{} has other bits than dev_gemm_11 and dev_epilogue after it", self.rung.name),
            remedy: "please report this with the output of `elbo info`".into(),
        })
    }

    fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        c: &DeviceBuffer,
    ) -> Result<Launch> {
        let params = words(&TilesParams { c: c.address(), ..self.params });
        Ok(Launch { function: self.cuda.driver.function(kernel)?, kernel, grid, threads, shared, params })
    }
}
