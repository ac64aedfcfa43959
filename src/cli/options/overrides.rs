//! The options of a configuration, as what is laid on one.

use std::marker::PhantomData;

use clap::builder::Resettable;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Id};

use crate::study::evidence::Annealing;
use crate::train::{Experiment, RateSchedule};
use crate::vae::KlTerm;

/// The options of the configuration `T` that were typed, to be laid on one: the usual, a recipe's, or a run's.
///
/// A default is shown and is no value: what nobody typed is for the configuration below to say.
pub struct Overrides<T> {
    typed: ArgMatches,
    of: PhantomData<T>,
}

/// The ids of the options of `T`.
pub fn ids<T: Args>() -> impl Iterator<Item = Id> {
    let command = T::augment_args(Command::new("options"));
    command.get_arguments().map(|arg| arg.get_id().clone()).collect::<Vec<_>>().into_iter()
}

impl<T: Args> Args for Overrides<T> {
    fn augment_args(command: Command) -> Command {
        let own = T::augment_args_for_update(Command::new("options"));
        command.args(own.get_arguments().cloned().map(shown))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T> FromArgMatches for Overrides<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Overrides { typed: matches.clone(), of: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The option with its default in the help alone.
fn shown(arg: Arg) -> Arg {
    let values = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let default = values.collect::<Vec<_>>().join(",");
    if default.is_empty() {
        return arg;
    }
    let help = arg.get_help().map(|help| format!("{help} [default: {default}]")).unwrap_or_default();
    let long = arg.get_long_help().map(|help| format!("{help}\n\n[default: {default}]"));
    let arg = arg.default_value(Resettable::Reset).help(help);
    match long {
        Some(long) => arg.long_help(long),
        None => arg,
    }
}

impl<T: Args> Overrides<T> {
    /// Whether the option was typed.
    pub fn has(&self, id: &str) -> bool {
        self.typed.try_contains_id(id).unwrap_or(false)
    }

    /// Lays what was typed on `below`.
    pub fn lay_on(&self, below: &mut T) {
        below.update_from_arg_matches(&self.typed).expect("every value was read when it was parsed");
    }
}

impl Overrides<Experiment> {
    /// `below` with what was typed, and with what follows from that unless it was typed too.
    pub fn over(&self, mut below: Experiment) -> Experiment {
        self.lay_on(&mut below);
        let Experiment { config, schedule } = &mut below;
        if self.has("encoder") && !self.has("decoder") {
            config.model.decoder = config.model.encoder.iter().rev().copied().collect();
        }
        if !self.has("kl") && !config.objective.bound.has_closed_form(&config.model) {
            config.objective.bound.kl = KlTerm::MonteCarlo;
        }
        if self.has("lr") && !self.has("lr_schedule") {
            schedule.lr_schedule = RateSchedule::Constant;
        }
        below
    }
}

impl Overrides<Annealing> {
    /// The usual settings with what was typed, and this seed of all noise.
    pub fn with_seed(&self, seed: u64) -> Annealing {
        let mut settings = Annealing { seed, ..Annealing::default() };
        self.lay_on(&mut settings);
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Overrides<Experiment> {
        let command = Overrides::<Experiment>::augment_args(Command::new("train"));
        let words = ["train"].into_iter().chain(text.split_whitespace());
        Overrides::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_typed_stays() {
        let mut below = Experiment::default();
        (below.config.batch, below.config.shuffle, below.config.model.latent) = (20, false, 7);
        below.schedule.lr_schedule = RateSchedule::Cosine(0.0);
        assert_eq!(typed("").over(below.clone()), below, "no default is laid on it");
        let over = typed("--latent 3 --beta 2").over(below.clone());
        assert_eq!((over.config.model.latent, over.schedule.beta), (3, 2.0));
        assert_eq!((over.config.batch, over.config.shuffle), (20, false));
        let default = Experiment::default();
        assert_eq!(typed("").over(default.clone()), default);
        assert!(!typed("--no-shuffle").over(default).config.shuffle);
    }

    #[test]
    fn what_follows_from_an_option_comes_with_it_unless_it_was_typed() {
        let over = |text: &str| typed(text).over(Experiment::default());
        assert_eq!(over("--hidden 30,20").config.model.decoder, [20, 30]);
        assert_eq!(over("--hidden 30,20 --decoder-hidden 7").config.model.decoder, [7]);
        let kl = |text: &str| over(text).config.objective.bound.kl;
        assert_eq!([kl(""), kl("--samples 3")], [KlTerm::Analytic; 2]);
        assert_eq!(kl("--kl monte_carlo"), KlTerm::MonteCarlo);
        for text in ["--bound iwae", "--estimator score_function", "--upper 8:2:8"] {
            assert_eq!(kl(text), KlTerm::MonteCarlo, "{text}");
        }
        assert_eq!(kl("--bound iwae --kl analytic"), KlTerm::Analytic, "refused later, not mended");
        let mut stepped = Experiment::default();
        stepped.schedule.lr_schedule = RateSchedule::Steps(vec![(1.0, 1e-4)]);
        assert_eq!(typed("--lr 1e-2").over(stepped.clone()).schedule.lr_schedule, RateSchedule::Constant);
        assert_eq!(typed("--beta 2").over(stepped.clone()).schedule.lr_schedule, stepped.schedule.lr_schedule);
    }

    #[test]
    fn defaults_are_shown() {
        let command = Overrides::<Experiment>::augment_args(Command::new("train"));
        let help = command.clone().render_long_help().to_string();
        for default in ["[default: 400]", "[default: 128]", "[default: relu]", "[default: adam]", "[default: 0.001]"] {
            assert!(help.contains(default), "{help}\nlacks {default}");
        }
        assert!(command.get_arguments().all(|arg| arg.get_default_values().is_empty()));
    }
}
