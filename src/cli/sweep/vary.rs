//! What varies in a sweep: options of `elbo train` with the values that each takes.

use std::str::FromStr;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::cli::options::{Overrides, RunOptions, effects};
use crate::cli::usage;
use crate::engine::error::{Error, Result};
use crate::train::Experiment;

/// Folders with longer names would be no help.
const LONGEST: usize = 80;

/// An option and its values, as typed: `lr=1e-3,3e-4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariedOption {
    /// The option's first name, without dashes.
    pub option: String,
    /// At least two, all different.
    pub values: Vec<String>,
}

/// The options that can vary: those of a configuration.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Variable {
    #[command(flatten)]
    training: Overrides<Experiment>,
    #[arg(long)]
    epochs: Option<u32>,
    #[arg(long)]
    seed: Option<u64>,
}

impl Variable {
    fn options() -> clap::Command {
        Variable::command().mut_args(usage::understood)
    }

    /// As if this were the command line.
    fn parse(varied: &[String], values: &[String]) -> Result<Variable> {
        let words = varied.iter().zip(values).map(|(option, value)| format!("--{option}={value}"));
        let read = Variable::options().try_get_matches_from(words).and_then(|m| Variable::from_arg_matches(&m));
        read.map_err(|error| {
            // Of clap's message the line that says what is wrong; how `train` is used is no help here.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string();
            Error::argument("vary", line, "values that `elbo train` takes for the option")
        })
    }
}

impl FromStr for VariedOption {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<VariedOption, String> {
        let wrong = || "expected an option of `elbo train` and two values at least, as in lr=1e-3,3e-4".to_string();
        let (name, list) = text.split_once('=').ok_or_else(wrong)?;
        let name = name.trim_start_matches("--");
        let options = Variable::options();
        let known = options
            .get_arguments()
            .find(|arg| arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name)));
        let option = known.and_then(|arg| arg.get_long()).ok_or_else(|| {
            format!(
                "\"{name}\" is no option of a configuration; `elbo train --help` has them under Model and Optimisation"
            )
        })?;
        let separator = if list.contains(';') { ';' } else { ',' };
        let values: Vec<String> = list.split(separator).map(|value| value.trim().to_string()).collect();
        if values.len() < 2 || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        if let Some(twice) = (1..values.len()).find(|&i| values[..i].contains(&values[i])) {
            return Err(format!("{} stands there twice", values[twice]));
        }
        Ok(VariedOption { option: option.into(), values })
    }
}

/// Every choice of one value for each option, the last option varying fastest; without options one empty choice.
pub fn combinations(axes: &[VariedOption]) -> Vec<Vec<String>> {
    axes.iter().fold(vec![Vec::new()], |chosen, axis| {
        let with = |before: &Vec<String>, value: &String| before.iter().chain([value]).cloned().collect();
        chosen.iter().flat_map(|before| axis.values.iter().map(move |value| with(before, value))).collect()
    })
}

/// A name for each combination, that of no options empty.
pub fn labels(varied: &[String], combinations: &[Vec<String>]) -> Vec<String> {
    let plain = |c: char| match c {
        ',' => 'x',
        c if c.is_ascii_alphanumeric() || ".+-".contains(c) => c,
        _ => '_',
    };
    let label = |values: &Vec<String>| -> String {
        // A name says by itself what it is a name of.
        let option =
            |option: &str, value: &str| if value.starts_with(char::is_alphabetic) { "" } else { option }.to_string();
        let words = varied.iter().zip(values).map(|(o, v)| option(o, v) + &v.chars().map(plain).collect::<String>());
        words.collect::<Vec<String>>().join("-")
    };
    let labels: Vec<String> = combinations.iter().map(label).collect();
    let told_apart = (1..labels.len()).all(|i| !labels[..i].contains(&labels[i]));
    match told_apart && labels.iter().all(|label| label.len() <= LONGEST) {
        true => labels,
        false => (1..=labels.len()).map(|i| format!("combination{i}")).collect(),
    }
}

/// What was asked for, with these values of what varies.
///
/// # Errors
/// [`Error::Argument`] when an option varies twice or was typed too, when the seed varies and there are replicas, and when a value
/// cannot be read or is without effect.
pub fn experiment(begin: &RunOptions, varied: &[String], values: &[String], replicas: u32) -> Result<Experiment> {
    let twice = (1..varied.len()).find(|&i| varied[..i].contains(&varied[i]));
    if let Some(twice) = twice {
        return Err(Error::argument(
            "vary",
            format!("{} twice", varied[twice]),
            "each option once, with all of its values",
        ));
    }
    let variable = Variable::parse(varied, values)?;
    for (option, typed) in typed_too(begin, varied) {
        if typed {
            let found = format!("{option}, which --{option} sets");
            return Err(Error::argument("vary", found, format!("one of the two; --{option} may be one of the values")));
        }
    }
    if variable.seed.is_some() && replicas > 1 {
        let expected = "--replicas for seeds that follow each other, or --vary seed=… for others, not both";
        return Err(Error::argument("replicas", replicas, expected));
    }
    let mut asked = variable.training.over(begin.experiment()?);
    asked.config.epochs = variable.epochs.unwrap_or(asked.config.epochs);
    asked.config.seed = variable.seed.unwrap_or(asked.config.seed);
    for typed in [&begin.training, &variable.training] {
        effects::of_training(typed, &asked, Some(asked.config.epochs))?;
    }
    Ok(asked)
}

/// Whether each of the options that vary has a value on the command line as well. The seed has: replicas count from it.
fn typed_too<'a>(begin: &'a RunOptions, varied: &'a [String]) -> impl Iterator<Item = (&'a str, bool)> {
    let options = Variable::options();
    varied.iter().map(move |option| {
        let arg =
            options.get_arguments().find(|arg| arg.get_long() == Some(option)).expect("it was read as a known option");
        let typed = match option.as_str() {
            "seed" => false,
            "epochs" => begin.epochs.is_some(),
            _ => begin.training.has(arg.get_id().as_str()),
        };
        (option.as_str(), typed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(text: &str) -> VariedOption {
        text.parse().unwrap()
    }

    #[test]
    fn what_varies_is_an_option_with_values() {
        assert_eq!(
            axis("lr=1e-3,3e-4"),
            VariedOption { option: "lr".into(), values: vec!["1e-3".into(), "3e-4".into()] }
        );
        assert_eq!(axis("--learning-rate=1e-3, 3e-4"), axis("lr=1e-3,3e-4"));
        assert_eq!(axis("hidden=400;200,100").values, ["400", "200,100"]);
        assert_eq!(axis("epochs=1,2").option, "epochs");
        for (text, words) in [
            ("lr", "as in lr=1e-3"),
            ("lr=1", "two values"),
            ("lr=1,,2", "two values"),
            ("lr=1,1", "twice"),
            ("rate=1,2", "\"rate\""),
            ("threads=1,2", "\"threads\""),
        ] {
            let error = text.parse::<VariedOption>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn combinations_are_all_and_have_names() {
        let varied = ["lr", "hidden"].map(String::from);
        let all = combinations(&[axis("lr=1e-3,3e-4"), axis("hidden=400;200,100")]);
        assert_eq!(all.len(), 4);
        assert_eq!(all[1], ["1e-3", "200,100"]);
        assert_eq!(
            labels(&varied, &all),
            ["lr1e-3-hidden400", "lr1e-3-hidden200x100", "lr3e-4-hidden400", "lr3e-4-hidden200x100"]
        );
        assert_eq!(labels(&["activation".into()], &[vec!["tanh".into()]]), ["tanh"]);
        assert_eq!(combinations(&[]), [Vec::<String>::new()]);
        assert_eq!(labels(&[], &combinations(&[])), [""]);
        let alike = [vec!["1x1".to_string()], vec!["1,1".to_string()]];
        assert_eq!(labels(&["hidden".into()], &alike), ["combination1", "combination2"]);
    }
}
