//! From decisions to steps: gives every value in memory a place, and writes the kernels that fill them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::fuse::{self, Fused, Fusion};
use super::program::{Access, Input, Instr, Output, Program, ProgramBuilder, Reg, partials_len};
use super::{Mem, View};
use crate::engine::graph::{Effects, Graph, Id, Slot};
use crate::engine::ops::custom::CustomOp;
use crate::engine::ops::{Leaf, Op, layout};
use crate::engine::steps::Kernel;
use crate::engine::steps::batch::Batch;
use crate::engine::steps::custom::Custom;
use crate::engine::steps::gemm::{Product, Target};
use crate::engine::steps::layout::{How, Move};
use crate::engine::steps::optimize::Optimize;
use crate::engine::steps::pointwise::Pointwise;
use crate::engine::steps::reduce::Reduce;
use crate::engine::steps::scalars::Scalars;
use crate::engine::steps::softmax::Softmax;

/// Steps in no particular order, over buffers without addresses.
pub(super) struct LoweredGraph {
    pub steps: Vec<(Arc<dyn Kernel>, String)>,
    /// (size, zeroed and unshared).
    pub buffers: Vec<(usize, bool)>,
    /// Slots that a step fills before others of the same plan read them; all other slots are read before they are
    /// written.
    pub written_first: HashSet<Slot>,
    pub effects: Effects,
    pub batch_rows: usize,
}

struct Lowering {
    f: Fused,
    effects: Effects,
    custom_ops: Vec<Arc<dyn CustomOp>>,
    place: HashMap<Id, View>,
    contiguous: HashMap<Id, View>,
    /// The partial sums of each total.
    partials: HashMap<Id, View>,
    written_first: HashSet<Slot>,
    steps: Vec<(Arc<dyn Kernel>, String)>,
    buffers: Vec<(usize, bool)>,
}

pub(super) fn lower(graph: &Graph, fusion: Fusion) -> LoweredGraph {
    let mut l = Lowering {
        f: fuse::fuse(graph, fusion),
        effects: graph.effects(),
        custom_ops: graph.custom_ops(),
        place: HashMap::new(),
        contiguous: HashMap::new(),
        partials: HashMap::new(),
        written_first: HashSet::new(),
        steps: Vec::new(),
        buffers: Vec::new(),
    };
    let gradients = l.place_gradients();
    let late_copies = l.place_stores();
    let part_copies = l.place_concatenations();
    for (id, out) in part_copies {
        l.copy(id, out);
    }
    for at in 0..l.f.live.len() {
        l.write_heavy(l.f.live[at]);
    }
    for cluster in 0..l.f.clusters.len() {
        l.write_cluster(cluster);
    }
    l.write_scalars();
    for (id, out) in late_copies {
        l.late_copy(id, out);
    }
    l.write_optimize(gradients);
    let batches = l.f.live.iter().filter(|&&id| matches!(l.f.node(id).op, Op::Leaf(Leaf::Batch(..))));
    let batch_rows = batches.map(|&id| l.f.node(id).shape[0]).max().unwrap_or(0);
    LoweredGraph { steps: l.steps, buffers: l.buffers, written_first: l.written_first, effects: l.effects, batch_rows }
}

/// Places: where values are in memory.
impl Lowering {
    fn buffer(&mut self, len: usize, persistent: bool) -> Mem {
        self.buffers.push((len, persistent));
        Mem::Buffer(self.buffers.len() as u32 - 1)
    }

    fn size_of(&self, id: Id) -> (usize, usize) {
        self.f.node(id).shape.matrix()
    }

    /// Where a computed value is, giving it a buffer on first sight.
    fn place_of(&mut self, id: Id) -> View {
        if let Some(view) = self.place.get(&id) {
            return *view;
        }
        let (rows, cols) = self.size_of(id);
        let view = View::contiguous(self.buffer(rows * cols, false), rows, cols);
        self.place.insert(id, view);
        view
    }

    /// Where any value is.
    fn view(&mut self, id: Id) -> View {
        let id = self.f.resolve(id);
        let (rows, cols) = self.size_of(id);
        match self.f.node(id).op {
            Op::Leaf(Leaf::Slot(slot)) => View::contiguous(Mem::Slot(slot), rows, cols),
            Op::Leaf(Leaf::Tensor(index)) => View::contiguous(Mem::Tensor(index), rows, cols),
            Op::SliceCols(start) => {
                let source = self.f.ins[id.index()][0];
                self.view(source).columns(start as usize, cols)
            }
            Op::Reshape if self.f.constant(id).is_none() => {
                let source = self.f.ins[id.index()][0];
                self.contiguous_view(source).reshaped(rows, cols)
            }
            _ => self.place_of(id),
        }
    }

    /// Where a value is in one piece, copying it if it is not.
    fn contiguous_view(&mut self, id: Id) -> View {
        let view = self.view(id);
        if view.is_contiguous() {
            return view;
        }
        if let Some(copy) = self.contiguous.get(&id) {
            return *copy;
        }
        let out = View::contiguous(self.buffer(view.rows * view.cols, false), view.rows, view.cols);
        self.push(Move::copy(view, out), id);
        self.contiguous.insert(id, out);
        out
    }

    /// The computed value whose whole memory `id` stands for, if there is one.
    fn computed(&self, id: Id) -> Option<Id> {
        let id = self.f.resolve(id);
        match self.f.node(id).op {
            Op::Reshape if self.f.constant(id).is_none() => self.computed(self.f.ins[id.index()][0]),
            Op::Leaf(Leaf::Slot(_) | Leaf::Tensor(_)) | Op::SliceCols(_) => None,
            _ => Some(id),
        }
    }

    /// Lets `id` be computed straight into `view`, if it has no place yet.
    fn claim(&mut self, id: Id, view: View) -> bool {
        match self.computed(id) {
            Some(base) if !self.place.contains_key(&base) => {
                let (rows, cols) = self.size_of(base);
                let fits = (view.rows, view.cols) == (rows, cols);
                self.place.insert(base, if fits { view } else { view.reshaped(rows, cols) });
                true
            }
            _ => false,
        }
    }

    /// The rule `adam`: gradients are computed straight into one flat array. Returns each parameter's gradient.
    fn place_gradients(&mut self) -> Vec<(Slot, View)> {
        let Some(opt) = self.effects.optimize.clone() else { return Vec::new() };
        if !self.f.fusion.adam {
            return Vec::new();
        }
        let total: usize = opt.pairs.iter().map(|(_, g)| self.f.node(*g).shape.size()).sum();
        let flat = self.buffer(total, false);
        let mut offset = 0;
        let mut placed = Vec::new();
        let mut copies = Vec::new();
        for (slot, g) in opt.pairs {
            let (rows, cols) = self.size_of(g);
            let view = View { offset, ..View::contiguous(flat, rows, cols) };
            offset += rows * cols;
            if !self.claim(g, view) {
                copies.push((g, view));
            }
            placed.push((slot, view));
        }
        copies.into_iter().for_each(|(g, view)| self.copy(g, view));
        placed
    }

    /// Values are computed straight into the state they are stored to, where nothing reads its old content. Returns
    /// the copies that are needed instead.
    fn place_stores(&mut self) -> Vec<(Id, View)> {
        let mut copies = Vec::new();
        for (slot, id) in self.effects.stores.clone() {
            let (rows, cols) = self.size_of(id);
            let view = View::contiguous(Mem::Slot(slot), rows, cols);
            let read = self.f.live.iter().any(|&other| self.f.node(other).op == Op::Leaf(Leaf::Slot(slot)));
            if !read && self.claim(id, view) {
                self.written_first.insert(slot);
            } else {
                copies.push((id, view));
            }
        }
        copies
    }

    /// Concatenations, from the outermost inwards: a part is computed where it belongs (rule `sample_kl`), or copied.
    fn place_concatenations(&mut self) -> Vec<(Id, View)> {
        let mut copies = Vec::new();
        for at in (0..self.f.live.len()).rev() {
            let id = self.f.live[at];
            if self.f.node(id).op != Op::ConcatCols {
                continue;
            }
            let whole = self.place_of(id);
            let (left, right) = (self.f.ins[id.index()][0], self.f.ins[id.index()][1]);
            let cols = self.size_of(left).1;
            for (part, view) in [(left, whole.columns(0, cols)), (right, whole.columns(cols, whole.cols - cols))] {
                // These write one contiguous array, never the columns of a wider one.
                let contiguous = matches!(self.f.node(part).op, Op::Sum(_) | Op::MaxOver(_) | Op::Custom(_));
                let in_place = self.f.fusion.sample_kl && self.computed(part) == Some(part) && !contiguous;
                if !(in_place && self.claim(part, view)) {
                    copies.push((part, view));
                }
            }
        }
        copies
    }
}

/// Steps.
impl Lowering {
    /// Adds a step, unless there is nothing that it would write.
    fn push(&mut self, kernel: impl Kernel + 'static, id: Id) {
        if !kernel.is_empty() {
            let at = self.f.node(id).at;
            self.steps.push((Arc::new(kernel), format!("{}:{}", at.file(), at.line())));
        }
    }

    fn copy(&mut self, id: Id, out: View) {
        let x = self.view(id);
        // A vector and a one-row matrix differ in name only; both sides agree on the rows otherwise.
        let x = if (x.rows, x.cols) == (out.rows, out.cols) { x } else { x.reshaped(out.rows, out.cols) };
        self.push(Move::copy(x, out), id);
    }

    /// Copies a value to a state at the end of the step. The old content of another state that is overwritten too goes
    /// through a buffer, so that two states can change places.
    fn late_copy(&mut self, id: Id, out: View) {
        let x = self.view(id);
        if !self.effects.stores.iter().any(|(slot, _)| x.mem == Mem::Slot(*slot)) {
            return self.copy(id, out);
        }
        let saved = View::contiguous(self.buffer(x.rows * x.cols, false), x.rows, x.cols);
        self.push(Move::copy(x, saved), id);
        self.push(Move::copy(saved.reshaped(out.rows, out.cols), out), id);
    }

    /// The kernel of a node that is not part of a cluster.
    fn write_heavy(&mut self, id: Id) {
        if self.f.resolve(id) != id {
            return;
        }
        let node = *self.f.node(id);
        let ins = self.f.ins[id.index()].clone();
        let how = match node.op {
            Op::Leaf(Leaf::Batch(slot, unit)) => {
                let out = self.place_of(id);
                return self.push(Batch { slot, unit: f32::from_bits(unit), out }, id);
            }
            Op::Leaf(Leaf::Slot(_) | Leaf::Tensor(_)) | Op::SliceCols(_) | Op::ConcatCols => return,
            Op::Reshape if self.f.constant(id).is_none() => return,
            Op::Leaf(_) | Op::Broadcast | Op::Reshape => return self.write_virtual(id),
            Op::MatMul { ta, tb } => return self.write_product(id, ta, tb),
            Op::Custom(op) => return self.write_custom(id, op),
            Op::Sum(bits) => return self.write_reduction(id, bits, false),
            Op::MaxOver(bits) => return self.write_reduction(id, bits, true),
            Op::Softmax { log } | Op::SoftmaxGrad { log } => {
                let (x, dy) = (self.view(ins[0]), ins.get(1).map(|&dy| self.view(dy)));
                let out = self.place_of(id);
                return self.push(Softmax { log, x, dy, out }, id);
            }
            Op::PadCols(start) => How::Pad { start: start as usize },
            Op::Transpose => How::Transpose,
            Op::GatherRows => How::Gather,
            Op::ScatterRows => How::Scatter,
            Op::Pick => How::Pick,
            Op::Place => How::Place,
            Op::Scalar(_) | Op::Pow(_) | Op::Binary(_) | Op::Select | Op::StopGradient | Op::CustomVjp(_) => return,
        };
        let mut x = self.view(ins[0]);
        let lookup = layout::lookup(id.index(), &node, self.f.node(ins[0]).shape);
        let index = lookup.map(|lookup| (self.contiguous_view(ins[1]), lookup));
        let mut out = self.place_of(id);
        // A vector with a number for each row of the other operand is a column beside it.
        match how {
            How::Pick => out = out.reshaped(x.rows, 1),
            How::Place => x = x.reshaped(out.rows, 1),
            _ => {}
        }
        self.push(Move { how, x, index, out }, id);
    }

    /// A constant, a changing scalar, noise or a broadcast that a heavy node wants in memory.
    fn write_virtual(&mut self, id: Id) {
        if !self.f.stored[id.index()] {
            return;
        }
        let out = self.place_of(id);
        let node = *self.f.node(id);
        let source = self.f.ins[id.index()].first().copied();
        let mut b = ProgramBuilder::default();
        let reg = match (node.op, self.f.constant(id), source) {
            (_, Some(value), _) => b.emit(|dst| Instr::Const { dst, bits: (value as f32).to_bits() }),
            (Op::Leaf(Leaf::Ctl(field)), ..) => b.emit(|dst| Instr::Ctl { dst, field }),
            (Op::Leaf(Leaf::Normal(stream)), ..) => b.emit(|dst| Instr::Noise { dst, normal: true, stream }),
            (Op::Leaf(Leaf::Uniform(stream)), ..) => b.emit(|dst| Instr::Noise { dst, normal: false, stream }),
            (_, _, Some(source)) => {
                let (from, to) = (self.f.node(source).shape, node.shape);
                let Some(access) = fuse::access(&from, &to) else {
                    let x = self.contiguous_view(source);
                    return self.push(Move { how: How::Broadcast { from, to }, x, index: None, out }, id);
                };
                let view = self.view(source);
                b.load(Input { view, access })
            }
            _ => unreachable!("{:?} is not virtual", node.op),
        };
        b.output(Output::Store { reg, view: out });
        self.push(Pointwise(b.finish(out.rows, out.cols)), id);
    }

    fn write_product(&mut self, id: Id, ta: bool, tb: bool) {
        if self.f.clusters.iter().any(|c| c.product == Some(id)) {
            return;
        }
        let out = Target::Store(self.place_of(id));
        let product = self.product(id, ta, tb, out);
        self.push(product, id);
    }

    fn write_custom(&mut self, id: Id, op: u32) {
        let (ins, value) = (self.f.ins[id.index()].clone(), self.f.node(id).shape);
        let inputs = ins.iter().map(|&i| (self.contiguous_view(i), self.f.node(i).shape)).collect();
        let out = self.place_of(id);
        self.push(Custom { op: self.custom_ops[op as usize].clone(), inputs, out, value }, id);
    }

    fn product(&mut self, id: Id, ta: bool, tb: bool, out: Target) -> Product {
        let (a, b) = (self.f.ins[id.index()][0], self.f.ins[id.index()][1]);
        let (a, b) = (self.view(a), self.view(b));
        let (m, n) = self.size_of(id);
        let k = if ta { a.rows } else { a.cols };
        let rider = self.f.riders.iter().find(|(_, product)| *product == id).map(|(sum, _)| *sum);
        let col_sums = rider.map(|sum| self.place_of(sum));
        Product { mnk: (m, n, k), transposed: (ta, tb), a, b, out, col_sums }
    }

    /// Sums or maxima over the axes `bits`: one step per run of neighbouring axes, last run first.
    fn write_reduction(&mut self, id: Id, bits: u8, max: bool) {
        let rides = self.f.riders.iter().any(|(sum, _)| *sum == id);
        if rides || (!max && self.f.is_scalar(id)) {
            return;
        }
        let source = self.f.ins[id.index()][0];
        let mut dims = self.f.node(source).shape.to_vec();
        let mut x = self.contiguous_view(source);
        let reduced_axis = |axis: usize, dims: &[usize]| bits >> axis & 1 == 1 && dims[axis] != 1;
        while let Some(last) = (0..dims.len()).rev().find(|&axis| reduced_axis(axis, &dims)) {
            let mut first = last;
            while first > 0 && (bits >> (first - 1) & 1 == 1 || dims[first - 1] == 1) {
                first -= 1;
            }
            let outer: usize = dims[..first].iter().product();
            let reduced: usize = dims[first..=last].iter().product();
            let inner: usize = dims[last + 1..].iter().product();
            dims[first..=last].fill(1);
            let done = !(0..dims.len()).any(|axis| reduced_axis(axis, &dims));
            let out = if done {
                self.place_of(id)
            } else {
                View::contiguous(self.buffer(outer * inner, false), outer, inner)
            };
            self.push(Reduce { max, x, out, sizes: (outer, reduced, inner) }, id);
            x = out;
        }
    }

    /// The kernel of a group of pointwise values: on its own, or as the epilogue of its product.
    fn write_cluster(&mut self, cluster: usize) {
        let c = &self.f.clusters[cluster];
        let Some(shape) = c.shape.filter(|s| s.size() != 1) else { return };
        let Some(&anchor) = c.stored.first().or(c.sums.first().map(|(sum, _)| sum)) else { return };
        let product = c.product;
        let (rows, cols) = shape.matrix();
        let program = self.program(cluster, rows, cols);
        match product.map(|id| (id, self.f.node(id).op)) {
            Some((id, Op::MatMul { ta, tb })) => {
                let product = self.product(id, ta, tb, Target::Program(program));
                self.push(product, id);
            }
            _ => self.push(Pointwise(program), anchor),
        }
    }

    fn program(&mut self, cluster: usize, rows: usize, cols: usize) -> Program {
        let mut b = ProgramBuilder::default();
        let mut known = HashMap::new();
        for id in self.f.clusters[cluster].stored.clone() {
            let reg = self.operand(&mut b, cluster, id, &mut known);
            let view = self.place_of(id);
            b.output(Output::Store { reg, view });
        }
        for (sum, source) in self.f.clusters[cluster].sums.clone() {
            let reg = self.operand(&mut b, cluster, source, &mut known);
            let len = partials_len(rows, cols);
            let partials = View::contiguous(self.buffer(len, true), 1, len);
            b.output(Output::Sum { reg, partials });
            self.partials.insert(sum, partials);
        }
        if self.f.fusion.bce {
            b.pair_softplus_sigmoid();
        }
        b.finish(rows, cols)
    }

    /// The register that holds `id` in a program of `cluster`.
    fn operand(&mut self, b: &mut ProgramBuilder, cluster: usize, id: Id, known: &mut HashMap<Id, Reg>) -> Reg {
        if let Some(&reg) = known.get(&id) {
            return reg;
        }
        let node = *self.f.node(id);
        let ins = self.f.ins[id.index()].clone();
        let reg = if self.f.clusters[cluster].product == Some(id) {
            b.emit(|dst| Instr::Acc { dst })
        } else if let Some(value) = self.f.constant(id) {
            b.emit(|dst| Instr::Const { dst, bits: (value as f32).to_bits() })
        } else if self.f.computes(cluster, id) {
            let x: Vec<Reg> = ins.iter().map(|&i| self.operand(b, cluster, i, known)).collect();
            match node.op {
                Op::Scalar(f) => b.emit(|dst| Instr::Unary { dst, f, a: x[0] }),
                Op::Pow(bits) => b.emit(|dst| Instr::Pow { dst, a: x[0], bits }),
                Op::Binary(f) => b.emit(|dst| Instr::Binary { dst, f, a: x[0], b: x[1] }),
                Op::Select => b.emit(|dst| Instr::Select { dst, q: x[0], a: x[1], b: x[2] }),
                op => unreachable!("{op:?} is not pointwise"),
            }
        } else {
            self.virtual_operand(b, cluster, id, known)
        };
        known.insert(id, reg);
        reg
    }

    /// The register of a value that the program's cluster does not compute.
    fn virtual_operand(&mut self, b: &mut ProgramBuilder, cluster: usize, id: Id, known: &mut HashMap<Id, Reg>) -> Reg {
        let node = *self.f.node(id);
        let is_virtual = self.f.is_virtual(id);
        match node.op {
            Op::Leaf(Leaf::Ctl(field)) => b.emit(|dst| Instr::Ctl { dst, field }),
            Op::Leaf(Leaf::Normal(stream)) if is_virtual => b.emit(|dst| Instr::Noise { dst, normal: true, stream }),
            Op::Leaf(Leaf::Uniform(stream)) if is_virtual => b.emit(|dst| Instr::Noise { dst, normal: false, stream }),
            Op::Broadcast if is_virtual => {
                let source = self.f.ins[id.index()][0];
                if self.f.is_scalar(source) {
                    return self.operand(b, cluster, source, known);
                }
                let access =
                    fuse::access(&self.f.node(source).shape, &node.shape).expect("virtual broadcasts have one");
                let view = self.view(source);
                b.load(Input { view, access })
            }
            _ => {
                let access = if self.f.is_scalar(id) { Access::Scalar } else { Access::Full };
                let view = self.view(id);
                b.load(Input { view, access })
            }
        }
    }

    /// Totals, arithmetic on scalars and metrics: one step per level that needs one, and a last one for everything
    /// that only effects want.
    fn write_scalars(&mut self) {
        let mut groups: BTreeMap<Option<u32>, (Vec<Id>, Vec<usize>)> = BTreeMap::new();
        let key = |f: &Fused, id: Id| if f.deferred[id.index()] { None } else { Some(f.level[id.index()]) };
        for &id in &self.f.live {
            if self.f.is_total(id) {
                groups.entry(key(&self.f, id)).or_default().0.push(id);
            }
        }
        for (number, cluster) in self.f.clusters.iter().enumerate() {
            if let (Some(1), Some(&first)) = (cluster.shape.map(|s| s.size()), cluster.stored.first()) {
                groups.entry(key(&self.f, first)).or_default().1.push(number);
            }
        }
        if !self.effects.totals.is_empty() {
            groups.entry(None).or_default();
        }
        for (level, (sums, clusters)) in groups {
            let totals: Vec<(View, View)> = sums.iter().map(|id| (self.partials[id], self.place_of(*id))).collect();
            let anchor = sums.first().copied().or_else(|| clusters.first().map(|&c| self.f.clusters[c].stored[0]));
            let mut b = ProgramBuilder::default();
            for cluster in clusters {
                let mut known = HashMap::new();
                for id in self.f.clusters[cluster].stored.clone() {
                    let reg = self.operand(&mut b, cluster, id, &mut known);
                    let view = self.place_of(id);
                    b.output(Output::Store { reg, view });
                }
            }
            let metrics = if level.is_none() { self.effects.totals.clone() } else { Vec::new() };
            let anchor = anchor.or(metrics.first().copied()).expect("a group has a member");
            let metrics = metrics.iter().enumerate().map(|(i, id)| (self.view(*id), i)).collect();
            self.push(Scalars { totals, program: b.finish(1, 1), metrics }, anchor);
        }
    }

    fn write_optimize(&mut self, mut gradients: Vec<(Slot, View)>) {
        let Some(opt) = self.effects.optimize.clone() else { return };
        let scale = opt.scale.map(|id| self.view(id));
        let Some(&(_, anchor)) = opt.pairs.first() else { return };
        if self.f.fusion.adam {
            return self.push(Optimize { rule: opt.rule, params: gradients, scale }, anchor);
        }
        gradients.extend(opt.pairs.iter().map(|&(slot, g)| (slot, self.contiguous_view(g))));
        for (pair, &(_, g)) in gradients.into_iter().zip(&opt.pairs) {
            self.push(Optimize { rule: opt.rule, params: vec![pair], scale }, g);
        }
    }
}
