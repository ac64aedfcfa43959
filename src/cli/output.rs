//! Files that a command is told to write: their names say what is in them, and none is part of a run.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::engine::error::{Error, Result};
use crate::train::Run;

/// Reads the name of a file with this ending, or with none: `x.jpg` with the bytes of a PNG picture would be a lie.
pub fn ending(ending: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path: PathBuf| match path.extension() {
        Some(other) if !other.eq_ignore_ascii_case(ending) => Err(format!(
            "what is written is {ending}, not {}; choose a name that ends in .{ending}, or one without an ending",
            other.display()
        )),
        _ => Ok(path),
    })
}

/// As [`ending`], for a name whose ending depends on another option.
///
/// # Errors
/// [`Error::Argument`] naming the option, the file and the ending.
pub fn must_end(option: &str, path: &Path, ending: &str) -> Result<()> {
    match path.extension() {
        Some(other) if !other.eq_ignore_ascii_case(ending) => {
            let expected = format!("a name that ends in .{ending}, which is what is written, or one without an ending");
            Err(Error::argument(option, path.display(), expected))
        }
        _ => Ok(()),
    }
}

/// Refuses to write over what a run is made of: the checkpoint `run` itself, whatever it is called, and the files that make
/// up any run folder. To be asked before anything is computed.
///
/// # Errors
/// [`Error::Argument`] naming the option, the file and the remedy.
pub fn spare_runs(option: &str, out: &Path, run: Option<&Path>) -> Result<()> {
    let Some(target) = resolved(out) else { return Ok(()) };
    let itself = run.and_then(resolved).is_some_and(|run| run == target);
    let folder = target.parent().unwrap_or(Path::new(""));
    let name = target.file_name().unwrap_or_default();
    let part = Run::is_there(folder) && Run::FILES.iter().any(|&file| name == file);
    if !itself && !part {
        return Ok(());
    }
    let whose = if target.is_dir() { &target } else { folder };
    let expected = format!(
        "another file than those of the run in {}, which could not be used or could not be resumed afterwards; choose \
         another --{option}",
        whose.display()
    );
    Err(Error::argument(option, out.display(), expected))
}

/// Where a name leads to: links followed, and for a file that is not there yet those of its folder.
fn resolved(path: &Path) -> Option<PathBuf> {
    let folder = || path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    path.canonicalize().ok().or_else(|| Some(folder()?.canonicalize().ok()?.join(path.file_name()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_say_what_is_in_a_file() {
        let read = |name: &str| {
            let argument = clap::Arg::new("out").value_parser(ending("png"));
            clap::Command::new("x").arg(argument).try_get_matches_from(["x", name]).map_err(|e| e.to_string())
        };
        for good in ["a.png", "a.PNG", "a", "b.d/a", "/dev/null"] {
            assert_eq!(read(good).unwrap().get_one::<PathBuf>("out"), Some(&PathBuf::from(good)));
        }
        for bad in ["a.jpg", "a.png.svg"] {
            let message = read(bad).unwrap_err();
            assert!(message.contains(bad) && message.contains("ends in .png"), "{message}");
        }
    }
}
