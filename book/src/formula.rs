//! TeX between dollars to MathML: browsers draw it by themselves, without a script and without a network.
//!
//! `$…$` stands in a line, `$$…$$` by itself; `\$` is a dollar. Code, fenced or between backticks, is left alone.
//! Formulas are taken out of the Markdown before it is rendered and put back into the page afterwards, so that no
//! underscore of theirs is taken for emphasis and no bar for the border of a table.

use anyhow::{Result, anyhow};
use math_core::{LatexToMathML, MathCoreConfig, MathDisplay};

/// Encloses the number of a formula that was taken out: characters that no text uses.
const MARKS: [char; 2] = ['\u{e000}', '\u{e001}'];

/// Formulas that were taken out of the text, as MathML.
pub struct Formulas {
    converter: LatexToMathML,
    done: Vec<String>,
}

impl Default for Formulas {
    fn default() -> Formulas {
        let converter = LatexToMathML::new(MathCoreConfig::default()).expect("no macros, so none that is wrong");
        Formulas { converter, done: Vec::new() }
    }
}

impl Formulas {
    /// The text with a mark in the place of each formula.
    ///
    /// # Errors
    /// A dollar without a partner, or TeX that is not understood: with the formula.
    pub fn take_out(&mut self, markdown: &str) -> Result<String> {
        let mut out = String::with_capacity(markdown.len());
        let mut prose = String::new();
        let mut fence: Option<String> = None;
        for line in markdown.split_inclusive('\n') {
            let bare = line.trim_start();
            let ticks: String = bare.chars().take_while(|c| *c == '`' || *c == '~').collect();
            match &fence {
                Some(open) => {
                    if ticks.starts_with(open.as_str()) && bare.trim_end() == ticks {
                        fence = None;
                    }
                    out.push_str(line);
                }
                None if ticks.len() >= 3 => {
                    out.push_str(&self.prose(&std::mem::take(&mut prose))?);
                    fence = Some(ticks);
                    out.push_str(line);
                }
                None => prose.push_str(line),
            }
        }
        out.push_str(&self.prose(&prose)?);
        Ok(out)
    }

    fn prose(&mut self, text: &str) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['$', '`', '\\']) {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            if let Some(escaped) = from.strip_prefix("\\$") {
                out.push('$');
                rest = escaped;
            } else if from.starts_with('\\') {
                let end = from.char_indices().nth(2).map_or(from.len(), |(i, _)| i);
                out.push_str(&from[..end]);
                rest = &from[end..];
            } else if from.starts_with('`') {
                let ticks = from.len() - from.trim_start_matches('`').len();
                let end = from[ticks..].find(&from[..ticks]).map_or(ticks, |end| end + 2 * ticks);
                out.push_str(&from[..end]);
                rest = &from[end..];
            } else {
                let (marks, display) = match from.strip_prefix("$$") {
                    Some(_) => ("$$", MathDisplay::Block),
                    None => ("$", MathDisplay::Inline),
                };
                let inner = &from[marks.len()..];
                let end = inner.find(marks).ok_or_else(|| anyhow!("a {marks} without its partner: {:.60}", from))?;
                out.push_str(&self.formula(&inner[..end], display)?);
                rest = &inner[end + marks.len()..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn formula(&mut self, tex: &str, display: MathDisplay) -> Result<String> {
        let converted = self.converter.convert_with_local_state(tex.trim(), display);
        let math = converted.map_err(|e| anyhow!("the formula {}: {e:?}", tex.trim()))?.mathml;
        // Wide formulas scroll by themselves, also by keyboard.
        let math = match display {
            MathDisplay::Block => format!("<span class=\"display\" tabindex=\"0\">{math}</span>"),
            MathDisplay::Inline if tex.len() > 36 => format!("<span class=\"long\" tabindex=\"0\">{math}</span>"),
            MathDisplay::Inline => math,
        };
        self.done.push(math);
        Ok(format!("{}{}{}", MARKS[0], self.done.len() - 1, MARKS[1]))
    }

    /// A page with the formulas in their places.
    pub fn put_back(&self, html: &str) -> String {
        let mut out = String::with_capacity(html.len() * 2);
        for (i, part) in html.split(MARKS[0]).enumerate() {
            match part.split_once(MARKS[1]) {
                Some((number, rest)) if i > 0 => {
                    out.push_str(number.parse::<usize>().ok().and_then(|n| self.done.get(n)).map_or("", |m| m));
                    out.push_str(rest);
                }
                _ => out.push_str(part),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_become_mathml_and_code_stays() {
        let mut formulas = Formulas::default();
        let text = "a $x_1$ and `$y` costs \\$3, | $a|b$ |\n\n```console\n$ elbo info\n```\n\n$$\n\\frac12\n$$\n";
        let out = formulas.take_out(text).unwrap();
        assert!(out.contains("`$y` costs $3") && out.contains("\n$ elbo info\n"), "{out}");
        assert_eq!(out.matches(MARKS[0]).count(), 3);
        let page = formulas.put_back(&out);
        assert_eq!(page.matches("<math").count(), 3);
        assert!(page.contains("<mfrac>") && page.contains("class=\"display\"") && !page.contains(MARKS[0]), "{page}");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_the_formula() {
        let message = Formulas::default().take_out("one $x alone").unwrap_err().to_string();
        assert!(message.contains("partner") && message.contains("$x alone"), "{message}");
        let message = Formulas::default().take_out("$\\nosuchcommand x$").unwrap_err().to_string();
        assert!(message.contains("nosuchcommand"), "{message}");
    }
}
