//! Checkpoints in 16 bits: read exactly, written rounded, and refused where they do not suffice.

#[path = "common/command.rs"]
mod command;

use std::collections::HashMap;
use std::fs;

use command::{elbo, fails, succeeds};
use elbo::data::Splits;
use elbo::engine::device::Device;
use elbo::train::Trainer;
use elbo::train::checkpoint::{Checkpoint, Stored};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

const TINY: &str =
    "train --train-size 200 --test-size 50 --hidden 12 --latent 2 --batch 64 --epochs 2 --quiet --device cpu";

/// The figure after "test −ELBO" in the summary.
fn figure(text: &str) -> f64 {
    text.split_whitespace().nth(2).unwrap().parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn an_exported_model_is_used_like_its_run_and_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let trained = figure(&succeeds(at, &format!("{TINY} --out run")));
    let whole = Checkpoint::load(&at.join("run/checkpoint.safetensors")).unwrap();
    for (dtype, tolerance) in [("f32", 0.0), ("bf16", 1.0), ("f16", 0.1)] {
        let file = format!("{dtype}.safetensors");
        let text = succeeds(at, &format!("export run --dtype {dtype} --out {file}"));
        assert!(text.contains(&file) && text.contains("parameters in") && text.contains(dtype), "{text}");
        let found = figure(&succeeds(at, &format!("eval {file} --device cpu")));
        assert!((found - trained).abs() <= tolerance, "{dtype}: {found} and {trained}");
        succeeds(at, &format!("sample {file} --count 4 --device cpu --out s.png"));
        succeeds(at, &format!("reconstruct {file} --count 4 --device cpu --out r.png"));
        // Names and shapes as in the checkpoint, every number the nearest one.
        let bytes = fs::read(at.join(&file)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("encoder.mu.weight").unwrap().shape(), [2, 12]);
        assert!(tensors.names().iter().all(|name| !name.starts_with("adam")), "{:?}", tensors.names());
        let exported = Checkpoint::load(&at.join(&file)).unwrap();
        assert_eq!(exported.progress, whole.progress);
        for (name, values) in &exported.slots {
            for (found, value) in values.iter().zip(&whole.slots[name]) {
                let nearest = match dtype {
                    "f32" => *value,
                    "bf16" => bf16::from_f32(*value).to_f32(),
                    _ => f16::from_f32(*value).to_f32(),
                };
                assert_eq!(found.to_bits(), nearest.to_bits(), "{dtype} {name}");
            }
        }
        // What was rounded once is not rounded again.
        succeeds(at, &format!("export {file} --dtype {dtype} --out again"));
        assert!(fs::read(at.join("again")).unwrap() == bytes, "{dtype}");
        fails(at, &format!("train --resume {file}"), 1, &[&file, "a file", "cannot be resumed"]);
    }
    let size = |name: &str| fs::metadata(at.join(name)).unwrap().len() as f64;
    assert!(size("f16.safetensors") < 0.6 * size("f32.safetensors"));
    // In the place of a checkpoint it is refused as well.
    fs::copy(at.join("f16.safetensors"), at.join("run/checkpoint.safetensors")).unwrap();
    fails(at, "train --resume run --device cpu", 1, &["checkpoint", "moments", "exported"]);
}

#[test]
fn what_cannot_be_exported_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &format!("{TINY} --out run"));
    let path = at.join("run/checkpoint.safetensors");
    let mut checkpoint = Checkpoint::load(&path).unwrap();
    // The second head's bias: column 3 of [μ₁ μ₂ lv₁ lv₂].
    checkpoint.slots.get_mut("encoder.heads.bias").unwrap()[3] = -7e4;
    checkpoint.save(&path).unwrap();
    let message = ["tensor encoder.logvar.bias", "-70000", "65504", "f16"];
    fails(at, "export run --dtype f16 --out x", 2, &message);
    assert!(!at.join("x").exists(), "a refused export leaves nothing behind");
    succeeds(at, "export run --dtype bf16 --out x");
    assert!(Checkpoint::load(&at.join("x")).unwrap().slots["encoder.heads.bias"][3] == -70144.0);
    fails(at, "export run --out run/checkpoint.safetensors", 2, &["out", "could not be resumed"]);
    fails(at, "export nowhere --out y", 1, &["nowhere"]);
    let output = elbo(at, "export run --dtype f64 --out y");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("[possible values: f32, bf16, f16]"));
}

/// As `{k: v.half() for …}` and `safetensors.torch.save_file(…, metadata=…)` leave it: moments too.
#[test]
fn a_run_goes_on_from_sixteen_bits_with_exactly_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &format!("{TINY} --out run --pause-at 3"));
    let path = at.join("run/checkpoint.safetensors");
    let original = Checkpoint::load(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    for dtype in [Dtype::F16, Dtype::BF16] {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let halves: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let values = view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                let short = values.flat_map(|v| match dtype {
                    Dtype::F16 => f16::from_f32(v).to_le_bytes(),
                    _ => bf16::from_f32(v).to_le_bytes(),
                });
                (name, view.shape().to_vec(), short.collect())
            })
            .collect();
        let views: HashMap<&str, TensorView> = halves
            .iter()
            .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()))
            .collect();
        fs::write(&path, safetensors::serialize(views, metadata.metadata().clone()).unwrap()).unwrap();
        let halved = Checkpoint::load(&path).unwrap();
        for (name, values) in &halved.slots {
            for (found, value) in values.iter().zip(&original.slots[name]) {
                let rounded =
                    if dtype == Dtype::F16 { f16::from_f32(*value).to_f32() } else { bf16::from_f32(*value).to_f32() };
                assert_eq!(found.to_bits(), rounded.to_bits(), "{dtype:?} {name}");
            }
        }
        // The executor has those numbers, in f32, and what it writes is f32 again.
        let data: Splits = halved.config.data.load().unwrap();
        let trainer = Trainer::resume(&halved, &data, Device::Cpu { threads: 1 }).unwrap();
        assert!(trainer.checkpoint().unwrap() == halved);
    }
    succeeds(at, "train --resume run --quiet --device cpu");
    let after = fs::read(&path).unwrap();
    assert!(SafeTensors::deserialize(&after).unwrap().tensors().iter().all(|(_, view)| view.dtype() == Dtype::F32));
    assert_eq!(Stored::default(), Stored::F32);
}
