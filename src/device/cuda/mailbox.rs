//! Numbers on their way from the device to the host, which does not wait for them.
//!
//! A copy into page-locked memory runs when the stream comes to it; the event behind it tells when it has. A copy into
//! ordinary memory would hold the host up until everything before it is done.

use std::collections::VecDeque;
use std::ptr;
use std::rc::Rc;

use cudarc::driver::{result, sys};

use super::driver::{Address, Driver};
use crate::error::Result;

/// Copies under way at most. Together with the steps of a portion it bounds how far the host runs ahead of the device,
/// and so how long a stop takes.
const UNDER_WAY: usize = 2;

/// Page-locked memory for one copy, and the event behind it.
struct Letter {
    driver: Rc<Driver>,
    memory: *mut f64,
    len: usize,
    event: sys::CUevent,
}

impl Letter {
    fn new(driver: &Rc<Driver>, len: usize) -> Result<Letter> {
        driver.enter()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
            .map_err(driver.failed("cuEventCreate"))?;
        let mut letter = Letter { driver: driver.clone(), memory: ptr::null_mut(), len, event };
        // SAFETY: a plain allocation, freed by `drop`.
        let memory = unsafe { result::malloc_host(size_of::<f64>() * len.max(1), 0) }
            .map_err(driver.failed("cuMemHostAlloc"))?;
        letter.memory = memory.cast();
        Ok(letter)
    }

    /// Enqueues a copy of the numbers at `from`, and the event.
    fn send(&self, from: Address) -> Result<()> {
        self.driver.enter()?;
        // SAFETY: the memory has room for as many numbers and is not read before the event has come.
        unsafe {
            if self.len > 0 {
                let bytes = size_of::<f64>() * self.len;
                sys::cuMemcpyDtoHAsync_v2(self.memory.cast(), from, bytes, self.driver.main)
                    .result()
                    .map_err(self.driver.failed("cuMemcpyDtoHAsync"))?;
            }
            result::event::record(self.event, self.driver.main).map_err(self.driver.failed("cuEventRecord"))
        }
    }

    /// Whether the copy is done.
    fn is_here(&self) -> Result<bool> {
        self.driver.enter()?;
        // SAFETY: the event lives as long as the letter.
        match unsafe { result::event::query(self.event) } {
            Ok(()) => Ok(true),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(e) => Err(self.driver.failed("cuEventQuery")(e)),
        }
    }

    fn wait(&self) -> Result<()> {
        self.driver.enter()?;
        // SAFETY: as above.
        unsafe { result::event::synchronize(self.event) }.map_err(self.driver.failed("cuEventSynchronize"))
    }

    /// The numbers, once the copy is done.
    fn read(&self) -> Vec<f64> {
        // SAFETY: the memory holds `len` numbers. The device wrote them behind the compiler's back, hence volatile.
        (0..self.len).map(|i| unsafe { self.memory.add(i).read_volatile() }).collect()
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        // A copy may still be under way into the memory. An error has nowhere to go.
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

/// Copies of one array of f64, each with a note of what it is a copy of.
pub(crate) struct Mailbox<T> {
    letters: Vec<Letter>,
    next: usize,
    /// The numbers of the letters under way, oldest first.
    under_way: VecDeque<(usize, T)>,
    newest: Option<(T, Vec<f64>)>,
}

impl<T> Mailbox<T> {
    /// For arrays of `len` numbers.
    pub fn new(driver: &Rc<Driver>, len: usize) -> Result<Mailbox<T>> {
        let letters = (0..UNDER_WAY).map(|_| Letter::new(driver, len)).collect::<Result<_>>()?;
        Ok(Mailbox { letters, next: 0, under_way: VecDeque::new(), newest: None })
    }

    /// Asks for the numbers at `from` as they are after everything that was launched. Waits only where [`UNDER_WAY`]
    /// earlier copies have not come: for the oldest of them.
    pub fn send(&mut self, from: Address, note: T) -> Result<()> {
        if self.under_way.len() == UNDER_WAY {
            self.letters[self.next].wait()?;
            self.take_oldest();
        }
        self.letters[self.next].send(from)?;
        self.under_way.push_back((self.next, note));
        self.next = (self.next + 1) % UNDER_WAY;
        Ok(())
    }

    /// The newest copy that has come.
    pub fn newest(&mut self) -> Result<Option<&(T, Vec<f64>)>> {
        while let Some((letter, _)) = self.under_way.front() {
            if !self.letters[*letter].is_here()? {
                break;
            }
            self.take_oldest();
        }
        Ok(self.newest.as_ref())
    }

    fn take_oldest(&mut self) {
        let (letter, note) = self.under_way.pop_front().expect("the caller saw that one is under way");
        self.newest = Some((note, self.letters[letter].read()));
    }

    /// Forgets what came and what is under way: the numbers no longer stand for anything. A later copy into the same
    /// memory runs after them.
    pub fn forget(&mut self) {
        self.under_way.clear();
        self.newest = None;
    }
}
