//! Results over seeds: a number that was measured once says nothing of what another seed would have given.
//!
//! ```text
//!   mean m = 1/n Σ xᵢ        standard deviation s = √(1/(n−1) Σ (xᵢ − m)²)
//! ```
//!
//! s is the spread of single runs, what to expect of one more; the mean itself is known to s/√n.

use std::fmt;

use serde::Serialize;

use crate::train::TrainConfig;

/// Mean and spread of one number over runs that differ by their seed alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SeedSpread {
    /// Runs.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// The standard deviation with n − 1; none of one run.
    pub sd: Option<f64>,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl SeedSpread {
    /// Of these values; none of no values.
    pub fn of(values: &[f64]) -> Option<SeedSpread> {
        let n = values.len();
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Some(SeedSpread { n, mean, sd, min, max })
    }
}

/// `104.97 ± 0.31`, or with `{:.1}` other decimals.
impl fmt::Display for SeedSpread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        write!(f, "{:.decimals$}", self.mean)?;
        self.sd.map_or(Ok(()), |sd| write!(f, " ± {sd:.decimals$}"))
    }
}

/// The runs, by number, that differ by their seed alone: groups in the order of their first runs. Where the images are may differ,
/// which they are may not.
pub fn by_seed(configs: &[&TrainConfig]) -> Vec<Vec<usize>> {
    let alike = |a: &TrainConfig, b: &TrainConfig| {
        let same_images = a.data.may_be(&b.data);
        let may_differ = |field: &str| field == "seed" || (field.starts_with("data.") && same_images);
        a.differences(b).iter().all(|difference| may_differ(&difference.field))
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, config) in configs.iter().enumerate() {
        match groups.iter_mut().find(|group| alike(configs[group[0]], config)) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Source;

    #[test]
    fn mean_and_spread_are_those_of_the_definition() {
        let spread = SeedSpread::of(&[3.0, 1.0, 2.0, 6.0]).unwrap();
        assert_eq!((spread.n, spread.mean, spread.min, spread.max), (4, 3.0, 1.0, 6.0));
        assert!((spread.sd.unwrap() - (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(format!("{spread}, {spread:.1}"), "3.00 ± 2.16, 3.0 ± 2.2");
        let one = SeedSpread::of(&[5.0]).unwrap();
        assert_eq!((one.sd, one.to_string()), (None, "5.00".into()));
        assert_eq!(SeedSpread::of(&[]), None);
    }

    #[test]
    fn runs_are_together_that_differ_by_nothing_but_their_seed() {
        let usual = |seed: u64| TrainConfig { seed, ..TrainConfig::default() };
        let mut wider = usual(1);
        wider.model.latent = 5;
        let elsewhere =
            |path: &str| TrainConfig { data: Source::Folder { path: path.into(), images: None }, ..usual(9) };
        let longer = TrainConfig { epochs: 99, ..usual(3) };
        let all = [
            usual(1),
            wider.clone(),
            usual(2),
            elsewhere("a"),
            longer,
            elsewhere("b"),
            TrainConfig { seed: 7, ..wider },
        ];
        let groups = by_seed(&all.iter().collect::<Vec<_>>());
        assert_eq!(groups, [vec![0, 2], vec![1, 6], vec![3, 5], vec![4]]);
    }
}
