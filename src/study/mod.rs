//! What explains: estimates of log p(x) and of gradients, what a latent space holds, the chain rule with its numbers, and the
//! diagrams and pages of all of them.

pub mod derive;
pub mod evidence;
#[cfg(feature = "cli")]
pub mod exercise;
pub mod explore;
pub mod lab;
#[cfg(feature = "cuda")]
pub mod launches;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod page;
pub mod plot;
pub mod report;
pub mod richness;
pub mod seeds;
#[cfg(feature = "tensorboard")]
pub mod tensorboard;

/// `1 epoch`, `10 epochs`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
