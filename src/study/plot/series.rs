//! What a panel shows: named points, joined or not, with errors.

/// Points (x, y) with an error each, under one name and in one colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64, f64)>,
    pub(crate) joined: bool,
    pub(crate) band: bool,
    pub(crate) dashed: bool,
    pub(crate) dotted: bool,
    pub(crate) markers: bool,
    pub(crate) colour: Option<usize>,
}

impl Series {
    /// Markers joined by a line, in the order of the points. A series without a name is not in the legend.
    pub fn line(name: impl Into<String>) -> Series {
        let (name, points) = (name.into(), Vec::new());
        Series { name, points, joined: true, band: false, dashed: false, dotted: false, markers: true, colour: None }
    }

    /// Dots by themselves.
    pub fn scatter(name: impl Into<String>) -> Series {
        Series { joined: false, ..Series::line(name) }
    }

    /// Adds points (x, y, error): a bar from y − error to y + error stands at each error above 0. A point that is not
    /// finite, or not positive on a logarithmic axis, is left out, and the line has a gap there; an error that is not
    /// finite is not drawn.
    #[must_use]
    pub fn points(mut self, points: &[(f64, f64, f64)]) -> Series {
        self.points.extend_from_slice(points);
        self
    }

    /// Adds points (x, y) without errors.
    #[must_use]
    pub fn xy(mut self, points: &[(f64, f64)]) -> Series {
        self.points.extend(points.iter().map(|&(x, y)| (x, y, 0.0)));
        self
    }

    /// Shows the errors as a shaded band around the line, instead of bars.
    #[must_use]
    pub fn band(mut self) -> Series {
        self.band = true;
        self
    }

    /// Dashes the line.
    #[must_use]
    pub fn dashed(mut self) -> Series {
        self.dashed = true;
        self
    }

    /// Dots the line, thinly and without markers: for what is a limit of the others.
    #[must_use]
    pub fn dotted(mut self) -> Series {
        self.dotted = true;
        self.plain()
    }

    /// Leaves the markers out: for curves of many points.
    #[must_use]
    pub fn plain(mut self) -> Series {
        self.markers = false;
        self
    }

    /// Takes colour and marker number `index` of the [palette](super::PALETTE), instead of the series' own number in its
    /// panel: the same thing should have the same colour in every panel.
    #[must_use]
    pub fn colour(mut self, index: usize) -> Series {
        self.colour = Some(index);
        self
    }
}
