//! `elbo sweep`, and the replicas of `elbo train`.

mod result;
mod vary;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Id, ValueHint};

use super::answer::Answer;
use super::interrupt::Interrupt;
use super::options::{self, Data, Machine, Overrides, RunOptions, Session};
use super::run_name::run_name;
use super::{ranks, train, warn_if_debug_build};
use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::engine::file::Disk;
use crate::train::ranks::Ranks;
use crate::train::sweep::SweptRun;
use crate::train::{Experiment, Source};
use vary::VariedOption;
pub(super) use work::Work;

/// Where a sweep is begun, unless another folder is asked for.
const PARENT: &str = "runs";

/// Train every combination of some values, each with several seeds
///
/// As many runs at the same time as there are cores, each on its share of them. Each is a run in a folder of its own, with the bytes
/// that it would have alone. The result is, for every combination, mean and standard deviation over the seeds. A sweep that was
/// stopped goes on with --resume; several processes may work on one. Under mpirun each process trains its share of the runs.
#[derive(Args)]
pub struct Sweep {
    /// Values to try of an option of `elbo train`, as in lr=1e-3,3e-4; may be given again for another option
    ///
    /// Values with commas in them are parted by semicolons: 'hidden=400;200,100'.
    #[arg(long, value_name = "OPTION=V,V…", required_unless_present_any = ["replicas", "resume"])]
    pub vary: Vec<VariedOption>,
    /// Runs of each combination, with the seeds SEED, SEED + 1, … [default: 1]
    #[arg(long, value_name = "R")]
    pub replicas: Option<u32>,
    #[command(flatten)]
    pub begin: RunOptions,
    /// Train so many runs at the same time [default: one per core, on a GPU 8, which share launches]
    #[arg(long, value_name = "N", help_heading = "Device")]
    pub jobs: Option<usize>,
    #[command(flatten)]
    pub machine: Machine,
    /// Folder of the sweep, new or empty [default: a fresh one under runs/]
    #[arg(long, short, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Go on with the sweep in this folder: finished runs are left as they are, others taken up or begun
    #[arg(long, value_name = "FOLDER", conflicts_with_all = answered_by_the_sweep(), value_hint = ValueHint::DirPath)]
    #[arg(help_heading = "Output")]
    pub resume: Option<PathBuf>,
    #[command(flatten)]
    pub session: Session,
    #[command(flatten)]
    pub answer: Answer,
}

/// The options that a sweep's file answers: all that begin one, but for the place of the images.
fn answered_by_the_sweep() -> impl Iterator<Item = Id> {
    let configuration = options::ids::<Overrides<Experiment>>().chain(options::ids::<Data>());
    let own = ["vary", "replicas", "seed", "recipe", "protocol", "stages", "epochs", "out"];
    configuration.filter(|id| id != "data").chain(own.map(Id::from))
}

impl Sweep {
    /// Trains all runs, or those that are left; prints mean and spread.
    pub fn run(&self) -> Result<ExitCode> {
        let work = Work { machine: &self.machine, session: &self.session, answer: &self.answer, jobs: self.jobs };
        ranks::together(|ranks| match &self.resume {
            Some(path) => resume(path, self.begin.data.data.as_ref(), &work, ranks.as_deref()),
            None => {
                let design = Design { begin: &self.begin, vary: &self.vary, replicas: self.replicas.unwrap_or(1) };
                design.train(self.out.as_deref(), &work, ranks.as_deref())
            }
        })
    }
}

/// What a sweep is to consist of.
pub(super) struct Design<'a> {
    pub begin: &'a RunOptions,
    pub vary: &'a [VariedOption],
    pub replicas: u32,
}

impl Design<'_> {
    /// Begins the sweep in `out`, or in a new folder, and trains it. Of several ranks the first begins it, and the others find
    /// it there.
    ///
    /// # Errors
    /// [`Error::Argument`] before anything is written; [`Error::Occupied`]; [`Error::Io`].
    pub fn train(&self, out: Option<&Path>, work: &Work<'_>, ranks: Option<&dyn Ranks>) -> Result<ExitCode> {
        if let Some(ranks) = ranks.filter(|ranks| ranks.rank() > 0) {
            let path = String::from_utf8_lossy(&ranks.broadcast(Vec::new())).into_owned();
            return resume(Path::new(&path), None, work, Some(ranks));
        }
        warn_if_debug_build();
        let interrupt = Interrupt::install()?;
        let data = self.begin.data.source().load()?;
        let sweep = self.sweep(&data)?;
        let device = work.device()?;
        let path = match out {
            Some(path) => path.to_path_buf(),
            None => crate::train::sweep::Sweep::next_folder(&Disk, Path::new(PARENT), &self.label()?),
        };
        let told = path.to_str().filter(|_| ranks.is_some()).map(|text| text.as_bytes().to_vec());
        if ranks.is_some() && told.is_none() {
            return Err(Error::argument("out", path.display(), "a path in UTF-8, in which ranks tell it each other"));
        }
        let sweep = sweep.begin(&Disk, &path, &data)?;
        if let (Some(ranks), Some(told)) = (ranks, told) {
            ranks.broadcast(told);
            must_be_the_same(&sweep, &path, ranks)?;
        }
        work.train(&sweep, &path, &data, device, &interrupt, ranks)
    }

    /// Every combination with every seed, the last option varying fastest but for the seed.
    fn sweep(&self, data: &Splits) -> Result<crate::train::sweep::Sweep> {
        if self.replicas == 0 {
            return Err(Error::argument("replicas", 0, "at least 1"));
        }
        let varied: Vec<String> = self.vary.iter().map(|axis| axis.option.clone()).collect();
        let combinations = vary::combinations(self.vary);
        let labels = vary::labels(&varied, &combinations);
        let mut runs = Vec::new();
        for (values, label) in combinations.into_iter().zip(labels) {
            let asked = vary::experiment(self.begin, &varied, &values, self.replicas)?;
            for replica in 0..u64::from(self.replicas) {
                let mut config = asked.on([data.test.height, data.test.width], data.train.rows)?;
                let seed = config.seed.checked_add(replica);
                config.seed =
                    seed.ok_or_else(|| Error::argument("seed", config.seed, "room for the replicas' seeds"))?;
                let folder = match &label[..] {
                    "" => format!("seed{}", config.seed),
                    label => format!("{label}-seed{}", config.seed),
                };
                runs.push(SweptRun { folder, values: values.clone(), config });
            }
        }
        Ok(crate::train::sweep::Sweep { varied, runs })
    }

    /// `sweep-lr-latent`; of replicas alone the name of the run, and how many.
    fn label(&self) -> Result<String> {
        if self.vary.is_empty() {
            let mut config = self.begin.experiment()?.config;
            config.seed = 1;
            return Ok(format!("{}-seeds{}", run_name(&config), self.replicas));
        }
        let options: Vec<&str> = self.vary.iter().map(|axis| &axis.option[..]).collect();
        Ok(format!("sweep-{}", options.join("-")))
    }
}

/// Of several ranks: refuses to work on another sweep than rank 0.
///
/// # Errors
/// [`Error::File`] when that is what this rank has found in the folder.
fn must_be_the_same(sweep: &crate::train::sweep::Sweep, path: &Path, ranks: &dyn Ranks) -> Result<()> {
    let own = serde_json::to_vec(sweep).expect("a sweep is plain data");
    if ranks.broadcast(own.clone()) == own {
        return Ok(());
    }
    Err(Error::File {
        path: path.into(),
        field: "sweep".into(),
        found: "another one than rank 0 has there".into(),
        expected: "one folder that all ranks see".into(),
        remedy: "use a folder on a file system that the machines share".into(),
    })
}

/// Goes on with the sweep in a folder.
fn resume(path: &Path, elsewhere: Option<&PathBuf>, work: &Work<'_>, ranks: Option<&dyn Ranks>) -> Result<ExitCode> {
    if ranks.is_none_or(|ranks| ranks.rank() == 0) {
        warn_if_debug_build();
    }
    let interrupt = Interrupt::install()?;
    let mut sweep = crate::train::sweep::Sweep::read(&Disk, path)?;
    if let Some(ranks) = ranks {
        must_be_the_same(&sweep, path, ranks)?;
    }
    let first = path.join(&sweep.runs[0].folder);
    let data = train::images(&first, elsewhere, &mut sweep.runs[0].config)?;
    for run in &mut sweep.runs[1..] {
        if let (Some(place), Source::Folder { images, .. }) = (elsewhere, &run.config.data) {
            let source = Source::Folder { path: place.clone(), images: images.clone() };
            run.config.data = source.of_run(&path.join(&run.folder), &data);
        }
    }
    let device = work.device()?;
    work.train(&sweep, path, &data, device, &interrupt, ranks)
}
