//! A result on its scale: what trivial models reach on the same images, and the line that none can cross.

use std::f64::consts::{LN_2, PI};
use std::fmt::Write;

use crate::data::Dataset;
use crate::train::COLLAPSED_KL;
use crate::vae::{Evaluation, Likelihood, VaeConfig};

/// One line of the scale.
type Mark = (f64, String);

/// The result, and the marks of the scale from worst to best with the result among them.
///
/// `test` is the set as it was loaded; the scale is that of the binarised images, which the model saw.
pub fn summary(config: &VaeConfig, test: &Dataset, result: &Evaluation) -> String {
    let mut marks = match config.likelihood {
        Likelihood::Bernoulli => bernoulli_marks(config, test),
        Likelihood::Gaussian { sigma_floor } => gaussian_marks(test, sigma_floor),
        Likelihood::GaussianShared { sigma_floor } | Likelihood::GaussianOptimal { sigma_floor } => {
            let mut marks = gaussian_marks(test, sigma_floor);
            // A model with one sigma collapses to the line with one sigma.
            marks.remove(1);
            marks
        }
        Likelihood::ContinuousBernoulli => continuous_bernoulli_marks(test),
        Likelihood::DiscretisedLogistic { .. } => byte_marks(test),
    };
    marks.push((result.neg_elbo(), String::new()));
    marks.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut text = format!(
        "test −ELBO {:.2} nats per image = rec {:.2} + KL {:.2}\n  {} likelihood, {} pixels, {} of {}, one draw of \
         z each\non the scale of these images, in nats per image:\n",
        result.neg_elbo(),
        result.rec,
        result.kl,
        config.likelihood,
        config.binarisation,
        super::plural(result.images, "image"),
        test.name,
    );
    if let Some(bits) = config.likelihood.bits_per_dimension(result.neg_elbo(), config.pixels(), config.is_binary()) {
        text = text.replacen("\non the scale", &format!("\n  {bits:.4} bits per dimension\non the scale"), 1);
    }
    for (value, what) in marks {
        let (arrow, what) = if what.is_empty() { ('▶', "this model") } else { (' ', what.as_str()) };
        writeln!(text, "{arrow}{value:>9.2}  {what}").expect("writing to a string");
    }
    if result.kl < COLLAPSED_KL {
        text.push_str(
            "KL is nearly 0: the decoder ignores z (posterior collapse); try --kl-warmup or a smaller --beta\n",
        );
    }
    text
}

/// The mark of one distribution per pixel of the likelihood's kind, which takes no z: a model that ends there has
/// collapsed. None for the discretised logistic, whose best (mean, scale) of a pixel has no closed form.
pub fn collapse_line(config: &VaeConfig, test: &Dataset) -> Option<f64> {
    match config.likelihood {
        Likelihood::Bernoulli => Some(bernoulli_marks(config, test)[2].0),
        Likelihood::Gaussian { sigma_floor } => Some(gaussian_marks(test, sigma_floor)[1].0),
        Likelihood::GaussianShared { sigma_floor } | Likelihood::GaussianOptimal { sigma_floor } => {
            Some(gaussian_marks(test, sigma_floor)[0].0)
        }
        Likelihood::ContinuousBernoulli => Some(continuous_bernoulli_marks(test)[1].0),
        Likelihood::DiscretisedLogistic { .. } => None,
    }
}

fn bernoulli_marks(config: &VaeConfig, test: &Dataset) -> Vec<Mark> {
    let scale = config.binarisation.prepare(test).scale();
    let mut marks = vec![
        (scale.coin, "a fair coin per pixel".to_string()),
        (scale.one_rate, "one rate for all pixels".to_string()),
        (scale.pixel_rates, "one rate per pixel: a model that ends here has collapsed".to_string()),
    ];
    let floor = match scale.floor > 0.0 {
        true => "floor: the entropy of the grey values, left to one who knows the image",
        false => "floor: the image is known",
    };
    marks.push((scale.floor, floor.to_string()));
    marks
}

/// Two models without z, and a line that none can cross: one mean per pixel with one σ for all (at best σ² = V/D, where V
/// is the pixels' total variance), one mean and one σ per pixel, and every pixel predicted exactly with σ at its floor s,
/// D·(ln s + ½ ln 2π).
fn gaussian_marks(test: &Dataset, sigma_floor: f64) -> Vec<Mark> {
    // E[−ln N(x; mean, σ²)] of a pixel with variance v, at the best σ that the floor allows.
    let best = |v: f64| v.sqrt().max(sigma_floor);
    let nll = |v: f64, sigma: f64| 0.5 * ((2.0 * PI * sigma * sigma).ln() + v / (sigma * sigma));
    let d = test.cols as f64;
    let v = test.pixel_variance() / d;
    let own: f64 = pixel_variances(test).into_iter().map(|v| nll(v, best(v))).sum();
    vec![
        (d * nll(v, best(v)), format!("one mean per pixel, one sigma = {:.3} for all: a model without z", best(v))),
        (own, "one mean and one sigma per pixel: a model that ends here has collapsed".to_string()),
        (d * nll(0.0, sigma_floor), format!("floor: every pixel exact, sigma = {sigma_floor}")),
    ]
}

/// The uniform density, and one λ per pixel at its best: the λ whose mean is the pixel's mean over the images.
fn continuous_bernoulli_marks(test: &Dataset) -> Vec<Mark> {
    let rates = test.pixel_means().into_iter().map(best_continuous_bernoulli).sum();
    let what = format!("one rate per pixel, logits within ±{LARGEST_LOGIT}: a model without z");
    vec![(0.0, "the uniform density".to_string()), (rates, what)]
}

/// min over l of E[−log p(x|l)] = softplus(l) − mean·l − log C(l) for a pixel with this mean: the function is convex, its
/// slope increases from −mean to 1 − mean, and bisection finds its zero. A pixel that is always black (or always white)
/// would go to −∞ with l; l stops at ±[`LARGEST_LOGIT`].
fn best_continuous_bernoulli(mean: f64) -> f64 {
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

/// sigmoid of it is 1 − 2e-9: as sure as f32 can be.
const LARGEST_LOGIT: f64 = 20.0;

/// The same chance for every byte, and for each pixel its own histogram of bytes over the images.
fn byte_marks(test: &Dataset) -> Vec<Mark> {
    let uniform = test.cols as f64 * 256f64.ln();
    let mut histograms = vec![[0u32; 256]; test.cols];
    for image in test.images.chunks_exact(test.cols) {
        histograms.iter_mut().zip(image).for_each(|(histogram, &byte)| histogram[usize::from(byte)] += 1);
    }
    let rows = test.rows as f64;
    let entropy = |histogram: &[u32; 256]| -> f64 {
        histogram.iter().filter(|&&n| n > 0).map(|&n| f64::from(n) / rows).map(|p| -p * p.ln()).sum()
    };
    let own = histograms.iter().map(entropy).sum();
    vec![
        (uniform, "every byte alike: 8 bits per dimension".to_string()),
        (own, "one histogram per pixel, made of these very images: a model without z".to_string()),
        (0.0, "floor: every byte is known".to_string()),
    ]
}

/// The variance of each pixel over the images, grey values in [0, 1].
fn pixel_variances(data: &Dataset) -> Vec<f64> {
    let means = data.pixel_means();
    let mut sums = vec![0.0; data.cols];
    for image in data.images.chunks_exact(data.cols) {
        for ((sum, mean), &grey) in sums.iter_mut().zip(&means).zip(image) {
            *sum += (f64::from(grey) / 255.0 - mean).powi(2);
        }
    }
    sums.into_iter().map(|sum| sum / data.rows as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    fn images() -> Dataset {
        let (name, split, labels) = ("two".to_string(), Split::Test, None);
        Dataset { name, split, images: vec![0, 255, 255, 255], rows: 2, cols: 2, width: 2, height: 1, labels }
    }

    #[test]
    fn the_result_stands_where_it_belongs() {
        let config = VaeConfig { image: [1, 2], ..VaeConfig::new(1) };
        let text = summary(&config, &images(), &Evaluation { images: 2, rec: 0.5, kl: 0.3 });
        // Two pixels, rates ½ and 1: the coin gives 2 ln 2 = 1.39, pixel rates ln 2 = 0.69, one rate 2 H(¾) = 1.12.
        let lines: Vec<&str> = text.lines().skip(3).collect();
        let starts = ["      1.39", "      1.12", "▶     0.80", "      0.69", "      0.00"];
        assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{text}");
        assert!(text.contains("grey pixels") && text.contains("0.80 nats per image = rec 0.50 + KL 0.30"));
        let collapsed = summary(&config, &images(), &Evaluation { images: 2, rec: 0.7, kl: 0.001 });
        assert!(collapsed.contains("collapse)"));
        assert!((collapse_line(&config, &images()).unwrap() - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn the_scale_of_bytes_and_of_the_continuous_bernoulli() {
        let marks = byte_marks(&images());
        // The first pixel is 0 and 255, the second always 255.
        assert!((marks[0].0 - 2.0 * 256f64.ln()).abs() < 1e-12 && (marks[1].0 - 2f64.ln()).abs() < 1e-12);
        // Mean ½ is the uniform density; near mean 0.3 the best l gives less than its neighbours do.
        assert!(best_continuous_bernoulli(0.5).abs() < 1e-9);
        let (best, mean) = (best_continuous_bernoulli(0.3), 0.3);
        for l in [-3.0f64, -2.0, -1.0, 1.0] {
            let t: f64 = 0.5 * l.abs();
            let nll = l.max(0.0) + (-l.abs()).exp().ln_1p() - mean * l - LN_2 - (t / t.tanh()).ln();
            assert!(nll > best, "{l}: {nll} against {best}");
        }
    }

    #[test]
    fn the_gaussian_scale_is_computed_from_the_images() {
        let marks = gaussian_marks(&images(), 0.1);
        // Variances ¼ and 0: σ² = ⅛, and 2/2·(ln(2π/8) + 1).
        assert!((marks[0].0 - ((PI / 4.0).ln() + 1.0)).abs() < 1e-12);
        // One sigma each: ½ for the first pixel, the floor for the second, which never varies.
        let own = 0.5 * (PI / 2.0).ln() + 0.5 + 0.1f64.ln() + 0.5 * (2.0 * PI).ln();
        assert!((marks[1].0 - own).abs() < 1e-12);
        let likelihood = Likelihood::Gaussian { sigma_floor: 0.1 };
        let config = VaeConfig { likelihood, ..VaeConfig::new(1) };
        assert_eq!(collapse_line(&config, &images()), Some(marks[1].0));
        assert!((marks[2].0 - 2.0 * (0.1f64.ln() + 0.918_938_533_204_672_7)).abs() < 1e-12);
        // A floor above the best σ: the model without z has the floor's σ.
        let s: f64 = 0.5;
        let expected = (2.0 * PI * s * s).ln() + 0.125 / (s * s);
        assert!((gaussian_marks(&images(), s)[0].0 - expected).abs() < 1e-12);
    }
}
