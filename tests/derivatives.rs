//! Products with the Jacobian and the Hessian, and rules of differentiation of one's own.

use elbo::engine::rng::Draw;
use elbo::gradcheck::{Point, gradcheck, spread};
use elbo::{Cpu, Executor, Fusion, Graph, Interp, Key, Params, Plan, Var, custom_vjp, grad, grad_with, hvp, jvp};

/// `n` numbers in [−1, 1).
fn random(n: usize, stream: u32) -> Vec<f64> {
    let draw = Draw { seed: 12, step: 0, stream };
    (0..n as u64).map(|i| 2.0 * f64::from(draw.uniform(i)) - 1.0).collect()
}

fn arrays<'g>(g: &'g Graph, shapes: &[&[usize]], stream: u32) -> Vec<Var<'g>> {
    shapes.iter().zip(stream..).map(|(s, stream)| g.tensor(s, &random(s.iter().product(), stream))).collect()
}

const SHAPES: [&[usize]; 3] = [&[3, 4], &[4], &[4, 2]];

/// Two layers, softplus(tanh(data·W + b)·V), with the parameters [W, b, V] on the line x + t·v, and the directions v.
fn network<'g>(g: &'g Graph, t: Var<'g>) -> (Var<'g>, Vec<Var<'g>>, Vec<Var<'g>>) {
    let v = arrays(g, &SHAPES, 420);
    let xs: Vec<Var> = arrays(g, &SHAPES, 410).into_iter().zip(&v).map(|(x, &v)| x + t * v).collect();
    let hidden = (arrays(g, &[&[5, 3]], 400)[0].matmul(xs[0]) + xs[1]).tanh();
    (hidden.matmul(xs[2]).softplus(), xs, v)
}

/// dy/dt at t = 0 by five points.
fn slope<'g>(run: &mut Interp<'g, f64>, y: Var<'g>, t: Var<'g>) -> Vec<f64> {
    const H: f64 = 1e-3;
    let mut at = |value: f64| {
        run.set_input(t, &[value]);
        run.eval(y)
    };
    let [a, b, c, d] = [H, -H, 2.0 * H, -2.0 * H].map(&mut at);
    at(0.0);
    (0..a.len()).map(|i| (8.0 * (a[i] - b[i]) - (c[i] - d[i])) / (12.0 * H)).collect()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance * (1.0 + e.abs()), "{f}, not {e}, in\n{found:?}\n{expected:?}");
    }
}

#[test]
fn jvp_is_the_slope_of_the_value() {
    let g = Graph::new();
    let t = g.input(&[]);
    let (y, xs, v) = network(&g, t);
    let product = jvp(y, &xs, &v);
    let mut run = Interp::new(&g);
    let slopes = slope(&mut run, y, t);
    assert_eq!(product.shape().to_vec(), [5, 2]);
    assert_close(&run.eval(product), &slopes, 1e-9);
    // ⟨u, J v⟩ = ⟨Jᵀ u, v⟩ to the last digits.
    let u = arrays(&g, &[&[5, 2]], 440)[0];
    let pulled = grad_with(y, u, &xs).into_iter().zip(&v).map(|(dx, &v)| (dx * v).sum_all());
    let pulled = pulled.reduce(|a, b| a + b).unwrap();
    assert_close(&run.eval((u * product).sum_all()), &run.eval(pulled), 1e-14);
}

#[test]
fn hvp_is_the_slope_of_the_gradient_and_the_jvp_of_it() {
    let g = Graph::new();
    let t = g.input(&[]);
    let (y, xs, v) = network(&g, t);
    let loss = y.square().mean_all();
    let gradient = grad(loss, &xs);
    let mut run = Interp::new(&g);
    for (hv, dx) in hvp(loss, &xs, &v).into_iter().zip(gradient) {
        let slopes = slope(&mut run, dx, t);
        let found = run.eval(hv);
        assert_close(&found, &slopes, 1e-9);
        assert_close(&run.eval(jvp(dx, &xs, &v)), &found, 1e-13);
    }
}

#[test]
fn the_hessian_is_symmetric() {
    let g = Graph::new();
    let t = g.input(&[]);
    let (y, xs, v) = network(&g, t);
    let loss = y.square().mean_all();
    let u = arrays(&g, &SHAPES, 430);
    let (hu, hv) = (hvp(loss, &xs, &u), hvp(loss, &xs, &v));
    let mut run = Interp::<f64>::new(&g);
    let difference: f64 = (0..3).map(|i| run.eval((u[i] * hv[i] - v[i] * hu[i]).sum_all())[0]).sum();
    assert!(difference.abs() < 1e-14, "{difference}");
}

/// Nested products do not mix up their directions: d/dx [x · d/dx′ (x′ + x)] = d/dx [x · 1] = 1.
#[test]
fn products_of_products_stay_apart() {
    let g = Graph::new();
    let (x, one) = (g.input(&[]), g.constant(1.0));
    let inner = g.input(&[]);
    let y = jvp(x * jvp(inner + x, &[inner], &[one]), &[x], &[one]);
    assert_eq!(Interp::<f64>::new(&g).eval(y), [1.0]);
    // Higher derivatives of x⁴ along 1: 4x³, 12x², 24x.
    let x = g.tensor(&[2], &[1.5, -2.0]);
    let ones = g.full(&[2], 1.0);
    let mut run = Interp::<f64>::new(&g);
    let found: Vec<Vec<f64>> = (0..3)
        .scan(x.square().square(), |y, _| {
            *y = jvp(*y, &[x], &[ones]);
            Some(run.eval(*y))
        })
        .collect();
    assert_eq!(found, [[13.5, -32.0], [27.0, 48.0], [36.0, -48.0]]);
}

#[test]
fn products_are_differentiated_like_everything_else() {
    let point = Point::new().input("x", &[2, 3], &spread(6, 1)).input("v", &[2, 3], &spread(6, 2));
    gradcheck(|_, x| jvp(x[0].tanh() * x[0].sum_all(), &x[..1], &x[1..]), &point).assert();
    gradcheck(|_, x| hvp(x[0].softplus().log_sum_exp(&[0, 1]), &x[..1], &x[1..])[0], &point).assert();
}

#[test]
fn what_does_not_depend_has_a_product_of_zero() {
    let g = Graph::new();
    let (x, other) = (g.tensor(&[2], &[1.0, 2.0]), g.tensor(&[3], &[1.0; 3]));
    let mut run = Interp::<f64>::new(&g);
    assert_eq!(run.eval(jvp(x.exp(), &[other], &[other])), [0.0; 2]);
    assert_eq!(run.eval(jvp(x.exp(), &[], &[])), [0.0; 2]);
    assert_eq!(run.eval(jvp(x, &[x], &[x])), [1.0, 2.0]);
}

/// What `build` gives on the interpreter and, with and without fusion, on the CPU.
fn on_all(build: impl for<'g> Fn(&'g Graph) -> Var<'g>) -> Vec<f32> {
    let g = Graph::new();
    let y = build(&g);
    let truth = Interp::<f32>::new(&g).eval(y);
    for fusion in [Fusion::all(), Fusion::none()] {
        let cpu = Executor::new(Cpu::new(1));
        let mut state = cpu.state(&Params::new(), 0).unwrap();
        let [found] = cpu.compile_with(&g, [y], fusion).unwrap().call(&mut state, Key::new(0), &[]).unwrap();
        assert_eq!(found, truth, "{fusion:?}");
    }
    truth
}

/// A step with the slope of the identity.
fn round(x: Var<'_>) -> Var<'_> {
    custom_vjp(&[x], x.step(), |_, _, dy| vec![dy])
}

/// x, whose gradient is clipped to [−1, 1] on its way.
fn clip(x: Var<'_>) -> Var<'_> {
    custom_vjp(&[x], x, |_, _, dy| {
        let g = dy.graph();
        vec![dy.maximum(g.constant(-1.0)).minimum(g.constant(1.0))]
    })
}

#[test]
fn a_custom_rule_replaces_the_derivative_and_keeps_the_value() {
    let x = [-1.5, 0.25, 3.0];
    assert_eq!(on_all(|g| round(g.tensor(&[3], &x)) * 2.0), [0.0, 2.0, 2.0]);
    let slopes = on_all(|g| {
        let x = g.tensor(&[3], &x);
        grad((round(x) * x).sum_all(), &[x])[0]
    });
    assert_eq!(slopes, [-1.5, 1.25, 4.0]);
    // The value is a product's, a view, a constant.
    let clipped = on_all(|g| {
        let x = g.tensor(&[2, 2], &[1.0, -2.0, 3.0, 0.5]);
        let y = clip(x.matmul_t(false, g.tensor(&[2, 2], &[1.0, 0.0, 0.0, 1.0]), false).reshape(&[4]));
        grad((y * g.tensor(&[4], &[10.0, -10.0, 0.5, 2.0])).sum_all(), &[x])[0]
    });
    assert_eq!(clipped, [1.0, -1.0, 0.5, 1.0]);
    assert_eq!(on_all(|g| clip(g.constant(3.0)).square().broadcast_to(&[2])), [9.0; 2]);
}

#[test]
fn a_custom_rule_takes_no_kernel() {
    let kernels = |with_rule: bool| {
        let g = Graph::new();
        let x = g.input(&[8, 8]);
        let y = x.matmul(x).tanh();
        let y = if with_rule { custom_vjp(&[x], y, |x, _, dy| vec![dy * x[0]]) } else { y };
        Plan::build(&g, &[(y * 2.0).exp()], Fusion::all()).unwrap().to_string()
    };
    let count = |plan: &str| plan.lines().count();
    assert_eq!(count(&kernels(true)), count(&kernels(false)), "{}", kernels(true));
}

#[test]
fn a_custom_rule_sees_inputs_value_and_cotangent_and_is_differentiated_itself() {
    let point = Point::new().input("x", &[2, 3], &spread(6, 3)).input("s", &[], &[0.7]);
    gradcheck(
        |_, x| {
            custom_vjp(x, (x[0] * x[1]).exp(), |x, y, dy| {
                let before = dy * y;
                vec![before * x[1], (before * x[0]).sum_all()]
            })
        },
        &point,
    )
    .assert();
    // Forward mode goes through the same rule, twice transposed.
    let g = Graph::new();
    let x = g.tensor(&[2], &[0.3, -0.4]);
    let cube = custom_vjp(&[x], x.stop_gradient().pow(3.0), |x, _, dy| vec![dy * x[0].square() * 3.0]);
    let along = jvp(cube, &[x], &[g.tensor(&[2], &[1.0, 10.0])]);
    assert_close(&Interp::<f64>::new(&g).eval(along), &[0.27, 4.8], 1e-15);
}

#[test]
fn the_tape_shows_a_custom_rule_with_its_inputs() {
    let g = Graph::new();
    let (a, b) = (g.input(&[2]), g.input(&[2]));
    custom_vjp(&[a, b], a.exp(), |_, _, dy| vec![dy, dy]);
    assert!(g.to_string().contains("%3 = custom_vjp(%2, %0, %1)"), "{g}");
}
