//! Where device tests run: on the GPU if the machine has one, under the emulated driver otherwise.
//!
//! `ELBO_TEST_DEVICE=gpu` asks for the GPU: without one the tests fail instead of going elsewhere. `=emulator` asks for
//! the emulator, also where there is a GPU. That nothing ran then is a failure too.

// Every test program uses its part.
#![allow(dead_code)]

pub mod linear;
pub mod training;

use std::io::Write;
use std::sync::OnceLock;

use elbo::engine::device::cuda::Cuda;
use elbo::engine::device::cuda::probe::{NoCuda, Version, probe};
use elbo::engine::device::{Executor, Precision};
use elbo_emulator::Emulator;

/// What stands behind the driver in this process.
pub enum Behind {
    /// A GPU.
    Gpu,
    /// The emulator.
    Emulator(Emulator),
    /// Nothing; the reason was printed.
    Nothing,
}

/// Finds out once per process.
pub fn behind() -> &'static Behind {
    static FOUND: OnceLock<Behind> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var("ELBO_TEST_DEVICE").as_deref() {
        Ok("gpu") => gpu().unwrap_or_else(|reason| panic!("ELBO_TEST_DEVICE=gpu, but {reason}")),
        Ok("emulator") => emulator().unwrap_or_else(|reason| panic!("ELBO_TEST_DEVICE=emulator, but {reason}")),
        Ok(other) => panic!("ELBO_TEST_DEVICE={other}: gpu and emulator are known"),
        Err(_) => match probe(0) {
            Ok(_) => Behind::Gpu,
            Err(NoCuda::NoDriver) => emulator().unwrap_or_else(|reason| skip(&format!("no CUDA driver, and {reason}"))),
            Err(reason) => skip(&format!("there is a CUDA driver, but {reason}")),
        },
    })
}

fn gpu() -> Result<Behind, String> {
    let gpu = probe(0).map_err(|reason| reason.to_string())?;
    if gpu.emulated() {
        return Err("the driver that was found is the emulator".into());
    }
    // So that a log says on what its tests ran.
    println!("device tests run on {}", gpu.name);
    Ok(Behind::Gpu)
}

/// Must come before anything else looks for the driver: the first library of its name in a process stays the driver.
fn emulator() -> Result<Behind, String> {
    elbo_emulator::load().map(Behind::Emulator).map_err(|reason| format!("no emulator: {reason}"))
}

fn skip(reason: &str) -> Behind {
    say(&format!("device tests are skipped: {reason}"));
    Behind::Nothing
}

/// The device as an executor; see [`cuda`].
pub fn on_cuda(precision: Precision) -> Option<Executor> {
    cuda(precision).map(Executor::new)
}

/// The device, or `None` where device tests are skipped, or the GPU has no such precision.
pub fn cuda(precision: Precision) -> Option<Cuda> {
    let tensor_cores = || probe(0).unwrap().compute_capability >= Version(8, 0);
    match behind() {
        Behind::Nothing => None,
        _ if precision != Precision::F32 && !tensor_cores() => {
            say(&format!("skipped: this GPU has no tensor cores for {precision}"));
            None
        }
        _ => Some(Cuda::open(0, precision).unwrap()),
    }
}

/// Prints past the test runner, which hides what passing tests print.
pub fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("stderr can be written to");
}

/// Whether tests that need the emulated driver can run. What the environment asks for must be there.
pub fn emulated() -> bool {
    match elbo_emulator::library() {
        Ok(_) => true,
        Err(reason) if std::env::var("ELBO_TEST_DEVICE").as_deref() == Ok("emulator") => {
            panic!("ELBO_TEST_DEVICE=emulator, but no emulator: {reason}")
        }
        Err(reason) => {
            say(&format!("skipped: no emulator: {reason}"));
            false
        }
    }
}

/// Runs `test` under every schedule of the emulator, and returns what it gave under each; on a GPU twice, as it comes.
pub fn under_all_schedules<R>(mut test: impl FnMut() -> R) -> Vec<(String, R)> {
    let schedules = ["forward", "reverse", "random:1", "random:2"];
    match behind() {
        Behind::Emulator(emulator) => schedules
            .iter()
            .map(|name| {
                emulator.set_schedule(name).unwrap();
                let result = test();
                emulator.set_schedule("forward").unwrap();
                (name.to_string(), result)
            })
            .collect(),
        _ => (1..=2).map(|i| (format!("run {i}"), test())).collect(),
    }
}
