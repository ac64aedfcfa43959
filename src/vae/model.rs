//! A VAE with numbers in it: what can be done with a trained model.

use serde::{Deserialize, Serialize};

use super::Vae;
use super::elbo::{evaluation, posteriors, reconstruction, sampling, slopes};
use super::watch::Watch;
use crate::engine::device::{Call, Device, Executor, Function, Key, Rows, State};
use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Var};

/// Images per step of evaluation and encoding. A constant, because the noise of image i depends on its place in the
/// batch: the numbers of an evaluation must not depend on the batch size of the training.
pub(crate) const EVALUATION_BATCH: usize = 500;
/// Images per step of drawing and decoding.
pub(super) const DECODE_BATCH: usize = 256;

/// A model and its parameters on a device.
pub struct DeviceVae {
    /// The architecture.
    pub vae: Vae,
    /// What compiles functions for it.
    pub executor: Executor,
    /// The parameters, named as in [`Vae::params`], and the images.
    pub state: State,
    /// Who is told how far long computations with it are.
    pub watch: Watch,
}

/// −ELBO (β = 1) of a set of images, one draw of z per image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// The number of images.
    pub images: usize,
    /// −log p(x|z), mean over images, in nats.
    pub rec: f64,
    /// KL(q(z|x) ‖ p(z)), mean over images, in nats.
    pub kl: f64,
}

impl Evaluation {
    /// −ELBO in nats per image: an upper bound on −log p(x), in expectation over the draw.
    pub fn neg_elbo(&self) -> f64 {
        self.rec + self.kl
    }
}

/// q(z|x) of a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// K.
    pub latent: usize,
    /// μ, `[N, K]`.
    pub mu: Vec<f32>,
    /// log σ², `[N, K]`.
    pub logvar: Vec<f32>,
}

impl Encoded {
    /// KL(q(z_k|x) ‖ p(z_k)) of each dimension, mean over the images, in nats. `[K]`
    pub fn kl_per_dimension(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.latent];
        for (i, (&mu, &lv)) in self.mu.iter().zip(&self.logvar).enumerate() {
            let (mu, lv) = (f64::from(mu), f64::from(lv));
            sums[i % self.latent] += 0.5 * (mu * mu + lv.exp_m1() - lv);
        }
        let images = (self.mu.len() / self.latent).max(1) as f64;
        sums.into_iter().map(|s| s / images).collect()
    }

    /// Var_x(E_q[z_k|x]) of each dimension. `[K]`
    pub fn variance_of_means(&self) -> Vec<f64> {
        let images = (self.mu.len() / self.latent).max(1) as f64;
        let moment = |k: usize, centre: f64, power: i32| {
            let column = self.mu.iter().skip(k).step_by(self.latent);
            column.map(|&m| (f64::from(m) - centre).powi(power)).sum::<f64>() / images
        };
        (0..self.latent).map(|k| moment(k, moment(k, 0.0, 1), 2)).collect()
    }

    /// The number of dimensions in use: those with Var_x(E_q[z_k|x]) > 0.01 (Burda et al. 2015).
    pub fn active_units(&self) -> usize {
        self.variance_of_means().into_iter().filter(|&v| v > 0.01).count()
    }
}

/// A hidden layer, and how many of its units are dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HiddenUnits {
    /// The layer's name, as of its parameters.
    pub layer: String,
    /// Its width.
    pub units: usize,
    /// Units through which no gradient goes: the derivative of the activation is exactly 0, in f32, at every image
    /// that was looked at. A ReLU is dead when it is 0 for all of them; a tanh or a sigmoid when it is so far out that
    /// its derivative rounds to 0; linear and leaky units never are.
    pub dead: usize,
}

/// Evaluations draw their noise under another key than the training, so that no image is judged by the very noise it
/// was learned with.
pub(crate) fn evaluation_seed(seed: u64) -> u64 {
    seed.wrapping_add(0x9e37_79b9_7f4a_7c15)
}

/// A function of all rows of a data set: compiled once for whole batches, and once for the smaller last one.
pub(crate) struct Batched {
    parts: Vec<(Function, usize)>,
}

impl Batched {
    /// Over `images` rows in batches of `size`; `build` is given the number of rows of a batch.
    pub(crate) fn compile(
        executor: &Executor,
        images: usize,
        size: usize,
        build: impl for<'g> Fn(&'g Graph, usize) -> Vec<Var<'g>>,
    ) -> Result<Batched> {
        let compile = |(rows, times)| {
            let g = Graph::new();
            let outputs = build(&g, rows);
            Ok((executor.compile(&g, outputs)?, times))
        };
        Ok(Batched { parts: batches(images, size).map(compile).collect::<Result<_>>()? })
    }

    /// All batches in order, with the noise of step 0, 1, … under `seed`; `each` reads the outputs of one.
    pub(crate) fn run(
        &mut self,
        state: &mut State,
        seed: u64,
        mut each: impl FnMut(&mut Function) -> Result<()>,
    ) -> Result<()> {
        let (mut key, mut rows) = (Key::new(seed), Rows::in_order());
        for (function, times) in &mut self.parts {
            for _ in 0..*times {
                function.run(state, &Call { rows, ..Call::once(key) })?;
                each(function)?;
                key.step += 1;
                rows.cursor += function.batch_rows() as u32;
            }
        }
        Ok(())
    }
}

/// −ELBO, the posterior's means and the dead units of one set of images, compiled once and computed as often as wanted.
pub struct Evaluator {
    images: usize,
    terms: Batched,
}

impl Evaluator {
    /// −ELBO of all images with β = 1, one draw of z per image; the noise is a pure function of `seed`.
    ///
    /// # Errors
    /// From the device.
    pub fn run(&mut self, model: &mut DeviceVae, seed: u64) -> Result<Evaluation> {
        let mut sums = [0.0; 2];
        self.terms.run(&mut model.state, evaluation_seed(seed), |f| {
            f.take_totals()?.iter().zip(&mut sums).for_each(|(batch, sum)| *sum += batch);
            Ok(())
        })?;
        let [rec, kl] = sums.map(|sum| sum / self.images as f64);
        Ok(Evaluation { images: self.images, rec, kl })
    }
}

/// What the hidden layers and the posterior of one set of images are like, compiled once.
pub struct Inspector {
    latent: usize,
    layers: Vec<String>,
    posterior: Batched,
    /// None of a model without hidden layers.
    slopes: Option<Batched>,
}

impl Inspector {
    /// q(z|x) of all images, in their order.
    ///
    /// # Errors
    /// From the device.
    pub fn encode(&mut self, model: &mut DeviceVae, seed: u64) -> Result<Encoded> {
        let mut encoded = Encoded { latent: self.latent, mu: Vec::new(), logvar: Vec::new() };
        self.posterior.run(&mut model.state, evaluation_seed(seed), |f| {
            encoded.mu.extend(f.read(0)?);
            encoded.logvar.extend(f.read(1)?);
            Ok(())
        })?;
        Ok(encoded)
    }

    /// The dead units of every hidden layer over all images, one draw of z each, in the order of [`Vae::layers`].
    ///
    /// # Errors
    /// From the device.
    pub fn dead_units(&mut self, model: &mut DeviceVae, seed: u64) -> Result<Vec<HiddenUnits>> {
        let mut largest: Vec<Vec<f32>> = vec![Vec::new(); self.layers.len()];
        let Some(slopes) = &mut self.slopes else { return Ok(Vec::new()) };
        slopes.run(&mut model.state, evaluation_seed(seed), |f| {
            for (layer, largest) in largest.iter_mut().enumerate() {
                let found = f.read(layer)?;
                largest.resize(found.len(), 0.0);
                // NaN is not zero, and stays.
                let larger = |most: f32, slope: f32| if slope > most || slope.is_nan() { slope } else { most };
                largest.iter_mut().zip(found).for_each(|(most, slope)| *most = larger(*most, slope));
            }
            Ok(())
        })?;
        let count = |slopes: &[f32]| slopes.iter().filter(|&&slope| slope == 0.0).count();
        let units = |(layer, slopes): (&String, Vec<f32>)| HiddenUnits {
            layer: layer.clone(),
            units: slopes.len(),
            dead: count(&slopes),
        };
        Ok(self.layers.iter().zip(largest).map(units).collect())
    }
}

impl DeviceVae {
    /// The model with its initial parameters, a pure function of `seed`.
    ///
    /// # Errors
    /// As [`Device::open`] and [`Executor::state`].
    pub fn initial(vae: Vae, seed: u64, device: Device) -> Result<DeviceVae> {
        DeviceVae::initial_on(vae, seed, device.open()?)
    }

    /// As [`DeviceVae::initial`], on an executor that is there already.
    ///
    /// # Errors
    /// As [`Executor::state`].
    pub fn initial_on(vae: Vae, seed: u64, executor: Executor) -> Result<DeviceVae> {
        let state = executor.state(&vae.params(), seed)?;
        Ok(DeviceVae { vae, executor, state, watch: Watch::default() })
    }

    /// Loads images into the data set `name`, a byte per pixel, already binarised as the model wants them.
    ///
    /// # Errors
    /// As [`State::load`].
    pub fn load(&mut self, name: &str, images: &[u8]) -> Result<()> {
        self.state.load(name, images, self.vae.config.pixels())
    }

    /// The number of images in a data set.
    ///
    /// # Errors
    /// [`Error::Slot`] when nothing was loaded into it.
    pub fn rows(&self, data: &str) -> Result<usize> {
        self.state.rows(data)
    }

    fn batched(
        &self,
        images: usize,
        build: impl for<'g> Fn(&'g Graph, &Vae, usize) -> Vec<Var<'g>>,
    ) -> Result<Batched> {
        Batched::compile(&self.executor, images, EVALUATION_BATCH, |g, rows| build(g, &self.vae, rows))
    }

    /// Compiles the evaluation of a data set.
    ///
    /// # Errors
    /// [`Error::Slot`] when it holds no images; from the device.
    pub fn evaluator(&self, data: &str) -> Result<Evaluator> {
        let images = self.rows(data)?;
        Ok(Evaluator { images, terms: self.batched(images, |g, vae, rows| evaluation(g, vae, data, rows).to_vec())? })
    }

    /// Compiles a look into the model with the images of a data set.
    ///
    /// # Errors
    /// As [`DeviceVae::evaluator`].
    pub fn inspector(&self, data: &str) -> Result<Inspector> {
        let images = self.rows(data)?;
        let hidden = self.vae.hidden();
        let layers: Vec<String> =
            hidden.iter().flat_map(|(mlp, _)| &mlp.layers).map(|layer| layer.name.clone()).collect();
        let slopes = match layers.is_empty() {
            true => None,
            false => Some(self.batched(images, |g, vae, rows| slopes(g, vae, data, rows))?),
        };
        Ok(Inspector {
            latent: self.vae.config.latent,
            posterior: self.batched(images, |g, vae, rows| {
                let q = vae.encoder.apply(super::elbo::images(g, vae, data, rows).x);
                vec![q.mu, q.logvar]
            })?,
            slopes,
            layers,
        })
    }

    /// −ELBO of all images of a data set with β = 1, one draw of z per image; the noise is a pure function of `seed`.
    ///
    /// # Errors
    /// As [`DeviceVae::evaluator`].
    pub fn evaluate(&mut self, data: &str, seed: u64) -> Result<Evaluation> {
        self.evaluator(data)?.run(self, seed)
    }

    /// q(z|x) of all images of a data set, in their order.
    ///
    /// # Errors
    /// As [`DeviceVae::evaluator`].
    pub fn encode(&mut self, data: &str, seed: u64) -> Result<Encoded> {
        self.inspector(data)?.encode(self, seed)
    }

    /// The dead units of every hidden layer over all images of a data set, one draw of z each, in the order of
    /// [`Vae::layers`].
    ///
    /// # Errors
    /// As [`DeviceVae::evaluator`].
    pub fn dead_units(&mut self, data: &str, seed: u64) -> Result<Vec<HiddenUnits>> {
        self.inspector(data)?.dead_units(self, seed)
    }

    /// q of every stochastic layer, from below, for the first `count` images of a data set: q(z₁|x), and q(z_{l+1}|z_l) at
    /// one draw of z_l. The active units of Burda et al. 2015 are counted on these means.
    ///
    /// # Errors
    /// [`Error::Argument`] when the set has fewer images or `count` is 0; as [`DeviceVae::evaluator`].
    pub fn encode_layers(&mut self, data: &str, count: usize, seed: u64) -> Result<Vec<Encoded>> {
        self.check_count(data, count)?;
        let mut all = self.batched(count, |g, vae, rows| {
            posteriors(g, vae, data, rows).into_iter().flat_map(|q| [q.mu, q.logvar]).collect()
        })?;
        let latents = self.vae.config.latents().into_iter();
        let mut layers: Vec<Encoded> =
            latents.map(|latent| Encoded { latent, mu: Vec::new(), logvar: Vec::new() }).collect();
        all.run(&mut self.state, evaluation_seed(seed), |f| {
            for (l, layer) in layers.iter_mut().enumerate() {
                layer.mu.extend(f.read(2 * l)?);
                layer.logvar.extend(f.read(2 * l + 1)?);
            }
            Ok(())
        })?;
        Ok(layers)
    }

    pub(super) fn check_count(&self, data: &str, count: usize) -> Result<()> {
        let images = self.rows(data)?;
        if count == 0 || count > images {
            return Err(Error::argument("count", count, format!("a number of images from 1 to {images}")));
        }
        Ok(())
    }

    /// `count` new images: E[x|z] for z ~ N(0, I), `[count, D]`, a pure function of `seed`; the first images do not
    /// depend on `count`.
    ///
    /// # Errors
    /// From the device.
    pub fn sample(&mut self, count: usize, seed: u64) -> Result<Vec<f32>> {
        let g = Graph::new();
        let mut draw = self.executor.compile(&g, [sampling(&g, &self.vae, DECODE_BATCH)])?;
        let mut images = Vec::with_capacity(count.next_multiple_of(DECODE_BATCH) * self.vae.config.pixels());
        for step in 0..count.div_ceil(DECODE_BATCH) as u32 {
            let [block] = draw.call(&mut self.state, Key { seed, step }, &[])?;
            images.extend(block);
        }
        images.truncate(count * self.vae.config.pixels());
        Ok(images)
    }

    /// E[x|z] of the points z, `[n, K]`, as `[n, D]`.
    ///
    /// # Panics
    /// When `z` is not a whole number of points.
    ///
    /// # Errors
    /// From the device.
    pub fn decode(&mut self, z: &[f32]) -> Result<Vec<f32>> {
        let latent = self.vae.config.latent;
        assert!(z.len().is_multiple_of(latent), "{} numbers are no points of {latent} dimensions", z.len());
        let g = Graph::new();
        let mut decode = self.executor.compile(&g, [self.vae.decoder.mean(g.input(&[DECODE_BATCH, latent]))])?;
        let mut images = Vec::new();
        for points in z.chunks(DECODE_BATCH * latent) {
            let mut block = points.to_vec();
            block.resize(DECODE_BATCH * latent, 0.0);
            let [means] = decode.call(&mut self.state, Key::new(0), &[&block])?;
            images.extend(means);
        }
        images.truncate(z.len() / latent * self.vae.config.pixels());
        Ok(images)
    }

    /// The first `count` images of a data set as the model sees them, and what one draw of z from q(z|x) decodes to,
    /// `[count, D]` each.
    ///
    /// # Errors
    /// [`Error::Argument`] when the set has fewer images or `count` is 0; as [`DeviceVae::evaluator`].
    pub fn reconstruct(&mut self, data: &str, count: usize, seed: u64) -> Result<(Vec<f32>, Vec<f32>)> {
        self.check_count(data, count)?;
        let g = Graph::new();
        let mut both = self.executor.compile(&g, reconstruction(&g, &self.vae, data, count))?;
        let [originals, rebuilt] = both.call(&mut self.state, Key::new(evaluation_seed(seed)), &[])?;
        Ok((originals, rebuilt))
    }
}

/// `images` in batches of `size`: (rows, how many), with a smaller last batch if need be.
pub(crate) fn batches(images: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    [(size, images / size), (images % size, 1)].into_iter().filter(|&(rows, times)| rows > 0 && times > 0)
}

#[cfg(test)]
mod tests {
    use super::super::{StochasticLayer, VaeConfig};
    use super::*;
    use crate::engine::nn::Activation;

    /// 784-9-7-2-7-9-784 at its initial values, with 60 images in the slot `some`: every fifth pixel is white, other ones
    /// in every image.
    fn model(config: VaeConfig) -> DeviceVae {
        let vae = Vae::new(VaeConfig { encoder: vec![9, 7], decoder: vec![7, 9], ..config }).unwrap();
        let mut model = DeviceVae::initial(vae, 1, Device::Cpu { threads: 1 }).unwrap();
        let images: Vec<u8> = (0..60 * 784).map(|i| if (i + i / 784) % 5 == 0 { 255 } else { 0 }).collect();
        model.load("some", &images).unwrap();
        model
    }

    fn dead(model: &mut DeviceVae) -> Vec<(String, usize, usize)> {
        model.dead_units("some", 1).unwrap().into_iter().map(|h| (h.layer, h.dead, h.units)).collect()
    }

    /// Sets the first `count` biases of a layer.
    fn push(model: &mut DeviceVae, layer: &str, count: usize, value: f32) {
        let name = format!("{layer}.bias");
        let mut bias = model.state.read(&name).unwrap();
        bias[..count].fill(value);
        model.state.write(&name, &bias).unwrap();
    }

    #[test]
    fn units_that_were_killed_are_counted_layer_by_layer() {
        let mut model = model(VaeConfig::new(2));
        // Wide open, so that no unit of the small layers is dead by chance.
        let names = ["encoder.0", "encoder.1", "decoder.0", "decoder.1"];
        names.iter().for_each(|layer| push(&mut model, layer, 7, 5.0));
        let before = dead(&mut model);
        assert_eq!(
            before.iter().map(|f| (f.0.as_str(), f.2)).collect::<Vec<_>>(),
            names.into_iter().zip([9, 7, 7, 9]).collect::<Vec<_>>()
        );
        for (layer, count) in [("encoder.0", 4), ("encoder.1", 1), ("decoder.0", 7)] {
            push(&mut model, layer, count, -1e3);
        }
        let now: Vec<usize> = dead(&mut model).iter().map(|f| f.1).collect();
        assert_eq!([before[1].1, before[2].1], [0, 0]);
        assert_eq!(now[..3], [before[0].1 + 4, 1, 7]);
        assert_eq!(now, dead(&mut model).iter().map(|f| f.1).collect::<Vec<_>>());
    }

    #[test]
    fn a_unit_is_dead_where_its_derivative_is_zero_and_not_where_it_is_small() {
        for (activation, value, expected) in [
            (Activation::LeakyRelu, -1e3, 0),
            (Activation::Identity, -1e3, 0),
            (Activation::Tanh, 3.0, 0),
            (Activation::Tanh, 1e3, 3),
            (Activation::Sigmoid, -1e3, 3),
            (Activation::Relu, 1e3, 0),
        ] {
            let mut model = model(VaeConfig { activation, ..VaeConfig::new(2) });
            push(&mut model, "decoder.0", 7, 0.5);
            push(&mut model, "decoder.0", 3, value);
            assert_eq!(dead(&mut model)[2], ("decoder.0".into(), expected, 7), "{activation} at {value}");
        }
    }

    #[test]
    fn the_layers_of_a_deeper_model_are_counted_where_they_are() {
        let upper = vec![StochasticLayer { encoder: vec![6], latent: 2, decoder: vec![5] }];
        let mut model = model(VaeConfig { upper, activation: Activation::Softplus, ..VaeConfig::new(3) });
        push(&mut model, "encoder2.0", 2, -1e3);
        push(&mut model, "decoder2.0", 4, -1e3);
        let expected = [
            ("encoder.0", 0, 9),
            ("encoder.1", 0, 7),
            ("encoder2.0", 2, 6),
            ("decoder2.0", 4, 5),
            ("decoder.0", 0, 7),
            ("decoder.1", 0, 9),
        ];
        assert_eq!(dead(&mut model), expected.map(|(layer, dead, units)| (layer.to_string(), dead, units)));
    }
}
