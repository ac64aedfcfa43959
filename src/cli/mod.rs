//! The command `elbo`: arguments in, results on stdout, progress and warnings on stderr.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done (also when `--pause-at` stopped the training as asked) |
//! | 1 | the world stands in the way: a file, a device, a training that left the finite numbers |
//! | 2 | the command line cannot be meant: an unknown option, or a value outside of what is allowed |
//! | 130 | stopped by Ctrl-C or a request to terminate; what was trained is saved, and stderr or stdout says how to go on |
//!
//! Commands that have nothing to save are ended by the signal itself, which shells report as 130 or 143.

#![deny(clippy::print_stderr, clippy::print_stdout)] // they panic when nobody reads: `say` and `print` do not

mod answer;
mod blocks;
mod board;
mod cross_check;
mod estimates;
mod help;
mod interrupt;
mod minus;
mod options;
mod output;
mod phase;
pub mod picture;
mod pictures;
mod progress;
mod ranks;
mod recipe;
mod run_name;
mod scale;
mod sparkline;
mod usage;
mod use_run;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{ExitCode, Termination};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;

use crate::engine::error::{Choice, Error, Result};
use crate::study::plural;

/// Train a variational autoencoder on the evidence lower bound, with gradients made from scratch.
///
/// Without --data the program draws its own handwritten digits, so that `elbo train` works on any machine. All
/// likelihoods and their bounds are in nats per image.
#[derive(Parser)]
#[command(name = "elbo", version, max_term_width = 110, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Results go to stdout, progress and warnings to stderr. Exit codes: 0 done; 1 a file, a device \
    or the training failed; 2 an option or its value is wrong; 130 interrupted (what was trained is saved first). `elbo COMMAND -h` says more of a command.";

/// Declares the commands in the groups of the help: for each the file, in which its options are a struct whose documentation
/// is its help, and whose `run` does what it says.
macro_rules! commands {
    ($($heading:literal: { $($file:ident :: $Command:ident),* $(,)? })*) => {
        $($(mod $file;)*)*

        #[derive(Subcommand)]
        enum Command {
            $($($Command(Box<$file::$Command>)),*),*
        }

        impl Command {
            fn run(&self) -> Result<ExitCode> {
                match self {
                    $($(Command::$Command(command) => command.run().map(Termination::report)),*),*
                }
            }
        }

        /// The headings, and how many commands are under each.
        const GROUPS: &[(&str, usize)] = &[$(($heading, [$(stringify!($Command)),*].len())),*];
    };
}

commands! {
    "Train a model and look at it": {
        train::Train,
        sweep::Sweep,
        sample::Sample,
        reconstruct::Reconstruct,
        decode::Decode,
        interpolate::Interpolate,
        eval::Eval,
        explore::Explore,
        report::Report,
        runs::Runs,
    }
    "Study it": {
        derive::Derive,
        gradcheck::Gradcheck,
        exercise::Exercise,
        bounds::Bounds,
        richness::Richness,
        lab::Lab,
        implied_sigma::ImpliedSigma,
    }
    "Tools": {
        plan::Plan,
        bench::Bench,
        export::Export,
        info::Info,
        recipes::Recipes,
        reproduce::Reproduce,
        completions::Completions,
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let matches = usage::complete(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let alone = match cli.command {
        Command::Train(_) | Command::Sweep(_) => Ok(()),
        _ => ranks::must_be_alone(),
    };
    alone.and_then(|()| cli.command.run()).unwrap_or_else(|error| {
        complain(&error);
        ExitCode::from(exit_code(&error))
    })
}

/// Says what went wrong.
fn complain(error: &Error) {
    say(format_args!("elbo: {error}{}", options(error)));
}

/// The options by which this command line does what an error of the library advises.
fn options(error: &Error) -> &'static str {
    match error {
        Error::Occupied { .. } => " (--out FOLDER, --resume FOLDER)",
        Error::Device { remedy, .. } => match remedy.choice {
            Some(Choice::NamedGpu) => " (--device cuda)",
            Some(Choice::Smaller) => " (--hidden, --latent, --batch)",
            Some(Choice::FewerAtOnce) => " (--jobs)",
            Some(Choice::F32) => " (--precision f32)",
            Some(Choice::Cpu) => " (--device cpu)",
            None => "",
        },
        _ => "",
    }
}

/// 2 for what the command line asks for, as for what clap refuses; 1 for what the world answers.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Argument { .. } => 2,
        _ => 1,
    }
}

/// Prints a result for people, whose numbers have the [sign](minus) that the reader understands.
fn print(text: &str) -> Result<()> {
    print_raw(&minus::suited(text, io::stdout().is_terminal()))
}

/// Prints what is not to be touched. A reader that has gone away (`elbo plan | head`) is no error.
fn print_raw(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write", "standard output".as_ref())(e)),
        _ => Ok(()),
    }
}

/// Writes numbers to a file.
fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("a result is plain data");
    crate::engine::file::replace(path, |file| writeln!(file, "{text}"))
}

/// Says something on stderr. Whether anybody listens (`elbo train 2>&1 | head`) is no matter of the work's.
fn say(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says that a debug build is slow, where that is what runs.
fn warn_if_debug_build() {
    if cfg!(debug_assertions) {
        say("warning: this is a debug build, ten times slower or more; use `cargo run --release -- …`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap checks this itself in a debug build, where an option that does not exist ends the command.
    #[test]
    fn options_exclude_only_options_that_there_are() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                command.get_arg_conflicts_with(argument);
            }
        }
    }
}
