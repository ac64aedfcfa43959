//! `elbo bench`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::options::Machine;
use super::output::{self, ending};
use crate::bench::{self, Family, BenchOptions};
use crate::engine::device::Precision;
use crate::engine::error::{Error, Result};
use crate::engine::file::replace;

/// Repetitions by default: enough for quartiles, an odd number for the median to be one of them.
const REPETITIONS: usize = 11;
const QUICK_REPETITIONS: usize = 3;

/// Compare CPU and GPU: times, share of the roofline, and the size from which the GPU is faster
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
    /// File to write everything to (JSON)
    #[arg(long, value_name = "FILE", value_parser = ending("json"))]
    pub json: Option<PathBuf>,
    /// File to draw the curves to (SVG)
    #[arg(long, value_name = "FILE", value_parser = ending("svg"))]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub machine: Machine,
}

impl Bench {
    /// Measures, prints tables, and writes what was asked for.
    pub fn run(&self) -> Result<()> {
        super::warn_if_debug_build();
        let repetitions = self.repetitions.unwrap_or(if self.quick { QUICK_REPETITIONS } else { REPETITIONS });
        if repetitions == 0 {
            return Err(Error::argument("repetitions", 0, "at least 1"));
        }
        for (option, path) in [("json", &self.json), ("svg", &self.svg)] {
            path.iter().try_for_each(|path| output::spare_runs(option, path, None))?;
        }
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
        super::print(&report.to_string())?;
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report.json()).expect("a report is plain data");
            replace(path, |out| writeln!(out, "{text}"))?;
        }
        if let Some(path) = &self.svg {
            replace(path, |out| out.write_all(report.svg().as_bytes()))?;
        }
        Ok(())
    }
}
