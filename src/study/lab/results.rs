//! What the laboratory finds.

use serde::Serialize;

use super::contestant::{Contestant, Network};
use super::expect::GradientMoments;
use super::stats::{DrawGroups, exponent};
use crate::study::richness::Uncertain;
use crate::vae::{BoundKind, Estimator};

/// k counts as far above or below χ² from this factor on.
const FAR: f64 = 4.0;
/// An expectation shorter than this is that of the posterior, zero but for rounding.
const NOTHING: f64 = 1e-6;
/// Gradients are made in f32: relative to a component, and to 1 for small ones.
const ROUNDING: f64 = 1e-5;

/// One estimator with one k at one q.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Draws of z per image.
    pub k: usize,
    /// Draws of the gradient.
    pub draws: usize,
    /// √(trace of the covariance of one draw), measured.
    pub noise: Uncertain,
    /// The same, exactly, where it is known.
    pub exact_noise: Option<f64>,
    /// The length of the estimator's expectation: exact where that is known, else measured.
    pub size: Uncertain,
    /// size/noise; none where the expectation is zero.
    pub ratio: Option<Uncertain>,
    /// The same, exactly.
    pub exact_ratio: Option<f64>,
    /// (mean − gradient of the bound) along that gradient, relative to its length; none where that is zero.
    pub bias: Option<Uncertain>,
    /// The bias that is expected, where it is known.
    pub exact_bias: Option<f64>,
    /// The largest distance of a component of the mean from its exact expectation, in standard errors, where that is known.
    pub worst: Option<f64>,
    /// The same from the bound's exact gradient: large for a biased estimator.
    pub worst_bias: Option<f64>,
    /// Seconds of one step, all gradients of the model, without an update.
    pub seconds: f64,
}

impl Cell {
    /// Of an estimator whose expectation is known; `gradient` is that of the bound.
    pub(super) fn known(k: usize, found: &DrawGroups, exact: &GradientMoments, gradient: &[f64]) -> Cell {
        let noise = found.noise();
        let there = |size: f64| size > NOTHING;
        let size = exact.size();
        let sizes: f64 = gradient.iter().map(|g| g * g).sum();
        let along = |mean: &[f64]| mean.iter().zip(gradient).map(|(m, g)| m * g).sum::<f64>() / sizes - 1.0;
        let bias = there(sizes.sqrt()).then(|| found.along(gradient)).map(|a| Uncertain { value: a.value - 1.0, ..a });
        Cell {
            k,
            draws: found.draws(),
            noise,
            exact_noise: Some(exact.noise),
            size: Uncertain { value: size, standard_error: 0.0 },
            ratio: there(size).then(|| ratio(Uncertain { value: size, standard_error: 0.0 }, noise)),
            exact_ratio: there(size).then(|| size / exact.noise),
            bias,
            exact_bias: there(sizes.sqrt()).then(|| along(&exact.mean)),
            worst: Some(worst(found, &exact.mean)),
            worst_bias: Some(worst(found, gradient)),
            seconds: f64::NAN,
        }
    }

    /// Of an estimator of which nothing is known: `reference` are draws of an unbiased one.
    pub(super) fn measured(k: usize, found: &DrawGroups, reference: &DrawGroups, biased: bool) -> Cell {
        let noise = found.noise();
        let size = if biased { found.size() } else { reference.size() };
        let gradient = reference.mean();
        let (along, own) = (found.along(&gradient), reference.along(&gradient));
        let error = along.standard_error.hypot(own.standard_error);
        let seen = |size: &Uncertain| size.value > 0.0;
        Cell {
            k,
            draws: found.draws(),
            noise,
            exact_noise: None,
            size,
            ratio: seen(&size).then(|| ratio(size, noise)),
            exact_ratio: None,
            bias: seen(&reference.size())
                .then_some(Uncertain { value: along.value - own.value, standard_error: error }),
            exact_bias: None,
            worst: None,
            worst_bias: None,
            seconds: f64::NAN,
        }
    }

    /// Variance of one step × milliseconds of one step.
    pub fn variance_cost(&self) -> f64 {
        self.noise.value.powi(2) * self.milliseconds()
    }

    /// (noise/size)² × milliseconds of a step: the time after which the mean of repeated steps is as long as its noise, in
    /// milliseconds. Between estimators of one gradient it is variance × cost; and unlike that it compares different k of L_k,
    /// whose gradients differ.
    pub fn time_to_see(&self) -> Option<f64> {
        self.ratio.map(|ratio| self.milliseconds() / ratio.value.powi(2))
    }

    /// Milliseconds of one step.
    pub fn milliseconds(&self) -> f64 {
        1e3 * self.seconds
    }
}

fn ratio(size: Uncertain, noise: Uncertain) -> Uncertain {
    let value = size.value / noise.value;
    let relative = (noise.standard_error / noise.value).hypot(size.standard_error / size.value);
    Uncertain { value, standard_error: value * relative }
}

/// The largest distance of a component of the mean from what is expected, in standard errors, rounding taken into account.
fn worst(found: &DrawGroups, expected: &[f64]) -> f64 {
    let errors = found.variance_of_mean();
    let each = found.mean().into_iter().zip(errors).zip(expected);
    each.map(|((mean, variance), &e)| (mean - e).abs() / variance.sqrt().hypot(ROUNDING * e.abs().max(1.0)))
        .fold(0.0, f64::max)
}

/// Where k stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// Every k: the ELBO, whose draws are averaged, and models whose χ² is not known.
    Every,
    /// k ≤ χ²/4: one draw has nearly all the weight.
    Before,
    /// k ≥ 4χ²: the weights have averaged out.
    After,
}

/// The exponent of k in a signal-to-noise ratio.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SlopeInK {
    /// Over which k.
    pub regime: Regime,
    /// By weighted least squares on logarithmic axes.
    pub measured: Uncertain,
    /// The same fit, with the same weights, to the exact ratios.
    pub exact: Option<f64>,
    /// The asymptotic law, where there is one: for k ≫ χ², and for the ELBO.
    pub law: Option<f64>,
}

/// One estimator at one q.
#[derive(Clone, Debug, Serialize)]
pub struct ContestantLine {
    /// Which.
    #[serde(flatten)]
    pub contestant: Contestant,
    /// By k, rising.
    pub cells: Vec<Cell>,
    /// Of the ratio in k.
    pub slopes: Vec<SlopeInK>,
}

impl ContestantLine {
    pub(super) fn new(contestant: Contestant, cells: Vec<Cell>, chi_square: Option<f64>) -> ContestantLine {
        let regimes = match (contestant.bound, chi_square) {
            (BoundKind::Iwae, Some(_)) => vec![Regime::Before, Regime::After],
            _ => vec![Regime::Every],
        };
        let chi_square = chi_square.unwrap_or(f64::NAN);
        let slopes = regimes.into_iter().filter_map(|regime| slope(&contestant, &cells, regime, chi_square)).collect();
        ContestantLine { contestant, cells, slopes }
    }
}

fn slope(contestant: &Contestant, cells: &[Cell], regime: Regime, chi_square: f64) -> Option<SlopeInK> {
    let within = |k: f64| match regime {
        // The baseline of a single draw for a single image is nothing.
        Regime::Every => k > 1.0 || contestant.estimator != Estimator::ScoreFunctionBaseline,
        Regime::Before => k <= chi_square / FAR,
        Regime::After => k >= (FAR * chi_square).max(2.0),
    };
    let points: Vec<(f64, Uncertain, Option<f64>)> = cells
        .iter()
        .filter(|cell| within(cell.k as f64))
        .filter_map(|cell| Some((cell.k as f64, cell.ratio?, cell.exact_ratio)))
        .collect();
    let measured = exponent(&points.iter().map(|&(k, ratio, _)| (k, ratio)).collect::<Vec<_>>())?;
    let exact: Option<Vec<(f64, Uncertain)>> = points
        .iter()
        .map(|&(k, ratio, exact)| {
            exact.map(|value| (k, Uncertain { value, standard_error: value * ratio.standard_error / ratio.value }))
        })
        .collect();
    let lawful = regime == Regime::After || contestant.bound == BoundKind::Elbo;
    Some(SlopeInK {
        regime,
        measured,
        exact: exact.and_then(|points| exponent(&points)).map(|slope| slope.value),
        law: lawful.then(|| contestant.law()),
    })
}

/// All estimators at one q.
#[derive(Clone, Debug, Serialize)]
pub struct LabPlace {
    /// δ, in posterior standard deviations; none for a trained run.
    pub distance: Option<f64>,
    /// KL(q ‖ p(z|x)) in nats, where it is known.
    pub gap: Option<f64>,
    /// χ²(p(z|x) ‖ q), where it is known.
    pub chi_square: Option<f64>,
    /// The estimators.
    pub lines: Vec<ContestantLine>,
}

impl LabPlace {
    /// Whether q is the posterior, where gradients are zero.
    pub fn is_posterior(&self) -> bool {
        self.distance == Some(0.0)
    }

    /// The encoder's cell with the least of `cost` for a bound.
    pub fn best(&self, bound: BoundKind, cost: impl Fn(&Cell) -> Option<f64>) -> Option<(Contestant, usize, f64)> {
        let lines = self.lines.iter().filter(|l| l.contestant.bound == bound && l.contestant.side == Network::Encoder);
        let cells = lines.flat_map(|line| line.cells.iter().map(|cell| (line.contestant, cell)));
        let unbiased = cells.filter(|(contestant, cell)| !contestant.is_biased(cell.k));
        let costs = unbiased.filter_map(|(contestant, cell)| Some((contestant, cell.k, cost(cell)?)));
        costs.min_by(|a, b| a.2.total_cmp(&b.2))
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct LabReport {
    /// What was looked at.
    pub model: String,
    /// On what.
    pub device: String,
    /// Images whose mean gradient is one draw.
    pub images: usize,
    /// Draws of z per image, rising.
    pub samples: Vec<usize>,
    /// Draws of each gradient.
    pub draws: usize,
    /// Seed of all draws.
    pub seed: u64,
    /// One for each q.
    pub places: Vec<LabPlace>,
}
