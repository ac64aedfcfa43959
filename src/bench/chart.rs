//! The curves as an SVG: one panel per family, time against size, both logarithmic.

use super::crossover::rounded;
use super::report::{EMULATED, FamilyReport, Report, Row, time};
use super::{Crossover, Family};
use crate::study::plot::svg::{self, INK, Place, Shape, line, polyline, text, text_upwards};
use crate::study::plot::{Scale, power_of_ten};

const PANEL: (f64, f64) = (400.0, 330.0);
const COLUMNS: usize = 3;
/// Above the panels: title, two lines about the machine, legend.
const HEAD: f64 = 118.0;
/// Room inside a panel around its plot: left, right, top, bottom.
const ROOM: (f64, f64, f64, f64) = (66.0, 20.0, 34.0, 52.0);

/// Blue and orange are told apart by nearly every eye, and by their lightness in print.
const CPU: &str = "#0b559f";
const GPU: &str = "#d95f02";
/// Of the rooflines.
const DOTS: &str = "stroke-dasharray=\"1.5 3\" stroke-width=\"1.2\"";

/// A curve: what of a row it shows.
struct Series {
    name: &'static str,
    colour: &'static str,
    dashes: &'static str,
    /// The inside of its markers.
    fill: &'static str,
    value: fn(&Row) -> Option<[f64; 3]>,
}

/// (median, fastest, slowest) of each curve.
const SERIES: [Series; 3] = [
    Series {
        name: "CPU",
        colour: CPU,
        dashes: "",
        fill: CPU,
        value: |r| Some([r.cpu.resident.median, r.cpu.resident.min, r.cpu.resident.max]),
    },
    Series {
        name: "GPU, data on the device",
        colour: GPU,
        dashes: "",
        fill: GPU,
        value: |r| r.gpu.as_ref().map(|g| [g.resident.median, g.resident.min, g.resident.max]),
    },
    Series {
        name: "GPU, with transfers",
        colour: GPU,
        dashes: "7 4",
        fill: "#fff",
        value: |r| r.gpu.as_ref().and_then(|g| g.with_transfers).map(|t| [t.median, t.min, t.max]),
    },
];

/// The whole picture.
pub(super) fn svg(report: &Report) -> String {
    let columns = report.families.len().clamp(1, COLUMNS);
    let (width, height) = (
        (PANEL.0 * columns as f64).max(2.0 * PANEL.0),
        HEAD + PANEL.1 * report.families.len().div_ceil(columns) as f64,
    );
    let mut out = svg::open(width, height);
    head(&mut out, report);
    for (i, family) in report.families.iter().enumerate() {
        let origin = (PANEL.0 * (i % columns) as f64, HEAD + PANEL.1 * (i / columns) as f64);
        panel(&mut out, family, origin);
    }
    out + "</svg>\n"
}

fn head(out: &mut String, report: &Report) {
    let m = &report.machine;
    text(out, (22.0, 30.0), "font-size=\"18\" font-weight=\"bold\"", "Time per step, CPU and GPU");
    let cpu = format!("CPU: {}, threads: {}, {}", m.cpu, m.threads, m.isa);
    let gpu = match (&m.gpu, &m.no_gpu) {
        (Some(gpu), _) => format!("GPU: {}, products in {}", gpu.name, gpu.precision),
        // The reason may be long; the table has it in full.
        (None, reason) => format!("GPU: not measured; {}", clipped(reason.as_deref().unwrap_or("not asked for"), 90)),
    };
    text(out, (22.0, 52.0), "", &format!("{cpu} · elbo {}, {}", m.version, &m.date[..10]));
    text(out, (22.0, 70.0), "", &gpu);
    if report.is_emulated() {
        let style = "font-size=\"18\" font-weight=\"bold\" fill=\"#c00\"";
        text(out, (330.0, 30.0), style, &format!("GPU {EMULATED}"));
    }
    legend(out, m.gpu.is_some());
}

fn clipped(words: &str, most: usize) -> String {
    match words.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.into(),
    }
}

fn legend(out: &mut String, gpu: bool) {
    let y = 96.0;
    let mut x = 22.0;
    for s in if gpu { &SERIES[..] } else { &SERIES[..1] } {
        line(out, (x, y), (x + 34.0, y), &stroke(s));
        marker(out, (x + 17.0, y), s);
        text(out, (x + 42.0, y + 4.0), "", s.name);
        x += 66.0 + 7.2 * s.name.len() as f64;
    }
    line(out, (x, y), (x + 34.0, y), &format!("stroke=\"{INK}\" {DOTS}"));
    text(out, (x + 42.0, y + 4.0), "", "roofline: what arithmetic and memory allow");
}

fn stroke(s: &Series) -> String {
    format!("fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"", s.colour, s.dashes)
}

fn marker(out: &mut String, at: Place, s: &Series) {
    let style = format!("fill=\"{}\" stroke=\"{}\" stroke-width=\"1.6\"", s.fill, s.colour);
    svg::marker(out, at, Shape::Circle, 3.6, &style);
}

fn panel(out: &mut String, report: &FamilyReport, (x0, y0): (f64, f64)) {
    let (left, right, top, bottom) = ROOM;
    let frame = [(x0 + left, y0 + top), (x0 + PANEL.0 - right, y0 + PANEL.1 - bottom)];
    let (xs, ys) = axes(report, frame);
    text(out, (x0 + left - 44.0, y0 + 20.0), "font-weight=\"bold\"", short_title(report.family));
    vertical_axis(out, &ys, frame);
    horizontal_axis(out, report, &xs, frame);
    crossover(out, report, &xs, frame);
    roofs(out, report, &xs, &ys);
    for s in &SERIES {
        curve(out, report, s, &xs, &ys);
    }
}

/// The titles of the tables are too long here.
fn short_title(family: Family) -> &'static str {
    match family {
        Family::Matmul => "Matrix product (○ n³; ◇ layers of V1)",
        Family::Pointwise => "Fused pointwise chain",
        Family::Reduce => "Sum of all elements",
        Family::Adam => "Adam's update",
        Family::V1 => "Training step, 784-400-20-400-784",
        Family::V2 => "Training step, 784-200-200-50-200-200-784",
    }
}

/// Axes that show every point; times from a power of ten to another.
fn axes(report: &FamilyReport, [(left, top), (right, bottom)]: [(f64, f64); 2]) -> (Scale, Scale) {
    let extremes = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, 0.0f64), |(least, most), v| (least.min(v), most.max(v)))
    };
    let rows = &report.rows;
    let (least, most) = extremes(&mut rows.iter().map(|r| r.size));
    let xs = Scale::log(least / 1.25, most * 1.25, (left, right));
    let times = |r: &Row| {
        let measured = SERIES.iter().filter_map(|s| (s.value)(r)).flatten().collect::<Vec<f64>>();
        measured.into_iter().chain([r.cpu_roof]).chain(r.gpu_roof)
    };
    let (least, most) = extremes(&mut rows.iter().flat_map(times));
    let decade = |v: f64| 10f64.powf(v);
    let (from, to) = (decade(least.log10().floor()), decade(most.log10().ceil()));
    (xs, Scale::log(from, to.max(10.0 * from), (bottom, top)))
}

fn vertical_axis(out: &mut String, ys: &Scale, [(left, top), (right, bottom)]: [(f64, f64); 2]) {
    let (first, last) = (ys.from.log10().round() as i32, ys.to.log10().round() as i32);
    for power in first..=last {
        let decade = 10f64.powi(power);
        let y = ys.at(decade);
        line(out, (left, y), (right, y), "stroke=\"#ccc\"");
        text(out, (left - 7.0, y + 4.0), "text-anchor=\"end\"", &round_time(decade));
        for step in (2..10).filter(|_| power < last && last - first <= 4) {
            let y = ys.at(f64::from(step) * decade);
            line(out, (left, y), (right, y), "stroke=\"#f0f0f0\"");
        }
    }
    line(out, (left, top), (left, bottom), &format!("stroke=\"{INK}\""));
    text_upwards(out, (left - 52.0, (top + bottom) / 2.0), "time per step");
}

/// `10 µs`: of powers of ten the digits after the point say nothing.
fn round_time(seconds: f64) -> String {
    time(seconds).replace(".00", "").replace(".0", "")
}

fn horizontal_axis(out: &mut String, report: &FamilyReport, xs: &Scale, [(left, _), (right, bottom)]: [(f64, f64); 2]) {
    line(out, (left, bottom), (right, bottom), &format!("stroke=\"{INK}\""));
    for row in report.rows.iter().filter(|r| r.on_curve) {
        let x = xs.at(row.size);
        line(out, (x, bottom), (x, bottom + 5.0), &format!("stroke=\"{INK}\""));
        text(out, (x, bottom + 19.0), "text-anchor=\"middle\"", &size(row.size));
    }
    text(out, ((left + right) / 2.0, bottom + 40.0), "text-anchor=\"middle\"", report.family.unit());
}

/// 8192, but 10⁷.
fn size(n: f64) -> String {
    let power = n.log10().round();
    if n < 1e3 || (10f64.powf(power) - n).abs() > 0.5 {
        return n.to_string();
    }
    power_of_ten(power as i32)
}

/// Lines where the GPU begins to win, without and with transfers.
fn crossover(out: &mut String, report: &FamilyReport, xs: &Scale, [(_, top), (_, bottom)]: [(f64, f64); 2]) {
    let Some(both) = report.crossovers else { return };
    // The words stand at the outer sides of the two lines and at the top: curves rise to the right, far from there.
    let lines = [("", "GPU wins", -4.0), ("7 4", "with transfers", 11.0)];
    for (c, (dashes, words, beside)) in both.into_iter().zip(lines) {
        if let Crossover::At { size } = c {
            let x = xs.at(size);
            let style = format!("stroke=\"{GPU}\" stroke-opacity=\"0.45\" stroke-dasharray=\"{dashes}\"");
            line(out, (x, top), (x, bottom), &style);
            let (x, y) = (x + beside, top + 4.0);
            let turned = format!("text-anchor=\"end\" transform=\"rotate(-90 {x:.1} {y:.1})\"");
            let style = format!("fill=\"{GPU}\" font-size=\"10\" {turned}");
            text(out, (x, y), &style, &format!("{words} from ≈ {}", rounded(size)));
        }
    }
}

fn points<'a>(
    report: &'a FamilyReport,
    value: impl Fn(&Row) -> Option<f64> + 'a,
    xs: &'a Scale,
    ys: &'a Scale,
) -> Vec<Place> {
    let curve = report.rows.iter().filter(|r| r.on_curve);
    curve.filter_map(|r| value(r).map(|v| (xs.at(r.size), ys.at(v)))).collect()
}

fn roofs(out: &mut String, report: &FamilyReport, xs: &Scale, ys: &Scale) {
    let lines = [(CPU, points(report, |r| Some(r.cpu_roof), xs, ys)), (GPU, points(report, |r| r.gpu_roof, xs, ys))];
    for (colour, points) in lines {
        let dots = format!("fill=\"none\" stroke=\"{colour}\" {DOTS}");
        polyline(out, &points, &dots);
    }
}

/// The medians with a line through those of the curve, and bars from the fastest to the slowest.
fn curve(out: &mut String, report: &FamilyReport, s: &Series, xs: &Scale, ys: &Scale) {
    let medians = points(report, |r| (s.value)(r).map(|v| v[0]), xs, ys);
    polyline(out, &medians, &stroke(s));
    for row in &report.rows {
        let Some([median, least, most]) = (s.value)(row) else { continue };
        let (x, y) = (xs.at(row.size), ys.at(median));
        line(out, (x, ys.at(least)), (x, ys.at(most)), &format!("stroke=\"{}\" stroke-width=\"1.2\"", s.colour));
        match row.on_curve {
            true => marker(out, (x, y), s),
            false => diamond(out, (x, y), s),
        }
    }
}

fn diamond(out: &mut String, at: Place, s: &Series) {
    svg::marker(out, at, Shape::Diamond, 3.6, &format!("fill=\"#fff\" stroke=\"{}\"", s.colour));
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::example;
    use super::*;

    #[test]
    fn every_family_has_a_panel_and_every_device_a_curve() {
        for (gpu, lines) in [(false, 1), (true, 3)] {
            let svg = svg(&example(gpu, false));
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            let titled = Family::ALL.iter().filter(|f| svg.contains(&short_title(**f).replace('&', "&amp;")));
            assert_eq!(titled.count(), Family::ALL.len());
            let full =
                svg.lines().filter(|l| l.starts_with("<polyline points=\"1") || l.starts_with("<polyline points=\"4"));
            assert!(full.count() >= lines, "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.contains("Example &amp; Sons"), gpu);
        }
        assert!(svg(&example(true, true)).contains(EMULATED));
    }

    #[test]
    fn sizes_and_times_are_round() {
        assert_eq!([size(64.0), size(1e4), size(8192.0), size(1e3)], ["64", "10⁴", "8192", "10³"]);
        assert_eq!([1e-7, 1e-6, 1e-2, 1.0].map(round_time), ["100 ns", "1 µs", "10 ms", "1 s"]);
    }
}
