//! p(x|z) for one pixel.

use std::f64::consts::LN_2;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::gaussian::HALF_LN_2PI;
use crate::engine::graph::Var;

/// The distribution of a pixel given the decoder's output; pixels are independent given z.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Likelihood {
    /// x is 1 with probability sigmoid(l), else 0, for a logit l:
    ///
    /// ```text
    /// −log p(x|l) = softplus(l) − x·l          d/dl = sigmoid(l) − x
    /// ```
    ///
    /// On the logit, never on its sigmoid: in f32 sigmoid(l) rounds to 1 from l ≈ 17 on, where a sure pixel usually
    /// is, and log(1 − sigmoid(l)) is log 0; log(sigmoid(l)) is log 0 only for l < −104. The derivatives are 0/0
    /// there. For a grey x in (0, 1) this is a cross-entropy rather than a likelihood; its minimum is the entropy of
    /// x, not 0.
    Bernoulli,
    /// x ~ N(m, s²) with m = f_μ(z) and s = floor + softplus(r) for the raw output r = f_σ(z):
    ///
    /// ```text
    /// −log p(x|m, s) = ½((x − m)/s)² + ln s + ½ ln 2π
    /// ```
    ///
    /// The floor is part of the model. Pixels of the border are 0 in every image; with s free they are predicted
    /// exactly, s → 0 earns −log p → −∞, and the likelihood has no maximum (Mattei & Frellsen 2018, arXiv
    /// 1802.04826). A density may exceed 1, so that −ELBO may be negative; it depends on the floor, which
    /// is therefore printed with it.
    Gaussian {
        /// The smallest s, in units where white is 1.
        sigma_floor: f64,
    },
    /// As [`Likelihood::Gaussian`] with one s = floor + softplus(r) for all pixels and images; r is the parameter
    /// `decoder.sigma`. Squared error with its weight learned.
    GaussianShared {
        /// The smallest s, in units where white is 1.
        sigma_floor: f64,
    },
    /// As [`Likelihood::GaussianShared`], and in training s² is the best one for the batch in closed form, its mean
    /// squared error (σ-VAE, Rybkin et al. 2021, arXiv 2006.13202):
    ///
    /// ```text
    /// −log p = D/2·(ln 2π·MSE + 1)          gradient: that of the MSE times D/(2·MSE)
    /// ```
    ///
    /// Outside of training there is no batch: there s is `decoder.sigma`, which training moves by the gradient of the
    /// same likelihood at that error.
    GaussianOptimal {
        /// The smallest s, in units where white is 1.
        sigma_floor: f64,
    },
    /// A density on [0, 1] that is the Bernoulli formula made to integrate to 1 (Loaiza-Ganem & Cunningham 2019, arXiv
    /// 1907.06845):
    ///
    /// ```text
    /// −log p(x|l) = softplus(l) − x·l − log C,     C = (l/2) / tanh(l/2) · 2
    /// ```
    ///
    /// C is the paper's 2·atanh(1 − 2λ)/(1 − 2λ) with λ = sigmoid(l). Near l = 0 it is 0/0; there the series of its
    /// logarithm stands in.
    ContinuousBernoulli,
    /// The probability that a logistic distribution around the location m with scale s gives to the cell of the byte
    /// 255·x, which is 1/255 wide; the outermost cells are open (Kingma et al. 2016, arXiv 1606.04934; Salimans et al.
    /// 2017):
    ///
    /// ```text
    /// p(x|m, s) = σ(a) − σ(b),     a = (x − m + 1/510)/s,  b = (x − m − 1/510)/s
    /// log p     = −softplus(−a) − softplus(b) + log(1 − e^(−(a − b)))
    /// ```
    ///
    /// The second line never takes the difference of two numbers near 1. A probability, so that bits per dimension
    /// mean something.
    DiscretisedLogistic {
        /// The smallest s, in units where white is 1.
        scale_floor: f64,
    },
}

/// What the decoder says about a batch of images.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'g> {
    /// One or two numbers per pixel, `[rows, D]` or `[rows, 2D]`.
    pub values: Var<'g>,
    /// The raw spread shared by all pixels, a scalar, if the likelihood has one.
    pub shared: Option<Var<'g>>,
}

/// Half the width of a cell of the discretised logistic.
const HALF_CELL: f64 = 1.0 / 510.0;

impl Likelihood {
    /// The floor of s unless another is asked for: with it log p of a pixel is at most −ln 0.1 − ½ ln 2π = +1.38 nats.
    pub const SIGMA_FLOOR: f64 = 0.1;

    /// How many numbers of the decoder describe a pixel.
    pub fn parameters_per_pixel(&self) -> usize {
        match self {
            Likelihood::Gaussian { .. } | Likelihood::DiscretisedLogistic { .. } => 2,
            _ => 1,
        }
    }

    /// Whether all pixels share one spread, the parameter `decoder.sigma`.
    pub fn has_shared_sigma(&self) -> bool {
        matches!(self, Likelihood::GaussianShared { .. } | Likelihood::GaussianOptimal { .. })
    }

    /// The smallest spread, for the likelihoods that have one.
    pub fn floor(&self) -> Option<f64> {
        match *self {
            Likelihood::Bernoulli | Likelihood::ContinuousBernoulli => None,
            Likelihood::Gaussian { sigma_floor }
            | Likelihood::GaussianShared { sigma_floor }
            | Likelihood::GaussianOptimal { sigma_floor } => Some(sigma_floor),
            Likelihood::DiscretisedLogistic { scale_floor } => Some(scale_floor),
        }
    }

    /// Whether p(x|z) is a density on grey values, and not a probability: then −log p may be negative, and grey pixels are
    /// needed.
    pub fn is_density(&self) -> bool {
        !matches!(self, Likelihood::Bernoulli | Likelihood::DiscretisedLogistic { .. })
    }

    /// Bits per dimension, nats/(D ln 2), where p(x|z) is a probability of what was modelled: of bytes, or of black and
    /// white pixels. For a density, or for grey values under a Bernoulli, there is no such number.
    pub fn bits_per_dimension(&self, nats: f64, pixels: usize, binary: bool) -> Option<f64> {
        let discrete = match self {
            Likelihood::Bernoulli => binary,
            other => !other.is_density(),
        };
        discrete.then(|| nats / (pixels as f64 * LN_2))
    }

    /// −log p(x|z) for each pixel, `[rows, D]`, from what the decoder says and the images `x`, `[rows, D]`.
    #[track_caller]
    pub fn nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        let Raw { values, .. } = raw;
        match *self {
            Likelihood::Bernoulli => values.softplus() - x * values,
            Likelihood::Gaussian { sigma_floor } => {
                let (mean, sigma) = halves(values, sigma_floor);
                gaussian_nll(x - mean, sigma)
            }
            Likelihood::GaussianShared { .. } | Likelihood::GaussianOptimal { .. } => {
                gaussian_nll(x - values, self.shared_sigma(raw))
            }
            Likelihood::ContinuousBernoulli => values.softplus() - x * values - log_normaliser(values),
            Likelihood::DiscretisedLogistic { scale_floor } => {
                let (mean, scale) = halves(values, scale_floor);
                let (a, b) = ((x - mean + HALF_CELL) / scale, (x - mean - HALF_CELL) / scale);
                let (below, above) = ((-a).softplus(), b.softplus());
                let width = -(-(2.0 * HALF_CELL / scale)).expm1(); // 1 − e^(b − a)
                let inner = below + above - width.log();
                let g = x.graph();
                let open_above = x.gt(g.full(&x.shape(), 1.0 - HALF_CELL)).select(above, inner);
                x.lt(g.full(&x.shape(), HALF_CELL)).select(below, open_above)
            }
        }
    }

    /// As [`Likelihood::nll`] for a batch that is learned from: with [`Likelihood::GaussianOptimal`], s² is the batch's mean
    /// squared error, and `decoder.sigma` gets its own gradient without changing the value.
    #[track_caller]
    pub fn training_nll<'g>(&self, raw: Raw<'g>, x: Var<'g>) -> Var<'g> {
        let Likelihood::GaussianOptimal { sigma_floor } = *self else { return self.nll(raw, x) };
        let error = x - raw.values;
        let mse = error.square().mean_all();
        let floor = error.graph().constant(sigma_floor * sigma_floor);
        let optimal = gaussian_nll(error, mse.maximum(floor).sqrt());
        // The value of the second part is 0; its gradient is that of the likelihood in decoder.sigma alone.
        let sigma = self.shared_sigma(raw);
        let own = mse.stop_gradient() / sigma.square() * 0.5 + sigma.log();
        optimal + (own - own.stop_gradient())
    }

    fn shared_sigma<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        let floor = self.floor().expect("a Gaussian has a floor");
        raw.shared.expect("the decoder of a shared sigma has it").softplus() + floor
    }

    /// E[x|z], `[rows, D]`.
    ///
    /// For the discretised logistic it is that of the logistic distribution with all that lies beyond black and white
    /// moved onto them, which differs from the mean over the bytes by no more than half a cell:
    ///
    /// ```text
    /// ∫₀¹ σ((m − t)/s) dt = s (softplus(m/s) − softplus((m − 1)/s))
    /// ```
    ///
    /// Its location m is that far from black and white only: at m = 0 half of the logistic lies below 0, and E[x|z] ≈
    /// s ln 2.
    #[track_caller]
    pub fn mean<'g>(&self, raw: Raw<'g>) -> Var<'g> {
        let values = raw.values;
        match self {
            Likelihood::Bernoulli => values.sigmoid(),
            Likelihood::ContinuousBernoulli => continuous_bernoulli_mean(values),
            Likelihood::GaussianShared { .. } | Likelihood::GaussianOptimal { .. } => values,
            Likelihood::Gaussian { .. } => values.slice_cols(0, values.shape()[1] / 2),
            Likelihood::DiscretisedLogistic { scale_floor } => {
                let (location, scale) = halves(values, *scale_floor);
                scale * ((location / scale).softplus() - ((location - 1.0) / scale).softplus())
            }
        }
    }
}

/// Location and spread = floor + softplus(r), from the two halves of the columns.
#[track_caller]
fn halves<'g>(values: Var<'g>, floor: f64) -> (Var<'g>, Var<'g>) {
    let pixels = values.shape()[1] / 2;
    (values.slice_cols(0, pixels), values.slice_cols(pixels, pixels).softplus() + floor)
}

/// ½(e/s)² + ln s + ½ ln 2π for errors e.
#[track_caller]
fn gaussian_nll<'g>(error: Var<'g>, sigma: Var<'g>) -> Var<'g> {
    (error / sigma).square() * 0.5 + (sigma.log() + HALF_LN_2PI)
}

/// |l| below which the formulas of the continuous Bernoulli are replaced by their series. At the seam the closed form has
/// lost three of f32's seven digits, and the series' first missing term is below 1e-12.
const NEAR_ZERO: f64 = 0.2;

/// log C = ln 2 + ln(t/tanh t) with t = |l|/2; ln(t/tanh t) = t²/3 − 7t⁴/90 + 62t⁶/2835 − 127t⁸/18900 + …
#[track_caller]
fn log_normaliser(l: Var<'_>) -> Var<'_> {
    let near = l.abs().lt(l.graph().full(&l.shape(), NEAR_ZERO));
    let one = l.graph().full(&l.shape(), 1.0);
    let square = (l * 0.5).square();
    let series = square * (1.0 / 3.0 + square * (-7.0 / 90.0 + square * (62.0 / 2835.0 - square * (127.0 / 18900.0))));
    // The branch that is not taken must have a finite gradient too.
    let t = near.select(one, l.abs() * 0.5);
    near.select(series, t.log() - t.tanh().log()) + LN_2
}

/// E[x] = 1/(1 − e^(−l)) − 1/l = ½ + l/12 − l³/720 + l⁵/30240 − …
#[track_caller]
fn continuous_bernoulli_mean(l: Var<'_>) -> Var<'_> {
    let near = l.abs().lt(l.graph().full(&l.shape(), NEAR_ZERO));
    let one = l.graph().full(&l.shape(), 1.0);
    let square = l.square();
    let series = l * (1.0 / 12.0 + square * (-1.0 / 720.0 + square * (1.0 / 30240.0))) + 0.5;
    // Written for l > 0 and mirrored: −1/expm1(−l) with l = −100 would be 1/∞.
    let t = near.select(one, l.abs());
    let upper = -1.0 / (-t).expm1() - 1.0 / t;
    let positive = l.gt(l.graph().full(&l.shape(), 0.0));
    near.select(series, positive.select(upper, 1.0 - upper))
}

impl fmt::Display for Likelihood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Likelihood::Bernoulli => f.write_str("bernoulli"),
            Likelihood::Gaussian { sigma_floor } => write!(f, "gaussian (sigma ≥ {sigma_floor})"),
            Likelihood::GaussianShared { sigma_floor } => write!(f, "gaussian with one sigma (≥ {sigma_floor})"),
            Likelihood::GaussianOptimal { sigma_floor } => {
                write!(f, "gaussian with the optimal sigma (≥ {sigma_floor})")
            }
            Likelihood::ContinuousBernoulli => f.write_str("continuous bernoulli"),
            Likelihood::DiscretisedLogistic { scale_floor } => {
                write!(f, "discretised logistic (scale ≥ {scale_floor})")
            }
        }
    }
}

#[cfg(test)]
mod tests;
