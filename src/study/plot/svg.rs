//! The few elements of SVG that a diagram is made of, as text appended to a string.

use std::fmt::Write;

/// Text, axes, and whatever has no colour of its own.
pub(crate) const INK: &str = "#222";
const FONT: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

/// A point of the picture: x to the right, y downwards, in pixels.
pub(crate) type Pixel = (f64, f64);

/// The head of a picture with a white background; `</svg>` ends it.
pub(crate) fn open(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"{FONT}\" font-size=\"12\" fill=\"{INK}\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    )
}

/// Words as XML has them: `&`, `<`, `>` and `"` by name, and without control characters, which XML cannot hold.
pub(crate) fn escape(words: &str) -> String {
    let words: String = words.chars().filter(|c| !c.is_control()).collect();
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A line of text whose baseline starts at a place, or is centred or ends there if `style` says so.
pub(crate) fn text(out: &mut String, (x, y): Pixel, style: &str, words: &str) {
    let words = escape(words);
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>").expect("a string");
}

/// Text that reads upwards, placed as [`text`] is.
pub(crate) fn text_upwards(out: &mut String, (x, y): Pixel, style: &str, words: &str) {
    text(out, (x, y), &format!("{style} transform=\"rotate(-90 {x:.1} {y:.1})\""), words);
}

/// A straight line.
pub(crate) fn line(out: &mut String, (x1, y1): Pixel, (x2, y2): Pixel, style: &str) {
    writeln!(out, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>").expect("a string");
}

/// A line through several points.
pub(crate) fn polyline(out: &mut String, points: &[Pixel], style: &str) {
    writeln!(out, "<polyline points=\"{}\" {style}/>", listed(points)).expect("a string");
}

/// A closed and filled shape.
pub(crate) fn polygon(out: &mut String, points: &[Pixel], style: &str) {
    writeln!(out, "<polygon points=\"{}\" {style}/>", listed(points)).expect("a string");
}

fn listed(points: &[Pixel]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// The form of a marker: with colour alone, series could not be told apart in print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SvgShape {
    Circle,
    Square,
    Diamond,
    Triangle,
}

impl SvgShape {
    pub(crate) const ALL: [SvgShape; 4] = [SvgShape::Circle, SvgShape::Square, SvgShape::Diamond, SvgShape::Triangle];
}

/// A marker of half width `r` at a place.
pub(crate) fn marker(out: &mut String, (x, y): Pixel, shape: SvgShape, r: f64, style: &str) {
    match shape {
        SvgShape::Circle => {
            writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\" {style}/>").expect("a string");
        }
        // The sides are shorter than a circle's diameter, so that all markers have about the same area.
        SvgShape::Square => {
            let h = 0.88 * r;
            polygon(out, &[(x - h, y - h), (x + h, y - h), (x + h, y + h), (x - h, y + h)], style);
        }
        SvgShape::Diamond => {
            let h = 1.17 * r;
            polygon(out, &[(x - h, y), (x, y - h), (x + h, y), (x, y + h)], style);
        }
        SvgShape::Triangle => {
            let h = 1.1 * r;
            polygon(out, &[(x - h, y + 0.8 * h), (x + h, y + 0.8 * h), (x, y - h)], style);
        }
    }
}

/// The width of a line of text in pixels, by the average letter of the font: for room, not for alignment.
pub(crate) fn width(words: &str, size: f64) -> f64 {
    0.6 * size * words.chars().count() as f64
}

/// Words in lines of at most `most` pixels; a word that is longer has a line to itself.
pub(crate) fn wrapped(words: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + 0.6 * size <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_become_markup() {
        assert_eq!(escape("a < b & \"c\" > d\u{0}\n"), "a &lt; b &amp; &quot;c&quot; &gt; d");
        let mut out = String::new();
        text(&mut out, (1.0, 2.0), "", "</text><script>");
        assert_eq!(out, "<text x=\"1.0\" y=\"2.0\" >&lt;/text&gt;&lt;script&gt;</text>\n");
    }

    #[test]
    fn words_are_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 10.0, 45.0), ["one two", "three"]);
        assert_eq!(wrapped("incomprehensible word", 10.0, 30.0), ["incomprehensible", "word"]);
        assert!(wrapped(" ", 10.0, 30.0).is_empty());
    }
}
