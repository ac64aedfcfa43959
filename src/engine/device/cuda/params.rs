//! What the host passes to kernels: twins of the structs in kernels/params.cuh, field by field.
//!
//! A struct goes to a kernel by value, as its bytes. A test compares sizes and alignments with the C++ compiler's; the 4096
//! bytes of a kernel's parameters are checked when this is compiled.

use super::driver::{Address, Pod};
use crate::engine::graph::MOST_SCHEDULES;

pub(crate) const MAX_CODE: usize = 288;
pub(crate) const MAX_INPUTS: usize = 40;
pub(crate) const MAX_OUTPUTS: usize = 24;
pub(crate) const MAX_SUMS: usize = 8;
pub(crate) const SMALL_CODE: usize = 64;
pub(crate) const SMALL_INPUTS: usize = 16;
pub(crate) const SMALL_OUTPUTS: usize = 8;
pub(crate) const MAX_PHASES: usize = 4;
pub(crate) const MAX_REGS: usize = 64;
pub(crate) const MAX_TOTALS: usize = 16;
pub(crate) const MAX_METRICS: usize = 16;
/// The most models of a launch.
pub(crate) const MAX_MODELS: usize = 16;
/// Bytes from an array of one model to that of the next, where they share launches.
pub(crate) const MODEL_STRIDE: Address = 1 << 26;

/// Declares `#[repr(C)]` structs without padding that may be passed to kernels.
macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub(crate) struct $name { $(pub $field: $type,)* }

            // A kernel takes at most 4096 bytes; bytes between fields would be unnamed memory.
            const _: () = assert!(size_of::<$name>() <= 4096 && size_of::<$name>() == 0 $(+ size_of::<$type>())*);

            // SAFETY: numbers and structs of numbers, and no padding by the assertion above.
            unsafe impl Pod for $name {}
        )*

        /// (name, size in bytes, alignment) of every struct.
        #[cfg(test)]
        pub(crate) const SIZES: &[(&str, usize, usize)] =
            &[$((stringify!($name), size_of::<$name>(), align_of::<$name>()),)*];
    };
}

params! {
    /// The numbers of one step: a row of the table that the host uploads before a run.
    StepValues {
        seed: u64,
        step: u32,
        epoch: u32,
        cursor: u32,
        shuffle: u32,
        schedules: [f32; MOST_SCHEDULES],
        rate: f32,
        root_scale: f32,
    }

    /// Device memory: the row of the table that is this step's, and whether an index was bad.
    Ctl {
        now: u32,
        bad_lookup: u32,
        bad_row: u32,
        bad_index: f32,
    }

    /// Where both are.
    Clock {
        ctl: Address,
        table: Address,
    }

    /// A rectangle of f32.
    View {
        ptr: Address,
        rows: i32,
        cols: i32,
        stride: i32,
        pad: i32,
    }

    /// One instruction. Aligned so that a kernel fetches it as one word.
    #[repr(align(8))]
    Instr {
        op: u8,
        dst: u8,
        a: u8,
        b: u8,
        imm: u32,
    }

    /// An operand of a program.
    Input {
        ptr: Address,
        stride: i32,
        access: i32,
    }

    /// What a program leaves behind.
    Output {
        ptr: Address,
        stride: i32,
        reg: u16,
        kind: u16,
    }

    /// A pointwise program.
    Program {
        rows: i32,
        cols: i32,
        uniform_len: u16,
        body_len: u16,
        inputs_len: u16,
        outputs_len: u16,
        regs: u16,
        sums: u16,
        compiled: u32,
        code: [Instr; MAX_CODE],
        inputs: [Input; MAX_INPUTS],
        outputs: [Output; MAX_OUTPUTS],
    }

    /// A pointwise program in less room.
    SmallProgram {
        rows: i32,
        cols: i32,
        uniform_len: u16,
        body_len: u16,
        inputs_len: u16,
        outputs_len: u16,
        regs: u16,
        sums: u16,
        compiled: u32,
        code: [Instr; SMALL_CODE],
        inputs: [Input; SMALL_INPUTS],
        outputs: [Output; SMALL_OUTPUTS],
    }

    /// Of `pointwise`.
    PointwiseParams {
        clock: Clock,
        program: Program,
    }

    /// How parameters are updated.
    RuleParams {
        rule: i32,
        beta1: f32,
        beta2: f32,
        one_minus_beta1: f32,
        one_minus_beta2: f32,
        eps: f32,
        momentum: f32,
        pad: i32,
    }

    /// The end of a step.
    StepEnd {
        ticket: Address,
        blocks: u32,
        pad: u32,
    }

    /// A parameter with its moments.
    ParamPlaces {
        p: Address,
        m: Address,
        v: Address,
    }

    /// Of the matrix products.
    GemmParams {
        clock: Clock,
        a: Address,
        b: Address,
        m: i32,
        n: i32,
        k: i32,
        lda: i32,
        ldb: i32,
        ldc: i32,
        c: Address,
        col_sums: Address,
        workspace: Address,
        tickets: Address,
        splits: i32,
        k_per_split: i32,
        tiles_m: i32,
        apart: i32,
        alpha: f32,
        epilogue: i32,
        ta: i32,
        tb: i32,
        end: StepEnd,
        by: RuleParams,
        of_c: ParamPlaces,
        of_col_sums: ParamPlaces,
        a_plane: Address,
        b_plane: Address,
        a_pitch: i32,
        b_pitch: i32,
        out_plane: Address,
        out_pitch: i32,
        pad: i32,
        program: Program,
    }

    /// Of `make_planes`.
    MakePlanesParams {
        from: Address,
        to: Address,
        rows: i32,
        cols: i32,
        ld: i32,
        pitch: i32,
        planes: i32,
        pad: i32,
    }

    /// One of the steps of `rows_1` and `rows_4`.
    RowsPhase {
        a: Address,
        b: Address,
        n: i32,
        k: i32,
        lda: i32,
        ldb: i32,
        tb: i32,
        splits: i32,
        k_per_split: i32,
        epilogue: i32,
        group: i32,
        ahead: i32,
        program: SmallProgram,
    }

    /// Of `rows_1` and `rows_4`.
    RowsParams {
        clock: Clock,
        rows: i32,
        phases_len: i32,
        phases: [RowsPhase; MAX_PHASES],
    }

    /// Of `batch`.
    BatchParams {
        clock: Clock,
        data: [Address; MAX_MODELS],
        data_rows: u32,
        floats: i32,
        out: View,
        unit: f32,
        ahead: u32,
        end: StepEnd,
    }

    /// Of `reduce_rows` and `reduce_cols`.
    ReduceParams {
        x: Address,
        out: Address,
        outer: i32,
        reduced: i32,
        inner: i32,
        max: i32,
        parts: i32,
        per_part: i32,
        workspace: Address,
        tickets: Address,
    }

    /// Of `softmax_rows` and `softmax_grad_rows`.
    SoftmaxParams {
        x: View,
        dy: View,
        out: View,
        log: i32,
        pad: i32,
    }

    /// Of the kernels that move elements.
    MoveParams {
        ctl: Address,
        x: View,
        out: View,
        index: Address,
        kind: i32,
        start: i32,
        rank: i32,
        to: [i32; 4],
        strides: [i32; 4],
        lookup: u32,
    }

    /// Partial sums and where their total goes.
    Total {
        partials: Address,
        total: Address,
        len: i32,
        pad: i32,
    }

    /// A scalar and the running sum it is added to.
    Metric {
        value: Address,
        sum: Address,
    }

    /// Of `scalars`.
    ScalarsParams {
        clock: Clock,
        end: StepEnd,
        totals_len: i32,
        metrics_len: i32,
        totals: [Total; MAX_TOTALS],
        metrics: [Metric; MAX_METRICS],
        program: Program,
    }

    /// Of `adam` and `sgd`.
    OptimizeParams {
        clock: Clock,
        of: ParamPlaces,
        g: Address,
        scale: Address,
        len: u64,
        by: RuleParams,
        end: StepEnd,
    }

    /// Of the kernels of roofline.cu.
    RooflineParams {
        from: Address,
        to: Address,
        len: u64,
        turns: i32,
        x: f32,
        y: f32,
        pad: i32,
    }

    /// Of rungs 1 to 8 of the ladder.
    LadderParams {
        a: Address,
        b: Address,
        c: Address,
        m: i32,
        n: i32,
        k: i32,
        lda: i32,
        ldb: i32,
        ldc: i32,
    }

    /// Of `sum_parts`.
    SumPartsParams {
        parts: Address,
        to: Address,
        len: u64,
        ranks: i32,
        pad: i32,
    }

    /// Of `tick`.
    TickParams {
        ctl: Address,
    }

    /// Of `noise_hash`.
    HashParams {
        first: u64,
        count: u64,
        seed: u64,
        out: Address,
        which: i32,
        pad: i32,
    }
}

/// All bytes zero: null pointers, empty programs.
pub(crate) fn zeroed<T: Pod>() -> T {
    // SAFETY: every pattern of bytes is a value.
    unsafe { std::mem::zeroed() }
}

/// The bytes of a parameter struct as words, so that they are aligned like the struct.
pub(crate) fn words<T: Pod>(params: &T) -> Box<[u64]> {
    let mut words = vec![0u64; size_of::<T>().div_ceil(8)].into_boxed_slice();
    // SAFETY: the words hold at least as many bytes, and a `Pod` is its bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(
            (&raw const *params).cast::<u8>(),
            words.as_mut_ptr().cast::<u8>(),
            size_of::<T>(),
        );
    }
    words
}

/// The parameter struct whose words these are.
pub(crate) fn of_words<T: Pod>(words: &[u64]) -> T {
    assert_eq!(words.len(), size_of::<T>().div_ceil(8));
    // SAFETY: the words hold at least as many bytes and are aligned to 8, the most that a struct of numbers asks for; every
    // pattern of bytes is a value.
    unsafe { std::ptr::read(words.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both C++ compilers check sizes and alignments in params.cuh; here they are compared with Rust's.
    #[test]
    fn structs_have_the_size_and_alignment_they_have_in_the_kernels() {
        let header = include_str!("../../../../kernels/params.cuh");
        for (name, size, align) in SIZES {
            let line = format!("static_assert(sizeof({name}) == {size} && alignof({name}) == {align});");
            assert!(header.contains(&line), "kernels/params.cuh lacks: {line}");
        }
    }

    #[test]
    fn models_lie_as_the_kernels_think() {
        let header = include_str!("../../../../kernels/per_model.cuh");
        let shift = MODEL_STRIDE.trailing_zeros();
        let lines = [
            format!("constexpr u64 MODEL_STRIDE = 1ull << {shift};"),
            format!("enum {{ MAX_MODELS = {MAX_MODELS} }};"),
        ];
        assert!(MODEL_STRIDE.is_power_of_two() && lines.iter().all(|line| header.contains(line)), "{lines:?}");
    }

    #[test]
    fn words_are_the_bytes() {
        let instr = Instr { op: 1, dst: 2, a: 3, b: 4, imm: 0x0807_0605 };
        assert_eq!(*words(&instr), [0x0807_0605_0403_0201]);
        let back: Instr = of_words(&words(&instr));
        assert_eq!((back.op, back.dst, back.a, back.b, back.imm), (1, 2, 3, 4, 0x0807_0605));
    }
}
