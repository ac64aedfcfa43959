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
    ("\\left", ""),
    ("\\right", ""),
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
    ("\\lVert ", "‖"),
    (" \\rVert", "‖"),
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
    ("\\tilde", "˜"),
    ("\\hat", "ˆ"),
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
    let mut out = fractions(&unstarred(&text.split_whitespace().collect::<Vec<_>>().join(" ")));
    for (command, symbol) in SYMBOLS {
        out = out.replace(command, symbol);
    }
    let out = grouped(&out.replace("∂ ", "∂").replace("∇ ", "∇"));
    let out = ACCENTS.iter().fold(out, |out, &(mark, accent)| accented(&out, mark, accent));
    let out = out.replace("\\{", "⦃").replace("\\}", "⦄").replace(['$', '{', '}', '`'], "");
    out.replace('⦃', "{").replace('⦄', "}")
}

/// Marks that stand before a letter, and what stands over it instead.
const ACCENTS: [(char, char); 3] = [('¯', '\u{304}'), ('˜', '\u{303}'), ('ˆ', '\u{302}')];

/// Without the stars around `*words*`; the star of a product has letters or blanks on both sides.
fn unstarred(text: &str) -> String {
    let around = |i: usize| (text[..i].chars().next_back(), text[i + 1..].chars().next());
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || ".,;:?!".contains(c));
    let emphasis = |i: usize| {
        let (before, after) = around(i);
        (edge(before) && letter(after)) || (letter(before) && edge(after))
    };
    text.char_indices().filter(|&(i, c)| c != '*' || !emphasis(i)).map(|(_, c)| c).collect()
}

/// An index of more than a word keeps its braces, without which one would not see where it ends: `Σ_{k≤j} x`.
fn grouped(text: &str) -> String {
    let Some((before, rest)) = text.split_once("_{") else { return text.to_string() };
    let (index, rest) = argument(&text[text.len() - rest.len() - 1..]);
    let index = if index.contains(' ') { format!("⦃{}⦄", index.replace(' ', "")) } else { index.to_string() };
    format!("{before}_{index}{}", grouped(rest))
}

/// An accent over the letter that follows its mark.
fn accented(text: &str, mark: char, accent: char) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or("").to_string();
    for part in parts {
        let mut rest = part.trim_start_matches([' ', '{']).chars();
        out.extend(rest.next());
        out.push(accent);
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
    fn what_stands_over_below_and_around_letters_can_be_read() {
        assert_eq!(plain("$\\lVert x - \\hat x \\rVert^2/D$"), "‖x - x\u{302}‖²/D");
        assert_eq!(plain("$\\sum_{k \\le j} x_k$, $L_{16}$, $\\tilde w_i$"), "Σ_{k≤j} x_k, L_16, w\u{303}_i");
        assert_eq!(plain("in *bits* per a*b, 2 * 3"), "in bits per a*b, 2 * 3");
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
