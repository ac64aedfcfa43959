//! An operation of one's own: the same value and derivatives everywhere, beside the engine's operations.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use elbo::engine::device::Precision;
use elbo::engine::device::cpu::Cpu;
use elbo::engine::rng::Draw;
use elbo::gradcheck::{Point, gradcheck, spread};
use elbo::{
    Call, CustomOp, Device, Executor, Fusion, Graph, Interp, Key, Operand, Optimizer, Params, Plan, Shape, Var,
    custom_op, grad,
};

mod common;

/// y[i, j] = Σ w[k] x[i, k] over k ≤ j.
#[derive(Debug)]
struct RunningSum;

/// Its transpose with respect to x: y[i, k] = w[k] Σ dy[i, j] over j ≥ k.
#[derive(Debug)]
struct RunningSumBack;

fn weighted(name: &str, inputs: &[Shape]) -> Result<Shape, String> {
    let (x, w) = (inputs[0], inputs[1]);
    let fits = x.len() == 2 && w.len() == 1 && x[1] == w[0];
    if fits { Ok(x) } else { Err(format!("{name} needs a matrix and a weight for each of its columns")) }
}

impl CustomOp for RunningSum {
    fn name(&self) -> &'static str {
        "running_sum"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        weighted("running_sum", inputs)
    }

    fn vjp<'g>(&self, x: &[Var<'g>], _: Var<'g>, dy: Var<'g>) -> Vec<Var<'g>> {
        let ones = dy.graph().full(&x[1].shape(), 1.0);
        // dw[k] = Σᵢ x[i, k] Σ dy[i, j] over j ≥ k.
        vec![custom_op(RunningSumBack, &[dy, x[1]]), (custom_op(RunningSumBack, &[dy, ones]) * x[0]).sum(&[0])]
    }

    fn eval(&self, inputs: &[Operand<'_, f64>], out: &mut [f64]) {
        let cols = inputs[0].shape[1];
        for (at, y) in out.iter_mut().enumerate() {
            let (row, j) = (at / cols, at % cols);
            *y = (0..=j).map(|k| inputs[1].values[k] * inputs[0].values[row * cols + k]).sum();
        }
    }

    fn run(&self, inputs: &[Operand<'_, f32>], rows: Range<usize>, out: &mut [f32]) {
        let cols = inputs[0].shape[1];
        for (row, out) in rows.zip(out.chunks_mut(cols.max(1))) {
            let mut sum = 0.0;
            for (k, y) in out.iter_mut().enumerate() {
                sum += inputs[1].values[k] * inputs[0].values[row * cols + k];
                *y = sum;
            }
        }
    }

    fn flops(&self, _: &[Shape], value: Shape) -> u64 {
        2 * value.size() as u64
    }
}

impl CustomOp for RunningSumBack {
    fn name(&self) -> &'static str {
        "running_sum_back"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        weighted("running_sum_back", inputs)
    }

    fn vjp<'g>(&self, x: &[Var<'g>], _: Var<'g>, dy: Var<'g>) -> Vec<Var<'g>> {
        let ones = dy.graph().full(&x[1].shape(), 1.0);
        vec![custom_op(RunningSum, &[dy, x[1]]), (custom_op(RunningSumBack, &[x[0], ones]) * dy).sum(&[0])]
    }

    fn eval(&self, inputs: &[Operand<'_, f64>], out: &mut [f64]) {
        let cols = inputs[0].shape[1];
        for (at, y) in out.iter_mut().enumerate() {
            let (row, k) = (at / cols, at % cols);
            *y = inputs[1].values[k] * (k..cols).map(|j| inputs[0].values[row * cols + j]).sum::<f64>();
        }
    }

    fn run(&self, inputs: &[Operand<'_, f32>], rows: Range<usize>, out: &mut [f32]) {
        let cols = inputs[0].shape[1];
        for (row, out) in rows.zip(out.chunks_mut(cols.max(1))) {
            let mut sum = 0.0;
            for (k, y) in out.iter_mut().enumerate().rev() {
                sum += inputs[0].values[row * cols + k];
                *y = inputs[1].values[k] * sum;
            }
        }
    }
}

#[test]
fn its_derivatives_are_right_to_the_second_order() {
    let point = Point::new().input("x", &[2, 3], &spread(6, 1)).input("w", &[3], &spread(3, 2));
    gradcheck(|_, x| custom_op(RunningSum, x), &point).assert();
    gradcheck(|_, x| custom_op(RunningSumBack, x).tanh(), &point).assert();
}

fn tensor<'g>(g: &'g Graph, shape: &[usize], stream: u32) -> Var<'g> {
    let draw = Draw { seed: 5, step: 0, stream };
    let values: Vec<f64> =
        (0..shape.iter().product::<usize>()).map(|i| f64::from(draw.uniform(i as u64)) - 0.5).collect();
    g.tensor(shape, &values)
}

/// Between a product with its epilogue and element-by-element work, over a slice, into a concatenation, with a constant
/// and with a repeated operand; many rows, so that threads share them.
fn beside_others<'g>(g: &'g Graph) -> Vec<(&'static str, Var<'g>)> {
    let (x, a) = (tensor(g, &[301, 24], 1), tensor(g, &[24, 40], 2));
    let w = g.param("w", &[40]);
    let y = custom_op(RunningSum, &[x.matmul(a).tanh(), w]);
    let wide = g.concat_cols(&[y, custom_op(RunningSumBack, &[y * 2.0, g.full(&[40], 0.5)])]);
    let sliced = custom_op(RunningSum, &[wide.slice_cols(40, 8), w.slice_cols(3, 8)]);
    let repeated = custom_op(RunningSum, &[w.broadcast_to(&[7, 40]), w]);
    let loss = sliced.softplus().mean_all() + repeated.square().mean_all();
    vec![("y", y), ("wide", wide), ("sliced", sliced), ("dw", grad(loss, &[w])[0]), ("loss", loss)]
}

#[test]
fn the_cpu_computes_what_the_interpreter_defines() {
    let g = Graph::new();
    let values = beside_others(&g);
    let outputs: Vec<Var> = values.iter().map(|(_, v)| *v).collect();
    let w: Vec<f32> = (0..40).map(|i| 0.02 * i as f32 - 0.3).collect();
    let mut run = Interp::<f64>::new(&g);
    run.set("w", &w.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>()).unwrap();
    for fusion in [Fusion::all(), Fusion::none()] {
        let results = [1, 3].map(|threads| {
            let executor = Device::Cpu { threads }.open().unwrap();
            let mut step = executor.compile_with(&g, outputs.clone(), fusion).unwrap();
            let mut state = executor.state(&Params::of(&g), 0).unwrap();
            state.write("w", &w).unwrap();
            step.call(&mut state, Key::new(0), &[]).unwrap()
        });
        assert_eq!(results[0], results[1], "the bits depend on the number of threads");
        for ((name, value), found) in values.iter().zip(&results[0]) {
            for (f, e) in found.iter().zip(run.eval(*value)) {
                assert!((f64::from(*f) - e).abs() < 2e-5 * (1.0 + e.abs()), "{name}: {f}, not {e}, {fusion:?}");
            }
        }
    }
}

#[test]
fn it_is_trained_through_and_shown_by_its_name() {
    let g = Graph::new();
    let (w, target) = (g.param("w", &[4]), g.tensor(&[1, 4], &[1.0, 3.0, 6.0, 10.0]));
    let loss = (custom_op(RunningSum, &[g.full(&[1, 4], 1.0), w]) - target).square().mean_all();
    g.optimize(Optimizer::adam(), 0.05, &[(w, grad(loss, &[w])[0])]);
    let plan = Plan::build(&g, &[], Fusion::all()).unwrap();
    assert!(g.to_string().contains("= running_sum(%"), "{g}");
    let text = plan.to_string();
    assert!(text.contains("running_sum ") && text.contains("[1, 4], [4] → [1, 4]"), "{text}");
    let executor = Device::Cpu { threads: 1 }.open().unwrap();
    let mut step = executor.compile(&g, []).unwrap();
    let mut state = executor.state(&Params::of(&g), 0).unwrap();
    step.run(&mut state, &Call { steps: 1000, ..Call::once(Key::new(0)) }).unwrap();
    for (found, expected) in state.read("w").unwrap().iter().zip([1.0, 2.0, 3.0, 4.0]) {
        assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");
    }
}

#[test]
fn misuse_names_the_operands() {
    let g = Graph::new();
    let (x, w) = (g.tensor(&[2, 3], &[0.0; 6]), g.tensor(&[2], &[0.0; 2]));
    let panics = |inputs: &[Var<'_>]| {
        let cause = catch_unwind(AssertUnwindSafe(|| custom_op(RunningSum, inputs).id())).unwrap_err();
        *cause.downcast::<String>().unwrap()
    };
    let message = panics(&[x, w]);
    assert!(
        message.starts_with("running_sum") && message.matches("made at tests/custom_op.rs:").count() == 2,
        "{message}"
    );
    assert!(panics(&[]).contains("0 inputs"));
}

/// CUDA has no kernel for it, and says so when the graph is compiled, before anything runs.
#[test]
fn a_gpu_refuses_it_with_its_name() {
    let Some(gpu) = common::cuda(Precision::F32).map(Executor::new) else { return };
    let g = Graph::new();
    let outputs: Vec<Var> = beside_others(&g).into_iter().map(|(_, v)| v).collect();
    let error = gpu.compile(&g, outputs).err().expect("it has no kernel").to_string();
    assert!(error.contains("running_sum has no kernel") && error.contains("CPU"), "{error}");
}

/// x³, and on a GPU x·x·x.
#[derive(Debug)]
struct Cube;

impl CustomOp for Cube {
    fn name(&self) -> &'static str {
        "cube"
    }
    fn shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }
    fn vjp<'g>(&self, x: &[Var<'g>], _: Var<'g>, dy: Var<'g>) -> Vec<Var<'g>> {
        vec![x[0].square() * dy * 3.0]
    }
    fn eval(&self, inputs: &[Operand<'_, f64>], out: &mut [f64]) {
        out.iter_mut().zip(inputs[0].values).for_each(|(y, x)| *y = x * x * x);
    }
    fn run(&self, inputs: &[Operand<'_, f32>], rows: Range<usize>, out: &mut [f32]) {
        out.iter_mut().zip(inputs[0].rows(rows)).for_each(|(y, x)| *y = x * x * x);
    }
    fn compose<'g>(&self, x: &[Var<'g>]) -> Option<Var<'g>> {
        Some(x[0] * custom_op(Square, x))
    }
}

/// x², of which the cube is made.
#[derive(Debug)]
struct Square;

impl CustomOp for Square {
    fn name(&self) -> &'static str {
        "square"
    }
    fn shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }
    fn vjp<'g>(&self, x: &[Var<'g>], _: Var<'g>, dy: Var<'g>) -> Vec<Var<'g>> {
        vec![x[0] * dy * 2.0]
    }
    fn eval(&self, inputs: &[Operand<'_, f64>], out: &mut [f64]) {
        out.iter_mut().zip(inputs[0].values).for_each(|(y, x)| *y = x * x);
    }
    fn run(&self, inputs: &[Operand<'_, f32>], rows: Range<usize>, out: &mut [f32]) {
        out.iter_mut().zip(inputs[0].rows(rows)).for_each(|(y, x)| *y = x * x);
    }
    fn compose<'g>(&self, x: &[Var<'g>]) -> Option<Var<'g>> {
        Some(x[0] * x[0])
    }
}

/// In an output, a sum, a store, the scale of the gradients, and an update: all of a graph's roots.
#[test]
fn a_gpu_takes_what_it_is_composed_of() {
    let Some(gpu) = common::cuda(Precision::F32).map(Executor::new) else { return };
    let run = |executor: &Executor| {
        let g = Graph::new();
        let w = g.param("w", &[2, 3]);
        let y = custom_op(Cube, &[w * g.schedule("scale")]);
        g.store("seen", y);
        let loss = (y + 1.0).square().sum_all();
        let slope = grad(loss, &[w])[0];
        let scale = custom_op(Cube, &[g.constant(0.5)]);
        g.optimize_scaled(Optimizer::Sgd { momentum: 0.0 }, 0.1, &[(w, slope)], scale);
        let mut f = executor.compile(&g, [y, loss]).unwrap();
        let mut state = executor.state(&Params::of(&g), 0).unwrap();
        state.write("w", &[0.1, -0.2, 0.3, -0.4, 0.5, 0.6]).unwrap();
        let call = Call { steps: 3, schedules: &[("scale", &|_| 1.5)], ..Call::once(Key::new(0)) };
        f.run(&mut state, &call).unwrap();
        let [y, loss] = f.values().unwrap();
        [y, loss, state.read("w").unwrap(), state.read("seen").unwrap()].concat()
    };
    let (found, expected) = (run(&gpu), run(&Executor::new(Cpu::new(1))));
    assert!(expected[0] != 0.0 && expected.len() == found.len());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{found:?} {expected:?}");
    }
}
