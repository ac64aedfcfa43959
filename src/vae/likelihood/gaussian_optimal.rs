//! Grey values with an error of one spread, the best one for the batch.

use serde::{Deserialize, Serialize};

use super::gaussian_shared::GaussianShared;
use super::{Baseline, Facts, Histograms, Kind, Likelihood, PixelDistribution, Raw, gaussian};
use crate::engine::graph::Var;
use crate::engine::rng::Draw;

/// See [`Likelihood::gaussian_optimal`]. Outside of training it is the Gaussian with one sigma.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct GaussianOptimal(GaussianShared);

impl Likelihood {
    /// As [`Likelihood::gaussian_shared`], and in training s² is the best one for the batch in closed form, its mean
    /// squared error (σ-VAE, Rybkin et al. 2021, arXiv 2006.13202):
    ///
    /// ```text
    /// −log p = D/2·(ln 2π·MSE + 1)          gradient: that of the MSE times D/(2·MSE)
    /// ```
    ///
    /// Outside of training there is no batch: there s is `decoder.sigma`, which training moves by the gradient of the
    /// same likelihood at that error.
    pub const fn gaussian_optimal(sigma_floor: f64) -> Likelihood {
        Likelihood(Kind::GaussianOptimal(GaussianOptimal(GaussianShared { sigma_floor })))
    }
}

impl PixelDistribution for GaussianOptimal {
    fn describe(&self) -> String {
        format!("gaussian with the optimal sigma (≥ {})", self.0.sigma_floor)
    }

    fn facts(&self) -> Facts {
        Facts {
            summary: "the best sigma of the batch",
            suffix: "-gaussian-optimal",
            needs_batch: true,
            ..self.0.facts()
        }
    }

    fn floor(&mut self) -> Option<&mut f64> {
        self.0.floor()
    }

    fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        self.0.nll(raw, x)
    }

    fn training_nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        let error = x - raw.values;
        let mse = error.square().mean_all();
        let floor = error.graph().constant(self.0.sigma_floor * self.0.sigma_floor);
        let optimal = gaussian::nll(error, mse.maximum(floor).sqrt());
        // The value of the second part is 0; its gradient is that of the likelihood in decoder.sigma alone.
        let sigma = self.0.sigma(raw);
        let own = mse.stop_gradient() / sigma.square() * 0.5 + sigma.log();
        optimal + (own - own.stop_gradient())
    }

    fn mean<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        self.0.mean(raw)
    }

    fn draw(&self, raw: &[f64], noise: Draw, i: u64) -> f64 {
        self.0.draw(raw, noise, i)
    }

    fn baselines(&self, images: &Histograms) -> Vec<Baseline> {
        self.0.baselines(images)
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
    fn the_optimal_sigma_is_the_root_of_the_mean_squared_error() {
        let g = Graph::new();
        let (raw, x, r) = shared(&g);
        let p = Likelihood::gaussian_optimal(0.01);
        let loss = p.training_nll(raw, x).sum_all();
        let d = grad(loss, &[raw.values, r]);
        let own = grad(p.nll(raw, x).sum_all(), &[r])[0];
        let mut run = Interp::<f64>::new(&g);
        // D/2·(ln 2π·MSE + 1) for the D = 4 pixels of the batch, and D/(2·MSE)·∂MSE = Σ (m − x)/MSE.
        assert!((run.eval(loss)[0] - 2.0 * ((2.0 * PI * 0.05).ln() + 1.0)).abs() < 1e-12);
        let expected = [0.3, -0.3, -0.1, 0.1].map(|e| e / 0.05);
        let found = run.eval(d[0]);
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-11), "{found:?}");
        // decoder.sigma is moved as the likelihood with that sigma moves it, and does not change the value.
        assert!((run.eval(d[1])[0] - run.eval(own)[0]).abs() < 1e-12 && run.eval(own)[0] != 0.0);
    }

    #[test]
    fn an_optimal_sigma_stops_at_its_floor() {
        let g = Graph::new();
        let raw = Raw { values: g.tensor(&[1, 2], &[0.5, 0.5]), shared: Some(g.constant(0.0)) };
        let p = Likelihood::gaussian_optimal(0.1);
        let loss = p.training_nll(raw, raw.values).sum_all();
        let found = Interp::<f64>::new(&g).eval(loss)[0];
        assert!((found - 2.0 * (0.1f64.ln() + 0.5 * (2.0 * PI).ln())).abs() < 1e-12, "{found}");
    }
}
