//! Expressions as one writes them, `softplus(l) - x*l`, and the graph they mean.

mod build;
mod parse;

use std::collections::BTreeSet;

use build::Builder;
use parse::ExpressionParser;

use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Var};
use crate::engine::ops::ScalarFn;

/// The longest text: terms stand in each other, and what reads them calls itself for each.
const LONGEST: usize = 2000;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expression {
    text: String,
    root: Term,
}

/// A part of an expression, with the column where it begins or its sign stands.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    at: usize,
    kind: TermKind,
}

#[derive(Clone, Debug, PartialEq)]
enum TermKind {
    Number(f64),
    Name(String),
    Negative(Box<Term>),
    Sign(char, Box<[Term; 2]>),
    Power(Box<Term>, f64),
    Call(String, Vec<Term>),
}

/// Functions besides those of the table: with how many operands, and what they are.
const FUNCTIONS: &[(&str, usize, &str)] = &[
    ("ln", 1, "ln(x), the natural logarithm, as log"),
    ("sum", 1, "sum(x), of all elements"),
    ("sum", 2, "sum(x, axis)"),
    ("mean", 1, "mean(x), of all elements"),
    ("mean", 2, "mean(x, axis)"),
    ("max", 1, "max(x), over all elements"),
    ("max", 2, "max(a, b), element by element"),
    ("min", 2, "min(a, b), element by element"),
    ("pow", 2, "pow(x, c) = x^c for a number c"),
    ("leaky_relu", 2, "leaky_relu(x, slope) for a number"),
    ("select", 3, "select(q, a, b): a where q is not 0, else b"),
    ("matmul", 2, "matmul(a, b) = a @ b, the matrix product"),
    ("t", 1, "t(x), the transpose"),
    ("softmax", 1, "softmax(x), of each row"),
    ("log_softmax", 1, "log_softmax(x), of each row"),
    ("logsumexp", 1, "logsumexp(x), over all elements"),
    ("stop_gradient", 1, "stop_gradient(x), a constant to the walk back"),
];

/// All functions with their operands, a line each behind those of the table, for help.
pub(super) fn functions() -> String {
    let others: Vec<String> = FUNCTIONS.iter().map(|(_, _, what)| format!("  {what}")).collect();
    format!("  element by element: {}\n{}", of_the_table().join(", "), others.join("\n"))
}

fn of_the_table() -> Vec<&'static str> {
    ScalarFn::ALL.iter().map(|f| f.name()).collect()
}

/// Their names alone.
fn names_of_functions() -> String {
    let mut names = of_the_table();
    names.extend(FUNCTIONS.iter().map(|(name, ..)| *name));
    names.dedup();
    names.join(", ")
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`Error::Argument`] with the column, a mark below it, and what is expected there.
    pub(super) fn parse(text: &str) -> Result<Expression> {
        // Marks stand below the text in messages, which therefore is one line.
        let text: String = text.trim().chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
        if text.len() > LONGEST {
            return Err(Error::argument("expression", format!("{} bytes", text.len()), format!("at most {LONGEST}")));
        }
        let root = ExpressionParser::new(&text).whole()?;
        Ok(Expression { text, root })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The variables, sorted, without `pi`.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        let mut open = vec![&self.root];
        while let Some(term) = open.pop() {
            match &term.kind {
                TermKind::Number(_) => {}
                TermKind::Name(name) => {
                    names.insert(name.clone());
                }
                TermKind::Negative(a) | TermKind::Power(a, _) => open.push(a),
                TermKind::Sign(_, pair) => open.extend(pair.iter()),
                TermKind::Call(_, operands) => open.extend(operands),
            }
        }
        names.remove("pi");
        names.into_iter().collect()
    }

    /// Pushes the nodes it means.
    ///
    /// # Errors
    /// [`Error::Argument`] where shapes do not fit, with the column.
    pub(super) fn build<'g>(&self, g: &'g Graph, names: &[(&str, Var<'g>)]) -> Result<Var<'g>> {
        Builder::new(&self.text, g, names).term(&self.root)
    }
}

/// What is wrong at a column of the text, counted from 0, with a mark below it.
fn at_column(text: &str, at: usize, found: &str, expected: &str) -> Error {
    let expected = format!("{expected}\n  {text}\n  {}^ column {}", " ".repeat(at), at + 1);
    Error::argument("expression", found, expected)
}

/// The number that a term is, if it is made of numbers alone.
fn constant(term: &Term) -> Option<f64> {
    match &term.kind {
        TermKind::Number(value) => Some(*value),
        TermKind::Name(name) if name == "pi" => Some(std::f64::consts::PI),
        TermKind::Negative(a) => Some(-constant(a)?),
        TermKind::Power(a, c) => Some(constant(a)?.powf(*c)),
        TermKind::Sign(sign, pair) => {
            let (a, b) = (constant(&pair[0])?, constant(&pair[1])?);
            Some(match sign {
                '+' => a + b,
                '-' => a - b,
                '*' => a * b,
                '/' => a / b,
                _ => return None,
            })
        }
        TermKind::Name(_) | TermKind::Call(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::interp::Interp;

    fn value(text: &str) -> f64 {
        let g = Graph::new();
        let x = g.tensor(&[], &[3.0]);
        let y = Expression::parse(text).unwrap().build(&g, &[("x", x)]).unwrap();
        Interp::<f64>::new(&g).eval(y)[0]
    }

    #[test]
    fn signs_bind_as_in_mathematics() {
        for (text, expected) in [
            ("1 + 2*x", 7.0),
            ("10 - x - 2", 5.0),
            ("-x^2", -9.0),
            ("2^-1 * x", 1.5),
            ("12 / x / 2", 2.0),
            ("-(x - 5)", 2.0),
            ("--x", 3.0),
            ("1.5e-1 * x", 0.45),
            ("max(x, 4) - min(x, 4)", 1.0),
            ("x − 1", 2.0),
            ("ln(exp(x))", 3.0),
            ("select(x, 2, 3)", 2.0),
            ("sum(x) + pow(x, 3)", 30.0),
        ] {
            assert!((value(text) - expected).abs() < 1e-12, "{text}: {} not {expected}", value(text));
        }
    }

    #[test]
    fn every_function_is_known_with_its_operands() {
        for f in ScalarFn::ALL {
            assert!(Expression::parse(&format!("{}(x)", f.name())).is_ok());
        }
        for (name, operands, _) in FUNCTIONS {
            let text = format!("{name}({})", vec!["x"; *operands].join(", "));
            assert!(Expression::parse(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn errors_point_at_the_column_and_say_what_is_expected() {
        for (text, column, words) in [
            ("softplus(l) - q(l)", 15, "softplus"),
            ("1 +", 4, "a number, a name"),
            ("(1 + 2", 7, ")"),
            ("2 $ 3", 3, "an operator"),
            ("x^y", 3, "a number as exponent"),
            ("matmul(a)", 1, "matmul(a, b)"),
            ("exp(1, 2)", 1, "exp(x)"),
            ("exp()", 1, "exp(x)"),
            ("1.2.3", 1, "a number, as in"),
            ("", 1, "a number"),
        ] {
            let message = Expression::parse(text).unwrap_err().to_string();
            assert!(message.contains(&format!("^ column {column}")) && message.contains(words), "{text}: {message}");
        }
        let deep = "(".repeat(1000);
        assert!(Expression::parse(&deep).unwrap_err().to_string().contains("at most 100 within"));
        let long = "x+".repeat(5000);
        assert!(Expression::parse(&long).unwrap_err().to_string().contains("at most 2000"));
    }

    #[test]
    fn shapes_that_do_not_fit_are_told_with_their_column() {
        let g = Graph::new();
        let (a, b) = (g.tensor(&[2, 2], &[0.0; 4]), g.tensor(&[3], &[0.0; 3]));
        let names = [("a", a), ("b", b), ("c", g.tensor(&[], &[1.0]))];
        for (text, column) in [
            ("c + a*b", 6),
            ("c + a @ b", 7),
            ("matmul(b, a)", 1),
            ("1 + softmax(c)", 5),
            ("t(b)", 1),
            ("sum(b, 1)", 8),
            ("max(a, b)", 1),
            ("c * z", 5),
        ] {
            let message = Expression::parse(text).unwrap().build(&g, &names).unwrap_err().to_string();
            assert!(message.contains(&format!("^ column {column}")), "{text}: {message}");
        }
    }
}
