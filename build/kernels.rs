//! Compiles the kernel files, several at a time, and keeps what it made as long as nothing that went into it changes.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::nvcc;

/// A kernel file.
pub struct Source {
    /// Its path below `kernels/` without the suffix, as in `gemm` or `dev/naive`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// All text that the compiler sees: the file, then the headers of `kernels/` that it includes.
    pub text: String,
}

/// What came of a kernel file.
pub struct Compiled {
    pub name: String,
    /// The image: machine code and PTX for all architectures in one file.
    pub image: PathBuf,
    /// What ptxas said while it made it.
    pub report: String,
}

/// An nvcc with the arguments that do not depend on the file.
pub struct Compiler {
    pub program: PathBuf,
    pub version: nvcc::Version,
    /// `-ccbin` and the like.
    pub host_flags: Vec<String>,
    pub architectures: Vec<u32>,
    /// Flags that nvcc itself takes from the environment; they decide the result too.
    pub inherited: Vec<String>,
}

/// The kernel files in `folder` and in its `dev/`, in the order of their names.
pub fn sources(folder: &Path) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for (folder, prefix) in [(folder.to_path_buf(), ""), (folder.join("dev"), "dev/")] {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.map_err(|e| format!("cannot list {}: {e}", folder.display()))?.path();
            if path.extension().is_some_and(|suffix| suffix == "cu") {
                let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                let name = format!("{prefix}{stem}");
                let mut text = String::new();
                gather(&path, &mut BTreeSet::new(), &mut text)?;
                sources.push(Source { name, path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sources)
}

/// Appends a file and what it includes by `#include "…"`, each file once. A header that is nowhere is left to nvcc.
fn gather(path: &Path, seen: &mut BTreeSet<PathBuf>, text: &mut String) -> Result<(), String> {
    if !seen.insert(path.to_path_buf()) {
        return Ok(());
    }
    let own = fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    text.push_str(&own);
    let folder = path.parent().expect("a file has a folder");
    for line in own.lines() {
        let Some(name) = line.trim().strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) else {
            continue;
        };
        // Files of kernels/dev include headers of kernels/ (-I kernels).
        for at in [folder.join(name), folder.join("..").join(name)] {
            if let Ok(header) = at.canonicalize() {
                gather(&header, seen, text)?;
                break;
            }
        }
    }
    Ok(())
}

/// How many runs of nvcc at a time, and how many architectures each of them compiles at a time, on `jobs` cores.
///
/// One run more than cores are filled by, so that the last architecture of one file does not leave cores idle.
fn crew(jobs: usize, architectures: usize) -> (usize, usize) {
    let threads = jobs.min(architectures).max(1);
    (jobs.div_ceil(threads) + usize::from(jobs > 1), threads)
}

impl Compiler {
    /// The program and the arguments that make machine code of the file `name` for the architectures, for programs that
    /// scripts/gpu-pack.sh compiles.
    pub fn call(&self, name: &str) -> Vec<String> {
        let program = self.program.display().to_string();
        [vec![program], self.host_flags.clone(), nvcc::gencode(name, &self.architectures)].concat()
    }

    /// Makes the images of all `sources` in `out`. Images made before with equal inputs are taken from `cache`.
    pub fn compile(
        &self,
        sources: &[Source],
        kernels: &Path,
        cache: &Path,
        out: &Path,
        jobs: usize,
    ) -> Result<Vec<Compiled>, String> {
        let mut work: Vec<&Source> =
            sources.iter().filter(|s| !nvcc::gencode(&s.name, &self.architectures).is_empty()).collect();
        let (runs, threads) = crew(jobs, self.architectures.len());
        // The longest take longest, more or less, and should not come last.
        work.sort_by_key(|source| source.text.len());
        let queue = Mutex::new(work);
        let done = Mutex::new(Vec::new());
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..runs {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let Some(source) = queue.lock().expect("no thread panics").pop() else { break };
                        let compiled = self.compile_one(source, kernels, cache, out, threads);
                        failed.fetch_or(compiled.is_err(), Ordering::Relaxed);
                        done.lock().expect("no thread panics").push(compiled);
                    }
                });
            }
        });
        let mut compiled: Vec<Compiled> =
            done.into_inner().expect("no thread panics").into_iter().collect::<Result<_, _>>()?;
        compiled.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(compiled)
    }

    /// Everything that decides what nvcc makes of a file, as one number. (64 bits: among a thousand versions of a file,
    /// two of equal number turn up with a probability of 3·10⁻¹⁴.)
    fn key(&self, source: &Source) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&source.name, &source.text, nvcc::FLAGS, &self.version.full).hash(&mut hasher);
        (nvcc::gencode(&source.name, &self.architectures), &self.host_flags, &self.inherited).hash(&mut hasher);
        hasher.finish()
    }

    fn compile_one(
        &self,
        source: &Source,
        kernels: &Path,
        cache: &Path,
        out: &Path,
        threads: usize,
    ) -> Result<Compiled, String> {
        let file = source.name.replace('/', "_");
        let kept = cache.join(format!("{file}-{:016x}.fatbin", self.key(source)));
        let kept_report = kept.with_extension("txt");
        let image = out.join(format!("{file}.fatbin"));
        let report = match (kept.exists(), fs::read_to_string(&kept_report)) {
            (true, Ok(report)) => report,
            _ => {
                // Written under another name first: an interrupted build leaves no half of an image behind.
                let fresh = out.join(format!("{file}.fresh"));
                let report = self.run(source, kernels, &fresh, threads)?;
                fs::create_dir_all(cache).map_err(|e| format!("cannot create {}: {e}", cache.display()))?;
                forget_old(cache, &file);
                let put = fs::copy(&fresh, kept.with_extension("part"))
                    .and_then(|_| fs::rename(kept.with_extension("part"), &kept));
                put.and_then(|()| fs::write(&kept_report, &report))
                    .map_err(|e| format!("cannot write {}: {e}", kept.display()))?;
                report
            }
        };
        fs::copy(&kept, &image).map_err(|e| format!("cannot write {}: {e}", image.display()))?;
        Ok(Compiled { name: source.name.clone(), image, report })
    }

    /// Runs nvcc on one file. Paths are relative to the crate's folder, so that line tables have names that mean
    /// something elsewhere.
    fn run(&self, source: &Source, kernels: &Path, image: &Path, threads: usize) -> Result<String, String> {
        let root = kernels.parent().expect("kernels/ lies in the crate's folder");
        let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_path_buf();
        let mut command = Command::new(&self.program);
        command.current_dir(root).args(nvcc::FLAGS).args(&self.host_flags);
        command.args(nvcc::gencode(&source.name, &self.architectures)).arg(format!("--threads={threads}"));
        command.arg("-I").arg(relative(kernels)).arg("-o").arg(image).arg(relative(&source.path));
        let ran = command.output().map_err(|e| format!("{} cannot be run: {e}", self.program.display()))?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
        if ran.status.success() {
            return Ok(said);
        }
        let explanation = nvcc::host_compiler_problem(&said).map_or(String::new(), |text| format!("{text}\n"));
        let name = relative(&source.path);
        Err(format!("{explanation}nvcc {} could not compile {}:\n{said}", self.version.full, name.display()))
    }
}

/// How many versions of a file's image are kept: enough for a few branches, profiles and architecture lists.
const KEPT: usize = 8;

/// Removes the oldest images of `file` beyond [`KEPT`]. What cannot be removed stays.
fn forget_old(cache: &Path, file: &str) {
    let of_file = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        path.extension().is_some_and(|suffix| suffix == "fatbin")
            && stem.rsplit_once('-').is_some_and(|(name, _)| name == file)
    };
    let entries = fs::read_dir(cache).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut images: Vec<_> =
        entries.filter(of_file).filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).collect();
    images.sort();
    for (_, path) in images.iter().rev().skip(KEPT - 1) {
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(path.with_extension("txt"));
    }
}
