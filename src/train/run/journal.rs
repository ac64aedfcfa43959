//! Lines of JSON, one for each record, the newest last.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::error::{Error, Result};
use crate::engine::file::Files;

/// A record as a line.
pub(super) fn line(record: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("a record is plain data");
    line.push(b'\n');
    line
}

/// The records of every line; none of a journal that was not begun. `expected` says what a line is.
///
/// # Errors
/// [`Error::File`] naming the line that is no record; [`Error::Io`].
pub(super) fn read<T: DeserializeOwned>(files: &dyn Files, path: &Path, expected: &str) -> Result<Vec<T>> {
    let bytes = match files.read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(Error::io("read", path))?,
    };
    let lines = bytes.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let record = |(number, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| Error::File {
            path: path.into(),
            field: format!("line {}", number + 1),
            found: error.to_string(),
            expected: expected.into(),
            remedy: "remove the line".into(),
        })
    };
    lines.map(record).collect()
}

/// Keeps the whole lines of the first `epochs` epochs, and of none, and nothing else.
pub(super) fn cut(files: &dyn Files, path: &Path, epochs: u32) -> Result<()> {
    #[derive(Deserialize)]
    struct JournalLine {
        #[serde(default)]
        epoch: u32,
    }
    let bytes = match files.read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(Error::io("read", path))?,
    };
    let whole = bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"));
    let kept = whole.filter(|line| serde_json::from_slice::<JournalLine>(line).is_ok_and(|line| line.epoch <= epochs));
    let kept = kept.collect::<Vec<_>>().concat();
    if kept == bytes { Ok(()) } else { files.replace(path, &kept) }
}
