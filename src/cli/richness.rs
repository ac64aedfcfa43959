//! `elbo richness`: is z rich? For one run, or for one run of each of several K.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use serde::Serialize;
use serde_json::Value;

use super::interrupt::{INTERRUPTED, Interrupt};
use super::progress::Progress;
use super::train::alarm;
use super::{args, output, phase, pictures, plural, use_run, warn_if_debug_build};
use crate::data::{Splits, file};
use crate::engine::device::Device;
use crate::engine::error::{Error, Result};
use crate::study::richness::{Options, Richness, answer, one_layer, plot, table};
use crate::train::{Outcome, RunFolder, TrainConfig, Trainer};
use crate::vae::{Model, VaeConfig};

/// Looks into one run, or trains and compares several.
pub fn richness(args: &args::Richness, typed: &ArgMatches) -> Result<ExitCode> {
    for (field, count, most) in [("images", args.images, 100_000), ("draws", args.draws, 100_000)] {
        if !(1..=most).contains(&count) {
            return Err(Error::argument(field, count, format!("a number from 1 to {most}")));
        }
    }
    one_layer(args.model.upper.len())?;
    args.json.iter().try_for_each(|json| output::spare_runs("json", json, args.run.as_deref()))?;
    let device = args.machine.device()?;
    warn_if_debug_build();
    match &args.run {
        Some(run) => one(args, run, device).map(|()| ExitCode::SUCCESS),
        None => several(args, typed, device),
    }
}

fn options(args: &args::Richness, seed: u64, device: Device) -> Options {
    Options { seed, images: args.images, draws: args.draws, device }
}

fn one(args: &args::Richness, run: &Path, device: Device) -> Result<()> {
    let checkpoint = use_run::open(run)?;
    let data = use_run::images(run, &checkpoint, &args.data.data)?;
    let mut model = Model::restore(&checkpoint, device)?;
    args.machine.say_why_no_gpu()?;
    model.watch = phase::watch(args.quiet);
    model.load("train", &data.train)?;
    model.load("test", &data.test)?;
    let seed = args.seed.unwrap_or(checkpoint.config.seed);
    let found = Richness::of(&mut model, &data, &options(args, seed, device))?;
    if let Some(path) = &args.json {
        write_json(path, &found)?;
    }
    super::print(&found.to_string())
}

fn write_json(path: &Path, found: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(found).expect("results are plain data");
    file::replace(path, |out| writeln!(out, "{text}"))
}

/// What `richness.json` holds.
#[derive(Serialize)]
struct Report<'a> {
    answer: Option<String>,
    runs: &'a [Richness],
}

fn several(args: &args::Richness, typed: &ArgMatches, device: Device) -> Result<ExitCode> {
    let data = args.data.source().load()?;
    let out = args.out.clone().unwrap_or_else(|| "runs/richness".into());
    let runs = runs(args, &data, &out)?;
    args::effects::of_training(typed, &args.model, &args.optimise, Some(runs[0].0.epochs))?;
    args.machine.say_why_no_gpu()?;
    let interrupt = Interrupt::install()?;
    let mut found = Vec::new();
    for (config, path) in &runs {
        let k = config.model.latent;
        let Some(mut trainer) = trained(config, path, &data, device, args.quiet, &interrupt)? else {
            super::print(&format!("stopped at K = {k}; the same command continues from here\n"))?;
            return Ok(ExitCode::from(INTERRUPTED));
        };
        if !args.quiet {
            super::say(format_args!("K = {k}: looking into z"));
        }
        interrupt.end_at_once(&format!("stopped at K = {k}, which is trained; the same command continues from here"));
        trainer.model().watch = phase::watch(args.quiet);
        found.push(Richness::of(trainer.model(), &data, &options(args, config.seed, device))?);
    }
    let (json, svg) = (out.join("richness.json"), out.join("richness.svg"));
    let answer = answer(&found);
    plot(&found, &subtitle(&runs[0].0, &data)).write(&svg)?;
    let text = format!("{}{}\n", table(&found), answer.as_deref().unwrap_or_default());
    write_json(&json, &Report { answer, runs: &found })?;
    super::print(&format!("{text}{} and {}\n", json.display(), svg.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Configuration and folder of every K, in increasing order; a folder with another run is an error before anything is
/// trained.
fn runs(args: &args::Richness, data: &Splits, out: &Path) -> Result<Vec<(TrainConfig, PathBuf)>> {
    let mut latents = args.latents.clone();
    latents.sort_unstable();
    latents.dedup();
    let model = args.model.config([data.test.height, data.test.width])?;
    let run = |latent: usize| {
        let model = VaeConfig { latent, ..model.clone() };
        let (seed, epochs) = (args.seed.unwrap_or(1), args.epochs.unwrap_or(10));
        let path = out.join(format!("k{latent:02}"));
        let source = args.data.source().of_run(&path, data);
        let config = args.optimise.config(model, source, seed, epochs, data.train.rows)?;
        if RunFolder::is_there(&path) {
            must_be(&config, &RunFolder::open(&path)?.1.config, &path)?;
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
    let values = [wanted, &there].map(|c| serde_json::to_value(c).expect("a configuration is plain data"));
    let Some((field, wanted, there)) = difference("", &values[0], &values[1]) else { return Ok(()) };
    Err(Error::File {
        path: path.into(),
        field,
        found: format!("a run with {there}"),
        expected: format!("{wanted}, as this command says"),
        remedy: "choose another --out, or give the options of the runs that are there".into(),
    })
}

/// The first field in which two configurations differ, and its value in each.
fn difference(name: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys: Vec<&String> = x.keys().chain(y.keys()).collect();
            keys.sort();
            let dot = if name.is_empty() { "" } else { "." };
            let at = |map: &serde_json::Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or(Value::Null);
            keys.into_iter().find_map(|key| difference(&format!("{name}{dot}{key}"), &at(x, key), &at(y, key)))
        }
        _ if a == b => None,
        _ => Some((name.into(), a.to_string(), b.to_string())),
    }
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
    let begun_before = RunFolder::is_there(path);
    let (folder, mut trainer) = if begun_before {
        let (folder, mut checkpoint) = RunFolder::open(path)?;
        checkpoint.config.data = config.data.clone();
        let trainer = Trainer::resume(&checkpoint, data, device)?;
        if checkpoint.progress.epoch == config.epochs {
            say("the finished run in");
            return Ok(Some(trainer));
        }
        folder.rewind(checkpoint.progress.epoch)?;
        say("continuing the run in");
        (folder, trainer)
    } else {
        let trainer = Trainer::new(config.clone(), data, device)?;
        let folder = RunFolder::create(path)?;
        folder.begin(&trainer)?;
        say("training in");
        (folder, trainer)
    };
    let mut progress = Progress::new(folder.clone(), alarm(config, data), quiet);
    let outcome = trainer.run(&mut progress, stop);
    progress.finish();
    // A run that was there before this call is never removed.
    let unused = |_: &Error| {
        if !begun_before {
            folder.discard_if_unused()
        }
    };
    let outcome = outcome.inspect_err(unused)?;
    folder.write_checkpoint(&trainer)?;
    if outcome == Outcome::Stopped {
        return Ok(None);
    }
    pictures::write_all(trainer.model(), &data.test, config.seed, &folder)?;
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
