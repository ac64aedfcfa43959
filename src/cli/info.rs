//! `elbo info`.

use clap::Args;
use serde_json::{Map, Value};

use super::answer::Answer;
use crate::engine::device::Precision;
use crate::engine::device::cuda::{automatic, images, probe};
use crate::engine::error::{Error, Result};
use crate::engine::isa::Isa;
use crate::engine::steps::gemm::tiles::{TileUnit, Tiles};

/// Print version, instruction set, threads and device
#[derive(Args)]
pub struct Info {
    #[command(flatten)]
    pub answer: Answer,
}

impl Info {
    /// Prints what the program is, what it would run on, and what stands in the way of CUDA.
    pub fn run(&self) -> Result<()> {
        let names: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let build = if cfg!(debug_assertions) { "debug (slow: use --release)" } else { "release" };
        let rows = [
            ("elbo", env!("CARGO_PKG_VERSION").to_string()),
            ("build", format!("{build}; {}", env!("ELBO_BUILD"))),
            ("platform", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
            ("instruction set", format!("{} (available: {})", Isa::detect(), names.join(", "))),
            ("tile unit", tile_unit()?),
            ("threads", cores.to_string()),
            super::explore::row(),
        ];
        let rows: Vec<(String, String)> =
            rows.into_iter().map(|(name, value)| (name.to_string(), value)).chain(cuda()).collect();
        let text: String = rows.iter().map(|(name, value)| format!("{name:<15}  {value}\n")).collect();
        let field = |(name, value): (String, String)| (name.to_lowercase().replace(' ', "_"), Value::from(value));
        self.answer.give(&text, &rows.into_iter().map(field).collect::<Map<_, _>>())
    }
}

/// Whether there is a tile unit, and for which products it is used.
fn tile_unit() -> Result<String> {
    let (there, in_f32) = (TileUnit::amx().is_ok(), Tiles::asked()?);
    let used = match (in_f32, Tiles::new(Precision::Bf16)) {
        (Some(tiles), _) => format!("{} for f32, bf16x3 and bf16, as ELBO_TILES says", tiles.unit()),
        (None, Ok(tiles)) => format!("{} for bf16x3 and bf16; for f32 with ELBO_TILES=amx", tiles.unit()),
        (None, Err(Error::Device { reason, .. })) if there => format!("amx, not used: {reason}"),
        (None, Err(Error::Device { reason, .. })) => format!("none: {reason}"),
        (None, Err(why)) => return Err(why),
    };
    Ok(used)
}

/// The rows of `elbo info` about CUDA: kernels, driver, GPUs, and what `--device auto` makes of them.
fn cuda() -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_string(), value));
    let list = |prefix: &str, all: &[u32]| all.iter().map(|a| format!("{prefix}{a}")).collect::<Vec<_>>().join(", ");
    match images::toolkit() {
        Err(reason) => row("CUDA kernels", format!("none: {reason}")),
        Ok(toolkit) => {
            let bytes: usize = images::images().iter().map(|image| image.bytes.len()).sum();
            let (code, ptx) = (list("sm_", toolkit.architectures), list("compute_", toolkit.ptx));
            let (files, mib) = (images::images().len(), bytes as f64 / MIB);
            row("nvcc", format!("{} ({}) when this program was built", toolkit.version, toolkit.program));
            row("CUDA kernels", format!("{files} files, {mib:.1} MiB; machine code for {code}; PTX for {ptx}"));
        }
    }
    let report = probe::report();
    row("driver", report.driver.as_ref().map_or_else(ToString::to_string, |version| format!("CUDA {version}")));
    for (gpu, obstacle) in &report.gpus {
        let free =
            gpu.free_memory().map_or_else(|why| why.to_string(), |free| format!("{:.1}", free as f64 / MIB / 1024.0));
        let total = gpu.memory as f64 / MIB / 1024.0;
        let obstacle = obstacle.as_ref().map_or(String::new(), |why| format!("; not usable: {why}"));
        row(
            &format!("GPU {}", gpu.ordinal),
            format!(
                "{}, compute capability {}, {} multiprocessors, {free} of {total:.1} GiB free{obstacle}",
                gpu.name, gpu.compute_capability, gpu.multiprocessors
            ),
        );
    }
    match automatic() {
        Ok(gpu) => row("device", format!("auto is cuda:{}", gpu.ordinal)),
        Err(Error::Device { device, reason, remedy }) => {
            row("device", format!("auto is cpu: {reason}"));
            let options = super::options(&Error::Device { device, reason, remedy: remedy.clone() });
            row("for CUDA", format!("{remedy}{options}"));
        }
        Err(why) => row("device", format!("auto is cpu: {why}")),
    }
    rows
}

const MIB: f64 = 1024.0 * 1024.0;
