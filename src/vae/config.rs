//! What a model is: sizes, nonlinearity, likelihood; and what is minimised.

use std::str::FromStr;

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

/// The architecture and the meaning of its output. Stored in every checkpoint; with the feature `cli` the options of a
/// model, whose help are these texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Model"))]
pub struct VaeConfig {
    /// Height and width of an image, in pixels.
    #[cfg_attr(feature = "cli", arg(skip = [28, 28]))]
    pub image: [usize; 2],
    /// Widths of the encoder's hidden layers, from the image on.
    #[cfg_attr(feature = "cli", arg(long = "hidden", value_name = "WIDTH,…", value_delimiter = ','))]
    #[cfg_attr(feature = "cli", arg(default_values_t = VaeConfig::default().encoder))]
    pub encoder: Vec<usize>,
    /// K, the number of latent dimensions; with 2 the plane of z is drawn too.
    #[cfg_attr(feature = "cli", arg(long, value_name = "K", default_value_t = VaeConfig::default().latent))]
    pub latent: usize,
    /// Widths of the decoder's hidden layers, from z on; usually the encoder's, mirrored.
    #[cfg_attr(feature = "cli", arg(long = "decoder-hidden", value_name = "WIDTH,…", value_delimiter = ','))]
    #[cfg_attr(feature = "cli", arg(hide_short_help = true))]
    pub decoder: Vec<usize>,
    /// The nonlinearity after every hidden layer: relu, tanh, softplus, …
    ///
    /// One of identity, relu, leaky_relu, tanh, sigmoid, softplus, silu or gelu.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", default_value_t = VaeConfig::default().activation))]
    pub activation: Activation,
    /// p(x|z).
    #[cfg_attr(feature = "cli", command(flatten))]
    pub likelihood: Likelihood,
    /// What is done to grey pixels: grey (nothing), dynamic, threshold or fixed.
    ///
    /// dynamic: drawn anew at every use; threshold: white where > 1/2; fixed: drawn once.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", default_value_t = VaeConfig::default().binarisation))]
    pub binarisation: Binarisation,
    /// The stochastic layers above the first, from below; none in the usual model.
    ///
    /// As an option each is its hidden widths of q, its K and its hidden widths of p, as in 100,100:50:100,100; it may be
    /// repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "WIDTHS:K:WIDTHS", hide_short_help = true))]
    pub upper: Vec<StochasticLayer>,
    /// What the encoder, and every Gaussian between two layers, says about its spread.
    ///
    /// log_variance, bounded_log_variance (softly, with a gradient at the bound) or log_sigma.
    #[serde(default, skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", default_value_t, hide_short_help = true))]
    pub spread: Spread,
    /// How parameters are drawn at the start.
    #[serde(default, skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", value_enum, default_value_t, hide_short_help = true))]
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

impl FromStr for StochasticLayer {
    type Err = Error;

    fn from_str(text: &str) -> Result<StochasticLayer> {
        let expected = "WIDTHS:K:WIDTHS, as in 100,100:50:100,100; widths may be left out, as in :50:";
        let wrong = || Error::argument("stochastic layer", format!("\"{text}\""), expected);
        let widths = |list: &str| match list {
            "" => Ok(Vec::new()),
            list => list.split(',').map(|w| w.trim().parse().map_err(|_| wrong())).collect(),
        };
        let [encoder, latent, decoder] = text.split(':').collect::<Vec<_>>().try_into().map_err(|_| wrong())?;
        let latent = latent.trim().parse().map_err(|_| wrong())?;
        Ok(StochasticLayer { encoder: widths(encoder)?, latent, decoder: widths(decoder)? })
    }
}

impl Default for VaeConfig {
    /// The usual model with K = 20.
    fn default() -> VaeConfig {
        VaeConfig::new(20)
    }
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
            likelihood: Likelihood::bernoulli(),
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
        if self.is_binary() && !self.likelihood.facts().takes_binary {
            let expected = format!("grey with the {} likelihood, which is over grey values", self.likelihood);
            return Err(Error::argument("binarisation", self.binarisation, expected));
        }
        Ok(())
    }
}

/// How the parameters are moved: the rule, and a limit on the gradient. What varies with time (learning rate, β) are
/// schedules of the [training step](super::training_step).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Optimisation"))]
pub struct UpdateRule {
    /// The update rule.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub optimizer: Optimizer,
    /// The largest norm ‖g‖ of the whole gradient; a longer one is shortened to it. None for no limit.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NORM", hide_short_help = true))]
    pub clip: Option<f64>,
    /// What is maximised.
    #[serde(default, skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "cli", command(flatten))]
    pub bound: Bound,
}

impl UpdateRule {
    /// The ELBO with one draw of z per image.
    pub const fn elbo(optimizer: Optimizer, clip: Option<f64>) -> UpdateRule {
        UpdateRule { optimizer, clip, bound: Bound::ELBO }
    }

    /// Checks every field but [`UpdateRule::bound`], which has to fit a model: see [`Bound::validate`].
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
        fails(|c| c.likelihood = Likelihood::gaussian(0.0), "sigma floor");
        fails(|c| c.likelihood = Likelihood::gaussian(f64::NAN), "sigma floor");
        let both = |c: &mut VaeConfig| {
            c.likelihood = Likelihood::gaussian(0.1);
            c.binarisation = Binarisation::Dynamic;
        };
        fails(both, "binarisation");
        let bad = UpdateRule::elbo(Optimizer::Sgd { momentum: 1.0 }, None);
        assert!(bad.validate().unwrap_err().to_string().contains("momentum"));
        let bad = UpdateRule::elbo(Optimizer::adam(), Some(-1.0));
        assert!(bad.validate().unwrap_err().to_string().contains("clip"));
    }

    #[test]
    fn stochastic_layers_are_read_as_documented() {
        let layer: StochasticLayer = "100,90:50:80".parse().unwrap();
        assert_eq!((layer.encoder, layer.latent, layer.decoder), (vec![100, 90], 50, vec![80]));
        assert_eq!(":5:".parse::<StochasticLayer>().unwrap().encoder, Vec::<usize>::new());
        for bad in ["", "50", "1:2", "1:2:3:4", "a:5:", ":x:"] {
            let message = bad.parse::<StochasticLayer>().unwrap_err().to_string();
            assert!(message.contains("WIDTHS:K:WIDTHS"), "{message}");
        }
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
