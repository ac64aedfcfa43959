//! One panel: a frame with axes, its series inside, the legend above it and the names of reference lines at its right.

use std::fmt::Write;

use super::axis::{Axis, Scale};
use super::series::Series;
use super::svg::{self, INK, Pixel, SvgShape, line, marker, polygon, polyline, text};
use super::{ORDER, PALETTE};

/// Width and height of a frame, in pixels.
pub(crate) const FRAME: (f64, f64) = (380.0, 260.0);
/// Room at the left of a frame for numbers and label, and below it.
pub(crate) const LEFT: f64 = 82.0;
pub(crate) const BOTTOM: f64 = 52.0;
/// Height of the panel's title, and of a line of its legend.
pub(crate) const TITLE: f64 = 24.0;
const LEGEND: f64 = 18.0;
/// Size of the names of reference lines, their widest line, and the distance of lines.
const SMALL: f64 = 11.0;
const WIDEST: f64 = 150.0;
const LINE: f64 = 13.0;
/// Half the width of a marker, and of a dot of a scatter.
const MARKER: f64 = 4.0;
const DOT: f64 = 2.6;

/// Axes, series and reference lines that belong together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
    pub(crate) references: Vec<(f64, String)>,
    pub(crate) uprights: Vec<(f64, String)>,
}

/// Colour, form of the marker, of series number `index` of a panel.
fn look(series: &Series, index: usize) -> (String, SvgShape) {
    let index = series.colour.unwrap_or(index);
    let [r, g, b] = PALETTE[ORDER[index % ORDER.len()]];
    (format!("#{r:02x}{g:02x}{b:02x}"), SvgShape::ALL[index % SvgShape::ALL.len()])
}

impl Panel {
    pub(crate) fn new(title: String) -> Panel {
        let (x, y) = (Axis::linear(""), Axis::linear(""));
        Panel { title, x, y, series: Vec::new(), references: Vec::new(), uprights: Vec::new() }
    }

    /// The room above the frame: title and legend.
    pub(crate) fn head(&self) -> f64 {
        let title = if self.title.is_empty() { 0.0 } else { TITLE };
        title + LEGEND * self.legend_rows().len() as f64 + 8.0
    }

    /// The room at the right of the frame, for the names of the reference lines.
    pub(crate) fn right(&self) -> f64 {
        let lines = self.references.iter().flat_map(|(_, label)| svg::wrapped(label, SMALL, WIDEST));
        lines.map(|l| svg::width(&l, SMALL) + 16.0).fold(26.0, f64::max)
    }

    /// The panel, its upper left corner at (x, y), `head` pixels of it above the frame.
    pub(crate) fn draw(&self, out: &mut String, (left, top): Pixel, head: f64, clip: usize) {
        let frame = [(left + LEFT, top + head), (left + LEFT + FRAME.0, top + head + FRAME.1)];
        let scales = self.scales(frame);
        if !self.title.is_empty() {
            text(out, (left + LEFT - 40.0, top + 15.0), "font-size=\"13\" font-weight=\"bold\"", &self.title);
        }
        self.legend(out, (left + LEFT, top + head - 8.0));
        self.axes(out, &scales, frame);
        // Markers at the frame's edge stay whole.
        let [(x0, y0), (x1, y1)] = frame;
        let (x, y, w, h) = (x0 - 6.0, y0 - 6.0, x1 - x0 + 12.0, y1 - y0 + 12.0);
        writeln!(out, "<clipPath id=\"frame{clip}\"><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w}\" height=\"{h}\"/></clipPath>\n<g clip-path=\"url(#frame{clip})\">").expect("a string");
        self.lines(out, &scales, frame);
        for (i, series) in self.series.iter().enumerate() {
            self.draw_series(out, series, i, &scales);
        }
        out.push_str("</g>\n");
        self.reference_labels(out, &scales.1, frame);
    }

    /// The reference lines, and the names of those that stand: the first one's at its left, the second one's at its right.
    fn lines(&self, out: &mut String, (xs, ys): &(Scale, Scale), [(left, top), (right, bottom)]: [Pixel; 2]) {
        for (value, _) in self.references.iter().filter(|(v, _)| self.y.shows(*v)) {
            let y = ys.at(*value);
            line(out, (left, y), (right, y), "stroke=\"#555\" stroke-width=\"1.3\" stroke-dasharray=\"6 4\"");
        }
        let shown = self.uprights.iter().filter(|(v, _)| self.x.shows(*v) && xs.holds(*v));
        for ((value, label), beside) in shown.zip([-5.0, 12.0].into_iter().cycle()) {
            let x = xs.at(*value);
            line(out, (x, top), (x, bottom), "stroke=\"#999\" stroke-dasharray=\"6 4\"");
            let style = format!("text-anchor=\"end\" font-size=\"{SMALL}\" fill=\"#555\"");
            svg::text_upwards(out, (x + beside, top + 4.0), &style, label);
        }
    }

    /// Axes that hold every point that has a place, its error, and every reference line.
    fn scales(&self, [(left, top), (right, bottom)]: [Pixel; 2]) -> (Scale, Scale) {
        let points = || self.series.iter().flat_map(|s| &s.points).filter(|p| self.shown(p));
        let xs = self.x.place(points().map(|p| p.0), (left, right));
        let ends = |&(_, y, error): &(f64, f64, f64)| [y, y - error, y + error];
        let values = points().flat_map(ends).chain(self.references.iter().map(|r| r.0));
        (xs, self.y.place(values, (bottom, top)))
    }

    fn shown(&self, &(x, y, _): &(f64, f64, f64)) -> bool {
        self.x.shows(x) && self.y.shows(y)
    }

    fn axes(&self, out: &mut String, (xs, ys): &(Scale, Scale), [(left, top), (right, bottom)]: [Pixel; 2]) {
        let grid = |named: bool| if named { "stroke=\"#ddd\"" } else { "stroke=\"#f2f2f2\"" };
        let ink = format!("stroke=\"{INK}\"");
        for mark in self.x.marks(xs, 52.0) {
            let x = xs.at(mark.value);
            line(out, (x, top), (x, bottom), grid(mark.label.is_some()));
            if let Some(label) = mark.label {
                line(out, (x, bottom), (x, bottom + 5.0), &ink);
                text(out, (x, bottom + 19.0), "text-anchor=\"middle\"", &label);
            }
        }
        for mark in self.y.marks(ys, 38.0) {
            let y = ys.at(mark.value);
            line(out, (left, y), (right, y), grid(mark.label.is_some()));
            if let Some(label) = mark.label {
                line(out, (left - 5.0, y), (left, y), &ink);
                text(out, (left - 9.0, y + 4.0), "text-anchor=\"end\"", &label);
            }
        }
        line(out, (left, top), (left, bottom), &ink);
        line(out, (left, bottom), (right, bottom), &ink);
        text(out, ((left + right) / 2.0, bottom + 40.0), "text-anchor=\"middle\"", self.x.label());
        svg::text_upwards(out, (left - 64.0, (top + bottom) / 2.0), "text-anchor=\"middle\"", self.y.label());
    }

    fn draw_series(&self, out: &mut String, series: &Series, index: usize, (xs, ys): &(Scale, Scale)) {
        let (colour, shape) = look(series, index);
        // Ends of bars below a logarithmic axis lie at its edge.
        let low = |y: f64| ys.clamped(if self.y.shows(y) { y } else { ys.from });
        let bars = |e: f64| e > 0.0 && e.is_finite();
        for run in series.points.split(|p| !self.shown(p)).filter(|run| series.joined && !run.is_empty()) {
            if series.band {
                let upper = run.iter().map(|&(x, y, e)| (xs.at(x), ys.clamped(y + if bars(e) { e } else { 0.0 })));
                let lower = run.iter().rev().map(|&(x, y, e)| (xs.at(x), low(y - if bars(e) { e } else { 0.0 })));
                let style = format!("fill=\"{colour}\" fill-opacity=\"0.2\"");
                polygon(out, &upper.chain(lower).collect::<Vec<_>>(), &style);
            }
            let points: Vec<Pixel> = run.iter().map(|&(x, y, _)| (xs.at(x), ys.at(y))).collect();
            polyline(out, &points, &stroke(series, &colour));
        }
        for &(x, y, error) in series.points.iter().filter(|p| self.shown(p)) {
            let place = (xs.at(x), ys.at(y));
            if bars(error) && !series.band {
                let (top, bottom) = (ys.clamped(y + error), low(y - error));
                let style = format!("stroke=\"{colour}\" stroke-width=\"1.3\"");
                line(out, (place.0, top), (place.0, bottom), &style);
                for end in [top, bottom] {
                    line(out, (place.0 - 3.0, end), (place.0 + 3.0, end), &style);
                }
            }
            if series.markers {
                mark(out, place, series, &colour, shape);
            }
        }
    }

    /// The names of the series, in rows as wide as the frame. Without names there are none.
    fn legend_rows(&self) -> Vec<Vec<(usize, &Series, f64)>> {
        let mut rows: Vec<Vec<(usize, &Series, f64)>> = Vec::new();
        let mut end = f64::INFINITY;
        for (i, series) in self.series.iter().enumerate().filter(|(_, s)| !s.name.is_empty()) {
            let width = 52.0 + svg::width(&series.name, 12.0);
            if end + width > FRAME.0 + 20.0 {
                rows.push(Vec::new());
                end = 0.0;
            }
            rows.last_mut().expect("a row").push((i, series, end));
            end += width;
        }
        rows
    }

    /// The legend, whose last row ends at `bottom`: above the frame it can cover nothing.
    fn legend(&self, out: &mut String, (left, bottom): Pixel) {
        let rows = self.legend_rows();
        for (r, row) in rows.iter().enumerate() {
            let y = bottom - LEGEND * (rows.len() - r) as f64 + 10.0;
            for &(i, series, start) in row {
                let (colour, shape) = look(series, i);
                let x = left + start;
                if series.joined {
                    line(out, (x, y), (x + 28.0, y), &stroke(series, &colour));
                }
                if series.markers {
                    mark(out, (x + 14.0, y), series, &colour, shape);
                }
                text(out, (x + 34.0, y + 4.0), "", &series.name);
            }
        }
    }

    /// The names of the reference lines beside them, moved apart where lines are close.
    fn reference_labels(&self, out: &mut String, ys: &Scale, [(_, top), (right, bottom)]: [Pixel; 2]) {
        let shown = self.references.iter().filter(|(v, _)| self.y.shows(*v) && ys.holds(*v));
        let mut labels: Vec<(f64, Vec<String>)> =
            shown.map(|(v, label)| (ys.at(*v), svg::wrapped(label, SMALL, WIDEST))).collect();
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Downwards, each below the one before; then upwards from the bottom, which has an end.
        let height = |lines: &[String]| LINE * lines.len() as f64;
        let mut free = top - 20.0;
        for (y, lines) in &mut labels {
            *y = (*y - height(lines) / 2.0).max(free);
            free = *y + height(lines);
        }
        let mut free = bottom + 20.0;
        for (y, lines) in labels.iter_mut().rev() {
            *y = y.min(free - height(lines));
            free = *y;
        }
        for (y, lines) in labels {
            for (i, words) in lines.iter().enumerate() {
                let at = (right + 7.0, y + LINE * i as f64 + 10.0);
                text(out, at, &format!("font-size=\"{SMALL}\" fill=\"#555\""), words);
            }
        }
    }
}

fn stroke(series: &Series, colour: &str) -> String {
    let line = match (series.dotted, series.dashed) {
        (true, _) => "stroke-width=\"1.2\" stroke-dasharray=\"1.5 3\"",
        (false, true) => "stroke-width=\"2\" stroke-dasharray=\"7 4\"",
        (false, false) => "stroke-width=\"2\"",
    };
    format!("fill=\"none\" stroke=\"{colour}\" {line}")
}

fn mark(out: &mut String, at: Pixel, series: &Series, colour: &str, shape: SvgShape) {
    match (series.joined, series.dashed) {
        (false, _) => marker(out, at, shape, DOT, &format!("fill=\"{colour}\" fill-opacity=\"0.7\"")),
        // Dashed lines have hollow markers.
        (true, true) => {
            marker(out, at, shape, MARKER, &format!("fill=\"#fff\" stroke=\"{colour}\" stroke-width=\"1.6\""));
        }
        (true, false) => marker(out, at, shape, MARKER, &format!("fill=\"{colour}\"")),
    }
}
