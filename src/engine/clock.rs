//! How long work takes, where there is a clock.

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use std::time::Instant;

/// Counts seconds from its start.
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
pub(crate) struct Stopwatch(Instant);

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
impl Stopwatch {
    /// From now.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// WebAssembly by itself has no clock, and asking for one ends the program. No number of a result depends on it.
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub(crate) struct Stopwatch;

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
impl Stopwatch {
    /// A watch that stands still.
    pub fn start() -> Stopwatch {
        Stopwatch
    }

    /// 0.
    pub fn seconds(&self) -> f64 {
        0.0
    }
}
