//! Diagrams as SVG: lines with errors and dots over linear or logarithmic axes, in one or several panels.
//!
//! ```
//! use elbo::study::plot::{Axis, Plot, Series};
//!
//! let bound = [(1.0, 104.9, 0.3), (10.0, 101.2, 0.2), (100.0, 99.8, 0.2)];
//! let svg = Plot::new("How tight the bound is")
//!     .subtitle("built-in digits, seed 1")
//!     .x(Axis::log("samples k"))
//!     .y(Axis::linear("nats per image"))
//!     .series(Series::line("IWAE").points(&bound))
//!     .reference(99.1, "−log p(x), quadrature")
//!     .svg();
//! assert!(svg.starts_with("<svg") && svg.contains("−log p(x), quadrature"));
//! ```
//!
//! [`Plot::panel`] begins a further panel; what follows belongs to it. A legend stands above its frame and the names of
//! reference lines stand at its right, so that neither can cover data. Equal input gives equal bytes.

mod axis;
mod panel;
mod series;
pub(crate) mod svg;

use std::io::Write;
use std::path::Path;

pub use axis::Axis;
pub use series::Series;

use crate::engine::error::Result;
use crate::engine::file;
use panel::{BOTTOM, FRAME, LEFT, Panel};

/// Ten colours (red, green, blue) that people with any of the usual forms of colour blindness tell apart as well as ten
/// can be told: the palette of Okabe & Ito (2008), its black as the second, and darker tones of Paul Tol's as the last
/// three.
pub const PALETTE: [[u8; 3]; 10] = [
    [0, 114, 178],
    [30, 30, 30],
    [230, 159, 0],
    [0, 158, 115],
    [204, 121, 167],
    [213, 94, 0],
    [86, 180, 233],
    [136, 34, 85],
    [153, 153, 51],
    [128, 100, 200],
];

/// The palette in the order in which series take from it: first those that differ most in lightness too.
const ORDER: [usize; 10] = [0, 5, 3, 4, 2, 1, 6, 7, 8, 9];

/// Left and right of the whole picture.
const SIDE: f64 = 14.0;
const TITLE_SIZE: f64 = 18.0;

/// A diagram under construction; every method returns it with something added.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    title: String,
    subtitles: Vec<String>,
    columns: usize,
    panels: Vec<Panel>,
}

impl Plot {
    /// An empty diagram.
    pub fn new(title: impl Into<String>) -> Plot {
        Plot { title: title.into(), subtitles: Vec::new(), columns: 3, panels: Vec::new() }
    }

    /// Adds a line below the title. A line wider than the picture is wrapped.
    #[must_use]
    pub fn subtitle(mut self, line: impl Into<String>) -> Plot {
        self.subtitles.push(line.into());
        self
    }

    /// Puts at most `columns` panels side by side; 3 if it is not said.
    #[must_use]
    pub fn columns(mut self, columns: usize) -> Plot {
        self.columns = columns.max(1);
        self
    }

    /// Begins a panel. A diagram of a single panel needs none: what is said before the first one belongs to a panel
    /// without a title.
    #[must_use]
    pub fn panel(mut self, title: impl Into<String>) -> Plot {
        self.panels.push(Panel::new(title.into()));
        self
    }

    fn last(&mut self) -> &mut Panel {
        if self.panels.is_empty() {
            self.panels.push(Panel::new(String::new()));
        }
        self.panels.last_mut().expect("a panel")
    }

    /// The horizontal axis of the panel.
    #[must_use]
    pub fn x(mut self, axis: Axis) -> Plot {
        self.last().x = axis;
        self
    }

    /// The vertical axis of the panel.
    #[must_use]
    pub fn y(mut self, axis: Axis) -> Plot {
        self.last().y = axis;
        self
    }

    /// Adds points to the panel.
    #[must_use]
    pub fn series(mut self, series: Series) -> Plot {
        self.last().series.push(series);
        self
    }

    /// Adds a dashed horizontal line at `value` to the panel, with `label` at its right end. The axis reaches to it.
    #[must_use]
    pub fn reference(mut self, value: f64, label: impl Into<String>) -> Plot {
        self.last().references.push((value, label.into()));
        self
    }

    /// Adds a dashed vertical line at `value` to the panel, with `label` along its upper end; the second one's stands at its
    /// other side.
    #[must_use]
    pub fn upright(mut self, value: f64, label: impl Into<String>) -> Plot {
        self.last().uprights.push((value, label.into()));
        self
    }

    /// The picture as the text of an SVG file.
    pub fn svg(&self) -> String {
        let columns = self.columns.min(self.panels.len()).max(1);
        // Panels of a column share their right margin, panels of a row the height of their heads.
        let most = |panels: &mut dyn Iterator<Item = f64>| panels.fold(0.0, f64::max);
        let column = |c: usize| {
            let right = most(&mut self.panels.iter().skip(c).step_by(columns).map(Panel::right));
            LEFT + FRAME.0 + right
        };
        let lefts: Vec<f64> = (0..=columns).map(|c| SIDE + (0..c).map(column).sum::<f64>()).collect();
        let title = svg::width(&self.title, TITLE_SIZE) * 1.08;
        let width = (lefts[columns].max(title + SIDE) + SIDE).ceil();
        let mut body = String::new();
        let mut top = self.titles(&mut body, width);
        for (r, row) in self.panels.chunks(columns).enumerate() {
            let head = most(&mut row.iter().map(Panel::head));
            for (c, panel) in row.iter().enumerate() {
                panel.draw(&mut body, (lefts[c], top), head, r * columns + c);
            }
            top += head + FRAME.1 + BOTTOM + SIDE;
        }
        svg::open(width, top.ceil()) + &body + "</svg>\n"
    }

    /// Title and lines below it; returns where they end.
    fn titles(&self, out: &mut String, width: f64) -> f64 {
        let left = SIDE + 8.0;
        svg::text(out, (left, 30.0), &format!("font-size=\"{TITLE_SIZE}\" font-weight=\"bold\""), &self.title);
        let lines = self.subtitles.iter().flat_map(|l| svg::wrapped(l, 12.0, width - 2.0 * left));
        let mut y = 34.0;
        for words in lines {
            y += 18.0;
            svg::text(out, (left, y), "fill=\"#555\"", &words);
        }
        y + 18.0
    }

    /// Writes the picture; folders are created, and an older file stays whole until the new one is complete.
    ///
    /// # Errors
    /// [`Error::Io`](crate::engine::error::Error::Io) if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::replace(path, |out| out.write_all(self.svg().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of every attribute `name`.
    fn attributes(svg: &str, name: &str) -> Vec<f64> {
        let quoted = format!(" {name}=\"");
        svg.split(&quoted).skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn points_without_a_place_are_left_out() {
        let points =
            [(1.0, 1.0, 0.1), (f64::NAN, 2.0, 0.0), (3.0, f64::INFINITY, 0.0), (4.0, 4.0, f64::NAN), (5.0, 5.0, 0.0)];
        let svg = Plot::new("t").series(Series::line("a").points(&points)).svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        // Three markers and the legend's; a gap in the line.
        assert_eq!(svg.matches("<circle").count(), 4);
        assert_eq!(svg.matches("<polyline").count(), 2);
        let log = Plot::new("t").x(Axis::log("k")).y(Axis::log("y"));
        let svg = log.series(Series::scatter("").xy(&[(0.0, 1.0), (1.0, -1.0), (1e-9, 1e-12), (1e9, 1e12)])).svg();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("10⁻⁵") && svg.contains("10⁵") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn everything_is_inside_the_picture() {
        let long = "a reference line with a name that needs more than one line of text";
        let plot =
            Plot::new("A title that is a good deal wider than a single panel would ever have had to be otherwise");
        let plot = plot.panel("one").reference(1.0, long).reference(1.01, long).reference(0.99, "short");
        let plot = plot.series(Series::line("first").points(&[(0.0, 0.0, 5.0), (1.0, 2.0, 0.5)]));
        let plot = plot.panel("two").series(Series::line("second").band().dashed().xy(&[(0.0, -1.0), (9.0, 3.0)]));
        let svg = plot.columns(1).svg();
        let (width, height) = (attributes(&svg, "width")[0], attributes(&svg, "height")[0]);
        for (names, end) in [(["x", "x1", "x2", "cx"], width), (["y", "y1", "y2", "cy"], height)] {
            let all: Vec<f64> = names.iter().flat_map(|name| attributes(&svg, name)).collect();
            assert!(all.len() > 20 && all.iter().all(|v| (0.0..=end).contains(v)), "{all:?}");
        }
        // Names of close lines do not lie on each other.
        let names = svg.lines().filter(|l| l.contains("font-size=\"11\"")).flat_map(|l| attributes(l, "y"));
        let names: Vec<f64> = names.collect();
        assert!(names.len() > 3 && names.windows(2).all(|w| w[1] - w[0] >= 12.9), "{names:?}");
    }

    #[test]
    fn the_legend_is_above_the_frame_and_names_are_escaped() {
        let svg = Plot::new("a & b").series(Series::line("p < q").xy(&[(0.0, 1.0), (1.0, 0.0)])).svg();
        assert!(svg.contains("a &amp; b") && svg.contains("p &lt; q"));
        let legend = svg.lines().find(|l| l.contains("p &lt; q")).unwrap();
        let frame = svg.lines().find(|l| l.contains("<clipPath")).unwrap();
        assert!(attributes(legend, "y")[0] < attributes(frame, "y")[0]);
        assert!(!Plot::new("none").svg().contains("<polyline"));
    }

    #[test]
    fn a_picture_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/picture.svg");
        let plot = Plot::new("t").series(Series::line("a").xy(&[(0.0, 1.0)]));
        plot.write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), plot.svg());
    }
}
