//! `elbo bench`.

use std::io::Write;

use super::{args, output};
use crate::bench::{self, Family, Options};
use crate::data::file::replace;
use crate::engine::device::Precision;
use crate::engine::error::{Error, Result};

/// Repetitions by default: enough for quartiles, an odd number for the median to be one of them.
const REPETITIONS: usize = 11;
const QUICK_REPETITIONS: usize = 3;

/// Measures, prints tables, and writes what was asked for.
pub fn bench(args: &args::Bench) -> Result<()> {
    super::warn_if_debug_build();
    let repetitions = args.repetitions.unwrap_or(if args.quick { QUICK_REPETITIONS } else { REPETITIONS });
    if repetitions == 0 {
        return Err(Error::argument("repetitions", 0, "at least 1"));
    }
    for (option, path) in [("json", &args.json), ("svg", &args.svg)] {
        path.iter().try_for_each(|path| output::spare_runs(option, path, None))?;
    }
    let gpu = args.machine.gpu()?.map_err(|reason| reason.to_string());
    if gpu.is_err() && args.machine.precision != Precision::F32 {
        return Err(Error::argument("precision", args.machine.precision, "f32, unless --device is a GPU"));
    }
    let options = Options {
        families: if args.only.is_empty() { Family::ALL.to_vec() } else { args.only.clone() },
        quick: args.quick,
        repetitions,
        threads: args.machine.threads()?,
        gpu,
        precision: args.machine.precision,
    };
    let report = bench::run(&options, &mut |what| super::say(format_args!("{what} …")))?;
    super::print(&report.to_string())?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report.json()).expect("a report is plain data");
        replace(path, |out| writeln!(out, "{text}"))?;
    }
    if let Some(path) = &args.svg {
        replace(path, |out| out.write_all(report.svg().as_bytes()))?;
    }
    Ok(())
}
