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

use std::time::Duration;

use common::{Target, print_rates, targets, time};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use elbo::engine::device::{Bound, Device, Exec};
use elbo::engine::nn::Activation;
use elbo::vae::{Objective, Vae, VaeConfig, training_graph};
use elbo::{Control, Fusion, Graph, Interp, Optimizer, Plan};

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

fn control() -> Control {
    Control { shuffle: true, ..Control::new(1) }
}

fn bind(case: &Case, g: &Graph, device: Device) -> (Box<dyn Exec>, Bound) {
    let mut exec = device.open().unwrap();
    let step = exec.bind(&Plan::build(g, Fusion::all()).unwrap()).unwrap();
    exec.set_data("train", &images(), 784).unwrap();
    case.vae.init(0).iter().for_each(|i| exec.write(&i.name, &i.values).unwrap());
    *exec.control_mut() = control();
    (exec, step)
}

/// The loss of one step, from the interpreter in f64.
fn truth(case: &Case, g: &Graph) -> f64 {
    let mut run = Interp::<f64>::new(g);
    run.set_data("train", &images(), 784).unwrap();
    for init in case.vae.init(0) {
        run.set(&init.name, &init.values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
    }
    run.control = control();
    run.step();
    run.metric("loss").unwrap()
}

fn train_step(c: &mut Criterion) {
    let targets = targets();
    let objective = Objective::elbo(Optimizer::adam(), None);
    for case in &cases() {
        let g = training_graph(&case.vae, &objective, "train", case.batch);
        let truth = truth(case, &g);
        targets.iter().for_each(|target| case_on(c, case, &g, truth, target));
    }
}

fn case_on(c: &mut Criterion, case: &Case, g: &Graph, truth: f64, target: &Target) {
    let plan = Plan::build(g, Fusion::all()).unwrap();
    let (mut exec, step) = bind(case, g, target.device);
    exec.run(step, 1).unwrap();
    let found = exec.take_metrics(step).unwrap()["loss"];
    assert!((found / truth - 1.0).abs() < 1e-5, "{} on {}: loss {found}, not {truth}", case.name, exec.describe());
    let mut time = |steps| time(exec.as_mut(), step, steps, case.batch, DATA_ROWS);
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
