//! Diagonal Gaussians whose parameters a network computes: q(z|x), and between stochastic layers q(z₂|z₁) and p(z₁|z₂).

use serde::{Deserialize, Serialize};

use super::kl::kl_to_standard_normal;
use crate::engine::graph::{Graph, Var};
use crate::engine::names::names;
use crate::engine::nn::{Activation, Linear, Mlp};

/// Half the logarithm of 2π.
pub(super) const HALF_LN_2PI: f64 = 0.918_938_533_204_672_7;

/// N(μ, diag e^lv), one for each row.
#[derive(Clone, Copy, Debug)]
pub struct DiagonalGaussian<'g> {
    /// μ, `[rows, K]`.
    pub mu: Var<'g>,
    /// lv = log σ², `[rows, K]`.
    pub logvar: Var<'g>,
}

impl<'g> DiagonalGaussian<'g> {
    /// z = μ + e^(lv/2)·ε, `[rows, K]`, the reparameterised draw: for noise ε ~ N(0, I) that is drawn apart from them, z
    /// is a differentiable function of μ and lv.
    #[track_caller]
    pub fn sample(self, noise: Var<'g>) -> Var<'g> {
        self.mu + (self.logvar * 0.5).exp() * noise
    }

    /// KL(N(μ, diag e^lv) ‖ N(0, I)), one number per row and dimension, `[rows, K]`.
    #[track_caller]
    pub fn kl(self) -> Var<'g> {
        kl_to_standard_normal(self.mu, self.logvar)
    }

    /// log N(z; μ, diag e^lv) = −½((z − μ)·e^(−lv/2))² − ½lv − ½ln 2π for each row and dimension, `[rows, K]`.
    #[track_caller]
    pub fn log_density(self, z: Var<'g>) -> Var<'g> {
        let standard = (z - self.mu) * (self.logvar * -0.5).exp();
        (standard.square() + self.logvar) * -0.5 - HALF_LN_2PI
    }

    /// The same distribution as a constant of the reverse pass: what sticking-the-landing puts into log q.
    #[track_caller]
    pub fn detached(self) -> DiagonalGaussian<'g> {
        DiagonalGaussian { mu: self.mu.stop_gradient(), logvar: self.logvar.stop_gradient() }
    }

    /// Every row `k` times: rows s·B … s·B + B − 1 of the result are those of this one, for s = 0 … k − 1.
    #[track_caller]
    pub fn repeated(self, k: usize) -> DiagonalGaussian<'g> {
        DiagonalGaussian { mu: repeat_rows(self.mu, k), logvar: repeat_rows(self.logvar, k) }
    }
}

/// `[B, n]` to `[k·B, n]`, the whole block `k` times.
#[track_caller]
pub(super) fn repeat_rows(x: Var<'_>, k: usize) -> Var<'_> {
    let (rows, cols) = (x.shape()[0], x.shape()[1]);
    match k {
        1 => x,
        // One row is repeated where it is read; more have to be copied.
        _ if rows == 1 => x.broadcast_to(&[k, cols]),
        _ => x.reshape(&[1, rows, cols]).broadcast_to(&[k, rows, cols]).reshape(&[k * rows, cols]),
    }
}

/// log N(z; 0, I) for each row and dimension, `[rows, K]`.
#[track_caller]
pub(super) fn log_standard_normal(z: Var<'_>) -> Var<'_> {
    z.square() * -0.5 - HALF_LN_2PI
}

/// What the second half of a network's output means. Any real number is a valid log-variance and a valid log σ; the
/// choices differ in how fast σ moves with a weight, and in what happens far out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// The output is lv = log σ², as in most implementations.
    #[default]
    LogVariance,
    /// lv in ±[`Spread::BOUND`]: the output r goes through lv = b − s(b − (s(r + b) − b)), s = softplus, which is r to 1e-5
    /// for |r| < 4 and bends smoothly. Unlike `clamp` it has a gradient everywhere, so that a unit that was thrown out
    /// finds back.
    BoundedLogVariance,
    /// The output is log σ, as in the code of Burda et al. 2015: lv = 2r.
    LogSigma,
}

impl Spread {
    /// b of [`Spread::BoundedLogVariance`]: σ stays within e^±8, about 0.0003 … 3000.
    pub const BOUND: f64 = 16.0;

    /// lv from a network's output.
    #[track_caller]
    pub fn log_variance(self, raw: Var<'_>) -> Var<'_> {
        match self {
            Spread::LogVariance => raw,
            Spread::BoundedLogVariance => {
                let above = (raw + Spread::BOUND).softplus() - Spread::BOUND;
                Spread::BOUND - (Spread::BOUND - above).softplus()
            }
            Spread::LogSigma => raw * 2.0,
        }
    }
}

names!(Spread, "spread":
    LogVariance "log_variance",
    BoundedLogVariance "bounded_log_variance",
    LogSigma "log_sigma",
);

/// A network from a vector to a diagonal Gaussian: the encoder q(z|x), or a layer of a deeper model.
#[derive(Clone, Debug)]
pub struct Conditional {
    /// `{name}.0`, `{name}.1`, …
    pub hidden: Mlp,
    /// `{name}.heads`, `[hidden, 2K]`: μ in the first K columns, the spread in the last K. One product instead of two that
    /// read the same input; checkpoints have the two apart.
    pub heads: Linear,
    /// What the spread means.
    pub spread: Spread,
    /// K.
    pub latent: usize,
}

impl Conditional {
    pub(super) fn new(
        name: &str,
        fan_in: usize,
        widths: &[usize],
        latent: usize,
        activation: Activation,
        spread: Spread,
    ) -> Conditional {
        let hidden = Mlp::new(name, fan_in, widths, activation);
        let last = widths.last().copied().unwrap_or(fan_in);
        let second = if spread == Spread::LogSigma { "log_sigma" } else { "logvar" };
        let parts = ["mu", second].map(|part| format!("{name}.{part}"));
        let heads = Linear::side_by_side(format!("{name}.heads"), &parts, last, latent);
        Conditional { hidden, heads, spread, latent }
    }

    /// The distribution for each row of `x`.
    #[track_caller]
    pub fn apply<'g>(&self, x: Var<'g>) -> DiagonalGaussian<'g> {
        self.split(self.heads.apply(self.hidden.apply(x)))
    }

    /// As [`Conditional::apply`], with the parameters as constants of the reverse pass: a gradient goes to `x` alone.
    #[track_caller]
    pub fn apply_frozen<'g>(&self, x: Var<'g>) -> DiagonalGaussian<'g> {
        let step = |x: Var<'g>, layer: &Linear| self.hidden.activation.apply(layer.apply_frozen(x));
        self.split(self.heads.apply_frozen(self.hidden.layers.iter().fold(x, step)))
    }

    #[track_caller]
    fn split<'g>(&self, heads: Var<'g>) -> DiagonalGaussian<'g> {
        let raw = heads.slice_cols(self.latent, self.latent);
        DiagonalGaussian { mu: heads.slice_cols(0, self.latent), logvar: self.spread.log_variance(raw) }
    }

    /// Its layers, from the input on.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.hidden.layers.iter().chain([&self.heads])
    }

    /// Its parameters in the graph `g`.
    #[track_caller]
    pub fn params<'g>(&self, g: &'g Graph) -> Vec<Var<'g>> {
        self.layers().flat_map(|layer| layer.params(g)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::interp::Interp;
    use crate::engine::nn::Initialisation;

    #[test]
    fn names_are_their_own_inverse() {
        for s in Spread::ALL {
            assert_eq!(s.name().parse::<Spread>().unwrap(), *s);
            assert_eq!(serde_json::to_string(s).unwrap(), format!("\"{s}\""));
        }
        assert!("softplus".parse::<Spread>().unwrap_err().to_string().contains("log_sigma"));
    }

    #[test]
    fn the_bound_is_soft_and_keeps_a_gradient() {
        let g = Graph::new();
        let raw = [-60.0, -16.0, -4.0, 0.0, 3.0, 16.0, 60.0];
        let r = g.tensor(&[7], &raw);
        let lv = Spread::BoundedLogVariance.log_variance(r);
        let slope = grad(lv.sum_all(), &[r])[0];
        let mut run = Interp::<f64>::new(&g);
        let (lv, slope) = (run.eval(lv), run.eval(slope));
        for i in 2..5 {
            assert!((lv[i] - raw[i]).abs() < 1e-5, "{lv:?}");
            assert!((slope[i] - 1.0).abs() < 1e-5);
        }
        assert!(lv.iter().all(|v| v.abs() <= 16.0 + 1e-9) && lv.windows(2).all(|w| w[0] <= w[1]), "{lv:?}");
        assert!(slope.iter().all(|&s| s > 0.0), "a clamp would have no gradient outside: {slope:?}");
        assert!((slope[1] - 0.5).abs() < 1e-6 && (slope[5] - 0.5).abs() < 1e-6);
    }

    #[test]
    fn log_density_is_the_density() {
        let g = Graph::new();
        let q = DiagonalGaussian { mu: g.tensor(&[1, 2], &[0.5, -1.0]), logvar: g.tensor(&[1, 2], &[0.0, 4f64.ln()]) };
        let found = Interp::<f64>::new(&g).eval(q.log_density(g.tensor(&[1, 2], &[1.5, 1.0])));
        // N(1.5; 0.5, 1) and N(1; −1, 4): e^(−½)/√(2π), e^(−½)/(2√(2π)).
        let base = -0.5 - 0.5 * (2.0 * std::f64::consts::PI).ln();
        assert!((found[0] - base).abs() < 1e-15 && (found[1] - (base - 2f64.ln())).abs() < 1e-15, "{found:?}");
    }

    #[test]
    fn rows_are_repeated_as_a_block() {
        let g = Graph::new();
        let x = g.tensor(&[2, 1], &[1.0, 2.0]);
        assert_eq!(Interp::<f64>::new(&g).eval(repeat_rows(x, 3)), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
        assert_eq!(repeat_rows(x, 1).id(), x.id());
    }

    #[test]
    fn frozen_parameters_get_no_gradient_and_the_input_does() {
        let net = Conditional::new("q", 3, &[4], 2, Activation::Tanh, Spread::LogVariance);
        let g = Graph::new();
        let x = g.tensor(&[1, 3], &[0.3, -0.2, 0.9]);
        let [open, frozen] = [net.apply(x), net.apply_frozen(x)].map(|d| (d.mu + d.logvar).sum_all());
        let mut wrt = net.params(&g);
        wrt.push(x);
        let mut run = Interp::<f64>::new(&g);
        for layer in net.layers() {
            let values = layer.initial_weight(Initialisation::Torch, 1, 0).into_iter().map(f64::from);
            run.set(&layer.weight_name(), &values.collect::<Vec<_>>()).unwrap();
            let values = layer.initial_bias(Initialisation::Torch, 1, 0).into_iter().map(f64::from);
            run.set(&layer.bias_name(), &values.collect::<Vec<_>>()).unwrap();
        }
        let [a, b] = [open, frozen].map(|y| grad(y, &wrt));
        assert_eq!(run.eval(open), run.eval(frozen));
        assert!(b[..4].iter().all(|d| run.eval(*d).iter().all(|&v| v == 0.0)));
        assert!(a[..4].iter().all(|d| run.eval(*d).iter().any(|&v| v != 0.0)));
        let (dx, dx_frozen) = (run.eval(a[4]), run.eval(b[4]));
        assert!(dx.iter().zip(&dx_frozen).all(|(a, b)| (a - b).abs() < 1e-15) && dx[0] != 0.0);
    }
}
