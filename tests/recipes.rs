//! `elbo recipes`, `elbo train --recipe`, `elbo reproduce` and `elbo implied-sigma`, run as their users run them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use elbo::train::checkpoint::Checkpoint;
use elbo::train::{TRAIN, TrainConfig, Trainer};
use elbo::vae::{BoundKind, StochasticLayer, VaeConfig};
use elbo::{Device, Optimizer};

fn elbo(at: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_elbo")).current_dir(at).args(arguments).output().unwrap()
}

fn succeeds(at: &Path, arguments: &str) -> String {
    let output = elbo(at, &arguments.split_whitespace().collect::<Vec<_>>());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "elbo {arguments}: {:?}\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    words.iter().for_each(|word| assert!(errors.contains(word), "{errors}\ndoes not say {word}"));
    assert!(!errors.contains("panicked"), "{errors}");
}

fn fails(at: &Path, arguments: &str, code: i32, words: &[&str]) {
    refused(&elbo(at, &arguments.split_whitespace().collect::<Vec<_>>()), code, words);
}

/// Few images, and an estimate with few samples.
const SMALL: &str = "--train-size 200 --test-size 40 --nll-samples 30 --nll-images 10 --quiet --device cpu";

/// A recipe of two stages that takes a moment, with two layers so that both are counted.
const TWO_LAYERS: &str = r#"
base = "iwae-2l-iwae-k5"
title = "a small one"
[config.model]
encoder = [12]
decoder = [12]
latent = 6
upper = [{ encoder = [8], latent = 3, decoder = [8] }]
[schedule]
stages = [{ epochs = 1, lr = 1e-3 }, { epochs = 2, lr = 5e-4 }]
"#;

#[test]
fn the_recipes_are_listed() {
    let at = tempfile::tempdir().unwrap();
    let text = succeeds(at.path(), "recipes");
    assert_eq!(text.lines().count(), 16, "fifteen recipes and a line on how to run them:\n{text}");
    for part in
        ["iwae-1l-vae-k1 ", "86.76", "iwae-2l-iwae-k50 ", "82.90", "pytorch-example", "kingma-welling", "reproduce"]
    {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
}

#[test]
fn a_recipe_is_a_start_for_a_training() {
    let at = tempfile::tempdir().unwrap();
    let options = "--epochs 1 --train-size 100 --test-size 20 --hidden 10 --quiet --device cpu";
    succeeds(at.path(), &format!("train --recipe iwae-1l-iwae-k5 {options} --out run"));
    let config = Checkpoint::load(&at.path().join("run/checkpoint.safetensors")).unwrap().config;
    assert_eq!((&config.model.encoder[..], config.model.latent, config.epochs, config.batch), (&[10][..], 50, 1, 20));
    assert_eq!((config.objective.bound.kind, config.objective.bound.samples), (BoundKind::Iwae, 5));
    assert_eq!(config.objective.optimizer, Optimizer::Adam { beta1: 0.99, beta2: 0.999, eps: 5e-6 });
    assert!(!config.shuffle && config.second_moment == 0.0025 && config.train_images.is_none());
    succeeds(at.path(), &format!("train --recipe iwae-1l-iwae-k5 --protocol paper {options} --out paper"));
    let config = Checkpoint::load(&at.path().join("paper/checkpoint.safetensors")).unwrap().config;
    assert_eq!(config.objective.optimizer, Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-4 });

    fails(at.path(), "train --recipe iwae", 1, &["recipes/iwae.toml", "template"]);
    fails(at.path(), "train --recipe other", 2, &["recipe", "other", "iwae-1l-vae-k1"]);
    fails(at.path(), "train --recipe iwae-1l-vae-k1 --stages 9", 2, &["stages", "from 1 to 8"]);
    fails(at.path(), "train --recipe iwae-1l-vae-k1 --stages 1 --epochs 2", 2, &["stages", "epochs"]);
    fails(at.path(), "train --recipe pytorch-example --protocol code", 2, &["protocol", "code"]);
    fails(at.path(), "train --stages 1", 2, &["--recipe"]);
    fails(at.path(), "train --resume run --recipe iwae-1l-vae-k1", 2, &["--resume", "--recipe"]);
    fs::write(at.path().join("bad.toml"), "base = \"pytorch-example\"\n[config.model]\nactivation = \"rellu\"\n")
        .unwrap();
    fails(at.path(), "train --recipe bad.toml", 1, &["bad.toml: config", "rellu", "activation"]);
    // The file that is named is the one that was asked for, or that is wrong.
    fs::write(at.path().join("child.toml"), "base = \"bad\"\n").unwrap();
    fails(at.path(), "train --recipe child.toml", 1, &["bad.toml: config", "rellu"]);
    fs::write(at.path().join("lost.toml"), "base = \"nowhere\"\n").unwrap();
    fails(at.path(), "train --recipe lost.toml", 1, &["lost.toml: base", "\"nowhere\"", "beside this one"]);
    fs::copy(at.path().join("child.toml"), at.path().join("child.json")).unwrap();
    fails(at.path(), "train --recipe child.json", 2, &["\"child.json\"", ".toml"]);
    fails(at.path(), "train --recipe none.toml", 1, &["none.toml"]);
}

#[test]
fn a_reproduction_can_be_left_and_taken_up_and_says_what_it_is_worth() {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join("small.toml"), TWO_LAYERS).unwrap();
    let command = |more: &str| format!("reproduce --recipe small.toml {SMALL} {more}");
    let whole = succeeds(at.path(), &command("--out whole"));
    for part in ["a small one", "protocol code", "stages 2 of 2", "ours: −ELBO", "NLL with 30 samples of each of 10"]
    {
        assert!(whole.contains(part), "{whole}\nlacks {part}");
    }
    for part in
        ["83.89", "Burda et al. 2015, table 1", "no verdict", "MNIST", "active units", " of 6, ", " of 3 ", "seconds: "]
    {
        assert!(whole.contains(part), "{whole}\nlacks {part}");
    }
    // In the middle of an epoch, between two stages, and all of it once more.
    assert!(succeeds(at.path(), &command("--out parts --pause-at 4")).contains("same command continues"));
    let one = succeeds(at.path(), &command("--out parts --stages 1"));
    assert!(one.contains("stages 1 of 2, epochs 1 of 3"), "{one}");
    succeeds(at.path(), &command("--out parts --pause-at 17"));
    succeeds(at.path(), &command("--out parts"));
    let read = |path: &str| fs::read(at.path().join(path)).unwrap();
    for name in ["checkpoint.safetensors", "metrics.jsonl", "config.json"] {
        assert!(read(&format!("whole/{name}")) == read(&format!("parts/{name}")), "{name} differs");
    }
    let json = |run: &str| -> serde_json::Value {
        serde_json::from_slice(&read(&format!("{run}/reproduction.json"))).unwrap()
    };
    let (a, b) = (json("whole"), json("parts"));
    for field in ["recipe", "protocol", "stages", "test", "nll", "active_units", "value", "within", "config"] {
        assert!(a.get(field).is_some() && a[field] == b[field], "{field}: {} and {}", a[field], b[field]);
    }
    assert_eq!(a["within"], serde_json::Value::Null);
    assert_eq!(a["value"], a["nll"]["nll"]);
    assert_eq!(a["recipe"]["expected"]["value"], 83.89);

    fails(at.path(), &command("--out parts --seed 2"), 1, &["parts", "seed", "--out"]);
    fails(at.path(), &command("--out parts --protocol paper"), 1, &["parts", "objective", "second_moment"]);
    fails(at.path(), &command("--out parts --stages 1"), 2, &["stages", "3 epochs"]);
}

#[test]
fn images_that_a_recipe_is_not_for_are_refused() {
    let at = tempfile::tempdir().unwrap();
    let idx = |dims: &[u32], bytes: usize| {
        let mut file = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|d| file.extend(d.to_be_bytes()));
        file.resize(file.len() + bytes, 7);
        file
    };
    for (name, count) in [("train", 5u32), ("t10k", 3)] {
        let file = idx(&[count, 28, 28], count as usize * 784);
        fs::write(at.path().join(format!("{name}-images-idx3-ubyte")), file).unwrap();
    }
    let words = ["images", "5 training and 3 test", "MNIST", "60000"];
    fails(at.path(), "reproduce --recipe pytorch-example --data .", 1, &words);
    assert!(!at.path().join("runs").exists(), "a refused run leaves nothing behind");
}

#[test]
fn the_means_of_all_layers_are_those_of_the_encoders() {
    let upper = vec![StochasticLayer { encoder: vec![7], latent: 2, decoder: vec![7] }];
    let model = VaeConfig { upper, ..VaeConfig::new(4).hidden(&[9]) };
    let mut config = TrainConfig::new(model);
    config.objective.bound.kl = elbo::vae::KlTerm::MonteCarlo;
    let data = elbo::data::Splits::digits(2, 30, 10);
    let mut trainer = Trainer::new(config, &data, Device::Cpu { threads: 1 }).unwrap();
    let layers = trainer.model().encode_layers(TRAIN, 20, 5).unwrap();
    let sizes: Vec<(usize, usize)> = layers.iter().map(|e| (e.latent, e.mu.len())).collect();
    assert_eq!(sizes, [(4, 80), (2, 40)]);
    let whole = trainer.model().encode(TRAIN, 5).unwrap();
    for (a, b) in layers[0].mu.iter().zip(&whole.mu) {
        assert!((a - b).abs() < 1e-5, "the first layer is what encode says: {a} and {b}");
    }
    assert_eq!(layers, trainer.model().encode_layers(TRAIN, 20, 5).unwrap());
    assert_ne!(
        layers[1].mu,
        trainer.model().encode_layers(TRAIN, 20, 6).unwrap()[1].mu,
        "another draw of the layer below"
    );
    for count in [0, 31] {
        assert!(trainer.model().encode_layers(TRAIN, count, 5).unwrap_err().to_string().contains("from 1 to 30"));
    }
}

#[test]
fn the_sigma_of_a_weighted_loss_is_answered() {
    let at = tempfile::tempdir().unwrap();
    let ask = |arguments: &[&str]| {
        let output = elbo(at.path(), &[&["implied-sigma"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let contains = |text: &str, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(text.contains(part), "{text}\nlacks {part}"));
    };
    let mean = |more: &str| ask(&more.split_whitespace().collect::<Vec<_>>());
    let sum = |more: &str| mean(&format!("--reduction sum {more}"));
    let blur = mean("--kl-weight 0.00025 --pixels 12288");
    contains(&blur, &["sigma² = D·b/(2a) = 1.536", "sigma  = 1.239", "316 grey levels", "--variance"]);
    contains(&mean("--kl-weight 0.00025 --pixels 12288 --range 2"), &["158 grey levels"]);
    contains(&mean("--kl-weight 1"), &["sigma² = D·b/(2a) = 392", "sigma  = 19.8", "collapse expected", "52.85"]);
    contains(&sum("--weight 0.5 --kl-weight 4"), &["sigma² = b/(2a) = 4", "4 for s = 1", "blur"]);
    contains(&sum("--weight 0.5 --kl-weight 1"), &["sigma² = b/(2a) = 1\n"]);
    contains(&sum("--kl-weight 0.1"), &["sigma² = b/(2a) = 0.05", "no collapse"]);
    contains(&sum("--kl-weight 10 --variance 4.9"), &["V = 4.9", "collapse expected"]);

    for (arguments, words) in [
        ("", "--kl-weight"),
        ("--kl-weight 0", "kl weight"),
        ("--kl-weight 1 --weight -1", "weight"),
        ("--kl-weight 1 --pixels 0", "pixels"),
        ("--kl-weight 1 --variance 0", "variance"),
        ("--kl-weight 1 --range 0", "range"),
    ] {
        let arguments: Vec<&str> = ["implied-sigma"].into_iter().chain(arguments.split_whitespace()).collect();
        refused(&elbo(at.path(), &arguments), 2, &[words]);
    }
}
