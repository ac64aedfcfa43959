//! From text to terms, by recursive descent: sums of products of powers of atoms.

use super::{FUNCTIONS, Term, TermKind, at_column, constant, names_of_functions};
use crate::engine::error::{Error, Result};
use crate::engine::ops::ScalarFn;

/// How deep parentheses may stand in each other: the parser calls itself for each.
const DEEPEST: usize = 100;

/// A text and how far it is read.
pub(super) struct ExpressionParser<'t> {
    text: &'t str,
    letters: Vec<char>,
    at: usize,
    depth: usize,
}

impl<'t> ExpressionParser<'t> {
    pub(super) fn new(text: &'t str) -> ExpressionParser<'t> {
        ExpressionParser { text, letters: text.chars().collect(), at: 0, depth: 0 }
    }

    /// All of the text as one expression.
    pub(super) fn whole(&mut self) -> Result<Term> {
        let root = self.sum()?;
        match self.peek() {
            None => Ok(root),
            Some(_) => Err(self.wrong("an operator + - * / ^ @, or the end")),
        }
    }

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
        self.signs(&['+', '-', '−'], ExpressionParser::product)
    }

    fn product(&mut self) -> Result<Term> {
        self.signs(&['*', '/', '@', '·'], ExpressionParser::negative)
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
