//! A team of threads that walks through a plan together.
//!
//! One parallel region covers all steps of a run. The waves of all steps are numbered through, and whoever finishes the
//! last chunk of a wave opens the next one. Nobody waits for a thread, only for chunks: a thread that the operating
//! system has taken off its core delays nothing unless it was in the middle of one. Waking a sleeping thread costs tens
//! of microseconds, a wave of a small model takes less, so threads without work spin for a while before they sleep, and
//! then leave their core to whoever has work.
//!
//! Every thread begins with its own share of a wave, thread t of T with the chunks from t/T to (t + 1)/T of the list, and
//! helps the others when it is done. So the same thread meets the same parameters, gradients and moments in step after
//! step, and they stay in its caches; with chunks claimed from one common counter half of those lines had to be
//! fetched from the other core, which on cores that share no cache made a step two to three times as slow
//! (`docs/rejected.md`). Which thread really runs a chunk is left to chance, and no bit of the result depends on it.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

/// Turns of the waiting loop before a thread sleeps: some 100 µs, longer than the imbalance between the chunks of a
/// small model and far shorter than a time slice.
const SPINS: u32 = 5_000;

/// The low bits of a counter of [`Relay::next`] that hold the claims; the others hold the wave.
const CHUNK_BITS: u32 = 24;

/// The most chunks of a wave, leaving room for the vain claims of every thread.
pub(super) const MOST_CHUNKS: usize = 1 << (CHUNK_BITS - 1);

/// The most waves of a run: the number after the last one must fit beside the claims.
pub(super) const MOST_WAVES: u64 = (1 << (64 - CHUNK_BITS)) - 1;

/// On cache lines of its own, so that counters do not disturb each other.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// Where a run is: shared by the threads of a team.
#[derive(Default)]
pub(super) struct Relay {
    /// For each thread's share, wave · 2²⁴ + chunks claimed. One counter for both: a claim always knows which wave it
    /// belongs to, however long ago the thread last looked.
    next: Vec<Apart<AtomicU64>>,
    /// Finished chunks of the current wave.
    done: Apart<AtomicUsize>,
    broken: AtomicBool,
    /// Threads that sleep, or are about to.
    sleepers: Apart<AtomicUsize>,
    bed: Mutex<()>,
    alarm: Condvar,
}

/// What the waves consist of.
pub(super) trait Course: Sync {
    /// The number of chunks of a wave, at least 1 and at most [`MOST_CHUNKS`].
    fn chunks(&self, wave: u64) -> usize;
    /// Runs one chunk.
    fn run(&self, thread: usize, wave: u64, chunk: usize);
    /// Called once, by one thread, after all chunks of the wave and before any of the next.
    fn close(&self, wave: u64);
}

/// The chunks of `chunks` that thread `t` of `threads` begins with.
fn share(chunks: usize, t: usize, threads: usize) -> Range<usize> {
    chunks * t / threads..chunks * (t + 1) / threads
}

/// What a thread got when it asked for a chunk.
enum Claim {
    Chunk(u64, usize),
    /// Nothing is left to claim in this wave.
    Wait(u64),
    /// The last wave is over.
    Done,
}

impl Relay {
    fn new(threads: usize) -> Relay {
        Relay { next: (0..threads).map(|_| Apart::default()).collect(), ..Relay::default() }
    }

    /// A chunk of the thread's own share, or of the next one that has any.
    fn claim(&self, thread: usize, waves: u64, course: &impl Course) -> Claim {
        let threads = self.next.len();
        let split = |count: u64| (count >> CHUNK_BITS, (count & ((1 << CHUNK_BITS) - 1)) as usize);
        let mut own = None;
        for t in (thread..threads).chain(0..thread) {
            let counter = &self.next[t].0;
            let length = |wave: u64| if wave < waves { share(course.chunks(wave), t, threads).len() } else { 0 };
            let (wave, claimed) = split(counter.load(Ordering::Acquire));
            own.get_or_insert(wave);
            if claimed >= length(wave) {
                continue;
            }
            // The wave may have changed since; the claim is of the counter's present wave.
            let (wave, claimed) = split(counter.fetch_add(1, Ordering::AcqRel));
            if claimed < length(wave) {
                return Claim::Chunk(wave, share(course.chunks(wave), t, threads).start + claimed);
            }
        }
        match own {
            Some(wave) if wave < waves => Claim::Wait(wave),
            _ => Claim::Done,
        }
    }

    /// One thread's part of the waves 0 … `waves` − 1.
    fn walk(&self, thread: usize, waves: u64, course: &impl Course) {
        loop {
            match self.claim(thread, waves, course) {
                Claim::Chunk(wave, chunk) => {
                    course.run(thread, wave, chunk);
                    self.finish(wave, course);
                }
                Claim::Wait(wave) if self.wait_for_wave_after(thread, wave) => {}
                Claim::Wait(_) | Claim::Done => return,
            }
        }
    }

    /// Counts a finished chunk, and after the last one of the wave opens the next.
    fn finish(&self, wave: u64, course: &impl Course) {
        if self.done.0.fetch_add(1, Ordering::AcqRel) + 1 < course.chunks(wave) {
            return;
        }
        course.close(wave);
        self.done.0.store(0, Ordering::Relaxed);
        // In this order: the last share is never empty, so the new wave cannot end before all of it is open.
        for next in &self.next {
            next.0.store((wave + 1) << CHUNK_BITS, Ordering::SeqCst);
        }
        self.wake();
    }

    /// Wakes all sleepers. Whoever goes to bed counts itself before it looks at `next` for the last time, and this
    /// looks at the count after `next` was set: one of the two sees the other.
    fn wake(&self) {
        if self.sleepers.0.load(Ordering::SeqCst) > 0 {
            let _guard = self.bed.lock().expect("nothing panics with it");
            self.alarm.notify_all();
        }
    }

    /// False when a thread of the team panicked.
    fn wait_for_wave_after(&self, thread: usize, wave: u64) -> bool {
        let same_wave = || {
            let next = self.next[thread].0.load(Ordering::SeqCst) >> CHUNK_BITS;
            next == wave && !self.broken.load(Ordering::SeqCst)
        };
        for _ in 0..SPINS {
            if !same_wave() {
                return !self.broken.load(Ordering::SeqCst);
            }
            std::hint::spin_loop();
        }
        let guard = self.bed.lock().expect("nothing panics with it");
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        drop(self.alarm.wait_while(guard, |()| same_wave()).expect("nothing panics with it"));
        self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
        !self.broken.load(Ordering::SeqCst)
    }
}

/// Runs the waves 0 … `waves` − 1 of `course` on every thread of the pool, or on this thread alone without a pool.
///
/// A panic on one thread stops the others and is raised here.
pub(super) fn run(pool: Option<&rayon::ThreadPool>, waves: u64, course: &impl Course) {
    let relay = Relay::new(pool.map_or(1, rayon::ThreadPool::current_num_threads));
    let Some(pool) = pool else { return relay.walk(0, waves, course) };
    let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    pool.broadcast(|thread| {
        let walk = || relay.walk(thread.index(), waves, course);
        if let Err(cause) = catch_unwind(AssertUnwindSafe(walk)) {
            relay.broken.store(true, Ordering::SeqCst);
            relay.wake();
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

    /// Counts chunks, and checks at the end of each wave that all of it and nothing else has run.
    #[derive(Default)]
    struct Counting {
        inside: AtomicUsize,
        closed: AtomicU64,
        fail_at: Option<u64>,
    }

    impl Course for Counting {
        fn chunks(&self, wave: u64) -> usize {
            1 + (wave % 7) as usize
        }

        fn run(&self, _: usize, wave: u64, chunk: usize) {
            assert!(self.fail_at != Some(wave), "wave fails");
            assert!(chunk < self.chunks(wave));
            assert_eq!(self.closed.load(Ordering::SeqCst), wave, "a chunk ran outside its wave");
            self.inside.fetch_add(1, Ordering::SeqCst);
        }

        fn close(&self, wave: u64) {
            assert_eq!(self.inside.swap(0, Ordering::SeqCst), self.chunks(wave));
            self.closed.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn every_chunk_runs_once_in_its_wave() {
        for threads in [1, 2, 5] {
            let course = Counting::default();
            run((threads > 1).then(|| pool(threads)).as_ref(), 5000, &course);
            assert_eq!(course.closed.into_inner(), 5000);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_nobody_waiting() {
        let course = Counting { fail_at: Some(40), ..Counting::default() };
        let caught = catch_unwind(AssertUnwindSafe(|| run(Some(&pool(3)), 5000, &course)));
        let text = *caught.unwrap_err().downcast::<&str>().unwrap();
        assert!(text.contains("wave fails"));
    }
}
