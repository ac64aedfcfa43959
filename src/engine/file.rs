//! Files that a power cut leaves whole: written beside their names and renamed, or appended to and synced.
//!
//! [`Files`] is what the writers of this crate ask of a file system. [`Disk`] is the one of the operating system; the tests of
//! run folders put another below the same code, which knows every state that a crash can leave.

use std::any::Any;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::engine::error::{Error, Result};

/// A lock that is held until it is dropped, or its process ends in any way.
pub struct Lock {
    _held: Box<dyn Any + Send + Sync>,
}

impl Lock {
    /// Holds what unlocks when it is dropped.
    pub fn new(held: impl Any + Send + Sync) -> Lock {
        Lock { _held: Box::new(held) }
    }
}

/// A file system. Nothing that the plain operations do needs to outlive a crash before [`Files::sync`] has returned: the
/// content of a file needs a sync of the file, its name (new, renamed or removed) one of its folder.
pub trait Files: Send + Sync {
    /// The content of a file.
    ///
    /// # Errors
    /// Of the operating system, as for all plain operations.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Makes a file of these bytes, in the place of an older one.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Adds to the end of a file, which is made if it is not there.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Lets what was written to a file, or the names in a folder, outlive a power cut.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Gives a file or folder another name in the same folder. A file of that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file or an empty folder.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder in one that is there.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a file at `path`, locks it for this handle alone, and writes the number of this process into it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while another handle, of this process or another, holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Lock>;

    /// Whether there is a file or folder of this name.
    fn exists(&self, path: &Path) -> bool;

    /// Writes a file whole or not at all: whenever the power fails, a reader finds the old one or the new one, and the new one
    /// once this has returned.
    ///
    /// # Errors
    /// [`Error::Io`] with the step that failed. The older file is whole then, and no temporary file is left behind.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        replace_plain(self, path, bytes)
    }

    /// Adds to the end of a file, for good once this has returned. A power cut before may leave any part of the addition.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn extend(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let new = !self.exists(path);
        self.append(path, bytes).map_err(Error::io("write", path))?;
        self.sync(path).map_err(Error::io("sync", path))?;
        if new { self.sync(parent(path)).map_err(Error::io("sync", parent(path))) } else { Ok(()) }
    }

    /// Makes a folder and those above it, for good.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn make_folders(&self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || self.exists(path) {
            return Ok(());
        }
        let above = parent(path);
        self.make_folders(above)?;
        match self.make_folder(path) {
            // Another process was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(Error::io("create", path))?,
        }
        self.sync(above).map_err(Error::io("sync", above))
    }
}

fn replace_plain<F: Files + ?Sized>(files: &F, path: &Path, bytes: &[u8]) -> Result<()> {
    let (temporary, folder) = (temporary_name(path), parent(path));
    let written = files
        .write(&temporary, bytes)
        .map_err(Error::io("write", &temporary))
        .and_then(|()| files.sync(&temporary).map_err(Error::io("sync", &temporary)))
        .and_then(|()| files.rename(&temporary, path).map_err(Error::io("rename a finished temporary file to", path)));
    if written.is_err() {
        // The first error is the one worth reporting; a file that was never created cannot be removed either.
        let _ = files.remove(&temporary);
    }
    written.and_then(|()| files.sync(folder).map_err(Error::io("sync", folder)))
}

/// The folder of a name: `""` for one in the current folder.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// `name.PROCESS.tmp` beside `path`: on the same file system, and not shared by two programs at once.
pub(crate) fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// The files of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(here(folder))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::write(path, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        File::options().create(true).append(true).open(path)?.write_all(bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let path = here(path);
        // Elsewhere than on Unix a folder is no file that can be opened and synced.
        if !cfg!(unix) && path.is_dir() {
            return Ok(());
        }
        // Windows syncs only what could be written.
        File::options().read(true).write(!path.is_dir()).open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() && !path.is_symlink() { fs::remove_dir(path) } else { fs::remove_file(path) }
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            // Some file systems of clusters have no locks: there the user has to see to it.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock::new(file))
    }

    fn exists(&self, path: &Path) -> bool {
        here(path).exists()
    }

    /// The folders above `path` are made. A link stays a link, and what it points to is written. What is no file on a
    /// disk (`/dev/null`, a pipe) is opened and written: a rename over it would put a plain file in its place.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(Error::File {
                path: path.into(),
                field: "output".into(),
                found: "a folder".into(),
                expected: "a file, or a name that is not taken".into(),
                remedy: "name a file in it".into(),
            }),
            Ok(there) if !there.is_file() => {
                let written = File::options().write(true).open(path).and_then(|mut file| file.write_all(bytes));
                written.map_err(Error::io("write", path))
            }
            Ok(_) => replace_plain(self, &path.canonicalize().map_err(Error::io("find", path))?, bytes),
            // A link to what is not there yet is followed too.
            Err(e) => match fs::read_link(path) {
                Ok(target) if e.kind() == io::ErrorKind::NotFound => self.replace(&parent(path).join(target), bytes),
                _ => {
                    self.make_folders(parent(path))?;
                    replace_plain(self, path, bytes)
                }
            },
        }
    }
}

/// The current folder has no empty name.
fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Writes a file of the operating system through `fill`, whole or not at all, as [`Disk`] does.
///
/// # Errors
/// As [`Files::replace`], and what `fill` returns; [`Error::File`] when `path` is a folder.
pub fn replace(path: &Path, fill: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<()> {
    let mut bytes = Vec::new();
    fill(&mut bytes).map_err(Error::io("write", path))?;
    Disk.replace(path, &bytes)
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

    #[test]
    fn a_lock_is_held_by_one_handle_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Disk.lock(&path).unwrap();
        assert_eq!(Disk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(held);
        Disk.lock(&path).unwrap();
    }

    #[test]
    fn additions_and_folders_are_made_where_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        Disk.make_folders(&deep).unwrap();
        Disk.make_folders(&deep).unwrap();
        Disk.extend(&deep.join("file"), b"one ").unwrap();
        Disk.extend(&deep.join("file"), b"two").unwrap();
        assert_eq!(Disk.read(&deep.join("file")).unwrap(), b"one two");
        Disk.remove(&deep.join("file")).unwrap();
        Disk.remove(&deep).unwrap();
        assert!(!Disk.exists(&deep));
    }
}
