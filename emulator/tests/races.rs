//! The race detector: silent about correct kernels, and with the lines of both accesses about broken ones. It needs no
//! luck with the order of threads, so one schedule is enough.

use elbo_emulator::Emulator;

#[path = "common/checks.rs"]
mod checks;
mod common;

use checks::{ASYNC, LDMATRIX, ROUNDS, SUM, TICKET, TRANSPOSE, WARP_MEMORY};

#[test]
fn races_are_reported_and_only_races() {
    let Some(library) = common::checks("checks-races", true) else { return };
    let emulator = Emulator::open(&library, false).unwrap();
    assert!(emulator.detects_races());
    for check in [&SUM, &TRANSPOSE, &ROUNDS, &ASYNC, &LDMATRIX, &TICKET, &WARP_MEMORY] {
        check.same_under_all(&emulator);
    }
    for (check, bug, memory) in [
        (&SUM, 1, "shared memory"),
        (&TRANSPOSE, 1, "shared memory"),
        (&ROUNDS, 1, "shared memory"),
        (&ASYNC, 2, "shared memory"),
        (&LDMATRIX, 6, "shared memory"),
        (&TICKET, 1, "global memory"),
        (&WARP_MEMORY, 1, "shared memory"),
    ] {
        let (_, report) = check.failure(&emulator, bug);
        let is_complete = report.contains(&format!("race in {memory}")) && report.matches("checks.cu:").count() == 2;
        assert!(is_complete, "{}, bug {bug}: {report}", check.kernel);
    }
}
