//! A derivation drawn: the graph with the value and the cotangent of every node.

use std::fmt::Write as _;

use super::layout::Wire;
use super::record::{Derivation, TapeNode};
use super::text::two;
use crate::study::plot::svg;

const MONO: &str = "font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\"";
/// The size of the letters, and how many of them fit into a box.
const SIZE: f64 = 12.0;
const LETTERS: usize = 24;
/// Above the graph.
const HEAD: f64 = 74.0;
/// A line of the table below it, and its least width.
const LINE: f64 = 20.0;
const LEAST_WIDTH: f64 = 720.0;

impl Derivation {
    /// The picture as the text of an SVG file: leaves above, y below; beneath each value its cotangent; under the graph the
    /// gradients beside the differences.
    pub fn svg(&self) -> String {
        let width = self.drawing.width.max(LEAST_WIDTH).max(svg::width(&self.title, 17.0) + 60.0).ceil();
        let left = ((width - self.drawing.width) / 2.0).round();
        let table = HEAD + self.drawing.height + 24.0;
        let height = table + (self.leaves.len() as f64 + 1.5) * LINE;
        let mut out = svg::open(width, height.ceil());
        svg::text(&mut out, (16.0, 30.0), "font-size=\"17\" font-weight=\"bold\"", &format!("y = {}", self.title));
        let legend = "Each box: what it computes, its value, and d = ∂y/∂(it), which the walk back from y brings.";
        svg::text(&mut out, (16.0, 52.0), "fill=\"#555\"", legend);
        for wire in &self.drawing.wires {
            out += &curve(wire, (left, HEAD));
        }
        for node in &self.nodes {
            self.node(&mut out, node, (left, HEAD));
        }
        self.gradients(&mut out, table);
        out + "</svg>\n"
    }

    fn node(&self, out: &mut String, node: &TapeNode, (left, top): (f64, f64)) {
        let ([x, y], [w, h]) = (self.drawing.corners[node.id], self.drawing.size);
        let (x, y) = (x + left, y + top);
        let (fill, stroke) = if node.leaf { ("#e8f1fa", "#0060a8") } else { ("#f6f7f8", "#667") };
        writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w}\" height=\"{h}\" rx=\"7\" fill=\"{fill}\" stroke=\"{stroke}\"/>"
        )
        .expect("a string");
        let what = if node.leaf { node.name.clone() } else { format!("{} = {}", node.name, node.text) };
        let mut line = |row: f64, style: &str, words: &str| {
            let place = (x + 9.0, y + 18.0 + 19.0 * row);
            svg::text(out, place, &format!("{MONO} font-size=\"{SIZE}\" {style}"), &clip(words));
        };
        line(0.0, "font-weight=\"bold\"", &what);
        line(1.0, "", &format!("= {}", node.value.short()));
        if let Some(step) = self.step_of(node.id) {
            line(2.0, "fill=\"#a84300\"", &format!("d {}", step.cotangent.short()));
        }
    }

    fn gradients(&self, out: &mut String, top: f64) {
        let names = self.leaves.iter().map(|leaf| svg::width(&leaf.name, SIZE)).fold(60.0, f64::max);
        let columns = [16.0, 16.0 + names + 20.0, 16.0 + names + 310.0, 16.0 + names + 600.0];
        let mut row = |i: usize, style: &str, cells: [&str; 3]| {
            for (x, cell) in columns.iter().zip(cells) {
                svg::text(out, (*x, top + i as f64 * LINE), style, cell);
            }
        };
        row(0, "fill=\"#555\"", ["leaf", "gradient by the walk", "relative error against central differences"]);
        for (i, leaf) in self.leaves.iter().enumerate() {
            let error = format!("{}, h = {:.0e}", two(leaf.error), leaf.step);
            let style = format!("{MONO} font-size=\"{SIZE}\"");
            row(i + 1, &style, [&leaf.name, &leaf.gradient.short(), &error]);
        }
    }
}

fn clip(words: &str) -> String {
    if words.chars().count() <= LETTERS {
        return words.into();
    }
    words.chars().take(LETTERS - 1).chain(['…']).collect()
}

/// A line that leaves and arrives upright.
fn curve(wire: &Wire, (left, top): (f64, f64)) -> String {
    let at = |p: &[f64; 2]| (p[0] + left, p[1] + top);
    let (x, y) = at(&wire.points[0]);
    let mut path = format!("M{x:.1} {y:.1}");
    for pair in wire.points.windows(2) {
        let ((x0, y0), (x1, y1)) = (at(&pair[0]), at(&pair[1]));
        let half = (y0 + y1) / 2.0;
        write!(path, " C{x0:.1} {half:.1} {x1:.1} {half:.1} {x1:.1} {y1:.1}").expect("a string");
    }
    format!("<path d=\"{path}\" fill=\"none\" stroke=\"#889\" stroke-width=\"1.2\"/>\n")
}

#[cfg(test)]
mod tests {
    use super::super::Subject;

    #[test]
    fn the_picture_has_every_value_and_cotangent_and_its_text_fits() {
        let d = Subject::find("vae", "").unwrap().derivation(1);
        let svg = d.svg();
        assert_eq!(svg.matches("<rect").count(), d.nodes.len() + 1);
        assert_eq!(svg.matches(">d ").count(), d.steps.len());
        let bold = svg.lines().filter(|line| line.contains("font-weight=\"bold\"") && line.contains("Mono"));
        assert_eq!(bold.count(), d.nodes.len());
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }
}
