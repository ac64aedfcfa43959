//! `elbo lab`: how noisy every estimator's gradient is, and what a unit of variance costs.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::answer::Answer;
use super::options::Machine;
use super::output::{self, ending};
use super::{phase, use_run, warn_if_debug_build};
use crate::engine::error::{Error, Result};
use crate::study::lab::{self, LabOptions, LabReport};
use crate::vae::Binarisation;

/// Measure the noise of every gradient estimator
///
/// Against the draws k of z per image and the distance of q from the posterior.
///
/// Without RUN on a linear Gaussian model, where the expectation and the noise of every estimator are known exactly, for
/// every k. With RUN on a trained model and a fixed batch of its test images.
#[derive(Args)]
pub struct Lab {
    /// Run folder, or a checkpoint file [default: the model of which everything is known]
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Values of k, draws of z per image [default: 1,4,16,64,256,1024, or for RUN 1,4,16,64]
    #[arg(long, value_name = "K,…", value_delimiter = ',')]
    pub samples: Vec<usize>,
    /// Draws of each gradient [default: 2000, or for RUN 100]
    #[arg(long, value_name = "N")]
    pub draws: Option<usize>,
    /// How far q stands from the posterior, in posterior standard deviations; 0 is the posterior
    ///
    /// The mean is so far off in both latent dimensions, and the variance is 1 + distance/10 times the posterior's.
    #[arg(long, value_name = "SD,…", value_delimiter = ',', default_values_t = [0.0, 0.5, 1.5, 3.0], conflicts_with = "run")]
    pub distances: Vec<f64>,
    /// Images of RUN whose mean gradient is a step's: the first of its test set
    #[arg(long, value_name = "N", default_value_t = 16, requires = "run")]
    pub batch: usize,
    /// Folder with other images for RUN [default: those of the run]
    #[arg(long, value_name = "FOLDER", requires = "run")]
    pub data: Option<PathBuf>,
    /// Seed of the draws
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Picture to write (SVG)
    #[arg(long, value_name = "FILE", value_parser = ending("svg"))]
    pub svg: Option<PathBuf>,
    /// No progress, only the result
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub answer: Answer,
}

impl Lab {
    /// Measures and says what was found.
    pub fn run(&self) -> Result<()> {
        let run = self.run.as_deref();
        self.svg.iter().try_for_each(|svg| output::spare_runs("svg", svg, run))?;
        warn_if_debug_build();
        let found = match run {
            Some(run) => self.trained(run)?,
            None => self.known()?,
        };
        if let Some(svg) = &self.svg {
            lab::draw(&found).write(svg)?;
        }
        self.answer.give(&lab::tables(&found), &self.report(&found))
    }

    fn options(&self, samples: &[usize], draws: usize) -> LabOptions {
        let samples = if self.samples.is_empty() { samples } else { &self.samples };
        LabOptions { samples: samples.to_vec(), draws: self.draws.unwrap_or(draws), seed: self.seed }
    }

    fn known(&self) -> Result<LabReport> {
        let executor = self.machine.device()?.open()?;
        self.machine.say_why_no_gpu()?;
        let options = self.options(&[1, 4, 16, 64, 256, 1024], 2000);
        lab::known(&executor, &self.distances, &options, &phase::watch(self.quiet))
    }

    fn trained(&self, run: &Path) -> Result<LabReport> {
        let device = self.machine.device()?;
        let checkpoint = use_run::open(run)?;
        let test = use_run::images(run, &checkpoint, &self.data)?.test;
        if !(1..=test.rows).contains(&self.batch) {
            let expected = format!("a number of test images from 1 to {}", test.rows);
            return Err(Error::argument("batch", self.batch, expected));
        }
        let mut model = checkpoint.model(device)?;
        self.machine.say_why_no_gpu()?;
        model.watch = phase::watch(self.quiet);
        let first = test.first(self.batch);
        // Pixels that are drawn anew would add their noise to that of z.
        let seen = match model.vae.config.binarisation {
            Binarisation::Dynamic => Cow::Owned(first.binarise_fixed(self.seed)),
            other => first.prepared(other),
        };
        let x: Vec<f32> = (0..seen.rows).flat_map(|i| seen.image(i)).map(|&byte| f32::from(byte) / 255.0).collect();
        let mut found = lab::trained(&mut model, &x, &self.options(&[1, 4, 16, 64], 100))?;
        found.model = format!("{}: {}", run.display(), found.model);
        Ok(found)
    }

    fn report(&self, found: &LabReport) -> Value {
        let mut report = json!(found);
        report["version"] = env!("CARGO_PKG_VERSION").into();
        report["errors"] = "standard errors by the delete-one jackknife over 20 groups of draws".into();
        report
    }
}
