//! Every portable function on the device against its twin on the CPU, over ranges of inputs by their bits, compared
//! through one hash per range (kernels/noise_hash.cu says how it is made).
//!
//! By default the ranges are those where something happens: zeros, denormals, limits of the reductions, infinities,
//! NaNs. `ELBO_HASH_ALL=1` takes all 2³² inputs of every function, which is hopeless under the emulator; beside a GPU the
//! CPU's half was projected, from 2²⁵ inputs each, to take five minutes on two cores with AVX-512.

#![cfg(feature = "cuda")]

mod common;

use common::{Behind, behind, cuda, under_all_schedules};
use elbo::engine::device::Precision;
use elbo::engine::device::cuda::Cuda;
use elbo::engine::isa::Isa;
use elbo::engine::math::{map_f32, single};
use elbo::engine::ops::ScalarFn;
use elbo::engine::rng::{Draw, sincospi, unit_log};
use rayon::prelude::*;

const ALL: u64 = 1 << 32;
const SEED: u64 = 0x0123_4567_89ab_cdef;

/// Of what a hash is made. The numbers are those of kernels/params.cuh, `Hashed`.
#[derive(Clone, Copy)]
enum Function {
    Scalar(usize),
    Pow(f64),
    UnitLog,
    Sin,
    Cos,
    Normal,
    Uniform,
}

impl Function {
    fn all() -> Vec<Function> {
        let scalars = (0..ScalarFn::ALL.len()).map(Function::Scalar);
        // Even, odd and no whole number, of both signs, and one near the limits of the exponent.
        let powers = [-2.0, -0.5, 0.3, 3.0, 37.5].map(Function::Pow);
        let noise = [Function::UnitLog, Function::Sin, Function::Cos, Function::Normal, Function::Uniform];
        scalars.chain(powers).chain(noise).collect()
    }

    fn name(self) -> String {
        match self {
            Function::Scalar(at) => ScalarFn::ALL[at].name().into(),
            Function::Pow(c) => format!("pow {c}"),
            Function::UnitLog => "unit_log".into(),
            Function::Sin => "sin".into(),
            Function::Cos => "cos".into(),
            Function::Normal => "normal".into(),
            Function::Uniform => "uniform".into(),
        }
    }

    /// (which, seed) as the kernel takes them.
    fn of_kernel(self) -> (u32, u64) {
        match self {
            Function::Scalar(at) => (at as u32, 0),
            Function::Pow(c) => (32, c.to_bits()),
            Function::UnitLog => (33, 0),
            Function::Sin => (34, 0),
            Function::Cos => (35, 0),
            Function::Normal => (36, SEED),
            Function::Uniform => (37, SEED),
        }
    }

    /// The values for inputs `first`, `first + 1`, … on the CPU.
    fn fill(self, first: u64, out: &mut [f32]) {
        let isa = Isa::detect();
        let draw = Draw { seed: SEED, step: 0, stream: 0 };
        let x: Vec<f32> = (first..).take(out.len()).map(|i| f32::from_bits(i as u32)).collect();
        match self {
            Function::Scalar(at) => isa.run(
                #[inline(always)]
                || ScalarFn::ALL[at].eval_slice(&x, out),
            ),
            Function::Pow(c) => map_f32(isa, move |x| single::pow(x, c), &x, out),
            Function::UnitLog => {
                map_f32(isa, |x| unit_log((0x0100_0000 - (x.to_bits() >> 8)) as f32 / 16_777_216.0), &x, out);
            }
            Function::Sin => map_f32(isa, |x| sincospi(x.to_bits() >> 8).0, &x, out),
            Function::Cos => map_f32(isa, |x| sincospi(x.to_bits() >> 8).1, &x, out),
            Function::Normal => draw.fill_normal(isa, first, out),
            Function::Uniform => draw.fill_uniform(isa, first, out),
        }
    }

    /// The twin of the kernel's hash, on all cores.
    fn hash(self, first: u64, count: u64) -> u64 {
        const CHUNK: u64 = 1 << 14;
        let one = |chunk: u64| {
            let begin = first + chunk * CHUNK;
            let mut values = vec![0.0; CHUNK.min(first + count - begin) as usize];
            self.fill(begin, &mut values);
            let term =
                |(i, v): (u64, &f32)| mix(i << 32 | u64::from(if v.is_nan() { 0x7fc0_0000 } else { v.to_bits() }));
            (begin..).zip(&values).map(term).fold(0, u64::wrapping_add)
        };
        (0..count.div_ceil(CHUNK)).into_par_iter().map(one).reduce(|| 0, u64::wrapping_add)
    }
}

/// The end of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Compares a range; if it differs, halves it down to the first input that does.
fn compare(gpu: &Cuda, function: Function, mut first: u64, mut count: u64) -> Result<(), String> {
    let (which, seed) = function.of_kernel();
    let same = |first, count| gpu.hash(which, first, count, seed).unwrap() == function.hash(first, count);
    if same(first, count) {
        return Ok(());
    }
    while count > 1 {
        let half = count / 2;
        (first, count) = if same(first, half) { (first + half, count - half) } else { (first, half) };
    }
    let mut value = [0.0];
    function.fill(first, &mut value);
    let (input, on_cpu) = (first as u32, value[0]);
    let x = f32::from_bits(input);
    Err(format!("{} differs at input {input:#010x} ({x:e}); the CPU gives {on_cpu:e}", function.name()))
}

/// Ranges of `count` inputs around the places where a function changes its ways.
fn places(count: u64) -> Vec<(u64, u64)> {
    let magnitudes = [0.0, f32::MIN_POSITIVE, 1e-3, 0.5, 0.707_106_77, 1.0, 9.02, 17.33, 87.34, 88.72, 103.97];
    let positive = magnitudes.iter().map(|x| x.to_bits()).chain([f32::INFINITY.to_bits(), 0x7fff_ffff]);
    let both = positive.flat_map(|bits| [bits, bits | 1 << 31]);
    let around = |bits: u32| u64::from(bits).saturating_sub(count / 2).min(ALL - count);
    both.map(|bits| (around(bits), count)).collect()
}

#[test]
fn functions_and_noise_have_the_same_bits_as_on_the_cpu() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    let ranges = match behind() {
        _ if std::env::var("ELBO_HASH_ALL").is_ok_and(|v| v == "1") => vec![(0, ALL)],
        Behind::Emulator(_) => places(4000),
        _ => places(1 << 18),
    };
    let inputs: u64 = ranges.iter().map(|r| r.1).sum();
    let mut wrong = Vec::new();
    for function in Function::all() {
        let start = std::time::Instant::now();
        let found: Result<(), String> = ranges.iter().try_for_each(|&(first, n)| compare(&gpu, function, first, n));
        println!("{:<10} {inputs} inputs in {:.1} s: {found:?}", function.name(), start.elapsed().as_secs_f64());
        wrong.extend(found.err());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The hash itself: it is a sum over inputs, and other inputs give another one.
#[test]
fn a_hash_depends_on_its_inputs_and_not_on_the_order_in_which_they_come() {
    let Some(gpu) = cuda(Precision::F32) else { return };
    let whole = gpu.hash(36, 1000, 777, SEED).unwrap();
    for (schedule, again) in under_all_schedules(|| gpu.hash(36, 1000, 777, SEED).unwrap()) {
        assert_eq!(whole, again, "{schedule}");
    }
    let parts = [(1000, 1), (1001, 500), (1501, 276)].map(|(first, count)| gpu.hash(36, first, count, SEED).unwrap());
    assert_eq!(whole, parts.iter().fold(0, |sum: u64, part| sum.wrapping_add(*part)));
    assert_ne!(whole, gpu.hash(36, 1000, 777, SEED + 1).unwrap());
    assert_ne!(whole, gpu.hash(36, 1001, 777, SEED).unwrap());
    assert_eq!(gpu.hash(36, 5, 0, SEED).unwrap(), 0);
}
