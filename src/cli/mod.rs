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

mod args;
mod bench;
mod bounds;
mod cross_check;
mod describe;
mod estimates;
mod export;
mod implied_sigma;
mod interrupt;
mod output;
mod phase;
pub mod picture;
mod pictures;
mod progress;
mod recipe;
mod reproduce;
mod richness;
mod scale;
mod train;
mod usage;
mod use_run;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::engine::error::{Error, Result};

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
    or the training failed; 2 an option or its value is wrong; 130 interrupted (what was trained is saved first).";

#[derive(Subcommand)]
enum Command {
    /// Train a model; write a run folder with checkpoint, metrics and pictures
    Train(Box<args::Train>),
    /// Draw new images from the model of a run
    Sample(args::Sample),
    /// Show test images and what the model makes of them
    Reconstruct(args::Reconstruct),
    /// Evaluate a run on its test set, or on other data, with any estimators of log p(x)
    Eval(args::Eval),
    /// Write the parameters of a run to a file of their own, in f32, bf16 or f16
    Export(args::Export),
    /// Ask how rich z is: what a run's latent space, or one of each of several sizes, holds of an image
    Richness(Box<args::Richness>),
    /// Draw every estimate of one image's log p(x) against the number of samples
    Bounds(args::Bounds),
    /// Print the plan of a training step: kernels, shapes, bytes, FLOPs
    Plan(Box<args::Plan>),
    /// List the recipes: published experiments and the numbers they reached
    Recipes,
    /// Run a published experiment, or take up its run, and set the result beside the published numbers
    Reproduce(Box<reproduce::Options>),
    /// Say which sigma and which beta a weighted loss implies, as in "mean MSE + 0.00025 KL"
    ImpliedSigma(implied_sigma::Options),
    /// Compare CPU and GPU: times, share of the roofline, and the size from which the GPU is faster
    Bench(args::Bench),
    /// Print version, instruction set, threads and device
    Info,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let matches = usage::complete(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let own = matches.subcommand().map_or(&matches, |(_, own)| own);
    let done = match cli.command {
        Command::Train(args) => train_with_recipe(*args, own),
        Command::Recipes => reproduce::list().map(|()| ExitCode::SUCCESS),
        Command::Reproduce(args) => reproduce::reproduce(&args, own, parse_train),
        Command::ImpliedSigma(args) => implied_sigma::implied_sigma(&args).map(|()| ExitCode::SUCCESS),
        Command::Sample(args) => use_run::sample(&args).map(|()| ExitCode::SUCCESS),
        Command::Reconstruct(args) => use_run::reconstruct(&args).map(|()| ExitCode::SUCCESS),
        Command::Eval(args) => use_run::eval(&args, own).map(|()| ExitCode::SUCCESS),
        Command::Export(args) => export::export(&args).map(|()| ExitCode::SUCCESS),
        Command::Richness(args) => richness::richness(&args, own),
        Command::Bounds(args) => bounds::bounds(&args).map(|()| ExitCode::SUCCESS),
        Command::Plan(args) => describe::plan(&args, own).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::bench(&args).map(|()| ExitCode::SUCCESS),
        Command::Info => describe::info().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        say(format_args!("elbo: {error}"));
        ExitCode::from(exit_code(&error))
    })
}

/// 2 for what the command line asks for, as for what clap refuses; 1 for what the world answers.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Argument { .. } => 2,
        Error::Io { .. } | Error::File { .. } | Error::Device { .. } | Error::Slot { .. } | Error::NotFinite { .. } => {
            1
        }
    }
}

fn train_with_recipe(args: args::Train, own: &ArgMatches) -> Result<ExitCode> {
    match args.recipe {
        Some(_) => train::train(&recipe::complete(&args, own, parse_train)?, own),
        None => train::train(&args, own),
    }
}

/// The options of `elbo train` from arguments that a recipe made.
fn parse_train(arguments: Vec<OsString>) -> std::result::Result<args::Train, String> {
    let arguments = std::iter::once(OsString::from("elbo")).chain(arguments);
    let matches = usage::complete(Cli::command()).try_get_matches_from(arguments);
    match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(Cli { command: Command::Train(args) }) => Ok(*args),
        Ok(_) => Err("another command than train".into()),
        Err(e) => Err(e.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_string()),
    }
}

/// Prints a result. A reader that has gone away (`elbo plan | head`) is no error.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write", "standard output".as_ref())(e)),
        _ => Ok(()),
    }
}

/// Says something on stderr. Whether anybody listens (`elbo train 2>&1 | head`) is no matter of the work's.
fn say(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// `1 epoch`, `10 epochs`.
fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Writes a result to a file.
fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("a result is plain data");
    crate::data::file::replace(path, |file| writeln!(file, "{text}"))
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
