//! How far a long computation is.

use std::sync::Arc;

/// (what is done, how much of it is done, of how much).
type Show = dyn Fn(&str, usize, usize) + Send + Sync;

/// Who is told how far estimates of log p(x) and looks into a latent space are, through [`DeviceVae::watch`]; nobody by
/// default. What is computed does not depend on it.
///
/// [`DeviceVae::watch`]: crate::vae::DeviceVae::watch
#[derive(Clone, Default)]
pub struct Watch(Option<Arc<Show>>);

impl Watch {
    /// `show` is called with what is done, how much of it is done, and of how much, in whatever unit: often, from any
    /// thread, and for the last time with both equal.
    pub fn new(show: impl Fn(&str, usize, usize) + Send + Sync + 'static) -> Watch {
        Watch(Some(Arc::new(show)))
    }

    /// Tells that `done` of `of` parts of `what` are done.
    pub fn at(&self, what: &str, done: usize, of: usize) {
        if let Some(show) = &self.0 {
            show(what, done, of);
        }
    }
}
