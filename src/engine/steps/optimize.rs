//! The update of the parameters: one pass over the flat arrays p, g, m, v (see [`Optimizer::update`]).

use super::StepValues;
use crate::engine::isa::Isa;
use crate::engine::optim::Optimizer;

/// Most elements of one chunk: 4 arrays of 32 KiB, half of a second-level cache at most.
const ELEMENTS_PER_CHUNK: usize = 8192;

/// A parameter, or a piece of one, with its gradient and moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub p: *mut f32,
    pub g: *const f32,
    pub m: *mut f32,
    pub v: *mut f32,
    pub len: usize,
}

pub(crate) struct Bound {
    pub isa: Isa,
    pub rule: Optimizer,
    /// One chunk each; see [`pieces`].
    pub pieces: Vec<Piece>,
    /// The scalar that multiplies the gradient, if any.
    pub scale: Option<*const f32>,
}

/// Cuts parameters into chunks, ordered by their relative place in their parameter: first what is near the beginning of
/// any parameter, last what is near the end of any. The products that make the gradients are cut by rows in the same
/// way, so that a thread updates about the rows that it has just computed and that are in its caches.
pub(crate) fn pieces(params: &[Piece]) -> Vec<Piece> {
    let mut placed: Vec<(f64, Piece)> = Vec::new();
    for whole in params {
        let count = whole.len.div_ceil(ELEMENTS_PER_CHUNK);
        placed.extend((0..count).map(|i| {
            let (from, to) = (whole.len * i / count, whole.len * (i + 1) / count);
            let at = |p: *mut f32| p.wrapping_add(from);
            let piece =
                Piece { p: at(whole.p), g: whole.g.wrapping_add(from), m: at(whole.m), v: at(whole.v), len: to - from };
            ((from + to) as f64 / whole.len as f64, piece)
        }));
    }
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    placed.into_iter().map(|(_, piece)| piece).collect()
}

// SAFETY: addresses only; the planner orders the accesses.
unsafe impl Send for Bound {}
// SAFETY: as above.
unsafe impl Sync for Bound {}

impl Bound {
    pub(crate) fn chunks(&self) -> usize {
        self.pieces.len()
    }

    /// # Safety
    /// The arrays are valid and disjoint, and nobody else touches this chunk's part of them.
    pub(crate) unsafe fn run(&self, chunk: usize, values: &StepValues) {
        // SAFETY: a scalar that an earlier wave wrote.
        let scale = self.scale.map_or(1.0, |s| unsafe { *s });
        let Piece { p, g, m, v, len } = self.pieces[chunk];
        // SAFETY: the piece lies inside each array, and belongs to this chunk.
        let (p, g, m, v) = unsafe {
            (
                std::slice::from_raw_parts_mut(p, len),
                std::slice::from_raw_parts(g, len),
                std::slice::from_raw_parts_mut(m, len),
                std::slice::from_raw_parts_mut(v, len),
            )
        };
        self.isa.run(
            #[inline(always)]
            || self.rule.update(values.update, scale, p, g, m, v),
        );
    }
}
