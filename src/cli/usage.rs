//! What all options have in common: numbers that may be negative.

use std::any::TypeId;

use clap::{Arg, Command};

/// The command line with all of it.
pub fn complete(command: Command) -> Command {
    command.mut_subcommands(|command| command.mut_args(numbers))
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
}
