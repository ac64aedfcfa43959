//! Replicas and sweeps: many runs at once with the bytes that each has alone, mean and spread over seeds, stopped and taken up.

#![cfg(feature = "cli")]

#[path = "common/command.rs"]
mod command;

use std::fs;
use std::path::Path;

use command::{elbo, fails, json};
use elbo::train::checkpoint::Checkpoint;
use serde_json::Value;

const TINY: &str = "--train-size 200 --test-size 50 --hidden 10 --latent 2 --batch 50 --epochs 2 --device cpu --quiet";

/// Files of a run that have the same bytes whoever trains it, and wherever.
const BYTES: [&str; 8] = [
    "checkpoint.safetensors",
    "config.json",
    "metrics.jsonl",
    "steps.jsonl",
    "samples.png",
    "reconstructions.png",
    "manifold.png",
    "scatter.png",
];

#[track_caller]
fn same_run(a: &Path, b: &Path) {
    for name in BYTES {
        let read = |run: &Path| fs::read(run.join(name)).unwrap_or_else(|e| panic!("{}/{name}: {e}", run.display()));
        assert!(read(a) == read(b), "{name} of {} and {} differ", a.display(), b.display());
    }
}

#[test]
fn replicas_have_the_bytes_of_runs_alone_however_many_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let found = json(at, &format!("train {TINY} --seed 5 --replicas 3 --jobs 3 --threads 2 -o three"));
    json(at, &format!("train {TINY} --seed 5 --replicas 3 --jobs 1 -o one-by-one"));
    for seed in 5..8 {
        json(at, &format!("train {TINY} --seed {seed} -o alone{seed}"));
        let name = format!("seed{seed}");
        same_run(&at.join("three").join(&name), &at.join(format!("alone{seed}")));
        same_run(&at.join("three").join(&name), &at.join("one-by-one").join(&name));
    }
    // The spread is that of the runs' own journals.
    let group = &found["combinations"][0];
    let runs = group["runs"].as_array().unwrap();
    let nats: Vec<f64> = runs.iter().map(|run| run["test_neg_elbo"].as_f64().unwrap()).collect();
    assert_eq!((nats.len(), &found["outcome"]), (3, &Value::from("finished")));
    let mean = nats.iter().sum::<f64>() / 3.0;
    let sd = (nats.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let near = |value: &Value, wanted: f64| (value.as_f64().unwrap() - wanted).abs() < 1e-9 * wanted;
    let spread = &group["test_neg_elbo"];
    assert!(near(&spread["mean"], mean) && near(&spread["sd"], sd) && sd > 0.0, "{spread} against {mean} ± {sd}");
    // On a page they stand together.
    json(at, "report three --device cpu -o page.html");
    let page = fs::read_to_string(at.join("page.html")).unwrap();
    for part in ["Over seeds", &format!("{mean:.2} ± {sd:.2}"), "seed5", "seed7"] {
        assert!(page.contains(part), "the page lacks {part}");
    }
}

#[test]
fn a_sweep_trains_every_combination_and_one_that_was_stopped_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let typed = TINY.replace("--latent 2", "");
    let sweep = format!("sweep {typed} --vary latent=2,3 --vary learning-rate=1e-3,3e-3 --replicas 2");
    let whole = json(at, &format!("{sweep} -o whole"));
    let combinations = whole["combinations"].as_array().unwrap();
    let values: Vec<_> =
        combinations.iter().map(|c| (c["varied"]["latent"].as_str(), c["varied"]["lr"].as_str())).collect();
    let wanted = [("2", "1e-3"), ("2", "3e-3"), ("3", "1e-3"), ("3", "3e-3")];
    assert_eq!(values, wanted.map(|(a, b)| (Some(a), Some(b))));
    assert!(combinations.iter().all(|c| c["test_neg_elbo"]["n"] == 2));
    let config = Checkpoint::load(&at.join("whole/latent3-lr3e-3-seed2/checkpoint.safetensors")).unwrap().config;
    assert_eq!((config.model.latent, config.lr.at(0), config.seed), (3, 3e-3, 2));
    // The sweep's runs are the runs of its options.
    json(at, &format!("train {TINY} --lr 3e-3 --seed 2 -o alone"));
    same_run(&at.join("alone"), &at.join("whole/latent2-lr3e-3-seed2"));

    let stopped = json(at, &format!("{sweep} --pause-at 3 -o parts"));
    assert_eq!(stopped["outcome"], "stopped");
    assert!(stopped["combinations"][0]["test_neg_elbo"].is_null(), "nothing is finished");
    // One is lost, one is finished by itself: both are as the sweep's own.
    fs::remove_dir_all(at.join("parts/latent2-lr1e-3-seed1")).unwrap();
    json(at, "train --resume parts/latent3-lr1e-3-seed1 --device cpu --quiet");
    let resumed = json(at, "sweep --resume parts --device cpu --quiet");
    assert_eq!((&resumed["outcome"], &resumed["combinations"]), (&"finished".into(), &whole["combinations"]));
    let names = |sweep: &str| {
        let mut names: Vec<_> = fs::read_dir(at.join(sweep)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("whole"), names("parts"));
    for name in names("whole").iter().filter(|name| *name != "sweep.json") {
        // Within an epoch that was stopped in, the intervals are other ones.
        for file in BYTES.iter().filter(|file| **file != "steps.jsonl") {
            let read = |sweep: &str| fs::read(at.join(sweep).join(name).join(file)).unwrap_or_default();
            assert!(read("whole") == read("parts"), "{file} of {}", name.display());
        }
    }
    let again = json(at, "sweep --resume whole --device cpu --quiet");
    assert_eq!(again["combinations"], whole["combinations"], "nothing is trained twice");
}

#[test]
fn a_run_that_fails_ends_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let output = elbo(at, &format!("sweep {TINY} --vary lr=1e-3,1e30 --jobs 1 -o s --json"));
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = |i: usize| &found["combinations"][i]["runs"][0];
    assert_eq!(found["outcome"], "failed");
    assert!(run(0)["error"].is_null() && run(0)["test_neg_elbo"].is_f64(), "{found}");
    assert!(
        run(1)["error"].as_str().unwrap().contains("learning rate") && run(1)["test_neg_elbo"].is_null(),
        "{found}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("lr1e30-seed1 failed"));
    // A run in its place that the sweep did not make is not trained on.
    fs::remove_dir_all(at.join("s/lr1e-3-seed1")).unwrap();
    json(at, &format!("train {TINY} --lr 2e-3 -o s/lr1e-3-seed1"));
    let output = elbo(at, "sweep --resume s --device cpu --quiet");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && errors.contains("as the sweep says"), "{errors}");
}

#[test]
fn what_cannot_be_meant_is_refused_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let sweep = format!("sweep {TINY} -o s");
    for (options, words) in [
        ("", &["--vary"][..]),
        ("--vary lr", &["as in lr=1e-3"]),
        ("--vary lr=1", &["two values"]),
        ("--vary rate=1,2", &["\"rate\" is no option"]),
        ("--vary lr=1e-3,x", &["vary", "'x'"]),
        ("--vary latent=2,3", &["latent, which --latent sets"]),
        ("--vary epochs=2,3", &["epochs, which --epochs sets"]),
        ("--vary lr=1e-3,2e-3 --vary learning-rate=1,2", &["lr twice"]),
        ("--vary seed=1,2 --replicas 2", &["replicas"]),
        ("--vary momentum=0.5,0.9", &["momentum", "sgd"]),
        ("--vary lr=1e-3,1.0e-3", &["would be the same run"]),
        ("--replicas 0", &["replicas", "at least 1"]),
        ("--replicas 2 --jobs 0", &["jobs"]),
    ] {
        fails(at, &format!("{sweep} {options}"), 2, words);
        assert!(!at.join("s").exists(), "{options}");
    }
    json(at, &format!("{sweep} --replicas 2 --pause-at 1"));
    fails(at, &format!("{sweep} --replicas 2"), 1, &["--out FOLDER, --resume FOLDER"]);
    fails(at, "eval s", 2, &["s, a sweep", "s/seed1"]);
    fails(at, "train --resume s", 2, &["elbo sweep --resume s"]);
    fails(at, "sweep --resume s --lr 1", 2, &["--lr"]);
    fs::write(at.join("s/sweep.json"), "[]").unwrap();
    fails(at, "sweep --resume s", 1, &["sweep.json", "begin the sweep anew"]);
}
