//! The kernels as nvcc compiled them when this program was built, or the reason why there are none.
//!
//! `build.rs` makes one image of every file `kernels/*.cu`: machine code for a list of architectures, and PTX, from
//! which the driver makes machine code for the others when it loads the image.

/// One kernel file, compiled for all architectures.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The file's name below `kernels/` without its suffix: `reduce`, `dev/…`. Names that end in `_sm90a` hold code for
    /// Hopper alone.
    pub name: &'static str,
    /// What the driver loads (a "fat binary").
    pub bytes: &'static [u8],
}

/// The nvcc that compiled the images, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toolkit {
    /// Major and minor version: what a driver must match.
    pub release: (u32, u32),
    /// The full version.
    pub version: &'static str,
    /// Where it was on the machine that this program was built on.
    pub program: &'static str,
    /// Machine code: compute capabilities times ten, ascending.
    pub architectures: &'static [u32],
    /// PTX: likewise.
    pub ptx: &'static [u32],
}

/// What one kernel needs on one architecture, as ptxas said when it was compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelUse {
    /// The image it is in.
    pub image: &'static str,
    /// Its name.
    pub kernel: &'static str,
    /// For example `sm_80`.
    pub architecture: &'static str,
    /// Registers per thread.
    pub registers: u32,
    /// Bytes of local memory per thread, which lies in the GPU's memory: arrays with computed indices, spilled registers.
    pub stack: u32,
    /// Bytes of registers that did not fit and are stored to local memory.
    pub spill_stores: u32,
    /// Bytes of them that are loaded again.
    pub spill_loads: u32,
}

/// All images, ordered by name; none if [`toolkit`] is an error.
pub fn images() -> &'static [Image] {
    IMAGES
}

/// Which nvcc made the images, or why nothing did.
pub fn toolkit() -> Result<Toolkit, &'static str> {
    TOOLKIT
}

/// What every kernel needs on every architecture.
pub fn kernels() -> &'static [KernelUse] {
    KERNELS
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));
