//! A sweep: several runs that belong together, each a run folder of its own, and the file that says which they are.
//!
//! ```text
//!   SWEEP/sweep.json            what varies, and each run's folder and whole configuration
//!   SWEEP/lr0.001-seed1/…       a run, as `elbo train` leaves one
//! ```
//!
//! The file is written before the first run begins and never again. Where each run is, its own folder says: so a sweep that was
//! stopped in any way is taken up by looking, and several processes may work on one sweep, for each run is locked by who trains it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use super::run::next_numbered;
use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::engine::file::{Files, temporary_name};

/// The file that makes a folder a sweep.
const SWEEP: &str = "sweep.json";

/// More runs than one design has by intent.
const MOST: usize = 10_000;

/// What a sweep consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// The options that vary, by their names on the command line; not the seed of replicas.
    pub varied: Vec<String>,
    /// In the order in which they begin.
    pub runs: Vec<SweptRun>,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweptRun {
    /// The name of its folder within the sweep's.
    pub folder: String,
    /// The value of each option that varies, as it was typed.
    pub values: Vec<String>,
    /// All of its configuration; a relative path of its images counts from its own folder.
    pub config: TrainConfig,
}

impl Sweep {
    /// `parent/NNN-label`, with the first number after all that are there: a new place for a sweep.
    pub fn next_folder(files: &dyn Files, parent: &Path, label: &str) -> PathBuf {
        next_numbered(files, parent, label)
    }

    /// Whether a sweep is in `path`.
    pub fn is_there(files: &dyn Files, path: &Path) -> bool {
        files.exists(&path.join(SWEEP))
    }

    /// The sweep in `path`.
    ///
    /// # Errors
    /// [`Error::File`] when the file cannot be understood, or names a folder twice or one that is not inside the sweep's;
    /// [`Error::Io`].
    pub fn read(files: &dyn Files, path: &Path) -> Result<Sweep> {
        let file = path.join(SWEEP);
        let bytes = files.read(&file).map_err(Error::io("read", &file))?;
        let wrong = |field: &str, found: String, expected: &str| Error::File {
            path: file.clone(),
            field: field.into(),
            found,
            expected: expected.into(),
            remedy: "begin the sweep anew in another folder; runs that are finished can be read one by one".into(),
        };
        let sweep: Sweep = serde_json::from_slice(&bytes)
            .map_err(|error| wrong("runs", error.to_string(), "what `elbo sweep` wrote"))?;
        if sweep.runs.is_empty() {
            return Err(wrong("runs", "none".into(), "a run at least"));
        }
        for (i, run) in sweep.runs.iter().enumerate() {
            let inside =
                Path::new(&run.folder).components().count() == 1 && !["", ".", ".."].contains(&&run.folder[..]);
            if !inside || sweep.runs[..i].iter().any(|other| other.folder == run.folder) {
                let expected = "a folder of its own inside the sweep's";
                return Err(wrong("runs.folder", format!("\"{}\"", run.folder), expected));
            }
            if run.values.len() != sweep.varied.len() {
                let found = format!("{} for {} options", run.values.len(), sweep.varied.len());
                return Err(wrong("runs.values", found, "a value for each option that varies"));
            }
        }
        Ok(sweep)
    }

    /// Makes `path`, which must not exist or be empty, the folder of this sweep, and writes down for each run where its images
    /// are as seen from there. Nothing is left behind by what fails.
    ///
    /// # Errors
    /// [`Error::Occupied`] when other files are there; [`Error::Argument`] when there are no runs, too many, or two alike;
    /// [`Error::Io`].
    pub fn begin(mut self, files: &dyn Files, path: &Path, images: &Splits) -> Result<Sweep> {
        if self.runs.is_empty() || self.runs.len() > MOST {
            return Err(Error::argument("runs", self.runs.len(), format!("from 1 to {MOST} runs in a sweep")));
        }
        for (i, run) in self.runs.iter().enumerate() {
            if let Some(twin) = self.runs[..i].iter().find(|other| other.config == run.config) {
                let found = format!("{} and {}, which would be the same run", twin.folder, run.folder);
                return Err(Error::argument("runs", found, "values that make the runs differ"));
            }
        }
        for run in &mut self.runs {
            run.config.data = run.config.data.of_run(&path.join(&run.folder), images);
        }
        let text = serde_json::to_vec_pretty(&self).expect("a configuration is plain data");
        let occupied = || Error::Occupied {
            path: path.into(),
            remedy: "choose another folder, or go on with the sweep in it".into(),
        };
        if files.exists(path) {
            if !files.list(path).map_err(Error::io("read", path))?.is_empty() {
                return Err(occupied());
            }
            files.replace(&path.join(SWEEP), &text)?;
            return Ok(self);
        }
        let staging = temporary_name(path);
        files.make_folders(&staging)?;
        let taken = |error| match files.exists(path) {
            true => occupied(),
            false => Error::io("rename a finished folder to", path)(error),
        };
        let above = path.parent().unwrap_or(path);
        let begun = files
            .replace(&staging.join(SWEEP), &text)
            .and_then(|()| files.rename(&staging, path).map_err(taken))
            .and_then(|()| files.sync(above).map_err(Error::io("sync", above)));
        if begun.is_err() {
            // The error that led here is the one worth reporting.
            let _ = files.remove(&staging.join(SWEEP));
            let _ = files.remove(&staging);
        }
        begun.map(|()| self)
    }

    /// The folders of its runs, in their order.
    pub fn folders(&self, path: &Path) -> Vec<PathBuf> {
        self.runs.iter().map(|run| path.join(&run.folder)).collect()
    }
}

/// Calls `work` once with every number below `count`, on `jobs` threads that take the next number when they are done with one, and
/// returns what it made, in the order of the numbers.
pub fn in_parallel<R: Send>(count: usize, jobs: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)).take_while(|&i| i < count);
        numbers.map(|i| (i, work(i))).collect::<Vec<_>>()
    };
    let mut made: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.clamp(1, count.max(1))).map(|_| scope.spawn(worker)).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    });
    made.sort_by_key(|(i, _)| *i);
    made.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::file::Disk;
    use crate::train::Source;
    use std::sync::Mutex;

    fn two() -> Sweep {
        let run = |seed: u64| SweptRun {
            folder: format!("seed{seed}"),
            values: Vec::new(),
            config: TrainConfig { seed, ..TrainConfig::default() },
        };
        Sweep { varied: Vec::new(), runs: vec![run(1), run(2)] }
    }

    fn images() -> Splits {
        Source::Digits { seed: 1, train: 10, test: 5 }.load().unwrap()
    }

    #[test]
    fn a_sweep_is_read_as_it_was_begun_and_never_overwrites() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("a/b");
        let begun = two().begin(&Disk, &path, &images()).unwrap();
        assert_eq!(Sweep::read(&Disk, &path).unwrap(), begun);
        assert_eq!(begun.folders(&path)[1], path.join("seed2"));
        assert!(matches!(two().begin(&Disk, &path, &images()), Err(Error::Occupied { .. })));
        assert_eq!(std::fs::read_dir(at.path().join("a")).unwrap().count(), 1, "no staging folder is left");
        // A folder that is there and empty is as good as none.
        let empty = at.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        two().begin(&Disk, &empty, &images()).unwrap();
        assert!(Sweep::is_there(&Disk, &empty) && !Sweep::is_there(&Disk, at.path()));
    }

    #[test]
    fn what_is_no_sweep_is_refused() {
        let at = tempfile::tempdir().unwrap();
        let mut twins = two();
        twins.runs[1].config.seed = 1;
        let error = twins.begin(&Disk, &at.path().join("x"), &images()).unwrap_err().to_string();
        assert!(error.contains("seed1 and seed2") && !at.path().join("x").exists(), "{error}");
        let none = Sweep { varied: Vec::new(), runs: Vec::new() };
        assert!(matches!(none.begin(&Disk, &at.path().join("x"), &images()), Err(Error::Argument { .. })));
        let refused = |change: fn(&mut Sweep)| {
            let mut sweep = two();
            change(&mut sweep);
            std::fs::write(at.path().join(SWEEP), serde_json::to_vec(&sweep).unwrap()).unwrap();
            Sweep::read(&Disk, at.path()).unwrap_err().to_string()
        };
        for (error, field) in [
            (refused(|s| s.runs[1].folder = "seed1".into()), "runs.folder"),
            (refused(|s| s.runs[1].folder = "../else".into()), "runs.folder"),
            (refused(|s| s.runs[1].folder = "..".into()), "runs.folder"),
            (refused(|s| s.varied = vec!["lr".into()]), "runs.values"),
            (refused(|s| s.runs.clear()), "runs"),
        ] {
            assert!(error.contains(field) && error.contains(SWEEP), "{error}");
        }
        std::fs::write(at.path().join(SWEEP), "{").unwrap();
        assert!(matches!(Sweep::read(&Disk, at.path()), Err(Error::File { .. })));
    }

    #[test]
    fn every_number_is_worked_on_once_by_at_most_so_many_threads() {
        for jobs in [0, 1, 3, 50] {
            let (now, most) = (AtomicUsize::new(0), Mutex::new(0));
            let made = in_parallel(20, jobs, |i| {
                let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                let mut most = most.lock().unwrap();
                *most = running.max(*most);
                drop(most);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                i * i
            });
            assert_eq!(made, (0..20).map(|i| i * i).collect::<Vec<_>>());
            assert!(*most.lock().unwrap() <= jobs.max(1));
        }
        assert!(in_parallel(0, 3, |i| i).is_empty());
    }
}
