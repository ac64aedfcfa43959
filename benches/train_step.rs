//! Whole training steps on the CPU: batch, forward, backward, Adam. `cargo bench --bench train_step`.
//!
//! | name | net | batch |
//! |---|---|---|
//! | V1 | 784-400-20-400-784, ReLU | 128 and 32 |
//! | V2 | 784-200-200-50-200-200-784, tanh | 20 |
//!
//! One step is compared with the interpreter in f64 before any is timed. Criterion's elements are images.

// `criterion_group!` makes a public function without a comment.
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use elbo::device::Bound;
use elbo::nn::Activation;
use elbo::vae::{Objective, Vae, VaeConfig, training_graph};
use elbo::{Control, Cpu, Exec, Fusion, Graph, Interp, Optimizer, Plan};

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

fn bind(case: &Case, g: &Graph, threads: usize) -> (Cpu, Bound) {
    let mut cpu = Cpu::new(threads);
    cpu.set_data("train", &images(), 784).unwrap();
    let step = cpu.bind(&Plan::build(g, Fusion::all()).unwrap()).unwrap();
    case.vae.init(0).iter().for_each(|i| cpu.write(&i.name, &i.values).unwrap());
    *cpu.control_mut() = control();
    (cpu, step)
}

fn check(case: &Case, g: &Graph) {
    let (mut cpu, step) = bind(case, g, 2);
    cpu.run(step, 1).unwrap();
    let mut run = Interp::<f64>::new(g);
    run.set_data("train", &images(), 784);
    for init in case.vae.init(0) {
        run.set(&init.name, &init.values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
    }
    run.control = control();
    run.step();
    let (found, truth) = (cpu.take_metrics(step).unwrap()["loss"], run.metric("loss").unwrap());
    assert!((found / truth - 1.0).abs() < 1e-5, "{}: loss {found}, not {truth}", case.name);
}

fn time(cpu: &mut Cpu, step: Bound, batch: usize, steps: u64) -> Duration {
    let epoch = (DATA_ROWS / batch) as u64;
    let start = Instant::now();
    let mut left = steps;
    while left > 0 {
        let now = left.min(epoch);
        cpu.control_mut().cursor = 0;
        cpu.run(step, now as usize).unwrap();
        left -= now;
    }
    start.elapsed()
}

fn train_step(c: &mut Criterion) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let objective = Objective { optimizer: Optimizer::adam(), clip: None };
    let mut group = c.benchmark_group("cpu/train_step");
    for case in &cases() {
        let g = training_graph(&case.vae, &objective, "train", case.batch);
        let plan = Plan::build(&g, Fusion::all()).unwrap();
        check(case, &g);
        group.throughput(Throughput::Elements(case.batch as u64));
        let threads = if cores == 1 { vec![1] } else { vec![1, cores] };
        for threads in threads {
            let (mut cpu, step) = bind(case, &g, threads);
            time(&mut cpu, step, case.batch, 50);
            let seconds = time(&mut cpu, step, case.batch, 300).as_secs_f64() / 300.0;
            let (gflops, gbytes) = (plan.flops() as f64 / seconds / 1e9, plan.bytes() as f64 / seconds / 1e9);
            let rate = 1.0 / seconds;
            println!("{} on {threads} threads: {rate:.0} steps/s, {gflops:.1} GFLOP/s, {gbytes:.1} GB/s", case.name);
            group.bench_function(BenchmarkId::new(case.name, format!("{threads} threads")), |b| {
                b.iter_custom(|iterations| time(&mut cpu, step, case.batch, iterations));
            });
        }
    }
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
