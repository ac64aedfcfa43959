//! Posterior collapse, noticed while it happens.
//!
//! A decoder that models the pixels well enough without z lets the KL term fall to 0: q(z|x) becomes the prior, z tells
//! nothing, and the bound ends where a model of independent pixels is (Bowman et al. 2016, arXiv 1511.06349). The loss
//! alone does not show that, because it falls all the while.

use super::{EpochRecord, TrainConfig};

/// A KL term below this, in nats, tells next to nothing about the image (it bounds what z tells from above): two
/// equally frequent kinds of images are ln 2 = 0.69 apart.
pub const COLLAPSED_KL: f64 = 0.1;
/// How near to the line of a model without z a bound counts as being there, as a part of the line.
const NEAR: f64 = 0.01;
/// Updates before which nothing is said: a healthy model of the usual size begins to use z, and passes the line, within a
/// hundred or two.
const EARLY: u32 = 200;

/// Watches the records of a run, and says once for each condition what is wrong with them.
#[derive(Clone, Debug)]
pub struct Alarm {
    latent: usize,
    beta: f64,
    line: Option<f64>,
    dead_said: bool,
    line_said: bool,
}

impl Alarm {
    /// For a run of `config`, where a model without z reaches at best `line` nats per test image, by one distribution per
    /// pixel; with none, only the units are watched.
    pub fn new(config: &TrainConfig, line: Option<f64>) -> Alarm {
        Alarm { latent: config.model.latent, beta: config.warmup.beta, line, dead_said: false, line_said: false }
    }

    /// The warnings that an epoch raises for the first time:
    ///
    /// * all units are dead: none has Var_x(E_q[z_k|x]) > 0.01, or the KL term is below 0.1 nats in all;
    /// * the test −ELBO is above the line of a model without z, or within 1 % of it. The first epoch may end there, as
    ///   may any in the first 200 updates or before β has risen to its final value: they are left aside.
    pub fn check(&mut self, record: &EpochRecord) -> Vec<String> {
        let mut warnings = Vec::new();
        let EpochRecord { epoch, test_neg_elbo, test_rec, test_kl, .. } = *record;
        let latent = self.latent;
        let no_units = record.active_units == Some(0);
        if !self.dead_said && record.updates >= EARLY && (no_units || test_kl < COLLAPSED_KL) {
            self.dead_said = true;
            let found = match no_units {
                true => format!(
                    "0 of {latent} latent units (of the lowest layer) have a mean that varies over the images (variance > 0.01)"
                ),
                false => format!("the KL term is {test_kl:.3} nats, below {COLLAPSED_KL}"),
            };
            warnings.push(format!(
                "posterior collapse after epoch {epoch}: {found}; the decoder ignores z; {}",
                "try a warm-up of the KL term, a smaller β or fewer latent units"
            ));
        }
        let rose = record.beta >= self.beta && epoch > 1 && record.updates >= EARLY;
        if let Some(line) = self.line.filter(|line| !self.line_said && rose && test_neg_elbo > line - NEAR * line.abs())
        {
            self.line_said = true;
            // With a rec far below the line z is used, and costs more than it brings.
            let remedy = match test_rec < line - 10.0 * NEAR * line.abs() {
                true => "z costs as much as it brings: try a β nearer to 1, fewer latent units or more epochs",
                false => "try a warm-up of the KL term, a smaller β or fewer latent units",
            };
            warnings.push(format!(
                "test −ELBO {test_neg_elbo:.2} after epoch {epoch} is no better than one distribution per pixel, without \
                 any z: {line:.2} nats (within 1 % of it, or above); {remedy}"
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vae::KlWarmup;
    use crate::vae::VaeConfig;

    fn record(epoch: u32, rec: f64, kl: f64, active: usize, beta: f64) -> EpochRecord {
        EpochRecord {
            epoch,
            updates: 150 * epoch,
            lr: 1e-3,
            beta,
            train_neg_elbo: rec + kl,
            train_rec: rec,
            train_kl: kl,
            train_loss: rec + beta * kl,
            test_neg_elbo: rec + kl,
            test_rec: rec,
            test_kl: kl,
            active_units: Some(active),
            dead_units: None,
        }
    }

    fn alarm(beta: f64) -> Alarm {
        let mut config = TrainConfig::new(VaeConfig::new(20));
        config.warmup = KlWarmup { beta, steps: 100 };
        Alarm::new(&config, Some(200.0))
    }

    #[test]
    fn dead_units_are_said_once() {
        let mut alarm = alarm(1.0);
        assert!(alarm.check(&record(1, 150.0, 0.0, 0, 1.0)).is_empty(), "150 updates are too early to tell");
        let said = alarm.check(&record(2, 150.0, 0.5, 0, 1.0));
        assert!(said.len() == 1 && said[0].contains("0 of 20") && said[0].contains("warm-up"), "{said:?}");
        assert!(alarm.check(&record(3, 150.0, 0.01, 0, 1.0)).is_empty());
        let said = self::alarm(1.0).check(&record(2, 150.0, 0.05, 1, 1.0));
        assert!(said.len() == 1 && said[0].contains("0.050 nats, below 0.1"), "{said:?}");
    }

    #[test]
    fn the_line_of_a_model_without_z_is_watched_after_the_first_epoch_and_the_warm_up() {
        let mut alarm = alarm(1.0);
        assert!(alarm.check(&record(1, 205.0, 1.0, 3, 1.0)).is_empty(), "the first epoch");
        assert!(alarm.check(&record(2, 190.0, 50.0, 9, 0.5)).is_empty(), "β has not risen");
        assert!(alarm.check(&record(3, 190.0, 7.9, 9, 1.0)).is_empty(), "below 198");
        let said = alarm.check(&record(4, 190.0, 8.1, 9, 1.0));
        assert!(said.len() == 1 && said[0].contains("198.10") && said[0].contains("200.00 nats"), "{said:?}");
        assert!(alarm.check(&record(5, 205.0, 1.0, 3, 1.0)).is_empty(), "once");
        let said = self::alarm(0.0).check(&record(2, 70.0, 150.0, 20, 0.0));
        assert!(said.len() == 1 && said[0].contains("nearer to 1"), "{said:?}");
        // Densities may be above 1, and the line below 0.
        let below = Alarm { line: Some(-500.0), ..self::alarm(1.0) };
        assert_eq!(below.clone().check(&record(2, -510.0, 4.0, 3, 1.0)).len(), 0);
        assert_eq!(below.clone().check(&record(2, -510.0, 6.0, 3, 1.0)).len(), 1);
    }
}
