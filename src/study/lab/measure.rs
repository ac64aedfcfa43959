//! Draws of gradients and the time of a step, by compiled functions of the crate.

use std::time::Instant;

use super::contestant::{Contestant, Network};
use super::stats::{DrawGroups, median};
use crate::engine::device::{Call, Executor, Function, Key, Schedule, State};
use crate::engine::error::Result;
use crate::engine::graph::Graph;
use crate::vae::{BETA, Vae, bound_gradients};

/// A timed call lasts at least so long, in seconds, as far as one call may make so many steps.
const CALL: f64 = 2e-3;
/// Seeds of different cells are so far apart that they share no numbers.
const APART: u64 = 10_000;

/// Which of the gradients are looked at, by their place in [`Vae::encoder_params`] and [`Vae::decoder_params`].
#[derive(Clone, Debug)]
pub struct Looked {
    /// Of the encoder.
    pub encoder: Vec<usize>,
    /// Of the decoder.
    pub decoder: Vec<usize>,
}

/// A step without its update: the function that gives all gradients of the model for one batch.
pub struct NoiseProbe {
    /// What it estimates.
    pub contestant: Contestant,
    /// Draws of z per image.
    pub k: usize,
    function: Function,
    looked: Vec<usize>,
}

impl NoiseProbe {
    /// Compiles the gradients for the images `x`, `[rows, D]`.
    ///
    /// # Errors
    /// As [`Executor::compile`].
    pub fn compile(
        executor: &Executor,
        vae: &Vae,
        (contestant, k): (Contestant, usize),
        x: &[f32],
        looked: &Looked,
    ) -> Result<NoiseProbe> {
        let g = Graph::new();
        let pixels = vae.config.pixels();
        let images = g.input(&[x.len() / pixels, pixels]);
        let step = bound_gradients(vae, &contestant.with_draws(k), images);
        let looked = match contestant.side {
            Network::Encoder => looked.encoder.clone(),
            Network::Decoder => looked.decoder.iter().map(|i| step.encoder.len() + i).collect(),
        };
        let gradients: Vec<_> = step.encoder.into_iter().chain(step.decoder).collect();
        let mut function = executor.compile(&g, gradients)?;
        function.write(0, x)?;
        Ok(NoiseProbe { contestant, k, function, looked })
    }

    fn run(&mut self, state: &mut State, key: Key, steps: usize) -> Result<()> {
        let schedules: &[(&str, Schedule)] = &[(BETA, &|_| 1.0)];
        self.function.run(state, &Call { schedules, steps, ..Call::once(key) })
    }

    /// Draws the gradient of the mean bound (what a step goes up by) `draws` times; `cell` numbers the noise under `seed`.
    ///
    /// # Errors
    /// From the device.
    pub fn draw(&mut self, state: &mut State, (seed, cell): (u64, usize), draws: usize) -> Result<DrawGroups> {
        let seed = seed.wrapping_add(APART.wrapping_mul(cell as u64 + 1));
        let mut groups = DrawGroups::new(draws);
        let mut up = Vec::new();
        for step in 0..draws as u32 {
            self.run(state, Key { seed, step }, 1)?;
            up.clear();
            for &output in &self.looked {
                up.extend(self.function.read(output)?.iter().map(|&d| -f64::from(d)));
            }
            groups.add(&up);
        }
        Ok(groups)
    }

    /// Seconds of `steps` steps.
    fn time(&mut self, state: &mut State, steps: usize) -> Result<f64> {
        let start = Instant::now();
        self.run(state, Key::new(0), steps)?;
        self.function.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Seconds per step of each probe: the median over `repetitions` rounds, in each of which every probe has its turn, so that a
/// machine that slows down slows down all.
///
/// # Errors
/// From the device.
pub fn seconds_per_step(
    probes: &mut [NoiseProbe],
    state: &mut State,
    repetitions: usize,
    mut told: impl FnMut(usize, usize),
) -> Result<Vec<f64>> {
    let mut steps = Vec::with_capacity(probes.len());
    for probe in &mut *probes {
        probe.time(state, 1)?;
        let once = probe.time(state, 1)?.max(1e-7);
        let most = probe.function.executor().steps_per_call().max(1);
        steps.push(((CALL / once).ceil() as usize).clamp(1, most));
    }
    let mut all = vec![Vec::with_capacity(repetitions); probes.len()];
    for round in 0..repetitions {
        for ((probe, &steps), times) in probes.iter_mut().zip(&steps).zip(&mut all) {
            times.push(probe.time(state, steps)? / steps as f64);
        }
        told(round + 1, repetitions);
    }
    Ok(all.into_iter().map(median).collect())
}
