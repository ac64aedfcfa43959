//! The record: what the forward tape holds, what the walk back did, and what finite differences say of it.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::layout::Drawing;
use super::text::number;
use crate::engine::grad::{Walk, walk};
use crate::engine::graph::{Graph, Id, Var};
use crate::engine::interp::Interp;
use crate::engine::ops::{BinaryFn, Leaf, Op, OpRule, ScalarFn};

/// The most numbers of an array that are kept, and the most elements of a leaf that are checked by differences.
pub(super) const MOST_NUMBERS: usize = 16;
/// The step of a central difference relative to the size of what is moved: near ε^⅓ of an f64, where its error is least.
const RELATIVE_STEP: f64 = 1e-5;

/// A derivation of one scalar: everything that reverse mode computes, in the order in which it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Derivation {
    /// What is differentiated, as one would write it.
    pub title: String,
    /// 1 for the first derivative, 2 for one that starts from a gradient.
    pub order: usize,
    /// The forward tape; inputs stand before their users, and the last node is y. Constants stand in the texts of those that
    /// use them.
    pub nodes: Vec<TapeNode>,
    /// The walk back, from y.
    pub steps: Vec<TapeStep>,
    /// The variables, with their gradients.
    pub leaves: Vec<LeafCheck>,
    /// Where the nodes stand when the graph is drawn.
    pub drawing: Drawing,
    /// Derivations of the gradients, if the second order was asked for: of ∂y/∂x for each leaf if all are scalars, which are
    /// the rows of the Hessian, otherwise of the sum of all elements of all gradients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub second: Vec<Derivation>,
}

/// A value of the tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapeValue {
    /// Its shape, `[]` for a scalar.
    pub shape: Vec<usize>,
    /// Its numbers, row-major: the first 16. JSON has neither infinities nor NaN: they are written as `null`, here and below,
    /// and `null` is read as NaN.
    #[serde(deserialize_with = "numbers_or_null")]
    pub values: Vec<f64>,
    /// What all its numbers are like, where there are more than 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<ValueStats>,
}

/// What an array of many numbers is like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueStats {
    /// The least.
    #[serde(deserialize_with = "number_or_null")]
    pub min: f64,
    /// The largest.
    #[serde(deserialize_with = "number_or_null")]
    pub max: f64,
    /// The mean.
    #[serde(deserialize_with = "number_or_null")]
    pub mean: f64,
    /// √Σ v².
    #[serde(deserialize_with = "number_or_null")]
    pub norm: f64,
}

/// A node of the forward tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapeNode {
    /// Its place in the tape.
    pub id: usize,
    /// What it is called in texts: the name of a leaf, or v1, v2, …
    pub name: String,
    /// Whether it is given rather than computed.
    pub leaf: bool,
    /// The operation.
    pub op: String,
    /// What it computes, of its inputs by their names.
    pub text: String,
    /// The places of its inputs in the tape; constants have none.
    pub inputs: Vec<usize>,
    /// Its rule of differentiation, one equation for each input, with x, a, b … for the inputs and y for the node.
    pub rule: Vec<String>,
    /// Its value.
    #[serde(flatten)]
    pub value: TapeValue,
}

/// A node reached by the walk back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapeStep {
    /// The node's place in the tape.
    pub node: usize,
    /// ∂y/∂node: complete, since every user of the node has been visited.
    pub cotangent: TapeValue,
    /// What it hands on.
    pub contributions: Vec<TapeContribution>,
}

/// What a node hands on to one of its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapeContribution {
    /// The input's place in the tape.
    pub input: usize,
    /// What the rule calls the input: x, a, b, …
    pub role: String,
    /// The rule: of an operation on single numbers the tokens of the engine's table, of one on whole arrays the text that stands
    /// beside its code.
    pub rule: String,
    /// The same with the names of the tape: `dv1 * l.sigmoid()`.
    pub text: String,
    /// Its value.
    pub value: TapeValue,
    /// The sum of all contributions to the input so far.
    pub sum: TapeValue,
}

/// A variable with its gradient and what finite differences say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeafCheck {
    /// Its name.
    pub name: String,
    /// Its place in the tape; none where y does not depend on it.
    pub node: Option<usize>,
    /// ∂y/∂leaf by the walk.
    pub gradient: TapeValue,
    /// Which elements were moved: all, or 16 of them.
    pub checked: Vec<usize>,
    /// [y(e + h) − y(e − h)]/2h for each of these elements e.
    #[serde(deserialize_with = "numbers_or_null")]
    pub difference: Vec<f64>,
    /// h.
    pub step: f64,
    /// The largest |gradient − difference|/(1 + |difference|); infinite if one of them is no number.
    #[serde(deserialize_with = "number_or_infinite")]
    pub error: f64,
}

fn number_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

fn numbers_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let numbers = Vec::<Option<f64>>::deserialize(from)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
}

/// Of an error, which is never NaN.
fn number_or_infinite<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}

impl TapeValue {
    pub(super) fn new(shape: &[usize], numbers: &[f64]) -> TapeValue {
        let stats = (numbers.len() > MOST_NUMBERS).then(|| ValueStats {
            min: numbers.iter().copied().fold(f64::INFINITY, f64::min),
            max: numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            mean: numbers.iter().sum::<f64>() / numbers.len() as f64,
            norm: numbers.iter().map(|v| v * v).sum::<f64>().sqrt(),
        });
        TapeValue { shape: shape.to_vec(), values: numbers.iter().take(MOST_NUMBERS).copied().collect(), stats }
    }
}

impl Derivation {
    /// The derivation of the scalar `y` with respect to `leaves`, at the values that `run` holds: parameters, buffers, data,
    /// schedules, and the key of the noise, which is held while the leaves are moved.
    ///
    /// `names` says what further nodes are called. With order 2 the gradients are derived too, see
    /// [`Derivation::second`].
    ///
    /// # Panics
    /// When `y` is no scalar, or a leaf is no parameter, buffer or input of the graph.
    #[track_caller]
    pub fn of<'g>(
        title: &str,
        y: Var<'g>,
        leaves: &[(&str, Var<'g>)],
        names: &[(&str, Var<'g>)],
        run: &mut Interp<'g, f64>,
        order: usize,
    ) -> Derivation {
        assert!(y.shape().size() == 1, "a derivation of {y:?}, which is no scalar");
        let known = leaves.iter().chain(names).map(|(name, x)| (x.id(), name.to_string())).collect();
        let mut labels = Labels { known, numbered: 0, noises: 0 };
        let wrt: Vec<Var> = leaves.iter().map(|(_, x)| *x).collect();
        let mut recorder = Recorder { leaves, run, labels: &mut labels };
        let (mut first, walked) = recorder.derivation(title, y, 1);
        if order < 2 || wrt.is_empty() {
            return first;
        }
        if wrt.iter().all(|x| x.shape().size() == 1) {
            for ((name, _), &slope) in leaves.iter().zip(&walked.gradients) {
                first.second.push(recorder.derivation(&format!("∂y/∂{name}"), slope, 2).0);
            }
        } else {
            let sums = walked.gradients.iter().map(|dx| dx.sum_all());
            let all = sums.reduce(|a, b| a + b).expect("there are leaves");
            let names: Vec<&str> = leaves.iter().map(|(name, _)| *name).collect();
            let title = format!("the sum of all elements of ∂y/∂({})", names.join(", "));
            first.second.push(recorder.derivation(&title, all, 2).0);
        }
        first
    }

    /// The largest error of a leaf, of every order.
    pub fn error(&self) -> f64 {
        let own = self.leaves.iter().map(|leaf| leaf.error);
        own.chain(self.second.iter().map(Derivation::error)).fold(0.0, f64::max)
    }

    /// The step of the walk that reaches a node.
    pub fn step_of(&self, node: usize) -> Option<&TapeStep> {
        self.steps.iter().find(|step| step.node == node)
    }
}

/// What nodes are called. A node that belongs to derivations of both orders has one name.
struct Labels {
    known: HashMap<Id, String>,
    numbered: usize,
    noises: usize,
}

impl Labels {
    fn of(&mut self, x: Var<'_>) -> String {
        if let Some(value) = x.as_constant() {
            return number(value);
        }
        if let Some(known) = self.known.get(&x.id()) {
            return known.clone();
        }
        let g = x.graph();
        let name = match g.node(x.id()).op {
            Op::Leaf(Leaf::Slot(slot) | Leaf::Batch(slot, _)) => g.slot(slot).name,
            Op::Leaf(Leaf::Normal(_)) => {
                self.noises += 1;
                if self.noises == 1 { "ε".into() } else { format!("ε{}", self.noises) }
            }
            _ => {
                self.numbered += 1;
                format!("v{}", self.numbered)
            }
        };
        self.known.insert(x.id(), name.clone());
        name
    }
}

struct Recorder<'r, 'g> {
    leaves: &'r [(&'r str, Var<'g>)],
    run: &'r mut Interp<'g, f64>,
    labels: &'r mut Labels,
}

impl<'g> Recorder<'_, 'g> {
    fn derivation(&mut self, title: &str, y: Var<'g>, order: usize) -> (Derivation, Walk<'g>) {
        let g = y.graph();
        let wrt: Vec<Var> = self.leaves.iter().map(|(_, x)| *x).collect();
        let walked = walk(y, g.full(&y.shape(), 1.0), &wrt);
        // What a rule of one's own differentiates need not be part of the value.
        let roots: Vec<Id> = [y.id()].into_iter().chain(walked.steps.iter().map(|step| step.node.id())).collect();
        let live = g.live(&roots).into_iter().map(|id| g.var(id));
        let tape: Vec<Var> = live.filter(|x| x.as_constant().is_none() || x.id() == y.id()).collect();
        let places: HashMap<Id, usize> = tape.iter().enumerate().map(|(place, x)| (x.id(), place)).collect();
        let nodes: Vec<TapeNode> = tape.iter().enumerate().map(|(id, &x)| self.node(id, x, &places)).collect();
        let steps = self.steps(&walked, &places);
        let leaves = (0..self.leaves.len()).map(|i| self.check(y, i, walked.gradients[i], &places)).collect();
        let drawing = Drawing::of(&nodes);
        (Derivation { title: title.into(), order, nodes, steps, leaves, drawing, second: Vec::new() }, walked)
    }

    fn value(&mut self, x: Var<'g>) -> TapeValue {
        TapeValue::new(&x.shape(), &self.run.eval(x))
    }

    fn node(&mut self, id: usize, x: Var<'g>, places: &HashMap<Id, usize>) -> TapeNode {
        let node = x.graph().node(x.id());
        let mut ins = node.ins.to_vec();
        let further = x.graph().differentiated(x.id()).into_iter().filter(|i| !node.ins.contains(i));
        ins.extend(further);
        let labels: Vec<String> = ins.iter().map(|&i| self.labels.of(x.graph().var(i))).collect();
        let leaf = node.ins.is_empty();
        TapeNode {
            id,
            name: if x.as_constant().is_some() { "y".into() } else { self.labels.of(x) },
            leaf,
            op: node.op.name().into(),
            text: written(x.graph(), node.op, &labels),
            inputs: ins.iter().filter_map(|i| places.get(i).copied()).collect(),
            rule: node.op.rule().lines(),
            value: self.value(x),
        }
    }

    fn steps(&mut self, walked: &Walk<'g>, places: &HashMap<Id, usize>) -> Vec<TapeStep> {
        let mut steps = Vec::with_capacity(walked.steps.len());
        for step in &walked.steps {
            let rule = step.node.graph().node(step.node.id()).op.rule();
            let names = self.names(step.node, &rule);
            let mut contributions = Vec::with_capacity(step.contributions.len());
            for c in &step.contributions {
                let written = rule.of_input(c.position).unwrap_or("0");
                contributions.push(TapeContribution {
                    input: places[&c.input.id()],
                    role: rule.inputs.get(c.position).or(rule.inputs.last()).copied().unwrap_or_default().into(),
                    rule: written.into(),
                    text: named(written, &names),
                    value: self.value(c.value),
                    sum: self.value(c.sum),
                });
            }
            let cotangent = self.value(step.cotangent);
            steps.push(TapeStep { node: places[&step.node.id()], cotangent, contributions });
        }
        steps
    }

    /// What the letters of a rule stand for at a node.
    fn names(&mut self, node: Var<'g>, rule: &OpRule) -> Vec<(&'static str, String)> {
        let own = self.labels.of(node);
        let inputs = node.graph().differentiated(node.id());
        let labels = inputs.iter().map(|&i| self.labels.of(node.graph().var(i)));
        let mut names: Vec<(&'static str, String)> = rule.inputs.iter().copied().zip(labels).collect();
        names.push(("dy", cotangent_of(&own)));
        names.push(("y", own));
        names
    }

    /// Gradient and central differences of leaf `i`.
    fn check(&mut self, y: Var<'g>, i: usize, slope: Var<'g>, places: &HashMap<Id, usize>) -> LeafCheck {
        let (name, leaf) = self.leaves[i];
        let slot = match leaf.graph().node(leaf.id()).op {
            Op::Leaf(Leaf::Slot(slot)) => leaf.graph().slot(slot).name,
            _ => panic!("a derivation with respect to {leaf:?}, which is no parameter, buffer or input"),
        };
        let gradient = self.run.eval(slope);
        let start = self.run.eval(leaf);
        let checked: Vec<usize> = match start.len() {
            n if n <= MOST_NUMBERS => (0..n).collect(),
            n => (0..MOST_NUMBERS).map(|k| k * (n - 1) / (MOST_NUMBERS - 1)).collect(),
        };
        let step = RELATIVE_STEP * start.iter().fold(1.0, |most, v| v.abs().max(most));
        let mut at = |element: usize, t: f64| {
            let mut moved = start.clone();
            moved[element] += t;
            self.run.set(&slot, &moved).expect("the leaf is a slot of the graph");
            self.run.eval(y)[0]
        };
        let difference: Vec<f64> =
            checked.iter().map(|&element| (at(element, step) - at(element, -step)) / (2.0 * step)).collect();
        self.run.set(&slot, &start).expect("the leaf is a slot of the graph");
        let apart = |(&element, &d): (&usize, &f64)| (gradient[element] - d).abs() / (1.0 + d.abs());
        // What is no number is no agreement.
        let worst = |most: f64, e: f64| if e.is_nan() { f64::INFINITY } else { most.max(e) };
        let error = checked.iter().zip(&difference).map(apart).fold(0.0, worst);
        let gradient = TapeValue::new(&slope.shape(), &gradient);
        let node = places.get(&leaf.id()).copied();
        LeafCheck { name: name.into(), node, gradient, checked, difference, step, error }
    }
}

/// What ∂y/∂v is called: dv1, or d with a blank before the longer name of a leaf.
pub(super) fn cotangent_of(name: &str) -> String {
    if name.chars().count() <= 4 { format!("d{name}") } else { format!("d {name}") }
}

/// A rule with names instead of its letters; what follows a dot is a function, not a letter.
fn named(rule: &str, names: &[(&str, String)]) -> String {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut out, mut rest) = (String::new(), rule);
    while let Some(first) = rest.chars().next() {
        let end = match part_of_word(first) {
            true => rest.find(|c| !part_of_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let known = names.iter().find(|(letter, _)| *letter == &rest[..end] && !out.ends_with('.'));
        out.push_str(known.map_or(&rest[..end], |(_, name)| name));
        rest = &rest[end..];
    }
    out
}

/// An operation of named operands as one writes it.
fn written(g: &Graph, op: Op, ins: &[String]) -> String {
    let sign = |sign: &str| format!("{} {sign} {}", ins[0], ins[1]);
    match op {
        Op::Binary(BinaryFn::Add) => sign("+"),
        Op::Binary(BinaryFn::Sub) => sign("-"),
        Op::Binary(BinaryFn::Mul) => sign("*"),
        Op::Binary(BinaryFn::Div) => sign("/"),
        Op::Binary(BinaryFn::Lt) => sign("<"),
        Op::Binary(BinaryFn::Le) => sign("≤"),
        Op::Binary(BinaryFn::Eq) => sign("="),
        Op::Scalar(ScalarFn::Neg) => format!("-{}", ins[0]),
        Op::Scalar(ScalarFn::Square) => format!("{}²", ins[0]),
        Op::Pow(c) => format!("{}^{}", ins[0], number(f64::from_bits(c))),
        Op::Leaf(Leaf::Slot(_)) => "given".into(),
        Op::Leaf(Leaf::Tensor(_)) => "given array".into(),
        _ => {
            let slots = g.slots();
            op.describe(ins, |slot| slots[slot.index()].name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_a_rule_become_names() {
        let names = [("x", "l".to_string()), ("b", "y1".into()), ("dy", "dv3".into()), ("y", "v3".into())];
        for (rule, text) in [
            ("dy * x.sigmoid()", "dv3 * l.sigmoid()"),
            ("dy·bᵀ", "dv3·y1ᵀ"),
            ("-(dy * y / b)", "-(dv3 * v3 / y1)"),
            ("x.x(box)", "l.x(box)"),
        ] {
            assert_eq!(named(rule, &names), text);
        }
        assert_eq!((cotangent_of("v12"), cotangent_of("encoder")), ("dv12".into(), "d encoder".into()));
    }

    #[test]
    fn what_is_no_finite_number_is_read_back() {
        let g = Graph::new();
        let x = g.param("x", &[17]);
        let mut run = Interp::<f64>::new(&g);
        run.set("x", &[0.0; 17]).unwrap();
        let d = Derivation::of("Σ ln x", x.log().sum_all(), &[("x", x)], &[], &mut run, 1);
        let back: Derivation = serde_json::from_str(&serde_json::to_string(&d).unwrap()).unwrap();
        let (leaf, gradient) = (&back.leaves[0], &back.leaves[0].gradient);
        assert!(d.leaves[0].gradient.values[0].is_infinite() && gradient.values.iter().all(|v| v.is_nan()));
        assert!(gradient.stats.unwrap().max.is_nan() && leaf.difference[0].is_nan() && leaf.error == f64::INFINITY);
    }

    #[test]
    fn of_many_numbers_the_first_and_their_statistics_are_kept() {
        let g = Graph::new();
        let x = g.param("x", &[40]);
        let mut run = Interp::<f64>::new(&g);
        run.set("x", &(0..40).map(f64::from).collect::<Vec<_>>()).unwrap();
        let d = Derivation::of("Σ x²", x.square().sum_all(), &[("x", x)], &[], &mut run, 1);
        let (value, leaf) = (&d.nodes[0].value, &d.leaves[0]);
        assert_eq!(value.values.len(), MOST_NUMBERS);
        let stats = value.stats.unwrap();
        assert_eq!((stats.min, stats.max, stats.mean), (0.0, 39.0, 19.5));
        assert_eq!((leaf.checked[0], leaf.checked[15], leaf.difference.len()), (0, 39, 16));
        assert!(leaf.error < 1e-6);
    }
}
