//! One page about a run, or about several side by side: curves, scale, configuration, pictures, units, commands.
//!
//! Nothing is computed here but what a table shows. The caller looks into the runs ([`ReportedRun`]); equal runs give equal
//! bytes, and no date or machine's path gets into the page unless a run has it in its own journals.

mod course;
mod model;
mod origin;
mod seeds;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::page::{Page, escaped};
use crate::train::{Journals, Progress, TrainConfig};
use crate::vae::{Baseline, Encoded, Evaluation, HiddenUnits};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Colours that runs take in turn, of the common style's `--series-1`, ….
const COLOURS: usize = 6;

/// A run as a page shows it.
pub struct ReportedRun {
    /// What it is called: the name of its folder.
    pub name: String,
    /// Where it is, as a command would be told.
    pub path: String,
    /// What is trained, on what, and how.
    pub config: TrainConfig,
    /// How far it got.
    pub progress: Progress,
    /// Its course.
    pub journals: Journals,
    /// What only the decoder is needed for.
    pub drawn: DrawnImages,
    /// What its images are needed for, or why they cannot be had.
    pub judged: Result<JudgedRun, String>,
}

/// Pictures, as PNG files, of what the decoder says.
pub struct DrawnImages {
    /// E[x|z] for draws from the prior.
    pub samples: Vec<u8>,
    /// The decoded plane of z, where K = 2, at the quantiles of N(0, I).
    pub manifold: Option<Vec<u8>>,
    /// (z, its place on the axes of the manifold from 0 to 1).
    pub ticks: Vec<(f64, f64)>,
}

/// What a run makes of its test images.
pub struct JudgedRun {
    /// The name of the images.
    pub data: String,
    /// −ELBO of the test images.
    pub result: Evaluation,
    /// Bits per dimension, where there is such a number.
    pub bits: Option<f64>,
    /// What models without z reach on the same images, and the line that none can cross.
    pub marks: Vec<Baseline>,
    /// Test images and below each its reconstruction, as a PNG file.
    pub reconstructions: Vec<u8>,
    /// q of each stochastic layer, from below.
    pub layers: Vec<Encoded>,
    /// The dead units of every hidden layer, over the first test images.
    pub dead: Vec<HiddenUnits>,
    /// The classes of the test images, if they are known.
    pub labels: Option<Vec<u8>>,
}

/// The page about these runs, in their order.
///
/// # Panics
/// Without a run.
pub fn page(runs: &[ReportedRun]) -> Page {
    assert!(!runs.is_empty(), "a report of nothing");
    let title = match runs {
        [one] => format!("{}: a variational autoencoder", one.name),
        _ => format!("{} variational autoencoders side by side", runs.len()),
    };
    let mut body = format!("<main>\n<h1>{}</h1>\n", escaped(&title));
    body += &origin::summary(runs);
    body += &course::scales(runs);
    body += &seeds::table(runs);
    body += &course::curves(runs);
    body += &model::pictures(runs);
    body += &model::planes(runs);
    body += &model::units(runs);
    body += &origin::configuration(runs);
    body += &origin::commands(runs);
    body += &origin::machines(runs);
    body += "</main>\n";
    Page::new(title)
        .style(STYLE)
        .body(&body)
        .json("curve-data", &course::data(runs))
        .json("plane-data", &model::plane_data(runs))
        .script(SCRIPT)
}

/// The class of the colour of run `i`.
fn colour(i: usize) -> String {
    format!("c{}", i % COLOURS + 1)
}

/// A run's name with a patch of its colour, where there are several.
fn named(runs: &[ReportedRun], i: usize) -> String {
    let name = escaped(&runs[i].name);
    match runs.len() {
        1 => name,
        _ => format!("<span class=\"swatch {}\" aria-hidden=\"true\"></span>{name}", colour(i)),
    }
}

/// A picture within the page.
fn picture(png: &[u8], alternative: &str) -> String {
    let (alternative, data) = (escaped(alternative), STANDARD.encode(png));
    format!("<img alt=\"{alternative}\" src=\"data:image/png;base64,{data}\">")
}

/// `−12.34`, with a true minus sign.
fn number(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}").replace('-', "−")
}

/// `3 min 20 s`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// One block for each run, side by side where there is room.
fn side_by_side(runs: &[ReportedRun], block: impl Fn(&ReportedRun) -> String) -> String {
    let mut html = String::from("<div class=\"runs\">\n");
    for (i, run) in runs.iter().enumerate() {
        let heading = match runs.len() {
            1 => String::new(),
            _ => format!("<h3>{}</h3>\n", named(runs, i)),
        };
        writeln!(html, "<div class=\"{}\">\n{heading}{}</div>", colour(i), block(run)).expect("memory");
    }
    html + "</div>\n"
}

/// Why a run has no such pictures.
fn missing(why: &str) -> String {
    format!("<p class=\"note\">Not shown, because the run’s images cannot be had: {}</p>\n", escaped(why))
}
