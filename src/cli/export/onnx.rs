//! Encoder and decoder as ONNX, and values to compare them with.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::Export;
use crate::cli::output;
use crate::engine::device::{Device, Key};
use crate::engine::error::{Error, Result};
use crate::engine::file::{Disk, Files};
use crate::engine::graph::Graph;
use crate::engine::rng::Draw;
use crate::study::onnx::{OnnxPair, encode};
use crate::train::Run;
use crate::train::checkpoint::Checkpoint;
use crate::vae::{DeviceVae, streams};

/// Rows of the values to compare with.
const ROWS: usize = 16;

/// Writes `encoder.onnx` and `decoder.onnx` into the folder that is asked for.
pub(super) fn write(asked: &Export, path: &Path) -> Result<()> {
    let folder = asked.out.clone().unwrap_or(".".into());
    if folder.is_file() || folder.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
        let expected = "a folder, into which encoder.onnx and decoder.onnx are written";
        return Err(Error::argument("out", folder.display(), expected));
    }
    let files = ["encoder.onnx", "decoder.onnx"].map(|name| folder.join(name));
    for file in files.iter().chain(&asked.check_values) {
        output::spare_runs("out", file, Some(path))?;
    }
    let checkpoint = Checkpoint::load(path)?;
    let mut model = checkpoint.model(Device::Cpu { threads: 1 })?;
    let pair = OnnxPair::new(&model.vae, &checkpoint.parameters()?, &metadata(asked, &checkpoint)?)?;
    let mut text = String::new();
    for (file, model) in files.iter().zip([&pair.encoder, &pair.decoder]) {
        let bytes = encode(model);
        Disk.replace(file, &bytes)?;
        let outputs: Vec<&str> =
            model.graph.iter().flat_map(|g| &g.output).map(|output| output.name.as_str()).collect();
        text += &format!("{}: {}, {} bytes\n", file.display(), outputs.join(", "), bytes.len());
    }
    if let Some(file) = &asked.check_values {
        crate::cli::write_json(file, &check_values(&mut model)?)?;
        text += &format!("{}: {ROWS} inputs and what this program makes of them\n", file.display());
    }
    asked.answer.give(&text, &json!({ "files": files }))
}

/// Where the model comes from.
fn metadata(asked: &Export, checkpoint: &Checkpoint) -> Result<BTreeMap<String, String>> {
    let config = serde_json::to_string(&checkpoint.config).expect("a configuration is plain data");
    let sessions = if asked.run.is_file() { Vec::new() } else { Run::journals(&asked.run)?.sessions };
    let commands: Vec<String> = sessions.into_iter().map(|session| session.command).collect();
    let mut found = BTreeMap::from([
        ("config".to_string(), config),
        ("seed".to_string(), checkpoint.config.seed.to_string()),
        ("epochs".to_string(), checkpoint.progress.epoch.to_string()),
    ]);
    if !commands.is_empty() {
        found.insert("command".into(), commands.join("\n"));
    }
    Ok(found)
}

/// Inputs for both models, and what the executor of this program computes from them: the same functions, compiled.
fn check_values(model: &mut DeviceVae) -> Result<Value> {
    let (pixels, latent) = (model.vae.config.pixels(), model.vae.config.latent);
    let draw = Draw { seed: 1, step: 0, stream: streams::CHECK_VALUES };
    let x: Vec<f32> = (0..(ROWS * pixels) as u64).map(|i| draw.uniform(i)).collect();
    let z: Vec<f32> = (0..(ROWS * latent) as u64).map(|i| 1.5 * draw.normal(i)).collect();
    let g = Graph::new();
    let q = model.vae.encoder.apply(g.input(&[ROWS, pixels]));
    let [mu, logvar] = model.executor.compile(&g, [q.mu, q.logvar])?.call(&mut model.state, Key::new(0), &[&x])?;
    let g = Graph::new();
    let raw = model.vae.decoder.apply(g.input(&[ROWS, latent]));
    let likelihood = model.vae.config.likelihood;
    let outputs: Vec<_> = [likelihood.mean(raw)].into_iter().chain(likelihood.spread(raw)).collect();
    let mut compiled = model.executor.compile(&g, outputs)?;
    let decoded = compiled.call(&mut model.state, Key::new(0), &[&z])?;
    let mut decoder = json!({ "z": z, "mean": decoded[0] });
    if let Some(sigma) = decoded.get(1) {
        decoder["sigma"] = json!(sigma);
    }
    Ok(json!({ "rows": ROWS, "encoder": { "x": x, "mu": mu, "logvar": logvar }, "decoder": decoder }))
}
