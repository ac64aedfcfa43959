//! The CUDA matrix product as a ladder: every kernel of kernels/dev/, from the definition to tensor cores, checked and
//! timed beside the kernel that plans use; or that kernel alone, in every precision at several sizes.
//!
//! ```text
//! cargo run --release --example gemm_ladder -- [N [REPETITIONS]]
//! cargo run --release --example gemm_ladder -- products REPETITIONS N…
//! ```
//!
//! C = A·B of [N, N] matrices of normal numbers, N a multiple of 8 (1024 if not given). The error is
//! ‖C − C₆₄‖ / ‖C₆₄‖; the time the shortest of the repetitions (20) on the device.
//!
//! `products` stops at a product that is wrong. Its times are medians and shortest of the repetitions, each of as many
//! launches as make 2³⁷ multiply-adds (128 at most, 1 on the emulated driver), and its last line has them as JSON;
//! benches/peers/gemm_cublas.py measures PyTorch's products in the same way.

use elbo::engine::device::Precision;
use elbo::engine::device::cuda::Cuda;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let products = words.first().is_some_and(|word| word == "products");
    let numbers: Result<Vec<usize>, _> = words[usize::from(products)..].iter().map(|word| word.parse()).collect();
    let result = match (products, numbers.as_deref()) {
        (true, Ok([repetitions, sizes @ ..]))
            if *repetitions > 0 && !sizes.is_empty() && sizes.iter().all(|n| *n > 0) =>
        {
            time_products(*repetitions, sizes)
        }
        (false, Ok(numbers)) if numbers.len() <= 2 && numbers.iter().all(|v| *v > 0) => {
            match (numbers.first().copied().unwrap_or(1024), numbers.get(1).copied().unwrap_or(20)) {
                (n, repetitions) if n % 8 == 0 => climb(n, repetitions),
                _ => usage(),
            }
        }
        _ => usage(),
    };
    if let Err(error) = result {
        eprintln!("gemm_ladder: {error}");
        std::process::exit(1);
    }
}

fn usage() -> ! {
    eprintln!("usage: gemm_ladder [N [REPETITIONS]], N a multiple of 8; or gemm_ladder products REPETITIONS N…");
    std::process::exit(2);
}

fn open() -> elbo::Result<Cuda> {
    let gpu = Cuda::open(0, Precision::F32)?;
    println!("C = A·B on {}", gpu.gpu().name);
    if gpu.gpu().emulated() {
        println!("emulated: the errors are real, the times mean nothing");
    }
    Ok(gpu)
}

fn climb(n: usize, repetitions: usize) -> elbo::Result<()> {
    let gpu = open()?;
    println!("{:<22} {:>9} {:>11} {:>10} {:>8}   [{n}, {n}]", "kernel", "error", "ms", "GFLOP/s", "× first");
    let rungs = gpu.climb_ladder(n, repetitions)?;
    for rung in &rungs {
        let (ms, rate) = (1e3 * rung.seconds, 1e-9 * operations(n) / rung.seconds);
        println!(
            "{:<22} {:>9.1e} {ms:>11.4} {rate:>10.1} {:>8.1}",
            rung.kernel,
            rung.error,
            rungs[0].seconds / rung.seconds
        );
    }
    Ok(())
}

fn time_products(repetitions: usize, sizes: &[usize]) -> elbo::Result<()> {
    let gpu = open()?;
    println!(
        "{:>6} {:<9} {:<22} {:>6} {:>9} {:>11} {:>9}",
        "n", "precision", "kernel", "splits", "error", "ms", "TFLOP/s"
    );
    let mut json = vec![];
    for &n in sizes {
        let enough = (2f64.powi(38) / operations(n)).clamp(1.0, 128.0) as usize;
        let launches = if gpu.gpu().emulated() { 1 } else { enough };
        for timed in gpu.time_products(n, launches, repetitions)? {
            let (precision, kernel, error) = (timed.precision.to_string(), timed.kernel, timed.error);
            let (ms, rate) = (1e3 * timed.median, 1e-12 * operations(n) / timed.median);
            println!("{n:>6} {precision:<9} {kernel:<22} {:>6} {error:>9.1e} {ms:>11.4} {rate:>9.2}", timed.splits);
            json.push(format!(
                "{{\"n\": {n}, \"precision\": \"{precision}\", \"kernel\": \"{kernel}\", \"splits\": {}, \
                 \"error\": {error:e}, \"launches\": {launches}, \"median_s\": {:e}, \"least_s\": {:e}}}",
                timed.splits, timed.median, timed.least
            ));
        }
    }
    println!("{{\"program\": \"elbo\", \"products\": [{}]}}", json.join(", "));
    Ok(())
}

/// Floating-point operations of a product.
fn operations(n: usize) -> f64 {
    2.0 * (n as f64).powi(3)
}
