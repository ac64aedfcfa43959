//! What `--tensorboard` writes: the run's course in a file of events.

use std::process;
use std::time::SystemTime;

use super::picture::Picture;
use super::progress;
use crate::engine::error::Result;
use crate::study::tensorboard::EventFile;
use crate::train::{EpochRecord, EpochTiming, Run, StepRecord, Trainer};

/// The curves of a session. A session that takes a run up writes a file of its own, whose steps go on from the run's checkpoint:
/// where those of the file before ended, or, after a crash, a little before that. TensorBoard reads all files of a folder as one
/// run.
pub(super) struct Board {
    file: EventFile,
}

impl Board {
    /// Begins this session's file, which is written with its first epoch: a run that fails before leaves nothing behind.
    pub(super) fn new(run: &Run, trainer: &Trainer) -> Board {
        let now = SystemTime::now();
        // Two sessions may begin in one second, and a process number may come again.
        let mut file = EventFile::new(run.path(), now, &format!("{}-{}", trainer.progress().updates, process::id()));
        let config = serde_json::to_string_pretty(trainer.config()).expect("a configuration is plain data");
        let indented: String = config.lines().map(|line| format!("    {line}\n")).collect();
        file.text(now, trainer.progress().updates, "configuration", &indented);
        file.text(now, trainer.progress().updates, "command", &format!("    {}\n", progress::session(trainer).command));
        Board { file }
    }

    /// The curves of an epoch and of its intervals, by update.
    pub(super) fn epoch(&mut self, record: &EpochRecord, timing: &EpochTiming, steps: &[StepRecord]) -> Result<()> {
        let now = SystemTime::now();
        for step in steps {
            for (tag, value) in
                [("neg_elbo", step.rec + step.kl), ("rec", step.rec), ("kl", step.kl), ("loss", step.loss)]
            {
                self.file.scalar(now, step.updates, &format!("updates/{tag}"), value);
            }
        }
        let r = record;
        let curves = [
            ("neg_elbo/train", r.train_neg_elbo),
            ("neg_elbo/test", r.test_neg_elbo),
            ("rec/train", r.train_rec),
            ("rec/test", r.test_rec),
            ("kl/train", r.train_kl),
            ("kl/test", r.test_kl),
            ("schedule/learning_rate", r.lr),
            ("schedule/beta", r.beta),
            ("images_per_second", timing.images_per_second),
        ];
        for (tag, value) in curves {
            self.file.scalar(now, r.updates, tag, value);
        }
        if let Some(active) = r.active_units {
            self.file.scalar(now, r.updates, "units/active", active as f64);
        }
        for hidden in r.dead_units.iter().flatten() {
            self.file.scalar(now, r.updates, &format!("units/dead_{}", hidden.layer), hidden.dead as f64);
        }
        self.file.flush()
    }

    /// A picture of the finished run.
    pub(super) fn picture(&mut self, updates: u32, tag: &str, picture: &Picture) -> Result<()> {
        let size = [picture.height, picture.width, picture.channels];
        self.file.image(SystemTime::now(), updates, tag, size, &picture.png());
        self.file.flush()
    }
}
