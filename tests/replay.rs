//! Steps that are run again and again: nothing may be frozen that changes, and nothing may change that should not.

mod common;

use common::training::Training;
use elbo::engine::isa::Isa;
use elbo::engine::rng::{Draw, Permutation};
use elbo::vae::{Binarisation, KlWarmup, UpdateRule, Vae, VaeConfig, pixels};
use elbo::{Call, Cpu, Executor, Fusion, Graph, Key, LrSchedule, Optimizer, Params, Rows};

const ROWS: usize = 60;
const BATCH: usize = 10;
const ADAM: UpdateRule = UpdateRule::elbo(Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, Some(2.0));

fn small() -> Vae {
    let config = VaeConfig { image: [7, 6], binarisation: Binarisation::Dynamic, ..VaeConfig::new(3).hidden(&[19]) };
    Vae::new(config).unwrap()
}

fn data(vae: &Vae) -> Vec<u8> {
    let draw = Draw { seed: 4, step: 0, stream: 0 };
    (0..(ROWS * vae.config.pixels()) as u64).map(|i| (draw.uniform(i) * 255.0) as u8).collect()
}

fn cpu(threads: usize) -> Executor {
    Executor::new(Cpu::new(threads))
}

/// A training with a warm-up that ends within the test.
fn start(executor: &Executor, vae: &Vae) -> Training {
    let training = Training::start(executor, vae, &ADAM, (BATCH, &data(vae)), Fusion::all());
    Training { warmup: KlWarmup { beta: 1.0, steps: 4 }, ..training }
}

#[test]
fn n_steps_in_one_run_are_n_runs_of_one_step() {
    let vae = small();
    for threads in [1, 2] {
        let mut together = start(&cpu(threads), &vae);
        together.run(6);
        let mut one_by_one = start(&cpu(threads), &vae);
        (0..6).for_each(|_| one_by_one.run(1));
        assert!(together.take_bits() == one_by_one.take_bits(), "{threads} threads");
        assert_eq!((together.updates(), one_by_one.updates()), (6, 6));
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let run = |vae: &Vae, rows: usize, threads: usize, isa: Isa, steps: usize| {
        let executor = Executor::new(Cpu::with_isa(threads, isa));
        let bytes: Vec<u8> = data(&small()).into_iter().cycle().take(rows * steps * vae.config.pixels()).collect();
        let mut training = Training::start(&executor, vae, &ADAM, (rows, &bytes), Fusion::all());
        training.run(steps);
        training.take_bits()
    };
    let usual = Vae::new(VaeConfig::new(20)).unwrap();
    for isa in Isa::available() {
        for (vae, rows, steps) in [(&small(), BATCH, 6), (&usual, 128, 2)] {
            let expected = run(vae, rows, 1, isa, steps);
            for threads in [2, 3, 7] {
                assert!(run(vae, rows, threads, isa, steps) == expected, "{isa:?}, {threads} threads, batch {rows}");
            }
        }
    }
}

#[test]
fn the_same_start_gives_the_same_end_and_another_seed_another() {
    let vae = small();
    let run = |seed: u64| {
        let mut training = Training { key: Key::new(seed), ..start(&cpu(2), &vae) };
        training.run(3);
        training.take_bits()
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
    assert!(run(1) != run(1 + (1 << 32)), "the upper half of the seed counts");
}

/// A learning rate that was frozen into the plan would show here.
#[test]
fn the_learning_rate_is_read_at_every_step() {
    let g = Graph::new();
    let (p, rate) = (g.param("p", &[2]), g.schedule("rate"));
    g.optimize(Optimizer::Sgd { momentum: 0.0 }, rate, &[(p, g.tensor(&[2], &[1.0, -2.0]))]);
    let executor = cpu(1);
    let mut state = executor.state(&Params::of(&g), 0).unwrap();
    let mut step = executor.compile(&g, [rate.broadcast_to(&[1])]).unwrap();
    // −Σ lr · g, in numbers that f32 holds exactly.
    let mut run = |lr: LrSchedule, steps: usize| {
        let rate = |done| lr.at(done);
        step.run(&mut state, &Call { steps, schedules: &[("rate", &rate)], ..Call::once(Key::new(0)) }).unwrap();
        (state.read("p").unwrap(), step.read(0).unwrap())
    };
    run(LrSchedule::Constant { lr: 0.5 }, 2);
    assert_eq!(run(LrSchedule::Constant { lr: 0.125 }, 1), (vec![-1.125, 2.25], vec![0.125]));
    // A schedule inside one run, counted in updates.
    let (p, _) = run(LrSchedule::Steps { lr: 1.0, at: vec![(4, 0.25), (6, 0.0)] }, 5);
    assert_eq!(p, [-1.125 - 1.0 - 0.5, 2.25 + 2.0 + 1.0]);
}

#[test]
fn schedules_and_warm_up_follow_the_reference() {
    let vae = small();
    let schedules = [
        LrSchedule::Constant { lr: 1e-3 },
        LrSchedule::Steps { lr: 1e-2, at: vec![(2, 1e-3), (4, 3e-3)] },
        LrSchedule::Cosine { lr: 1e-2, lr_end: 1e-4, steps: 5 },
    ];
    let mut ends = Vec::new();
    for lr in schedules {
        let [(found, mut on_cpu), (truth, on_reference)] = [cpu(2), Executor::reference()].map(|executor| {
            let mut training = Training { rate: lr.clone(), ..start(&executor, &vae) };
            training.run(6);
            (training.take_loss(), training)
        });
        for param in vae.params().iter() {
            let [found, truth] = [&on_cpu, &on_reference].map(|training| training.state.read(&param.name).unwrap());
            for (found, truth) in found.iter().zip(&truth) {
                assert!((found - truth).abs() < 2e-5, "{lr:?} {param:?}: {found} {truth}");
            }
        }
        assert!((found / truth - 1.0).abs() < 1e-5, "{lr:?}: {found} {truth}");
        assert_eq!(on_cpu.take_loss(), 0.0, "sums start again when they are taken");
        ends.push(found);
    }
    assert!(ends[0] != ends[1] && ends[1] != ends[2], "the schedule matters");
}

#[test]
fn noise_is_the_draw_of_its_step_and_stream() {
    const SEED: u64 = 0xfeed_0000_0001;
    for fusion in [Fusion::all(), Fusion::none()] {
        for isa in Isa::available() {
            let g = Graph::new();
            let shape = [33, 21];
            // The same noise again in another kernel, scaled: as a backward pass draws it. In the epilogue of a product,
            // which runs over tiles: 2·ε + 0.
            let zero = g.buffer("zero left", &[33, 5]).matmul(g.buffer("zero right", &[5, 77]));
            let outputs = [
                g.normal(&shape, 7),
                g.uniform(&shape, 8),
                g.normal(&shape, 7) * 2.0,
                g.normal(&[50, 3], 9) * 2.0,
                g.normal(&[3, 700], 10) * 2.0,
                g.normal(&[33, 77], 11) * 2.0 + zero,
            ];
            let executor = Executor::new(Cpu::with_isa(2, isa));
            let mut state = executor.state(&Params::of(&g), 0).unwrap();
            let mut f = executor.compile_with(&g, outputs, fusion).unwrap();
            let mut seen: Vec<Vec<f32>> = Vec::new();
            for step in 0..3 {
                let [normal, uniform, scaled @ ..] = f.call(&mut state, Key { seed: SEED, step }, &[]).unwrap();
                let draw = |stream| Draw { seed: SEED, step, stream };
                let expected: Vec<f32> = (0..693).map(|e| draw(7).normal(e)).collect();
                assert!(normal == expected, "{isa:?} {fusion:?}, step {step}");
                assert!(uniform == (0..693).map(|e| draw(8).uniform(e)).collect::<Vec<_>>());
                for (found, (stream, n)) in scaled.iter().zip([(7, 693), (9, 150), (10, 2100), (11, 33 * 77)]) {
                    let expected: Vec<f32> = (0..n).map(|e| 2.0 * draw(stream).normal(e)).collect();
                    assert!(*found == expected, "stream {stream}: {isa:?} {fusion:?}, step {step}");
                }
                assert!(seen.iter().all(|earlier| earlier.iter().zip(&normal).all(|(a, b)| a != b)), "repeated noise");
                seen.push(normal);
            }
        }
    }
}

#[test]
fn batches_follow_the_permutation_of_their_epoch() {
    let g = Graph::new();
    let executor = cpu(2);
    let mut f = executor.compile(&g, [pixels(&g, "train", 7, 12)]).unwrap();
    let mut state = executor.state(&Params::new(), 0).unwrap();
    let bytes: Vec<u8> = (0..28 * 12).map(|i| (i * 31 % 256) as u8).collect();
    state.load("train", &bytes[..], 12).unwrap();
    for rows in [Rows::in_order(), Rows::shuffled(0), Rows::shuffled(5)] {
        let order = Permutation::new(77, rows.epoch, 28);
        let mut rows_seen = Vec::new();
        let call = |batch: u32| Call { rows: rows.from(7 * batch), ..Call::once(Key { seed: 77, step: batch }) };
        for batch in 0..4 {
            f.run(&mut state, &call(batch)).unwrap();
            let found = f.read(0).unwrap();
            for i in 0..7 {
                let position = batch * 7 + i;
                let row = if rows.shuffle { order.at(position) } else { position } as usize;
                rows_seen.push(row);
                let expected: Vec<f32> = bytes[row * 12..][..12].iter().map(|&b| f32::from(b) / 255.0).collect();
                assert_eq!(found[i as usize * 12..][..12], expected, "batch {batch}, row {i}");
            }
        }
        rows_seen.sort_unstable();
        assert_eq!(rows_seen, (0..28).collect::<Vec<_>>(), "every image once an epoch");
        assert!(f.run(&mut state, &call(4)).is_err(), "the epoch is over");
    }
}

/// What is stored at the end of a step is read in the next: here, Fibonacci's numbers.
#[test]
fn buffers_change_between_steps_and_not_within() {
    for fusion in [Fusion::all(), Fusion::none()] {
        let g = Graph::new();
        let (a, b) = (g.buffer("a", &[3]), g.buffer("b", &[3]));
        g.store("a", b);
        g.store("b", a + b);
        let executor = cpu(2);
        let mut state = executor.state(&Params::of(&g), 0).unwrap();
        let mut f = executor.compile_with(&g, [g.step_number().broadcast_to(&[1])], fusion).unwrap();
        state.write("b", &[1.0, 2.0, -1.0]).unwrap();
        f.run(&mut state, &Call { steps: 10, ..Call::once(Key::new(0)) }).unwrap();
        assert_eq!(state.read("a").unwrap(), [55.0, 110.0, -55.0], "{fusion:?}");
        assert_eq!(state.read("b").unwrap(), [89.0, 178.0, -89.0]);
        assert_eq!(f.read(0).unwrap(), [9.0]);
    }
}

/// Everything that reads a parameter in a step reads it as it was before the step's update.
#[test]
fn parameters_are_updated_after_their_last_reader() {
    for fusion in [Fusion::all(), Fusion::none()] {
        let g = Graph::new();
        let p = g.param("p", &[40, 40]);
        g.optimize(Optimizer::Sgd { momentum: 0.0 }, 0.5, &[(p, g.input(&[40, 40]))]);
        let executor = cpu(2);
        let mut state = executor.state(&Params::of(&g), 0).unwrap();
        let mut f = executor.compile_with(&g, [p, p.matmul(p).tanh(), p.sum_all()], fusion).unwrap();
        state.write("p", &[1.0; 1600]).unwrap();
        let mut last = || f.call(&mut state, Key::new(0), &[&[1.0; 1600]]).unwrap();
        last();
        let [copy, square, total] = last();
        assert!(state.read("p").unwrap().iter().all(|&v| v == 0.0));
        assert!(copy.iter().all(|&v| v == 0.5), "{fusion:?}");
        assert!(square.iter().all(|&v| v == (10f32).tanh()), "{fusion:?}");
        assert_eq!(total, [800.0], "{fusion:?}");
    }
}

/// Whoever wants to stop a training waits for the call that is running.
#[test]
fn calls_are_short_where_steps_are_long() {
    let executor = cpu(1);
    let mut state = executor.state(&Params::new(), 0).unwrap();
    let [mut short, mut long] = [2, 1200].map(|n| {
        let g = Graph::new();
        executor.compile(&g, [g.input(&[n, n]).matmul(g.input(&[n, n]))]).unwrap()
    });
    let call = |steps| Call { steps, ..Call::once(Key::new(0)) };
    assert_eq!(executor.steps_per_call(), 1, "how long a step takes is not known yet");
    short.run(&mut state, &call(100)).unwrap();
    assert_eq!(executor.steps_per_call(), 16);
    // 3.5 GFLOP: more than the 6 ms of which sixteen make a tenth of a second.
    long.run(&mut state, &call(1)).unwrap();
    assert!(executor.steps_per_call() < 16, "{}", executor.steps_per_call());
}
