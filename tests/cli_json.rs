//! Every command that prints a result prints it as JSON too, with the fields that docs/book/src/json.md says, and no others.

#![cfg(feature = "cli")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Each command with command lines that show all of its fields.
const COMMANDS: &[(&str, &[&str])] = &[
    (
        "train",
        &[
            "train --train-size 120 --test-size 30 --hidden 8 --latent 2 --batch 40 --epochs 2 --quiet --device cpu -o runs/a",
            "train --resume runs/a --device cpu",
            "train --train-size 40 --test-size 9 --hidden 4 --epochs 2 --pause-at 1 --quiet --device cpu -o runs/b",
        ],
    ),
    (
        "sweep",
        &["sweep --train-size 40 --test-size 9 --hidden 4 --epochs 1 --vary latent=2,3 --quiet --device cpu -o runs/c"],
    ),
    ("sample", &["sample runs/a -n 4 --device cpu"]),
    ("reconstruct", &["reconstruct runs/a -n 4 --draw --device cpu"]),
    ("decode", &["decode runs/a --z 0.1,0.5 --z -1,0 --draw --device cpu"]),
    ("interpolate", &["interpolate runs/a --from 0 --to 3 -n 3 --device cpu"]),
    ("eval", &["eval runs/a --estimators elbo,iwae --samples 5 --images 2 --bdmc 1 --temperatures 2 --device cpu"]),
    ("runs", &["runs"]),
    ("report", &["report runs/a --device cpu"]),
    ("derive", &["derive", "derive softplus(l)-x*l --at l=2,x=1 --order 2"]),
    ("gradcheck", &["gradcheck", "gradcheck x^2 --at x=1"]),
    ("exercise", &["exercise", "exercise 2.3 --answer 10"]),
    ("lab", &["lab --samples 1,4 --draws 40 --distances 0,1 --quiet --device cpu"]),
    ("bounds", &["bounds runs/a --samples 10 --chains 1 --temperatures 2 --leapfrog 1 --device cpu"]),
    (
        "richness",
        &[
            "richness runs/a --draws 5 --quiet --device cpu",
            "richness --latents 1,2 --train-size 60 --test-size 20 --hidden 4 --epochs 1 --draws 5 --quiet --device cpu",
        ],
    ),
    ("implied-sigma", &["implied-sigma --kl-weight 0.5"]),
    ("plan", &["plan --batch 4 --hidden 8 --graph --time 1 --device cpu"]),
    ("bench", &["bench --quick --only reduce --repetitions 1 --device cpu"]),
    ("export", &["export runs/a", "export runs/a --format onnx"]),
    ("info", &["info"]),
    ("recipes", &["recipes"]),
    (
        "reproduce",
        &["reproduce --recipe small.toml --train-size 60 --test-size 20 --nll-samples 3 --quiet --device cpu"],
    ),
];

/// One prints no result; the other's needs a program that has the engine for pages (tests/explore.rs).
const OTHERS: [&str; 2] = ["completions", "explore"];

/// A recipe that takes a moment.
const SMALL: &str = r#"
base = "iwae-1l-vae-k1"
title = "a small one"
[config.model]
encoder = [6]
decoder = [6]
latent = 2
[schedule]
stages = [{ epochs = 1, lr = 1e-3 }]
"#;

fn elbo(at: &Path, arguments: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
    let output = command.current_dir(at).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "elbo {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that the help lists.
fn listed(help: &str) -> BTreeSet<&str> {
    let commands = help.lines().take_while(|line| *line != "Options:");
    commands.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect()
}

/// The fields in the section of a command: the names in the first column of its tables, or in its text where it has none.
fn documented(command: &str) -> BTreeSet<&'static str> {
    let text = include_str!("../docs/book/src/json.md");
    let heading = format!("\n## elbo {command}\n");
    let (_, section) =
        text.split_once(&heading).unwrap_or_else(|| panic!("docs/book/src/json.md has no section elbo {command}"));
    let section = section.split("\n## ").next().unwrap();
    let tables: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let names: Vec<&str> = if tables.is_empty() { vec![section] } else { tables };
    names.into_iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|name| !name.contains('-')).collect()
}

#[test]
fn every_result_is_there_as_json_with_the_fields_that_are_documented() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("small.toml"), SMALL).unwrap();
    let help = elbo(at, "-h");
    let known: BTreeSet<&str> = COMMANDS.iter().map(|c| c.0).chain(OTHERS).collect();
    assert_eq!(listed(&help), known, "a new command belongs into this list and into docs/book/src/json.md");
    for (command, lines) in COMMANDS {
        let documented = documented(command);
        let mut seen = BTreeSet::new();
        for line in *lines {
            let text = elbo(at, &format!("{line} --json"));
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("elbo {line}: {e}\n{text}"));
            let fields = value.as_object().unwrap_or_else(|| panic!("elbo {line}: no object: {text}"));
            for field in fields.keys().filter(|field| !field.starts_with("gpu_")) {
                assert!(
                    documented.contains(field.as_str()),
                    "elbo {line}: docs/book/src/json.md does not say what {field} is"
                );
            }
            seen.extend(fields.keys().cloned());
        }
        // What a machine has not is no mistake of the document, nor a run that nobody stopped.
        let may_lack = |field: &&str| match *command {
            "info" => true,
            "reproduce" => ["outcome", "run"].contains(field),
            "richness" => *field == "outcome",
            _ => false,
        };
        let missing: Vec<_> = documented.iter().filter(|f| !seen.contains(**f) && !may_lack(f)).collect();
        assert!(missing.is_empty(), "docs/book/src/json.md has fields that elbo {command} does not print: {missing:?}");
    }
}
