//! A second opinion on what runs at the same time on a GPU, from the operands alone.

use super::parts::{Part, Parts};
use crate::engine::graph::Slot;
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
            Part::Rows(steps) => Touched {
                reads: steps.iter().flat_map(|&step| kernel(step).reads()).collect(),
                writes: steps.iter().flat_map(|&step| kernel(step).writes()).collect(),
                updates: Vec::new(),
            },
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
    /// the batch, in whose place nothing is written; and steps that one launch takes row by row lie apart in memory, but for what
    /// they hand on.
    ///
    /// # Errors
    /// A description of the first violation.
    pub(crate) fn verify(&self, plan: &Plan) -> Result<(), String> {
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
    use crate::engine::device::Precision;
    use crate::engine::grad::grad;
    use crate::engine::graph::Graph;
    use crate::engine::optim::Optimizer;
    use crate::engine::plan::Fusion;

    /// The training of an autoencoder with a narrow middle, as it is placed on a GPU.
    fn placed_plan() -> (Plan, Parts) {
        let g = Graph::new();
        let x = g.batch("train", 6, 40);
        let [v, w, u] = [("v", [40, 30]), ("w", [30, 8]), ("u", [8, 40])].map(|(name, shape)| g.param(name, &shape));
        let y = x.matmul(v).tanh().matmul(w).tanh().matmul(u);
        let loss = (y - x).square().mean_all();
        let pairs: Vec<_> = [v, w, u].into_iter().zip(grad(loss, &[v, w, u])).collect();
        g.optimize(Optimizer::adam(), 1e-3, &pairs);
        let plan = Plan::build(&g, &[loss], Fusion::all()).unwrap();
        let parts = parts(&plan, Precision::F32, (9, 0), true);
        (parts.place(plan), parts)
    }

    #[test]
    fn launches_are_sound_and_without_any_one_of_their_edges_are_not() {
        let (plan, parts) = placed_plan();
        assert_eq!(parts.verify(&plan), Ok(()));
        assert!(parts.parts.iter().any(|part| matches!(part, Part::Updating { .. })), "{parts:?}");
        assert!(!parts.together().is_empty(), "{parts:?}");
        for part in 0..parts.waits.len() {
            for edge in 0..parts.waits[part].len() {
                let mut waits = parts.waits.clone();
                let from = waits[part].remove(edge);
                let cut = Parts { parts: parts.parts.clone(), waits };
                assert!(cut.verify(&plan).is_err(), "without {from} → {part}: {parts:?}");
            }
        }
    }

    #[test]
    fn a_batch_that_nobody_gathers_or_somebody_waits_for_is_refused() {
        let (plan, parts) = placed_plan();
        let next = parts.parts.iter().position(|part| matches!(part, Part::Next(_))).unwrap();
        let reader = parts.waits.iter().position(|waits| !waits.is_empty()).unwrap();
        let mut awaited = Parts { parts: parts.parts.clone(), waits: parts.waits.clone() };
        awaited.waits[reader.max(next + 1)].push(next);
        let refused = awaited.verify(&plan).unwrap_err();
        assert!(refused.contains("is for the next step"), "{refused}");
        // As if the step gathered its own batch, and nobody waited for that.
        let Part::Next(step) = parts.parts[next] else { unreachable!() };
        let mut own = Parts { parts: parts.parts.clone(), waits: parts.waits.clone() };
        own.parts[next] = Part::Step(step);
        assert!(own.verify(&plan).is_err());
        // In its place something that writes nothing of what is read.
        let mut lacking = plan.clone();
        lacking.steps[step] = plan.steps.iter().find(|step| step.kernel.update().is_some()).unwrap().clone();
        assert!(parts.verify(&lacking).is_err());
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
        let refused = parts.verify(&shared).unwrap_err();
        assert!(refused.contains("keeps the batch"), "{refused}");
    }

    /// Placed by waves, or without regard to what is launched together, buffers share memory that a GPU uses at once.
    #[test]
    fn memory_that_is_placed_for_the_cpu_is_refused() {
        let (mut plan, parts) = placed_plan();
        plan.buffers.iter_mut().for_each(|buffer| buffer.offset = 0);
        assert!(parts.verify(&plan).is_err());
    }
}
