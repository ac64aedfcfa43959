//! What a call of a function is made with: the key of its noise, the rows of its batches, the schedules.

use crate::engine::error::{Error, Result};
use crate::engine::graph::{MOST_SCHEDULES, Rate};
use crate::engine::optim::{Optimizer, UpdateScalars};
use crate::engine::plan::Plan;
use crate::engine::steps::StepValues;

/// The key of a step's noise: every (seed, step) draws other numbers, on every device the same; see
/// [`rng`](crate::engine::rng). The steps of a run count on from the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Key {
    /// Of noise, and of the order of shuffled rows.
    pub seed: u64,
    /// The number of the step.
    pub step: u32,
}

impl Key {
    /// Step 0 under `seed`.
    pub fn new(seed: u64) -> Key {
        Key { seed, step: 0 }
    }
}

/// Which rows of the data sets a step's batch has; the batches of a run follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rows {
    /// The position of the batch's first row in the epoch.
    pub cursor: u32,
    /// Counts epochs: each shuffles in its own way.
    pub epoch: u32,
    /// Whether positions are those of the epoch's permutation, a pure function of (seed, epoch), or the data's own.
    pub shuffle: bool,
}

impl Rows {
    /// From the first row, in the data's own order.
    pub fn in_order() -> Rows {
        Rows::default()
    }

    /// From the first position of an epoch's permutation.
    pub fn shuffled(epoch: u32) -> Rows {
        Rows { cursor: 0, epoch, shuffle: true }
    }

    /// The same order from position `cursor` on.
    pub fn from(self, cursor: u32) -> Rows {
        Rows { cursor, ..self }
    }
}

/// A schedule: the number of updates made before a step ↦ its value in that step.
///
/// ```
/// use elbo::engine::optim::LrSchedule;
/// use elbo::prelude::*;
/// let lr = LrSchedule::Cosine { lr: 1e-3, lr_end: 1e-5, steps: 1000 };
/// let schedules: [(&str, Schedule); 2] = [("rate", &|t| lr.at(t)), ("beta", &|t| (t as f64 / 500.0).min(1.0))];
/// assert_eq!((schedules[0].1)(1000), 1e-5);
/// ```
pub type Schedule<'a> = &'a (dyn Fn(u64) -> f64 + Sync);

/// The arguments of a run of [`Function`](super::Function) that are no arrays.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Of the first step.
    pub key: Key,
    /// Of the first step.
    pub rows: Rows,
    /// The number of steps. 0 only checks that one could be made.
    pub steps: usize,
    /// A value for every [schedule](crate::engine::graph::Graph::schedule) of the graph, by name; others do no harm.
    pub schedules: &'a [(&'a str, Schedule<'a>)],
}

impl<'a> Call<'a> {
    /// One step, on the first rows of the data in their own order, without schedules.
    pub fn once(key: Key) -> Call<'a> {
        Call { key, rows: Rows::in_order(), steps: 1, schedules: &[] }
    }
}

/// The numbers of a run's steps, one after the other: all executors count in the same way.
pub(crate) struct Sequence<'a> {
    key: Key,
    rows: Rows,
    updates: u64,
    schedules: [Option<Schedule<'a>>; MOST_SCHEDULES],
    update: Option<(Optimizer, Rate)>,
    batch_rows: usize,
}

impl<'a> Sequence<'a> {
    /// The steps of `call`, after `updates` updates.
    pub(crate) fn new(plan: &Plan, call: &Call<'a>, updates: u64) -> Result<Sequence<'a>> {
        Sequence::of(&plan.schedules, plan.update, plan.batch_rows, call, updates)
    }

    pub(crate) fn of(
        names: &[String],
        update: Option<(Optimizer, Rate)>,
        batch_rows: usize,
        call: &Call<'a>,
        updates: u64,
    ) -> Result<Sequence<'a>> {
        let mut schedules = [None; MOST_SCHEDULES];
        for (slot, name) in schedules.iter_mut().zip(names) {
            let given = call.schedules.iter().find(|(known, _)| known == name);
            let missing = || {
                let given: Vec<&str> = call.schedules.iter().map(|(known, _)| *known).collect();
                let given = if given.is_empty() { "none".into() } else { given.join(", ") };
                Error::argument(
                    "schedules",
                    given,
                    format!("a value for \"{name}\" in the call, as the graph asks for it"),
                )
            };
            *slot = Some(given.ok_or_else(missing)?.1);
        }
        Ok(Sequence { key: call.key, rows: call.rows, updates, schedules, update, batch_rows })
    }

    fn schedule(&self, index: usize) -> f64 {
        self.schedules[index].map_or(0.0, |value| value(self.updates))
    }

    /// The numbers of the step it stands at.
    pub(crate) fn values(&self) -> StepValues {
        let mut schedules = [0.0; MOST_SCHEDULES];
        schedules.iter_mut().enumerate().for_each(|(i, value)| *value = self.schedule(i) as f32);
        StepValues {
            seed: self.key.seed,
            step: self.key.step,
            epoch: self.rows.epoch,
            cursor: self.rows.cursor,
            shuffle: self.rows.shuffle,
            schedules,
            update: self.update_scalars(),
        }
    }

    fn update_scalars(&self) -> UpdateScalars {
        let Some((rule, rate)) = self.update else { return UpdateScalars { rate: 0.0, root_scale: 1.0 } };
        let rate = match rate {
            Rate::Constant(rate) => rate,
            Rate::Schedule(index) => self.schedule(index as usize),
        };
        rule.scalars(rate, u32::try_from(self.updates + 1).unwrap_or(u32::MAX))
    }

    /// Schedules in f64, for an executor that computes in it.
    pub(crate) fn exact_schedules(&self) -> [f64; MOST_SCHEDULES] {
        std::array::from_fn(|i| self.schedule(i))
    }

    /// Goes on to the next step.
    pub(crate) fn tick(&mut self) {
        self.key.step = self.key.step.wrapping_add(1);
        self.rows.cursor += self.batch_rows as u32;
        self.updates += u64::from(self.update.is_some());
    }

    /// (position, updates) at which it stands.
    pub(crate) fn position(&self) -> (u32, u64) {
        (self.rows.cursor, self.updates)
    }
}
