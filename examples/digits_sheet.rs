//! Draws a sheet of the built-in digits: ten rows, one per digit, twenty hands each.
//!
//! ```text
//! cargo run --release --example digits_sheet -- digits.png
//! ```

use elbo::cli::picture::montage;
use elbo::data::digits::{Digits, SIDE};
use std::path::PathBuf;

fn main() -> elbo::engine::error::Result<()> {
    let path: PathBuf = std::env::args().nth(1).unwrap_or_else(|| "digits.png".into()).into();
    let hands = 20;
    let (images, labels) = Digits::generate(1, 0, 10 * hands);
    let mut sorted: Vec<(u8, &[u8])> = labels.into_iter().zip(images.chunks_exact(SIDE * SIDE)).collect();
    sorted.sort_by_key(|(label, _)| *label);
    let rows: Vec<u8> = sorted.into_iter().flat_map(|(_, image)| image.iter().copied()).collect();
    montage(&rows, SIDE, SIDE, hands, 2).write_png(&path)?;
    println!("{}", path.display());
    Ok(())
}
