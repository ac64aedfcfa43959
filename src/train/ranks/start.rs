//! How ranks come to the same state: rank 0 reads and decides, and tells the others.

use std::path::Path;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::Ranks;
use crate::engine::device::Device;
use crate::engine::error::{Error, Result};
use crate::train::checkpoint::Checkpoint;
use crate::train::{Source, Trainer};

/// What a checkpoint does not say of a session.
#[derive(Serialize, Deserialize)]
struct Task {
    images: Source,
    pause_at: Option<u32>,
}

/// Of rank 0: hands the state of its trainer to the others, who load the images from where it has them, and trains
/// with them from here on.
///
/// # Errors
/// As [`Trainer::share`] and [`Trainer::checkpoint`].
pub fn lead(trainer: &mut Trainer, images: Source, ranks: Rc<dyn Ranks>) -> Result<()> {
    let task = Task { images, pause_at: trainer.pause_at };
    ranks.broadcast(serde_json::to_vec(&task).expect("a task is plain data"));
    ranks.broadcast(trainer.checkpoint()?.encode()?);
    trainer.share(ranks)
}

/// Of rank 0: tells the others that there is nothing to do.
pub fn dismiss(ranks: &dyn Ranks) {
    ranks.broadcast(Vec::new());
}

/// What a rank sent is not what this program sends.
pub(super) fn other_version(rank: usize, field: &'static str) -> impl FnOnce(serde_json::Error) -> Error {
    move |error| Error::File {
        path: format!("rank {rank}").into(),
        field: field.into(),
        found: error.to_string(),
        expected: "what this program sends".into(),
        remedy: "start the same program on all ranks".into(),
    }
}

/// Of the other ranks: a trainer in the state of rank 0's, or none where there is nothing to do.
///
/// # Errors
/// As [`Source::load`], [`Trainer::resume`] and [`Trainer::share`]; [`Error::File`] when rank 0 is another version of the
/// program.
pub fn follow(device: Device, ranks: Rc<dyn Ranks>) -> Result<Option<Trainer>> {
    let task = ranks.broadcast(Vec::new());
    if task.is_empty() {
        return Ok(None);
    }
    let Task { images, pause_at } = serde_json::from_slice(&task).map_err(other_version(0, "task"))?;
    let checkpoint = Checkpoint::decode(Path::new("the state of rank 0"), &ranks.broadcast(Vec::new()))?;
    let mut trainer = Trainer::resume(&checkpoint, &images.load()?, device)?;
    trainer.pause_at = pause_at;
    trainer.share(ranks)?;
    Ok(Some(trainer))
}
