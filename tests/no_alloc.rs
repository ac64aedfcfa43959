//! A function that has run once runs on without touching the heap: counted over all threads by the global allocator.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::training::Training;
use elbo::vae::{UpdateRule, Vae, VaeConfig};
use elbo::{Cpu, Executor, Fusion, Optimizer};

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
        let objective = UpdateRule::elbo(Optimizer::adam(), Some(1.0));
        let executor = Executor::new(Cpu::new(threads));
        let mut training =
            Training::start(&executor, &vae, &objective, (32, &vec![100; 144 * 32 * 100]), Fusion::all());
        let mut count = |steps: usize| {
            training.rows.cursor = 0;
            let before = CALLS.load(Ordering::SeqCst);
            training.run(steps);
            CALLS.load(Ordering::SeqCst) - before
        };
        count(3);
        // A run makes a list of the threads' scratch memory and wakes the pool; a step must not add to that.
        let (one, hundred) = (count(1), count(100));
        assert!(hundred <= 4, "{threads} threads: {hundred} allocations in a run of 100 steps, {one} in one of 1");
    }
}
