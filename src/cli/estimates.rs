//! The estimators of log p(x) that `elbo eval` is asked for, as a table and as JSON.

use std::fmt::Write;
use std::time::Instant;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::cross_check::{contradiction, verdict};
use super::eval::{EstimatorName, Eval};
use super::plural;
use crate::engine::error::{Error, Result};
use crate::study::evidence::{
    Estimate, Exact, Moments, Observed, Proposal, Quadrature, Sampling, Summary, ais, check_quadrature, harmonic_mean,
    importance, log_weights, quadrature, resample, sandwich, simulate,
};
use crate::vae::{Binarisation, DeviceVae, VaeConfig};

/// Test images of a table with a costly estimator in it, unless another number is asked for.
const IMAGES: usize = 100;

/// One line of the table, and what is said below it.
struct EstimateLine {
    name: String,
    summary: Summary,
    seconds: f64,
    notes: Vec<String>,
    more: Value,
    /// By image, where each is a lower bound of log p(x) in expectation.
    bounds: Vec<Estimate>,
    /// By image, of quadrature alone.
    exact: Vec<Exact>,
}

/// Checks what can be checked before anything is computed.
///
/// # Errors
/// [`Error::Argument`] naming the option, what it holds and what it may hold.
pub fn check(args: &Eval, config: &VaeConfig, there: usize) -> Result<()> {
    let within = |field: &str, value: Option<usize>, most: usize| match value {
        Some(n) if !(1..=most).contains(&n) => Err(Error::argument(field, n, format!("a number from 1 to {most}"))),
        _ => Ok(()),
    };
    within("images", args.images, there)?;
    within("bdmc", args.bdmc, 100_000)?;
    within("samples", Some(args.samples()), usize::MAX)?;
    if args.estimators.contains(&EstimatorName::Quadrature) {
        check_quadrature(config)?;
    }
    Ok(())
}

/// What was asked for, as a table and laid into `report`; empty if that is nothing.
pub fn estimates(args: &Eval, model: &mut DeviceVae, there: usize, seed: u64, report: &mut Value) -> Result<String> {
    let mut lines = Vec::new();
    if !args.estimators.is_empty() {
        // The same images for all: numbers that stand below each other are there to be compared.
        let cheap = args.estimators.iter().all(|&name| name == EstimatorName::Elbo);
        let usual = if cheap { there } else { IMAGES.min(there) };
        let observed = Observed::read(model, "test", args.images.unwrap_or(usual), seed)?;
        for &name in &args.estimators {
            super::say(format_args!(
                "{} of {} …",
                name.to_possible_value().expect("all names are shown").get_name(),
                plural(observed.images(), "image")
            ));
            lines.push(line(args, model, name, &observed, seed)?);
        }
    }
    confront(&mut lines, &Quadrature::of(&model.vae));
    let pixels = describe(model.vae.config.binarisation, seed);
    let mut text = String::new();
    if !lines.is_empty() {
        text = table(&lines, &pixels, there);
    }
    let estimator = |line: &EstimateLine| json!({ "name": line.name, "summary": line.summary, "seconds": line.seconds, "more": line.more });
    report["run"] = json!(args.run);
    (report["pixels"], report["seed"]) = (pixels.as_str().into(), seed.into());
    report["device"] = model.executor.describe().into();
    report["estimators"] = lines.iter().map(estimator).collect();
    if let Some(count) = args.bdmc {
        let (said, found) = both_sides(args, model, count, seed)?;
        text += &said;
        report["bdmc"] = found;
    }
    Ok(text)
}

/// What the images are.
pub(super) fn describe(binarisation: Binarisation, seed: u64) -> String {
    match binarisation {
        Binarisation::Dynamic => format!("dynamic: each image drawn once, seed {seed}"),
        other => other.to_string(),
    }
}

/// Holds what quadrature says against the bounds in the other lines.
fn confront(lines: &mut [EstimateLine], settings: &Quadrature) {
    let Some(at) = lines.iter().position(|line| !line.exact.is_empty()) else { return };
    let exact = std::mem::take(&mut lines[at].exact);
    let against =
        |line: &EstimateLine| contradiction(&exact, &line.bounds).map(|said| format!("{} is {said}", line.name));
    let verdict = verdict(&exact, settings, &lines.iter().filter_map(against).collect::<Vec<_>>());
    let line = &mut lines[at];
    (line.name, line.summary) = (verdict.name.to_string(), verdict.summary);
    (line.notes, line.more) = (verdict.notes, verdict.more);
}

fn line(
    args: &Eval,
    model: &mut DeviceVae,
    name: EstimatorName,
    observed: &Observed,
    seed: u64,
) -> Result<EstimateLine> {
    let start = Instant::now();
    let (mut notes, mut more) = (Vec::new(), Value::Null);
    let (mut bounds, mut exact) = (Vec::new(), Vec::new());
    let (label, summary) = match name {
        EstimatorName::Elbo => {
            let one = Sampling { samples: 1, bounds: Vec::new(), seed };
            let found = importance(model, observed, Proposal::Posterior, &one)?;
            bounds = found.iter().map(|i| i.estimate).collect();
            ("elbo".to_string(), Summary::of(&bounds))
        }
        EstimatorName::Iwae | EstimatorName::Prior => {
            let (proposal, label) = match name {
                EstimatorName::Iwae => (Proposal::Posterior, "iwae"),
                _ => (Proposal::Prior, "prior (naive)"),
            };
            let sampling = Sampling::decades(args.samples(), seed);
            let found = importance(model, observed, proposal, &sampling)?;
            bounds = found.iter().map(|i| i.estimate).collect();
            let groups: Vec<(usize, Summary)> = (0..found[0].bounds.len())
                .map(|b| {
                    let of_images: Vec<Estimate> = found.iter().map(|i| i.bounds[b].1).collect();
                    (found[0].bounds[b].0, summary(proposal, &of_images))
                })
                .collect();
            let said = groups.iter().map(|(k, s)| format!("−L_{k} {:.2} ± {}", s.nll, number(s.monte_carlo_error)));
            notes.push(format!("means over groups of k draws (± draws): {}", said.collect::<Vec<_>>().join(", ")));
            more = json!({ "bounds": groups.iter().map(|(k, s)| json!({ "k": k, "summary": s })).collect::<Vec<_>>() });
            (format!("{label}-{}", args.samples()), summary(proposal, &bounds))
        }
        EstimatorName::Quadrature => {
            exact = quadrature(model, observed, &Quadrature::of(&model.vae))?;
            let all: Vec<Estimate> = exact.iter().map(Exact::estimate).collect();
            ("quadrature".to_string(), Summary::of_shared(&all))
        }
        EstimatorName::Ais => {
            let settings = args.annealing.with_seed(seed);
            bounds = ais(model, observed, &settings)?;
            notes.push(format!(
                "{} temperatures, {} leapfrog steps: {} decodings per image with the tuning",
                settings.temperatures,
                settings.leapfrog,
                settings.decodings()
            ));
            ("ais".to_string(), Summary::of(&bounds))
        }
        EstimatorName::Harmonic => {
            let (found, draws) = harmonic(model, observed, args.samples(), seed)?;
            notes.push(format!("draws from the posterior by {draws}; infinite variance, no estimate of anything"));
            ("harmonic mean (fails)".to_string(), Summary::of(&found))
        }
    };
    Ok(EstimateLine { name: label, summary, seconds: start.elapsed().as_secs_f64(), notes, more, bounds, exact })
}

fn summary(proposal: Proposal, estimates: &[Estimate]) -> Summary {
    match proposal {
        Proposal::Posterior => Summary::of(estimates),
        Proposal::Prior => Summary::of_shared(estimates),
    }
}

/// The harmonic mean over draws from the posterior: exact ones where quadrature can make them, else resampled ones.
pub(super) fn harmonic(
    model: &mut DeviceVae,
    observed: &Observed,
    samples: usize,
    seed: u64,
) -> Result<(Vec<Estimate>, &'static str)> {
    let log_p = posterior_likelihoods(model, observed, samples, seed)?;
    Ok((log_p.0.iter().map(|log_p| harmonic_mean(log_p)).collect(), log_p.1))
}

/// log p(x|z) of draws from the posterior of every image, and where they are from.
pub(super) fn posterior_likelihoods(
    model: &mut DeviceVae,
    observed: &Observed,
    samples: usize,
    seed: u64,
) -> Result<(Vec<Vec<f64>>, &'static str)> {
    let config = &model.vae.config;
    if config.latent <= 2 && config.upper.is_empty() {
        let settings = Quadrature { keep_posterior: true, ..Quadrature::of(&model.vae) };
        let exact = quadrature(model, observed, &settings)?;
        let of = |(exact, which): (&Exact, u32)| {
            exact.draw(samples, seed, which).into_iter().map(|i| exact.posterior[i].1).collect()
        };
        if exact.iter().all(Exact::found) {
            return Ok((exact.iter().zip(0..).map(of).collect(), "quadrature"));
        }
    }
    let mut all = vec![(Vec::new(), Vec::new()); observed.images()];
    log_weights(model, observed, Proposal::Posterior, samples, seed, |image, log_w, log_p| {
        all[image].0.extend(log_w.iter().map(|&v| f64::from(v)));
        all[image].1.extend(log_p.iter().map(|&v| f64::from(v)));
    })?;
    let of = |((log_w, log_p), which): (&(Vec<f64>, Vec<f64>), u32)| {
        resample(log_w, samples, seed, which).into_iter().map(|i| log_p[i]).collect()
    };
    Ok((all.iter().zip(0..).map(of).collect(), "resampling from q"))
}

/// AIS from both sides for images that the model draws.
fn both_sides(args: &Eval, model: &mut DeviceVae, count: usize, seed: u64) -> Result<(String, Value)> {
    let start = Instant::now();
    let settings = args.annealing.with_seed(seed);
    let simulated = simulate(model, count, seed)?;
    let found = sandwich(model, &simulated, &settings)?;
    let mean =
        |f: &dyn Fn(&crate::study::evidence::Sandwich) -> f64| found.iter().map(f).sum::<f64>() / found.len() as f64;
    let (low, high) = (mean(&|s| s.forward.value), mean(&|s| s.reverse.value));
    let mut apart = Moments::default();
    found.iter().for_each(|s| apart.push(s.reverse.value - s.forward.value));
    let seconds = start.elapsed().as_secs_f64();
    let crossed = if high < low { "; crossed, which is noise: use more images, chains or temperatures" } else { "" };
    let text = format!(
        "bidirectional Monte Carlo, {} drawn by the model, {}, {}, seed {seed}, {seconds:.1} s:\n  \
         mean over the images, in expectation a lower bound of log p(x) {low:.3} and an upper bound {high:.3}:\n  \
         {:.3} nats apart, ± {} over images{crossed}\n",
        plural(count, "image"),
        plural(settings.chains, "chain"),
        plural(settings.temperatures, "temperature"),
        high - low,
        number(apart.standard_error())
    );
    let of = |s: &crate::study::evidence::Sandwich| json!({ "forward": s.forward, "reverse": s.reverse });
    let images: Vec<Value> = found.iter().map(of).collect();
    Ok((text, json!({ "forward": low, "reverse": high, "seconds": seconds, "images": images })))
}

/// A standard error, or a stroke where there is none.
fn number(error: f64) -> String {
    match error {
        e if !e.is_finite() => "–".to_string(),
        e if e > 0.0 && e < 0.0005 => format!("{e:.0e}"),
        e => format!("{e:.3}"),
    }
}

/// Of `there` test images, all or the first ones.
fn table(lines: &[EstimateLine], pixels: &str, there: usize) -> String {
    let images = lines.first().map_or(0, |line| line.summary.images);
    let which = if images == there { "all" } else { "the first" };
    let images = plural(images, "test image");
    let mut text = format!("estimates of −log p(x), nats per image; {which} {images}; pixels {pixels}\n");
    writeln!(
        text,
        "  {:<22}{:>7}{:>10}{:>12}{:>10}{:>10}{:>10}{:>9}",
        "estimator", "images", "samples", "−log p(x)", "± images", "± draws", "ESS", "seconds"
    )
    .expect("writing to a string");
    for line in lines {
        let s = &line.summary;
        let effective = s.effective_samples.map_or("–".to_string(), |e| format!("{e:.1}"));
        let errors = (number(s.standard_error), number(s.monte_carlo_error));
        writeln!(
            text,
            "  {:<22}{:>7}{:>10.0}{:>12.3}{:>10}{:>10}{:>10}{:>9.1}",
            line.name, s.images, s.samples, s.nll, errors.0, errors.1, effective, line.seconds
        )
        .expect("writing to a string");
        line.notes.iter().for_each(|note| writeln!(text, "      {note}").expect("writing to a string"));
    }
    text + "  ± images: as a mean over images from a population; ± draws: over the draws, for these images\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_not_known() {
        let summary = Summary {
            images: 3,
            samples: 1.0,
            nll: 101.5,
            standard_error: 0.25,
            monte_carlo_error: f64::NAN,
            effective_samples: None,
        };
        let notes = vec!["a note".to_string()];
        let (bounds, exact) = (Vec::new(), Vec::new());
        let line = EstimateLine { name: "elbo".into(), summary, seconds: 0.5, notes, more: Value::Null, bounds, exact };
        let text = table(&[line], &describe(Binarisation::Dynamic, 4), 7);
        assert!(text.starts_with("estimates of −log p(x), nats per image; the first 3 test images;"), "{text}");
        let row: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row, ["elbo", "3", "1", "101.500", "0.250", "–", "–", "0.5"]);
        assert!(text.contains("each image drawn once, seed 4") && text.contains("\n      a note\n"));
        assert_eq!([number(2e-7), number(0.0), number(0.0312)], ["2e-7", "0.000", "0.031"]);
    }
}
