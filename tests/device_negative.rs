//! The emulator must notice what it is there for: a barrier removed from a copy of the kernels, which then compile and
//! run, must give an error or other bits under some schedule. The kernels as they are must do neither.
//!
//! A process has one driver, so each copy runs in a process of its own: this test program once more, with
//! [`LIBRARY`] set. Nothing here needs a GPU or would run on one.

#![cfg(feature = "cuda")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use elbo::device::Precision;
use elbo::device::cuda::Cuda;
use elbo::rng::Draw;
use elbo::{Error, Exec, Fusion, Graph, Plan};
use elbo_emulator::Emulator;

/// Set for the child process: the emulator's library that it is to load.
const LIBRARY: &str = "ELBO_NEGATIVE_LIBRARY";
/// Set for the child process: the part of the work that it is to do.
const WORK: &str = "ELBO_NEGATIVE_WORK";
const SCHEDULES: [&str; 6] = ["forward", "reverse", "random:1", "random:2", "random:3", "random:4"];

/// A barrier of the kernels, and what uses it.
struct Barrier {
    name: &'static str,
    work: &'static str,
    /// Kernel files that the work needs; `tick` is in optimize.cu.
    kernels: &'static [&'static str],
    /// The file in which it stands, and a text of that file that it comes next after.
    file: &'static str,
    after: &'static str,
}

impl Barrier {
    /// A copy of the kernels without it, compiled.
    fn removed(&self) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("without").join(self.name);
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let sources = folder.join("sources");
        fs::create_dir_all(&sources).unwrap();
        for entry in fs::read_dir(kernels).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !(name.ends_with(".cuh") || self.kernels.contains(&name.as_str())) {
                continue;
            }
            let mut text = fs::read_to_string(&path).unwrap();
            if name == self.file {
                text = self.cut(&text);
            }
            // What has not changed since the last run of this test is not compiled again.
            let copy = sources.join(name);
            if fs::read_to_string(&copy).ok().as_ref() != Some(&text) {
                fs::write(copy, text).unwrap();
            }
        }
        elbo_emulator::build(&sources, &folder, false).unwrap()
    }

    fn cut(&self, text: &str) -> String {
        const BARRIER: &str = "__syncthreads();";
        let places: Vec<usize> = text.match_indices(self.after).map(|(at, _)| at).collect();
        assert_eq!(places.len(), 1, "{} has changed: say anew where the barrier {} is", self.file, self.name);
        let at = places[0] + text[places[0]..].find(BARRIER).expect("a barrier comes after it");
        // The lines keep their numbers, for reports.
        format!("{}{}", &text[..at], &text[at + BARRIER.len()..])
    }

    /// What the work gives under each schedule.
    fn outcomes(&self, library: &Path) -> Vec<(String, String)> {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(LIBRARY, library)
            .env(WORK, self.work)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter_map(|line| line.split_once("outcome: ")?.1.split_once(' '));
        let found: Vec<_> = lines.map(|(schedule, outcome)| (schedule.to_string(), outcome.to_string())).collect();
        assert_eq!(found.len(), SCHEDULES.len(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        found
    }

    fn is_missed(&self) {
        if !common::emulated() {
            return;
        }
        let whole = self.outcomes(elbo_emulator::library().unwrap());
        let bits: BTreeSet<&str> = whole.iter().map(|(_, outcome)| outcome.as_str()).collect();
        assert!(bits.len() == 1 && !whole[0].1.contains("error"), "the kernels as they are: {whole:#?}");
        let cut = self.outcomes(&self.removed());
        println!("without the barrier {}: {cut:#?}", self.name);
        assert!(cut.iter().any(|(_, outcome)| *outcome != whole[0].1), "nobody misses the barrier {}", self.name);
    }
}

#[test]
fn the_barrier_between_strips_of_a_matrix_product_is_missed() {
    let after = "cp_async_wait<T::STAGES - 2>();";
    let kernels = &["gemm.cu", "optimize.cu"];
    Barrier { name: "strips", work: "product", kernels, file: "gemm_tile.cuh", after }.is_missed();
}

#[test]
fn the_barrier_before_slices_of_a_matrix_product_are_added_is_missed() {
    let after = "tiles[slice * TILE";
    let kernels = &["gemm.cu", "optimize.cu"];
    Barrier { name: "slices", work: "product", kernels, file: "gemm_finish.cuh", after }.is_missed();
}

#[test]
fn the_barrier_in_a_reduction_over_columns_is_missed() {
    let after = "half > 0; half /= 2) {";
    let kernels = &["reduce.cu", "optimize.cu"];
    Barrier { name: "columns", work: "sums", kernels, file: "reduce.cu", after }.is_missed();
}

#[test]
fn the_barrier_between_warps_of_a_reduction_over_a_row_is_missed() {
    let after = "shared[thread / 32] = v;";
    let kernels = &["reduce.cu", "optimize.cu"];
    Barrier { name: "warps", work: "sums", kernels, file: "reduce_block.cuh", after }.is_missed();
}

/// The child process. Prints one line for each schedule: the bits of all results as a hash, or the error.
#[test]
#[ignore = "the other tests start it, with a library to load"]
fn child() {
    let Some(library) = env::var_os(LIBRARY) else { return };
    let work = env::var(WORK).unwrap();
    let emulator = Emulator::open(Path::new(&library), true).unwrap();
    for schedule in SCHEDULES {
        emulator.set_schedule(schedule).unwrap();
        emulator.clear();
        let outcome = match run(&work) {
            Ok(values) => format!("{:016x}", hash(&values)),
            Err(error) => format!("error: {} {error}", emulator.last_report()).replace('\n', " "),
        };
        println!("outcome: {schedule} {outcome}");
    }
}

/// A product of several tiles and strips, or sums over rows and columns long enough for many threads each.
fn run(work: &str) -> Result<Vec<f32>, Error> {
    let mut gpu = Cuda::open(0, Precision::F32)?;
    let g = Graph::new();
    let (sizes, results): (&[(&str, [usize; 2])], _) = match work {
        "product" => {
            let (a, b) = (g.state("a", &[70, 300]), g.state("b", &[300, 40]));
            (&[("a", [70, 300]), ("b", [300, 40])], vec![a.matmul(b)])
        }
        _ => {
            let (a, b) = (g.state("a", &[700, 40]), g.state("b", &[3, 1500]));
            (&[("a", [700, 40]), ("b", [3, 1500])], vec![a.sum(&[0]), b.sum(&[1])])
        }
    };
    let names: Vec<String> = (0..results.len()).map(|i| format!("result {i}")).collect();
    names.iter().zip(results).for_each(|(name, result)| g.store(name, result));
    let plan = gpu.bind(&Plan::build(&g, Fusion::all())?)?;
    for (stream, (name, [rows, cols])) in sizes.iter().enumerate() {
        let draw = Draw { seed: 1, step: 0, stream: stream as u32 };
        let values: Vec<f32> = (0..(rows * cols) as u64).map(|i| draw.normal(i)).collect();
        gpu.write(name, &values)?;
    }
    gpu.run(plan, 1)?;
    let mut values = Vec::new();
    for name in &names {
        values.extend(gpu.read(name)?);
    }
    Ok(values)
}

/// FNV-1a over the bits.
fn hash(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
