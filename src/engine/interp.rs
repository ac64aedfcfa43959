//! The reference executor: evaluates nodes one by one, as they are defined, in any [`Real`].
//!
//! In f64 it is the oracle that every kernel and every plan is compared with; while a graph is being written it is
//! the debugger, because [`Interp::eval`] works at any moment on the nodes recorded so far (define-by-run).

use std::collections::HashMap;
use std::rc::Rc;

use crate::engine::error::{Error, Result};
use crate::engine::graph::{Ctl, Graph, Id, Slot, SlotInfo, SlotKind, Var};
use crate::engine::math::Real;
use crate::engine::ops::{self, Leaf, Op};
use crate::engine::optim::Control;
use crate::engine::rng::{Draw, Permutation};
use crate::engine::shape::Shape;

/// An evaluator of a graph with its own memory for the slots.
pub struct Interp<'g, F> {
    graph: &'g Graph,
    values: Vec<Option<Rc<Vec<F>>>>,
    slots: HashMap<String, Vec<F>>,
    moments: HashMap<String, (Vec<F>, Vec<F>)>,
    data: HashMap<String, (Vec<u8>, usize)>,
    sums: HashMap<String, f64>,
    /// The counters, the seed and the schedules.
    pub control: Control,
}

impl<'g, F: Real> Interp<'g, F> {
    /// An interpreter of `graph` with seed 0; slots that were not set read as zeros.
    pub fn new(graph: &'g Graph) -> Interp<'g, F> {
        Interp {
            graph,
            values: Vec::new(),
            slots: HashMap::new(),
            moments: HashMap::new(),
            data: HashMap::new(),
            sums: HashMap::new(),
            control: Control::new(0),
        }
    }

    /// Sets a parameter or state slot.
    ///
    /// # Errors
    /// [`Error::Slot`] when the graph has no such slot or its size differs.
    pub fn set(&mut self, name: &str, values: &[f64]) -> Result<()> {
        let slots = self.graph.slots();
        let known = slots.iter().find(|s| s.name == name && s.kind != SlotKind::Data);
        let problem = match known {
            None => "the graph has no parameter or state of this name".to_string(),
            Some(s) if s.shape.size() != values.len() => format!("{} numbers for shape {}", values.len(), s.shape),
            Some(_) => {
                self.slots.insert(name.into(), values.iter().map(|&v| F::from_f64(v)).collect());
                self.forget();
                return Ok(());
            }
        };
        Err(Error::Slot { name: name.into(), problem })
    }

    /// Sets a data slot to bytes, row by row.
    ///
    /// # Errors
    /// [`Error::Slot`] when the graph has no such data slot or `bytes` is not a whole number of its rows.
    pub fn set_data(&mut self, name: &str, bytes: &[u8], columns: usize) -> Result<()> {
        let slots = self.graph.slots();
        let known: Vec<&SlotInfo> = slots.iter().filter(|s| s.kind == SlotKind::Data).collect();
        let problem = match known.iter().find(|s| s.name == name) {
            None => {
                let names: Vec<&str> = known.iter().map(|s| s.name.as_str()).collect();
                format!("the graph reads no data of this name; known are {}", names.join(", "))
            }
            Some(s) if s.shape[1] != columns => format!("rows of {columns} bytes for rows of {}", s.shape[1]),
            Some(_) if columns == 0 || !bytes.len().is_multiple_of(columns) => {
                format!("{} bytes are not whole rows of {columns}", bytes.len())
            }
            Some(_) => {
                self.data.insert(name.into(), (bytes.to_vec(), columns));
                self.forget();
                return Ok(());
            }
        };
        Err(Error::Slot { name: name.into(), problem })
    }

    /// The content of a parameter or state slot, if it was set or stored to.
    pub fn get(&self, name: &str) -> Option<&[F]> {
        self.slots.get(name).map(Vec::as_slice)
    }

    /// The running sum of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.sums.get(name).copied()
    }

    /// Drops all computed values; needed after changing [`Interp::control`] by hand.
    pub fn forget(&mut self) {
        self.values.clear();
    }

    /// The value of `var`, row-major. Nodes already evaluated in this step are not evaluated again.
    ///
    /// # Panics
    /// When `var` is of another graph, a batch is read from a data slot that was not set, or an index is out of range.
    #[track_caller]
    pub fn eval(&mut self, var: Var<'g>) -> Vec<F> {
        self.graph.owns("Interp::eval", var);
        self.value(var.id()).to_vec()
    }

    fn value(&mut self, root: Id) -> Rc<Vec<F>> {
        self.values.resize(self.graph.len().max(self.values.len()), None);
        // Topological order without recursion: a long chain must not overflow the stack.
        for id in self.graph.live(&[root]) {
            if self.values[id.index()].is_none() {
                let value = self.compute(id);
                self.values[id.index()] = Some(Rc::new(value));
            }
        }
        self.values[root.index()].clone().expect("a root is live")
    }

    fn compute(&self, id: Id) -> Vec<F> {
        let node = self.graph.node(id);
        if let Op::Leaf(leaf) = node.op {
            return self.leaf(leaf, node.shape);
        }
        let inputs: Vec<Rc<Vec<F>>> =
            node.ins.iter().map(|i| self.values[i.index()].clone().expect("inputs come first")).collect();
        let slices: Vec<&[F]> = inputs.iter().map(|v| v.as_slice()).collect();
        let shapes: Vec<Shape> = node.ins.iter().map(|&i| self.graph.node(i).shape).collect();
        ops::eval(&node, &shapes, &slices)
    }

    fn leaf(&self, leaf: Leaf, shape: Shape) -> Vec<F> {
        let draw = |stream| Draw { seed: self.control.seed, step: self.control.step, stream };
        match leaf {
            Leaf::Const(bits) => vec![F::from_f64(f64::from_bits(bits))],
            Leaf::Tensor(i) => self.graph.tensor_data(i).into_iter().map(F::from_f64).collect(),
            Leaf::Slot(slot) => {
                self.slots.get(&self.graph.slot(slot).name).cloned().unwrap_or_else(|| vec![F::default(); shape.size()])
            }
            Leaf::Batch(slot) => self.batch(slot, shape),
            Leaf::Normal(stream) => (0..shape.size() as u64).map(|i| F::from_f32(draw(stream).normal(i))).collect(),
            Leaf::Uniform(stream) => (0..shape.size() as u64).map(|i| F::from_f32(draw(stream).uniform(i))).collect(),
            Leaf::Ctl(Ctl::LearningRate) => vec![F::from_f64(self.control.learning_rate())],
            Leaf::Ctl(Ctl::Beta) => vec![F::from_f64(self.control.beta())],
            Leaf::Ctl(Ctl::Step) => vec![F::from_f64(f64::from(self.control.step))],
        }
    }

    fn batch(&self, slot: Slot, shape: Shape) -> Vec<F> {
        let name = self.graph.slot(slot).name;
        let (bytes, columns) = self.data.get(&name).unwrap_or_else(|| panic!("data slot {name} was not set"));
        let rows = bytes.len() / columns;
        let order = Permutation::new(self.control.seed, self.control.epoch, rows as u32);
        let mut out = Vec::with_capacity(shape.size());
        for i in 0..shape[0] as u32 {
            let position = self.control.cursor + i;
            let row = if self.control.shuffle { order.at(position) } else { position } as usize;
            assert!(row < rows, "row {row} of data slot {name}, which has {rows}");
            let pixels = bytes[row * columns..][..*columns].iter();
            out.extend(pixels.map(|&b| F::from_f64(f64::from(b)) / F::from_f64(255.0)));
        }
        out
    }

    /// One whole step: evaluates the graph's effects, writes stores, adds metrics, updates parameters, and ticks the
    /// counters.
    pub fn step(&mut self) {
        let effects = self.graph.effects();
        let stores: Vec<(Slot, Rc<Vec<F>>)> = effects.stores.iter().map(|&(s, id)| (s, self.value(id))).collect();
        for (name, id) in &effects.metrics {
            let value = self.value(*id)[0].to_f64();
            *self.sums.entry(name.clone()).or_default() += value;
        }
        if let Some(opt) = &effects.optimize {
            let scale = opt.scale.map_or(F::from_f64(1.0), |id| self.value(id)[0]);
            let scalars = opt.rule.scalars(self.control.learning_rate(), self.control.updates + 1);
            let grads: Vec<Rc<Vec<F>>> = opt.pairs.iter().map(|&(_, id)| self.value(id)).collect();
            for (&(slot, _), g) in opt.pairs.iter().zip(&grads) {
                let name = self.graph.slot(slot).name;
                let zeros = || vec![F::default(); g.len()];
                let p = self.slots.entry(name.clone()).or_insert_with(zeros);
                let (m, v) = self.moments.entry(name).or_insert_with(|| (zeros(), zeros()));
                opt.rule.update(scalars, scale, p, g, m, v);
            }
        }
        for (slot, value) in stores {
            self.slots.insert(self.graph.slot(slot).name, value.to_vec());
        }
        self.control.tick(self.batch_rows(), effects.optimize.is_some());
        self.forget();
    }

    /// The rows of data a step reads: those of its batch, 0 without one.
    fn batch_rows(&self) -> usize {
        let live = self.graph.live(&self.graph.roots());
        let rows = live.iter().map(|&id| self.graph.node(id)).filter(|n| matches!(n.op, Op::Leaf(Leaf::Batch(_))));
        rows.map(|n| n.shape[0]).max().unwrap_or(0)
    }
}
