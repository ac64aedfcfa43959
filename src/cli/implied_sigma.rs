//! `elbo implied-sigma`: what a weighted loss says about the pixels.

use std::fmt::Write;

use clap::{Args, ValueEnum};

use crate::engine::error::{Error, Result};
use crate::vae::{Fidelity, Reduction, WeightedLoss};

/// The error of a reconstruction and what is done with its pixels, by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum ReconstructionName {
    MeanMse,
    SumMse,
    MeanBce,
    SumBce,
}

impl ReconstructionName {
    /// What the name stands for.
    pub fn parts(self) -> (Fidelity, Reduction) {
        match self {
            ReconstructionName::MeanMse => (Fidelity::SquaredError, Reduction::Mean),
            ReconstructionName::SumMse => (Fidelity::SquaredError, Reduction::Sum),
            ReconstructionName::MeanBce => (Fidelity::CrossEntropy, Reduction::Mean),
            ReconstructionName::SumBce => (Fidelity::CrossEntropy, Reduction::Sum),
        }
    }
}

/// A sum or a mean, by name.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReductionName {
    Sum,
    Mean,
}

impl From<ReductionName> for Reduction {
    fn from(name: ReductionName) -> Reduction {
        match name {
            ReductionName::Sum => Reduction::Sum,
            ReductionName::Mean => Reduction::Mean,
        }
    }
}

/// Options of `elbo implied-sigma`.
#[derive(Args)]
pub struct Options {
    /// The loss in words, as in "mean MSE + 0.00025 KL", "0.5*sum MSE + 4 KL" or "sum BCE + KL"
    #[arg(value_name = "LOSS", conflicts_with_all = ["reconstruction", "weight", "kl_weight", "kl_reduction"])]
    pub loss: Option<String>,
    /// D, numbers per image (pixels times channels)
    #[arg(long, value_name = "D", default_value_t = 784)]
    pub pixels: usize,
    /// Instead of the words: the error, and whether its pixels are averaged or added up
    #[arg(long, value_name = "NAME")]
    pub reconstruction: Option<ReconstructionName>,
    /// a, the weight of the reconstruction
    #[arg(long, value_name = "A", default_value_t = 1.0)]
    pub weight: f64,
    /// b, the weight of KL
    #[arg(long, value_name = "B", default_value_t = 1.0)]
    pub kl_weight: f64,
    /// Whether KL is added up or averaged over the latent dimensions
    #[arg(long, value_name = "NAME", default_value = "sum")]
    pub kl_reduction: ReductionName,
    /// K, latent dimensions, where KL is averaged over them
    #[arg(long, value_name = "K")]
    pub latent: Option<usize>,
    /// Whether the reconstruction is averaged or added up over the batch
    #[arg(long, value_name = "NAME", default_value = "mean")]
    pub reconstruction_batch: ReductionName,
    /// Whether KL is averaged or added up over the batch
    #[arg(long, value_name = "NAME", default_value = "mean")]
    pub kl_batch: ReductionName,
    /// Images per batch, where only one of the two is averaged over it
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// White minus black in the units of the images: 1 for [0, 1], 2 for [-1, 1], 255 for bytes
    #[arg(long, value_name = "RANGE", default_value_t = 1.0)]
    pub range: f64,
    /// A decoder's sigma, to say the beta that goes with it
    #[arg(long, value_name = "SIGMA")]
    pub sigma: Option<f64>,
    /// V, the sum over pixels of their variance over the images [default: MNIST's 52.85 for 784 pixels]
    #[arg(long, value_name = "V")]
    pub variance: Option<f64>,
}

/// Pixels of MNIST, and their total variance over the test images, grey values in [0, 1].
const MNIST: (usize, f64) = (784, 52.85);

/// Prints sigma, beta, and what they mean.
pub fn implied_sigma(args: &Options) -> Result<()> {
    super::print(&answer(args)?)
}

/// The loss that is asked about: a sentence, or flags.
fn loss(args: &Options) -> Result<WeightedLoss> {
    let mut loss = match &args.loss {
        Some(sentence) => sentence.parse::<WeightedLoss>()?,
        None => {
            let Some(reconstruction) = args.reconstruction else {
                let expected = "a sentence like \"mean MSE + 0.00025 KL\", or --reconstruction";
                return Err(Error::argument("loss", "nothing", expected));
            };
            let (fidelity, pixels) = reconstruction.parts();
            let (weight, kl_weight, latents) = (args.weight, args.kl_weight, args.kl_reduction.into());
            WeightedLoss { fidelity, pixels, weight, kl_weight, latents }
        }
    };
    let batch = match (args.reconstruction_batch, args.kl_batch, args.batch) {
        (a, b, _) if a == b => 1.0,
        (_, _, None) => {
            let expected = "--batch B: one term is added up over the batch where the other is averaged";
            return Err(Error::argument("batch", "nothing", expected));
        }
        (_, _, Some(0)) => return Err(Error::argument("batch", 0, "at least 1")),
        (_, _, Some(n)) => n as f64,
    };
    // Relative to the mean over the batch, a sum counts B times as much.
    if args.reconstruction_batch == ReductionName::Sum {
        loss.weight *= batch;
    } else {
        loss.kl_weight *= batch;
    }
    Ok(loss)
}

/// Refuses options that would change nothing in the answer.
fn without_effect(args: &Options, loss: &WeightedLoss) -> Result<()> {
    let bernoulli = loss.fidelity == Fidelity::CrossEntropy;
    let scale = "a cross-entropy is of a decoder without a scale";
    let idle = [
        ("--sigma", bernoulli && args.sigma.is_some(), scale),
        ("--variance", bernoulli && args.variance.is_some(), scale),
        ("--range", bernoulli && args.range != 1.0, scale),
        (
            "--latent",
            args.latent.is_some() && loss.latents == Reduction::Sum,
            "KL is not a mean over latent dimensions",
        ),
        (
            "--batch",
            args.batch.is_some() && args.reconstruction_batch == args.kl_batch,
            "both terms are averaged alike",
        ),
    ];
    match idle.into_iter().find(|&(_, idle, _)| idle) {
        None => Ok(()),
        Some((option, _, because)) => {
            let found = format!("an option without effect: {because}");
            Err(Error::argument(option, found, format!("no {option}, or another loss")))
        }
    }
}

fn answer(args: &Options) -> Result<String> {
    let loss = loss(args)?;
    let positive = |field: &str, value: f64| match value > 0.0 && value.is_finite() {
        true => Ok(value),
        false => Err(Error::argument(field, value, "a number > 0")),
    };
    let range = positive("range", args.range)?;
    let sigma = args.sigma.map(|s| positive("sigma", s)).transpose()?;
    without_effect(args, &loss)?;
    let (d, k) = (args.pixels, args.latent);
    let (a, b) = loss.per_image(d, k)?;
    let mut text =
        format!("loss = {loss}\n     = {} · (sum over {d} pixels) + {} · KL, per image\n", short(a), short(b));
    let mut line = |s: String| writeln!(text, "{s}").expect("writing to a string");
    if loss.fidelity == Fidelity::CrossEntropy {
        let beta = loss.beta(d, k, 1.0)?;
        line(format!("\nbeta = b/a = {}", short(beta)));
        line("  a Bernoulli decoder has no scale of its own: the sum over pixels is −log p(x|z), and b/a the weight of KL".into());
        line(format!("  written with the mean over pixels, this is mean + {} KL", short(beta / d as f64)));
        line(format!("  written with the sum over pixels, this is sum + {} KL", short(beta)));
        line(
            match beta {
                b if b > 1.05 => {
                    "  beta > 1: KL costs more than the bound says; dimensions are given up (collapse) sooner"
                }
                b if b < 0.95 => {
                    "  beta < 1: KL costs less than the bound says; what is drawn from the prior looks worse"
                }
                _ => "  beta = 1: this is −ELBO",
            }
            .into(),
        );
        return Ok(text);
    }
    let s2 = loss.implied_variance(d, k)?.expect("a squared error has one");
    let s = s2.sqrt();
    let formula = if loss.pixels == Reduction::Mean { "D·b/(2a)" } else { "b/(2a)" };
    line(format!("\nsigma² = {formula} = {}", short(s2)));
    line(format!("sigma  = {} in units of the images, {} grey levels of 255", short(s), short(255.0 * s / range)));
    line("  dividing a·S + b·KL by b gives S/(2 sigma²) + KL: −ELBO, up to a constant, of pixels drawn from N(mean, sigma²)".into());
    match sigma {
        Some(own) => {
            line(format!("beta   = b/(2a·sigma²) = {} for a decoder with sigma = {own}", short(loss.beta(d, k, own)?)))
        }
        None => {
            line(format!("beta   = b/(2a·sigma²): {} for a decoder with sigma = 1, 1 with the sigma above", short(s2)))
        }
    }
    line("\nwhat it means".into());
    let variance = match args.variance {
        Some(v) => Some((positive("variance", v)?, "the images".to_string())),
        // The variance of grey values in [0, 1], in the units that were given.
        None if d == MNIST.0 => Some((MNIST.1 * range * range, "MNIST".to_string())),
        None => None,
    };
    match variance {
        None => {
            line("  with V the sum over pixels of their variance over your images (--variance V):".into());
            line(format!("  V < {}: collapse expected; V/D < {}: blur", short(s2), short(s2)));
        }
        Some((v, whose)) => {
            let spread = (v / d as f64).sqrt();
            line(format!(
                "  {whose}: total variance of the pixels V = {v}, a pixel's standard deviation √(V/D) = {}",
                short(spread)
            ));
            line(if s2 > v {
                format!(
                    "  sigma² > V: collapse expected. To a linear decoder a direction of the data is worth its KL only if its variance \
                         exceeds\n  sigma², and none can exceed the sum of all; for any decoder the collapsed point is a local optimum. \
                         Divide the\n  weight of KL by {} to get sigma = √(V/D)",
                    short(s2 / (spread * spread))
                )
            } else if s > spread {
                format!(
                    "  sigma > √(V/D): blur. Only directions of the data with a variance above {} are worth their KL; \
                         all else is noise\n  to this decoder, and it will draw the mean of it",
                    short(s2)
                )
            } else {
                "  sigma < √(V/D): no collapse for this reason; a learned sigma (--likelihood gaussian-optimal) would say how small \
                 it should be".into()
            });
        }
    }
    line("  (for a linear decoder exactly: a direction is used if and only if its variance exceeds sigma², Lucas et al. 2019)".into());
    Ok(text)
}

/// Four significant digits.
fn short(x: f64) -> String {
    let digits = 3 - x.abs().log10().floor() as i32;
    match digits {
        -2..=12 => {
            let text = format!("{x:.*}", digits.max(0) as usize);
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
        }
        _ => format!("{x:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let shown = [1.536, 1.239_354_8, 19.798_989, 0.000_25, 12288.0, 392.0, 1e-20].map(short);
        assert_eq!(shown, ["1.536", "1.239", "19.8", "0.00025", "12288", "392", "1.000e-20"]);
    }
}
