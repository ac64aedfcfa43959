//! The loss of a classifier, −log softmax(logits)[label]: its gradient has a closed form, and labels are looked up by kernels.

use elbo::engine::device::Precision;
use elbo::engine::device::cpu::Cpu;
use elbo::{Executor, Fusion, Graph, Interp, Key, Params, Plan, Var, grad};

mod common;

const ROWS: usize = 4;
const CLASSES: usize = 3;
const LABELS: [f64; ROWS] = [2.0, 0.0, 1.0, 1.0];

fn loss<'g>(g: &'g Graph, logits: Var<'g>) -> Var<'g> {
    -logits.log_softmax(1).pick(g.tensor(&[ROWS, 1], &LABELS)).mean_all()
}

/// ∂loss/∂logits = (softmax − [class = label]) / rows, where a class may be impossible.
#[test]
fn the_gradient_is_the_softmax_less_the_label() {
    let g = Graph::new();
    let low = f64::NEG_INFINITY;
    let logits = g.tensor(&[ROWS, CLASSES], &[0.3, -0.2, 0.1, 4.0, low, -3.0, 700.0, 701.0, 0.0, -1e4, 0.0, 1e4]);
    let loss = loss(&g, logits);
    let (slope, p) = (grad(loss, &[logits])[0], logits.softmax(1));
    let mut run = Interp::<f64>::new(&g);
    for (i, (slope, p)) in run.eval(slope).into_iter().zip(run.eval(p)).enumerate() {
        let hit = f64::from(u8::from(i % CLASSES == LABELS[i / CLASSES] as usize));
        assert!((slope - (p - hit) / ROWS as f64).abs() < 1e-15, "{slope} at {i}, where p is {p}");
    }
    assert!((run.eval(loss)[0] - 1e4 / ROWS as f64).abs() < 1.0, "the last label is very unlikely, not impossible");
}

#[test]
fn the_rows_and_the_labels_have_kernels_of_their_own() {
    let g = Graph::new();
    let logits = g.param("logits", &[ROWS, CLASSES]);
    let loss = loss(&g, logits);
    let plan = Plan::build(&g, &[loss, grad(loss, &[logits])[0]], Fusion::all()).unwrap();
    let kernels: Vec<&str> = plan.steps().iter().map(|step| step.name()).collect();
    for kernel in ["log_softmax", "pick", "place", "log_softmax_grad"] {
        assert_eq!(kernels.iter().filter(|name| **name == kernel).count(), 1, "{plan}");
    }
}

#[test]
#[should_panic(expected = "pick needs an index for each row of a value")]
fn as_many_labels_as_rows() {
    let g = Graph::new();
    g.tensor(&[2, 3], &[0.0; 6]).pick(g.tensor(&[3], &[0.0; 3]));
}

/// Ties, impossible classes, a row without any, and a row that is broken, on every executor.
#[test]
fn the_largest_score_is_found_everywhere() {
    let (low, nan) = (f32::NEG_INFINITY, f32::NAN);
    let scores = [1.0, 4.0, 4.0, low, -1.0, -2.0, low, low, low, 0.0, nan, 1.0];
    let host = [Executor::reference(), Executor::new(Cpu::new(2))];
    for executor in host.into_iter().chain(common::on_cuda(Precision::F32)) {
        let g = Graph::new();
        let x = g.input(&[4, 3]);
        let mut f = executor.compile(&g, [x.argmax(1), x.slice_cols(0, 1).argmax(0)]).unwrap();
        let mut state = executor.state(&Params::new(), 0).unwrap();
        let [rows, first] = f.call(&mut state, Key::new(0), &[&scores]).unwrap();
        assert_eq!(rows, [1.0, 1.0, 0.0, f32::INFINITY], "{}", executor.describe());
        assert_eq!(first, [0.0], "{}", executor.describe());
    }
}
