//! The gradients of a step on the way to their sum over the ranks: through the memory of the host, or from GPU to GPU by NCCL.

use super::Ranks;
#[cfg(all(feature = "cuda", feature = "mpi"))]
use super::agreed;
#[cfg(all(feature = "cuda", feature = "mpi"))]
use crate::engine::device::cuda::nccl::{Group, Nccl};
use crate::engine::device::{Array, Executor, Function, Many};
use crate::engine::error::Result;

/// Where the gradients of this rank are until they are summed.
pub(super) enum Gradients {
    Host(Vec<Vec<f32>>),
    #[cfg(all(feature = "cuda", feature = "mpi"))]
    Gpus(Box<Group>),
}

/// The way that gradients take, and on GPUs what is to be said of it.
pub(super) struct Way {
    pub gradients: Gradients,
    pub words: Option<String>,
}

impl Way {
    /// For gradients of these sizes: from GPU to GPU if all ranks have one and NCCL, else through the host.
    pub fn new(executor: &Executor, ranks: &dyn Ranks, sizes: &[usize]) -> Way {
        let host = || Gradients::Host(sizes.iter().map(|&size| vec![0.0; size]).collect());
        #[cfg(all(feature = "cuda", feature = "mpi"))]
        return match group(executor, ranks, sizes) {
            Ok(group) => {
                let words = Some("gradients are summed from GPU to GPU by NCCL".into());
                Way { gradients: Gradients::Gpus(Box::new(group)), words }
            }
            Err(reason) => {
                let said = || format!("gradients are summed through the memory of the host: {reason}");
                Way { gradients: host(), words: executor.gpu().is_some().then(said) }
            }
        };
        #[cfg(not(all(feature = "cuda", feature = "mpi")))]
        {
            let _ = (executor, ranks);
            Way { gradients: host(), words: None }
        }
    }
}

/// The group of all ranks' GPUs, or why there is none: for all ranks the same.
#[cfg(all(feature = "cuda", feature = "mpi"))]
fn group(executor: &Executor, ranks: &dyn Ranks, sizes: &[usize]) -> std::result::Result<Group, String> {
    let found = match executor.gpu() {
        Some(gpu) => Nccl::find().map(|nccl| (gpu, nccl)),
        None => Err("it computes on the CPU".into()),
    };
    let (gpu, nccl) = agreed(ranks, found)?;
    let id = agreed(ranks, if ranks.rank() == 0 { nccl.id() } else { Ok(Vec::new()) })?;
    let id = ranks.broadcast(id);
    agreed(ranks, Group::join(nccl, gpu, &id, ranks.rank(), ranks.size(), sizes))
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
