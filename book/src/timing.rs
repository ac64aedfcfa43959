//! Nanoseconds per element, measured on one machine into a file that the pages read: they stay as they are until somebody
//! measures again.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use elbo::engine::isa::Isa;
use elbo::engine::ops::{BinaryFn, ScalarFn};
use serde::{Deserialize, Serialize};

use crate::{root, source};

/// Where the numbers are.
pub const FILE: &str = "benches/results/elementwise.json";

/// How often the table is measured; the best counts.
const PASSES: usize = 20;

/// What was measured, where and when.
#[derive(Serialize, Deserialize)]
pub struct Timings {
    /// The processor, by its own name.
    pub machine: String,
    /// The widest vector instructions it has.
    pub isa: String,
    /// The day.
    pub date: String,
    /// Nanoseconds per element by the function's name: one thread, 2048 numbers that stay in the nearest cache.
    pub nanoseconds: BTreeMap<String, f64>,
}

/// The numbers of the file; none where nothing was measured yet.
///
/// # Errors
/// When it is something else.
pub fn read() -> Result<Option<Timings>> {
    if !root().join(FILE).is_file() {
        return Ok(None);
    }
    let numbers = serde_json::from_str(&source::text(FILE)?);
    numbers.map(Some).with_context(|| format!("{FILE} is not as `elbo-book time` writes it"))
}

/// Measures every function of the table and writes the file.
///
/// # Errors
/// A debug build, whose times mean nothing, or a file that cannot be written.
pub fn measure() -> Result<()> {
    anyhow::ensure!(
        !cfg!(debug_assertions),
        "a debug build's times mean nothing: cargo run --release -p elbo-book -- time"
    );
    let isa = Isa::detect();
    let xs: Vec<f32> = (0..2048).map(|i| 0.05 + (i * 37 % 2048) as f32 / 512.0).collect();
    let others: Vec<f32> = xs.iter().rev().copied().collect();
    let mut out = vec![0.0f32; xs.len()];
    let mut nanoseconds = BTreeMap::new();
    let mut keep = |name: &str, time: f64| {
        let best = nanoseconds.entry(name.to_string()).or_insert(time);
        *best = best.min(time);
    };
    // The whole table several times over, so that a busy second of the machine falls on no function alone.
    for _ in 0..PASSES {
        for &f in ScalarFn::ALL {
            keep(f.name(), best(xs.len(), || isa.run(|| f.eval_slice(black_box(&xs), &mut out))));
        }
        for &f in BinaryFn::ALL {
            keep(f.name(), best(xs.len(), || isa.run(|| zipped(f, black_box(&xs), &others, &mut out))));
        }
    }
    black_box(&out);
    let timings = Timings { machine: processor(), isa: isa.to_string(), date: today(), nanoseconds };
    let path = root().join(FILE);
    std::fs::create_dir_all(path.parent().context("a folder")?)?;
    std::fs::write(&path, serde_json::to_string_pretty(&timings)? + "\n")?;
    println!("{}", path.display());
    Ok(())
}

/// One loop per function, as the kernels have, so that each is vectorised.
#[inline(always)]
fn zipped(f: BinaryFn, a: &[f32], b: &[f32], out: &mut [f32]) {
    macro_rules! loops {
        ($($name:ident)*) => {
            match f {
                $(BinaryFn::$name => {
                    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                        *o = BinaryFn::$name.eval(*a, *b);
                    }
                })*
            }
        };
    }
    loops!(Add Sub Mul Div Max Min Lt Le Eq);
}

/// The best of 200 rounds of about 5 µs and more, in ns per element with two decimals: what the machine does when nothing
/// interrupts it.
fn best(elements: usize, mut run: impl FnMut()) -> f64 {
    let rounds = (0..200).map(|_| {
        let start = Instant::now();
        for _ in 0..8 {
            run();
        }
        start.elapsed().as_secs_f64() * 1e9 / (8 * elements) as f64
    });
    let best = rounds.fold(f64::INFINITY, f64::min);
    (best * 100.0).round() / 100.0
}

/// The processor's name with family and model, for names such as "AMD EPYC" stand for several generations.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let line = info.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
        Some(line.split(':').nth(1)?.trim().to_string())
    };
    match (field("model name"), field("cpu family"), field("model")) {
        (Some(name), Some(family), Some(model)) => format!("{name}, family {family} model {model}"),
        (Some(name), ..) => name,
        _ => std::env::consts::ARCH.to_string(),
    }
}

/// The day as year-month-day, from the seconds since 1970 (Hinnant's civil_from_days).
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let z = (since / 86_400) as i64 + 719_468;
    let era = z / 146_097;
    let day_of_era = z - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
