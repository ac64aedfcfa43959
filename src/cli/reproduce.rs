//! `elbo reproduce`: a published experiment, run and set beside the published numbers.

mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueHint};
use serde_json::json;

use super::answer::Answer;
use super::interrupt::{INTERRUPTED, Interrupt};
use super::options::{Data, Machine, Session};
use super::recipe::{Metric, Recipe};
use super::{phase, plural, progress, train};
use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::engine::file::Disk;
use crate::study::evidence;
use crate::train::checkpoint::Checkpoint;
use crate::train::{Entry, Outcome, Run, TEST, TRAIN, TrainConfig, Trainer};
use crate::vae::Evaluation;
use report::{Active, ReproductionReport, Seconds, TermsRecord};

/// Run a published experiment; set the result beside its numbers
///
/// A run of it that is there is taken up.
#[derive(Args)]
pub struct Reproduce {
    /// A name of `elbo recipes`, or a file FILE.toml
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: String,
    /// Which of the recipe's protocols to follow, where code and paper differ [default: as the recipe says]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub protocol: Option<String>,
    /// The first N stages of the recipe's schedule only [default: all]; more can be asked for later
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub stages: Option<usize>,
    /// Seed of initial values, shuffling and noise: equal seeds give equal bytes
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Run folder; a run of the same recipe and seed in it is continued [default: runs/reproduce-NAME]
    #[arg(long, short, help_heading = "Output", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Importance samples per image of the estimate of log p(x), 0 for none [default: as the recipe says]
    #[arg(long, value_name = "K")]
    pub nll_samples: Option<usize>,
    /// Test images of that estimate, from the first on [default: as the recipe says]
    #[arg(long, value_name = "N")]
    pub nll_images: Option<usize>,
    #[command(flatten)]
    pub answer: Answer,
    #[command(flatten)]
    pub session: Session,
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub machine: Machine,
}

impl Reproduce {
    /// Trains as the recipe says, or goes on where the folder's run stopped; evaluates; compares.
    pub fn run(&self) -> Result<ExitCode> {
        reproduce(self)
    }
}

fn reproduce(args: &Reproduce) -> Result<ExitCode> {
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
    let mut config = configuration(args, &recipe, &images)?;
    let interrupt = Interrupt::install()?;
    let path = args.out.clone().unwrap_or_else(|| default_folder(&recipe, args));
    config.data = config.data.of_run(&path, &images);
    let entry = Entry::at(Disk, &path)?;
    entry.checkpoint().map_or(Ok(()), |there| same_run(&path, there, &config))?;
    // From here on there is a folder that must be left so that it can be taken up.
    let stop = interrupt.save();
    let (run, mut trainer) = entry.start(config, &images, device)?;
    args.machine.say_why_no_gpu()?;
    trainer.pause_at = args.session.pause_at;
    if !args.session.quiet {
        train::announce(&mut trainer, &images, &run);
    }
    let mut board = args.session.board(&run, &trainer);
    if progress::train(&run, &mut trainer, &images, args.session.quiet, board.as_mut(), stop)? == Outcome::Stopped {
        let text = format!("stopped; the same command continues the run in {}\n", run.path().display());
        args.answer.give(&text, &json!({ "outcome": "stopped", "run": run.path() }))?;
        return Ok(ExitCode::from(if interrupt.raised() { INTERRUPTED } else { 0 }));
    }
    interrupt.end_at_once(&format!(
        "stopped during the evaluation; the training in {} is finished and saved, and the same command evaluates it",
        run.path().display()
    ));
    trainer.model().watch = phase::watch(args.session.quiet);
    let report = evaluate(args, recipe, own_images, &mut trainer, &run)?;
    let text = serde_json::to_string_pretty(&report).expect("a report is plain data") + "\n";
    let file = run.write("reproduction.json", text.as_bytes())?;
    args.answer.give(&format!("{report}written to {}\n", file.display()), &report)?;
    Ok(ExitCode::SUCCESS)
}

/// `runs/reproduce-NAME`, with the protocol where another than the usual one is followed.
fn default_folder(recipe: &Recipe, args: &Reproduce) -> PathBuf {
    let protocol = args.protocol.as_ref().filter(|p| recipe.protocol.as_ref() != Some(p));
    let protocol = protocol.map_or(String::new(), |p| format!("-{p}"));
    Path::new("runs").join(format!("reproduce-{}{protocol}", recipe.name))
}

/// The recipe's run on these images.
fn configuration(args: &Reproduce, recipe: &Recipe, images: &Splits) -> Result<TrainConfig> {
    let mut asked = recipe.experiment(args.protocol.as_deref(), args.stages, args.data.data.is_some())?;
    (asked.config.data, asked.config.seed) = (args.data.source(), args.seed);
    asked.on([images.test.height, images.test.width], images.train.rows)
}

/// Refuses to continue a run of another configuration, or one that is further. Epochs may differ, and the path of the data.
fn same_run(path: &Path, found: &Checkpoint, wanted: &TrainConfig) -> Result<()> {
    let same_images = found.config.data.may_be(&wanted.data);
    let may_differ = |field: &str| field == "epochs" || (field.starts_with("data.") && same_images);
    let different = found.config.differences(wanted).into_iter().map(|d| d.field);
    let different: Vec<String> = different.filter(|field| !may_differ(field)).collect();
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
    args: &Reproduce,
    recipe: Recipe,
    own_images: bool,
    trainer: &mut Trainer,
    run: &Run,
) -> Result<ReproductionReport> {
    let config = trainer.config().clone();
    // Before the work of hours that it would be lost with.
    let timings = run.timings()?;
    let Evaluation { images, rec, kl } = trainer.evaluate()?;
    let test = TermsRecord { images, neg_elbo: rec + kl, rec, kl };
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
    let device = model.executor.describe();
    let training = timings.iter().map(|t| t.train_seconds).sum();
    let test_after_each_epoch = timings.iter().map(|t| t.test_seconds).sum();
    let value = match (recipe.expected.metric, &nll) {
        (Metric::Nll, Some(nll)) => nll.nll,
        _ => test.neg_elbo,
    };
    let (stages, protocol) = (args.stages.unwrap_or(recipe.stages()), recipe.protocol(args.protocol.as_deref())?);
    let as_published = samples == recipe.evaluation.nll_samples && wanted == recipe.evaluation.nll_images;
    let usual = as_published || recipe.expected.metric == Metric::NegElbo;
    let whole = stages == recipe.stages() && own_images && usual;
    let within = recipe.expected.value.filter(|_| whole).map(|e| (value - e).abs() <= recipe.expected.band);
    Ok(ReproductionReport {
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
