//! Pointwise programs: what stands between two matrix products (bias, activation and its derivative, the likelihood with
//! its gradient, the reparameterised sample with its KL) is one [`Program`], run tile by tile.
//!
//! Here the step; `tiles.rs` runs a program on the CPU, kernels/program.cuh on a GPU.

mod tiles;

pub(crate) use tiles::{Rect, TiledProgram};

use super::{Kernel, Work};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{Lower, RowWork, params::PointwiseParams};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::plan::View;
use crate::engine::plan::program::Program;

/// A program that is a step of its own.
#[derive(Debug)]
pub(crate) struct Pointwise(pub Program);

impl Kernel for Pointwise {
    fn name(&self) -> &'static str {
        "pointwise"
    }

    fn detail(&self) -> String {
        format!("[{}, {}] {}", self.0.rows, self.0.cols, self.0.summary())
    }

    fn reads(&self) -> Vec<View> {
        self.0.reads().collect()
    }

    fn writes(&self) -> Vec<View> {
        self.0.writes().collect()
    }

    fn program(&self) -> Option<&Program> {
        Some(&self.0)
    }

    fn flops(&self) -> u64 {
        self.0.flops()
    }

    #[cfg(feature = "cuda")]
    fn by_rows(&self) -> Option<RowWork<'_>> {
        Some(RowWork::Pointwise(&self.0))
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        Box::new(TiledProgram::new(&self.0, to))
    }

    /// See kernels/pointwise.cu.
    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        let program = &self.0;
        let threads = match program.regs {
            0..=12 => 256,
            13..=24 => 128,
            25..=48 => 64,
            _ => 32,
        };
        let need = (program.rows * program.cols.div_ceil(4)).div_ceil(threads).max(1);
        let grid = need.div_ceil(need.div_ceil(2048));
        let shared = 16 * program.regs.max(1) * threads;
        let params = PointwiseParams { clock: to.clock, program: to.program(program, grid)? };
        let launch = to.launch("pointwise", [grid as u32, 1, 1], threads as u32, shared as u32, &params)?;
        to.runs(launch, program, true);
        Ok(())
    }
}
