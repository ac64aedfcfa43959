//! The weight of the KL term during training.

use serde::{Deserialize, Serialize};

/// The weight β of the KL term as a function of the number of updates made: linear from 0 to `beta` over `steps`
/// updates, then constant (Bowman et al. 2016; β as in Higgins et al. 2017).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KlWarmup {
    /// The final weight; 1 is the evidence lower bound.
    pub beta: f64,
    /// Length of the ramp in updates; 0 starts at `beta`.
    pub steps: u64,
}

impl KlWarmup {
    /// β of the step that follows `done` updates.
    pub fn at(&self, done: u64) -> f64 {
        if done >= self.steps { self.beta } else { self.beta * done as f64 / self.steps as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_meets_its_end_points() {
        let warm = KlWarmup { beta: 2.0, steps: 4 };
        assert_eq!([warm.at(0), warm.at(2), warm.at(4), warm.at(9)], [0.0, 1.0, 2.0, 2.0]);
    }
}
