//! The pictures of a run.

use crate::cli::picture::{Picture, manifold, montage, pairs, scatter};
use crate::cli::plural;
use crate::data::Dataset;
use crate::engine::error::{Error, Result};
use crate::train::Run;
use crate::vae::{DeviceVae, VaeConfig};

/// Images per row of a sheet.
const COLUMNS: usize = 10;
/// Test images beside their reconstructions, unless another number is asked for or there are fewer.
pub const PAIRS: usize = 50;
/// How much a pixel is enlarged.
const ZOOM: usize = 2;
/// Points per side of the decoded plane.
const GRID: usize = 20;

/// More images on one sheet than anyone looks at, and less than memory holds.
const MOST: usize = 10_000;

/// Checks the number of images that a sheet is asked for.
///
/// # Errors
/// [`Error::Argument`] with the number and what it may be.
pub fn check_count(count: usize) -> Result<()> {
    match count {
        1..=MOST => Ok(()),
        _ => Err(Error::argument("count", count, format!("a number of images from 1 to {MOST}"))),
    }
}

/// Values in [0, 1] as bytes; what a Gaussian mean has outside is cut off.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect()
}

/// What is shown of p(x|z).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// E[x|z], called f_μ(z).
    Mean,
    /// x ~ p(x|z).
    Thrown,
}

impl Shown {
    /// By the flag `--draw`.
    pub fn by(draw: bool) -> Shown {
        if draw { Shown::Thrown } else { Shown::Mean }
    }

    /// In results for programs.
    pub fn name(self) -> &'static str {
        match self {
            Shown::Mean => "mean",
            Shown::Thrown => "thrown",
        }
    }

    /// `64 means f_μ(z)`, `1 thrown image x ~ p(x|z)`.
    fn describe(self, count: usize) -> String {
        match self {
            Shown::Mean => format!("{} f_μ(z)", plural(count, "mean")),
            Shown::Thrown => format!("{} x ~ p(x|z)", plural(count, "thrown image")),
        }
    }
}

/// `count` new images: means, or thrown from the same z.
pub fn samples(model: &mut DeviceVae, count: usize, seed: u64, shown: Shown) -> Result<Picture> {
    let [height, width] = model.vae.config.image;
    let images = match shown {
        Shown::Mean => model.sample(count, seed)?,
        Shown::Thrown => {
            let z = model.prior_points(count, seed)?;
            model.throw(&z, seed)?
        }
    };
    let prior = if model.vae.upper.is_empty() { "N(0, I)" } else { "p(z)" };
    // A square, or nearly.
    let columns = count.isqrt() + usize::from(count.isqrt().pow(2) < count);
    let picture = montage(&bytes(&images), width, height, columns, ZOOM);
    Ok(picture.showing(format!("{}, z ~ {prior}", shown.describe(count))))
}

/// The first `count` images of a data slot, and below each what the model makes of it: the mean, or an image thrown from the
/// same z.
pub fn reconstructions(model: &mut DeviceVae, slot: &str, count: usize, seed: u64, shown: Shown) -> Result<Picture> {
    let [height, width] = model.vae.config.image;
    let (originals, rebuilt) = match shown {
        Shown::Mean => model.reconstruct(slot, count, seed)?,
        Shown::Thrown => {
            let (originals, z) = model.posterior_points(slot, count, seed)?;
            (originals, model.throw(&z, seed)?)
        }
    };
    let pixels = model.vae.config.binarisation;
    let picture = pairs(&bytes(&originals), &bytes(&rebuilt), width, height, COLUMNS.min(count), ZOOM);
    let images = plural(count, "test image");
    Ok(picture.showing(format!("{images} ({pixels}), below each {}, z ~ q(z|x)", below(shown))))
}

fn below(shown: Shown) -> &'static str {
    match shown {
        Shown::Mean => "the mean f_μ(z)",
        Shown::Thrown => "a thrown image x ~ p(x|z)",
    }
}

/// The plane of z, decoded at the normal distribution's quantiles: equal areas of the picture are equally probable under
/// the prior. z₁ grows to the right, z₂ upwards.
pub fn plane(model: &mut DeviceVae) -> Result<Picture> {
    let [height, width] = model.vae.config.image;
    let at = |i: usize| normal_quantile((i as f64 + 0.5) / GRID as f64) as f32;
    let points = (0..GRID).rev().flat_map(|row| (0..GRID).flat_map(move |column| [at(column), at(row)]));
    let images = model.decode(&points.collect::<Vec<f32>>())?;
    let picture = manifold(&bytes(&images), width, height, GRID, 1);
    Ok(picture.showing(format!("means f_μ(z) at {GRID} × {GRID} quantiles of N(0, I), z1 to the right, z2 upwards")))
}

/// Where the encoder puts the images of a data slot, μ(x), coloured by class where there are labels.
fn encoded(model: &mut DeviceVae, slot: &str, data: &Dataset, seed: u64) -> Result<Picture> {
    let points: Vec<[f32; 2]> = model.encode(slot, seed)?.mu.chunks_exact(2).map(|p| [p[0], p[1]]).collect();
    let count = plural(points.len(), "test image");
    Ok(scatter(&points, data.labels.as_deref()).showing(format!("the mean of q(z|x) of {count}")))
}

/// The pictures of a run.
pub fn names(config: &VaeConfig) -> Vec<&'static str> {
    let mut names = vec!["samples.png", "reconstructions.png"];
    if config.latent == 2 {
        names.extend(["manifold.png", "scatter.png"]);
    }
    names
}

/// Draws all pictures of a run, and returns their names.
pub fn write_all(model: &mut DeviceVae, test: &Dataset, seed: u64, run: &Run) -> Result<Vec<&'static str>> {
    let names = names(&model.vae.config);
    run.write(names[0], &samples(model, 100, seed, Shown::Mean)?.png())?;
    run.write(names[1], &reconstructions(model, "test", PAIRS.min(test.rows), seed, Shown::Mean)?.png())?;
    if model.vae.config.latent == 2 {
        run.write("manifold.png", &plane(model)?.png())?;
        run.write("scatter.png", &encoded(model, "test", test, seed)?.png())?;
    }
    Ok(names)
}

/// The z with P(Z ≤ z) = p for a standard normal Z and 0 < p < 1, by bisection of Φ: slow and plainly right.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Φ(z) = ½ + φ(z)·(z + z³/3 + z⁵/(3·5) + …), whose terms are all of one sign; to full precision where |z| < 6.
pub fn normal_cdf(z: f64) -> f64 {
    let (mut term, mut sum, mut n) = (z, z, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 2.0;
        term *= z * z / n;
        sum += term;
    }
    0.5 + sum * (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, z) in
            [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.025, -1.959_963_984_540_054), (0.8413447460685429, 1.0)]
        {
            assert!((normal_quantile(p) - z).abs() < 1e-12, "{p}: {}", normal_quantile(p));
        }
    }

    #[test]
    fn values_become_bytes_without_wrapping() {
        assert_eq!(bytes(&[-0.5, 0.0, 0.5, 1.0, 7.0, f32::NAN]), [0, 0, 128, 255, 255, 0]);
    }
}
