//! A result on its scale: what trivial models reach on the same images, and the line that none can cross.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::data::Dataset;
use crate::train::COLLAPSED_KL;
use crate::vae::{Evaluation, VaeConfig};

/// The result, and the marks of the scale from worst to best with the result among them.
///
/// `test` is the set as it was loaded; the scale is that of the binarised images, which the model saw.
pub fn summary(config: &VaeConfig, test: &Dataset, result: &Evaluation) -> String {
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
    for (value, what) in marks(config, test, result) {
        let arrow = if what == THIS { '▶' } else { ' ' };
        writeln!(text, "{arrow}{value:>9.2}  {what}").expect("writing to a string");
    }
    if result.kl < COLLAPSED_KL {
        text.push_str(
            "KL is nearly 0: the decoder ignores z (posterior collapse); try --kl-warmup or a smaller --beta\n",
        );
    }
    text
}

/// What the result is called among the marks.
const THIS: &str = "this model";

/// (nats per image, what it is), from worst to best.
fn marks(config: &VaeConfig, test: &Dataset, result: &Evaluation) -> Vec<(f64, String)> {
    let images = test.prepared(config.binarisation).histograms();
    let baselines = config.likelihood.baselines(&images).into_iter();
    let mut marks: Vec<(f64, String)> = baselines.map(|b| (b.nats, b.what)).collect();
    marks.push((result.neg_elbo(), THIS.into()));
    marks.sort_by(|a, b| b.0.total_cmp(&a.0));
    marks
}

/// The same as a value: `test` and `scale` of `docs/book/src/json.md`.
pub fn report(config: &VaeConfig, test: &Dataset, result: &Evaluation) -> Value {
    let mark = |(nats, what): (f64, String)| json!({ "nats": nats, "what": what });
    let bits = config.likelihood.bits_per_dimension(result.neg_elbo(), config.pixels(), config.is_binary());
    json!({
        "test": {
            "images": result.images, "neg_elbo": result.neg_elbo(), "rec": result.rec, "kl": result.kl,
            "bits_per_dimension": bits,
        },
        "scale": marks(config, test, result).into_iter().map(mark).collect::<Vec<_>>(),
    })
}

/// The mark of one distribution per pixel of the likelihood's kind, which takes no z: a model that ends there has
/// collapsed. None where it has no closed form.
pub fn collapse_line(config: &VaeConfig, test: &Dataset) -> Option<f64> {
    config.likelihood.collapse_line(&test.prepared(config.binarisation).histograms())
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
}
