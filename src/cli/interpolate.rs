//! `elbo interpolate`: what lies between two test images.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use serde_json::{Value, json};

use super::answer::Answer;
use super::options::Machine;
use super::output::{self, ending};
use super::picture::montage;
use super::{pictures, use_run};
use crate::engine::error::{Error, Result};

/// How much a pixel of the picture is enlarged.
const ZOOM: usize = 2;

/// Show the path through z from one test image to another
///
/// The path leads from the mean of q(z|x) of the one to that of the other.
#[derive(Args)]
pub struct Interpolate {
    /// The run: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// The test image where the path begins, by its number from 0
    #[arg(long, value_name = "I")]
    pub from: usize,
    /// The test image where it ends
    #[arg(long, value_name = "J")]
    pub to: usize,
    /// Points on the path, both ends among them
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    pub count: usize,
    /// The path: line, or sphere, a great circle around 0
    ///
    /// In many dimensions nearly all of N(0, I) lies near a sphere, and a straight line leads through where nothing is. The great
    /// circle is that of White 2016 (arXiv 1609.04468): (sin((1 − t)θ) a + sin(tθ) b) / sin θ, θ the angle between a and b.
    #[arg(long, value_name = "NAME", default_value = "line")]
    pub path: PathShape,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Picture to write (PNG): the one image, the means f_μ(z) along the path, the other image
    #[arg(long, short, help_heading = "Output", value_name = "FILE", default_value = "interpolation.png", value_parser = ending("png"))]
    #[arg(value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    #[command(flatten)]
    pub answer: Answer,
    #[command(flatten)]
    pub machine: Machine,
}

/// How a path leads from one point to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PathShape {
    Line,
    Sphere,
}

impl Interpolate {
    /// Encodes both, decodes what lies between them.
    pub fn run(&self) -> Result<()> {
        if !(2..=1000).contains(&self.count) {
            return Err(Error::argument("count", self.count, "a number of points from 2 to 1000"));
        }
        output::spare_runs("out", &self.out, Some(&self.run))?;
        let device = self.machine.device()?;
        let checkpoint = use_run::open(&self.run)?;
        let test = use_run::images(&self.run, &checkpoint, &self.data)?.test;
        for (field, image) in [("from", self.from), ("to", self.to)] {
            if image >= test.rows {
                return Err(Error::argument(field, image, format!("a number from 0 to {}", test.rows - 1)));
            }
        }
        let mut model = checkpoint.model(device)?;
        test.load_into(&mut model, "test")?;
        let latent = model.vae.config.latent;
        let encoded = model.encode("test", checkpoint.config.seed)?;
        let mean = |image: usize| &encoded.mu[image * latent..][..latent];
        let points = self.path.points(mean(self.from), mean(self.to), self.count)?;
        let images = model.decode(&points.concat())?;
        let seen = test.prepared(model.vae.config.binarisation);
        let row = [seen.image(self.from), &pictures::bytes(&images), seen.image(self.to)].concat();
        let shows =
            format!("test image {}, {} means f_μ(z) {}, test image {}", self.from, self.count, self.path, self.to);
        montage(&row, test.width, test.height, self.count + 2, ZOOM).showing(shows.as_str()).write_png(&self.out)?;
        let class = |image: usize| test.labels.as_ref().map(|labels| labels[image]);
        let end = |image: usize| json!({ "image": image, "class": class(image), "z": mean(image) });
        let step = |(i, z): (usize, &Vec<f32>)| -> Value {
            let image = &images[i * test.cols..][..test.cols];
            json!({ "t": i as f64 / (self.count - 1) as f64, "z": z, "f_mu": image })
        };
        let report = json!({
            "run": self.run, "picture": self.out, "path": self.path.name(), "image": [test.height, test.width],
            "from": end(self.from), "to": end(self.to),
            "steps": points.iter().enumerate().map(step).collect::<Vec<_>>(),
        });
        self.answer.give(&format!("{shows}: {}\n", self.out.display()), &report)
    }
}

impl PathShape {
    fn name(self) -> &'static str {
        match self {
            PathShape::Line => "line",
            PathShape::Sphere => "sphere",
        }
    }

    /// `count` points from `a` to `b`, t = 0 … 1 in equal steps.
    fn points(self, a: &[f32], b: &[f32], count: usize) -> Result<Vec<Vec<f32>>> {
        let angle = match self {
            PathShape::Line => 0.0,
            PathShape::Sphere => angle(a, b)?,
        };
        let weights = |t: f64| match angle.sin() {
            // Two points in one direction: the circle is the line between them.
            sine if sine < 1e-6 => (1.0 - t, t),
            sine => (((1.0 - t) * angle).sin() / sine, (t * angle).sin() / sine),
        };
        let point = |i: usize| {
            let (of_a, of_b) = weights(i as f64 / (count - 1) as f64);
            a.iter().zip(b).map(|(&a, &b)| (of_a * f64::from(a) + of_b * f64::from(b)) as f32).collect()
        };
        Ok((0..count).map(point).collect())
    }
}

impl std::fmt::Display for PathShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PathShape::Line => "on a straight line",
            PathShape::Sphere => "on a great circle",
        })
    }
}

/// The angle between two directions, from 0 to π.
fn angle(a: &[f32], b: &[f32]) -> Result<f64> {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let cosine = product(a, b) / (product(a, a) * product(b, b)).sqrt();
    let angle = cosine.clamp(-1.0, 1.0).acos();
    // NaN, where one of them is 0, is no angle either.
    if angle.is_nan() || angle >= std::f64::consts::PI - 1e-6 {
        let found =
            "sphere between two points that lie in opposite directions, or one at 0: there is no one great circle";
        return Err(Error::argument("path", found, "line, or other images"));
    }
    Ok(angle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_end_where_they_should() {
        let (a, b) = ([3.0, 0.0], [0.0, 3.0]);
        for path in [PathShape::Line, PathShape::Sphere] {
            let points = path.points(&a, &b, 3).unwrap();
            let near = |p: &[f32], q: [f32; 2]| p.iter().zip(q).all(|(p, q)| (p - q).abs() < 1e-6);
            assert!(near(&points[0], a) && near(&points[2], b), "{points:?}");
            let radius = points[1][0].hypot(points[1][1]);
            let expected = if path == PathShape::Line { 4.5f32.sqrt() } else { 3.0 };
            assert!((radius - expected).abs() < 1e-6, "{path}: {radius}");
        }
        let same = PathShape::Sphere.points(&a, &[6.0, 0.0], 3).unwrap();
        assert_eq!(same[1], [4.5, 0.0]);
    }

    #[test]
    fn where_no_circle_leads_is_said() {
        for b in [[-2.0, 0.0], [0.0, 0.0]] {
            let message = PathShape::Sphere.points(&[1.0, 0.0], &b, 3).unwrap_err().to_string();
            assert!(message.contains("great circle") && message.contains("line"), "{message}");
        }
    }
}
