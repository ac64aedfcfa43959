//! Which commands trained a run.

use serde::{Deserialize, Serialize};

use crate::train::report::{is_one, one};

/// One line of `sessions.jsonl`: a command that began a run, or took it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The command line as it would be typed in a shell of POSIX.
    pub command: String,
    /// Updates that the run had when it began.
    pub updates: u32,
    /// The version of the program.
    pub version: String,
    /// The compiler and the platform of the program.
    pub build: String,
    /// The processes that trained together; not written down where it was one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub ranks: usize,
}

impl SessionRecord {
    /// Of these arguments, the program's name first.
    pub fn new(arguments: impl IntoIterator<Item = String>, updates: u32) -> SessionRecord {
        let words: Vec<String> = arguments.into_iter().map(|word| quoted(&word)).collect();
        SessionRecord {
            command: words.join(" "),
            updates,
            version: env!("CARGO_PKG_VERSION").into(),
            build: env!("ELBO_BUILD").into(),
            ranks: 1,
        }
    }
}

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,:=+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_typed_again() {
        let words = ["elbo", "train", "--out", "my run", "--data", "it's", ""].map(String::from);
        let session = SessionRecord::new(words, 3);
        assert_eq!(session.command, r"elbo train --out 'my run' --data 'it'\''s' ''");
        assert_eq!(session.updates, 3);
    }
}
