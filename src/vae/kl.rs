//! What it costs to say z.

use crate::graph::Var;

/// KL(N(μ, diag e^lv) ‖ N(0, I)) for each image and dimension, `[B, K]`:
///
/// ```text
/// KL = ½ (μ² + e^lv − 1 − lv) = ½ (μ² + expm1(lv) − lv)
/// ∂/∂μ = μ        ∂/∂lv = ½ expm1(lv)
/// ```
///
/// `expm1` and not `exp − 1`: a dimension that has collapsed onto the prior has lv ≈ 0, and there e^lv − 1 − lv ≈
/// ½lv² would be the difference of two numbers that agree in all their digits. The derivative is made by the rules as
/// ½e^lv − ½, which near lv = 0 is exact to the last place of ½ and no better.
///
/// lv is not clamped. e^lv overflows f32 only above 88.7, and the derivative ½ expm1(lv) pushes back
/// exponentially long before; a clamp would cut exactly that force off.
#[track_caller]
pub fn kl_to_standard_normal<'g>(mu: Var<'g>, logvar: Var<'g>) -> Var<'g> {
    (mu.square() + (logvar.expm1() - logvar)) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad::grad;
    use crate::graph::Graph;
    use crate::interp::Interp;

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

    #[test]
    fn near_the_prior_f32_keeps_its_digits() {
        let g = Graph::new();
        let lv = 1e-3;
        let kl = kl_to_standard_normal(g.tensor(&[1], &[0.0]), g.tensor(&[1], &[lv]));
        let found = f64::from(Interp::<f32>::new(&g).eval(kl)[0]);
        let exact = 0.5 * (lv.exp_m1() - lv);
        assert!((found / exact - 1.0).abs() < 1e-3, "{found} against {exact}");
    }
}
