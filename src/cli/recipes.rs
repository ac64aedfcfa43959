//! `elbo recipes`.

use std::fmt::Write;

use clap::Args;
use serde_json::json;

use super::answer::Answer;
use super::recipe::{Recipe, names};
use crate::engine::error::Result;

/// List published experiments and the numbers they reached
#[derive(Args)]
pub struct Recipes {
    #[command(flatten)]
    pub answer: Answer,
}

impl Recipes {
    /// Lists all recipes, one line each.
    pub fn run(&self) -> Result<()> {
        let (mut text, mut all) = (String::new(), Vec::new());
        for name in names() {
            let recipe = Recipe::load(name)?;
            let number = recipe.expected.value.map_or("    –".into(), |v| format!("{v:>6.2}"));
            writeln!(text, "{name:<24}{number}  {}", recipe.title).expect("writing to a string");
            all.push(json!({ "name": name, "title": recipe.title, "expected": recipe.expected }));
        }
        text += "the number is what is expected, in nats per test image; a recipe is run by `elbo reproduce --recipe NAME`, or as \
                 a start by `elbo train --recipe NAME`\n";
        self.answer.give(&text, &json!({ "recipes": all }))
    }
}
