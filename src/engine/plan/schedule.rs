//! What waits for what, and the waves that come of it: each step as early as the steps it waits for allow.

use std::collections::HashSet;

use super::lower::LoweredGraph;
use super::memory::Alive;
use super::order::Order;
use super::{Buffer, Mem, Plan, Step, View, memory};
use crate::engine::graph::{Graph, Slot};

/// Orders the steps, finds out how long each buffer lives, and places it.
pub(super) fn schedule(graph: &Graph, lowered: LoweredGraph) -> Plan {
    let waits = waits(&lowered);
    let waves = waves(&waits);
    let size = |i: usize| lowered.steps[i].0.flops() + lowered.steps[i].0.bytes();
    let mut sequence: Vec<usize> = (0..waits.len()).collect();
    // Within a wave the largest first: the last chunks to be claimed are then small ones.
    sequence.sort_by_key(|&i| (waves[i], std::cmp::Reverse(size(i))));
    let mut place = vec![0; sequence.len()];
    sequence.iter().enumerate().for_each(|(at, &i)| place[i] = at);
    let waits: Vec<Vec<usize>> = sequence.iter().map(|&i| waits[i].iter().map(|&j| place[j]).collect()).collect();
    let order = Order::of(waits.iter().map(Vec::as_slice));
    let step = |(&i, waits): (&usize, &Vec<usize>)| {
        let (kernel, at) = lowered.steps[i].clone();
        Step { kernel, wave: waves[i], waits: order.direct(waits), at }
    };
    let steps: Vec<Step> = sequence.iter().zip(&waits).map(step).collect();
    let mut buffers = lifetimes(&steps, &lowered.buffers);
    let arena = memory::place(&mut buffers, &Alive::InWaves(&steps));
    let read: HashSet<Mem> = steps.iter().flat_map(|s| s.kernel.reads()).map(|v| v.mem).collect();
    let numbers = read.iter().filter_map(|mem| if let Mem::Tensor(i) = *mem { Some(i) } else { None });
    let count = numbers.max().map_or(0, |i| i + 1);
    // Arrays that nothing reads, such as the cotangent of a `jvp`, keep their number and no elements.
    let tensor = |i: u32| if read.contains(&Mem::Tensor(i)) { graph.tensor_data(i) } else { Vec::new() };
    Plan {
        waves: steps.last().map_or(0, |s| s.wave + 1),
        steps,
        buffers,
        arena,
        groups: None,
        slots: graph.slots(),
        tensors: (0..count).map(|i| tensor(i).iter().map(|&v| v as f32).collect()).collect(),
        schedules: graph.schedules(),
        totals: lowered.effects.totals.len(),
        batch_rows: lowered.batch_rows,
        update: lowered.effects.optimize.map(|o| (o.rule, o.rate)),
    }
}

/// The steps that each step waits for, those included that it waits for through others.
fn waits(lowered: &LoweredGraph) -> Vec<Vec<usize>> {
    let kernels = lowered.steps.iter().map(|(kernel, _)| kernel);
    let reads: Vec<Vec<View>> = kernels.clone().map(|k| k.reads()).collect();
    let writes: Vec<Vec<View>> = kernels.clone().map(|k| k.writes()).collect();
    let updates: Vec<Vec<Slot>> = kernels.map(|k| k.updates()).collect();
    let n = lowered.steps.len();
    let mut waits: Vec<Vec<usize>> = vec![Vec::new(); n];
    for i in 0..n {
        for j in (0..n).filter(|&j| j != i) {
            let fills = |v: &View| !matches!(v.mem, Mem::Slot(s) if !lowered.written_first.contains(&s));
            let after_write = reads[i].iter().any(|r| fills(r) && writes[j].iter().any(|w| w.overlaps(r)));
            // A parameter or state keeps its old content until every reader is done.
            let overwrites = |v: &View| matches!(v.mem, Mem::Slot(s) if !lowered.written_first.contains(&s));
            let after_read = reads[j].iter().any(|r| {
                let updated = matches!(r.mem, Mem::Slot(s) if updates[i].contains(&s));
                updated || (overwrites(r) && writes[i].iter().any(|w| w.overlaps(r)))
            });
            if after_write || after_read {
                waits[i].push(j);
            }
        }
    }
    waits
}

/// The wave of every step: the length of the longest chain of steps that it waits for.
fn waves(waits: &[Vec<usize>]) -> Vec<usize> {
    let n = waits.len();
    let mut wave: Vec<Option<usize>> = vec![None; n];
    for _ in 0..n {
        for i in 0..n {
            if wave[i].is_none() && waits[i].iter().all(|&j| wave[j].is_some()) {
                wave[i] = Some(waits[i].iter().map(|&j| wave[j].expect("just checked") + 1).max().unwrap_or(0));
            }
        }
    }
    wave.into_iter().map(|w| w.expect("steps do not wait for each other in a circle")).collect()
}

/// The buffers with the steps that touch them, in order.
fn lifetimes(steps: &[Step], sizes: &[(usize, bool)]) -> Vec<Buffer> {
    let unused = |&(len, persistent): &(usize, bool)| Buffer { len, offset: 0, persistent, users: Vec::new() };
    let mut buffers: Vec<Buffer> = sizes.iter().map(unused).collect();
    for (number, step) in steps.iter().enumerate() {
        for view in step.kernel.reads().iter().chain(&step.kernel.writes()) {
            if let Mem::Buffer(b) = view.mem {
                let users = &mut buffers[b as usize].users;
                if users.last() != Some(&number) {
                    users.push(number);
                }
            }
        }
    }
    buffers
}
