//! The batch: rows of the resident data set, through the epoch's permutation, in units.
//!
//! out[i, j] = data[order(cursor + i), j] / unit, data bytes or f32, with order a counter-based permutation of the rows (a pure function of
//! seed, epoch and position; see [`crate::engine::rng::Permutation`]) or the identity.

#[cfg(feature = "cuda")]
use std::mem::offset_of;

use super::{Context, DataRows, DataUse, Kernel, Numbers, Region, Work};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{
    DeviceData, Lower,
    params::{BatchParams, zeroed},
};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::graph::Slot;
use crate::engine::isa::Isa;
use crate::engine::plan::View;
use crate::engine::rng::Permutation;

/// DataRows of one chunk: 16 rows of MNIST are 12 544 bytes.
const ROWS_PER_CHUNK: usize = 16;

/// The batch as a step.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The data set.
    pub slot: Slot,
    /// What numbers are divided by.
    pub unit: f32,
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
        // A byte is read for every number written, in most data sets.
        self.out.bytes() + self.out.size() as u64
    }

    fn footprint(&self) -> u64 {
        self.bytes()
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        let rows = DataRows { numbers: Numbers::Bytes(std::ptr::null()), count: 0, columns: self.out.cols };
        let data = DataUse { slot: to.slot_name(self.slot).into(), rows };
        Box::new(BatchWork { isa: to.isa, data, unit: self.unit, out: to.region(&self.out) })
    }

    #[cfg(feature = "cuda")]
    fn gathers_batch(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        let grid = [self.out.rows.max(1) as u32, self.out.cols.div_ceil(1024).max(1) as u32, 1];
        let (out, ahead) = to.gathered(&self.out);
        let params = BatchParams { clock: to.clock, out, unit: self.unit, ahead: ahead.into(), ..zeroed() };
        let launch = to.launch("batch", grid, 256, 0, &params)?;
        to.can_end_step(launch, offset_of!(BatchParams, end));
        let fill = |data: &DeviceData, params: &mut BatchParams| {
            // A launch for one model; an ensemble adds those of the others.
            params.data[0] = data.address();
            params.data_rows = data.rows() as u32;
            params.floats = i32::from(data.floats);
        };
        to.reads_data(launch, self.slot, self.out.cols, offset_of!(BatchParams, data), fill);
        Ok(())
    }
}

struct BatchWork {
    isa: Isa,
    data: DataUse,
    unit: f32,
    out: Region,
}

impl Work for BatchWork {
    fn chunks(&self) -> usize {
        self.out.rows.div_ceil(ROWS_PER_CHUNK)
    }

    fn data(&mut self) -> Option<&mut DataUse> {
        Some(&mut self.data)
    }

    unsafe fn run(&self, chunk: usize, with: &Context<'_>) {
        let (values, data) = (with.values, self.data.rows);
        let order = Permutation::new(values.seed, values.epoch, data.count as u32);
        for i in chunk * ROWS_PER_CHUNK..((chunk + 1) * ROWS_PER_CHUNK).min(self.out.rows) {
            let position = values.cursor + i as u32;
            let row = if values.shuffle { order.at(position) } else { position } as usize;
            debug_assert!(row < data.count);
            let (at, len) = (row * data.columns, data.columns);
            // SAFETY: cursor + rows ≤ the data's rows, as checked before the step; out row i belongs to this chunk.
            unsafe {
                let to = self.out.row_mut(i);
                match data.numbers {
                    Numbers::Bytes(p) => self.copy(std::slice::from_raw_parts(p.add(at), len), to, f32::from),
                    Numbers::Floats(p) => self.copy(std::slice::from_raw_parts(p.add(at), len), to, |x| x),
                }
            }
        }
    }
}

impl BatchWork {
    #[inline(always)]
    fn copy<T: Copy>(&self, from: &[T], to: &mut [f32], number: impl Fn(T) -> f32) {
        self.isa.run(
            #[inline(always)]
            || {
                for (t, &x) in to.iter_mut().zip(from) {
                    *t = number(x) / self.unit;
                }
            },
        );
    }
}
