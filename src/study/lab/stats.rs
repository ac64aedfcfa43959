//! What is known from draws, and how well: batch means and the jackknife over them, slopes on logarithmic axes.
//!
//! The draws of a cell are cut into [`GROUPS`] groups. A statistic that is no mean (a standard deviation, a ratio) gets its
//! error from the delete-one jackknife over the groups, se² = (G − 1)/G Σ (θ₍ᵢ₎ − θ̄)², θ₍ᵢ₎ the statistic without group i.
//! Nothing is assumed of the draws' distribution but a finite fourth moment; a variance that has none shows as an error that
//! does not shrink.

use crate::study::richness::Uncertain;

/// Groups of draws.
pub const GROUPS: usize = 20;

/// Sums of one group of draws, each draw less the pivot.
#[derive(Clone, Debug)]
struct GroupSums {
    draws: usize,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

/// Draws of a vector, as sums over groups.
#[derive(Clone, Debug, Default)]
pub struct DrawGroups {
    /// The first draw, taken from all: squares of what is left do not cancel.
    pivot: Vec<f64>,
    groups: Vec<GroupSums>,
    /// Draws that are to come in all, and those that came.
    all: usize,
    added: usize,
}

impl DrawGroups {
    /// For `draws` draws in all: draw i goes to group ⌊i·20/draws⌋, so that there are 20 of nearly one size, or as many as draws.
    pub fn new(draws: usize) -> DrawGroups {
        DrawGroups { pivot: Vec::new(), groups: Vec::new(), all: draws.max(1), added: 0 }
    }

    /// Adds a draw.
    pub fn add(&mut self, draw: &[f64]) {
        if self.groups.is_empty() {
            self.pivot = draw.to_vec();
        }
        let wanted = self.added * GROUPS.min(self.all) / self.all;
        self.added += 1;
        if self.groups.len() <= wanted {
            let zeros = vec![0.0; draw.len()];
            self.groups.push(GroupSums { draws: 0, sum: zeros.clone(), squares: zeros });
        }
        let group = self.groups.last_mut().expect("a group");
        group.draws += 1;
        for (j, value) in draw.iter().enumerate() {
            let off = value - self.pivot[j];
            group.sum[j] += off;
            group.squares[j] += off * off;
        }
    }

    /// The number of draws.
    pub fn draws(&self) -> usize {
        self.groups.iter().map(|group| group.draws).sum()
    }

    /// (mean less the pivot, variance of one draw) of each component, over all groups but `without`.
    fn moments(&self, without: Option<usize>) -> Vec<(f64, f64)> {
        let kept = || self.groups.iter().enumerate().filter(move |(i, _)| Some(*i) != without).map(|(_, group)| group);
        let n = kept().map(|group| group.draws).sum::<usize>() as f64;
        let moment = |j: usize| {
            let (sum, squares) = kept().fold((0.0, 0.0), |(s, q), group| (s + group.sum[j], q + group.squares[j]));
            (sum / n, ((squares - sum * sum / n) / (n - 1.0)).max(0.0))
        };
        (0..self.pivot.len()).map(moment).collect()
    }

    /// The jackknife of a statistic of the components' (mean, variance) and the number of draws.
    fn jackknife(&self, statistic: impl Fn(&[(f64, f64)], f64) -> f64) -> Uncertain {
        let at = |without: Option<usize>| {
            let mut moments = self.moments(without);
            moments.iter_mut().zip(&self.pivot).for_each(|(moment, pivot)| moment.0 += pivot);
            let left = self.draws() - without.map_or(0, |i| self.groups[i].draws);
            statistic(&moments, left as f64)
        };
        let parts: Vec<f64> = (0..self.groups.len()).map(|i| at(Some(i))).collect();
        let n = parts.len() as f64;
        let mean = parts.iter().sum::<f64>() / n;
        let square: f64 = parts.iter().map(|p| (p - mean).powi(2)).sum();
        Uncertain { value: at(None), standard_error: ((n - 1.0) / n * square).sqrt() }
    }

    /// The mean of each component.
    pub fn mean(&self) -> Vec<f64> {
        self.moments(None).iter().zip(&self.pivot).map(|(moment, pivot)| moment.0 + pivot).collect()
    }

    /// The variance of the mean of each component.
    pub fn variance_of_mean(&self) -> Vec<f64> {
        let n = self.draws() as f64;
        self.moments(None).iter().map(|moment| moment.1 / n).collect()
    }

    /// √(trace of the covariance of one draw): the noise of one step.
    pub fn noise(&self) -> Uncertain {
        self.jackknife(|moments, _| moments.iter().map(|m| m.1).sum::<f64>().sqrt())
    }

    /// The length of the expectation. ‖mean‖² is too large by (variance of one draw)/n in expectation; that is taken off, and
    /// 0 is the answer if nothing is left.
    pub fn size(&self) -> Uncertain {
        self.jackknife(|moments, n| moments.iter().map(|(mean, v)| mean * mean - v / n).sum::<f64>().max(0.0).sqrt())
    }

    /// The mean's component along `direction`, in units of its length.
    pub fn along(&self, direction: &[f64]) -> Uncertain {
        let square: f64 = direction.iter().map(|d| d * d).sum();
        self.jackknife(|moments, _| moments.iter().zip(direction).map(|((mean, _), d)| mean * d).sum::<f64>() / square)
    }
}

/// The exponent b of y ≈ a·kᵇ: weighted least squares on logarithmic axes, weights from the errors. None of fewer than two
/// points that are positive.
pub fn exponent(points: &[(f64, Uncertain)]) -> Option<Uncertain> {
    let usable = points.iter().filter(|(_, y)| y.value > 0.0 && y.standard_error.is_finite());
    // (ln k, ln y, weight); a point without an error would have all the weight.
    let logs: Vec<(f64, f64, f64)> =
        usable.map(|(k, y)| (k.ln(), y.value.ln(), (y.standard_error / y.value).max(1e-6).powi(-2))).collect();
    let total: f64 = logs.iter().map(|p| p.2).sum();
    let centre = logs.iter().map(|p| p.0 * p.2).sum::<f64>() / total;
    let spread: f64 = logs.iter().map(|p| p.2 * (p.0 - centre).powi(2)).sum();
    let slope = logs.iter().map(|p| p.2 * (p.0 - centre) * p.1).sum::<f64>() / spread;
    (logs.len() > 1 && spread > 0.0).then(|| Uncertain { value: slope, standard_error: spread.sqrt().recip() })
}

/// The median; NaN of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => 0.5 * (values[n / 2 - 1] + values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Draw;

    /// Draws of (3 + ε₁, 4 + 2ε₂).
    fn normal(draws: usize, seed: u64) -> DrawGroups {
        let draw = Draw { seed, step: 0, stream: 0 };
        let noise = |i: usize| f64::from(draw.normal(i as u64));
        let mut groups = DrawGroups::new(draws);
        (0..draws).for_each(|i| groups.add(&[3.0 + noise(2 * i), 4.0 + 2.0 * noise(2 * i + 1)]));
        groups
    }

    #[test]
    fn size_and_noise_are_those_of_the_distribution() {
        let found = normal(20_000, 1);
        let (size, noise) = (found.size(), found.noise());
        assert_eq!(found.draws(), 20_000);
        assert!((size.value - 5.0).abs() < 4.0 * size.standard_error, "{size:?}");
        assert!((noise.value - 5f64.sqrt()).abs() < 4.0 * noise.standard_error, "{noise:?}");
        let along = found.along(&[3.0, 4.0]);
        assert!((along.value - 1.0).abs() < 4.0 * along.standard_error, "{along:?}");
    }

    #[test]
    fn the_jackknife_says_how_far_repetitions_differ() {
        let repeated: Vec<Uncertain> = (0..200).map(|seed| normal(400, 10 + seed).noise()).collect();
        let mean = repeated.iter().map(|u| u.value).sum::<f64>() / 200.0;
        let spread = (repeated.iter().map(|u| (u.value - mean).powi(2)).sum::<f64>() / 199.0).sqrt();
        let said = repeated.iter().map(|u| u.standard_error).sum::<f64>() / 200.0;
        assert!((said / spread - 1.0).abs() < 0.2, "says {said}, repetitions differ by {spread}");
    }

    #[test]
    fn there_are_twenty_groups_of_nearly_one_size() {
        for (draws, groups) in [(1, 1), (7, 7), (20, 20), (41, 20), (399, 20), (400, 20)] {
            let found = normal(draws, 1);
            let sizes = || found.groups.iter().map(|group| group.draws);
            assert_eq!((found.draws(), found.groups.len()), (draws, groups));
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1, "{draws} draws");
        }
    }

    #[test]
    fn what_does_not_vary_has_no_noise() {
        let mut groups = DrawGroups::new(50);
        (0..50).for_each(|_| groups.add(&[1e8 + 0.1, -3.0]));
        assert_eq!((groups.noise(), groups.mean()[1]), (Uncertain { value: 0.0, standard_error: 0.0 }, -3.0));
    }

    #[test]
    fn a_slope_is_found_with_its_error() {
        let points: Vec<(f64, Uncertain)> = [1.0, 4.0, 16.0]
            .iter()
            .map(|&k: &f64| (k, Uncertain { value: 3.0 / k.sqrt(), standard_error: 0.03 / k.sqrt() }))
            .collect();
        let found = exponent(&points).unwrap();
        // Σ (x − x̄)²/0.01² = 2·(ln 4)²·10⁴.
        let error = 0.01 / (2f64.sqrt() * 4f64.ln());
        assert!((found.value + 0.5).abs() < 1e-12 && (found.standard_error / error - 1.0).abs() < 1e-9, "{found:?}");
        assert!(exponent(&points[..1]).is_none());
        assert!(exponent(&[points[0], (4.0, Uncertain { value: 0.0, standard_error: 0.1 })]).is_none());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
