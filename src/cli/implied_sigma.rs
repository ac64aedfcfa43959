//! `elbo implied-sigma`: what a·(squared error) + b·KL says about the pixels.
//!
//! Many programs minimise such a sum with weights found by trial. Per image, with S = Σ(x − m)² over the D pixels, dividing
//! by b does not move the minimum, so that
//!
//! ```text
//! a·S + b·KL   ∝   S/(2σ²) + KL            with  σ² = b/(2a)
//! ```
//!
//! which is −ELBO of the decoder N(m, σ²) up to a constant: the weights *are* the decoder's standard deviation. The mean
//! over pixels is S/D, so that a·mean + b·KL has σ² = D·b/(2a). Held against a decoder whose σ is given, the same loss is
//! that of β = b/(2aσ²) (Higgins et al. 2017; Lucas et al. 2019, arXiv 1911.02469; Rybkin et al. 2021, arXiv 2006.13202).

use clap::{Args, ValueEnum};
use serde_json::json;

use super::answer::Answer;
use crate::engine::error::{Error, Result};

/// Say which sigma and beta the weights of a squared error and KL imply
#[derive(Args)]
pub struct ImpliedSigma {
    /// b, the weight of KL, which is a sum over the latent dimensions
    #[arg(long, value_name = "B")]
    pub kl_weight: f64,
    /// a, the weight of the squared error
    #[arg(long, value_name = "A", default_value_t = 1.0)]
    pub weight: f64,
    /// What is done with the squared errors of an image's pixels: mean or sum
    #[arg(long, value_name = "NAME", default_value = "mean")]
    pub reduction: Reduction,
    /// D, numbers per image (pixels times channels)
    #[arg(long, value_name = "D", default_value_t = 784)]
    pub pixels: usize,
    /// White minus black in the units of the images: 1 for [0, 1], 2 for [-1, 1], 255 for bytes
    #[arg(long, value_name = "RANGE", default_value_t = 1.0)]
    pub range: f64,
    /// V, the sum over pixels of their variance over the images [default: MNIST's 52.85 for 784 pixels]
    #[arg(long, value_name = "V")]
    pub variance: Option<f64>,
    #[command(flatten)]
    pub answer: Answer,
}

/// How the errors of an image's pixels become one number.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reduction {
    Mean,
    Sum,
}

/// Pixels of MNIST, and their total variance over the test images, grey values in [0, 1].
const MNIST: (usize, f64) = (784, 52.85);

impl ImpliedSigma {
    /// Prints sigma, beta, and what they mean.
    pub fn run(&self) -> Result<()> {
        let positive = |field: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(value),
            false => Err(Error::argument(field, value, "a number > 0")),
        };
        let d = positive("pixels", self.pixels as f64)?;
        let (a, b) = (positive("weight", self.weight)?, positive("kl weight", self.kl_weight)?);
        let (range, known) =
            (positive("range", self.range)?, self.variance.map(|v| positive("variance", v)).transpose()?);
        let (formula, s2) = match self.reduction {
            Reduction::Mean => ("D·b/(2a)", d * b / (2.0 * a)),
            Reduction::Sum => ("b/(2a)", b / (2.0 * a)),
        };
        let (s, grey) = (short(s2.sqrt()), short(255.0 * s2.sqrt() / range));
        let v = known.or_else(|| (self.pixels == MNIST.0).then_some(MNIST.1 * range * range));
        let said = v.map(|v| verdict(s2, v, d));
        let text = format!(
            "sigma² = {formula} = {}\nsigma  = {s} in units of the images, {grey} grey levels of 255\nbeta   = sigma²/s² for a \
             decoder with sigma = s: {} for s = 1\n{}\n(for a linear decoder exactly: a direction of the images is used if and only \
             if its variance exceeds sigma², Lucas et al. 2019)\n",
            short(s2),
            short(s2),
            said.as_deref().unwrap_or("collapse or blur? say --variance"),
        );
        let report = json!({
            "sigma_squared": s2, "sigma": s2.sqrt(), "grey_levels": 255.0 * s2.sqrt() / range, "variance": v,
            "pixel_standard_deviation": v.map(|v| (v / d).sqrt()), "verdict": said,
        });
        self.answer.give(&text, &report)
    }
}

/// What becomes of images whose D pixels have the total variance V.
fn verdict(s2: f64, v: f64, d: f64) -> String {
    let spread = (v / d).sqrt();
    let what = if s2 > v {
        format!("sigma² > V: collapse expected; divide the weight of KL by {} to get sigma = √(V/D)", short(s2 * d / v))
    } else if s2 > v / d {
        "sigma > √(V/D): blur; directions with less variance than sigma² are drawn as their mean".into()
    } else {
        "sigma < √(V/D): no collapse for this reason; --likelihood gaussian-optimal would learn how small it should be"
            .into()
    };
    format!(
        "total variance of the pixels V = {}, a pixel's standard deviation √(V/D) = {}\n{what}",
        short(v),
        short(spread)
    )
}

/// At most four significant digits.
fn short(x: f64) -> String {
    format!("{x:.3e}").parse::<f64>().expect("as it was just written").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let shown = [1.536, 1.239_354_8, 19.798_989, 0.000_25, 392.0].map(short);
        assert_eq!(shown, ["1.536", "1.239", "19.8", "0.00025", "392"]);
    }

    #[test]
    fn variances_are_held_against_those_of_the_images() {
        for (s2, word) in [(392.0, "by 5815 to"), (1.0, "blur"), (0.05, "no collapse")] {
            assert!(verdict(s2, 52.85, 784.0).contains(word), "{}", verdict(s2, 52.85, 784.0));
        }
    }
}
