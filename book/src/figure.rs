//! Drawings in the pages: SVG whose lines and letters take their colours from the page, in light and dark.
//!
//! Coordinates have one decimal, so that a last bit of a logarithm changes no byte.

use std::fmt::Write;

/// Width, height and margins (left, right, top, bottom) of every drawing, in its own units.
const SIZE: (f64, f64) = (360.0, 240.0);
const MARGIN: (f64, f64, f64, f64) = (46.0, 12.0, 34.0, 34.0);

/// A name, whether its points are joined, and the points.
type Curve = (String, bool, Vec<(f64, f64)>);

/// A drawing of lines and dots over two axes.
pub struct Figure {
    title: String,
    x: Range,
    y: Range,
    body: Vec<Curve>,
    unsure: bool,
}

/// An axis: from, to, and the label of a place on it.
pub struct Range {
    /// Below it.
    pub name: &'static str,
    /// The first number shown.
    pub from: f64,
    /// The last number shown.
    pub to: f64,
    /// The distance of two marks.
    pub step: f64,
    /// Whether numbers are exponents of 10 (10), of 2 (2), or plain (0).
    pub base: u32,
}

impl Range {
    /// A plain axis with about five marks.
    pub fn plain(name: &'static str, from: f64, to: f64) -> Range {
        let rough = (to - from).abs().max(1e-9) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(power);
        Range { name, from, to, step, base: 0 }
    }

    fn label(&self, v: f64) -> String {
        if self.base == 0 {
            let v = if v.abs() < self.step * 1e-6 { 0.0 } else { v };
            let decimals = (-self.step.log10().floor()).max(0.0) as usize;
            return format!("{v:.decimals$}").replace('-', "−");
        }
        let exponent: String = format!("{v:.0}").chars().map(superscript).collect();
        format!("{}{exponent}", self.base)
    }
}

fn superscript(c: char) -> char {
    match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => c.to_digit(10).and_then(|d| char::from_u32(0x2070 + d)).unwrap_or(c),
    }
}

impl Figure {
    /// An empty drawing; the title is its name for those who do not see it.
    pub fn new(title: impl Into<String>, x: Range, y: Range) -> Figure {
        Figure { title: title.into(), x, y, body: Vec::new(), unsure: false }
    }

    /// A line through those points that have a place; where one has none the line has a gap.
    pub fn line(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Figure {
        self.body.push((name.into(), true, points));
        self
    }

    /// Dots.
    pub fn dots(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Figure {
        self.body.push((name.into(), false, points));
        self
    }

    /// Marks the drawing as one of rounding errors, which may differ from machine to machine.
    pub fn unsure(mut self) -> Figure {
        self.unsure = true;
        self
    }

    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let (left, right, top, bottom) = MARGIN;
        let across = (x - self.x.from) / (self.x.to - self.x.from);
        let up = (y - self.y.from) / (self.y.to - self.y.from);
        let inside = (-1e-9..=1.0 + 1e-9).contains(&across) && (-1e-9..=1.0 + 1e-9).contains(&up);
        let at = (left + across * (SIZE.0 - left - right), SIZE.1 - bottom - up * (SIZE.1 - top - bottom));
        inside.then_some(at)
    }

    /// The element, on one line.
    pub fn svg(&self) -> String {
        let class = if self.unsure { "figure unsure" } else { "figure" };
        let mut out = String::new();
        let ((w, h), (left, right, top, bottom)) = (SIZE, MARGIN);
        let title = escape(&self.title);
        write!(out, "<svg class=\"{class}\" viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{title}\">")
            .expect("memory");
        write!(
            out,
            "<rect class=\"frame\" x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\"></rect>",
            w - left - right,
            h - top - bottom
        )
        .expect("memory");
        self.axes(&mut out);
        let mut legend = left;
        for (number, (name, joined, points)) in self.body.iter().enumerate() {
            let series = number + 1;
            self.series(&mut out, series, *joined, points);
            write!(out, "<path class=\"s{series}\" d=\"M{legend:.0} {:.0}h14\"></path>", top - 14.0).expect("memory");
            text(&mut out, (legend + 18.0, top - 10.0), "start", name);
            legend += 34.0 + 6.6 * name.chars().count() as f64;
        }
        out + "</svg>"
    }

    fn axes(&self, out: &mut String) {
        let ((w, h), (left, right, top, bottom)) = (SIZE, MARGIN);
        for (axis, across) in [(&self.x, true), (&self.y, false)] {
            let first = (axis.from / axis.step - 1e-9).ceil() as i64;
            let last = (axis.to / axis.step + 1e-9).floor() as i64;
            for mark in (first..=last).map(|k| k as f64 * axis.step) {
                let at = if across { (mark, self.y.from) } else { (self.x.from, mark) };
                let Some((x, y)) = self.place(at) else { continue };
                let class = if axis.base == 0 && mark.abs() < 1e-12 { "zero" } else { "grid" };
                if across {
                    write!(out, "<path class=\"{class}\" d=\"M{x:.1} {top}V{:.0}\"></path>", h - bottom)
                        .expect("memory");
                    text(out, (x, h - bottom + 14.0), "middle", &axis.label(mark));
                } else {
                    write!(out, "<path class=\"{class}\" d=\"M{left} {y:.1}H{:.0}\"></path>", w - right)
                        .expect("memory");
                    text(out, (left - 5.0, y + 4.0), "end", &axis.label(mark));
                }
            }
        }
        text(out, (w - right, h - 6.0), "end", self.x.name);
        text(out, (4.0, top - 10.0), "start", self.y.name);
    }

    fn series(&self, out: &mut String, series: usize, joined: bool, points: &[(f64, f64)]) {
        let places: Vec<Option<(f64, f64)>> = points.iter().map(|p| self.place(*p)).collect();
        if joined {
            let mut d = String::new();
            for (i, place) in places.iter().enumerate() {
                let Some((x, y)) = place else { continue };
                let pen = if i > 0 && places[i - 1].is_some() { 'L' } else { 'M' };
                write!(d, "{pen}{x:.1} {y:.1}").expect("memory");
            }
            write!(out, "<path class=\"s{series}\" d=\"{d}\"></path>").expect("memory");
        } else {
            for (x, y) in places.into_iter().flatten() {
                write!(out, "<circle class=\"d{series}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"></circle>")
                    .expect("memory");
            }
        }
    }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = escape(words);
    write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>").expect("memory");
}

/// Words as HTML has them.
pub fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_without_a_place_leave_a_gap() {
        let figure = Figure::new("a < b", Range::plain("x", 0.0, 4.0), Range::plain("y", -1.0, 1.0));
        let svg = figure.line("f", vec![(0.0, 0.0), (1.0, f64::NAN), (2.0, 0.5), (3.0, 9.0), (4.0, 1.0)]).svg();
        let line = svg.split("class=\"s1\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((line.matches('M').count(), line.matches('L').count()), (3, 0), "{line}");
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN") && !svg.contains('\n'));
    }

    #[test]
    fn marks_are_round_numbers() {
        let axis = Range::plain("x", -3.0, 3.0);
        assert_eq!((axis.step, axis.label(-2.0)), (2.0, "−2".to_string()));
        assert_eq!(Range { base: 10, ..axis }.label(-12.0), "10⁻¹²");
    }
}
