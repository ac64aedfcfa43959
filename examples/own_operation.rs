//! The softsign as an operation of one's own, with its kernel and its derivative, checked by `gradcheck`.

use elbo::prelude::*;

/// y = x / (1 + |x|); d/dx = 1 / (1 + |x|)².
#[derive(Debug)]
struct Softsign;

impl CustomOp for Softsign {
    fn name(&self) -> &'static str {
        "softsign"
    }
    fn shape(&self, inputs: &[Shape]) -> std::result::Result<Shape, String> {
        Ok(inputs[0])
    }
    fn vjp<'g>(&self, x: &[Var<'g>], _: Var<'g>, dy: Var<'g>) -> Vec<Var<'g>> {
        vec![dy / (x[0].abs() + 1.0).square()] // nodes: it can be differentiated again
    }
    fn eval(&self, inputs: &[Operand<'_, f64>], out: &mut [f64]) {
        out.iter_mut().zip(inputs[0].values).for_each(|(y, x)| *y = x / (1.0 + x.abs()));
    }
    fn compose<'g>(&self, x: &[Var<'g>]) -> Option<Var<'g>> {
        Some(x[0] / (x[0].abs() + 1.0)) // on a GPU
    }
    fn run(&self, inputs: &[Operand<'_, f32>], rows: std::ops::Range<usize>, out: &mut [f32]) {
        out.iter_mut().zip(inputs[0].rows(rows)).for_each(|(y, x)| *y = x / (1.0 + x.abs()));
    }
}

/// Checks the derivatives to the second order; gives the softsign of −3, 1 and 3.
pub fn run(executor: &Executor) -> Result<Vec<f32>> {
    gradcheck(|_, x| custom_op(Softsign, x), &Point::new().input("x", &[2, 2], &[-3.0, -0.2, 0.3, 2.0])).assert();
    let g = Graph::new();
    let mut y = executor.compile(&g, [custom_op(Softsign, &[g.input(&[3, 1])])])?;
    y.call(&mut executor.state(&Params::new(), 0)?, Key::new(0), &[&[-3.0, 1.0, 3.0]]).map(|[y]| y)
}

fn main() -> Result<()> {
    run(&Device::auto().open()?).map(|y| println!("{y:?}"))
}
