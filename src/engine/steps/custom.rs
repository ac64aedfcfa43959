//! Operations that users of the library bring: [`CustomOp::run`] over contiguous operands, cut by rows of the value.

use std::sync::Arc;

use super::{Context, Kernel, Region, Work};
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::Lower;
#[cfg(feature = "cuda")]
use crate::engine::error::{Choice, Error, Result};
use crate::engine::ops::custom::{CustomOp, MOST_INPUTS, Operand};
use crate::engine::plan::View;
use crate::engine::shape::Shape;

/// Operations of one chunk, about: some microseconds, beside which handing out a chunk is nothing.
const FLOPS_PER_CHUNK: u64 = 16_384;

/// An operation of one's own as a step.
#[derive(Debug)]
pub(crate) struct Custom {
    pub op: Arc<dyn CustomOp>,
    /// The operands, contiguous, with their shapes.
    pub inputs: Vec<(View, Shape)>,
    /// The value, contiguous.
    pub out: View,
    /// Its shape.
    pub value: Shape,
}

impl Custom {
    fn shapes(&self) -> Vec<Shape> {
        self.inputs.iter().map(|(_, shape)| *shape).collect()
    }
}

impl Kernel for Custom {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn detail(&self) -> String {
        let inputs: Vec<String> = self.inputs.iter().map(|(_, shape)| shape.to_string()).collect();
        format!("{} → {}", inputs.join(", "), self.value)
    }

    fn reads(&self) -> Vec<View> {
        self.inputs.iter().map(|(view, _)| *view).collect()
    }

    fn writes(&self) -> Vec<View> {
        vec![self.out]
    }

    fn flops(&self) -> u64 {
        self.op.flops(&self.shapes(), self.value)
    }

    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work> {
        let (rows, cols) = self.value.matrix();
        let per_row = self.flops() / rows.max(1) as u64;
        let rows_per_chunk = (FLOPS_PER_CHUNK / per_row.max(1)).clamp(1, rows.max(1) as u64) as usize;
        let inputs = self.inputs.iter().map(|(view, shape)| (to.region(view), *shape)).collect();
        Box::new(CustomWork { op: self.op.clone(), inputs, out: to.region(&self.out), rows, cols, rows_per_chunk })
    }

    #[cfg(feature = "cuda")]
    fn lower(&self, _: &mut Lower<'_>) -> Result<()> {
        Err(Error::Device {
            device: "cuda".into(),
            reason: format!("the operation {} has no kernel for it, and is not composed of others", self.op.name()),
            remedy: Choice::Cpu
                .remedy("run this graph on the CPU, or say in CustomOp::compose what the value is made of"),
        })
    }
}

struct CustomWork {
    op: Arc<dyn CustomOp>,
    inputs: Vec<(Region, Shape)>,
    out: Region,
    rows: usize,
    cols: usize,
    rows_per_chunk: usize,
}

impl Work for CustomWork {
    fn chunks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_chunk)
    }

    unsafe fn run(&self, chunk: usize, _: &Context<'_>) {
        let from = chunk * self.rows_per_chunk;
        let rows = from..(from + self.rows_per_chunk).min(self.rows);
        let mut operands = [Operand { shape: Shape::scalar(), values: &[0.0] }; MOST_INPUTS];
        for (operand, &(region, shape)) in operands.iter_mut().zip(&self.inputs) {
            // SAFETY: the planner gave the operation its operands in one piece, of this shape.
            let values = unsafe { std::slice::from_raw_parts(region.ptr, shape.size()) };
            *operand = Operand { shape, values };
        }
        // SAFETY: the value is in one piece, and these rows of it belong to this chunk.
        let out =
            unsafe { std::slice::from_raw_parts_mut(self.out.ptr.add(rows.start * self.cols), rows.len() * self.cols) };
        self.op.run(&operands[..self.inputs.len()], rows, out);
    }
}
