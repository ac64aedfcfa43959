//! Is z rich? What the latent space of a trained model holds of an image: which digit it is, and how it is written.
//!
//! Six questions, each with a number and its error ([`Richness`]):
//!
//! * Which dimensions are used? KL(q(z_k|x) ‖ p(z_k)) of each, and the *active units*, those with
//!   Var_x(E_q[z_k|x]) > 0.01 (Burda et al. 2015, arXiv 1509.00519).
//! * Can the class be read from μ(x)? By its nearest neighbours among the training images' μ ([`Neighbours`]), and by
//!   a linear map ([`Probe`]). By Fano's inequality, whoever errs with probability P among C classes has
//!
//!   ```text
//!   I(μ(x);y) ≥ H(y) − h(P) − P ln(C − 1),     h(P) = −P ln P − (1 − P) ln(1 − P)
//!   ```
//!
//!   and knowing the digit completely takes H(y) = ln 10 = 2.303 nats.
//! * Can it be read from z? That is another question: z is a noisy copy of μ(x), and its noise, σ(x), may tell of the
//!   class too. By Bayes' rule on a draw of z, and I_q(z;y) between two bounds ([`Bayes`]).
//! * What does z tell about x in all, and how far is the aggregate of the posteriors from the prior ([`Surgery`])?
//! * Does the prior decode to digits ([`Prior`]): how many of its draws are plainly one digit, and are all digits among
//!   them?
//!
//! `docs/book/src/richness.md` has the definitions with a table and a picture for MNIST.

mod bayes;
mod neighbours;
mod prior;
mod probe;
mod report;
mod surgery;

use serde::{Deserialize, Serialize};

pub use bayes::Bayes;
pub use neighbours::Neighbours;
pub use prior::{AGREE, NEIGHBOURS, Prior};
pub use probe::Probe;
pub use report::{answer, plot, table};
pub use surgery::Surgery;

use crate::data::{Dataset, Splits};
use crate::engine::device::Device;
use crate::engine::error::{Error, Result};
use crate::vae::watch::Watch;
use crate::vae::{DeviceVae, Encoded};

/// The numbers of neighbours that vote.
pub const VOTERS: [usize; 3] = [1, 5, 15];

/// A number and the standard deviation of its estimate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uncertain {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Uncertain {
    /// The mean of independent values: s/√n.
    pub fn mean(values: &[f64]) -> Uncertain {
        let n = values.len() as f64;
        let value = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - value).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Uncertain { value, standard_error: (variance / n).sqrt() }
    }

    /// A part of `n` trials: √(p(1 − p)/n).
    pub fn part(count: usize, n: usize) -> Uncertain {
        let value = count as f64 / n.max(1) as f64;
        Uncertain { value, standard_error: (value * (1.0 - value) / n.max(1) as f64).sqrt() }
    }
}

/// A latent dimension.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dimension {
    /// KL(q(z_k|x) ‖ p(z_k)), mean over the test images, in nats.
    pub kl: f64,
    /// Var_x(E_q[z_k|x]).
    pub variance: f64,
}

/// What a number of neighbours reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Voters {
    /// How many vote.
    pub k: usize,
    /// Part of the test images that they call by their label.
    pub accuracy: Uncertain,
}

/// What μ(x), and a draw of z, hold of the class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classes {
    /// C.
    pub classes: usize,
    /// H(y) of the test labels, in nats; ln 10 = 2.303 for ten digits of equal frequency.
    pub entropy: f64,
    /// Nearest neighbours of μ(x) among the training images', for each of [`VOTERS`].
    pub neighbours: Vec<Voters>,
    /// The linear probe on μ(x).
    pub probe: Uncertain,
    /// The smallest error of the four, P.
    pub error: f64,
    /// Which of them has it.
    pub best: String,
    /// Fano's bound on I(μ(x);y) with this error, in nats; 0 where the formula is below.
    pub fano: f64,
    /// Bayes' rule on a draw of z, and I_q(z;y).
    pub draw: Bayes,
}

/// The whole answer for one model. Likelihoods and information are in nats per image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Richness {
    /// K.
    pub latent: usize,
    /// The architecture in words.
    pub model: String,
    /// Where the images come from.
    pub data: String,
    /// Images that neighbours are sought among, and that the probe learns from.
    pub train_images: usize,
    /// Images that are judged.
    pub test_images: usize,
    /// −ELBO (β = 1) of the test images, one draw of z each.
    pub neg_elbo: f64,
    /// Its first term.
    pub rec: f64,
    /// Its second term.
    pub kl: f64,
    /// The dimensions of z, in their order.
    pub dimensions: Vec<Dimension>,
    /// How many of them have a variance above 0.01.
    pub active_units: usize,
    /// What z holds of the class; none without labels.
    pub classes: Option<Classes>,
    /// The KL term taken apart.
    pub surgery: Surgery,
    /// What the prior decodes to; none without labels.
    pub prior: Option<Prior>,
}

/// How much is looked at, and on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RichnessOptions {
    /// Of all draws: equal seeds give equal numbers.
    pub seed: u64,
    /// Most test images in the [`Surgery`], whose cost is their square, and in [`Bayes`], where it is their number
    /// times that of the training images.
    pub images: usize,
    /// Draws from the prior.
    pub draws: usize,
    /// Where matrix products and the probe run.
    pub device: Device,
}

impl Richness {
    /// Looks into a model whose data slots `train` and `test` hold the images `data`.
    ///
    /// # Errors
    /// [`Error::Argument`] when an image's code is no finite number, [`Error::Slot`] and
    /// [`Error::Device`] from the executor.
    pub fn of(model: &mut DeviceVae, data: &Splits, options: &RichnessOptions) -> Result<Richness> {
        one_layer(model.vae.upper.len())?;
        let result = model.evaluate("test", options.seed)?;
        let test = finite(model.encode("test", options.seed)?)?;
        let known = labels(data);
        let mut classes = None;
        let mut prior = None;
        if let Some([train_labels, test_labels]) = known {
            let count = train_labels.iter().chain(test_labels).max().map_or(1, |&most| usize::from(most) + 1);
            let train = finite(model.encode("train", options.seed)?)?;
            classes = Some(Classes::of(
                [&train, &test],
                [train_labels, test_labels],
                count,
                (options.seed, options.images),
                options.device,
                &model.watch,
            )?);
            let decoded = model.sample(options.draws, options.seed)?;
            prior = Some(Prior::of(&decoded, [&data.train, &data.test], train_labels, count, options.device)?);
        }
        let dimensions = test.kl_per_dimension().into_iter().zip(test.variance_of_means());
        Ok(Richness {
            latent: test.latent,
            model: model.vae.config.describe(),
            data: data.test.name.clone(),
            train_images: data.train.rows,
            test_images: data.test.rows,
            neg_elbo: result.neg_elbo(),
            rec: result.rec,
            kl: result.kl,
            dimensions: dimensions.map(|(kl, variance)| Dimension { kl, variance }).collect(),
            active_units: test.active_units(),
            classes,
            surgery: Surgery::of(&first(&test, options.images), options.seed, &model.watch),
            prior,
        })
    }
}

/// The labels of both sets, if both have them.
fn labels(data: &Splits) -> Option<[&[u8]; 2]> {
    let of = |set: &'_ Dataset| set.labels.is_some();
    (of(&data.train) && of(&data.test)).then(|| [&data.train, &data.test].map(|s| s.labels.as_deref().unwrap_or(&[])))
}

fn finite(encoded: Encoded) -> Result<Encoded> {
    match encoded.mu.iter().chain(&encoded.logvar).find(|v| !v.is_finite()) {
        None => Ok(encoded),
        Some(v) => Err(Error::Diverged {
            field: "code of an image".into(),
            found: f64::from(*v),
            remedy: "the model of this run is broken".into(),
        }),
    }
}

/// The codes of the first `images` images.
fn first(encoded: &Encoded, images: usize) -> Encoded {
    let end = encoded.mu.len().min(images * encoded.latent);
    Encoded { latent: encoded.latent, mu: encoded.mu[..end].to_vec(), logvar: encoded.logvar[..end].to_vec() }
}

impl Classes {
    /// Draws of z are those of the first `images` test images, a pure function of `seed`.
    fn of(
        [train, test]: [&Encoded; 2],
        labels: [&[u8]; 2],
        classes: usize,
        (seed, images): (u64, usize),
        device: Device,
        watch: &Watch,
    ) -> Result<Classes> {
        let [known, truth] = labels;
        let right = |found: &mut dyn Iterator<Item = u8>| {
            Uncertain::part(found.zip(truth).filter(|(a, b)| a == *b).count(), truth.len())
        };
        let nearest = Neighbours::of_points(&train.mu, &test.mu, test.latent, VOTERS[VOTERS.len() - 1], watch);
        let voters = |k: usize| {
            let accuracy = right(&mut nearest.votes(known, k).into_iter().map(|vote| vote.0));
            Voters { k, accuracy }
        };
        let neighbours = VOTERS.map(voters).to_vec();
        let probe = Probe::train(&train.mu, known, train.latent, classes, device)?;
        let probe = right(&mut probe.classify(&test.mu).into_iter());
        let named = neighbours.iter().map(|v| (format!("{}-NN", v.k), v.accuracy.value));
        let (best, accuracy) = named
            .chain([("linear probe".to_string(), probe.value)])
            .reduce(|a, b| if b.1 > a.1 { b } else { a })
            .expect("four classifiers");
        let (entropy, error) = (entropy(&shares(truth, classes)), 1.0 - accuracy);
        let fano = fano(entropy, error, classes);
        let judged = [known, &truth[..truth.len().min(images)]];
        let draw = Bayes::of([train, &first(test, images)], judged, classes, seed, watch);
        Ok(Classes { classes, entropy, neighbours, probe, error, best, fano, draw })
    }
}

/// The part of each class among the labels.
fn shares(labels: &[u8], classes: usize) -> Vec<f64> {
    let count = |class: usize| labels.iter().filter(|&&y| usize::from(y) == class).count();
    (0..classes).map(|c| count(c) as f64 / labels.len() as f64).collect()
}

/// −Σ p ln p, in nats.
fn entropy(shares: &[f64]) -> f64 {
    shares.iter().filter(|&&p| p > 0.0).map(|p| p * (1.0 / p).ln()).sum()
}

/// What is measured here takes p(z) = N(0, I) for the prior of the layer that is looked at.
///
/// # Errors
/// [`Error::Argument`] for a model with `upper` further stochastic layers, whose lowest one has another prior.
pub fn one_layer(upper: usize) -> Result<()> {
    match upper {
        0 => Ok(()),
        _ => Err(Error::argument(
            "stochastic layers",
            upper + 1,
            "one, whose prior is N(0, I); `elbo eval` has the active units of all",
        )),
    }
}

/// Fano's lower bound on the information that some s holds of y, I(s;y), in nats, where a classifier on s errs with
/// probability `error` among `classes` classes of entropy H(y); not below 0, which bounds every information.
pub fn fano(entropy: f64, error: f64, classes: usize) -> f64 {
    let among_others = ((classes as f64 - 1.0).max(1.0)).ln();
    (entropy - self::entropy(&[error, 1.0 - error]) - error * among_others).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Source;
    use crate::vae::{Vae, VaeConfig};

    #[test]
    fn fano_meets_its_end_points() {
        let ln10 = 10f64.ln();
        assert_eq!(fano(ln10, 0.0, 10), ln10);
        // Guessing: P = 9/10 tells nothing.
        assert!(fano(ln10, 0.9, 10).abs() < 1e-12);
        assert_eq!(fano(ln10, 1.0, 10), ln10 - 9f64.ln());
        let p: f64 = 0.2;
        let expected = ln10 + p * p.ln() + (1.0 - p) * (1.0 - p).ln() - p * 9f64.ln();
        assert!((fano(ln10, p, 10) - expected).abs() < 1e-12 && (1.36..1.37).contains(&expected), "{expected}");
        assert_eq!(fano(0.5, 0.6, 2), 0.0);
    }

    #[test]
    fn estimates_have_their_standard_errors() {
        let e = Uncertain::mean(&[1.0, 2.0, 3.0, 4.0]);
        assert!(e.value == 2.5 && (e.standard_error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-15);
        assert_eq!(Uncertain::part(20, 100), Uncertain { value: 0.2, standard_error: 0.04 });
    }

    #[test]
    fn an_untrained_model_is_looked_into_and_labels_may_be_missing() {
        let mut data = Source::Digits { seed: 1, train: 300, test: 120 }.load().unwrap();
        let device = Device::Cpu { threads: 1 };
        let options = RichnessOptions { seed: 1, images: 100, draws: 20, device };
        let vae = Vae::new(VaeConfig::new(3).hidden(&[20])).unwrap();
        let mut model = DeviceVae::initial(vae, 1, device).unwrap();
        data.train.load_into(&mut model, "train").unwrap();
        data.test.load_into(&mut model, "test").unwrap();
        let found = Richness::of(&mut model, &data, &options).unwrap();
        assert_eq!((found.latent, found.dimensions.len(), found.surgery.images), (3, 3, 100));
        let classes = found.classes.as_ref().unwrap();
        assert_eq!((classes.classes, classes.neighbours.len()), (10, 3));
        assert!(classes.entropy < 10f64.ln() && classes.entropy > 2.2 && classes.fano < classes.entropy);
        let sum: f64 = found.dimensions.iter().map(|d| d.kl).sum();
        assert!((sum - found.kl).abs() < 1e-3 && (found.surgery.kl - sum).abs() < 0.2 * sum.max(0.1));
        let prior = found.prior.as_ref().unwrap();
        assert_eq!((prior.draws, prior.shares.len()), (20, 10));
        assert_eq!(found, Richness::of(&mut model, &data, &options).unwrap());
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Richness>(&text).unwrap(), found);

        data.train.labels = None;
        let found = Richness::of(&mut model, &data, &options).unwrap();
        assert!(found.classes.is_none() && found.prior.is_none() && found.neg_elbo > 0.0);
    }
}
