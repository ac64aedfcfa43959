//! The CPU executor: plans bound to host memory, run by a team of threads.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::memory::{Aligned, Memory, SMALLER};
use super::room::must_fit;
use super::team::{self, Course, MOST_CHUNKS, MOST_WAVES};
use super::{Bound, Exec, Moment, Snapshot, check_rows};
use crate::engine::error::{Error, Result};
use crate::engine::isa::Isa;
use crate::engine::optim::{Control, Optimizer};
use crate::engine::plan::{GemmOut, Kind, Mem, Plan, View};
use crate::engine::shape::Shape;
use crate::engine::steps::gemm::{Gemm, Output};
use crate::engine::steps::{Region, StepValues, batch, layout, optimize, pointwise, reduce, scalars};

/// Starting the threads of a run costs about as much as a tenth of a small model's step; sixteen of its steps take 5 to
/// 50 ms.
const STEPS_PER_CALL: usize = 16;
/// Seconds that a call should last at most, so that whoever wants to stop a run between two calls need not wait.
const BLINK: f64 = 0.1;

/// Rows of a 200-200-784 decoder whose activations stay in a core's caches or close to them; from 250 on the products run
/// at their full speed.
const ROWS_PER_STEP: usize = 1000;

/// The CPU: memory by slot name, shared by all plans bound to it, a team of threads, and the [`Control`] block.
///
/// Results do not depend on the number of threads, bit for bit.
pub struct Cpu {
    isa: Isa,
    pool: Option<rayon::ThreadPool>,
    scratch: Vec<Aligned>,
    memory: Memory,
    bound: Vec<BoundPlan>,
    control: Control,
    /// Seconds that a step of the last run took; none was made yet.
    pace: Option<f64>,
}

struct BoundPlan {
    steps: Vec<Launch>,
    waves: Vec<Wave>,
    sums: Vec<f64>,
    metrics: Vec<String>,
    rule: Option<Optimizer>,
    batch_rows: usize,
    // The memory that the launches point into.
    arena: Aligned,
    _tensors: Vec<Aligned>,
}

/// The steps of a wave with the number of each one's first chunk.
struct Wave {
    steps: Vec<(usize, usize)>,
    chunks: usize,
}

/// A step with addresses.
enum Launch {
    Batch { run: batch::Bound, slot: String },
    Gemm(Box<GemmLaunch>),
    Pointwise(pointwise::Bound),
    Reduce(reduce::Bound),
    Move(layout::Bound),
    Scalars(scalars::Bound),
    Optimize(optimize::Bound),
}

struct GemmLaunch {
    gemm: Gemm,
    a: Region,
    b: Region,
    out: GemmTarget,
    col_sums: Option<Region>,
}

enum GemmTarget {
    Store(Region),
    Program(pointwise::Bound),
}

impl Cpu {
    /// An executor with `threads` threads (0: one per available core) and the widest instruction set.
    pub fn new(threads: usize) -> Cpu {
        Cpu::with_isa(threads, Isa::detect())
    }

    /// An executor with a given instruction set, one of [`Isa::available`].
    ///
    /// # Panics
    /// When the operating system refuses to start threads.
    pub fn with_isa(threads: usize, isa: Isa) -> Cpu {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let named = |i| format!("elbo-{i}");
        let start = || rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build();
        Cpu {
            isa,
            pool: (threads > 1).then(|| start().expect("the operating system starts threads")),
            scratch: (0..threads).map(|_| Aligned::zeroed(0)).collect(),
            memory: Memory::default(),
            bound: Vec::new(),
            control: Control::new(0),
            pace: None,
        }
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The plan's scratch memory, for a debugger or a test: buffer `b` of [`Plan::buffers`] begins at its offset, and
    /// holds a value from the first wave of its life to the last.
    pub fn scratch_mut(&mut self, plan: Bound) -> &mut [f32] {
        self.bound[plan.0].arena.slice_mut()
    }
}

impl Exec for Cpu {
    fn describe(&self) -> String {
        format!("cpu ({}, threads: {})", self.isa, self.threads())
    }

    fn steps_per_call(&self) -> usize {
        // The first call is one step long: it tells how long a step takes.
        self.pace.map_or(1, |seconds| ((BLINK / seconds) as usize).clamp(1, STEPS_PER_CALL))
    }

    fn rows_per_step(&self) -> usize {
        ROWS_PER_STEP
    }

    fn control(&self) -> &Control {
        &self.control
    }

    fn control_mut(&mut self) -> &mut Control {
        &mut self.control
    }

    fn set_data(&mut self, name: &str, bytes: &[u8], cols: usize) -> Result<()> {
        self.memory.set_data(name, bytes, cols)
    }

    fn write_moment(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()> {
        self.memory.write(name, moment, values)
    }

    fn read_moment(&self, name: &str, moment: Moment) -> Result<Vec<f32>> {
        Ok(self.memory.read(name, moment)?.to_vec())
    }

    fn params(&self) -> Vec<(String, Shape)> {
        self.memory.params().map(|(name, shape)| (name.to_string(), shape)).collect()
    }

    fn bind(&mut self, plan: &Plan) -> Result<Bound> {
        plan.verify().map_err(|e| Error::argument("plan", e, "a plan as Plan::build makes it"))?;
        self.memory.admit(&plan.slots)?;
        must_fit(4 * plan.arena as u64, "a step of this model", SMALLER)?;
        let mut arena = Aligned::zeroed(plan.arena);
        let mut tensors: Vec<Aligned> = plan.tensors.iter().map(|t| Aligned::zeroed(t.len())).collect();
        tensors.iter_mut().zip(&plan.tensors).for_each(|(to, from)| to.slice_mut().copy_from_slice(from));
        let launches = {
            let mut binder =
                Binder { plan, isa: self.isa, memory: &mut self.memory, arena: &mut arena, tensors: &mut tensors };
            plan.steps.iter().map(|s| binder.launch(&s.kind)).collect::<Vec<Launch>>()
        };
        let scratch = launches.iter().map(Launch::scratch).max().unwrap_or(0);
        for thread in &mut self.scratch {
            if thread.slice().len() < scratch {
                *thread = Aligned::zeroed(scratch);
            }
        }
        let waves: Vec<Wave> = (0..plan.waves).map(|wave| Wave::new(plan, &launches, wave)).collect();
        if let Some(wave) = waves.iter().find(|w| !(1..=MOST_CHUNKS).contains(&w.chunks)) {
            return Err(Error::argument(
                "plan",
                format!("{} chunks in a wave", wave.chunks),
                format!("1 to {MOST_CHUNKS}"),
            ));
        }
        self.bound.push(BoundPlan {
            steps: launches,
            waves,
            sums: vec![0.0; plan.metrics.len()],
            metrics: plan.metrics.clone(),
            rule: plan.rule,
            batch_rows: plan.batch_rows,
            arena,
            _tensors: tensors,
        });
        Ok(Bound(self.bound.len() - 1))
    }

    fn run(&mut self, plan: Bound, times: usize) -> Result<()> {
        let plan = &mut self.bound[plan.0];
        for launch in &mut plan.steps {
            if let Launch::Batch { run, slot } = launch {
                run.data = self.memory.data(slot, run.out.cols)?;
                check_rows(slot, run.data.rows, self.control.cursor, times, plan.batch_rows)?;
            }
        }
        if times == 0 {
            return Ok(());
        }
        let most = MOST_WAVES / plan.waves.len().max(1) as u64;
        let waves =
            u64::try_from(times).ok().filter(|&times| times <= most).map(|times| times * plan.waves.len() as u64);
        let waves = waves.ok_or_else(|| Error::argument("times", times, format!("at most {most} steps in one run")))?;
        if waves == 0 {
            // Everything that the plan writes is empty.
            (0..times).for_each(|_| self.control.tick(plan.batch_rows, plan.rule.is_some()));
            return Ok(());
        }
        let started = Instant::now();
        let bad_index = AtomicBool::new(false);
        let scratch: Vec<Region> =
            self.scratch.iter().map(|s| Region { ptr: s.ptr(), rows: 1, cols: 0, stride: 0 }).collect();
        let sums = plan.sums.as_mut_ptr();
        let shared = Shared {
            plan,
            scratch,
            sums: Region { ptr: sums.cast(), rows: 1, cols: 0, stride: 0 },
            now: UnsafeCell::new(Now { values: StepValues::new(&self.control, plan.rule), control: &mut self.control }),
            bad_index: &bad_index,
        };
        team::run(self.pool.as_ref(), waves, &shared);
        self.pace = Some(started.elapsed().as_secs_f64() / times as f64);
        if bad_index.into_inner() {
            let problem = "a row index is negative, fractional or outside the table".into();
            return Err(Error::Slot { name: "gather_rows".into(), problem });
        }
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        // A run ends when its last step has.
        Ok(())
    }

    fn time_steps(&mut self, plan: Bound, repetitions: usize) -> Result<Vec<f64>> {
        self.run(plan, 0)?;
        let values = StepValues::new(&self.control, self.bound[plan.0].rule);
        let bad_index = AtomicBool::new(false);
        let scratch = self.scratch[0].ptr();
        let plan = &mut self.bound[plan.0];
        let sums = plan.sums.as_mut_ptr();
        let mut best = vec![f64::INFINITY; plan.steps.len()];
        for _ in 0..repetitions {
            for (launch, best) in plan.steps.iter().zip(&mut best) {
                let start = Instant::now();
                for chunk in 0..launch.chunks() {
                    // SAFETY: one thread, in the order of the waves; `run` checked the data.
                    unsafe { launch.run(chunk, &values, scratch, sums, &bad_index) };
                }
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
        Ok(best)
    }

    fn set_metrics(&mut self, plan: Bound, sums: &BTreeMap<String, f64>) -> Result<()> {
        let plan = &mut self.bound[plan.0];
        for (sum, name) in plan.sums.iter_mut().zip(&plan.metrics) {
            *sum = sums.get(name).copied().unwrap_or(0.0);
        }
        Ok(())
    }

    fn peek_metrics(&mut self, plan: Bound) -> Result<Option<Snapshot>> {
        let plan = &self.bound[plan.0];
        let sums = plan.metrics.iter().cloned().zip(plan.sums.iter().copied()).collect();
        Ok(Some(Snapshot { cursor: self.control.cursor, updates: self.control.updates, sums }))
    }

    fn take_metrics(&mut self, plan: Bound) -> Result<BTreeMap<String, f64>> {
        let plan = &mut self.bound[plan.0];
        let taken = plan.metrics.iter().cloned().zip(plan.sums.iter().copied()).collect();
        plan.sums.fill(0.0);
        Ok(taken)
    }
}

/// The step in progress.
struct Now<'a> {
    values: StepValues,
    control: &'a mut Control,
}

/// What the threads of a run share.
struct Shared<'a> {
    plan: &'a BoundPlan,
    scratch: Vec<Region>,
    sums: Region,
    now: UnsafeCell<Now<'a>>,
    bad_index: &'a AtomicBool,
}

// SAFETY: `now` is written only between waves, when no chunk is running; the regions are written as the plan's waves
// allow.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    /// (the wave's number in its step, the wave): waves are counted through all steps of a run.
    fn wave(&self, wave: u64) -> (usize, &Wave) {
        let number = (wave % self.plan.waves.len() as u64) as usize;
        (number, &self.plan.waves[number])
    }
}

impl Course for Shared<'_> {
    fn chunks(&self, wave: u64) -> usize {
        self.wave(wave).1.chunks
    }

    fn run(&self, thread: usize, wave: u64, chunk: usize) {
        let (step, chunk) = self.wave(wave).1.find(chunk);
        // SAFETY: nobody writes `now` while a chunk runs. The plan's waves keep steps apart that touch the same memory
        // (`Plan::verify`), each chunk is claimed by one thread, and the scratch is this thread's own.
        unsafe {
            let values = (*self.now.get()).values;
            let (scratch, sums) = (self.scratch[thread].ptr, self.sums.ptr.cast());
            self.plan.steps[step].run(chunk, &values, scratch, sums, self.bad_index);
        }
    }

    fn close(&self, wave: u64) {
        if self.wave(wave).0 + 1 == self.plan.waves.len() {
            // SAFETY: no chunk is running.
            unsafe { (*self.now.get()).tick(self.plan) };
        }
    }
}

impl Now<'_> {
    fn tick(&mut self, plan: &BoundPlan) {
        self.control.tick(plan.batch_rows, plan.rule.is_some());
        self.values = StepValues::new(self.control, plan.rule);
    }
}

impl Wave {
    fn new(plan: &Plan, launches: &[Launch], wave: usize) -> Wave {
        let mut chunks = 0;
        let mut steps = Vec::new();
        for (i, _) in plan.steps.iter().enumerate().filter(|(_, s)| s.wave == wave) {
            steps.push((i, chunks));
            chunks += launches[i].chunks();
        }
        Wave { steps, chunks }
    }

    /// (step, its chunk) of chunk `chunk` of the wave.
    fn find(&self, chunk: usize) -> (usize, usize) {
        let (step, first) = self.steps.iter().rev().find(|(_, first)| *first <= chunk).expect("chunk 0 is a step's");
        (*step, chunk - first)
    }
}

impl Launch {
    fn chunks(&self) -> usize {
        match self {
            Launch::Batch { run, .. } => run.chunks(),
            Launch::Gemm(l) => l.gemm.chunks(),
            Launch::Pointwise(p) => p.chunks(),
            Launch::Reduce(r) => r.chunks(),
            Launch::Move(m) => m.chunks(),
            Launch::Scalars(_) => 1,
            Launch::Optimize(o) => o.chunks(),
        }
    }

    /// f32 words of scratch that a thread needs.
    fn scratch(&self) -> usize {
        match self {
            Launch::Gemm(l) => match &l.out {
                GemmTarget::Program(p) => l.gemm.scratch().next_multiple_of(16) + p.scratch(),
                GemmTarget::Store(_) => l.gemm.scratch(),
            },
            Launch::Pointwise(p) => p.scratch(),
            Launch::Scalars(s) => s.program.scratch(),
            _ => 0,
        }
    }

    /// # Safety
    /// Nobody else touches what the chunk writes or writes what it reads; `scratch` is this thread's own and as large
    /// as [`Launch::scratch`]; `sums` has room for the plan's metrics.
    unsafe fn run(&self, chunk: usize, values: &StepValues, scratch: *mut f32, sums: *mut f64, bad_index: &AtomicBool) {
        // SAFETY: as promised by the caller.
        unsafe {
            match self {
                Launch::Batch { run, .. } => run.run(chunk, values),
                Launch::Gemm(l) => l.run(chunk, values, scratch),
                Launch::Pointwise(p) => p.run(chunk, values, scratch),
                Launch::Reduce(r) => r.run(chunk),
                Launch::Move(m) => m.run(chunk, bad_index),
                Launch::Scalars(s) => s.run(values, scratch, sums),
                Launch::Optimize(o) => o.run(chunk, values),
            }
        }
    }
}

impl GemmLaunch {
    /// # Safety
    /// As for [`Launch::run`].
    unsafe fn run(&self, chunk: usize, values: &StepValues, scratch: *mut f32) {
        let (a, b, sums) = (self.a.ptr, self.b.ptr, self.col_sums.map(|r| r.ptr));
        match &self.out {
            // SAFETY: as promised by the caller.
            GemmTarget::Store(c) => unsafe {
                self.gemm.run(chunk, a, b, scratch, Output::Store { c: c.ptr, ldc: c.stride }, sums);
            },
            GemmTarget::Program(program) => {
                // SAFETY: the scratch has room for both, the product's first.
                let registers = unsafe { scratch.add(self.gemm.scratch().next_multiple_of(16)) };
                // SAFETY: as promised by the caller.
                unsafe { program.prepare(values, registers) };
                let mut epilogue = |t: crate::engine::steps::gemm::Tile| {
                    let tile =
                        pointwise::Tile { row: t.r0, rows: t.rows, col: t.c0, cols: t.cols, acc: t.acc, ld: t.ld };
                    // SAFETY: as promised by the caller; each tile is handed over once.
                    unsafe { program.run_tile(&tile, values, registers) };
                };
                // SAFETY: as promised by the caller.
                unsafe { self.gemm.run(chunk, a, b, scratch, Output::Tiles(&mut epilogue), sums) };
            }
        }
    }
}

/// Turns a plan's views into addresses.
struct Binder<'a> {
    plan: &'a Plan,
    isa: Isa,
    memory: &'a mut Memory,
    arena: &'a mut Aligned,
    tensors: &'a mut [Aligned],
}

impl Binder<'_> {
    fn region(&mut self, view: &View) -> Region {
        let base = match view.mem {
            // SAFETY: `Plan::verify` checked that buffers lie inside the arena.
            Mem::Buffer(b) => unsafe { self.arena.ptr().add(self.plan.buffers[b as usize].offset) },
            Mem::Slot(s) => self.memory.ptr(&self.plan.slots[s.index()].name),
            Mem::Tensor(t) => self.tensors[t as usize].ptr(),
        };
        // SAFETY: `Plan::verify` checked that views lie inside their memory.
        Region { ptr: unsafe { base.add(view.offset) }, rows: view.rows, cols: view.cols, stride: view.stride }
    }

    fn program(&mut self, program: &crate::engine::plan::program::Program) -> pointwise::Bound {
        let isa = self.isa;
        pointwise::Bound::new(isa, program, |view| self.region(view))
    }

    fn launch(&mut self, kind: &Kind) -> Launch {
        let isa = self.isa;
        match kind {
            Kind::Batch { slot, out } => {
                let data = batch::Bytes { ptr: std::ptr::null(), rows: 0, cols: out.cols };
                let slot = self.plan.slots[slot.index()].name.clone();
                Launch::Batch { run: batch::Bound { isa, data, out: self.region(out) }, slot }
            }
            Kind::Gemm { mnk: (m, n, k), transposed: (ta, tb), a, b, out, col_sums } => {
                let gemm = Gemm::new(isa, *m, *n, *k, *ta, *tb, a.stride, b.stride);
                let out = match out {
                    GemmOut::Store(view) => GemmTarget::Store(self.region(view)),
                    GemmOut::Program(p) => GemmTarget::Program(self.program(p)),
                };
                let col_sums = col_sums.as_ref().map(|v| self.region(v));
                Launch::Gemm(Box::new(GemmLaunch { gemm, a: self.region(a), b: self.region(b), out, col_sums }))
            }
            Kind::Pointwise(p) => Launch::Pointwise(self.program(p)),
            Kind::Reduce { max, x, out, sizes: (outer, reduced, inner) } => Launch::Reduce(reduce::Bound {
                isa,
                max: *max,
                x: self.region(x),
                out: self.region(out),
                outer: *outer,
                reduced: *reduced,
                inner: *inner,
            }),
            Kind::Move { kind, x, index, out } => Launch::Move(layout::Bound {
                kind: *kind,
                x: self.region(x),
                index: index.as_ref().map(|v| self.region(v)),
                out: self.region(out),
            }),
            Kind::Scalars { totals, program, metrics } => Launch::Scalars(scalars::Bound {
                isa,
                totals: totals.iter().map(|(from, to)| (self.region(from), self.region(to))).collect(),
                program: self.program(program),
                metrics: metrics.iter().map(|(view, i)| (self.region(view), *i)).collect(),
            }),
            Kind::Optimize { rule, params, scale } => Launch::Optimize(optimize::Bound {
                isa,
                rule: *rule,
                pieces: self.pieces(params),
                scale: scale.as_ref().map(|v| self.region(v).ptr.cast_const()),
            }),
        }
    }

    fn pieces(&mut self, params: &[(crate::engine::graph::Slot, View)]) -> Vec<optimize::Piece> {
        let wholes: Vec<optimize::Piece> = params
            .iter()
            .map(|(slot, grad)| {
                let at = self.memory.param_ptrs(&self.plan.slots[slot.index()].name);
                let (g, len) = (self.region(grad).ptr.cast_const(), grad.rows * grad.cols);
                optimize::Piece { p: at.p, g, m: at.m, v: at.v, len }
            })
            .collect();
        optimize::pieces(&wholes)
    }
}

#[cfg(test)]
mod tests;
