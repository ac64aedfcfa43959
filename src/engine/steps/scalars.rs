//! Scalars: partial sums added up in a fixed order, arithmetic on the results, and running sums of metrics.

#[cfg(feature = "cuda")]
use std::mem::offset_of;

use super::{Context, Kernel, Region, Work, pointwise};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{
    Lower,
    params::{MAX_METRICS, MAX_TOTALS, Metric, ScalarsParams, Total, zeroed},
};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::isa::Isa;
use crate::engine::plan::View;
use crate::engine::plan::program::Program;

/// Partial sums to scalars, arithmetic on scalars, metrics: one step.
#[derive(Debug)]
pub(crate) struct Scalars {
    /// (partial sums, total).
    pub totals: Vec<(View, View)>,
    /// The arithmetic.
    pub program: Program,
    /// (scalar, number of the metric).
    pub metrics: Vec<(View, usize)>,
}

impl Kernel for Scalars {
    fn name(&self) -> &'static str {
        "scalars"
    }

    fn detail(&self) -> String {
        let sums: Vec<String> = self.totals.iter().map(|(p, _)| format!("Σ{}", p.cols)).collect();
        format!("{} {} → {} metrics", sums.join(" "), self.program.summary(), self.metrics.len())
    }

    fn reads(&self) -> Vec<View> {
        let own = self.writes();
        let operands = self.program.reads().chain(self.totals.iter().map(|(partials, _)| *partials));
        let all = operands.chain(self.metrics.iter().map(|(scalar, _)| *scalar));
        all.filter(|view| !own.contains(view)).collect()
    }

    fn writes(&self) -> Vec<View> {
        self.program.writes().chain(self.totals.iter().map(|(_, total)| *total)).collect()
    }

    fn program(&self) -> Option<&Program> {
        Some(&self.program)
    }

    fn flops(&self) -> u64 {
        self.totals.iter().map(|(partials, _)| partials.size() as u64).sum::<u64>() + self.program.flops()
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        Box::new(ScalarsWork {
            isa: to.isa,
            totals: self.totals.iter().map(|(from, total)| (to.region(from), to.region(total))).collect(),
            program: pointwise::TiledProgram::new(&self.program, to),
            metrics: self.metrics.iter().map(|(view, i)| (to.region(view), *i)).collect(),
        })
    }

    /// Totals, then the program, then metrics. A launch has room for [`MAX_TOTALS`] and [`MAX_METRICS`]; more take more
    /// launches, in an order that keeps the three stages apart.
    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        let empty = ScalarsParams { clock: to.clock, ..zeroed() };
        let total_parts: Vec<&[(View, View)]> = self.totals.chunks(MAX_TOTALS).collect();
        let metric_parts: Vec<&[(View, usize)]> = self.metrics.chunks(MAX_METRICS).collect();
        let (early, with_program) = total_parts.split_at(total_parts.len().saturating_sub(1));
        let mut launches = Vec::new();
        for part in early {
            launches.push(with_totals(to, empty, part));
        }
        let mut middle = with_totals(to, empty, with_program.first().copied().unwrap_or(&[]));
        middle.program = to.program(&self.program, 1)?;
        launches.push(with_metrics(to, middle, metric_parts.first().copied().unwrap_or(&[])));
        for part in metric_parts.iter().skip(1) {
            launches.push(with_metrics(to, empty, part));
        }
        for params in launches {
            let runs = params.program.body_len > 0 || params.program.uniform_len > 0;
            let regs = if runs { self.program.regs } else { 0 };
            let shared = (16 * regs).max(64 * params.totals_len as usize).max(32);
            let launch = to.launch("scalars", [1, 1, 1], 256, shared as u32, &params)?;
            to.can_end_step(launch, offset_of!(ScalarsParams, end));
            if runs {
                to.runs(launch, &self.program, false);
            }
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
fn with_totals(to: &Lower<'_>, mut params: ScalarsParams, totals: &[(View, View)]) -> ScalarsParams {
    for (slot, (partials, total)) in params.totals.iter_mut().zip(totals) {
        let len = to.partial_sums(partials) as i32;
        *slot = Total { partials: to.address(partials), total: to.address(total), len, pad: 0 };
    }
    params.totals_len = totals.len() as i32;
    params
}

#[cfg(feature = "cuda")]
fn with_metrics(to: &Lower<'_>, mut params: ScalarsParams, metrics: &[(View, usize)]) -> ScalarsParams {
    for (slot, (value, number)) in params.metrics.iter_mut().zip(metrics) {
        *slot = Metric { value: to.address(value), sum: to.running_sum(*number) };
    }
    params.metrics_len = metrics.len() as i32;
    params
}

struct ScalarsWork {
    isa: Isa,
    /// (partial sums, where their total goes).
    totals: Vec<(Region, Region)>,
    /// Arithmetic on scalars.
    program: pointwise::TiledProgram,
    /// (scalar, index of the running sum).
    metrics: Vec<(Region, usize)>,
}

impl Work for ScalarsWork {
    fn chunks(&self) -> usize {
        1
    }

    fn scratch(&self) -> usize {
        self.program.scratch()
    }

    unsafe fn run(&self, _: usize, with: &Context<'_>) {
        for (partials, total) in &self.totals {
            // SAFETY: partial sums are one contiguous row.
            let x = unsafe { partials.row(0) };
            // SAFETY: as promised by the caller.
            unsafe {
                *total.ptr = self.isa.run(
                    #[inline(always)]
                    || add_up(x),
                ) as f32
            };
        }
        // SAFETY: as promised by the caller.
        unsafe {
            self.program.run(0, with);
            for (scalar, index) in &self.metrics {
                *with.sums.add(*index) += f64::from(*scalar.ptr);
            }
        }
    }
}

/// Eight running sums in f64, then their total in order: thousands of partial sums lose nothing.
#[inline(always)]
fn add_up(x: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let blocks = x.chunks_exact(8);
    let rest = blocks.remainder();
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane += f64::from(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(v);
    }
    lanes.iter().sum()
}
