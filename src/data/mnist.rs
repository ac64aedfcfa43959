//! A folder with MNIST's four IDX files, under any of the names that are usual for them.
//!
//! Names tried: `train`, and `t10k` or `test`, then `-images-idx3-ubyte`, `-images.idx3-ubyte` or `-images.idx` (labels
//! alike, with `idx1`), each also with `.gz`; in the folder, its `raw` and its `MNIST/raw`. Labels may be missing.

use std::path::{Path, PathBuf};

use super::format::Format;
use super::{Dataset, Split, Splits, idx};
use crate::engine::error::{Error, Result};

/// What the list of formats has of this one.
pub(super) const FORMAT: Format = Format { expects, recognises, read };

fn expects() -> String {
    format!("MNIST's four IDX files, of which the first is {}", names(Split::Train, "images", 3).join(", "))
}

/// Whether one of the two sets has images here: of the other it is then said that it is missing.
fn recognises(folder: &Path) -> bool {
    [Split::Train, Split::Test].into_iter().any(|split| find(folder, split, "images", 3).is_some())
}

/// Both sets.
fn read(folder: &Path) -> Result<Splits> {
    let (train, _) = load_split(folder, Split::Train)?;
    let (test, test_file) = load_split(folder, Split::Test)?;
    if (train.width, train.height) != (test.width, test.height) {
        return Err(Error::File {
            path: test_file,
            field: "width × height".into(),
            found: format!("{} × {}", test.width, test.height),
            expected: format!("{} × {}, as in the training set", train.width, train.height),
            remedy: "put the two sets of one data set into the folder".into(),
        });
    }
    Ok(Splits { train, test })
}

/// One set and the file its images come from.
fn load_split(folder: &Path, split: Split) -> Result<(Dataset, PathBuf)> {
    let file = find(folder, split, "images", 3).ok_or_else(|| not_found(folder, split))?;
    let idx::Images { count: rows, height, width, pixels: images } = idx::read_images(&file)?;
    let labels = match find(folder, split, "labels", 1) {
        None => None,
        Some(path) => {
            let labels = idx::read_labels(&path)?;
            if labels.len() != rows {
                return Err(Error::File {
                    path,
                    field: "count".into(),
                    found: format!("{} labels", labels.len()),
                    expected: format!("{rows}, one for each image in {}", file.display()),
                    remedy: "put labels and images of one data set into the folder, or remove the labels".into(),
                });
            }
            Some(labels)
        }
    };
    let name = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| folder.display().to_string());
    Ok((Dataset { name, split, images, rows, cols: width * height, width, height, labels }, file))
}

/// Where files are searched, below the folder given: `torchvision` puts them into the last of these.
const FOLDERS: [&str; 3] = ["", "raw", "MNIST/raw"];

/// The usual names of a file.
fn names(split: Split, content: &str, dimensions: u8) -> Vec<String> {
    let prefixes: &[&str] = match split {
        Split::Train => &["train"],
        Split::Test => &["t10k", "test"],
    };
    let mut names = Vec::new();
    for prefix in prefixes {
        for middle in [format!("-idx{dimensions}-ubyte"), format!(".idx{dimensions}-ubyte"), ".idx".to_string()] {
            names.extend(["", ".gz"].map(|end| format!("{prefix}-{content}{middle}{end}")));
        }
    }
    names
}

/// The first of the usual names that exists.
fn find(folder: &Path, split: Split, content: &str, dimensions: u8) -> Option<PathBuf> {
    let names = names(split, content, dimensions);
    let folders = FOLDERS.map(|inner| folder.join(inner));
    folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).find(|path| path.is_file())
}

fn not_found(folder: &Path, split: Split) -> Error {
    let what = match split {
        Split::Train => "training images",
        Split::Test => "test images",
    };
    Error::File {
        path: folder.into(),
        field: what.into(),
        found: format!("none of the names searched, nor in its folders {} and {}", FOLDERS[1], FOLDERS[2]),
        expected: format!("one of {}", names(split, "images", 3).join(", ")),
        remedy: "put them beside the images of the other set".into(),
    }
}
