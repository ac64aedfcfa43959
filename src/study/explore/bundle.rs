//! The bytes of a page's model: written by `elbo explore`, read in the page.
//!
//! ```text
//! "ELBOPAGE"                8 bytes
//! length of the header      u32, little-endian
//! header                    JSON: version, caption, model, the arrays in their order, sizes, golden numbers
//! parameters                f16, little-endian, array after array in the order of memory
//! images, then labels       a byte per pixel and per label, compressed (raw deflate)
//! ```
//!
//! Half precision halves the page. What is rounded is rounded before the golden numbers are computed, so page and program
//! speak of the same model; `elbo decode` has the unrounded one, and differs from the page in the fourth digit.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use half::f16;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::golden::Golden;
use super::{ModelView, SHOWN, Trained};
use crate::data::Dataset;
use crate::engine::device::Executor;
use crate::engine::error::{Error, Result};
use crate::train::checkpoint::Checkpoint;
use crate::vae::{Binarisation, DeviceVae, Vae, VaeConfig};

const MAGIC: &[u8; 8] = b"ELBOPAGE";
const VERSION: u32 = 1;
/// Test images that go with a model.
pub const IMAGES: usize = 200;

/// What a page says of where its model comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caption {
    /// The heading.
    pub title: String,
    /// The images, in words.
    pub data: String,
    /// The command that makes the page.
    pub command: String,
    /// Updates that the model was trained for.
    pub updates: u32,
}

/// A model for a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// Where it comes from.
    pub caption: Caption,
    /// The architecture.
    pub config: VaeConfig,
    /// Name and values of every parameter, rounded to f16, in the order of [`Vae::params`].
    pub parameters: Vec<(String, Vec<f32>)>,
    /// Test images as the model sees them, 0 … 255, `[N, D]`.
    pub images: Vec<u8>,
    /// The class of each; empty if it is not known.
    pub labels: Vec<u8>,
    /// What a page must compute.
    pub golden: Option<Golden>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    caption: Caption,
    model: VaeConfig,
    arrays: Vec<(String, usize)>,
    images: usize,
    labels: usize,
    golden: Option<Golden>,
}

impl Bundle {
    /// A trained model with the first [`IMAGES`] of its test images. Where pixels are drawn at every use (dynamic
    /// binarisation) they are drawn once, so that a page speaks of the same image all the time.
    ///
    /// # Errors
    /// [`Error::Argument`] for a model of several stochastic layers, which has no one z; for one whose z is a single number,
    /// which has no plane; for images of another size than the model's; and for a parameter that f16 cannot hold.
    pub fn of(checkpoint: &Checkpoint, test: &Dataset, caption: Caption) -> Result<Bundle> {
        let config = checkpoint.config.model.clone();
        if !config.upper.is_empty() {
            let expected = "1, as for every model that `elbo train` makes without --upper: a page has one plane of z";
            return Err(Error::argument("stochastic layers", 1 + config.upper.len(), expected));
        }
        if config.latent < 2 {
            return Err(Error::argument("latent dimensions", config.latent, "at least 2: a page shows a plane of z"));
        }
        if test.cols != config.pixels() || test.width != config.image[1] {
            let expected = format!("images of {} × {}, as the model has learned", config.image[1], config.image[0]);
            let found = format!("images of {} × {}", test.width, test.height);
            return Err(Error::argument(&format!("data {}", test.name), found, expected));
        }
        let round = |(name, values): (&String, &Vec<f32>)| {
            let rounded: Vec<f32> = values.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
            match values.iter().zip(&rounded).find(|(_, r)| !r.is_finite()) {
                Some((value, _)) => {
                    let expected = "at most 65504 in magnitude, which is what the page's numbers of 16 bits can hold";
                    Err(Error::argument(&format!("parameter {name}"), value, expected))
                }
                None => Ok((name.clone(), rounded)),
            }
        };
        let params = Vae::new(config.clone())?.params();
        let slots = params.iter().map(|param| (&param.name, &checkpoint.slots[&param.name]));
        let parameters = slots.map(round).collect::<Result<_>>()?;
        let some = test.first(IMAGES);
        let images = match config.binarisation {
            Binarisation::Dynamic => some.binarise_fixed(0).images,
            other => some.prepared(other).into_owned().images,
        };
        Ok(Bundle { caption, config, parameters, images, labels: some.labels.unwrap_or_default(), golden: None })
    }

    /// The same with its golden numbers, computed here.
    ///
    /// # Errors
    /// From the executor.
    pub fn sealed(mut self) -> Result<Bundle> {
        self.golden = None;
        self.golden = Some(Golden::of(&mut self.clone().open(super::golden::executor())?)?);
        Ok(self)
    }

    /// The model at work.
    ///
    /// # Errors
    /// From the executor.
    pub fn open(self, executor: Executor) -> Result<Trained> {
        let mut model = DeviceVae::initial_on(Vae::new(self.config.clone())?, 0, executor)?;
        for (name, values) in &self.parameters {
            model.state.write(name, values)?;
        }
        model.load(SHOWN, &self.images)?;
        Ok(Trained { bundle: self, model, view: ModelView::default() })
    }

    /// The class of each image, if it is known.
    pub fn classes(&self) -> Option<&[u8]> {
        (!self.labels.is_empty()).then_some(&self.labels)
    }

    pub(super) fn about(&self) -> Value {
        let Caption { title, data, command, updates, .. } = &self.caption;
        json!({ "title": title, "data": data, "command": command, "updates": updates, "golden": self.golden })
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            version: VERSION,
            caption: self.caption.clone(),
            model: self.config.clone(),
            arrays: self.parameters.iter().map(|(name, values)| (name.clone(), values.len())).collect(),
            images: self.images.len() / self.config.pixels(),
            labels: self.labels.len(),
            golden: self.golden.clone(),
        };
        let head = serde_json::to_vec(&head).expect("a header is plain data");
        let mut out = MAGIC.to_vec();
        out.extend((head.len() as u32).to_le_bytes());
        out.extend(head);
        for (_, values) in &self.parameters {
            out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
        }
        let mut packed = DeflateEncoder::new(out, Compression::best());
        packed.write_all(&self.images).and_then(|()| packed.write_all(&self.labels)).expect("memory can be written");
        packed.finish().expect("memory can be written")
    }

    /// Reads what [`Bundle::encode`] wrote.
    ///
    /// # Errors
    /// [`Error::File`] naming the part that is not as it should be.
    pub fn decode(bytes: &[u8]) -> Result<Bundle> {
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| {
            damaged("first bytes", format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(8)])), "ELBOPAGE")
        })?;
        let short = |part: &str, found: usize, wanted: usize| {
            damaged(part, format!("{found} bytes"), &format!("at least {wanted}"))
        };
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| short("header's length", rest.len(), 4))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (head, mut rest) = rest.split_at_checked(length).ok_or_else(|| short("header", rest.len(), length))?;
        let head: Head =
            serde_json::from_slice(head).map_err(|e| damaged("header", e.to_string(), "one of this program's"))?;
        if head.version != VERSION {
            return Err(damaged("version", head.version.to_string(), &VERSION.to_string()));
        }
        let params = Vae::new(head.model.clone())?.params();
        let wanted: Vec<(String, usize)> = params.iter().map(|p| (p.name.clone(), p.shape.size())).collect();
        if let Some((found, wanted)) = head.arrays.iter().zip(&wanted).find(|(a, b)| a != b) {
            return Err(damaged(&format!("array {}", found.0), found.1.to_string(), &format!("{wanted:?}")));
        }
        if head.arrays.len() != wanted.len() {
            return Err(damaged("arrays", head.arrays.len().to_string(), &wanted.len().to_string()));
        }
        let mut parameters = Vec::new();
        for (name, size) in head.arrays {
            let (own, later) =
                rest.split_at_checked(2 * size).ok_or_else(|| short(&format!("array {name}"), rest.len(), 2 * size))?;
            let (pairs, _) = own.as_chunks::<2>();
            parameters.push((name, pairs.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()));
            rest = later;
        }
        let (pixels, labels) = (head.images.saturating_mul(head.model.pixels()), head.labels);
        let mut images = Vec::new();
        let read = DeflateDecoder::new(rest).take(pixels as u64 + labels as u64 + 1).read_to_end(&mut images);
        read.map_err(|e| damaged("images", e.to_string(), "compressed bytes"))?;
        if images.len() != pixels + labels || head.images == 0 || ![0, head.images].contains(&labels) {
            return Err(damaged("images", format!("{} bytes", images.len()), &format!("{}", pixels + labels)));
        }
        let labels = images.split_off(pixels);
        let (caption, config, golden) = (head.caption, head.model, head.golden);
        Ok(Bundle { caption, config, parameters, images, labels, golden })
    }
}

fn damaged(field: &str, found: String, expected: &str) -> Error {
    Error::File {
        path: "the model in the page".into(),
        field: field.into(),
        found,
        expected: expected.into(),
        remedy: "write the page again with `elbo explore`".into(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::Splits;
    use crate::study::explore::{Practice, PracticeConfig};
    use crate::train::{TrainConfig, Trainer};
    use crate::vae::Likelihood;

    /// A model at its initial values with eleven images.
    pub(in super::super) fn bundle(model: VaeConfig) -> Result<Bundle> {
        let config = TrainConfig { batch: 10, ..TrainConfig::new(model.hidden(&[6])) };
        let images = Splits::digits(3, 20, 11);
        let checkpoint = Trainer::new_on(config, &images, crate::study::explore::golden::executor())?.checkpoint()?;
        let [title, data, command] = ["a title", "some digits", "elbo explore x"].map(String::from);
        Bundle::of(&checkpoint, &images.test, Caption { title, data, command, updates: 7 })
    }

    #[test]
    fn what_is_written_is_read_again() {
        for likelihood in [Likelihood::bernoulli(), Likelihood::gaussian(0.1), Likelihood::gaussian_shared(0.1)] {
            let bundle = bundle(VaeConfig { likelihood, ..VaeConfig::new(3) }).unwrap();
            assert_eq!((bundle.images.len(), bundle.labels.len()), (11 * 784, 11));
            let bytes = bundle.encode();
            assert_eq!(Bundle::decode(&bytes).unwrap(), bundle);
        }
    }

    #[test]
    fn what_is_damaged_is_named() {
        let bytes = bundle(VaeConfig::new(2)).unwrap().encode();
        let refuses = |bytes: &[u8], word: &str| {
            let message = Bundle::decode(bytes).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("elbo explore"), "{message} lacks {word}");
        };
        refuses(b"", "first bytes");
        refuses(b"ELBOPAGE\x01\0", "header's length");
        refuses(&bytes[..100], "header");
        refuses(&bytes[..bytes.len() - 9], "images");
        let at = bytes.windows(10).position(|w| w == b"\"version\":").unwrap() + 10;
        let mut other = bytes.clone();
        other[at] = b'9';
        refuses(&other, "version");
        let at = bytes.windows(9).position(|w| w == b"encoder.0").unwrap();
        let mut other = bytes.clone();
        other[at] = b'x';
        refuses(&other, "array xncoder.0");
    }

    #[test]
    fn a_model_that_a_page_cannot_show_is_refused() {
        let upper = vec!["4:2:4".parse().unwrap()];
        let message = bundle(VaeConfig { upper, ..VaeConfig::new(3) }).unwrap_err().to_string();
        assert!(message.contains("stochastic layers"), "{message}");
        let message = bundle(VaeConfig::new(1)).unwrap_err().to_string();
        assert!(message.contains("latent dimensions: found 1") && message.contains("at least 2"), "{message}");
    }

    #[test]
    fn images_of_another_size_than_the_model_s_are_refused() {
        let config = TrainConfig { batch: 10, ..TrainConfig::new(VaeConfig::new(2).hidden(&[6])) };
        let mut images = Splits::digits(3, 20, 11);
        let executor = crate::study::explore::golden::executor();
        let checkpoint = Trainer::new_on(config, &images, executor).unwrap().checkpoint().unwrap();
        images.test.images.truncate(11 * 27 * 28);
        (images.test.height, images.test.cols) = (27, 27 * 28);
        let [title, data, command] = ["a title", "some digits", "elbo explore x"].map(String::from);
        let message = Bundle::of(&checkpoint, &images.test, Caption { title, data, command, updates: 7 });
        let message = message.unwrap_err().to_string();
        assert!(message.contains("28 × 27") && message.contains("28 × 28"), "{message}");
    }

    #[test]
    fn a_training_does_not_depend_on_its_portions_and_is_that_of_the_trainer() {
        let config =
            PracticeConfig { hidden: 8, batch: 16, train_size: 40, test_size: 10, ..PracticeConfig::default() };
        let executor = crate::study::explore::golden::executor;
        let mut by_ones = Practice::new(config.clone(), executor()).unwrap();
        let losses: Vec<f64> = (0..7).map(|_| by_ones.step(1).unwrap().loss).collect();
        let at_once = Practice::new(config.clone(), executor()).unwrap().step(7).unwrap();
        // Batches of 16, 16, 8, 16, 16, 8, 16 images.
        let weights = [16.0, 16.0, 8.0, 16.0, 16.0, 8.0, 16.0];
        let mean = losses.iter().zip(weights).map(|(l, w)| l * w).sum::<f64>() / 96.0;
        assert!((mean - at_once.loss).abs() < 1e-9 * mean, "{mean} and {at_once:?}");
        assert_eq!(at_once.updates, 7);
        let run = config.train_config();
        let mut trainer = Trainer::new_on(run.clone(), &run.data.load().unwrap(), executor()).unwrap();
        trainer.pause_at = Some(7);
        trainer.run(&mut (), &std::sync::atomic::AtomicBool::new(false)).unwrap();
        assert_eq!(by_ones.evaluate().unwrap(), trainer.evaluate().unwrap());
        // The tape is that of the next update, with its own images and its own noise.
        let tape = by_ones.tape().unwrap();
        assert!(tape.error() < 1e-6 && tape.leaves.len() == 8, "{}", tape.text());
        let of_two = PracticeConfig { batch: 2, ..config };
        let next = Practice::new(of_two.clone(), executor()).unwrap().step(1).unwrap().loss;
        let first = Practice::new(of_two, executor()).unwrap().tape().unwrap();
        let y = first.nodes.last().unwrap().value.values[0];
        assert!((y - next).abs() < 1e-3, "{y} and {next}");
    }
}
