//! Waves: each step as early as the steps it waits for allow.

use std::collections::HashSet;

use super::lower::LoweredGraph;
use super::{Buffer, Mem, Plan, Step, View, memory};
use crate::engine::graph::{Graph, Slot};

/// Orders the steps, finds out how long each buffer lives, and places it.
pub(super) fn schedule(graph: &Graph, lowered: LoweredGraph) -> Plan {
    let waves_of = waves(&lowered);
    let mut steps: Vec<Step> =
        lowered.steps.into_iter().zip(&waves_of).map(|((kernel, at), &wave)| Step { kernel, wave, at }).collect();
    // Within a wave the largest first: the last chunks to be claimed are then small ones.
    steps.sort_by_key(|s| (s.wave, std::cmp::Reverse(s.flops() + s.bytes())));
    let mut buffers = lifetimes(&steps, &lowered.buffers);
    let arena = memory::place(&mut buffers);
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
        slots: graph.slots(),
        tensors: (0..count).map(|i| tensor(i).iter().map(|&v| v as f32).collect()).collect(),
        schedules: graph.schedules(),
        totals: lowered.effects.totals.len(),
        batch_rows: lowered.batch_rows,
        update: lowered.effects.optimize.map(|o| (o.rule, o.rate)),
    }
}

/// The wave of every step: the length of the longest chain of steps that it waits for.
fn waves(lowered: &LoweredGraph) -> Vec<usize> {
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

/// A buffer lives from the first wave that writes it to the last that touches it.
fn lifetimes(steps: &[Step], sizes: &[(usize, bool)]) -> Vec<Buffer> {
    let unused = (usize::MAX, 0);
    let mut buffers: Vec<Buffer> =
        sizes.iter().map(|&(len, persistent)| Buffer { len, offset: 0, persistent, alive: unused }).collect();
    for step in steps {
        for view in step.kernel.reads().iter().chain(&step.kernel.writes()) {
            if let Mem::Buffer(b) = view.mem {
                let alive = &mut buffers[b as usize].alive;
                *alive = (alive.0.min(step.wave), alive.1.max(step.wave));
            }
        }
    }
    buffers.iter_mut().filter(|b| b.alive == unused).for_each(|b| b.alive = (0, 0));
    buffers
}
