//! `elbo export`: the parameters of a run in a file of their own, for other programs.

use std::fs;
use std::path::Path;

use super::{args, output};
use crate::engine::error::{Error, Result};
use crate::train::RunFolder;
use crate::train::checkpoint::Checkpoint;
use crate::vae::Vae;

/// Writes the parameters of a run, without the optimiser's moments, in the number type that is asked for.
pub fn export(args: &args::Export) -> Result<()> {
    let path = if args.run.is_file() { args.run.clone() } else { RunFolder::open(&args.run)?.0.checkpoint_path() };
    output::spare_runs("out", &args.out, Some(&path))?;
    let mut checkpoint = Checkpoint::load(&path)?;
    let folders = [&path, &args.out].map(|file| file.parent().unwrap_or(Path::new("")));
    checkpoint.config.data = checkpoint.config.data.moved(folders[0], folders[1]);
    checkpoint.export(&args.out, args.dtype)?;
    let count = Vae::new(checkpoint.config.model)?.parameter_count();
    let bytes = fs::metadata(&args.out).map_err(Error::io("read", &args.out))?.len();
    super::print(&format!("{count} parameters in {}, {bytes} bytes: {}\n", args.dtype, args.out.display()))
}
