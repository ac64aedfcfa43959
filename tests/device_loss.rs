//! The loss of a training on CUDA is known without waiting for it: the same bits, and no wait between portions.
//!
//! The waits of the driver are counted for the whole process, so the tests of this file run one at a time.

#![cfg(feature = "cuda")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Behind, behind, cuda, under_all_schedules};
use elbo::data::{Dataset, Split, Splits};
use elbo::engine::device::{Device, Precision, Snapshot};
use elbo::engine::rng::Draw;
use elbo::train::checkpoint::Checkpoint;
use elbo::train::{EpochRecord, EpochTiming, Observer, Outcome, StepReport, TrainConfig, Trainer};
use elbo::vae::VaeConfig;
use elbo::{Exec, Fusion, Graph, LrSchedule, Optimizer, Plan};

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
        let mut gpu = cuda(Precision::F32).unwrap();
        let g = Graph::new();
        let p = g.param("p", &[5]);
        g.optimize(Optimizer::Sgd { momentum: 0.5 }, &[(p, p - g.normal(&[5], 0))]);
        let plan = gpu.bind(&Plan::build(&g, Fusion::all()).unwrap()).unwrap();
        gpu.control_mut().lr = LrSchedule::Cosine { lr: 0.5, lr_end: 0.1, steps: 40 };
        portions.iter().for_each(|&times| gpu.run(plan, times).unwrap());
        gpu.read("p").unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
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
    let graph = || {
        let g = Graph::new();
        let p = g.param("p", &[5]);
        let noise = g.normal(&[5], 0);
        g.optimize(Optimizer::Sgd { momentum: 0.5 }, &[(p, p - noise)]);
        g.metric("sum", (noise * p).sum_all() * 0.1);
        g
    };
    let bind = || {
        let mut gpu = cuda(Precision::F32).unwrap();
        let plan = gpu.bind(&Plan::build(&graph(), Fusion::all()).unwrap()).unwrap();
        gpu.control_mut().lr = LrSchedule::Constant { lr: 0.1 };
        gpu.set_metrics(plan, &BTreeMap::from([("sum".into(), 100.0)])).unwrap();
        (gpu, plan)
    };
    // Step by step, waiting for each: the sum after every update.
    let (mut gpu, plan) = bind();
    let mut sums = vec![100.0f64];
    for _ in 0..PORTIONS.iter().sum() {
        gpu.run(plan, 1).unwrap();
        let sum = gpu.take_metrics(plan).unwrap();
        gpu.set_metrics(plan, &sum).unwrap();
        sums.push(sum["sum"]);
    }
    for (schedule, looks) in under_all_schedules(|| {
        let (mut gpu, plan) = bind();
        let mut looks: Vec<Option<Snapshot>> = Vec::new();
        for times in PORTIONS {
            gpu.run(plan, times).unwrap();
            looks.push(gpu.peek_metrics(plan).unwrap());
        }
        assert_eq!(gpu.take_metrics(plan).unwrap()["sum"].to_bits(), sums[47].to_bits(), "looking changes nothing");
        // What was under way belongs to sums that are gone.
        gpu.run(plan, 1).unwrap();
        let after = gpu.peek_metrics(plan).unwrap();
        assert!(
            after.is_none_or(|s| s.updates == 48 && s.sums["sum"].abs() < 50.0),
            "a look from before the sums began"
        );
        looks
    }) {
        for (i, look) in looks.iter().enumerate() {
            let made = |portions: usize| PORTIONS[..portions].iter().sum::<usize>();
            let Some(Snapshot { updates, sums: found, .. }) = look else {
                assert!(i < 2, "{schedule}: nothing after {i} portions");
                continue;
            };
            let at = *updates as usize;
            assert!(
                made((i + 1).saturating_sub(2)) <= at && at <= made(i + 1),
                "{schedule}: look {i} is of update {at}"
            );
            assert_eq!(found["sum"].to_bits(), sums[at].to_bits(), "{schedule}: the sum of update {at}");
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
    let sgd = elbo::vae::Objective::elbo(Optimizer::Sgd { momentum: 0.0 }, None);
    let config = TrainConfig { objective: sgd, lr: LrSchedule::Constant { lr: 1e30 }, ..config(2) };
    let mut trainer = trainer(&config, 2 * 64 * 3);
    let error = trainer.run(&mut (), &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("loss by update") && error.contains("--lr"), "{error}");
    let error = trainer.checkpoint().unwrap_err().to_string();
    assert!(error.contains("finite"), "no checkpoint of such a state: {error}");
}
