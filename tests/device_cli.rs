//! The command on CUDA, as a user runs it, under the emulated driver: the library's folder in LD_LIBRARY_PATH.

#![cfg(feature = "cuda")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `elbo` under the emulated driver; `None`, with the reason printed, where there is none.
fn elbo(at: &Path, arguments: &str, settings: &[(&str, &str)]) -> Option<Output> {
    if !common::emulated() {
        return None;
    }
    let library = elbo_emulator::library().unwrap().parent().expect("the library lies in a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
    command.args(arguments.split_whitespace()).current_dir(at).env("LD_LIBRARY_PATH", library);
    Some(command.envs(settings.iter().copied()).output().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SMALL: &str = "train --train-size 150 --test-size 60 --epochs 2 --hidden 24 --latent 2 --batch 32";

#[test]
fn a_model_is_trained_evaluated_and_drawn_from() {
    let at = tempfile::tempdir().unwrap();
    for out in ["a", "b"] {
        let Some(run) = elbo(at.path(), &format!("{SMALL} --device cuda --out {out}"), &[]) else { return };
        assert!(run.status.success(), "{}", text(&run.stderr));
        assert!(text(&run.stderr).contains("cuda:0 (elbo emulated device, f32)"), "{}", text(&run.stderr));
        assert!(text(&run.stdout).contains("test −ELBO"), "{}", text(&run.stdout));
    }
    for file in ["checkpoint.safetensors", "metrics.jsonl", "samples.png", "manifold.png", "scatter.png"] {
        let read = |run: &str| fs::read(at.path().join(run).join(file)).unwrap();
        assert!(read("a") == read("b"), "{file}: two runs differ");
    }
    // What was trained on one device is evaluated on the other; noise and images are the same there.
    let figure = |device: &str| -> f64 {
        let run = elbo(at.path(), &format!("eval a --device {device}"), &[]).unwrap();
        assert!(run.status.success(), "{}", text(&run.stderr));
        let line = text(&run.stdout);
        line.split_whitespace().nth(2).unwrap().parse().unwrap_or_else(|_| panic!("{line}"))
    };
    assert!((figure("cuda") - figure("cpu")).abs() < 0.011, "{} and {}", figure("cuda"), figure("cpu"));
}

#[test]
fn a_run_on_cuda_goes_on_where_it_stopped() {
    let at = tempfile::tempdir().unwrap();
    let Some(whole) = elbo(at.path(), &format!("{SMALL} --device cuda --out whole"), &[]) else { return };
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    elbo(at.path(), &format!("{SMALL} --device cuda --out parts --pause-at 7"), &[]).unwrap();
    let resumed = elbo(at.path(), "train --resume parts --device cuda", &[]).unwrap();
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    let read = |run: &str| fs::read(at.path().join(run).join("checkpoint.safetensors")).unwrap();
    assert!(read("whole") == read("parts"), "an interrupted run ends elsewhere");
    assert!(!text(&resumed.stderr).contains("note:"), "{}", text(&resumed.stderr));
    // The other half of a run on another device.
    elbo(at.path(), &format!("{SMALL} --device cuda --out mixed --pause-at 7"), &[]).unwrap();
    let moved = elbo(at.path(), "train --resume mixed --device cpu", &[]).unwrap();
    let message = text(&moved.stderr);
    let note = message.lines().find(|line| line.starts_with("note:")).unwrap_or_else(|| panic!("{message}"));
    assert!(moved.status.success() && note.contains("epoch 1 ran on cuda:0 (elbo emulated device, f32)"), "{note}");
}

#[test]
fn what_the_gpu_lacks_is_said_with_a_remedy() {
    let at = tempfile::tempdir().unwrap();
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 4] = [
        ("--device cuda", &[("ELBO_EMU_MEMORY", "100000")], &["MiB of memory were asked for", "free", "--batch"]),
        ("--device cuda --precision tf32", &[("ELBO_EMU_CC", "75")], &["tf32", "8.0", "7.5", "--precision f32"]),
        ("--device cuda", &[("ELBO_EMU_CC", "70")], &["compute capability 7.0", "7.5"]),
        ("--device cuda:3", &[], &["cuda:3", "no GPU 3"]),
    ];
    for (more, settings, words) in cases {
        let Some(run) = elbo(at.path(), &format!("{SMALL} {more}"), settings) else { return };
        assert_eq!(run.status.code(), Some(1), "{more} {settings:?}: {}", text(&run.stderr));
        let message = text(&run.stderr);
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} in {message}");
        assert!(fs::read_dir(at.path()).unwrap().next().is_none(), "a refused run leaves nothing behind");
    }
}

#[test]
fn auto_does_not_take_the_emulation() {
    let at = tempfile::tempdir().unwrap();
    let line = "train --train-size 64 --test-size 10 --epochs 1 --out run";
    let Some(run) = elbo(at.path(), line, &[]) else { return };
    let message = text(&run.stderr);
    assert!(
        run.status.success() && message.contains("running on the CPU") && message.contains("emulator"),
        "{message}"
    );
}

/// Replicas share launches, and each has the bytes of a run of its own.
#[test]
fn replicas_on_cuda_have_the_bytes_of_runs_alone() {
    let at = tempfile::tempdir().unwrap();
    let Some(run) = elbo(at.path(), &format!("{SMALL} --seed 5 --replicas 3 --device cuda --out all"), &[]) else {
        return;
    };
    let told = text(&run.stderr);
    assert!(run.status.success(), "{told}");
    assert!(told.contains("3 runs, up to 3 at the same time, on one GPU"), "{told}");
    assert!(told.contains("launches shared by"), "{told}");
    let one_by_one = format!("{SMALL} --seed 5 --replicas 3 --jobs 1 --device cuda --out one-by-one");
    let run = elbo(at.path(), &one_by_one, &[]).unwrap();
    assert!(run.status.success() && !text(&run.stderr).contains("launches shared by"), "{}", text(&run.stderr));
    for seed in 5..8 {
        let alone = format!("{SMALL} --seed {seed} --device cuda --out alone{seed}");
        assert!(elbo(at.path(), &alone, &[]).unwrap().status.success());
        for file in ["checkpoint.safetensors", "metrics.jsonl", "samples.png"] {
            let read = |run: String| fs::read(at.path().join(run).join(file)).unwrap();
            let expected = read(format!("alone{seed}"));
            assert!(read(format!("all/seed{seed}")) == expected, "{file} of seed {seed}: together and alone differ");
            assert!(read(format!("one-by-one/seed{seed}")) == expected, "{file} of seed {seed}: one by one");
        }
    }
    let many = elbo(at.path(), &format!("{SMALL} --replicas 20 --jobs 20 --device cuda --out many"), &[]).unwrap();
    assert!(!many.status.success() && text(&many.stderr).contains("16"), "{}", text(&many.stderr));
    assert!(!at.path().join("many").exists());
}

/// A launch that is set up ahead is one that begins earlier, and no other; where the driver refuses, or the user, it is not.
#[test]
fn launches_that_are_set_up_ahead_leave_the_bytes_alone() {
    let at = tempfile::tempdir().unwrap();
    for (out, settings) in [
        ("ahead", &[][..]),
        ("off", &[("ELBO_AHEAD", "off"), ("ELBO_EMU_AHEAD", "refuse")]),
        ("refused", &[("ELBO_EMU_AHEAD", "refuse")]),
    ] {
        let Some(run) = elbo(at.path(), &format!("{SMALL} --device cuda --out {out}"), settings) else { return };
        assert!(run.status.success(), "{out}: {}", text(&run.stderr));
    }
    let read = |run: &str| fs::read(at.path().join(run).join("checkpoint.safetensors")).unwrap();
    assert!(read("ahead") == read("off") && read("ahead") == read("refused"));
    let wrong = elbo(at.path(), &format!("{SMALL} --device cuda --out wrong"), &[("ELBO_AHEAD", "of")]).unwrap();
    assert!(
        !wrong.status.success() && text(&wrong.stderr).contains("ELBO_AHEAD: found \"of\", expected off"),
        "{}",
        text(&wrong.stderr)
    );
}

/// Models that do not fit the GPU together are told so, with the option that helps, and the sweep can go on with it.
#[test]
fn models_that_do_not_fit_together_are_told_so() {
    let at = tempfile::tempdir().unwrap();
    let small = &[("ELBO_EMU_MEMORY", "120000000")];
    let Some(run) = elbo(at.path(), &format!("{SMALL} --replicas 3 --device cuda --out all"), small) else { return };
    let told = text(&run.stderr);
    assert!(!run.status.success() && told.contains("train fewer at the same time"), "{told}");
    assert!(told.contains("(--jobs)") && told.contains("models that share launches"), "{told}");
    let rest = elbo(at.path(), "sweep --resume all --device cuda --jobs 1", small).unwrap();
    assert!(rest.status.success(), "{}", text(&rest.stderr));
}
