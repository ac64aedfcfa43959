//! What a model is: sizes, nonlinearity, likelihood; and what is minimised.

use serde::{Deserialize, Serialize};

use super::binarisation::Binarisation;
use super::bound::Bound;
use super::gaussian::Spread;
use super::likelihood::Likelihood;
use crate::engine::error::{Error, Result};
use crate::engine::nn::{Activation, Initialisation};
use crate::engine::optim::Optimizer;

/// Whether a field of a configuration has the value that files leave out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The architecture and the meaning of its output. Stored in every checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// Height and width of an image, in pixels.
    pub image: [usize; 2],
    /// Widths of the encoder's hidden layers, from the image on.
    pub encoder: Vec<usize>,
    /// K, the number of latent dimensions.
    pub latent: usize,
    /// Widths of the decoder's hidden layers, from z on.
    pub decoder: Vec<usize>,
    /// The nonlinearity after every hidden layer.
    pub activation: Activation,
    /// p(x|z).
    pub likelihood: Likelihood,
    /// What is done to the grey pixels before they are modelled.
    pub binarisation: Binarisation,
    /// The stochastic layers above the first, from below; empty for the usual model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upper: Vec<StochasticLayer>,
    /// What the encoder (and every Gaussian between two layers) says about its spread.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spread: Spread,
    /// How parameters are drawn at the start.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: Initialisation,
}

/// A further stochastic layer on top of z_l: q(z_{l+1}|z_l) and p(z_l|z_{l+1}), both diagonal Gaussians (Burda et al.
/// 2015). The topmost layer's prior is N(0, I).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StochasticLayer {
    /// Widths of the hidden layers from z_l to z_{l+1}.
    pub encoder: Vec<usize>,
    /// The dimensions of z_{l+1}.
    pub latent: usize,
    /// Widths of the hidden layers from z_{l+1} to z_l.
    pub decoder: Vec<usize>,
}

impl VaeConfig {
    /// The usual toy model: 784-400-K-400-784, ReLU, Bernoulli on grey pixels.
    pub fn new(latent: usize) -> VaeConfig {
        VaeConfig {
            image: [28, 28],
            encoder: vec![400],
            latent,
            decoder: vec![400],
            activation: Activation::Relu,
            likelihood: Likelihood::Bernoulli,
            binarisation: Binarisation::Grey,
            upper: Vec::new(),
            spread: Spread::LogVariance,
            init: Initialisation::Torch,
        }
    }

    /// Sets the encoder's hidden widths and, mirrored, the decoder's.
    #[must_use]
    pub fn hidden(mut self, widths: &[usize]) -> VaeConfig {
        self.encoder = widths.to_vec();
        self.decoder = widths.iter().rev().copied().collect();
        self
    }

    /// D, the number of pixels.
    pub fn pixels(&self) -> usize {
        self.image[0] * self.image[1]
    }

    /// `784-400-20-400-784 relu, bernoulli (grey)`.
    pub fn describe(&self) -> String {
        let widths = [self.pixels()].into_iter().chain(self.encoder.iter().copied());
        let widths = widths.chain([self.latent]).chain(self.decoder.iter().copied()).chain([self.pixels()]);
        let joined =
            |widths: &mut dyn Iterator<Item = usize>| widths.map(|w| w.to_string()).collect::<Vec<_>>().join("-");
        let mut text = joined(&mut widths.into_iter());
        let mut below = self.latent;
        for layer in &self.upper {
            let up = [below].into_iter().chain(layer.encoder.iter().copied()).chain([layer.latent]);
            let down = layer.decoder.iter().copied().chain([below]);
            text += &format!(" + {}", joined(&mut up.chain(down)));
            below = layer.latent;
        }
        format!("{text} {}, {} on {} pixels", self.activation, self.likelihood, self.binarisation)
    }

    /// The dimensions of every stochastic layer, from below.
    pub fn latents(&self) -> Vec<usize> {
        [self.latent].into_iter().chain(self.upper.iter().map(|layer| layer.latent)).collect()
    }

    /// The dimensions of the topmost stochastic layer, whose prior is N(0, I).
    pub fn top_latent(&self) -> usize {
        self.upper.last().map_or(self.latent, |layer| layer.latent)
    }

    /// Whether the modelled pixels are 0 and 1 only.
    pub fn is_binary(&self) -> bool {
        self.binarisation != Binarisation::Grey
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<()> {
        /// Wider layers are a typing error before they are an allocation failure.
        const MOST: usize = 1 << 16;
        let width = |field: &str, w: usize| match w {
            1..=MOST => Ok(()),
            _ => Err(Error::argument(field, w, format!("a width from 1 to {MOST}"))),
        };
        self.image.iter().try_for_each(|&w| width("image size", w))?;
        width("pixels", self.pixels())?;
        self.encoder.iter().try_for_each(|&w| width("hidden width of the encoder", w))?;
        width("latent", self.latent)?;
        self.decoder.iter().try_for_each(|&w| width("hidden width of the decoder", w))?;
        for layer in &self.upper {
            layer.encoder.iter().try_for_each(|&w| width("hidden width of an upper encoder", w))?;
            width("latent of an upper layer", layer.latent)?;
            layer.decoder.iter().try_for_each(|&w| width("hidden width of an upper decoder", w))?;
        }
        if let Some(floor) = self.likelihood.floor()
            && !(floor > 0.0 && floor.is_finite())
        {
            let expected = "a number > 0, in units where white is 1: without a floor the likelihood is unbounded";
            return Err(Error::argument("sigma floor", floor, expected));
        }
        if self.likelihood != Likelihood::Bernoulli && self.binarisation != Binarisation::Grey {
            let expected = format!("grey with the {} likelihood, which is over grey values", self.likelihood);
            return Err(Error::argument("binarisation", self.binarisation, expected));
        }
        Ok(())
    }
}

/// How the parameters are moved: the rule, and a limit on the gradient. What varies with time (learning rate, β) is in
/// [`Control`](crate::engine::optim::Control).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// The update rule.
    pub optimizer: Optimizer,
    /// The largest global norm ‖g‖ that is left as it is; none for no limit.
    pub clip: Option<f64>,
    /// What is maximised.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bound: Bound,
}

impl Objective {
    /// The ELBO with one draw of z per image.
    pub const fn elbo(optimizer: Optimizer, clip: Option<f64>) -> Objective {
        Objective { optimizer, clip, bound: Bound::ELBO }
    }

    /// Checks every field but [`Objective::bound`], which has to fit a model: see [`Bound::validate`].
    ///
    /// # Errors
    /// [`Error::Argument`] naming the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<()> {
        let part = |field: &str, v: f64| match (0.0..1.0).contains(&v) {
            true => Ok(()),
            false => Err(Error::argument(field, v, "a number from 0 up to, not including, 1")),
        };
        match self.optimizer {
            Optimizer::Adam { beta1, beta2, eps } => {
                part("beta1 of adam", beta1)?;
                part("beta2 of adam", beta2)?;
                if !(eps > 0.0 && eps.is_finite()) {
                    return Err(Error::argument("eps of adam", eps, "a number > 0"));
                }
            }
            Optimizer::Sgd { momentum } => part("momentum", momentum)?,
        }
        match self.clip {
            Some(c) if !(c > 0.0 && c.is_finite()) => Err(Error::argument("clip", c, "a norm > 0")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_checked_and_named() {
        let good = VaeConfig::new(20);
        good.validate().unwrap();
        let fails = |change: fn(&mut VaeConfig), field: &str| {
            let mut config = VaeConfig::new(20);
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message} does not name {field}");
        };
        fails(|c| c.latent = 0, "latent");
        fails(|c| c.encoder = vec![400, 0], "encoder");
        fails(|c| c.decoder = vec![1 << 20], "decoder");
        fails(|c| c.image = [0, 28], "image");
        fails(|c| c.likelihood = Likelihood::Gaussian { sigma_floor: 0.0 }, "sigma floor");
        fails(|c| c.likelihood = Likelihood::Gaussian { sigma_floor: f64::NAN }, "sigma floor");
        let both = |c: &mut VaeConfig| {
            c.likelihood = Likelihood::Gaussian { sigma_floor: 0.1 };
            c.binarisation = Binarisation::Dynamic;
        };
        fails(both, "binarisation");
        let bad = Objective::elbo(Optimizer::Sgd { momentum: 1.0 }, None);
        assert!(bad.validate().unwrap_err().to_string().contains("momentum"));
        let bad = Objective::elbo(Optimizer::adam(), Some(-1.0));
        assert!(bad.validate().unwrap_err().to_string().contains("clip"));
    }

    #[test]
    fn a_configuration_survives_json_and_unknown_fields_do_not() {
        let config = VaeConfig::new(2).hidden(&[300, 100]);
        assert_eq!(config.decoder, [100, 300]);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<VaeConfig>(&text).unwrap(), config);
        let more = text.replacen('{', "{\"depth\":3,", 1);
        assert!(serde_json::from_str::<VaeConfig>(&more).unwrap_err().to_string().contains("depth"));
        assert_eq!(config.describe(), "784-300-100-2-100-300-784 relu, bernoulli on grey pixels");
        let upper = vec![StochasticLayer { encoder: vec![30], latent: 5, decoder: vec![40] }];
        let deep = VaeConfig { upper, spread: Spread::LogSigma, ..VaeConfig::new(20) };
        assert_eq!(deep.describe(), "784-400-20-400-784 + 20-30-5-40-20 relu, bernoulli on grey pixels");
        assert_eq!((deep.latents(), deep.top_latent()), (vec![20, 5], 5));
        let text = serde_json::to_string(&deep).unwrap();
        assert_eq!(serde_json::from_str::<VaeConfig>(&text).unwrap(), deep);
    }
}
