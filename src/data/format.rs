//! The formats in which a folder may hold images.
//!
//! A new one is a file beside this one, with a [`Format`] in it, and a line in [`FORMATS`].

use std::path::Path;

use super::{Splits, mnist};
use crate::engine::error::{Error, Result};

/// Every format, in the order in which a folder is tried.
const FORMATS: &[Format] = &[mnist::FORMAT];

/// A way for a training and a test set to lie in a folder.
pub(super) struct Format {
    /// Says which files are looked for.
    pub expects: fn() -> String,
    /// Whether the folder holds, by its files' names, images in this format.
    pub recognises: fn(&Path) -> bool,
    /// Reads the images of a folder that was recognised.
    pub read: fn(&Path) -> Result<Splits>,
}

/// Loads the training and the test set from a folder, in the first format that recognises it.
///
/// # Errors
/// [`Error::File`] if no format does (it lists what was searched), a set is missing, a file is malformed, labels and
/// images differ in number, or the two sets differ in image size; [`Error::Io`] if reading fails.
pub fn load(folder: &Path) -> Result<Splits> {
    let wrong = |field: &str, found: &str, expected: String, remedy: &str| Error::File {
        path: folder.into(),
        field: field.into(),
        found: found.into(),
        expected,
        remedy: remedy.into(),
    };
    let kind = std::fs::metadata(folder).map_err(Error::io("read", folder))?;
    if !kind.is_dir() {
        let expected = "a folder with the files of a training and a test set";
        return Err(wrong("data", "a file", expected.into(), "give the folder in which the files lie"));
    }
    let format = FORMATS.iter().find(|format| (format.recognises)(folder)).ok_or_else(|| {
        let expected = FORMATS.iter().map(|format| (format.expects)()).collect::<Vec<_>>().join("; or ");
        let remedy = "put such files there, or leave the folder out to use the built-in digits";
        wrong("training images", "none in a format that is read here", expected, remedy)
    })?;
    (format.read)(folder)
}
