//! Named arrays in a file, for any model: parameters, moments, whatever a state is made of.
//!
//! The format is [safetensors](https://github.com/huggingface/safetensors): a header in JSON, then plain arrays, which
//! PyTorch, NumPy and others read. What else belongs to the file is text in the header's `__metadata__`. One key of it is
//! written here: `xxh3` has, as JSON, the type and the hash of every tensor's bytes, so that a file that was damaged on its way
//! is not taken for a model. In Python that is `"f32:" + xxhash.xxh3_64_hexdigest(array.tobytes())`. It tells accidents, not
//! forgery. A tensor that another program has stored in another type is no longer the one that was hashed, and is not
//! compared.
//!
//! How a parameter lies in the file, where PyTorch wants it otherwise than it is in memory, its
//! [`Param`] says.
//!
//! ```
//! use elbo::engine::tensors::{Metadata, Stored, NamedArray, load_tensors, save_tensors};
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("net.safetensors");
//! let metadata = Metadata::from([("title".into(), "a line".into())]);
//! let weight = NamedArray { name: "weight".into(), shape: vec![1, 2], values: vec![2.0, 1.0] };
//! save_tensors(&path, &metadata, [weight.clone()], Stored::F32)?;
//! assert_eq!(load_tensors(&path)?, (metadata, vec![weight]));
//! # Ok::<(), elbo::Error>(())
//! ```

mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

pub use stored::Stored;

use crate::engine::error::{Error, Result};
use crate::engine::file::{Disk, Files};
use crate::engine::params::{AVERAGE, Param};

/// Text beside the tensors, by name.
pub type Metadata = BTreeMap<String, String>;

const REMEDY: &str = "use a file of the same model";
const AVERAGED: &str = "the file has averages of parameters: restore it into a state for Params::averaged()";
const PLAIN: &str = "the file has no averages of parameters: restore it into a state for the Params without them";

/// The key of the tensors' hashes in the metadata.
const HASHES: &str = "xxh3";

/// An array with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedArray {
    /// Its name in the file.
    pub name: String,
    /// Its shape, of any rank.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub values: Vec<f32>,
}

impl NamedArray {
    /// The tensors that a parameter of these values is stored as, their names after `prefix`.
    pub fn of_param<'a>(prefix: &'a str, param: &'a Param, values: &'a [f32]) -> impl Iterator<Item = NamedArray> + 'a {
        param.tensors.iter().map(move |tensor| NamedArray {
            name: format!("{prefix}{}", tensor.name),
            shape: tensor.shape.clone(),
            values: tensor.positions().map(|i| values[i]).collect(),
        })
    }
}

/// Writes tensors and metadata to `path`, whole or not at all, every number rounded to `stored`.
///
/// # Errors
/// As [`encode`]; [`Error::Io`] when the file cannot be written.
///
/// # Panics
/// As [`encode`].
pub fn save_tensors(
    path: &Path,
    metadata: &Metadata,
    tensors: impl IntoIterator<Item = NamedArray>,
    stored: Stored,
) -> Result<()> {
    Disk.replace(path, &encode(metadata, tensors, stored)?)
}

/// Reads the metadata and all tensors of a file, in the order of their names.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; as [`TensorFile::parse`] and [`TensorFile::tensor`].
pub fn load_tensors(path: &Path) -> Result<(Metadata, Vec<NamedArray>)> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let file = TensorFile::parse(path, &bytes)?;
    let tensors = file.names().into_iter().map(|name| {
        let shape = file.shape(name).to_vec();
        Ok(NamedArray { name: name.into(), values: file.tensor(name, &shape)?, shape })
    });
    Ok((file.metadata.clone(), tensors.collect::<Result<_>>()?))
}

/// The bytes of a file with these tensors and this metadata. Equal arguments give equal bytes.
///
/// # Errors
/// [`Error::Argument`] naming the tensor when a finite number is too large for `stored`.
///
/// # Panics
/// If two tensors have one name, or a shape another number of elements than there are values.
pub fn encode(metadata: &Metadata, tensors: impl IntoIterator<Item = NamedArray>, stored: Stored) -> Result<Vec<u8>> {
    let mut arrays: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for NamedArray { name, shape, values } in tensors {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "tensor {name}: shape {shape:?} and its elements");
        let bytes = stored.encode(values.into_iter()).map_err(|value| {
            let expected = format!("at most {} in magnitude in {stored}; export in another type", stored.largest());
            Error::argument(&format!("tensor {name}"), value, expected)
        })?;
        assert!(arrays.insert(name.clone(), (shape, bytes)).is_none(), "two tensors are named {name}");
    }
    let header = header(metadata, &arrays, stored);
    let size = header.len() + arrays.values().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let mut file = Vec::with_capacity(8 + size);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header);
    arrays.values().for_each(|(_, bytes)| file.extend(bytes));
    Ok(file)
}

/// The header, its length a multiple of eight. The crate that reads the format keeps metadata in a hash map: written by it, two
/// keys would change places from run to run.
fn header(metadata: &Metadata, arrays: &BTreeMap<String, (Vec<usize>, Vec<u8>)>, stored: Stored) -> Vec<u8> {
    let hashes: BTreeMap<&String, String> = arrays.iter().map(|(name, (_, b))| (name, hash(stored, b))).collect();
    let mut text = metadata.clone();
    text.insert(HASHES.into(), serde_json::to_string(&hashes).expect("names and numbers"));
    let mut entries = serde_json::Map::from_iter([("__metadata__".to_string(), json!(text))]);
    let mut start = 0;
    for (name, (shape, bytes)) in arrays {
        let end = start + bytes.len();
        let entry = json!({ "dtype": stored.dtype(), "shape": shape, "data_offsets": [start, end] });
        entries.insert(name.clone(), entry);
        start = end;
    }
    let mut header = serde_json::to_vec(&entries).expect("names and numbers");
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

/// `f32:0123456789abcdef`: the type and the hash of a tensor's bytes.
fn hash(stored: Stored, bytes: &[u8]) -> String {
    format!("{stored}:{:016x}", xxh3_64(bytes))
}

/// A file that was read, its tensors not yet taken out.
pub struct TensorFile<'b> {
    path: &'b Path,
    tensors: SafeTensors<'b>,
    hashes: BTreeMap<String, String>,
    /// The text beside the tensors.
    pub metadata: Metadata,
}

impl<'b> TensorFile<'b> {
    /// Reads the header in the bytes of the file `path`.
    ///
    /// # Errors
    /// [`Error::File`] when they are no whole safetensors file.
    pub fn parse(path: &'b Path, bytes: &'b [u8]) -> Result<TensorFile<'b>> {
        let wrong = |field: &str, found: String, expected: &str| Error::File {
            path: path.into(),
            field: field.into(),
            found,
            expected: expected.into(),
            remedy: "use a copy of the file that is whole".into(),
        };
        let damaged = |e| wrong("file", format!("{} bytes: {e}", bytes.len()), "a complete safetensors file");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let mut metadata: Metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let hashes = metadata.remove(HASHES).map_or(Ok(BTreeMap::new()), |text| serde_json::from_str(&text));
        let hashes =
            hashes.map_err(|e| wrong("__metadata__.xxh3", e.to_string(), "a hash for the name of each tensor"))?;
        Ok(TensorFile { path, tensors, hashes, metadata })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.names().into_iter().collect();
        names.sort_unstable();
        names
    }

    /// The shape of a tensor; empty if there is none of that name.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors.tensor(name).map_or(Vec::new(), |view| view.shape().to_vec())
    }

    /// The elements of a tensor, after a look at its shape, its type and its hash.
    ///
    /// # Errors
    /// [`Error::File`] naming the tensor, what the file has there and what belongs there.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let expected = || format!("f32, bf16 or f16 {shape:?}");
        let view = self.tensors.tensor(name);
        let view = view.map_err(|_| {
            let remedy = if name.starts_with(AVERAGE) { PLAIN } else { REMEDY };
            self.wrong(name, "no such tensor".into(), expected(), remedy)
        })?;
        let stored = Stored::of(view.dtype()).filter(|_| view.shape() == shape);
        let found = || format!("{:?} {:?}", view.dtype(), view.shape());
        let stored = stored.ok_or_else(|| self.wrong(name, found(), expected(), REMEDY))?;
        self.must_be_whole(name, stored, &view)?;
        Ok(stored.decode(view.data()).collect())
    }

    /// The values of parameters, each put together from its tensors, whose names come after a prefix, in the order of
    /// `params`.
    ///
    /// # Errors
    /// As [`TensorFile::tensor`]; [`Error::File`] also for a number that is not finite, and for a tensor that is none of theirs.
    pub fn params<'p>(&self, params: impl IntoIterator<Item = (&'p str, &'p Param)>) -> Result<Vec<Vec<f32>>> {
        let mut unknown: BTreeSet<&str> = self.names().into_iter().collect();
        let mut read = |prefix: &str, param: &Param| {
            let mut array = vec![0.0; param.shape.size()];
            for tensor in &param.tensors {
                let name = format!("{prefix}{}", tensor.name);
                let values = self.tensor(&name, &tensor.shape)?;
                if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                    return Err(self.wrong(&name, value.to_string(), "finite numbers".into(), REMEDY));
                }
                tensor.positions().zip(values).for_each(|(position, value)| array[position] = value);
                unknown.remove(&name[..]);
            }
            Ok(array)
        };
        let arrays = params.into_iter().map(|(prefix, param)| read(prefix, param)).collect::<Result<_>>()?;
        let Some(name) = unknown.first() else { return Ok(arrays) };
        let remedy = if name.starts_with(AVERAGE) { AVERAGED } else { REMEDY };
        Err(self.wrong(name, "a tensor".into(), "no tensor that the model does not name".into(), remedy))
    }

    fn must_be_whole(&self, name: &str, stored: Stored, view: &TensorView) -> Result<()> {
        let Some(written) = self.hashes.get(name).filter(|hash| hash.starts_with(&format!("{stored}:"))) else {
            return Ok(());
        };
        let found = hash(stored, view.data());
        if found == *written {
            return Ok(());
        }
        let remedy = "use a copy that is whole; a program that changes tensors on purpose has to leave out the key xxh3 of \
                      the metadata";
        Err(self.wrong(name, format!("numbers with the hash {found}"), format!("{written}, as written"), remedy))
    }

    /// What is wrong with a tensor.
    fn wrong(&self, tensor: &str, found: String, expected: String, remedy: &str) -> Error {
        let field = format!("tensor {tensor}");
        Error::File { path: self.path.into(), field, found, expected, remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize]) -> NamedArray {
        let count = shape.iter().product::<usize>();
        NamedArray { name: name.into(), shape: shape.into(), values: (0..count).map(|i| i as f32 - 1.5).collect() }
    }

    fn file(stored: Stored) -> Vec<u8> {
        let metadata = Metadata::from([("b".into(), "2".into()), ("a".into(), "\"1\"".into())]);
        encode(&metadata, [tensor("up.weight", &[2, 3, 1, 2]), tensor("scale", &[]), tensor("a.bias", &[3])], stored)
            .unwrap()
    }

    #[test]
    fn tensors_of_any_rank_come_back_with_their_metadata() {
        let path = Path::new("x");
        for &stored in Stored::ALL {
            let bytes = file(stored);
            assert_eq!(bytes, file(stored), "the same bytes each time");
            let read = TensorFile::parse(path, &bytes).unwrap();
            assert_eq!(read.names(), ["a.bias", "scale", "up.weight"]);
            assert_eq!(read.metadata["a"], "\"1\"");
            assert_eq!(read.metadata.len(), 2, "the hashes are no metadata of the caller's");
            for (name, shape) in [("a.bias", &[3][..]), ("scale", &[]), ("up.weight", &[2, 3, 1, 2])] {
                assert_eq!(read.tensor(name, shape).unwrap(), tensor(name, shape).values, "{stored} {name}");
                assert_eq!(read.shape(name), shape);
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_format_s_own_crate() {
        let bytes = file(Stored::F32);
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let again = safetensors::serialize(read.tensors(), None).unwrap();
        let data = |bytes: &[u8]| bytes[8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize..].to_vec();
        assert_eq!(data(&bytes), data(&again));
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let good = file(Stored::Bf16);
        let data = good.len() - 2 * (12 + 1 + 3);
        for at in data..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let read = TensorFile::parse(Path::new("net.safetensors"), &bad).unwrap();
            let failed: Vec<String> = read
                .names()
                .iter()
                .filter_map(|name| read.tensor(name, &read.shape(name)).err())
                .map(|e| e.to_string())
                .collect();
            let name = ["a.bias", "scale", "up.weight"][usize::from(at >= data + 6) + usize::from(at >= data + 8)];
            let said = failed.len() == 1 && failed[0].starts_with(&format!("net.safetensors: tensor {name}: "));
            assert!(said, "byte {at}: {failed:?}");
        }
    }

    #[test]
    fn what_another_program_stored_smaller_is_read() {
        let (whole, small) = (file(Stored::F32), file(Stored::F16));
        let header = SafeTensors::read_metadata(&whole).unwrap().1.metadata().clone();
        let converted = safetensors::serialize(SafeTensors::deserialize(&small).unwrap().tensors(), header).unwrap();
        let read = TensorFile::parse(Path::new("x"), &converted).unwrap();
        assert_eq!(read.tensor("a.bias", &[3]).unwrap(), [-1.5, -0.5, 0.5]);
    }

    #[test]
    fn a_tensor_of_another_shape_or_type_is_named() {
        let view = TensorView::new(safetensors::Dtype::F64, vec![1], &[0; 8]).unwrap();
        let bytes = safetensors::serialize([("w", view)], None).unwrap();
        let read = TensorFile::parse(Path::new("x"), &bytes).unwrap();
        for (name, found) in [("w", "F64 [1]"), ("v", "no such tensor")] {
            let message = read.tensor(name, &[1]).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(found) && message.contains("bf16"), "{message}");
        }
    }

    #[test]
    #[should_panic(expected = "tensor w: shape [2, 2]")]
    fn a_shape_that_does_not_fit_is_the_callers_mistake() {
        let _ = encode(&Metadata::new(), [NamedArray { shape: vec![2, 2], ..tensor("w", &[3]) }], Stored::F32);
    }
}
