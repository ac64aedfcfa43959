//! `elbo train`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use clap::{Args, Id, ValueHint};
use serde_json::{Value, json};

use super::answer::Answer;
use super::interrupt::{INTERRUPTED, Interrupt};
use super::options::{self, Data, Machine, Overrides, RunOptions, Session, effects};
use super::pictures::Shown;
use super::run_name::run_name;
use super::sparkline::sparkline;
use super::sweep::{Design, Work};
use super::{pictures, plural, progress, ranks, say, scale, use_run, warn_if_debug_build};
use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::engine::file::Disk;
use crate::engine::optim::LrSchedule;
use crate::train::ranks::{Ranks, check, dismiss, lead};
use crate::train::sweep::Sweep;
use crate::train::{
    Entry, EpochTiming, Experiment, Outcome, Run, Source, TrainConfig, Trainer, WATCHED_IMAGES, quoted,
};
use crate::vae::{HiddenUnits, VaeConfig};

/// Images of the sheet for TensorBoard.
const SHOWN: usize = 64;

/// Train a model into a run folder: checkpoint, journal, pictures
#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    pub begin: RunOptions,
    #[command(flatten)]
    pub machine: Machine,
    /// Run folder to write, new or empty [default: a fresh one under runs/]
    #[arg(long, short, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Train so many runs at once, with the seeds SEED, SEED + 1, …; `elbo sweep` varies other options
    ///
    /// Each is a run in a folder of its own, with the bytes that it would have alone. The result is their mean and spread.
    #[arg(long, value_name = "R", help_heading = "Output")]
    pub replicas: Option<u32>,
    /// Of the replicas, train so many at the same time [default: one per core, on a GPU 8, which share launches]
    #[arg(long, value_name = "N", requires = "replicas", hide_short_help = true, help_heading = "Output")]
    pub jobs: Option<usize>,
    /// Continue the run in this folder exactly where its checkpoint is
    ///
    /// Only --epochs, --lr-schedule, --data (for the same images in another place), --threads, --device, --precision,
    /// --pause-at, --json and --quiet may be given with it. Device and precision are chosen anew.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = answered_by_the_run(), value_hint = ValueHint::DirPath)]
    #[arg(help_heading = "Output")]
    pub resume: Option<PathBuf>,
    #[command(flatten)]
    pub session: Session,
    #[command(flatten)]
    pub answer: Answer,
}

/// The options that a run's checkpoint answers: all that begin a run, but for those that may be asked anew.
fn answered_by_the_run() -> impl Iterator<Item = Id> {
    let configuration = options::ids::<Overrides<Experiment>>().chain(options::ids::<Data>());
    let asked_anew = |id: &Id| ["lr_schedule", "data"].iter().any(|anew| id == anew);
    configuration
        .filter(move |id| !asked_anew(id))
        .chain(["seed", "recipe", "protocol", "stages", "out", "replicas"].map(Id::from))
}

impl Train {
    /// Trains, or continues to train; writes the run folder; prints the result on its scale. Of several processes the first
    /// does so, and each trains some of the replicas.
    pub fn run(&self) -> Result<ExitCode> {
        ranks::together(|ranks| match (ranks, self.replicas) {
            (ranks, Some(replicas)) => {
                let Train { begin, machine, session, answer, jobs, .. } = self;
                let work = Work { machine, session, answer, jobs: *jobs };
                Design { begin, vary: &[], replicas }.train(self.out.as_deref(), &work, ranks.as_deref())
            }
            (Some(ranks), None) if ranks.rank() > 0 => ranks::follow(self.machine.device()?, ranks),
            (ranks, None) => train(self, ranks),
        })
    }
}

fn train(args: &Train, ranks: Option<Rc<dyn Ranks>>) -> Result<ExitCode> {
    let device = args.machine.device()?;
    warn_if_debug_build();
    let interrupt = Interrupt::install()?;
    let wanted = match &args.resume {
        Some(path) => resume(path, args)?,
        None => Some(begin(args)?),
    };
    let Some((entry, config, data)) = wanted else {
        if let Some(ranks) = &ranks {
            dismiss(&**ranks);
        }
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(ranks) = &ranks {
        check(&config, ranks.size())?;
    }
    // From here on there is a folder that must be left so that it can be resumed.
    interrupt.save();
    let (run, mut trainer) = entry.start(config, &data, device)?;
    trainer.pause_at = args.session.pause_at;
    if let Some(ranks) = ranks {
        let images = trainer.config().data.seen_from_here(run.path());
        lead(&mut trainer, images, ranks)?;
    }
    say_if_bits_change(&run, &mut trainer);
    args.machine.say_why_no_gpu()?;
    if !args.session.quiet {
        announce(&mut trainer, &data, &run);
    }
    let started = Instant::now();
    let path = run.path().display();
    let typed = quoted(&path.to_string());
    let mut board = args.session.board(&run, &trainer);
    let outcome = progress::train(&run, &mut trainer, &data, args.session.quiet, board.as_mut(), interrupt.save())?;
    if outcome == Outcome::Stopped {
        let text = format!("stopped; continue with: elbo train --resume {typed}\n");
        args.answer.give(&text, &json!({ "outcome": "stopped", "run": run.path() }))?;
        return Ok(ExitCode::from(if interrupt.raised() { INTERRUPTED } else { 0 }));
    }
    let seconds = started.elapsed().as_secs_f64();
    interrupt.end_at_once(&format!(
        "stopped before the pictures; the run in {path} is finished and saved: elbo eval {typed}"
    ));
    conclude(args, &mut trainer, &data, &run, seconds)?;
    if let Some(board) = &mut board {
        let (updates, seed) = (trainer.progress().updates, trainer.config().seed);
        board.picture(updates, "samples", &pictures::samples(trainer.model(), SHOWN, seed, Shown::Mean)?)?;
        super::say(format_args!("for TensorBoard: tensorboard --logdir {typed}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A run to be trained: where, what, and on which images.
type Wanted = (Entry, TrainConfig, Splits);

fn begin(args: &Train) -> Result<Wanted> {
    let asked = args.begin.experiment()?;
    let source = args.begin.data.source();
    let data = source.load()?;
    let mut config = asked.on([data.test.height, data.test.width], data.train.rows)?;
    effects::of_training(&args.begin.training, &asked, Some(config.epochs))?;
    let entry = match &args.out {
        Some(path) => Entry::new(Disk, path),
        None => Entry::numbered(Disk, Path::new("runs"), &run_name(&config)),
    };
    config.data = source.of_run(entry.path(), &data);
    Ok((entry, config, data))
}

/// The run in a folder, where its checkpoint is; none if it is finished and no more epochs are asked for.
fn resume(path: &Path, args: &Train) -> Result<Option<Wanted>> {
    if Sweep::is_there(&Disk, path) {
        let remedy =
            format!("the folder of one of its runs, or: elbo sweep --resume {}", quoted(&path.display().to_string()));
        return Err(Error::argument("resume", format!("{}, a sweep", path.display()), remedy));
    }
    let entry = Entry::resumed(Disk, path)?;
    let checkpoint = entry.checkpoint().expect("a run that is there");
    let (done, mut config) = (checkpoint.progress.epoch, checkpoint.config.clone());
    let before = config.epochs;
    let epochs = args.begin.epochs.unwrap_or(before);
    if epochs < done {
        return Err(Error::argument("epochs", epochs, format!("at least {done}, which the run has done")));
    }
    let asked = args.begin.training.over(Experiment { config: config.clone(), ..Experiment::default() });
    check_effects(args, &asked, done, epochs)?;
    let drawn = pictures::names(&config.model).into_iter().all(|name| entry.has(name));
    // An exported file in the checkpoint's place is refused below, whatever is asked for.
    if epochs == done && drawn && checkpoint.has_moments() {
        let text = format!(
            "the run in {} is finished, with {}; nothing was done. To go on: elbo train --resume {} --epochs {}\n",
            path.display(),
            plural(done as usize, "epoch"),
            quoted(&path.display().to_string()),
            2 * u64::from(done.max(1)),
        );
        args.answer.give(&text, &json!({ "outcome": "nothing to do", "run": path, "epochs": done }))?;
        return Ok(None);
    }
    config.epochs = epochs;
    let data = images(path, args.begin.data.data.as_ref(), &mut config)?;
    let updates = |epochs: f64| asked.config.updates(epochs, data.train.rows);
    if args.begin.training.has("lr_schedule") {
        config.lr = asked.schedule.lr_schedule.in_updates(config.lr.at(0), epochs, updates);
        config.validate()?;
    } else if epochs > before {
        ends_well(&config.lr, updates(f64::from(epochs)), epochs)?;
    }
    Ok(Some((entry, config, data)))
}

/// Says so if the epochs that the run has done were not computed as this session computes.
fn say_if_bits_change(run: &Run, trainer: &mut Trainer) {
    // That the journal cannot be read is no reason not to go on.
    let timings = run.timings().unwrap_or_else(|why| {
        say(format_args!("warning: {why}"));
        Vec::new()
    });
    if let Some(before) = timings.last().filter(|before| !before.device.is_empty())
        && let Some(change) = change(before, &trainer.model().executor.describe(), env!("ELBO_BUILD"), trainer.ranks())
    {
        say(format_args!("note: {change}: the numbers will not be, to the last bit, those of an uninterrupted run"));
    }
}

/// Refuses what was typed beside `--resume` without effect, for a run that has done `done` of `epochs`.
fn check_effects(args: &Train, asked: &Experiment, done: u32, epochs: u32) -> Result<()> {
    if done == epochs {
        let remedy = format!("--epochs {} beside it", 2 * u64::from(done.max(1)));
        let idle = [
            ("lr-schedule", args.begin.training.has("lr_schedule")),
            ("data", args.begin.data.data.is_some()),
            ("pause-at", args.session.pause_at.is_some()),
        ];
        effects::without_effect(idle, "the run is finished", &remedy)?;
    }
    effects::no_late_steps(&args.begin.training, &asked.schedule.lr_schedule, epochs)
}

/// The images of the run in `path`: where it says that they are, or where the command line says so.
pub(super) fn images(path: &Path, elsewhere: Option<&PathBuf>, config: &mut TrainConfig) -> Result<Splits> {
    let (Some(place), Source::Folder { images, .. }) = (elsewhere, &config.data) else {
        if let Some(place) = elsewhere {
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
fn change(before: &EpochTiming, device: &str, build: &str, ranks: usize) -> Option<String> {
    let kind = |device: &str| device.split(", threads").next().unwrap_or_default().to_string();
    let of_ranks = |ranks: usize| plural(ranks, "rank");
    let (what, then, now) = if kind(&before.device) != kind(device) {
        ("on", before.device.clone(), device.to_string())
    } else if before.build != build {
        ("a program built by", before.build.clone(), build.to_string())
    } else if before.ranks != ranks {
        ("on", of_ranks(before.ranks), of_ranks(ranks))
    } else {
        return None;
    };
    Some(format!("epoch {} ran {what} {then}, this session runs {what} {now}", before.epoch))
}

/// Says on stderr what is trained on what.
pub(super) fn announce(trainer: &mut Trainer, data: &Splits, run: &Run) {
    let config = trainer.config().clone();
    let (train, test) = (config.train_images.unwrap_or(data.train.rows), data.test.rows);
    let what = config.model.describe();
    let test = plural(test, "test image");
    say(format_args!("{what} on {}: {train} training and {test}", data.train.name));
    let bound = config.objective.bound;
    let device = trainer.model().executor.describe();
    let ranks = if trainer.ranks() > 1 { format!(", {} ranks", trainer.ranks()) } else { String::new() };
    say(format_args!("bound {bound}, batch {}, seed {}, {device}{ranks}", config.batch, config.seed));
    if let Some(words) = trainer.exchange() {
        say(words);
    }
    say(format_args!("run folder: {}", run.path().display()));
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

/// −ELBO of the test images after every epoch, as a line of text; empty for one epoch.
fn curve(values: &[f64]) -> String {
    sparkline(values).map_or(String::new(), |bars| format!("test −ELBO by epoch  {bars} nats per image\n"))
}

/// The pictures, and the summary on stdout.
fn conclude(args: &Train, trainer: &mut Trainer, data: &Splits, run: &Run, seconds: f64) -> Result<()> {
    let result = trainer.evaluate()?;
    let config = trainer.config().clone();
    let names = pictures::write_all(trainer.model(), &data.test, config.seed, run)?;
    let (active, hidden) = (trainer.active_units()?, trainer.dead_units()?);
    let epochs: Vec<f64> = Run::records(run.path())?.iter().map(|record| record.test_neg_elbo).collect();
    let text = scale::summary(&config.model, &data.test, &result)
        + &curve(&epochs)
        + &units(&hidden, active, &config.model, data.test.rows.min(WATCHED_IMAGES))
        + &unused_latents(active, config.model.latent);
    let path = run.path().display();
    let text = format!(
        "{text}{}, {seconds:.1} s in this session; in {path}: checkpoint.safetensors, config.json, metrics.jsonl, \
         steps.jsonl, timing.jsonl, {}\n",
        plural(config.epochs as usize, "epoch"),
        names.join(", ")
    );
    let mut report = scale::report(&config.model, &data.test, &result);
    (report["outcome"], report["run"]) = ("finished".into(), json!(run.path()));
    (report["epochs"], report["seconds"]) = (config.epochs.into(), seconds.into());
    report["test_neg_elbo_by_epoch"] = epochs.into();
    report["dead_units"] = json!(hidden);
    report["active_units"] = json!({ "active": active, "of": config.model.latent });
    report["pictures"] = names.iter().map(|name| Value::from(*name)).collect();
    args.answer.give(&text, &report)
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
            ranks: 1,
        };
        assert_eq!(change(&before, "cpu (avx512, threads: 16)", "rustc 1", 1), None);
        let found = change(&before, "cpu (avx512, threads: 2)", "rustc 1", 2).unwrap();
        assert_eq!(found, "epoch 3 ran on 1 rank, this session runs on 2 ranks");
        for (device, build, words) in [
            ("cpu (avx2, threads: 2)", "rustc 1", ["epoch 3 ran on cpu (avx512", "runs on cpu (avx2"]),
            ("cuda:0 (NVIDIA H100, f32)", "rustc 1", ["on cpu (avx512", "on cuda:0 (NVIDIA H100, f32)"]),
            ("cpu (avx512, threads: 2)", "rustc 2", ["built by rustc 1", "built by rustc 2"]),
        ] {
            let found = change(&before, device, build, 1).unwrap();
            assert!(words.iter().all(|word| found.contains(word)), "{found}");
        }
    }
}
