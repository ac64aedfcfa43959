//! Every kind of step by itself: `cargo bench --bench steps [-- cpu/linear]`.
//!
//! A graph that comes to one kernel of the kind, at sizes of the usual training step (784-400-20-400-784, batch 128).
//! Its result is compared with the interpreter in f64 before it is timed. Criterion prints elements per second; the
//! line before it FLOP/s and bytes/s, counted as in `elbo plan`.

// `criterion_group!` makes a public function without a comment.
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use elbo::device::Bound;
use elbo::rng::Draw;
use elbo::{Control, Cpu, Exec, Fusion, Graph, Interp, Optimizer, Plan, Var, grad};

/// Rows of the resident data set; a run covers at most this many.
const DATA_ROWS: usize = 12_800;

struct Kernel {
    /// The kernel's name in the plan.
    name: &'static str,
    /// What distinguishes it from others of the name.
    variant: &'static str,
    build: fn(&Graph),
}

/// A state with `numbers` in it.
fn input<'g>(g: &'g Graph, name: &str, shape: &[usize]) -> Var<'g> {
    g.state(name, shape)
}

const fn kernel(name: &'static str, variant: &'static str, build: fn(&Graph)) -> Kernel {
    Kernel { name, variant, build }
}

/// The gradients of a layer's weight and bias from its input and ∂loss/∂y.
fn layer_gradients(g: &Graph) {
    let (x, w, b) = (input(g, "x", &[128, 784]), g.param("w", &[784, 400]), g.param("b", &[400]));
    let y = x.matmul(w) + b;
    let d = grad((y * input(g, "dy", &[128, 400])).sum_all(), &[w, b]);
    g.store("dw", d[0]);
    g.store("db", d[1]);
}

/// Cross-entropy on logits, and its gradient.
fn bce(g: &Graph) {
    let (l, x) = (input(g, "l", &[128, 784]), input(g, "x", &[128, 784]));
    let loss = (l.softplus() - x * l).sum_all();
    g.store("dl", grad(loss, &[l])[0]);
    g.metric("loss", loss);
}

/// z = μ + e^(lv/2)·ε and its KL.
fn sample_kl(g: &Graph) {
    let heads = input(g, "heads", &[128, 40]);
    let (mu, lv) = (heads.slice_cols(0, 20), heads.slice_cols(20, 20));
    g.store("z", mu + (lv * 0.5).exp() * g.normal(&[128, 20], 1));
    g.metric("kl", (mu.square() + lv.expm1() - lv).sum_all() * 0.5);
}

fn update(g: &Graph, rule: Optimizer) {
    let p = g.param("p", &[652_824]);
    g.optimize(rule, &[(p, input(g, "g", &[652_824]))]);
}

const KERNELS: [Kernel; 22] = [
    kernel("batch", "128x784", |g| g.store("y", g.batch("images", 128, 784))),
    kernel("matmul", "128x784x400", |g| g.store("y", input(g, "a", &[128, 784]).matmul(input(g, "b", &[784, 400])))),
    kernel("matmul", "bT", |g| {
        g.store("y", input(g, "a", &[128, 784]).matmul_t(false, input(g, "b", &[400, 784]), true))
    }),
    kernel("matmul", "aT", |g| {
        g.store("y", input(g, "a", &[128, 784]).matmul_t(true, input(g, "b", &[128, 400]), false))
    }),
    kernel("matmul", "512x512x512", |g| g.store("y", input(g, "a", &[512, 512]).matmul(input(g, "b", &[512, 512])))),
    kernel("linear", "relu", |g| {
        g.store("y", (input(g, "x", &[128, 784]).matmul(input(g, "w", &[784, 400])) + input(g, "b", &[400])).relu());
    }),
    kernel("linear", "tanh", |g| {
        g.store("y", (input(g, "x", &[128, 784]).matmul(input(g, "w", &[784, 400])) + input(g, "b", &[400])).tanh());
    }),
    kernel("linear_grads", "784x400", layer_gradients),
    kernel("pointwise", "bce", bce),
    kernel("pointwise", "sample_kl", sample_kl),
    kernel("pointwise", "add", |g| g.store("y", input(g, "a", &[1024, 1024]) + input(g, "b", &[1024, 1024]))),
    kernel("pointwise", "exp", |g| g.store("y", input(g, "a", &[512, 512]).exp())),
    kernel("pointwise", "tanh", |g| g.store("y", input(g, "a", &[512, 512]).tanh())),
    kernel("pointwise", "softplus", |g| g.store("y", input(g, "a", &[512, 512]).softplus())),
    kernel("pointwise", "normal", |g| g.store("y", g.normal(&[512, 512], 1) * 2.0)),
    kernel("reduce_sum", "rows", |g| g.store("y", input(g, "a", &[1024, 784]).sum(&[0]))),
    kernel("reduce_sum", "columns", |g| g.store("y", input(g, "a", &[1024, 784]).sum(&[1]))),
    kernel("reduce_max", "columns", |g| g.store("y", input(g, "a", &[1024, 784]).max(&[1]))),
    kernel("transpose", "512x512", |g| g.store("y", input(g, "a", &[512, 512]).t())),
    kernel("gather_rows", "128 of 1000", |g| {
        let index: Vec<f64> = (0..128).map(|i| f64::from(i * 37 % 1000)).collect();
        g.store("y", input(g, "a", &[1000, 784]).gather_rows(g.tensor(&[128], &index)));
    }),
    kernel("adam", "652824", |g| update(g, Optimizer::adam())),
    kernel("sgd", "652824", |g| update(g, Optimizer::Sgd { momentum: 0.9 })),
];

fn numbers(stream: u32, n: usize) -> Vec<f32> {
    let draw = Draw { seed: 3, step: 0, stream };
    (0..n as u64).map(|i| draw.normal(i)).collect()
}

/// An executor with the kernel bound and its slots filled.
fn bind(g: &Graph, threads: usize) -> (Cpu, Bound) {
    let mut cpu = Cpu::new(threads);
    let bound = cpu.bind(&Plan::build(g, Fusion::all()).unwrap()).unwrap();
    for (i, slot) in (0..).zip(g.slots()) {
        if cpu.read(&slot.name).is_ok() {
            cpu.write(&slot.name, &numbers(i, slot.shape.size())).unwrap();
        }
    }
    let bytes: Vec<u8> = (0..DATA_ROWS * 784).map(|i| (i * 31 % 251) as u8).collect();
    cpu.set_data("images", &bytes, 784).unwrap();
    *cpu.control_mut() = Control { shuffle: true, ..Control::new(1) };
    (cpu, bound)
}

/// One step of the plan against one of the interpreter, in all slots.
fn check(name: &str, g: &Graph) {
    let (mut cpu, bound) = bind(g, 2);
    let mut run = Interp::<f64>::new(g);
    let bytes: Vec<u8> = (0..DATA_ROWS * 784).map(|i| (i * 31 % 251) as u8).collect();
    run.set_data("images", &bytes, 784);
    run.control = cpu.control().clone();
    let slots: Vec<String> = g.slots().into_iter().map(|s| s.name).filter(|name| cpu.read(name).is_ok()).collect();
    for slot in &slots {
        let values: Vec<f64> = cpu.read(slot).unwrap().into_iter().map(f64::from).collect();
        run.set(slot, &values).unwrap();
    }
    run.step();
    cpu.run(bound, 1).unwrap();
    for slot in &slots {
        for (found, truth) in cpu.read(slot).unwrap().into_iter().zip(run.get(slot).unwrap()) {
            assert!(
                (f64::from(found) - truth).abs() < 1e-3 * (1.0 + truth.abs()),
                "{name}, {slot}: {found}, not {truth}"
            );
        }
    }
}

/// The time of `steps` steps.
fn time(cpu: &mut Cpu, bound: Bound, steps: u64) -> Duration {
    let most = DATA_ROWS as u64 / 128;
    let start = Instant::now();
    let mut left = steps;
    while left > 0 {
        let now = left.min(most);
        cpu.control_mut().cursor = 0;
        cpu.run(bound, now as usize).unwrap();
        left -= now;
    }
    start.elapsed()
}

fn steps(c: &mut Criterion) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for k in &KERNELS {
        let g = Graph::new();
        (k.build)(&g);
        let plan = Plan::build(&g, Fusion::all()).unwrap();
        let name = format!("cpu/{}", k.name);
        let step =
            plan.steps.iter().find(|s| s.kind.name() == k.name).unwrap_or_else(|| panic!("no {}\n{plan}", k.name));
        let elements: usize = step.kind.writes().iter().map(|v| v.rows * v.cols).max().unwrap_or(0);
        // Updates are in place.
        let elements = if elements == 0 { plan.slots[0].shape.size() } else { elements };
        check(&name, &g);
        let mut group = c.benchmark_group(&name);
        group.throughput(Throughput::Elements(elements as u64));
        for threads in [1, cores] {
            let (mut cpu, bound) = bind(&g, threads);
            let once = time(&mut cpu, bound, 20).as_secs_f64() / 20.0;
            let steps = (0.1 / once).ceil();
            let seconds = time(&mut cpu, bound, steps as u64).as_secs_f64() / steps;
            let (gflops, gbytes) = (plan.flops() as f64 / seconds / 1e9, plan.bytes() as f64 / seconds / 1e9);
            println!("{name}/{} on {threads} threads: {gflops:.2} GFLOP/s, {gbytes:.2} GB/s", k.variant);
            group.bench_function(BenchmarkId::new(k.variant, format!("{threads} threads")), |b| {
                b.iter_custom(|iterations| time(&mut cpu, bound, iterations));
            });
            if cores == 1 {
                break;
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000));
    targets = steps
}
criterion_main!(benches);
