//! The emulated driver as cudarc sees it: memory, launches, errors, streams, capture and graphs.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use common::driver::{AddParams, Buffer, CheckParams, Device, Stream, add, device, instantiate, ok};
use cudarc::driver::sys::{self, CUresult, cudaError_enum as Code};

mod common;

#[test]
fn the_device_describes_itself() {
    let Some(device) = device(false) else { return };
    use sys::CUdevice_attribute_enum as Attribute;
    let (mut version, mut major, mut optin, mut name) = (0, 0, 0, [0; 64]);
    // SAFETY: all pointers are to live variables.
    unsafe {
        ok(sys::cuDriverGetVersion(&mut version));
        ok(sys::cuDeviceGetAttribute(&mut major, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0));
        ok(sys::cuDeviceGetAttribute(&mut optin, Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0));
        ok(sys::cuDeviceGetName(name.as_mut_ptr(), 64, 0));
        assert_eq!(sys::cuDeviceGet(&mut 0, 1), Code::CUDA_ERROR_INVALID_DEVICE);
    }
    assert_eq!((version, major, optin), (13000, 9, 227 << 10));
    assert_eq!(name.map(|c| c as u8)[..21], *b"elbo emulated device\0");
    // cudarc's own layer finds its way.
    let context = cudarc::driver::CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let copied = stream.clone_htod(&[1.0f32, 2.0]).unwrap();
    assert_eq!(stream.clone_dtoh(&copied).unwrap(), [1.0, 2.0]);
    assert!(device.function("check_add").is_ok());
}

#[test]
fn kernels_compute_and_memory_starts_as_nan() {
    let Some(device) = device(false) else { return };
    let x = Buffer::new(&[1.0; 40]);
    let mut out = 0;
    // SAFETY: the pointer is to a live variable.
    unsafe { ok(sys::cuMemAlloc_v2(&mut out, 48 * 4)) };
    let out = Buffer { at: out, len: 48 };
    let stream = Stream::new();
    ok(device.launch("check_add", 2, 0, stream.0, &mut AddParams { n: 40, ..add(&x, &out, 2.0) }));
    ok(stream.synchronize());
    let values = out.read();
    assert!(values[..40].iter().all(|v| *v == 3.0) && values[40..].iter().all(|v| v.is_nan()));
}

#[test]
fn wrong_calls_have_the_errors_of_the_driver() {
    let Some(device) = device(false) else { return };
    let x = Buffer::new(&[1.0; 32]);
    assert_eq!(device.function("no_such_kernel"), Err(Code::CUDA_ERROR_NOT_FOUND));
    let function = device.function("check_add").unwrap();
    let mut params = add(&x, &x, 1.0);
    let mut arguments = [(&raw mut params).cast::<c_void>()];
    let mut launch = |threads, shared| {
        // SAFETY: the parameters mirror the kernel's struct.
        unsafe {
            sys::cuLaunchKernel(
                function,
                1,
                1,
                1,
                threads,
                1,
                1,
                shared,
                null_mut(),
                arguments.as_mut_ptr(),
                null_mut(),
            )
        }
    };
    ok(launch(32, 0));
    assert_eq!(launch(33, 0), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(launch(32, 50 << 10), Code::CUDA_ERROR_INVALID_VALUE);
    use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
    let mut values = [0.0f32; 40];
    // SAFETY: pointers are to live variables; the ranges that are too long are what is refused.
    unsafe {
        ok(sys::cuFuncSetAttribute(function, SHARED, 227 << 10));
        assert_eq!(sys::cuFuncSetAttribute(function, SHARED, 228 << 10), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), x.at, 160), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemsetD32_v2(x.at + 64, 0, 17), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemFree_v2(x.at + 4), Code::CUDA_ERROR_INVALID_VALUE);
        let (mut free, mut total, mut p) = (0, 0, 0);
        ok(sys::cuMemGetInfo_v2(&mut free, &mut total));
        assert_eq!(sys::cuMemAlloc_v2(&mut p, free + 1), Code::CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(sys::cuStreamSynchronize(0x1234 as sys::CUstream), Code::CUDA_ERROR_INVALID_HANDLE);
    }
    ok(launch(32, 200 << 10));
}

#[test]
fn a_failed_kernel_shows_at_the_next_wait_and_stays() {
    let Some(device) = device(false) else { return };
    let (x, out) = (Buffer::new(&[1.0; 32]), Buffer::new(&[0.0; 32]));
    for (bug, n, expected, words) in [
        (1, 32, Code::CUDA_ERROR_ILLEGAL_ADDRESS, "wrote behind allocation"),
        (1, 1 << 20, Code::CUDA_ERROR_ILLEGAL_ADDRESS, "checks.cu:"),
        (2, 0, Code::CUDA_ERROR_ILLEGAL_ADDRESS, "wrote before allocation"),
        (3, 0, Code::CUDA_ERROR_ILLEGAL_ADDRESS, "no memory of the device"),
        (4, 0, Code::CUDA_ERROR_MISALIGNED_ADDRESS, "float4"),
    ] {
        device.emulator.clear();
        let mut params = CheckParams { x: x.at, out: out.at, ticket: 0, n, bug };
        let stream = Stream::new();
        ok(device.launch("check_bounds", 1, 128, stream.0, &mut params));
        assert_eq!(stream.synchronize(), expected, "bug {bug}");
        let report = device.emulator.last_report();
        assert!(report.starts_with("kernel check_bounds") && report.contains(words), "bug {bug}: {report}");
        // SAFETY: the pointer is to a live variable.
        assert_eq!(unsafe { sys::cuMemAlloc_v2(&mut 0, 4) }, expected);
    }
    device.emulator.clear();
}

#[test]
fn a_graph_replays_the_parameters_that_were_captured() {
    let Some(device) = device(false) else { return };
    let x = Buffer::new(&[0.0; 32]);
    let stream = Stream::new();
    stream.begin();
    let mut params = add(&x, &x, 1.0);
    ok(device.launch("check_add", 1, 0, stream.0, &mut params));
    // Too late: the node has its own copy.
    params.value = 100.0;
    std::hint::black_box(&params);
    ok(device.launch("check_add", 1, 0, stream.0, &mut add(&x, &x, 10.0)));
    let graph = stream.end().unwrap();
    assert_eq!(x.read(), [0.0; 32], "a captured launch does not run");
    let exec = instantiate(graph);
    let (mut nodes, mut edges) = (0, 0);
    // SAFETY: graph and stream exist; null asks for the number.
    unsafe {
        ok(sys::cuGraphGetNodes(graph, null_mut(), &mut nodes));
        ok(sys::cuGraphGetEdges(graph, null_mut(), null_mut(), &mut edges));
        let mut all = [null_mut(); 2];
        ok(sys::cuGraphGetNodes(graph, all.as_mut_ptr(), &mut nodes));
        let mut kind = sys::CUgraphNodeType_enum::CU_GRAPH_NODE_TYPE_EMPTY;
        ok(sys::cuGraphNodeGetType(all[1], &mut kind));
        assert_eq!(kind, sys::CUgraphNodeType_enum::CU_GRAPH_NODE_TYPE_KERNEL);
        ok(sys::cuGraphDestroy(graph));
        for _ in 0..3 {
            ok(sys::cuGraphLaunch(exec, stream.0));
        }
        ok(sys::cuGraphExecDestroy(exec));
    }
    assert_eq!((nodes, edges), (2, 1));
    ok(stream.synchronize());
    assert_eq!(x.read(), [33.0; 32]);
}

/// A graph made node by node: b = a + 1, then c = b + 1, if `edge`, else at any time.
fn made(device: &Device, edge: bool, schedule: &str) -> f32 {
    let [a, b, c] = [1.0, 0.0, 0.0].map(|v| Buffer::new(&[v; 32]));
    let stream = Stream::new();
    device.emulator.set_schedule(schedule).unwrap();
    let mut graph = null_mut();
    // SAFETY: the pointer is to a live variable.
    unsafe { ok(sys::cuGraphCreate(&mut graph, 0)) };
    let first = device.node(graph, &[], &mut add(&a, &b, 1.0)).unwrap();
    let after: &[sys::CUgraphNode] = if edge { &[first] } else { &[] };
    let second = device.node(graph, after, &mut add(&b, &c, 1.0)).unwrap();
    let attribute = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PRIORITY;
    let urgent = |priority| sys::CUlaunchAttributeValue { priority };
    // SAFETY: the handles are those of above.
    unsafe {
        ok(sys::cuGraphKernelNodeSetAttribute(second, attribute, &urgent(-5)));
        for wrong in [-6, 1] {
            let refused = sys::cuGraphKernelNodeSetAttribute(second, attribute, &urgent(wrong));
            assert_eq!(refused, Code::CUDA_ERROR_INVALID_VALUE);
        }
        let exec = instantiate(graph);
        // Too late for what was instantiated.
        device.node(graph, &[second], &mut add(&c, &c, 100.0)).unwrap();
        ok(sys::cuGraphDestroy(graph));
        ok(sys::cuGraphLaunch(exec, stream.0));
        ok(stream.synchronize());
        ok(sys::cuGraphExecDestroy(exec));
    }
    c.read()[0]
}

#[test]
fn a_graph_made_node_by_node_keeps_to_its_edges_and_no_others() {
    let Some(device) = device(false) else { return };
    let results = |edge| common::SCHEDULES.map(|schedule| made(&device, edge, schedule));
    assert_eq!(results(true), [3.0; 5]);
    assert!(results(false).contains(&1.0));
    let (x, mut graphs) = (Buffer::new(&[0.0; 32]), [null_mut(); 2]);
    // SAFETY: the pointers are to live variables.
    graphs.iter_mut().for_each(|graph| unsafe { ok(sys::cuGraphCreate(graph, 0)) });
    let node = device.node(graphs[0], &[], &mut add(&x, &x, 1.0)).unwrap();
    for (graph, after) in [(graphs[1], &[node][..]), (graphs[0], &[node, node])] {
        let refused = device.node(graph, after, &mut add(&x, &x, 1.0));
        assert_eq!(refused, Err(Code::CUDA_ERROR_INVALID_VALUE), "a node of another graph, or one named twice");
    }
    // SAFETY: the graphs exist.
    graphs.iter().for_each(|&graph| unsafe { ok(sys::cuGraphDestroy(graph)) });
}

/// b = a + 1 in a second stream, c = b + 1 in the first; `joined`: with the event that the last step needs.
fn fork(device: &Device, joined: bool, schedule: &str, captured: bool) -> f32 {
    let [a, b, c, d] = [1.0, 0.0, 0.0, 0.0].map(|v| Buffer::new(&[v; 32]));
    let (first, second) = (Stream::new(), Stream::new());
    device.emulator.set_schedule(schedule).unwrap();
    if captured {
        first.begin();
    }
    first.before(&second);
    ok(device.launch("check_add", 1, 0, second.0, &mut add(&a, &b, 1.0)));
    if joined {
        second.before(&first);
    }
    ok(device.launch("check_add", 1, 0, first.0, &mut add(&b, &c, 1.0)));
    second.before(&first);
    ok(device.launch("check_add", 1, 0, first.0, &mut add(&c, &d, 0.0)));
    if captured {
        let exec = instantiate(first.end().unwrap());
        // SAFETY: graph and stream exist.
        unsafe { ok(sys::cuGraphLaunch(exec, first.0)) };
    }
    ok(first.synchronize());
    d.read()[0]
}

#[test]
fn a_missing_dependency_between_streams_shows_under_some_schedule() {
    let Some(device) = device(false) else { return };
    for captured in [false, true] {
        let results = |joined| common::SCHEDULES.map(|schedule| fork(&device, joined, schedule, captured));
        assert_eq!(results(true), [3.0; 5]);
        assert!(results(false).contains(&1.0));
    }
}

#[test]
fn what_may_not_happen_during_capture_spoils_it() {
    let Some(device) = device(false) else { return };
    let x = Buffer::new(&[0.0; 32]);
    let host = [1.0f32; 32];
    let stream = Stream::new();
    let forbidden: [(&str, &dyn Fn() -> CUresult); 5] = [
        // SAFETY: all pointers are to live variables, and the stream exists.
        ("alloc", &|| unsafe { sys::cuMemAlloc_v2(&mut 0, 4) }),
        // SAFETY: as above.
        ("free", &|| unsafe { sys::cuMemFree_v2(x.at) }),
        ("synchronize", &|| stream.synchronize()),
        // SAFETY: as above.
        ("synchronize all", &|| unsafe { sys::cuCtxSynchronize() }),
        // SAFETY: as above.
        ("copy", &|| unsafe { sys::cuMemcpyHtoDAsync_v2(x.at, host.as_ptr().cast(), 128, stream.0) }),
    ];
    for (name, call) in forbidden {
        stream.begin();
        ok(device.launch("check_add", 1, 0, stream.0, &mut add(&x, &x, 1.0)));
        assert_eq!(call(), Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "{name}");
        assert_eq!(stream.end(), Err(Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED), "{name}");
    }
    // A stream that was drawn into the capture must lead back into the first one.
    let other = Stream::new();
    stream.begin();
    stream.before(&other);
    ok(device.launch("check_add", 1, 0, other.0, &mut add(&x, &x, 1.0)));
    assert_eq!(stream.end(), Err(Code::CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
    assert_eq!(stream.end(), Err(Code::CUDA_ERROR_ILLEGAL_STATE));
    ok(stream.synchronize());
}

#[test]
fn nothing_runs_before_somebody_waits() {
    let Some(device) = device(false) else { return };
    let x = Buffer::new(&[0.0; 32]);
    let stream = Stream::new();
    let mut pinned = null_mut();
    // SAFETY: the allocation has 32 floats, as many as are copied; the events exist until the end.
    unsafe {
        ok(sys::cuMemHostAlloc(&mut pinned, 128, 0));
        assert!(pinned.cast::<f32>().read().is_nan(), "fresh memory holds no number");
        pinned.cast::<[f32; 32]>().write([-1.0; 32]);
        let (mut start, mut end, mut milliseconds) = (null_mut(), null_mut(), -1.0);
        ok(sys::cuEventCreate(&mut start, 0));
        ok(sys::cuEventCreate(&mut end, 0));
        ok(sys::cuEventRecord(start, stream.0));
        ok(device.launch("check_add", 1, 0, stream.0, &mut add(&x, &x, 5.0)));
        ok(sys::cuMemcpyDtoHAsync_v2(pinned, x.at, 128, stream.0));
        ok(sys::cuEventRecord(end, stream.0));
        assert_eq!(pinned.cast::<f32>().read(), -1.0, "read too early");
        assert_eq!(sys::cuEventElapsedTime(&mut milliseconds, start, end), Code::CUDA_ERROR_NOT_READY);
        let waits = device.emulator.waits();
        assert_eq!(sys::cuEventQuery(end), Code::CUDA_ERROR_NOT_READY);
        assert_eq!(device.emulator.waits(), waits, "to ask is not to wait");
        assert_eq!(pinned.cast::<f32>().read(), -1.0, "what is not ready has not run");
        ok(sys::cuEventSynchronize(end));
        assert_eq!(device.emulator.waits(), waits + 1);
        assert_eq!(pinned.cast::<f32>().read(), 5.0);
        ok(device.launch("check_add", 1, 0, stream.0, &mut add(&x, &x, 1.0)));
        ok(sys::cuMemcpyDtoHAsync_v2(pinned, x.at, 128, stream.0));
        assert_eq!(sys::cuStreamQuery(stream.0), Code::CUDA_ERROR_NOT_READY);
        ok(sys::cuStreamQuery(stream.0));
        assert_eq!(pinned.cast::<f32>().read(), 6.0, "who polls comes to an end");
        ok(sys::cuEventElapsedTime(&mut milliseconds, start, end));
        assert!(milliseconds >= 0.0);
        ok(sys::cuEventDestroy_v2(start));
        ok(sys::cuEventDestroy_v2(end));
        ok(sys::cuMemFreeHost(pinned));
    }
}

#[test]
fn memory_in_use_is_what_was_taken_and_not_given_back() {
    let Some(device) = device(false) else { return };
    let before = device.emulator.memory_in_use();
    let taken = || device.emulator.memory_in_use() - before;
    let mut pinned = null_mut();
    // SAFETY: the pointer is to a live variable, and what is freed was allocated.
    unsafe {
        ok(sys::cuMemHostAlloc(&mut pinned, 128, 0));
        assert_eq!(taken(), 128);
        let x = Buffer::new(&[0.0; 32]);
        assert_eq!(taken(), 256);
        ok(sys::cuMemFreeHost(pinned));
        drop(x);
    }
    assert_eq!(taken(), 0);
}

#[test]
fn launch_attributes_are_accepted_or_refused() {
    let Some(device) = device(false) else { return };
    let x = Buffer::new(&[0.0; 32]);
    let mut params = add(&x, &x, 1.0);
    let mut arguments = [(&raw mut params).cast::<c_void>()];
    let function = device.function("check_add").unwrap();
    let mut launch = |id, value: [u32; 3]| {
        // SAFETY: zero is a valid value of every field.
        let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
        attribute.id = id;
        let [x, y, z] = value;
        attribute.value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        let config = sys::CUlaunchConfig {
            gridDimX: 1,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: 32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: null_mut(),
            attrs: &raw mut attribute,
            numAttrs: 1,
        };
        // SAFETY: the parameters mirror the kernel's struct.
        unsafe { sys::cuLaunchKernelEx(&config, function, arguments.as_mut_ptr(), null_mut()) }
    };
    use sys::CUlaunchAttributeID_enum as Id;
    ok(launch(Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, [1, 0, 0]));
    ok(launch(Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, [1, 1, 1]));
    let refused = launch(Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, [2, 1, 1]);
    assert_eq!(refused, Code::CUDA_ERROR_NOT_SUPPORTED);
    assert_eq!(x.read(), [2.0; 32]);
    // SAFETY: the function returns a string or null.
    let mut name = null();
    // SAFETY: the pointer is to a live variable.
    unsafe { ok(sys::cuGetErrorName(refused, &mut name)) };
    // SAFETY: the driver's names are constants.
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(name) }, c"CUDA_ERROR_NOT_SUPPORTED");
}

/// The test runs itself in another process, which only has the library's folder in its environment.
#[test]
fn a_child_process_finds_the_driver_by_its_folder() {
    let Some(library) = common::checks("checks-driver", false) else { return };
    if std::env::var_os("ELBO_EMU_CC").is_some() {
        let context = cudarc::driver::CudaContext::new(0).unwrap();
        assert_eq!(context.name().unwrap(), "elbo emulated device");
        assert_eq!(context.compute_capability().unwrap(), (8, 6));
        let (free, total) = context.mem_get_info().unwrap();
        assert_eq!((free, total), (1 << 20, 1 << 20));
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_child_process_finds_the_driver_by_its_folder"])
        .env("LD_LIBRARY_PATH", library.parent().unwrap())
        .envs([("ELBO_EMU_CC", "86"), ("ELBO_EMU_MEMORY", "1048576")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
