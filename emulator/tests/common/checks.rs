//! How the kernels of checks.cu are run, right and wrong.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use elbo_emulator::{Emulator, Failure};

use crate::common::SCHEDULES;

/// Mirrors CheckParams of checks.cu.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CheckParams {
    pub x: *const f32,
    pub out: *mut f32,
    pub ticket: *mut u32,
    pub n: i32,
    pub bug: i32,
}

/// One launch of a check: 16-byte aligned input of counting numbers, output of NaN.
pub struct Check {
    pub kernel: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    input: usize,
    output: usize,
    n: i32,
}

pub const SUM: Check =
    Check { kernel: "check_sum", grid: [3, 1, 1], threads: 256, shared_bytes: 1024, input: 768, output: 3, n: 0 };
pub const TRANSPOSE: Check = Check {
    kernel: "check_transpose",
    grid: [2, 2, 1],
    threads: 256,
    shared_bytes: 32 * 33 * 4,
    input: 4096,
    output: 4096,
    n: 64,
};
pub const ROUNDS: Check =
    Check { kernel: "check_rounds", grid: [1, 1, 1], threads: 64, shared_bytes: 256, input: 256, output: 64, n: 0 };
pub const DIVERGENCE: Check =
    Check { kernel: "check_divergence", grid: [1, 1, 1], threads: 64, shared_bytes: 0, input: 0, output: 64, n: 0 };
pub const BOUNDS: Check =
    Check { kernel: "check_bounds", grid: [1, 1, 1], threads: 32, shared_bytes: 128, input: 32, output: 32, n: 0 };
pub const ASYNC: Check =
    Check { kernel: "check_async", grid: [1, 1, 1], threads: 32, shared_bytes: 640, input: 160, output: 160, n: 0 };
pub const LDMATRIX: Check =
    Check { kernel: "check_ldmatrix", grid: [1, 1, 1], threads: 32, shared_bytes: 2048, input: 512, output: 512, n: 0 };
pub const LDMATRIX_TRANS: Check = Check { n: 1, ..LDMATRIX };
pub const TICKET: Check =
    Check { kernel: "check_ticket", grid: [7, 1, 1], threads: 32, shared_bytes: 4, input: 224, output: 8, n: 0 };
pub const WARP_MEMORY: Check =
    Check { kernel: "check_warp_memory", grid: [1, 1, 1], threads: 32, shared_bytes: 128, input: 32, output: 32, n: 0 };
pub const VOTES: Check =
    Check { kernel: "check_votes", grid: [1, 1, 1], threads: 64, shared_bytes: 0, input: 0, output: 64, n: 0 };

#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Four([f32; 4]);

impl Check {
    pub fn run(&self, emulator: &Emulator, bug: i32) -> Result<Vec<f32>, Failure> {
        let number = |i: usize| (i % 97) as f32 + 0.25;
        let x: Vec<Four> = (0..=self.input / 4).map(|i| Four([0, 1, 2, 3].map(|j| number(4 * i + j)))).collect();
        let mut out = vec![f32::NAN; self.output];
        let mut ticket = 0;
        let params =
            CheckParams { x: x.as_ptr().cast(), out: out.as_mut_ptr(), ticket: &raw mut ticket, n: self.n, bug };
        // SAFETY: the struct mirrors the kernel's; memory is as large as the kernel needs, but for the bugs that this
        // function is not called with.
        unsafe { emulator.launch(self.kernel, self.grid, [self.threads, 1, 1], self.shared_bytes, &params)? };
        assert_eq!(ticket, 0);
        Ok(out)
    }

    pub fn bits(&self, emulator: &Emulator, bug: i32) -> Result<Vec<u32>, Failure> {
        Ok(self.run(emulator, bug)?.into_iter().map(f32::to_bits).collect())
    }

    /// The bits under all schedules, which must be equal.
    pub fn same_under_all(&self, emulator: &Emulator) -> Vec<f32> {
        emulator.set_schedule("forward").unwrap();
        let expected = self.bits(emulator, 0).expect("correct");
        for schedule in SCHEDULES {
            emulator.set_schedule(schedule).unwrap();
            assert_eq!(self.bits(emulator, 0).as_ref(), Ok(&expected), "{} under {schedule}", self.kernel);
        }
        expected.into_iter().map(f32::from_bits).collect()
    }

    /// Does some schedule give other bits than the correct kernel, or an error?
    pub fn is_caught(&self, emulator: &Emulator, bug: i32) -> bool {
        emulator.set_schedule("forward").unwrap();
        let expected = self.bits(emulator, 0);
        SCHEDULES.into_iter().any(|schedule| {
            emulator.set_schedule(schedule).unwrap();
            self.bits(emulator, bug) != expected
        })
    }

    /// The error and its report.
    pub fn failure(&self, emulator: &Emulator, bug: i32) -> (Failure, String) {
        emulator.set_schedule("forward").unwrap();
        emulator.clear();
        let failure = self.run(emulator, bug).expect_err("a broken kernel");
        (failure, emulator.last_report())
    }
}
