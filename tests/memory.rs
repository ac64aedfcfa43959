//! Memory belongs to who uses it: a function takes its own with it when it is dropped, a state likewise; and a function is
//! run with no state but one that has what it reads.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::training::Training;
use common::{Behind, behind, on_cuda};
use elbo::engine::device::Precision;
use elbo::vae::{UpdateRule, Vae, VaeConfig};
use elbo::{Call, Cpu, Error, Executor, Fusion, Graph, Key, Optimizer, Params, Result};

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes are counted for the whole process, so the tests of this file run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A training that has run, with its sums looked at as a trainer does.
fn trained(executor: &Executor) -> Training {
    let vae = Vae::new(VaeConfig { image: [8, 8], ..VaeConfig::new(4).hidden(&[48]) }).unwrap();
    let objective = UpdateRule::elbo(Optimizer::adam(), Some(1.0));
    let mut training = Training::start(executor, &vae, &objective, (16, &[100; 64 * 16 * 9]), Fusion::all());
    training.run(9);
    training.step.peek_totals().unwrap();
    training
}

/// A function of 1.5 MB of its own or more, in input, output and scratch, dropped in all its ages; and states. What others
/// may take meanwhile are `slack` bytes.
fn leaves_nothing_behind(executor: &Executor, slack: usize, in_use: impl Fn() -> usize) {
    let functions = || {
        let g = Graph::new();
        let x = g.input(&[256, 512]);
        let outputs = [x.softplus().t(), (x.exp() + g.tensor(&[512], &[0.5; 512])).sum_all()];
        let compile = || executor.compile(&g, outputs).unwrap();
        drop(compile());
        let mut state = executor.state(&Params::new(), 0).unwrap();
        let mut f = compile();
        f.run(&mut state, &Call { steps: 9, ..Call::once(Key::new(0)) }).unwrap();
        f.peek_totals().unwrap();
        assert!(compile().run(&mut state, &Call { steps: usize::MAX, ..Call::once(Key::new(0)) }).is_err());
        in_use()
    };
    let work = || {
        let held = functions();
        let Training { step, state, .. } = trained(executor);
        // Either may go first.
        drop((step, state));
        let Training { step, state, .. } = trained(executor);
        drop((state, step));
        held
    };
    // What is made once and kept: scratch memory of threads, compiled kernels, tables of the standard library.
    work();
    let before = in_use();
    let held = work();
    assert!(held > before + 1_500_000, "a function has memory: {held} bytes in use beside {before}");
    for round in 1..=5 {
        work();
        let after = in_use();
        assert!(after <= before + slack, "{} bytes are lost after {round} rounds", after - before);
    }
}

#[test]
fn what_is_dropped_gives_its_memory_back_on_the_host() {
    let _alone = alone();
    for executor in [Executor::new(Cpu::new(1)), Executor::new(Cpu::new(3)), Executor::reference()] {
        // The test runner and queues between threads have a few kilobytes now and then.
        leaves_nothing_behind(&executor, 16_384, || BYTES.load(Ordering::SeqCst));
    }
}

/// On a GPU other programs take memory too; under the emulator nobody does.
#[test]
fn what_is_dropped_gives_its_memory_back_on_the_device() {
    let _alone = alone();
    let Behind::Emulator(emulator) = behind() else { return };
    let executor = on_cuda(Precision::F32).unwrap();
    leaves_nothing_behind(&executor, 0, || emulator.memory_in_use() as usize);
    drop(executor);
    assert_eq!(emulator.memory_in_use(), 0, "an executor takes everything with it");
}

fn executors() -> Vec<Executor> {
    let on_host = [Executor::reference(), Executor::new(Cpu::new(1))];
    on_host.into_iter().chain(on_cuda(Precision::F32)).collect()
}

/// The text of an error, which names all of `words`.
#[track_caller]
fn says<T>(refused: Result<T>, words: &[&str]) -> Error {
    let error = refused.err().expect("it cannot run");
    words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}\ndoes not say {word}"));
    error
}

#[test]
fn a_state_of_another_executor_is_refused() {
    let _alone = alone();
    let g = Graph::new();
    let y = g.param("p", &[3]) * 2.0;
    for (i, mine) in executors().iter().enumerate() {
        for (j, other) in executors().iter().enumerate().filter(|(j, _)| *j != i) {
            let mut f = mine.compile(&g, [y]).unwrap();
            let mut state = other.state(&Params::of(&g), 0).unwrap();
            let refused = f.call(&mut state, Key::new(0), &[]);
            let error =
                says(refused, &["another executor", "compile the function with the executor that made the state"]);
            assert!(matches!(error, Error::Argument { .. }), "{i} {j}: {error:?}");
        }
    }
    // Two executors of one GPU have two contexts of addresses.
    if let (Some(one), Some(two)) = (on_cuda(Precision::F32), on_cuda(Precision::F32)) {
        let mut state = two.state(&Params::of(&g), 0).unwrap();
        says(one.compile(&g, [y]).unwrap().call(&mut state, Key::new(0), &[]), &["another executor"]);
    }
}

#[test]
fn what_a_function_reads_and_a_call_lacks_is_named() {
    let _alone = alone();
    for executor in executors() {
        let g = Graph::new();
        let (p, x) = (g.param("layer.weight", &[3, 4]), g.batch("images", 2, 3));
        let y = x.matmul(p) * g.schedule("temperature") + g.buffer("mean", &[4]) + g.input(&[4]);
        let mut f = executor.compile(&g, [y]).unwrap();
        let call = |steps| Call { steps, schedules: &[("temperature", &|_| 1.0)], ..Call::once(Key::new(0)) };
        let params = |weight: &[usize], mean: &[usize]| {
            let (n, mut params) = (weight.iter().product(), Params::new());
            params.declare("layer.weight", weight, move |_| vec![1.0; n]);
            let n = mean.iter().product();
            params.buffer("mean", mean, move |_| vec![0.0; n]);
            params
        };
        let state = |params: &Params| {
            let mut state = executor.state(params, 0).unwrap();
            state.load("images", &[1u8; 15][..], 3).unwrap();
            state
        };

        // Arrays: missing, of another shape, of another kind.
        let mut empty = state(&Params::new());
        says(f.run(&mut empty, &call(1)), &["layer.weight", "no parameter or buffer"]);
        let mut turned = state(&params(&[4, 3], &[4]));
        says(f.run(&mut turned, &call(1)), &["layer.weight", "parameter [3, 4]", "parameter [4, 3]"]);
        let mut swapped = Params::new();
        swapped.declare("layer.weight", &[3, 4], |_| vec![1.0; 12]);
        swapped.declare("mean", &[4], |_| vec![0.0; 4]);
        says(f.run(&mut state(&swapped), &call(1)), &["mean", "buffer [4]", "parameter [4]"]);

        // Data sets: missing, of another width, too short.
        let mut bare = executor.state(&params(&[3, 4], &[4]), 0).unwrap();
        says(f.run(&mut bare, &call(1)), &["images", "no data was loaded"]);
        bare.load("labels", &[1u8; 3][..], 1).unwrap();
        says(f.run(&mut bare, &call(1)), &["images", "known are labels"]);
        bare.load("images", &[1u8; 8][..], 4).unwrap();
        says(f.run(&mut bare, &call(1)), &["images", "rows of 4 numbers", "rows of 3"]);
        let mut whole = state(&params(&[3, 4], &[4]));
        says(f.run(&mut whole, &call(3)), &["images", "row 6", "5 rows"]);

        // Schedules and inputs.
        says(f.run(&mut whole, &Call::once(Key::new(0))), &["schedule", "\"temperature\""]);
        says(f.write(0, &[1.0; 5]), &["5 numbers", "[4]"]);
        says(f.call(&mut whole, Key::new(0), &[]), &["inputs", "found 0", "expected 1"]);
        says(whole.write("layer.weight", &[0.0; 11]), &["layer.weight", "11 numbers", "[3, 4]"]);
        says(whole.read("layer.bias"), &["layer.bias", "known are layer.weight, mean"]);

        // Nothing of all this was run, and nothing is left of it.
        assert_eq!(f.read(0).unwrap(), [0.0; 8]);
        f.write(0, &[0.5; 4]).unwrap();
        f.run(&mut whole, &call(2)).unwrap();
        assert_eq!(f.read(0).unwrap(), [3.5; 8], "{}", executor.describe());
    }
}
