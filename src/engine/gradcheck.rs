//! Derivatives against finite differences, in f64, for any function that is written as a graph.
//!
//! ```
//! use elbo::gradcheck::{gradcheck, Point};
//! let point = Point::new().input("x", &[3], &[0.3, -1.2, 0.8]).input("w", &[3], &[1.0, 0.5, -2.0]);
//! gradcheck(|_, x| (x[0] * x[1]).tanh(), &point).assert();
//! ```
//!
//! # What is compared
//!
//! With a random cotangent dy, for each element e of each input, ∂⟨dy, f(x)⟩/∂e by the reverse pass and by a difference
//! quotient of values:
//!
//! ```text
//! three points    [s(h) − s(−h)] / 2h                                 error  h²/6 · s⁽³⁾  + ε/h
//! five points     [8(s(h) − s(−h)) − (s(2h) − s(−2h))] / 12h          error  h⁴/30 · s⁽⁵⁾ + ε/h
//! ```
//!
//! s(t) = ⟨dy, f(x + t·e)⟩, ε the rounding of s. The second order compares the same way the derivatives of the scalar
//! Σ ⟨∂⟨dy, f⟩/∂x, u⟩, u random, with respect to the inputs *and* to dy: a rule whose first derivative is right may have a
//! second one that is not. Both orders are checked of f by itself and in the middle of an expression that scales what goes
//! in, bends what comes out, and uses an input and the value twice: a rule that forgets to multiply by dy, or overwrites a
//! cotangent instead of adding to it, is right only at the end.
//!
//! # The step
//!
//! Truncation falls with h, rounding grows: the error is a V, and a derivative is right if the V has its bottom where it
//! should: [`GradCheck::sweep`]. A wrong derivative has a floor instead, which no h gets below.
//!
//! # Kinks
//!
//! Where f has a kink (ReLU and |x| at 0, a maximum at a tie), a difference across it is the mean of two slopes, and is no
//! evidence. Choose points whose every intermediate value stays farther from its kink than the step reaches;
//! [`spread`] gives inputs that do for kinks at 0 and at ties. Where the differences of two steps contradict each other, or the
//! slopes to both sides stay as far apart for half the step, there is a kink: a report does not decide then.

use std::fmt;

use serde::Serialize;

use crate::engine::grad::grad_with;
use crate::engine::graph::{Graph, SlotKind, Var};
use crate::engine::interp::Interp;
use crate::engine::rng::Draw;
use crate::engine::shape::Shape;

use Stencil::{FivePoint, ThreePoint};

/// Where a function is differentiated: named arrays, in the order in which the function gets them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    inputs: Vec<PointInput>,
}

#[derive(Clone, Debug, PartialEq)]
struct PointInput {
    name: String,
    shape: Shape,
    values: Vec<f64>,
}

impl Point {
    /// A point without inputs.
    pub fn new() -> Point {
        Point::default()
    }

    /// The point with one more input, row-major.
    ///
    /// # Panics
    /// When `values` has not as many elements as `shape`, or the name is taken.
    #[track_caller]
    pub fn input(mut self, name: impl Into<String>, shape: &[usize], values: &[f64]) -> Point {
        let (name, shape) = (name.into(), Shape::new(shape));
        assert!(shape.size() == values.len(), "input {name} of shape {shape} from {} numbers", values.len());
        assert!(self.inputs.iter().all(|i| i.name != name), "there is an input {name} already");
        self.inputs.push(PointInput { name, shape, values: values.to_vec() });
        self
    }

    /// Name, shape and values of each input.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &[usize], &[f64])> {
        self.inputs.iter().map(|i| (i.name.as_str(), &*i.shape, i.values.as_slice()))
    }
}

/// `n` numbers for an input that kinks at 0 and at ties do not disturb: a progression of step 0.2 around 0 in random order,
/// so that all differ by that much and none is nearer to 0 than 0.1.
///
/// ```
/// use elbo::gradcheck::{gradcheck, spread, Point};
/// let point = Point::new().input("x", &[2, 3], &spread(6, 1));
/// gradcheck(|_, x| x[0].relu().max(&[1]), &point).assert();
/// ```
pub fn spread(n: usize, seed: u64) -> Vec<f64> {
    let keys = random(n, seed, 0);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
    order.iter().map(|&k| (k as f64 - (n / 2) as f64) * 0.2 + 0.1).collect()
}

/// How many values a difference quotient is made of; see the [module](self) for the formulas and their errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stencil {
    /// Two values beside the point; the error falls with h².
    ThreePoint,
    /// Four values beside the point: Richardson's extrapolation of the above; the error falls with h⁴.
    FivePoint,
}

/// Settings of a check; the defaults fit functions and inputs of the size of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradCheck {
    /// How many times f is differentiated: 1, or 2 (the default), or more.
    pub order: usize,
    /// h, 1e-3 by default: with five points the truncation is about 1e-13 · s⁽⁵⁾, the rounding 1e-13.
    pub step: f64,
    /// The largest error allowed, relative to 1 + |slope|; 1e-7 by default.
    pub tolerance: f64,
    /// Of the random cotangents and directions.
    pub seed: u64,
}

impl Default for GradCheck {
    fn default() -> GradCheck {
        GradCheck { order: 2, step: 1e-3, tolerance: 1e-7, seed: 0 }
    }
}

impl GradCheck {
    /// Checks every derivative of `f` at `point` up to the order asked for. Costs about ten evaluations of `f` for each
    /// element of the inputs and each order, one node at a time: choose small shapes.
    ///
    /// The inputs are parameters of the graph by their names, so that layers find theirs among them.
    ///
    /// # Panics
    /// When `f` panics, or reads a parameter or buffer that is no input of the point, or an input is named `dy1`, `dy2`, …,
    /// as the cotangents are.
    #[track_caller]
    pub fn run(&self, f: impl for<'g> Fn(&'g Graph, &[Var<'g>]) -> Var<'g>, point: &Point) -> GradReport {
        let mut worst = Vec::new();
        for inside in [false, true] {
            let g = Graph::new();
            let mut trace = if inside { Trace::inside(&g, &f, point) } else { Trace::alone(&g, &f, point) };
            for order in 1..=self.order {
                let slopes = trace.differentiate(order, self.seed);
                let all = trace.compared(&slopes, FivePoint, self.step);
                worst.extend(trace.worst(
                    all,
                    |trace, at| trace.comparison(at, order, inside, self.step),
                    self.tolerance,
                ));
                trace.y = along(&g, &slopes, self.seed, order);
            }
        }
        GradReport { check: *self, worst }
    }

    /// The error of the first derivative of `f` by itself for h = 0.1, 0.01 … 1e-10; order, step and tolerance are not
    /// used.
    ///
    /// ```
    /// use elbo::gradcheck::{GradCheck, Point};
    /// let point = Point::new().input("x", &[2], &[0.3, -1.2]);
    /// let sweep = GradCheck::default().sweep(|_, x| x[0].exp(), &point);
    /// let [(_, coarse), (_, fine)] = sweep.three_point[1..3] else { unreachable!() };
    /// assert!((coarse / fine / 100.0 - 1.0).abs() < 0.01, "h² falls by 100 for a tenth of h:\n{sweep}");
    /// ```
    ///
    /// # Panics
    /// When `f` panics, or reads a parameter or buffer that is no input of the point.
    #[track_caller]
    pub fn sweep(&self, f: impl for<'g> Fn(&'g Graph, &[Var<'g>]) -> Var<'g>, point: &Point) -> StepSweep {
        let decades: Vec<f64> = (1..=10).map(|k| 0.1f64.powi(k)).collect();
        self.sweep_at(1, &decades, f, point)
    }

    /// The error of the derivative of any order for the steps `h`, from the largest down; [`StepSweep::arms`] says how it
    /// falls and grows. The order, step and tolerance of the check are not used.
    ///
    /// ```
    /// use elbo::gradcheck::{GradCheck, Point, Stencil};
    /// let point = Point::new().input("x", &[2], &[0.3, -1.2]);
    /// let steps: Vec<f64> = (4..=40).map(|k| 10f64.powf(-f64::from(k) / 4.0)).collect();
    /// let sweep = GradCheck::default().sweep_at(2, &steps, |_, x| x[0].exp(), &point);
    /// let arms = sweep.arms(Stencil::FivePoint);
    /// assert!((arms.truncation.unwrap().slope - 4.0).abs() < 0.2 && (arms.rounding.unwrap().slope + 1.0).abs() < 0.2);
    /// ```
    ///
    /// # Panics
    /// As [`GradCheck::sweep`]; for order 0.
    #[track_caller]
    pub fn sweep_at(
        &self,
        order: usize,
        h: &[f64],
        f: impl for<'g> Fn(&'g Graph, &[Var<'g>]) -> Var<'g>,
        point: &Point,
    ) -> StepSweep {
        assert!(order > 0, "the value itself has no differences; the first order is 1");
        let g = Graph::new();
        let mut trace = Trace::alone(&g, &f, point);
        let mut slopes = trace.differentiate(1, self.seed);
        for below in 1..order {
            trace.y = along(&g, &slopes, self.seed, below);
            slopes = trace.differentiate(below + 1, self.seed);
        }
        let mut errors = |stencil: Stencil| -> Vec<(f64, f64)> {
            let mut error = |h: f64| trace.compared(&slopes, stencil, h).first().map_or(0.0, ElementSlopes::error);
            h.iter().map(|&h| (h, error(h))).collect()
        };
        StepSweep { three_point: errors(ThreePoint), five_point: errors(FivePoint) }
    }
}

/// Checks orders 1 and 2 of `f` at `point` with the default settings of [`GradCheck`].
///
/// # Panics
/// As [`GradCheck::run`]. A wrong derivative is told by the report.
#[track_caller]
pub fn gradcheck(f: impl for<'g> Fn(&'g Graph, &[Var<'g>]) -> Var<'g>, point: &Point) -> GradReport {
    GradCheck::default().run(f, point)
}

/// One derivative by the reverse pass and by differences.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Which derivative: 1 for the first.
    pub order: usize,
    /// Whether f stood in the middle of a larger expression.
    pub inside: bool,
    /// The input's name; `dy` and the order for the cotangent, which is an input of the higher orders.
    pub input: String,
    /// The element of the input, row-major.
    pub element: usize,
    /// By the reverse pass.
    pub found: f64,
    /// By a five-point difference with the step h.
    pub expected: f64,
    /// The same with h/2: far from [`Comparison::expected`] only if there is a kink within reach.
    pub expected_at_half: f64,
    /// The slope to the right less the slope to the left of the point, over h and over h/2: half as large the second time, or
    /// there is a kink at the point.
    pub jumps: [f64; 2],
}

impl Comparison {
    /// Whether f has a kink within reach of the differences, which then are no evidence of an error larger than `tolerance`.
    pub fn at_kink(&self, tolerance: f64) -> bool {
        let ([whole, half], moved) = (self.jumps.map(f64::abs), (self.expected_at_half - self.expected).abs());
        let at = half > tolerance * (1.0 + self.expected.abs()) && half > 0.75 * whole;
        let near = moved > tolerance * (1.0 + self.expected.abs());
        // The difference is a mean of the slopes on both sides: what is farther off than they are apart is wrong all the same.
        (at || near) && (self.found - self.expected).abs() <= 2.0 * whole.max(half).max(moved)
    }

    /// |found − expected| / (1 + |expected|); infinite where either is no number.
    pub fn error(&self) -> f64 {
        relative(self.found, self.expected)
    }
}

/// What a check found: the worst element of each order, by itself and inside an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct GradReport {
    /// The settings.
    pub check: GradCheck,
    /// The worst of each order and each place, in the order in which they were checked.
    pub worst: Vec<Comparison>,
}

impl GradReport {
    /// The largest relative error; 0 for a function without inputs.
    pub fn error(&self) -> f64 {
        self.worst.iter().map(Comparison::error).fold(0.0, f64::max)
    }

    /// Whether every error is within the tolerance.
    pub fn passes(&self) -> bool {
        self.error() <= self.check.tolerance
    }

    /// Fails a test unless the check [passes](GradReport::passes).
    ///
    /// # Panics
    /// With the report, when it does not.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.passes(), "{self}");
    }
}

impl fmt::Display for GradReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GradCheck { step, tolerance, .. } = self.check;
        let wrong = |c: &Comparison| c.error() > tolerance && !c.at_kink(tolerance);
        let verdict = match self.passes() {
            true => "right",
            false if self.worst.iter().any(wrong) => "WRONG",
            false => "not decided, at a kink",
        };
        writeln!(
            f,
            "derivatives are {verdict}: worst error {:.1e}, allowed {tolerance:.0e}, step {step:.0e}",
            self.error()
        )?;
        for c in &self.worst {
            let place = if c.inside { "inside an expression" } else { "by itself" };
            write!(f, "  order {} {place}: {:.1e} at {}[{}], ", c.order, c.error(), c.input, c.element)?;
            write!(f, "{:.9} by grad, {:.9} by differences", c.found, c.expected)?;
            if c.error() > tolerance && c.at_kink(tolerance) {
                let ([jump, _], half) = (c.jumps, c.expected_at_half);
                write!(f, " ({half:.9} with half the step, slopes to both sides {jump:.1e} apart: a kink)")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The error of a derivative against the step size; see [`GradCheck::sweep`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSweep {
    /// (h, worst relative error) with three points, from the largest h down.
    pub three_point: Vec<(f64, f64)>,
    /// The same with five points.
    pub five_point: Vec<(f64, f64)>,
}

/// The V of one stencil in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SweepArms {
    /// (h, error) where the error is least.
    pub bottom: (f64, f64),
    /// Where the truncation rules, above the bottom; none if there is none to see, as for a polynomial of low degree.
    pub truncation: Option<SweepArm>,
    /// Where the rounding rules, below the bottom.
    pub rounding: Option<SweepArm>,
}

/// One arm of the V.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SweepArm {
    /// The measured power of h, a least-squares fit of ln error over ln h.
    pub slope: f64,
    /// The power that theory says: 2 or 4 for truncation, −1 for rounding.
    pub expected: f64,
    /// c of the line c·h^expected through the middle of the arm, to be drawn beside it.
    pub constant: f64,
}

impl Stencil {
    /// The power of h with which the truncation falls.
    pub fn power(self) -> f64 {
        match self {
            ThreePoint => 2.0,
            FivePoint => 4.0,
        }
    }
}

impl StepSweep {
    /// (h, error) of one stencil, from the largest h down.
    pub fn of(&self, stencil: Stencil) -> &[(f64, f64)] {
        match stencil {
            ThreePoint => &self.three_point,
            FivePoint => &self.five_point,
        }
    }

    /// Bottom and arms of one stencil's V. The arms take what is clear of the bottom, and steps that are small enough for
    /// the first term of the truncation to rule.
    ///
    /// # Panics
    /// Of an empty sweep.
    pub fn arms(&self, stencil: Stencil) -> SweepArms {
        const LARGEST_STEP: f64 = 0.035;
        let points = self.of(stencil);
        let bottom = *points.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("a sweep of some steps");
        // Of exact agreement the rounding of one slope is left.
        let floor = bottom.1.max(f64::EPSILON);
        let above = |&&(h, e): &&(f64, f64)| h > bottom.0 && h <= LARGEST_STEP && e > 30.0 * floor;
        let below = |&&(h, e): &&(f64, f64)| h < bottom.0 && e > 3.0 * floor;
        let truncation = arm(points.iter().filter(above), stencil.power());
        SweepArms { bottom, truncation, rounding: arm(points.iter().filter(below), -1.0) }
    }
}

/// The line through the logarithms of at least three points.
fn arm<'a>(points: impl Iterator<Item = &'a (f64, f64)>, expected: f64) -> Option<SweepArm> {
    let logs: Vec<(f64, f64)> = points.filter(|p| p.1.is_finite()).map(|(h, e)| (h.ln(), e.ln())).collect();
    if logs.len() < 3 {
        return None;
    }
    let n = logs.len() as f64;
    let (x, y) = (logs.iter().map(|p| p.0).sum::<f64>() / n, logs.iter().map(|p| p.1).sum::<f64>() / n);
    let across: f64 = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let along: f64 = logs.iter().map(|p| (p.0 - x).powi(2)).sum();
    Some(SweepArm { slope: across / along, expected, constant: (y - expected * x).exp() })
}

/// A table with one row per step.
impl fmt::Display for StepSweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8}  {:>12}  {:>12}", "h", "three points", "five points")?;
        for ((h, three), (_, five)) in self.three_point.iter().zip(&self.five_point) {
            writeln!(f, "{h:>8.0e}  {three:>12.1e}  {five:>12.1e}")?;
        }
        Ok(())
    }
}

fn relative(found: f64, expected: f64) -> f64 {
    let error = (found - expected).abs() / (1.0 + expected.abs());
    if error.is_nan() { f64::INFINITY } else { error }
}

/// `n` numbers in [−1, 1).
fn random(n: usize, seed: u64, stream: u32) -> Vec<f64> {
    let draw = Draw { seed, step: 0, stream };
    (0..n as u64).map(|i| 2.0 * f64::from(draw.uniform(i)) - 1.0).collect()
}

/// Σ ⟨dx, u⟩ over all gradients, u random: the scalar that the next order differentiates.
fn along<'g>(g: &'g Graph, slopes: &[Var<'g>], seed: u64, order: usize) -> Var<'g> {
    let streams = 100 * order as u32 + 1..;
    let terms = slopes
        .iter()
        .zip(streams)
        .map(|(&dx, stream)| (dx * g.tensor(&dx.shape(), &random(dx.shape().size(), seed, stream))).sum_all());
    terms.reduce(|a, b| a + b).unwrap_or_else(|| g.constant(0.0))
}

/// A value with its inputs, and where they are.
struct Trace<'g> {
    run: Interp<'g, f64>,
    y: Var<'g>,
    xs: Vec<Var<'g>>,
    at: Vec<PointInput>,
    /// ⟨dy, y⟩.
    s: Var<'g>,
}

/// An element of an input with both of its derivatives.
struct ElementSlopes {
    input: usize,
    element: usize,
    found: f64,
    expected: f64,
}

impl ElementSlopes {
    fn error(&self) -> f64 {
        relative(self.found, self.expected)
    }
}

impl<'g> Trace<'g> {
    /// `f` of the inputs as they are.
    #[track_caller]
    fn alone(g: &'g Graph, f: impl Fn(&'g Graph, &[Var<'g>]) -> Var<'g>, point: &Point) -> Trace<'g> {
        let xs: Vec<Var> = point.inputs.iter().map(|i| g.param(&i.name, &i.shape)).collect();
        let y = f(g, &xs);
        // Zeros in its place would make many a wrong derivative right.
        for slot in g.slots().into_iter().filter(|slot| matches!(slot.kind, SlotKind::Param | SlotKind::Buffer)) {
            let name = slot.name;
            let there = point.inputs.iter().any(|i| i.name == name);
            assert!(there, "gradcheck: f reads {name}, which is no input of the point: Point::input(\"{name}\", …)");
        }
        Trace { run: Interp::new(g), y, xs, at: point.inputs.clone(), s: y }
    }

    /// `f` at the same point in the middle of an expression.
    #[track_caller]
    fn inside(g: &'g Graph, f: impl Fn(&'g Graph, &[Var<'g>]) -> Var<'g>, point: &Point) -> Trace<'g> {
        const SCALE: f64 = 1.6;
        let mut point = point.clone();
        point.inputs.iter_mut().for_each(|i| i.values.iter_mut().for_each(|v| *v /= SCALE));
        Trace::alone(
            g,
            |g, xs| {
                let scaled: Vec<Var> = xs.iter().map(|&x| x * SCALE).collect();
                let y = f(g, &scaled);
                // The first input is used a second time, and y is used twice.
                let y = (y * -0.4).tanh() * 1.3 + y * 0.5;
                xs.first().map_or(y, |x| y + x.square().sum_all() * 0.7)
            },
            &point,
        )
    }

    /// The derivatives of ⟨dy, y⟩ with respect to the inputs, which dy joins for the orders above.
    fn differentiate(&mut self, order: usize, seed: u64) -> Vec<Var<'g>> {
        let (name, shape) = (format!("dy{order}"), self.y.shape());
        let dy = self.y.graph().buffer(&name, &shape);
        let slopes = grad_with(self.y, dy, &self.xs);
        self.s = (self.y * dy).sum_all();
        self.xs.push(dy);
        self.at.push(PointInput { name, shape, values: random(shape.size(), seed, 100 * order as u32) });
        self.at.iter().for_each(|i| self.run.set(&i.name, &i.values).expect("the graph has its inputs"));
        slopes
    }

    /// s with one element of one input moved by `t`.
    fn moved(&mut self, input: usize, element: usize, t: f64) -> f64 {
        let PointInput { name, values, .. } = &self.at[input];
        let mut there = values.clone();
        there[element] += t;
        self.run.set(name, &there).expect("the graph has its inputs");
        let s = self.run.eval(self.s)[0];
        self.run.set(name, values).expect("the graph has its inputs");
        s
    }

    /// ∂s/∂element by differences.
    fn difference(&mut self, input: usize, element: usize, stencil: Stencil, h: f64) -> f64 {
        let mut apart = |t: f64| self.moved(input, element, t) - self.moved(input, element, -t);
        match stencil {
            ThreePoint => apart(h) / (2.0 * h),
            FivePoint => (8.0 * apart(h) - apart(2.0 * h)) / (12.0 * h),
        }
    }

    /// Of the elements, those whose derivatives are farthest apart first.
    fn compared(&mut self, slopes: &[Var<'g>], stencil: Stencil, h: f64) -> Vec<ElementSlopes> {
        let found: Vec<Vec<f64>> = slopes.iter().map(|&dx| self.run.eval(dx)).collect();
        let mut all = Vec::new();
        for (input, found) in found.iter().enumerate() {
            for (element, &found) in found.iter().enumerate() {
                let expected = self.difference(input, element, stencil, h);
                all.push(ElementSlopes { input, element, found, expected });
            }
        }
        all.sort_by(|a, b| b.error().total_cmp(&a.error()));
        all
    }

    /// The worst element, but none at a kink while another is wrong.
    fn worst(
        &mut self,
        all: Vec<ElementSlopes>,
        compare: impl Fn(&mut Trace<'g>, ElementSlopes) -> Comparison,
        tolerance: f64,
    ) -> Option<Comparison> {
        let mut first = None;
        for at in all {
            let wrong = at.error() > tolerance;
            if !wrong && first.is_some() {
                break;
            }
            let comparison = compare(self, at);
            if wrong && !comparison.at_kink(tolerance) {
                return Some(comparison);
            }
            first.get_or_insert(comparison);
        }
        first
    }

    fn comparison(&mut self, at: ElementSlopes, order: usize, inside: bool, step: f64) -> Comparison {
        let ElementSlopes { input, element, found, expected } = at;
        let expected_at_half = self.difference(input, element, FivePoint, step / 2.0);
        let here = self.moved(input, element, 0.0);
        let jumps = [step, step / 2.0]
            .map(|h| (self.moved(input, element, h) - 2.0 * here + self.moved(input, element, -h)) / h);
        let input = self.at[input].name.clone();
        Comparison { order, inside, input, element, found, expected, expected_at_half, jumps }
    }
}
