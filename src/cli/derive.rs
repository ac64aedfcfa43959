//! `elbo derive`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::answer::Answer;
use super::output::{self, ending};
use crate::engine::error::Result;
use crate::engine::file;
use crate::study::derive::{BUILT_IN, BuiltIn, Subject};

/// Print the chain rule on a small graph with every number
///
/// The tape, the walk back with every contribution, and finite differences beside the gradients.
#[derive(Args)]
#[command(after_long_help = after_help())]
pub struct Derive {
    /// What is differentiated: an expression, or one of kl, bce, gaussian_nll, logsumexp, softmax, matmul, vae
    ///
    /// As in "softplus(l) - x*l". Without it the built-in ones are listed. Write -- before one that begins with a minus.
    pub expression: Option<String>,
    /// The values of its names
    ///
    /// As in "l=2, x=1". Arrays are written "w=[1 2; 3 4], x=[1; 2], v=[1 2 3]"; a value that is an array is summed before it
    /// is differentiated.
    #[arg(long, value_name = "NAME=VALUE,…", default_value = "", hide_default_value = true)]
    pub at: String,
    /// 2 walks back over the gradients too
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub order: u8,
    /// Write a page that steps through it, one file that opens from disk
    #[arg(long, value_name = "FILE", value_parser = ending("html"))]
    pub html: Option<PathBuf>,
    /// Write the graph as a picture, with values and cotangents
    #[arg(long, value_name = "FILE", value_parser = ending("svg"))]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub answer: Answer,
}

pub(super) fn after_help() -> String {
    format!("Expressions have numbers, names, pi, + - * / ^ @ and parentheses, and functions\n{}", Subject::functions())
}

impl Derive {
    /// Prints the derivation, and writes the page and the picture.
    pub fn run(&self) -> Result<()> {
        let Some(expression) = &self.expression else { return self.answer.give(&listed("derive"), &known()) };
        let subject = Subject::find(expression, &self.at)?;
        for (option, path) in [("html", &self.html), ("svg", &self.svg)] {
            path.iter().try_for_each(|path| output::spare_runs(option, path, None))?;
        }
        let derivation = subject.derivation(usize::from(self.order));
        if let Some(path) = &self.html {
            derivation.page().write(path)?;
            super::say(format_args!("page that steps: {}", path.display()));
        }
        if let Some(path) = &self.svg {
            file::replace(path, |out| out.write_all(derivation.svg().as_bytes()))?;
            super::say(format_args!("picture: {}", path.display()));
        }
        self.answer.give(&derivation.text(), &derivation)
    }
}

/// The built-in functions as a value.
pub(super) fn known() -> serde_json::Value {
    let value = |known: &BuiltIn| json!({ "name": known.name, "what": known.what, "expression": known.expression, "at": known.at });
    json!({ "known": BUILT_IN.iter().map(value).collect::<Vec<_>>() })
}

/// The built-in functions as a table.
pub(super) fn listed(command: &str) -> String {
    let mut text = format!("elbo {command} NAME, or elbo {command} EXPRESSION --at NAME=VALUE,…\n\n");
    for known in BUILT_IN {
        text += &format!("{:<13} {}\n", known.name, known.what);
        if !known.expression.is_empty() {
            text += &format!("{:<13} {} --at \"{}\"\n", "", known.expression, known.at);
        }
    }
    text
}
