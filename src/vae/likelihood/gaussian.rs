//! Grey values with an error of their own spread.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::{Baseline, Facts, Histograms, Kind, Likelihood, PixelDistribution, Raw, spread};
use crate::engine::graph::Var;
use crate::engine::rng::Draw;
use crate::vae::gaussian::HALF_LN_2PI;

/// See [`Likelihood::gaussian`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gaussian {
    sigma_floor: f64,
}

impl Default for Gaussian {
    /// With this floor log p of a pixel is at most −ln 0.1 − ½ ln 2π = +1.38 nats.
    fn default() -> Gaussian {
        Gaussian { sigma_floor: 0.1 }
    }
}

impl Likelihood {
    /// x ~ N(m, s²) with m = f_μ(z) and s = `sigma_floor` + softplus(r) for the raw output r = f_σ(z):
    ///
    /// ```text
    /// −log p(x|m, s) = ½((x − m)/s)² + ln s + ½ ln 2π
    /// ```
    ///
    /// The floor, in units where white is 1, is part of the model. Pixels of the border are 0 in every image; with s free
    /// they are predicted exactly, s → 0 earns −log p → −∞, and the likelihood has no maximum (Mattei & Frellsen 2018,
    /// arXiv 1802.04826). A density may exceed 1, so that −ELBO may be negative; it depends on the floor, which is therefore
    /// printed with it.
    pub const fn gaussian(sigma_floor: f64) -> Likelihood {
        Likelihood(Kind::Gaussian(Gaussian { sigma_floor }))
    }
}

impl PixelDistribution for Gaussian {
    fn describe(&self) -> String {
        format!("gaussian (sigma ≥ {})", self.sigma_floor)
    }

    fn facts(&self) -> Facts {
        Facts {
            summary: "a mean and a sigma for each pixel",
            suffix: "-gaussian",
            outputs: &["mu", "sigma"],
            ..Facts::default()
        }
    }

    fn floor(&mut self) -> Option<&mut f64> {
        Some(&mut self.sigma_floor)
    }

    fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        let (mean, sigma) = spread::halves(raw.values, self.sigma_floor);
        nll(x - mean, sigma)
    }

    fn mean<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        raw.values.slice_cols(0, raw.values.shape()[1] / 2)
    }

    fn draw(&self, raw: &[f64], noise: Draw, i: u64) -> f64 {
        draw(raw, self.sigma_floor, noise, i)
    }

    fn baselines(&self, images: &Histograms) -> Vec<Baseline> {
        let [shared, floor] = shared_baselines(images, self.sigma_floor);
        // But for rounding, no variance is negative.
        let own = images.variances().into_iter().map(|v| best_nll(v.max(0.0), self.sigma_floor)).sum();
        let what = "one mean and one sigma per pixel: a model that ends here has collapsed";
        vec![shared, Baseline::collapsed(own, what), floor]
    }
}

/// ½(e/s)² + ln s + ½ ln 2π for errors e.
pub(super) fn nll<'g>(error: Var<'g>, sigma: Var<'g>) -> Var<'g> {
    (error / sigma).square() * 0.5 + (sigma.log() + HALF_LN_2PI)
}

/// A draw from the mean and the raw spread of a pixel.
pub(super) fn draw(raw: &[f64], floor: f64, noise: Draw, i: u64) -> f64 {
    raw[0] + spread::value(raw[1], floor) * f64::from(noise.normal(i))
}

/// σ of a pixel with variance v, at the best that the floor allows.
fn best_sigma(v: f64, floor: f64) -> f64 {
    v.sqrt().max(floor)
}

/// E[−ln N(x; mean, σ²)] of a pixel with variance v at σ.
fn expected_nll(v: f64, sigma: f64) -> f64 {
    0.5 * ((2.0 * PI * sigma * sigma).ln() + v / (sigma * sigma))
}

fn best_nll(v: f64, floor: f64) -> f64 {
    expected_nll(v, best_sigma(v, floor))
}

/// A model without z, and a line that none can cross: one mean per pixel with one σ for all (at best σ² = V/D, where V is
/// the pixels' total variance), and every pixel predicted exactly with σ at its floor s, D·(ln s + ½ ln 2π).
pub(super) fn shared_baselines(images: &Histograms, floor: f64) -> [Baseline; 2] {
    let d = images.pixels() as f64;
    let v = images.variance() / d;
    let what = format!("one mean per pixel, one sigma = {:.3} for all: a model without z", best_sigma(v, floor));
    [
        Baseline::new(d * best_nll(v, floor), what),
        Baseline::new(d * expected_nll(0.0, floor), format!("floor: every pixel exact, sigma = {floor}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mean_of_draws, plain, two_images};
    use super::*;
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn a_pixel_at_the_floor_earns_its_nats() {
        let floor = Gaussian::default().sigma_floor;
        let g = Graph::new();
        // Exact means; raw sigmas from far below the floor up.
        let raw = plain(g.tensor(&[1, 8], &[0.5, 0.5, 0.5, 0.5, -200.0, -5.0, 0.0, 3.0]));
        let nll = Likelihood::gaussian(floor).nll(raw, g.full(&[1, 4], 0.5));
        let earned: Vec<f64> = Interp::<f64>::new(&g).eval(nll).iter().map(|n| -n).collect();
        assert!((earned[0] - 1.383_646_559_789_373).abs() < 1e-12 && earned.is_sorted_by(|a, b| a > b), "{earned:?}");
    }

    #[test]
    fn gaussian_is_its_density_above_the_floor() {
        let g = Graph::new();
        let raw = plain(g.tensor(&[1, 4], &[0.2, 0.9, -50.0, 0.0])); // means 0.2, 0.9; raw sigmas −50, 0
        let x = g.tensor(&[1, 2], &[0.25, 0.5]);
        let p = Likelihood::gaussian(0.1);
        let nll = Interp::<f64>::new(&g).eval(p.nll(raw, x));
        let density = |x: f64, m: f64, s: f64| (-0.5 * ((x - m) / s).powi(2)).exp() / (s * (2.0 * PI).sqrt());
        assert!((nll[0] + density(0.25, 0.2, 0.1).ln()).abs() < 1e-12);
        assert!((nll[1] + density(0.5, 0.9, 0.1 + 2f64.ln()).ln()).abs() < 1e-12);
        assert_eq!(Interp::<f64>::new(&g).eval(p.mean(raw)), [0.2, 0.9]);
    }

    #[test]
    fn draws_have_their_moments() {
        let (sigma, gaussian) = (0.1 + 2f64.ln(), Likelihood::gaussian(0.1));
        // Four standard errors of 40 000 draws.
        assert!((mean_of_draws(gaussian, &[0.3, 0.0], |x| x) - 0.3).abs() < 0.02 * sigma);
        let variance = mean_of_draws(gaussian, &[0.3, 0.0], |x| (x - 0.3).powi(2));
        assert!((variance - sigma * sigma).abs() < 0.03 * sigma * sigma);
    }

    #[test]
    fn the_scale_is_computed_from_the_images() {
        let marks = Likelihood::gaussian(0.1).baselines(&two_images());
        // Variances ¼ and 0: σ² = ⅛, and 2/2·(ln(2π/8) + 1).
        assert!((marks[0].nats - ((PI / 4.0).ln() + 1.0)).abs() < 1e-12);
        // One sigma each: ½ for the first pixel, the floor for the second, which never varies.
        let own = 0.5 * (PI / 2.0).ln() + 0.5 + 0.1f64.ln() + 0.5 * (2.0 * PI).ln();
        assert!((marks[1].nats - own).abs() < 1e-12 && marks[1].collapsed);
        assert!((marks[2].nats - 2.0 * (0.1f64.ln() + HALF_LN_2PI)).abs() < 1e-12);
        // A floor above the best σ: the model without z has the floor's σ.
        let s: f64 = 0.5;
        let expected = (2.0 * PI * s * s).ln() + 0.125 / (s * s);
        assert!((Likelihood::gaussian(s).baselines(&two_images())[0].nats - expected).abs() < 1e-12);
    }
}
