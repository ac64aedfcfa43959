//! Every kind of step by itself: `cargo bench --bench steps [-- cuda/linear]`, in groups `cpu/…` and, where there is a
//! GPU, `cuda/…` of the same names.
//!
//! A graph that comes to one kernel of the kind, at sizes of the usual training step (784-400-20-400-784, batch 128).
//! Its result is compared with the interpreter in f64 before it is timed. Criterion prints elements per second; the
//! line before it FLOP/s and bytes/s, counted as in `elbo plan`.

// `criterion_group!` makes a public function without a comment.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{Target, print_rates, targets, time};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use elbo::engine::device::{Bound, Device, Exec};
use elbo::engine::rng::Draw;
use elbo::{Control, Fusion, Graph, Interp, Optimizer, Plan, Var, grad};

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

/// Bytes of the data set, each pixel another than its neighbours.
fn images() -> Vec<u8> {
    (0..DATA_ROWS * 784).map(|i| (i * 31 % 251) as u8).collect()
}

/// An executor with the kernel bound and its slots filled.
fn bind(g: &Graph, device: Device) -> (Box<dyn Exec>, Bound) {
    let mut exec = device.open().unwrap();
    let bound = exec.bind(&Plan::build(g, Fusion::all()).unwrap()).unwrap();
    for (i, slot) in (0..).zip(g.slots()) {
        if exec.read(&slot.name).is_ok() {
            exec.write(&slot.name, &numbers(i, slot.shape.size())).unwrap();
        }
    }
    exec.set_data("images", &images(), 784).unwrap();
    *exec.control_mut() = Control { shuffle: true, ..Control::new(1) };
    (exec, bound)
}

/// One step of the plan against one of the interpreter, in all slots.
fn check(name: &str, g: &Graph, device: Device) {
    let (mut exec, bound) = bind(g, device);
    let mut run = Interp::<f64>::new(g);
    run.set_data("images", &images(), 784).unwrap();
    run.control = exec.control().clone();
    let slots: Vec<String> = g.slots().into_iter().map(|s| s.name).filter(|name| exec.read(name).is_ok()).collect();
    for slot in &slots {
        let values: Vec<f64> = exec.read(slot).unwrap().into_iter().map(f64::from).collect();
        run.set(slot, &values).unwrap();
    }
    run.step();
    exec.run(bound, 1).unwrap();
    for slot in &slots {
        for (found, truth) in exec.read(slot).unwrap().into_iter().zip(run.get(slot).unwrap()) {
            assert!(
                (f64::from(found) - truth).abs() < 1e-3 * (1.0 + truth.abs()),
                "{name}, {slot}: {found}, not {truth}"
            );
        }
    }
}

/// The number of elements that the kernel makes, or updates in place.
fn elements(kernel: &Kernel, plan: &Plan) -> usize {
    let step = plan.steps().iter().find(|s| s.name() == kernel.name);
    step.unwrap_or_else(|| panic!("no {}\n{plan}", kernel.name)).elements()
}

fn steps(c: &mut Criterion) {
    let targets = targets();
    for kernel in &KERNELS {
        targets.iter().for_each(|target| step(c, kernel, target));
    }
}

fn step(c: &mut Criterion, kernel: &Kernel, target: &Target) {
    let g = Graph::new();
    (kernel.build)(&g);
    let plan = Plan::build(&g, Fusion::all()).unwrap();
    let name = format!("{}/{}", target.group, kernel.name);
    check(&name, &g, target.device);
    let (mut exec, bound) = bind(&g, target.device);
    let mut time = |steps| time(exec.as_mut(), bound, steps, plan.batch_rows(), DATA_ROWS);
    print_rates(&format!("{name}/{}, {}", kernel.variant, target.variant), &plan, 0.1, &mut time);
    let mut group = c.benchmark_group(&name);
    group.throughput(Throughput::Elements(elements(kernel, &plan) as u64));
    group.bench_function(BenchmarkId::new(kernel.variant, &target.variant), |b| b.iter_custom(&mut time));
    group.finish();
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
