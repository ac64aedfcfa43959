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

/// The page of a model. `engine` is the module of `explore/`, plain or gzip.
pub fn page(bundle: &Bundle, engine: &[u8]) -> Page {
    let page = Page::new(&bundle.caption.title)
        .style(WALK_STYLE)
        .style(include_str!("explore.css"))
        .body(include_str!("explore.html"))
        .bytes("wasm", engine)
        .bytes("bundle", &bundle.encode());
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
