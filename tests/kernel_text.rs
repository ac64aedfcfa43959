//! The kernels' text against the crate's: the numbers of functions in a program that the host writes are the positions in
//! the lists that the kernels are compiled from, and a kernel is launched by the room of its name. No GPU is needed.

use std::path::{Path, PathBuf};

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

/// The text of a room: src/engine/steps/NAME.rs, or the files of the folder NAME.
fn room(name: &str) -> Option<String> {
    let steps = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/steps");
    let entries = std::fs::read_dir(steps.join(name)).into_iter().flatten();
    let files = entries.map(|e| e.unwrap().path()).chain([steps.join(name).with_extension("rs")]);
    let texts: Vec<String> = files.filter_map(|file: PathBuf| std::fs::read_to_string(file).ok()).collect();
    (!texts.is_empty()).then(|| texts.concat())
}

/// Every kernel of kernels/NAME.cu stands by its name in the room NAME of src/engine/steps, which launches it.
#[test]
fn kernels_are_launched_by_their_room() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let Some(room) = room(&name).filter(|_| path.extension().is_some_and(|e| e == "cu")) else { continue };
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| line.starts_with("ELBO_KERNEL")) {
            let kernel = line.split(['(', ',']).nth(1).unwrap();
            // The clock's own kernel, for plans whose last step does not move it on.
            assert!(kernel == "tick" || room.contains(&format!("\"{kernel}\"")), "{kernel} of {name}.cu");
            seen.push(kernel.to_string());
        }
    }
    for kernel in ["batch", "move_elements", "adam", "reduce_cols", "softmax_rows", "softmax_grad_rows"] {
        assert!(seen.iter().any(|name| name == kernel), "{kernel} is not among {seen:?}");
    }
}

/// A kernel of a plan waits for the launches before (`begin_launch`, kernels/ptx.cuh) in its first statement, or rows.cu, which copies weights
/// before, in its second: before that it may name its shared memory and nothing else. The emulator finds threads that do not wait at all.
#[test]
fn kernels_of_plans_wait_before_anything_else() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let read = |name: &str| std::fs::read_to_string(kernels.join(name)).unwrap();
    let first_statement = |text: &str, from: usize| -> String {
        let body = text[from..].split_once("{\n").expect("a body").1;
        let is_shared = |line: &&str| line.trim_start().starts_with("ELBO_SHARED(");
        body.lines().find(|line| !is_shared(line)).unwrap().trim().to_string()
    };
    let mut seen = 0;
    for file in ["batch", "gemm", "layout", "optimize", "pointwise", "reduce", "rows", "scalars", "softmax"] {
        let text = read(&format!("{file}.cu"));
        for (at, _) in text.match_indices("\nELBO_KERNEL") {
            let first = first_statement(&text, at);
            let in_function = ["multiply_matrices<", "run_rows<"].iter().any(|function| first.starts_with(function));
            assert!(first == "begin_launch();" || in_function, "{file}.cu: {first}");
            seen += 1;
        }
    }
    assert!(seen >= 16, "{seen} kernels");
    for (file, function) in [("gemm_finish.cuh", "void multiply_matrices("), ("rows.cu", "void run_rows(")] {
        let text = read(file);
        let first = first_statement(&text, text.find(function).expect(function));
        // What it copies before, the emulator checks.
        let waits = first == "begin_launch();" || text.contains("    copy_ahead(p, shared);\n    begin_launch();\n");
        assert!(waits && (first == "copy_ahead(p, shared);") == (file == "rows.cu"), "{file}: {first}");
    }
}
