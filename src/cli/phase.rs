//! How long phases without epochs are shown while they run: a bar on a terminal, elsewhere a line now and then.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::vae::watch::Watch;

/// How often the bar is drawn anew.
const REFRESH: Duration = Duration::from_millis(100);
/// From when on a phase is worth a line where there is no terminal, and how often there is another one.
const FIRST: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(10);

/// The phase that is shown.
struct Phase {
    what: String,
    done: usize,
    finished: bool,
    started: Instant,
    next: Instant,
    bar: Option<ProgressBar>,
}

/// Shows phases on stderr; nothing if `quiet`.
pub fn watch(quiet: bool) -> Watch {
    if quiet {
        return Watch::default();
    }
    let terminal = std::io::stderr().is_terminal();
    let shown: Mutex<Option<Phase>> = Mutex::new(None);
    Watch::new(move |what, done, of| {
        let now = Instant::now();
        let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Threads tell of their parts out of order: what is behind the furthest is late, and not a beginning, unless all was
        // done and little is.
        let begins = |phase: &Phase| phase.what != what || (phase.finished && 2 * done < of);
        if shown.as_ref().is_none_or(begins) {
            let next = now + if terminal { Duration::ZERO } else { FIRST };
            *shown =
                Some(Phase { what: what.into(), done, finished: false, started: now, next, bar: terminal.then(bar) });
        }
        let phase = shown.as_mut().expect("one is shown");
        if phase.finished {
            return;
        }
        phase.done = phase.done.max(done);
        let done = phase.done;
        if done >= of {
            phase.finished = true;
            phase.bar.iter().for_each(ProgressBar::finish_and_clear);
        } else if now >= phase.next {
            phase.next = now + if terminal { REFRESH } else { AGAIN };
            let text = describe(what, done, of, now - phase.started);
            match &phase.bar {
                Some(bar) => {
                    bar.set_length(of as u64);
                    bar.set_position(done as u64);
                    bar.set_message(text);
                }
                None => super::say(text),
            }
        }
    })
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{bar:20.cyan/blue} {msg}").expect("the template is constant");
    bar.set_style(style.progress_chars("━╸ "));
    bar
}

/// `importance samples: 34 %, 40 seconds left`; what is left is not known before anything is done.
fn describe(what: &str, done: usize, of: usize, took: Duration) -> String {
    let part = done as f64 / of.max(1) as f64;
    let left = took.as_secs_f64() * (1.0 - part) / part;
    let left = Duration::try_from_secs_f64(left.round()).ok().filter(|left| left.as_secs() < 10_000_000);
    let left = left.map_or(String::new(), |left| format!(", {} left", HumanDuration(left)));
    format!("{what}: {:.0} %{left}", (100.0 * part).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_says_how_far_it_is_and_how_long_it_takes() {
        assert_eq!(describe("draws", 25, 100, Duration::from_secs(10)), "draws: 25 %, 30 seconds left");
        assert_eq!(describe("draws", 0, 100, Duration::from_secs(10)), "draws: 0 %");
        assert_eq!(describe("draws", 999, 1000, Duration::from_secs(1)), "draws: 99 %, 0 seconds left");
    }
}
