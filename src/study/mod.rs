//! What explains: estimates of log p(x), what a latent space holds, and the diagrams of both.

pub mod evidence;
pub mod plot;
pub mod richness;
