//! The program `elbo-emulator`: a shell that evaluates what it prints has the emulated driver first on its search path.

use std::path::Path;
use std::process::Command;

#[test]
fn what_it_prints_makes_the_library_the_shells_driver() {
    let program = env!("CARGO_BIN_EXE_elbo-emulator");
    let library = match elbo_emulator::library() {
        Ok(library) => library,
        Err(reason) => {
            let out = Command::new(program).output().unwrap();
            assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains(reason));
            return;
        }
    };
    for before in ["", "/some where/else"] {
        let line = format!("eval \"$({program})\" && printf %s \"$LD_LIBRARY_PATH\"");
        let out = Command::new("sh").args(["-c", &line]).env("LD_LIBRARY_PATH", before).output().unwrap();
        let path = String::from_utf8(out.stdout).unwrap();
        let (first, rest) = path.split_once(':').unwrap_or((&path, ""));
        assert!(out.status.success() && Path::new(first).join("libcuda.so").is_file(), "{path}");
        assert_eq!((Path::new(first), rest), (library.parent().unwrap(), before));
    }
}
