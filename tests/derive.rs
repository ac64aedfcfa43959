//! `elbo derive` and `elbo gradcheck`, run as their users run them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn elbo(at: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_elbo")).current_dir(at).args(arguments).output().unwrap()
}

/// The standard output of a run that must succeed.
fn succeeds(at: &Path, arguments: &[&str]) -> String {
    let output = elbo(at, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a run that must end with 2 says on stderr.
fn refused(at: &Path, arguments: &[&str]) -> String {
    let output = elbo(at, arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

const BCE: [&str; 4] = ["derive", "softplus(l) - x*l", "--at", "l=2,x=1"];

#[test]
fn derive_prints_tape_walk_and_check() {
    let at = tempfile::tempdir().unwrap();
    let text = succeeds(at.path(), &[&BCE[..], &["--order", "2"]].concat());
    for words in ["v1  softplus(l)", "2.12693", "dx = dy * x.sigmoid()", "dv1 * l.sigmoid()", "sum -0.119203", "∂y/∂l"]
    {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    // σ(2) σ(−2), the second derivative.
    let slope = |line: &str| line.trim_start().starts_with("dl ") && line.ends_with("0.104994");
    assert!(text.lines().any(slope), "{text}");
}

#[test]
fn derive_lists_what_is_built_in_and_derives_each() {
    let at = tempfile::tempdir().unwrap();
    let list = succeeds(at.path(), &["derive"]);
    for name in ["kl", "bce", "gaussian_nll", "logsumexp", "softmax", "matmul", "vae"] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} is not in\n{list}");
        let record: serde_json::Value =
            serde_json::from_str(&succeeds(at.path(), &["derive", name, "--json"])).unwrap();
        let leaves = record["leaves"].as_array().unwrap();
        assert!(!leaves.is_empty() && leaves.iter().all(|leaf| leaf["error"].as_f64().unwrap() < 1e-6), "{record}");
    }
}

#[test]
fn derive_writes_a_page_and_a_picture() {
    let at = tempfile::tempdir().unwrap();
    succeeds(at.path(), &[&BCE[..], &["--html", "walk.html", "--svg", "graph.svg"]].concat());
    let page = fs::read_to_string(at.path().join("walk.html")).unwrap();
    let needed =
        ["<title>The chain rule on softplus(l) - x*l</title>", "function walk(", "aria-live", "id=\"derivation\""];
    needed.iter().for_each(|words| assert!(page.contains(words), "{words}"));
    // The name of a vocabulary is an address that nobody opens.
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("://"));
    let picture = fs::read_to_string(at.path().join("graph.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("v1 = softplus(l)") && picture.contains("d -0.119203"));
    assert!(refused(at.path(), &[&BCE[..], &["--svg", "graph.png"]].concat()).contains(".svg"));
}

#[test]
fn derive_says_where_an_expression_is_wrong() {
    let at = tempfile::tempdir().unwrap();
    let errors = refused(at.path(), &["derive", "softplus(l) - q(l)", "--at", "l=2"]);
    assert!(errors.contains("              ^ column 15") && errors.contains("functions: exp, "), "{errors}");
    assert!(refused(at.path(), &["derive", "x*y", "--at", "x=1"]).contains("--at \"y=…\""));
    assert!(refused(at.path(), &["gradcheck", "x @ x", "--at", "x=[1 2]"]).contains("column 3"));
    refused(at.path(), &["derive", "kl", "--order", "3"]);
}

#[test]
fn derive_gradcheck_shows_both_arms_of_the_v() {
    let at = tempfile::tempdir().unwrap();
    let text = succeeds(at.path(), &["gradcheck", "bce", "--svg", "v.svg"]);
    for words in ["theory h^2", "theory h^4", "theory h^-1", "derivatives are right", "▁"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let picture = fs::read_to_string(at.path().join("v.svg")).unwrap();
    assert!(picture.contains("h⁴, measured h^4.0") && picture.contains("second derivative"));
    let record: serde_json::Value = serde_json::from_str(&succeeds(at.path(), &["gradcheck", "kl", "--json"])).unwrap();
    assert_eq!(record["passes"], true);
    for order in record["orders"].as_array().unwrap() {
        for (stencil, power) in [("three_point", 2.0), ("five_point", 4.0)] {
            let arms = &order[stencil]["arms"];
            assert!((arms["truncation"]["slope"].as_f64().unwrap() - power).abs() < 0.2, "{arms}");
            assert!((arms["rounding"]["slope"].as_f64().unwrap() + 1.0).abs() < 0.3, "{arms}");
        }
    }
    // A parabola has no truncation, and says so.
    assert!(succeeds(at.path(), &["gradcheck", "x^2", "--at", "x=3"]).contains("truncation none to see"));
    // At a kink nothing is decided.
    assert!(succeeds(at.path(), &["gradcheck", "abs(x)", "--at", "x=0"]).contains("not decided, at a kink"));
}
