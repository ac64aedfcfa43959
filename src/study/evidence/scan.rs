//! The first pass of quadrature: where on a grid each image has its mass, in f32 on the model's executor.

use super::grid::{Grid, GridPoint};
use super::importance::transposed;
use super::observed::Observed;
use super::pairwise::{pairwise_log_likelihood, points_per_step};
use super::quadrature::EDGE;
use super::sums::log_prior;
use crate::engine::device::{Call, Key};
use crate::engine::error::Result;
use crate::engine::graph::Graph;
use crate::vae::DeviceVae;

/// Squared standard deviations of q that are looked at: e^(−60/2) = 1e-13.
pub(super) const Q_REACH: f64 = 60.0;

/// For each tile and image the largest log p(x, z), in f32.
pub(super) struct Scan {
    images: usize,
    /// `[tiles, images]`; −∞ where nobody looked.
    tile: Vec<f32>,
    /// Which of the tile's points has it.
    at: Vec<u8>,
    /// `[images]`.
    pub max: Vec<f32>,
    /// On the outermost line, `[images]`.
    border: Vec<f32>,
    /// Whether a tile is close to the image's q, `[tiles, images]`.
    near_q: Vec<bool>,
}

impl Scan {
    pub fn run(model: &mut DeviceVae, observed: &Observed, grid: &Grid, candidates: &[bool]) -> Result<Scan> {
        let b = observed.images();
        let size = points_per_step(model.vae.config.likelihood, b, model.executor.rows_per_step());
        let nothing = vec![f32::NEG_INFINITY; b];
        let mut scan = Scan {
            images: b,
            tile: vec![f32::NEG_INFINITY; b * grid.tiles()],
            at: vec![0; b * grid.tiles()],
            near_q: vec![false; b * grid.tiles()],
            border: nothing.clone(),
            max: nothing,
        };
        let g = Graph::new();
        let z = g.input(&[size, model.vae.config.latent]);
        let columns = g.input(&[observed.pixels, b]);
        let mut density = model.executor.compile(&g, [pairwise_log_likelihood(&model.vae, z, columns)])?;
        density.write(1, &transposed(&observed.x, observed.pixels))?;
        let tiles = (0..grid.tiles()).filter(|&t| candidates[t]);
        let points: Vec<(usize, u8, GridPoint)> =
            tiles.flat_map(|t| (0..).zip(grid.points(t)).map(move |(n, p)| (t, n, p))).collect();
        for (number, block) in points.chunks(size).enumerate() {
            model.watch.at("quadrature, where the mass is", number + 1, points.len().div_ceil(size));
            let mut z: Vec<f32> = block.iter().flat_map(|(_, _, p)| p.z.iter().map(|&z| z as f32)).collect();
            z.resize(size * grid.dimensions, 0.0);
            density.write(0, &z)?;
            density.run(&mut model.state, &Call::once(Key::new(0)))?;
            for ((t, n, p), row) in block.iter().zip(density.read(0)?.chunks_exact(b)) {
                scan.add(*t, *n, p, row);
            }
        }
        for (t, _) in candidates.iter().enumerate().filter(|(_, c)| **c) {
            scan.compare_with_q(t, &grid.points(t), observed);
        }
        Ok(scan)
    }

    fn add(&mut self, tile: usize, number: u8, point: &GridPoint, log_likelihoods: &[f32]) {
        let prior = log_prior(&point.z) as f32;
        for (i, log_p) in log_likelihoods.iter().enumerate() {
            let joint = log_p + prior;
            let at = tile * self.images + i;
            if joint > self.tile[at] {
                (self.tile[at], self.at[at]) = (joint, number);
            }
            self.max[i] = self.max[i].max(joint);
            if point.border {
                self.border[i] = self.border[i].max(joint);
            }
        }
    }

    /// A tile is near if a point of it, or the nearest place between its outermost points, is.
    fn compare_with_q(&mut self, tile: usize, points: &[GridPoint], observed: &Observed) {
        let (first, last) = (&points[0].z, &points[points.len() - 1].z);
        for i in 0..self.images {
            let distance: f64 = (0..observed.latent)
                .map(|k| {
                    let mu = f64::from(observed.mu[i * observed.latent + k]);
                    let sigma = (0.5 * f64::from(observed.logvar[i * observed.latent + k])).exp();
                    ((first[k] - mu).max(mu - last[k]).max(0.0) / sigma).powi(2)
                })
                .sum();
            self.near_q[tile * self.images + i] = distance < Q_REACH;
        }
    }

    /// Whether an image has a notable part of its mass where the grid ends.
    pub fn touches_the_border(&self, image: usize) -> bool {
        f64::from(self.border[image]) > f64::from(self.max[image]) - EDGE
    }

    /// What is known of some of the images.
    pub fn only(&self, images: &[usize]) -> Scan {
        let tiles = 0..self.tile.len() / self.images.max(1);
        let places: Vec<usize> = tiles.flat_map(|t| images.iter().map(move |i| t * self.images + i)).collect();
        Scan {
            images: images.len(),
            tile: places.iter().map(|&p| self.tile[p]).collect(),
            at: places.iter().map(|&p| self.at[p]).collect(),
            near_q: places.iter().map(|&p| self.near_q[p]).collect(),
            max: images.iter().map(|&i| self.max[i]).collect(),
            border: images.iter().map(|&i| self.border[i]).collect(),
        }
    }

    /// The highest points of an image, each higher than what the tiles around its own have; at most `count`, highest first.
    pub fn peaks(&self, grid: &Grid, image: usize, count: usize) -> Vec<Vec<f64>> {
        let value = |t: usize| self.tile[t * self.images + image];
        let tops = (0..grid.tiles()).filter(|&t| value(t).is_finite());
        let mut tops: Vec<usize> =
            tops.filter(|&t| grid.neighbours(t).into_iter().all(|n| value(n) <= value(t))).collect();
        tops.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
        let point = |t: usize| grid.points(t).swap_remove(usize::from(self.at[t * self.images + image])).z;
        tops.into_iter().take(count).map(point).collect()
    }

    /// The highest log p(x, z) of an image that a tile has at a point more than `half_width` from the origin along some
    /// axis; −∞ if none has.
    pub fn highest_beyond(&self, grid: &Grid, image: usize, half_width: f64) -> f64 {
        let outside = |t: usize| {
            let at = t * self.images + image;
            let z = grid.points(t).swap_remove(usize::from(self.at[at])).z;
            z.iter().any(|z| z.abs() > half_width).then(|| f64::from(self.tile[at]))
        };
        (0..grid.tiles()).filter_map(outside).fold(f64::NEG_INFINITY, f64::max)
    }

    pub fn within(&self, tile: usize, image: usize, nats: f64) -> bool {
        let at = tile * self.images + image;
        self.near_q[at] || f64::from(self.tile[at]) >= f64::from(self.max[image]) - nats
    }
}
