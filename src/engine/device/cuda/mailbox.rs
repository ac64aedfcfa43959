//! Numbers on their way from the device to the host, which does not wait for them.
//!
//! The copies go to page-locked memory (`pinned.rs`): one into ordinary memory would hold the host up until everything
//! before it is done.

use std::collections::VecDeque;
use std::rc::Rc;

use super::driver::{Address, Driver};
use super::pinned::Pinned;
use crate::engine::error::Result;

/// Copies under way at most. Together with the steps of a portion it bounds how far the host runs ahead of the device,
/// and so how long a stop takes.
const UNDER_WAY: usize = 2;

/// Copies of one array of f64, each with a note of what it is a copy of.
pub(crate) struct Mailbox<T> {
    letters: Vec<Pinned<f64>>,
    next: usize,
    /// The numbers of the letters under way, oldest first.
    under_way: VecDeque<(usize, T)>,
    newest: Option<(T, Vec<f64>)>,
}

impl<T> Mailbox<T> {
    /// For arrays of `len` numbers.
    pub fn new(driver: &Rc<Driver>, len: usize) -> Result<Mailbox<T>> {
        let letters = (0..UNDER_WAY).map(|_| Pinned::new(driver, len)).collect::<Result<_>>()?;
        Ok(Mailbox { letters, next: 0, under_way: VecDeque::new(), newest: None })
    }

    /// Asks for the numbers at `from` as they are after everything that was launched. Waits only where [`UNDER_WAY`]
    /// earlier copies have not come: for the oldest of them.
    pub fn send(&mut self, from: Address, note: T) -> Result<()> {
        if self.under_way.len() == UNDER_WAY {
            self.letters[self.next].wait()?;
            self.take_oldest();
        }
        self.letters[self.next].fetch(from)?;
        self.under_way.push_back((self.next, note));
        self.next = (self.next + 1) % UNDER_WAY;
        Ok(())
    }

    /// The newest copy that has come.
    pub fn newest(&mut self) -> Result<Option<&(T, Vec<f64>)>> {
        while let Some((letter, _)) = self.under_way.front() {
            if !self.letters[*letter].is_done()? {
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
