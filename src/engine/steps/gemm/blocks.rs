//! How a product is cut: chunks for the threads, blocks of k for the cache. A function of shape and family only.

use super::micro::MicroKernels;
use std::ops::Range;

/// Multiply-adds that are worth a chunk of their own: 100 000 take 1.7 µs on one Zen 4 core at its AVX-512 peak.
const CHUNK_WORK: usize = 100_000;

/// Chunks of a product of middling size: enough that 16 threads find work.
const CHUNKS: usize = 32;

/// Most floats of op(A) that belong to a chunk and a block of k, 512 KiB: they stay in L2 while the panels of B pass.
const CHUNK_A: usize = 1 << 17;

/// Most columns of a chunk.
const CHUNK_COLUMNS: usize = 256;

/// Most of k in one block; longer sums are cut evenly. The packed panel (DEPTH × 32 floats, 100 KiB) streams from L2.
/// For 1000³ and 1024³ two blocks were −1 to +9 % faster than one (medians, Zen 4, AVX-512); 784 pixels are one block.
const DEPTH: usize = 800;

/// Steps of k from which A, where it is read along its columns, is packed first. A tile of rows takes a few floats of a line in
/// every step; with more steps than L1 has lines for (512 of 64 bytes in 32 KiB, and B wants some), the next tile finds none of
/// them there.
const PACKED_A_FROM: usize = 256;

/// Panels of B that each chunk must have for that: what a step of packing costs is shared out among them. With AVX-512, whose panels
/// are the widest, that takes chunks of all [`CHUNK_COLUMNS`]; there A in place was no slower (Zen 4).
const PACKED_A_PANELS: usize = 8;

/// Fewest rows of a chunk when B must be transposed: packing a float of B costs about as much as 5 rows of products.
const TRANSPOSED_ROWS: usize = 64;

/// Row tiles of a chunk of a weight gradient, whose chunks are bands of rows: each band packs B again, at about the cost of a
/// quarter of a tile.
const BAND_TILES: usize = 4;

/// A rectangle of C.
pub(super) struct Chunk {
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

/// The cut of one product.
pub(super) struct Blocks {
    pub k: usize,
    /// Number of blocks of k, at least 1 (an empty sum is still stored).
    pub depths: usize,
    /// Floats of a packed panel.
    pub panel: usize,
    /// Floats of the tile scratch for `Destination::Tiles`.
    pub tiles: usize,
    /// Floats of the packed rows of A of a chunk; 0 where A is read in place.
    pub packed_a: usize,
    /// Leading dimension of the tile scratch when there are several blocks of k.
    pub tile_ld: usize,
    pub chunks: Vec<Chunk>,
}

impl Blocks {
    pub fn new(family: &MicroKernels, m: usize, n: usize, k: usize, ta: bool, tb: bool) -> Blocks {
        let width = family.classes[0].width;
        let depths = k.div_ceil(DEPTH).max(1);
        let depth = k.div_ceil(depths);
        let chunks = if ta && !tb { bands(family, m, n, k, depth) } else { chunks(family, m, n, k, depth, tb) };
        let most = |f: fn(&Chunk) -> usize| chunks.iter().map(f).max().unwrap_or(0);
        let tile_ld = most(|c| c.cols.len()).next_multiple_of(width);
        let tiles = if depths == 1 { family.rows * width } else { most(|c| c.rows.len()) * tile_ld };
        let least_columns = chunks.iter().map(|c| c.cols.len()).min().unwrap_or(0);
        let pays = ta && depth >= PACKED_A_FROM && least_columns.div_ceil(width) >= PACKED_A_PANELS;
        let packed_a = if pays { most(|c| c.rows.len()) * depth } else { 0 };
        Blocks { k, depths, panel: depth * width, tiles, packed_a, tile_ld, chunks }
    }
}

/// Part `i` of 0..len cut into `parts` that differ by at most one.
pub(super) fn even(len: usize, parts: usize, i: usize) -> Range<usize> {
    len * i / parts..len * (i + 1) / parts
}

/// Cuts C along columns first, because chunks that share columns pack the same panels of B twice; rows are cut where
/// columns do not give enough chunks, or where a chunk would outgrow the cache. If all chunks span all rows, the last
/// two groups of columns are halved by rows: that leaves half-sized chunks for the threads that finish first.
fn chunks(family: &MicroKernels, m: usize, n: usize, k: usize, depth: usize, tb: bool) -> Vec<Chunk> {
    if m == 0 || n == 0 {
        return Vec::new();
    }
    let width = family.classes[0].width;
    let panels = n.div_ceil(width);
    let most_bands = m.div_ceil(if tb { TRANSPOSED_ROWS } else { family.rows });
    let want = (m * n * k / CHUNK_WORK).clamp(1, CHUNKS);
    let least_bands = (m * depth).div_ceil(CHUNK_A).max(1);
    let groups = want.div_ceil(least_bands).min(panels).max(n.div_ceil(CHUNK_COLUMNS));
    let bands = (want / groups).min(most_bands).max(least_bands);
    let mut chunks = Vec::new();
    for group in 0..groups {
        let p = even(panels, groups, group);
        let cols = p.start * width..(p.end * width).min(n);
        let last = group + 2 >= groups && groups >= 4;
        let bands = if bands == 1 && last { most_bands.min(2) } else { bands };
        for band in 0..bands {
            chunks.push(Chunk { rows: even(m, bands, band), cols: cols.clone() });
        }
    }
    chunks
}

/// Cuts C along rows first. For AᵀB, which in training is the gradient dW = Xᵀ·dY of a weight [in, out]: its bands of
/// rows are the pieces in which the parameters are updated (see `steps::optimize::pieces`), so that what a thread has
/// computed is in its caches when it updates it. The order of the chunks is that of their rows.
fn bands(family: &MicroKernels, m: usize, n: usize, k: usize, depth: usize) -> Vec<Chunk> {
    if m == 0 || n == 0 {
        return Vec::new();
    }
    let width = family.classes[0].width;
    let panels = n.div_ceil(width);
    let want = (m * n * k / CHUNK_WORK).clamp(1, CHUNKS);
    let least_bands = (m * depth).div_ceil(CHUNK_A).max(1);
    let bands = want.min(m.div_ceil(BAND_TILES * family.rows)).max(least_bands);
    let groups = want.div_ceil(bands).min(panels).max(n.div_ceil(CHUNK_COLUMNS));
    let mut chunks = Vec::new();
    for band in 0..bands {
        for group in 0..groups {
            let p = even(panels, groups, group);
            chunks.push(Chunk { rows: even(m, bands, band), cols: p.start * width..(p.end * width).min(n) });
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::super::portable::FAMILY;
    use super::*;

    #[test]
    fn a_is_packed_where_tiles_would_meet_its_lines_again_and_panels_share_the_cost() {
        let width = FAMILY.classes[0].width;
        let packed = |n: usize, k: usize, ta: bool| Blocks::new(&FAMILY, 3200, n, k, ta, false).packed_a;
        assert!(packed(8 * width, 300, true) > 0 && packed(8 * width, 2000, true) > 0);
        assert_eq!([packed(8 * width, 255, true), packed(7 * width, 300, true), packed(8 * width, 300, false)], [0; 3]);
        // Room for the rows of the highest chunk over the longest block.
        let blocks = Blocks::new(&FAMILY, 3200, 8 * width, 2000, true, false);
        let rows = blocks.chunks.iter().map(|chunk| chunk.rows.len()).max().unwrap();
        assert_eq!(blocks.packed_a, rows * 667);
    }
}
