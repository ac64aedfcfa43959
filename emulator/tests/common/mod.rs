//! The test kernels, compiled once per test binary.
#![allow(dead_code, reason = "not every test binary uses all of it")]

pub mod driver;

use std::path::{Path, PathBuf};

/// The schedules under which a correct kernel must give the same bits.
pub const SCHEDULES: [&str; 5] = ["forward", "reverse", "random:1", "random:2", "random:3"];

/// The library with tests/kernels/checks.cu. `None`, with the reason printed, where there is no C++ compiler.
pub fn checks(name: &str, races: bool) -> Option<PathBuf> {
    kernels("checks.cu", name, races)
}

/// The library with a file of tests/kernels.
pub fn kernels(file: &str, name: &str, races: bool) -> Option<PathBuf> {
    if let Err(reason) = elbo_emulator::library() {
        eprintln!("skipped: no emulator: {reason}");
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(file);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    Some(elbo_emulator::build(&source, &out, races).expect("the test kernels compile"))
}
