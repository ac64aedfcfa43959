//! The matrix product as a step: alone, with a pointwise program as its epilogue, with column sums on the side.

#[cfg(feature = "cuda")]
use std::mem::offset_of;
use std::ops::Range;

#[cfg(feature = "cuda")]
use super::cuda::{Finish, GemmLaunch};
use super::{Destination, Epilogue, Gemm, Tile};
#[cfg(feature = "cuda")]
use crate::engine::device::Precision;
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{
    Lower, RowWork,
    params::{GemmParams, zeroed},
    planes::plane_pitch,
};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::plan::View;
#[cfg(feature = "cuda")]
use crate::engine::plan::program::Output;
use crate::engine::plan::program::Program;
use crate::engine::steps::{Context, Kernel, Region, StepValues, Work, pointwise};

/// A matrix product with its operands.
#[derive(Debug)]
pub(crate) struct Product {
    /// (rows, columns, inner size) of the product.
    pub mnk: (usize, usize, usize),
    /// Whether each operand is read transposed.
    pub transposed: (bool, bool),
    /// Left operand, as stored.
    pub a: View,
    /// Right operand, as stored.
    pub b: View,
    /// Where the product goes.
    pub out: Target,
    /// Column sums of op(B), if they ride along.
    pub col_sums: Option<View>,
}

/// Where a matrix product goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// Into memory.
    Store(View),
    /// Through a pointwise program, tile by tile while it is in the first-level cache.
    Program(Program),
}

impl Kernel for Product {
    fn name(&self) -> &'static str {
        match (&self.out, self.col_sums) {
            (_, Some(_)) => "linear_grads",
            (Target::Program(_), _) => "linear",
            (Target::Store(_), _) => "matmul",
        }
    }

    fn detail(&self) -> String {
        let ((m, n, k), (ta, tb)) = (self.mnk, self.transposed);
        let mark = |t: bool| if t { "ᵀ" } else { "" };
        let size = format!("[{m}, {k}]{}·[{k}, {n}]{}", mark(ta), mark(tb));
        match &self.out {
            Target::Program(p) => format!("{size} → {}", p.summary()),
            Target::Store(_) => size,
        }
    }

    fn reads(&self) -> Vec<View> {
        self.program().into_iter().flat_map(Program::reads).chain([self.a, self.b]).collect()
    }

    fn writes(&self) -> Vec<View> {
        let out: Vec<View> = match &self.out {
            Target::Store(view) => vec![*view],
            Target::Program(program) => program.writes().collect(),
        };
        out.into_iter().chain(self.col_sums).collect()
    }

    fn program(&self) -> Option<&Program> {
        match &self.out {
            Target::Program(program) => Some(program),
            Target::Store(_) => None,
        }
    }

    fn flops(&self) -> u64 {
        let (m, n, k) = self.mnk;
        let sums = self.col_sums.map_or(0, |_| n * k);
        (2 * m * n * k + sums) as u64 + self.program().map_or(0, Program::flops)
    }

    fn gradient_bytes(&self) -> u64 {
        match &self.out {
            Target::Store(_) => self.writes().iter().map(View::bytes).sum(),
            Target::Program(_) => 0,
        }
    }

    fn is_product(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn by_rows(&self) -> Option<RowWork<'_>> {
        Some(RowWork::Product(self))
    }

    #[cfg(feature = "cuda")]
    fn can_update(&self) -> bool {
        matches!(self.out, Target::Store(_))
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        let ((m, n, k), (ta, tb)) = (self.mnk, self.transposed);
        let (lda, ldb) = (self.a.stride, self.b.stride);
        let gemm = match to.tiles {
            Some(tiles) => Gemm::on_tiles(tiles, to.isa, m, n, k, ta, tb, lda, ldb),
            None => Gemm::new(to.isa, m, n, k, ta, tb, lda, ldb),
        };
        let out = match &self.out {
            Target::Store(view) => BoundTarget::Store(to.region(view)),
            Target::Program(p) => BoundTarget::Program(pointwise::TiledProgram::new(p, to)),
        };
        let col_sums = self.col_sums.as_ref().map(|v| to.region(v));
        Box::new(ProductWork { gemm, a: to.region(&self.a), b: to.region(&self.b), out, col_sums })
    }

    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        // 0 stands for a program that is interpreted.
        let epilogue = self.program().map(|p| super::cuda::epilogue(p).unwrap_or(0));
        let interprets = epilogue == Some(0);
        let choice = self.choice(to.precision, to.compute_capability());
        if to.leaves_splits() {
            return self.lower_apart(&choice, to);
        }
        let (x, y) = choice.grid;
        let mut params = self.operands(to);
        (params.splits, params.k_per_split) = (choice.splits as i32, choice.k_per_split as i32);
        params.tiles_m = y as i32;
        match &self.out {
            Target::Store(view) => {
                (params.c, params.ldc) = (to.address(view), view.stride as i32);
                if let Some((by, of_c)) = to.updates(view) {
                    (params.by, params.of_c) = (by, of_c);
                    if let Some((_, of)) = self.col_sums.and_then(|sums| to.updates(&sums)) {
                        params.of_col_sums = of;
                    }
                }
            }
            Target::Program(p) => {
                params.out_pitch = p.writes().next().map_or(0, |view| plane_pitch(&view)) as i32;
                params.epilogue = epilogue.unwrap_or(0) as i32;
                params.program = to.program(p, (x * y) as usize)?;
            }
        }
        // An interpreted epilogue needs its registers for one warp at a time, at least.
        let registers = self.program().filter(|_| interprets).map_or(0, |p| 32 * 16 * p.regs as u32);
        let shared = choice.shared_bytes.max(registers);
        let launch = to.launch(choice.kernel, choice.blocks(), choice.threads, shared, &params)?;
        self.reads_planes(&choice, launch, to);
        to.leaves_plane(launch, offset_of!(GemmParams, out_plane));
        to.multiplies(launch, (choice.cycles + 2 * choice.handing_on) as f64, choice.latency as f64);
        to.keeps_cache_busy(launch, (choice.cache + 2 * choice.handing_on) as f64);
        to.can_end_step(launch, offset_of!(GemmParams, end));
        if let Some(program) = self.program().filter(|_| interprets) {
            to.runs(launch, program, false);
        }
        if choice.splits > 1 {
            let fields = [offset_of!(GemmParams, workspace), offset_of!(GemmParams, tickets)];
            to.shares_sums(launch, choice.workspace, choice.tickets, fields);
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl Product {
    /// The launch that leaves the sums of every split of k to another, which adds them up.
    fn lower_apart(&self, choice: &GemmLaunch, to: &mut Lower<'_>) -> Result<()> {
        let (m, n, _) = self.mnk;
        let (pitch, floats) = choice.apart(m, n);
        let mut params = self.operands(to);
        (params.splits, params.k_per_split) = (choice.splits as i32, choice.k_per_split as i32);
        (params.tiles_m, params.apart, params.ldc) = (choice.grid.1 as i32, 1, pitch as i32);
        let launch = to.launch(choice.kernel, choice.blocks(), choice.threads, choice.shared_bytes, &params)?;
        self.reads_planes(choice, launch, to);
        to.multiplies(launch, (choice.cycles + choice.handing_on) as f64, 0.0);
        to.keeps_cache_busy(launch, (choice.cache + choice.handing_on) as f64);
        to.writes_splits(launch, floats, offset_of!(GemmParams, c));
        Ok(())
    }

    /// How it is launched by itself.
    pub(crate) fn choice(&self, precision: Precision, cc: (u32, u32)) -> GemmLaunch {
        let ((m, n, k), finish) = (self.mnk, Finish::of(self.program()));
        super::cuda::choose(m, n, k, precision, cc, Finish { sums: self.col_sums.is_some(), ..finish })
    }

    /// The factors that its launch of its own takes as planes of bf16.
    pub(crate) fn planes(&self, precision: Precision, cc: (u32, u32)) -> Vec<View> {
        if self.choice(precision, cc).planes { vec![self.a, self.b] } else { Vec::new() }
    }

    /// Whether its launch can leave what it stores as a plane of bf16 too: a hand-written epilogue does, in rows of whole chunks.
    pub(crate) fn can_make_plane(&self, of: &View) -> bool {
        let stored = self.program().filter(|program| super::cuda::epilogue(program).is_some());
        let stored = stored.and_then(|program| program.outputs.first());
        matches!(stored, Some(Output::Store { view, .. }) if view == of) && of.cols == plane_pitch(of)
    }

    /// Hands the planes of the factors to the launch, if it takes any: then it reads those, and the factors not, but for column
    /// sums of B.
    fn reads_planes(&self, choice: &GemmLaunch, launch: usize, to: &mut Lower<'_>) {
        if !choice.planes {
            return;
        }
        to.reads_plane(launch, &self.a, offset_of!(GemmParams, a_plane));
        to.reads_plane(launch, &self.b, offset_of!(GemmParams, b_plane));
        let unread = self.a.bytes() + if self.col_sums.is_some() { 0 } else { self.b.bytes() };
        to.moves(launch, -(unread as f64));
    }

    fn operands(&self, to: &Lower<'_>) -> GemmParams {
        let ((m, n, k), (ta, tb)) = (self.mnk, self.transposed);
        GemmParams {
            clock: to.clock,
            a: to.address(&self.a),
            b: to.address(&self.b),
            m: m as i32,
            n: n as i32,
            k: k as i32,
            lda: self.a.stride as i32,
            ldb: self.b.stride as i32,
            col_sums: self.col_sums.map_or(0, |v| to.address(&v)),
            alpha: 1.0,
            ta: i32::from(ta),
            tb: i32::from(tb),
            a_pitch: plane_pitch(&self.a) as i32,
            b_pitch: plane_pitch(&self.b) as i32,
            ..zeroed()
        }
    }
}

struct ProductWork {
    gemm: Gemm,
    a: Region,
    b: Region,
    out: BoundTarget,
    col_sums: Option<Region>,
}

enum BoundTarget {
    Store(Region),
    Program(pointwise::TiledProgram),
}

impl ProductWork {
    /// Words of scratch of the product, before those of its epilogue.
    fn own_scratch(&self) -> usize {
        self.gemm.scratch().next_multiple_of(16)
    }
}

/// Runs a program on the tiles of a product.
struct ProgramEpilogue<'a> {
    program: &'a pointwise::TiledProgram,
    values: &'a StepValues,
    registers: *mut f32,
}

impl Epilogue for ProgramEpilogue<'_> {
    fn announce(&mut self, rows: Range<usize>, cols: Range<usize>) {
        self.program.prefetch(rows, cols);
    }

    fn take(&mut self, t: Tile) {
        let tile = pointwise::Rect { row: t.r0, rows: t.rows, col: t.c0, cols: t.cols, acc: t.acc, ld: t.ld };
        // SAFETY: whoever made this prepared the registers; each tile is handed over once.
        unsafe { self.program.run_tile(&tile, self.values, self.registers) };
    }
}

impl Work for ProductWork {
    fn chunks(&self) -> usize {
        self.gemm.chunks()
    }

    fn scratch(&self) -> usize {
        match &self.out {
            BoundTarget::Program(p) => self.own_scratch() + p.scratch(),
            BoundTarget::Store(_) => self.gemm.scratch(),
        }
    }

    unsafe fn run(&self, chunk: usize, with: &Context<'_>) {
        let (a, b, sums) = (self.a.ptr, self.b.ptr, self.col_sums.map(|r| r.ptr));
        match &self.out {
            // SAFETY: as promised by the caller.
            BoundTarget::Store(c) => unsafe {
                self.gemm.run(chunk, a, b, with.scratch, Destination::Store { c: c.ptr, ldc: c.stride }, sums);
            },
            BoundTarget::Program(program) => {
                // SAFETY: the scratch has room for both, the product's first.
                let registers = unsafe { with.scratch.add(self.own_scratch()) };
                // SAFETY: as promised by the caller.
                unsafe { program.prepare(with.values, registers) };
                let mut epilogue = ProgramEpilogue { program, values: with.values, registers };
                // SAFETY: as promised by the caller.
                unsafe { self.gemm.run(chunk, a, b, with.scratch, Destination::Tiles(&mut epilogue), sums) };
            }
        }
    }
}
