//! The launches of a step on a GPU as a picture: when each is expected to run, and what it waits for.

use std::fmt::Write as _;

use super::plot::svg;
use crate::engine::device::cuda::paper::{PaperLaunch, PaperStep};

const WIDTH: f64 = 1080.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 24.0;
const HEAD: f64 = 84.0;
const ROW: f64 = 24.0;
/// Of the longest way, and of what runs beside it.
const COLOURS: [&str; 2] = ["#0060a8", "#9aa7b4"];

/// The picture as the text of an SVG file: one row per launch, time to the right, a line from the end of each launch that is
/// waited for.
pub fn svg(step: &PaperStep, title: &str) -> String {
    let end = step.launches.iter().map(|launch| launch.time.1).fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / end.max(f64::MIN_POSITIVE);
    let x = |microseconds: f64| LEFT + microseconds * scale;
    let middle = |row: usize| HEAD + ROW * (row as f64 + 0.5);
    let bottom = HEAD + ROW * step.launches.len() as f64;
    let mut out = svg::open(WIDTH, bottom + 52.0);
    svg::text(&mut out, (16.0, 28.0), "font-size=\"16\" font-weight=\"bold\"", title);
    let (major, minor) = step.capability;
    let words = format!(
        "compute capability {major}.{minor}, predicted: {} launches; the longest way has {} and takes {:.1} µs",
        step.launches.len(),
        step.way.len(),
        step.microseconds
    );
    svg::text(&mut out, (16.0, 50.0), "fill=\"#555\"", &words);
    for (colour, (at, words)) in COLOURS.iter().zip([(16.0, "on the longest way"), (190.0, "beside it")]) {
        writeln!(out, "<rect x=\"{at}\" y=\"61\" width=\"12\" height=\"10\" fill=\"{colour}\"/>").expect("a string");
        svg::text(&mut out, (at + 18.0, 70.0), "fill=\"#555\"", words);
    }
    let tick = tick(end);
    for i in 0..=(end / tick) as usize {
        let at = x(i as f64 * tick);
        svg::line(&mut out, (at, HEAD), (at, bottom), "stroke=\"#e3e6e9\"");
        svg::text(
            &mut out,
            (at, bottom + 18.0),
            "text-anchor=\"middle\" fill=\"#555\"",
            &format!("{}", i as f64 * tick),
        );
    }
    svg::text(
        &mut out,
        (WIDTH - RIGHT, bottom + 38.0),
        "text-anchor=\"end\" fill=\"#555\"",
        "µs from the begin of the step",
    );
    for (row, launch) in step.launches.iter().enumerate() {
        for &other in &launch.waits {
            let from = (x(step.launches[other].time.1), middle(other));
            wire(&mut out, from, (x(launch.time.0), middle(row)), launch.urgent && step.launches[other].urgent);
        }
    }
    for (row, launch) in step.launches.iter().enumerate() {
        bar(&mut out, launch, row, (x(launch.time.0), x(launch.time.1)), middle(row));
    }
    out + "</svg>\n"
}

fn bar(out: &mut String, launch: &PaperLaunch, row: usize, (begin, end): (f64, f64), middle: f64) {
    let colour = COLOURS[usize::from(!launch.urgent)];
    let (width, top, height) = ((end - begin).max(1.5), middle - ROW * 0.32, ROW * 0.64);
    let blocks: u32 = launch.grid.iter().product();
    writeln!(
        out,
        "<rect x=\"{begin:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" fill=\"{colour}\">\
         <title>{}: {blocks} blocks of {} threads, {:.1} KiB, {:.2} µs</title></rect>",
        launch.kernel,
        launch.threads,
        launch.bytes / 1024.0,
        launch.time.1 - launch.time.0
    )
    .expect("a string");
    let weight = if launch.urgent { "font-weight=\"bold\"" } else { "" };
    let of = if launch.for_next { " (next step)" } else { "" };
    svg::text(out, (16.0, middle + 4.0), weight, &format!("{} {}{of}", row + 1, launch.kernel));
}

fn wire(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), urgent: bool) {
    let (colour, width) = if urgent { (COLOURS[0], 1.6) } else { (COLOURS[1], 0.9) };
    let bend = ((x2 - x1) * 0.5).max(6.0);
    writeln!(
        out,
        "<path d=\"M{x1:.1} {y1:.1} C{:.1} {y1:.1} {:.1} {y2:.1} {x2:.1} {y2:.1}\" fill=\"none\" stroke=\"{colour}\" \
         stroke-width=\"{width}\"/>",
        x1 + bend,
        x2 - bend
    )
    .expect("a string");
}

/// A round number of microseconds of which 5 to 12 fit.
fn tick(end: f64) -> f64 {
    let steps = (0..).flat_map(|power| [0.1, 0.2, 0.5].map(|step| step * 10f64.powi(power)));
    steps.into_iter().find(|step| end / step <= 12.0).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!([0.7, 5.0, 12.0, 30.0, 1000.0].map(tick), [0.1, 0.5, 1.0, 5.0, 100.0]);
    }
}
