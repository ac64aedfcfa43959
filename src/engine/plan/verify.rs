//! A second opinion on a plan, from the steps alone.

use std::collections::HashMap;

use super::program::{Instr, Output, Program};
use super::{Mem, Plan, Step, View, memory};

impl Plan {
    /// Checks what the executors rely on: views lie inside their memory; every buffer element that is read was
    /// written in an earlier wave; steps of one wave touch nothing that another of them writes; buffers alive at the same
    /// time do not overlap; programs write a register before they read it, and never the register they read.
    ///
    /// # Errors
    /// A description of the first violation.
    pub fn verify(&self) -> Result<(), String> {
        for (i, step) in self.steps.iter().enumerate() {
            let check = || {
                self.check_bounds(step)?;
                self.check_written_before(step)?;
                step.kernel.program().map_or(Ok(()), check_program)
            };
            check().map_err(|e| format!("step {} ({}): {e}", i + 1, step.name()))?;
        }
        self.check_waves()?;
        self.check_memory()
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

    fn check_written_before(&self, step: &Step) -> Result<(), String> {
        for read in step.kernel.reads().iter().filter(|v| matches!(v.mem, Mem::Buffer(_))) {
            let earlier = self.steps.iter().filter(|s| s.wave < step.wave);
            let written: Vec<View> = earlier.flat_map(|s| s.kernel.writes()).filter(|w| w.overlaps(read)).collect();
            let elements: usize = written.iter().map(|w| w.rows * w.cols).sum();
            if elements < read.rows * read.cols {
                return Err(format!("reads {read:?}, of which earlier waves wrote {elements} elements"));
            }
        }
        Ok(())
    }

    fn check_waves(&self) -> Result<(), String> {
        for (i, a) in self.steps.iter().enumerate() {
            for (j, b) in self.steps.iter().enumerate().filter(|(j, b)| *j != i && b.wave == a.wave) {
                let touched: Vec<View> = b.kernel.reads().into_iter().chain(b.kernel.writes()).collect();
                let clash = a.kernel.writes().into_iter().find(|w| touched.iter().any(|t| t.overlaps(w)));
                let update = a.kernel.updates().into_iter().find(|s| touched.iter().any(|t| t.mem == Mem::Slot(*s)));
                if clash.is_some() || update.is_some() {
                    return Err(format!("steps {} and {} of one wave touch the same memory", i + 1, j + 1));
                }
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), String> {
        for (i, a) in self.buffers.iter().enumerate() {
            if a.offset + memory::padded(a.len) > self.arena {
                return Err(format!("buffer {i} leaves the arena"));
            }
            for (j, b) in self.buffers.iter().enumerate().skip(i + 1) {
                let apart =
                    a.offset + memory::padded(a.len) <= b.offset || b.offset + memory::padded(b.len) <= a.offset;
                if !apart && memory::conflict(a, b) {
                    return Err(format!("buffers {i} and {j} are alive together and share memory"));
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
    use crate::engine::graph::Graph;
    use std::sync::Arc;

    use crate::engine::plan::{Fusion, Mem, Plan, View};
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
        assert!(early.verify().unwrap_err().contains("earlier waves wrote 0"));
        let mut outside = good.clone();
        outside.buffers[0].len -= 1;
        assert!(outside.verify().unwrap_err().contains("leaves its memory"));
        let mut missing = good.clone();
        let written = missing.steps[0].kernel.writes()[0];
        let nowhere = View { mem: Mem::Buffer(99), ..written };
        missing.steps[0].kernel = Arc::new(Move::copy(nowhere, written));
        assert!(missing.verify().unwrap_err().contains("does not exist"));
        let mut shared = good;
        shared.buffers.push(shared.buffers[0]);
        assert!(shared.verify().unwrap_err().contains("share memory"));
        let mut small = plan();
        small.arena /= 2;
        assert!(small.verify().unwrap_err().contains("leaves the arena"));
    }
}
