//! How the runs learned: their curves, and where they ended on the scale of their images.

use std::fmt::Write as _;

use serde::Serialize;

use super::{ReportedRun, colour, missing, named, number};
use crate::study::page::escaped;
use crate::study::plural;

/// The curves of a run, as the page's script reads them.
#[derive(Serialize)]
pub(super) struct RunCurves {
    name: String,
    epochs: Vec<u32>,
    train: [Vec<f64>; 3],
    test: [Vec<f64>; 3],
    updates: Vec<u32>,
    steps: [Vec<f64>; 3],
    collapse: Option<f64>,
}

/// Enough for any drawing and reading.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The numbers of all curves: −ELBO, rec and KL.
pub(super) fn data(runs: &[ReportedRun]) -> Vec<RunCurves> {
    let of = |run: &ReportedRun| {
        let (epochs, steps) = (&run.journals.epochs, &run.journals.steps);
        RunCurves {
            name: run.name.clone(),
            epochs: epochs.iter().map(|e| e.epoch).collect(),
            train: [
                epochs.iter().map(|e| rounded(e.train_neg_elbo)).collect(),
                epochs.iter().map(|e| rounded(e.train_rec)).collect(),
                epochs.iter().map(|e| rounded(e.train_kl)).collect(),
            ],
            test: [
                epochs.iter().map(|e| rounded(e.test_neg_elbo)).collect(),
                epochs.iter().map(|e| rounded(e.test_rec)).collect(),
                epochs.iter().map(|e| rounded(e.test_kl)).collect(),
            ],
            updates: steps.iter().map(|s| s.updates).collect(),
            steps: [
                steps.iter().map(|s| rounded(s.rec + s.kl)).collect(),
                steps.iter().map(|s| rounded(s.rec)).collect(),
                steps.iter().map(|s| rounded(s.kl)).collect(),
            ],
            collapse: run.judged.as_ref().ok().and_then(|j| Some(j.marks.iter().find(|m| m.collapsed)?.nats)),
        }
    };
    runs.iter().map(of).collect()
}

/// The figures that the script fills.
pub(super) fn curves(runs: &[ReportedRun]) -> String {
    let mut html = String::from("<section>\n<h2 id=\"curves\">Curves</h2>\n");
    if runs.iter().all(|run| run.journals.epochs.is_empty()) {
        return html + "<p class=\"note\">No epoch is finished, or the run’s journals are not there.</p>\n</section>\n";
    }
    html += "<p>Nats per image. Solid: the test images after the epoch. Dashed: the training images, each at the moment it \
             was learned from, so that this curve lags half an epoch behind. Move over a chart to read it, or focus it \
             and press ← and →.</p>\n";
    html += &apart(runs);
    let charts = |kind: &str, titles: [&str; 3]| {
        let figures = titles.iter().enumerate().map(|(term, title)| {
            format!(
                "<figure class=\"chart\" data-kind=\"{kind}\" data-term=\"{term}\"><figcaption>{title}</figcaption></figure>\n"
            )
        });
        format!("<div class=\"charts\">\n{}</div>\n", figures.collect::<String>())
    };
    html += &charts(
        "epochs",
        ["−ELBO = rec + KL, per epoch", "rec, −log p(x|z), per epoch", "KL(q(z|x) ‖ p(z)), per epoch"],
    );
    let without: Vec<&ReportedRun> = runs.iter().filter(|run| run.journals.steps.is_empty()).collect();
    if without.len() < runs.len() {
        html += "<p>Within the epochs: means over the images just learned from, at 20 places of each epoch.</p>\n";
        html += &charts("steps", ["−ELBO, per update", "rec, per update", "KL, per update"]);
    }
    if !without.is_empty() {
        let names: Vec<String> = without.iter().map(|run| escaped(&run.name)).collect();
        let names = names.join(", ");
        writeln!(html, "<p class=\"note\">Without values within epochs, which were not written down: {names}</p>")
            .expect("memory");
    }
    html + "</section>\n"
}

/// Says which runs count their nats in different ways, where there are such: all of them share the axes.
fn apart(runs: &[ReportedRun]) -> String {
    let of = |run: &ReportedRun| {
        format!("{} likelihood, {} pixels", run.config.model.likelihood, run.config.model.binarisation)
    };
    let kinds: Vec<String> = runs.iter().map(of).collect();
    if kinds.iter().all(|kind| *kind == kinds[0]) {
        return String::new();
    }
    let each = runs.iter().zip(&kinds).map(|(run, kind)| format!("{}: {}", escaped(&run.name), escaped(kind)));
    format!(
        "<p class=\"note\">The runs share these axes, but the height of one curve is not to be compared with that of another \
         where likelihood or pixels differ: they are probabilities or densities of different things. {}.</p>\n",
        each.collect::<Vec<_>>().join("; ")
    )
}

/// Results among the marks of their images, from worst to best.
pub(super) fn scales(runs: &[ReportedRun]) -> String {
    let mut html = String::from(
        "<section>\n<h2 id=\"scale\">Where it stands</h2>\n<p>−ELBO of the test images in nats per image, an upper bound on \
         −log p(x), among what trivial models reach on the same images and the line that none can cross. Lower, that is \
         further left, is better.</p>\n",
    );
    for (i, run) in runs.iter().enumerate() {
        if let Err(why) = &run.judged {
            let why = missing(why);
            html += &if runs.len() > 1 { format!("<h3>{}</h3>{why}", named(runs, i)) } else { why };
        }
    }
    // Runs on one scale stand on it together.
    let mut groups: Vec<(SharedScale, Vec<usize>)> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let Some(scale) = scale(run) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == scale) {
            Some((_, members)) => members.push(i),
            None => groups.push((scale, vec![i])),
        }
    }
    let several = groups.len() > 1;
    for (scale, members) in groups {
        html += &table(runs, &scale, &members, several);
    }
    html + "</section>\n"
}

/// The marks of a scale, and what it is of.
#[derive(PartialEq)]
struct SharedScale {
    of: String,
    marks: Vec<(f64, String)>,
}

fn scale(run: &ReportedRun) -> Option<SharedScale> {
    let judged = run.judged.as_ref().ok()?;
    let model = &run.config.model;
    let of = format!(
        "{} likelihood, {} pixels, {} of {}",
        model.likelihood,
        model.binarisation,
        plural(judged.result.images, "test image"),
        judged.data
    );
    Some(SharedScale { of, marks: judged.marks.iter().map(|m| (m.nats, m.what.clone())).collect() })
}

fn table(runs: &[ReportedRun], scale: &SharedScale, members: &[usize], several: bool) -> String {
    let result = |i: usize| runs[i].judged.as_ref().expect("it has a scale").result.neg_elbo();
    let mut rows: Vec<(f64, Option<usize>, String)> =
        scale.marks.iter().map(|(nats, what)| (*nats, None, escaped(what))).collect();
    rows.extend(members.iter().map(|&i| {
        let what = if runs.len() == 1 { "this model".into() } else { named(runs, i) };
        (result(i), Some(i), what)
    }));
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (low, high) = rows.iter().fold((f64::MAX, f64::MIN), |(low, high), row| (low.min(row.0), high.max(row.0)));
    let place = |nats: f64| 100.0 * (nats - low) / (high - low).max(f64::MIN_POSITIVE);
    let of = escaped(&scale.of);
    let (heading, of) = if several { (format!("<h3>{of}</h3>\n"), String::new()) } else { (String::new(), of + ", ") };
    let mut html = format!(
        "{heading}<table class=\"scale\"><caption>{of}one draw of z each</caption>\n<thead><tr><th class=\"number\">nats</th>\
         <th>what</th><th class=\"wide\"><span class=\"hidden-text\">place</span></th></tr></thead>\n<tbody>\n"
    );
    for (nats, run, what) in rows {
        let (class, dot) = match run {
            Some(i) => (format!(" class=\"run {}\"", colour(i)), "dot"),
            None => (String::new(), "tick"),
        };
        writeln!(
            html,
            "<tr{class}><td class=\"number\">{}</td><td>{what}</td><td class=\"wide\"><div class=\"track\">\
             <div class=\"{dot}\" style=\"left:{:.2}%\"></div></div></td></tr>",
            number(nats, 2),
            place(nats)
        )
        .expect("memory");
    }
    html + "</tbody></table>\n"
}
