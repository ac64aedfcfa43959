//! A line of JSON for every epoch, the newest last.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::error::{Error, Result};
use crate::engine::file::Files;

/// A record as a line.
pub(super) fn line(record: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("a record is plain data");
    line.push(b'\n');
    line
}

/// Keeps the whole lines of the first `epochs` epochs, and nothing else.
pub(super) fn cut(files: &dyn Files, path: &Path, epochs: u32) -> Result<()> {
    #[derive(Deserialize)]
    struct JournalLine {
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
