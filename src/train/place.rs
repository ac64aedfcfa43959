//! Paths as they are seen from another folder.

use std::path::{Component, Path, PathBuf};

/// `path` as it is seen from the folder `base`, which need not exist yet: a relative path, unless they are on two drives.
pub(super) fn seen_from(path: &Path, base: &Path) -> PathBuf {
    // A link at the end of the path is kept: where it leads may change.
    let path = match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => physical(folder).join(name),
        _ => physical(path),
    };
    let base = physical(base);
    let shared = path.components().zip(base.components()).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return path;
    }
    let up = base.components().skip(shared).map(|_| Component::ParentDir);
    let seen: PathBuf = up.chain(path.components().skip(shared)).collect();
    if seen.as_os_str().is_empty() { ".".into() } else { seen }
}

/// The absolute path without links and dots, as far as it exists: the parent of a folder behind a link is not `..`.
fn physical(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let there = whole.ancestors().find_map(|above| Some((above.canonicalize().ok()?, whole.strip_prefix(above).ok()?)));
    let Some((mut found, rest)) = there else { return whole };
    for part in rest.components() {
        match part {
            Component::ParentDir => drop(found.pop()),
            part => found.push(part),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_leads_from_the_run_to_the_data() {
        // Tests run in the package's folder.
        for (path, base, seen) in [
            ("src/data", "src/train", "../data"),
            ("no/data", "no/run", "../data"),
            ("data", "data/runs/a", "../.."),
            (".", "runs/a", "../.."),
            ("src", "src", "."),
            ("src/../data", "./x", "../data"),
        ] {
            assert_eq!(seen_from(Path::new(path), Path::new(base)), Path::new(seen), "{path} from {base}");
        }
        let above = seen_from(Path::new("../mnist"), Path::new("runs/a"));
        assert!(above.ends_with("mnist") && above.starts_with("../../.."), "{}", above.display());
    }

    #[cfg(unix)]
    #[test]
    fn a_run_behind_a_link_finds_its_data() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("far/runs")).unwrap();
        std::fs::create_dir(at("data")).unwrap();
        std::os::unix::fs::symlink("far/runs", at("runs")).unwrap();
        let here = std::env::current_dir().unwrap();
        // A relative name of the temporary folder, whatever the current one is.
        let up: PathBuf = here.components().skip(1).map(|_| Component::ParentDir).collect();
        let name = |inner: &str| up.join(folder.path().strip_prefix("/").unwrap()).join(inner);
        let seen = seen_from(&name("data"), &at("runs/a"));
        assert_eq!(seen, Path::new("../../../data"), "from where the run really is");
    }
}
