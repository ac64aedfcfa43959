//! Steps that follow one another row by row and share a launch: which they are, and their launch (kernels/rows.cu).
//!
//! Row r of such a step needs, of what the others write, only row r: a product with its left operand as it is stored, a
//! pointwise program. A block takes some rows through all of them, its products in f32 whatever the precision of others is.

use super::compiled;
use super::lower::Lower;
use super::params::{MAX_PHASES, RowsParams, RowsPhase, zeroed};
use super::program::{is_small, small};
use crate::engine::device::Precision;
use crate::engine::error::Result;
use crate::engine::plan::program::{Access, Program};
use crate::engine::plan::{Order, Plan, View};
use crate::engine::steps::gemm::cuda::{Finish, GemmLaunch, choose, epilogue, multiprocessors};
use crate::engine::steps::gemm::{Product, Target};

/// Most weights of a product: every block reads all of them, which takes 3 µs and more on the largest GPUs.
const MOST_WEIGHTS: usize = 1 << 15;

/// Most rows for each multiprocessor: with more, products of whole tiles use what they read more often.
const MOST_ROWS: usize = 8;

/// The products whose order of additions the kernel has.
const ALONE: [&str; 2] = ["gemm_f32_32x32", "gemm_f32_64x32"];

/// Bytes of shared memory that need no consent of the driver.
const MOST_SHARED: usize = 48 << 10;

const THREADS: usize = 256;

/// What a step does with every row.
pub(crate) enum RowWork<'a> {
    Product(&'a Product),
    Pointwise(&'a Program),
}

/// A step as a phase of the kernel.
struct Phase<'a> {
    product: Option<(&'a Product, GemmLaunch)>,
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
        let number = product.and_then(|_| epilogue(program)).unwrap_or(0);
        let product = match product {
            None => None,
            Some(product) => {
                let (m, n, k) = product.mnk;
                // A small product in f32 is as exact as any precision asks for.
                let choice = choose(m, n, k, Precision::F32, cc, Finish::of(Some(program)));
                let suits = !product.transposed.0 && product.col_sums.is_none();
                if !suits || n * k > MOST_WEIGHTS || !ALONE.contains(&choice.kernel) {
                    return None;
                }
                Some((product, choice))
            }
        };
        let interpreted = number == 0 && compiled::number(program) == 0;
        let phase = Phase { product, program, epilogue: number, interpreted };
        let fits =
            phase.shared(4) <= MOST_SHARED && is_small(program) && program.rows <= MOST_ROWS * multiprocessors(cc);
        fits.then_some(phase)
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
        let product = self.product.as_ref().map_or(0, |(product, _)| rows * product.mnk.2 + 4 * rows * n);
        let registers = if self.interpreted { 4 * self.program.regs * self.group(rows) } else { 0 };
        4 * (rows * n.next_multiple_of(4) + product.max(registers).max(64))
    }

    fn weights(&self) -> usize {
        self.product.as_ref().map_or(0, |(product, _)| product.mnk.1 * product.mnk.2)
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
        inputs && self.product.as_ref().is_none_or(|(product, _)| by_rows(&product.a) && apart(&product.b))
    }
}

/// Whether row r of one view lies in row r of the other, for all of `rows` rows.
fn same_rows(a: &View, b: &View, rows: usize) -> bool {
    let inside = |v: &View| v.rows == rows && v.stride > 0 && v.offset % v.stride + v.cols <= v.stride;
    inside(a) && inside(b) && a.stride == b.stride && a.offset / a.stride == b.offset / b.stride
}

/// The steps that share a launch, in order; each list has two at least, and a product among them.
pub(crate) fn chains(plan: &Plan, order: &Order, cc: (u32, u32)) -> Vec<Vec<usize>> {
    let phase = |i: usize| plan.steps[i].kernel.by_rows().and_then(|work| Phase::of(work, cc));
    let mut taken = vec![false; plan.steps.len()];
    let mut found = Vec::new();
    for first in 0..plan.steps.len() {
        let Some(head) = phase(first).filter(|_| !taken[first]) else { continue };
        let mut chain = vec![first];
        while chain.len() < MAX_PHASES {
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
    found
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

/// Makes the launch of a chain.
pub(crate) fn lower(plan: &Plan, chain: &[usize], to: &mut Lower<'_>) -> Result<()> {
    let cc = to.compute_capability();
    let of = |&i: &usize| plan.steps[i].kernel.by_rows().and_then(|work| Phase::of(work, cc));
    let phases: Vec<Phase<'_>> = chain.iter().map(|i| of(i).expect("chains have phases")).collect();
    let rows = phases[0].program.rows;
    let (kernel, per_block) = if rows <= 2 * multiprocessors(cc) { ("rows_1", 1) } else { ("rows_4", 4) };
    let blocks = rows.div_ceil(per_block);
    let mut params = RowsParams { clock: to.clock, rows: rows as i32, phases_len: phases.len() as i32, ..zeroed() };
    for (to_phase, phase) in params.phases.iter_mut().zip(&phases) {
        *to_phase = encoded(phase, per_block, blocks, to)?;
    }
    let shared = phases.iter().map(|phase| phase.shared(per_block)).max().unwrap_or(0);
    let launch = to.launch(kernel, [blocks as u32, 1, 1], THREADS as u32, shared as u32, &params)?;
    // A multiply-add of a warp needs a load of a weight and one of a row: sixteen lanes in a cycle, for every row of the block.
    let weights: usize = phases.iter().map(Phase::weights).sum();
    let turns = blocks.div_ceil(multiprocessors(cc));
    to.multiplies(launch, (turns * weights) as f64 / 16.0, 0.0);
    to.moves(launch, 4.0 * (blocks * weights) as f64);
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
    Ok(match &phase.product {
        None => base,
        Some((product, choice)) => RowsPhase {
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::plan::Mem;

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
