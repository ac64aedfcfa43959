//! `elbo bounds`: for one image every estimate of log p(x) against the number of samples.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde_json::{Value, json};

use super::answer::Answer;
use super::cross_check::{EXACT, contradiction};
use super::estimates::{describe, posterior_likelihoods};
use super::options::{Machine, Overrides};
use super::output::{self, ending};
use super::{phase, use_run};
use crate::engine::error::{Error, Result};
use crate::study::evidence::{
    Annealing, Estimate, Exact, LogMeanExp, Observed, Proposal, Quadrature, Sampling, ais, group_bounds, log_weights,
    quadrature,
};
use crate::study::plot::{Axis, Plot, Series};
use crate::vae::DeviceVae;

/// Points of a running estimate per decade.
const PER_DECADE: i32 = 10;
/// The diagram reaches this far below the best estimate, in nats, and says so where the naive estimate begins lower.
const DEPTH: f64 = 60.0;

/// (number of samples, estimate, standard error).
type SamplePoint = (f64, f64, f64);

/// Everything that is in the picture.
struct Curves {
    running: Vec<SamplePoint>,
    bounds: Vec<(usize, Estimate)>,
    prior: Vec<SamplePoint>,
    harmonic: Vec<SamplePoint>,
    posterior: &'static str,
    annealed: Estimate,
    decodings: u64,
    /// By quadrature, where it can be had and nothing contradicts it.
    exact: Option<Exact>,
    /// Why it cannot.
    doubt: Option<String>,
}

/// Draw every estimate of one image's log p(x) over the samples
#[derive(Args)]
pub struct Bounds {
    /// The run: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// The test image, by its number from 0
    #[arg(long, value_name = "I", default_value_t = 0)]
    pub image: usize,
    /// Samples of every estimator but ais
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub samples: usize,
    /// Seed of the draws [default: that of the run]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Picture to write (SVG)
    #[arg(long, short, help_heading = "Output", value_name = "FILE", default_value = "bounds.svg", value_parser = ending("svg"))]
    pub out: PathBuf,
    #[command(flatten)]
    pub answer: Answer,
    #[command(flatten)]
    pub annealing: Overrides<Annealing>,
    #[command(flatten)]
    pub machine: Machine,
}

impl Bounds {
    /// Computes, draws and writes.
    pub fn run(&self) -> Result<()> {
        output::spare_runs("out", &self.out, Some(&self.run))?;
        let device = self.machine.device()?;
        let checkpoint = use_run::open(&self.run)?;
        let test = use_run::images(&self.run, &checkpoint, &self.data)?.test;
        if self.image >= test.rows {
            return Err(Error::argument("image", self.image, format!("a number from 0 to {}", test.rows - 1)));
        }
        let mut model = checkpoint.model(device)?;
        self.machine.say_why_no_gpu()?;
        model.watch = phase::watch(false);
        test.load_into(&mut model, "test")?;
        let seed = self.seed.unwrap_or(checkpoint.config.seed);
        let image = Observed::read(&mut model, "test", self.image + 1, seed)?.part(self.image..self.image + 1);
        let curves = compute(self, &mut model, &image, seed)?;
        let pixels = describe(model.vae.config.binarisation, seed);
        let title = format!("log p(x) of test image {} of {}", self.image, test.name);
        let about = [&model.vae.config.describe(), &*format!("pixels {pixels}")];
        picture(&curves, &title, about).write(&self.out)?;
        let about =
            json!({ "run": self.run, "image": self.image, "seed": seed, "pixels": pixels, "picture": self.out });
        self.answer.give(&summary(&curves, &title, &self.out.display().to_string()), &report(&curves, about))
    }
}

fn compute(args: &Bounds, model: &mut DeviceVae, image: &Observed, seed: u64) -> Result<Curves> {
    let sizes = Sampling::decades(args.samples, seed);
    if sizes.bounds.is_empty() {
        return Err(Error::argument("samples", args.samples, "at least 1"));
    }
    let mut stream = |proposal: Proposal| -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(args.samples);
        log_weights(model, image, proposal, args.samples, seed, |_, log_w, _| {
            all.extend(log_w.iter().map(|&v| f64::from(v)));
        })?;
        Ok(all)
    };
    let (by_q, by_prior) = (stream(Proposal::Posterior)?, stream(Proposal::Prior)?);
    let (likelihoods, posterior) = posterior_likelihoods(model, image, args.samples, seed)?;
    let inverse: Vec<f64> = likelihoods[0].iter().map(|v| -v).collect();
    let harmonic = running(&inverse).into_iter().map(|(n, value, error)| (n, -value, error)).collect();
    let settings = args.annealing.with_seed(seed);
    let annealed = ais(model, image, &settings)?[0];
    let config = &model.vae.config;
    let small = config.latent <= 2 && config.upper.is_empty();
    let exact = small.then(|| quadrature(model, image, &Quadrature::of(&model.vae))).transpose()?;
    let bounds = group_bounds(&by_q, &sizes.bounds);
    let lower = [whole(&by_q), whole(&by_prior), annealed].into_iter().chain(bounds.iter().map(|b| b.1));
    let doubt = exact.as_ref().and_then(|exact| doubt(exact, lower));
    let posterior = if doubt.is_some() && posterior == "quadrature" { "a quadrature that failed" } else { posterior };
    Ok(Curves {
        running: running(&by_q),
        bounds,
        prior: running(&by_prior),
        harmonic,
        posterior,
        annealed,
        decodings: settings.decodings(),
        exact: exact.filter(|_| doubt.is_none()).map(|mut all| all.remove(0)),
        doubt,
    })
}

/// The estimate by all weights.
fn whole(log_w: &[f64]) -> Estimate {
    let mut sum = LogMeanExp::default();
    sum.extend(log_w);
    sum.estimate()
}

/// Why quadrature is not to be believed, if it is not.
fn doubt(exact: &[Exact], lower: impl IntoIterator<Item = Estimate>) -> Option<String> {
    if !exact[0].found() {
        return Some("no grid that was tried holds the mass".to_string());
    }
    let above = lower.into_iter().find(|&bound| contradiction(exact, &[bound]).is_some())?;
    Some(format!("{:.3}, below the lower bound {:.3} ± {:.3}", exact[0].log_p, above.value, above.standard_error))
}

/// The log-mean-exp of the first n values, for n in equal steps of log n.
fn running(log_w: &[f64]) -> Vec<SamplePoint> {
    let mut sum = LogMeanExp::default();
    let mut points = Vec::new();
    let mut done = 0;
    for step in 0.. {
        let n = 10f64.powf(f64::from(step) / f64::from(PER_DECADE)).round().min(log_w.len() as f64) as usize;
        if n > done {
            sum.extend(&log_w[done..n]);
            points.push((n as f64, sum.value(), sum.standard_error()));
            done = n;
        }
        if done == log_w.len() {
            return points;
        }
    }
    points
}

/// The whole, and what is near the best estimate.
fn picture(curves: &Curves, title: &str, about: [&str; 2]) -> Plot {
    let best = curves.exact.as_ref().map_or(curves.annealed.value, |e| e.log_p);
    let elbo = curves.exact.as_ref().map_or(curves.bounds[0].1.value, |e| e.elbo);
    let mut plot = Plot::new(title).columns(2);
    for line in about {
        plot = plot.subtitle(line);
    }
    let hidden = curves.prior.iter().filter(|p| p.1 < best - DEPTH).map(|p| p.0).fold(0.0, f64::max);
    if hidden > 0.0 {
        plot = plot.subtitle(format!(
            "the naive estimate begins at −{:.0} and stays below the diagram up to {hidden:.0} samples",
            -curves.prior[0].1
        ));
    }
    plot = panel(plot.panel("clueless and guided"), curves, elbo, (best - DEPTH, f64::INFINITY));
    let near = (elbo - 0.3 * (best - elbo) - 0.5, best + 0.5 * (best - elbo) + 0.5);
    panel(plot.panel("the same, close up"), curves, elbo, near)
}

/// All curves as far as they are within the range.
fn panel(plot: Plot, curves: &Curves, elbo: f64, range: (f64, f64)) -> Plot {
    // A point that is not finite makes a gap, so that what leaves the range and comes back is not joined.
    let inside = |y: f64| if (range.0..=range.1).contains(&y) { y } else { f64::NAN };
    let bare = |points: &[SamplePoint]| points.iter().map(|p| (p.0, inside(p.1))).collect::<Vec<_>>();
    let means: Vec<SamplePoint> =
        curves.bounds.iter().map(|(k, e)| (*k as f64, inside(e.value), e.standard_error)).collect();
    let annealed = (curves.decodings as f64, inside(curves.annealed.value), curves.annealed.standard_error);
    let plot = plot
        .x(Axis::log("samples; for AIS decodings"))
        .y(Axis::linear("log p(x), nats"))
        .series(Series::line("from q: L_k, mean over groups").points(&means))
        .series(Series::line("from q: one running estimate").xy(&bare(&curves.running)).plain())
        .series(Series::line("from the prior (naive)").xy(&bare(&curves.prior)).plain())
        .series(Series::line("harmonic mean (fails)").xy(&bare(&curves.harmonic)).plain().dashed())
        .series(Series::scatter("AIS").points(&[annealed]))
        .reference(elbo, "ELBO");
    match &curves.exact {
        Some(exact) => plot.reference(exact.log_p, "log p(x), quadrature"),
        None => plot,
    }
}

fn report(curves: &Curves, mut about: Value) -> Value {
    let points = |points: &[SamplePoint]| -> Vec<Value> {
        points.iter().map(|p| json!({ "samples": p.0, "value": p.1, "standard_error": p.2 })).collect()
    };
    about["importance_running"] = points(&curves.running).into();
    about["importance_bounds"] =
        curves.bounds.iter().map(|(k, e)| json!({ "k": k, "estimate": e })).collect::<Vec<_>>().into();
    about["prior_running"] = points(&curves.prior).into();
    about["harmonic_running_fails"] = points(&curves.harmonic).into();
    about["posterior_draws_by"] = curves.posterior.into();
    about["ais"] = json!({ "estimate": curves.annealed, "decodings": curves.decodings });
    if let Some(e) = &curves.exact {
        about["quadrature"] = json!({ "log_p": e.log_p, "error": e.error, "elbo": e.elbo, "gap": e.gap() });
    }
    if let Some(doubt) = &curves.doubt {
        about["quadrature"] = json!({ "failed": doubt });
    }
    about
}

fn summary(curves: &Curves, title: &str, out: &str) -> String {
    let last = |points: &[SamplePoint]| *points.last().expect("there is a sample");
    let mut text = format!("{title}, in nats\n");
    let mut row = |name: &str, samples: f64, value: f64, error: f64| {
        let error = if error.is_finite() { format!(" ± {error:.3}") } else { String::new() };
        text += &format!("  {name:<26}{samples:>10.0} samples {value:>12.3}{error}\n");
    };
    for (k, e) in &curves.bounds {
        row(&format!("L_{k}{}", if *k == 1 { " = ELBO" } else { "" }), e.samples as f64, e.value, e.standard_error);
    }
    for (name, points) in [
        ("draws from q", &curves.running),
        ("draws from the prior", &curves.prior),
        ("harmonic mean (fails)", &curves.harmonic),
    ] {
        let (n, value, error) = last(points);
        row(name, n, value, error);
    }
    row("AIS, decodings", curves.decodings as f64, curves.annealed.value, curves.annealed.standard_error);
    if let Some(e) = &curves.exact {
        let word = if e.error.max(e.elbo_error) < EXACT { "exact" } else { "not exact:" };
        text += &format!(
            "  log p(x) by quadrature {:.6}, error about {:.0e}; {word} ELBO {:.6}, gap {:.6}\n",
            e.log_p,
            e.error,
            e.elbo,
            e.gap()
        );
    }
    if let Some(doubt) = &curves.doubt {
        text += &format!("  quadrature failed: {doubt}; log p(x) is not known, AIS is the best there is\n");
    }
    text + &format!("posterior draws by {}; picture: {out}\n", curves.posterior)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_estimates_end_with_all_samples() {
        let log_w: Vec<f64> = (0..250).map(|i| -f64::from(i % 7)).collect();
        let points = running(&log_w);
        let mut all = LogMeanExp::default();
        all.extend(&log_w);
        let last = points.last().unwrap();
        assert_eq!((points[0].0, points[0].1, last.0), (1.0, 0.0, 250.0));
        assert!((last.1 - all.value()).abs() < 1e-12);
        assert!(points.windows(2).all(|p| p[0].0 < p[1].0) && points.len() > 20);
    }
}
