//! `elbo info` before drivers that are broken, each in its own way: it says what is wrong and what to do, and never
//! panics. The drivers are small libraries called `libcuda.so`, made with the system's C compiler.
#![cfg(all(target_os = "linux", feature = "cli", feature = "cuda"))]

use std::path::Path;
use std::process::Command;

use elbo::engine::device::cuda::images;

const DRIVER: &str = r#"
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int* v) { *v = VERSION; return 0; }
int cuDeviceGetCount(int* n) { *n = COUNT; return 0; }
int cuDeviceGet(int* device, int n) { *device = n; return n < COUNT ? 0 : 101; }
int cuDeviceGetName(char* name, int len, int device) {
    const char* text = NAME;
    for (int i = 0; i < len && (i == 0 || text[i - 1]); i++) name[i] = text[i];
    return 0;
}
int cuDeviceGetAttribute(int* value, int which, int device) {
    *value = which == 75 ? MAJOR : which == 76 ? 0 : 132;
    return 0;
}
int cuDeviceTotalMem_v2(unsigned long* bytes, int device) { *bytes = 3ul << 30; return 0; }
"#;

/// A driver with these answers.
#[derive(Clone, Copy)]
struct Driver {
    init: i32,
    version: i32,
    count: i32,
    name: &'static str,
    major: i32,
}

const GOOD: Driver = Driver { init: 0, version: 13000, count: 1, name: "GPU of this test", major: 8 };

/// Whether there is a C compiler; says so if there is none.
fn compiler() -> bool {
    let there = Command::new("cc").arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        println!("skipped: there is no C compiler `cc` to make a driver with");
    }
    there
}

/// Compiles `text` to `libcuda.so` in the folder `at`.
fn compile(at: &Path, text: &str, definitions: &[String]) {
    let source = at.join("driver.c");
    std::fs::write(&source, text).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-w"]).args(definitions).arg("-o").arg(at.join("libcuda.so")).arg(&source);
    let out = cc.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// What `elbo info` prints with the driver in the folder `at`.
fn info(at: &Path) -> String {
    let elbo = Command::new(env!("CARGO_BIN_EXE_elbo")).arg("info").env("LD_LIBRARY_PATH", at).output().unwrap();
    let errors = String::from_utf8_lossy(&elbo.stderr);
    assert!(elbo.status.success() && errors.is_empty(), "{:?} {errors}", elbo.status);
    String::from_utf8(elbo.stdout).unwrap()
}

/// `elbo info` with this driver must say all of `words`.
fn says(driver: Driver, words: &[&str]) {
    let Driver { init, version, count, name, major } = driver;
    let numbers = [("INIT", init), ("VERSION", version), ("COUNT", count), ("MAJOR", major)];
    let mut definitions: Vec<String> = numbers.iter().map(|(name, value)| format!("-D{name}={value}")).collect();
    definitions.push(format!("-DNAME=\"{name}\""));
    let at = tempfile::tempdir().unwrap();
    compile(at.path(), DRIVER, &definitions);
    let text = info(at.path());
    words.iter().for_each(|word| assert!(text.contains(word), "{text}\nlacks \"{word}\""));
}

#[test]
fn a_driver_that_cannot_be_used_is_described_with_a_remedy() {
    if !compiler() {
        return;
    }
    says(Driver { init: 34, ..GOOD }, &["auto is cpu", "stub", "LD_LIBRARY_PATH"]);
    says(Driver { init: 100, ..GOOD }, &["CUDA 13.0", "auto is cpu: the driver sees no GPU", "CUDA_VISIBLE_DEVICES"]);
    says(Driver { count: 0, ..GOOD }, &["auto is cpu: the driver sees no GPU"]);
    says(Driver { init: 803, ..GOOD }, &["error 803 (driver mismatch)", "restart the machine"]);
    says(Driver { init: 12345, ..GOOD }, &["error 12345", "CUresult"]);
    says(Driver { version: 11000, ..GOOD }, &["the driver knows CUDA 11.0", "CUDA 12.0", "525 or newer"]);
}

#[test]
fn a_driver_library_without_functions_is_described() {
    if !compiler() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    compile(at.path(), "int nothing;", &[]);
    let text = info(at.path());
    assert!(text.contains("has no function cuInit") && text.contains("install NVIDIA's driver"), "{text}");
}

#[test]
fn gpus_are_listed_with_what_stands_in_their_way() {
    if !compiler() {
        return;
    }
    // This driver cannot say how much memory is free.
    let listed = ["GPU 0", "compute capability 8.0, 132 multiprocessors", "of 3.0 GiB", "no function cuCtxGetCurrent"];
    says(GOOD, &listed);
    let emulated = Driver { name: "elbo emulated GPU", version: 12000, ..GOOD };
    says(emulated, &["auto is cpu: the driver is the emulator", "--device cuda"]);
    match images::toolkit() {
        Err(reason) => says(GOOD, &["auto is cpu: this program has no CUDA kernels", reason, "ELBO_REQUIRE_NVCC=1"]),
        Ok(toolkit) => {
            assert!(toolkit.program.contains("nvcc"), "{}", toolkit.program);
            says(GOOD, &[toolkit.version, toolkit.program]);
            let version = (toolkit.release.0 * 1000 + toolkit.release.1 * 10) as i32;
            says(Driver { major: 7, version, ..GOOD }, &["compute capability 7.0, and the kernels need 7.5", "Turing"]);
            says(Driver { major: 99, version, ..GOOD }, &["auto is cuda:0"]);
            let old = format!("CUDA {}.{}", toolkit.release.0, toolkit.release.1);
            says(Driver { major: 99, version: 12000, ..GOOD }, &["not usable", "knows CUDA 12.0", &old, "update"]);
        }
    }
}
