//! The batch: rows of the resident data set, through the epoch's permutation, as numbers in [0, 1].
//!
//! out[i, j] = bytes[order(cursor + i), j] / 255, with order a counter-based permutation of the rows (a pure function of
//! seed, epoch and position; see [`crate::engine::rng::Permutation`]) or the identity.

use super::{Bytes, Context, DataUse, Kernel, Region, Work};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{Lower, params::BatchParams};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::graph::Slot;
use crate::engine::isa::Isa;
use crate::engine::plan::View;
use crate::engine::rng::Permutation;

/// Rows of one chunk: 16 rows of MNIST are 12 544 bytes.
const ROWS_PER_CHUNK: usize = 16;

/// The batch as a step.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The data set.
    pub slot: Slot,
    /// The batch.
    pub out: View,
}

impl Kernel for Batch {
    fn name(&self) -> &'static str {
        "batch"
    }

    fn detail(&self) -> String {
        format!("[{}, {}]", self.out.rows, self.out.cols)
    }

    fn reads(&self) -> Vec<View> {
        Vec::new()
    }

    fn writes(&self) -> Vec<View> {
        vec![self.out]
    }

    fn flops(&self) -> u64 {
        self.out.size() as u64
    }

    fn bytes(&self) -> u64 {
        // A byte is read for every number written.
        self.out.bytes() + self.out.size() as u64
    }

    fn footprint(&self) -> u64 {
        self.bytes()
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        let bytes = Bytes { ptr: std::ptr::null(), rows: 0, cols: self.out.cols };
        let data = DataUse { slot: to.slot_name(self.slot).into(), bytes };
        Box::new(Bound { isa: to.isa, data, out: to.region(&self.out) })
    }

    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        let grid = [self.out.rows.max(1) as u32, self.out.cols.div_ceil(1024).max(1) as u32, 1];
        let params = BatchParams { clock: to.clock, out: to.view(&self.out), data: 0, data_rows: 0, pad: 0 };
        let launch = to.launch("batch", grid, 256, 0, &params)?;
        let found = move |data, rows| BatchParams { data, data_rows: rows, ..params };
        to.reads_data(launch, self.slot, self.out.cols, found);
        Ok(())
    }
}

struct Bound {
    isa: Isa,
    data: DataUse,
    out: Region,
}

impl Work for Bound {
    fn chunks(&self) -> usize {
        self.out.rows.div_ceil(ROWS_PER_CHUNK)
    }

    fn data(&mut self) -> Option<&mut DataUse> {
        Some(&mut self.data)
    }

    unsafe fn run(&self, chunk: usize, with: &Context<'_>) {
        let (values, data) = (with.values, self.data.bytes);
        let order = Permutation::new(values.seed, values.epoch, data.rows as u32);
        for i in chunk * ROWS_PER_CHUNK..((chunk + 1) * ROWS_PER_CHUNK).min(self.out.rows) {
            let position = values.cursor + i as u32;
            let row = if values.shuffle { order.at(position) } else { position } as usize;
            debug_assert!(row < data.rows);
            // SAFETY: cursor + rows ≤ the data's rows, as checked before the step; out row i belongs to this chunk.
            let (from, to) =
                unsafe { (std::slice::from_raw_parts(data.ptr.add(row * data.cols), data.cols), self.out.row_mut(i)) };
            self.isa.run(
                #[inline(always)]
                || {
                    for (t, &b) in to.iter_mut().zip(from) {
                        *t = f32::from(b) / 255.0;
                    }
                },
            );
        }
    }
}
