//! On what was measured, for people who want to know whether their machine is like it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::engine::isa::Isa;

/// The machine, the program and the moment.
#[derive(Clone, Debug, Serialize)]
pub struct MachineRecord {
    /// The version of this program.
    pub version: &'static str,
    /// With what it was compiled.
    pub build: &'static str,
    /// Coordinated universal time, ISO 8601.
    pub date: String,
    /// The command line.
    pub command: String,
    /// The processor's name.
    pub cpu: String,
    /// Hardware threads that this process may use.
    pub hardware_threads: usize,
    /// Threads that were used.
    pub threads: usize,
    /// The instruction set in use.
    pub isa: String,
    /// Operating system and architecture.
    pub platform: String,
    /// The GPU, if one was measured.
    pub gpu: Option<GpuRecord>,
    /// Why none was.
    pub no_gpu: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, Serialize)]
pub struct GpuRecord {
    /// Its name, as the driver says it.
    pub name: String,
    /// Its number.
    pub ordinal: usize,
    /// As in `9.0`.
    pub compute_capability: String,
    /// The newest CUDA that the driver knows.
    pub driver: String,
    /// Of its matrix products.
    pub precision: String,
    /// Whether it is the emulated driver of the tests, whose times mean nothing.
    pub emulated: bool,
    /// Measured between pageable host memory and the device, GB/s.
    pub upload_gbytes: f64,
    /// The other way.
    pub download_gbytes: f64,
}

impl MachineRecord {
    /// This machine, now.
    pub fn this(threads: usize, gpu: Option<GpuRecord>, no_gpu: Option<String>) -> MachineRecord {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        MachineRecord {
            version: env!("CARGO_PKG_VERSION"),
            build: env!("ELBO_BUILD"),
            date: utc(seconds),
            command: command(std::env::args()),
            cpu: cpu_name(),
            hardware_threads: std::thread::available_parallelism().map_or(1, usize::from),
            threads,
            isa: Isa::detect().to_string(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            gpu,
            no_gpu,
        }
    }
}

/// The command line, the program without the folder it was started from.
fn command(mut args: impl Iterator<Item = String>) -> String {
    let program = args.next().unwrap_or_default();
    let name = std::path::Path::new(&program).file_name().map_or(program.clone(), |n| n.to_string_lossy().into_owned());
    [name].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|k| k.trim() == key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_string())
    };
    value("model name").unwrap_or_else(|| format!("unnamed {} processor", std::env::consts::ARCH))
}

/// 2026-11-24T18:05:00Z, from seconds since 1970 (days to dates as in H. Hinnant's `civil_from_days`).
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted from 0000-03-01, so that the leap day is the last of its year.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_767_225_600), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn the_command_has_no_folder() {
        let args = ["/somewhere/bin/elbo", "bench", "--quick"].map(String::from);
        assert_eq!(command(args.into_iter()), "elbo bench --quick");
        assert!(!cpu_name().is_empty());
    }
}
