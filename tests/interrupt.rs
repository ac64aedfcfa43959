//! Ctrl-C and a request to terminate while the command is at its long phases: it shows how far it is, stops at once, says
//! so by its exit code, and what it leaves can be taken up.
#![cfg(all(unix, feature = "cli"))]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use elbo::train::checkpoint::Checkpoint;

/// A stop takes less than a second; this leaves room for machines that do other things at the same time.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Until a phase has been reached.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command that runs, its stderr in a file.
struct Running {
    child: Child,
    errors: PathBuf,
    arguments: String,
}

fn start(at: &Path, arguments: &str) -> Running {
    let errors = at.join("stderr.txt");
    let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
    command.current_dir(at).args(arguments.split_whitespace()).stdin(Stdio::null());
    command.stdout(fs::File::create(at.join("stdout.txt")).unwrap()).stderr(fs::File::create(&errors).unwrap());
    Running { child: command.spawn().unwrap(), errors, arguments: arguments.to_string() }
}

impl Running {
    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    /// Waits until stderr holds `words`.
    fn wait_for(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(words) {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                drop(self.child.kill());
                panic!("elbo {}: {ended:?} without \"{words}\":\n{}", self.arguments, self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the signal: the exit code (or 128 + the signal that ended it, as shells say), and stderr.
    fn stop(mut self, signal: &str) -> (i32, String) {
        let killed = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let sent = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if sent.elapsed() > AT_ONCE {
                drop(self.child.kill());
                panic!("elbo {} still runs {AT_ONCE:?} after SIG{signal}:\n{}", self.arguments, self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap()), self.said())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

const SMALL: &str = r#"
base = "iwae-1l-vae-k1"
title = "a small one"
[config.model]
encoder = [12]
decoder = [12]
latent = 6
[schedule]
stages = [{ epochs = 2, lr = 1e-3 }]
"#;

#[test]
fn a_reproduction_stopped_while_it_estimates_keeps_its_training() {
    for signal in ["INT", "TERM"] {
        let at = tempfile::tempdir().unwrap();
        fs::write(at.path().join("small.toml"), SMALL).unwrap();
        let command = |samples: usize, more: &str| {
            format!(
                "reproduce --recipe small.toml --train-size 200 --test-size 40 --nll-samples {samples} --nll-images 40 \
                 --device cpu --out run {more}"
            )
        };
        let mut running = start(at.path(), &command(20_000_000, ""));
        running.wait_for("importance samples: 0 %");
        let (code, said) = running.stop(signal);
        assert_eq!(code, 130, "{signal}: {said}");
        assert!(said.contains("is finished and saved, and the same command evaluates it"), "{said}");
        let run = at.path().join("run");
        let files = [
            "checkpoint.safetensors",
            "config.json",
            "metrics.jsonl",
            "run.lock",
            "sessions.jsonl",
            "steps.jsonl",
            "timing.jsonl",
        ];
        assert_eq!(names(&run), files);
        let checkpoint = Checkpoint::load(&run.join("checkpoint.safetensors")).unwrap();
        assert_eq!((checkpoint.progress.epoch, checkpoint.config.epochs), (2, 2));

        let timing = fs::read(run.join("timing.jsonl")).unwrap();
        let mut again = start(at.path(), &command(20, "--quiet"));
        assert!(again.child.wait().unwrap().success(), "{}", again.said());
        assert!(run.join("reproduction.json").exists() && timing == fs::read(run.join("timing.jsonl")).unwrap());
    }
}

#[test]
fn a_training_that_is_stopped_is_saved() {
    for signal in ["INT", "TERM"] {
        let at = tempfile::tempdir().unwrap();
        let sizes = "--train-size 300 --test-size 70 --hidden 24 --latent 2 --device cpu";
        let mut running = start(at.path(), &format!("train {sizes} --epochs 1000000 --out run"));
        running.wait_for("epoch   2/");
        let (code, said) = running.stop(signal);
        assert_eq!(code, 130, "{signal}: {said}");
        let told = fs::read_to_string(at.path().join("stdout.txt")).unwrap();
        assert!(told.contains("elbo train --resume run"), "{told}");
        let checkpoint = Checkpoint::load(&at.path().join("run/checkpoint.safetensors")).unwrap();
        assert!(checkpoint.progress.epoch >= 2);
    }
}

/// Two processes share the runs of a sweep, and one that is stopped has saved what it was at.
#[test]
fn a_sweep_is_shared_and_can_be_stopped() {
    let at = tempfile::tempdir().unwrap();
    let sizes = "--train-size 300 --test-size 70 --hidden 24 --latent 2 --device cpu";
    let mut first = start(at.path(), &format!("sweep {sizes} --vary epochs=1,1000000 --jobs 2 --out s"));
    first.wait_for("1 of 2: epochs1-seed1");
    let long = at.path().join("s/epochs1000000-seed1/checkpoint.safetensors");
    let deadline = Instant::now() + PATIENCE;
    while Checkpoint::load(&long).map_or(0, |checkpoint| checkpoint.progress.epoch) == 0 {
        assert!(Instant::now() < deadline, "the long run does not begin:\n{}", first.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut second = Command::new(env!("CARGO_BIN_EXE_elbo"));
    let second =
        second.current_dir(at.path()).args("sweep --resume s --device cpu".split_whitespace()).output().unwrap();
    let told = String::from_utf8(second.stdout).unwrap();
    assert!(second.status.success() && told.contains("1 run at work in other processes"), "{told}");
    let (code, said) = first.stop("INT");
    assert_eq!(code, 130, "{said}");
    let told = fs::read_to_string(at.path().join("stdout.txt")).unwrap();
    assert!(told.contains("stopped with 1 run left; continue with: elbo sweep --resume s"), "{told}");
    assert!(Checkpoint::load(&long).unwrap().progress.updates > 0);
}

/// A second writer is refused while the first lives, whichever command it is; readers are not. A process that is killed lets go.
#[test]
fn a_run_has_one_writer() {
    let at = tempfile::tempdir().unwrap();
    let sizes = "--train-size 300 --test-size 70 --hidden 24 --latent 2 --device cpu";
    let mut first = start(at.path(), &format!("train {sizes} --epochs 1000000 --out run"));
    first.wait_for("epoch   2/");
    let elbo = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
        let output = command.current_dir(at.path()).args(arguments.split_whitespace()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = elbo("train --resume run --device cpu --quiet");
    assert_eq!(code, Some(1), "{said}");
    for part in ["run: process", &format!("{} writes it", first.child.id()), "wait until it ends"] {
        assert!(said.contains(part), "{said} lacks {part}");
    }
    let (code, said) = elbo("eval run --device cpu");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = first.stop("KILL");
    assert_eq!(code, 128 + 9, "{said}");
    let epochs = Checkpoint::load(&at.path().join("run/checkpoint.safetensors")).unwrap().progress.epoch + 1;
    let (code, said) = elbo(&format!("train --resume run --epochs {epochs} --device cpu --quiet"));
    assert_eq!(code, Some(0), "{said}");
    let journal = fs::read_to_string(at.path().join("run/metrics.jsonl")).unwrap();
    assert_eq!(journal.lines().count(), epochs as usize);
}

/// Of several trainings those that were begun can be taken up; a look into z that is stopped leaves its training.
#[test]
fn richness_that_is_stopped_goes_on_with_the_same_command() {
    let at = tempfile::tempdir().unwrap();
    let sizes = "--hidden 8 --device cpu --draws 10 --batch 64 --out all";
    let long = format!("richness --latents 1,2 {sizes} --train-size 128 --test-size 20 --epochs 1000000");
    let mut running = start(at.path(), &long);
    running.wait_for("epoch   2/");
    let (code, said) = running.stop("TERM");
    assert_eq!(code, 130, "{said}");
    let first = Checkpoint::load(&at.path().join("all/k01/checkpoint.safetensors")).unwrap();
    assert!(first.progress.epoch >= 2 && !at.path().join("all/k02").exists());

    // 60 000 test images are taken apart in their square.
    let at = tempfile::tempdir().unwrap();
    let look = format!("richness --latents 1,2 {sizes} --train-size 128 --test-size 60000 --images 60000 --epochs 1");
    let mut running = start(at.path(), &look);
    running.wait_for("KL term taken apart: ");
    let (code, said) = running.stop("INT");
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("stopped at K = 1, which is trained; the same command continues"), "{said}");
    let first = Checkpoint::load(&at.path().join("all/k01/checkpoint.safetensors")).unwrap();
    assert!(first.progress.epoch == 1 && !at.path().join("all/richness.json").exists());
}

/// Nothing is saved by these, and nothing is left half written.
#[test]
fn estimates_and_benchmarks_stop_at_once_and_leave_nothing() {
    let at = tempfile::tempdir().unwrap();
    let mut training = start(
        at.path(),
        "train --train-size 300 --test-size 70 --hidden 24 --latent 2 --epochs 1 --quiet --device cpu --out run",
    );
    assert!(training.child.wait().unwrap().success(), "{}", training.said());
    let before = names(at.path());
    let long = "--device cpu --json";
    let ais = "--temperatures 1000000";
    for (command, phase) in [
        (format!("eval run --estimators iwae --samples 50000000 {long}"), "importance samples: "),
        (format!("eval run --estimators prior --samples 50000000 {long}"), "samples from the prior: "),
        (format!("eval run --estimators ais {ais} {long}"), "annealing: "),
        (format!("eval run --bdmc 70 {ais} {long}"), "annealing: "),
        (format!("bounds run --samples 1000 {ais} {long} --out out.svg"), "annealing: "),
        ("bench --repetitions 1000 --device cpu --json --svg out.svg".into(), "matmul 64"),
    ] {
        for signal in [("INT", 130), ("TERM", 143)] {
            let mut running = start(at.path(), &command);
            running.wait_for(phase);
            let (code, said) = running.stop(signal.0);
            assert_eq!(code, signal.1, "elbo {command}: {said}");
            assert_eq!(names(at.path()), before, "elbo {command}");
        }
    }
}
