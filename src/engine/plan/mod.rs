//! The plan: a graph's effects as a short list of fused kernels over planned memory.
//!
//! ```text
//! roots ─ dead-code elimination ─ fuse (what is computed where) ─ lower (steps over views) ─ schedule (waves) ─ memory
//! ```
//!
//! * `fuse` decides which element-by-element nodes run together, which are recomputed instead of stored, and which
//!   ride on a matrix product. Fusion comes after differentiation, so no fused kernel ever needs a derivative.
//! * `lower` writes the steps, each a kernel of one of the families in [`steps`](crate::engine::steps); `schedule` finds
//!   out what waits for what (`order`) and puts them into waves: the steps of a wave do not depend on each other and may
//!   run at the same time. `memory` lets values that are never alive at the same time share memory: for the CPU, which goes
//!   wave by wave; a GPU, where a step waits for the steps it needs and no others, has it made anew by `Plan::by_edges`.
//! * [`Plan::verify`] checks the result from scratch, and `Display` prints it with bytes and FLOPs per step.
//!
//! A plan knows no device. It is bound to memory by an executor such as [`Cpu`](crate::engine::device::cpu::Cpu).

mod fuse;
mod lower;
mod memory;
mod order;
pub(crate) mod program;
mod schedule;
mod verify;
mod view;

use std::fmt;
use std::sync::Arc;

pub use fuse::Fusion;
#[cfg(any(test, feature = "cuda"))]
use memory::Alive;
#[cfg(feature = "cuda")]
pub(crate) use order::Order;
pub(crate) use view::{Mem, View};

use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Rate, SlotInfo, SlotKind, Var};
use crate::engine::optim::Optimizer;
use crate::engine::steps::Kernel;

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kernel and its operands.
    pub(crate) kernel: Arc<dyn Kernel>,
    /// Steps of one wave are independent of each other.
    pub(crate) wave: usize,
    /// The steps that must be over before it begins, without those that another of them waits for.
    pub(crate) waits: Vec<usize>,
    /// The source line of the node it comes from.
    pub(crate) at: String,
}

impl Step {
    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        self.kernel.name()
    }

    /// The number of its wave, from 0.
    pub fn wave(&self) -> usize {
        self.wave
    }

    /// The numbers of the steps that it waits for, from 0: the edges of the plan's graph. Those that another of them
    /// waits for are left out.
    pub fn waits(&self) -> &[usize] {
        &self.waits
    }

    /// The source line of the node it comes from.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// Floating-point operations.
    pub fn flops(&self) -> u64 {
        self.kernel.flops()
    }

    /// Bytes read and written, each operand once.
    pub fn bytes(&self) -> u64 {
        self.kernel.bytes()
    }

    /// As [`Step::bytes`], without what are gradients of parameters if the plan updates any: a GPU may keep them in registers ([`Fusion::launches`]).
    pub fn bytes_without_gradients(&self) -> u64 {
        self.kernel.bytes() - self.kernel.gradient_bytes()
    }

    /// Bytes of the memory that it goes through: as [`Step::bytes`], with what is both read and written counted once.
    /// This is what must fit into a cache for the step to run out of it.
    pub fn footprint(&self) -> u64 {
        self.kernel.footprint()
    }

    /// Elements of its largest result, or of the largest parameter that it updates.
    pub fn elements(&self) -> usize {
        let updated = if self.kernel.updates().is_empty() { Vec::new() } else { self.kernel.reads() };
        self.kernel.writes().iter().chain(&updated).map(View::size).max().unwrap_or(0)
    }

    /// Whether it updates parameters.
    pub fn is_update(&self) -> bool {
        !self.kernel.updates().is_empty()
    }

    /// Whether its operations are those of a matrix product, which may run on tensor cores.
    pub fn is_product(&self) -> bool {
        self.kernel.is_product()
    }

    /// Values that its pointwise program keeps at a time; 0 without a program.
    pub fn registers(&self) -> usize {
        self.kernel.program().map_or(0, |p| p.regs)
    }
}

/// A buffer of the scratch memory, in f32 elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Its size.
    pub len: usize,
    /// Where it lies in the arena.
    pub offset: usize,
    /// Zeroed once and shared with nothing: partial sums, of which a kernel may write only some elements; and what a GPU keeps from
    /// one step to the next.
    pub persistent: bool,
    /// The steps that write or read it, in order.
    pub users: Vec<usize>,
}

/// A graph turned into steps over planned memory.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The steps, wave by wave.
    pub(crate) steps: Vec<Step>,
    /// The number of waves.
    pub(crate) waves: usize,
    /// The scratch buffers.
    pub(crate) buffers: Vec<Buffer>,
    /// The size of the scratch arena in f32 elements.
    pub(crate) arena: usize,
    /// None where buffers share memory by waves. Otherwise they share it by what waits for what, and these are the steps that
    /// are launched together.
    pub(crate) groups: Option<Vec<Vec<usize>>>,
    /// The slots it uses, by [`Slot`] number.
    pub(crate) slots: Vec<SlotInfo>,
    /// The constant arrays.
    pub(crate) tensors: Vec<Vec<f32>>,
    /// The names of the numbers that the caller computes for every step.
    pub(crate) schedules: Vec<String>,
    /// The number of running sums.
    pub(crate) totals: usize,
    /// Rows of data read per step; 0 without a batch.
    pub(crate) batch_rows: usize,
    /// The update's rule and learning rate, if the plan trains.
    pub(crate) update: Option<(Optimizer, Rate)>,
}

impl Plan {
    /// Plans `outputs` and the effects of `graph`, its stores and its parameter update: what
    /// [`Executor::compile`](crate::engine::device::Executor::compile) runs.
    ///
    /// # Panics
    /// When an output is a value of another graph.
    ///
    /// # Errors
    /// [`Error::Argument`] when the graph has no effect, so that there is nothing to run.
    #[track_caller]
    pub fn build<'g>(graph: &'g Graph, outputs: &[Var<'g>], fusion: Fusion) -> Result<Plan> {
        Plan::of(&graph.with_outputs(outputs), fusion)
    }

    /// Plans a graph whose outputs are marked.
    pub(crate) fn of(graph: &Graph, fusion: Fusion) -> Result<Plan> {
        if graph.roots().is_empty() {
            return Err(Error::argument("graph", "no effects", "at least one output, store or optimize"));
        }
        let lowered = lower::lower(graph, fusion);
        let plan = schedule::schedule(graph, lowered);
        debug_assert_eq!(plan.verify(), Ok(()));
        Ok(plan)
    }

    /// The steps, wave by wave.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The number of waves.
    pub fn waves(&self) -> usize {
        self.waves
    }

    /// The scratch buffers.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// The size of the scratch arena, in which the buffers lie, in f32 elements.
    pub fn arena(&self) -> usize {
        self.arena
    }

    /// Rows of data read per step; 0 without a batch.
    pub fn batch_rows(&self) -> usize {
        self.batch_rows
    }

    /// Which steps are over before which begin.
    pub(crate) fn order(&self) -> order::Order {
        order::Order::of(self.steps.iter().map(Step::waits))
    }

    /// The same plan for a device that begins a step when what it waits for is over, and the steps of each group together: with
    /// memory shared by the edges, except that of the buffers `lasting`, which keep what they hold from step to step.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn by_edges(mut self, groups: Vec<Vec<usize>>, lasting: &[usize]) -> Plan {
        lasting.iter().for_each(|&buffer| self.buffers[buffer].persistent = true);
        let order = self.order();
        self.arena = memory::place(&mut self.buffers, &Alive::ByEdges(&order, &groups));
        self.groups = Some(groups);
        debug_assert_eq!(self.verify(), Ok(()));
        self
    }

    /// The same plan with `gap` elements or more in front of every buffer and behind the last, and no memory shared:
    /// whoever looks at them after a run sees what a kernel wrote outside of its operands.
    pub(crate) fn spread(&self, gap: usize) -> Plan {
        let mut apart = self.clone();
        apart.arena = gap;
        for buffer in &mut apart.buffers {
            buffer.offset = apart.arena;
            apart.arena += buffer.len.next_multiple_of(memory::ALIGN) + gap;
        }
        apart
    }

    /// Floating-point operations of one step.
    pub fn flops(&self) -> u64 {
        self.steps.iter().map(Step::flops).sum()
    }

    /// Bytes of memory that a function of this plan takes for itself: scratch, constant arrays, inputs and outputs.
    pub fn size(&self) -> u64 {
        let cells = self.slots.iter().filter(|s| s.kind == SlotKind::Cell).map(|s| s.shape.size());
        let tensors = self.tensors.iter().map(Vec::len);
        4 * (self.arena + cells.sum::<usize>() + tensors.sum::<usize>()) as u64
    }

    /// Bytes that one step reads and writes, each operand of each kernel once.
    pub fn bytes(&self) -> u64 {
        self.steps.iter().map(Step::bytes).sum()
    }
}

/// A table: number, wave, kernel, sizes, bytes and FLOPs of every step, then the totals.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.steps.iter().map(|step| step.name().len()).fold(13, usize::max);
        writeln!(
            f,
            "{:>4} {:>4}  {:<width$} {:>10} {:>10}  shapes and functions",
            "step", "wave", "kernel", "KiB", "kFLOP"
        )?;
        for (i, step) in self.steps.iter().enumerate() {
            let (kib, kflop) = (step.bytes() as f64 / 1024.0, step.flops() as f64 / 1000.0);
            let (number, wave) = (i + 1, step.wave + 1);
            let (name, detail) = (step.name(), step.kernel.detail());
            writeln!(f, "{number:>4} {wave:>4}  {name:<width$} {kib:>10.1} {kflop:>10.1}  {detail}")?;
        }
        let (mib, mflop) = (self.bytes() as f64 / 1_048_576.0, self.flops() as f64 / 1e6);
        write!(
            f,
            "{} steps in {} waves, {mib:.2} MiB moved, {mflop:.1} MFLOP, {:.2} MiB of scratch memory",
            self.steps.len(),
            self.waves,
            4.0 * self.arena as f64 / 1_048_576.0
        )
    }
}
