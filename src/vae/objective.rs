//! One step of training: the bounds and the estimators of their gradients.
//!
//! With k draws z_i ~ q_φ(z|x) per image, z_i = μ_φ(x) + σ_φ(x)·ε_i, and w_i = p_θ(x, z_i)/q_φ(z_i|x):
//!
//! ```text
//! ELBO  = E (1/k) Σ log w_i            weights w̃_i = 1/k
//! L_k   = E log (1/k) Σ w_i            weights w̃_i = w_i / Σ w          (normalised importance weights)
//! ```
//!
//! The derivative of either bound is Σ w̃_i · d log w_i, and the decoder's part, Σ w̃_i ∇θ log w_i, is that. For the
//! encoder, log w_i depends on φ twice: through z_i, and through the parameters of log q:
//!
//! ```text
//! d log w_i/dφ = (∂ log w_i/∂z_i)(∂z_i/∂φ)  −  ∂ log q_φ(z_i|x)/∂φ   [z_i held]
//! ```
//!
//! The second part, the score, has expectation zero under q. For the ELBO (w̃_i constant) it is pure noise: [sticking the
//! landing](Estimator::StickingTheLanding) drops it by taking log q's parameters as constants. For L_k the factor w̃_i
//! depends on z_i, and dropping the score makes the estimate wrong; reparameterising the score once more gives what it was
//! worth, and the two together are (Tucker et al. 2019)
//!
//! ```text
//! ∇φ L_k = E Σ w̃_i² (∂ log w_i/∂z_i)(∂z_i/∂φ)
//! ```
//!
//! the [doubly reparameterised](Estimator::DoublyReparameterised) gradient. Near the posterior all w_i are alike, and the
//! factor is 1/k². With a KL weight β in log w_i = log p(x|z_i) + β (log p(z_i) − log q(z_i|x)) the score carries it, and the
//! factor is w̃_i (1 − β + β w̃_i): for β = 1 the square, for β = 0, where there is no score, the plain w̃_i.
//!
//! The [score function](Estimator::ScoreFunction) goes the other way and uses no derivative through z:
//! ∇φ E_q[f] = E_q[f ∇φ log q] with f = log w; f may be replaced by f − b for any b that does not depend on z_i.
//!
//! Each estimator is a few lines of graph below: a `stop_gradient` in the right place, a cotangent scaled on its way, or, for the
//! score function, another function to differentiate, f·log q with f held.

use super::Vae;
use super::bound::{Bound, BoundKind, Estimator, KlTerm};
use super::config::UpdateRule;
use super::elbo::{images, terms};
use super::importance::Draws;
use super::share::{Minibatch, Share};
use crate::engine::grad::grad;
use crate::engine::graph::{Graph, Var};
use crate::engine::optim::clip_scale;

/// A bound of a batch, with its gradient.
pub struct BoundGradient<'g> {
    /// −log p(x|z), summed over images, mean over draws; scalar.
    pub rec: Var<'g>,
    /// The KL term with β = 1, summed over images: in closed form, or log q − log p, mean over draws; scalar.
    pub kl: Var<'g>,
    /// What is minimised, summed over images; scalar.
    pub loss: Var<'g>,
    /// ∂(loss/B)/∂φ, in the order of [`Vae::encoder_params`].
    pub encoder: Vec<Var<'g>>,
    /// ∂(loss/B)/∂θ, in the order of [`Vae::decoder_params`].
    pub decoder: Vec<Var<'g>>,
}

/// The schedule of the learning rate in a training step.
pub const LEARNING_RATE: &str = "learning rate";
/// The schedule of β, the weight of the KL term.
pub const BETA: &str = "beta";

/// One step of training on `rows` images of the data set `data`:
///
/// ```text
/// loss = −(1/B) Σ_batch bound
/// ```
///
/// for the objective's [`Bound`], with β from the schedule [`BETA`], the gradient's global norm limited if the objective says
/// so, and the update of all parameters at the schedule [`LEARNING_RATE`]. Gives Σ −log p(x|z), Σ KL, and the loss weighted
/// by the number of images: scalars, which add up over the steps of a run.
pub fn training_step<'g>(g: &'g Graph, vae: &Vae, objective: &UpdateRule, data: &str, rows: usize) -> [Var<'g>; 3] {
    let step = step_gradients(g, vae, &objective.bound, data, rows.into());
    step_update(g, vae, objective, &step.gradients);
    step.sums
}

/// The first half of a training step: what a rank computes of its share of a batch.
pub struct StepGradients<'g> {
    /// Σ −log p(x|z), Σ KL, and the loss weighted by the number of images: scalars.
    pub sums: [Var<'g>; 3],
    /// For each of [`Vae::encoder_params`], then of [`Vae::decoder_params`].
    pub gradients: Vec<Var<'g>>,
}

/// The gradients of a training step on a share of a batch of the data set `data`. Where the objective is a sum over images
/// ([`Bound::of_the_batch`]), those of all shares of a batch add up to those of the whole.
#[track_caller]
pub fn step_gradients<'g>(g: &'g Graph, vae: &Vae, bound: &Bound, data: &str, share: Share) -> StepGradients<'g> {
    let step = bound_gradients(vae, bound, images(g, vae, data, share));
    let gradients = step.encoder.into_iter().chain(step.decoder).collect();
    StepGradients { sums: [step.rec, step.kl, step.loss], gradients }
}

/// The second half of a training step: the update of all parameters with these gradients of the whole batch, in the order
/// of [`StepGradients::gradients`].
#[track_caller]
pub fn step_update<'g>(g: &'g Graph, vae: &Vae, objective: &UpdateRule, gradients: &[Var<'g>]) {
    let params = vae.encoder_params(g).into_iter().chain(vae.decoder_params(g));
    let pairs: Vec<(Var, Var)> = params.zip(gradients.iter().copied()).collect();
    let rate = g.schedule(LEARNING_RATE);
    match objective.clip {
        None => g.optimize(objective.optimizer, rate, &pairs),
        Some(limit) => g.optimize_scaled(objective.optimizer, rate, &pairs, clip_scale(gradients, limit)),
    }
}

/// The bound of the images x, `[B, D]`, and the estimate of its gradient. β is the step's. Of a share of a batch it is the
/// share's part in both: B is the whole batch's, and an image meets the noise that it meets there.
#[track_caller]
pub fn bound_gradients<'g>(vae: &Vae, bound: &Bound, images: impl Into<Minibatch<'g>>) -> BoundGradient<'g> {
    let images = images.into();
    if bound.kl == KlTerm::Analytic { closed_form(vae, bound, images) } else { sampled(vae, bound, images) }
}

/// The gradients of the mean loss in all parameters, by the plain derivative of `loss`.
#[track_caller]
fn plain<'g>(vae: &Vae, rec: Var<'g>, kl: Var<'g>, loss: Var<'g>, mean_loss: Var<'g>) -> BoundGradient<'g> {
    let g = loss.graph();
    let (phi, theta) = (vae.encoder_params(g), vae.decoder_params(g));
    let all: Vec<Var> = phi.iter().chain(&theta).copied().collect();
    let mut encoder = grad(mean_loss, &all);
    let decoder = encoder.split_off(phi.len());
    BoundGradient { rec, kl, loss, encoder, decoder }
}

/// The ELBO with KL(q ‖ p) in closed form.
#[track_caller]
fn closed_form<'g>(vae: &Vae, bound: &Bound, images: Minibatch<'g>) -> BoundGradient<'g> {
    let Minibatch { x, share } = images;
    let g = x.graph();
    let rows = share.batch as f64;
    let (rec, kl, pushed) =
        if bound.samples == 1 && bound.free_bits.is_none() && !vae.config.likelihood.has_shared_sigma() {
            let t = terms(vae, images);
            (t.rec, t.kl, t.kl)
        } else {
            let draws = vae.draw(images, bound.samples);
            let rec = vae.pixel_nll(x, draws.z[0], true).sum_all() * (1.0 / bound.samples as f64);
            let kl = draws.first.kl();
            let pushed = match bound.free_bits {
                None => kl.sum_all(),
                // Below λ the maximum is a constant: the dimension is left in peace.
                Some(nats) => {
                    let per_dimension = kl.sum(&[0]) * (1.0 / rows);
                    per_dimension.maximum(g.full(&per_dimension.shape(), nats)).sum_all() * rows
                }
            };
            (rec, kl.sum_all(), pushed)
        };
    let loss = rec + g.schedule(BETA) * pushed;
    plain(vae, rec, kl, loss, loss * (1.0 / rows))
}

/// The bounds that are made of sampled weights.
#[track_caller]
fn sampled<'g>(vae: &Vae, bound: &Bound, images: Minibatch<'g>) -> BoundGradient<'g> {
    let Minibatch { x, share } = images;
    let g = x.graph();
    let (rows, k) = (share.batch as f64, bound.samples as f64);
    let beta = Some(g.schedule(BETA));
    let draws = vae.draw(images, bound.samples);
    let held: Vec<Var> = draws.z.iter().map(|z| z.stop_gradient()).collect();
    let (z, frozen) = match bound.estimator {
        Estimator::Total => (&draws.z, false),
        Estimator::StickingTheLanding => (&draws.z, true),
        Estimator::DoublyReparameterised => (&held, true),
        Estimator::ScoreFunction | Estimator::ScoreFunctionBaseline => (&held, false),
    };
    let w = vae.log_weights(x, draws.first, z, frozen, true);
    let log_w = w.log_weight(beta); // [k, B]
    let per_image = match bound.kind {
        BoundKind::Elbo => log_w.sum(&[0]) * (1.0 / k),
        BoundKind::Iwae => log_w.log_sum_exp(&[0]) - k.ln(),
    };
    let loss = -per_image.sum_all();
    let rec = -w.likelihood.sum_all() * (1.0 / k);
    let kl = (w.posterior - w.prior).sum_all() * (1.0 / k);
    let mean_loss = loss * (1.0 / rows);
    let phi = vae.encoder_params(g);
    match bound.estimator {
        Estimator::Total | Estimator::StickingTheLanding => plain(vae, rec, kl, loss, mean_loss),
        Estimator::DoublyReparameterised => {
            let encoder = doubly_reparameterised(&draws, &held, log_w, mean_loss, &phi);
            BoundGradient { rec, kl, loss, encoder, decoder: grad(mean_loss, &vae.decoder_params(g)) }
        }
        Estimator::ScoreFunction | Estimator::ScoreFunctionBaseline => {
            let baseline = bound.estimator == Estimator::ScoreFunctionBaseline;
            let signal = if baseline { log_w - mean_of_the_others(log_w) } else { log_w };
            let surrogate = (signal.stop_gradient() * w.posterior).sum_all() * (-1.0 / (k * rows));
            BoundGradient {
                rec,
                kl,
                loss,
                encoder: grad(surrogate, &phi),
                decoder: grad(mean_loss, &vae.decoder_params(g)),
            }
        }
    }
}

/// Σ w̃_i (1 − β + β w̃_i)(∂ log w_i/∂z_i)(∂z_i/∂φ): the derivative of the loss in z_i is −w̃_i ∂ log w_i/∂z_i already, so
/// that every draw's cotangent is multiplied by 1 − β + β w̃_i on its way from z_i to φ.
#[track_caller]
fn doubly_reparameterised<'g>(
    draws: &Draws<'g>,
    held: &[Var<'g>],
    log_w: Var<'g>,
    loss: Var<'g>,
    phi: &[Var<'g>],
) -> Vec<Var<'g>> {
    let normalised = (log_w - log_w.max_keep(&[0])).exp();
    let normalised = normalised / normalised.sum_keep(&[0]); // [k, B]
    let beta = loss.graph().schedule(BETA);
    let factor = normalised * beta + (1.0 - beta);
    let per_row = factor.reshape(&[factor.shape().size(), 1]).stop_gradient();
    let cotangents = grad(loss, held);
    let parts = draws.z.iter().zip(cotangents).map(|(&z, dz)| (z * (dz * per_row).stop_gradient()).sum_all());
    let surrogate = parts.reduce(|a, b| a + b).expect("a model has a stochastic layer");
    grad(surrogate, phi)
}

/// For each draw the mean of the other draws for the same image; with one draw per image, the mean of the other images'
/// (0 if there is but one image): a baseline that does not depend on the draw itself. `[k, B]`
#[track_caller]
fn mean_of_the_others(log_w: Var<'_>) -> Var<'_> {
    let (k, rows) = (log_w.shape()[0], log_w.shape()[1]);
    let (axis, count) = if k > 1 { (0, k) } else { (1, rows) };
    (log_w.sum_keep(&[axis]) - log_w) * (1.0 / (count.max(2) - 1) as f64)
}
