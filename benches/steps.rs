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
use elbo::engine::graph::SlotKind;
use elbo::engine::rng::Draw;
use elbo::vae::pixels;
use elbo::{Call, Executor, Function, Graph, Key, Optimizer, Params, Plan, Rows, State, Var, grad};

/// Rows of the resident data set; a run covers at most this many.
const DATA_ROWS: usize = 12_800;

struct Kernel {
    /// The kernel's name in the plan.
    name: &'static str,
    /// What distinguishes it from others of the name.
    variant: &'static str,
    /// Gives the outputs.
    build: Build,
}

type Build = for<'g> fn(&'g Graph) -> Vec<Var<'g>>;

const fn kernel(name: &'static str, variant: &'static str, build: Build) -> Kernel {
    Kernel { name, variant, build }
}

/// The gradients of a layer's weight and bias from its input and ∂loss/∂y.
fn layer_gradients(g: &Graph) -> Vec<Var<'_>> {
    let (x, w, b) = (g.input(&[128, 784]), g.param("w", &[784, 400]), g.param("b", &[400]));
    let y = x.matmul(w) + b;
    grad((y * g.input(&[128, 400])).sum_all(), &[w, b])
}

/// Cross-entropy on logits, and its gradient.
fn bce(g: &Graph) -> Vec<Var<'_>> {
    let (l, x) = (g.input(&[128, 784]), g.input(&[128, 784]));
    let loss = (l.softplus() - x * l).sum_all();
    vec![grad(loss, &[l])[0], loss]
}

/// z = μ + e^(lv/2)·ε and its KL.
fn sample_kl(g: &Graph) -> Vec<Var<'_>> {
    let heads = g.input(&[128, 40]);
    let (mu, lv) = (heads.slice_cols(0, 20), heads.slice_cols(20, 20));
    let z = mu + (lv * 0.5).exp() * g.normal(&[128, 20], 1);
    vec![z, (mu.square() + lv.expm1() - lv).sum_all() * 0.5]
}

fn update(g: &Graph, rule: Optimizer) -> Vec<Var<'_>> {
    let p = g.param("p", &[652_824]);
    g.optimize(rule, 1e-3, &[(p, g.input(&[652_824]))]);
    Vec::new()
}

/// x·W + b.
fn layer(g: &Graph) -> Var<'_> {
    g.input(&[128, 784]).matmul(g.input(&[784, 400])) + g.input(&[400])
}

const KERNELS: [Kernel; 22] = [
    kernel("batch", "128x784", |g| vec![pixels(g, "images", 128, 784)]),
    kernel("matmul", "128x784x400", |g| vec![g.input(&[128, 784]).matmul(g.input(&[784, 400]))]),
    kernel("matmul", "bT", |g| vec![g.input(&[128, 784]).matmul_t(false, g.input(&[400, 784]), true)]),
    kernel("matmul", "aT", |g| vec![g.input(&[128, 784]).matmul_t(true, g.input(&[128, 400]), false)]),
    kernel("matmul", "512x512x512", |g| vec![g.input(&[512, 512]).matmul(g.input(&[512, 512]))]),
    kernel("linear", "relu", |g| vec![layer(g).relu()]),
    kernel("linear", "tanh", |g| vec![layer(g).tanh()]),
    kernel("linear_grads", "784x400", layer_gradients),
    kernel("pointwise", "bce", bce),
    kernel("pointwise", "sample_kl", sample_kl),
    kernel("pointwise", "add", |g| vec![g.input(&[1024, 1024]) + g.input(&[1024, 1024])]),
    kernel("pointwise", "exp", |g| vec![g.input(&[512, 512]).exp()]),
    kernel("pointwise", "tanh", |g| vec![g.input(&[512, 512]).tanh()]),
    kernel("pointwise", "softplus", |g| vec![g.input(&[512, 512]).softplus()]),
    kernel("pointwise", "normal", |g| vec![g.normal(&[512, 512], 1) * 2.0]),
    kernel("reduce_sum", "rows", |g| vec![g.input(&[1024, 784]).sum(&[0])]),
    kernel("reduce_sum", "columns", |g| vec![g.input(&[1024, 784]).sum(&[1])]),
    kernel("reduce_max", "columns", |g| vec![g.input(&[1024, 784]).max(&[1])]),
    kernel("transpose", "512x512", |g| vec![g.input(&[512, 512]).t()]),
    kernel("gather_rows", "128 of 1000", |g| {
        let index: Vec<f64> = (0..128).map(|i| f64::from(i * 37 % 1000)).collect();
        vec![g.input(&[1000, 784]).gather_rows(g.tensor(&[128], &index))]
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

/// The call that is checked and timed.
fn call<'a>() -> Call<'a> {
    Call { rows: Rows::shuffled(0), ..Call::once(Key::new(1)) }
}

/// The kernel compiled, with numbers in everything that it reads.
fn compile(kernel: &Kernel, executor: &Executor) -> (Function, State) {
    let g = Graph::new();
    let mut function = executor.compile(&g, (kernel.build)(&g)).unwrap();
    let mut state = executor.state(&Params::of(&g), 0).unwrap();
    let mut inputs = 0..;
    for (stream, slot) in (0..).zip(g.slots()) {
        let numbers = numbers(stream, slot.shape.size());
        match slot.kind {
            SlotKind::Data => state.load(&slot.name, &images()[..], 784).unwrap(),
            SlotKind::Cell => function.write(inputs.next().expect("it has no end"), &numbers).unwrap(),
            SlotKind::Param | SlotKind::Buffer => state.write(&slot.name, &numbers).unwrap(),
        }
    }
    (function, state)
}

/// What one step leaves behind: the outputs, then the parameters.
fn results(kernel: &Kernel, executor: &Executor) -> Vec<Vec<f32>> {
    let (mut function, mut state) = compile(kernel, executor);
    function.run(&mut state, &call()).unwrap();
    let mut all = function.values().unwrap();
    all.extend(state.params().iter().map(|p| state.read(&p.name).unwrap()));
    all
}

/// One step against one of the reference.
fn check(name: &str, kernel: &Kernel, executor: &Executor) {
    let (all, truths) = (results(kernel, executor), results(kernel, &Executor::reference()));
    for (number, (found, truth)) in all.iter().zip(&truths).enumerate() {
        for (found, truth) in found.iter().zip(truth) {
            assert!(
                (found - truth).abs() < 1e-3 * (1.0 + truth.abs()),
                "{name}, result {number}: {found}, not {truth}"
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
    let executor = target.device.open().unwrap();
    let name = format!("{}/{}", target.group, kernel.name);
    check(&name, kernel, &executor);
    let (mut function, mut state) = compile(kernel, &executor);
    let plan = function.plan().expect("a device has a plan").clone();
    let mut time = |steps| time(&mut function, &mut state, &call(), steps, DATA_ROWS);
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
