//! What images say to a model that takes no z.

/// What one trivial model reaches.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// −log p(x), or the best that a model without z can reach of it, in nats per image.
    pub nats: f64,
    /// Which model.
    pub what: String,
    /// Whether it is one distribution per pixel of the likelihood's kind: a model that ends there has collapsed.
    pub collapsed: bool,
}

impl Baseline {
    /// A line of the scale that says nothing of collapse.
    pub(super) fn new(nats: f64, what: impl Into<String>) -> Baseline {
        Baseline { nats, what: what.into(), collapsed: false }
    }

    /// The line at which a model that ignores z ends.
    pub(super) fn collapsed(nats: f64, what: impl Into<String>) -> Baseline {
        Baseline { collapsed: true, ..Baseline::new(nats, what) }
    }
}

/// How often each pixel has each grey value: all that a model without z can know of a set of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histograms {
    images: usize,
    /// `[D]`, each `[256]`.
    counts: Vec<[u32; 256]>,
}

impl Histograms {
    /// Those of images of so many pixels, row-major `[N, D]`, 255 for white.
    pub fn new(images: &[u8], pixels: usize) -> Histograms {
        let mut counts = vec![[0; 256]; pixels];
        let rows = images.chunks_exact(pixels.max(1));
        let number = rows.len();
        for image in rows {
            counts.iter_mut().zip(image).for_each(|(counts, &grey)| counts[usize::from(grey)] += 1);
        }
        Histograms { images: number, counts }
    }

    /// D.
    pub fn pixels(&self) -> usize {
        self.counts.len()
    }

    /// N, and 1 if there are no images, for means.
    pub(super) fn images(&self) -> f64 {
        self.images.max(1) as f64
    }

    /// The number of images for each pixel and grey value, `[D]`, each `[256]`.
    pub(super) fn counts(&self) -> &[[u32; 256]] {
        &self.counts
    }

    /// Σ grey^power of each pixel over the images, exactly. `[D]`
    fn sums(&self, power: u32) -> impl Iterator<Item = u64> {
        self.counts.iter().map(move |counts| {
            let terms = (0u64..).zip(counts).map(|(grey, &n)| grey.pow(power) * u64::from(n));
            terms.sum()
        })
    }

    /// The mean of all pixels, in [0, 1].
    pub fn mean(&self) -> f64 {
        let all = (self.images * self.pixels()).max(1) as f64;
        self.sums(1).sum::<u64>() as f64 / (255.0 * all)
    }

    /// The mean of each pixel over the images, in [0, 1]. `[D]`
    pub fn means(&self) -> Vec<f64> {
        self.sums(1).map(|sum| sum as f64 / (255.0 * self.images())).collect()
    }

    /// The variance of each pixel over the images, grey values in [0, 1]; but for rounding, at least 0. `[D]`
    pub fn variances(&self) -> Vec<f64> {
        let squares = self.sums(2).map(|sum| sum as f64 / (255.0 * 255.0 * self.images()));
        squares.zip(self.means()).map(|(square, mean)| square - mean * mean).collect()
    }

    /// Sum over the pixels of their variance about their own means.
    ///
    /// With V this number, a Gaussian of one mean per pixel and one shared variance fits best at σ² = V/D and reaches
    /// D/2·(ln(2πV/D) + 1) nats per image.
    pub fn variance(&self) -> f64 {
        self.variances().iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::two_images;
    use super::*;

    #[test]
    fn moments_are_those_of_the_images() {
        let images = two_images();
        assert_eq!((images.pixels(), images.mean(), images.means()), (2, 0.75, vec![0.5, 1.0]));
        assert_eq!((images.variances(), images.variance()), (vec![0.25, 0.0], 0.25));
        let none = Histograms::new(&[], 2);
        assert_eq!((none.mean(), none.means(), none.variance()), (0.0, vec![0.0, 0.0], 0.0));
    }
}
