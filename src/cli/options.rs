//! Options that several commands share: those of a configuration, of which the configuration itself is the source
//! ([`Overrides`]), and here those of images and machine.

mod begin;
pub mod effects;
mod overrides;
mod variants;

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueHint};

pub use begin::RunOptions;
pub use overrides::{Overrides, ids};
pub use variants::{Variants, no_idle_number};

use super::board::Board;
use crate::engine::device::{Device, Precision, cuda};
use crate::engine::error::{Error, Result};
use crate::engine::isa::Isa;
use crate::engine::steps::gemm::tiles::Tiles;
use crate::train::{Run, Source, Trainer};

/// Which images.
#[derive(Args)]
#[command(next_help_heading = "Data")]
pub struct Data {
    /// Folder with MNIST's four IDX files, plain or gzip [default: digits drawn by this program]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Number of built-in training digits, in images
    #[arg(long, value_name = "N", default_value_t = 30_000, conflicts_with = "data")]
    pub train_size: usize,
    /// Number of built-in test digits, in images
    #[arg(long, value_name = "N", default_value_t = 5_000, conflicts_with = "data")]
    pub test_size: usize,
    /// Which built-in digits; independent of --seed
    #[arg(long, value_name = "SEED", default_value_t = 1, conflicts_with = "data", hide_short_help = true)]
    pub data_seed: u64,
}

impl Data {
    /// The source named by the options.
    pub fn source(&self) -> Source {
        match &self.data {
            Some(path) => Source::Folder { path: path.clone(), images: None },
            None => Source::Digits { seed: self.data_seed, train: self.train_size, test: self.test_size },
        }
    }
}

/// How far a training goes in this session, and what is said meanwhile.
#[derive(Args)]
pub struct Session {
    /// Stop after this many updates in all, as Ctrl-C would, leaving a checkpoint
    #[arg(long, value_name = "UPDATES", hide_short_help = true, help_heading = "Output")]
    pub pause_at: Option<u32>,
    /// No progress, only the result
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
    /// Write curves, configuration and samples as TensorBoard reads them, into the run folder
    #[arg(long)]
    pub tensorboard: bool,
}

impl Session {
    /// Where the curves of a run go besides, if that is asked for.
    pub(super) fn board(&self, run: &Run, trainer: &Trainer) -> Option<Board> {
        self.tensorboard.then(|| Board::new(run, trainer))
    }
}

/// On what it runs.
#[derive(Args)]
#[command(next_help_heading = "Device")]
pub struct Machine {
    /// Threads; 0 means one per core
    ///
    /// The numbers do not depend on it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Device: auto (a GPU if there is one), cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Precision of matrix products: f32, bf16x3, tf32 or bf16
    ///
    /// bf16x3 takes two bf16 per factor. Everything else than products is f32. On a GPU large products in f32 may take
    /// three bf16 per factor: as accurate as f32 for factors of 8e-34 to 3.39e38; small ones that share a launch with what
    /// follows them are f32 in any precision. On the CPU bf16x3 and bf16 need a
    /// tile unit (AMX); the variable ELBO_TILES=amx takes it for f32 too, ELBO_TILES=twin computes the same numbers
    /// without one, slowly, and ELBO_TILES=off refuses it.
    #[arg(long, value_name = "NAME", default_value = "f32", hide_short_help = true)]
    pub precision: Precision,
}

impl Machine {
    /// The executor that is asked for: with `auto` and no GPU the CPU.
    pub fn device(&self) -> Result<Device> {
        match self.gpu()? {
            Ok(ordinal) => Ok(Device::Cuda { ordinal, precision: self.precision }),
            Err(_) if self.precision == Precision::F32 => Ok(Device::Cpu { threads: self.threads()? }),
            Err(_) => {
                // A precision that is not there is refused before any file is read.
                Tiles::new(self.precision)?;
                Ok(Device::Tiles { threads: self.threads()?, precision: self.precision })
            }
        }
    }

    /// Says on stderr why `auto` is the CPU, before work that a GPU would shorten.
    pub fn say_why_no_gpu(&self) -> Result<()> {
        if let Err(NoGpu::Unusable(Error::Device { reason, .. })) = self.gpu()? {
            crate::cli::say(format_args!("running on the CPU: {reason} (`elbo info` says more)"));
        }
        Ok(())
    }

    /// The number of the GPU that is asked for, or why there is none.
    pub fn gpu(&self) -> Result<std::result::Result<usize, NoGpu>> {
        Isa::asked()?;
        Tiles::asked()?;
        match self.device.as_str() {
            "cpu" => Ok(Err(NoGpu::NotAsked)),
            "auto" => Ok(cuda::automatic().map(|gpu| gpu.ordinal).map_err(NoGpu::Unusable)),
            name => self.ordinal(name).map(Ok),
        }
    }

    /// The number of threads that is asked for.
    pub fn threads(&self) -> Result<usize> {
        match self.threads {
            0..=1024 => Ok(self.threads),
            n => Err(Error::argument("threads", n, "at most 1024; 0 means one per core")),
        }
    }

    fn ordinal(&self, name: &str) -> Result<usize> {
        let number = match name {
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        number.ok_or_else(|| Error::argument("device", format!("\"{name}\""), "auto, cpu, cuda or cuda:N"))
    }
}

/// Why no GPU is used.
pub enum NoGpu {
    /// The command line says `cpu`.
    NotAsked,
    /// There is none that can be used.
    Unusable(Error),
}

impl fmt::Display for NoGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoGpu::NotAsked => f.write_str("--device cpu was asked for"),
            NoGpu::Unusable(reason) => reason.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        let device = |name: &str, precision| Machine { threads: 3, device: name.into(), precision }.device();
        assert_eq!(device("cpu", Precision::F32).unwrap(), Device::Cpu { threads: 3 });
        for (name, ordinal) in [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)] {
            let precision = Precision::Tf32;
            assert_eq!(device(name, precision).unwrap(), Device::Cuda { ordinal, precision });
        }
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
            assert!(matches!(device(name, Precision::F32), Err(Error::Argument { .. })));
        }
        assert!(device("cpu", Precision::Tf32).unwrap_err().to_string().contains("--device"));
        match Tiles::new(Precision::Bf16) {
            Ok(_) => assert!(matches!(device("cpu", Precision::Bf16), Ok(Device::Tiles { threads: 3, .. }))),
            Err(why) => assert_eq!(device("cpu", Precision::Bf16).unwrap_err().to_string(), why.to_string()),
        }
    }
}
