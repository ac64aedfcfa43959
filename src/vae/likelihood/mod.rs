//! p(x|z) for one pixel: a file for each distribution, and the list of them.
//!
//! A further one is a file with a structure of its options that is a [`PixelDistribution`], and its name in the list
//! ([`likelihoods!`]). Nothing outside of this folder tells one likelihood from another.

use std::f64::consts::LN_2;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::error::{Error, Result};
use crate::engine::graph::Var;
use crate::engine::rng::Draw;
use crate::engine::shape::Shape;

mod baseline;
mod bernoulli;
mod continuous_bernoulli;
mod discretised_logistic;
mod gaussian;
mod gaussian_optimal;
mod gaussian_shared;
mod spread;

pub use baseline::{Baseline, Histograms};

/// All that depends on the distribution of a pixel.
pub trait PixelDistribution {
    /// Its name and options, for people: `gaussian (sigma ≥ 0.1)`.
    fn describe(&self) -> String;

    /// What is to be known of it.
    fn facts(&self) -> Facts;

    /// The smallest spread, if there is a spread, in units where white is 1.
    fn floor(&mut self) -> Option<&mut f64> {
        None
    }

    /// −log p(x|z) for each pixel, `[rows, D]`, from what the decoder says and the images `x`, `[rows, D]`.
    fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g>;

    /// As [`PixelDistribution::nll`] for a batch that is learned from.
    fn training_nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        self.nll(raw, x)
    }

    /// E[x|z], `[rows, D]`.
    fn mean<'g>(&self, raw: Raw<'g>) -> Var<'g>;

    /// x ~ p(x|z) of one pixel, draw `i` of `noise`, from its [`outputs`](Facts::outputs) followed by the raw shared spread,
    /// if there is one.
    fn draw(&self, raw: &[f64], noise: Draw, i: u64) -> f64;

    /// The number of the decoder with which a pixel has this mean, where it alone decides.
    fn raw_of_mean(&self, _mean: f64) -> Option<f64> {
        None
    }

    /// What models without z reach on images, in nats per image, and the line that none can cross.
    fn baselines(&self, images: &Histograms) -> Vec<Baseline>;
}

/// What others need to know of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the decoder says of a pixel, in a few words: `a mean and a sigma for each pixel`.
    pub summary: &'static str,
    /// What the name of a run's folder ends with: `-gaussian`; nothing for the usual Bernoulli.
    pub suffix: &'static str,
    /// The names of the numbers of the decoder that describe a pixel: `logits`, or `mu` and `sigma`.
    pub outputs: &'static [&'static str],
    /// Whether all pixels share one spread, the parameter `decoder.sigma`.
    pub has_shared_sigma: bool,
    /// Whether what is learned from an image depends on the other images of its batch.
    pub needs_batch: bool,
    /// Whether black and white pixels can be modelled, of which it then is a probability, and not only grey ones.
    pub takes_binary: bool,
    /// Whether it is a probability of bytes, and not a density of grey values or a cross-entropy with them.
    pub is_probability: bool,
    /// Whether log p(x|z) is linear in x: that of the black image plus the product of the decoder's numbers with x.
    pub is_linear: bool,
}

/// Declares the structures of the modules as the kinds of likelihood. A module's name is that of its kind in files.
macro_rules! likelihoods {
    ($($name:ident: $kind:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        enum Kind {
            $($kind($name::$kind)),*
        }

        impl Kind {
            /// Every kind, with the options that are usual.
            fn all() -> Vec<Kind> {
                vec![$(Kind::$kind($name::$kind::default())),*]
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Kind::$kind(_) => stringify!($name)),*
                }
            }

            fn distribution(&self) -> &(dyn PixelDistribution + 'static) {
                match self {
                    $(Kind::$kind(own) => own),*
                }
            }

            fn distribution_mut(&mut self) -> &mut dyn PixelDistribution {
                match self {
                    $(Kind::$kind(own) => own),*
                }
            }
        }
    };
}

likelihoods! {
    bernoulli: Bernoulli,
    gaussian: Gaussian,
    gaussian_shared: GaussianShared,
    gaussian_optimal: GaussianOptimal,
    continuous_bernoulli: ContinuousBernoulli,
    discretised_logistic: DiscretisedLogistic,
}

/// The distribution of a pixel given the decoder's output; pixels are independent given z. Reads as the
/// [`PixelDistribution`] that it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Likelihood(Kind);

/// What the decoder says about a batch of images.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'g> {
    /// One or more numbers per pixel, `[rows, D]`, `[rows, 2D]`, …: all pixels' first, all pixels' second.
    pub values: Var<'g>,
    /// The raw spread shared by all pixels, a scalar, if the likelihood has one.
    pub shared: Option<Var<'g>>,
}

impl Likelihood {
    /// Every likelihood, with the options that are usual.
    pub fn all() -> Vec<Likelihood> {
        Kind::all().into_iter().map(Likelihood).collect()
    }

    /// The name, as in [`FromStr`] and in configuration files: `gaussian_shared`.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Whether all pixels share one spread, the parameter `decoder.sigma`.
    pub fn has_shared_sigma(&self) -> bool {
        self.facts().has_shared_sigma
    }

    /// The raw value of the shared spread at which σ is `sigma`, or a tenth above the floor if that is more: softplus has
    /// no zero. None without a shared spread.
    pub fn raw_shared_sigma(&self, sigma: f64) -> Option<f64> {
        self.floor().filter(|_| self.has_shared_sigma()).map(|floor| spread::raw(sigma, floor))
    }

    /// The spread of a pixel of which the decoder says `raw`, as [`PixelDistribution::draw`] takes it: the standard deviation
    /// of a Gaussian, the scale of a logistic, where white is 1. None without a spread.
    pub fn pixel_spread(&self, raw: &[f64]) -> Option<f64> {
        // The spread is the last number of all that have one, a pixel's own or the shared.
        self.floor().map(|floor| spread::value(raw[raw.len() - 1], floor))
    }

    /// The smallest spread, for the likelihoods that have one, in units where white is 1.
    pub fn floor(mut self) -> Option<f64> {
        self.0.distribution_mut().floor().copied()
    }

    /// The same with this smallest spread; without effect where there is no spread.
    #[must_use]
    pub fn with_floor(mut self, floor: f64) -> Likelihood {
        if let Some(own) = self.0.distribution_mut().floor() {
            *own = floor;
        }
        self
    }

    /// Bits per dimension, nats/(D ln 2), where p(x|z) is a probability of what was modelled: of bytes, or of black and
    /// white pixels. For a density, or for grey values under a Bernoulli, there is no such number.
    pub fn bits_per_dimension(&self, nats: f64, pixels: usize, binary: bool) -> Option<f64> {
        (binary || self.facts().is_probability).then(|| nats / (pixels as f64 * LN_2))
    }

    /// The spread of every pixel, `[rows, D]`, or the one that all share, a scalar: the standard deviation of a Gaussian, the scale
    /// of a logistic, where white is 1. None without a spread.
    #[track_caller]
    pub fn spread<'g>(&self, raw: Raw<'g>) -> Option<Var<'g>> {
        let floor = self.floor()?;
        Some(match raw.shared {
            Some(shared) => spread::of(shared, floor),
            None => spread::halves(raw.values, floor).1,
        })
    }

    /// [`PixelDistribution::nll`].
    ///
    /// # Panics
    /// When the decoder's numbers are not as many as the likelihood has for the pixels of x.
    #[track_caller]
    pub fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        self.check(raw, x);
        self.0.distribution().nll(raw, x)
    }

    /// [`PixelDistribution::training_nll`]: with [`Likelihood::gaussian_optimal`], s² is the batch's mean squared error, and
    /// `decoder.sigma` gets its own gradient without changing the value.
    ///
    /// # Panics
    /// As [`Likelihood::nll`].
    #[track_caller]
    pub fn training_nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        self.check(raw, x);
        self.0.distribution().training_nll(raw, x)
    }

    #[track_caller]
    fn check(&self, raw: Raw<'_>, x: Var<'_>) {
        let expected = Shape::new(&[x.shape()[0], self.facts().outputs.len() * x.shape()[1]]);
        assert!(raw.values.shape() == expected, "{self}: {expected} numbers for x, not {}", raw.values.shape());
        assert!(raw.shared.is_some() == self.has_shared_sigma(), "{self}: is there one spread for all pixels?");
    }

    /// The baseline of one distribution per pixel, which takes no z: a model that ends there has collapsed. None where it
    /// has no closed form.
    pub fn collapse_line(&self, images: &Histograms) -> Option<f64> {
        self.baselines(images).into_iter().find(|b| b.collapsed).map(|b| b.nats)
    }
}

impl Deref for Likelihood {
    type Target = dyn PixelDistribution;

    fn deref(&self) -> &Self::Target {
        self.0.distribution()
    }
}

impl fmt::Display for Likelihood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// By its name, with the options that are usual.
impl FromStr for Likelihood {
    type Err = Error;

    fn from_str(text: &str) -> Result<Likelihood> {
        let known = Likelihood::all().into_iter().find(|l| l.name() == text);
        known.ok_or_else(|| {
            let names: Vec<&str> = Likelihood::all().iter().map(Likelihood::name).collect();
            Error::argument("likelihood", format!("\"{text}\""), format!("one of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::Graph;

    /// Numbers without a spread of their own.
    pub(super) fn plain(values: Var<'_>) -> Raw<'_> {
        Raw { values, shared: None }
    }

    /// One spread, and errors ±0.3 and ±0.1: MSE 0.05.
    pub(super) fn shared(g: &Graph) -> (Raw<'_>, Var<'_>, Var<'_>) {
        let r = g.tensor(&[], &[0.4]);
        let values = g.tensor(&[2, 2], &[0.3, 0.5, 0.1, 0.2]);
        (Raw { values, shared: Some(r) }, g.tensor(&[2, 2], &[0.0, 0.8, 0.2, 0.1]), r)
    }

    /// Two images of two pixels: the first is 0 and 255, the second always 255.
    pub(super) fn two_images() -> Histograms {
        Histograms::new(&[0, 255, 255, 255], 2)
    }

    /// The mean over 40 000 draws of f(pixel).
    pub(super) fn mean_of_draws(likelihood: Likelihood, raw: &[f64], f: impl Fn(f64) -> f64) -> f64 {
        let noise = Draw { seed: 5, step: 0, stream: 0 };
        (0..40_000).map(|i| f(likelihood.draw(raw, noise, i))).sum::<f64>() / 40_000.0
    }

    #[test]
    fn names_are_those_of_the_configuration_files() {
        let all = Likelihood::all();
        let texts = all.iter().map(|l| serde_json::to_string(l).unwrap());
        let expected = [
            r#"{"kind":"bernoulli"}"#,
            r#"{"kind":"gaussian","sigma_floor":0.1}"#,
            r#"{"kind":"gaussian_shared","sigma_floor":0.01}"#,
            r#"{"kind":"gaussian_optimal","sigma_floor":0.01}"#,
            r#"{"kind":"continuous_bernoulli"}"#,
            r#"{"kind":"discretised_logistic","scale_floor":0.002}"#,
        ];
        assert_eq!(texts.collect::<Vec<_>>(), expected);
        for (l, text) in all.iter().zip(expected) {
            assert_eq!(serde_json::from_str::<Likelihood>(text).unwrap(), *l);
            assert!(text.contains(&format!("\"{}\"", l.name())) && l.name().parse::<Likelihood>().unwrap() == *l);
            let more = text.replace('}', ",\"depth\":1}");
            assert!(serde_json::from_str::<Likelihood>(&more).unwrap_err().to_string().contains("depth"), "{more}");
            assert_eq!(l.with_floor(0.25).floor(), l.floor().map(|_| 0.25), "{l}");
        }
        let message = "poisson".parse::<Likelihood>().unwrap_err().to_string();
        assert!(message.contains("discretised_logistic") && message.contains("poisson"), "{message}");
    }

    #[test]
    fn bits_per_dimension_only_of_probabilities() {
        let bits = |l: Likelihood, nats, binary| l.bits_per_dimension(nats, 784, binary);
        assert_eq!(bits(Likelihood::discretised_logistic(0.002), 8.0 * 784.0 * LN_2, false), Some(8.0));
        assert_eq!(bits(Likelihood::bernoulli(), 784.0 * LN_2, true), Some(1.0));
        assert_eq!(bits(Likelihood::bernoulli(), 100.0, false), None);
        assert_eq!(bits(Likelihood::continuous_bernoulli(), 100.0, false), None);
        assert_eq!(bits(Likelihood::gaussian(0.1), 100.0, false), None);
    }

    #[test]
    #[should_panic(expected = "[3, 4] numbers for x, not [3, 2]")]
    fn a_decoder_of_another_likelihood_is_refused() {
        let g = Graph::new();
        let x = g.full(&[3, 2], 0.5);
        Likelihood::gaussian(0.1).nll(plain(x), x);
    }
}
