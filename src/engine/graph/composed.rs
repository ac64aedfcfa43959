//! Operations of one's own replaced by what they are made of, for devices that have no kernel for them.

use super::{Arena, Graph, Id, Ins, Var};
use crate::engine::ops::Op;

/// How often what an operation is made of may be composed in its turn.
const DEEPEST: usize = 16;

impl Graph {
    /// A copy in which every operation of one's own that [says what it is made of](crate::CustomOp::compose) is made of that.
    /// It computes the same as this graph and is not to be differentiated further.
    ///
    /// # Panics
    /// When what an operation is made of has another shape than its value.
    pub(crate) fn composed(&self) -> Graph {
        let mut graph = self.clone();
        // What an operation is made of may hold operations of one's own; one that holds itself is left as it is.
        for _ in 0..DEEPEST {
            let Some(next) = graph.composed_once() else { break };
            graph = next;
        }
        graph
    }

    /// A copy in which those that this graph holds are; none if there is none.
    fn composed_once(&self) -> Option<Graph> {
        let old = self.arena.borrow();
        if old.custom_ops.is_empty() {
            return None;
        }
        let mut any = false;
        let new = Graph::default();
        *new.arena.borrow_mut() = Arena {
            slots: old.slots.clone(),
            schedules: old.schedules.clone(),
            tensors: old.tensors.clone(),
            rules: old.rules.clone(),
            custom_ops: old.custom_ops.clone(),
            effects: old.effects.clone(),
            ..Arena::default()
        };
        let mut moved: Vec<Id> = Vec::with_capacity(old.nodes.len());
        for node in &old.nodes {
            let ins: Vec<Id> = node.ins.iter().map(|id| moved[id.index()]).collect();
            let inputs: Vec<Var> = ins.iter().map(|&id| new.var(id)).collect();
            let op = if let Op::Custom(op) = node.op { Some(&old.custom_ops[op as usize]) } else { None };
            if let Some(op) = op
                && let Some(value) = op.compose(&inputs)
            {
                new.owns(op.name(), value);
                let (name, shape) = (op.name(), node.shape);
                assert!(value.shape() == shape, "{name}: a value of shape {shape} composed of {}", value.made());
                any = true;
                moved.push(value.id());
                continue;
            }
            moved.push(new.push_node(super::Node { ins: Ins::new(&ins), ..*node }));
        }
        let mut arena = new.arena.borrow_mut();
        let effects = &mut arena.effects;
        let optimize = effects.optimize.as_mut();
        let gradients = optimize.into_iter().flat_map(|o| o.pairs.iter_mut().map(|(_, id)| id).chain(&mut o.scale));
        let stored = effects.stores.iter_mut().map(|(_, id)| id);
        for id in stored.chain(&mut effects.totals).chain(gradients) {
            *id = moved[id.index()];
        }
        drop(arena);
        any.then_some(new)
    }
}
