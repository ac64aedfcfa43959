//! The loss of a training on CUDA is known without waiting for it: the same bits, and no wait between portions.
//!
//! The waits of the driver are counted for the whole process, so the tests of this file run one at a time.

#![cfg(feature = "cuda")]

mod common;

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::training::bits;
use common::{Behind, behind, cuda, on_cuda, under_all_schedules};
use elbo::data::{Dataset, Split, Splits};
use elbo::engine::device::{Array, Device, Precision, Snapshot};
use elbo::engine::rng::Draw;
use elbo::train::checkpoint::Checkpoint;
use elbo::train::{EpochRecord, EpochTiming, Observer, Outcome, StepReport, TrainConfig, Trainer};
use elbo::vae::VaeConfig;
use elbo::{Call, Function, Graph, Key, LrSchedule, Optimizer, Params, State};

const ON_CUDA: Device = Device::Cuda { ordinal: 0, precision: Precision::F32 };

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn images(rows: usize) -> Dataset {
    let draw = Draw { seed: 4, step: 0, stream: 0 };
    let images = (0..4 * rows as u64).map(|i| (draw.uniform(i) * 255.0) as u8).collect();
    Dataset { name: "noise".into(), split: Split::Train, images, rows, cols: 4, height: 2, width: 2, labels: None }
}

fn config(batch: usize) -> TrainConfig {
    let model = VaeConfig { image: [2, 2], ..VaeConfig::new(1).hidden(&[2]) };
    TrainConfig { epochs: 1, batch, ..TrainConfig::new(model) }
}

fn trainer(config: &TrainConfig, rows: usize) -> Trainer {
    Trainer::new(config.clone(), &Splits { train: images(rows), test: images(3) }, ON_CUDA).unwrap()
}

/// Keeps all reports.
#[derive(Default)]
struct Reports {
    steps: Vec<StepReport>,
    epochs: Vec<EpochRecord>,
}

impl Observer for Reports {
    fn step(&mut self, report: &StepReport) {
        self.steps.push(*report);
    }

    fn epoch(&mut self, _: &Trainer, record: &EpochRecord, _: &EpochTiming) -> elbo::Result<()> {
        self.epochs.push(record.clone());
        Ok(())
    }
}

/// On a GPU the waits cannot be counted, and their number there depends on how fast it is.
#[test]
fn training_does_not_wait_between_portions() {
    let _alone = alone();
    let Behind::Emulator(emulator) = behind() else { return };
    // Whole batches, and one epoch that ends in a smaller one.
    for rest in [0, 1] {
        let waits = [1, 2, 3, 7].map(|portions| {
            let mut trainer = trainer(&config(2), 2 * 64 * portions + rest);
            let (before, mut reports) = (emulator.waits(), Reports::default());
            assert_eq!(trainer.run(&mut reports, &AtomicBool::new(false)).unwrap(), Outcome::Finished);
            assert_eq!(reports.epochs[0].updates as usize, 64 * portions + rest);
            assert!(reports.steps.len() + 1 >= portions, "{portions} portions, {:?}", reports.steps);
            emulator.waits() - before
        });
        assert!(waits[0] > 0 && waits.iter().all(|&n| n == waits[0]), "waits in an epoch: {waits:?}");
    }
}

/// A copy from pageable memory may wait for the stream, so there is none for a portion of steps.
#[test]
fn training_uploads_nothing_from_pageable_memory_between_portions() {
    let _alone = alone();
    let Behind::Emulator(emulator) = behind() else { return };
    let uploads = [1, 2, 3, 7].map(|portions| {
        let mut trainer = trainer(&config(2), 2 * 64 * portions);
        let before = emulator.pageable_uploads();
        assert_eq!(trainer.run(&mut (), &AtomicBool::new(false)).unwrap(), Outcome::Finished);
        emulator.pageable_uploads() - before
    });
    assert!(uploads.iter().all(|&n| n == uploads[0]), "uploads from pageable memory in an epoch: {uploads:?}");
}

/// The device reads a table of step values when it comes to it, under the emulator as late as it may: a table that the
/// host has overwritten by then would give other noise.
#[test]
fn step_values_on_their_way_are_not_overwritten() {
    let _alone = alone();
    if cuda(Precision::F32).is_none() {
        return;
    }
    let run = |portions: &[usize]| {
        let g = Graph::new();
        let p = g.param("p", &[5]);
        g.optimize(Optimizer::Sgd { momentum: 0.5 }, g.schedule("rate"), &[(p, p - g.normal(&[5], 0))]);
        let gpu = on_cuda(Precision::F32).unwrap();
        let mut state = gpu.state(&Params::of(&g), 0).unwrap();
        let mut step = gpu.compile(&g, []).unwrap();
        let lr = LrSchedule::Cosine { lr: 0.5, lr_end: 0.1, steps: 40 };
        for &steps in portions {
            let (key, rate) = (Key { seed: 0, step: state.updates as u32 }, |done| lr.at(done));
            step.run(&mut state, &Call { steps, schedules: &[("rate", &rate)], ..Call::once(key) }).unwrap();
        }
        bits(&state.read("p").unwrap())
    };
    let expected = run(&[40]);
    for (schedule, found) in under_all_schedules(|| [run(&[1; 40]), run(&[3, 1, 9, 1, 1, 1, 8, 2, 2, 12])]) {
        assert!(found.iter().all(|bits| *bits == expected), "{schedule}");
    }
}

/// What is known on the way is what had been added up by then, and each look is at most two portions old.
#[test]
fn a_look_at_the_sums_gives_those_of_its_update() {
    let _alone = alone();
    if cuda(Precision::F32).is_none() {
        return;
    }
    const PORTIONS: [usize; 9] = [3, 1, 9, 2, 17, 8, 1, 1, 5];
    let bind = || -> (Function<Array<1>>, State) {
        let g = Graph::new();
        let p = g.param("p", &[5]);
        let noise = g.normal(&[5], 0);
        g.optimize(Optimizer::Sgd { momentum: 0.5 }, 0.1, &[(p, p - noise)]);
        let gpu = on_cuda(Precision::F32).unwrap();
        let mut step = gpu.compile(&g, [(noise * p).sum_all() * 0.1]).unwrap();
        step.set_totals(&[100.0]).unwrap();
        (step, gpu.state(&Params::of(&g), 0).unwrap())
    };
    let run = |step: &mut Function<_>, state: &mut State, steps: usize| {
        let key = Key { seed: 0, step: state.updates as u32 };
        step.run(state, &Call { steps, ..Call::once(key) }).unwrap();
    };
    // Step by step, waiting for each: the sum after every update.
    let (mut step, mut state) = bind();
    let mut sums = vec![100.0f64];
    for _ in 0..PORTIONS.iter().sum() {
        run(&mut step, &mut state, 1);
        let sum = step.take_totals().unwrap();
        step.set_totals(&sum).unwrap();
        sums.push(sum[0]);
    }
    for (schedule, looks) in under_all_schedules(|| {
        let (mut step, mut state) = bind();
        let mut looks: Vec<Option<Snapshot>> = Vec::new();
        for steps in PORTIONS {
            run(&mut step, &mut state, steps);
            looks.push(step.peek_totals().unwrap());
        }
        assert_eq!(step.take_totals().unwrap()[0].to_bits(), sums[47].to_bits(), "looking changes nothing");
        // What was under way belongs to sums that are gone.
        run(&mut step, &mut state, 1);
        let after = step.peek_totals().unwrap();
        assert!(after.is_none_or(|s| s.updates == 48 && s.totals[0].abs() < 50.0), "a look from before the sums began");
        looks
    }) {
        for (i, look) in looks.iter().enumerate() {
            let made = |portions: usize| PORTIONS[..portions].iter().sum::<usize>();
            let Some(Snapshot { updates, totals, .. }) = look else {
                assert!(i < 2, "{schedule}: nothing after {i} portions");
                continue;
            };
            let at = *updates as usize;
            assert!(
                made((i + 1).saturating_sub(2)) <= at && at <= made(i + 1),
                "{schedule}: look {i} is of update {at}"
            );
            assert_eq!(totals[0].to_bits(), sums[at].to_bits(), "{schedule}: the sum of update {at}");
        }
    }
}

#[test]
fn a_run_in_pieces_ends_in_the_same_bits() {
    let _alone = alone();
    if cuda(Precision::F32).is_none() {
        return;
    }
    // 150 updates on two images, which are three portions, and one on a single image.
    let (config, rows) = (TrainConfig { epochs: 2, ..config(2) }, 301);
    let data = Splits { train: images(rows), test: images(3) };
    let run = |stops: &[u32]| -> (Checkpoint, Vec<EpochRecord>) {
        let (mut trainer, mut reports) = (trainer(&config, rows), Reports::default());
        for &stop in stops {
            trainer.pause_at = Some(stop);
            assert_eq!(trainer.run(&mut reports, &AtomicBool::new(false)).unwrap(), Outcome::Stopped);
            trainer = Trainer::resume(&trainer.checkpoint().unwrap(), &data, ON_CUDA).unwrap();
        }
        assert_eq!(trainer.run(&mut reports, &AtomicBool::new(false)).unwrap(), Outcome::Finished);
        (trainer.checkpoint().unwrap(), reports.epochs)
    };
    let whole = run(&[]);
    assert_eq!(whole.1.len(), 2);
    assert!(run(&[1, 64, 130, 150, 151, 290]) == whole);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let _alone = alone();
    if cuda(Precision::F32).is_none() {
        return;
    }
    let sgd = elbo::vae::UpdateRule::elbo(Optimizer::Sgd { momentum: 0.0 }, None);
    let config = TrainConfig { objective: sgd, lr: LrSchedule::Constant { lr: 1e30 }, ..config(2) };
    let mut trainer = trainer(&config, 2 * 64 * 3);
    let error = trainer.run(&mut (), &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("loss by update") && error.contains("learning rate"), "{error}");
    let error = trainer.checkpoint().unwrap_err().to_string();
    assert!(error.contains("finite"), "no checkpoint of such a state: {error}");
}
