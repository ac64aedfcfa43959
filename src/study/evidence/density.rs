//! log p(x|z) of one image in f64 by the reference interpreter, and the way uphill.
//!
//! ```text
//! f(z) = log p(x|z) + log p(z)        z ← z + Σ_j v_j (v_j·∇f)/(|λ_j| + τ max|λ|)      λ_j, v_j of −∇²f
//! ```
//!
//! Newton's method with the absolute eigenvalues of the curvature, so that it climbs where f is not concave, and with τ raised
//! until a step does climb (Levenberg 1944). Gradient and curvature are the graph's own, of first and second order.

use crate::engine::grad::grad;
use crate::engine::graph::{Graph, Var};
use crate::engine::interp::Interp;
use crate::vae::Vae;

/// The decoder's parameters, in f64.
pub(super) type DecoderParameters = [(String, Vec<f64>)];

/// Points at a time.
const ROWS: usize = 64;
/// Where the ascent ends: no step is expected to gain this many nats.
const GAIN: f64 = 1e-6;
const STEPS: usize = 80;

/// An image's decoder graphs, one for values and one for derivatives.
pub(super) struct Density<'g> {
    latent: usize,
    values: Interp<'g, f64>,
    points: Var<'g>,
    log_p: Var<'g>,
    slopes: Interp<'g, f64>,
    z: Var<'g>,
    /// f `[seeds, 1]`, ∇f `[seeds, K]` and the rows of ∇²f.
    derivatives: Vec<Var<'g>>,
    seeds: usize,
}

/// A place that the ascent ended at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mode {
    pub z: Vec<f64>,
    /// log p(x, z).
    pub joint: f64,
    /// Directions of the curvature, unit vectors.
    pub axes: Vec<Vec<f64>>,
    /// How far along each f falls as a Gaussian's does in one standard deviation.
    pub widths: Vec<f64>,
}

impl Mode {
    /// Laplace's approximation of log ∫ p(x, z) dz around it.
    pub fn log_mass(&self) -> f64 {
        self.joint + self.log_volume() + self.z.len() as f64 * super::sums::HALF_LN_2PI
    }

    /// ln of the product of the widths.
    pub fn log_volume(&self) -> f64 {
        self.widths.iter().map(|w| w.ln()).sum()
    }
}

/// The graphs of [`Density`], which borrows them.
#[derive(Default)]
pub(super) struct Graphs {
    values: Graph,
    slopes: Graph,
}

impl<'g> Density<'g> {
    /// Of the image `x`, `[D]`, with an ascent from `seeds` places at once.
    pub fn new(graphs: &'g Graphs, vae: &Vae, parameters: &DecoderParameters, x: &[f32], seeds: usize) -> Density<'g> {
        let latent = vae.config.latent;
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let g = &graphs.values;
        let points = g.input(&[ROWS, latent]);
        let log_p = vae.log_likelihood(g.tensor(&[1, x.len()], &x), points);
        let g = &graphs.slopes;
        let z = g.input(&[seeds, latent]);
        let joint = vae.log_likelihood(g.tensor(&[1, x.len()], &x), z) + vae.log_prior(&[z]);
        let slope = grad(joint.sum_all(), &[z])[0];
        let bends = (0..latent).map(|k| grad(slope.slice_cols(k, 1).sum_all(), &[z])[0]);
        let derivatives: Vec<Var> = [joint, slope].into_iter().chain(bends).collect();
        let with_parameters = |graph: &'g Graph| {
            let mut run = Interp::<f64>::new(graph);
            for (name, values) in parameters {
                run.set(name, values).expect("the decoder's parameters are in its graph");
            }
            run
        };
        let (values, slopes) = (with_parameters(&graphs.values), with_parameters(&graphs.slopes));
        Density { latent, values, points, log_p, slopes, z, derivatives, seeds }
    }

    /// log p(x|z) of any number of points.
    pub fn log_likelihoods<'p>(&mut self, points: impl IntoIterator<Item = &'p [f64]>) -> Vec<f64> {
        let all: Vec<f64> = points.into_iter().flatten().copied().collect();
        let mut found = Vec::with_capacity(all.len() / self.latent);
        for block in all.chunks(ROWS * self.latent) {
            let mut z = block.to_vec();
            z.resize(ROWS * self.latent, 0.0);
            self.values.set_input(self.points, &z);
            found.extend(&self.values.eval(self.log_p)[..block.len() / self.latent]);
        }
        found
    }

    /// The modes that are reached from the seeds, highest first; those that end nowhere finite are left out.
    pub fn climb(&mut self, mut seeds: Vec<Vec<f64>>) -> Vec<Mode> {
        assert!(!seeds.is_empty() && seeds.len() <= self.seeds, "room for {} seeds", self.seeds);
        let given = seeds.len();
        seeds.resize(self.seeds, seeds[0].clone());
        let mut climbers: Vec<Climber> = self.slopes(&seeds).into_iter().map(Climber::new).collect();
        for _ in 0..STEPS {
            if climbers.iter().all(|c| c.arrived) {
                break;
            }
            let next: Vec<Vec<f64>> = climbers.iter().map(Climber::target).collect();
            let there = self.slopes(&next);
            climbers.iter_mut().zip(there).for_each(|(climber, there)| climber.judge(there));
        }
        let places = climbers.into_iter().take(given).filter(|c| c.at.joint.is_finite());
        let places: Vec<Slope> = places.map(|c| c.at).collect();
        let mut modes: Vec<Mode> = places.into_iter().filter_map(|at| self.mode(at)).collect();
        modes.sort_by(|a, b| b.joint.total_cmp(&a.joint));
        modes
    }

    fn slopes(&mut self, z: &[Vec<f64>]) -> Vec<Slope> {
        self.slopes.set_input(self.z, &z.concat());
        let all: Vec<Vec<f64>> = self.derivatives.iter().map(|&v| self.slopes.eval(v)).collect();
        let k = self.latent;
        let of_row = |(row, z): (usize, &Vec<f64>)| Slope {
            z: z.clone(),
            joint: all[0][row],
            slope: all[1][row * k..][..k].to_vec(),
            bend: all[2..].iter().flat_map(|bend| bend[row * k..][..k].iter().map(|b| -b)).collect(),
        };
        z.iter().enumerate().map(of_row).collect()
    }

    /// Measures how wide a mode is: along each direction of the curvature, by the first of a ladder of steps at which f has
    /// fallen by half a nat. That needs no derivative, and so holds at a kink too.
    fn mode(&mut self, at: Slope) -> Option<Mode> {
        let pairs = eigen(&at.bend);
        let mut steps = Vec::new();
        for (curvature, axis) in &pairs {
            let unit = if *curvature > 0.0 && curvature.is_finite() { curvature.sqrt().recip() } else { 1.0 };
            steps.push((-24..=12).map(|e| unit * 2f64.powi(e)).collect::<Vec<f64>>());
            assert_eq!(axis.len(), at.z.len());
        }
        let along = |axis: &[f64], t: f64| -> Vec<f64> { at.z.iter().zip(axis).map(|(z, a)| z + t * a).collect() };
        let mut points = Vec::new();
        for ((_, axis), steps) in pairs.iter().zip(&steps) {
            for sign in [1.0, -1.0] {
                points.extend(steps.iter().map(|t| along(axis, sign * t)));
            }
        }
        let log_p = self.log_likelihoods(points.iter().map(Vec::as_slice));
        let fall: Vec<f64> =
            points.iter().zip(log_p).map(|(z, log_p)| at.joint - log_p - super::sums::log_prior(z)).collect();
        let mut falls = fall.chunks_exact(steps[0].len());
        let mut widths = Vec::new();
        for steps in &steps {
            let mut side = || {
                let fall = falls.next().expect("two sides of every axis");
                let (t, fall) = steps.iter().zip(fall).find(|(_, fall)| **fall >= 0.5)?;
                Some((t * (0.5 / fall).sqrt()).max(0.5 * t))
            };
            let (one, other) = (side(), side());
            widths.push(0.5 * (one? + other?));
        }
        Some(Mode { joint: at.joint, axes: pairs.into_iter().map(|p| p.1).collect(), widths, z: at.z })
    }
}

/// f with its derivatives at a place.
struct Slope {
    z: Vec<f64>,
    joint: f64,
    slope: Vec<f64>,
    /// −∇²f, `[K, K]`.
    bend: Vec<f64>,
}

impl Slope {
    fn is_finite(&self) -> bool {
        self.joint.is_finite() && self.slope.iter().chain(&self.bend).all(|v| v.is_finite())
    }
}

/// One ascent.
struct Climber {
    at: Slope,
    /// τ.
    caution: f64,
    arrived: bool,
}

impl Climber {
    fn new(at: Slope) -> Climber {
        Climber { arrived: !at.is_finite(), at, caution: 1e-3 }
    }

    fn step(&self) -> Vec<f64> {
        let pairs = eigen(&self.at.bend);
        let largest = pairs.iter().map(|p| p.0.abs()).fold(f64::MIN_POSITIVE, f64::max);
        let mut step = vec![0.0; self.at.z.len()];
        for (curvature, axis) in &pairs {
            let uphill: f64 = axis.iter().zip(&self.at.slope).map(|(a, s)| a * s).sum();
            let length = uphill / (curvature.abs() + self.caution * largest);
            step.iter_mut().zip(axis).for_each(|(s, a)| *s += length * a);
        }
        step
    }

    fn target(&self) -> Vec<f64> {
        if self.arrived {
            return self.at.z.clone();
        }
        self.at.z.iter().zip(self.step()).map(|(z, s)| z + s).collect()
    }

    /// Goes there if that is higher, else will try a shorter step.
    fn judge(&mut self, there: Slope) {
        if self.arrived {
            return;
        }
        let expected: f64 = self.step().iter().zip(&self.at.slope).map(|(s, g)| s * g).sum();
        if there.is_finite() && there.joint >= self.at.joint {
            self.arrived = expected < GAIN && self.caution < 1.0;
            self.at = there;
            self.caution = (self.caution * 0.1).max(1e-12);
        } else {
            self.arrived = expected < GAIN;
            self.caution *= 10.0;
        }
    }
}

/// Eigenvalues and unit eigenvectors of a symmetric matrix of one or two rows.
fn eigen(a: &[f64]) -> Vec<(f64, Vec<f64>)> {
    if a.len() == 1 {
        return vec![(a[0], vec![1.0])];
    }
    // The rotation that makes the matrix diagonal (Jacobi 1846).
    let angle = 0.5 * (2.0 * a[1]).atan2(a[0] - a[3]);
    let (s, c) = angle.sin_cos();
    let first = c * c * a[0] + 2.0 * s * c * a[1] + s * s * a[3];
    let second = s * s * a[0] - 2.0 * s * c * a[1] + c * c * a[3];
    vec![(first, vec![c, s]), (second, vec![-s, c])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_make_a_matrix_diagonal() {
        for a in [[2.0, 0.0, 0.0, 5.0], [1.0, 3.0, 3.0, -2.0], [4.0, -1.5, -1.5, 4.0], [1e9, 1e3, 1e3, 1.0]] {
            for (value, v) in eigen(&a) {
                let image = [a[0] * v[0] + a[1] * v[1], a[2] * v[0] + a[3] * v[1]];
                let off = (image[0] - value * v[0]).hypot(image[1] - value * v[1]);
                assert!(off < 1e-12 * (a[0].abs() + a[3].abs()), "{a:?}: {value} {v:?}");
                assert!((v[0].hypot(v[1]) - 1.0).abs() < 1e-12);
            }
        }
    }
}
