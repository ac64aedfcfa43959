//! Steps that are run again and again: nothing may be frozen that changes, and nothing may change that should not.

use elbo::engine::device::{Bound, Moment};
use elbo::engine::isa::Isa;
use elbo::engine::rng::{Draw, Permutation};
use elbo::vae::{Binarisation, Objective, Vae, VaeConfig, training_graph};
use elbo::{Control, Cpu, Ctl, Exec, Fusion, Graph, Interp, KlWarmup, LrSchedule, Optimizer, Plan};

const ROWS: usize = 60;
const BATCH: usize = 10;
const ADAM: Objective = Objective::elbo(Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, Some(2.0));

fn small() -> Vae {
    let config = VaeConfig { image: [7, 6], binarisation: Binarisation::Dynamic, ..VaeConfig::new(3).hidden(&[19]) };
    Vae::new(config).unwrap()
}

fn data(vae: &Vae) -> Vec<u8> {
    let draw = Draw { seed: 4, step: 0, stream: 0 };
    (0..(ROWS * vae.config.pixels()) as u64).map(|i| (draw.uniform(i) * 255.0) as u8).collect()
}

fn control() -> Control {
    Control { shuffle: true, warmup: KlWarmup { beta: 1.0, steps: 4 }, ..Control::new(0x1234_5678_9abc) }
}

fn start(vae: &Vae, threads: usize, fusion: Fusion) -> (Cpu, Bound) {
    let mut cpu = Cpu::new(threads);
    let step = cpu.bind(&Plan::build(&training_graph(vae, &ADAM, "train", BATCH), fusion).unwrap()).unwrap();
    cpu.set_data("train", &data(vae), vae.config.pixels()).unwrap();
    vae.init(1).iter().for_each(|i| cpu.write(&i.name, &i.values).unwrap());
    *cpu.control_mut() = control();
    (cpu, step)
}

/// All parameters and moments, and the metrics, as bits.
fn state(cpu: &mut Cpu, step: Bound) -> (Vec<u32>, Vec<u64>) {
    let mut words = Vec::new();
    for (name, _) in cpu.params() {
        for moment in [Moment::Value, Moment::First, Moment::Second] {
            words.extend(cpu.read_moment(&name, moment).unwrap().iter().map(|v| v.to_bits()));
        }
    }
    (words, cpu.take_metrics(step).unwrap().values().map(|v| v.to_bits()).collect())
}

#[test]
fn n_steps_in_one_run_are_n_runs_of_one_step() {
    let vae = small();
    for threads in [1, 2] {
        let (mut together, step) = start(&vae, threads, Fusion::all());
        together.run(step, 6).unwrap();
        let (mut one_by_one, step) = start(&vae, threads, Fusion::all());
        (0..6).for_each(|_| one_by_one.run(step, 1).unwrap());
        assert!(state(&mut together, step) == state(&mut one_by_one, step), "{threads} threads");
        assert_eq!(together.control(), one_by_one.control());
        assert_eq!((together.control().step, together.control().cursor, together.control().updates), (6, 60, 6));
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let run = |vae: &Vae, rows: usize, threads: usize, isa: Isa, steps: usize| {
        let mut cpu = Cpu::with_isa(threads, isa);
        let pixels = vae.config.pixels();
        let bytes: Vec<u8> = data(&small()).into_iter().cycle().take(rows * steps * pixels).collect();
        let g = training_graph(vae, &ADAM, "train", rows);
        let step = cpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
        cpu.set_data("train", &bytes, pixels).unwrap();
        vae.init(1).iter().for_each(|i| cpu.write(&i.name, &i.values).unwrap());
        *cpu.control_mut() = control();
        cpu.run(step, steps).unwrap();
        state(&mut cpu, step)
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
        let (mut cpu, step) = start(&vae, 2, Fusion::all());
        cpu.control_mut().seed = seed;
        cpu.run(step, 3).unwrap();
        state(&mut cpu, step)
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
    assert!(run(1) != run(1 + (1 << 32)), "the upper half of the seed counts");
}

/// A learning rate that was frozen into the plan would show here.
#[test]
fn the_learning_rate_is_read_at_every_step() {
    let g = Graph::new();
    let p = g.param("p", &[2]);
    g.optimize(Optimizer::Sgd { momentum: 0.0 }, &[(p, g.tensor(&[2], &[1.0, -2.0]))]);
    g.store("rate", g.ctl(Ctl::LearningRate));
    let mut cpu = Cpu::new(1);
    let step = cpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
    // −Σ lr · g, in numbers that f32 holds exactly.
    cpu.control_mut().lr = LrSchedule::Constant { lr: 0.5 };
    cpu.run(step, 2).unwrap();
    cpu.control_mut().lr = LrSchedule::Constant { lr: 0.125 };
    cpu.run(step, 1).unwrap();
    assert_eq!((cpu.read("p").unwrap(), cpu.read("rate").unwrap()), (vec![-1.125, 2.25], vec![0.125]));
    // A schedule inside one run, counted in updates.
    cpu.control_mut().lr = LrSchedule::Steps { lr: 1.0, at: vec![(4, 0.25), (6, 0.0)] };
    cpu.run(step, 5).unwrap();
    assert_eq!(cpu.read("p").unwrap(), [-1.125 - 1.0 - 0.5, 2.25 + 2.0 + 1.0]);
}

#[test]
fn schedules_and_warm_up_follow_the_interpreter() {
    let vae = small();
    let g = training_graph(&vae, &ADAM, "train", BATCH);
    let schedules = [
        LrSchedule::Constant { lr: 1e-3 },
        LrSchedule::Steps { lr: 1e-2, at: vec![(2, 1e-3), (4, 3e-3)] },
        LrSchedule::Cosine { lr: 1e-2, lr_end: 1e-4, steps: 5 },
    ];
    let mut ends = Vec::new();
    for lr in schedules {
        let mut run = Interp::<f64>::new(&g);
        run.set_data("train", &data(&vae), vae.config.pixels()).unwrap();
        for init in vae.init(1) {
            run.set(&init.name, &init.values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
        }
        run.control = Control { lr: lr.clone(), ..control() };
        let (mut cpu, step) = start(&vae, 2, Fusion::all());
        cpu.control_mut().lr = lr.clone();
        (0..6).for_each(|_| run.step());
        cpu.run(step, 6).unwrap();
        for (name, _) in cpu.params() {
            for (found, truth) in cpu.read(&name).unwrap().iter().zip(run.get(&name).unwrap()) {
                assert!((f64::from(*found) - truth).abs() < 2e-5, "{lr:?} {name}: {found} {truth}");
            }
        }
        let (found, truth) = (cpu.take_metrics(step).unwrap()["loss"], run.metric("loss").unwrap());
        assert!((found / truth - 1.0).abs() < 1e-5, "{lr:?}: {found} {truth}");
        ends.push(found);
    }
    assert!(ends[0] != ends[1] && ends[1] != ends[2], "the schedule matters");
}

#[test]
fn noise_is_the_draw_of_its_step_and_stream() {
    for fusion in [Fusion::all(), Fusion::none()] {
        for isa in Isa::available() {
            let g = Graph::new();
            let shape = [33, 21];
            g.store("normal", g.normal(&shape, 7));
            g.store("uniform", g.uniform(&shape, 8));
            // The same noise again in another kernel, scaled: as a backward pass draws it.
            g.store("twice", g.normal(&shape, 7) * 2.0);
            g.store("narrow", g.normal(&[50, 3], 9) * 2.0);
            g.store("wide", g.normal(&[3, 700], 10) * 2.0);
            // In the epilogue of a product, which runs over tiles: 2·ε + 0.
            let zero = g.state("zero left", &[33, 5]).matmul(g.state("zero right", &[5, 77]));
            g.store("tiles", g.normal(&[33, 77], 11) * 2.0 + zero);
            let mut cpu = Cpu::with_isa(2, isa);
            let step = cpu.bind(&Plan::build(&g, fusion).unwrap()).unwrap();
            cpu.control_mut().seed = 0xfeed_0000_0001;
            let mut seen: Vec<Vec<f32>> = Vec::new();
            for i in 0..3 {
                cpu.run(step, 1).unwrap();
                let draw = |stream| Draw { seed: 0xfeed_0000_0001, step: i, stream };
                let normal = cpu.read("normal").unwrap();
                let expected: Vec<f32> = (0..693).map(|e| draw(7).normal(e)).collect();
                assert!(normal == expected, "{isa:?} {fusion:?}, step {i}");
                assert!(cpu.read("uniform").unwrap() == (0..693).map(|e| draw(8).uniform(e)).collect::<Vec<_>>());
                for (name, stream, n) in
                    [("twice", 7, 693), ("narrow", 9, 150), ("wide", 10, 2100), ("tiles", 11, 33 * 77)]
                {
                    let expected: Vec<f32> = (0..n).map(|e| 2.0 * draw(stream).normal(e)).collect();
                    assert!(cpu.read(name).unwrap() == expected, "{name}: {isa:?} {fusion:?}, step {i}");
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
    g.store("images", g.batch("train", 7, 12));
    let mut cpu = Cpu::new(2);
    let bytes: Vec<u8> = (0..28 * 12).map(|i| (i * 31 % 256) as u8).collect();
    let step = cpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
    cpu.set_data("train", &bytes, 12).unwrap();
    for (shuffle, epoch) in [(false, 0), (true, 0), (true, 5)] {
        *cpu.control_mut() = Control { shuffle, epoch, ..Control::new(77) };
        let order = Permutation::new(77, epoch, 28);
        let mut rows_seen = Vec::new();
        for batch in 0..4 {
            cpu.run(step, 1).unwrap();
            let found = cpu.read("images").unwrap();
            for i in 0..7 {
                let position = batch * 7 + i;
                let row = if shuffle { order.at(position) } else { position } as usize;
                rows_seen.push(row);
                let expected: Vec<f32> = bytes[row * 12..][..12].iter().map(|&b| f32::from(b) / 255.0).collect();
                assert_eq!(found[i as usize * 12..][..12], expected, "batch {batch}, row {i}");
            }
        }
        rows_seen.sort_unstable();
        assert_eq!(rows_seen, (0..28).collect::<Vec<_>>(), "every image once an epoch");
        assert!(cpu.run(step, 1).is_err(), "the epoch is over");
    }
}

/// What is stored at the end of a step is read in the next: here, Fibonacci's numbers.
#[test]
fn states_change_between_steps_and_not_within() {
    for fusion in [Fusion::all(), Fusion::none()] {
        let g = Graph::new();
        let (a, b) = (g.state("a", &[3]), g.state("b", &[3]));
        g.store("a", b);
        g.store("b", a + b);
        g.store("step", g.ctl(Ctl::Step));
        let mut cpu = Cpu::new(2);
        let step = cpu.bind(&Plan::build(&g, fusion).unwrap()).unwrap();
        cpu.write("b", &[1.0, 2.0, -1.0]).unwrap();
        cpu.run(step, 10).unwrap();
        assert_eq!(cpu.read("a").unwrap(), [55.0, 110.0, -55.0], "{fusion:?}");
        assert_eq!(cpu.read("b").unwrap(), [89.0, 178.0, -89.0]);
        assert_eq!(cpu.read("step").unwrap(), [9.0]);
    }
}

/// Everything that reads a parameter in a step reads it as it was before the step's update.
#[test]
fn parameters_are_updated_after_their_last_reader() {
    for fusion in [Fusion::all(), Fusion::none()] {
        let g = Graph::new();
        let p = g.param("p", &[40, 40]);
        g.store("copy", p);
        g.store("square", p.matmul(p).tanh());
        g.store("total", p.sum_all());
        g.optimize(Optimizer::Sgd { momentum: 0.0 }, &[(p, g.state("gradient", &[40, 40]))]);
        let mut cpu = Cpu::new(2);
        let step = cpu.bind(&Plan::build(&g, fusion).unwrap()).unwrap();
        cpu.control_mut().lr = LrSchedule::Constant { lr: 0.5 };
        cpu.write("p", &[1.0; 1600]).unwrap();
        cpu.write("gradient", &[1.0; 1600]).unwrap();
        cpu.run(step, 2).unwrap();
        assert!(cpu.read("p").unwrap().iter().all(|&v| v == 0.0));
        assert!(cpu.read("copy").unwrap().iter().all(|&v| v == 0.5), "{fusion:?}");
        assert!(cpu.read("square").unwrap().iter().all(|&v| v == (10f32).tanh()), "{fusion:?}");
        assert_eq!(cpu.read("total").unwrap(), [800.0], "{fusion:?}");
    }
}

/// Whoever wants to stop a training waits for the call that is running.
#[test]
fn calls_are_short_where_steps_are_long() {
    let plan = |name: &str, n: usize| {
        let g = Graph::new();
        let [a, b] = ["a", "b"].map(|factor| g.state(&format!("{factor} {name}"), &[n, n]));
        g.store(&format!("y {name}"), a.matmul(b));
        Plan::build(&g, Fusion::all()).unwrap()
    };
    let mut cpu = Cpu::new(1);
    let [short, long] = [("2", 2), ("1200", 1200)].map(|(name, n)| cpu.bind(&plan(name, n)).unwrap());
    assert_eq!(cpu.steps_per_call(), 1, "how long a step takes is not known yet");
    cpu.run(short, 100).unwrap();
    assert_eq!(cpu.steps_per_call(), 16);
    // 3.5 GFLOP: more than the 6 ms of which sixteen make a tenth of a second.
    cpu.run(long, 1).unwrap();
    assert!(cpu.steps_per_call() < 16, "{}", cpu.steps_per_call());
}
