//! What is computed where: the fusion rules.
//!
//! Nodes come in two sorts. *Heavy* ones (products, reductions, moves) are kernels of their own. *Pointwise* ones have
//! one value per element of one shape, and between two heavy nodes they can run together. Let level(node) be the
//! number of heavy nodes on the longest path that leads to it. Pointwise nodes of one shape and one level can run in one
//! kernel without ever waiting for each other, because a path between two of them that left the kernel would have to
//! pass through a heavy node, and that raises the level.
//!
//! | rule | what it does | its algebra |
//! |---|---|---|
//! | `pointwise` | nodes of one level and shape that share values become one program; a value whose operands are in memory anyway is computed again instead of stored | f(x) = f(x) |
//! | `linear` | a program whose level begins with a matrix product runs as its epilogue: bias and activation in forward, the activation's derivative and the likelihood in backward | act(A·B + b) tile by tile |
//! | `linear_grads` | the column sums of dY, which are the bias's gradient, ride along with dW = Xᵀ·dY, which reads dY anyway | db_j = Σ_i dY_ij |
//! | `bce` | softplus(l) and σ(l) share e^(−∣l∣): the loss partials and (σ(l) − x)·c come out of one pass, with c an operand, so that a β or a 1/B is never lost | see [`ProgramBuilder::pair_softplus_sigmoid`](super::program::ProgramBuilder::pair_softplus_sigmoid) |
//! | `sample_kl` | noise is drawn in registers, in forward and again in backward; the halves of a concatenation are written in place: μ + e^(lv/2)·ε with its KL is one kernel, its backward twin another | ε = ε(seed, step, stream, element) |
//! | `adam` | all parameters, gradients and moments are flat arrays and are updated by one kernel | |

use std::collections::{HashMap, HashSet};

use crate::engine::graph::{Graph, Id, Node};
use crate::engine::ops::{Leaf, Op};
use crate::engine::shape::Shape;

/// Which rules a plan is built with. All on is the normal case; switching one off must not change what is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fusion {
    /// Pointwise nodes share kernels.
    pub pointwise: bool,
    /// Programs become epilogues of matrix products.
    pub linear: bool,
    /// Column sums ride along with products.
    pub linear_grads: bool,
    /// Softplus and sigmoid share their exponential.
    pub bce: bool,
    /// Noise in registers, concatenation in place.
    pub sample_kl: bool,
    /// One update for all parameters.
    pub adam: bool,
    /// On a GPU, steps share launches, and the batch is gathered during the step before (`src/engine/device/cuda/parts.rs`). No
    /// change of the plan's steps.
    pub launches: bool,
}

impl Fusion {
    /// Every rule.
    pub fn all() -> Fusion {
        let on = true;
        Fusion { pointwise: on, linear: on, linear_grads: on, bce: on, sample_kl: on, adam: on, launches: on }
    }

    /// No rule: one kernel per node, about as many launches as an eager framework makes.
    pub fn none() -> Fusion {
        let on = false;
        Fusion { pointwise: on, linear: on, linear_grads: on, bce: on, sample_kl: on, adam: on, launches: on }
    }
}

/// Instructions that may be computed again in another kernel instead of being stored.
const RECOMPUTE_LIMIT: usize = 8;

/// A group of pointwise nodes that run in one kernel.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// The index space.
    pub shape: Option<Shape>,
    /// Values that are stored, in order of their ids.
    pub stored: Vec<Id>,
    /// Values whose sum over everything is wanted: (the sum, its operand).
    pub sums: Vec<(Id, Id)>,
    /// The matrix product whose epilogue this is.
    pub product: Option<Id>,
}

/// The decisions about every node of a graph.
pub(super) struct Fused {
    pub nodes: Vec<Node>,
    pub live: Vec<Id>,
    pub fusion: Fusion,
    /// Operands, with aliases skipped.
    pub ins: Vec<Vec<Id>>,
    /// Must be in memory.
    pub stored: Vec<bool>,
    /// Is computed again where it is used.
    pub inline: Vec<bool>,
    /// The cluster a pointwise node belongs to.
    pub home: Vec<Option<usize>>,
    pub clusters: Vec<Cluster>,
    /// (column sum, matrix product it rides on).
    pub riders: Vec<(Id, Id)>,
    /// Scalars that only effects need: computed in the last step.
    pub deferred: Vec<bool>,
    pub level: Vec<u32>,
    users: Vec<Vec<Id>>,
    /// Pointwise values that were found to be needed in memory, and whose clusters have not been told yet.
    pending: Vec<Id>,
}

impl Fused {
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.index()]
    }

    /// `id`, or what it is only another name of: an alias for the reverse pass, or one number in another shape.
    pub(super) fn resolve(&self, id: Id) -> Id {
        let mut id = id;
        while self.is_name(id) {
            id = self.node(id).ins[0];
        }
        id
    }

    fn is_name(&self, id: Id) -> bool {
        let op = self.node(id).op;
        op.is_alias() || (matches!(op, Op::Reshape | Op::Broadcast) && self.is_scalar(id))
    }

    pub(super) fn is_scalar(&self, id: Id) -> bool {
        self.node(id).shape.size() == 1
    }

    /// A sum over everything, whose partial sums a program can leave behind.
    pub(super) fn is_total(&self, id: Id) -> bool {
        matches!(self.node(id).op, Op::Sum(_)) && self.is_scalar(id)
    }

    /// The constant a node is, through broadcasts and reshapes.
    pub(super) fn constant(&self, id: Id) -> Option<f64> {
        let node = self.node(id);
        match node.op {
            Op::Leaf(Leaf::Const(bits)) => Some(f64::from_bits(bits)),
            Op::Broadcast | Op::Reshape => self.constant(node.ins[0]),
            op if op.is_alias() => self.constant(node.ins[0]),
            _ => None,
        }
    }

    /// Whether a program computes or loads the value itself, so that it need not be in memory: constants, scalars
    /// that change per step, noise, and broadcasts of what is in memory.
    pub(super) fn is_virtual(&self, id: Id) -> bool {
        match self.node(id).op {
            Op::Leaf(Leaf::Const(_) | Leaf::Ctl(_)) => true,
            // One noise number for all elements must not be drawn once per element.
            Op::Leaf(Leaf::Normal(_) | Leaf::Uniform(_)) => self.fusion.sample_kl && !self.is_scalar(id),
            Op::Broadcast => {
                self.constant(id).is_some() || access(&self.source_shape(id), &self.node(id).shape).is_some()
            }
            Op::Reshape => self.constant(id).is_some(),
            op => op.is_alias() && self.constant(id).is_some(),
        }
    }

    fn source_shape(&self, id: Id) -> Shape {
        self.node(self.ins[id.index()][0]).shape
    }
}

/// How a program reads an operand of shape `from` (of the same rank) that is broadcast to `to`.
pub(super) fn access(from: &Shape, to: &Shape) -> Option<super::program::Access> {
    use super::program::Access;
    if from.size() == 1 {
        return Some(Access::Scalar);
    }
    let (last, lead) = (to.len() - 1, 0..to.len() - 1);
    let lead_equal = lead.clone().all(|i| from[i] == to[i]);
    let lead_ones = lead.clone().all(|i| from[i] == 1);
    match (from[last] == to[last], from[last] == 1) {
        (true, _) if lead_equal => Some(Access::Full),
        (true, _) if lead_ones => Some(Access::Row),
        (false, true) if lead_equal => Some(Access::Col),
        _ => None,
    }
}

/// Makes all decisions.
pub(super) fn fuse(graph: &Graph, fusion: Fusion) -> Fused {
    let live = graph.live(&graph.roots());
    let nodes: Vec<Node> = (0..graph.len()).map(|i| graph.node(Id(i as u32))).collect();
    let n = nodes.len();
    let mut f = Fused {
        ins: Vec::new(),
        stored: vec![false; n],
        inline: vec![false; n],
        home: vec![None; n],
        clusters: Vec::new(),
        riders: Vec::new(),
        deferred: vec![false; n],
        level: vec![0; n],
        users: vec![Vec::new(); n],
        pending: Vec::new(),
        nodes,
        live,
        fusion,
    };
    f.ins = (0..n).map(|i| f.nodes[i].ins.iter().map(|&x| f.resolve(x)).collect()).collect();
    for &id in &f.live {
        if !f.is_name(id) {
            for &input in &f.ins[id.index()] {
                f.users[input.index()].push(id);
            }
        }
    }
    f.levels();
    f.find_riders();
    f.store_operands(graph);
    f.defer_scalars(graph);
    f.mark_inline();
    f.form_clusters();
    f.attach_products();
    f.demand_all();
    f
}

impl Fused {
    fn levels(&mut self) {
        for at in 0..self.live.len() {
            let id = self.live[at];
            let node = *self.node(id);
            let ins = &self.ins[id.index()];
            let below = ins.iter().map(|i| self.level[i.index()]).max().unwrap_or(0);
            let in_kernel = |i: Id| self.node(i).op.is_pointwise() || self.node(i).op == Op::Broadcast;
            let behind_kernel = ins.first().is_some_and(|&i| in_kernel(i) && self.constant(i).is_none());
            self.level[id.index()] = match node.op {
                Op::Leaf(_) => 0,
                op if op.is_pointwise() || op.is_alias() || op == Op::Broadcast => below,
                // A view of a value that kernels compute on the fly needs that value in memory first.
                Op::Reshape | Op::SliceCols(_) => below + u32::from(behind_kernel),
                _ => below + 1,
            };
        }
    }

    /// The rule `linear_grads`: Σ over the rows of dY beside a product op(A)·dY.
    fn find_riders(&mut self) {
        if !self.fusion.linear_grads {
            return;
        }
        for &id in &self.live {
            let node = self.node(id);
            // A single column's sum is a total, which a program leaves behind.
            let (Op::Sum(1), 2, false) = (node.op, node.shape.len(), self.is_scalar(id)) else { continue };
            let dy = self.ins[id.index()][0];
            let taken = |m: Id| self.riders.iter().any(|&(_, product)| product == m);
            let product = self.users[dy.index()].iter().copied().find(|&m| {
                // The left operand must not depend on the sum; older nodes cannot. An empty product is no step.
                let fits = |ins: &[Id]| ins[1] == dy && ins[0] < id && !taken(m) && self.node(m).shape.size() > 0;
                matches!(self.node(m).op, Op::MatMul { tb: false, .. }) && fits(&self.ins[m.index()])
            });
            if let Some(product) = product {
                self.riders.push((id, product));
            }
        }
    }

    /// Every value that a heavy node reads, and every value an effect needs, is in memory.
    fn store_operands(&mut self, graph: &Graph) {
        for at in 0..self.live.len() {
            let id = self.live[at];
            let op = self.node(id).op;
            if op.is_pointwise() || matches!(op, Op::Leaf(_)) || self.is_name(id) || self.is_total(id) {
                continue;
            }
            if op == Op::Broadcast && self.is_virtual(id) && self.constant(id).is_some() {
                continue;
            }
            for i in self.ins[id.index()].clone() {
                // A broadcast of a scalar expression is computed where it is used.
                if op == Op::Broadcast && self.is_scalar(i) {
                    continue;
                }
                self.store(i);
            }
        }
        for root in graph.roots() {
            let id = self.resolve(root);
            self.store(id);
        }
    }

    /// Marks `id` as being in memory, and what it is a view or a repetition of.
    fn store(&mut self, id: Id) {
        if std::mem::replace(&mut self.stored[id.index()], true) {
            return;
        }
        match self.node(id).op {
            Op::Reshape | Op::SliceCols(_) | Op::Broadcast if self.constant(id).is_none() => {
                self.store(self.ins[id.index()][0]);
            }
            op if op.is_pointwise() => self.pending.push(id),
            _ => {}
        }
    }

    /// Scalars that nothing but effects and other such scalars use.
    fn defer_scalars(&mut self, graph: &Graph) {
        let effects = graph.effects();
        let ends: Vec<Id> = effects.totals.iter().copied().chain(effects.optimize.and_then(|o| o.scale)).collect();
        let ends: Vec<Id> = ends.into_iter().map(|id| self.resolve(id)).collect();
        for at in (0..self.live.len()).rev() {
            let id = self.live[at];
            let op = self.node(id).op;
            let kind = op.is_pointwise() || self.is_total(id);
            let users = &self.users[id.index()];
            let only_ends = users.iter().all(|u| self.deferred[u.index()]) && (!users.is_empty() || ends.contains(&id));
            self.deferred[id.index()] = self.is_scalar(id) && kind && only_ends;
        }
    }

    /// Values that are computed again in every kernel that uses them: cheap, and made of what is in memory anyway.
    fn mark_inline(&mut self) {
        let mut cost = vec![0usize; self.nodes.len()];
        for at in 0..self.live.len() {
            let id = self.live[at];
            if !self.node(id).op.is_pointwise() || self.stored[id.index()] {
                continue;
            }
            let mut total = 1;
            let available = self.ins[id.index()].iter().all(|&i| {
                total += cost[i.index()];
                let source = if self.node(i).op == Op::Broadcast { self.ins[i.index()][0] } else { i };
                let in_memory = |i: Id| self.stored[i.index()] || matches!(self.node(i).op, Op::Leaf(_));
                self.inline[i.index()]
                    || self.constant(i).is_some()
                    || in_memory(i)
                    || (self.node(i).op == Op::Broadcast && (in_memory(source) || self.inline[source.index()]))
            });
            let small = total <= RECOMPUTE_LIMIT && (self.fusion.pointwise || self.is_scalar(id));
            self.inline[id.index()] = available && small;
            cost[id.index()] = total;
        }
    }

    /// Groups pointwise nodes of one level and shape that share values (rule `pointwise`); without the rule every node
    /// is a group. Scalars of one level are a group, those that only effects need another.
    fn form_clusters(&mut self) {
        let pointwise: Vec<Id> = self.live.iter().copied().filter(|&id| self.node(id).op.is_pointwise()).collect();
        let mut parent: Vec<usize> = (0..pointwise.len()).collect();
        let mut seen: HashMap<(Id, u32, Shape), usize> = HashMap::new();
        if self.fusion.pointwise {
            for (at, &id) in pointwise.iter().enumerate() {
                let key = |value| (value, self.level[id.index()], self.node(id).shape);
                let shared = self.ins[id.index()].iter().filter(|i| self.constant(**i).is_none());
                for value in shared.copied().chain([id]) {
                    let other = *seen.entry(key(value)).or_insert(at);
                    let (a, b) = (find(&mut parent, at), find(&mut parent, other));
                    parent[a.max(b)] = a.min(b);
                }
            }
        }
        let mut number: HashMap<Group, usize> = HashMap::new();
        for (at, &id) in pointwise.iter().enumerate() {
            let group = match (self.is_scalar(id), self.deferred[id.index()]) {
                (true, true) => Group::Deferred,
                (true, false) => Group::ScalarsOf(self.level[id.index()]),
                (false, _) => Group::Connected(find(&mut parent, at)),
            };
            let clusters = &mut self.clusters;
            let shape = self.nodes[id.index()].shape;
            let cluster = *number.entry(group).or_insert_with(|| {
                clusters.push(Cluster { shape: Some(shape), ..Cluster::default() });
                clusters.len() - 1
            });
            self.home[id.index()] = Some(cluster);
        }
    }

    /// The rule `linear`: a product whose only readers are one cluster of its level hands its tiles to that cluster.
    fn attach_products(&mut self) {
        for at in 0..self.live.len() {
            let id = self.live[at];
            if !matches!(self.node(id).op, Op::MatMul { .. }) || self.stored[id.index()] || !self.fusion.linear {
                continue;
            }
            let level = self.level[id.index()];
            let mut homes = self.users[id.index()].iter().map(|u| (self.home[u.index()], self.level[u.index()]));
            let Some((Some(cluster), _)) = homes.next() else { continue };
            let alone = homes.all(|(home, _)| home == Some(cluster));
            let same_level = self.users[id.index()].iter().all(|u| self.level[u.index()] == level);
            let rides = self.riders.iter().any(|&(_, product)| product == id);
            if alone && same_level && !rides && !self.is_scalar(id) && self.clusters[cluster].product.is_none() {
                self.clusters[cluster].product = Some(id);
            }
        }
    }

    /// Works out from the effects backwards which values each cluster must leave in memory.
    fn demand_all(&mut self) {
        let mut seen = HashSet::new();
        for at in 0..self.live.len() {
            let id = self.live[at];
            if self.is_total(id) {
                let source = self.ins[id.index()][0];
                let home = self.home[source.index()].unwrap_or_else(|| {
                    let shape = Some(self.node(source).shape);
                    self.clusters.push(Cluster { shape, ..Cluster::default() });
                    self.clusters.len() - 1
                });
                self.clusters[home].sums.push((id, source));
                self.stored[id.index()] = true;
                self.demand(source, home, &mut seen);
            }
        }
        while let Some(id) = self.pending.pop() {
            let home = self.home[id.index()].expect("pointwise values have a cluster");
            self.clusters[home].stored.push(id);
            for operand in self.ins[id.index()].clone() {
                self.demand(operand, home, &mut seen);
            }
        }
        self.clusters.iter_mut().for_each(|c| c.stored.sort_unstable());
    }

    /// Whether a kernel of `cluster` computes the pointwise value `id` in its registers.
    pub(super) fn computes(&self, cluster: usize, id: Id) -> bool {
        let at_home = self.home[id.index()] == Some(cluster);
        self.node(id).op.is_pointwise() && (at_home || (self.inline[id.index()] && !self.stored[id.index()]))
    }

    /// `cluster` needs the value of `id`: from its own registers, computed again, or from memory.
    fn demand(&mut self, id: Id, cluster: usize, seen: &mut HashSet<(usize, Id)>) {
        let in_registers = self.constant(id).is_some() || self.clusters[cluster].product == Some(id);
        if in_registers || !seen.insert((cluster, id)) {
            return;
        }
        if self.computes(cluster, id) || (self.node(id).op == Op::Broadcast && self.is_virtual(id)) {
            for operand in self.ins[id.index()].clone() {
                self.demand(operand, cluster, seen);
            }
        } else if !self.is_virtual(id) {
            self.store(id);
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Group {
    Connected(usize),
    ScalarsOf(u32),
    Deferred,
}

fn find(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}
