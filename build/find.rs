//! Where nvcc is: the places, in the order in which they are searched, and what was found there.
//!
//! Everything here is a function of a [`Machine`], so that tests can describe machines that are not there.

use std::fmt;
use std::path::{Path, PathBuf};

/// What the search sees of the machine.
pub struct Machine<'a> {
    /// A variable of the environment, if it is set and not empty.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Whether this is a file.
    pub is_file: &'a dyn Fn(&Path) -> bool,
    /// The names in a folder; none if there is no such folder.
    pub names: &'a dyn Fn(&Path) -> Vec<String>,
    /// Whether programs are called `.exe` and `PATH` is separated by semicolons.
    pub windows: bool,
    /// The folder of this project, for the Python environment that the README makes in it.
    pub project: &'a Path,
}

/// One place of the search: where it comes from, and the files that nvcc would be there.
#[derive(Debug, PartialEq)]
pub struct Place {
    /// The variable or the folder.
    pub label: String,
    /// What the label stands for; empty if that is nothing, as of a variable that is not set.
    pub files: Vec<PathBuf>,
    /// Named by a variable that is there for nothing else: an nvcc that cannot be used is then an error.
    pub explicit: bool,
}

/// A place is looked up when the search comes to it, so that no variable is read in vain.
type Look = fn(&Machine<'_>) -> Place;

const ANYWHERE: [Look; 10] = [
    |machine| machine.program("ELBO_NVCC"),
    |machine| machine.program("NVCC"),
    |machine| machine.toolkit("CUDA_HOME"),
    |machine| machine.toolkit("CUDA_PATH"),
    |machine| machine.toolkit("CUDA_ROOT"),
    |machine| machine.toolkit("CUDA_TOOLKIT_ROOT_DIR"),
    |machine| Place::new("PATH", machine.on_path("nvcc")),
    // Before VIRTUAL_ENV, so that a build that found it does not depend on that variable any more.
    |machine| Place::new(OWN, machine.wheels(&machine.project.join(OWN))),
    |machine| machine.conda(),
    |machine| machine.python(),
];
/// The Python environment with nvcc that the README makes, below the project's folder.
const OWN: &str = "target/nvcc";
const ON_UNIX: [Look; 3] = [
    |machine| machine.folder("/usr/local/cuda/bin"),
    |machine| machine.versions("/usr/local", "cuda-"),
    |machine| machine.folder("/opt/cuda/bin"),
];
const ON_WINDOWS: [Look; 1] = [|machine| machine.installed_on_windows()];

/// Why an nvcc is not used.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// The search goes on: too old, incomplete, not a program.
    Unfit(String),
    /// The search ends: what stands in the way is not nvcc, and another nvcc would not be better off.
    Fatal(String),
}

/// The places that were searched without success.
#[derive(Debug, Default, PartialEq)]
pub struct Searched(Vec<Miss>);

#[derive(Debug, PartialEq)]
struct Miss {
    label: String,
    outcome: String,
    /// Why the nvcc that is there was not taken.
    refusal: Option<String>,
}

impl Searched {
    /// In one line, without paths of this machine.
    pub fn summary(&self) -> String {
        let refusals = self.0.iter().filter_map(|miss| Some(format!("{}: {}", miss.label, miss.refusal.as_ref()?)));
        let refusals: Vec<String> = refusals.collect();
        if refusals.is_empty() {
            "nvcc was not found".into()
        } else {
            format!("no nvcc is usable ({})", refusals.join("; "))
        }
    }
}

/// One line per place.
impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|miss| miss.label.len()).max().unwrap_or(0);
        self.0.iter().try_for_each(|Miss { label, outcome, .. }| writeln!(f, "  {label:<width$}  {outcome}"))
    }
}

/// A search that ended in an error.
#[derive(Debug, PartialEq)]
pub enum NotFound {
    /// Nowhere.
    Nowhere(Searched),
    /// The user named an nvcc that cannot be used, or the machine lacks what every nvcc needs.
    Fatal(String),
}

impl Machine<'_> {
    /// The first nvcc that `accept` takes, with what `accept` says of it.
    ///
    /// Variables are read only as far as the search goes: those behind the nvcc that is taken have no influence.
    pub fn find<T>(&self, accept: &dyn Fn(&Path) -> Result<T, Refusal>) -> Result<T, NotFound> {
        let mut searched = Searched::default();
        let rest: &[Look] = if self.windows { &ON_WINDOWS } else { &ON_UNIX };
        for look in ANYWHERE.iter().chain(rest) {
            let Place { label, files, explicit } = look(self);
            let mut outcome = match &files[..] {
                [] => "not set".to_string(),
                [only] => format!("{}: no such file", only.display()),
                _ => "no nvcc".to_string(),
            };
            let mut refusal = None;
            for file in files.iter().filter(|file| (self.is_file)(file)) {
                match accept(file) {
                    Ok(found) => return Ok(found),
                    Err(Refusal::Fatal(why)) => {
                        return Err(NotFound::Fatal(format!("{} ({label}): {why}", file.display())));
                    }
                    Err(Refusal::Unfit(why)) => {
                        outcome = format!("{}: {why}", file.display());
                        refusal = Some(why);
                    }
                }
            }
            if explicit && !files.is_empty() {
                return Err(NotFound::Fatal(format!("{label}: {outcome}")));
            }
            searched.0.push(Miss { label, outcome, refusal });
        }
        Err(NotFound::Nowhere(searched))
    }

    /// The compiler's file name.
    fn nvcc(&self) -> &'static str {
        if self.windows { "nvcc.exe" } else { "nvcc" }
    }

    /// A variable that names the program, by its path or by a name to look up in PATH.
    fn program(&self, name: &str) -> Place {
        let files = match (self.variable)(name) {
            None => return Place::new(name, Vec::new()),
            Some(value) if value.contains(['/', '\\']) => vec![PathBuf::from(value)],
            Some(value) => {
                let found = self.on_path(&value);
                if found.is_empty() { vec![PathBuf::from(value)] } else { found }
            }
        };
        Place { explicit: true, ..Place::new(name, files) }
    }

    /// A variable that names a toolkit's folder.
    fn toolkit(&self, name: &str) -> Place {
        let root = (self.variable)(name).map(PathBuf::from);
        Place::new(name, root.map(|root| root.join("bin").join(self.nvcc())).into_iter().collect())
    }

    /// A folder that toolkits are installed in by default.
    fn folder(&self, folder: &str) -> Place {
        Place::new(folder, vec![Path::new(folder).join(self.nvcc())])
    }

    /// Folders that are called `prefix` and a version.
    fn versions(&self, parent: &str, prefix: &str) -> Place {
        let names = newest_first((self.names)(Path::new(parent)), prefix);
        let label = format!("{parent}/{prefix}*/bin");
        let mut files: Vec<PathBuf> =
            names.iter().map(|name| Path::new(parent).join(name).join("bin").join(self.nvcc())).collect();
        if files.is_empty() {
            files.push(Path::new(&label).join(self.nvcc()));
        }
        Place::new(&label, files)
    }

    /// An active conda environment: nvcc as a conda package, or as Python wheels.
    fn conda(&self) -> Place {
        let root = (self.variable)("CONDA_PREFIX").map(PathBuf::from);
        let folder = if self.windows { "Library/bin" } else { "bin" };
        let files = root.iter().flat_map(|root| {
            let own = root.join(folder).join(self.nvcc());
            [own].into_iter().chain(self.wheels(root))
        });
        Place::new("CONDA_PREFIX", files.collect())
    }

    /// An active Python environment.
    fn python(&self) -> Place {
        let root = (self.variable)("VIRTUAL_ENV").map(PathBuf::from);
        Place::new("VIRTUAL_ENV", root.iter().flat_map(|root| self.wheels(root)).collect())
    }

    /// `program` in the folders of PATH.
    fn on_path(&self, program: &str) -> Vec<PathBuf> {
        let path = (self.variable)("PATH").unwrap_or_default();
        let suffix = if self.windows && !program.ends_with(".exe") { ".exe" } else { "" };
        let folders = path.split(if self.windows { ';' } else { ':' }).filter(|folder| !folder.is_empty());
        folders.map(|folder| Path::new(folder).join(format!("{program}{suffix}"))).collect()
    }

    /// nvcc of the Python wheels in an environment: `nvidia/cu13` since CUDA 13, one folder per wheel before.
    fn wheels(&self, root: &Path) -> Vec<PathBuf> {
        let sites: Vec<PathBuf> = if self.windows {
            vec![root.join("Lib/site-packages")]
        } else {
            let mut pythons = newest_first((self.names)(&root.join("lib")), "python");
            if pythons.is_empty() {
                pythons.push("python3*".into());
            }
            pythons.into_iter().map(|name| root.join("lib").join(name).join("site-packages")).collect()
        };
        let layouts = ["nvidia/cu13/bin", "nvidia/cuda_nvcc/bin"];
        let files = sites.iter().flat_map(|site| layouts.map(|layout| site.join(layout).join(self.nvcc())));
        files.collect()
    }

    /// The installer's variables, one per version, and its default folder.
    fn installed_on_windows(&self) -> Place {
        let versions = (0..10).rev().map(|minor| (13, minor)).chain((3..10).rev().map(|minor| (12, minor)));
        let roots = versions.filter_map(|(major, minor)| (self.variable)(&format!("CUDA_PATH_V{major}_{minor}")));
        let mut roots: Vec<PathBuf> = roots.map(PathBuf::from).collect();
        if let Some(programs) = (self.variable)("ProgramFiles") {
            let folder = Path::new(&programs).join("NVIDIA GPU Computing Toolkit/CUDA");
            roots.extend(newest_first((self.names)(&folder), "v").into_iter().map(|name| folder.join(name)));
        }
        let files = roots.into_iter().map(|root| root.join("bin").join(self.nvcc())).collect();
        Place::new("CUDA_PATH_V13_*", files)
    }
}

impl Place {
    fn new(label: &str, files: Vec<PathBuf>) -> Place {
        Place { label: label.into(), files, explicit: false }
    }
}

/// Those of `names` that are `prefix` and a version, the newest first.
fn newest_first(names: Vec<String>, prefix: &str) -> Vec<String> {
    let version = |name: &str| -> Option<Vec<u32>> {
        name.strip_prefix(prefix)?.split('.').map(|part| part.parse().ok()).collect()
    };
    let mut versions: Vec<(Vec<u32>, String)> =
        names.into_iter().filter_map(|name| Some((version(&name)?, name))).collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variables, and files by their paths.
    struct Described<'a>(&'a [(&'a str, &'a str)], &'a [&'a str]);

    impl Described<'_> {
        fn find(&self, accept: &dyn Fn(&Path) -> Result<(), Refusal>) -> Result<String, NotFound> {
            self.find_on(false, accept)
        }

        fn find_on(&self, windows: bool, accept: &dyn Fn(&Path) -> Result<(), Refusal>) -> Result<String, NotFound> {
            let variable = |name: &str| self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
            let is_file = |path: &Path| self.1.iter().any(|file| Path::new(file) == path);
            let names = |folder: &Path| {
                let below = self.1.iter().filter_map(|file| Path::new(file).strip_prefix(folder).ok());
                below.filter_map(|rest| Some(rest.iter().next()?.to_str()?.to_string())).collect()
            };
            let project = Path::new("/project");
            let machine = Machine { variable: &variable, is_file: &is_file, names: &names, windows, project };
            machine.find(&|path| accept(path).map(|()| path.display().to_string()))
        }
    }

    fn all(_: &Path) -> Result<(), Refusal> {
        Ok(())
    }

    #[test]
    fn places_are_searched_in_the_stated_order() {
        let variables = [
            ("ELBO_NVCC", "/0/nvcc"),
            ("NVCC", "/1/nvcc"),
            ("CUDA_HOME", "/2"),
            ("CUDA_PATH", "/3"),
            ("CUDA_ROOT", "/4"),
            ("CUDA_TOOLKIT_ROOT_DIR", "/5"),
            ("PATH", "/none:/6"),
            ("CONDA_PREFIX", "/7"),
            ("VIRTUAL_ENV", "/8"),
        ];
        let files = [
            "/0/nvcc",
            "/1/nvcc",
            "/2/bin/nvcc",
            "/3/bin/nvcc",
            "/4/bin/nvcc",
            "/5/bin/nvcc",
            "/6/nvcc",
            "/project/target/nvcc/lib/python3.12/site-packages/nvidia/cu13/bin/nvcc",
            "/7/bin/nvcc",
            "/8/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc",
            "/usr/local/cuda/bin/nvcc",
            "/usr/local/cuda-13.0/bin/nvcc",
            "/usr/local/cuda-12.10/bin/nvcc",
            "/usr/local/cuda-12.9/bin/nvcc",
            "/opt/cuda/bin/nvcc",
        ];
        for first in 0..files.len() {
            // One of the places is known without a variable.
            let from = (if first > 7 { first - 1 } else { first }).min(variables.len());
            let found = Described(&variables[from..], &files[first..]).find(&all);
            assert_eq!(found.as_deref(), Ok(files[first]), "without the first {first}");
        }
        let Err(NotFound::Nowhere(searched)) = Described(&[], &[]).find(&all) else { panic!() };
        assert_eq!(searched.summary(), "nvcc was not found");
    }

    #[test]
    fn an_nvcc_that_is_not_fit_is_passed_over_unless_it_was_named() {
        let files = ["/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"];
        let refuse_old = |path: &Path| match path.starts_with("/usr") {
            true => Err(Refusal::Unfit("version 11.8 is older than 12.3".into())),
            false => Ok(()),
        };
        assert_eq!(Described(&[], &files).find(&refuse_old).as_deref(), Ok(files[1]));
        let Err(NotFound::Nowhere(searched)) = Described(&[], &files[..1]).find(&refuse_old) else { panic!() };
        let text = searched.to_string();
        for part in
            ["ELBO_NVCC ", "not set", "/usr/local/cuda/bin/nvcc: version 11.8 is older", "/opt/cuda/bin/nvcc: no"]
        {
            assert!(text.contains(part), "{text}\nlacks {part}");
        }
        assert_eq!(searched.summary(), "no nvcc is usable (/usr/local/cuda/bin: version 11.8 is older than 12.3)");
        for name in ["ELBO_NVCC", "NVCC"] {
            let Err(NotFound::Fatal(text)) = Described(&[(name, files[0])], &files).find(&refuse_old) else { panic!() };
            assert!(text.contains(name) && text.contains("11.8"), "{text}");
        }
        let Err(NotFound::Fatal(text)) = Described(&[("ELBO_NVCC", "/gone")], &files).find(&all) else { panic!() };
        assert!(text.contains("ELBO_NVCC") && text.contains("/gone"), "{text}");
    }

    #[test]
    fn what_no_nvcc_can_help_ends_the_search() {
        let files = ["/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"];
        let found = Described(&[], &files).find(&|_| Err(Refusal::Fatal("no C++ compiler".into())));
        let Err(NotFound::Fatal(text)) = found else { panic!() };
        assert!(text.contains(files[0]) && text.contains("no C++ compiler"), "{text}");
    }

    #[test]
    fn a_named_program_may_be_a_name_on_the_path() {
        let files = ["/a/nvcc", "/b/nvcc-13"];
        let found = Described(&[("NVCC", "nvcc-13"), ("PATH", "/a:/b")], &files).find(&all);
        assert_eq!(found.as_deref(), Ok("/b/nvcc-13"));
    }

    #[test]
    fn wheels_of_both_layouts_are_found_and_the_newest_python_first() {
        let old = "/e/lib/python3.9/site-packages/nvidia/cuda_nvcc/bin/nvcc";
        let new = "/e/lib/python3.12/site-packages/nvidia/cu13/bin/nvcc";
        assert_eq!(Described(&[("VIRTUAL_ENV", "/e")], &[old, new]).find(&all).as_deref(), Ok(new));
        assert_eq!(Described(&[("VIRTUAL_ENV", "/e")], &[old]).find(&all).as_deref(), Ok(old));
        assert_eq!(Described(&[("CONDA_PREFIX", "/e")], &[old]).find(&all).as_deref(), Ok(old));
    }

    #[test]
    fn windows_is_searched_by_the_installers_variables() {
        let variables = [("CUDA_PATH_V12_4", "/v12.4"), ("CUDA_PATH_V13_0", "/v13.0"), ("PATH", "/x;/y")];
        let files = ["/v12.4/bin/nvcc.exe", "/v13.0/bin/nvcc.exe"];
        assert_eq!(Described(&variables, &files).find_on(true, &all).as_deref(), Ok(files[1]));
        assert_eq!(Described(&variables, &["/y/nvcc.exe"]).find_on(true, &all).as_deref(), Ok("/y/nvcc.exe"));
    }

    #[test]
    fn a_variable_behind_the_nvcc_that_is_taken_is_not_read() {
        let read = std::cell::RefCell::new(Vec::new());
        let variable = |name: &str| {
            read.borrow_mut().push(name.to_string());
            (name == "CUDA_HOME").then(|| "/c".to_string())
        };
        let project = Path::new("/project");
        let names = |_: &Path| Vec::new();
        let machine = Machine { variable: &variable, is_file: &|_| true, names: &names, windows: false, project };
        assert!(machine.find(&|_| Ok(())).is_ok());
        assert_eq!(*read.borrow(), ["ELBO_NVCC", "NVCC", "CUDA_HOME"]);
    }

    /// The build of the README's lines stays what it is when the variable of those lines is gone.
    #[test]
    fn the_environment_of_the_readme_is_found_without_its_variable() {
        let own = "/project/target/nvcc/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc";
        assert_eq!(Described(&[], &[own]).find(&all).as_deref(), Ok(own));
        let windows = "/project/target/nvcc/Lib/site-packages/nvidia/cu13/bin/nvcc.exe";
        assert_eq!(Described(&[], &[windows]).find_on(true, &all).as_deref(), Ok(windows));
        let read = std::cell::RefCell::new(Vec::new());
        let variable = |name: &str| {
            read.borrow_mut().push(name.to_string());
            (name == "VIRTUAL_ENV").then(|| "/project/target/nvcc".to_string())
        };
        let is_file = |path: &Path| path == Path::new(own);
        let names = |folder: &Path| match folder.ends_with("lib") {
            true => vec!["python3.11".to_string()],
            false => Vec::new(),
        };
        let project = Path::new("/project");
        let machine = Machine { variable: &variable, is_file: &is_file, names: &names, windows: false, project };
        assert!(machine.find(&|_| Ok(())).is_ok());
        assert!(!read.borrow().iter().any(|name| name == "VIRTUAL_ENV"), "cargo would build anew without it");
        let Err(NotFound::Nowhere(searched)) = Described(&[], &[]).find(&all) else { panic!() };
        assert!(searched.to_string().contains("target/nvcc"), "{searched}");
    }
}
