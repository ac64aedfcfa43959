//! The rules of the operations as text, for whoever wants to read, print or step through a derivation.
//!
//! Each text stands where its code does: those of [`ScalarFn`] and [`BinaryFn`] are the
//! tokens of the tables themselves, those of the other operations stand beside their rules of differentiation.
//!
//! ```
//! use elbo::engine::ops::{Op, ScalarFn};
//! assert_eq!(ScalarFn::Softplus.derivative(), "dy * x.sigmoid()");
//! assert_eq!(Op::MatMul { ta: false, tb: false }.rule().lines(), ["da = dy·bᵀ", "db = aᵀ·dy"]);
//! ```

use super::{BinaryFn, Op, ScalarFn, custom, layout, matmul, reduce, softmax};

/// An operation and its vector-Jacobian product as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpRule {
    /// What its inputs are called in the texts, in their order.
    pub inputs: Vec<&'static str>,
    /// y from the inputs.
    pub value: String,
    /// ∂loss/∂input from the inputs, y and dy, one for each input; none where no gradient flows.
    pub back: Vec<Option<String>>,
}

impl OpRule {
    /// A rule that is written by hand, with `"0"` for an input that no gradient flows to.
    pub(crate) fn new(value: &str, back: &[(&'static str, &str)]) -> OpRule {
        let flows = |text: &str| (text != "0").then(|| text.to_string());
        OpRule {
            inputs: back.iter().map(|(input, _)| *input).collect(),
            value: value.to_string(),
            back: back.iter().map(|(_, text)| flows(text)).collect(),
        }
    }

    /// ∂loss/∂input `i`, as in `dy * b`; for an operation of one's own the rule of its last named input serves all
    /// further ones.
    pub fn of_input(&self, i: usize) -> Option<&str> {
        self.back.get(i).or(self.back.last())?.as_deref()
    }

    /// One equation for each input: `da = dy * b`.
    pub fn lines(&self) -> Vec<String> {
        let line = |(input, back): (&&str, &Option<String>)| match back {
            Some(text) => format!("d{input} = {text}"),
            None => format!("d{input} = nothing"),
        };
        self.inputs.iter().zip(&self.back).map(line).collect()
    }
}

impl Op {
    /// Every operation that is made neither of a table nor of one's own code: those on whole arrays, with any flags.
    pub const STRUCTURED: &'static [Op] = &[
        Op::Pow(0),
        Op::Select,
        Op::MatMul { ta: false, tb: false },
        Op::Sum(1),
        Op::MaxOver(1),
        Op::Softmax { log: false },
        Op::Softmax { log: true },
        Op::SoftmaxGrad { log: false },
        Op::SoftmaxGrad { log: true },
        Op::Broadcast,
        Op::Reshape,
        Op::Transpose,
        Op::SliceCols(0),
        Op::PadCols(0),
        Op::ConcatCols,
        Op::GatherRows,
        Op::ScatterRows,
        Op::Pick,
        Op::Place,
        Op::StopGradient,
    ];

    /// Value and vector-Jacobian product as text. A leaf has no inputs, and its value is its own.
    pub fn rule(&self) -> OpRule {
        match *self {
            Op::Leaf(_) => OpRule::new("given", &[]),
            Op::Scalar(f) => f.rule(),
            Op::Binary(f) => f.rule(),
            Op::Pow(_) => super::pow_rule(),
            Op::Select => super::select_rule(),
            Op::MatMul { ta, tb } => matmul::rule(ta, tb),
            Op::Sum(_) => reduce::sum_rule(),
            Op::MaxOver(_) => reduce::max_rule(),
            Op::Broadcast => reduce::broadcast_rule(),
            Op::Softmax { log } => softmax::rule(log),
            Op::SoftmaxGrad { log } => softmax::gradient_rule(log),
            Op::Reshape => layout::reshape_rule(),
            Op::Transpose => layout::transpose_rule(),
            Op::SliceCols(_) => layout::slice_rule(),
            Op::PadCols(_) => layout::pad_rule(),
            Op::ConcatCols => layout::concat_rule(),
            Op::GatherRows => layout::gather_rule(),
            Op::ScatterRows => layout::scatter_rule(),
            Op::Pick => layout::pick_rule(),
            Op::Place => layout::place_rule(),
            Op::StopGradient => layout::stop_rule(),
            Op::CustomVjp(_) => custom::vjp_rule(),
            Op::Custom(_) => custom::op_rule(),
        }
    }
}

impl ScalarFn {
    /// [`ScalarFn::formula`] and [`ScalarFn::derivative`] as a rule.
    pub fn rule(self) -> OpRule {
        OpRule::new(&self.formula(), &[("x", &self.derivative())])
    }
}

impl BinaryFn {
    /// [`BinaryFn::formula`] and [`BinaryFn::derivatives`] as a rule.
    pub fn rule(self) -> OpRule {
        let [da, db] = self.derivatives();
        OpRule::new(&self.formula(), &[("a", &da), ("b", &db)])
    }
}

/// An expression of a table as one reads it: on one line, constants without the function that makes them a number of the
/// kind at hand, a block without its braces, and `0` for what has no derivative.
pub(super) fn readable(tokens: &str) -> String {
    let one_line = tokens.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = one_line.replace("c::<F>(", "c(").replace("F::select", "select");
    let text = text.strip_prefix("{ ").and_then(|inner| inner.strip_suffix(" }")).unwrap_or(&text);
    if text == "None" { "0".into() } else { without_casts(text) }
}

/// `c(0.5)` as `0.5`.
fn without_casts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("c(") {
        let (before, call) = rest.split_at(at);
        let part_of_a_name = before.ends_with(|b: char| b.is_alphanumeric() || b == '_' || b == '.');
        let end = call.find(')').filter(|_| !part_of_a_name);
        out.push_str(before);
        match end {
            Some(end) => {
                out.push_str(&call[2..end]);
                rest = &call[end + 1..];
            }
            None => {
                out.push_str("c(");
                rest = &call[2..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad::grad_with;
    use crate::engine::graph::{Graph, Var};
    use crate::engine::interp::Interp;

    #[test]
    fn texts_are_those_of_the_table() {
        assert_eq!(ScalarFn::Softplus.formula(), "x.max(0.0) + (-x.abs()).exp().log1p()");
        assert_eq!(ScalarFn::Softplus.derivative(), "dy * x.sigmoid()");
        assert_eq!(ScalarFn::Step.formula(), "select(x > 0.0, 1.0, 0.0)");
        assert_eq!(ScalarFn::Step.derivative(), "0");
        assert!(ScalarFn::Exp.doc().starts_with("eˣ; d/dx = eˣ"));
        let gelu = ScalarFn::Gelu.derivative();
        assert!(
            gelu.starts_with("let v = ") && gelu.ends_with("dy * (v.sigmoid() + y * (-v).sigmoid() * dv)"),
            "{gelu}"
        );
        assert_eq!(BinaryFn::Div.rule().lines(), ["da = dy / b", "db = -(dy * y / b)"]);
        assert_eq!(BinaryFn::Lt.rule().lines(), ["da = nothing", "db = nothing"]);
        assert_eq!(BinaryFn::Max.formula(), "a.max(b)");
    }

    #[test]
    fn casts_are_dropped_and_names_that_end_alike_are_not() {
        assert_eq!(readable("c::<F>(1.0) +\n    abc(2) + c(A)"), "1.0 + abc(2) + A");
    }

    /// Where a kind of operation stands among [`Op::STRUCTURED`]; one that is added must be placed.
    fn place(op: &Op) -> Option<usize> {
        Some(match op {
            Op::Leaf(_) | Op::Scalar(_) | Op::Binary(_) | Op::CustomVjp(_) | Op::Custom(_) => return None,
            Op::Pow(_) => 0,
            Op::Select => 1,
            Op::MatMul { .. } => 2,
            Op::Sum(_) => 3,
            Op::MaxOver(_) => 4,
            Op::Softmax { log } => 5 + usize::from(*log),
            Op::SoftmaxGrad { log } => 7 + usize::from(*log),
            Op::Broadcast => 9,
            Op::Reshape => 10,
            Op::Transpose => 11,
            Op::SliceCols(_) => 12,
            Op::PadCols(_) => 13,
            Op::ConcatCols => 14,
            Op::GatherRows => 15,
            Op::ScatterRows => 16,
            Op::Pick => 17,
            Op::Place => 18,
            Op::StopGradient => 19,
        })
    }

    #[test]
    fn every_operation_has_its_texts() {
        let places: Vec<_> = Op::STRUCTURED.iter().map(place).collect();
        assert_eq!(places, (0..20).map(Some).collect::<Vec<_>>());
        let scalars = ScalarFn::ALL.iter().map(|&f| Op::Scalar(f));
        let binaries = BinaryFn::ALL.iter().map(|&f| Op::Binary(f));
        let own = [Op::CustomVjp(0), Op::Custom(0)];
        for op in Op::STRUCTURED.iter().copied().chain(scalars).chain(binaries).chain(own) {
            let rule = op.rule();
            let texts = rule.back.iter().flatten().chain([&rule.value]);
            assert!(texts.into_iter().all(|text| !text.is_empty() && !text.contains(['\n', '{'])), "{op:?}: {rule:?}");
            assert!(!rule.inputs.is_empty() && rule.inputs.len() == rule.back.len(), "{op:?}: {rule:?}");
        }
    }

    /// Rows of numbers.
    type Matrix = Vec<Vec<f64>>;

    fn transposed(m: &Matrix) -> Matrix {
        (0..m[0].len()).map(|j| m.iter().map(|row| row[j]).collect()).collect()
    }

    /// A text such as `aᵀ·dy` of matrices by their names, by plain sums.
    fn read(text: &str, named: &[(&str, &Matrix)]) -> Matrix {
        let factor = |word: &str| {
            let name = word.trim_end_matches('ᵀ');
            let matrix = named.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} in {text}")).1;
            if name == word { matrix.clone() } else { transposed(matrix) }
        };
        let product = |a: Matrix, b: Matrix| -> Matrix {
            let b = transposed(&b);
            a.iter().map(|row| b.iter().map(|c| row.iter().zip(c).map(|(x, y)| x * y).sum()).collect()).collect()
        };
        text.split('·').map(factor).reduce(product).unwrap()
    }

    /// What the engine pushes for each input of a node, at the numbers of `leaves` and of dy.
    fn pushed<'g>(y: Var<'g>, leaves: &[(&str, Var<'g>, &Matrix)], dy: &Matrix) -> Vec<Vec<f64>> {
        let g = y.graph();
        let cotangent = g.param("dy", &y.shape());
        let wrt: Vec<Var> = leaves.iter().map(|leaf| leaf.1).collect();
        let gradients = grad_with(y, cotangent, &wrt);
        let mut run = Interp::<f64>::new(g);
        leaves.iter().for_each(|(name, _, numbers)| run.set(name, &numbers.concat()).unwrap());
        run.set("dy", &dy.concat()).unwrap();
        gradients.into_iter().map(|x| run.eval(x)).collect()
    }

    #[test]
    fn texts_of_products_say_what_the_engine_pushes() {
        let (a, b): (Matrix, Matrix) =
            (vec![vec![1.0, 2.0, -3.0], vec![0.5, 4.0, 5.0]], vec![vec![2.0, 1.0], vec![-1.0, 3.0], vec![7.0, 0.25]]);
        let dy = vec![vec![1.5, -2.0], vec![3.0, 0.125]];
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            let (a, b) = (if ta { transposed(&a) } else { a.clone() }, if tb { transposed(&b) } else { b.clone() });
            let g = Graph::new();
            let (x, y) = (g.param("a", &[a.len(), a[0].len()]), g.param("b", &[b.len(), b[0].len()]));
            let found = pushed(x.matmul_t(ta, y, tb), &[("a", x, &a), ("b", y, &b)], &dy);
            let rule = Op::MatMul { ta, tb }.rule();
            let said: Vec<Vec<f64>> = (0..2)
                .map(|i| read(rule.of_input(i).unwrap(), &[("a", &a), ("b", &b), ("dy", &dy)]).concat())
                .collect();
            assert_eq!(found, said, "{rule:?}");
        }
        let g = Graph::new();
        let x = g.param("x", &[2, 3]);
        let found = pushed(x.t(), &[("x", x, &a)], &b);
        assert_eq!(found[0], read(Op::Transpose.rule().of_input(0).unwrap(), &[("dy", &b)]).concat());
    }

    /// The texts stand here a second time, each with what it means in plain numbers.
    #[test]
    fn texts_of_other_operations_say_what_the_engine_pushes() {
        type Build = for<'g> fn(Var<'g>) -> Var<'g>;
        let x: Matrix = vec![vec![1.0, 2.0, -3.0], vec![0.5, 4.0, 5.0]];
        let dy: Matrix = vec![vec![1.5, -2.0, 3.0], vec![0.125, 1.0, -1.0]];
        let column = transposed(&vec![vec![2.0, -1.0]]);
        let check = |op: Op, input: usize, text: &str, of: Build, dy: &Matrix, meant: &dyn Fn(usize, usize) -> f64| {
            let g = Graph::new();
            let leaf = g.param("x", &[2, 3]);
            assert_eq!(op.rule().of_input(input), Some(text));
            let found = pushed(of(leaf), &[("x", leaf, &x)], dy).remove(0);
            for (i, value) in found.iter().enumerate() {
                assert!((value - meant(i / 3, i % 3)).abs() < 1e-12, "{text}: {found:?}");
            }
        };
        let p = 3.0;
        check(Op::Pow(0), 0, "dy * (x^(p−1) * p)", |x| x.pow(3.0), &dy, &|i, j| dy[i][j] * x[i][j].powf(p - 1.0) * p);
        let (text, meant) = ("q.select(dy, 0)", |i: usize, j: usize| if x[i][j] > 1.0 { dy[i][j] } else { 0.0 });
        check(
            Op::Select,
            1,
            text,
            |x| x.gt(x.graph().full(&[2, 3], 1.0)).select(x, x.graph().full(&[2, 3], 0.0)),
            &dy,
            &meant,
        );
        let (text, meant) = ("q.select(0, dy)", |i: usize, j: usize| if x[i][j] > 1.0 { 0.0 } else { dy[i][j] });
        check(
            Op::Select,
            2,
            text,
            |x| x.gt(x.graph().full(&[2, 3], 1.0)).select(x.graph().full(&[2, 3], 0.0), x),
            &dy,
            &meant,
        );
        check(Op::Sum(1), 0, "dy repeated along the axes", |x| x.sum_keep(&[1]), &column, &|i, _| column[i][0]);
        let largest = |i: usize, j: usize| if [(0, 1), (1, 2)].contains(&(i, j)) { column[i][0] } else { 0.0 };
        check(Op::MaxOver(1), 0, "(x = y) * (dy / Σ (x = y) over the axes)", |x| x.max_keep(&[1]), &column, &largest);
        let twice = [dy.clone(), x.clone()].concat();
        let text = "Σ dy over the repeated axes";
        check(Op::Broadcast, 0, text, |x| x.broadcast_to(&[2, 2, 3]), &twice, &|i, j| dy[i][j] + x[i][j]);
        check(Op::Reshape, 0, "dy in the shape of x", |x| x.reshape(&[3, 2]), &dy, &|i, j| dy[i][j]);
        let text = "dy between columns of zeros";
        check(Op::SliceCols(1), 0, text, |x| x.slice_cols(1, 1), &column, &|i, j| {
            if j == 1 { column[i][0] } else { 0.0 }
        });
        let total = |i: usize| x[i].iter().map(|v| v.exp()).sum::<f64>();
        let y = |i: usize, j: usize| x[i][j].exp() / total(i);
        let weighed = |i: usize| (0..3).map(|j| y(i, j) * dy[i][j]).sum::<f64>();
        let meant = |i: usize, j: usize| y(i, j) * (dy[i][j] - weighed(i));
        check(Op::Softmax { log: false }, 0, "y * (dy − Σ y dy)", |x| x.softmax(1), &dy, &meant);
        let meant = |i: usize, j: usize| dy[i][j] - y(i, j) * dy[i].iter().sum::<f64>();
        check(Op::Softmax { log: true }, 0, "dy − e^y Σ dy", |x| x.log_softmax(1), &dy, &meant);
    }
}
