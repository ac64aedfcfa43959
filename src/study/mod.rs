//! What explains: estimates of log p(x), what a latent space holds, and the diagrams and pages of both.

pub mod evidence;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod page;
pub mod plot;
pub mod report;
pub mod richness;
#[cfg(feature = "tensorboard")]
pub mod tensorboard;
