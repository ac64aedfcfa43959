//! How a product on tiles is cut: a function of its shape only.

use super::super::blocks::{Chunk, even};
use super::BAND;

/// Most of k in one block, at most 768 KiB of packed B in a chunk: they stay in a second-level cache of 2 MiB.
pub(super) const DEPTH: usize = 512;
/// Most columns of a chunk: each cut and packed number of A meets as many.
const CHUNK_COLUMNS: usize = 256;
/// Most rows of a chunk.
const CHUNK_ROWS: usize = 256;
/// Multiply-adds that are worth a chunk of their own.
const CHUNK_WORK: usize = 1 << 20;
/// Chunks of a product of middling size: each cuts its factors again, so fewer than on vector units.
const CHUNKS: usize = 16;

/// Cuts C into chunks of whole bands, along its longer side while there are fewer than wanted, so that what is packed
/// meets as much as it can. Their order is that of the rows.
pub(super) fn chunks(m: usize, n: usize, k: usize) -> Vec<Chunk> {
    if m == 0 || n == 0 {
        return Vec::new();
    }
    let (rows, cols) = (m.div_ceil(BAND), n.div_ceil(BAND));
    let want = (m * n * k / CHUNK_WORK).clamp(1, CHUNKS).min(rows * cols);
    let (mut down, mut across) = (m.div_ceil(CHUNK_ROWS), n.div_ceil(CHUNK_COLUMNS));
    while down * across < want {
        let rows_are_longer = rows * across >= cols * down;
        if down < rows && (rows_are_longer || across == cols) { down += 1 } else { across += 1 }
    }
    let cut = |bands: usize, parts: usize, i: usize, end: usize| {
        let part = even(bands, parts, i);
        part.start * BAND..(part.end * BAND).min(end)
    };
    let chunk = |i: usize| Chunk { rows: cut(rows, down, i / across, m), cols: cut(cols, across, i % across, n) };
    (0..down * across).map(chunk).collect()
}
