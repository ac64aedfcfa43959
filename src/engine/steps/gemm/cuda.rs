//! Which kernel computes a matrix product on a GPU, and how it is launched.
//!
//! The kernels are kernels/gemm.cu, gemm_tensor.cu and gemm_planes.cu; gemm_tile.cuh there says how a block works. The choice depends
//! on the shape, the precision and the GPU's compute capability, whose figures are in `device/cuda/figures.rs`, and on nothing
//! else, because it decides in which order numbers are added: two GPUs of one capability give the same bits, however many
//! multiprocessors they have.

use crate::engine::device::Precision;
use crate::engine::device::cuda::figures::figures;
use crate::engine::ops::ScalarFn;
use crate::engine::plan::program::{Access, Instr, Output, Program};

/// What multiplies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arithmetic {
    Simt,
    Tf32,
    Bf16,
    Bf16x3,
    Bf16x6,
}

impl Arithmetic {
    /// Multiply-adds of one multiprocessor in one cycle, at best.
    ///
    /// | capability | f32 units | bf16, sums in f32 | from NVIDIA's white papers; TFLOP/s of f32 and bf16 |
    /// |---|---|---|---|
    /// | 7.5 | 64 | none | Turing |
    /// | 8.0 | 64 | 1024 | A100: 19.5 and 312 |
    /// | 8.6, 8.7 | 128 | 256 | GA102, RTX 3090: 35.6 and 71; A40: twice as much bf16 |
    /// | 8.9 | 128 | 256 | Ada, RTX 4090: 82.6 and 165.2; data sheet of the L40S: twice as much bf16 |
    /// | 9.0 | 128 | 1300 | H100: 2048 by `wgmma`; estimate: 65 % of it by `mma.sync`, which is used here |
    /// | 10.x, 11.x | 128 | 1024 | estimate: `mma.sync` as on 8.0; 4096 by `tcgen05` |
    /// | 12.x | 128 | 256 | RTX Blackwell, RTX 5090: 104.8 and 209.5; RTX PRO 6000: twice as much bf16 |
    ///
    /// Where boards of one capability differ, it is the lower rate. It decides between tiles; between the f32 units and
    /// six bf16 products it would decide alike with twice as much. TF32 is half of bf16 in all of these sources. None
    /// of it was measured here.
    fn rate(self, cc: (u32, u32)) -> f64 {
        let (simt, bf16) = match cc {
            (7, _) => (64.0, 0.0),
            (8, 0) => (64.0, 1024.0),
            (8, _) => (128.0, 256.0),
            (9, _) => (128.0, 1300.0),
            (10 | 11, _) => (128.0, 1024.0),
            // What comes later is unknown; the last family that is known is the safer guess, since it keeps f32
            // products on the f32 units.
            _ => (128.0, 256.0),
        };
        match self {
            Arithmetic::Simt => simt,
            Arithmetic::Tf32 => bf16 / 2.0,
            Arithmetic::Bf16 => bf16,
            Arithmetic::Bf16x3 => bf16 / 3.0,
            Arithmetic::Bf16x6 => bf16 / 6.0,
        }
    }
}

/// A kernel: the `Tile` of kernels/gemm_tile.cuh it is compiled for, and what is expected of it.
struct GemmKernel {
    name: &'static str,
    arithmetic: Arithmetic,
    /// Rows and columns of C a block computes.
    tile: (usize, usize),
    /// Those of one of its warps.
    warp: (usize, usize),
    threads: u32,
    /// k of one strip; strips in shared memory at a time; idle floats after each row of a strip.
    depth: usize,
    stages: usize,
    padding: usize,
    /// Blocks that fit a multiprocessor at a time: the fewer of those on sm_80 and on sm_90 (kernels/table.json).
    resident: usize,
    /// The share of the arithmetic's rate that eight warps reach: an estimate.
    efficiency: f64,
    /// Whether it takes its factors as planes of bf16.
    planes: bool,
}

impl GemmKernel {
    const fn simt(
        name: &'static str,
        (tile, warp): ((usize, usize), (usize, usize)),
        threads: u32,
        strip: (usize, usize),
        expect: (usize, f64),
    ) -> GemmKernel {
        let (arithmetic, padding) = (Arithmetic::Simt, 4);
        let ((depth, stages), (resident, efficiency)) = (strip, expect);
        let planes = false;
        GemmKernel { name, arithmetic, tile, warp, threads, depth, stages, padding, resident, efficiency, planes }
    }

    const fn tensor(
        name: &'static str,
        arithmetic: Arithmetic,
        side: usize,
        threads: u32,
        resident: usize,
    ) -> GemmKernel {
        let (tile, padding) = ((side, side), 0);
        let (depth, stages, efficiency) = match side {
            128 => (16, 3, 0.6),
            64 => (16, 4, 0.45),
            _ => (64, 3, 0.25),
        };
        let warp = match (side, threads) {
            (128, 128) => (64, 64),
            (128, _) => (64, 32),
            _ => (32, 32),
        };
        let planes = false;
        GemmKernel { name, arithmetic, tile, warp, threads, depth, stages, padding, resident, efficiency, planes }
    }

    const fn planes(name: &'static str, rows: usize, threads: u32, resident: usize) -> GemmKernel {
        let (arithmetic, padding, efficiency, planes) = (Arithmetic::Bf16, 0, 0.6, true);
        let (tile, warp, depth, stages) = ((rows, 128), (64, 64), 32, 4);
        GemmKernel { name, arithmetic, tile, warp, threads, depth, stages, padding, resident, efficiency, planes }
    }

    /// Warps that share a tile; where there are more, others do the same for other k.
    fn warps(&self) -> usize {
        self.tile.0 * self.tile.1 / (self.warp.0 * self.warp.1)
    }

    /// Bytes of a number of its factors.
    fn width(&self) -> usize {
        if self.planes { 2 } else { 4 }
    }

    /// Bytes that go into shared memory and out of it for every k: each warp reads what it multiplies.
    fn shared_traffic(&self) -> usize {
        self.width() * (self.tile.0 + self.tile.1 + self.warps() * (self.warp.0 + self.warp.1))
    }

    fn shared_bytes(&self, cc: (u32, u32)) -> usize {
        let row = self.tile.0 + self.tile.1 + 2 * self.padding;
        // Before sm_80 no copy is asynchronous, and two stages are all that is of use.
        let stages = if cc.0 < 8 { 2 } else { self.stages };
        // The sums of slices take the place of the strips.
        let slices = self.threads as usize / 32 / self.warps();
        let sums = if slices > 1 { slices * self.tile.0 * self.tile.1 } else { 0 };
        (self.width() * stages * self.depth * row).max(4 * sums)
    }

    /// Those of a launch: with the strips of B in f32 where its column sums ride along, which other kernels than those of planes have
    /// anyway. Four idle floats after each row.
    fn shared_with(&self, sums: bool, cc: (u32, u32)) -> usize {
        let columns = if sums && self.planes { 4 * self.stages * self.depth * (self.tile.1 + 4) } else { 0 };
        self.shared_bytes(cc) + columns
    }

    /// Blocks that fit a multiprocessor at a time, with as much shared memory as that; 0 where a block does not get it.
    fn fitting(&self, sums: bool, cc: (u32, u32)) -> usize {
        let (most, shared) = (most_shared(cc), self.shared_with(sums, cc));
        // A block costs 1 KiB besides its own, and a multiprocessor has that for one more than it gives a block.
        let by_shared = (most + 1024) / (shared + 1024);
        if self.planes { self.resident.min(by_shared) } else { self.resident }
    }

    /// Whether it can interpret programs: `INTERPRETS` in kernels/gemm_finish.cuh.
    fn interprets(&self) -> bool {
        self.tile.0 * self.tile.1 / self.threads as usize <= 32
    }
}

const KERNELS: &[GemmKernel] = &[
    GemmKernel::simt("gemm_f32_128x128", ((128, 128), (32, 64)), 256, (8, 4), (2, 0.85)),
    GemmKernel::simt("gemm_f32_64x64", ((64, 64), (32, 32)), 128, (16, 4), (4, 0.75)),
    GemmKernel::simt("gemm_f32_64x32", ((64, 32), (32, 32)), 256, (32, 3), (2, 0.75)),
    GemmKernel::simt("gemm_f32_32x32", ((32, 32), (16, 32)), 256, (32, 4), (3, 0.5)),
    GemmKernel::tensor("gemm_tf32_128x128", Arithmetic::Tf32, 128, 128, 2),
    GemmKernel::tensor("gemm_tf32_64x64", Arithmetic::Tf32, 64, 128, 4),
    GemmKernel::tensor("gemm_tf32_32x32", Arithmetic::Tf32, 32, 128, 3),
    GemmKernel::tensor("gemm_bf16_128x128", Arithmetic::Bf16, 128, 128, 2),
    GemmKernel::tensor("gemm_bf16_64x64", Arithmetic::Bf16, 64, 128, 4),
    GemmKernel::tensor("gemm_bf16_32x32", Arithmetic::Bf16, 32, 128, 3),
    GemmKernel::planes("gemm_planes_128x128", 128, 128, 2),
    GemmKernel::planes("gemm_planes_256x128", 256, 256, 1),
    GemmKernel::tensor("gemm_bf16x3_128x128", Arithmetic::Bf16x3, 128, 256, 1),
    GemmKernel::tensor("gemm_bf16x3_64x64", Arithmetic::Bf16x3, 64, 128, 4),
    GemmKernel::tensor("gemm_bf16x3_32x32", Arithmetic::Bf16x3, 32, 128, 3),
    GemmKernel::tensor("gemm_bf16x6_128x128", Arithmetic::Bf16x6, 128, 256, 1),
    GemmKernel::tensor("gemm_bf16x6_64x64", Arithmetic::Bf16x6, 64, 128, 3),
    GemmKernel::tensor("gemm_bf16x6_32x32", Arithmetic::Bf16x6, 32, 128, 3),
];

/// How a product is launched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GemmLaunch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Tiles along n and along m. Each split has so many blocks.
    pub grid: (u32, u32),
    pub threads: u32,
    pub shared_bytes: u32,
    /// Whether it takes the factors as planes of bf16.
    pub planes: bool,
    /// Blocks that share the k of one tile. With 1, neither workspace nor tickets are used.
    pub splits: u32,
    pub k_per_split: u32,
    /// Floats of `GemmParams::workspace`, enough for column sums too.
    pub workspace: usize,
    /// Words of `GemmParams::tickets`, zero before the first launch.
    pub tickets: usize,
    /// What it is expected to take until the sums of all splits are there, in cycles of the busiest multiprocessor.
    pub cycles: u64,
    /// Those of them in which its strips come, or what is done with the sums goes, through the second-level cache.
    pub cache: u64,
    /// And those in which they are written for another block, and as many more in which that block reads them.
    pub handing_on: u64,
    /// And those in which the last block of a tile learns that it is the last.
    pub latency: u64,
}

impl GemmLaunch {
    /// The grid: the splits come one after the other along m.
    pub(crate) fn blocks(&self) -> [u32; 3] {
        [self.grid.0, self.grid.1 * self.splits, 1]
    }

    /// The distance of the rows and the floats of all matrices, where the sums of each split of an [m, n] are stored in one of
    /// their own.
    pub(crate) fn apart(&self, m: usize, n: usize) -> (usize, usize) {
        let pitch = n.next_multiple_of(4);
        (pitch, self.splits as usize * m * pitch)
    }
}

/// Multiply-adds from which f32 products may take the tensor cores. Below, they would gain microseconds at best, and the
/// ordinary units also keep infinities.
const LARGE: usize = 1 << 28;

/// Most blocks that share a k.
const MOST_SPLITS: usize = 16;

/// Most blocks per multiprocessor that come of splitting: more tiles than that need no splits.
const MOST_BLOCKS: usize = 4;

/// Most floats of the workspace of splits, 64 MiB.
const MOST_WORKSPACE: usize = 16 << 20;

/// Least k of a split: less is over before the sums have been joined.
const LEAST_SPLIT: usize = 128;

/// What is done with the sums of a product.
#[derive(Clone, Copy)]
pub(crate) struct Finish {
    /// Whether they go through a program that is none of the hand-written epilogues.
    pub interprets: bool,
    /// Bytes that are read and written for each.
    pub bytes: usize,
    /// Whether column sums of B ride along.
    pub sums: bool,
}

impl Finish {
    /// They are stored.
    pub(crate) const STORE: Finish = Finish { interprets: false, bytes: 4, sums: false };

    /// Of a product that is stored, or updates parameters of which it makes the gradients: most that have no program do. It is the
    /// same for both, so that the bits of a gradient do not depend on who makes the update. Adam reads and writes three numbers.
    const STORE_OR_UPDATE: Finish = Finish { interprets: false, bytes: 24, sums: false };

    /// Of a product that goes through a program, or through none.
    pub(crate) fn of(program: Option<&Program>) -> Finish {
        let Some(program) = program else { return Finish::STORE_OR_UPDATE };
        let inputs = program.inputs.iter().filter(|input| input.access == Access::Full).count();
        let outputs = program.outputs.iter().filter(|output| matches!(output, Output::Store { .. })).count();
        Finish { interprets: epilogue(program).is_none(), bytes: 4 * (inputs + outputs), sums: false }
    }
}

/// The kernel for C = op(A)·op(B), [m, n] = [m, k]·[k, n], on a GPU of compute capability `cc`.
pub(crate) fn choose(m: usize, n: usize, k: usize, precision: Precision, cc: (u32, u32), finish: Finish) -> GemmLaunch {
    let allowed = |a: Arithmetic| match precision {
        _ if cc.0 < 8 => a == Arithmetic::Simt,
        Precision::F32 => a == Arithmetic::Simt || a == Arithmetic::Bf16x6 && m * n * k >= LARGE,
        Precision::Tf32 => a == Arithmetic::Tf32,
        Precision::Bf16 => a == Arithmetic::Bf16,
        Precision::Bf16x3 => a == Arithmetic::Bf16x3,
    };
    let mut best: Option<(f64, GemmLaunch)> = None;
    let suits = |c: &&GemmKernel| {
        allowed(c.arithmetic) && (c.interprets() || !finish.interprets) && c.fitting(finish.sums, cc) > 0
    };
    for kernel in KERNELS.iter().filter(suits) {
        let tiles = m.div_ceil(kernel.tile.0) * n.div_ceil(kernel.tile.1);
        let most = MOST_SPLITS.min(k / LEAST_SPLIT).min(MOST_BLOCKS * multiprocessors(cc) / tiles).max(1);
        for splits in 1..=most {
            let (cycles, choice) = candidate(kernel, (m, n, k), splits, cc, finish);
            if choice.workspace <= MOST_WORKSPACE && best.as_ref().is_none_or(|(least, _)| cycles < *least) {
                best = Some((cycles, choice));
            }
        }
    }
    best.expect("every arithmetic has a kernel that interprets").1
}

/// A typical number for the capability, on purpose not that of the GPU at hand.
pub(crate) fn multiprocessors(cc: (u32, u32)) -> usize {
    match cc {
        (7, _) => 48,
        (8, 0) => 108,
        (8, 6) => 60,
        (8, _) => 80,
        (9, _) => 132,
        (10 | 11, _) => 148,
        _ => 84,
    }
}

/// Bytes of shared memory that a block gets at most (CUDA C++ Programming Guide, "Compute Capabilities").
fn most_shared(cc: (u32, u32)) -> usize {
    let kib = match cc {
        (7, _) => 64,
        (8, 0 | 7) => 163,
        (9..=11, _) => 227,
        _ => 99,
    };
    kib << 10
}

/// Every kernel that runs on compute capability `cc`, with one split and with about three: for tests, since a test's
/// shapes are too small for `choose` to take the large tiles.
pub(crate) fn every(m: usize, n: usize, k: usize, sums: bool, cc: (u32, u32)) -> Vec<GemmLaunch> {
    let finish = Finish { sums, ..Finish::STORE };
    let usable = KERNELS
        .iter()
        .filter(|kernel| (cc.0 >= 8 || kernel.arithmetic == Arithmetic::Simt) && kernel.fitting(sums, cc) > 0);
    usable.flat_map(|kernel| [1, 3].map(|splits| candidate(kernel, (m, n, k), splits, cc, finish).1)).collect()
}

/// A launch of `kernel` with about `splits` splits, and an estimate of its time in cycles.
///
/// The model: the blocks are spread evenly; a multiprocessor works at a rate that grows with its warps up to eight, or waits for
/// its share of the second-level cache, on the way in or out, or for its shared memory, whichever takes longest; joining the
/// splits costs a trip through that cache, and writing and reading all their tiles; and planes cost half of what it takes to make them
/// in a launch of its own, because two products read each as a rule, one forward and one backward. The figures are those of
/// [`figures`](crate::engine::device::cuda::figures). It has to order the candidates, no more.
fn candidate(
    kernel: &GemmKernel,
    (m, n, k): (usize, usize, usize),
    splits: usize,
    cc: (u32, u32),
    finish: Finish,
) -> (f64, GemmLaunch) {
    let figures = figures(cc);
    let k_per_split = k.max(1).div_ceil(splits).next_multiple_of(kernel.depth);
    let splits = k.div_ceil(k_per_split).max(1);
    let (rows, cols) = (m.div_ceil(kernel.tile.0), n.div_ceil(kernel.tile.1));
    let (tiles, area) = (rows * cols, kernel.tile.0 * kernel.tile.1);

    let blocks = (tiles * splits).div_ceil(multiprocessors(cc));
    let warps = blocks.min(kernel.fitting(finish.sums, cc)) * kernel.threads as usize / 32;
    let rate = kernel.arithmetic.rate(cc) * kernel.efficiency * (warps as f64 / 8.0).min(1.0);
    let l2 = figures.l2_share();
    let arithmetic = (blocks * area * k_per_split) as f64 / rate;
    let strips = (kernel.width() * blocks * (kernel.tile.0 + kernel.tile.1) * k_per_split) as f64 / l2;
    // The first tiles along m read B in f32 too, for its column sums.
    let summing = if finish.sums && kernel.planes { (cols * splits).div_ceil(multiprocessors(cc)) } else { 0 };
    let strips = strips + (4 * summing * kernel.tile.1 * k_per_split) as f64 / l2;
    let shared = (blocks * kernel.shared_traffic() * k_per_split) as f64 / figures.shared_bandwidth.value;
    // A tile is finished by one block, whoever has shared its k.
    let finished = (tiles.div_ceil(multiprocessors(cc)) * area * finish.bytes) as f64 / l2;
    let cycles = arithmetic.max(strips).max(shared).max(finished);
    let (handing_on, latency) =
        if splits > 1 { ((4 * blocks * area) as f64 / l2, figures.join.value) } else { (0.0, 0.0) };
    let choice = GemmLaunch {
        kernel: kernel.name,
        grid: (cols as u32, rows as u32),
        threads: kernel.threads,
        shared_bytes: kernel.shared_with(finish.sums, cc) as u32,
        planes: kernel.planes,
        splits: splits as u32,
        k_per_split: k_per_split as u32,
        workspace: if splits > 1 { splits * (tiles * area + n) } else { 0 },
        tickets: if splits > 1 { tiles } else { 0 },
        cycles: cycles as u64,
        cache: strips.max(finished) as u64,
        handing_on: handing_on as u64,
        latency: latency as u64,
    };
    // 4 bytes read and 2 written of every number.
    let made = ((4 + 2) * (m * k + k * n)) as f64 / (l2 * figures.multiprocessors.value);
    let planes = if kernel.planes { (made + figures.edge.value * figures.clock.value) / 2.0 } else { 0.0 };
    (cycles + 2.0 * handing_on + latency + planes, choice)
}

/// The number of the hand-written epilogue (kernels/epilogue.cuh) that does exactly what `program` does, with the same
/// operations on the same operands; `None` if the program has to be interpreted.
pub(crate) fn epilogue(program: &Program) -> Option<u32> {
    const BIAS: &str = "add(s, row0)";
    let constants: Vec<f32> = program
        .uniform
        .iter()
        .map(|i| if let Instr::Const { bits, .. } = *i { Some(f32::from_bits(bits)) } else { None })
        .collect::<Option<_>>()?;
    let values = formulas(program)?;
    let kept = |output: &Output| match *output {
        Output::Store { reg, .. } => ("store", values[reg as usize].as_str()),
        Output::Sum { reg, .. } => ("sum", values[reg as usize].as_str()),
    };
    let outputs: Vec<_> = program.outputs.iter().map(kept).collect();
    match (outputs.as_slice(), constants.as_slice()) {
        ([("store", BIAS)], []) => Some(1),
        ([("store", "relu(add(s, row0))")], []) => Some(2),
        ([("store", "tanh(add(s, row0))")], []) => Some(3),
        ([("store", "mul(s, step(full0))")], []) => Some(4),
        ([("store", "mul(s, sub(c0, square(full0)))")], [1.0]) => Some(5),
        (
            [
                ("store", "add(mul(full0, c0), mul(c1, sigmoid(add(s, row1))))"),
                ("sum", "sub(softplus(add(s, row1)), mul(full0, add(s, row1)))"),
            ],
            [_, _],
        ) => Some(6),
        _ => None,
    }
}

/// What each register holds in the end, as a formula: `s` is the product's element, `row0` the first operand if it has
/// one number per column, `full0` if it has one per element, `c0` the first constant.
fn formulas(program: &Program) -> Option<Vec<String>> {
    let mut values = vec![String::new(); program.regs];
    for (at, instr) in program.uniform.iter().chain(&program.body).enumerate() {
        let of = |reg: u16| values[reg as usize].as_str();
        let value = match *instr {
            Instr::Acc { .. } => "s".to_string(),
            Instr::Const { .. } => format!("c{at}"),
            Instr::Load { input, .. } => match program.inputs[input as usize].access {
                Access::Full => format!("full{input}"),
                Access::Row => format!("row{input}"),
                Access::Col | Access::Scalar => return None,
            },
            Instr::Unary { f, a, .. } => format!("{}({})", f.name(), of(a)),
            Instr::Binary { f, a, b, .. } => format!("{}({}, {})", f.name(), of(a), of(b)),
            Instr::SoftplusSigmoid { softplus, sigmoid, a } => {
                let a = of(a).to_string();
                values[softplus as usize] = format!("{}({a})", ScalarFn::Softplus.name());
                values[sigmoid as usize] = format!("{}({a})", ScalarFn::Sigmoid.name());
                continue;
            }
            Instr::Ctl { .. } | Instr::Noise { .. } | Instr::Pow { .. } | Instr::Select { .. } => return None,
        };
        let dst = instr.writes()[0].expect("every instruction writes");
        values[dst as usize] = value;
    }
    Some(values)
}

/// The architectures of kernels/table.json, and which capabilities they are.
#[cfg(test)]
pub(super) const ARCHITECTURES: [(&str, (u32, u32)); 2] = [("sm_80", (8, 0)), ("sm_90", (9, 0))];

/// A figure of kernels/table.json: what nvcc made of a kernel (scripts/kernel_report.py).
#[cfg(test)]
pub(super) fn made(kernel: &str, architecture: &str, figure: &str) -> usize {
    let table: serde_json::Value = serde_json::from_str(include_str!("../../../../kernels/table.json")).unwrap();
    let entries = table["kernels"].as_array().unwrap();
    let entry = entries.iter().find(|e| e["kernel"] == kernel && e["architecture"] == architecture);
    let entry = entry.unwrap_or_else(|| panic!("{kernel} on {architecture} is not in kernels/table.json"));
    entry[figure].as_u64().unwrap_or_else(|| panic!("{figure} in {entry}")) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::graph::{Graph, Var};
    use crate::engine::nn::{Activation, Linear, Mlp};
    use crate::engine::optim::Optimizer;
    use crate::engine::plan::{Fusion, Plan};

    const CAPABILITIES: [(u32, u32); 7] = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)];
    const PRECISIONS: [Precision; 4] = [Precision::F32, Precision::Tf32, Precision::Bf16, Precision::Bf16x3];

    /// The epilogues of the products that have one, in order, in a step that trains a variational autoencoder
    /// 784-…-20-…-784 by Adam.
    fn epilogues(hidden: &[usize], activation: Activation) -> Vec<Option<u32>> {
        let g = Graph::new();
        let x = g.batch_in_units("train", 128, 784, 255.0);
        let encoder = Mlp::new("encoder", 784, hidden, activation);
        let heads = Linear::new("heads", *hidden.last().unwrap(), 40);
        let decoder = Mlp::new("decoder", 20, hidden, activation);
        let output = Linear::new("output", *hidden.last().unwrap(), 784);
        let q = heads.apply(encoder.apply(x));
        let (mu, logvar) = (q.slice_cols(0, 20), q.slice_cols(20, 20));
        let l = output.apply(decoder.apply(mu + (logvar * 0.5).exp() * g.normal(&[128, 20], 1)));
        let kl = (mu.square() + logvar.expm1mx()).sum_all() * 0.5;
        let loss = ((l.softplus() - l * x).sum_all() + kl) * (1.0 / 128.0);
        let layers = encoder.layers.iter().chain([&heads]).chain(&decoder.layers).chain([&output]);
        let params: Vec<Var> = layers.flat_map(|layer| layer.params(&g)).collect();
        let pairs: Vec<(Var, Var)> = params.iter().copied().zip(grad(loss, &params)).collect();
        g.optimize(Optimizer::adam(), 1e-3, &pairs);
        let plan = Plan::build(&g, &[loss], Fusion::all()).unwrap();
        let products = plan.steps.iter().filter(|s| s.is_product());
        products.filter_map(|s| s.kernel.program()).map(epilogue).collect()
    }

    #[test]
    fn the_usual_steps_have_epilogues_by_hand() {
        let (bias, relu, tanh, relu_back, tanh_back, bernoulli) =
            (Some(1), Some(2), Some(3), Some(4), Some(5), Some(6));
        let sample_back = None;
        let expected = [relu, bias, relu, bernoulli, relu_back, sample_back, relu_back];
        assert_eq!(epilogues(&[400], Activation::Relu), expected);
        let forward = [tanh, tanh, bias, tanh, tanh, bernoulli];
        let backward = [tanh_back, tanh_back, sample_back, tanh_back, tanh_back];
        assert_eq!(epilogues(&[200, 200], Activation::Tanh), [forward.as_slice(), backward.as_slice()].concat());
    }

    #[test]
    fn a_form_with_another_constant_or_order_is_interpreted() {
        use crate::engine::ops::BinaryFn;
        use crate::engine::plan::View;
        use crate::engine::plan::program::{Input, ProgramBuilder};
        let program = |constant: f32, swapped: bool| {
            let mut b = ProgramBuilder::default();
            let s = b.emit(|dst| Instr::Acc { dst });
            let h = b.load(Input { view: View::nowhere(4, 4), access: Access::Full });
            let one = b.emit(|dst| Instr::Const { dst, bits: constant.to_bits() });
            let square = b.emit(|dst| Instr::Unary { dst, f: ScalarFn::Square, a: h });
            let (x, y) = if swapped { (square, one) } else { (one, square) };
            let slope = b.emit(|dst| Instr::Binary { dst, f: BinaryFn::Sub, a: x, b: y });
            let reg = b.emit(|dst| Instr::Binary { dst, f: BinaryFn::Mul, a: s, b: slope });
            b.output(Output::Store { reg, view: View::nowhere(4, 4) });
            b.finish(4, 4)
        };
        assert_eq!(epilogue(&program(1.0, false)), Some(5));
        assert_eq!(epilogue(&program(2.0, false)), None);
        assert_eq!(epilogue(&program(1.0, true)), None);
    }

    #[test]
    fn every_choice_covers_the_product_and_fits_the_hardware() {
        let sizes = [1, 3, 17, 40, 128, 400, 784, 1000, 4097, 8192];
        for (m, n, k) in sizes.iter().flat_map(|&m| sizes.iter().flat_map(move |&n| sizes.map(|k| (m, n, k)))) {
            for (precision, cc) in PRECISIONS.iter().flat_map(|p| CAPABILITIES.map(|cc| (*p, cc))) {
                for (interprets, sums) in [(false, false), (false, true), (true, false)] {
                    let c = choose(m, n, k, precision, cc, Finish { interprets, bytes: 8, sums });
                    let kernel = KERNELS.iter().find(|kernel| kernel.name == c.kernel).unwrap();
                    let (splits, part) = (c.splits as usize, c.k_per_split as usize);
                    assert!(c.grid.0 as usize * kernel.tile.1 >= n && c.grid.1 as usize * kernel.tile.0 >= m, "{c:?}");
                    assert!(splits * part >= k && (splits - 1) * part < k, "{c:?} does not cut {k}");
                    assert!(c.shared_bytes as usize <= most_shared(cc), "{c:?}");
                    assert!(c.shared_bytes <= 48 << 10 || c.planes, "{c:?}");
                    assert!(kernel.interprets() || !interprets, "{c:?}");
                    assert!(cc.0 >= 8 || kernel.arithmetic == Arithmetic::Simt, "{c:?}");
                    assert!(c.workspace <= 16 << 20, "{c:?}");
                    assert_eq!(c.tickets > 0, splits > 1);
                }
            }
        }
    }

    #[test]
    fn large_products_take_large_tiles_and_long_ones_are_split() {
        let kernel = |m, n, k, precision, cc| choose(m, n, k, precision, cc, Finish::STORE).kernel;
        assert_eq!(kernel(8192, 4096, 4096, Precision::F32, (8, 6)), "gemm_f32_128x128");
        assert_eq!(kernel(8192, 4096, 4096, Precision::F32, (9, 0)), "gemm_bf16x6_128x128");
        assert_eq!(kernel(8192, 4096, 4096, Precision::Bf16, (8, 0)), "gemm_planes_128x128");
        assert_eq!(kernel(8192, 4096, 4096, Precision::Bf16, (9, 0)), "gemm_planes_256x128");
        // With column sums one block of 128 × 128 fits a multiprocessor.
        let summing = Finish { sums: true, ..Finish::STORE_OR_UPDATE };
        assert_eq!(choose(784, 784, 8192, Precision::Bf16, (9, 0), summing).kernel, "gemm_planes_256x128");
        assert!(!choose(784, 784, 8192, Precision::Bf16, (8, 6), summing).planes, "99 KiB are too few");
        assert_eq!(kernel(8192, 4096, 4096, Precision::Bf16, (7, 5)), "gemm_f32_128x128");
        assert_eq!(kernel(128, 400, 784, Precision::F32, (9, 0)), "gemm_f32_64x32");
        assert!(choose(784, 400, 8192, Precision::Tf32, (9, 0), Finish::STORE).splits > 1);
        assert_eq!(choose(4096, 4096, 4096, Precision::Tf32, (9, 0), Finish::STORE).splits, 1);
        // A gradient of little k, whose parameters are updated, is made by many blocks, which move more at a time.
        let gradient = choose(784, 400, 1, Precision::F32, (9, 0), Finish::STORE_OR_UPDATE);
        assert!(gradient.blocks()[0] * gradient.blocks()[1] >= 132, "{gradient:?}");
    }

    /// On boards for graphics six bf16 products take longer than one on the f32 units, which are also exact for every
    /// factor; on those for computing they are faster.
    #[test]
    fn large_f32_products_take_whichever_units_are_faster() {
        for (m, n, k) in [(1024, 1024, 1024), (8192, 784, 400), (4096, 4096, 4096), (8192, 8192, 8192)] {
            for cc in [(8, 6), (8, 9), (12, 0), (12, 1), (13, 0)] {
                let choice = choose(m, n, k, Precision::F32, cc, Finish::STORE);
                assert!(choice.kernel.starts_with("gemm_f32_"), "{m} {n} {k} on {cc:?}: {}", choice.kernel);
                // Also on the boards of the capability that have twice the rate.
                assert!(2.0 * Arithmetic::Bf16x6.rate(cc) * 0.6 < Arithmetic::Simt.rate(cc) * 0.85, "{cc:?}");
            }
            for cc in [(8, 0), (9, 0)] {
                let choice = choose(m, n, k, Precision::F32, cc, Finish::STORE);
                assert!(choice.kernel.starts_with("gemm_bf16x6_"), "{m} {n} {k} on {cc:?}: {}", choice.kernel);
            }
        }
    }

    /// kernels/table.json is what nvcc made of the kernels (scripts/kernel_report.py).
    #[test]
    fn what_is_assumed_of_kernels_is_what_the_compiler_made_of_them() {
        for kernel in KERNELS {
            for (architecture, cc) in ARCHITECTURES {
                let made = |figure: &str| made(kernel.name, architecture, figure);
                assert_eq!(kernel.threads as usize, made("threads"), "{} on {architecture}", kernel.name);
                assert_eq!(kernel.shared_bytes(cc), made("dynamic_shared"), "{} on {architecture}", kernel.name);
            }
            let blocks = ARCHITECTURES.map(|(architecture, _)| made(kernel.name, architecture, "blocks"));
            assert_eq!(kernel.resident, blocks[0].min(blocks[1]), "{}: {blocks:?}", kernel.name);
        }
    }

    #[test]
    fn the_kernels_exist_with_these_tiles() {
        let text = [
            include_str!("../../../../kernels/gemm.cu"),
            include_str!("../../../../kernels/gemm_tensor.cu"),
            include_str!("../../../../kernels/gemm_planes.cu"),
        ]
        .concat();
        for kernel in KERNELS {
            assert!(text.contains(&format!("({}, {}, ", kernel.name, kernel.threads)), "{}", kernel.name);
            let (GemmKernel { tile, warp, depth, stages, .. }, warps) = (kernel, kernel.threads as usize / 32);
            let slices = warps / kernel.warps();
            let numbers = [tile.0, tile.1, warp.0, warp.1, slices, *depth, *stages].map(|n| n.to_string());
            let begin = if kernel.planes { "PlaneTile<" } else { ", " };
            assert!(text.contains(&format!("{begin}{}>;", numbers.join(", "))), "{} {numbers:?}", kernel.name);
        }
    }
}
