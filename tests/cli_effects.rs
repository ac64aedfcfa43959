//! Options that would change nothing are refused, with the option that takes their effect away and the remedy.

#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

const TINY: &str = "train --train-size 100 --test-size 20 --hidden 8 --latent 2 --batch 50 --device cpu --quiet";

fn elbo(at: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_elbo")).current_dir(at).args(arguments).output().unwrap()
}

#[track_caller]
fn fails(at: &Path, arguments: &[&str], words: &[&str]) {
    let output = elbo(at, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "elbo {arguments:?}: {errors}");
    words.iter().for_each(|word| assert!(errors.contains(word), "elbo {arguments:?} says\n{errors}\nwithout {word}"));
}

fn split(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn options_of_a_training_without_effect_are_refused() {
    let at = tempfile::tempdir().unwrap();
    let wrong: [(&str, &[&str]); 14] = [
        ("--momentum 0.5", &["--momentum", "--optimizer is adam", "--optimizer sgd"]),
        ("--optimizer sgd --beta1 0.8", &["--beta1", "--optimizer is sgd", "--optimizer adam"]),
        ("--optimizer sgd --beta2 0.8", &["--beta2", "--optimizer is sgd", "no --beta2"]),
        ("--optimizer sgd --eps 1e-4", &["--eps", "--optimizer is sgd"]),
        ("--optimizer sgd --second-moment 0", &["--second-moment", "--optimizer is sgd"]),
        ("--sigma-floor 0.1", &["--sigma-floor", "--likelihood bernoulli", "--likelihood gaussian"]),
        ("--likelihood continuous-bernoulli --sigma-floor 0.1", &["--sigma-floor", "continuous-bernoulli"]),
        ("--bound iwae", &["--bound", "--samples 1", "--samples 5"]),
        ("--bound iwae --samples 1", &["--bound", "--samples"]),
        ("--recipe iwae-1l-iwae-k5 --epochs 1 --samples 1", &["--samples", "--bound iwae"]),
        ("--epochs 3 --kl-warmup 4", &["--kl-warmup", "longer than the run", "--epochs"]),
        ("--kl-warmup 10.5", &["--kl-warmup", "--epochs is 10"]),
        ("--beta 0 --kl-warmup 1", &["--kl-warmup", "--beta is 0"]),
        ("--epochs 3 --lr-schedule steps:2=1e-4,3=1e-5", &["--lr-schedule", "after epoch 3", "--epochs"]),
    ];
    for (more, words) in wrong {
        fails(at.path(), &[split(TINY), split(more)].concat(), words);
        if !more.contains("epochs") && !more.contains("warmup") {
            fails(at.path(), &[split("plan"), split(more)].concat(), words);
        }
    }
    fails(
        at.path(),
        &split("richness --latents 2 --train-size 50 --test-size 9 --momentum 0.5 --device cpu"),
        &["--momentum"],
    );
    assert!(std::fs::read_dir(at.path()).unwrap().next().is_none(), "a refused run leaves nothing behind");
    // With an effect they are taken, and so is a recipe's setting that another option has made idle.
    for more in [
        "--optimizer sgd --momentum 0.5 --lr 1e-5",
        "--epochs 2 --kl-warmup 2",
        "--likelihood gaussian --sigma-floor 0.2",
        "--bound iwae --samples 2",
        "--recipe iwae-1l-iwae-k5 --second-moment 0 --optimizer adam",
    ] {
        let epochs = if more.contains("--epochs") { "" } else { "--epochs 1" };
        let output = elbo(at.path(), &[split(TINY), split(more), split(epochs)].concat());
        assert!(output.status.success(), "{more}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn options_of_an_answer_without_effect_are_refused() {
    let at = tempfile::tempdir().unwrap();
    let trained = elbo(at.path(), &[split(TINY), split("--epochs 1 --out run")].concat());
    assert!(trained.status.success());
    let eval = |more: &'static str| [split("eval run --device cpu"), split(more)].concat();
    let resume = |more: &'static str| [split("train --resume run --device cpu"), split(more)].concat();
    fails(at.path(), &resume("--lr-schedule cosine"), &["--lr-schedule", "finished", "--epochs 2"]);
    fails(at.path(), &resume("--data elsewhere"), &["--data", "finished"]);
    fails(at.path(), &resume("--epochs 3 --lr-schedule steps:3=1e-5"), &["--lr-schedule", "after epoch 3"]);
    let reproduce = "reproduce --recipe pytorch-example --nll-samples 0 --nll-images 7 --device cpu";
    fails(at.path(), &split(reproduce), &["--nll-images", "--nll-samples"]);
    fails(at.path(), &eval("--samples 10"), &["--samples", "--estimators"]);
    fails(at.path(), &eval("--estimators elbo --samples 10"), &["--samples", "iwae"]);
    fails(at.path(), &eval("--estimators elbo --chains 4"), &["--chains", "ais", "--bdmc"]);
    fails(at.path(), &eval("--estimators iwae --samples 5 --temperatures 4"), &["--temperatures", "ais"]);
    fails(at.path(), &eval("--images 10"), &["--images", "--estimators"]);
    fails(at.path(), &eval("--bdmc 2 --samples 10"), &["--samples"]);
}

#[cfg(feature = "cuda")]
#[test]
fn options_about_launches_want_a_gpu_to_be_asked_for() {
    let at = tempfile::tempdir().unwrap();
    for line in ["plan --draw x.svg", "plan --device cpu --draw x.svg", "plan --capability 9.0"] {
        let option = if line.contains("--draw") { "--draw" } else { "--capability" };
        fails(at.path(), &split(line), &[option, "--device cuda"]);
    }
    fails(at.path(), &split("plan --device cuda --capability 6.0"), &["6.0", "at least 7.5"]);
    fails(at.path(), &split("plan --device cuda --draw x.png"), &["svg", "png"]);
    assert!(std::fs::read_dir(at.path()).unwrap().next().is_none(), "nothing is written");
    let output = elbo(at.path(), &split("plan --device cuda --capability 9.0 --batch 16 --hidden 30 --draw x.svg"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let drawn = std::fs::read_to_string(at.path().join("x.svg")).unwrap();
    let launches = drawn.matches("<title>").count();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(launches > 5 && said.contains(&format!("{launches} launches for")), "{launches} bars\n{said}");
}
