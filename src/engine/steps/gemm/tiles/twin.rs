//! A tile unit in plain Rust: the same bits on every processor, slowly.

use super::pack::widened;
use super::{Bands, HALVES, PartProducts, STEP, SUMS, TILE, TileSums};
use crate::engine::isa::Isa;

/// In which order TDPBF16PS adds, with every addition rounded to nearest even, and what is below 2⁻¹²⁶ taken for 0
/// before and after each (a result that only rounding lifts to 2⁻¹²⁶ is kept). Which one a processor has is found out
/// when it is first used (`probe.rs`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Additions {
    /// Two chains of fused multiply-adds from 0 over the 16 pairs of k, for the even and the odd numbers; their sum is
    /// added to C. So says the pseudo-code of Intel's *Software Developer's Manual*, and so does the emulator Bochs.
    Chains,
    /// One chain of fused multiply-adds from C on, even before odd: the pseudo-code of Intel's *Intrinsics Guide*.
    Serial,
    /// Pair after pair of k its sum, rounded once, is added to C.
    Pairs,
}

impl Additions {
    /// All that are known.
    pub const ALL: [Additions; 3] = [Additions::Chains, Additions::Serial, Additions::Pairs];
}

/// Numbers below the least normal one are 0 with their sign.
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { f32::from_bits(x.to_bits() & 1 << 31) } else { x }
}

/// x·y + z.
#[inline(always)]
fn fused(x: f32, y: f32, z: f32) -> f32 {
    flushed(x.mul_add(y, z))
}

/// Adds all `terms` to the sums, step after step, as `amx::accumulate` does.
pub(super) fn accumulate(additions: Additions, isa: Isa, terms: PartProducts, bands: &Bands<'_>, sums: &mut TileSums) {
    isa.run(
        #[inline(always)]
        || {
            for step in 0..bands.steps {
                for &(i, j) in terms.pairs() {
                    let tile = |part: usize, half: usize| ((step * bands.parts + part) * 2 + half) * HALVES;
                    for right in 0..2 {
                        let b = Right::new(&bands.b[tile(j, right)..][..HALVES]);
                        for left in 0..2 {
                            let c = &mut sums.0[(left * 2 + right) * SUMS / 4..][..SUMS / 4];
                            b.multiply(additions, &bands.a[tile(i, left)..][..HALVES], c);
                        }
                    }
                }
            }
        },
    );
}

/// A tile of B, the even and the odd numbers of k apart.
struct Right {
    even: [[f32; TILE]; TILE],
    odd: [[f32; TILE]; TILE],
}

impl Right {
    #[inline(always)]
    fn new(tile: &[u16]) -> Right {
        let number = |pair: usize, j: usize, odd: usize| flushed(widened(tile[pair * STEP + 2 * j + odd]));
        let numbers = |odd| std::array::from_fn(|pair| std::array::from_fn(|j| number(pair, j, odd)));
        Right { even: numbers(0), odd: numbers(1) }
    }

    /// c += a · self.
    #[inline(always)]
    fn multiply(&self, additions: Additions, a: &[u16], c: &mut [f32]) {
        for (a, c) in a.chunks_exact(STEP).zip(c.chunks_exact_mut(TILE)) {
            let pairs = a.chunks_exact(2).map(|pair| [0, 1].map(|odd| flushed(widened(pair[odd]))));
            let pairs = pairs.zip(self.even.iter().zip(&self.odd));
            match additions {
                Additions::Chains => {
                    let (mut even, mut odd) = ([0.0; TILE], [0.0; TILE]);
                    for ([x, y], (b, d)) in pairs {
                        (0..TILE).for_each(|j| even[j] = fused(x, b[j], even[j]));
                        (0..TILE).for_each(|j| odd[j] = fused(y, d[j], odd[j]));
                    }
                    (0..TILE).for_each(|j| c[j] = flushed(c[j] + flushed(even[j] + odd[j])));
                }
                Additions::Serial => {
                    for ([x, y], (b, d)) in pairs {
                        (0..TILE).for_each(|j| c[j] = fused(y, d[j], fused(x, b[j], c[j])));
                    }
                }
                Additions::Pairs => {
                    for ([x, y], (b, d)) in pairs {
                        (0..TILE).for_each(|j| c[j] = flushed(c[j] + fused(y, d[j], flushed(x * b[j]))));
                    }
                }
            }
        }
    }
}
