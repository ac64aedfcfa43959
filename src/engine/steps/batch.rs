//! The batch: rows of the resident data set, through the epoch's permutation, as numbers in [0, 1].
//!
//! out[i, j] = bytes[order(cursor + i), j] / 255, with order a counter-based permutation of the rows (a pure function of
//! seed, epoch and position; see [`crate::engine::rng::Permutation`]) or the identity.

use super::{Region, StepValues};
use crate::engine::isa::Isa;
use crate::engine::rng::Permutation;

/// Rows of one chunk: 16 rows of MNIST are 12 544 bytes.
const ROWS_PER_CHUNK: usize = 16;

/// A data set in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    pub ptr: *const u8,
    pub rows: usize,
    pub cols: usize,
}

// SAFETY: the bytes are only read while plans run.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

pub(crate) struct Bound {
    pub isa: Isa,
    pub data: Bytes,
    pub out: Region,
}

impl Bound {
    pub(crate) fn chunks(&self) -> usize {
        self.out.rows.div_ceil(ROWS_PER_CHUNK)
    }

    /// # Safety
    /// `out` is written by nobody else; cursor + rows ≤ the data's rows (checked before the step runs).
    pub(crate) unsafe fn run(&self, chunk: usize, values: &StepValues) {
        let order = Permutation::new(values.seed, values.epoch, self.data.rows as u32);
        for i in chunk * ROWS_PER_CHUNK..((chunk + 1) * ROWS_PER_CHUNK).min(self.out.rows) {
            let position = values.cursor + i as u32;
            let row = if values.shuffle { order.at(position) } else { position } as usize;
            debug_assert!(row < self.data.rows);
            // SAFETY: row < data.rows as checked before the step; out row i belongs to this chunk.
            let (from, to) = unsafe {
                (
                    std::slice::from_raw_parts(self.data.ptr.add(row * self.data.cols), self.data.cols),
                    self.out.row_mut(i),
                )
            };
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
