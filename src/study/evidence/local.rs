//! Quadrature of one image on a grid of its own, laid where its mass is.
//!
//! The common grid ends somewhere, and has one spacing for all images. An image whose posterior lies beyond its edge, or is
//! too narrow for it, is taken here: modes are climbed to from several places ([`Density::climb`]), the axes and the
//! spacing of the grid are those of a mode, and the grid grows outwards from every mode until nothing within [`REACH`] nats of
//! the largest value is left outside:
//!
//! ```text
//! z = m + h Σ_j i_j w_j v_j          v_j, w_j the directions and widths of the mode m, i_j whole numbers
//! ```
//!
//! E_q log p(x|z) is summed over a second grid, in units of q's standard deviations. The encoder is a hint, not a truth:
//! its mean is one of the places to climb from.

use std::collections::BTreeMap;

use super::density::{DecoderParameters, Density, Graphs, Mode};
use super::grid::GridPoint;
use super::observed::Observed;
use super::quadrature::{Exact, Quadrature, REACH};
use super::scan::Q_REACH;
use super::sums::{Expectation, Mass, gaussian_kl, log_prior};
use crate::vae::Vae;

/// h at the start, in widths of the mode: for a Gaussian the rule is then exact to 1e-17, and its double to 1e-4.
const SPACING: f64 = 0.7;
/// No grid has more points.
const POINTS: usize = 1 << 15;
/// A mode whose own mass (by Laplace's approximation) is this many nats below the whole need not be seen by the grid.
const NOTHING: f64 = 20.0;
/// The grid sees a mode if its nearest point is at most this many nats below.
const SEEN: f64 = 2.0;

/// log p(x) and the ELBO of the one image of `observed`, climbing from `seeds` (none of them needs to be right).
pub(super) fn local(
    vae: &Vae,
    parameters: &DecoderParameters,
    observed: &Observed,
    seeds: Vec<Vec<f64>>,
    settings: &Quadrature,
    smooth: bool,
) -> Exact {
    let graphs = Graphs::default();
    let mut density = Density::new(&graphs, vae, parameters, &observed.x, seeds.len() + 2);
    let about_q = expectation(&mut density, observed, settings, smooth);
    let mean: Vec<f64> = observed.mu.iter().map(|&m| f64::from(m)).collect();
    let seeds = seeds.into_iter().chain([mean, about_q.highest]).filter(|z| z.iter().all(|z| z.is_finite())).collect();
    let modes = density.climb(seeds);
    let kl = gaussian_kl(&observed.mu, &observed.logvar);
    let mut best = Exact {
        log_p: f64::NAN,
        error: f64::INFINITY,
        elbo: about_q.value - kl,
        elbo_error: about_q.error,
        mean: vec![f64::NAN; observed.latent],
        covariance: vec![f64::NAN; observed.latent * observed.latent],
        spacing: f64::NAN,
        points: about_q.points,
        posterior: Vec::new(),
    };
    let Some(frame) = frame(&modes) else { return best };
    let mut h = SPACING;
    while let Some(patch) = Patch::grow(&mut density, frame, &modes, h, settings) {
        let points = patch.points.len();
        best.points += points as u64;
        patch.write(&modes, &mut best, settings, smooth);
        h *= 0.5;
        if best.error < settings.tolerance || points << observed.latent > POINTS {
            break;
        }
    }
    best
}

/// The mode whose grid will do for all: the narrowest of those that matter.
fn frame(modes: &[Mode]) -> Option<&Mode> {
    let most = modes.iter().map(Mode::log_mass).fold(f64::NEG_INFINITY, f64::max);
    let matter = modes.iter().filter(|m| m.log_mass() > most - NOTHING);
    matter.min_by(|a, b| a.log_volume().total_cmp(&b.log_volume()))
}

/// A grid in the frame of a mode, as far as there is mass.
struct Patch<'m> {
    frame: &'m Mode,
    /// The steps along the axes of the frame.
    steps: Vec<f64>,
    /// log p(x|z) by indices along the axes, in their order.
    points: BTreeMap<Vec<i64>, f64>,
    /// The largest log p(x, z) of a point.
    max: f64,
}

impl<'m> Patch<'m> {
    /// Grows outwards from every mode; none where the spacing would be finer than it may be, or the points too many.
    fn grow(
        density: &mut Density<'_>,
        frame: &'m Mode,
        modes: &[Mode],
        h: f64,
        settings: &Quadrature,
    ) -> Option<Patch<'m>> {
        if h < SPACING && frame.widths.iter().any(|w| h * w < settings.finest) {
            return None;
        }
        let steps = frame.widths.iter().map(|w| (h * w).max(settings.finest)).collect();
        let mut patch = Patch { frame, steps, points: BTreeMap::new(), max: f64::NEG_INFINITY };
        let mut front: Vec<Vec<i64>> = modes.iter().flat_map(|m| around(&patch.nearest(&m.z))).collect();
        while !front.is_empty() {
            front.sort();
            front.dedup();
            let places: Vec<Vec<f64>> = front.iter().map(|i| patch.place(i)).collect();
            let log_p = density.log_likelihoods(places.iter().map(Vec::as_slice));
            let joint: Vec<f64> = log_p.iter().zip(&places).map(|(log_p, z)| log_p + log_prior(z)).collect();
            patch.max = joint.iter().copied().fold(patch.max, f64::max);
            patch.points.extend(front.iter().cloned().zip(log_p));
            if patch.points.len() > POINTS {
                return None;
            }
            let inside = front.iter().zip(joint).filter(|(_, joint)| *joint > patch.max - REACH);
            let next: Vec<Vec<i64>> = inside.flat_map(|(i, _)| around(i)).collect();
            front = next.into_iter().filter(|i| !patch.points.contains_key(i)).collect();
        }
        Some(patch)
    }

    fn place(&self, indices: &[i64]) -> Vec<f64> {
        let mut z = self.frame.z.clone();
        for ((axis, step), &i) in self.frame.axes.iter().zip(&self.steps).zip(indices) {
            z.iter_mut().zip(axis).for_each(|(z, a)| *z += i as f64 * step * a);
        }
        z
    }

    fn nearest(&self, z: &[f64]) -> Vec<i64> {
        let along = |axis: &[f64]| z.iter().zip(&self.frame.z).zip(axis).map(|((z, m), a)| (z - m) * a).sum::<f64>();
        self.frame.axes.iter().zip(&self.steps).map(|(axis, step)| (along(axis) / step).round() as i64).collect()
    }

    /// Whether the grid has a point near the top of every mode that matters for a mass of e^`log_p`.
    fn sees(&self, modes: &[Mode], log_p: f64) -> bool {
        let matter = modes.iter().filter(|m| m.log_mass() > log_p - NOTHING);
        let top = |m: &Mode| {
            let near = self.nearest(&m.z);
            self.points[&near] + log_prior(&self.place(&near))
        };
        matter.clone().all(|m| top(m) > m.joint - SEEN)
    }

    fn write(&self, modes: &[Mode], exact: &mut Exact, settings: &Quadrature, smooth: bool) {
        let mut mass = Mass::default();
        for (i, &log_p) in &self.points {
            let even = i.iter().all(|i| i % 2 == 0);
            let point = GridPoint { z: self.place(i), even, border: false };
            mass.add(&point, &self.frame.z, log_p, self.max, settings.keep_posterior);
        }
        let log_cell = self.steps.iter().map(|s| s.ln()).sum();
        let found = mass.finish(&self.frame.z, log_cell, smooth, self.max);
        exact.log_p = found.log_p;
        exact.error = if self.sees(modes, found.log_p) { found.error } else { f64::INFINITY };
        exact.mean = found.mean;
        exact.covariance = found.covariance;
        exact.spacing = self.steps.iter().copied().fold(f64::INFINITY, f64::min);
        exact.posterior = found.kept;
    }
}

/// A place and its neighbours, also across corners.
fn around(at: &[i64]) -> Vec<Vec<i64>> {
    let mut all = vec![Vec::new()];
    for &i in at {
        let longer = |p: Vec<i64>| (i - 1..=i + 1).map(move |i| p.iter().copied().chain([i]).collect());
        all = all.into_iter().flat_map(longer).collect();
    }
    all
}

/// E_q log p(x|z).
struct AboutQ {
    value: f64,
    error: f64,
    points: u64,
    /// The point with the largest log p(x, z).
    highest: Vec<f64>,
}

fn expectation(density: &mut Density<'_>, observed: &Observed, settings: &Quadrature, smooth: bool) -> AboutQ {
    let (mu, logvar) = (&observed.mu, &observed.logvar);
    let mut h = SPACING;
    let mut found = AboutQ { value: f64::NAN, error: f64::INFINITY, points: 0, highest: vec![f64::NAN; mu.len()] };
    loop {
        let reach = (Q_REACH.sqrt() / h) as i64;
        let mut indices = vec![Vec::new()];
        for _ in mu {
            let longer = |p: Vec<i64>| (-reach..=reach).map(move |i| p.iter().copied().chain([i]).collect());
            indices = indices.into_iter().flat_map(longer).collect();
        }
        indices.retain(|i: &Vec<i64>| i.iter().map(|&i| (i as f64 * h).powi(2)).sum::<f64>() < Q_REACH);
        let steps: Vec<f64> = logvar.iter().map(|&lv| h * (0.5 * f64::from(lv)).exp()).collect();
        if indices.len() > POINTS || steps.iter().any(|s| *s < settings.finest) {
            return found;
        }
        let place = |i: &Vec<i64>| -> Vec<f64> {
            i.iter().zip(mu).zip(&steps).map(|((&i, &m), s)| f64::from(m) + i as f64 * s).collect()
        };
        let places: Vec<Vec<f64>> = indices.iter().map(place).collect();
        let log_p = density.log_likelihoods(places.iter().map(Vec::as_slice));
        let (mut sums, mut top) = (Expectation::default(), f64::NEG_INFINITY);
        for ((i, z), log_p) in indices.iter().zip(places).zip(log_p) {
            let joint = log_p + log_prior(&z);
            if joint > top {
                (top, found.highest) = (joint, z.clone());
            }
            let point = GridPoint { z, even: i.iter().all(|i| i % 2 == 0), border: false };
            sums.add(&point, mu, logvar, log_p);
        }
        found.points += indices.len() as u64;
        (found.value, found.error) = sums.finish(steps.iter().map(|s| s.ln()).sum(), smooth);
        if found.error < settings.tolerance {
            return found;
        }
        h *= 0.5;
    }
}
