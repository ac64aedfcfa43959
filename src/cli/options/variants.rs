//! Choices with numbers of their own as options: one option names the variant, and each number of any variant is one.
//!
//! What belongs to which variant is not listed here: it is what the variant stores.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::engine::error::{Error, Result};
use crate::engine::optim::Optimizer;
use crate::vae::Likelihood;

/// An enum that is stored as its `kind` and the numbers of that kind.
pub trait Variants: Serialize + DeserializeOwned {
    /// The option that names the kind.
    const OPTION: &str;
    /// Its help.
    const HELP: &str;
    /// Under which heading the help has it.
    const HEADING: &str;
    /// The numbers of all kinds.
    const NUMBERS: &[Number];

    /// What the help says of each kind; nothing where the names say it.
    fn kinds() -> String {
        String::new()
    }

    /// Every kind with its usual numbers; the first is the usual one.
    fn usual() -> Vec<Self>;
}

/// An option for a number that some kinds have.
pub struct Number {
    id: &'static str,
    /// What the kinds call it.
    fields: &'static [&'static str],
    value_name: &'static str,
    help: &'static str,
}

impl Number {
    fn of<'a>(&self, stored: &'a Map<String, Value>) -> Option<&'a Value> {
        self.fields.iter().find_map(|field| stored.get(*field))
    }

    /// As typed: the id with dashes.
    fn option(&self) -> String {
        self.id.replace('_', "-")
    }

    /// The usual values, with their kinds where they are not the same for all.
    fn default<T: Variants>(&self) -> String {
        let usual: Vec<(String, f64)> = T::usual()
            .iter()
            .map(stored)
            .filter_map(|fields| Some((kind(&fields), self.of(&fields)?.as_f64()?)))
            .collect();
        match usual.iter().all(|(_, value)| *value == usual[0].1) {
            true => usual[0].1.to_string(),
            false => usual.iter().map(|(kind, value)| format!("{value} for {kind}")).collect::<Vec<_>>().join(", "),
        }
    }
}

fn stored<T: Serialize>(variant: &T) -> Map<String, Value> {
    match serde_json::to_value(variant) {
        Ok(Value::Object(fields)) => fields,
        other => unreachable!("a choice is stored as its kind and its numbers, not as {other:?}"),
    }
}

/// The name of the kind on the command line.
fn kind(fields: &Map<String, Value>) -> String {
    fields["kind"].as_str().expect("a kind is a name").replace('_', "-")
}

fn augment<T: Variants>(command: Command) -> Command {
    let kinds: Vec<String> = T::usual().iter().map(|variant| kind(&stored(variant))).collect();
    let choice = Arg::new(T::OPTION).long(T::OPTION).value_name("NAME").help_heading(T::HEADING);
    let choice = choice.help(T::HELP).default_value(kinds[0].clone()).hide_possible_values(true);
    let each = T::kinds();
    let choice = if each.is_empty() { choice } else { choice.long_help(format!("{}\n\n{each}", T::HELP)) };
    let numbers = T::NUMBERS.iter().map(|number| {
        let help = format!("{} [default: {}]", number.help, number.default::<T>());
        let arg = Arg::new(number.id).long(number.option()).value_name(number.value_name).help(help);
        arg.help_heading(T::HEADING).value_parser(value_parser!(f64)).hide_short_help(true)
    });
    command.arg(choice.value_parser(PossibleValuesParser::new(kinds))).args(numbers)
}

/// Another kind begins with its usual numbers; numbers that the kind does not have are left to [`no_idle_number`].
fn update<T: Variants>(current: &mut T, matches: &ArgMatches) {
    let mut fields = stored(current);
    if let Some(wanted) = matches.get_one::<String>(T::OPTION)
        && *wanted != kind(&fields)
    {
        let usual = T::usual().iter().map(stored).find(|fields| kind(fields) == *wanted);
        fields = usual.expect("clap knows the same kinds");
    }
    for number in T::NUMBERS {
        let field = number.fields.iter().find(|field| fields.contains_key(**field));
        if let (Some(&value), Some(field)) = (matches.get_one::<f64>(number.id), field) {
            fields.insert((*field).to_string(), value.into());
        }
    }
    *current = serde_json::from_value(Value::Object(fields)).expect("a kind with its own numbers");
}

/// Refuses a number that was typed (`has` knows) and that the chosen kind does not have.
///
/// # Errors
/// [`Error::Argument`] naming the option, the kind, and a kind that has it.
pub fn no_idle_number<T: Variants>(chosen: &T, has: impl Fn(&str) -> bool) -> Result<()> {
    let fields = stored(chosen);
    let idle = |number: &&Number| has(number.id) && number.of(&fields).is_none();
    let Some(number) = T::NUMBERS.iter().find(idle) else { return Ok(()) };
    let (option, own, choice) = (number.option(), kind(&fields), T::OPTION);
    let other = T::usual().iter().map(stored).find(|fields| number.of(fields).is_some());
    let other = kind(&other.expect("some kind has every number"));
    let found = format!("an option without effect: --{choice} is {own}");
    let expected = format!("--{choice} {other} beside it in place of --{choice} {own}, or no --{option}");
    Err(Error::argument(&format!("--{option}"), found, expected))
}

/// Makes the choice a group of options.
macro_rules! options {
    ($type:ty) => {
        impl Args for $type {
            fn augment_args(command: Command) -> Command {
                augment::<$type>(command)
            }

            fn augment_args_for_update(command: Command) -> Command {
                augment::<$type>(command)
            }
        }

        impl FromArgMatches for $type {
            fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
                let mut usual = <$type>::usual().swap_remove(0);
                usual.update_from_arg_matches(matches).map(|()| usual)
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
                update(self, matches);
                Ok(())
            }
        }
    };
}

options!(Optimizer);
options!(Likelihood);

impl Variants for Optimizer {
    const OPTION: &str = "optimizer";
    const HELP: &str = "Update rule: adam, or sgd, descent with momentum";
    const HEADING: &str = "Optimisation";
    const NUMBERS: &[Number] = &[
        Number {
            id: "beta1",
            fields: &["beta1"],
            value_name: "DECAY",
            help: "Decay of adam's first moment, from 0 up to, not including, 1",
        },
        Number {
            id: "beta2",
            fields: &["beta2"],
            value_name: "DECAY",
            help: "Decay of adam's second moment, from 0 up to, not including, 1",
        },
        Number {
            id: "eps",
            fields: &["eps"],
            value_name: "EPS",
            help: "What adam adds to the root of its second moment",
        },
        Number {
            id: "momentum",
            fields: &["momentum"],
            value_name: "M",
            help: "Momentum of sgd, from 0 up to, not including, 1",
        },
    ];

    fn usual() -> Vec<Optimizer> {
        vec![Optimizer::adam(), Optimizer::Sgd { momentum: 0.9 }]
    }
}

impl Variants for Likelihood {
    const OPTION: &str = "likelihood";
    const HELP: &str = "Distribution of a pixel given z: bernoulli, gaussian and four more";
    const HEADING: &str = "Model";
    const NUMBERS: &[Number] = &[Number {
        id: "sigma_floor",
        fields: &["sigma_floor", "scale_floor"],
        value_name: "SIGMA",
        help: "Smallest standard deviation (or scale) of a pixel, where white is 1",
    }];

    fn kinds() -> String {
        let each =
            Likelihood::all().into_iter().map(|l| format!("{}: {}", l.name().replace('_', "-"), l.facts().summary));
        format!("{}.", each.collect::<Vec<_>>().join("; "))
    }

    fn usual() -> Vec<Likelihood> {
        Likelihood::all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches<T: Args>(text: &str) -> ArgMatches {
        let command = T::augment_args_for_update(Command::new("x"));
        let command = command.mut_args(|arg| arg.default_value(clap::builder::Resettable::Reset));
        command.try_get_matches_from(["x"].into_iter().chain(text.split_whitespace())).unwrap()
    }

    fn laid<T: Variants + Args>(mut on: T, text: &str) -> T {
        on.update_from_arg_matches(&matches::<T>(text)).unwrap();
        on
    }

    #[test]
    fn a_kind_begins_with_its_usual_numbers_and_keeps_its_own() {
        let adam = Optimizer::Adam { beta1: 0.99, beta2: 0.9, eps: 5e-6 };
        assert_eq!(laid(adam, ""), adam);
        assert_eq!(laid(adam, "--optimizer adam --eps 1e-4"), Optimizer::Adam { beta1: 0.99, beta2: 0.9, eps: 1e-4 });
        assert_eq!(laid(adam, "--optimizer sgd"), Optimizer::Sgd { momentum: 0.9 });
        assert_eq!(laid(laid(adam, "--optimizer sgd"), "--optimizer adam"), Optimizer::adam());
        let logistic = laid(Likelihood::bernoulli(), "--likelihood discretised-logistic");
        assert_eq!(logistic, Likelihood::discretised_logistic(0.002));
        assert_eq!(laid(logistic, "--sigma-floor 0.1"), Likelihood::discretised_logistic(0.1));
        assert_eq!(laid(Likelihood::bernoulli(), "--sigma-floor 0.1"), Likelihood::bernoulli());
    }

    #[test]
    fn a_number_of_another_kind_is_refused_and_every_number_has_a_kind() {
        let has = |id: &str| id == "momentum";
        no_idle_number(&Optimizer::Sgd { momentum: 0.9 }, has).unwrap();
        let message = no_idle_number(&Optimizer::adam(), has).unwrap_err().to_string();
        for part in ["--momentum", "--optimizer is adam", "--optimizer sgd beside it"] {
            assert!(message.contains(part), "{message}");
        }
        fn numbers<T: Variants>() {
            for number in T::NUMBERS {
                let usual: Vec<_> = T::usual().iter().map(stored).collect();
                assert!(usual.iter().any(|fields| number.of(fields).is_some()), "no kind has {}", number.id);
            }
            let all = T::usual();
            let stored: Vec<_> = all.iter().flat_map(stored).map(|(field, _)| field).collect();
            let known = |field: &str| T::NUMBERS.iter().any(|number| number.fields.contains(&field));
            assert!(stored.iter().all(|field| field == "kind" || known(field)), "{stored:?}");
        }
        numbers::<Optimizer>();
        numbers::<Likelihood>();
    }

    #[test]
    fn defaults_that_differ_are_named_with_their_kinds() {
        assert_eq!(Optimizer::NUMBERS[0].default::<Optimizer>(), "0.9");
        let floors = Likelihood::NUMBERS[0].default::<Likelihood>();
        assert!(floors.starts_with("0.1 for gaussian, 0.01 for gaussian-shared"), "{floors}");
    }
}
