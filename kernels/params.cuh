// What the host passes to kernels: one struct each, by value, mirrored field by field in src/engine/device/cuda/params.rs
// (a test compares sizes and alignments). All structs are at most 4096 bytes, the limit of kernel parameters.
#pragma once
#include "per_model.cuh"

// The numbers of one step (src/engine/steps/mod.rs, StepValues), computed by the host in the same arithmetic as for the CPU.
// The host uploads those of the next steps of a run as a table; `Ctl::now` says which row is this step's. So nothing
// that changes from step to step is frozen into a captured graph.
struct StepValues {
    u64 seed;
    u32 step, epoch, cursor, shuffle;
    float schedules[4];      // what the caller computes for this step, in the order of Graph::schedules
    float rate, root_scale;  // Optimizer::scalars
};

// Lives on the device; the last block of a step ticks it (step_end.cuh).
struct Ctl {
    u32 now;          // row of the table
    u32 bad_lookup;   // set by what moves by index when one names no row or column: MoveParams::lookup,
    u32 bad_row;      // where it stands,
    float bad_index;  // and what it is
};

struct Clock {
    PerModel<Ctl> ctl;
    PerModel<const StepValues> table;
};

// The end of a step: of the blocks of all launches that nothing in the step waits for, the last to finish moves the clock on.
struct StepEnd {
    PerModel<u32> ticket;  // zero before and after
    u32 blocks;            // of a model, of all launches that end the step together; 0: this one is none of them
    u32 _pad;
};

// A rectangle of f32: element (r, c) is ptr[r * stride + c].
struct View {
    PerModel<float> ptr;
    int rows, cols, stride, _pad;
};

// ---- pointwise programs (src/engine/plan/program.rs) ----

// One instruction. Registers are numbers below Program::regs. `imm` is what the operation says. Aligned so that a kernel
// fetches an instruction as one word of 64 bits.
struct alignas(8) Instr {
    u8 op, dst, a, b;
    u32 imm;
};

enum Op : u8 {
    OP_ACC = 0,      // dst = the matrix product's element
    OP_LOAD = 1,     // dst = inputs[imm]
    OP_CONST = 2,    // dst = float with bits imm
    OP_CTL = 3,      // dst = schedules[imm], or float(step) for imm = CTL_STEP
    OP_NORMAL = 4,   // dst = normal noise of stream imm, element row · cols + col
    OP_UNIFORM = 5,  // dst = uniform noise, likewise
    OP_POW = 6,      // dst = a^c; c is the f64 in the 8 bytes of the following instruction slot
    OP_SELECT = 7,   // dst = register imm ≠ 0 ? a : b
    OP_SOFTPLUS_SIGMOID = 8,  // dst = softplus(a), register b = sigmoid(a), sharing e^(−|a|)
    OP_UNARY = 32,   // + ScalarFn's number (order of the table in src/engine/ops/scalar.rs): dst = f(a)
    OP_BINARY = 96,  // + BinaryFn's number (order of BinaryFn::ALL): dst = f(a, b)
};

constexpr u32 CTL_STEP = 255;

enum Access : int { ACCESS_FULL = 0, ACCESS_ROW = 1, ACCESS_COL = 2, ACCESS_SCALAR = 3 };

struct Input {
    PerModel<const float> ptr;
    int stride, access;
};

// Kind 0: store the register at (row, col). Kind 1: the sum of the register over everything the block processes goes to
// ptr[the block's number], where the block's number counts blocks x first, then y; every block writes its own.
struct Output {
    PerModel<float> ptr;
    int stride;
    u16 reg, kind;
};

enum { MAX_CODE = 288, MAX_INPUTS = 40, MAX_OUTPUTS = 24, MAX_SUMS = 8, MAX_REGS = 64 };

template <int CODE, int INPUTS, int OUTPUTS>
struct ProgramOf {
    int rows, cols;
    u16 uniform_len, body_len;  // in slots of `code`: first the uniform instructions, then the body
    u16 inputs_len, outputs_len;
    u16 regs, sums;             // `sums`: number of outputs of kind 1, at most MAX_SUMS
    u32 compiled;               // the number of its form in programs.cuh; 0: it is interpreted
    Instr code[CODE];
    Input inputs[INPUTS];
    Output outputs[OUTPUTS];
};

using Program = ProgramOf<MAX_CODE, MAX_INPUTS, MAX_OUTPUTS>;
// Where parameters have room for several.
using SmallProgram = ProgramOf<64, 16, 8>;

struct PointwiseParams {
    Clock clock;
    Program program;
};

// ---- updates of parameters ----

// How parameters are updated (Optimizer in src/engine/optim.rs).
struct RuleParams {
    int rule;  // 0: Adam, 1: SGD with momentum
    float beta1, beta2, one_minus_beta1, one_minus_beta2, eps, momentum;
    int _pad;
};

// A parameter with its moments; SGD has no v.
struct ParamPlaces {
    PerModel<float> p, m, v;
};

// ---- the matrix product: C = op(A) · op(B), [m, n] = [m, k] · [k, n] ----

struct GemmParams {
    Clock clock;
    PerModel<const float> a;  // stored [m, k], or [k, m] if ta
    PerModel<const float> b;  // stored [k, n], or [n, k] if tb
    int m, n, k, lda, ldb, ldc;
    PerModel<float> c;          // where the product is stored; null: it goes through an epilogue
    PerModel<float> col_sums;   // Σ_p op(B)[p, j], [n]; null without
    PerModel<float> workspace;  // split-K: the splits' tiles, and [splits][n] behind them when there are col_sums; 16-byte aligned
    PerModel<u32> tickets;      // split-K: one counter per tile, zero before and after
    int splits, k_per_split;
    int tiles_m;      // tiles of C along m: each split of k has so many of gridDim.y
    int apart;        // 1: the splits' sums are stored in c as matrices of their own, [splits][m][ldc], for rows.cu to add up
    float alpha;      // multiplies the product
    int epilogue;     // number of a hand-written epilogue (kernels/epilogue.cuh); 0: run `program`
    int ta, tb;       // whether a is stored [k, m], b [n, k]
    StepEnd end;
    RuleParams by;    // C and the column sums are the gradients of these parameters, which the kernel updates in place
    ParamPlaces of_c, of_col_sums;  // of storing them; null: it does not
    // gemm_planes.cu: a and b as planes of bf16, stored alike, rows so many numbers apart
    PerModel<const u16> a_plane, b_plane;
    int a_pitch, b_pitch;
    // What a hand-written epilogue stores, as a plane too, where it is a factor of others; null: it does not
    PerModel<u16> out_plane;
    int out_pitch, _pad;
    Program program;
};

// ---- planes of bf16 (planes.cu) ----

struct MakePlanesParams {
    PerModel<const float> from;  // [rows, cols], rows ld apart
    PerModel<u16> to;            // [planes][rows][pitch], fewer than 2³² words in a plane
    int rows, cols, ld, pitch, planes, _pad;
};

// ---- steps that follow one another row by row (rows.cu) ----

// y = op(a, b) through an epilogue; or the sum of a's matrices, the splits of a product (GemmParams::apart), where b is null;
// or the program alone where a is null too.
struct RowsPhase {
    PerModel<const float> a;  // stored [rows, k]; or [splits][rows][lda]
    PerModel<const float> b;  // stored [k, n], or [n, k] if tb
    int n, k, lda, ldb, tb;
    int splits, k_per_split;  // of the product's order of additions
    int epilogue;     // as in GemmParams
    int group;        // threads that interpret at a time, a power of two, 32 … 256
    int ahead;        // where in shared memory, in floats, b is copied to before the launch waits; 0: nowhere
    SmallProgram program;
};

enum { MAX_PHASES = 4 };

struct RowsParams {
    Clock clock;
    int rows, phases_len;
    RowsPhase phases[MAX_PHASES];
};

// ---- everything else ----

struct BatchParams {  // out[i, j] = data[order(cursor + i), j] / unit
    Clock clock;
    const void* data[MAX_MODELS];  // of every model: bytes, or f32
    u32 data_rows;
    int floats;  // 1: the data are f32
    View out;
    float unit;
    u32 ahead;    // 1: the batch is that of the next step
    StepEnd end;  // of this one
};

struct ReduceParams {  // out[o, i] = Σ_r or max_r x[o, r, i]; x contiguous (or one row of stride cols), out contiguous
    PerModel<const float> x;
    PerModel<float> out;
    int outer, reduced, inner, max;
    int parts, per_part;  // inner = 1: blocks that share a row, and elements of each but the last
    PerModel<float> workspace;  // parts > 1: [outer][parts]
    PerModel<u32> tickets;      // parts > 1: one counter per row, zero before and after
};

struct SoftmaxParams {  // rows of out are those of x, and of dy in a gradient, where x is the softmax's value
    View x, dy, out;
    int log, _pad;      // the logarithm's
};

enum MoveKind : int {
    MOVE_COPY = 0,
    MOVE_PAD = 1,
    MOVE_TRANSPOSE = 2,
    MOVE_BROADCAST = 3,
    MOVE_GATHER = 4,
    MOVE_SCATTER = 5,
    MOVE_PICK = 6,
    MOVE_PLACE = 7,
};

enum { MAX_RANK = 4 };

struct MoveParams {
    PerModel<Ctl> ctl;
    View x, out;
    PerModel<const float> index;  // gather, scatter, pick, place
    int kind;
    int start;           // pad: first column
    int rank;            // broadcast
    int to[MAX_RANK], strides[MAX_RANK];  // broadcast: shape of out, strides of x (0 where repeated)
    u32 lookup;  // the number by which the host knows the operation, from 1
};

enum { MAX_TOTALS = 16, MAX_METRICS = 16 };

struct Total {
    PerModel<const float> partials;
    PerModel<float> total;
    int len, _pad;
};

struct Metric {
    PerModel<const float> value;
    PerModel<double> sum;
};

// One block: totals of partial sums in f64 in a fixed order, the program on one element, metrics (sum += value in f64).
struct ScalarsParams {
    Clock clock;
    StepEnd end;
    int totals_len, metrics_len;
    Total totals[MAX_TOTALS];
    Metric metrics[MAX_METRICS];
    Program program;
};

struct OptimizeParams {  // one launch per run of neighbouring parameters
    Clock clock;
    ParamPlaces of;
    PerModel<const float> g;
    PerModel<const float> scale;  // multiplies the gradient; null: 1
    u64 len;
    RuleParams by;
    StepEnd end;
};

struct RooflineParams {  // what a device can do at most (roofline.cu)
    const float* from;
    float* to;   // the copy; of the arithmetic one float per thread, so that nothing is left out as useless
    u64 len;     // floats to copy, a multiple of 4
    int turns;   // of the loop over the chains, or over the arrays
    float x, y;  // every chain computes s ← s · x + y
    int _pad;
};

struct LadderParams {  // rungs 1 to 8 of kernels/dev: C = A · B, row-major
    const float* a;    // [m, k]
    const float* b;    // [k, n]
    float* c;          // [m, n]
    int m, n, k, lda, ldb, ldc;
};

struct SumPartsParams {  // sum_parts.cu
    const float* parts;  // [ranks, len]
    float* to;           // [len]
    u64 len;
    int ranks, _pad;
};

struct TickParams {
    PerModel<Ctl> ctl;
};

enum Hashed : int { HASH_POW = 32, HASH_UNIT_LOG = 33, HASH_SIN = 34, HASH_COS = 35, HASH_NORMAL = 36, HASH_UNIFORM = 37 };

struct HashParams {  // kernels/noise_hash.cu: inputs first … first + count − 1, below 2³²
    u64 first, count, seed;
    u64* out;
    int which, _pad;
};

// Sizes and alignments are those of src/engine/device/cuda/params.rs; a test there compares them.
static_assert(sizeof(StepValues) == 48 && alignof(StepValues) == 8);
static_assert(sizeof(Ctl) == 16 && alignof(Ctl) == 4);
static_assert(sizeof(Clock) == 16 && alignof(Clock) == 8);
static_assert(sizeof(View) == 24 && alignof(View) == 8);
static_assert(sizeof(Instr) == 8 && alignof(Instr) == 8);
static_assert(sizeof(Input) == 16 && alignof(Input) == 8);
static_assert(sizeof(Output) == 16 && alignof(Output) == 8);
static_assert(sizeof(Program) == 3352 && alignof(Program) == 8);
static_assert(sizeof(SmallProgram) == 920 && alignof(SmallProgram) == 8);
static_assert(sizeof(RowsPhase) == 976 && alignof(RowsPhase) == 8);
static_assert(sizeof(RowsParams) == 3928 && alignof(RowsParams) == 8);
static_assert(sizeof(PointwiseParams) == 3368 && alignof(PointwiseParams) == 8);
static_assert(sizeof(StepEnd) == 16 && alignof(StepEnd) == 8);
static_assert(sizeof(RuleParams) == 32 && alignof(RuleParams) == 4);
static_assert(sizeof(ParamPlaces) == 24 && alignof(ParamPlaces) == 8);
static_assert(sizeof(GemmParams) == 3608 && alignof(GemmParams) == 8);
static_assert(sizeof(MakePlanesParams) == 40 && alignof(MakePlanesParams) == 8);
static_assert(sizeof(BatchParams) == 200 && alignof(BatchParams) == 8);
static_assert(sizeof(ReduceParams) == 56 && alignof(ReduceParams) == 8);
static_assert(sizeof(SoftmaxParams) == 80 && alignof(SoftmaxParams) == 8);
static_assert(sizeof(MoveParams) == 112 && alignof(MoveParams) == 8);
static_assert(sizeof(Total) == 24 && alignof(Total) == 8);
static_assert(sizeof(Metric) == 16 && alignof(Metric) == 8);
static_assert(sizeof(ScalarsParams) == 4032 && alignof(ScalarsParams) == 8);
static_assert(sizeof(OptimizeParams) == 112 && alignof(OptimizeParams) == 8);
static_assert(sizeof(TickParams) == 8 && alignof(TickParams) == 8);
static_assert(sizeof(HashParams) == 40 && alignof(HashParams) == 8);
static_assert(sizeof(RooflineParams) == 40 && alignof(RooflineParams) == 8);
static_assert(sizeof(LadderParams) == 48 && alignof(LadderParams) == 8);
static_assert(sizeof(SumPartsParams) == 32 && alignof(SumPartsParams) == 8);
