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

#[cfg(feature = "cuda")]
mod composed;
mod effects;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

pub(crate) use effects::Place;
pub use effects::{Effects, IntoRate, OptimizeInfo, Rate};

use crate::engine::ops::custom::{CustomOp, CustomRule};
use crate::engine::ops::{Leaf, Op};
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

/// Memory that outlives a step: a parameter, a state, a data set, or an input or output of a function.
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
    /// A trainable f32 array inside the flat parameter buffer of a [`State`](crate::engine::device::State).
    Param,
    /// An f32 array of a [`State`](crate::engine::device::State) that [`Graph::store`] writes and no optimiser moves.
    Buffer,
    /// A resident data set of a [`State`](crate::engine::device::State), `[rows, columns]`; the number of rows is known when
    /// it is loaded.
    Data,
    /// An input or an output, an f32 array that belongs to one [`Function`](crate::engine::device::Function).
    Cell,
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

#[derive(Clone, Default)]
struct Arena {
    nodes: Vec<Node>,
    known: HashMap<(Op, Ins, Shape), Id>,
    slots: Vec<SlotInfo>,
    schedules: Vec<String>,
    tensors: Vec<Vec<f64>>,
    rules: Vec<CustomRule>,
    custom_ops: Vec<Arc<dyn CustomOp>>,
    effects: Effects,
}

/// The most schedules of a graph: as many numbers of the caller's are handed to a step.
pub const MOST_SCHEDULES: usize = 4;

/// The arena of nodes, with its slots and effects. Handles ([`Var`]) borrow it; nothing is reference counted.
#[derive(Clone, Default)]
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
        self.push_at(op, ins, shape, Location::caller())
    }

    /// [`Graph::push`] of a node that was made at another line: that of the operation whose gradient it is.
    #[track_caller]
    pub(crate) fn push_at(&self, op: Op, ins: &[Var<'_>], shape: Shape, at: &'static Location<'static>) -> Var<'_> {
        for x in ins {
            ins[0].meets(op.name(), *x);
        }
        let ids: Vec<Id> = ins.iter().map(|x| x.id).collect();
        self.var(self.push_node(Node { op, ins: Ins::new(&ids), shape, at }))
    }

    fn push_node(&self, node: Node) -> Id {
        let mut arena = self.arena.borrow_mut();
        let key = (node.op, node.ins, node.shape);
        if let Some(&id) = arena.known.get(&key) {
            return id;
        }
        let id = Id(u32::try_from(arena.nodes.len()).expect("fewer than 2^32 nodes"));
        arena.nodes.push(node);
        arena.known.insert(key, id);
        id
    }

    /// Checks that `x` is a value of this graph: an index means nothing in another one.
    ///
    /// # Panics
    /// When it is not, with the lines that made `x` and the first value of this graph.
    #[track_caller]
    pub(crate) fn owns(&self, what: &str, x: Var<'_>) {
        if !std::ptr::eq(self, x.graph) {
            let first = if self.is_empty() { "nowhere yet".into() } else { self.node(Id(0)).at.to_string() };
            panic!("{what}: {} is a value of another graph than this one, which begins at {first}", x.made());
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

    /// `y` under another name, differentiated by a rule of its own.
    #[track_caller]
    pub(crate) fn with_rule(&self, y: Var<'_>, rule: CustomRule) -> Var<'_> {
        let index = {
            let mut arena = self.arena.borrow_mut();
            arena.rules.push(rule);
            arena.rules.len() as u32 - 1
        };
        self.push(Op::CustomVjp(index), &[y], y.shape())
    }

    /// Custom rule number `index`. A clone, so that the rule can push to the graph.
    pub(crate) fn rule(&self, index: u32) -> CustomRule {
        self.arena.borrow().rules[index as usize].clone()
    }

    /// An operation of one's own.
    #[track_caller]
    pub(crate) fn with_op(&self, op: Arc<dyn CustomOp>, inputs: &[Var<'_>], shape: Shape) -> Var<'_> {
        let index = {
            let mut arena = self.arena.borrow_mut();
            arena.custom_ops.push(op);
            arena.custom_ops.len() as u32 - 1
        };
        self.push(Op::Custom(index), inputs, shape)
    }

    /// Operation of one's own number `index`.
    pub(crate) fn custom_op(&self, index: u32) -> Arc<dyn CustomOp> {
        self.arena.borrow().custom_ops[index as usize].clone()
    }

    /// All operations of one's own, by number.
    pub(crate) fn custom_ops(&self) -> Vec<Arc<dyn CustomOp>> {
        self.arena.borrow().custom_ops.clone()
    }

    /// The values that the reverse pass goes on to from node `id`: its inputs, or those of its custom rule.
    pub(crate) fn differentiated(&self, id: Id) -> Vec<Id> {
        let node = self.node(id);
        match node.op {
            Op::CustomVjp(rule) => self.rule(rule).inputs,
            _ => node.ins.to_vec(),
        }
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
        assert!(shape.size() == data.len(), "tensor of shape {shape} from {} numbers", data.len());
        let index = {
            let mut arena = self.arena.borrow_mut();
            arena.tensors.push(data.to_vec());
            arena.tensors.len() as u32 - 1
        };
        self.leaf(Leaf::Tensor(index), shape)
    }

    /// A trainable array, by the name under which a [`State`](crate::engine::device::State) holds it.
    #[track_caller]
    pub fn param(&self, name: &str, shape: &[usize]) -> Var<'_> {
        let slot = self.declare(name, SlotKind::Param, Shape::new(shape));
        self.leaf(Leaf::Slot(slot), Shape::new(shape))
    }

    /// An array of a [`State`](crate::engine::device::State) that is not trained: running statistics, an average of a
    /// parameter. [`Graph::store`] writes it at the end of a step.
    #[track_caller]
    pub fn buffer(&self, name: &str, shape: &[usize]) -> Var<'_> {
        let slot = self.declare(name, SlotKind::Buffer, Shape::new(shape));
        self.leaf(Leaf::Slot(slot), Shape::new(shape))
    }

    /// An input of a function, written by its caller. Inputs are numbered in the order in which they are made.
    #[track_caller]
    pub fn input(&self, shape: &[usize]) -> Var<'_> {
        let name = format!("input {}", self.inputs().len());
        let slot = self.declare(&name, SlotKind::Cell, Shape::new(shape));
        self.leaf(Leaf::Slot(slot), Shape::new(shape))
    }

    /// The inputs, in their order.
    pub(crate) fn inputs(&self) -> Vec<Slot> {
        let arena = self.arena.borrow();
        let outputs = &arena.effects.outputs;
        let cell = |i: &usize| arena.slots[*i].kind == SlotKind::Cell;
        let slots = (0..arena.slots.len()).filter(cell).map(|i| Slot(i as u16));
        slots.filter(|&slot| !outputs.contains(&Place::Cell(slot))).collect()
    }

    /// The current batch, `[rows, columns]`: rows `cursor … cursor + rows` of the data set `name` in the epoch's
    /// order, as they are; see [`Graph::batch_in_units`].
    #[track_caller]
    pub fn batch(&self, name: &str, rows: usize, columns: usize) -> Var<'_> {
        self.batch_in_units(name, rows, columns, 1.0)
    }

    /// As [`Graph::batch`], each number divided by `unit` (in f32): 255 makes pixels of bytes.
    #[track_caller]
    pub fn batch_in_units(&self, name: &str, rows: usize, columns: usize, unit: f32) -> Var<'_> {
        let slot = self.declare(name, SlotKind::Data, Shape::new(&[0, columns]));
        self.leaf(Leaf::Batch(slot, unit.to_bits()), Shape::new(&[rows, columns]))
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

    /// A scalar that the caller of a function computes for every step: a learning rate, the weight of a term, a
    /// temperature. It can change without rebuilding anything.
    ///
    /// # Panics
    /// With more than [`MOST_SCHEDULES`] names.
    #[track_caller]
    pub fn schedule(&self, name: &str) -> Var<'_> {
        let index = {
            let mut arena = self.arena.borrow_mut();
            let known = arena.schedules.iter().position(|s| s == name);
            known.unwrap_or_else(|| {
                arena.schedules.push(name.into());
                arena.schedules.len() - 1
            })
        };
        assert!(index < MOST_SCHEDULES, "schedule {name} is one too many: a graph has at most {MOST_SCHEDULES}");
        self.leaf(Leaf::Ctl(Ctl::Schedule(index as u8)), Shape::scalar())
    }

    /// The names of the schedules, in the order of their first mention.
    pub fn schedules(&self) -> Vec<String> {
        self.arena.borrow().schedules.clone()
    }

    /// The number of the step, as a float.
    #[track_caller]
    pub fn step_number(&self) -> Var<'_> {
        self.leaf(Leaf::Ctl(Ctl::Step), Shape::scalar())
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

    /// (rows that a step reads of its data sets, 0 without a batch; the names of these sets).
    pub(crate) fn batches(&self) -> (usize, Vec<String>) {
        let (mut rows, mut names) = (0, Vec::new());
        for id in self.live(&self.roots()) {
            let node = self.node(id);
            if let Op::Leaf(Leaf::Batch(slot, _)) = node.op {
                rows = rows.max(node.shape[0]);
                let name = self.slot(slot).name;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        (rows, names)
    }

    /// The slots that a step reads or writes, in the order in which the graph made them.
    pub(crate) fn slots_in_use(&self) -> Vec<SlotInfo> {
        let effects = self.effects();
        let mut used: BTreeSet<Slot> = effects.stores.iter().map(|(slot, _)| *slot).collect();
        used.extend(effects.optimize.iter().flat_map(|optimize| &optimize.pairs).map(|(slot, _)| *slot));
        let live = self.live(&self.roots());
        used.extend(live.into_iter().filter_map(|id| match self.node(id).op {
            Op::Leaf(Leaf::Slot(slot) | Leaf::Batch(slot, _)) => Some(slot),
            _ => None,
        }));
        used.into_iter().map(|slot| self.slot(slot)).collect()
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
}

/// The scalars that change from step to step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ctl {
    /// The schedule of this number.
    Schedule(u8),
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
            panic!("{what}: values of two graphs, {} and {}", self.made(), other.made());
        }
    }

    /// The value and the line that made it, for messages: `%3 [2, 4] made at src/main.rs:7:13`.
    pub(crate) fn made(self) -> String {
        format!("{self:?} made at {}", self.graph.node(self.id).at)
    }

    /// Checks that `other` has the shape of this value; `what` says where and which two they are.
    ///
    /// # Panics
    /// When it has not, with the lines that made both.
    #[track_caller]
    pub(crate) fn has_shape_of(self, what: &str, other: Var<'_>) {
        assert!(self.shape() == other.shape(), "{what} differ in shape: {} and {}", self.made(), other.made());
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

/// One line per node: `%12 = matmul(%3, %7) [128, 400]  src/main.rs:40`, then the effects.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arena = self.arena.borrow();
        for (i, node) in arena.nodes.iter().enumerate() {
            let slot_name = |slot: Slot| arena.slots[slot.index()].name.as_str();
            let mut ins = node.ins.to_vec();
            if let Op::CustomVjp(rule) = node.op {
                ins.extend(&arena.rules[rule as usize].inputs);
            }
            let ins: Vec<String> = ins.iter().map(|id| format!("%{}", id.0)).collect();
            let text = match node.op {
                Op::Leaf(Leaf::Ctl(Ctl::Schedule(index))) => format!("schedule {}", arena.schedules[index as usize]),
                Op::Custom(op) => format!("{}({})", arena.custom_ops[op as usize].name(), ins.join(", ")),
                op => op.describe(&ins, slot_name),
            };
            let line = format!("%{i} = {text}");
            writeln!(f, "{line:<52} {:<14} {}:{}", node.shape.to_string(), node.at.file(), node.at.line())?;
        }
        for (slot, id) in &arena.effects.stores {
            writeln!(f, "store {} ← %{}", arena.slots[slot.index()].name, id.0)?;
        }
        for id in &arena.effects.totals {
            writeln!(f, "total += %{}", id.0)?;
        }
        if let Some(opt) = &arena.effects.optimize {
            let scale = opt.scale.map_or(String::new(), |id| format!(" · %{}", id.0));
            writeln!(f, "optimize {:?} at rate {}{scale}", opt.rule, opt.rate.describe(&arena.schedules))?;
            for (slot, id) in &opt.pairs {
                writeln!(f, "  {} with gradient %{}", arena.slots[slot.index()].name, id.0)?;
            }
        }
        Ok(())
    }
}
