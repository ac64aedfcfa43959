//! The ELBO of a batch, and the graphs of everything that is done with a trained model: evaluation, drawing, rebuilding.

use super::Vae;
use super::gaussian::Gaussian;
use crate::engine::graph::{Graph, Var};
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

/// The images of a batch of the data slot `data`, `[rows, D]`, as the model sees them.
#[track_caller]
pub(crate) fn images<'g>(g: &'g Graph, vae: &Vae, data: &str, rows: usize) -> Var<'g> {
    vae.config.binarisation.apply(g.batch(data, rows, vae.config.pixels()), streams::BATCH_PIXELS)
}

/// One draw of z₁ for each image.
#[track_caller]
fn draw<'g>(q: Gaussian<'g>) -> Var<'g> {
    q.sample(q.mu.graph().normal(&q.mu.shape(), streams::LATENT[0]))
}

/// The terms of −ELBO of the images `x`, `[B, D]`.
#[track_caller]
pub fn terms<'g>(vae: &Vae, x: Var<'g>) -> Terms<'g> {
    if vae.upper.is_empty() {
        let q = vae.encoder.apply(x);
        return Terms { rec: vae.pixel_nll(x, draw(q), false).sum_all(), kl: q.kl().sum_all() };
    }
    let draws = vae.draw(x, 1);
    let w = vae.log_weights(x, draws.first, &draws.z, false, false);
    Terms { rec: -w.likelihood.sum_all(), kl: (w.posterior - w.prior).sum_all() }
}

/// The two terms of −ELBO (β = 1) of `rows` images of the data slot `data`, added to the metrics `rec` and `kl`.
///
/// One draw of z per image, as in training. Putting z = μ instead is no bound on anything: it makes the number
/// about 8 nats smaller, for nothing.
pub fn evaluation_graph(vae: &Vae, data: &str, rows: usize) -> Graph {
    let g = Graph::new();
    let t = terms(vae, images(&g, vae, data, rows));
    g.metric("rec", t.rec);
    g.metric("kl", t.kl);
    g
}

/// `rows` new images: z ~ p(z), E[x|z] stored in `samples`, `[rows, D]`.
pub fn sampling_graph(vae: &Vae, rows: usize) -> Graph {
    let g = Graph::new();
    let z = vae.ancestral(&g, rows, streams::PRIOR);
    g.store("samples", vae.decoder.mean(z[0]));
    g
}

/// The images of given points of the lowest layer: z from the state `z`, `[rows, K]`, E[x|z] stored in `decoded`,
/// `[rows, D]`.
pub fn decode_graph(vae: &Vae, rows: usize) -> Graph {
    let g = Graph::new();
    g.store("decoded", vae.decoder.mean(g.state("z", &[rows, vae.config.latent])));
    g
}

/// `rows` images of the data slot `data` as the model sees them, in the state `originals/{rows}`, and what one draw of z
/// from q(z|x) decodes to, in `rebuilt/{rows}`, `[rows, D]` each. (A state has one shape; hence the number in its name.)
pub fn reconstruction_graph(vae: &Vae, data: &str, rows: usize) -> Graph {
    let g = Graph::new();
    let x = images(&g, vae, data, rows);
    g.store(&format!("originals/{rows}"), x);
    g.store(&format!("rebuilt/{rows}"), vae.decoder.mean(draw(vae.encoder.apply(x))));
    g
}

/// q(z₁|x) of `rows` images of the data slot `data`: μ and log σ² in the states `mu/{rows}` and `logvar/{rows}`,
/// `[rows, K]` each.
pub fn encode_graph(vae: &Vae, data: &str, rows: usize) -> Graph {
    let g = Graph::new();
    let q = vae.encoder.apply(images(&g, vae, data, rows));
    g.store(&format!("mu/{rows}"), q.mu);
    g.store(&format!("logvar/{rows}"), q.logvar);
    g
}

/// As [`encode_graph`] for every stochastic layer: q(z_{l+1}|z_l) at one draw of z_l, in the states `mu{l}/{rows}` and
/// `logvar{l}/{rows}` for l = 1, 2, … from below.
pub fn encode_layers_graph(vae: &Vae, data: &str, rows: usize) -> Graph {
    let g = Graph::new();
    let first = vae.encoder.apply(images(&g, vae, data, rows));
    let z = vae.draw_from(first, 1).z;
    let upper = vae.upper.iter().zip(&z).map(|(layer, &z)| layer.posterior.apply(z));
    for (q, l) in [first].into_iter().chain(upper).zip(1..) {
        g.store(&format!("mu{l}/{rows}"), q.mu);
        g.store(&format!("logvar{l}/{rows}"), q.logvar);
    }
    g
}

/// For every unit of every hidden layer the largest |f′| of its activation over `rows` images of the data slot `data`,
/// one draw of z each, in the states `slope {layer}/{rows}`, `[width]`: 0 for a unit that no gradient went through.
pub fn slopes_graph(vae: &Vae, data: &str, rows: usize) -> Graph {
    let g = Graph::new();
    let x = images(&g, vae, data, rows);
    let inputs: Vec<Var> = [x].into_iter().chain(vae.draw(x, 1).z).collect();
    for (mlp, input) in vae.hidden() {
        for (layer, slope) in mlp.layers.iter().zip(mlp.slopes(inputs[input])) {
            g.store(&format!("slope {}/{rows}", layer.name), slope.abs().max(&[0]));
        }
    }
    g
}

#[cfg(test)]
mod tests {
    use super::super::{Binarisation, Likelihood, Objective, VaeConfig, training_graph};
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::interp::Interp;
    use crate::engine::optim::{Control, KlWarmup, LrSchedule, Optimizer};

    /// 3×3 pixels, five images in a data slot, parameters at their initial values.
    fn tiny(likelihood: Likelihood) -> Vae {
        let config = VaeConfig { image: [3, 3], likelihood, ..VaeConfig::new(2).hidden(&[5, 4]) };
        Vae::new(config).unwrap()
    }

    fn fill<'g>(vae: &Vae, g: &'g Graph) -> Interp<'g, f64> {
        let mut run = Interp::new(g);
        let bytes: Vec<u8> = (0..45u32).map(|i| (i * 97 % 256) as u8).collect();
        if g.slots().iter().any(|s| s.name == "train") {
            run.set_data("train", &bytes, 9).unwrap();
        }
        for init in vae.init(3) {
            let values: Vec<f64> = init.values.iter().map(|&v| f64::from(v)).collect();
            if g.slots().iter().any(|s| s.name == init.name) {
                run.set(&init.name, &values).unwrap();
            }
        }
        run
    }

    const LIKELIHOODS: [Likelihood; 2] = [Likelihood::Bernoulli, Likelihood::Gaussian { sigma_floor: 0.1 }];

    #[test]
    fn the_loss_is_differentiated_rightly_in_every_parameter() {
        for likelihood in LIKELIHOODS {
            let vae = tiny(likelihood);
            let g = Graph::new();
            let t = terms(&vae, images(&g, &vae, "train", 4));
            let loss = t.rec * 0.25 + t.kl * 0.5;
            let layers = vae.layers();
            let params: Vec<Var> = layers.iter().flat_map(|l| l.params(&g)).collect();
            let names: Vec<String> = layers.iter().flat_map(|l| [l.weight_name(), l.bias_name()]).collect();
            let grads = grad(loss, &params);
            let mut run = fill(&vae, &g);
            for (name, d) in names.iter().zip(grads) {
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
            let objective = Objective::elbo(Optimizer::adam(), Some(1.0));
            let g = training_graph(&vae, &objective, "train", 5);
            let mut run = fill(&vae, &g);
            run.control = Control {
                lr: LrSchedule::Constant { lr: 0.02 },
                warmup: KlWarmup { beta: 0.5, steps: 0 },
                ..Control::new(1)
            };
            let mut first = 0.0;
            for step in 0..60 {
                run.control.cursor = 0;
                run.step();
                if step == 9 {
                    first = run.metric("loss").unwrap();
                }
            }
            let all = ["loss", "rec", "kl"].map(|name| run.metric(name).unwrap());
            assert!((all[0] - all[1] - 0.5 * all[2]).abs() < 1e-9 * all[0].abs());
            assert!(all[0] < 6.0 * first - 10.0, "{likelihood}: {} after {first} in the first ten steps", all[0]);
        }
    }

    #[test]
    fn evaluation_draws_z_and_differs_from_its_mean() {
        let vae = tiny(Likelihood::Bernoulli);
        let g = evaluation_graph(&vae, "train", 5);
        let mut run = fill(&vae, &g);
        run.step();
        let first = run.metric("rec").unwrap();
        run.control.cursor = 0;
        run.step();
        assert_ne!(run.metric("rec").unwrap(), 2.0 * first, "the second pass draws other noise");
    }

    #[test]
    fn samples_and_rebuilt_images_are_probabilities() {
        let mut vae = tiny(Likelihood::Bernoulli);
        vae.config.binarisation = Binarisation::Dynamic;
        let g = reconstruction_graph(&vae, "train", 5);
        let mut run = fill(&vae, &g);
        run.step();
        assert!(run.get("originals/5").unwrap().iter().all(|&x| x == 0.0 || x == 1.0));
        assert!(run.get("rebuilt/5").unwrap().iter().all(|&x| 0.0 < x && x < 1.0));
        let g = sampling_graph(&vae, 7);
        let mut run = fill(&vae, &g);
        run.step();
        assert_eq!(run.get("samples").unwrap().len(), 63);
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
