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
//! From the same sums come the exact posterior's mean and covariance, and E_q log p(x|z), hence the exact ELBO and its gap
//! KL(q ‖ p(z|x)).

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::Estimate;
use super::grid::{Grid, GridPoint};
use super::importance::transposed;
use super::observed::Observed;
use super::pairwise::pairwise_log_likelihood;
use super::scan::Scan;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::interp::Interp;
use crate::nn::Activation;
use crate::rng::Draw;
use crate::vae::{Model, Vae, VaeConfig};

/// A point this many nats below an image's largest does not count: e⁻⁴⁰ = 4e-18.
const REACH: f64 = 40.0;
/// Tiles with points this close are looked at on the next finer grid.
const SEARCH: f64 = 60.0;
/// Images at a time.
const CHUNK: usize = 1000;
const HALF_LN_2PI: f64 = 0.918_938_533_204_672_7;

/// The grid, and when it is fine enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quadrature {
    /// h at the start.
    pub spacing: f64,
    /// No grid is finer than this.
    pub finest: f64,
    /// The grid covers [−half_width, half_width] on every axis, and more where the mass of an image reaches to its edge, up
    /// to twice as much.
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
        Quadrature { spacing: 0.1, finest: 0.0125, half_width: 6.0, tolerance: 1e-6, keep_posterior: false }
    }
}

/// What quadrature says about one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Exact {
    /// log p(x), in nats.
    pub log_p: f64,
    /// Estimate of its error: the square of the difference to the grid of every second point, or for a decoder with kinks
    /// the difference.
    pub error: f64,
    /// ELBO(x), with E_q log p(x|z) over the same grid.
    pub elbo: f64,
    /// Estimate of its error.
    pub elbo_error: f64,
    /// E[z|x], `[K]`.
    pub mean: Vec<f64>,
    /// Cov[z|x], `[K, K]`.
    pub covariance: Vec<f64>,
    /// h at the end.
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
        let noise = [0, 1].map(|stream| Draw { seed, step: which, stream: POSTERIOR_STREAM + stream });
        let uniform = |i: u64| {
            // 48 bits: one f32 would not reach into the tails.
            f64::from(noise[0].uniform(i)) + f64::from(noise[1].uniform(i)) / f64::from(1u32 << 24)
        };
        let last = self.posterior.len() - 1;
        (0..draws as u64).map(|i| self.posterior.partition_point(|p| p.2 <= uniform(i)).min(last)).collect()
    }
}

/// Draws from the posterior's points.
const POSTERIOR_STREAM: u32 = 40;

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
pub fn quadrature(model: &mut Model, observed: &Observed, settings: &Quadrature) -> Result<Vec<Exact>> {
    check_quadrature(&model.vae.config)?;
    let parameters = parameters(model)?;
    let mut all = Vec::with_capacity(observed.images());
    for first in (0..observed.images()).step_by(CHUNK) {
        let part = observed.part(first..observed.images().min(first + CHUNK));
        all.extend(chunk(model, &parameters, &part, settings)?);
    }
    Ok(all)
}

/// All parameters, in f64.
fn parameters(model: &Model) -> Result<Vec<(String, Vec<f64>)>> {
    let names = model.vae.parameters().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("decoder"));
    names.map(|name| Ok((name.clone(), model.exec.read(&name)?.into_iter().map(f64::from).collect()))).collect()
}

fn chunk(
    model: &mut Model,
    parameters: &[(String, Vec<f64>)],
    observed: &Observed,
    settings: &Quadrature,
) -> Result<Vec<Exact>> {
    let mut found: Vec<Option<Exact>> = vec![None; observed.images()];
    let mut active: Vec<usize> = (0..observed.images()).collect();
    let mut grid = Grid::new(observed.latent, settings.spacing, settings.half_width);
    let mut candidates: Vec<bool> = vec![true; grid.tiles()];
    loop {
        let images = select(observed, &active);
        let mut scan = Scan::run(model, &images, &grid, &candidates)?;
        while scan.touches_the_border() && grid.half as f64 * grid.spacing < 2.0 * settings.half_width - 1e-9 {
            // Only the first grid is widened: the finer ones look where it found something.
            grid = Grid::new(observed.latent, grid.spacing, grid.half as f64 * grid.spacing + 2.0);
            candidates = vec![true; grid.tiles()];
            scan = Scan::run(model, &images, &grid, &candidates)?;
        }
        let results = integrate(model, parameters, &images, &grid, &scan, settings.keep_posterior);
        let finer = Grid { spacing: grid.spacing / 2.0, half: grid.half * 2, ..grid };
        let mut open = Vec::new();
        for (i, exact) in results.into_iter().enumerate() {
            if !exact.converged(settings) {
                open.push(i);
            }
            found[active[i]] = Some(exact);
        }
        if open.is_empty() || finer.spacing < settings.finest * (1.0 - 1e-9) {
            return Ok(found.into_iter().map(|e| e.expect("every image was in the first pass")).collect());
        }
        let wanted: Vec<bool> = (0..grid.tiles()).map(|t| open.iter().any(|&i| scan.within(t, i, SEARCH))).collect();
        candidates = (0..finer.tiles()).map(|t| wanted.get(finer.parent(t)).copied().unwrap_or(false)).collect();
        active = open.into_iter().map(|i| active[i]).collect();
        grid = finer;
    }
}

fn select(observed: &Observed, which: &[usize]) -> Observed {
    let take =
        |values: &[f32], width: usize| which.iter().flat_map(|&i| values[i * width..][..width].to_vec()).collect();
    let (pixels, latent) = (observed.pixels, observed.latent);
    let (mu, logvar) = (take(&observed.mu, latent), take(&observed.logvar, latent));
    Observed { pixels, latent, x: take(&observed.x, pixels), mu, logvar }
}

/// log N(z; 0, I).
pub(super) fn log_prior(z: &[f64]) -> f64 {
    z.iter().map(|z| -0.5 * z * z - HALF_LN_2PI).sum()
}

/// Sums over points of one image, in units of e^reference.
#[derive(Clone, Debug, Default)]
struct Sums {
    points: u64,
    all: f64,
    even: f64,
    first: [f64; 2],
    second: [f64; 4],
    /// Of q, and of q·log p(x|z), over all points and over every second.
    q: [f64; 2],
    q_log_p: [f64; 2],
    kept: Vec<(Vec<f64>, f64, f64)>,
}

impl Sums {
    fn add(&mut self, p: &GridPoint, log_p: f64, reference: f64, q: impl Fn(&[f64]) -> f64, keep: bool) {
        let w = (log_p + log_prior(&p.z) - reference).exp();
        let k = p.z.len();
        let q = q(&p.z).exp();
        self.points += 1;
        self.all += w;
        self.q[0] += q;
        self.q_log_p[0] += if q > 0.0 { q * log_p } else { 0.0 };
        if p.even {
            self.even += w;
            self.q[1] += q;
            self.q_log_p[1] += if q > 0.0 { q * log_p } else { 0.0 };
        }
        for i in 0..k {
            self.first[i] += w * p.z[i];
            (0..k).for_each(|j| self.second[i * k + j] += w * p.z[i] * p.z[j]);
        }
        if keep && w > 0.0 {
            self.kept.push((p.z.clone(), log_p, w));
        }
    }

    fn merge(&mut self, other: Sums) {
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        self.points += other.points;
        self.all += other.all;
        self.even += other.even;
        add(&mut self.first, &other.first);
        add(&mut self.second, &other.second);
        add(&mut self.q, &other.q);
        add(&mut self.q_log_p, &other.q_log_p);
        self.kept.extend(other.kept);
    }

    fn finish(mut self, grid: &Grid, smooth: bool, reference: f64, mu: &[f32], logvar: &[f32]) -> Exact {
        let k = grid.dimensions;
        let cell = grid.log_cell();
        let log_p = reference + self.all.ln() + cell;
        let coarse = reference + self.even.ln() + cell + k as f64 * 2f64.ln();
        let kl: f64 = mu.iter().zip(logvar).map(|(&m, &lv)| (f64::from(m), f64::from(lv))).map(gaussian_kl).sum();
        let elbo = self.q_log_p[0] / self.q[0] - kl;
        let coarse_elbo = self.q_log_p[1] / self.q[1] - kl;
        // The rule applied to q itself must give 1.
        let whole = (self.q[0].ln() + cell).abs();
        let mean: Vec<f64> = (0..k).map(|i| self.first[i] / self.all).collect();
        let covariance = (0..k * k).map(|ij| self.second[ij] / self.all - mean[ij / k] * mean[ij % k]).collect();
        let mut sum = 0.0;
        for point in &mut self.kept {
            sum += point.2 / self.all;
            point.2 = sum;
        }
        Exact {
            log_p,
            error: error(log_p - coarse, smooth),
            elbo,
            elbo_error: error(elbo - coarse_elbo, smooth).max(whole),
            mean,
            covariance,
            spacing: grid.spacing,
            points: self.points,
            posterior: self.kept,
        }
    }
}

/// What a difference d of the two grids says about the finer one: d² where halving the spacing squares the error, unless d
/// is so large that this would say less; d otherwise. NaN counts as infinite.
fn error(d: f64, smooth: bool) -> f64 {
    match d.abs() {
        d if d.is_nan() => f64::INFINITY,
        d if smooth && d < 1.0 => d * d,
        d => d,
    }
}

/// KL(N(m, e^lv) ‖ N(0, 1)).
fn gaussian_kl((m, lv): (f64, f64)) -> f64 {
    0.5 * (m * m + lv.exp_m1() - lv)
}

/// The second pass: sums in f64, tile by tile in parallel, added in the order of the tiles.
fn integrate(
    model: &Model,
    parameters: &[(String, Vec<f64>)],
    observed: &Observed,
    grid: &Grid,
    scan: &Scan,
    keep: bool,
) -> Vec<Exact> {
    let (b, k) = (observed.images(), observed.latent);
    let (vae, watch) = (&model.vae, model.watch.clone());
    let reference: Vec<f64> = scan.max.iter().map(|&m| f64::from(m)).collect();
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
            let (mu, logvar) = (&observed.mu[i * k..][..k], &observed.logvar[i * k..][..k]);
            let q = |z: &[f64]| log_normal(z, mu, logvar);
            let mut sums = Sums::default();
            for (row, point) in points.iter().enumerate() {
                sums.add(point, log_p[row * images.len() + column], reference[i], q, keep);
            }
            (i, sums)
        });
        sums.collect::<Vec<_>>()
    };
    let parts: Vec<Vec<(usize, Sums)>> = work.par_iter().map(of_tile).collect();
    let mut totals = vec![Sums::default(); b];
    parts.into_iter().flatten().for_each(|(i, sums)| totals[i].merge(sums));
    let smooth = analytic(vae);
    let finish = |(i, sums): (usize, Sums)| {
        sums.finish(grid, smooth, reference[i], &observed.mu[i * k..][..k], &observed.logvar[i * k..][..k])
    };
    totals.into_iter().enumerate().map(finish).collect()
}

/// log N(z; μ, diag e^lv).
fn log_normal(z: &[f64], mu: &[f32], logvar: &[f32]) -> f64 {
    let terms = z.iter().zip(mu.iter().zip(logvar)).map(|(z, (&mu, &lv))| {
        let (mu, lv) = (f64::from(mu), f64::from(lv));
        -0.5 * ((z - mu).powi(2) * (-lv).exp() + lv) - HALF_LN_2PI
    });
    terms.sum()
}

/// log p(x|z) in f64, `[points, images]`.
fn exact_log_likelihoods(
    vae: &Vae,
    parameters: &[(String, Vec<f64>)],
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
