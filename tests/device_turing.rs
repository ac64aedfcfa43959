//! GPUs of the Turing generation (sm_75) have no asynchronous copies, and their kernels other stages and less shared
//! memory. Here a copy of the kernels is compiled as for them and run under the emulated driver with compute capability
//! 7.5, in a process of its own: this test program once more, with [`LIBRARY`] set.

#![cfg(feature = "cuda")]

mod common;

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use common::training::Training;
use elbo::engine::device::Precision;
use elbo::engine::device::cuda::Cuda;
use elbo::engine::rng::Draw;
use elbo::vae::{UpdateRule, Vae, VaeConfig};
use elbo::{Cpu, Executor, Fusion, Graph, Key, Optimizer, Params};
use elbo_emulator::Emulator;

/// Set for the child process: the emulator's library that it is to load.
const LIBRARY: &str = "ELBO_TURING_LIBRARY";

#[test]
fn kernels_for_turing_agree_with_the_cpu() {
    if !common::emulated() {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("turing");
    let sources = folder.join("sources");
    fs::create_dir_all(&sources).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut text = fs::read_to_string(&path).unwrap();
        if name == "elbo.cuh" {
            let patched = text.replacen("#pragma once\n", "#pragma once\n#define ELBO_BEFORE_SM80 1\n", 1);
            assert_ne!(patched, text, "elbo.cuh has no place for the definition");
            text = patched;
        }
        // What has not changed since the last run of this test is not compiled again.
        let copy = sources.join(name);
        if fs::read_to_string(&copy).ok().as_ref() != Some(&text) {
            fs::write(copy, text).unwrap();
        }
    }
    let library = elbo_emulator::build(&sources, &folder, false).unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .envs([(LIBRARY, library.as_os_str()), ("ELBO_EMU_CC", "75".as_ref())])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}\n{}", String::from_utf8_lossy(&child.stderr));
    assert!(text.contains("products, programs, training: done"), "{text}");
}

/// Not a test of its own: what the child process does.
#[test]
#[ignore = "runs in the process that kernels_for_turing_agree_with_the_cpu starts"]
fn child() {
    let Some(library) = env::var_os(LIBRARY) else { return };
    let _emulator = Emulator::open(Path::new(&library), true).unwrap();
    let gpu = Cuda::open(0, Precision::F32).unwrap();
    assert_eq!(gpu.gpu().compute_capability.to_string(), "7.5");
    for check in gpu.check_products(137, (false, false)).unwrap() {
        assert!(check.kernel.starts_with("gemm_f32_") && check.product < 1e-6 && check.column_sums < 1e-6, "{check:?}");
    }
    let (gpu, cpu) = (Executor::new(gpu), Executor::new(Cpu::new(1)));
    for shape in [[5, 7, 9], [70, 40, 33], [128, 64, 300]] {
        let (found, expected) = (wide_epilogue(&gpu, shape), wide_epilogue(&cpu, shape));
        let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let worst = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4 * scale, "{shape:?}: {worst} of {scale}");
    }
    let (found, expected) = (trained(&gpu), trained(&cpu));
    assert!((found - expected).abs() < 1e-4 * expected, "{found} and {expected}");
    println!("products, programs, training: done");
}

/// A product whose epilogue keeps forty values alive at a time: more registers than the tile's own memory has room for.
fn wide_epilogue(executor: &Executor, [m, n, k]: [usize; 3]) -> Vec<f32> {
    const VALUES: usize = 40;
    let g = Graph::new();
    let z = g.input(&[m, k]).matmul(g.input(&[k, n]));
    // tanh z, tanh tanh z, …: constants would need registers too.
    let values: Vec<_> = std::iter::successors(Some(z.tanh()), |v| Some(v.tanh())).take(VALUES).collect();
    let terms = (0..VALUES).map(|i| values[i] * values[VALUES - 1 - i]);
    let mut f = executor.compile(&g, [terms.reduce(|a, b| a + b).unwrap()]).unwrap();
    let regs = f.plan().unwrap().steps().iter().map(|s| s.registers()).max().unwrap();
    assert!((37..=64).contains(&regs), "the epilogue has {regs} registers");
    let [a, b] = [(0, m * k), (1, k * n)].map(|(stream, size)| {
        let draw = Draw { seed: 6, step: 0, stream };
        (0..size as u64).map(|i| draw.normal(i)).collect::<Vec<_>>()
    });
    let mut state = executor.state(&Params::new(), 0).unwrap();
    let [y] = f.call(&mut state, Key::new(0), &[&a, &b]).unwrap();
    y
}

/// The summed loss of six training steps.
fn trained(executor: &Executor) -> f64 {
    let vae = Vae::new(VaeConfig { image: [9, 8], ..VaeConfig::new(3).hidden(&[40]) }).unwrap();
    let objective = UpdateRule::elbo(Optimizer::adam(), Some(5.0));
    let draw = Draw { seed: 7, step: 0, stream: 0 };
    let images: Vec<u8> = (0..72 * 60).map(|i| if draw.uniform(i) < 0.3 { 255 } else { 0 }).collect();
    let mut training = Training::start(executor, &vae, &objective, (10, &images), Fusion::all());
    training.run(6);
    training.take_loss()
}
