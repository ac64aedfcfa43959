//! What all commands have in common on the command line: numbers that may be negative, headings, a short and a long help.

use std::any::TypeId;

use clap::{Arg, Args, Command};

use super::args;

/// Options that `-h` leaves to `--help`: those of one likelihood, one optimiser or one published protocol.
const RARE: [&str; 24] = [
    "data_seed",
    "decoder_hidden",
    "sigma_floor",
    "upper",
    "spread",
    "init",
    "no_shuffle",
    "train_images",
    "output_bias",
    "beta1",
    "beta2",
    "eps",
    "second_moment",
    "momentum",
    "clip",
    "kl",
    "estimator",
    "free_bits",
    "protocol",
    "stages",
    "pause_at",
    "chains",
    "temperatures",
    "leapfrog",
];

/// The command line with all of it.
pub fn complete(command: Command) -> Command {
    let groups = [
        ("Images", ids(args::Data::augment_args)),
        ("Model", ids(args::Model::augment_args)),
        ("Training", ids(args::Optimise::augment_args)),
        ("Annealing", ids(args::Annealing::augment_args)),
        ("Machine", ids(args::Machine::augment_args)),
    ];
    let grouped = |mut command: Command| {
        for (heading, ids) in &groups {
            let own = |id: &String| command.get_arguments().any(|arg| arg.get_id() == id.as_str());
            // A command may have an option of the same name and none of the group's others.
            if ids.iter().all(own) {
                for id in ids {
                    command = command.mut_arg(id, |arg| arg.help_heading(*heading));
                }
            }
        }
        command
    };
    let rare = |arg: Arg| if RARE.iter().any(|id| arg.get_id() == *id) { arg.hide_short_help(true) } else { arg };
    let command = command.mut_subcommands(|c| grouped(c).mut_args(|arg| rare(numbers(arg))));
    // `richness` has --latents; the --latent that comes with the other options of a model is never valid there.
    command.mut_subcommand("richness", |c| c.mut_arg("latent", |latent| latent.hide(true)))
}

/// The options of a group.
fn ids(group: fn(Command) -> Command) -> Vec<String> {
    group(Command::new("group")).get_arguments().map(|arg| arg.get_id().to_string()).collect()
}

/// A negative number is a value, so that the message about it says what is allowed.
fn numbers(arg: Arg) -> Arg {
    if !arg.get_action().takes_values() {
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
    text.parse().map_err(|_| "expected a number, as in 0.001 or 1e-3".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_no_option_is_listed_in_vain() {
        let command = complete(super::super::Cli::command());
        command.clone().debug_assert();
        let known: Vec<String> = command
            .get_subcommands()
            .flat_map(|c| c.get_arguments().map(|arg| arg.get_id().to_string()).collect::<Vec<_>>())
            .collect();
        RARE.iter().for_each(|id| assert!(known.iter().any(|k| k == id), "there is no option {id}"));
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
