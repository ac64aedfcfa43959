//! A run is one thing: a folder with its configuration, its journals, its checkpoint, its lock and its pictures.
//!
//! | file | what | written |
//! |---|---|---|
//! | `checkpoint.safetensors` | the [state](checkpoint) | replaced whole, after every epoch and at a stop |
//! | `metrics.jsonl` | an [`EpochRecord`] in a line | extended after every epoch, before the checkpoint |
//! | `timing.jsonl` | an [`EpochTiming`] in a line | beside it |
//! | `steps.jsonl` | the [`StepRecord`]s of an epoch, each in a line | beside it |
//! | `sessions.jsonl` | a [`SessionRecord`] in a line | when a command begins to train |
//! | `config.json` | the configuration, for people to read | when a session begins |
//! | `run.lock` | the number of the process that trains, and its lock | when a session begins |
//! | `*.png`, `reproduction.json` | what can be made again | at the end |
//!
//! # What a power cut leaves
//!
//! A run's folder is built under another name and renamed when its first checkpoint is in it: it can be taken up as soon as it
//! exists. The lines of an epoch are synced to the disk before the checkpoint that includes it is written, so that the
//! journals are never behind; where they are ahead, taking the run up cuts them off at the checkpoint. So whenever the power
//! fails, the run goes on to the same bytes as if nothing had happened. The tests let it fail at every moment. (One file does not
//! after a stop within an epoch: in `steps.jsonl` the first interval of the next session reaches back to the epoch's beginning.)
//!
//! # Who writes
//!
//! One process at a time. [`Entry`], the one way to begin a run or to take it up, locks the folder until its [`Run`] is dropped
//! or the process ends in any way. Those that only read need no lock: they see the last whole checkpoint.

pub mod checkpoint;
mod entry;
mod intervals;
mod journal;
#[cfg(test)]
mod power;
mod sessions;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use entry::Entry;
pub(super) use entry::next_numbered;
pub use sessions::SessionRecord;
pub(crate) use sessions::quoted;

use super::{EpochRecord, EpochTiming, Observer, Outcome, StepRecord, StepReport, TrainConfig, Trainer};
use crate::engine::error::{Error, Result};
use crate::engine::file::{Disk, Files, Lock};
use checkpoint::Checkpoint;
use intervals::Intervals;

const CHECKPOINT: &str = "checkpoint.safetensors";
const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";
const TIMING: &str = "timing.jsonl";
const STEPS: &str = "steps.jsonl";
const SESSIONS: &str = "sessions.jsonl";
const LOCK: &str = "run.lock";

/// What a line of `metrics.jsonl` is, and of `timing.jsonl`.
const EPOCH: &str = "the record of an epoch";
const TIMES: &str = "what an epoch took";

/// A run that this process writes: no other can meanwhile.
pub struct Run {
    files: Arc<dyn Files>,
    path: PathBuf,
    /// Whether it was there before.
    taken_up: bool,
    _lock: Lock,
}

impl Run {
    /// The files that a run is made of, as against pictures, which can be drawn again.
    pub const FILES: [&str; 8] = [CHECKPOINT, CONFIG, METRICS, TIMING, STEPS, SESSIONS, "reproduction.json", LOCK];

    /// Whether a run is in `path`.
    pub fn is_there(path: &Path) -> bool {
        Disk.exists(&path.join(CHECKPOINT))
    }

    /// Where the state of the run in `path` is.
    pub fn checkpoint_path(path: &Path) -> PathBuf {
        path.join(CHECKPOINT)
    }

    /// The state of the run in `path`, to be read only: nobody is kept from writing it.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; [`Error::File`] when `path` is a file.
    pub fn read(path: &Path) -> Result<Checkpoint> {
        must_be_a_folder(path)?;
        Checkpoint::load(&Run::checkpoint_path(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that was made of the run, such as a picture, and returns its path.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        self.files.replace(&path, bytes).map(|()| path)
    }

    /// Writes down which command trains from here on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn note_session(&self, session: &SessionRecord) -> Result<()> {
        self.files.extend(&self.path.join(SESSIONS), &journal::line(session))
    }

    /// The journals of the run in `path`, to be read only.
    ///
    /// # Errors
    /// [`Error::File`] naming the line that cannot be understood; [`Error::Io`].
    pub fn journals(path: &Path) -> Result<Journals> {
        let at = |name: &str| path.join(name);
        Ok(Journals {
            epochs: journal::read(&Disk, &at(METRICS), EPOCH)?,
            timings: journal::read(&Disk, &at(TIMING), TIMES)?,
            steps: journal::read(&Disk, &at(STEPS), "the means of an interval within an epoch")?,
            sessions: journal::read(&Disk, &at(SESSIONS), "the command of a session")?,
        })
    }

    /// Trains with [`Trainer::run`] and saves every epoch, and the state at the end, after `observer` has heard of it. A run that
    /// was begun by this [`Run`] and fails before anything was learned leaves no folder.
    ///
    /// # Errors
    /// As [`Trainer::run`]; [`Error::Io`] when something cannot be saved.
    pub fn train(&self, trainer: &mut Trainer, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        let outcome = trainer.run(&mut Saving { run: self, observer, intervals: Intervals::default() }, stop);
        let outcome = outcome.inspect_err(|_| self.discard_if_unused())?;
        self.save(&trainer.checkpoint()?)?;
        Ok(outcome)
    }

    /// The numbers of every epoch of the run in `path`, as its journal has them; none of one that has just begun.
    ///
    /// # Errors
    /// [`Error::File`] naming the line that cannot be understood; [`Error::Io`].
    pub fn records(path: &Path) -> Result<Vec<EpochRecord>> {
        journal::read(&Disk, &path.join(METRICS), EPOCH)
    }

    /// What the epochs of the run took, as its journal says.
    ///
    /// # Errors
    /// [`Error::File`] naming the line that cannot be understood; [`Error::Io`].
    pub fn timings(&self) -> Result<Vec<EpochTiming>> {
        journal::read(&*self.files, &self.path.join(TIMING), TIMES)
    }

    /// Locks a folder that is there.
    fn locked(files: Arc<dyn Files>, path: &Path, taken_up: bool) -> Result<Run> {
        let lock = path.join(LOCK);
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::WouldBlock => {
                let text = files.read(&lock).unwrap_or_default();
                let process = String::from_utf8_lossy(&text).trim().parse::<u32>();
                let process = process.map_or("another process".into(), |pid| format!("process {pid}"));
                let remedy = "wait until it ends or stop it, or choose another folder".into();
                Error::Locked { path: path.into(), by: process, remedy }
            }
            _ => Error::io("lock", &lock)(error),
        };
        let _lock = files.lock(&lock).map_err(failed)?;
        Ok(Run { files, path: path.into(), taken_up, _lock })
    }

    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.files.replace(&self.path.join(CHECKPOINT), &checkpoint.encode()?)
    }

    /// The journals first: they must not be behind the checkpoint.
    fn save_epoch(
        &self,
        record: &EpochRecord,
        timing: &EpochTiming,
        steps: &[StepRecord],
        checkpoint: &Checkpoint,
    ) -> Result<()> {
        self.files.extend(&self.path.join(METRICS), &journal::line(record))?;
        self.files.extend(&self.path.join(TIMING), &journal::line(timing))?;
        let steps: Vec<u8> = steps.iter().flat_map(journal::line).collect();
        self.files.extend(&self.path.join(STEPS), &steps)?;
        self.save(checkpoint)
    }

    /// Makes the folder agree with a checkpoint of `epochs` epochs: what a crash left beyond it is cut off.
    fn recover(&self, epochs: u32, config: &TrainConfig) -> Result<()> {
        for name in self.files.list(&self.path).map_err(Error::io("read", &self.path))? {
            if entry::is_temporary(&name) {
                let path = self.path.join(name);
                self.files.remove(&path).map_err(Error::io("remove", &path))?;
            }
        }
        for name in [METRICS, TIMING, STEPS, SESSIONS] {
            journal::cut(&*self.files, &self.path.join(name), epochs)?;
        }
        write_config(&*self.files, &self.path, config)
    }

    /// Removes a folder begun here of which nothing but the first state was saved. Files that are not the run's stay, and so
    /// does the folder then.
    fn discard_if_unused(&self) {
        let path = self.path.join(CHECKPOINT);
        let bytes = self.files.read(&path).unwrap_or_default();
        let unused = Checkpoint::decode(&path, &bytes).is_ok_and(|checkpoint| checkpoint.progress.updates == 0);
        if unused && !self.taken_up {
            entry::clear(&*self.files, &self.path);
        }
    }
}

/// All that is written down of a run's course.
#[derive(Clone, Debug, Default)]
pub struct Journals {
    /// A record for each epoch.
    pub epochs: Vec<EpochRecord>,
    /// What each took.
    pub timings: Vec<EpochTiming>,
    /// The means of intervals within the epochs; none of runs of older versions.
    pub steps: Vec<StepRecord>,
    /// The commands that trained; none of runs of older versions.
    pub sessions: Vec<SessionRecord>,
}

/// Writes `config.json`, unless it says the same already.
fn write_config(files: &dyn Files, folder: &Path, config: &TrainConfig) -> Result<()> {
    let text = serde_json::to_string_pretty(config).expect("a configuration is plain data") + "\n";
    let path = folder.join(CONFIG);
    match files.read(&path) {
        Ok(there) if there == text.as_bytes() => Ok(()),
        _ => files.replace(&path, text.as_bytes()),
    }
}

fn must_be_a_folder(path: &Path) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    Err(Error::File {
        path: path.into(),
        field: "run folder".into(),
        found: "a file".into(),
        expected: "a folder that `elbo train` made".into(),
        remedy: "an exported file has no moments and cannot be resumed; name the run's folder".into(),
    })
}

/// Tells an observer how a run goes, and saves it.
struct Saving<'r> {
    run: &'r Run,
    observer: &'r mut dyn Observer,
    intervals: Intervals,
}

impl Observer for Saving<'_> {
    fn step(&mut self, report: &StepReport) {
        self.intervals.step(report);
        self.observer.step(report);
    }

    fn epoch(&mut self, trainer: &Trainer, record: &EpochRecord, timing: &EpochTiming) -> Result<()> {
        let steps = self.intervals.close(record, trainer.images);
        self.observer.intervals(&steps)?;
        self.observer.epoch(trainer, record, timing)?;
        self.run.save_epoch(record, timing, &steps, &trainer.checkpoint()?)
    }
}
