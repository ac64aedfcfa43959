//! What explains: estimates of log p(x), what a latent space holds, and the diagrams and pages of both.

pub mod derive;
pub mod evidence;
#[cfg(feature = "cli")]
pub mod exercise;
pub mod page;
pub mod plot;
pub mod richness;
