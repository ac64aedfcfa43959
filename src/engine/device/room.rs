//! Whether there is room, asked before memory is taken: an allocation that fails ends the process, and one that the
//! operating system grants and cannot keep ends it later, or another process.

use std::fs;

use crate::engine::error::{Error, Remedy, Result};

/// Below this, in bytes, nobody asks: the answer costs a few reads of files.
const SMALL: u64 = 64 << 20;
const GIB: f64 = (1u64 << 30) as f64;

/// Refuses what is larger than the memory that is free.
///
/// # Errors
/// [`Error::Device`] with both numbers and the remedy.
pub(crate) fn must_fit(bytes: u64, what: &str, remedy: impl Into<Remedy>) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    // Where nothing is known of the machine, no process has more addresses than this.
    within(bytes, available().unwrap_or(isize::MAX as u64), what, remedy.into())
}

fn within(bytes: u64, free: u64, what: &str, remedy: Remedy) -> Result<()> {
    if bytes <= free {
        return Ok(());
    }
    let (bytes, free) = (bytes as f64 / GIB, free as f64 / GIB);
    let reason = format!("{what} would take {bytes:.1} GiB of memory, and {free:.1} GiB are free");
    Err(Error::Device { device: "cpu".into(), reason, remedy })
}

/// Bytes that this process can still take, on Linux: what the kernel calls available and what can be swapped out, and what
/// its control group is allowed beyond what programs hold already. Cached files do not count: they make room.
fn available() -> Option<u64> {
    let text = |path: &str| fs::read_to_string(path).ok();
    let meminfo = text("/proc/meminfo")?;
    let kib = |name: &str| field(&meminfo, name);
    let machine = (kib("MemAvailable:")? + kib("SwapFree:").unwrap_or(0)).saturating_mul(1024);
    let group = |limit: &str, stat: &str, held: &str| {
        let limit: u64 = text(limit)?.trim().parse().ok()?;
        Some(limit.saturating_sub(field(&text(stat)?, held)?))
    };
    let groups = [
        group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
        group("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_rss"),
    ];
    Some(groups.into_iter().flatten().fold(machine, u64::min))
}

/// The number after a name in a table of the kernel, one name and its number per line.
fn field(table: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().map(str::split_whitespace);
    lines.find_map(|mut words| if words.next()? == name { words.next()?.parse().ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_refused_with_both_numbers() {
        within(5 << 30, 5 << 30, "it", "less".into()).unwrap();
        let message = within(6 << 30, 5 << 30, "a model", "take less".into()).unwrap_err().to_string();
        for part in ["a model would take 6.0 GiB", "5.0 GiB are free", "take less"] {
            assert!(message.contains(part), "{message}");
        }
        must_fit(1, "a byte", "").unwrap();
        must_fit(1 << 62, "too much", "").unwrap_err();
        let table = "MemTotal: 9 kB\n\nMemAvailable:   12345 kB\nanon 7\n";
        assert_eq!(["MemAvailable:", "anon", "SwapFree:"].map(|name| field(table, name)), [Some(12345), Some(7), None]);
    }
}
