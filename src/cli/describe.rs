//! `elbo plan` and `elbo info`.

use clap::ArgMatches;

use super::args;
use crate::engine::device::Device;
use crate::engine::device::cuda::{automatic, images, probe};
use crate::engine::error::{Error, Result};
use crate::engine::isa::Isa;
use crate::engine::plan::{Fusion, Plan};
use crate::engine::rng::Draw;
use crate::train::Source;
use crate::vae::streams;
use crate::vae::{Model, Vae, training_graph};

/// Prints the plan of a training step.
pub fn plan(args: &args::Plan, typed: &ArgMatches) -> Result<()> {
    let model = args.model.config(args.image)?;
    let config = args.optimise.config(model, Source::DIGITS, 1, 1, args.optimise.batch)?;
    args::effects::of_training(typed, &args.model, &args.optimise, None)?;
    let vae = Vae::new(config.model.clone())?;
    let graph = training_graph(&vae, &config.objective, "train", config.batch);
    if args.graph {
        super::print(&format!("{graph}\n"))?;
    }
    let plan = Plan::build(&graph, if args.no_fusion { Fusion::none() } else { Fusion::all() })?;
    let head = format!(
        "one training step of {}, batch {}: {} parameters, {} nodes\n",
        config.model.describe(),
        config.batch,
        vae.parameter_count(),
        graph.len()
    );
    super::print(&format!("{head}{plan}\n"))?;
    if args.time == 0 {
        return Ok(());
    }
    // Chunks are run one after the other to be timed: more threads would only wait.
    let device = match args.machine.device()? {
        Device::Cpu { .. } => Device::Cpu { threads: 1 },
        gpu => gpu,
    };
    super::print(&times(vae, &plan, args.time, device)?)
}

/// A table of the shortest time of every step, on random images.
fn times(vae: Vae, plan: &Plan, passes: usize, device: Device) -> Result<String> {
    let pixels = vae.config.pixels();
    let mut model = Model::initial(vae, 1, device)?;
    let mut grey = vec![0.0; plan.batch_rows() * pixels];
    Draw { seed: 1, step: 0, stream: streams::OPERANDS }.fill_uniform(Isa::detect(), 0, &mut grey);
    let bytes: Vec<u8> = grey.iter().map(|v| (v * 256.0) as u8).collect();
    let bound = model.exec.bind(plan)?;
    model.exec.set_data("train", &bytes, pixels)?;
    let seconds = model.exec.time_steps(bound, passes)?;
    let mut text = format!("\nbest of {passes} passes on {}\n", model.exec.describe());
    text += "step  kernel               µs    GFLOP/s       GB/s\n";
    for (i, (step, s)) in plan.steps().iter().zip(&seconds).enumerate() {
        let (flops, bytes) = (step.flops() as f64 / s / 1e9, step.bytes() as f64 / s / 1e9);
        text += &format!("{:>4}  {:<13} {:>9.1} {flops:>10.1} {bytes:>10.1}\n", i + 1, step.name(), s * 1e6);
    }
    let total: f64 = seconds.iter().sum();
    let rate = plan.flops() as f64 / total / 1e9;
    Ok(text + &format!("   all of them      {:>9.1} {rate:>10.1}\n", total * 1e6))
}

/// Prints what the program is, what it would run on, and what stands in the way of CUDA.
pub fn info() -> Result<()> {
    let names: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug (slow: use --release)" } else { "release" };
    let rows = [
        ("elbo", env!("CARGO_PKG_VERSION").to_string()),
        ("build", format!("{build}; {}", env!("ELBO_BUILD"))),
        ("platform", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("instruction set", format!("{} (available: {})", Isa::detect(), names.join(", "))),
        ("threads", cores.to_string()),
    ];
    let rows = rows.into_iter().map(|(name, value)| (name.to_string(), value)).chain(cuda());
    super::print(&rows.map(|(name, value)| format!("{name:<15}  {value}\n")).collect::<String>())
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
        Err(Error::Device { reason, remedy, .. }) => {
            row("device", format!("auto is cpu: {reason}"));
            row("for CUDA", remedy);
        }
        Err(why) => row("device", format!("auto is cpu: {why}")),
    }
    rows
}

const MIB: f64 = 1024.0 * 1024.0;
