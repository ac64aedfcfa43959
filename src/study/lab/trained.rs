//! The same on a trained model: nothing is known but what was drawn.

use std::collections::BTreeMap;

use super::contestant::Contestant;
use super::measure::{Looked, NoiseProbe, seconds_per_step};
use super::results::{Cell, LabPlace, LabReport};
use super::stats::DrawGroups;
use super::{LabOptions, with_lines};
use crate::engine::error::{Error, Result};
use crate::vae::DeviceVae;

/// Rounds of the timing: a step of a real model is long.
const REPETITIONS: usize = 5;
/// Draws of the reference, in those of the others.
const REFERENCE: usize = 2;

/// Measures the gradients in the encoder's last layer, and in the bias of the decoder's, on the images `x`, `[rows, D]`, which
/// stay the same: what varies is the noise of z alone. Estimators that do not fit the model are left out.
///
/// The expectation is the mean of twice as many draws of an unbiased estimator: sticking the landing with the largest k for
/// the ELBO, the doubly reparameterised gradient for each L_k, and for the decoder the estimator itself, drawn again.
///
/// # Errors
/// [`Error::Argument`] when an option is out of range, or when there is no image; from the device.
pub fn trained(model: &mut DeviceVae, x: &[f32], options: &LabOptions) -> Result<LabReport> {
    let samples = options.checked()?;
    let pixels = model.vae.config.pixels();
    if x.is_empty() || !x.len().is_multiple_of(pixels) {
        return Err(Error::argument("images", x.len(), format!("whole images of {pixels} pixels, at least one")));
    }
    let looked = looked(model);
    let fits = |&(contestant, k): &(Contestant, usize)| contestant.with_draws(k).validate(&model.vae.config).is_ok();
    let pairs: Vec<(Contestant, usize)> =
        Contestant::ALL.iter().flat_map(|&c| samples.iter().map(move |&k| (c, k))).filter(fits).collect();
    let most = *samples.last().expect("there is one");
    let mut references: BTreeMap<(String, usize), DrawGroups> = BTreeMap::new();
    let (mut probes, mut cells) = (Vec::new(), Vec::new());
    let work: usize = pairs.iter().map(|(_, k)| k).sum();
    let mut done = 0;
    for (number, &pair) in pairs.iter().enumerate() {
        let (unbiased, k) = pair.0.reference(pair.1, most);
        // With one draw the two bounds are one, and sticking the landing is doubly reparameterised.
        let key = (format!("{:?}{:?}", unbiased.bound, unbiased.side), k);
        if !references.contains_key(&key) {
            let drawn = reference(model, (unbiased, k), pair, x, &looked, options, pairs.len() + references.len())?;
            references.insert(key.clone(), drawn);
        }
        let mut probe = NoiseProbe::compile(&model.executor, &model.vae, pair, x, &looked)?;
        let drawn = probe.draw(&mut model.state, (options.seed, number), options.draws)?;
        cells.push(Cell::measured(pair.1, &drawn, &references[&key], pair.0.is_biased(pair.1)));
        probes.push(probe);
        done += pair.1;
        model.watch.at("gradients drawn", done, work);
    }
    let watch = model.watch.clone();
    let told = |done, of| watch.at("steps timed", done, of);
    let seconds = seconds_per_step(&mut probes, &mut model.state, REPETITIONS, told)?;
    let place = LabPlace { distance: None, gap: None, chi_square: None, lines: Vec::new() };
    Ok(LabReport {
        model: model.vae.config.describe(),
        device: model.executor.describe(),
        images: x.len() / pixels,
        samples,
        draws: options.draws,
        seed: options.seed,
        places: vec![with_lines(place, &probes, cells, &seconds)],
    })
}

/// Draws of the reference; of the pair itself where the model allows no better one.
fn reference(
    model: &mut DeviceVae,
    wanted: (Contestant, usize),
    pair: (Contestant, usize),
    x: &[f32],
    looked: &Looked,
    options: &LabOptions,
    cell: usize,
) -> Result<DrawGroups> {
    let allowed = wanted.0.with_draws(wanted.1).validate(&model.vae.config).is_ok();
    let pair = if allowed { wanted } else { pair };
    let mut probe = NoiseProbe::compile(&model.executor, &model.vae, pair, x, looked)?;
    probe.draw(&mut model.state, (options.seed, cell), REFERENCE * options.draws)
}

/// Weights and bias of q(z₁|x)'s last layer; the bias of the decoder's last.
fn looked(model: &DeviceVae) -> Looked {
    let encoder = 2 * model.vae.encoder.layers().count();
    let above: usize = model.vae.upper.iter().map(|upper| 2 * upper.prior.layers().count()).sum();
    let decoder = above + 2 * model.vae.decoder.layers().count();
    Looked { encoder: vec![encoder - 2, encoder - 1], decoder: vec![decoder - 1] }
}
