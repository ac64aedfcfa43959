//! Nearest neighbours by looking at all of them, and what they vote for.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::data::Dataset;
use crate::engine::device::{Call, Device, Key, Rows};
use crate::engine::error::Result;
use crate::engine::graph::{Graph, Var};
use crate::engine::params::Params;
use crate::vae::watch::Watch;
use crate::vae::{batches, pixels};

/// The nearest known points of some queries.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Neighbours per query: as many as were asked for, or as there are points.
    pub k: usize,
    /// (squared Euclidean distance, number of the point), the nearest first, `[queries, k]`. At equal distances the
    /// point with the smaller number is the nearer one.
    pub nearest: Vec<(f32, u32)>,
}

/// The nearest seen so far, in order.
struct Best {
    k: usize,
    found: Vec<(f32, u32)>,
}

impl Best {
    fn new(k: usize) -> Best {
        Best { k, found: Vec::with_capacity(k + 1) }
    }

    /// Takes a point with a higher number than all before it.
    #[inline(always)]
    fn offer(&mut self, distance: f32, point: u32) {
        if self.found.len() < self.k || distance < self.found[self.k - 1].0 {
            self.insert(distance, point);
        }
    }

    #[cold]
    fn insert(&mut self, distance: f32, point: u32) {
        let place = self.found.partition_point(|f| f.0 <= distance);
        self.found.insert(place, (distance, point));
        self.found.truncate(self.k);
    }
}

/// Points whose distances to a query are computed side by side, in vectors.
const LANES: usize = 64;

impl Neighbours {
    /// Among `points`, `[n, dimensions]`, of each of `queries`, `[m, dimensions]`. Distances are sums of squared
    /// differences: in few dimensions |a|² − 2ab + |b|² would lose the small ones that matter.
    pub fn of_points(points: &[f32], queries: &[f32], dimensions: usize, k: usize, watch: &Watch) -> Neighbours {
        let count = points.len() / dimensions;
        let k = k.min(count);
        // [block, dimension, lane]; the last block is filled up with points that are infinitely far away.
        let mut blocks = vec![f32::INFINITY; count.next_multiple_of(LANES) * dimensions];
        for (i, point) in points.chunks_exact(dimensions).enumerate() {
            for (d, &value) in point.iter().enumerate() {
                blocks[(i / LANES * dimensions + d) * LANES + i % LANES] = value;
            }
        }
        let done = AtomicUsize::new(0);
        let find = |query: &[f32]| {
            watch.at("nearest neighbours", done.fetch_add(1, Ordering::Relaxed) + 1, queries.len() / dimensions);
            let mut best = Best::new(k);
            for (b, block) in blocks.chunks_exact(LANES * dimensions).enumerate() {
                let mut sums = [0.0f32; LANES];
                for (lane, &q) in block.as_chunks::<LANES>().0.iter().zip(query) {
                    for (sum, &p) in sums.iter_mut().zip(lane) {
                        *sum += (q - p) * (q - p);
                    }
                }
                let real = LANES.min(count - b * LANES);
                sums[..real].iter().enumerate().for_each(|(i, &sum)| best.offer(sum, (b * LANES + i) as u32));
            }
            best.found
        };
        Neighbours { k, nearest: queries.par_chunks_exact(dimensions).flat_map_iter(find).collect() }
    }

    /// Among `images` of each of `queries`, `[m, D]` with values in [0, 1], by pixels. All products of queries and images
    /// are matrix products on `device`, block after block of images:
    ///
    /// ```text
    /// |q − x|² = |q|² + (|x|² − 2 q·x)
    /// ```
    ///
    /// # Errors
    /// From the executor.
    pub fn of_images(images: &Dataset, queries: &[f32], k: usize, device: Device) -> Result<Neighbours> {
        let (count, pixels) = (queries.len() / images.cols, images.cols);
        let k = k.min(images.rows);
        let mut best: Vec<Best> = (0..count).map(|_| Best::new(k)).collect();
        let executor = device.open()?;
        let mut state = executor.state(&Params::new(), 0)?;
        state.load("images", &images.images[..], pixels)?;
        let mut rows = Rows::in_order();
        for (block, times) in batches(images.rows, BLOCK) {
            let g = Graph::new();
            let mut distances = executor.compile(&g, [distances(&g, count, block, pixels)])?;
            distances.write(0, queries)?;
            for _ in 0..times {
                distances.run(&mut state, &Call { rows, ..Call::once(Key::new(0)) })?;
                let found = distances.read(0)?;
                best.par_iter_mut().zip(found.par_chunks_exact(block)).for_each(|(best, row)| {
                    row.iter().enumerate().for_each(|(i, &d)| best.offer(d, rows.cursor + i as u32));
                });
                rows.cursor += block as u32;
            }
        }
        let squares = queries.chunks_exact(pixels).map(|q| q.iter().map(|v| v * v).sum::<f32>());
        let whole = |(best, square): (Best, f32)| {
            best.found.into_iter().map(move |(d, i)| ((d + square).max(0.0), i)).collect::<Vec<_>>()
        };
        Ok(Neighbours { k, nearest: best.into_iter().zip(squares).flat_map(whole).collect() })
    }

    /// The vote of the `k` nearest neighbours of every query: its class, and how many of them are of that class.
    ///
    /// The class with most neighbours wins; of several, the one whose neighbours have the smaller sum of distances; of
    /// several still, the one with the smaller label.
    pub fn votes(&self, labels: &[u8], k: usize) -> Vec<(u8, usize)> {
        let k = k.min(self.k);
        self.nearest.par_chunks_exact(self.k).map(|nearest| vote(&nearest[..k], labels)).collect()
    }
}

/// Images per matrix product.
const BLOCK: usize = 500;

/// |x|² − 2 q·x of the queries, an input `[count, pixels]`, and the next `rows` images, `[count, rows]`.
fn distances(g: &Graph, count: usize, rows: usize, columns: usize) -> Var<'_> {
    let x = pixels(g, "images", rows, columns);
    let products = g.input(&[count, columns]).matmul_t(false, x, true);
    let squares = x.square().sum(&[1]).reshape(&[1, rows]);
    squares - products * 2.0
}

fn vote(nearest: &[(f32, u32)], labels: &[u8]) -> (u8, usize) {
    let mut classes = [(0usize, 0f64); 256];
    for &(distance, point) in nearest {
        let class = &mut classes[labels[point as usize] as usize];
        class.0 += 1;
        class.1 += f64::from(distance).sqrt();
    }
    let better = |a: &(usize, f64), b: &(usize, f64)| a.0 > b.0 || a.0 == b.0 && a.1 < b.1;
    let winner = (1..256).fold(0, |best, c| if better(&classes[c], &classes[best]) { c } else { best });
    (winner as u8, classes[winner].0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;
    use crate::engine::rng::Draw;

    /// Every distance in f64, sorted by (distance, number).
    fn plainly(points: &[f32], queries: &[f32], dimensions: usize, k: usize) -> Vec<u32> {
        let mut all = Vec::new();
        for q in queries.chunks_exact(dimensions) {
            let distance = |p: &[f32]| p.iter().zip(q).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            let mut found: Vec<(f64, u32)> =
                points.chunks_exact(dimensions).enumerate().map(|(i, p)| (distance(p), i as u32)).collect();
            found.sort_by(|a, b| a.partial_cmp(b).unwrap());
            all.extend(found[..k].iter().map(|f| f.1));
        }
        all
    }

    #[test]
    fn the_nearest_are_found_in_order() {
        let draw = Draw { seed: 3, step: 0, stream: 0 };
        for (count, dimensions, k) in [(300, 1, 15), (64, 2, 5), (131, 7, 1), (3, 2, 15)] {
            let values = |from: u64, n: usize| (0..n as u64).map(|i| draw.normal(from + i)).collect::<Vec<f32>>();
            let (points, queries) = (values(0, count * dimensions), values(5000, 20 * dimensions));
            let found = Neighbours::of_points(&points, &queries, dimensions, k, &Watch::default());
            assert_eq!(found.k, k.min(count));
            let numbers: Vec<u32> = found.nearest.iter().map(|n| n.1).collect();
            assert_eq!(numbers, plainly(&points, &queries, dimensions, found.k));
        }
        // Equal points: the first ones.
        let same = Neighbours::of_points(&[1.0; 100], &[1.0], 1, 3, &Watch::default());
        assert_eq!(same.nearest, [(0.0, 0), (0.0, 1), (0.0, 2)]);
    }

    #[test]
    fn images_are_compared_by_their_pixels() {
        let (rows, cols) = (1203, 30);
        let draw = Draw { seed: 4, step: 0, stream: 0 };
        let bytes = (0..rows * cols).map(|i| (draw.uniform(i as u64) * 256.0) as u8).collect();
        let (name, split, labels) = ("noise".to_string(), Split::Train, None);
        let images = Dataset { name, split, images: bytes, rows, cols, width: 6, height: 5, labels };
        let grey: Vec<f32> = images.images.iter().map(|&b| f32::from(b) / 255.0).collect();
        let queries: Vec<f32> = (0..9 * cols).map(|i| draw.uniform(90_000 + i as u64)).collect();
        let found = Neighbours::of_images(&images, &queries, 15, Device::Cpu { threads: 2 }).unwrap();
        let numbers: Vec<u32> = found.nearest.iter().map(|n| n.1).collect();
        assert_eq!(numbers, plainly(&grey, &queries, cols, 15));
        let itself =
            Neighbours::of_images(&images, &grey[cols * 700..cols * 701], 1, Device::Cpu { threads: 1 }).unwrap();
        assert!(itself.nearest[0].1 == 700 && itself.nearest[0].0 < 1e-4, "{itself:?}");
    }

    #[test]
    fn a_tie_goes_to_the_nearer_neighbours_and_then_to_the_smaller_label() {
        let labels = [3, 7, 7, 3, 9];
        let near = |d: [f32; 4]| Neighbours { k: 4, nearest: d.into_iter().zip(0..).collect() };
        assert_eq!(near([1.0, 4.0, 9.0, 25.0]).votes(&labels, 4), [(7, 2)]); // 1 + 5 against 2 + 3
        assert_eq!(near([1.0, 4.0, 9.0, 16.0]).votes(&labels, 4), [(3, 2)]); // 1 + 4 against 2 + 3
        assert_eq!(near([1.0, 4.0, 9.0, 16.0]).votes(&labels, 3), [(7, 2)]);
        assert_eq!(near([1.0, 4.0, 9.0, 16.0]).votes(&labels, 1), [(3, 1)]);
    }
}
