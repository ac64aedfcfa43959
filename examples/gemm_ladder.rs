//! The CUDA matrix product as a ladder: every kernel of kernels/dev/, from the definition to tensor cores, checked and
//! timed beside the kernel that plans use; or that kernel alone, in every precision at several sizes; or how exact sums of
//! bf16 products are.
//!
//! ```text
//! cargo run --release --example gemm_ladder -- [N | MxNxK [REPETITIONS]]
//! cargo run --release --example gemm_ladder -- products REPETITIONS N…
//! cargo run --release --example gemm_ladder -- errors PICTURE.svg K…
//! ```
//!
//! The ladder computes C = A·B, [M, N] = [M, K]·[K, N], of normal numbers; 1024 each if not given. The error is
//! ‖C − C₆₄‖ / ‖C₆₄‖; the time the shortest of the repetitions (20) on the device, from operands in f32 to C. Rungs 9 and
//! later ones cut the operands into planes of bf16 first; how long that takes stands beside. Rung 12 adds a bias and takes what
//! is above zero; below it stands what that costs in a kernel of its own. A rung that cannot run says why.
//!
//! `products` stops at a product that is wrong. Its times are medians and shortest of the repetitions, each of as many
//! launches as make 2³⁷ multiply-adds (128 at most, 1 on the emulated driver), and its last line has them as JSON;
//! benches/peers/gemm_cublas.py measures PyTorch's products in the same way.
//!
//! `errors` compares products of depth K by rungs 9 and 10, and a chain in f32, with f64: the largest error of 128 × 128
//! elements in units of 2⁻²⁴ Σ|a·b|, as a table and as a picture.

use std::path::Path;

use elbo::engine::device::Precision;
use elbo::engine::device::cuda::Cuda;
use elbo::engine::device::cuda::planes::{ARITHMETICS, Factors};
use elbo::study::plot::{Axis, Plot, Series};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["products", numbers @ ..] => match positive(numbers).as_deref() {
            Some([repetitions, sizes @ ..]) if !sizes.is_empty() => time_products(*repetitions, sizes),
            _ => usage(),
        },
        ["errors", picture, depths @ ..] => match positive(depths) {
            Some(depths) if !depths.is_empty() => errors(Path::new(picture), &depths),
            _ => usage(),
        },
        [] => climb([1024; 3], 20),
        [size, repetitions @ ..] => match (shape(size), positive(repetitions).as_deref()) {
            (Some(shape), Some([])) => climb(shape, 20),
            (Some(shape), Some([repetitions])) => climb(shape, *repetitions),
            _ => usage(),
        },
    };
    if let Err(error) = done {
        eprintln!("gemm_ladder: {error}");
        std::process::exit(1);
    }
}

fn positive(words: &[&str]) -> Option<Vec<usize>> {
    words.iter().map(|word| word.parse().ok().filter(|n| *n > 0)).collect()
}

/// m, n and k: `N`, or `MxNxK`.
fn shape(word: &str) -> Option<[usize; 3]> {
    match *positive(&word.split('x').collect::<Vec<_>>())? {
        [n] => Some([n; 3]),
        [m, n, k] => Some([m, n, k]),
        _ => None,
    }
}

fn usage() -> ! {
    eprintln!("usage: gemm_ladder [N | MxNxK [REPETITIONS]]");
    eprintln!("       gemm_ladder products REPETITIONS N…");
    eprintln!("       gemm_ladder errors PICTURE.svg K…");
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

fn climb([m, n, k]: [usize; 3], repetitions: usize) -> elbo::Result<()> {
    let gpu = open()?;
    println!(
        "{:<22} {:>9} {:>11} {:>11} {:>10} {:>8}   [{m}, {k}]·[{k}, {n}]",
        "kernel", "error", "ms", "of it split", "GFLOP/s", "× first"
    );
    let mut first = None;
    for rung in gpu.climb_ladder([m, n, k], repetitions)? {
        match rung.climbed {
            Ok(climbed) => {
                let (ms, splitting) = (1e3 * climbed.seconds, 1e3 * climbed.splitting);
                let rate = 1e-9 * operations([m, n, k]) / climbed.seconds;
                let gain = *first.get_or_insert(climbed.seconds) / climbed.seconds;
                let (kernel, error) = (rung.kernel, climbed.error);
                println!("{kernel:<22} {error:>9.1e} {ms:>11.4} {splitting:>11.4} {rate:>10.1} {gain:>8.1}");
                if let Some(apart) = climbed.apart {
                    println!("{:<22} {:>9} {:>11.4}", "  in two kernels", "", 1e3 * apart);
                }
            }
            Err(obstacle) => println!("{:<22} {obstacle}", rung.kernel),
        }
    }
    Ok(())
}

fn errors(picture: &Path, depths: &[usize]) -> elbo::Result<()> {
    let gpu = open()?;
    let ticks: Vec<f64> = depths.iter().map(|k| *k as f64).collect();
    let mut plot = Plot::new("Products of bf16 beside a chain in f32")
        .subtitle(format!("largest error of 128 × 128 elements, from f64; {}", gpu.gpu().name));
    for (factors, title) in [(Factors::Normal, "normal factors"), (Factors::Positive, "their magnitudes")] {
        println!("{title:<16} {}   2⁻²⁴ Σ|a·b|", ARITHMETICS.map(|name| format!("{name:>16}")).concat());
        let rows = depths.iter().map(|k| gpu.split_errors(factors, *k)).collect::<elbo::Result<Vec<_>>>()?;
        for (k, row) in depths.iter().zip(&rows) {
            println!("{k:<16} {}", row.map(|error| format!("{error:>16.2}")).concat());
        }
        plot = plot.panel(title).x(Axis::log("k").ticks(&ticks)).y(Axis::log("error, in 2⁻²⁴ Σ|a·b|"));
        for (i, name) in ARITHMETICS.iter().enumerate() {
            let points: Vec<(f64, f64)> = ticks.iter().zip(&rows).map(|(k, row)| (*k, row[i])).collect();
            plot = plot.series(Series::line(*name).xy(&points));
        }
    }
    plot.write(picture)
}

fn time_products(repetitions: usize, sizes: &[usize]) -> elbo::Result<()> {
    let gpu = open()?;
    println!(
        "{:>6} {:<9} {:<22} {:>6} {:>9} {:>11} {:>9}",
        "n", "precision", "kernel", "splits", "error", "ms", "TFLOP/s"
    );
    let mut json = vec![];
    for &n in sizes {
        let enough = (2f64.powi(38) / operations([n; 3])).clamp(1.0, 128.0) as usize;
        let launches = if gpu.gpu().emulated() { 1 } else { enough };
        for timed in gpu.time_products(n, launches, repetitions)? {
            let (precision, kernel, error) = (timed.precision.to_string(), timed.kernel, timed.error);
            let (ms, rate) = (1e3 * timed.median, 1e-12 * operations([n; 3]) / timed.median);
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
fn operations(shape: [usize; 3]) -> f64 {
    2.0 * shape.map(|size| size as f64).iter().product::<f64>()
}
