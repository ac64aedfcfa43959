//! Arrays on the device: which part of which allocation belongs to which name. Twin of `device/memory.rs`.

use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;

use super::driver::{Address, DeviceBuffer, Driver};
use super::params::ParamPlaces;
use crate::engine::device::data::{DataSets, whole_rows};
use crate::engine::device::memory::{check_size, check_slot, no_moments, unknown};
use crate::engine::device::{Memory, Moment, Values, fresh_number};
use crate::engine::error::Result;
use crate::engine::graph::SlotInfo;
use crate::engine::params::Params;
use crate::engine::shape::Shape;

/// Arrays begin at multiples of so many floats: 256 bytes, as an allocation of its own would.
const ALIGN: usize = 64;

/// Where an array's numbers are.
#[derive(Clone, Copy)]
struct DeviceHome {
    shape: Shape,
    value: Address,
    /// First and second moment of a parameter.
    moments: Option<[Address; 2]>,
}

/// A data set on the device.
pub(crate) struct DeviceData {
    numbers: DeviceBuffer,
    /// f32, or bytes.
    pub floats: bool,
    count: usize,
    /// Tells this load from all others, so that functions notice when a data set has moved.
    pub version: u64,
    columns: usize,
}

impl DeviceData {
    pub fn address(&self) -> Address {
        self.numbers.address()
    }

    pub fn rows(&self) -> usize {
        self.count / self.columns
    }
}

/// Everything that functions share, by name.
pub(crate) struct DeviceMemory {
    /// Tells this memory from all others, for functions whose launches keep addresses into it.
    pub number: u64,
    homes: HashMap<String, DeviceHome>,
    data: DataSets<DeviceData>,
    /// All arrays in one allocation; none without arrays.
    _arrays: Option<DeviceBuffer>,
    driver: Rc<Driver>,
}

impl DeviceMemory {
    /// All parameters, one after the other, then their moments likewise, then buffers. Everything is zero.
    pub fn new(driver: &Rc<Driver>, params: &Params) -> Result<DeviceMemory> {
        let size = |trainable: bool| params.iter().filter(move |p| p.trainable == trainable).map(|p| p.shape.size());
        let block = size(true).sum::<usize>().next_multiple_of(ALIGN);
        let buffers: usize = size(false).map(|n| n.next_multiple_of(ALIGN)).sum();
        let floats = 3 * block + buffers;
        let arrays = (floats > 0).then(|| driver.alloc(4 * floats, "parameters, moments and buffers")).transpose()?;
        let base = arrays.as_ref().map_or(0, DeviceBuffer::address);
        let at = |float: usize| base + 4 * float as Address;
        let (mut param, mut buffer) = (0, 3 * block);
        let mut homes = HashMap::new();
        for p in params.iter() {
            let (shape, size) = (p.shape, p.shape.size());
            let home = if p.trainable {
                DeviceHome { shape, value: at(param), moments: Some([at(block + param), at(2 * block + param)]) }
            } else {
                DeviceHome { shape, value: at(buffer), moments: None }
            };
            if p.trainable {
                param += size
            } else {
                buffer += size.next_multiple_of(ALIGN)
            }
            homes.insert(p.name.clone(), home);
        }
        let driver = driver.clone();
        Ok(DeviceMemory { number: fresh_number(), homes, data: DataSets::default(), _arrays: arrays, driver })
    }

    /// Whether it was made by this driver.
    pub fn is_on(&self, driver: &Rc<Driver>) -> bool {
        Rc::ptr_eq(&self.driver, driver)
    }

    fn home(&self, name: &str) -> Result<DeviceHome> {
        self.homes.get(name).copied().ok_or_else(|| unknown(name, self.homes.keys()))
    }

    /// Checks that a slot of a graph is there as the graph wants it.
    pub fn check(&self, slot: &SlotInfo) -> Result<()> {
        let home = self.home(&slot.name)?;
        check_slot(slot, home.moments.is_some(), home.shape)
    }

    /// The address of an array, and its shape.
    fn array(&self, name: &str, moment: Moment) -> Result<(Address, Shape)> {
        let home = self.home(name)?;
        let address = match (moment, home.moments) {
            (Moment::Value, _) => home.value,
            (Moment::First, Some([m, _])) => m,
            (Moment::Second, Some([_, v])) => v,
            (_, None) => return Err(no_moments(name)),
        };
        Ok((address, home.shape))
    }

    /// The address of a parameter or buffer that was checked.
    pub fn address(&self, name: &str) -> Address {
        self.homes[name].value
    }

    /// The addresses of a parameter that was checked.
    pub fn param(&self, name: &str) -> ParamPlaces {
        let DeviceHome { value: p, moments: Some([m, v]), .. } = self.homes[name] else {
            unreachable!("{name} is a parameter")
        };
        ParamPlaces { p, m, v }
    }

    /// The data set of this name for a graph that reads `columns` numbers of each row.
    pub fn data(&self, name: &str, columns: usize) -> Result<&DeviceData> {
        self.data.get(name, columns)
    }
}

impl Memory for DeviceMemory {
    fn read(&self, name: &str, moment: Moment) -> Result<Vec<f32>> {
        let (address, shape) = self.array(name, moment)?;
        let mut values = vec![0.0; shape.size()];
        self.driver.download(address, &mut values)?;
        Ok(values)
    }

    fn write(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()> {
        let (address, shape) = self.array(name, moment)?;
        check_size(name, values.len(), shape)?;
        self.driver.upload(address, values)
    }

    fn load(&mut self, name: &str, values: Values<'_>, columns: usize) -> Result<()> {
        whole_rows(name, values, columns)?;
        let (floats, count) = (matches!(values, Values::Floats(_)), values.len());
        let driver = self.driver.clone();
        let upload = |to: Address| match values {
            Values::Bytes(bytes) => driver.upload(to, bytes),
            Values::Floats(floats) => driver.upload(to, floats),
        };
        // In place where it fits exactly: recorded graphs stay valid.
        let known = self.data.replaceable(name, columns);
        if let Some(known) = known.filter(|d| (d.floats, d.count) == (floats, count)) {
            return upload(known.address());
        }
        let bytes = count * if floats { 4 } else { 1 };
        let numbers = self.driver.alloc(bytes, &format!("the data set \"{name}\""))?;
        upload(numbers.address())?;
        self.data.insert(name, DeviceData { numbers, floats, count, version: fresh_number(), columns }, columns);
        Ok(())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
