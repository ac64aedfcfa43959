//! A VAE with numbers in it: what can be done with a trained model.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Vae;
use super::elbo::{
    decode_graph, encode_graph, encode_layers_graph, evaluation_graph, reconstruction_graph, sampling_graph,
    slopes_graph, terms,
};
use crate::data::Dataset;
use crate::engine::device::{Bound, Device, Exec};
use crate::engine::error::{Error, Result};
use crate::engine::graph::Graph;
use crate::engine::optim::Control;
use crate::engine::plan::{Fusion, Plan};
use crate::train::checkpoint::Checkpoint;
use crate::vae::watch::Watch;

/// Images per step of evaluation and encoding. A constant, because the noise of image i depends on its place in the
/// batch: the numbers of an evaluation must not depend on the batch size of the training.
pub(crate) const EVALUATION_BATCH: usize = 500;
/// Images per step of drawing and decoding.
const DECODE_BATCH: usize = 256;

/// A model and its parameters in the memory of an executor.
pub struct Model {
    /// The architecture.
    pub vae: Vae,
    /// The executor, with the parameters in slots named as in [`Vae::init`].
    pub exec: Box<dyn Exec>,
    /// Who is told how far long computations with it are.
    pub watch: Watch,
    rows: HashMap<String, usize>,
    plans: HashMap<String, Bound>,
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

impl Model {
    /// The model with its initial parameters, a pure function of `seed`.
    ///
    /// # Errors
    /// As [`Device::open`]; [`Error::Slot`] from the executor.
    pub fn initial(vae: Vae, seed: u64, device: Device) -> Result<Model> {
        Model::initial_on(vae, seed, device.open()?)
    }

    /// As [`Model::initial`], on an executor that is there already.
    ///
    /// # Errors
    /// [`Error::Slot`] from the executor.
    pub fn initial_on(vae: Vae, seed: u64, exec: Box<dyn Exec>) -> Result<Model> {
        let mut model = Model { exec, watch: Watch::default(), rows: HashMap::new(), plans: HashMap::new(), vae };
        // A graph that mentions all parameters in their order, so that they lie in it.
        model.bind(&parameter_graph(&model.vae))?;
        for init in model.vae.init(seed) {
            model.exec.write(&init.name, &init.values)?;
        }
        Ok(model)
    }

    /// The model of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Argument`] for an invalid configuration, [`Error::Slot`] from the executor.
    pub fn restore(checkpoint: &Checkpoint, device: Device) -> Result<Model> {
        let mut model = Model::initial(Vae::new(checkpoint.config.model.clone())?, 0, device)?;
        for (name, _) in model.vae.parameters() {
            model.exec.write(&name, &checkpoint.slots[&name])?;
        }
        Ok(model)
    }

    /// Plans a graph and binds it to the model's memory.
    ///
    /// # Errors
    /// As [`Plan::build`] and [`Exec::bind`].
    pub fn bind(&mut self, graph: &Graph) -> Result<Bound> {
        self.exec.bind(&Plan::build(graph, Fusion::all())?)
    }

    /// Loads a set of images into the data slot `slot`, binarised as the model wants it.
    ///
    /// # Errors
    /// [`Error::File`] when the images are not of the model's size.
    pub fn load(&mut self, slot: &str, data: &Dataset) -> Result<()> {
        let [height, width] = self.vae.config.image;
        if (data.height, data.width) != (height, width) {
            return Err(Error::File {
                path: data.name.clone().into(),
                field: "image size".into(),
                found: format!("{} × {} pixels", data.height, data.width),
                expected: format!("{height} × {width}, as the model was made for"),
                remedy: "use images of that size, or train a model on these".into(),
            });
        }
        let prepared = self.vae.config.binarisation.prepare(data);
        // Executors know the slots of bound plans; those that read this one may come later.
        self.plan(&format!("declare {slot}"), |vae| {
            let g = Graph::new();
            g.metric("first pixel", g.batch(slot, 1, vae.config.pixels()).slice_cols(0, 1).reshape(&[]));
            g
        })?;
        self.exec.set_data(slot, &prepared.images, prepared.cols)?;
        self.rows.insert(slot.into(), prepared.rows);
        Ok(())
    }

    /// The number of images in a slot.
    ///
    /// # Errors
    /// [`Error::Slot`] when nothing was loaded into it.
    pub fn rows(&self, slot: &str) -> Result<usize> {
        let missing = || Error::Slot { name: slot.into(), problem: "no images were loaded".into() };
        self.rows.get(slot).copied().ok_or_else(missing)
    }

    /// −ELBO of all images of a slot with β = 1, one draw of z per image; the noise is a pure function of `seed`.
    ///
    /// # Errors
    /// [`Error::Slot`] when the slot holds no images, and from the executor.
    pub fn evaluate(&mut self, slot: &str, seed: u64) -> Result<Evaluation> {
        let images = self.rows(slot)?;
        let sums = self.aside(evaluation_seed(seed), |model| {
            let mut sums = [0.0; 2];
            for (rows, times) in batches(images, EVALUATION_BATCH) {
                let bound = model.plan(&format!("evaluate {slot} {rows}"), |vae| evaluation_graph(vae, slot, rows))?;
                for _ in 0..times {
                    model.exec.run(bound, 1)?;
                    let metrics = model.exec.take_metrics(bound)?;
                    sums[0] += metrics["rec"];
                    sums[1] += metrics["kl"];
                }
            }
            Ok(sums)
        })?;
        Ok(Evaluation { images, rec: sums[0] / images as f64, kl: sums[1] / images as f64 })
    }

    /// The plan of this name, built at its first use.
    pub(crate) fn plan(&mut self, name: &str, graph: impl FnOnce(&Vae) -> Graph) -> Result<Bound> {
        if let Some(&bound) = self.plans.get(name) {
            return Ok(bound);
        }
        let bound = self.bind(&graph(&self.vae))?;
        self.plans.insert(name.into(), bound);
        Ok(bound)
    }

    /// Does `work` with fresh counters under `seed`, and puts the old ones back, also after an error: whoever is in the
    /// middle of a training goes on with its own.
    pub(crate) fn aside<T>(&mut self, seed: u64, work: impl FnOnce(&mut Model) -> Result<T>) -> Result<T> {
        let kept = std::mem::replace(self.exec.control_mut(), Control::new(seed));
        let result = work(self);
        *self.exec.control_mut() = kept;
        result
    }

    /// q(z|x) of all images of a slot, in their order.
    ///
    /// # Errors
    /// As [`Model::evaluate`].
    pub fn encode(&mut self, slot: &str, seed: u64) -> Result<Encoded> {
        let images = self.rows(slot)?;
        let latent = self.vae.config.latent;
        let mut encoded = Encoded { latent, mu: Vec::new(), logvar: Vec::new() };
        self.aside(evaluation_seed(seed), |model| {
            for (rows, times) in batches(images, EVALUATION_BATCH) {
                let bound = model.plan(&format!("encode {slot} {rows}"), |vae| encode_graph(vae, slot, rows))?;
                for _ in 0..times {
                    model.exec.run(bound, 1)?;
                    encoded.mu.extend(model.exec.read(&format!("mu/{rows}"))?);
                    encoded.logvar.extend(model.exec.read(&format!("logvar/{rows}"))?);
                }
            }
            Ok(())
        })?;
        Ok(encoded)
    }

    /// q of every stochastic layer, from below, for the first `count` images of a slot: q(z₁|x), and q(z_{l+1}|z_l) at one
    /// draw of z_l. The active units of Burda et al. 2015 are counted on these means.
    ///
    /// # Errors
    /// [`Error::Argument`] when the slot has fewer images or `count` is 0, [`Error::Slot`] from the executor.
    pub fn encode_layers(&mut self, slot: &str, count: usize, seed: u64) -> Result<Vec<Encoded>> {
        let images = self.rows(slot)?;
        if count == 0 || count > images {
            return Err(Error::argument("count", count, format!("a number of images from 1 to {images}")));
        }
        let latents = self.vae.config.latents();
        let mut layers: Vec<Encoded> =
            latents.iter().map(|&latent| Encoded { latent, mu: Vec::new(), logvar: Vec::new() }).collect();
        self.aside(evaluation_seed(seed), |model| {
            for (rows, times) in batches(count, EVALUATION_BATCH) {
                let name = format!("encode layers {slot} {rows}");
                let bound = model.plan(&name, |vae| encode_layers_graph(vae, slot, rows))?;
                for _ in 0..times {
                    model.exec.run(bound, 1)?;
                    for (layer, l) in layers.iter_mut().zip(1..) {
                        layer.mu.extend(model.exec.read(&format!("mu{l}/{rows}"))?);
                        layer.logvar.extend(model.exec.read(&format!("logvar{l}/{rows}"))?);
                    }
                }
            }
            Ok(())
        })?;
        Ok(layers)
    }

    /// The dead units of every hidden layer over all images of a slot, one draw of z each, in the order of
    /// [`Vae::layers`].
    ///
    /// # Errors
    /// As [`Model::evaluate`].
    pub fn dead_units(&mut self, slot: &str, seed: u64) -> Result<Vec<HiddenUnits>> {
        let images = self.rows(slot)?;
        let layers = self.vae.hidden().into_iter().flat_map(|(mlp, _)| &mlp.layers);
        let mut slopes: Vec<_> = layers.map(|layer| (layer.name.clone(), vec![0.0f32; layer.fan_out])).collect();
        self.aside(evaluation_seed(seed), |model| {
            for (rows, times) in batches(images, EVALUATION_BATCH) {
                let bound = model.plan(&format!("slopes {slot} {rows}"), |vae| slopes_graph(vae, slot, rows))?;
                for _ in 0..times {
                    model.exec.run(bound, 1)?;
                    for (layer, largest) in &mut slopes {
                        let found = model.exec.read(&format!("slope {layer}/{rows}"))?;
                        // NaN is not zero, and stays.
                        let larger = |most: f32, slope: f32| if slope > most || slope.is_nan() { slope } else { most };
                        largest.iter_mut().zip(found).for_each(|(most, slope)| *most = larger(*most, slope));
                    }
                }
            }
            Ok(())
        })?;
        let count = |slopes: &[f32]| slopes.iter().filter(|&&slope| slope == 0.0).count();
        let units =
            |(layer, slopes): (String, Vec<f32>)| HiddenUnits { layer, units: slopes.len(), dead: count(&slopes) };
        Ok(slopes.into_iter().map(units).collect())
    }

    /// `count` new images: E[x|z] for z ~ N(0, I), `[count, D]`, a pure function of `seed`; the first images do not
    /// depend on `count`.
    ///
    /// # Errors
    /// From the executor.
    pub fn sample(&mut self, count: usize, seed: u64) -> Result<Vec<f32>> {
        let bound = self.plan("sample", |vae| sampling_graph(vae, DECODE_BATCH))?;
        let mut images = self.aside(seed, |model| {
            let mut images = Vec::with_capacity(count * model.vae.config.pixels());
            for _ in 0..count.div_ceil(DECODE_BATCH) {
                model.exec.run(bound, 1)?;
                images.extend(model.exec.read("samples")?);
            }
            Ok(images)
        })?;
        images.truncate(count * self.vae.config.pixels());
        Ok(images)
    }

    /// E[x|z] of the points z, `[n, K]`, as `[n, D]`.
    ///
    /// # Panics
    /// When `z` is not a whole number of points.
    ///
    /// # Errors
    /// From the executor.
    pub fn decode(&mut self, z: &[f32]) -> Result<Vec<f32>> {
        let latent = self.vae.config.latent;
        assert!(z.len().is_multiple_of(latent), "{} numbers are no points of {latent} dimensions", z.len());
        let bound = self.plan("decode", |vae| decode_graph(vae, DECODE_BATCH))?;
        let mut images = self.aside(0, |model| {
            let mut images = Vec::new();
            for points in z.chunks(DECODE_BATCH * latent) {
                let mut block = points.to_vec();
                block.resize(DECODE_BATCH * latent, 0.0);
                model.exec.write("z", &block)?;
                model.exec.run(bound, 1)?;
                images.extend(model.exec.read("decoded")?);
            }
            Ok(images)
        })?;
        images.truncate(z.len() / latent * self.vae.config.pixels());
        Ok(images)
    }

    /// The first `count` images of a slot as the model sees them, and what one draw of z from q(z|x) decodes to,
    /// `[count, D]` each.
    ///
    /// # Errors
    /// [`Error::Argument`] when the slot has fewer images or `count` is 0, [`Error::Slot`] from the executor.
    pub fn reconstruct(&mut self, slot: &str, count: usize, seed: u64) -> Result<(Vec<f32>, Vec<f32>)> {
        let images = self.rows(slot)?;
        if count == 0 || count > images {
            return Err(Error::argument("count", count, format!("a number of images from 1 to {images}")));
        }
        let bound = self.plan(&format!("rebuild {slot} {count}"), |vae| reconstruction_graph(vae, slot, count))?;
        self.aside(evaluation_seed(seed), |model| model.exec.run(bound, 1))?;
        Ok((self.exec.read(&format!("originals/{count}"))?, self.exec.read(&format!("rebuilt/{count}"))?))
    }
}

/// A graph that uses all parameters, and mentions them in the order of [`Vae::parameters`].
fn parameter_graph(vae: &Vae) -> Graph {
    let g = Graph::new();
    for (name, shape) in vae.parameters() {
        g.param(&name, &shape);
    }
    let x = g.full(&[1, vae.config.pixels()], 0.5);
    let t = terms(vae, x);
    g.metric("rec", t.rec);
    g.metric("kl", t.kl);
    g
}

/// `images` in batches of `size`: (rows, how many), with a smaller last batch if need be.
pub(crate) fn batches(images: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    [(size, images / size), (images % size, 1)].into_iter().filter(|&(rows, times)| rows > 0 && times > 0)
}

#[cfg(test)]
mod tests {
    use super::super::{StochasticLayer, VaeConfig};
    use super::*;
    use crate::data::Splits;
    use crate::engine::nn::Activation;

    /// 784-9-7-2-7-9-784 at its initial values, with 60 images in the slot `some`.
    fn model(config: VaeConfig) -> Model {
        let vae = Vae::new(VaeConfig { encoder: vec![9, 7], decoder: vec![7, 9], ..config }).unwrap();
        let mut model = Model::initial(vae, 1, Device::Cpu { threads: 1 }).unwrap();
        model.load("some", &Splits::digits(1, 2, 60).test).unwrap();
        model
    }

    fn dead(model: &mut Model) -> Vec<(String, usize, usize)> {
        model.dead_units("some", 1).unwrap().into_iter().map(|h| (h.layer, h.dead, h.units)).collect()
    }

    /// Sets the first `count` biases of a layer.
    fn push(model: &mut Model, layer: &str, count: usize, value: f32) {
        let name = format!("{layer}.bias");
        let mut bias = model.exec.read(&name).unwrap();
        bias[..count].fill(value);
        model.exec.write(&name, &bias).unwrap();
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
