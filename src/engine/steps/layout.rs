//! Steps that move elements: copies between views, transposition, broadcasting along inner axes, rows by index.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Region;
use crate::engine::plan::Move;
use crate::engine::shape::{MAX_RANK, Shape};

/// Elements written by one chunk, about.
const ELEMENTS_PER_CHUNK: usize = 8192;

pub(crate) struct Bound {
    pub kind: Move,
    /// The source.
    pub x: Region,
    /// Row indices, for gathering and scattering.
    pub index: Option<Region>,
    pub out: Region,
}

impl Bound {
    fn rows_per_chunk(&self) -> usize {
        match self.kind {
            // Rows with one index add up in the order of the source: one chunk owns the table.
            Move::Scatter => self.out.rows.max(1),
            _ => (ELEMENTS_PER_CHUNK / self.out.cols.max(1)).max(1),
        }
    }

    pub(crate) fn chunks(&self) -> usize {
        self.out.rows.div_ceil(self.rows_per_chunk())
    }

    /// Sets `bad_index` when a row index is not a whole number inside the table.
    ///
    /// # Safety
    /// The regions are valid and nobody else touches this chunk's rows of `out`.
    pub(crate) unsafe fn run(&self, chunk: usize, bad_index: &AtomicBool) {
        let per = self.rows_per_chunk();
        let rows = chunk * per..((chunk + 1) * per).min(self.out.rows);
        // SAFETY: as promised by the caller; every index is checked before it is used.
        unsafe {
            match self.kind {
                Move::Copy => rows.for_each(|r| self.out.row_mut(r).copy_from_slice(self.x.row(r))),
                Move::Pad { start } => rows.for_each(|r| {
                    let out = self.out.row_mut(r);
                    out.fill(0.0);
                    out[start..][..self.x.cols].copy_from_slice(self.x.row(r));
                }),
                Move::Transpose => rows.for_each(|r| {
                    self.out.row_mut(r).iter_mut().enumerate().for_each(|(c, o)| *o = *self.x.at(c, r));
                }),
                Move::Broadcast { from, to } => self.broadcast(rows, from, to),
                Move::Gather => rows.for_each(|r| match self.row_index(r, self.x.rows, bad_index) {
                    Some(i) => self.out.row_mut(r).copy_from_slice(self.x.row(i)),
                    None => self.out.row_mut(r).fill(0.0),
                }),
                Move::Scatter => {
                    rows.clone().for_each(|r| self.out.row_mut(r).fill(0.0));
                    for r in 0..self.x.rows {
                        if let Some(i) = self.row_index(r, self.out.rows, bad_index) {
                            self.out.row_mut(i).iter_mut().zip(self.x.row(r)).for_each(|(o, v)| *o += v);
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`Bound::run`].
    unsafe fn row_index(&self, r: usize, rows: usize, bad_index: &AtomicBool) -> Option<usize> {
        let index = self.index.expect("gathering has an index");
        // SAFETY: the index vector is contiguous and has an element for every row.
        let value = unsafe { *index.ptr.add(r) };
        let good = value >= 0.0 && value < rows as f32 && value.fract() == 0.0;
        if !good {
            bad_index.store(true, Ordering::Relaxed);
        }
        good.then_some(value as usize)
    }

    /// # Safety
    /// As for [`Bound::run`]; `x` is contiguous.
    unsafe fn broadcast(&self, rows: std::ops::Range<usize>, from: Shape, to: Shape) {
        let strides = from.broadcast_strides(&to);
        let rank = to.len();
        for r in rows {
            let mut rest = r;
            let mut base = 0;
            for axis in (0..rank.saturating_sub(1)).rev() {
                base += rest % to[axis] * strides[axis];
                rest /= to[axis];
            }
            let step = if rank == 0 { 0 } else { strides[(rank - 1).min(MAX_RANK - 1)] };
            // SAFETY: the strides stay inside `from`, whose elements x holds.
            unsafe {
                let out = self.out.row_mut(r);
                out.iter_mut().enumerate().for_each(|(c, o)| *o = *self.x.ptr.add(base + c * step));
            }
        }
    }
}
