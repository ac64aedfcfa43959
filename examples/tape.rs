//! Twenty lines: build, differentiate, differentiate again, print. `cargo run --release --example tape`.

use elbo::{Graph, Interp, grad};

fn main() {
    let g = Graph::new();
    let x = g.input(&[3]);
    let y = (x.tanh() * x).sum_all(); // y = Σ x·tanh x, a scalar
    let dy = grad(y, &[x])[0]; //        ∂y/∂x, as nodes of the same graph
    let d2 = grad(dy.sum_all(), &[x])[0]; // and of that, nothing new is needed
    println!("every operation, with the line that asked for it:\n\n{g}");

    let mut run = Interp::<f64>::new(&g);
    run.set_input(x, &[-1.0, 0.0, 2.0]);
    println!("y   = {:?}", run.eval(y));
    println!("y'  = {:?}   tanh x + x (1 - tanh² x)", run.eval(dy));
    println!("y'' = {:?}   2 (1 - x tanh x)(1 - tanh² x)", run.eval(d2));
    let t = 2f64.tanh();
    assert!((run.eval(d2)[2] - 2.0 * (1.0 - 2.0 * t) * (1.0 - t * t)).abs() < 1e-14);
}
