//! `elbo sample`, `elbo reconstruct` and `elbo eval`: what a trained model can be asked.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::{args, estimates, output, phase, pictures, plural, scale};
use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::train::checkpoint::Checkpoint;
use crate::train::{RunFolder, Source};
use crate::vae::{Encoded, Model};

/// The checkpoint in a run folder, or in a file given directly.
pub(super) fn open(run: &Path) -> Result<Checkpoint> {
    if run.is_file() { Checkpoint::load(run) } else { Ok(RunFolder::open(run)?.1) }
}

/// The images of the run (a folder, or a checkpoint file), or those of another folder.
pub(super) fn images(run: &Path, checkpoint: &Checkpoint, data: &Option<PathBuf>) -> Result<Splits> {
    match data {
        Some(path) => Source::Folder { path: path.clone(), images: None }.load(),
        None => own_images(run, &checkpoint.config.data),
    }
}

/// The images that a run was trained on, where it says that they are.
pub(super) fn own_images(run: &Path, source: &Source) -> Result<Splits> {
    let here = source.seen_from_here(folder_of(run));
    here.load().map_err(|error| match (source, here) {
        (Source::Folder { path, images }, Source::Folder { path: here, .. }) => Error::File {
            path: here,
            field: format!("images of the run in {}, which has them at {}", run.display(), path.display()),
            found: format!("nothing that can be used ({error})"),
            expected: match images {
                Some(_) => "the folder that it was trained on (a relative path counts from the run's folder)".into(),
                None => "the folder that it was trained on (a relative path counts from the current folder)".into(),
            },
            remedy: "name the folder with --data".into(),
        },
        _ => error,
    })
}

/// Where the paths in a checkpoint count from.
pub(super) fn folder_of(run: &Path) -> &Path {
    match run.is_file() {
        true => run.parent().unwrap_or(Path::new("")),
        false => run,
    }
}

/// More images on one sheet than anyone looks at, and less than memory holds.
const MOST: usize = 10_000;

fn check_count(count: usize) -> Result<()> {
    match count {
        1..=MOST => Ok(()),
        _ => Err(Error::argument("count", count, format!("a number of images from 1 to {MOST}"))),
    }
}

/// Draws new images.
pub fn sample(args: &args::Sample) -> Result<()> {
    check_count(args.count)?;
    output::spare_runs("out", &args.out, Some(&args.run))?;
    let device = args.machine.device()?;
    let mut model = Model::restore(&open(&args.run)?, device)?;
    pictures::samples(&mut model, args.count, args.seed)?.write_png(&args.out)?;
    let what = plural(args.count, "image");
    super::print(&format!("{what} drawn from the prior: {}\n", args.out.display()))
}

/// Shows test images and their reconstructions.
pub fn reconstruct(args: &args::Reconstruct) -> Result<()> {
    args.count.map_or(Ok(()), check_count)?;
    output::spare_runs("out", &args.out, Some(&args.run))?;
    let device = args.machine.device()?;
    let checkpoint = open(&args.run)?;
    let mut model = Model::restore(&checkpoint, device)?;
    let test = images(&args.run, &checkpoint, &args.data)?.test;
    model.load("test", &test)?;
    let seed = args.seed.unwrap_or(checkpoint.config.seed);
    let count = args.count.unwrap_or(pictures::PAIRS.min(test.rows));
    pictures::reconstructions(&mut model, "test", count, seed)?.write_png(&args.out)?;
    let pixels = checkpoint.config.model.binarisation;
    let what = plural(count, "test image");
    super::print(&format!("{what} ({pixels}) and reconstructions: {}\n", args.out.display()))
}

/// Evaluates a model and looks at its latent dimensions.
pub fn eval(args: &args::Eval, typed: &ArgMatches) -> Result<()> {
    args::effects::of_estimates(typed, args)?;
    args.json.iter().try_for_each(|json| output::spare_runs("json", json, Some(&args.run)))?;
    let device = args.machine.device()?;
    let checkpoint = open(&args.run)?;
    let data = images(&args.run, &checkpoint, &args.data)?;
    estimates::check(args, &checkpoint.config.model, data.test.rows)?;
    let mut model = Model::restore(&checkpoint, device)?;
    model.watch = phase::watch(false);
    model.load("test", &data.test)?;
    let seed = args.seed.unwrap_or(checkpoint.config.seed);
    let result = model.evaluate("test", seed)?;
    let text = scale::summary(&checkpoint.config.model, &data.test, &result);
    let below = match model.vae.upper.is_empty() {
        true => dimensions(&model.encode("test", seed)?),
        false => layers(&model.encode_layers("test", data.test.rows, seed)?),
    };
    super::print(&format!("{text}{below}"))?;
    if !args.estimators.is_empty() || args.bdmc.is_some() {
        args.machine.say_why_no_gpu()?;
    }
    estimates::estimates(args, &mut model, data.test.rows, seed)
}

/// The active units of every stochastic layer. A KL for each dimension has no meaning there: the prior of a lower layer is
/// p(z_l|z_{l+1}) and not N(0, I).
fn layers(encoded: &[Encoded]) -> String {
    let mut text = "active latent dimensions (variance of the mean over images > 0.01)\n".to_string();
    for (layer, number) in encoded.iter().zip(1..) {
        let (active, all) = (layer.active_units(), layer.latent);
        writeln!(text, "  stochastic layer {number}, from below: {active} of {all}").expect("writing to a string");
    }
    text
}

/// KL and spread of each latent dimension, the largest KL first.
fn dimensions(encoded: &Encoded) -> String {
    let (kl, variance) = (encoded.kl_per_dimension(), encoded.variance_of_means());
    let mut order: Vec<usize> = (0..encoded.latent).collect();
    order.sort_by(|&a, &b| kl[b].total_cmp(&kl[a]));
    let mut text = format!(
        "{} of {} latent dimensions are active (variance of the mean over images > 0.01)\n  dimension    KL, nats   variance of the mean\n",
        encoded.active_units(),
        encoded.latent
    );
    for k in order {
        writeln!(text, "{:>11}{:>12.4}{:>23.4}", k + 1, kl[k], variance[k]).expect("writing to a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_sorted_and_active_ones_counted() {
        // z₁ is ±2 with a small variance; z₂ is the prior.
        let logvar = vec![-2.0, 0.0, -2.0, 0.0];
        let encoded = Encoded { latent: 2, mu: vec![2.0, 0.0, -2.0, 0.0], logvar };
        assert_eq!(encoded.active_units(), 1);
        assert_eq!(encoded.variance_of_means(), [4.0, 0.0]);
        let kl = encoded.kl_per_dimension();
        assert!((kl[0] - 0.5 * (4.0 + (-2f64).exp_m1() + 2.0)).abs() < 1e-12 && kl[1] == 0.0);
        let text = dimensions(&encoded);
        assert!(text.starts_with("1 of 2") && text.lines().nth(2).unwrap().trim().starts_with("1 "), "{text}");
    }
}
