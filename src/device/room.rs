//! Whether there is room, asked before memory is taken: an allocation that fails ends the process, and one that the
//! operating system grants and cannot keep ends it later, or another process.

use std::fs;

use crate::error::{Error, Result};

/// Below this, in bytes, nobody asks: the answer costs a few reads of files.
const SMALL: u64 = 64 << 20;
const GIB: f64 = (1u64 << 30) as f64;

/// Refuses what is larger than the memory that is free.
///
/// # Errors
/// [`Error::Device`] with both numbers and the remedy.
pub(crate) fn must_fit(bytes: u64, what: &str, remedy: &str) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    // Where nothing is known of the machine, no process has more addresses than this.
    within(bytes, available().unwrap_or(isize::MAX as u64), what, remedy)
}

fn within(bytes: u64, free: u64, what: &str, remedy: &str) -> Result<()> {
    if bytes <= free {
        return Ok(());
    }
    let (bytes, free) = (bytes as f64 / GIB, free as f64 / GIB);
    let reason = format!("{what} would take {bytes:.1} GiB of memory, and {free:.1} GiB are free");
    Err(Error::Device { device: "cpu".into(), reason, remedy: remedy.into() })
}

/// Bytes that this process can still take, on Linux: what the kernel calls available, and what its control group is
/// allowed.
fn available() -> Option<u64> {
    let machine = meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = |limit: &str, used: &str| Some(number(limit)?.saturating_sub(number(used)?));
    let groups = [
        group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        group("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ];
    Some(groups.into_iter().flatten().fold(machine, u64::min))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_refused_with_both_numbers() {
        within(5 << 30, 5 << 30, "it", "less").unwrap();
        let message = within(6 << 30, 5 << 30, "a model", "take less").unwrap_err().to_string();
        for part in ["a model would take 6.0 GiB", "5.0 GiB are free", "take less"] {
            assert!(message.contains(part), "{message}");
        }
        must_fit(1, "a byte", "").unwrap();
        must_fit(1 << 62, "too much", "").unwrap_err();
        assert_eq!(meminfo("MemTotal: 9 kB\nMemAvailable:   12345 kB\n"), Some(12345 * 1024));
        assert_eq!(meminfo("MemTotal: 9 kB\n"), None);
    }
}
