//! Means within an epoch, from what the training tells of the epoch so far.

use crate::train::{EpochRecord, INTERVALS, StepRecord, StepReport, Sums};

/// Takes the sums of an epoch apart into those of its intervals.
#[derive(Default)]
pub(super) struct Intervals {
    /// Images and sums of the epoch where the last interval ended.
    images: usize,
    sums: Sums,
    records: Vec<StepRecord>,
}

impl Intervals {
    /// Hears where the epoch is. What lies before the first report of a resumed epoch belongs to its first interval.
    pub(super) fn step(&mut self, report: &StepReport) {
        let interval = |images: usize| images * INTERVALS / report.of;
        if interval(report.images) > interval(self.images) {
            self.end(report.epoch, report.updates, report.images, report.means);
        }
    }

    /// Ends the epoch, and returns its intervals.
    pub(super) fn close(&mut self, record: &EpochRecord, images: usize) -> Vec<StepRecord> {
        if images > self.images {
            let means = Sums { rec: record.train_rec, kl: record.train_kl, loss: record.train_loss };
            self.end(record.epoch, record.updates, images, means);
        }
        std::mem::take(self).records
    }

    /// The interval from the last end to `images`, over all of which the epoch has these means.
    fn end(&mut self, epoch: u32, updates: u32, images: usize, means: Sums) {
        let scale = |value: f64| value * images as f64;
        let sums = Sums { rec: scale(means.rec), kl: scale(means.kl), loss: scale(means.loss) };
        let new = images - self.images;
        let mean = |now: f64, before: f64| (now - before) / new as f64;
        self.records.push(StepRecord {
            epoch,
            updates,
            images: new,
            rec: mean(sums.rec, self.sums.rec),
            kl: mean(sums.kl, self.sums.kl),
            loss: mean(sums.loss, self.sums.loss),
        });
        (self.images, self.sums) = (images, sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_an_epoch_are_taken_apart() {
        let mut intervals = Intervals::default();
        let report = |images: usize, rec: f64| StepReport {
            epoch: 1,
            epochs: 1,
            updates: images as u32 / 10,
            images,
            of: 100,
            means: Sums { rec, kl: 1.0, loss: rec + 1.0 },
        };
        // 10 images of 8 nats, then 10 of 4, then 80 of 2; the second report lies within an interval.
        intervals.step(&report(10, 8.0));
        intervals.step(&report(12, 7.0));
        intervals.step(&report(20, 6.0));
        let record: EpochRecord = serde_json::from_value(serde_json::json!({
            "epoch": 1, "updates": 10, "lr": 0.1, "beta": 1.0, "train_neg_elbo": 3.8, "train_rec": 2.8, "train_kl": 1.0,
            "train_loss": 3.8, "test_neg_elbo": 4.0, "test_rec": 3.0, "test_kl": 1.0,
        }))
        .unwrap();
        let found = intervals.close(&record, 100);
        let shape: Vec<_> = found.iter().map(|r| (r.updates, r.images)).collect();
        assert_eq!(shape, [(1, 10), (2, 10), (10, 80)]);
        let total: f64 = found.iter().map(|r| r.rec * r.images as f64).sum();
        assert!((total - 280.0).abs() < 1e-9 && (found[0].rec - 8.0).abs() < 1e-12, "{found:?}");
        assert!((found[2].rec - 2.0).abs() < 1e-9 && found.iter().all(|r| (r.kl - 1.0).abs() < 1e-9));
        assert!(intervals.close(&EpochRecord { epoch: 2, ..record }, 50).len() == 1, "the next epoch begins anew");
    }
}
