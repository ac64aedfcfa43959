//! From a plan's steps to launches: which kernel, over which grid, with which parameters.
//!
//! Grids depend on shapes alone, never on the number of multiprocessors: with the same kernels the same sums are made in
//! the same order on every GPU. The formulas stand at the head of each kernel file under "Launch:".

use std::collections::HashMap;

use super::driver::{Address, Driver, Launch, Pod};
use super::memory::{DeviceData, DeviceMemory, ParamAddresses};
use super::params::{self, Clock, TickParams, words};
use super::probe::Version;
use super::program;
use crate::engine::device::Precision;
use crate::engine::error::{Choice, Error, Result};
use crate::engine::graph::Slot;
use crate::engine::ops::layout::Lookup;
use crate::engine::plan::program::{Output, Program};
use crate::engine::plan::{Mem, Plan, View};

/// A launch with its place in the plan.
pub(crate) struct Placed {
    pub launch: Launch,
    /// The step it belongs to, and that step's wave.
    pub step: usize,
    pub wave: usize,
}

/// The words of a launch's parameters, given the data set it reads.
type Parameters = Box<dyn Fn(&DeviceData) -> Box<[u64]>>;

/// A launch that reads a data set, whose address is only known when the plan runs.
pub(crate) struct DataLaunch {
    pub slot: String,
    pub cols: usize,
    pub launch: usize,
    params: Parameters,
}

impl DataLaunch {
    /// The launch's parameters for a data set.
    pub fn params(&self, data: &DeviceData) -> Box<[u64]> {
        (self.params)(data)
    }
}

/// The plan as launches.
pub(crate) struct Lowered {
    pub launches: Vec<Placed>,
    pub data: Vec<DataLaunch>,
    /// The operations that look something up.
    pub lookups: Vec<Lookup>,
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

/// Where a plan's memory is.
pub(crate) struct Places<'a> {
    pub arena: Address,
    /// Of the constant arrays.
    pub tensors: &'a [Address],
    /// Of inputs and outputs.
    pub cells: &'a HashMap<Slot, Address>,
    /// The running sums (f64).
    pub sums: Address,
    /// A counter for the kernel that ends the step.
    pub ticket: Address,
    pub clock: Clock,
    /// Parameters and buffers; none where the launches are made only to see that they can be.
    pub memory: Option<&'a DeviceMemory>,
}

/// Lowers a plan whose buffers and slots have addresses: what a [`Kernel`](crate::engine::steps::Kernel) hands its
/// launches to.
pub(crate) struct Lower<'a> {
    driver: &'a Driver,
    pub precision: Precision,
    plan: &'a Plan,
    places: Places<'a>,
    pub clock: Clock,
    /// A counter for the kernel that ends the step.
    pub ticket: Address,
    /// The step that is being lowered, and its wave.
    step: usize,
    wave: usize,
    end: End,
    out: Lowered,
    /// How many partial sums the launch that writes them leaves behind.
    partials: HashMap<(Mem, usize), usize>,
}

/// Who ends the step of the run, which moves the clock on.
#[derive(PartialEq)]
enum End {
    /// Not this kernel.
    Later,
    /// The last kernel, if it knows how.
    Offered,
    /// A kernel does.
    Taken,
}

impl<'a> Lower<'a> {
    pub fn new(driver: &'a Driver, precision: Precision, plan: &'a Plan, places: Places<'a>) -> Lower<'a> {
        let out = Lowered { launches: Vec::new(), data: Vec::new(), lookups: Vec::new(), shared_sums: Vec::new() };
        let (step, wave, end, partials) = (0, 0, End::Later, HashMap::new());
        let (clock, ticket) = (places.clock, places.ticket);
        Lower { driver, precision, plan, places, clock, ticket, step, wave, end, out, partials }
    }

    /// All steps, and at the end whatever ticks the clock.
    pub fn run(mut self) -> Result<Lowered> {
        let steps = &self.plan.steps;
        for (number, step) in steps.iter().enumerate() {
            let last = number + 1 == steps.len();
            let alone = number == 0 || steps[number - 1].wave < step.wave;
            (self.step, self.wave) = (number, step.wave);
            self.end = if last && alone { End::Offered } else { End::Later };
            step.kernel.lower(&mut self)?;
        }
        if self.end != End::Taken {
            (self.step, self.wave) = (steps.len(), self.plan.waves);
            self.launch("tick", [1, 1, 1], 1, 0, &TickParams { ctl: self.clock.ctl })?;
        }
        Ok(self.out)
    }

    /// Whether the launch that comes next, the kernel's last one, is the one that ends the step of the run.
    pub fn ends_step(&mut self) -> bool {
        if self.end == End::Offered {
            self.end = End::Taken;
        }
        self.end == End::Taken
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
        let function = self.driver.function(kernel)?;
        self.driver.allow_shared(function, shared)?;
        let launch = Launch { function, kernel, grid, threads, shared, params: words(params) };
        self.out.launches.push(Placed { launch, step: self.step, wave: self.wave });
        Ok(self.out.launches.len() - 1)
    }

    /// Says that launch number `launch` reads the data set `slot`, in rows of `cols` numbers: its parameters when the data
    /// are found are `params` of them.
    pub fn reads_data<P: Pod>(
        &mut self,
        launch: usize,
        slot: Slot,
        cols: usize,
        params: impl Fn(&DeviceData) -> P + 'static,
    ) {
        let params = Box::new(move |data: &DeviceData| words(&params(data)));
        self.out.data.push(DataLaunch { slot: self.name(slot).into(), cols, launch, params });
    }

    /// Says that launch number `launch` splits a sum over blocks. See [`SharedSum`].
    pub fn shares_sums(&mut self, launch: usize, floats: usize, tickets: usize, fields: [usize; 2]) {
        self.out.shared_sums.push(SharedSum { launch, floats, tickets, fields });
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
        let Version(major, minor) = self.driver.gpu.compute_capability;
        (major, minor)
    }

    /// Where a view's first element is.
    pub fn address(&self, view: &View) -> Address {
        let base = match view.mem {
            Mem::Buffer(b) => self.places.arena + 4 * self.plan.buffers[b as usize].offset as Address,
            Mem::Slot(slot) => match (self.places.cells.get(&slot), self.places.memory) {
                (Some(&cell), _) => cell,
                (None, Some(memory)) => memory.address(self.name(slot)),
                (None, None) => 0,
            },
            Mem::Tensor(t) => self.places.tensors[t as usize],
        };
        base + 4 * view.offset as Address
    }

    /// A view as the kernels take it.
    pub fn view(&self, view: &View) -> params::View {
        let (rows, cols, stride) = (view.rows as i32, view.cols as i32, view.stride as i32);
        params::View { ptr: self.address(view), rows, cols, stride, pad: 0 }
    }

    /// Where a parameter and its moments are.
    pub fn param(&self, slot: Slot) -> ParamAddresses {
        let nowhere = ParamAddresses { p: 0, m: 0, v: 0 };
        self.places.memory.map_or(nowhere, |memory| memory.param(self.name(slot)))
    }

    /// Where the running sum of a metric is.
    pub fn running_sum(&self, number: usize) -> Address {
        self.places.sums + 8 * number as Address
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
        program::encode(program, |view| self.address(view))
    }

    /// How many partial sums a program has left in a view.
    pub fn partial_sums(&self, partials: &View) -> usize {
        self.partials.get(&(partials.mem, partials.offset)).copied().unwrap_or(partials.cols)
    }
}

/// A plan that the kernels' fixed-size parameters have no room for.
pub(super) fn too_large(what: &str, found: usize, most: usize) -> Error {
    Error::Device {
        device: "cuda".into(),
        reason: format!("a fused program has {found} {what}, the kernels' parameters have room for {most}"),
        remedy: Choice::Cpu.remedy("use the CPU, or split the expression by storing an intermediate value"),
    }
}
