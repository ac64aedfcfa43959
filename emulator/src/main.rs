//! Prints the lines that make the emulated driver the CUDA driver of a shell's commands:
//!
//! ```sh
//! eval "$(cargo run --release -p elbo-emulator)"
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    let library = match elbo_emulator::library() {
        Ok(library) => library,
        Err(reason) => {
            eprintln!("there is no emulated CUDA driver: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let folder = library.parent().expect("the library lies in a folder").display().to_string();
    // What the shell would read as something else is quoted.
    let quoted = format!("'{}'", folder.replace('\'', r"'\''"));
    println!("export LD_LIBRARY_PATH={quoted}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}");
    eprintln!("in this shell `--device cuda` is the emulated driver; `unset LD_LIBRARY_PATH` ends that");
    ExitCode::SUCCESS
}
