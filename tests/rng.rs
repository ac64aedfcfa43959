//! Random numbers: published vectors, recorded bits, every way of asking gives the same, and they look random.

use std::collections::HashSet;

use elbo::engine::isa::Isa;
use elbo::engine::rng::{Draw, Permutation, philox4x32_10, sincospi, unit_log};

const DRAW: Draw = Draw { seed: 0x0123_4567_89ab_cdef, step: 7, stream: 3 };

/// FNV-1a over 32-bit words.
fn hash(words: impl IntoIterator<Item = u32>) -> u64 {
    words.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, w| (h ^ u64::from(w)).wrapping_mul(0x0100_0000_01b3))
}

fn hash_f32(values: &[f32]) -> u64 {
    hash(values.iter().map(|v| v.to_bits()))
}

fn normals(draw: Draw, count: usize) -> Vec<f32> {
    let mut out = vec![0.0; count];
    draw.fill_normal(Isa::detect(), 0, &mut out);
    out
}

/// Σ (observed − expected)²/expected.
fn chi_square(observed: &[u32], expected: impl Fn(usize) -> f64) -> f64 {
    observed.iter().enumerate().map(|(i, o)| (f64::from(*o) - expected(i)).powi(2) / expected(i)).sum()
}

/// A bound that chi-square of so many degrees of freedom exceeds with probability below 1e-6 (Wilson and Hilferty).
fn chi_limit(freedom: usize) -> f64 {
    let k = 2.0 / (9.0 * freedom as f64);
    freedom as f64 * (1.0 - k + 4.8 * k.sqrt()).powi(3)
}

#[test]
fn philox_gives_the_published_vectors() {
    // Random123, tests/kat_vectors, philox4x32 10
    let vectors = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (counter, key, words) in vectors {
        assert_eq!(philox4x32_10(counter, key), words);
    }
}

#[test]
fn a_draw_reads_the_words_of_its_blocks() {
    for index in [0, 1, 2, 3, 4, 4_000_003, (1 << 34) - 1] {
        let block = philox4x32_10([(index / 4) as u32, 7, 3, 0], [0x89ab_cdef, 0x0123_4567]);
        let word = block[(index % 4) as usize];
        assert_eq!(DRAW.uniform(index), (f64::from(word >> 8) / f64::from(1 << 24)) as f32);
        let pair = (index % 4 / 2 * 2) as usize;
        let radius = (-2.0 * (1.0 - f64::from(block[pair] >> 8) / f64::from(1 << 24)).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(block[pair + 1] >> 8) / f64::from(1 << 24);
        let want = radius * if index % 2 == 0 { angle.cos() } else { angle.sin() };
        assert!((f64::from(DRAW.normal(index)) - want).abs() < 1e-6, "element {index}");
    }
}

#[test]
fn filling_equals_asking_one_by_one_on_every_instruction_set() {
    let lengths = (0..=9).chain(59..=69).chain([127, 128, 129, 1000]);
    let lengths: Vec<usize> = lengths.collect();
    for isa in Isa::available() {
        for first in [0, 1, 2, 3, 4, 5, 63, 64, 65, 66, 1_000_003, (1 << 34) - 1024] {
            for &length in &lengths {
                let mut out = vec![f32::NAN; length];
                DRAW.fill_uniform(isa, first, &mut out);
                assert!((first..).zip(&out).all(|(i, v)| DRAW.uniform(i) == *v), "uniform {first} {length} {isa}");
                DRAW.fill_normal(isa, first, &mut out);
                let same = |(i, v): (u64, &f32)| DRAW.normal(i).to_bits() == v.to_bits();
                assert!((first..).zip(&out).all(same), "normal {first} {length} {isa}");
            }
        }
    }
}

#[test]
fn recorded_bits_of_a_million_numbers() {
    for isa in Isa::available() {
        let mut out = vec![0.0; 1 << 20];
        DRAW.fill_normal(isa, 0, &mut out);
        assert_eq!(hash_f32(&out), 0x0ba78bb3611bebd2, "normal, {isa}");
        DRAW.fill_uniform(isa, 0, &mut out);
        assert_eq!(hash_f32(&out), 0x1139251df7bc04c7, "uniform, {isa}");
    }
}

#[test]
fn log_and_sincospi_over_all_their_arguments() {
    const STEPS: u32 = 1 << 24;
    let exact: Vec<(f32, f32, f32)> = Isa::detect().run(|| {
        let all = (0..STEPS).map(|j| {
            let (s, c) = sincospi(j);
            (unit_log((STEPS - j) as f32 / STEPS as f32), s, c)
        });
        all.collect()
    });
    assert_eq!(hash(exact.iter().flat_map(|(l, s, c)| [*l, *s, *c]).map(f32::to_bits)), 0xc64daf0fe8d4417a);
    for (j, (l, s, c)) in exact.into_iter().enumerate() {
        let part = j as f64 / f64::from(STEPS);
        let (sin, cos) = (part * std::f64::consts::TAU).sin_cos();
        assert!((f64::from(s) - sin).abs() < 1e-7 && (f64::from(c) - cos).abs() < 1e-7, "sincospi({j}) = {s} {c}");
        let log = (1.0 - part).ln();
        assert!((f64::from(l) - log).abs() <= 1e-7 * log.abs(), "ln(1 - {part}) = {l}");
    }
}

#[test]
#[rustfmt::skip]
fn the_numpy_twin_agrees() {
    // Printed by tests/golden/philox.py: seed, step, stream, the first normals, hashes of 8191 uniforms and normals.
    let draws = [
        (0x0000000000000000, 0, 0,
            [0x3f3ce8b2, 0xbf303d30, 0xbfa49c47, 0xbf807c28, 0xbfdde62f, 0x4002954b],
            0x977bbcea64a5f927, 0xc0048c58b6e784b3),
        (0x0123456789abcdef, 7, 3,
            [0x3eceba8f, 0xbf8d0d53, 0x3fa2a7f2, 0x3f96fe58, 0x3f1995f1, 0x3df1d88e],
            0xcfe6d1a9bf7e2a44, 0x3563f058f09511d5),
        (0xffffffffffffffff, 4294967295, 1,
            [0xbf2664bb, 0x3efad3ca, 0xbf52d717, 0xbd8e246f, 0xbf3e893b, 0xbed876bc],
            0xf7918d5b7f7b236e, 0xccb1c4f05633fa3a),
    ];
    for (seed, step, stream, bits, uniform, normal) in draws {
        let draw = Draw { seed, step, stream };
        let mut out = vec![0.0; 8191];
        draw.fill_uniform(Isa::detect(), 0, &mut out);
        assert_eq!(hash_f32(&out), uniform);
        draw.fill_normal(Isa::detect(), 0, &mut out);
        assert!(out.iter().zip(bits).all(|(v, b): (&f32, u32)| v.to_bits() == b));
        assert_eq!(hash_f32(&out), normal);
    }
    // Seed, epoch, n, the first images, hash of all n.
    let orders = [
        (0x0000000000000000, 0, 10, [9, 4, 0, 5, 7, 8], 0xe44d6f9b8e427cb8),
        (0x0123456789abcdef, 3, 60000, [42696, 31689, 26924, 39761, 30838, 10031], 0xa0f43e897c63c349),
        (0x0000000000000005, 1, 65536, [5895, 62731, 3203, 34488, 22882, 48011], 0xe3e00905da9b54b1),
    ];
    for (seed, epoch, n, first, all) in orders {
        let order = Permutation::new(seed, epoch, n);
        assert!((0..).zip(first).all(|(i, image): (u32, u32)| order.at(i) == image));
        assert_eq!(hash((0..n).map(|i| order.at(i))), all);
    }
}

#[test]
fn uniforms_fill_the_unit_interval_evenly() {
    let mut out = vec![0.0; 1 << 20];
    DRAW.fill_uniform(Isa::detect(), 0, &mut out);
    let mut bins = [0; 256];
    for u in &out {
        assert!((0.0..1.0).contains(u));
        bins[(u * 256.0) as usize] += 1;
    }
    assert!(chi_square(&bins, |_| 4096.0) < chi_limit(255));
}

#[test]
fn normals_have_the_moments_and_tails_of_the_normal_distribution() {
    const N: usize = 1 << 22;
    let z = normals(DRAW, N);
    let moment = |p: i32| z.iter().map(|z| f64::from(*z).powi(p)).sum::<f64>() / N as f64;
    // Standard deviations of the estimates: √(var of zᵖ / N) with E z² = 1, z⁴ = 3, z⁶ = 15, z⁸ = 105.
    for (p, want, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        let sigma = f64::sqrt(variance / N as f64);
        assert!((moment(p) - want).abs() < 4.5 * sigma, "moment {p}: {}", moment(p));
    }
    for (limit, part) in [(1.0, 0.317_310_5), (2.0, 0.045_500_26), (3.0, 2.699_796e-3), (4.0, 6.334_248e-5)] {
        let found = z.iter().filter(|z| z.abs() > limit).count() as f64;
        let want = part * N as f64;
        assert!((found - want).abs() < 4.5 * want.sqrt(), "beyond {limit}: {found}, expected {want}");
    }
    assert!(z.iter().all(|z| z.abs() < 5.78));
}

#[test]
fn normals_follow_the_bell_curve_bin_by_bin() {
    const N: usize = 1 << 20;
    const BINS: usize = 64; // of width 1/8 from −4 to 4; what lies outside goes to the outer ones
    let mut bins = [0; BINS];
    for z in normals(DRAW, N) {
        bins[(((z + 4.0) * 8.0) as usize).min(BINS - 1)] += 1;
    }
    let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    let expected = |i: usize| {
        let (a, h) = (i as f64 / 8.0 - 4.0, 0.125);
        let simpson = h / 6.0 * (density(a) + 4.0 * density(a + h / 2.0) + density(a + h));
        let outside = if i == 0 || i == BINS - 1 { 3.167_124e-5 } else { 0.0 };
        N as f64 * (simpson + outside)
    };
    assert!(chi_square(&bins, expected) < chi_limit(BINS - 1));
}

#[test]
fn neighbours_steps_streams_and_seeds_are_uncorrelated() {
    const N: usize = 1 << 18;
    let z = normals(DRAW, N);
    let correlation = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / (N as f64).sqrt()
    };
    for lag in 1..=8 {
        assert!(correlation(&z[lag..], &z[..N - lag]).abs() < 4.5, "lag {lag}");
    }
    let square = |z: &[f32]| z.iter().map(|z| (z * z - 1.0) * 0.5_f32.sqrt()).collect::<Vec<_>>();
    assert!(correlation(&square(&z)[1..], &square(&z)[..N - 1]).abs() < 4.5, "squares of neighbours");
    for other in [
        Draw { step: 8, ..DRAW },
        Draw { stream: 4, ..DRAW },
        Draw { seed: DRAW.seed + 1, ..DRAW },
        Draw { seed: DRAW.seed + (1 << 32), ..DRAW },
        Draw { step: 3, stream: 7, ..DRAW },
    ] {
        assert!(correlation(&z, &normals(other, N)).abs() < 4.5, "{other:?}");
    }
}

#[test]
fn permutations_are_bijections() {
    for n in [1, 2, 3, 4, 5, 10, 16, 17, 1000, 59_999, 60_000, 65_536, 65_537] {
        let order = Permutation::new(1, 2, n);
        let images: HashSet<u32> = (0..n).map(|i| order.at(i)).collect();
        assert!(images.len() == n as usize && images.iter().all(|i| *i < n), "n = {n}");
    }
    let order = Permutation::new(1, 2, u32::MAX);
    assert!((0..1000).map(|i| order.at(i)).collect::<HashSet<_>>().len() == 1000);
}

#[test]
fn epochs_and_seeds_have_orders_of_their_own() {
    let order = |seed, epoch| {
        let p = Permutation::new(seed, epoch, 60_000);
        (0..1000).map(|i| p.at(i)).collect::<Vec<_>>()
    };
    let orders = [order(1, 0), order(1, 1), order(2, 0), order(1 << 32, 0), order(0, 1)];
    for (i, a) in orders.iter().enumerate() {
        for b in &orders[..i] {
            // Two unrelated orders agree at 1000/60000 of these positions on average.
            assert!(a.iter().zip(b).filter(|(a, b)| a == b).count() < 4);
        }
    }
}

#[test]
fn any_image_may_stand_at_any_position() {
    for n in [10_u32, 1000, 60_000] {
        const EPOCHS: u32 = 20_000;
        let mut seen = [[0; 10]; 5]; // images at four positions, and the distance of two neighbours, in tenths of n
        for epoch in 0..EPOCHS {
            let p = Permutation::new(9, epoch, n);
            let tenth = |image: u32| (u64::from(image) * 10 / u64::from(n)) as usize;
            for (bins, i) in seen.iter_mut().zip([0, 1, n / 2, n - 1]) {
                bins[tenth(p.at(i))] += 1;
            }
            seen[4][tenth((p.at(n / 3 + 1) + n - p.at(n / 3)) % n)] += 1;
        }
        for (i, bins) in seen.iter().enumerate() {
            // A distance is never 0: for n = 10 the first bin of the last row is empty, the others share evenly.
            let free = if i == 4 && n == 10 { &bins[1..] } else { &bins[..] };
            let expected = f64::from(EPOCHS) / free.len() as f64;
            let found = chi_square(free, |_| expected);
            assert!(found < chi_limit(free.len() - 1), "n = {n}, row {i}: chi-square {found}, {bins:?}");
        }
    }
}

#[test]
fn an_epoch_mixes_positions() {
    const N: u32 = 60_000;
    for epoch in 0..20 {
        let p = Permutation::new(5, epoch, N);
        let mut table = [0; 400]; // 20 × 20: where from, where to
        let mut ascents = 0;
        for i in 0..N {
            table[(i / 3000 * 20 + p.at(i) / 3000) as usize] += 1;
            ascents += u32::from(i > 0 && p.at(i) > p.at(i - 1));
        }
        assert!(chi_square(&table, |_| 150.0) < chi_limit(19 * 19), "epoch {epoch}");
        // The number of ascents of a random order has mean (n − 1)/2 and variance (n + 1)/12.
        let off = f64::from(ascents) - f64::from(N - 1) / 2.0;
        assert!(off.abs() < 4.5 * f64::from((N + 1) / 12).sqrt(), "epoch {epoch}: {ascents} ascents");
    }
}

#[test]
#[should_panic(expected = "position 10 of a permutation of 0..10")]
fn a_position_outside_is_refused() {
    Permutation::new(0, 0, 10).at(10);
}
