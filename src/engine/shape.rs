//! Shapes: up to four dimensions, row-major, known when the graph is built.

use std::fmt;
use std::ops::Deref;

/// The most dimensions a value can have. A VAE needs two, importance-weighted bounds three.
pub const MAX_RANK: usize = 4;

/// The sizes of a value's dimensions, slowest first: `[rows, columns]` for a matrix, `[]` for a scalar.
///
/// Copied freely, compared and hashed; reads as a slice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// A shape from its dimensions.
    ///
    /// # Panics
    /// With more than [`MAX_RANK`] dimensions.
    #[track_caller]
    pub fn new(dims: &[usize]) -> Shape {
        assert!(
            dims.len() <= MAX_RANK,
            "shape {dims:?} has {} dimensions, at most {MAX_RANK} are supported",
            dims.len()
        );
        let mut all = [0; MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        Shape { dims: all, rank: dims.len() as u8 }
    }

    /// The shape of a scalar, `[]`.
    pub fn scalar() -> Shape {
        Shape::new(&[])
    }

    /// The number of elements, ∏ dims; 1 for a scalar.
    pub fn size(&self) -> usize {
        self.iter().product()
    }

    /// (rows, columns) when the last dimension is the columns and all others are rows; a scalar is (1, 1).
    pub fn matrix(&self) -> (usize, usize) {
        match self.split_last() {
            Some((&cols, rest)) => (rest.iter().product(), cols),
            None => (1, 1),
        }
    }

    /// This shape with the dimensions in `axes` (a bit set) replaced by 1.
    pub(crate) fn with_ones(&self, axes: u8) -> Shape {
        let mut out = *self;
        for axis in 0..self.len() {
            if axes >> axis & 1 == 1 {
                out.dims[axis] = 1;
            }
        }
        out
    }

    /// This shape without the dimensions in `axes` (a bit set).
    pub(crate) fn without(&self, axes: u8) -> Shape {
        let kept: Vec<usize> = (0..self.len()).filter(|axis| axes >> axis & 1 == 0).map(|axis| self[axis]).collect();
        Shape::new(&kept)
    }

    /// The common shape of two operands under NumPy's broadcasting rule: aligned at the last dimension, a size of 1
    /// stretches. `None` when they do not fit.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.len().max(other.len());
        let mut dims = [1; MAX_RANK];
        for (i, dim) in dims[..rank].iter_mut().enumerate() {
            let a = self.dim_before_last(rank - 1 - i);
            let b = other.dim_before_last(rank - 1 - i);
            *dim = match (a, b) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Some(Shape::new(&dims[..rank]))
    }

    /// The dimension `i` places before the last one; 1 beyond the first.
    pub(crate) fn dim_before_last(&self, i: usize) -> usize {
        if i < self.len() { self[self.len() - 1 - i] } else { 1 }
    }

    /// Row-major strides in elements, with 0 where the dimension is 1, so that an index that runs over a larger
    /// shape stays in place: the reading order of a broadcast.
    pub(crate) fn broadcast_strides(&self, to: &Shape) -> [usize; MAX_RANK] {
        let mut strides = [0; MAX_RANK];
        let mut step = 1;
        for i in 0..to.len() {
            let dim = self.dim_before_last(i);
            if dim > 1 {
                strides[to.len() - 1 - i] = step;
            }
            step *= dim;
        }
        strides
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.iter().map(usize::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}

/// Visits every index of `shape` in row-major order and hands over the element offset in an operand that is read
/// with `strides` (see [`Shape::broadcast_strides`]).
pub(crate) fn for_each_offset(shape: &Shape, strides: &[usize; MAX_RANK], mut visit: impl FnMut(usize)) {
    let mut dims = [1; MAX_RANK];
    let mut steps = [0; MAX_RANK];
    let lead = MAX_RANK - shape.len();
    dims[lead..].copy_from_slice(shape);
    steps[lead..].copy_from_slice(&strides[..shape.len()]);
    for i in 0..dims[0] {
        for j in 0..dims[1] {
            for k in 0..dims[2] {
                let base = i * steps[0] + j * steps[1] + k * steps[2];
                for l in 0..dims[3] {
                    visit(base + l * steps[3]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let fit = |a: &[usize], b: &[usize]| Shape::new(a).broadcast(&Shape::new(b)).map(|s| s.to_vec());
        assert_eq!(fit(&[4, 1], &[3]), Some(vec![4, 3]));
        assert_eq!(fit(&[], &[2, 5]), Some(vec![2, 5]));
        assert_eq!(fit(&[7, 1, 5], &[6, 1]), Some(vec![7, 6, 5]));
        assert_eq!(fit(&[2, 3], &[2]), None);
    }

    #[test]
    fn offsets_of_a_column_repeat_along_the_row() {
        let (column, full) = (Shape::new(&[2, 1]), Shape::new(&[2, 3]));
        let mut seen = Vec::new();
        for_each_offset(&full, &column.broadcast_strides(&full), |o| seen.push(o));
        assert_eq!(seen, [0, 0, 0, 1, 1, 1]);
    }
}
