//! How a run is begun, or taken up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::{CHECKPOINT, CONFIG, LOCK, Run, must_be_a_folder, write_config};
use crate::data::Splits;
use crate::engine::device::{Device, Executor};
use crate::engine::error::{Error, Result};
use crate::engine::file::{Files, temporary_name};
use crate::train::{TrainConfig, Trainer};

/// The place of a run: of one that is there and is locked from here on, or of one to be begun.
///
/// ```no_run
/// # use elbo::engine::{device::Device, file::Disk};
/// # use elbo::train::{Entry, TrainConfig};
/// # fn main() -> elbo::Result<()> {
/// # let (config, path) = (TrainConfig::new(elbo::vae::VaeConfig::new(2)), "run".as_ref());
/// let data = config.data.load()?;
/// let entry = Entry::at(Disk, path)?;
/// let config = entry.checkpoint().map_or(config, |there| there.config.clone());
/// let (run, mut trainer) = entry.start(config, &data, Device::Cpu { threads: 0 })?;
/// run.train(&mut trainer, &mut (), &false.into())?;
/// # Ok(()) }
/// ```
pub struct Entry {
    files: Arc<dyn Files>,
    path: PathBuf,
    /// The rest of the name of a folder that is numbered.
    label: Option<String>,
    there: Option<(Run, Checkpoint)>,
}

impl Entry {
    /// The run in `path` if there is one; else it is begun there.
    ///
    /// # Errors
    /// As [`Entry::resumed`] when it is there.
    pub fn at(files: impl Files + 'static, path: &Path) -> Result<Entry> {
        match files.exists(&path.join(CHECKPOINT)) {
            true => Entry::resumed(files, path),
            false => Ok(Entry::new(files, path)),
        }
    }

    /// The run in `path`, which is there.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process writes the run, [`Error::File`] when `path` is a file; as [`Checkpoint::load`].
    pub fn resumed(files: impl Files + 'static, path: &Path) -> Result<Entry> {
        must_be_a_folder(path)?;
        let (files, state): (Arc<dyn Files>, _) = (Arc::new(files), path.join(CHECKPOINT));
        let read = || files.read(&state).map_err(Error::io("read", &state));
        if !files.exists(&state) {
            // That is what is wrong, and no lock is left where no run is.
            read()?;
        }
        let run = Run::locked(files.clone(), path, true)?;
        let checkpoint = Checkpoint::decode(&state, &read()?)?;
        Ok(Entry { files, path: path.into(), label: None, there: Some((run, checkpoint)) })
    }

    /// A run to be begun in `path`, which must not exist or be empty: a run never overwrites another.
    pub fn new(files: impl Files + 'static, path: &Path) -> Entry {
        Entry { files: Arc::new(files), path: path.into(), label: None, there: None }
    }

    /// A run to be begun in `parent/NNN-label`, with the first number after all that are there.
    pub fn numbered(files: impl Files + 'static, parent: &Path, label: &str) -> Entry {
        let path = next_numbered(&files, parent, label);
        let entry = Entry::new(files, &path);
        Entry { label: Some(label.into()), ..entry }
    }

    /// Where the run is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state of the run, if it is there.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.there.as_ref().map(|(_, checkpoint)| checkpoint)
    }

    /// Whether the run that is there has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.files.exists(&self.path.join(name))
    }

    /// Begins the run, or takes it up where its checkpoint is, with `config`, which may ask for more epochs than the run was begun
    /// with or have its images elsewhere. From the moment that a new folder exists it can be taken up.
    ///
    /// # Errors
    /// As [`Trainer::new`] and [`Trainer::resume`]; [`Error::Occupied`] when a run is to be begun where files are; [`Error::Io`].
    pub fn start(self, config: TrainConfig, data: &Splits, device: Device) -> Result<(Run, Trainer)> {
        config.validate()?;
        self.start_on(config, data, device.open()?)
    }

    /// As [`Entry::start`], on an executor that is there already.
    ///
    /// # Errors
    /// As [`Entry::start`].
    pub fn start_on(self, config: TrainConfig, data: &Splits, executor: Executor) -> Result<(Run, Trainer)> {
        let Some((run, checkpoint)) = self.there else {
            let trainer = Trainer::new_on(config, data, executor)?;
            return Ok((self.begin(&trainer.checkpoint()?)?, trainer));
        };
        let checkpoint = Checkpoint { config, ..checkpoint };
        let trainer = Trainer::resume_on(&checkpoint, data, executor)?;
        run.recover(checkpoint.progress.epoch, trainer.config())?;
        Ok((run, trainer))
    }

    fn begin(self, first: &Checkpoint) -> Result<Run> {
        let mut path = self.path;
        loop {
            match (begin_at(self.files.clone(), &path, first), &self.label) {
                // Another run took the number at the same moment.
                (Err(Error::Occupied { .. } | Error::Locked { .. }), Some(label)) => {
                    let number = path.file_name().and_then(|name| number(&name.to_string_lossy())).unwrap_or(0);
                    path.set_file_name(format!("{:03}-{label}", number + 1));
                }
                (begun, _) => return begun,
            }
        }
    }
}

/// `parent/NNN-label`, with the first number after all that are there.
pub(in crate::train) fn next_numbered(files: &dyn Files, parent: &Path, label: &str) -> PathBuf {
    let last = files.list(parent).unwrap_or_default().iter().filter_map(|name| number(name)).max().unwrap_or(0);
    parent.join(format!("{:03}-{label}", last + 1))
}

/// The number of `NNN-label`.
fn number(name: &str) -> Option<u32> {
    name.split('-').next()?.parse().ok()
}

/// Fills a folder that is there and empty, or makes one with all its files in it. What fails leaves nothing behind.
fn begin_at(files: Arc<dyn Files>, path: &Path, first: &Checkpoint) -> Result<Run> {
    if files.exists(path) {
        must_be_unused(&*files, path)?;
        let run = Run::locked(files.clone(), path, false)?;
        // Now it stays so.
        must_be_unused(&*files, path)?;
        let filled = fill(&*files, path, first);
        return filled.inspect_err(|_| clear(&*files, path)).map(|()| run);
    }
    let staging = temporary_name(path);
    let above = path.parent().unwrap_or(path);
    // Of a process that had the number of this one.
    clear(&*files, &staging);
    files.make_folders(&staging)?;
    let taken = |error| match files.exists(path) {
        true => occupied(path),
        false => Error::io("rename a finished folder to", path)(error),
    };
    let begun = fill(&*files, &staging, first)
        .and_then(|()| files.rename(&staging, path).map_err(taken))
        .and_then(|()| files.sync(above).map_err(Error::io("sync", above)));
    begun.inspect_err(|_| clear(&*files, &staging))?;
    Run::locked(files, path, false)
}

/// What a run begins with. The checkpoint is the last: with it, the folder is a run.
fn fill(files: &dyn Files, folder: &Path, first: &Checkpoint) -> Result<()> {
    write_config(files, folder, &first.config)?;
    files.replace(&folder.join(CHECKPOINT), &first.encode()?)
}

/// A beginning that was cut short, before there was a checkpoint, is no run.
fn must_be_unused(files: &dyn Files, path: &Path) -> Result<()> {
    let names = files.list(path).map_err(Error::io("read", path))?;
    let of_a_beginning = |name: &String| name == LOCK || name == CONFIG || is_temporary(name);
    if names.iter().all(of_a_beginning) { Ok(()) } else { Err(occupied(path)) }
}

fn occupied(path: &Path) -> Error {
    Error::Occupied { path: path.into(), remedy: "choose another folder, or resume the run in it".into() }
}

/// Whether a file was being written when its process ended.
pub(super) fn is_temporary(name: &str) -> bool {
    name.ends_with(".tmp") && Run::FILES.iter().any(|file| name.starts_with(file))
}

/// Removes the files of a run, and the folder if nothing else is in it. The error that led here is the one worth reporting.
pub(super) fn clear(files: &dyn Files, folder: &Path) {
    let Ok(names) = files.list(folder) else { return };
    for name in names.iter().filter(|name| Run::FILES.contains(&&name[..]) || is_temporary(name)) {
        let _ = files.remove(&folder.join(name));
    }
    let _ = files.remove(folder);
}
