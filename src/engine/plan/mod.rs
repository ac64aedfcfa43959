//! The plan: a graph's effects as a short list of fused kernels over planned memory.
//!
//! ```text
//! roots ─ dead-code elimination ─ fuse (what is computed where) ─ lower (steps over views) ─ schedule (waves) ─ memory
//! ```
//!
//! * [`fuse`] decides which element-by-element nodes run together, which are recomputed instead of stored, and which
//!   ride on a matrix product. Fusion comes after differentiation, so no fused kernel ever needs a derivative.
//! * `lower` writes the steps; `schedule` puts them into waves: the steps of a wave do not depend on each other and
//!   may run at the same time; `memory` lets values that are never alive in the same wave share memory.
//! * [`Plan::verify`] checks the result from scratch, and `Display` prints it with bytes and FLOPs per step.
//!
//! A plan knows no device. It is bound to memory by an executor such as [`Cpu`](crate::engine::device::cpu::Cpu).

pub mod fuse;
mod lower;
mod memory;
pub mod program;
mod schedule;
mod verify;

use std::collections::HashSet;
use std::fmt;

pub use fuse::Fusion;
use program::Program;

use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Slot, SlotInfo};
use crate::engine::optim::Optimizer;
use crate::engine::shape::Shape;

/// Which memory a view lies in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Mem {
    /// A buffer of the plan's own scratch memory.
    Buffer(u32),
    /// A parameter or state slot.
    Slot(Slot),
    /// A constant array.
    Tensor(u32),
}

/// A rectangle of f32: row r, column c is element offset + r · stride + c.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct View {
    /// The memory.
    pub mem: Mem,
    /// Elements before the first one.
    pub offset: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl View {
    pub(crate) fn contiguous(mem: Mem, rows: usize, cols: usize) -> View {
        View { mem, offset: 0, rows, cols, stride: cols }
    }

    /// A placeholder for tests of code that never touches memory.
    #[cfg(test)]
    pub(crate) fn nowhere(rows: usize, cols: usize) -> View {
        View::contiguous(Mem::Buffer(u32::MAX), rows, cols)
    }

    pub(crate) fn is_contiguous(&self) -> bool {
        self.stride == self.cols || self.rows <= 1
    }

    /// The same contiguous elements as another rectangle.
    pub(crate) fn reshaped(&self, rows: usize, cols: usize) -> View {
        debug_assert!(self.is_contiguous() && self.rows * self.cols == rows * cols);
        View { rows, cols, stride: cols, ..*self }
    }

    /// Columns `start .. start + cols`.
    pub(crate) fn columns(&self, start: usize, cols: usize) -> View {
        debug_assert!(start + cols <= self.cols);
        View { offset: self.offset + start, cols, ..*self }
    }

    /// One past the last element, counted from the start of the memory.
    pub(crate) fn end(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            self.offset
        } else {
            self.offset + (self.rows - 1) * self.stride + self.cols
        }
    }

    /// Whether two views may share an element. Exact for rectangles of one stride, conservative otherwise.
    pub(crate) fn overlaps(&self, other: &View) -> bool {
        if self.mem != other.mem || self.offset >= other.end() || other.offset >= self.end() {
            return false;
        }
        if self.stride == other.stride && self.stride > 0 {
            // Where the other's columns begin, counted from this one's, modulo the stride.
            let (s, a, b) = (self.stride, self.offset, other.offset);
            let start = (b % s + s - a % s) % s;
            if start >= self.cols && start + other.cols <= s {
                return false;
            }
        }
        true
    }
}

/// A step that only moves elements.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Move {
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
}

/// A kernel with its operands.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// The batch's rows as numbers in [0, 1].
    Batch {
        /// The data slot.
        slot: Slot,
        /// The batch.
        out: View,
    },
    /// A matrix product.
    Gemm {
        /// (rows, columns, inner size) of the product.
        mnk: (usize, usize, usize),
        /// Whether each operand is read transposed.
        transposed: (bool, bool),
        /// Left operand, as stored.
        a: View,
        /// Right operand, as stored.
        b: View,
        /// Where the product goes.
        out: GemmOut,
        /// Column sums of op(B), if they ride along.
        col_sums: Option<View>,
    },
    /// A pointwise program on its own.
    Pointwise(Program),
    /// Sums or maxima of x seen as [outer, reduced, inner].
    Reduce {
        /// Maximum instead of sum.
        max: bool,
        /// The operand, contiguous.
        x: View,
        /// The result, [outer, inner].
        out: View,
        /// (outer, reduced, inner).
        sizes: (usize, usize, usize),
    },
    /// Elements moved.
    Move {
        /// How.
        kind: Move,
        /// From where.
        x: View,
        /// Row indices, for gathering and scattering.
        index: Option<View>,
        /// To where.
        out: View,
    },
    /// Partial sums to scalars, arithmetic on scalars, metrics.
    Scalars {
        /// (partial sums, total).
        totals: Vec<(View, View)>,
        /// The arithmetic.
        program: Program,
        /// (scalar, number of the metric).
        metrics: Vec<(View, usize)>,
    },
    /// The update of parameters.
    Optimize {
        /// The rule.
        rule: Optimizer,
        /// (parameter, gradient).
        params: Vec<(Slot, View)>,
        /// Multiplies the gradients.
        scale: Option<View>,
    },
}

/// Where a matrix product goes.
#[derive(Clone, PartialEq, Debug)]
pub enum GemmOut {
    /// Into memory.
    Store(View),
    /// Through a pointwise program, tile by tile while it is in the first-level cache.
    Program(Program),
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kernel and its operands.
    pub kind: Kind,
    /// Steps of one wave are independent of each other.
    pub wave: usize,
    /// The source line of the node it comes from.
    pub at: String,
}

/// A buffer of the scratch memory, in f32 elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buffer {
    /// Its size.
    pub len: usize,
    /// Where it lies in the arena.
    pub offset: usize,
    /// Zeroed once and shared with nothing: partial sums, of which a kernel may write only some elements.
    pub persistent: bool,
    /// First and last wave in which it holds something.
    pub alive: (usize, usize),
}

/// A graph turned into steps over planned memory.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The steps, wave by wave.
    pub steps: Vec<Step>,
    /// The number of waves.
    pub waves: usize,
    /// The scratch buffers.
    pub buffers: Vec<Buffer>,
    /// The size of the scratch arena in f32 elements.
    pub arena: usize,
    /// The slots it uses, by [`Slot`] number.
    pub slots: Vec<SlotInfo>,
    /// The constant arrays.
    pub tensors: Vec<Vec<f32>>,
    /// The names of the running sums.
    pub metrics: Vec<String>,
    /// Rows of data read per step; 0 without a batch.
    pub batch_rows: usize,
    /// The update rule, if the plan trains.
    pub rule: Option<Optimizer>,
    /// The rules it was built with.
    pub fusion: Fusion,
}

impl Plan {
    /// Plans the effects of `graph`: its stores, metrics and parameter update.
    ///
    /// # Errors
    /// [`Error::Argument`] when the graph has no effect, so that there is nothing to run.
    pub fn build(graph: &Graph, fusion: Fusion) -> Result<Plan> {
        if graph.roots().is_empty() {
            return Err(Error::argument("graph", "no effects", "at least one store, metric or optimize"));
        }
        let lowered = lower::lower(graph, fusion);
        let plan = schedule::schedule(graph, lowered, fusion);
        debug_assert_eq!(plan.verify(), Ok(()));
        Ok(plan)
    }

    /// Floating-point operations of one step.
    pub fn flops(&self) -> u64 {
        self.steps.iter().map(|s| s.kind.flops()).sum()
    }

    /// Bytes that one step reads and writes, each operand of each kernel once.
    pub fn bytes(&self) -> u64 {
        self.steps.iter().map(|s| s.kind.bytes()).sum()
    }
}

impl Kind {
    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Batch { .. } => "batch",
            Kind::Gemm { col_sums: Some(_), .. } => "linear_grads",
            Kind::Gemm { out: GemmOut::Program(_), .. } => "linear",
            Kind::Gemm { .. } => "matmul",
            Kind::Pointwise(_) => "pointwise",
            Kind::Reduce { max: false, .. } => "reduce_sum",
            Kind::Reduce { .. } => "reduce_max",
            Kind::Move { kind, .. } => match kind {
                Move::Copy => "copy",
                Move::Pad { .. } => "pad",
                Move::Transpose => "transpose",
                Move::Broadcast { .. } => "broadcast",
                Move::Gather => "gather_rows",
                Move::Scatter => "scatter_rows",
            },
            Kind::Scalars { .. } => "scalars",
            Kind::Optimize { rule: Optimizer::Adam { .. }, .. } => "adam",
            Kind::Optimize { .. } => "sgd",
        }
    }

    /// The program it runs, if any.
    pub fn program(&self) -> Option<&Program> {
        match self {
            Kind::Pointwise(p) | Kind::Gemm { out: GemmOut::Program(p), .. } | Kind::Scalars { program: p, .. } => {
                Some(p)
            }
            _ => None,
        }
    }

    /// The views it reads.
    pub fn reads(&self) -> Vec<View> {
        let mut reads: Vec<View> = self.program().into_iter().flat_map(|p| p.inputs.iter().map(|i| i.view)).collect();
        match self {
            Kind::Gemm { a, b, .. } => reads.extend([*a, *b]),
            Kind::Reduce { x, .. } => reads.push(*x),
            Kind::Move { x, index, .. } => {
                reads.push(*x);
                reads.extend(*index);
            }
            Kind::Scalars { totals, program, metrics } => {
                reads.extend(totals.iter().map(|(partials, _)| *partials));
                reads.extend(metrics.iter().map(|(scalar, _)| *scalar));
                // What the step itself produces is no dependency.
                let own: Vec<View> = totals.iter().map(|(_, total)| *total).chain(stores(program)).collect();
                reads.retain(|view| !own.contains(view));
            }
            Kind::Optimize { params, scale, .. } => {
                reads.extend(params.iter().map(|(_, grad)| *grad));
                reads.extend(*scale);
            }
            Kind::Batch { .. } | Kind::Pointwise(_) => {}
        }
        reads
    }

    /// The views it writes, parameters and running sums apart.
    pub fn writes(&self) -> Vec<View> {
        let mut writes: Vec<View> = self.program().into_iter().flat_map(stores).collect();
        match self {
            Kind::Batch { out, .. } | Kind::Reduce { out, .. } | Kind::Move { out, .. } => writes.push(*out),
            Kind::Gemm { out, col_sums, .. } => {
                if let GemmOut::Store(view) = out {
                    writes.push(*view);
                }
                writes.extend(*col_sums);
            }
            Kind::Scalars { totals, .. } => writes.extend(totals.iter().map(|(_, total)| *total)),
            Kind::Pointwise(_) | Kind::Optimize { .. } => {}
        }
        writes
    }

    /// The parameters it updates.
    pub fn updates(&self) -> Vec<Slot> {
        match self {
            Kind::Optimize { params, .. } => params.iter().map(|(slot, _)| *slot).collect(),
            _ => Vec::new(),
        }
    }

    /// Floating-point operations.
    pub fn flops(&self) -> u64 {
        let size = |v: &View| (v.rows * v.cols) as u64;
        let own = match self {
            Kind::Gemm { mnk: (m, n, k), col_sums, .. } => {
                2 * (m * n * k) as u64 + col_sums.map_or(0, |_| (n * k) as u64)
            }
            Kind::Batch { out, .. } => size(out),
            Kind::Reduce { x, .. } => size(x),
            Kind::Scalars { totals, .. } => totals.iter().map(|(partials, _)| size(partials)).sum(),
            Kind::Optimize { rule, params, .. } => {
                let per = if matches!(rule, Optimizer::Adam { .. }) { 13 } else { 4 };
                params.iter().map(|(_, g)| per * size(g)).sum()
            }
            Kind::Pointwise(_) | Kind::Move { .. } => 0,
        };
        own + self.program().map_or(0, Program::flops)
    }

    /// Bytes read and written, each operand once.
    pub fn bytes(&self) -> u64 {
        let size = |v: &View| 4 * (v.rows * v.cols) as u64;
        match self {
            Kind::Batch { out, .. } => size(out) + (out.rows * out.cols) as u64,
            Kind::Optimize { rule, params, .. } => {
                let per = if matches!(rule, Optimizer::Adam { .. }) { 7 } else { 5 };
                params.iter().map(|(_, g)| per * size(g)).sum()
            }
            // Of the table only the rows that are asked for.
            Kind::Move { kind: Move::Gather, index, out, .. } => 2 * size(out) + index.iter().map(size).sum::<u64>(),
            _ => self.reads().iter().chain(&self.writes()).map(size).sum(),
        }
    }

    /// Bytes of the memory that it goes through: as [`Kind::bytes`], with what is both read and written counted once. This
    /// is what must fit into a cache for the step to run out of it.
    pub fn footprint(&self) -> u64 {
        match self {
            Kind::Optimize { rule, params, .. } => {
                // The parameter, its gradient, and one or two moments.
                let per = if matches!(rule, Optimizer::Adam { .. }) { 4 } else { 3 };
                params.iter().map(|(_, g)| per * 4 * (g.rows * g.cols) as u64).sum()
            }
            Kind::Batch { .. } | Kind::Move { kind: Move::Gather, .. } => self.bytes(),
            _ => {
                let views: HashSet<View> = self.reads().into_iter().chain(self.writes()).collect();
                views.iter().map(|v| 4 * (v.rows * v.cols) as u64).sum()
            }
        }
    }

    /// The sizes and functions, for the plan's table.
    pub fn detail(&self) -> String {
        match self {
            Kind::Gemm { mnk: (m, n, k), transposed: (ta, tb), out, .. } => {
                let mark = |t: &bool| if *t { "ᵀ" } else { "" };
                let size = format!("[{m}, {k}]{}·[{k}, {n}]{}", mark(ta), mark(tb));
                match out {
                    GemmOut::Program(p) => format!("{size} → {}", p.summary()),
                    GemmOut::Store(_) => size,
                }
            }
            Kind::Pointwise(p) => format!("[{}, {}] {}", p.rows, p.cols, p.summary()),
            Kind::Scalars { totals, program, metrics } => {
                let sums: Vec<String> = totals.iter().map(|(p, _)| format!("Σ{}", p.cols)).collect();
                format!("{} {} → {} metrics", sums.join(" "), program.summary(), metrics.len())
            }
            Kind::Reduce { sizes: (o, r, i), .. } => format!("[{o}, {r}, {i}] → [{o}, {i}]"),
            Kind::Batch { out, .. } | Kind::Move { out, .. } => format!("[{}, {}]", out.rows, out.cols),
            Kind::Optimize { params, .. } => {
                let n: usize = params.iter().map(|(_, g)| g.rows * g.cols).sum();
                format!("{n} parameters in {} arrays", params.len())
            }
        }
    }
}

fn stores(program: &Program) -> impl Iterator<Item = View> + '_ {
    program.outputs.iter().map(|o| match *o {
        program::Output::Store { view, .. } => view,
        program::Output::Sum { partials, .. } => partials,
    })
}

/// A table: number, wave, kernel, sizes, bytes and FLOPs of every step, then the totals.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>4} {:>4}  {:<13} {:>10} {:>10}  shapes and functions",
            "step", "wave", "kernel", "KiB", "kFLOP"
        )?;
        for (i, step) in self.steps.iter().enumerate() {
            let kind = &step.kind;
            let (kib, kflop) = (kind.bytes() as f64 / 1024.0, kind.flops() as f64 / 1000.0);
            let (number, wave) = (i + 1, step.wave + 1);
            writeln!(f, "{number:>4} {wave:>4}  {:<13} {kib:>10.1} {kflop:>10.1}  {}", kind.name(), kind.detail())?;
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
