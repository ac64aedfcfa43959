//! The ELBO of a batch, and the graphs of everything that is done with a trained model: evaluation, drawing, rebuilding.
//!
//! Each function pushes nodes and returns values, from which [`Executor::compile`](crate::engine::device::Executor::compile)
//! makes a function.

use super::Vae;
use super::gaussian::DiagonalGaussian;
use super::share::{Minibatch, Share};
use crate::engine::graph::{Graph, Var};
use crate::engine::nn::Mlp;
use crate::vae::streams;

/// The two terms of −ELBO for a batch, each summed over images, pixels and dimensions, in nats.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'g> {
    /// −log p(x|z), one draw of z per image; scalar.
    pub rec: Var<'g>,
    /// KL(q(z|x) ‖ p(z)); scalar. With several stochastic layers, where it has no closed form, log q(z|x) − log p(z) at
    /// the draw.
    pub kl: Var<'g>,
}

/// The pixels of a batch of the data set `data`, `[rows, D]`, bytes as numbers in [0, 1].
#[track_caller]
pub fn pixels<'g>(g: &'g Graph, data: &str, rows: usize, pixels: usize) -> Var<'g> {
    g.batch_in_units(data, rows, pixels, 255.0)
}

/// The images of a batch of the data set `data`, `[rows, D]`, as the model sees them: of all its rows, or of a share of them,
/// which a run then reads from the share's first row on.
#[track_caller]
pub(crate) fn images<'g>(g: &'g Graph, vae: &Vae, data: &str, share: impl Into<Share>) -> Minibatch<'g> {
    let share = share.into();
    let x = pixels(g, data, share.rows, vae.config.pixels());
    Minibatch { x: vae.config.binarisation.apply(Minibatch { x, share }, streams::BATCH_PIXELS), share }
}

/// One draw of z₁ for each image.
#[track_caller]
fn draw<'g>(q: DiagonalGaussian<'g>, share: Share) -> Var<'g> {
    q.sample(share.of_noise(1, q.mu.shape()[1], |shape| q.mu.graph().normal(shape, streams::LATENT[0])))
}

/// The terms of −ELBO of the images x, `[B, D]`.
#[track_caller]
pub fn terms<'g>(vae: &Vae, images: impl Into<Minibatch<'g>>) -> Terms<'g> {
    let images @ Minibatch { x, share } = images.into();
    if vae.upper.is_empty() {
        let q = vae.encoder.apply(x);
        return Terms { rec: vae.pixel_nll(x, draw(q, share), false).sum_all(), kl: q.kl().sum_all() };
    }
    let draws = vae.draw(images, 1);
    let w = vae.log_weights(x, draws.first, &draws.z, false, false);
    Terms { rec: -w.likelihood.sum_all(), kl: (w.posterior - w.prior).sum_all() }
}

/// The two terms of −ELBO (β = 1) of `rows` images of the data set `data`: rec and kl, scalars.
///
/// One draw of z per image, as in training. Putting z = μ instead is no bound on anything: it makes the number
/// about 8 nats smaller, for nothing.
pub fn evaluation<'g>(g: &'g Graph, vae: &Vae, data: &str, rows: usize) -> [Var<'g>; 2] {
    let t = terms(vae, images(g, vae, data, rows));
    [t.rec, t.kl]
}

/// `rows` new images: E[x|z] for z ~ p(z), `[rows, D]`.
pub fn sampling<'g>(g: &'g Graph, vae: &Vae, rows: usize) -> Var<'g> {
    vae.decoder.mean(vae.ancestral(g, rows, streams::PRIOR)[0])
}

/// `rows` images of the data set `data` as the model sees them, and what one draw of z from q(z|x) decodes to, `[rows, D]`
/// each.
pub fn reconstruction<'g>(g: &'g Graph, vae: &Vae, data: &str, rows: usize) -> [Var<'g>; 2] {
    let [x, z] = posterior_draw(g, vae, data, rows);
    [x, vae.decoder.mean(z)]
}

/// `rows` images of the data set `data` as the model sees them, `[rows, D]`, and one draw of z from q(z|x) of each, `[rows, K]`.
pub(crate) fn posterior_draw<'g>(g: &'g Graph, vae: &Vae, data: &str, rows: usize) -> [Var<'g>; 2] {
    let Minibatch { x, share } = images(g, vae, data, rows);
    [x, draw(vae.encoder.apply(x), share)]
}

/// q of every stochastic layer of `rows` images of the data set `data`, from below: q(z₁|x), and q(z_{l+1}|z_l) at one draw
/// of z_l.
pub fn posteriors<'g>(g: &'g Graph, vae: &Vae, data: &str, rows: usize) -> Vec<DiagonalGaussian<'g>> {
    let first = vae.encoder.apply(images(g, vae, data, rows).x);
    if vae.upper.is_empty() {
        return vec![first];
    }
    let z = vae.draw_from(first, 1).z;
    let upper = vae.upper.iter().zip(&z).map(|(layer, &z)| layer.posterior.apply(z));
    [first].into_iter().chain(upper).collect()
}

/// For every unit of every hidden layer the largest |f′| of its activation over `rows` images of the data set `data`,
/// one draw of z each, `[width]` for each layer: 0 for a unit that no gradient went through.
pub fn slopes<'g>(g: &'g Graph, vae: &Vae, data: &str, rows: usize) -> Vec<Var<'g>> {
    let x = images(g, vae, data, rows).x;
    let inputs: Vec<Var> = [x].into_iter().chain(vae.draw(x, 1).z).collect();
    let of = |(mlp, input): (&Mlp, usize)| mlp.slopes(inputs[input]);
    vae.hidden().into_iter().flat_map(of).map(|slope| slope.abs().max(&[0])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Binarisation, KlWarmup, Likelihood, UpdateRule, VaeConfig, training_step};
    use super::*;
    use crate::engine::device::{Call, Executor, Key, State};
    use crate::engine::grad::grad;
    use crate::engine::interp::Interp;
    use crate::engine::optim::Optimizer;

    const BYTES: usize = 45;

    fn bytes() -> Vec<u8> {
        (0..BYTES as u32).map(|i| (i * 97 % 256) as u8).collect()
    }

    /// 3×3 pixels, parameters at their initial values.
    fn tiny(likelihood: Likelihood) -> Vae {
        let config = VaeConfig { image: [3, 3], likelihood, ..VaeConfig::new(2).hidden(&[5, 4]) };
        Vae::new(config).unwrap()
    }

    /// Five images in the data set `train`, on the reference.
    fn state(vae: &Vae) -> (Executor, State) {
        let executor = Executor::reference();
        let mut state = executor.state(&vae.params(), 3).unwrap();
        state.load("train", &bytes()[..], 9).unwrap();
        (executor, state)
    }

    const LIKELIHOODS: [Likelihood; 2] = [Likelihood::bernoulli(), Likelihood::gaussian(0.1)];

    #[test]
    fn the_loss_is_differentiated_rightly_in_every_parameter() {
        for likelihood in LIKELIHOODS {
            let vae = tiny(likelihood);
            let g = Graph::new();
            let t = terms(&vae, images(&g, &vae, "train", 4));
            let loss = t.rec * 0.25 + t.kl * 0.5;
            let params = vae.params();
            let grads = grad(loss, &params.vars(&g));
            let mut run = Interp::<f64>::new(&g);
            run.load("train", &bytes()[..], 9).unwrap();
            for param in params.iter() {
                let values: Vec<f64> = (param.initial)(3).into_iter().map(f64::from).collect();
                run.set(&param.name, &values).unwrap();
            }
            for (param, d) in params.iter().zip(grads) {
                let name = &param.name;
                let (d, start) = (run.eval(d), run.get(name).unwrap().to_vec());
                let i = start.len() / 2;
                let mut at = |step: f64| {
                    let mut moved = start.clone();
                    moved[i] += step;
                    run.set(name, &moved).unwrap();
                    run.eval(loss)[0]
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                at(0.0);
                assert!((slope - d[i]).abs() < 1e-6 * (1.0 + slope.abs()), "{name}[{i}]: {slope} against {}", d[i]);
            }
        }
    }

    #[test]
    fn training_lowers_the_loss_and_beta_weighs_the_kl() {
        for likelihood in LIKELIHOODS {
            let vae = tiny(likelihood);
            let (executor, mut state) = state(&vae);
            let g = Graph::new();
            let outputs = training_step(&g, &vae, &UpdateRule::elbo(Optimizer::adam(), Some(1.0)), "train", 5);
            let mut train = executor.compile(&g, outputs).unwrap();
            let warmup = KlWarmup { beta: 0.5, steps: 0 };
            let (rate, beta) = (|_: u64| 0.02, |done: u64| warmup.at(done));
            let mut first = 0.0;
            for step in 0..60 {
                let schedules: &[(&str, crate::engine::device::Schedule)] =
                    &[("learning rate", &rate), ("beta", &beta)];
                let key = Key { seed: 1, step };
                train.run(&mut state, &Call { schedules, ..Call::once(key) }).unwrap();
                if step == 9 {
                    first = train.peek_totals().unwrap().unwrap().totals[2];
                }
            }
            let [rec, kl, loss] = <[f64; 3]>::try_from(train.take_totals().unwrap()).unwrap();
            assert!((loss - rec - 0.5 * kl).abs() < 1e-9 * loss.abs());
            assert!(loss < 6.0 * first - 10.0, "{likelihood}: {loss} after {first} in the first ten steps");
        }
    }

    #[test]
    fn evaluation_draws_z_and_differs_from_its_mean() {
        let vae = tiny(Likelihood::bernoulli());
        let (executor, mut state) = state(&vae);
        let g = Graph::new();
        let mut f = executor.compile(&g, evaluation(&g, &vae, "train", 5)).unwrap();
        let [first, second] = [0, 1].map(|step| f.call(&mut state, Key { seed: 0, step }, &[]).unwrap()[0].clone());
        assert_ne!(first, second, "the second pass draws other noise");
    }

    #[test]
    fn samples_and_rebuilt_images_are_probabilities() {
        let mut vae = tiny(Likelihood::bernoulli());
        vae.config.binarisation = Binarisation::Dynamic;
        let (executor, mut state) = state(&vae);
        let g = Graph::new();
        let mut f = executor.compile(&g, reconstruction(&g, &vae, "train", 5)).unwrap();
        let [originals, rebuilt] = f.call(&mut state, Key::new(0), &[]).unwrap();
        assert!(originals.iter().all(|&x| x == 0.0 || x == 1.0));
        assert!(rebuilt.iter().all(|&x| 0.0 < x && x < 1.0));
        let g = Graph::new();
        let mut f = executor.compile(&g, [sampling(&g, &vae, 7)]).unwrap();
        assert_eq!(f.call(&mut state, Key::new(0), &[]).unwrap()[0].len(), 63);
    }

    #[test]
    fn a_step_of_the_decoder_may_raise_the_elbo_and_lower_log_p() {
        // p(x|z) = N(wz, 1), x = 2, q = N(0, 1): E_q[log p(x|z)] = −½((x − wm)² + w²s²) − ½ ln 2π, p(x) = N(0, 1 + w²).
        let g = Graph::new();
        let (w, x, m, s) = (g.tensor(&[], &[1.0]), 2.0, 0.0, 1.0);
        let elbo = ((x - w * m).square() + w.square() * (s * s)) * -0.5;
        let variance = w.square() + 1.0;
        let log_p = (x * x / variance + variance.log()) * -0.5;
        let slopes = [elbo, log_p].map(|f| grad(f, &[w])[0]);
        let mut run = Interp::<f64>::new(&g);
        assert_eq!(slopes.map(|d| run.eval(d)[0]), [-1.0, 0.5]);
    }
}
