//! What there is to run on: the driver, its GPUs, and for each the reason why it cannot be used, if there is one.
//!
//! The order of the questions is that of the obstacles: is there a driver library, does it start, is it new enough, has
//! it a GPU, does this program have kernels, and does one of them fit. Nothing here panics: the driver's functions are
//! looked up by name and called with plain integers, because cudarc's own wrappers panic where a library or a function
//! is missing, even while they format an error.

use std::fmt;

use super::images::{self, Toolkit};
use crate::engine::error::{Choice, Error, Remedy};

/// A version of CUDA, major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// The first compute capability with the instructions that the kernels use (Turing).
const OLDEST_GPU: Version = Version(7, 5);

/// A GPU that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Its number among the visible GPUs.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Its compute capability: 9.0 is sm_90.
    pub compute_capability: Version,
    /// Bytes of memory.
    pub memory: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// The newest CUDA that the driver knows.
    pub driver: Version,
}

impl Gpu {
    /// Whether this is the emulator of the tests. It brings its own kernels.
    pub fn emulated(&self) -> bool {
        self.name.starts_with("elbo emulated")
    }

    /// Bytes of memory that are free now. Takes a moment, because the driver must set up the GPU to answer.
    pub fn free_memory(&self) -> Result<u64, NoCuda> {
        driver::free_memory(self.ordinal)
    }
}

/// Why CUDA cannot be used. As text it is the reason; [`remedy`](NoCuda::remedy) says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCuda {
    /// The crate's feature `cuda` is off.
    #[error("this program was built without the feature `cuda`")]
    NotBuilt,
    /// There are no kernels in this program.
    #[error("this program has no CUDA kernels: {0}")]
    NoKernels(&'static str),
    /// There is no `libcuda`.
    #[error("no NVIDIA driver was found (libcuda.so, or nvcuda.dll)")]
    NoDriver,
    /// There is one, but it lacks a function.
    #[error("the driver library has no function {0}")]
    Incomplete(&'static str),
    /// A toolkit's placeholder for the driver was loaded.
    #[error("the libcuda that was loaded is a toolkit's stub, not a driver (error 34)")]
    Stub,
    /// The driver cannot start.
    #[error("the driver does not start: cuInit answers {}", Code(*.0))]
    Start(i32),
    /// A call failed later.
    #[error("the driver fails: {function} answers {}", Code(*.code))]
    Call {
        /// The driver's function.
        function: &'static str,
        /// Its answer.
        code: i32,
    },
    /// The driver is older than what the kernels were compiled for, or than the functions that are called.
    #[error("the driver knows CUDA {driver}, and {what} CUDA {needed}")]
    OldDriver {
        /// The driver's version.
        driver: Version,
        /// The version that it needs.
        needed: Version,
        /// What needs it, as a phrase that a version follows.
        what: &'static str,
    },
    /// The driver sees no GPU.
    #[error("the driver sees no GPU")]
    NoGpu,
    /// The number is too large.
    #[error("there is no GPU {ordinal}: the driver sees {count}")]
    NoSuchGpu {
        /// The number asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The GPU lacks instructions that the kernels use.
    #[error("{name} has compute capability {found}, and the kernels need {OLDEST_GPU}")]
    OldGpu {
        /// The GPU's name.
        name: String,
        /// Its compute capability.
        found: Version,
    },
    /// No machine code and no PTX fits.
    #[error("no kernel in this program fits {name} with compute capability {found}: they were compiled for {compiled}")]
    NoImage {
        /// The GPU's name.
        name: String,
        /// Its compute capability.
        found: Version,
        /// The architectures.
        compiled: String,
    },
}

impl NoCuda {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            NoCuda::NotBuilt => "build it with `--features cuda`".into(),
            NoCuda::NoKernels(_) => {
                "build it where nvcc is (ELBO_REQUIRE_NVCC=1 makes the build say where it looks and how to get nvcc)"
                    .into()
            }
            NoCuda::NoDriver => Choice::Cpu.remedy(
                "install NVIDIA's driver; in a container, start it with the GPUs (`--gpus all`); or use the CPU",
            ),
            NoCuda::Incomplete(_) => "install NVIDIA's driver anew: this one is too old or damaged".into(),
            NoCuda::Stub => {
                "take the toolkit's `stubs` folder out of LD_LIBRARY_PATH, so that the driver's own libcuda is found"
                    .into()
            }
            NoCuda::Start(code) | NoCuda::Call { code, .. } => Code(*code).remedy(),
            NoCuda::OldDriver { needed, .. } => {
                format!("update NVIDIA's driver{}, or build with an older nvcc", first_driver(*needed)).into()
            }
            NoCuda::NoGpu => Choice::Cpu.remedy(
                "see whether `nvidia-smi` lists one, and whether CUDA_VISIBLE_DEVICES hides it; or use the CPU",
            ),
            NoCuda::NoSuchGpu { count, .. } => format!("use one of cuda:0 to cuda:{}", count - 1).into(),
            NoCuda::OldGpu { .. } => {
                Choice::Cpu.remedy("use a GPU of the Turing generation (2018) or newer, or the CPU")
            }
            NoCuda::NoImage { found, .. } => {
                format!("build again with {}{} in ELBO_CUDA_ARCH", found.0, found.1).into()
            }
        }
    }

    /// As an error about `device`, for example `cuda:1`.
    pub fn of(self, device: &str) -> Error {
        Error::Device { device: device.into(), reason: self.to_string(), remedy: self.remedy() }
    }
}

/// The first driver that knows a CUDA of this major version.
fn first_driver(cuda: Version) -> &'static str {
    match cuda.0 {
        12 => " to 525 or newer",
        13 => " to 580 or newer",
        _ => "",
    }
}

/// The number that a driver function answers with, and its meaning where it is a common one. (The driver can name its
/// errors, but not before it has started.)
struct Code(i32);

impl Code {
    fn known(&self) -> Option<(&'static str, &'static str)> {
        let reboot = "restart the machine: driver and kernel module do not belong together, as after an update";
        Some(match self.0 {
            2 => ("out of memory", "end other programs on the GPU, or use another one"),
            46 => ("device unavailable", "end the program that has the GPU for itself, or use another GPU"),
            101 => ("invalid device", "look at CUDA_VISIBLE_DEVICES"),
            802 => {
                ("system not ready", "start NVIDIA's fabric manager (`nvidia-fabricmanager`), or wait until it is up")
            }
            803 => ("driver mismatch", reboot),
            804 => ("compatibility not supported", "remove the CUDA compatibility package, or update the driver"),
            999 => {
                ("unknown error", "look for the driver's messages in the system's log (`dmesg`); restart the machine")
            }
            _ => return None,
        })
    }

    fn remedy(&self) -> Remedy {
        match self.known() {
            Some((_, remedy)) => remedy.into(),
            None => Choice::Cpu
                .remedy("look this number up among the CUresult codes of the CUDA driver API; or use the CPU"),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some((meaning, _)) => write!(f, "error {} ({meaning})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The GPU with this number, if it can be used.
pub fn probe(ordinal: usize) -> Result<Gpu, NoCuda> {
    let (version, count) = driver::start()?;
    if ordinal >= count {
        return Err(NoCuda::NoSuchGpu { ordinal, count });
    }
    let gpu = driver::describe(ordinal, version)?;
    usable(&gpu, images::toolkit())?;
    Ok(gpu)
}

/// Everything there is, usable or not.
#[derive(Clone, Debug)]
pub struct GpuReport {
    /// The newest CUDA that the driver knows, which it says even when it cannot start.
    pub driver: Result<Version, NoCuda>,
    /// Every GPU, and what stands in the way of its use.
    pub gpus: Vec<(Gpu, Option<NoCuda>)>,
    /// The first GPU that can be used, or the first obstacle.
    pub choice: Result<Gpu, NoCuda>,
}

/// Looks at all GPUs.
pub fn report() -> GpuReport {
    let (version, count) = match driver::start() {
        Ok(started) => started,
        Err(why) => return GpuReport { driver: driver::version(), gpus: Vec::new(), choice: Err(why) },
    };
    let mut report = GpuReport { driver: Ok(version), gpus: Vec::new(), choice: Err(NoCuda::NoGpu) };
    for ordinal in 0..count {
        let described = driver::describe(ordinal, version);
        let probed = described.clone().and_then(|gpu| usable(&gpu, images::toolkit()).map(|()| gpu));
        if let Ok(gpu) = described {
            report.gpus.push((gpu, probed.clone().err()));
        }
        if ordinal == 0 || report.choice.is_err() && probed.is_ok() {
            report.choice = probed;
        }
    }
    report
}

/// Whether kernels of `toolkit` run on this GPU under its driver.
///
/// Machine code of sm_xy runs on compute capability x.z for z ≥ y, under drivers of the toolkit's major version or
/// later. PTX runs on every later capability, but the driver must be as new as the toolkit, minor version included.
fn usable(gpu: &Gpu, toolkit: Result<Toolkit, &'static str>) -> Result<(), NoCuda> {
    let Version(major, minor) = gpu.compute_capability;
    if gpu.compute_capability < OLDEST_GPU {
        return Err(NoCuda::OldGpu { name: gpu.name.clone(), found: gpu.compute_capability });
    }
    if gpu.emulated() {
        return Ok(());
    }
    let toolkit = toolkit.map_err(NoCuda::NoKernels)?;
    let code = toolkit.architectures.iter().any(|arch| arch / 10 == major && arch % 10 <= minor);
    let ptx = toolkit.ptx.iter().any(|arch| *arch <= 10 * major + minor);
    let release = Version(toolkit.release.0, toolkit.release.1);
    let (needed, what) = match (code, ptx) {
        (true, _) => (Version(release.0, 0), "the kernels in this program were compiled for drivers of"),
        (false, true) => (release, "for this GPU it must compile the kernels' PTX, which is of"),
        (false, false) => {
            let compiled: Vec<String> = toolkit.architectures.iter().map(|arch| format!("sm_{arch}")).collect();
            let (name, found) = (gpu.name.clone(), gpu.compute_capability);
            return Err(NoCuda::NoImage { name, found, compiled: compiled.join(", ") });
        }
    };
    if gpu.driver < needed { Err(NoCuda::OldDriver { driver: gpu.driver, needed, what }) } else { Ok(()) }
}

/// The few functions of the driver that are called, each looked up by name.
#[cfg(feature = "cuda")]
mod driver {
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use std::ptr::null_mut;

    use super::{Gpu, NoCuda, Version};

    /// The oldest driver with every function that is called.
    const OLDEST_DRIVER: Version = Version(12, 0);

    /// Attributes of a device, by their numbers in cuda.h.
    const MULTIPROCESSORS: c_int = 16;
    const CAPABILITY: [c_int; 2] = [75, 76];

    const STUB_LIBRARY: c_int = 34;
    const NO_DEVICE: c_int = 100;

    /// Calls a function of the driver that answers with a code: `call!(cuInit(flags: c_uint))`.
    macro_rules! call {
        ($function:ident($($value:expr => $type:ty),*)) => {{
            const NAME: &str = stringify!($function);
            type Function = unsafe extern "system" fn($($type),*) -> c_int;
            // SAFETY: every caller of `call!` has seen `present()`; without a library `culib` would panic.
            let library = unsafe { cudarc::driver::sys::culib() };
            // SAFETY: the type is that of the function of this name in cuda.h, with its enumerations as integers.
            let function = unsafe { library.get::<Function>(NAME.as_bytes()) };
            match function {
                // SAFETY: pointers among the values point to variables of this module that live through the call.
                Ok(function) => Ok(unsafe { function($($value),*) }),
                Err(_) => Err(NoCuda::Incomplete(NAME)),
            }
        }};
    }

    /// [`call!`] where every answer but 0 is an error.
    macro_rules! check {
        ($function:ident($($value:expr => $type:ty),*)) => {
            match call!($function($($value => $type),*)) {
                Ok(0) => Ok(()),
                Ok(code) => Err(NoCuda::Call { function: stringify!($function), code }),
                Err(missing) => Err(missing),
            }
        };
    }

    fn present() -> Result<(), NoCuda> {
        // SAFETY: opening the driver's library runs its initialisers, as every use of CUDA does.
        if unsafe { cudarc::driver::sys::is_culib_present() } { Ok(()) } else { Err(NoCuda::NoDriver) }
    }

    /// The newest CUDA that the driver knows.
    pub fn version() -> Result<Version, NoCuda> {
        present()?;
        let mut number: c_int = 0;
        check!(cuDriverGetVersion(&mut number => *mut c_int))?;
        Ok(Version(number as u32 / 1000, number as u32 % 1000 / 10))
    }

    /// Starts the driver: its version, and how many GPUs it sees, at least one.
    pub fn start() -> Result<(Version, usize), NoCuda> {
        present()?;
        match call!(cuInit(0 => c_uint))? {
            0 => {}
            STUB_LIBRARY => return Err(NoCuda::Stub),
            NO_DEVICE => return Err(NoCuda::NoGpu),
            code => return Err(NoCuda::Start(code)),
        }
        let (version, needed) = (version()?, OLDEST_DRIVER);
        if version < needed {
            return Err(NoCuda::OldDriver { driver: version, needed, what: "this program calls functions of" });
        }
        let mut count: c_int = 0;
        check!(cuDeviceGetCount(&mut count => *mut c_int))?;
        if count > 0 { Ok((version, count as usize)) } else { Err(NoCuda::NoGpu) }
    }

    /// The properties of a GPU; [`start`] must have counted it.
    pub fn describe(ordinal: usize, driver: Version) -> Result<Gpu, NoCuda> {
        let device = device(ordinal)?;
        let mut name = [0 as c_char; 256];
        check!(cuDeviceGetName(name.as_mut_ptr() => *mut c_char, name.len() as c_int - 1 => c_int, device => c_int))?;
        // SAFETY: the last byte was kept from the driver and is 0.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let attribute = |which: c_int| {
            let mut value: c_int = 0;
            check!(cuDeviceGetAttribute(&mut value => *mut c_int, which => c_int, device => c_int))?;
            Ok(value as u32)
        };
        let compute_capability = Version(attribute(CAPABILITY[0])?, attribute(CAPABILITY[1])?);
        let mut memory: usize = 0;
        check!(cuDeviceTotalMem_v2(&mut memory => *mut usize, device => c_int))?;
        let multiprocessors = attribute(MULTIPROCESSORS)?;
        Ok(Gpu { ordinal, name, compute_capability, memory: memory as u64, multiprocessors, driver })
    }

    fn device(ordinal: usize) -> Result<c_int, NoCuda> {
        let mut device: c_int = 0;
        check!(cuDeviceGet(&mut device => *mut c_int, ordinal as c_int => c_int))?;
        Ok(device)
    }

    /// Free memory of a GPU, asked in the GPU's primary context.
    pub fn free_memory(ordinal: usize) -> Result<u64, NoCuda> {
        start()?;
        let device = device(ordinal)?;
        let (mut context, mut current) = (null_mut::<c_void>(), null_mut::<c_void>());
        let (mut free, mut total) = (0_usize, 0_usize);
        check!(cuCtxGetCurrent(&mut current => *mut *mut c_void))?;
        check!(cuDevicePrimaryCtxRetain(&mut context => *mut *mut c_void, device => c_int))?;
        let asked = check!(cuCtxSetCurrent(context => *mut c_void))
            .and_then(|()| check!(cuMemGetInfo_v2(&mut free => *mut usize, &mut total => *mut usize)));
        let restored = check!(cuCtxSetCurrent(current => *mut c_void));
        let released = check!(cuDevicePrimaryCtxRelease_v2(device => c_int));
        asked.and(restored).and(released).map(|()| free as u64)
    }
}

/// Without the feature there is nothing to ask.
#[cfg(not(feature = "cuda"))]
mod driver {
    use super::{Gpu, NoCuda, Version};

    pub fn version() -> Result<Version, NoCuda> {
        Err(NoCuda::NotBuilt)
    }

    pub fn start() -> Result<(Version, usize), NoCuda> {
        Err(NoCuda::NotBuilt)
    }

    pub fn describe(_: usize, _: Version) -> Result<Gpu, NoCuda> {
        Err(NoCuda::NotBuilt)
    }

    pub fn free_memory(_: usize) -> Result<u64, NoCuda> {
        Err(NoCuda::NotBuilt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(capability: (u32, u32), driver: (u32, u32)) -> Gpu {
        let (compute_capability, driver) = (Version(capability.0, capability.1), Version(driver.0, driver.1));
        Gpu { ordinal: 0, name: "a GPU".into(), compute_capability, memory: 1 << 30, multiprocessors: 1, driver }
    }

    const TOOLKIT: Toolkit = Toolkit {
        release: (13, 1),
        version: "13.1.0",
        program: "nvcc",
        architectures: &[75, 80, 86, 90],
        ptx: &[80, 90],
    };

    #[test]
    fn machine_code_fits_later_minor_versions_and_ptx_everything_later() {
        let with = |capability, driver| usable(&gpu(capability, driver), Ok(TOOLKIT));
        for capability in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0)] {
            assert_eq!(with(capability, (13, 0)), Ok(()), "{capability:?}: machine code of the same major version");
        }
        for capability in [(10, 0), (12, 1)] {
            assert_eq!(with(capability, (13, 1)), Ok(()), "{capability:?}: PTX");
            let old = with(capability, (13, 0)).unwrap_err();
            assert!(old.to_string().contains("13.0") && old.to_string().contains("13.1"), "{old}");
        }
        assert!(matches!(with((7, 0), (13, 1)), Err(NoCuda::OldGpu { .. })));
        let old = with((9, 0), (12, 8)).unwrap_err();
        assert!(
            old.to_string().contains("12.8") && old.to_string().contains("13.0") && old.remedy().text.contains("580")
        );
    }

    #[test]
    fn a_gpu_without_kernels_is_refused_unless_it_is_emulated() {
        assert_eq!(usable(&gpu((9, 0), (13, 0)), Err("why")), Err(NoCuda::NoKernels("why")));
        let emulated = Gpu { name: "elbo emulated GPU".into(), ..gpu((8, 0), (12, 0)) };
        assert_eq!(usable(&emulated, Err("why")), Ok(()));
        let few = Toolkit { architectures: &[90], ptx: &[90], ..TOOLKIT };
        let none = usable(&gpu((8, 6), (13, 1)), Ok(few)).unwrap_err();
        assert!(none.to_string().contains("sm_90") && none.remedy().text.contains("86 in ELBO_CUDA_ARCH"), "{none}");
    }

    #[test]
    fn every_reason_has_a_remedy_and_becomes_an_error() {
        for code in [2, 46, 101, 802, 803, 804, 999, 7] {
            let error = NoCuda::Start(code).of("cuda").to_string();
            assert!(error.contains(&code.to_string()) && error.len() > 60, "{error}");
        }
        let error = NoCuda::NoSuchGpu { ordinal: 3, count: 2 }.of("cuda:3");
        assert_eq!(
            error.to_string(),
            "cuda:3 cannot be used: there is no GPU 3: the driver sees 2; use one of cuda:0 to cuda:1"
        );
    }
}
