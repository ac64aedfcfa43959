//! What a weighted sum of a reconstruction error and a KL term is the ELBO of.
//!
//! Many programs minimise a·(error) + b·KL with weights found by trial. Per image, with S = Σ(x − m)² over the D pixels,
//! dividing the loss by a number does not move its minimum, so that
//!
//! ```text
//! a·S + b·KL   ∝   S/(2σ²) + KL            with  σ² = b/(2a)
//! ```
//!
//! which is −ELBO of the decoder N(m, σ²) up to a constant: the weights *are* the decoder's standard deviation. The mean
//! over pixels is S/D, so that a·mean + b·KL has σ² = D·b/(2a). Held against a decoder whose σ is given, the same loss
//! is that of β = b/(2aσ²) (Higgins et al. 2017; Lucas et al. 2019, arXiv 1911.02469; Rybkin et al. 2021, arXiv 2006.13202).
//! With the cross-entropy of a Bernoulli decoder, which has no free scale, β = b/a for the sum over pixels, D·b/a for the mean.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::error::{Error, Result};

/// The error of a reconstruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// (x − m)²: of a Gaussian decoder, without its scale.
    SquaredError,
    /// −x ln p − (1 − x) ln(1 − p): of a Bernoulli decoder.
    CrossEntropy,
}

/// How numbers of one image, or of one batch, become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Added.
    Sum,
    /// Averaged.
    Mean,
}

/// a·reconstruction + b·KL, as a program computes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightedLoss {
    /// Which error.
    pub fidelity: Fidelity,
    /// Over the pixels of an image.
    pub pixels: Reduction,
    /// a, before the reconstruction error.
    pub weight: f64,
    /// b, before KL.
    pub kl_weight: f64,
    /// Of KL over the latent dimensions.
    pub latents: Reduction,
}

impl WeightedLoss {
    /// a and b of a·(sum over pixels) + b·(sum over latent dimensions) for D pixels and K latent dimensions.
    ///
    /// # Errors
    /// [`Error::Argument`] when a weight is not a positive number, a size is 0, or K is needed and not known.
    pub fn per_image(&self, pixels: usize, latent: Option<usize>) -> Result<(f64, f64)> {
        let weight = |field: &str, w: f64| match w > 0.0 && w.is_finite() {
            true => Ok(w),
            false => Err(Error::argument(field, w, "a number > 0")),
        };
        let size = |field: &str, n: usize| match n {
            0 => Err(Error::argument(field, n, "at least 1")),
            n => Ok(n as f64),
        };
        let (a, b) = (weight("weight of the reconstruction", self.weight)?, weight("weight of KL", self.kl_weight)?);
        let a = if self.pixels == Reduction::Mean { a / size("pixels", pixels)? } else { a };
        let b = match (self.latents, latent) {
            (Reduction::Sum, _) => b,
            (Reduction::Mean, Some(k)) => b / size("latent", k)?,
            (Reduction::Mean, None) => {
                let expected = "--latent K: a mean over the latent dimensions is a K-th of their KL";
                return Err(Error::argument("latent", "nothing", expected));
            }
        };
        Ok((a, b))
    }

    /// σ² = b/(2a) of the Gaussian decoder whose −ELBO the loss is, in squared units of the images; none for a cross-entropy.
    ///
    /// # Errors
    /// As [`WeightedLoss::per_image`].
    pub fn implied_variance(&self, pixels: usize, latent: Option<usize>) -> Result<Option<f64>> {
        let (a, b) = self.per_image(pixels, latent)?;
        Ok((self.fidelity == Fidelity::SquaredError).then_some(b / (2.0 * a)))
    }

    /// The β of this loss: with a Gaussian decoder of the given σ, b/(2aσ²); with a Bernoulli decoder, which has none, b/a.
    ///
    /// # Errors
    /// As [`WeightedLoss::per_image`].
    pub fn beta(&self, pixels: usize, latent: Option<usize>, sigma: f64) -> Result<f64> {
        let (a, b) = self.per_image(pixels, latent)?;
        Ok(match self.fidelity {
            Fidelity::SquaredError => b / (2.0 * a * sigma * sigma),
            Fidelity::CrossEntropy => b / a,
        })
    }
}

impl fmt::Display for WeightedLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self.fidelity {
            Fidelity::SquaredError => "squared error",
            Fidelity::CrossEntropy => "cross-entropy",
        };
        let over = |r: Reduction| if r == Reduction::Mean { "mean" } else { "sum" };
        write!(f, "{} · {} over pixels of the {error}", self.weight, over(self.pixels))?;
        write!(f, " + {} · {} over latent dimensions of KL", self.kl_weight, over(self.latents))
    }
}

/// What a sentence may look like.
const EXAMPLES: &str = "a sentence like \"mean MSE + 0.00025 KL\", \"MSE mean, KL weight 0.00025\", \"0.5*sum MSE + 4 KL\" or \
                        \"sum BCE + KL\"";

/// Words that carry no number and no choice.
const FILLERS: [&str; 28] = [
    "weight",
    "weighted",
    "weights",
    "times",
    "with",
    "of",
    "the",
    "a",
    "over",
    "per",
    "pixel",
    "pixels",
    "image",
    "images",
    "loss",
    "term",
    "reconstruction",
    "recon",
    "divergence",
    "error",
    "squared",
    "cross",
    "entropy",
    "binary",
    "reduction",
    "by",
    "x",
    "plus",
];

/// Reads a sentence. Terms are separated by `+`, `,`, `;` or `and`; in each stands the name of an error (MSE, SSE, L2, squared
/// error, BCE, cross-entropy) or KL, its numbers (multiplied; `/ n` divides), and `mean` or `sum`. Counts ("over 784 pixels") and
/// sums in brackets are refused, not guessed at. What is not said is taken as
/// PyTorch has it: a mean over pixels; and as everyone has it: KL as a sum over the latent dimensions. "Mean KL" without
/// mention of dimensions is that sum, averaged over the batch.
impl FromStr for WeightedLoss {
    type Err = Error;

    fn from_str(text: &str) -> Result<WeightedLoss> {
        let wrong = |problem: String| Error::argument("loss", format!("\"{text}\": {problem}"), EXAMPLES);
        let words = words(text).map_err(|c| wrong(format!("\"{c}\" is not understood")))?;
        no_bracket_around_a_sum(&words).map_err(wrong)?;
        let (mut reconstruction, mut kl) = (None, None);
        for term in words.split(|w| separates(w)).filter(|t| !t.is_empty()) {
            let term = Term::read(term).map_err(wrong)?;
            let (slot, name) = if term.kl { (&mut kl, "KL") } else { (&mut reconstruction, "a reconstruction error") };
            if slot.replace(term).is_some() {
                return Err(wrong(format!("{name} stands there twice")));
            }
        }
        let reconstruction: Term = reconstruction.ok_or_else(|| wrong("no reconstruction error".into()))?;
        let kl: Term = kl.ok_or_else(|| wrong("no KL term".into()))?;
        let dimensions = kl.dimensions && kl.reduction == Some(Reduction::Mean);
        Ok(WeightedLoss {
            fidelity: reconstruction.fidelity,
            pixels: reconstruction.reduction.unwrap_or(Reduction::Mean),
            weight: reconstruction.number,
            kl_weight: kl.number,
            latents: if dimensions { Reduction::Mean } else { Reduction::Sum },
        })
    }
}

/// Whether a word stands between two summands.
fn separates(word: &str) -> bool {
    ["+", ",", ";", "and", "plus"].contains(&word)
}

/// Brackets hold a remark on one summand, as in "KL (sum)". A factor before a sum in brackets would be read as the factor
/// of its first summand alone.
fn no_bracket_around_a_sum(words: &[String]) -> std::result::Result<(), String> {
    let mut depth = 0;
    for word in words {
        match word.as_str() {
            "(" => depth += 1,
            ")" if depth == 0 => return Err("a \")\" without a \"(\"".into()),
            ")" => depth -= 1,
            word if depth > 0 && separates(word) => {
                let remedy = "write the factor before each summand, as in \"2 mean MSE + 2 KL\"";
                return Err(format!("a sum in brackets is not understood; {remedy}"));
            }
            _ => {}
        }
    }
    if depth > 0 { Err("a \"(\" without a \")\"".into()) } else { Ok(()) }
}

/// Names of a weight: without a number beside it in its term, the weight is not known.
const WEIGHTS: [&str; 6] = ["beta", "β", "lambda", "λ", "w", "factor"];

/// What is counted: a number before it is no weight.
const COUNTED: [&str; 10] =
    ["pixel", "pixels", "image", "images", "dim", "dims", "dimension", "dimensions", "latent", "latents"];

/// One summand of a sentence.
struct Term {
    kl: bool,
    fidelity: Fidelity,
    reduction: Option<Reduction>,
    /// Whether it speaks of latent dimensions.
    dimensions: bool,
    number: f64,
}

impl Term {
    fn read(words: &[String]) -> std::result::Result<Term, String> {
        let mut kinds: Vec<Option<Fidelity>> = Vec::new();
        let (mut reduction, mut dimensions, mut number, mut divide) = (None, false, 1.0, false);
        let (mut weight, mut weighed, mut per_pixel) = (None, false, false);
        let mut reduce = |to: Reduction| match reduction.replace(to) {
            Some(before) if before != to => Err(format!("both a sum and a mean in \"{}\"", words.join(" "))),
            _ => Ok(()),
        };
        let mut depth = 0;
        for (word, next) in words.iter().zip(words[1..].iter().map(Some).chain([None])) {
            let operator = matches!(word.as_str(), "*" | "·" | "×" | "/");
            let before_bracket = word == "/" && next.is_some_and(|next| next == "(");
            if before_bracket || (depth > 0 && (operator || word.parse::<f64>().is_ok())) {
                return Err(
                    "numbers in brackets are not understood; write the weight as one number, as in \"50 sum MSE\""
                        .into(),
                );
            }
            match word.as_str() {
                "(" => depth += 1,
                ")" => depth -= 1,
                "kl" | "kld" | "dkl" => kinds.push(None),
                "mse" | "l2" => kinds.push(Some(Fidelity::SquaredError)),
                "sse" => {
                    kinds.push(Some(Fidelity::SquaredError));
                    reduce(Reduction::Sum)?;
                }
                "squared" => kinds.push(Some(Fidelity::SquaredError)),
                "bce" | "cross" | "crossentropy" | "xent" => kinds.push(Some(Fidelity::CrossEntropy)),
                "mean" | "avg" | "average" | "averaged" => reduce(Reduction::Mean)?,
                "sum" | "summed" | "total" => reduce(Reduction::Sum)?,
                "dimension" | "dimensions" | "dims" | "dim" | "latent" | "latents" => dimensions = true,
                "/" if next.is_some_and(|next| next.parse::<f64>().is_ok()) => divide = true,
                "/" => {
                    return Err(format!(
                        "a \"/\" without a number after it{}",
                        next.map_or(String::new(), |n| format!(", but \"{n}\""))
                    ));
                }
                "*" | "·" | "×" | "=" | ":" => {}
                other => match other.parse::<f64>() {
                    Ok(_) if next.is_some_and(|next| COUNTED.contains(&next.as_str())) => {
                        return Err(format!(
                            "is \"{other} {}\" a count? Counts are given as --pixels D and --latent K, and a weight stands \
                             before MSE or KL",
                            next.expect("a word that is counted")
                        ));
                    }
                    Ok(n) if other.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                        number = if std::mem::take(&mut divide) { number / n } else { number * n };
                        weighed = true;
                    }
                    _ if WEIGHTS.contains(&other) => weight = Some(other),
                    _ if other == "per" && next.is_some_and(|next| next.starts_with("pixel")) => per_pixel = true,
                    _ if FILLERS.contains(&other) => {}
                    _ => return Err(format!("\"{other}\" is not understood")),
                },
            }
        }
        if let (Some(name), false) = (weight, weighed) {
            return Err(format!("the weight \"{name}\" has no number; write it, as in \"0.00025 KL\""));
        }
        kinds.dedup();
        if per_pixel && kinds == [None] {
            return Err("a KL \"per pixel\" is not understood; write its weight, as in \"KL / 784\"".into());
        }
        match kinds[..] {
            [kind] => Ok(Term {
                kl: kind.is_none(),
                fidelity: kind.unwrap_or(Fidelity::SquaredError),
                reduction,
                dimensions,
                number,
            }),
            [] => Err(format!("\"{}\" names neither an error nor KL", words.join(" "))),
            _ => Err(format!("\"{}\" names more than one thing; put a + between them", words.join(" "))),
        }
    }
}

/// The words, numbers and signs of a sentence in lower case; or the first character that is none of these. Numbers with an
/// exponent are one word, as in `1e-4`.
fn words(text: &str) -> std::result::Result<Vec<String>, char> {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let mut words = Vec::new();
    let mut i = 0;
    while i < text.len() {
        let start = i;
        let c = text[i];
        let at = |i: usize| text.get(i).copied().unwrap_or(' ');
        if c.is_ascii_digit() || (c == '.' && at(i + 1).is_ascii_digit()) {
            while at(i).is_ascii_digit() || at(i) == '.' {
                i += 1;
            }
            let sign = usize::from(['+', '-'].contains(&at(i + 1)));
            if at(i) == 'e' && at(i + 1 + sign).is_ascii_digit() {
                i += 1 + sign;
                while at(i).is_ascii_digit() {
                    i += 1;
                }
            }
        } else if c.is_alphabetic() {
            while at(i).is_alphanumeric() {
                i += 1;
            }
        } else {
            i += 1;
            let hyphen = ['-', '_'].contains(&c) && at(i).is_alphabetic() && start > 0 && at(start - 1).is_alphabetic();
            if c.is_whitespace() || hyphen {
                continue;
            }
            if !"+,;/*·×=:()".contains(c) {
                return Err(c);
            }
        }
        words.push(text[start..i].iter().collect());
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> WeightedLoss {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn sentences_of_many_kinds_are_read() {
        use Fidelity::{CrossEntropy, SquaredError};
        use Reduction::{Mean, Sum};
        let cases = [
            ("mean MSE + 0.00025 KL", SquaredError, Mean, 1.0, 2.5e-4, Sum),
            ("MSE mean, KL weight 0.00025", SquaredError, Mean, 1.0, 2.5e-4, Sum),
            ("0.5*sum MSE + 4 KL", SquaredError, Sum, 0.5, 4.0, Sum),
            ("mse_loss + kld", SquaredError, Mean, 1.0, 1.0, Sum),
            ("1/2 sum of squared error and 1e-3 * KL-divergence", SquaredError, Sum, 0.5, 1e-3, Sum),
            ("SSE; beta = 4 KL", SquaredError, Sum, 1.0, 4.0, Sum),
            ("KL / 784 + binary cross-entropy (mean)", CrossEntropy, Mean, 1.0, 1.0 / 784.0, Sum),
            ("sum BCE + mean KL over latent dims", CrossEntropy, Sum, 1.0, 1.0, Mean),
            ("BCE sum + mean KL", CrossEntropy, Sum, 1.0, 1.0, Sum),
            ("10 × L2 + 1E+1·KL", SquaredError, Mean, 10.0, 10.0, Sum),
            ("2 (mean) MSE + KL ((sum))", SquaredError, Mean, 2.0, 1.0, Sum),
            ("MSE per pixel + 0.5 * KL per image", SquaredError, Mean, 1.0, 0.5, Sum),
        ];
        for (text, fidelity, pixels, weight, kl_weight, latents) in cases {
            assert_eq!(read(text), WeightedLoss { fidelity, pixels, weight, kl_weight, latents }, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_examples() {
        let cases = [
            ("", "no reconstruction"),
            ("MSE", "no KL"),
            ("0.1 KL", "no reconstruction"),
            ("MSE + MSE + KL", "twice"),
            ("MSE 0.1 KL", "more than one"),
            ("MSE - 0.1 KL", "\"-\""),
            ("huber + KL", "huber"),
            ("MSE + KL / batch", "batch"),
            ("MSE / + KL", "without a number"),
            ("mean sum MSE + KL", "both a sum and a mean"),
            ("3 + MSE + KL", "neither"),
            ("2 * (mean MSE + KL)", "sum in brackets"),
            ("(mean MSE + 0.1 KL)", "sum in brackets"),
            ("0.5 * (mean MSE, KL)", "sum in brackets"),
            ("MSE (mean + KL", "sum in brackets"),
            ("MSE + KL (sum", "without a \")\""),
            ("MSE) + KL", "without a \"(\""),
            ("((mean)) MSE + ((2)) KL", "numbers in brackets"),
            ("mean MSE over 784 pixels + KL", "--pixels"),
            ("MSE + mean KL over 20 latent dims", "--latent"),
            ("sum MSE / 128 images + KL", "128 images"),
            ("MSE / pixels * 3 + KL", "without a number"),
            ("1/(2*0.01) sum MSE + KL", "numbers in brackets"),
        ];
        for (text, part) in cases {
            let message = text.parse::<WeightedLoss>().unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("mean MSE + 0.00025 KL"), "{text}: {message}");
        }
    }

    #[test]
    fn the_sigma_of_two_famous_losses() {
        let variance = |text: &str, pixels: usize| read(text).implied_variance(pixels, None).unwrap().unwrap();
        assert!((variance("mean MSE + 0.00025 KL", 12288) - 1.536).abs() < 1e-12);
        assert!((variance("mean MSE + KL", 784).sqrt() - 19.8).abs() < 1e-2);
        assert!((variance("0.5 sum MSE + 4 KL", 784) - 4.0).abs() < 1e-12);
        // −ELBO of N(m, 1) itself has σ = 1 and β = 1.
        assert!((variance("0.5 sum MSE + KL", 7) - 1.0).abs() < 1e-12);
        let beta = |text: &str, sigma: f64| read(text).beta(784, Some(20), sigma).unwrap();
        assert!(
            (beta("0.5 sum MSE + 4 KL", 1.0) - 4.0).abs() < 1e-12
                && (beta("0.5 sum MSE + 4 KL", 2.0) - 1.0).abs() < 1e-12
        );
        assert!(
            (beta("mean BCE + KL", 1.0) - 784.0).abs() < 1e-9 && (beta("mean BCE + KL/784", 1.0) - 1.0).abs() < 1e-9
        );
        assert!((beta("sum BCE + mean KL over dims", 1.0) - 0.05).abs() < 1e-12);
        assert_eq!(read("sum BCE + KL").implied_variance(784, None).unwrap(), None);
    }

    #[test]
    fn the_gradient_of_the_loss_is_that_of_the_elbo_it_implies() {
        // d/dm and d/dKL of a·S/D + b·KL and of S/(2σ²) + KL are in one ratio.
        let loss = read("3 mean MSE + 0.02 KL");
        let s2 = loss.implied_variance(50, None).unwrap().unwrap();
        let (da, db) = (3.0 / 50.0, 0.02);
        assert!(((1.0 / (2.0 * s2)) / da - 1.0 / db).abs() < 1e-9);
    }

    #[test]
    fn weights_and_sizes_are_checked() {
        let message = |text: &str, pixels, latent| read(text).per_image(pixels, latent).unwrap_err().to_string();
        assert!(message("mean MSE + 0 KL", 784, None).contains("weight of KL"));
        assert!(message("0 mean MSE + KL", 784, None).contains("weight of the reconstruction"));
        assert!(message("mean MSE + KL", 0, None).contains("pixels"));
        assert!(message("mean MSE + mean KL over dims", 784, None).contains("--latent"));
    }
}
