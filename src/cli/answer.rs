//! How a result is given: as text for people, or with `--json` as JSON for programs, on stdout either way.

use clap::Args;
use serde::Serialize;

use crate::engine::error::Result;

/// The one option of every command that prints a result.
#[derive(Args)]
pub struct Answer {
    /// Print the result as JSON instead of text
    ///
    /// One object; `docs/book/src/json.md` says what its fields are. Progress and warnings go to stderr as ever, so that `> file.json`
    /// holds the result alone.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

impl Answer {
    /// Prints the result in the form that is asked for.
    ///
    /// # Errors
    /// [`Error::Io`](crate::engine::error::Error::Io) when it cannot be written.
    pub fn give(&self, text: &str, value: &impl Serialize) -> Result<()> {
        match self.json {
            true => super::print_raw(&(serde_json::to_string_pretty(value).expect("a result is plain data") + "\n")),
            false => super::print(text),
        }
    }
}
