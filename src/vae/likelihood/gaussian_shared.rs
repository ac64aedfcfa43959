//! Grey values with an error of one spread: squared error with its weight learned.

use serde::{Deserialize, Serialize};

use super::{Baseline, Facts, Histograms, Kind, Likelihood, PixelDistribution, Raw, gaussian, spread};
use crate::engine::graph::Var;
use crate::engine::rng::Draw;

/// See [`Likelihood::gaussian_shared`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GaussianShared {
    pub(super) sigma_floor: f64,
}

impl Default for GaussianShared {
    fn default() -> GaussianShared {
        GaussianShared { sigma_floor: 0.01 }
    }
}

impl Likelihood {
    /// As [`Likelihood::gaussian`] with one s = `sigma_floor` + softplus(r) for all pixels and images; r is the parameter
    /// `decoder.sigma`. Squared error with its weight learned.
    pub const fn gaussian_shared(sigma_floor: f64) -> Likelihood {
        Likelihood(Kind::GaussianShared(GaussianShared { sigma_floor }))
    }
}

impl GaussianShared {
    /// s of the parameter.
    pub(super) fn sigma<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        spread::of(raw.shared.expect("the decoder of a shared sigma has it"), self.sigma_floor)
    }
}

impl PixelDistribution for GaussianShared {
    fn describe(&self) -> String {
        format!("gaussian with one sigma (≥ {})", self.sigma_floor)
    }

    fn facts(&self) -> Facts {
        Facts {
            summary: "one learned sigma",
            suffix: "-gaussian-shared",
            outputs: &["mu"],
            has_shared_sigma: true,
            ..Facts::default()
        }
    }

    fn floor(&mut self) -> Option<&mut f64> {
        Some(&mut self.sigma_floor)
    }

    fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        gaussian::nll(x - raw.values, self.sigma(raw))
    }

    fn mean<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        raw.values
    }

    fn draw(&self, raw: &[f64], noise: Draw, i: u64) -> f64 {
        gaussian::draw(raw, self.sigma_floor, noise, i)
    }

    /// A model with one sigma collapses to the line with one sigma.
    fn baselines(&self, images: &Histograms) -> Vec<Baseline> {
        let [shared, floor] = gaussian::shared_baselines(images, self.sigma_floor);
        vec![Baseline { collapsed: true, ..shared }, floor]
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::super::tests::shared;
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn one_sigma_is_that_of_the_parameter() {
        let g = Graph::new();
        let (raw, x, r) = shared(&g);
        let p = Likelihood::gaussian_shared(0.1);
        let loss = p.nll(raw, x).sum_all();
        let d = grad(loss, &[r])[0];
        let mut run = Interp::<f64>::new(&g);
        let sigma = 0.1 + 0.4f64.exp().ln_1p();
        let exact = 4.0 * (sigma.ln() + 0.5 * (2.0 * PI).ln()) + 0.5 * 0.2 / sigma.powi(2);
        assert!((run.eval(loss)[0] - exact).abs() < 1e-12);
        let slope = (4.0 / sigma - 0.2 / sigma.powi(3)) / (1.0 + (-0.4f64).exp());
        assert!((run.eval(d)[0] - slope).abs() < 1e-12);
    }
}
