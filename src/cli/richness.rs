//! `elbo richness`: is z rich? For one run, or for one run of each of several K.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Id, ValueHint};
use serde::Serialize;
use serde_json::json;

use super::answer::Answer;
use super::interrupt::{INTERRUPTED, Interrupt};
use super::options::{self, Data, Machine, Overrides, effects};
use super::{phase, pictures, plural, progress, use_run, warn_if_debug_build};
use crate::data::Splits;
use crate::engine::device::Device;
use crate::engine::error::{Error, Result};
use crate::engine::file::Disk;
use crate::study::richness::{self, RichnessOptions, answer, one_layer, plot, table};
use crate::train::{Entry, Experiment, Outcome, Run, TrainConfig, Trainer};

/// Ask how rich z is: what it holds of an image, in one run or by K
#[derive(Args)]
#[command(mut_arg("latent", |latent| latent.hide(true)))] // --latents is here what it is elsewhere
pub struct Richness {
    /// The run to look into: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath, conflicts_with_all = answered_by_the_run())]
    pub run: Option<PathBuf>,
    /// Train a model for each of these K, or take the run that is there, and compare them
    #[arg(
        long,
        value_name = "K,…",
        value_delimiter = ',',
        required_unless_present = "run",
        conflicts_with_all = ["run", "latent"]
    )]
    pub latents: Vec<usize>,
    /// Passes over the training set for each K [default: 10]
    #[arg(long, value_name = "N", conflicts_with = "run")]
    pub epochs: Option<u32>,
    /// Seed of the training and of all draws [default: 1, or that of the run]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Folder for the runs k01, k02, …, richness.json and richness.svg [default: runs/richness]
    #[arg(long, short, help_heading = "Output", value_name = "FOLDER", conflicts_with = "run", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Most test images that the KL term is taken apart with, and that z is drawn for to name their class
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub images: usize,
    /// Draws from the prior that are decoded and compared with the training images
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub draws: usize,
    /// No progress, only the result
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
    #[command(flatten)]
    pub answer: Answer,
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub training: Overrides<Experiment>,
    #[command(flatten)]
    pub machine: Machine,
}

/// The options that the run that is looked into answers; its images may lie in another folder.
fn answered_by_the_run() -> impl Iterator<Item = Id> {
    options::ids::<Overrides<Experiment>>().chain(options::ids::<Data>().filter(|id| id != "data"))
}

impl Richness {
    /// What the runs of a list have in common.
    fn experiment(&self) -> Experiment {
        let mut asked = self.training.over(Experiment::default());
        asked.config.seed = self.seed.unwrap_or(asked.config.seed);
        asked.config.epochs = self.epochs.unwrap_or(asked.config.epochs);
        asked
    }

    /// Looks into one run, or trains and compares several.
    pub fn run(&self) -> Result<ExitCode> {
        command(self)
    }
}

fn command(args: &Richness) -> Result<ExitCode> {
    for (field, count, most) in [("images", args.images, 100_000), ("draws", args.draws, 100_000)] {
        if !(1..=most).contains(&count) {
            return Err(Error::argument(field, count, format!("a number from 1 to {most}")));
        }
    }
    one_layer(args.experiment().config.model.upper.len())?;
    let device = args.machine.device()?;
    warn_if_debug_build();
    match &args.run {
        Some(run) => one(args, run, device).map(|()| ExitCode::SUCCESS),
        None => several(args, device),
    }
}

fn options(args: &Richness, seed: u64, device: Device) -> RichnessOptions {
    RichnessOptions { seed, images: args.images, draws: args.draws, device }
}

fn one(args: &Richness, run: &Path, device: Device) -> Result<()> {
    let checkpoint = use_run::open(run)?;
    let data = use_run::images(run, &checkpoint, &args.data.data)?;
    let mut model = checkpoint.model(device)?;
    args.machine.say_why_no_gpu()?;
    model.watch = phase::watch(args.quiet);
    data.train.load_into(&mut model, "train")?;
    data.test.load_into(&mut model, "test")?;
    let seed = args.seed.unwrap_or(checkpoint.config.seed);
    let found = richness::Richness::of(&mut model, &data, &options(args, seed, device))?;
    args.answer.give(&found.to_string(), &found)
}

/// What `richness.json` holds.
#[derive(Serialize)]
struct RichnessReport<'a> {
    answer: Option<String>,
    runs: &'a [richness::Richness],
}

fn several(args: &Richness, device: Device) -> Result<ExitCode> {
    let data = args.data.source().load()?;
    let out = args.out.clone().unwrap_or_else(|| "runs/richness".into());
    let runs = runs(args, &data, &out)?;
    effects::of_training(&args.training, &args.experiment(), Some(runs[0].0.epochs))?;
    args.machine.say_why_no_gpu()?;
    let interrupt = Interrupt::install()?;
    let mut found = Vec::new();
    for (config, path) in &runs {
        let k = config.model.latent;
        let Some(mut trainer) = trained(config, path, &data, device, args.quiet, &interrupt)? else {
            let text = format!("stopped at K = {k}; the same command continues from here\n");
            args.answer.give(&text, &json!({ "outcome": "stopped", "latent": k }))?;
            return Ok(ExitCode::from(INTERRUPTED));
        };
        if !args.quiet {
            super::say(format_args!("K = {k}: looking into z"));
        }
        interrupt.end_at_once(&format!("stopped at K = {k}, which is trained; the same command continues from here"));
        trainer.model().watch = phase::watch(args.quiet);
        found.push(richness::Richness::of(trainer.model(), &data, &options(args, config.seed, device))?);
    }
    let (json, svg) = (out.join("richness.json"), out.join("richness.svg"));
    let answer = answer(&found);
    plot(&found, &subtitle(&runs[0].0, &data)).write(&svg)?;
    let text = format!("{}{}\n", table(&found), answer.as_deref().unwrap_or_default());
    let report = RichnessReport { answer, runs: &found };
    super::write_json(&json, &report)?;
    args.answer.give(&format!("{text}{} and {}\n", json.display(), svg.display()), &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Configuration and folder of every K, in increasing order; a folder with another run is an error before anything is
/// trained.
fn runs(args: &Richness, data: &Splits, out: &Path) -> Result<Vec<(TrainConfig, PathBuf)>> {
    let mut latents = args.latents.clone();
    latents.sort_unstable();
    latents.dedup();
    let run = |latent: usize| {
        let mut asked = args.experiment();
        let path = out.join(format!("k{latent:02}"));
        asked.config.model.latent = latent;
        asked.config.data = args.data.source().of_run(&path, data);
        let config = asked.on([data.test.height, data.test.width], data.train.rows)?;
        if Run::is_there(&path) {
            must_be(&config, &Run::read(&path)?.config, &path)?;
        }
        Ok((config, path))
    };
    latents.into_iter().map(run).collect()
}

/// Compares the configuration that is asked for with that of the run in `path`.
fn must_be(wanted: &TrainConfig, there: &TrainConfig, path: &Path) -> Result<()> {
    let mut there = there.clone();
    if there.data.may_be(&wanted.data) {
        there.data = wanted.data.clone();
    }
    let differences = wanted.differences(&there);
    let Some(difference) = differences.first() else { return Ok(()) };
    Err(Error::File {
        path: path.into(),
        field: difference.field.clone(),
        found: format!("a run with {}", difference.second),
        expected: format!("{}, as this command says", difference.first),
        remedy: "choose another --out, or give the options of the runs that are there".into(),
    })
}

/// The finished run of `config` in `path`: taken as it is, continued, or trained from its beginning. None if it was
/// interrupted.
fn trained(
    config: &TrainConfig,
    path: &Path,
    data: &Splits,
    device: Device,
    quiet: bool,
    interrupt: &Interrupt,
) -> Result<Option<Trainer>> {
    let say = |what: &str| {
        if !quiet {
            super::say(format_args!("K = {}: {what} {}", config.model.latent, path.display()));
        }
    };
    // From here on there is a folder that must be left so that it can be taken up.
    let stop = interrupt.save();
    let entry = Entry::at(Disk, path)?;
    let done = entry.checkpoint().map(|there| there.progress.epoch);
    let (run, mut trainer) = entry.start(config.clone(), data, device)?;
    match done {
        Some(epochs) if epochs == config.epochs => {
            say("the finished run in");
            return Ok(Some(trainer));
        }
        Some(_) => say("continuing the run in"),
        None => say("training in"),
    }
    if progress::train(&run, &mut trainer, data, quiet, None, stop)? == Outcome::Stopped {
        return Ok(None);
    }
    pictures::write_all(trainer.model(), &data.test, config.seed, &run)?;
    Ok(Some(trainer))
}

/// `784-400-K-400-784 relu, …; 10 epochs of 60000 images of mnist, training seed 1; judged on 10000 test images`.
fn subtitle(config: &TrainConfig, data: &Splits) -> String {
    let described = config.model.describe();
    let (widths, rest) = described.split_once(' ').unwrap_or((&described, ""));
    let mut widths: Vec<&str> = widths.split('-').collect();
    if let Some(latent) = widths.get_mut(config.model.encoder.len() + 1) {
        *latent = "K";
    }
    let (train, test) = (&data.train, &data.test);
    format!(
        "{} {rest}; {} of {} of {}, training seed {}; judged on {}",
        widths.join("-"),
        plural(config.epochs as usize, "epoch"),
        plural(train.rows, "image"),
        train.name,
        config.seed,
        plural(test.rows, "test image")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vae::VaeConfig;

    #[test]
    fn another_configuration_is_named() {
        let config = TrainConfig::new(VaeConfig::new(2));
        must_be(&config, &config.clone(), Path::new("k02")).unwrap();
        let mut other = config.clone();
        other.model.encoder = vec![300];
        let message = must_be(&config, &other, Path::new("k02")).unwrap_err().to_string();
        for part in ["k02", "model.encoder", "[300]", "[400]", "--out"] {
            assert!(message.contains(part), "{message} lacks {part}");
        }
    }

    #[test]
    fn the_subtitle_names_the_architecture_without_its_k() {
        let data = Splits::digits(1, 3, 2);
        let config = TrainConfig::new(VaeConfig::new(400).hidden(&[400, 200]));
        let text = subtitle(&config, &data);
        assert!(text.starts_with("784-400-200-K-200-400-784 relu") && text.contains("10 epochs of 3 images"), "{text}");
    }
}
