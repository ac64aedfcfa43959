//! The CPU executor: plans bound to host memory, run by a team of threads.

mod bind;

pub(crate) use bind::Binder;

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
use crate::engine::plan::Plan;
use crate::engine::shape::Shape;
use crate::engine::steps::{Context, Region, StepValues, Work};

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
    steps: Vec<Box<dyn Work>>,
    waves: Vec<Wave>,
    sums: Vec<f64>,
    metrics: Vec<String>,
    rule: Option<Optimizer>,
    batch_rows: usize,
    // The memory that the steps point into.
    arena: Aligned,
    _tensors: Vec<Aligned>,
}

/// The steps of a wave with the number of each one's first chunk.
struct Wave {
    steps: Vec<(usize, usize)>,
    chunks: usize,
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
        let arena = Aligned::zeroed(plan.arena);
        let mut tensors: Vec<Aligned> = plan.tensors.iter().map(|t| Aligned::zeroed(t.len())).collect();
        tensors.iter_mut().zip(&plan.tensors).for_each(|(to, from)| to.slice_mut().copy_from_slice(from));
        let binder = Binder { plan, isa: self.isa, memory: &self.memory, arena: &arena, tensors: &tensors };
        let steps: Vec<Box<dyn Work>> = plan.steps.iter().map(|s| s.kernel.bind(&binder)).collect();
        let scratch = steps.iter().map(|s| s.scratch()).max().unwrap_or(0);
        for thread in &mut self.scratch {
            if thread.slice().len() < scratch {
                *thread = Aligned::zeroed(scratch);
            }
        }
        let waves: Vec<Wave> = (0..plan.waves).map(|wave| Wave::new(plan, &steps, wave)).collect();
        if let Some(wave) = waves.iter().find(|w| !(1..=MOST_CHUNKS).contains(&w.chunks)) {
            return Err(Error::argument(
                "plan",
                format!("{} chunks in a wave", wave.chunks),
                format!("1 to {MOST_CHUNKS}"),
            ));
        }
        self.bound.push(BoundPlan {
            steps,
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
        for data in plan.steps.iter_mut().filter_map(|step| step.data()) {
            data.bytes = self.memory.data(&data.slot, data.bytes.cols)?;
            check_rows(&data.slot, data.bytes.rows, self.control.cursor, times, plan.batch_rows)?;
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
        let context = Context { values: &values, scratch, sums: plan.sums.as_mut_ptr(), bad_index: &bad_index };
        let mut best = vec![f64::INFINITY; plan.steps.len()];
        for _ in 0..repetitions {
            for (step, best) in plan.steps.iter().zip(&mut best) {
                let start = Instant::now();
                for chunk in 0..step.chunks() {
                    // SAFETY: one thread, in the order of the waves; `run` checked the data.
                    unsafe { step.run(chunk, &context) };
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
            let context = Context { values: &values, scratch, sums, bad_index: self.bad_index };
            self.plan.steps[step].run(chunk, &context);
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
    fn new(plan: &Plan, bound: &[Box<dyn Work>], wave: usize) -> Wave {
        let mut chunks = 0;
        let mut steps = Vec::new();
        for (i, _) in plan.steps.iter().enumerate().filter(|(_, s)| s.wave == wave) {
            steps.push((i, chunks));
            chunks += bound[i].chunks();
        }
        Wave { steps, chunks }
    }

    /// (step, its chunk) of chunk `chunk` of the wave.
    fn find(&self, chunk: usize) -> (usize, usize) {
        let (step, first) = self.steps.iter().rev().find(|(_, first)| *first <= chunk).expect("chunk 0 is a step's");
        (*step, chunk - first)
    }
}

#[cfg(test)]
mod tests;
