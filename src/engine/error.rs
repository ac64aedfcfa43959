//! What can go wrong outside the program: files, arguments, devices, memory.
//!
//! Misuse of the graph (shapes that do not fit) is a bug of the calling code and panics with both shapes and the
//! caller's line, as array libraries do. Everything the world can do to us is an [`Error`] that names the place, the
//! field, what was found, what was expected, and what to do about it.

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
