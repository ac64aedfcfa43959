//! Compiles the kernels of `kernels/` with nvcc, if there is one, and the engine for pages, and records how this program was
//! built.
//!
//! In the order of reading: `build/find.rs` (where nvcc is looked for), `build/nvcc.rs` (what it is asked, what it
//! answers), `build/kernels.rs` (one image per kernel file). What comes out is `images.rs` in OUT_DIR, which
//! `src/engine/device/cuda/images.rs` includes: images, toolkit, what each kernel needs; or the reason why there are none.
//! And `pages.rs`, which `src/cli/explore.rs` includes: the engine as WebAssembly (`build/wasm.rs`), or why it is not there.
//!
//! | variable | effect |
//! |---|---|
//! | `ELBO_CUDA=off` | no kernels, no warning |
//! | `ELBO_NVCC`, then those of `build/find.rs` | where nvcc is |
//! | `ELBO_CUDA_ARCH=80,90` | architectures of the machine code instead of 75,80,86,89,90 |
//! | `ELBO_REQUIRE_NVCC=1` | no nvcc is an error instead of a warning |
//! | `NVCC_CCBIN` | the C++ compiler that nvcc uses |
//! | `ELBO_ALLOW_UNSUPPORTED_COMPILER=1` | nvcc takes a C++ compiler that it was not tested with |
//! | `ELBO_WASM=off` | no engine for pages; `on`: in a debug build too; a file .wasm (from the project's folder): that one |
//! | `ELBO_REQUIRE_WASM=1` | no engine for pages is an error |

#[path = "build/find.rs"]
mod find;
#[path = "build/kernels.rs"]
mod kernels;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/wasm.rs"]
mod wasm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use find::{Machine, NotFound, Refusal};
use kernels::{Compiled, Compiler};

fn main() {
    for path in ["build.rs", "build", "kernels"] {
        println!("cargo::rerun-if-changed={path}");
    }
    record_build();
    let out = PathBuf::from(set_by_cargo("OUT_DIR"));
    let generated = match build_kernels(&out) {
        Ok(Built::Kernels(compiler, compiled)) => list_images(&compiler, &compiled),
        Ok(Built::Nothing(reason)) => list_nothing(&reason),
        Err(problem) => {
            eprintln!("\nThe CUDA kernels cannot be built.\n{problem}");
            std::process::exit(1);
        }
    };
    fs::write(out.join("images.rs"), generated).expect("OUT_DIR can be written");
    if std::env::var_os("CARGO_FEATURE_CLI").is_some() {
        let pages = build_pages(&out).unwrap_or_else(|problem| {
            eprintln!("\nThe engine for pages cannot be built.\n{problem}");
            std::process::exit(1);
        });
        let pages = match pages {
            Ok(file) => format!("Ok(include_bytes!({:?}))", file.display().to_string()),
            Err(reason) => format!("Err({reason:?})"),
        };
        let pages = format!("pub const ENGINE: std::result::Result<&[u8], &str> = {pages};\n");
        fs::write(out.join("pages.rs"), pages).expect("OUT_DIR can be written");
    }
}

/// The file with the engine for pages, or the reason why there is none.
fn build_pages(out: &Path) -> Result<Result<PathBuf, String>, String> {
    let required = switch("ELBO_REQUIRE_WASM")?;
    let debug = set_by_cargo("PROFILE") == "debug";
    let wanted = wasm::wanted(variable("ELBO_WASM").as_deref(), required, debug)?;
    match &wanted {
        wasm::Wanted::No(reason) => return Ok(Err((*reason).into())),
        wasm::Wanted::Given(file) => {
            // include_bytes! would look for a relative path beside the file that has it, which is in OUT_DIR.
            let file = Path::new(&set_by_cargo("CARGO_MANIFEST_DIR")).join(file);
            println!("cargo::rerun-if-changed={}", file.display());
            return match file.is_file() {
                true => Ok(Ok(file)),
                false => Err(format!("ELBO_WASM: {} is not there", file.display())),
            };
        }
        wasm::Wanted::IfPossible | wasm::Wanted::Required => {}
    }
    let rustc = variable("RUSTC").unwrap_or_else(|| "rustc".into());
    if !wasm::is_installed(&rustc) {
        let reason = format!("the target {} was not installed when it was built", wasm::TARGET);
        let remedy = format!("rustup target add {}", wasm::TARGET);
        return if wanted == wasm::Wanted::Required {
            Err(format!("ELBO_REQUIRE_WASM=1, but {reason}: {remedy}"))
        } else {
            Ok(Err(reason))
        };
    }
    let project = PathBuf::from(set_by_cargo("CARGO_MANIFEST_DIR"));
    for source in wasm::SOURCES.iter().chain(&wasm::STUDY) {
        println!("cargo::rerun-if-changed={source}");
    }
    let sysroot = Command::new(&rustc).args(["--print", "sysroot"]).output().map_err(|e| format!("{rustc}: {e}"))?;
    let home = variable("CARGO_HOME").or_else(|| variable("HOME").map(|home| format!("{home}/.cargo")));
    let mut paths = vec![(String::from_utf8_lossy(&sysroot.stdout).trim().into(), "rust"), (project.clone(), "elbo")];
    paths.extend(home.map(|home| (PathBuf::from(home), "cargo")));
    let target = beside_profiles(out, "elbo-pages");
    match wasm::build(&set_by_cargo("CARGO"), &project, &target, &wasm::flags(&paths)) {
        Err(said) if wanted == wasm::Wanted::IfPossible => {
            let why = wasm::last_lines(&said);
            println!(
                "cargo::warning=built without the engine for pages: {why} (ELBO_REQUIRE_WASM=1 says all, ELBO_WASM=off silences)"
            );
            Ok(Err(format!("it could not be compiled when it was built: {why}")))
        }
        built => built.map(Ok),
    }
}

/// What `elbo info` and every run folder say of the build.
fn record_build() {
    let rustc = variable("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|out| String::from_utf8(out.stdout).ok());
    let version = version.as_deref().map_or("rustc of unknown version", str::trim);
    let (target, level) = (set_by_cargo("TARGET"), set_by_cargo("OPT_LEVEL"));
    println!("cargo::rustc-env=ELBO_BUILD={version}, {target}, opt-level {level}");
}

/// A variable of the user's, if it is set and not empty. Cargo runs this program again when it changes.
fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn set_by_cargo(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|e| panic!("cargo sets {name}: {e}"))
}

/// Whether a switch is on.
fn switch(name: &str) -> Result<bool, String> {
    match variable(name).as_deref() {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(format!("{name}=\"{other}\": expected 1, or 0 as when it is not set")),
    }
}

enum Built {
    Kernels(Compiler, Vec<Compiled>),
    /// No kernels, for this reason.
    Nothing(String),
}

/// Finds nvcc and compiles, if this build is to have kernels.
fn build_kernels(out: &Path) -> Result<Built, String> {
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(Built::Nothing("the feature `cuda` was off when it was built".into()));
    }
    let required = switch("ELBO_REQUIRE_NVCC")?;
    match variable("ELBO_CUDA").as_deref() {
        None | Some("auto") => {}
        Some("off") if required => return Err("ELBO_CUDA=off and ELBO_REQUIRE_NVCC=1 contradict each other".into()),
        Some("off") => return Ok(Built::Nothing("ELBO_CUDA was off when it was built".into())),
        Some(other) => return Err(format!("ELBO_CUDA=\"{other}\": expected off, or auto as when it is not set")),
    }
    let compiler = match find_compiler(out) {
        Ok(compiler) => compiler,
        Err(NotFound::Fatal(problem)) => return Err(problem),
        Err(NotFound::Nowhere(searched)) if required => {
            return Err(format!(
                "ELBO_REQUIRE_NVCC=1, but no usable nvcc was found. Searched, in this order:\n{searched}{HOW_TO_GET}"
            ));
        }
        Err(NotFound::Nowhere(searched)) => {
            let why = searched.summary();
            println!(
                "cargo::warning=built without CUDA: {why} (ELBO_REQUIRE_NVCC=1 says what to do, ELBO_CUDA=off silences)"
            );
            return Ok(Built::Nothing(format!("{why} when it was built")));
        }
    };
    println!("cargo::rustc-env=ELBO_NVCC_CALL={}", compiler.call("latency").join("\t"));
    let folder = Path::new(&set_by_cargo("CARGO_MANIFEST_DIR")).join("kernels");
    let sources = kernels::sources(&folder)?;
    let jobs = set_by_cargo("NUM_JOBS").parse().unwrap_or(1);
    let compiled = compiler.compile(&sources, &folder, &cache(out), out, jobs)?;
    Ok(Built::Kernels(compiler, compiled))
}

const HOW_TO_GET: &str =
    "Get nvcc 12.3 or newer from your system's packages (nvidia-cuda-toolkit, cuda-nvcc, cuda) or NVIDIA's
installer, or as Python wheels:
  python3 -m venv target/nvcc
  target/nvcc/bin/pip install nvidia-cuda-nvcc==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-crt==13.0.* \\
      nvidia-cuda-runtime==13.0.* nvidia-cuda-cccl==13.0.*
in the project's folder, where the next build finds them. An nvcc in another place is named by ELBO_NVCC.";

/// The first nvcc that is new enough and can compile three words.
fn find_compiler(out: &Path) -> Result<Compiler, NotFound> {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let project = PathBuf::from(set_by_cargo("CARGO_MANIFEST_DIR"));
    let is_file = &Path::is_file;
    let machine = Machine { variable: &variable, is_file, names: &names, windows: cfg!(windows), project: &project };
    machine.find(&|program| try_compiler(program, out))
}

fn try_compiler(program: &Path, out: &Path) -> Result<Compiler, Refusal> {
    let ask = |argument: &str| {
        let ran =
            Command::new(program).arg(argument).output().map_err(|e| Refusal::Unfit(format!("cannot be run: {e}")))?;
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let version = nvcc::version(&ask("--version")?).ok_or_else(|| Refusal::Unfit("does not say its version".into()))?;
    if (version.major, version.minor) < nvcc::OLDEST {
        let (major, minor) = nvcc::OLDEST;
        return Err(Refusal::Unfit(format!("version {} is older than {major}.{minor}", version.full)));
    }
    let asked = variable("ELBO_CUDA_ARCH");
    let architectures = nvcc::architectures(asked.as_deref(), &nvcc::offered(&ask("--list-gpu-code")?));
    let architectures = architectures.map_err(Refusal::Fatal)?;
    let Some(first) = architectures.first() else {
        return Err(Refusal::Unfit(format!("version {} knows none of the architectures", version.full)));
    };
    let mut host_flags: Vec<String> =
        variable("NVCC_CCBIN").map(|compiler| format!("-ccbin={compiler}")).into_iter().collect();
    if switch("ELBO_ALLOW_UNSUPPORTED_COMPILER").map_err(Refusal::Fatal)? {
        host_flags.push("-allow-unsupported-compiler".into());
    }
    let inherited = ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"].into_iter().filter_map(variable).collect();

    // A toolkit can be there in part: some Python packages install nvcc without its headers.
    let trial = out.join("trial.cu");
    fs::write(&trial, "__global__ void trial(int* p) { *p = 1; }\n").expect("OUT_DIR can be written");
    let mut command = Command::new(program);
    command.args(["-cubin", "-std=c++17", &format!("-arch=sm_{first}")]).args(&host_flags);
    command.arg("-o").arg(out.join("trial.cubin")).arg(&trial);
    let ran = command.output().map_err(|e| Refusal::Unfit(format!("cannot be run: {e}")))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
        if let Some(problem) = nvcc::host_compiler_problem(&said) {
            return Err(Refusal::Fatal(format!("{problem}\nnvcc says:\n{said}")));
        }
        let error = said.lines().find_map(|line| line.split_once("error: ")).map_or("", |(_, error)| error);
        return Err(Refusal::Unfit(format!("version {} cannot compile an empty kernel: {error}", version.full)));
    }
    println!("cargo::rerun-if-changed={}", program.display());
    println!("kernels are compiled by nvcc {}: {}", version.full, program.display());
    Ok(Compiler { program: program.into(), version, host_flags, architectures, inherited })
}

/// The folder of finished images. Names hold a hash of all that an image was made from: none goes stale.
fn cache(out: &Path) -> PathBuf {
    beside_profiles(out, "elbo-kernels")
}

/// A folder beside the profiles' folders in the target folder, so that profiles share it, or in OUT_DIR where that is laid
/// out otherwise.
fn beside_profiles(out: &Path, name: &str) -> PathBuf {
    let build = out.ancestors().find(|folder| folder.ends_with("build"));
    build.and_then(|build| build.parent()?.parent()).unwrap_or(out).join(name)
}

/// `images.rs` of a build with kernels. Images are aligned, because the driver reads them as structures.
fn list_images(compiler: &Compiler, compiled: &[Compiled]) -> String {
    let nvcc::Version { major, minor, full } = &compiler.version;
    let (archs, ptx) = (&compiler.architectures, nvcc::ptx_architectures(&compiler.architectures));
    let image = |file: &Compiled| {
        let (name, path) = (&file.name, file.image.display().to_string());
        format!("Image {{ name: {name:?}, bytes: &Aligned(*include_bytes!({path:?})).0 }},\n")
    };
    let uses = |file: &Compiled| -> String {
        let one = |((kernel, arch), used): ((String, String), nvcc::Use)| {
            let (image, nvcc::Use { registers, stack, spill_stores, spill_loads }) = (&file.name, used);
            format!(
                "KernelUse {{ image: {image:?}, kernel: {kernel:?}, architecture: {arch:?}, registers: {registers}, \
                 stack: {stack}, spill_stores: {spill_stores}, spill_loads: {spill_loads} }},\n"
            )
        };
        nvcc::uses(&file.report).into_iter().map(one).collect()
    };
    format!(
        "#[repr(C, align(16))]\n#[allow(dead_code)]\nstruct Aligned<T>(T);\n\
         const TOOLKIT: Result<Toolkit, &str> = Ok(Toolkit {{ release: ({major}, {minor}), version: {full:?}, \
         program: {:?}, architectures: &{archs:?}, ptx: &{ptx:?} }});\n\
         static IMAGES: &[Image] = &[\n{}];\nstatic KERNELS: &[KernelUse] = &[\n{}];\n",
        compiler.program.display().to_string(),
        compiled.iter().map(image).collect::<String>(),
        compiled.iter().map(uses).collect::<String>(),
    )
}

/// `images.rs` of a build without kernels.
fn list_nothing(reason: &str) -> String {
    format!(
        "const TOOLKIT: Result<Toolkit, &str> = Err({reason:?});\nstatic IMAGES: &[Image] = &[];\n\
         static KERNELS: &[KernelUse] = &[];\n"
    )
}
