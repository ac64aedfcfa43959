//! What the drivers of several threads share: one stream, so that all of their work has one order, and memory.

use std::ptr;
use std::rc::Rc;

use cudarc::driver::{result, sys};

use super::driver::{Address, Driver};
use crate::engine::error::Result;

/// A stream and memory of one GPU.
pub(super) struct Commons {
    context: sys::CUcontext,
    stream: sys::CUstream,
    memory: Address,
}

// SAFETY: handles and an address, which the driver takes from any thread.
unsafe impl Send for Commons {}
// SAFETY: as above; nothing here changes.
unsafe impl Sync for Commons {}

impl Commons {
    /// A stream, and `bytes` bytes of memory.
    ///
    /// # Errors
    /// [`Error::Device`](crate::engine::error::Error::Device) when there is not enough memory.
    pub fn new(driver: &Rc<Driver>, bytes: usize, what: &str) -> Result<Commons> {
        let mut commons = Commons { context: driver.context(), stream: ptr::null_mut(), memory: 0 };
        commons.memory = driver.malloc(bytes, what)?;
        // What other users of the default stream do is waited for there, not here.
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        commons.stream = stream.map_err(driver.failed("cuStreamCreate"))?;
        Ok(commons)
    }

    pub fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub fn memory(&self) -> Address {
        self.memory
    }
}

impl Drop for Commons {
    /// Gives both back. Errors have nowhere to go, and a device that fails here has failed before.
    fn drop(&mut self) {
        // SAFETY: the drivers that used them are gone.
        unsafe {
            if result::ctx::set_current(self.context).is_err() {
                return;
            }
            if !self.stream.is_null() {
                let _ = result::stream::synchronize(self.stream);
                let _ = result::stream::destroy(self.stream);
            }
            if self.memory != 0 {
                let _ = result::free_sync(self.memory);
            }
        }
    }
}
