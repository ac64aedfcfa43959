//! Axes: from values to places, the numbers beside them, and how numbers are written.

/// What a direction of a panel shows: a label, a scale, and, if not left to the data, ends and ticks.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    label: String,
    log: bool,
    from: Option<f64>,
    to: Option<f64>,
    ticks: Option<Vec<f64>>,
}

impl Axis {
    /// Equal differences are equal distances.
    pub fn linear(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), log: false, from: None, to: None, ticks: None }
    }

    /// Equal ratios are equal distances. Values that are not positive have no place and are left out.
    pub fn log(label: impl Into<String>) -> Axis {
        Axis { log: true, ..Axis::linear(label) }
    }

    /// Starts at `value` instead of a little below the data.
    #[must_use]
    pub fn from(mut self, value: f64) -> Axis {
        self.from = Some(value);
        self
    }

    /// Ends at `value` instead of a little above the data.
    #[must_use]
    pub fn to(mut self, value: f64) -> Axis {
        self.to = Some(value);
        self
    }

    /// Has its numbers at these values, instead of at round ones.
    #[must_use]
    pub fn ticks(mut self, values: &[f64]) -> Axis {
        self.ticks = Some(values.to_vec());
        self
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Whether a value has a place on the axis.
    pub(crate) fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }

    /// The axis laid over all of `values`, with a margin, between two places of the picture.
    pub(crate) fn place(&self, values: impl Iterator<Item = f64>, place: (f64, f64)) -> Scale {
        let values = values.filter(|&v| self.shows(v));
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (least, most) = match (least <= most, self.log) {
            (true, _) => (least, most),
            (false, true) => (1.0, 10.0),
            (false, false) => (0.0, 1.0),
        };
        let (from, to) = if self.log {
            // A single value: a factor of two to each side.
            let margin = if most > least { (most / least).powf(MARGIN) } else { 2.0 };
            (least / margin, most * margin)
        } else {
            let margin = if most > least { MARGIN * (most - least) } else { 0.5 * most.abs().max(1.0) };
            (least - margin, most + margin)
        };
        let valid = |v: &f64| self.shows(*v);
        let (from, to) = (self.from.filter(valid).unwrap_or(from), self.to.filter(valid).unwrap_or(to));
        // Ends that were asked for may lie on the wrong side of the data.
        let to = if to > from {
            to
        } else if self.log {
            2.0 * from
        } else {
            from + 1.0
        };
        Scale { log: self.log, from, to, place }
    }

    /// The numbers of the axis, at most one for each `room` pixels, and grid lines without numbers.
    pub(crate) fn marks(&self, scale: &Scale, room: f64) -> Vec<Mark> {
        let most = ((scale.place.1 - scale.place.0).abs() / room).floor().max(2.0);
        match &self.ticks {
            Some(values) => {
                let shown = values.iter().filter(|&&v| self.shows(v) && scale.holds(v));
                shown.map(|&value| Mark { value, label: Some(number(value)) }).collect()
            }
            None if self.log => log_marks(scale.from, scale.to, most),
            None => linear_marks(scale.from, scale.to, most),
        }
    }
}

/// The room left free at each end, as a part of the whole.
const MARGIN: f64 = 0.05;

/// A place on an axis, with or without a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mark {
    pub(crate) value: f64,
    pub(crate) label: Option<String>,
}

/// A linear or logarithmic map from the values `from … to` to places on the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    pub(crate) log: bool,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) place: (f64, f64),
}

impl Scale {
    pub(crate) fn at(&self, value: f64) -> f64 {
        let part = match self.log {
            true => (value / self.from).ln() / (self.to / self.from).ln(),
            false => (value - self.from) / (self.to - self.from),
        };
        self.place.0 + part * (self.place.1 - self.place.0)
    }

    /// Whether a value is between the ends, but for rounding.
    pub(crate) fn holds(&self, value: f64) -> bool {
        let slack = 1e-9 * (self.to - self.from);
        value >= self.from - slack && value <= self.to + slack
    }

    /// The place of a value, or of the end beyond which it lies.
    pub(crate) fn clamped(&self, value: f64) -> f64 {
        self.at(value.clamp(self.from, self.to))
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, all written with the same number of decimals.
fn linear_marks(from: f64, to: f64, most: f64) -> Vec<Mark> {
    let step = round_step((to - from) / most);
    let (first, last) = ((from / step - 1e-9).ceil() as i64, (to / step + 1e-9).floor() as i64);
    let decimals = (-step.log10() - 1e-9).ceil().max(0.0) as usize;
    let label = |value: f64| match (1e-4..1e6).contains(&step) {
        true => grouped(&format!("{value:.decimals$}")),
        false => number(value),
    };
    (first..=last).map(|i| i as f64 * step).map(|value| Mark { value, label: Some(label(value)) }).collect()
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// Powers of ten; over few decades also 2 and 5 times them; over a part of one decade, numbers as on a linear axis.
fn log_marks(from: f64, to: f64, most: f64) -> Vec<Mark> {
    let (first, last) = (from.log10().floor() as i32, to.log10().ceil() as i32);
    let inside = |v: f64| v >= from * (1.0 - 1e-9) && v <= to * (1.0 + 1e-9);
    let decades = (to / from).log10();
    // Grid lines without numbers clutter more than a few decades.
    let digits: &[i32] = if decades <= 4.0 { &[1, 2, 3, 4, 5, 6, 7, 8, 9] } else { &[1] };
    let named = |power: i32, digit: i32| match digit {
        1 => power.rem_euclid((decades / most).ceil().max(1.0) as i32) == 0,
        2 | 5 => 3.0 * decades <= most && decades <= 2.5,
        _ => false,
    };
    let mut marks = Vec::new();
    for power in first..=last {
        for &digit in digits {
            let value = f64::from(digit) * 10f64.powi(power);
            if inside(value) {
                marks.push(Mark { value, label: named(power, digit).then(|| number(value)) });
            }
        }
    }
    if marks.iter().filter(|m| m.label.is_some()).count() < 2 { linear_marks(from, to, most) } else { marks }
}

/// A number for people: `0.25`, `−3`, `60 000`, `10⁷`, `2.5×10⁻⁶`; at most six digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || value == 0.0 {
        return grouped(&value.to_string());
    }
    let power = (size.log10() + 1e-12).floor() as i32;
    let mantissa = value / 10f64.powi(power);
    if (-4..6).contains(&power) && !(power.abs() >= 4 && (mantissa - 1.0).abs() < 1e-9) {
        return grouped(trimmed(&format!("{value:.*}", (5 - power).max(0) as usize)));
    }
    match (mantissa - 1.0).abs() < 1e-9 {
        true => power_of_ten(power),
        false => format!("{}×{}", grouped(trimmed(&format!("{mantissa:.3}"))), power_of_ten(power)),
    }
}

/// `10⁻⁷`.
pub(crate) fn power_of_ten(power: i32) -> String {
    let raised = |c: char| match c {
        '-' => '⁻',
        c => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][c.to_digit(10).expect("a digit") as usize],
    };
    format!("10{}", power.to_string().chars().map(raised).collect::<String>())
}

fn trimmed(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

/// With a true minus sign, and five or more digits before the point in groups of three.
fn grouped(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        // What was rounded to zero has no sign.
        Some(rest) => (if rest.contains(|c: char| ('1'..='9').contains(&c)) { "−" } else { "" }, rest),
        None => ("", digits),
    };
    let whole = digits.split('.').next().map_or(0, str::len);
    let mut out = sign.to_string();
    for (i, c) in digits.chars().enumerate() {
        if whole >= 5 && i > 0 && i < whole && (whole - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(marks: Vec<Mark>) -> Vec<String> {
        marks.into_iter().filter_map(|m| m.label).collect()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(labels(linear_marks(-0.3, 1.1, 5.0)), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(linear_marks(-0.3, 1.1, 10.0)), ["−0.2", "0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(linear_marks(9_000.0, 31_000.0, 3.0)), ["10\u{202f}000", "20\u{202f}000", "30\u{202f}000"]);
        assert_eq!(labels(linear_marks(105.52, 105.94, 5.0)), ["105.6", "105.7", "105.8", "105.9"]);
        assert_eq!(labels(linear_marks(0.0, 3e-6, 3.0)), ["0", "10⁻⁶", "2×10⁻⁶", "3×10⁻⁶"]);
        for (from, to) in [(0.0, 1.0), (-7.0, 1e5), (1e-9, 3e-9), (0.999, 1.001)] {
            let marks = linear_marks(from, to, 6.0);
            assert!((2..=7).contains(&marks.len()), "{from} … {to}: {marks:?}");
        }
    }

    #[test]
    fn a_log_axis_has_decades_or_what_fits() {
        assert_eq!(labels(log_marks(0.9, 55.0, 8.0)), ["1", "2", "5", "10", "20", "50"]);
        assert_eq!(labels(log_marks(1.0, 1e4, 8.0)), ["1", "10", "100", "1000", "10⁴"]);
        let wide = labels(log_marks(1e-12, 1e12, 7.0));
        assert_eq!(wide, ["10⁻¹²", "10⁻⁸", "10⁻⁴", "1", "10⁴", "10⁸", "10¹²"]);
        assert_eq!(labels(log_marks(3.1, 4.1, 5.0)), ["3.2", "3.4", "3.6", "3.8", "4.0"]);
    }

    #[test]
    fn values_have_places() {
        let scale = Scale { log: true, from: 1.0, to: 100.0, place: (0.0, 10.0) };
        assert_eq!([scale.at(1.0), scale.at(10.0), scale.at(100.0), scale.clamped(1e9)], [0.0, 5.0, 10.0, 10.0]);
        let axis = Axis::linear("").from(0.0);
        let scale = axis.place([2.0, f64::NAN, 10.0, f64::INFINITY].into_iter(), (100.0, 0.0));
        assert_eq!((scale.from, scale.to), (0.0, 10.4));
        assert_eq!(scale.at(5.2), 50.0);
        let log = Axis::log("").place([1e-9, -5.0, 0.0, 1e9].into_iter(), (0.0, 1.0));
        assert!(log.from > 1e-10 && log.from < 1e-9 && log.to > 1e9 && log.to < 1e10, "{log:?}");
        // No data, one value, ends in the wrong order: still an axis.
        for axis in [Axis::linear(""), Axis::log(""), Axis::linear("").from(3.0).to(1.0), Axis::log("").from(-1.0)] {
            for values in [vec![], vec![7.0]] {
                let scale = axis.place(values.into_iter(), (0.0, 300.0));
                assert!(scale.to > scale.from && axis.marks(&scale, 60.0).len() >= 2, "{axis:?} {scale:?}");
            }
        }
    }

    #[test]
    fn numbers_are_written_for_people() {
        let written = [0.0, 0.1 + 0.2, -3.0, 60_000.0, 1e7, 2.5e-6, 12.3456789, 1e-4, 1000.0, 98765.0].map(number);
        let expected =
            ["0", "0.3", "−3", "60\u{202f}000", "10⁷", "2.5×10⁻⁶", "12.3457", "10⁻⁴", "1000", "98\u{202f}765"];
        assert_eq!(written, expected);
    }
}
