//! The picture: ratios against k at each distance, the noise at the posterior, and what it costs to see a gradient.

use super::contestant::{Contestant, Network};
use super::results::{Cell, ContestantLine, LabPlace, LabReport};
use crate::study::plot::{Axis, Plot, Series};
use crate::vae::BoundKind;

/// More distances than this would make panels that nobody compares.
const MOST: usize = 4;
/// Less noise than this is rounding.
const SILENCE: f64 = 1e-3;

/// Draws what was found.
pub fn draw(report: &LabReport) -> Plot {
    let mut plot = Plot::new("How noisy a gradient is").columns(3).subtitle(report.model.clone());
    plot = plot.subtitle(format!(
        "{}; {} draws of each gradient; bars are standard errors (jackknife over 20 groups){}",
        report.device,
        report.draws,
        if report.places.iter().any(|p| p.distance.is_some()) { "; dotted: exact" } else { "" }
    ));
    let signal: Vec<&LabPlace> = report.places.iter().filter(|place| !place.is_posterior()).take(MOST).collect();
    if let Some(place) = report.places.iter().find(|place| place.is_posterior()) {
        let panel = plot.panel("q is the posterior; what is 0 is not shown");
        let panel = panel.x(Axis::log("k, draws per image")).y(Axis::log("noise"));
        let seen = |noise: &f64| *noise > SILENCE;
        let noise = |cell: &Cell| Some((cell.noise.value, cell.noise.standard_error)).filter(|(value, _)| seen(value));
        plot = series(panel, place, |_| true, noise, |cell| cell.exact_noise.filter(seen));
    }
    for place in &signal {
        let panel = plot.panel(title(place)).x(Axis::log("k, draws per image")).y(Axis::log("signal-to-noise ratio"));
        let ratio = |cell: &Cell| cell.ratio.map(|ratio| (ratio.value, ratio.standard_error));
        plot = series(panel, place, |_| true, ratio, |cell| cell.exact_ratio);
    }
    // The cost at the middle distance, where both regimes are.
    if let Some(place) = signal.get(signal.len() / 2) {
        for (bound, name) in [(BoundKind::Elbo, "the ELBO's gradient"), (BoundKind::Iwae, "the gradient of L_k")] {
            let panel = plot.panel(format!("what it takes to see {name}, {}", title(place)));
            let panel = panel.x(Axis::log("k, draws per image")).y(Axis::log("ms per step × (noise/signal)²"));
            let own = |c: &Contestant| c.bound == bound && c.side == Network::Encoder;
            plot = series(panel, place, own, |cell| cell.time_to_see().map(|ms| (ms, 0.0)), |_| None);
        }
    }
    plot
}

fn title(place: &LabPlace) -> String {
    match place.distance {
        Some(distance) => format!("{distance} sd off, χ² = {:.3}", Rounded(place.chi_square.unwrap_or(f64::NAN))),
        None => "q as it was trained".into(),
    }
}

/// Three digits.
struct Rounded(f64);

impl std::fmt::Display for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = (2 - self.0.abs().log10().floor() as i32).clamp(0, 4) as usize;
        write!(f, "{:.digits$}", self.0)
    }
}

/// Measured points with errors for each estimator, and the exact curve dotted in the same colour.
fn series(
    mut plot: Plot,
    place: &LabPlace,
    chosen: impl Fn(&Contestant) -> bool,
    measured: impl Fn(&Cell) -> Option<(f64, f64)>,
    exact: impl Fn(&Cell) -> Option<f64>,
) -> Plot {
    for (colour, line) in place.lines.iter().enumerate().filter(|(_, line)| chosen(&line.contestant)) {
        let k = |cell: &Cell| cell.k as f64;
        let points: Vec<_> =
            line.cells.iter().filter_map(|cell| measured(cell).map(|(y, e)| (k(cell), y, e))).collect();
        let curve: Vec<_> = line.cells.iter().filter_map(|cell| Some((k(cell), exact(cell)?))).collect();
        let known = !curve.is_empty();
        let points = if known { Series::scatter(name(line)) } else { Series::line(name(line)) }.points(&points);
        plot = plot.series(points.colour(colour));
        if known {
            plot = plot.series(Series::line("").xy(&curve).dotted().colour(colour));
        }
    }
    plot
}

fn name(line: &ContestantLine) -> String {
    let biased = line.cells.iter().any(|cell| line.contestant.is_biased(cell.k));
    format!("{} {}{}", line.contestant.bound_name(), line.contestant.name(), if biased { " (biased)" } else { "" })
}
