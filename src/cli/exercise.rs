//! `elbo exercise`.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::answer::Answer;
use crate::engine::error::Result;
use crate::study::exercise::{AnswerKind, Exercise as Question, Judgement, plain};

/// Check an answer to an exercise of the book
///
/// Without a number it lists all exercises, with a number it shows one. What is right is computed by the engine when it is
/// asked for.
#[derive(Args)]
pub struct Exercise {
    /// Which exercise: chapter and number
    #[arg(value_name = "NUMBER")]
    pub number: Option<String>,
    /// The answer: a number, an expression such as log(2)/3 or 2^10, or the number of a choice
    #[arg(long, value_name = "ANSWER", requires = "number", allow_hyphen_values = true)]
    pub answer: Option<String>,
    #[command(flatten)]
    pub give: Answer,
}

impl Exercise {
    /// Lists, shows, or judges; exit code 1 for an answer that is wrong.
    pub fn run(&self) -> Result<ExitCode> {
        let Some(number) = &self.number else {
            let all: Vec<Value> = Question::all().iter().map(value).collect();
            self.give.give(&listing(), &json!({ "exercises": all }))?;
            return Ok(ExitCode::SUCCESS);
        };
        let question = Question::find(number)?;
        let Some(answer) = &self.answer else {
            self.give.give(&shown(&question), &json!({ "exercises": [value(&question)] }))?;
            return Ok(ExitCode::SUCCESS);
        };
        let judgement = question.judge(answer)?;
        let right = judgement == Judgement::Right;
        let (verdict, more) = match judgement {
            Judgement::Right => ("right.".to_string(), &question.why),
            Judgement::Near => (near(&question), &question.hint),
            Judgement::Wrong => ("not right.".to_string(), &question.hint),
        };
        let judged = json!({ "id": question.id, "answer": answer, "right": right, "why": plain(more) });
        self.give.give(&format!("{verdict} {}\n", plain(more)), &judged)?;
        Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What is said of a number that is nearly right: as a rule it was rounded too early.
fn near(question: &Question) -> String {
    format!("near, but not right: it may be off by {} at most. Give more digits, or a formula.", question.tolerance)
}

fn value(question: &Question) -> Value {
    let choices: Vec<String> = question.choices.iter().map(|choice| plain(choice)).collect();
    json!({ "id": question.id, "chapter": question.chapter, "text": plain(&question.text), "choices": choices })
}

fn listing() -> String {
    let mut text = String::new();
    let mut chapter = String::new();
    for question in Question::all() {
        if question.chapter != chapter {
            chapter.clone_from(&question.chapter);
            writeln!(text, "\n{}", chapter.replace('-', " ")).expect("writing to a string");
        }
        writeln!(text, "  {:<5}{}", question.id, plain(&question.text)).expect("writing to a string");
    }
    text.trim_start().to_string() + "\nelbo exercise NUMBER --answer …\n"
}

fn shown(question: &Question) -> String {
    let mut text = format!("{}  {}\n", question.id, plain(&question.text));
    for (i, choice) in question.choices.iter().enumerate() {
        writeln!(text, "  {}. {}", i + 1, plain(choice)).expect("writing to a string");
    }
    let what = match question.kind {
        AnswerKind::Number => format!("a number, off by {} at most, or a formula", question.tolerance),
        AnswerKind::Choice => "the number of a choice".to_string(),
    };
    text + &format!("\nelbo exercise {} --answer …   ({what})\n", question.id)
}
