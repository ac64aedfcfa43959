//! Launches that are set up ahead of those that they wait for: the edges that the driver takes, and that a kernel which touches
//! memory before it has waited is found, whatever the order.

use std::ptr::null_mut;

use common::driver::{Buffer, CheckParams, Device, Stream, add, device, instantiate, ok};
use cudarc::driver::sys::{self, CUresult, cudaError_enum as Code};

mod common;

/// CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC from CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC.
const AHEAD: sys::CUgraphEdgeData = sys::CUgraphEdgeData { from_port: 1, to_port: 0, type_: 1, reserved: [0; 5] };

fn wait_ahead(graph: sys::CUgraph, [from, to]: [sys::CUgraphNode; 2], edge: sys::CUgraphEdgeData) -> CUresult {
    // SAFETY: graph and nodes exist, and the pointers are to live variables.
    unsafe { sys::cuGraphAddDependencies_v2(graph, &from, &to, &edge, 1) }
}

fn graph() -> sys::CUgraph {
    let mut graph = null_mut();
    // SAFETY: the pointer is to a live variable.
    unsafe { ok(sys::cuGraphCreate(&mut graph, 0)) };
    graph
}

/// b = a + 1, and ahead of its end c = b + 1 with a bug: c, or the error.
fn run(device: &Device, bug: i32, schedule: &str) -> Result<Vec<f32>, CUresult> {
    run_after(device, bug, &[], schedule)
}

/// The same after t = a + 2, which comes before those of the two with these numbers.
fn run_after(device: &Device, bug: i32, before: &[usize], schedule: &str) -> Result<Vec<f32>, CUresult> {
    device.emulator.clear();
    device.emulator.set_schedule(schedule).unwrap();
    let [a, b, c, ticket] = [1.0, 0.0, 0.0, 0.0].map(|v| Buffer::new(&[v; 32]));
    let (graph, stream) = (graph(), Stream::new());
    let zeroth = device.node(graph, &[], &mut add(&a, &ticket, 2.0)).unwrap();
    let first = device.node(graph, &[], &mut add(&a, &b, 1.0)).unwrap();
    let mut params = CheckParams { x: b.at, out: c.at, ticket: ticket.at, n: 0, bug };
    let second = device.node_of("check_ahead", graph, &[], &mut params).unwrap();
    ok(wait_ahead(graph, [first, second], AHEAD));
    // The first does not wait itself.
    let edge = |which: usize| if which == 0 { sys::CUgraphEdgeData { from_port: 0, type_: 0, ..AHEAD } } else { AHEAD };
    before.iter().for_each(|&which| ok(wait_ahead(graph, [zeroth, [first, second][which]], edge(which))));
    let exec = instantiate(graph);
    // SAFETY: the handles are those of above.
    unsafe {
        ok(sys::cuGraphDestroy(graph));
        ok(sys::cuGraphLaunch(exec, stream.0));
    }
    let ended = stream.synchronize();
    if ended == Code::CUDA_SUCCESS {
        // SAFETY: as above.
        unsafe { ok(sys::cuGraphExecDestroy(exec)) };
        return Ok(c.read());
    }
    Err(ended)
}

#[test]
fn a_launch_that_is_set_up_ahead_touches_nothing_before_it_has_waited() {
    let Some(device) = device(true) else { return };
    assert!(device.emulator.detects_races());
    for schedule in common::SCHEDULES {
        assert_eq!(run(&device, 0, schedule), Ok(vec![3.0; 32]), "{schedule}");
        for bug in 1..=4 {
            assert_eq!(run(&device, bug, schedule), Err(Code::CUDA_ERROR_LAUNCH_FAILED), "bug {bug}, {schedule}");
            let report = device.emulator.last_report();
            let said =
                report.contains("global memory is touched before begin_launch()") && report.contains("checks.cu:");
            assert!(report.starts_with("kernel check_ahead") && said, "bug {bug}, {schedule}: {report}");
        }
        assert_eq!(run(&device, 5, schedule), Err(Code::CUDA_ERROR_LAUNCH_FAILED));
        let report = device.emulator.last_report();
        assert!(report.contains("ended without begin_launch()"), "{schedule}: {report}");
    }
    device.emulator.clear();
}

/// What the launch before may still write, or another that this one comes after, is not copied; what that one came after is there.
#[test]
fn only_what_is_there_is_copied_ahead() {
    let Some(device) = device(true) else { return };
    for schedule in common::SCHEDULES {
        assert_eq!(run_after(&device, 7, &[0], schedule), Ok(vec![6.0; 32]), "{schedule}");
        for (bug, before) in [(6, &[0][..]), (7, &[1])] {
            assert_eq!(run_after(&device, bug, before, schedule), Err(Code::CUDA_ERROR_LAUNCH_FAILED));
            let report = device.emulator.last_report();
            let said = report.contains("a launch may still write") && report.contains("checks.cu:");
            assert!(said, "bug {bug}, {schedule}: {report}");
        }
    }
    device.emulator.clear();
}

#[test]
fn edges_that_the_driver_does_not_take() {
    let Some(device) = device(true) else { return };
    let x = Buffer::new(&[0.0; 32]);
    let graph = graph();
    let [first, second] = [0, 1].map(|_| device.node(graph, &[], &mut add(&x, &x, 1.0)).unwrap());
    let wrong_port = sys::CUgraphEdgeData { from_port: 0, ..AHEAD };
    let no_such_port = sys::CUgraphEdgeData { from_port: 7, type_: 0, ..AHEAD };
    for edge in [wrong_port, no_such_port] {
        assert_eq!(wait_ahead(graph, [first, second], edge), Code::CUDA_ERROR_INVALID_VALUE);
    }
    for nodes in [[first, first], [second, first]] {
        assert_eq!(wait_ahead(graph, nodes, AHEAD), Code::CUDA_ERROR_INVALID_VALUE, "nothing waits for itself");
    }
    ok(wait_ahead(graph, [first, second], AHEAD));
    assert_eq!(wait_ahead(graph, [first, second], AHEAD), Code::CUDA_ERROR_INVALID_VALUE, "one edge twice");
    // SAFETY: the graph exists.
    unsafe { ok(sys::cuGraphDestroy(graph)) };
}
