//! The CPU executor: plans bound to host memory, run by a team of threads.

mod bind;
mod guard;

pub(crate) use bind::Binder;

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::call::{Call, Sequence};
use super::memory::{Aligned, HostMemory, check_size};
use super::room::must_fit;
use super::team::{self, Course, MOST_CHUNKS, MOST_WAVES};
use super::{Backend, CompiledFunction, Memory, Snapshot, check_rows, foreign_memory};
use crate::engine::clock::Stopwatch;
use crate::engine::error::{Error, Remedy, Result};
use crate::engine::graph::{Graph, Slot, SlotKind};
use crate::engine::isa::Isa;
use crate::engine::params::Params;
use crate::engine::plan::{Fusion, Plan};
use crate::engine::steps::gemm::tiles::Tiles;
use crate::engine::steps::{BadIndex, Context, Region, StepValues, Work};

/// Starting the threads of a run costs about as much as a tenth of a small model's step; sixteen of its steps take 5 to
/// 50 ms.
const STEPS_PER_CALL: usize = 16;
/// Seconds that a call should last at most, so that whoever wants to stop a run between two calls need not wait.
const BLINK: f64 = 0.1;

/// Rows of a 200-200-784 decoder whose activations stay in a core's caches or close to them; from 250 on the products run
/// at their full speed.
const ROWS_PER_STEP: usize = 1000;

/// The CPU: a team of threads.
///
/// Results do not depend on the number of threads, bit for bit.
pub struct Cpu {
    team: Rc<Team>,
    tiles: Option<Tiles>,
    guarded: bool,
}

/// What the functions of a CPU share.
struct Team {
    isa: Isa,
    threads: usize,
    pool: Option<rayon::ThreadPool>,
    /// Each thread's own, as large as the function wants that needs most.
    scratch: RefCell<Vec<Aligned>>,
    /// Seconds that a step of the last run took; none was made yet.
    pace: Cell<Option<f64>>,
}

/// A plan with its own memory.
struct CpuFunction {
    team: Rc<Team>,
    /// What multiplies matrices, if not vector units.
    tiles: Option<Tiles>,
    plan: Plan,
    /// Whether guard words lie between the buffers of the arena.
    guarded: bool,
    arena: Aligned,
    tensors: Vec<Aligned>,
    /// Inputs and outputs, by slot.
    cells: HashMap<Slot, Aligned>,
    totals: Vec<f64>,
    /// Where the last run ended.
    position: (u32, u64),
    /// The launches, for the memory that they point into.
    bound: Option<BoundSteps>,
}

struct BoundSteps {
    /// The number of the memory.
    memory: u64,
    steps: Vec<Box<dyn Work>>,
    waves: Vec<Wave>,
}

/// The steps of a wave with the number of each one's first chunk.
struct Wave {
    steps: Vec<(usize, usize)>,
    chunks: usize,
}

impl Cpu {
    /// A back end with `threads` threads (0: one per available core), the widest instruction set, and products in f32:
    /// on vector units, or on the tiles that `ELBO_TILES` names. A unit that the processor lacks is ignored there; the
    /// command refuses it first ([`Tiles::asked`]).
    pub fn new(threads: usize) -> Cpu {
        Cpu { tiles: Tiles::asked().ok().flatten(), ..Cpu::with_isa(threads, Isa::detect()) }
    }

    /// The same back end with its products on tiles.
    #[must_use]
    pub fn on_tiles(self, tiles: Tiles) -> Cpu {
        Cpu { tiles: Some(tiles), ..self }
    }

    /// A back end with a given instruction set, one of [`Isa::available`], and products on its vector units.
    ///
    /// # Panics
    /// When the operating system refuses to start threads.
    pub fn with_isa(threads: usize, isa: Isa) -> Cpu {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let named = |i| format!("elbo-{i}");
        let start = || rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build();
        let team = Team {
            isa,
            threads,
            pool: (threads > 1).then(|| start().expect("the operating system starts threads")),
            scratch: RefCell::new((0..threads).map(|_| Aligned::zeroed(0)).collect()),
            pace: Cell::new(None),
        };
        Cpu { team: Rc::new(team), tiles: None, guarded: false }
    }

    /// The same back end, watching its kernels: every scratch buffer lies by itself between guard words and is NaN before
    /// a run. A kernel that reads what nobody wrote spoils the result, and a run in which one writes outside its buffers is
    /// an [`Error::Device`].
    #[must_use]
    pub fn guarded(self) -> Cpu {
        Cpu { guarded: true, ..self }
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.team.threads
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.team.isa
    }
}

impl Backend for Cpu {
    fn describe(&self) -> String {
        let tiles = self.tiles.map_or(String::new(), |tiles| format!(", {tiles}"));
        format!("cpu ({}{tiles}, threads: {})", self.team.isa, self.team.threads)
    }

    fn steps_per_call(&self) -> usize {
        // The first call is one step long: it tells how long a step takes.
        self.team.pace.get().map_or(1, |seconds| ((BLINK / seconds) as usize).clamp(1, STEPS_PER_CALL))
    }

    fn rows_per_step(&self) -> usize {
        ROWS_PER_STEP
    }

    fn memory(&self, params: &Params) -> Result<Box<dyn Memory>> {
        Ok(Box::new(HostMemory::new(params)?))
    }

    fn compile(&self, graph: &Graph, fusion: Fusion) -> Result<Box<dyn CompiledFunction>> {
        let mut plan = Plan::of(graph, fusion)?;
        if self.guarded {
            plan = guard::apart(&plan);
        }
        must_fit(plan.size(), "a step of this model", Remedy::smaller())?;
        let mut tensors: Vec<Aligned> = plan.tensors.iter().map(|t| Aligned::zeroed(t.len())).collect();
        tensors.iter_mut().zip(&plan.tensors).for_each(|(to, from)| to.slice_mut().copy_from_slice(from));
        let cells = plan.slots.iter().enumerate().filter(|(_, slot)| slot.kind == SlotKind::Cell);
        Ok(Box::new(CpuFunction {
            team: self.team.clone(),
            tiles: self.tiles,
            guarded: self.guarded,
            arena: Aligned::zeroed(plan.arena),
            tensors,
            cells: cells.map(|(i, slot)| (Slot(i as u16), Aligned::zeroed(slot.shape.size()))).collect(),
            totals: vec![0.0; plan.totals],
            position: (0, 0),
            bound: None,
            plan,
        }))
    }
}

impl Team {
    /// Makes sure that every thread has scratch for these steps.
    fn grow(&self, steps: &[Box<dyn Work>]) {
        let scratch = steps.iter().map(|s| s.scratch()).max().unwrap_or(0);
        for thread in self.scratch.borrow_mut().iter_mut().filter(|thread| thread.slice().len() < scratch) {
            *thread = Aligned::zeroed(scratch);
        }
    }
}

impl CpuFunction {
    /// Points the launches into `memory`, if they do not already, and looks up the data sets for the steps of `call`.
    fn bind(&mut self, memory: &mut dyn Memory, call: &Call<'_>) -> Result<()> {
        let memory = memory.as_any().downcast_mut::<HostMemory>().ok_or_else(|| foreign_memory("cpu"))?;
        if self.bound.as_ref().is_none_or(|bound| bound.memory != memory.number) {
            self.bound = Some(self.launches(memory)?);
        }
        let bound = self.bound.as_mut().expect("bound just now");
        for data in bound.steps.iter_mut().filter_map(|step| step.data()) {
            data.rows = memory.rows(&data.slot, data.rows.columns)?;
            check_rows(&data.slot, data.rows.count, call.rows.cursor, call.steps, self.plan.batch_rows)?;
        }
        Ok(())
    }

    fn launches(&self, memory: &HostMemory) -> Result<BoundSteps> {
        let plan = &self.plan;
        let named = |kind| matches!(kind, SlotKind::Param | SlotKind::Buffer);
        plan.slots.iter().filter(|slot| named(slot.kind)).try_for_each(|slot| memory.check(slot))?;
        let binder = Binder {
            plan,
            isa: self.team.isa,
            tiles: self.tiles,
            memory,
            arena: &self.arena,
            tensors: &self.tensors,
            cells: &self.cells,
        };
        let steps: Vec<Box<dyn Work>> = plan.steps.iter().map(|s| s.kernel.bind(&binder)).collect();
        self.team.grow(&steps);
        let waves: Vec<Wave> = (0..plan.waves).map(|wave| Wave::new(plan, &steps, wave)).collect();
        if let Some(wave) = waves.iter().find(|w| !(1..=MOST_CHUNKS).contains(&w.chunks)) {
            let found = format!("{} chunks in a wave", wave.chunks);
            return Err(Error::argument("plan", found, format!("1 to {MOST_CHUNKS}")));
        }
        Ok(BoundSteps { memory: memory.number, steps, waves })
    }

    /// The number of waves of so many steps.
    fn waves(&self, steps: usize) -> Result<u64> {
        let most = MOST_WAVES / self.plan.waves.max(1) as u64;
        let few = u64::try_from(steps).ok().filter(|&steps| steps <= most);
        let waves = few.map(|steps| steps * self.plan.waves as u64);
        waves.ok_or_else(|| Error::argument("steps", steps, format!("at most {most} in one run")))
    }

    fn cell(&self, cell: Slot) -> &Aligned {
        &self.cells[&cell]
    }
}

impl CompiledFunction for CpuFunction {
    fn run(&mut self, memory: &mut dyn Memory, call: &Call<'_>, updates: u64) -> Result<()> {
        self.bind(memory, call)?;
        let sequence = Sequence::new(&self.plan, call, updates)?;
        let waves = self.waves(call.steps)?;
        if call.steps == 0 {
            return Ok(());
        }
        if self.guarded {
            guard::poison(&self.plan, self.arena.slice_mut());
        }
        let started = Stopwatch::start();
        let bad = BadIndex::default();
        let scratch = self.team.scratch.borrow();
        let shared = Shared {
            plan: self.bound.as_ref().expect("bound above"),
            scratch: scratch.iter().map(|s| Region { ptr: s.ptr(), rows: 1, cols: 0, stride: 0 }).collect(),
            sums: Region { ptr: self.totals.as_mut_ptr().cast(), rows: 1, cols: 0, stride: 0 },
            now: UnsafeCell::new(Now { values: sequence.values(), sequence }),
            bad_index: &bad,
        };
        // A plan that writes nothing but empty arrays has no waves.
        if waves > 0 {
            team::run(self.team.pool.as_ref(), waves, &shared);
        } else {
            (0..call.steps).for_each(|_| shared.tick());
        }
        self.position = shared.now.into_inner().sequence.position();
        self.team.pace.set(Some(started.seconds() / call.steps as f64));
        if self.guarded {
            guard::check(&self.plan, self.arena.slice())?;
        }
        bad.into_result()
    }

    fn write(&mut self, cell: Slot, values: &[f32]) -> Result<()> {
        let slot = &self.plan.slots[cell.index()];
        check_size(&slot.name, values.len(), slot.shape)?;
        self.cells.get_mut(&cell).expect("a cell of this plan").slice_mut().copy_from_slice(values);
        Ok(())
    }

    fn read(&self, cell: Slot) -> Result<Vec<f32>> {
        Ok(self.cell(cell).slice().to_vec())
    }

    fn set_totals(&mut self, totals: &[f64]) -> Result<()> {
        self.totals.copy_from_slice(totals);
        Ok(())
    }

    fn peek_totals(&mut self) -> Result<Option<Snapshot>> {
        let (cursor, updates) = self.position;
        Ok(Some(Snapshot { cursor, updates, totals: self.totals.clone() }))
    }

    fn take_totals(&mut self) -> Result<Vec<f64>> {
        let taken = self.totals.clone();
        self.totals.fill(0.0);
        Ok(taken)
    }

    fn plan(&self) -> Option<&Plan> {
        Some(&self.plan)
    }

    fn time_steps(
        &mut self,
        memory: &mut dyn Memory,
        call: &Call<'_>,
        updates: u64,
        repetitions: usize,
    ) -> Result<Vec<f64>> {
        self.bind(memory, call)?;
        let values = Sequence::new(&self.plan, call, updates)?.values();
        let bad = BadIndex::default();
        let scratch = self.team.scratch.borrow()[0].ptr();
        let context = Context { values: &values, scratch, sums: self.totals.as_mut_ptr(), bad_index: &bad };
        let steps = &self.bound.as_ref().expect("bound above").steps;
        let mut best = vec![f64::INFINITY; steps.len()];
        for _ in 0..repetitions {
            for (step, best) in steps.iter().zip(&mut best) {
                let start = Stopwatch::start();
                for chunk in 0..step.chunks() {
                    // SAFETY: one thread, in the order of the waves; `bind` checked the data.
                    unsafe { step.run(chunk, &context) };
                }
                *best = best.min(start.seconds());
            }
        }
        bad.into_result().map(|()| best)
    }
}

/// The step in progress.
struct Now<'a> {
    values: StepValues,
    sequence: Sequence<'a>,
}

/// What the threads of a run share.
struct Shared<'a> {
    plan: &'a BoundSteps,
    scratch: Vec<Region>,
    sums: Region,
    now: UnsafeCell<Now<'a>>,
    bad_index: &'a BadIndex,
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

    /// Goes on to the next step; called while no chunk is running.
    fn tick(&self) {
        // SAFETY: nobody else looks at `now` between two steps.
        let now = unsafe { &mut *self.now.get() };
        now.sequence.tick();
        now.values = now.sequence.values();
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
            self.tick();
        }
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
