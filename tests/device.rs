//! The CUDA executor against the CPU and the interpreter: values, bits, replay, errors.
//!
//! On a machine with a GPU these tests run on it; elsewhere under the emulated driver (docs/book/src/emulator.md), which compiles
//! the same kernels for the CPU. Shapes are small because the emulator runs some 10⁷ thread operations a second.

#![cfg(feature = "cuda")]

mod common;

use common::training::{Training, bits};
use common::{cuda, on_cuda, under_all_schedules};
use elbo::engine::device::{Function, Moment, Precision, Schedule, Snapshot};
use elbo::engine::nn::Activation;
use elbo::engine::ops::{BinaryFn, ScalarFn};
use elbo::engine::rng::{Draw, Permutation};
use elbo::vae::{
    BETA, Binarisation, KlWarmup, LEARNING_RATE, Likelihood, UpdateRule, Vae, VaeConfig, evaluation, pixels,
};
use elbo::{Call, Cpu, Executor, Fusion, Graph, Key, LrSchedule, Optimizer, Params, Result, Rows, State, Var, grad};

const ROWS: usize = 60;
const BATCH: usize = 10;
const ADAM: UpdateRule = UpdateRule::elbo(Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, Some(2.0));

fn small(binarisation: Binarisation) -> Vae {
    Vae::new(VaeConfig { image: [7, 6], binarisation, ..VaeConfig::new(3).hidden(&[19]) }).unwrap()
}

/// Noisy copies of four patterns: something to learn.
fn data(rows: usize, pixels: usize) -> Vec<u8> {
    let draw = Draw { seed: 4, step: 0, stream: 0 };
    let level = |i: usize| if (i % pixels * (i / pixels % 4 + 2)) % 5 < 2 { 0.9 } else { 0.05 };
    (0..rows * pixels).map(|i| ((level(i) + 0.1 * draw.uniform(i as u64)) * 255.0) as u8).collect()
}

fn cpu() -> Executor {
    Executor::new(Cpu::new(1))
}

/// A training with a warm-up that ends within the test.
fn start(executor: &Executor, vae: &Vae, objective: &UpdateRule, fusion: Fusion) -> Training {
    let images = data(ROWS, vae.config.pixels());
    let training = Training::start(executor, vae, objective, (BATCH, &images), fusion);
    Training { warmup: KlWarmup { beta: 1.0, steps: 4 }, ..training }
}

/// The outputs of one step of a graph that reads nothing but its inputs.
fn call(executor: &Executor, (g, outputs): (&Graph, &[Var<'_>]), fusion: Fusion, inputs: &[&[f32]]) -> Vec<Vec<f32>> {
    let mut state = executor.state(&Params::of(g), 0).unwrap();
    executor.compile_with(g, outputs.to_vec(), fusion).unwrap().call(&mut state, Key::new(0), inputs).unwrap()
}

/// The largest difference, relative to the largest magnitude.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / scale
}

/// Noise, batches, permutations and binarised pixels are the same numbers on every device.
#[test]
fn noise_batches_and_binarised_pixels_have_the_same_bits_as_on_the_cpu() {
    const SEED: u64 = u64::MAX / 3;
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    for (rows, cols) in [(1, 1), (3, 5), (10, 17), (9, 64), (7, 129)] {
        let g = Graph::new();
        let batch = pixels(&g, "images", rows, cols);
        let binary = Binarisation::Dynamic.apply(batch, 5);
        let outputs = [g.normal(&[rows, cols], 3), g.uniform(&[rows, cols], 4), batch, binary];
        let [mut on_gpu, mut on_cpu] = [&gpu, &cpu()].map(|executor| {
            let mut state = executor.state(&Params::new(), 0).unwrap();
            state.load("images", &data(ROWS, cols)[..], cols).unwrap();
            (executor.compile(&g, outputs).unwrap(), state)
        });
        for (shuffle, step, cursor) in [(false, 0, 0), (true, 7, 11), (true, 0xffff_fff0, 49)] {
            let [found, expected] = [&mut on_gpu, &mut on_cpu].map(|(f, state)| {
                let (key, rows) = (Key { seed: SEED, step }, Rows { cursor, epoch: 2, shuffle });
                f.run(state, &Call { rows, ..Call::once(key) }).unwrap();
                f.values().unwrap()
            });
            for (name, (f, e)) in ["normal", "uniform", "batch", "binary"].iter().zip(found.iter().zip(&expected)) {
                assert_eq!(bits(f), bits(e), "{name} {rows}x{cols}, shuffle {shuffle}, step {step}");
            }
            if shuffle {
                let order = Permutation::new(SEED, 2, ROWS as u32);
                let first = order.at(cursor) as usize * cols;
                assert_eq!(found[2][0], f32::from(data(ROWS, cols)[first]) / 255.0);
            }
        }
    }
}

/// Every function of the table at every magnitude that matters, as one program per function.
#[test]
fn scalar_functions_have_the_same_bits_as_on_the_cpu() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let mut points: Vec<f32> = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-45];
    for size in [1e-30, 1e-6, 0.1, 0.5, 1.0, 1.5, 2.0, 9.0, 17.0, 20.0, 87.0, 88.5, 89.0, 104.0, 300.0, 1e4, 1e30] {
        points.extend([size, -size]);
    }
    let draw = Draw { seed: 5, step: 0, stream: 0 };
    points.extend((0..150).map(|i| draw.normal(i) * 4.0));
    let n = points.len();
    let others: Vec<f32> = points.iter().rev().copied().collect();
    let g = Graph::new();
    let (x, y) = (g.input(&[n]), g.input(&[n]));
    let mut all: Vec<(String, Var)> = Vec::new();
    all.extend(ScalarFn::ALL.iter().map(|&f| (f.name().into(), x.map(f))));
    all.extend(BinaryFn::ALL.iter().map(|&f| (format!("binary {}", f.name()), x.zip(f, y))));
    all.extend([-2.0, -0.5, 0.0, 0.3, 1.0, 2.0, 3.0].map(|c| (format!("pow {c}"), x.pow(c))));
    all.push(("select".into(), x.lt(y).select(x, y)));
    // Softplus and sigmoid of one argument share their exponential.
    all.push(("pair".into(), (x * 3.0).softplus() + (x * 3.0).sigmoid()));
    let (names, outputs): (Vec<String>, Vec<Var>) = all.into_iter().unzip();
    // A plan of one program each, so that none is too long for a kernel's parameters.
    let apart = Fusion { pointwise: false, ..Fusion::all() };
    let [found, expected] = [&gpu, &cpu()].map(|executor| call(executor, (&g, &outputs), apart, &[&points, &others]));
    for (name, (f, e)) in names.iter().zip(found.iter().zip(&expected)) {
        for (i, (f, e)) in f.iter().zip(e).enumerate() {
            // Which NaN it is differs between processors.
            let same = f.to_bits() == e.to_bits() || (f.is_nan() && e.is_nan());
            assert!(same, "{name} at {:e}, {:e}: {f:e} on the device, {e:e} on the CPU", points[i], others[i]);
        }
    }
}

/// ‖C − C₆₄‖ / ‖C₆₄‖ for all transpositions, odd shapes and views into wider arrays.
#[test]
fn products_are_as_exact_as_their_precision_promises() {
    for (precision, bound) in
        [(Precision::F32, 1e-6), (Precision::Bf16x3, 3e-5), (Precision::Tf32, 6e-4), (Precision::Bf16, 6e-3)]
    {
        let Some(gpu) = on_cuda(precision) else { return };
        let most = if precision == Precision::F32 { usize::MAX } else { 6 };
        let shapes = [
            (1, 1, 1),
            (33, 40, 70),
            (17, 3, 129),
            (3, 130, 17),
            (70, 70, 5),
            (128, 132, 36),
            (5, 4, 700),
            (1, 300, 2),
            (129, 1, 33),
            (2, 2, 4097),
        ];
        for (m, n, k) in shapes.into_iter().take(most) {
            for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                let error = product_error(&gpu, (m, n, k), (ta, tb), |v| v);
                assert!(error < bound, "{precision} [{m}, {k}]·[{k}, {n}], transposed {ta} {tb}: {error:e}");
            }
        }
    }
}

/// With factors that bf16 (TF32) holds exactly, all precisions are as exact as f32: what they round is the factors, and
/// nothing else but what tensor cores cut off of sums.
#[test]
fn reduced_precision_rounds_factors_only() {
    const K: usize = 65;
    let bf16 = |v: f32| half::bf16::from_f32(v).to_f32();
    let tf32 = |v: f32| f32::from_bits(v.to_bits() & 0xffff_e000);
    for &precision in Precision::ALL {
        let Some(gpu) = on_cuda(precision) else { return };
        let bound = match precision {
            // Few sums are cut off, and those are added up with rounding.
            Precision::F32 | Precision::Bf16x3 => 1e-6,
            Precision::Bf16 => cut_off(K, 8),
            Precision::Tf32 => cut_off(K, 4),
        };
        let error = product_error(&gpu, (40, 33, K), (false, true), bf16);
        assert!(error < bound, "{precision}: {error:e}, bound {bound:e}");
        if precision == Precision::Tf32 {
            // Products of 22 bits: these sums are cut off, where those of 16 bits nearly all fit.
            let error = product_error(&gpu, (33, 40, K), (false, true), tf32);
            assert!(error < bound, "{precision}: {error:e}, bound {bound:e}");
            // Rounding to nearest would leave about a tenth of the bound. So the emulated ones do cut off.
            assert!(!common::emulated() || error > bound / 5.0, "{precision}: {error:e}, bound {bound:e}");
        }
    }
}

/// What a sum over k loses, relative to the sum, where a tensor core adds `step` products to it at a time and then cuts
/// off the bits behind f32's: each time between 0 and 2⁻²³ of the sum so far, always towards zero, so 2⁻²⁴ on average
/// at most. The sum so far is two thirds of the last one on average, since sums of numbers around zero grow as √k; the
/// other third is left for the bits that are cut off from single addends. Steps of 8 in bf16 and 4 in TF32 are those of
/// sm_80, and the shortest. A small product takes the tile of 32 × 32, in which four warps share k and their sums are
/// added with rounding.
fn cut_off(k: usize, step: usize) -> f64 {
    k.div_ceil(4).div_ceil(step) as f64 * 2f64.powi(-24)
}

/// The relative error of a product in the Frobenius norm, computed twice: from whole arrays, and from columns of wider
/// ones, whose rows begin at odd addresses.
fn product_error(
    executor: &Executor,
    (m, n, k): (usize, usize, usize),
    (ta, tb): (bool, bool),
    made_of: impl Fn(f32) -> f32,
) -> f64 {
    let (rows_a, cols_a) = if ta { (k, m) } else { (m, k) };
    let (rows_b, cols_b) = if tb { (n, k) } else { (k, n) };
    let numbers = |stream: u32, len: usize| -> Vec<f32> {
        let draw = Draw { seed: 8, step: 0, stream };
        (0..len as u64).map(|i| made_of(draw.normal(i))).collect()
    };
    let g = Graph::new();
    let (a, b) = (g.input(&[rows_a, cols_a]), g.input(&[rows_b, cols_b]));
    let (wide_a, wide_b) = (g.input(&[rows_a, cols_a + 3]), g.input(&[rows_b, cols_b + 5]));
    let outputs = [a.matmul_t(ta, b, tb), wide_a.slice_cols(1, cols_a).matmul_t(ta, wide_b.slice_cols(3, cols_b), tb)];
    let (av, bv) = (numbers(1, rows_a * cols_a), numbers(2, rows_b * cols_b));
    let widen = |values: &[f32], cols: usize, before: usize, after: usize| -> Vec<f32> {
        let row = |r: &[f32]| [vec![f32::NAN; before], r.to_vec(), vec![f32::NAN; after]].concat();
        values.chunks(cols).flat_map(row).collect()
    };
    let inputs: [&[f32]; 4] = [&av, &bv, &widen(&av, cols_a, 1, 2), &widen(&bv, cols_b, 3, 2)];
    let products = call(executor, (&g, &outputs), Fusion::all(), &inputs);
    let at_a = |i: usize, p: usize| f64::from(if ta { av[p * m + i] } else { av[i * k + p] });
    let at_b = |p: usize, j: usize| f64::from(if tb { bv[j * k + p] } else { bv[p * n + j] });
    let mut truth = Vec::with_capacity(m * n);
    for i in 0..m {
        truth.extend((0..n).map(|j| (0..k).map(|p| at_a(i, p) * at_b(p, j)).sum::<f64>()));
    }
    let norm = truth.iter().map(|v| v * v).sum::<f64>().sqrt();
    let errors = products
        .iter()
        .map(|found| found.iter().zip(&truth).map(|(f, t)| (f64::from(*f) - t).powi(2)).sum::<f64>().sqrt() / norm);
    let errors: Vec<f64> = errors.collect();
    assert!(errors.iter().all(|e| e.is_finite()), "[{m}, {k}]·[{k}, {n}]: a number from outside the operand got in");
    errors[0].max(errors[1])
}

/// Sums, maxima and everything that moves elements: the reference, the CPU and the device.
#[test]
fn reductions_and_moves_agree_with_the_cpu() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let executors = [Executor::reference(), gpu];
    for (a, b, c) in [(1, 1, 1), (3, 5, 7), (17, 4, 33), (2, 700, 3), (70, 9, 1), (1, 1, 1500)] {
        let g = Graph::new();
        let (x, index) = (g.input(&[a, b, c]), g.input(&[5]));
        let flat = x.reshape(&[a * b, c]);
        let mut all: Vec<(String, Var)> = Vec::new();
        for axes in [&[0usize][..], &[1], &[2], &[0, 2], &[1, 2], &[0, 1, 2]] {
            all.push((format!("sum {axes:?}"), x.sum(axes)));
            all.push((format!("max {axes:?}"), x.max(axes)));
        }
        all.push(("log sum exp".into(), flat.log_sum_exp(&[1])));
        all.push(("softmax".into(), flat.softmax(1)));
        all.push(("log softmax".into(), flat.log_softmax(1)));
        for (what, y) in [("slope of softmax", flat.softmax(1)), ("slope of log softmax", flat.log_softmax(1))] {
            let slope = grad((y * (flat * 1.7).tanh().stop_gradient()).sum_all(), &[flat])[0];
            all.push((what.into(), slope));
        }
        // Rows that begin at any address.
        let columns = g.concat_cols(&[flat, flat.square()]).slice_cols(1, c);
        all.push(("softmax of columns".into(), columns.softmax(1)));
        all.push(("transposed".into(), flat.t()));
        all.push(("gathered".into(), flat.gather_rows(index)));
        all.push(("scattered".into(), flat.gather_rows(index).scatter_rows(index, a * b + 2)));
        let element = g.tensor(&[a * b], &(0..a * b).map(|i| ((i * 5 + 2) % c) as f64).collect::<Vec<_>>());
        all.push(("picked".into(), flat.pick(element)));
        all.push(("placed".into(), grad((flat.pick(element) * 3.0).sum_all(), &[flat])[0]));
        all.push(("joined".into(), g.concat_cols(&[flat, flat.square(), flat])));
        all.push(("repeated".into(), x.sum_keep(&[1]).broadcast_to(&[a, b, c]) * 2.0));
        let (names, outputs): (Vec<String>, Vec<Var>) = all.into_iter().unzip();
        let values: Vec<f32> =
            (0..(a * b * c) as u64).map(|i| Draw { seed: 3, step: 0, stream: 1 }.normal(i)).collect();
        let rows: Vec<f32> = (0..5).map(|i| ((i * 7) % (a * b)) as f32).collect();
        let run = |executor: &Executor| call(executor, (&g, &outputs), Fusion::all(), &[&values, &rows]);
        let expected = run(&cpu());
        for executor in &executors {
            for (name, (f, e)) in names.iter().zip(run(executor).iter().zip(&expected)) {
                let exact =
                    ["max", "transposed", "gathered", "picked", "placed"].iter().any(|word| name.starts_with(word));
                // The reference squares in f64.
                let exact = exact || name == "joined" && executor.describe().starts_with("cuda");
                let allowed = if exact { 0.0 } else { 3e-6 };
                let device = executor.describe();
                assert!(apart(f, e) <= allowed, "{name} of [{a}, {b}, {c}] on {device}: {f:?} and {e:?}");
            }
        }
    }
}

/// Long rows are shared by blocks: around the length from which they are, and far beyond it, one row and a few; the same
/// bits in whatever order the blocks come, and again when the function runs again.
#[test]
fn long_reductions_are_exact_and_do_not_depend_on_the_order_of_blocks() {
    if cuda(Precision::F32).is_none() {
        return;
    }
    for (rows, cols) in [(1, 32_767), (1, 32_768), (1, 32_769), (1, 65_537), (3, 70_001), (1, 1_200_003)] {
        let g = Graph::new();
        let x = g.input(&[rows, cols]);
        // The last is added up over the runs.
        let outputs = [x.sum(&[1]), x.max(&[1]), x.max(&[0, 1]).broadcast_to(&[1]), (-x).max(&[1]), x.sum_all()];
        let values: Vec<f32> =
            (0..(rows * cols) as u64).map(|i| Draw { seed: 6, step: 0, stream: 1 }.uniform(i) - 0.25).collect();
        let found = under_all_schedules(|| {
            let gpu = on_cuda(Precision::F32).unwrap();
            let mut state = gpu.state(&Params::new(), 0).unwrap();
            let mut f = gpu.compile_with(&g, outputs, Fusion::none()).unwrap();
            f.write(0, &values).unwrap();
            let mut run = || {
                f.run(&mut state, &Call::once(Key::new(0))).unwrap();
                [0, 1, 2, 3].map(|output| f.read(output).unwrap())
            };
            let first = run();
            assert_eq!(first, run(), "[{rows}, {cols}]: the second run");
            (first, f.take_totals().unwrap()[0])
        });
        for (schedule, other) in &found[1..] {
            assert!(*other == found[0].1, "[{rows}, {cols}]: {schedule} gives other bits");
        }
        let ([sum, max, all, low], total) = &found[0].1;
        for (r, row) in values.chunks(cols).enumerate() {
            let truth = row.iter().map(|&v| f64::from(v)).sum::<f64>();
            assert!((f64::from(sum[r]) / truth - 1.0).abs() < 2e-6, "[{rows}, {cols}]: {} and {truth}", sum[r]);
            assert_eq!(max[r], row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(low[r], -row.iter().copied().fold(f32::INFINITY, f32::min));
        }
        let truth = values.iter().map(|&v| f64::from(v)).sum::<f64>();
        assert!((total / truth - 2.0).abs() < 4e-6, "two runs of [{rows}, {cols}]: {total} and {truth}");
        assert_eq!(all[0], values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }
}

/// One step of models of many kinds against the CPU: parameters, moments, sums.
#[test]
fn training_steps_agree_with_the_cpu() {
    let gaussian = Likelihood::gaussian(0.05);
    let base = |latent| VaeConfig { image: [6, 5], ..VaeConfig::new(latent) };
    let models = [
        base(2).hidden(&[21]),
        VaeConfig { activation: Activation::Tanh, ..base(5).hidden(&[16, 12]) },
        VaeConfig { likelihood: gaussian, activation: Activation::Gelu, ..base(1).hidden(&[33]) },
        VaeConfig { binarisation: Binarisation::Dynamic, activation: Activation::Silu, ..base(4).hidden(&[8, 24]) },
    ];
    let sgd = UpdateRule::elbo(Optimizer::Sgd { momentum: 0.9 }, None);
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    for (number, config) in models.into_iter().enumerate() {
        let vae = Vae::new(config).unwrap();
        for (objective, fusion) in [(&ADAM, Fusion::all()), (&sgd, Fusion::all()), (&ADAM, Fusion::none())] {
            let [mut on_gpu, mut on_cpu] = [&gpu, &cpu()].map(|executor| {
                let mut training = start(executor, &vae, objective, fusion);
                training.run(2);
                training
            });
            for param in vae.params().iter() {
                for moment in [Moment::Value, Moment::First] {
                    let read = |training: &Training| training.state.read_moment(&param.name, moment).unwrap();
                    let error = apart(&read(&on_gpu), &read(&on_cpu));
                    assert!(error < 2e-4, "model {number}, {objective:?}: {param:?} {moment:?} differs by {error:e}");
                }
            }
            let [found, expected] = [&mut on_gpu, &mut on_cpu].map(|training| training.step.take_totals().unwrap());
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-5 * e.abs().max(1.0), "model {number}: {found:?} and {expected:?}");
            }
            assert_eq!(on_gpu.updates(), on_cpu.updates());
        }
    }
}

/// The loss curve of 200 steps beside the CPU's. With equal noise and equal batches only rounding is left between them.
#[test]
fn loss_curves_stay_together_for_two_hundred_steps() {
    let vae = small(Binarisation::Dynamic);
    let curve = |executor: &Executor| -> Vec<f64> {
        let mut training = start(executor, &vae, &ADAM, Fusion::all());
        let mut losses = Vec::new();
        for step in 0..200 {
            if step % (ROWS / BATCH) == 0 {
                training.rows = Rows::shuffled((step / (ROWS / BATCH)) as u32);
            }
            training.run(1);
            losses.push(training.take_loss() / BATCH as f64);
        }
        losses
    };
    let expected = curve(&cpu());
    assert!(expected[199] < expected[0] - 2.0, "it learns: {} to {}", expected[0], expected[199]);
    // Nats per image; the loss begins near 30. Rounding errors grow along the curve, slowly.
    for (precision, bound) in
        [(Precision::F32, 1e-4), (Precision::Bf16x3, 1e-3), (Precision::Tf32, 0.05), (Precision::Bf16, 0.2)]
    {
        let Some(gpu) = on_cuda(precision) else { return };
        let found = curve(&gpu);
        let worst = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max);
        println!("{precision}: the curves are at most {worst:.1e} nats apart");
        assert!(worst < bound, "{precision}: {worst} nats apart");
        assert!(worst > 0.0 || precision == Precision::F32, "{precision} was not used");
    }
}

#[test]
fn every_schedule_and_every_portion_gives_the_same_bits() {
    let vae = small(Binarisation::Dynamic);
    let run = |portions: &[usize]| {
        let mut training = start(&on_cuda(Precision::F32)?, &vae, &ADAM, Fusion::all());
        portions.iter().for_each(|&steps| training.run(steps));
        Some(training.take_bits())
    };
    let Some(expected) = run(&[5]) else { return };
    for (schedule, found) in under_all_schedules(|| run(&[5])) {
        assert!(found.as_ref() == Some(&expected), "{schedule}");
    }
    assert!(run(&[1; 5]) == Some(expected), "five runs of one step and one of five");
}

/// A function with its state and the step that it comes to next, under a learning rate that falls.
struct Falling {
    f: Function,
    state: State,
    lr: LrSchedule,
    step: u32,
}

impl Falling {
    /// The learning rate falls from 0.5 to 0.1 in `over` updates.
    fn new(executor: &Executor, g: &Graph, outputs: Vec<Var<'_>>, over: u64) -> Falling {
        let state = executor.state(&Params::of(g), 0).unwrap();
        let lr = LrSchedule::Cosine { lr: 0.5, lr_end: 0.1, steps: over };
        Falling { f: executor.compile(g, outputs).unwrap(), state, lr, step: 0 }
    }

    fn run(&mut self, steps: usize) {
        let rate = |done| self.lr.at(done);
        let key = Key { seed: 0, step: self.step };
        self.f.run(&mut self.state, &Call { steps, schedules: &[("rate", &rate)], ..Call::once(key) }).unwrap();
        self.step += steps as u32;
    }
}

/// More steps than the larger graph holds, and the steps after it.
#[test]
fn a_run_of_many_steps_is_as_many_runs_of_one() {
    let g = Graph::new();
    let (p, rate) = (g.param("p", &[33]), g.schedule("rate"));
    let noise = g.normal(&[33], 0);
    g.optimize(Optimizer::Sgd { momentum: 0.5 }, rate, &[(p, p - noise)]);
    let outputs = vec![noise, rate.broadcast_to(&[1]), (noise * p).sum_all()];
    let run = |executor: &Executor, portions: &[usize]| {
        let mut run = Falling::new(executor, &g, outputs.clone(), 20);
        let mut noises = Vec::new();
        for &steps in portions {
            run.run(steps);
            noises.push(bits(&run.f.read(0).unwrap()));
        }
        let sum = run.f.take_totals().unwrap()[0];
        (bits(&run.state.read("p").unwrap()), run.f.read(1).unwrap(), noises, sum)
    };
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let (together, apart) = (run(&gpu, &[21]), run(&gpu, &[1; 21]));
    let (on_cpu, mixed) = (run(&cpu(), &[21]), run(&gpu, &[3, 10, 8]));
    for (name, other) in [("one by one", &apart), ("in portions", &mixed), ("on the CPU", &on_cpu)] {
        assert_eq!(together.0, other.0, "parameters {name}");
        assert_eq!(together.1, other.1, "learning rate {name}");
        assert!((together.3 - other.3).abs() < 1e-4, "{name}: {} and {}", together.3, other.3);
    }
    assert_eq!(together.3.to_bits(), mixed.3.to_bits(), "the sum in portions");
    assert!(apart.2.windows(2).all(|pair| pair[0] != pair[1]), "every step draws other noise");
}

#[test]
fn a_learning_rate_changed_between_runs_counts() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let g = Graph::new();
    let p = g.param("p", &[2]);
    g.optimize(Optimizer::Sgd { momentum: 0.0 }, g.schedule("rate"), &[(p, g.tensor(&[2], &[1.0, -2.0]))]);
    let mut state = gpu.state(&Params::of(&g), 0).unwrap();
    let mut step = gpu.compile(&g, []).unwrap();
    for (lr, expected) in [(0.5, [-0.5, 1.0]), (0.125, [-0.625, 1.25])] {
        step.run(&mut state, &Call { schedules: &[("rate", &|_| lr)], ..Call::once(Key::new(0)) }).unwrap();
        assert_eq!(state.read("p").unwrap(), expected);
    }
}

/// A captured graph holds addresses: data that is loaded anew must be found.
#[test]
fn data_loaded_anew_is_read_by_a_function_that_ran_before() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let g = Graph::new();
    let mut seen = gpu.compile(&g, [pixels(&g, "images", 2, 3), g.batch("floats", 2, 3)]).unwrap();
    let mut state = gpu.state(&Params::new(), 0).unwrap();
    // More rows: the memory moves.
    for (value, rows) in [(10u8, 4), (200, 900), (30, 900)] {
        state.load("images", &vec![value; rows * 3][..], 3).unwrap();
        state.load("floats", &vec![f32::from(value) + 0.5; rows * 3][..], 3).unwrap();
        seen.run(&mut state, &Call { rows: Rows::in_order().from(1), ..Call::once(Key::new(0)) }).unwrap();
        assert_eq!(seen.values().unwrap(), [[f32::from(value) / 255.0; 6], [f32::from(value) + 0.5; 6]]);
    }
}

/// A captured graph holds addresses: a function that is run with another state must find its arrays, whether the one before
/// is still there or its memory has been given back.
#[test]
fn a_function_runs_with_one_state_after_another() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let g = Graph::new();
    let mut twice = gpu.compile(&g, [g.buffer("x", &[20]) * 2.0]).unwrap();
    let state = |x: f32| {
        let mut state = gpu.state(&Params::of(&g), 0).unwrap();
        state.write("x", &[x; 20]).unwrap();
        state
    };
    let mut run = |state: &mut State| twice.call(state, Key::new(0), &[]).unwrap()[0][0];
    let mut states = [1.0, 2.0, 3.0].map(state);
    assert_eq!([2, 0, 1, 1, 0].map(|i| run(&mut states[i])), [6.0, 2.0, 4.0, 4.0, 2.0]);
    drop(states);
    assert_eq!(run(&mut state(5.0)), 10.0);
}

#[test]
fn two_functions_share_parameters() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let vae = small(Binarisation::Grey);
    let mut training = start(&gpu, &vae, &ADAM, Fusion::all());
    let g = Graph::new();
    let mut evaluation = gpu.compile(&g, evaluation(&g, &vae, "test", 20)).unwrap();
    let pixels = vae.config.pixels();
    training.state.load("test", &data(20, pixels)[..], pixels).unwrap();
    let mut loss = || -> f64 {
        evaluation.run(&mut training.state, &Call::once(Key::new(5))).unwrap();
        for _ in 0..10 {
            training.rows.cursor = 0;
            training.run(6);
        }
        evaluation.take_totals().unwrap().iter().sum()
    };
    let (before, after) = (loss(), loss());
    assert!(after < before, "the evaluation reads the trained parameters: {before}, {after}");
}

#[test]
fn running_sums_go_on_where_they_were_set() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let g = Graph::new();
    let mut f = gpu.compile(&g, [g.step_number() + 2.5, g.full(&[7], 1.0).sum_all()]).unwrap();
    let mut state = gpu.state(&Params::new(), 0).unwrap();
    f.set_totals(&[100.0, 0.0]).unwrap();
    f.run(&mut state, &Call { steps: 3, ..Call::once(Key::new(0)) }).unwrap();
    assert_eq!(f.take_totals().unwrap(), [100.0 + 3.0 * 2.5 + 3.0, 21.0]);
    assert_eq!(f.take_totals().unwrap(), [0.0, 0.0]);
    assert!(f.peek_totals().unwrap().is_none_or(|Snapshot { totals, .. }| totals == [0.0, 0.0]));
}

fn text<T>(refused: Result<T>) -> String {
    refused.err().expect("it cannot run").to_string()
}

#[test]
fn what_cannot_run_is_an_error_that_says_why() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let g = Graph::new();
    let mut seen = gpu.compile(&g, [g.batch("images", 4, 3)]).unwrap();
    let mut state = gpu.state(&Params::new(), 0).unwrap();
    let mut run = |state: &mut State, steps| seen.run(state, &Call { steps, ..Call::once(Key::new(0)) });
    assert!(text(run(&mut state, 1)).contains("no data was loaded"));
    state.load("images", &[0u8; 12][..], 4).unwrap();
    assert!(text(run(&mut state, 1)).contains("rows of 4 numbers"));
    state.load("images", &[0u8; 15][..], 3).unwrap();
    assert!(text(run(&mut state, 2)).contains("5 rows"));
    assert!(text(state.load("images", &[0u8; 16][..], 3)).contains("whole rows"));
    assert!(text(state.write("nothing", &[1.0])).contains("no parameter or buffer"));

    let g = Graph::new();
    let mut gather = gpu.compile(&g, [g.input(&[3, 2]).gather_rows(g.input(&[2]))]).unwrap();
    assert!(text(gather.write(0, &[1.0])).contains("1 numbers"));
    for bad in [3.0, -1.0, 0.5, f32::NAN] {
        gather.write(1, &[0.0, bad]).unwrap();
        let error = text(gather.run(&mut state, &Call::once(Key::new(0))));
        assert!(error.contains("row 1") && error.contains("0 … 2"), "{bad}: {error}");
    }
    gather.write(1, &[0.0, 2.0]).unwrap();
    gather.run(&mut state, &Call::once(Key::new(0))).unwrap();
}

/// The numbers of the steps are uploaded in portions; this takes two.
#[test]
fn a_run_may_be_longer_than_the_table() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let g = Graph::new();
    let p = g.param("p", &[3]);
    g.optimize(Optimizer::Sgd { momentum: 0.5 }, g.schedule("rate"), &[(p, p * 0.1 - g.normal(&[3], 0))]);
    let [found, expected] = [gpu, cpu()].map(|executor| {
        let mut run = Falling::new(&executor, &g, Vec::new(), 1100);
        run.run(1030);
        bits(&run.state.read("p").unwrap())
    });
    assert_eq!(found, expected);
}

/// An index that is wrong in the first step and right in all others is an error, however long the run; its steps are made
/// all the same.
#[test]
fn a_bad_index_is_not_forgotten() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let g = Graph::new();
    let (index, p) = (g.buffer("index", &[2]), g.param("p", &[1]));
    g.store("index", index * 0.0);
    g.optimize(Optimizer::Sgd { momentum: 0.0 }, 1.0, &[(p, g.full(&[1], -1.0))]);
    let table = g.buffer("table", &[2, 3]);
    let (picked, gathered) = (table.pick(index), table.gather_rows(index));
    // The gradient looks up by the same indices, and the operation that was written is the one to be told of.
    let of_picked = grad(picked.square().sum_all(), &[table])[0];
    let pick = ("pick made at tests/device.rs", "row 1 has the index 7, where there are 0 … 2");
    let gather = ("gather_rows made at tests/device.rs", "row 1 has the index 7, where there are 0 … 1");
    for executor in [gpu, cpu(), Executor::reference()] {
        for (steps, found, (at, what)) in [
            (1, vec![picked], pick),
            (1, vec![of_picked, picked], pick),
            (1, vec![of_picked], pick),
            (1, vec![gathered], gather),
            (5, vec![of_picked, picked], pick),
            (1030, vec![gathered], gather),
        ] {
            let mut gather = executor.compile(&g, found).unwrap();
            let mut state = executor.state(&Params::of(&g), 0).unwrap();
            state.write("index", &[0.0, 7.0]).unwrap();
            let error = text(gather.run(&mut state, &Call { steps, ..Call::once(Key::new(0)) }));
            assert!(error.contains(at) && error.contains(what), "{steps} steps: {error}");
            assert_eq!((state.updates, state.read("p").unwrap()), (steps as u64, vec![steps as f32]));
        }
    }
}

#[test]
fn products_without_elements_are_no_products() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let g = Graph::new();
    let outputs =
        [g.buffer("a", &[0, 3]).matmul(g.buffer("b", &[3, 4])), g.buffer("e", &[2, 0]).matmul(g.buffer("f", &[0, 2]))];
    assert_eq!(call(&gpu, (&g, &outputs), Fusion::all(), &[]), [vec![], vec![0.0; 4]]);
}

#[test]
fn every_step_can_be_timed() {
    let Some(gpu) = on_cuda(Precision::F32) else { return };
    let vae = small(Binarisation::Grey);
    let mut training = start(&gpu, &vae, &ADAM, Fusion::all());
    let steps = training.step.plan().unwrap().steps().len();
    let schedules: &[(&str, Schedule<'_>)] = &[(LEARNING_RATE, &|_| 1e-3), (BETA, &|_| 1.0)];
    let call = Call { key: training.key, rows: training.rows, steps: 1, schedules };
    let seconds = training.step.time_steps(&mut training.state, &call, 2).unwrap();
    assert!(seconds.len() == steps && seconds.iter().all(|s| (0.0..60.0).contains(s)), "{seconds:?}");
    assert_eq!(training.updates(), 0);
    training.run(1);
}
