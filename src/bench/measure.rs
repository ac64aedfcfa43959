//! Times that can be trusted: results are checked first, then comes a warm-up, repetitions are long enough for the
//! clock, and their end is waited for.

use std::time::Instant;

use serde::Serialize;

use super::workload::{Truth, Workload};
use crate::engine::device::{Device, Precision};
use crate::engine::error::{Error, Result};
use crate::engine::plan::Fusion;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Repetitions of which the median is reported.
    pub repetitions: usize,
    /// The shortest repetition in seconds: as many steps are made in one as it takes.
    pub seconds: f64,
}

/// Seconds per step over the repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// The median.
    pub median: f64,
    /// The first quartile.
    pub lower: f64,
    /// The third quartile.
    pub upper: f64,
    /// The fastest.
    pub min: f64,
    /// The slowest.
    pub max: f64,
    /// Steps in one repetition.
    pub steps: usize,
    /// Repetitions.
    pub repetitions: usize,
}

impl Timing {
    /// From seconds per step, at least one. Between two measured values quantiles are interpolated.
    pub fn new(mut seconds: Vec<f64>, steps: usize) -> Timing {
        seconds.sort_by(f64::total_cmp);
        let last = seconds.len() - 1;
        let quantile = |q: f64| {
            let (at, part) = ((q * last as f64) as usize, (q * last as f64).fract());
            seconds[at] + part * (seconds[(at + 1).min(last)] - seconds[at])
        };
        let (min, max, repetitions) = (seconds[0], seconds[last], seconds.len());
        Timing { median: quantile(0.5), lower: quantile(0.25), upper: quantile(0.75), min, max, steps, repetitions }
    }

    /// Half the distance of the quartiles, relative to the median.
    pub fn spread(&self) -> f64 {
        (self.upper - self.lower) / 2.0 / self.median
    }
}

/// What was found on one device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// The largest difference from the truth, relative to the truth's largest number.
    pub error: f64,
    /// What it had to stay below.
    pub bound: f64,
    /// With everything on the device.
    pub resident: Timing,
    /// With operands brought to the device and results taken back; none on the CPU.
    pub with_transfers: Option<Timing>,
}

/// max |y − ŷ| / max |ŷ|; infinite if the lengths differ or anything is no number.
pub fn error(found: &[f64], truth: &[f64]) -> f64 {
    let size = truth.iter().fold(0.0, |most: f64, t| most.max(t.abs()));
    let differences = found.iter().zip(truth).map(|(f, t)| (f - t).abs());
    let largest = differences.fold(0.0, |most: f64, d| if d.is_nan() { f64::INFINITY } else { most.max(d) });
    if found.len() == truth.len() && size > 0.0 { largest / size } else { f64::INFINITY }
}

/// Checks a workload on a device, then times it.
///
/// # Errors
/// [`Error::Device`] when the result is wrong: no time of a wrong result is of interest. And from the executor.
pub fn on(device: Device, work: &dyn Workload, truth: &Truth, effort: Effort) -> Result<Measured> {
    let executor = device.open()?;
    let mut job = work.job(&executor, Fusion::all())?;
    let (precision, is_gpu) = match device {
        Device::Cpu { .. } => (Precision::F32, false),
        Device::Tiles { precision, .. } => (precision, false),
        Device::Cuda { precision, .. } => (precision, true),
    };
    let (error, bound) = (error(&work.result(&mut job)?, &truth.values), work.bound(precision));
    if error > bound {
        return Err(Error::Device {
            device: executor.describe(),
            reason: format!("the result is wrong: error {error:.1e} against the {}, allowed {bound:.1e}", truth.from),
            remedy: "this is a fault of the program or of the machine; please report it".into(),
        });
    }
    let resident = time(effort, |steps| {
        work.run(&mut job, steps)?;
        job.function.synchronize()
    })?;
    let with_transfers = match is_gpu {
        // The last operation of a round trip reads, and reading waits.
        true => Some(time(effort, |times| (0..times).try_for_each(|_| work.round_trip(&mut job)))?),
        false => None,
    };
    Ok(Measured { error, bound, resident, with_transfers })
}

/// Times `run(n)`, which makes n steps and waits for their end. The warm-up doubles n from 1 until a repetition is long
/// enough, so that memory is mapped, code loaded, graphs recorded and clocks raised before anything counts.
fn time(effort: Effort, mut run: impl FnMut(usize) -> Result<()>) -> Result<Timing> {
    let mut seconds = |steps: usize| {
        let start = Instant::now();
        run(steps).map(|()| start.elapsed().as_secs_f64())
    };
    let (mut steps, mut last) = (1, seconds(1)?);
    while last < effort.seconds {
        steps *= 2;
        last = seconds(steps)?;
    }
    let steps = ((steps as f64 * effort.seconds / last).ceil() as usize).max(1);
    let repetition = |_| seconds(steps).map(|s| s / steps as f64);
    Ok(Timing::new((0..effort.repetitions.max(1)).map(repetition).collect::<Result<_>>()?, steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let t = Timing::new(vec![5.0, 1.0, 2.0, 4.0, 3.0], 7);
        assert_eq!([t.min, t.lower, t.median, t.upper, t.max], [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((t.spread() - 1.0 / 3.0).abs() < 1e-15 && t.steps == 7 && t.repetitions == 5);
        let t = Timing::new(vec![1.0, 2.0], 1);
        assert_eq!([t.lower, t.median, t.upper], [1.25, 1.5, 1.75]);
        assert_eq!(Timing::new(vec![2.0], 1).spread(), 0.0);
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        assert_eq!(error(&[1.0, 2.5], &[1.0, 2.0]), 0.25);
        for wrong in [vec![1.0], vec![f64::NAN, 2.0], vec![1.0, f64::INFINITY]] {
            assert_eq!(error(&wrong, &[1.0, 2.0]), f64::INFINITY);
        }
    }

    #[test]
    fn a_repetition_is_as_long_as_asked() {
        let mut calls = Vec::new();
        let effort = Effort { repetitions: 3, seconds: 0.01 };
        let timing = time(effort, |steps| {
            calls.push(steps);
            std::thread::sleep(std::time::Duration::from_millis(steps as u64));
            Ok(())
        });
        let timing = timing.unwrap();
        assert!(calls.starts_with(&[1, 2, 4, 8]) && calls.ends_with(&[timing.steps; 3]), "{calls:?}");
        assert!(timing.median >= 1e-3, "{timing:?}");
    }
}
