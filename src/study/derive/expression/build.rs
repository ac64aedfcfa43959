//! From terms to nodes.

use super::{Term, TermKind, at_column, constant};
use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Var};
use crate::engine::ops::ScalarFn;

/// Pushes nodes. Shapes are looked at before, because a graph panics where they do not fit.
pub(super) struct Builder<'a, 'g> {
    text: &'a str,
    g: &'g Graph,
    names: &'a [(&'a str, Var<'g>)],
}

impl<'a, 'g> Builder<'a, 'g> {
    pub(super) fn new(text: &'a str, g: &'g Graph, names: &'a [(&'a str, Var<'g>)]) -> Builder<'a, 'g> {
        Builder { text, g, names }
    }

    pub(super) fn term(&self, term: &Term) -> Result<Var<'g>> {
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
