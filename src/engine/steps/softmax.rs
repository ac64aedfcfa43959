//! The softmax of every row, its logarithm, and the gradients of both. Formulas in [`crate::engine::ops::softmax`].
//!
//! A chunk is some rows; a row is folded as in `reduce.rs`, in an order that depends on its length alone.

use super::reduce::{fold_row, maximum};
use super::{Context, Kernel, Region, Work};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{
    Lower,
    params::{self, SoftmaxParams, zeroed},
};
#[cfg(feature = "cuda")]
use crate::engine::error::Result;
use crate::engine::isa::Isa;
use crate::engine::math::Real;
use crate::engine::plan::View;

/// Elements written by one chunk, about: some 20 µs of exponentials.
const ELEMENTS_PER_CHUNK: usize = 8192;

/// A softmax, or its gradient, as a step.
#[derive(Debug)]
pub(crate) struct Softmax {
    /// The logarithm of the softmax instead.
    pub log: bool,
    /// The logits; of a gradient, the value y.
    pub x: View,
    /// Of a gradient, ∂loss/∂y.
    pub dy: Option<View>,
    /// The value, or ∂loss/∂x.
    pub out: View,
}

impl Kernel for Softmax {
    fn name(&self) -> &'static str {
        match (self.log, self.dy) {
            (false, None) => "softmax",
            (true, None) => "log_softmax",
            (false, Some(_)) => "softmax_grad",
            (true, Some(_)) => "log_softmax_grad",
        }
    }

    fn detail(&self) -> String {
        format!("[{}, {}]", self.out.rows, self.out.cols)
    }

    fn reads(&self) -> Vec<View> {
        [self.x].into_iter().chain(self.dy).collect()
    }

    fn writes(&self) -> Vec<View> {
        vec![self.out]
    }

    fn flops(&self) -> u64 {
        // An exponential counts as the ~20 operations of its polynomial.
        let per_element = match (self.log, self.dy) {
            (_, None) => 24,
            (false, Some(_)) => 4,
            (true, Some(_)) => 23,
        };
        per_element * self.out.size() as u64
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        let dy = self.dy.as_ref().map(|v| to.region(v));
        Box::new(SoftmaxWork { isa: to.isa, log: self.log, x: to.region(&self.x), dy, out: to.region(&self.out) })
    }

    /// See kernels/softmax.cu.
    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()> {
        let (kernel, dy) = match &self.dy {
            None => ("softmax_rows", zeroed::<params::View>()),
            Some(dy) => ("softmax_grad_rows", to.view(dy)),
        };
        let params =
            SoftmaxParams { x: to.view(&self.x), dy, out: to.view(&self.out), log: i32::from(self.log), pad: 0 };
        let team = if self.out.cols <= 1024 { 32 } else { 256 };
        let grid = (self.out.rows * team).div_ceil(256);
        to.launch(kernel, [grid as u32, 1, 1], 256, 4 * (256 / 32 + 1), &params)?;
        Ok(())
    }
}

struct SoftmaxWork {
    isa: Isa,
    log: bool,
    x: Region,
    dy: Option<Region>,
    out: Region,
}

impl SoftmaxWork {
    fn rows_per_chunk(&self) -> usize {
        (ELEMENTS_PER_CHUNK / self.out.cols).max(1)
    }
}

impl Work for SoftmaxWork {
    fn chunks(&self) -> usize {
        self.out.rows.div_ceil(self.rows_per_chunk())
    }

    unsafe fn run(&self, chunk: usize, _: &Context<'_>) {
        let per = self.rows_per_chunk();
        for r in chunk * per..((chunk + 1) * per).min(self.out.rows) {
            // SAFETY: all operands have the rows of `out`, and this row of it belongs to this chunk.
            let (x, dy, out) = unsafe { (self.x.row(r), self.dy.map(|dy| dy.row(r)), self.out.row_mut(r)) };
            self.isa.run(
                #[inline(always)]
                || match dy {
                    None => softmax(self.log, x, out),
                    Some(dy) => gradient(self.log, x, dy, out),
                },
            );
        }
    }
}

/// y = softmax(x), or its logarithm.
#[inline(always)]
fn softmax(log: bool, x: &[f32], y: &mut [f32]) {
    let m = fold_row(x, f32::NEG_INFINITY, maximum);
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = Real::exp(x - m));
    let sum = fold_row(y, 0.0, |a, b| a + b);
    if log {
        let log_sum = Real::log(sum);
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - m) - log_sum);
    } else {
        y.iter_mut().for_each(|y| *y /= sum);
    }
}

/// ∂loss/∂x from y and ∂loss/∂y.
#[inline(always)]
fn gradient(log: bool, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let of = y.iter().zip(dy);
    if log {
        let sum = fold_row(dy, 0.0, |a, b| a + b);
        dx.iter_mut().zip(of).for_each(|(dx, (&y, &dy))| *dx = dy - Real::exp(y) * sum);
    } else {
        dx.iter_mut().zip(of.clone()).for_each(|(dx, (&y, &dy))| *dx = y * dy);
        let sum = fold_row(dx, 0.0, |a, b| a + b);
        dx.iter_mut().zip(of).for_each(|(dx, (&y, &dy))| *dx = y * (dy - sum));
    }
}
