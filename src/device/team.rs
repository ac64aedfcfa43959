//! A team of threads that walks through a plan together.
//!
//! One parallel region covers all steps of a run: every thread executes the same loop over waves, claims chunks of the
//! current wave from an atomic counter until none is left, and meets the others at a barrier. Waking a sleeping
//! thread costs tens of microseconds, a wave of a small model takes less, so threads spin for a while before
//! they yield. Which thread runs which chunk is left to chance, and no bit of the result depends on it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Turns of the waiting loop before a thread gives its core away: about 50 µs, longer than any imbalance between
/// chunks of a small model, shorter than a time slice.
const SPINS: u32 = 20_000;

/// A counter on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct Counter(AtomicUsize);

impl Counter {
    /// Claims the next chunk.
    pub(super) fn claim(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts over; only while no thread claims.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Where the threads of a team wait for each other.
pub(super) struct Barrier {
    members: usize,
    arrived: Counter,
    generation: Counter,
    broken: AtomicBool,
}

impl Barrier {
    pub(super) fn new(members: usize) -> Barrier {
        Barrier { members, arrived: Counter::default(), generation: Counter::default(), broken: AtomicBool::new(false) }
    }

    /// Waits for all members; the last to arrive runs `last` before anyone goes on. False when a member panicked.
    pub(super) fn wait(&self, last: impl FnOnce()) -> bool {
        let generation = self.generation.0.load(Ordering::Acquire);
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            last();
            self.arrived.reset();
            self.generation.0.store(generation.wrapping_add(1), Ordering::Release);
            return !self.broken.load(Ordering::Relaxed);
        }
        let mut spins = 0;
        while self.generation.0.load(Ordering::Acquire) == generation {
            if self.broken.load(Ordering::Relaxed) {
                return false;
            }
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        true
    }
}

/// Runs `work(thread, barrier)` on every thread of the pool at once, or on this thread alone without a pool.
///
/// A panic on one thread releases the others from the barrier and is raised here.
pub(super) fn run(pool: Option<&rayon::ThreadPool>, work: impl Fn(usize, &Barrier) + Sync) {
    let Some(pool) = pool else { return work(0, &Barrier::new(1)) };
    let barrier = Barrier::new(pool.current_num_threads());
    let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    pool.broadcast(|thread| {
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| work(thread.index(), &barrier))) {
            barrier.broken.store(true, Ordering::Relaxed);
            *panic.lock().expect("only stored to") = Some(cause);
        }
    });
    if let Some(cause) = panic.into_inner().expect("only stored to") {
        resume_unwind(cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn nobody_passes_the_barrier_early_and_the_last_runs_alone() {
        let (inside, rounds) = (AtomicUsize::new(0), AtomicUsize::new(0));
        run(Some(&pool(4)), |_, barrier| {
            for round in 0..200 {
                inside.fetch_add(1, Ordering::SeqCst);
                assert!(barrier.wait(|| {
                    assert_eq!(inside.swap(0, Ordering::SeqCst), 4);
                    rounds.fetch_add(1, Ordering::SeqCst);
                }));
                assert_eq!(rounds.load(Ordering::SeqCst), round + 1);
                assert!(barrier.wait(|| ()));
            }
        });
        assert_eq!(rounds.into_inner(), 200);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_nobody_waiting() {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            run(Some(&pool(3)), |thread, barrier| {
                assert!(thread != 1, "thread one fails");
                while barrier.wait(|| ()) {}
            });
        }));
        let text = *caught.unwrap_err().downcast::<&str>().unwrap();
        assert!(text.contains("thread one fails"));
    }
}
