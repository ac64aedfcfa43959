//! Models that share launches against models alone: the same bits, fewer launches. Runs on a GPU if there is one, elsewhere under
//! the emulated driver.

#![cfg(feature = "cuda")]

mod common;

use std::sync::Barrier;
use std::time::Duration;

use common::training::{TRAIN, Training};
use common::{cuda, on_cuda, under_all_schedules};
use elbo::engine::device::{Device, Ensemble, Precision, Sharing};
use elbo::engine::nn::Activation;
use elbo::engine::rng::Draw;
use elbo::vae::{Binarisation, Bound, UpdateRule, Vae, VaeConfig};
use elbo::{Executor, Fusion, Key, LrSchedule, Optimizer};

const ADAM: UpdateRule = UpdateRule::elbo(Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, None);
const SGD: UpdateRule = UpdateRule::elbo(Optimizer::Sgd { momentum: 0.9 }, None);

/// Longer than any other thread takes to come, on a busy machine too.
const PATIENT: Duration = Duration::from_secs(20);

/// Other images for every model.
fn images(rows: usize, pixels: usize, number: u64) -> Vec<u8> {
    let draw = Draw { seed: 9 + number, step: 0, stream: 0 };
    (0..(rows * pixels) as u64).map(|i| (draw.uniform(i) * 255.99) as u8).collect()
}

/// One of several models: what it is, how it is updated, and which of its kind.
#[derive(Clone)]
struct Member {
    vae: Vae,
    rule: UpdateRule,
    batch: usize,
    number: u64,
    runs: Vec<usize>,
}

type Bits = (Vec<u32>, Vec<u64>);

impl Member {
    fn of(vae: &Vae, rule: &UpdateRule, batch: usize, number: u64) -> Member {
        Member { vae: vae.clone(), rule: *rule, batch, number, runs: vec![3, 2] }
    }

    /// Trains it; `begin` is called when everything is there.
    fn train(&self, executor: &Executor, begin: impl FnOnce()) -> Bits {
        let pixels = self.vae.config.pixels();
        let images = |batches: usize| images(batches * self.batch, pixels, self.number);
        let training = Training::start(executor, &self.vae, &self.rule, (self.batch, &images(6)), Fusion::all());
        let rate = LrSchedule::Constant { lr: 1e-3 * (1.0 + self.number as f64) };
        let mut training = Training { key: Key::new(7 + self.number), rate, ..training };
        begin();
        for (run, &steps) in self.runs.iter().enumerate() {
            if run > 0 {
                // The data set moves.
                training.state.load(TRAIN, &images(6 + run)[..], pixels).unwrap();
            }
            training.run(steps);
        }
        training.take_bits()
    }
}

/// Trains all at the same time, each in a thread of its own.
fn together(members: &[Member], precision: Precision) -> (Vec<Bits>, Sharing) {
    let device = Device::Cuda { ordinal: 0, precision };
    let ensemble = Ensemble::with_patience(device, members.len(), PATIENT).unwrap();
    let all_there = Barrier::new(members.len());
    let bits = std::thread::scope(|threads| {
        // Opened in order, so that neighbours stay neighbours.
        let (ensemble, all_there) = (&ensemble, &all_there);
        let threads: Vec<_> = members
            .iter()
            .map(|member| {
                let (opened, is_open) = std::sync::mpsc::channel();
                let thread = threads.spawn(move || {
                    let executor = ensemble.open().unwrap();
                    opened.send(()).unwrap();
                    member.train(&executor, || {
                        all_there.wait();
                    })
                });
                is_open.recv().unwrap();
                thread
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (bits, ensemble.sharing().unwrap())
}

fn alone(members: &[Member], precision: Precision) -> Option<Vec<Bits>> {
    members.iter().map(|member| Some(member.train(&on_cuda(precision)?, || ()))).collect()
}

fn must_be_the_same(members: &[Member], precision: Precision, expected: Sharing) {
    let Some(separate) = alone(members, precision) else { return };
    let (shared, sharing) = together(members, precision);
    for (number, (found, expected)) in shared.iter().zip(&separate).enumerate() {
        assert!(found == expected, "model {number} of {}, {precision}: other bits than alone", members.len());
    }
    assert_eq!(sharing, expected, "{precision}");
}

fn small() -> VaeConfig {
    VaeConfig { image: [7, 6], ..VaeConfig::new(3).hidden(&[19]) }
}

#[test]
fn models_of_one_launch_have_the_bits_that_they_have_alone() {
    let configs = [
        small(),
        VaeConfig { activation: Activation::Tanh, binarisation: Binarisation::Dynamic, ..small().hidden(&[24, 17]) },
        // Long enough a sum to be split over k.
        small().hidden(&[300]),
    ];
    let burda = UpdateRule { bound: Bound { samples: 5, ..Bound::ELBO }, ..ADAM };
    for (config, rule) in [(0, &ADAM), (1, &SGD), (2, &ADAM), (0, &burda)] {
        let vae = Vae::new(configs[config].clone()).unwrap();
        let members: Vec<Member> = (0..4).map(|number| Member::of(&vae, rule, 10, number)).collect();
        must_be_the_same(&members, Precision::F32, Sharing { runs: 8, launched: 2 });
    }
}

#[test]
fn so_they_have_on_tensor_cores() {
    let vae = Vae::new(small()).unwrap();
    for precision in [Precision::Tf32, Precision::Bf16, Precision::Bf16x3] {
        let members: Vec<Member> = (0..3).map(|number| Member::of(&vae, &ADAM, 10, number)).collect();
        must_be_the_same(&members, precision, Sharing { runs: 6, launched: 2 });
    }
}

/// Products so large that they take planes of bf16.
#[test]
fn so_they_have_with_planes_of_bf16() {
    let vae = Vae::new(VaeConfig { image: [16, 16], ..VaeConfig::new(3).hidden(&[784]) }).unwrap();
    let member = |number| Member { runs: vec![1], ..Member::of(&vae, &ADAM, 788, number) };
    must_be_the_same(&[member(0), member(1)], Precision::Bf16, Sharing { runs: 2, launched: 1 });
}

#[test]
fn the_bits_do_not_depend_on_the_schedule() {
    let vae = Vae::new(small()).unwrap();
    let members: Vec<Member> = (0..3).map(|number| Member::of(&vae, &ADAM, 10, number)).collect();
    let Some(expected) = alone(&members, Precision::F32) else { return };
    for (schedule, (found, _)) in under_all_schedules(|| together(&members, Precision::F32)) {
        assert!(found == expected, "{schedule}");
    }
}

/// What differs in a number that a kernel is given, as the constants of a program, is another kind.
#[test]
fn models_of_different_kinds_run_one_after_the_other() {
    let vae = Vae::new(small()).unwrap();
    let other = Vae::new(small().hidden(&[20])).unwrap();
    let beta = UpdateRule { optimizer: Optimizer::Adam { beta1: 0.8, beta2: 0.999, eps: 1e-8 }, ..ADAM };
    let members = [
        Member::of(&vae, &ADAM, 10, 0),
        Member::of(&vae, &ADAM, 10, 1),
        Member::of(&other, &ADAM, 10, 2),
        Member::of(&vae, &beta, 10, 3),
        Member::of(&vae, &ADAM, 12, 4),
        Member::of(&vae, &ADAM, 10, 5),
    ];
    must_be_the_same(&members, Precision::F32, Sharing { runs: 12, launched: 10 });
}

#[test]
fn one_that_is_done_is_not_waited_for() {
    let vae = Vae::new(small()).unwrap();
    let mut members: Vec<Member> = (0..4).map(|number| Member::of(&vae, &ADAM, 10, number)).collect();
    // The second leaves after its first run; then its neighbours are no neighbours of each other.
    members[1].runs.pop();
    must_be_the_same(&members, Precision::F32, Sharing { runs: 7, launched: 3 });
}

#[test]
fn runs_of_different_length_do_not_go_together() {
    let vae = Vae::new(small()).unwrap();
    let mut members: Vec<Member> = (0..2).map(|number| Member::of(&vae, &ADAM, 10, number)).collect();
    members[1].runs = vec![2, 2];
    must_be_the_same(&members, Precision::F32, Sharing { runs: 4, launched: 3 });
}

#[test]
fn there_is_room_for_as_many_as_were_asked_for() {
    if cuda(Precision::F32).is_none() {
        return;
    }
    let device = Device::Cuda { ordinal: 0, precision: Precision::F32 };
    let ensemble = Ensemble::new(device, 2).unwrap();
    let first = ensemble.open().unwrap();
    let second = ensemble.open().unwrap();
    let full = ensemble.open().err().unwrap().to_string();
    assert!(full.contains("as many as there is room for"), "{full}");
    drop(first);
    ensemble.open().unwrap();
    drop(second);
    let many = Ensemble::new(device, Ensemble::MOST_ON_A_GPU + 1).err().unwrap().to_string();
    assert!(many.contains("16"), "{many}");
    assert!(Ensemble::new(device, 0).is_err());
}
