//! Views: what the operands of a kernel are before they have addresses.
//!
//! A view is a rectangle, which is all that moving, multiplying and adding up need to know. A kernel that sees more
//! dimensions (a reduction, a convolution) holds a contiguous view, which says where its elements lie, and their sizes
//! beside it.

use crate::engine::graph::Slot;

/// Which memory a view lies in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) enum Mem {
    /// A buffer of the plan's own scratch memory.
    Buffer(u32),
    /// A parameter or state slot.
    Slot(Slot),
    /// A constant array.
    Tensor(u32),
}

/// A rectangle of f32: row r, column c is element offset + r · stride + c.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct View {
    /// The memory.
    pub mem: Mem,
    /// Elements before the first one.
    pub offset: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl View {
    pub(crate) fn contiguous(mem: Mem, rows: usize, cols: usize) -> View {
        View { mem, offset: 0, rows, cols, stride: cols }
    }

    /// A placeholder for tests of code that never touches memory.
    #[cfg(test)]
    pub(crate) fn nowhere(rows: usize, cols: usize) -> View {
        View::contiguous(Mem::Buffer(u32::MAX), rows, cols)
    }

    /// Elements.
    pub(crate) fn size(&self) -> usize {
        self.rows * self.cols
    }

    /// Bytes of its elements.
    pub(crate) fn bytes(&self) -> u64 {
        4 * self.size() as u64
    }

    pub(crate) fn is_contiguous(&self) -> bool {
        self.stride == self.cols || self.rows <= 1
    }

    /// Whether it has exactly the elements of another view in the same order, be the rectangles what they may.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_same_memory(&self, other: &View) -> bool {
        let contiguous = self.is_contiguous() && other.is_contiguous();
        contiguous && (self.mem, self.offset, self.size()) == (other.mem, other.offset, other.size())
    }

    /// The same contiguous elements as another rectangle.
    pub(crate) fn reshaped(&self, rows: usize, cols: usize) -> View {
        debug_assert!(self.is_contiguous() && self.size() == rows * cols);
        View { rows, cols, stride: cols, ..*self }
    }

    /// Columns `start .. start + cols`.
    pub(crate) fn columns(&self, start: usize, cols: usize) -> View {
        debug_assert!(start + cols <= self.cols);
        View { offset: self.offset + start, cols, ..*self }
    }

    /// One past the last element, counted from the start of the memory.
    pub(crate) fn end(&self) -> usize {
        if self.size() == 0 { self.offset } else { self.offset + (self.rows - 1) * self.stride + self.cols }
    }

    /// Whether two views may share an element. Exact for rectangles of one stride, conservative otherwise.
    pub(crate) fn overlaps(&self, other: &View) -> bool {
        if self.mem != other.mem || self.offset >= other.end() || other.offset >= self.end() {
            return false;
        }
        if self.stride == other.stride && self.stride > 0 {
            // Where the other's columns begin, counted from this one's, modulo the stride.
            let (s, a, b) = (self.stride, self.offset, other.offset);
            let start = (b % s + s - a % s) % s;
            if start >= self.cols && start + other.cols <= s {
                return false;
            }
        }
        true
    }
}
