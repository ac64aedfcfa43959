//! What a family of kernels says of itself. The planner, both executors and the benchmarks see nothing else of it.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::StepValues;
#[cfg(feature = "cuda")]
use super::optimize::Optimize;
use crate::engine::device::cpu::Binder;
#[cfg(feature = "cuda")]
use crate::engine::device::cuda::{Lower, RowWork};
use crate::engine::error::{Error, Result};
use crate::engine::graph::Slot;
use crate::engine::ops::layout::Lookup;
use crate::engine::plan::View;
use crate::engine::plan::program::Program;

/// A kernel with its operands, which have no addresses yet: one step of a plan.
pub(crate) trait Kernel: fmt::Debug + Send + Sync {
    /// The kernel's name.
    fn name(&self) -> &'static str;

    /// The sizes and functions, for the plan's table.
    fn detail(&self) -> String;

    /// The views it reads, without those that it writes itself before.
    fn reads(&self) -> Vec<View>;

    /// The views it writes, parameters and running sums apart.
    fn writes(&self) -> Vec<View>;

    /// The parameters it updates.
    fn updates(&self) -> Vec<Slot> {
        Vec::new()
    }

    /// The pointwise program it runs, if any.
    fn program(&self) -> Option<&Program> {
        None
    }

    /// Floating-point operations.
    fn flops(&self) -> u64;

    /// Bytes read and written, each operand once.
    fn bytes(&self) -> u64 {
        self.reads().iter().chain(&self.writes()).map(View::bytes).sum()
    }

    /// Those of its bytes that may be gradients of parameters.
    fn gradient_bytes(&self) -> u64 {
        0
    }

    /// Bytes of the memory that it goes through: as [`Kernel::bytes`], with what is both read and written counted once.
    fn footprint(&self) -> u64 {
        let views: HashSet<View> = self.reads().into_iter().chain(self.writes()).collect();
        views.iter().map(View::bytes).sum()
    }

    /// Whether there is nothing that it would write, so that it is no step.
    fn is_empty(&self) -> bool {
        self.updates().is_empty() && self.writes().iter().all(|v| v.size() == 0)
    }

    /// Whether its operations are those of a matrix product, which may run on tensor cores.
    fn is_product(&self) -> bool {
        false
    }

    /// The update of parameters that it is, if it is one.
    #[cfg(feature = "cuda")]
    fn update(&self) -> Option<&Optimize> {
        None
    }

    /// Whether its CUDA kernel can update the parameters whose gradients it makes, in place of writing these.
    #[cfg(feature = "cuda")]
    fn can_update(&self) -> bool {
        false
    }

    /// Whether it gathers the batch of the step, and reads nothing that another step makes.
    #[cfg(feature = "cuda")]
    fn gathers_batch(&self) -> bool {
        false
    }

    /// What it does with every row, if row r of what it writes needs only row r of what steps before it write.
    #[cfg(feature = "cuda")]
    fn by_rows(&self) -> Option<RowWork<'_>> {
        None
    }

    /// The kernel on the CPU, its operands found by `to`.
    fn bind(&self, to: &Binder<'_>) -> Box<dyn Work>;

    /// The kernel on a GPU: its launches are handed to `to`, which also knows the addresses of the operands.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when there is no such kernel, or no room in its parameters.
    #[cfg(feature = "cuda")]
    fn lower(&self, to: &mut Lower<'_>) -> Result<()>;
}

/// A kernel on the CPU, with addresses, cut into chunks.
pub(crate) trait Work: Send + Sync {
    /// The number of chunks. Any thread may run any chunk in any order, and the bits do not depend on it.
    fn chunks(&self) -> usize;

    /// f32 words of scratch that a thread needs.
    fn scratch(&self) -> usize {
        0
    }

    /// The data set it reads, which has an address only while a run lasts.
    fn data(&mut self) -> Option<&mut DataUse> {
        None
    }

    /// Runs one chunk.
    ///
    /// # Safety
    /// `chunk` < [`Work::chunks`]; nobody else touches what the chunk writes or writes what it reads; the memory that
    /// it was bound to lives, the data set is that of this run; and what [`Context`] says of its fields.
    unsafe fn run(&self, chunk: usize, with: &Context<'_>);
}

/// What a chunk is run with.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The numbers of this step.
    pub values: &'a StepValues,
    /// This thread's own memory, aligned to 64 bytes, as large as [`Work::scratch`].
    pub scratch: *mut f32,
    /// Room for the plan's running sums.
    pub sums: *mut f64,
    /// Told by a kernel that meets an index outside its table.
    pub bad_index: &'a BadIndex,
}

/// The first index of a run that named no row or column: of the earliest step, the operation that was made first, and its
/// first row, whichever thread comes first.
#[derive(Default)]
pub(crate) struct BadIndex(Mutex<Option<(Met, Error)>>);

/// Step, node and row where an index was met.
type Met = (u32, usize, usize);

impl BadIndex {
    /// Row `row` of `lookup` has a bad index in step number `step`.
    pub fn report(&self, step: u32, lookup: &Lookup, row: usize, index: f64) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (step, lookup.node, row);
        if first.as_ref().is_none_or(|(known, _)| place < *known) {
            *first = Some((place, lookup.fails(row, index)));
        }
    }

    /// The error, if there was one.
    pub fn into_result(self) -> Result<()> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// A data set that a kernel reads.
pub(crate) struct DataUse {
    /// Its name.
    pub slot: String,
    /// Where it is.
    pub rows: DataRows,
}

/// The first number of a data set in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    Bytes(*const u8),
    Floats(*const f32),
}

/// A data set in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataRows {
    pub numbers: Numbers,
    pub count: usize,
    pub columns: usize,
}

// SAFETY: the numbers are only read while plans run.
unsafe impl Send for DataRows {}
// SAFETY: as above.
unsafe impl Sync for DataRows {}
