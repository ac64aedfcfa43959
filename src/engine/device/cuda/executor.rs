//! The executor: how a plan is bound and run. See the module above.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::bound::{BoundPlan, Launches};
use super::driver::{Address, DeviceBuffer, Driver, Launch, LaunchGraph, LaunchNode};
use super::ensemble::{EnsembleGpu, EnsembleMember};
use super::lower::{Chip, Lower, Lowered, Placed, Places, RunPosition, Slots};
use super::mailbox::Mailbox;
use super::memory::DeviceMemory;
use super::params::{self, Clock, Ctl, HashParams, StepValues};
use super::parts::{Parts, parts};
use super::pinned::Uploads;
use super::probe::{Gpu, Version};
use crate::engine::device::call::{Call, Sequence};
use crate::engine::device::memory::check_size;
use crate::engine::device::{Backend, CompiledFunction, Memory, Precision, Snapshot, check_steps, foreign_memory};
use crate::engine::error::{Choice, Error, Result};
use crate::engine::graph::{Graph, Slot, SlotKind};
use crate::engine::params::Params;
use crate::engine::plan::{Fusion, Plan};

/// The most steps between two uploads of the table of step values, which has one row more: what is gathered during the last
/// step is never read, but the row that says what it is must be there.
const TABLE: usize = 1024;

/// Tables on their way at most. The caller's looks at the metrics, two under way, keep at most three portions before
/// the device, so that a training never waits for room.
const TABLES_UNDER_WAY: usize = 4;

/// How often a step is repeated to be timed: what a launch costs the host must not count, and is hidden in a graph.
const PASSES: usize = 16;

/// Steps of a call of [`CompiledFunction::run`] between two looks at the metrics. With two looks under way the device has at most
/// twice as many steps before it when the caller finds out that it is to stop.
const STEPS_PER_CALL: usize = 64;

/// Two hundred tiles of 128 rows: several for each multiprocessor of the largest GPUs, also for the narrowest layers.
const ROWS_PER_STEP: usize = 25_000;

/// A GPU.
pub struct Cuda {
    precision: Precision,
    pub(super) driver: Rc<Driver>,
}

/// A plan with its own memory on the device.
struct CudaFunction {
    plan: Plan,
    precision: Precision,
    /// Which steps share launches.
    parts: Parts,
    /// Inputs and outputs, by slot.
    cells: HashMap<Slot, Address>,
    tensors: Vec<Address>,
    arena: Address,
    sums: Address,
    ticket: Address,
    clock: Clock,
    /// The second places of buffers that hold a batch.
    twins: HashMap<usize, Address>,
    /// Tables of step values on their way to the device.
    tables: Uploads<StepValues>,
    /// Copies of the sums on their way to the host, each with the run's position; made at the first look.
    looks: Option<Mailbox<(u32, u64)>>,
    /// Where the last run ended.
    position: (u32, u64),
    /// The launches, for the memory that they point into.
    bound: Option<BoundPlan>,
    // Dropped before the driver that it holds.
    _scratch: DeviceBuffer,
    driver: Rc<Driver>,
}

/// Parts of one allocation, each at a multiple of 256 bytes.
#[derive(Default)]
struct Placement(usize);

impl Placement {
    fn place(&mut self, bytes: usize) -> Address {
        let at = self.0;
        self.0 = (at + bytes).next_multiple_of(256);
        at as Address
    }
}

impl Cuda {
    /// GPU number `ordinal`, with matrix products in the given precision.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason why it cannot be used, and the remedy.
    pub fn open(ordinal: usize, precision: Precision) -> Result<Cuda> {
        Cuda::on(Driver::open(ordinal, None)?, precision)
    }

    /// A GPU whose steps are made together with those of other models in the ensemble.
    ///
    /// # Errors
    /// As [`Cuda::open`]; [`Error::Argument`] when the ensemble is full.
    pub(crate) fn in_ensemble(ensemble: &Arc<EnsembleGpu>, ordinal: usize, precision: Precision) -> Result<Cuda> {
        Cuda::on(Driver::open(ordinal, Some(ensemble.enter()?))?, precision)
    }

    fn on(driver: Rc<Driver>, precision: Precision) -> Result<Cuda> {
        let cc = driver.gpu.compute_capability;
        if precision != Precision::F32 && cc < Version(8, 0) {
            return Err(Error::Device {
                device: driver.name(),
                reason: format!(
                    "precision {precision} needs tensor cores of compute capability 8.0, this GPU has {cc}"
                ),
                remedy: Choice::F32.remedy("ask for precision f32"),
            });
        }
        Ok(Cuda { precision, driver })
    }

    /// What the GPU is.
    pub fn gpu(&self) -> &Gpu {
        &self.driver.gpu
    }

    /// The hash of what function `which` of kernels/noise_hash.cu gives for inputs `first` … `first + count − 1`, all
    /// below 2³². That file says which functions there are, what `seed` is to them and how the hash is made. For
    /// comparing devices over more numbers than could be copied.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn hash(&self, which: u32, first: u64, count: u64, seed: u64) -> Result<u64> {
        const THREADS: u32 = 256;
        let sum = self.driver.alloc(8, "a hash")?;
        let params = HashParams { first, count, seed, out: sum.address(), which: which as i32, pad: 0 };
        let blocks = count.div_ceil(u64::from(THREADS)).clamp(1, 8192) as u32;
        let launch = Launch {
            function: self.driver.function("noise_hash")?,
            kernel: "noise_hash",
            grid: [blocks, 1, 1],
            threads: THREADS,
            shared: 0,
            params: params::words(&params),
        };
        self.driver.launch(&launch)?;
        let mut hash = [0u64];
        self.driver.download(sum.address(), &mut hash)?;
        Ok(hash[0])
    }
}

impl Backend for Cuda {
    fn describe(&self) -> String {
        format!("{} ({}, {})", self.driver.name(), self.driver.gpu.name, self.precision)
    }

    fn steps_per_call(&self) -> usize {
        STEPS_PER_CALL
    }

    fn rows_per_step(&self) -> usize {
        ROWS_PER_STEP
    }

    fn gpu(&self) -> Option<&Cuda> {
        Some(self)
    }

    fn memory(&self, params: &Params) -> Result<Box<dyn Memory>> {
        Ok(Box::new(DeviceMemory::new(&self.driver, params)?))
    }

    fn compile(&self, graph: &Graph, fusion: Fusion) -> Result<Box<dyn CompiledFunction>> {
        let function =
            CudaFunction::new(&self.driver, self.precision, Plan::of(&graph.composed(), fusion)?, fusion.launches)?;
        // What the kernels have no room for is said now, not at the first run.
        function.lower(Slots::Nowhere, 0, RunPosition::Even)?;
        Ok(Box::new(function))
    }
}

impl CudaFunction {
    /// The plan's own memory is one allocation: [arena, sums, ticket, ctl, table], the constant arrays, the cells, the twins.
    fn new(driver: &Rc<Driver>, precision: Precision, plan: Plan, merge: bool) -> Result<CudaFunction> {
        let parts = parts(&plan, precision, driver.capability(), merge);
        let plan = parts.place(plan);
        if cfg!(debug_assertions) || driver.gpu.emulated() {
            assert_eq!(parts.verify(&plan, precision, driver.capability()), Ok(()), "{plan}");
        }
        let mut layout = Placement::default();
        let sizes = [4 * plan.arena, 8 * plan.totals, 4, size_of::<Ctl>(), (TABLE + 1) * size_of::<StepValues>()];
        let offsets = sizes.map(|bytes| layout.place(bytes));
        let tensors: Vec<Address> = plan.tensors.iter().map(|t| layout.place(4 * t.len())).collect();
        let cells = plan.slots.iter().enumerate().filter(|(_, slot)| slot.kind == SlotKind::Cell);
        let cells: Vec<(Slot, Address)> =
            cells.map(|(i, slot)| (Slot(i as u16), layout.place(4 * slot.shape.size()))).collect();
        let twin = |buffer: usize| (buffer, layout.place(4 * plan.buffers[buffer].len));
        let twins: Vec<(usize, Address)> = parts.lasting(&plan).into_iter().map(twin).collect();
        let scratch = driver.alloc(layout.0, "the memory of a function")?;
        let base = scratch.address();
        for (offset, values) in tensors.iter().zip(&plan.tensors) {
            driver.upload(base + offset, values)?;
        }
        let [arena, sums, ticket, ctl, table] = offsets.map(|offset| base + offset);
        Ok(CudaFunction {
            precision,
            parts,
            cells: cells.into_iter().map(|(slot, offset)| (slot, base + offset)).collect(),
            tensors: tensors.into_iter().map(|offset| base + offset).collect(),
            arena,
            sums,
            ticket,
            clock: Clock { ctl, table },
            twins: twins.into_iter().map(|(buffer, offset)| (buffer, base + offset)).collect(),
            tables: Uploads::new(driver, TABLES_UNDER_WAY, TABLE + 1)?,
            looks: None,
            position: (0, 0),
            bound: None,
            _scratch: scratch,
            driver: driver.clone(),
            plan,
        })
    }

    /// The launches of some of a run's steps, with addresses in memory, or `back` bytes before.
    fn lower(&self, slots: Slots<'_>, back: Address, position: RunPosition) -> Result<Lowered> {
        let places = Places {
            arena: self.arena,
            tensors: &self.tensors,
            cells: &self.cells,
            sums: self.sums,
            ticket: self.ticket,
            clock: self.clock,
            twins: &self.twins,
            position,
            slots,
            back,
        };
        Lower::new(Chip::There(&self.driver), self.precision, &self.plan, places).run(&self.parts)
    }

    /// Points the launches into `memory`, if they do not already, and looks up the data sets for the steps of `call`.
    fn bind(&mut self, memory: &mut dyn Memory, call: &Call<'_>) -> Result<()> {
        let name = self.driver.name();
        let memory = memory.as_any().downcast_mut::<DeviceMemory>().ok_or_else(|| foreign_memory(&name))?;
        if !memory.is_on(&self.driver) {
            return Err(foreign_memory(&name));
        }
        if self.bound.as_ref().is_none_or(|bound| bound.memory != memory.number) {
            let named = |kind| matches!(kind, SlotKind::Param | SlotKind::Buffer);
            self.plan.slots.iter().filter(|slot| named(slot.kind)).try_for_each(|slot| memory.check(slot))?;
            let lower = |back: Address, position| self.lower(Slots::At(memory), back, position);
            let mut even = lower(0, RunPosition::Even)?;
            let lookups = std::mem::take(&mut even.lookups);
            let mut layout = Placement::default();
            let sizes = even.workspaces.iter().map(|workspace| [4 * workspace.floats, 4 * workspace.tickets]);
            let places = sizes.map(|sizes| sizes.map(|bytes| layout.place(bytes)));
            let places: Vec<[Address; 2]> = places.collect();
            let shared = match places.is_empty() {
                true => None,
                false => Some(self.driver.alloc(layout.0, "what a plan needs besides its arena")?),
            };
            let begin = shared.as_ref().map_or(0, DeviceBuffer::address);
            let launches = |back: Address, even: Lowered| {
                let with_workspaces = |mut lowered: Lowered| {
                    lowered.place_workspaces(begin.wrapping_sub(back), &places);
                    lowered
                };
                let before_and_odd = match self.twins.is_empty() {
                    true => None,
                    false => {
                        Some([lower(back, RunPosition::Before)?, lower(back, RunPosition::Odd)?].map(with_workspaces))
                    }
                };
                Ok(Launches::of(with_workspaces(even), before_and_odd))
            };
            let as_first = |member: &EnsembleMember| {
                let back = member.offset();
                launches(back, lower(back, RunPosition::Even)?)
            };
            let as_first = self.driver.member.as_ref().map(as_first).transpose()?;
            self.bound = Some(BoundPlan::new(memory.number, launches(0, even)?, lookups, as_first, shared));
        }
        let bound = self.bound.as_mut().expect("bound above");
        bound.find_data(memory, call, self.plan.batch_rows)
    }

    fn bound(&self) -> &BoundPlan {
        self.bound.as_ref().expect("bound before")
    }

    /// Makes `steps` steps, for which the table is there: with other models of the ensemble, if there is one.
    fn replay(&mut self, steps: usize) -> Result<()> {
        let bound = self.bound.as_mut().expect("bound before");
        match (&self.driver.member, bound.canonical()) {
            (Some(member), Some(canonical)) => {
                member.run(&canonical, steps, |models| bound.replay(&self.driver, models, steps))
            }
            _ => bound.replay(&self.driver, &[], steps),
        }
    }

    /// Uploads a table of at most [`TABLE`] rows, and one more, and sets the clock to its first one.
    fn upload_table(&mut self, mut table: Vec<StepValues>) -> Result<()> {
        table.extend(table.last().copied());
        self.tables.send(self.clock.table, &table)?;
        self.driver.clear(self.clock.ctl, size_of::<Ctl>())
    }

    /// Uploads the numbers of the next `steps` steps and goes on past them.
    fn upload_next(&mut self, sequence: &mut Sequence<'_>, steps: usize) -> Result<()> {
        let mut table = Vec::with_capacity(steps + 1);
        for _ in 0..steps {
            table.push(step_values(sequence));
            sequence.tick();
        }
        self.upload_table(table)
    }

    /// The index outside its table that a kernel has met since the last table was uploaded.
    fn bad_index(&self) -> Result<Option<Error>> {
        let mut ctl = [params::zeroed::<Ctl>()];
        let lookups = &self.bound().lookups;
        if !lookups.is_empty() {
            self.driver.download(self.clock.ctl, &mut ctl)?;
        }
        let [Ctl { bad_lookup, bad_row, bad_index, .. }] = ctl;
        let met = (bad_lookup as usize).checked_sub(1).map(|number| lookups[number]);
        Ok(met.map(|lookup| lookup.fails(bad_row as usize, f64::from(bad_index))))
    }
}

/// The row of the table for the step that `sequence` stands at.
fn step_values(sequence: &Sequence<'_>) -> StepValues {
    let values = sequence.values();
    StepValues {
        seed: values.seed,
        step: values.step,
        epoch: values.epoch,
        cursor: values.cursor,
        shuffle: u32::from(values.shuffle),
        schedules: values.schedules,
        rate: values.update.rate as f32,
        root_scale: values.update.root_scale as f32,
    }
}

impl CompiledFunction for CudaFunction {
    fn run(&mut self, memory: &mut dyn Memory, call: &Call<'_>, updates: u64) -> Result<()> {
        self.bind(memory, call)?;
        check_steps(call.steps)?;
        let mut sequence = Sequence::new(&self.plan, call, updates)?;
        let (mut left, mut bad) = (call.steps, None);
        while left > 0 {
            let now = left.min(TABLE);
            self.upload_next(&mut sequence, now)?;
            self.replay(now)?;
            left -= now;
            self.position = sequence.position();
            // The next portion clears the mark.
            bad = bad.or(self.bad_index()?);
        }
        bad.map_or(Ok(()), Err)
    }

    fn write(&mut self, cell: Slot, values: &[f32]) -> Result<()> {
        let slot = &self.plan.slots[cell.index()];
        check_size(&slot.name, values.len(), slot.shape)?;
        self.driver.upload(self.cells[&cell], values)
    }

    fn read(&self, cell: Slot) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.plan.slots[cell.index()].shape.size()];
        self.driver.download(self.cells[&cell], &mut values)?;
        Ok(values)
    }

    fn address(&self, cell: Slot) -> Option<Address> {
        self.cells.get(&cell).copied()
    }

    fn set_totals(&mut self, totals: &[f64]) -> Result<()> {
        self.looks.iter_mut().for_each(Mailbox::forget);
        self.driver.upload(self.sums, totals)
    }

    fn peek_totals(&mut self) -> Result<Option<Snapshot>> {
        let looks = match &mut self.looks {
            Some(looks) => looks,
            none => none.insert(Mailbox::new(&self.driver, self.plan.totals)?),
        };
        looks.send(self.sums, self.position)?;
        let snapshot = |((cursor, updates), totals): &((u32, u64), Vec<f64>)| Snapshot {
            cursor: *cursor,
            updates: *updates,
            totals: totals.clone(),
        };
        Ok(looks.newest()?.map(snapshot))
    }

    fn take_totals(&mut self) -> Result<Vec<f64>> {
        self.looks.iter_mut().for_each(Mailbox::forget);
        let mut totals = vec![0.0; self.plan.totals];
        self.driver.download(self.sums, &mut totals)?;
        self.driver.upload(self.sums, &vec![0.0; totals.len()])?;
        Ok(totals)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.driver.synchronize()
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
        // Every pass of a step is this one: same batch, same noise.
        let table = vec![step_values(&Sequence::new(&self.plan, call, updates)?); PASSES];
        let record = |together: &[Placed]| {
            // Those that end a step do so together; alone none of them does.
            let launches: Vec<Launch> = together.iter().map(Placed::ending_nothing).collect();
            let repeated = (0..PASSES).flat_map(|_| &launches).enumerate();
            let after = |i: usize| i.checked_sub(1).into_iter().collect();
            let nodes = repeated.map(|(i, launch)| LaunchNode { launch, waits: after(i), urgent: false });
            Ok((together[0].steps.first().copied(), self.driver.graph(&nodes.collect::<Vec<_>>())?))
        };
        let graphs: Vec<(Option<usize>, LaunchGraph)> =
            self.bound().step().chunk_by(|a, b| a.steps == b.steps).map(record).collect::<Result<_>>()?;
        // Of steps that are made by one launch the first has all of the time, and that of a launch before in which it begins.
        let mut best = vec![0.0; self.plan.steps.len()];
        let mut bad = None;
        for (step, graph) in graphs {
            // The kernel that only ticks the clock belongs to no step.
            let Some(step) = step else { continue };
            let mut least = f64::INFINITY;
            for _ in 0..repetitions {
                self.upload_table(table.clone())?;
                self.bound().before().iter().try_for_each(|placed| self.driver.launch(&placed.launch))?;
                let seconds = self.driver.time(|| graph.replay())?;
                least = least.min(seconds / PASSES as f64);
                // The next table clears the mark.
                bad = bad.or(self.bad_index()?);
            }
            best[step] += least;
        }
        bad.map_or(Ok(best), Err)
    }
}
