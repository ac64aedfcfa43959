//! What the models make: pictures, the plane of z, the units in use.

use std::fmt::Write as _;

use serde::Serialize;

use super::{DrawnImages, JudgedRun, ReportedRun, missing, named, number, picture, side_by_side};
use crate::study::plural;
use crate::vae::Encoded;

/// Points of a scatter: more make the page larger, and the picture no clearer.
const POINTS: usize = 3000;

/// Dimensions of z that are listed, those of the largest KL first.
const LISTED: usize = 40;

/// Samples and reconstructions.
pub(super) fn pictures(runs: &[ReportedRun]) -> String {
    let samples = side_by_side(runs, |run| {
        format!(
            "<figure class=\"sheet\">{}</figure>\n",
            picture(&run.drawn.samples, "A sheet of images drawn from the model")
        )
    });
    let rebuilt = side_by_side(runs, |run| match &run.judged {
        Ok(judged) => format!(
            "<figure class=\"sheet\">{}</figure>\n",
            picture(&judged.reconstructions, "Rows of test images, and below each row what the model makes of it")
        ),
        Err(why) => missing(why),
    });
    format!(
        "<section>\n<h2 id=\"samples\">Samples</h2>\n<p>z is drawn from the prior {}; what is shown is the mean E[x|z], \
         not a throw of x.</p>\n{samples}</section>\n<section>\n<h2 id=\"reconstructions\">Reconstructions</h2>\n<p>Rows in \
         pairs: the first test images as the model sees them, and below each the mean E[x|z] at one draw of z from \
         q(z|x).</p>\n{rebuilt}</section>\n",
        prior(runs)
    )
}

/// The prior of z, of the lowest stochastic layer: normal where it is the only one.
fn prior(runs: &[ReportedRun]) -> &'static str {
    let layered = |run: &&ReportedRun| !run.config.model.upper.is_empty();
    match runs.iter().filter(layered).count() {
        0 => "N(0, I)",
        n if n == runs.len() => "p(z), through the layers above from N(0, I) at the top",
        _ => "p(z): N(0, I), or through the layers above where there are several",
    }
}

/// The points of a scatter, as the page's script reads them.
#[derive(Serialize)]
pub(super) struct PlanePoints {
    /// [z₁, z₂, z₁, z₂, …], in thousandths.
    points: Vec<i32>,
    labels: Option<Vec<u8>>,
}

/// The means of test images in the plane, for each run with K = 2 whose images are there.
pub(super) fn plane_data(runs: &[ReportedRun]) -> Vec<Option<PlanePoints>> {
    let of = |run: &ReportedRun| {
        let judged = run.judged.as_ref().ok()?;
        let first = judged.layers.first().filter(|layer| layer.latent == 2)?;
        let count = POINTS.min(first.mu.len() / 2);
        let thousandths = |value: &f32| (f64::from(*value) * 1000.0).round() as i32;
        let labels = judged.labels.as_ref().map(|labels| labels[..count].to_vec());
        Some(PlanePoints { points: first.mu[..2 * count].iter().map(thousandths).collect(), labels })
    };
    runs.iter().map(of).collect()
}

/// The decoded plane and the test means in it, for runs with K = 2.
pub(super) fn planes(runs: &[ReportedRun]) -> String {
    if runs.iter().all(|run| run.config.model.latent != 2) {
        return String::new();
    }
    let blocks = (0..runs.len()).map(|i| (i, &runs[i])).filter(|(_, run)| run.config.model.latent == 2);
    let layered = |run: &ReportedRun| run.config.model.latent == 2 && !run.config.model.upper.is_empty();
    let note = match runs.iter().any(layered) {
        true => " Where there are several stochastic layers z is the lowest, and its prior is not N(0, I).",
        false => "",
    };
    let mut html = format!(
        "<section>\n<h2 id=\"plane\">The plane of z</h2>\n<p>First: E[x|z] on a grid of z at the quantiles of N(0, I), so \
         that equal areas are equally probable under it. Second: where the encoder puts test images, μ(x); the dotted \
         circles have radius 1, 2, 3, within which N(0, I) has 39 %, 86 % and 99 % of its mass.{note} Move over it, or focus \
         it and use the arrow keys, to read a point.</p>\n",
    );
    for (i, run) in blocks {
        let heading = if runs.len() > 1 { format!("<h3>{}</h3>\n", named(runs, i)) } else { String::new() };
        let scatter = match &run.judged {
            Ok(_) => format!(
                "<figure class=\"scatter\" data-run=\"{i}\"><figcaption>means of test images, by class</figcaption></figure>"
            ),
            Err(why) => missing(why),
        };
        writeln!(html, "{heading}<div class=\"plane\">{}\n{scatter}</div>", manifold(&run.drawn)).expect("memory");
    }
    html + "</section>\n"
}

/// The decoded plane between its axes.
fn manifold(drawn: &DrawnImages) -> String {
    let Some(png) = &drawn.manifold else { return String::new() };
    let mut ticks = String::new();
    for (z, place) in &drawn.ticks {
        let (z, right, up) = (number(*z, 1), 100.0 * place, 100.0 * (1.0 - place));
        write!(
            ticks,
            "<span class=\"below\" style=\"left:{right:.2}%\">{z}</span><span class=\"beside\" style=\"top:{up:.2}%\">{z}</span>"
        )
        .expect("memory");
    }
    format!(
        "<figure class=\"manifold\"><figcaption>E[x|z]; z₁ to the right, z₂ upwards</figcaption><div class=\"axes\">{}\
         <div aria-hidden=\"true\">{ticks}</div></div></figure>",
        picture(png, "The plane of z, decoded: neighbouring images are alike")
    )
}

/// Active units, KL and variance per dimension, dead units.
pub(super) fn units(runs: &[ReportedRun]) -> String {
    let blocks = side_by_side(runs, |run| match &run.judged {
        Ok(judged) => latent(judged) + &dead(judged),
        Err(why) => missing(why),
    });
    format!(
        "<section>\n<h2 id=\"units\">Units in use</h2>\n<p>A dimension of z is active when the variance of its mean over the \
         test images is more than 0.01 (Burda et al. 2015). A hidden unit is dead when no gradient goes through it at \
         any of the images looked at.</p>\n{blocks}</section>\n"
    )
}

fn latent(judged: &JudgedRun) -> String {
    match &judged.layers[..] {
        [only] => dimensions(only),
        layers => {
            let mut html = String::from("<ul>");
            for (layer, number) in layers.iter().zip(1..) {
                let (active, all) = (layer.active_units(), layer.latent);
                write!(html, "<li>stochastic layer {number}, from below: {active} of {all} dimensions are active</li>")
                    .expect("memory");
            }
            html + "</ul>\n"
        }
    }
}

/// Bars of every dimension, the largest KL first.
fn dimensions(encoded: &Encoded) -> String {
    let (kl, variance) = (encoded.kl_per_dimension(), encoded.variance_of_means());
    let mut order: Vec<usize> = (0..encoded.latent).collect();
    order.sort_by(|&a, &b| kl[b].total_cmp(&kl[a]));
    let most = |values: &[f64]| values.iter().fold(f64::MIN_POSITIVE, |most, &value| most.max(value));
    let (most_kl, most_variance) = (most(&kl), most(&variance));
    let mut html = format!(
        "<table class=\"bars\"><caption>{} of {} dimensions of z are active; their KL adds up to {} nats</caption>\n<thead><tr>\
         <th class=\"number\">k</th><th>KL, nats</th><th>variance of μₖ</th></tr></thead>\n<tbody>\n",
        encoded.active_units(),
        encoded.latent,
        number(kl.iter().sum(), 2)
    );
    let bar = |value: f64, most: f64| {
        let width = 100.0 * (value / most).clamp(0.0, 1.0);
        format!("<td><span class=\"bar\" style=\"width:{width:.1}%\"></span><span>{}</span></td>", number(value, 3))
    };
    for &k in order.iter().take(LISTED) {
        let class = if variance[k] > 0.01 { "" } else { " class=\"idle\"" };
        let (kl, variance) = (bar(kl[k], most_kl), bar(variance[k], most_variance));
        writeln!(html, "<tr{class}><th scope=\"row\" class=\"number\">{}</th>{kl}{variance}</tr>", k + 1)
            .expect("memory");
    }
    html += "</tbody></table>\n";
    if let Some(rest) = encoded.latent.checked_sub(LISTED).filter(|&rest| rest > 0) {
        writeln!(html, "<p class=\"faint\">{} of smaller KL are left out.</p>", plural(rest, "dimension"))
            .expect("memory");
    }
    html
}

fn dead(judged: &JudgedRun) -> String {
    if judged.dead.is_empty() {
        return "<p class=\"faint\">There are no hidden layers.</p>\n".into();
    }
    let mut html = String::from(
        "<table><caption>dead hidden units</caption>\n<thead><tr><th>layer</th><th class=\"number\">dead</th>\
         <th class=\"number\">of</th></tr></thead>\n<tbody>\n",
    );
    for hidden in &judged.dead {
        let differs = if hidden.dead > 0 { " differs" } else { "" };
        writeln!(
            html,
            "<tr><th scope=\"row\" class=\"mono\">{}</th><td class=\"number{differs}\">{}</td><td class=\"number\">{}</td></tr>",
            hidden.layer, hidden.dead, hidden.units
        )
        .expect("memory");
    }
    html + "</tbody></table>\n"
}
