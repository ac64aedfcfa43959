//! `elbo plan` and `elbo info`.

use super::args::{self, ONLY_CPU};
use crate::device::Device;
use crate::error::Result;
use crate::isa::Isa;
use crate::plan::{Fusion, Plan};
use crate::rng::Draw;
use crate::train::Source;
use crate::vae::{Model, Vae, training_graph};

/// Prints the plan of a training step.
pub fn plan(args: &args::Plan) -> Result<()> {
    let model = args.model.config(args.image)?;
    let config = args.optimise.config(model, Source::DIGITS, 1, 1, args.optimise.batch)?;
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
    if args.time > 0 { super::print(&times(vae, &plan, args.time)?) } else { Ok(()) }
}

/// A table of the shortest time of every step, on random images.
fn times(vae: Vae, plan: &Plan, passes: usize) -> Result<String> {
    let pixels = vae.config.pixels();
    let mut model = Model::initial(vae, 1, Device::Cpu { threads: 1 })?;
    let mut grey = vec![0.0; plan.batch_rows * pixels];
    Draw { seed: 1, step: 0, stream: 0 }.fill_uniform(Isa::detect(), 0, &mut grey);
    let bytes: Vec<u8> = grey.iter().map(|v| (v * 256.0) as u8).collect();
    model.exec.set_data("train", &bytes, pixels)?;
    let bound = model.exec.bind(plan)?;
    let seconds = model.exec.time_steps(bound, passes)?;
    let mut text = format!("\nbest of {passes} passes on one thread ({})\n", Isa::detect());
    text += "step  kernel               µs    GFLOP/s       GB/s\n";
    for (i, (step, s)) in plan.steps.iter().zip(&seconds).enumerate() {
        let (flops, bytes) = (step.kind.flops() as f64 / s / 1e9, step.kind.bytes() as f64 / s / 1e9);
        text += &format!("{:>4}  {:<13} {:>9.1} {flops:>10.1} {bytes:>10.1}\n", i + 1, step.kind.name(), s * 1e6);
    }
    let total: f64 = seconds.iter().sum();
    let rate = plan.flops() as f64 / total / 1e9;
    Ok(text + &format!("   all of them      {:>9.1} {rate:>10.1}\n", total * 1e6))
}

/// Prints what the program is and what it would run on.
pub fn info() -> Result<()> {
    let names: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug (slow: use --release)" } else { "release" };
    super::print(&format!(
        "elbo             {}\nbuild            {build}; {}\nplatform         {} {}\ninstruction set  {} (available: {})\n\
         threads          {cores}\ndevice           cpu: {ONLY_CPU}\n",
        env!("CARGO_PKG_VERSION"),
        env!("ELBO_BUILD"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        Isa::detect(),
        names.join(", "),
    ))
}
