//! Images as the model sees them, read once, with what the encoder says about them.

use crate::engine::device::Key;
use crate::engine::error::{Error, Result};
use crate::engine::graph::Graph;
use crate::vae::{Batched, DeviceVae, EVALUATION_BATCH, batches, evaluation_seed, images};

/// Some images and their q(z₁|x), on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// D.
    pub pixels: usize,
    /// K of the lowest stochastic layer.
    pub latent: usize,
    /// The images, `[N, D]`; with dynamic binarisation a single draw.
    pub x: Vec<f32>,
    /// μ of q(z₁|x), `[N, K]`.
    pub mu: Vec<f32>,
    /// log σ² of q(z₁|x), `[N, K]`.
    pub logvar: Vec<f32>,
}

impl Observed {
    /// The first `count` images of a slot. Dynamic binarisation draws each of them once, the same as
    /// [`DeviceVae::evaluate`] does under this seed.
    ///
    /// # Errors
    /// [`Error::Argument`] when the slot has fewer images or `count` is 0, and from the executor.
    pub fn read(model: &mut DeviceVae, slot: &str, count: usize, seed: u64) -> Result<Observed> {
        let there = model.rows(slot)?;
        if count == 0 || count > there {
            return Err(Error::argument("images", count, format!("a number of images from 1 to {there}")));
        }
        let mut x = Vec::with_capacity(count * model.vae.config.pixels());
        let vae = &model.vae;
        let mut batches =
            Batched::compile(&model.executor, count, EVALUATION_BATCH, |g, rows| vec![images(g, vae, slot, rows).x])?;
        batches.run(&mut model.state, evaluation_seed(seed), |f| {
            x.extend(f.read(0)?);
            Ok(())
        })?;
        Observed::encode(model, x)
    }

    /// Given images, `[N, D]`.
    ///
    /// # Panics
    /// When `x` is not a whole number of images.
    ///
    /// # Errors
    /// From the executor.
    pub fn encode(model: &mut DeviceVae, x: Vec<f32>) -> Result<Observed> {
        let (pixels, latent) = (model.vae.config.pixels(), model.vae.config.latent);
        assert!(x.len().is_multiple_of(pixels), "{} numbers are no images of {pixels} pixels", x.len());
        let (mut mu, mut logvar) = (Vec::new(), Vec::new());
        let mut rest = &x[..];
        for (rows, times) in batches(x.len() / pixels, EVALUATION_BATCH) {
            let g = Graph::new();
            let q = model.vae.encoder.apply(g.input(&[rows, pixels]));
            let mut encode = model.executor.compile(&g, [q.mu, q.logvar])?;
            for _ in 0..times {
                let (batch, later) = rest.split_at(rows * pixels);
                let [means, log_variances] = encode.call(&mut model.state, Key::new(0), &[batch])?;
                mu.extend(means);
                logvar.extend(log_variances);
                rest = later;
            }
        }
        Ok(Observed { pixels, latent, x, mu, logvar })
    }

    /// N.
    pub fn images(&self) -> usize {
        self.x.len() / self.pixels
    }

    /// Some of the images.
    #[must_use]
    pub fn part(&self, range: std::ops::Range<usize>) -> Observed {
        let cut = |values: &[f32], width: usize| values[range.start * width..range.end * width].to_vec();
        let (pixels, latent) = (self.pixels, self.latent);
        let (mu, logvar) = (cut(&self.mu, latent), cut(&self.logvar, latent));
        Observed { pixels, latent, x: cut(&self.x, pixels), mu, logvar }
    }
}
