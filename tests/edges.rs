//! What used to go wrong in silence at the edges of the engine: values of two graphs, axes named twice, data for slots
//! that nobody reads, runs longer than can be counted, empty axes, rows of infinities. The interpreter and every executor
//! must say the same.

use std::panic::{AssertUnwindSafe, catch_unwind};

use elbo::engine::device::Precision;
use elbo::engine::isa::Isa;
use elbo::{Cpu, Exec, Fusion, Graph, Interp, Optimizer, Plan, Var, grad, grad_with};

mod common;

/// The message of the panic that `f` must end in.
fn panics<R>(what: &str, f: impl FnOnce() -> R) -> String {
    let Err(cause) = catch_unwind(AssertUnwindSafe(f)) else { panic!("{what}: no panic") };
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
    let scalar = h.tensor(&[], &[0.0]);
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
        panics("metric", || g.metric("m", scalar)),
        panics("optimize", || g.optimize(Optimizer::adam(), &[(b, b)])),
        panics("eval", || Interp::<f64>::new(&g).eval(b)),
    ];
    for message in messages {
        assert_eq!(message.matches("tests/edges.rs:").count(), 2, "both places in: {message}");
    }
    let message = panics("add", || a + b);
    assert!(message.contains(&format!("edges.rs:{made}:")), "{message}");
    assert!(g.effects().stores.is_empty() && g.effects().metrics.is_empty());
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

/// The CPU, and a GPU or its emulation if there is one.
fn executors() -> Vec<Box<dyn Exec>> {
    let mut all: Vec<Box<dyn Exec>> = vec![Box::new(Cpu::new(1)), Box::new(Cpu::with_isa(2, Isa::Portable))];
    all.extend(common::cuda(Precision::F32).map(|gpu| Box::new(gpu) as Box<dyn Exec>));
    all
}

#[test]
fn data_for_a_slot_that_nobody_reads_is_an_error() {
    let g = Graph::new();
    g.store("seen", g.batch("train", 1, 3));
    g.batch("test", 1, 3);
    let mut run = Interp::<f32>::new(&g);
    let error = run.set_data("tain", &[0; 6], 3).unwrap_err().to_string();
    assert!(error.contains("tain") && error.contains("train, test"), "{error}");
    assert!(run.set_data("train", &[0; 7], 3).unwrap_err().to_string().contains("7 bytes"));
    assert!(run.set_data("train", &[0; 8], 4).unwrap_err().to_string().contains("rows of 4 bytes"));
    run.set_data("train", &[0; 6], 3).unwrap();
    for mut exec in executors() {
        assert!(exec.set_data("train", &[0; 6], 3).is_err(), "nothing is bound yet");
        let step = exec.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
        let error = exec.set_data("tain", &[0; 6], 3).unwrap_err().to_string();
        assert!(error.contains("tain") && error.contains("known are test, train"), "{error}");
        exec.set_data("train", &[255; 6], 3).unwrap();
        exec.run(step, 2).unwrap();
        assert_eq!(exec.read("seen").unwrap(), [1.0; 3]);
    }
}

/// 2⁶² steps of four rows end at row 2⁶⁴, which is not row 0.
#[test]
fn more_steps_than_rows_can_be_counted_are_an_error() {
    let g = Graph::new();
    g.store("seen", g.batch("train", 4, 3));
    for mut exec in executors() {
        let step = exec.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
        exec.set_data("train", &[0; 12], 3).unwrap();
        for times in [2, 1 << 60, 1 << 62, usize::MAX] {
            let error = exec.run(step, times).unwrap_err().to_string();
            assert!(error.contains("the data has 4 rows"), "{error}");
        }
        exec.run(step, 1).unwrap();
    }
    let g = Graph::new();
    g.store("state", g.state("state", &[1]) + 1.0);
    let mut cpu = Cpu::new(1);
    let step = cpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
    assert!(cpu.run(step, usize::MAX).unwrap_err().to_string().contains("times"));
    assert_eq!(cpu.read("state").unwrap(), [0.0]);
}

/// The value of a store of the interpreter, and of every executor with and without fusion.
fn everywhere(what: &str, build: impl for<'g> Fn(&'g Graph) -> Var<'g>) -> Vec<f32> {
    let g = Graph::new();
    let y = build(&g);
    g.store("y", y);
    let truth = Interp::<f32>::new(&g).eval(y);
    for fusion in [Fusion::all(), Fusion::none()] {
        for mut exec in executors() {
            let on = exec.describe();
            let plan = Plan::build(&g, fusion).unwrap_or_else(|e| panic!("{what}: {e}"));
            let bound = exec.bind(&plan).unwrap_or_else(|e| panic!("{what} on {on}: {e}"));
            exec.run(bound, 1).unwrap_or_else(|e| panic!("{what} on {on}: {e}"));
            let found = exec.read("y").unwrap();
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
            assert_eq!(bits(&found), bits(&truth), "{what} on {on}: {found:?}, not {truth:?}");
        }
    }
    truth
}

#[test]
fn empty_axes_and_products() {
    let minus = f32::NEG_INFINITY;
    assert_eq!(everywhere("max over an empty axis", |g| g.state("x", &[2, 0]).max(&[1])), [minus; 2]);
    assert_eq!(everywhere("max over empty rows", |g| g.state("x", &[0, 3]).max(&[0])), [minus; 3]);
    assert_eq!(everywhere("max over all of nothing", |g| g.state("x", &[0, 3]).max(&[0, 1])), [minus]);
    assert_eq!(everywhere("sum over an empty axis", |g| g.state("x", &[2, 0]).sum(&[1])), [0.0; 2]);
    assert_eq!(everywhere("sum over empty rows", |g| g.state("x", &[0, 3]).sum(&[0])), [0.0; 3]);
    assert_eq!(everywhere("sum of nothing", |g| g.state("x", &[0, 3]).exp().sum_all()), [0.0]);
    assert_eq!(everywhere("sum of a slot of nothing", |g| g.state("x", &[0]).sum_all()), [0.0]);
    let product = |m: usize, k: usize, n: usize| {
        everywhere(&format!("{m} × {k} × {n}"), move |g| g.state("a", &[m, k]).matmul(g.state("b", &[k, n])))
    };
    assert_eq!(product(2, 0, 3), [0.0; 6]);
    assert_eq!(product(0, 4, 3), [0.0; 0]);
    assert_eq!(product(2, 4, 0), [0.0; 0]);
    let with_bias = |m: usize, k: usize, n: usize| {
        everywhere(&format!("{m} × {k} × {n} with a bias"), move |g| {
            (g.state("a", &[m, k]).matmul(g.state("b", &[k, n])) + g.full(&[n], 2.0)).relu()
        })
    };
    assert_eq!(with_bias(2, 0, 3), [2.0; 6]);
    assert_eq!(with_bias(0, 4, 3), [0.0; 0]);
    let transposed =
        everywhere("a transposed product", |g| g.state("a", &[0, 2]).matmul_t(true, g.state("b", &[3, 0]), true));
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
fn metrics_have_the_same_bits_on_every_instruction_set_with_fma() {
    let g = Graph::new();
    let (a, b) = (g.normal(&[37, 20], 1000), g.normal(&[20, 93], 1001));
    let l = a.matmul(b) + g.normal(&[93], 1002);
    g.metric("loss", (l.softplus() - l * 0.25).sum_all());
    g.metric("wide", g.normal(&[50, 93], 1003).exp().sum_all());
    let plan = Plan::build(&g, Fusion::all()).unwrap();
    let sums = |isa: Isa| {
        let mut cpu = Cpu::with_isa(2, isa);
        let bound = cpu.bind(&plan).unwrap();
        cpu.run(bound, 5).unwrap();
        cpu.take_metrics(bound).unwrap()
    };
    let fused: Vec<Isa> = Isa::available().into_iter().filter(|isa| *isa != Isa::Portable).collect();
    for pair in fused.windows(2) {
        assert_eq!(sums(pair[0]), sums(pair[1]), "{} and {}", pair[0], pair[1]);
    }
}
