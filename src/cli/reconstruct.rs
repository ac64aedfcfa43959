//! `elbo reconstruct`.

use std::path::PathBuf;

use clap::Args;

use super::options::Machine;
use super::output::{self, ending};
use super::{pictures, plural, use_run};
use crate::engine::error::Result;

/// Show test images and what the model makes of them
#[derive(Args)]
pub struct Reconstruct {
    /// Run folder, or a checkpoint file
    #[arg(long, value_name = "PATH")]
    pub run: PathBuf,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Picture to write (PNG): rows of test images, each above a row of reconstructions
    #[arg(long, value_name = "FILE", default_value = "reconstructions.png", value_parser = ending("png"))]
    pub out: PathBuf,
    /// Number of test images, from the first on [default: 50, or all if there are fewer]
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Seed of the draws of z [default: that of the run]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub machine: Machine,
}

impl Reconstruct {
    /// Shows test images and their reconstructions.
    pub fn run(&self) -> Result<()> {
        self.count.map_or(Ok(()), pictures::check_count)?;
        output::spare_runs("out", &self.out, Some(&self.run))?;
        let device = self.machine.device()?;
        let checkpoint = use_run::open(&self.run)?;
        let mut model = checkpoint.model(device)?;
        let test = use_run::images(&self.run, &checkpoint, &self.data)?.test;
        test.load_into(&mut model, "test")?;
        let seed = self.seed.unwrap_or(checkpoint.config.seed);
        let count = self.count.unwrap_or(pictures::PAIRS.min(test.rows));
        pictures::reconstructions(&mut model, "test", count, seed)?.write_png(&self.out)?;
        let pixels = checkpoint.config.model.binarisation;
        let what = plural(count, "test image");
        super::print(&format!("{what} ({pixels}) and reconstructions: {}\n", self.out.display()))
    }
}
