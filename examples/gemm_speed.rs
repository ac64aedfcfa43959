//! How fast is the matrix product? GFLOP/s and share of the measured FMA peak, shape by shape, on 1 and on N threads.
//!
//! ```text
//!   cargo run --release --example gemm_speed -- [threads N] [rotate] [only TEXT] [tiles]
//! ```
//!
//! Checks each shape against f64 sums first. Times are the least of many repetitions. With `rotate` a repetition goes
//! through 8 MiB of copies of the operands, so that they come from L3 as they do inside a training step; without, small
//! operands stay in L2. Peak: independent FMA chains on registers, on as many threads, in the same run.
//!
//! With `tiles` each shape is also computed on the tile unit (AMX) in every precision it has, cutting and packing
//! included; the peak is still that of the FMA. `ELBO_TILES=twin` tries that out where there is no such unit.

use elbo::bench::roofline::fma_peak;
use elbo::engine::device::Precision;
use elbo::engine::isa::Isa;
use elbo::engine::steps::gemm::tiles::Tiles;
use elbo::engine::steps::gemm::{Destination, Gemm};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// m, n, k, A transposed, B transposed.
type Shape = (usize, usize, usize, bool, bool);

/// The products of one training step of an MLP: y = x·W, dx = dy·Wᵀ, dW = xᵀ·dy for every layer in → out.
fn layers(batch: usize, sizes: &[(usize, usize)]) -> Vec<Shape> {
    let mut all: Vec<Shape> = sizes.iter().map(|&(i, o)| (batch, o, i, false, false)).collect();
    all.extend(sizes.iter().skip(1).map(|&(i, o)| (batch, i, o, false, true)));
    all.extend(sizes.iter().map(|&(i, o)| (i, o, batch, true, false)));
    all
}

fn main() -> elbo::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = value("threads").and_then(|t| t.parse().ok()).unwrap_or(cores);
    let rotate = args.iter().any(|a| a == "rotate");
    let isa = Isa::detect();
    let v1 = [(784, 400), (400, 40), (20, 400), (400, 784)];
    let v2 = [(784, 200), (200, 200), (200, 100), (50, 200), (200, 784)];
    let mut groups = vec![];
    for batch in [128, 32, 96] {
        groups.push((format!("784-400-20, batch {batch}"), layers(batch, &v1)));
    }
    for rows in [20, 1000] {
        groups.push((format!("784-200-200-50, {rows} rows"), layers(rows, &v2)));
    }
    let odd = vec![(1, 784, 400, false, false), (17, 33, 129, false, true), (257, 257, 257, true, true)];
    groups.push(("other".into(), odd));
    let cube = [(false, false), (false, true), (true, false), (true, true)];
    let large = [1000, 1024].map(|size| cube.map(|(ta, tb)| (size, size, size, ta, tb)));
    groups.push(("large".into(), large.concat()));
    let mut ways = vec![None];
    if args.iter().any(|a| a == "tiles") {
        for precision in [Precision::F32, Precision::Bf16x3, Precision::Bf16] {
            ways.push(Some(Tiles::new(precision)?));
        }
    }
    println!("{isa}, {threads} threads, peak {:.1} and {:.1} GFLOP/s", fma_peak(isa, 1), fma_peak(isa, threads));
    for (name, shapes) in groups {
        if value("only").is_some_and(|text| !name.contains(text.as_str())) {
            continue;
        }
        for tiles in &ways {
            let way = tiles.map_or(String::new(), |tiles| format!(", on tiles ({tiles})"));
            println!("\n{name}{way}\n    m    n    k     chunks   1 thread  % peak  {threads} threads  % peak");
            for shape in &shapes {
                row(isa, *tiles, *shape, threads, rotate);
            }
        }
    }
    Ok(())
}

/// Checks and times one shape and prints its line.
fn row(isa: Isa, tiles: Option<Tiles>, shape: Shape, threads: usize, rotate: bool) {
    let (m, n, k, ta, tb) = shape;
    let (lda, ldb) = (if ta { m } else { k }, if tb { k } else { n });
    let gemm = match tiles {
        Some(tiles) => Gemm::on_tiles(tiles, isa, m, n, k, ta, tb, lda, ldb),
        None => Gemm::new(isa, m, n, k, ta, tb, lda, ldb),
    };
    let sets = if rotate { ROTATED / (m * k + k * n + m * n) + 1 } else { 1 };
    let words = [m * k, k * n, m * n].map(|len| len.next_multiple_of(16));
    let arena = Aligned::new(sets * words.iter().sum::<usize>());
    let mut free = arena.ptr();
    let mut take = |len: usize| {
        let first = free;
        free = free.wrapping_add(len);
        first
    };
    let data: Vec<Operands> = (0..sets).map(|_| words.map(&mut take)).collect();
    check(&gemm, tiles, shape, data[0]);
    // Several starts: each gives the scheduler a chance to put the threads on cores of their own.
    let least = |threads| (0..6).map(|_| best(&gemm, &data, threads)).fold(f64::MAX, f64::min);
    let (one, most) = (least(1), least(threads));
    let gflops = |seconds: f64| 2e-9 * (m * n * k) as f64 / seconds;
    let layout = [["nn", "nt"], ["tn", "tt"]][ta as usize][tb as usize];
    let share = |seconds, threads| 100.0 * gflops(seconds) / fma_peak(isa, threads);
    println!(
        "{m:5}{n:5}{k:5} {layout} {:9} {:10.1} {:6.0}% {:10.1} {:6.0}%",
        gemm.chunks(),
        gflops(one),
        share(one, 1),
        gflops(most),
        share(most, threads)
    );
}

/// Floats that `rotate` goes through: 8 MiB, about what a small network, its gradients and its optimiser occupy.
const ROTATED: usize = 2 << 20;

/// Floats in (−1, 1), 64-byte aligned. All operands lie in one of these, as they do in an executor: one large block
/// gets large pages from the system, and separate small ones pay for their page walks.
struct Aligned(Vec<f32>);

impl Aligned {
    fn new(len: usize) -> Aligned {
        let noise = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
        Aligned((0..len + 16).map(noise).collect())
    }
    fn ptr(&self) -> *mut f32 {
        let p = self.0.as_ptr().cast_mut();
        p.wrapping_add(p.align_offset(64))
    }
}

/// A, B, C.
type Operands = [*mut f32; 3];

/// Runs all chunks on this thread and compares about a thousand elements with f64 sums.
fn check(gemm: &Gemm, tiles: Option<Tiles>, (m, n, k, ta, tb): Shape, [a, b, c]: Operands) {
    // Of rounded factors, two a product; see `steps::gemm::tiles`.
    let of_factors = match tiles.map(Tiles::precision) {
        None | Some(Precision::F32) => 0.0,
        Some(Precision::Bf16x3) => 3.2e-5,
        Some(Precision::Bf16 | Precision::Tf32) => 8e-3,
    };
    let scratch = Aligned::new(gemm.scratch());
    for chunk in 0..gemm.chunks() {
        let out = Destination::Store { c, ldc: n };
        // SAFETY: the operands were made for this shape; one thread runs each chunk once.
        unsafe { gemm.run(chunk, a, b, scratch.ptr(), out, None) };
    }
    for i in (0..m * n).step_by((m * n / 1000).max(1)) {
        let (row, col) = (i / n, i % n);
        let (mut sum, mut size) = (0.0, 0.0);
        for p in 0..k {
            let (ia, ib) = (if ta { p * m + row } else { row * k + p }, if tb { col * k + p } else { p * n + col });
            // SAFETY: inside the operands.
            let term = unsafe { f64::from(*a.add(ia)) * f64::from(*b.add(ib)) };
            sum += term;
            size += term.abs();
        }
        // SAFETY: inside C.
        let got = f64::from(unsafe { *c.add(i) });
        assert!(
            (got - sum).abs() <= ((k + 1) as f64 * f64::from(f32::EPSILON) + of_factors) * size,
            "C[{row}, {col}]: {got} for {sum}"
        );
    }
}

/// A start and a finish line for repetitions on several threads: spinning, because a repetition takes microseconds.
struct Race {
    round: AtomicUsize,
    next: AtomicUsize,
    running: AtomicUsize,
}

/// Least seconds of one product on `threads` threads that claim chunks from a counter.
fn best(gemm: &Gemm, data: &[Operands], threads: usize) -> f64 {
    const STOP: usize = usize::MAX;
    let race = Race { round: AtomicUsize::new(0), next: AtomicUsize::new(0), running: AtomicUsize::new(0) };
    // Pointers as numbers, so that threads may share them.
    let sets: Vec<[usize; 3]> = data.iter().map(|set| set.map(|p| p as usize)).collect();
    let scratch: Vec<Aligned> = (0..threads).map(|_| Aligned::new(gemm.scratch())).collect();
    // A spinning thread steps aside for the one it waits for: on a busy machine both may sit on one core.
    let patience = |turn: &mut usize| {
        *turn += 1;
        if turn.is_multiple_of(4096) { std::thread::yield_now() } else { spin_loop() }
    };
    let work = |set: usize, scratch: *mut f32| {
        let [a, b, c] = sets[set % sets.len()];
        loop {
            let chunk = race.next.fetch_add(1, SeqCst);
            if chunk >= gemm.chunks() {
                return;
            }
            let out = Destination::Store { c: c as *mut f32, ldc: gemm.n() };
            // SAFETY: the operands were made for this shape; the counter gives each chunk to one thread.
            unsafe { gemm.run(chunk, a as *const f32, b as *const f32, scratch, out, None) };
        }
    };
    std::thread::scope(|scope| {
        for scratch in &scratch[1..] {
            scope.spawn(|| {
                let (mut seen, mut turn) = (0, 0);
                loop {
                    let round = race.round.load(SeqCst);
                    if round == STOP {
                        return;
                    }
                    if round == seen {
                        patience(&mut turn);
                        continue;
                    }
                    seen = round;
                    work(round, scratch.ptr());
                    race.running.fetch_sub(1, SeqCst);
                }
            });
        }
        let (mut least, begin, mut round, mut turn) = (f64::MAX, Instant::now(), 0, 0);
        while round < 20 || begin.elapsed() < Duration::from_millis(40) {
            let mut seconds = 0.0;
            for _ in &sets {
                round += 1;
                race.next.store(0, SeqCst);
                race.running.store(threads - 1, SeqCst);
                let start = Instant::now();
                race.round.store(round, SeqCst);
                work(round, scratch[0].ptr());
                while race.running.load(SeqCst) > 0 {
                    patience(&mut turn);
                }
                seconds += start.elapsed().as_secs_f64();
            }
            least = least.min(seconds / sets.len() as f64);
        }
        race.round.store(STOP, SeqCst);
        least
    })
}
