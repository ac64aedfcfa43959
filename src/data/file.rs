//! Writing a file so that a reader never sees half of it.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `path` through `fill`: into a temporary file beside it, synced, then renamed over it.
///
/// The folders above `path` are created. Whatever fails, an older file of that name stays whole and no temporary
/// file is left behind.
///
/// # Errors
/// [`Error::Io`] with the step that failed.
pub fn replace(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let temporary = temporary_name(path);
    let written = write_and_sync(&temporary, fill)
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io("rename a finished temporary file to", path)));
    if written.is_err() {
        // The first error is the one worth reporting; a file that was never created cannot be removed either.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_and_sync(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    let mut writer = BufWriter::new(file);
    fill(&mut writer).and_then(|()| writer.flush()).map_err(Error::io("write", path))?;
    writer.get_ref().sync_all().map_err(Error::io("sync", path))
}

/// `name.PROCESS.tmp` beside `path`: on the same file system, and not shared by two programs at once.
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}
