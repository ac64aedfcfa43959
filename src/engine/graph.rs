//! The graph: an arena of nodes that only ever grows.
//!
//! A node is an index into a vector; its inputs always have smaller indices, so the order of creation is a
//! topological order and the reverse pass is a loop that counts down. Equal nodes are one node (hash-consing): the
//! backward pass finds the forward pass's `sigmoid(x)` instead of making another. Nothing is computed here; a graph
//! is a description that [`Interp`](crate::engine::interp::Interp) evaluates node by node and
//! [`Plan`](crate::engine::plan::Plan) turns into a short list of fused kernels.
//!
//! ```
//! use elbo::{grad, Graph, Interp};
//! let g = Graph::new();
//! let x = g.tensor(&[3], &[1.0, 2.0, 3.0]);
//! let y = (x * x.exp()).sum_all();
//! let dy = grad(y, &[x])[0];                     // (1 + x) eˣ, as ordinary nodes
//! let mut run = Interp::<f64>::new(&g);
//! assert!((run.eval(dy)[0] - 2.0 * 1f64.exp()).abs() < 1e-12);
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;

use crate::engine::ops::{Leaf, Op};
use crate::engine::optim::Optimizer;
use crate::engine::shape::Shape;

/// The index of a node. Inputs always have smaller ids than the node that uses them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Id(pub(crate) u32);

impl Id {
    /// The position in the arena.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Named memory that outlives a step: a parameter, a state, or the data set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Slot(pub(crate) u16);

impl Slot {
    /// The position in the graph's list of slots.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotKind {
    /// A trainable f32 array inside the flat parameter buffer.
    Param,
    /// An f32 array that the host or [`Graph::store`] writes.
    State,
    /// A resident data set of bytes, `[rows, columns]`; the number of rows is known when it is loaded.
    Data,
}

/// A slot's description.
#[derive(Clone, Debug)]
pub struct SlotInfo {
    /// Unique in the graph; executors find memory by it.
    pub name: String,
    /// What it holds.
    pub kind: SlotKind,
    /// Its shape; `[0, columns]` for [`SlotKind::Data`].
    pub shape: Shape,
}

/// Up to three inputs, without allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ins {
    ids: [Id; 3],
    len: u8,
}

impl Ins {
    pub(crate) fn new(ids: &[Id]) -> Ins {
        let mut all = [Id(0); 3];
        all[..ids.len()].copy_from_slice(ids);
        Ins { ids: all, len: ids.len() as u8 }
    }
}

impl std::ops::Deref for Ins {
    type Target = [Id];
    fn deref(&self) -> &[Id] {
        &self.ids[..self.len as usize]
    }
}

/// One operation of the graph: what is computed, from what, in which shape, and where in the source it was written.
#[derive(Clone, Copy)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Its inputs.
    pub ins: Ins,
    /// The shape of its value.
    pub shape: Shape,
    /// The line that pushed it first.
    pub at: &'static Location<'static>,
}

/// An optimiser's update of all its parameters at the end of a step.
#[derive(Clone)]
pub struct OptimizeInfo {
    /// The rule.
    pub rule: Optimizer,
    /// (parameter slot, gradient node).
    pub pairs: Vec<(Slot, Id)>,
    /// A scalar that multiplies every gradient (clipping), if any.
    pub scale: Option<Id>,
}

/// What a step leaves behind: the graph's roots.
#[derive(Clone, Default)]
pub struct Effects {
    /// Values written to slots at the end of the step.
    pub stores: Vec<(Slot, Id)>,
    /// Scalars added to named running sums.
    pub metrics: Vec<(String, Id)>,
    /// The parameter update, at most one.
    pub optimize: Option<OptimizeInfo>,
}

#[derive(Default)]
struct Arena {
    nodes: Vec<Node>,
    known: HashMap<(Op, Ins, Shape), Id>,
    slots: Vec<SlotInfo>,
    tensors: Vec<Vec<f64>>,
    effects: Effects,
}

/// The arena of nodes, with its slots and effects. Handles ([`Var`]) borrow it; nothing is reference counted.
#[derive(Default)]
pub struct Graph {
    arena: RefCell<Arena>,
}

/// A value in a graph: a copyable handle with operators and methods that push nodes.
#[derive(Clone, Copy)]
pub struct Var<'g> {
    graph: &'g Graph,
    id: Id,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Pushes a node, or returns the equal one that is there already.
    ///
    /// # Panics
    /// When an input is a value of another graph.
    #[track_caller]
    pub(crate) fn push(&self, op: Op, ins: &[Var<'_>], shape: Shape) -> Var<'_> {
        ins.iter().for_each(|x| ins[0].meets(op.name(), *x));
        let ids: Vec<Id> = ins.iter().map(|x| x.id).collect();
        let mut arena = self.arena.borrow_mut();
        let ins = Ins::new(&ids);
        if let Some(&id) = arena.known.get(&(op, ins, shape)) {
            return self.var(id);
        }
        let id = Id(u32::try_from(arena.nodes.len()).expect("fewer than 2^32 nodes"));
        arena.nodes.push(Node { op, ins, shape, at: Location::caller() });
        arena.known.insert((op, ins, shape), id);
        self.var(id)
    }

    /// Checks that `x` is a value of this graph: an index means nothing in another one.
    ///
    /// # Panics
    /// When it is not, with the lines that made `x` and the first value of this graph.
    #[track_caller]
    pub(crate) fn owns(&self, what: &str, x: Var<'_>) {
        if !std::ptr::eq(self, x.graph) {
            let first = if self.is_empty() { "nowhere yet".into() } else { self.node(Id(0)).at.to_string() };
            let at = x.graph.node(x.id).at;
            panic!("{what}: {x:?}, made at {at}, is a value of another graph than this one, which begins at {first}");
        }
    }

    /// The handle of a node of this graph.
    pub(crate) fn var(&self, id: Id) -> Var<'_> {
        Var { graph: self, id }
    }

    /// A copy of node `id`.
    pub fn node(&self, id: Id) -> Node {
        self.arena.borrow().nodes[id.index()]
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.arena.borrow().nodes.len()
    }

    /// Whether nothing has been pushed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The description of a slot.
    pub fn slot(&self, slot: Slot) -> SlotInfo {
        self.arena.borrow().slots[slot.index()].clone()
    }

    /// All slots, in the order of their first use.
    pub fn slots(&self) -> Vec<SlotInfo> {
        self.arena.borrow().slots.clone()
    }

    /// The data of constant tensor number `index`.
    pub(crate) fn tensor_data(&self, index: u32) -> Vec<f64> {
        self.arena.borrow().tensors[index as usize].clone()
    }

    /// What a step leaves behind.
    pub fn effects(&self) -> Effects {
        self.arena.borrow().effects.clone()
    }

    #[track_caller]
    fn leaf(&self, leaf: Leaf, shape: Shape) -> Var<'_> {
        self.push(Op::Leaf(leaf), &[], shape)
    }

    /// A scalar constant, shape `[]`. Operators take plain `f64` operands directly.
    #[track_caller]
    pub fn constant(&self, value: f64) -> Var<'_> {
        self.leaf(Leaf::Const(value.to_bits()), Shape::scalar())
    }

    /// A constant `value` in every element of `shape`.
    #[track_caller]
    pub fn full(&self, shape: &[usize], value: f64) -> Var<'_> {
        self.constant(value).broadcast_to(shape)
    }

    /// A constant array, row-major.
    ///
    /// # Panics
    /// When `data` has not as many elements as `shape`.
    #[track_caller]
    pub fn tensor(&self, shape: &[usize], data: &[f64]) -> Var<'_> {
        let shape = Shape::new(shape);
        assert_eq!(shape.size(), data.len(), "tensor of shape {shape} from {} numbers", data.len());
        let index = {
            let mut arena = self.arena.borrow_mut();
            arena.tensors.push(data.to_vec());
            arena.tensors.len() as u32 - 1
        };
        self.leaf(Leaf::Tensor(index), shape)
    }

    /// A trainable array. The parameters of a graph lie one after the other, in the order of first mention, in one
    /// flat buffer.
    #[track_caller]
    pub fn param(&self, name: &str, shape: &[usize]) -> Var<'_> {
        let slot = self.declare(name, SlotKind::Param, Shape::new(shape));
        self.leaf(Leaf::Slot(slot), Shape::new(shape))
    }

    /// An array that is not trained: written by the host, or by [`Graph::store`] at the end of a step.
    #[track_caller]
    pub fn state(&self, name: &str, shape: &[usize]) -> Var<'_> {
        let slot = self.declare(name, SlotKind::State, Shape::new(shape));
        self.leaf(Leaf::Slot(slot), Shape::new(shape))
    }

    /// The current batch, `[rows, columns]`: rows `cursor … cursor + rows` of the data set `name` in the epoch's
    /// order, each byte divided by 255.
    #[track_caller]
    pub fn batch(&self, name: &str, rows: usize, columns: usize) -> Var<'_> {
        let slot = self.declare(name, SlotKind::Data, Shape::new(&[0, columns]));
        self.leaf(Leaf::Batch(slot), Shape::new(&[rows, columns]))
    }

    /// Standard normal noise, N(0, 1), a pure function of (seed, step, `stream`, element); see [`crate::engine::rng`].
    #[track_caller]
    pub fn normal(&self, shape: &[usize], stream: u32) -> Var<'_> {
        self.leaf(Leaf::Normal(stream), Shape::new(shape))
    }

    /// Uniform noise in [0, 1), a pure function of (seed, step, `stream`, element).
    #[track_caller]
    pub fn uniform(&self, shape: &[usize], stream: u32) -> Var<'_> {
        self.leaf(Leaf::Uniform(stream), Shape::new(shape))
    }

    /// A scalar that changes from step to step without rebuilding anything.
    #[track_caller]
    pub fn ctl(&self, field: Ctl) -> Var<'_> {
        self.leaf(Leaf::Ctl(field), Shape::scalar())
    }

    #[track_caller]
    fn declare(&self, name: &str, kind: SlotKind, shape: Shape) -> Slot {
        let mut arena = self.arena.borrow_mut();
        if let Some(i) = arena.slots.iter().position(|s| s.name == name) {
            let known = &arena.slots[i];
            assert!(
                known.kind == kind && known.shape == shape,
                "slot {name} is {:?} {} already, and cannot also be {kind:?} {shape}",
                known.kind,
                known.shape
            );
            return Slot(i as u16);
        }
        let slot = Slot(u16::try_from(arena.slots.len()).expect("fewer than 65536 slots"));
        arena.slots.push(SlotInfo { name: name.into(), kind, shape });
        slot
    }

    /// At the end of every step, writes `value` into the state `name`. Reads within the step see the old value.
    ///
    /// # Panics
    /// When the slot has another shape or is stored to twice.
    #[track_caller]
    pub fn store(&self, name: &str, value: Var<'_>) {
        self.owns("store", value);
        let slot = self.declare(name, SlotKind::State, value.shape());
        let mut arena = self.arena.borrow_mut();
        assert!(arena.effects.stores.iter().all(|(s, _)| *s != slot), "slot {name} is stored to twice");
        arena.effects.stores.push((slot, value.id));
    }

    /// At the end of every step, adds the scalar `value` to the running sum `name`.
    #[track_caller]
    pub fn metric(&self, name: &str, value: Var<'_>) {
        self.owns("metric", value);
        assert!(value.shape().is_empty(), "metric {name} must be a scalar, its shape is {}", value.shape());
        self.arena.borrow_mut().effects.metrics.push((name.into(), value.id));
    }

    /// At the end of every step, updates each parameter with its gradient.
    #[track_caller]
    pub fn optimize(&self, rule: Optimizer, pairs: &[(Var<'_>, Var<'_>)]) {
        self.set_optimize(rule, pairs, None);
    }

    /// As [`Graph::optimize`], with every gradient multiplied by the scalar `scale`.
    #[track_caller]
    pub fn optimize_scaled(&self, rule: Optimizer, pairs: &[(Var<'_>, Var<'_>)], scale: Var<'_>) {
        self.owns("optimize", scale);
        assert!(scale.shape().is_empty(), "the gradients' scale must be a scalar, its shape is {}", scale.shape());
        self.set_optimize(rule, pairs, Some(scale.id));
    }

    #[track_caller]
    fn set_optimize(&self, rule: Optimizer, pairs: &[(Var<'_>, Var<'_>)], scale: Option<Id>) {
        let pairs = pairs.iter().map(|(param, grad)| {
            [*param, *grad].into_iter().for_each(|x| self.owns("optimize", x));
            let slot = match self.node(param.id).op {
                Op::Leaf(Leaf::Slot(slot)) if self.slot(slot).kind == SlotKind::Param => slot,
                _ => panic!("optimize: node %{} is not a parameter", param.id.0),
            };
            assert_eq!(param.shape(), grad.shape(), "optimize: parameter {} and its gradient", self.slot(slot).name);
            (slot, grad.id)
        });
        let pairs = pairs.collect();
        let mut arena = self.arena.borrow_mut();
        assert!(arena.effects.optimize.is_none(), "a graph has one optimiser; it was set already");
        arena.effects.optimize = Some(OptimizeInfo { rule, pairs, scale });
    }

    /// The nodes that `roots` need, in topological order: what is left after dead-code elimination.
    pub fn live(&self, roots: &[Id]) -> Vec<Id> {
        let arena = self.arena.borrow();
        let top = roots.iter().map(|id| id.index() + 1).max().unwrap_or(0);
        let mut wanted = vec![false; top];
        roots.iter().for_each(|id| wanted[id.index()] = true);
        for i in (0..top).rev() {
            if wanted[i] {
                arena.nodes[i].ins.iter().for_each(|id| wanted[id.index()] = true);
            }
        }
        (0..top).filter(|&i| wanted[i]).map(|i| Id(i as u32)).collect()
    }

    /// The nodes whose values a step needs: stores, metrics, gradients.
    pub fn roots(&self) -> Vec<Id> {
        let effects = self.effects();
        let mut roots: Vec<Id> = effects.stores.iter().map(|(_, id)| *id).collect();
        roots.extend(effects.metrics.iter().map(|(_, id)| *id));
        if let Some(opt) = &effects.optimize {
            roots.extend(opt.pairs.iter().map(|(_, id)| *id));
            roots.extend(opt.scale);
        }
        roots
    }
}

/// The scalars that change from step to step; see [`crate::engine::optim::Control`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ctl {
    /// The learning rate of this step.
    LearningRate,
    /// The weight β of the KL term in this step.
    Beta,
    /// The step number, as a float.
    Step,
}

impl<'g> Var<'g> {
    /// The graph this value belongs to.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// The node's index.
    pub fn id(self) -> Id {
        self.id
    }

    /// The shape of the value.
    pub fn shape(self) -> Shape {
        self.graph.arena.borrow().nodes[self.id.index()].shape
    }

    /// Checks that `other` is a value of the same graph: an index means nothing in another one.
    ///
    /// # Panics
    /// When it is not, with the lines that made both.
    #[track_caller]
    pub(crate) fn meets(self, what: &str, other: Var<'_>) {
        if !std::ptr::eq(self.graph, other.graph) {
            let at = |x: Var<'_>| x.graph.node(x.id).at;
            let (here, there) = (at(self), at(other));
            panic!("{what}: values of two graphs, {self:?} made at {here} and {other:?} made at {there}");
        }
    }

    /// The value, if this is a constant (possibly broadcast).
    pub(crate) fn as_constant(self) -> Option<f64> {
        let node = self.graph.node(self.id);
        match node.op {
            Op::Leaf(Leaf::Const(bits)) => Some(f64::from_bits(bits)),
            Op::Broadcast | Op::Reshape => self.graph.var(node.ins[0]).as_constant(),
            _ => None,
        }
    }
}

impl fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{} {}", self.id.0, self.shape())
    }
}

/// One line per node: `%12 = matmul(%3, %7) [128, 400]  src/engine/nn.rs:40`, then the effects.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arena = self.arena.borrow();
        for (i, node) in arena.nodes.iter().enumerate() {
            let slot_name = |slot: Slot| arena.slots[slot.index()].name.as_str();
            let ins: Vec<String> = node.ins.iter().map(|id| format!("%{}", id.0)).collect();
            let text = node.op.describe(&ins, slot_name);
            let line = format!("%{i} = {text}");
            writeln!(f, "{line:<52} {:<14} {}:{}", node.shape.to_string(), node.at.file(), node.at.line())?;
        }
        for (slot, id) in &arena.effects.stores {
            writeln!(f, "store {} ← %{}", arena.slots[slot.index()].name, id.0)?;
        }
        for (name, id) in &arena.effects.metrics {
            writeln!(f, "metric {name} += %{}", id.0)?;
        }
        if let Some(opt) = &arena.effects.optimize {
            let scale = opt.scale.map_or(String::new(), |id| format!(" · %{}", id.0));
            writeln!(f, "optimize {:?}{scale}", opt.rule)?;
            for (slot, id) in &opt.pairs {
                writeln!(f, "  {} with gradient %{}", arena.slots[slot.index()].name, id.0)?;
            }
        }
        Ok(())
    }
}
