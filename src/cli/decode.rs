//! `elbo decode`: what one z, or a few, look like.

use std::f64::consts::PI;
use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueHint};
use serde_json::{Value, json};

use super::answer::Answer;
use super::options::Machine;
use super::output::{self, ending};
use super::picture::{Picture, montage};
use super::{blocks, phase, pictures, plural, use_run};
use crate::data::Dataset;
use crate::engine::error::{Error, Result};
use crate::study::richness::Neighbours;
use crate::vae::DeviceVae;

/// How much a pixel of the picture is enlarged.
const ZOOM: usize = 4;
/// Neighbours, unless another number is asked for or there are fewer images.
const NEIGHBOURS: usize = 20;

/// Show what a z of your choice looks like
///
/// Beside the image: log p(z), and the test images whose mean of q(z|x) lies nearest.
#[derive(Args)]
pub struct Decode {
    /// The run: its folder, or a checkpoint file
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// A point of the latent space, its K numbers separated by commas; may be repeated
    #[arg(long, value_name = "Z1,Z2,…", required = true, allow_hyphen_values = true)]
    pub z: Vec<TypedPoint>,
    /// Throw an image x ~ p(x|z) too
    #[arg(long)]
    pub draw: bool,
    /// Seed of that draw
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Test images, the nearest ones, of which the classes are counted [default: 20, or all if there are fewer]
    #[arg(long, value_name = "N")]
    pub neighbours: Option<usize>,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Picture to write (PNG): a row for each z, with f_μ(z), f_σ(z) if there is one, and x
    #[arg(long, short, help_heading = "Output", value_name = "FILE", value_parser = ending("png"), value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Draw the images in text too; on a terminal this is done anyway
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub show: bool,
    #[command(flatten)]
    pub answer: Answer,
    #[command(flatten)]
    pub machine: Machine,
}

/// A point as it is typed.
#[derive(Clone, Debug, PartialEq)]
pub struct TypedPoint(pub Vec<f32>);

impl FromStr for TypedPoint {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<TypedPoint, String> {
        let number = |text: &str| text.trim().parse().ok().filter(|number: &f32| number.is_finite());
        let numbers = text.split(',').map(|text| number(text).ok_or_else(|| format!("\"{text}\" is no number")));
        numbers
            .collect::<std::result::Result<_, _>>()
            .map(TypedPoint)
            .map_err(|e| format!("{e}; expected one like 0.1,-0.5"))
    }
}

/// What is found out about one point.
struct DecodedPoint {
    z: Vec<f32>,
    /// Where the prior of this layer is N(0, I).
    log_p: Option<f64>,
    mean: Vec<f32>,
    spread: Option<Vec<f32>>,
    thrown: Option<Vec<f32>>,
    nearest: Nearest,
}

/// The test images around a point, by the mean of q(z|x).
struct Nearest {
    /// (number of the image, distance), the nearest first.
    images: Vec<(usize, f64)>,
    /// (class, share of the images), the largest first; none without labels.
    shares: Option<Vec<(u8, f64)>>,
}

impl Decode {
    /// Decodes, looks around, draws, prints.
    pub fn run(&self) -> Result<()> {
        self.out.iter().try_for_each(|out| output::spare_runs("out", out, Some(&self.run)))?;
        let device = self.machine.device()?;
        let checkpoint = use_run::open(&self.run)?;
        check(&self.z, checkpoint.config.model.latent)?;
        let test = use_run::images(&self.run, &checkpoint, &self.data)?.test;
        let neighbours = self.neighbours.unwrap_or(NEIGHBOURS.min(test.rows));
        if !(1..=test.rows).contains(&neighbours) {
            return Err(Error::argument("neighbours", neighbours, format!("a number from 1 to {}", test.rows)));
        }
        let mut model = checkpoint.model(device)?;
        model.watch = phase::watch(false);
        test.load_into(&mut model, "test")?;
        let found = self.points(&mut model, &test, neighbours, checkpoint.config.seed)?;
        let [height, width] = model.vae.config.image;
        let picture = sheet(&found, [height, width]);
        self.out.as_ref().map_or(Ok(()), |out| picture.write_png(out))?;
        let mut text: String = found.iter().map(|point| self.describe(point, &test, width)).collect();
        if let Some(out) = &self.out {
            writeln!(text, "{}: {}", picture.shows, out.display()).expect("writing to a string");
        }
        let report = json!({
            "run": self.run, "latent": model.vae.config.latent, "image": [height, width], "picture": self.out,
            "points": found.iter().map(|point| point.report(&test)).collect::<Vec<_>>(),
        });
        self.answer.give(&text, &report)
    }

    fn points(&self, model: &mut DeviceVae, test: &Dataset, neighbours: usize, seed: u64) -> Result<Vec<DecodedPoint>> {
        let all: Vec<f32> = self.z.iter().flat_map(|point| point.0.iter().copied()).collect();
        let (latent, pixels) = (model.vae.config.latent, model.vae.config.pixels());
        let means = model.decode(&all)?;
        let spread = model.describe_points(&all)?.spread();
        let thrown = if self.draw { Some(model.throw(&all, self.seed)?) } else { None };
        let encoded = model.encode("test", seed)?;
        let near = Neighbours::of_points(&encoded.mu, &all, latent, neighbours, &model.watch);
        let image = |of: &[f32], i: usize| of[i * pixels..][..pixels].to_vec();
        let point = |(i, TypedPoint(z)): (usize, &TypedPoint)| DecodedPoint {
            z: z.clone(),
            log_p: model.vae.upper.is_empty().then(|| log_p(z)),
            mean: image(&means, i),
            spread: spread.as_ref().map(|all| image(all, i)),
            thrown: thrown.as_ref().map(|all| image(all, i)),
            nearest: Nearest::of(&near.nearest[i * neighbours..][..neighbours], test.labels.as_deref()),
        };
        Ok(self.z.iter().enumerate().map(point).collect())
    }

    /// What is printed of a point.
    fn describe(&self, point: &DecodedPoint, test: &Dataset, width: usize) -> String {
        let numbers: Vec<String> = point.z.iter().map(ToString::to_string).collect();
        let prior = match point.log_p {
            Some(log_p) => format!("log p(z) = {log_p:.4} nats"),
            None => "p(z) is that of the layers above".into(),
        };
        let mut text = format!("z = ({}): {prior}\n  f_μ(z): {}\n", numbers.join(", "), range(&point.mean));
        if let Some(spread) = &point.spread {
            text += &format!("  f_σ(z): {}\n", range(spread));
        }
        text += &point.nearest.describe(test);
        if self.show || std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            let row = row(point);
            text += &blocks::draw(&row.concat_rows(width), width * row.0.len());
        }
        text
    }
}

/// Refuses points of another number of dimensions.
fn check(points: &[TypedPoint], latent: usize) -> Result<()> {
    match points.iter().find(|point| point.0.len() != latent) {
        None => Ok(()),
        Some(point) => {
            let expected = format!("{latent} separated by commas, the run's K, the number of its latent dimensions");
            Err(Error::argument("z", plural(point.0.len(), "number"), expected))
        }
    }
}

/// log N(z; 0, I) = −½(K ln 2π + |z|²).
fn log_p(z: &[f32]) -> f64 {
    let square: f64 = z.iter().map(|&z| f64::from(z) * f64::from(z)).sum();
    -0.5 * (z.len() as f64 * (2.0 * PI).ln() + square)
}

/// `0.012 to 0.998, mean 0.131`; `0.231 for every pixel`.
fn range(values: &[f32]) -> String {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    match low == high {
        true => format!("{low:.4} for every pixel"),
        false => format!("{low:.4} to {high:.4}, mean {mean:.4}"),
    }
}

impl Nearest {
    fn of(found: &[(f32, u32)], labels: Option<&[u8]>) -> Nearest {
        let images: Vec<(usize, f64)> = found.iter().map(|&(d, i)| (i as usize, f64::from(d).sqrt())).collect();
        let shares = labels.map(|labels| {
            let of = |class: u8| images.iter().filter(|&&(i, _)| labels[i] == class).count();
            let mut shares: Vec<(u8, usize)> = (0..=255).map(|class| (class, of(class))).filter(|s| s.1 > 0).collect();
            shares.sort_by_key(|&(class, count)| (std::cmp::Reverse(count), class));
            shares.into_iter().map(|(class, count)| (class, count as f64 / images.len() as f64)).collect()
        });
        Nearest { images, shares }
    }

    fn describe(&self, test: &Dataset) -> String {
        let (nearest, distance) = self.images[0];
        let count = self.images.len();
        let mut text = format!("  nearest {count} of {} by their mean of q", plural(test.rows, "test image"));
        if let Some(shares) = &self.shares {
            let what = if shares.iter().all(|s| s.0 < 10) { "digit" } else { "class" };
            let shares: Vec<String> = shares.iter().map(|(c, s)| format!("{what} {c} {:.0} %", 100.0 * s)).collect();
            text += &format!(": {}", shares.join(", "));
        }
        let class = test.labels.as_ref().map_or(String::new(), |labels| format!(" (class {})", labels[nearest]));
        text + &format!("\n  the nearest is image {nearest}{class}, {distance:.4} away\n")
    }
}

impl DecodedPoint {
    fn report(&self, test: &Dataset) -> Value {
        let image = |&(i, distance): &(usize, f64)| json!({ "image": i, "class": test.labels.as_ref().map(|labels| labels[i]), "distance": distance });
        let share = |&(class, share): &(u8, f64)| json!({ "class": class, "share": share });
        json!({
            "z": self.z, "log_p": self.log_p, "f_mu": self.mean, "f_sigma": self.spread, "thrown": self.thrown,
            "nearest": self.nearest.images.iter().map(image).collect::<Vec<_>>(),
            "shares": self.nearest.shares.as_ref().map(|all| all.iter().map(share).collect::<Vec<_>>()),
        })
    }
}

/// Images of one height side by side.
struct ImageRow(Vec<Vec<u8>>);

/// f_μ(z), then f_σ(z) with its largest value as white, then x, as far as they are there.
fn row(point: &DecodedPoint) -> ImageRow {
    let scaled = |spread: &Vec<f32>| {
        let most = spread.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        pictures::bytes(&spread.iter().map(|s| s / most).collect::<Vec<_>>())
    };
    let parts = [Some(pictures::bytes(&point.mean)), point.spread.as_ref().map(scaled)];
    ImageRow(parts.into_iter().chain([point.thrown.as_ref().map(|x| pictures::bytes(x))]).flatten().collect())
}

impl ImageRow {
    /// As one image.
    fn concat_rows(&self, width: usize) -> Vec<u8> {
        let height = self.0[0].len() / width;
        (0..height).flat_map(|y| self.0.iter().flat_map(move |image| &image[y * width..][..width])).copied().collect()
    }
}

fn sheet(found: &[DecodedPoint], [height, width]: [usize; 2]) -> Picture {
    let rows: Vec<ImageRow> = found.iter().map(row).collect();
    let images: Vec<u8> = rows.iter().flat_map(|row| row.0.concat()).collect();
    let mut columns = vec!["f_μ(z)"];
    columns.extend(found[0].spread.as_ref().map(|_| "f_σ(z), the largest white"));
    columns.extend(found[0].thrown.as_ref().map(|_| "a thrown x ~ p(x|z)"));
    let shows = format!("{}: {}", plural(found.len(), "row"), columns.join("; "));
    montage(&images, width, height, columns.len(), ZOOM).showing(shows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_and_counted() {
        assert_eq!("0.1,-0.5".parse::<TypedPoint>().unwrap(), TypedPoint(vec![0.1, -0.5]));
        for bad in ["", "1,,2", "x", "nan"] {
            assert!(bad.parse::<TypedPoint>().unwrap_err().contains("0.1,-0.5"), "{bad}");
        }
        let message = check(&[TypedPoint(vec![1.0]), TypedPoint(vec![1.0; 3])], 1).unwrap_err().to_string();
        for part in ["z", "3 numbers", "1 separated", "K"] {
            assert!(message.contains(part), "{message} lacks {part}");
        }
    }

    #[test]
    fn the_prior_is_that_of_the_plane() {
        // ln(1/2π) at 0, and less by half the square elsewhere.
        assert!((log_p(&[0.0, 0.0]) + 1.837_877_066_409_345).abs() < 1e-12);
        assert!((log_p(&[0.0, 2.0]) + 3.837_877_066_409_345).abs() < 1e-12);
    }

    #[test]
    fn shares_are_those_of_the_nearest() {
        let found = [(0.25, 2), (0.5, 0), (1.0, 3), (4.0, 1)];
        let nearest = Nearest::of(&found, Some(&[7, 4, 4, 4]));
        assert_eq!(nearest.shares, Some(vec![(4, 0.75), (7, 0.25)]));
        assert_eq!(nearest.images[0], (2, 0.5), "the distance, not its square");
        assert!(Nearest::of(&found, None).shares.is_none());
    }
}
