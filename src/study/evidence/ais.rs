//! Annealed importance sampling: from the prior to the posterior in many small steps.
//!
//! ```text
//! f_t(z) = p(z) p(x|z)^β_t,   0 = β_0 < β_1 < … < β_T = 1
//! z_0 ~ p(z),  z_t ~ HMC at β_t from z_{t−1}:    log w = Σ_{t=1…T} (β_t − β_{t−1}) log p(x|z_{t−1}),   E w = p(x)
//! ```
//!
//! (Neal 2001; for decoders Wu et al. 2017, arXiv 1611.04273.) So E log w ≤ log p(x): a lower bound. Run backwards from an
//! exact draw z ~ p(z|x), the same sum with β falling gives E e^(−log w) = 1/p(x), an upper bound. There is one exact draw for an
//! image that was simulated by the model: the z it was made from. The two together are the sandwich of bidirectional Monte
//! Carlo (Grosse et al. 2015, arXiv 1511.02543), whose width bounds what AIS is wrong by.
//!
//! The step sizes are tuned in a run of their own, with other noise, and are then constants for each image and
//! temperature: the chain that counts is exactly valid.

use super::Estimate;
use super::accumulate::LogMeanExp;
use super::hmc::{Block, Chains, Sampler};
use super::observed::Observed;
use super::simulate::Simulated;
use crate::engine::device::Key;
use crate::engine::error::{Error, Result};
use crate::vae::{DeviceVae, evaluation_seed};

/// The path and the chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Annealing"))]
pub struct Annealing {
    /// Chains of ais per image.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = Annealing::default().chains))]
    #[cfg_attr(feature = "cli", arg(hide_short_help = true))]
    pub chains: usize,
    /// T, temperatures of ais from the prior to the posterior.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = Annealing::default().temperatures))]
    #[cfg_attr(feature = "cli", arg(hide_short_help = true))]
    pub temperatures: usize,
    /// Leapfrog steps at each temperature.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = Annealing::default().leapfrog))]
    #[cfg_attr(feature = "cli", arg(hide_short_help = true))]
    pub leapfrog: usize,
    /// Of all noise.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub seed: u64,
}

impl Default for Annealing {
    fn default() -> Annealing {
        Annealing { chains: 16, temperatures: 1000, leapfrog: 10, seed: 0 }
    }
}

/// The acceptance rate that step sizes are tuned to: the best of HMC in many dimensions (Beskos et al. 2013).
const ACCEPTANCE: f64 = 0.65;
/// How much ln ε moves for each unit of acceptance that is too much or too little.
const GAIN: f64 = 0.5;
/// Temperatures at which step sizes are tuned, and transitions at each; between them they are constant.
const TUNED: usize = 100;
const TRANSITIONS: usize = 3;
/// Step sizes stay within this.
const STEP_SIZES: (f64, f64) = (1e-4, 1.5);
/// Half the width of the part of the sigmoid that temperatures are spaced by, as in Wu et al.
const SIGMOID: f64 = 4.0;

impl Annealing {
    /// β_t = (σ(δ(2t/T − 1)) − σ(−δ))/(σ(δ) − σ(−δ)) with δ = 4: close together at both ends.
    pub fn beta(&self, t: usize) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (low, high) = (sigmoid(-SIGMOID), sigmoid(SIGMOID));
        (sigmoid(SIGMOID * (2.0 * t as f64 / self.temperatures as f64 - 1.0)) - low) / (high - low)
    }

    /// Decodings (and as many gradients of them) for each image, with the tuning.
    pub fn decodings(&self) -> u64 {
        let tuning = self.temperatures.min(TUNED) * TRANSITIONS;
        (self.chains * (self.leapfrog + 1) * (self.temperatures - 1 + tuning)) as u64
    }

    fn validate(&self) -> Result<()> {
        let fields = [("chains", self.chains), ("temperatures", self.temperatures), ("leapfrog", self.leapfrog)];
        let zero = fields.into_iter().find(|&(_, n)| n == 0);
        zero.map_or(Ok(()), |(field, n)| Err(Error::argument(field, n, "a number of at least 1")))
    }
}

/// A lower and an upper bound of log p(x) of an image that was simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sandwich {
    /// From the prior: below log p(x) in expectation.
    pub forward: Estimate,
    /// From the z that the image was made from: above it.
    pub reverse: Estimate,
}

/// Where a run begins.
enum Start<'a> {
    Prior,
    /// z of all layers for each image, `[images, K_l]`.
    Exact(&'a [Vec<f32>]),
}

/// AIS from the prior: a lower bound of log p(x) in expectation.
///
/// # Errors
/// [`Error::Argument`] when a number is 0; and from the executor.
pub fn ais(model: &mut DeviceVae, observed: &Observed, settings: &Annealing) -> Result<Vec<Estimate>> {
    settings.validate()?;
    let mut estimates = Vec::new();
    let blocks = blocks(model, observed, settings);
    let passes = Passes { each: 2, blocks: blocks.len() };
    let mut sampler = None;
    for (number, part) in blocks.into_iter().enumerate() {
        let mut run = AnnealedBlock::new(model, &part, settings, number, passes, sampler.take())?;
        let steps = run.tune(model)?;
        estimates.extend(run.anneal(model, &Start::Prior, &steps)?.into_iter().map(|sums| sums.estimate()));
        sampler = Some(run.sampler);
    }
    Ok(estimates)
}

/// AIS in both directions for simulated images.
///
/// # Errors
/// As [`ais`].
pub fn sandwich(model: &mut DeviceVae, simulated: &Simulated, settings: &Annealing) -> Result<Vec<Sandwich>> {
    settings.validate()?;
    let observed = Observed::encode(model, simulated.x.clone())?;
    let mut all = Vec::new();
    let mut first = 0;
    let blocks = blocks(model, &observed, settings);
    let passes = Passes { each: 3, blocks: blocks.len() };
    let mut sampler = None;
    for (number, part) in blocks.into_iter().enumerate() {
        let widths = model.vae.config.latents();
        let here = simulated.z.iter().zip(widths).map(|(z, k)| z[first * k..][..part.images() * k].to_vec());
        let z: Vec<Vec<f32>> = here.collect();
        first += part.images();
        let mut run = AnnealedBlock::new(model, &part, settings, number, passes, sampler.take())?;
        let steps = run.tune(model)?;
        let forward = run.anneal(model, &Start::Prior, &steps)?;
        let reverse = run.anneal(model, &Start::Exact(&z), &steps)?;
        all.extend(
            forward.into_iter().zip(reverse).map(|(f, r)| Sandwich {
                forward: f.estimate(),
                reverse: Estimate { value: -r.value(), ..r.estimate() },
            }),
        );
        sampler = Some(run.sampler);
    }
    Ok(all)
}

fn blocks(model: &DeviceVae, observed: &Observed, settings: &Annealing) -> Vec<Observed> {
    let size = (model.executor.rows_per_step() / settings.chains).max(1);
    let n = observed.images();
    (0..n).step_by(size).map(|first| observed.part(first..n.min(first + size))).collect()
}

/// The chains of one block of images.
struct AnnealedBlock {
    settings: Annealing,
    sampler: Sampler,
    number: usize,
    passes: Passes,
}

/// Passes through the temperatures: one that tunes, and one or two that anneal.
#[derive(Clone, Copy)]
struct Passes {
    /// Of a block.
    each: usize,
    blocks: usize,
}

impl AnnealedBlock {
    /// `sampler` is that of the block before; one of the same size serves again.
    fn new(
        model: &DeviceVae,
        part: &Observed,
        settings: &Annealing,
        number: usize,
        passes: Passes,
        sampler: Option<Sampler>,
    ) -> Result<AnnealedBlock> {
        let block = Block { images: part.images(), chains: settings.chains };
        let mut sampler = match sampler.filter(|s| s.block == block) {
            Some(sampler) => sampler,
            None => Sampler::compile(model, block, settings.leapfrog)?,
        };
        sampler.write_images(&part.x)?;
        Ok(AnnealedBlock { settings: *settings, sampler, number, passes })
    }

    /// The seed of one of the runs of a block: tuning, forward, reverse.
    fn seed(&self, which: u64) -> u64 {
        evaluation_seed(self.settings.seed).wrapping_add(100 + 3 * self.number as u64 + which)
    }

    /// Tells that in this block's pass `pass` (0 tunes, 1 and 2 anneal) so many temperatures are done.
    fn report(&self, model: &DeviceVae, pass: usize, temperatures: usize) {
        let (all, Passes { each, blocks }) = (self.settings.temperatures, self.passes);
        model.watch.at("annealing", (each * self.number + pass) * all + temperatures, each * blocks * all);
    }

    /// Step sizes for each temperature t = 0 … T − 1 and image: along the path, ε grows while more is accepted than is
    /// wanted, and shrinks while less is.
    fn tune(&mut self, model: &mut DeviceVae) -> Result<Vec<Vec<f64>>> {
        let (images, chains, t_max) =
            (self.sampler.block.images, self.sampler.block.chains, self.settings.temperatures);
        let stride = t_max.div_ceil(TUNED);
        let mut key = Key::new(self.seed(0));
        let mut moving = self.sampler.begin_at_the_prior(&mut model.state, key)?;
        let mut current = vec![0.2; images];
        let mut table: Vec<Vec<f64>> = Vec::with_capacity(t_max);
        for t in 0..t_max {
            if t % stride == 0 {
                for _ in 0..TRANSITIONS {
                    self.transition(model, &mut key, &mut moving, self.settings.beta(t), &current)?;
                    for (i, step) in current.iter_mut().enumerate() {
                        let accepted = |s: usize| f64::from(moving.accepted[s * images + i]);
                        let rate = |s: usize| Some(accepted(s)).filter(|a| !a.is_nan()).unwrap_or(0.0);
                        let mean = (0..chains).map(rate).sum::<f64>() / chains as f64;
                        *step = (*step * (GAIN * (mean - ACCEPTANCE)).exp()).clamp(STEP_SIZES.0, STEP_SIZES.1);
                    }
                }
            }
            table.push(current.clone());
            self.report(model, 0, t + 1);
        }
        Ok(table)
    }

    /// A transition of all chains, with a step size for each image.
    fn transition(
        &mut self,
        model: &mut DeviceVae,
        key: &mut Key,
        moving: &mut Chains,
        beta: f64,
        steps: &[f64],
    ) -> Result<()> {
        let chains = self.sampler.block.chains;
        let rows: Vec<f32> = (0..chains).flat_map(|_| steps.iter().map(|&s| s as f32)).collect();
        key.step += 1;
        self.sampler.transition(&mut model.state, *key, moving, beta as f32, &rows)
    }

    /// The sums of log w over the chains of each image; of −log w for a run that begins at an exact draw.
    fn anneal(&mut self, model: &mut DeviceVae, start: &Start<'_>, steps: &[Vec<f64>]) -> Result<Vec<LogMeanExp>> {
        let Block { images, chains } = self.sampler.block;
        let (rows, t_max) = (images * chains, self.settings.temperatures);
        let reverse = matches!(start, Start::Exact(_));
        let mut key = Key::new(self.seed(1 + u64::from(reverse)));
        let mut moving = match start {
            Start::Prior => self.sampler.begin_at_the_prior(&mut model.state, key)?,
            Start::Exact(z) => {
                let z = z.iter().map(|z| z.repeat(chains)).collect();
                self.sampler.begin_at(&mut model.state, key, z)?
            }
        };
        let mut log_w = vec![0.0; rows];
        // z_{t−1} is weighed on its way to β_t; a transition at β_t lies between z_{t−1} and z_t, in both directions.
        for i in 1..=t_max {
            let t = if reverse { t_max + 1 - i } else { i };
            let width = self.settings.beta(t) - self.settings.beta(t - 1);
            moving.log_p.iter().zip(&mut log_w).for_each(|(&log_p, w)| *w += width * f64::from(log_p));
            let between = if reverse { t - 1 } else { t };
            if (1..t_max).contains(&between) {
                self.transition(model, &mut key, &mut moving, self.settings.beta(between), &steps[between])?;
            }
            self.report(model, 1 + usize::from(reverse), i);
        }
        let mut sums = vec![LogMeanExp::default(); images];
        for (row, w) in log_w.into_iter().enumerate() {
            sums[row % images].push(if reverse { -w } else { w });
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperatures_rise_from_0_to_1_and_are_closest_at_the_ends() {
        let settings = Annealing { temperatures: 50, ..Annealing::default() };
        let betas: Vec<f64> = (0..=50).map(|t| settings.beta(t)).collect();
        assert!(betas[0].abs() < 1e-15 && (betas[50] - 1.0).abs() < 1e-15 && (betas[25] - 0.5).abs() < 1e-12);
        assert!(betas.windows(2).all(|b| b[0] < b[1]));
        assert!(betas[1] - betas[0] < 0.2 * (betas[26] - betas[25]));
    }
}
