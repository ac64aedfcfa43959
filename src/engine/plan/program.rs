//! Pointwise programs: the small straight-line code that a fused step runs on every element.
//!
//! A program works on tiles of up to [`TILE`] elements. Its registers each hold one tile; an instruction is one loop
//! over a tile, so the cost of interpreting it is paid once per 256 elements. The same program serves as a kernel of
//! its own and as the epilogue of a matrix product, where register [`Instr::Acc`] is the finished product tile.
//! Nothing is generated at run time: on a GPU the program is a kernel argument and the branch on the instruction is
//! uniform.

use std::collections::HashMap;

use crate::engine::graph::Ctl;
use crate::engine::ops::{BinaryFn, ScalarFn};
use crate::engine::plan::View;

/// Elements of a tile: one register is 1 KiB, so a dozen live registers stay in the first-level cache.
pub(crate) const TILE: usize = 256;

/// How an operand's element is found from a tile's (row, column).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Access {
    /// Element (row, column).
    Full,
    /// Element (0, column): a bias.
    Row,
    /// Element (row, 0): one number per example.
    Col,
    /// Element (0, 0).
    Scalar,
}

/// An operand in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Input {
    /// Where it lies.
    pub view: View,
    /// How it is indexed.
    pub access: Access,
}

/// A register: the number of a tile.
pub(crate) type Reg = u16;

/// One instruction. In a program under construction registers are numbered by definition (each written once);
/// [`ProgramBuilder::finish`] maps them to as few as possible.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Instr {
    /// dst = the tile of the matrix product this program is the epilogue of.
    Acc {
        /// Destination.
        dst: Reg,
    },
    /// dst = an operand from memory.
    Load {
        /// Destination.
        dst: Reg,
        /// Index into [`Program::inputs`].
        input: u16,
    },
    /// dst = a constant (as bits).
    Const {
        /// Destination.
        dst: Reg,
        /// The bits of the f32.
        bits: u32,
    },
    /// dst = a scalar that changes from step to step.
    Ctl {
        /// Destination.
        dst: Reg,
        /// Which.
        field: Ctl,
    },
    /// dst = noise, drawn for this element.
    Noise {
        /// Destination.
        dst: Reg,
        /// Normal, or uniform.
        normal: bool,
        /// The stream.
        stream: u32,
    },
    /// dst = f(a).
    Unary {
        /// Destination.
        dst: Reg,
        /// The function.
        f: ScalarFn,
        /// Operand.
        a: Reg,
    },
    /// dst = a^c.
    Pow {
        /// Destination.
        dst: Reg,
        /// Operand.
        a: Reg,
        /// The bits of the f64 exponent.
        bits: u64,
    },
    /// dst = f(a, b).
    Binary {
        /// Destination.
        dst: Reg,
        /// The function.
        f: BinaryFn,
        /// Left operand.
        a: Reg,
        /// Right operand.
        b: Reg,
    },
    /// dst = q ≠ 0 ? a : b.
    Select {
        /// Destination.
        dst: Reg,
        /// Condition.
        q: Reg,
        /// Value where q ≠ 0.
        a: Reg,
        /// Value elsewhere.
        b: Reg,
    },
    /// (softplus(a), σ(a)) with one exponential: the two halves of the Bernoulli likelihood and its gradient.
    SoftplusSigmoid {
        /// Destination of softplus(a).
        softplus: Reg,
        /// Destination of σ(a).
        sigmoid: Reg,
        /// Operand.
        a: Reg,
    },
}

impl Instr {
    /// The registers it writes.
    pub fn writes(&self) -> [Option<Reg>; 2] {
        match *self {
            Instr::Acc { dst }
            | Instr::Load { dst, .. }
            | Instr::Const { dst, .. }
            | Instr::Ctl { dst, .. }
            | Instr::Noise { dst, .. }
            | Instr::Unary { dst, .. }
            | Instr::Pow { dst, .. }
            | Instr::Binary { dst, .. }
            | Instr::Select { dst, .. } => [Some(dst), None],
            Instr::SoftplusSigmoid { softplus, sigmoid, .. } => [Some(softplus), Some(sigmoid)],
        }
    }

    /// The registers it reads.
    pub fn reads(&self) -> [Option<Reg>; 3] {
        match *self {
            Instr::Unary { a, .. } | Instr::Pow { a, .. } | Instr::SoftplusSigmoid { a, .. } => [Some(a), None, None],
            Instr::Binary { a, b, .. } => [Some(a), Some(b), None],
            Instr::Select { q, a, b, .. } => [Some(q), Some(a), Some(b)],
            _ => [None; 3],
        }
    }

    /// The same instruction with every register replaced by `map`.
    fn renamed(mut self, map: impl Fn(Reg) -> Reg) -> Instr {
        match &mut self {
            Instr::Acc { dst }
            | Instr::Load { dst, .. }
            | Instr::Const { dst, .. }
            | Instr::Ctl { dst, .. }
            | Instr::Noise { dst, .. } => *dst = map(*dst),
            Instr::Unary { dst, a, .. } | Instr::Pow { dst, a, .. } => (*dst, *a) = (map(*dst), map(*a)),
            Instr::Binary { dst, a, b, .. } => (*dst, *a, *b) = (map(*dst), map(*a), map(*b)),
            Instr::Select { dst, q, a, b } => (*dst, *q, *a, *b) = (map(*dst), map(*q), map(*a), map(*b)),
            Instr::SoftplusSigmoid { softplus, sigmoid, a } => {
                (*softplus, *sigmoid, *a) = (map(*softplus), map(*sigmoid), map(*a));
            }
        }
        self
    }

    /// Floating-point operations per element; a transcendental function counts as the ~20 its polynomial has.
    fn flops(&self) -> u64 {
        match self {
            Instr::Unary { f, .. } => match f {
                ScalarFn::Square | ScalarFn::Abs | ScalarFn::Sign | ScalarFn::Step | ScalarFn::Neg | ScalarFn::Relu => {
                    1
                }
                ScalarFn::Sqrt => 1,
                _ => 20,
            },
            Instr::Binary { .. } | Instr::Select { .. } => 1,
            Instr::Pow { .. } | Instr::Noise { .. } => 20,
            Instr::SoftplusSigmoid { .. } => 40,
            _ => 0,
        }
    }
}

/// What a program leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Output {
    /// The register is stored, element by element.
    Store {
        /// The register.
        reg: Reg,
        /// Where it goes.
        view: View,
    },
    /// Sums of parts of the register go to the partial sums; [`Scalars`](crate::engine::steps::scalars::Scalars) adds them up in
    /// index order.
    Sum {
        /// The register.
        reg: Reg,
        /// The partial sums: element row · ⌈columns / 8⌉ + column / 8 is that of 8 columns of a row on the CPU, and on a GPU
        /// that of the tile which begins there (see [`PARTIAL_COLUMNS`]).
        partials: View,
    },
}

/// A pointwise program over `rows × cols` elements.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Program {
    /// Rows of the index space.
    pub rows: usize,
    /// Columns of the index space.
    pub cols: usize,
    /// Operands in memory.
    pub inputs: Vec<Input>,
    /// The same for every element: run once per chunk.
    pub uniform: Vec<Instr>,
    /// Run for every tile.
    pub body: Vec<Instr>,
    /// What is kept.
    pub outputs: Vec<Output>,
    /// Number of registers.
    pub regs: usize,
}

/// Two tiles of one row never begin nearer to each other than this: the width of the portable product's tile, the
/// narrowest there is.
pub(crate) const PARTIAL_COLUMNS: usize = 8;

/// The number of partial sums that a program over `rows × cols` may write; see [`Output::Sum`].
pub(crate) fn partials_len(rows: usize, cols: usize) -> usize {
    rows * cols.div_ceil(PARTIAL_COLUMNS)
}

impl Program {
    /// Floating-point operations of the whole index space.
    pub fn flops(&self) -> u64 {
        let per_element: u64 = self.body.iter().map(Instr::flops).sum();
        let sums = self.outputs.iter().filter(|o| matches!(o, Output::Sum { .. })).count() as u64;
        (per_element + sums) * (self.rows * self.cols) as u64
    }

    /// The views it reads.
    pub fn reads(&self) -> impl Iterator<Item = View> + '_ {
        self.inputs.iter().map(|input| input.view)
    }

    /// The views it writes, in the order of its outputs.
    pub fn writes(&self) -> impl Iterator<Item = View> + '_ {
        self.outputs.iter().map(|output| match *output {
            Output::Store { view, .. } => view,
            Output::Sum { partials, .. } => partials,
        })
    }

    /// The names of the functions it applies, in order, for the plan's table.
    pub fn summary(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for instr in &self.body {
            names.push(match instr {
                Instr::Unary { f, .. } => f.name(),
                Instr::Binary { f, .. } => f.name(),
                Instr::Pow { .. } => "pow",
                Instr::Select { .. } => "select",
                Instr::Noise { normal: true, .. } => "normal",
                Instr::Noise { .. } => "uniform",
                Instr::SoftplusSigmoid { .. } => "softplus+sigmoid",
                _ => continue,
            });
        }
        if self.outputs.iter().any(|o| matches!(o, Output::Sum { .. })) {
            names.push("Σ");
        }
        names.join(" ")
    }
}

/// Collects instructions, each value once, and turns them into a [`Program`].
#[derive(Default)]
pub(crate) struct ProgramBuilder {
    inputs: Vec<Input>,
    code: Vec<Instr>,
    known: HashMap<Instr, Reg>,
    outputs: Vec<Output>,
    next: Reg,
}

impl ProgramBuilder {
    /// Emits an instruction built by `make` from its destination, or finds the equal one.
    pub fn emit(&mut self, make: impl Fn(Reg) -> Instr) -> Reg {
        let key = make(0);
        if let Some(&reg) = self.known.get(&key) {
            return reg;
        }
        let reg = self.next;
        self.next += 1;
        self.code.push(make(reg));
        self.known.insert(key, reg);
        reg
    }

    /// Emits a load of `input`.
    pub fn load(&mut self, input: Input) -> Reg {
        let index = self.inputs.iter().position(|i| *i == input).unwrap_or_else(|| {
            self.inputs.push(input);
            self.inputs.len() - 1
        });
        self.emit(|dst| Instr::Load { dst, input: index as u16 })
    }

    /// Keeps a register.
    pub fn output(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// The rule `bce`: softplus(a) and σ(a) share their exponential,
    ///
    /// ```text
    /// e = e^(−|a|)     softplus(a) = max(a, 0) + ln(1 + e)     σ(a) = (a ≥ 0 ? 1 : e) / (1 + e)
    /// ```
    ///
    /// so that −log p(x|z) = softplus(l) − x·l and its gradient (σ(l) − x)·c come out of one pass over the logits.
    pub fn pair_softplus_sigmoid(&mut self) {
        let find = |f: ScalarFn, code: &[Instr]| {
            let mut found: Vec<(Reg, Reg, usize)> = Vec::new();
            for (at, instr) in code.iter().enumerate() {
                if let Instr::Unary { dst, f: g, a } = *instr
                    && g == f
                {
                    found.push((a, dst, at));
                }
            }
            found
        };
        let sigmoids = find(ScalarFn::Sigmoid, &self.code);
        let mut dead = Vec::new();
        for (a, softplus, at) in find(ScalarFn::Softplus, &self.code) {
            if let Some(&(_, sigmoid, other)) = sigmoids.iter().find(|s| s.0 == a) {
                let (first, second) = (at.min(other), at.max(other));
                self.code[first] = Instr::SoftplusSigmoid { softplus, sigmoid, a };
                dead.push(second);
            }
        }
        dead.sort_unstable();
        dead.into_iter().rev().for_each(|at| {
            self.code.remove(at);
        });
    }

    /// The program over `rows × cols`: instructions that do not depend on the element are hoisted, and registers are
    /// reused after their last read. A destination never shares the register of an operand, so that every loop reads
    /// and writes different memory.
    pub fn finish(self, rows: usize, cols: usize) -> Program {
        let uniform = self.uniform_registers();
        let is_uniform = |i: &Instr| i.writes().into_iter().flatten().all(|r| uniform[r as usize]);
        let (hoisted, body): (Vec<Instr>, Vec<Instr>) = self.code.iter().partition(|i| is_uniform(i));
        let mut last = vec![0; self.next as usize];
        for (at, instr) in body.iter().enumerate() {
            instr.reads().into_iter().flatten().for_each(|r| last[r as usize] = at);
        }
        let kept = |o: &Output| match *o {
            Output::Store { reg, .. } | Output::Sum { reg, .. } => reg,
        };
        self.outputs.iter().for_each(|o| last[kept(o) as usize] = usize::MAX);

        let mut map: Vec<Reg> = vec![Reg::MAX; self.next as usize];
        let mut regs: Reg = 0;
        let mut fresh = |free: &mut Vec<Reg>| {
            free.pop().unwrap_or_else(|| {
                regs += 1;
                regs - 1
            })
        };
        let mut free = Vec::new();
        for reg in hoisted.iter().flat_map(|i| i.writes()).flatten() {
            map[reg as usize] = fresh(&mut free);
        }
        for (at, instr) in body.iter().enumerate() {
            for reg in instr.writes().into_iter().flatten() {
                map[reg as usize] = fresh(&mut free);
            }
            let mut ended: Vec<Reg> = instr.reads().into_iter().flatten().filter(|r| last[*r as usize] == at).collect();
            ended.sort_unstable();
            ended.dedup();
            let dead = instr.writes().into_iter().flatten().filter(|r| last[*r as usize] == 0);
            free.extend(ended.into_iter().filter(|r| !uniform[*r as usize]).chain(dead).map(|r| map[r as usize]));
        }
        let rename = |i: &Instr| i.renamed(|r| map[r as usize]);
        let outputs = self.outputs.iter().map(|o| match *o {
            Output::Store { reg, view } => Output::Store { reg: map[reg as usize], view },
            Output::Sum { reg, partials } => Output::Sum { reg: map[reg as usize], partials },
        });
        Program {
            rows,
            cols,
            uniform: hoisted.iter().map(rename).collect(),
            body: body.iter().map(rename).collect(),
            outputs: outputs.collect(),
            inputs: self.inputs,
            regs: regs as usize,
        }
    }

    /// Which registers hold the same value in every element.
    fn uniform_registers(&self) -> Vec<bool> {
        let mut uniform = vec![false; self.next as usize];
        for instr in &self.code {
            let same = match instr {
                Instr::Const { .. } | Instr::Ctl { .. } => true,
                Instr::Load { input, .. } => self.inputs[*input as usize].access == Access::Scalar,
                Instr::Acc { .. } | Instr::Noise { .. } => false,
                _ => instr.reads().into_iter().flatten().all(|r| uniform[r as usize]),
            };
            instr.writes().into_iter().flatten().for_each(|r| uniform[r as usize] = same);
        }
        uniform
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_reused_but_never_in_place() {
        let mut b = ProgramBuilder::default();
        let mut reg = b.emit(|dst| Instr::Acc { dst });
        for _ in 0..10 {
            let a = reg;
            reg = b.emit(|dst| Instr::Unary { dst, f: ScalarFn::Exp, a });
        }
        let two = b.emit(|dst| Instr::Const { dst, bits: 2f32.to_bits() });
        let last = b.emit(|dst| Instr::Binary { dst, f: BinaryFn::Mul, a: reg, b: two });
        b.output(Output::Sum { reg: last, partials: View::nowhere(1, 1) });
        let p = b.finish(4, 4);
        assert_eq!((p.uniform.len(), p.body.len(), p.regs), (1, 12, 3));
        for instr in &p.body {
            let writes: Vec<Reg> = instr.writes().into_iter().flatten().collect();
            assert!(instr.reads().into_iter().flatten().all(|r| !writes.contains(&r)), "{instr:?}");
        }
    }

    #[test]
    fn equal_instructions_are_emitted_once() {
        let mut b = ProgramBuilder::default();
        let a = b.emit(|dst| Instr::Acc { dst });
        let x = b.emit(|dst| Instr::Unary { dst, f: ScalarFn::Tanh, a });
        assert_eq!(x, b.emit(|dst| Instr::Unary { dst, f: ScalarFn::Tanh, a }));
    }
}
