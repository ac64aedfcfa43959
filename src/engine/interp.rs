//! The reference executor: evaluates nodes one by one, as they are defined, in any [`Real`].
//!
//! In f64 it is the oracle that every kernel and every plan is compared with; while a graph is being written it is
//! the debugger, because [`Interp::eval`] works at any moment on the nodes recorded so far (define-by-run). As
//! [`Interpreter`] it is a back end beside the CPU and the GPU.

mod backend;

use std::rc::Rc;

pub use backend::Interpreter;
use backend::Memories;

use crate::engine::device::memory::check_size;
use crate::engine::device::{Key, Memory, Rows, Values};
use crate::engine::error::{Error, Result};
use crate::engine::graph::{Ctl, Graph, Id, MOST_SCHEDULES, Rate, Slot, SlotInfo, SlotKind, Var};
use crate::engine::math::Real;
use crate::engine::ops::{self, Leaf, Op};
use crate::engine::optim::UpdateScalars;
use crate::engine::rng::{Draw, Permutation};
use crate::engine::shape::Shape;

/// An evaluator of a graph with its own memory for the slots.
pub struct Interp<'g, F> {
    graph: &'g Graph,
    values: Vec<Option<Rc<Vec<F>>>>,
    memory: Memories<F>,
    /// By number.
    schedules: [F; MOST_SCHEDULES],
    key: Key,
    rows: Rows,
    updates: u64,
    /// The first index met that names no row or column.
    bad_index: Option<Error>,
}

impl<'g, F: Real> Interp<'g, F> {
    /// An interpreter of `graph` at step 0 under seed 0, on the first rows of its data; slots that were not set read as
    /// zeros, and so do schedules.
    pub fn new(graph: &'g Graph) -> Interp<'g, F> {
        Interp::on(graph, Memories::default())
    }

    fn on(graph: &'g Graph, memory: Memories<F>) -> Interp<'g, F> {
        Interp {
            graph,
            values: Vec::new(),
            memory,
            schedules: [F::default(); MOST_SCHEDULES],
            key: Key::default(),
            rows: Rows::default(),
            updates: 0,
            bad_index: None,
        }
    }

    /// Sets a parameter, a buffer, or an input by its name in the graph.
    ///
    /// # Errors
    /// [`Error::Slot`] when the graph has none of this name or its size differs.
    pub fn set(&mut self, name: &str, values: &[f64]) -> Result<()> {
        let slots = self.graph.slots();
        let known = slots.iter().find(|s| s.name == name && s.kind != SlotKind::Data);
        let missing = || Error::Slot { name: name.into(), problem: "the graph has no array of this name".into() };
        check_size(name, values.len(), known.ok_or_else(missing)?.shape)?;
        self.memory.slots.insert(name.into(), values.iter().map(|&v| F::from_f64(v)).collect());
        self.values.clear();
        Ok(())
    }

    /// Sets an input of the graph.
    ///
    /// # Panics
    /// When `input` is none, or `values` has another size.
    #[track_caller]
    pub fn set_input(&mut self, input: Var<'g>, values: &[f64]) {
        self.graph.owns("Interp::set_input", input);
        match self.graph.node(input.id()).op {
            Op::Leaf(Leaf::Slot(slot)) => self.set(&self.graph.slot(slot).name, values).expect("as many numbers"),
            _ => panic!("{input:?} is no input"),
        }
    }

    /// Sets a data set, row by row.
    ///
    /// # Errors
    /// [`Error::Slot`] when the numbers are not whole rows, or the graph reads no data of this name, or in other rows.
    pub fn load<'a>(&mut self, name: &str, values: impl Into<Values<'a>>, columns: usize) -> Result<()> {
        let slots: Vec<SlotInfo> = self.graph.slots().into_iter().filter(|s| s.kind == SlotKind::Data).collect();
        let wrong = |problem: String| Err(Error::Slot { name: name.into(), problem });
        match slots.iter().find(|s| s.name == name) {
            Some(slot) if slot.shape[1] == columns => {}
            Some(slot) => {
                return wrong(format!("rows of {columns} numbers, where the graph reads rows of {}", slot.shape[1]));
            }
            None => {
                let known: Vec<&str> = slots.iter().map(|s| s.name.as_str()).collect();
                return wrong(format!("the graph reads no data of this name; known are {}", known.join(", ")));
            }
        }
        self.values.clear();
        self.memory.load(name, values.into(), columns)
    }

    /// The content of a parameter or buffer, if it was set or stored to.
    pub fn get(&self, name: &str) -> Option<&[F]> {
        self.memory.slots.get(name).map(Vec::as_slice)
    }

    /// Goes to a step: the key of its noise, and the rows of its batches.
    pub fn at(&mut self, key: Key, rows: Rows) {
        self.values.clear();
        (self.key, self.rows) = (key, rows);
    }

    /// Where it stands.
    pub fn position(&self) -> (Key, Rows) {
        (self.key, self.rows)
    }

    /// Sets the value of a schedule.
    ///
    /// # Panics
    /// When the graph has no schedule of this name.
    #[track_caller]
    pub fn schedule(&mut self, name: &str, value: f64) {
        let index = self.graph.schedules().iter().position(|s| s == name);
        self.schedules[index.unwrap_or_else(|| panic!("the graph has no schedule {name}"))] = F::from_f64(value);
        self.values.clear();
    }

    /// The value of `var`, row-major. Nodes already evaluated in this step are not evaluated again.
    ///
    /// # Panics
    /// When `var` is of another graph, a batch is read from a data set that was not loaded, or an index is out of range.
    #[track_caller]
    pub fn eval(&mut self, var: Var<'g>) -> Vec<F> {
        self.graph.owns("Interp::eval", var);
        let value = self.value(var.id()).to_vec();
        self.check_indices();
        value
    }

    #[track_caller]
    fn check_indices(&mut self) {
        if let Some(error) = self.bad_index.take() {
            panic!("{error}");
        }
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

    fn compute(&mut self, id: Id) -> Vec<F> {
        let node = self.graph.node(id);
        if let Op::Leaf(leaf) = node.op {
            return self.leaf(leaf, node.shape);
        }
        let inputs: Vec<Rc<Vec<F>>> =
            node.ins.iter().map(|i| self.values[i.index()].clone().expect("inputs come first")).collect();
        let slices: Vec<&[F]> = inputs.iter().map(|v| v.as_slice()).collect();
        let shapes: Vec<Shape> = node.ins.iter().map(|&i| self.graph.node(i).shape).collect();
        if self.bad_index.is_none() && !shapes.is_empty() {
            let lookup = ops::layout::lookup(id.index(), &node, shapes[0]);
            self.bad_index = lookup.and_then(|lookup| ops::layout::bad_index(lookup, slices[1]));
        }
        match node.op {
            Op::Custom(op) => ops::custom::eval(&*self.graph.custom_op(op), node.shape, &shapes, &slices),
            _ => ops::eval(&node, &shapes, &slices),
        }
    }

    fn leaf(&self, leaf: Leaf, shape: Shape) -> Vec<F> {
        let draw = |stream| Draw { seed: self.key.seed, step: self.key.step, stream };
        match leaf {
            Leaf::Const(bits) => vec![F::from_f64(f64::from_bits(bits))],
            Leaf::Tensor(i) => self.graph.tensor_data(i).into_iter().map(F::from_f64).collect(),
            Leaf::Slot(slot) => {
                let known = self.memory.slots.get(&self.graph.slot(slot).name);
                known.cloned().unwrap_or_else(|| vec![F::default(); shape.size()])
            }
            Leaf::Batch(slot, unit) => self.batch(slot, f32::from_bits(unit), shape),
            Leaf::Normal(stream) => (0..shape.size() as u64).map(|i| F::from_f32(draw(stream).normal(i))).collect(),
            Leaf::Uniform(stream) => (0..shape.size() as u64).map(|i| F::from_f32(draw(stream).uniform(i))).collect(),
            Leaf::Ctl(Ctl::Schedule(index)) => vec![self.schedules[index as usize]],
            Leaf::Ctl(Ctl::Step) => vec![F::from_f64(f64::from(self.key.step))],
        }
    }

    fn batch(&self, slot: Slot, unit: f32, shape: Shape) -> Vec<F> {
        let (name, columns) = (self.graph.slot(slot).name, shape[1]);
        let data = self.memory.data.get(&name, columns).unwrap_or_else(|e| panic!("{e}"));
        let rows = data.len() / columns.max(1);
        let order = Permutation::new(self.key.seed, self.rows.epoch, rows as u32);
        let mut out = Vec::with_capacity(shape.size());
        for i in 0..shape[0] as u32 {
            let position = self.rows.cursor + i;
            let row = if self.rows.shuffle { order.at(position) } else { position } as usize;
            assert!(row < rows, "row {row} of data set {name}, which has {rows}");
            out.extend(data[row * columns..][..columns].iter().map(|&x| x / F::from_f32(unit)));
        }
        out
    }

    /// One whole step: evaluates the graph's effects, writes buffers, moves parameters, and goes on to the next step. A
    /// rate that is a schedule is the value that was set.
    ///
    /// # Panics
    /// As [`Interp::eval`].
    #[track_caller]
    pub fn step(&mut self) {
        let update = self.graph.effects().optimize.map(|o| match o.rate {
            Rate::Constant(rate) => o.rule.scalars(rate, self.updates as u32 + 1),
            Rate::Schedule(i) => o.rule.scalars(self.schedules[i as usize].to_f64(), self.updates as u32 + 1),
        });
        self.finish(update, &mut []);
        self.check_indices();
        self.key.step = self.key.step.wrapping_add(1);
        self.rows.cursor += self.graph.batches().0 as u32;
    }

    /// The effects of a step: `totals` receives what is added up.
    fn finish(&mut self, update: Option<UpdateScalars>, totals: &mut [f64]) {
        let effects = self.graph.effects();
        let stores: Vec<(Slot, Rc<Vec<F>>)> = effects.stores.iter().map(|&(s, id)| (s, self.value(id))).collect();
        for (total, id) in totals.iter_mut().zip(&effects.totals) {
            *total += self.value(*id)[0].to_f64();
        }
        if let (Some(opt), Some(scalars)) = (&effects.optimize, update) {
            let scale = opt.scale.map_or(F::from_f64(1.0), |id| self.value(id)[0]);
            let grads: Vec<Rc<Vec<F>>> = opt.pairs.iter().map(|&(_, id)| self.value(id)).collect();
            for (&(slot, _), g) in opt.pairs.iter().zip(&grads) {
                let name = self.graph.slot(slot).name;
                let zeros = || vec![F::default(); g.len()];
                let p = self.memory.slots.entry(name.clone()).or_insert_with(zeros);
                let [m, v] = self.memory.moments.entry(name).or_insert_with(|| [zeros(), zeros()]);
                opt.rule.update(scalars, scale, p, g, m, v);
            }
            self.updates += 1;
        }
        for (slot, value) in stores {
            self.memory.slots.insert(self.graph.slot(slot).name, value.to_vec());
        }
        self.values.clear();
    }
}
