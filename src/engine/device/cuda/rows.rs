//! Steps that follow one another row by row and share a launch: which they are, and their launch (kernels/rows.cu).
//!
//! Row r of such a step needs, of what the others write, only row r: a product with its left operand as it is stored, a
//! pointwise program. A block takes some rows through all of them, its products in f32 whatever the precision of others is.
//!
//! Before the first of them a larger product may stand whose k is split: it leaves the sums of each split, and row r of them is
//! added up, in the same order as otherwise by the last block of a tile, where row r is needed.

use std::mem::offset_of;

use super::compiled;
use super::lower::Lower;
use super::params::{MAX_PHASES, RowsParams, RowsPhase, zeroed};
use super::program::{is_small, small};
use crate::engine::device::Precision;
use crate::engine::error::Result;
use crate::engine::plan::program::{Access, Output, Program};
use crate::engine::plan::{Mem, Order, Plan, Step, View};
use crate::engine::steps::Kernel;
use crate::engine::steps::gemm::cuda::{GemmLaunch, epilogue, multiprocessors};
use crate::engine::steps::gemm::{Product, Target};

/// Most weights of a product: every block reads all of them, which takes 3 µs and more on the largest GPUs.
const MOST_WEIGHTS: usize = 1 << 15;

/// Most rows for each multiprocessor: with more, products of whole tiles use what they read more often.
const MOST_ROWS: usize = 8;

/// The products whose order of additions the kernel has.
const ALONE: [&str; 2] = ["gemm_f32_32x32", "gemm_f32_64x32"];

/// Bytes of shared memory that need no consent of the driver.
const MOST_SHARED: usize = 48 << 10;

/// And with weights that are copied ahead: so much that a block of the launch before finds room beside it on a multiprocessor that
/// has 228 KiB.
const MOST_WITH_WEIGHTS: usize = 128 << 10;

/// The major versions of compute capabilities that copy weights ahead: from 9.0 on launches are set up ahead, and on 12.x a
/// multiprocessor has no room for weights beside another launch.
pub(super) const COPY_AHEAD: std::ops::Range<u32> = 9..12;

const THREADS: usize = 256;

/// Most steps of a launch, without one whose splits it adds up.
const MOST_STEPS: usize = MAX_PHASES - 1;

/// What a step does with every row.
pub(crate) enum RowWork<'a> {
    Product(&'a Product),
    Pointwise(&'a Program),
}

/// What a phase begins with.
enum RowSums<'a> {
    None,
    /// A product, which has this order of additions.
    Multiplied(&'a Product, GemmLaunch),
    /// The splits of a product that another launch has left.
    Split(&'a Product, GemmLaunch),
}

/// A step as a phase of the kernel.
struct Phase<'a> {
    sums: RowSums<'a>,
    program: &'a Program,
    /// The hand-written epilogue, 0 for none.
    epilogue: u32,
    /// Whether the program is interpreted.
    interpreted: bool,
}

impl<'a> Phase<'a> {
    /// None where the kernel cannot do what the step does, or should not.
    fn of(work: RowWork<'a>, cc: (u32, u32)) -> Option<Phase<'a>> {
        let (product, program) = match work {
            RowWork::Pointwise(program) => (None, program),
            RowWork::Product(product) => match &product.out {
                Target::Program(program) => (Some(product), program),
                Target::Store(_) => return None,
            },
        };
        let sums = match product {
            None => RowSums::None,
            Some(product) => {
                let (_, n, k) = product.mnk;
                // A small product in f32 is as exact as any precision asks for.
                let choice = product.choice(Precision::F32, cc);
                let suits = !product.transposed.0 && product.col_sums.is_none();
                if !suits || n * k > MOST_WEIGHTS || !ALONE.contains(&choice.kernel) {
                    return None;
                }
                RowSums::Multiplied(product, choice)
            }
        };
        Phase::with(sums, program, cc)
    }

    /// The end of a product whose splits another launch leaves; none where it has none, or sums of its own, which would be made
    /// in another order.
    fn of_splits(work: RowWork<'a>, precision: Precision, cc: (u32, u32)) -> Option<Phase<'a>> {
        let RowWork::Product(product) = work else { return None };
        let Target::Program(program) = &product.out else { return None };
        let choice = product.choice(precision, cc);
        let stores = program.outputs.iter().all(|output| matches!(output, Output::Store { .. }));
        if choice.splits == 1 || !stores || product.col_sums.is_some() {
            return None;
        }
        Phase::with(RowSums::Split(product, choice), program, cc)
    }

    fn with(sums: RowSums<'a>, program: &'a Program, cc: (u32, u32)) -> Option<Phase<'a>> {
        let number = if let RowSums::None = sums { 0 } else { epilogue(program).unwrap_or(0) };
        let interpreted = number == 0 && compiled::number(program) == 0;
        let phase = Phase { sums, program, epilogue: number, interpreted };
        let fits =
            phase.shared(4) <= MOST_SHARED && is_small(program) && program.rows <= MOST_ROWS * multiprocessors(cc);
        fits.then_some(phase)
    }

    /// The product that it multiplies.
    fn product(&self) -> Option<&Product> {
        if let RowSums::Multiplied(product, _) = self.sums { Some(product) } else { None }
    }

    /// Threads that run the program: as many as there are quads of `rows` rows, in powers of two, or fewer where the registers
    /// of an interpreted one take too much memory.
    fn group(&self, rows: usize) -> usize {
        let quads = (rows * self.program.cols.div_ceil(4)).next_power_of_two();
        let mut group = quads.clamp(32, THREADS);
        while self.interpreted && group > 32 && 16 * group * self.program.regs > MOST_SHARED / 2 {
            group /= 2;
        }
        group
    }

    /// Bytes of shared memory with `rows` rows in a block; the formula stands in kernels/rows.cu.
    fn shared(&self, rows: usize) -> usize {
        let n = self.program.cols;
        let product = self.product().map_or(0, |product| rows * product.mnk.2 + 4 * rows * n);
        let registers = if self.interpreted { 4 * self.program.regs * self.group(rows) } else { 0 };
        4 * (rows * n.next_multiple_of(4) + product.max(registers).max(64))
    }

    /// The weights, if they can be copied to shared memory before the launch waits: if they are a parameter that nothing in the
    /// step changes before, and move 16 bytes at a time.
    fn ahead(&self, plan: &Plan, order: &Order, step: usize) -> Option<View> {
        let b = self.product()?.b;
        let Mem::Slot(slot) = b.mem else { return None };
        let changes =
            |kernel: &dyn Kernel| kernel.updates().contains(&slot) || kernel.writes().iter().any(|w| w.overlaps(&b));
        let late = |(i, other): (usize, &Step)| !changes(&*other.kernel) || order.is_before(step, i);
        let whole = [b.offset, b.stride, b.cols].iter().all(|size| size.is_multiple_of(4));
        (whole && plan.steps.iter().enumerate().all(late)).then_some(b)
    }

    /// Floats of their copy, as in kernels/rows.cu.
    fn copied(&self, b: &View) -> usize {
        let transposed = self.product().is_some_and(|product| product.transposed.1);
        b.rows * if transposed { b.cols.next_multiple_of(8) + 4 } else { b.cols }
    }

    fn weights(&self) -> usize {
        self.product().map_or(0, |product| product.mnk.1 * product.mnk.2)
    }

    /// Whether each view of what `wrote` lists is read row by row, if it is read.
    fn reads_by_rows(&self, wrote: &[View]) -> bool {
        let rows = self.program.rows;
        let apart = |view: &View| wrote.iter().all(|w| !w.overlaps(view));
        let by_rows = |view: &View| wrote.iter().all(|w| !w.overlaps(view) || same_rows(w, view, rows));
        let inputs = self.program.inputs.iter().all(|input| match input.access {
            Access::Full | Access::Col => by_rows(&input.view),
            Access::Row | Access::Scalar => apart(&input.view),
        });
        inputs && self.product().is_none_or(|product| by_rows(&product.a) && apart(&product.b))
    }
}

/// Whether row r of one view lies in row r of the other, for all of `rows` rows.
fn same_rows(a: &View, b: &View, rows: usize) -> bool {
    let inside = |v: &View| v.rows == rows && v.stride > 0 && v.offset % v.stride + v.cols <= v.stride;
    inside(a) && inside(b) && a.stride == b.stride && a.offset / a.stride == b.offset / b.stride
}

/// The steps that share a launch, in order; each list has two at least, and a product among them. With each list, whether the
/// first is a product before them that can leave them its splits.
pub(crate) fn chains(plan: &Plan, order: &Order, precision: Precision, cc: (u32, u32)) -> Vec<(Vec<usize>, bool)> {
    let phase = |i: usize| plan.steps[i].kernel.by_rows().and_then(|work| Phase::of(work, cc));
    let mut taken = vec![false; plan.steps.len()];
    let mut found = Vec::new();
    for first in 0..plan.steps.len() {
        let Some(head) = phase(first).filter(|_| !taken[first]) else { continue };
        let mut chain = vec![first];
        while chain.len() < MOST_STEPS {
            let follows = |&next: &usize| {
                let last = *chain.last().expect("it has a first");
                !taken[next]
                    && plan.steps[next].waits.contains(&last)
                    && phase(next)
                        .is_some_and(|p| p.program.rows == head.program.rows && joins(plan, order, &chain, next, &p))
            };
            let Some(next) = (first + 1..plan.steps.len()).find(follows) else { break };
            chain.push(next);
        }
        let has_product = chain.iter().any(|&i| plan.steps[i].is_product());
        if chain.len() > 1 && has_product {
            chain.iter().for_each(|&i| taken[i] = true);
            found.push(chain);
        }
    }
    let with_splits = |chain: Vec<usize>| match before(plan, order, &chain, precision, cc) {
        Some(first) if !taken[first] => {
            taken[first] = true;
            ([vec![first], chain].concat(), true)
        }
        _ => (chain, false),
    };
    found.into_iter().map(with_splits).collect()
}

/// Whether a step can be the next of a chain: it reads what the others write row by row, writes nothing that they touch, and
/// nothing outside of the chain comes between.
fn joins(plan: &Plan, order: &Order, chain: &[usize], next: usize, phase: &Phase<'_>) -> bool {
    let wrote: Vec<View> = chain.iter().flat_map(|&i| plan.steps[i].kernel.writes()).collect();
    let read: Vec<View> = chain.iter().flat_map(|&i| plan.steps[i].kernel.reads()).collect();
    let writes = plan.steps[next].kernel.writes();
    let clean = writes.iter().all(|w| wrote.iter().chain(&read).all(|view| !view.overlaps(w)));
    let between = |i: usize| chain.iter().any(|&j| order.is_before(j, i)) && order.is_before(i, next);
    let alone = (0..next).all(|i| chain.contains(&i) || !between(i));
    phase.reads_by_rows(&wrote) && clean && alone
}

/// The product before a chain that can leave the splits of its k to it.
fn before(plan: &Plan, order: &Order, chain: &[usize], precision: Precision, cc: (u32, u32)) -> Option<usize> {
    let phase = |i: usize| plan.steps[i].kernel.by_rows().and_then(|work| Phase::of(work, cc));
    let rows = phase(chain[0])?.program.rows;
    let suits = |&first: &usize| {
        let of = plan.steps[first].kernel.by_rows().and_then(|work| Phase::of_splits(work, precision, cc));
        let all: Vec<usize> = [&[first], chain].concat();
        let follows = |at: usize| phase(all[at]).is_some_and(|p| joins(plan, order, &all[..at], all[at], &p));
        let wrote = plan.steps[first].kernel.writes();
        let read = plan.steps[chain[0]].kernel.reads().iter().any(|view| wrote.iter().any(|w| w.overlaps(view)));
        read && of.is_some_and(|of| of.program.rows == rows) && (1..all.len()).all(follows)
    };
    plan.steps[chain[0]].waits.iter().copied().find(suits)
}

/// The factors of a product.
pub(crate) fn factors(step: &Step) -> Vec<View> {
    match step.kernel.by_rows() {
        Some(RowWork::Product(product)) => vec![product.a, product.b],
        _ => Vec::new(),
    }
}

/// The factors that a step in a launch of its own takes as planes of bf16.
pub(crate) fn planes(step: &Step, precision: Precision, cc: (u32, u32)) -> impl Iterator<Item = View> + use<> {
    let planes = match step.kernel.by_rows() {
        Some(RowWork::Product(product)) => product.planes(precision, cc),
        _ => Vec::new(),
    };
    planes.into_iter()
}

/// Whether a step in a launch of its own can leave a view as a plane of bf16 too.
pub(crate) fn can_make_plane(step: &Step, of: &View) -> bool {
    matches!(step.kernel.by_rows(), Some(RowWork::Product(product)) if product.can_make_plane(of))
}

/// The phases of a chain.
fn phases<'a>(plan: &'a Plan, chain: &[usize], joins: bool, precision: Precision, cc: (u32, u32)) -> Vec<Phase<'a>> {
    let of = |(at, &i): (usize, &usize)| {
        let work = plan.steps[i].kernel.by_rows()?;
        if at == 0 && joins { Phase::of_splits(work, precision, cc) } else { Phase::of(work, cc) }
    };
    chain.iter().enumerate().map(|i| of(i).expect("chains have phases")).collect()
}

/// The weights that the launch of a chain copies before it waits, and where to in shared memory, in floats, phase by phase. It
/// has to wait for a launch of this step: that has waited itself until the step before was over.
fn ahead(
    plan: &Plan,
    chain: &[usize],
    phases: &[Phase<'_>],
    begin: usize,
    cc: (u32, u32),
) -> Vec<Option<(View, usize)>> {
    let order = plan.order();
    let mut at = begin.next_multiple_of(4);
    let mut place = |(phase, &step): (&Phase<'_>, &usize)| {
        let b = phase.ahead(plan, &order, step)?;
        let end = at + phase.copied(&b);
        (4 * end <= MOST_WITH_WEIGHTS).then(|| (b, std::mem::replace(&mut at, end)))
    };
    let suits = COPY_AHEAD.contains(&cc.0);
    phases.iter().zip(chain).map(|phase| if suits { place(phase) } else { None }).collect()
}

/// The parameters that the launch of a chain may read before it waits, whether there is room for them or not.
pub(crate) fn reads_ahead(
    plan: &Plan,
    chain: &[usize],
    joins: bool,
    precision: Precision,
    cc: (u32, u32),
) -> Vec<View> {
    let order = plan.order();
    let phases = phases(plan, chain, joins, precision, cc);
    phases.iter().zip(chain).filter_map(|(phase, &step)| phase.ahead(plan, &order, step)).collect()
}

/// Makes the launch of a chain. `joins`: its first step is a product that has left its splits. `waits`: it waits for another
/// launch of the step.
pub(crate) fn lower(plan: &Plan, chain: &[usize], joins: bool, waits: bool, to: &mut Lower<'_>) -> Result<()> {
    let cc = to.compute_capability();
    let phases = phases(plan, chain, joins, to.precision, cc);
    let rows = phases[0].program.rows;
    let (kernel, per_block) = if rows <= 2 * multiprocessors(cc) { ("rows_1", 1) } else { ("rows_4", 4) };
    let blocks = rows.div_ceil(per_block);
    let shared = phases.iter().map(|phase| phase.shared(per_block)).max().unwrap_or(0);
    let ahead = if waits { ahead(plan, chain, &phases, shared / 4, cc) } else { vec![None; chain.len()] };
    // Parameters lie one behind the other, whatever their sizes.
    let whole = |(b, at): (View, usize)| to.address(&b).is_multiple_of(16).then_some((b, at));
    let ahead: Vec<Option<(View, usize)>> = ahead.into_iter().map(|copy| copy.and_then(whole)).collect();
    let mut params = RowsParams { clock: to.clock, rows: rows as i32, phases_len: phases.len() as i32, ..zeroed() };
    for ((to_phase, phase), ahead) in params.phases.iter_mut().zip(&phases).zip(&ahead) {
        *to_phase = encoded(phase, per_block, blocks, to)?;
        to_phase.ahead = ahead.map_or(0, |(_, at)| at as i32);
    }
    let copied =
        phases.iter().zip(&ahead).filter_map(|(phase, ahead)| ahead.map(|(b, at)| 4 * (at + phase.copied(&b))));
    let shared = copied.max().unwrap_or(shared);
    let launch = to.launch(kernel, [blocks as u32, 1, 1], THREADS as u32, shared as u32, &params)?;
    if joins {
        to.reads_splits(launch, chain[0], offset_of!(RowsParams, phases) + offset_of!(RowsPhase, a));
    }
    // A multiply-add of a warp needs a load of a weight and one of a row: sixteen lanes in a cycle, for every row of the block.
    let weights: usize = phases.iter().map(Phase::weights).sum();
    let early: usize = ahead.iter().flatten().map(|(b, _)| b.size()).sum();
    let turns = blocks.div_ceil(multiprocessors(cc));
    to.multiplies(launch, (turns * weights) as f64 / 16.0, 0.0);
    to.moves(launch, 4.0 * (blocks * (weights - early)) as f64);
    to.moves_ahead(launch, 4.0 * (blocks * early) as f64);
    for phase in phases.iter().filter(|phase| phase.epilogue == 0) {
        to.runs(launch, phase.program, true);
    }
    Ok(())
}

fn encoded(phase: &Phase<'_>, per_block: usize, blocks: usize, to: &mut Lower<'_>) -> Result<RowsPhase> {
    let program = small(&to.program(phase.program, blocks)?);
    let base = RowsPhase {
        n: phase.program.cols as i32,
        epilogue: phase.epilogue as i32,
        group: phase.group(per_block) as i32,
        program,
        ..zeroed()
    };
    Ok(match &phase.sums {
        RowSums::None => base,
        RowSums::Multiplied(product, choice) => RowsPhase {
            a: to.address(&product.a),
            b: to.address(&product.b),
            k: product.mnk.2 as i32,
            lda: product.a.stride as i32,
            ldb: product.b.stride as i32,
            tb: i32::from(product.transposed.1),
            splits: choice.splits as i32,
            k_per_split: choice.k_per_split as i32,
            ..base
        },
        // The address of the splits is known when there is memory for them.
        RowSums::Split(product, choice) => {
            let (m, n, _) = product.mnk;
            RowsPhase { lda: choice.apart(m, n).0 as i32, splits: choice.splits as i32, ..base }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_correspond_where_they_lie_beside_each_other() {
        let whole = View { mem: Mem::Buffer(0), offset: 0, rows: 6, cols: 8, stride: 8 };
        let (left, right) = (whole.columns(0, 4), whole.columns(4, 4));
        assert!(same_rows(&whole, &left, 6) && same_rows(&whole, &right, 6));
        assert!(!same_rows(&whole, &View { offset: 8, rows: 5, ..whole }, 6), "a row further down");
        assert!(!same_rows(&whole, &whole.reshaped(12, 4), 6), "another rectangle of the same numbers");
        assert!(!same_rows(&whole, &whole, 5));
    }

    #[test]
    fn the_kernel_has_the_order_of_the_product_that_it_replaces() {
        let gemm = include_str!("../../../../kernels/gemm.cu");
        assert!(
            gemm.contains("using F32_32x32 = Tile<Padded, 32, 32, 16, 32, 4, 32, 4>;"),
            "slices of a strip: 4 of 8"
        );
        let rows = include_str!("../../../../kernels/rows.cu");
        assert!(rows.contains("SLICES = 4, SLICE_DEPTH = 8"));
    }
}
