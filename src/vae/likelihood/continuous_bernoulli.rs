//! Grey values with the Bernoulli's formula, made a density.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};

use super::{Baseline, Facts, Histograms, Kind, Likelihood, PixelDistribution, Raw};
use crate::engine::graph::Var;
use crate::engine::rng::Draw;

/// See [`Likelihood::continuous_bernoulli`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContinuousBernoulli {}

impl Likelihood {
    /// A density on [0, 1] that is the Bernoulli formula made to integrate to 1 (Loaiza-Ganem & Cunningham 2019, arXiv
    /// 1907.06845):
    ///
    /// ```text
    /// −log p(x|l) = softplus(l) − x·l − log C,     C = (l/2) / tanh(l/2) · 2
    /// ```
    ///
    /// C is the paper's 2·atanh(1 − 2λ)/(1 − 2λ) with λ = sigmoid(l). Near l = 0 it is 0/0; there the series of its
    /// logarithm stands in.
    pub const fn continuous_bernoulli() -> Likelihood {
        Likelihood(Kind::ContinuousBernoulli(ContinuousBernoulli {}))
    }
}

impl PixelDistribution for ContinuousBernoulli {
    fn describe(&self) -> String {
        "continuous bernoulli".into()
    }

    fn facts(&self) -> Facts {
        Facts {
            summary: "a rate made a density",
            suffix: "-continuous",
            outputs: &["logits"],
            is_linear: true,
            ..Facts::default()
        }
    }

    fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        raw.values.softplus() - x * raw.values - log_normaliser(raw.values)
    }

    /// E[x] = 1/(1 − e^(−l)) − 1/l = ½ + l/12 − l³/720 + l⁵/30240 − …
    fn mean<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        let l = raw.values;
        let near = l.abs().lt(l.graph().full(&l.shape(), NEAR_ZERO));
        let one = l.graph().full(&l.shape(), 1.0);
        let square = l.square();
        let series = l * (1.0 / 12.0 + square * (-1.0 / 720.0 + square * (1.0 / 30240.0))) + 0.5;
        // Written for l > 0 and mirrored: −1/expm1(−l) with l = −100 would be 1/∞.
        let t = near.select(one, l.abs());
        let upper = -1.0 / (-t).expm1() - 1.0 / t;
        let positive = l.gt(l.graph().full(&l.shape(), 0.0));
        near.select(series, positive.select(upper, 1.0 - upper))
    }

    fn draw(&self, raw: &[f64], noise: Draw, i: u64) -> f64 {
        quantile(raw[0], f64::from(noise.uniform(i)))
    }

    /// The uniform density, and one λ per pixel at its best: the λ whose mean is the pixel's mean over the images.
    fn baselines(&self, images: &Histograms) -> Vec<Baseline> {
        let rates = images.means().into_iter().map(best_nll).sum();
        let what = format!("one rate per pixel, logits within ±{LARGEST_LOGIT}: a model without z");
        vec![Baseline::new(0.0, "the uniform density"), Baseline::collapsed(rates, what)]
    }
}

/// |l| below which the formulas are replaced by their series. At the seam the closed form has lost three of f32's seven
/// digits, and the series' first missing term is below 1e-12.
const NEAR_ZERO: f64 = 0.2;

/// log C = ln 2 + ln(t/tanh t) with t = |l|/2; ln(t/tanh t) = t²/3 − 7t⁴/90 + 62t⁶/2835 − 127t⁸/18900 + …
fn log_normaliser(l: Var<'_>) -> Var<'_> {
    let near = l.abs().lt(l.graph().full(&l.shape(), NEAR_ZERO));
    let one = l.graph().full(&l.shape(), 1.0);
    let square = (l * 0.5).square();
    let series = square * (1.0 / 3.0 + square * (-7.0 / 90.0 + square * (62.0 / 2835.0 - square * (127.0 / 18900.0))));
    // The branch that is not taken must have a finite gradient too.
    let t = near.select(one, l.abs() * 0.5);
    near.select(series, t.log() - t.tanh().log()) + LN_2
}

/// x with P(X ≤ x) = (e^(lx) − 1)/(e^l − 1) = u. For l > 0 it is the mirror image, so that nothing overflows.
fn quantile(l: f64, u: f64) -> f64 {
    if l.abs() < 1e-6 {
        u
    } else if l > 0.0 {
        1.0 - quantile(-l, 1.0 - u)
    } else {
        (u * l.exp_m1()).ln_1p() / l
    }
}

/// sigmoid of it is 1 − 2e-9: as sure as f32 can be.
const LARGEST_LOGIT: f64 = 20.0;

/// min over l of E[−log p(x|l)] = softplus(l) − mean·l − log C(l) for a pixel with this mean: the function is convex, its
/// slope increases from −mean to 1 − mean, and bisection finds its zero. A pixel that is always black (or always white)
/// would go to −∞ with l; l stops at ±[`LARGEST_LOGIT`].
fn best_nll(mean: f64) -> f64 {
    let log_c = |l: f64| {
        let t = 0.5 * l.abs();
        LN_2 + if t < 1e-3 { t * t / 3.0 } else { (t / t.tanh()).ln() }
    };
    // E[x] − mean, with E[x] = 1/(1 − e^(−l)) − 1/l.
    let slope = |l: f64| if l.abs() < 1e-6 { 0.5 + l / 12.0 } else { -1.0 / (-l).exp_m1() - 1.0 / l } - mean;
    let (mut low, mut high) = (-LARGEST_LOGIT, LARGEST_LOGIT);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        *(if slope(middle) < 0.0 { &mut low } else { &mut high }) = middle;
    }
    let l = 0.5 * (low + high);
    l.max(0.0) + (-l.abs()).exp().ln_1p() - mean * l - log_c(l)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mean_of_draws, plain};
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn the_continuous_bernoulli_integrates_to_one_and_has_its_mean() {
        let logits = [-60.0, -5.0, -0.21, -0.19, -1e-6, 0.0, 1e-3, 0.15, 0.25, 1.0, 8.0, 60.0];
        let steps = 20_000;
        for l in logits {
            let g = Graph::new();
            let raw = plain(g.tensor(&[1, 1], &[l]));
            let xs: Vec<f64> = (0..=steps).map(|i| i as f64 / steps as f64).collect();
            let x = g.tensor(&[1, steps + 1], &xs);
            let wide = plain(raw.values.broadcast_to(&[1, steps + 1]));
            let nll = Likelihood::continuous_bernoulli().nll(wide, x);
            let mut run = Interp::<f64>::new(&g);
            let density: Vec<f64> = run.eval(nll).iter().map(|n| (-n).exp()).collect();
            // Simpson's rule.
            let weight = |i: usize| match i {
                0 => 1.0,
                i if i == steps => 1.0,
                i if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            let sum =
                |f: &dyn Fn(usize) -> f64| (0..=steps).map(|i| weight(i) * f(i)).sum::<f64>() / (3 * steps) as f64;
            let (mass, mean) = (sum(&|i| density[i]), sum(&|i| density[i] * xs[i]));
            assert!((mass - 1.0).abs() < 1e-9, "l = {l}: {mass}");
            let found = run.eval(Likelihood::continuous_bernoulli().mean(raw))[0];
            assert!((found - mean).abs() < 1e-9, "l = {l}: {found} against {mean}");
        }
    }

    #[test]
    fn the_continuous_bernoulli_has_a_smooth_gradient_through_zero() {
        // d/dl of −log C is 1/sinh(l) − 1/l = −l/6 + 7l³/360 − …, on both sides of the seam at 0.2.
        let logits = [-0.2001, -0.1999, -0.01, 0.0, 0.1, 0.1999, 0.2001, 3.0, 90.0];
        let g = Graph::new();
        let l = g.tensor(&[1, 9], &logits);
        let x = g.full(&[1, 9], 0.5);
        let nll = Likelihood::continuous_bernoulli().nll(plain(l), x).sum_all();
        let slope = grad(nll, &[l])[0];
        let (f32s, f64s) = (Interp::<f32>::new(&g).eval(slope), Interp::<f64>::new(&g).eval(slope));
        for (i, l) in logits.into_iter().enumerate() {
            let own = if l == 0.0 { 0.0 } else { 1.0 / f64::sinh(l) - 1.0 / l };
            let exact = 1.0 / (1.0 + f64::exp(-l)) - 0.5 + own;
            assert!((f64s[i] - exact).abs() < 1e-10, "l = {l}: {} against {exact}", f64s[i]);
            assert!((f64::from(f32s[i]) - exact).abs() < 3e-6, "l = {l}: {} against {exact}", f32s[i]);
        }
    }

    #[test]
    fn draws_have_their_mean() {
        for l in [-40.0, -2.0, 1e-9, 0.5, 40.0] {
            let exact = if f64::abs(l) < 1e-6 { 0.5 } else { -1.0 / (-l).exp_m1() - 1.0 / l };
            // Four standard errors of 40 000 draws.
            let found = mean_of_draws(Likelihood::continuous_bernoulli(), &[l], |x| x);
            assert!((found - exact).abs() < 0.006, "l = {l}");
        }
    }

    #[test]
    fn the_best_rate_is_better_than_its_neighbours() {
        // Mean ½ is the uniform density; near mean 0.3 the best l gives less than its neighbours do.
        assert!(best_nll(0.5).abs() < 1e-9);
        let (best, mean) = (best_nll(0.3), 0.3);
        for l in [-3.0f64, -2.0, -1.0, 1.0] {
            let t: f64 = 0.5 * l.abs();
            let nll = l.max(0.0) + (-l.abs()).exp().ln_1p() - mean * l - LN_2 - (t / t.tanh()).ln();
            assert!(nll > best, "{l}: {nll} against {best}");
        }
    }
}
