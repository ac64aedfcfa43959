//! The CUDA matrix product as a ladder: every kernel of kernels/dev/, from the definition to tensor cores, checked and
//! timed beside the kernel that plans use.
//!
//! ```text
//! cargo run --release --example gemm_ladder -- [N [REPETITIONS]]
//! ```
//!
//! C = A·B of [N, N] matrices of normal numbers, N a multiple of 8 (1024 if not given). The error is
//! ‖C − C₆₄‖ / ‖C₆₄‖; the time the shortest of the repetitions (20) on the device.

use elbo::device::Precision;
use elbo::device::cuda::Cuda;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let (n, repetitions) = match (numbers.next().unwrap_or(Ok(1024)), numbers.next().unwrap_or(Ok(20))) {
        (Ok(n), Ok(repetitions)) if n > 0 && n % 8 == 0 && repetitions > 0 => (n, repetitions),
        _ => {
            eprintln!("usage: gemm_ladder [N [REPETITIONS]], N a multiple of 8");
            std::process::exit(2);
        }
    };
    if let Err(error) = climb(n, repetitions) {
        eprintln!("gemm_ladder: {error}");
        std::process::exit(1);
    }
}

fn climb(n: usize, repetitions: usize) -> elbo::Result<()> {
    let gpu = Cuda::open(0, Precision::F32)?;
    println!("C = A·B, [{n}, {n}], on {}", gpu.gpu().name);
    if gpu.gpu().emulated() {
        println!("emulated: the errors are real, the times mean nothing");
    }
    println!("{:<22} {:>9} {:>11} {:>10} {:>8}", "kernel", "error", "ms", "GFLOP/s", "× first");
    let rungs = gpu.climb_ladder(n, repetitions)?;
    for rung in &rungs {
        let (ms, rate) = (1e3 * rung.seconds, 2.0 * (n as f64).powi(3) / rung.seconds / 1e9);
        println!(
            "{:<22} {:>9.1e} {ms:>11.4} {rate:>10.1} {:>8.1}",
            rung.kernel,
            rung.error,
            rungs[0].seconds / rung.seconds
        );
    }
    Ok(())
}
