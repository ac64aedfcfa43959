//! Runs the C++ compiler: kernels and the emulator's runtime into one shared library. Included by build.rs as well.
//!
//! An object file is compiled again when one of the files that it was made of is newer, or the command has changed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Objects compiled at a time. The kernels are few and tests run beside this; more would only take the machine away.
const AT_A_TIME: usize = 2;

/// A C++ compiler that is known to work.
pub struct Compiler {
    command: Vec<OsString>,
}

/// How a file is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The emulator's own code.
    Runtime,
    /// A kernel file, with checks of alignment, array bounds and shifts.
    Kernel,
    /// A kernel file that also reports each access to memory to the race detector.
    KernelWithRaces,
}

impl Compiler {
    /// `CXX`, or the first of the usual names that compiles a C++20 program.
    pub fn find(scratch: &Path) -> Result<Compiler, String> {
        let named = std::env::var_os("CXX").filter(|name| !name.is_empty());
        let candidates = match &named {
            // As make does, so that CXX="ccache g++" works.
            Some(command) => vec![command.to_string_lossy().split_whitespace().map(OsString::from).collect()],
            None => ["c++", "g++", "clang++"].map(|name| vec![OsString::from(name)]).to_vec(),
        };
        let source = scratch.join("probe.cpp");
        std::fs::create_dir_all(scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
        std::fs::write(&source, "#include <bit>\nint probe(unsigned a) { return std::popcount(a); }\n")
            .map_err(|e| format!("{}: {e}", source.display()))?;
        let mut tried = Vec::new();
        for command in candidates {
            let compiler = Compiler { command };
            let object = scratch.join("probe.o");
            match compiler.run(&["-std=c++20".into(), "-c".into(), (&source).into(), "-o".into(), object.into()]) {
                Ok(()) => return Ok(compiler),
                Err(error) => tried.push(format!("{}: {}", compiler.name(), error.lines().next().unwrap_or_default())),
            }
        }
        Err(format!("no C++ compiler that knows C++20 (set CXX to one); tried {}", tried.join("; ")))
    }

    fn name(&self) -> String {
        self.command.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn run(&self, arguments: &[OsString]) -> Result<(), String> {
        let output = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(arguments)
            .output()
            .map_err(|e| format!("cannot run {}: {e}", self.name()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Compiles one file unless its object is up to date.
    fn object(&self, source: &Path, kind: Kind, includes: &[PathBuf], folder: &Path) -> Result<PathBuf, String> {
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        let object = folder.join(format!("{stem}.o"));
        let dependencies = object.with_extension("d");
        let record = object.with_extension("command");
        let mut arguments: Vec<OsString> = flags(kind).iter().map(OsString::from).collect();
        for include in includes {
            arguments.extend(["-I".into(), include.into()]);
        }
        arguments.extend(["-MMD".into(), "-MF".into(), (&dependencies).into(), "-c".into(), "-x".into(), "c++".into()]);
        arguments.extend([source.into(), "-o".into(), (&object).into()]);
        let command = format!("{} {arguments:?}", self.name());
        let same = std::fs::read_to_string(&record).is_ok_and(|old| old == command);
        if same && is_up_to_date(&object, &dependencies) {
            return Ok(object);
        }
        let write = |text: &str| std::fs::write(&record, text).map_err(|e| format!("{}: {e}", record.display()));
        write("")?;
        self.run(&arguments).map_err(|error| format!("{} does not compile:\n{error}", source.display()))?;
        write(&command)?;
        Ok(object)
    }

    /// Compiles files, some at a time. The objects come in the order of the files.
    pub fn objects(
        &self,
        sources: &[PathBuf],
        kind: Kind,
        includes: &[PathBuf],
        folder: &Path,
    ) -> Result<Vec<PathBuf>, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let queue: Mutex<VecDeque<usize>> = Mutex::new((0..sources.len()).collect());
        let results = Mutex::new(vec![None; sources.len()]);
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME {
                scope.spawn(|| {
                    loop {
                        let Some(number) = queue.lock().expect("no panic while locked").pop_front() else { break };
                        let result = self.object(&sources[number], kind, includes, folder);
                        results.lock().expect("no panic while locked")[number] = Some(result);
                    }
                });
            }
        });
        let results = results.into_inner().expect("no panic while locked");
        results.into_iter().map(|result| result.expect("every file was compiled")).collect()
    }

    /// Links objects and libraries into `folder/name`. The name is also the library's SONAME: who asks the dynamic loader for
    /// it afterwards gets this one.
    pub fn link(&self, objects: &[PathBuf], folder: &Path, name: &str) -> Result<PathBuf, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let library = folder.join(name);
        // Linked beside and moved, because a process may have the old one open.
        let fresh = folder.join(format!("{name}.new"));
        let mut arguments: Vec<OsString> =
            ["-shared", &format!("-Wl,-soname,{name}"), "-o"].map(OsString::from).to_vec();
        arguments.push((&fresh).into());
        arguments.extend(objects.iter().map(OsString::from));
        arguments.extend(["-ldl", "-lpthread"].map(OsString::from));
        self.run(&arguments).map_err(|error| format!("{} does not link:\n{error}", library.display()))?;
        std::fs::rename(&fresh, &library).map_err(|e| format!("{}: {e}", library.display()))?;
        Ok(library)
    }
}

/// Kernels are compiled as the GPU computes: no fused operations but those asked for, no fast-math, wrapping integers,
/// and memory that is read as another type than it was written as.
fn flags(kind: Kind) -> Vec<&'static str> {
    let mut flags = vec!["-std=c++20", "-g", "-fPIC", "-fvisibility=hidden", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra"];
    if kind == Kind::Runtime {
        flags.extend(["-O2", "-ffp-contract=off"]);
        return flags;
    }
    flags.extend(["-DELBO_EMU", "-O1", "-ffp-contract=off", "-fno-math-errno", "-fwrapv", "-fno-strict-aliasing"]);
    flags.extend(["-fno-exceptions", "-Wno-unknown-pragmas", "-fsanitize=alignment,bounds,shift"]);
    // fmaf as one instruction instead of a call; nothing else is fused. The result is the same.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        flags.push("-mfma");
    }
    if kind == Kind::KernelWithRaces {
        flags.push("-fsanitize=thread");
    }
    flags
}

/// Is the object newer than everything that the compiler listed as read?
fn is_up_to_date(object: &Path, dependencies: &Path) -> bool {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let (Some(made), Ok(list)) = (modified(object), std::fs::read_to_string(dependencies)) else { return false };
    // A rule of make: "object: file file \<newline> file". Names with spaces are escaped and then never found here,
    // which only means compiling again.
    let Some((_, files)) = list.split_once(": ") else { return false };
    files
        .split_whitespace()
        .filter(|word| *word != "\\")
        .all(|file| modified(Path::new(file)).is_some_and(|changed| changed <= made))
}

/// The files of a folder with this extension, sorted by name.
pub fn files_in(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// The kernel files of a folder and of its `dev`, or the one file that `kernels` is.
pub fn kernel_files(kernels: &Path) -> Vec<PathBuf> {
    if kernels.is_file() {
        return vec![kernels.to_path_buf()];
    }
    let mut files = files_in(kernels, "cu");
    files.extend(files_in(&kernels.join("dev"), "cu"));
    files
}
