//! A model in a page: the file that carries it, and what the page asks of it.
//!
//! `elbo explore` writes one HTML file with this engine as WebAssembly in it (the crate `explore/`, which hands the functions
//! here to JavaScript) and a [`Bundle`]: a trained model and test images. Every image, density, slope, draw and update is
//! the engine's; sums over them are the page's. Read [`view`] (what is asked), [`practice`] (a training in the page),
//! [`bundle`] (the bytes), [`golden`] (how it is known that the page computes the same).
//!
//! The same: to the bit, for WebAssembly has neither a fused multiply-add nor a choice of instructions, and neither has
//! [`Isa::Portable`](crate::engine::isa::Isa::Portable), whose kernels the numbers of [`Golden`] come from. Wider instruction
//! sets fuse, and differ from both in the last bits.

pub mod bundle;
pub mod golden;
pub mod practice;
pub mod site;
pub mod view;

pub use bundle::{Bundle, Caption};
pub use golden::Golden;
pub use practice::{Practice, PracticeConfig, Stretch};
pub use site::Surroundings;
pub use view::{ModelView, PointWeights};

use serde_json::{Value, json};

use crate::engine::error::Result;
use crate::vae::{DeviceVae, Evaluation, Histograms};

/// The data set of the images that a page shows.
pub(crate) const SHOWN: &str = "shown";
/// The seed of the page's evaluations.
const SEED: u64 = 1;

/// A model with images: one that was trained, or one that is being trained in the page.
pub enum Exhibit {
    /// From a [`Bundle`].
    Trained(Box<Trained>),
    /// In training.
    Practice(Box<Practice>),
}

/// A model as a [`Bundle`] has it, at work.
pub struct Trained {
    pub(crate) bundle: Bundle,
    pub(crate) model: DeviceVae,
    pub(crate) view: ModelView,
}

/// Images of which the model says what it thinks.
pub struct ShownImages<'a> {
    /// Grey values, `[N, D]`.
    pub images: &'a [u8],
    /// The class of each.
    pub labels: Option<&'a [u8]>,
}

impl ShownImages<'_> {
    /// Image `i` as the model sees it, in [0, 1]; none beyond the last.
    pub fn image(&self, i: usize, pixels: usize) -> Option<Vec<f32>> {
        let bytes = self.images.chunks_exact(pixels).nth(i)?;
        Some(bytes.iter().map(|&b| f32::from(b) / 255.0).collect())
    }

    /// All of them, in [0, 1].
    pub fn all(&self) -> Vec<f32> {
        self.images.iter().map(|&b| f32::from(b) / 255.0).collect()
    }
}

impl Exhibit {
    /// The model, and what is asked of it.
    pub fn parts(&mut self) -> (&mut DeviceVae, &mut ModelView) {
        match self {
            Exhibit::Trained(own) => (&mut own.model, &mut own.view),
            Exhibit::Practice(own) => own.parts(),
        }
    }

    /// Its images.
    pub fn shown(&self) -> ShownImages<'_> {
        match self {
            Exhibit::Trained(own) => ShownImages { images: &own.bundle.images, labels: own.bundle.classes() },
            Exhibit::Practice(own) => own.shown(),
        }
    }

    /// What the page says of it: sizes, likelihood, names.
    pub fn info(&mut self) -> Value {
        let pixels = self.parts().0.vae.config.pixels();
        let images = self.shown();
        let histograms = Histograms::new(images.images, pixels);
        let (bytes, labels) = (images.images.len(), images.labels.is_some());
        let config = &self.parts().0.vae.config;
        let baselines = config.likelihood.baselines(&histograms);
        let baselines: Vec<Value> = baselines.iter().map(|b| json!({ "nats": b.nats, "what": b.what })).collect();
        let mut info = json!({
            "latent": config.latent,
            "pixels": pixels,
            "width": config.image[1],
            "height": config.image[0],
            "likelihood": config.likelihood.name(),
            "binary": config.is_binary(),
            "architecture": config.describe(),
            "sigma": config.likelihood.floor().is_some(),
            "images": bytes / pixels,
            "labels": labels,
            "baselines": baselines,
        });
        let more = match self {
            Exhibit::Trained(own) => own.bundle.about(),
            Exhibit::Practice(own) => own.about(),
        };
        if let (Value::Object(info), Value::Object(more)) = (&mut info, more) {
            info.extend(more);
        }
        info
    }

    /// q's means of its images, `[N, K]`.
    ///
    /// # Errors
    /// From the executor.
    pub fn means(&mut self) -> Result<Vec<f32>> {
        let x = self.shown().all();
        let (model, view) = self.parts();
        view.encode(model, &x).map(|encoded| encoded.mu)
    }

    /// −ELBO of its images, one draw of z each; of a training, of its test images with the seed of the training.
    ///
    /// # Errors
    /// From the executor.
    pub fn evaluate(&mut self) -> Result<Evaluation> {
        match self {
            Exhibit::Trained(own) => own.model.evaluate(SHOWN, SEED),
            Exhibit::Practice(own) => own.evaluate(),
        }
    }
}
