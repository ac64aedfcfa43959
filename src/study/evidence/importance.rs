//! Importance sampling in a stream: any number of draws in bounded memory.
//!
//! ```text
//! w_i = p(x|z_i) p(z_i)/q(z_i|x),  z_i ~ q(z|x)          E w = p(x)
//! L_k = E log (1/k) Σ_{i ≤ k} w_i                        ELBO = L_1 ≤ L_k ≤ L_{k+1} ≤ log p(x)
//! log p(x) − L_k = χ²(p(z|x) ‖ q)/(2k) + O(k⁻²)          for k ≫ χ²
//! ```
//!
//! The rate needs a finite E_q wᵃ for an a > 2 and a bounded E[1/R_k] of the mean R_k of k weights; the O(k⁻²), a finite third
//! moment.
//!
//! (Burda et al. 2015, arXiv 1509.00519; Domke & Sheldon 2018, arXiv 1808.09034.) With q the prior, w = p(x|z), and the
//! same formula says why that is clueless: 1 + χ² is at least e^KL(p(z|x) ‖ p(z)), about as many draws are needed, and fewer
//! all miss (Chatterjee & Diaconis 2018, arXiv 1511.01437).
//!
//! A step draws c points for each of B images. With many draws per image B = 1, and the image and its q are one row each,
//! which kernels read in place; the noise of draws 1 … k of an image then does not depend on the number of images.

use super::Estimate;
use super::accumulate::{LogMeanExp, Nested};
use super::observed::Observed;
use super::pairwise::{pairwise_log_likelihood, points_per_step};
use crate::engine::device::{Call, Function, Key};
use crate::engine::error::{Error, Result};
use crate::engine::graph::Graph;
use crate::vae::streams;
use crate::vae::{DeviceVae, DiagonalGaussian, evaluation_seed};

/// Where z is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// q(z|x): the encoder says where to look.
    Posterior,
    /// p(z): nobody does. Images share their draws.
    Prior,
}

impl Proposal {
    /// Its draws, in words.
    fn draws(self) -> &'static str {
        match self {
            Proposal::Posterior => "importance samples",
            Proposal::Prior => "samples from the prior",
        }
    }
}

/// How many draws, and what is made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Draws for each image.
    pub samples: usize,
    /// Sizes k for which L_k is estimated beside, by the mean over disjoint groups of k draws; each a multiple of the one
    /// before it.
    pub bounds: Vec<usize>,
    /// Of the noise.
    pub seed: u64,
}

impl Sampling {
    /// The sizes 1, 10, 100, 1000, … up to the number of draws, and that number itself where it continues the series.
    pub fn decades(samples: usize, seed: u64) -> Sampling {
        let mut bounds: Vec<usize> = (0..10).map(|e| 10usize.pow(e)).take_while(|&k| k <= samples).collect();
        let last = bounds.last().copied().unwrap_or(1);
        if samples > last && samples.is_multiple_of(last) {
            bounds.push(samples);
        }
        Sampling { samples, bounds, seed }
    }

    fn validate(&self) -> Result<()> {
        if self.samples == 0 {
            return Err(Error::argument("samples", 0, "at least one draw per image"));
        }
        let mut below = 1;
        for &k in &self.bounds {
            if k == 0 || !k.is_multiple_of(below) || (k == below && k > 1) {
                return Err(Error::argument("group sizes", k, format!("a multiple of {below} that is larger")));
            }
            below = k;
        }
        Ok(())
    }
}

/// What importance sampling says about one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    /// log p(x) by all draws: one draw of L_n.
    pub estimate: Estimate,
    /// (k, L_k) for the sizes that were asked for, if there was at least one whole group.
    pub bounds: Vec<(usize, Estimate)>,
}

/// Estimates log p(x) of every image.
///
/// # Errors
/// [`Error::Argument`] for no draws, or sizes that do not divide each other; and from the executor.
pub fn importance(
    model: &mut DeviceVae,
    observed: &Observed,
    proposal: Proposal,
    sampling: &Sampling,
) -> Result<Vec<Importance>> {
    sampling.validate()?;
    let mut sums = vec![(LogMeanExp::default(), Nested::new(&sampling.bounds)); observed.images()];
    let mut buffer = Vec::new();
    log_weights(model, observed, proposal, sampling.samples, sampling.seed, |image, log_w, _| {
        let (all, nested) = &mut sums[image];
        buffer.clear();
        buffer.extend(log_w.iter().map(|&v| f64::from(v)));
        all.extend(&buffer);
        if !sampling.bounds.is_empty() {
            buffer.iter().for_each(|&v| nested.push(v));
        }
    })?;
    Ok(sums.into_iter().map(|(all, nested)| Importance { estimate: all.estimate(), bounds: nested.bounds() }).collect())
}

/// The stream itself: calls `each` with (image, its next log w, the log p(x|z) in them), again and again until every image
/// has had `samples` draws.
///
/// # Errors
/// From the executor.
pub fn log_weights(
    model: &mut DeviceVae,
    observed: &Observed,
    proposal: Proposal,
    samples: usize,
    seed: u64,
    mut each: impl FnMut(usize, &[f32], &[f32]),
) -> Result<()> {
    let rows = model.executor.rows_per_step();
    let images = observed.images();
    let (block, most) = match proposal {
        Proposal::Posterior => ((rows / samples).clamp(1, images), rows),
        Proposal::Prior => {
            let block = images.min(rows);
            (block, points_per_step(model.vae.config.likelihood, block, rows))
        }
    };
    let steps = samples.div_ceil(most);
    let draws = samples.div_ceil(steps);
    let stream = u64::from(proposal == Proposal::Prior);
    let mut key = Key::new(evaluation_seed(seed).wrapping_add(1 + stream));
    let mut columns = (vec![0f32; draws], vec![0f32; draws]);
    let mut compiled: Option<(usize, Function)> = None;
    for first in (0..images).step_by(block) {
        let part = observed.part(first..images.min(first + block));
        let b = part.images();
        if compiled.as_ref().is_none_or(|(of, _)| *of != b) {
            compiled = Some((b, weights(model, proposal, b, draws)?));
        }
        let (_, function) = compiled.as_mut().expect("compiled above");
        match proposal {
            Proposal::Posterior => {
                let inputs = [&part.x, &part.mu, &part.logvar];
                inputs.into_iter().enumerate().try_for_each(|(input, values)| function.write(input, values))?;
            }
            Proposal::Prior => function.write(0, &transposed(&part.x, part.pixels))?,
        }
        for step in 0..steps {
            function.run(&mut model.state, &Call::once(key))?;
            key.step += 1;
            let log_w = function.read(0)?;
            let log_p = if proposal == Proposal::Posterior { function.read(1)? } else { log_w.clone() };
            model.watch.at(proposal.draws(), first / block * steps + step + 1, images.div_ceil(block) * steps);
            let wanted = draws.min(samples - step * draws);
            for image in 0..b {
                for s in 0..wanted {
                    columns.0[s] = log_w[s * b + image];
                    columns.1[s] = log_p[s * b + image];
                }
                each(first + image, &columns.0[..wanted], &columns.1[..wanted]);
            }
        }
    }
    Ok(())
}

/// `[N, D]` to `[D, N]`.
pub(super) fn transposed(x: &[f32], cols: usize) -> Vec<f32> {
    let rows = x.len() / cols;
    (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect()
}

/// The function of x, μ and log σ² of `images` images that gives log w of `draws` draws z ~ q(z|x), and log p(x|z),
/// `[draws, images]` each; or the function of the transposed images that gives log p(x|z) of draws from the prior.
fn weights(model: &DeviceVae, proposal: Proposal, images: usize, draws: usize) -> Result<Function> {
    let (g, vae) = (Graph::new(), &model.vae);
    let (pixels, latent) = (vae.config.pixels(), vae.config.latent);
    if proposal == Proposal::Prior {
        let columns = g.input(&[pixels, images]);
        let z = vae.ancestral(&g, draws, streams::PRIOR);
        return model.executor.compile(&g, vec![pairwise_log_likelihood(vae, z[0], columns)]);
    }
    let x = g.input(&[images, pixels]);
    let first = DiagonalGaussian { mu: g.input(&[images, latent]), logvar: g.input(&[images, latent]) };
    let z = vae.draw_from(first, draws).z;
    let w = vae.log_weights(x, first, &z, false, false);
    model.executor.compile(&g, vec![w.log_weight(None), w.likelihood])
}
