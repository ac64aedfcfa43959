//! Data-parallel training: N processes, the *ranks*, make every update together. Each computes the gradient of its
//! [share](crate::vae::Share) of the batch, the gradients are summed, and all make the same update.
//!
//! ```text
//! ∇ (1/B) Σ_batch loss(x)  =  Σ_rank ∇ (1/B) Σ_share loss(x)
//! ```
//!
//! What the ranks exchange is summed in their order, in f64, and rounded once. So the result is the same in every run with N ranks,
//! all ranks hold the same bits, and these differ from those of one rank by rounding alone: every image meets the same
//! noise on any N. A checkpoint knows nothing of N and goes on with any.
//!
//! Rank 0 alone evaluates, reports and saves; the others wait for it at the next exchange.

mod gradients;
#[cfg(feature = "mpi")]
mod mpi;
mod start;
mod step;
#[cfg(test)]
mod tests;

#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use start::{dismiss, follow, lead};
pub(super) use step::{SharedUpdate, TrainStep};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TrainConfig;
use crate::engine::error::{Error, Result};

/// Numbers that are exchanged at a time: what a rank must have room for besides its gradient, and few enough to be counted in
/// the 32 bits of MPI.
const PORTION: usize = 1 << 22;

/// One of several processes that train together, and its way to the others. Every method is called by all ranks, in the same
/// order and with as many numbers, and waits for all of them. An implementation whose way to another rank is lost ends the
/// process.
///
/// [`Ranks::sum`] is all that the mathematics asks for. Gradients on GPUs need not come this way: `gradients.rs`.
pub trait Ranks {
    /// Its number, from 0.
    fn rank(&self) -> usize;

    /// N.
    fn size(&self) -> usize;

    /// Part i of `mine`, which is cut into N equal parts, goes to rank i; `parts` becomes what came from ranks 0, 1, ….
    fn all_to_all(&self, mine: &[f32], parts: &mut [f32]);

    /// `all` becomes what ranks 0, 1, … have as `mine`.
    fn all_gather(&self, mine: &[f32], all: &mut [f32]);

    /// What ranks 0, 1, … have as `mine`, one after the other.
    fn gather_numbers(&self, mine: &[f64]) -> Vec<f64>;

    /// What ranks 0, 1, … have as `mine`, each of its own length.
    fn gather(&self, mine: &[u8]) -> Vec<Vec<u8>>;

    /// The bytes that rank 0 has; those of the others are of no account.
    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8>;

    /// Replaces every number by its sum over the ranks, in their order, in f64, rounded once: on all ranks the same bits.
    ///
    /// Each rank adds up an N-th of the numbers, which every other then gets from it: 2 (N − 1)/N of their bytes leave a rank,
    /// and as many arrive (Rabenseifner 2004, doi 10.1007/978-3-540-24685-5_1).
    fn sum(&self, arrays: &mut [Vec<f32>]) {
        let ranks = self.size();
        let portion = PORTION.next_multiple_of(ranks);
        let mut flat: Vec<f32> = arrays.iter().flatten().copied().collect();
        let numbers = flat.len();
        flat.resize(numbers.next_multiple_of(ranks), 0.0);
        let mut parts = vec![0.0; portion.min(flat.len())];
        let mut summed = vec![0.0; parts.len() / ranks];
        for portion in flat.chunks_mut(portion) {
            let (parts, summed) = (&mut parts[..portion.len()], &mut summed[..portion.len() / ranks]);
            self.all_to_all(portion, parts);
            for (i, sum) in summed.iter_mut().enumerate() {
                *sum = parts[i..].iter().step_by(portion.len() / ranks).map(|&x| f64::from(x)).sum::<f64>() as f32;
            }
            self.all_gather(summed, portion);
        }
        let mut rest = &flat[..];
        for array in arrays {
            let (own, others) = rest.split_at(array.len());
            array.copy_from_slice(own);
            rest = others;
        }
    }
}

/// The rank of `size` that does task `i`: one after the other, and in each round a place further, because tasks that are alike often
/// follow one another at a distance that N divides.
const fn rank_of_task(i: usize, size: usize) -> usize {
    (i + i / size) % size
}

/// Of `count` tasks those of this rank.
pub fn own_tasks(ranks: Option<&dyn Ranks>, count: usize) -> Vec<usize> {
    let (rank, size) = ranks.map_or((0, 1), |ranks| (ranks.rank(), ranks.size()));
    (0..count).filter(|&i| rank_of_task(i, size) == rank).collect()
}

/// What each of `count` tasks came to, of which every rank did its [own](own_tasks): on all ranks the same.
///
/// # Errors
/// [`Error::File`] when the ranks are different versions of the program, or did not have the same tasks.
pub fn gather_tasks<T: Serialize + DeserializeOwned>(
    ranks: Option<&dyn Ranks>,
    count: usize,
    own: Vec<T>,
) -> Result<Vec<T>> {
    let Some(ranks) = ranks else { return Ok(own) };
    let bytes = serde_json::to_vec(&own).expect("what a task comes to is plain data");
    let parts: Vec<Vec<T>> = ranks
        .gather(&bytes)
        .iter()
        .enumerate()
        .map(|(rank, bytes)| serde_json::from_slice(bytes).map_err(start::other_version(rank, "results")))
        .collect::<Result<_>>()?;
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    let size = parts.len();
    let missing = |rank: usize| Error::File {
        path: format!("rank {rank}").into(),
        field: "results".into(),
        found: "another number of tasks".into(),
        expected: format!("its share of {count}"),
        remedy: "start all ranks where they see the same files".into(),
    };
    let all: Vec<T> = (0..count)
        .map(|i| rank_of_task(i, size))
        .map(|rank| parts[rank].next().ok_or_else(|| missing(rank)))
        .collect::<Result<_>>()?;
    match parts.iter().position(|part| part.len() > 0) {
        Some(rank) => Err(missing(rank)),
        None => Ok(all),
    }
}

/// The sum of each number over the ranks, in their order.
fn sum_numbers<const K: usize>(ranks: &(impl Ranks + ?Sized), mine: [f64; K]) -> [f64; K] {
    let all = ranks.gather_numbers(&mine);
    std::array::from_fn(|i| all[i..].iter().step_by(K).sum())
}

/// What this rank has found, if all ranks have found theirs; else why the first that has not has none.
#[cfg(all(feature = "cuda", feature = "mpi"))]
fn agreed<T>(ranks: &dyn Ranks, own: std::result::Result<T, String>) -> std::result::Result<T, String> {
    let reason = own.as_ref().err().cloned().unwrap_or_default();
    let all = ranks.gather(reason.as_bytes());
    match all.iter().position(|reason| !reason.is_empty()) {
        Some(rank) => Err(format!("on rank {rank}, {}", String::from_utf8_lossy(&all[rank]))),
        None => own,
    }
}

/// What all ranks do next: whether any was asked to stop, and how many steps rank 0 would make in one call, which depends on its
/// clock.
pub(super) fn agree(ranks: &dyn Ranks, stop: bool, steps: usize) -> (bool, usize) {
    let all = ranks.gather_numbers(&[f64::from(u8::from(stop)), steps as f64]);
    (all.iter().step_by(2).any(|&stop| stop > 0.0), all[1] as usize)
}

/// Refuses what cannot be trained by `ranks` ranks.
///
/// # Errors
/// [`Error::Argument`] when the objective of a batch is not a sum over its images, or when a rank would never have one.
pub fn check(config: &TrainConfig, ranks: usize) -> Result<()> {
    if config.batch < ranks {
        return Err(Error::argument("batch", config.batch, format!("at least {ranks}, an image for each rank")));
    }
    match config.objective.bound.of_the_batch(&config.model) {
        Some((field, found)) if ranks > 1 => {
            let expected =
                format!("an objective that is a sum over the images of a batch, or one rank instead of {ranks}");
            Err(Error::argument(field, found, expected))
        }
        _ => Ok(()),
    }
}
