//! A run that goes on: with more epochs, from elsewhere, with its images elsewhere; and a run that cannot begin.

#![cfg(feature = "cli")]

#[path = "common/command.rs"]
mod command;

use std::fs;
use std::path::Path;

use command::{fails, says};
use elbo::data::{Splits, idx};
use elbo::engine::optim::LrSchedule;
use elbo::train::Source;
use elbo::train::checkpoint::Checkpoint;

const SMALL: &str = "--hidden 12 --latent 2 --batch 64 --device cpu --quiet";
const TINY: &str =
    "train --train-size 200 --test-size 40 --hidden 12 --latent 2 --batch 64 --epochs 2 --device cpu --quiet";

fn checkpoint(run: &Path) -> Checkpoint {
    Checkpoint::load(&run.join("checkpoint.safetensors")).unwrap()
}

/// Images of another seed in the four files' places.
fn write_images(folder: &Path, seed: u64) {
    fs::create_dir_all(folder).unwrap();
    let data = Splits::digits(seed, 200, 40);
    for (name, set) in [("train", &data.train), ("t10k", &data.test)] {
        idx::write_idx(&folder.join(format!("{name}-images-idx3-ubyte")), &[set.rows, 28, 28], &set.images).unwrap();
    }
}

#[test]
fn a_finished_run_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (at, run) = (folder.path(), folder.path().join("run"));
    says(at, &format!("{TINY} --out run"));
    let written = |name: &str| fs::metadata(run.join(name)).unwrap().modified().unwrap();
    let names = ["checkpoint.safetensors", "config.json", "samples.png", "scatter.png"];
    let before = names.map(written);
    for more in ["", "--epochs 2"] {
        let (said, _) = says(at, &format!("train --resume run --device cpu {more}"));
        assert!(said.contains("run is finished, with 2 epochs; nothing was done"), "{said}");
        assert!(said.contains("elbo train --resume run --epochs 4") && said.lines().count() == 1, "{said}");
        assert_eq!(names.map(written), before);
    }
    // One that was killed between its last epoch and its pictures gets them.
    fs::remove_file(run.join("scatter.png")).unwrap();
    assert!(says(at, "train --resume run --device cpu --quiet").0.contains("test −ELBO"));
    assert!(run.join("scatter.png").exists());
}

#[test]
fn epochs_beyond_the_end_of_a_cosine_are_not_run_at_rate_0() {
    let folder = tempfile::tempdir().unwrap();
    let (at, run) = (folder.path(), folder.path().join("run"));
    says(at, &format!("{TINY} --lr-schedule cosine --out run"));
    let before = fs::read(run.join("checkpoint.safetensors")).unwrap();
    let words = ["epochs", "cosine", "rate is 0", "--lr-schedule cosine", "--lr-schedule constant", "0.001"];
    fails(at, "train --resume run --epochs 4 --device cpu", 2, &words);
    assert!(fs::read(run.join("checkpoint.safetensors")).unwrap() == before, "refused before anything is done");

    says(at, "train --resume run --epochs 4 --lr-schedule cosine --device cpu --quiet");
    let config = checkpoint(&run).config;
    assert_eq!((config.epochs, config.lr), (4, LrSchedule::Cosine { lr: 1e-3, lr_end: 0.0, steps: 16 }));
    let journal = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rates: Vec<f64> = journal
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["lr"].as_f64().unwrap())
        .collect();
    assert!(rates.len() == 4 && rates[2] > 1e-4 && rates[3] < rates[2], "{rates:?}");

    says(at, "train --resume run --epochs 5 --lr-schedule constant --device cpu --quiet");
    assert_eq!(checkpoint(&run).config.lr, LrSchedule::Constant { lr: 1e-3 });
    // A rate at the end that is not 0 goes on, and is said.
    says(at, &format!("{TINY} --lr-schedule cosine:1e-4 --out other"));
    let (_, errors) = says(at, "train --resume other --epochs 3 --device cpu --quiet");
    assert!(errors.contains("note: beyond the end") && errors.contains("0.0001"), "{errors}");
}

#[test]
fn a_run_finds_its_images_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_images(&at.join("data/mine"), 5);
    fs::create_dir(at.join("elsewhere")).unwrap();
    says(at, &format!("train {SMALL} --data data/mine --epochs 1 --out runs/a"));
    let Source::Folder { path, images } = checkpoint(&at.join("runs/a")).config.data else { panic!("a folder") };
    assert_eq!(
        (path.as_path(), images),
        (Path::new("../../data/mine"), Some(Splits::digits(5, 200, 40).fingerprint()))
    );
    let elsewhere = at.join("elsewhere");
    let (here, _) = says(at, "eval runs/a --device cpu");
    assert_eq!(says(&elsewhere, "eval ../runs/a --device cpu").0, here, "from another folder");
    says(&elsewhere, "train --resume ../runs/a --epochs 2 --device cpu --quiet");
    says(at, "reconstruct runs/a/checkpoint.safetensors --device cpu --out r.png");
    says(at, "export runs/a --out models/deep/er/a.safetensors");
    says(&elsewhere, "eval ../models/deep/er/a.safetensors --device cpu");
    // A run of an older version, or of the library, has no fingerprint, and its path counts from the current folder.
    let mut old = checkpoint(&at.join("runs/a"));
    old.config.data = Source::Folder { path: "data/mine".into(), images: None };
    fs::create_dir(at.join("runs/old")).unwrap();
    old.save(&at.join("runs/old/checkpoint.safetensors")).unwrap();
    says(at, "eval runs/old --device cpu");
    fails(&elsewhere, "eval ../runs/old --device cpu", 1, &["current folder", "--data"]);
    // Run and data move together.
    fs::create_dir(at.join("moved")).unwrap();
    for name in ["runs", "data"] {
        fs::rename(at.join(name), at.join("moved").join(name)).unwrap();
    }
    says(at, "train --resume moved/runs/a --epochs 3 --device cpu --quiet");
    assert_eq!(checkpoint(&at.join("moved/runs/a")).progress.epoch, 3);

    // The data alone: the message says whose path it is, and --data helps if the images are the same.
    fs::rename(at.join("moved/data"), at.join("images")).unwrap();
    let whose = ["images of the run in moved/runs/a", "../../data/mine", "--data"];
    fails(at, "eval moved/runs/a --device cpu", 1, &whose);
    fails(at, "train --resume moved/runs/a --epochs 4 --device cpu", 1, &whose);
    write_images(&at.join("others"), 6);
    fails(
        at,
        "train --resume moved/runs/a --epochs 4 --data others --device cpu",
        1,
        &["others", "fingerprint", "new run"],
    );
    says(at, "train --resume moved/runs/a --epochs 4 --data images/mine --device cpu --quiet");
    let Source::Folder { path, .. } = checkpoint(&at.join("moved/runs/a")).config.data else { panic!("a folder") };
    assert_eq!(path, Path::new("../../../images/mine"));
    // Other images in the run's own place are noticed.
    write_images(&at.join("images/mine"), 7);
    fails(at, "eval moved/runs/a --device cpu", 1, &["fingerprint", "--data"]);
    says(at, "eval moved/runs/a --data images/mine --device cpu");
    says(at, &format!("{TINY} --out digits"));
    fails(at, "train --resume digits --epochs 3 --data others --device cpu", 2, &["data", "its own digits"]);
}

#[test]
fn lists_and_reproductions_find_their_images_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_images(&at.join("data"), 5);
    let list = |data: &str| {
        format!(
            "richness {} --latents 2 --epochs 1 --draws 5 --data {data} --out list",
            &SMALL.replace("--latent 2", "")
        )
    };
    says(at, &list("data"));
    let first = fs::read(at.join("list/k02/checkpoint.safetensors")).unwrap();
    fs::rename(at.join("data"), at.join("images")).unwrap();
    says(at, &list("images"));
    assert!(fs::read(at.join("list/k02/checkpoint.safetensors")).unwrap() == first, "the same images: the same run");
    write_images(&at.join("others"), 6);
    fails(at, &list("others"), 1, &["k02", "data", "--out"]);
}

#[test]
fn what_does_not_fit_into_memory_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let huge = "--hidden 65536,65536,65536,65536,65536,65536,65536,65536";
    let words = ["GiB of memory", "are free", "--hidden", "--batch"];
    fails(at, &format!("train --train-size 20 --test-size 5 {huge} --device cpu --quiet"), 1, &words);
    fails(at, &format!("train --train-size 20 --test-size 5 {huge} --device cpu --quiet --out run"), 1, &words);
    fails(at, &format!("richness --train-size 20 --test-size 5 {huge} --latents 1 --device cpu --quiet"), 1, &words);
    let three = "--hidden 65536,65536,65536";
    fails(at, &format!("train --train-size 20 --test-size 5 {three} --device cpu --quiet"), 1, &words);
    assert!(fs::read_dir(at).unwrap().next().is_none(), "nothing is left behind");
}

#[test]
fn a_run_that_fails_leaves_a_whole_folder_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let wild = TINY.replace("--epochs 2", "--epochs 2 --optimizer sgd --lr 1e30");
    fails(at, &format!("{wild} --out run"), 1, &["--lr"]);
    assert!(!at.join("run").exists(), "nothing was learned");
    let list = wild["train".len()..].replace("--latent 2", "");
    fails(at, &format!("richness {list} --latents 2 --out list"), 1, &["--lr"]);
    assert!(!at.join("list/k02").exists());
    // What was learned before the failure stays, and can be resumed.
    let late = TINY.replace("--epochs 2", "--epochs 9 --optimizer sgd --lr 1e-6 --lr-schedule steps:2=1e30");
    fails(at, &format!("{late} --out late"), 1, &["--lr"]);
    assert_eq!(checkpoint(&at.join("late")).progress.epoch, 2);
    // The folder of a new run can be taken up from its first moment.
    let (said, _) = says(at, &format!("{TINY} --out it's-first --pause-at 0"));
    assert_eq!(said, "stopped; continue with: elbo train --resume 'it'\\''s-first'\n", "as a shell reads it");
    says(at, "train --resume it's-first --device cpu --quiet");
    assert_eq!(checkpoint(&at.join("it's-first")).progress.epoch, 2);
}
