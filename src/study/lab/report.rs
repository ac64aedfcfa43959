//! The tables: what bends where, what it should do, what it costs. At most 100 columns.

use super::BOUNDS;
use super::results::{Cell, ContestantLine, LabPlace, LabReport, Regime, SlopeInK};
use crate::study::richness::Uncertain;
use crate::vae::BoundKind;

/// Columns of the names at the left, and of a number.
const NAME: usize = 29;
const NUMBER: usize = 8;
/// Distances side by side in a table, and columns of each.
const ABREAST: usize = 3;
const WIDE: usize = 19;
/// Columns of an estimator with its regime.
const TITLE: usize = 37;

/// Everything that was found, as text.
pub fn tables(report: &LabReport) -> String {
    let images = if report.images == 1 { "1 image".into() } else { format!("{} images", report.images) };
    let mut text = format!(
        "{}\n{}; {images}, {} draws of each gradient, seed {}\n",
        report.model, report.device, report.draws, report.seed
    );
    report.places.iter().for_each(|place| text += &ratios(report, place));
    text += &agreement(report);
    text += &slopes(report);
    text += &biases(report);
    text += &costs(report);
    text
}

/// Three digits, in at most seven columns.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if !(9.995e-4..99_999.5).contains(&size) => format!("{value:.1e}"),
        size if size < 0.9995 => format!("{value:.4}")[..].chars().take(if value < 0.0 { 7 } else { 6 }).collect(),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Where q stands.
fn place_name(place: &LabPlace) -> String {
    match (place.distance, place.gap, place.chi_square) {
        (Some(0.0), ..) => "q is the posterior".into(),
        (Some(distance), Some(gap), Some(chi_square)) => {
            format!("q stands {distance} posterior sd off: KL {} nats, χ² {}", short(gap), short(chi_square))
        }
        _ => "q as it was trained; the encoder's last layer, and the bias of the decoder's".into(),
    }
}

/// A row of numbers for the values of k.
fn row(name: &str, numbers: impl Iterator<Item = String>) -> String {
    let numbers: String = numbers.map(|number| format!("{number:>NUMBER$}")).collect();
    format!("{name:<NAME$}{numbers}\n")
}

fn heading(what: &str, samples: &[usize]) -> String {
    row(what, samples.iter().map(|k| format!("k={k}")))
}

/// One row per estimator, the bound's name before its first.
fn by_estimator(place: &LabPlace, number: impl Fn(&Cell) -> String) -> String {
    let mut text = String::new();
    for bound in BOUNDS {
        let lines = place.lines.iter().filter(|line| line.contestant.bound == bound);
        for (i, line) in lines.enumerate() {
            let label = if i == 0 { line.contestant.bound_name() } else { "" };
            let name = format!(
                "{label:<5}{}{}",
                line.contestant.name(),
                if biased(line) && !place.is_posterior() { " *" } else { "" }
            );
            text += &row(&name, line.cells.iter().map(&number));
        }
    }
    text
}

fn biased(line: &ContestantLine) -> bool {
    line.cells.iter().any(|cell| line.contestant.is_biased(cell.k))
}

/// The ratios, or the noise where there is no signal.
fn ratios(report: &LabReport, place: &LabPlace) -> String {
    let (what, number): (&str, fn(&Cell) -> String) = match place.is_posterior() {
        true => ("noise (there is no signal)", |cell| short(cell.noise.value)),
        false => ("signal-to-noise ratio", |cell| cell.ratio.map_or("lost".into(), |ratio| short(ratio.value))),
    };
    let stars = place.lines.iter().any(biased) && !place.is_posterior();
    let note = if stars { "* for k > 1 not the gradient of L_k: the ratio is that of a wrong vector\n" } else { "" };
    format!("\n{}\n{}{}{note}", place_name(place), heading(what, &report.samples), by_estimator(place, number))
}

/// How far the measured noise is from the exact one, over all cells.
fn agreement(report: &LabReport) -> String {
    let cells = report.places.iter().flat_map(|place| &place.lines).flat_map(|line| &line.cells);
    // Where there is none there are rounding errors.
    let distance = |cell: &Cell| {
        let exact = cell.exact_noise.filter(|&exact| exact > 1e-3)?;
        Some((cell.noise.value - exact).abs() / cell.noise.standard_error)
    };
    let all: Vec<f64> = cells.filter_map(distance).collect();
    if all.is_empty() {
        return String::new();
    }
    let within = |most: f64| all.iter().filter(|&&d| d <= most).count();
    format!(
        "\nMeasured noise against the exact one: {} of {} within one standard error, {} within\ntwo; the \
         furthest is {} off.\n",
        within(1.0),
        all.len(),
        within(2.0),
        short(all.iter().fold(0.0, |most: f64, &d| most.max(d)))
    )
}

fn plus_minus(number: Uncertain, digits: usize) -> String {
    format!("{:.digits$}±{:.digits$}", number.value, number.standard_error)
}

fn power(law: f64) -> &'static str {
    if law > 0.0 { "√k" } else { "1/√k" }
}

/// The slopes of the ratios, for places with a signal, a few side by side.
fn slopes(report: &LabReport) -> String {
    let places: Vec<&LabPlace> = report.places.iter().filter(|place| !place.is_posterior()).collect();
    let mut text = String::new();
    for places in places.chunks(ABREAST) {
        if places.iter().all(|place| place.lines.iter().all(|line| line.slopes.is_empty())) {
            continue;
        }
        let exact = places.iter().any(|place| place.distance.is_some());
        text += "\nSlope b of the ratio ∝ kᵇ, measured ± standard error";
        text += if exact { " (exact)\n" } else { "\n" };
        let head = |place: &&LabPlace| match (place.distance, place.chi_square) {
            (Some(distance), Some(chi_square)) => format!("{distance} sd, χ² {}", short(chi_square)),
            _ => "trained q".into(),
        };
        text += &slope_row("", places.iter().map(head), "law");
        let regimes = [(Regime::Every, ""), (Regime::Before, "k ≤ χ²/4"), (Regime::After, "k ≥ 4χ²")];
        for number in 0..places[0].lines.len() {
            for (regime, name) in regimes {
                text += &slopes_of(places, number, regime, name);
            }
        }
    }
    text
}

fn slope_row(name: &str, columns: impl Iterator<Item = String>, law: &str) -> String {
    let columns: String = columns.map(|column| format!("{column:>WIDE$}")).collect();
    format!("{name:<TITLE$}{columns}  {law}").trim_end().to_string() + "\n"
}

/// One estimator in one regime at several places; nothing where no place has it.
fn slopes_of(places: &[&LabPlace], number: usize, regime: Regime, name: &str) -> String {
    let slope = |place: &&LabPlace| -> Option<SlopeInK> {
        place.lines[number].slopes.iter().find(|slope| slope.regime == regime).copied()
    };
    let found: Vec<Option<SlopeInK>> = places.iter().map(slope).collect();
    let Some(any) = found.iter().flatten().next() else { return String::new() };
    let column = |slope: &Option<SlopeInK>| match slope {
        None => "–".into(),
        Some(SlopeInK { measured, exact: None, .. }) => plus_minus(*measured, 2),
        Some(SlopeInK { measured, exact: Some(exact), .. }) => format!("{} ({exact:.2})", plus_minus(*measured, 2)),
    };
    let contestant = places[0].lines[number].contestant;
    let title = format!("{:<5}{:<23}{name}", contestant.bound_name(), contestant.name());
    slope_row(&title, found.iter().map(column), any.law.map_or("", power))
}

/// The biases at the second k, and how far the means are from what is expected.
fn biases(report: &LabReport) -> String {
    let index = 1.min(report.samples.len() - 1);
    let mut text = String::new();
    let shown: Vec<&LabPlace> = report.places.iter().filter(|place| !place.is_posterior()).collect();
    for places in shown.chunks(ABREAST) {
        let known = places.iter().any(|place| place.distance.is_some());
        text += &format!("\nBias along the gradient of the bound, in % of it, at k = {}", report.samples[index]);
        text += if known { " (exact)\n" } else { "\n" };
        let head =
            |place: &&LabPlace| place.distance.map_or("trained q".into(), |distance| format!("{distance} sd off"));
        text += &slope_row("", places.iter().map(head), "");
        for number in 0..places[0].lines.len() {
            let column = |place: &&LabPlace| place.lines[number].cells.get(index).map_or("–".into(), bias_of);
            let contestant = places[0].lines[number].contestant;
            let title = format!("{:<5}{}", contestant.bound_name(), contestant.name());
            text += &slope_row(&title, places.iter().map(column), "");
        }
    }
    text + &means(report)
}

fn bias_of(cell: &Cell) -> String {
    let Some(bias) = cell.bias else { return "–".into() };
    let percent = Uncertain { value: 100.0 * bias.value, standard_error: 100.0 * bias.standard_error };
    let measured = match percent.standard_error {
        error if error < 9.95 => plus_minus(percent, 1),
        _ => plus_minus(percent, 0),
    };
    match cell.exact_bias {
        Some(exact) if exact.abs() > 1e-4 => format!("{measured} ({:.1})", 100.0 * exact),
        Some(_) => format!("{measured} (0)"),
        None => measured,
    }
}

/// The furthest component of all means from its exact expectation, and of the biased ones from the gradient of the bound.
fn means(report: &LabReport) -> String {
    let lines = || report.places.iter().flat_map(|place| &place.lines);
    let cells = || lines().flat_map(|line| line.cells.iter().map(move |cell| (line.contestant, cell)));
    let most = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(None, |most: Option<f64>, v| Some(most.map_or(v, |m| m.max(v))))
    };
    let Some(worst) = most(&mut cells().filter_map(|(_, cell)| cell.worst)) else { return String::new() };
    let count = cells().count();
    let mut text = format!(
        "Of the means of all {count} estimates, component by component, the furthest from its exact expectation is\n{} \
         standard errors off",
        short(worst)
    );
    let biased = cells().filter(|(contestant, cell)| contestant.is_biased(cell.k));
    if let Some(far) = most(&mut biased.filter_map(|(_, cell)| cell.worst_bias)) {
        text += &format!("; of the biased ones from the gradient of the bound, {}", short(far));
    }
    text + ".\n"
}

/// What a step costs, and what that buys.
fn costs(report: &LabReport) -> String {
    let Some(first) = report.places.first() else { return String::new() };
    let unit = if report.images == 1 { ("µs", 1e3) } else { ("ms", 1.0) };
    let encoder = LabPlace {
        lines: first.lines.iter().filter(|line| line.contestant.side == super::Network::Encoder).cloned().collect(),
        ..first.clone()
    };
    let mut text = format!("\n{}", heading(&format!("{} per step", unit.0), &report.samples));
    text += &by_estimator(&encoder, |cell| short(cell.milliseconds() * unit.1));
    for place in report.places.iter().filter(|place| !place.is_posterior()) {
        text += &format!("\n{}\n", place_name(place));
        let what = format!("{} until signal = noise", unit.0);
        text += &heading(&what, &report.samples);
        let encoder = LabPlace {
            lines: place.lines.iter().filter(|line| line.contestant.side == super::Network::Encoder).cloned().collect(),
            ..place.clone()
        };
        text += &by_estimator(&encoder, |cell| cell.time_to_see().map_or("–".into(), |ms| short(ms * unit.1)));
        text += &verdict(place, unit);
    }
    text
}

/// The cheapest way to see the gradient of the ELBO, and of L_k: with one draw that is the ELBO.
fn verdict(place: &LabPlace, unit: (&str, f64)) -> String {
    let best = |bound: BoundKind| {
        let cost = |cell: &Cell| cell.time_to_see().filter(|_| bound == BoundKind::Elbo || cell.k > 1);
        let (contestant, k, ms) = place.best(bound, cost)?;
        let of = if bound == BoundKind::Elbo { "the ELBO" } else { "L_k, k > 1" };
        let cost = format!("{} {}", short(ms * unit.1), unit.0);
        Some(format!("least variance per millisecond for {of}: {}, k = {k} ({cost})\n", contestant.name()))
    };
    BOUNDS.into_iter().filter_map(best).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_in_seven_columns() {
        let values = [0.0, 1.0, 0.0123, -0.5, 12.345, 123.4, 99_999.0, 123_456.0, 1.25e-7, 9.996, 0.99951];
        let expected = ["0", "1.00", "0.0123", "-0.5000", "12.3", "123", "99999", "1.2e5", "1.2e-7", "10.0", "1.00"];
        for (value, expected) in values.into_iter().zip(expected) {
            assert_eq!(short(value), expected);
            assert!(short(value).len() <= 7);
        }
    }
}
