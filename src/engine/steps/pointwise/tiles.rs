//! Pointwise programs on the CPU: one loop over a tile per instruction. Twin of the interpreter in kernels/program.cuh.

use crate::engine::device::cpu::Binder;
use crate::engine::graph::Ctl;
use crate::engine::isa::Isa;
use crate::engine::math::Real;
use crate::engine::ops::BinaryFn;
use crate::engine::plan::program::{Access, Instr, Output, PARTIAL_COLUMNS, Program, TILE};
use crate::engine::rng::Draw;
use crate::engine::steps::{Context, Region, StepValues, Work, prefetch};
use std::ops::Range;

/// Tiles of one chunk: enough work (4096 elements) to be worth claiming.
const TILES_PER_CHUNK: usize = 16;

/// Bytes of operands from which their lines are asked for ahead: what is less is in a second-level cache, near enough.
const FAR: usize = 1 << 18;

/// A program whose operands have addresses.
pub(crate) struct TiledProgram {
    isa: Isa,
    program: Program,
    /// The operands that have an element of their own for each of the program's, where they are far.
    far: Vec<Region>,
    inputs: Vec<Region>,
    outputs: Vec<Region>,
}

/// A rectangle of the index space.
#[derive(Clone, Copy)]
pub(crate) struct Rect {
    pub row: usize,
    pub rows: usize,
    pub col: usize,
    pub cols: usize,
    /// The matrix product's values, `cols` to a row of `ld`; null without one.
    pub acc: *const f32,
    pub ld: usize,
}

/// The registers of one thread: `regs` tiles, then a table of where each register's values are.
struct Registers {
    base: *mut f32,
    table: *mut *const f32,
}

impl Registers {
    /// # Safety
    /// `scratch` holds [`Work::scratch`] words, aligned to 64 bytes.
    unsafe fn new(scratch: *mut f32, regs: usize) -> Registers {
        // SAFETY: the table lies behind the registers, inside the scratch; TILE words keep it aligned to 64 bytes.
        let table = unsafe { scratch.add(regs * TILE) }.cast();
        Registers { base: scratch, table }
    }

    /// The register's own storage, for writing `n` elements.
    ///
    /// # Safety
    /// No other reference to this register's storage is alive (the planner gives a destination a register that no
    /// operand of the instruction has).
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn write(&self, reg: u16, n: usize) -> &mut [f32] {
        // SAFETY: reg < regs and n ≤ TILE; the table entry is set to the storage that is handed out.
        unsafe {
            let at = self.base.add(reg as usize * TILE);
            *self.table.add(reg as usize) = at;
            std::slice::from_raw_parts_mut(at, n)
        }
    }

    /// Makes the register stand for memory that is read in place.
    ///
    /// # Safety
    /// `at` is readable for the tile's elements while the tile is processed.
    #[inline(always)]
    unsafe fn alias(&self, reg: u16, at: *const f32) {
        // SAFETY: reg < regs.
        unsafe { *self.table.add(reg as usize) = at }
    }

    /// # Safety
    /// The register was written for at least `n` elements.
    #[inline(always)]
    unsafe fn read(&self, reg: u16, n: usize) -> &[f32] {
        // SAFETY: an earlier instruction set the table entry to `n` readable elements.
        unsafe { std::slice::from_raw_parts(*self.table.add(reg as usize), n) }
    }
}

impl Work for TiledProgram {
    fn chunks(&self) -> usize {
        self.tiles().div_ceil(TILES_PER_CHUNK)
    }

    fn scratch(&self) -> usize {
        self.program.regs * (TILE + std::mem::size_of::<*const f32>() / 4) + 16
    }

    unsafe fn run(&self, chunk: usize, with: &Context<'_>) {
        let (values, scratch) = (with.values, with.scratch);
        let (h, w) = self.tile();
        let across = self.program.cols.div_ceil(w);
        // SAFETY: as promised by the caller.
        unsafe { self.prepare(values, scratch) };
        for t in chunk * TILES_PER_CHUNK..((chunk + 1) * TILES_PER_CHUNK).min(self.tiles()) {
            let (row, col) = (t / across * h, t % across * w);
            let tile = Rect {
                row,
                rows: h.min(self.program.rows - row),
                col,
                cols: w.min(self.program.cols - col),
                acc: std::ptr::null(),
                ld: 0,
            };
            // SAFETY: as promised by the caller.
            unsafe { self.run_tile(&tile, values, scratch) };
        }
    }
}

impl TiledProgram {
    pub(crate) fn new(program: &Program, to: &Binder<'_>) -> TiledProgram {
        let inputs: Vec<Region> = program.reads().map(|view| to.region(&view)).collect();
        let outputs: Vec<Region> = program.writes().map(|view| to.region(&view)).collect();
        let full = program.inputs.iter().zip(&inputs).filter(|(input, _)| input.access == Access::Full);
        let stored = program.outputs.iter().zip(&outputs);
        let stored = stored.filter(|(output, _)| matches!(output, Output::Store { .. }));
        let mut far: Vec<Region> = full.map(|(_, r)| *r).chain(stored.map(|(_, r)| *r)).collect();
        if 4 * program.rows * program.cols * far.len() < FAR {
            far.clear();
        }
        TiledProgram { isa: to.isa, program: program.clone(), far, inputs, outputs }
    }

    /// Asks for the lines of far operands in these rows and columns. While a product's tile is computed they come from wherever they
    /// are; a tile's rows lie too far apart for the hardware to guess.
    pub(crate) fn prefetch(&self, rows: Range<usize>, cols: Range<usize>) {
        for region in &self.far {
            for row in rows.clone() {
                let at = |col: usize| region.ptr.wrapping_add(row * region.stride + col).cast_const();
                prefetch(at(cols.start));
                prefetch(at(cols.end - 1));
            }
        }
    }

    /// The tile grid of a stand-alone program: (rows of a tile, columns of a tile).
    fn tile(&self) -> (usize, usize) {
        let cols = self.program.cols.max(1);
        if cols >= TILE { (1, TILE) } else { (TILE / cols, cols) }
    }

    fn tiles(&self) -> usize {
        let (h, w) = self.tile();
        self.program.rows.div_ceil(h) * self.program.cols.div_ceil(w)
    }

    /// Fills the registers that hold the same value everywhere. Once per chunk, before [`TiledProgram::run_tile`].
    ///
    /// # Safety
    /// As for [`Work::run`].
    pub(crate) unsafe fn prepare(&self, values: &StepValues, scratch: *mut f32) {
        // SAFETY: as promised by the caller.
        let regs = unsafe { Registers::new(scratch, self.program.regs) };
        let tile = Rect { row: 0, rows: 1, col: 0, cols: TILE, acc: std::ptr::null(), ld: 0 };
        self.isa.run(
            #[inline(always)]
            || {
                for instr in &self.program.uniform {
                    // SAFETY: as promised by the caller; uniform instructions read registers and single elements only.
                    unsafe { self.execute(instr, &tile, values, &regs) };
                }
            },
        );
    }

    /// Runs the program on one tile.
    ///
    /// # Safety
    /// As for [`Work::run`], after [`TiledProgram::prepare`] with the same scratch.
    pub(crate) unsafe fn run_tile(&self, tile: &Rect, values: &StepValues, scratch: *mut f32) {
        // SAFETY: as promised by the caller.
        let regs = unsafe { Registers::new(scratch, self.program.regs) };
        self.isa.run(
            #[inline(always)]
            || {
                for instr in &self.program.body {
                    // SAFETY: as promised by the caller; the planner wrote every register before it is read.
                    unsafe { self.execute(instr, tile, values, &regs) };
                }
                for (output, region) in self.program.outputs.iter().zip(&self.outputs) {
                    // SAFETY: as above.
                    unsafe { self.keep(output, region, tile, &regs) };
                }
            },
        );
    }

    /// # Safety
    /// As for [`TiledProgram::run_tile`].
    #[inline(always)]
    unsafe fn execute(&self, instr: &Instr, tile: &Rect, values: &StepValues, regs: &Registers) {
        let n = tile.rows * tile.cols;
        // SAFETY: registers are distinct where one is written (see `Registers::write`), and were written before.
        unsafe {
            match *instr {
                Instr::Acc { dst } => load_rows(regs, dst, tile, tile.acc, tile.ld),
                Instr::Load { dst, input } => self.load(dst, input as usize, tile, regs),
                Instr::Const { dst, bits } => regs.write(dst, n).fill(f32::from_bits(bits)),
                Instr::Ctl { dst, field } => regs.write(dst, n).fill(match field {
                    Ctl::Schedule(index) => values.schedules[index as usize],
                    Ctl::Step => values.step as f32,
                }),
                Instr::Noise { dst, normal, stream } => {
                    let draw = Draw { seed: values.seed, step: values.step, stream };
                    self.draw(draw, normal, tile, regs.write(dst, n));
                }
                Instr::Unary { dst, f, a } => f.eval_slice(regs.read(a, n), regs.write(dst, n)),
                Instr::Pow { dst, a, bits } => {
                    let c = f64::from_bits(bits);
                    regs.write(dst, n).iter_mut().zip(regs.read(a, n)).for_each(|(d, x)| *d = Real::powf(*x, c));
                }
                Instr::Binary { dst, f, a, b } => binary(f, regs.read(a, n), regs.read(b, n), regs.write(dst, n)),
                Instr::Select { dst, q, a, b } => {
                    let (q, a, b) = (regs.read(q, n), regs.read(a, n), regs.read(b, n));
                    let dst = regs.write(dst, n);
                    for i in 0..n {
                        dst[i] = f32::select(q[i] != 0.0, a[i], b[i]);
                    }
                }
                Instr::SoftplusSigmoid { softplus, sigmoid, a } => {
                    softplus_sigmoid(regs.read(a, n), regs.write(softplus, n), regs.write(sigmoid, n));
                }
            }
        }
    }

    /// # Safety
    /// As for [`TiledProgram::run_tile`].
    #[inline(always)]
    unsafe fn load(&self, dst: u16, input: usize, tile: &Rect, regs: &Registers) {
        let region = &self.inputs[input];
        let n = tile.rows * tile.cols;
        // SAFETY: the operand covers the index space in the way its access says.
        unsafe {
            match self.program.inputs[input].access {
                Access::Full => load_rows(regs, dst, tile, region.at(tile.row, tile.col), region.stride),
                Access::Scalar => regs.write(dst, n).fill(*region.ptr),
                Access::Row if tile.rows == 1 => regs.alias(dst, region.at(0, tile.col)),
                Access::Row => {
                    let row = std::slice::from_raw_parts(region.at(0, tile.col), tile.cols);
                    regs.write(dst, n).chunks_exact_mut(tile.cols).for_each(|d| d.copy_from_slice(row));
                }
                Access::Col => {
                    let rows = regs.write(dst, n).chunks_exact_mut(tile.cols).enumerate();
                    rows.for_each(|(r, d)| d.fill(*region.at(tile.row + r, 0)));
                }
            }
        }
    }

    #[inline(always)]
    fn draw(&self, draw: Draw, normal: bool, tile: &Rect, out: &mut [f32]) {
        let cols = self.program.cols;
        let fill = |first: usize, out: &mut [f32]| {
            if normal {
                draw.fill_normal(self.isa, first as u64, out);
            } else {
                draw.fill_uniform(self.isa, first as u64, out);
            }
        };
        if tile.cols == cols {
            fill(tile.row * cols, out);
        } else {
            let rows = out.chunks_exact_mut(tile.cols).enumerate();
            rows.for_each(|(r, out)| fill((tile.row + r) * cols + tile.col, out));
        }
    }

    /// # Safety
    /// As for [`TiledProgram::run_tile`].
    #[inline(always)]
    unsafe fn keep(&self, output: &Output, region: &Region, tile: &Rect, regs: &Registers) {
        let n = tile.rows * tile.cols;
        // SAFETY: the tile lies in the region, and no other chunk writes this part of it.
        unsafe {
            match *output {
                Output::Store { reg, .. } => {
                    for (r, row) in regs.read(reg, n).chunks_exact(tile.cols).enumerate() {
                        let to = region.at(tile.row + r, tile.col);
                        std::ptr::copy_nonoverlapping(row.as_ptr(), to, tile.cols);
                    }
                }
                Output::Sum { reg, .. } => {
                    let per_row = self.program.cols.div_ceil(PARTIAL_COLUMNS);
                    let first = region.ptr.add(tile.row * per_row + tile.col / PARTIAL_COLUMNS);
                    for (r, row) in regs.read(reg, n).chunks_exact(tile.cols).enumerate() {
                        let len = tile.cols.div_ceil(PARTIAL_COLUMNS);
                        sums(row, std::slice::from_raw_parts_mut(first.add(r * per_row), len));
                    }
                }
            }
        }
    }
}

/// Reads a tile in place where it is contiguous, and copies its rows where it is not.
///
/// # Safety
/// `from` is readable for the tile's rows at stride `ld`.
#[inline(always)]
unsafe fn load_rows(regs: &Registers, dst: u16, tile: &Rect, from: *const f32, ld: usize) {
    // SAFETY: as promised by the caller.
    unsafe {
        if tile.rows == 1 || ld == tile.cols {
            return regs.alias(dst, from);
        }
        for (r, d) in regs.write(dst, tile.rows * tile.cols).chunks_exact_mut(tile.cols).enumerate() {
            d.copy_from_slice(std::slice::from_raw_parts(from.add(r * ld), tile.cols));
        }
    }
}

/// The sum of every [`PARTIAL_COLUMNS`] elements of a row, by halving. Tiles differ between instruction sets, these sums
/// do not: so what is added up from them has the same bits on all.
#[inline(always)]
fn sums(row: &[f32], out: &mut [f32]) {
    let halve = |x: &[f32; PARTIAL_COLUMNS]| {
        let four = [x[0] + x[4], x[1] + x[5], x[2] + x[6], x[3] + x[7]];
        (four[0] + four[2]) + (four[1] + four[3])
    };
    let (blocks, rest) = row.as_chunks::<PARTIAL_COLUMNS>();
    for (block, sum) in blocks.iter().zip(&mut *out) {
        *sum = halve(block);
    }
    if let Some(sum) = out.get_mut(blocks.len()) {
        let mut padded = [0.0; PARTIAL_COLUMNS];
        padded[..rest.len()].copy_from_slice(rest);
        *sum = halve(&padded);
    }
}

#[inline(always)]
fn binary(f: BinaryFn, a: &[f32], b: &[f32], dst: &mut [f32]) {
    macro_rules! arms {
        ($($variant:ident)*) => {
            match f {
                $(BinaryFn::$variant => for ((d, &x), &y) in dst.iter_mut().zip(a).zip(b) {
                    *d = BinaryFn::$variant.eval(x, y);
                })*
            }
        };
    }
    arms!(Add Sub Mul Div Max Min Lt Le Eq);
}

/// Two passes: the exponential of the first is ready when the second needs it, so neither waits for a long chain.
#[inline(always)]
fn softplus_sigmoid(a: &[f32], softplus: &mut [f32], sigmoid: &mut [f32]) {
    for (&a, sg) in a.iter().zip(&mut *sigmoid) {
        *sg = Real::exp(-a.abs());
    }
    for ((&a, sp), sg) in a.iter().zip(softplus).zip(sigmoid) {
        let e = *sg;
        *sp = Real::max(a, 0.0) + Real::log1p(e);
        *sg = f32::select(a >= 0.0, 1.0, e) / (1.0 + e);
    }
}
