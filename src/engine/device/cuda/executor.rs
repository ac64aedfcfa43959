//! The executor: how a plan is bound and run. See the module above.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::driver::{Address, Buffer, Captured, Driver, Lane, Launch};
use super::lower::{DataUse, Lower, Lowered, Placed};
use super::mailbox::Mailbox;
use super::memory::Memory;
use super::params::{self, Clock, Ctl, HashParams, StepValues};
use super::pinned::Uploads;
use super::probe::{Gpu, Version};
use crate::engine::device::{Bound, Exec, Moment, Precision, Snapshot, check_rows};
use crate::engine::error::{Error, Result};
use crate::engine::optim::{Control, Optimizer};
use crate::engine::plan::Plan;
use crate::engine::shape::Shape;

/// Rows of the table of step values: the most steps between two uploads.
const TABLE: usize = 1024;

/// Tables on their way at most. The caller's looks at the metrics, two under way, keep at most three portions before
/// the device, so that a training never waits for room.
const TABLES_UNDER_WAY: usize = 4;

/// Steps in the larger of the two recorded graphs, among which the host's cost of a launch is shared out.
const UNROLL: usize = 8;

/// How often a step is repeated to be timed: what a launch costs the host must not count, and is hidden in a graph.
const PASSES: usize = 16;

/// Steps of a call of [`Exec::run`] between two looks at the metrics. With two looks under way the device has at most
/// twice as many steps before it when the caller finds out that it is to stop.
const STEPS_PER_CALL: usize = 64;

/// Two hundred tiles of 128 rows: several for each multiprocessor of the largest GPUs, also for the narrowest layers.
const ROWS_PER_STEP: usize = 25_000;

/// A GPU: memory by slot name, shared by all plans bound to it, and the [`Control`] block.
pub struct Cuda {
    // Plans and memory are dropped before the driver that they hold.
    bound: Vec<BoundPlan>,
    memory: Memory,
    control: Control,
    precision: Precision,
    pub(super) driver: Rc<Driver>,
}

struct BoundPlan {
    launches: Vec<Placed>,
    steps: usize,
    data: Vec<DataUse>,
    /// The versions of the data sets that the launches point to.
    versions: Vec<u64>,
    indices: bool,
    metrics: Vec<String>,
    rule: Option<Optimizer>,
    batch_rows: usize,
    /// Graphs of one step and of [`UNROLL`] steps, recorded at the first run.
    one: Option<Captured>,
    many: Option<Captured>,
    sums: Address,
    /// Copies of the sums on their way to the host, each with its cursor and its number of updates; made at the first
    /// look.
    looks: Option<Mailbox<(u32, u32)>>,
    clock: Clock,
    /// Tables of step values on their way to the device.
    tables: Uploads<StepValues>,
    _memory: Vec<Buffer>,
}

impl BoundPlan {
    /// Uploads a table of at most [`TABLE`] rows and sets the clock to its first one.
    fn upload_table(&mut self, driver: &Driver, table: &[StepValues]) -> Result<()> {
        self.tables.send(self.clock.table, table)?;
        driver.clear(self.clock.ctl, size_of::<Ctl>())
    }
}

/// Parts of one allocation, each at a multiple of 256 bytes.
#[derive(Default)]
struct Layout(usize);

impl Layout {
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
        let driver = Driver::open(ordinal)?;
        let cc = driver.gpu.compute_capability;
        if precision != Precision::F32 && cc < Version(8, 0) {
            return Err(Error::Device {
                device: driver.name(),
                reason: format!(
                    "precision {precision} needs tensor cores of compute capability 8.0, this GPU has {cc}"
                ),
                remedy: "use --precision f32".into(),
            });
        }
        Ok(Cuda { bound: Vec::new(), memory: Memory::default(), control: Control::new(0), precision, driver })
    }

    /// What the GPU is.
    pub fn gpu(&self) -> &Gpu {
        &self.driver.gpu
    }

    /// The number of kernels in the recorded graph of one step; `None` before the plan first ran.
    pub fn recorded_kernels(&self, plan: Bound) -> Option<usize> {
        self.bound[plan.0].one.as_ref().map(|graph| graph.nodes)
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
        self.driver.launch(&launch, Lane::Main)?;
        let mut hash = [0u64];
        self.driver.download(sum.address(), &mut hash)?;
        Ok(hash[0])
    }

    /// Memory for a plan's own things, in one allocation: [arena, sums, ticket, ctl, table], then the constant arrays.
    fn scratch(&self, plan: &Plan) -> Result<(Buffer, [Address; 5], Vec<Address>)> {
        let mut layout = Layout::default();
        let parts = [4 * plan.arena, 8 * plan.metrics.len(), 4, size_of::<Ctl>(), TABLE * size_of::<StepValues>()];
        let offsets = parts.map(|bytes| layout.place(bytes));
        let tensors: Vec<Address> = plan.tensors.iter().map(|t| layout.place(4 * t.len())).collect();
        let buffer = self.driver.alloc(layout.0, "the scratch memory of a plan")?;
        let base = buffer.address();
        for (offset, values) in tensors.iter().zip(&plan.tensors) {
            self.driver.upload(base + offset, values)?;
        }
        Ok((buffer, offsets.map(|o| base + o), tensors.into_iter().map(|o| base + o).collect()))
    }

    /// Workspace and tickets of sums that several blocks share.
    fn shared_memory(&self, lowered: &mut Lowered) -> Result<Option<Buffer>> {
        let mut layout = Layout::default();
        let mut places = Vec::new();
        for sum in &lowered.shared_sums {
            places.push([layout.place(4 * sum.floats), layout.place(4 * sum.tickets)]);
        }
        if places.is_empty() {
            return Ok(None);
        }
        let buffer = self.driver.alloc(layout.0, "the partial sums of a plan")?;
        for (sum, places) in lowered.shared_sums.iter().zip(places) {
            let params = &mut lowered.launches[sum.launch].launch.params;
            for (field, place) in sum.fields.into_iter().zip(places) {
                params[field / size_of::<u64>()] = buffer.address() + place;
            }
        }
        Ok(Some(buffer))
    }

    /// Looks up the data sets of a plan for `times` steps, and points its launches to them if they have moved.
    fn find_data(&mut self, plan: Bound, times: usize) -> Result<()> {
        let plan = &mut self.bound[plan.0];
        for (at, usage) in plan.data.iter().enumerate() {
            let data = self.memory.data(&usage.slot, usage.cols)?;
            check_rows(&usage.slot, data.rows, self.control.cursor, times, plan.batch_rows)?;
            if plan.versions[at] != data.version {
                plan.launches[usage.launch].launch.params = usage.params(data.address(), data.rows);
                plan.versions[at] = data.version;
                // The recorded graphs hold the old address.
                (plan.one, plan.many) = (None, None);
            }
        }
        Ok(())
    }

    /// Launches one step: waves in order; in a wave the first step on the main stream, the others on the side stream.
    fn enqueue(&self, plan: Bound) -> Result<()> {
        let launches = &self.bound[plan.0].launches;
        for wave in launches.chunk_by(|a, b| a.wave == b.wave) {
            let first = wave[0].step;
            let beside = wave.iter().any(|p| p.step != first);
            if beside {
                self.driver.fork()?;
            }
            for placed in wave {
                let lane = if placed.step == first { Lane::Main } else { Lane::Side };
                self.driver.launch(&placed.launch, lane)?;
            }
            if beside {
                self.driver.join()?;
            }
        }
        Ok(())
    }

    /// Records the graphs, if they are not there.
    fn record(&mut self, plan: Bound, many: bool) -> Result<()> {
        if self.bound[plan.0].one.is_none() {
            let graph = self.driver.capture(|| self.enqueue(plan))?;
            self.bound[plan.0].one = Some(graph);
        }
        if many && self.bound[plan.0].many.is_none() {
            let graph = self.driver.capture(|| (0..UNROLL).try_for_each(|_| self.enqueue(plan)))?;
            self.bound[plan.0].many = Some(graph);
        }
        Ok(())
    }

    /// Uploads the numbers of the next `times` steps and advances the counters past them.
    fn upload_next(&mut self, plan: Bound, times: usize) -> Result<()> {
        let (rule, batch_rows) = (self.bound[plan.0].rule, self.bound[plan.0].batch_rows);
        let mut table = Vec::with_capacity(times);
        for _ in 0..times {
            table.push(step_values(&self.control, rule));
            self.control.tick(batch_rows, rule.is_some());
        }
        self.bound[plan.0].upload_table(&self.driver, &table)
    }

    fn check_indices(&self, plan: Bound) -> Result<()> {
        let plan = &self.bound[plan.0];
        let mut ctl = [params::zeroed::<Ctl>()];
        if plan.indices {
            self.driver.download(plan.clock.ctl, &mut ctl)?;
        }
        if ctl[0].bad_index == 0 {
            return Ok(());
        }
        let problem = "a row index is negative, fractional or outside the table".into();
        Err(Error::Slot { name: "gather_rows".into(), problem })
    }
}

/// The row of the table for the step that `control` stands at.
fn step_values(control: &Control, rule: Option<Optimizer>) -> StepValues {
    let values = crate::engine::steps::StepValues::new(control, rule);
    StepValues {
        seed: values.seed,
        step: values.step,
        epoch: values.epoch,
        cursor: values.cursor,
        shuffle: u32::from(values.shuffle),
        learning_rate: values.learning_rate,
        beta: values.beta,
        rate: values.update.rate as f32,
        root_scale: values.update.root_scale as f32,
        pad: [0; 2],
    }
}

impl Exec for Cuda {
    fn describe(&self) -> String {
        format!("{} ({}, {})", self.driver.name(), self.driver.gpu.name, self.precision)
    }

    fn steps_per_call(&self) -> usize {
        STEPS_PER_CALL
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
        self.memory.set_data(&self.driver, name, bytes, cols)
    }

    fn write_moment(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()> {
        let (address, size) = self.memory.array(name, moment)?;
        if values.len() != size {
            let problem = format!("{} numbers were given for {size}", values.len());
            return Err(Error::Slot { name: name.into(), problem });
        }
        self.driver.upload(address, values)
    }

    fn read_moment(&self, name: &str, moment: Moment) -> Result<Vec<f32>> {
        let (address, size) = self.memory.array(name, moment)?;
        let mut values = vec![0.0; size];
        self.driver.download(address, &mut values)?;
        Ok(values)
    }

    fn params(&self) -> Vec<(String, Shape)> {
        self.memory.params().map(|(name, shape)| (name.to_string(), shape)).collect()
    }

    fn bind(&mut self, plan: &Plan) -> Result<Bound> {
        plan.verify().map_err(|e| Error::argument("plan", e, "a plan as Plan::build makes it"))?;
        self.memory.admit(&self.driver, &plan.slots)?;
        let (scratch, [arena, sums, ticket, ctl, table], tensors) = self.scratch(plan)?;
        let clock = Clock { ctl, table };
        let lower =
            Lower::new(&self.driver, self.precision, plan, &self.memory, [arena, sums, ticket], &tensors, clock);
        let mut lowered = lower.run()?;
        let shared = self.shared_memory(&mut lowered)?;
        self.bound.push(BoundPlan {
            launches: lowered.launches,
            steps: plan.steps.len(),
            versions: vec![0; lowered.data.len()],
            data: lowered.data,
            indices: lowered.indices,
            metrics: plan.metrics.clone(),
            rule: plan.rule,
            batch_rows: plan.batch_rows,
            one: None,
            many: None,
            sums,
            looks: None,
            clock,
            tables: Uploads::new(&self.driver, TABLES_UNDER_WAY, TABLE)?,
            _memory: [scratch].into_iter().chain(shared).collect(),
        });
        Ok(Bound(self.bound.len() - 1))
    }

    fn run(&mut self, plan: Bound, times: usize) -> Result<()> {
        self.find_data(plan, times)?;
        // What a step counts with has 32 bits, and more of them would take days.
        if u32::try_from(times).is_err() {
            return Err(Error::argument("times", times, format!("at most {} steps in one run", u32::MAX)));
        }
        let mut left = times;
        while left > 0 {
            let now = left.min(TABLE);
            self.record(plan, now >= UNROLL)?;
            self.upload_next(plan, now)?;
            let bound = &self.bound[plan.0];
            for _ in 0..now / UNROLL {
                bound.many.as_ref().expect("recorded above").replay()?;
            }
            for _ in 0..now % UNROLL {
                bound.one.as_ref().expect("recorded above").replay()?;
            }
            left -= now;
            // The next portion clears the mark.
            self.check_indices(plan)?;
        }
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        self.driver.synchronize()
    }

    fn time_steps(&mut self, plan: Bound, repetitions: usize) -> Result<Vec<f64>> {
        self.find_data(plan, 1)?;
        // Every pass of a step is this one: same batch, same noise.
        let table = [step_values(&self.control, self.bound[plan.0].rule); PASSES];
        let bound = &mut self.bound[plan.0];
        let mut best = vec![f64::INFINITY; bound.steps];
        let record = |of_step: &[Placed]| {
            let launch = || of_step.iter().try_for_each(|p| self.driver.launch(&p.launch, Lane::Main));
            Ok((of_step[0].step, self.driver.capture(|| (0..PASSES).try_for_each(|_| launch()))?))
        };
        let graphs: Vec<(usize, Captured)> =
            bound.launches.chunk_by(|a, b| a.step == b.step).map(record).collect::<Result<_>>()?;
        for (step, graph) in graphs {
            // The kernel that only ticks the clock belongs to no step.
            let Some(best) = best.get_mut(step) else { continue };
            for _ in 0..repetitions {
                bound.upload_table(&self.driver, &table)?;
                let seconds = self.driver.time(|| graph.replay())?;
                *best = best.min(seconds / PASSES as f64);
            }
        }
        self.check_indices(plan)?;
        Ok(best)
    }

    fn set_metrics(&mut self, plan: Bound, sums: &BTreeMap<String, f64>) -> Result<()> {
        let plan = &mut self.bound[plan.0];
        plan.looks.iter_mut().for_each(Mailbox::forget);
        let values: Vec<f64> = plan.metrics.iter().map(|name| sums.get(name).copied().unwrap_or(0.0)).collect();
        self.driver.upload(plan.sums, &values)
    }

    fn peek_metrics(&mut self, plan: Bound) -> Result<Option<Snapshot>> {
        let plan = &mut self.bound[plan.0];
        let looks = match &mut plan.looks {
            Some(looks) => looks,
            none => none.insert(Mailbox::new(&self.driver, plan.metrics.len())?),
        };
        looks.send(plan.sums, (self.control.cursor, self.control.updates))?;
        let newest = looks.newest()?.map(|((cursor, updates), values)| Snapshot {
            cursor: *cursor,
            updates: *updates,
            sums: plan.metrics.iter().cloned().zip(values.iter().copied()).collect(),
        });
        Ok(newest)
    }

    fn take_metrics(&mut self, plan: Bound) -> Result<BTreeMap<String, f64>> {
        let plan = &mut self.bound[plan.0];
        plan.looks.iter_mut().for_each(Mailbox::forget);
        let mut values = vec![0.0; plan.metrics.len()];
        self.driver.download(plan.sums, &mut values)?;
        self.driver.upload(plan.sums, &vec![0.0; values.len()])?;
        Ok(plan.metrics.iter().cloned().zip(values).collect())
    }
}
