//! What a step leaves behind: buffers that are written, sums that grow, outputs, the update of the parameters.

use std::panic::Location;

use super::{Ctl, Graph, Id, Slot, SlotKind, Var};
use crate::engine::ops::{Leaf, Op};
use crate::engine::optim::Optimizer;

/// The learning rate of an update.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rate {
    /// The same in every step.
    Constant(f64),
    /// The schedule of this number, computed by the caller for every step.
    Schedule(u8),
}

/// An optimiser's update of all its parameters at the end of a step.
#[derive(Clone)]
pub struct OptimizeInfo {
    /// The rule.
    pub rule: Optimizer,
    /// Its learning rate.
    pub rate: Rate,
    /// (parameter slot, gradient node).
    pub pairs: Vec<(Slot, Id)>,
    /// A scalar that multiplies every gradient (clipping), if any.
    pub scale: Option<Id>,
    /// The line that set it.
    pub at: &'static Location<'static>,
}

/// What a step leaves behind: the graph's roots.
#[derive(Clone, Default)]
pub struct Effects {
    /// Values written to slots at the end of the step.
    pub stores: Vec<(Slot, Id)>,
    /// Scalars added to running sums.
    pub totals: Vec<Id>,
    /// The parameter update, at most one.
    pub optimize: Option<OptimizeInfo>,
    /// Where each output of a function is left; empty for a graph that is no function yet.
    pub(crate) outputs: Vec<Place>,
}

/// Where an output is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In the running sum of this number.
    Total(usize),
    /// In a cell.
    Cell(Slot),
}

impl Graph {
    /// What a step leaves behind.
    pub fn effects(&self) -> Effects {
        self.arena.borrow().effects.clone()
    }

    /// At the end of every step, writes `value` into the buffer `name`. Reads within the step see the old value.
    ///
    /// # Panics
    /// When the slot has another shape or is stored to twice.
    #[track_caller]
    pub fn store(&self, name: &str, value: Var<'_>) {
        self.owns("store", value);
        let slot = self.declare(name, SlotKind::Buffer, value.shape());
        let mut arena = self.arena.borrow_mut();
        assert!(arena.effects.stores.iter().all(|(s, _)| *s != slot), "slot {name} is stored to twice");
        arena.effects.stores.push((slot, value.id));
    }

    /// A copy of this graph whose steps leave `outputs` behind: those of shape `[]` in running sums, all others in cells.
    ///
    /// # Panics
    /// When an output is of another graph.
    #[track_caller]
    pub(crate) fn with_outputs(&self, outputs: &[Var<'_>]) -> Graph {
        for &x in outputs {
            self.owns("compile", x);
        }
        let traced = self.clone();
        for (number, x) in outputs.iter().enumerate() {
            let place = if x.shape().is_empty() {
                let mut arena = traced.arena.borrow_mut();
                arena.effects.totals.push(x.id);
                Place::Total(arena.effects.totals.len() - 1)
            } else {
                let slot = traced.declare(&format!("output {number}"), SlotKind::Cell, x.shape());
                traced.arena.borrow_mut().effects.stores.push((slot, x.id));
                Place::Cell(slot)
            };
            traced.arena.borrow_mut().effects.outputs.push(place);
        }
        traced
    }

    /// At the end of every step, updates each parameter with its gradient, at the learning rate `rate`: a number, or a
    /// [schedule](Graph::schedule). A parameter that is in none of the `pairs` is
    /// frozen: it keeps its bits, and nothing of its gradient is computed.
    ///
    /// # Panics
    /// When the first of a pair is no parameter or its gradient has another shape, when `rate` is neither number nor
    /// schedule, when a parameter is there twice, or when the graph has an optimiser already.
    #[track_caller]
    pub fn optimize<'g>(&'g self, rule: Optimizer, rate: impl IntoRate<'g>, pairs: &[(Var<'_>, Var<'_>)]) {
        self.set_optimize(rule, rate.into_rate(self), pairs, None);
    }

    /// As [`Graph::optimize`], with every gradient multiplied by the scalar `scale`.
    #[track_caller]
    pub fn optimize_scaled<'g>(
        &'g self,
        rule: Optimizer,
        rate: impl IntoRate<'g>,
        pairs: &[(Var<'_>, Var<'_>)],
        scale: Var<'_>,
    ) {
        self.owns("optimize", scale);
        assert!(scale.shape().is_empty(), "the gradients' scale must be a scalar, not {}", scale.made());
        self.set_optimize(rule, rate.into_rate(self), pairs, Some(scale.id));
    }

    #[track_caller]
    fn set_optimize(&self, rule: Optimizer, rate: Rate, pairs: &[(Var<'_>, Var<'_>)], scale: Option<Id>) {
        let mut placed = Vec::with_capacity(pairs.len());
        for (param, grad) in pairs {
            self.owns("optimize", *param);
            self.owns("optimize", *grad);
            let slot = match self.node(param.id).op {
                Op::Leaf(Leaf::Slot(slot)) if self.slot(slot).kind == SlotKind::Param => slot,
                _ => panic!("optimize: {} is not a parameter", param.made()),
            };
            let name = &self.slot(slot).name;
            assert!(placed.iter().all(|(known, _)| *known != slot), "optimize: parameter {name} is there twice");
            param.has_shape_of(&format!("optimize: parameter {} and its gradient", self.slot(slot).name), *grad);
            placed.push((slot, grad.id));
        }
        let mut arena = self.arena.borrow_mut();
        if let Some(OptimizeInfo { at, .. }) = &arena.effects.optimize {
            panic!("a graph has one optimiser; it was set already at {at}");
        }
        let at = Location::caller();
        arena.effects.optimize = Some(OptimizeInfo { rule, rate, pairs: placed, scale, at });
    }

    /// The nodes whose values a step needs: stores, totals, gradients.
    pub fn roots(&self) -> Vec<Id> {
        let effects = self.effects();
        let mut roots: Vec<Id> = effects.stores.iter().map(|(_, id)| *id).collect();
        roots.extend(&effects.totals);
        if let Some(opt) = &effects.optimize {
            roots.extend(opt.pairs.iter().map(|(_, id)| *id));
            roots.extend(opt.scale);
        }
        roots
    }
}

/// What can be the learning rate of an update: a number, or a schedule.
pub trait IntoRate<'g> {
    /// The rate in the graph `g`.
    fn into_rate(self, g: &'g Graph) -> Rate;
}

impl<'g> IntoRate<'g> for f64 {
    fn into_rate(self, _: &'g Graph) -> Rate {
        Rate::Constant(self)
    }
}

impl<'g> IntoRate<'g> for Var<'g> {
    #[track_caller]
    fn into_rate(self, g: &'g Graph) -> Rate {
        g.owns("optimize", self);
        match g.node(self.id).op {
            Op::Leaf(Leaf::Ctl(Ctl::Schedule(index))) => Rate::Schedule(index),
            _ => panic!("optimize: the learning rate {self:?} is neither a number nor a schedule"),
        }
    }
}

impl Rate {
    pub(super) fn describe(self, schedules: &[String]) -> String {
        match self {
            Rate::Constant(rate) => rate.to_string(),
            Rate::Schedule(index) => schedules[index as usize].clone(),
        }
    }
}
