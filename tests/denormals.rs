//! Numbers that shrink for ever must end at zero, not among the denormals, where a processor may take some hundred cycles
//! for each of them in every later update.

mod common;

use common::training::{TRAIN, Training, bits};
use elbo::engine::device::{Moment, Precision};
use elbo::engine::interp::Interpreter;
use elbo::engine::optim::{LEAST_FIRST_MOMENT, LEAST_SECOND_MOMENT};
use elbo::engine::rng::Draw;
use elbo::vae::{BETA, UpdateRule, Vae, VaeConfig, bound_gradients, pixels};
use elbo::{Call, Cpu, Executor, Fusion, Graph, Key, Optimizer, Params, Rows, State};

/// Both decays short enough for a test: with the usual β₂ = 0.999, v needs some 70 000 updates.
const FAST: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.95, eps: 1e-8 };
const RULES: [(&str, Optimizer); 3] = [
    ("adam", Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }),
    ("adam with a short memory", FAST),
    ("sgd", Optimizer::Sgd { momentum: 0.9 }),
];
const ROWS: usize = 64;
const BATCH: usize = 16;

/// Images with a frame that is always black.
fn images(vae: &Vae) -> Vec<u8> {
    let [height, width] = vae.config.image;
    let draw = Draw { seed: 3, step: 0, stream: 0 };
    let pixel = |i: usize| {
        let (y, x) = (i / width % height, i % width);
        let inside = (1..height - 1).contains(&y) && (1..width - 1).contains(&x);
        if inside { (draw.uniform(i as u64) * 255.0) as u8 } else { 0 }
    };
    (0..ROWS * height * width).map(pixel).collect()
}

/// Adds so much to the biases of every other unit of the first layers on either side of z that no input wakes them.
fn kill(state: &mut State) {
    for layer in ["encoder.0.bias", "decoder.0.bias"] {
        let mut bias = state.read(layer).unwrap();
        bias.iter_mut().step_by(2).for_each(|b| *b = -1e3);
        state.write(layer, &bias).unwrap();
    }
}

/// Makes `updates` updates, epoch after epoch.
fn train(training: &mut Training, updates: usize) {
    for _ in 0..updates / (ROWS / BATCH) {
        training.run(ROWS / BATCH);
        training.rows = Rows::shuffled(training.rows.epoch + 1);
    }
}

fn denormals(values: &[f32]) -> usize {
    values.iter().filter(|v| v.is_subnormal()).count()
}

/// A model half of whose units die after a hundred updates, five thousand updates long. Gradients of dead units are zero
/// exactly; those that are looked at last show that nothing else in the step made denormals either.
#[test]
fn moments_and_gradients_of_dead_units_end_at_zero() {
    let vae = Vae::new(VaeConfig { image: [6, 7], ..VaeConfig::new(2).hidden(&[24]) }).unwrap();
    for (name, rule) in RULES {
        let objective = UpdateRule::elbo(rule, None);
        let executor = Executor::new(Cpu::new(1));
        let training = Training::start(&executor, &vae, &objective, (BATCH, &images(&vae)), Fusion::all());
        let mut training = Training { key: Key::new(5), ..training };
        train(&mut training, 100);
        kill(&mut training.state);
        train(&mut training, 4900);
        let (state, key, rows) = (&mut training.state, training.key, training.rows);

        for param in vae.params().iter() {
            let slot = &param.name;
            for (moment, least) in [(Moment::First, LEAST_FIRST_MOMENT), (Moment::Second, LEAST_SECOND_MOMENT)] {
                let values = state.read_moment(slot, moment).unwrap();
                assert_eq!(denormals(&values), 0, "{name}: {moment:?} of {slot}");
                let between = values.iter().filter(|v| **v != 0.0 && v.abs() < least as f32).count();
                assert_eq!(between, 0, "{name}: {moment:?} of {slot} between 0 and the bound");
            }
        }
        // [in, out]: the even units of the first layer died, the others go on, at a pixel that is not always black.
        let m = state.read_moment("encoder.0.weight", Moment::First).unwrap();
        let inside = &m[(2 * 7 + 3) * 24..][..24];
        let zero = |parity: usize| inside.iter().skip(parity).step_by(2).filter(|m| **m == 0.0).count();
        assert_eq!(zero(0), 12, "{name}: first moments of dead units: {inside:?}");
        assert!(zero(1) < 12, "{name}: nothing was alive: {inside:?}");

        // The gradients by themselves.
        let g = Graph::new();
        let x = pixels(&g, TRAIN, BATCH, vae.config.pixels());
        let found = bound_gradients(&vae, &objective.bound, x);
        let gradients: Vec<_> = found.encoder.into_iter().chain(found.decoder).collect();
        let mut look = executor.compile(&g, gradients).unwrap();
        look.run(state, &Call { key, rows, steps: 1, schedules: &[(BETA, &|_| 1.0)] }).unwrap();
        for (i, values) in look.values().unwrap().iter().enumerate() {
            assert_eq!(denormals(values), 0, "{name}: gradient {i}");
        }
    }
}

/// A gradient that is switched off, on every executor: the same bits, and zeros at the end.
#[test]
fn a_gradient_that_stops_leaves_the_same_zeros_on_every_executor() {
    const LEN: usize = 37;
    const ON: usize = 20;
    const OFF: usize = 1400;
    let slope: Vec<f64> = (0..LEN).map(|i| f64::from(i as f32 - 18.0) * 0.25).collect();
    for (name, rule) in RULES {
        let g = Graph::new();
        let (p, on) = (g.param("p", &[LEN]), g.input(&[LEN]));
        g.optimize(rule, 1e-3, &[(p, on * g.tensor(&[LEN], &slope))]);
        let run = |executor: Executor| {
            let mut state = executor.state(&Params::of(&g), 0).unwrap();
            let mut step = executor.compile(&g, []).unwrap();
            for (on, steps) in [(1.0, ON), (0.0, OFF)] {
                step.write(0, &[on; LEN]).unwrap();
                step.run(&mut state, &Call { steps, ..Call::once(Key::new(0)) }).unwrap();
            }
            [Moment::Value, Moment::First, Moment::Second].map(|m| state.read_moment("p", m).unwrap())
        };
        let cpu = run(Executor::new(Cpu::new(1)));
        assert!(cpu[0].iter().all(|v| v.is_normal() || *v == 0.0), "{name}: {:?}", cpu[0]);
        assert!(cpu[1].iter().all(|&v| v == 0.0), "{name}: {:?}", cpu[1]);
        assert_eq!(denormals(&cpu[2]), 0, "{name}: {:?}", cpu[2]);

        let others = [Some(Executor::new(Interpreter::<f32>::default())), common::on_cuda(Precision::F32)];
        for executor in others.into_iter().flatten() {
            let device = executor.describe();
            for (which, (found, expected)) in ["p", "m", "v"].iter().zip(run(executor).iter().zip(&cpu)) {
                assert_eq!(bits(found), bits(expected), "{name}: {which} on {device}");
            }
        }
    }
}

/// What is not next to zero is untouched, and what is not a number stays so.
#[test]
fn only_what_is_next_to_zero_is_cut() {
    let sgd = Optimizer::Sgd { momentum: 1.0 };
    let (mut p, mut m, mut v) = ([0.0_f32; 4], [1.01e-30_f32, -0.99e-30, f32::NAN, -f32::INFINITY], [0.0_f32; 4]);
    sgd.update(sgd.scalars(1.0, 1), 1.0, &mut p, &[0.0; 4], &mut m, &mut v);
    assert_eq!((m[0], m[1]), (1.01e-30, 0.0));
    assert!(m[2].is_nan() && m[3] == f32::NEG_INFINITY && p[2].is_nan());
}
