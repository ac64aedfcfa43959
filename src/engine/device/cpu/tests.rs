//! Functions on the portable path, small enough for an interpreter of Rust that checks every access (Miri).

use super::*;
use crate::engine::device::{Executor, Key, Moment, State};
use crate::{Optimizer, Var, grad};

fn loss<'g>(g: &'g Graph, rows: usize) -> (Var<'g>, [Var<'g>; 2]) {
    let (w, b) = (g.param("w", &[3, 9]), g.param("b", &[9]));
    let x = g.batch_in_units("train", rows, 3, 255.0);
    let h = (x.matmul(w) + b).softplus() * g.normal(&[rows, 9], 1000);
    ((h.square() + h.log_sum_exp(&[1]).reshape(&[rows, 1])).sum_all(), [w, b])
}

fn portable(threads: usize) -> Executor {
    Executor::new(Cpu::with_isa(threads, Isa::Portable).guarded())
}

/// A step with a product, its epilogue, a reduction, noise, sums and an update; and an evaluation of the same parameters.
fn train(threads: usize) -> (Vec<f32>, f64) {
    let executor = portable(threads);
    let g = Graph::new();
    let (y, parameters) = loss(&g, 5);
    let gradients = grad(y, &parameters);
    g.optimize(Optimizer::adam(), 1e-3, &[(parameters[0], gradients[0]), (parameters[1], gradients[1])]);
    let table = g.tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).t();
    let mut step = executor.compile(&g, [table, y]).unwrap();
    let mut state = executor.state(&Params::of(&g), 0).unwrap();
    let other = Graph::new();
    let [evaluated] = [loss(&other, 2).0];
    let mut evaluation = executor.compile(&other, [evaluated]).unwrap();

    state.load("train", &[7u8; 30][..], 3).unwrap();
    state.write("w", &[0.1; 27]).unwrap();
    step.run(&mut state, &Call::once(Key::new(0))).unwrap();
    // Memory moves here, is borrowed, and is run on again; a function is dropped, and another bound where it was.
    let (mut state, mut step) = (Box::new(state), Box::new(step));
    state.write("b", &[0.5; 9]).unwrap();
    drop(executor.compile(&other, [evaluated]).unwrap());
    let call = |step, steps| Call { steps, ..Call::once(Key { seed: 0, step }) };
    step.run(&mut state, &call(1, 2)).unwrap();
    evaluation.run(&mut state, &call(3, 2)).unwrap();
    let sum = evaluation.take_totals().unwrap()[0];
    let mut values = state.read("w").unwrap();
    values.extend(state.read_moment("b", Moment::Second).unwrap());
    values.extend(step.read(0).unwrap());
    (values, sum)
}

#[test]
fn one_thread_runs_on_memory_that_moves_and_is_borrowed() {
    let (values, sum) = train(1);
    assert!(values.iter().all(|v| v.is_finite()) && sum.is_finite());
    assert_eq!(values[36..], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

#[test]
fn two_threads_run_on_memory_that_moves_and_is_borrowed() {
    assert_eq!(train(2), train(1));
}

/// A function keeps addresses into the state that it ran with; another state may lie where that one was.
#[test]
fn one_thread_runs_with_one_state_after_another() {
    let executor = portable(1);
    let g = Graph::new();
    let mut twice = executor.compile(&g, [g.buffer("x", &[20]) * 2.0, g.batch("train", 1, 2)]).unwrap();
    let mut run = |state: &mut State| twice.call(state, Key::new(0), &[]).unwrap();
    let mut states = [1.0f32, 2.0, 3.0].map(|x| {
        let mut state = executor.state(&Params::of(&g), 0).unwrap();
        state.write("x", &[x; 20]).unwrap();
        state.load("train", &[x, -x][..], 2).unwrap();
        assert_eq!(run(&mut state), [vec![2.0 * x; 20], vec![x, -x]]);
        state
    });
    states[0].load("train", &[9u8, 8][..], 2).unwrap();
    assert_eq!(run(&mut states[0]), [vec![2.0; 20], vec![9.0, 8.0]]);
    drop(states);
    assert_eq!(run(&mut executor.state(&Params::of(&g), 0).map(with_data).unwrap()), [vec![0.0; 20], vec![5.0; 2]]);
}

fn with_data(mut state: State) -> State {
    state.load("train", &[5u8; 2][..], 2).unwrap();
    state
}

#[test]
fn a_run_that_cannot_end_touches_nothing() {
    let g = Graph::new();
    let executor = portable(1);
    let mut seen = executor.compile(&g, [g.batch("train", 4, 3)]).unwrap();
    let mut state = executor.state(&Params::new(), 0).unwrap();
    state.load("train", &[255u8; 12][..], 3).unwrap();
    let endless = Call { steps: 1 << 62, ..Call::once(Key::new(0)) };
    assert!(seen.run(&mut state, &endless).is_err());
    assert_eq!(seen.read(0).unwrap(), [0.0; 12]);
}
