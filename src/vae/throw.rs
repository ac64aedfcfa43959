//! What the decoder says of given points z, pixel by pixel, and images thrown from it.
//!
//! A picture of a model usually shows E[x|z], the mean; x ~ p(x|z) itself has the noise that the likelihood believes in, and
//! is what log p(x|z) is about. Both can be had here, on every executor: the decoder runs on the device, and the draws are made
//! here with the crate's own counters ([`Draw`]), so that they are the same numbers everywhere for the same raw outputs.

use super::model::{DECODE_BATCH, evaluation_seed};
use super::{DeviceVae, Likelihood, SHARED_SIGMA, posterior_draw, streams};
use crate::engine::device::Key;
use crate::engine::error::Result;
use crate::engine::graph::Graph;
use crate::engine::rng::Draw;

/// The raw numbers of p(x|z) of some points.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelNumbers {
    likelihood: Likelihood,
    /// D.
    pixels: usize,
    /// `[n, outputs·D]`: of each point all pixels' first number, all pixels' second.
    raw: Vec<f32>,
    /// The raw spread that all pixels share, if there is one.
    shared: Option<f64>,
}

impl PixelNumbers {
    /// All numbers of pixel `i` of all points, counted through: the [outputs](super::Facts::outputs), then the shared spread.
    fn of(&self, i: usize) -> Vec<f64> {
        let outputs = self.likelihood.facts().outputs.len();
        let row = &self.raw[i / self.pixels * outputs * self.pixels..];
        let own = (0..outputs).map(|output| f64::from(row[output * self.pixels + i % self.pixels]));
        own.chain(self.shared).collect()
    }

    /// The number of pixels of all points together.
    fn all(&self) -> usize {
        self.raw.len() / self.likelihood.facts().outputs.len()
    }

    /// f_σ(z) of every pixel, `[n, D]`: the standard deviation of a Gaussian, the scale of a logistic; none for likelihoods
    /// without a spread.
    pub fn spread(&self) -> Option<Vec<f32>> {
        let of = |i| self.likelihood.pixel_spread(&self.of(i)).map(|spread| spread as f32);
        (0..self.all()).map(of).collect()
    }

    /// x ~ p(x|z), `[n, D]`, with this noise; pixel i of all takes draw i.
    pub fn throw(&self, noise: Draw) -> Vec<f32> {
        (0..self.all()).map(|i| self.likelihood.draw(&self.of(i), noise, i as u64) as f32).collect()
    }
}

impl DeviceVae {
    /// What the decoder said, `[n, outputs·D]`, with what belongs to it.
    ///
    /// # Errors
    /// From the device.
    pub fn pixel_numbers(&mut self, raw: Vec<f32>) -> Result<PixelNumbers> {
        let likelihood = self.vae.config.likelihood;
        let shared = match likelihood.has_shared_sigma() {
            true => Some(f64::from(self.state.read(SHARED_SIGMA)?[0])),
            false => None,
        };
        Ok(PixelNumbers { likelihood, pixels: self.vae.config.pixels(), raw, shared })
    }

    /// The numbers of p(x|z) of the points z of the lowest layer, `[n, K]`.
    ///
    /// # Panics
    /// When `z` is not a whole number of points.
    ///
    /// # Errors
    /// From the device.
    pub fn describe_points(&mut self, z: &[f32]) -> Result<PixelNumbers> {
        let latent = self.vae.config.latent;
        assert!(z.len().is_multiple_of(latent), "{} numbers are no points of {latent} dimensions", z.len());
        let g = Graph::new();
        let numbers = self.vae.decoder.apply(g.input(&[DECODE_BATCH, latent])).values;
        let width = numbers.shape()[1];
        let mut decode = self.executor.compile(&g, [numbers])?;
        let mut raw = Vec::new();
        for points in z.chunks(DECODE_BATCH * latent) {
            let mut block = points.to_vec();
            block.resize(DECODE_BATCH * latent, 0.0);
            let [numbers] = decode.call(&mut self.state, Key::new(0), &[&block])?;
            raw.extend(numbers);
        }
        raw.truncate(z.len() / latent * width);
        self.pixel_numbers(raw)
    }

    /// x ~ p(x|z) for each of the points z, `[n, D]`, a pure function of z and `seed`.
    ///
    /// # Panics
    /// As [`DeviceVae::describe_points`].
    ///
    /// # Errors
    /// From the device.
    pub fn throw(&mut self, z: &[f32], seed: u64) -> Result<Vec<f32>> {
        Ok(self.describe_points(z)?.throw(Draw { seed, step: 0, stream: streams::THROWN_PIXELS }))
    }

    /// z ~ p(z) of the lowest layer, `[count, K]`: the points whose means [`DeviceVae::sample`] shows for the same seed.
    ///
    /// # Errors
    /// From the device.
    pub fn prior_points(&mut self, count: usize, seed: u64) -> Result<Vec<f32>> {
        let g = Graph::new();
        let mut draw = self.executor.compile(&g, [self.vae.ancestral(&g, DECODE_BATCH, streams::PRIOR)[0]])?;
        let mut points = Vec::new();
        for step in 0..count.div_ceil(DECODE_BATCH) as u32 {
            let [block] = draw.call(&mut self.state, Key { seed, step }, &[])?;
            points.extend(block);
        }
        points.truncate(count * self.vae.config.latent);
        Ok(points)
    }

    /// The first `count` images of a data set as the model sees them, `[count, D]`, and one draw z ~ q(z|x) of each, `[count,
    /// K]`: the points whose means [`DeviceVae::reconstruct`] shows for the same seed.
    ///
    /// # Errors
    /// As [`DeviceVae::reconstruct`].
    pub fn posterior_points(&mut self, data: &str, count: usize, seed: u64) -> Result<(Vec<f32>, Vec<f32>)> {
        self.check_count(data, count)?;
        let g = Graph::new();
        let mut both = self.executor.compile(&g, posterior_draw(&g, &self.vae, data, count))?;
        let [x, z] = both.call(&mut self.state, Key::new(evaluation_seed(seed)), &[])?;
        Ok((x, z))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Vae, VaeConfig};
    use super::*;
    use crate::engine::device::Device;

    fn model(likelihood: Likelihood) -> DeviceVae {
        let config = VaeConfig { image: [2, 3], likelihood, ..VaeConfig::new(2).hidden(&[5]) };
        let mut model = DeviceVae::initial(Vae::new(config).unwrap(), 3, Device::Cpu { threads: 1 }).unwrap();
        let images: Vec<u8> = (0..300 * 6).map(|i| (i * 37 % 256) as u8).collect();
        model.load("some", &images).unwrap();
        model
    }

    #[test]
    fn thrown_images_scatter_around_their_mean_by_their_spread() {
        for likelihood in Likelihood::all() {
            let mut model = model(likelihood);
            let (z, n) = ([0.3, -0.8].repeat(20_000), 20_000.0);
            let mean = model.decode(&z[..2]).unwrap();
            let numbers = model.describe_points(&z).unwrap();
            let spread = numbers.spread();
            assert_eq!(spread.is_some(), likelihood.floor().is_some(), "{likelihood}");
            let thrown = model.throw(&z, 4).unwrap();
            assert_eq!(thrown, model.throw(&z, 4).unwrap(), "{likelihood}: a function of the seed");
            for pixel in 0..6 {
                let all = || thrown.chunks_exact(6).map(|x| f64::from(x[pixel]));
                let found = all().sum::<f64>() / n;
                let variance = all().map(|x| (x - found).powi(2)).sum::<f64>() / n;
                // Five standard errors, and half a cell of a byte.
                let apart = (found - f64::from(mean[pixel])).abs();
                assert!(apart < 5.0 * (variance / n).sqrt() + 0.002, "{likelihood}: {found}, not {}", mean[pixel]);
                if likelihood.name().starts_with("gaussian") {
                    let sigma = f64::from(spread.as_ref().unwrap()[pixel]);
                    assert!(
                        (variance / (sigma * sigma) - 1.0).abs() < 0.05,
                        "{likelihood}: {variance} for σ = {sigma}"
                    );
                }
            }
        }
    }

    #[test]
    fn points_are_those_whose_means_are_shown() {
        let mut model = model(Likelihood::gaussian(0.1));
        let near = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        let z = model.prior_points(300, 7).unwrap();
        assert_eq!(z[..20], model.prior_points(10, 7).unwrap(), "the first do not depend on the number");
        assert!(near(&model.decode(&z).unwrap(), &model.sample(300, 7).unwrap()));
        let (x, z) = model.posterior_points("some", 12, 7).unwrap();
        let (originals, rebuilt) = model.reconstruct("some", 12, 7).unwrap();
        assert!(x == originals && near(&model.decode(&z).unwrap(), &rebuilt));
    }
}
