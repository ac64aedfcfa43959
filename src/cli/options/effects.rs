//! Options that would change nothing because of others: whoever types them expects something that would not happen.

use super::{Overrides, no_idle_number};
use crate::engine::error::{Error, Result};
use crate::engine::optim::Optimizer;
use crate::train::{Experiment, RateSchedule};
use crate::vae::BoundKind;

/// Refuses the first of the options that was typed, where it has no effect.
///
/// # Errors
/// [`Error::Argument`] naming the option, what takes its effect away, and the remedy.
pub fn without_effect<'a>(
    options: impl IntoIterator<Item = (&'a str, bool)>,
    because: &str,
    remedy: &str,
) -> Result<()> {
    match options.into_iter().find(|(_, typed)| *typed) {
        None => Ok(()),
        Some((option, _)) => {
            let expected = format!("{remedy}, or no --{option}");
            Err(Error::argument(&format!("--{option}"), format!("an option without effect: {because}"), expected))
        }
    }
}

/// Checks the options of a training of so many epochs, or of a plan, which has none; `asked` is what they come to.
///
/// # Errors
/// As [`without_effect`].
pub fn of_training(typed: &Overrides<Experiment>, asked: &Experiment, epochs: Option<u32>) -> Result<()> {
    let Experiment { config, schedule } = asked;
    no_idle_number(&config.objective.optimizer, |id| typed.has(id))?;
    no_idle_number(&config.model.likelihood, |id| typed.has(id))?;
    let has = |option: &'static str| [(option, typed.has(&option.replace('-', "_")))];
    if let Optimizer::Sgd { .. } = config.objective.optimizer {
        without_effect(has("second-moment"), "--optimizer is sgd", "--optimizer adam beside it")?;
    }
    let bound = config.objective.bound;
    if bound.kind == BoundKind::Iwae && bound.samples == 1 {
        let because = "with --samples 1 the importance weighted bound is the elbo";
        without_effect(has("bound"), because, "--samples 5 (say) beside it")?;
        without_effect(has("samples"), "of --bound iwae it leaves the elbo", "--samples 5 (say)")?;
    }
    if schedule.beta == 0.0 {
        without_effect(has("kl-warmup"), "--beta is 0, and so it stays", "--beta 1 beside it")?;
    }
    let Some(epochs) = epochs else { return Ok(()) };
    if schedule.kl_warmup > f64::from(epochs) && typed.has("kl_warmup") {
        let found =
            format!("{}, longer than the run: --epochs is {epochs}, so that --beta is not reached", schedule.kl_warmup);
        return Err(Error::argument("--kl-warmup", found, "at most the epochs of the run, or more --epochs"));
    }
    no_late_steps(typed, &schedule.lr_schedule, epochs)
}

/// Refuses steps of the learning rate that are beyond the end of a run of `epochs`, if they were typed.
///
/// # Errors
/// [`Error::Argument`] naming the step.
pub fn no_late_steps(typed: &Overrides<Experiment>, schedule: &RateSchedule, epochs: u32) -> Result<()> {
    if let RateSchedule::Steps(steps) = schedule
        && let Some((late, _)) = steps.iter().find(|(epoch, _)| *epoch >= f64::from(epochs))
        && typed.has("lr_schedule")
    {
        let found = format!("a step after epoch {late}, which changes nothing: --epochs is {epochs}");
        return Err(Error::argument("--lr-schedule", found, "steps before the end of the run, or more --epochs"));
    }
    Ok(())
}
