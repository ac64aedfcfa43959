//! What the benchmarks share: the devices of this machine, and steps that are timed to their end.

use std::time::{Duration, Instant};

use elbo::engine::device::cuda;
use elbo::engine::device::{Device, Layout, Precision};
use elbo::{Call, Function, Plan, State};

/// A device and what its group of benchmarks is called.
pub struct Target {
    /// `cpu` or `cuda`.
    pub group: &'static str,
    /// Of the benchmark's name: `2 threads`, `f32`.
    pub variant: String,
    pub device: Device,
}

/// The CPU on one and on all threads, and a GPU if there is one; if not, why is printed.
pub fn targets() -> Vec<Target> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = |threads| Target { group: "cpu", variant: format!("{threads} threads"), device: Device::Cpu { threads } };
    let mut all = vec![cpu(1)];
    if cores > 1 {
        all.push(cpu(cores));
    }
    match cuda::automatic().map(drop) {
        Ok(()) => {
            let precision = Precision::F32;
            let device = Device::Cuda { ordinal: 0, precision };
            all.push(Target { group: "cuda", variant: precision.to_string(), device });
        }
        Err(reason) => println!("cuda/… is skipped: {reason}"),
    }
    all
}

/// The time of `steps` steps of a function, from the first to the end of the last. Each reads its rows of data sets of `rows`,
/// which are begun anew when they end.
pub fn time<L: Layout>(
    function: &mut Function<L>,
    state: &mut State,
    call: &Call<'_>,
    steps: u64,
    rows: usize,
) -> Duration {
    let most = (rows / function.batch_rows().max(1)) as u64;
    function.synchronize().unwrap();
    let start = Instant::now();
    let mut left = steps;
    while left > 0 {
        let now = left.min(most);
        function.run(state, &Call { steps: now as usize, ..*call }).unwrap();
        left -= now;
    }
    function.synchronize().unwrap();
    start.elapsed()
}

/// Prints FLOP/s and bytes/s, which criterion does not, from a run of about `seconds`.
pub fn print_rates(name: &str, plan: &Plan, seconds: f64, mut time: impl FnMut(u64) -> Duration) {
    let once = time(20).as_secs_f64() / 20.0;
    let steps = (seconds / once).ceil();
    let per_step = time(steps as u64).as_secs_f64() / steps;
    let (gflops, gbytes) = (plan.flops() as f64 / per_step / 1e9, plan.bytes() as f64 / per_step / 1e9);
    println!("{name}: {gflops:.2} GFLOP/s, {gbytes:.2} GB/s, {:.1} steps/s", 1.0 / per_step);
}
