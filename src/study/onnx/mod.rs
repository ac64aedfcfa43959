//! Encoder and decoder as files of [ONNX](https://onnx.ai), which other programs run.
//!
//! | file | input | outputs |
//! |---|---|---|
//! | encoder | `x` `[N, D]`, pixels in [0, 1] as the model sees them | `mu`, `logvar` `[N, K]` of q(z\|x) |
//! | decoder | `z` `[N, K]` | `mean` `[N, D]`, E[x\|z]; `sigma`, where there is a spread; what else the decoder says: `logits`, or a logistic's location `mu` |
//!
//! N is free. Layers are `Gemm`s with the tensors of the checkpoint under their names there. Activations, spreads and means are
//! translated operation by operation from this crate's own graph, so that each of these formulas stands in one place.
//! Messages are encoded by `prost`, and the few that are needed are declared here by hand.

mod messages;
mod writer;

use std::collections::BTreeMap;

use prost::Message;

use crate::engine::error::{Error, Result};
use crate::engine::graph::Var;
use crate::engine::nn::Mlp;
use crate::engine::tensors::NamedArray;
use crate::vae::{Likelihood, Raw, SHARED_SIGMA, Vae};
pub use messages::{
    OnnxAttribute, OnnxGraph, OnnxKind, OnnxModel, OnnxNode, OnnxShape, OnnxSize, OnnxTensor, OnnxTensorKind,
    OnnxValue, OperatorSet, TextEntry,
};
use writer::GraphWriter;

/// The version of the format, and that of the operators: read by onnxruntime 1.13 and later.
const FORMAT: i64 = 8;
const OPERATORS: i64 = 17;

/// The two models of a [`Vae`].
pub struct OnnxPair {
    /// x ↦ μ, log σ².
    pub encoder: OnnxModel,
    /// z ↦ what p(x|z) is.
    pub decoder: OnnxModel,
}

impl OnnxPair {
    /// Of a model with these tensors, as a checkpoint has them, and `metadata`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a model with several stochastic layers.
    pub fn new(vae: &Vae, tensors: &[NamedArray], metadata: &BTreeMap<String, String>) -> Result<OnnxPair> {
        if !vae.upper.is_empty() {
            let found = format!("onnx for a run with {} stochastic layers", vae.upper.len() + 1);
            let expected = "safetensors, or a run with one stochastic layer, whose encoder and decoder are functions";
            return Err(Error::argument("format", found, expected));
        }
        let model = |graph: OnnxGraph, what: &str| OnnxModel {
            ir_version: FORMAT,
            producer_name: "elbo".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            doc_string: format!("{what} of {}", vae.config.describe()),
            graph: Some(graph),
            opset_import: vec![OperatorSet { version: OPERATORS }],
            metadata_props: metadata
                .iter()
                .map(|(key, value)| TextEntry { key: key.clone(), value: value.clone() })
                .collect(),
        };
        Ok(OnnxPair {
            encoder: model(encoder(vae, tensors)?, "encoder q(z|x)"),
            decoder: model(decoder(vae, tensors)?, "decoder p(x|z)"),
        })
    }
}

/// The bytes of a file.
pub fn encode(model: &OnnxModel) -> Vec<u8> {
    model.encode_to_vec()
}

/// The model in the bytes of a file, as far as it is made of what is declared here.
///
/// # Errors
/// [`prost::DecodeError`] when they are no such file.
pub fn decode(bytes: &[u8]) -> std::result::Result<OnnxModel, prost::DecodeError> {
    OnnxModel::decode(bytes)
}

/// The hidden layers on top of the value `x`.
fn hidden(writer: &mut GraphWriter, mlp: &Mlp, mut x: String) -> Result<String> {
    for layer in &mlp.layers {
        let y = writer.layer(layer, &x);
        x = writer.apply(&layer.name, &y, |y| mlp.activation.apply(y))?;
    }
    Ok(x)
}

fn encoder(vae: &Vae, tensors: &[NamedArray]) -> Result<OnnxGraph> {
    let (config, encoder) = (&vae.config, &vae.encoder);
    let mut writer = GraphWriter::new("encoder", tensors);
    writer.input("x", config.pixels(), "pixels in [0, 1], as the model sees them");
    let top = hidden(&mut writer, &encoder.hidden, "x".into())?;
    let heads = writer.layer(&encoder.heads, &top);
    let logvar = writer.apply("encoder.logvar", &heads[1..], |raw| encoder.spread.log_variance(raw))?;
    let shape = [None, Some(config.latent)];
    writer.output(&heads[0].0, "mu", &shape, "mean of q(z|x)");
    writer.output(&logvar, "logvar", &shape, "logarithm of the variance of q(z|x)");
    Ok(writer.finish())
}

/// What the decoder says, with the spread that all pixels share.
fn raw(likelihood: Likelihood, values: Var<'_>) -> Raw<'_> {
    let shared = likelihood.has_shared_sigma().then(|| values.graph().param(SHARED_SIGMA, &[1]).reshape(&[]));
    Raw { values, shared }
}

fn decoder(vae: &Vae, tensors: &[NamedArray]) -> Result<OnnxGraph> {
    let (config, likelihood) = (&vae.config, vae.config.likelihood);
    let mut writer = GraphWriter::new("decoder", tensors);
    writer.input("z", config.latent, "a point of the latent space");
    let top = hidden(&mut writer, &vae.decoder.hidden, "z".into())?;
    let said = writer.layer(&vae.decoder.heads, &top);
    let mean = writer.apply("decoder.mean", &said, |values| likelihood.mean(raw(likelihood, values)))?;
    let rows = [None, Some(config.pixels())];
    writer.output(&mean, "mean", &rows, "E[x|z]");
    if likelihood.floor().is_some() {
        let sigma = writer.apply("decoder.spread", &said, |values| {
            likelihood.spread(raw(likelihood, values)).expect("it has a floor")
        })?;
        let one = [Some(1)];
        let shape: &[Option<usize>] = if likelihood.has_shared_sigma() { &one } else { &rows };
        writer.output(&sigma, "sigma", shape, "spread of a pixel, where white is 1");
    }
    for ((name, _), output) in said.iter().zip(likelihood.facts().outputs) {
        // The mean may be what the decoder says, and the raw spread is nobody's.
        if *name != mean && *output != "sigma" {
            writer.output(name, output, &rows, "what the decoder says, before any function of it");
        }
    }
    Ok(writer.finish())
}

#[cfg(test)]
mod tests;
