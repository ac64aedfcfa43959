//! `elbo gradcheck`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::answer::Answer;
use super::derive::{after_help, known, listed};
use super::output::{self, ending};
use super::sparkline::bar;
use crate::engine::error::Result;
use crate::engine::gradcheck::{GradCheck, GradReport, Stencil, StepSweep, SweepArm};
use crate::study::derive::Subject;
use crate::study::plot::{Axis, Plot, Series};

/// Check derivatives by differences: the error against the step size, a V
#[derive(Args)]
#[command(after_long_help = after_help())]
pub struct Gradcheck {
    /// What is differentiated: an expression, or one of kl, bce, gaussian_nll, logsumexp, softmax, matmul, vae
    ///
    /// As in "softplus(l) - x*l". Without it the built-in ones are listed. Write -- before one that begins with a minus.
    pub expression: Option<String>,
    /// The values of its names, as in "l=2, x=1" or "w=[1 2; 3 4], x=[1; 2]"
    #[arg(long, value_name = "NAME=VALUE,…", default_value = "", hide_default_value = true)]
    pub at: String,
    /// Seed of the random cotangents
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// Write the V as a picture
    #[arg(long, value_name = "FILE", value_parser = ending("svg"))]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub answer: Answer,
}

/// Steps per tenfold of h.
const PER_DECADE: usize = 4;

/// Two ways to take a difference, and what they are called.
const STENCILS: [(Stencil, &str); 2] = [(Stencil::ThreePoint, "three points"), (Stencil::FivePoint, "five points")];

impl Gradcheck {
    /// Prints the V of both orders with its slopes and the verdict.
    pub fn run(&self) -> Result<()> {
        let Some(expression) = &self.expression else { return self.answer.give(&listed("gradcheck"), &known()) };
        let subject = Subject::find(expression, &self.at)?;
        self.svg.iter().try_for_each(|path| output::spare_runs("svg", path, None))?;
        let steps: Vec<f64> =
            (PER_DECADE..=10 * PER_DECADE).map(|k| 10f64.powf(-(k as f64) / PER_DECADE as f64)).collect();
        let check = GradCheck { seed: self.seed, ..GradCheck::default() };
        let sweeps = [1, 2].map(|order| check.sweep_at(order, &steps, |g, x| subject.build(g, x), subject.point()));
        let report = check.run(|g, x| subject.build(g, x), subject.point());
        if let Some(path) = &self.svg {
            picture(subject.title(), &sweeps).write(path)?;
            super::say(format_args!("picture: {}", path.display()));
        }
        self.answer.give(&text(subject.title(), &sweeps, &report), &record(subject.title(), &sweeps, &report))
    }
}

fn record(title: &str, sweeps: &[StepSweep; 2], report: &GradReport) -> serde_json::Value {
    let order = |(i, sweep): (usize, &StepSweep)| {
        let of = |stencil| json!({ "errors": sweep.of(stencil), "arms": sweep.arms(stencil) });
        json!({ "order": i + 1, "three_point": of(Stencil::ThreePoint), "five_point": of(Stencil::FivePoint) })
    };
    let orders: Vec<_> = sweeps.iter().enumerate().map(order).collect();
    json!({
        "title": title,
        "orders": orders,
        "passes": report.passes(),
        "error": report.error(),
        "tolerance": report.check.tolerance,
    })
}

fn text(title: &str, sweeps: &[StepSweep; 2], report: &GradReport) -> String {
    let mut out = format!(
        "y = {title}\nerror of the worst element, |grad − difference|/(1 + |difference|), against the step h\n\n\
         {:>8}  {:>28}  {:>28}\n{:>8}  {:>14}{:>14}  {:>14}{:>14}\n",
        "", "first derivative", "second derivative", "h", "three points", "five points", "three points", "five points"
    );
    for i in (0..sweeps[0].three_point.len()).step_by(PER_DECADE) {
        write!(out, "{:>8.0e}", sweeps[0].three_point[i].0).expect("memory");
        for sweep in sweeps {
            write!(out, "  {:>14.1e}{:>14.1e}", sweep.three_point[i].1, sweep.five_point[i].1).expect("memory");
        }
        out.push('\n');
    }
    out.push('\n');
    for (order, sweep) in (1..).zip(sweeps) {
        for (stencil, name) in STENCILS {
            writeln!(out, "order {order}, {name:<12}  {}", sparkline(sweep.of(stencil))).expect("memory");
            writeln!(out, "    {}", told(sweep, stencil)).expect("memory");
        }
    }
    writeln!(out, "    (h from 0.1 on the left to 1e-10 on the right)\n\n{report}").expect("memory");
    out.truncate(out.trim_end().len());
    out + "\n"
}

/// Bottom and slopes in words.
fn told(sweep: &StepSweep, stencil: Stencil) -> String {
    let arms = sweep.arms(stencil);
    let slope = |arm: Option<SweepArm>, none: &str| {
        arm.map_or(none.to_string(), |arm| format!("h^{:.2} (theory h^{})", arm.slope, arm.expected))
    };
    format!(
        "least {:.1e} at h = {:.0e}; truncation {}; rounding {}",
        arms.bottom.1,
        arms.bottom.0,
        slope(arms.truncation, "none to see"),
        slope(arms.rounding, "none to see")
    )
}

/// The logarithm of each error as a bar, from 1e-14 to 1.
fn sparkline(errors: &[(f64, f64)]) -> String {
    errors.iter().map(|&(_, e)| bar(e.max(1e-16).log10() / 14.0 + 1.0)).collect()
}

fn picture(title: &str, sweeps: &[StepSweep; 2]) -> Plot {
    let mut plot = Plot::new(format!("The V of {title}"))
        .subtitle("error of the worst element, relative to 1 + |slope|, against the step of the difference, in f64")
        .subtitle("right of the bottom truncation, h² or h⁴; left of it rounding, ε/h; a wrong derivative has a floor")
        .columns(2);
    for (order, sweep) in ["first derivative", "second derivative"].into_iter().zip(sweeps) {
        plot = plot.panel(order).x(Axis::log("step h")).y(Axis::log("error"));
        for (colour, (stencil, name)) in STENCILS.into_iter().enumerate() {
            let arms = sweep.arms(stencil);
            plot = plot.series(Series::line(name).xy(sweep.of(stencil)).colour(colour));
            // Both stencils round alike: one line shows it.
            let rounding = arms.rounding.filter(|_| stencil == Stencil::FivePoint);
            for arm in arms.truncation.into_iter().chain(rounding) {
                let power = if arm.expected == 2.0 {
                    "h²"
                } else if arm.expected == 4.0 {
                    "h⁴"
                } else {
                    "ε/h"
                };
                let line = Series::line(format!("{power}, measured h^{:.2}", arm.slope).replace('-', "−"));
                let own = if arm.expected < 0.0 { 4 } else { colour + 2 };
                plot = plot.series(line.xy(&reference(arm, sweep.of(stencil))).dashed().plain().colour(own));
            }
        }
    }
    plot
}

/// How far above the errors the line of theory is drawn, so that it can be seen.
const ABOVE: f64 = 5.0;

/// The line of the power that theory says, where it lies within the picture.
fn reference(arm: SweepArm, errors: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let least = errors.iter().map(|p| p.1).filter(|e| *e > 0.0).fold(f64::INFINITY, f64::min);
    let most = errors.iter().map(|p| p.1).filter(|e| e.is_finite()).fold(0.0, f64::max);
    let line = errors.iter().map(|&(h, _)| (h, ABOVE * arm.constant * h.powf(arm.expected)));
    line.filter(|&(_, e)| e >= least && e <= ABOVE * most).collect()
}
