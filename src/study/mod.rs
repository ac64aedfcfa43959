//! What explains: estimates of log p(x) and of gradients, what a latent space holds, the chain rule with its numbers, and the
//! diagrams and pages of all of them.

pub mod derive;
pub mod evidence;
pub mod exercise;
pub mod explore;
pub mod lab;
pub mod onnx;
pub mod page;
pub mod plot;
pub mod report;
pub mod richness;
pub mod tensorboard;
