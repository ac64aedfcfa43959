//! The gradients of a step on the way to their sum over the ranks: through the memory of the host, or from GPU to GPU by NCCL.

use super::Ranks;
#[cfg(all(feature = "cuda", feature = "mpi"))]
use super::agreed;
#[cfg(all(feature = "cuda", feature = "mpi"))]
use crate::engine::device::cuda::nccl::{GpuGroup, GroupRoom, Nccl};
use crate::engine::device::{Array, Executor, Function, Many};
use crate::engine::error::Result;

/// Where the gradients of this rank are until they are summed.
pub(super) enum Gradients {
    Host(Vec<Vec<f32>>),
    #[cfg(all(feature = "cuda", feature = "mpi"))]
    Gpus(Box<GpuGroup>),
}

/// The way that gradients take, and on GPUs what is to be said of it.
pub(super) struct SumWay {
    pub gradients: Gradients,
    pub words: Option<String>,
}

impl SumWay {
    /// For gradients of these sizes: from GPU to GPU if all ranks have one and NCCL, else through the host.
    pub fn new(executor: &Executor, ranks: &dyn Ranks, sizes: &[usize]) -> SumWay {
        let host = || Gradients::Host(sizes.iter().map(|&size| vec![0.0; size]).collect());
        #[cfg(all(feature = "cuda", feature = "mpi"))]
        return match group(executor, ranks, sizes) {
            Ok(group) => {
                let words = Some("gradients are summed from GPU to GPU by NCCL".into());
                SumWay { gradients: Gradients::Gpus(Box::new(group)), words }
            }
            Err(reason) => {
                let said = || format!("gradients are summed through the memory of the host: {reason}");
                SumWay { gradients: host(), words: executor.gpu().is_some().then(said) }
            }
        };
        #[cfg(not(all(feature = "cuda", feature = "mpi")))]
        {
            let _ = (executor, ranks);
            SumWay { gradients: host(), words: None }
        }
    }
}

/// The group of all ranks' GPUs, or why there is none: for all ranks the same.
#[cfg(all(feature = "cuda", feature = "mpi"))]
fn group(executor: &Executor, ranks: &dyn Ranks, sizes: &[usize]) -> std::result::Result<GpuGroup, String> {
    let found = match executor.gpu() {
        Some(gpu) => Nccl::find().map(|nccl| (gpu, nccl)),
        None => Err("it computes on the CPU".into()),
    };
    let (gpu, nccl) = agreed(ranks, found)?;
    let id = agreed(ranks, if ranks.rank() == 0 { nccl.id() } else { Ok(Vec::new()) })?;
    let id = ranks.broadcast(id);
    // All that can fail on one rank alone comes before what waits for the others.
    let room = agreed(ranks, GroupRoom::new(gpu, ranks.size(), sizes))?;
    agreed(ranks, GpuGroup::join(nccl, room, &id, ranks.rank()))
}

impl Gradients {
    /// Takes this rank's from the outputs of its function, of which the first `others` are none, or has none.
    ///
    /// # Errors
    /// From the device.
    pub fn take(&mut self, from: Option<&Function<Many>>, others: usize) -> Result<()> {
        match (self, from) {
            (Gradients::Host(arrays), Some(from)) => {
                for (number, array) in arrays.iter_mut().enumerate() {
                    *array = from.read(others + number)?;
                }
            }
            (Gradients::Host(arrays), None) => arrays.iter_mut().for_each(|array| array.fill(0.0)),
            #[cfg(all(feature = "cuda", feature = "mpi"))]
            (Gradients::Gpus(group), Some(from)) => group.take(from, others)?,
            #[cfg(all(feature = "cuda", feature = "mpi"))]
            (Gradients::Gpus(group), None) => group.take_nothing()?,
        }
        Ok(())
    }

    /// Sums them over the ranks, into the inputs of a function.
    ///
    /// # Errors
    /// From the device.
    pub fn sum_into(&mut self, to: &mut Function<Array<0>>, ranks: &dyn Ranks) -> Result<()> {
        match self {
            Gradients::Host(arrays) => {
                ranks.sum(arrays);
                arrays.iter().enumerate().try_for_each(|(number, array)| to.write(number, array))
            }
            #[cfg(all(feature = "cuda", feature = "mpi"))]
            Gradients::Gpus(group) => group.sum_into(to),
        }
    }
}
