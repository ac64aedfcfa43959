//! From a plan's steps to launches: which kernel, over which grid, with which parameters.
//!
//! Grids depend on shapes alone, never on the number of multiprocessors: with the same kernels the same sums are made in
//! the same order on every GPU. The formulas stand at the head of each kernel file under "Launch:".

use std::collections::HashMap;
use std::mem::offset_of;

use super::driver::{Address, Driver, Launch};
use super::memory::Memory;
use super::params::{
    self, BatchParams, Clock, GemmParams, MAX_METRICS, MAX_TOTALS, Metric, MoveParams, OptimizeParams, PointwiseParams,
    Program, ReduceParams, ScalarsParams, TickParams, Total, words, zeroed,
};
use super::probe::Version;
use super::program;
use crate::engine::device::Precision;
use crate::engine::error::{Error, Result};
use crate::engine::graph::Slot;
use crate::engine::optim::Optimizer;
use crate::engine::plan::{GemmOut, Kind, Mem, Move, Plan, Step, View};
use crate::engine::shape::MAX_RANK;
use crate::engine::steps::gemm::cuda as gemm;

/// A launch with its place in the plan.
pub(crate) struct Placed {
    pub launch: Launch,
    /// The step it belongs to, and that step's wave.
    pub step: usize,
    pub wave: usize,
}

/// A launch that reads a data set, whose address is only known when the plan runs.
pub(crate) struct DataUse {
    pub slot: String,
    pub cols: usize,
    pub launch: usize,
    params: BatchParams,
}

impl DataUse {
    /// The launch's parameters for a data set at `data`.
    pub fn params(&self, data: Address, rows: usize) -> Box<[u64]> {
        words(&BatchParams { data, data_rows: rows as u32, ..self.params })
    }
}

/// The plan as launches.
pub(crate) struct Lowered {
    pub launches: Vec<Placed>,
    pub data: Vec<DataUse>,
    /// Whether a kernel checks row indices.
    pub indices: bool,
    /// What needs memory for sums that several blocks share.
    pub shared_sums: Vec<SharedSum>,
}

/// A launch that splits a sum over blocks: a product's over k, a reduction's over a long row. Its parameters get the
/// addresses when there is memory for them.
pub(crate) struct SharedSum {
    pub launch: usize,
    /// Elements of the workspace, in f32.
    pub floats: usize,
    /// Counters, in u32.
    pub tickets: usize,
    /// Where the struct of parameters has the address of the workspace and that of the counters, in bytes.
    pub fields: [usize; 2],
}

/// Lowers a plan whose buffers and slots have addresses.
pub(crate) struct Lower<'a> {
    pub driver: &'a Driver,
    pub precision: Precision,
    pub plan: &'a Plan,
    pub memory: &'a Memory,
    /// The scratch arena, the constant arrays, the running sums (f64), and the clock.
    pub arena: Address,
    pub tensors: &'a [Address],
    pub sums: Address,
    pub clock: Clock,
    /// Tickets for `adam` and `sgd`.
    pub ticket: Address,
    out: Lowered,
    /// How many partial sums the launch that writes them leaves behind.
    partials: HashMap<(Mem, usize), usize>,
}

impl<'a> Lower<'a> {
    pub fn new(
        driver: &'a Driver,
        precision: Precision,
        plan: &'a Plan,
        memory: &'a Memory,
        [arena, sums, ticket]: [Address; 3],
        tensors: &'a [Address],
        clock: Clock,
    ) -> Lower<'a> {
        let out = Lowered { launches: Vec::new(), data: Vec::new(), indices: false, shared_sums: Vec::new() };
        Lower { driver, precision, plan, memory, arena, tensors, sums, clock, ticket, out, partials: HashMap::new() }
    }

    /// All steps, and at the end whatever ticks the clock.
    pub fn run(mut self) -> Result<Lowered> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            // The last step ends the step of the run, if it is alone in its wave and knows how.
            let last = number + 1 == self.plan.steps.len();
            let alone = number == 0 || self.plan.steps[number - 1].wave < step.wave;
            self.step(number, step, last && alone)?;
        }
        let ends =
            self.plan.steps.last().is_some_and(|s| matches!(s.kind, Kind::Scalars { .. } | Kind::Optimize { .. }));
        let n = self.plan.steps.len();
        let alone = n < 2 || self.plan.steps[n - 2].wave < self.plan.steps[n - 1].wave;
        if !(ends && alone) {
            let params = TickParams { ctl: self.clock.ctl };
            self.launch(n, self.plan.waves, "tick", [1, 1, 1], 1, 0, words(&params))?;
        }
        Ok(self.out)
    }

    fn launch(
        &mut self,
        step: usize,
        wave: usize,
        kernel: &'static str,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        params: Box<[u64]>,
    ) -> Result<usize> {
        // The limit of the second and third dimension. Rows would have to be counted in millions.
        assert!(grid[1] <= 65_535 && grid[2] <= 65_535, "{kernel} over a grid of {grid:?} blocks");
        let function = self.driver.function(kernel)?;
        self.driver.allow_shared(function, shared)?;
        self.out.launches.push(Placed {
            launch: Launch { function, kernel, grid, threads, shared, params },
            step,
            wave,
        });
        Ok(self.out.launches.len() - 1)
    }

    fn address(&self, view: &View) -> Address {
        let base = match view.mem {
            Mem::Buffer(b) => self.arena + 4 * self.plan.buffers[b as usize].offset as Address,
            Mem::Slot(slot) => self.memory.address(self.name(slot)),
            Mem::Tensor(t) => self.tensors[t as usize],
        };
        base + 4 * view.offset as Address
    }

    fn name(&self, slot: Slot) -> &str {
        &self.plan.slots[slot.index()].name
    }

    fn view(&self, view: &View) -> params::View {
        let (rows, cols, stride) = (view.rows as i32, view.cols as i32, view.stride as i32);
        params::View { ptr: self.address(view), rows, cols, stride, pad: 0 }
    }

    /// A program with addresses. `blocks` is the number of blocks that each leave a partial sum.
    fn program(&mut self, program: &crate::engine::plan::program::Program, blocks: usize) -> Result<Program> {
        for output in &program.outputs {
            if let crate::engine::plan::program::Output::Sum { partials, .. } = output {
                assert!(blocks <= partials.cols, "{blocks} blocks, room for {} partial sums", partials.cols);
                self.partials.insert((partials.mem, partials.offset), blocks);
            }
        }
        program::encode(program, |view| self.address(view))
    }

    fn step(&mut self, number: usize, step: &Step, tick: bool) -> Result<()> {
        let wave = step.wave;
        match &step.kind {
            Kind::Batch { slot, out } => {
                let grid = [out.rows.max(1) as u32, out.cols.div_ceil(1024).max(1) as u32, 1];
                let params = BatchParams { clock: self.clock, out: self.view(out), ..zeroed() };
                let launch = self.launch(number, wave, "batch", grid, 256, 0, words(&params))?;
                self.out.data.push(DataUse { slot: self.name(*slot).into(), cols: out.cols, launch, params });
            }
            Kind::Gemm { mnk, transposed, a, b, out, col_sums } => {
                self.gemm(number, wave, *mnk, *transposed, (a, b), out, col_sums.as_ref())?;
            }
            Kind::Pointwise(program) => self.pointwise(number, wave, program)?,
            Kind::Reduce { max, x, out, sizes: (outer, reduced, inner) } => {
                let (kernel, grid, threads, shared, per_part) = reduce_launch(*outer, *reduced, *inner);
                let parts = reduced.div_ceil(per_part.max(1)).max(1);
                let params = ReduceParams {
                    x: self.address(x),
                    out: self.address(out),
                    outer: *outer as i32,
                    reduced: *reduced as i32,
                    inner: *inner as i32,
                    max: i32::from(*max),
                    parts: parts as i32,
                    per_part: per_part as i32,
                    ..zeroed()
                };
                let launch = self.launch(number, wave, kernel, grid, threads, shared, words(&params))?;
                if parts > 1 {
                    let fields = [offset_of!(ReduceParams, workspace), offset_of!(ReduceParams, tickets)];
                    let (floats, tickets) = (outer * parts, *outer);
                    self.out.shared_sums.push(SharedSum { launch, floats, tickets, fields });
                }
            }
            Kind::Move { kind, x, index, out } => self.moved(number, wave, *kind, x, index.as_ref(), out)?,
            Kind::Scalars { totals, program, metrics } => self.scalars(number, wave, totals, program, metrics, tick)?,
            Kind::Optimize { rule, params, scale } => {
                self.optimize(number, wave, *rule, params, scale.as_ref(), tick)?
            }
        }
        Ok(())
    }

    fn pointwise(&mut self, number: usize, wave: usize, program: &crate::engine::plan::program::Program) -> Result<()> {
        let threads = match program.regs {
            0..=12 => 256,
            13..=24 => 128,
            25..=48 => 64,
            _ => 32,
        };
        let need = (program.rows * program.cols.div_ceil(4)).div_ceil(threads).max(1);
        let grid = need.div_ceil(need.div_ceil(2048));
        let shared = 16 * program.regs.max(1) * threads;
        let params = PointwiseParams { clock: self.clock, program: self.program(program, grid)? };
        self.launch(number, wave, "pointwise", [grid as u32, 1, 1], threads as u32, shared as u32, words(&params))?;
        Ok(())
    }

    fn gemm(
        &mut self,
        number: usize,
        wave: usize,
        (m, n, k): (usize, usize, usize),
        (ta, tb): (bool, bool),
        (a, b): (&View, &View),
        out: &GemmOut,
        col_sums: Option<&View>,
    ) -> Result<()> {
        if m * n == 0 {
            return Ok(());
        }
        let epilogue = match out {
            GemmOut::Store(_) => None,
            GemmOut::Program(p) => Some(gemm::epilogue(p).unwrap_or(0)),
        };
        let Version(major, minor) = self.driver.gpu.compute_capability;
        let choice = gemm::choose(m, n, k, self.precision, (major, minor), epilogue == Some(0));
        let (x, y) = choice.grid;
        let mut params = GemmParams {
            clock: self.clock,
            a: self.address(a),
            b: self.address(b),
            m: m as i32,
            n: n as i32,
            k: k as i32,
            lda: a.stride as i32,
            ldb: b.stride as i32,
            col_sums: col_sums.map_or(0, |v| self.address(v)),
            splits: choice.splits as i32,
            k_per_split: choice.k_per_split as i32,
            alpha: 1.0,
            ta: i32::from(ta),
            tb: i32::from(tb),
            ..zeroed()
        };
        match out {
            GemmOut::Store(view) => (params.c, params.ldc) = (self.address(view), view.stride as i32),
            GemmOut::Program(p) => {
                params.epilogue = epilogue.unwrap_or(0) as i32;
                params.program = self.program(p, (x * y) as usize)?;
            }
        }
        // An interpreted epilogue needs its registers for one warp at a time, at least.
        let registers = match (out, epilogue) {
            (GemmOut::Program(p), Some(0)) => 32 * 16 * p.regs as u32,
            _ => 0,
        };
        let (grid, threads, shared) = ([x, y, choice.splits], choice.threads, choice.shared_bytes.max(registers));
        let launch = self.launch(number, wave, choice.kernel, grid, threads, shared, words(&params))?;
        if choice.splits > 1 {
            let fields = [offset_of!(GemmParams, workspace), offset_of!(GemmParams, tickets)];
            let (floats, tickets) = (choice.workspace, choice.tickets);
            self.out.shared_sums.push(SharedSum { launch, floats, tickets, fields });
        }
        Ok(())
    }

    fn moved(
        &mut self,
        number: usize,
        wave: usize,
        kind: Move,
        x: &View,
        index: Option<&View>,
        out: &View,
    ) -> Result<()> {
        let mut params = MoveParams {
            ctl: self.clock.ctl,
            x: self.view(x),
            out: self.view(out),
            index: index.map_or(0, |v| self.address(v)),
            ..zeroed()
        };
        let quads = (out.rows * out.cols.div_ceil(4)).div_ceil(256).max(1);
        let (code, grid, shared) = match kind {
            Move::Copy => (0, quads, 0),
            Move::Pad { start } => {
                params.start = start as i32;
                (1, quads, 0)
            }
            Move::Transpose => (2, (out.rows.div_ceil(32) * out.cols.div_ceil(32)).max(1), 32 * 33 * 4),
            Move::Broadcast { from, to } => {
                params.rank = to.len() as i32;
                let strides = from.broadcast_strides(&to);
                for axis in 0..to.len().min(MAX_RANK) {
                    (params.to[axis], params.strides[axis]) = (to[axis] as i32, strides[axis] as i32);
                }
                (3, quads, 0)
            }
            Move::Gather => (4, quads, 0),
            Move::Scatter => (5, out.rows.max(1) * out.cols.div_ceil(256).max(1), 32),
        };
        params.kind = code;
        self.out.indices |= matches!(kind, Move::Gather | Move::Scatter);
        self.launch(number, wave, "move_elements", [grid as u32, 1, 1], 256, shared, words(&params))?;
        Ok(())
    }

    /// Totals, then the program, then metrics. A launch has room for [`MAX_TOTALS`] and [`MAX_METRICS`]; more take more
    /// launches, in an order that keeps the three stages apart.
    fn scalars(
        &mut self,
        number: usize,
        wave: usize,
        totals: &[(View, View)],
        program: &crate::engine::plan::program::Program,
        metrics: &[(View, usize)],
        tick: bool,
    ) -> Result<()> {
        let empty = ScalarsParams { clock: self.clock, ..zeroed() };
        let total_parts: Vec<&[(View, View)]> = totals.chunks(MAX_TOTALS).collect();
        let metric_parts: Vec<&[(View, usize)]> = metrics.chunks(MAX_METRICS).collect();
        let (early, with_program) = total_parts.split_at(total_parts.len().saturating_sub(1));
        let mut launches = Vec::new();
        for part in early {
            launches.push(self.with_totals(empty, part));
        }
        let mut middle = self.with_totals(empty, with_program.first().copied().unwrap_or(&[]));
        middle.program = self.program(program, 1)?;
        launches.push(self.with_metrics(middle, metric_parts.first().copied().unwrap_or(&[])));
        for part in metric_parts.iter().skip(1) {
            launches.push(self.with_metrics(empty, part));
        }
        let count = launches.len();
        for (i, mut params) in launches.into_iter().enumerate() {
            params.tick = i32::from(tick && i + 1 == count);
            let regs = if params.program.body_len > 0 || params.program.uniform_len > 0 { program.regs } else { 0 };
            let shared = (16 * regs).max(64 * params.totals_len as usize).max(32);
            self.launch(number, wave, "scalars", [1, 1, 1], 256, shared as u32, words(&params))?;
        }
        Ok(())
    }

    fn with_totals(&self, mut params: ScalarsParams, totals: &[(View, View)]) -> ScalarsParams {
        for (slot, (partials, total)) in params.totals.iter_mut().zip(totals) {
            let len = self.partials.get(&(partials.mem, partials.offset)).copied().unwrap_or(partials.cols);
            *slot = Total { partials: self.address(partials), total: self.address(total), len: len as i32, pad: 0 };
        }
        params.totals_len = totals.len() as i32;
        params
    }

    fn with_metrics(&self, mut params: ScalarsParams, metrics: &[(View, usize)]) -> ScalarsParams {
        for (slot, (value, number)) in params.metrics.iter_mut().zip(metrics) {
            *slot = Metric { value: self.address(value), sum: self.sums + 8 * *number as Address };
        }
        params.metrics_len = metrics.len() as i32;
        params
    }

    fn optimize(
        &mut self,
        number: usize,
        wave: usize,
        rule: Optimizer,
        params: &[(Slot, View)],
        scale: Option<&View>,
        tick: bool,
    ) -> Result<()> {
        let mut base = OptimizeParams {
            clock: self.clock,
            scale: scale.map_or(0, |v| self.address(v)),
            ticket: self.ticket,
            ..zeroed()
        };
        let kernel = match rule {
            Optimizer::Adam { beta1, beta2, eps } => {
                (base.beta1, base.beta2, base.eps) = (beta1 as f32, beta2 as f32, eps as f32);
                (base.one_minus_beta1, base.one_minus_beta2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
                "adam"
            }
            Optimizer::Sgd { momentum } => {
                (base.rule, base.momentum) = (1, momentum as f32);
                "sgd"
            }
        };
        // Parameters whose memory and gradients are neighbours are updated by one launch.
        let mut runs: Vec<OptimizeParams> = Vec::new();
        for (slot, grad) in params {
            let at = self.memory.param(self.name(*slot));
            let (g, len) = (self.address(grad), (grad.rows * grad.cols) as u64);
            match runs.last_mut() {
                Some(last) if last.p + 4 * last.len == at.p && last.g + 4 * last.len == g => last.len += len,
                _ => runs.push(OptimizeParams { p: at.p, m: at.m, v: at.v, g, len, ..base }),
            }
        }
        let count = runs.len();
        for (i, mut run) in runs.into_iter().enumerate() {
            run.tick = i32::from(tick && i + 1 == count);
            let grid = (run.len / 4 + 2).div_ceil(256);
            self.launch(number, wave, kernel, [grid as u32, 1, 1], 256, 0, words(&run))?;
        }
        Ok(())
    }
}

/// (kernel, grid, threads, shared bytes, elements of a row that a block folds) of a reduction; see kernels/reduce.cu.
fn reduce_launch(outer: usize, reduced: usize, inner: usize) -> (&'static str, [u32; 3], u32, u32, usize) {
    // What one block folds of a row before the row is shared, and the blocks of a launch of shared rows.
    const LONG: usize = 32_768;
    const BLOCKS: usize = 256;
    if inner == 1 {
        if reduced > LONG && (1..=BLOCKS / 2).contains(&outer) {
            let per_part = reduced.div_ceil(BLOCKS / outer).next_multiple_of(4).max(LONG);
            return ("reduce_rows", [reduced.div_ceil(per_part) as u32, outer as u32, 1], 1024, 128, per_part);
        }
        let team = match reduced {
            0..=1024 => 32,
            1025..=LONG => 256,
            _ => 1024,
        };
        let threads = team.max(256);
        let blocks = (outer * team).div_ceil(threads).max(1);
        return ("reduce_rows", [blocks as u32, 1, 1], threads as u32, 128, reduced);
    }
    let along = match reduced {
        0..=8 => 1,
        9..=512 => 8,
        _ => 32,
    };
    ("reduce_cols", [(outer * inner).div_ceil(256 / along).max(1) as u32, 1, 1], 256, 1024, reduced)
}

/// A plan that the kernels' fixed-size parameters have no room for.
pub(super) fn too_large(what: &str, found: usize, most: usize) -> Error {
    Error::Device {
        device: "cuda".into(),
        reason: format!("a fused program has {found} {what}, the kernels' parameters have room for {most}"),
        remedy: "use --device cpu, or split the expression by storing an intermediate value".into(),
    }
}
