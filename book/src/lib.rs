//! The book of `elbo`, in `docs/book`: what renders it, what writes the pages of its reference from the code, and what
//! checks that nothing in it is out of date.
//!
//! | module | what it does |
//! |---|---|
//! | [`render`] | Markdown to pages, by mdBook with a template of its own that needs no script |
//! | [`formula`] | TeX between dollars to MathML |
//! | [`pages`] | the list of generated pages, their text, and whether the files are what would be written now |
//! | [`source`] | what the pages take from the text of the source |
//! | [`measure`] | curves, errors in units of the last place, errors of difference quotients |
//! | [`figure`] | drawings that take their colours from the page |
//! | [`examples`] | the commands and quotations in chapters, run and compared |
//! | [`timing`] | nanoseconds per element, measured into a file that the pages read |

pub mod examples;
pub mod facts;
pub mod figure;
pub mod formula;
pub mod measure;
pub mod pages;
pub mod render;
pub mod source;
pub mod timing;

use std::path::{Path, PathBuf};

/// The folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("book/ lies in the repository").to_path_buf()
}

/// The folder of the book's text.
pub fn book() -> PathBuf {
    root().join("docs/book")
}
