//! The emulated driver in this process, with the test kernels, and what its tests need of it.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::sys::{self, CUresult, cudaError_enum as Code};
use elbo_emulator::Emulator;

/// The emulator with the test kernels as this process's CUDA driver, initialised; one test at a time.
pub struct Device {
    pub emulator: Emulator,
    pub context: sys::CUcontext,
    pub module: sys::CUmodule,
}

// SAFETY: handles of the driver may be used by any thread.
unsafe impl Send for Device {}

/// `races`: with the race detector. A process has one or the other.
pub fn device(races: bool) -> Option<MutexGuard<'static, Device>> {
    static DEVICE: OnceLock<Option<Mutex<Device>>> = OnceLock::new();
    let opened = DEVICE.get_or_init(|| {
        let library = super::checks(if races { "checks-driver-races" } else { "checks-driver" }, races)?;
        let emulator = Emulator::open(&library, true).expect("the library opens");
        let (mut context, mut module) = (null_mut(), null_mut());
        // SAFETY: the pointers are to live variables.
        unsafe {
            assert!(sys::is_culib_present());
            ok(sys::cuInit(0));
            ok(sys::cuDevicePrimaryCtxRetain(&mut context, 0));
            ok(sys::cuCtxSetCurrent(context));
            ok(sys::cuModuleLoadData(&mut module, c"an image".as_ptr().cast()));
        }
        Some(Mutex::new(Device { emulator, context, module }))
    });
    let device = opened.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the context exists.
    unsafe { ok(sys::cuCtxSetCurrent(device.context)) };
    device.emulator.clear();
    device.emulator.set_schedule("forward").expect("a schedule");
    Some(device)
}

#[track_caller]
pub fn ok(result: CUresult) {
    assert_eq!(result, Code::CUDA_SUCCESS);
}

impl Device {
    pub fn function(&self, name: &str) -> Result<sys::CUfunction, CUresult> {
        let (name, mut function) = (CString::new(name).unwrap(), null_mut());
        // SAFETY: module and pointers are valid.
        match unsafe { sys::cuModuleGetFunction(&mut function, self.module, name.as_ptr()) } {
            Code::CUDA_SUCCESS => Ok(function),
            error => Err(error),
        }
    }

    /// Launches a kernel of 32 threads per block with a struct of parameters.
    pub fn launch<P>(&self, name: &str, blocks: u32, shared: u32, stream: sys::CUstream, params: &mut P) -> CUresult {
        let mut arguments = [std::ptr::from_mut(params).cast::<c_void>()];
        let function = self.function(name).expect("a kernel of the tests");
        // SAFETY: the parameters mirror the kernel's struct.
        unsafe {
            sys::cuLaunchKernel(function, blocks, 1, 1, 32, 1, 1, shared, stream, arguments.as_mut_ptr(), null_mut())
        }
    }
}

impl Device {
    /// A node of one block of `check_add`, after others.
    pub fn node(
        &self,
        graph: sys::CUgraph,
        after: &[sys::CUgraphNode],
        params: &mut AddParams,
    ) -> Result<sys::CUgraphNode, CUresult> {
        self.node_of("check_add", graph, after, params)
    }

    /// A node of one block of 32 threads of a kernel with these parameters.
    pub fn node_of<P>(
        &self,
        kernel: &str,
        graph: sys::CUgraph,
        after: &[sys::CUgraphNode],
        params: &mut P,
    ) -> Result<sys::CUgraphNode, CUresult> {
        let mut arguments = [std::ptr::from_mut(params).cast::<c_void>()];
        let node = sys::CUDA_KERNEL_NODE_PARAMS {
            func: self.function(kernel).expect("a kernel of the tests"),
            gridDimX: 1,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: 32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 128,
            kernelParams: arguments.as_mut_ptr(),
            extra: null_mut(),
            kern: null_mut(),
            ctx: null_mut(),
        };
        let mut handle = null_mut();
        // SAFETY: the parameters mirror the kernel's struct, and the driver copies them.
        match unsafe { sys::cuGraphAddKernelNode_v2(&mut handle, graph, after.as_ptr(), after.len(), &node) } {
            Code::CUDA_SUCCESS => Ok(handle),
            error => Err(error),
        }
    }
}

/// A buffer of floats on the device.
pub struct Buffer {
    pub at: sys::CUdeviceptr,
    pub len: usize,
}

impl Buffer {
    pub fn new(values: &[f32]) -> Buffer {
        let mut at = 0;
        // SAFETY: the sizes are those of the slice.
        unsafe {
            ok(sys::cuMemAlloc_v2(&mut at, size_of_val(values)));
            ok(sys::cuMemcpyHtoD_v2(at, values.as_ptr().cast(), size_of_val(values)));
        }
        Buffer { at, len: values.len() }
    }

    pub fn read(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        // SAFETY: the sizes are those of the vector.
        unsafe { ok(sys::cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), self.at, 4 * self.len)) };
        values
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the allocation is this buffer's own.
        unsafe { sys::cuMemFree_v2(self.at) };
    }
}

/// A stream of the device.
pub struct Stream(pub sys::CUstream);

impl Stream {
    pub fn new() -> Stream {
        let mut stream = null_mut();
        // SAFETY: the pointer is to a live variable; 1 is CU_STREAM_NON_BLOCKING.
        unsafe { ok(sys::cuStreamCreate(&mut stream, 1)) };
        Stream(stream)
    }

    pub fn begin(&self) {
        // SAFETY: the stream exists.
        unsafe {
            ok(sys::cuStreamBeginCapture_v2(self.0, sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        }
    }

    pub fn end(&self) -> Result<sys::CUgraph, CUresult> {
        let mut graph = null_mut();
        // SAFETY: the stream exists.
        match unsafe { sys::cuStreamEndCapture(self.0, &mut graph) } {
            Code::CUDA_SUCCESS => Ok(graph),
            error => Err(error),
        }
    }

    pub fn synchronize(&self) -> CUresult {
        // SAFETY: the stream exists.
        unsafe { sys::cuStreamSynchronize(self.0) }
    }

    /// `other` waits for what this stream has been given so far.
    pub fn before(&self, other: &Stream) {
        let mut event = null_mut();
        // SAFETY: the streams exist, and so does the event between its creation and its end.
        unsafe {
            ok(sys::cuEventCreate(&mut event, 2));
            ok(sys::cuEventRecord(event, self.0));
            ok(sys::cuStreamWaitEvent(other.0, event, 0));
            ok(sys::cuEventDestroy_v2(event));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is this struct's own.
        unsafe { sys::cuStreamDestroy_v2(self.0) };
    }
}

pub fn instantiate(graph: sys::CUgraph) -> sys::CUgraphExec {
    let mut exec = null_mut();
    // SAFETY: the graph exists.
    unsafe { ok(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0)) };
    exec
}

/// Mirrors CheckParams and AddParams of checks.cu.
#[repr(C)]
pub struct CheckParams {
    pub x: sys::CUdeviceptr,
    pub out: sys::CUdeviceptr,
    pub ticket: sys::CUdeviceptr,
    pub n: i32,
    pub bug: i32,
}
#[repr(C)]
pub struct AddParams {
    pub x: sys::CUdeviceptr,
    pub out: sys::CUdeviceptr,
    pub value: f32,
    pub n: i32,
}

pub fn add(from: &Buffer, to: &Buffer, value: f32) -> AddParams {
    AddParams { x: from.at, out: to.at, value, n: to.len as i32 }
}
