//! The groups of options that several commands share: images, model, training, machine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::engine::device::{Device, Precision, cuda};
use crate::engine::error::{Error, Result};
use crate::engine::isa::Isa;
use crate::engine::nn::{Activation, Initialisation};
use crate::engine::optim::{KlWarmup, LrSchedule, Optimizer};
use crate::train::{OutputBias, Source, TrainConfig};
use crate::vae::{
    Binarisation, Bound, BoundKind, Estimator, KlTerm, Likelihood, Objective, Spread, StochasticLayer, VaeConfig,
};

/// Which images.
#[derive(Args, Clone)]
pub struct Data {
    /// Folder with MNIST's four IDX files, plain or gzip [default: digits drawn by this program]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Number of built-in training digits, in images
    #[arg(long, value_name = "N", default_value_t = 30_000, conflicts_with = "data")]
    pub train_size: usize,
    /// Number of built-in test digits, in images
    #[arg(long, value_name = "N", default_value_t = 5_000, conflicts_with = "data")]
    pub test_size: usize,
    /// Which built-in digits; independent of --seed
    #[arg(long, value_name = "SEED", default_value_t = 1, conflicts_with = "data")]
    pub data_seed: u64,
}

impl Data {
    /// The source named by the options.
    pub fn source(&self) -> Source {
        match &self.data {
            Some(path) => Source::Folder { path: path.clone(), images: None },
            None => Source::Digits { seed: self.data_seed, train: self.train_size, test: self.test_size },
        }
    }
}

/// p(x|z), by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum LikelihoodName {
    Bernoulli,
    Gaussian,
    GaussianShared,
    GaussianOptimal,
    ContinuousBernoulli,
    DiscretisedLogistic,
}

/// What is trained.
#[derive(Args)]
pub struct Model {
    /// Widths of the encoder's hidden layers, in units, separated by commas
    #[arg(long, value_name = "WIDTHS", default_value = "400", value_delimiter = ',')]
    pub hidden: Vec<usize>,
    /// Widths of the decoder's hidden layers, in units [default: the encoder's, mirrored]
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',')]
    pub decoder_hidden: Option<Vec<usize>>,
    /// Latent dimensions K; with 2 the plane of z is drawn too
    #[arg(long, value_name = "K", default_value_t = 20)]
    pub latent: usize,
    /// Nonlinearity: relu, tanh, softplus, …
    ///
    /// One of identity, relu, leaky_relu, tanh, sigmoid, softplus, silu or gelu.
    #[arg(long, value_name = "NAME", default_value = "relu")]
    pub activation: Activation,
    /// Distribution of a pixel given z
    ///
    /// bernoulli: a rate, on logits; gaussian: a mean and a sigma for each pixel; gaussian-shared: one learned sigma;
    /// gaussian-optimal: the best sigma of the batch; continuous-bernoulli: a rate made a density;
    /// discretised-logistic: a probability for each byte.
    #[arg(long, value_name = "NAME", default_value = "bernoulli")]
    pub likelihood: LikelihoodName,
    /// Smallest standard deviation (or scale) of a pixel, where white is 1 [default: 0.1 for gaussian, 0.002 for
    /// discretised-logistic, else 0.01]
    #[arg(long, value_name = "SIGMA")]
    pub sigma_floor: Option<f64>,
    /// What is done to grey pixels: grey (nothing), dynamic, threshold or fixed
    ///
    /// dynamic: drawn anew at every use; threshold: white where > 1/2; fixed: drawn once.
    #[arg(long, value_name = "NAME", default_value = "grey")]
    pub binarisation: Binarisation,
    /// A further stochastic layer on top: hidden widths of q, then K, then hidden widths of p, as in 100,100:50:100,100; may
    /// be repeated, from below
    #[arg(long, value_name = "WIDTHS:K:WIDTHS", value_parser = stochastic_layer)]
    pub upper: Vec<StochasticLayer>,
    /// What the encoder says about its spread: log_variance, bounded_log_variance (softly, with a gradient at the bound) or
    /// log_sigma
    #[arg(long, value_name = "NAME", default_value = "log_variance")]
    pub spread: Spread,
    /// Initial values: torch (as nn.Linear), glorot, or glorot-equal (layers of one shape start equal)
    #[arg(long, value_name = "NAME", default_value = "torch")]
    pub init: InitName,
}

/// The initialisation, by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum InitName {
    Torch,
    Glorot,
    GlorotEqual,
}

fn stochastic_layer(text: &str) -> Result<StochasticLayer> {
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

impl Model {
    /// The configuration of a model for images of height × width pixels.
    pub fn config(&self, image: [usize; 2]) -> Result<VaeConfig> {
        let floor = |usual: f64| self.sigma_floor.unwrap_or(usual);
        let likelihood = match self.likelihood {
            LikelihoodName::Bernoulli => Likelihood::Bernoulli,
            LikelihoodName::Gaussian => Likelihood::Gaussian { sigma_floor: floor(Likelihood::SIGMA_FLOOR) },
            LikelihoodName::GaussianShared => Likelihood::GaussianShared { sigma_floor: floor(0.01) },
            LikelihoodName::GaussianOptimal => Likelihood::GaussianOptimal { sigma_floor: floor(0.01) },
            LikelihoodName::ContinuousBernoulli => Likelihood::ContinuousBernoulli,
            LikelihoodName::DiscretisedLogistic => Likelihood::DiscretisedLogistic { scale_floor: floor(0.002) },
        };
        let (activation, binarisation) = (self.activation, self.binarisation);
        let init = match self.init {
            InitName::Torch => Initialisation::Torch,
            InitName::Glorot => Initialisation::Glorot,
            InitName::GlorotEqual => Initialisation::GlorotEqual,
        };
        let plain = VaeConfig::new(self.latent).hidden(&self.hidden);
        let decoder = self.decoder_hidden.clone().unwrap_or_else(|| plain.decoder.clone());
        let (upper, spread) = (self.upper.clone(), self.spread);
        let config = VaeConfig { image, decoder, activation, likelihood, binarisation, upper, spread, init, ..plain };
        config.validate().map(|()| config)
    }
}

/// An update rule, by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum OptimizerName {
    Adam,
    Sgd,
}

/// Where the bias of the logits starts, by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum OutputBiasName {
    Init,
    Data,
}

/// How it is trained.
#[derive(Args)]
pub struct Optimise {
    /// Images per update; the last update of an epoch takes what is left
    #[arg(long, value_name = "B", default_value_t = 128)]
    pub batch: usize,
    /// Go through the training images in their own order in every epoch, not in a new random one
    #[arg(long)]
    pub no_shuffle: bool,
    /// Learn from the first N training images only [default: all]
    #[arg(long, value_name = "N")]
    pub train_images: Option<usize>,
    /// Where the bias of the pixels' logits starts: init, or data (the logit of each pixel's mean)
    #[arg(long, value_name = "NAME", default_value = "init")]
    pub output_bias: OutputBiasName,
    /// Update rule: adam, or descent with momentum
    #[arg(long, value_name = "NAME", default_value = "adam")]
    pub optimizer: OptimizerName,
    /// Decay of adam's first moment, from 0 up to, not including, 1
    #[arg(long, value_name = "DECAY", default_value_t = 0.9)]
    pub beta1: f64,
    /// Decay of adam's second moment, from 0 up to, not including, 1
    #[arg(long, value_name = "DECAY", default_value_t = 0.999)]
    pub beta2: f64,
    /// What adam adds to the root of its second moment
    #[arg(long, value_name = "EPS", default_value_t = 1e-8)]
    pub eps: f64,
    /// What adam's second moment starts at
    #[arg(long, value_name = "V", default_value_t = 0.0)]
    pub second_moment: f64,
    /// Momentum of sgd, from 0 up to, not including, 1
    #[arg(long, value_name = "M", default_value_t = 0.9)]
    pub momentum: f64,
    /// Learning rate per update
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    pub lr: f64,
    /// How --lr changes: constant, steps:EPOCH=RATE,… or cosine:RATE
    ///
    /// steps: that rate after that many epochs, as in steps:5=3e-4,8=1e-4. cosine falls to 0 at the end of the run,
    /// cosine:RATE to RATE.
    #[arg(long, value_name = "SCHEDULE", default_value = "constant")]
    pub lr_schedule: Schedule,
    /// Largest norm of the whole gradient; a longer one is shortened to it [default: no limit]
    #[arg(long, value_name = "NORM")]
    pub clip: Option<f64>,
    /// What is maximised: elbo, or iwae
    ///
    /// iwae is the importance weighted bound of --samples draws.
    #[arg(long, value_name = "NAME", default_value = "elbo")]
    pub bound: BoundKind,
    /// Draws of z per image
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub samples: usize,
    /// KL term of the elbo: analytic or monte_carlo [default: analytic where there is a closed form and the estimator allows
    /// it]
    #[arg(long, value_name = "NAME")]
    pub kl: Option<KlTerm>,
    /// Gradient for the encoder: total, sticking_the_landing, doubly_reparameterised, score_function or
    /// score_function_baseline
    #[arg(long, value_name = "NAME", default_value = "total")]
    pub estimator: Estimator,
    /// Nats of KL per dimension that cost nothing more than that [default: none]
    #[arg(long, value_name = "NATS")]
    pub free_bits: Option<f64>,
    /// Weight of the KL term; 1 is the evidence lower bound
    #[arg(long, value_name = "BETA", default_value_t = 1.0)]
    pub beta: f64,
    /// Epochs over which the weight of the KL term rises from 0 to --beta
    #[arg(long, value_name = "EPOCHS", default_value_t = 0.0)]
    pub kl_warmup: f64,
}

/// A learning-rate schedule in epochs, as it is typed.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// `constant`.
    Constant,
    /// `steps:EPOCH=RATE,…`.
    Steps(Vec<(f64, f64)>),
    /// `cosine` or `cosine:RATE`.
    Cosine(f64),
}

impl Schedule {
    /// The schedule of a run that starts at the rate `lr`, where `updates` says how many updates so many epochs are.
    pub fn in_updates(&self, lr: f64, epochs: u32, updates: impl Fn(f64) -> u64) -> LrSchedule {
        match self {
            Schedule::Constant => LrSchedule::Constant { lr },
            Schedule::Steps(at) => LrSchedule::Steps { lr, at: at.iter().map(|&(e, r)| (updates(e), r)).collect() },
            Schedule::Cosine(lr_end) => LrSchedule::Cosine { lr, lr_end: *lr_end, steps: updates(f64::from(epochs)) },
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Schedule> {
        let expected = "constant, steps:EPOCH=RATE,… (as in steps:5=3e-4,8=1e-4), cosine or cosine:RATE";
        let wrong = || Error::argument("schedule", format!("\"{text}\""), expected);
        let number = |s: &str| s.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0).ok_or_else(wrong);
        match text.split_once(':').unwrap_or((text, "")) {
            ("constant", "") => Ok(Schedule::Constant),
            ("cosine", "") => Ok(Schedule::Cosine(0.0)),
            ("cosine", rate) => Ok(Schedule::Cosine(number(rate)?)),
            ("steps", list) => {
                let pair = |item: &str| {
                    let (epoch, rate) = item.split_once('=').ok_or_else(wrong)?;
                    Ok((number(epoch)?, number(rate)?))
                };
                Ok(Schedule::Steps(list.split(',').map(pair).collect::<Result<_>>()?))
            }
            _ => Err(wrong()),
        }
    }
}

impl Optimise {
    /// The configuration of a run of `epochs` epochs of `images` images.
    pub fn config(&self, model: VaeConfig, data: Source, seed: u64, epochs: u32, images: usize) -> Result<TrainConfig> {
        if !(self.kl_warmup >= 0.0 && self.kl_warmup.is_finite()) {
            return Err(Error::argument("kl-warmup", self.kl_warmup, "a number of epochs ≥ 0"));
        }
        let images = self.train_images.unwrap_or(images);
        let per_epoch = images.div_ceil(self.batch.max(1)) as f64;
        let updates = |epochs: f64| (epochs * per_epoch).round() as u64;
        let lr = self.lr_schedule.in_updates(self.lr, epochs, updates);
        let optimizer = match self.optimizer {
            OptimizerName::Adam => Optimizer::Adam { beta1: self.beta1, beta2: self.beta2, eps: self.eps },
            OptimizerName::Sgd => Optimizer::Sgd { momentum: self.momentum },
        };
        let closed = self.bound == BoundKind::Elbo && self.estimator == Estimator::Total && model.upper.is_empty();
        let usual = if closed { KlTerm::Analytic } else { KlTerm::MonteCarlo };
        let bound = Bound {
            kind: self.bound,
            samples: self.samples,
            kl: self.kl.unwrap_or(usual),
            estimator: self.estimator,
            free_bits: self.free_bits,
        };
        let config = TrainConfig {
            model,
            data,
            seed,
            epochs,
            batch: self.batch,
            objective: Objective { optimizer, clip: self.clip, bound },
            lr,
            warmup: KlWarmup { beta: self.beta, steps: updates(self.kl_warmup) },
            shuffle: !self.no_shuffle,
            train_images: self.train_images,
            output_bias: match self.output_bias {
                OutputBiasName::Init => OutputBias::Init,
                OutputBiasName::Data => OutputBias::Data,
            },
            second_moment: self.second_moment,
        };
        config.validate().map(|()| config)
    }
}

/// On what it runs.
#[derive(Args)]
pub struct Machine {
    /// Threads; 0 means one per core
    ///
    /// The numbers do not depend on it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Device: auto (a GPU if there is one), cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Precision of matrix products on a GPU: f32, bf16x3, tf32 or bf16
    ///
    /// bf16x3 takes two bf16 per factor. Everything else than products is f32. Large products in f32 may take three bf16 per
    /// factor: as accurate as f32 for factors of 8e-34 to 3.39e38.
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub precision: Precision,
}

impl Machine {
    /// The executor that is asked for: with `auto` and no GPU the CPU.
    pub fn device(&self) -> Result<Device> {
        match self.gpu()? {
            Ok(ordinal) => Ok(Device::Cuda { ordinal, precision: self.precision }),
            Err(_) if self.precision != Precision::F32 => {
                Err(Error::argument("precision", self.precision, "f32, unless --device is a GPU"))
            }
            Err(_) => Ok(Device::Cpu { threads: self.threads()? }),
        }
    }

    /// Says on stderr why `auto` is the CPU, before work that a GPU would shorten.
    pub fn say_why_no_gpu(&self) -> Result<()> {
        if let Err(NoGpu::Unusable(Error::Device { reason, .. })) = self.gpu()? {
            crate::cli::say(format_args!("running on the CPU: {reason} (`elbo info` says more)"));
        }
        Ok(())
    }

    /// The number of the GPU that is asked for, or why there is none.
    pub fn gpu(&self) -> Result<std::result::Result<usize, NoGpu>> {
        Isa::asked()?;
        match self.device.as_str() {
            "cpu" => Ok(Err(NoGpu::NotAsked)),
            "auto" => Ok(cuda::automatic().map(|gpu| gpu.ordinal).map_err(NoGpu::Unusable)),
            name => self.ordinal(name).map(Ok),
        }
    }

    /// The number of threads that is asked for.
    pub fn threads(&self) -> Result<usize> {
        match self.threads {
            0..=1024 => Ok(self.threads),
            n => Err(Error::argument("threads", n, "at most 1024; 0 means one per core")),
        }
    }

    fn ordinal(&self, name: &str) -> Result<usize> {
        let number = match name {
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        number.ok_or_else(|| Error::argument("device", format!("\"{name}\""), "auto, cpu, cuda or cuda:N"))
    }
}

/// Why no GPU is used.
pub enum NoGpu {
    /// The command line says `cpu`.
    NotAsked,
    /// There is none that can be used.
    Unusable(Error),
}

impl fmt::Display for NoGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoGpu::NotAsked => f.write_str("--device cpu was asked for"),
            NoGpu::Unusable(reason) => reason.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_documented() {
        let read = |text: &str| text.parse::<Schedule>();
        assert_eq!(read("constant").unwrap(), Schedule::Constant);
        assert_eq!(read("cosine").unwrap(), Schedule::Cosine(0.0));
        assert_eq!(read("cosine:1e-5").unwrap(), Schedule::Cosine(1e-5));
        assert_eq!(read("steps:5=3e-4,8.5=1e-4").unwrap(), Schedule::Steps(vec![(5.0, 3e-4), (8.5, 1e-4)]));
        for bad in ["", "linear", "steps", "steps:", "steps:5", "steps:5=x", "cosine:-1", "constant:3", "steps:1=inf"] {
            let message = read(bad).unwrap_err().to_string();
            assert!(message.contains(bad) && message.contains("EPOCH=RATE"), "{message}");
        }
    }

    #[test]
    fn devices_have_names() {
        let device = |name: &str, precision| Machine { threads: 3, device: name.into(), precision }.device();
        assert_eq!(device("cpu", Precision::F32).unwrap(), Device::Cpu { threads: 3 });
        for (name, ordinal) in [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)] {
            let precision = Precision::Tf32;
            assert_eq!(device(name, precision).unwrap(), Device::Cuda { ordinal, precision });
        }
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
            assert!(matches!(device(name, Precision::F32), Err(Error::Argument { .. })));
        }
        assert!(device("cpu", Precision::Bf16).unwrap_err().to_string().contains("--device"));
    }

    #[test]
    fn stochastic_layers_are_read_as_documented() {
        let layer = stochastic_layer("100,90:50:80").unwrap();
        assert_eq!((layer.encoder, layer.latent, layer.decoder), (vec![100, 90], 50, vec![80]));
        assert_eq!(stochastic_layer(":5:").unwrap().encoder, Vec::<usize>::new());
        for bad in ["", "50", "1:2", "1:2:3:4", "a:5:", ":x:"] {
            let message = stochastic_layer(bad).unwrap_err().to_string();
            assert!(message.contains("WIDTHS:K:WIDTHS"), "{message}");
        }
    }
}
