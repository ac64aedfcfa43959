//! Whole programs on the twin of a tile unit: trainings in every precision it has.

mod common;

use common::training::Training;
use elbo::engine::device::Precision;
use elbo::engine::rng::Draw;
use elbo::engine::steps::gemm::tiles::{Additions, TileUnit, Tiles};
use elbo::vae::{UpdateRule, Vae, VaeConfig};
use elbo::{Cpu, Executor, Fusion, Optimizer};

const ROWS: usize = 320;
const BATCH: usize = 40;
const UPDATES: usize = 8;
const ADAM: UpdateRule = UpdateRule::elbo(Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, None);

/// Σ loss of some updates, and the bits of what they leave.
fn train(cpu: Cpu) -> (f64, (Vec<u32>, Vec<u64>)) {
    let vae = Vae::new(VaeConfig { image: [12, 11], ..VaeConfig::new(5).hidden(&[48, 33]) }).unwrap();
    let draw = Draw { seed: 4, step: 0, stream: 0 };
    let images: Vec<u8> = (0..(ROWS * vae.config.pixels()) as u64).map(|i| (draw.uniform(i) * 255.0) as u8).collect();
    let mut training = Training::start(&Executor::new(cpu), &vae, &ADAM, (BATCH, &images), Fusion::all());
    training.run(UPDATES);
    let bits = training.take_bits();
    (f64::from_bits(bits.1[2]) / (UPDATES * BATCH) as f64, bits)
}

/// Trainings on tiles are those in f32 up to their precision, with the same bits for any number of threads.
#[test]
fn trainings_on_tiles_stay_close_to_f32() {
    let in_f32 = train(Cpu::new(1));
    for (precision, allowed) in [(Precision::F32, 1e-6), (Precision::Bf16x3, 2e-6), (Precision::Bf16, 1e-4)] {
        let tiles = Tiles::on(TileUnit::Twin(Additions::Chains), precision).unwrap();
        let [one, two] = [1, 2].map(|threads| train(Cpu::new(threads).on_tiles(tiles)));
        assert!(one.1 == two.1, "{precision}: the bits depend on the number of threads");
        assert!(one.1 != in_f32.1, "{precision}: no product was on tiles");
        let difference = (one.0 / in_f32.0 - 1.0).abs();
        println!(
            "{precision}: loss per image {:.6}, in f32 {:.6}, relative difference {difference:.1e}",
            one.0, in_f32.0
        );
        assert!(difference <= allowed, "{precision}: {} instead of {}", one.0, in_f32.0);
    }
}

/// TF32 is a precision of GPUs.
#[test]
fn tiles_refuse_tf32() {
    let why = Tiles::new(Precision::Tf32).unwrap_err().to_string();
    assert!(why.contains("tf32") && why.contains("bf16x3"), "{why}");
}
