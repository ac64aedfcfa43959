//! log p(x) to any wanted accuracy where z has one or two dimensions: the trapezoid rule.
//!
//! ```text
//! p(x) = ∫ p(x|z) p(z) dz ≈ hᴷ Σ_grid p(x|z) p(z)
//! ```
//!
//! For an integrand that is analytic in a strip of half-width a around the real axis and falls off at both ends, the error
//! is of the order e^(−2πa/h) (Trefethen & Weideman 2014, *The exponentially convergent trapezoidal rule*): halving h squares it.
//! The grid of every second point is the same rule at 2h, and so the square of the difference estimates the error at h, on the
//! safe side; for a Gaussian integrand it would be the fourth power.
//!
//! Where the mass is, is found in f32 over the whole grid ([`pairwise_log_likelihood`], on the model's executor). The sum is
//! made in f64 by the reference interpreter, over the tiles that have a point within [`REACH`] nats of an image's
//! largest. Then h is halved for the images that need it, and only the parts of the plane that had mass are looked at.
//! Images whose mass goes beyond this grid's edge, or is too narrow for it, get grids of their own ([`local`]).
//! From the same sums come the exact posterior's mean and covariance, and E_q log p(x|z), hence the exact ELBO and its gap
//! KL(q ‖ p(z|x)).

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::Estimate;
use super::density::DecoderParameters;
use super::grid::{Grid, GridPoint};
use super::importance::transposed;
use super::local::local;
use super::observed::Observed;
use super::pairwise::pairwise_log_likelihood;
use super::scan::Scan;
use super::sums::{Expectation, Mass, gaussian_kl};
use crate::engine::error::{Error, Result};
use crate::engine::graph::Graph;
use crate::engine::interp::Interp;
use crate::engine::nn::Activation;
use crate::engine::rng::Draw;
use crate::vae::streams;
use crate::vae::{DeviceVae, Vae, VaeConfig};

/// A point this many nats below an image's largest does not count: e⁻⁴⁰ = 4e-18.
pub(super) const REACH: f64 = 40.0;
/// Nats below an image's mass at which a grid may end: what lies beyond is less than e^(−30) of it.
pub(super) const EDGE: f64 = 30.0;
/// Tiles with points this close are looked at on the next finer grid.
const SEARCH: f64 = 60.0;
/// The common grid's spacing is divided by this at most; what that does not resolve gets a grid of its own.
const COMMON: f64 = 8.0;
/// A decoder with kinks that has come this close on the common grid stays there: it gains on no other.
const NEAR: f64 = 0.05;
/// The second look for lost images is this much wider, and as much coarser.
const FAR: f64 = 8.0;
/// Images at a time.
const CHUNK: usize = 1000;

/// The grid, and when it is fine enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quadrature {
    /// h at the start, of the grid that all images share.
    pub spacing: f64,
    /// No grid is finer than this, in units of z. The common grid stops at an eighth of `spacing` anyway; one that is laid
    /// for a single image is as fine as its posterior demands.
    pub finest: f64,
    /// The common grid covers [−half_width, half_width] on every axis, and more where the mass of an image reaches to its
    /// edge, up to twice as much. An image that goes beyond has a grid of its own, wherever its mass is.
    pub half_width: f64,
    /// The wanted error of log p(x) and of the ELBO, in nats.
    pub tolerance: f64,
    /// Whether the posterior's points are kept, to draw from.
    pub keep_posterior: bool,
}

impl Quadrature {
    /// The usual settings: 1e-6 nats for a decoder that is analytic in z, 1e-3 for one with kinks, which would need grids a
    /// thousand times finer.
    pub fn of(vae: &Vae) -> Quadrature {
        Quadrature { tolerance: if analytic(vae) { 1e-6 } else { 1e-3 }, ..Quadrature::default() }
    }
}

/// Whether log p(x|z) has a power series in z everywhere.
fn analytic(vae: &Vae) -> bool {
    let kinked = matches!(vae.config.activation, Activation::Relu | Activation::LeakyRelu);
    !kinked || vae.config.decoder.is_empty()
}

impl Default for Quadrature {
    fn default() -> Quadrature {
        Quadrature { spacing: 0.1, finest: 1e-9, half_width: 6.0, tolerance: 1e-6, keep_posterior: false }
    }
}

/// What quadrature says about one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Exact {
    /// log p(x), in nats.
    pub log_p: f64,
    /// Estimate of its error: the square of the difference to the grid of every second point, or for a decoder with kinks
    /// the difference. Infinite where the mass was not found: no grid that was tried resolves it, or the ELBO of the same image
    /// is larger. Then `log_p` is no estimate of anything, and may be NaN.
    pub error: f64,
    /// ELBO(x), with E_q log p(x|z) over the same grid.
    pub elbo: f64,
    /// Estimate of its error.
    pub elbo_error: f64,
    /// E[z|x], `[K]`.
    pub mean: Vec<f64>,
    /// Cov[z|x], `[K, K]`.
    pub covariance: Vec<f64>,
    /// h at the end; the smallest along an axis.
    pub spacing: f64,
    /// The number of grid points summed.
    pub points: u64,
    /// Points of the posterior with their log p(x|z) and the sum of the posterior's weights up to and with them, if they
    /// were asked for.
    pub posterior: Vec<(Vec<f64>, f64, f64)>,
}

impl Exact {
    /// KL(q(z|x) ‖ p(z|x)) = log p(x) − ELBO(x), what the bound gives away.
    pub fn gap(&self) -> f64 {
        self.log_p - self.elbo
    }

    /// Whether the tolerance was reached before the finest grid.
    pub fn converged(&self, settings: &Quadrature) -> bool {
        self.error < settings.tolerance && self.elbo_error < settings.tolerance
    }

    /// Whether the mass was found, so that `log_p` is log p(x) but for about `error`.
    pub fn found(&self) -> bool {
        self.error.is_finite()
    }

    /// Whether the common grid did not do for this image.
    fn lost(&self, settings: &Quadrature, smooth: bool) -> bool {
        let near = self.error < NEAR && self.elbo_error < NEAR;
        !self.converged(settings) && (smooth || !near)
    }

    /// This, with what another grid knows better.
    fn or_better(self, other: Exact) -> Exact {
        let (elbo, elbo_error) = match other.elbo_error < self.elbo_error {
            true => (other.elbo, other.elbo_error),
            false => (self.elbo, self.elbo_error),
        };
        let posterior = if other.error < self.error { other } else { self };
        Exact { elbo, elbo_error, ..posterior }
    }

    /// A log p(x) below a bound of it is wrong, whatever the grids say of each other.
    fn checked(mut self) -> Exact {
        let rounding = 1e-9 * self.elbo.abs();
        if self.log_p.is_nan() || self.elbo - self.elbo_error > self.log_p + self.error + rounding {
            self.error = f64::INFINITY;
        }
        self
    }

    /// As an estimate, whose error is that of the rule. Such errors need not average out over images, as those of draws do:
    /// [`Summary::of_shared`](super::Summary::of_shared) sums them up.
    pub fn estimate(&self) -> Estimate {
        Estimate { value: self.log_p, standard_error: self.error, effective_samples: None, samples: self.points }
    }

    /// Draws from the posterior on the grid, as numbers of [`Exact::posterior`]: expectations over it are as accurate as
    /// the quadrature. `which` numbers the image's noise.
    ///
    /// # Panics
    /// When the points were not kept.
    pub fn draw(&self, draws: usize, seed: u64, which: u32) -> Vec<usize> {
        assert!(!self.posterior.is_empty(), "the posterior's points were not kept");
        let noise = [0, 1].map(|stream| Draw { seed, step: which, stream: streams::GRID_POINTS + stream });
        let uniform = |i: u64| {
            // 48 bits: one f32 would not reach into the tails.
            f64::from(noise[0].uniform(i)) + f64::from(noise[1].uniform(i)) / f64::from(1u32 << 24)
        };
        let last = self.posterior.len() - 1;
        (0..draws as u64).map(|i| self.posterior.partition_point(|p| p.2 <= uniform(i)).min(last)).collect()
    }
}

/// Whether the model's latent space is small enough for a grid.
///
/// # Errors
/// [`Error::Argument`] when it has several stochastic layers or more than two latent dimensions.
pub fn check_quadrature(config: &VaeConfig) -> Result<()> {
    if config.upper.is_empty() && config.latent <= 2 {
        return Ok(());
    }
    let found = format!("{:?} in {} stochastic layers", config.latents(), config.upper.len() + 1);
    let expected = "one or two in one layer for quadrature; use ais or iwae instead";
    Err(Error::argument("latent dimensions", found, expected))
}

/// log p(x), the posterior and the ELBO's gap of every image.
///
/// # Errors
/// [`Error::Argument`] when the model has several stochastic layers or more than two latent dimensions; and from the
/// executor.
pub fn quadrature(model: &mut DeviceVae, observed: &Observed, settings: &Quadrature) -> Result<Vec<Exact>> {
    check_quadrature(&model.vae.config)?;
    let parameters = parameters(model)?;
    let mut all = Vec::with_capacity(observed.images());
    for first in (0..observed.images()).step_by(CHUNK) {
        let part = observed.part(first..observed.images().min(first + CHUNK));
        all.extend(chunk(model, &parameters, &part, settings)?);
    }
    Ok(all)
}

/// The decoder's parameters, in f64.
fn parameters(model: &DeviceVae) -> Result<Vec<(String, Vec<f64>)>> {
    let params = model.state.params();
    let names = params.iter().map(|p| p.name.clone()).filter(|name| name.starts_with("decoder"));
    names.map(|name| Ok((name.clone(), model.state.read(&name)?.into_iter().map(f64::from).collect()))).collect()
}

/// A chunk of images: on the grid that they share, and one by one where that did not find the mass.
fn chunk(
    model: &mut DeviceVae,
    parameters: &DecoderParameters,
    observed: &Observed,
    settings: &Quadrature,
) -> Result<Vec<Exact>> {
    let smooth = analytic(&model.vae);
    let (mut found, edge) = common(model, parameters, observed, settings)?;
    let far = Grid::new(observed.latent, FAR * settings.spacing, FAR * settings.half_width);
    let beyond = Scan::run(model, observed, &far, &vec![true; far.tiles()])?;
    for (i, exact) in found.iter_mut().enumerate() {
        let highest = beyond.highest_beyond(&far, i, edge);
        // What the common grid found may be all of the mass, or the foot of a mountain beyond its edge.
        exact.take_if(|exact| highest > exact.log_p - EDGE);
    }
    let lost: Vec<usize> =
        (0..found.len()).filter(|&i| found[i].as_ref().is_none_or(|e| e.lost(settings, smooth))).collect();
    let seeds = seeds(model, &select(observed, &lost), settings, (&far, &beyond.only(&lost)))?;
    let (vae, watch, done) = (&model.vae, model.watch.clone(), AtomicUsize::new(0));
    let alone = |(seeds, &i): (Vec<Vec<f64>>, &usize)| {
        watch.at("quadrature, image by image", done.fetch_add(1, Ordering::Relaxed) + 1, lost.len());
        local(vae, parameters, &observed.part(i..i + 1), seeds, settings, smooth)
    };
    let local: Vec<Exact> = seeds.into_par_iter().zip(&lost).map(alone).collect();
    for (&i, local) in lost.iter().zip(local) {
        found[i] = Some(match found[i].take() {
            // What neither grid resolves is not known.
            Some(common) if !local.found() && common.error >= NEAR => Exact { error: f64::INFINITY, ..common },
            Some(common) => common.or_better(local),
            None => local,
        });
    }
    Ok(found.into_iter().map(|e| e.expect("what the common grid lost was looked for").checked()).collect())
}

/// Where to look for the mass of each image: the highest places of the common grid, and of one [`FAR`] times as wide, which
/// is given.
fn seeds(
    model: &mut DeviceVae,
    images: &Observed,
    settings: &Quadrature,
    (far, beyond): (&Grid, &Scan),
) -> Result<Vec<Vec<Vec<f64>>>> {
    if images.images() == 0 {
        return Ok(Vec::new());
    }
    let near = Grid::new(images.latent, settings.spacing, settings.half_width);
    let inside = Scan::run(model, images, &near, &vec![true; near.tiles()])?;
    let of = |i: usize| inside.peaks(&near, i, 4).into_iter().chain(beyond.peaks(far, i, 3)).collect();
    Ok((0..images.images()).map(of).collect())
}

/// One grid for all images, refined where some of them need it; none for the images that reach beyond its edge. And
/// where the edge is.
fn common(
    model: &mut DeviceVae,
    parameters: &DecoderParameters,
    observed: &Observed,
    settings: &Quadrature,
) -> Result<(Vec<Option<Exact>>, f64)> {
    let mut found: Vec<Option<Exact>> = vec![None; observed.images()];
    let mut active: Vec<usize> = (0..observed.images()).collect();
    let mut grid = Grid::new(observed.latent, settings.spacing, settings.half_width);
    let mut candidates: Vec<bool> = vec![true; grid.tiles()];
    let finest = settings.finest.max(settings.spacing / COMMON);
    let mut images = observed.clone();
    let mut scan = Scan::run(model, &images, &grid, &candidates)?;
    // Only the first grid is widened: the finer ones look where it found something.
    while (0..active.len()).any(|i| scan.touches_the_border(i)) {
        if grid.half as f64 * grid.spacing > 2.0 * settings.half_width - 1e-9 {
            active.retain(|&i| !scan.touches_the_border(i));
            images = select(observed, &active);
            scan = scan.only(&active);
            break;
        }
        grid = Grid::new(observed.latent, grid.spacing, grid.half as f64 * grid.spacing + 2.0);
        candidates = vec![true; grid.tiles()];
        scan = Scan::run(model, &images, &grid, &candidates)?;
    }
    let edge = grid.half as f64 * grid.spacing;
    loop {
        let results = integrate(model, parameters, &images, &grid, &scan, settings.keep_posterior);
        let finer = Grid { spacing: grid.spacing / 2.0, half: grid.half * 2, ..grid };
        let mut open = Vec::new();
        for (i, exact) in results.into_iter().enumerate() {
            if !exact.converged(settings) {
                open.push(i);
            }
            found[active[i]] = Some(exact);
        }
        if open.is_empty() || finer.spacing < finest * (1.0 - 1e-9) {
            return Ok((found, edge));
        }
        let wanted: Vec<bool> = (0..grid.tiles()).map(|t| open.iter().any(|&i| scan.within(t, i, SEARCH))).collect();
        candidates = (0..finer.tiles()).map(|t| wanted.get(finer.parent(t)).copied().unwrap_or(false)).collect();
        active = open.into_iter().map(|i| active[i]).collect();
        grid = finer;
        images = select(observed, &active);
        scan = Scan::run(model, &images, &grid, &candidates)?;
    }
}

fn select(observed: &Observed, which: &[usize]) -> Observed {
    let take =
        |values: &[f32], width: usize| which.iter().flat_map(|&i| values[i * width..][..width].to_vec()).collect();
    let (pixels, latent) = (observed.pixels, observed.latent);
    let (mu, logvar) = (take(&observed.mu, latent), take(&observed.logvar, latent));
    Observed { pixels, latent, x: take(&observed.x, pixels), mu, logvar }
}

/// The second pass: sums in f64, tile by tile in parallel, added in the order of the tiles.
fn integrate(
    model: &DeviceVae,
    parameters: &DecoderParameters,
    observed: &Observed,
    grid: &Grid,
    scan: &Scan,
    keep: bool,
) -> Vec<Exact> {
    let (b, k) = (observed.images(), observed.latent);
    let (vae, watch) = (&model.vae, model.watch.clone());
    let reference: Vec<f64> = scan.max.iter().map(|&m| f64::from(m)).collect();
    let q = |i: usize| (&observed.mu[i * k..][..k], &observed.logvar[i * k..][..k]);
    let origin = vec![0.0; k];
    let work: Vec<(usize, Vec<usize>)> = (0..grid.tiles())
        .map(|t| (t, (0..b).filter(|&i| scan.within(t, i, REACH)).collect::<Vec<_>>()))
        .filter(|(_, images)| !images.is_empty())
        .collect();
    let done = AtomicUsize::new(0);
    let of_tile = |(tile, images): &(usize, Vec<usize>)| {
        watch.at("quadrature, sums", done.fetch_add(1, Ordering::Relaxed) + 1, work.len());
        let points = grid.points(*tile);
        let log_p = exact_log_likelihoods(vae, parameters, &points, &select(observed, images));
        let sums = images.iter().enumerate().map(|(column, &i)| {
            let (mut mass, mut about_q) = (Mass::default(), Expectation::default());
            for (row, point) in points.iter().enumerate() {
                let log_p = log_p[row * images.len() + column];
                mass.add(point, &origin, log_p, reference[i], keep);
                about_q.add(point, q(i).0, q(i).1, log_p);
            }
            (i, mass, about_q)
        });
        sums.collect::<Vec<_>>()
    };
    let parts: Vec<Vec<(usize, Mass, Expectation)>> = work.par_iter().map(of_tile).collect();
    let mut totals = vec![(Mass::default(), Expectation::default()); b];
    for (i, mass, about_q) in parts.into_iter().flatten() {
        totals[i].0.merge(mass);
        totals[i].1.merge(about_q);
    }
    let smooth = analytic(vae);
    let finish = |(i, (mass, about_q)): (usize, (Mass, Expectation))| {
        let points = mass.points;
        let posterior = mass.finish(&origin, grid.log_cell(), smooth, reference[i]);
        let (expected, elbo_error) = about_q.finish(grid.log_cell(), smooth);
        Exact {
            log_p: posterior.log_p,
            error: posterior.error,
            elbo: expected - gaussian_kl(q(i).0, q(i).1),
            elbo_error,
            mean: posterior.mean,
            covariance: posterior.covariance,
            spacing: grid.spacing,
            points,
            posterior: posterior.kept,
        }
    };
    totals.into_iter().enumerate().map(finish).collect()
}

/// log p(x|z) in f64, `[points, images]`.
fn exact_log_likelihoods(
    vae: &Vae,
    parameters: &DecoderParameters,
    points: &[GridPoint],
    observed: &Observed,
) -> Vec<f64> {
    let g = Graph::new();
    let z: Vec<f64> = points.iter().flat_map(|p| p.z.iter().copied()).collect();
    let columns: Vec<f64> = transposed(&observed.x, observed.pixels).into_iter().map(f64::from).collect();
    let z = g.tensor(&[points.len(), observed.latent], &z);
    let columns = g.tensor(&[observed.pixels, observed.images()], &columns);
    let log_p = pairwise_log_likelihood(vae, z, columns);
    let mut run = Interp::<f64>::new(&g);
    for (name, values) in parameters {
        run.set(name, values).expect("the decoder's parameters are in its graph");
    }
    run.eval(log_p)
}
