//! A training run in one file: parameters, the optimiser's moments, configuration and counters.
//!
//! The format is that of [`tensors`](crate::engine::tensors): safetensors with a hash of every tensor. Names and layout are those
//! that PyTorch's `nn.Linear` loads; the module is written out beside `vae::layout`. Configuration, counters and the hashes of the
//! images are JSON text under the key `elbo` of the header's `__metadata__`. Nothing in it depends on the clock, the number of
//! threads or the machine, so two runs of one seed write the same bytes.
//!
//! A run's own checkpoint is in f32. A tensor may also be stored in f16 or bf16, as PyTorch's `.half()` and `.bfloat16()`
//! make them, if the metadata is kept: it is read into f32 exactly. A file without the optimiser's moments
//! ([`Checkpoint::export`]) is a model that can be used, and not a run that can go on.
//!
//! Version 1 of the format had no hashes; its files are read, and what they lack is not compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::engine::device::{ArrayKind, Device, Moment};
use crate::engine::error::{Error, Result};
use crate::engine::file::{Disk, Files};
use crate::engine::optim::Optimizer;
use crate::engine::params::{Param, Params};
pub use crate::engine::tensors::Stored;
use crate::engine::tensors::{self, Metadata, NamedArray, TensorFile};
use crate::train::{Progress, TrainConfig};
use crate::vae::{DeviceVae, Vae};

/// The key in the header.
const KEY: &str = "elbo";
/// Raised when the meaning of the header changes.
const VERSION: u32 = 2;
const REMEDY: &str = "use a checkpoint written by `elbo train`, or train again";

/// Tells the images that a run is of from others: [`Dataset::hash`] of what it learns from, and of what judges it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageHashes {
    /// Of the training images.
    pub train: String,
    /// Of the test images.
    pub test: String,
}

impl ImageHashes {
    /// Of these two sets.
    pub fn of(train: &Dataset, test: &Dataset) -> ImageHashes {
        ImageHashes { train: train.hash(), test: test.hash() }
    }

    /// The first set in which `found` differs, and its two hashes: there, here.
    pub(crate) fn difference<'a>(&'a self, found: &'a ImageHashes) -> Option<(&'static str, &'a str, &'a str)> {
        let sets = [("training images", &self.train, &found.train), ("test images", &self.test, &found.test)];
        sets.into_iter().find(|(_, there, here)| there != here).map(|(set, there, here)| (set, &there[..], &here[..]))
    }
}

/// Everything that a run needs to continue, and a model to be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What is trained, on what, and how.
    pub config: TrainConfig,
    /// How far it got.
    pub progress: Progress,
    /// Which images it is of; none in files of version 1.
    pub images: Option<ImageHashes>,
    /// Parameters and moments, in the layout of memory: `encoder.heads.weight`, `adam.m.encoder.heads.weight`, …; no
    /// moments if it was read from an exported file.
    pub slots: BTreeMap<String, Vec<f32>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    config: TrainConfig,
    progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    images: Option<ImageHashes>,
}

/// The parameters themselves.
const VALUES: [ArrayKind; 1] = [("", Moment::Value)];

/// The arrays that a rule keeps of every parameter: values, then moments.
pub(crate) fn families(rule: &Optimizer) -> &'static [ArrayKind] {
    match rule {
        Optimizer::Adam { .. } => &[VALUES[0], ("adam.m.", Moment::First), ("adam.v.", Moment::Second)],
        Optimizer::Sgd { .. } => &[VALUES[0], ("sgd.m.", Moment::First)],
    }
}

impl Checkpoint {
    /// Writes the checkpoint to `path`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written, [`Error::Slot`] when a parameter is missing or has a wrong size.
    pub fn save(&self, path: &Path) -> Result<()> {
        Disk.replace(path, &self.encode()?)
    }

    /// Writes the parameters alone, rounded to `stored`, to `path`, whole or not at all. The file can be read by
    /// [`Checkpoint::load`], and its tensors by PyTorch; training cannot go on from it.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the tensor when a number is too large for `stored`; [`Error::Io`] when the file cannot
    /// be written, [`Error::Slot`] when a parameter is missing or has a wrong size.
    pub fn export(&self, path: &Path, stored: Stored) -> Result<()> {
        Disk.replace(path, &self.encode_families(&VALUES, stored)?)
    }

    /// Whether it has the optimiser's moments, without which a run cannot go on.
    pub fn has_moments(&self) -> bool {
        let (prefix, _) = families(&self.config.objective.optimizer)[1];
        self.slots.keys().any(|name| name.starts_with(prefix))
    }

    /// The model that it holds, on a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for an invalid configuration; as [`DeviceVae::initial`].
    pub fn model(&self, device: Device) -> Result<DeviceVae> {
        let mut model = DeviceVae::initial(Vae::new(self.config.model.clone())?, 0, device)?;
        for param in model.vae.params().iter() {
            model.state.write(&param.name, &self.slots[&param.name])?;
        }
        Ok(model)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Error::Slot`] when a parameter is missing or has a wrong size.
    pub(in crate::train) fn encode(&self) -> Result<Vec<u8>> {
        self.encode_families(families(&self.config.objective.optimizer), Stored::F32)
    }

    /// The parameters as their file has them, without the optimiser's moments.
    ///
    /// # Errors
    /// [`Error::Slot`] when a parameter is missing or has a wrong size.
    pub fn parameters(&self) -> Result<Vec<NamedArray>> {
        self.arrays(&VALUES)
    }

    fn encode_families(&self, families: &[ArrayKind], stored: Stored) -> Result<Vec<u8>> {
        let (config, progress, images) = (self.config.clone(), self.progress.clone(), self.images.clone());
        let text = serde_json::to_string(&Header { version: VERSION, config, progress, images });
        let text = text.expect("a configuration is plain data");
        tensors::encode(&Metadata::from([(KEY.to_string(), text)]), self.arrays(families)?, stored)
    }

    fn arrays(&self, families: &[ArrayKind]) -> Result<Vec<NamedArray>> {
        let params = Vae::new(self.config.model.clone())?.params();
        let mut arrays = Vec::new();
        for (prefix, _) in families {
            for param in params.iter() {
                let (name, size) = (format!("{prefix}{}", param.name), param.shape.size());
                let values = self.slots.get(&name).filter(|values| values.len() == size);
                let problem = format!("a checkpoint needs its {size} numbers");
                let values = values.ok_or(Error::Slot { name, problem })?;
                arrays.extend(NamedArray::of_param(prefix, param, values));
            }
        }
        Ok(arrays)
    }

    /// Reads a checkpoint, or an exported file, and checks all of it: header, names, shapes, types, hashes, and that every
    /// number is finite.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::File`] naming the tensor or field, what it holds and what
    /// belongs there.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        Checkpoint::decode(path, &fs::read(path).map_err(Error::io("read", path))?)
    }

    /// [`Checkpoint::load`] from the bytes of the file `path`.
    pub(in crate::train) fn decode(path: &Path, bytes: &[u8]) -> Result<Checkpoint> {
        let wrong = |field: &str, found: String, expected: &str| Error::File {
            path: path.into(),
            field: field.into(),
            found,
            expected: expected.into(),
            remedy: REMEDY.into(),
        };
        let file = TensorFile::parse(path, bytes)?;
        let expected = "the configuration of a run of this program";
        let text = file.metadata.get(KEY).ok_or_else(|| wrong("__metadata__.elbo", "no such key".into(), expected))?;
        let header: Header =
            serde_json::from_str(text).map_err(|e| wrong("__metadata__.elbo", e.to_string(), expected))?;
        let Header { version, config, progress, images } = header;
        if !(1..=VERSION).contains(&version) {
            return Err(wrong("version", version.to_string(), &format!("a number from 1 to {VERSION}")));
        }
        let invalid = |e: Error| wrong("__metadata__.elbo", e.to_string(), "a valid configuration");
        config.validate().map_err(invalid)?;
        let vae = Vae::new(config.model.clone()).map_err(invalid)?;
        let slots = read_slots(&file, &vae.params(), &config.objective.optimizer)?;
        Ok(Checkpoint { config, progress, images, slots })
    }
}

/// The arrays of all parameters, and their moments unless the file has none at all.
fn read_slots(file: &TensorFile, params: &Params, rule: &Optimizer) -> Result<BTreeMap<String, Vec<f32>>> {
    let is_moment = |name: &&str| families(rule)[1..].iter().any(|(prefix, _)| name.starts_with(prefix));
    let families = if file.names().iter().any(is_moment) { families(rule) } else { &VALUES };
    let arrays: Vec<(&str, &Param)> =
        families.iter().flat_map(|&(prefix, _)| params.iter().map(move |param| (prefix, param))).collect();
    let names = arrays.iter().map(|(prefix, param)| format!("{prefix}{}", param.name));
    Ok(names.zip(file.params(arrays.iter().copied())?).collect())
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, SafeTensors, TensorView};

    use super::*;
    use crate::engine::nn::Activation;
    use crate::vae::VaeConfig;

    fn checkpoint() -> Checkpoint {
        let model = VaeConfig { image: [2, 2], activation: Activation::Tanh, ..VaeConfig::new(2).hidden(&[3]) };
        let mut config = TrainConfig::new(model);
        config.lr = crate::engine::optim::LrSchedule::Constant { lr: 0.1 + 0.2 };
        let mut slots = BTreeMap::new();
        for (k, (prefix, _)) in families(&config.objective.optimizer).iter().enumerate() {
            for param in Vae::new(config.model.clone()).unwrap().params().iter() {
                slots.insert(format!("{prefix}{}", param.name), (param.initial)(k as u64));
            }
        }
        let mut progress = Progress::default();
        progress.sums.rec = 1.0 / 3.0;
        progress.updates = 7;
        let images = Some(ImageHashes { train: "1".into(), test: "2".into() });
        Checkpoint { config, progress, images, slots }
    }

    #[test]
    fn what_is_saved_is_loaded_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/checkpoint.safetensors");
        let saved = checkpoint();
        saved.save(&path).unwrap();
        let first = fs::read(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), saved);
        saved.save(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first, "the same run gives the same bytes");
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["checkpoint.safetensors"], "no temporary file stays behind");
    }

    /// As the program wrote it before there were hashes.
    #[test]
    fn files_of_version_1_are_read() {
        let saved = checkpoint();
        let bytes = saved.encode().unwrap();
        let text = TensorFile::parse(Path::new("x"), &bytes).unwrap().metadata[KEY].clone();
        let images = format!(",\"images\":{}", serde_json::to_string(&saved.images).unwrap());
        let old = text.replace("\"version\":2", "\"version\":1").replace(&images, "");
        let header = Some([(KEY.to_string(), old)].into());
        let old = safetensors::serialize(SafeTensors::deserialize(&bytes).unwrap().tensors(), header).unwrap();
        let found = Checkpoint::decode(Path::new("x"), &old).unwrap();
        assert_eq!(found, Checkpoint { images: None, ..saved });
    }

    #[test]
    fn tensors_have_the_layout_of_pytorch() {
        let saved = checkpoint();
        let bytes = saved.encode().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor("encoder.logvar.weight").unwrap();
        assert_eq!(view.shape(), [2, 3]); // [out, in]
        let values: Vec<f32> = view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let heads = &saved.slots["encoder.heads.weight"]; // [3, 4]: columns 2 and 3 are the log-variance
        assert_eq!(values, [heads[2], heads[6], heads[10], heads[3], heads[7], heads[11]]);
    }

    #[test]
    fn every_kind_of_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        let refuses = |bytes: &[u8], words: &[&str]| {
            fs::write(&path, bytes).unwrap();
            let message = Checkpoint::load(&path).unwrap_err().to_string();
            words.iter().for_each(|w| assert!(message.contains(w), "{message}\ndoes not say {w}"));
        };
        let good = checkpoint().encode().unwrap();
        refuses(&good[..good.len() - 5], &["c.safetensors", "complete"]);
        refuses(b"", &["0 bytes"]);
        refuses(b"not a checkpoint at all", &["safetensors"]);
        let mut nan = checkpoint();
        nan.slots.get_mut("decoder.logits.weight").unwrap()[3] = f32::NAN;
        refuses(&nan.encode().unwrap(), &["tensor decoder.logits.weight", "NaN", "finite"]);
        let text = String::from_utf8_lossy(&good[8..]).into_owned();
        let swap = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let at = 8 + text.find(from).unwrap();
            let mut bytes = good.clone();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            bytes
        };
        refuses(&swap("\"encoder.mu.weight\"", "\"encoder.mu.wieght\""), &["encoder.mu.weight", "no such tensor"]);
        refuses(&swap("\\\"latent\\\":2", "\\\"latent\\\":3"), &["[3, 3]", "[2, 3]"]);
        refuses(&swap("\\\"latent\\\":2", "\\\"latent\\\":0"), &["latent", "0"]);
        refuses(&swap("\\\"version\\\":2", "\\\"version\\\":3"), &["version", "3"]);
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        refuses(&flipped, &["tensor encoder.mu.weight", "hash", "whole"]);
        refuses(&swap("\"elbo\"", "\"oble\""), &["elbo", "no such key"]);
        let file = SafeTensors::deserialize(&good).unwrap();
        let (_, header) = SafeTensors::read_metadata(&good).unwrap();
        let mut tensors = file.tensors();
        tensors.push(("encoder.9.bias".into(), TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap()));
        let more = safetensors::serialize(tensors, header.metadata().clone()).unwrap();
        refuses(&more, &["tensor encoder.9.bias", "does not name"]);
    }
}
