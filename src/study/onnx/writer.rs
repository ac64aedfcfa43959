//! A graph of ONNX in the making: layers as `Gemm`, and functions of numbers translated from this crate's own graph.

use std::collections::HashMap;

use super::messages::{
    OnnxAttribute, OnnxGraph, OnnxKind, OnnxNode, OnnxShape, OnnxSize, OnnxTensor, OnnxTensorKind, OnnxValue,
};
use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Id, Node, Var};
use crate::engine::nn::Linear;
use crate::engine::ops::scalar::{GELU_CUBIC, GELU_SCALE};
use crate::engine::ops::{BinaryFn, Leaf, Op, ScalarFn};
use crate::engine::tensors::NamedArray;

/// `FLOAT` and `BOOL` of ONNX's types, and `INT` of those of attributes.
const FLOAT: i32 = 1;
const BOOL: i64 = 9;
const INTEGER: i32 = 2;

/// A graph of ONNX in the making.
pub(super) struct GraphWriter<'t> {
    graph: OnnxGraph,
    tensors: &'t [NamedArray],
}

/// A value of this crate's graph in that of ONNX: one of its names, or several side by side with their widths.
#[derive(Clone)]
struct Translated(Vec<(String, usize)>);

impl<'t> GraphWriter<'t> {
    /// An empty graph that takes its weights from `tensors`.
    pub(super) fn new(name: &str, tensors: &'t [NamedArray]) -> GraphWriter<'t> {
        GraphWriter { graph: OnnxGraph { name: name.into(), ..OnnxGraph::default() }, tensors }
    }

    /// The finished graph.
    pub(super) fn finish(self) -> OnnxGraph {
        self.graph
    }

    /// An input of `width` numbers for each of N rows.
    pub(super) fn input(&mut self, name: &str, width: usize, what: &str) {
        self.graph.input.push(value(name, &[None, Some(width)], what));
    }

    /// Makes `from` an output under the name `name`, with `width` numbers for each of N rows; without rows if it is none of a row's.
    pub(super) fn output(&mut self, from: &str, name: &str, shape: &[Option<usize>], what: &str) {
        let taken = self.graph.output.iter().any(|output| output.name == from);
        if taken {
            self.push("Identity", &[from], name, &[]);
        } else {
            let names = self.graph.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
            names.filter(|other| *other == from).for_each(|other| *other = name.into());
        }
        self.graph.output.push(value(name, shape, what));
    }

    /// x·W + b for each part of a layer, with the weights as the checkpoint has them; the names of the results.
    pub(super) fn layer(&mut self, layer: &Linear, x: &str) -> Vec<(String, usize)> {
        let own = [layer.name.clone()];
        let parts = if layer.parts.is_empty() { &own[..] } else { &layer.parts[..] };
        let width = layer.fan_out / parts.len();
        let mut results = Vec::new();
        for part in parts {
            let [w, b] = ["weight", "bias"].map(|kind| format!("{part}.{kind}"));
            self.weight(&w);
            self.weight(&b);
            let y = format!("{part}.output");
            // The file has W as [out, in].
            self.push("Gemm", &[x, &w, &b], &y, &[("transB", 1)]);
            results.push((y, width));
        }
        results
    }

    /// A tensor of the checkpoint as a constant of the graph.
    pub(super) fn weight(&mut self, name: &str) {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name).expect("a checkpoint has all its tensors");
        let shape: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
        self.constant(name, shape, &tensor.values);
    }

    fn constant(&mut self, name: &str, dims: Vec<i64>, values: &[f32]) {
        if self.graph.initializer.iter().any(|known| known.name == name) {
            return;
        }
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.graph.initializer.push(OnnxTensor { dims, data_type: FLOAT, name: name.into(), raw_data });
    }

    /// f of the values `inputs`, each side by side in `[rows, Σ widths]`, and of the parameter `shared` if f asks for it.
    ///
    /// # Errors
    /// [`Error::Argument`] for an operation that ONNX has not.
    pub(super) fn apply(
        &mut self,
        name: &str,
        input: &[(String, usize)],
        f: impl for<'g> Fn(Var<'g>) -> Var<'g>,
    ) -> Result<String> {
        let g = Graph::new();
        let widths = input.iter().map(|(_, width)| width).sum();
        let x = g.input(&[1, widths]);
        let y = f(x);
        let mut known = HashMap::from([(x.id(), Translated(input.to_vec()))]);
        for id in g.live(&[y.id()]) {
            if !known.contains_key(&id) {
                let translated = self.node(&g, name, id, &known)?;
                known.insert(id, translated);
            }
        }
        Ok(self.whole(name, &known[&y.id()]))
    }

    fn node(&mut self, g: &Graph, scope: &str, id: Id, known: &HashMap<Id, Translated>) -> Result<Translated> {
        let node = g.node(id);
        let columns = node.shape.last().copied().unwrap_or(1);
        let ins: Vec<&Translated> = node.ins.iter().map(|id| &known[id]).collect();
        match node.op {
            // Operators of ONNX repeat along sizes of 1 by themselves.
            Op::Broadcast | Op::Reshape | Op::StopGradient => return Ok(ins[0].clone()),
            Op::Leaf(Leaf::Slot(slot)) => {
                let name = g.slot(slot).name;
                self.weight(&name);
                return Ok(Translated(vec![(name, columns)]));
            }
            Op::Leaf(Leaf::Const(bits)) => return Ok(Translated(vec![(self.number(f64::from_bits(bits)), 1)])),
            Op::SliceCols(start) => {
                let mut at = 0;
                for part in &ins[0].0 {
                    if (at, part.1) == (start as usize, columns) {
                        return Ok(Translated(vec![part.clone()]));
                    }
                    at += part.1;
                }
            }
            _ => {}
        }
        let ins: Vec<String> = ins.into_iter().map(|value| self.whole(scope, value)).collect();
        let ins: Vec<&str> = ins.iter().map(String::as_str).collect();
        Ok(Translated(vec![(self.operation(scope, &node, &ins)?, columns)]))
    }

    fn operation(&mut self, scope: &str, node: &Node, ins: &[&str]) -> Result<String> {
        match node.op {
            Op::Scalar(f) => self.function(scope, f, ins[0]),
            Op::Binary(f) => Ok(self.binary(scope, f, ins)),
            Op::Pow(exponent) => {
                let exponent = self.number(f64::from_bits(exponent));
                Ok(self.new_node(scope, "Pow", &[ins[0], &exponent], &[]))
            }
            Op::Select => {
                let condition = self.new_node(scope, "Cast", &[ins[0]], &[("to", BOOL)]);
                Ok(self.new_node(scope, "Where", &[&condition, ins[1], ins[2]], &[]))
            }
            op => Err(without_counterpart(op.name())),
        }
    }

    fn function(&mut self, scope: &str, f: ScalarFn, x: &str) -> Result<String> {
        let one = |writer: &mut Self| writer.number(1.0);
        let simple = match f {
            ScalarFn::Exp => "Exp",
            ScalarFn::Log => "Log",
            ScalarFn::Sqrt => "Sqrt",
            ScalarFn::Abs => "Abs",
            ScalarFn::Sign => "Sign",
            ScalarFn::Neg => "Neg",
            ScalarFn::Relu => "Relu",
            ScalarFn::Tanh => "Tanh",
            ScalarFn::Sigmoid => "Sigmoid",
            ScalarFn::Softplus => "Softplus",
            ScalarFn::Square => return Ok(self.new_node(scope, "Mul", &[x, x], &[])),
            ScalarFn::Expm1 => {
                let (e, one) = (self.new_node(scope, "Exp", &[x], &[]), one(self));
                return Ok(self.new_node(scope, "Sub", &[&e, &one], &[]));
            }
            ScalarFn::Log1p => {
                let one = one(self);
                let more = self.new_node(scope, "Add", &[x, &one], &[]);
                return Ok(self.new_node(scope, "Log", &[&more], &[]));
            }
            ScalarFn::Silu => {
                let gate = self.new_node(scope, "Sigmoid", &[x], &[]);
                return Ok(self.new_node(scope, "Mul", &[x, &gate], &[]));
            }
            ScalarFn::Gelu => return Ok(self.gelu(scope, x)),
            ScalarFn::Step | ScalarFn::Expm1mx => return Err(without_counterpart(f.name())),
        };
        Ok(self.new_node(scope, simple, &[x], &[]))
    }

    /// x σ(2u), u = √(2/π)(x + 0.044715x³).
    fn gelu(&mut self, scope: &str, x: &str) -> String {
        let [scale, cubic] = [self.number(2.0 * GELU_SCALE), self.number(GELU_CUBIC)];
        let square = self.new_node(scope, "Mul", &[x, x], &[]);
        let cube = self.new_node(scope, "Mul", &[&square, x], &[]);
        let bent = self.new_node(scope, "Mul", &[&cube, &cubic], &[]);
        let inner = self.new_node(scope, "Add", &[x, &bent], &[]);
        let scaled = self.new_node(scope, "Mul", &[&inner, &scale], &[]);
        let gate = self.new_node(scope, "Sigmoid", &[&scaled], &[]);
        self.new_node(scope, "Mul", &[x, &gate], &[])
    }

    fn binary(&mut self, scope: &str, f: BinaryFn, ins: &[&str]) -> String {
        let (operator, truth) = match f {
            BinaryFn::Add => ("Add", false),
            BinaryFn::Sub => ("Sub", false),
            BinaryFn::Mul => ("Mul", false),
            BinaryFn::Div => ("Div", false),
            BinaryFn::Max => ("Max", false),
            BinaryFn::Min => ("Min", false),
            BinaryFn::Lt => ("Less", true),
            BinaryFn::Le => ("LessOrEqual", true),
            BinaryFn::Eq => ("Equal", true),
        };
        let y = self.new_node(scope, operator, ins, &[]);
        if truth { self.new_node(scope, "Cast", &[&y], &[("to", i64::from(FLOAT))]) } else { y }
    }

    /// The name of a value that is in one piece, or is put into one.
    fn whole(&mut self, scope: &str, value: &Translated) -> String {
        match &value.0[..] {
            [(name, _)] => name.clone(),
            parts => {
                let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
                self.new_node(scope, "Concat", &names, &[("axis", 1)])
            }
        }
    }

    /// A constant number.
    fn number(&mut self, value: f64) -> String {
        let name = format!("{value:?}");
        self.constant(&name, Vec::new(), &[value as f32]);
        name
    }

    /// An operation whose result gets a name of its own.
    fn new_node(&mut self, scope: &str, operator: &str, inputs: &[&str], attributes: &[(&str, i64)]) -> String {
        let name = format!("{scope}/{}{}", operator.to_lowercase(), self.graph.node.len());
        self.push(operator, inputs, &name, attributes);
        name
    }

    fn push(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) {
        let attribute = |&(name, i): &(&str, i64)| OnnxAttribute { name: name.into(), i, kind: INTEGER };
        self.graph.node.push(OnnxNode {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            name: output.into(),
            op_type: operator.into(),
            attribute: attributes.iter().map(attribute).collect(),
        });
    }
}

/// The description of an input or output: sizes, N where none is given.
fn value(name: &str, shape: &[Option<usize>], what: &str) -> OnnxValue {
    let size = |size: &Option<usize>| match size {
        Some(size) => OnnxSize { value: Some(*size as i64), name: None },
        None => OnnxSize { value: None, name: Some("N".into()) },
    };
    let shape = OnnxShape { dim: shape.iter().map(size).collect() };
    let kind = OnnxKind { tensor: Some(OnnxTensorKind { elem_type: FLOAT, shape: Some(shape) }) };
    OnnxValue { name: name.into(), kind: Some(kind), doc_string: what.into() }
}

fn without_counterpart(name: &str) -> Error {
    let expected = format!("a model without the operation {name}, which has no counterpart there");
    Error::argument("format", "onnx", expected)
}
