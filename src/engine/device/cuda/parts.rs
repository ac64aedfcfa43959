//! What of a plan is launched together on a GPU, and what waits for what then.
//!
//! A kernel that begins when another has ended costs more than the arithmetic of a small model. So steps become *parts*:
//!
//! * a product whose only readers are the update of the parameters makes that update itself: the gradient never reaches
//!   memory. The update of a parameter has to wait for everything that reads it, and so does the product then; what is
//!   left of the update (parameters whose gradients are made otherwise, or clipped) stays a launch of its own;
//! * steps that follow one another row by row become one launch, if their products are small (`rows.rs`) and the step is not
//!   expected to take longer for it; if the larger product before them has a split k, they add its splits up too, and no block of
//!   it waits for another;
//! * the batch is gathered during the step before, beside its other launches, so that nothing waits for it. The two batches
//!   lie apart: steps with an even number in their run read one buffer and gather into the other, those with an odd one the
//!   other way round.
//!
//! And a step may need another launch: large products take their factors as *planes* of bf16 (`kernels/planes.cuh`), each made once
//! for all that read it: by the product that stores the factor, if its epilogue can, or in a launch of its own.
//!
//! On the CPU the same form lost (`docs/rejected.md`), so this is no business of the plan.

use std::collections::BTreeSet;

use super::{paper, rows};
use crate::engine::device::Precision;
use crate::engine::graph::Slot;
use crate::engine::plan::{Mem, Order, Plan, Step, View};
use crate::engine::steps::Kernel;

/// What is launched together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// A step as it is.
    Step(usize),
    /// A product that updates the parameters of which it makes the gradients.
    Updating { product: usize, update: usize },
    /// A product with a split k that leaves the sums of all splits to the rows that follow.
    Splits(usize),
    /// A factor is made a plane of bf16, for products that take it so.
    Plane { of: View, readers: Vec<usize> },
    /// Steps that follow one another row by row. `joins`: the first is a product that has left its splits.
    Rows { steps: Vec<usize>, joins: bool },
    /// The update of some parameters: their places in the list of the step.
    Rest { update: usize, params: Vec<usize> },
    /// A step that gathers the batch, for the next step of the run.
    Next(usize),
}

impl Part {
    /// The steps that it makes, or a part of, the one first whose kernel does it.
    pub(crate) fn steps(&self) -> Vec<usize> {
        match *self {
            Part::Step(step) | Part::Next(step) | Part::Splits(step) | Part::Rest { update: step, .. } => vec![step],
            Part::Updating { product, update } => vec![product, update],
            Part::Rows { ref steps, .. } => steps.clone(),
            Part::Plane { ref readers, .. } => readers.clone(),
        }
    }

    /// Whether it makes a view a plane for a step, or can on the side.
    pub(crate) fn makes_plane(&self, plan: &Plan, of: &View, reader: usize) -> bool {
        match self {
            Part::Plane { of: made, readers } => made == of && readers.contains(&reader),
            Part::Step(maker) => {
                let other = |step: usize| step != *maker && changes(&plan.steps[step], of);
                *maker < reader && rows::can_make_plane(&plan.steps[*maker], of) && !(0..reader).any(other)
            }
            _ => false,
        }
    }

    /// The product that has this launch for itself.
    pub(crate) fn product(&self, plan: &Plan) -> Option<usize> {
        match *self {
            Part::Step(step) | Part::Splits(step) | Part::Updating { product: step, .. } => {
                plan.steps[step].is_product().then_some(step)
            }
            _ => None,
        }
    }

    /// Whether it adds up the splits that the other has left.
    pub(crate) fn joins(&self, other: &Part) -> bool {
        matches!((self, other), (Part::Rows { steps, joins: true }, Part::Splits(step)) if steps[0] == *step)
    }
}

/// A plane that is left by the product which stores the factor.
#[derive(Clone, Debug)]
pub(crate) struct WantedPlane {
    pub maker: usize,
    pub of: View,
    pub readers: Vec<usize>,
}

/// The parts of a plan, each after those that it waits for.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub parts: Vec<Part>,
    /// For every part the earlier ones that it waits for, without those that another of them waits for.
    pub waits: Vec<Vec<usize>>,
}

impl Parts {
    /// The steps that run in one launch in an order of their own; with them the one that leaves its splits, which runs before.
    pub(crate) fn together(&self) -> Vec<Vec<usize>> {
        let rows = |part: &Part| if let Part::Rows { steps, .. } = part { Some(steps.clone()) } else { None };
        self.parts.iter().filter_map(rows).collect()
    }

    /// The planes that no launch of their own makes.
    pub(crate) fn wanted_planes(&self, plan: &Plan, precision: Precision, cc: (u32, u32)) -> Vec<WantedPlane> {
        let mut wanted: Vec<WantedPlane> = Vec::new();
        for reader in self.parts.iter().filter_map(|part| part.product(plan)) {
            for of in rows::planes(&plan.steps[reader], precision, cc) {
                let maker = self.parts.iter().find(|part| part.makes_plane(plan, &of, reader));
                let Some(Part::Step(maker)) = maker else { continue };
                match wanted.iter_mut().find(|plane| (plane.maker, plane.of) == (*maker, of)) {
                    Some(known) => known.readers.push(reader),
                    None => wanted.push(WantedPlane { maker: *maker, of, readers: vec![reader] }),
                }
            }
        }
        wanted
    }

    /// The buffers that hold a batch from one step to the next.
    pub(crate) fn lasting(&self, plan: &Plan) -> Vec<usize> {
        let next = |part: &Part| if let Part::Next(step) = *part { buffer_of(&plan.steps[step]) } else { None };
        self.parts.iter().filter_map(next).collect()
    }

    /// The memory of a plan that is run as these parts.
    pub(crate) fn place(&self, plan: Plan) -> Plan {
        let lasting = self.lasting(&plan);
        plan.by_edges(self.together(), &lasting)
    }
}

/// The parts of a plan on a GPU of compute capability `cc`: with `merge` as few as the rules allow and are expected to be worth
/// it, without every step is one.
pub(crate) fn parts(plan: &Plan, precision: Precision, cc: (u32, u32), merge: bool) -> Parts {
    let order = plan.order();
    let planes = planes(plan, precision, cc);
    let with = |plan: &Plan, merges: &[Merge]| with(plan, &planes, merges);
    let mut merges = Vec::new();
    if merge {
        merges.extend((0..plan.steps.len()).flat_map(|i| updates_of(plan, &order, i)));
        let chains = rows::chains(plan, &order, precision, cc).into_iter();
        merges.extend(chains.map(|(steps, joins)| Merge::Rows { steps, joins }));
        merges.extend((0..plan.steps.len()).filter(|&i| is_for_next(plan, i)).map(Merge::Next));
    }
    if let Some(parts) = with(plan, &merges) {
        let microseconds = |parts: &Parts| paper::microseconds(plan, parts, precision, cc);
        return without_slow_rows(merges, parts, |merges| with(plan, merges), microseconds);
    }
    // Each is sound alone, but two may wait for each other: then the first of them it is.
    let mut sound = Vec::new();
    for merge in merges {
        sound.push(merge);
        if with(plan, &sound).is_none() {
            sound.pop();
        }
    }
    with(plan, &sound).expect("steps do not wait for each other in a circle")
}

/// The parts, where a step is expected to be over sooner with the steps of some row by row launch apart, as it may be with so few
/// rows that the launch has a few blocks only, or with the splits before it added up by the product that makes them.
fn without_slow_rows(
    mut merges: Vec<Merge>,
    mut parts: Parts,
    with: impl Fn(&[Merge]) -> Option<Parts>,
    microseconds: impl Fn(&Parts) -> Option<f64>,
) -> Parts {
    let Some(mut least) = microseconds(&parts) else { return parts };
    for at in (0..merges.len()).rev() {
        for less in merges[at].less() {
            let mut fewer = merges.clone();
            fewer.splice(at..=at, less);
            let found = with(&fewer).and_then(|found| Some((microseconds(&found)?, found)));
            if let Some((time, found)) = found.filter(|(time, _)| *time < least) {
                (least, parts, merges) = (time, found, fewer);
            }
        }
    }
    parts
}

/// Steps that can share a launch, or have one in another step of the run.
#[derive(Clone)]
enum Merge {
    /// As [`Part::Rows`].
    Rows {
        steps: Vec<usize>,
        joins: bool,
    },
    Next(usize),
    /// A product and the update of parameters, with these places in the list of its parameters.
    Update {
        product: usize,
        update: usize,
        places: Vec<usize>,
    },
}

impl Merge {
    /// What can be expected to be faster in its place: the rows without the splits before them, and nothing.
    fn less(&self) -> Vec<Option<Merge>> {
        match self {
            Merge::Rows { steps, joins: true } => {
                vec![Some(Merge::Rows { steps: steps[1..].to_vec(), joins: false }), None]
            }
            Merge::Rows { joins: false, .. } => vec![None],
            Merge::Next(_) | Merge::Update { .. } => Vec::new(),
        }
    }
}

/// The buffer that a step writes, if it is one and whole.
fn buffer_of(step: &Step) -> Option<usize> {
    match step.kernel.writes()[..] {
        [View { mem: Mem::Buffer(b), offset: 0, .. }] => Some(b as usize),
        _ => None,
    }
}

/// Whether a step gathers the batch into memory that no other writes, which the next step of the run would do as well for it.
fn is_for_next(plan: &Plan, step: usize) -> bool {
    let Some(buffer) = buffer_of(&plan.steps[step]) else { return false };
    let writes = |other: &Step| other.kernel.writes().iter().any(|w| w.mem == Mem::Buffer(buffer as _));
    let is_only = plan.steps.iter().filter(|other| writes(other)).count() == 1;
    let step = &plan.steps[step];
    step.kernel.gathers_batch() && step.waits.is_empty() && is_only
}

/// What products can take from the step, if it is an update of parameters.
fn updates_of(plan: &Plan, order: &Order, step: usize) -> Vec<Merge> {
    let Some(update) = plan.steps[step].kernel.update() else { return Vec::new() };
    let awaited = plan.steps.iter().any(|other| other.waits.contains(&step));
    if update.scale.is_some() || awaited {
        return Vec::new();
    }
    let place = |view: &View| update.params.iter().position(|(_, gradient)| gradient.is_same_memory(view));
    let of_product = |product: usize| {
        let made = plan.steps[product].kernel.writes();
        // One gradient of several parameters is copied by the plan; here only one could have it.
        let is_one = |view: &View| update.params.iter().filter(|(_, gradient)| gradient.overlaps(view)).count() == 1;
        // What is no scratch memory is wanted by the caller.
        if made.iter().any(|view| !matches!(view.mem, Mem::Buffer(_)) || !is_one(view)) {
            return None;
        }
        let places = made.iter().map(place).collect::<Option<Vec<usize>>>()?;
        let read = |view: &View| {
            let mut others = plan.steps.iter().enumerate().filter(|&(i, _)| i != step);
            others.any(|(_, other)| other.kernel.reads().iter().any(|r| r.overlaps(view)))
        };
        let slots: Vec<Slot> = places.iter().map(|&i| update.params[i].0).collect();
        // Who reads a parameter after its gradient is made would find it updated; so would the product itself.
        let late = |reader| reader == product || order.is_before(product, reader);
        let late = readers(plan, &slots).any(|reader| reader != step && late(reader));
        (!late && !made.iter().any(read)).then_some(Merge::Update { product, update: step, places })
    };
    (0..plan.steps.len()).filter(|&i| plan.steps[i].kernel.can_update()).filter_map(of_product).collect()
}

/// A factor that products of their own launch take as a plane of bf16.
struct NeededPlane {
    of: View,
    /// The steps that make it, none for a parameter.
    makers: Vec<usize>,
    readers: Vec<usize>,
}

/// The planes that the products of a plan take, in the order of the first readers.
fn planes(plan: &Plan, precision: Precision, cc: (u32, u32)) -> Vec<NeededPlane> {
    let mut planes: Vec<NeededPlane> = Vec::new();
    for (step, of) in
        (0..plan.steps.len()).flat_map(|i| rows::planes(&plan.steps[i], precision, cc).map(move |of| (i, of)))
    {
        let makers: Vec<usize> = (0..step).filter(|&i| changes(&plan.steps[i], &of)).collect();
        match planes.iter_mut().find(|plane| plane.of == of && plane.makers == makers) {
            Some(known) if known.readers.contains(&step) => {}
            Some(known) => known.readers.push(step),
            None => planes.push(NeededPlane { of, makers, readers: vec![step] }),
        }
    }
    planes
}

/// Whether a step writes to a view, or updates the parameter that it is of.
pub(super) fn changes(step: &Step, view: &View) -> bool {
    let updates = |slot: &Slot| view.mem == Mem::Slot(*slot);
    step.kernel.writes().iter().any(|written| written.overlaps(view)) || step.kernel.updates().iter().any(updates)
}

/// The parts with some steps merged; none if parts would wait for each other in a circle.
fn with(plan: &Plan, planes: &[NeededPlane], merges: &[Merge]) -> Option<Parts> {
    let mut parts: Vec<Part> = Vec::new();
    let mut of_step: Vec<Option<usize>> = vec![None; plan.steps.len()];
    // Row by row products take their factors as they are, but for the one that leaves its splits.
    let is_row = |step: &usize| {
        let row = |merge: &Merge| matches!(merge, Merge::Rows { steps, joins } if steps[usize::from(*joins)..].contains(step));
        merges.iter().any(row)
    };
    // A product that stores the factor makes the plane as well, unless what follows the product is done elsewhere.
    let leaves = |plane: &NeededPlane| match plane.makers[..] {
        [maker] => {
            part_of(plan, merges, maker) == Some(Part::Step(maker))
                && rows::can_make_plane(&plan.steps[maker], &plane.of)
        }
        _ => false,
    };
    let read = |plane: &NeededPlane| plane.readers.iter().copied().filter(|step| !is_row(step)).collect::<Vec<usize>>();
    let apart: Vec<&NeededPlane> = planes.iter().filter(|plane| !leaves(plane)).collect();
    for step in 0..plan.steps.len() {
        for plane in &apart {
            let readers = read(plane);
            if readers.first() == Some(&step) {
                parts.push(Part::Plane { of: plane.of, readers });
            }
        }
        let Some(part) = part_of(plan, merges, step) else { continue };
        // An update that several parts share belongs to none of them; and nobody waits for the batch of the next step.
        let own: &[usize] = match &part {
            Part::Rows { steps, .. } => steps,
            // Who waits for a product that leaves its splits waits for those that add them up.
            Part::Next(_) | Part::Splits(_) => &[],
            _ => &[step],
        };
        own.iter().for_each(|&s| of_step[s] = Some(parts.len()));
        parts.push(part);
    }
    let waits = |part: &Part| -> Vec<usize> {
        let own = part.steps();
        let steps = waits_of(plan, part).into_iter().filter(|step| !own.contains(step));
        let splits = parts.iter().position(|other| part.joins(other));
        // A product that leaves its splits has read its factors then.
        let left = |step: usize| parts.iter().position(|other| *other == Part::Splits(step));
        let readers = readers_of(plan, merges, part).into_iter().filter(|(step, _)| !own.contains(step));
        let read = |(step, by_product): (usize, bool)| by_product.then(|| left(step)).flatten().or(of_step[step]);
        let mut all: BTreeSet<usize> =
            steps.filter_map(|step| of_step[step]).chain(splits).chain(readers.filter_map(read)).collect();
        if let Some(product) = part.product(plan) {
            let takes = |other: &Part| matches!(other, Part::Plane { readers, .. } if readers.contains(&product));
            all.extend((0..parts.len()).filter(|&i| takes(&parts[i])));
        }
        all.into_iter().collect()
    };
    let waits: Vec<Vec<usize>> = parts.iter().map(waits).collect();
    sorted(parts, &waits)
}

/// The part that begins with a step; none if another has it.
fn part_of(plan: &Plan, merges: &[Merge], step: usize) -> Option<Part> {
    let mut taken = Vec::new();
    for merge in merges {
        match merge {
            Merge::Rows { steps, joins: true } if steps[0] == step => return Some(Part::Splits(step)),
            Merge::Rows { steps, joins } if steps[usize::from(*joins)] == step => {
                return Some(Part::Rows { steps: steps.clone(), joins: *joins });
            }
            Merge::Rows { steps, .. } if steps.contains(&step) => return None,
            Merge::Next(of) if *of == step => return Some(Part::Next(step)),
            Merge::Update { product, update, .. } if *product == step => {
                return Some(Part::Updating { product: step, update: *update });
            }
            Merge::Update { update, places, .. } if *update == step => taken.extend(places),
            _ => {}
        }
    }
    if taken.is_empty() {
        return Some(Part::Step(step));
    }
    let all = plan.steps[step].kernel.update().map_or(0, |update| update.params.len());
    let params: Vec<usize> = (0..all).filter(|i| !taken.contains(i)).collect();
    (!params.is_empty()).then_some(Part::Rest { update: step, params })
}

/// The steps that a part waits for, its own perhaps among them, but for those that read what it updates.
fn waits_of(plan: &Plan, part: &Part) -> Vec<usize> {
    match part {
        Part::Step(step) | Part::Next(step) | Part::Splits(step) | Part::Updating { product: step, .. } => {
            plan.steps[*step].waits.clone()
        }
        Part::Rows { steps, .. } => steps.iter().flat_map(|&step| plan.steps[step].waits.iter().copied()).collect(),
        Part::Plane { of, readers } => (0..readers[0]).filter(|&i| changes(&plan.steps[i], of)).collect(),
        Part::Rest { update, params } => {
            let rest = plan.steps[*update].kernel.update().expect("an update was merged").only(params);
            let gradients = rest.reads();
            let makes = |i: &usize| {
                let writes = plan.steps[*i].kernel.writes();
                writes.iter().any(|w| gradients.iter().any(|gradient| gradient.overlaps(w)))
            };
            (0..*update).filter(makes).collect()
        }
    }
}

/// The steps that read the parameters which a part updates, if it is an update of some; with each, whether only its product does.
fn readers_of(plan: &Plan, merges: &[Merge], part: &Part) -> Vec<(usize, bool)> {
    let (update, places) = match part {
        Part::Updating { product, update } => {
            let places = merges.iter().find_map(|merge| match merge {
                Merge::Update { product: of, places, .. } if of == product => Some(places),
                _ => None,
            });
            (*update, places.expect("the product was merged"))
        }
        Part::Rest { update, params } => (*update, params),
        _ => return Vec::new(),
    };
    let update = plan.steps[update].kernel.update().expect("an update was merged");
    let slots: Vec<Slot> = places.iter().map(|&i| update.params[i].0).collect();
    let is_one = |view: View| slots.iter().any(|&slot| view.mem == Mem::Slot(slot));
    let by_product =
        |step: usize| !plan.steps[step].kernel.program().is_some_and(|program| program.reads().any(is_one));
    readers(plan, &slots).map(|step| (step, by_product(step))).collect()
}

/// The steps that read any of the slots.
fn readers<'a>(plan: &'a Plan, slots: &'a [Slot]) -> impl Iterator<Item = usize> + 'a {
    let reads =
        |step: &Step| step.kernel.reads().iter().any(|view| slots.iter().any(|&slot| view.mem == Mem::Slot(slot)));
    (0..plan.steps.len()).filter(move |&i| reads(&plan.steps[i]))
}

/// The parts in an order in which each comes after those that it waits for, otherwise as they stand; none if there is no such
/// order.
fn sorted(parts: Vec<Part>, waits: &[Vec<usize>]) -> Option<Parts> {
    let mut place: Vec<Option<usize>> = vec![None; parts.len()];
    let mut sequence = Vec::with_capacity(parts.len());
    while sequence.len() < parts.len() {
        let ready = |&i: &usize| place[i].is_none() && waits[i].iter().all(|&j| place[j].is_some());
        let next = (0..parts.len()).find(ready)?;
        place[next] = Some(sequence.len());
        sequence.push(next);
    }
    let mut parts: Vec<Option<Part>> = parts.into_iter().map(Some).collect();
    let all: Vec<Vec<usize>> = sequence
        .iter()
        .map(|&i| waits[i].iter().map(|&j| place[j].expect("every part has a place")).collect())
        .collect();
    let order = Order::of(all.iter().map(Vec::as_slice));
    Some(Parts {
        parts: sequence.iter().map(|&i| parts[i].take().expect("every part once")).collect(),
        waits: all.iter().map(|waits| order.direct(waits)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::{Graph, Var};
    use crate::engine::optim::Optimizer;
    use crate::engine::plan::Fusion;

    /// The number of products that update parameters, in a plan of the update and of some outputs.
    fn updating<'g>(g: &'g Graph, made: &[(Var<'g>, Var<'g>)], outputs: &[Var<'g>]) -> usize {
        g.optimize(Optimizer::adam(), 1e-3, made);
        let plan = Plan::build(g, outputs, Fusion::all()).unwrap();
        let Parts { parts, waits } = parts(&plan, Precision::F32, (9, 0), true);
        assert!(waits.iter().enumerate().all(|(i, waits)| waits.iter().all(|&j| j < i)));
        parts.iter().filter(|part| matches!(part, Part::Updating { .. })).count()
    }

    #[test]
    fn two_that_would_wait_for_each_other_do_not_both_update() {
        let g = Graph::new();
        let (x, v, w) = (g.input(&[8, 6]), g.param("v", &[8, 5]), g.param("w", &[6, 5]));
        let made = [(v, x.matmul(w)), (w, x.t().matmul(v))];
        assert_eq!(updating(&g, &made, &[v.sum_all() + w.sum_all()]), 1);
    }

    #[test]
    fn a_gradient_that_somebody_wants_is_written() {
        let made = |g: &Graph, wanted: bool| {
            let (x, y, w) = (g.input(&[8, 6]), g.input(&[8, 5]), g.param("w", &[6, 5]));
            let gradient = x.t().matmul(y);
            let outputs = if wanted { vec![w.sum_all(), gradient] } else { vec![w.sum_all()] };
            updating(g, &[(w, gradient)], &outputs)
        };
        assert_eq!([false, true].map(|wanted| made(&Graph::new(), wanted)), [1, 0]);
    }
}
