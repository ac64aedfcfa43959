//! The exercises of the book: their questions, and whether an answer is right.
//!
//! The questions stand in `docs/book/exercises.toml`, which this program holds and the book's chapters show. What is right is
//! not written there: it is computed by the engine when it is asked for, as value or derivative of an expression.

mod plain;

use serde::Deserialize;

use super::derive::Subject;
use crate::engine::error::{Error, Result};
use crate::engine::grad::grad;
use crate::engine::graph::{Graph, Var};
use crate::engine::interp::Interp;

pub use plain::plain;

/// The file with the questions.
const EXERCISES: &str = include_str!("../../docs/book/exercises.toml");

/// A question of the book.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exercise {
    /// Chapter and number: `2.3`.
    pub id: String,
    /// The chapter's file, without its ending.
    pub chapter: String,
    /// What is answered with.
    pub kind: AnswerKind,
    /// The question, as Markdown with TeX between dollars.
    pub text: String,
    /// What there is to choose from.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Where the right answer comes from.
    how: RightAnswer,
    /// How far from the right number an answer may be; numbers only.
    #[serde(default)]
    pub tolerance: f64,
    /// For those whose answer was wrong.
    #[serde(default)]
    pub hint: String,
    /// For those whose answer was right.
    #[serde(default)]
    pub why: String,
}

/// What an exercise is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// A number.
    Number,
    /// The number of one of the choices, from 1.
    Choice,
}

/// What is to be said of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is right.
    Right,
    /// A number that is off by more than the tolerance and by at most 20 times it: most often the right one, rounded.
    Near,
    /// It is wrong.
    Wrong,
}

/// How many tolerances from the right number an answer is still near.
const NEAR: f64 = 20.0;

/// Where a right answer comes from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum RightAnswer {
    /// One of the choices, from 1.
    Choice { choice: usize },
    /// The value of an expression.
    Value {
        value: String,
        #[serde(default)]
        at: String,
    },
    /// The derivative of an expression with respect to one of its inputs.
    Gradient {
        gradient: String,
        of: String,
        #[serde(default)]
        at: String,
        #[serde(default = "first")]
        order: usize,
    },
}

fn first() -> usize {
    1
}

#[derive(Deserialize)]
struct ExerciseFile {
    exercise: Vec<Exercise>,
}

impl Exercise {
    /// All exercises, in the order of the book.
    ///
    /// # Panics
    /// When the file that was compiled in is not well formed, which a test prevents.
    pub fn all() -> Vec<Exercise> {
        let file: ExerciseFile = toml::from_str(EXERCISES).unwrap_or_else(|e| panic!("docs/book/exercises.toml: {e}"));
        file.exercise
    }

    /// The exercise of a number.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is none.
    pub fn find(id: &str) -> Result<Exercise> {
        let known =
            || format!("one of {}", Exercise::all().iter().map(|e| e.id.as_str()).collect::<Vec<_>>().join(", "));
        Exercise::all().into_iter().find(|e| e.id == id.trim()).ok_or_else(|| Error::argument("number", id, known()))
    }

    /// Whether an answer is right. A number may be given as an expression: `log(2)/3`, `2^10`, or `2**10` as in Python.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is no number, or the number of no choice.
    pub fn judge(&self, answer: &str) -> Result<Judgement> {
        match self.how {
            RightAnswer::Choice { choice } => {
                let (count, given) = (self.choices.len(), answer.trim().parse::<usize>());
                let expected =
                    || Error::argument("answer", format!("\"{answer}\""), format!("a number from 1 to {count}"));
                let given = given.ok().filter(|n| (1..=count).contains(n)).ok_or_else(expected)?;
                Ok(if given == choice { Judgement::Right } else { Judgement::Wrong })
            }
            _ => {
                let off = (number(answer)? - self.right_number()?).abs();
                Ok(match off {
                    off if off <= self.tolerance => Judgement::Right,
                    off if off <= NEAR * self.tolerance => Judgement::Near,
                    _ => Judgement::Wrong,
                })
            }
        }
    }

    /// What is right, computed now: a number, or the number of a choice.
    ///
    /// # Errors
    /// [`Error::Argument`] when the file's expression is none, which a test prevents.
    pub fn right_number(&self) -> Result<f64> {
        match &self.how {
            RightAnswer::Choice { choice } => Ok(*choice as f64),
            RightAnswer::Value { value, at } => value_of(value, at),
            RightAnswer::Gradient { gradient, of, at, order } => derivative_of(gradient, of, at, *order),
        }
    }
}

/// A number, or an expression of numbers.
fn number(answer: &str) -> Result<f64> {
    let answer = answer.trim().replace('−', "-").replace("**", "^");
    match answer.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => value_of(&answer, "")
            .map_err(|_| Error::argument("answer", format!("\"{answer}\""), "a number such as 0.25, log(2)/3 or 2^10")),
    }
}

/// The value of an expression in f64.
fn value_of(expression: &str, at: &str) -> Result<f64> {
    // An expression of numbers alone has nothing to be differentiated by, and is refused without a name.
    let named = at.trim().is_empty().then(|| (format!("({expression}) + 0*nought"), "nought=0"));
    let (text, at) = named.as_ref().map_or((expression, at), |(text, at)| (text.as_str(), *at));
    let subject = Subject::expression(text, at)?;
    let g = Graph::new();
    let y = subject.build(&g, &leaves(&subject, &g));
    Ok(Interp::<f64>::new(&g).eval(y)[0])
}

/// A derivative of an expression by one of its inputs, by reverse mode, summed over the input's elements.
fn derivative_of(expression: &str, of: &str, at: &str, order: usize) -> Result<f64> {
    let subject = Subject::expression(expression, at)?;
    let place = subject.point().inputs().position(|(name, ..)| name == of);
    let place = place.ok_or_else(|| Error::argument("of", format!("\"{of}\""), format!("a name of {expression}")))?;
    let g = Graph::new();
    let inputs = leaves(&subject, &g);
    let y = (0..order).fold(subject.build(&g, &inputs), |y, _| grad(y, &[inputs[place]])[0].sum_all());
    Ok(Interp::<f64>::new(&g).eval(y)[0])
}

fn leaves<'g>(subject: &Subject, g: &'g Graph) -> Vec<Var<'g>> {
    subject.point().inputs().map(|(_, shape, values)| g.tensor(shape, values)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_exercise_has_a_finite_answer_that_is_found_right_and_others_wrong() {
        let all = Exercise::all();
        assert!(all.len() >= 15, "{} exercises", all.len());
        for e in &all {
            let right = e.right_number().unwrap_or_else(|error| panic!("{}: {error}", e.id));
            assert!(right.is_finite(), "{}", e.id);
            assert_eq!(e.judge(&right.to_string()).unwrap(), Judgement::Right, "{}: {right}", e.id);
            match e.kind {
                AnswerKind::Number => {
                    assert!(e.tolerance > 0.0 && e.choices.is_empty(), "{}", e.id);
                    let off_by = |tolerances: f64| e.judge(&(right + tolerances * e.tolerance).to_string()).unwrap();
                    assert_eq!((off_by(2.0), off_by(21.0)), (Judgement::Near, Judgement::Wrong), "{}", e.id);
                }
                AnswerKind::Choice => {
                    let other = right as usize % e.choices.len() + 1;
                    assert!(e.choices.len() > 1, "{}", e.id);
                    assert_eq!(e.judge(&other.to_string()).unwrap(), Judgement::Wrong, "{}", e.id);
                }
            }
            assert!(!e.hint.is_empty() && !e.why.is_empty(), "{} has a hint and a reason", e.id);
        }
        assert_eq!(all.iter().map(|e| &e.id).collect::<BTreeSet<_>>().len(), all.len(), "numbers are given once");
    }

    #[test]
    fn answers_may_be_expressions_and_nonsense_is_refused() {
        assert!((number("log(2)/2").unwrap() - 2f64.ln() / 2.0).abs() < 1e-15 && number("−3").unwrap() == -3.0);
        assert_eq!((number("2**3 + 1").unwrap(), number("2^3 + 1").unwrap()), (9.0, 9.0));
        for bad in ["about one", "", "nan"] {
            assert!(number(bad).unwrap_err().to_string().contains("answer"), "{bad}");
        }
        assert!(Exercise::find("99.9").unwrap_err().to_string().contains("99.9"));
    }

    #[test]
    fn derivatives_are_those_of_reverse_mode() {
        let slope = |order| derivative_of("x*x*y", "x", "x=3, y=3", order).unwrap();
        assert_eq!((slope(1), slope(2)), (18.0, 6.0));
    }
}
