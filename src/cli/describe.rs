//! `elbo plan` and `elbo info`.

use super::args::{self, ONLY_CPU};
use crate::error::Result;
use crate::isa::Isa;
use crate::plan::{Fusion, Plan};
use crate::train::Source;
use crate::vae::{Vae, training_graph};

/// Prints the plan of a training step.
pub fn plan(args: &args::Plan) -> Result<()> {
    let model = args.model.config(args.image)?;
    let config = args.optimise.config(model, Source::DIGITS, 1, 1, args.optimise.batch)?;
    let vae = Vae::new(config.model.clone())?;
    let graph = training_graph(&vae, &config.objective, "train", config.batch);
    if args.graph {
        super::print(&format!("{graph}\n"))?;
    }
    let plan = Plan::build(&graph, Fusion::all())?;
    let head = format!(
        "one training step of {}, batch {}: {} parameters, {} nodes\n",
        config.model.describe(),
        config.batch,
        vae.parameter_count(),
        graph.len()
    );
    super::print(&format!("{head}{plan}\n"))
}

/// Prints what the program is and what it would run on.
pub fn info() -> Result<()> {
    let names: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug (slow: use --release)" } else { "release" };
    super::print(&format!(
        "elbo             {}\nbuild            {build}\nplatform         {} {}\ninstruction set  {} (available: {})\n\
         threads          {cores}\ndevice           cpu: {ONLY_CPU}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        Isa::detect(),
        names.join(", "),
    ))
}
