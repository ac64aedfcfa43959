//! Draws from the prior: how many of them decode to one digit, and to which.

use serde::{Deserialize, Serialize};

use super::Uncertain;
use super::neighbours::Neighbours;
use crate::data::Dataset;
use crate::engine::device::Device;
use crate::engine::error::Result;

/// Neighbours of a decoded image among the training images, and how many of them must agree for the image to be one
/// digit and not something between digits.
pub const NEIGHBOURS: usize = 15;
/// See [`NEIGHBOURS`].
pub const AGREE: usize = 14;

/// What the nearest training images, by their pixels, call images decoded from z ~ N(0, I).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// Number of draws.
    pub draws: usize,
    /// The part of the draws whose neighbours agree.
    pub confident: Uncertain,
    /// The same of as many test images, or all of them: what real images reach.
    pub confident_test: Uncertain,
    /// The part of each class among the confident draws.
    pub shares: Vec<f64>,
    /// −Σ s ln s over the shares, in nats: at most ln of the number of classes, reached when all are equally frequent;
    /// none without a confident draw.
    pub entropy: Option<f64>,
}

impl Prior {
    /// `decoded` are the images drawn, `[draws, D]`; `train` has labels below `classes`.
    pub(super) fn of(
        decoded: &[f32],
        data: [&Dataset; 2],
        labels: &[u8],
        classes: usize,
        device: Device,
    ) -> Result<Prior> {
        let [train, test] = data;
        let draws = decoded.len() / train.cols;
        let few = test.rows.min(draws) * test.cols;
        let real: Vec<f32> = test.images[..few].iter().map(|&grey| f32::from(grey) / 255.0).collect();
        let confident = |queries: &[f32]| -> Result<Vec<Option<u8>>> {
            let votes = Neighbours::of_images(train, queries, NEIGHBOURS, device)?.votes(labels, NEIGHBOURS);
            Ok(votes.into_iter().map(|(class, count)| (count >= AGREE).then_some(class)).collect())
        };
        let (drawn, real) = (confident(decoded)?, confident(&real)?);
        let part = |found: &[Option<u8>]| Uncertain::part(found.iter().flatten().count(), found.len());
        let sure = drawn.iter().flatten().count();
        let share = |class: usize| {
            drawn.iter().flatten().filter(|&&c| usize::from(c) == class).count() as f64 / sure.max(1) as f64
        };
        let shares: Vec<f64> = (0..classes).map(share).collect();
        let (confident, confident_test) = (part(&drawn), part(&real));
        Ok(Prior { draws, confident, confident_test, entropy: (sure > 0).then(|| super::entropy(&shares)), shares })
    }
}
