//! Named memory that outlives a step, on the host.

use std::collections::{BTreeMap, HashMap};

use super::Moment;
use super::room::must_fit;
use crate::engine::error::{Error, Result};
use crate::engine::graph::{SlotInfo, SlotKind};
use crate::engine::shape::Shape;
use crate::engine::steps::Bytes;

/// What is done about a model that does not fit.
pub(crate) const SMALLER: &str = "choose a smaller --hidden, --latent or --batch";

/// A cache line; arrays of it start on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// An array of f32 that starts on a cache line and never moves.
///
/// It is held by its address and not as a `Box`, because the launches of bound plans keep addresses into it: a `Box`
/// claims to be the only way to its content whenever it is moved or borrowed, which would make those invalid.
pub(crate) struct Aligned {
    lines: *mut [Line],
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
        Aligned { lines: Box::into_raw(vec![Line([0.0; 16]); len.div_ceil(16)].into_boxed_slice()), len }
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

/// Parameters that were first seen together: one flat array each for values and moments.
struct Block {
    p: Aligned,
    m: Aligned,
    v: Aligned,
}

/// Where a slot's memory is.
#[derive(Clone, Copy)]
enum Home {
    Param { block: usize, offset: usize },
    State(usize),
}

/// A data set of bytes, row by row.
struct Data {
    bytes: Vec<u8>,
    cols: usize,
}

/// The number of rows of `cols` bytes that a data set has.
pub(super) fn whole_rows(name: &str, bytes: &[u8], cols: usize) -> Result<usize> {
    let rows = bytes.len().checked_div(cols).filter(|rows| rows * cols == bytes.len());
    rows.filter(|&rows| u32::try_from(rows).is_ok()).ok_or_else(|| {
        let problem = format!("{} bytes are not whole rows of {cols} (at most 2^32 − 1 rows)", bytes.len());
        Error::Slot { name: name.into(), problem }
    })
}

/// The data slots that bound plans read, with what was loaded into them.
pub(super) struct DataSlots<D>(BTreeMap<String, Option<D>>);

impl<D> Default for DataSlots<D> {
    fn default() -> DataSlots<D> {
        DataSlots(BTreeMap::new())
    }
}

impl<D> DataSlots<D> {
    /// Takes note of the data slots of a plan.
    pub(super) fn admit(&mut self, slots: &[SlotInfo]) {
        for slot in slots.iter().filter(|s| s.kind == SlotKind::Data) {
            self.0.entry(slot.name.clone()).or_insert(None);
        }
    }

    /// What a slot holds, to be replaced.
    pub(super) fn entry(&mut self, name: &str) -> Result<&mut Option<D>> {
        let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let problem = format!("no bound plan reads data of this name; known are {}", known.join(", "));
        self.0.get_mut(name).ok_or(Error::Slot { name: name.into(), problem })
    }

    pub(super) fn get(&self, name: &str) -> Result<&D> {
        let missing = || Error::Slot { name: name.into(), problem: "no data was loaded; call set_data first".into() };
        self.0.get(name).and_then(Option::as_ref).ok_or_else(missing)
    }
}

/// Everything that plans bound to one executor share, by slot name.
#[derive(Default)]
pub(crate) struct Memory {
    blocks: Vec<Block>,
    states: Vec<Aligned>,
    homes: HashMap<String, (Home, Shape)>,
    /// Parameter names in the order of their memory.
    params: Vec<String>,
    data: DataSlots<Data>,
}

/// The addresses of a parameter and its moments.
#[derive(Clone, Copy)]
pub(crate) struct ParamPtrs {
    pub p: *mut f32,
    pub m: *mut f32,
    pub v: *mut f32,
}

impl Memory {
    /// Makes sure that every slot of a plan has memory; new parameters lie one after the other.
    pub(crate) fn admit(&mut self, slots: &[SlotInfo]) -> Result<()> {
        for slot in slots {
            if let Some((home, shape)) = self.homes.get(&slot.name) {
                let same_kind = matches!(home, Home::Param { .. }) == (slot.kind == SlotKind::Param);
                if *shape != slot.shape || !same_kind {
                    let problem =
                        format!("this plan wants {:?} {}, an earlier one made it {shape}", slot.kind, slot.shape);
                    return Err(Error::Slot { name: slot.name.clone(), problem });
                }
            }
        }
        self.data.admit(slots);
        let new: Vec<&SlotInfo> = slots.iter().filter(|s| !self.homes.contains_key(&s.name)).collect();
        // A parameter has a value and two moments, and a fourth array holds its initial values while they are drawn.
        let words = |s: &&SlotInfo| s.shape.size() as u64 * if s.kind == SlotKind::Param { 4 } else { 1 };
        must_fit(4 * new.iter().map(words).sum::<u64>(), "a model of this size", SMALLER)?;
        let mut len = 0;
        for slot in new.iter().filter(|s| s.kind == SlotKind::Param) {
            let home = Home::Param { block: self.blocks.len(), offset: len };
            self.homes.insert(slot.name.clone(), (home, slot.shape));
            self.params.push(slot.name.clone());
            len += slot.shape.size();
        }
        if len > 0 {
            self.blocks.push(Block { p: Aligned::zeroed(len), m: Aligned::zeroed(len), v: Aligned::zeroed(len) });
        }
        for slot in new.iter().filter(|s| s.kind == SlotKind::State) {
            self.homes.insert(slot.name.clone(), (Home::State(self.states.len()), slot.shape));
            self.states.push(Aligned::zeroed(slot.shape.size()));
        }
        Ok(())
    }

    fn home(&self, name: &str) -> Result<(Home, Shape)> {
        self.homes.get(name).copied().ok_or_else(|| {
            let mut known: Vec<&str> = self.homes.keys().map(String::as_str).collect();
            known.sort_unstable();
            Error::Slot { name: name.into(), problem: format!("no bound plan uses it; known are {}", known.join(", ")) }
        })
    }

    /// The address of a parameter or state that was admitted.
    pub(crate) fn ptr(&self, name: &str) -> *mut f32 {
        match self.homes[name].0 {
            // SAFETY: the offset lies inside the block.
            Home::Param { block, offset } => unsafe { self.blocks[block].p.ptr().add(offset) },
            Home::State(i) => self.states[i].ptr(),
        }
    }

    /// The addresses of a parameter that was admitted.
    pub(crate) fn param_ptrs(&self, name: &str) -> ParamPtrs {
        let Home::Param { block, offset } = self.homes[name].0 else { unreachable!("{name} is a parameter") };
        let b = &self.blocks[block];
        // SAFETY: the offset lies inside the block.
        unsafe { ParamPtrs { p: b.p.ptr().add(offset), m: b.m.ptr().add(offset), v: b.v.ptr().add(offset) } }
    }

    pub(crate) fn read(&self, name: &str, moment: Moment) -> Result<&[f32]> {
        let (home, shape) = self.home(name)?;
        match (home, moment) {
            (Home::Param { block, offset }, _) => {
                let b = &self.blocks[block];
                let array = match moment {
                    Moment::Value => &b.p,
                    Moment::First => &b.m,
                    Moment::Second => &b.v,
                };
                Ok(&array.slice()[offset..][..shape.size()])
            }
            (Home::State(i), Moment::Value) => Ok(self.states[i].slice()),
            (Home::State(_), _) => Err(Error::Slot { name: name.into(), problem: "a state has no moments".into() }),
        }
    }

    pub(crate) fn write(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()> {
        let (home, shape) = self.home(name)?;
        if values.len() != shape.size() {
            let problem = format!("{} numbers were given for shape {shape}", values.len());
            return Err(Error::Slot { name: name.into(), problem });
        }
        let to = match (home, moment) {
            (Home::Param { block, offset }, _) => {
                let b = &mut self.blocks[block];
                let array = match moment {
                    Moment::Value => &mut b.p,
                    Moment::First => &mut b.m,
                    Moment::Second => &mut b.v,
                };
                &mut array.slice_mut()[offset..][..shape.size()]
            }
            (Home::State(i), Moment::Value) => self.states[i].slice_mut(),
            (Home::State(_), _) => {
                return Err(Error::Slot { name: name.into(), problem: "a state has no moments".into() });
            }
        };
        to.copy_from_slice(values);
        Ok(())
    }

    pub(crate) fn params(&self) -> impl Iterator<Item = (&str, Shape)> {
        self.params.iter().map(|name| (name.as_str(), self.homes[name].1))
    }

    pub(crate) fn set_data(&mut self, name: &str, bytes: &[u8], cols: usize) -> Result<()> {
        whole_rows(name, bytes, cols)?;
        *self.data.entry(name)? = Some(Data { bytes: bytes.to_vec(), cols });
        Ok(())
    }

    pub(crate) fn data(&self, name: &str, cols: usize) -> Result<Bytes> {
        let data = self.data.get(name)?;
        if data.cols != cols {
            let problem = format!("rows of {} bytes were loaded, the plan reads rows of {cols}", data.cols);
            return Err(Error::Slot { name: name.into(), problem });
        }
        Ok(Bytes { ptr: data.bytes.as_ptr(), rows: data.bytes.len() / cols, cols })
    }
}
