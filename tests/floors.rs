//! Floors, and nobody looks up: no folder of `src` imports one that stands above it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each folder of `src` with those it may import besides itself.
const FLOORS: [(&str, &[&str]); 7] = [
    ("engine", &[]),
    ("vae", &["engine"]),
    ("data", &["engine", "vae"]),
    ("train", &["engine", "vae", "data"]),
    ("study", &["engine", "vae", "data", "train"]),
    ("bench", &["engine", "vae", "data", "train", "study"]),
    ("cli", &["engine", "vae", "data", "train", "study", "bench"]),
];

/// Source text without comments, so that links of the documentation may point anywhere.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first segments of what `text`, which follows a `::`, names: one, or those of a group in braces.
fn first_segments(text: &str) -> Vec<&str> {
    let text = text.trim_start();
    let Some(group) = text.strip_prefix('{') else { return vec![identifier(text)] };
    let (mut depth, mut begins, mut found) = (0, true, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                found.push(identifier(&group[i..]));
                begins = false;
            }
            _ => {}
        }
    }
    found
}

/// What follows each `way` in `code` that is the beginning of a path.
fn after<'a>(code: &'a str, way: &str) -> impl Iterator<Item = &'a str> {
    let begins = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
    code.match_indices(way).filter(move |(at, _)| begins(*at)).map(|(at, way)| &code[at + way.len()..])
}

/// The names at the crate's root that `code` reaches: all that stand behind `crate::`, and the floors behind as many
/// `super::` as lead out of a module that lies `depth` modules below the root, or out of one within it.
fn root_names(code: &str, depth: usize) -> Vec<&str> {
    let ups = "super::".repeat(depth);
    let above = after(code, &ups).flat_map(|rest| first_segments(rest.trim_start_matches("super::")));
    let floors = above.filter(|name| FLOORS.iter().any(|(floor, _)| floor == name));
    after(code, "crate::").flat_map(first_segments).chain(floors).collect()
}

/// Which folder a name at the root belongs to: its own, or that which the root takes it from.
fn owners() -> BTreeMap<String, &'static str> {
    let root = code(&fs::read_to_string("src/lib.rs").unwrap());
    let mut owner = BTreeMap::new();
    for (floor, _) in FLOORS {
        owner.insert(floor.to_string(), floor);
        for (at, start) in root.match_indices(&format!("pub use {floor}::")) {
            let names = root[at + start.len()..].split(';').next().unwrap_or_default();
            let names = names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
            owner.extend(names.map(|name| (name.to_string(), floor)));
        }
    }
    owner
}

/// Every file below `folder` with its depth in modules below the root.
fn files(folder: &Path, depth: usize) -> Vec<(PathBuf, usize)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, depth + 1));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let own = path.file_name().is_some_and(|name| name != "mod.rs");
            found.push((path, depth + usize::from(own)));
        }
    }
    found.sort();
    found
}

#[test]
fn no_floor_imports_one_above_it() {
    let owners = owners();
    let mut wrong = Vec::new();
    for (floor, below) in FLOORS {
        for (path, depth) in files(&Path::new("src").join(floor), 1) {
            let text = code(&fs::read_to_string(&path).unwrap());
            for name in root_names(&text, depth) {
                let owner = owners.get(name).copied();
                if owner.is_none_or(|owner| owner != floor && !below.contains(&owner)) {
                    wrong.push(format!("{}: crate::{name}, of {}", path.display(), owner.unwrap_or("no floor")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "a floor may import those below it only:\n{}", wrong.join("\n"));
}

/// Command structs are named as the command is, which may be the name of what it prints or draws.
fn is_a_command(path: &Path, name: &str) -> bool {
    let of_file = path.file_stem().unwrap().to_string_lossy().replace('_', "");
    path.starts_with("src/cli") && of_file == name.to_lowercase()
}

/// The types that a file makes, those in functions, macros and modules apart.
fn types(text: &str) -> Vec<&str> {
    let of_line = |line| {
        let words = ["pub ", "pub(crate) ", "pub(super) ", "unsafe "];
        let line = words.iter().fold(line, |line: &str, word| line.strip_prefix(word).unwrap_or(line));
        let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
        kinds.iter().find_map(|kind| line.strip_prefix(kind)).map(identifier)
    };
    text.lines().filter_map(of_line).collect()
}

#[test]
fn a_type_has_a_name_of_its_own() {
    let mut made: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let of_tests = ["tests.rs", "power.rs"];
    for (path, _) in files(Path::new("src"), 0) {
        if of_tests.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for name in types(&fs::read_to_string(&path).unwrap()).into_iter().filter(|name| !is_a_command(&path, name)) {
            made.entry(name.into()).or_default().push(path.display().to_string());
        }
    }
    assert!(made.len() > 300, "only {} types were found", made.len());
    made.retain(|_, places| places.len() > 1);
    assert!(made.is_empty(), "two types of one name: {made:#?}");
}

#[test]
fn every_folder_is_a_floor() {
    let folders = fs::read_dir("src").unwrap().map(|e| e.unwrap().path()).filter(|path| path.is_dir());
    let mut found: Vec<String> = folders.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let mut known = FLOORS.map(|(floor, _)| floor.to_string()).to_vec();
    found.sort();
    known.sort();
    assert_eq!(found, known);
    // Each floor imports only what stands before it in the table.
    for (i, (_, below)) in FLOORS.iter().enumerate() {
        assert!(below.iter().all(|b| FLOORS[..i].iter().any(|(floor, _)| floor == b)));
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let text = code(
        "use crate::engine::Var; // crate::cli
         //! [`crate::study`]
         use crate::{Graph, vae::{DeviceVae, bound::Bound},
                     train};
         fn f(x: crate::data::Images) -> usize { super::super::bench::g(x) }
         macro_rules! m { () => { $crate::study } }
         mod tests { use super::super::super::cli; }
         use super::other;",
    );
    let mut found = root_names(&text, 2);
    found.sort_unstable();
    assert_eq!(found, ["Graph", "bench", "cli", "data", "engine", "study", "train", "vae"]);
}
