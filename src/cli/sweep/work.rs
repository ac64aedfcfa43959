//! The work of a sweep: its runs, several at a time.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::result::SweepResult;
use crate::cli::answer::Answer;
use crate::cli::board::Board;
use crate::cli::interrupt::{INTERRUPTED, Interrupt};
use crate::cli::options::{Machine, Session};
use crate::cli::{pictures, plural, progress, say};
use crate::data::Splits;
use crate::engine::device::{Device, Ensemble, Sharing};
use crate::engine::error::{Error, Result};
use crate::engine::file::Disk;
use crate::train::ranks::{Ranks, gather_tasks, own_tasks};
use crate::train::sweep::{Sweep, SweptRun, in_parallel};
use crate::train::{
    Alarm, Entry, EpochRecord, EpochTiming, Observer, Outcome, Run, StepRecord, StepReport, Trainer, quoted,
};

/// Runs at the same time on a GPU, unless other is asked for: with more, steps of the usual size fill it.
const ON_A_GPU: usize = 8;

/// How a sweep is trained and told of.
pub(crate) struct Work<'a> {
    pub machine: &'a Machine,
    pub session: &'a Session,
    pub answer: &'a Answer,
    /// Runs at the same time, if that was asked for.
    pub jobs: Option<usize>,
}

/// How a run ended.
#[derive(Serialize, Deserialize)]
pub(super) enum RunEnd {
    /// All of its epochs are done, and its pictures are drawn.
    Finished,
    /// It was asked to stop, or never began because of that.
    Stopped,
    /// Another process trains it.
    Elsewhere,
    /// It did not, and why.
    Failed(String),
}

impl Work<'_> {
    /// The device that is asked for.
    ///
    /// # Errors
    /// [`Error::Argument`] also when no runs are to be trained at the same time, or more than a GPU takes.
    pub fn device(&self) -> Result<Device> {
        let most = Ensemble::MOST_ON_A_GPU;
        match (self.jobs, self.machine.device()?) {
            (Some(0), _) => Err(Error::argument("jobs", 0, "at least 1")),
            (Some(jobs), Device::Cuda { .. }) if jobs > most => {
                Err(Error::argument("jobs", jobs, format!("at most {most} on a GPU")))
            }
            (_, device) => Ok(device),
        }
    }

    /// Trains what is left of a sweep, and gives the result of all of it. Of several ranks each trains its share, and the first
    /// gives the result.
    ///
    /// # Errors
    /// Of what concerns all runs. A run that fails does not end the others; the exit code tells.
    pub fn train(
        &self,
        sweep: &Sweep,
        path: &Path,
        data: &Splits,
        device: Device,
        interrupt: &Interrupt,
        ranks: Option<&dyn Ranks>,
    ) -> Result<ExitCode> {
        let count = sweep.runs.len();
        let own = own_tasks(ranks, count);
        let (jobs, device) = self.shared(device, own.len());
        let ensemble = Ensemble::new(device, jobs)?;
        let rank = ranks.map_or(0, |ranks| ranks.rank());
        let show = SweepDisplay::new(self.session.quiet, own.iter().map(|&i| &sweep.runs[i]), data, rank);
        if rank == 0 {
            self.machine.say_why_no_gpu()?;
        }
        if rank == 0 && !self.session.quiet {
            let each = match device {
                Device::Cpu { threads } | Device::Tiles { threads, .. } => {
                    format!("each on {}", plural(threads, "thread"))
                }
                Device::Cuda { .. } if jobs > 1 => "on one GPU, where those of one kind share launches".into(),
                Device::Cuda { .. } => "on one GPU".into(),
            };
            let of_ranks = ranks.map_or(String::new(), |ranks| format!(" on each of {}", plural(ranks.size(), "rank")));
            let runs = plural(count, "run");
            say(format_args!("{runs}, up to {jobs} at the same time{of_ranks}, {each}: {}", path.display()));
        }
        let stop = if rank == 0 { interrupt.save() } else { interrupt.follow() };
        let started = Instant::now();
        let ends = in_parallel(own.len(), jobs, |i| {
            if stop.load(Ordering::Relaxed) {
                return RunEnd::Stopped;
            }
            let run = &sweep.runs[own[i]];
            let end = self.one(path, run, data, &ensemble, stop, &show).unwrap_or_else(|error| match error {
                Error::Locked { .. } => RunEnd::Elsewhere,
                // Begun by another process between two looks at it.
                Error::Occupied { .. } if Run::is_there(&path.join(&run.folder)) => RunEnd::Elsewhere,
                error => RunEnd::Failed(error.to_string()),
            });
            if let RunEnd::Failed(error) = &end {
                show.line(&format!("{} failed: {error}", run.folder));
            }
            end
        });
        show.clear();
        if let Some(Sharing { runs, launched }) = ensemble.sharing().filter(|_| !self.session.quiet) {
            let mean = runs as f64 / launched.max(1) as f64;
            say(format_args!("launches shared by {mean:.1} models on average"));
        }
        let ends = gather_tasks(ranks, count, ends)?;
        if rank > 0 {
            return Ok(ExitCode::SUCCESS);
        }
        self.conclude(sweep, path, &ends, started.elapsed().as_secs_f64(), interrupt)
    }

    /// How many runs at the same time, and on what each: cores are shared out, and the numbers do not depend on how.
    fn shared(&self, device: Device, runs: usize) -> (usize, Device) {
        let (Device::Cpu { threads } | Device::Tiles { threads, .. }) = device else {
            return (self.jobs.unwrap_or(ON_A_GPU).min(runs).max(1), device);
        };
        let cores = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let jobs = self.jobs.unwrap_or(cores).min(runs).max(1);
        let threads = (cores / jobs).max(1);
        let each = match device {
            Device::Tiles { precision, .. } => Device::Tiles { threads, precision },
            _ => Device::Cpu { threads },
        };
        (jobs, each)
    }

    /// Trains one run, from its beginning or from where it is.
    fn one(
        &self,
        path: &Path,
        wanted: &SweptRun,
        data: &Splits,
        ensemble: &Ensemble,
        stop: &AtomicBool,
        show: &SweepDisplay,
    ) -> Result<RunEnd> {
        let entry = Entry::at(Disk, &path.join(&wanted.folder))?;
        if let Some(there) = entry.checkpoint() {
            let other = there.config.differences(&wanted.config).into_iter().find(|d| !d.field.starts_with("data."));
            if let Some(other) = other {
                return Err(Error::File {
                    path: entry.path().into(),
                    field: other.field,
                    found: other.first.to_string(),
                    expected: format!("{}, as the sweep says", other.second),
                    remedy: "move the run elsewhere, and go on with the sweep".into(),
                });
            }
            let drawn = pictures::names(&there.config.model).into_iter().all(|name| entry.has(name));
            show.already(there.progress.epoch as usize, there.progress.cursor as usize);
            if there.progress.epoch == wanted.config.epochs && drawn {
                show.finished.fetch_add(1, Ordering::Relaxed);
                return Ok(RunEnd::Finished);
            }
        }
        let started = Instant::now();
        let (run, mut trainer) = entry.start_on(wanted.config.clone(), data, ensemble.open()?)?;
        trainer.pause_at = self.session.pause_at;
        let mut observer = SweptObserver {
            name: &wanted.folder,
            board: self.session.board(&run, &trainer),
            alarm: progress::alarm(&trainer, data),
            steps: Vec::new(),
            done: trainer.progress().cursor as usize,
            last: None,
            show,
        };
        if progress::observed(&run, &mut trainer, &mut observer, stop)? == Outcome::Stopped {
            return Ok(RunEnd::Stopped);
        }
        let last = observer.last.take();
        pictures::write_all(trainer.model(), &data.test, wanted.config.seed, &run)?;
        show.finish(&wanted.folder, last.as_ref(), started.elapsed().as_secs_f64());
        Ok(RunEnd::Finished)
    }

    fn conclude(
        &self,
        sweep: &Sweep,
        path: &Path,
        ends: &[RunEnd],
        seconds: f64,
        interrupt: &Interrupt,
    ) -> Result<ExitCode> {
        let result = SweepResult::read(sweep, path, ends)?;
        let typed = quoted(&path.display().to_string());
        let mut text = result.text();
        let failed = ends.iter().filter(|end| matches!(end, RunEnd::Failed(_))).count();
        let left = ends.iter().filter(|end| matches!(end, RunEnd::Stopped)).count();
        let elsewhere = ends.iter().filter(|end| matches!(end, RunEnd::Elsewhere)).count();
        if elsewhere > 0 {
            text += &format!("{} at work in other processes\n", plural(elsewhere, "run"));
        }
        let outcome = match (failed, left) {
            (0, 0) => "finished",
            (0, _) => "stopped",
            _ => "failed",
        };
        text += &match outcome {
            "finished" => format!(
                "{}, {seconds:.1} s in this session; side by side: elbo report {typed}\n",
                plural(ends.len(), "run")
            ),
            "stopped" => {
                format!("stopped with {} left; continue with: elbo sweep --resume {typed}\n", plural(left, "run"))
            }
            _ => format!("{} failed, see above; the others are in {typed}\n", plural(failed, "run")),
        };
        let mut report = result.report();
        (report["outcome"], report["sweep"], report["seconds"]) = (outcome.into(), json!(path), json!(seconds));
        self.answer.give(&text, &report)?;
        Ok(match outcome {
            "failed" => ExitCode::FAILURE,
            "stopped" if interrupt.raised() => ExitCode::from(INTERRUPTED),
            _ => ExitCode::SUCCESS,
        })
    }
}

/// Shows on stderr how far the sweep is: a bar on a terminal, and a line for each run that ends.
struct SweepDisplay {
    quiet: bool,
    /// Whose runs these are: those of rank 0 have a bar, if they are shown on a terminal.
    rank: usize,
    bar: Option<ProgressBar>,
    runs: usize,
    /// Images of an epoch, the same in most runs: what the bar counts.
    images: usize,
    finished: AtomicUsize,
}

impl SweepDisplay {
    fn new<'a>(
        quiet: bool,
        runs: impl ExactSizeIterator<Item = &'a SweptRun>,
        data: &Splits,
        rank: usize,
    ) -> SweepDisplay {
        let (images, count) = (data.train.rows, runs.len());
        let bar = (!quiet && rank == 0 && std::io::stderr().is_terminal()).then(|| {
            let all: usize = runs.map(|run| run.config.epochs as usize * images).sum();
            let bar = ProgressBar::new(all as u64);
            let style = "{bar:20.cyan/blue} {percent} %  {per_sec} images  {eta} left";
            bar.set_style(ProgressStyle::with_template(style).expect("the template is constant").progress_chars("━╸ "));
            bar
        });
        SweepDisplay { quiet, rank, bar, runs: count, images, finished: AtomicUsize::new(0) }
    }

    /// A run has learned from more images.
    fn advance(&self, images: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(images as u64);
        }
    }

    /// A run was so far before this session.
    fn already(&self, epochs: usize, images: usize) {
        if let Some(bar) = &self.bar {
            bar.inc((epochs * self.images + images) as u64);
            bar.reset_eta();
        }
    }

    fn line(&self, line: &str) {
        match (&self.bar, self.rank) {
            (Some(bar), _) => bar.println(line),
            (None, 0) => say(line),
            (None, rank) => say(format_args!("rank {rank}: {line}")),
        }
    }

    fn finish(&self, name: &str, last: Option<&EpochRecord>, seconds: f64) {
        let finished = self.finished.fetch_add(1, Ordering::Relaxed) + 1;
        if self.quiet {
            return;
        }
        let nats = last.map_or(String::new(), |r| {
            format!("  test −ELBO {:.2} = rec {:.2} + KL {:.2}", r.test_neg_elbo, r.test_rec, r.test_kl)
        });
        self.line(&format!("{finished} of {}: {name}{nats}, {seconds:.1} s", self.runs));
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What is heard of one run of a sweep.
struct SweptObserver<'a> {
    name: &'a str,
    board: Option<Board>,
    alarm: Alarm,
    /// Of the epoch that is about to be reported.
    steps: Vec<StepRecord>,
    /// Images of the epoch that the bar has counted.
    done: usize,
    last: Option<EpochRecord>,
    show: &'a SweepDisplay,
}

impl Observer for SweptObserver<'_> {
    fn step(&mut self, report: &StepReport) {
        self.show.advance(report.images.saturating_sub(self.done));
        self.done = report.images;
    }

    fn intervals(&mut self, steps: &[StepRecord]) -> Result<()> {
        self.steps = steps.to_vec();
        Ok(())
    }

    fn epoch(&mut self, _: &Trainer, record: &EpochRecord, timing: &EpochTiming) -> Result<()> {
        self.show.advance(self.show.images.saturating_sub(self.done));
        self.done = 0;
        for warning in self.alarm.check(record) {
            self.show.line(&format!("{}: {}", self.name, progress::warned(&warning)));
        }
        self.last = Some(record.clone());
        self.board.as_mut().map_or(Ok(()), |board| board.epoch(record, timing, &self.steps))
    }
}
