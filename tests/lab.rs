//! `elbo lab`, run as its users run it, and what it finds against closed forms.
#![cfg(feature = "cli")]

#[path = "common/command.rs"]
mod command;

use std::fs;

use command::elbo;
use elbo::Cpu;
use elbo::engine::device::Executor;
use elbo::study::lab::{Cell, ContestantLine, LabOptions, LabReport, Network, Regime, known};
use elbo::vae::watch::Watch;
use elbo::vae::{BoundKind, Estimator, KlTerm};
use serde_json::Value;

fn measure(distances: &[f64], samples: &[usize], draws: usize) -> LabReport {
    let options = LabOptions { samples: samples.to_vec(), draws, seed: 7 };
    known(&Executor::new(Cpu::new(1)), distances, &options, &Watch::default()).unwrap()
}

fn line(report: &LabReport, place: usize, bound: BoundKind, estimator: Estimator) -> &ContestantLine {
    let wanted = |line: &&ContestantLine| {
        let c = line.contestant;
        c.bound == bound && c.estimator == estimator && c.kl == KlTerm::MonteCarlo && c.side == Network::Encoder
    };
    report.places[place].lines.iter().find(wanted).unwrap()
}

#[test]
fn means_and_noise_are_the_exact_ones_and_a_bias_is_seen() {
    let report = measure(&[0.5, 1.5], &[1, 4, 16], 1000);
    let mut cells = 0;
    for line in report.places.iter().flat_map(|place| &place.lines) {
        for cell in &line.cells {
            let name = format!("{} {} k = {}", line.contestant.bound_name(), line.contestant.name(), cell.k);
            let (worst, exact) = (cell.worst.unwrap(), cell.exact_noise.unwrap());
            assert!(worst < 5.0, "{name}: a component of the mean is {worst} standard errors off");
            // The jackknife of 20 groups knows its own error to a sixth, and heavy tails hide from it: six, and 3 %.
            let allowed = 6.0 * cell.noise.standard_error + 0.03 * exact;
            assert!((cell.noise.value - exact).abs() < allowed, "{name}: noise {:?}, exact {exact}", cell.noise);
            if line.contestant.is_biased(cell.k) {
                let bias = cell.bias.unwrap();
                assert!(
                    bias.value > 5.0 * bias.standard_error && cell.worst_bias.unwrap() > 5.0,
                    "{name}: {bias:?} is not seen"
                );
            }
            cells += 1;
        }
    }
    assert_eq!(cells, 2 * 9 * 3);
}

#[test]
fn at_the_posterior_sticking_the_landing_has_no_noise_and_the_total_derivative_all_of_it() {
    let report = measure(&[0.0], &[1, 8], 100);
    let noise = |bound, estimator| line(&report, 0, bound, estimator).cells.iter().map(|c| c.noise.value);
    let landing =
        [(BoundKind::Elbo, Estimator::StickingTheLanding), (BoundKind::Iwae, Estimator::DoublyReparameterised)];
    for (bound, estimator) in landing {
        assert!(
            noise(bound, estimator).all(|n| n < 1e-5),
            "{estimator}: {:?}",
            noise(bound, estimator).collect::<Vec<_>>()
        );
    }
    assert!(noise(BoundKind::Elbo, Estimator::Total).all(|n| n > 1.0));
    // Without a signal there is no ratio, no slope and no direction of a bias.
    let lines = &report.places[0].lines;
    let encoder = lines.iter().filter(|l| l.contestant.side == Network::Encoder);
    assert!(
        encoder.clone().all(|l| l.slopes.is_empty() && l.cells.iter().all(|c| c.bias.is_none() && c.ratio.is_none()))
    );
}

#[test]
fn slopes_are_as_predicted_in_both_regimes() {
    // The law of the doubly reparameterised gradient comes late: at χ² = 0.08 it is there from k = 4 on, at 0.6 not yet at 64.
    let report = measure(&[0.2, 3.0], &[4, 16, 64], 400);
    let slope = |place: usize, estimator, regime| {
        let slopes = &line(&report, place, BoundKind::Iwae, estimator).slopes;
        *slopes.iter().find(|slope| slope.regime == regime).unwrap()
    };
    for (place, regime) in [(0, Regime::After), (1, Regime::Before)] {
        for estimator in [Estimator::Total, Estimator::DoublyReparameterised, Estimator::StickingTheLanding] {
            let found = slope(place, estimator, regime);
            let (measured, exact) = (found.measured, found.exact.unwrap());
            let off = (measured.value - exact).abs();
            assert!(off < 5.0 * measured.standard_error + 0.02, "{estimator}, {regime:?}: {measured:?}, exact {exact}");
        }
    }
    let [total, doubly] = [Estimator::Total, Estimator::DoublyReparameterised].map(|e| slope(0, e, Regime::After));
    assert!((total.measured.value + 0.5).abs() < 0.1 && total.law == Some(-0.5), "{total:?}");
    assert!((doubly.measured.value - 0.5).abs() < 0.1 && doubly.law == Some(0.5), "{doubly:?}");
    // For k ≪ χ² no root of k helps: the ratio of the doubly reparameterised gradient falls too.
    assert!(slope(1, Estimator::DoublyReparameterised, Regime::Before).measured.value < 0.0);
    let positive = |cell: &Cell| cell.seconds > 0.0 && cell.time_to_see().unwrap() > 0.0;
    assert!(report.places.iter().flat_map(|p| &p.lines).all(|l| l.cells.iter().all(positive)));
}

#[test]
fn tables_picture_and_json_come_from_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let small = "lab --samples 2,1 --draws 40 --distances 0,1 --device cpu --threads 1 --seed 3";
    let output = elbo(at, &format!("{small} --svg new/lab.svg"));
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{errors}");
    for part in [
        "q is the posterior",
        "χ²",
        "sticking the landing *",
        "doubly reparameterised",
        "µs per step",
        "least variance",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let svg = fs::read_to_string(at.join("new/lab.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("signal-to-noise ratio") && svg.contains("q is the posterior"));

    let mut file: Value = serde_json::from_slice(&elbo(at, &format!("{small} --json")).stdout).unwrap();
    assert_eq!((file["places"].as_array().unwrap().len(), &file["samples"]), (2, &serde_json::json!([1, 2])));

    let mut again: Value = serde_json::from_slice(&elbo(at, &format!("{small} --json")).stdout).unwrap();
    // All but the times is a function of the seed.
    let untimed = |value: &mut Value| {
        for place in value["places"].as_array_mut().unwrap() {
            for line in place["lines"].as_array_mut().unwrap() {
                line["cells"].as_array_mut().unwrap().iter_mut().for_each(|cell| cell["seconds"] = Value::Null);
            }
        }
    };
    untimed(&mut file);
    untimed(&mut again);
    assert_eq!(file, again);
}

#[test]
fn a_trained_run_is_measured_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let train = "train --train-size 200 --test-size 20 --hidden 8 --latent 2 --epochs 1 --out run --device cpu --quiet";
    assert!(elbo(at, train).status.success());
    let output = elbo(at, "lab run --samples 1,2 --draws 40 --batch 3 --device cpu --svg lab.svg");
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{errors}");
    for part in ["784-8-2-8-784", "3 images", "q as it was trained", "ms per step", "L_k  total"] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    assert!(!text.contains("(exact)") && at.join("lab.svg").is_file());
    let refused = elbo(at, "lab run --samples 1,2 --draws 40 --svg run/checkpoint.safetensors.svg --batch 21");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("from 1 to 20"));
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        ("lab --draws 39", "from 40"),
        ("lab --samples 0,1", "from 1 to 10000"),
        ("lab --samples 1,2,3,4,5,6,7,8,9", "1 to 8 different"),
        ("lab --samples many", "many"),
        ("lab --distances 7", "from 0 to 6"),
        ("lab --distances=-1", "from 0 to 6"),
        ("lab --batch 4", "RUN"),
        ("lab run --distances 1", "cannot be used with"),
        ("lab --svg picture.png", "ends in .svg"),
    ] {
        let output = elbo(folder.path(), arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {errors}");
        assert!(errors.contains(part) && output.stdout.is_empty(), "{arguments}: {errors}");
    }
    let missing = elbo(folder.path(), "lab nowhere");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("nowhere"));
}
