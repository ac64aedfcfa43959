//! `elbo report`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::json;

use super::answer::Answer;
use super::options::Machine;
use super::output::{self, ending};
use super::pictures::Shown;
use super::{pictures, plural, use_run};
use crate::data::Splits;
use crate::engine::device::Device;
use crate::engine::error::{Error, Result};
use crate::engine::file::Disk;
use crate::study::report::{DrawnImages, JudgedRun, ReportedRun, page};
use crate::train::checkpoint::Checkpoint;
use crate::train::sweep::Sweep;
use crate::train::{Journals, Run, WATCHED_IMAGES};
use crate::vae::DeviceVae;

/// Runs on one page: more have no room side by side.
const MOST: usize = 12;
/// Images of a sheet of samples.
const SAMPLES: usize = 100;
/// Images in which the dead units are counted, and their data slot.
const WATCHED: &str = "watched";

/// Write one HTML page about a run, or about several side by side
///
/// The page opens from disk and loads nothing: curves, the scale of the images, configuration, samples, reconstructions,
/// the plane of z, units in use, and the commands that made the run.
#[derive(Args)]
pub struct Report {
    /// Run folders, or checkpoint files; the folder of a sweep stands for all of its runs
    #[arg(value_name = "RUN", required = true, value_hint = ValueHint::AnyPath)]
    pub runs: Vec<PathBuf>,
    /// Page to write (HTML)
    #[arg(short, long, value_name = "FILE", default_value = "report.html", value_parser = ending("html"))]
    pub out: PathBuf,
    /// Folder with the images [default: those of each run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub answer: Answer,
}

impl Report {
    /// Looks into the runs and writes the page.
    pub fn run(&self) -> Result<()> {
        let runs = self.all_runs()?;
        if runs.len() > MOST {
            let expected = format!("at most {MOST} on one page: name some of them");
            return Err(Error::argument("run", plural(runs.len(), "run"), expected));
        }
        runs.iter().try_for_each(|run| output::spare_runs("out", &self.out, Some(run)))?;
        let device = self.machine.device()?;
        let names = names(&runs);
        let mut reported = Vec::new();
        for (path, name) in runs.iter().zip(names) {
            reported.push(self.look(path, name, device)?);
        }
        for run in &reported {
            if let Err(why) = &run.judged {
                super::say(format_args!("note: {} without what its images are needed for: {why}", run.name));
            }
        }
        page(&reported).write(&self.out)?;
        let text = format!("report of {}: {}\n", plural(reported.len(), "run"), self.out.display());
        let without: Vec<&str> =
            reported.iter().filter(|run| run.judged.is_err()).map(|run| run.name.as_str()).collect();
        self.answer.give(&text, &json!({ "page": self.out, "runs": runs, "without_images": without }))
    }

    /// The runs that are named, and those of sweeps that are; of a sweep those that have begun.
    fn all_runs(&self) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for path in &self.runs {
            if !Sweep::is_there(&Disk, path) {
                all.push(path.clone());
                continue;
            }
            let begun: Vec<_> =
                Sweep::read(&Disk, path)?.folders(path).into_iter().filter(|run| Run::is_there(run)).collect();
            if begun.is_empty() {
                let remedy = format!("{}, of which no run has begun", path.display());
                return Err(Error::argument("run", remedy, "a sweep with a run: elbo sweep --resume goes on with it"));
            }
            all.extend(begun);
        }
        Ok(all)
    }

    fn look(&self, path: &Path, name: String, device: Device) -> Result<ReportedRun> {
        let checkpoint = use_run::open(path)?;
        let journals = if path.is_file() { Journals::default() } else { Run::journals(path)? };
        let mut model = checkpoint.model(device)?;
        let seed = checkpoint.config.seed;
        let drawn = DrawnImages {
            samples: pictures::samples(&mut model, SAMPLES, seed, Shown::Mean)?.png(),
            manifold: match model.vae.config.latent {
                2 => Some(pictures::plane(&mut model)?.png()),
                _ => None,
            },
            ticks: [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0].map(|z| (z, pictures::normal_cdf(z))).to_vec(),
        };
        // A report is worth having without the images; what else fails, fails.
        let judged = match use_run::images(path, &checkpoint, &self.data) {
            Err(why) => Err(why.to_string()),
            Ok(data) => Ok(judge(&mut model, &checkpoint, &data)?),
        };
        let path = path.display().to_string();
        Ok(ReportedRun {
            name,
            path,
            config: checkpoint.config,
            progress: checkpoint.progress,
            journals,
            drawn,
            judged,
        })
    }
}

/// What the model makes of its test images.
fn judge(model: &mut DeviceVae, checkpoint: &Checkpoint, data: &Splits) -> Result<JudgedRun> {
    let (config, seed, test) = (&checkpoint.config.model, checkpoint.config.seed, &data.test);
    test.load_into(model, "test")?;
    test.first(WATCHED_IMAGES).load_into(model, WATCHED)?;
    let result = model.evaluate("test", seed)?;
    let histograms = test.prepared(config.binarisation).histograms();
    Ok(JudgedRun {
        data: test.name.clone(),
        result,
        bits: config.likelihood.bits_per_dimension(result.neg_elbo(), config.pixels(), config.is_binary()),
        marks: config.likelihood.baselines(&histograms),
        reconstructions: pictures::reconstructions(model, "test", pictures::PAIRS.min(test.rows), seed, Shown::Mean)?
            .png(),
        layers: match config.upper.is_empty() {
            true => vec![model.encode("test", seed)?],
            false => model.encode_layers("test", test.rows, seed)?,
        },
        dead: model.dead_units(WATCHED, seed)?,
        labels: test.labels.clone(),
    })
}

/// What runs are called: the names of their folders, where those differ, or else their paths.
fn names(runs: &[PathBuf]) -> Vec<String> {
    let short = |run: &PathBuf| {
        let last = run.file_name().or(run.parent().and_then(Path::file_name));
        last.map_or(run.display().to_string(), |name| name.to_string_lossy().into_owned())
    };
    let names: Vec<String> = runs.iter().map(short).collect();
    let alone = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let paths = runs.iter().map(|run| run.display().to_string());
    names.iter().zip(paths).map(|(name, path)| if alone(name) { name.clone() } else { path }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_called_by_their_folders_unless_two_are_alike() {
        let paths = ["a/001-x", "b/001-x", "002-y/", "."].map(PathBuf::from);
        assert_eq!(names(&paths), ["a/001-x", "b/001-x", "002-y", "."]);
    }
}
