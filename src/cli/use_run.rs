//! The run that a command is told to use: its checkpoint and its images.

use std::path::{Path, PathBuf};

use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::engine::file::Disk;
use crate::train::checkpoint::Checkpoint;
use crate::train::sweep::Sweep;
use crate::train::{Run, Source};

/// The checkpoint in a run folder, or in a file given directly.
pub(super) fn open(run: &Path) -> Result<Checkpoint> {
    if Sweep::is_there(&Disk, run) {
        let first = Sweep::read(&Disk, run)?.folders(run).swap_remove(0);
        let expected = format!("one of its runs, as {}", first.display());
        return Err(Error::argument("run", format!("{}, a sweep", run.display()), expected));
    }
    if run.is_file() { Checkpoint::load(run) } else { Run::read(run) }
}

/// The images of the run (a folder, or a checkpoint file), or those of another folder.
pub(super) fn images(run: &Path, checkpoint: &Checkpoint, data: &Option<PathBuf>) -> Result<Splits> {
    match data {
        Some(path) => Source::Folder { path: path.clone(), images: None }.load(),
        None => own_images(run, &checkpoint.config.data),
    }
}

/// The images that a run was trained on, where it says that they are.
pub(super) fn own_images(run: &Path, source: &Source) -> Result<Splits> {
    let here = source.seen_from_here(folder_of(run));
    here.load().map_err(|error| match (source, here) {
        (Source::Folder { path, images }, Source::Folder { path: here, .. }) => Error::File {
            path: here,
            field: format!("images of the run in {}, which has them at {}", run.display(), path.display()),
            found: format!("nothing that can be used ({error})"),
            expected: match images {
                Some(_) => "the folder that it was trained on (a relative path counts from the run's folder)".into(),
                None => "the folder that it was trained on (a relative path counts from the current folder)".into(),
            },
            remedy: "name the folder with --data".into(),
        },
        _ => error,
    })
}

/// Where the paths in a checkpoint count from.
pub(super) fn folder_of(run: &Path) -> &Path {
    match run.is_file() {
        true => run.parent().unwrap_or(Path::new("")),
        false => run,
    }
}
