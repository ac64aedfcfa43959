use super::cases::{CASES, HardMatrices, HardProduct, U};
use super::pack::{Factor, TileSide, rounded, widened};
use super::probe::{Finding, ask};
use super::*;
use crate::engine::device::Precision;

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16x3, Precision::Bf16];
const TRANSPOSES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// What the module's documentation says of errors, in units of u, for a unit that adds in this order.
fn bound(precision: Precision, additions: Additions, k: usize) -> f64 {
    let steps = k.div_ceil(STEP) as f64;
    let (inside, each) = match additions {
        Additions::Chains => (17.0, 1.0),
        Additions::Serial => (0.0, 32.0),
        Additions::Pairs => (1.0, 16.0),
    };
    let sums = (inside + steps * each) * (1.0 + 2.0_f64.powi(-7)) + 2.0 + k.div_ceil(DEPTH) as f64;
    let small = |products: f64| (inside + products * each * steps) * 2.0_f64.powi(-6);
    match precision {
        Precision::F32 => sums + small(5.0) + 1.0,
        Precision::Bf16x3 => sums + small(2.0) + 1.01 * 2.0_f64.powi(-15) / U,
        Precision::Bf16 | Precision::Tf32 => sums + 1.01 * 2.0_f64.powi(-7) / U,
    }
}

fn twin(precision: Precision) -> Tiles {
    Tiles::on(TileUnit::Twin(Additions::Chains), precision).unwrap()
}

#[test]
fn rounding_is_to_nearest_even() {
    for high in 0..=u16::MAX {
        for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let x = f32::from_bits(u32::from(high) << 16 | low);
            let (found, expected) = (rounded(x), half::bf16::from_f32(x).to_bits());
            assert!(found == expected || widened(found).is_nan() && x.is_nan(), "{x:e}: {found:x}, not {expected:x}");
        }
    }
}

/// Three parts are the number, from 2⁻¹⁰³ on of normal numbers or zeros.
#[test]
fn three_parts_hold_a_number() {
    let mut packed = vec![0; 3 * 2 * HALVES];
    for exponent in [-103, -102, -50, -1, 0, 1, 60, 126] {
        let numbers: Vec<f32> = (0..STEP)
            .map(|i| (1.0 + HardMatrices::Random.number(0, 7, i, 0).abs() * 0.9) * 2.0_f32.powi(exponent))
            .collect();
        let factor = Factor { first: numbers.as_ptr(), outer: STEP, inner: 1 };
        // SAFETY: one row of so many numbers.
        unsafe { factor.pack(Isa::detect(), TileSide::Left, 3, 1, STEP, &mut packed) };
        for (p, x) in numbers.iter().enumerate() {
            let parts = [0, 1, 2].map(|part| widened(packed[part * 2 * HALVES + p]));
            assert_eq!(parts.iter().rev().sum::<f32>(), *x, "{parts:?}");
            assert!(parts.iter().all(|part| !part.is_subnormal()), "{x:e}: {parts:?}");
        }
    }
}

/// Every precision, shape and layout: the same bits to memory and to an epilogue, from chunks in either order, within
/// the bound, and the sums of B those of the vector units.
#[test]
fn products_of_every_shape_and_layout() {
    let sizes = [1, 15, 16, 17, 31, 33, 100];
    let mut shapes: Vec<_> = sizes.iter().flat_map(|&m| sizes.map(|n| (m, n, sizes[(m + n) % sizes.len()]))).collect();
    shapes.extend([(20, 300, 1700), (300, 40, 1700), (5, 3, 0), (40, 20, 513)]);
    for (x, (m, n, k)) in shapes.into_iter().enumerate() {
        for (ta, tb) in TRANSPOSES {
            let product = HardProduct::new(HardMatrices::Random, m, n, k, ta, tb);
            let vectors = product.on_vectors();
            let precision = PRECISIONS[x % PRECISIONS.len()];
            let tiles = twin(precision);
            let stored = product.run(product.gemm(tiles), false, false);
            let what = format!("{m}×{n}×{k} {precision} {ta} {tb}");
            assert_eq!(stored, product.run(product.gemm(tiles), true, true), "{what}");
            assert_eq!(stored.1, vectors.1, "{what}: sums of B");
            let (most, part) = product.errors(&stored.0, bound(precision, Additions::Chains, k), 2.0);
            assert!(part <= 1.0, "{what}: {most} u");
        }
    }
}

/// Transposed storage is the same product: the same bits.
#[test]
fn bits_do_not_depend_on_the_layout() {
    for precision in PRECISIONS {
        let bits =
            TRANSPOSES.map(|(ta, tb)| HardProduct::new(HardMatrices::Wide, 70, 50, 600, ta, tb).on(twin(precision)));
        assert!(bits.iter().all(|b| *b == bits[0]), "{precision}");
    }
}

/// Componentwise errors of products that are hard, beside those of one chain in f32. Prints the table of the book.
#[test]
fn componentwise_errors() {
    println!("largest |C − exact| in units of 2⁻²⁴ Σ|a·b|; [64, k]·[k, 64]\n");
    println!("| matrices | k | f32 chain | bound | f32 on tiles | bound | bf16x3 | bound | bf16 | bound |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for case in CASES {
        for k in [32, 200, 1700] {
            let product = HardProduct::new(case, 64, 64, k, false, false);
            // The chain keeps denormal results, to half of the least of them at every addition.
            let chain = product.errors(&product.on_vectors().0, k as f64, 1e-3);
            let mut line = format!("| {case:?} | {k} | {:.3} | {k} |", chain.0);
            assert!(chain.1 <= 1.0, "{case:?}, {k}: the chain itself");
            for precision in PRECISIONS {
                let bound = bound(precision, Additions::Chains, k);
                let found = product.run(product.gemm(twin(precision)), false, false).0;
                let (most, part) = product.errors(&found, bound, 2.0);
                assert!(part <= 1.0, "{case:?}, {k}, {precision}: {most} u, {part} of the bound");
                if precision == Precision::F32 {
                    assert!(k < EXACT_FROM || bound <= k as f64, "f32 has the smaller bound: {bound}, {k}");
                    assert!(
                        case != HardMatrices::Random || k < 200 || most <= chain.0,
                        "{k}: {most}, the chain {}",
                        chain.0
                    );
                }
                line += &format!(" {most:.3} | {bound:.1} |");
            }
            println!("{line}");
        }
    }
}

/// Infinities and NaN where one chain in f32 has them, and nowhere else.
#[test]
fn infinities_and_nan_go_through_as_in_f32() {
    let (m, n, k) = (40, 36, 70);
    let mut product = HardProduct::new(HardMatrices::Random, m, n, k, false, false);
    for (row, p, x) in [
        (1, 3, f32::INFINITY),
        (2, 40, f32::NEG_INFINITY),
        (3, 69, f32::NAN),
        (4, 5, f32::INFINITY),
        (4, 6, f32::NEG_INFINITY),
        (35, 0, 3.4e38),
    ] {
        product.a[row * k + p] = x;
    }
    for (col, p, x) in [(0, 3, 0.0), (5, 40, f32::INFINITY), (33, 3, f32::NEG_INFINITY), (7, 1, f32::NAN), (8, 0, 0.0)]
    {
        product.b[col * k + p] = x;
    }
    // What bf16 takes for an infinity is one.
    let mut clipped = HardProduct { a: product.a.clone(), b: product.b.clone(), ..product };
    clipped.a.iter_mut().filter(|x| **x == 3.4e38).for_each(|x| *x = f32::INFINITY);
    let expected = clipped.on_vectors().0;
    for precision in PRECISIONS {
        let found = product.run(product.gemm(twin(precision)), false, false).0;
        for (x, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = if expected.is_finite() { found.is_finite() } else { found.to_string() == expected.to_string() };
            assert!(same, "{precision}: C[{}, {}] is {found}, in f32 {expected}", x / n, x % n);
        }
    }
    assert!(expected.iter().any(|x| x.is_nan()) && expected.contains(&f32::INFINITY));
}

/// The probe tells the orders of additions apart, and a unit whose factors are swapped from one that rounds
/// differently.
#[test]
fn the_probe_tells_units_apart() {
    for additions in Additions::ALL {
        let found = ask(|terms, bands, sums| twin::accumulate(additions, Isa::detect(), terms, bands, sums));
        assert_eq!(found, Finding::Adds(additions));
    }
    let chains = |terms, bands: &Bands<'_>, sums: &mut TileSums| {
        twin::accumulate(Additions::Chains, Isa::detect(), terms, bands, sums);
    };
    let swapped = |terms, bands: &Bands<'_>, sums: &mut TileSums| {
        chains(terms, &Bands { a: bands.b, b: bands.a, ..*bands }, sums)
    };
    assert_eq!(ask(swapped), Finding::Wrong);
    let short = |terms, bands: &Bands<'_>, sums: &mut TileSums| chains(terms, &Bands { steps: 1, ..*bands }, sums);
    assert_eq!(ask(short), Finding::Wrong);
    let truncating = |terms, bands: &Bands<'_>, sums: &mut TileSums| {
        chains(terms, bands, sums);
        sums.0.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits() & !1));
    };
    assert_eq!(ask(truncating), Finding::RoundsOtherwise);
}

/// On a processor with AMX: its products are those of its twin, bit for bit, or, if its additions are of no known
/// order, within the loosest of the bounds.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn a_unit_has_the_bits_of_its_twin() {
    let unit = match (TileUnit::amx(), unit::finding()) {
        (Ok(unit), _) => unit,
        (Err(why), Ok(Finding::RoundsOtherwise)) => {
            println!("NOTE: {why}; its products are compared with f64 instead");
            TileUnit::Amx(Additions::Serial)
        }
        (Err(why), Ok(Finding::Wrong)) => panic!("{why}"),
        (Err(why), _) => return println!("skipped: {why}"),
    };
    let known = TileUnit::amx().is_ok();
    for case in CASES {
        for precision in PRECISIONS {
            for (m, n, k) in [(16, 16, 32), (1, 1, 1), (33, 65, 100), (128, 400, 784), (50, 70, 1700)] {
                let product = HardProduct::new(case, m, n, k, true, false);
                let [on_unit, on_twin] = [unit, TileUnit::Twin(unit.additions())]
                    .map(|unit| product.run(product.gemm(Tiles::on(unit, precision).unwrap()), false, false).0);
                assert!(!known || on_unit == on_twin, "{case:?}, {precision}, {m}×{n}×{k}");
                let (most, part) = product.errors(&on_unit, bound(precision, unit.additions(), k), 2.0);
                assert!(part <= 1.0, "{case:?}, {precision}, {m}×{n}×{k}: {most} u");
            }
        }
    }
}
