//! From which size on a GPU is worth it.

use std::fmt;

use serde::Serialize;

/// The smallest size from which the second device wins at every larger measured size too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Crossover {
    /// It wins at all measured sizes; they begin here.
    Everywhere {
        /// The smallest measured size.
        from: f64,
    },
    /// It wins from here on.
    At {
        /// The size, interpolated.
        size: f64,
    },
    /// It does not win at the largest measured size.
    None {
        /// The largest measured size.
        up_to: f64,
    },
}

impl Crossover {
    /// From (size, seconds on the first device, seconds on the second) in order of size.
    ///
    /// With r = ln(t₂ / t₁), which changes its sign between the sizes n₀ < n₁, and r taken as linear in ln n,
    ///
    /// ```text
    /// ln n = ln n₀ + (ln n₁ − ln n₀) · r₀ / (r₀ − r₁)
    /// ```
    ///
    /// `None` when nothing was measured.
    pub fn find(points: &[(f64, f64, f64)]) -> Option<Crossover> {
        let r: Vec<f64> = points.iter().map(|(_, first, second)| (second / first).ln()).collect();
        let size = |i: usize| points[i].0;
        let last = points.len().checked_sub(1)?;
        Some(match r.iter().rposition(|&r| r >= 0.0) {
            None => Crossover::Everywhere { from: size(0) },
            Some(i) if i == last => Crossover::None { up_to: size(last) },
            Some(i) => {
                let part = r[i] / (r[i] - r[i + 1]);
                Crossover::At { size: (size(i).ln() + (size(i + 1).ln() - size(i).ln()) * part).exp() }
            }
        })
    }
}

impl fmt::Display for Crossover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Crossover::Everywhere { from } => {
                write!(f, "GPU faster at every measured size, from {} on", rounded(*from))
            }
            Crossover::At { size } => write!(f, "GPU faster from about {} on", rounded(*size)),
            Crossover::None { up_to } => write!(f, "none: CPU faster at the largest size, {}", rounded(*up_to)),
        }
    }
}

/// Two significant digits are all that an interpolation between powers of two or ten deserves; measured sizes are
/// whole.
pub(super) fn rounded(size: f64) -> String {
    let unit = 10f64.powf((size.log10() - 1.0).floor());
    let rounded = if size.fract() == 0.0 || unit < 1.0 { size.round() } else { (size / unit).round() * unit };
    format!("{rounded:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crossing_is_interpolated_in_logarithms() {
        // t₁ = n, t₂ = 1000: they are equal at n = 1000, exactly on a line in logarithms.
        let points: Vec<_> = [100.0, 400.0, 5000.0].map(|n| (n, n, 1000.0)).to_vec();
        let Some(Crossover::At { size }) = Crossover::find(&points) else { panic!() };
        assert!((size - 1000.0).abs() < 1e-9, "{size}");
    }

    #[test]
    fn only_the_last_crossing_counts() {
        let points = [(10.0, 2.0, 1.0), (100.0, 1.0, 2.0), (1000.0, 2.0, 1.0)];
        let Some(Crossover::At { size }) = Crossover::find(&points) else { panic!() };
        assert!((size - 100.0 * 10f64.sqrt()).abs() < 1e-9, "halfway in the logarithm: {size}");
    }

    #[test]
    fn no_crossing_is_said() {
        assert_eq!(Crossover::find(&[]), None);
        assert_eq!(Crossover::find(&[(8.0, 1.0, 2.0)]), Some(Crossover::None { up_to: 8.0 }));
        // A draw is no win.
        assert_eq!(Crossover::find(&[(8.0, 1.0, 1.0)]), Some(Crossover::None { up_to: 8.0 }));
        let both = [(8.0, 2.0, 1.0), (16.0, 2.0, 1.0)];
        assert_eq!(Crossover::find(&both), Some(Crossover::Everywhere { from: 8.0 }));
        assert_eq!(Crossover::Everywhere { from: 8.0 }.to_string(), "GPU faster at every measured size, from 8 on");
        assert_eq!(Crossover::At { size: 3141.59 }.to_string(), "GPU faster from about 3100 on");
    }
}
