//! A thin layer over the CUDA driver: one context, one stream, memory, modules, kernels by name, graphs.
//!
//! Only this file, `commons.rs`, `pinned.rs`, `tensor_map.rs` and `probe.rs` know cudarc, and of cudarc only the driver's own
//! functions: what the safe layer adds (event tracking per allocation, allocation by pools) would have a price in every step. Every failure
//! becomes an [`Error::Device`] that names the call.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::rc::Rc;

use cudarc::driver::{DriverError, result, sys};

use super::ensemble::EnsembleMember;
use super::images;
use super::probe::{Gpu, Version, probe};
use super::rows::COPY_AHEAD;
use crate::engine::error::{Choice, Error, Remedy, Result};

/// An address on the device; 0 is null.
pub(crate) type Address = u64;

/// A kernel, ready to be launched.
#[derive(Clone, Copy)]
pub(crate) struct DeviceKernel {
    handle: sys::CUfunction,
}

impl DeviceKernel {
    /// What cannot be launched.
    pub fn none() -> DeviceKernel {
        DeviceKernel { handle: ptr::null_mut() }
    }
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

/// A launch as a node of a [`LaunchGraph`].
pub(crate) struct LaunchNode<'a> {
    pub launch: &'a Launch,
    /// The earlier nodes that it waits for.
    pub waits: Vec<usize>,
    /// Whether its blocks go before those of nodes that are not urgent, where both could run.
    pub urgent: bool,
}

/// A device with everything that belongs to it.
pub(crate) struct Driver {
    pub gpu: Gpu,
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    /// The priorities of nodes of graphs: of those that can wait, and of urgent ones.
    priorities: [i32; 2],
    modules: RefCell<Vec<sys::CUmodule>>,
    functions: RefCell<HashMap<&'static str, DeviceKernel>>,
    /// Whether launches of a graph may be set up while those that they wait for still run.
    ahead: Cell<bool>,
    /// The next image to be loaded when a kernel is in none of the modules.
    next_image: Cell<usize>,
    /// Its place among others that it shares the stream with.
    pub(super) member: Option<EnsembleMember>,
}

/// The compute capability and the CUDA of the driver from which on a launch can be set up ahead (programmatic dependent launch).
const AHEAD: (Version, Version) = (Version(9, 0), Version(12, 3));

/// Whether `ELBO_AHEAD=off` forbids it, to measure what it is worth.
fn is_switched_off() -> Result<bool> {
    match std::env::var_os("ELBO_AHEAD") {
        None => Ok(false),
        Some(value) if value == "off" => Ok(true),
        Some(value) => Err(Error::argument("ELBO_AHEAD", format!("{value:?}"), "off, or no such variable")),
    }
}

impl Driver {
    /// Opens GPU number `ordinal`, with a stream of its own or in a place among others.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason why there is none, and what can be done about it.
    pub fn open(ordinal: usize, member: Option<EnsembleMember>) -> Result<Rc<Driver>> {
        let name = format!("cuda:{ordinal}");
        let gpu = probe(ordinal).map_err(|why| why.of(&name))?;
        let failed = |call: &'static str| move |e| failure(&name, call, e);
        let device = result::device::get(ordinal as i32).map_err(failed.clone()("cuDeviceGet"))?;
        // SAFETY: the device exists; its context is kept until the process ends.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(failed.clone()("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(failed.clone()("cuCtxSetCurrent"))?;
        let [mut least, mut greatest] = [0; 2];
        // SAFETY: the driver writes two numbers.
        unsafe { sys::cuCtxGetStreamPriorityRange(&mut least, &mut greatest) }
            .result()
            .map_err(failed.clone()("cuCtxGetStreamPriorityRange"))?;
        // A stream of its own: what other users of the default stream do is waited for there.
        let own = || result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("cuStreamCreate"));
        let ahead = gpu.compute_capability >= AHEAD.0 && gpu.driver >= AHEAD.1 && !is_switched_off()?;
        let driver = Driver {
            gpu,
            context,
            stream: member.as_ref().map_or_else(own, |member| Ok(member.stream()))?,
            priorities: [least, greatest],
            modules: RefCell::default(),
            functions: RefCell::default(),
            ahead: Cell::new(ahead),
            next_image: Cell::new(0),
            member,
        };
        Ok(Rc::new(driver))
    }

    pub(super) fn failed(&self, call: &'static str) -> impl Fn(DriverError) -> Error + '_ {
        move |e| failure(&self.name(), call, e)
    }

    /// The compute capability, major and minor.
    pub fn capability(&self) -> (u32, u32) {
        let Version(major, minor) = self.gpu.compute_capability;
        (major, minor)
    }

    /// `cuda:0`.
    pub fn name(&self) -> String {
        format!("cuda:{}", self.gpu.ordinal)
    }

    pub(super) fn context(&self) -> sys::CUcontext {
        self.context
    }

    /// Makes the context current on this thread; everything below needs it.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as the driver.
        unsafe { result::ctx::set_current(self.context) }.map_err(self.failed("cuCtxSetCurrent"))
    }

    /// `bytes` bytes of device memory, zeroed. `what` says what for, in the message if there is not enough.
    pub fn alloc(self: &Rc<Driver>, bytes: usize, what: &str) -> Result<DeviceBuffer> {
        let ptr = match self.member.as_ref().and_then(|member| member.take(bytes)) {
            Some(place) => place,
            None => self.malloc(bytes, what)?,
        };
        let buffer = DeviceBuffer { driver: self.clone(), ptr };
        if bytes > 0 {
            self.clear(ptr, bytes)?;
        }
        Ok(buffer)
    }

    /// `bytes` bytes of device memory, whatever is in them, which the caller frees.
    pub(super) fn malloc(&self, bytes: usize, what: &str) -> Result<Address> {
        self.enter()?;
        // SAFETY: a plain allocation.
        unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => self.out_of_memory(bytes, what),
            _ => failure(&self.name(), "cuMemAlloc", e),
        })
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

    /// Sets `bytes` bytes to zero, in the order of the stream.
    pub fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller hands in an address of a buffer with as many bytes.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream) }.map_err(self.failed("cuMemsetD8Async"))
    }

    /// Copies host memory to the device, in the order of the stream. The driver may wait for the stream first;
    /// what is uploaded while a plan runs goes through `pinned.rs`.
    pub fn upload<T: Pod>(&self, to: Address, values: &[T]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the caller hands in an address of a buffer with room; pageable memory is copied before the call
        // returns.
        unsafe { result::memcpy_htod_async(to, values, self.stream) }.map_err(self.failed("cuMemcpyHtoDAsync"))
    }

    /// Copies device memory to the host, after everything that was launched before.
    pub fn download<T: Pod>(&self, from: Address, to: &mut [T]) -> Result<()> {
        self.enter()?;
        if !to.is_empty() {
            // SAFETY: the caller hands in an address of a buffer with as many bytes; the stream is waited for below.
            unsafe { result::memcpy_dtoh_async(to, from, self.stream) }.map_err(self.failed("cuMemcpyDtoHAsync"))?;
        }
        self.synchronize()
    }

    /// Copies within the device, in the order of the stream.
    #[cfg(feature = "mpi")]
    pub fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller hands in addresses of buffers with as many bytes each.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }.map_err(self.failed("cuMemcpyDtoDAsync"))
    }

    /// Waits until the device has done everything, and reports what went wrong meanwhile.
    pub fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives as long as the driver.
        unsafe { result::stream::synchronize(self.stream) }.map_err(self.failed("cuStreamSynchronize"))
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
        if self.ahead.get() && COPY_AHEAD.contains(&self.capability().0) {
            // Launches that are set up ahead begin beside others, on multiprocessors that share one division of their memory.
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
            // SAFETY: as above.
            unsafe { result::function::set_function_attribute(function.handle, attribute, 100) }
                .map_err(self.failed("cuFuncSetAttribute"))?;
        }
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
        let allowed = unsafe { result::function::get_function_attribute(function.handle, attribute) }
            .map_err(self.failed("cuFuncGetAttribute"))?;
        // Another plan may need more.
        if bytes as i32 <= allowed {
            return Ok(());
        }
        // SAFETY: the function belongs to a loaded module.
        unsafe { result::function::set_function_attribute(function.handle, attribute, bytes as i32) }
            .map_err(self.failed("cuFuncSetAttribute"))
    }

    /// Launches a kernel, in the order of the stream.
    pub fn launch(&self, launch: &Launch) -> Result<()> {
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
                self.stream,
                &mut arguments,
            )
        };
        done.map_err(|e| failure(&self.name(), launch.kernel, e))
    }

    /// A graph of launches, each of which begins when those that it waits for are over.
    ///
    /// # Errors
    /// [`Error::Device`] when the driver refuses.
    pub fn graph(self: &Rc<Driver>, nodes: &[LaunchNode<'_>]) -> Result<LaunchGraph> {
        self.enter()?;
        if self.ahead.get() {
            match self.graph_with(nodes, true) {
                // A driver that does not want it: then never again.
                Err(Error::Device { .. }) => self.ahead.set(false),
                made => return made,
            }
        }
        self.graph_with(nodes, false)
    }

    /// The same, `ahead`: a launch may begin before those that it waits for are over, since its kernel waits itself.
    fn graph_with(self: &Rc<Driver>, nodes: &[LaunchNode<'_>], ahead: bool) -> Result<LaunchGraph> {
        let mut graph = ptr::null_mut();
        // SAFETY: the driver writes a handle.
        unsafe { sys::cuGraphCreate(&mut graph, 0) }.result().map_err(self.failed("cuGraphCreate"))?;
        let mut graph = LaunchGraph { driver: self.clone(), graph, exec: ptr::null_mut() };
        let mut handles: Vec<sys::CUgraphNode> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let waits: Vec<sys::CUgraphNode> = node.waits.iter().map(|&i| handles[i]).collect();
            let at_once: &[sys::CUgraphNode] = if ahead { &[] } else { &waits };
            let handle = self.add_node(graph.graph, node, at_once)?;
            if ahead {
                self.wait_ahead(graph.graph, handle, &waits)?;
            }
            handles.push(handle);
        }
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
        // SAFETY: the graph was just made.
        graph.exec =
            unsafe { result::graph::instantiate(graph.graph, flags) }.map_err(self.failed("cuGraphInstantiate"))?;
        // SAFETY: the graph was just instantiated.
        unsafe { result::graph::upload(graph.exec, self.stream) }.map_err(self.failed("cuGraphUpload"))?;
        Ok(graph)
    }

    /// Lets `node` wait for others in the way of `begin_launch` in kernels/ptx.cuh.
    fn wait_ahead(&self, graph: sys::CUgraph, node: sys::CUgraphNode, waits: &[sys::CUgraphNode]) -> Result<()> {
        let edge = sys::CUgraphEdgeData {
            // CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC
            from_port: 1,
            to_port: 0,
            type_: sys::CUgraphDependencyType::CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC as u8,
            reserved: [0; 5],
        };
        let (edges, nodes) = (vec![edge; waits.len()], vec![node; waits.len()]);
        // SAFETY: graph and nodes exist, and the lists are of one length.
        unsafe { sys::cuGraphAddDependencies_v2(graph, waits.as_ptr(), nodes.as_ptr(), edges.as_ptr(), waits.len()) }
            .result()
            .map_err(self.failed("cuGraphAddDependencies"))
    }

    fn add_node(
        &self,
        graph: sys::CUgraph,
        node: &LaunchNode<'_>,
        waits: &[sys::CUgraphNode],
    ) -> Result<sys::CUgraphNode> {
        let launch = node.launch;
        let [x, y, z] = launch.grid;
        let mut arguments = [launch.params.as_ptr().cast::<c_void>().cast_mut()];
        let params = sys::CUDA_KERNEL_NODE_PARAMS {
            func: launch.function.handle,
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared,
            kernelParams: arguments.as_mut_ptr(),
            extra: ptr::null_mut(),
            kern: ptr::null_mut(),
            ctx: ptr::null_mut(),
        };
        let mut handle = ptr::null_mut();
        // SAFETY: graph and nodes exist; the driver copies the parameter struct, which is the kernel's (see `launch`).
        unsafe { sys::cuGraphAddKernelNode_v2(&mut handle, graph, waits.as_ptr(), waits.len(), &params) }
            .result()
            .map_err(|e| failure(&self.name(), launch.kernel, e))?;
        let value = sys::CUlaunchAttributeValue { priority: self.priorities[usize::from(node.urgent)] };
        let attribute = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PRIORITY;
        // SAFETY: the node was just made, and the value is that of the attribute.
        unsafe { sys::cuGraphKernelNodeSetAttribute(handle, attribute, &value) }
            .result()
            .map_err(self.failed("cuGraphKernelNodeSetAttribute"))?;
        Ok(handle)
    }

    /// Seconds that the device takes for what `enqueue` launches.
    pub fn time(&self, enqueue: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.enter()?;
        let create =
            || result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(self.failed("cuEventCreate"));
        let (start, end) = (create()?, create()?);
        let measure = || {
            // SAFETY: both events and the stream are alive until the end of this function.
            unsafe {
                result::event::record(start, self.stream).map_err(self.failed("cuEventRecord"))?;
                enqueue()?;
                result::event::record(end, self.stream).map_err(self.failed("cuEventRecord"))?;
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
            let _ = result::stream::synchronize(self.stream);
            if self.member.is_none() {
                let _ = result::stream::destroy(self.stream);
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
        // What takes the place next is enqueued behind whatever still uses it.
        if self.driver.member.as_ref().is_some_and(|member| member.give_back(self.ptr)) {
            return;
        }
        if self.driver.enter().is_ok() {
            // SAFETY: the memory was allocated by `Driver::alloc` and is not used any more; the driver waits for
            // running kernels first.
            let _ = unsafe { result::free_sync(self.ptr) };
        }
    }
}

/// Launches with what waits for what, which the driver can run again and again.
pub(crate) struct LaunchGraph {
    driver: Rc<Driver>,
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
}

impl LaunchGraph {
    /// Runs all of it once, in the order of the stream.
    pub fn replay(&self) -> Result<()> {
        // SAFETY: the graph is instantiated; its kernels point into buffers of the plan that owns it.
        unsafe { result::graph::launch(self.exec, self.driver.stream) }.map_err(self.driver.failed("cuGraphLaunch"))
    }
}

impl Drop for LaunchGraph {
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
