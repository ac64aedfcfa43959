//! Images as the model sees them, read once, with what the encoder says about them.

use crate::engine::error::{Error, Result};
use crate::engine::graph::Graph;
use crate::vae::{EVALUATION_BATCH, Model, Vae, batches, evaluation_seed, images};

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
    /// [`Model::evaluate`] does under this seed.
    ///
    /// # Errors
    /// [`Error::Argument`] when the slot has fewer images or `count` is 0, and from the executor.
    pub fn read(model: &mut Model, slot: &str, count: usize, seed: u64) -> Result<Observed> {
        let there = model.rows(slot)?;
        if count == 0 || count > there {
            return Err(Error::argument("images", count, format!("a number of images from 1 to {there}")));
        }
        let x = model.aside(evaluation_seed(seed), |model| {
            let mut x = Vec::with_capacity(count * model.vae.config.pixels());
            for (rows, times) in batches(count, EVALUATION_BATCH) {
                let bound = model.plan(&format!("observe {slot} {rows}"), |vae| {
                    let g = Graph::new();
                    g.store(&name("x", rows), images(&g, vae, slot, rows));
                    g
                })?;
                for _ in 0..times {
                    model.exec.run(bound, 1)?;
                    x.extend(model.exec.read(&name("x", rows))?);
                }
            }
            Ok(x)
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
    pub fn encode(model: &mut Model, x: Vec<f32>) -> Result<Observed> {
        let (pixels, latent) = (model.vae.config.pixels(), model.vae.config.latent);
        assert!(x.len().is_multiple_of(pixels), "{} numbers are no images of {pixels} pixels", x.len());
        let (mut mu, mut logvar) = (Vec::new(), Vec::new());
        let mut done = 0;
        model.aside(0, |model| {
            for (rows, times) in batches(x.len() / pixels, EVALUATION_BATCH) {
                let bound = model.plan(&format!("encode given {rows}"), |vae| encode_graph(vae, rows))?;
                for _ in 0..times {
                    model.exec.write(&name("x", rows), &x[done * pixels..][..rows * pixels])?;
                    model.exec.run(bound, 1)?;
                    mu.extend(model.exec.read(&name("mu", rows))?);
                    logvar.extend(model.exec.read(&name("logvar", rows))?);
                    done += rows;
                }
            }
            Ok(())
        })?;
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

    /// Writes images into the states of [`name`] that a bound plan of as many rows has.
    pub(super) fn write(&self, model: &mut Model) -> Result<()> {
        let rows = self.images();
        model.exec.write(&name("x", rows), &self.x)?;
        model.exec.write(&name("mu", rows), &self.mu)?;
        model.exec.write(&name("logvar", rows), &self.logvar)
    }
}

fn encode_graph(vae: &Vae, rows: usize) -> Graph {
    let g = Graph::new();
    let q = vae.encoder.apply(g.state(&name("x", rows), &[rows, vae.config.pixels()]));
    g.store(&name("mu", rows), q.mu);
    g.store(&name("logvar", rows), q.logvar);
    g
}

/// The state that holds `what` of a block of `rows` images. (A state has one shape; hence the number.)
pub(super) fn name(what: &str, rows: usize) -> String {
    format!("evidence/{what}/{rows}")
}
