//! What Ctrl-C and a request to terminate (SIGINT, SIGTERM, SIGHUP) do at every moment of a command that saves its work.
//!
//! Commands that have nothing to save take no part in this: the signal ends them at once, as it does any program.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::say;
use crate::engine::error::{Error, Result};

/// The exit code of an interrupted command, whichever signal it was: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// What a request to stop does now.
enum OnSignal {
    /// Ends the program, with these words.
    End(String),
    /// Raises the flag, so that the step that runs is finished and the state is saved; a second one ends the program.
    Save,
    /// Raises the flag: another process says so, and saves.
    Follow,
}

/// The handler of requests to stop. There is one in a process.
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    now: Arc<Mutex<OnSignal>>,
}

impl Interrupt {
    /// Installs the handler. There is nothing to save yet: a request ends the program.
    ///
    /// # Errors
    /// [`Error::Io`] when the operating system refuses.
    pub fn install() -> Result<Interrupt> {
        let (raised, now) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(OnSignal::End("stopped".into()))));
        let (flag, what) = (raised.clone(), now.clone());
        let handler = move || {
            let again = flag.swap(true, Ordering::Relaxed);
            match &*locked(&what) {
                OnSignal::End(words) => end(words),
                OnSignal::Save if again => end("stopped without saving"),
                OnSignal::Follow => {}
                OnSignal::Save => say("\nstopping after this step; once more to stop at once, without saving"),
            }
        };
        let failed = |e: ctrlc::Error| {
            Error::io("set the handler of Ctrl-C of", "this process".as_ref())(std::io::Error::other(e))
        };
        ctrlc::set_handler(handler).map_err(failed)?;
        Ok(Interrupt { raised, now })
    }

    /// From here on there is something to save: requests raise this flag.
    pub fn save(&self) -> &AtomicBool {
        *locked(&self.now) = OnSignal::Save;
        &self.raised
    }

    /// From here on requests raise this flag, for which another process does the rest.
    pub fn follow(&self) -> &AtomicBool {
        *locked(&self.now) = OnSignal::Follow;
        &self.raised
    }

    /// From here on everything that can be saved is: requests, also one that has come already, end the program with
    /// these words.
    pub fn end_at_once(&self, words: &str) {
        *locked(&self.now) = OnSignal::End(words.into());
        if self.raised.load(Ordering::Relaxed) {
            end(words);
        }
    }

    /// Whether a request has come.
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }
}

fn locked(now: &Mutex<OnSignal>) -> MutexGuard<'_, OnSignal> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(words: &str) -> ! {
    say(format_args!("\n{words}"));
    exit(INTERRUPTED.into())
}
