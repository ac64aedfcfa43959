//! Every stream of random numbers that the crate draws from, in one place.
//!
//! Two draws under one (seed, step) with one stream are the same numbers, so whatever is drawn in the same run needs a
//! stream of its own. The numbers are part of the results: changing one changes every bit that was drawn from it. A
//! graph of a user's own may use any that does not stand here.
//!
//! Estimates of one run are kept apart by their seeds instead, counted from `evaluation_seed`: + 1 and + 2 are
//! importance samples from q and from the prior, + 10 simulated images, from + 100 on three for each block of annealing. So
//! estimates of seeds s and s + 1 may share numbers: to repeat one independently, take a seed a few thousand further.

pub(crate) use crate::engine::rng::OPERANDS;

/// ε of z = μ + σ·ε, one per stochastic layer from below. The first is that of the usual model; the others came later,
/// behind those of a step.
pub(crate) const LATENT: [u32; 8] = [1, 17, 18, 19, 20, 21, 22, 23];
/// Pixels of a batch under dynamic binarisation.
pub(crate) const BATCH_PIXELS: u32 = 2;
/// z ~ p(z) of new images: the topmost layer, and those below in the streams after it.
pub(crate) const PRIOR: u32 = 3;
/// Which points of a posterior on a grid are drawn: high and low bits in a stream each.
pub(crate) const GRID_POINTS: u32 = 40;
/// Which draws are taken by their weights.
pub(crate) const RESAMPLING: u32 = 42;
/// Pixels of simulated images.
pub(crate) const SIMULATED_PIXELS: u32 = 43;
/// Pixels of images that are thrown from given points z.
pub(crate) const THROWN_PIXELS: u32 = 44;
/// Inputs with which exported networks are compared.
#[cfg(any(test, feature = "cli"))]
pub(crate) const CHECK_VALUES: u32 = 45;
/// Momentum of Hamiltonian Monte Carlo, one per stochastic layer.
pub(crate) const MOMENTUM: u32 = 50;
/// Whether its transitions are accepted.
pub(crate) const ACCEPTANCE: u32 = 60;
/// The draws of z behind the decomposition of the KL term and behind Bayes' rule.
pub(crate) const SURGERY: u32 = 0x51C4_0001;
/// Pixels of images that are binarised once: the training set, and the test set in the next.
pub(crate) const FIXED_PIXELS: u32 = 0xB17A_5E00;
/// The hand that draws the built-in digits.
pub(crate) const HAND: u32 = 0xD161_7500;
/// The order of their labels.
pub(crate) const LABELS: u32 = 0xD161_7501;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::PARAMETERS;
    use std::path::Path;

    /// (name, first, how many).
    const RANGES: [(&str, u32, u32); 17] = [
        ("OPERANDS", OPERANDS, 1),
        ("LATENT of the lowest layer", LATENT[0], 1),
        ("LATENT of the others", LATENT[1], LATENT.len() as u32 - 1),
        ("BATCH_PIXELS", BATCH_PIXELS, 1),
        ("PRIOR", PRIOR, LATENT.len() as u32),
        ("GRID_POINTS", GRID_POINTS, 2),
        ("RESAMPLING", RESAMPLING, 1),
        ("SIMULATED_PIXELS", SIMULATED_PIXELS, 1),
        ("THROWN_PIXELS", THROWN_PIXELS, 1),
        ("CHECK_VALUES", CHECK_VALUES, 1),
        ("MOMENTUM", MOMENTUM, LATENT.len() as u32),
        ("ACCEPTANCE", ACCEPTANCE, 1),
        ("PARAMETERS", PARAMETERS, 0x1000),
        ("SURGERY", SURGERY, 1),
        ("FIXED_PIXELS", FIXED_PIXELS, 2),
        ("HAND", HAND, 1),
        ("LABELS", LABELS, 1),
    ];

    #[test]
    fn no_two_uses_share_a_stream() {
        assert!(LATENT[1..].windows(2).all(|pair| pair[0] + 1 == pair[1]));
        let mut sorted = RANGES;
        sorted.sort_by_key(|(_, first, _)| *first);
        for pair in sorted.windows(2) {
            let ((a, first, count), (b, next, _)) = (pair[0], pair[1]);
            assert!(first + count <= next, "{a} ({first}, {count} of them) runs into {b} ({next})");
        }
        let text = include_str!("streams.rs");
        let declared = text.lines().filter_map(|l| l.strip_prefix("pub(crate) const ")?.split(':').next());
        for name in declared {
            assert!(RANGES.iter().any(|(known, ..)| known.split(' ').next() == Some(name)), "{name} is not compared");
        }
    }

    /// Numbers of streams outside tests stand in this file alone.
    #[test]
    fn nobody_else_picks_a_number() {
        fn check(folder: &Path, picked: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    check(&path, picked);
                } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().unwrap() != "streams.rs" {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]").next().unwrap();
                    let number = |rest: &str| rest.trim_start().starts_with(|c: char| c.is_ascii_digit());
                    let picks = |line: &str| {
                        line.contains("STREAM") && line.contains("const ") || line.split("stream: ").skip(1).any(number)
                    };
                    picked.extend(text.lines().filter(|l| picks(l)).map(|l| format!("{}: {l}", path.display())));
                }
            }
        }
        let mut picked = Vec::new();
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut picked);
        assert!(picked.is_empty(), "streams belong into vae/streams.rs:\n{}", picked.join("\n"));
    }
}
