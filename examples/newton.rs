//! Newton's method without a Hessian: H p = −∇f is solved by conjugate gradients, which want H only in products H v.

use elbo::engine::rng::Draw;
use elbo::{Device, Executor, Graph, Key, Params, Result, grad, hvp};

/// Minimises f(x) = log Σ exp(A x) + ½‖x‖²; gives ‖∇f‖ before every step.
pub fn run(executor: &Executor) -> Result<Vec<f32>> {
    let draw = Draw { seed: 1, step: 0, stream: 0 };
    let a: Vec<f64> = (0..20 * 6).map(|i| f64::from(draw.normal(i))).collect();
    let g = Graph::new();
    let (x, v) = (g.input(&[6, 1]), g.input(&[6, 1]));
    let f = g.tensor(&[20, 6], &a).matmul(x).log_sum_exp(&[0, 1]) + x.square().sum_all() * 0.5;
    let mut both = executor.compile(&g, [grad(f, &[x])[0], hvp(f, &[x], &[v])[0]])?;
    let mut none = executor.state(&Params::new(), 0)?; // no parameters, no data
    let mut derivatives = |x: &[f32], v: &[f32]| both.call(&mut none, Key::new(0), &[x, v]);
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let add = |a: &[f32], t: f32, b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a + t * b).collect() };
    let (mut x, mut norms) = (vec![2.0; 6], Vec::new());
    for _ in 0..6 {
        let [slope, _] = derivatives(&x, &x)?;
        norms.push(dot(&slope, &slope).sqrt());
        let (mut p, mut rest) = (vec![0.0; 6], add(&[0.0; 6], -1.0, &slope)); // rest = −∇f − H p
        let mut along = rest.clone();
        while dot(&rest, &rest).sqrt() > 1e-3 * norms[norms.len() - 1] {
            let [_, curved] = derivatives(&x, &along)?;
            let before = dot(&rest, &rest);
            let step = before / dot(&along, &curved);
            p = add(&p, step, &along);
            rest = add(&rest, -step, &curved);
            along = add(&rest, dot(&rest, &rest) / before, &along);
        }
        x = add(&x, 1.0, &p);
    }
    Ok(norms)
}

fn main() -> Result<()> {
    run(&Device::auto().open()?).map(|norms| norms.iter().for_each(|norm| println!("‖∇f‖ = {norm:.1e}")))
}
