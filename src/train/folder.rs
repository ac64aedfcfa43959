//! The folder of a run: what is in it, and how it is filled.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{EpochRecord, EpochTiming, Observer, TrainConfig, Trainer};
use crate::data::file::replace;
use crate::engine::error::{Error, Result};
use crate::train::checkpoint::Checkpoint;

/// A folder with `config.json`, `metrics.jsonl` and `timing.jsonl` (one line per epoch), and
/// `checkpoint.safetensors`. As an [`Observer`] it writes them.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The files that a run is made of, as against pictures, which can be drawn again.
    pub const FILES: [&str; 5] =
        ["checkpoint.safetensors", "config.json", "metrics.jsonl", "timing.jsonl", "reproduction.json"];

    /// Whether a run is in `path`.
    pub fn is_there(path: &Path) -> bool {
        path.join(RunFolder::FILES[0]).exists()
    }

    /// Makes `path`, which must not exist or be empty: a run never overwrites another.
    ///
    /// # Errors
    /// [`Error::File`] when the folder holds something, [`Error::Io`] when it cannot be made.
    pub fn create(path: &Path) -> Result<RunFolder> {
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        if fs::read_dir(path).map_err(Error::io("read", path))?.next().is_some() {
            return Err(Error::File {
                path: path.into(),
                field: "run folder".into(),
                found: "a folder with files in it".into(),
                expected: "an empty folder or a new name".into(),
                remedy: "choose another --out, or continue the run in it with --resume".into(),
            });
        }
        Ok(RunFolder { path: path.into() })
    }

    /// Makes a fresh folder `parent/NNN-label`, with the first number after all that are there.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be made.
    pub fn fresh(parent: &Path, label: &str) -> Result<RunFolder> {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let entries = fs::read_dir(parent).map_err(Error::io("read", parent))?;
        let number = |name: &str| name.split('-').next().and_then(|n| n.parse::<u32>().ok());
        let names = entries.filter_map(|entry| entry.ok().map(|e| e.file_name()));
        let last = names.filter_map(|name| number(&name.to_string_lossy())).max().unwrap_or(0);
        for n in last + 1.. {
            let path = parent.join(format!("{n:03}-{label}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(RunFolder { path }),
                // Another run took the number at the same moment.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io("create", &path)(e)),
            }
        }
        unreachable!("the numbers do not run out")
    }

    /// The folder of a run that is there, and its checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; [`Error::File`] when `path` is a file.
    pub fn open(path: &Path) -> Result<(RunFolder, Checkpoint)> {
        if path.is_file() {
            return Err(Error::File {
                path: path.into(),
                field: "run folder".into(),
                found: "a file".into(),
                expected: "a folder that `elbo train` made".into(),
                remedy: "an exported file has no moments and cannot be resumed; name the run's folder".into(),
            });
        }
        let folder = RunFolder { path: path.into() };
        let checkpoint = Checkpoint::load(&folder.checkpoint_path())?;
        Ok((folder, checkpoint))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// `checkpoint.safetensors`.
    pub fn checkpoint_path(&self) -> PathBuf {
        self.file(RunFolder::FILES[0])
    }

    /// Writes what a new run begins with: its configuration, and a checkpoint of its first state, so that from here on the
    /// folder can be taken up, whatever happens. If that fails, the folder is removed again.
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn begin(&self, trainer: &Trainer) -> Result<()> {
        let begun = self.write_config(trainer.config()).and_then(|()| self.write_checkpoint(trainer));
        begun.inspect_err(|_| self.discard_if_unused())
    }

    /// Removes the folder of a run that failed before anything was saved of it but its first state. Files that
    /// are not the run's stay, and so does the folder then.
    pub fn discard_if_unused(&self) {
        let path = self.checkpoint_path();
        if matches!(path.try_exists(), Ok(false))
            || Checkpoint::load(&path).is_ok_and(|checkpoint| checkpoint.progress.updates == 0)
        {
            // The error that led here is the one worth reporting.
            RunFolder::FILES.iter().for_each(|name| drop(fs::remove_file(self.file(name))));
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_config(&self, config: &TrainConfig) -> Result<()> {
        let text = serde_json::to_string_pretty(config).expect("a configuration is plain data");
        replace(&self.file("config.json"), |out| writeln!(out, "{text}"))
    }

    /// Writes the state of `trainer`.
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn write_checkpoint(&self, trainer: &Trainer) -> Result<()> {
        trainer.checkpoint()?.save(&self.checkpoint_path())
    }

    /// Cuts the two journals down to the first `epochs` lines: a run that was killed may have written more than its
    /// checkpoint knows of, and those epochs will be run again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rewind(&self, epochs: u32) -> Result<()> {
        for name in ["metrics.jsonl", "timing.jsonl"] {
            let path = self.file(name);
            if path.exists() {
                let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
                let kept: String = text.split_inclusive('\n').take(epochs as usize).collect();
                replace(&path, |out| out.write_all(kept.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// What the journal says of the last epoch; nothing if there is none, or no line that can be read.
    pub fn last_timing(&self) -> Option<EpochTiming> {
        let text = fs::read_to_string(self.file("timing.jsonl")).ok()?;
        serde_json::from_str(text.lines().last()?).ok()
    }

    fn append(&self, name: &str, line: &impl Serialize) -> Result<()> {
        let path = self.file(name);
        let text = serde_json::to_string(line).expect("a record is plain data");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut f| writeln!(f, "{text}")).map_err(Error::io("write", &path))
    }
}

impl Observer for RunFolder {
    fn epoch(&mut self, trainer: &Trainer, record: &EpochRecord, timing: &EpochTiming) -> Result<()> {
        self.append("metrics.jsonl", record)?;
        self.append("timing.jsonl", timing)?;
        self.write_checkpoint(trainer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_numbered_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path().join("runs");
        let first = RunFolder::fresh(&parent, "digits").unwrap();
        assert_eq!(first.path(), parent.join("001-digits"));
        fs::create_dir(parent.join("041-other")).unwrap();
        assert_eq!(RunFolder::fresh(&parent, "mnist").unwrap().path(), parent.join("042-mnist"));
        RunFolder::create(first.path()).unwrap();
        fs::write(first.file("metrics.jsonl"), "{}\n").unwrap();
        let message = RunFolder::create(first.path()).unwrap_err().to_string();
        assert!(message.contains("001-digits") && message.contains("--resume"), "{message}");
    }

    #[test]
    fn journals_are_cut_at_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        fs::write(run.file("metrics.jsonl"), "1\n2\n3").unwrap();
        run.rewind(2).unwrap();
        assert_eq!(fs::read_to_string(run.file("metrics.jsonl")).unwrap(), "1\n2\n");
        let line = |epoch| {
            let zeros = r#""train_seconds":0,"test_seconds":0,"images_per_second":0"#;
            format!(r#"{{"epoch":{epoch},{zeros},"device":"cpu","build":"b"}}"#) + "\n"
        };
        assert_eq!(run.last_timing(), None);
        fs::write(run.file("timing.jsonl"), line(1) + &line(2) + &line(3)).unwrap();
        run.rewind(2).unwrap();
        assert_eq!(run.last_timing().unwrap().epoch, 2);
        fs::write(run.file("timing.jsonl"), "{").unwrap();
        assert_eq!(run.last_timing(), None);
    }
}
