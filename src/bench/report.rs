//! Everything that was found, as tables and as JSON.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use super::crossover::Crossover;
use super::family::Family;
use super::machine::MachineRecord;
use super::measure::{Measured, Timing};
use super::roofline::Roofline;

/// One workload on each device.
#[derive(Clone, Debug)]
pub struct Row {
    /// The size in words.
    pub label: String,
    /// The size in the family's unit.
    pub size: f64,
    /// Whether it is a point of the family's curve.
    pub on_curve: bool,
    /// Floating-point operations of a step, as `elbo plan` counts them.
    pub flops: u64,
    /// Bytes that a step's kernels read and write, each operand once.
    pub bytes: u64,
    /// Bytes that travel between host and GPU where transfers are counted.
    pub transferred: u64,
    /// Whose results those of the devices were compared with.
    pub checked_against: &'static str,
    /// The least time that the CPU's roofline allows, in seconds.
    pub cpu_roof: f64,
    /// The GPU's.
    pub gpu_roof: Option<f64>,
    /// On the CPU.
    pub cpu: Measured,
    /// On the GPU.
    pub gpu: Option<Measured>,
}

impl Row {
    /// The GPU's times: with everything on the device, and with transfers.
    fn gpu_times(&self) -> Option<[Timing; 2]> {
        let gpu = self.gpu.as_ref()?;
        Some([gpu.resident, gpu.with_transfers?])
    }

    /// How many times faster the GPU is: without and with transfers.
    pub fn speed_ups(&self) -> Option<[f64; 2]> {
        self.gpu_times().map(|times| times.map(|t| self.cpu.resident.median / t.median))
    }

    fn json(&self) -> Value {
        let device = |m: &Measured, roof: f64| {
            json!({
                "error": m.error,
                "error_bound": m.bound,
                "roofline_seconds": roof,
                "roofline_share": roof / m.resident.median,
                "gflops": self.flops as f64 / m.resident.median / 1e9,
                "gbytes_per_second": self.bytes as f64 / m.resident.median / 1e9,
                "seconds_per_step": m.resident,
                "seconds_per_step_with_transfers": m.with_transfers,
            })
        };
        json!({
            "label": self.label,
            "size": self.size,
            "on_curve": self.on_curve,
            "flops": self.flops,
            "bytes": self.bytes,
            "bytes_transferred": self.transferred,
            "checked_against": self.checked_against,
            "cpu": device(&self.cpu, self.cpu_roof),
            "gpu": self.gpu.as_ref().zip(self.gpu_roof).map(|(m, roof)| device(m, roof)),
            "speed_up": self.speed_ups().map(|s| s[0]),
            "speed_up_with_transfers": self.speed_ups().map(|s| s[1]),
        })
    }
}

/// The workloads of a family.
#[derive(Clone, Debug)]
pub struct FamilyReport {
    /// Which.
    pub family: Family,
    /// In order of size.
    pub rows: Vec<Row>,
    /// Where the GPU begins to win, without and with transfers; none without a GPU.
    pub crossovers: Option<[Crossover; 2]>,
}

impl FamilyReport {
    /// From the rows of a family.
    pub fn new(family: Family, rows: Vec<Row>) -> FamilyReport {
        let points = |which: usize| {
            let curve = rows.iter().filter(|r| r.on_curve);
            let point = |r: &Row| Some((r.size, r.cpu.resident.median, r.gpu_times()?[which].median));
            Crossover::find(&curve.filter_map(point).collect::<Vec<_>>())
        };
        let crossovers = points(0).zip(points(1)).map(|(a, b)| [a, b]);
        FamilyReport { family, rows, crossovers }
    }

    fn json(&self) -> Value {
        json!({
            "family": self.family.to_string(),
            "title": self.family.title(),
            "unit": self.family.unit(),
            "transfers": self.family.transfers(),
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "crossover": self.crossovers.map(|c| c[0]),
            "crossover_with_transfers": self.crossovers.map(|c| c[1]),
        })
    }

    fn table(&self, width: usize, emulated: bool) -> String {
        let gpu = self.rows.iter().any(|r| r.gpu.is_some());
        let mut text = format!("\n{}\n{:>width$}  ", self.family.title(), self.family.unit());
        text += "       CPU    ±  roof  GFLOP/s     GB/s";
        if gpu {
            let name = if emulated { "EMULATED" } else { "GPU" };
            text += &format!(" │ {name:>10}    ±  roof  GFLOP/s     GB/s │  transfers    ± │ CPU/GPU  transf.");
        }
        text.push('\n');
        for row in &self.rows {
            text += &format!("{:>width$}  {}", row.label, device_columns(row, &row.cpu, row.cpu_roof));
            if let (Some(m), Some(roof), Some([_, trip]), Some(s)) =
                (&row.gpu, row.gpu_roof, row.gpu_times(), row.speed_ups())
            {
                let device = device_columns(row, m, roof);
                let trip = format!("{:>10} {:>4}", time(trip.median), percent(trip.spread()));
                text += &format!(" │ {device} │ {trip} │ {:>7} {:>8}", times(s[0]), times(s[1]));
            }
            text.push('\n');
        }
        if let Some([resident, trip]) = &self.crossovers {
            let what = self.family.transfers();
            if emulated {
                writeln!(text, "crossovers: {EMULATED}").expect("a string");
            }
            writeln!(text, "crossover, data on the device: {resident}").expect("a string");
            writeln!(text, "crossover, with transfers ({what}): {trip}").expect("a string");
        }
        text
    }
}

/// `    12.3 µs  2 %  81 %    163.0     12.0`.
fn device_columns(row: &Row, m: &Measured, roof: f64) -> String {
    let t = m.resident.median;
    let (gflops, gbytes) = (row.flops as f64 / t / 1e9, row.bytes as f64 / t / 1e9);
    let (spread, share) = (percent(m.resident.spread()), percent(roof / t));
    format!("{:>10} {spread:>4} {share:>5} {gflops:>8.1} {gbytes:>8.1}", time(t))
}

/// `12.3 µs`.
fn time(seconds: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
    // 0.9995 ms is 1.00 ms.
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds >= 0.9995 * unit).unwrap_or(units[3]);
    let value = seconds / unit;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {name}")
}

fn percent(part: f64) -> String {
    format!("{:.0}%", 100.0 * part)
}

fn times(factor: f64) -> String {
    format!("{factor:.*}×", if factor < 10.0 { 2 } else { 0 })
}

/// The result of a benchmark.
#[derive(Clone, Debug)]
pub struct BenchReport {
    /// On what.
    pub machine: MachineRecord,
    /// The CPU's ceilings.
    pub cpu_roofline: Roofline,
    /// The GPU's.
    pub gpu_roofline: Option<Roofline>,
    /// The families in the order they were asked for.
    pub families: Vec<FamilyReport>,
}

/// What is said wherever figures of the emulated driver are shown.
pub(super) const EMULATED: &str = "emulated, meaningless as a speed";

impl BenchReport {
    /// Whether the GPU's figures are those of the emulated driver.
    pub fn is_emulated(&self) -> bool {
        self.machine.gpu.as_ref().is_some_and(|g| g.emulated)
    }

    /// Everything, with the units in the names.
    pub fn json(&self) -> Value {
        json!({
            "format": "elbo bench 1",
            "machine": self.machine,
            "cpu_roofline": self.cpu_roofline,
            "gpu_roofline": self.gpu_roofline,
            "note": self.is_emulated().then(|| format!("all figures of the GPU: {EMULATED}")),
            "families": self.families.iter().map(FamilyReport::json).collect::<Vec<_>>(),
        })
    }

    /// All curves as a picture (SVG).
    pub fn svg(&self) -> String {
        super::chart::plot(self).svg()
    }

    fn head(&self) -> String {
        let (m, roof) = (&self.machine, &self.cpu_roofline);
        let mut text = format!("elbo {} on {}, {}\n", m.version, m.platform, m.date);
        text += &format!("CPU  {}, threads: {} of {}, {}\n", m.cpu, m.threads, m.hardware_threads, m.isa);
        let memory = |r: &Roofline| {
            format!("{:.0} GB/s from main memory, up to {:.0} GB/s from caches", r.main_memory(), r.fastest())
        };
        text += &format!("     roofline: {:.0} GFLOP/s; {}\n", roof.gflops, memory(roof));
        match (&m.gpu, &self.gpu_roofline) {
            (Some(gpu), Some(roof)) => {
                let (cc, driver) = (&gpu.compute_capability, &gpu.driver);
                text += &format!("GPU  {}, compute capability {cc}, driver for CUDA {driver}\n", gpu.name);
                let (vector, product, precision) = (roof.gflops, roof.product_gflops, &gpu.precision);
                text += &format!("     roofline: {vector:.0} GFLOP/s, {product:.0} GFLOP/s in products of precision ");
                text += &format!("{precision}; {}\n", memory(roof));
                let (up, down) = (gpu.upload_gbytes, gpu.download_gbytes);
                text += &format!("     transfers: {up:.1} GB/s to the device, {down:.1} GB/s back\n");
            }
            _ => text += &format!("GPU  not measured: {}\n", m.no_gpu.as_deref().unwrap_or("not asked for")),
        }
        if self.is_emulated() {
            text += &format!("     ALL FIGURES OF THE GPU: {}\n", EMULATED.to_uppercase());
        }
        text
    }

    /// Against what the results were checked, and how close they came.
    fn checks(&self) -> String {
        let rows = || self.families.iter().flat_map(|f| &f.rows);
        let mut text =
            "\nResults were checked before they were timed. The largest error is, of what is allowed:".to_string();
        let most = |pick: fn(&Row) -> Option<&Measured>| {
            rows().filter_map(pick).map(|m| m.error / m.bound).fold(0.0, f64::max)
        };
        text += &format!(" CPU {}", percent(most(|r| Some(&r.cpu))));
        if self.machine.gpu.is_some() {
            text += &format!(", GPU {}", percent(most(|r| r.gpu.as_ref())));
        }
        text + ".\n± is half the distance of the quartiles, as a part of the median; roof is the share of the roofline \
                with the bandwidth of the memory that each kernel goes through.\n"
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head())?;
        let rows = self.families.iter().flat_map(|family| &family.rows);
        let width = rows.map(|r| r.label.chars().count()).max().unwrap_or(0).max(16);
        self.families.iter().try_for_each(|family| f.write_str(&family.table(width, self.is_emulated())))?;
        f.write_str(&self.checks())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::machine::GpuRecord;
    use crate::bench::roofline::Bandwidth;

    fn measured(seconds: f64, trip: Option<f64>) -> Measured {
        let timing = |s: f64| Timing::new(vec![0.9 * s, s, 1.2 * s], 3);
        Measured { error: 1e-7, bound: 1e-5, resident: timing(seconds), with_transfers: trip.map(timing) }
    }

    fn row(n: f64, gpu: bool) -> Row {
        let cpu = 1e-11 * n.powi(3);
        Row {
            label: n.to_string(),
            size: n,
            on_curve: true,
            flops: 2 * (n as u64).pow(3),
            bytes: 12 * (n as u64).pow(2),
            transferred: 12 * (n as u64).pow(2),
            checked_against: "interpreter in f64",
            cpu_roof: 0.8 * cpu,
            gpu_roof: gpu.then_some(0.005 * cpu),
            cpu: measured(cpu, None),
            gpu: gpu.then(|| measured(5e-6 + 0.01 * cpu, Some(1e-4 + 0.02 * cpu))),
        }
    }

    /// A report with invented figures.
    pub fn example(gpu: bool, emulated: bool) -> BenchReport {
        let about = GpuRecord {
            name: "Example & Sons".into(),
            ordinal: 0,
            compute_capability: "9.0".into(),
            driver: "12.4".into(),
            precision: "f32".into(),
            emulated,
            upload_gbytes: 10.0,
            download_gbytes: 9.0,
        };
        let (about, reason) = if gpu { (Some(about), None) } else { (None, Some("there is no driver".into())) };
        let bandwidths = vec![Bandwidth { bytes: 1 << 28, gbytes: 20.0 }];
        let roofline = Roofline { gflops: 250.0, product_gflops: 250.0, bandwidths };
        let families = Family::ALL.iter().map(|&family| {
            let rows = [64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0].map(|n| row(n, gpu)).to_vec();
            FamilyReport::new(family, rows)
        });
        let families = families.collect();
        let machine = MachineRecord::this(2, about, reason);
        BenchReport { machine, gpu_roofline: gpu.then(|| roofline.clone()), cpu_roofline: roofline, families }
    }

    #[test]
    fn times_have_three_digits() {
        let texts = [1.0, 0.012_34, 0.999_7e-3, 123.4e-6, 0.5e-9].map(time);
        assert_eq!(texts, ["1.00 s", "12.3 ms", "1.00 ms", "123 µs", "0.50 ns"]);
    }

    #[test]
    fn shares_speed_ups_and_crossovers_follow_from_the_times() {
        let report = example(true, false);
        let json = report.json();
        let row = &json["families"][0]["rows"][5];
        let number = |v: &Value| v.as_f64().unwrap();
        assert!((number(&row["cpu"]["roofline_share"]) - 0.8).abs() < 1e-12);
        let cpu = 1e-11 * 2048f64.powi(3);
        assert!((number(&row["speed_up"]) - cpu / (5e-6 + 0.01 * cpu)).abs() < 1e-9);
        // The times cross where 1e-11 n³ = 5e-6 + 1e-13 n³: n = 79.6; with transfers at n = 217.
        let Some([Crossover::At { size: a }, Crossover::At { size: b }]) = report.families[0].crossovers else {
            panic!()
        };
        assert!((a - 79.6).abs() < 3.0 && (b - 217.0).abs() < 8.0, "{a} {b}");
        let text = report.to_string();
        assert!(text.contains("GPU faster from about 80 on") && !text.contains("EMULATED"), "{text}");
    }

    #[test]
    fn half_a_report_says_why() {
        let report = example(false, false);
        assert!(report.to_string().contains("GPU  not measured: there is no driver"));
        assert!(report.json()["families"][0]["rows"][0]["gpu"].is_null());
        assert!(report.families[0].crossovers.is_none());
        let emulated = example(true, true);
        assert!(emulated.to_string().contains("EMULATED, MEANINGLESS"));
        assert!(emulated.json()["note"].as_str().unwrap().contains(EMULATED));
    }
}
