//! The memory of parameters, buffers and data sets on the host.

use std::any::Any;
use std::collections::HashMap;

use super::data::{DataSets, whole_rows};
use super::room::must_fit;
use super::{Memory, Moment, Values, fresh_number};
use crate::engine::error::{Error, Remedy, Result};
use crate::engine::graph::{SlotInfo, SlotKind};
use crate::engine::params::Params;
use crate::engine::shape::Shape;
use crate::engine::steps::{DataRows, Numbers};

/// A cache line; arrays of it start on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

/// An array of f32 that starts on a cache line and never moves.
///
/// It is held by its address and not as a `Box`, because the launches of bound plans keep addresses into it: a `Box`
/// claims to be the only way to its content whenever it is moved or borrowed, which would make those invalid.
pub(crate) struct Aligned {
    lines: *mut [CacheLine],
    len: usize,
}

// SAFETY: an array of floats, owned; what may be done with its addresses is said where they are used.
unsafe impl Send for Aligned {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for Aligned {}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: the address came from a `Box` of this type, and nothing else frees it.
        drop(unsafe { Box::from_raw(self.lines) });
    }
}

impl Aligned {
    pub(crate) fn zeroed(len: usize) -> Aligned {
        Aligned { lines: Box::into_raw(vec![CacheLine([0.0; 16]); len.div_ceil(16)].into_boxed_slice()), len }
    }

    /// The first element's address. It may be written through as long as the array lives and nobody borrows it.
    pub(crate) fn ptr(&self) -> *mut f32 {
        self.lines.cast()
    }

    pub(crate) fn slice(&self) -> &[f32] {
        // SAFETY: the lines hold at least `len` floats.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.len) }
    }

    pub(crate) fn slice_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.len) }
    }
}

/// Where an array is.
#[derive(Clone, Copy)]
enum HostHome {
    /// In the flat arrays of values and moments, from here on.
    Param(usize),
    Buffer(usize),
}

/// A data set, row by row.
enum HostData {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

/// Everything that functions share, by name.
pub(crate) struct HostMemory {
    /// Tells this memory from all others, for functions whose launches keep addresses into it.
    pub(crate) number: u64,
    /// All parameters, one after the other, and their moments.
    p: Aligned,
    m: Aligned,
    v: Aligned,
    buffers: Vec<Aligned>,
    homes: HashMap<String, (HostHome, Shape)>,
    data: DataSets<HostData>,
}

/// The addresses of a parameter and its moments.
#[derive(Clone, Copy)]
pub(crate) struct ParamPtrs {
    pub p: *mut f32,
    pub m: *mut f32,
    pub v: *mut f32,
}

impl HostMemory {
    pub(crate) fn new(params: &Params) -> Result<HostMemory> {
        // A parameter has a value and two moments, and a fourth array holds its initial values while they are drawn.
        let words = params.iter().map(|p| p.shape.size() as u64 * if p.trainable { 4 } else { 1 });
        must_fit(4 * words.sum::<u64>(), "a model of this size", Remedy::smaller())?;
        let (mut homes, mut buffers, mut len) = (HashMap::new(), Vec::new(), 0);
        for param in params.iter() {
            let home = if param.trainable { HostHome::Param(len) } else { HostHome::Buffer(buffers.len()) };
            match home {
                HostHome::Param(_) => len += param.shape.size(),
                HostHome::Buffer(_) => buffers.push(Aligned::zeroed(param.shape.size())),
            }
            homes.insert(param.name.clone(), (home, param.shape));
        }
        let [p, m, v] = [(); 3].map(|()| Aligned::zeroed(len));
        Ok(HostMemory { number: fresh_number(), p, m, v, buffers, homes, data: DataSets::default() })
    }

    fn home(&self, name: &str) -> Result<(HostHome, Shape)> {
        self.homes.get(name).copied().ok_or_else(|| unknown(name, self.homes.keys()))
    }

    /// Checks that a slot of a graph is there as the graph wants it.
    pub(crate) fn check(&self, slot: &SlotInfo) -> Result<()> {
        let (home, shape) = self.home(&slot.name)?;
        let is_param = matches!(home, HostHome::Param(_));
        check_slot(slot, is_param, shape)
    }

    /// The address of a parameter or buffer that was checked.
    pub(crate) fn ptr(&self, name: &str) -> *mut f32 {
        match self.homes[name].0 {
            // SAFETY: the offset lies inside the array.
            HostHome::Param(offset) => unsafe { self.p.ptr().add(offset) },
            HostHome::Buffer(i) => self.buffers[i].ptr(),
        }
    }

    /// The addresses of a parameter that was checked.
    pub(crate) fn param_ptrs(&self, name: &str) -> ParamPtrs {
        let HostHome::Param(offset) = self.homes[name].0 else { unreachable!("{name} is a parameter") };
        // SAFETY: the offset lies inside the arrays.
        unsafe { ParamPtrs { p: self.p.ptr().add(offset), m: self.m.ptr().add(offset), v: self.v.ptr().add(offset) } }
    }

    /// The rows of a data set for a graph that reads `columns` numbers of each.
    pub(crate) fn rows(&self, name: &str, columns: usize) -> Result<DataRows> {
        let (numbers, count) = match self.data.get(name, columns)? {
            HostData::Bytes(bytes) => (Numbers::Bytes(bytes.as_ptr()), bytes.len()),
            HostData::Floats(floats) => (Numbers::Floats(floats.as_ptr()), floats.len()),
        };
        Ok(DataRows { numbers, count: count / columns.max(1), columns })
    }
}

/// What is said of a name that a memory does not have.
pub(crate) fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    let mut known: Vec<&str> = known.map(String::as_str).collect();
    known.sort_unstable();
    let problem = match known.is_empty() {
        true => "the state has no parameter or buffer of this name, and no other".to_string(),
        false => format!("the state has no parameter or buffer of this name; known are {}", known.join(", ")),
    };
    Error::Slot { name: name.into(), problem }
}

/// Checks kind and shape of an array against what a graph wants.
pub(crate) fn check_slot(slot: &SlotInfo, is_param: bool, shape: Shape) -> Result<()> {
    if shape == slot.shape && is_param == (slot.kind == SlotKind::Param) {
        return Ok(());
    }
    let kind = |is_param: bool| if is_param { "parameter" } else { "buffer" };
    let (wanted, found) = (kind(slot.kind == SlotKind::Param), kind(is_param));
    let problem = format!("the graph wants a {wanted} {}, the state has a {found} {shape}", slot.shape);
    Err(Error::Slot { name: slot.name.clone(), problem })
}

/// Checks the number of values for an array.
pub(crate) fn check_size(name: &str, given: usize, shape: Shape) -> Result<()> {
    if given == shape.size() {
        return Ok(());
    }
    Err(Error::Slot { name: name.into(), problem: format!("{given} numbers were given for shape {shape}") })
}

/// What is said of a moment of an array that no optimiser moves.
pub(crate) fn no_moments(name: &str) -> Error {
    Error::Slot { name: name.into(), problem: "a buffer has no moments".into() }
}

impl Memory for HostMemory {
    fn read(&self, name: &str, moment: Moment) -> Result<Vec<f32>> {
        let (home, shape) = self.home(name)?;
        let array = match (home, moment) {
            (HostHome::Param(_), Moment::Value) => &self.p,
            (HostHome::Param(_), Moment::First) => &self.m,
            (HostHome::Param(_), Moment::Second) => &self.v,
            (HostHome::Buffer(i), Moment::Value) => &self.buffers[i],
            (HostHome::Buffer(_), _) => return Err(no_moments(name)),
        };
        let offset = if let HostHome::Param(offset) = home { offset } else { 0 };
        Ok(array.slice()[offset..][..shape.size()].to_vec())
    }

    fn write(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()> {
        let (home, shape) = self.home(name)?;
        check_size(name, values.len(), shape)?;
        let array = match (home, moment) {
            (HostHome::Param(_), Moment::Value) => &mut self.p,
            (HostHome::Param(_), Moment::First) => &mut self.m,
            (HostHome::Param(_), Moment::Second) => &mut self.v,
            (HostHome::Buffer(i), Moment::Value) => &mut self.buffers[i],
            (HostHome::Buffer(_), _) => return Err(no_moments(name)),
        };
        let offset = if let HostHome::Param(offset) = home { offset } else { 0 };
        array.slice_mut()[offset..][..shape.size()].copy_from_slice(values);
        Ok(())
    }

    fn load(&mut self, name: &str, values: Values<'_>, columns: usize) -> Result<()> {
        whole_rows(name, values, columns)?;
        let data = match values {
            Values::Bytes(bytes) => {
                must_fit(bytes.len() as u64, "the data set", "take fewer rows")?;
                HostData::Bytes(bytes.to_vec())
            }
            Values::Floats(floats) => {
                must_fit(4 * floats.len() as u64, "the data set", "take fewer rows")?;
                HostData::Floats(floats.to_vec())
            }
        };
        self.data.insert(name, data, columns);
        Ok(())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
