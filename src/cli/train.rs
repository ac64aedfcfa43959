//! `elbo train`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::interrupt::{INTERRUPTED, Interrupt};
use super::progress::Progress;
use super::{args, pictures, plural, say, scale, use_run, warn_if_debug_build};
use crate::data::Splits;
use crate::engine::device::Device;
use crate::engine::error::{Error, Result};
use crate::engine::optim::LrSchedule;
use crate::train::{Alarm, EpochTiming, Outcome, RunFolder, Source, TrainConfig, Trainer, WATCHED_IMAGES};
use crate::vae::{HiddenUnits, VaeConfig};

/// Trains, or continues to train; writes the run folder; prints the result on its scale.
pub fn train(args: &args::Train, typed: &ArgMatches) -> Result<ExitCode> {
    let device = args.machine.device()?;
    warn_if_debug_build();
    let interrupt = Interrupt::install()?;
    let (folder, data, mut trainer) = match &args.resume {
        Some(path) => match resume(path, args, typed, device)? {
            Some(run) => run,
            None => return Ok(ExitCode::SUCCESS),
        },
        None => begin(args, typed, device, &interrupt)?,
    };
    args.machine.say_why_no_gpu()?;
    trainer.pause_at = args.pause_at;
    if !args.quiet {
        announce(&mut trainer, &data, &folder);
    }
    let started = Instant::now();
    let mut progress = Progress::new(folder.clone(), alarm(trainer.config(), &data), args.quiet);
    let outcome = trainer.run(&mut progress, interrupt.save());
    progress.finish();
    // A run that was there before this call is never removed.
    let unused = |_: &Error| {
        if args.resume.is_none() {
            folder.discard_if_unused()
        }
    };
    if outcome.inspect_err(unused)? == Outcome::Stopped {
        folder.write_checkpoint(&trainer)?;
        let path = folder.path().display();
        super::print(&format!("stopped; continue with: elbo train --resume {path}\n"))?;
        return Ok(ExitCode::from(if interrupt.raised() { INTERRUPTED } else { 0 }));
    }
    let seconds = started.elapsed().as_secs_f64();
    folder.write_checkpoint(&trainer)?;
    let path = folder.path().display();
    interrupt.end_at_once(&format!(
        "stopped before the pictures; the run in {path} is finished and saved: elbo eval --run {path}"
    ));
    conclude(&mut trainer, &data, &folder, seconds)?;
    Ok(ExitCode::SUCCESS)
}

/// Knows what the test images score without any z.
pub(super) fn alarm(config: &TrainConfig, data: &Splits) -> Alarm {
    Alarm::new(config, scale::collapse_line(&config.model, &data.test))
}

/// A run: its folder, its images, and its state.
type Run = (RunFolder, Splits, Trainer);

fn begin(args: &args::Train, typed: &ArgMatches, device: Device, interrupt: &Interrupt) -> Result<Run> {
    let source = args.data.source();
    let data = source.load()?;
    let config = args.config(&data)?;
    args::effects::of_training(typed, &args.model, &args.optimise, Some(config.epochs))?;
    let mut trainer = Trainer::new(config, &data, device)?;
    // From here on there is a folder that must be left so that it can be resumed.
    interrupt.save();
    let folder = match &args.out {
        Some(path) => RunFolder::create(path)?,
        None => RunFolder::fresh(Path::new("runs"), &label(trainer.config()))?,
    };
    trainer.set_source(source.of_run(folder.path(), &data));
    folder.begin(&trainer)?;
    Ok((folder, data, trainer))
}

/// `digits-k20`, `mnist-k2-gaussian`: what a run folder is called after its number.
fn label(config: &TrainConfig) -> String {
    use crate::vae::Likelihood;
    let data = match &config.data {
        Source::Digits { .. } => "digits".to_string(),
        Source::Folder { path, .. } => {
            let name = path.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            name.unwrap_or("data".into()).chars().map(plain).collect()
        }
    };
    let kind = match config.model.likelihood {
        Likelihood::Bernoulli => "",
        Likelihood::Gaussian { .. } => "-gaussian",
        Likelihood::GaussianShared { .. } => "-gaussian-shared",
        Likelihood::GaussianOptimal { .. } => "-gaussian-optimal",
        Likelihood::ContinuousBernoulli => "-continuous",
        Likelihood::DiscretisedLogistic { .. } => "-logistic",
    };
    format!("{data}-k{}{kind}", config.model.latent)
}

/// The run in a folder, where its checkpoint is; none if it is finished and no more epochs are asked for.
fn resume(path: &Path, args: &args::Train, typed: &ArgMatches, device: Device) -> Result<Option<Run>> {
    let (folder, mut checkpoint) = RunFolder::open(path)?;
    let (done, before) = (checkpoint.progress.epoch, checkpoint.config.epochs);
    let epochs = args.epochs.unwrap_or(before);
    if epochs < done {
        return Err(Error::argument("epochs", epochs, format!("at least {done}, which the run has done")));
    }
    args::effects::of_resumed(typed, &args.optimise, done, epochs)?;
    let drawn = pictures::names(&checkpoint.config.model).into_iter().all(|name| folder.file(name).exists());
    // An exported file in the checkpoint's place is refused below, whatever is asked for.
    if epochs == done && drawn && checkpoint.has_moments() {
        let path = folder.path().display();
        super::print(&format!(
            "the run in {path} is finished, with {}; nothing was done. To go on: elbo train --resume {path} --epochs {}\n",
            plural(done as usize, "epoch"),
            2 * u64::from(done.max(1)),
        ))?;
        return Ok(None);
    }
    let config = &mut checkpoint.config;
    config.epochs = epochs;
    let data = images(path, args, config)?;
    let per_epoch = config.train_images.unwrap_or(data.train.rows).div_ceil(config.batch) as f64;
    let updates = |epochs: f64| (epochs * per_epoch).round() as u64;
    if typed.value_source("lr_schedule") == Some(ValueSource::CommandLine) {
        config.lr = args.optimise.lr_schedule.in_updates(config.lr.at(0), epochs, updates);
        config.validate()?;
    } else if epochs > before {
        ends_well(&config.lr, updates(f64::from(epochs)), epochs)?;
    }
    let mut trainer = Trainer::resume(&checkpoint, &data, device)?;
    folder.rewind(done)?;
    folder.write_config(trainer.config())?;
    if let Some(before) = folder.last_timing()
        && let Some(change) = change(&before, &trainer.model().exec.describe(), env!("ELBO_BUILD"))
    {
        say(format_args!("note: {change}: the numbers will not be, to the last bit, those of an uninterrupted run"));
    }
    Ok(Some((folder, data, trainer)))
}

/// The images of the run in `path`: where it says that they are, or where the command line says so.
fn images(path: &Path, args: &args::Train, config: &mut TrainConfig) -> Result<Splits> {
    let (Some(place), Source::Folder { images, .. }) = (&args.data.data, &config.data) else {
        if let Some(place) = &args.data.data {
            let expected = format!("no --data: the run in {} draws its own digits", path.display());
            return Err(Error::argument("data", place.display(), expected));
        }
        return use_run::own_images(path, &config.data);
    };
    if images.is_none() {
        say("note: the run has no fingerprint of its images; whether these are the same is not known");
    }
    let source = Source::Folder { path: place.clone(), images: images.clone() };
    let data = source.load()?;
    config.data = source.of_run(path, &data);
    Ok(data)
}

/// Refuses epochs beyond the end of a cosine at rate 0, in which nothing would be learned, and says at which rate others run.
fn ends_well(lr: &LrSchedule, updates: u64, epochs: u32) -> Result<()> {
    let LrSchedule::Cosine { lr, lr_end, steps } = *lr else { return Ok(()) };
    if updates <= steps {
        return Ok(());
    }
    let stretch = format!("--lr-schedule cosine to stretch it over {}", plural(epochs as usize, "epoch"));
    if lr_end == 0.0 {
        let found = format!("{epochs}, beyond the end of the run's cosine schedule, where the rate is 0");
        let expected = format!("with --epochs also {stretch}, or --lr-schedule constant to go on at {lr}");
        return Err(Error::argument("epochs", found, expected));
    }
    say(format_args!("note: beyond the end of the run's cosine schedule the rate stays at {lr_end}; {stretch}"));
    Ok(())
}

/// What differs between the epoch of `before` and this session, if the bits may depend on it. They do not depend on the
/// number of threads.
fn change(before: &EpochTiming, device: &str, build: &str) -> Option<String> {
    let kind = |device: &str| device.split(", threads").next().unwrap_or_default().to_string();
    let (what, then, now) = if kind(&before.device) != kind(device) {
        ("on", before.device.as_str(), device)
    } else if before.build != build {
        ("a program built by", before.build.as_str(), build)
    } else {
        return None;
    };
    Some(format!("epoch {} ran {what} {then}, this session runs {what} {now}", before.epoch))
}

/// Says on stderr what is trained on what.
pub(super) fn announce(trainer: &mut Trainer, data: &Splits, folder: &RunFolder) {
    let config = trainer.config().clone();
    let (train, test) = (config.train_images.unwrap_or(data.train.rows), data.test.rows);
    let what = config.model.describe();
    let test = plural(test, "test image");
    say(format_args!("{what} on {}: {train} training and {test}", data.train.name));
    let bound = config.objective.bound;
    let device = trainer.model().exec.describe();
    say(format_args!("bound {bound}, batch {}, seed {}, {device}", config.batch, config.seed));
    say(format_args!("run folder: {}", folder.path().display()));
}

/// `units over 1000 test images: encoder.0 12 of 400 dead, decoder.0 0 of 400 dead, z 3 of 20 inactive`.
fn units(hidden: &[HiddenUnits], active: usize, config: &VaeConfig, images: usize) -> String {
    let hidden = hidden.iter().map(|h| format!("{} {} of {} dead", h.layer, h.dead, h.units));
    let z = if config.upper.is_empty() { "z" } else { "z₁" };
    let latent = format!("{z} {} of {} inactive", config.latent - active, config.latent);
    let all: Vec<String> = hidden.chain([latent]).collect();
    format!("units over {images} test images: {}\n", all.join(", "))
}

/// A line for a model of which more than half is unused.
fn unused_latents(active: usize, latent: usize) -> String {
    let remedy = if active == 0 { "" } else { "; fewer --latent would do" };
    match 2 * active < latent {
        true => format!("{active} of {latent} latent units are active (variance of the mean > 0.01){remedy}\n"),
        false => String::new(),
    }
}

/// The pictures, and the summary on stdout.
fn conclude(trainer: &mut Trainer, data: &Splits, folder: &RunFolder, seconds: f64) -> Result<()> {
    let result = trainer.evaluate()?;
    let config = trainer.config().clone();
    let names = pictures::write_all(trainer.model(), &data.test, config.seed, folder)?;
    let (active, hidden) = (trainer.active_units()?, trainer.dead_units()?);
    let text = scale::summary(&config.model, &data.test, &result)
        + &units(&hidden, active, &config.model, data.test.rows.min(WATCHED_IMAGES))
        + &unused_latents(active, config.model.latent);
    let path = folder.path().display();
    super::print(&format!(
        "{text}{}, {seconds:.1} s in this session; in {path}: checkpoint.safetensors, config.json, metrics.jsonl, \
         timing.jsonl, {}\n",
        plural(config.epochs as usize, "epoch"),
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_do_not_count_as_a_change_and_all_else_does() {
        let before = EpochTiming {
            epoch: 3,
            train_seconds: 1.0,
            test_seconds: 1.0,
            images_per_second: 1.0,
            device: "cpu (avx512, threads: 2)".into(),
            build: "rustc 1".into(),
        };
        assert_eq!(change(&before, "cpu (avx512, threads: 16)", "rustc 1"), None);
        for (device, build, words) in [
            ("cpu (avx2, threads: 2)", "rustc 1", ["epoch 3 ran on cpu (avx512", "runs on cpu (avx2"]),
            ("cuda:0 (NVIDIA H100, f32)", "rustc 1", ["on cpu (avx512", "on cuda:0 (NVIDIA H100, f32)"]),
            ("cpu (avx512, threads: 2)", "rustc 2", ["built by rustc 1", "built by rustc 2"]),
        ] {
            let found = change(&before, device, build).unwrap();
            assert!(words.iter().all(|word| found.contains(word)), "{found}");
        }
    }
}
