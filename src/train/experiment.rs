//! A run as it is asked for, before its images are known.

use std::str::FromStr;

use super::config::TrainConfig;
use crate::engine::error::{Error, Result};
use crate::engine::optim::LrSchedule;
use crate::vae::KlWarmup;

/// What a command line or a recipe asks for: a configuration whose schedules are still in epochs, because how many updates
/// an epoch has is known with the images only.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct Experiment {
    /// All but the learning rate and the weight of the KL term, which [`Experiment::schedule`] has.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub config: TrainConfig,
    /// Those two.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub schedule: EpochSchedules,
}

impl Experiment {
    /// The configuration of a run on `rows` training images of height × width pixels.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the field, what it holds and what it may hold.
    pub fn on(&self, image: [usize; 2], rows: usize) -> Result<TrainConfig> {
        let EpochSchedules { lr, ref lr_schedule, beta, kl_warmup } = self.schedule;
        if !(kl_warmup >= 0.0 && kl_warmup.is_finite()) {
            return Err(Error::argument("kl-warmup", kl_warmup, "a number of epochs ≥ 0"));
        }
        let mut config = self.config.clone();
        config.model.image = image;
        let updates = |epochs: f64| self.config.updates(epochs, rows);
        config.lr = lr_schedule.in_updates(lr, config.epochs, updates);
        config.warmup = KlWarmup { beta, steps: updates(kl_warmup) };
        config.validate().map(|()| config)
    }
}

/// The learning rate and the weight of the KL term over a run, in epochs.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Optimisation"))]
pub struct EpochSchedules {
    /// Learning rate per update.
    #[cfg_attr(feature = "cli", arg(long, value_name = "RATE", default_value_t = EpochSchedules::default().lr))]
    pub lr: f64,
    /// How the learning rate changes: constant, steps:EPOCH=RATE,… or cosine:RATE.
    ///
    /// steps: that rate after that many epochs, as in steps:5=3e-4,8=1e-4. cosine falls to 0 at the end of the run,
    /// cosine:RATE to RATE.
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "SCHEDULE", default_value = "constant", hide_short_help = true)
    )]
    pub lr_schedule: RateSchedule,
    /// Weight of the KL term; 1 is the evidence lower bound.
    #[cfg_attr(feature = "cli", arg(long, value_name = "BETA", default_value_t = EpochSchedules::default().beta))]
    pub beta: f64,
    /// Epochs over which the weight of the KL term rises from 0 to beta.
    #[cfg_attr(feature = "cli", arg(long, value_name = "EPOCHS", default_value_t = EpochSchedules::default().kl_warmup))]
    pub kl_warmup: f64,
}

impl Default for EpochSchedules {
    fn default() -> EpochSchedules {
        EpochSchedules { lr: 1e-3, lr_schedule: RateSchedule::Constant, beta: 1.0, kl_warmup: 0.0 }
    }
}

/// A learning rate over the epochs, as it is typed.
#[derive(Clone, Debug, PartialEq)]
pub enum RateSchedule {
    /// `constant`.
    Constant,
    /// `steps:EPOCH=RATE,…`: (epochs done, rate from there on).
    Steps(Vec<(f64, f64)>),
    /// `cosine` or `cosine:RATE`, the rate at the end of the run.
    Cosine(f64),
}

impl RateSchedule {
    /// The schedule of a run that starts at the rate `lr`, where `updates` says how many updates so many epochs are.
    pub fn in_updates(&self, lr: f64, epochs: u32, updates: impl Fn(f64) -> u64) -> LrSchedule {
        match self {
            RateSchedule::Constant => LrSchedule::Constant { lr },
            RateSchedule::Steps(at) => LrSchedule::Steps { lr, at: at.iter().map(|&(e, r)| (updates(e), r)).collect() },
            RateSchedule::Cosine(lr_end) => {
                LrSchedule::Cosine { lr, lr_end: *lr_end, steps: updates(f64::from(epochs)) }
            }
        }
    }
}

impl FromStr for RateSchedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<RateSchedule> {
        let expected = "constant, steps:EPOCH=RATE,… (as in steps:5=3e-4,8=1e-4), cosine or cosine:RATE";
        let wrong = || Error::argument("schedule", format!("\"{text}\""), expected);
        let number = |s: &str| s.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0).ok_or_else(wrong);
        match text.split_once(':').unwrap_or((text, "")) {
            ("constant", "") => Ok(RateSchedule::Constant),
            ("cosine", "") => Ok(RateSchedule::Cosine(0.0)),
            ("cosine", rate) => Ok(RateSchedule::Cosine(number(rate)?)),
            ("steps", list) => {
                let pair = |item: &str| {
                    let (epoch, rate) = item.split_once('=').ok_or_else(wrong)?;
                    Ok((number(epoch)?, number(rate)?))
                };
                Ok(RateSchedule::Steps(list.split(',').map(pair).collect::<Result<_>>()?))
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_documented() {
        let read = |text: &str| text.parse::<RateSchedule>();
        assert_eq!(read("constant").unwrap(), RateSchedule::Constant);
        assert_eq!(read("cosine").unwrap(), RateSchedule::Cosine(0.0));
        assert_eq!(read("cosine:1e-5").unwrap(), RateSchedule::Cosine(1e-5));
        assert_eq!(read("steps:5=3e-4,8.5=1e-4").unwrap(), RateSchedule::Steps(vec![(5.0, 3e-4), (8.5, 1e-4)]));
        for bad in ["", "linear", "steps", "steps:", "steps:5", "steps:5=x", "cosine:-1", "constant:3", "steps:1=inf"] {
            let message = read(bad).unwrap_err().to_string();
            assert!(message.contains(bad) && message.contains("EPOCH=RATE"), "{message}");
        }
    }

    #[test]
    fn epochs_become_updates_with_the_images() {
        let mut asked = Experiment::default();
        assert_eq!(asked.on([28, 28], 60_000).unwrap(), TrainConfig::default(), "the usual run is the usual run");
        asked.config.batch = 64;
        asked.config.epochs = 3;
        asked.schedule.lr_schedule = RateSchedule::Cosine(1e-5);
        asked.schedule.kl_warmup = 0.5;
        let config = asked.on([8, 4], 300).unwrap();
        // 300 images are four batches of 64 and one of what is left.
        assert_eq!(config.lr, LrSchedule::Cosine { lr: 1e-3, lr_end: 1e-5, steps: 15 });
        assert_eq!((config.warmup, config.model.image), (KlWarmup { beta: 1.0, steps: 3 }, [8, 4]));
        asked.config.train_images = Some(128);
        assert_eq!(asked.on([8, 4], 300).unwrap().lr.at(6), 1e-5, "three epochs of two batches");
        asked.schedule.kl_warmup = f64::NAN;
        assert!(asked.on([8, 4], 300).unwrap_err().to_string().contains("kl-warmup"));
    }
}
