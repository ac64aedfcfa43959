//! From a plan's views to addresses in host memory.

use std::collections::HashMap;

use crate::engine::device::memory::{Aligned, HostMemory, ParamPtrs};
use crate::engine::graph::Slot;
use crate::engine::isa::Isa;
use crate::engine::plan::{Mem, Plan, View};
use crate::engine::steps::Region;
use crate::engine::steps::gemm::tiles::Tiles;

/// What a [`Kernel`](crate::engine::steps::Kernel) is bound with: where its operands are.
pub(crate) struct Binder<'a> {
    pub plan: &'a Plan,
    pub isa: Isa,
    /// What multiplies matrices, if not vector units.
    pub tiles: Option<Tiles>,
    pub memory: &'a HostMemory,
    pub arena: &'a Aligned,
    pub tensors: &'a [Aligned],
    /// Inputs and outputs.
    pub cells: &'a HashMap<Slot, Aligned>,
}

impl Binder<'_> {
    /// Where a view is.
    pub fn region(&self, view: &View) -> Region {
        let base = match view.mem {
            // SAFETY: `Plan::verify` checked that buffers lie inside the arena.
            Mem::Buffer(b) => unsafe { self.arena.ptr().add(self.plan.buffers[b as usize].offset) },
            Mem::Slot(slot) => match self.cells.get(&slot) {
                Some(cell) => cell.ptr(),
                None => self.memory.ptr(self.slot_name(slot)),
            },
            Mem::Tensor(t) => self.tensors[t as usize].ptr(),
        };
        // SAFETY: `Plan::verify` checked that views lie inside their memory.
        Region { ptr: unsafe { base.add(view.offset) }, rows: view.rows, cols: view.cols, stride: view.stride }
    }

    /// Where a parameter and its moments are.
    pub fn param(&self, slot: Slot) -> ParamPtrs {
        self.memory.param_ptrs(self.slot_name(slot))
    }

    /// A slot's name.
    pub fn slot_name(&self, slot: Slot) -> &str {
        &self.plan.slots[slot.index()].name
    }
}
