//! Sums over the points of a grid: a posterior's mass and moments, and an expectation under q.

use super::grid::GridPoint;

pub(super) const HALF_LN_2PI: f64 = 0.918_938_533_204_672_7;

/// log N(z; 0, I).
pub(super) fn log_prior(z: &[f64]) -> f64 {
    z.iter().map(|z| -0.5 * z * z - HALF_LN_2PI).sum()
}

/// KL(N(m, e^lv) ‖ N(0, 1)), summed over dimensions.
pub(super) fn gaussian_kl(mu: &[f32], logvar: &[f32]) -> f64 {
    let terms = mu.iter().zip(logvar).map(|(&m, &lv)| (f64::from(m), f64::from(lv)));
    terms.map(|(m, lv)| 0.5 * (m * m + lv.exp_m1() - lv)).sum()
}

/// Σ p(x|z) p(z) over points of one image with its moments, in units of e^reference, moments from an origin.
#[derive(Clone, Debug, Default)]
pub(super) struct Mass {
    pub points: u64,
    all: f64,
    squares: f64,
    even: f64,
    first: [f64; 2],
    second: [f64; 4],
    /// Points of the posterior with their log p(x|z) and weight.
    kept: Vec<(Vec<f64>, f64, f64)>,
}

/// What the sums say of the posterior.
pub(super) struct Posterior {
    pub log_p: f64,
    pub error: f64,
    pub mean: Vec<f64>,
    pub covariance: Vec<f64>,
    pub kept: Vec<(Vec<f64>, f64, f64)>,
}

impl Mass {
    pub fn add(&mut self, p: &GridPoint, origin: &[f64], log_p: f64, reference: f64, keep: bool) {
        let w = (log_p + log_prior(&p.z) - reference).exp();
        let k = p.z.len();
        self.points += 1;
        self.all += w;
        self.squares += w * w;
        if p.even {
            self.even += w;
        }
        for i in 0..k {
            let off = p.z[i] - origin[i];
            self.first[i] += w * off;
            (0..k).for_each(|j| self.second[i * k + j] += w * off * (p.z[j] - origin[j]));
        }
        if keep && w > 0.0 {
            self.kept.push((p.z.clone(), log_p, w));
        }
    }

    pub fn merge(&mut self, other: Mass) {
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        self.points += other.points;
        self.all += other.all;
        self.squares += other.squares;
        self.even += other.even;
        add(&mut self.first, &other.first);
        add(&mut self.second, &other.second);
        self.kept.extend(other.kept);
    }

    /// `log_cell` is the logarithm of the volume of a cell. A sum that a few points carry says nothing of the mass between
    /// them, whatever the coarser grid says: of a Gaussian with a spacing of s standard deviations, (Σw)²/Σw² is (2√π/s)^K.
    /// Below 3^K the error is infinite: then s > 1.18 in all directions together, or two points alone carry the sum.
    pub fn finish(mut self, origin: &[f64], log_cell: f64, smooth: bool, reference: f64) -> Posterior {
        let k = origin.len();
        let log_p = reference + self.all.ln() + log_cell;
        let coarse = reference + self.even.ln() + log_cell + k as f64 * 2f64.ln();
        let resolved = self.all * self.all / self.squares >= 3f64.powi(k as i32);
        let off: Vec<f64> = (0..k).map(|i| self.first[i] / self.all).collect();
        let mut sum = 0.0;
        for point in &mut self.kept {
            sum += point.2 / self.all;
            point.2 = sum;
        }
        Posterior {
            log_p,
            error: if resolved { error(log_p - coarse, smooth) } else { f64::INFINITY },
            mean: off.iter().zip(origin).map(|(off, origin)| off + origin).collect(),
            covariance: (0..k * k).map(|ij| self.second[ij] / self.all - off[ij / k] * off[ij % k]).collect(),
            kept: self.kept,
        }
    }
}

/// Σ q(z|x) and Σ q(z|x) log p(x|z), over all points and over every second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expectation {
    q: [f64; 2],
    q_log_p: [f64; 2],
}

impl Expectation {
    pub fn add(&mut self, p: &GridPoint, mu: &[f32], logvar: &[f32], log_p: f64) {
        let q = log_normal(&p.z, mu, logvar).exp();
        for level in 0..=usize::from(p.even) {
            self.q[level] += q;
            self.q_log_p[level] += if q > 0.0 { q * log_p } else { 0.0 };
        }
    }

    pub fn merge(&mut self, other: Expectation) {
        for level in 0..2 {
            self.q[level] += other.q[level];
            self.q_log_p[level] += other.q_log_p[level];
        }
    }

    /// E_q log p(x|z), and an estimate of its error. The rule applied to q itself must give 1.
    pub fn finish(self, log_cell: f64, smooth: bool) -> (f64, f64) {
        let [fine, coarse] = [0, 1].map(|level| self.q_log_p[level] / self.q[level]);
        let whole = (self.q[0].ln() + log_cell).abs();
        (fine, error(fine - coarse, smooth).max(whole))
    }
}

/// log N(z; μ, diag e^lv).
fn log_normal(z: &[f64], mu: &[f32], logvar: &[f32]) -> f64 {
    let terms = z.iter().zip(mu.iter().zip(logvar)).map(|(z, (&mu, &lv))| {
        let (mu, lv) = (f64::from(mu), f64::from(lv));
        -0.5 * ((z - mu).powi(2) * (-lv).exp() + lv) - HALF_LN_2PI
    });
    terms.sum()
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
