//! The command with further stochastic layers, likelihoods and bounds: trained, interrupted, resumed, evaluated, refused.

#![cfg(feature = "cli")]

#[path = "common/command.rs"]
mod command;

use command::{elbo, succeeds};

const TINY: &str = "train --train-size 200 --test-size 40 --batch 40 --hidden 20 --latent 3 --device cpu --quiet";

/// A run in one go and the same run in three pieces write the same bytes, and the checkpoint can be used.
#[test]
fn every_kind_of_run_is_resumed_to_the_byte_and_can_be_used() {
    let at = tempfile::tempdir().unwrap();
    let kinds = [
        ("--bound iwae --samples 4 --estimator doubly_reparameterised --binarisation dynamic", "dynamic pixels"),
        (
            "--upper 8:2:9 --spread log_sigma --bound iwae --samples 3 --init glorot-equal",
            "784-20-3-20-784 + 3-8-2-9-3",
        ),
        ("--upper 8:2:9 --upper :4: --spread bounded_log_variance", "+ 2-4-2"),
        ("--likelihood gaussian-optimal", "optimal sigma"),
        ("--likelihood gaussian-shared --free-bits 0.1", "one sigma"),
        ("--likelihood continuous-bernoulli", "continuous"),
        ("--likelihood discretised-logistic", "bits per dimension"),
        ("--estimator score_function_baseline --samples 2", "grey pixels"),
    ];
    for (i, (kind, word)) in kinds.into_iter().enumerate() {
        let (whole, parts) = (format!("{i}w"), format!("{i}p"));
        let text = succeeds(at.path(), &format!("{TINY} {kind} --epochs 2 --out {whole}"));
        let plan = succeeds(at.path(), &format!("plan --hidden 20 --latent 3 --batch 4 {kind}"));
        assert!(text.contains(word) || plan.contains(word), "{kind}: {text}{plan}");
        succeeds(at.path(), &format!("{TINY} {kind} --epochs 2 --out {parts} --pause-at 3"));
        succeeds(at.path(), &format!("train --resume {parts} --quiet --device cpu --threads 1 --pause-at 7"));
        succeeds(at.path(), &format!("train --resume {parts} --quiet --device cpu"));
        for file in ["checkpoint.safetensors", "metrics.jsonl", "config.json"] {
            let read = |run: &str| std::fs::read(at.path().join(run).join(file)).unwrap();
            assert_eq!(read(&whole), read(&parts), "{kind}: {file}");
        }
        let evaluated = succeeds(at.path(), &format!("eval {whole} --device cpu"));
        assert_eq!(evaluated.lines().next(), text.lines().next(), "{kind}");
        succeeds(at.path(), &format!("sample {whole} --count 4 --out {i}.png --device cpu"));
        succeeds(at.path(), &format!("reconstruct {whole} --count 4 --out {i}r.png --device cpu"));
    }
}

/// What takes N(0, I) for the prior of the lowest layer is not said of models where it is another.
#[test]
fn several_layers_are_reported_layer_by_layer() {
    let at = tempfile::tempdir().unwrap();
    succeeds(at.path(), &format!("{TINY} --upper 8:2:9 --epochs 1 --out deep"));
    let text = succeeds(at.path(), "eval deep --device cpu --estimators iwae --samples 20 --images 10");
    assert!(
        text.contains("stochastic layer 1, from below: ") && text.contains("stochastic layer 2, from below: "),
        "{text}"
    );
    assert!(!text.contains("KL, nats"), "{text}");
    for command in ["richness deep --device cpu", "richness --latents 1,2 --upper 8:2:9 --device cpu"] {
        let out = elbo(at.path(), command);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            out.status.code() == Some(2) && text.contains("stochastic layers") && text.contains("found 2"),
            "{text}"
        );
    }
}

/// Nothing is computed before all of the command is known to make sense.
#[test]
fn estimates_are_checked_before_they_are_begun() {
    let at = tempfile::tempdir().unwrap();
    succeeds(at.path(), &format!("{TINY} --epochs 1 --out run"));
    let wrong = [
        ("--estimators iwae,quadrature", "latent dimensions"),
        ("--estimators iwae --images 41", "images"),
        ("--estimators iwae --samples 0", "samples"),
        ("--estimators iwae --bdmc 0", "bdmc"),
    ];
    for (more, field) in wrong {
        let out = elbo(at.path(), &format!("eval run --device cpu {more}"));
        let (said, text) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr).into_owned());
        assert!(out.status.code() == Some(2) && text.contains(field) && said.is_empty(), "{more}: {said}{text}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused_with_the_remedy() {
    let at = tempfile::tempdir().unwrap();
    let wrong: [(&str, i32, &[&str]); 12] = [
        ("--bound iwae --kl analytic", 2, &["kl", "analytic", "monte_carlo"]),
        ("--upper 8:2:8 --kl analytic", 2, &["kl", "stochastic layers"]),
        ("--upper 8:2", 2, &["--upper", "WIDTHS:K:WIDTHS"]),
        ("--upper 8:0:8", 2, &["latent of an upper layer", "found 0"]),
        ("--samples 0", 2, &["samples", "found 0"]),
        ("--bound vae", 2, &["--bound", "elbo, iwae"]),
        ("--estimator stl", 2, &["--estimator", "sticking_the_landing"]),
        ("--estimator score_function --bound iwae", 2, &["estimator", "elbo only"]),
        ("--estimator doubly_reparameterised", 2, &["estimator", "sticking_the_landing"]),
        ("--free-bits -1", 2, &["free bits", "found -1"]),
        ("--bound iwae --free-bits 1", 2, &["free bits", "closed form"]),
        ("--likelihood continuous-bernoulli --binarisation dynamic", 2, &["binarisation", "grey"]),
    ];
    for (more, code, words) in wrong {
        let out = elbo(at.path(), &format!("{TINY} {more}"));
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{more}: {text}");
        assert!(words.iter().all(|w| text.contains(w)), "{more}: {text}");
    }
    assert!(std::fs::read_dir(at.path()).unwrap().next().is_none(), "a refused run leaves nothing behind");
}
