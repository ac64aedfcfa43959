//! `elbo bench`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::answer::Answer;
use super::options::Machine;
use super::output::{self, ending};
use crate::bench::{self, BenchOptions, Family};
use crate::engine::device::Precision;
use crate::engine::error::{Error, Result};
use crate::engine::file::replace;

/// Repetitions by default: enough for quartiles, an odd number for the median to be one of them.
const REPETITIONS: usize = 11;
const QUICK_REPETITIONS: usize = 3;

/// Compare CPU and GPU: times, and shares of the roofline
///
/// With a GPU also the size from which it is faster.
#[derive(Args)]
pub struct Bench {
    /// Small sizes and short repetitions: shows that everything works, in seconds
    #[arg(long)]
    pub quick: bool,
    /// Families: matmul, pointwise, reduce, adam, v1, v2, separated by commas [default: all]
    #[arg(long, value_name = "FAMILIES", value_delimiter = ',')]
    pub only: Vec<Family>,
    /// Repetitions of each measurement, of which the median is reported [default: 11, with --quick 3]
    #[arg(long, value_name = "N")]
    pub repetitions: Option<usize>,
    /// File to draw the curves to (SVG)
    #[arg(long, help_heading = "Output", value_name = "FILE", value_parser = ending("svg"), value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub answer: Answer,
    #[command(flatten)]
    pub machine: Machine,
}

impl Bench {
    /// Measures, draws what was asked for, and prints tables.
    pub fn run(&self) -> Result<()> {
        super::warn_if_debug_build();
        let repetitions = self.repetitions.unwrap_or(if self.quick { QUICK_REPETITIONS } else { REPETITIONS });
        if repetitions == 0 {
            return Err(Error::argument("repetitions", 0, "at least 1"));
        }
        self.svg.iter().try_for_each(|path| output::spare_runs("svg", path, None))?;
        let gpu = self.machine.gpu()?.map_err(|reason| reason.to_string());
        if gpu.is_err() && self.machine.precision != Precision::F32 {
            return Err(Error::argument("precision", self.machine.precision, "f32, unless --device is a GPU"));
        }
        let options = BenchOptions {
            families: if self.only.is_empty() { Family::ALL.to_vec() } else { self.only.clone() },
            quick: self.quick,
            repetitions,
            threads: self.machine.threads()?,
            gpu,
            precision: self.machine.precision,
        };
        let report = bench::run(&options, &mut |what| super::say(format_args!("{what} …")))?;
        if let Some(path) = &self.svg {
            replace(path, |out| out.write_all(report.svg().as_bytes()))?;
        }
        self.answer.give(&report.to_string(), &report.json())
    }
}
