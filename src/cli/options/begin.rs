//! The options that a run is begun with.

use clap::Args;

use super::{Data, Overrides};
use crate::cli::recipe::Recipe;
use crate::engine::error::Result;
use crate::train::Experiment;

/// What is trained on what: `elbo train` makes one run of it, `elbo sweep` several.
#[derive(Args)]
pub struct RunOptions {
    /// Take what is not given here from a recipe: a name of `elbo recipes`, or FILE.toml
    #[arg(long, value_name = "NAME|FILE", help_heading = "Model")]
    pub recipe: Option<String>,
    /// Which of the recipe's protocols to follow, where code and paper differ [default: as the recipe says]
    #[arg(long, value_name = "NAME", requires = "recipe", hide_short_help = true, help_heading = "Model")]
    pub protocol: Option<String>,
    #[command(flatten)]
    pub data: Data,
    /// Passes over the training set [default: 10, or as recipe or run say]
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    pub epochs: Option<u32>,
    /// The first N stages of the recipe's schedule only [default: all]
    #[arg(long, value_name = "N", requires = "recipe", conflicts_with = "epochs", hide_short_help = true)]
    #[arg(help_heading = "Optimisation")]
    pub stages: Option<usize>,
    /// Seed of initial values, shuffling and noise: equal seeds give equal bytes
    #[arg(long, value_name = "SEED", default_value_t = 1, help_heading = "Optimisation")]
    pub seed: u64,
    #[command(flatten)]
    pub training: Overrides<Experiment>,
}

impl RunOptions {
    /// What is asked for: the recipe, or else the usual run, with what was typed.
    pub fn experiment(&self) -> Result<Experiment> {
        let below = match &self.recipe {
            None => Experiment::default(),
            Some(name) => {
                let own_images = self.data.data.is_some();
                Recipe::load(name)?.experiment(self.protocol.as_deref(), self.stages, own_images)?
            }
        };
        let mut asked = self.training.over(below);
        (asked.config.seed, asked.config.data) = (self.seed, self.data.source());
        asked.config.epochs = self.epochs.unwrap_or(asked.config.epochs);
        Ok(asked)
    }
}
