//! The engine for pages: the crate `explore/` compiled to WebAssembly by a cargo of its own, for `elbo explore` to write
//! into its files.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What it is compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// The profile in Cargo.toml.
const PROFILE: &str = "wasm";

/// What the module is made of, below the project's folder: all of the library but its commands.
pub const SOURCES: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "explore/Cargo.toml",
    "explore/src",
    "src/lib.rs",
    "src/data",
    "src/engine",
    "src/train",
    "src/vae",
];
/// What else it is made of: the floor `study` has much that is in no module.
pub const STUDY: [&str; 7] = [
    "src/study/mod.rs",
    "src/study/derive.rs",
    "src/study/derive",
    "src/study/explore.rs",
    "src/study/explore",
    "src/study/page.rs",
    "src/study/page",
];

/// Whether the module is to be built.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// No, for this reason.
    No(&'static str),
    /// It is there already: the file of an earlier build.
    Given(PathBuf),
    /// If the target is installed and the cargo within succeeds.
    IfPossible,
    /// Or else the build fails.
    Required,
}

/// What `ELBO_WASM` and `ELBO_REQUIRE_WASM` ask for. A debug build has none of itself: its author changes the library all the
/// time, and the module takes a minute.
pub fn wanted(asked: Option<&str>, required: bool, debug: bool) -> Result<Wanted, String> {
    match (asked, required) {
        (Some("off"), true) => Err("ELBO_WASM=off and ELBO_REQUIRE_WASM=1 contradict each other".into()),
        (Some("off"), false) => Ok(Wanted::No("ELBO_WASM was off when it was built")),
        (None | Some("auto" | "on"), true) => Ok(Wanted::Required),
        (Some("on"), false) => Ok(Wanted::IfPossible),
        (Some(file), _) if file.ends_with(".wasm") => Ok(Wanted::Given(file.into())),
        (None | Some("auto"), false) if debug => {
            Ok(Wanted::No("it is a debug build, which has the engine for pages only with ELBO_WASM=on"))
        }
        (None | Some("auto"), false) => Ok(Wanted::IfPossible),
        (Some(other), _) => {
            Err(format!("ELBO_WASM=\"{other}\": expected off, on, a file .wasm, or auto as when it is not set"))
        }
    }
}

/// Whether this compiler has the target's standard library.
pub fn is_installed(rustc: &str) -> bool {
    let ran = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let folder = ran.ok().filter(|ran| ran.status.success()).and_then(|ran| String::from_utf8(ran.stdout).ok());
    folder.is_some_and(|folder| Path::new(folder.trim()).is_dir())
}

/// How the module is compiled: with 128-bit vectors, and without this machine's paths in its messages.
pub fn flags(paths: &[(PathBuf, &str)]) -> String {
    let remapped = paths.iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()));
    ["-Ctarget-feature=+simd128".to_string()].into_iter().chain(remapped).collect::<Vec<_>>().join("\x1f")
}

/// Variables that cargo and rustup set for this program, and those that are meant for the machine's own code: the cargo
/// within must not see them.
pub fn is_kept_out(name: &str) -> bool {
    const KEPT: [&str; 3] = ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE"];
    let kept = KEPT.contains(&name) || name.starts_with("CARGO_REGISTR") || name.starts_with("CARGO_HTTP");
    let cargo = name.starts_with("CARGO") || name.starts_with("DEP_");
    let compiler = ["RUSTFLAGS", "RUSTDOCFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_LINKER"];
    let build = ["OUT_DIR", "TARGET", "HOST", "NUM_JOBS", "OPT_LEVEL", "PROFILE", "DEBUG"];
    (cargo && !kept) || compiler.contains(&name) || build.contains(&name)
}

/// Compiles the module; the folder `target` keeps what can be used again. Its file. The network is asked only if what is
/// needed is not on this machine: `cargo install --offline` does not tell this program that there is to be none.
pub fn build(cargo: &str, project: &Path, target: &Path, flags: &str) -> Result<PathBuf, String> {
    let offline = run(cargo, project, target, flags, &["--offline"]);
    offline.or_else(|_| run(cargo, project, target, flags, &[]))
}

/// The last lines of what was said, in one.
pub fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

fn run(cargo: &str, project: &Path, target: &Path, flags: &str, more: &[&str]) -> Result<PathBuf, String> {
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_kept_out) {
            command.env_remove(name);
        }
    }
    command.current_dir(project).env("CARGO_ENCODED_RUSTFLAGS", flags).env("CARGO_TARGET_DIR", target);
    command.args(["build", "--locked", "--package", "elbo-explore", "--profile", PROFILE, "--target", TARGET]);
    command.args(more);
    let ran = command.output().map_err(|e| format!("{cargo} cannot be run: {e}"))?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
    }
    Ok(target.join(TARGET).join(PROFILE).join("elbo_explore.wasm"))
}
