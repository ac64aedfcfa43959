//! The model of which everything is known, and a q that stands as far from its posterior as one likes.
//!
//! ```text
//! z ~ N(0, I₂),  x|z ~ N(W z + b, σ² I₃),  the columns of W orthogonal
//! p(z|x)  = N(m*, diag s²),  s_j² = σ²/(‖w_j‖² + σ²),  m*_j = w_jᵀ(x − b)/(‖w_j‖² + σ²)
//! log p(x)  = −½ [D ln 2π + (D − K) ln σ² + Σ ln (‖w_j‖² + σ²) + (‖x − b‖² − Σ (w_jᵀ(x − b))²/(‖w_j‖² + σ²))/σ²]
//! ```
//!
//! (Tipping & Bishop 1999; Lucas et al. 2019, arXiv 1911.02469.) Orthogonal columns make the posterior diagonal, so that the
//! encoder, a diagonal Gaussian, can be the posterior exactly. For q = N(m, diag σ_q²), with r_j = σ_qj²/s_j² and δ_j = (m_j −
//! m*_j)/s_j,
//!
//! ```text
//! log p(x) − ELBO = KL(q ‖ p(z|x))     = ½ Σ (r_j − 1 − ln r_j + δ_j²)
//! 1 + χ²(p(z|x) ‖ q) = E_q[w²]/p(x)²  = Π r_j/√(2r_j − 1) · exp(δ_j²/(2r_j − 1)),   infinite for r_j ≤ ½
//! ∂ELBO/∂m_j = −δ_j/s_j,   ∂ELBO/∂lv_j = ½ (1 − r_j)
//! ```

use std::f64::consts::PI;

use crate::engine::device::State;
use crate::engine::error::{Error, Result};
use crate::engine::nn::Activation;
use crate::vae::{Likelihood, Vae, VaeConfig};

/// Pixels of the known model.
pub const PIXELS: usize = 3;
/// Latent dimensions of the known model.
pub const LATENT: usize = 2;

/// The image.
pub(super) const X: [f64; PIXELS] = [0.7, 0.4, -1.1];
/// The decoder's bias.
const BIAS: [f64; PIXELS] = [0.1, -0.2, 0.3];
/// The decoder's weights as they are stored, `[K, D]`: two orthogonal rows.
const W: [[f64; PIXELS]; LATENT] = [[1.0, 0.0, 2.0], [0.4, -1.0, -0.2]];
/// σ² of the pixels.
const VARIANCE: f64 = 0.5;
/// Below this σ the likelihood of the crate does not go.
const FLOOR: f64 = 0.1;
/// A mean that stands far off makes weights whose fourth power is beyond f64.
const MOST_DISTANCE: f64 = 6.0;

/// The linear Gaussian model with one image.
#[derive(Clone, Debug)]
pub struct LinearGaussian {
    /// The crate's VAE without hidden layers, which is this model.
    pub vae: Vae,
}

/// N(m, diag σ²) in the plane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlaneGaussian {
    /// m.
    pub mean: [f64; LATENT],
    /// σ².
    pub variance: [f64; LATENT],
}

impl LinearGaussian {
    /// The model of the laboratory.
    ///
    /// # Errors
    /// None that is known: its configuration is valid.
    pub fn new() -> Result<LinearGaussian> {
        let vae = Vae::new(VaeConfig {
            image: [1, PIXELS],
            activation: Activation::Identity,
            likelihood: Likelihood::gaussian_shared(FLOOR),
            ..VaeConfig::new(LATENT).hidden(&[])
        })?;
        Ok(LinearGaussian { vae })
    }

    /// p(z|x).
    pub fn posterior(&self) -> PlaneGaussian {
        let precision = W.map(|w| w.iter().map(|w| w * w).sum::<f64>() + VARIANCE);
        let projected = W.map(|w| (0..PIXELS).map(|i| w[i] * (X[i] - BIAS[i])).sum::<f64>());
        PlaneGaussian {
            mean: [0, 1].map(|j| projected[j] / precision[j]),
            variance: precision.map(|precision| VARIANCE / precision),
        }
    }

    /// q at distance δ: its mean stands δ posterior standard deviations from the posterior's in both dimensions, up in the
    /// first and down in the second, and its variance is 1 + δ/10 times the posterior's. 0 is the posterior.
    ///
    /// # Errors
    /// [`Error::Argument`] when δ is not from 0 to 6.
    pub fn q_at(&self, distance: f64) -> Result<PlaneGaussian> {
        if !(0.0..=MOST_DISTANCE).contains(&distance) {
            let expected = format!("a number of posterior standard deviations from 0 to {MOST_DISTANCE}");
            return Err(Error::argument("distances", distance, expected));
        }
        let PlaneGaussian { mean, variance } = self.posterior();
        let step = [0, 1].map(|j| distance * variance[j].sqrt());
        Ok(PlaneGaussian {
            mean: [mean[0] + step[0], mean[1] - step[1]],
            variance: variance.map(|v| v * (1.0 + distance / 10.0)),
        })
    }

    /// log p(x).
    pub fn log_evidence(&self) -> f64 {
        let centred: Vec<f64> = X.iter().zip(BIAS).map(|(x, b)| x - b).collect();
        let square: f64 = centred.iter().map(|c| c * c).sum();
        let PlaneGaussian { mean, variance } = self.posterior();
        // Mⱼ = σ²/s²; the explained part is Mⱼ m*².
        let big = variance.map(|v| VARIANCE / v);
        let explained: f64 = (0..LATENT).map(|j| big[j] * mean[j] * mean[j]).sum();
        let log_det: f64 = big.iter().map(|m| m.ln()).sum();
        let (d, k) = (PIXELS as f64, LATENT as f64);
        -0.5 * (d * (2.0 * PI).ln() + (d - k) * VARIANCE.ln() + log_det + (square - explained) / VARIANCE)
    }

    /// log p(x) − ELBO(q) = KL(q ‖ p(z|x)), in nats.
    pub fn gap(&self, q: &PlaneGaussian) -> f64 {
        let per_dimension = self.ratios(q).map(|(r, delta)| 0.5 * (r - 1.0 - r.ln() + delta * delta));
        per_dimension.iter().sum()
    }

    /// χ²(p(z|x) ‖ q) = Var_q(w)/p(x)²: how many draws it takes until the weights average out.
    pub fn chi_square(&self, q: &PlaneGaussian) -> f64 {
        let factors = self.ratios(q).map(|(r, delta)| match 2.0 * r - 1.0 {
            // Relative to 1, so that it is 0 at the posterior and not a rounding error.
            rest if rest > 0.0 => r.ln() - 0.5 * rest.ln() + delta * delta / rest,
            _ => f64::INFINITY,
        });
        factors.iter().sum::<f64>().exp_m1()
    }

    /// The gradient of the ELBO in (m, lv), in closed form.
    pub fn elbo_gradient(&self, q: &PlaneGaussian) -> [f64; 2 * LATENT] {
        let s = self.posterior().variance.map(f64::sqrt);
        let [(r0, d0), (r1, d1)] = self.ratios(q);
        [-d0 / s[0], -d1 / s[1], 0.5 * (1.0 - r0), 0.5 * (1.0 - r1)]
    }

    /// (r_j, δ_j) of both dimensions.
    fn ratios(&self, q: &PlaneGaussian) -> [(f64, f64); LATENT] {
        let p = self.posterior();
        [0, 1].map(|j| (q.variance[j] / p.variance[j], (q.mean[j] - p.mean[j]) / p.variance[j].sqrt()))
    }

    /// ∂ log p(x|z)/∂b = (x − b − W z)/σ²: what the decoder's bias gets of one draw.
    pub(super) fn bias_slope(&self, z: [f64; LATENT]) -> [f64; PIXELS] {
        [0, 1, 2].map(|i| (X[i] - BIAS[i] - W[0][i] * z[0] - W[1][i] * z[1]) / VARIANCE)
    }

    /// Writes the decoder, and q as what the encoder says of every image.
    ///
    /// # Errors
    /// From the device.
    pub fn write(&self, state: &mut State, q: &PlaneGaussian) -> Result<()> {
        let raw = self.vae.config.likelihood.raw_shared_sigma(VARIANCE.sqrt()).expect("all pixels share σ");
        let heads = q.mean.into_iter().chain(q.variance.map(f64::ln)).collect();
        let all: [(&str, Vec<f64>); 5] = [
            ("encoder.heads.weight", vec![0.0; PIXELS * 2 * LATENT]),
            ("encoder.heads.bias", heads),
            ("decoder.mu.weight", W.concat()),
            ("decoder.mu.bias", BIAS.to_vec()),
            ("decoder.sigma", vec![raw]),
        ];
        let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        all.into_iter().try_for_each(|(name, values)| state.write(name, &single(values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E_q[f] by the trapezoid rule over ±9 standard deviations of q.
    fn expectation(q: &PlaneGaussian, f: impl Fn([f64; 2]) -> f64) -> f64 {
        let nodes: Vec<f64> = (-60..=60).map(|i| f64::from(i) * 0.15).collect();
        let weight = |e: f64| 0.15 * (-0.5 * e * e).exp() / (2.0 * PI).sqrt();
        let at = |e: f64, j: usize| q.mean[j] + q.variance[j].sqrt() * e;
        let all = nodes.iter().flat_map(|&a| nodes.iter().map(move |&b| (a, b)));
        all.map(|(a, b)| weight(a) * weight(b) * f([at(a, 0), at(b, 1)])).sum()
    }

    fn log_normal(x: f64, mean: f64, variance: f64) -> f64 {
        -0.5 * ((x - mean).powi(2) / variance + variance.ln() + (2.0 * PI).ln())
    }

    /// log p(x, z) − log q(z) from the model's definition.
    fn log_weight(q: &PlaneGaussian, z: [f64; 2]) -> f64 {
        let pixel = |i: usize| log_normal(X[i], BIAS[i] + W[0][i] * z[0] + W[1][i] * z[1], VARIANCE);
        let ratio = |j: usize| log_normal(z[j], 0.0, 1.0) - log_normal(z[j], q.mean[j], q.variance[j]);
        (0..PIXELS).map(pixel).sum::<f64>() + ratio(0) + ratio(1)
    }

    #[test]
    fn closed_forms_are_those_of_the_definition_by_quadrature() {
        let model = LinearGaussian::new().unwrap();
        for distance in [0.0, 0.5, 1.5] {
            let q = model.q_at(distance).unwrap();
            let log_p = model.log_evidence();
            let evidence = expectation(&q, |z| log_weight(&q, z).exp());
            let elbo = expectation(&q, |z| log_weight(&q, z));
            let second = expectation(&q, |z| (2.0 * (log_weight(&q, z) - log_p)).exp());
            assert!((evidence.ln() - log_p).abs() < 1e-9, "log p(x) {log_p}, quadrature {}", evidence.ln());
            assert!((log_p - elbo - model.gap(&q)).abs() < 1e-9, "gap {} at {distance}", model.gap(&q));
            let chi = model.chi_square(&q);
            assert!((second - 1.0 - chi).abs() < 1e-6 * (1.0 + chi), "χ² {chi}, quadrature {}", second - 1.0);
        }
        assert_eq!(model.chi_square(&model.posterior()), 0.0);
        assert_eq!(model.gap(&model.posterior()), 0.0);
    }

    #[test]
    fn the_gradient_of_the_bound_is_its_slope() {
        let model = LinearGaussian::new().unwrap();
        let q = model.q_at(1.2).unwrap();
        for (number, exact) in model.elbo_gradient(&q).into_iter().enumerate() {
            let at = |h: f64| {
                let mut moved = q;
                match number {
                    0 | 1 => moved.mean[number] += h,
                    _ => moved.variance[number - 2] *= h.exp(),
                }
                -model.gap(&moved)
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - exact).abs() < 1e-8, "{number}: {exact}, its slope is {slope}");
        }
    }

    #[test]
    fn a_distance_out_of_range_is_refused() {
        let model = LinearGaussian::new().unwrap();
        for wrong in [-0.1, 6.5, f64::NAN] {
            assert!(model.q_at(wrong).unwrap_err().to_string().contains("0 to 6"));
        }
    }
}
