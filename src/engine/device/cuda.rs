//! The CUDA executor: a plan bound to device memory, made a CUDA graph once and run again and again.
//!
//! Read in this order: `executor.rs` (how a plan runs), `bound.rs` (the graphs it runs as), `ensemble.rs` (several models in one
//! launch, with what their drivers share in `commons.rs`), `parts.rs` (what is launched
//! together; `proof.rs` checks it), `lower.rs` (the launches), `figures.rs` (how long they are
//! expected to take), `program.rs` and `params.rs` (what kernels are given), `memory.rs` (slots by name), `mailbox.rs` (results that nobody
//! waits for), `pinned.rs` (memory that the device reads and writes by itself), `driver.rs` (the calls), `nccl.rs` (sums over the GPUs of
//! several processes), `ladder.rs` (the matrix product step by
//! step), `planes.rs` (its operands cut into bf16, and what that costs in accuracy), `tiles.rs` and `tensor_map.rs` (its
//! rungs for Hopper alone), [`probe`] (whether there is a GPU, and why not), [`images`] (the kernels that nvcc compiled).
//!
//! ```text
//! bind:  Plan ─ lower ─► launches and what each waits for: the nodes and edges of the graph; those on the way that
//!        is expected to be the longest have a higher priority
//! run:   the host works out the numbers of the next steps (learning rate, β, Adam's corrections) and uploads them as a
//!        table; the graph is launched once per step; its last block moves on to the next row of the table
//! look:  the running sums are copied into page-locked memory behind the steps; the host reads the newest that has come
//! ```
//!
//! Nothing that changes from step to step is a parameter of a launch, so the graph never goes stale. It is
//! made again only when a data set is loaded anew and its memory has moved.

#[cfg(feature = "cuda")]
mod bound;
#[cfg(feature = "cuda")]
mod commons;
#[cfg(feature = "cuda")]
pub mod compiled;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(feature = "cuda")]
pub(super) mod ensemble;
#[cfg(feature = "cuda")]
pub mod executor;
#[cfg(feature = "cuda")]
pub mod figures;
pub mod images;
#[cfg(feature = "cuda")]
pub mod ladder;
#[cfg(feature = "cuda")]
mod lower;
#[cfg(feature = "cuda")]
mod mailbox;
#[cfg(feature = "cuda")]
mod memory;
#[cfg(all(feature = "cuda", feature = "mpi"))]
pub(crate) mod nccl;
#[cfg(feature = "cuda")]
pub mod paper;
#[cfg(feature = "cuda")]
pub(crate) mod params;
#[cfg(feature = "cuda")]
mod parts;
#[cfg(feature = "cuda")]
mod pinned;
#[cfg(feature = "cuda")]
pub mod planes;
pub mod probe;
#[cfg(feature = "cuda")]
mod program;
#[cfg(feature = "cuda")]
mod proof;
#[cfg(feature = "cuda")]
mod roofline;
#[cfg(feature = "cuda")]
mod rows;
#[cfg(feature = "cuda")]
mod tensor_map;
#[cfg(feature = "cuda")]
mod tiles;

#[cfg(feature = "cuda")]
pub use executor::Cuda;
#[cfg(feature = "cuda")]
pub(crate) use lower::Lower;
#[cfg(feature = "cuda")]
pub(crate) use memory::DeviceData;
#[cfg(feature = "cuda")]
pub use roofline::Ceilings;
#[cfg(feature = "cuda")]
pub(crate) use rows::RowWork;

use crate::engine::error::{Choice, Error, Result};

/// The GPU that `--device auto` takes: the first that can be used and is no emulation.
///
/// # Errors
/// [`Error::Device`] with the reason why there is none.
pub fn automatic() -> Result<probe::Gpu> {
    let gpu = probe::report().choice.map_err(|why| why.of("cuda"))?;
    if gpu.emulated() {
        return Err(Error::Device {
            device: "cuda".into(),
            reason: "the driver is the emulator of the tests, thousands of times slower than the CPU".into(),
            remedy: Choice::NamedGpu.remedy("to use it nevertheless, ask for it by name"),
        });
    }
    Ok(gpu)
}
