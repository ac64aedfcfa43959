//! A thin layer over the CUDA driver: one context, two streams, memory, modules, kernels by name, graphs.
//!
//! Only this file, `pinned.rs` and `probe.rs` know cudarc, and of cudarc only the driver's own functions: what the safe
//! layer adds (event tracking per allocation, allocation by pools) would end up in a captured graph. Every failure
//! becomes an [`Error::Device`] that names the call.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::rc::Rc;

use cudarc::driver::{DriverError, result, sys};

use super::images;
use super::probe::{Gpu, Version, probe};
use crate::engine::error::{Choice, Error, Remedy, Result};

/// An address on the device; 0 is null.
pub(crate) type Address = u64;

/// A kernel, ready to be launched.
#[derive(Clone, Copy)]
pub(crate) struct DeviceKernel {
    handle: sys::CUfunction,
}

/// What is launched: a kernel over a grid, with its parameter struct as bytes.
#[derive(Clone)]
pub(crate) struct Launch {
    pub function: DeviceKernel,
    pub kernel: &'static str,
    pub grid: [u32; 3],
    pub threads: u32,
    pub shared: u32,
    pub params: Box<[u64]>,
}

/// Which of the two streams a launch goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lane {
    Main,
    Side,
}

/// A device with everything that belongs to it.
pub(crate) struct Driver {
    pub gpu: Gpu,
    context: sys::CUcontext,
    pub(super) main: sys::CUstream,
    side: sys::CUstream,
    fork: sys::CUevent,
    join: sys::CUevent,
    modules: RefCell<Vec<sys::CUmodule>>,
    functions: RefCell<HashMap<&'static str, DeviceKernel>>,
    /// The next image to be loaded when a kernel is in none of the modules.
    next_image: Cell<usize>,
}

impl Driver {
    /// Opens GPU number `ordinal`.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason why there is none, and what can be done about it.
    pub fn open(ordinal: usize) -> Result<Rc<Driver>> {
        let name = format!("cuda:{ordinal}");
        let gpu = probe(ordinal).map_err(|why| why.of(&name))?;
        let failed = |call: &'static str| move |e| failure(&name, call, e);
        let device = result::device::get(ordinal as i32).map_err(failed.clone()("cuDeviceGet"))?;
        // SAFETY: the device exists; its context is kept until the process ends.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(failed.clone()("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(failed.clone()("cuCtxSetCurrent"))?;
        // Streams of their own: the default stream cannot be captured.
        let stream = || result::stream::create(result::stream::StreamKind::NonBlocking);
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let driver = Driver {
            gpu,
            context,
            main: stream().map_err(failed.clone()("cuStreamCreate"))?,
            side: stream().map_err(failed.clone()("cuStreamCreate"))?,
            fork: event().map_err(failed.clone()("cuEventCreate"))?,
            join: event().map_err(failed("cuEventCreate"))?,
            modules: RefCell::default(),
            functions: RefCell::default(),
            next_image: Cell::new(0),
        };
        Ok(Rc::new(driver))
    }

    pub(super) fn failed(&self, call: &'static str) -> impl Fn(DriverError) -> Error + '_ {
        move |e| failure(&self.name(), call, e)
    }

    /// `cuda:0`.
    pub fn name(&self) -> String {
        format!("cuda:{}", self.gpu.ordinal)
    }

    /// Makes the context current on this thread; everything below needs it.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as the driver.
        unsafe { result::ctx::set_current(self.context) }.map_err(self.failed("cuCtxSetCurrent"))
    }

    fn stream(&self, lane: Lane) -> sys::CUstream {
        match lane {
            Lane::Main => self.main,
            Lane::Side => self.side,
        }
    }

    /// `bytes` bytes of device memory, zeroed. `what` says what for, in the message if there is not enough.
    pub fn alloc(self: &Rc<Driver>, bytes: usize, what: &str) -> Result<DeviceBuffer> {
        self.enter()?;
        // SAFETY: a plain allocation, freed by the buffer.
        let ptr = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => self.out_of_memory(bytes, what),
            _ => failure(&self.name(), "cuMemAlloc", e),
        })?;
        let buffer = DeviceBuffer { driver: self.clone(), ptr };
        if bytes > 0 {
            self.clear(ptr, bytes)?;
        }
        Ok(buffer)
    }

    fn out_of_memory(&self, bytes: usize, what: &str) -> Error {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        let free = result::mem_get_info().map_or(0, |(free, _)| free);
        Error::Device {
            device: self.name(),
            reason: format!("{:.1} MiB of memory were asked for {what}, {:.1} MiB are free", mib(bytes), mib(free)),
            remedy: Choice::Smaller.remedy(format!(
                "{}, load fewer rows of data, end other programs on this GPU, or use the CPU",
                Remedy::smaller()
            )),
        }
    }

    /// Sets `bytes` bytes to zero, in the order of the main stream.
    pub fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller hands in an address of a buffer with as many bytes.
        unsafe { result::memset_d8_async(at, 0, bytes, self.main) }.map_err(self.failed("cuMemsetD8Async"))
    }

    /// Copies host memory to the device, in the order of the main stream. The driver may wait for the stream first;
    /// what is uploaded while a plan runs goes through `pinned.rs`.
    pub fn upload<T: Pod>(&self, to: Address, values: &[T]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the caller hands in an address of a buffer with room; pageable memory is copied before the call
        // returns.
        unsafe { result::memcpy_htod_async(to, values, self.main) }.map_err(self.failed("cuMemcpyHtoDAsync"))
    }

    /// Copies device memory to the host, after everything that was launched before.
    pub fn download<T: Pod>(&self, from: Address, to: &mut [T]) -> Result<()> {
        self.enter()?;
        if !to.is_empty() {
            // SAFETY: the caller hands in an address of a buffer with as many bytes; the stream is waited for below.
            unsafe { result::memcpy_dtoh_async(to, from, self.main) }.map_err(self.failed("cuMemcpyDtoHAsync"))?;
        }
        self.synchronize()
    }

    /// Copies within the device, in the order of the main stream.
    #[cfg(feature = "mpi")]
    pub fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller hands in addresses of buffers with as many bytes each.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.main) }.map_err(self.failed("cuMemcpyDtoDAsync"))
    }

    /// Waits until the device has done everything, and reports what went wrong meanwhile.
    pub fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the streams live as long as the driver; the side stream is always joined to the main one.
        unsafe { result::stream::synchronize(self.main) }.map_err(self.failed("cuStreamSynchronize"))
    }

    /// The kernel of this name, from whichever image has it.
    pub fn function(&self, name: &'static str) -> Result<DeviceKernel> {
        if let Some(function) = self.functions.borrow().get(name) {
            return Ok(*function);
        }
        self.enter()?;
        let c_name = CString::new(name).expect("kernel names have no zero byte");
        // Whether a module has it is a question; anything but yes and no is a failure.
        let find = |module: sys::CUmodule| {
            // SAFETY: modules are never unloaded before the driver is dropped.
            match unsafe { result::module::get_function(module, c_name.clone()) } {
                Ok(handle) => Ok(Some(handle)),
                Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NOT_FOUND => Ok(None),
                Err(e) => Err(failure(&self.name(), "cuModuleGetFunction", e)),
            }
        };
        let mut handle = None;
        for &module in self.modules.borrow().iter() {
            handle = handle.or(find(module)?);
        }
        while handle.is_none() {
            let Some(module) = self.load_next_image()? else { return Err(self.no_kernel(name)) };
            handle = find(module)?;
        }
        let function = DeviceKernel { handle: handle.expect("the loop ended") };
        // The driver loads a kernel's code when it is first asked about it. Better now than while a step is recorded.
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS;
        // SAFETY: the function belongs to a loaded module.
        unsafe { result::function::get_function_attribute(function.handle, attribute) }
            .map_err(self.failed("cuFuncGetAttribute"))?;
        self.functions.borrow_mut().insert(name, function);
        Ok(function)
    }

    /// Loads the next image that has code for this GPU; `None` when all are loaded.
    fn load_next_image(&self) -> Result<Option<sys::CUmodule>> {
        let images = images::images();
        while self.next_image.get() < images.len().max(1) {
            let at = self.next_image.replace(self.next_image.get() + 1);
            // The emulator brings its own kernels and takes any image.
            let bytes = images.get(at).map_or(&b"none"[..], |image| image.bytes);
            // SAFETY: an image that nvcc made, or anything at all for the emulator.
            match unsafe { result::module::load_data(bytes.as_ptr().cast()) } {
                Ok(module) => {
                    self.modules.borrow_mut().push(module);
                    return Ok(Some(module));
                }
                // An image for another architecture alone.
                Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => {}
                Err(e) => return Err(failure(&self.name(), "cuModuleLoadData", e)),
            }
        }
        Ok(None)
    }

    fn no_kernel(&self, name: &str) -> Error {
        let Version(major, minor) = self.gpu.compute_capability;
        Error::Device {
            device: self.name(),
            reason: format!("kernel {name} is in none of the embedded images for compute capability {major}.{minor}"),
            remedy: Choice::Cpu.remedy(format!("build with ELBO_CUDA_ARCH={major}{minor}, or use the CPU")),
        }
    }

    /// Lets a kernel use `bytes` of shared memory, which above 48 KiB must be asked for.
    pub fn allow_shared(&self, function: DeviceKernel, bytes: u32) -> Result<()> {
        const WITHOUT_ASKING: u32 = 48 * 1024;
        if bytes <= WITHOUT_ASKING {
            return Ok(());
        }
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to a loaded module.
        unsafe { result::function::set_function_attribute(function.handle, attribute, bytes as i32) }
            .map_err(self.failed("cuFuncSetAttribute"))
    }

    /// Launches a kernel on a stream.
    pub fn launch(&self, launch: &Launch, lane: Lane) -> Result<()> {
        let [x, y, z] = launch.grid;
        let mut arguments = [launch.params.as_ptr().cast::<c_void>().cast_mut()];
        // SAFETY: the parameter struct is the kernel's (`params.rs` mirrors kernels/params.cuh, a test compares the
        // sizes), and it points into buffers that live as long as the plan.
        let done = unsafe {
            result::launch_kernel(
                launch.function.handle,
                (x, y, z),
                (launch.threads, 1, 1),
                launch.shared,
                self.stream(lane),
                &mut arguments,
            )
        };
        done.map_err(|e| failure(&self.name(), launch.kernel, e))
    }

    /// From here on the side stream waits for what the main stream has been given.
    pub fn fork(&self) -> Result<()> {
        self.order(self.fork, self.main, self.side)
    }

    /// From here on the main stream waits for what the side stream has been given.
    pub fn join(&self) -> Result<()> {
        self.order(self.join, self.side, self.main)
    }

    fn order(&self, event: sys::CUevent, first: sys::CUstream, then: sys::CUstream) -> Result<()> {
        // SAFETY: event and streams live as long as the driver.
        unsafe {
            result::event::record(event, first).map_err(self.failed("cuEventRecord"))?;
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            result::stream::wait_event(then, event, flags).map_err(self.failed("cuStreamWaitEvent"))
        }
    }

    /// Records what `enqueue` launches instead of running it.
    ///
    /// # Errors
    /// What `enqueue` returns; [`Error::Device`] when the driver refuses, or when something else than kernels was
    /// recorded: a graph with memory nodes could not be launched again and again.
    pub fn capture(self: &Rc<Driver>, enqueue: impl FnOnce() -> Result<()>) -> Result<Captured> {
        self.enter()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours and not capturing.
        unsafe { result::stream::begin_capture(self.main, mode) }.map_err(self.failed("cuStreamBeginCapture"))?;
        let enqueued = enqueue();
        // SAFETY: as above; ends the capture whatever happened in it.
        let graph = unsafe { result::stream::end_capture(self.main) }.map_err(self.failed("cuStreamEndCapture"));
        let graph = graph.map(|graph| Captured { driver: self.clone(), graph, exec: ptr::null_mut(), nodes: 0 });
        enqueued?;
        let mut captured = graph?;
        captured.nodes = self.count_kernels(captured.graph)?;
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the graph was just captured.
        captured.exec =
            unsafe { result::graph::instantiate(captured.graph, flags) }.map_err(self.failed("cuGraphInstantiate"))?;
        // SAFETY: the graph was just instantiated.
        unsafe { result::graph::upload(captured.exec, self.main) }.map_err(self.failed("cuGraphUpload"))?;
        Ok(captured)
    }

    /// The number of nodes of a graph, all of which must be kernels.
    fn count_kernels(&self, graph: sys::CUgraph) -> Result<usize> {
        let mut count = 0;
        // SAFETY: with a null list the driver writes the number of nodes.
        unsafe { sys::cuGraphGetNodes(graph, ptr::null_mut(), &mut count) }
            .result()
            .map_err(self.failed("cuGraphGetNodes"))?;
        let mut nodes = vec![ptr::null_mut(); count];
        // SAFETY: the list has room for as many nodes as the driver said.
        unsafe { sys::cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut count) }
            .result()
            .map_err(self.failed("cuGraphGetNodes"))?;
        for node in nodes {
            let mut kind = sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
            // SAFETY: a node of this graph.
            unsafe { sys::cuGraphNodeGetType(node, &mut kind) }.result().map_err(self.failed("cuGraphNodeGetType"))?;
            if kind != sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL {
                return Err(Error::Device {
                    device: self.name(),
                    reason: format!("the captured step holds a node that is no kernel: {kind:?}"),
                    remedy: Choice::Cpu.remedy("this is a fault of the program; please report it, and use the CPU"),
                });
            }
        }
        Ok(count)
    }

    /// Seconds that the device takes for what `enqueue` launches on the main stream.
    pub fn time(&self, enqueue: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.enter()?;
        let create =
            || result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(self.failed("cuEventCreate"));
        let (start, end) = (create()?, create()?);
        let measure = || {
            // SAFETY: both events and the stream are alive until the end of this function.
            unsafe {
                result::event::record(start, self.main).map_err(self.failed("cuEventRecord"))?;
                enqueue()?;
                result::event::record(end, self.main).map_err(self.failed("cuEventRecord"))?;
                result::event::synchronize(end).map_err(self.failed("cuEventSynchronize"))?;
                result::event::elapsed(start, end).map_err(self.failed("cuEventElapsedTime"))
            }
        };
        let milliseconds = measure();
        for event in [start, end] {
            // SAFETY: nobody uses the event any more.
            unsafe { result::event::destroy(event) }.map_err(self.failed("cuEventDestroy"))?;
        }
        Ok(f64::from(milliseconds?) / 1e3)
    }
}

impl Drop for Driver {
    /// Gives everything back. Errors have nowhere to go, and a device that fails here has failed before.
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: buffers and graphs hold the driver, so nothing of it is in use any more.
        unsafe {
            let _ = result::stream::synchronize(self.main);
            for event in [self.fork, self.join] {
                let _ = result::event::destroy(event);
            }
            for stream in [self.main, self.side] {
                let _ = result::stream::destroy(stream);
            }
            for &module in self.modules.borrow().iter() {
                let _ = result::module::unload(module);
            }
            // The context stays until the process ends: the next executor need not set the GPU up anew.
        }
    }
}

/// Device memory, freed with it.
pub(crate) struct DeviceBuffer {
    driver: Rc<Driver>,
    ptr: Address,
}

impl DeviceBuffer {
    /// The first byte's address.
    pub fn address(&self) -> Address {
        self.ptr
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.driver.enter().is_ok() {
            // SAFETY: the memory was allocated by `Driver::alloc` and is not used any more; the driver waits for
            // running kernels first.
            let _ = unsafe { result::free_sync(self.ptr) };
        }
    }
}

/// A captured sequence of launches.
pub(crate) struct Captured {
    driver: Rc<Driver>,
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
    /// The number of kernels in it.
    pub nodes: usize,
}

impl Captured {
    /// Runs the whole sequence once, on the main stream.
    pub fn replay(&self) -> Result<()> {
        // SAFETY: the graph is instantiated; its kernels point into buffers of the plan that owns it.
        unsafe { result::graph::launch(self.exec, self.driver.main) }.map_err(self.driver.failed("cuGraphLaunch"))
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        // SAFETY: the driver is alive, and waits for a running graph before it is destroyed.
        unsafe {
            if self.driver.enter().is_ok() {
                if !self.exec.is_null() {
                    let _ = result::graph::exec_destroy(self.exec);
                }
                let _ = result::graph::destroy(self.graph);
            }
        }
    }
}

/// What may be copied to and from the device byte by byte.
///
/// # Safety
/// Every pattern of bytes is a value, and there are no bytes of padding.
pub(crate) unsafe trait Pod: Copy {}

// SAFETY: plain numbers.
unsafe impl Pod for u8 {}
// SAFETY: as above.
unsafe impl Pod for u32 {}
// SAFETY: as above.
unsafe impl Pod for u64 {}
// SAFETY: as above.
unsafe impl Pod for f32 {}
// SAFETY: as above.
unsafe impl Pod for f64 {}

fn failure(device: &str, call: &str, error: DriverError) -> Error {
    // The driver answered before, so it can be asked for the name of its error.
    let name = error.error_name().map_or_else(|_| format!("{:?}", error.0), |n| n.to_string_lossy().into_owned());
    let text = error.error_string().map_or_else(|_| String::new(), |t| format!(" ({})", t.to_string_lossy()));
    Error::Device {
        device: device.into(),
        reason: format!("{call} failed with {name}{text}"),
        remedy: Choice::Cpu.remedy("see what the driver says of its GPUs; the CPU works without one"),
    }
}
