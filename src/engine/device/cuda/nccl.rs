//! Sums over several processes with a GPU each, without the host: NCCL moves the numbers, a kernel of ours adds them up.
//!
//! NCCL's own reduction adds in an order that depends on how the GPUs are joined. Here a rank gets the parts of all others,
//! adds them in the order of the ranks in f64, and gives the sums to the others: the bits of the way through the host.
//!
//! The library is looked for when several processes train, under the names that it has after an installation: cudarc's own
//! loader knows its development name alone. Of cudarc are the types.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::rc::Rc;

use cudarc::nccl::sys::{ncclComm_t, ncclDataType_t, ncclUniqueId};
use libloading::Library;

use super::Cuda;
use super::driver::{Address, DeviceBuffer, Driver, Launch};
use super::params::{self, SumPartsParams};
use crate::engine::device::{Function, Layout};
use crate::engine::error::{Choice, Error, Result};

/// Where to find the library, or `off`.
pub const VARIABLE: &str = "ELBO_NCCL";

const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Bytes of an id, as NCCL has it.
const ID: usize = size_of::<ncclUniqueId>();

/// NCCL's functions. The library is never unloaded: threads that it starts may run as long as the process.
pub struct Nccl {
    library: &'static Library,
}

/// What NCCL answers on success, by its number in nccl.h: a newer library may answer what no enum here has.
const SUCCESS: c_int = 0;

/// Calls a function of NCCL, whose answer is an error unless it is success: `call!(nccl, ncclGroupStart())`.
macro_rules! call {
    ($nccl:expr, $function:ident($($value:expr => $type:ty),*)) => {{
        type Function = unsafe extern "C" fn($($type),*) -> c_int;
        // SAFETY: the type is that of the function of this name in nccl.h.
        match unsafe { $nccl.library.get::<Function>(stringify!($function).as_bytes()) } {
            // SAFETY: the values are what the function asks for: handles of this communicator, and memory that is there until the
            // stream has passed.
            Ok(function) => match unsafe { function($($value),*) } {
                SUCCESS => Ok(()),
                answer => Err(format!("{} answers {}", stringify!($function), $nccl.meaning(answer))),
            },
            Err(_) => Err(format!("the library has no function {}", stringify!($function))),
        }
    }};
}

impl Nccl {
    /// The library, if it is wanted and there is one, or why not.
    pub fn find() -> std::result::Result<Nccl, String> {
        let wanted = std::env::var(VARIABLE).ok();
        let names: Vec<&str> = match wanted.as_deref() {
            Some("off") => return Err(format!("{VARIABLE}=off")),
            Some(path) if !path.is_empty() => vec![path],
            _ => NAMES.to_vec(),
        };
        let mut reasons = Vec::new();
        for name in names {
            // SAFETY: opening the library runs its initialisers, as every use of NCCL does.
            match unsafe { Library::new(name) } {
                Ok(library) => return Ok(Nccl { library: Box::leak(Box::new(library)) }),
                // The loader's words are in the source.
                Err(error) => reasons.push(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
            }
        }
        let hint = if wanted.is_none() { format!("; {VARIABLE} may say where it is") } else { String::new() };
        Err(format!("no NCCL could be opened ({}{hint})", reasons.join("; ")))
    }

    /// An answer in words.
    fn meaning(&self, answer: c_int) -> String {
        type Words = unsafe extern "C" fn(c_int) -> *const c_char;
        // SAFETY: the type is that of the function in nccl.h, which returns a constant string.
        let words = unsafe { self.library.get::<Words>(b"ncclGetErrorString") }.map(|words| unsafe { words(answer) });
        match words {
            // SAFETY: a string of the library, which stays open.
            Ok(words) if !words.is_null() => unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned(),
            _ => answer.to_string(),
        }
    }

    /// What a new group of processes is known by.
    ///
    /// # Errors
    /// What NCCL answers.
    pub fn id(&self) -> std::result::Result<Vec<u8>, String> {
        let mut id = ncclUniqueId { internal: [0; ID] };
        call!(self, ncclGetUniqueId(&mut id => *mut ncclUniqueId))?;
        Ok(id.internal.map(|c| c as u8).to_vec())
    }
}

/// The GPUs of several processes, and the numbers that they add up. It lasts as long as the process: to give it back, all ranks
/// would have to, and one that has failed would wait for the others instead of saying so.
pub struct GpuGroup {
    nccl: Nccl,
    comm: ncclComm_t,
    driver: Rc<Driver>,
    ranks: usize,
    /// Where each of the arrays begins among the numbers.
    places: Vec<usize>,
    /// Numbers, rounded up to equal parts for all ranks.
    numbers: usize,
    /// All numbers; this rank's part of every rank's; that part summed.
    all: Address,
    parts: Address,
    summed: Address,
    _memory: ManuallyDrop<DeviceBuffer>,
}

/// What a group needs of this rank alone: its GPU and memory there.
pub struct GroupRoom {
    driver: Rc<Driver>,
    ranks: usize,
    places: Vec<usize>,
    numbers: usize,
    memory: DeviceBuffer,
}

impl GroupRoom {
    /// GroupRoom for arrays of these sizes, which `ranks` ranks add up.
    ///
    /// # Errors
    /// That there is no memory for 2 + 1/N times the numbers.
    pub fn new(gpu: &Cuda, ranks: usize, sizes: &[usize]) -> std::result::Result<GroupRoom, String> {
        let driver = gpu.driver.clone();
        let mut places = Vec::new();
        let mut numbers = 0;
        for size in sizes {
            places.push(numbers);
            numbers += size;
        }
        let numbers = numbers.next_multiple_of(ranks);
        let memory = driver
            .alloc(4 * (2 * numbers + numbers / ranks), "sums over several processes")
            .map_err(|error| error.to_string())?;
        Ok(GroupRoom { driver, ranks, places, numbers, memory })
    }
}

impl GpuGroup {
    /// Joins the group `id` as `rank`, with the room for its numbers. Waits for the others, all of whom must have theirs.
    ///
    /// # Errors
    /// What NCCL answers, also where two ranks have the same GPU.
    pub fn join(nccl: Nccl, room: GroupRoom, id: &[u8], rank: usize) -> std::result::Result<GpuGroup, String> {
        let bytes: [u8; ID] = id.try_into().map_err(|_| format!("an id of {} bytes came from rank 0", id.len()))?;
        let id = ncclUniqueId { internal: bytes.map(|byte| byte as c_char) };
        let GroupRoom { driver, ranks, places, numbers, memory } = room;
        let mut comm: ncclComm_t = std::ptr::null_mut();
        call!(nccl, ncclCommInitRank(
            &mut comm => *mut ncclComm_t, ranks as c_int => c_int, id => ncclUniqueId, rank as c_int => c_int
        ))?;
        let all = memory.address();
        let (parts, summed) = (all + 4 * numbers as Address, all + 8 * numbers as Address);
        Ok(GpuGroup {
            nccl,
            comm,
            driver,
            ranks,
            places,
            numbers,
            all,
            parts,
            summed,
            _memory: ManuallyDrop::new(memory),
        })
    }

    fn failed(&self, reason: String) -> Error {
        let remedy = Choice::Cpu.remedy(format!(
            "see what NCCL says with NCCL_DEBUG=INFO, sum through the host with {VARIABLE}=off, or use the CPU"
        ));
        Error::Device { device: self.driver.name(), reason, remedy }
    }

    fn place(&self, number: usize) -> Address {
        self.all + 4 * self.places[number] as Address
    }

    /// Takes the arrays from a function's outputs, of which the first so many are others.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn take<L: Layout>(&self, from: &Function<L>, others: usize) -> Result<()> {
        (0..self.places.len()).try_for_each(|number| {
            let (address, size) = from.output_address(others + number).expect("a function of this GPU");
            self.driver.copy(self.place(number), address, 4 * size)
        })
    }

    /// Takes zeros.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn take_nothing(&self) -> Result<()> {
        self.driver.clear(self.all, 4 * self.numbers)
    }

    /// Replaces every number by its sum over the ranks, and gives the arrays to a function's inputs.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn sum_into<L: Layout>(&self, to: &Function<L>) -> Result<()> {
        self.exchange().map_err(|reason| self.failed(reason))?;
        self.add()?;
        self.gather().map_err(|reason| self.failed(reason))?;
        (0..self.places.len()).try_for_each(|number| {
            let (address, size) = to.input_address(number).expect("a function of this GPU");
            self.driver.copy(address, self.place(number), 4 * size)
        })
    }

    /// Part r of the numbers goes to rank r.
    fn exchange(&self) -> std::result::Result<(), String> {
        let (nccl, part, stream) = (&self.nccl, self.numbers / self.ranks, self.driver.stream.cast::<c_void>());
        let float = ncclDataType_t::ncclFloat32;
        call!(nccl, ncclGroupStart())?;
        let post = |rank: usize| {
            let at = |base: Address| (base + 4 * (rank * part) as Address) as *mut c_void;
            call!(nccl, ncclSend(
                at(self.all).cast_const() => *const c_void, part => usize, float => ncclDataType_t,
                rank as c_int => c_int, self.comm => ncclComm_t, stream => *mut c_void
            ))?;
            call!(nccl, ncclRecv(
                at(self.parts) => *mut c_void, part => usize, float => ncclDataType_t,
                rank as c_int => c_int, self.comm => ncclComm_t, stream => *mut c_void
            ))
        };
        // What was started is ended, whatever happened in it.
        let posted = (0..self.ranks).try_for_each(post);
        let ended = call!(nccl, ncclGroupEnd());
        posted.and(ended)
    }

    /// Adds up this rank's part.
    fn add(&self) -> Result<()> {
        const THREADS: u32 = 256;
        let len = (self.numbers / self.ranks) as u64;
        let params = SumPartsParams { parts: self.parts, to: self.summed, len, ranks: self.ranks as i32, pad: 0 };
        let launch = Launch {
            function: self.driver.function("sum_parts")?,
            kernel: "sum_parts",
            grid: [len.div_ceil(THREADS.into()).clamp(1, i32::MAX as u64) as u32, 1, 1],
            threads: THREADS,
            shared: 0,
            params: params::words(&params),
        };
        self.driver.launch(&launch)
    }

    /// All get what each has added up.
    fn gather(&self) -> std::result::Result<(), String> {
        let (from, to) = (self.summed as *const c_void, self.all as *mut c_void);
        let (part, stream) = (self.numbers / self.ranks, self.driver.stream.cast::<c_void>());
        call!(self.nccl, ncclAllGather(
            from => *const c_void, to => *mut c_void, part => usize, ncclDataType_t::ncclFloat32 => ncclDataType_t,
            self.comm => ncclComm_t, stream => *mut c_void
        ))
    }
}
