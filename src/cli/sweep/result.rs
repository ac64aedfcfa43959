//! What a sweep found: for every combination of values mean and spread over its seeds.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::work::RunEnd;
use crate::cli::runs::table;
use crate::engine::error::Result;
use crate::study::seeds::SeedSpread;
use crate::train::sweep::{Sweep, SweptRun};
use crate::train::{EpochRecord, Run};

/// The journals of a sweep's runs.
pub(super) struct SweepResult<'a> {
    varied: &'a [String],
    groups: Vec<Combination<'a>>,
}

/// The runs with the same values of what varies.
struct Combination<'a> {
    values: &'a [String],
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    run: &'a SweptRun,
    /// Why it failed.
    error: Option<String>,
    /// After the last epoch of a finished run.
    last: Option<EpochRecord>,
}

impl Member<'_> {
    fn report(&self) -> Value {
        json!({
            "folder": self.run.folder, "seed": self.run.config.seed, "error": self.error,
            "test_neg_elbo": self.last.as_ref().map(|r| r.test_neg_elbo),
            "test_rec": self.last.as_ref().map(|r| r.test_rec),
            "test_kl": self.last.as_ref().map(|r| r.test_kl),
            "active_units": self.last.as_ref().and_then(|r| r.active_units),
        })
    }
}

impl<'a> SweepResult<'a> {
    /// Reads what the runs wrote down.
    ///
    /// # Errors
    /// As [`Run::records`].
    pub fn read(sweep: &'a Sweep, path: &Path, ends: &[RunEnd]) -> Result<SweepResult<'a>> {
        let mut groups: Vec<Combination<'a>> = Vec::new();
        for (run, end) in sweep.runs.iter().zip(ends) {
            let last = match end {
                RunEnd::Finished => Run::records(&path.join(&run.folder))?.pop(),
                _ => None,
            };
            let error = match end {
                RunEnd::Failed(error) => Some(error.clone()),
                _ => None,
            };
            let member = Member { run, error, last };
            match groups.iter_mut().find(|group| group.values == run.values) {
                Some(group) => group.members.push(member),
                None => groups.push(Combination { values: &run.values, members: vec![member] }),
            }
        }
        Ok(SweepResult { varied: &sweep.varied, groups })
    }

    /// A row for each combination; nothing as long as no run is finished.
    pub fn text(&self) -> String {
        let heads = ["seeds", "test −ELBO", "min", "max", "rec", "KL"].map(String::from);
        let mut rows: Vec<Vec<String>> = vec![self.varied.iter().cloned().chain(heads).collect()];
        for group in &self.groups {
            let Some(nats) = group.spread(|r| r.test_neg_elbo) else { continue };
            let part =
                |of: fn(&EpochRecord) -> f64| group.spread(of).map_or(String::new(), |spread| spread.to_string());
            let extreme = |value: f64| format!("{value:.2}");
            let numbers = [
                nats.n.to_string(),
                nats.to_string(),
                extreme(nats.min),
                extreme(nats.max),
                part(|r| r.test_rec),
                part(|r| r.test_kl),
            ];
            rows.push(group.values.iter().cloned().chain(numbers).collect());
        }
        if rows.len() == 1 {
            return String::new();
        }
        let mut text = table(&rows);
        let several = self.groups.iter().any(|group| group.members.iter().filter(|m| m.last.is_some()).count() > 1);
        text += match several {
            true => "nats per test image after the last epoch, mean ± standard deviation over the seeds\n",
            false => {
                "nats per test image after the last epoch, of one seed each: --replicas tells how far seeds differ\n"
            }
        };
        if self.varied.iter().any(|option| option == "likelihood" || option == "binarisation") {
            text += "note: another likelihood or binarisation has a −ELBO on another scale; compare rows of one kind\n";
        }
        text
    }

    /// The same for programs.
    pub fn report(&self) -> Value {
        let group = |group: &Combination<'_>| {
            let varied: Map<String, Value> =
                self.varied.iter().cloned().zip(group.values.iter().map(|value| json!(value))).collect();
            json!({
                "varied": varied,
                "test_neg_elbo": group.spread(|r| r.test_neg_elbo),
                "test_rec": group.spread(|r| r.test_rec),
                "test_kl": group.spread(|r| r.test_kl),
                "runs": group.members.iter().map(Member::report).collect::<Vec<_>>(),
            })
        };
        json!({ "combinations": self.groups.iter().map(group).collect::<Vec<_>>() })
    }
}

impl Combination<'_> {
    /// Of the finished runs.
    fn spread(&self, of: impl Fn(&EpochRecord) -> f64) -> Option<SeedSpread> {
        SeedSpread::of(&self.members.iter().filter_map(|m| m.last.as_ref()).map(of).collect::<Vec<_>>())
    }
}
