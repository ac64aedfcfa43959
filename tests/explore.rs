//! `elbo explore`: what its page computes, run by node.

use std::path::Path;
use std::process::{Command, Output};

use elbo::Device;
use elbo::train::Run;
use serde_json::Value;

fn elbo(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_elbo")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(arguments: &[&str], folder: &Path) -> String {
    let ran = elbo(arguments, folder);
    assert!(ran.status.success(), "elbo {}: {}", arguments.join(" "), text(&ran.stderr));
    text(&ran.stdout)
}

/// A small run of a likelihood in the folder, named after it.
fn train(likelihood: &str, folder: &Path) {
    let small = "--device cpu --latent 2 --hidden 24 --epochs 1 --train-size 300 --test-size 40 --quiet --out";
    let arguments: Vec<&str> = ["train", "--likelihood", likelihood].into_iter().chain(small.split(' ')).collect();
    succeeds(&[&arguments[..], &[likelihood]].concat(), folder);
}

/// Whether the program has the engine for pages and there is a node to run it; says why not, unless it is required.
fn can_run(folder: &Path) -> bool {
    let info = succeeds(&["info"], folder);
    let row = info.lines().find(|line| line.starts_with("pages")).expect("a row of elbo info");
    let node = Command::new("node").arg("--version").output().is_ok_and(|ran| ran.status.success());
    let why = if row.contains("none") { Some(row) } else { (!node).then_some("there is no node") };
    if let Some(why) = why {
        assert!(std::env::var("ELBO_REQUIRE_WASM").as_deref() != Ok("1"), "{why}");
        println!("skipped: {why}");
    }
    why.is_none()
}

/// What tests/pages/engine.mjs finds in the page of a run.
fn found(run: &str, folder: &Path, updates: u32) -> Value {
    let page = folder.join(run).with_extension("html");
    let said = succeeds(&["explore", run, "-o", page.to_str().unwrap()], folder);
    assert!(said.contains(".html") && said.contains("MB"), "{said}");
    assert!(std::fs::metadata(&page).unwrap().len() < 3_000_000);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages/engine.mjs");
    let ran = Command::new("node").arg(script).arg(&page).arg(updates.to_string()).output().unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    println!("{run}: {found}");
    found
}

/// Test −ELBO of a run, as after its epochs.
fn evaluated(run: &Path) -> f64 {
    let checkpoint = Run::read(run).unwrap();
    let mut model = checkpoint.model(Device::Cpu { threads: 1 }).unwrap();
    checkpoint.config.data.load().unwrap().test.load_into(&mut model, "test").unwrap();
    model.evaluate("test", checkpoint.config.seed).unwrap().neg_elbo()
}

#[test]
fn a_page_computes_what_the_program_computes() {
    let folder = tempfile::tempdir().unwrap();
    if !can_run(folder.path()) {
        return;
    }
    for likelihood in ["bernoulli", "gaussian", "gaussian-shared", "continuous-bernoulli", "discretised-logistic"] {
        train(likelihood, folder.path());
        let found = found(likelihood, folder.path(), 30);
        assert_eq!(found["simd"], true);
        for (what, ulps) in found["ulps"].as_object().unwrap() {
            assert!(ulps.as_u64().unwrap() == 0, "{likelihood}: {what} is {ulps} floats away");
        }
        assert!(found["bound"].as_f64().unwrap() < 1e-9 && found["losses"].as_f64().unwrap() < 1e-9, "{found}");
        let refusals = &found["refusals"];
        for (what, word) in
            [("bundle", "ELBOPAGE"), ("points", "multiple of 2"), ("training", "hidden"), ("option", "depth")]
        {
            assert!(refusals[what].as_str().unwrap().contains(word), "{refusals}");
        }
        assert_eq!(found["throws"], true);
        assert!(found["labels"][0].is_u64() && found["labels"][1].is_null(), "{found}");
    }
}

#[test]
fn a_training_in_a_page_ends_where_that_of_the_program_ends() {
    let folder = tempfile::tempdir().unwrap();
    if !can_run(folder.path()) {
        return;
    }
    train("bernoulli", folder.path());
    let found = found("bernoulli", folder.path(), 300);
    // The command that the page names, with this machine's widest kernels.
    let command = found["command"].as_str().unwrap();
    let arguments: Vec<&str> = command.split(' ').skip(1).chain(["--device", "cpu", "--out", "same"]).collect();
    succeeds(&arguments, folder.path());
    let native = evaluated(&folder.path().join("same"));
    let page = found["evaluation"]["negElbo"].as_f64().unwrap();
    println!("test −ELBO after 300 updates: {page} in the page, {native} in the program");
    assert!((page - native).abs() < 1.0, "{page} and {native}");
}

#[test]
fn without_the_engine_it_is_said_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let info = succeeds(&["info"], folder.path());
    if info.lines().any(|line| line.starts_with("pages") && line.contains("none")) {
        let ran = elbo(&["explore", "nowhere"], folder.path());
        let said = text(&ran.stderr);
        assert!(!ran.status.success() && said.contains("rustup target add wasm32-unknown-unknown"), "{said}");
    }
}
