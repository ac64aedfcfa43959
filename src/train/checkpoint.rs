//! A training run in one file: parameters, the optimiser's moments, configuration and counters.
//!
//! The format is [safetensors](https://github.com/huggingface/safetensors): a header in JSON, then plain arrays. Names
//! and layout are those that PyTorch's `nn.Linear` loads; the module is written out beside
//! [`Piece`]. Configuration and counters are JSON text under the key `elbo` of the header's `__metadata__`.
//! Nothing in it depends on the clock, the number of threads or the machine, so two runs of one seed write the same
//! bytes.
//!
//! A run's own checkpoint is in f32. A tensor may also be stored in f16 or bf16, as PyTorch's `.half()` and `.bfloat16()`
//! make them, if the metadata is kept: it is read into f32 exactly. A file without the optimiser's moments
//! ([`Checkpoint::export`]) is a model that can be used, and not a run that can go on.
//!
//! A file is written beside its final name, synced to the disk and renamed: whenever the power fails, a reader finds
//! the old checkpoint or the new one, whole.

mod stored;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

pub use stored::Stored;

use crate::data::file::replace;
use crate::engine::device::Moment;
use crate::engine::error::{Error, Result};
use crate::engine::optim::Optimizer;
use crate::train::{Progress, TrainConfig};
use crate::vae::{Piece, Vae};

/// The key in the header.
const KEY: &str = "elbo";
/// Raised when the meaning of the header changes.
const VERSION: u32 = 1;
const REMEDY: &str = "use a checkpoint written by `elbo train`, or train again";

/// Everything that a run needs to continue, and a model to be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What is trained, on what, and how.
    pub config: TrainConfig,
    /// How far it got.
    pub progress: Progress,
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
}

/// Arrays of all parameters of one kind, with the prefix of their names.
pub(crate) type Family = (&'static str, Moment);

/// The parameters themselves.
const VALUES: [Family; 1] = [("", Moment::Value)];

/// The arrays that a rule keeps of every parameter: values, then moments.
pub(crate) fn families(rule: &Optimizer) -> &'static [Family] {
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
        self.write(path, families(&self.config.objective.optimizer), Stored::F32)
    }

    /// Writes the parameters alone, rounded to `stored`, to `path`, whole or not at all. The file can be read by
    /// [`Checkpoint::load`], and its tensors by PyTorch; training cannot go on from it.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the tensor when a number is too large for `stored`; [`Error::Io`] when the file cannot
    /// be written, [`Error::Slot`] when a parameter is missing or has a wrong size.
    pub fn export(&self, path: &Path, stored: Stored) -> Result<()> {
        self.write(path, &VALUES, stored)
    }

    /// Whether it has the optimiser's moments, without which a run cannot go on.
    pub fn has_moments(&self) -> bool {
        let (prefix, _) = families(&self.config.objective.optimizer)[1];
        self.slots.keys().any(|name| name.starts_with(prefix))
    }

    fn write(&self, path: &Path, families: &[Family], stored: Stored) -> Result<()> {
        let bytes = self.to_bytes(families, stored)?;
        replace(path, |out| out.write_all(&bytes))?;
        sync_folder(path)
    }

    fn to_bytes(&self, families: &[Family], stored: Stored) -> Result<Vec<u8>> {
        let layout = Vae::new(self.config.model.clone())?.layout();
        let mut arrays: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (prefix, _) in families {
            for piece in &layout {
                let name = format!("{prefix}{}", piece.slot);
                let values = self.slots.get(&name).filter(|v| v.len() == piece.slot_size());
                let problem = || format!("a checkpoint needs its {} numbers", piece.slot_size());
                let values = values.ok_or_else(|| Error::Slot { name, problem: problem() })?;
                let tensor = format!("{prefix}{}", piece.tensor);
                let bytes = stored.encode(piece.positions().map(|i| values[i])).map_err(|value| {
                    let expected =
                        format!("at most {} in magnitude in {stored}; export in another type", stored.largest());
                    Error::argument(&format!("tensor {tensor}"), value, expected)
                })?;
                arrays.push((tensor, piece.shape(), bytes));
            }
        }
        let header = Header { version: VERSION, config: self.config.clone(), progress: self.progress.clone() };
        let text = serde_json::to_string(&header).expect("a configuration is plain data");
        let views = arrays.iter().map(|(name, shape, bytes)| {
            let view =
                TensorView::new(stored.dtype(), shape.clone(), bytes).expect("shape and bytes come from one piece");
            (name.as_str(), view)
        });
        // One key: the crate keeps the metadata in a hash map, whose order would change the bytes from run to run.
        let metadata = HashMap::from([(KEY.to_string(), text)]);
        Ok(safetensors::serialize(views, Some(metadata)).expect("names are distinct and sizes fit"))
    }

    /// Reads a checkpoint, or an exported file, and checks all of it: header, names, shapes, types, and that every number
    /// is finite.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::File`] naming the tensor or field, what it holds and what
    /// belongs there.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let wrong = |field: &str, found: String, expected: &str| Error::File {
            path: path.into(),
            field: field.into(),
            found,
            expected: expected.into(),
            remedy: REMEDY.into(),
        };
        let file = |e: safetensors::SafeTensorError| {
            wrong("file", format!("{} bytes: {e}", bytes.len()), "a complete safetensors file")
        };
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(file)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(file)?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
        let expected = "the configuration of a run of this program";
        let text = text.ok_or_else(|| wrong("__metadata__.elbo", "no such key".into(), expected))?;
        let header: Header =
            serde_json::from_str(text).map_err(|e| wrong("__metadata__.elbo", e.to_string(), expected))?;
        if header.version != VERSION {
            return Err(wrong("version", header.version.to_string(), &VERSION.to_string()));
        }
        let invalid = |e: Error| wrong("__metadata__.elbo", e.to_string(), "a valid configuration");
        header.config.validate().map_err(invalid)?;
        let vae = Vae::new(header.config.model.clone()).map_err(invalid)?;
        let slots = read_tensors(path, &tensors, &vae.layout(), &header.config.objective.optimizer)?;
        Ok(Checkpoint { config: header.config, progress: header.progress, slots })
    }
}

/// All tensors of the layout, put back into slots: parameters, and moments unless the file has none at all.
fn read_tensors(
    path: &Path,
    file: &SafeTensors,
    layout: &[Piece],
    rule: &Optimizer,
) -> Result<BTreeMap<String, Vec<f32>>> {
    let wrong = |field: &str, found: String, expected: String| Error::File {
        path: path.into(),
        field: format!("tensor {field}"),
        found,
        expected,
        remedy: REMEDY.into(),
    };
    let mut slots: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut known = 0;
    let is_moment = |name: &&str| families(rule)[1..].iter().any(|(prefix, _)| name.starts_with(prefix));
    let whole = file.names().into_iter().any(|name| is_moment(&name));
    let families = if whole { families(rule) } else { &VALUES };
    for (prefix, _) in families {
        for piece in layout {
            let name = format!("{prefix}{}", piece.tensor);
            let expected = || format!("f32, bf16 or f16 {:?}", piece.shape());
            let view = file.tensor(&name).map_err(|_| wrong(&name, "no such tensor".into(), expected()))?;
            let stored = Stored::of(view.dtype()).filter(|_| view.shape() == piece.shape());
            let found = || format!("{:?} {:?}", view.dtype(), view.shape());
            let stored = stored.ok_or_else(|| wrong(&name, found(), expected()))?;
            let zeros = || vec![0.0; piece.slot_size()];
            let slot = slots.entry(format!("{prefix}{}", piece.slot)).or_insert_with(zeros);
            for (position, value) in piece.positions().zip(stored.decode(view.data())) {
                if !value.is_finite() {
                    return Err(wrong(&name, value.to_string(), "finite numbers".into()));
                }
                slot[position] = value;
            }
            known += 1;
        }
    }
    if file.len() != known {
        let names = file.names().into_iter().filter(|name| {
            families.iter().all(|(prefix, _)| layout.iter().all(|p| **name != format!("{prefix}{}", p.tensor)))
        });
        let extra = names.min().map_or("?", |name| name);
        return Err(wrong(extra, "a tensor".into(), "no tensor that the configuration does not name".into()));
    }
    Ok(slots)
}

/// Makes the rename of `path` durable: on Unix a name is part of its folder, which has to be synced too. Where `path` is no
/// file (a device, a pipe) nothing was renamed.
fn sync_folder(path: &Path) -> Result<()> {
    if !cfg!(unix) || !path.is_file() {
        return Ok(());
    }
    let path = path.canonicalize().map_err(Error::io("find", path))?;
    let folder = path.parent().expect("a file has a folder");
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::Dtype;

    use super::*;
    use crate::engine::nn::Activation;
    use crate::vae::VaeConfig;

    fn checkpoint() -> Checkpoint {
        let model = VaeConfig { image: [2, 2], activation: Activation::Tanh, ..VaeConfig::new(2).hidden(&[3]) };
        let mut config = TrainConfig::new(model);
        config.lr = crate::engine::optim::LrSchedule::Constant { lr: 0.1 + 0.2 };
        let mut slots = BTreeMap::new();
        for (k, (prefix, _)) in families(&config.objective.optimizer).iter().enumerate() {
            for init in Vae::new(config.model.clone()).unwrap().init(k as u64) {
                slots.insert(format!("{prefix}{}", init.name), init.values);
            }
        }
        let mut progress = Progress::default();
        progress.sums.rec = 1.0 / 3.0;
        progress.updates = 7;
        Checkpoint { config, progress, slots }
    }

    impl Checkpoint {
        fn to_bytes_all(&self) -> Vec<u8> {
            self.to_bytes(families(&self.config.objective.optimizer), Stored::F32).unwrap()
        }
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

    #[test]
    fn tensors_have_the_layout_of_pytorch() {
        let saved = checkpoint();
        let bytes = saved.to_bytes_all();
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
        let good = checkpoint().to_bytes_all();
        refuses(&good[..good.len() - 5], &["c.safetensors", "complete"]);
        refuses(b"", &["0 bytes"]);
        refuses(b"not a checkpoint at all", &["safetensors"]);
        let mut nan = checkpoint();
        nan.slots.get_mut("decoder.logits.weight").unwrap()[3] = f32::NAN;
        refuses(&nan.to_bytes_all(), &["tensor decoder.logits.weight", "NaN", "finite"]);
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
        refuses(&swap("\\\"version\\\":1", "\\\"version\\\":2"), &["version", "2"]);
        refuses(&swap("\"elbo\"", "\"oble\""), &["elbo", "no such key"]);
        let file = SafeTensors::deserialize(&good).unwrap();
        let (_, header) = SafeTensors::read_metadata(&good).unwrap();
        let mut tensors = file.tensors();
        tensors.push(("encoder.9.bias".into(), TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap()));
        let more = safetensors::serialize(tensors, header.metadata().clone()).unwrap();
        refuses(&more, &["tensor encoder.9.bias", "does not name"]);
    }
}
