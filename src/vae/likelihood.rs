//! p(x|z) for one pixel, and what a pixel is taken to be.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::graph::Var;

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
    /// On the logit, never on its sigmoid: log(sigmoid(l)) is log 0 for l < −104 in f32, and its derivative 0/0. For a
    /// grey x in (0, 1) this is a cross-entropy rather than a likelihood; its minimum is the entropy of x, not 0.
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
}

/// Half the logarithm of 2π.
const HALF_LN_2PI: f64 = 0.918_938_533_204_672_7;

impl Likelihood {
    /// The floor of s unless another is asked for: with it a pixel earns at most ln(0.1) + ½ ln 2π = −1.38 nats.
    pub const SIGMA_FLOOR: f64 = 0.1;

    /// How many numbers of the decoder describe a pixel.
    pub fn parameters_per_pixel(&self) -> usize {
        match self {
            Likelihood::Bernoulli => 1,
            Likelihood::Gaussian { .. } => 2,
        }
    }

    /// −log p(x|z) for each pixel, `[B, D]`, from the decoder's `raw` output and the images `x`, `[B, D]`.
    #[track_caller]
    pub fn nll<'g>(&self, raw: Var<'g>, x: Var<'g>) -> Var<'g> {
        match *self {
            Likelihood::Bernoulli => raw.softplus() - x * raw,
            Likelihood::Gaussian { sigma_floor } => {
                let pixels = x.shape()[1];
                let mean = raw.slice_cols(0, pixels);
                let sigma = raw.slice_cols(pixels, pixels).softplus() + sigma_floor;
                ((x - mean) / sigma).square() * 0.5 + (sigma.log() + HALF_LN_2PI)
            }
        }
    }

    /// E[x|z], `[B, D]`.
    #[track_caller]
    pub fn mean<'g>(&self, raw: Var<'g>) -> Var<'g> {
        match self {
            Likelihood::Bernoulli => raw.sigmoid(),
            Likelihood::Gaussian { .. } => raw.slice_cols(0, raw.shape()[1] / 2),
        }
    }
}

impl fmt::Display for Likelihood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Likelihood::Bernoulli => f.write_str("bernoulli"),
            Likelihood::Gaussian { sigma_floor } => write!(f, "gaussian (sigma ≥ {sigma_floor})"),
        }
    }
}

/// What is done to a grey value p in [0, 1] before it is modelled. These are four different data sets: their results
/// differ by several nats and must not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binarisation {
    /// Nothing: x = p.
    Grey,
    /// x = 1 with probability p, drawn anew at every use (Burda et al. 2015).
    Dynamic,
    /// x = 1 if p > ½.
    Threshold,
    /// x = 1 with probability p, drawn once for all runs, as in Larochelle & Murray's file (but not its very draws).
    Fixed,
}

impl Binarisation {
    /// Every kind.
    pub const ALL: [Binarisation; 4] =
        [Binarisation::Grey, Binarisation::Dynamic, Binarisation::Threshold, Binarisation::Fixed];

    /// The name, as in [`FromStr`] and in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Binarisation::Grey => "grey",
            Binarisation::Dynamic => "dynamic",
            Binarisation::Threshold => "threshold",
            Binarisation::Fixed => "fixed",
        }
    }

    /// The data set to keep in memory: what can be done once is done here, and [`Binarisation::apply`] does the rest.
    ///
    /// The draw of [`Binarisation::Fixed`] does not depend on a run's seed: it belongs to the data.
    pub fn prepare(self, data: &Dataset) -> Cow<'_, Dataset> {
        match self {
            Binarisation::Grey | Binarisation::Dynamic => Cow::Borrowed(data),
            Binarisation::Threshold => Cow::Owned(data.binarise_threshold()),
            Binarisation::Fixed => Cow::Owned(data.binarise_fixed(0)),
        }
    }

    /// The images to model, `[B, D]`, from prepared ones; `stream` is the noise of a new draw.
    #[track_caller]
    pub fn apply(self, prepared: Var<'_>, stream: u32) -> Var<'_> {
        match self {
            // u in [0, 1) is below p with probability p: never for p = 0, always for p = 1.
            Binarisation::Dynamic => prepared.graph().uniform(&prepared.shape(), stream).lt(prepared),
            _ => prepared,
        }
    }
}

impl fmt::Display for Binarisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Binarisation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Binarisation> {
        let known = Binarisation::ALL.into_iter().find(|b| b.name() == text);
        known.ok_or_else(|| {
            Error::argument("binarisation", format!("\"{text}\""), "one of grey, dynamic, threshold, fixed")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;
    use crate::grad::grad;
    use crate::graph::Graph;
    use crate::interp::Interp;

    #[test]
    fn bernoulli_is_finite_with_the_right_gradient_at_any_logit() {
        let logits = [-1e4, -300.0, -88.0, -1.0, 0.0, 1.0, 88.0, 300.0, 1e4];
        for x in [0.0, 0.3, 1.0] {
            let g = Graph::new();
            let l = g.tensor(&[1, 9], &logits);
            let nll = Likelihood::Bernoulli.nll(l, g.full(&[1, 9], x));
            let d = grad(nll.sum_all(), &[l])[0];
            let (mut f32s, mut f64s) = (Interp::<f32>::new(&g), Interp::<f64>::new(&g));
            for (i, &l) in logits.iter().enumerate() {
                let exact = l.max(0.0) - x * l + (-l.abs()).exp().ln_1p();
                assert!((f64s.eval(nll)[i] - exact).abs() <= 1e-12 * exact.abs() + 1e-12);
                assert!((f64::from(f32s.eval(nll)[i]) - exact).abs() <= 1e-5 * exact.abs() + 1e-6);
                assert!((f64::from(f32s.eval(d)[i]) - (1.0 / (1.0 + (-l).exp()) - x)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn gaussian_is_its_density_above_the_floor() {
        let g = Graph::new();
        let raw = g.tensor(&[1, 4], &[0.2, 0.9, -50.0, 0.0]); // means 0.2, 0.9; raw sigmas −50, 0
        let x = g.tensor(&[1, 2], &[0.25, 0.5]);
        let p = Likelihood::Gaussian { sigma_floor: 0.1 };
        let nll = Interp::<f64>::new(&g).eval(p.nll(raw, x));
        let density =
            |x: f64, m: f64, s: f64| (-0.5 * ((x - m) / s).powi(2)).exp() / (s * (2.0 * std::f64::consts::PI).sqrt());
        assert!((nll[0] + density(0.25, 0.2, 0.1).ln()).abs() < 1e-12);
        assert!((nll[1] + density(0.5, 0.9, 0.1 + 2f64.ln()).ln()).abs() < 1e-12);
        assert_eq!(Interp::<f64>::new(&g).eval(p.mean(raw)), [0.2, 0.9]);
    }

    #[test]
    fn binarisations_do_what_their_names_say() {
        let images = (0..=255).cycle().take(25600).collect();
        let (name, split, labels) = ("ramps".to_string(), Split::Train, None);
        let data = Dataset { name, split, images, rows: 100, cols: 256, width: 16, height: 16, labels };
        assert_eq!(*Binarisation::Grey.prepare(&data), data);
        let cut = Binarisation::Threshold.prepare(&data);
        assert_eq!((cut.images[127], cut.images[128]), (0, 255));
        let fixed = Binarisation::Fixed.prepare(&data);
        assert_eq!(fixed, Binarisation::Fixed.prepare(&data));
        let white = fixed.images.iter().filter(|&&b| b == 255).count();
        assert!(fixed.images.iter().all(|b| [0, 255].contains(b)) && (12_300..13_300).contains(&white), "{white}");

        let g = Graph::new();
        let drawn = Binarisation::Dynamic.apply(g.tensor(&[1, 3], &[0.0, 0.5, 1.0]), 5);
        let mut run = Interp::<f64>::new(&g);
        let mut ones = [0.0; 3];
        for step in 0..200 {
            run.control.step = step;
            run.forget();
            ones.iter_mut().zip(run.eval(drawn)).for_each(|(n, x)| *n += x);
        }
        assert!(ones[0] == 0.0 && (70.0..130.0).contains(&ones[1]) && ones[2] == 200.0, "{ones:?}");
    }
}
