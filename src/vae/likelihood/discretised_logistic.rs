//! Bytes.

use serde::{Deserialize, Serialize};

use super::{Baseline, Facts, Histograms, Kind, Likelihood, PixelDistribution, Raw, spread};
use crate::engine::graph::Var;
use crate::engine::rng::Draw;

/// See [`Likelihood::discretised_logistic`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiscretisedLogistic {
    scale_floor: f64,
}

impl Default for DiscretisedLogistic {
    fn default() -> DiscretisedLogistic {
        DiscretisedLogistic { scale_floor: 0.002 }
    }
}

impl Likelihood {
    /// The probability that a logistic distribution around the location m with scale s ≥ `scale_floor` gives to the cell of
    /// the byte 255·x, which is 1/255 wide; the outermost cells are open (Kingma et al. 2016, arXiv 1606.04934; Salimans et
    /// al. 2017):
    ///
    /// ```text
    /// p(x|m, s) = σ(a) − σ(b),     a = (x − m + 1/510)/s,  b = (x − m − 1/510)/s
    /// log p     = −softplus(−a) − softplus(b) + log(1 − e^(−(a − b)))
    /// ```
    ///
    /// The second line never takes the difference of two numbers near 1. A probability, so that bits per dimension
    /// mean something.
    ///
    /// Its mean is that of the logistic distribution with all that lies beyond black and white moved onto them, which
    /// differs from the mean over the bytes by no more than half a cell:
    ///
    /// ```text
    /// ∫₀¹ σ((m − t)/s) dt = s (softplus(m/s) − softplus((m − 1)/s))
    /// ```
    ///
    /// Its location m is that far from black and white only: at m = 0 half of the logistic lies below 0, and E[x|z] ≈
    /// s ln 2.
    pub const fn discretised_logistic(scale_floor: f64) -> Likelihood {
        Likelihood(Kind::DiscretisedLogistic(DiscretisedLogistic { scale_floor }))
    }
}

/// Half the width of a cell.
const HALF_CELL: f64 = 1.0 / 510.0;

impl PixelDistribution for DiscretisedLogistic {
    fn describe(&self) -> String {
        format!("discretised logistic (scale ≥ {})", self.scale_floor)
    }

    fn facts(&self) -> Facts {
        Facts {
            summary: "a probability for each byte",
            suffix: "-logistic",
            outputs: &["mu", "sigma"],
            is_probability: true,
            ..Facts::default()
        }
    }

    fn floor(&mut self) -> Option<&mut f64> {
        Some(&mut self.scale_floor)
    }

    fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        let (mean, scale) = spread::halves(raw.values, self.scale_floor);
        let (a, b) = ((x - mean + HALF_CELL) / scale, (x - mean - HALF_CELL) / scale);
        let (below, above) = ((-a).softplus(), b.softplus());
        let width = -(-(2.0 * HALF_CELL / scale)).expm1(); // 1 − e^(b − a)
        let inner = below + above - width.log();
        let g = x.graph();
        let open_above = x.gt(g.full(&x.shape(), 1.0 - HALF_CELL)).select(above, inner);
        x.lt(g.full(&x.shape(), HALF_CELL)).select(below, open_above)
    }

    fn mean<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        let (location, scale) = spread::halves(raw.values, self.scale_floor);
        scale * ((location / scale).softplus() - ((location - 1.0) / scale).softplus())
    }

    fn draw(&self, raw: &[f64], noise: Draw, i: u64) -> f64 {
        let u = f64::from(noise.uniform(i)) + 0.5f64.powi(25); // never 0
        let value = raw[0] + spread::value(raw[1], self.scale_floor) * (u / (1.0 - u)).ln();
        (value * 255.0).round().clamp(0.0, 255.0) / 255.0
    }

    /// The same chance for every byte, and for each pixel its own histogram of bytes over the images. The best location and
    /// scale of a pixel have no closed form: there is no line of collapse.
    fn baselines(&self, images: &Histograms) -> Vec<Baseline> {
        let entropy = |counts: &[u32; 256]| -> f64 {
            let shares = counts.iter().filter(|&&n| n > 0).map(|&n| f64::from(n) / images.images());
            shares.map(|p| -p * p.ln()).sum()
        };
        let own = images.counts().iter().map(entropy).sum();
        vec![
            Baseline::new(images.pixels() as f64 * 256f64.ln(), "every byte alike: 8 bits per dimension"),
            Baseline::new(own, "one histogram per pixel, made of these very images: a model without z"),
            Baseline::new(0.0, "floor: every byte is known"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::super::tests::{mean_of_draws, plain, two_images};
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn the_discretised_logistic_sums_to_one_over_the_bytes() {
        let p = Likelihood::discretised_logistic(0.002);
        for (mean, r) in [(0.5, 0.0), (0.0, -3.0), (1.2, -6.0), (0.3, -50.0), (-4.0, 2.0)] {
            let g = Graph::new();
            let bytes: Vec<f64> = (0..256).map(|i| f64::from(i) / 255.0).collect();
            let x = g.tensor(&[256, 1], &bytes);
            let raw = plain(g.tensor(&[1, 2], &[mean, r]).broadcast_to(&[256, 2]));
            let nll = p.nll(raw, x);
            let slope = grad(nll.sum_all(), &[raw.values])[0];
            let mut run = Interp::<f64>::new(&g);
            let total: f64 = run.eval(nll).iter().map(|n| (-n).exp()).sum();
            assert!((total - 1.0).abs() < 1e-9, "mean {mean}, r {r}: {total}");
            let mut single = Interp::<f32>::new(&g);
            assert!(single.eval(nll).iter().all(|n| n.is_finite() && *n > -1e-6), "a probability is at most 1");
            assert!(single.eval(slope).iter().all(|d| d.is_finite()));
        }
    }

    #[test]
    fn the_mean_of_the_discretised_logistic_is_that_of_its_bytes() {
        let p = Likelihood::discretised_logistic(0.002);
        let softplus_inverse = |s: f64| (s - 0.002).exp_m1().ln();
        for scale in [0.0021, 0.01, 0.1, 1.0] {
            for location in [-0.5, -0.01, 0.0, 0.02, 0.3, 0.5, 0.97, 1.0, 1.2] {
                let g = Graph::new();
                let bytes: Vec<f64> = (0..256).map(|i| f64::from(i) / 255.0).collect();
                let one = g.tensor(&[1, 2], &[location, softplus_inverse(scale)]);
                let nll = p.nll(plain(one.broadcast_to(&[256, 2])), g.tensor(&[256, 1], &bytes));
                let mean = p.mean(plain(one));
                let mut run = Interp::<f64>::new(&g);
                let exact: f64 = run.eval(nll).iter().zip(&bytes).map(|(n, x)| x * (-n).exp()).sum();
                let found = run.eval(mean)[0];
                assert!((found - exact).abs() <= HALF_CELL, "m = {location}, s = {scale}: {found} against {exact}");
                let single = f64::from(Interp::<f32>::new(&g).eval(mean)[0]);
                assert!((single - found).abs() < 2e-6, "m = {location}, s = {scale}: {single} against {found}");
                if location == 0.0 && scale == 0.1 {
                    assert!((exact - 0.1 * LN_2).abs() < 1e-4, "not the location: {exact}");
                }
            }
        }
    }

    #[test]
    fn draws_are_bytes_with_their_mean() {
        let logistic = Likelihood::discretised_logistic(0.02);
        let byte = |x: f64| f64::from(((x * 255.0).round() / 255.0 - x).abs() < 1e-12);
        assert_eq!(mean_of_draws(logistic, &[0.4, -50.0], byte), 1.0);
        assert!((mean_of_draws(logistic, &[0.4, -50.0], |x| x) - 0.4).abs() < 0.001);
    }

    #[test]
    fn the_scale_is_computed_from_the_images() {
        let marks = Likelihood::discretised_logistic(0.02).baselines(&two_images());
        // The first pixel is 0 and 255, the second always 255.
        assert!((marks[0].nats - 2.0 * 256f64.ln()).abs() < 1e-12 && (marks[1].nats - LN_2).abs() < 1e-12);
    }
}
