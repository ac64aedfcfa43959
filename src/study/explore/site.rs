//! The page itself: its text, its style, its scripts, and what they read.

use super::Bundle;
use crate::study::derive::{WALK_SCRIPT, WALK_STYLE};
use crate::study::page::Page;

/// In the order in which they run: what others use first, what starts them all last.
const SCRIPTS: [&str; 19] = [
    include_str!("engine.js"),
    WALK_SCRIPT,
    include_str!("base.js"),
    include_str!("maths.js"),
    include_str!("frame.js"),
    include_str!("space.js"),
    include_str!("plane.js"),
    include_str!("point.js"),
    include_str!("path.js"),
    include_str!("choose.js"),
    include_str!("posterior.js"),
    include_str!("bounds.js"),
    include_str!("race.js"),
    include_str!("digit.js"),
    include_str!("growing.js"),
    include_str!("train.js"),
    include_str!("golden.js"),
    include_str!("about.js"),
    include_str!("main.js"),
];

/// Where all test images lie, of which a [`Bundle`] has the first only: what a page counts the nearest digits among.
#[derive(Clone, Debug, PartialEq)]
pub struct Surroundings {
    /// μ of q(z|x) by the model that nothing is rounded of, `[N, K]`.
    pub means: Vec<f32>,
    /// The class of each image; empty if it is not known.
    pub labels: Vec<u8>,
}

impl Surroundings {
    /// The means as f32, little-endian, then a byte per label.
    fn encode(&self) -> Vec<u8> {
        self.means.iter().flat_map(|mean| mean.to_le_bytes()).chain(self.labels.iter().copied()).collect()
    }
}

/// The page of a model. `engine` is the module of `explore/`, plain or gzip. Without surroundings the nearest digits are those
/// among the bundle's images.
pub fn page(bundle: &Bundle, engine: &[u8], surroundings: Option<&Surroundings>) -> Page {
    let around = surroundings.map_or(Vec::new(), Surroundings::encode);
    let page = Page::new(&bundle.caption.title)
        .style(WALK_STYLE)
        .style(include_str!("explore.css"))
        .body(include_str!("explore.html"))
        .bytes("wasm", engine)
        .bytes("bundle", &bundle.encode())
        .bytes("surroundings", &around);
    SCRIPTS.into_iter().fold(page, Page::script)
}

#[cfg(test)]
mod tests {
    use crate::vae::Likelihood;

    #[test]
    fn the_page_has_a_formula_for_every_likelihood() {
        for likelihood in Likelihood::all() {
            let entry = format!("\n  {}: {{ formula:", likelihood.name());
            assert!(include_str!("about.js").contains(&entry), "{likelihood}");
        }
    }
}
