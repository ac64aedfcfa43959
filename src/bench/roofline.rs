//! The roofline: what a device could do at most, measured in the same process as what it does.
//!
//! A kernel of F floating-point operations over B bytes cannot take less than F / peak, nor less than B / bandwidth
//! (Williams, Waterman & Patterson 2009), with the peak of multiply-adds in registers. On the CPU kernels of one wave run side
//! by side, and waves one after the other. On a GPU a kernel waits only for those that it needs. So a step cannot take less than
//!
//! ```text
//! t_roof(CPU) = Σ_waves max( Σ F / peak, Σ B / bandwidth(M) )
//! t_roof(GPU) = max( Σ F / peak, Σ B / bandwidth(M), longest way through the graph of max( F / peak, B / bandwidth(M) ) )
//! ```
//!
//! where B of a GPU leaves out gradients, which need not reach memory, and the way the update, which need not be the last.
//!
//! B counts what a kernel reads plus what it writes. M is the memory that it goes through, in which what is both read and
//! written counts once (Adam: B = 28 and M = 16 bytes per parameter). Operands that stay in a cache come faster than from main
//! memory, so the bandwidth is measured over a range of sizes, and M says which of them holds: what one kernel leaves in a
//! cache the next one finds there, however many bytes all of them move together.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use serde::Serialize;

use crate::engine::isa::Isa;
use crate::engine::plan::Step;

/// The ceilings of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// Multiply-adds in f32, GFLOP/s.
    pub gflops: f64,
    /// Matrix products in the precision that was asked for, GFLOP/s: more than `gflops` where there are tensor cores.
    pub product_gflops: f64,
    /// In order of size; the last is main memory.
    pub bandwidths: Vec<Bandwidth>,
}

/// What a kernel has to do.
struct WorkCount {
    flops: u64,
    /// Whether they are those of a matrix product, which may run on tensor cores.
    product: bool,
    /// Read plus written.
    bytes: u64,
    /// Gone through.
    footprint: u64,
}

impl WorkCount {
    fn of(step: &Step) -> WorkCount {
        WorkCount { flops: step.flops(), product: step.is_product(), bytes: step.bytes(), footprint: step.footprint() }
    }

    /// `trains`: what products store are gradients, in a plan that updates parameters.
    fn on_gpu(step: &Step, trains: bool) -> WorkCount {
        let bytes = if trains { step.bytes_without_gradients() } else { step.bytes() };
        WorkCount { bytes, ..WorkCount::of(step) }
    }
}

/// How fast so much memory is gone through, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bandwidth {
    /// Bytes of all arrays together.
    pub bytes: usize,
    /// GB/s, bytes read plus bytes written.
    pub gbytes: f64,
}

impl Roofline {
    /// t_roof on a GPU, in seconds.
    pub fn seconds_on_gpu(&self, steps: &[Step]) -> f64 {
        let trains = steps.iter().any(Step::is_update);
        let work: Vec<WorkCount> = steps.iter().map(|step| WorkCount::on_gpu(step, trains)).collect();
        let mut over: Vec<f64> = Vec::with_capacity(steps.len());
        for (step, work) in steps.iter().zip(&work) {
            let begin = step.waits().iter().map(|&i| over[i]).fold(0.0, f64::max);
            // An update may be made piece by piece by who makes the gradients, long before the last of them.
            over.push(begin + if step.is_update() { 0.0 } else { self.wave(std::slice::from_ref(work)) });
        }
        over.into_iter().fold(self.wave(&work), f64::max)
    }

    /// t_roof on the CPU, in seconds.
    pub fn seconds(&self, steps: &[Step]) -> f64 {
        let mut waves: BTreeMap<usize, Vec<WorkCount>> = BTreeMap::new();
        steps.iter().for_each(|step| waves.entry(step.wave()).or_default().push(WorkCount::of(step)));
        waves.values().map(|wave| self.wave(wave)).sum()
    }

    /// The least time of kernels side by side. Tensor cores and other units work at the same time.
    fn wave(&self, wave: &[WorkCount]) -> f64 {
        let flops = |products: bool| wave.iter().filter(|w| w.product == products).map(|w| w.flops as f64).sum::<f64>();
        let arithmetic = (flops(true) / self.product_gflops).max(flops(false) / self.gflops);
        let memory: f64 = wave.iter().map(|w| w.bytes as f64 / self.bandwidth(w.footprint)).sum();
        arithmetic.max(memory) / 1e9
    }

    /// GB/s for work on `bytes` bytes: the most that was measured over as many, rounded down to a measured size, or
    /// over more. So a roof is rather too high than too low.
    fn bandwidth(&self, bytes: u64) -> f64 {
        let fitting = self.bandwidths.iter().rposition(|b| b.bytes as u64 <= bytes).unwrap_or(0);
        self.bandwidths[fitting..].iter().map(|b| b.gbytes).fold(0.0, f64::max)
    }

    /// GB/s of the fastest cache that was measured.
    pub fn fastest(&self) -> f64 {
        self.bandwidths.iter().map(|b| b.gbytes).fold(0.0, f64::max)
    }

    /// GB/s of main memory.
    pub fn main_memory(&self) -> f64 {
        self.bandwidths.last().map_or(0.0, |b| b.gbytes)
    }
}

/// Bytes of all three arrays of the triad: from what fits into a first-level cache up to twelve times the largest
/// cache, at least 192 MiB, at most 1.5 GiB.
pub fn triad_sizes() -> Vec<usize> {
    let text = |i: usize| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size")).ok();
    let kib = |text: String| text.trim().strip_suffix('K').and_then(|n| n.parse::<usize>().ok());
    let largest_cache = (0..8).filter_map(|i| text(i).and_then(kib)).max().unwrap_or(0) * 1024;
    let main_memory = (12 * largest_cache).clamp(192 << 20, 1536 << 20);
    let smaller = (0..).map(|i| (24 << 10) << (2 * i)).take_while(|&bytes| bytes < main_memory);
    smaller.chain([main_memory]).collect()
}

/// The CPU's roofline with all of `threads` threads and triads of the given sizes in bytes.
pub fn cpu(isa: Isa, threads: usize, sizes: &[usize]) -> Roofline {
    let gflops = fma_peak(isa, threads);
    let bandwidth = |&bytes| Bandwidth { bytes, gbytes: triad_bandwidth(isa, threads, bytes) };
    Roofline { gflops, product_gflops: gflops, bandwidths: sizes.iter().map(bandwidth).collect() }
}

/// GFLOP/s of independent chains of multiply-adds in registers, the most of several short runs: a core's clock drifts,
/// so measure close to what is compared with it.
pub fn fma_peak(isa: Isa, threads: usize) -> f64 {
    const TURNS: usize = 100_000;
    let start_line = Barrier::new(threads);
    let run = || {
        start_line.wait();
        let start = Instant::now();
        let flops = match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Isa::detect` says the processor has the features.
            Isa::Avx512 => unsafe { chains_avx512(TURNS) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { chains_avx2(TURNS) },
            _ => chains(TURNS, |s, x, y| if isa == Isa::Neon { x.mul_add(y, s) } else { s + x * y }),
        };
        flops / start.elapsed().as_secs_f64()
    };
    let sum = |_| -> f64 {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            all.into_iter().map(|t| t.join().expect("the loop does not panic")).sum()
        })
    };
    (0..10).map(sum).fold(0.0, f64::max) / 1e9
}

/// Twelve chains of four lanes for the compiler to vectorise; returns the flops done.
fn chains(turns: usize, step: impl Fn(f32, f32, f32) -> f32) -> f64 {
    let mut acc = [[0.5_f32; 4]; 12];
    let (x, y) = (black_box(0.999), black_box(0.001));
    for _ in 0..turns {
        acc.iter_mut().flatten().for_each(|s| *s = step(*s, x, y));
    }
    black_box(acc);
    (turns * 12 * 4 * 2) as f64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn chains_avx512(turns: usize) -> f64 {
    use std::arch::x86_64::*;
    let mut acc = [_mm512_set1_ps(0.5); 20];
    let (x, y) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    for _ in 0..turns {
        for s in &mut acc {
            *s = _mm512_fmadd_ps(*s, x, y);
        }
    }
    black_box(acc);
    (turns * 20 * 16 * 2) as f64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn chains_avx2(turns: usize) -> f64 {
    use std::arch::x86_64::*;
    let mut acc = [_mm256_set1_ps(0.5); 12];
    let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
    for _ in 0..turns {
        for s in &mut acc {
            *s = _mm256_fmadd_ps(*s, x, y);
        }
    }
    black_box(acc);
    (turns * 12 * 8 * 2) as f64
}

/// GB/s of the triad a ← b + s·c of STREAM (McCalpin 1995) over three arrays of `bytes` bytes together, the most of
/// several passes; 12 bytes count per element, not the line of `a` that a processor may read before it writes.
///
/// Each thread has a piece of its own, which it also fills, so that the memory is near it. Small pieces are gone
/// through several times in a pass, which lasts from the first thread's start to the last one's end.
pub fn triad_bandwidth(isa: Isa, threads: usize, bytes: usize) -> f64 {
    const PASSES: usize = 8;
    /// Bytes of a pass, at least: a few milliseconds.
    const PASS: usize = 64 << 20;
    let len = (bytes / 12 / threads).max(1);
    let turns = (PASS / bytes).max(1);
    let start_line = Barrier::new(threads);
    let piece = || {
        let (mut a, b, c) = (vec![0.5_f32; len], vec![1.0_f32; len], vec![2.0_f32; len]);
        let pass = |_| {
            start_line.wait();
            let start = Instant::now();
            for _ in 0..turns {
                let s = black_box(3.0_f32);
                isa.run(|| a.iter_mut().zip(&b).zip(&c).for_each(|((a, b), c)| *a = b + s * c));
                black_box(&mut a);
            }
            (start, Instant::now())
        };
        (0..PASSES).map(pass).collect::<Vec<_>>()
    };
    let times: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(piece)).collect();
        all.into_iter().map(|t| t.join().expect("the loop does not panic")).collect()
    });
    let seconds = |pass: usize| {
        let start = times.iter().map(|t| t[pass].0).min().expect("at least one thread");
        let end = times.iter().map(|t| t[pass].1).max().expect("at least one thread");
        (end - start).as_secs_f64()
    };
    // The first pass also brings the pages of `a`.
    let best = (1..PASSES).map(seconds).fold(f64::INFINITY, f64::min);
    (12 * len * threads * turns) as f64 / best / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roof_is_the_slower_of_arithmetic_and_memory() {
        let bandwidths = [(1_000, 40.0), (1_000_000, 50.0), (50_000_000, 10.0)];
        let bandwidths = bandwidths.map(|(bytes, gbytes)| Bandwidth { bytes, gbytes }).to_vec();
        let roof = Roofline { gflops: 100.0, product_gflops: 1000.0, bandwidths };
        // 1e9 operations take 10 ms on the arithmetic units and 1 ms as products, 1e8 bytes take 10 ms.
        let work = |flops, bytes, product| WorkCount { flops, product, bytes, footprint: bytes };
        assert_eq!(roof.wave(&[work(1_000_000_000, 0, false)]), 0.01);
        assert_eq!(roof.wave(&[work(1_000_000_000, 0, true)]), 0.001);
        assert_eq!(roof.wave(&[work(1_000_000_000, 100_000_000, true)]), 0.01);
        assert_eq!(roof.wave(&[work(0, 0, false)]), 0.0);
        // Side by side: twice the arithmetic, or one kernel's arithmetic behind the other's memory.
        assert_eq!(roof.wave(&[work(1_000_000_000, 0, false), work(1_000_000_000, 0, false)]), 0.02);
        assert_eq!(roof.wave(&[work(1_000_000_000, 0, false), work(0, 100_000_000, true)]), 0.01);
        // The most that was measured over so many bytes or more.
        assert_eq!([10, 1_000, 1_000_000, 60_000_000].map(|b| roof.bandwidth(b)), [50.0, 50.0, 50.0, 10.0]);
        assert_eq!(roof.main_memory(), 10.0);
    }

    /// A training step moves more bytes than it goes through: which memory they come from is a matter of each kernel.
    #[test]
    fn a_step_whose_kernels_fit_into_a_cache_has_the_roof_of_that_cache() {
        use crate::engine::graph::Graph;
        use crate::engine::optim::Optimizer;
        use crate::engine::plan::{Fusion, Plan};
        use crate::vae::{UpdateRule, Vae, VaeConfig, training_step};

        let vae = Vae::new(VaeConfig::new(20)).unwrap();
        let graph = Graph::new();
        let outputs = training_step(&graph, &vae, &UpdateRule::elbo(Optimizer::adam(), None), "train", 8);
        let plan = Plan::build(&graph, &outputs, Fusion::all()).unwrap();
        let parameters = vae.params().count() as u64;
        let adam = plan.steps().iter().find(|s| s.name() == "adam").unwrap();
        assert_eq!((adam.bytes(), adam.footprint()), (28 * parameters, 16 * parameters));
        assert!(plan.steps().iter().all(|s| s.footprint() <= 16 * parameters));
        // A cache that holds what Adam goes through, but not all that the step moves.
        let (cache, memory) = (100.0, 10.0);
        assert!(16 * parameters < 12_000_000 && plan.bytes() > 12_000_000);
        let bandwidths = [(1_000, cache), (11_000_000, cache), (12_000_000, memory)];
        let bandwidths = bandwidths.map(|(bytes, gbytes)| Bandwidth { bytes, gbytes }).to_vec();
        let roof = Roofline { gflops: 1e9, product_gflops: 1e9, bandwidths };
        let expected = plan.bytes() as f64 / cache / 1e9;
        assert!(
            (roof.seconds(plan.steps()) / expected - 1.0).abs() < 1e-6,
            "{} {expected}",
            roof.seconds(plan.steps())
        );
    }

    /// The exponential of x·a needs nothing of x·b: on a GPU it need not wait for it, on the CPU it is the second wave.
    #[test]
    fn a_gpu_waits_for_what_it_needs_and_the_cpu_for_the_wave() {
        use crate::engine::graph::Graph;
        use crate::engine::plan::{Fusion, Plan};

        let g = Graph::new();
        let x = g.input(&[64, 64]);
        let outputs = [x.matmul(g.param("a", &[64, 64])).exp(), x.matmul(g.param("b", &[64, 64]))];
        let plan = Plan::build(&g, &outputs, Fusion::none()).unwrap();
        // A product takes 1 by its arithmetic and 3/4 by its memory, the exponential 1/2 by its memory.
        let (product, array) = (2.0 * 64f64.powi(3) / 1e9, 4.0 * 64.0 * 64.0 / 1e9);
        let bandwidths = vec![Bandwidth { bytes: 1, gbytes: 4.0 * array }];
        let roof = Roofline { gflops: 1e9, product_gflops: product, bandwidths };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found} {expected}\n{plan}");
        near(roof.seconds(plan.steps()), 2.0 + 0.5);
        near(roof.seconds_on_gpu(plan.steps()), 2.0);
    }

    #[test]
    fn the_cpu_has_a_roof() {
        let roof = cpu(Isa::detect(), 2, &[24 << 10, 1 << 20]);
        let rates = roof.bandwidths.iter().map(|b| b.gbytes).chain([roof.gflops]);
        assert!(rates.into_iter().all(|r| r > 0.01 && r.is_finite()), "{roof:?}");
        let sizes = triad_sizes();
        assert!(sizes.is_sorted() && sizes[0] == 24 << 10 && *sizes.last().unwrap() >= 192 << 20);
    }
}
