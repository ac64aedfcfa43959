//! Whole training steps: batch, forward, backward, Adam. `cargo bench --bench train_step [-- cuda/]`, in the group
//! `cpu/train_step` and, where there is a GPU, `cuda/train_step`.
//!
//! | name | net | batch |
//! |---|---|---|
//! | V1 | 784-400-20-400-784, ReLU | 128 and 32 |
//! | V2 | 784-200-200-50-200-200-784, tanh | 20 |
//!
//! One step is compared with the interpreter in f64 before any is timed. Criterion's elements are images.

// `criterion_group!` makes a public function without a comment.
#![allow(missing_docs)]

mod common;
// The tests use the rest of it.
#[allow(dead_code)]
#[path = "../tests/common/training.rs"]
mod training;

use std::time::Duration;

use common::{Target, print_rates, targets, time};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use elbo::engine::nn::Activation;
use elbo::vae::{BETA, LEARNING_RATE, UpdateRule, Vae, VaeConfig};
use elbo::{Call, Executor, Fusion, Key, Optimizer};
use training::Training;

const DATA_ROWS: usize = 12_800;

struct Case {
    name: &'static str,
    vae: Vae,
    batch: usize,
}

fn cases() -> Vec<Case> {
    let v1 = || Vae::new(VaeConfig::new(20)).unwrap();
    let v2 = VaeConfig { activation: Activation::Tanh, ..VaeConfig::new(50).hidden(&[200, 200]) };
    vec![
        Case { name: "V1 batch 128", vae: v1(), batch: 128 },
        Case { name: "V1 batch 32", vae: v1(), batch: 32 },
        Case { name: "V2 batch 20", vae: Vae::new(v2).unwrap(), batch: 20 },
    ]
}

/// A fifth of the pixels lit, as in MNIST.
fn images() -> Vec<u8> {
    (0..DATA_ROWS * 784).map(|i| if i * 7919 % 5 == 0 { (i * 31 % 251) as u8 } else { 0 }).collect()
}

fn start(case: &Case, executor: &Executor) -> Training {
    let objective = UpdateRule::elbo(Optimizer::adam(), None);
    Training::start(executor, &case.vae, &objective, (case.batch, &images()), Fusion::all())
}

/// The loss of the first step.
fn first_loss(training: &mut Training) -> f64 {
    training.run(1);
    training.take_loss()
}

fn train_step(c: &mut Criterion) {
    let targets = targets();
    for case in &cases() {
        let truth = first_loss(&mut start(case, &Executor::reference()));
        targets.iter().for_each(|target| case_on(c, case, truth, target));
    }
}

fn case_on(c: &mut Criterion, case: &Case, truth: f64, target: &Target) {
    let executor = target.device.open().unwrap();
    let mut training = start(case, &executor);
    let found = first_loss(&mut training);
    assert!((found / truth - 1.0).abs() < 1e-5, "{} on {}: loss {found}, not {truth}", case.name, executor.describe());
    let Training { mut step, mut state, rows, .. } = training;
    let plan = step.plan().expect("a device has a plan").clone();
    let call = Call {
        rows: rows.from(0),
        schedules: &[(LEARNING_RATE, &|_| 1e-3), (BETA, &|_| 1.0)],
        ..Call::once(Key::new(1))
    };
    let mut time = |steps| time(&mut step, &mut state, &call, steps, DATA_ROWS);
    let group = format!("{}/train_step", target.group);
    print_rates(&format!("{group}/{}, {}", case.name, target.variant), &plan, 0.5, &mut time);
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(case.batch as u64));
    group.bench_function(BenchmarkId::new(case.name, &target.variant), |b| b.iter_custom(&mut time));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = train_step
}
criterion_main!(benches);
