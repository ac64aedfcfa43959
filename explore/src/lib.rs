//! The engine of `elbo` for a page: what [`elbo::study::explore`] computes, behind a C interface for JavaScript
//! (`src/study/explore/engine.js`).
//!
//! JavaScript `reserve`s memory for what it hands over and `release`s it; a call returns 1, or 0 when it failed. What it
//! computed lies in the answer until the next call, part by part (`answer`, `answer_bytes`); why it failed is in the
//! message (`message`, `message_bytes`). A panic leaves its message there too, before the module stops: no module that
//! panicked is to be called again. Nothing is imported.
//!
//! Elsewhere than in WebAssembly the crate is empty: `open` and `close` are names that other systems have given away.
#![cfg(target_arch = "wasm32")]

mod memory;
mod world;

use elbo::engine::isa::Isa;
use elbo::study::explore::{Bundle, Exhibit, Practice, PracticeConfig};
use elbo::{Device, Error, Executor};

use memory::{bytes, floats};
use world::{Answer, ask, enter, leave};

fn executor() -> Result<Executor, Error> {
    Device::Cpu { threads: 1 }.open()
}

/// Whether the kernels for 128-bit vectors are in this module.
#[unsafe(no_mangle)]
pub extern "C" fn simd() -> u32 {
    u32::from(Isa::detect() == Isa::Simd128)
}

/// Opens a model from the bytes of a bundle. Returns its number, or 0.
///
/// # Safety
/// `at` is the address of `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(at: *const u8, count: usize) -> u32 {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(at, count) };
    enter(|| Ok(Exhibit::Trained(Box::new(Bundle::decode(bytes)?.open(executor()?)?))))
}

/// Begins a training with the configuration in a JSON text. Returns its number, or 0.
///
/// # Safety
/// `at` is the address of `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn practice(at: *const u8, count: usize) -> u32 {
    // SAFETY: the caller's promise.
    let text = unsafe { bytes(at, count) };
    enter(|| {
        let config: PracticeConfig = serde_json::from_slice(text)
            .map_err(|e| Error::argument("training", e, "sizes, a learning rate and a seed, by their names"))?;
        Ok(Exhibit::Practice(Box::new(Practice::new(config, executor()?)?)))
    })
}

/// Forgets a model or a training.
#[unsafe(no_mangle)]
pub extern "C" fn close(number: u32) {
    leave(number);
}

/// JSON: what there is to know of a model.
#[unsafe(no_mangle)]
pub extern "C" fn info(number: u32) -> u32 {
    ask(number, |exhibit| Ok(Answer::text(&exhibit.info())))
}

/// E[x|z] of points; then the spread of the pixels, if the likelihood has one.
///
/// # Safety
/// `z` is the address of `count` floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn decode(number: u32, z: *const f32, count: usize) -> u32 {
    // SAFETY: the caller's promise.
    let z = unsafe { floats(z, count) };
    ask(number, |exhibit| {
        let (model, view) = exhibit.parts();
        let (mean, sigma) = view.decode(model, z)?;
        Ok(Answer::default().floats(mean).floats(sigma.unwrap_or_default()))
    })
}

/// x ~ p(x|z) of one point.
///
/// # Safety
/// `z` is the address of `count` floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn throw_image(number: u32, z: *const f32, count: usize, seed: f64) -> u32 {
    // SAFETY: the caller's promise.
    let z = unsafe { floats(z, count) };
    ask(number, |exhibit| {
        let (model, view) = exhibit.parts();
        Ok(Answer::default().floats(view.throw(model, z, seed as u64)?))
    })
}

/// μ and log σ² of q(z|x) of images.
///
/// # Safety
/// `x` is the address of `count` floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn encode(number: u32, x: *const f32, count: usize) -> u32 {
    // SAFETY: the caller's promise.
    let x = unsafe { floats(x, count) };
    ask(number, |exhibit| {
        let (model, view) = exhibit.parts();
        let q = view.encode(model, x)?;
        Ok(Answer::default().floats(q.mu).floats(q.logvar))
    })
}

/// log p(x|z), log p(z) and log q(z|x) of an image and points.
///
/// # Safety
/// `x` and `z` are the addresses of so many floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn log_weights(number: u32, x: *const f32, pixels: usize, z: *const f32, count: usize) -> u32 {
    // SAFETY: the caller's promise.
    let (x, z) = unsafe { (floats(x, pixels), floats(z, count)) };
    ask(number, |exhibit| {
        let (model, view) = exhibit.parts();
        view.log_weights(model, x, z).map(Answer::points)
    })
}

/// The slopes of the three in z.
///
/// # Safety
/// As [`log_weights`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slopes(number: u32, x: *const f32, pixels: usize, z: *const f32, count: usize) -> u32 {
    // SAFETY: the caller's promise.
    let (x, z) = unsafe { (floats(x, pixels), floats(z, count)) };
    ask(number, |exhibit| {
        let (model, view) = exhibit.parts();
        view.slopes(model, x, z).map(Answer::points)
    })
}

/// `count` points z ~ N(0, I).
#[unsafe(no_mangle)]
pub extern "C" fn prior_draws(number: u32, count: usize, seed: f64) -> u32 {
    ask(number, |exhibit| {
        let (model, view) = exhibit.parts();
        Ok(Answer::default().floats(view.prior_draws(model, count, seed as u64)))
    })
}

/// `count` points z ~ q(z|x) of an image.
///
/// # Safety
/// `x` is the address of so many floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn encoder_draws(number: u32, x: *const f32, pixels: usize, count: usize, seed: f64) -> u32 {
    // SAFETY: the caller's promise.
    let x = unsafe { floats(x, pixels) };
    ask(number, |exhibit| {
        let (model, view) = exhibit.parts();
        Ok(Answer::default().floats(view.encoder_draws(model, x, count, seed as u64)?))
    })
}

/// All images, in [0, 1]; then their labels as floats, if they are known.
#[unsafe(no_mangle)]
pub extern "C" fn images(number: u32) -> u32 {
    ask(number, |exhibit| {
        let shown = exhibit.shown();
        let labels = shown.labels.unwrap_or_default().iter().map(|&label| f32::from(label));
        Ok(Answer::default().floats(shown.all()).floats(labels.collect()))
    })
}

/// q's means of all images.
#[unsafe(no_mangle)]
pub extern "C" fn means(number: u32) -> u32 {
    ask(number, |exhibit| Ok(Answer::default().floats(exhibit.means()?)))
}

/// JSON: −ELBO of the images.
#[unsafe(no_mangle)]
pub extern "C" fn evaluate(number: u32) -> u32 {
    ask(number, |exhibit| {
        let found = exhibit.evaluate()?;
        let (images, rec, kl, neg_elbo) = (found.images, found.rec, found.kl, found.neg_elbo());
        Ok(Answer::text(&serde_json::json!({ "images": images, "rec": rec, "kl": kl, "negElbo": neg_elbo })))
    })
}

/// JSON: what so many further updates of a training came to.
#[unsafe(no_mangle)]
pub extern "C" fn step(number: u32, updates: u32) -> u32 {
    ask(number, |exhibit| match exhibit {
        Exhibit::Practice(own) => own.step(updates).map(|stretch| Answer::text(&stretch)),
        Exhibit::Trained(_) => Err(Error::argument("model", "one that is trained already", "a training")),
    })
}

/// JSON: the chain rule of the next update of a training, with every number.
#[unsafe(no_mangle)]
pub extern "C" fn tape(number: u32) -> u32 {
    ask(number, |exhibit| match exhibit {
        Exhibit::Practice(own) => own.tape().map(|derivation| Answer::text(&derivation)),
        Exhibit::Trained(_) => Err(Error::argument("model", "one that is trained already", "a training")),
    })
}
