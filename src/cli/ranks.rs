//! `elbo train` and `elbo sweep` by several processes, the ranks, under a launcher such as `mpirun`; every other command is one
//! process.

use std::env;
use std::process::ExitCode;
use std::rc::Rc;

use super::interrupt::Interrupt;
use crate::engine::device::Device;
use crate::engine::error::{Error, Result};
use crate::train::ranks::{self, Ranks};

/// Where launchers say how many processes they started: Open MPI's; MPICH's and those made of it; MVAPICH's.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"];

/// How many processes were started together with this one, which is one of them.
fn launched() -> usize {
    SIZES.iter().find_map(|name| env::var(name).ok()?.parse().ok()).unwrap_or(1)
}

/// Refuses a command that knows nothing of other processes, where there are some.
///
/// # Errors
/// [`Error::Argument`] then.
pub(super) fn must_be_alone() -> Result<()> {
    match launched() {
        1 => Ok(()),
        n => Err(Error::argument(
            "processes",
            n,
            "1: start it without mpirun; elbo train and elbo sweep alone run as several",
        )),
    }
}

/// Does `work` with the other processes that a launcher started together with this one, or without any: MPI has no part in a
/// process that nobody launched. A rank that fails ends all.
///
/// # Errors
/// What `work` returns, of one process; [`Error::Argument`] when the launcher's MPI is not the program's.
#[cfg(feature = "mpi")]
pub(super) fn together(work: impl FnOnce(Option<Rc<dyn Ranks>>) -> Result<ExitCode>) -> Result<ExitCode> {
    /// What one rank fails of may be told by rank 0, which fails likewise.
    const RANK_0_FIRST: std::time::Duration = std::time::Duration::from_secs(1);
    let launched = launched();
    if launched == 1 {
        return work(None);
    }
    let mpi = Rc::new(ranks::Mpi::join()?);
    if mpi.size() != launched {
        let found = format!("{} of the {launched} that were started", mpi.size());
        let expected = "all: use the mpirun of the MPI that the program was built with (see `ldd elbo`)";
        return Err(Error::argument("processes that MPI knows of", found, expected));
    }
    work(Some(mpi.clone())).or_else(|error| {
        if mpi.rank() > 0 {
            std::thread::sleep(RANK_0_FIRST);
            super::say(format_args!("on rank {}:", mpi.rank()));
        }
        super::complain(&error);
        mpi.abort(super::exit_code(&error))
    })
}

/// Does `work`, alone.
///
/// # Errors
/// What `work` returns; [`Error::Argument`] when there are other processes, to which this program has no way.
#[cfg(not(feature = "mpi"))]
pub(super) fn together(work: impl FnOnce(Option<Rc<dyn Ranks>>) -> Result<ExitCode>) -> Result<ExitCode> {
    match launched() {
        1 => work(None),
        n => Err(Error::argument("processes", n, "1, unless the program is built with --features mpi")),
    }
}

/// What ranks other than 0 do: they train with it, and say and write nothing.
///
/// # Errors
/// As [`ranks::follow`] and [`Trainer::run`](crate::train::Trainer::run).
pub(super) fn follow(device: Device, ranks: Rc<dyn Ranks>) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let stop = interrupt.follow();
    if let Some(mut trainer) = ranks::follow(device, ranks)? {
        trainer.run(&mut (), stop)?;
    }
    Ok(ExitCode::SUCCESS)
}
