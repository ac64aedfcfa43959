//! From a plan's steps to launches: which kernel, over which grid, with which parameters.
//!
//! Grids depend on shapes alone, never on the number of multiprocessors: with the same kernels the same sums are made in
//! the same order on every GPU. The formulas stand at the head of each kernel file under "Launch:".

use std::collections::{BTreeSet, HashMap};
use std::mem::offset_of;

use super::compiled;
use super::driver::{Address, DeviceKernel, Driver, Launch, Pod};
use super::figures::{Figures, Load, figures};
use super::memory::{DeviceData, DeviceMemory};
use super::params::{self, Clock, MakePlanesParams, ParamPlaces, RuleParams, StepEnd, TickParams, words};
use super::parts::{Part, Parts, WantedPlane};
use super::planes::{MAKE_PLANES, THREADS, plane_blocks, plane_pitch};
use super::program;
use super::rows;
use crate::engine::device::Precision;
use crate::engine::error::{Choice, Error, Result};
use crate::engine::graph::Slot;
use crate::engine::ops::layout::Lookup;
use crate::engine::plan::program::{Output, Program};
use crate::engine::plan::{Mem, Plan, Step, View};
use crate::engine::steps::Kernel;
use crate::engine::steps::optimize::Optimize;

/// A launch with its place in the plan.
pub(crate) struct Placed {
    pub launch: Launch,
    /// The steps of the plan that it makes, or a part of; none where it only ends the step of the run.
    pub steps: Vec<usize>,
    /// The number of the part that it belongs to, if it makes steps.
    pub part: Option<usize>,
    /// The earlier launches that it waits for.
    pub waits: Vec<usize>,
    /// Whether it lies on the longest way through the step, by the time that launches are expected to take.
    pub urgent: bool,
    /// The word of the parameters that says how many blocks end the step, if they do.
    pub ends_step: Option<usize>,
    pub load: Load,
}

impl Placed {
    /// The launch with the clock left alone.
    pub fn ending_nothing(&self) -> Launch {
        let mut launch = self.launch.clone();
        if let Some(word) = self.ends_step {
            launch.params[word] = 0;
        }
        launch
    }
}

/// Writes a data set into the words of a launch's parameters.
type Fill = Box<dyn Fn(&DeviceData, &mut Box<[u64]>)>;

/// A launch that reads a data set, whose address is only known when the plan runs.
pub(crate) struct DataLaunch {
    pub slot: String,
    pub cols: usize,
    pub launch: usize,
    /// Where the struct of parameters has the address of the data set of each model, in bytes.
    pub field: usize,
    fill: Fill,
}

impl DataLaunch {
    /// Writes a data set into the launch's parameters.
    pub fn fill(&self, data: &DeviceData, params: &mut Box<[u64]>) {
        (self.fill)(data, params);
    }
}

/// The plan as launches.
pub(crate) struct Lowered {
    pub launches: Vec<Placed>,
    pub data: Vec<DataLaunch>,
    /// The operations that look something up.
    pub lookups: Vec<Lookup>,
    /// What needs memory besides the arena.
    pub workspaces: Vec<Workspace>,
}

impl Lowered {
    /// Says where every workspace is, its numbers and its counters: so many bytes behind `begin`.
    pub fn place_workspaces(&mut self, begin: Address, places: &[[Address; 2]]) {
        for (workspace, [numbers, counters]) in self.workspaces.iter().zip(places) {
            let known = workspace.numbers.iter().map(|field| (field, numbers));
            for (field, place) in known.chain(workspace.counters.iter().map(|field| (field, counters))) {
                self.launches[field.launch].launch.params[field.byte / size_of::<u64>()] = begin.wrapping_add(*place);
            }
        }
    }
}

/// The launches that no other waits for.
pub(super) fn last(launches: &[Placed]) -> Vec<usize> {
    let mut awaited = vec![false; launches.len()];
    launches.iter().flat_map(|placed| &placed.waits).for_each(|&i| awaited[i] = true);
    (0..awaited.len()).filter(|&i| !awaited[i]).collect()
}

/// Memory besides the arena: of a sum that is split over blocks, a product's over k or a reduction's over a long row; or of a factor
/// as a plane of bf16. The parameters of its launches get the addresses when there is memory for them.
pub(crate) struct Workspace {
    /// Its size in f32.
    pub floats: usize,
    /// Counters, in u32.
    pub tickets: usize,
    /// Who is given its address: the launch that writes it, and those that read it, if they are others.
    numbers: Vec<Field>,
    /// And that of the counters; nobody, where no blocks wait for each other.
    counters: Option<Field>,
}

/// The plane of a factor that some steps read.
struct MadePlane {
    of: View,
    readers: Vec<usize>,
    /// The number of its memory.
    workspace: usize,
}

/// An address among the parameters of a launch, so many bytes from their begin.
struct Field {
    launch: usize,
    byte: usize,
}

/// Where a plan's memory is.
pub(crate) struct Places<'a> {
    pub arena: Address,
    /// Of the constant arrays.
    pub tensors: &'a [Address],
    /// Of inputs and outputs.
    pub cells: &'a HashMap<Slot, Address>,
    /// The running sums (f64).
    pub sums: Address,
    /// A counter of the blocks that end a step.
    pub ticket: Address,
    pub clock: Clock,
    /// The second place of every buffer that keeps what it holds for the next step.
    pub twins: &'a HashMap<usize, Address>,
    pub position: RunPosition,
    pub slots: Slots<'a>,
    /// How many bytes before it everything is said to be: 0, or to compare it with what lies so much before it.
    pub back: Address,
}

/// Where parameters and buffers are.
pub(crate) enum Slots<'a> {
    At(&'a DeviceMemory),
    /// Nowhere, because the launches are made only to be looked at: in the order of the slots, as they would be.
    Nowhere,
}

/// For which steps of a run launches are. A batch that is gathered for the next step lies in one of two places by turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunPosition {
    /// What comes before the first: its batch.
    Before,
    /// Steps 0, 2, 4, …, whose batch lies in the arena.
    Even,
    /// Steps 1, 3, 5, …, whose batch lies in the twin.
    Odd,
}

/// What the launches are made for.
#[derive(Clone, Copy)]
pub(crate) enum Chip<'a> {
    There(&'a Driver),
    /// A GPU of this compute capability that is not there: the launches can be looked at only.
    Paper((u32, u32)),
}

/// Lowers a plan whose buffers and slots have addresses: what a [`Kernel`](crate::engine::steps::Kernel) hands its
/// launches to.
pub(crate) struct Lower<'a> {
    gpu: Chip<'a>,
    pub precision: Precision,
    plan: &'a Plan,
    places: Places<'a>,
    pub clock: Clock,
    /// The steps that are being lowered.
    steps: Vec<usize>,
    /// The update that a product makes as well.
    update: Option<&'a Optimize>,
    /// Whether the batch is that of the next step.
    next: bool,
    /// Whether the product leaves the splits of its k to another launch.
    leaves_splits: bool,
    /// The sums of the steps that have left them.
    splits: HashMap<usize, usize>,
    /// The planes that products leave.
    wanted: Vec<WantedPlane>,
    planes: Vec<MadePlane>,
    /// The launches that can end the step, and where their parameters say whether they do.
    ends: HashMap<usize, usize>,
    out: Lowered,
    /// How many partial sums the launch that writes them leaves behind.
    partials: HashMap<(Mem, usize), usize>,
}

impl<'a> Lower<'a> {
    pub fn new(gpu: Chip<'a>, precision: Precision, plan: &'a Plan, places: Places<'a>) -> Lower<'a> {
        let out = Lowered { launches: Vec::new(), data: Vec::new(), lookups: Vec::new(), workspaces: Vec::new() };
        let (steps, ends, partials, splits) = (Vec::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let (wanted, planes) = (Vec::new(), Vec::new());
        let Clock { ctl, table } = places.clock;
        let clock = Clock { ctl: ctl.wrapping_sub(places.back), table: table.wrapping_sub(places.back) };
        let (update, next, leaves_splits) = (None, false, false);
        Lower {
            gpu,
            precision,
            plan,
            places,
            clock,
            steps,
            update,
            next,
            leaves_splits,
            splits,
            wanted,
            planes,
            ends,
            out,
            partials,
        }
    }

    /// All parts, and at the end whatever ticks the clock; before the first step only what gathers its batch.
    pub fn run(mut self, all: &Parts) -> Result<Lowered> {
        let (Parts { parts, waits }, plan) = (all, self.plan);
        self.wanted = all.wanted_planes(plan, self.precision, self.compute_capability());
        let factors = |step: &Step| rows::factors(step).iter().map(View::bytes).sum::<u64>();
        // For every part, the launches that it is over with.
        let mut ends: Vec<Vec<usize>> = Vec::with_capacity(parts.len());
        for (number, (part, waits)) in parts.iter().zip(waits).enumerate() {
            let first = self.out.launches.len();
            self.next = matches!(part, Part::Next(_));
            if self.places.position == RunPosition::Before && !self.next {
                ends.push(Vec::new());
                continue;
            }
            let step = &plan.steps[part.steps()[0]];
            self.steps = part.steps();
            let mut waits = union(waits.iter().map(|&j| ends[j].as_slice()));
            let mut bytes = step.bytes();
            match part {
                Part::Step(_) | Part::Next(_) => step.kernel.lower(&mut self)?,
                Part::Updating { update, .. } => {
                    self.update = plan.steps[*update].kernel.update();
                    step.kernel.lower(&mut self)?;
                    self.update = None;
                    // Gradients stay in registers, in their place are what the update moves but for them.
                    let rule = &plan.steps[*update].kernel;
                    let share = step.kernel.gradient_bytes() as f64 / rule.gradient_bytes().max(1) as f64;
                    bytes -= step.kernel.gradient_bytes();
                    bytes += ((rule.bytes() - rule.gradient_bytes()) as f64 * share) as u64;
                }
                Part::Plane { of, readers } => {
                    self.make_plane(*of, readers.clone())?;
                    bytes = of.bytes();
                }
                Part::Splits(_) => {
                    self.leaves_splits = true;
                    step.kernel.lower(&mut self)?;
                    self.leaves_splits = false;
                    bytes = factors(step);
                }
                Part::Rows { steps, joins } => {
                    bytes = steps.iter().map(|&i| plan.steps[i].bytes()).sum();
                    bytes -= if *joins { factors(step) } else { 0 };
                    rows::lower(plan, steps, *joins, !waits.is_empty(), &mut self)?;
                }
                Part::Rest { params, .. } => {
                    let rest = step.kernel.update().expect("the rest of an update").only(params);
                    rest.lower(&mut self)?;
                    bytes = rest.bytes();
                }
            }
            bytes = bytes.saturating_sub(self.unused_bytes(part));
            let own = self.out.launches.len() - first;
            // The launches of an update are of different parameters; those of another step come one after the other.
            let apart = plan.steps[part.steps()[0]].kernel.update().is_some();
            for launch in first..first + own {
                let placed = &mut self.out.launches[launch];
                placed.part = Some(number);
                placed.load.bytes += bytes as f64 / own as f64;
                placed.waits = if apart { waits.clone() } else { std::mem::replace(&mut waits, vec![launch]) };
            }
            ends.push(if apart && own > 0 { (first..first + own).collect() } else { waits });
        }
        if self.places.position != RunPosition::Before {
            self.end_step()?;
        }
        let figures = figures(self.compute_capability());
        for launch in longest_way(&self.out.launches, &figures, 1).1 {
            self.out.launches[launch].urgent = true;
        }
        Ok(self.out)
    }

    /// Of the bytes of a part's steps those of partial sums for which there is room, but which no block makes here.
    fn unused_bytes(&self, part: &Part) -> u64 {
        let steps = if matches!(part, Part::Step(_) | Part::Rows { .. }) { part.steps() } else { Vec::new() };
        let kernels = steps.iter().map(|&step| &self.plan.steps[step].kernel);
        let views = kernels.flat_map(|kernel| [kernel.reads(), kernel.writes()].concat());
        let unused = |view: View| {
            let made = self.partials.get(&(view.mem, view.offset)).copied();
            made.map_or(0, |made| 4 * view.size().saturating_sub(made) as u64)
        };
        views.map(unused).sum()
    }

    /// What nothing waits for ends the step together, if all of it can; otherwise a launch that does nothing else, after it.
    fn end_step(&mut self) -> Result<()> {
        let last = last(&self.out.launches);
        let blocks: u64 = last.iter().map(|&i| self.out.launches[i].load.blocks).sum();
        let fields: Option<Vec<usize>> = last.iter().map(|i| self.ends.get(i).copied()).collect();
        let (Some(fields), Ok(blocks), false) = (fields, u32::try_from(blocks), last.is_empty()) else {
            self.steps.clear();
            let launch = self.launch("tick", [1, 1, 1], 1, 0, &TickParams { ctl: self.clock.ctl })?;
            self.out.launches[launch].waits = last;
            return Ok(());
        };
        for (launch, field) in last.into_iter().zip(fields) {
            let end = words(&StepEnd { ticket: self.places.ticket.wrapping_sub(self.places.back), blocks, pad: 0 });
            let at = field / size_of::<u64>();
            self.out.launches[launch].launch.params[at..at + end.len()].copy_from_slice(&end);
            self.out.launches[launch].ends_step = Some(at + offset_of!(StepEnd, blocks) / size_of::<u64>());
        }
        Ok(())
    }

    /// How the parameter is updated whose gradient is made in `gradient`, if the launch that comes next is to do that.
    pub fn updates(&self, gradient: &View) -> Option<(RuleParams, ParamPlaces)> {
        let update = self.update?;
        let (slot, _) = update.params.iter().find(|(_, of)| of.is_same_memory(gradient))?;
        Some((update.by(), self.param(*slot)))
    }

    /// Says that launch number `launch` can end the step of the run: that its parameters have a [`StepEnd`] so many bytes from
    /// their begin.
    pub fn can_end_step(&mut self, launch: usize, field: usize) {
        self.ends.insert(launch, field);
    }

    /// Adds a launch; returns its number.
    pub fn launch<P: Pod>(
        &mut self,
        kernel: &'static str,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        params: &P,
    ) -> Result<usize> {
        // The limit of the second and third dimension. Rows would have to be counted in millions.
        assert!(grid[1] <= 65_535 && grid[2] <= 65_535, "{kernel} over a grid of {grid:?} blocks");
        let function = match self.gpu {
            Chip::There(driver) => {
                let function = driver.function(kernel)?;
                driver.allow_shared(function, shared)?;
                function
            }
            Chip::Paper(_) => DeviceKernel::none(),
        };
        let launch = Launch { function, kernel, grid, threads, shared, params: words(params) };
        let load = Load { blocks: grid.map(u64::from).iter().product(), ..Load::default() };
        self.out.launches.push(Placed {
            launch,
            steps: self.steps.clone(),
            part: None,
            waits: Vec::new(),
            urgent: false,
            ends_step: None,
            load,
        });
        Ok(self.out.launches.len() - 1)
    }

    /// Says how long the product of launch number `launch` takes, in cycles of the busiest multiprocessor, and how many more it waits
    /// for other blocks.
    pub fn multiplies(&mut self, launch: usize, cycles: f64, latency: f64) {
        let load = &mut self.out.launches[launch].load;
        (load.cycles, load.latency) = (cycles, latency);
    }

    /// Says for how many of its cycles the busiest multiprocessor has the second-level cache at work.
    pub fn keeps_cache_busy(&mut self, launch: usize, cycles: f64) {
        self.out.launches[launch].load.cache = cycles;
    }

    /// Says that launch number `launch` reads what its steps read and `bytes` more, in other blocks.
    pub fn moves(&mut self, launch: usize, bytes: f64) {
        self.out.launches[launch].load.bytes += bytes;
    }

    /// Says that launch number `launch` reads `bytes` more, in all blocks, before it waits.
    pub fn moves_ahead(&mut self, launch: usize, bytes: f64) {
        self.out.launches[launch].load.ahead += bytes;
    }

    /// Says that launch number `launch` runs `program`, after what it is said to run already: compiled if it is one of those
    /// and the kernel has them.
    pub fn runs(&mut self, launch: usize, program: &Program, has_compiled: bool) {
        let count = program.uniform.len() + program.body.len();
        let load = &mut self.out.launches[launch].load;
        match has_compiled && compiled::number(program) != 0 {
            true => load.compiled += count,
            false => load.interpreted += count,
        }
    }

    /// Says that launch number `launch` reads the data set `slot`, in rows of `cols` numbers: when the data are found, `fill`
    /// writes them into its parameters, with the address at byte `field`.
    pub fn reads_data<P: Pod>(
        &mut self,
        launch: usize,
        slot: Slot,
        cols: usize,
        field: usize,
        fill: impl Fn(&DeviceData, &mut P) + 'static,
    ) {
        let fill = Box::new(move |data: &DeviceData, all: &mut Box<[u64]>| {
            let mut params: P = params::of_words(all);
            fill(data, &mut params);
            *all = words(&params);
        });
        self.out.data.push(DataLaunch { slot: self.name(slot).into(), cols, launch, field, fill });
    }

    /// Says that launch number `launch` splits a sum over blocks, of which the last adds the splits up: in a workspace of so many
    /// `floats`, with so many counters, whose addresses its parameters have so many bytes from their begin.
    pub fn shares_sums(&mut self, launch: usize, floats: usize, tickets: usize, fields: [usize; 2]) {
        let [numbers, counters] = fields.map(|byte| Field { launch, byte });
        self.out.workspaces.push(Workspace { floats, tickets, numbers: vec![numbers], counters: Some(counters) });
    }

    /// Whether the product that is lowered leaves the splits of its k to another launch.
    pub fn leaves_splits(&self) -> bool {
        self.leaves_splits
    }

    /// Says that launch number `launch` writes so many `floats` of sums, of all splits, for another launch to add up, to the
    /// address that its parameters have at byte `byte`.
    pub fn writes_splits(&mut self, launch: usize, floats: usize, byte: usize) {
        self.splits.insert(self.steps[0], self.out.workspaces.len());
        let numbers = vec![Field { launch, byte }];
        self.out.workspaces.push(Workspace { floats, tickets: 0, numbers, counters: None });
        self.moves(launch, 4.0 * floats as f64);
    }

    /// Says that launch number `launch` adds up what `step` has left, from the address at byte `byte` of its parameters.
    pub fn reads_splits(&mut self, launch: usize, step: usize, byte: usize) {
        let sums = self.splits[&step];
        self.reads_workspace(launch, sums, byte);
    }

    /// Says that launch number `launch` reads the plane of a factor, from the address at byte `byte` of its parameters.
    pub fn reads_plane(&mut self, launch: usize, of: &View, byte: usize) {
        let is = |plane: &&MadePlane| plane.of == *of && plane.readers.contains(&self.steps[0]);
        let plane = self.planes.iter().find(is).expect("planes are made before they are read").workspace;
        self.reads_workspace(launch, plane, byte);
    }

    fn reads_workspace(&mut self, launch: usize, number: usize, byte: usize) {
        let workspace = &mut self.out.workspaces[number];
        workspace.numbers.push(Field { launch, byte });
        let floats = workspace.floats;
        self.moves(launch, 4.0 * floats as f64);
    }

    /// The launch that makes the plane of a factor.
    fn make_plane(&mut self, of: View, readers: Vec<usize>) -> Result<()> {
        let pitch = plane_pitch(&of);
        let params = MakePlanesParams {
            from: self.address(&of),
            to: 0,
            rows: of.rows as i32,
            cols: of.cols as i32,
            ld: of.stride as i32,
            pitch: pitch as i32,
            planes: 1,
            pad: 0,
        };
        let launch = self.launch(MAKE_PLANES, [plane_blocks(of.rows, pitch), 1, 1], THREADS, 0, &params)?;
        self.writes_plane(launch, of, readers, offset_of!(MakePlanesParams, to));
        Ok(())
    }

    /// Says that launch number `launch` can write what it stores as a plane too, to the address at byte `byte` of its parameters: it
    /// does, where others take it so.
    pub fn leaves_plane(&mut self, launch: usize, byte: usize) {
        let wanted: Vec<WantedPlane> =
            self.wanted.iter().filter(|plane| plane.maker == self.steps[0]).cloned().collect();
        for plane in wanted {
            self.writes_plane(launch, plane.of, plane.readers, byte);
        }
    }

    fn writes_plane(&mut self, launch: usize, of: View, readers: Vec<usize>, byte: usize) {
        let (floats, numbers) = (of.rows * plane_pitch(&of) / 2, vec![Field { launch, byte }]);
        self.moves(launch, 4.0 * floats as f64);
        self.planes.push(MadePlane { of, readers, workspace: self.out.workspaces.len() });
        self.out.workspaces.push(Workspace { floats, tickets: 0, numbers, counters: None });
    }

    /// Says that a kernel looks something up; gives the number by which it tells of a bad one.
    /// Of those that read the same indices, as an operation and its gradient do, all tell of the one made first.
    pub fn checks_indices(&mut self, lookup: Lookup) -> u32 {
        let same = |known: &Lookup| (known.indices, known.below) == (lookup.indices, lookup.below);
        let lookups = &mut self.out.lookups;
        let number = lookups.iter().position(same).unwrap_or(lookups.len());
        match lookups.get_mut(number) {
            Some(known) if known.node <= lookup.node => {}
            Some(known) => *known = lookup,
            None => lookups.push(lookup),
        }
        number as u32 + 1
    }

    /// Major and minor version of what the GPU can do.
    pub fn compute_capability(&self) -> (u32, u32) {
        match self.gpu {
            Chip::There(driver) => driver.capability(),
            Chip::Paper(cc) => cc,
        }
    }

    /// Where a view's first element is.
    pub fn address(&self, view: &View) -> Address {
        let base = match view.mem {
            Mem::Buffer(b) => self.buffer(b as usize, self.places.position == RunPosition::Odd),
            Mem::Slot(slot) => match (self.places.cells.get(&slot), &self.places.slots) {
                (Some(&cell), _) => cell,
                (None, Slots::At(memory)) => memory.address(self.name(slot)),
                (None, Slots::Nowhere) => self.place_in_order(slot),
            },
            Mem::Tensor(t) => self.places.tensors[t as usize],
        };
        (base + 4 * view.offset as Address).wrapping_sub(self.places.back)
    }

    /// Where a buffer is, in steps with an odd number or in others.
    fn buffer(&self, buffer: usize, odd: bool) -> Address {
        match self.places.twins.get(&buffer) {
            Some(&twin) if odd => twin,
            _ => self.places.arena + 4 * self.plan.buffers[buffer].offset as Address,
        }
    }

    /// Where a batch is gathered, and whether it is that of the next step.
    pub fn gathered(&self, out: &View) -> (params::View, bool) {
        let view = self.view(out);
        match out.mem {
            Mem::Buffer(b) if self.next => {
                let base = self.buffer(b as usize, self.places.position == RunPosition::Even);
                let ptr = (base + 4 * out.offset as Address).wrapping_sub(self.places.back);
                (params::View { ptr, ..view }, self.places.position != RunPosition::Before)
            }
            _ => (view, false),
        }
    }

    /// A view as the kernels take it.
    pub fn view(&self, view: &View) -> params::View {
        let (rows, cols, stride) = (view.rows as i32, view.cols as i32, view.stride as i32);
        params::View { ptr: self.address(view), rows, cols, stride, pad: 0 }
    }

    /// Where a parameter and its moments are.
    pub fn param(&self, slot: Slot) -> ParamPlaces {
        match &self.places.slots {
            Slots::At(memory) => {
                let ParamPlaces { p, m, v } = memory.param(self.name(slot));
                let [p, m, v] = [p, m, v].map(|at| at.wrapping_sub(self.places.back));
                ParamPlaces { p, m, v }
            }
            Slots::Nowhere => {
                let p = self.place_in_order(slot);
                ParamPlaces { p, m: p, v: p }
            }
        }
    }

    fn place_in_order(&self, slot: Slot) -> Address {
        self.plan.slots[..slot.index()].iter().map(|slot| 4 * slot.shape.size() as Address).sum()
    }

    /// Where the running sum of a metric is.
    pub fn running_sum(&self, number: usize) -> Address {
        (self.places.sums + 8 * number as Address).wrapping_sub(self.places.back)
    }

    fn name(&self, slot: Slot) -> &str {
        &self.plan.slots[slot.index()].name
    }

    /// A program with addresses. `blocks` is the number of blocks that each leave a partial sum.
    pub fn program(&mut self, program: &Program, blocks: usize) -> Result<params::Program> {
        for output in &program.outputs {
            if let Output::Sum { partials, .. } = output {
                assert!(blocks <= partials.cols, "{blocks} blocks, room for {} partial sums", partials.cols);
                self.partials.insert((partials.mem, partials.offset), blocks);
            }
        }
        let mut encoded = program::encode(program, |view| self.address(view))?;
        encoded.compiled = compiled::number(program);
        Ok(encoded)
    }

    /// How many partial sums a program has left in a view.
    pub fn partial_sums(&self, partials: &View) -> usize {
        self.partials.get(&(partials.mem, partials.offset)).copied().unwrap_or(partials.cols)
    }
}

/// What is in any of the lists, in order.
fn union<'a>(lists: impl Iterator<Item = &'a [usize]>) -> Vec<usize> {
    let all: BTreeSet<usize> = lists.flatten().copied().collect();
    all.into_iter().collect()
}

/// When each launch begins and ends, in microseconds, with so many models, as [`figures`](super::figures) says; and the launch
/// that lets it begin.
pub(super) fn times(launches: &[Placed], figures: &Figures, models: usize) -> Vec<(f64, f64, Option<usize>)> {
    let mut times: Vec<(f64, f64, Option<usize>)> = Vec::with_capacity(launches.len());
    for placed in launches {
        let load = placed.load.of_models(models, figures);
        let latest = placed.waits.iter().copied().max_by(|&a, &b| times[a].1.total_cmp(&times[b].1));
        let begin = latest.map_or(0.0, |i| times[i].1) + figures.edge.value;
        // What is read ahead comes when the last blocks of those it waits for have begun, and through a cache that these use as well.
        let free = |&i: &usize| {
            let (begin, end, _) = times[i];
            let before = launches[i].load.of_models(models, figures);
            let turns = before.turns(figures);
            begin + (end - begin) * (1.0 - 1.0 / turns) + before.cache_microseconds(figures) / turns
        };
        let ahead = placed.waits.iter().map(free).fold(0.0, f64::max) + load.ahead_microseconds(figures);
        let begin = if load.ahead > 0.0 { begin.max(ahead) } else { begin };
        times.push((begin, begin + load.microseconds(figures), latest));
    }
    times
}

/// The longest way through the launches for so many models, in microseconds, and the launches on it.
pub(crate) fn longest_way(launches: &[Placed], figures: &Figures, models: usize) -> (f64, Vec<usize>) {
    let times = times(launches, figures, models);
    let mut at = (0..times.len()).max_by(|&a, &b| times[a].1.total_cmp(&times[b].1));
    let total = at.map_or(0.0, |i| times[i].1);
    let mut way = Vec::new();
    while let Some(launch) = at {
        way.push(launch);
        at = times[launch].2;
    }
    way.reverse();
    (total, way)
}

/// A plan that the kernels' fixed-size parameters have no room for.
pub(super) fn too_large(what: &str, found: usize, most: usize) -> Error {
    Error::Device {
        device: "cuda".into(),
        reason: format!("a fused program has {found} {what}, the kernels' parameters have room for {most}"),
        remedy: Choice::Cpu.remedy("use the CPU, or split the expression by storing an intermediate value"),
    }
}
