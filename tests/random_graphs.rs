//! Random graphs, evaluated in every way there is.
//!
//! A [`Recipe`] is turned into a graph of a dozen operations on small random shapes, with its gradients, a
//! Hessian-vector product, outputs, a store and an update. Then, for two steps:
//!
//! * the gradient along a random direction against differences, in f64;
//! * the interpreter in f32 against the one in f64;
//! * the CPU plan with all rules of fusion, with none and with some, against both, and for several threads bit for bit;
//! * for the first of the graphs, the CUDA plan likewise.
//!
//! The interpreter runs while the graph is being written, and what would be ill-conditioned is left out: values beyond
//! [`LARGEST`], logarithms of negative numbers, arguments near a kink. The seeds are fixed, so that the test is the same
//! everywhere; `PROPTEST_CASES=2000 PROPTEST_RNG_SEED=7 cargo test --release --test random_graphs` looks further.

mod common;

use std::cell::Cell;
use std::fmt;

use elbo::engine::device::Precision;
use elbo::engine::interp::Interpreter;
use elbo::engine::isa::Isa;
use elbo::engine::ops::{BinaryFn, ScalarFn};
use elbo::engine::rng::Draw;
use elbo::{Call, Cpu, Error, Executor, Fusion, Graph, Interp, Key, Optimizer, Params, Result, Rows, Var, grad, hvp};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// What a case comes to.
type Verdict = std::result::Result<(), TestCaseError>;

const LARGEST: f64 = 30.0;
/// How far arguments keep from kinks, and what is compared from being equal.
const MARGIN: f64 = 1e-3;
const DATA_ROWS: usize = 80;
const STEPS: usize = 2;

/// What to build: sizes, operations with three picks each, rules of fusion as bits.
#[derive(Clone)]
struct Recipe {
    seed: u64,
    sizes: [usize; 3],
    ops: Vec<(u8, [u16; 3])>,
    fusion: u8,
}

/// On one line, to be pasted into `all_agree(&Recipe { … })`.
impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe { seed, sizes, ops, fusion } = self;
        write!(f, "Recipe {{ seed: {seed}, sizes: {sizes:?}, ops: vec!{ops:?}, fusion: {fusion} }}")
    }
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let size = || prop::sample::select(vec![1usize, 2, 3, 4, 5, 8, 17, 33]);
    let ops = prop::collection::vec((0u8..22, prop::array::uniform3(any::<u16>())), 4..18);
    (any::<u32>(), [size(), size(), size()], ops, any::<u8>()).prop_map(|(seed, sizes, ops, fusion)| Recipe {
        seed: u64::from(seed),
        sizes,
        ops,
        fusion,
    })
}

fn rules(bits: u8) -> Fusion {
    let on = |i: u8| bits >> i & 1 == 1;
    let [pointwise, linear, linear_grads, bce, sample_kl, adam, launches] = std::array::from_fn(|i| on(i as u8));
    Fusion { pointwise, linear, linear_grads, bce, sample_kl, adam, launches }
}

/// A graph in the making. Its arrays are `x0 …` (buffers) and `w0 …` (parameters).
struct Builder<'g> {
    g: &'g Graph,
    run: Interp<'g, f64>,
    pool: Vec<Var<'g>>,
    leaves: Vec<(String, Var<'g>)>,
    seed: u64,
    /// Of the data set.
    columns: usize,
    streams: u32,
    /// Whether a `stop_gradient` makes the gradient another one than the slope.
    detached: bool,
}

fn numbers(seed: u64, stream: u32, n: usize) -> Vec<f64> {
    let draw = Draw { seed, step: 77, stream };
    (0..n as u64).map(|i| f64::from((2.0 * draw.uniform(i) - 1.0) * 1.5)).collect()
}

impl<'g> Builder<'g> {
    fn new(g: &'g Graph, r: &Recipe) -> Builder<'g> {
        let [m, n, k] = r.sizes;
        let (run, pool, leaves) = (Interp::new(g), Vec::new(), Vec::new());
        let mut b = Builder { g, run, pool, leaves, seed: r.seed, columns: n, streams: 0, detached: false };
        b.run.at(Key::new(r.seed), rows(r.seed));
        for shape in [&[m, n][..], &[m, n], &[n], &[m, 1], &[m, k], &[]] {
            b.leaf(false, shape);
        }
        b.leaf(true, &[n, k]);
        b.leaf(true, &[k]);
        b.pool.push(g.batch_in_units("images", m, n, 255.0));
        b.run.load("images", &bytes(r.seed, n)[..], n).unwrap();
        b.pool.push(g.normal(&[m, n], 1));
        b.pool.push(g.uniform(&[n], 2));
        b.pool.push(g.schedule("beta"));
        b.run.schedule("beta", 1.0);
        b
    }

    /// A buffer or parameter with random values.
    fn leaf(&mut self, param: bool, shape: &[usize]) -> Var<'g> {
        let name = format!("{}{}", if param { "w" } else { "x" }, self.leaves.len());
        let x = if param { self.g.param(&name, shape) } else { self.g.buffer(&name, shape) };
        self.run.set(&name, &self.values(self.leaves.len(), x)).unwrap();
        self.leaves.push((name, x));
        self.pool.push(x);
        x
    }

    fn values(&self, leaf: usize, x: Var<'_>) -> Vec<f64> {
        // Rounded to f32, so that all executors start from the same numbers.
        numbers(self.seed, 10 + leaf as u32, x.shape().size()).into_iter().map(|v| f64::from(v as f32)).collect()
    }

    fn pick(&self, i: u16) -> Var<'g> {
        // Later values more often than leaves.
        let n = self.pool.len();
        self.pool[n - 1 - usize::from(i) % n.min(9)]
    }

    fn max_abs(&mut self, x: Var<'g>) -> f64 {
        self.run.eval(x).iter().fold(0.0, |m, v| if v.abs() <= m { m } else { v.abs() })
    }

    /// Whether all numbers keep away from 0.
    fn off_zero(&mut self, x: Var<'g>) -> bool {
        self.run.eval(x).iter().all(|v| v.abs() > MARGIN)
    }

    /// Whether all numbers keep away from each other.
    fn all_different(&mut self, x: Var<'g>) -> bool {
        let mut v = self.run.eval(x);
        v.sort_by(f64::total_cmp);
        v.windows(2).all(|w| w[1] - w[0] > MARGIN)
    }

    fn add(&mut self, (op, p): (u8, [u16; 3])) {
        if let Some(y) = self.make(op, p) {
            let fits = y.shape().size() <= 3000 && self.max_abs(y) <= LARGEST;
            if fits {
                self.pool.push(y);
            }
        }
    }

    /// The operation `op`, or none where it would sit on a kink or does not fit.
    fn make(&mut self, op: u8, [i, j, k]: [u16; 3]) -> Option<Var<'g>> {
        let (a, c) = (self.pick(i), usize::from(k));
        // The second operand, made to fit.
        let b = self.pick(j);
        let b = if a.shape().broadcast(&b.shape()).is_some() { b } else { b.mean_all() };
        let (shape, cols) = (a.shape(), a.shape().last().copied());
        match op {
            0..4 => self.unary(a, ScalarFn::ALL[c % ScalarFn::ALL.len()]),
            4..7 => self.binary(a, b, BinaryFn::ALL[c % BinaryFn::ALL.len()]),
            7 => self.product(a, self.pick(j), c),
            8 => self.reduction(a, c),
            9 if shape.len() == 2 && c % 2 == 0 => Some(a.t()),
            9 => Some(a.reshape(&[shape.size()])),
            10 => cols.map(|n| a.slice_cols(c % n, 1 + usize::from(j) % (n - c % n))),
            11 => (!shape.is_empty()).then(|| self.g.concat_cols(&[a, a.tanh()][..1 + c % 2])),
            12 => self.rows(a, c),
            13 => (self.off_zero(a - b)).then(|| a.gt(b).select(a * 0.5, b + 1.0)),
            14 => (shape.len() < 4).then(|| a.broadcast_to(&[&[2], &shape[..]].concat())),
            15 => Some((a.square() + 0.5).pow([-1.0, 0.5, 1.5, -0.5][c % 4])),
            16 => Some(self.fixed(a) * b),
            17 => self.layer(a, c),
            20 => cols.map(|_| a.softmax(c % shape.len())),
            21 => cols.map(|_| a.log_softmax(shape.len() - 1)),
            18 => Some((a.softplus() - b * a) * [1.0, 0.25][c % 2]),
            _ => self.sample(a),
        }
    }

    fn fixed(&mut self, a: Var<'g>) -> Var<'g> {
        self.detached = true;
        a.stop_gradient()
    }

    fn unary(&mut self, a: Var<'g>, f: ScalarFn) -> Option<Var<'g>> {
        let kinked = matches!(f, ScalarFn::Abs | ScalarFn::Sign | ScalarFn::Step | ScalarFn::Relu);
        let singular = matches!(f, ScalarFn::Log | ScalarFn::Sqrt | ScalarFn::Log1p);
        let argument = if singular { a.square() + 0.1 } else { a };
        (!kinked || self.off_zero(a)).then(|| argument.map(f))
    }

    fn binary(&mut self, a: Var<'g>, b: Var<'g>, f: BinaryFn) -> Option<Var<'g>> {
        use BinaryFn::{Add, Div, Mul, Sub};
        let b = if f == Div { b.square() + 0.3 } else { b };
        let smooth = matches!(f, Add | Sub | Mul | Div);
        (smooth || self.off_zero(a - b)).then(|| a.zip(f, b))
    }

    fn product(&mut self, a: Var<'g>, b: Var<'g>, c: usize) -> Option<Var<'g>> {
        let (sa, sb) = (a.shape(), b.shape());
        if sa.len() != 2 {
            return None;
        }
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        let fits = |&(ta, tb): &(bool, bool)| sb.len() == 2 && sa[usize::from(!ta)] == sb[usize::from(tb)];
        match flags.iter().cycle().skip(c % 4).take(4).find(|f| fits(f)) {
            Some(&(ta, tb)) => {
                let y = a.matmul_t(ta, b, tb) * (1.0 / sa[usize::from(!ta)] as f64);
                self.streams += 1;
                let noise = self.g.normal(&y.shape(), 10 + self.streams);
                Some(if c & 4 == 0 { y } else { y + noise * 0.1 })
            }
            None => Some(a.matmul_t(c.is_multiple_of(2), a, c % 2 == 1)),
        }
    }

    fn reduction(&mut self, a: Var<'g>, c: usize) -> Option<Var<'g>> {
        let axes: Vec<usize> = (0..a.shape().len()).filter(|axis| c >> axis & 1 == 1).collect();
        match c >> 4 & 7 {
            0 => Some(a.sum(&axes)),
            1 => Some(a.sum_keep(&axes)),
            2 => Some(a.mean(&axes)),
            3 => Some(a.log_sum_exp(&axes)),
            4 => Some(a.sum_all() * 0.1),
            5 => self.all_different(a).then(|| a.max(&axes)),
            6 => self.all_different(a).then(|| a.max_keep(&axes)),
            _ => Some(a - self.fixed(a.max_keep(&axes))),
        }
    }

    fn rows(&mut self, a: Var<'g>, c: usize) -> Option<Var<'g>> {
        let shape = a.shape();
        if shape.len() != 2 {
            return None;
        }
        let index = |n: usize, below: usize| -> Vec<f64> { (0..n).map(|i| ((i * 7 + c) % below) as f64).collect() };
        Some(match c % 3 {
            0 => a.gather_rows(self.g.tensor(&[4], &index(4, shape[0]))),
            1 => a.pick(self.g.tensor(&[shape[0]], &index(shape[0], shape[1]))),
            _ => a.scatter_rows(self.g.tensor(&[shape[0]], &index(shape[0], 3)), 3),
        })
    }

    /// act(x·W + b), the shape of the rule `linear`.
    fn layer(&mut self, a: Var<'g>, c: usize) -> Option<Var<'g>> {
        if a.shape().len() != 2 || self.leaves.len() > 14 {
            return None;
        }
        let n = [1, 3, 16, 20][c % 4];
        let (w, b) = (self.leaf(true, &[a.shape()[1], n]), self.leaf(true, &[n]));
        let y = a.matmul(w) + b;
        let f = [ScalarFn::Tanh, ScalarFn::Relu, ScalarFn::Sigmoid, ScalarFn::Gelu][c / 4 % 4];
        self.unary(y, f)
    }

    /// μ + e^(lv/2)·ε with its KL beside it, the shape of the rule `sample_kl`.
    fn sample(&mut self, a: Var<'g>) -> Option<Var<'g>> {
        let half = a.shape().last().copied()? / 2;
        if half == 0 {
            return None;
        }
        let (mu, lv) = (a.slice_cols(0, half), a.slice_cols(half, half));
        self.streams += 1;
        let z = mu + (lv * 0.5).exp() * self.g.normal(&mu.shape(), 10 + self.streams);
        Some(z + (mu.square() + lv.expm1() - lv).sum_all() * 0.01)
    }

    /// A scalar that depends on the last values made.
    fn loss(&mut self) -> Var<'g> {
        let last: Vec<Var> = self.pool.iter().rev().take(4).copied().collect();
        let terms = last.into_iter().zip(50..).map(|(y, stream)| {
            let weights = self.g.tensor(&y.shape(), &numbers(self.seed, stream, y.shape().size()));
            ((y * 0.4).tanh() * weights).mean_all()
        });
        terms.reduce(|a, b| a + b).expect("the pool has leaves")
    }
}

fn bytes(seed: u64, columns: usize) -> Vec<u8> {
    numbers(seed, 3, DATA_ROWS * columns).iter().map(|v| (v.abs() * 160.0) as u8).collect()
}

fn rows(seed: u64) -> Rows {
    Rows { shuffle: seed.is_multiple_of(2), ..Rows::in_order() }
}

/// Gives the graph its effects; returns its outputs with their names, the loss first.
fn finish<'g>(b: &mut Builder<'g>, loss: Var<'g>) -> Vec<(String, Var<'g>)> {
    let g = b.g;
    let xs: Vec<Var> = b.leaves.iter().map(|(_, x)| *x).collect();
    let grads = grad(loss, &xs);
    let directions: Vec<Var> =
        (80..).zip(&xs).map(|(s, x)| g.tensor(&x.shape(), &numbers(b.seed, s, x.shape().size()))).collect();
    let curved = hvp(loss, &xs[..3], &directions[..3]);
    let values: Vec<Var> = b.pool.iter().rev().take(3).copied().collect();
    let named = |letter: char, values: Vec<Var<'g>>| {
        // As arrays: an output of shape [] is a running sum.
        let array = |y: Var<'g>| if y.shape().is_empty() { y.reshape(&[1]) } else { y };
        values.into_iter().enumerate().map(move |(i, y)| (format!("{letter}{i}"), array(y)))
    };
    let outputs = [("the loss".to_string(), loss)].into_iter();
    let outputs = outputs.chain(named('y', values)).chain(named('d', grads.clone())).chain(named('h', curved));
    // A buffer that is read and written in one step.
    g.store("x1", xs[1] * 0.9 + grads[1] * 0.1);
    let params: Vec<(Var, Var)> = b
        .leaves
        .iter()
        .zip(&grads)
        .filter(|((name, _), _)| name.starts_with('w'))
        .map(|((_, w), &d)| (*w, d))
        .collect();
    // The usual ε would make the sign of a vanishing gradient matter.
    let adam = Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-2 };
    let rule = if b.seed.is_multiple_of(3) { Optimizer::Sgd { momentum: 0.9 } } else { adam };
    g.optimize(rule, 0.01, &params);
    outputs.collect()
}

/// ⟨∂loss, v⟩ against five-point differences with two steps; no verdict where the two disagree, because a kink is near.
fn check_slope<'g>(b: &mut Builder<'g>, loss: Var<'g>) -> Verdict {
    let leaves = b.leaves.clone();
    let xs: Vec<Var> = leaves.iter().map(|(_, x)| *x).collect();
    let start: Vec<Vec<f64>> = (0..).zip(&xs).map(|(i, x)| b.values(i, *x)).collect();
    let along: Vec<Vec<f64>> = (60..).zip(&xs).map(|(s, x)| numbers(b.seed, s, x.shape().size())).collect();
    let mut found = 0.0;
    for (d, v) in grad(loss, &xs).into_iter().zip(&along) {
        found += b.run.eval(d).iter().zip(v).map(|(d, v)| d * v).sum::<f64>();
    }
    let mut value = |t: f64| {
        for (((name, _), x), v) in leaves.iter().zip(&start).zip(&along) {
            let moved: Vec<f64> = x.iter().zip(v).map(|(x, v)| x + t * v).collect();
            b.run.set(name, &moved).unwrap();
        }
        b.run.eval(loss)[0]
    };
    let mut slope = |h: f64| (8.0 * (value(h) - value(-h)) - (value(2.0 * h) - value(-2.0 * h))) / (12.0 * h);
    let (wide, narrow) = (slope(1e-4), slope(5e-5));
    value(0.0);
    let scale = 1e-3 + narrow.abs();
    if (wide - narrow).abs() < 1e-7 * scale {
        prop_assert!((found - narrow).abs() < 1e-5 * scale, "slope {found} by grad, {narrow} by differences");
    }
    Ok(())
}

/// The outputs and then the leaves after each step.
type Trace = Vec<Vec<Vec<f64>>>;

/// Compares f32 results with f64: the interpreter's to one part in a thousand, a plan's to a few times the
/// interpreter's error.
fn compare(what: &str, names: &[String], truth: &Trace, single: &Trace, plan: &Trace) -> Verdict {
    for step in 0..STEPS {
        for (i, name) in names.iter().enumerate() {
            let (truth, single, plan) = (&truth[step][i], &single[step][i], &plan[step][i]);
            let scale = 1e-2 + truth.iter().fold(0.0f64, |m, v| if v.abs() <= m { m } else { v.abs() });
            let error = |v: &[f64]| v.iter().zip(truth).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            if scale.is_nan() || scale > 1e4 {
                continue; // the second step's noise led out of range
            }
            prop_assert!(plan.iter().all(|v| v.is_finite()), "{what}: step {step}, {name}: {plan:?}");
            let (reference, found) = (error(single), error(plan));
            if step > 0 && reference > 1e-3 * scale {
                continue; // its noise led across a kink
            }
            prop_assert!(
                reference < 1e-3 * scale,
                "step {step}, {name}: f32 interpreter off by {reference:e} of {scale}"
            );
            let allowed = 8.0 * reference + 1e-5 * scale;
            prop_assert!(
                found < allowed,
                "{what}: step {step}, {name}: off by {found:e} of {scale}, allowed {allowed:e}"
            );
        }
    }
    Ok(())
}

/// A graph with what it should give.
struct Case<'g> {
    builder: Builder<'g>,
    outputs: Vec<Var<'g>>,
    /// Of the outputs and the leaves.
    names: Vec<String>,
    truth: Trace,
    single: Trace,
}

impl<'g> Case<'g> {
    fn new(g: &'g Graph, r: &Recipe) -> std::result::Result<Case<'g>, TestCaseError> {
        let mut builder = Builder::new(g, r);
        r.ops.iter().for_each(|&op| builder.add(op));
        let loss = builder.loss();
        if !builder.detached {
            check_slope(&mut builder, loss)?;
        }
        let (mut names, outputs): (Vec<String>, Vec<Var>) = finish(&mut builder, loss).into_iter().unzip();
        names.extend(builder.leaves.iter().map(|(name, _)| name.clone()));
        let mut case = Case { builder, outputs, names, truth: Trace::new(), single: Trace::new() };
        case.truth = case.run(&Executor::reference(), Fusion::all()).unwrap();
        case.single = case.run(&Executor::new(Interpreter::<f32>::default()), Fusion::all()).unwrap();
        Ok(case)
    }

    fn run(&self, executor: &Executor, fusion: Fusion) -> Result<Trace> {
        let Builder { g, leaves, seed, .. } = &self.builder;
        let mut f = executor.compile_with(g, self.outputs.clone(), fusion)?;
        assert_eq!(f.plan().map_or(Ok(()), |plan| plan.verify()), Ok(()));
        let mut state = executor.state(&Params::of(g), 0)?;
        let columns = self.builder.columns;
        state.load("images", &bytes(*seed, columns)[..], columns)?;
        for (i, (name, x)) in leaves.iter().enumerate() {
            state.write(name, &self.builder.values(i, *x).iter().map(|&v| v as f32).collect::<Vec<_>>())?;
        }
        let mut trace = Trace::new();
        for step in 0..STEPS as u32 {
            let rows = rows(*seed).from(step * f.batch_rows() as u32);
            let key = Key { seed: *seed, step };
            f.run(&mut state, &Call { key, rows, steps: 1, schedules: &[("beta", &|_| 1.0)] })?;
            let mut values = vec![f.take_totals()?];
            let cells = (1..self.outputs.len()).map(|i| f.read(i));
            for read in cells.chain(leaves.iter().map(|(name, _)| state.read(name))) {
                values.push(read?.into_iter().map(f64::from).collect());
            }
            trace.push(values);
        }
        Ok(trace)
    }

    fn compare(&self, what: &str, found: &Trace) -> Verdict {
        compare(what, &self.names, &self.truth, &self.single, found)
    }
}

fn all_agree(r: &Recipe) -> Verdict {
    let g = Graph::new();
    let case = Case::new(&g, r)?;
    let isas = Isa::available();
    for (i, fusion) in [Fusion::all(), Fusion::none(), rules(r.fusion)].into_iter().enumerate() {
        let isa = isas[(i + r.ops.len()) % isas.len()];
        let run = |threads| case.run(&Executor::new(Cpu::with_isa(threads, isa)), fusion).unwrap();
        let one = run(1);
        case.compare(&format!("{isa:?} {fusion:?}"), &one)?;
        prop_assert!(same_bits(&one, &run(3)), "{fusion:?}: one thread and three differ");
    }
    Ok(())
}

/// Whether the graph's programs fit into the kernels' parameters, and then that CUDA agrees.
fn cuda_agrees(r: &Recipe) -> std::result::Result<bool, TestCaseError> {
    let g = Graph::new();
    let case = Case::new(&g, r)?;
    for fusion in [Fusion::all(), rules(r.fusion)] {
        let run = || case.run(&common::on_cuda(Precision::F32).expect("asked before"), fusion);
        let one = match run() {
            Err(Error::Device { reason, .. }) if reason.contains("room for") => return Ok(false),
            other => other.unwrap(),
        };
        case.compare(&format!("cuda {fusion:?}"), &one)?;
        prop_assert!(same_bits(&one, &run().unwrap()), "{fusion:?}: two runs differ");
    }
    Ok(true)
}

fn same_bits(a: &Trace, b: &Trace) -> bool {
    let bits = |t: &Trace| -> Vec<u64> { t.iter().flatten().flatten().map(|v| v.to_bits()).collect() };
    bits(a) == bits(b)
}

/// `cases` of the fixed seed, or what the environment asks for.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    config.failure_persistence = None;
    config
}

#[test]
fn every_way_of_evaluating_a_graph_agrees() {
    proptest!(config(1000), |(r in recipe())| all_agree(&r)?);
}

#[test]
fn cuda_agrees_with_the_interpreter() {
    if matches!(common::behind(), common::Behind::Nothing) {
        return;
    }
    let (fit, all) = (Cell::new(0u32), Cell::new(0u32));
    proptest!(config(150), |(r in recipe())| {
        fit.set(fit.get() + u32::from(cuda_agrees(&r)?));
        all.set(all.get() + 1);
    });
    let (fit, all) = (fit.get(), all.get());
    println!("{fit} of {all} graphs fit into the kernels' parameters");
    assert!(10 * fit >= 9 * all, "only {fit} of {all} graphs fit into the kernels' parameters");
}
