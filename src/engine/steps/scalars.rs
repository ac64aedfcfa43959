//! Scalars: partial sums added up in a fixed order, arithmetic on the results, and running sums of metrics.

use super::{Region, StepValues, pointwise};
use crate::engine::isa::Isa;

pub(crate) struct Bound {
    pub isa: Isa,
    /// (partial sums, where their total goes).
    pub totals: Vec<(Region, Region)>,
    /// Arithmetic on scalars.
    pub program: pointwise::Bound,
    /// (scalar, index of the running sum).
    pub metrics: Vec<(Region, usize)>,
}

impl Bound {
    /// Runs the whole step; it has one chunk.
    ///
    /// # Safety
    /// The regions are valid; nobody else touches the outputs or `sums`; scratch as for [`pointwise::Bound::run`].
    pub(crate) unsafe fn run(&self, values: &StepValues, scratch: *mut f32, sums: *mut f64) {
        for (partials, total) in &self.totals {
            // SAFETY: partial sums are one contiguous row.
            let x = unsafe { partials.row(0) };
            // SAFETY: as promised by the caller.
            unsafe {
                *total.ptr = self.isa.run(
                    #[inline(always)]
                    || add_up(x),
                ) as f32
            };
        }
        // SAFETY: as promised by the caller.
        unsafe {
            self.program.run(0, values, scratch);
            for (scalar, index) in &self.metrics {
                *sums.add(*index) += f64::from(*scalar.ptr);
            }
        }
    }
}

/// Eight running sums in f64, then their total in order: thousands of partial sums lose nothing.
#[inline(always)]
fn add_up(x: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let blocks = x.chunks_exact(8);
    let rest = blocks.remainder();
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane += f64::from(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(v);
    }
    lanes.iter().sum()
}
