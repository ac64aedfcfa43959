//! The curves as a diagram: one panel per family, time against size, both logarithmic.

use super::crossover::rounded;
use super::measure::Timing;
use super::report::{BenchReport, EMULATED, FamilyReport, Row};
use super::{Crossover, Family};
use crate::study::plot::{Axis, Plot, Series};

/// Colours of the two devices, blue and orange: told apart by nearly every eye, and by their lightness in print.
const CPU: usize = 0;
const GPU: usize = 1;

/// The whole picture.
pub(super) fn plot(report: &BenchReport) -> Plot {
    let m = &report.machine;
    let gpu = match (&m.gpu, &m.no_gpu) {
        (Some(gpu), _) => format!("GPU: {}, products in {}", gpu.name, gpu.precision),
        (None, reason) => format!("GPU: not measured; {}", reason.as_deref().unwrap_or("not asked for")),
    };
    let cpu = format!("CPU: {}, threads: {}, {} · elbo {}, {}", m.cpu, m.threads, m.isa, m.version, &m.date[..10]);
    let mut plot = Plot::new("Time per step, CPU and GPU").subtitle(cpu).subtitle(gpu);
    if report.is_emulated() {
        plot = plot.subtitle(format!("GPU {EMULATED}"));
    }
    let roofs = "dotted: rooflines, what arithmetic and memory allow; bars: half the distance of the quartiles";
    report.families.iter().fold(plot.subtitle(roofs), panel)
}

/// The titles of the tables are too long here.
fn title(family: Family) -> &'static str {
    match family {
        Family::Matmul => "Matrix product (joined: n³)",
        Family::Pointwise => "Fused pointwise chain",
        Family::Reduce => "Sum of all elements",
        Family::Adam => "Adam's update",
        Family::V1 => "Training step, 784-400-20-400-784",
        Family::V2 => "Training step, 784-200-200-50-200-200-784",
    }
}

fn panel(plot: Plot, report: &FamilyReport) -> Plot {
    let sizes: Vec<f64> = report.rows.iter().filter(|r| r.on_curve).map(|r| r.size).collect();
    let plot = plot.panel(title(report.family));
    let plot = plot.x(Axis::log(report.family.unit()).ticks(&sizes)).y(Axis::log("time per step, µs"));
    let roof = |colour, value: fn(&Row) -> Option<f64>| {
        let points = report.rows.iter().filter(|r| r.on_curve).filter_map(|r| Some((r.size, 1e6 * value(r)?)));
        Series::line("").dotted().colour(colour).xy(&points.collect::<Vec<_>>())
    };
    let plot = plot.series(roof(CPU, |r| Some(r.cpu_roof))).series(roof(GPU, |r| r.gpu_roof));
    let plot = crossovers(plot, report);
    let cpu = |r: &Row| Some(r.cpu.resident);
    let gpu = |r: &Row| r.gpu.as_ref().map(|g| g.resident);
    let trip = |r: &Row| r.gpu.as_ref().and_then(|g| g.with_transfers);
    let plot = curve(plot, report, (Series::line("CPU"), Series::scatter("layers of V1")), CPU, cpu);
    let plot = curve(plot, report, (Series::line("GPU"), Series::scatter("")), GPU, gpu);
    curve(plot, report, (Series::line("with transfers").dashed(), Series::scatter("")), GPU, trip)
}

/// The medians of what is timed: of the curve joined by a line, of others beside it.
fn curve(
    plot: Plot,
    report: &FamilyReport,
    (joined, beside): (Series, Series),
    colour: usize,
    timing: impl Fn(&Row) -> Option<Timing>,
) -> Plot {
    let points = |on_curve: bool| {
        let rows = report.rows.iter().filter(move |r| r.on_curve == on_curve);
        let point = |r: &Row| timing(r).map(|t| (r.size, 1e6 * t.median, 1e6 * t.spread() * t.median));
        rows.filter_map(point).collect::<Vec<_>>()
    };
    [(joined, points(true)), (beside, points(false))].into_iter().fold(plot, |plot, (series, points)| {
        if points.is_empty() { plot } else { plot.series(series.colour(colour).points(&points)) }
    })
}

/// Lines where the GPU begins to win, without and with transfers.
fn crossovers(plot: Plot, report: &FamilyReport) -> Plot {
    let both = report.crossovers.into_iter().flatten().zip(["GPU wins", "with transfers"]);
    both.fold(plot, |plot, (crossover, words)| match crossover {
        Crossover::At { size } => plot.upright(size, format!("{words} from ≈ {}", rounded(size))),
        _ => plot,
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::example;
    use super::*;

    #[test]
    fn every_family_has_a_panel_and_every_device_a_curve() {
        for (gpu, curves) in [(false, 1), (true, 3)] {
            let svg = plot(&example(gpu, false)).svg();
            for family in Family::ALL {
                assert!(svg.contains(&title(*family).replace('&', "&amp;")), "{svg}");
            }
            // Each with its roof; the legends have lines, not polylines.
            let roofs = if gpu { 2 } else { 1 };
            assert_eq!(svg.matches("<polyline").count(), (curves + roofs) * Family::ALL.len());
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.contains("Example &amp; Sons"), gpu);
            assert_eq!(svg.contains("GPU wins from ≈ 80"), gpu);
        }
        assert!(plot(&example(true, true)).svg().contains(EMULATED));
    }
}
