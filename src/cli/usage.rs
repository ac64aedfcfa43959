//! What all options have in common: numbers that may be negative, names of choices that shells complete, other
//! spellings.

use std::any::TypeId;
use std::fmt::Display;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, Command};

use crate::bench::Family;
use crate::engine::device::Precision;
use crate::engine::nn::Activation;
use crate::train::checkpoint::Stored;
use crate::vae::{Binarisation, BoundKind, Estimator, KlTerm, Spread};

/// The command line with all of it.
pub fn complete(command: Command) -> Command {
    let all = |command: Command| command.mut_args(understood);
    super::help::grouped(command.mut_subcommands(all), super::GROUPS)
}

/// An option as it is in all commands.
pub fn understood(arg: Arg) -> Arg {
    spelled(choices(numbers(arg)))
}

/// An option by the other names that people know it by.
fn spelled(arg: Arg) -> Arg {
    match arg.get_long() {
        Some("binarisation") => arg.visible_alias("binarization"),
        Some("lr") => arg.visible_alias("learning-rate"),
        Some("batch") => arg.visible_alias("batch-size"),
        _ => arg,
    }
}

/// An option for one of a few names, which the types themselves list.
fn choices(arg: Arg) -> Arg {
    let arg = named(arg, Activation::ALL);
    let arg = named(arg, Binarisation::ALL);
    let arg = named(arg, BoundKind::ALL);
    let arg = named(arg, KlTerm::ALL);
    let arg = named(arg, Estimator::ALL);
    let arg = named(arg, Spread::ALL);
    let arg = named(arg, Precision::ALL);
    let arg = named(arg, Stored::ALL);
    named(arg, Family::ALL)
}

/// The option with the names of all values, if it is for a `T`.
fn named<T>(arg: Arg, all: &[T]) -> Arg
where
    T: Display + FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>> + Clone + Send + Sync + 'static,
{
    if arg.get_value_parser().type_id() != TypeId::of::<T>() {
        return arg;
    }
    let names = PossibleValuesParser::new(all.iter().map(ToString::to_string));
    arg.value_parser(names.try_map(|name| name.parse::<T>())).hide_possible_values(true)
}

/// A negative number is a value, so that the message about it says what is allowed.
fn numbers(arg: Arg) -> Arg {
    // A flag may be an option whose value is understood: `--no-shuffle`.
    if !arg.get_action().takes_values() || arg.get_num_args().is_some_and(|count| !count.takes_values()) {
        return arg;
    }
    let kind = arg.get_value_parser().type_id();
    let arg = arg.allow_negative_numbers(true);
    if kind == TypeId::of::<usize>() {
        arg.value_parser(whole::<usize>)
    } else if kind == TypeId::of::<u64>() {
        arg.value_parser(whole::<u64>)
    } else if kind == TypeId::of::<u32>() {
        arg.value_parser(whole::<u32>)
    } else if kind == TypeId::of::<f64>() {
        // clap takes -1 for a number, but not -1e-3.
        arg.allow_hyphen_values(true).value_parser(number)
    } else {
        arg
    }
}

fn whole<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more, as in 20".into())
}

fn number(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a number, as in 0.001 or 1e-3".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        complete(super::super::Cli::command()).debug_assert();
    }

    /// `-h` is for a glance: each option one line or two, as it is wrapped for 100 columns.
    #[test]
    fn the_short_help_is_short() {
        for own in complete(super::super::Cli::command()).get_subcommands() {
            for arg in own.get_arguments().filter(|arg| !arg.is_hide_short_help_set()) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.chars().count() <= 105, "{} --{}: {help}", own.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn every_command_is_in_the_help_and_the_help_fits_a_screen() {
        let mut command = complete(super::super::Cli::command());
        let help = command.render_help().to_string();
        // clap's own `help` is what every line of it says already.
        for own in command.get_subcommands().filter(|own| own.get_name() != "help") {
            let line = help.lines().filter(|l| l.split_whitespace().next() == Some(own.get_name()));
            let line = line.collect::<Vec<_>>();
            assert!(line.len() == 1 && line[0].chars().count() <= 100, "{}: {line:?}\n{help}", own.get_name());
        }
        assert!(help.lines().count() <= 50, "{help}");
        for (heading, _) in super::super::GROUPS {
            assert!(help.contains(&format!("\n{heading}:\n")), "{help}");
        }
    }

    #[test]
    fn choices_are_completed() {
        let command = complete(super::super::Cli::command());
        let values = |command_name: &str, option: &str| -> Vec<String> {
            let own = command.find_subcommand(command_name).unwrap();
            let arg = own.get_arguments().find(|arg| arg.get_long() == Some(option)).unwrap();
            arg.get_possible_values().iter().map(|value| value.get_name().to_string()).collect()
        };
        for (name, option, some) in [
            ("train", "activation", "leaky_relu"),
            ("train", "likelihood", "gaussian-optimal"),
            ("train", "binarisation", "dynamic"),
            ("train", "estimator", "sticking_the_landing"),
            ("train", "spread", "log_sigma"),
            ("train", "precision", "tf32"),
            ("export", "dtype", "bf16"),
            ("eval", "estimators", "quadrature"),
            ("bench", "only", "matmul"),
            ("interpolate", "path", "sphere"),
        ] {
            assert!(values(name, option).iter().any(|value| value == some), "{name} --{option} lacks {some}");
        }
    }
}
