//! Several ranks in one process, a thread each: what holds on any machine, without MPI.

use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier, Mutex};

use super::{Ranks, check};
use crate::data::Splits;
use crate::engine::device::Device;
use crate::engine::optim::Optimizer;
use crate::train::checkpoint::Checkpoint;
use crate::train::{Outcome, Progress, TrainConfig, Trainer};
use crate::vae::{Binarisation, Bound, Estimator, KlTerm, Likelihood, StochasticLayer, VaeConfig};

const CPU: Device = Device::Cpu { threads: 1 };

/// A rank that is a thread: what it has to say lies on a board that all read when all have written.
struct Thread {
    rank: usize,
    board: Arc<(Barrier, Vec<Mutex<Vec<f64>>>)>,
}

impl Thread {
    /// What all ranks have as `mine`.
    fn exchange(&self, mine: impl IntoIterator<Item = f64>) -> Vec<Vec<f64>> {
        let (barrier, sheets) = &*self.board;
        *sheets[self.rank].lock().unwrap() = mine.into_iter().collect();
        barrier.wait();
        let all = sheets.iter().map(|sheet| sheet.lock().unwrap().clone()).collect();
        barrier.wait();
        all
    }
}

impl Ranks for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.board.1.len()
    }

    fn all_to_all(&self, mine: &[f32], parts: &mut [f32]) {
        let part = mine.len() / self.size();
        let all = self.exchange(mine.iter().map(|&x| x.into()));
        let own = all.iter().flat_map(|sheet| &sheet[self.rank * part..][..part]);
        parts.iter_mut().zip(own).for_each(|(to, &x)| *to = x as f32);
    }

    fn all_gather(&self, mine: &[f32], all: &mut [f32]) {
        let sheets = self.exchange(mine.iter().map(|&x| x.into()));
        all.iter_mut().zip(sheets.iter().flatten()).for_each(|(to, &x)| *to = x as f32);
    }

    fn gather_numbers(&self, mine: &[f64]) -> Vec<f64> {
        self.exchange(mine.iter().copied()).concat()
    }

    fn gather(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        let sheets = self.exchange(mine.iter().map(|&byte| byte.into()));
        sheets.into_iter().map(|sheet| sheet.into_iter().map(|byte| byte as u8).collect()).collect()
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.exchange(bytes.into_iter().map(f64::from))[0].iter().map(|&byte| byte as u8).collect()
    }
}

/// What `work` gives on each of `ranks` ranks.
fn on_ranks<T: Send>(ranks: usize, work: impl Fn(Thread) -> T + Sync) -> Vec<T> {
    let sheets = (0..ranks).map(|_| Mutex::default()).collect();
    let board = Arc::new((Barrier::new(ranks), sheets));
    std::thread::scope(|scope| {
        let start = |rank| {
            let (board, work) = (board.clone(), &work);
            scope.spawn(move || work(Thread { rank, board }))
        };
        let threads: Vec<_> = (0..ranks).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn every_task_is_done_once_and_all_ranks_know_what_it_came_to() {
    for (ranks, count) in [(1, 3), (2, 5), (3, 3), (3, 2), (3, 0)] {
        let all = on_ranks(ranks, |rank| {
            let own = super::own_tasks(Some(&rank), count).into_iter().map(|i| "x".repeat(i)).collect();
            super::gather_tasks(Some(&rank), count, own).unwrap()
        });
        let wanted: Vec<String> = (0..count).map(|i| "x".repeat(i)).collect();
        assert_eq!(all, vec![wanted; ranks]);
    }
    // Of 2 values and 2 seeds each rank has every value, and of 4 values in turn on 2 ranks too.
    let shares = on_ranks(2, |rank| super::own_tasks(Some(&rank), 8));
    assert_eq!(shares, [[0, 3, 4, 7], [1, 2, 5, 6]]);
    assert_eq!(super::own_tasks(None, 3), [0, 1, 2]);
    assert_eq!(super::gather_tasks(None, 2, vec![4, 5]).unwrap(), [4, 5]);
}

#[test]
fn ranks_that_had_other_tasks_are_told_so() {
    for (of_rank_1, count) in [(0, 4), (1, 4), (3, 4)] {
        let all = on_ranks(2, |rank| {
            let own = vec![7; if rank.rank == 1 { of_rank_1 } else { 2 }];
            super::gather_tasks(Some(&rank), count, own).unwrap_err().to_string()
        });
        assert!(all.iter().all(|error| error.contains("rank 1") && error.contains("its share of 4")), "{all:?}");
    }
    let all = on_ranks(2, |rank| match rank.rank {
        0 => super::gather_tasks(Some(&rank), 2, vec![1]).unwrap_err().to_string(),
        _ => super::gather_tasks(Some(&rank), 2, vec!["one".to_string()]).unwrap_err().to_string(),
    });
    assert!(all.iter().all(|error| error.contains("the same program on all ranks")), "{all:?}");
}

/// 13 images in batches of 6 and a rest of 1; 2 epochs.
fn config(model: VaeConfig) -> TrainConfig {
    TrainConfig { batch: 6, epochs: 2, seed: 4, ..TrainConfig::new(model.hidden(&[9])) }
}

fn images() -> Splits {
    Splits::digits(5, 13, 4)
}

/// Trains from a checkpoint, or from the beginning, up to `pause_at` updates, on `ranks` ranks, which must agree in all bits. One
/// rank is a trainer that knows of none.
fn trained(config: &TrainConfig, ranks: usize, from: Option<&Checkpoint>, pause_at: Option<u32>) -> Checkpoint {
    let run = |rank: Option<Thread>| {
        let mut trainer = match from {
            None => Trainer::new(config.clone(), &images(), CPU).unwrap(),
            Some(from) => Trainer::resume(from, &images(), CPU).unwrap(),
        };
        if let Some(rank) = rank {
            trainer.share(Rc::new(rank)).unwrap();
        }
        trainer.pause_at = pause_at;
        let outcome = trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
        assert_eq!(outcome == Outcome::Stopped, pause_at.is_some());
        trainer.checkpoint().unwrap()
    };
    if ranks == 1 {
        return run(None);
    }
    let mut all = on_ranks(ranks, |rank| run(Some(rank)));
    let first = all.remove(0);
    assert!(all.iter().all(|other| *other == first), "the ranks have other bits");
    first
}

/// That `found` is `expected` but for the rounding of a few updates: for every array, in units of the largest of its
/// numbers.
fn assert_near(what: &str, found: &Checkpoint, expected: &Checkpoint) {
    /// A gradient is rounded to 6e-8 of the sum of its terms' sizes, a few of which cancel; Adam's first updates divide by
    /// their root. Were a row left out or met with other noise, it would be of the order of 1.
    const BOUND: f32 = 2e-4;
    assert_eq!(found.slots.keys().collect::<Vec<_>>(), expected.slots.keys().collect::<Vec<_>>());
    for (name, values) in &expected.slots {
        let scale = values.iter().fold(1e-12f32, |most, x| most.max(x.abs()));
        let apart = values.iter().zip(&found.slots[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= BOUND * scale, "{what}, {name}: {apart} apart, of {scale}");
    }
    let Progress { sums, .. } = expected.progress;
    let (a, b) = (sums.to_totals(), found.progress.sums.to_totals());
    for (a, b) in a.into_iter().zip(b) {
        assert!((a - b).abs() <= f64::from(BOUND) * a.abs(), "{what}: sums of {b} instead of {a}");
    }
    assert_eq!(Progress { sums, ..found.progress }, expected.progress);
}

/// Every kind of objective that is a sum over images, with each optimiser, with and without clipping.
fn cases() -> Vec<(&'static str, TrainConfig)> {
    let deep = VaeConfig {
        upper: vec![StochasticLayer { encoder: vec![5], latent: 2, decoder: vec![5] }],
        ..VaeConfig::new(3)
    };
    let dynamic = VaeConfig { binarisation: Binarisation::Dynamic, ..VaeConfig::new(2) };
    let shared = VaeConfig { likelihood: Likelihood::gaussian_shared(0.1), ..VaeConfig::new(2) };
    let bound = |model: VaeConfig, bound: Bound| {
        let mut config = config(model);
        config.objective.bound = bound;
        config
    };
    let mut clipped = config(VaeConfig::new(2));
    clipped.objective.clip = Some(0.5);
    let mut sgd = config(VaeConfig::new(2));
    (sgd.objective.optimizer, sgd.objective.clip) = (Optimizer::Sgd { momentum: 0.9 }, Some(2.0));
    let sampled = Bound { samples: 2, kl: KlTerm::MonteCarlo, ..Bound::ELBO };
    vec![
        ("the ELBO in closed form", config(VaeConfig::new(2))),
        ("Adam, clipped", clipped),
        ("SGD, clipped", sgd),
        ("pixels drawn anew", config(dynamic.clone())),
        ("a shared spread", config(shared)),
        ("three draws in closed form", bound(VaeConfig::new(2), Bound { samples: 3, ..Bound::ELBO })),
        ("IWAE of two layers", bound(deep, Bound::iwae(3))),
        (
            "doubly reparameterised",
            bound(dynamic, Bound { estimator: Estimator::DoublyReparameterised, ..Bound::iwae(2) }),
        ),
        (
            "score function of two draws",
            bound(VaeConfig::new(2), Bound { estimator: Estimator::ScoreFunctionBaseline, ..sampled }),
        ),
    ]
}

#[test]
fn several_ranks_train_as_one_does_but_for_rounding() {
    for (what, config) in cases() {
        // Within the second epoch, behind a batch of one image, of which two ranks of three have none.
        let one = trained(&config, 1, None, Some(5));
        for ranks in [2, 3] {
            let several = trained(&config, ranks, None, Some(5));
            assert_near(&format!("{what}, {ranks} ranks"), &several, &one);
            assert_eq!(several, trained(&config, ranks, None, Some(5)), "{what}, {ranks} ranks, once more");
        }
    }
}

#[test]
fn a_checkpoint_goes_on_with_any_number_of_ranks() {
    let config = config(VaeConfig::new(2));
    let whole = trained(&config, 2, None, None);
    let half = trained(&config, 2, None, Some(4));
    assert_eq!(half.progress.cursor, 6, "within the second epoch");
    assert_eq!(trained(&config, 2, Some(&half), None), whole, "the same number: the same bits");
    for ranks in [1, 3] {
        assert_near(&format!("resumed by {ranks}"), &trained(&config, ranks, Some(&half), None), &whole);
    }
}

#[test]
fn a_stop_that_one_rank_is_asked_for_stops_all_at_the_same_update() {
    let config = config(VaeConfig::new(2));
    let ends = on_ranks(3, |rank| {
        let asked = rank.rank == 2;
        let mut trainer = Trainer::new(config.clone(), &images(), CPU).unwrap();
        trainer.share(Rc::new(rank)).unwrap();
        (trainer.run(&mut (), &AtomicBool::new(asked)).unwrap(), trainer.progress().updates)
    });
    assert_eq!(ends, [(Outcome::Stopped, 0); 3]);
}

#[test]
fn arrays_are_summed_in_the_order_of_the_ranks_on_all_of_them() {
    // 2^-30 is lost beside 1 in f32 and not in f64.
    let ranks = [[1.0f32, 3.0, 0.5], [2f32.powi(-30), 4.0, 0.25], [-1.0, 5.0, 0.125], [0.0, 6.0, 0.0]];
    let sums = on_ranks(4, |rank| {
        let [a, b, c] = ranks[rank.rank];
        let mut arrays = [vec![a], vec![], vec![b, c]];
        rank.sum(&mut arrays);
        arrays
    });
    assert!(sums.iter().all(|sum| *sum == [vec![2f32.powi(-30)], vec![], vec![18.0, 0.875]]), "{sums:?}");
}

#[test]
fn what_is_no_sum_over_images_is_refused() {
    let plain = config(VaeConfig::new(2));
    let optimal = VaeConfig { likelihood: Likelihood::gaussian_optimal(0.1), ..VaeConfig::new(2) };
    let mut free = plain.clone();
    free.objective.bound.free_bits = Some(0.5);
    let mut baseline = plain.clone();
    baseline.objective.bound =
        Bound { kl: KlTerm::MonteCarlo, estimator: Estimator::ScoreFunctionBaseline, ..Bound::ELBO };
    for (config, field) in [(config(optimal), "likelihood"), (free, "free bits"), (baseline, "estimator")] {
        config.validate().unwrap();
        check(&config, 1).unwrap();
        let message = check(&config, 2).unwrap_err().to_string();
        assert!(message.contains(field) && message.contains("one rank instead of 2"), "{message}");
    }
    check(&plain, 6).unwrap();
    let message = check(&plain, 7).unwrap_err().to_string();
    assert!(message.contains("batch") && message.contains("at least 7"), "{message}");
}
