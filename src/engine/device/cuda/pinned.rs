//! Page-locked memory, which the device reads and writes by itself while the host goes on.
//!
//! A copy between it and the device runs when the stream comes to it; the event behind it tells when it has. A copy
//! from or into ordinary memory may hold the host up until everything before it is done.

use std::ptr;
use std::rc::Rc;

use cudarc::driver::{result, sys};

use super::driver::{Address, Driver, Pod};
use crate::engine::error::Result;

/// Page-locked memory for one copy at a time, and the event behind it.
pub(super) struct Pinned<T: Pod> {
    driver: Rc<Driver>,
    memory: *mut T,
    len: usize,
    event: sys::CUevent,
}

impl<T: Pod> Pinned<T> {
    /// Room for `len` values.
    pub fn new(driver: &Rc<Driver>, len: usize) -> Result<Pinned<T>> {
        driver.enter()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
            .map_err(driver.failed("cuEventCreate"))?;
        let mut pinned = Pinned { driver: driver.clone(), memory: ptr::null_mut(), len, event };
        // SAFETY: a plain allocation, freed by `drop`.
        let memory =
            unsafe { result::malloc_host(size_of::<T>() * len.max(1), 0) }.map_err(driver.failed("cuMemHostAlloc"))?;
        pinned.memory = memory.cast();
        Ok(pinned)
    }

    /// Enqueues a copy of the numbers at `from` on the device, as many as there is room for.
    pub fn fetch(&mut self, from: Address) -> Result<()> {
        self.driver.enter()?;
        if self.len > 0 {
            // SAFETY: the memory has room for as many numbers and is not read before the event has come.
            unsafe {
                sys::cuMemcpyDtoHAsync_v2(self.memory.cast(), from, size_of::<T>() * self.len, self.driver.stream)
                    .result()
                    .map_err(self.driver.failed("cuMemcpyDtoHAsync"))?;
            }
        }
        self.mark()
    }

    /// Enqueues a copy of `values`, for which there must be room, to the device. Waits only where the copy before it is
    /// still under way, since the device would read the new values.
    pub fn send(&mut self, to: Address, values: &[T]) -> Result<()> {
        assert!(values.len() <= self.len, "{} values for {} places", values.len(), self.len);
        if !self.is_done()? {
            self.wait()?;
        }
        // SAFETY: there is room, and no copy from the memory is under way. The next call waits before it writes.
        unsafe {
            ptr::copy_nonoverlapping(values.as_ptr(), self.memory, values.len());
            sys::cuMemcpyHtoDAsync_v2(to, self.memory.cast(), size_of_val(values), self.driver.stream)
                .result()
                .map_err(self.driver.failed("cuMemcpyHtoDAsync"))?;
        }
        self.mark()
    }

    fn mark(&self) -> Result<()> {
        // SAFETY: event and stream live as long as the driver.
        unsafe { result::event::record(self.event, self.driver.stream) }.map_err(self.driver.failed("cuEventRecord"))
    }

    /// Whether the copy is done, or none was ever asked for.
    pub fn is_done(&self) -> Result<bool> {
        self.driver.enter()?;
        // SAFETY: the event lives as long as this.
        match unsafe { result::event::query(self.event) } {
            Ok(()) => Ok(true),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(e) => Err(self.driver.failed("cuEventQuery")(e)),
        }
    }

    pub fn wait(&self) -> Result<()> {
        self.driver.enter()?;
        // SAFETY: as above.
        unsafe { result::event::synchronize(self.event) }.map_err(self.driver.failed("cuEventSynchronize"))
    }

    /// The values, once the copy is done.
    pub fn read(&self) -> Vec<T> {
        // SAFETY: the memory holds `len` values. The device wrote them behind the compiler's back, hence volatile.
        (0..self.len).map(|i| unsafe { self.memory.add(i).read_volatile() }).collect()
    }
}

impl<T: Pod> Drop for Pinned<T> {
    fn drop(&mut self) {
        // A copy may still be under way. An error has nowhere to go.
        let _ = self.driver.synchronize();
        // SAFETY: nobody uses event and memory any more.
        unsafe {
            let _ = result::event::destroy(self.event);
            if !self.memory.is_null() {
                let _ = result::free_host(self.memory.cast());
            }
        }
    }
}

/// Copies of a table to the device, several of which may be under way.
pub(super) struct Uploads<T: Pod> {
    slots: Vec<Pinned<T>>,
    next: usize,
}

impl<T: Pod> Uploads<T> {
    /// `under_way` copies at a time of at most `len` values each.
    pub fn new(driver: &Rc<Driver>, under_way: usize, len: usize) -> Result<Uploads<T>> {
        let slots = (0..under_way).map(|_| Pinned::new(driver, len)).collect::<Result<_>>()?;
        Ok(Uploads { slots, next: 0 })
    }

    /// Enqueues a copy of `values`. Waits only where all slots are under way: for the oldest.
    pub fn send(&mut self, to: Address, values: &[T]) -> Result<()> {
        let slot = self.next;
        self.next = (slot + 1) % self.slots.len();
        self.slots[slot].send(to, values)
    }
}
