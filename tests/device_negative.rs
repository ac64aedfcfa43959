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

use elbo::engine::device::Precision;
use elbo::engine::device::cuda::Cuda;
use elbo::engine::rng::Draw;
use elbo::{Error, Executor, Graph, Key, Params, Var};
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

/// A copy of some kernels, with one file edited, compiled.
fn copy(name: &str, wanted: &[&str], file: &str, edit: impl Fn(&str) -> String, races: bool) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("without").join(name);
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let sources = folder.join("sources");
    fs::create_dir_all(&sources).unwrap();
    for entry in fs::read_dir(kernels).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !(name.ends_with(".cuh") || wanted.contains(&name.as_str())) {
            continue;
        }
        let mut text = fs::read_to_string(&path).unwrap();
        if name == file {
            text = edit(&text);
        }
        // What has not changed since the last run of this test is not compiled again.
        let copy = sources.join(name);
        if fs::read_to_string(&copy).ok().as_ref() != Some(&text) {
            fs::write(copy, text).unwrap();
        }
    }
    elbo_emulator::build(&sources, &folder, races).unwrap()
}

/// `text` without the first `what` that comes after `after`, which must stand there once.
fn cut(text: &str, after: &str, what: &str) -> String {
    let places: Vec<usize> = text.match_indices(after).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 1, "a kernel has changed: say anew after what the {what} is: {after}");
    let at = places[0] + text[places[0]..].find(what).expect("it comes after it");
    // The lines keep their numbers, for reports.
    format!("{}{}", &text[..at], &text[at + what.len()..])
}

/// What some work gives under each schedule.
fn outcomes(work: &str, library: &Path) -> Vec<(String, String)> {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(LIBRARY, library)
        .env(WORK, work)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| line.split_once("outcome: ")?.1.split_once(' '));
    let found: Vec<_> = lines.map(|(schedule, outcome)| (schedule.to_string(), outcome.to_string())).collect();
    assert_eq!(found.len(), SCHEDULES.len(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    found
}

impl Barrier {
    fn is_missed(&self) {
        if !common::emulated() {
            return;
        }
        let whole = outcomes(self.work, elbo_emulator::library().unwrap());
        let bits: BTreeSet<&str> = whole.iter().map(|(_, outcome)| outcome.as_str()).collect();
        assert!(bits.len() == 1 && !whole[0].1.contains("error"), "the kernels as they are: {whole:#?}");
        let edit = |text: &str| cut(text, self.after, "__syncthreads();");
        let cut = outcomes(self.work, &copy(self.name, self.kernels, self.file, edit, false));
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

#[test]
fn the_barrier_before_the_last_block_of_a_long_row_goes_on_is_missed() {
    let after = "if (*last) p.tickets[row] = 0;";
    let kernels = &["reduce.cu", "optimize.cu"];
    Barrier { name: "tickets", work: "long", kernels, file: "reduce.cu", after }.is_missed();
}

/// Blocks that share a row hand their parts over by a fence and a ticket; the race detector knows both.
#[test]
fn the_fence_before_the_ticket_of_a_long_row_is_missed() {
    if !common::emulated() {
        return;
    }
    let kernels = &["reduce.cu", "optimize.cu"];
    let outcomes = |name: &str, edit: fn(&str) -> String| {
        let found = outcomes("long", &copy(name, kernels, "reduce.cu", edit, true));
        println!("{name}: {found:#?}");
        found
    };
    let whole = outcomes("races", |text| text.to_string());
    assert!(whole.iter().all(|(_, outcome)| *outcome == whole[0].1 && !outcome.contains("error")), "{whole:#?}");
    let cut = outcomes("races-without-fence", |text| cut(text, "parts[part] = of_part;", "__threadfence();"));
    assert!(cut.iter().all(|(_, outcome)| outcome.contains("race")), "nobody misses the fence: {cut:#?}");
}

/// The launch that ends a step is set up while the sums before it still run. `begin_launch` is all that it waits by.
#[test]
fn the_wait_for_the_launches_before_is_missed() {
    if !common::emulated() {
        return;
    }
    let edit = |text: &str| cut(text, "ELBO_KERNEL(tick, 1, TickParams) {", "begin_launch();");
    let copy = |name: &str, races| copy(name, &["reduce.cu", "optimize.cu"], "optimize.cu", edit, races);
    for (name, races, said) in [
        ("waits", false, "kernel tick <<<(1,1,1), (1,1,1), 0>>>"),
        ("waits", false, "ended without begin_launch()"),
        ("waits-races", true, "global memory is touched before begin_launch()"),
    ] {
        let cut = outcomes("long", &copy(name, races));
        assert!(cut.iter().all(|(_, outcome)| outcome.contains(said)), "nobody misses the wait: {cut:#?}");
    }
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

/// A product of several tiles and strips, or sums over rows and columns long enough for many threads each, or for many
/// blocks.
fn run(work: &str) -> Result<Vec<f32>, Error> {
    let gpu = Executor::new(Cuda::open(0, Precision::F32)?);
    let g = Graph::new();
    let shapes: &[[usize; 2]] = match work {
        "product" => &[[70, 300], [300, 40]],
        "long" => &[[2, 70_000]],
        _ => &[[700, 40], [3, 1500]],
    };
    let inputs: Vec<Var> = shapes.iter().map(|shape| g.input(shape)).collect();
    let outputs = match (work, &inputs[..]) {
        ("product", [a, b]) => vec![a.matmul(*b)],
        (_, [a, b]) => vec![a.sum(&[0]), b.sum(&[1])],
        (_, all) => all.iter().map(|a| a.sum(&[1])).collect(),
    };
    let numbers = |(stream, [rows, cols]): (u32, &[usize; 2])| -> Vec<f32> {
        let draw = Draw { seed: 1, step: 0, stream };
        (0..(rows * cols) as u64).map(|i| draw.normal(i)).collect()
    };
    let values: Vec<Vec<f32>> = (0..).zip(shapes).map(numbers).collect();
    let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let mut state = gpu.state(&Params::new(), 0)?;
    Ok(gpu.compile(&g, outputs)?.call(&mut state, Key::new(0), &values)?.concat())
}

/// FNV-1a over the bits.
fn hash(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
