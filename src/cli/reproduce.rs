//! `elbo recipes` and `elbo reproduce`: a published experiment, run and set beside the published numbers.

mod report;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{ArgMatches, Args};

use super::interrupt::{INTERRUPTED, Interrupt};
use super::progress::Progress;
use super::recipe::{Metric, Parse, Recipe, names};
use super::{args, phase, plural, train};
use crate::data::Splits;
use crate::data::file::replace;
use crate::engine::device::Device;
use crate::engine::error::{Error, Result};
use crate::study::evidence;
use crate::train::checkpoint::Checkpoint;
use crate::train::{EpochTiming, Outcome, RunFolder, TEST, TRAIN, TrainConfig, Trainer};
use crate::vae::Evaluation;
use report::{Active, Report, Seconds, Terms};

/// Lists all recipes, one line each.
pub fn list() -> Result<()> {
    let mut text = String::new();
    for name in names() {
        let recipe = Recipe::load(name)?;
        let number = recipe.expected.value.map_or("    –".into(), |v| format!("{v:>6.2}"));
        writeln!(text, "{name:<24}{number}  {}", recipe.title).expect("writing to a string");
    }
    text += "the number is what is expected, in nats per test image; a recipe is run by `elbo reproduce --recipe NAME`, or as \
             a start by `elbo train --recipe NAME`\n";
    super::print(&text)
}

/// Options of `elbo reproduce`.
#[derive(Args)]
pub struct Options {
    /// A name of `elbo recipes`, or a file FILE.toml
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: String,
    /// Which of the recipe's protocols to follow, where code and paper differ [default: as the recipe says]
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// The first N stages of the recipe's schedule only [default: all]; more can be asked for later
    #[arg(long, value_name = "N")]
    pub stages: Option<usize>,
    #[command(flatten)]
    pub data: args::Data,
    /// Seed of initial values, shuffling and noise: equal seeds give equal bytes
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Run folder; a run of the same recipe and seed in it is continued [default: runs/reproduce-NAME]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Importance samples per image of the estimate of log p(x), 0 for none [default: as the recipe says]
    #[arg(long, value_name = "K")]
    pub nll_samples: Option<usize>,
    /// Test images of that estimate, from the first on [default: as the recipe says]
    #[arg(long, value_name = "N")]
    pub nll_images: Option<usize>,
    /// Stop after this many updates in all, as Ctrl-C would, leaving a checkpoint
    #[arg(long, value_name = "UPDATES")]
    pub pause_at: Option<u32>,
    /// No progress, only the result
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub machine: args::Machine,
}

/// Trains as the recipe says, or goes on where the folder's run stopped; evaluates; compares.
pub fn reproduce(args: &Options, matches: &ArgMatches, parse: Parse) -> Result<ExitCode> {
    let recipe = Recipe::load(&args.recipe)?;
    let device = args.machine.device()?;
    super::warn_if_debug_build();
    let own_images = args.data.data.is_some();
    let images = args.data.source().load()?;
    if let Some(folder) = &args.data.data {
        recipe.check_images(&images, folder)?;
    } else {
        super::say(format_args!(
            "built-in digits: this shows that recipe {} runs; its numbers are for {} (--data FOLDER)",
            recipe.name, recipe.data.images
        ));
    }
    if args.nll_samples == Some(0) && args.nll_images.is_some() {
        let remedy = "more than 0 --nll-samples beside it, or no --nll-images";
        return Err(Error::argument("--nll-images", "without effect: --nll-samples is 0", remedy));
    }
    let mut config = configuration(args, &recipe, &images, matches, parse)?;
    let interrupt = Interrupt::install()?;
    let path = args.out.clone().unwrap_or_else(|| default_folder(&recipe, args));
    config.data = config.data.of_run(&path, &images);
    let begun_before = RunFolder::is_there(&path);
    let (folder, mut trainer) = take_up(&path, config, &images, device, &interrupt)?;
    args.machine.say_why_no_gpu()?;
    trainer.pause_at = args.pause_at;
    if !args.quiet {
        train::announce(&mut trainer, &images, &folder);
    }
    let mut progress = Progress::new(folder.clone(), train::alarm(trainer.config(), &images), args.quiet);
    let outcome = trainer.run(&mut progress, interrupt.save());
    progress.finish();
    // A run that was there before this call is never removed.
    let unused = |_: &Error| {
        if !begun_before {
            folder.discard_if_unused()
        }
    };
    if outcome.inspect_err(unused)? == Outcome::Stopped {
        folder.write_checkpoint(&trainer)?;
        super::print(&format!("stopped; the same command continues the run in {}\n", folder.path().display()))?;
        return Ok(ExitCode::from(if interrupt.raised() { INTERRUPTED } else { 0 }));
    }
    folder.write_checkpoint(&trainer)?;
    interrupt.end_at_once(&format!(
        "stopped during the evaluation; the training in {} is finished and saved, and the same command evaluates it",
        folder.path().display()
    ));
    trainer.model().watch = phase::watch(args.quiet);
    let report = evaluate(args, recipe, own_images, &mut trainer, &folder)?;
    let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
    let file = folder.file("reproduction.json");
    replace(&file, |out| writeln!(out, "{text}"))?;
    super::print(&format!("{report}written to {}\n", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// `runs/reproduce-NAME`, with the protocol where another than the usual one is followed.
fn default_folder(recipe: &Recipe, args: &Options) -> PathBuf {
    let protocol = args.protocol.as_ref().filter(|p| recipe.protocol.as_ref() != Some(p));
    let protocol = protocol.map_or(String::new(), |p| format!("-{p}"));
    Path::new("runs").join(format!("reproduce-{}{protocol}", recipe.name))
}

fn configuration(
    args: &Options,
    recipe: &Recipe,
    images: &Splits,
    matches: &ArgMatches,
    parse: Parse,
) -> Result<TrainConfig> {
    let own = args.data.data.is_some();
    let options = recipe.arguments(args.protocol.as_deref(), args.stages, own, matches)?;
    let arguments = std::iter::once("train".to_string()).chain(options).map(OsString::from).collect();
    let mut train = parse(arguments).map_err(|message| Error::File {
        path: recipe.path().into(),
        field: recipe.an_option(),
        found: message,
        expected: "a value that `elbo train` takes".into(),
        remedy: "correct the file; docs/recipes.md describes the format".into(),
    })?;
    (train.data, train.seed) = (args.data.clone(), args.seed);
    train.config(images)
}

/// The run in the folder, if it is one of this configuration, or a new one.
fn take_up(
    path: &Path,
    config: TrainConfig,
    images: &Splits,
    device: Device,
    interrupt: &Interrupt,
) -> Result<(RunFolder, Trainer)> {
    if !RunFolder::is_there(path) {
        let trainer = Trainer::new(config, images, device)?;
        // The folder must be left so that it can be taken up.
        interrupt.save();
        let folder = RunFolder::create(path)?;
        folder.begin(&trainer)?;
        return Ok((folder, trainer));
    }
    let (folder, mut checkpoint) = RunFolder::open(path)?;
    same_run(path, &checkpoint, &config)?;
    checkpoint.config = config;
    let trainer = Trainer::resume(&checkpoint, images, device)?;
    folder.rewind(checkpoint.progress.epoch)?;
    folder.write_config(trainer.config())?;
    Ok((folder, trainer))
}

/// Refuses to continue a run of another configuration, or one that is further. Epochs may differ, and the path of the data.
fn same_run(path: &Path, found: &Checkpoint, wanted: &TrainConfig) -> Result<()> {
    let fields = |config: &TrainConfig| {
        let json = serde_json::to_value(config).expect("a configuration is plain data");
        json.as_object().expect("with names").clone()
    };
    let (a, b) = (fields(&found.config), fields(wanted));
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let same_images = found.config.data.may_be(&wanted.data);
    let differs = |name: &str| a.get(name) != b.get(name) && name != "epochs" && !(name == "data" && same_images);
    let different: Vec<&str> = names.into_iter().map(String::as_str).filter(|name| differs(name)).collect();
    if !different.is_empty() {
        return Err(Error::File {
            path: path.into(),
            field: different.join(", "),
            found: "a run with another value".into(),
            expected: "a run of this recipe, protocol and seed".into(),
            remedy: "choose another --out".into(),
        });
    }
    let done = found.progress.epoch;
    if done > wanted.epochs {
        let expected = format!(
            "enough stages for the {} that the run in {} has done",
            plural(done as usize, "epoch"),
            path.display()
        );
        return Err(Error::argument("stages", plural(wanted.epochs as usize, "epoch"), expected));
    }
    Ok(())
}

fn evaluate(
    args: &Options,
    recipe: Recipe,
    own_images: bool,
    trainer: &mut Trainer,
    folder: &RunFolder,
) -> Result<Report> {
    let config = trainer.config().clone();
    let Evaluation { images, rec, kl } = trainer.evaluate()?;
    let test = Terms { images, neg_elbo: rec + kl, rec, kl };
    let model = trainer.model();
    let timed = Instant::now();
    let samples = args.nll_samples.unwrap_or(recipe.evaluation.nll_samples);
    let wanted = args.nll_images.unwrap_or(recipe.evaluation.nll_images);
    let nll = match samples {
        0 => None,
        k => Some(evidence::nll(model, TEST, wanted.min(images), k, config.seed)?),
    };
    let nll_seconds = timed.elapsed().as_secs_f64();
    let timed = Instant::now();
    let active_unit_images = recipe.evaluation.active_unit_images.clamp(1, model.rows(TRAIN)?);
    let layers = model.encode_layers(TRAIN, active_unit_images, config.seed)?;
    let active_units = layers.iter().map(|e| Active { active: e.active_units(), of: e.latent }).collect();
    let active_seconds = timed.elapsed().as_secs_f64();
    let device = model.exec.describe();
    let (training, test_after_each_epoch) = journal(folder)?;
    let value = match (recipe.expected.metric, &nll) {
        (Metric::Nll, Some(nll)) => nll.nll,
        _ => test.neg_elbo,
    };
    let (stages, protocol) = (args.stages.unwrap_or(recipe.stages()), recipe.protocol(args.protocol.as_deref())?);
    let as_published = samples == recipe.evaluation.nll_samples && wanted == recipe.evaluation.nll_images;
    let usual = as_published || recipe.expected.metric == Metric::NegElbo;
    let whole = stages == recipe.stages() && own_images && usual;
    let within = recipe.expected.value.filter(|_| whole).map(|e| (value - e).abs() <= recipe.expected.band);
    Ok(Report {
        format: "elbo reproduction 1",
        protocol: protocol.map(|(name, _)| name.to_string()),
        stages,
        epochs: config.epochs,
        own_images,
        config,
        device,
        build: env!("ELBO_BUILD"),
        test,
        nll,
        active_units,
        active_unit_images,
        value,
        within,
        seconds: Seconds { training, test_after_each_epoch, nll: nll_seconds, active_units: active_seconds },
        recipe,
    })
}

/// Seconds of training and of the tests between, over all epochs of the run.
fn journal(folder: &RunFolder) -> Result<(f64, f64)> {
    let path = folder.file("timing.jsonl");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let lines: Vec<EpochTiming> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok((lines.iter().map(|t| t.train_seconds).sum(), lines.iter().map(|t| t.test_seconds).sum()))
}
