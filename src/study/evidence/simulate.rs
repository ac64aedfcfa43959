//! Images that the model draws itself, pixels and all, with the z they were made from: the only images of which an exact
//! draw from the posterior is known.

use crate::engine::device::Key;
use crate::engine::error::{Error, Result};
use crate::engine::graph::Graph;
use crate::engine::rng::Draw;
use crate::vae::{DeviceVae, evaluation_seed, streams};

/// z ~ p(z), x ~ p(x|z).
#[derive(Clone, Debug, PartialEq)]
pub struct Simulated {
    /// z of every stochastic layer, from below, `[N, K_l]`.
    pub z: Vec<Vec<f32>>,
    /// `[N, D]`.
    pub x: Vec<f32>,
}

/// Draws `count` images, a pure function of `seed`.
///
/// # Errors
/// [`Error::Argument`] for none; and from the executor.
pub fn simulate(model: &mut DeviceVae, count: usize, seed: u64) -> Result<Simulated> {
    if count == 0 {
        return Err(Error::argument("simulated images", 0, "at least one"));
    }
    let g = Graph::new();
    let mut outputs = model.vae.ancestral(&g, count, streams::PRIOR);
    outputs.push(model.vae.decoder.apply(outputs[0]).values);
    let seed = evaluation_seed(seed).wrapping_add(10);
    let mut z = model.executor.compile(&g, outputs)?.call(&mut model.state, Key::new(seed), &[])?;
    let raw = z.pop().expect("the decoder's output is the last");
    let noise = Draw { seed, step: 0, stream: streams::SIMULATED_PIXELS };
    let x = model.pixel_numbers(raw)?.throw(noise);
    Ok(Simulated { z, x })
}
