//! Every operation's derivative against finite differences, in f64: the table of operations for [`elbo::gradcheck`].
//!
//! A [`Case`] is one operation with inputs that keep off its kinks; the table is [`cases`], and
//! `the_table_has_every_operation` fails when an operation of the engine is missing from it.

use std::collections::BTreeSet;
use std::ops::Range;

use elbo::engine::graph::{Ctl, Id};
use elbo::engine::ops::{BinaryFn, Leaf, Op, ScalarFn};
use elbo::gradcheck::{self, GradCheck, GradReport, Point};
use elbo::{CustomOp, Graph, Interp, Operand, Shape, Var, custom_op, custom_vjp, grad};

type Build = Box<dyn for<'g> Fn(&'g Graph, &[Var<'g>]) -> Var<'g>>;

/// One operation: where it is evaluated and how it is written.
struct Case {
    name: String,
    point: Point,
    build: Build,
}

impl Case {
    fn check(&self, order: usize) -> GradReport {
        GradCheck { order, ..GradCheck::default() }.run(&self.build, &self.point)
    }
}

fn case(
    name: impl Into<String>,
    inputs: Vec<(Vec<usize>, Vec<f64>)>,
    build: impl for<'g> Fn(&'g Graph, &[Var<'g>]) -> Var<'g> + 'static,
) -> Case {
    let inputs = inputs.iter().enumerate();
    let point = inputs.fold(Point::new(), |p, (i, (shape, values))| p.input(format!("x{i}"), shape, values));
    Case { name: name.into(), point, build: Box::new(build) }
}

/// Numbers off the kinks at 0 and at ties.
fn spread(shape: &[usize], seed: u64) -> (Vec<usize>, Vec<f64>) {
    (shape.to_vec(), gradcheck::spread(shape.iter().product(), seed))
}

/// Positive numbers, none within 0.5 of 0.
fn positive(shape: &[usize], seed: u64) -> (Vec<usize>, Vec<f64>) {
    let (shape, data) = spread(shape, seed);
    (shape, data.iter().map(|v| v.abs() + 0.5).collect())
}

/// Numbers of both signs, none within 0.5 of 0: fit to divide by.
fn divisors(shape: &[usize], seed: u64) -> (Vec<usize>, Vec<f64>) {
    let (shape, data) = spread(shape, seed);
    (shape, data.iter().map(|v| v + 0.5 * v.signum()).collect())
}

/// Operands for any function of two numbers: b is no divisor near 0, and not near a.
fn pair() -> Vec<(Vec<usize>, Vec<f64>)> {
    let (a, mut b) = (spread(&[3, 4], 1), divisors(&[3, 4], 2));
    b.1.iter_mut().zip(&a.1).filter(|(b, a)| (**b - **a).abs() < 0.1).for_each(|(b, _)| *b += 0.11 * b.signum());
    vec![a, b]
}

/// x³ as an operation of one's own.
#[derive(Debug)]
struct Cube;

impl CustomOp for Cube {
    fn name(&self) -> &'static str {
        "cube"
    }
    fn shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        Ok(inputs[0])
    }
    fn vjp<'g>(&self, x: &[Var<'g>], _: Var<'g>, dy: Var<'g>) -> Vec<Var<'g>> {
        vec![dy * x[0].square() * 3.0]
    }
    fn eval(&self, inputs: &[Operand<'_, f64>], out: &mut [f64]) {
        out.iter_mut().zip(inputs[0].values).for_each(|(y, x)| *y = x * x * x);
    }
    fn run(&self, _: &[Operand<'_, f32>], _: Range<usize>, _: &mut [f32]) {
        unreachable!("the interpreter asks for eval")
    }
}

/// The table.
fn cases() -> Vec<Case> {
    let mut all = scalar_cases();
    all.extend(binary_cases());
    all.extend(product_cases());
    all.extend(reduction_cases());
    all.extend(softmax_cases());
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
    all.push(case("custom_vjp", vec![spread(&[4], 13), spread(&[], 14)], |_, x| {
        let y = (x[0] * x[1]).tanh();
        custom_vjp(x, y, |x, y, dy| {
            let before = dy * (1.0 - y.square());
            vec![before * x[1], (before * x[0]).sum_all()]
        })
    }));
    all.push(case("custom_op", vec![spread(&[2, 3], 18)], |_, x| custom_op(Cube, x)));
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

fn softmax_cases() -> Vec<Case> {
    type Softmax = for<'g> fn(Var<'g>, usize) -> Var<'g>;
    let kinds: [(&str, Softmax); 2] = [("softmax", |x, a| x.softmax(a)), ("log_softmax", |x, a| x.log_softmax(a))];
    let shapes: [(&[usize], usize); 5] = [(&[5], 0), (&[3, 4], 1), (&[3, 4], 0), (&[2, 3, 2], 2), (&[2, 3, 2], 1)];
    let mut all = Vec::new();
    for (name, softmax) in kinds {
        for (shape, axis) in shapes {
            let name = format!("{name} of {shape:?} over {axis}");
            all.push(case(name, vec![spread(shape, 35)], move |_, x| softmax(x[0], axis)));
        }
    }
    // Logits far from each other, and some that are the columns of a wider array.
    all.push(case("softmax with a shift", vec![spread(&[2, 3], 36)], |_, x| (x[0] * 3.0 + 700.0).softmax(1)));
    all.push(case("log_softmax of columns", vec![spread(&[3, 6], 37)], |_, x| x[0].slice_cols(2, 3).log_softmax(1)));
    all
}

fn layout_cases() -> Vec<Case> {
    let m = |seed| vec![spread(&[3, 5], seed)];
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
        case("pick", vec![spread(&[3, 4], 57)], |g, x| x[0].pick(g.tensor(&[3], &[3.0, 0.0, 0.0]))),
        case("pick by a column", vec![spread(&[2, 2, 3], 58)], |g, x| {
            x[0].pick(g.tensor(&[2, 2, 1], &[2.0, 0.0, 1.0, 1.0]))
        }),
        case("scatter_rows", vec![spread(&[5, 3], 56)], |g, x| {
            x[0].scatter_rows(g.tensor(&[5], &[1.0, 3.0, 1.0, 0.0, 1.0]), 4)
        }),
    ]
}

fn failures(cases: &[Case], order: usize) -> Vec<String> {
    let reports = cases.iter().map(|case| (&case.name, case.check(order)));
    reports.filter(|(_, report)| !report.passes()).map(|(name, report)| format!("{name}: {report}")).collect()
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
            Leaf::Const(_) | Leaf::Tensor(_) | Leaf::Slot(_) | Leaf::Batch(..) | Leaf::Normal(_) | Leaf::Uniform(_),
        )
        | Op::Leaf(Leaf::Ctl(Ctl::Schedule(_) | Ctl::Step)) => 0,
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
        Op::CustomVjp(_) => 17,
        Op::Custom(_) => 18,
        Op::Softmax { .. } => 19,
        Op::SoftmaxGrad { .. } => 20,
        Op::Pick => 21,
        Op::Place => 22,
    }
}

#[test]
fn the_table_has_every_operation() {
    let mut seen = BTreeSet::new();
    for case in cases() {
        let g = Graph::new();
        let xs: Vec<Var> = case.point.inputs().map(|(name, shape, _)| g.param(name, shape)).collect();
        let y = (case.build)(&g, &xs);
        // With the gradient's own nodes: pad_cols has no method and exists only as the transpose of slice_cols.
        let roots: Vec<Id> = grad(y.sum_all(), &xs).into_iter().chain([y]).map(|v| v.id()).collect();
        seen.extend(g.live(&roots).into_iter().map(|id| position(&g.node(id).op)));
    }
    assert_eq!(seen, (0..=22).collect());
}

#[test]
fn a_wrong_derivative_is_caught() {
    let wrong_orders = |case: Case, order: usize| -> Vec<(usize, bool)> {
        let report = case.check(order);
        let wrong = report.worst.iter().filter(|c| c.error() > report.check.tolerance);
        wrong.map(|c| (c.order, c.inside)).collect()
    };
    // x·stop(x) has the value x² and the gradient x: wrong by a factor of 2, in the first order.
    let half = case("half", vec![spread(&[4], 60)], |_, x| x[0] * x[0].stop_gradient());
    assert_eq!(wrong_orders(half, 1), [(1, false), (1, true)]);
    // x² computed as 2x·stop(x) − stop(x)²: the first derivative is right, the second is 0 instead of 2.
    let flat = case("flat", vec![spread(&[4], 61)], |_, x| {
        let fixed = x[0].stop_gradient();
        2.0 * x[0] * fixed - fixed.square()
    });
    assert_eq!(wrong_orders(flat, 2), [(2, false), (2, true)]);
    // A rule that forgets dy is right only at the end of a graph, where dy = 1, and gradcheck has no such cotangent.
    let deaf = case("deaf", vec![spread(&[4], 62)], |_, x| custom_vjp(x, x[0].exp(), |_, y, _| vec![y]));
    assert_eq!(wrong_orders(deaf, 1), [(1, false), (1, true)]);
}

#[test]
fn the_report_names_the_element_and_tells_a_kink_from_a_wrong_rule() {
    let point = Point::new().input("a", &[2], &[0.5, -0.5]).input("b", &[3], &[1.0, 2.0, 3.0]);
    let report = gradcheck::gradcheck(
        |g, x| x[0].sum_all() * x[1] + (x[1] - x[1].stop_gradient()) * g.tensor(&[3], &[0.0, 0.1, 0.0]),
        &point,
    );
    let worst = &report.worst[0];
    assert_eq!((worst.order, worst.inside, worst.input.as_str(), worst.element), (1, false, "b", 1));
    let text = report.to_string();
    assert!(text.contains("WRONG") && text.contains("order 1 by itself") && text.contains("at b[1]"), "{text}");
    assert!(!text.contains("kink"), "{text}");
    // 3e-4 beside the kink of |x|, within the reach of the step.
    let kinked = gradcheck::gradcheck(|_, x| x[0].abs(), &Point::new().input("x", &[1], &[3e-4]));
    assert!(!kinked.passes() && kinked.to_string().contains("not decided, at a kink"), "{kinked}");
    // At the kink itself all differences agree on the mean of two slopes.
    let at_kink = gradcheck::gradcheck(|_, x| x[0].relu(), &Point::new().input("x", &[2], &[0.0, 1.0]));
    assert!(!at_kink.passes() && at_kink.to_string().contains("not decided, at a kink"), "{at_kink}");
    let unset = std::panic::catch_unwind(|| {
        let point = Point::new().input("x", &[1, 2], &[0.1, 0.2]);
        gradcheck::gradcheck(|_, x| elbo::engine::nn::Linear::new("up", 2, 3).apply(x[0]), &point)
    });
    let message = *unset.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("up.weight") && message.contains("no input of the point"), "{message}");
    let nan = gradcheck::gradcheck(|_, x| x[0].log(), &Point::new().input("x", &[1], &[-1.0]));
    assert!(!nan.passes() && nan.error() == f64::INFINITY, "{nan}");
    assert!(nan.to_string().contains("WRONG") && !nan.to_string().contains("kink"), "{nan}");
    // A wrong rule beside a kink, and at one, is wrong all the same.
    let point = Point::new().input("x", &[2], &[0.0, 1.0]).input("y", &[2], &[0.5, 1.0]);
    let beside = gradcheck::gradcheck(|_, x| x[0].relu() * 9.0 + x[1] - (x[1] * 0.1).stop_gradient(), &point);
    assert!(beside.to_string().contains("WRONG"), "{beside}");
    let at = gradcheck::gradcheck(
        |_, x| custom_vjp(x, x[0].relu(), |_, _, dy| vec![dy * 7.0]),
        &Point::new().input("x", &[1], &[0.0]),
    );
    assert!(at.to_string().contains("WRONG"), "{at}");
}

/// log-log, the error has the slope of the stencil's order where it is truncated and −1 where it is rounded.
#[test]
fn the_error_against_the_step_is_a_v() {
    let point = Point::new().input("x", &[3], &[0.3, -1.2, 0.8]);
    let sweep = GradCheck::default().sweep(|_, x| x[0].tanh() * x[0].exp(), &point);
    let ratio = |errors: &[(f64, f64)], i: usize| errors[i].1 / errors[i + 1].1;
    for i in 0..3 {
        assert!((90.0..110.0).contains(&ratio(&sweep.three_point, i)), "h²:\n{sweep}");
    }
    assert!((8e3..12e3).contains(&ratio(&sweep.five_point, 0)), "h⁴:\n{sweep}");
    for errors in [&sweep.three_point, &sweep.five_point] {
        assert_eq!(errors.len(), 10);
        let least = errors.iter().map(|(_, error)| *error).fold(f64::INFINITY, f64::min);
        assert!(least < 1e-9 && errors[9].1 > 30.0 * errors[7].1.max(least), "ε/h:\n{sweep}");
    }
    let wrong = GradCheck::default().sweep(|_, x| x[0] * x[0].stop_gradient(), &point);
    assert!(wrong.five_point.iter().all(|(_, error)| *error > 0.1), "a floor:\n{wrong}");
    assert_eq!(wrong.to_string().lines().count(), 11);
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
    let (a, b) = (g.buffer("a", &[2]), g.buffer("b", &[2]));
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
    let x = g.buffer("x", &[2]);
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
    let (x, unused) = (g.buffer("x", &[2]), g.buffer("unused", &[2, 3]));
    let y = x.square().sum_all();
    let later = g.buffer("later", &[]);
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
    let x = g.buffer("x", &[]);
    assert_eq!(Interp::<f64>::new(&g).eval(grad(x, &[x])[0]), [1.0]);
}

#[test]
fn gradients_of_gradients_of_gradients() {
    let g = Graph::new();
    let x = g.buffer("x", &[]);
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
