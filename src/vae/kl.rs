//! What it costs to say z.

use crate::engine::graph::Var;

/// KL(N(μ, diag e^lv) ‖ N(0, I)) for each image and dimension, `[B, K]`:
///
/// ```text
/// KL = ½ (μ² + e^lv − 1 − lv) = ½ (μ² + expm1mx(lv))
/// ∂/∂μ = μ        ∂/∂lv = ½ expm1(lv)
/// ```
///
/// One function of the table and not a difference: a dimension that has collapsed onto the prior has lv ≈ 0, and there
/// e^lv − 1 − lv ≈ ½lv² would be the difference of two numbers that agree in all their digits, and its derivative made
/// by the rules, e^lv − 1, another one. So value and derivative have all their digits.
///
/// lv is not clamped. e^lv overflows f32 only above 88.7, and the derivative ½ expm1(lv) pushes back
/// exponentially long before; a clamp would cut exactly that force off.
#[track_caller]
pub fn kl_to_standard_normal<'g>(mu: Var<'g>, logvar: Var<'g>) -> Var<'g> {
    (mu.square() + logvar.expm1mx()) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad::grad;
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn golden_values_and_gradients() {
        let g = Graph::new();
        let mu = g.tensor(&[1, 3], &[1.0, 0.0, 0.5]);
        let lv = g.tensor(&[1, 3], &[0.0, 4f64.ln(), -1.0]);
        let kl = kl_to_standard_normal(mu, lv);
        let d = grad(kl.sum_all(), &[mu, lv]);
        let mut run = Interp::<f64>::new(&g);
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15);
        assert!(close(&run.eval(kl), &[0.5, 0.806_852_819_440_054_7, 0.308_939_720_585_721_17]));
        assert!(close(&run.eval(d[0]), &[1.0, 0.0, 0.5]));
        assert!(close(&run.eval(d[1]), &[0.0, 1.5, 0.5 * (-1f64).exp_m1()]));
    }

    /// ½(e^lv − 1 − lv) = lv²/4 (1 + lv/3 + lv²/12 + …), and its derivative ½(e^lv − 1) = lv/2 (1 + lv/2 + lv²/6 + …).
    #[test]
    fn near_the_prior_f32_keeps_its_digits() {
        for lv in [1e-3f32, -1e-3, 1e-6, 1e-7, -1e-7, 1e-12] {
            let g = Graph::new();
            let lv = f64::from(lv);
            let x = g.tensor(&[1], &[lv]);
            let kl = kl_to_standard_normal(g.tensor(&[1], &[0.0]), x);
            let slope = grad(kl.sum_all(), &[x])[0];
            let mut run = Interp::<f32>::new(&g);
            let (found, found_slope) = (f64::from(run.eval(kl)[0]), f64::from(run.eval(slope)[0]));
            let exact = 0.25 * lv * lv * (1.0 + lv / 3.0 + lv * lv / 12.0);
            let exact_slope = 0.5 * lv * (1.0 + lv / 2.0 + lv * lv / 6.0);
            assert!((found / exact - 1.0).abs() < 3e-7, "KL at lv = {lv}: {found}, not {exact}");
            assert!((found_slope / exact_slope - 1.0).abs() < 3e-7, "slope at {lv}: {found_slope}, not {exact_slope}");
        }
    }
}
