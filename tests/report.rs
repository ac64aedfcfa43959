//! `elbo report`, `elbo train --tensorboard` and `elbo export --format onnx`, through the program.

#[path = "common/command.rs"]
mod command;

use command::{fails, says};
use std::fs;

const TINY: &str = "train --train-size 200 --test-size 40 --hidden 12 --batch 50 --epochs 2 --quiet --device cpu";

fn contains(page: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(page.contains(word), "the page does not say {word}"));
}

#[test]
fn a_report_shows_what_the_run_holds_and_equal_runs_give_equal_bytes() {
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    says(at, &format!("{TINY} --latent 2 --out two"));
    let (said, _) = says(at, "report two --device cpu");
    assert_eq!(said, "report of 1 run: report.html\n");
    let page = fs::read_to_string(at.join("report.html")).unwrap();
    contains(
        &page,
        &[
            "a fair coin per pixel",
            "this model",
            "2 of 2 epochs",
            "model.latent",
            "elbo train --train-size 200",
            "--latent 2 --out two",
            "elbo train --resume two --epochs 4",
            "The plane of z",
            "encoder.0",
            "data:image/png;base64,iVBOR",
        ],
    );
    // The last test −ELBO is the run's own, and all intervals are there: 4 updates in each of 2 epochs.
    let last = fs::read_to_string(at.join("two/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    contains(&page, &[&format!("{:.2}", last["test_neg_elbo"].as_f64().unwrap())]);
    contains(&page, &["\"updates\":[1,2,3,4,5,6,7,8]"]);
    assert!(!page.contains("http:") && !page.contains("https:"));
    says(at, "report two --device cpu -o again.html");
    assert!(fs::read(at.join("again.html")).unwrap() == page.as_bytes());
    // Steps are means of what was learned from: weighted by their images they give the epoch.
    let steps = fs::read_to_string(at.join("two/steps.jsonl")).unwrap();
    let steps: Vec<serde_json::Value> = steps.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let second = steps.iter().filter(|step| step["epoch"] == 2);
    let sum: f64 = second.map(|step| step["rec"].as_f64().unwrap() * step["images"].as_f64().unwrap()).sum();
    assert!((sum / 200.0 - last["train_rec"].as_f64().unwrap()).abs() < 1e-9);
}

#[test]
fn several_runs_stand_side_by_side_and_what_differs_is_marked() {
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    says(at, &format!("{TINY} --latent 2 --out a"));
    says(at, &format!("{TINY} --latent 5 --likelihood gaussian --out b"));
    says(at, "report a b a/checkpoint.safetensors --device cpu -o all.html");
    let page = fs::read_to_string(at.join("all.html")).unwrap();
    contains(&page, &["3 variational autoencoders", "only differences", "gaussian (sigma ≥ 0.1) likelihood"]);
    contains(&page, &["The runs share these axes", "b: gaussian"]);
    let row = |field: &str| page.lines().find(|line| line.contains(&format!(">{field}</th>"))).unwrap().to_string();
    assert!(row("model.latent").starts_with("<tr class=\"differs\">") && row("seed").starts_with("<tr><th"));
    // A checkpoint alone has no journals.
    contains(&page, &["the command was not written down", "Without values within epochs"]);
}

#[test]
fn a_run_without_its_images_is_reported_without_what_needs_them() {
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    says(at, &format!("{TINY} --latent 2 --out digits"));
    let digits = elbo::data::Splits::digits(1, 60, 40);
    fs::create_dir(at.join("own")).unwrap();
    for (set, name) in [(&digits.train, "train"), (&digits.test, "t10k")] {
        let mut images = vec![0, 0, 8, 3];
        [set.rows, 28, 28].iter().for_each(|&n| images.extend((n as u32).to_be_bytes()));
        images.extend(&set.images);
        fs::write(at.join(format!("own/{name}-images-idx3-ubyte")), images).unwrap();
        let mut labels = vec![0, 0, 8, 1];
        labels.extend((set.rows as u32).to_be_bytes());
        labels.extend(set.labels.as_ref().unwrap());
        fs::write(at.join(format!("own/{name}-labels-idx1-ubyte")), labels).unwrap();
    }
    says(at, "train --data own --hidden 12 --batch 20 --epochs 1 --quiet --device cpu --latent 2 --out run");
    fs::rename(at.join("own"), at.join("elsewhere")).unwrap();
    let (said, notes) = says(at, "report run --device cpu");
    assert!(said.contains("1 run") && notes.contains("note: run without") && notes.contains("--data"), "{notes}");
    let page = fs::read_to_string(at.join("report.html")).unwrap();
    contains(&page, &["Not shown, because", "Samples", "as its journal says", "data:image/png"]);
    says(at, "report run --data elsewhere --device cpu");
    assert!(!fs::read_to_string(at.join("report.html")).unwrap().contains("Not shown, because"));
}

#[test]
fn a_report_of_nothing_or_over_a_run_is_refused() {
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    says(at, &format!("{TINY} --latent 2 --out run"));
    fails(at, "report", 2, &["<RUN>"]);
    fails(at, "report nowhere", 1, &["nowhere"]);
    fails(at, "report run -o page.png", 2, &["page.png", ".html"]);
    fails(at, &format!("report {}", "run ".repeat(13)), 2, &["13 runs", "at most 12"]);
    assert!(!at.join("report.html").exists());
}

/// CRC32C bit by bit, as against the table of a library.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1)))
    })
}

/// The records of a file of events, after a look at every check.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let masked = |bytes: &[u8]| crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(masked(&bytes[..8]), bytes[8..12]);
        assert_eq!(masked(&bytes[12..12 + length]), bytes[12 + length..16 + length]);
        found.push(bytes[12..12 + length].to_vec());
        bytes = &bytes[16 + length..];
    }
    found
}

#[test]
fn tensorboard_gets_a_file_for_every_session_and_the_training_the_same_bytes() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    says(at, &format!("{TINY} --latent 2 --out plain"));
    says(at, &format!("{TINY} --latent 2 --out run --tensorboard --pause-at 5"));
    let (_, said) = says(at, "train --resume run --quiet --device cpu --tensorboard");
    assert!(said.contains("for TensorBoard: tensorboard --logdir run\n"), "{said}");
    for name in ["checkpoint.safetensors", "metrics.jsonl"] {
        assert!(
            fs::read(at.join("run").join(name)).unwrap() == fs::read(at.join("plain").join(name)).unwrap(),
            "{name}"
        );
    }
    let names = |folder: &str| {
        let entries = fs::read_dir(at.join(folder)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.filter(|name| name.starts_with("events.out.tfevents.")).collect();
        names.sort();
        names
    };
    assert_eq!(names("plain").len(), 0);
    let files = names("run");
    assert_eq!(files.len(), 2, "{files:?}");
    let has = |records: &[Vec<u8>], text: &str| {
        records.iter().filter(|record| record.windows(text.len()).any(|w| w == text.as_bytes())).count()
    };
    for file in &files {
        let records = records(&fs::read(at.join("run").join(file)).unwrap());
        assert_eq!(has(&records[..1], "brain.Event:2"), 1);
        // One whole epoch in each of the two sessions.
        assert_eq!((has(&records, "neg_elbo/test"), has(&records, "configuration")), (1, 1), "{file}");
    }
    let last = records(&fs::read(at.join("run").join(&files[1])).unwrap());
    assert_eq!(has(&last, "samples"), 1);
    // A run that fails before its first epoch leaves its folder free.
    let wild = "--latent 2 --optimizer sgd --lr 1e30 --tensorboard --out wild";
    fails(at, &format!("{TINY} {wild}"), 1, &["--lr"]);
    assert!(!at.join("wild").exists());
}

#[test]
fn encoder_and_decoder_are_written_as_onnx_with_values_to_compare() {
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    says(at, &format!("{TINY} --latent 3 --likelihood gaussian --out run"));
    let (said, _) = says(at, "export run --format onnx -o out --check-values values.json");
    assert!(said.contains("mu, logvar") && said.contains("mean, sigma"), "{said}");
    for (name, inner) in [("encoder", "encoder.0.weight"), ("decoder", "decoder.sigma.bias")] {
        let bytes = fs::read(at.join(format!("out/{name}.onnx"))).unwrap();
        let model = elbo::study::onnx::decode(&bytes).unwrap();
        assert!(model.graph.unwrap().initializer.iter().any(|tensor| tensor.name == inner));
        let command = model.metadata_props.iter().find(|entry| entry.key == "command").unwrap();
        assert!(command.value.starts_with("elbo train --train-size 200"), "{}", command.value);
    }
    let values: serde_json::Value = serde_json::from_slice(&fs::read(at.join("values.json")).unwrap()).unwrap();
    assert_eq!(values["decoder"]["sigma"].as_array().unwrap().len(), 16 * 784);
    assert_eq!(values["encoder"]["logvar"].as_array().unwrap().len(), 16 * 3);
}

#[test]
fn what_cannot_be_exported_as_onnx_is_refused() {
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    says(at, &format!("{TINY} --latent 3 --upper 6:2:6 --out deep"));
    fails(at, "export deep --format onnx -o out", 2, &["format", "2 stochastic layers", "safetensors"]);
    assert!(!at.join("out").exists());
    fails(at, "export deep --format onnx -o out.onnx", 2, &["out.onnx", "a folder"]);
    fails(at, "export deep --format onnx --dtype f16", 2, &["dtype", "f32"]);
    fails(at, "export deep --check-values x.json", 2, &["check-values", "onnx"]);
    fails(at, "export deep --format torch", 2, &["safetensors", "onnx"]);
    fails(at, "export deep -o model.onnx", 2, &["model.onnx", ".safetensors"]);
}
