//! The command line as types: one struct for each command, made of the groups in `options`.

pub mod effects;
mod options;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub use options::{Data, Machine, Model, Optimise};

use super::output::ending;
use crate::bench::Family;
use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::train::TrainConfig;
use crate::train::checkpoint::Stored;

/// Options of `elbo train`.
#[derive(Args)]
pub struct Train {
    /// Passes over the training set [default: 10, or as the resumed run was told]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
    /// Seed of initial values, shuffling and noise: equal seeds give equal bytes
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub optimise: Optimise,
    #[command(flatten)]
    pub machine: Machine,
    /// Take what is not given here from a recipe: a name of `elbo recipes`, or FILE.toml
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    /// Which of the recipe's protocols to follow, where code and paper differ [default: as the recipe says]
    #[arg(long, value_name = "NAME", requires = "recipe")]
    pub protocol: Option<String>,
    /// The first N stages of the recipe's schedule only [default: all]
    #[arg(long, value_name = "N", requires = "recipe")]
    pub stages: Option<usize>,
    /// Run folder to write, new or empty [default: a fresh one under runs/]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Continue the run in this folder exactly where its checkpoint is
    ///
    /// Only --epochs, --lr-schedule, --data (for the same images in another place), --threads, --device, --precision,
    /// --pause-at and --quiet may be given with it. Device and precision are chosen anew.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = FIXED_BY_A_RUN)]
    pub resume: Option<PathBuf>,
    /// Stop after this many updates in all, as Ctrl-C would, leaving a checkpoint
    #[arg(long, value_name = "UPDATES")]
    pub pause_at: Option<u32>,
    /// No progress, only the summary
    #[arg(long, short)]
    pub quiet: bool,
}

/// The options that a run's checkpoint answers.
const FIXED_BY_A_RUN: [&str; 37] = [
    "train_size",
    "test_size",
    "data_seed",
    "hidden",
    "decoder_hidden",
    "latent",
    "activation",
    "likelihood",
    "sigma_floor",
    "binarisation",
    "upper",
    "spread",
    "init",
    "bound",
    "samples",
    "kl",
    "estimator",
    "free_bits",
    "batch",
    "no_shuffle",
    "train_images",
    "output_bias",
    "optimizer",
    "beta1",
    "beta2",
    "eps",
    "second_moment",
    "momentum",
    "lr",
    "clip",
    "beta",
    "kl_warmup",
    "seed",
    "recipe",
    "protocol",
    "stages",
    "out",
];

impl Train {
    /// The configuration of a new run on these images.
    pub fn config(&self, data: &Splits) -> Result<TrainConfig> {
        let model = self.model.config([data.train.height, data.train.width])?;
        let epochs = self.epochs.unwrap_or(10);
        self.optimise.config(model, self.data.source(), self.seed, epochs, data.train.rows)
    }
}

/// Those of them that `elbo richness` has, but for data and seed, which may be others than the run's.
fn fixed_for_richness() -> impl Iterator<Item = &'static str> {
    let not_here = ["recipe", "protocol", "stages", "seed"];
    FIXED_BY_A_RUN.into_iter().filter(move |option| !not_here.contains(option)).chain(["lr_schedule"])
}

/// Options of `elbo richness`.
#[derive(Args)]
pub struct Richness {
    /// Run folder, or a checkpoint file, to look into
    #[arg(long, value_name = "PATH", conflicts_with_all = fixed_for_richness())]
    pub run: Option<PathBuf>,
    /// Train a model for each of these K, or take the run that is there, and compare them
    #[arg(
        long,
        value_name = "K,…",
        value_delimiter = ',',
        required_unless_present = "run",
        conflicts_with_all = ["run", "latent"]
    )]
    pub latents: Vec<usize>,
    /// Passes over the training set for each K [default: 10]
    #[arg(long, value_name = "N", conflicts_with = "run")]
    pub epochs: Option<u32>,
    /// Seed of the training and of all draws [default: 1, or that of the run]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub optimise: Optimise,
    #[command(flatten)]
    pub machine: Machine,
    /// Folder for the runs k01, k02, …, richness.json and richness.svg [default: runs/richness]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Write the numbers of --run to this file too
    #[arg(long, value_name = "FILE", requires = "run", value_parser = ending("json"))]
    pub json: Option<PathBuf>,
    /// Most test images that the KL term is taken apart with, and that z is drawn for to name their class
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub images: usize,
    /// Draws from the prior that are decoded and compared with the training images
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub draws: usize,
    /// No progress, only the result
    #[arg(long, short)]
    pub quiet: bool,
}

/// Options of `elbo plan`.
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub optimise: Optimise,
    /// Height and width of the images, in pixels
    #[arg(long, value_name = "HxW", default_value = "28x28", value_parser = image_size)]
    pub image: [usize; 2],
    /// Print the graph too: one line per node, with the source line that made it
    #[arg(long)]
    pub graph: bool,
    /// Plan without fusion, one kernel per node, to see what fusion does
    #[arg(long)]
    pub no_fusion: bool,
    /// Time every step, on the CPU on one thread, the best of N passes; 0 does not
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub time: usize,
    #[command(flatten)]
    pub machine: Machine,
}

fn image_size(text: &str) -> Result<[usize; 2]> {
    let sizes = text.split_once('x').and_then(|(h, w)| Some([h.parse().ok()?, w.parse().ok()?]));
    sizes.ok_or_else(|| Error::argument("image size", format!("\"{text}\""), "HEIGHTxWIDTH, as in 28x28"))
}

/// Options of `elbo sample`.
#[derive(Args)]
pub struct Sample {
    /// Run folder, or a checkpoint file
    #[arg(long, value_name = "PATH")]
    pub run: PathBuf,
    /// Picture to write (PNG)
    #[arg(long, value_name = "FILE", default_value = "samples.png", value_parser = ending("png"))]
    pub out: PathBuf,
    /// Number of images
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub count: usize,
    /// Seed of the draws of z
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub machine: Machine,
}

/// Options of `elbo reconstruct`.
#[derive(Args)]
pub struct Reconstruct {
    /// Run folder, or a checkpoint file
    #[arg(long, value_name = "PATH")]
    pub run: PathBuf,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Picture to write (PNG): rows of test images, each above a row of reconstructions
    #[arg(long, value_name = "FILE", default_value = "reconstructions.png", value_parser = ending("png"))]
    pub out: PathBuf,
    /// Number of test images, from the first on [default: 50, or all if there are fewer]
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Seed of the draws of z [default: that of the run]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub machine: Machine,
}

/// Options of `elbo eval`.
#[derive(Args)]
pub struct Eval {
    /// Run folder, or a checkpoint file
    #[arg(long, value_name = "PATH")]
    pub run: PathBuf,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Seed of the draws of z [default: that of the run, which repeats its last figure]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Estimators of log p(x), separated by commas
    ///
    /// elbo; iwae: importance samples from the encoder; prior: naive, samples from the prior; quadrature: exact, for one or
    /// two latent dimensions; ais: annealing; harmonic: the harmonic mean, which fails.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub estimators: Vec<EstimatorName>,
    /// Samples per image of iwae, prior and harmonic
    #[arg(long, value_name = "K", default_value_t = 5000)]
    pub samples: usize,
    /// Number of test images for --estimators, from the first on [default: all for elbo alone, else 100]
    ///
    /// They are the same for all estimators of a table.
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Bounds from both sides by ais for N images that the model draws itself
    ///
    /// Bidirectional Monte Carlo: the only check of ais that needs no other estimate.
    #[arg(long, value_name = "N")]
    pub bdmc: Option<usize>,
    #[command(flatten)]
    pub annealing: Annealing,
    /// File to write the estimates to (JSON)
    #[arg(long, value_name = "FILE", value_parser = ending("json"))]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub machine: Machine,
}

/// An estimator of log p(x), by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EstimatorName {
    Elbo,
    Iwae,
    Prior,
    Quadrature,
    Ais,
    Harmonic,
}

/// Options of annealed importance sampling.
#[derive(Args)]
pub struct Annealing {
    /// Chains of ais per image
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub chains: usize,
    /// Temperatures of ais from the prior to the posterior
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub temperatures: usize,
    /// Leapfrog steps at each temperature
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub leapfrog: usize,
}

impl Annealing {
    /// The settings of the library.
    pub fn settings(&self, seed: u64) -> crate::study::evidence::Annealing {
        let (chains, temperatures, leapfrog) = (self.chains, self.temperatures, self.leapfrog);
        crate::study::evidence::Annealing { chains, temperatures, leapfrog, seed }
    }
}

/// Options of `elbo bench`.
#[derive(Args)]
pub struct Bench {
    /// Small sizes and short repetitions: shows that everything works, in seconds
    #[arg(long)]
    pub quick: bool,
    /// Families: matmul, pointwise, reduce, adam, v1, v2, separated by commas [default: all]
    #[arg(long, value_name = "FAMILIES", value_delimiter = ',')]
    pub only: Vec<Family>,
    /// Repetitions of each measurement, of which the median is reported [default: 11, with --quick 3]
    #[arg(long, value_name = "N")]
    pub repetitions: Option<usize>,
    /// File to write everything to (JSON)
    #[arg(long, value_name = "FILE", value_parser = ending("json"))]
    pub json: Option<PathBuf>,
    /// File to draw the curves to (SVG)
    #[arg(long, value_name = "FILE", value_parser = ending("svg"))]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub machine: Machine,
}

/// Options of `elbo export`.
#[derive(Args)]
pub struct Export {
    /// Run folder, or a checkpoint file
    #[arg(long, value_name = "PATH")]
    pub run: PathBuf,
    /// Number type: f32, bf16 or f16; rounded to the nearest, ties to even
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub dtype: Stored,
    /// File to write (safetensors)
    #[arg(long, value_name = "FILE", default_value = "model.safetensors", value_parser = ending("safetensors"))]
    pub out: PathBuf,
}

/// Options of `elbo bounds`.
#[derive(Args)]
pub struct Bounds {
    /// Run folder, or a checkpoint file
    #[arg(long, value_name = "PATH")]
    pub run: PathBuf,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// The test image, by its number from 0
    #[arg(long, value_name = "I", default_value_t = 0)]
    pub image: usize,
    /// Samples of every estimator but ais
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub samples: usize,
    /// Seed of the draws [default: that of the run]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub annealing: Annealing,
    /// Picture to write (SVG)
    #[arg(long, value_name = "FILE", default_value = "bounds.svg", value_parser = ending("svg"))]
    pub out: PathBuf,
    /// File to write the points to (JSON)
    #[arg(long, value_name = "FILE", value_parser = ending("json"))]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub machine: Machine,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_height_x_width() {
        assert_eq!(image_size("20x30").unwrap(), [20, 30]);
        assert!(image_size("20").is_err() && image_size("ax3").is_err());
    }
}
