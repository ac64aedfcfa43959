//! Plans: what they consist of, that every rule of fusion leaves the values alone, that no kernel touches memory which
//! is not its own, and what is refused.

use elbo::engine::device::Bound;
use elbo::engine::isa::Isa;
use elbo::engine::math::Real;
use elbo::engine::rng::Draw;
use elbo::vae::{Objective, Vae, VaeConfig, evaluation_graph, training_graph};
use elbo::{Control, Cpu, Error, Exec, Fusion, Graph, Interp, LrSchedule, Optimizer, Plan, Var, grad};

const ADAM: Objective = Objective::elbo(Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, None);

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

/// An executor with the plan bound, parameters and data in place.
fn bind(plan: &Plan, vae: &Vae, data: &[u8], threads: usize, isa: Isa) -> (Cpu, Bound) {
    let mut cpu = Cpu::with_isa(threads, isa);
    let bound = cpu.bind(plan).unwrap();
    cpu.set_data("train", data, vae.config.pixels()).unwrap();
    vae.init(3).iter().for_each(|init| cpu.write(&init.name, &init.values).unwrap());
    *cpu.control_mut() = Control { shuffle: true, ..Control::new(9) };
    (cpu, bound)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The bits of all parameters, one after the other.
fn params(cpu: &Cpu) -> Vec<u32> {
    cpu.params().iter().flat_map(|(name, _)| bits(&cpu.read(name).unwrap())).collect()
}

#[test]
fn the_training_step_of_the_usual_vae_is_short() {
    let g = training_graph(&vae([28, 28], &[400], 20), &ADAM, "train", 128);
    let plan = Plan::build(&g, Fusion::all()).unwrap();
    assert!(plan.steps().len() <= 16, "{plan}");
    let eager = Plan::build(&g, Fusion::none()).unwrap();
    assert!(eager.steps().len() > 3 * plan.steps().len(), "{} steps without fusion", eager.steps().len());
    assert!(eager.bytes() > plan.bytes(), "{} bytes without fusion, {} with", eager.bytes(), plan.bytes());
}

#[test]
fn the_table_names_kernels_shapes_bytes_and_flops() {
    let g = training_graph(&vae([28, 28], &[400], 20), &ADAM, "train", 128);
    let plan = Plan::build(&g, Fusion::all()).unwrap();
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
        let g = training_graph(&vae, &ADAM, "train", rows);
        let mut expected: Option<(Vec<u32>, f64)> = None;
        for fusion in variants() {
            let plan = Plan::build(&g, fusion).unwrap();
            assert_eq!(plan.verify(), Ok(()));
            let (mut cpu, step) = bind(&plan, &vae, &data, 2, Isa::detect());
            cpu.run(step, 4).unwrap();
            let (found, loss) = (params(&cpu), cpu.take_metrics(step).unwrap()["loss"]);
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
    let g = training_graph(&vae, &Objective { clip: Some(0.5), ..ADAM }, "train", 10);
    let mut expected: Option<Vec<u32>> = None;
    for fusion in variants() {
        let (mut cpu, step) = bind(&Plan::build(&g, fusion).unwrap(), &vae, &data, 1, Isa::detect());
        cpu.run(step, 4).unwrap();
        let found = params(&cpu);
        let first = expected.get_or_insert(found.clone());
        for (a, b) in found.iter().zip(first.iter()) {
            let (a, b) = (f32::from_bits(*a), f32::from_bits(*b));
            assert!((a - b).abs() <= 1e-4 * 1e-3 + 1e-5 * b.abs(), "{fusion:?}: {a} {b}");
        }
    }
}

/// One row for every kernel: store everything, compare with f64.
#[test]
fn every_kernel_agrees_with_the_interpreter() {
    let g = Graph::new();
    let s = |name: &str, shape: &[usize]| g.state(name, shape);
    let (a, b, v, cube) = (s("a", &[37, 19]), s("b", &[37, 19]), s("v", &[19]), s("cube", &[3, 20, 7]));
    let (w, column) = (s("w", &[19, 70]), s("column", &[37, 1]));
    let index: Vec<f64> = (0..50).map(|i| f64::from(i * 11 % 37)).collect();
    let rows = g.tensor(&[50], &index);
    let chosen = a.gather_rows(rows);
    let values: Vec<(&str, Var)> = vec![
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
        ("batch", g.batch("train", 21, 30)),
    ];
    values.iter().for_each(|(name, value)| g.store(&format!("out {name}"), *value));
    let inputs = [("a", 37 * 19), ("b", 37 * 19), ("v", 19), ("cube", 420), ("w", 19 * 70), ("column", 37)];
    let data = bytes(64, 30);
    let mut run = Interp::<f64>::new(&g);
    run.set_data("train", &data, 30).unwrap();
    run.control = Control { shuffle: true, ..Control::new(9) };
    for (i, (name, n)) in (0..).zip(inputs) {
        run.set(name, &numbers(i, n).iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
    }
    run.step();
    for isa in Isa::available() {
        for fusion in [Fusion::all(), Fusion::none()] {
            let mut cpu = Cpu::with_isa(2, isa);
            let step = cpu.bind(&Plan::build(&g, fusion).unwrap()).unwrap();
            cpu.set_data("train", &data, 30).unwrap();
            (0..).zip(inputs).for_each(|(i, (name, n))| cpu.write(name, &numbers(i, n)).unwrap());
            *cpu.control_mut() = Control { shuffle: true, ..Control::new(9) };
            cpu.run(step, 1).unwrap();
            for (name, _) in &values {
                let slot = format!("out {name}");
                let (found, truth) = (cpu.read(&slot).unwrap(), run.get(&slot).unwrap());
                for (i, (f, t)) in found.iter().zip(truth).enumerate() {
                    let error = (f64::from(*f) - t).abs();
                    assert!(error <= 2e-5 * (1.0 + t.abs()), "{isa:?} {fusion:?} {name}[{i}]: {f}, truth {t}");
                }
            }
        }
    }
}

/// Buffers moved apart, with NaN in them and around them: a kernel that reads what nobody wrote spoils the result, one
/// that writes outside its buffer leaves a trace.
#[test]
fn no_kernel_strays_from_its_buffers() {
    const GAP: usize = 64;
    let poison = f32::from_bits(0x7fc0_dead);
    for (image, hidden, latent, rows) in
        [([28, 28], &[400][..], 20, 128), ([5, 7], &[19, 33], 3, 13), ([3, 3], &[1], 1, 2)]
    {
        let vae = vae(image, hidden, latent);
        let data = bytes(2 * rows, vae.config.pixels());
        let g = training_graph(&vae, &ADAM, "train", rows);
        for fusion in [Fusion::all(), Fusion::none()] {
            let plan = Plan::build(&g, fusion).unwrap();
            let apart = plan.spread(GAP);
            assert_eq!(apart.verify(), Ok(()));
            for isa in Isa::available() {
                let (mut close, step) = bind(&plan, &vae, &data, 2, isa);
                close.run(step, 2).unwrap();
                let (mut cpu, step) = bind(&apart, &vae, &data, 2, isa);
                let scratch = cpu.scratch_mut(step);
                scratch.fill(poison);
                // Partial sums are zeroed when a plan is bound, because a kernel may write only some of them.
                apart.buffers().iter().filter(|b| b.persistent).for_each(|b| scratch[b.offset..][..b.len].fill(0.0));
                cpu.run(step, 2).unwrap();
                assert!(
                    params(&cpu) == params(&close),
                    "{image:?} {fusion:?} {isa:?}: a kernel read what was not written"
                );
                assert_eq!(cpu.take_metrics(step).unwrap(), close.take_metrics(step).unwrap());
                let scratch = cpu.scratch_mut(step);
                apart.buffers().iter().for_each(|b| scratch[b.offset..][..b.len].fill(poison));
                let stray = scratch.iter().position(|v| v.to_bits() != poison.to_bits());
                assert_eq!(stray, None, "{image:?} {fusion:?} {isa:?}: a kernel wrote outside its buffers");
            }
        }
    }
}

#[test]
fn buffers_share_memory_when_their_lives_do_not_meet() {
    let plan = Plan::build(&training_graph(&vae([28, 28], &[400], 20), &ADAM, "train", 128), Fusion::none()).unwrap();
    let total: usize = plan.buffers().iter().map(|b| b.len).sum();
    assert!(plan.arena() < total * 2 / 3, "{} of {total}", plan.arena());
    // At no time more than what is alive, by more than rounding to cache lines.
    let alive = |w: usize| plan.buffers().iter().filter(move |b| b.persistent || (b.alive.0 <= w && w <= b.alive.1));
    let most = (0..plan.waves()).map(|w| alive(w).map(|b| b.len + 32).sum::<usize>()).max().unwrap();
    assert!(plan.arena() <= most * 5 / 4, "{} where {most} are alive", plan.arena());
}

#[test]
fn dead_code_is_not_planned() {
    let g = Graph::new();
    let x = g.state("x", &[4, 4]);
    let unused = x.matmul(x).exp();
    let _ = grad(unused.sum_all(), &[x]);
    g.store("y", x + 1.0);
    let plan = Plan::build(&g, Fusion::all()).unwrap();
    assert_eq!(plan.steps().len(), 1, "{plan}");
    assert_eq!(plan.steps()[0].name(), "pointwise");
    assert!(plan.buffers().is_empty(), "the value is computed where it is stored");
}

#[test]
fn plans_bound_to_one_executor_share_slots_by_name() {
    let vae = vae([4, 4], &[8], 2);
    let data = bytes(12, 16);
    let plan = Plan::build(&training_graph(&vae, &ADAM, "train", 5), Fusion::all()).unwrap();
    let (mut cpu, train) = bind(&plan, &vae, &data, 1, Isa::detect());
    // A second plan over another number of rows, as for the remainder of an epoch.
    let rest = cpu.bind(&Plan::build(&training_graph(&vae, &ADAM, "train", 2), Fusion::all()).unwrap()).unwrap();
    let eval = cpu.bind(&Plan::build(&evaluation_graph(&vae, "train", 12), Fusion::all()).unwrap()).unwrap();
    cpu.run(train, 2).unwrap();
    assert_eq!((cpu.control().cursor, cpu.control().updates), (10, 2));
    let before = params(&cpu);
    cpu.run(rest, 1).unwrap();
    assert_eq!((cpu.control().cursor, cpu.control().updates, cpu.control().step), (12, 3, 3));
    assert_ne!(before, params(&cpu));
    let before = params(&cpu);
    cpu.control_mut().cursor = 0;
    cpu.run(eval, 1).unwrap();
    assert_eq!((before, cpu.control().updates), (params(&cpu), 3));
    let rec = cpu.take_metrics(eval).unwrap()["rec"];
    assert!(rec > 0.0 && cpu.take_metrics(eval).unwrap()["rec"] == 0.0, "sums start over when they are taken");
}

#[test]
fn what_cannot_run_is_an_error_that_says_why() {
    let text = |e: Error| e.to_string();
    let nothing = Graph::new();
    let _ = nothing.state("x", &[1]).exp();
    assert!(text(Plan::build(&nothing, Fusion::all()).unwrap_err()).contains("no effects"));

    let vae = vae([3, 3], &[4], 2);
    let plan = Plan::build(&training_graph(&vae, &ADAM, "train", 4), Fusion::all()).unwrap();
    let mut cpu = Cpu::new(2);
    let step = cpu.bind(&plan).unwrap();
    assert!(text(cpu.run(step, 1).unwrap_err()).contains("no data was loaded"));
    assert!(text(cpu.set_data("train", &[0; 10], 9).unwrap_err()).contains("10 bytes"));
    cpu.set_data("train", &[0; 50], 10).unwrap();
    assert!(text(cpu.run(step, 1).unwrap_err()).contains("rows of 10"));
    cpu.set_data("train", &[0; 90], 9).unwrap();
    assert!(text(cpu.run(step, 3).unwrap_err()).contains("3 batches end at row 12, the data has 10"));
    assert_eq!(cpu.control().step, 0, "nothing ran");
    cpu.run(step, 2).unwrap();
    assert!(text(cpu.write("nobody", &[0.0]).unwrap_err()).contains("known are"));
    assert!(text(cpu.write("encoder.0.bias", &[0.0]).unwrap_err()).contains("1 numbers"));
    assert!(text(cpu.read("nobody").unwrap_err()).contains("nobody"));

    let other = Graph::new();
    other.store("y", other.param("encoder.0.bias", &[5]).exp());
    let clash = cpu.bind(&Plan::build(&other, Fusion::all()).unwrap()).unwrap_err();
    assert!(text(clash).contains("encoder.0.bias"));

    let g = Graph::new();
    g.store("y", g.state("table", &[3, 2]).gather_rows(g.state("index", &[2])));
    let gather = cpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
    for (index, good) in
        [([0.0, 2.0], true), ([0.0, 3.0], false), ([-1.0, 0.0], false), ([0.5, 0.0], false), ([f32::NAN, 0.0], false)]
    {
        cpu.write("index", &index).unwrap();
        let result = cpu.run(gather, 1);
        assert_eq!(result.is_ok(), good, "{index:?}");
        assert!(result.is_ok() || text(result.unwrap_err()).contains("row index"));
    }
}

/// SGD with momentum, and Adam's own moments, against the interpreter's arithmetic on the same numbers.
#[test]
fn the_update_is_the_interpreters_bit_for_bit() {
    for rule in [Optimizer::adam(), Optimizer::Sgd { momentum: 0.9 }, Optimizer::Sgd { momentum: 0.0 }] {
        let g = Graph::new();
        let (p, d) = (g.param("p", &[1000]), g.state("d", &[1000]));
        g.optimize(rule, &[(p, d)]);
        let (start, slope) = (numbers(1, 1000), numbers(2, 1000));
        let mut run = Interp::<f32>::new(&g);
        let mut cpu = Cpu::new(1);
        let step = cpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
        let wide = |v: &[f32]| v.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
        run.set("p", &wide(&start)).unwrap();
        run.set("d", &wide(&slope)).unwrap();
        cpu.write("p", &start).unwrap();
        cpu.write("d", &slope).unwrap();
        cpu.control_mut().lr = LrSchedule::Constant { lr: 0.01 };
        run.control.lr = LrSchedule::Constant { lr: 0.01 };
        cpu.run(step, 5).unwrap();
        (0..5).for_each(|_| run.step());
        assert_eq!(bits(&cpu.read("p").unwrap()), bits(run.get("p").unwrap()), "{rule:?}");
    }
}

/// A broadcast that is read through a view is in memory, and its reader cannot share a kernel with what it repeats.
#[test]
fn views_of_broadcasts_come_after_what_is_repeated() {
    let g = Graph::new();
    let (x, column) = (g.state("x", &[]).exp(), g.state("column", &[4, 1]).exp());
    let first = x.broadcast_to(&[2]).slice_cols(0, 1).reshape(&[]);
    g.store("scalar", (first * 2.0).tanh() + x);
    g.store("column view", column.broadcast_to(&[4, 3]).slice_cols(1, 1) * 2.0 + column);
    g.store("reshaped", column.broadcast_to(&[4, 4]).reshape(&[16, 1]) + column.sum_all());
    let mut run = Interp::<f32>::new(&g);
    run.set("x", &[0.5]).unwrap();
    run.set("column", &[0.1, 0.2, 0.3, 0.4]).unwrap();
    run.step();
    for fusion in variants() {
        let mut cpu = Cpu::new(1);
        let step = cpu.bind(&Plan::build(&g, fusion).unwrap()).unwrap();
        cpu.write("x", &[0.5]).unwrap();
        cpu.write("column", &[0.1, 0.2, 0.3, 0.4]).unwrap();
        cpu.run(step, 1).unwrap();
        for name in ["scalar", "column view", "reshaped"] {
            for (a, b) in cpu.read(name).unwrap().iter().zip(run.get(name).unwrap()) {
                assert!((a - b).abs() < 1e-6 * b.abs(), "{fusion:?} {name}: {a} {b}");
            }
        }
    }
}

/// A layer of one column: its bias's gradient is a sum over everything, and no rider on a product.
#[test]
fn a_layer_with_one_output() {
    let vae = vae([3, 3], &[1], 1);
    let g = training_graph(&vae, &ADAM, "train", 2);
    for fusion in variants() {
        assert_eq!(Plan::build(&g, fusion).unwrap().verify(), Ok(()), "{fusion:?}");
    }
}

/// A part of a concatenation is computed in place by kernels that can write columns of a wider array; reductions cannot.
#[test]
fn a_reduction_beside_another_value() {
    let g = Graph::new();
    let x = g.state("x", &[6, 5]);
    let (sum, most) = (x.sum_keep(&[1]), x.max_keep(&[1]));
    g.store("both", g.concat_cols(&[x.exp(), sum, most, sum.tanh()]));
    let mut run = Interp::<f32>::new(&g);
    let values = numbers(8, 30);
    run.set("x", &values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
    run.step();
    for fusion in variants() {
        let mut cpu = Cpu::new(1);
        let step = cpu.bind(&Plan::build(&g, fusion).unwrap()).unwrap();
        cpu.write("x", &values).unwrap();
        cpu.run(step, 1).unwrap();
        for (a, b) in cpu.read("both").unwrap().iter().zip(run.get("both").unwrap()) {
            assert!((a - b).abs() < 1e-5, "{fusion:?}: {a} {b}");
        }
    }
}

/// The two halves of a parameter's gradient are written beside each other in the flat gradient buffer, at an offset
/// that is no multiple of their stride.
#[test]
fn gradients_of_slices_of_a_parameter() {
    let g = Graph::new();
    let (small, w) = (g.param("small", &[3]), g.param("w", &[2, 16]));
    let loss = (w.slice_cols(0, 8).tanh() * w.slice_cols(8, 8).exp()).sum_all() + small.square().sum_all();
    let d = grad(loss, &[small, w]);
    g.optimize(Optimizer::Sgd { momentum: 0.0 }, &[(small, d[0]), (w, d[1])]);
    let mut run = Interp::<f32>::new(&g);
    run.set("w", &numbers(9, 32).iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
    run.step();
    for fusion in variants() {
        let plan = Plan::build(&g, fusion).unwrap();
        assert_eq!(plan.verify(), Ok(()));
        let mut cpu = Cpu::new(2);
        let step = cpu.bind(&plan).unwrap();
        cpu.write("w", &numbers(9, 32)).unwrap();
        cpu.run(step, 1).unwrap();
        assert_eq!(bits(&cpu.read("w").unwrap()), bits(run.get("w").unwrap()), "{fusion:?}");
    }
}
