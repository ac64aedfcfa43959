//! Steps that share launches on a GPU against steps that do not: the same bits, fewer launches, a shorter way. Runs on a GPU if
//! there is one, elsewhere under the emulated driver.

#![cfg(feature = "cuda")]

mod common;

use common::training::{TRAIN, Training};
use common::{on_cuda, under_all_schedules};
use elbo::engine::device::cuda::paper::{PaperLaunch, PaperStep};
use elbo::engine::device::{Moment, Precision};
use elbo::engine::nn::{Activation, Initialisation, Linear};
use elbo::engine::rng::Draw;
use elbo::vae::{Binarisation, Bound, KlTerm, UpdateRule, Vae, VaeConfig, training_step};
use elbo::{Call, Cpu, Executor, Fusion, Graph, Key, Optimizer, Params, Plan, Rows, State, Var, grad};

const ADAM: UpdateRule = UpdateRule::elbo(Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, None);
const SGD: UpdateRule = UpdateRule::elbo(Optimizer::Sgd { momentum: 0.9 }, None);
const APART: fn() -> Fusion = || Fusion { launches: false, ..Fusion::all() };

fn images(rows: usize, pixels: usize) -> Vec<u8> {
    let draw = Draw { seed: 9, step: 0, stream: 0 };
    (0..(rows * pixels) as u64).map(|i| (draw.uniform(i) * 255.99) as u8).collect()
}

/// The bits of parameters and moments after three steps, and the sums of the loss.
fn trained(vae: &Vae, rule: &UpdateRule, rows: usize, fusion: Fusion) -> Option<(Vec<u32>, Vec<f64>)> {
    trained_in(Precision::F32, vae, rule, rows, fusion)
}

fn trained_in(
    precision: Precision,
    vae: &Vae,
    rule: &UpdateRule,
    rows: usize,
    fusion: Fusion,
) -> Option<(Vec<u32>, Vec<f64>)> {
    let data = images(2 * rows, vae.config.pixels());
    let mut training = Training::start(&on_cuda(precision)?, vae, rule, (rows, &data), fusion);
    assert_eq!(training.step.plan().unwrap().verify(), Ok(()));
    training.run(2);
    let moments = match rule.optimizer {
        Optimizer::Adam { .. } => &[Moment::Value, Moment::First, Moment::Second][..],
        Optimizer::Sgd { .. } => &[Moment::Value, Moment::First],
    };
    let params = vae.params();
    let arrays = params.iter().flat_map(|p| moments.iter().map(|&moment| (p.name.clone(), moment)));
    let bits = arrays.flat_map(|(name, moment)| training.state.read_moment(&name, moment).unwrap());
    Some((bits.map(f32::to_bits).collect(), training.step.take_totals().unwrap()))
}

fn same((found, sums): &(Vec<u32>, Vec<f64>), (expected, other_sums): &(Vec<u32>, Vec<f64>), what: &str) {
    assert!(found == expected, "{what}: other bits in parameters or moments");
    // The sums of programs are made row by row, or block by block.
    for (a, b) in sums.iter().zip(other_sums) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what}: {sums:?} and {other_sums:?}");
    }
}

#[test]
fn shared_launches_leave_the_bits_alone() {
    let base = |latent| VaeConfig { image: [7, 6], ..VaeConfig::new(latent) };
    let models = [
        base(3).hidden(&[19]),
        VaeConfig { activation: Activation::Tanh, ..base(5).hidden(&[24, 17]) },
        VaeConfig { binarisation: Binarisation::Dynamic, activation: Activation::Silu, ..base(2).hidden(&[40]) },
        // Long enough a sum for the heads' product to be split over k.
        base(3).hidden(&[300]),
    ];
    let monte_carlo = UpdateRule { bound: Bound { kl: KlTerm::MonteCarlo, ..Bound::ELBO }, ..ADAM };
    for (number, config) in models.into_iter().enumerate() {
        let vae = Vae::new(config).unwrap();
        for (rule, rows) in [(&ADAM, 10), (&SGD, 7), (&monte_carlo, 10), (&ADAM, 270)] {
            let run = |fusion| trained(&vae, rule, rows, fusion);
            let (Some(shared), Some(apart)) = (run(Fusion::all()), run(APART())) else { return };
            same(&shared, &apart, &format!("model {number}, {rule:?}, {rows} rows"));
        }
    }
}

/// Products that share a launch are f32 in every precision: the loss differs by no more than the precision's own error.
#[test]
fn shared_launches_in_other_precisions_differ_by_no_more_than_these_do() {
    let vae = Vae::new(VaeConfig { image: [7, 6], ..VaeConfig::new(3).hidden(&[19]) }).unwrap();
    let run = |precision, fusion| trained_in(precision, &vae, &SGD, 10, fusion).map(|(_, sums)| sums);
    let Some(exact) = run(Precision::F32, APART()) else { return };
    let largest = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max);
    // Relative errors of a factor: 8, 11 and 16 bits; the sums of three outputs over two steps are some units of that.
    for (precision, bits) in [(Precision::Bf16, 8), (Precision::Tf32, 11), (Precision::Bf16x3, 16)] {
        let (Some(shared), Some(apart)) = (run(precision, Fusion::all()), run(precision, APART())) else { return };
        let bound = 4.0 * 0.5f64.powi(bits);
        let found = [largest(&shared, &apart), largest(&shared, &exact), largest(&apart, &exact)];
        assert!(found.iter().all(|error| *error <= bound), "{precision}: {found:?}, bound {bound}");
        assert!(shared != apart, "{precision}: nothing is shared, or nothing is rounded");
    }
}

#[test]
fn shared_launches_give_the_same_bits_under_every_schedule() {
    let vae = Vae::new(VaeConfig { image: [7, 6], ..VaeConfig::new(3).hidden(&[19]) }).unwrap();
    let run = || trained(&vae, &ADAM, 10, Fusion::all());
    let Some(expected) = run() else { return };
    for (schedule, found) in under_all_schedules(run) {
        assert!(found.as_ref() == Some(&expected), "{schedule}");
    }
}

/// Whatever the lengths of the runs: each begins with a batch of its own, and leaves behind one that nobody reads.
#[test]
fn batches_that_are_gathered_ahead_are_those_of_their_steps() {
    const LENGTHS: [usize; 6] = [1, 3, 10, 2, 16, 1];
    let vae = Vae::new(VaeConfig { image: [7, 6], ..VaeConfig::new(3).hidden(&[19]) }).unwrap();
    let run = |fusion| {
        let pixels = vae.config.pixels();
        let data = images(5 * LENGTHS.iter().sum::<usize>(), pixels);
        let mut training = Training::start(&on_cuda(Precision::F32)?, &vae, &ADAM, (5, &data), fusion);
        LENGTHS.into_iter().for_each(|steps| training.run(steps));
        let after_all = training.take_bits().0;
        // The launches are recorded by now, and follow the data to other memory.
        training.rows.cursor = 0;
        let negative: Vec<u8> = data.iter().map(|byte| 255 - byte).collect();
        training.state.load(TRAIN, &negative, pixels).unwrap();
        training.run(9);
        Some((after_all, training.take_bits().0))
    };
    let (Some(ahead), Some(apart)) = (run(Fusion::all()), run(APART())) else { return };
    assert!(ahead == apart);
}

/// Two batches, and runs as long as the table of the steps' numbers, a step longer, and longer.
#[test]
fn batches_are_gathered_ahead_past_the_end_of_the_table() {
    const STEPS: [usize; 3] = [1024, 1025, 9];
    let all: usize = STEPS.iter().sum();
    let data = [images(all, 3), images(all, 2)];
    let run = |executor: &Executor, fusion| {
        let g = Graph::new();
        let (w, x, y) = (g.param("w", &[3, 2]), g.batch_in_units("x", 1, 3, 255.0), g.batch_in_units("y", 1, 2, 255.0));
        let error = (x.matmul(w) - y).square().sum_all();
        g.optimize(Optimizer::Sgd { momentum: 0.5 }, 0.05, &[(w, grad(error, &[w])[0])]);
        let mut step = executor.compile_with(&g, [error], fusion).unwrap();
        let mut state = executor.state(&Params::of(&g), 3).unwrap();
        state.load("x", &data[0][..], 3).unwrap();
        state.load("y", &data[1][..], 2).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        for steps in STEPS {
            let rows = Rows { cursor: at as u32, ..Rows::shuffled(0) };
            step.run(&mut state, &Call { rows, steps, ..Call::once(Key { seed: 5, step: at as u32 }) }).unwrap();
            at += steps;
            found.extend(state.read("w").unwrap());
        }
        let plan = step.plan().unwrap();
        let paper = PaperStep::of(plan, Precision::F32, (9, 0), fusion.launches).unwrap();
        assert_eq!(paper.launches.iter().filter(|launch| launch.for_next).count(), if fusion.launches { 2 } else { 0 });
        found
    };
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let (ahead, apart) = (run(&gpu, Fusion::all()), run(&gpu, APART()));
    assert!(ahead.iter().all(|w| w.is_finite()) && ahead[..6] != ahead[6..12] && ahead[6..12] != ahead[12..]);
    let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|x| x.to_bits()).collect() };
    assert!(bits(&ahead) == bits(&apart));
}

/// Large enough for tiles of 64 × 32, with epilogues, updates and column sums, and rows that end within a tile.
#[test]
fn the_usual_step_agrees_with_the_cpu() {
    const STEPS: usize = 2;
    let vae = Vae::new(VaeConfig::new(20).hidden(&[400])).unwrap();
    let step = paper(vae.config.clone(), 120, Fusion::all());
    let tiles: Vec<bool> = step.launches.iter().map(|launch| launch.kernel == "gemm_f32_64x32").collect();
    assert!(tiles.iter().filter(|is| **is).count() >= 4, "{:#?}", step.launches);
    let run = |executor: &Executor, fusion| {
        let data = images(STEPS * 120, vae.config.pixels());
        let mut training = Training::start(executor, &vae, &SGD, (120, &data), fusion);
        training.run(STEPS);
        let values = training.parameters().into_iter().map(f32::from_bits).collect::<Vec<f32>>();
        (values, training.take_loss())
    };
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let cpu = run(&Executor::new(Cpu::new(2)), Fusion::all());
    let (shared, apart) = (run(&gpu, Fusion::all()), run(&gpu, APART()));
    assert!(shared.0 == apart.0, "shared launches leave other bits");
    let start = Training::start(&gpu, &vae, &SGD, (1, &images(1, 784)), Fusion::all()).parameters();
    let moved = cpu.0.iter().zip(&start).map(|(a, b)| (a - f32::from_bits(*b)).abs()).fold(0.0, f32::max);
    for (found, loss) in [&shared, &apart] {
        let difference = found.iter().zip(&cpu.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-4 * moved, "{difference:e} of {moved:e}");
        assert!((loss - cpu.1).abs() <= 1e-5 * cpu.1.abs(), "{loss} and {}", cpu.1);
    }
}

/// A network of linear layers with ReLU, of these sizes, and a step that learns from bytes to put out 0.3.
struct Layers {
    rows: usize,
    sizes: &'static [usize],
    /// Without biases, whose gradients are column sums, but with a ReLU after the last layer too.
    bare: bool,
}

impl Layers {
    fn layers(&self) -> Vec<Linear> {
        self.sizes.windows(2).enumerate().map(|(i, s)| Linear::new(format!("{i}"), s[0], s[1])).collect()
    }

    /// The network, its loss and the update.
    fn step<'g>(&self, g: &'g Graph) -> Var<'g> {
        let layers = self.layers();
        let x = g.batch_in_units("x", self.rows, self.sizes[0], 255.0);
        let apply = |y: Var<'g>, (i, layer): (usize, &Linear)| {
            let y = if self.bare { y.matmul(layer.params(g)[0]) } else { layer.apply(y) };
            if i + 1 < layers.len() || self.bare { y.relu() } else { y }
        };
        let loss = (layers.iter().enumerate().fold(x, apply) - 0.3).square().sum_all() * (1.0 / self.rows as f64);
        let count = if self.bare { 1 } else { 2 };
        let params: Vec<Var> = layers.iter().flat_map(|layer| layer.params(g).into_iter().take(count)).collect();
        let pairs: Vec<(Var, Var)> = params.iter().copied().zip(grad(loss, &params)).collect();
        g.optimize(Optimizer::Sgd { momentum: 0.5 }, 0.01, &pairs);
        loss
    }

    /// How the launches are on an H200 in bf16.
    fn paper(&self, fusion: Fusion) -> Vec<PaperLaunch> {
        let g = Graph::new();
        let plan = Plan::build(&g, &[self.step(&g)], fusion).unwrap();
        PaperStep::of(&plan, Precision::Bf16, (9, 0), fusion.launches).unwrap().launches
    }

    /// How far each parameter is moved by some steps, and the loss.
    fn moved(&self, executor: &Executor, fusion: Fusion, steps: usize) -> (Vec<Vec<f32>>, f64) {
        let g = Graph::new();
        let loss = self.step(&g);
        let mut params = Params::new();
        self.layers().iter().for_each(|layer| params.layer(layer, Initialisation::Glorot));
        let mut step = executor.compile_with(&g, [loss], fusion).unwrap();
        assert_eq!(step.plan().unwrap().verify(), Ok(()));
        let mut state = executor.state(&params, 3).unwrap();
        state.load("x", &images(steps * self.rows, self.sizes[0])[..], self.sizes[0]).unwrap();
        let all = |state: &State| params.iter().map(|p| state.read(&p.name).unwrap()).collect::<Vec<Vec<f32>>>();
        let before = all(&state);
        let key = Key { seed: 5, step: 0 };
        step.run(&mut state, &Call { rows: Rows::in_order(), steps, ..Call::once(key) }).unwrap();
        let moved = |(after, before): (&Vec<f32>, &Vec<f32>)| after.iter().zip(before).map(|(a, b)| a - b).collect();
        (all(&state).iter().zip(&before).map(moved).collect(), step.take_totals().unwrap()[0])
    }
}

/// Large products in bf16 take their factors as planes: of the batch, of parameters, and those that products leave; with what
/// follows them and updates; and rows that end within a tile.
#[test]
fn steps_with_planes_of_bf16_are_those_of_the_cpu_but_for_rounding() {
    let forward = Layers { rows: 788, sizes: &[64, 256, 784, 256], bare: false };
    let gradients = Layers { rows: 517, sizes: &[784, 784], bare: true };
    for (layers, steps, products, apart, left) in [(&forward, 1, 2, 3, 1), (&gradients, 2, 1, 2, 0)] {
        for fusion in [Fusion::all(), APART()] {
            let launches = layers.paper(fusion);
            let count = |name: &str| launches.iter().filter(|launch| launch.kernel.starts_with(name)).count();
            let found = [count("gemm_planes_"), count("make_planes")];
            assert_eq!(found, [products, apart], "{launches:#?}");
            assert_eq!(2 * products - found[1], left);
            assert!(launches.iter().all(|launch| !launch.kernel.starts_with("rows_")));
        }
        let Some(gpu) = on_cuda(Precision::Bf16) else { return };
        let (exact, loss) = layers.moved(&Executor::new(Cpu::new(2)), Fusion::all(), steps);
        let shared = layers.moved(&gpu, Fusion::all(), steps);
        if layers.bare {
            assert!(shared == layers.moved(&gpu, APART(), steps), "shared launches leave other bits");
        }
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let error = |(found, exact): (&Vec<f32>, &Vec<f32>)| {
            norm(&mut found.iter().zip(exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied())
        };
        let moved = exact.iter().filter(|moved| moved.iter().any(|m| *m != 0.0)).count();
        assert_eq!(moved, exact.len() / if layers.bare { 2 } else { 1 });
        let errors: Vec<f64> = shared.0.iter().zip(&exact).map(error).filter(|error| !error.is_nan()).collect();
        assert_eq!(errors.len(), moved);
        // Factors have 8 bits.
        assert!(errors.iter().all(|error| *error < 1e-2), "{errors:?}");
        assert!((shared.1 - loss).abs() <= 2e-3 * loss, "{} and {loss}", shared.1);
    }
    let small = Layers { rows: 788, sizes: &[256, 784, 8], bare: false };
    assert!(small.paper(Fusion::all()).iter().any(|launch| launch.kernel.starts_with("gemm_planes_")));
    let run = || on_cuda(Precision::Bf16).map(|gpu| small.moved(&gpu, Fusion::all(), 1));
    let expected = run();
    for (schedule, found) in under_all_schedules(run) {
        assert!(found == expected, "{schedule}");
    }
}

/// The step of the usual model on an H200, which needs no GPU to be looked at.
fn paper(config: VaeConfig, rows: usize, fusion: Fusion) -> PaperStep {
    paper_on((9, 0), config, rows, fusion)
}

fn paper_on(capability: (u32, u32), config: VaeConfig, rows: usize, fusion: Fusion) -> PaperStep {
    let g = Graph::new();
    let outputs = training_step(&g, &Vae::new(config).unwrap(), &ADAM, TRAIN, rows);
    let plan = Plan::build(&g, &outputs, fusion).unwrap();
    PaperStep::of(&plan, Precision::F32, capability, fusion.launches).unwrap()
}

#[test]
fn the_longest_way_of_the_usual_step_has_six_launches() {
    let v1 = || VaeConfig::new(20).hidden(&[400]);
    let (shared, apart) = (paper(v1(), 128, Fusion::all()), paper(v1(), 128, APART()));
    assert!(shared.way.len() <= 6, "{:#?}", shared.launches);
    assert!(apart.way.len() >= 11 && shared.launches.len() < apart.launches.len());
    assert!(shared.microseconds < 0.8 * apart.microseconds, "{} and {}", shared.microseconds, apart.microseconds);
    let kernels: Vec<&str> = shared.launches.iter().map(|launch| launch.kernel).collect();
    assert_eq!(kernels.iter().filter(|kernel| **kernel == "rows_1").count(), 2, "{kernels:?}");
    assert!(!kernels.contains(&"adam") && !kernels.contains(&"tick"), "{kernels:?}");
    // The batch of the next step waits for nothing in this one, and nothing for it.
    let next: Vec<usize> = (0..shared.launches.len()).filter(|&i| shared.launches[i].for_next).collect();
    assert!(next.len() == 1 && kernels[next[0]] == "batch" && shared.launches[next[0]].waits.is_empty());
    assert!(shared.launches.iter().all(|launch| !launch.waits.contains(&next[0])));
    assert!(apart.launches.iter().all(|launch| !launch.for_next));
    // Large batches are better off with whole tiles.
    let large = paper(v1(), 8192, Fusion::all());
    assert!(large.launches.iter().all(|launch| !launch.kernel.starts_with("rows")));
    // With one row the weights would all be read by one block, one after the other: steps of the way forward stay apart.
    // But not while they are so few that they are copied before the launches that these wait for are over.
    let rows = |step: &PaperStep| step.launches.iter().filter(|launch| launch.kernel.starts_with("rows")).count();
    for (latent, fewer) in [(20, false), (40, true)] {
        let config = || VaeConfig::new(latent).hidden(&[400]);
        let (one, one_apart) = (paper(config(), 1, Fusion::all()), paper(config(), 1, APART()));
        assert_eq!(rows(&one) < rows(&shared), fewer, "{:#?}", one.launches);
        assert!(one.microseconds < one_apart.microseconds);
    }
    let copied = |step: &PaperStep| step.launches.iter().filter(|launch| launch.ahead > 0.0).count();
    let older = paper_on((8, 0), v1(), 128, Fusion::all());
    assert_eq!([copied(&shared), copied(&apart), copied(&older)], [2, 0, 0]);
    // The rows add up the splits of what comes before them.
    let splits: Vec<&PaperLaunch> = shared.launches.iter().filter(|launch| launch.leaves_splits).collect();
    assert!(splits.len() == 2 && splits.iter().all(|launch| launch.urgent), "{:#?}", shared.launches);
    assert!(shared.microseconds <= 20.0, "{}", shared.microseconds);
    // What every launch waits for comes before it, and the last comes after all.
    for (i, launch) in shared.launches.iter().enumerate() {
        assert!(launch.waits.iter().all(|&j| j < i && shared.launches[j].time.1 < launch.time.0));
    }
}

#[test]
fn a_limited_gradient_is_not_used_before_its_norm_is_known() {
    let g = Graph::new();
    let limited = UpdateRule { clip: Some(1.0), ..ADAM };
    let outputs = training_step(&g, &Vae::new(VaeConfig::new(2).hidden(&[50])).unwrap(), &limited, TRAIN, 16);
    let plan = Plan::build(&g, &outputs, Fusion::all()).unwrap();
    let step = PaperStep::of(&plan, Precision::F32, (9, 0), true).unwrap();
    assert!(step.launches.iter().any(|launch| launch.kernel == "adam"));
}
