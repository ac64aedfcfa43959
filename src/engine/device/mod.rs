//! Executors: plans bound to memory.
//!
//! A [`Plan`] knows no device. An executor gives it memory by slot name and runs it; everything above ([`crate::vae`],
//! [`crate::train`]) works with the trait [`Exec`] and does not know which one it has.

pub mod cpu;
pub mod cuda;
pub(crate) mod memory;
pub(crate) mod room;
mod team;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::engine::error::{Error, Result};
use crate::engine::optim::Control;
use crate::engine::plan::Plan;
use crate::engine::shape::Shape;
use cpu::Cpu;

/// A plan bound to an executor: valid for the executor that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound(usize);

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

/// The running sums of a plan's metrics at one moment of a run, and the counters of that moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// [`Control::cursor`] then: the rows of the epoch that had been run.
    pub cursor: u32,
    /// [`Control::updates`] then.
    pub updates: u32,
    /// Each metric's sum.
    pub sums: BTreeMap<String, f64>,
}

/// What runs plans: memory by slot name, shared by all plans bound to it, and the [`Control`] block.
///
/// Equal seeds give equal bits on one device, however often and in whatever portions it is run.
pub trait Exec {
    /// Device and how it is used, for people: `cpu (avx512, threads: 2)`.
    fn describe(&self) -> String;

    /// How many steps one call of [`Exec::run`] should make, if nobody needs to look in between: enough that the cost of
    /// starting does not count, few enough that a call lasts no longer than a blink.
    fn steps_per_call(&self) -> usize;

    /// How many rows of independent work one step should have, where that can be chosen: enough to fill the device.
    fn rows_per_step(&self) -> usize;

    /// The counters, the seed and the schedules.
    fn control(&self) -> &Control;

    /// The counters, the seed and the schedules, to be changed between runs.
    fn control_mut(&mut self) -> &mut Control;

    /// Loads a data set of `bytes` in rows of `cols` into data slot `name`, replacing what was there.
    ///
    /// # Errors
    /// [`Error::Slot`] when no bound plan reads it, or the bytes are not whole rows; [`Error::Device`] when
    /// the device refuses, for want of memory for example. So may all functions below.
    fn set_data(&mut self, name: &str, bytes: &[u8], cols: usize) -> Result<()>;

    /// Writes a parameter or state that a bound plan uses.
    ///
    /// # Errors
    /// [`Error::Slot`] when no bound plan uses it or its size differs.
    fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        self.write_moment(name, Moment::Value, values)
    }

    /// Reads a parameter or state that a bound plan uses, row-major.
    ///
    /// # Errors
    /// [`Error::Slot`] when no bound plan uses it.
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.read_moment(name, Moment::Value)
    }

    /// Writes a parameter or an optimiser's moment of it.
    ///
    /// # Errors
    /// As [`Exec::write`].
    fn write_moment(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()>;

    /// Reads a parameter or an optimiser's moment of it.
    ///
    /// # Errors
    /// As [`Exec::read`].
    fn read_moment(&self, name: &str, moment: Moment) -> Result<Vec<f32>>;

    /// All parameters of all bound plans, in the order of their memory.
    fn params(&self) -> Vec<(String, Shape)>;

    /// Gives the plan memory: its own scratch arena, and slots shared by name with the plans bound before. New
    /// parameters and states are zero.
    ///
    /// # Errors
    /// [`Error::Slot`] when a slot is known with another shape or kind;
    /// [`Error::Argument`] when the plan does not verify.
    fn bind(&mut self, plan: &Plan) -> Result<Bound>;

    /// Runs the plan `times` times (0 only checks that it could run once); the batch cursor, the step and the schedules
    /// advance after each.
    ///
    /// # Errors
    /// [`Error::Slot`] when data is missing, or the cursor would run over its end, or a row index is
    /// out of range; [`Error::Argument`] when `times` is more than can be counted.
    fn run(&mut self, plan: Bound, times: usize) -> Result<()>;

    /// Waits until everything that was asked for is done. [`Exec::run`] may return before; whatever reads a result waits
    /// by itself.
    ///
    /// # Errors
    /// What went wrong meanwhile.
    fn synchronize(&mut self) -> Result<()>;

    /// The shortest time in seconds that each step took, one after the other, in the order of [`Plan::steps`], over
    /// `repetitions` whole passes; on the CPU on one thread. The steps run for real: parameters change as in as many
    /// runs (on a GPU each step sixteen times as often), but the counters stay.
    ///
    /// # Errors
    /// As [`Exec::run`].
    fn time_steps(&mut self, plan: Bound, repetitions: usize) -> Result<Vec<f64>>;

    /// Starts the plan's running sums from given values (0 where `sums` has no such name): a sum that goes on in another
    /// plan, or in a resumed run, then makes its additions in the same order as if it had never been interrupted.
    ///
    /// # Errors
    /// From the device.
    fn set_metrics(&mut self, plan: Bound, sums: &BTreeMap<String, f64>) -> Result<()>;

    /// Asks for the running sums as they are after everything that was run, leaves them as they are, and returns the
    /// newest that are known without waiting: on the CPU these; on a GPU, which may still be at work on them, usually those
    /// of an earlier call, and none before the first have come. A caller that asks after every [`Exec::run`] stays at most
    /// two runs ahead of the device: with two answers under way, a call waits for the older one.
    ///
    /// # Errors
    /// What went wrong on the device, as far as it is known.
    fn peek_metrics(&mut self, plan: Bound) -> Result<Option<Snapshot>>;

    /// The running sums of the plan's metrics since they were last taken, after everything that was run. They start again
    /// from 0.
    ///
    /// # Errors
    /// From the device.
    fn take_metrics(&mut self, plan: Bound) -> Result<BTreeMap<String, f64>>;
}

/// How exactly matrix products are computed on a GPU. Everything else, and everything on the CPU, is f32; parameters and
/// moments are f32 always, and so are the sums.
///
/// Infinities and NaN go through products as in f32 with every precision: ∞ · b = ±∞, ∞ · 0 and ∞ − ∞ = NaN. What a cut
/// or rounded factor cannot hold: from 3.396e38 on (the largest f32 is 3.40e38) it is taken for an infinity by bf16 and
/// everything made of it; and parts below 1e-40 are lost, so that [`F32`](Precision::F32) where it takes the tensor
/// cores is as accurate as f32 for factors from 8e-34 on, and [`Bf16x3`](Precision::Bf16x3) as accurate as stated from
/// 6e-36 on. A factor below 5e-41 counts as 0 in all of them but TF32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Precision {
    /// As accurate as f32: in f32, or, in products of 2²⁸ multiply-adds and more on GPUs where that is faster, with
    /// every factor cut into three bf16 (six products on tensor cores).
    #[default]
    F32,
    /// Factors rounded to TF32, 10 bits after the point: relative error about 5e-4.
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
    /// A GPU.
    Cuda {
        /// Its number, from 0.
        ordinal: usize,
        /// Of the matrix products.
        precision: Precision,
    },
}

/// Checks that a run of `times` steps ends before the data does.
fn check_rows(slot: &str, rows: usize, cursor: u32, times: usize, batch_rows: usize) -> Result<()> {
    let end = u128::from(cursor) + times.max(1) as u128 * batch_rows as u128;
    if end > rows as u128 {
        let problem = format!("{times} batches end at row {end}, the data has {rows} rows");
        return Err(Error::Slot { name: slot.into(), problem });
    }
    Ok(())
}

impl Device {
    /// Starts the executor.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason why it cannot be used, and the remedy.
    pub fn open(self) -> Result<Box<dyn Exec>> {
        match self {
            Device::Cpu { threads } => Ok(Box::new(Cpu::new(threads))),
            #[cfg(feature = "cuda")]
            Device::Cuda { ordinal, precision } => Ok(Box::new(cuda::Cuda::open(ordinal, precision)?)),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda { ordinal, .. } => Err(cuda::probe::NoCuda::NotBuilt.of(&format!("cuda:{ordinal}"))),
        }
    }
}
