//! CPU and GPU compared: what `elbo bench` runs.
//!
//! ```text
//! roofline of each device
//! each workload:  truth ─ the same graph on each device ─ check ─ warm up ─ time
//! ```
//!
//! * `family` lists the workloads, `workload` builds them and knows their truth: the interpreter in f64.
//! * `measure` checks and times one on one device. Every device compiles the same graph with
//!   [`Executor::compile`](crate::Executor::compile).
//! * [`roofline`] measures what the CPU could do at most, `crossover` finds where the GPU begins to win.
//! * [`BenchReport`] is everything that was found, as a table and as JSON; `chart` draws it.
//!
//! What is measured and what not is said in docs/book/src/benchmarks.md.

mod chart;
mod crossover;
mod family;
mod machine;
pub mod measure;
mod report;
pub mod roofline;
mod workload;

pub use crossover::Crossover;
pub use family::{Case, Family};
pub use machine::{GpuRecord, MachineRecord};
pub use report::{BenchReport, FamilyReport, Row};
pub use workload::{Truth, Workload};

use crate::engine::device::{Device, Precision};
use crate::engine::error::Result;
use crate::engine::isa::Isa;
use crate::engine::plan::Fusion;
use measure::Effort;
use roofline::Roofline;

/// What to measure, and on what.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The families.
    pub families: Vec<Family>,
    /// Small sizes and short repetitions.
    pub quick: bool,
    /// Repetitions of which the median is taken.
    pub repetitions: usize,
    /// Threads of the CPU; 0 means one per core.
    pub threads: usize,
    /// The GPU's number, or why there is none.
    pub gpu: std::result::Result<usize, String>,
    /// Of matrix products on the GPU.
    pub precision: Precision,
}

/// The shortest repetition in seconds: thousands of ticks of any clock, and no longer than that for a whole curve to be
/// measured in a minute.
const REPETITION: f64 = 0.05;
const QUICK_REPETITION: f64 = 0.005;

/// Measures everything; `say` is told what comes next.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device) when a device cannot be used, or when a result is wrong.
pub fn run(options: &BenchOptions, say: &mut dyn FnMut(&str)) -> Result<BenchReport> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { cores() } else { options.threads };
    say("roofline of the CPU");
    let cpu = Side {
        device: Device::Cpu { threads },
        roofline: roofline::cpu(Isa::detect(), threads, &roofline::triad_sizes()),
        effort: Effort {
            repetitions: options.repetitions,
            seconds: if options.quick { QUICK_REPETITION } else { REPETITION },
        },
    };
    let mut gpu = None;
    if let Ok(ordinal) = options.gpu {
        say("roofline of the GPU");
        gpu = Some(open_gpu(ordinal, options.precision, cpu.effort)?);
    }
    let machine = MachineRecord::this(threads, gpu.as_ref().map(|g| g.about.clone()), options.gpu.clone().err());
    let mut families = Vec::new();
    for &family in &options.families {
        let mut rows = Vec::new();
        for case in family.cases(options.quick) {
            say(&format!("{family} {}", case.label));
            rows.push(compare(case, &cpu, gpu.as_ref().map(|g| &g.side))?);
        }
        families.push(FamilyReport::new(family, rows));
    }
    let gpu_roofline = gpu.map(|g| g.side.roofline);
    Ok(BenchReport { machine, cpu_roofline: cpu.roofline, gpu_roofline, families })
}

/// A device to be measured.
struct Side {
    device: Device,
    roofline: Roofline,
    effort: Effort,
}

/// The GPU.
struct GpuSide {
    side: Side,
    about: GpuRecord,
    /// Keeps the context from being made anew for every workload.
    _open: Box<dyn std::any::Any>,
}

#[cfg(feature = "cuda")]
fn open_gpu(ordinal: usize, precision: Precision, effort: Effort) -> Result<GpuSide> {
    let cuda = crate::engine::device::cuda::Cuda::open(ordinal, precision)?;
    let ceilings = cuda.ceilings()?;
    let gpu = cuda.gpu();
    let emulated = gpu.emulated();
    let about = GpuRecord {
        name: gpu.name.clone(),
        ordinal,
        compute_capability: gpu.compute_capability.to_string(),
        driver: gpu.driver.to_string(),
        precision: precision.to_string(),
        emulated,
        upload_gbytes: ceilings.upload,
        download_gbytes: ceilings.download,
    };
    // A factor in two bf16 takes three products, one in three parts, as accurate as f32, six.
    let product_gflops = match precision {
        Precision::F32 => ceilings.fma.max(ceilings.bf16 / 6.0),
        Precision::Bf16x3 => ceilings.bf16 / 3.0,
        Precision::Tf32 => ceilings.tf32,
        Precision::Bf16 => ceilings.bf16,
    };
    let bandwidths = ceilings.copies.iter().map(|&(bytes, gbytes)| roofline::Bandwidth { bytes, gbytes }).collect();
    let roofline = Roofline { gflops: ceilings.fma, product_gflops, bandwidths };
    // One step of an emulated device takes seconds, and its time means nothing.
    let effort = if emulated { Effort { repetitions: 1, seconds: 0.0 } } else { effort };
    let side = Side { device: Device::Cuda { ordinal, precision }, roofline, effort };
    Ok(GpuSide { side, about, _open: Box::new(cuda) })
}

#[cfg(not(feature = "cuda"))]
fn open_gpu(ordinal: usize, precision: Precision, _effort: Effort) -> Result<GpuSide> {
    let device = Device::Cuda { ordinal, precision };
    Err(device.open().err().expect("a program without CUDA opens no GPU"))
}

fn compare(case: Case, cpu: &Side, gpu: Option<&Side>) -> Result<Row> {
    let work = case.work.as_ref();
    let plan = work.plan(Fusion::all())?;
    let truth = work.truth()?;
    let on = |side: &Side| measure::on(side.device, work, &truth, side.effort);
    let (flops, bytes) = (plan.flops(), plan.bytes());
    Ok(Row {
        label: case.label,
        size: case.size,
        on_curve: case.on_curve,
        flops,
        bytes,
        transferred: work.transferred(),
        checked_against: truth.from,
        cpu_roof: cpu.roofline.seconds(plan.steps()),
        gpu_roof: gpu.map(|gpu| gpu.roofline.seconds_on_gpu(plan.steps())),
        cpu: on(cpu)?,
        gpu: gpu.map(on).transpose()?,
    })
}
