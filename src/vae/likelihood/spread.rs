//! A spread that cannot reach zero: s = floor + softplus(r) for the raw output r of the decoder.

use crate::engine::graph::Var;

/// s of r.
#[track_caller]
pub(super) fn of<'g>(raw: Var<'g>, floor: f64) -> Var<'g> {
    raw.softplus() + floor
}

/// s of one r.
pub(super) fn value(raw: f64, floor: f64) -> f64 {
    floor + (raw.max(0.0) + (-raw.abs()).exp().ln_1p())
}

/// r of s; of a tenth of the floor above the floor, if s is below that: softplus has no zero.
pub(super) fn raw(s: f64, floor: f64) -> f64 {
    let above = (s - floor).max(0.1 * floor);
    above + (-(-above).exp_m1()).ln() // ln(e^above − 1), for large ones too
}

/// Location and spread from the two halves of the columns, `[rows, D]` each.
#[track_caller]
pub(super) fn halves<'g>(values: Var<'g>, floor: f64) -> (Var<'g>, Var<'g>) {
    let pixels = values.shape()[1] / 2;
    (values.slice_cols(0, pixels), of(values.slice_cols(pixels, pixels), floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_spread_is_that_of_its_value() {
        assert!((value(raw(0.1, 0.2), 0.2) - 0.22).abs() < 1e-12, "a floor above the data's spread");
        assert!((raw(800.0, 0.1) - 799.9).abs() < 1e-9, "no overflow");
        assert!((value(raw(0.3, 0.05), 0.05) - 0.3).abs() < 1e-12);
    }
}
