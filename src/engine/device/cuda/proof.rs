//! A second opinion on what runs at the same time on a GPU, from the operands alone.

use super::parts::{Part, Parts};
use super::rows;
use crate::engine::device::Precision;
use crate::engine::graph::Slot;
use crate::engine::plan::program::Program;
use crate::engine::plan::{Buffer, Mem, Order, Plan, View};
use crate::engine::steps::Kernel;

/// What a launch touches, as it is launched: a gradient that stays in registers is not written.
struct Touched {
    reads: Vec<View>,
    writes: Vec<View>,
    updates: Vec<Slot>,
}

impl Touched {
    fn by(plan: &Plan, part: &Part) -> Touched {
        let kernel = |step: usize| &plan.steps[step].kernel;
        let update = |step: usize| kernel(step).update().expect("an update was merged");
        match part {
            // What it writes is none of this step's memory.
            Part::Next(_) => Touched { reads: Vec::new(), writes: Vec::new(), updates: Vec::new() },
            Part::Step(step) => {
                let kernel = kernel(*step);
                Touched { reads: kernel.reads(), writes: kernel.writes(), updates: kernel.updates() }
            }
            // Planes have memory of their own.
            Part::Plane { of, .. } => Touched { reads: vec![*of], writes: Vec::new(), updates: Vec::new() },
            // The sums that it leaves have memory of their own.
            Part::Splits(step) => {
                Touched { reads: rows::factors(&plan.steps[*step]), writes: Vec::new(), updates: Vec::new() }
            }
            // The factors of the product whose splits it adds up it does not read.
            Part::Rows { steps, joins } => {
                let (joined, rest) = steps.split_at(usize::from(*joins));
                let program = joined.iter().filter_map(|&step| kernel(step).program());
                let reads = rest.iter().flat_map(|&step| kernel(step).reads());
                Touched {
                    reads: program.flat_map(Program::reads).chain(reads).collect(),
                    writes: steps.iter().flat_map(|&step| kernel(step).writes()).collect(),
                    updates: Vec::new(),
                }
            }
            Part::Updating { product, update: step } => {
                let made = kernel(*product).writes();
                let of =
                    |(slot, gradient): &(Slot, View)| made.iter().any(|v| v.is_same_memory(gradient)).then_some(*slot);
                let updates = update(*step).params.iter().filter_map(of).collect();
                Touched { reads: kernel(*product).reads(), writes: Vec::new(), updates }
            }
            Part::Rest { update: step, params } => {
                let rest = update(*step).only(params);
                Touched { reads: rest.reads(), writes: Vec::new(), updates: rest.updates() }
            }
        }
    }

    /// Whether it writes to the view, or updates the parameter that it is of.
    fn changes(&self, view: &View) -> bool {
        self.updates.iter().any(|slot| view.mem == Mem::Slot(*slot)) || self.writes.iter().any(|w| w.overlaps(view))
    }

    /// Whether what one writes is touched by the other.
    fn spoils(&self, plan: &Plan, other: &Touched) -> bool {
        let overlap = |a: &View, b: &View| placed(plan, a).overlaps(&placed(plan, b));
        let all = || other.reads.iter().chain(&other.writes);
        self.writes.iter().any(|w| all().any(|v| overlap(w, v)))
            || self.updates.iter().any(|s| other.updates.contains(s) || all().any(|v| v.mem == Mem::Slot(*s)))
    }
}

/// A view by where it lies: buffers as parts of the one arena.
fn placed(plan: &Plan, view: &View) -> View {
    match view.mem {
        Mem::Buffer(b) => View { mem: Mem::Buffer(0), offset: plan.buffers[b as usize].offset + view.offset, ..*view },
        _ => *view,
    }
}

impl Parts {
    /// Checks what the launches rely on: of two that do not wait for each other, directly or through others, none writes what
    /// the other touches; what a launch reads of scratch memory was written by launches that it waits for, or by itself, or is
    /// the batch, in whose place nothing is written; the splits of a product that leaves them are added up by one launch, after
    /// it; a factor is made a plane once before the product that takes it so, and not changed in between; steps that one launch
    /// takes row by row lie apart in memory, but for what they hand on; and what a launch reads before it waits only those change
    /// that come after it.
    ///
    /// # Errors
    /// A description of the first violation.
    pub(crate) fn verify(&self, plan: &Plan, precision: Precision, cc: (u32, u32)) -> Result<(), String> {
        let order = Order::of(self.waits.iter().map(Vec::as_slice));
        let touched: Vec<Touched> = self.parts.iter().map(|part| Touched::by(plan, part)).collect();
        // What the step before has written, in another place.
        let mut gathered: Vec<View> = Vec::new();
        for (i, part) in self.parts.iter().enumerate() {
            let Part::Next(step) = part else { continue };
            if !self.waits[i].is_empty() || self.waits.iter().any(|waits| waits.contains(&i)) {
                return Err(format!("{part:?} is for the next step, and waits in this one or is waited for"));
            }
            gathered.extend(plan.steps[*step].kernel.writes());
        }
        for (i, part) in self.parts.iter().enumerate() {
            let others = || self.parts.iter().enumerate().filter(|&(_, other)| part.joins(other) || other.joins(part));
            let expected = usize::from(matches!(part, Part::Splits(_) | Part::Rows { joins: true, .. }));
            if others().count() != expected || others().any(|(j, other)| part.joins(other) && !order.is_before(j, i)) {
                return Err(format!(
                    "{part:?} leaves splits that no launch after it adds up, or adds up none that were left"
                ));
            }
        }
        for (i, part) in self.parts.iter().enumerate() {
            let Part::Rows { steps, joins } = part else { continue };
            let ahead = rows::reads_ahead(plan, steps, *joins, precision, cc);
            let ahead = if self.waits[i].is_empty() { Vec::new() } else { ahead };
            let late = |j: usize| order.is_before(i, j) || !ahead.iter().any(|view| touched[j].changes(view));
            if !(0..touched.len()).all(late) {
                return Err(format!("{part:?} copies ahead what is not only changed after it"));
            }
        }
        for (i, part) in self.parts.iter().enumerate() {
            let product = part.product(plan);
            let all = product
                .into_iter()
                .flat_map(|step| rows::planes(&plan.steps[step], precision, cc).map(move |of| (step, of)));
            for (step, view) in all {
                let makes = |&j: &usize| self.parts[j].makes_plane(plan, &view, step) && order.is_before(j, i);
                let makers: Vec<usize> = (0..i).filter(makes).collect();
                let [plane] = makers[..] else {
                    return Err(format!("{part:?} takes a factor as a plane, which is not made once before it"));
                };
                let stale = |j: usize| {
                    touched[j].changes(&view) && order.is_before(j, i) && j != plane && !order.is_before(j, plane)
                };
                if (0..touched.len()).any(stale) {
                    return Err(format!("{part:?} takes a plane of what is changed after the plane was made"));
                }
            }
        }
        for buffer in self.lasting(plan) {
            let Buffer { offset, len, .. } = plan.buffers[buffer];
            let whole = View { mem: Mem::Buffer(0), offset, rows: 1, cols: len, stride: len };
            if touched.iter().flat_map(|part| &part.writes).any(|w| placed(plan, w).overlaps(&whole)) {
                return Err(format!("something is written where buffer {buffer} keeps the batch"));
            }
        }
        for (j, b) in touched.iter().enumerate() {
            for (i, a) in touched[..j].iter().enumerate().filter(|&(i, _)| !order.is_before(i, j)) {
                if a.spoils(plan, b) || b.spoils(plan, a) {
                    let (a, b) = (&self.parts[i], &self.parts[j]);
                    return Err(format!("{a:?} and {b:?} touch the same memory, and neither waits for the other"));
                }
            }
            for read in b.reads.iter().filter(|view| matches!(view.mem, Mem::Buffer(_))) {
                let before = (0..touched.len()).filter(|&i| i == j || order.is_before(i, j));
                let written = before.flat_map(|i| &touched[i].writes).chain(&gathered).filter(|w| w.overlaps(read));
                if written.map(View::size).sum::<usize>() < read.size() {
                    return Err(format!("{:?} reads {read:?}, which is not all written before", self.parts[j]));
                }
            }
        }
        self.together().iter().try_for_each(|steps| lie_apart(plan, steps))
    }
}

fn lie_apart(plan: &Plan, steps: &[usize]) -> Result<(), String> {
    for (at, &b) in steps.iter().enumerate() {
        for &a in &steps[..at] {
            let views = [plan.steps[a].kernel.reads(), plan.steps[a].kernel.writes()].concat();
            let shares = |w: &View, v: &View| v.mem != w.mem && placed(plan, v).overlaps(&placed(plan, w));
            if plan.steps[b].kernel.writes().iter().any(|w| views.iter().any(|v| shares(w, v))) {
                return Err(format!("steps {} and {} share a launch and memory", a + 1, b + 1));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parts::parts;
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::graph::Graph;
    use crate::engine::optim::Optimizer;
    use crate::engine::plan::Fusion;

    const H200: (u32, u32) = (9, 0);

    /// The training of an autoencoder with a narrow middle, as it is placed on a GPU.
    fn placed_plan() -> (Plan, Parts) {
        placed(40, 30)
    }

    fn placed(wide: usize, narrow: usize) -> (Plan, Parts) {
        placed_in(Precision::F32, 6, wide, narrow)
    }

    fn placed_in(precision: Precision, rows: usize, wide: usize, narrow: usize) -> (Plan, Parts) {
        let g = Graph::new();
        let x = g.batch("train", rows, wide);
        let sizes = [("u", [wide, narrow]), ("v", [narrow, 8]), ("w", [8, narrow]), ("r", [narrow, wide])];
        let layers = sizes.map(|(name, shape)| g.param(name, &shape));
        let y = layers.iter().fold(x, |y, layer| y.tanh().matmul(*layer));
        let loss = (y - x).square().mean_all();
        let pairs: Vec<_> = layers.into_iter().zip(grad(loss, &layers)).collect();
        g.optimize(Optimizer::adam(), 1e-3, &pairs);
        let plan = Plan::build(&g, &[loss], Fusion::all()).unwrap();
        let parts = parts(&plan, precision, H200, true);
        (parts.place(plan), parts)
    }

    #[test]
    fn launches_are_sound_and_without_any_one_of_their_edges_are_not() {
        let all = [placed_plan(), placed(1500, 40), placed_in(Precision::Bf16, 8192, 784, 400)];
        assert!(all[..2].iter().all(|(_, parts)| !parts.together().is_empty()), "{all:?}");
        let has =
            |is: fn(&Part) -> bool| all.iter().map(|(_, parts)| parts.parts.iter().any(is)).collect::<Vec<bool>>();
        assert_eq!(has(|part| matches!(part, Part::Splits(_))), [false, true, false]);
        assert_eq!(has(|part| matches!(part, Part::Plane { .. })), [false, false, true]);
        for ((plan, parts), precision) in all.into_iter().zip([Precision::F32, Precision::F32, Precision::Bf16]) {
            assert_eq!(parts.verify(&plan, precision, H200), Ok(()));
            assert!(parts.parts.iter().any(|part| matches!(part, Part::Updating { .. })), "{parts:?}");
            for part in 0..parts.waits.len() {
                for edge in 0..parts.waits[part].len() {
                    let mut waits = parts.waits.clone();
                    let from = waits[part].remove(edge);
                    let cut = Parts { parts: parts.parts.clone(), waits };
                    assert!(cut.verify(&plan, precision, H200).is_err(), "without {from} → {part}: {parts:?}");
                }
            }
        }
    }

    #[test]
    fn splits_that_nobody_or_somebody_else_adds_up_are_refused() {
        let (plan, parts) = placed(1500, 40);
        let with = |change: &dyn Fn(&mut Part)| {
            let mut changed = Parts { parts: parts.parts.clone(), waits: parts.waits.clone() };
            changed.parts.iter_mut().for_each(change);
            changed.verify(&plan, Precision::F32, H200)
        };
        assert_eq!(with(&|_| ()), Ok(()));
        let refused = with(&|part| {
            if let Part::Rows { joins, .. } = part {
                *joins = false;
            }
        });
        assert!(refused.unwrap_err().contains("leaves splits"));
        let refused = with(&|part| {
            if let Part::Splits(step) = *part {
                *part = Part::Step(step);
            }
        });
        assert!(refused.unwrap_err().contains("adds up none"));
    }

    #[test]
    fn planes_that_nobody_makes_or_of_what_changes_after_are_refused() {
        let (plan, parts) = placed_in(Precision::Bf16, 8192, 784, 400);
        let verify = |parts: &Parts| parts.verify(&plan, Precision::Bf16, H200);
        let planes: Vec<usize> =
            (0..parts.parts.len()).filter(|&i| matches!(parts.parts[i], Part::Plane { .. })).collect();
        for &i in &planes {
            let mut other = Parts { parts: parts.parts.clone(), waits: parts.waits.clone() };
            let Part::Plane { readers, .. } = &mut other.parts[i] else { unreachable!() };
            *readers = vec![plan.steps.len() - 1];
            assert!(verify(&other).unwrap_err().contains("not made once before"), "{i} of {parts:?}");
        }
        // As if the plane could be made before what it is of.
        let early = planes.into_iter().find(|&i| !parts.waits[i].is_empty()).unwrap();
        let mut loose = Parts { parts: parts.parts.clone(), waits: parts.waits.clone() };
        let makers = std::mem::take(&mut loose.waits[early]);
        loose.waits.iter_mut().filter(|waits| waits.contains(&early)).for_each(|waits| waits.extend(&makers));
        assert!(verify(&loose).unwrap_err().contains("changed after"), "{early} of {parts:?}");
    }

    #[test]
    fn a_batch_that_nobody_gathers_or_somebody_waits_for_is_refused() {
        let (plan, parts) = placed_plan();
        let next = parts.parts.iter().position(|part| matches!(part, Part::Next(_))).unwrap();
        let reader = parts.waits.iter().position(|waits| !waits.is_empty()).unwrap();
        let mut awaited = Parts { parts: parts.parts.clone(), waits: parts.waits.clone() };
        awaited.waits[reader.max(next + 1)].push(next);
        let refused = awaited.verify(&plan, Precision::F32, H200).unwrap_err();
        assert!(refused.contains("is for the next step"), "{refused}");
        // As if the step gathered its own batch, and nobody waited for that.
        let Part::Next(step) = parts.parts[next] else { unreachable!() };
        let mut own = Parts { parts: parts.parts.clone(), waits: parts.waits.clone() };
        own.parts[next] = Part::Step(step);
        assert!(own.verify(&plan, Precision::F32, H200).is_err());
        // In its place something that writes nothing of what is read.
        let mut lacking = plan.clone();
        let update = plan.steps.iter().find(|step| step.kernel.update().is_some()).unwrap();
        lacking.steps[step].kernel = update.kernel.clone();
        assert!(parts.verify(&lacking, Precision::F32, H200).is_err());
    }

    /// Where the batch of the next step would be written over before it is read.
    #[test]
    fn a_batch_that_shares_its_memory_is_refused() {
        let (plan, parts) = placed_plan();
        let [batch] = parts.lasting(&plan)[..] else { panic!("one batch: {parts:?}") };
        let hidden =
            plan.steps.iter().find(|step| step.is_product()).and_then(|step| step.kernel.writes().first().copied());
        let Some(View { mem: Mem::Buffer(hidden), .. }) = hidden else { panic!("a product that writes: {plan}") };
        let mut shared = plan.clone();
        shared.buffers[batch].offset = plan.buffers[hidden as usize].offset;
        let refused = parts.verify(&shared, Precision::F32, H200).unwrap_err();
        assert!(refused.contains("keeps the batch"), "{refused}");
    }

    /// As if nobody read a parameter that a launch copies ahead but its update, which then came at any time.
    #[test]
    fn what_is_changed_at_any_time_is_not_copied_ahead() {
        let (plan, parts) = placed(1500, 40);
        let ahead = |part: &Part| match part {
            Part::Rows { steps, joins } => rows::reads_ahead(&plan, steps, *joins, Precision::F32, H200).len(),
            _ => 0,
        };
        let copied: usize = parts.parts.iter().map(ahead).sum();
        assert!(copied >= 3, "{copied} weights: {parts:?}");
        let first = parts.parts.iter().position(|part| ahead(part) > 0).unwrap();
        let mut loose = Parts { parts: parts.parts.clone(), waits: parts.waits.clone() };
        loose.waits.iter_mut().for_each(|waits| waits.retain(|&i| i != first));
        let refused = loose.verify(&plan, Precision::F32, H200).unwrap_err();
        assert!(refused.contains("copies ahead"), "{refused}");
    }

    /// Placed by waves, or without regard to what is launched together, buffers share memory that a GPU uses at once.
    #[test]
    fn memory_that_is_placed_for_the_cpu_is_refused() {
        let (mut plan, parts) = placed_plan();
        plan.buffers.iter_mut().for_each(|buffer| buffer.offset = 0);
        assert!(parts.verify(&plan, Precision::F32, H200).is_err());
    }
}
