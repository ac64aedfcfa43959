//! A plan that is built and bound runs without touching the heap: counted over all threads by the global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use elbo::vae::{Objective, Vae, VaeConfig, training_graph};
use elbo::{Control, Cpu, Exec, Fusion, Optimizer, Plan};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test in this binary, so that no other thread's allocations are counted.
#[test]
fn steps_do_not_allocate() {
    for threads in [1, 2, 4] {
        let vae = Vae::new(VaeConfig { image: [12, 12], ..VaeConfig::new(5).hidden(&[40]) }).unwrap();
        let objective = Objective::elbo(Optimizer::adam(), Some(1.0));
        let plan = Plan::build(&training_graph(&vae, &objective, "train", 32), Fusion::all()).unwrap();
        let mut cpu = Cpu::new(threads);
        let step = cpu.bind(&plan).unwrap();
        cpu.set_data("train", &vec![100; 144 * 32 * 100], 144).unwrap();
        vae.init(0).iter().for_each(|i| cpu.write(&i.name, &i.values).unwrap());
        *cpu.control_mut() = Control { shuffle: true, ..Control::new(1) };
        let mut count = |steps: usize| {
            cpu.control_mut().cursor = 0;
            let before = CALLS.load(Ordering::SeqCst);
            cpu.run(step, steps).unwrap();
            CALLS.load(Ordering::SeqCst) - before
        };
        count(3);
        // A run makes a list of the threads' scratch memory and wakes the pool; a step must not add to that.
        let (one, hundred) = (count(1), count(100));
        assert!(hundred <= 4, "{threads} threads: {hundred} allocations in a run of 100 steps, {one} in one of 1");
    }
}
