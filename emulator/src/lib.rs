//! The CUDA driver, emulated: the project's kernels run on the CPU, so that what uses them can be tested without a GPU.
//!
//! The library that this crate builds is called `libcuda.so` and exports the driver's functions. A test calls [`load`]
//! before anything else touches CUDA; from then on cudarc finds the emulated driver, with one device. What the
//! emulator checks, and what it cannot, is in `docs/book/src/emulator.md`.
//!
//! ```no_run
//! let emulator = elbo_emulator::load()?;
//! emulator.set_schedule("random:7")?;
//! // … train on device cuda:0 …
//! assert_eq!(emulator.last_report(), "");
//! # Ok::<(), String>(())
//! ```

mod compile;

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};

use compile::{Compiler, Kind, files_in, kernel_files};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};

/// Where the library with the project's kernels is, or why there is none.
pub fn library() -> Result<&'static Path, &'static str> {
    match option_env!("ELBO_EMU_LIBRARY") {
        Some(path) if Path::new(path).exists() => Ok(Path::new(path)),
        Some(_) => Err("it was left on the machine where it was built"),
        None => Err(option_env!("ELBO_EMU_MISSING").unwrap_or("it was not built")),
    }
}

/// Makes [`library`] the CUDA driver of this process. Must come before the first call of cudarc.
pub fn load() -> Result<Emulator, String> {
    Emulator::open(library()?, true)
}

/// The library with the project's kernels, compiled for the race detector. The first call compiles it.
pub fn library_with_races() -> Result<PathBuf, String> {
    library()?;
    build(&folder().join("../kernels"), &Path::new(env!("OUT_DIR")).join("races"), true)
}

/// Compiles other kernels — a patched copy of the project's, or a test's own — into `out/libcuda.so`.
///
/// `kernels` is a folder with `.cu` files (those in its `dev` are taken as well), or one `.cu` file, whose folder is
/// then searched for headers. `races` compiles them for the race detector, which makes them about ten times slower.
pub fn build(kernels: &Path, out: &Path, races: bool) -> Result<PathBuf, String> {
    library()?;
    std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    // Several tests may want the same library at the same time.
    let lock = std::fs::File::create(out.join("lock")).map_err(|e| format!("{}: {e}", out.display()))?;
    lock.lock().map_err(|e| format!("{}: {e}", out.display()))?;
    let compiler = Compiler::find(out)?;
    let parent = if kernels.is_file() { kernels.parent().unwrap_or(Path::new(".")) } else { kernels };
    let includes = [folder().join("include"), parent.to_path_buf(), folder().join("../kernels")];
    let kind = if races { Kind::KernelWithRaces } else { Kind::Kernel };
    let mut objects = compiler.objects(&kernel_files(kernels), kind, &includes, &out.join("kernels"))?;
    objects.extend(files_in(&Path::new(env!("OUT_DIR")).join("runtime"), "o"));
    compiler.link(&objects, out, "libcuda.so")
}

/// This crate's folder: the headers are there, and the kernels beside it.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An open emulator library.
pub struct Emulator {
    library: Library,
}

/// How a kernel that was launched directly ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No kernel has this name.
    NotFound,
    /// Grid, block or shared memory are outside the limits.
    InvalidLaunch,
    /// A barrier that cannot be passed, a race, damaged shared memory, a trap.
    Failed,
    /// An access outside all memory, or beside an allocation.
    IllegalAddress,
    /// An access at an address that is no multiple of its size.
    Misaligned,
}

impl Emulator {
    /// Opens an emulator library. `global`: as the CUDA driver of this process.
    pub fn open(path: &Path, global: bool) -> Result<Emulator, String> {
        let flags = RTLD_NOW | if global { RTLD_GLOBAL } else { RTLD_LOCAL };
        // SAFETY: the library's initialisers only register kernels; it is never unloaded (see below).
        let library = unsafe { Library::open(Some(path), flags) }.map_err(|e| format!("{}: {e}", path.display()))?;
        // Opened once more and forgotten: stacks and signal handlers of the library live as long as the process.
        // SAFETY: as above.
        std::mem::forget(unsafe { Library::open(Some(path), flags) });
        Ok(Emulator { library })
    }

    /// In which order threads, warps, blocks and independent work run: "forward", "reverse" or "random:SEED".
    pub fn set_schedule(&self, schedule: &str) -> Result<(), String> {
        let text = CString::new(schedule).map_err(|e| e.to_string())?;
        type F = unsafe extern "C" fn(*const c_char) -> c_int;
        // SAFETY: the function has this type (driver_device.cpp), and the text outlives the call.
        match unsafe { self.function::<F>("elbo_emu_set_schedule")(text.as_ptr()) } {
            0 => Ok(()),
            _ => Err(format!("no such schedule: {schedule}")),
        }
    }

    /// What the last kernel that failed did wrong; empty if none has.
    pub fn last_report(&self) -> String {
        type F = unsafe extern "C" fn() -> *const c_char;
        // SAFETY: the function has this type and returns a string that lives until this thread's next call.
        unsafe { CStr::from_ptr(self.function::<F>("elbo_emu_last_report")()) }.to_string_lossy().into_owned()
    }

    /// Forgets the last report and the driver's sticky error.
    pub fn clear(&self) {
        type F = unsafe extern "C" fn();
        // SAFETY: the function has this type.
        unsafe { self.function::<F>("elbo_emu_clear")() }
    }

    /// How often the host has waited for the device so far: by synchronising, by a copy that is done when the call
    /// returns, by giving memory back. Asking whether something is done is not waiting.
    pub fn waits(&self) -> u64 {
        type F = unsafe extern "C" fn() -> u64;
        // SAFETY: the function has this type.
        unsafe { self.function::<F>("elbo_emu_waits")() }
    }

    /// How often the host has copied from pageable memory to the device so far, which on a GPU may wait for the stream.
    pub fn pageable_uploads(&self) -> u64 {
        type F = unsafe extern "C" fn() -> u64;
        // SAFETY: the function has this type.
        unsafe { self.function::<F>("elbo_emu_pageable_uploads")() }
    }

    /// Bytes of the device's memory and of page-locked memory of the host that are allocated.
    pub fn memory_in_use(&self) -> u64 {
        type F = unsafe extern "C" fn() -> u64;
        // SAFETY: the function has this type.
        unsafe { self.function::<F>("elbo_emu_memory_in_use")() }
    }

    /// Were the kernels compiled for the race detector?
    pub fn detects_races(&self) -> bool {
        type F = unsafe extern "C" fn() -> c_int;
        // SAFETY: the function has this type.
        unsafe { self.function::<F>("elbo_emu_detects_races")() != 0 }
    }

    /// Runs a kernel to its end without the driver.
    ///
    /// # Safety
    /// `params` must have the layout of the kernel's struct of parameters, and its pointers must be valid for what the
    /// kernel does.
    pub unsafe fn launch<P>(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        params: &P,
    ) -> Result<(), Failure> {
        let name = CString::new(kernel).map_err(|_| Failure::NotFound)?;
        type F = unsafe extern "C" fn(*const c_char, *const c_uint, *const c_uint, c_uint, *const c_void) -> c_int;
        let function = self.function::<F>("emu_launch");
        let params = std::ptr::from_ref(params).cast();
        // SAFETY: the function has this type (launch.cpp); the caller answers for the parameters.
        match unsafe { function(name.as_ptr(), grid.as_ptr(), block.as_ptr(), shared_bytes, params) } {
            0 => Ok(()),
            1 => Err(Failure::InvalidLaunch),
            2 => Err(Failure::Failed),
            3 => Err(Failure::IllegalAddress),
            4 => Err(Failure::Misaligned),
            _ => Err(Failure::NotFound),
        }
    }

    fn function<F: Copy>(&self, name: &str) -> F {
        // SAFETY: every caller states the type that the library exports under this name.
        *unsafe { self.library.get::<F>(name) }.expect("the library exports its own controls")
    }
}
