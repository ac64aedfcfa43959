//! Compiles the project's kernels and the emulator's runtime. Without a C++ compiler it says so and succeeds: the tests
//! that need the emulator then print the reason and do nothing.

use std::path::{Path, PathBuf};

#[path = "src/compile.rs"]
mod compile;

use compile::{Compiler, Kind, files_in, kernel_files};

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let kernels = here.join("../kernels");
    println!("cargo::rerun-if-env-changed=CXX");
    for folder in ["build.rs", "src/compile.rs", "include", "runtime", "nccl", "../kernels"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    let compiler = match supported().and_then(|()| Compiler::find(&out)) {
        Ok(compiler) => compiler,
        Err(reason) => {
            println!("cargo::warning=the emulated CUDA driver is not built: {reason}");
            println!("cargo::rustc-env=ELBO_EMU_MISSING={}", reason.replace('\n', " "));
            return;
        }
    };
    match build(&compiler, &here, &kernels, &out) {
        Ok(library) => println!("cargo::rustc-env=ELBO_EMU_LIBRARY={}", library.display()),
        Err(error) => panic!("{error}"),
    }
}

/// Signals, mmap and dlopen as Linux has them, and processors whose pointers have 64 bits.
fn supported() -> Result<(), String> {
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).expect("cargo sets the target");
    match (target("OS").as_str(), target("POINTER_WIDTH").as_str()) {
        ("linux", "64") => Ok(()),
        (os, width) => Err(format!("it runs on 64-bit Linux, and this is {os}, {width}-bit")),
    }
}

fn build(compiler: &Compiler, here: &Path, kernels: &Path, out: &Path) -> Result<PathBuf, String> {
    let include = here.join("include");
    let runtime = files_in(&here.join("runtime"), "cpp");
    let mut objects =
        compiler.objects(&runtime, Kind::Runtime, std::slice::from_ref(&include), &out.join("runtime"))?;
    let includes = [include, kernels.to_path_buf()];
    objects.extend(compiler.objects(&kernel_files(kernels), Kind::Kernel, &includes, &out.join("kernels"))?);
    let library = compiler.link(&objects, &out.join("library"), "libcuda.so")?;
    // What processes with a device each exchange through: it uses the driver above.
    let nccl = files_in(&here.join("nccl"), "cpp");
    let mut objects = compiler.objects(&nccl, Kind::Runtime, &[here.join("runtime")], &out.join("nccl"))?;
    objects.push(library.clone());
    compiler.link(&objects, &out.join("library"), "libnccl.so.2")?;
    Ok(library)
}
