//! Records how this binary was built, so that `elbo info` and every run folder can say it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|out| String::from_utf8(out.stdout).ok());
    let version = version.as_deref().map_or("rustc of unknown version", str::trim);
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    let level = std::env::var("OPT_LEVEL").expect("cargo sets OPT_LEVEL");
    println!("cargo::rustc-env=ELBO_BUILD={version}, {target}, opt-level {level}");
}
