//! What a page asks of a model: pictures of points, densities of points, their slopes, draws.

use crate::engine::device::{Function, Key};
use crate::engine::error::{Error, Result};
use crate::engine::grad::grad;
use crate::engine::graph::{Graph, Var};
use crate::engine::isa::Isa;
use crate::engine::math::Real;
use crate::engine::rng::Draw;
use crate::vae::{DeviceVae, Encoded, Raw, Vae, streams};

/// Rows of the functions that are compiled. A page asks for one point where a pointer is, for a line of pictures, or for a
/// grid.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];

/// Which of the sizes is next, with so many rows left: the one that they nearly fill, or the largest that they fill.
fn class(left: usize) -> usize {
    let fills = |&size: &usize| 4 * left >= 3 * size;
    match SIZES.iter().position(|&size| size >= left).filter(|&next| fills(&SIZES[next])) {
        Some(next) => next,
        None => SIZES.iter().rposition(|&size| size <= left).unwrap_or(0),
    }
}

/// A graph of so many rows: its first input is one row for each, a second is the same for all.
type RowsGraph = for<'g> fn(&'g Graph, &Vae, usize) -> Vec<Var<'g>>;

/// A function of any number of rows.
struct ByRows {
    build: RowsGraph,
    compiled: [Option<Function>; SIZES.len()],
}

impl ByRows {
    fn new(build: RowsGraph) -> ByRows {
        ByRows { build, compiled: [const { None }; SIZES.len()] }
    }

    /// The outputs of all rows of `rows`, `[n, width]`. No row's bits depend on the others, nor on how many there are.
    fn run(
        &mut self,
        model: &mut DeviceVae,
        rows: &[f32],
        width: usize,
        shared: Option<&[f32]>,
    ) -> Result<Vec<Vec<f32>>> {
        let mut rest = rows;
        let mut all: Vec<Vec<f32>> = Vec::new();
        loop {
            let left = rest.len() / width;
            let class = class(left);
            let (size, count) = (SIZES[class], left.min(SIZES[class]));
            let function = self.function(model, class)?;
            let mut block = rest[..count * width].to_vec();
            block.resize(size * width, 0.0);
            let inputs: Vec<&[f32]> = [&block[..]].into_iter().chain(shared).collect();
            let outputs = function.call(&mut model.state, Key::new(0), &inputs)?;
            all.resize(outputs.len(), Vec::new());
            for (all, mut output) in all.iter_mut().zip(outputs) {
                output.truncate(output.len() / size * count);
                all.append(&mut output);
            }
            rest = &rest[count * width..];
            if rest.is_empty() {
                return Ok(all);
            }
        }
    }

    fn function(&mut self, model: &DeviceVae, class: usize) -> Result<&mut Function> {
        if self.compiled[class].is_none() {
            let g = Graph::new();
            let outputs = (self.build)(&g, &model.vae, SIZES[class]);
            self.compiled[class] = Some(model.executor.compile(&g, outputs)?);
        }
        Ok(self.compiled[class].as_mut().expect("compiled just now"))
    }
}

/// Three numbers, or three vectors, for each of some points z and one image x.
#[derive(Clone, Debug, PartialEq)]
pub struct PointWeights {
    /// log p(x|z), or its slope ∂/∂z.
    pub likelihood: Vec<f32>,
    /// log p(z), or its slope.
    pub prior: Vec<f32>,
    /// log q(z|x), or its slope.
    pub posterior: Vec<f32>,
}

impl PointWeights {
    fn of(outputs: Vec<Vec<f32>>) -> PointWeights {
        let [likelihood, prior, posterior] = outputs.try_into().expect("three outputs");
        PointWeights { likelihood, prior, posterior }
    }

    /// log w = log p(x|z) + log p(z) − log q(z|x) of each point.
    pub fn log_weights(&self) -> Vec<f64> {
        let terms = self.likelihood.iter().zip(&self.prior).zip(&self.posterior);
        terms.map(|((&l, &p), &q)| f64::from(l) + f64::from(p) - f64::from(q)).collect()
    }

    /// log (1/k) Σ w: a draw of the importance weighted bound L_k, if the k points are draws from q.
    pub fn bound(&self) -> f64 {
        let w = self.log_weights();
        let top = w.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        top + (w.iter().map(|w| (w - top).exp()).sum::<f64>() / w.len() as f64).ln()
    }
}

/// The functions of one model, compiled when they are first asked for. Its parameters may change between two questions.
pub struct ModelView {
    decode: ByRows,
    raw: ByRows,
    encode: ByRows,
    weights: ByRows,
    slopes: ByRows,
}

impl Default for ModelView {
    fn default() -> ModelView {
        ModelView {
            decode: ByRows::new(decoded),
            raw: ByRows::new(|g, vae, rows| vec![said(g, vae, rows).values]),
            encode: ByRows::new(|g, vae, rows| {
                let q = vae.encoder.apply(g.input(&[rows, vae.config.pixels()]));
                vec![q.mu, q.logvar]
            }),
            weights: ByRows::new(|g, vae, rows| weighed(g, vae, rows).1.to_vec()),
            slopes: ByRows::new(|g, vae, rows| {
                let (z, terms) = weighed(g, vae, rows);
                // A row's terms depend on its own z alone: the slope of the sum has all slopes in it.
                terms.map(|term| grad(term.sum_all(), &[z])[0]).to_vec()
            }),
        }
    }
}

/// What the decoder says of the first input.
fn said<'g>(g: &'g Graph, vae: &Vae, rows: usize) -> Raw<'g> {
    vae.decoder.apply(g.input(&[rows, vae.config.latent]))
}

/// E[x|z], and the pixels' spread if there is one.
fn decoded<'g>(g: &'g Graph, vae: &Vae, rows: usize) -> Vec<Var<'g>> {
    let (raw, likelihood) = (said(g, vae, rows), vae.config.likelihood);
    let mean = likelihood.mean(raw);
    let spread = likelihood.spread(raw).map(|spread| spread.broadcast_to(&mean.shape()));
    [mean].into_iter().chain(spread).collect()
}

/// z, `[rows, K]`, and log p(x|z), log p(z), log q(z|x), `[rows, 1]` each, for one image.
fn weighed<'g>(g: &'g Graph, vae: &Vae, rows: usize) -> (Var<'g>, [Var<'g>; 3]) {
    let z = g.input(&[rows, vae.config.latent]);
    let x = g.input(&[1, vae.config.pixels()]);
    let w = vae.log_weights(x, vae.encoder.apply(x), &[z], false, false);
    (z, [w.likelihood, w.prior, w.posterior])
}

impl ModelView {
    /// E[x|z] of points z, `[n, K]`, as `[n, D]`, and the spread of each pixel, if the likelihood has one: σ of a Gaussian, the
    /// scale of a logistic.
    ///
    /// # Errors
    /// [`Error::Argument`] when these are no points; from the executor.
    pub fn decode(&mut self, model: &mut DeviceVae, z: &[f32]) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let latent = points(model, z)?;
        let mut outputs = self.decode.run(model, z, latent, None)?.into_iter();
        Ok((outputs.next().expect("a mean"), outputs.next()))
    }

    /// x ~ p(x|z) for one point, `[D]`, a pure function of `seed`: what [`DeviceVae::throw`] throws, which prepares its function
    /// at every call.
    ///
    /// # Errors
    /// As [`ModelView::decode`].
    pub fn throw(&mut self, model: &mut DeviceVae, z: &[f32], seed: u64) -> Result<Vec<f32>> {
        let latent = points(model, z)?;
        let raw = self.raw.run(model, &z[..latent], latent, None)?.remove(0);
        Ok(model.pixel_numbers(raw)?.throw(Draw { seed, step: 0, stream: streams::THROWN_PIXELS }))
    }

    /// q(z|x) of images, `[n, D]`.
    ///
    /// # Errors
    /// [`Error::Argument`] when these are no images; from the executor.
    pub fn encode(&mut self, model: &mut DeviceVae, x: &[f32]) -> Result<Encoded> {
        let pixels = model.vae.config.pixels();
        whole("pixels", x.len(), pixels)?;
        let [mu, logvar] = self.encode.run(model, x, pixels, None)?.try_into().expect("two outputs");
        Ok(Encoded { latent: model.vae.config.latent, mu, logvar })
    }

    /// log p(x|z), log p(z) and log q(z|x) of one image and points z, `[n, K]`.
    ///
    /// # Errors
    /// As [`ModelView::decode`]; [`Error::Argument`] when `x` is not one image.
    pub fn log_weights(&mut self, model: &mut DeviceVae, x: &[f32], z: &[f32]) -> Result<PointWeights> {
        let latent = points(model, z)?;
        one_image(model, x)?;
        self.weights.run(model, z, latent, Some(x)).map(PointWeights::of)
    }

    /// The slopes of the three in z, `[n, K]` each, by the crate's own differentiation.
    ///
    /// # Errors
    /// As [`ModelView::log_weights`].
    pub fn slopes(&mut self, model: &mut DeviceVae, x: &[f32], z: &[f32]) -> Result<PointWeights> {
        let latent = points(model, z)?;
        one_image(model, x)?;
        self.slopes.run(model, z, latent, Some(x)).map(PointWeights::of)
    }

    /// `count` points z ~ N(0, I), `[count, K]`, a pure function of `seed`; the first do not depend on `count`.
    pub fn prior_draws(&self, model: &DeviceVae, count: usize, seed: u64) -> Vec<f32> {
        noise(count * model.vae.config.latent, seed, streams::PRIOR)
    }

    /// `count` points z = μ + e^(lv/2)·ε from q(z|x) of one image, as [`ModelView::prior_draws`].
    ///
    /// # Errors
    /// As [`ModelView::log_weights`].
    pub fn encoder_draws(&mut self, model: &mut DeviceVae, x: &[f32], count: usize, seed: u64) -> Result<Vec<f32>> {
        one_image(model, x)?;
        let Encoded { latent, mu, logvar } = self.encode(model, x)?;
        let mut z = noise(count * latent, seed, streams::LATENT[0]);
        for (i, z) in z.iter_mut().enumerate() {
            *z = mu[i % latent] + Real::exp(logvar[i % latent] * 0.5) * *z;
        }
        Ok(z)
    }
}

fn noise(count: usize, seed: u64, stream: u32) -> Vec<f32> {
    let mut out = vec![0.0; count];
    Draw { seed, step: 0, stream }.fill_normal(Isa::detect(), 0, &mut out);
    out
}

/// K, if the numbers are points.
fn points(model: &DeviceVae, z: &[f32]) -> Result<usize> {
    let latent = model.vae.config.latent;
    whole("coordinates of z", z.len(), latent).map(|()| latent)
}

fn one_image(model: &DeviceVae, x: &[f32]) -> Result<()> {
    match model.vae.config.pixels() {
        pixels if x.len() == pixels => Ok(()),
        pixels => Err(Error::argument("pixels", x.len(), format!("one image of {pixels}"))),
    }
}

fn whole(what: &str, found: usize, width: usize) -> Result<()> {
    match found > 0 && found.is_multiple_of(width) {
        true => Ok(()),
        false => Err(Error::argument(what, found, format!("a multiple of {width}, at least once"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::bundle::tests::bundle;
    use super::super::golden::executor;
    use super::super::{Exhibit, Golden};
    use super::*;
    use crate::vae::{Likelihood, VaeConfig};

    fn exhibit(likelihood: Likelihood) -> Exhibit {
        let bundle = bundle(VaeConfig { likelihood, ..VaeConfig::new(2) }).unwrap();
        Exhibit::Trained(Box::new(bundle.open(executor()).unwrap()))
    }

    #[test]
    fn rows_are_cut_into_sizes_that_they_nearly_fill() {
        let sizes = |mut left: usize| {
            let mut all = Vec::new();
            while left > 0 {
                let size = SIZES[class(left)];
                all.push(size);
                left -= size.min(left);
            }
            all
        };
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(3), [4]);
        assert_eq!(sizes(33), [16, 16, 1]);
        assert_eq!(sizes(50), [64]);
        assert_eq!(sizes(600), [256, 256, 64, 16, 4, 4]);
    }

    #[test]
    fn no_row_depends_on_the_others() {
        for likelihood in Likelihood::all() {
            let mut exhibit = exhibit(likelihood);
            let x = exhibit.shown().image(3, 784).unwrap();
            let (model, view) = exhibit.parts();
            let z = view.prior_draws(model, 70, 5);
            let all = (
                view.decode(model, &z).unwrap(),
                view.log_weights(model, &x, &z).unwrap(),
                view.slopes(model, &x, &z).unwrap(),
            );
            for i in [0, 40, 69] {
                let one = &z[2 * i..2 * i + 2];
                // Sums over pixels are cut by the number of rows: their last bits may differ.
                let near = |found: &[f32], expected: &[f32]| {
                    assert_eq!(found.len(), expected.len());
                    for (a, b) in found.iter().zip(expected) {
                        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{likelihood}: {a} and {b}");
                    }
                };
                let (mean, spread) = view.decode(model, one).unwrap();
                near(&mean, &all.0.0[784 * i..784 * (i + 1)]);
                assert_eq!(spread.is_some(), all.0.1.is_some());
                if let (Some(own), Some(all)) = (&spread, &all.0.1) {
                    near(own, &all[784 * i..784 * (i + 1)]);
                }
                let w = view.log_weights(model, &x, one).unwrap();
                near(&[w.likelihood[0], w.posterior[0]], &[all.1.likelihood[i], all.1.posterior[i]]);
                let slopes = view.slopes(model, &x, one).unwrap();
                near(&slopes.likelihood, &all.2.likelihood[2 * i..2 * i + 2]);
            }
        }
    }

    #[test]
    fn slopes_are_those_of_the_weights() {
        let mut exhibit = exhibit(Likelihood::bernoulli());
        let x = exhibit.shown().image(0, 784).unwrap();
        let (model, view) = exhibit.parts();
        let h = 0.02;
        let z = [0.3, -0.4, 0.3 + h, -0.4, 0.3 - h, -0.4];
        let (w, slope) = (view.log_weights(model, &x, &z).unwrap(), view.slopes(model, &x, &z[..2]).unwrap());
        let difference = |of: &[f32]| (of[1] - of[2]) / (2.0 * h);
        let near = |found: f32, expected: f32| assert!((found - expected).abs() < 0.02 * expected.abs() + 0.02);
        near(difference(&w.likelihood), slope.likelihood[0]);
        near(difference(&w.prior), slope.prior[0]);
        near(difference(&w.posterior), slope.posterior[0]);
    }

    #[test]
    fn draws_are_those_of_their_seed_and_do_not_depend_on_their_number() {
        let mut exhibit = exhibit(Likelihood::gaussian(0.1));
        let x = exhibit.shown().image(0, 784).unwrap();
        let (model, view) = exhibit.parts();
        let q = view.encode(model, &x).unwrap();
        let (few, many) =
            (view.encoder_draws(model, &x, 3, 9).unwrap(), view.encoder_draws(model, &x, 4000, 9).unwrap());
        assert_eq!(few, many[..6]);
        assert_ne!(few, view.encoder_draws(model, &x, 3, 10).unwrap());
        let mean = many.iter().step_by(2).sum::<f32>() / 4000.0;
        assert!((mean - q.mu[0]).abs() < 5.0 * (0.5 * q.logvar[0]).exp() / 4000f32.sqrt());
        assert_eq!(view.prior_draws(model, 2, 9), view.prior_draws(model, 5, 9)[..4]);
        let thrown = view.throw(model, &few, 1).unwrap();
        assert_eq!((thrown.len(), &thrown), (784, &view.throw(model, &few, 1).unwrap()));
        assert_ne!(thrown, view.throw(model, &few, 2).unwrap());
    }

    #[test]
    fn a_page_throws_the_images_that_the_program_throws() {
        for likelihood in Likelihood::all() {
            let mut exhibit = exhibit(likelihood);
            let (model, view) = exhibit.parts();
            let z = [0.1, 0.5];
            assert_eq!(view.throw(model, &z, 7).unwrap(), model.throw(&z, 7).unwrap(), "{likelihood}");
        }
    }

    #[test]
    fn what_is_no_point_and_no_image_is_refused() {
        let mut exhibit = exhibit(Likelihood::bernoulli());
        let (model, view) = exhibit.parts();
        let refused = |error: Error, word: &str| assert!(error.to_string().contains(word), "{error} lacks {word}");
        refused(view.decode(model, &[0.1; 3]).unwrap_err(), "multiple of 2");
        refused(view.encode(model, &[]).unwrap_err(), "multiple of 784");
        refused(view.log_weights(model, &[0.0; 785], &[0.0; 2]).unwrap_err(), "one image of 784");
    }

    #[test]
    fn golden_numbers_are_those_of_the_widest_kernels_but_for_rounding() {
        let bundle = bundle(VaeConfig::new(2)).unwrap().sealed().unwrap();
        let portable = bundle.golden.clone().unwrap();
        let widest = crate::Device::Cpu { threads: 1 }.open().unwrap();
        let fused = Golden::of(&mut bundle.open(widest).unwrap()).unwrap();
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + a.abs()));
        assert!(near(&portable.mean, &fused.mean) && near(&portable.likelihood, &fused.likelihood));
        assert!(near(&portable.likelihood_slope, &fused.likelihood_slope));
        assert!((portable.bound - fused.bound).abs() < 1e-3 && (portable.losses[2] - fused.losses[2]).abs() < 0.1);
    }
}
