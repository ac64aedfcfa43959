//! The command, run as its users run it, on a few hundred built-in digits.

#[path = "common/command.rs"]
mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command::{elbo, fails, succeeds};
use elbo::train::checkpoint::Checkpoint;

/// Sizes at which a training takes a moment: 300 is not a multiple of 64, so that an epoch ends in a smaller batch.
const TINY: &str = "--train-size 300 --test-size 70 --hidden 24,16 --latent 2 --batch 64 --epochs 2 --quiet";
const FILES: [&str; 11] = [
    "checkpoint.safetensors",
    "config.json",
    "manifold.png",
    "metrics.jsonl",
    "reconstructions.png",
    "run.lock",
    "samples.png",
    "scatter.png",
    "sessions.jsonl",
    "steps.jsonl",
    "timing.jsonl",
];

/// `elbo` with arguments separated by blanks, in the folder `at`.
fn command(at: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
    command.current_dir(at).args(arguments.split_whitespace());
    command
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn bytes(path: PathBuf) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Everything but what tells of the sessions must be equal. The means within an epoch do too: the first interval of a session
/// reaches back to the beginning of its epoch.
fn equal_runs(a: &Path, b: &Path) {
    let of_sessions = ["run.lock", "timing.jsonl", "sessions.jsonl", "steps.jsonl"];
    for name in FILES.iter().filter(|name| !of_sessions.contains(name)) {
        assert!(
            bytes(a.join(name)) == bytes(b.join(name)),
            "{name} differs between {} and {}",
            a.display(),
            b.display()
        );
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn training_writes_a_whole_run_folder_and_a_summary() {
    let at = folder();
    let text = succeeds(at.path(), &format!("train {TINY} --seed 3"));
    let run = at.path().join("runs/001-train300-test70-hidden24x16-batch64-latent2-seed3");
    assert_eq!(names(&run), FILES);
    for part in ["test −ELBO", "rec", "KL", "grey pixels", "fair coin", "collapsed", "this model", "floor"] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(records[1]["updates"], 10, "four full batches and a smaller one per epoch");
    let value = |i: usize, key: &str| records[i][key].as_f64().unwrap();
    assert!(value(1, "test_neg_elbo") < value(0, "test_neg_elbo"));
    assert!((value(0, "test_rec") + value(0, "test_kl") - value(0, "test_neg_elbo")).abs() < 1e-9);
    assert!(!lines.contains("seconds"), "what the clock says belongs to timing.jsonl");
    succeeds(at.path(), &format!("train {TINY} --seed 3"));
    assert_eq!(
        names(&at.path().join("runs")),
        [
            "001-train300-test70-hidden24x16-batch64-latent2-seed3",
            "002-train300-test70-hidden24x16-batch64-latent2-seed3"
        ]
    );
    equal_runs(&run, &at.path().join("runs/002-train300-test70-hidden24x16-batch64-latent2-seed3"));
}

#[test]
fn a_run_is_a_function_of_its_seed_and_not_of_the_threads() {
    let at = folder();
    for (out, more) in [("a", "--seed 5 --threads 1"), ("b", "--seed 5 --threads 2"), ("c", "--seed 6 --threads 2")] {
        succeeds(at.path(), &format!("train {TINY} --binarisation dynamic --out {out} {more}"));
    }
    equal_runs(&at.path().join("a"), &at.path().join("b"));
    assert_ne!(bytes(at.path().join("a/metrics.jsonl")), bytes(at.path().join("c/metrics.jsonl")));
}

#[test]
fn a_resumed_run_equals_one_that_was_never_interrupted() {
    let at = folder();
    let options = "--lr-schedule cosine:1e-4 --kl-warmup 1.5 --clip 5 --binarisation dynamic";
    succeeds(at.path(), &format!("train {TINY} {options} --out whole"));
    // Paused in the middle of the first epoch, at its end, and in the second.
    let text = succeeds(at.path(), &format!("train {TINY} {options} --out parts --pause-at 2"));
    assert!(text.contains("elbo train --resume parts"), "{text}");
    succeeds(at.path(), "train --resume parts --pause-at 5 --quiet --threads 1");
    succeeds(at.path(), "train --resume parts --pause-at 8 --quiet --threads 2");
    succeeds(at.path(), "train --resume parts --quiet");
    equal_runs(&at.path().join("whole"), &at.path().join("parts"));

    let sgd = "--optimizer sgd --momentum 0.8 --lr 1e-4 --likelihood gaussian";
    succeeds(at.path(), &format!("train {TINY} {sgd} --out sgd"));
    succeeds(
        at.path(),
        &format!("train {TINY} {sgd} --out sgd2 --epochs 2 --pause-at 7").replacen("--epochs 2", "", 1),
    );
    succeeds(at.path(), "train --resume sgd2 --quiet");
    equal_runs(&at.path().join("sgd"), &at.path().join("sgd2"));

    let published = "--no-shuffle --train-images 250 --output-bias data --beta1 0.99 --eps 5e-6 --second-moment 0.0025";
    succeeds(at.path(), &format!("train {TINY} {published} --out p1"));
    succeeds(at.path(), &format!("train {TINY} {published} --out p2 --pause-at 3"));
    succeeds(at.path(), "train --resume p2 --quiet");
    equal_runs(&at.path().join("p1"), &at.path().join("p2"));
    let checkpoint = Checkpoint::load(&at.path().join("p2/checkpoint.safetensors")).unwrap();
    assert_eq!(checkpoint.progress.updates, 8, "three full batches and a smaller one in each of two epochs");
    let config = checkpoint.config;
    assert_eq!((config.shuffle, config.train_images, config.second_moment), (false, Some(250), 0.0025));
    assert_eq!(config.objective.optimizer, elbo::Optimizer::Adam { beta1: 0.99, beta2: 0.999, eps: 5e-6 });
    fails(at.path(), "train --resume p2 --beta1 0.9", 2, &["--resume", "--beta1"]);
}

/// A run that goes on elsewhere is right, but it is another run.
#[test]
fn a_resumed_run_says_when_its_bits_will_differ() {
    let at = folder();
    let resume = |isa: &str, more: &str| {
        let line = format!("train --resume run --quiet --device cpu {more}");
        let output = command(at.path(), &line).env("ELBO_ISA", isa).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        // So small a model collapses, and that is said too.
        errors.lines().filter(|line| line.starts_with("note")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let start = format!("train {TINY} --device cpu --out run --pause-at 2");
    assert!(command(at.path(), &start).env("ELBO_ISA", "portable").status().unwrap().success());
    let best = elbo::engine::isa::Isa::available().last().unwrap().to_string();
    // No epoch has been recorded yet: nothing to compare with.
    assert_eq!(resume("portable", "--pause-at 6 --threads 1"), "");
    assert_eq!(resume("portable", "--pause-at 7 --threads 2"), "", "the number of threads changes nothing");
    if best != "portable" {
        let note = resume(&best, "--pause-at 8");
        let lines: Vec<&str> = note.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("note: epoch 1 ran on cpu (portable"), "{note}");
        assert!(lines[0].contains(&format!("cpu ({best}")) && lines[0].contains("uninterrupted"), "{note}");
    }
}

#[test]
fn more_epochs_can_be_asked_for_later() {
    let at = folder();
    let one = TINY.replace("--epochs 2", "--epochs 1");
    succeeds(at.path(), &format!("train {TINY} --out two"));
    succeeds(at.path(), &format!("train {one} --out one"));
    succeeds(at.path(), "train --resume one --epochs 2 --quiet");
    equal_runs(&at.path().join("one"), &at.path().join("two"));
    fails(at.path(), "train --resume one --epochs 1", 2, &["epochs", "at least 2"]);
}

#[test]
fn a_model_can_be_drawn_from_looked_into_and_evaluated() {
    let at = folder();
    let trained = succeeds(at.path(), &format!("train {TINY} --out run"));
    let evaluated = succeeds(at.path(), "eval run");
    let first = |text: &str| text.lines().next().unwrap().to_string();
    assert_eq!(first(&trained), first(&evaluated), "eval repeats the figure of the training");
    assert!(evaluated.contains("of 2 latent dimensions are active"), "{evaluated}");
    assert_ne!(first(&trained), first(&succeeds(at.path(), "eval run --seed 77")), "other draws, another figure");

    succeeds(at.path(), "sample run --out a.png --count 30 --seed 4");
    succeeds(at.path(), "sample run/checkpoint.safetensors --out b.png --count 30 --seed 4");
    succeeds(at.path(), "sample run --out c.png --count 30 --seed 5");
    assert_eq!(bytes(at.path().join("a.png")), bytes(at.path().join("b.png")));
    assert_ne!(bytes(at.path().join("a.png")), bytes(at.path().join("c.png")));
    succeeds(at.path(), "reconstruct run --out d.png --count 7");
    assert!(bytes(at.path().join("d.png")).starts_with(b"\x89PNG"));
    fails(at.path(), "reconstruct run --out e.png --count 71", 2, &["count", "71", "from 1 to 70"]);
    fails(at.path(), "sample run --count 0", 2, &["count", "0"]);
}

#[test]
fn every_likelihood_and_binarisation_trains_and_is_named() {
    let at = folder();
    let kinds = ["--binarisation threshold", "--binarisation fixed", "--likelihood gaussian --sigma-floor 0.2"];
    for (i, (kind, name)) in kinds.into_iter().zip(["threshold pixels", "fixed pixels", "sigma ≥ 0.2"]).enumerate() {
        let text =
            succeeds(at.path(), &format!("train {TINY} --latent 3 --out {i} {kind}").replacen("--latent 2", "", 1));
        assert!(text.contains(name) && text.contains("floor"), "{text}");
        assert!(!at.path().join(format!("{i}/scatter.png")).exists(), "the plane is drawn for K = 2 only");
        assert!(succeeds(at.path(), &format!("eval {i}")).contains(name));
    }
}

#[test]
fn wrong_arguments_are_named_with_what_would_be_right() {
    let at = folder();
    let train = |more: &str| format!("train --train-size 64 --test-size 10 --epochs 1 --quiet {more}");
    let wrong: [(&str, i32, &[&str]); 31] = [
        ("--latent 0", 2, &["latent", "found 0"]),
        ("--hidden 10,0", 2, &["hidden width", "found 0"]),
        ("--hidden 10,x", 2, &["--hidden", "x"]),
        ("--activation rellu", 2, &["--activation", "rellu", "leaky_relu"]),
        ("--likelihood poisson", 2, &["--likelihood", "bernoulli, gaussian"]),
        ("--likelihood gaussian --sigma-floor 0", 2, &["sigma floor", "found 0"]),
        ("--likelihood gaussian --binarisation fixed", 2, &["binarisation", "fixed", "grey"]),
        ("--binarisation binary", 2, &["--binarisation", "binary", "threshold"]),
        ("--batch 0", 2, &["batch", "found 0"]),
        ("--lr -1", 2, &["lr", "found -1", "a number ≥ 0"]),
        ("--lr -1e-3", 2, &["lr", "found -0.001", "a number ≥ 0"]),
        ("--lr -.5", 2, &["lr", "found -0.5", "a number ≥ 0"]),
        ("--lr=-1", 2, &["lr", "found -1"]),
        ("--lr-schedule linear", 2, &["--lr-schedule", "linear", "cosine"]),
        ("--lr-schedule steps:5=1e-3,2=1e-4", 2, &["lr schedule", "increasing"]),
        ("--optimizer sgd --momentum 1", 2, &["momentum", "found 1"]),
        ("--beta1 1", 2, &["beta1", "found 1"]),
        ("--eps 0", 2, &["eps", "found 0"]),
        ("--second-moment -1", 2, &["second moment", "found -1"]),
        ("--train-images 65", 2, &["train images", "found 65", "64"]),
        ("--train-images 0", 2, &["train images", "found 0"]),
        ("--likelihood gaussian --output-bias data", 2, &["output bias", "gaussian", "bernoulli"]),
        ("--device cuda:99", 1, &["cuda:99 cannot be used", "--device cpu"]),
        ("--device cuda:x", 2, &["device", "cuda:x", "cuda:N"]),
        ("--device cpu --precision tf32", 2, &["precision", "tf32", "--device"]),
        ("--precision f16", 2, &["--precision", "f16", "tf32"]),
        ("--batch -1", 2, &["--batch", "-1", "whole number, 0 or more"]),
        ("--latent -2", 2, &["--latent", "-2", "whole number, 0 or more"]),
        ("--seed -3", 2, &["--seed", "-3", "whole number, 0 or more"]),
        ("--kl-warmup -0.5", 2, &["kl-warmup", "found -0.5", "≥ 0"]),
        ("--device gpu", 2, &["device", "gpu", "auto"]),
    ];
    for (more, code, words) in wrong {
        fails(at.path(), &train(more), code, words);
    }
    assert!(names(at.path()).is_empty(), "a refused run leaves nothing behind: {:?}", names(at.path()));
    fails(at.path(), &train("--optimizer sgd --lr 1e30 --out d1"), 1, &["test loss of epoch 1", "--lr"]);
    let small = "--optimizer sgd --lr 1e30 --batch 16 --out d2";
    fails(at.path(), &train(small), 1, &["loss by update", "--clip"]);
    fails(at.path(), "train --resume nowhere", 1, &["nowhere", "read"]);
    fails(at.path(), "train --resume nowhere --latent 3", 2, &["--resume", "--latent"]);
    fails(at.path(), "train --data nowhere", 1, &["nowhere"]);
    fails(at.path(), "train --data . --train-size 5", 2, &["--data", "--train-size"]);
    fails(at.path(), "eval nowhere", 1, &["nowhere"]);
    fails(at.path(), "", 2, &["Usage"]);
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let at = folder();
    fs::create_dir(at.path().join("empty")).unwrap();
    fails(at.path(), "train --data empty", 1, &["empty", "training images", "train-images-idx3-ubyte"]);
    fs::create_dir(at.path().join("bad")).unwrap();
    for name in ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"] {
        fs::write(at.path().join("bad").join(name), b"these are no images").unwrap();
    }
    fails(at.path(), "train --data bad", 1, &["train-images-idx3-ubyte", "magic"]);

    succeeds(at.path(), &format!("train {TINY} --out run"));
    fails(at.path(), &format!("train {TINY} --out run"), 1, &["run", "--resume", "--out"]);
    let path = at.path().join("run/checkpoint.safetensors");
    let whole = bytes(path.clone());
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for arguments in ["eval run", "sample run", "train --resume run"] {
        fails(at.path(), arguments, 1, &["checkpoint.safetensors", "complete safetensors file"]);
    }
}

#[test]
fn the_plan_has_at_most_sixteen_steps_and_says_what_they_cost() {
    let at = folder();
    let text = succeeds(at.path(), "plan");
    let summary = text.lines().last().unwrap();
    let steps: usize = summary.split_whitespace().next().unwrap().parse().unwrap();
    assert!(steps <= 16, "{text}");
    for part in ["KiB", "FLOP", "[128, 784]·[784, 400]", "adam", "652824 parameters"] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    let other = succeeds(at.path(), "plan --batch 20 --hidden 200,200 --latent 50 --activation tanh --graph");
    assert!(
        other.contains("[20, 784]·[784, 200]") && other.contains("matmul(") && other.contains("src/vae/objective.rs:")
    );
}

#[test]
fn info_and_help_say_what_there_is() {
    let at = folder();
    let info = succeeds(at.path(), "info");
    for part in [env!("CARGO_PKG_VERSION"), "instruction set", "threads", "cpu"] {
        assert!(info.contains(part), "{info}\nlacks {part}");
    }
    let help = succeeds(at.path(), "train --help");
    for option in [
        "Data:",
        "Model:",
        "Optimisation:",
        "Device:",
        "--epochs",
        "--kl-warmup",
        "--lr-schedule",
        "--sigma-floor",
        "--binarisation",
        "[default: 128]",
    ] {
        assert!(help.contains(option), "{help}\nlacks {option}");
    }
    let short = succeeds(at.path(), "train -h");
    assert!(short.contains("Model:") && short.contains("--lr ") && short.lines().count() < help.lines().count() / 2);
    assert!(!short.contains("--second-moment") && help.contains("--second-moment"));
    assert!(!succeeds(at.path(), "eval -h").contains("Optimisation:"), "its --samples are no option of a training");
}

/// Why no GPU is used is said before work that one would shorten, and before nothing else.
#[test]
fn the_missing_gpu_is_noted_where_it_matters() {
    let at = folder();
    let noted = |arguments: &str| {
        let output = elbo(at.path(), arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "elbo {arguments}\n{errors}");
        errors.contains("running on the CPU: ")
    };
    if !noted(&format!("train {TINY} --out run")) {
        println!("skipped: there is a GPU");
        return;
    }
    assert!(noted("eval run --estimators iwae --samples 10"));
    for quick in ["recipes", "implied-sigma --kl-weight 1", "plan", "eval run", "sample run --count 1"] {
        assert!(!noted(quick), "elbo {quick}");
    }
    assert!(!noted("reconstruct run --count 1") && !noted("eval run --estimators iwae --device cpu"));
    let refused = elbo(at.path(), "train --lr -1");
    assert!(!String::from_utf8(refused.stderr).unwrap().contains("running on"), "nothing runs");
}

/// Ctrl-C, sent while the training runs: the step is finished, the checkpoint is whole, the command to continue printed.
#[cfg(unix)]
#[test]
fn an_interrupted_run_can_be_continued() {
    let at = folder();
    let long = TINY.replace("--epochs 2", "--epochs 100000");
    let child = command(at.path(), &format!("train {long} --out run"));
    let child = { child }.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let path = at.path().join("run/metrics.jsonl");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !path.exists() {
        assert!(std::time::Instant::now() < deadline, "no epoch in a minute");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("elbo train --resume run"), "{text}");

    let checkpoint = Checkpoint::load(&at.path().join("run/checkpoint.safetensors")).unwrap();
    let (epoch, updates) = (checkpoint.progress.epoch, checkpoint.progress.updates);
    succeeds(at.path(), &format!("train --resume run --epochs {} --quiet", epoch + 2));
    let later = Checkpoint::load(&at.path().join("run/checkpoint.safetensors")).unwrap();
    assert!(later.progress.epoch == epoch + 2 && later.progress.updates > updates);
    let lines = fs::read_to_string(path).unwrap();
    assert_eq!(lines.lines().count(), epoch as usize + 2, "one line for every epoch, none twice");
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    let out =
        Command::new(env!("CARGO_BIN_EXE_elbo")).args(["train", "--epochs", "1"]).env("ELBO_ISA", "avx1024").output();
    let out = out.unwrap();
    assert_eq!(out.status.code(), Some(2));
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.contains("ELBO_ISA") && text.contains("avx1024") && text.contains("portable"), "{text}");
}

/// Without a tile unit precisions below f32 are refused with the reason; its twin computes them, and a resumed run
/// knows.
#[test]
fn precisions_of_tiles_are_those_of_a_unit_or_its_twin() {
    let at = folder();
    let run = |line: &str, tiles: &str| {
        let output = command(at.path(), &format!("{line} --device cpu")).env("ELBO_TILES", tiles).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let start = format!("train {TINY} --out run --pause-at 6");
    let (code, text) = run(&format!("{start} --precision bf16x3"), "off");
    assert!(code == Some(1) && text.contains("ELBO_TILES") && text.contains("--precision f32"), "{text}");
    let (code, text) = run(&start, "sme");
    assert!(
        code == Some(2) && text.contains("ELBO_TILES") && text.contains("\"sme\"") && text.contains("twin"),
        "{text}"
    );
    let (code, text) = run(&format!("{start} --precision bf16x3"), "twin");
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run("train --resume run --quiet --pause-at 7", "off");
    assert!(code == Some(0) && text.contains("amx twin, bf16x3"), "{text}");
}

#[test]
fn estimates_of_the_likelihood_are_printed_written_and_drawn() {
    let at = folder();
    succeeds(at.path(), &format!("train {TINY} --binarisation dynamic --out run"));
    let all = "elbo,iwae,prior,quadrature,ais,harmonic";
    let few = "--samples 200 --images 3 --chains 4 --temperatures 10 --leapfrog 3";
    let text = succeeds(at.path(), &format!("eval run --estimators {all} {few} --bdmc 2"));
    for part in
        ["this model", "elbo", "iwae-200", "naive", "quadrature", "ais", "fails", "drawn once, seed 1", "−L_100"]
    {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    let json = succeeds(at.path(), &format!("eval run --estimators {all} {few} --bdmc 2 --json"));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let estimators = report["estimators"].as_array().unwrap();
    assert_eq!(estimators.len(), 6);
    let nll = |i: usize| estimators[i]["summary"]["nll"].as_f64().unwrap();
    let error = estimators[1]["summary"]["monte_carlo_error"].as_f64().unwrap();
    assert!((nll(1) - nll(3)).abs() < 4.0 * error + 0.1, "iwae {} and quadrature {}", nll(1), nll(3));
    let exact = estimators[3]["more"]["neg_elbo"].as_f64().unwrap();
    assert!(exact > nll(3), "the exact ELBO is below log p(x)");
    let bdmc = &report["bdmc"];
    assert_eq!(bdmc["images"].as_array().unwrap().len(), 2);
    // Equal seeds, equal numbers, for any number of threads; the present output comes first and stays as it was.
    let plain = succeeds(at.path(), "eval run");
    assert!(text.starts_with(&plain) && !plain.contains("estimator"));
    let without_seconds =
        |text: String| text.lines().map(|l| l.rsplit_once(' ').map_or("", |p| p.0).to_string()).collect();
    let again = |threads: usize| -> Vec<String> {
        without_seconds(succeeds(
            at.path(),
            &format!("eval run --estimators iwae,quadrature,ais {few} --threads {threads}"),
        ))
    };
    assert_eq!(again(1), again(2));

    let text = succeeds(at.path(), &format!("bounds run --image 4 {few}").replace("--images 3", ""));
    for part in ["L_1 = ELBO", "L_100", "quadrature", "harmonic mean (fails)", "bounds.svg"] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    let svg = String::from_utf8(bytes(at.path().join("bounds.svg"))).unwrap();
    assert!(svg.contains("harmonic mean (fails)") && svg.contains("log p(x), quadrature") && svg.contains("ELBO"));
    let json = succeeds(at.path(), &format!("bounds run --image 4 {few} --json").replace("--images 3", ""));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["prior_running"].as_array().unwrap().last().unwrap()["samples"], 200.0);

    fails(at.path(), "eval run --estimators elbo --images 71", 2, &["images", "from 1 to 70"]);
    fails(at.path(), "eval run --estimators magic", 2, &["magic", "quadrature"]);
    fails(at.path(), "bounds run --image 70", 2, &["image", "0 to 69"]);
    succeeds(at.path(), &format!("train {} --out wide", TINY.replace("--latent 2", "--latent 3")));
    fails(at.path(), "eval wide --estimators quadrature", 2, &["latent dimensions", "[3]", "iwae"]);
}
