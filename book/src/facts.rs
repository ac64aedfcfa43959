//! What the source does not say of itself: domain and kinks of each function of the table, and where it is drawn.
//! A test holds them against the values.

use elbo::engine::ops::{BinaryFn, Op, ScalarFn};

/// What is known of a function of one number.
pub struct Facts {
    /// Where it has a value, in words.
    pub domain: &'static str,
    /// Its lower end: below it the value is NaN.
    pub from: f64,
    /// Where the derivative jumps.
    pub kinks: &'static [f64],
    /// The drawing's first and last x.
    pub drawn: (f64, f64),
    /// Where the difference quotients are taken.
    pub at: &'static [f64],
}

/// The facts of a function.
pub fn of(f: ScalarFn) -> Facts {
    const ALL: f64 = f64::NEG_INFINITY;
    let (domain, from, kinks, drawn): (_, _, &[f64], _) = match f {
        ScalarFn::Exp => ("all x; ∞ in f32 above 88.72, 0 below −103.97", ALL, &[], (-3.0, 2.0)),
        ScalarFn::Expm1 => ("all x; ∞ in f32 above 88.72", ALL, &[], (-3.0, 2.0)),
        ScalarFn::Expm1mx => ("all x; ∞ in f32 above 88.72", ALL, &[], (-3.0, 2.0)),
        ScalarFn::Log => ("x > 0; −∞ at 0, NaN below", 0.0, &[], (0.05, 4.0)),
        ScalarFn::Log1p => ("x > −1; −∞ at −1, NaN below", -1.0, &[], (-0.9, 4.0)),
        ScalarFn::Sqrt => ("x ≥ 0, NaN below; the derivative is ∞ at 0", 0.0, &[], (0.05, 4.0)),
        ScalarFn::Square => ("all x", ALL, &[], (-2.0, 2.0)),
        ScalarFn::Abs => ("all x", ALL, &[0.0], (-2.0, 2.0)),
        ScalarFn::Sign => ("all x; it jumps at 0", ALL, &[], (-2.0, 2.0)),
        ScalarFn::Step => ("all x; it jumps at 0", ALL, &[], (-2.0, 2.0)),
        ScalarFn::Neg => ("all x", ALL, &[], (-2.0, 2.0)),
        ScalarFn::Relu => ("all x", ALL, &[0.0], (-2.0, 2.0)),
        ScalarFn::Tanh => ("all x; ±1 in f32 beyond 9.02", ALL, &[], (-4.0, 4.0)),
        ScalarFn::Sigmoid => ("all x", ALL, &[], (-6.0, 6.0)),
        ScalarFn::Softplus => ("all x", ALL, &[], (-6.0, 6.0)),
        ScalarFn::Silu => ("all x", ALL, &[], (-6.0, 6.0)),
        ScalarFn::Gelu => ("all x", ALL, &[], (-4.0, 4.0)),
    };
    let at: &[f64] = if from == 0.0 { &[0.4, 1.3, 2.2] } else { &[-0.7, 0.4, 1.3] };
    Facts { domain, from, kinks, drawn, at }
}

/// Where a function of two numbers has kinks, in words.
pub fn kinks_of(f: BinaryFn) -> &'static str {
    match f {
        BinaryFn::Add | BinaryFn::Sub | BinaryFn::Mul => "all a and b; no kinks",
        BinaryFn::Div => "b ≠ 0; ±∞ or NaN at b = 0; no kinks",
        BinaryFn::Max | BinaryFn::Min => "all a and b; a kink where a = b, at which the gradient goes to a",
        BinaryFn::Lt | BinaryFn::Le => "all a and b; a jump where a = b",
        BinaryFn::Eq => "all a and b; 1 on the line a = b alone",
    }
}

/// What makes nodes of an operation on whole arrays, as calls are written.
pub fn calls(op: Op) -> &'static [&'static str] {
    match op {
        Op::Pow(_) => &[".pow("],
        Op::Select => &[".select("],
        Op::MatMul { .. } => &[".matmul(", ".matmul_t("],
        Op::Sum(_) => &[".sum(", ".sum_keep(", ".sum_all(", ".mean(", ".mean_all("],
        Op::MaxOver(_) => &[".max(&", ".max_keep("],
        Op::Softmax { log: false } => &[".softmax()"],
        Op::Softmax { log: true } => &[".log_softmax()"],
        Op::Broadcast => &[".broadcast_to("],
        Op::Reshape => &[".reshape("],
        Op::Transpose => &[".t()"],
        Op::SliceCols(_) => &[".slice_cols("],
        Op::PadCols(_) => &[".pad_cols("],
        Op::ConcatCols => &[".concat_cols("],
        Op::GatherRows => &[".gather_rows("],
        Op::ScatterRows => &[".scatter_rows("],
        Op::Pick => &[".pick("],
        Op::Place => &[".place("],
        Op::StopGradient => &[".stop_gradient()"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_the_domain_and_the_kinks_that_are_stated() {
        for &f in ScalarFn::ALL {
            let facts = of(f);
            assert!(f.eval(facts.drawn.0).is_finite() && f.eval(facts.drawn.1).is_finite(), "{}", f.name());
            let below = if facts.from.is_finite() { facts.from - 1e-3 } else { -50.0 };
            assert_eq!(f.eval(below).is_nan(), facts.from.is_finite(), "{} at {below}", f.name());
            let slope = |x: f64| (f.eval(x + 1e-7) - f.eval(x)) / 1e-7;
            for x in facts.kinks {
                assert!((slope(*x) - slope(x - 1e-7)).abs() > 0.5, "{} at {x}", f.name());
            }
        }
    }
}
