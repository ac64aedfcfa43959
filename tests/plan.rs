//! Plans: what they consist of, that every rule of fusion leaves the values alone, that no kernel touches memory which
//! is not its own, and what is refused.

mod common;

use common::training::{TRAIN, Training, bits, compile};
use elbo::engine::interp::Interpreter;
use elbo::engine::isa::Isa;
use elbo::engine::plan::Buffer;
use elbo::engine::rng::Draw;
use elbo::vae::{UpdateRule, Vae, VaeConfig, evaluation, pixels, training_step};
use elbo::{Call, Cpu, Executor, Fusion, Graph, Key, Optimizer, Params, Plan, Result, Rows, Var, grad};

const ADAM: UpdateRule = UpdateRule::elbo(Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, None);

/// Every single rule switched off, then on by itself; with all and none.
fn variants() -> Vec<Fusion> {
    let mut all = vec![Fusion::all(), Fusion::none()];
    for rule in 0..6 {
        for (base, value) in [(Fusion::all(), false), (Fusion::none(), true)] {
            let mut f = base;
            let field = match rule {
                0 => &mut f.pointwise,
                1 => &mut f.linear,
                2 => &mut f.linear_grads,
                3 => &mut f.bce,
                4 => &mut f.sample_kl,
                _ => &mut f.adam,
            };
            *field = value;
            all.push(f);
        }
    }
    all
}

fn numbers(stream: u32, n: usize) -> Vec<f32> {
    let draw = Draw { seed: 21, step: 0, stream };
    (0..n as u64).map(|i| draw.normal(i) * 0.5).collect()
}

fn bytes(rows: usize, cols: usize) -> Vec<u8> {
    let draw = Draw { seed: 22, step: 0, stream: 0 };
    (0..(rows * cols) as u64).map(|i| (draw.uniform(i) * 255.99) as u8).collect()
}

/// A VAE of the given widths: pixels, hidden, latent.
fn vae(image: [usize; 2], hidden: &[usize], latent: usize) -> Vae {
    Vae::new(VaeConfig { image, ..VaeConfig::new(latent).hidden(hidden) }).unwrap()
}

/// The plan of a training step.
fn training_plan(vae: &Vae, rows: usize, fusion: Fusion) -> Plan {
    let g = Graph::new();
    let outputs = training_step(&g, vae, &ADAM, TRAIN, rows);
    Plan::build(&g, &outputs, fusion).unwrap()
}

/// One step of a graph that reads nothing but its inputs.
fn call<const N: usize>(
    executor: &Executor,
    (g, outputs): (&Graph, [Var<'_>; N]),
    fusion: Fusion,
    inputs: &[&[f32]],
) -> [Vec<f32>; N] {
    let mut state = executor.state(&Params::of(g), 0).unwrap();
    executor.compile_with(g, outputs, fusion).unwrap().call(&mut state, Key::new(0), inputs).unwrap()
}

#[test]
fn the_training_step_of_the_usual_vae_is_short() {
    let usual = vae([28, 28], &[400], 20);
    let [plan, eager] = [Fusion::all(), Fusion::none()].map(|fusion| training_plan(&usual, 128, fusion));
    assert!(plan.steps().len() <= 16, "{plan}");
    assert!(eager.steps().len() > 3 * plan.steps().len(), "{} steps without fusion", eager.steps().len());
    assert!(eager.bytes() > plan.bytes(), "{} bytes without fusion, {} with", eager.bytes(), plan.bytes());
}

#[test]
fn the_table_names_kernels_shapes_bytes_and_flops() {
    let plan = training_plan(&vae([28, 28], &[400], 20), 128, Fusion::all());
    let text = plan.to_string();
    for word in
        ["kernel", "KiB", "kFLOP", "batch", "linear", "linear_grads", "adam", "scalars", "softplus+sigmoid", "normal"]
    {
        assert!(text.contains(word), "{word} is missing\n{text}");
    }
    // [128, 784]·[784, 400]: 2·128·784·400 FLOP = 80 281.6 kFLOP in the product.
    assert!(text.contains("[128, 784]·[784, 400]"), "{text}");
    assert!(text.lines().count() >= plan.steps().len() + 2);
    // The products alone: forward 2·128·(784·400 + 400·40 + 20·400 + 400·784), dW as much, dX without the first layer.
    let products = 2 * 128 * (2 * (2 * 784 * 400 + 400 * 40 + 20 * 400) + 784 * 400 + 400 * 40 + 20 * 400);
    assert!(plan.flops() > products && plan.flops() < products * 6 / 5, "{} FLOP, products {products}", plan.flops());
    assert!(text.contains(&format!("{:.1} MFLOP", plan.flops() as f64 / 1e6)), "{text}");
}

/// Element-by-element arithmetic is the same in every kernel, a matrix product is one chain in the order of k, and
/// column sums run in the order of the rows: so every rule leaves every bit of the trained parameters alone. Only sums
/// over everything (the metrics) are cut differently.
#[test]
fn fusion_leaves_every_parameter_alone() {
    for (image, hidden, latent, rows) in [
        ([4, 5], &[7][..], 2, 5),
        ([3, 3], &[33, 18], 1, 17),
        ([5, 8], &[64, 16, 5], 20, 3),
        ([1, 1], &[1], 1, 1),
        ([9, 9], &[20], 3, 64),
    ] {
        let vae = vae(image, hidden, latent);
        let data = bytes(4 * rows, vae.config.pixels());
        let executor = Executor::new(Cpu::new(2));
        let mut expected: Option<(Vec<u32>, f64)> = None;
        for fusion in variants() {
            let mut training = Training::start(&executor, &vae, &ADAM, (rows, &data), fusion);
            assert_eq!(training.step.plan().unwrap().verify(), Ok(()));
            training.run(4);
            let (found, loss) = (training.parameters(), training.take_loss());
            let (same, close) = expected.get_or_insert((found.clone(), loss));
            assert!(found == *same, "{image:?} {hidden:?} {latent}, {rows} rows: {fusion:?} changes parameters");
            assert!((loss - *close).abs() < 1e-6 * close.abs(), "{fusion:?}: loss {loss}, not {close}");
        }
    }
}

/// The same with clipping, whose norm is a sum over everything: equal to rounding.
#[test]
fn fusion_with_clipping() {
    let vae = vae([4, 5], &[9], 3);
    let data = bytes(40, 20);
    let clipped = UpdateRule { clip: Some(0.5), ..ADAM };
    let executor = Executor::new(Cpu::new(1));
    let mut expected: Option<Vec<u32>> = None;
    for fusion in variants() {
        let mut training = Training::start(&executor, &vae, &clipped, (10, &data), fusion);
        training.run(4);
        let found = training.parameters();
        let first = expected.get_or_insert(found.clone());
        for (a, b) in found.iter().zip(first.iter()) {
            let (a, b) = (f32::from_bits(*a), f32::from_bits(*b));
            assert!((a - b).abs() <= 1e-4 * 1e-3 + 1e-5 * b.abs(), "{fusion:?}: {a} {b}");
        }
    }
}

/// One row for every kernel: everything is an output, compared with f64.
#[test]
fn every_kernel_agrees_with_the_reference() {
    let g = Graph::new();
    let sizes: [&[usize]; 6] = [&[37, 19], &[37, 19], &[19], &[3, 20, 7], &[19, 70], &[37, 1]];
    let [a, b, v, cube, w, column] = sizes.map(|shape| g.input(shape));
    let index: Vec<f64> = (0..50).map(|i| f64::from(i * 11 % 37)).collect();
    let rows = g.tensor(&[50], &index);
    let chosen = a.gather_rows(rows);
    let (names, outputs): (Vec<&str>, Vec<Var>) = [
        ("copy", a),
        ("constant", g.full(&[3, 5], 2.5)),
        ("pointwise", (a * b + v).tanh() / (column.square() + 1.0)),
        ("matmul", a.matmul(w)),
        ("linear", (a.matmul(w) + w.sum(&[0])).relu()),
        ("products", a.matmul_t(true, b, false).matmul_t(false, b, true)),
        ("both transposed", w.matmul_t(true, a, true)),
        ("sum 0", a.sum(&[0])),
        ("sum 1", a.sum(&[1])),
        ("sum 0 2", cube.sum(&[0, 2])),
        ("max 1", cube.max(&[1])),
        ("log_sum_exp", cube.log_sum_exp(&[2])),
        ("total", (a * b).mean_all().broadcast_to(&[4])),
        ("transpose", a.exp().t()),
        ("broadcast", v.reshape(&[1, 19, 1]).broadcast_to(&[3, 19, 5])),
        ("outer", column.reshape(&[1, 37, 1]) * g.full(&[2, 1, 3], 1.5) + 0.0),
        ("slices", a.slice_cols(3, 8) - b.slice_cols(11, 8)),
        ("concat", g.concat_cols(&[a.exp(), column, b.slice_cols(2, 5)])),
        ("pad", grad((a.slice_cols(4, 6).square() * 0.5).sum_all(), &[a])[0]),
        ("gather", chosen),
        ("scatter", (chosen * 2.0).scatter_rows(rows, 37)),
        ("select", a.gt(b).select(a.exp(), g.constant(-1.0))),
        ("pow", (a.square() + 0.1).pow(-1.25)),
        ("reshape", (a + 1.0).reshape(&[19, 37]).matmul(a)),
        ("normal", g.normal(&[11, 13], 4) * 2.0),
        ("uniform", g.uniform(&[257], 5)),
        ("batch", pixels(&g, "train", 21, 30)),
    ]
    .into_iter()
    .unzip();
    let inputs: Vec<Vec<f32>> = (0..).zip(sizes).map(|(i, shape)| numbers(i, shape.iter().product())).collect();
    let run = |executor: &Executor, fusion: Fusion| {
        let mut state = executor.state(&Params::new(), 0).unwrap();
        state.load("train", &bytes(64, 30)[..], 30).unwrap();
        let mut f = executor.compile_with(&g, outputs.clone(), fusion).unwrap();
        inputs.iter().enumerate().for_each(|(i, values)| f.write(i, values).unwrap());
        f.run(&mut state, &Call { rows: Rows::shuffled(0), ..Call::once(Key::new(9)) }).unwrap();
        f.values().unwrap()
    };
    let truth = run(&Executor::reference(), Fusion::none());
    for isa in Isa::available() {
        for fusion in [Fusion::all(), Fusion::none()] {
            let found = run(&Executor::new(Cpu::with_isa(2, isa).guarded()), fusion);
            for (name, (found, truth)) in names.iter().zip(found.iter().zip(&truth)) {
                for (i, (f, t)) in found.iter().zip(truth).enumerate() {
                    let error = (f - t).abs();
                    assert!(error <= 2e-5 * (1.0 + t.abs()), "{isa:?} {fusion:?} {name}[{i}]: {f}, truth {t}");
                }
            }
        }
    }
}

/// Buffers moved apart, with NaN in them and around them: a kernel that reads what nobody wrote spoils the result, one
/// that writes outside its buffer is an error.
#[test]
fn no_kernel_strays_from_its_buffers() {
    for (image, hidden, latent, rows) in
        [([28, 28], &[400][..], 20, 128), ([5, 7], &[19, 33], 3, 13), ([3, 3], &[1], 1, 2)]
    {
        let vae = vae(image, hidden, latent);
        let data = bytes(2 * rows, vae.config.pixels());
        for fusion in [Fusion::all(), Fusion::none()] {
            for isa in Isa::available() {
                let [close, apart] = [Cpu::with_isa(2, isa), Cpu::with_isa(2, isa).guarded()].map(|cpu| {
                    let mut training = Training::start(&Executor::new(cpu), &vae, &ADAM, (rows, &data), fusion);
                    training.run(2);
                    training.take_bits()
                });
                assert!(apart == close, "{image:?} {fusion:?} {isa:?}: a kernel read what was not written");
            }
        }
    }
}

#[test]
fn buffers_share_memory_when_their_lives_do_not_meet() {
    let plan = training_plan(&vae([28, 28], &[400], 20), 128, Fusion::none());
    let total: usize = plan.buffers().iter().map(|b| b.len).sum();
    assert!(plan.arena() < total * 2 / 3, "{} of {total}", plan.arena());
    // In no wave more than what is alive there, by more than rounding to cache lines.
    let wave = |step: usize| plan.steps()[step].wave();
    let lives = |b: &Buffer, w| b.users.iter().any(|&s| wave(s) <= w) && b.users.iter().any(|&s| w <= wave(s));
    let alive = |w: usize| plan.buffers().iter().filter(move |b| b.persistent || lives(b, w));
    let most = (0..plan.waves()).map(|w| alive(w).map(|b| b.len + 32).sum::<usize>()).max().unwrap();
    assert!(plan.arena() <= most * 5 / 4, "{} where {most} are alive", plan.arena());
}

#[test]
fn dead_code_is_not_planned() {
    let g = Graph::new();
    let x = g.input(&[4, 4]);
    let unused = x.matmul(x).exp();
    let _ = grad(unused.sum_all(), &[x]);
    let plan = Plan::build(&g, &[x + 1.0], Fusion::all()).unwrap();
    assert_eq!(plan.steps().len(), 1, "{plan}");
    assert_eq!(plan.steps()[0].name(), "pointwise");
    assert!(plan.buffers().is_empty(), "the value is computed where it is stored");
}

#[test]
fn functions_share_the_state_that_they_are_run_with() {
    let vae = vae([4, 4], &[8], 2);
    let data = bytes(12, 16);
    let executor = Executor::new(Cpu::new(1));
    let mut training = Training::start(&executor, &vae, &ADAM, (5, &data), Fusion::all());
    // Two more functions over other numbers of rows: the remainder of an epoch, and an evaluation.
    let rest = compile(&executor, &vae, &ADAM, 2, Fusion::all());
    let g = Graph::new();
    let mut evaluation = executor.compile(&g, evaluation(&g, &vae, TRAIN, 12)).unwrap();
    training.run(2);
    assert_eq!((training.rows.cursor, training.updates()), (10, 2));
    let before = training.parameters();
    training.step = rest;
    training.run(1);
    assert_eq!((training.rows.cursor, training.updates(), training.key.step), (12, 3, 3));
    assert_ne!(before, training.parameters());
    let before = training.parameters();
    evaluation.run(&mut training.state, &Call::once(Key::new(9))).unwrap();
    assert_eq!((before, training.updates()), (training.parameters(), 3));
    let mut rec = || evaluation.take_totals().unwrap()[0];
    assert!(rec() > 0.0 && rec() == 0.0, "sums start over when they are taken");
}

fn text<T>(refused: Result<T>) -> String {
    refused.err().expect("it cannot run").to_string()
}

#[test]
fn what_cannot_run_is_an_error_that_says_why() {
    let nothing = Graph::new();
    let _ = nothing.input(&[1]).exp();
    assert!(text(Plan::build(&nothing, &[], Fusion::all())).contains("no effects"));

    let vae = vae([3, 3], &[4], 2);
    let executor = Executor::new(Cpu::new(2));
    let mut training = Training::start(&executor, &vae, &ADAM, (4, &[]), Fusion::all());
    training.state = executor.state(&vae.params(), 1).unwrap();
    assert!(text(training.try_run(1)).contains("no data was loaded"));
    assert!(text(training.state.load(TRAIN, &[0u8; 10][..], 9)).contains("10 numbers"));
    training.state.load(TRAIN, &[0u8; 50][..], 10).unwrap();
    assert!(text(training.try_run(1)).contains("rows of 10"));
    training.state.load(TRAIN, &[0u8; 90][..], 9).unwrap();
    assert!(text(training.try_run(3)).contains("3 batches end at row 12, the data has 10"));
    assert_eq!(training.updates(), 0, "nothing ran");
    training.run(2);
    assert!(text(training.state.write("nobody", &[0.0])).contains("known are"));
    assert!(text(training.state.write("encoder.0.bias", &[0.0])).contains("1 numbers"));
    assert!(text(training.state.read("nobody")).contains("nobody"));

    let other = Graph::new();
    let mut clash = executor.compile(&other, [other.param("encoder.0.bias", &[5]).exp()]).unwrap();
    let message = text(clash.call(&mut training.state, Key::new(0), &[]));
    assert!(message.contains("encoder.0.bias"), "{message}");

    let g = Graph::new();
    let gather = g.input(&[3, 2]).gather_rows(g.input(&[2]));
    for executor in [executor, Executor::reference()] {
        let mut state = executor.state(&Params::new(), 0).unwrap();
        let mut gather = executor.compile(&g, [gather]).unwrap();
        for (index, good) in [
            ([0.0, 2.0], true),
            ([0.0, 3.0], false),
            ([-1.0, 0.0], false),
            ([0.5, 0.0], false),
            ([f32::NAN, 0.0], false),
        ] {
            let result = gather.call(&mut state, Key::new(0), &[&[1.0; 6], &index]);
            assert_eq!(result.is_ok(), good, "{index:?}");
            assert!(good || text(result).contains("gather_rows made at tests/plan.rs"));
        }
    }
}

/// SGD with momentum, and Adam's own moments, against the interpreter's arithmetic on the same numbers.
#[test]
fn the_update_is_the_interpreters_bit_for_bit() {
    for rule in [Optimizer::adam(), Optimizer::Sgd { momentum: 0.9 }, Optimizer::Sgd { momentum: 0.0 }] {
        let g = Graph::new();
        let (p, d) = (g.param("p", &[1000]), g.buffer("d", &[1000]));
        g.optimize(rule, 0.01, &[(p, d)]);
        let [on_cpu, on_interpreter] =
            [Executor::new(Cpu::new(1)), Executor::new(Interpreter::<f32>::default())].map(|executor| {
                let mut state = executor.state(&Params::of(&g), 0).unwrap();
                state.write("p", &numbers(1, 1000)).unwrap();
                state.write("d", &numbers(2, 1000)).unwrap();
                let mut step = executor.compile(&g, []).unwrap();
                step.run(&mut state, &Call { steps: 5, ..Call::once(Key::new(0)) }).unwrap();
                bits(&state.read("p").unwrap())
            });
        assert_eq!(on_cpu, on_interpreter, "{rule:?}");
    }
}

/// A broadcast that is read through a view is in memory, and its reader cannot share a kernel with what it repeats.
#[test]
fn views_of_broadcasts_come_after_what_is_repeated() {
    let g = Graph::new();
    let (x, column) = (g.input(&[]).exp(), g.input(&[4, 1]).exp());
    let first = x.broadcast_to(&[2]).slice_cols(0, 1).reshape(&[]);
    let outputs = [
        (first * 2.0).tanh() + x,
        column.broadcast_to(&[4, 3]).slice_cols(1, 1) * 2.0 + column,
        column.broadcast_to(&[4, 4]).reshape(&[16, 1]) + column.sum_all(),
    ];
    agrees_however_fused(&g, outputs, &[&[0.5], &[0.1, 0.2, 0.3, 0.4]], |b| 1e-6 * b.abs());
}

/// Compares the CPU, under every rule of fusion, with the reference; `allowed` is the error of a number of that size.
fn agrees_however_fused<const N: usize>(
    g: &Graph,
    outputs: [Var<'_>; N],
    inputs: &[&[f32]],
    allowed: impl Fn(f32) -> f32,
) {
    let truth = call(&Executor::reference(), (g, outputs), Fusion::none(), inputs);
    for fusion in variants() {
        let found = call(&Executor::new(Cpu::new(1).guarded()), (g, outputs), fusion, inputs);
        for (number, (found, truth)) in found.iter().zip(&truth).enumerate() {
            for (a, b) in found.iter().zip(truth) {
                assert!((a - b).abs() < allowed(*b), "{fusion:?}, output {number}: {a} {b}");
            }
        }
    }
}

/// A layer of one column: its bias's gradient is a sum over everything, and no rider on a product.
#[test]
fn a_layer_with_one_output() {
    let vae = vae([3, 3], &[1], 1);
    for fusion in variants() {
        assert_eq!(training_plan(&vae, 2, fusion).verify(), Ok(()), "{fusion:?}");
    }
}

/// A part of a concatenation is computed in place by kernels that can write columns of a wider array; reductions cannot.
#[test]
fn a_reduction_beside_another_value() {
    let g = Graph::new();
    let x = g.input(&[6, 5]);
    let (sum, most) = (x.sum_keep(&[1]), x.max_keep(&[1]));
    let both = g.concat_cols(&[x.exp(), sum, most, sum.tanh()]);
    agrees_however_fused(&g, [both], &[&numbers(8, 30)], |_| 1e-5);
}

/// The two halves of a parameter's gradient are written beside each other in the flat gradient buffer, at an offset
/// that is no multiple of their stride.
#[test]
fn gradients_of_slices_of_a_parameter() {
    let g = Graph::new();
    let (small, w) = (g.param("small", &[3]), g.param("w", &[2, 16]));
    let loss = (w.slice_cols(0, 8).tanh() * w.slice_cols(8, 8).exp()).sum_all() + small.square().sum_all();
    let d = grad(loss, &[small, w]);
    g.optimize(Optimizer::Sgd { momentum: 0.0 }, 1e-3, &[(small, d[0]), (w, d[1])]);
    let run = |executor: Executor, fusion: Fusion| {
        let mut state = executor.state(&Params::of(&g), 0).unwrap();
        state.write("w", &numbers(9, 32)).unwrap();
        let mut step = executor.compile_with(&g, [], fusion).unwrap();
        assert!(step.plan().is_none_or(|plan| plan.verify() == Ok(())));
        step.run(&mut state, &Call::once(Key::new(0))).unwrap();
        bits(&state.read("w").unwrap())
    };
    let expected = run(Executor::new(Interpreter::<f32>::default()), Fusion::none());
    for fusion in variants() {
        assert_eq!(run(Executor::new(Cpu::new(2)), fusion), expected, "{fusion:?}");
    }
}
