//! The kernels: one room per family, a file or a folder, with its formula, what it reads and writes and costs, its CPU form
//! and how that is cut into chunks, and its launch on a GPU, whose code is the file of the same name in `kernels/`.
//!
//! | room | kernel |
//! |---|---|
//! | [`gemm`] | the matrix product, with a pointwise program as its epilogue and column sums on the side |
//! | `pointwise` | pointwise programs on their own |
//! | `batch` | the batch, gathered from the resident bytes |
//! | `reduce` | sums and maxima over axes |
//! | `softmax` | the softmax of rows and its logarithm, with their gradients |
//! | `layout` | everything that only moves elements |
//! | `scalars` | partial sums to scalars, and arithmetic on scalars |
//! | `custom` | operations that users of the library bring |
//! | `optimize` | the update of all parameters |
//!
//! What the rooms have in common is the trait in `kernel.rs`, and nothing outside of them asks which family a kernel is of.
//!
//! A step is cut into chunks by its shape alone. Chunks are independent: any thread may run any chunk in any order,
//! and the bits do not depend on it.

pub(crate) mod batch;
pub(crate) mod custom;
pub mod gemm;
mod kernel;
pub(crate) mod layout;
pub(crate) mod optimize;
pub(crate) mod pointwise;
pub(crate) mod reduce;
pub(crate) mod scalars;
pub(crate) mod softmax;

pub(crate) use kernel::{BadIndex, Context, DataRows, DataUse, Kernel, Numbers, Work};

use crate::engine::graph::MOST_SCHEDULES;
use crate::engine::optim::UpdateScalars;

/// Asks for the cache line at `p`, which need not be a valid address. Nothing where there is no such instruction in stable Rust.
#[inline(always)]
pub(crate) fn prefetch(p: *const f32) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint; no address faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = p;
}

/// A rectangle of f32 in memory: what a [`View`](crate::engine::plan::View) becomes when a plan is bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub ptr: *mut f32,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

// SAFETY: a region is an address; who may touch it when is the planner's business (waves), checked by
// `Plan::verify`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// The address of element (row, col).
    ///
    /// # Safety
    /// The element lies inside the rectangle, or one past its end.
    #[inline(always)]
    pub unsafe fn at(&self, row: usize, col: usize) -> *mut f32 {
        // SAFETY: as promised by the caller.
        unsafe { self.ptr.add(row * self.stride + col) }
    }

    /// Row `row` as a slice.
    ///
    /// # Safety
    /// The row is inside the rectangle and nobody writes it meanwhile.
    #[inline(always)]
    pub unsafe fn row<'a>(&self, row: usize) -> &'a [f32] {
        // SAFETY: as promised by the caller.
        unsafe { std::slice::from_raw_parts(self.at(row, 0), self.cols) }
    }

    /// Row `row` for writing.
    ///
    /// # Safety
    /// The row is inside the rectangle and nobody else touches it meanwhile.
    #[inline(always)]
    pub unsafe fn row_mut<'a>(&self, row: usize) -> &'a mut [f32] {
        // SAFETY: as promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(row, 0), self.cols) }
    }
}

/// The numbers of one step; see [`Sequence`](crate::engine::device::call::Sequence).
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepValues {
    pub seed: u64,
    pub step: u32,
    pub epoch: u32,
    pub cursor: u32,
    pub shuffle: bool,
    /// In the order of [`Graph::schedules`](crate::engine::graph::Graph::schedules).
    pub schedules: [f32; MOST_SCHEDULES],
    pub update: UpdateScalars,
}
