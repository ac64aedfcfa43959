//! Looking at a model: a z of one's own, the way between two images, thrown images, the list of runs, names and curves.

#![cfg(feature = "cli")]

#[path = "common/command.rs"]
mod command;

use std::fs;
use std::path::Path;

use command::{fails, json, succeeds};
use serde_json::Value;

const TINY: &str = "train --train-size 200 --test-size 50 --hidden 10 --batch 50 --device cpu --quiet";

/// What a PNG file says that it shows, and its pixels.
fn picture(path: &Path) -> (String, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap())).read_info().unwrap();
    let said = reader.info().uncompressed_latin1_text.iter().find(|text| text.keyword == "Description");
    let said = said.map(|text| text.text.clone()).unwrap_or_default();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    (said, pixels)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn a_z_of_ones_own_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (run, likelihood) in [("plain", "bernoulli"), ("spread", "gaussian"), ("shared", "gaussian-shared")] {
        succeeds(at, &format!("{TINY} --latent 2 --epochs 1 --likelihood {likelihood} -o {run}"));
        let text = succeeds(at, &format!("decode {run} --z 0.1,0.5 --z -1,0 --device cpu -o d.png --draw"));
        // ln(1/2π) − ½(0.01 + 0.25), with the sign that other programs read as a number.
        for part in
            ["z = (0.1, 0.5): log p(z) = -1.9679 nats", "z = (-1, 0): ", "f_μ(z): ", "nearest 20 of 50 test images"]
        {
            assert!(text.contains(part), "{text}\nlacks {part}");
        }
        assert_eq!(text.contains("f_σ(z): "), run != "plain", "{text}");
        let (said, pixels) = picture(&at.join("d.png"));
        assert_eq!(said.contains("f_sigma(z)"), run != "plain", "{said}");
        assert!(said.starts_with("2 rows: f_mu(z)") && said.contains("thrown x ~ p(x|z)") && !pixels.is_empty());
        let found = json(at, &format!("decode {run} --z 0.1,0.5 --z -1,0 --device cpu --neighbours 7"));
        let point = &found["points"][0];
        assert_eq!(numbers(&point["f_mu"]).len(), 784);
        assert!((point["log_p"].as_f64().unwrap() + 1.967_877_066).abs() < 1e-7);
        assert_eq!(point["f_sigma"].is_null(), run == "plain");
        assert!(point["thrown"].is_null(), "only where it is asked for");
        if run == "shared" {
            let spread = numbers(&point["f_sigma"]);
            assert!(spread[0] > 0.0 && spread.iter().all(|s| *s == spread[0]));
        }
        let nearest = point["nearest"].as_array().unwrap();
        let distances: Vec<f64> = nearest.iter().map(|n| n["distance"].as_f64().unwrap()).collect();
        assert!(distances.len() == 7 && distances.is_sorted(), "{distances:?}");
        let shares = point["shares"].as_array().unwrap().iter().map(|s| s["share"].as_f64().unwrap()).sum::<f64>();
        assert!((shares - 1.0).abs() < 1e-12);
    }
    let shown = succeeds(at, "decode plain --z 0,0 --device cpu --show");
    assert!(shown.contains(['░', '▒', '▓']) && shown.lines().count() >= 14 + 4 && !shown.contains('\x1b'), "{shown}");
    fails(at, "decode plain --z 0.1", 2, &["z", "1 number", "2 separated by commas", "K"]);
    fails(at, "decode plain --z 0.1,x", 2, &["--z", "\"x\" is no number"]);
    fails(at, "decode plain", 2, &["--z"]);
    fails(at, "decode plain --z 0,0 --neighbours 51 --device cpu", 2, &["neighbours", "from 1 to 50"]);
    // Nobody asked for 20.
    succeeds(at, &format!("{TINY} --latent 2 --epochs 1 -o few").replace("--test-size 50", "--test-size 9"));
    assert!(succeeds(at, "decode few --z 0,0 --device cpu").contains("nearest 9 of 9 test images"));
}

#[test]
fn the_way_between_two_images_has_them_at_its_ends() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &format!("{TINY} --latent 3 --epochs 1 -o run"));
    for path in ["line", "sphere"] {
        let command = format!("interpolate run --from 2 --to 5 -n 4 --path {path} --device cpu");
        let found = json(at, &command);
        let steps = found["steps"].as_array().unwrap();
        let z: Vec<Vec<f64>> = steps.iter().map(|step| numbers(&step["z"])).collect();
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&z[0], &numbers(&found["from"]["z"])) && near(&z[3], &numbers(&found["to"]["z"])));
        let on_line: Vec<f64> = z[0].iter().zip(&z[3]).map(|(a, b)| a + (b - a) / 3.0).collect();
        assert_eq!(near(&z[1], &on_line), path == "line", "{path}");
        let (said, pixels) = picture(&at.join("interpolation.png"));
        assert!(said.contains("4 means f_mu(z)") && said.contains("test image 5"), "{said}");
        // Six images of 28 × 28 with gaps of 2, enlarged twice.
        assert_eq!(pixels.len(), 2 * (6 * 30 + 2) * 2 * 32);
    }
    fails(at, "interpolate run --from 2 --to 50", 2, &["to", "0 to 49"]);
    fails(at, "interpolate run --from 2 --to 3 -n 1", 2, &["count", "from 2"]);
    fails(at, "interpolate run --from 2 --to 3 --path arc", 2, &["--path", "sphere"]);
}

#[test]
fn pictures_say_whether_they_show_means_or_thrown_images() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &format!("{TINY} --latent 2 --epochs 1 -o run"));
    let means = succeeds(at, "sample run -n 9 -o m.png --device cpu");
    let thrown = succeeds(at, "sample run -n 9 -o t.png --draw --device cpu");
    assert_eq!(means, "9 means f_μ(z), z ~ N(0, I): m.png\n");
    assert_eq!(thrown, "9 thrown images x ~ p(x|z), z ~ N(0, I): t.png\n");
    let (said, grey) = picture(&at.join("m.png"));
    assert_eq!(said, "9 means f_mu(z), z ~ N(0, I)");
    let (said, black_and_white) = picture(&at.join("t.png"));
    assert_eq!(said, "9 thrown images x ~ p(x|z), z ~ N(0, I)");
    let within = |pixels: &[u8]| pixels.iter().filter(|p| ![0, 46, 255].contains(*p)).count();
    assert!(within(&grey) > 1000 && within(&black_and_white) == 0, "a Bernoulli throws 0 and 1; 46 are the gaps");
    succeeds(at, "sample run -n 9 -o again.png --draw --device cpu --threads 1");
    assert_eq!(fs::read(at.join("t.png")).unwrap(), fs::read(at.join("again.png")).unwrap());
    let text = succeeds(at, "reconstruct run -n 5 --draw --device cpu");
    assert!(text.starts_with("5 test images (grey), below each a thrown image x ~ p(x|z), z ~ q(z|x): "), "{text}");
    assert!(picture(&at.join("run/samples.png")).0.starts_with("100 means f_mu(z)"));
}

#[test]
fn runs_are_listed_with_what_differs_and_named_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(succeeds(at, &format!("{TINY} --latent 2 --epochs 2")).contains("test −ELBO by epoch  █▁ ▁ = "));
    succeeds(at, &format!("{TINY} --latent 3 --epochs 1 --seed 3 --learning-rate 1e-4 --binarization dynamic"));
    succeeds(
        at,
        &format!("{TINY} --latent 3 --epochs 1 -o runs/more/inner --batch-size 100").replace("--batch 50", ""),
    );
    let names: Vec<String> =
        json(at, "runs")["runs"].as_array().unwrap().iter().map(|r| r["name"].to_string()).collect();
    let own = ["001-train200-test50-hidden10-batch50-latent2", "002-train200-test50-hidden10-lr0.0001-batch50-"];
    assert!(own.iter().zip(&names).all(|(own, name)| name.contains(own)), "{names:?}");
    fs::create_dir(at.join("runs/broken")).unwrap();
    fs::write(at.join("runs/broken/checkpoint.safetensors"), "no").unwrap();
    let text = succeeds(at, "runs");
    let head = text.lines().next().unwrap();
    for column in ["run", "age", "epochs", "−ELBO", "parameters", "latent", "seed", "lr.lr", "binarisation", "batch"]
    {
        assert!(head.split_whitespace().any(|word| word == column), "{text}\nlacks {column}");
    }
    assert!(!head.contains("encoder") && !head.contains("activation"), "all are alike in them: {text}");
    assert!(text.contains("not readable: broken: ") && text.contains("complete safetensors file"), "{text}");
    let order = |sort: &str| -> Vec<f64> {
        let runs = json(at, &format!("runs --sort {sort}"));
        let runs = runs["runs"].as_array().unwrap().iter();
        runs.map(|run| run["test_neg_elbo"].as_f64().unwrap()).collect()
    };
    assert!(order("elbo").is_sorted() && order("elbo --reverse").is_sorted_by(|a, b| a >= b));
    let found = json(at, "runs");
    assert_eq!(found["runs"].as_array().unwrap().len(), 3);
    assert_eq!(found["runs"][1]["differs"]["seed"], 3);
    assert_eq!(found["unreadable"][0]["name"], "broken");
    assert!(text.contains("note: runs of another likelihood or binarisation"), "{text}");
    fails(at, "runs nowhere", 1, &["nowhere"]);
    fs::create_dir(at.join("fresh")).unwrap();
    assert_eq!(succeeds(&at.join("fresh"), "runs"), "no runs in runs; `elbo train` makes one\n");
    assert_eq!(json(&at.join("fresh"), "runs")["runs"], serde_json::json!([]));
    fs::create_dir(at.join("empty")).unwrap();
    assert!(succeeds(at, "runs empty").starts_with("no runs in empty"));
}

#[test]
fn shells_are_told_the_options_and_their_values() {
    let at = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeeds(at.path(), &format!("completions {shell}"));
        // The scripts of the other two know no values.
        let values: &[&str] = match shell {
            "bash" | "zsh" | "fish" => &["doubly_reparameterised", "gaussian-optimal"],
            _ => &[],
        };
        for word in ["interpolate", "kl-warmup"].iter().chain(values) {
            assert!(script.contains(word), "{shell} is not told of {word}");
        }
    }
    fails(at.path(), "completions tcsh", 2, &["tcsh", "zsh"]);
}
