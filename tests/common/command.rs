//! The command `elbo` as a user runs it: a line that is typed in a folder.

// Every test program uses its part.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output};

/// How the line ends.
pub fn elbo(at: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_elbo")).current_dir(at).args(arguments.split_whitespace()).output().unwrap()
}

/// (stdout, stderr) of a line that must succeed.
#[track_caller]
pub fn says(at: &Path, arguments: &str) -> (String, String) {
    let output = elbo(at, arguments);
    let [said, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "elbo {arguments}: {:?}\n{errors}", output.status);
    (said, errors)
}

/// The standard output of a line that must succeed.
#[track_caller]
pub fn succeeds(at: &Path, arguments: &str) -> String {
    says(at, arguments).0
}

/// Its answer as JSON.
#[track_caller]
pub fn json(at: &Path, arguments: &str) -> serde_json::Value {
    serde_json::from_str(&succeeds(at, &format!("{arguments} --json"))).unwrap()
}

/// A line that must end with `code` and say all of `words` on stderr.
#[track_caller]
pub fn fails(at: &Path, arguments: &str, code: i32, words: &[&str]) {
    let output = elbo(at, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "elbo {arguments}\n{errors}");
    words.iter().for_each(|word| assert!(errors.contains(word), "elbo {arguments} says\n{errors}\nwithout \"{word}\""));
    assert!(!errors.contains("panicked"), "{errors}");
}
