//! What the GPU can do at most, measured with the kernels of kernels/roofline.cu.

use std::time::Instant;

use super::Cuda;
use super::driver::{Address, Launch};
use super::params::{self, RooflineParams};
use super::probe::Version;
use crate::engine::error::Result;

/// The fastest that was seen of several runs.
#[derive(Clone, Debug)]
pub struct Ceilings {
    /// Multiply-adds in f32 on the arithmetic units, GFLOP/s.
    pub fma: f64,
    /// Products of bf16 on tensor cores with sums in f32, GFLOP/s; 0 without tensor cores.
    pub bf16: f64,
    /// Products of TF32 on tensor cores, GFLOP/s; 0 without.
    pub tf32: f64,
    /// Copies on the device: (bytes of both arrays, bytes read plus bytes written in GB/s), in order of size.
    pub copies: Vec<(usize, f64)>,
    /// From pageable host memory to the device, GB/s.
    pub upload: f64,
    /// From the device to pageable host memory, GB/s.
    pub download: f64,
}

/// How much is done in one run.
#[derive(Clone, Copy)]
struct Sizes {
    /// Tens of blocks per multiprocessor on the largest devices, so that the last ones to finish do not count.
    blocks: u32,
    turns: i32,
    /// Floats in the largest of the arrays that are copied: 256 MiB, several times the second-level cache of any GPU
    /// yet. The others are a fourth, a sixteenth … of it.
    floats: usize,
    smaller: u32,
    runs: usize,
}

const REAL: Sizes = Sizes { blocks: 1 << 16, turns: 256, floats: 64 << 20, smaller: 4, runs: 10 };
/// Under the emulator the kernels only show that they work.
const EMULATED: Sizes = Sizes { blocks: 2, turns: 4, floats: 1 << 12, smaller: 1, runs: 1 };

const THREADS: u32 = 256;

impl Cuda {
    /// Measures the device's ceilings; takes about a second.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device): 512 MiB of device memory are needed for a moment.
    pub fn ceilings(&self) -> Result<Ceilings> {
        let sizes = if self.driver.gpu.emulated() { EMULATED } else { REAL };
        let bytes = 4 * sizes.floats;
        let memory = self.driver.alloc(2 * bytes, "measuring the bandwidth")?;
        let (from, to) = (memory.address(), memory.address() + bytes as Address);
        // Twins of the counts in kernels/roofline.cu, per turn of a warp.
        let (fma, bf16, tf32) = (2 * 16 * 32, 2 * 16 * 8 * 16 * 8, 2 * 16 * 8 * 8 * 8);
        let params =
            |len: usize, turns| RooflineParams { from, to, len: len as u64, turns, x: 0.999, y: 0.001, pad: 0 };
        let arithmetic = |kernel, per_turn: i32| {
            let work = f64::from(per_turn) * f64::from(sizes.turns) * f64::from(sizes.blocks * THREADS / 32);
            self.rate(kernel, work, sizes.blocks, &params(0, sizes.turns), sizes.runs)
        };
        // Small arrays are copied as many times as it takes to move as many bytes as with the largest.
        let copy = |smaller: u32| {
            let (len, turns) = (sizes.floats >> (2 * smaller), 1 << (2 * smaller));
            let blocks = sizes.blocks.min((len / 4) as u32 / THREADS);
            let rate = self.rate("copy_bandwidth", 2.0 * bytes as f64, blocks, &params(len, turns), sizes.runs)?;
            Ok((8 * len, rate))
        };
        let tensor_cores = self.driver.gpu.compute_capability >= Version(8, 0);
        let tensor = |kernel, per_turn| if tensor_cores { arithmetic(kernel, per_turn) } else { Ok(0.0) };
        let mut host = vec![0.0f32; sizes.floats];
        Ok(Ceilings {
            fma: arithmetic("fma_peak", fma)?,
            bf16: tensor("tensor_peak_bf16", bf16)?,
            tf32: tensor("tensor_peak_tf32", tf32)?,
            copies: (0..=sizes.smaller).rev().map(copy).collect::<Result<_>>()?,
            upload: self.transfer(bytes, sizes.runs, || self.driver.upload(to, &host))?,
            download: self.transfer(bytes, sizes.runs, || self.driver.download(to, &mut host))?,
        })
    }

    /// 1e9 units of `work` per second of the fastest run of a kernel, by the device's clock.
    fn rate(&self, kernel: &'static str, work: f64, blocks: u32, params: &RooflineParams, runs: usize) -> Result<f64> {
        let launch = Launch {
            function: self.driver.function(kernel)?,
            kernel,
            grid: [blocks, 1, 1],
            threads: THREADS,
            shared: 0,
            params: params::words(params),
        };
        let mut best = f64::INFINITY;
        // The first run loads the code and wakes the device.
        for _ in 0..=runs {
            best = best.min(self.driver.time(|| self.driver.launch(&launch))?);
        }
        Ok(work / best / 1e9)
    }

    /// GB/s of the fastest of several transfers, by the host's clock.
    fn transfer(&self, bytes: usize, runs: usize, mut copy: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..=runs {
            self.driver.synchronize()?;
            let start = Instant::now();
            copy()?;
            self.driver.synchronize()?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(bytes as f64 / best / 1e9)
    }
}
