//! `elbo export`: the parameters of a run in a file of their own, for other programs.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::json;

use super::answer::Answer;
use super::output::{self, ending};
use crate::engine::error::{Error, Result};
use crate::train::Run;
use crate::train::checkpoint::{Checkpoint, Stored};
use crate::vae::Vae;

/// Write a run's parameters to a file, in f32, bf16 or f16
#[derive(Args)]
pub struct Export {
    /// The run: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// Number type: f32, bf16 or f16; rounded to the nearest, ties to even
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub dtype: Stored,
    /// File to write (safetensors)
    #[arg(long, short, help_heading = "Output", value_name = "FILE", default_value = "model.safetensors", value_parser = ending("safetensors"))]
    pub out: PathBuf,
    #[command(flatten)]
    pub answer: Answer,
}

impl Export {
    /// Writes the parameters of a run, without the optimiser's moments, in the number type that is asked for.
    pub fn run(&self) -> Result<()> {
        let path = if self.run.is_file() { self.run.clone() } else { Run::checkpoint_path(&self.run) };
        output::spare_runs("out", &self.out, Some(&path))?;
        let mut checkpoint = Checkpoint::load(&path)?;
        let folders = [&path, &self.out].map(|file| file.parent().unwrap_or(Path::new("")));
        checkpoint.config.data = checkpoint.config.data.moved(folders[0], folders[1]);
        checkpoint.export(&self.out, self.dtype)?;
        let count = Vae::new(checkpoint.config.model)?.params().count();
        let bytes = fs::metadata(&self.out).map_err(Error::io("read", &self.out))?.len();
        let text = format!("{count} parameters in {}, {bytes} bytes: {}\n", self.dtype, self.out.display());
        let dtype = self.dtype.to_string();
        self.answer.give(&text, &json!({ "file": self.out, "parameters": count, "dtype": dtype, "bytes": bytes }))
    }
}
