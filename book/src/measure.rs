//! What the pages draw: values and derivatives, errors of the f32 functions, errors of difference quotients.
//!
//! The f32 functions are those of the CPU kernels, which have the same bits on every instruction set, and so have the pages.

use elbo::engine::ops::{BinaryFn, ScalarFn};
use elbo::gradcheck::{GradCheck, Point, StepSweep};
use elbo::{Graph, Interp, Var, grad};

/// x with f(x), f′(x) and f″(x).
pub struct Curves {
    /// (x, f), (x, f′), (x, f″).
    pub orders: [Vec<(f64, f64)>; 3],
}

/// A function and its first two derivatives, made by the reverse pass, at 161 places.
pub fn curves(f: ScalarFn, from: f64, to: f64) -> Curves {
    let xs: Vec<f64> = (0..=160).map(|i| from + (to - from) * f64::from(i) / 160.0).collect();
    let g = Graph::new();
    let x = g.tensor(&[xs.len()], &xs);
    let y = x.map(f);
    let first = grad(y.sum_all(), &[x])[0];
    let second = grad(first.sum_all(), &[x])[0];
    let mut run = Interp::<f64>::new(&g);
    let mut points = |v| xs.iter().copied().zip(run.eval(v)).collect();
    Curves { orders: [points(y), points(first), points(second)] }
}

/// The graph that the reverse pass makes of ∂f/∂x, or of its derivative, one line per node: `order` 1 or 2.
pub fn derivative_graph(f: ScalarFn, order: usize) -> String {
    let g = Graph::new();
    let x = g.param("x", &[]);
    let mut y = x.map(f);
    for _ in 0..order {
        y = grad(y, &[x])[0];
    }
    let (listing, last) = (g.to_string(), y.id().index());
    // The place in the source that ends each line would be out of date with every edit.
    let rows = listing.lines().map(|line| line.split("  ").next().unwrap_or_default().trim_end());
    let mark = |(i, row): (usize, &str)| {
        let sign = if i == last { if order == 1 { "   ← f′" } else { "   ← f″" } } else { "" };
        format!("{row}{sign}\n")
    };
    rows.enumerate().map(mark).collect()
}

/// The largest error within one power of two, in units of the last place of the exact value.
pub struct ErrorOf {
    /// e of 2ᵉ ≤ |x| < 2ᵉ⁺¹.
    pub exponent: i32,
    /// Where it is, and how large: for x below and above 0; none where the function has no finite value there.
    pub worst: [Option<(f32, f64)>; 2],
}

/// The f32 kernel of a function against the same row of the table in f64: 256 arguments of each sign and exponent.
pub fn errors(f: ScalarFn) -> Vec<ErrorOf> {
    let exponents = -126..=127;
    exponents.map(|exponent| ErrorOf { exponent, worst: [-1.0f32, 1.0].map(|sign| worst(f, exponent, sign)) }).collect()
}

fn worst(f: ScalarFn, exponent: i32, sign: f32) -> Option<(f32, f64)> {
    let start = ((exponent + 127) as u32) << 23;
    let all = (0..256u32).map(|i| f32::from_bits(start | (i << 15) | (i * 127 + 1)) * sign);
    let error = |x: f32| ulps(f.eval(x), f.eval(f64::from(x))).map(|e| (x, e));
    all.filter_map(error).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// |got − want| in units of the last place of `want`; none where want is no finite number of f32.
fn ulps(got: f32, want: f64) -> Option<f64> {
    let rounded = want as f32;
    if !rounded.is_finite() {
        return None;
    }
    let power = f32::from_bits(rounded.abs().max(f32::MIN_POSITIVE).to_bits() & 0x7f80_0000);
    Some((f64::from(got) - want).abs() / (f64::from(power) * f64::from(f32::EPSILON)))
}

/// The errors of difference quotients of f (order 1) or of its derivative (order 2) against the step.
pub fn sweep(f: ScalarFn, order: usize, at: &[f64]) -> StepSweep {
    let point = Point::new().input("x", &[at.len()], at);
    GradCheck::default().sweep(|_, x| nth(x[0], order - 1, |x| x.map(f)), &point)
}

/// The same of a function of two numbers in both.
pub fn sweep_binary(f: BinaryFn, order: usize) -> StepSweep {
    let point = Point::new().input("a", &[4], &[0.7, -1.3, 2.1, -0.4]).input("b", &[4], &[1.9, 0.8, -0.6, -1.7]);
    GradCheck::default().sweep(
        |_, x| {
            let y = x[0].zip(f, x[1]);
            // tanh of it, for that sums have second derivatives too.
            let bent = y.tanh().sum_all();
            if order == 1 { y } else { grad(bent, &[x[0]])[0] + grad(bent, &[x[1]])[0] }
        },
        &point,
    )
}

fn nth<'g>(x: Var<'g>, order: usize, f: impl Fn(Var<'g>) -> Var<'g>) -> Var<'g> {
    (0..order).fold(f(x), |y, _| grad(y.sum_all(), &[x])[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_derivative_of_a_square_is_two() {
        let curves = curves(ScalarFn::Square, -1.0, 1.0);
        assert!(curves.orders[2].iter().all(|p| p.1 == 2.0));
        assert_eq!(curves.orders[1][160], (1.0, 2.0));
        assert!(derivative_graph(ScalarFn::Exp, 1).contains("%1 = exp(%0)   ← f′\n"));
    }

    #[test]
    fn errors_are_within_the_bounds_that_the_functions_state() {
        for (f, bound) in [(ScalarFn::Exp, 1.1), (ScalarFn::Log, 0.9), (ScalarFn::Tanh, 2.6), (ScalarFn::Neg, 0.0)] {
            let all = errors(f);
            let worst = all.iter().flat_map(|e| e.worst).flatten().map(|w| w.1).fold(0.0, f64::max);
            assert!(worst <= bound, "{}: {worst}", f.name());
        }
        assert!(errors(ScalarFn::Log).iter().all(|e| e.worst[0].is_none() && e.worst[1].is_some()));
    }
}
