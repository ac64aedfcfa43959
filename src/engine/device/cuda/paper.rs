//! A step on a GPU that is not there: its launches, what waits for what, and how long it is expected to take.

use std::collections::HashMap;

use super::figures::{Figures, figures};
use super::lower::{Chip, Lower, Lowered, Places, RunPosition, Slots, longest_way, times};
use super::params::Clock;
use super::parts::{Part, Parts, parts};
use crate::engine::device::Precision;
use crate::engine::error::Result;
use crate::engine::graph::{Slot, SlotKind};
use crate::engine::plan::Plan;

/// A launch: a node of the graph.
#[derive(Clone, Debug)]
pub struct PaperLaunch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The steps of the plan that it makes; none where it only ends the step of the run.
    pub steps: Vec<usize>,
    /// Whether it makes them for the next step of the run.
    pub for_next: bool,
    /// Whether it leaves the sums of each split of k to the launch that makes the rest of its step.
    pub leaves_splits: bool,
    /// Whether it makes a factor of its steps a plane of bf16.
    pub makes_plane: bool,
    /// Blocks in each dimension.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes that it reads and writes.
    pub bytes: f64,
    /// Those of them that it reads before it waits.
    pub ahead: f64,
    /// The earlier launches that it waits for.
    pub waits: Vec<usize>,
    /// Whether it lies on the longest way.
    pub urgent: bool,
    /// When it begins and ends if everything takes as long as expected, in microseconds.
    pub time: (f64, f64),
}

/// A step as launches.
#[derive(Clone, Debug)]
pub struct PaperStep {
    /// In an order in which each comes after those that it waits for.
    pub launches: Vec<PaperLaunch>,
    /// The launches on the longest way, in order.
    pub way: Vec<usize>,
    /// What the longest way takes, in microseconds: the step, if the GPU has room for everything beside it.
    pub microseconds: f64,
    /// What it takes for as many models in one launch as [`PaperStep::MODELS`] says.
    pub of_models: [f64; 3],
    /// Whether steps share launches.
    pub merged: bool,
    /// For which compute capability.
    pub capability: (u32, u32),
    /// By which figures.
    pub figures: Figures,
}

impl PaperStep {
    /// Numbers of models for which a step is predicted.
    pub const MODELS: [usize; 3] = [2, 4, 8];

    /// The launches of a plan on a GPU of compute capability `cc`, and their expected time (see [`Figures`]). `merge`:
    /// with [`Fusion::launches`](crate::engine::plan::Fusion::launches).
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when a kernel has no room in its parameters.
    pub fn of(plan: &Plan, precision: Precision, cc: (u32, u32), merge: bool) -> Result<PaperStep> {
        let parts = parts(plan, precision, cc, merge);
        let plan = &parts.place(plan.clone());
        let lowered = lowered(plan, &parts, precision, cc)?;
        let figures = figures(cc);
        let (microseconds, way) = longest_way(&lowered.launches, &figures, 1);
        let of_models = Self::MODELS.map(|models| longest_way(&lowered.launches, &figures, models).0);
        let mut launches: Vec<PaperLaunch> = Vec::with_capacity(lowered.launches.len());
        let times = times(&lowered.launches, &figures, 1);
        for (placed, (begin, end, _)) in lowered.launches.iter().zip(times) {
            let part = placed.part.map(|number| &parts.parts[number]);
            launches.push(PaperLaunch {
                kernel: placed.launch.kernel,
                steps: placed.steps.clone(),
                for_next: matches!(part, Some(Part::Next(_))),
                leaves_splits: matches!(part, Some(Part::Splits(_))),
                makes_plane: matches!(part, Some(Part::Plane { .. })),
                grid: placed.launch.grid,
                threads: placed.launch.threads,
                bytes: placed.load.bytes + placed.load.ahead,
                ahead: placed.load.ahead,
                waits: placed.waits.clone(),
                urgent: placed.urgent,
                time: (begin, end),
            });
        }
        Ok(PaperStep { launches, way, microseconds, of_models, merged: merge, capability: cc, figures })
    }
}

/// The launches of a step with an even number.
fn lowered(plan: &Plan, parts: &Parts, precision: Precision, cc: (u32, u32)) -> Result<Lowered> {
    let cells: HashMap<Slot, u64> = (plan.slots.iter().enumerate())
        .filter(|(_, slot)| slot.kind == SlotKind::Cell)
        .map(|(i, _)| (Slot(i as u16), 0))
        .collect();
    let tensors = vec![0; plan.tensors.len()];
    let clock = Clock { ctl: 0, table: 0 };
    let places = Places {
        arena: 0,
        tensors: &tensors,
        cells: &cells,
        sums: 0,
        ticket: 0,
        clock,
        twins: &HashMap::new(),
        position: RunPosition::Even,
        slots: Slots::Nowhere,
        back: 0,
    };
    Lower::new(Chip::Paper(cc), precision, plan, places).run(parts)
}

/// What a step is expected to take, if the kernels have room for it.
pub(super) fn microseconds(plan: &Plan, parts: &Parts, precision: Precision, cc: (u32, u32)) -> Option<f64> {
    let lowered = lowered(plan, parts, precision, cc).ok()?;
    Some(longest_way(&lowered.launches, &figures(cc), 1).0)
}
