//! Images to learn from: IDX files, the built-in digits, binarisation, and the scale results are read on.
//!
//! * [`load`] finds the usual MNIST files in a folder; [`idx`] reads and writes the format.
//! * [`digits`] draws handwriting of its own, for those who have no files.
//! * [`Dataset::scale`] computes from the data what trivial models reach, so that a result can be judged.

pub mod digits;
pub mod file;
pub mod idx;
mod strokes;

use crate::engine::error::{Error, Result};
use crate::engine::rng::Draw;
use crate::vae::streams;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Which of the two sets of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What it is judged by.
    Test,
}

/// Grey images and, where known, what they show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Where the images come from, for people to read.
    pub name: String,
    /// Which set this is.
    pub split: Split,
    /// Grey values, 0 … 255, row-major `[rows, cols]`.
    pub images: Vec<u8>,
    /// Number of images.
    pub rows: usize,
    /// Pixels per image: width · height.
    pub cols: usize,
    /// Pixels per row of an image.
    pub width: usize,
    /// Rows of pixels of an image.
    pub height: usize,
    /// The class of each image.
    pub labels: Option<Vec<u8>>,
}

/// A training set and a test set of images of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    /// What the model learns from.
    pub train: Dataset,
    /// What it is judged by.
    pub test: Dataset,
}

/// What models that learn nothing reach, in nats per image: the scale on which a negative log-likelihood is read.
///
/// On grey pixels these are cross-entropies Σ −x ln p − (1−x) ln(1−p), which are also the expectations under dynamic
/// binarisation, x ~ Bernoulli(grey value).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// A fair coin per pixel: D·ln 2.
    pub coin: f64,
    /// One rate p for all pixels, their mean: D·H(p).
    pub one_rate: f64,
    /// One rate per pixel, its own mean over this set: Σ H(pᵢ). A model that ends here has collapsed.
    pub pixel_rates: f64,
    /// Mean of Σ H(xᵢ): what is left when the grey image itself is known. No model gets below; 0 for black and white.
    pub floor: f64,
}

impl Dataset {
    /// Image `row`, `cols` grey values.
    pub fn image(&self, row: usize) -> &[u8] {
        &self.images[row * self.cols..][..self.cols]
    }

    /// The first `count` images, all if there are fewer.
    pub fn first(&self, count: usize) -> Dataset {
        let rows = count.min(self.rows);
        let images = self.images[..rows * self.cols].to_vec();
        let labels = self.labels.as_ref().map(|labels| labels[..rows].to_vec());
        Dataset { name: self.name.clone(), images, rows, labels, ..*self }
    }

    /// Mean of all pixels, in [0, 1].
    pub fn mean_pixel(&self) -> f64 {
        self.pixel_sums().iter().sum::<u64>() as f64 / (255.0 * (self.rows * self.cols).max(1) as f64)
    }

    /// Mean of each pixel over the images, in [0, 1]. `[cols]`
    pub fn pixel_means(&self) -> Vec<f64> {
        self.pixel_sums().iter().map(|&sum| sum as f64 / (255.0 * self.rows.max(1) as f64)).collect()
    }

    /// Black and white by a threshold: grey values above 127 become 255, the others 0.
    pub fn binarise_threshold(&self) -> Dataset {
        Dataset { images: self.images.iter().map(|&grey| if grey > 127 { 255 } else { 0 }).collect(), ..self.clone() }
    }

    /// Black and white by one draw per pixel, made once: white with probability grey/255.
    ///
    /// Pixel i of image n is a pure function of `seed`, n and i; the training and the test set draw from different
    /// streams.
    pub fn binarise_fixed(&self, seed: u64) -> Dataset {
        let mut images = self.images.clone();
        let stream = streams::FIXED_PIXELS + self.split as u32;
        images.par_chunks_mut(self.cols.max(1)).with_min_len(64).enumerate().for_each(|(row, image)| {
            let draw = Draw { seed, step: row as u32, stream };
            let mut noise = vec![0.0; image.len()];
            draw.fill_uniform(crate::engine::isa::Isa::detect(), 0, &mut noise);
            for (pixel, u) in image.iter_mut().zip(noise) {
                *pixel = if u * 255.0 < *pixel as f32 { 255 } else { 0 };
            }
        });
        Dataset { images, ..self.clone() }
    }

    /// What trivial models reach on this set.
    pub fn scale(&self) -> Scale {
        let mut histogram = [0u64; 256];
        for &grey in &self.images {
            histogram[grey as usize] += 1;
        }
        let floor: f64 = (0..256).map(|grey| histogram[grey] as f64 * entropy(grey as f64 / 255.0)).sum();
        let pixels = self.cols as f64;
        Scale {
            coin: pixels * std::f64::consts::LN_2,
            one_rate: pixels * entropy(self.mean_pixel()),
            pixel_rates: self.pixel_means().into_iter().map(entropy).sum(),
            floor: floor / self.rows.max(1) as f64,
        }
    }

    /// Sum over the pixels of their variance about their own means, grey values in [0, 1].
    ///
    /// With V this number, a Gaussian of one mean per pixel and one shared variance fits best at σ² = V/D and
    /// reaches D/2·(ln(2πV/D) + 1) nats per image: the scale's collapse line for a Gaussian likelihood.
    pub fn pixel_variance(&self) -> f64 {
        let mut squares = vec![0u64; self.cols];
        for image in self.images.chunks_exact(self.cols.max(1)) {
            for (sum, &grey) in squares.iter_mut().zip(image) {
                *sum += u64::from(grey) * u64::from(grey);
            }
        }
        let rows = self.rows.max(1) as f64;
        let mean_squares = squares.iter().map(|&sum| sum as f64 / (255.0 * 255.0 * rows));
        mean_squares.zip(self.pixel_means()).map(|(square, mean)| square - mean * mean).sum()
    }

    /// Sum of each pixel's grey values over the images, exactly. `[cols]`
    fn pixel_sums(&self) -> Vec<u64> {
        let mut sums = vec![0; self.cols];
        for image in self.images.chunks_exact(self.cols.max(1)) {
            for (sum, &grey) in sums.iter_mut().zip(image) {
                *sum += u64::from(grey);
            }
        }
        sums
    }
}

/// H(p) = −p ln p − (1−p) ln(1−p), with 0 ln 0 = 0.
fn entropy(p: f64) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    term(p) + term(1.0 - p)
}

impl Splits {
    /// The built-in digits: `train` and `test` images of `seed`.
    pub fn digits(seed: u64, train: usize, test: usize) -> Splits {
        use digits::Digits;
        Splits { train: Digits::dataset(seed, Split::Train, train), test: Digits::dataset(seed, Split::Test, test) }
    }

    /// Tells these images from others: 64-bit FNV-1a over sizes and grey values of both sets, in hexadecimal. Labels do not
    /// count, because nothing is learned from them. Against accidents, not against forgery.
    pub fn fingerprint(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut take =
            |bytes: &[u8]| bytes.iter().for_each(|&b| hash = (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        for set in [&self.train, &self.test] {
            [set.rows, set.height, set.width].into_iter().for_each(|size| take(&(size as u64).to_le_bytes()));
            take(&set.images);
        }
        format!("{hash:016x}")
    }
}

/// Loads the training and the test set from a folder with the usual MNIST file names.
///
/// Names tried: `train`, and `t10k` or `test`, then `-images-idx3-ubyte`, `-images.idx3-ubyte` or `-images.idx` (labels
/// alike, with `idx1`), each also with `.gz`; in the folder, its `raw` and its `MNIST/raw`. Labels may be missing.
///
/// # Errors
/// [`Error::File`] if the images of a set are not found (it lists what was searched), a file is malformed, labels and
/// images differ in number, or the two sets differ in image size; [`Error::Io`] if reading fails.
pub fn load(folder: &Path) -> Result<Splits> {
    let kind = std::fs::metadata(folder).map_err(Error::io("read", folder))?;
    if !kind.is_dir() {
        let remedy = "give the folder in which the files lie".into();
        let (found, expected) = ("a file".into(), "a folder with MNIST's four IDX files".into());
        return Err(Error::File { path: folder.into(), field: "data".into(), found, expected, remedy });
    }
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
    let file = find(folder, split, "images", 3).map_err(|names| not_found(folder, split, &names))?;
    let idx::Images { count: rows, height, width, pixels: images } = idx::read_images(&file)?;
    let labels = match find(folder, split, "labels", 1) {
        Err(_) => None,
        Ok(path) => {
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

/// The first of the usual names that exists, or all names that were tried.
fn find(folder: &Path, split: Split, content: &str, dimensions: u8) -> std::result::Result<PathBuf, Vec<String>> {
    let prefixes: &[&str] = match split {
        Split::Train => &["train"],
        Split::Test => &["t10k", "test"],
    };
    let mut names = Vec::new();
    for prefix in prefixes {
        for middle in [format!("-idx{dimensions}-ubyte"), format!(".idx{dimensions}-ubyte"), ".idx".to_string()] {
            for end in ["", ".gz"] {
                names.push(format!("{prefix}-{content}{middle}{end}"));
            }
        }
    }
    let folders = FOLDERS.map(|inner| folder.join(inner));
    let found =
        folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).find(|path| path.is_file());
    found.ok_or(names)
}

/// Where files are searched, below the folder given: `torchvision` puts them into the last of these.
const FOLDERS: [&str; 3] = ["", "raw", "MNIST/raw"];

fn not_found(folder: &Path, split: Split, names: &[String]) -> Error {
    let what = match split {
        Split::Train => "training images",
        Split::Test => "test images",
    };
    Error::File {
        path: folder.into(),
        field: what.into(),
        found: format!("none of the names searched, nor in its folders {} and {}", FOLDERS[1], FOLDERS[2]),
        expected: format!("one of {}", names.join(", ")),
        remedy: "put MNIST's four IDX files there, or leave the folder out to use the built-in digits".into(),
    }
}
