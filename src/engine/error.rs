//! What can go wrong outside the program: files, arguments, devices, memory.
//!
//! Misuse of the graph (shapes that do not fit) is a bug of the calling code and panics with both shapes and the
//! caller's line, as array libraries do. Everything the world can do to us is an [`Error`] that names the place, the
//! field, what was found, what was expected, and what to do about it.

use std::fmt;
use std::panic::Location;
use std::path::{Path, PathBuf};

/// A `Result` of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure whose cause lies outside the program. Every variant's text says where, what, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `create`, `rename`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file was read but does not hold what it should.
    #[error("{}: {field}: found {found}, expected {expected}; {remedy}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The field of the file's format, or the tensor's name.
        field: String,
        /// What the file has there.
        found: String,
        /// What belongs there.
        expected: String,
        /// What the reader can do.
        remedy: String,
    },
    /// An argument or a configuration value is unusable.
    #[error("{field}: found {found}, expected {expected}")]
    Argument {
        /// The option or the configuration field.
        field: String,
        /// What was given.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// A computation has left the finite numbers: a training has diverged.
    #[error("{field}: found {found}, expected a finite number; {remedy}")]
    Diverged {
        /// What is no longer finite.
        field: String,
        /// What it is: ±∞ or NaN.
        found: f64,
        /// What to do, or what it says.
        remedy: String,
    },
    /// The device asked for cannot be used.
    #[error("{device} cannot be used: {reason}; {remedy}")]
    Device {
        /// The device, for example `cuda`.
        device: String,
        /// Why.
        reason: String,
        /// What to do, or what to use instead.
        remedy: Remedy,
    },
    /// An index of [`gather_rows`](crate::Var::gather_rows), [`scatter_rows`](crate::Var::scatter_rows) or
    /// [`pick`](crate::Var::pick) names no row or column. The steps were made, with what it should have named read as zeros.
    #[error("{op} made at {at}: row {row} has the index {index}, where {}", indices_below(*below))]
    Index {
        /// The operation.
        op: &'static str,
        /// The line that made it.
        at: &'static Location<'static>,
        /// Where the index stands among the indices.
        row: usize,
        /// The index: the first of such if there are several, and on a GPU any of them.
        index: f64,
        /// The number of rows or columns.
        below: usize,
    },
    /// A folder is wanted for something new, and files are in it.
    #[error("{}: there are files already; {remedy}", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What the reader can do.
        remedy: String,
    },
    /// Another process writes what only one may write.
    #[error("{}: {by} writes it; {remedy}", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process.
        by: String,
        /// What the reader can do.
        remedy: String,
    },
    /// A named slot does not exist or has another shape.
    #[error("slot {name}: {problem}")]
    Slot {
        /// The slot's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What can be done about a device that cannot be used: in words, and which choice of the caller's they speak of, so that a
/// program can say by what that choice is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remedy {
    /// The words.
    pub text: String,
    /// The choice, if the remedy is one.
    pub choice: Option<Choice>,
}

/// A choice of the caller's that a [`Remedy`] speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The CPU instead of a GPU.
    Cpu,
    /// A GPU that is asked for by name, where none is taken by itself.
    NamedGpu,
    /// [`Precision::F32`](crate::engine::device::Precision::F32).
    F32,
    /// A smaller model, or smaller batches.
    Smaller,
    /// Fewer models at the same time.
    FewerAtOnce,
}

impl Choice {
    /// The remedy that this choice is.
    pub fn remedy(self, text: impl Into<String>) -> Remedy {
        Remedy { text: text.into(), choice: Some(self) }
    }
}

impl Remedy {
    /// For a model that does not fit.
    pub(crate) fn smaller() -> Remedy {
        Choice::Smaller.remedy("make the layers narrower, or the batch smaller")
    }
}

impl From<&str> for Remedy {
    fn from(text: &str) -> Remedy {
        Remedy { text: text.into(), choice: None }
    }
}

impl From<String> for Remedy {
    fn from(text: String) -> Remedy {
        Remedy { text, choice: None }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn indices_below(below: usize) -> String {
    match below.checked_sub(1) {
        Some(last) => format!("there are 0 … {last}"),
        None => "there is none".into(),
    }
}

impl Error {
    /// An [`Error::Io`] for `path`, shaped for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// An [`Error::Argument`].
    pub fn argument(field: &str, found: impl ToString, expected: impl ToString) -> Error {
        Error::Argument { field: field.into(), found: found.to_string(), expected: expected.to_string() }
    }
}
