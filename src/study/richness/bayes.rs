//! The class from a draw of z: Bayes' rule, and how many nats of the class z holds.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::surgery::{Mixture, draw};
use super::{Uncertain, entropy, shares};
use crate::vae::Encoded;
use crate::vae::watch::Watch;

/// What one draw z ~ q(z|x) tells of the class y of x. With q(z|y) the mean of q(z|x) over the images of class y, and
/// the classes as frequent as among the images judged,
///
/// ```text
/// p(y|z)    = p(y) q(z|y) / q(z)  ∝  Σ_{x of class y} q(z|x)           Bayes' rule
/// I_q(z;y)  = E[ ln q(z|y) − ln q(z) ] = H(y) − H(y|z)
/// ```
///
/// q(z|y) is known from finitely many images only, and I_q lies between two estimates, in expectation over the images:
///
/// * above: the mean of ln q(z_n|y_n) − ln q(z_n) with the mixtures of the very images that are judged. Each mixture
///   holds the term of the image that z_n was drawn from, which can only help it: Σ_y p(y) KL(q(z|y) ‖ q(z)) is convex
///   in the q(z|y), so that by Jensen's inequality their averages over some images give no less than those over all.
///   Where z tells which of the images it was, this is H(y), whatever the labels.
/// * below: H(y) + the mean of ln r(y_n|z_n) for a rule r that has seen neither image nor draw (Barber & Agakov 2003).
///   It is Bayes' rule with the M training images known, and r(y|z) ∝ p(y) q(z|y)^t, because far from all known images
///   the rule itself is sure of the nearest one's class. Half of the judged images choose t for the other half. And r
///   gives no class less than 1/(M C), since M images cannot exclude one more surely than that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bayes {
    /// Images that are judged, a draw of z each.
    pub images: usize,
    /// Part of them whose z Bayes' rule, with the training images known, calls by their label.
    pub accuracy: Uncertain,
    /// I_q(z;y) from below, in nats.
    pub at_least: Uncertain,
    /// I_q(z;y) from above, in nats.
    pub at_most: Uncertain,
}

impl Bayes {
    /// Of the images encoded in `judged`, with those in `known`; labels in the same order, below `classes`. The draws
    /// are a pure function of `seed`.
    pub(super) fn of(
        [known, judged]: [&Encoded; 2],
        labels: [&[u8]; 2],
        classes: usize,
        seed: u64,
        watch: &Watch,
    ) -> Bayes {
        let truth = labels[1];
        let [rule, own] = [(known, labels[0]), (judged, truth)].map(|(e, labels)| ByClass::new(e, labels, classes));
        let done = AtomicUsize::new(0);
        let look = |n: usize| {
            watch.at("Bayes' rule", done.fetch_add(1, Ordering::Relaxed) + 1, truth.len());
            let (z, _) = draw(judged, n, seed);
            let (inside, y) = (own.log_joint(&z, 1.0), usize::from(truth[n]));
            (rule.log_densities(&z), inside[y] - own.shares[y].ln() - log_sum_exp(&inside))
        };
        let (found, above): (Vec<Vec<f64>>, Vec<f64>) = (0..truth.len()).into_par_iter().map(look).unzip();
        let right = found.iter().zip(truth).filter(|(d, y)| rule.most_likely(d) == usize::from(**y)).count();
        let halves = halves(truth, classes);
        let score = |n: usize, t: f64| rule.log_probability(&found[n], usize::from(truth[n]), t);
        let best = |half: usize| {
            let total = |t: f64| (0..truth.len()).filter(|&n| halves[n] == half).map(|n| score(n, t)).sum::<f64>();
            powers().map(|t| (t, total(t))).reduce(|a, b| if b.1 > a.1 { b } else { a }).map_or(1.0, |best| best.0)
        };
        let chosen_by = [best(0), best(1)];
        let entropy = entropy(&own.shares);
        let below: Vec<f64> = (0..truth.len()).map(|n| entropy + score(n, chosen_by[1 - halves[n]])).collect();
        Bayes {
            images: truth.len(),
            accuracy: Uncertain::part(right, truth.len()),
            at_least: Uncertain::mean(&below),
            at_most: Uncertain::mean(&above),
        }
    }
}

/// 0 or 1 for every image: the halves, each with every other image of every class.
fn halves(labels: &[u8], classes: usize) -> Vec<usize> {
    let mut next = vec![0; classes];
    let half = |&y: &u8| {
        next[usize::from(y)] ^= 1;
        1 - next[usize::from(y)]
    };
    labels.iter().map(half).collect()
}

/// The t to choose from: 1, 2^(−½), 2^(−1), … 2^(−20), where hardly more than p(y) is left.
fn powers() -> impl Iterator<Item = f64> {
    (0..=40).map(|j| 2f64.powf(-0.5 * f64::from(j)))
}

/// The mixtures of the classes of some images.
struct ByClass {
    images: usize,
    /// p(y)
    shares: Vec<f64>,
    mixtures: Vec<Mixture>,
}

impl ByClass {
    fn new(encoded: &Encoded, labels: &[u8], classes: usize) -> ByClass {
        let k = encoded.latent;
        let of = |class: usize| {
            let places = || (0..labels.len()).filter(|&n| usize::from(labels[n]) == class);
            let rows = |values: &[f32]| places().flat_map(|n| values[n * k..][..k].to_vec()).collect();
            Mixture::new(&Encoded { latent: k, mu: rows(&encoded.mu), logvar: rows(&encoded.logvar) })
        };
        ByClass { images: labels.len(), shares: shares(labels, classes), mixtures: (0..classes).map(of).collect() }
    }

    /// ln q(z|y) of every class; −∞ for a class without images.
    fn log_densities(&self, z: &[f64]) -> Vec<f64> {
        self.mixtures.iter().map(|m| m.log_density(z)).collect()
    }

    /// ln p(y) + t ln q(z|y) of every class.
    fn log_joint(&self, z: &[f64], t: f64) -> Vec<f64> {
        self.weighed(&self.log_densities(z), t)
    }

    fn weighed(&self, log_densities: &[f64], t: f64) -> Vec<f64> {
        self.shares.iter().zip(log_densities).map(|(share, d)| share.ln() + t * d).collect()
    }

    /// The class with the largest p(y|z); of several, the one with the smallest label.
    fn most_likely(&self, log_densities: &[f64]) -> usize {
        let joint = self.weighed(log_densities, 1.0);
        (1..joint.len()).fold(0, |best, c| if joint[c] > joint[best] { c } else { best })
    }

    /// ln r(y|z) of class `y`.
    fn log_probability(&self, log_densities: &[f64], y: usize, t: f64) -> f64 {
        let joint = self.weighed(log_densities, t);
        let doubt = 1.0 / self.images as f64;
        ((1.0 - doubt) * (joint[y] - log_sum_exp(&joint)).exp() + doubt / joint.len() as f64).ln()
    }
}

fn log_sum_exp(terms: &[f64]) -> f64 {
    let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + terms.iter().map(|t| (t - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::super::{Classes, fano};
    use super::*;
    use crate::engine::device::Device;
    use crate::engine::rng::Draw;

    /// `count` images of classes 0, 1, 0, 1, …: μ ~ N(±a, s²), σ of each class.
    fn images(count: usize, a: f32, s: f32, sigma: [f32; 2], seed: u64) -> (Encoded, Vec<u8>) {
        let noise = Draw { seed, step: 0, stream: 0 };
        let mu = (0..count).map(|n| if n % 2 == 0 { a } else { -a } + s * noise.normal(n as u64)).collect();
        let logvar = (0..count).map(|n| 2.0 * sigma[n % 2].ln()).collect();
        (Encoded { latent: 1, mu, logvar }, (0..count).map(|n| (n % 2) as u8).collect())
    }

    fn looked_at(count: usize, a: f32, s: f32, sigma: [f32; 2]) -> Bayes {
        let ((known, names), (judged, truth)) = (images(4 * count, a, s, sigma, 1), images(count, a, s, sigma, 2));
        Bayes::of([&known, &judged], [&names, &truth], 2, 3, &Watch::default())
    }

    /// I(z;y) of two equally frequent Gaussians N(m, s²), and the part that Bayes' rule calls right, by the
    /// trapezoidal rule.
    fn exact(parts: [(f64, f64); 2]) -> (f64, f64) {
        let density = |z: f64, (m, s): (f64, f64)| (-0.5 * ((z - m) / s).powi(2)).exp() / s * 0.398_942_280_401_432_7;
        let (mut information, mut right) = (0.0, 0.0);
        for i in -40_000..=40_000 {
            let p = parts.map(|part| density(f64::from(i) * 1e-3, part));
            let of = |p: f64, other: f64| if p > 0.0 { 0.5e-3 * p * (2.0 * p / (p + other)).ln() } else { 0.0 };
            information += of(p[0], p[1]) + of(p[1], p[0]);
            right += 0.5e-3 * p[0].max(p[1]);
        }
        (information, right)
    }

    fn agrees(found: Bayes, (information, right): (f64, f64), gap: f64) {
        let Bayes { accuracy, at_least, at_most, .. } = found;
        assert!((accuracy.value - right).abs() < 3.5 * accuracy.standard_error, "{found:?} of {right}");
        assert!(at_least.value < information + 3.5 * at_least.standard_error, "{found:?} of {information}");
        assert!(at_most.value > information - 3.5 * at_most.standard_error, "{found:?} of {information}");
        assert!(at_most.value - at_least.value < gap && at_least.standard_error < 0.02, "{found:?}");
    }

    #[test]
    fn two_gaussians_tell_what_the_integral_says() {
        // All images of a class alike, and means that vary: then z is N(±a, s² + σ²).
        agrees(looked_at(4000, 1.0, 0.0, [1.0, 1.0]), exact([(1.0, 1.0), (-1.0, 1.0)]), 0.005);
        agrees(looked_at(4000, 1.0, 0.8, [0.6, 0.6]), exact([(1.0, 1.0), (-1.0, 1.0)]), 0.02);
        agrees(looked_at(4000, 0.3, 0.0, [1.0, 1.0]), exact([(0.3, 1.0), (-0.3, 1.0)]), 0.005);
        let apart = looked_at(1000, 20.0, 1.0, [1.0, 1.0]);
        assert!(apart.accuracy.value == 1.0 && (apart.at_most.value - 2f64.ln()).abs() < 1e-12, "{apart:?}");
        assert!((apart.at_least.value - 2f64.ln()).abs() < 1e-3, "{apart:?}");
    }

    #[test]
    fn the_spread_of_q_tells_of_the_class_where_its_mean_does_not() {
        let ((known, names), (judged, truth)) =
            (images(2000, 0.0, 0.0, [0.2, 1.0], 1), images(4000, 0.0, 0.0, [0.2, 1.0], 2));
        let device = Device::Cpu { threads: 1 };
        let classes =
            Classes::of([&known, &judged], [&names, &truth], 2, (3, 4000), device, &Watch::default()).unwrap();
        assert_eq!((classes.error, classes.fano), (0.5, 0.0), "all means are equal: {classes:?}");
        agrees(classes.draw, exact([(0.0, 0.2), (0.0, 1.0)]), 0.01);
        assert!(classes.draw.at_least.value > 0.25, "{classes:?}");
        assert_eq!(fano(2f64.ln(), 0.5, 2), 0.0);
    }

    #[test]
    fn labels_that_mean_nothing_are_not_read_from_posteriors_that_never_overlap() {
        // Every image has a z of its own, so that the mixture with the image's own term knows its label; no other does.
        let draw = Draw { seed: 5, step: 0, stream: 0 };
        let encoded = |from: u64| {
            let mu = (0..2000).map(|i| 1000.0 * draw.uniform(from + i)).collect();
            let labels: Vec<u8> = (0..2000).map(|i| u8::from(draw.uniform(from + 5000 + i) < 0.5)).collect();
            (Encoded { latent: 1, mu, logvar: vec![-12.0; 2000] }, labels)
        };
        let ((known, names), (judged, truth)) = (encoded(0), encoded(20_000));
        let found = Bayes::of([&known, &judged], [&names, &truth], 2, 1, &Watch::default());
        let chance = (found.accuracy.value - 0.5).abs() / found.accuracy.standard_error;
        assert!(found.at_most.value > 0.67 && chance < 3.5, "{found:?}");
        assert!(found.at_least.value.abs() < 0.005, "{found:?}");
    }

    #[test]
    fn a_class_that_was_never_seen_costs_no_more_than_the_doubt() {
        let (known, _) = images(50, 1.0, 0.0, [1.0, 1.0], 1);
        let (judged, truth) = images(10, 1.0, 0.0, [1.0, 1.0], 2);
        let found = Bayes::of([&known, &judged], [&[0; 50], &truth], 2, 1, &Watch::default());
        // Half of the images get the 1/(M C) of a class without images.
        let expected = 2f64.ln() + 0.5 * ((1.0 - 0.5 / 50.0f64).ln() + (0.5 / 50.0f64).ln());
        assert!((found.at_least.value - expected).abs() < 1e-12, "{found:?} of {expected}");
        assert_eq!(found.accuracy.value, 0.5);
        assert_eq!(found, Bayes::of([&known, &judged], [&[0; 50], &truth], 2, 1, &Watch::default()));
    }
}
