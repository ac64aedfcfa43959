//! Ranks that are processes of one `mpirun`, over the system's MPI.

use ::mpi::Threading;
use ::mpi::environment::Universe;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, CommunicatorCollectives, Root};

use super::{PORTION, Ranks};
use crate::engine::error::{Error, Remedy, Result};

/// All processes that one launcher started. MPI's own handling of errors stays as it is: where a rank is lost, all end.
pub struct Mpi {
    world: SimpleCommunicator,
    /// Leaves MPI when it is dropped, for which all ranks wait for each other.
    _universe: Universe,
}

impl Mpi {
    /// Joins the others, once in the life of a process.
    ///
    /// # Errors
    /// [`Error::Device`] when the process has joined already.
    pub fn join() -> Result<Mpi> {
        // The main thread alone speaks to MPI; those of the executor compute.
        let (universe, _) = ::mpi::initialize_with_threading(Threading::Funneled).ok_or_else(|| Error::Device {
            device: "mpi".into(),
            reason: "MPI was initialised already in this process".into(),
            remedy: Remedy::from("join once"),
        })?;
        Ok(Mpi { world: universe.world(), _universe: universe })
    }

    /// Ends all ranks at once, with this exit code: for one that cannot go on, for which the others would wait.
    pub fn abort(&self, code: u8) -> ! {
        self.world.abort(code.into())
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort(101);
        }
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn all_to_all(&self, mine: &[f32], parts: &mut [f32]) {
        self.world.all_to_all_into(mine, parts);
    }

    fn all_gather(&self, mine: &[f32], all: &mut [f32]) {
        self.world.all_gather_into(mine, all);
    }

    fn gather_numbers(&self, mine: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; mine.len() * self.size()];
        self.world.all_gather_into(mine, &mut all[..]);
        all
    }

    fn gather(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        let lengths: Vec<usize> = self.gather_numbers(&[mine.len() as f64]).iter().map(|&n| n as usize).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut parts = vec![Vec::with_capacity(longest); lengths.len()];
        let mut mine = mine.to_vec();
        mine.resize(longest, 0);
        for portion in mine.chunks(PORTION) {
            let mut all = vec![0; portion.len() * parts.len()];
            self.world.all_gather_into(portion, &mut all[..]);
            parts.iter_mut().zip(all.chunks(portion.len())).for_each(|(part, own)| part.extend_from_slice(own));
        }
        parts.iter_mut().zip(lengths).for_each(|(part, length)| part.truncate(length));
        parts
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let root = self.world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        root.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        bytes.chunks_mut(PORTION).for_each(|portion| root.broadcast_into(portion));
        bytes
    }
}
