//! A short training run against an independent one: `tests/golden/reference.py` is the same model in numpy, with the
//! derivatives written by hand; its first lines say what is computed and how to write `curve.json` again.
//!
//! Guards against silent drift: of a formula, a gradient, the noise, the order of the data, a schedule, clipping or the
//! optimiser. The interpreter in f64 must agree to 1e-9, the CPU plan in f32 to [`SINGLE`].

use std::collections::BTreeMap;

use elbo::engine::device::Schedule;
use elbo::engine::optim::clip_scale;
use elbo::engine::rng::Draw;
use elbo::vae::{KlWarmup, pixels};
use elbo::{Call, Cpu, Executor, Fusion, Graph, Interp, Key, LrSchedule, Optimizer, Params, Rows, Var, grad};
use serde::Deserialize;

const SEED: u64 = 5;
const IMAGES: usize = 120;
const SIDE: usize = 6;
const PIXELS: usize = SIDE * SIDE;
const BATCH: usize = 24;
const LATENT: usize = 3;
const HIDDEN: usize = 12;

/// Relative error of the f32 plan's losses: 44 updates, each with a relative error of 2⁻²⁴ in its sums of up to 864
/// terms, through a loss whose curvature does not amplify them much.
const SINGLE: f64 = 2e-5;

#[derive(Deserialize)]
struct Curve {
    loss: Vec<f64>,
    rec: Vec<f64>,
    kl: Vec<f64>,
    norm: Vec<f64>,
    sums: BTreeMap<String, [f64; 2]>,
}

fn curve() -> Curve {
    serde_json::from_str(include_str!("golden/curve.json")).unwrap()
}

fn images() -> Vec<u8> {
    let pixel = |i: usize| {
        let (image, r, c) = (i / PIXELS, i % PIXELS / SIDE, i % SIDE);
        let (a, b) = (image % SIDE, image / SIDE % SIDE);
        255usize.saturating_sub(45 * r.abs_diff(a) + 30 * c.abs_diff(b)) as u8
    };
    (0..IMAGES * PIXELS).map(pixel).collect()
}

/// (name, shape, initial values) of every parameter.
fn initial() -> Vec<(String, Vec<usize>, Vec<f64>)> {
    let widths = [(PIXELS, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, PIXELS)];
    let mut all = Vec::new();
    for (layer, (rows, cols)) in widths.into_iter().enumerate() {
        for (name, shape) in [(format!("w{layer}"), vec![rows, cols]), (format!("b{layer}"), vec![cols])] {
            let draw = Draw { seed: SEED, step: 0, stream: 0x2000 + all.len() as u32 };
            let size: usize = shape.iter().product();
            let bound = (rows as f64).sqrt();
            let values = (0..size as u64).map(|i| (2.0 * f64::from(draw.uniform(i)) - 1.0) / bound).collect();
            all.push((name, shape, values));
        }
    }
    all
}

/// The training step, from nodes alone: loss, rec, kl, and the gradient's norm.
fn training_step(g: &Graph) -> [Var<'_>; 4] {
    let params: Vec<Var> = initial().iter().map(|(name, shape, _)| g.param(name, shape)).collect();
    let x = pixels(g, "images", BATCH, PIXELS);
    let h = (x.matmul(params[0]) + params[1]).tanh();
    let heads = h.matmul(params[2]) + params[3];
    let (mu, lv) = (heads.slice_cols(0, LATENT), heads.slice_cols(LATENT, LATENT));
    let z = mu + (lv * 0.5).exp() * g.normal(&[BATCH, LATENT], 1);
    let k = (z.matmul(params[4]) + params[5]).relu();
    let logits = k.matmul(params[6]) + params[7];
    let rec = (logits.softplus() - x * logits).sum_all();
    let kl = (mu.square() + lv.expm1() - lv).sum_all() * 0.5;
    let loss = (rec + g.schedule("beta") * kl) * (1.0 / BATCH as f64);
    let grads = grad(loss, &params);
    let norm = grads.iter().map(|d| d.square().sum_all()).reduce(|a, b| a + b).unwrap().sqrt();
    let pairs: Vec<(Var, Var)> = params.into_iter().zip(grads.iter().copied()).collect();
    g.optimize_scaled(Optimizer::adam(), g.schedule("learning rate"), &pairs, clip_scale(&grads, 2.5));
    [loss, rec, kl, norm]
}

fn learning_rate(done: u64) -> f64 {
    LrSchedule::Steps { lr: 0.02, at: vec![(30, 0.005)] }.at(done)
}

fn beta(done: u64) -> f64 {
    KlWarmup { beta: 1.0, steps: 10 }.at(done)
}

/// The batches of all epochs, one after the other.
fn rows(step: u32) -> Rows {
    let position = step as usize * BATCH;
    Rows::shuffled((position / IMAGES) as u32).from((position % IMAGES) as u32)
}

#[track_caller]
fn close(what: &str, found: f64, expected: f64, scale: f64, tolerance: f64) {
    let error = (found - expected).abs() / scale;
    assert!(error <= tolerance, "{what}: {found}, the reference has {expected} (relative error {error:.1e})");
}

/// Σ p and Σ (1 + i mod 7) p, with Σ |(1 + i mod 7) p| for the scale of rounding errors.
fn sums(values: &[f64]) -> [f64; 3] {
    let weighted = || values.iter().enumerate().map(|(i, p)| (1 + i % 7) as f64 * p);
    [values.iter().sum(), weighted().sum(), weighted().map(f64::abs).sum()]
}

#[track_caller]
fn compare_sums(name: &str, values: &[f64], expected: [f64; 2], tolerance: f64) {
    let found = sums(values);
    close(name, found[0], expected[0], found[2], tolerance);
    close(name, found[1], expected[1], found[2], tolerance);
}

#[test]
fn the_interpreter_follows_the_reference() {
    let curve = curve();
    let g = Graph::new();
    let [loss, rec, kl, norm] = training_step(&g);
    let mut run = Interp::<f64>::new(&g);
    run.load("images", &images()[..], PIXELS).unwrap();
    initial().iter().for_each(|(name, _, values)| run.set(name, values).unwrap());
    for step in 0..curve.loss.len() {
        run.at(Key { seed: SEED, step: step as u32 }, rows(step as u32));
        run.schedule("learning rate", learning_rate(step as u64));
        run.schedule("beta", beta(step as u64));
        for (name, var, values) in
            [("loss", loss, &curve.loss), ("rec", rec, &curve.rec), ("kl", kl, &curve.kl), ("norm", norm, &curve.norm)]
        {
            close(&format!("{name} of step {step}"), run.eval(var)[0], values[step], values[step], 1e-9);
        }
        run.step();
    }
    for (name, _, _) in initial() {
        compare_sums(&name, run.get(&name).unwrap(), curve.sums[&name], 1e-9);
    }
}

#[test]
fn the_cpu_plan_follows_the_reference() {
    let curve = curve();
    let g = Graph::new();
    let [loss, ..] = training_step(&g);
    for fusion in [Fusion::all(), Fusion::none()] {
        let cpu = Executor::new(Cpu::new(2));
        let mut train = cpu.compile_with(&g, [loss], fusion).unwrap();
        let mut state = cpu.state(&Params::of(&g), 0).unwrap();
        state.load("images", &images()[..], PIXELS).unwrap();
        for (name, _, values) in initial() {
            state.write(&name, &values.iter().map(|&v| v as f32).collect::<Vec<_>>()).unwrap();
        }
        for (step, expected) in (0..).zip(&curve.loss) {
            let schedules: &[(&str, Schedule)] = &[("learning rate", &learning_rate), ("beta", &beta)];
            let key = Key { seed: SEED, step };
            train.run(&mut state, &Call { key, rows: rows(step), steps: 1, schedules }).unwrap();
            close(&format!("loss of step {step}"), train.take_totals().unwrap()[0], *expected, *expected, SINGLE);
        }
        for (name, _, _) in initial() {
            let values: Vec<f64> = state.read(&name).unwrap().into_iter().map(f64::from).collect();
            compare_sums(&name, &values, curve.sums[&name], 20.0 * SINGLE);
        }
    }
}

/// The reference would not notice an error in what it does not exercise.
#[test]
fn the_reference_exercises_clipping_and_every_epoch() {
    let curve = curve();
    let clipped = curve.norm.iter().filter(|&&n| n > 2.5).count();
    assert!(clipped > 2 && clipped < curve.norm.len() / 2, "{clipped} clipped steps");
    assert!(curve.loss.len() > 2 * IMAGES / BATCH, "several epochs");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!(mean(&curve.loss[34..]) < mean(&curve.loss[..10]) - 1.5, "it learns");
}
