//! `elbo export`: the parameters of a run in a file of their own, or its encoder and decoder, for other programs.

mod onnx;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use serde_json::json;

use super::answer::Answer;
use super::options::effects;
use super::output;
use crate::engine::error::{Error, Result};
use crate::train::Run;
use crate::train::checkpoint::{Checkpoint, Stored};
use crate::vae::Vae;

/// Write a run's parameters to a file, or its encoder and decoder as ONNX
#[derive(Args)]
pub struct Export {
    /// The run: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// What to write: safetensors, the parameters; onnx, encoder.onnx and decoder.onnx
    ///
    /// The encoder takes x [N, D] to mu and logvar [N, K] of q(z|x). The decoder takes z [N, K] to mean [N, D], E[x|z], and to
    /// sigma where the likelihood has a spread.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ExportFormat::Safetensors)]
    pub format: ExportFormat,
    /// Number type of safetensors: f32, bf16 or f16; rounded to the nearest, ties to even [default: f32]
    #[arg(long, value_name = "NAME")]
    pub dtype: Option<Stored>,
    /// File to write (safetensors), or folder (onnx) [default: model.safetensors; the current folder]
    #[arg(long, short, help_heading = "Output", value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// With onnx, file for inputs and what this program makes of them, to compare with (JSON)
    #[arg(long, help_heading = "Output", value_name = "FILE", value_parser = output::ending("json"), hide_short_help = true)]
    pub check_values: Option<PathBuf>,
    #[command(flatten)]
    pub answer: Answer,
}

/// What is written of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    Safetensors,
    Onnx,
}

impl Export {
    /// Writes what is asked for.
    pub fn run(&self) -> Result<()> {
        let path = if self.run.is_file() { self.run.clone() } else { Run::checkpoint_path(&self.run) };
        match self.format {
            ExportFormat::Safetensors => {
                let typed = [("check-values", self.check_values.is_some())];
                effects::without_effect(typed, "--format is safetensors", "--format onnx beside it")?;
                self.parameters(&path)
            }
            ExportFormat::Onnx => {
                let typed = [("dtype", self.dtype.is_some())];
                effects::without_effect(typed, "--format is onnx, whose numbers are f32", "--format safetensors")?;
                onnx::write(self, &path)
            }
        }
    }

    /// Writes the parameters of a run, without the optimiser's moments, in the number type that is asked for.
    fn parameters(&self, path: &Path) -> Result<()> {
        let out = self.out.clone().unwrap_or("model.safetensors".into());
        output::must_end("out", &out, "safetensors")?;
        output::spare_runs("out", &out, Some(path))?;
        let mut checkpoint = Checkpoint::load(path)?;
        let folders = [path, &out].map(|file| file.parent().unwrap_or(Path::new("")));
        checkpoint.config.data = checkpoint.config.data.moved(folders[0], folders[1]);
        let dtype = self.dtype.unwrap_or_default();
        checkpoint.export(&out, dtype)?;
        let count = Vae::new(checkpoint.config.model)?.params().count();
        let bytes = fs::metadata(&out).map_err(Error::io("read", &out))?.len();
        let text = format!("{count} parameters in {dtype}, {bytes} bytes: {}\n", out.display());
        let dtype = dtype.to_string();
        self.answer.give(&text, &json!({ "file": out, "parameters": count, "dtype": dtype, "bytes": bytes }))
    }
}
