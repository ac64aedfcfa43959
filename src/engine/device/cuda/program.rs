//! Pointwise programs as the kernels read them (kernels/params.cuh, `Program`; kernels/program.cuh interprets them).

use super::driver::Address;
use super::lower::too_large;
use super::params::{
    self, MAX_CODE, MAX_INPUTS, MAX_OUTPUTS, MAX_REGS, MAX_SUMS, SMALL_CODE, SMALL_INPUTS, SMALL_OUTPUTS,
};
use crate::engine::error::Result;
use crate::engine::graph::Ctl;
use crate::engine::ops::{BinaryFn, ScalarFn};
use crate::engine::plan::View;
use crate::engine::plan::program::{Access, Instr, Output, Program, Reg};

/// The numbers of `enum Op` in kernels/params.cuh.
mod op {
    pub const ACC: u8 = 0;
    pub const LOAD: u8 = 1;
    pub const CONST: u8 = 2;
    pub const CTL: u8 = 3;
    /// `imm` of [`CTL`] that stands for the step number.
    pub const CTL_STEP: u32 = 255;
    pub const NORMAL: u8 = 4;
    pub const UNIFORM: u8 = 5;
    pub const POW: u8 = 6;
    pub const SELECT: u8 = 7;
    pub const SOFTPLUS_SIGMOID: u8 = 8;
    pub const UNARY: u8 = 32;
    pub const BINARY: u8 = 96;
}

/// `program` with every view turned into an address.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device) when it does not fit into a kernel's parameters.
pub(super) fn encode(program: &Program, address: impl Fn(&View) -> Address) -> Result<params::Program> {
    let mut out = params::zeroed::<params::Program>();
    let uniform = code(&program.uniform);
    let body = code(&program.body);
    let sums = program.outputs.iter().filter(|o| matches!(o, Output::Sum { .. })).count();
    let limits = [
        ("instructions", uniform.len() + body.len(), MAX_CODE),
        ("operands in memory", program.inputs.len(), MAX_INPUTS),
        ("results", program.outputs.len(), MAX_OUTPUTS),
        ("sums", sums, MAX_SUMS),
        ("live values", program.regs, MAX_REGS),
    ];
    if let Some(&(what, found, most)) = limits.iter().find(|(_, found, most)| found > most) {
        return Err(too_large(what, found, most));
    }
    (out.rows, out.cols) = (program.rows as i32, program.cols as i32);
    (out.uniform_len, out.body_len) = (uniform.len() as u16, body.len() as u16);
    (out.inputs_len, out.outputs_len) = (program.inputs.len() as u16, program.outputs.len() as u16);
    (out.regs, out.sums) = (program.regs as u16, sums as u16);
    for (slot, instr) in out.code.iter_mut().zip(uniform.into_iter().chain(body)) {
        *slot = instr;
    }
    for (slot, input) in out.inputs.iter_mut().zip(&program.inputs) {
        let access = match input.access {
            Access::Full => 0,
            Access::Row => 1,
            Access::Col => 2,
            Access::Scalar => 3,
        };
        *slot = params::Input { ptr: address(&input.view), stride: input.view.stride as i32, access };
    }
    for (slot, output) in out.outputs.iter_mut().zip(&program.outputs) {
        *slot = match output {
            Output::Store { reg, view } => {
                params::Output { ptr: address(view), stride: view.stride as i32, reg: *reg, kind: 0 }
            }
            Output::Sum { reg, partials } => params::Output { ptr: address(partials), stride: 0, reg: *reg, kind: 1 },
        };
    }
    Ok(out)
}

/// Whether a program fits into a [`params::SmallProgram`].
pub(super) fn is_small(program: &Program) -> bool {
    let code = code(&program.uniform).len() + code(&program.body).len();
    code <= SMALL_CODE && program.inputs.len() <= SMALL_INPUTS && program.outputs.len() <= SMALL_OUTPUTS
}

/// A program that fits, without the room that it leaves.
pub(super) fn small(program: &params::Program) -> params::SmallProgram {
    let params::Program { rows, cols, uniform_len, body_len, inputs_len, outputs_len, regs, sums, compiled, .. } =
        *program;
    params::SmallProgram {
        rows,
        cols,
        uniform_len,
        body_len,
        inputs_len,
        outputs_len,
        regs,
        sums,
        compiled,
        code: std::array::from_fn(|i| program.code[i]),
        inputs: std::array::from_fn(|i| program.inputs[i]),
        outputs: std::array::from_fn(|i| program.outputs[i]),
    }
}

fn code(instrs: &[Instr]) -> Vec<params::Instr> {
    let mut code = Vec::with_capacity(instrs.len());
    for instr in instrs {
        code.push(encoded(instr));
        if let Instr::Pow { bits, .. } = *instr {
            // The exponent fills a slot of its own.
            let [op, dst, a, b, imm @ ..] = bits.to_le_bytes();
            code.push(params::Instr { op, dst, a, b, imm: u32::from_le_bytes(imm) });
        }
    }
    code
}

fn encoded(instr: &Instr) -> params::Instr {
    // Registers are below MAX_REGS, which was checked for the program.
    let reg = |r: Reg| r as u8;
    let make =
        |op: u8, dst: Reg, a: Reg, b: Reg, imm: u32| params::Instr { op, dst: reg(dst), a: reg(a), b: reg(b), imm };
    match *instr {
        Instr::Acc { dst } => make(op::ACC, dst, 0, 0, 0),
        Instr::Load { dst, input } => make(op::LOAD, dst, 0, 0, u32::from(input)),
        Instr::Const { dst, bits } => make(op::CONST, dst, 0, 0, bits),
        Instr::Ctl { dst, field } => {
            let number = match field {
                Ctl::Schedule(index) => u32::from(index),
                Ctl::Step => op::CTL_STEP,
            };
            make(op::CTL, dst, 0, 0, number)
        }
        Instr::Noise { dst, normal: true, stream } => make(op::NORMAL, dst, 0, 0, stream),
        Instr::Noise { dst, normal: false, stream } => make(op::UNIFORM, dst, 0, 0, stream),
        Instr::Pow { dst, a, .. } => make(op::POW, dst, a, 0, 0),
        Instr::Select { dst, q, a, b } => make(op::SELECT, dst, a, b, u32::from(q)),
        Instr::SoftplusSigmoid { softplus, sigmoid, a } => make(op::SOFTPLUS_SIGMOID, softplus, a, sigmoid, 0),
        Instr::Unary { dst, f, a } => make(op::UNARY + number_of(ScalarFn::ALL, f), dst, a, 0, 0),
        Instr::Binary { dst, f, a, b } => make(op::BINARY + number_of(BinaryFn::ALL, f), dst, a, b, 0),
    }
}

/// The place of a function in its table, which is its number in the kernels.
fn number_of<F: PartialEq + Copy>(all: &[F], f: F) -> u8 {
    all.iter().position(|&other| other == f).expect("the table has every function") as u8
}
