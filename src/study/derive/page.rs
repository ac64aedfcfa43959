//! A derivation as a page that steps.

use super::record::Derivation;
use crate::study::page::{Page, escaped};

/// The function `walk(container, derivation)` of pages that step through a derivation, `page/walk.js`; it needs
/// [`WALK_STYLE`].
pub const WALK_SCRIPT: &str = include_str!("../page/walk.js");

/// The style of `walk`, `page/walk.css`.
pub const WALK_STYLE: &str = include_str!("../page/walk.css");

impl Derivation {
    /// A page that steps through the derivation, forward and back.
    pub fn page(&self) -> Page {
        let title = format!("The chain rule on {}", self.title);
        let body = format!(
            "<main><h1>The chain rule on <code>{}</code></h1>\n<p>Forward, every node computes its value from those above \
             it. Then back, from y: when a node is reached, all that use it have been visited, so its cotangent \
             dv = ∂y/∂v is complete, and its rule turns it into a contribution to each of its inputs, where \
             contributions add up. <span class=\"screen-only\">Arrow keys step.</span></p>\n\
             <h2>Step by step</h2>\n<div id=\"walk\"></div>\n<noscript><p>This page steps with a script, which the browser does not \
             run.</p></noscript></main>",
            escaped(&self.title)
        );
        Page::new(title)
            .style(WALK_STYLE)
            .body(&body)
            .json("derivation", self)
            .script(WALK_SCRIPT)
            .script("walk(document.getElementById('walk'), json('derivation'), { keys: document });")
    }
}
