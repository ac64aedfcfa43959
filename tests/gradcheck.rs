//! Every operation's derivative against finite differences, in f64.
//!
//! A [`Case`] is one operation with inputs that keep off its kinks; the table is [`cases`], and
//! `the_table_has_every_operation` fails when an operation of the engine is missing from it. Of each case is checked, on
//! its own and in the middle of a larger expression:
//!
//! * order 1: ⟨v, vjp(dy)⟩ = d/dt ⟨dy, f(x + t·v)⟩ at t = 0 for random directions v, for each input by itself;
//! * order 2: the same for the scalar Σ ⟨vjp(dy), u⟩ as a function of the inputs *and* of dy.
//!
//! The right side is a five-point difference with step 1e-3, whose error is about 1e-12 · f⁽⁵⁾.

use std::collections::BTreeSet;

use elbo::engine::graph::Id;
use elbo::engine::ops::{BinaryFn, Leaf, Op, ScalarFn};
use elbo::engine::rng::Draw;
use elbo::{Ctl, Graph, Interp, Var, grad, grad_with, hvp};

/// Relative to 1 + |slope|.
const TOLERANCE: f64 = 1e-7;

type Build = Box<dyn for<'g> Fn(&'g Graph, &[Var<'g>]) -> Var<'g>>;

/// One operation: where it is evaluated and how it is written.
struct Case {
    name: String,
    inputs: Vec<(Vec<usize>, Vec<f64>)>,
    build: Build,
}

fn case(
    name: impl Into<String>,
    inputs: Vec<(Vec<usize>, Vec<f64>)>,
    build: impl for<'g> Fn(&'g Graph, &[Var<'g>]) -> Var<'g> + 'static,
) -> Case {
    Case { name: name.into(), inputs, build: Box::new(build) }
}

/// `n` numbers in [−1, 1).
fn random(n: usize, stream: u32) -> Vec<f64> {
    let draw = Draw { seed: 12, step: 0, stream };
    (0..n as u64).map(|i| 2.0 * f64::from(draw.uniform(i)) - 1.0).collect()
}

/// A progression of step 0.2 in random order: all different, none nearer to 0 than 0.1, where the kinks are.
fn spread(shape: &[usize], stream: u32) -> (Vec<usize>, Vec<f64>) {
    let n: usize = shape.iter().product();
    let keys = random(n, stream);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
    (shape.to_vec(), order.iter().map(|&k| (k as f64 - (n / 2) as f64) * 0.2 + 0.1).collect())
}

/// Positive numbers, none within 0.5 of 0.
fn positive(shape: &[usize], stream: u32) -> (Vec<usize>, Vec<f64>) {
    let (shape, data) = spread(shape, stream);
    (shape, data.iter().map(|v| v.abs() + 0.5).collect())
}

/// Numbers of both signs, none within 0.5 of 0: fit to divide by.
fn divisors(shape: &[usize], stream: u32) -> (Vec<usize>, Vec<f64>) {
    let (shape, data) = spread(shape, stream);
    (shape, data.iter().map(|v| v + 0.5 * v.signum()).collect())
}

/// Operands for any function of two numbers: b is no divisor near 0, and not near a.
fn pair() -> Vec<(Vec<usize>, Vec<f64>)> {
    let (a, mut b) = (spread(&[3, 4], 1), divisors(&[3, 4], 2));
    b.1.iter_mut().zip(&a.1).filter(|(b, a)| (**b - **a).abs() < 0.1).for_each(|(b, _)| *b += 0.11 * b.signum());
    vec![a, b]
}

/// The table.
fn cases() -> Vec<Case> {
    let mut all = scalar_cases();
    all.extend(binary_cases());
    all.extend(product_cases());
    all.extend(reduction_cases());
    all.extend(layout_cases());
    all
}

fn scalar_cases() -> Vec<Case> {
    let mut all = Vec::new();
    for &f in ScalarFn::ALL {
        // Wherever the function is defined, so that a new row needs no line here.
        let defined = |x: &f64| [-0.35, 0.0, 0.35].iter().all(|d| f.eval(x + d).is_finite());
        let points: Vec<f64> = spread(&[24], 3).1.into_iter().filter(defined).collect();
        assert!(points.len() >= 4, "{} is defined at {points:?} only", f.name());
        all.push(case(f.name(), vec![(vec![points.len()], points)], move |_, x| x[0].map(f)));
    }
    for c in [-2.0, -1.5, 0.0, 0.5, 1.0, 2.0, 3.0] {
        all.push(case(format!("pow {c}"), vec![positive(&[2, 3], 4)], move |_, x| x[0].pow(c)));
    }
    for c in [-1.0, 3.0] {
        all.push(case(format!("pow {c}, x < 0"), vec![divisors(&[6], 5)], move |_, x| x[0].pow(c)));
    }
    all.push(case("leaky_relu", vec![spread(&[2, 4], 6)], |_, x| x[0].leaky_relu(0.1)));
    all.push(case("stop_gradient beside", vec![spread(&[4], 7)], |g, x| {
        x[0].square() * g.tensor(&[4], &[1.0, -2.0, 0.5, 3.0]).stop_gradient()
    }));
    all
}

fn binary_cases() -> Vec<Case> {
    let mut all = Vec::new();
    for &f in BinaryFn::ALL {
        all.push(case(f.name(), pair(), move |_, x| x[0].zip(f, x[1])));
        // One operand twice.
        let twice = vec![divisors(&[2, 3], 8)];
        all.push(case(format!("{} with itself", f.name()), twice, move |_, x| (x[0] * 1.5).zip(f, x[0] + 0.0)));
    }
    let fits: [(&[usize], &[usize]); 9] = [
        (&[3, 4], &[4]),
        (&[3, 1], &[3, 4]),
        (&[], &[2, 3]),
        (&[2, 3], &[1, 1]),
        (&[3, 1], &[1, 4]),
        (&[2, 3, 4], &[3, 1]),
        (&[2, 1, 4], &[1, 3, 1]),
        (&[2, 1, 2, 1], &[3, 1, 2]),
        (&[1], &[]),
    ];
    for (a, b) in fits {
        for f in [BinaryFn::Add, BinaryFn::Sub, BinaryFn::Mul, BinaryFn::Div] {
            let inputs = vec![spread(a, 9), divisors(b, 10)];
            all.push(case(format!("{} {a:?} {b:?}", f.name()), inputs, move |_, x| x[0].zip(f, x[1])));
        }
    }
    all.push(case("operators with numbers", vec![divisors(&[5], 11)], |_, x| {
        (2.0 - x[0]) * 3.0 + 1.5 / x[0] - (x[0] - 0.5) / 4.0 + 0.25 * x[0] - (-x[0])
    }));
    let third = spread(&[3, 4], 12);
    all.push(case("select", pair().into_iter().chain([third]).collect(), |_, x| {
        x[0].gt(x[1]).select(x[1] * x[2], x[2].square())
    }));
    all.push(case("select, broadcast", vec![spread(&[3, 1], 15), spread(&[4], 16), spread(&[], 17)], |g, x| {
        x[0].ge(g.constant(0.0)).select(x[1], x[2])
    }));
    all
}

fn product_cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
        let a = if ta { [4, 3] } else { [3, 4] };
        let b = if tb { [2, 4] } else { [4, 2] };
        let inputs = vec![spread(&a, 20), spread(&b, 21)];
        all.push(case(format!("matmul {ta} {tb}"), inputs, move |_, x| x[0].matmul_t(ta, x[1], tb)));
    }
    all.push(case("matmul xᵀx", vec![spread(&[4, 3], 22)], |_, x| x[0].matmul_t(true, x[0], false)));
    all
}

fn reduction_cases() -> Vec<Case> {
    type Reduce = for<'g> fn(Var<'g>, &[usize]) -> Var<'g>;
    let kinds: [(&str, Reduce); 7] = [
        ("sum", |x, a| x.sum(a)),
        ("sum_keep", |x, a| x.sum_keep(a)),
        ("mean", |x, a| x.mean(a)),
        ("max", |x, a| x.max(a)),
        ("max_keep", |x, a| x.max_keep(a)),
        ("log_sum_exp", |x, a| x.log_sum_exp(a)),
        ("sum of squares", |x, a| x.square().sum(a)),
    ];
    let axes: [&[usize]; 8] = [&[], &[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];
    let mut all = Vec::new();
    for (name, reduce) in kinds {
        for a in axes {
            all.push(case(format!("{name} {a:?}"), vec![spread(&[2, 3, 4], 30)], move |_, x| reduce(x[0], a)));
        }
    }
    all.push(case("sum_all", vec![spread(&[2, 3], 31)], |_, x| x[0].sum_all()));
    all.push(case("mean_all", vec![spread(&[2, 3], 32)], |_, x| x[0].mean_all()));
    let stretches: [(&[usize], &[usize]); 6] = [
        (&[], &[3]),
        (&[4], &[3, 4]),
        (&[3, 1], &[3, 4]),
        (&[1, 1], &[2, 3]),
        (&[2, 1, 3], &[2, 4, 3]),
        (&[3, 1], &[2, 3, 2]),
    ];
    for (from, to) in stretches {
        let name = format!("broadcast_to {from:?} {to:?}");
        all.push(case(name, vec![spread(from, 33)], move |_, x| x[0].broadcast_to(to)));
    }
    all
}

fn layout_cases() -> Vec<Case> {
    let m = |stream| vec![spread(&[3, 5], stream)];
    vec![
        case("reshape", m(40), |_, x| x[0].reshape(&[5, 3])),
        case("reshape of reshape", m(41), |_, x| x[0].reshape(&[15]).square().reshape(&[1, 15, 1])),
        case("t", m(42), |_, x| x[0].t()),
        case("t of t", m(43), |_, x| x[0].t().exp().t()),
        case("slice_cols", m(44), |_, x| x[0].slice_cols(1, 3)),
        case("slice_cols of a vector", vec![spread(&[6], 45)], |_, x| x[0].slice_cols(4, 2)),
        case("slice_cols, rank 3", vec![spread(&[2, 2, 4], 46)], |_, x| x[0].slice_cols(0, 1)),
        case("overlapping slices", m(47), |_, x| x[0].slice_cols(0, 4) * x[0].slice_cols(1, 4)),
        case("halves", vec![spread(&[2, 6], 48)], |_, x| x[0].slice_cols(0, 3) * x[0].slice_cols(3, 3).exp()),
        case("concat_cols", vec![spread(&[2, 3], 49), spread(&[2, 1], 50), spread(&[2, 2], 51)], |g, x| {
            g.concat_cols(x)
        }),
        case("concat_cols with itself", vec![spread(&[3, 2], 52)], |g, x| g.concat_cols(&[x[0], x[0].square(), x[0]])),
        case("concat_cols of vectors", vec![spread(&[3], 53), spread(&[2], 54)], |g, x| g.concat_cols(x)),
        case("gather_rows", vec![spread(&[4, 3], 55)], |g, x| {
            x[0].gather_rows(g.tensor(&[5], &[2.0, 0.0, 2.0, 3.0, 2.0]))
        }),
        case("scatter_rows", vec![spread(&[5, 3], 56)], |g, x| {
            x[0].scatter_rows(g.tensor(&[5], &[1.0, 3.0, 1.0, 0.0, 1.0]), 4)
        }),
    ]
}

/// ⟨a, b⟩.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A point at which values are taken: the states of the graph by name.
type Point = Vec<(String, Vec<f64>)>;

fn at<'g>(run: &mut Interp<'g, f64>, point: &Point, y: Var<'g>) -> Vec<f64> {
    point.iter().for_each(|(name, values)| run.set(name, values).unwrap());
    run.eval(y)
}

/// d/dt of ⟨dy, y⟩ at t = 0 when state `moved` of `point` goes along `v`.
fn slope<'g>(run: &mut Interp<'g, f64>, point: &Point, moved: usize, v: &[f64], y: Var<'g>, dy: &[f64]) -> f64 {
    const H: f64 = 1e-3;
    let mut value = |t: f64| {
        let mut there = point.clone();
        there[moved].1.iter_mut().zip(v).for_each(|(x, v)| *x += t * v);
        dot(dy, &at(run, &there, y))
    };
    (8.0 * (value(H) - value(-H)) - (value(2.0 * H) - value(-2.0 * H))) / (12.0 * H)
}

/// Compares the derivatives of `y` in the states `xs`, whose values are in `point`, with differences, up to `order`.
fn check<'g>(y: Var<'g>, xs: &[Var<'g>], point: &Point, order: usize) -> Result<(), String> {
    let g = y.graph();
    let dy_name = format!("dy{order}");
    let dy = g.state(&dy_name, &y.shape());
    let grads = grad_with(y, dy, xs);
    let mut point = point.clone();
    point.push((dy_name, random(y.shape().size(), 100 + order as u32)));
    let dy_values = point.last().expect("just pushed").1.clone();
    let mut run = Interp::<f64>::new(g);
    for (i, &dx) in grads.iter().enumerate() {
        for draw in 0..2 {
            let v = random(dx.shape().size(), 200 + 10 * i as u32 + draw);
            let found = dot(&at(&mut run, &point, dx), &v);
            let expected = slope(&mut run, &point, i, &v, y, &dy_values);
            let close = (found - expected).abs() <= TOLERANCE * (1.0 + expected.abs());
            if !close {
                return Err(format!("input {i}, {order} orders to go: {found} by grad, {expected} by differences"));
            }
        }
    }
    if order == 1 {
        return Ok(());
    }
    let along = grads.iter().enumerate().map(|(i, &dx)| {
        let n = dx.shape().size();
        (dx * g.tensor(&dx.shape(), &random(n, 300 + i as u32))).sum_all()
    });
    let s = along.reduce(|a, b| a + b).expect("at least one input");
    let mut inputs = xs.to_vec();
    inputs.push(dy);
    check(s, &inputs, &point, order - 1)
}

/// The case by itself, or in the middle of an expression that scales what goes in and what comes out.
fn build<'g>(case: &Case, g: &'g Graph, inside: bool) -> (Var<'g>, Vec<Var<'g>>, Point) {
    const SCALE: f64 = 1.6;
    let states: Vec<Var> = (0..).zip(&case.inputs).map(|(i, (shape, _))| g.state(&format!("x{i}"), shape)).collect();
    let factor = if inside { 1.0 / SCALE } else { 1.0 };
    let values = case.inputs.iter().map(|(_, data)| data.iter().map(|v| v * factor).collect());
    let point = (0..).zip(values).map(|(i, v): (usize, Vec<f64>)| (format!("x{i}"), v)).collect();
    if !inside {
        return ((case.build)(g, &states), states, point);
    }
    let scaled: Vec<Var> = states.iter().map(|&x| x * SCALE).collect();
    let y = (case.build)(g, &scaled);
    // The first input is used a second time, and y is used twice.
    let y = (y * -0.4).tanh() * 1.3 + y * 0.5 + states[0].square().sum_all() * 0.7;
    (y, states, point)
}

fn failures(cases: &[Case], order: usize) -> Vec<String> {
    let mut failed = Vec::new();
    for case in cases {
        for inside in [false, true] {
            let g = Graph::new();
            let (y, xs, point) = build(case, &g, inside);
            if let Err(e) = check(y, &xs, &point, order) {
                failed.push(format!("{}{}: {e}", case.name, if inside { " (inside an expression)" } else { "" }));
            }
        }
    }
    failed
}

#[test]
fn derivatives_of_order_one_and_two() {
    let failed = failures(&cases(), 2);
    assert!(failed.is_empty(), "{} failures\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn derivatives_of_order_three() {
    let smooth = |c: &Case| ["exp", "tanh", "sigmoid", "gelu", "div", "matmul true false"].contains(&c.name.as_str());
    let cases: Vec<Case> = cases().into_iter().filter(smooth).collect();
    assert_eq!(cases.len(), 6);
    let failed = failures(&cases, 3);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A position for every kind of operation; the compiler asks for a new arm when there is a new one.
fn position(op: &Op) -> usize {
    match op {
        Op::Leaf(
            Leaf::Const(_) | Leaf::Tensor(_) | Leaf::Slot(_) | Leaf::Batch(_) | Leaf::Normal(_) | Leaf::Uniform(_),
        )
        | Op::Leaf(Leaf::Ctl(Ctl::LearningRate | Ctl::Beta | Ctl::Step)) => 0,
        Op::Scalar(_) => 1,
        Op::Pow(_) => 2,
        Op::Binary(_) => 3,
        Op::Select => 4,
        Op::MatMul { .. } => 5,
        Op::Sum(_) => 6,
        Op::MaxOver(_) => 7,
        Op::Broadcast => 8,
        Op::Reshape => 9,
        Op::Transpose => 10,
        Op::SliceCols(_) => 11,
        Op::PadCols(_) => 12,
        Op::ConcatCols => 13,
        Op::GatherRows => 14,
        Op::ScatterRows => 15,
        Op::StopGradient => 16,
    }
}

#[test]
fn the_table_has_every_operation() {
    let mut seen = BTreeSet::new();
    for case in cases() {
        let g = Graph::new();
        let (y, xs, _) = build(&case, &g, false);
        // With the gradient's own nodes: pad_cols has no method and exists only as the transpose of slice_cols.
        let roots: Vec<Id> = grad(y.sum_all(), &xs).into_iter().chain([y]).map(|v| v.id()).collect();
        seen.extend(g.live(&roots).into_iter().map(|id| position(&g.node(id).op)));
    }
    assert_eq!(seen, (0..=16).collect());
}

#[test]
fn a_wrong_derivative_is_caught() {
    // x·stop(x) has the value x² and the gradient x: wrong by a factor of 2, in the first order.
    let wrong = case("half", vec![spread(&[4], 60)], |_, x| x[0] * x[0].stop_gradient());
    let caught = failures(&[wrong], 1);
    assert!(caught.len() == 2 && caught[0].contains("by differences"), "{caught:?}");
    // x² computed as 2x·stop(x) − stop(x)²: the first derivative is right, the second is 0 instead of 2.
    let wrong = case("flat", vec![spread(&[4], 61)], |_, x| {
        let fixed = x[0].stop_gradient();
        2.0 * x[0] * fixed - fixed.square()
    });
    let g = Graph::new();
    let (y, xs, point) = build(&wrong, &g, false);
    assert!(check(y, &xs, &point, 2).is_err());
}

#[test]
fn stop_gradient_is_the_value_and_no_derivative() {
    let g = Graph::new();
    let x = g.tensor(&[3], &[1.0, -2.0, 0.5]);
    let y = x.exp().stop_gradient();
    let mut run = Interp::<f64>::new(&g);
    assert_eq!(run.eval(y), run.eval(x.exp()));
    assert_eq!(run.eval(grad(y.sum_all(), &[x])[0]), [0.0; 3]);
    assert_eq!(run.eval(grad((y * x).sum_all(), &[x])[0]), run.eval(x.exp()));
}

#[test]
fn a_tie_goes_to_the_first_operand_and_is_shared_by_a_maximum_over_an_axis() {
    let g = Graph::new();
    let (a, b) = (g.state("a", &[2]), g.state("b", &[2]));
    let mut run = Interp::<f64>::new(&g);
    run.set("a", &[1.0, 1.0]).unwrap();
    run.set("b", &[1.0, 2.0]).unwrap();
    let d = grad(a.maximum(b).sum_all(), &[a, b]);
    assert_eq!((run.eval(d[0]), run.eval(d[1])), (vec![1.0, 0.0], vec![0.0, 1.0]));
    let d = grad(a.minimum(b).sum_all(), &[a, b]);
    assert_eq!((run.eval(d[0]), run.eval(d[1])), (vec![1.0, 1.0], vec![0.0, 0.0]));
    let d = grad(a.max(&[0]), &[a]);
    assert_eq!(run.eval(d[0]), [0.5, 0.5]);
}

#[test]
fn a_node_used_twice_gets_the_sum() {
    let g = Graph::new();
    let x = g.state("x", &[2]);
    let e = x.exp();
    let y = (e * e + e * x + x).sum_all();
    let mut run = Interp::<f64>::new(&g);
    run.set("x", &[0.3, -1.2]).unwrap();
    let found = run.eval(grad(y, &[x])[0]);
    for (x, d) in [0.3f64, -1.2].iter().zip(found) {
        let expected = 2.0 * (2.0 * x).exp() + x.exp() * (1.0 + x) + 1.0;
        assert!((d - expected).abs() < 1e-14 * expected.abs().max(1.0), "{d} {expected}");
    }
}

#[test]
fn what_does_not_matter_has_gradient_zero() {
    let g = Graph::new();
    let (x, unused) = (g.state("x", &[2]), g.state("unused", &[2, 3]));
    let y = x.square().sum_all();
    let later = g.state("later", &[]);
    let d = grad(y, &[unused, x, later]);
    let mut run = Interp::<f64>::new(&g);
    run.set("x", &[1.5, -2.0]).unwrap();
    assert_eq!((run.eval(d[0]), d[0].shape().to_vec()), (vec![0.0; 6], vec![2, 3]));
    assert_eq!(run.eval(d[1]), [3.0, -4.0]);
    assert_eq!(run.eval(d[2]), [0.0]);
    // Comparisons have no slope, and what is multiplied by one has that of the other factor.
    let step = grad((x.gt(g.constant(0.0)) * x).sum_all(), &[x]);
    assert_eq!(run.eval(step[0]), [1.0, 0.0]);
    assert_eq!(run.eval(grad(x.sign().sum_all(), &[x])[0]), [0.0; 2]);
}

#[test]
fn the_derivative_of_x_by_itself_is_one() {
    let g = Graph::new();
    let x = g.state("x", &[]);
    assert_eq!(Interp::<f64>::new(&g).eval(grad(x, &[x])[0]), [1.0]);
}

/// Two layers and a loss: tanh(x·W + b)·v, squared, with a softplus on top.
fn network<'g>(g: &'g Graph) -> (Var<'g>, Vec<Var<'g>>, Point) {
    let xs = vec![g.state("x0", &[3, 4]), g.state("x1", &[4]), g.state("x2", &[4, 2])];
    let data = g.tensor(&[5, 3], &random(15, 400));
    let hidden = (data.matmul(xs[0]) + xs[1]).tanh();
    let y = hidden.matmul(xs[2]).softplus().square().mean_all();
    let sizes = [12, 4, 8];
    let point = (0..3).map(|i| (format!("x{i}"), random(sizes[i], 410 + i as u32))).collect();
    (y, xs, point)
}

#[test]
fn hvp_is_the_slope_of_the_gradient() {
    let g = Graph::new();
    let (y, xs, point) = network(&g);
    let directions: Vec<Vec<f64>> = xs.iter().zip(420..).map(|(x, s)| random(x.shape().size(), s)).collect();
    let v: Vec<Var> = xs.iter().zip(&directions).map(|(x, d)| g.tensor(&x.shape(), d)).collect();
    let (product, gradient) = (hvp(y, &xs, &v), grad(y, &xs));
    let mut run = Interp::<f64>::new(&g);
    const H: f64 = 1e-4;
    let mut moved = |t: f64, i: usize| {
        let mut there = point.clone();
        there.iter_mut().zip(&directions).for_each(|((_, x), v)| x.iter_mut().zip(v).for_each(|(x, v)| *x += t * v));
        at(&mut run, &there, gradient[i])
    };
    let mut slopes = Vec::new();
    for i in 0..xs.len() {
        let [a, b, c, d] = [H, -H, 2.0 * H, -2.0 * H].map(|t| moved(t, i));
        let five_points = |j: usize| (8.0 * (a[j] - b[j]) - (c[j] - d[j])) / (12.0 * H);
        slopes.push((0..a.len()).map(five_points).collect::<Vec<f64>>());
    }
    for (product, slopes) in product.iter().zip(slopes) {
        for (p, s) in at(&mut run, &point, *product).iter().zip(&slopes) {
            assert!((p - s).abs() < 1e-8 * (1.0 + s.abs()), "{p} by hvp, {s} by differences");
        }
    }
}

#[test]
fn the_hessian_is_symmetric() {
    let g = Graph::new();
    let (y, xs, point) = network(&g);
    let make = |s: u32| -> Vec<Var> {
        (s..).zip(&xs).map(|(s, x)| g.tensor(&x.shape(), &random(x.shape().size(), s))).collect()
    };
    let (u, v) = (make(430), make(440));
    let (hu, hv) = (hvp(y, &xs, &u), hvp(y, &xs, &v));
    let mut found = 0.0;
    let mut run = Interp::new(&g);
    for i in 0..xs.len() {
        found += at(&mut run, &point, (u[i] * hv[i] - v[i] * hu[i]).sum_all())[0];
    }
    assert!(found.abs() < 1e-14, "{found}");
}

#[test]
fn gradients_of_gradients_of_gradients() {
    let g = Graph::new();
    let x = g.state("x", &[]);
    let third = |y: Var<'_>| -> f64 {
        let d3 = (0..3).fold(y, |y, _| grad(y, &[x])[0]);
        let mut run = Interp::<f64>::new(&g);
        run.set("x", &[0.7]).unwrap();
        run.eval(d3)[0]
    };
    let t = 0.7f64.tanh();
    let closed =
        [(x.exp(), 0.7f64.exp()), (x.tanh(), -2.0 * (1.0 - t * t) * (1.0 - 3.0 * t * t)), (x.pow(5.0), 60.0 * 0.49)];
    for (y, expected) in closed {
        let found = third(y);
        assert!((found - expected).abs() < 1e-13 * (1.0 + expected.abs()), "{found} {expected}");
    }
}
