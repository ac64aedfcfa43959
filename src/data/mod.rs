//! Images to learn from: IDX files, the built-in digits, binarisation.
//!
//! * [`load`] reads a folder in any of the formats it knows (a list of one line each); [`idx`] reads and writes IDX files.
//! * [`digits`] draws handwriting of its own, for those who have no files.
//! * [`Dataset::histograms`] are what trivial models know, so that a result can be judged.

pub mod digits;
mod format;
pub mod idx;
mod mnist;
mod strokes;

use crate::engine::error::{Error, Result};
use crate::engine::rng::Draw;
use crate::vae::{Binarisation, DeviceVae, Histograms, streams};
use rayon::prelude::*;
use std::borrow::Cow;
use xxhash_rust::xxh3::Xxh3;

pub use format::load;

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

    /// How often each pixel has each grey value.
    pub fn histograms(&self) -> Histograms {
        Histograms::new(&self.images, self.cols)
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

    /// The data set to keep in memory for a model of such pixels: what can be done once is done here, and
    /// [`Binarisation::apply`] does the rest.
    ///
    /// The draw of [`Binarisation::Fixed`] does not depend on a run's seed: it belongs to the data.
    pub fn prepared(&self, binarisation: Binarisation) -> Cow<'_, Dataset> {
        match binarisation {
            Binarisation::Grey | Binarisation::Dynamic => Cow::Borrowed(self),
            Binarisation::Threshold => Cow::Owned(self.binarise_threshold()),
            Binarisation::Fixed => Cow::Owned(self.binarise_fixed(0)),
        }
    }

    /// Tells these images from others: XXH3 over their sizes and grey values, 64 bits in hexadecimal. Labels do not count,
    /// because nothing is learned from them. Against accidents, not against forgery.
    pub fn hash(&self) -> String {
        let mut hash = Xxh3::new();
        [self.rows, self.height, self.width].into_iter().for_each(|size| hash.update(&(size as u64).to_le_bytes()));
        hash.update(&self.images);
        format!("{:016x}", hash.digest())
    }

    /// Loads the images into the data set `name` of a model, binarised as it wants them.
    ///
    /// # Errors
    /// [`Error::File`] when the images are not of the model's size; [`Error::Device`] when there is no room for them.
    pub fn load_into(&self, model: &mut DeviceVae, name: &str) -> Result<()> {
        let [height, width] = model.vae.config.image;
        if (self.height, self.width) != (height, width) {
            return Err(Error::File {
                path: self.name.clone().into(),
                field: "image size".into(),
                found: format!("{} × {} pixels", self.height, self.width),
                expected: format!("{height} × {width}, as the model was made for"),
                remedy: "use images of that size, or train a model on these".into(),
            });
        }
        model.load(name, &self.prepared(model.vae.config.binarisation).images)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binarisations_do_what_their_names_say() {
        let images = (0..=255).cycle().take(25600).collect();
        let (name, split, labels) = ("ramps".to_string(), Split::Train, None);
        let data = Dataset { name, split, images, rows: 100, cols: 256, width: 16, height: 16, labels };
        assert_eq!(*data.prepared(Binarisation::Grey), data);
        let cut = data.prepared(Binarisation::Threshold);
        assert_eq!((cut.images[127], cut.images[128]), (0, 255));
        let fixed = data.prepared(Binarisation::Fixed);
        assert_eq!(fixed, data.prepared(Binarisation::Fixed));
        let white = fixed.images.iter().filter(|&&b| b == 255).count();
        assert!(fixed.images.iter().all(|b| [0, 255].contains(b)) && (12_300..13_300).contains(&white), "{white}");
    }
}
