//! Which arithmetic a tile unit has: crafted tiles through the unit and through every twin.
//!
//! The order of its additions is not what a program can look up for sure (see [`Additions`]), and a wrong operand would
//! still be a matrix product. So nothing is computed on a unit before it has given the bits of one of the twins.

use super::pack::rounded;
use super::{Additions, Bands, HALVES, PartProducts, SUMS, TileSums, twin};
use crate::engine::isa::Isa;
use crate::engine::rng::{Draw, OPERANDS};

/// Steps of k of the crafted bands, so that one step continues from another.
const STEPS: usize = 3;
/// Parts of the crafted bands.
const PARTS: usize = 3;
/// Halfwords of a crafted band.
const BAND: usize = STEPS * PARTS * 2 * HALVES;

/// What a unit turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    /// It adds in this order.
    Adds(Additions),
    /// It multiplies the right numbers, and adds or rounds in another way than any twin.
    RoundsOtherwise,
    /// Sums without any rounding are wrong: it is given wrong operands.
    Wrong,
}

/// Asks a unit, which is what [`PartProducts`] of bands are added up by.
pub(super) fn ask(unit: impl Fn(PartProducts, &Bands<'_>, &mut TileSums)) -> Finding {
    let agrees = |additions: Additions, [a, b]: &[Vec<u16>; 2]| {
        [PartProducts::Large, PartProducts::TwoSmall, PartProducts::FiveSmall].iter().all(|&terms| {
            let bands = Bands { a, b, parts: PARTS, steps: STEPS };
            let (mut found, mut expected) = (TileSums([0.0; SUMS]), TileSums([0.0; SUMS]));
            unit(terms, &bands, &mut found);
            twin::accumulate(additions, Isa::detect(), terms, &bands, &mut expected);
            found.0.iter().zip(&expected.0).all(|(x, y)| x.to_bits() == y.to_bits())
        })
    };
    if !agrees(Additions::Chains, &integers()) {
        return Finding::Wrong;
    }
    let of_all =
        |additions: &Additions| [real_numbers(), small_numbers()].iter().all(|bands| agrees(*additions, bands));
    match Additions::ALL.into_iter().find(of_all) {
        Some(additions) => Finding::Adds(additions),
        None => Finding::RoundsOtherwise,
    }
}

/// A band of A and one of B of `number(i)` for i = 0, 1, …, which goes on from A to B.
fn bands(number: impl Fn(usize) -> f32) -> [Vec<u16>; 2] {
    [0, BAND].map(|first| (first..first + BAND).map(|i| rounded(number(i))).collect())
}

/// Small integers, different everywhere: sums below 2²⁴ are exact in any order, and wrong if any two tiles, rows,
/// columns or pairs are taken for each other.
fn integers() -> [Vec<u16>; 2] {
    bands(|i| (draw(i) * 200.0).floor() - 100.0)
}

/// Numbers of both signs and of many sizes, whose sums cancel.
fn real_numbers() -> [Vec<u16>; 2] {
    bands(|i| (draw(i) - 0.5) * ((draw(i + 2 * BAND) - 0.5) * 20.0).exp2())
}

/// Numbers whose products and sums lie around the least normal one, some of them denormal themselves.
fn small_numbers() -> [Vec<u16>; 2] {
    bands(|i| {
        let factor = if i < BAND { 2.0_f32.powi(-100) } else { 2.0_f32.powi(-26) };
        let denormal = i.is_multiple_of(5).then_some(2.0_f32.powi(-30)).filter(|_| i < BAND);
        (draw(i) - 0.5) * factor * denormal.unwrap_or(1.0)
    })
}

/// Number i of a stream of its own, in [0, 1).
fn draw(i: usize) -> f32 {
    Draw { seed: 0, step: 0, stream: OPERANDS }.uniform(i as u64)
}
