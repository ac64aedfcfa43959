//! Options that would change nothing because of others: whoever types them expects something that would not happen.

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::options::{LikelihoodName, OptimizerName, Schedule};
use super::{EstimatorName, Eval, Model, Optimise};
use crate::engine::error::{Error, Result};
use crate::vae::BoundKind;

/// What was typed, as against defaults and what a recipe says.
struct Typed<'a>(&'a ArgMatches);

impl Typed<'_> {
    fn has(&self, option: &str) -> bool {
        let id = option.replace('-', "_");
        self.0.try_contains_id(&id).is_ok() && self.0.value_source(&id) == Some(ValueSource::CommandLine)
    }

    /// Refuses those of the options that were typed where they have no effect.
    fn without_effect(&self, options: &[&str], because: &str, remedy: &str) -> Result<()> {
        match options.iter().find(|option| self.has(option)) {
            None => Ok(()),
            Some(option) => {
                let expected = format!("{remedy}, or no --{option}");
                Err(Error::argument(&format!("--{option}"), format!("an option without effect: {because}"), expected))
            }
        }
    }
}

/// Checks the options of a training of so many epochs, or of a plan, which has none.
///
/// # Errors
/// [`Error::Argument`] naming the option without effect, the one that takes it away, and the remedy.
pub fn of_training(typed: &ArgMatches, model: &Model, optimise: &Optimise, epochs: Option<u32>) -> Result<()> {
    let typed = Typed(typed);
    match optimise.optimizer {
        OptimizerName::Adam => {
            typed.without_effect(&["momentum"], "--optimizer is adam", "--optimizer sgd beside it")?
        }
        OptimizerName::Sgd => {
            let adams = ["beta1", "beta2", "eps", "second-moment"];
            typed.without_effect(&adams, "--optimizer is sgd", "--optimizer adam beside it")?;
        }
    }
    let floorless = match model.likelihood {
        LikelihoodName::Bernoulli => Some("bernoulli"),
        LikelihoodName::ContinuousBernoulli => Some("continuous-bernoulli"),
        _ => None,
    };
    if let Some(name) = floorless {
        let because = format!("--likelihood {name} has no spread");
        typed.without_effect(&["sigma-floor"], &because, "--likelihood gaussian beside it")?;
    }
    if optimise.bound == BoundKind::Iwae && optimise.samples == 1 {
        let because = "with --samples 1 the importance weighted bound is the elbo";
        typed.without_effect(&["bound"], because, "--samples 5 (say) beside it")?;
        typed.without_effect(&["samples"], "of --bound iwae it leaves the elbo", "--samples 5 (say)")?;
    }
    if optimise.beta == 0.0 {
        typed.without_effect(&["kl-warmup"], "--beta is 0, and so it stays", "--beta 1 beside it")?;
    }
    let Some(epochs) = epochs else { return Ok(()) };
    let all = f64::from(epochs);
    if optimise.kl_warmup > all && typed.has("kl-warmup") {
        let found =
            format!("{}, longer than the run: --epochs is {epochs}, so that --beta is not reached", optimise.kl_warmup);
        return Err(Error::argument("--kl-warmup", found, "at most the epochs of the run, or more --epochs"));
    }
    no_late_steps(&typed, optimise, epochs)
}

/// Steps of the learning rate that are beyond the end of a run of `epochs`.
fn no_late_steps(typed: &Typed, optimise: &Optimise, epochs: u32) -> Result<()> {
    if let Schedule::Steps(steps) = &optimise.lr_schedule
        && let Some((late, _)) = steps.iter().find(|(epoch, _)| *epoch >= f64::from(epochs))
        && typed.has("lr-schedule")
    {
        let found = format!("a step after epoch {late}, which changes nothing: --epochs is {epochs}");
        return Err(Error::argument("--lr-schedule", found, "steps before the end of the run, or more --epochs"));
    }
    Ok(())
}

/// Checks the options beside `--resume`, for a run that has done `done` of `epochs`.
///
/// # Errors
/// As [`of_training`].
pub fn of_resumed(typed: &ArgMatches, optimise: &Optimise, done: u32, epochs: u32) -> Result<()> {
    let typed = Typed(typed);
    if done == epochs {
        let remedy = format!("--epochs {} beside it", 2 * u64::from(done.max(1)));
        typed.without_effect(&["lr-schedule", "data", "pause-at"], "the run is finished", &remedy)?;
    }
    no_late_steps(&typed, optimise, epochs)
}

/// Checks the options of `elbo eval`.
///
/// # Errors
/// As [`of_training`].
pub fn of_estimates(typed: &ArgMatches, args: &Eval) -> Result<()> {
    use EstimatorName::{Ais, Harmonic, Iwae, Prior};
    let typed = Typed(typed);
    let asked = |names: &[EstimatorName]| args.estimators.iter().any(|name| names.contains(name));
    if !asked(&[Iwae, Prior, Harmonic]) {
        let because = "none of --estimators is iwae, prior or harmonic";
        typed.without_effect(&["samples"], because, "--estimators iwae (say) beside it")?;
    }
    if !asked(&[Ais]) && args.bdmc.is_none() {
        let because = "--estimators does not name ais, and --bdmc is not given";
        let annealing = ["chains", "temperatures", "leapfrog"];
        typed.without_effect(&annealing, because, "--estimators ais (say) beside it")?;
    }
    if args.estimators.is_empty() {
        let because = "--estimators names none";
        typed.without_effect(&["images"], because, "--estimators elbo (say) beside it")?;
    }
    Ok(())
}
