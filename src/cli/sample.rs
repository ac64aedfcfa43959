//! `elbo sample`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde_json::json;

use super::answer::Answer;
use super::options::Machine;
use super::output::{self, ending};
use super::pictures::{self, Shown};
use super::use_run;
use crate::engine::error::Result;

/// Draw new images from the model of a run
#[derive(Args)]
pub struct Sample {
    /// The run: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// Picture to write (PNG)
    #[arg(long, short, help_heading = "Output", value_name = "FILE", default_value = "samples.png", value_parser = ending("png"), value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Number of images
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub count: usize,
    /// Throw x ~ p(x|z), with the noise that the model believes in, instead of the means
    #[arg(long)]
    pub draw: bool,
    /// Seed of the draws of z, and of x
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub answer: Answer,
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
        let shown = Shown::by(self.draw);
        let picture = pictures::samples(&mut model, self.count, self.seed, shown)?;
        picture.write_png(&self.out)?;
        let report = json!({
            "picture": self.out, "images": self.count, "shown": shown.name(), "shows": picture.shows,
            "run": self.run, "seed": self.seed,
        });
        self.answer.give(&format!("{}: {}\n", picture.shows, self.out.display()), &report)
    }
}
