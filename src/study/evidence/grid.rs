//! Grids over the latent space of one or two dimensions, cut into tiles.

/// Points (i − m)·h for i = 0 … 2m on every axis, so that 0 is one of them, in tiles of 64 neighbours.
///
/// Halving h makes tile t of an axis the parent of tiles 2t and 2t + 1: what is known of a tile says where to look on the
/// finer grid.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    pub dimensions: usize,
    pub spacing: f64,
    /// m.
    pub half: usize,
}

impl Grid {
    pub fn new(dimensions: usize, spacing: f64, half_width: f64) -> Grid {
        Grid { dimensions, spacing, half: (half_width / spacing).round() as usize }
    }

    /// Points along an edge of a tile.
    fn edge(&self) -> usize {
        if self.dimensions == 1 { 64 } else { 8 }
    }

    fn tiles_per_axis(&self) -> usize {
        (2 * self.half + 1).div_ceil(self.edge())
    }

    pub fn tiles(&self) -> usize {
        self.tiles_per_axis().pow(self.dimensions as u32)
    }

    fn position(&self, tile: usize) -> Vec<usize> {
        let n = self.tiles_per_axis();
        (0..self.dimensions).map(|axis| tile / n.pow(axis as u32) % n).collect()
    }

    /// The tile of the grid with twice the spacing that this one lies in.
    pub fn parent(&self, tile: usize) -> usize {
        let coarse = Grid { spacing: 2.0 * self.spacing, half: self.half / 2, ..*self };
        let n = coarse.tiles_per_axis();
        self.position(tile).into_iter().enumerate().map(|(axis, t)| t / 2 * n.pow(axis as u32)).sum()
    }

    /// The tiles around a tile, across corners too, and itself.
    pub fn neighbours(&self, tile: usize) -> Vec<usize> {
        let n = self.tiles_per_axis();
        let mut all = vec![0];
        for (axis, t) in self.position(tile).into_iter().enumerate() {
            let near = t.saturating_sub(1)..=(t + 1).min(n - 1);
            all =
                all.into_iter().flat_map(|at: usize| near.clone().map(move |t| at + t * n.pow(axis as u32))).collect();
        }
        all
    }

    /// The points of a tile as indices along the axes.
    fn indices(&self, tile: usize) -> Vec<Vec<usize>> {
        let (edge, last) = (self.edge(), 2 * self.half);
        let ranges: Vec<_> =
            self.position(tile).into_iter().map(|t| t * edge..=(t * edge + edge - 1).min(last)).collect();
        let mut points = vec![Vec::new()];
        for range in ranges {
            points = points
                .into_iter()
                .flat_map(|p: Vec<usize>| range.clone().map(move |i| p.iter().copied().chain([i]).collect()))
                .collect();
        }
        points
    }

    pub fn points(&self, tile: usize) -> Vec<GridPoint> {
        let place = |i: usize| (i as f64 - self.half as f64) * self.spacing;
        let point = |indices: Vec<usize>| GridPoint {
            even: indices.iter().all(|&i| i.abs_diff(self.half).is_multiple_of(2)),
            border: indices.iter().any(|&i| i == 0 || i == 2 * self.half),
            z: indices.into_iter().map(place).collect(),
        };
        self.indices(tile).into_iter().map(point).collect()
    }

    /// ln of the volume of a cell.
    pub fn log_cell(&self) -> f64 {
        self.dimensions as f64 * self.spacing.ln()
    }
}

pub(super) struct GridPoint {
    pub z: Vec<f64>,
    /// Whether it belongs to the grid of twice the spacing.
    pub even: bool,
    /// Whether it is on the outermost line.
    pub border: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_every_point_once_and_halving_makes_parents() {
        for (dimensions, spacing, expected) in [(1, 0.1, 121), (2, 0.5, 625), (2, 0.1, 14641)] {
            let grid = Grid::new(dimensions, spacing, 6.0);
            let all: Vec<GridPoint> = (0..grid.tiles()).flat_map(|t| grid.points(t)).collect();
            assert_eq!(all.len(), expected);
            let total: f64 = all.iter().flat_map(|p| &p.z).sum();
            assert!(total.abs() < 1e-9 && all.iter().flat_map(|p| &p.z).all(|z| z.abs() < 6.0 + 1e-9));
            let mut distinct: Vec<String> = all.iter().map(|p| format!("{:.3?}", p.z)).collect();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), expected);
            let finer = Grid::new(dimensions, spacing / 2.0, 6.0);
            for tile in 0..finer.tiles() {
                let parent = grid.points(finer.parent(tile));
                for even in finer.points(tile).into_iter().filter(|p| p.even) {
                    let near = |p: &GridPoint| p.z.iter().zip(&even.z).all(|(a, b)| (a - b).abs() < 1e-9);
                    assert!(parent.iter().any(near), "{:?} is not in the parent of its tile", even.z);
                }
            }
        }
    }
}
