//! Writing a file so that a reader never sees half of it.

use crate::engine::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `path` through `fill`: into a temporary file beside it, synced, then renamed over it.
///
/// The folders above `path` are created. Whatever fails, an older file of that name stays whole and no temporary file is
/// left behind. A link stays a link, and what it points to is written. What is no file on a disk (`/dev/null`, a pipe) is
/// opened and written: a rename over it would put a plain file in its place.
///
/// # Errors
/// [`Error::Io`] with the step that failed; [`Error::File`] when `path` is a folder.
pub fn replace(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(Error::File {
            path: path.into(),
            field: "output".into(),
            found: "a folder".into(),
            expected: "a file, or a name that is not taken".into(),
            remedy: "name a file in it".into(),
        }),
        Ok(there) if !there.is_file() => {
            let file = File::options().write(true).open(path).map_err(Error::io("open", path))?;
            let mut writer = BufWriter::new(file);
            fill(&mut writer).and_then(|()| writer.flush()).map_err(Error::io("write", path))
        }
        Ok(_) => replace_plain(&path.canonicalize().map_err(Error::io("find", path))?, fill),
        // A link to what is not there yet is followed too.
        Err(e) => match fs::read_link(path) {
            Ok(target) if e.kind() == io::ErrorKind::NotFound => {
                replace(&path.parent().unwrap_or(Path::new("")).join(target), fill)
            }
            _ => replace_plain(path, fill),
        },
    }
}

fn replace_plain(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_refused_and_what_fails_leaves_the_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let message = replace(folder.path(), |out| out.write_all(b"x")).unwrap_err().to_string();
        assert!(message.contains("a folder") && message.contains("name a file in it"), "{message}");
        let path = folder.path().join("file");
        replace(&path, |out| out.write_all(b"old")).unwrap();
        replace(&path, |_| Err(io::Error::other("no"))).unwrap_err();
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"old".to_vec(), vec!["file".to_string()]));
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("/dev/null", at("null")).unwrap();
        replace(&at("null"), |out| out.write_all(b"nothing")).unwrap();
        fs::write(at("file"), b"old").unwrap();
        symlink("file", at("link")).unwrap();
        replace(&at("link"), |out| out.write_all(b"new")).unwrap();
        assert!(at("null").is_symlink() && fs::metadata(at("null")).unwrap().file_type().is_char_device());
        assert!(at("link").is_symlink() && fs::read(at("file")).unwrap() == b"new");
        symlink("later", at("early")).unwrap();
        replace(&at("early"), |out| out.write_all(b"first")).unwrap();
        assert!(at("early").is_symlink() && fs::read(at("later")).unwrap() == b"first");
        assert_eq!(
            names(folder.path()),
            ["early", "file", "later", "link", "null"],
            "no temporary file, here or beside the device"
        );
    }
}
