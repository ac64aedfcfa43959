//! How a run is shown while it runs: a bar on a terminal, a line per epoch elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::board::Board;
use super::scale;
use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::train::{
    Alarm, EpochRecord, EpochTiming, Observer, Outcome, Run, SessionRecord, StepRecord, StepReport, Trainer,
};

/// How often the text beside the bar is made anew.
const REFRESH: Duration = Duration::from_millis(100);

/// Trains a run, says how it goes, and writes down which command does so; its curves go to `board` too, if there is one.
///
/// # Errors
/// As [`Run::train`].
pub(super) fn train(
    run: &Run,
    trainer: &mut Trainer,
    data: &Splits,
    quiet: bool,
    board: Option<&mut Board>,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let mut progress = ProgressDisplay::new(alarm(trainer, data), quiet, board);
    let outcome = observed(run, trainer, &mut progress, stop);
    progress.finish();
    outcome
}

/// What warns of collapse: it knows what the test images score without any z.
pub(super) fn alarm(trainer: &Trainer, data: &Splits) -> Alarm {
    let config = trainer.config();
    Alarm::new(config, scale::collapse_line(&config.model, &data.test))
}

/// Trains a run before an observer, and writes down which command does so.
///
/// # Errors
/// As [`Run::train`].
pub(super) fn observed(
    run: &Run,
    trainer: &mut Trainer,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    run.note_session(&session(trainer))?;
    run.train(trainer, observer, stop).map_err(|error| match error {
        Error::Diverged { field, found, remedy } => {
            Error::Diverged { field, found, remedy: format!("{remedy} (--lr, --clip)") }
        }
        error => error,
    })
}

/// A warning with the options that it is about.
pub(super) fn warned(warning: &str) -> String {
    format!("warning: {warning} (--kl-warmup, --beta, --latent, --epochs)")
}

/// The command of this process.
pub(super) fn session(trainer: &Trainer) -> SessionRecord {
    let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let ranks = trainer.ranks();
    let launcher = if ranks > 1 { vec!["mpirun".into(), "-n".into(), ranks.to_string()] } else { Vec::new() };
    let words = launcher.into_iter().chain(["elbo".to_string()]).chain(arguments);
    SessionRecord { ranks, ..SessionRecord::new(words, trainer.progress().updates) }
}

/// Shows a run on stderr, and warns of collapse.
struct ProgressDisplay<'b> {
    board: Option<&'b mut Board>,
    /// Of the epoch that is about to be reported.
    steps: Vec<StepRecord>,
    alarm: Alarm,
    quiet: bool,
    bar: Option<ProgressBar>,
    started: Instant,
    shown: Instant,
    /// Images of the whole run at the first report, so that a resumed run does not count those of the session before.
    first: Option<usize>,
}

impl ProgressDisplay<'_> {
    /// A display of a run; none but warnings if `quiet`.
    fn new(alarm: Alarm, quiet: bool, board: Option<&mut Board>) -> ProgressDisplay<'_> {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(1);
            let style = ProgressStyle::with_template("{bar:20.cyan/blue} {msg}").expect("the template is constant");
            bar.set_style(style.progress_chars("━╸ "));
            bar
        });
        let now = Instant::now();
        ProgressDisplay { board, steps: Vec::new(), alarm, quiet, bar, started: now, shown: now, first: None }
    }

    /// Removes the bar.
    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for ProgressDisplay<'_> {
    fn step(&mut self, r: &StepReport) {
        let done = (r.epoch - 1) as usize * r.of + r.images;
        let first = *self.first.get_or_insert(done);
        let Some(bar) = &self.bar else { return };
        if self.shown.elapsed() < REFRESH {
            return;
        }
        self.shown = Instant::now();
        let all = r.epochs as usize * r.of;
        let rate = (done - first) as f64 / self.started.elapsed().as_secs_f64();
        let left = Duration::from_secs_f64(((all - done) as f64 / rate.max(1.0)).min(1e7));
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(format!(
            "epoch {}/{}  −ELBO {:.2} = rec {:.2} + KL {:.2}  {:.0} images/s  {} left",
            r.epoch,
            r.epochs,
            r.means.rec + r.means.kl,
            r.means.rec,
            r.means.kl,
            rate,
            HumanDuration(left),
        ));
    }

    fn intervals(&mut self, steps: &[StepRecord]) -> Result<()> {
        self.steps = steps.to_vec();
        Ok(())
    }

    fn epoch(&mut self, trainer: &Trainer, record: &EpochRecord, timing: &EpochTiming) -> Result<()> {
        let line = format!(
            "epoch {:>3}/{}  train −ELBO {:.2}  test −ELBO {:.2} = rec {:.2} + KL {:.2}  {:.0} images/s",
            record.epoch,
            trainer.config().epochs,
            record.train_neg_elbo,
            record.test_neg_elbo,
            record.test_rec,
            record.test_kl,
            timing.images_per_second,
        );
        let say = |line: String| match &self.bar {
            Some(bar) => bar.println(line),
            None => super::say(line),
        };
        if !self.quiet {
            say(line);
        }
        for warning in self.alarm.check(record) {
            say(warned(&warning));
        }
        self.board.as_mut().map_or(Ok(()), |board| board.epoch(record, timing, &self.steps))
    }
}
