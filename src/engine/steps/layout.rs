//! Steps that move elements: copies between views, transposition, broadcasting along inner axes, rows and elements by
//! index.

use super::{Context, Kernel, Region, Work};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{
    Lower,
    params::{MoveParams, zeroed},
};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::ops::layout::Lookup;
use crate::engine::plan::View;
use crate::engine::shape::{MAX_RANK, Shape};

/// Elements written by one chunk, about.
const ELEMENTS_PER_CHUNK: usize = 8192;

/// How elements are moved.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// Row by row.
    Copy,
    /// Into columns `start …` of a wider array of zeros.
    Pad {
        /// First column.
        start: usize,
    },
    /// Rows become columns.
    Transpose,
    /// Repetition along dimensions of size 1 that no operand access expresses.
    Broadcast {
        /// The shape of the source.
        from: Shape,
        /// The shape of the result.
        to: Shape,
    },
    /// Rows of a table by index.
    Gather,
    /// Rows summed into a table by index.
    Scatter,
    /// One element of every row by index.
    Pick,
    /// Each number into its row by index, between zeros.
    Place,
}

/// Elements moved, as a step.
#[derive(Debug)]
pub(crate) struct Move {
    /// How.
    pub how: How,
    /// From where.
    pub x: View,
    /// Indices, for all that moves by index.
    pub index: Option<(View, Lookup)>,
    /// To where.
    pub out: View,
}

impl Move {
    /// `x` copied row by row.
    pub(crate) fn copy(x: View, out: View) -> Move {
        Move { how: How::Copy, x, index: None, out }
    }
}

impl Kernel for Move {
    fn name(&self) -> &'static str {
        match self.how {
            How::Copy => "copy",
            How::Pad { .. } => "pad",
            How::Transpose => "transpose",
            How::Broadcast { .. } => "broadcast",
            How::Gather => "gather_rows",
            How::Scatter => "scatter_rows",
            How::Pick => "pick",
            How::Place => "place",
        }
    }

    fn detail(&self) -> String {
        format!("[{}, {}]", self.out.rows, self.out.cols)
    }

    fn reads(&self) -> Vec<View> {
        [self.x].into_iter().chain(self.index.map(|(view, _)| view)).collect()
    }

    fn writes(&self) -> Vec<View> {
        vec![self.out]
    }

    fn flops(&self) -> u64 {
        0
    }

    fn bytes(&self) -> u64 {
        let index = self.index.iter().map(|(view, _)| view.bytes()).sum::<u64>();
        match self.how {
            // Only what is asked for.
            How::Gather | How::Pick => 2 * self.out.bytes() + index,
            _ => self.x.bytes() + index + self.out.bytes(),
        }
    }

    fn footprint(&self) -> u64 {
        self.bytes()
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        let index = self.index.map(|(view, lookup)| (to.region(&view), lookup));
        Box::new(MoveWork { how: self.how, x: to.region(&self.x), index, out: to.region(&self.out) })
    }

    /// See kernels/layout.cu.
    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        let out = &self.out;
        let mut params = MoveParams { ctl: to.clock.ctl, x: to.view(&self.x), out: to.view(out), ..zeroed() };
        let quads = (out.rows * out.cols.div_ceil(4)).div_ceil(256).max(1);
        let (code, grid, shared) = match self.how {
            How::Copy => (0, quads, 0),
            How::Pad { start } => {
                params.start = start as i32;
                (1, quads, 0)
            }
            How::Transpose => (2, (out.rows.div_ceil(32) * out.cols.div_ceil(32)).max(1), 32 * 33 * 4),
            How::Broadcast { from, to } => {
                params.rank = to.len() as i32;
                let strides = from.broadcast_strides(&to);
                for axis in 0..to.len().min(MAX_RANK) {
                    (params.to[axis], params.strides[axis]) = (to[axis] as i32, strides[axis] as i32);
                }
                (3, quads, 0)
            }
            How::Gather => (4, quads, 0),
            How::Scatter => (5, out.rows.max(1) * out.cols.div_ceil(256).max(1), 32),
            How::Pick => (6, quads, 0),
            How::Place => (7, quads, 0),
        };
        params.kind = code;
        if let Some((view, lookup)) = &self.index {
            params.index = to.address(view);
            params.lookup = to.checks_indices(*lookup);
        }
        to.launch("move_elements", [grid as u32, 1, 1], 256, shared, &params)?;
        Ok(())
    }
}

struct MoveWork {
    how: How,
    x: Region,
    index: Option<(Region, Lookup)>,
    out: Region,
}

impl MoveWork {
    fn rows_per_chunk(&self) -> usize {
        match self.how {
            // Rows with one index add up in the order of the source: one chunk owns the table.
            How::Scatter => self.out.rows.max(1),
            _ => (ELEMENTS_PER_CHUNK / self.out.cols.max(1)).max(1),
        }
    }
}

impl Work for MoveWork {
    fn chunks(&self) -> usize {
        self.out.rows.div_ceil(self.rows_per_chunk())
    }

    unsafe fn run(&self, chunk: usize, with: &Context<'_>) {
        let per = self.rows_per_chunk();
        let rows = chunk * per..((chunk + 1) * per).min(self.out.rows);
        // SAFETY: as promised by the caller; every index is checked before it is used.
        unsafe {
            match self.how {
                How::Copy => rows.for_each(|r| self.out.row_mut(r).copy_from_slice(self.x.row(r))),
                How::Pad { start } => rows.for_each(|r| {
                    let out = self.out.row_mut(r);
                    out.fill(0.0);
                    out[start..][..self.x.cols].copy_from_slice(self.x.row(r));
                }),
                How::Transpose => rows.for_each(|r| {
                    self.out.row_mut(r).iter_mut().enumerate().for_each(|(c, o)| *o = *self.x.at(c, r));
                }),
                How::Broadcast { from, to } => self.broadcast(rows, from, to),
                How::Gather => rows.for_each(|r| match self.index_at(r, with) {
                    Some(i) => self.out.row_mut(r).copy_from_slice(self.x.row(i)),
                    None => self.out.row_mut(r).fill(0.0),
                }),
                How::Scatter => {
                    rows.clone().for_each(|r| self.out.row_mut(r).fill(0.0));
                    for r in 0..self.x.rows {
                        if let Some(i) = self.index_at(r, with) {
                            self.out.row_mut(i).iter_mut().zip(self.x.row(r)).for_each(|(o, v)| *o += v);
                        }
                    }
                }
                How::Pick => rows.for_each(|r| {
                    let i = self.index_at(r, with);
                    *self.out.at(r, 0) = i.map_or(0.0, |i| *self.x.at(r, i));
                }),
                How::Place => rows.for_each(|r| {
                    self.out.row_mut(r).fill(0.0);
                    if let Some(i) = self.index_at(r, with) {
                        *self.out.at(r, i) = *self.x.at(r, 0);
                    }
                }),
            }
        }
    }
}

impl MoveWork {
    /// `index[r]`, if it names a row or column; if not, that is reported.
    ///
    /// # Safety
    /// As for [`Work::run`].
    unsafe fn index_at(&self, r: usize, with: &Context<'_>) -> Option<usize> {
        let (index, lookup) = self.index.expect("what moves by index has one");
        // SAFETY: the index vector is contiguous and has an element for every row.
        let value = unsafe { *index.ptr.add(r) };
        let good = value >= 0.0 && value < lookup.below as f32 && value.fract() == 0.0;
        if !good {
            with.bad_index.report(with.values.step, &lookup, r, f64::from(value));
        }
        good.then_some(value as usize)
    }

    /// # Safety
    /// As for [`Work::run`]; `x` is contiguous.
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
