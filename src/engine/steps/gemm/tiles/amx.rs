//! AMX: the tile unit of Intel's server processors from Sapphire Rapids on.
//!
//! Eight tile registers of 16 rows of 64 bytes. A step loads two tiles of A and two of B and multiplies them into the
//! four of C, so that a load serves two products and four chains of additions hide each other's latency:
//!
//! ```text
//!   tmm0  tmm1     C            tmm4     A, rows 0 to 15          tmm6, tmm7     B, columns 0 to 15, 16 to 31
//!   tmm2  tmm3                  tmm5     A, rows 16 to 31
//! ```
//!
//! The intrinsics are unstable, and tile registers cannot be operands of inline assembly, so each loop over the steps
//! is one
//! `asm!` from the zeros to the stores.

use super::{Bands, HALVES, PartProducts, TileSums};
use std::arch::asm;

/// The operand of LDTILECFG for palette 1: all eight tiles have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

const ALL_FULL: Configuration = {
    let (mut bytes_per_row, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        (bytes_per_row[tile], rows[tile]) = (64, 16);
        tile += 1;
    }
    Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row, rows }
};

/// Gives this thread's tile registers their shapes.
///
/// # Safety
/// The processor has AMX, and the system permits it ([`TileUnit::amx`](super::TileUnit::amx)).
pub(super) unsafe fn configure() {
    let configuration = &ALL_FULL;
    // SAFETY: as promised; the instruction reads 64 bytes. That nothing else is known of the tiles is as `accumulate`
    // says.
    unsafe { asm!("ldtilecfg [{}]", in(reg) configuration, options(nostack, readonly)) };
}

/// Returns this thread's tile registers to their initial state, which the system need not save.
///
/// # Safety
/// As [`configure`].
pub(super) unsafe fn release() {
    // SAFETY: as promised.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// The loop over the steps, with what one step does, for the operands `$p` of [`accumulate`].
macro_rules! steps {
    ($p:ident; $($line:expr),* $(,)?) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            $($line,)*
            "add {a}, {step}",
            "add {b}, {step}",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{c} + {row}*1], tmm0",
            "tilestored [{c} + {row}*1 + 1024], tmm1",
            "tilestored [{c} + {row}*1 + 2048], tmm2",
            "tilestored [{c} + {row}*1 + 3072], tmm3",
            a = inout(reg) $p.a => _,
            b = inout(reg) $p.b => _,
            steps = inout(reg) $p.steps => _,
            step = in(reg) $p.step,
            c = in(reg) $p.c,
            row = in(reg) 64_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Both tiles of a part of A, which lie `$at` bytes from the step's first.
macro_rules! load_a {
    ($at:literal) => {
        concat!("tileloadd tmm4, [{a} + {row}*1 + ", $at, "]\n tileloadd tmm5, [{a} + {row}*1 + ", $at, " + 1024]")
    };
}

/// Both tiles of a part of B.
macro_rules! load_b {
    ($at:literal) => {
        concat!("tileloadd tmm6, [{b} + {row}*1 + ", $at, "]\n tileloadd tmm7, [{b} + {row}*1 + ", $at, " + 1024]")
    };
}

/// The products of what is loaded. The first factor is the second operand, as in the manual.
macro_rules! multiply {
    () => {
        "tdpbf16ps tmm0, tmm4, tmm6
         tdpbf16ps tmm1, tmm4, tmm7
         tdpbf16ps tmm2, tmm5, tmm6
         tdpbf16ps tmm3, tmm5, tmm7"
    };
}

/// The operands of a loop.
struct Operands {
    a: *const u16,
    b: *const u16,
    c: *mut f32,
    steps: usize,
    /// Bytes from one step to the next.
    step: usize,
}

/// Adds all `terms` of all steps to zero, in the order of [`PartProducts::pairs`].
///
/// # Safety
/// As [`configure`], which this thread has called.
///
/// # Panics
/// When the bands are shorter than their steps, or have no such parts.
pub(super) unsafe fn accumulate(terms: PartProducts, bands: &Bands<'_>, sums: &mut TileSums) {
    let step = bands.parts * 2 * HALVES;
    let parts_used = match terms {
        PartProducts::Large => 1,
        PartProducts::TwoSmall => 2,
        PartProducts::FiveSmall => 3,
    };
    assert!(bands.parts >= parts_used && bands.a.len().min(bands.b.len()) >= bands.steps * step);
    let c = sums.0.as_mut_ptr();
    let p = Operands { a: bands.a.as_ptr(), b: bands.b.as_ptr(), c, steps: bands.steps, step: 2 * step };
    // SAFETY: as promised; the tiles of all steps lie inside the bands, those of C inside the sums. A part is 2048
    // bytes.
    unsafe {
        match terms {
            PartProducts::Large => steps!(p; load_a!(0), load_b!(0), multiply!()),
            PartProducts::TwoSmall => steps!(p;
                load_a!(0), load_b!(2048), multiply!(),
                load_a!(2048), load_b!(0), multiply!(),
            ),
            PartProducts::FiveSmall => steps!(p;
                load_a!(0), load_b!(4096), multiply!(),
                load_b!(2048), multiply!(),
                load_a!(2048), multiply!(),
                load_b!(0), multiply!(),
                load_a!(4096), multiply!(),
            ),
        }
    }
}
