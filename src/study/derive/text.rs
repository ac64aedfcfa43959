//! A derivation in a terminal.

use std::fmt::Write;

use super::record::{Derivation, TapeNode, TapeStep, TapeValue, cotangent_of};

/// The most characters of a column of numbers.
const MOST: usize = 34;

impl Derivation {
    /// The tape, the walk back and the checks as aligned text.
    pub fn text(&self) -> String {
        let mut out =
            if self.order == 1 { format!("y = {}\n", self.title) } else { format!("y′ = {}\n", self.title) };
        self.forward(&mut out);
        self.backward(&mut out);
        self.checks(&mut out);
        for second in &self.second {
            out += "\nonce more: a gradient is a graph too, and the same walk goes back over it\n\n";
            out += &second.text();
        }
        out
    }

    fn forward(&self, out: &mut String) {
        let rows = self.nodes.iter().map(|node| {
            let value = format!("= {}", node.value.short());
            [node.name.clone(), node.text.clone(), value, shape(&node.value)].map(|cell| clipped(&cell, 60))
        });
        let title = ["forward, from the leaves to y", "", "", ""].map(String::from);
        table(out, title, rows.collect());
    }

    fn backward(&self, out: &mut String) {
        out.push_str("\nback, from y to the leaves: dv = ∂y/∂v is complete when all that use v were visited\n");
        let mut rows: Vec<[String; 4]> = Vec::new();
        for step in &self.steps {
            rows.push(self.arrival(step));
            for c in &step.contributions {
                let input = &self.nodes[c.input];
                let first = !self.had_contributions_before(step, c.input);
                let sum = if first { String::new() } else { format!("sum {}", c.sum.short()) };
                rows.push([format!("  → {}", input.name), clipped(&c.text, 60), c.value.short(), sum]);
            }
        }
        let title = ["node", "rule", "dy, contribution", "running sum"].map(String::from);
        table(out, title, rows);
    }

    fn arrival(&self, step: &TapeStep) -> [String; 4] {
        let TapeNode { name, text, leaf, rule, .. } = &self.nodes[step.node];
        let what = if *leaf { "a leaf: its gradient".to_string() } else { format!("{text}:  {}", rule.join(", ")) };
        [cotangent_of(name), clipped(&what, 60), step.cotangent.short(), String::new()]
    }

    /// Whether an earlier contribution went to `input`: before `step`, or within it for the second operand of `x * x`.
    fn had_contributions_before(&self, step: &TapeStep, input: usize) -> bool {
        let before = self.steps.iter().take_while(|earlier| earlier.node != step.node);
        let arrived = before.flat_map(|s| &s.contributions).any(|c| c.input == input);
        arrived || step.contributions.iter().filter(|c| c.input == input).count() > 1
    }

    fn checks(&self, out: &mut String) {
        let title = ["leaf", "gradient by the walk", "by central differences", "relative error"].map(String::from);
        let rows = self.leaves.iter().map(|leaf| {
            let all = leaf.gradient.stats.is_none();
            let shape = if all { leaf.gradient.shape.clone() } else { vec![leaf.difference.len()] };
            let difference = TapeValue { shape, values: leaf.difference.clone(), stats: None };
            let error = format!("{}, h = {:.0e}", two(leaf.error), leaf.step);
            [leaf.name.clone(), leaf.gradient.short(), difference.short(), error]
        });
        out.push('\n');
        table(out, title, rows.collect());
    }
}

fn shape(value: &TapeValue) -> String {
    let dims: Vec<String> = value.shape.iter().map(usize::to_string).collect();
    if dims.is_empty() { String::new() } else { format!("[{}]", dims.join(", ")) }
}

impl TapeValue {
    /// The numbers on a line, `[1 2; 3 4]` for a matrix, as in `--at`; what does not fit is left out.
    pub(super) fn short(&self) -> String {
        let (Some(&columns), false) = (self.shape.last(), self.values.is_empty()) else {
            return self.values.first().map_or_else(String::new, |&v| number(v));
        };
        let mut text = String::from("[");
        for (i, &value) in self.values.iter().enumerate() {
            let gap = if i == 0 {
                ""
            } else if i % columns == 0 {
                "; "
            } else {
                " "
            };
            let next = format!("{gap}{}", four(value));
            if text.chars().count() + next.chars().count() > MOST {
                return text + " …]";
            }
            text += &next;
        }
        text + if self.stats.is_some() { " …]" } else { "]" }
    }
}

fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Rows of cells below a title, in columns as wide as their widest cell.
fn table(out: &mut String, title: [String; 4], rows: Vec<[String; 4]>) {
    let width = |column: usize| {
        // A title in the first column alone may reach over the others.
        let title = if title[1].is_empty() { 0 } else { title[column].chars().count() };
        rows.iter().map(|row| row[column].chars().count()).fold(title, usize::max)
    };
    let widths = [0, 1, 2, 3].map(width);
    for row in std::iter::once(&title).chain(&rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "  {}", line.trim_end()).expect("memory");
    }
}

/// A number in six significant digits at most.
pub(crate) fn number(value: f64) -> String {
    digits(value, 6)
}

/// An error, in two.
pub(super) fn two(value: f64) -> String {
    digits(value, 2)
}

/// In four.
fn four(value: f64) -> String {
    digits(value, 4)
}

fn digits(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return match value {
            0.0 => "0".into(),
            v if v.is_nan() => "NaN".into(),
            v => if v > 0.0 { "∞" } else { "-∞" }.into(),
        };
    }
    // Rounded first: 9.9999996 has the exponent of 10.
    let rounded = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = rounded.split_once('e').expect("the form of {:e}");
    let exponent: i32 = exponent.parse().expect("an exponent");
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    match exponent {
        -4..=5 => trimmed(&format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize)),
        _ => format!("{}e{exponent}", trimmed(mantissa)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-0.119_202_922, "-0.119203"),
            (9.999_999_6, "10"),
            (123_456.7, "123457"),
            (1.5e7, "1.5e7"),
            (-2.5e-9, "-2.5e-9"),
            (0.000_123_456_78, "0.000123457"),
            (f64::NEG_INFINITY, "-∞"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_text_shows_tape_walk_sums_and_checks() {
        let text = Subject::find("bce", "").unwrap().derivation(2).text();
        for words in [
            "softplus(l)",
            "= 2.12693",
            "softplus(l):  dx = dy * x.sigmoid()",
            "dv1 * l.sigmoid()",
            "dv2 * x",
            "sum -0.119203",
            "a leaf: its gradient",
            "y′ = ∂y/∂l",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() < 140), "{text}");
    }

    #[test]
    fn the_running_sum_of_a_square_written_as_a_product_is_shown() {
        let text = Subject::expression("x * x", "x=3").unwrap().derivation(1).text();
        assert!(text.contains("sum 6"), "{text}");
    }
}
