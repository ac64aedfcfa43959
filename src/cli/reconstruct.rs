//! `elbo reconstruct`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde_json::json;

use super::answer::Answer;
use super::options::Machine;
use super::output::{self, ending};
use super::pictures::{self, Shown};
use super::use_run;
use crate::engine::error::Result;

/// Show test images and what the model makes of them
#[derive(Args)]
pub struct Reconstruct {
    /// The run: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Picture to write (PNG): rows of test images, each above a row of reconstructions
    #[arg(long, short, help_heading = "Output", value_name = "FILE", default_value = "reconstructions.png", value_parser = ending("png"), value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Number of test images, from the first on [default: 50, or all if there are fewer]
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<usize>,
    /// Throw x ~ p(x|z), with the noise that the model believes in, instead of the means
    #[arg(long)]
    pub draw: bool,
    /// Seed of the draws of z, and of x [default: that of the run]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub answer: Answer,
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
        let shown = Shown::by(self.draw);
        let picture = pictures::reconstructions(&mut model, "test", count, seed, shown)?;
        picture.write_png(&self.out)?;
        let report = json!({
            "picture": self.out, "images": count, "shown": shown.name(), "shows": picture.shows,
            "run": self.run, "seed": seed,
        });
        self.answer.give(&format!("{}: {}\n", picture.shows, self.out.display()), &report)
    }
}
