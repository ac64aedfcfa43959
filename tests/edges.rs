//! What used to go wrong in silence at the edges of the engine: values of two graphs, axes named twice, data for slots
//! that nobody reads, runs longer than can be counted, empty axes, rows of infinities. The interpreter and every executor
//! must say the same.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use elbo::engine::device::Precision;
use elbo::engine::isa::Isa;
use elbo::{Call, Cpu, Executor, Fusion, Graph, Interp, Key, Optimizer, Params, Rows, Var, grad, grad_with, hvp, jvp};

mod common;

thread_local! {
    /// The line of this file at which the thread's last panic was raised; 0 when it was raised in another file.
    static RAISED_AT: Cell<u32> = const { Cell::new(0) };
}

/// The message of the panic that `f` must end in, raised at a line of this file: the caller's, not the engine's.
fn panics<R>(what: &str, f: impl FnOnce() -> R) -> String {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let here = info.location().filter(|l| l.file() == file!());
            RAISED_AT.set(here.map_or(0, |l| l.line()));
            print(info);
        }));
    });
    let Err(cause) = catch_unwind(AssertUnwindSafe(f)) else { panic!("{what}: no panic") };
    assert!(RAISED_AT.get() > 0, "{what}: the panic does not name the caller's line");
    cause.downcast_ref::<String>().cloned().unwrap_or_else(|| panic!("{what}: a panic without a formatted message"))
}

/// Every operation with several operands refuses one of another graph, and names where both were made.
#[test]
fn values_of_two_graphs_do_not_meet() {
    let (g, h) = (Graph::new(), Graph::new());
    let a = g.tensor(&[2, 2], &[1.0; 4]);
    h.tensor(&[2, 2], &[7.0; 4]);
    let b = h.tensor(&[2, 2], &[5.0; 4]);
    let made = line!() - 1;
    let index = h.tensor(&[2], &[0.0; 2]);
    let cpu = Executor::new(Cpu::new(1));
    let messages = [
        panics("add", || a + b),
        panics("add of constants", || g.constant(1.0) + h.constant(5.0)),
        panics("maximum", || a.maximum(b)),
        panics("matmul", || a.matmul(b)),
        panics("select", || a.select(b, b)),
        panics("select", || a.select(a, b)),
        panics("concat_cols", || g.concat_cols(&[a, b])),
        panics("concat_cols of one", || g.concat_cols(&[b])),
        panics("gather_rows", || a.gather_rows(index)),
        panics("scatter_rows", || a.scatter_rows(index, 3)),
        panics("grad", || grad(a.sum_all(), &[b])),
        panics("grad_with", || grad_with(a, b, &[a])),
        panics("store", || g.store("s", b)),
        panics("compile", || cpu.compile(&g, [b]).is_ok()),
        panics("optimize", || g.optimize(Optimizer::adam(), 0.1, &[(b, b)])),
        panics("optimize at the rate of another", || g.optimize(Optimizer::adam(), h.schedule("rate"), &[])),
        panics("eval", || Interp::<f64>::new(&g).eval(b)),
    ];
    for message in messages {
        assert_eq!(message.matches("tests/edges.rs:").count(), 2, "both places in: {message}");
    }
    let message = panics("add", || a + b);
    assert!(message.contains(&format!("edges.rs:{made}:")), "{message}");
    assert!(g.effects().stores.is_empty() && g.effects().totals.is_empty() && g.effects().optimize.is_none());
}

/// Operands that do not fit are named with the lines that made them, in the order of the operands.
#[test]
fn operands_that_do_not_fit_are_named_with_their_places() {
    let g = Graph::new();
    let a = g.tensor(&[2, 3], &[1.0; 6]);
    let b = g.tensor(&[4, 5], &[1.0; 20]);
    let below_b = line!();
    let vector = g.tensor(&[3], &[0.0; 3]);
    let w = g.param("w", &[4, 5]);
    let messages = [
        ("add", panics("add", || a + b)),
        ("min", panics("minimum", || a.minimum(b))),
        ("select", panics("condition", || a.select(b, b))),
        ("select", panics("choices", || vector.select(a, b))),
        ("matmul", panics("inner sizes", || a.matmul(b))),
        ("matmul", panics("matmul of a vector", || a.matmul(vector))),
        ("concat_cols", panics("concat_cols", || g.concat_cols(&[a, a.exp(), b]))),
        ("gather_rows", panics("gather_rows", || a.gather_rows(b))),
        ("scatter_rows", panics("scatter_rows", || a.scatter_rows(vector, 9))),
        ("grad_with", panics("grad_with", || grad_with(a.exp(), b, &[a]))),
        ("hvp", panics("hvp", || hvp(a.square().sum_all(), &[a], &[b]))),
        ("jvp", panics("jvp", || jvp(a.square(), &[a], &[b]))),
        ("optimize", panics("optimize", || g.optimize(Optimizer::adam(), 1e-3, &[(w, a)]))),
    ];
    for (name, message) in &messages {
        assert!(message.starts_with(name), "{message}");
        assert!(message.matches("tests/edges.rs:").count() >= 2, "both places in: {message}");
        assert!(message.contains("[2, 3] made at") || message.contains("[3] made at"), "{message}");
    }
    let (first, second) = (
        format!("[2, 3] made at tests/edges.rs:{}:", below_b - 2),
        format!("[4, 5] made at tests/edges.rs:{}:", below_b - 1),
    );
    let message = panics("add", || a + b);
    assert!(message.find(&first) < message.find(&second) && message.contains(&first), "{message}");
    let alone = [
        panics("reshape", || a.reshape(&[7])),
        panics("t", || vector.t()),
        panics("slice_cols", || a.slice_cols(1, 3)),
        panics("broadcast_to", || a.broadcast_to(&[3, 2])),
        panics("grad", || grad(a, &[a])),
        panics("optimize", || g.optimize(Optimizer::adam(), 1e-3, &[(a, a)])),
    ];
    for message in alone {
        assert!(message.contains("made at tests/edges.rs:"), "{message}");
    }
}

#[test]
fn an_axis_is_named_once() {
    let g = Graph::new();
    let x = g.tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let messages = [
        panics("sum", || x.sum(&[0, 0])),
        panics("sum_keep", || x.sum_keep(&[0, 0])),
        panics("mean", || x.mean(&[0, 0])),
        panics("max", || x.max(&[0, 0])),
        panics("max_keep", || x.max_keep(&[0, 0])),
        panics("log_sum_exp", || x.log_sum_exp(&[0, 0])),
    ];
    for message in messages {
        assert!(message.contains("axis 0 is named twice in [0, 0]"), "{message}");
    }
    let message = panics("an axis too far", || x.mean(&[2]));
    assert!(message.contains("axis 2 of a value of shape [2, 3]"), "{message}");
    assert_eq!(Interp::<f64>::new(&g).eval(x.mean(&[0, 1])), [3.5]);
}

/// The reference, the CPU, and a GPU or its emulation if there is one.
fn executors() -> Vec<Executor> {
    let cpus = [Cpu::new(1), Cpu::with_isa(2, Isa::Portable)].map(Executor::new);
    [Executor::reference()].into_iter().chain(cpus).chain(common::on_cuda(Precision::F32)).collect()
}

const ONCE: Call = Call {
    key: Key { seed: 0, step: 0 },
    rows: Rows { cursor: 0, epoch: 0, shuffle: false },
    steps: 1,
    schedules: &[],
};

#[test]
fn data_that_is_not_there_is_an_error() {
    let g = Graph::new();
    let seen = g.batch("train", 1, 3);
    g.batch("test", 1, 3);
    let mut run = Interp::<f32>::new(&g);
    let error = run.load("tain", &[0u8; 6][..], 3).unwrap_err().to_string();
    assert!(error.contains("tain") && error.contains("train, test"), "{error}");
    assert!(run.load("train", &[0u8; 7][..], 3).unwrap_err().to_string().contains("7 numbers"));
    assert!(run.load("train", &[0u8; 8][..], 4).unwrap_err().to_string().contains("rows of 4 numbers"));
    run.load("train", &[0u8; 6][..], 3).unwrap();
    for executor in executors() {
        let mut step = executor.compile(&g, [seen]).unwrap();
        let mut state = executor.state(&Params::new(), 0).unwrap();
        let missing = step.run(&mut state, &ONCE).unwrap_err().to_string();
        assert!(missing.contains("train") && missing.contains("no data was loaded"), "{missing}");
        state.load("tain", &[0u8; 6][..], 3).unwrap();
        let missing = step.run(&mut state, &ONCE).unwrap_err().to_string();
        assert!(missing.contains("train") && missing.contains("known are tain"), "{missing}");
        assert!(state.load("train", &[0u8; 7][..], 3).unwrap_err().to_string().contains("7 numbers"));
        state.load("train", &[0u8; 8][..], 4).unwrap();
        let wide = step.run(&mut state, &ONCE).unwrap_err().to_string();
        assert!(wide.contains("rows of 4 numbers"), "{wide}");
        state.load("train", &[255u8; 6][..], 3).unwrap();
        step.run(&mut state, &Call { steps: 2, ..ONCE }).unwrap();
        assert_eq!(step.read(0).unwrap(), [255.0; 3]);
    }
}

/// 2⁶² steps of four rows end at row 2⁶⁴, which is not row 0.
#[test]
fn more_steps_than_rows_can_be_counted_are_an_error() {
    let g = Graph::new();
    let seen = g.batch("train", 4, 3);
    for executor in executors() {
        let mut step = executor.compile(&g, [seen]).unwrap();
        let mut state = executor.state(&Params::new(), 0).unwrap();
        state.load("train", &[0u8; 12][..], 3).unwrap();
        for steps in [2, 1 << 60, 1 << 62, usize::MAX] {
            let error = step.run(&mut state, &Call { steps, ..ONCE }).unwrap_err().to_string();
            assert!(error.contains("the data has 4 rows"), "{error}");
        }
        step.run(&mut state, &ONCE).unwrap();
    }
    let g = Graph::new();
    g.store("state", g.buffer("state", &[1]) + 1.0);
    let cpu = Executor::new(Cpu::new(1));
    let mut state = cpu.state(&Params::of(&g), 0).unwrap();
    let error = cpu.compile(&g, []).unwrap().run(&mut state, &Call { steps: usize::MAX, ..ONCE }).unwrap_err();
    assert!(error.to_string().contains("steps"), "{error}");
    assert_eq!(state.read("state").unwrap(), [0.0]);
}

/// The value of an output of the interpreter, and of every executor with and without fusion; inputs are zero.
fn everywhere(what: &str, build: impl for<'g> Fn(&'g Graph) -> Var<'g>) -> Vec<f32> {
    let g = Graph::new();
    let y = build(&g);
    // As an array: one of shape [] is a running sum.
    let y = if y.shape().is_empty() { y.reshape(&[1]) } else { y };
    let truth = Interp::<f32>::new(&g).eval(y);
    for fusion in [Fusion::all(), Fusion::none()] {
        for executor in executors() {
            let on = executor.describe();
            let mut step = executor.compile_with(&g, [y], fusion).unwrap_or_else(|e| panic!("{what} on {on}: {e}"));
            let mut state = executor.state(&Params::new(), 0).unwrap();
            step.run(&mut state, &ONCE).unwrap_or_else(|e| panic!("{what} on {on}: {e}"));
            let found = step.read(0).unwrap();
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
            assert_eq!(bits(&found), bits(&truth), "{what} on {on}: {found:?}, not {truth:?}");
        }
    }
    truth
}

#[test]
fn empty_axes_and_products() {
    let minus = f32::NEG_INFINITY;
    assert_eq!(everywhere("max over an empty axis", |g| g.input(&[2, 0]).max(&[1])), [minus; 2]);
    assert_eq!(everywhere("max over empty rows", |g| g.input(&[0, 3]).max(&[0])), [minus; 3]);
    assert_eq!(everywhere("max over all of nothing", |g| g.input(&[0, 3]).max(&[0, 1])), [minus]);
    assert_eq!(everywhere("sum over an empty axis", |g| g.input(&[2, 0]).sum(&[1])), [0.0; 2]);
    assert_eq!(everywhere("sum over empty rows", |g| g.input(&[0, 3]).sum(&[0])), [0.0; 3]);
    assert_eq!(everywhere("sum of nothing", |g| g.input(&[0, 3]).exp().sum_all()), [0.0]);
    assert_eq!(everywhere("sum of a slot of nothing", |g| g.input(&[0]).sum_all()), [0.0]);
    let product = |m: usize, k: usize, n: usize| {
        everywhere(&format!("{m} × {k} × {n}"), move |g| g.input(&[m, k]).matmul(g.input(&[k, n])))
    };
    assert_eq!(product(2, 0, 3), [0.0; 6]);
    assert_eq!(product(0, 4, 3), [0.0; 0]);
    assert_eq!(product(2, 4, 0), [0.0; 0]);
    let with_bias = |m: usize, k: usize, n: usize| {
        everywhere(&format!("{m} × {k} × {n} with a bias"), move |g| {
            (g.input(&[m, k]).matmul(g.input(&[k, n])) + g.full(&[n], 2.0)).relu()
        })
    };
    assert_eq!(with_bias(2, 0, 3), [2.0; 6]);
    assert_eq!(with_bias(0, 4, 3), [0.0; 0]);
    let transposed = everywhere("a transposed product", |g| g.input(&[0, 2]).matmul_t(true, g.input(&[3, 0]), true));
    assert_eq!(transposed, [0.0; 6]);
}

/// log Σ exp of infinities is the largest of them, and its gradient is never NaN.
#[test]
fn log_sum_exp_of_infinities() {
    let inf = f64::INFINITY;
    let rows = [-inf, -inf, -inf, 1.0, inf, -inf, inf, inf, 2.0, 0.0, -inf, 0.0];
    let truth = [-inf, inf, inf, 2f64.ln()].map(|v| v as f32);
    assert_eq!(everywhere("values", |g| g.tensor(&[4, 3], &rows).log_sum_exp(&[1])), truth);
    let softmax = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.5];
    let slopes = everywhere("gradients", |g| {
        let x = g.tensor(&[4, 3], &rows);
        grad(x.log_sum_exp(&[1]).sum_all(), &[x])[0]
    });
    assert_eq!(slopes, softmax);
    let g = Graph::new();
    let y = g.tensor(&[2], &[f64::NAN, 1.0]).log_sum_exp(&[0]);
    assert!(Interp::<f64>::new(&g).eval(y)[0].is_nan(), "a NaN is not hidden");
}

/// The loss is summed from partial sums whose extent does not depend on the tiles of a product.
#[test]
fn sums_have_the_same_bits_on_every_instruction_set_with_fma() {
    let g = Graph::new();
    let (a, b) = (g.normal(&[37, 20], 1000), g.normal(&[20, 93], 1001));
    let l = a.matmul(b) + g.normal(&[93], 1002);
    let sums = [(l.softplus() - l * 0.25).sum_all(), g.normal(&[50, 93], 1003).exp().sum_all()];
    let found = |isa: Isa| {
        let cpu = Executor::new(Cpu::with_isa(2, isa));
        let mut step = cpu.compile(&g, sums).unwrap();
        step.run(&mut cpu.state(&Params::new(), 0).unwrap(), &Call { steps: 5, ..ONCE }).unwrap();
        step.take_totals().unwrap()
    };
    let fused: Vec<Isa> = Isa::available().into_iter().filter(|isa| *isa != Isa::Portable).collect();
    for pair in fused.windows(2) {
        assert_eq!(found(pair[0]), found(pair[1]), "{} and {}", pair[0], pair[1]);
    }
}
