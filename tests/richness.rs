//! `elbo richness` and the collapse alarm of `elbo train`, run as their users run them, on a few hundred built-in digits.

#[path = "common/command.rs"]
mod command;

use std::fs;
use std::path::Path;

use command::{fails, says};
use elbo::train::checkpoint::Checkpoint;
use serde_json::Value;

const TINY: &str = "--train-size 400 --test-size 90 --hidden 24 --batch 64 --quiet --device cpu";

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_list_of_k_is_trained_compared_and_not_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let command = format!("richness {TINY} --latents 3,1 --epochs 2 --draws 40 --out list");
    let (text, _) = says(at, &command);
    for part in [
        "−ELBO",
        "15-NN",
        "confident",
        "This z of 1 dimension is",
        "I_q(z;y)",
        "list/richness.json and list/richness.svg",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    let found = json(&at.join("list/richness.json"));
    let runs = found["runs"].as_array().unwrap();
    assert_eq!([&runs[0]["latent"], &runs[1]["latent"]], [1, 3]);
    assert!(text.contains(found["answer"].as_str().unwrap()));
    // The same figure as in the run's own journal.
    let journal = fs::read_to_string(at.join("list/k03/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(journal.lines().last().unwrap()).unwrap();
    assert_eq!(runs[1]["neg_elbo"], last["test_neg_elbo"]);
    let svg = fs::read_to_string(at.join("list/richness.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("784-24-K-24-784"), "{svg}");

    // Again, with one K more and another number of threads: the runs that are there are taken, with equal numbers.
    let checkpoint = at.join("list/k03/checkpoint.safetensors");
    let written = fs::metadata(&checkpoint).unwrap().modified().unwrap();
    let command = command.replace("3,1", "1,2,3");
    says(at, &format!("{command} --threads 1"));
    assert_eq!(fs::metadata(&checkpoint).unwrap().modified().unwrap(), written);
    let again = json(&at.join("list/richness.json"));
    assert_eq!([&again["runs"][0], &again["runs"][2]], [&runs[0], &runs[1]]);
    assert_eq!(again["runs"][1]["latent"], 2);

    fails(at, &format!("{command} --beta 2"), 1, &["k01", "warmup.beta", "1.0", "2.0", "another --out"]);
    fails(at, "richness", 2, &["--latents"]);
    fails(at, "richness --latents 2 --latent 3", 2, &["--latent"]);
    fails(at, "richness --latents 2,0", 2, &["latent"]);
    fails(at, "richness --latents 2 --draws 0", 2, &["draws"]);
}

#[test]
fn an_interrupted_run_of_a_list_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let run = format!("train {TINY} --latent 2 --epochs 2");
    says(at, &format!("{run} --out list/k02 --pause-at 9"));
    says(at, &format!("richness {TINY} --latents 2 --epochs 2 --draws 10 --out list"));
    says(at, &format!("{run} --out whole"));
    for name in ["checkpoint.safetensors", "metrics.jsonl"] {
        assert!(
            fs::read(at.join("list/k02").join(name)).unwrap() == fs::read(at.join("whole").join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn one_run_is_looked_into_with_and_without_labels() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    says(at, &format!("train {TINY} --latent 2 --epochs 1 --out run"));
    let command = "richness run --device cpu --draws 30";
    let (text, _) = says(at, command);
    for part in [
        "of 2 are active",
        "linear probe",
        "by Fano",
        "I_q(z;y), at least",
        "I_q(x;z)",
        "ln 90 = 4.50",
        "plainly one class",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    let found: Value = serde_json::from_str(&says(at, &format!("{command} --json")).0).unwrap();
    assert_eq!((&found["latent"], &found["test_images"]), (&Value::from(2), &Value::from(90)));
    assert_eq!(says(at, &format!("{command} --threads 1")).0, text, "equal seeds, equal numbers");
    fails(at, "richness run --hidden 3", 2, &["[RUN]", "--hidden"]);

    use elbo::data::{Splits, idx};
    let data = Splits::digits(1, 120, 60);
    fs::create_dir(at.join("bare")).unwrap();
    for (name, set) in [("train", &data.train), ("t10k", &data.test)] {
        idx::write_idx(&at.join(format!("bare/{name}-images-idx3-ubyte")), &[set.rows, 28, 28], &set.images).unwrap();
    }
    let (text, _) = says(at, "richness run --data bare --device cpu");
    assert!(text.contains("the images have no labels") && text.contains("I_q") && !text.contains("probe"), "{text}");
}

#[test]
fn collapse_is_said_while_it_happens_and_health_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let run = format!("train {} --latent 8 --epochs 6", TINY.replace("--batch 64", "--batch 8"));
    let (summary, warnings) = says(at, &format!("{run} --beta 1000 --out dead"));
    for part in ["posterior collapse after epoch", "0 of 8 latent units", "no better than one distribution per pixel"] {
        assert_eq!(warnings.matches(part).count(), 1, "{warnings}\nsays \"{part}\" not once");
    }
    assert!(warnings.contains("--kl-warmup") && summary.contains("0 of 8 latent units are active"), "{summary}");
    let journal = fs::read_to_string(at.join("dead/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(journal.lines().last().unwrap()).unwrap();
    assert_eq!(last["active_units"], 0);

    let healthy = "train --train-size 3000 --test-size 300 --hidden 100 --latent 2 --lr 3e-3 --batch 32 --epochs 4 --quiet --device cpu";
    let (summary, warnings) = says(at, &format!("{healthy} --out alive"));
    assert!(!warnings.contains("warning: posterior") && !warnings.contains("no better"), "{warnings}");
    assert!(!summary.contains("latent units are active"), "{summary}");
}

#[test]
fn dead_units_are_reported_and_stay_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    says(at, &format!("train {TINY} --latent 2 --epochs 1 --out run"));
    let path = at.join("run/checkpoint.safetensors");
    let mut checkpoint = Checkpoint::load(&path).unwrap();
    let mut killed = |layer: &str, count: usize| {
        let bias = checkpoint.slots.get_mut(&format!("{layer}.bias")).unwrap();
        bias.fill(2.0);
        bias[..count].fill(-1e3);
        // Without its moments, because Adam goes on for a while where a gradient has been.
        for (name, values) in &mut checkpoint.slots {
            if name.ends_with(&format!("{layer}.weight")) && *name != format!("{layer}.weight") {
                values.fill(0.0);
            }
        }
    };
    killed("encoder.0", 5);
    killed("decoder.0", 3);
    checkpoint.save(&path).unwrap();
    let before = checkpoint.slots["encoder.0.weight"].clone();
    let (summary, _) = says(at, "train --resume run --epochs 2 --quiet --device cpu");
    let line = "units over 90 test images: encoder.0 5 of 24 dead, decoder.0 3 of 24 dead, z ";
    assert!(summary.contains(line) && summary.contains(" of 2 inactive\n"), "{summary}");
    let journal = fs::read_to_string(at.join("run/metrics.jsonl")).unwrap();
    let of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["dead_units"].to_string();
    let hidden = r#"[{"dead":5,"layer":"encoder.0","units":24},{"dead":3,"layer":"decoder.0","units":24}]"#;
    let lines: Vec<String> = journal.lines().map(of).collect();
    assert!(lines.len() == 2 && lines[0] != hidden && lines[1] == hidden, "{lines:?}");
    // No gradient: the weights into a dead unit have not moved, the others have. `[in, out]`
    let after = Checkpoint::load(&path).unwrap().slots["encoder.0.weight"].clone();
    let moved = |unit: usize| (0..784).any(|pixel| before[pixel * 24 + unit] != after[pixel * 24 + unit]);
    assert!((0..5).all(|unit| !moved(unit)) && moved(5), "units 0 to 4 are dead");
}

#[test]
fn journals_of_older_versions_are_read() {
    let line = "{\"epoch\":1,\"updates\":5,\"lr\":0.001,\"beta\":1.0,\"train_neg_elbo\":3.0,\"train_rec\":2.0,\"train_kl\":1.0,\
                \"train_loss\":3.0,\"test_neg_elbo\":3.0,\"test_rec\":2.0,\"test_kl\":1.0}";
    let record: elbo::train::EpochRecord = serde_json::from_str(line).unwrap();
    assert_eq!((record.epoch, record.active_units, record.dead_units), (1, None, None));
}
