//! The update of the parameters: one pass over the flat arrays p, g, m, v (see [`Optimizer::update`]).

use super::StepValues;
use crate::isa::Isa;
use crate::optim::Optimizer;

/// Elements of one chunk: 4 arrays of 32 KiB, half of a second-level cache at most.
const ELEMENTS_PER_CHUNK: usize = 8192;

/// Parameters that lie one after the other, with their gradient and moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub p: *mut f32,
    pub g: *const f32,
    pub m: *mut f32,
    pub v: *mut f32,
    pub len: usize,
}

pub(crate) struct Bound {
    pub isa: Isa,
    pub rule: Optimizer,
    pub runs: Vec<Run>,
    /// The scalar that multiplies the gradient, if any.
    pub scale: Option<*const f32>,
}

// SAFETY: addresses only; the planner orders the accesses.
unsafe impl Send for Bound {}
// SAFETY: as above.
unsafe impl Sync for Bound {}

impl Bound {
    pub(crate) fn chunks(&self) -> usize {
        self.runs.iter().map(|r| r.len.div_ceil(ELEMENTS_PER_CHUNK)).sum()
    }

    /// # Safety
    /// The arrays are valid and disjoint, and nobody else touches this chunk's part of them.
    pub(crate) unsafe fn run(&self, mut chunk: usize, values: &StepValues) {
        // SAFETY: a scalar that an earlier wave wrote.
        let scale = self.scale.map_or(1.0, |s| unsafe { *s });
        for run in &self.runs {
            let chunks = run.len.div_ceil(ELEMENTS_PER_CHUNK);
            if chunk >= chunks {
                chunk -= chunks;
                continue;
            }
            let at = chunk * ELEMENTS_PER_CHUNK;
            let n = ELEMENTS_PER_CHUNK.min(run.len - at);
            // SAFETY: n elements from `at` are inside each array, and belong to this chunk.
            let (p, g, m, v) = unsafe {
                (
                    std::slice::from_raw_parts_mut(run.p.add(at), n),
                    std::slice::from_raw_parts(run.g.add(at), n),
                    std::slice::from_raw_parts_mut(run.m.add(at), n),
                    std::slice::from_raw_parts_mut(run.v.add(at), n),
                )
            };
            return self.isa.run(
                #[inline(always)]
                || self.rule.update(values.update, scale, p, g, m, v),
            );
        }
    }
}
