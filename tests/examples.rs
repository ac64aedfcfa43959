//! The examples, each by the same code on the reference in f64, on the CPU and on CUDA.

mod common;

use std::process::Command;

use elbo::engine::device::Precision;
use elbo::{Cpu, Executor, Graph, Key, Params};

#[allow(dead_code)]
#[path = "../examples/classifier.rs"]
mod classifier;
#[allow(dead_code)]
#[path = "../examples/logistic.rs"]
mod logistic;
#[allow(dead_code)]
#[path = "../examples/newton.rs"]
mod newton;
#[allow(dead_code)]
#[path = "../examples/own_decoder.rs"]
mod own_decoder;
#[allow(dead_code)]
#[path = "../examples/own_operation.rs"]
mod own_operation;

/// The reference first.
fn executors() -> impl Iterator<Item = Executor> {
    let cpu = Executor::new(Cpu::new(2));
    [Executor::reference(), cpu].into_iter().chain(common::on_cuda(Precision::F32))
}

/// The numbers of every executor, which must agree to `tolerance` with those of the reference: these are returned.
fn all_agree(tolerance: f32, run: impl Fn(&Executor) -> elbo::Result<Vec<f32>>) -> Vec<f32> {
    let found: Vec<(String, Vec<f32>)> = executors().map(|on| (on.describe(), run(&on).unwrap())).collect();
    let reference = found[0].1.clone();
    for (on, values) in found {
        assert_eq!(values.len(), reference.len(), "{on}");
        let off = values.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= tolerance, "{on}: {values:?} is {off} off {reference:?}");
    }
    reference
}

#[test]
fn logistic_regression_finds_what_the_labels_were_drawn_with() {
    let found = all_agree(1e-3, |on| logistic::run(on).map(Vec::from));
    assert!(found.iter().zip(logistic::TRUTH).all(|(f, t)| (f - t).abs() < 0.3), "{found:?}");
}

#[test]
fn an_operation_of_one_s_own_runs_everywhere() {
    assert_eq!(all_agree(0.0, own_operation::run), [-0.75, 0.5, 0.75]);
}

#[test]
fn newton_s_method_converges_in_a_few_steps() {
    for on in executors() {
        let norms = newton::run(&on).unwrap();
        assert!(norms[0] > 1.0 && norms[5] < 1e-5 * norms[0], "{}: {norms:?}", on.describe());
    }
}

#[test]
fn a_decoder_of_one_s_own_learns_and_draws() {
    let found =
        all_agree(0.05, |on| own_decoder::run(on).map(|(losses, new)| [vec![losses[0], losses[29]], new].concat()));
    let [first, last, new @ ..] = &found[..] else { panic!("two losses and the waves") };
    assert!(*first > 15.0 && *last < 0.0, "−ELBO {first} at first and {last} in the end");
    assert!(new.len() == 64 && new.iter().all(|v| v.abs() < 1.5), "{new:?}");
}

#[test]
fn a_classifier_reads_digits_after_it_was_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("classifier.safetensors");
    let found = all_agree(0.01, |on| classifier::run(on, &path).map(|share| vec![share]));
    assert!(found[0] > 0.75, "{} of the digits", found[0]);

    // The file in PyTorch, if there is one, and here: the scores of one image.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/classifier_in_torch.py");
    let Ok(output) = Command::new("python3").arg(script).arg(&path).output() else {
        return common::say("skipped: no python3");
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("ModuleNotFoundError") {
        return common::say("skipped: no PyTorch");
    }
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let scores: Vec<f32> = text.split_whitespace().map(|score| score.parse().unwrap()).collect();

    let mut params = Params::new();
    let (up, down) = (params.linear("up", 784, 32), params.linear("down", 32, 10));
    let reference = Executor::reference();
    let mut state = reference.state(&params, 0).unwrap();
    state.restore(&path).unwrap();
    let g = Graph::new();
    let grey: Vec<f64> = (0..784).map(|i| f64::from(i) / 783.0).collect();
    let y = down.apply(up.apply(g.tensor(&[1, 784], &grey)).relu());
    let [expected] = reference.compile(&g, [y]).unwrap().call(&mut state, Key::new(0), &[]).unwrap();
    assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3), "{scores:?}, expected {expected:?}");
    assert_eq!(scores.len(), 10);
}
