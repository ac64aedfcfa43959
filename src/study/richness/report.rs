//! What was found, as text for one model, and as table, picture and answer for several.

use std::fmt::{self, Write};

use super::{AGREE, Bayes, Classes};
use super::{NEIGHBOURS, Prior, Richness, Uncertain, VOTERS};
use crate::study::plot::{Axis, Plot, Series};

/// Why a text or a table has no accuracies.
const NO_LABELS: &str = "no accuracies, nothing on I(z;y), no classes of prior draws: the images have no labels";

impl Uncertain {
    fn percent(&self) -> String {
        format!("{:.1} ± {:.1} %", 100.0 * self.value, 100.0 * self.standard_error)
    }
}

impl fmt::Display for Richness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}, {} test images", self.model, self.data, self.test_images)?;
        writeln!(
            f,
            "−ELBO {:.2} nats per image = rec {:.2} + KL {:.2}; one draw of z each, ± is the standard error\n",
            self.neg_elbo, self.rec, self.kl
        )?;
        self.write_dimensions(f)?;
        match &self.classes {
            Some(classes) => write_classes(f, classes, self.train_images)?,
            None => writeln!(f, "\n{NO_LABELS}")?,
        }
        self.write_surgery(f)?;
        self.prior.as_ref().map_or(Ok(()), |prior| write_prior(f, prior))
    }
}

impl Richness {
    fn write_dimensions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (active, latent) = (self.active_units, self.latent);
        writeln!(f, "dimensions of z: {active} of {latent} are active (variance of the mean over images > 0.01)")?;
        writeln!(f, "  dimension    KL, nats   variance of the mean")?;
        let mut order: Vec<usize> = (0..latent).collect();
        order.sort_by(|&a, &b| self.dimensions[b].kl.total_cmp(&self.dimensions[a].kl));
        for k in order {
            writeln!(f, "{:>11}{:>12.4}{:>23.4}", k + 1, self.dimensions[k].kl, self.dimensions[k].variance)?;
        }
        Ok(())
    }

    fn write_surgery(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.surgery;
        writeln!(f, "\nthe KL term taken apart, over {} images: KL = I_q(x;z) + KL(q(z)‖p(z))", s.images)?;
        writeln!(f, "  KL(q(z|x)‖p(z)), closed form     {:>7.2} nats", s.kl)?;
        writeln!(f, "  I_q(x;z), what z tells of x      {:>7}", padded(&s.information))?;
        writeln!(f, "  KL(q(z)‖p(z)), aggregate, prior  {:>7}", padded(&s.marginal_kl))?;
        let limit = format!("ln {} = {:.2} nats is the most that I_q can be here", s.images, s.saturation);
        match s.is_saturated() {
            true => writeln!(f, "  saturated: {limit}; it is a lower bound, KL(q(z)‖p(z)) an upper one"),
            false => writeln!(f, "  {limit}"),
        }
    }
}

/// `  6.41 ± 0.02 nats`, the number in seven places.
fn padded(e: &Uncertain) -> String {
    format!("{:>7.2} ± {:.2} nats", e.value, e.standard_error)
}

/// `1.043 ± 0.006 nats`.
fn exact(e: &Uncertain) -> String {
    format!("{:.3} ± {:.3} nats", e.value, e.standard_error)
}

fn write_classes(f: &mut fmt::Formatter<'_>, c: &Classes, train: usize) -> fmt::Result {
    writeln!(f, "\nthe class from μ(x): part of the test images called right, {train} training images known")?;
    for voters in &c.neighbours {
        let name = if voters.k == 1 { "neighbour, nearest" } else { "neighbours, nearest" };
        writeln!(f, "  {:>2} {name:<20} {}", voters.k, voters.accuracy.percent())?;
    }
    writeln!(f, "  {:<23} {}", "linear probe", c.probe.percent())?;
    let (best, error) = (&c.best, 100.0 * c.error);
    writeln!(
        f,
        "  I(μ(x);y) ≥ {:.3} nats by Fano ({best}, error {error:.1} %); the class itself has {:.3} nats",
        c.fano, c.entropy
    )?;
    write_draw(f, &c.draw, train)
}

fn write_draw(f: &mut fmt::Formatter<'_>, d: &Bayes, train: usize) -> fmt::Result {
    writeln!(f, "\nthe class from a draw of z for each of {} test images, by Bayes' rule:", d.images)?;
    writeln!(f, "  p(y|z) ∝ Σ q(z|x) over the images of class y, {train} training images known")?;
    writeln!(f, "  called right             {}", d.accuracy.percent())?;
    writeln!(f, "  I_q(z;y), at least       {}", exact(&d.at_least))?;
    writeln!(f, "  I_q(z;y), at most        {}", exact(&d.at_most))
}

fn write_prior(f: &mut fmt::Formatter<'_>, p: &Prior) -> fmt::Result {
    writeln!(f, "\ndraws from the prior: {} decoded images and their {NEIGHBOURS} nearest training images", p.draws)?;
    writeln!(f, "  plainly one class (at least {AGREE} agree)  {}", p.confident.percent())?;
    writeln!(f, "  the same of test images               {}", p.confident_test.percent())?;
    let Some(entropy) = p.entropy else { return Ok(()) };
    let shares: Vec<String> = p.shares.iter().enumerate().map(|(c, s)| format!("{c}: {:.0} %", 100.0 * s)).collect();
    writeln!(f, "  classes among them                    {}", shares.join(", "))?;
    let most = (p.shares.len() as f64).ln();
    writeln!(f, "  entropy of the classes                {:.3} nats of at most {most:.3}", entropy)
}

/// One line per model, in the order given, on the bound, and one on the class; gains are of −ELBO against the line
/// above.
pub fn table(found: &[Richness]) -> String {
    let labels = found.iter().all(|r| r.classes.is_some());
    let mut text = String::from("    K    −ELBO     rec     KL  active     I_q  KL(q(z)‖p)    gain\n");
    for (i, r) in found.iter().enumerate() {
        let (least, most) = if r.surgery.is_saturated() { ("≥", "≤") } else { ("", "") };
        let information = format!("{least}{:.2}", r.surgery.information.value);
        let marginal_kl = format!("{most}{:.2}", r.surgery.marginal_kl.value);
        write!(text, "{:>5}{:>9.2}{:>8.2}{:>7.2}{:>8}", r.latent, r.neg_elbo, r.rec, r.kl, r.active_units)
            .expect("a string");
        write!(text, "{information:>8}{marginal_kl:>12}").expect("a string");
        match i.checked_sub(1) {
            Some(before) => writeln!(text, "{:>8.2}", found[before].neg_elbo - r.neg_elbo),
            None => writeln!(text, "       –"),
        }
        .expect("a string");
    }
    if labels && !found.is_empty() {
        text += "\n    K   1-NN   5-NN  15-NN  probe  Fano   draw     I_q(z;y)  confident  entropy\n";
        found.iter().for_each(|r| text += &class_line(r));
    }
    text + &legend(found, labels)
}

/// The line of one model on the class.
fn class_line(r: &Richness) -> String {
    let (Some(c), Some(p)) = (&r.classes, &r.prior) else { return String::new() };
    let accuracies = c.neighbours.iter().map(|v| v.accuracy).chain([c.probe]);
    let accuracies: String = accuracies.map(|a| format!("{:>7.1}", 100.0 * a.value)).collect();
    let information = format!("{:.2} – {:.2}", c.draw.at_least.value, c.draw.at_most.value);
    let entropy = p.entropy.map_or("–".into(), |e| format!("{e:.2}"));
    let (fano, draw, confident) = (c.fano, 100.0 * c.draw.accuracy.value, 100.0 * p.confident.value);
    format!("{:>5}{accuracies}{fano:>6.2}{draw:>7.1}{information:>13}{confident:>11.1}{entropy:>9}\n", r.latent)
}

/// What the columns mean.
fn legend(found: &[Richness], labels: bool) -> String {
    let Some(first) = found.first() else { return String::new() };
    let mut text = "nats per image; accuracies and confident prior draws in percent\n".to_string();
    if let (true, Some(c)) = (labels, &first.classes) {
        writeln!(
            text,
            "1-NN … probe: the class from μ(x); Fano: the least that μ(x) tells of it, of H(y) = {:.2}\n\
             draw: the class from a draw of z by Bayes' rule; I_q(z;y): what the draw tells of it, at least – at most",
            c.entropy
        )
        .expect("a string");
    } else {
        writeln!(text, "{NO_LABELS}").expect("a string");
    }
    if found.iter().any(|r| r.surgery.is_saturated()) {
        let (images, most) = (first.surgery.images, first.surgery.saturation);
        writeln!(
            text,
            "≥, ≤: I_q is within 0.5 nats of ln {images} = {most:.2}, the most that it can be among so many images"
        )
        .expect("a string");
    }
    text
}

/// The part of H(y) that I_q(z;y) must reach for z to be rich enough for the class, and for most of it.
const WHOLLY: f64 = 0.9;
const MOSTLY: f64 = 0.5;
/// How many nats of −ELBO above the best K are no loss.
const NO_LOSS: f64 = 1.0;

/// One sentence on the model with K = 2, or the smallest K if there is none: is its z rich enough for which digit it is
/// (by I_q(z;y), as a part of H(y)), and for how it is written (by −ELBO against the best K)?
pub fn answer(found: &[Richness]) -> Option<String> {
    let asked = found.iter().find(|r| r.latent == 2).or_else(|| found.iter().min_by_key(|r| r.latent))?;
    let best = found.iter().min_by(|a, b| a.neg_elbo.total_cmp(&b.neg_elbo))?;
    let mut parts = Vec::new();
    if let Some(c) = &asked.classes {
        let [least, most] = [c.draw.at_least, c.draw.at_most].map(|e| e.value / c.entropy);
        let verdict = match () {
            () if least >= WHOLLY => "rich enough",
            () if least >= MOSTLY => "rich enough for the most part",
            () if most < MOSTLY => "not rich enough",
            () => "not known to be rich enough",
        };
        let saturated = if asked.surgery.is_saturated() { "at least " } else { "" };
        parts.push(format!(
            "{verdict} for which digit it is (a draw of z tells {:.2} to {:.2} of the {:.2} nats of the class, and Bayes' \
             rule calls {:.1} % of the test images right by it; it tells {saturated}{:.2} nats of which image it was)",
            c.draw.at_least.value,
            c.draw.at_most.value,
            c.entropy,
            100.0 * c.draw.accuracy.value,
            asked.surgery.information.value
        ));
    }
    let loss = asked.neg_elbo - best.neg_elbo;
    parts.push(match (best.latent == asked.latent, loss <= NO_LOSS) {
        (true, _) => {
            format!("as rich as any K tried for how it is written (−ELBO {:.2} is the lowest)", asked.neg_elbo)
        }
        (_, rich) => format!(
            "{} for how it is written (−ELBO {:.2}, {loss:.2} nats above the {:.2} of K = {})",
            if rich { "rich enough" } else { "not rich enough" },
            asked.neg_elbo,
            best.neg_elbo,
            best.latent
        ),
    });
    let dimensions = if asked.latent == 1 { "dimension" } else { "dimensions" };
    Some(format!("This z of {} {dimensions} is {}.", asked.latent, parts.join(", and ")))
}

/// −ELBO, accuracies, nats and prior draws against K, a panel each.
pub fn plot(found: &[Richness], subtitle: &str) -> Plot {
    let ks: Vec<f64> = found.iter().map(|r| r.latent as f64).collect();
    let x = || Axis::log("latent dimensions K").ticks(&ks);
    let line = |name: &str, value: &dyn Fn(&Richness) -> Option<(f64, f64)>| {
        let point = |r: &Richness| value(r).map(|(y, error)| (r.latent as f64, y, error));
        Series::line(name).points(&found.iter().filter_map(point).collect::<Vec<_>>())
    };
    let mut plot = Plot::new("Is z rich? What a latent space of K dimensions holds of an image");
    plot = plot.subtitle(subtitle).subtitle(answer(found).unwrap_or_default()).columns(2);
    plot = plot.panel("How it is written: the bound").x(x()).y(Axis::linear("nats per image"));
    plot = plot
        .series(line("test −ELBO", &|r| Some((r.neg_elbo, 0.0))))
        .series(line("rec", &|r| Some((r.rec, 0.0))).dashed());
    let percent = |e: Uncertain| Some((100.0 * e.value, 100.0 * e.standard_error));
    if found.iter().any(|r| r.classes.is_some()) {
        plot = plot
            .panel("Which digit: accuracy from μ(x) and from a draw of z")
            .x(x())
            .y(Axis::linear("percent of the test images").to(100.0));
        for (i, k) in VOTERS.into_iter().enumerate() {
            let accuracy = |r: &Richness| percent(r.classes.as_ref()?.neighbours.get(i)?.accuracy);
            plot = plot.series(line(&format!("{k}-NN"), &accuracy));
        }
        plot = plot.series(line("linear probe", &|r| percent(r.classes.as_ref()?.probe)));
        plot = plot.series(line("Bayes' rule on a draw", &|r| percent(r.classes.as_ref()?.draw.accuracy)).dashed());
    }
    plot = nats(plot.panel("What z tells, in nats").x(x()).y(Axis::linear("nats per image").from(0.0)), found, &line);
    if let Some(prior) = found.iter().find_map(|r| r.prior.as_ref()) {
        plot = plot.panel("Draws from the prior").x(x()).y(Axis::linear("percent of the draws").from(0.0).to(100.0));
        let label = format!("plainly one digit ({AGREE} of {NEIGHBOURS} neighbours agree)");
        plot = plot.series(line(&label, &|r| percent(r.prior.as_ref()?.confident)));
        plot = plot.reference(100.0 * prior.confident_test.value, "the same of test images");
    }
    plot
}

type RichnessLine<'a> = dyn Fn(&str, &dyn Fn(&Richness) -> Option<(f64, f64)>) -> Series + 'a;

fn nats(plot: Plot, found: &[Richness], line: &RichnessLine<'_>) -> Plot {
    let of = |e: Uncertain| Some((e.value, e.standard_error));
    let mut plot = plot
        .series(line("KL(q(z|x)‖p)", &|r| Some((r.surgery.kl, 0.0))))
        .series(line("I_q(x;z)", &|r| of(r.surgery.information)))
        .series(line("KL(q(z)‖p)", &|r| of(r.surgery.marginal_kl)))
        .series(line("I_q(z;y), at least", &|r| of(r.classes.as_ref()?.draw.at_least)).dashed())
        .series(line("I_q(z;y), at most", &|r| of(r.classes.as_ref()?.draw.at_most)).dashed());
    if let Some(c) = found.iter().find_map(|r| r.classes.as_ref()) {
        plot = plot.reference(c.entropy, format!("{:.2}: the class itself", c.entropy));
    }
    match found.first() {
        Some(r) => plot.reference(
            r.surgery.saturation,
            format!(
                "ln {} = {:.2}: the most that I_q can be; near it KL(q(z)‖p) is an upper bound",
                r.surgery.images, r.surgery.saturation
            ),
        ),
        None => plot,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dimension, Surgery, Voters};
    use super::*;

    fn example(latent: usize, neg_elbo: f64, accuracy: Option<f64>) -> Richness {
        let e = |value| Uncertain { value, standard_error: 0.01 };
        let entropy = 10f64.ln();
        let classes = accuracy.map(|a| Classes {
            classes: 10,
            entropy,
            neighbours: VOTERS.map(|k| Voters { k, accuracy: e(a) }).to_vec(),
            probe: e(a - 0.1),
            error: 1.0 - a,
            best: "1-NN".into(),
            fano: super::super::fano(entropy, 1.0 - a, 10),
            draw: Bayes {
                images: 10_000,
                accuracy: e(a - 0.05),
                at_least: e(super::super::fano(entropy, 1.0 - a, 10)),
                at_most: e(super::super::fano(entropy, 1.0 - a, 10) + 0.1),
            },
        });
        let prior = accuracy.map(|_| Prior {
            draws: 100,
            confident: e(0.5),
            confident_test: e(0.9),
            shares: vec![0.1; 10],
            entropy: Some(entropy),
        });
        let (information, marginal_kl) = (e(8.9f64.min(3.0 * latent as f64)), e(0.4));
        let saturation = 10_000f64.ln();
        Richness {
            latent,
            model: "784-400-2-400-784 relu".into(),
            data: "examples".into(),
            train_images: 60_000,
            test_images: 10_000,
            neg_elbo,
            rec: neg_elbo - 7.0,
            kl: 7.0,
            dimensions: (0..latent).map(|k| Dimension { kl: k as f64, variance: 0.9 }).collect(),
            active_units: latent,
            classes,
            surgery: Surgery { images: 10_000, information, marginal_kl, kl: 7.0, saturation },
            prior,
        }
    }

    #[test]
    fn one_model_is_described_with_errors_and_limits() {
        let text = example(2, 141.0, Some(0.8)).to_string();
        for part in
            ["−ELBO 141.00", "2 of 2 are active", "80.0 ± 1.0 %", "70.0 ± 1.0 %", "ln 10000 = 9.21", "50.0 ± 1.0 %"]
        {
            assert!(text.contains(part), "{text}\nlacks {part}");
        }
        assert!(text.contains("I(μ(x);y) ≥ 1.363 nats") && !text.contains("saturated"), "{text}");
        for part in
            ["called right             75.0 ± 1.0 %", "at least       1.363 ± 0.010", "at most        1.463 ± 0.010"]
        {
            assert!(text.contains(part), "{text}\nlacks {part}");
        }
        // The dimension with the larger KL comes first.
        assert!(text.find("          2      1.0000") < text.find("          1      0.0000"), "{text}");
        let text = example(20, 105.0, None).to_string();
        assert!(text.contains("saturated") && text.contains("have no labels") && !text.contains("Fano ("), "{text}");
    }

    #[test]
    fn the_table_has_a_line_for_every_model() {
        let found = [example(1, 160.0, Some(0.5)), example(2, 141.0, Some(0.8)), example(20, 105.5, Some(0.97))];
        let text = table(&found);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with('–') && lines[2].ends_with("19.00") && lines[3].ends_with("35.50"), "{text}");
        assert!(lines[3].contains("≥8.90") && !lines[1].contains('≥'), "{text}");
        let width = |line: &str| line.chars().count();
        assert!(lines[1..4].iter().all(|line| width(line) == width(lines[0])), "{text}");
        assert_eq!(lines[4], "");
        assert!(lines[7].contains("  75.0  1.36 – 1.46  "), "{text}");
        assert!(lines[6..9].iter().all(|line| width(line) == width(lines[5])), "{text}");
        let text = table(&[example(2, 141.0, None)]);
        assert!(!text.contains("probe") && text.contains("have no labels"), "{text}");
        assert_eq!(text.lines().next().map(width), text.lines().nth(1).map(width));
    }

    #[test]
    fn the_answer_follows_from_the_numbers() {
        let rows = |accuracy, best| [example(2, 141.0, Some(accuracy)), example(20, best, Some(0.97))];
        let says = |rows: &[Richness], words: &[&str]| {
            let text = answer(rows).unwrap();
            words.iter().for_each(|word| assert!(text.contains(word), "{text}\nlacks {word}"));
        };
        let words = [
            "2 dimensions is rich enough for the most part for which digit",
            "tells 1.36 to 1.46 of the 2.30 nats of the class",
            "75.0 %",
            "it tells 6.00 nats of which image",
        ];
        says(&rows(0.8, 105.5), &words);
        says(&rows(0.8, 105.5), &["not rich enough for how", "35.50 nats above the 105.50 of K = 20"]);
        says(&rows(0.99, 140.5), &["is rich enough for which", "rich enough for how"]);
        says(&rows(0.4, 105.5), &["is not rich enough for which"]);
        // Below the half by one bound, and above it by the other.
        says(&rows(0.72, 105.5), &["is not known to be rich enough for which"]);
        says(&[example(2, 141.0, None), example(3, 150.0, None)], &["is as rich as any K tried for how"]);
        says(&[example(3, 141.0, None)], &["z of 3 dimensions"]);
        assert_eq!(answer(&[]), None);
    }

    #[test]
    fn the_picture_has_the_panels_that_the_numbers_allow() {
        let svg = plot(&[example(1, 160.0, Some(0.5)), example(20, 105.0, Some(0.9))], "a < b").svg();
        assert_eq!(svg.matches("<clipPath").count(), 4);
        assert!(svg.contains("15-NN") && svg.contains("ln 10000") && svg.contains("a &lt; b"));
        assert_eq!(plot(&[example(2, 160.0, None)], "").svg().matches("<clipPath").count(), 2);
    }
}
