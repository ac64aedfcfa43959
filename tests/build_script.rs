//! What the build script does to find nvcc and to read its output, on machines that are only described; and whether the
//! kernels that it compiled are good ones.

#[allow(dead_code)]
#[path = "../build/find.rs"]
mod find;
#[allow(dead_code)]
#[path = "../build/kernels.rs"]
mod kernels;
#[allow(dead_code)]
#[path = "../build/nvcc.rs"]
mod nvcc;
#[allow(dead_code)]
#[path = "../build/wasm.rs"]
mod wasm;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use elbo::engine::device::cuda::images;

/// Local memory lies in the GPU's: there go registers that did not fit, arrays that are indexed with what only the run knows,
/// parameter structs that were copied, and nobody sees it in the source. On the architectures of kernels/table.json
/// scripts/kernel_report.py refuses it; here are the others.
#[test]
fn no_kernel_uses_local_memory_where_the_table_has_no_limits() {
    if let Err(reason) = images::toolkit() {
        println!("skipped: there are no kernels: {reason}");
        return;
    }
    assert!(!images::kernels().is_empty());
    let table = include_str!("../kernels/table.json");
    let others = images::kernels().iter().filter(|kernel| !table.contains(&format!("\"{}\"", kernel.architecture)));
    let bad = others.filter(|kernel| kernel.stack + kernel.spill_stores + kernel.spill_loads > 0);
    let bad: Vec<String> = bad.map(|kernel| format!("{kernel:?}")).collect();
    assert!(bad.is_empty(), "local memory:\n{}", bad.join("\n"));
}

#[test]
fn every_kernel_file_became_an_image_for_every_architecture() {
    let Ok(toolkit) = images::toolkit() else {
        println!("skipped: there are no kernels");
        return;
    };
    let sources = kernels::sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")).unwrap();
    for source in sources.iter().filter(|source| !nvcc::gencode(&source.name, toolkit.architectures).is_empty()) {
        let image = images::images().iter().find(|image| image.name == source.name);
        let image = image.unwrap_or_else(|| panic!("{} has no image", source.name));
        assert_eq!(image.bytes[..4], [0x50, 0xed, 0x55, 0xba], "{} is no fat binary", source.name);
        assert_eq!(image.bytes.as_ptr() as usize % 16, 0, "{} is aligned", source.name);
        let here = || images::kernels().iter().filter(|kernel| kernel.image == source.name);
        let names: BTreeSet<&str> = here().map(|kernel| kernel.kernel).collect();
        let architectures: BTreeSet<&str> = here().map(|kernel| kernel.architecture).collect();
        let expected = if source.name.ends_with("_sm90a") { 1 } else { toolkit.architectures.len() };
        assert_eq!(architectures.len(), expected, "{}: {architectures:?}", source.name);
        assert_eq!(here().count(), names.len() * expected, "{}: a kernel for each architecture", source.name);
    }
}

#[test]
fn a_kernel_file_is_read_with_the_headers_it_includes_and_no_others() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir(at.path().join("dev")).unwrap();
    for (name, text) in [
        ("a.cuh", "#pragma once\n#include \"b.cuh\"\n"),
        ("b.cuh", "#include \"a.cuh\"\n// b\n"),
        ("c.cuh", "// c\n"),
        ("one.cu", "#include \"a.cuh\"\n#include <stdint.h>\n// one\n"),
        ("dev/two.cu", "  #include \"c.cuh\"\n#include \"none.cuh\"\n// two\n"),
    ] {
        fs::write(at.path().join(name), text).unwrap();
    }
    let sources = kernels::sources(at.path()).unwrap();
    let of = |name: &str| &sources.iter().find(|source| source.name == name).unwrap().text;
    assert_eq!(sources.len(), 2);
    assert!(of("one").contains("// one") && of("one").contains("// b") && !of("one").contains("// c"));
    assert!(of("dev/two").contains("// two") && of("dev/two").contains("// c") && !of("dev/two").contains("// b"));
    assert_eq!(of("one").matches("// b").count(), 1);
    assert!(kernels::sources(&at.path().join("nowhere")).unwrap().is_empty());
}

#[test]
fn the_engine_for_pages_is_built_where_it_is_wanted() {
    use wasm::{Wanted, wanted};
    let release = |asked, required| wanted(asked, required, false).unwrap();
    assert_eq!([release(None, false), release(Some("auto"), false)], [Wanted::IfPossible, Wanted::IfPossible]);
    assert!(matches!(release(Some("off"), false), Wanted::No(reason) if reason.contains("ELBO_WASM")));
    assert!(matches!(wanted(None, false, true).unwrap(), Wanted::No(reason) if reason.contains("ELBO_WASM=on")));
    assert_eq!(wanted(Some("on"), false, true).unwrap(), Wanted::IfPossible);
    assert_eq!(wanted(None, true, true).unwrap(), Wanted::Required);
    assert_eq!(release(Some("a/b.wasm"), true), Wanted::Given("a/b.wasm".into()));
    assert!(wanted(Some("off"), true, false).unwrap_err().contains("contradict"));
    assert!(wanted(Some("maybe"), false, false).unwrap_err().contains("maybe"));
}

/// The cargo within must not take the outer one's flags, folders and wrappers for its own; it needs its registry and its
/// home.
#[test]
fn the_cargo_within_sees_no_variables_of_the_cargo_without() {
    for name in
        ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR", "OUT_DIR", "TARGET"]
    {
        assert!(wasm::is_kept_out(name), "{name}");
    }
    assert!(wasm::is_kept_out("CARGO_FEATURE_CLI") && wasm::is_kept_out("CARGO_PROFILE_TEST_OPT_LEVEL"));
    for name in ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_REGISTRIES_CRATES_IO_PROTOCOL", "PATH", "HOME", "RUSTC"] {
        assert!(!wasm::is_kept_out(name), "{name}");
    }
    assert_eq!(wasm::last_lines("a\n\nb\n  c\nd\n"), "b; c; d");
    assert_eq!(wasm::last_lines(""), "");
    let flags = wasm::flags(&[("/some/where".into(), "elbo")]);
    assert_eq!(flags, "-Ctarget-feature=+simd128\x1f--remap-path-prefix=/some/where=elbo");
}
