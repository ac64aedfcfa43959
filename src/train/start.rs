//! What the training images decide before the first update. Pure functions of images and configuration, so that a run that
//! is resumed elsewhere starts from the same numbers before its checkpoint replaces them.

use std::borrow::Cow;

use super::config::{OutputBias, TrainConfig};
use crate::data::Dataset;
use crate::engine::device::Moment;
use crate::engine::error::{Error, Result};
use crate::vae::{DeviceVae, SHARED_SIGMA};

/// The images that are learned from.
pub(super) fn training_images<'d>(config: &TrainConfig, train: &'d Dataset) -> Result<Cow<'d, Dataset>> {
    match config.train_images {
        None => Ok(Cow::Borrowed(train)),
        Some(n) if n > train.rows => {
            let expected = format!("at most {}, all images of {}", train.rows, train.name);
            Err(Error::argument("train images", n, expected))
        }
        Some(n) => Ok(Cow::Owned(train.first(n))),
    }
}

/// Replaces the initial values that have a better one in view of the images: the bias of the logits, if the configuration
/// asks for it, and the spread that all pixels share.
///
/// Were that spread left at softplus(0) = 0.69, it would take epochs to come down to the data's, at Adam's one learning
/// rate per update, and the reconstruction would weigh too little all the while.
pub(super) fn write_parameters(model: &mut DeviceVae, config: &TrainConfig, train: &Dataset) -> Result<()> {
    let likelihood = config.model.likelihood;
    if config.output_bias == OutputBias::Data {
        let means = train.prepared(config.model.binarisation).histograms().means();
        let raw = means.into_iter().filter_map(|mean| likelihood.raw_of_mean(mean));
        let name = model.vae.decoder.heads.bias_name();
        model.state.write(&name, &raw.map(|raw| raw as f32).collect::<Vec<f32>>())?;
    }
    if likelihood.has_shared_sigma() {
        // The standard deviation of the pixels about their own means.
        let sigma = (train.histograms().variance() / train.cols as f64).sqrt();
        let raw = likelihood.raw_shared_sigma(sigma).expect("it has one");
        model.state.write(SHARED_SIGMA, &[raw as f32])?;
    }
    Ok(())
}

/// Writes Adam's second moment, where it does not start at 0.
pub(super) fn write_moments(model: &mut DeviceVae, config: &TrainConfig) -> Result<()> {
    if config.second_moment > 0.0 {
        for param in model.vae.params().iter() {
            let values = vec![config.second_moment as f32; param.shape.size()];
            model.state.write_moment(&param.name, Moment::Second, &values)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Split, Splits};
    use crate::engine::device::Device;
    use crate::train::Trainer;
    use crate::vae::{Binarisation, Likelihood, VaeConfig};

    fn config(model: VaeConfig) -> TrainConfig {
        TrainConfig { batch: 10, epochs: 1, ..TrainConfig::new(VaeConfig { ..model.hidden(&[4]) }) }
    }

    fn trainer(config: TrainConfig) -> Trainer {
        Trainer::new(config, &Splits::digits(3, 60, 10), Device::Cpu { threads: 1 }).unwrap()
    }

    #[test]
    fn the_bias_of_the_logits_is_that_of_the_images_that_are_learned_from() {
        let data = TrainConfig { output_bias: OutputBias::Data, train_images: Some(40), ..config(VaeConfig::new(2)) };
        let means = Splits::digits(3, 60, 10).train.first(40).histograms().means();
        let bias = trainer(data.clone()).model().state.read("decoder.logits.bias").unwrap();
        assert!(means.contains(&0.0), "the corner is black in all images");
        for (p, b) in means.iter().zip(&bias) {
            let rate = 1.0 / (1.0 + (-f64::from(*b)).exp());
            assert!((rate - p.clamp(0.001, 0.999)).abs() < 1e-7, "{rate} for {p}");
        }
        // Black and white pixels have the means of what the model sees.
        let model = VaeConfig { binarisation: Binarisation::Threshold, ..VaeConfig::new(2) };
        let threshold = trainer(TrainConfig { output_bias: OutputBias::Data, ..config(model) });
        assert_ne!({ threshold }.model().state.read("decoder.logits.bias").unwrap(), bias);
        // A layer's other numbers, and the bias without the option, are those of the initialisation.
        let plain = TrainConfig { output_bias: OutputBias::Init, ..data.clone() };
        let (mut with, mut without) = (trainer(data), trainer(plain));
        let mut read = |name: &str| (with.model().state.read(name).unwrap(), without.model().state.read(name).unwrap());
        let (a, b) = read("decoder.logits.weight");
        assert_eq!(a, b);
        let (a, b) = read("decoder.logits.bias");
        assert_ne!(a, b);
    }

    #[test]
    fn the_shared_spread_starts_at_that_of_the_pixels() {
        let train = Splits::digits(3, 60, 10).train;
        let expected = (train.histograms().variance() / 784.0).sqrt();
        for likelihood in [Likelihood::gaussian_shared(0.01), Likelihood::gaussian_optimal(0.05)] {
            let mut trainer = trainer(config(VaeConfig { likelihood, ..VaeConfig::new(2) }));
            let raw = f64::from(trainer.model().state.read("decoder.sigma").unwrap()[0]);
            let sigma = likelihood.floor().unwrap() + raw.exp().ln_1p();
            assert!((sigma - expected).abs() < 1e-6, "{sigma} against {expected}");
        }
    }

    #[test]
    fn the_second_moment_starts_where_it_is_told() {
        let ones = TrainConfig { second_moment: 0.0025, ..config(VaeConfig::new(2)) };
        let (mut ones, mut zeros) = (trainer(ones), trainer(config(VaeConfig::new(2))));
        let mut read = |name: &str| {
            let of = |t: &mut Trainer| t.model().state.read_moment(name, Moment::Second).unwrap();
            (of(&mut ones), of(&mut zeros))
        };
        let (a, b) = read("encoder.0.weight");
        assert!(a.iter().all(|&v| v == 0.0025) && b.iter().all(|&v| v == 0.0));
        let (a, b) = read("decoder.logits.bias");
        assert!(a.iter().all(|&v| v == 0.0025) && b.iter().all(|&v| v == 0.0));
    }

    #[test]
    fn fewer_images_are_the_first_ones() {
        let all = Splits::digits(3, 60, 10).train;
        let first = all.first(7);
        assert_eq!((first.rows, first.split), (7, Split::Train));
        assert_eq!(
            (&first.images[..], &first.labels.unwrap()[..]),
            (&all.images[..7 * 784], &all.labels.as_ref().unwrap()[..7])
        );
        assert_eq!(all.first(99), all);
        let many = TrainConfig { train_images: Some(61), ..config(VaeConfig::new(2)) };
        let refused = Trainer::new(many, &Splits::digits(3, 60, 10), Device::Cpu { threads: 1 });
        let message = refused.err().expect("there are 60").to_string();
        assert!(message.contains("train images") && message.contains("61") && message.contains("60"), "{message}");
    }

    #[test]
    fn images_in_their_own_order_come_in_it() {
        // One epoch of one batch in file order with SGD is the same as that of the shuffled images only if the order does
        // not matter; with batches of 10 of 60 images it does.
        let run = |shuffle: bool| {
            let mut trainer = trainer(TrainConfig { shuffle, ..config(VaeConfig::new(2)) });
            trainer.run(&mut (), &std::sync::atomic::AtomicBool::new(false)).unwrap();
            trainer.model().state.read("encoder.0.weight").unwrap()
        };
        assert_ne!(run(true), run(false));
        assert_eq!(run(false), run(false));
    }
}
