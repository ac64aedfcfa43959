//! How long work takes, where there is a clock.

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use std::time::Instant;

/// Counts seconds from its start. WebAssembly by itself has no clock, and asking for one ends the program: there the watch
/// stands still at 0. No number of a result depends on it.
pub(crate) struct Stopwatch {
    #[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
    started: Instant,
}

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
impl Stopwatch {
    /// From now.
    pub fn start() -> Stopwatch {
        Stopwatch { started: Instant::now() }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
impl Stopwatch {
    /// A watch that stands still.
    pub fn start() -> Stopwatch {
        Stopwatch {}
    }

    /// 0.
    pub fn seconds(&self) -> f64 {
        0.0
    }
}
