//! `elbo sample`.

use std::path::PathBuf;

use clap::Args;

use super::options::Machine;
use super::output::{self, ending};
use super::{pictures, plural, use_run};
use crate::engine::error::Result;

/// Draw new images from the model of a run
#[derive(Args)]
pub struct Sample {
    /// Run folder, or a checkpoint file
    #[arg(long, value_name = "PATH")]
    pub run: PathBuf,
    /// Picture to write (PNG)
    #[arg(long, value_name = "FILE", default_value = "samples.png", value_parser = ending("png"))]
    pub out: PathBuf,
    /// Number of images
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub count: usize,
    /// Seed of the draws of z
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub machine: Machine,
}

impl Sample {
    /// Draws new images.
    pub fn run(&self) -> Result<()> {
        pictures::check_count(self.count)?;
        output::spare_runs("out", &self.out, Some(&self.run))?;
        let device = self.machine.device()?;
        let mut model = use_run::open(&self.run)?.model(device)?;
        pictures::samples(&mut model, self.count, self.seed)?.write_png(&self.out)?;
        let what = plural(self.count, "image");
        super::print(&format!("{what} drawn from the prior: {}\n", self.out.display()))
    }
}
