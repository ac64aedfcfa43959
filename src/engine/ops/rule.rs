//! The rules of the operations as text, for whoever wants to read, print or step through a derivation.
//!
//! Each text stands where its code does: those of [`ScalarFn`](super::ScalarFn) and [`BinaryFn`](super::BinaryFn) are the
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
}
