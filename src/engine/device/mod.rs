//! Executors: graphs compiled into functions, and the memory they work on.
//!
//! ```text
//! Device ─ open ─► Executor ─ state(params, seed) ──► State     parameters with their moments, buffers, data sets
//!                     │                                 │
//!                     └── compile(graph, outputs) ─► Function ─ call(state, key, inputs) ─► outputs
//! ```
//!
//! Three back ends stand behind it: [`Interp`](crate::engine::interp::Interp) node by node in f64 or f32, [`Cpu`], and
//! `cuda::Cuda`. A function belongs to the executor that compiled it, and works with any state of that executor (on the CPU,
//! with one of any executor of the CPU: the memory is the same):
//! its own memory (scratch, inputs, outputs, running sums) goes when it is dropped. Nothing of a run is kept in an
//! executor: the key, the rows and the schedules are arguments of a call, and the number of updates made belongs to the
//! state that was updated.

pub mod call;
pub mod cpu;
pub mod cuda;
pub(crate) mod data;
mod ensemble;
mod function;
pub(crate) mod memory;
pub(crate) mod room;
mod state;
mod team;

use std::any::Any;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

pub use call::{Call, Key, Rows, Schedule};
pub use ensemble::{Ensemble, Sharing};
pub use function::{Array, Function, Layout, Many, Outputs};
#[cfg(feature = "vae")]
pub(crate) use state::ArrayKind;
pub use state::State;

use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Slot, Var};
use crate::engine::interp::Interpreter;
use crate::engine::isa::Isa;
use crate::engine::params::Params;
use crate::engine::plan::{Fusion, Plan};
use crate::engine::steps::gemm::tiles::Tiles;
use cpu::Cpu;

/// Which of a parameter's arrays is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The parameter itself.
    Value,
    /// The running mean of its gradient (or the momentum).
    First,
    /// The running mean of its squared gradient.
    Second,
}

/// The running sums of a function at one moment of a run, and where the run stood.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// The position in the epoch that the run had come to.
    pub cursor: u32,
    /// The number of updates made.
    pub updates: u64,
    /// The sums of the outputs of shape `[]`, in their order.
    pub totals: Vec<f64>,
}

/// The numbers of a data set.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Bytes, read as 0 … 255.
    Bytes(&'a [u8]),
    /// Floats.
    Floats(&'a [f32]),
}

impl Values<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Values::Bytes(b) => b.len(),
            Values::Floats(f) => f.len(),
        }
    }
}

macro_rules! values_from {
    ($($Element:ty => $Kind:ident),*) => {$(
        impl<'a> From<&'a [$Element]> for Values<'a> {
            fn from(numbers: &'a [$Element]) -> Values<'a> {
                Values::$Kind(numbers)
            }
        }

        impl<'a> From<&'a Vec<$Element>> for Values<'a> {
            fn from(numbers: &'a Vec<$Element>) -> Values<'a> {
                Values::$Kind(numbers)
            }
        }

        impl<'a, const N: usize> From<&'a [$Element; N]> for Values<'a> {
            fn from(numbers: &'a [$Element; N]) -> Values<'a> {
                Values::$Kind(numbers)
            }
        }
    )*};
}

values_from!(u8 => Bytes, f32 => Floats);

/// A number that no other memory of this process has.
pub(crate) fn fresh_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What stands behind an [`Executor`].
///
/// Equal arguments give equal bits on one back end, however often and in whatever portions it is run.
pub trait Backend {
    /// Device and how it is used, for people: `cpu (avx512, threads: 2)`.
    fn describe(&self) -> String;

    /// How many steps one [run](CompiledFunction::run) should make, if nobody needs to look in between: enough that the
    /// cost of starting does not count, few enough that a call lasts no longer than a blink.
    fn steps_per_call(&self) -> usize;

    /// The GPU behind it, if it is one.
    #[cfg(feature = "cuda")]
    fn gpu(&self) -> Option<&cuda::Cuda> {
        None
    }

    /// How many rows of independent work one step should have, where that can be chosen: enough to fill the device.
    fn rows_per_step(&self) -> usize;

    /// Memory for `params`, at zero.
    ///
    /// # Errors
    /// [`Error::Device`] with the sizes and the remedy when there is not enough.
    fn memory(&self, params: &Params) -> Result<Box<dyn Memory>>;

    /// Compiles a graph whose outputs are marked.
    ///
    /// # Errors
    /// [`Error::Argument`] when it has no effect; [`Error::Device`] when there is not enough memory, or a kernel has no
    /// room for it.
    fn compile(&self, graph: &Graph, fusion: Fusion) -> Result<Box<dyn CompiledFunction>>;
}

/// A back end's memory of parameters, buffers and data sets.
pub trait Memory {
    /// Reads a parameter, a moment of it, or a buffer, row-major.
    ///
    /// # Errors
    /// [`Error::Slot`] when there is none of this name.
    fn read(&self, name: &str, moment: Moment) -> Result<Vec<f32>>;

    /// Writes one.
    ///
    /// # Errors
    /// [`Error::Slot`] when there is none of this name or its size differs.
    fn write(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()>;

    /// Loads a data set in rows of `columns` numbers, replacing what was there.
    ///
    /// # Errors
    /// [`Error::Slot`] when the numbers are not whole rows; [`Error::Device`] when there is no room.
    fn load(&mut self, name: &str, values: Values<'_>, columns: usize) -> Result<()>;

    /// For the back end itself, to find its own type.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// A back end's compiled function.
pub trait CompiledFunction {
    /// Makes the steps of `call` after `updates` updates.
    ///
    /// # Errors
    /// [`Error::Slot`] when the memory lacks an array or a data set, or when the rows would run over the end of one;
    /// [`Error::Index`], after all steps; [`Error::Argument`] when a schedule is missing, the steps cannot be counted,
    /// or the memory is another back end's or another GPU executor's.
    fn run(&mut self, memory: &mut dyn Memory, call: &Call<'_>, updates: u64) -> Result<()>;

    /// Writes an input.
    ///
    /// # Errors
    /// [`Error::Slot`] when the size differs.
    fn write(&mut self, cell: Slot, values: &[f32]) -> Result<()>;

    /// Reads an output as the last step left it.
    ///
    /// # Errors
    /// From the device.
    fn read(&self, cell: Slot) -> Result<Vec<f32>>;

    /// Starts the running sums from given values: a sum that goes on in another function, or in a resumed run, then makes
    /// its additions in the same order as if it had never been interrupted.
    ///
    /// # Errors
    /// From the device.
    fn set_totals(&mut self, totals: &[f64]) -> Result<()>;

    /// Asks for the running sums as they are after everything that was run, leaves them as they are, and returns the
    /// newest that are known without waiting: on the CPU these; on a GPU, which may still be at work on them, usually those
    /// of an earlier call, and none before the first have come. A caller that asks after every run stays at most two runs
    /// ahead of the device: with two answers under way, a call waits for the older one.
    ///
    /// # Errors
    /// What went wrong on the device, as far as it is known.
    fn peek_totals(&mut self) -> Result<Option<Snapshot>>;

    /// The running sums since they were last taken, after everything that was run. They start again from 0.
    ///
    /// # Errors
    /// From the device.
    fn take_totals(&mut self) -> Result<Vec<f64>>;

    /// The address on a GPU of an input or output, for what works on it there; none elsewhere.
    fn address(&self, cell: Slot) -> Option<u64> {
        let _ = cell;
        None
    }

    /// Waits until everything that was asked for is done. [`CompiledFunction::run`] may return before; whatever reads a
    /// result waits by itself.
    ///
    /// # Errors
    /// What went wrong meanwhile.
    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }

    /// The plan that is run, where there is one.
    fn plan(&self) -> Option<&Plan> {
        None
    }

    /// The shortest time in seconds that each step of the [plan](CompiledFunction::plan) took, one after the other, over
    /// `repetitions` whole passes; on the CPU on one thread. The steps run for real: parameters change as in as many runs
    /// (on a GPU each step sixteen times as often). Where a GPU makes several steps by one launch, the first of them has all
    /// of its time and the others have 0. Empty without a plan.
    ///
    /// # Errors
    /// As [`CompiledFunction::run`].
    fn time_steps(
        &mut self,
        memory: &mut dyn Memory,
        call: &Call<'_>,
        updates: u64,
        repetitions: usize,
    ) -> Result<Vec<f64>> {
        let _ = (memory, call, updates, repetitions);
        Ok(Vec::new())
    }
}

/// An opened device: compiles functions and makes states. A handle that is copied freely.
#[derive(Clone)]
pub struct Executor(Rc<dyn Backend>);

impl Executor {
    /// An executor on a back end.
    pub fn new(backend: impl Backend + 'static) -> Executor {
        Executor(Rc::new(backend))
    }

    /// The reference: every node by its definition, in f64.
    pub fn reference() -> Executor {
        Executor::new(Interpreter::<f64>::default())
    }

    /// Device and how it is used, for people.
    pub fn describe(&self) -> String {
        self.0.describe()
    }

    /// See [`Backend::steps_per_call`].
    pub fn steps_per_call(&self) -> usize {
        self.0.steps_per_call()
    }

    /// See [`Backend::gpu`].
    #[cfg(feature = "cuda")]
    pub fn gpu(&self) -> Option<&cuda::Cuda> {
        self.0.gpu()
    }

    /// See [`Backend::rows_per_step`].
    pub fn rows_per_step(&self) -> usize {
        self.0.rows_per_step()
    }

    /// Memory for `params` at their initial values, which are a pure function of `seed`; moments are zero.
    ///
    /// # Errors
    /// As [`Backend::memory`].
    pub fn state(&self, params: &Params, seed: u64) -> Result<State> {
        let mut state = State::new(self.0.memory(params)?, params.clone());
        for param in params.iter() {
            state.write(&param.name, &(param.initial)(seed))?;
        }
        Ok(state)
    }

    /// Compiles a graph into the function of its [inputs](Graph::input) that gives `outputs`: an array of values, or a
    /// `Vec` of them.
    ///
    /// An output of shape `[]` is added up over the steps of a run, in f64 and in the order of the steps; any other is its
    /// value after the last step.
    ///
    /// # Panics
    /// When an output is a value of another graph.
    ///
    /// # Errors
    /// As [`Backend::compile`].
    #[track_caller]
    pub fn compile<'g, O: Outputs<'g>>(&self, graph: &'g Graph, outputs: O) -> Result<Function<O::Layout>> {
        self.compile_with(graph, outputs, Fusion::all())
    }

    /// As [`Executor::compile`], with a choice of fusion rules.
    ///
    /// # Errors
    /// As [`Backend::compile`].
    #[track_caller]
    pub fn compile_with<'g, O: Outputs<'g>>(
        &self,
        graph: &'g Graph,
        outputs: O,
        fusion: Fusion,
    ) -> Result<Function<O::Layout>> {
        let vars: Vec<Var<'g>> = outputs.vars();
        let traced = graph.with_outputs(&vars);
        let compiled = self.0.compile(&traced, fusion)?;
        Ok(Function::new(self.clone(), compiled, &traced))
    }
}

/// How exactly matrix products are computed on tensor cores of a GPU or on [tiles](crate::engine::steps::gemm::tiles)
/// of the CPU (AMX). Everything else is f32; parameters and moments are f32 always, and so are the sums.
///
/// Infinities and NaN go through products as in f32 with every precision: ∞ · b = ±∞, ∞ · 0 and ∞ − ∞ = NaN. What a cut
/// or rounded factor cannot hold: from 3.396e38 on (the largest f32 is 3.40e38) it is taken for an infinity by bf16 and
/// everything made of it, and so may be a product from 3.37e38 on. And small parts are lost:
///
/// | | lost | [`F32`](Precision::F32) on tensor cores or tiles is as accurate as f32 | [`Bf16x3`](Precision::Bf16x3) is as accurate as stated |
/// |---|---|---|---|
/// | GPU | parts below 1e-40 | for factors from 8e-34 on | from 6e-36 on |
/// | CPU | parts, products and sums below 1.2e-38 | for factors from 1e-31 on | from 8e-34 on |
///
/// A factor below 5e-41 (GPU) or 1.2e-38 (CPU) counts as 0 in all of them but TF32, and but for f32 without tensor
/// cores or tiles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Precision {
    /// As accurate as f32: in f32, or, in products of 2²⁸ multiply-adds and more on GPUs where that is faster, and in
    /// those of depth 32 and more on tiles where they are asked for, with every factor cut into three bf16 (six
    /// products).
    #[default]
    F32,
    /// Factors rounded to TF32, 10 bits after the point: relative error about 5e-4. On GPUs alone.
    Tf32,
    /// Factors cut into two bf16, three products: relative error about 2e-5.
    Bf16x3,
    /// Factors rounded to bf16, 7 bits after the point: relative error about 4e-3.
    Bf16,
}

impl Precision {
    /// Every precision, most exact first.
    pub const ALL: &'static [Precision] = &[Precision::F32, Precision::Bf16x3, Precision::Tf32, Precision::Bf16];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16x3 => "bf16x3",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Precision, String> {
        let known = Precision::ALL.iter().find(|p| p.to_string() == name).copied();
        known.ok_or_else(|| format!("\"{name}\" is no precision; f32, bf16x3, tf32 and bf16 are known"))
    }
}

/// Which executor is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// The CPU with this many threads; 0 means one per core. The numbers do not depend on it.
    Cpu {
        /// Threads.
        threads: usize,
    },
    /// The CPU, its matrix products on its tile unit ([`Tiles::new`]).
    Tiles {
        /// As above.
        threads: usize,
        /// Of the matrix products: any but TF32.
        precision: Precision,
    },
    /// A GPU.
    Cuda {
        /// Its number, from 0.
        ordinal: usize,
        /// Of the matrix products.
        precision: Precision,
    },
}

impl Device {
    /// Starts the executor.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason why it cannot be used, and the remedy.
    pub fn open(self) -> Result<Executor> {
        match self {
            Device::Cpu { threads } => Ok(Executor::new(Cpu::new(threads))),
            Device::Tiles { threads, precision } => {
                let tiles = Tiles::new(precision)?;
                Ok(Executor::new(Cpu::with_isa(threads, Isa::detect()).on_tiles(tiles)))
            }
            #[cfg(feature = "cuda")]
            Device::Cuda { ordinal, precision } => Ok(Executor::new(cuda::Cuda::open(ordinal, precision)?)),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda { ordinal, .. } => Err(cuda::probe::NoCuda::NotBuilt.of(&format!("cuda:{ordinal}"))),
        }
    }

    /// The first GPU if there is one that can be used, with products as exact as f32; the CPU otherwise.
    /// [`cuda::automatic`] says why there is none.
    pub fn auto() -> Device {
        match cuda::automatic() {
            Ok(gpu) => Device::Cuda { ordinal: gpu.ordinal, precision: Precision::F32 },
            Err(_) => Device::Cpu { threads: 0 },
        }
    }
}

/// Refuses more steps in one run than can be counted: what a step counts with has 32 bits, and more of them would take days.
pub(crate) fn check_steps(steps: usize) -> Result<()> {
    match u32::try_from(steps) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::argument("steps", steps, format!("at most {} in one run", u32::MAX))),
    }
}

/// Checks that a run of `steps` steps ends before the data does.
pub(crate) fn check_rows(slot: &str, rows: usize, cursor: u32, steps: usize, batch_rows: usize) -> Result<()> {
    let end = u128::from(cursor) + steps.max(1) as u128 * batch_rows as u128;
    if end > rows as u128 {
        let problem = format!("{steps} batches end at row {end}, the data has {rows} rows");
        return Err(Error::Slot { name: slot.into(), problem });
    }
    Ok(())
}

/// What is said of a function whose state is in memory that it cannot reach.
pub(crate) fn foreign_memory(device: &str) -> Error {
    let expected = format!("one of the {device}'s own: compile the function with the executor that made the state");
    Error::argument("state", "one of another executor", expected)
}
