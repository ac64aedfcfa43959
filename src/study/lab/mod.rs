//! A laboratory for the noise of gradients: bias, variance and signal-to-noise ratio of every estimator of the crate, against
//! the number of draws k and the distance of q from the posterior, and what a unit of variance costs in milliseconds.
//!
//! Two subjects: the [linear Gaussian model](LinearGaussian), on which the [expectation and the noise](Oracle) of every estimator
//! are known for every k, and a trained model, of which only what was drawn is known. What is measured is what a training
//! would use, [`bound_gradients`](crate::vae::bound_gradients), compiled for the device.
//!
//! ```text
//! size    ‖E g‖            the length of the expectation
//! noise   √(tr Cov g)      of one step's gradient
//! ratio   size/noise       the signal-to-noise ratio
//! bias    (E g − ∇L)·∇L/‖∇L‖²
//! ```
//!
//! On the known model the ratio has the exact size and the measured noise: the mean of 2000 draws with a ratio of 0.01 is
//! nearly all error, and would measure nothing. That the mean is the expectation is tested apart, as the bias. On a trained
//! model the size is that of the mean of an unbiased estimator with little noise, drawn apart.

mod contestant;
mod expect;
mod known;
mod measure;
mod picture;
mod report;
mod results;
mod stats;
mod trained;

pub use contestant::{Contestant, Network};
pub use expect::{GradientMoments, Oracle};
pub use known::{LATENT, LinearGaussian, PIXELS, PlaneGaussian};
pub use measure::{Looked, NoiseProbe, seconds_per_step};
pub use picture::draw;
pub use report::tables;
pub use results::{Cell, ContestantLine, LabPlace, LabReport, Regime, SlopeInK};
pub use stats::{DrawGroups, GROUPS, exponent, median};
pub use trained::trained;

use crate::engine::device::Executor;
use crate::engine::error::{Error, Result};
use crate::vae::BoundKind;
use crate::vae::watch::Watch;

/// More columns than this do not fit a terminal of 100.
const MOST_SAMPLES: usize = 8;
/// Rounds of the timing.
const REPETITIONS: usize = 9;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Draws of z per image, in any order.
    pub samples: Vec<usize>,
    /// Draws of each gradient.
    pub draws: usize,
    /// Seed of all draws.
    pub seed: u64,
}

impl LabOptions {
    /// The values of k in rising order.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are none, too many, or one is out of range; when there are too few draws for an error.
    fn checked(&self) -> Result<Vec<usize>> {
        let mut samples = self.samples.clone();
        samples.sort_unstable();
        samples.dedup();
        let list = || samples.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        if !(1..=MOST_SAMPLES).contains(&samples.len()) || samples.iter().any(|k| !(1..=10_000).contains(k)) {
            let expected = format!("1 to {MOST_SAMPLES} different numbers of draws per image, each from 1 to 10000");
            return Err(Error::argument("samples", list(), expected));
        }
        if !(2 * GROUPS..=1_000_000).contains(&self.draws) {
            let expected = format!("from {} to 1000000: two for each of the {GROUPS} groups of the errors", 2 * GROUPS);
            return Err(Error::argument("draws", self.draws, expected));
        }
        Ok(samples)
    }
}

/// Measures on the linear Gaussian model with q at these distances from the posterior.
///
/// # Errors
/// [`Error::Argument`] when an option or a distance is out of range; from the device.
pub fn known(executor: &Executor, distances: &[f64], options: &LabOptions, watch: &Watch) -> Result<LabReport> {
    let samples = options.checked()?;
    let model = LinearGaussian::new()?;
    let mut distances = distances.to_vec();
    distances.sort_by(f64::total_cmp);
    distances.dedup();
    if distances.is_empty() {
        return Err(Error::argument("distances", "none", "at least one number of posterior standard deviations"));
    }
    let qs = distances.iter().map(|&d| model.q_at(d)).collect::<Result<Vec<_>>>()?;
    let mut state = executor.state(&model.vae.params(), 0)?;
    model.write(&mut state, &qs[0])?;
    let image = known::X.map(|x| x as f32);
    // The bias of the heads has the whole gradient in (m, lv): the weights' is that times x.
    let looked = Looked { encoder: vec![1], decoder: vec![1] };
    let pairs = Contestant::ALL.iter().flat_map(|&contestant| samples.iter().map(move |&k| (contestant, k)));
    let compile = |pair| NoiseProbe::compile(executor, &model.vae, pair, &image, &looked);
    let mut probes = pairs.map(compile).collect::<Result<Vec<_>>>()?;
    let all = probes.len() * qs.len();
    let mut places = Vec::with_capacity(qs.len());
    for (at, (&distance, q)) in distances.iter().zip(&qs).enumerate() {
        model.write(&mut state, q)?;
        let oracle = Oracle::new(&model, q);
        let mut cells = Vec::with_capacity(probes.len());
        for (i, probe) in probes.iter_mut().enumerate() {
            let cell = at * samples.len() * Contestant::ALL.len() + i;
            let drawn = probe.draw(&mut state, (options.seed, cell), options.draws)?;
            let exact = oracle.of(&probe.contestant, probe.k);
            let (unbiased, k) = probe.contestant.reference(probe.k, probe.k);
            cells.push(Cell::known(probe.k, &drawn, &exact, &oracle.of(&unbiased, k).mean));
            watch.at("gradients drawn", cell + 1, all);
        }
        let chi_square = model.chi_square(q);
        let place = LabPlace {
            distance: Some(distance),
            gap: Some(model.gap(q)),
            chi_square: Some(chi_square),
            lines: Vec::new(),
        };
        places.push((place, cells));
    }
    let told = |done, of| watch.at("steps timed", done, of);
    let seconds = seconds_per_step(&mut probes, &mut state, REPETITIONS, told)?;
    let places = places.into_iter().map(|(place, cells)| with_lines(place, &probes, cells, &seconds)).collect();
    Ok(LabReport {
        model: "linear Gaussian, 3 pixels, 2 latent dimensions, 1 image".into(),
        device: executor.describe(),
        images: 1,
        samples,
        draws: options.draws,
        seed: options.seed,
        places,
    })
}

/// Cells, which come estimator by estimator, as lines, with the time of a step.
fn with_lines(mut place: LabPlace, probes: &[NoiseProbe], mut cells: Vec<Cell>, seconds: &[f64]) -> LabPlace {
    cells.iter_mut().zip(seconds).for_each(|(cell, &seconds)| cell.seconds = seconds);
    for contestant in Contestant::ALL {
        let own = probes.iter().zip(&cells).filter(|(probe, _)| probe.contestant == contestant);
        let own: Vec<Cell> = own.map(|(_, cell)| cell.clone()).collect();
        if !own.is_empty() {
            place.lines.push(ContestantLine::new(contestant, own, place.chi_square));
        }
    }
    place
}

/// The bounds that are compared, in the order of the tables.
const BOUNDS: [BoundKind; 2] = [BoundKind::Elbo, BoundKind::Iwae];
