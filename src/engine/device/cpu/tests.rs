//! Plans on the portable path, small enough for an interpreter of Rust that checks every access (Miri).

use super::*;
use crate::engine::graph::Graph;
use crate::engine::plan::Fusion;
use crate::{Var, grad};

fn loss<'g>(g: &'g Graph, rows: usize) -> (Var<'g>, [Var<'g>; 2]) {
    let (w, b) = (g.param("w", &[3, 9]), g.param("b", &[9]));
    let x = g.batch("train", rows, 3);
    let h = (x.matmul(w) + b).softplus() * g.normal(&[rows, 9], 1000);
    ((h.square() + h.log_sum_exp(&[1]).reshape(&[rows, 1])).sum_all(), [w, b])
}

/// A step with a product, its epilogue, a reduction, noise, sums and an update; and an evaluation of the same parameters.
fn train(threads: usize) -> (Vec<f32>, f64) {
    let g = Graph::new();
    let (y, parameters) = loss(&g, 5);
    let gradients = grad(y, &parameters);
    g.optimize(Optimizer::adam(), &[(parameters[0], gradients[0]), (parameters[1], gradients[1])]);
    g.metric("loss", y);
    g.store("table", g.tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).t());
    let other = Graph::new();
    other.metric("loss", loss(&other, 2).0);

    let mut cpu = Cpu::with_isa(threads, Isa::Portable);
    let step = cpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
    cpu.set_data("train", &[7; 30], 3).unwrap();
    cpu.write("w", &[0.1; 27]).unwrap();
    cpu.run(step, 1).unwrap();
    // Memory moves here, is borrowed, and is run on again.
    let evaluation = cpu.bind(&Plan::build(&other, Fusion::all()).unwrap()).unwrap();
    let mut cpu = Box::new(cpu);
    cpu.write("b", &[0.5; 9]).unwrap();
    let _ = cpu.scratch_mut(step);
    cpu.control_mut().cursor = 0;
    cpu.run(step, 2).unwrap();
    cpu.control_mut().cursor = 0;
    cpu.run(evaluation, 2).unwrap();
    let sum = cpu.take_metrics(evaluation).unwrap()["loss"];
    let mut values = cpu.read("w").unwrap();
    values.extend(cpu.read_moment("b", Moment::Second).unwrap());
    values.extend(cpu.read("table").unwrap());
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

#[test]
fn a_run_that_cannot_end_touches_nothing() {
    let g = Graph::new();
    g.store("seen", g.batch("train", 4, 3));
    let mut cpu = Cpu::with_isa(1, Isa::Portable);
    let step = cpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
    cpu.set_data("train", &[255; 12], 3).unwrap();
    assert!(cpu.run(step, 1 << 62).is_err());
    assert_eq!(cpu.read("seen").unwrap(), [0.0; 12]);
}
