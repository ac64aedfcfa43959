//! x is 1 or 0.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};

use super::{Baseline, Facts, Histograms, Kind, Likelihood, PixelDistribution, Raw};
use crate::engine::graph::Var;
use crate::engine::rng::Draw;

/// See [`Likelihood::bernoulli`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bernoulli {}

impl Likelihood {
    /// x is 1 with probability sigmoid(l), else 0, for a logit l:
    ///
    /// ```text
    /// −log p(x|l) = softplus(l) − x·l          d/dl = sigmoid(l) − x
    /// ```
    ///
    /// On the logit, never on its sigmoid: in f32 sigmoid(l) rounds to 1 from l ≈ 17 on, where a sure pixel usually
    /// is, and log(1 − sigmoid(l)) is log 0; log(sigmoid(l)) is log 0 only for l < −104. The derivatives are 0/0
    /// there. For a grey x in (0, 1) this is a cross-entropy rather than a likelihood; its minimum is the entropy of
    /// x, not 0.
    pub const fn bernoulli() -> Likelihood {
        Likelihood(Kind::Bernoulli(Bernoulli {}))
    }
}

/// Rates are kept this far from 0 and 1, as in the code of Burda et al. 2015: pixels of the border are black in every
/// image.
const LEAST_RATE: f64 = 0.001;

impl PixelDistribution for Bernoulli {
    fn describe(&self) -> String {
        "bernoulli".into()
    }

    fn facts(&self) -> Facts {
        Facts {
            summary: "a rate, on logits",
            outputs: &["logits"],
            takes_binary: true,
            is_linear: true,
            ..Facts::default()
        }
    }

    fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        raw.values.softplus() - x * raw.values
    }

    fn mean<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        raw.values.sigmoid()
    }

    fn draw(&self, raw: &[f64], noise: Draw, i: u64) -> f64 {
        f64::from(f64::from(noise.uniform(i)) < 1.0 / (1.0 + (-raw[0]).exp()))
    }

    fn raw_of_mean(&self, mean: f64) -> Option<f64> {
        let p = mean.clamp(LEAST_RATE, 1.0 - LEAST_RATE);
        Some((p / (1.0 - p)).ln())
    }

    /// On grey pixels these are cross-entropies Σ −x ln p − (1−x) ln(1−p), which are also the expectations under dynamic
    /// binarisation, x ~ Bernoulli(grey value): D ln 2; D·H(p) for the mean p of all pixels; Σ H(pᵢ) for the means of each;
    /// and the mean of Σ H(xᵢ), what is left when the grey image itself is known, 0 for black and white.
    fn baselines(&self, images: &Histograms) -> Vec<Baseline> {
        let pixels = images.pixels() as f64;
        let images_with = |grey: usize| images.counts().iter().map(|counts| u64::from(counts[grey])).sum::<u64>();
        let known: f64 = (0..256).map(|grey| images_with(grey) as f64 * entropy(grey as f64 / 255.0)).sum();
        let floor = match known > 0.0 {
            true => "floor: the entropy of the grey values, left to one who knows the image",
            false => "floor: the image is known",
        };
        let own = images.means().into_iter().map(entropy).sum();
        vec![
            Baseline::new(pixels * LN_2, "a fair coin per pixel"),
            Baseline::new(pixels * entropy(images.mean()), "one rate for all pixels"),
            Baseline::collapsed(own, "one rate per pixel: a model that ends here has collapsed"),
            Baseline::new(known / images.images(), floor),
        ]
    }
}

/// H(p) = −p ln p − (1−p) ln(1−p), with 0 ln 0 = 0.
fn entropy(p: f64) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    term(p) + term(1.0 - p)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mean_of_draws, plain, two_images};
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn bernoulli_is_finite_with_the_right_gradient_at_any_logit() {
        let logits = [-1e4, -300.0, -88.0, -1.0, 0.0, 1.0, 88.0, 300.0, 1e4];
        for x in [0.0, 0.3, 1.0] {
            let g = Graph::new();
            let l = g.tensor(&[1, 9], &logits);
            let nll = Likelihood::bernoulli().nll(plain(l), g.full(&[1, 9], x));
            let d = grad(nll.sum_all(), &[l])[0];
            let (mut f32s, mut f64s) = (Interp::<f32>::new(&g), Interp::<f64>::new(&g));
            for (i, &l) in logits.iter().enumerate() {
                let exact = l.max(0.0) - x * l + (-l.abs()).exp().ln_1p();
                assert!((f64s.eval(nll)[i] - exact).abs() <= 1e-12 * exact.abs() + 1e-12);
                assert!((f64::from(f32s.eval(nll)[i]) - exact).abs() <= 1e-5 * exact.abs() + 1e-6);
                assert!((f64::from(f32s.eval(d)[i]) - (1.0 / (1.0 + (-l).exp()) - x)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn the_sigmoid_is_one_long_before_it_is_zero() {
        let sigmoid = |l: f32| 1.0 / (1.0 + (-l).exp());
        // The formulas that are not used here, at the logit of a pixel that is wrongly thought white, and black.
        assert!((1.0 - sigmoid(16.0)).ln().is_finite() && (1.0 - sigmoid(17.0)).ln() == f32::NEG_INFINITY);
        assert!(sigmoid(-80.0).ln().is_finite() && sigmoid(-104.0).ln() == f32::NEG_INFINITY);
        let g = Graph::new();
        let l = g.tensor(&[1, 2], &[17.0, -104.0]);
        let nll = Likelihood::bernoulli().nll(plain(l), g.tensor(&[1, 2], &[0.0, 1.0]));
        assert_eq!(Interp::<f32>::new(&g).eval(nll), [17.0, 104.0]);
    }

    #[test]
    fn draws_have_the_rate() {
        // Four standard errors of 40 000 draws.
        assert!((mean_of_draws(Likelihood::bernoulli(), &[3f64.ln()], |x| x) - 0.75).abs() < 0.009);
    }

    #[test]
    fn the_scale_is_computed_from_the_images() {
        let nats: Vec<f64> = Likelihood::bernoulli().baselines(&two_images()).iter().map(|b| b.nats).collect();
        // Rates ½ and 1, and ¾ for all.
        let all = -1.5 * 0.75f64.ln() - 0.5 * 0.25f64.ln();
        let expected = [2.0 * LN_2, all, LN_2, 0.0];
        assert!(nats.iter().zip(expected).all(|(n, e)| (n - e).abs() < 1e-12), "{nats:?}");
    }
}
