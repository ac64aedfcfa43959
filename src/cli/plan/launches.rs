//! `elbo plan --device cuda`: the step as launches, what waits for what, and how long it is expected to take.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::engine::device::Precision;
use crate::engine::device::cuda::figures::Provenance;
use crate::engine::device::cuda::paper::{PaperLaunch, PaperStep};
use crate::engine::device::cuda::probe::{Version, report};
use crate::engine::error::{Error, Result};
use crate::engine::file;
use crate::engine::plan::Plan;
use crate::study::launches;

/// The capability that is planned for where there is no GPU to ask: Hopper.
const DEFAULT: (u32, u32) = (9, 0);

/// A version of two numbers, as in 9.0.
pub(super) fn capability(text: &str) -> Result<(u32, u32)> {
    let numbers = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.filter(|&cc| cc >= (7, 5)).ok_or_else(|| {
        Error::argument("compute capability", format!("\"{text}\""), "MAJOR.MINOR, at least 7.5, as in 9.0")
    })
}

/// The launches of a plan, for the capability that is asked for, that of the GPU at hand, or Hopper's.
pub(super) fn launches(plan: &Plan, precision: Precision, asked: Option<(u32, u32)>, merge: bool) -> Result<PaperStep> {
    let here = || report().choice.ok().map(|gpu| gpu.compute_capability).map(|Version(major, minor)| (major, minor));
    PaperStep::of(plan, precision, asked.or_else(here).unwrap_or(DEFAULT), merge)
}

/// Writes the picture.
pub(super) fn draw(step: &PaperStep, title: &str, path: &Path) -> Result<()> {
    file::replace(path, |out| out.write_all(launches::svg(step, title).as_bytes()))
}

/// The microseconds of launches that wait for all of the wave before, as the CPU's steps do.
fn wave_by_wave(step: &PaperStep, plan: &Plan) -> (usize, f64) {
    // Planes are made in a wave before that of their readers.
    let mut waves: BTreeMap<(usize, bool), f64> = BTreeMap::new();
    for launch in &step.launches {
        let wave = launch.steps.first().map_or(plan.waves(), |&i| plan.steps()[i].wave());
        let takes = launch.time.1 - launch.time.0;
        let longest = waves.entry((wave, !launch.makes_plane)).or_default();
        *longest = longest.max(takes);
    }
    let longest: Vec<f64> = waves.into_values().collect();
    (longest.len(), longest.iter().sum::<f64>() + longest.len() as f64 * step.figures.edge.value)
}

/// The table, the longest way beside those of other forms, and the assumptions. `alone`: with a launch for every step.
pub(super) fn text(step: &PaperStep, alone: &PaperStep, plan: &Plan) -> String {
    let (major, minor) = step.capability;
    let mut text =
        format!("\nlaunches on a GPU of compute capability {major}.{minor}; times are predicted, not measured\n");
    text += "node  kernel               steps     blocks threads      KiB   ahead   begin     end µs   waits for\n";
    for (i, launch) in step.launches.iter().enumerate() {
        let mark = if launch.urgent { '*' } else { ' ' };
        let blocks: u32 = launch.grid.iter().product();
        let (begin, end) = launch.time;
        let mut steps = listed(&launch.steps);
        if launch.for_next {
            steps += " next";
        }
        if launch.leaves_splits {
            steps += " splits";
        }
        if launch.makes_plane {
            steps += " plane";
        }
        text += &format!(
            "{:>4}{mark} {:<20} {:<9} {blocks:>6} {:>7} {:>8.1} {:>7.1} {begin:>7.1} {end:>9.1}   {}\n",
            i + 1,
            launch.kernel,
            steps,
            launch.threads,
            launch.bytes / 1024.0,
            launch.ahead / 1024.0,
            listed(&launch.waits),
        );
    }
    let bytes: f64 = step.launches.iter().map(|launch| launch.bytes).sum();
    if step.launches.iter().any(|launch| launch.for_next) {
        text += "next: for the next step of the run, beside this one; the first step of a run waits for a launch of its own\n";
    }
    if step.launches.iter().any(|launch| launch.leaves_splits) {
        text +=
            "splits: the sums of each split of k, for the launch that has the step too; no block waits for another\n";
    }
    if step.launches.iter().any(|launch| launch.makes_plane) {
        text += "plane: a factor of these products is made bf16 in memory, once for all of them\n";
    }
    if step.launches.iter().any(|launch| launch.ahead > 0.0) {
        text += "ahead: of the KiB those of parameters that a launch reads while those that it waits for still run\n";
    }
    text += &format!(
        "{} launches for {} steps; the longest way (*) has {} of them and takes {:.1} µs; {:.2} MiB are moved\n\n",
        step.launches.len(),
        plan.steps().len(),
        step.way.len(),
        step.microseconds,
        bytes / 1_048_576.0
    );
    let (waves, in_waves) = wave_by_wave(alone, plan);
    text += "                                                       launches   longest way        µs\n";
    let mut row = |what: &str, launches: usize, way: usize, microseconds: f64| {
        text += &format!("{what:<52} {launches:>10} {way:>13} {microseconds:>9.1}\n");
    };
    row("a launch for every step, one wave after the other", alone.launches.len(), waves, in_waves);
    row(
        "a launch for every step, when what it needs is there",
        alone.launches.len(),
        alone.way.len(),
        alone.microseconds,
    );
    if step.merged {
        let ahead = step.launches.iter().any(|launch| launch.for_next);
        row(
            if ahead { "shared launches, the batch ahead" } else { "shared launches" },
            step.launches.len(),
            step.way.len(),
            step.microseconds,
        );
    }
    for (models, microseconds) in PaperStep::MODELS.into_iter().zip(step.of_models) {
        let each = microseconds / models as f64;
        let what = format!("{models} models in one launch: {each:.1} µs a model");
        row(&what, step.launches.len(), step.way.len(), microseconds);
    }
    text += "\nThe prediction is the longest way through the graph, with room on the GPU for all that is beside it, and knows\n";
    text += "neither the time between two steps, nor the first-level caches, nor latencies in a launch. It is made of these figures:\n";
    step.figures.all().iter().fold(text, |text, figure| text + &format!("  {figure}\n"))
}

/// The same as fields.
pub(super) fn record(step: &PaperStep) -> Value {
    let launch = |launch: &PaperLaunch| {
        json!({
            "kernel": launch.kernel, "steps": launch.steps, "for_next": launch.for_next,
            "leaves_splits": launch.leaves_splits, "makes_plane": launch.makes_plane, "grid": launch.grid,
            "threads": launch.threads, "bytes": launch.bytes, "bytes_ahead": launch.ahead, "waits": launch.waits, "longest_way": launch.urgent,
            "begin_us": launch.time.0, "end_us": launch.time.1,
        })
    };
    let figures = step.figures.all().map(|figure| {
        let measured = matches!(figure.source, Provenance::Measured(_));
        json!({
            "name": figure.name, "value": figure.value, "unit": figure.unit, "source": figure.source.to_string(),
            "measured": measured,
        })
    });
    let models = PaperStep::MODELS.into_iter().zip(step.of_models);
    let models: Vec<Value> = models.map(|(count, us)| json!({ "models": count, "predicted_us": us })).collect();
    json!({
        "capability": format!("{}.{}", step.capability.0, step.capability.1),
        "predicted_us": step.microseconds, "models": models, "longest_way": step.way, "figures": figures,
        "launches": step.launches.iter().map(launch).collect::<Vec<_>>(),
    })
}

/// Numbers from 1, or a dash.
fn listed(numbers: &[usize]) -> String {
    match numbers {
        [] => "–".into(),
        _ => numbers.iter().map(|i| (i + 1).to_string()).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_two_numbers() {
        assert_eq!(capability("9.0").unwrap(), (9, 0));
        assert_eq!(capability("12.1").unwrap(), (12, 1));
        assert!(["9", "9.x", "7.0", ""].iter().all(|text| capability(text).is_err()));
    }
}
