//! TeX as a terminal can show it.

/// What commands become.
const SYMBOLS: &[(&str, &str)] = &[
    ("\\varepsilon", "ε"),
    ("\\epsilon", "ε"),
    ("\\sigma", "σ"),
    ("\\theta", "θ"),
    ("\\beta", "β"),
    ("\\alpha", "α"),
    ("\\phi", "φ"),
    ("\\chi", "χ"),
    ("\\mu", "μ"),
    ("\\pi", "π"),
    ("\\eta", "η"),
    ("\\lambda", "λ"),
    ("\\delta", "δ"),
    ("\\partial", "∂"),
    ("\\nabla", "∇"),
    ("\\sum", "Σ"),
    ("\\int", "∫"),
    ("\\prod", "Π"),
    ("\\infty", "∞"),
    ("\\top", "T"),
    ("\\cdot", "·"),
    ("\\times", "×"),
    ("\\approx", "≈"),
    ("\\gg", "≫"),
    ("\\ll", "≪"),
    ("\\leq", "≤"),
    ("\\geq", "≥"),
    ("\\le", "≤"),
    ("\\ge", "≥"),
    ("\\neq", "≠"),
    ("\\ne", "≠"),
    ("\\sim", "~"),
    ("\\to", "→"),
    ("\\mid", "|"),
    ("\\Vert", "‖"),
    ("\\|", "‖"),
    ("\\dots", "…"),
    ("\\ldots", "…"),
    ("\\odot", "⊙"),
    ("\\qquad", "  "),
    ("\\quad", " "),
    ("\\,", " "),
    ("\\;", " "),
    ("\\!", ""),
    ("\\ ", " "),
    ("\\left", ""),
    ("\\right", ""),
    ("\\bigl", ""),
    ("\\bigr", ""),
    ("\\Bigl", ""),
    ("\\Bigr", ""),
    ("\\operatorname", ""),
    ("\\mathrm", ""),
    ("\\mathbb", ""),
    ("\\mathcal", ""),
    ("\\text", ""),
    ("\\bar", "¯"),
    ("\\tilde", "~"),
    ("\\hat", "^"),
    ("\\ln", "ln"),
    ("\\log", "log"),
    ("\\exp", "exp"),
    ("\\tanh", "tanh"),
    ("\\sqrt", "√"),
    ("\\max", "max"),
    ("\\min", "min"),
    ("^2", "²"),
    ("^3", "³"),
    ("^4", "⁴"),
];

/// The text of an exercise without its TeX: `$\\frac{\\sigma^2}{2}$` becomes `σ²/2`.
pub fn plain(text: &str) -> String {
    let mut out = fractions(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    for (command, symbol) in SYMBOLS {
        out = out.replace(command, symbol);
    }
    let out = barred(&out.replace("∂ ", "∂").replace("∇ ", "∇"));
    let out = out.replace("\\{", "⦃").replace("\\}", "⦄").replace(['$', '{', '}', '`'], "");
    out.replace('⦃', "{").replace('⦄', "}")
}

/// A bar over the letter that follows it.
fn barred(text: &str) -> String {
    let mut parts = text.split('¯');
    let mut out = parts.next().unwrap_or("").to_string();
    for part in parts {
        let mut rest = part.trim_start_matches([' ', '{']).chars();
        out.extend(rest.next());
        out.push('\u{304}');
        out.push_str(rest.as_str());
    }
    out
}

/// `\\frac{a}{b}` as `a/b`, with brackets around what is more than a word.
fn fractions(text: &str) -> String {
    let text = text.replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac");
    let Some((before, rest)) = text.split_once("\\frac") else { return text };
    let (above, rest) = argument(rest);
    let (below, rest) = argument(rest);
    let wrapped = |part: &str| {
        let part = fractions(part);
        if part.contains([' ', '+', '-']) { format!("({part})") } else { part }
    };
    format!("{before}{}/{}{}", wrapped(above), wrapped(below), fractions(rest))
}

/// What stands between the braces that come next, or the next character, and the rest.
fn argument(text: &str) -> (&str, &str) {
    if !text.starts_with('{') {
        let end = text.char_indices().nth(1).map_or(text.len(), |(i, _)| i);
        return text.split_at(end);
    }
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return (&text[1..i], &text[i + 1..]);
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_can_be_read_in_a_terminal() {
        assert_eq!(plain("$\\frac{\\sigma^2}{2}$, `a`"), "σ²/2, a");
        assert_eq!(plain("$\\mathbb{E}[z] = \\tfrac12 \\mu$"), "E[z] = 1/2 μ");
        assert_eq!(plain("$\\frac{a + b}{c}$"), "(a + b)/c");
        assert_eq!(plain("$\\bar a$, $\\bar{b}$, $\\partial L$"), "a\u{304}, b\u{304}, ∂L");
    }

    #[test]
    fn nothing_of_tex_is_left_of_any_exercise() {
        for e in super::super::Exercise::all() {
            for text in [&e.text, &e.hint, &e.why].into_iter().chain(&e.choices) {
                assert!(!plain(text).contains('\\'), "{}: {}", e.id, plain(text));
            }
        }
    }
}
