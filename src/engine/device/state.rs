//! The memory of a model: its arrays, what the optimiser keeps of them, and the data sets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Memory, Moment, Values};
use crate::engine::error::{Error, Result};
use crate::engine::params::{AVERAGE, Param, Params};
use crate::engine::tensors::{NamedArray, Stored, TensorFile, save_tensors};

/// Arrays of all parameters of one kind, with the prefix of their names in a file.
pub(crate) type ArrayKind = (&'static str, Moment);

/// What a file has of every array, with the prefix of the tensors' names: the values, and for a training that is to go on
/// the moments.
const KINDS: [ArrayKind; 3] = [("", Moment::Value), ("first.", Moment::First), ("second.", Moment::Second)];
/// The number of updates, in the metadata of a file that has moments.
const UPDATES: &str = "updates";

/// Parameters with their moments, buffers and data sets, by name, in the memory of the
/// [`Executor`](super::Executor) that made it.
pub struct State {
    memory: Box<dyn Memory>,
    params: Params,
    rows: BTreeMap<String, usize>,
    /// The number of updates made: Adam's t, and what schedules are functions of.
    pub updates: u64,
}

impl State {
    pub(super) fn new(memory: Box<dyn Memory>, params: Params) -> State {
        State { memory, params, rows: BTreeMap::new(), updates: 0 }
    }

    pub(super) fn memory(&mut self) -> &mut dyn Memory {
        self.memory.as_mut()
    }

    /// The arrays it holds, in the order of their memory.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Reads a parameter or buffer, row-major.
    ///
    /// # Errors
    /// [`Error::Slot`] when there is none of this name.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.memory.read(name, Moment::Value)
    }

    /// Writes a parameter or buffer.
    ///
    /// # Errors
    /// [`Error::Slot`] when there is none of this name or its size differs.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        self.memory.write(name, Moment::Value, values)
    }

    /// Changes every parameter for its [moving average](crate::engine::graph::Graph::average), and the average for the
    /// parameter: what is computed then is computed by the averages, and a second call changes them back, so that the
    /// training can go on.
    ///
    /// # Errors
    /// [`Error::Slot`] when the state was not made for [`Params::averaged`]; from the device.
    pub fn swap_averages(&mut self) -> Result<()> {
        let averages: Vec<String> = self
            .params
            .iter()
            .filter_map(|p| p.name.strip_prefix(AVERAGE))
            .map(String::from)
            .filter(|name| self.params.get(name).is_some())
            .collect();
        if averages.is_empty() {
            let problem = "the state has no averages: make it for Params::averaged()".into();
            return Err(Error::Slot { name: AVERAGE.into(), problem });
        }
        for name in averages {
            let average = format!("{AVERAGE}{name}");
            let (p, a) = (self.read(&name)?, self.read(&average)?);
            self.write(&name, &a)?;
            self.write(&average, &p)?;
        }
        Ok(())
    }

    /// Reads a parameter or an optimiser's moment of it.
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn read_moment(&self, name: &str, moment: Moment) -> Result<Vec<f32>> {
        self.memory.read(name, moment)
    }

    /// Writes a parameter or an optimiser's moment of it.
    ///
    /// # Errors
    /// As [`State::write`].
    pub fn write_moment(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()> {
        self.memory.write(name, moment, values)
    }

    /// Loads a data set in rows of `columns` numbers, bytes or floats, replacing what was there.
    ///
    /// # Errors
    /// [`Error::Slot`] when the numbers are not whole rows; [`Error::Device`] when there is no room for them.
    pub fn load<'a>(&mut self, name: &str, values: impl Into<Values<'a>>, columns: usize) -> Result<()> {
        let values = values.into();
        self.memory.load(name, values, columns)?;
        self.rows.insert(name.into(), values.len() / columns);
        Ok(())
    }

    /// The number of rows of a data set.
    ///
    /// # Errors
    /// [`Error::Slot`] when none of this name was loaded.
    pub fn rows(&self, name: &str) -> Result<usize> {
        let missing = || Error::Slot { name: name.into(), problem: "no data was loaded under this name".into() };
        self.rows.get(name).copied().ok_or_else(missing)
    }

    /// Writes the parameters and buffers to a [safetensors](https://github.com/huggingface/safetensors) file in f32, whole or
    /// not at all, and makes the folders that are missing above it. A layer's weight is `[out, in]`, as PyTorch's `nn.Linear`
    /// has it; names are those of the parameters.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.write_file(path, &KINDS[..1])
    }

    /// As [`State::save`], with the optimiser's moments (`first.…`, `second.…`) and the number of updates: a training can
    /// go on from it.
    ///
    /// # Errors
    /// As [`State::save`].
    pub fn save_with_moments(&self, path: &Path) -> Result<()> {
        self.write_file(path, &KINDS)
    }

    /// Reads what [`State::save`] or [`State::save_with_moments`] wrote. From a file without moments, moments and the number
    /// of updates become zero.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::File`] when it is no safetensors file, or a tensor is missing, has
    /// another shape, or is none of this model's. The state stays as it was.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let file = TensorFile::parse(path, &bytes)?;
        let number = |text: &String| {
            text.parse().map_err(|_| Error::File {
                path: path.into(),
                field: format!("__metadata__.{UPDATES}"),
                found: text.clone(),
                expected: "a number of updates".into(),
                remedy: "use a file that was saved with the moments".into(),
            })
        };
        let updates = file.metadata.get(UPDATES).map(number).transpose()?;
        let (stored, zero) = KINDS.split_at(if updates.is_some() { KINDS.len() } else { 1 });
        let params = self.params.clone();
        let arrays = file.params(arrays(&params, stored).map(|(prefix, _, param)| (prefix, param)))?;
        for ((_, moment, param), values) in self::arrays(&params, stored).zip(arrays) {
            self.memory.write(&param.name, moment, &values)?;
        }
        for (_, moment, param) in self::arrays(&params, zero) {
            self.memory.write(&param.name, moment, &vec![0.0; param.shape.size()])?;
        }
        self.updates = updates.unwrap_or(0);
        Ok(())
    }

    fn write_file(&self, path: &Path, kinds: &[ArrayKind]) -> Result<()> {
        let mut tensors = Vec::new();
        for (prefix, moment, param) in arrays(&self.params, kinds) {
            tensors.extend(NamedArray::of_param(prefix, param, &self.memory.read(&param.name, moment)?));
        }
        let updates = (kinds.len() > 1).then(|| (UPDATES.into(), self.updates.to_string()));
        save_tensors(path, &updates.into_iter().collect(), tensors, Stored::F32)
    }
}

/// Every array of these kinds. A buffer has no moments.
fn arrays<'a>(params: &'a Params, kinds: &'a [ArrayKind]) -> impl Iterator<Item = (&'static str, Moment, &'a Param)> {
    let of = |param| kinds.iter().map(move |&(prefix, moment)| (prefix, moment, param));
    params.iter().flat_map(of).filter(|(_, moment, param)| *moment == Moment::Value || param.trainable)
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::engine::device::{Call, Executor, Key};
    use crate::engine::graph::Graph;
    use crate::engine::optim::Optimizer;

    /// A layer and a buffer after three updates, on the reference.
    fn trained(steps: usize) -> State {
        let mut params = Params::new();
        let layer = params.linear("layer", 3, 2);
        params.buffer("seen", &[2], |_| vec![0.0; 2]);
        // No matrix, as the weights of a convolution are not.
        params.declare("kernel", &[2, 1, 3, 2], |_| (0..12).map(|i| i as f32).collect());
        let executor = Executor::reference();
        let mut state = executor.state(&params, 7).unwrap();
        let g = Graph::new();
        let y = layer.apply(g.tensor(&[1, 3], &[1.0, -2.0, 0.5]));
        g.store("seen", y.reshape(&[2]));
        let bent = g.param("kernel", &[2, 1, 3, 2]).tanh().sum_all();
        g.minimise(y.square().sum_all() + bent, &params, Optimizer::adam(), 0.1, None);
        let mut train = executor.compile(&g, []).unwrap();
        train.run(&mut state, &Call { steps, ..Call::once(Key::new(0)) }).unwrap();
        state
    }

    fn everything(state: &State) -> (u64, Vec<Vec<f32>>) {
        let read = |(_, moment, param): (&str, Moment, &Param)| state.read_moment(&param.name, moment).unwrap();
        (state.updates, arrays(&state.params, &KINDS).map(read).collect())
    }

    #[test]
    fn what_is_saved_is_restored_and_lies_as_in_pytorch() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/net.safetensors");
        let saved = trained(3);
        saved.save_with_moments(&path).unwrap();
        let mut other = trained(1);
        other.restore(&path).unwrap();
        assert_eq!(everything(&other), everything(&saved));
        saved.save(&path).unwrap();
        other.restore(&path).unwrap();
        assert_eq!((other.updates, other.read("layer.weight").unwrap()), (0, saved.read("layer.weight").unwrap()));
        assert_eq!(other.read_moment("layer.bias", Moment::First).unwrap(), [0.0; 2]);
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (w, weight) = (file.tensor("layer.weight").unwrap(), saved.read("layer.weight").unwrap());
        let transposed: Vec<u8> = [0, 2, 4, 1, 3, 5].iter().flat_map(|&i: &usize| weight[i].to_le_bytes()).collect();
        assert_eq!((w.shape(), w.data()), (&[2, 3][..], &transposed[..]));
        assert_eq!(file.tensor("kernel").unwrap().shape(), [2, 1, 3, 2]);
    }

    #[test]
    fn a_file_of_another_model_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        let mut state = trained(2);
        let before = everything(&state);
        let mut refuses = |bytes: &[u8], words: [&str; 2]| {
            fs::write(&path, bytes).unwrap();
            let message = state.restore(&path).unwrap_err().to_string();
            words.iter().for_each(|word| assert!(message.contains(word), "{message}\nlacks {word}"));
            assert_eq!(everything(&state), before);
        };
        trained(2).save_with_moments(&path).unwrap();
        let good = fs::read(&path).unwrap();
        let swap = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            [&good[..at], to.as_bytes(), &good[at + to.len()..]].concat()
        };
        refuses(&good[..good.len() - 1], ["bytes", "a complete safetensors file"]);
        refuses(&swap("\"layer.bias\"", "\"layer.bais\""), ["tensor layer.bias", "no such tensor"]);
        refuses(&swap("\"shape\":[2,3]", "\"shape\":[3,2]"), ["F32 [3, 2]", "bf16 or f16 [2, 3]"]);
        refuses(&swap("\"updates\":\"2\"", "\"updates\":\"x\""), ["__metadata__.updates", "a number"]);
        refuses(&swap("\"updates\"", "\"repairs\""), ["tensor first.kernel", "does not name"]);
    }
}
