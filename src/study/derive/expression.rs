//! Expressions as one writes them, `softplus(l) - x*l`, and the graph they mean.

use std::collections::BTreeSet;

use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Var};
use crate::engine::ops::ScalarFn;

/// How deep parentheses may stand in each other: the parser calls itself for each.
const DEEPEST: usize = 100;

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
        let mut parser = Parser { text: &text, letters: text.chars().collect(), at: 0, depth: 0 };
        let root = parser.sum()?;
        match parser.peek() {
            None => Ok(Expression { text, root }),
            Some(_) => Err(parser.wrong("an operator + - * / ^ @, or the end")),
        }
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
        Builder { text: &self.text, g, names }.term(&self.root)
    }
}

/// What is wrong at a column of the text, counted from 0, with a mark below it.
fn at_column(text: &str, at: usize, found: &str, expected: &str) -> Error {
    let expected = format!("{expected}\n  {text}\n  {}^ column {}", " ".repeat(at), at + 1);
    Error::argument("expression", found, expected)
}

struct Parser<'t> {
    text: &'t str,
    letters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        while self.letters.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.letters.get(self.at).copied()
    }

    fn takes(&mut self, sign: char) -> bool {
        let there = self.peek() == Some(sign);
        self.at += usize::from(there);
        there
    }

    fn wrong(&mut self, expected: &str) -> Error {
        let found = self.peek().map_or("the end".to_string(), |c| format!("\"{c}\""));
        at_column(self.text, self.at, &found, expected)
    }

    fn sum(&mut self) -> Result<Term> {
        self.signs(&['+', '-', '−'], Parser::product)
    }

    fn product(&mut self) -> Result<Term> {
        self.signs(&['*', '/', '@', '·'], Parser::negative)
    }

    /// Operands of one kind joined from the left by some signs.
    fn signs(&mut self, signs: &[char], operand: fn(&mut Self) -> Result<Term>) -> Result<Term> {
        let mut left = operand(self)?;
        while let Some(sign) = self.peek().filter(|c| signs.contains(c)) {
            let at = self.at;
            self.at += 1;
            let right = operand(self)?;
            let sign = if sign == '−' {
                '-'
            } else if sign == '·' {
                '*'
            } else {
                sign
            };
            left = Term { at, kind: TermKind::Sign(sign, Box::new([left, right])) };
        }
        Ok(left)
    }

    fn negative(&mut self) -> Result<Term> {
        let mut minuses = Vec::new();
        while self.peek().is_some_and(|c| c == '-' || c == '−') {
            minuses.push(self.at);
            self.at += 1;
        }
        let mut term = self.power()?;
        for at in minuses.into_iter().rev() {
            term = Term { at, kind: TermKind::Negative(Box::new(term)) };
        }
        Ok(term)
    }

    fn power(&mut self) -> Result<Term> {
        let base = self.atom()?;
        if !self.takes('^') {
            return Ok(base);
        }
        let at = self.at;
        let exponent = self.negative()?;
        let value = constant(&exponent).ok_or_else(|| {
            at_column(self.text, at, "an expression", "a number as exponent; for others write exp(c * log(x))")
        })?;
        Ok(Term { at: base.at, kind: TermKind::Power(Box::new(base), value) })
    }

    fn atom(&mut self) -> Result<Term> {
        let expected = "a number, a name, a function, - or (";
        let Some(c) = self.peek() else { return Err(self.wrong(expected)) };
        let at = self.at;
        match c {
            '(' => {
                self.at += 1;
                let inner = self.nested(at)?;
                if self.takes(')') { Ok(inner) } else { Err(self.wrong("an operator or )")) }
            }
            c if c.is_ascii_digit() || c == '.' => self.number(),
            c if c.is_alphabetic() || c == '_' => self.name(),
            _ => Err(self.wrong(expected)),
        }
    }

    fn nested(&mut self, at: usize) -> Result<Term> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(at_column(self.text, at, "one more \"(\"", &format!("at most {DEEPEST} within each other")));
        }
        let inner = self.sum();
        self.depth -= 1;
        inner
    }

    fn number(&mut self) -> Result<Term> {
        let at = self.at;
        let mut end = at;
        while let Some(c) = self.letters.get(end) {
            let signed = "+-".contains(*c) && matches!(self.letters[end - 1], 'e' | 'E') && end > at;
            let exponent = matches!(c, 'e' | 'E')
                && self.letters.get(end + 1).is_some_and(|n| n.is_ascii_digit() || "+-".contains(*n));
            if !(c.is_ascii_digit() || *c == '.' || exponent || signed) {
                break;
            }
            end += 1;
        }
        let digits: String = self.letters[at..end].iter().collect();
        let value = digits
            .parse()
            .map_err(|_| at_column(self.text, at, &format!("\"{digits}\""), "a number, as in 2, 0.5 or 1e-3"))?;
        self.at = end;
        Ok(Term { at, kind: TermKind::Number(value) })
    }

    fn name(&mut self) -> Result<Term> {
        let at = self.at;
        while self.letters.get(self.at).is_some_and(|c| c.is_alphanumeric() || *c == '_' || *c == '.') {
            self.at += 1;
        }
        let name: String = self.letters[at..self.at].iter().collect();
        if !self.takes('(') {
            return Ok(Term { at, kind: TermKind::Name(name) });
        }
        let mut operands = Vec::new();
        if !self.takes(')') {
            operands.push(self.nested(at)?);
            while self.takes(',') {
                operands.push(self.nested(at)?);
            }
            if !self.takes(')') {
                return Err(self.wrong("an operator, a comma or )"));
            }
        }
        self.known(at, &name, operands.len())?;
        Ok(Term { at, kind: TermKind::Call(name, operands) })
    }

    /// That there is such a function.
    fn known(&self, at: usize, name: &str, operands: usize) -> Result<()> {
        let mut ways: Vec<String> =
            FUNCTIONS.iter().filter(|(known, ..)| *known == name).map(|(_, _, what)| what.to_string()).collect();
        let mut fits = FUNCTIONS.iter().any(|(known, count, _)| (*known, *count) == (name, operands));
        if ScalarFn::ALL.iter().any(|f| f.name() == name) {
            ways.push(format!("{name}(x)"));
            fits |= operands == 1;
        }
        let found = match operands {
            1 => format!("{name} of 1 operand"),
            n => format!("{name} of {n} operands"),
        };
        match (fits, ways.is_empty()) {
            (true, _) => Ok(()),
            (false, false) => Err(at_column(self.text, at, &found, &ways.join(" or "))),
            (false, true) => {
                let mark = at_column(self.text, at, &format!("\"{name}\""), "a function that is known");
                let Error::Argument { field, found, expected } = mark else { unreachable!("made so") };
                Err(Error::Argument {
                    field,
                    found,
                    expected: format!("{expected}\nfunctions: {}", names_of_functions()),
                })
            }
        }
    }
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

/// Pushes nodes. Shapes are looked at before, because a graph panics where they do not fit.
struct Builder<'a, 'g> {
    text: &'a str,
    g: &'g Graph,
    names: &'a [(&'a str, Var<'g>)],
}

impl<'g> Builder<'_, 'g> {
    fn term(&self, term: &Term) -> Result<Var<'g>> {
        if let Some(value) = constant(term) {
            return Ok(self.g.constant(value));
        }
        match &term.kind {
            TermKind::Number(value) => Ok(self.g.constant(*value)),
            TermKind::Name(name) => {
                let known = self.names.iter().find(|(known, _)| known == name);
                known.map(|(_, x)| *x).ok_or_else(|| self.wrong(term.at, name, "a name that has a value"))
            }
            TermKind::Negative(a) => Ok(-self.term(a)?),
            TermKind::Power(a, c) => Ok(self.term(a)?.pow(*c)),
            TermKind::Sign(sign, pair) => {
                let (a, b) = (self.term(&pair[0])?, self.term(&pair[1])?);
                if *sign == '@' {
                    return self.product(term.at, a, b);
                }
                self.broadcasts(term.at, &[a, b])?;
                Ok(match sign {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    _ => a / b,
                })
            }
            TermKind::Call(name, operands) => self.call(term.at, name, operands),
        }
    }

    fn wrong(&self, at: usize, found: &str, expected: &str) -> Error {
        at_column(self.text, at, found, expected)
    }

    fn broadcasts(&self, at: usize, values: &[Var<'g>]) -> Result<()> {
        let mut common = values[0].shape();
        for x in values {
            common = common.broadcast(&x.shape()).ok_or_else(|| {
                let shapes: Vec<String> = values.iter().map(|x| x.shape().to_string()).collect();
                self.wrong(at, &format!("shapes {}", shapes.join(" and ")), "shapes that are equal or broadcast")
            })?;
        }
        Ok(())
    }

    fn product(&self, at: usize, a: Var<'g>, b: Var<'g>) -> Result<Var<'g>> {
        let (sa, sb) = (a.shape(), b.shape());
        if sa.len() == 2 && sb.len() == 2 && sa[1] == sb[0] {
            return Ok(a.matmul(b));
        }
        let expected = "matrices [m, k] and [k, n]; a column is written [1; 2], a row [1 2;]";
        Err(self.wrong(at, &format!("matmul of shapes {sa} and {sb}"), expected))
    }

    fn rows(&self, at: usize, name: &str, x: Var<'g>) -> Result<usize> {
        let last = x.shape().len().checked_sub(1);
        last.ok_or_else(|| self.wrong(at, &format!("{name} of one number"), "an array, as in --at \"x=[1 2 3]\""))
    }

    fn axis(&self, x: Var<'g>, term: &Term) -> Result<usize> {
        let axis = constant(term).filter(|axis| axis.fract() == 0.0 && *axis >= 0.0);
        let axis = axis.filter(|axis| *axis < x.shape().len() as f64);
        let expected = format!("the number of an axis of shape {}, from 0", x.shape());
        axis.map(|axis| axis as usize).ok_or_else(|| self.wrong(term.at, "no such axis", &expected))
    }

    fn number(&self, term: &Term) -> Result<f64> {
        constant(term).ok_or_else(|| self.wrong(term.at, "an expression", "a number"))
    }

    fn call(&self, at: usize, name: &str, operands: &[Term]) -> Result<Var<'g>> {
        let x = self.term(&operands[0])?;
        let second = || self.term(&operands[1]);
        Ok(match (name, operands.len()) {
            ("ln", _) => x.log(),
            ("sum", 1) => x.sum_all(),
            ("sum", _) => x.sum(&[self.axis(x, &operands[1])?]),
            ("mean", 1) => x.mean_all(),
            ("mean", _) => x.mean(&[self.axis(x, &operands[1])?]),
            ("max", 1) => x.max(&(0..x.shape().len()).collect::<Vec<_>>()),
            ("max" | "min", _) => {
                let other = second()?;
                self.broadcasts(at, &[x, other])?;
                if name == "max" { x.maximum(other) } else { x.minimum(other) }
            }
            ("pow", _) => x.pow(self.number(&operands[1])?),
            ("leaky_relu", _) => x.leaky_relu(self.number(&operands[1])?),
            ("select", _) => {
                let (a, b) = (second()?, self.term(&operands[2])?);
                self.broadcasts(at, &[x, a, b])?;
                x.select(a, b)
            }
            ("matmul", _) => self.product(at, x, second()?)?,
            ("t", _) if x.shape().len() != 2 => {
                return Err(self.wrong(at, &format!("t of shape {}", x.shape()), "a matrix"));
            }
            ("t", _) => x.t(),
            ("softmax", _) => x.softmax(self.rows(at, name, x)?),
            ("log_softmax", _) => x.log_softmax(self.rows(at, name, x)?),
            ("logsumexp", _) => x.log_sum_exp(&(0..x.shape().len()).collect::<Vec<_>>()),
            ("stop_gradient", _) => x.stop_gradient(),
            _ => {
                let f = ScalarFn::ALL.iter().find(|f| f.name() == name);
                x.map(*f.expect("the parser lets only known functions through"))
            }
        })
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
        let deep = "(".repeat(5000);
        assert!(Expression::parse(&deep).unwrap_err().to_string().contains("at most 100"));
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
