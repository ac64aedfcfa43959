//! Slots on the device: which array of which allocation belongs to which name. Twin of `device/memory.rs`.

use std::collections::HashMap;
use std::rc::Rc;

use super::driver::{Address, Buffer, Driver};
use crate::engine::device::Moment;
use crate::engine::device::memory::{DataSlots, whole_rows};
use crate::engine::error::{Error, Result};
use crate::engine::graph::{SlotInfo, SlotKind};
use crate::engine::shape::Shape;

/// Arrays begin at multiples of so many floats: 256 bytes, as an allocation of its own would.
const ALIGN: usize = 64;

/// Where a slot's numbers are.
#[derive(Clone, Copy)]
struct Home {
    shape: Shape,
    value: Address,
    /// First and second moment of a parameter.
    moments: Option<[Address; 2]>,
}

/// A parameter with its moments.
#[derive(Clone, Copy)]
pub(crate) struct ParamAddresses {
    pub p: Address,
    pub m: Address,
    pub v: Address,
}

/// A data set of bytes on the device.
pub(crate) struct Data {
    bytes: Buffer,
    pub rows: usize,
    pub cols: usize,
    /// Counts the loads of this slot, so that plans notice when it has moved.
    pub version: u64,
}

impl Data {
    pub fn address(&self) -> Address {
        self.bytes.address()
    }
}

/// All slots of an executor, by name.
#[derive(Default)]
pub(crate) struct Memory {
    homes: HashMap<String, Home>,
    params: Vec<String>,
    data: DataSlots<Data>,
    /// One allocation for the slots that were first seen together.
    allocations: Vec<Buffer>,
}

impl Memory {
    /// Makes sure that every slot of a plan has memory. New parameters lie one after the other, and so do their
    /// moments; everything new is zero.
    pub fn admit(&mut self, driver: &Rc<Driver>, slots: &[SlotInfo]) -> Result<()> {
        for slot in slots {
            if let Some(home) = self.homes.get(&slot.name)
                && (home.shape != slot.shape || home.moments.is_some() != (slot.kind == SlotKind::Param))
            {
                let problem =
                    format!("this plan wants {:?} {}, an earlier one made it {}", slot.kind, slot.shape, home.shape);
                return Err(Error::Slot { name: slot.name.clone(), problem });
            }
        }
        self.data.admit(slots);
        let new: Vec<&SlotInfo> =
            slots.iter().filter(|s| s.kind != SlotKind::Data && !self.homes.contains_key(&s.name)).collect();
        let is_param = |s: &&&SlotInfo| s.kind == SlotKind::Param;
        let params: usize = new.iter().filter(is_param).map(|s| s.shape.size()).sum();
        let block = params.next_multiple_of(ALIGN);
        let states = new.iter().filter(|s| !is_param(s)).map(|s| s.shape.size().next_multiple_of(ALIGN));
        let floats = 3 * block + states.sum::<usize>();
        if floats == 0 {
            return Ok(());
        }
        let buffer = driver.alloc(4 * floats, "parameters, moments and states")?;
        let at = |float: usize| buffer.address() + 4 * float as Address;
        let (mut param, mut state) = (0, 3 * block);
        for slot in new {
            let size = slot.shape.size();
            let home = if slot.kind == SlotKind::Param {
                self.params.push(slot.name.clone());
                let moments = Some([at(block + param), at(2 * block + param)]);
                Home { shape: slot.shape, value: at(param), moments }
            } else {
                Home { shape: slot.shape, value: at(state), moments: None }
            };
            match slot.kind {
                SlotKind::Param => param += size,
                _ => state += size.next_multiple_of(ALIGN),
            }
            self.homes.insert(slot.name.clone(), home);
        }
        self.allocations.push(buffer);
        Ok(())
    }

    fn home(&self, name: &str) -> Result<Home> {
        self.homes.get(name).copied().ok_or_else(|| {
            let mut known: Vec<&str> = self.homes.keys().map(String::as_str).collect();
            known.sort_unstable();
            Error::Slot { name: name.into(), problem: format!("no bound plan uses it; known are {}", known.join(", ")) }
        })
    }

    /// The address and number of elements of an array.
    pub fn array(&self, name: &str, moment: Moment) -> Result<(Address, usize)> {
        let home = self.home(name)?;
        let address = match (moment, home.moments) {
            (Moment::Value, _) => home.value,
            (Moment::First, Some([m, _])) => m,
            (Moment::Second, Some([_, v])) => v,
            (_, None) => {
                return Err(Error::Slot { name: name.into(), problem: "a state has no moments".into() });
            }
        };
        Ok((address, home.shape.size()))
    }

    /// The address of a parameter or state that was admitted.
    pub fn address(&self, name: &str) -> Address {
        self.homes[name].value
    }

    /// The addresses of a parameter that was admitted.
    pub fn param(&self, name: &str) -> ParamAddresses {
        let Home { value: p, moments: Some([m, v]), .. } = self.homes[name] else {
            unreachable!("{name} is a parameter")
        };
        ParamAddresses { p, m, v }
    }

    pub fn params(&self) -> impl Iterator<Item = (&str, Shape)> {
        self.params.iter().map(|name| (name.as_str(), self.homes[name].shape))
    }

    pub fn set_data(&mut self, driver: &Rc<Driver>, name: &str, bytes: &[u8], cols: usize) -> Result<()> {
        let rows = whole_rows(name, bytes, cols)?;
        let slot = self.data.entry(name)?;
        // In place where it fits exactly: recorded graphs stay valid.
        if let Some(known) = slot.as_ref().filter(|d| (d.rows, d.cols) == (rows, cols)) {
            return driver.upload(known.address(), bytes);
        }
        let version = slot.as_ref().map_or(0, |d| d.version) + 1;
        let buffer = driver.alloc(bytes.len(), &format!("the images of \"{name}\""))?;
        driver.upload(buffer.address(), bytes)?;
        *slot = Some(Data { bytes: buffer, rows, cols, version });
        Ok(())
    }

    pub fn data(&self, name: &str, cols: usize) -> Result<&Data> {
        let data = self.data.get(name)?;
        if data.cols != cols {
            let problem = format!("rows of {} bytes were loaded, the plan reads rows of {cols}", data.cols);
            return Err(Error::Slot { name: name.into(), problem });
        }
        Ok(data)
    }
}
