//! Running sums in f64 over a stream of draws, in bounded memory.

use crate::study::evidence::Estimate;

/// Mean and variance of a stream (Welford 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Adds a number.
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        let off = value - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (value - self.mean);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 of none.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Their variance Σ(v − mean)²/(n − 1); NaN of fewer than two.
    pub fn variance(&self) -> f64 {
        if self.count < 2 { f64::NAN } else { self.squares / (self.count - 1) as f64 }
    }

    /// The standard error of the mean, √(variance/n).
    pub fn standard_error(&self) -> f64 {
        (self.variance() / self.count as f64).sqrt()
    }
}

/// log (1/n) Σ w of a stream of log w that need not fit into the exponent's range: with m the largest log w so far,
/// Σ e^(log w − m) and Σ e^(2(log w − m)) are kept, and are scaled when m grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogMeanExp {
    count: u64,
    max: f64,
    sum: f64,
    squares: f64,
}

impl Default for LogMeanExp {
    fn default() -> LogMeanExp {
        LogMeanExp { count: 0, max: f64::NEG_INFINITY, sum: 0.0, squares: 0.0 }
    }
}

impl LogMeanExp {
    /// Adds one log w.
    pub fn push(&mut self, log_w: f64) {
        self.extend(&[log_w]);
    }

    /// Adds some log w; −∞ is a weight of 0.
    pub fn extend(&mut self, log_w: &[f64]) {
        let max = log_w.iter().copied().fold(self.max, f64::max);
        self.count += log_w.len() as u64;
        if max == f64::NEG_INFINITY {
            return;
        }
        if max > self.max {
            let scale = (self.max - max).exp();
            (self.max, self.sum, self.squares) = (max, self.sum * scale, self.squares * scale * scale);
        }
        for v in log_w {
            let w = (v - max).exp();
            self.sum += w;
            self.squares += w * w;
        }
    }

    /// log (1/n) Σ w.
    pub fn value(&self) -> f64 {
        self.max + (self.sum / self.count as f64).ln()
    }

    /// (Σw)²/Σw² (Kish 1965): n for equal weights, 1 when one draw has all the weight.
    pub fn effective_samples(&self) -> f64 {
        self.sum * self.sum / self.squares
    }

    /// The standard error of [`LogMeanExp::value`] by the delta method: that of the mean of w over the mean of w,
    ///
    /// ```text
    /// √((n Σw²/(Σw)² − 1)/(n − 1))
    /// ```
    ///
    /// which says something only while it is small: heavy tails that were not met are not in it. NaN for one draw.
    pub fn standard_error(&self) -> f64 {
        let n = self.count as f64;
        if self.count < 2 { f64::NAN } else { ((n / self.effective_samples() - 1.0).max(0.0) / (n - 1.0)).sqrt() }
    }

    /// All of it.
    pub fn estimate(&self) -> Estimate {
        Estimate {
            value: self.value(),
            standard_error: self.standard_error(),
            effective_samples: Some(self.effective_samples()),
            samples: self.count,
        }
    }
}

/// The mean over disjoint groups of k draws of their log-mean-exp: an unbiased estimate of L_k = E log (1/k) Σ w, for
/// several k from one stream. Each k is a multiple of the one before it, so that its groups are made of whole groups.
#[derive(Clone, Debug)]
pub(super) struct Nested {
    levels: Vec<Level>,
}

#[derive(Clone, Debug)]
struct Level {
    k: usize,
    /// Groups of the level below in one of this, and their log-mean-exps so far.
    per: usize,
    open: LogMeanExp,
    values: Moments,
}

impl Nested {
    /// Groups of these sizes, each a multiple of the one before.
    pub(super) fn new(sizes: &[usize]) -> Nested {
        let mut below = 1;
        let levels = sizes.iter().map(|&k| {
            let per = k / below;
            assert_eq!(per * below, k, "groups of {k} are made of groups of {below}");
            below = k;
            Level { k, per, open: LogMeanExp::default(), values: Moments::default() }
        });
        Nested { levels: levels.collect() }
    }

    /// Adds one log w.
    pub(super) fn push(&mut self, log_w: f64) {
        let mut value = log_w;
        for level in &mut self.levels {
            if level.per > 1 {
                level.open.push(value);
                if level.open.count < level.per as u64 {
                    return;
                }
                value = std::mem::take(&mut level.open).value();
            }
            level.values.push(value);
        }
    }

    /// (k, L_k) of every size of which there was a whole group.
    pub(super) fn bounds(&self) -> Vec<(usize, Estimate)> {
        let whole = self.levels.iter().filter(|level| level.values.count() > 0);
        let estimate = |m: &Moments, k: usize| Estimate {
            value: m.mean(),
            standard_error: m.standard_error(),
            effective_samples: None,
            samples: m.count() * k as u64,
        };
        whole.map(|level| (level.k, estimate(&level.values, level.k))).collect()
    }
}

/// (k, L_k) for groups of these sizes, each a multiple of the one before, from the log w of one image in their order.
///
/// # Panics
/// When a size is not a multiple of the one before.
pub fn group_bounds(log_w: &[f64], sizes: &[usize]) -> Vec<(usize, Estimate)> {
    let mut nested = Nested::new(sizes);
    log_w.iter().for_each(|&v| nested.push(v));
    nested.bounds()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log weights over a range that neither f32's nor f64's exponents reach.
    fn wide() -> Vec<f64> {
        (0..240).map(|i| -1500.0 + f64::from(i * i % 241) * 12.0).collect()
    }

    #[test]
    fn a_stream_in_portions_is_the_whole() {
        let values = wide();
        let m = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let direct = m + (values.iter().map(|v| (v - m).exp()).sum::<f64>() / 240.0).ln();
        let mut stream = LogMeanExp::default();
        values.chunks(7).for_each(|part| stream.extend(part));
        assert!((stream.value() - direct).abs() < 1e-12, "{} against {direct}", stream.value());
        assert_eq!(stream.estimate().samples, 240);
    }

    #[test]
    fn equal_weights_have_no_error_and_one_large_weight_is_one_sample() {
        let mut equal = LogMeanExp::default();
        equal.extend(&[-1000.0; 50]);
        assert_eq!((equal.value(), equal.standard_error()), (-1000.0, 0.0));
        assert!((equal.effective_samples() - 50.0).abs() < 1e-12);
        let mut one = LogMeanExp::default();
        one.extend(&[f64::NEG_INFINITY; 3]);
        one.extend(&[-900.0, -2000.0]);
        assert!((one.effective_samples() - 1.0).abs() < 1e-12 && (one.standard_error() - 1.0).abs() < 1e-12);
        assert!((one.value() - (-900.0 - 5f64.ln())).abs() < 1e-12);
    }

    #[test]
    fn groups_are_disjoint_and_made_of_smaller_groups() {
        let values = wide();
        let mut nested = Nested::new(&[1, 4, 12, 480]);
        values.iter().for_each(|&v| nested.push(v));
        let bounds = nested.bounds();
        assert_eq!(bounds.iter().map(|b| b.0).collect::<Vec<_>>(), [1, 4, 12], "no whole group of 480");
        for (k, found) in bounds {
            let mut direct = Moments::default();
            for group in values.chunks_exact(k) {
                let mut one = LogMeanExp::default();
                one.extend(group);
                direct.push(one.value());
            }
            assert!((found.value - direct.mean()).abs() < 1e-9, "k = {k}: {} against {}", found.value, direct.mean());
            assert!((found.standard_error - direct.standard_error()).abs() < 1e-9);
            assert_eq!(found.samples, 240);
        }
    }
}
