//! The update of the parameters: one pass over the flat arrays p, g, m, v (see [`Optimizer::update`]).

#[cfg(feature = "cuda")]
use std::mem::offset_of;

use super::{Context, Kernel, Work};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{
    Lower,
    params::{OptimizeParams, RuleParams, zeroed},
};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::graph::Slot;
use crate::engine::isa::Isa;
use crate::engine::optim::Optimizer;
use crate::engine::plan::View;

/// Most elements of one chunk: 4 arrays of 32 KiB, half of a second-level cache at most.
const ELEMENTS_PER_CHUNK: usize = 8192;

/// The update of parameters as a step.
#[derive(Debug)]
pub(crate) struct Optimize {
    /// The rule.
    pub rule: Optimizer,
    /// (parameter, gradient).
    pub params: Vec<(Slot, View)>,
    /// Multiplies the gradients.
    pub scale: Option<View>,
}

impl Optimize {
    fn is_adam(&self) -> bool {
        matches!(self.rule, Optimizer::Adam { .. })
    }

    /// Parameters.
    fn size(&self) -> u64 {
        self.params.iter().map(|(_, g)| g.size() as u64).sum()
    }
}

impl Kernel for Optimize {
    fn name(&self) -> &'static str {
        if self.is_adam() { "adam" } else { "sgd" }
    }

    fn detail(&self) -> String {
        format!("{} parameters in {} arrays", self.size(), self.params.len())
    }

    fn reads(&self) -> Vec<View> {
        self.params.iter().map(|(_, grad)| *grad).chain(self.scale).collect()
    }

    fn writes(&self) -> Vec<View> {
        Vec::new()
    }

    fn updates(&self) -> Vec<Slot> {
        self.params.iter().map(|(slot, _)| *slot).collect()
    }

    fn flops(&self) -> u64 {
        self.size() * if self.is_adam() { 13 } else { 4 }
    }

    fn bytes(&self) -> u64 {
        4 * self.size() * if self.is_adam() { 7 } else { 5 }
    }

    fn gradient_bytes(&self) -> u64 {
        4 * self.size()
    }

    fn footprint(&self) -> u64 {
        // The parameter, its gradient, and one or two moments.
        4 * self.size() * if self.is_adam() { 4 } else { 3 }
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        let mut wholes = Vec::new();
        for (slot, grad) in &self.params {
            let (at, g) = (to.param(*slot), to.region(grad).ptr.cast_const());
            wholes.push(Piece { p: at.p, g, m: at.m, v: at.v, len: grad.size() });
        }
        let scale = self.scale.as_ref().map(|v| to.region(v).ptr.cast_const());
        Box::new(UpdateWork { isa: to.isa, rule: self.rule, pieces: pieces(&wholes), scale })
    }

    #[cfg(feature = "cuda")]
    fn update(&self) -> Option<&Optimize> {
        Some(self)
    }

    /// Parameters whose memory and gradients are neighbours are updated by one launch.
    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        let scale = self.scale.as_ref().map_or(0, |v| to.address(v));
        let base = OptimizeParams { clock: to.clock, scale, by: self.by(), ..zeroed() };
        let mut runs: Vec<OptimizeParams> = Vec::new();
        for (slot, grad) in &self.params {
            let (of, g, len) = (to.param(*slot), to.address(grad), grad.size() as u64);
            match runs.last_mut() {
                Some(last) if last.of.p + 4 * last.len == of.p && last.g + 4 * last.len == g => last.len += len,
                _ => runs.push(OptimizeParams { of, g, len, ..base }),
            }
        }
        for run in runs {
            let grid = (run.len / 4 + 2).div_ceil(256);
            let launch = to.launch(self.name(), [grid as u32, 1, 1], 256, 0, &run)?;
            to.can_end_step(launch, offset_of!(OptimizeParams, end));
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl Optimize {
    /// The same update of some of the parameters, by their places in the list.
    pub(crate) fn only(&self, places: &[usize]) -> Optimize {
        Optimize { rule: self.rule, params: places.iter().map(|&i| self.params[i]).collect(), scale: self.scale }
    }

    /// The rule as the kernels take it.
    pub(crate) fn by(&self) -> RuleParams {
        match self.rule {
            Optimizer::Adam { beta1, beta2, eps } => RuleParams {
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                one_minus_beta1: (1.0 - beta1) as f32,
                one_minus_beta2: (1.0 - beta2) as f32,
                eps: eps as f32,
                ..zeroed()
            },
            Optimizer::Sgd { momentum } => RuleParams { rule: 1, momentum: momentum as f32, ..zeroed() },
        }
    }
}

/// A parameter, or a piece of one, with its gradient and moments.
#[derive(Clone, Copy, Debug)]
struct Piece {
    p: *mut f32,
    g: *const f32,
    m: *mut f32,
    v: *mut f32,
    len: usize,
}

struct UpdateWork {
    isa: Isa,
    rule: Optimizer,
    /// One chunk each; see [`pieces`].
    pieces: Vec<Piece>,
    /// The scalar that multiplies the gradient, if any.
    scale: Option<*const f32>,
}

/// Cuts parameters into chunks, ordered by their relative place in their parameter: first what is near the beginning of
/// any parameter, last what is near the end of any. The products that make the gradients are cut by rows in the same
/// way, so that a thread updates about the rows that it has just computed and that are in its caches.
fn pieces(params: &[Piece]) -> Vec<Piece> {
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
unsafe impl Send for UpdateWork {}
// SAFETY: as above.
unsafe impl Sync for UpdateWork {}

impl Work for UpdateWork {
    fn chunks(&self) -> usize {
        self.pieces.len()
    }

    unsafe fn run(&self, chunk: usize, with: &Context<'_>) {
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
            || self.rule.update(with.values.update, scale, p, g, m, v),
        );
    }
}
