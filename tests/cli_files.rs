//! What the command writes, and what it must not: runs stay whole, names say what is in a file, nobody has to listen.

#![cfg(feature = "cli")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use elbo::train::checkpoint::Checkpoint;

const TINY: &str =
    "train --train-size 200 --test-size 40 --hidden 12 --latent 2 --batch 64 --epochs 2 --device cpu --quiet";

fn command(at: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
    command.current_dir(at).args(arguments.split_whitespace());
    command
}

fn elbo(at: &Path, arguments: &str) -> Output {
    command(at, arguments).output().unwrap()
}

#[track_caller]
fn succeeds(at: &Path, arguments: &str) -> String {
    let output = elbo(at, arguments);
    assert!(output.status.success(), "elbo {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A run that must fail and say all of `words` on stderr.
#[track_caller]
fn fails(at: &Path, arguments: &str, words: &[&str]) {
    let output = elbo(at, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "elbo {arguments}: {errors}");
    words.iter().for_each(|word| assert!(errors.contains(word), "elbo {arguments} says\n{errors}\nwithout \"{word}\""));
    assert!(!errors.contains("panicked"), "{errors}");
}

/// Name and content of every file in a folder.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    let mut all: Vec<_> =
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect();
    all.sort();
    all
}

#[test]
fn no_output_takes_the_place_of_a_file_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &format!("{TINY} --out run"));
    fs::copy(at.join("run/checkpoint.safetensors"), at.join("model")).unwrap();
    // A name without an ending is not refused for its ending.
    #[cfg(unix)]
    for (link, file) in [("sly", "checkpoint.safetensors"), ("sly2", "metrics.jsonl")] {
        std::os::unix::fs::symlink(format!("run/{file}"), at.join(link)).unwrap();
    }
    let before = content(&at.join("run"));
    let few = "--samples 20 --device cpu";
    let annealing = "--chains 2 --temperatures 3 --leapfrog 1";
    let mut refused = vec![
        ("sample model --out model".to_string(), "--out"),
        ("reconstruct model --count 3 --out ./model".into(), "--out"),
        ("export run --out run/checkpoint.safetensors".into(), "--out"),
        (format!("bounds model {few} {annealing} --out model"), "--out"),
        ("decode model --z 0,0 -o model".into(), "--out"),
        ("interpolate model --from 0 --to 1 -o model".into(), "--out"),
    ];
    if cfg!(unix) {
        refused.extend([("sample run --out sly".into(), "--out"), ("sample model --out sly2".into(), "--out")]);
    }
    let model = fs::read(at.join("model")).unwrap();
    for (arguments, option) in &refused {
        fails(at, arguments, &["resumed", &format!("choose another {option}")]);
        assert!(content(&at.join("run")) == before && fs::read(at.join("model")).unwrap() == model, "{arguments}");
    }
    // Pictures can be drawn again, and other names are free.
    succeeds(at, "sample run --count 4 --out run/samples.png");
    succeeds(at, "reconstruct run --count 4 --out run/more.png");
}

#[test]
fn a_name_says_what_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &format!("{TINY} --out run"));
    let wrong = [
        ("sample run --out x.jpg", "png"),
        ("reconstruct run --out x.svg", "png"),
        ("export run --out x.onnx", "safetensors"),
        ("bounds run --out x.png", "svg"),
        ("decode run --z 0,0 --out x.gif", "png"),
        ("interpolate run --from 0 --to 1 --out x.jpeg", "png"),
        ("bench --quick --svg x.png", "svg"),
    ];
    for (arguments, right) in wrong {
        fails(at, arguments, &["x.", &format!("ends in .{right}")]);
    }
    succeeds(at, "sample run --count 4 --out X.PNG");
    succeeds(at, "export run --out plain");
    assert!(fs::read(at.join("X.PNG")).unwrap().starts_with(b"\x89PNG"));
}

#[cfg(unix)]
#[test]
fn what_is_no_plain_file_stays_what_it_is() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &format!("{TINY} --out run"));
    assert!(Command::new("mkfifo").arg(at.join("pipe")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/null", at.join("null")).unwrap();
    for arguments in ["sample run --count 4", "export run", "reconstruct run --count 4"] {
        succeeds(at, &format!("{arguments} --out null"));
        assert!(at.join("null").is_symlink() && fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
    // Opened for both, a pipe does not wait for its other end; it holds more than these four images take.
    let mut pipe = fs::File::options().read(true).write(true).open(at.join("pipe")).unwrap();
    succeeds(at, "sample run --count 4 --out pipe");
    assert!(fs::metadata(at.join("pipe")).unwrap().file_type().is_fifo());
    let mut bytes = [0; 4];
    pipe.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"\x89PNG");
}

/// `elbo train 2>&1 | head -1`: the reader of both streams is gone before the first line.
#[cfg(unix)]
#[test]
fn a_run_is_not_lost_when_nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let loud = TINY.replace("--quiet", "");
    for (out, arguments) in [
        ("run", format!("{loud} --out run")),
        (
            "list/k02",
            format!("richness {} --latents 2 --draws 5 --out list", &loud["train".len()..]).replace("--latent 2", ""),
        ),
    ] {
        let (stdout, stderr) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        drop((stdout.0, stderr.0));
        let status = command(at, &arguments).stdin(Stdio::null()).stdout(stdout.1).stderr(stderr.1).status().unwrap();
        assert!(status.success(), "elbo {arguments}: {status}");
        let checkpoint = Checkpoint::load(&at.join(out).join("checkpoint.safetensors")).unwrap();
        assert_eq!(checkpoint.progress.epoch, 2);
        assert!(at.join(out).join("samples.png").exists());
    }
    let mut closed = Command::new("sh");
    let line = format!("exec {} {loud} --out closed 2>&- >&-", env!("CARGO_BIN_EXE_elbo"));
    assert!(closed.current_dir(at).args(["-c", &line]).status().unwrap().success());
    assert_eq!(Checkpoint::load(&at.join("closed/checkpoint.safetensors")).unwrap().progress.epoch, 2);
}

#[test]
fn a_small_test_set_is_enough_for_every_default() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &format!("{} --out run", TINY.replace("--epochs 2", "--epochs 1")));
    let text = succeeds(at, "reconstruct run --device cpu");
    assert!(text.contains("40 test images"), "{text}");
    assert!(succeeds(at, "reconstruct run --device cpu --count 1").starts_with("1 test image ("));
    assert!(succeeds(at, "sample run --device cpu --count 1").starts_with("1 mean f_μ(z), z ~ N(0, I): "));
}

#[test]
fn the_estimates_of_a_table_are_of_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let run = TINY.replace("--test-size 40", "--test-size 130");
    let text = succeeds(at, &format!("{run} --epochs 1 --out run").replacen("--epochs 2", "", 1));
    assert!(text.contains("\n1 epoch, "), "{text}");
    let images = |arguments: &str| -> (String, Vec<u64>) {
        let command = format!("eval run --device cpu --samples 10 {arguments}");
        let output = elbo(at, &command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_str(&succeeds(at, &format!("{command} --json"))).unwrap();
        let counts = report["estimators"].as_array().unwrap().iter().map(|e| e["summary"]["images"].as_u64().unwrap());
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (said, counts.collect())
    };
    let (said, counts) = images("--estimators elbo,iwae,prior");
    assert_eq!(counts, [100, 100, 100]);
    assert!(said.contains("; the first 100 test images;") && said.contains("elbo of 100 images"), "{said}");
    let (said, counts) = images("--estimators elbo,iwae --images 1");
    assert!(counts == [1, 1] && said.contains("iwae of 1 image …"), "{said}");
    let (said, counts) = images("--estimators prior,elbo --images 130");
    assert!(counts == [130, 130] && said.contains("; all 130 test images;"), "{said}");
    let output = elbo(at, "eval run --device cpu --estimators elbo");
    assert!(String::from_utf8(output.stdout).unwrap().contains("; all 130 test images;"));
}
