//! Programs that the kernels are compiled for, and the file that lists them.
//!
//! A program's *form* is its instructions and registers without the numbers that differ from plan to plan: constants, streams of
//! noise, addresses. kernels/programs.cuh has the forms that the usual models come to; a program of one of them gets its
//! number, by which kernels/compiled.cuh runs it, and any other is interpreted, with the same bits. The file is written by
//! [`text`]; `tests/compiled_programs.rs` compares the two.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use super::program::{encode, is_small};
use crate::engine::plan::Plan;
use crate::engine::plan::program::{Instr, Output, Program};

const FILE: &str = include_str!("../../../../kernels/programs.cuh");

const HEAD: &str = "\
// The programs that kernels are compiled for (compiled.cuh), as the engine writes them. Not to be changed by hand:
//   ELBO_WRITE=1 cargo test --test compiled_programs
// Each instruction is {operation, destination, operands, immediate}; see params.cuh.
#pragma once
";

/// The number of a program, from 1; 0 for one that is to be interpreted.
pub(super) fn number(program: &Program) -> u32 {
    /// From forms to numbers.
    static NUMBERS: LazyLock<HashMap<&'static str, u32>> =
        LazyLock::new(|| FILE.split("struct ").skip(1).map(body).zip(1..).collect());
    form(program).and_then(|form| NUMBERS.get(form.as_str()).copied()).unwrap_or(0)
}

/// What stands between the first line of a struct and its end.
fn body(text: &'static str) -> &'static str {
    let text = text.split_once('\n').map_or("", |(_, rest)| rest);
    text.split_once("};\n\n").map_or("", |(body, _)| body)
}

/// The text of kernels/programs.cuh for the programs of some plans that have no hand-written epilogue, each form once.
pub fn text(plans: &[Plan]) -> String {
    let mut forms: Vec<(String, String)> = Vec::new();
    let programs = plans.iter().flat_map(|plan| plan.steps.iter().filter(|step| step.kernel.by_rows().is_some()));
    for program in programs.filter_map(|step| step.kernel.program()) {
        let hand_written = crate::engine::steps::gemm::cuda::epilogue(program).is_some();
        let Some(form) = form(program).filter(|_| !hand_written) else { continue };
        if !forms.iter().any(|(known, _)| *known == form) {
            forms.push((form, program.summary()));
        }
    }
    let mut text = HEAD.to_string();
    let names: Vec<String> = (1..=forms.len()).map(|number| format!("Program{number}")).collect();
    for ((form, summary), name) in forms.iter().zip(&names) {
        write!(text, "\n// {}\nstruct {name} {{\n{form}}};\n", plain(summary)).expect("a string");
    }
    let list: Vec<String> = names.iter().zip(1..).map(|(name, number)| format!(" X({number}, {name})")).collect();
    write!(text, "\n#define ELBO_COMPILED_PROGRAMS(X) \\\n   {}\n", list.join(" \\\n   ")).expect("a string");
    text
}

/// A summary in the letters that every compiler reads.
fn plain(summary: &str) -> String {
    summary.replace('Σ', "sum").replace('→', "->")
}

/// The form of a program as the body of a C++ struct; none where it does not fit or has an instruction that is always
/// interpreted.
fn form(program: &Program) -> Option<String> {
    let interpreted = |i: &Instr| matches!(i, Instr::Pow { .. } | Instr::Select { .. });
    let all = || program.uniform.iter().chain(&program.body);
    if !is_small(program) || all().any(interpreted) || program.body.is_empty() {
        return None;
    }
    let encoded = encode(program, |_| 0).ok()?;
    let varies = |i: &Instr| matches!(i, Instr::Const { .. } | Instr::Noise { .. });
    let instr = |(code, instr): (&super::params::Instr, &Instr)| {
        let imm = if varies(instr) { 0 } else { code.imm };
        format!("{{{}, {}, {}, {}, {imm}}}", code.op, code.dst, code.a, code.b)
    };
    let code: Vec<String> = encoded.code.iter().zip(all()).map(instr).collect();
    let kept = |output: &Output| match output {
        Output::Store { reg, .. } => format!("{{{reg}, 0}}"),
        Output::Sum { reg, .. } => format!("{{{reg}, 1}}"),
    };
    let kept: Vec<String> = program.outputs.iter().map(kept).collect();
    let mut text = format!(
        "    static constexpr int REGS = {}, UNIFORM = {}, BODY = {}, OUTPUTS = {};\n",
        program.regs.max(1),
        program.uniform.len(),
        program.body.len(),
        kept.len()
    );
    text += "    static constexpr Instr CODE[] = {\n";
    for line in code.chunks(6) {
        text += &format!("        {},\n", line.join(", "));
    }
    text += &format!("    }};\n    static constexpr Kept KEPT[] = {{{}}};\n", kept.join(", "));
    Some(text)
}
