//! `elbo bench`, run as its users run it.
#![cfg(feature = "cli")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(at: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
    command.current_dir(at).arg("bench").args(arguments.split_whitespace()).output().unwrap()
}

/// The names of the elements of an XML text without comments, each checked to be closed.
fn elements(xml: &str) -> Vec<String> {
    let (mut names, mut open) = (Vec::new(), Vec::new());
    for tag in xml.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.trim_matches('/').split_whitespace().next().unwrap().to_string();
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop().as_deref(), Some(closed), "in {xml}"),
            None if tag.ends_with('/') => names.push(name),
            None => {
                names.push(name.clone());
                open.push(name);
            }
        }
    }
    assert!(open.is_empty(), "{open:?} are never closed");
    names
}

#[test]
fn tables_json_and_picture_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = "--quick --only matmul,reduce --repetitions 1 --threads 2 --device cpu";
    let output = bench(folder.path(), arguments);
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{errors}");
    for part in ["matrix product", "sum of all elements", "GFLOP/s", "GPU  not measured: --device cpu", "threads: 2"] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    assert!(errors.contains("matmul 128") && !text.contains("crossover"));

    let output = bench(folder.path(), &format!("{arguments} --json --svg new/b.svg"));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let machine = &json["machine"];
    assert_eq!(machine["version"], env!("CARGO_PKG_VERSION"));
    assert!(machine["command"].as_str().unwrap().starts_with("elbo bench --quick"));
    assert!(
        machine["gpu"].is_null() && machine["no_gpu"].is_string() && machine["date"].as_str().unwrap().ends_with('Z')
    );
    let families = json["families"].as_array().unwrap();
    assert_eq!(families.len(), 2);
    let rows = families[0]["rows"].as_array().unwrap();
    let labels: Vec<&str> = rows.iter().map(|r| r["label"].as_str().unwrap()).collect();
    assert_eq!(labels[..3], ["64", "128", "256"]);
    assert!(labels[3..].contains(&"784×32ᵀ·32×400"), "{labels:?}");
    for row in rows.iter().chain(families[1]["rows"].as_array().unwrap()) {
        let number = |key: &str| row["cpu"][key].as_f64().unwrap();
        let seconds = row["cpu"]["seconds_per_step"]["median"].as_f64().unwrap();
        assert!(seconds > 0.0 && number("error") <= number("error_bound"));
        assert!((number("roofline_share") * seconds / number("roofline_seconds") - 1.0).abs() < 1e-9);
        assert!((number("gflops") * 1e9 * seconds / row["flops"].as_f64().unwrap() - 1.0).abs() < 1e-9);
        assert!(row["gpu"].is_null() && row["speed_up"].is_null());
    }
    assert_eq!(rows[1]["flops"], 2 * 128 * 128 * 128);

    let svg = fs::read_to_string(folder.path().join("new/b.svg")).unwrap();
    let names = elements(&svg);
    assert_eq!(names[0], "svg");
    assert!(names.iter().filter(|n| *n == "polyline").count() >= 2 && svg.contains("time per step"));
    let left: Vec<_> = fs::read_dir(folder.path().join("new")).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file is left behind");
}

/// Under the emulated driver both halves run, and no figure of the GPU can be taken for a speed.
#[test]
#[cfg(feature = "cuda")]
fn emulated_figures_are_called_so() {
    let library = match elbo_emulator::library() {
        Ok(library) => library,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let bench = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
        command.current_dir(folder.path()).env("LD_LIBRARY_PATH", library.parent().unwrap());
        command.args(arguments.split_whitespace()).output().unwrap()
    };
    let arguments = "bench --quick --only reduce,adam --device cuda";
    let output = bench(arguments);
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{errors}");
    assert!(
        text.contains("MEANINGLESS AS A SPEED") && text.contains("crossover, with transfers (the elements up"),
        "{text}"
    );

    let json: Value = serde_json::from_slice(&bench(&format!("{arguments} --json --svg b.svg")).stdout).unwrap();
    assert!(json["machine"]["gpu"]["emulated"].as_bool().unwrap());
    assert!(json["note"].as_str().unwrap().contains("emulated, meaningless as a speed"));
    for family in json["families"].as_array().unwrap() {
        assert!(family["crossover"]["kind"].is_string() && family["crossover_with_transfers"]["kind"].is_string());
        for row in family["rows"].as_array().unwrap() {
            let number = |v: &Value| v.as_f64().unwrap();
            let (cpu, gpu) = (&row["cpu"], &row["gpu"]);
            assert!(number(&gpu["error"]) <= number(&gpu["error_bound"]));
            let median = |device: &Value, which: &str| number(&device[which]["median"]);
            let ratio = median(cpu, "seconds_per_step") / median(gpu, "seconds_per_step_with_transfers");
            assert!((number(&row["speed_up_with_transfers"]) / ratio - 1.0).abs() < 1e-9);
        }
    }
    let svg = fs::read_to_string(folder.path().join("b.svg")).unwrap();
    assert!(elements(&svg).len() > 20 && svg.contains("GPU emulated, meaningless as a speed"));
}

#[test]
fn wrong_arguments_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, words) in [
        ("--only gemm", 2, "matmul, pointwise, reduce, adam, v1, v2"),
        ("--repetitions 0", 2, "repetitions"),
        ("--device tpu", 2, "auto, cpu, cuda"),
        ("--device cuda:99 --quick --only reduce", 1, "cuda:99"),
    ] {
        let output = bench(folder.path(), arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {errors}");
        assert!(errors.contains(words), "{arguments}: {errors}");
    }
}
