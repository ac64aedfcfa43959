//! The kernels' text against the tables of the crate: the numbers of functions in a program that the host writes are
//! the positions in the lists that the kernels are compiled from. No GPU is needed.

use elbo::engine::ops::{BinaryFn, ScalarFn};

/// The names in `#define list(X)`, a macro that applies X to one function per line: `X(name, value)`.
fn names<'t>(text: &'t str, list: &str) -> Vec<&'t str> {
    let start = text.find(&format!("#define {list}(X)")).unwrap_or_else(|| panic!("{list} is defined"));
    let mut lines = text[start..].lines();
    let mut continued = lines.next().is_some_and(|line| line.ends_with('\\'));
    let mut names = Vec::new();
    while continued {
        let line = lines.next().expect("a continued line");
        let function = line.trim().strip_prefix("X(").and_then(|rest| rest.split_once(','));
        names.push(function.unwrap_or_else(|| panic!("X(name, value) in {list}, not {line:?}")).0);
        continued = line.ends_with('\\');
    }
    names
}

#[test]
fn functions_have_the_numbers_of_the_crates_tables() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/scalar.cuh");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let scalar: Vec<&str> = ScalarFn::ALL.iter().map(|f| f.name()).collect();
    assert_eq!(names(&text, "ELBO_SCALAR_FUNCTIONS"), scalar);
    let binary: Vec<&str> = BinaryFn::ALL.iter().map(|f| f.name()).collect();
    assert_eq!(names(&text, "ELBO_BINARY_FUNCTIONS"), binary);
}
