//! A second opinion on a plan, from the steps alone.

use std::collections::HashMap;

use super::memory::Alive;
use super::order::Order;
use super::program::{Instr, Output, Program};
use super::{Mem, Plan, Step, View, memory};

impl Plan {
    /// Checks what the executors rely on: steps wait for steps of earlier waves; views lie inside their memory; every buffer
    /// element that is read was written by steps that are waited for; steps that do not wait for each other, directly or
    /// through others, touch nothing that one of them writes; buffers that may be alive at the same time, in waves or by the edges, share no memory; programs
    /// write a register before they read it, and never the register they read.
    ///
    /// # Errors
    /// A description of the first violation.
    pub fn verify(&self) -> Result<(), String> {
        self.check_waits()?;
        let order = self.order();
        for (i, step) in self.steps.iter().enumerate() {
            let check = || {
                self.check_bounds(step)?;
                self.check_written_before(i, &order)?;
                step.kernel.program().map_or(Ok(()), check_program)
            };
            check().map_err(|e| format!("step {} ({}): {e}", i + 1, step.name()))?;
        }
        self.check_order(&order)?;
        self.check_memory(&order)
    }

    /// Both executors go through the steps in the order of the list, one of them wave by wave.
    fn check_waits(&self) -> Result<(), String> {
        for (i, step) in self.steps.iter().enumerate() {
            if let Some(j) = step.waits.iter().find(|&&j| j >= i || self.steps[j].wave >= step.wave) {
                return Err(format!("step {} waits for step {}, which is not in an earlier wave", i + 1, j + 1));
            }
        }
        Ok(())
    }

    fn len_of(&self, mem: Mem) -> Option<usize> {
        match mem {
            Mem::Buffer(b) => self.buffers.get(b as usize).map(|b| b.len),
            Mem::Slot(s) => self.slots.get(s.index()).map(|s| s.shape.size()),
            Mem::Tensor(t) => self.tensors.get(t as usize).map(Vec::len),
        }
    }

    fn check_bounds(&self, step: &Step) -> Result<(), String> {
        for view in step.kernel.reads().iter().chain(&step.kernel.writes()) {
            let len = self.len_of(view.mem).ok_or(format!("{:?} does not exist", view.mem))?;
            if view.end() > len || (view.rows > 1 && view.stride < view.cols) {
                return Err(format!("{view:?} leaves its memory of {len} elements"));
            }
        }
        Ok(())
    }

    fn check_written_before(&self, number: usize, order: &Order) -> Result<(), String> {
        for read in self.steps[number].kernel.reads().iter().filter(|v| matches!(v.mem, Mem::Buffer(_))) {
            let earlier = (0..number).filter(|&j| order.is_before(j, number));
            let written = earlier.flat_map(|j| self.steps[j].kernel.writes()).filter(|w| w.overlaps(read));
            let elements: usize = written.map(|w| w.rows * w.cols).sum();
            if elements < read.rows * read.cols {
                return Err(format!("reads {read:?}, of which the steps it waits for wrote {elements} elements"));
            }
        }
        Ok(())
    }

    fn check_order(&self, order: &Order) -> Result<(), String> {
        let touched = |step: &Step| -> Vec<View> { [step.kernel.reads(), step.kernel.writes()].concat() };
        for (j, b) in self.steps.iter().enumerate() {
            for (i, a) in self.steps[..j].iter().enumerate().filter(|&(i, _)| !order.is_before(i, j)) {
                let spoils = |a: &Step, b: &Step| {
                    let touched = touched(b);
                    a.kernel.writes().iter().any(|w| touched.iter().any(|t| t.overlaps(w)))
                        || a.kernel.updates().iter().any(|s| touched.iter().any(|t| t.mem == Mem::Slot(*s)))
                };
                if spoils(a, b) || spoils(b, a) {
                    return Err(format!(
                        "steps {} and {} touch the same memory, and neither waits for the other",
                        i + 1,
                        j + 1
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_memory(&self, order: &Order) -> Result<(), String> {
        let users = |number: usize| {
            let touches = |step: &Step| {
                let views = [step.kernel.reads(), step.kernel.writes()].concat();
                views.iter().any(|v| v.mem == Mem::Buffer(number as u32))
            };
            (0..self.steps.len()).filter(|&i| touches(&self.steps[i])).collect::<Vec<_>>()
        };
        let alive = match &self.groups {
            None => Alive::InWaves(&self.steps),
            Some(groups) => Alive::ByEdges(order, groups),
        };
        for (i, a) in self.buffers.iter().enumerate() {
            if a.offset + memory::padded(a.len) > self.arena {
                return Err(format!("buffer {i} leaves the arena"));
            }
            if a.users != users(i) {
                return Err(format!("buffer {i} is used by other steps than {:?}", a.users));
            }
            for (j, b) in self.buffers.iter().enumerate().skip(i + 1) {
                let apart =
                    a.offset + memory::padded(a.len) <= b.offset || b.offset + memory::padded(b.len) <= a.offset;
                if !apart && alive.together(a, b) {
                    return Err(format!("buffers {i} and {j} may be alive together and share memory"));
                }
            }
        }
        Ok(())
    }
}

fn check_program(p: &Program) -> Result<(), String> {
    let mut written: HashMap<u16, bool> = HashMap::new();
    for instr in p.uniform.iter().chain(&p.body) {
        let writes: Vec<u16> = instr.writes().into_iter().flatten().collect();
        for read in instr.reads().into_iter().flatten() {
            if !written.contains_key(&read) || writes.contains(&read) {
                return Err(format!("{instr:?} reads a register that was not written, or that it writes itself"));
            }
        }
        if writes.iter().any(|r| *r as usize >= p.regs || written.get(r) == Some(&true)) {
            return Err(format!("{instr:?} writes a register outside the {}, or a uniform one", p.regs));
        }
        if matches!(instr, Instr::Load { input, .. } if *input as usize >= p.inputs.len()) {
            return Err(format!("{instr:?} loads an operand that does not exist"));
        }
        let uniform = p.uniform.contains(instr);
        written.extend(writes.into_iter().map(|r| (r, uniform)));
    }
    let kept = |o: &Output| match *o {
        Output::Store { reg, .. } | Output::Sum { reg, .. } => reg,
    };
    match p.outputs.iter().map(kept).find(|r| !written.contains_key(r)) {
        Some(reg) => Err(format!("register {reg} is kept but never written")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::grad::grad;
    use crate::engine::graph::Graph;
    use crate::engine::optim::Optimizer;
    use crate::engine::plan::{Buffer, Fusion, Mem, Plan, View};
    use crate::engine::steps::layout::Move;

    fn plan() -> Plan {
        let g = Graph::new();
        let (x, w) = (g.input(&[4, 8]), g.param("w", &[8, 3]));
        let y = x.matmul(w).tanh().matmul(g.input(&[3, 5])).exp();
        Plan::build(&g, &[y], Fusion::all()).unwrap()
    }

    #[test]
    fn a_built_plan_is_sound_and_a_damaged_one_is_not() {
        let good = plan();
        assert_eq!(good.verify(), Ok(()));
        let mut early = good.clone();
        early.steps.last_mut().unwrap().wave = 0;
        assert!(early.verify().unwrap_err().contains("not in an earlier wave"));
        let mut alone = good.clone();
        alone.steps.last_mut().unwrap().waits.clear();
        assert!(alone.verify().unwrap_err().contains("the steps it waits for wrote 0"));
        let mut outside = good.clone();
        outside.buffers[0].len -= 1;
        assert!(outside.verify().unwrap_err().contains("leaves its memory"));
        let mut missing = good.clone();
        let written = missing.steps[0].kernel.writes()[0];
        let nowhere = View { mem: Mem::Buffer(99), ..written };
        missing.steps[0].kernel = Arc::new(Move::copy(nowhere, written));
        assert!(missing.verify().unwrap_err().contains("does not exist"));
        let mut shared = good;
        let beside = Buffer { persistent: true, users: Vec::new(), ..shared.buffers[0].clone() };
        shared.buffers.push(beside);
        assert!(shared.verify().unwrap_err().contains("share memory"));
        let mut small = plan();
        small.arena /= 2;
        assert!(small.verify().unwrap_err().contains("leaves the arena"));
        // By waves the first buffer of a chain and a later one may share; a GPU that launches all together allows nothing.
        let chain = |groups| {
            let g = Graph::new();
            let (x, w) = (g.input(&[4, 8]), g.param("w", &[8, 8]));
            let y = x.matmul(w).tanh().matmul(w).tanh().matmul(w).tanh().matmul(w);
            Plan::build(&g, &[y], Fusion::all()).unwrap().by_edges(groups, &[])
        };
        let (alone, together) = (chain(vec![]), chain(vec![vec![0, 1, 2, 3]]));
        assert!(alone.arena < together.arena && together.verify().is_ok());
        let mut wrong = together.clone();
        wrong.buffers.clone_from(&alone.buffers);
        assert!(wrong.verify().unwrap_err().contains("share memory"));
        let mut forgotten = plan();
        forgotten.buffers[0].users.pop();
        assert!(forgotten.verify().unwrap_err().contains("used by other steps"));
    }

    /// Of the edges of a training step none is there for nothing, and none is missed unseen.
    #[test]
    fn a_plan_without_any_one_of_its_edges_is_not_sound() {
        for fusion in [Fusion::all(), Fusion::none()] {
            let g = Graph::new();
            let (x, w, v) = (g.batch("train", 6, 8), g.param("w", &[8, 5]), g.param("v", &[5, 8]));
            let y = x.matmul(w).tanh().matmul(v);
            let loss = (y - x).square().mean_all();
            let pairs: Vec<_> = [w, v].into_iter().zip(grad(loss, &[w, v])).collect();
            g.optimize(Optimizer::adam(), 1e-3, &pairs);
            let plan = Plan::build(&g, &[loss], fusion).unwrap();
            let edges: usize = plan.steps.iter().map(|s| s.waits.len()).sum();
            assert!(edges >= plan.steps.len() - 1, "{plan}");
            for step in 0..plan.steps.len() {
                for edge in 0..plan.steps[step].waits.len() {
                    let mut cut = plan.clone();
                    let from = cut.steps[step].waits.remove(edge);
                    assert!(cut.verify().is_err(), "without {} → {}:\n{plan}", from + 1, step + 1);
                }
            }
        }
    }
}
