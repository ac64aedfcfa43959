//! What is known of GPUs, in one table: the figures by which the time of a step is predicted without one.
//!
//! A prediction orders alternatives and says what a step is made of; a measurement replaces it. Every figure says where it
//! comes from. `scripts/gpu-check.sh` measures most of them (`latency`, `roofline`, `products`): whoever has run it on a
//! GPU changes the value here and writes `Provenance::Measured` with the file in `benches/results/` beside it. By the same
//! figures the kernels and the splits of products are chosen, and what shares a launch: a change of one may change the order
//! of sums, and so the last bits of a training.
//!
//! ```text
//! t(launch)  = max( t(product), bytes / (L2 bandwidth · min(1, blocks / multiprocessors)) )
//!              + Σ instructions of programs · cycles of one / clock
//! t(product) = max( multiply-adds / rate,                     on the multiprocessor with most of them
//!                   bytes of its blocks' strips / its share of the L2 bandwidth,
//!                   bytes that its blocks read and write when the sums are there / that share,
//!                   bytes in and out of its shared memory / bandwidth of that )  + joining, where k is split
//! t(step)    = max over ways through the graph of Σ ( t(launch) + edge )
//! ```
//!
//! What a launch reads before it waits is there when all blocks of those it waits for have begun, two at a time on each
//! multiprocessor, after the time that these keep the second-level cache busy and its own; only what is missing when they are
//! over delays it. So read as many blocks as there are multiprocessors, the others when they begin.
//!
//! The bytes of a launch are those of its operands, each once; those of the strips count an operand as often as blocks read it.
//! The rates of the arithmetic are with the kernels that reach them (`engine/steps/gemm/cuda.rs`).
//!
//! Of R models in one launch every launch has R times the blocks and the bytes, and R times the cycles on the multiprocessor
//! with most of them once all are at work; the joining of a split k takes as long as alone; instructions of programs wait for
//! each other only in turns of eight blocks.
//!
//! The model knows no tail effects, no first-level cache, no latency within a launch, and no clocks but one.

use std::fmt;

use crate::engine::steps::gemm::cuda::multiprocessors;

/// Where a figure comes from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Provenance {
    /// A file of `benches/results/`.
    Measured(&'static str),
    /// The boost clock that is published of a board.
    Published(&'static str),
    /// Nobody measured it here.
    Estimated(&'static str),
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Provenance::Measured(file) => write!(f, "measured: {file}"),
            Provenance::Published(board) => write!(f, "boost of the {board}, as published"),
            Provenance::Estimated(how) => write!(f, "estimated: {how}"),
        }
    }
}

/// A figure with its unit.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// How much of it.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// Where it comes from.
    pub source: Provenance,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<28} {:>8} {:<10} {}", self.name, self.value, self.unit, self.source)
    }
}

/// The figures of GPUs of one compute capability.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// How many there are.
    pub multiprocessors: Figure,
    /// Of the multiprocessors.
    pub clock: Figure,
    /// Of reads and writes that the second-level cache answers.
    pub l2_bandwidth: Figure,
    /// Of the shared memory of a multiprocessor.
    pub shared_bandwidth: Figure,
    /// Until the last block of a tile whose k is split knows that it is the last.
    pub join: Figure,
    /// From the end of a launch to the begin of one that waits for it, where the driver sets launches up ahead if it can.
    pub edge: Figure,
    /// An instruction of a program that is interpreted.
    pub interpreted: Figure,
    /// An instruction of a program that is compiled.
    pub compiled: Figure,
}

impl Figures {
    /// All of them, in the order in which they stand in a table.
    pub fn all(&self) -> [Figure; 8] {
        let Figures { multiprocessors, clock, l2_bandwidth, shared_bandwidth, join, edge, interpreted, compiled } =
            *self;
        [multiprocessors, clock, l2_bandwidth, shared_bandwidth, join, edge, interpreted, compiled]
    }

    /// Bytes per cycle that a multiprocessor gets of the second-level cache, also while others are idle.
    pub(crate) fn l2_share(&self) -> f64 {
        self.l2_bandwidth.value * 1e3 / self.clock.value / self.multiprocessors.value
    }
}

/// The figures for a compute capability. The boards of one differ: they are those of the first one named.
pub fn figures((major, minor): (u32, u32)) -> Figures {
    use Provenance::{Estimated, Published};
    let (mhz, gb_s, board) = match (major, minor) {
        (7, _) => (1590.0, 1300.0, "T4"),
        (8, 0) => (1410.0, 4000.0, "A100"),
        (8, 6 | 7) => (1695.0, 2500.0, "RTX 3090"),
        (8, _) => (2520.0, 4500.0, "RTX 4090"),
        (9, _) => (1980.0, 5500.0, "H200"),
        (10 | 11, _) => (1965.0, 7000.0, "B200"),
        _ => (2407.0, 5500.0, "RTX 5090"),
    };
    let count = multiprocessors((major, minor)) as f64;
    let figure = |name, value, unit, source| Figure { name, value, unit, source };
    Figures {
        multiprocessors: figure("multiprocessors", count, "", Estimated("typical of the capability")),
        clock: figure("clock", mhz, "MHz", Published(board)),
        l2_bandwidth: figure("second-level cache", gb_s, "GB/s", Estimated("reads that hit, all multiprocessors")),
        shared_bandwidth: figure(
            "shared memory",
            if major < 8 { 64.0 } else { 128.0 },
            "B/cycle",
            Estimated("32 banks of 4 bytes for each multiprocessor, on 7.5 every second cycle"),
        ),
        join: figure(
            "joining of a split k",
            2500.0,
            "cycles",
            Estimated("a write, a counter, a read, all behind one another"),
        ),
        edge: match major >= 9 {
            true => {
                figure("edge of a graph", 0.8, "µs", Estimated("two thirds of 1.2: the next launch is set up ahead"))
            }
            false => {
                figure("edge of a graph", 1.2, "µs", Estimated("end of a kernel to the first instruction of the next"))
            }
        },
        interpreted: figure("interpreted instruction", 200.0, "cycles", Estimated("150 to 250, one after the other")),
        compiled: figure("compiled instruction", 60.0, "cycles", Estimated("from 4 of a sum to 150 of a logarithm")),
    }
}

/// Blocks of a multiprocessor among which it hides how long an instruction of a program takes: 2048 threads in blocks of 256.
const HIDDEN: f64 = 8.0;

/// What a launch has to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Blocks of the grid.
    pub blocks: u64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Cycles of a product on the multiprocessor with most of it.
    pub cycles: f64,
    /// Those in which it waits for what other blocks have done, however many there are.
    pub latency: f64,
    /// Cycles of a product in which that multiprocessor reads and writes through the second-level cache.
    pub cache: f64,
    /// Bytes that it reads before it waits for other launches; they are none of `bytes`.
    pub ahead: f64,
    /// Instructions of programs that a thread interprets one after the other, and those that are compiled.
    pub interpreted: usize,
    pub compiled: usize,
}

impl Load {
    /// The same for so many models.
    pub(crate) fn of_models(&self, models: usize, figures: &Figures) -> Load {
        let (one, all) = (self.blocks as f64, (self.blocks * models as u64) as f64);
        let turns = |blocks: f64, at_once: f64| (blocks / (figures.multiprocessors.value * at_once)).ceil().max(1.0);
        let instructions = turns(all, HIDDEN) / turns(one, HIDDEN);
        let times = |count: usize| (count as f64 * instructions).ceil() as usize;
        Load {
            blocks: self.blocks * models as u64,
            bytes: self.bytes * models as f64,
            cycles: self.cycles * turns(all, 1.0) / turns(one, 1.0),
            latency: self.latency,
            cache: self.cache * turns(all, 1.0) / turns(one, 1.0),
            ahead: self.ahead * models as f64,
            interpreted: times(self.interpreted),
            compiled: times(self.compiled),
        }
    }

    /// Microseconds in which so many bytes come through the second-level cache.
    fn through_cache(&self, bytes: f64, figures: &Figures) -> f64 {
        let share = (self.blocks as f64 / figures.multiprocessors.value).min(1.0);
        bytes / (figures.l2_bandwidth.value * 1e3 * share)
    }

    /// Microseconds for which it keeps the second-level cache busy, but for what it reads before it waits.
    pub(crate) fn cache_microseconds(&self, figures: &Figures) -> f64 {
        (self.cache / figures.clock.value).max(self.through_cache(self.bytes, figures))
    }

    /// The share of its blocks that read before it waits: those that find room beside the blocks of other launches.
    fn early(&self, figures: &Figures) -> f64 {
        (figures.multiprocessors.value / self.blocks.max(1) as f64).min(1.0)
    }

    /// Microseconds for what these read.
    pub(crate) fn ahead_microseconds(&self, figures: &Figures) -> f64 {
        self.through_cache(self.ahead * self.early(figures), figures)
    }

    /// In how many turns its blocks run, two at a time on each multiprocessor.
    pub(crate) fn turns(&self, figures: &Figures) -> f64 {
        (self.blocks as f64 / (2.0 * figures.multiprocessors.value)).ceil().max(1.0)
    }

    /// Its time in microseconds, by the formula above.
    pub(crate) fn microseconds(&self, figures: &Figures) -> f64 {
        let mhz = figures.clock.value;
        let late = self.ahead * (1.0 - self.early(figures));
        let memory = self.through_cache(self.bytes + late, figures);
        let instructions =
            self.interpreted as f64 * figures.interpreted.value + self.compiled as f64 * figures.compiled.value;
        ((self.cycles + self.latency) / mhz).max(memory) + instructions / mhz
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_takes_the_longer_of_arithmetic_and_memory_and_what_it_interprets() {
        let h200 = figures((9, 0));
        let time = |load: Load| load.microseconds(&h200);
        let load = Load { blocks: 132, bytes: 5.5e6, ..Load::default() };
        assert!((time(load) - 1.0).abs() < 1e-12, "5.5 MB at 5500 GB/s");
        assert!((time(Load { blocks: 66, ..load }) - 2.0).abs() < 1e-12, "half of the multiprocessors");
        assert!((time(Load { blocks: 1320, ..load }) - 1.0).abs() < 1e-12, "no more than all of them");
        assert!((time(Load { cycles: 5940.0, ..load }) - 3.0).abs() < 1e-12, "5940 cycles at 1980 MHz");
        assert!((time(Load { interpreted: 99, ..load }) - 11.0).abs() < 1e-12, "99 · 200 cycles more");
        assert!((time(Load { compiled: 99, ..load }) - 4.0).abs() < 1e-12, "99 · 60 cycles more");
    }

    #[test]
    fn what_is_read_ahead_waits_for_the_cache_alone() {
        let h200 = figures((9, 0));
        let load = Load { blocks: 66, bytes: 5.5e6, ahead: 2.75e6, cycles: 1980.0, ..Load::default() };
        assert!((load.microseconds(&h200) - 2.0).abs() < 1e-12 && (load.ahead_microseconds(&h200) - 1.0).abs() < 1e-12);
        assert!((load.cache_microseconds(&h200) - 2.0).abs() < 1e-12);
        let product = Load { blocks: 132, cycles: 3960.0, cache: 1980.0, ..Load::default() };
        assert!((product.cache_microseconds(&h200) - 1.0).abs() < 1e-12, "half of its time");
        assert!((product.of_models(2, &h200).cache_microseconds(&h200) - 2.0).abs() < 1e-12);
        // Of four models a quarter of the blocks reads early and the others later; the blocks before run in two turns.
        let four = Load { blocks: 132, ahead: 5.5e6, ..Load::default() }.of_models(4, &h200);
        assert!((four.ahead_microseconds(&h200) - 1.0).abs() < 1e-12 && (four.microseconds(&h200) - 3.0).abs() < 1e-12);
        assert_eq!((four.turns(&h200), product.turns(&h200)), (2.0, 1.0));
    }

    #[test]
    fn models_cost_nothing_until_all_multiprocessors_are_at_work() {
        let h200 = figures((9, 0));
        let time = |load: Load, models| load.of_models(models, &h200).microseconds(&h200);
        let load = Load { blocks: 33, cycles: 1980.0, compiled: 33, ..Load::default() };
        assert!((time(load, 1) - 2.0).abs() < 1e-12 && (time(load, 4) - 2.0).abs() < 1e-12);
        assert!((time(load, 8) - 3.0).abs() < 1e-12, "two blocks for each, whose programs hide each other");
        let joined = Load { latency: 1980.0, ..load };
        assert!((time(joined, 1) - 3.0).abs() < 1e-12 && (time(joined, 8) - 4.0).abs() < 1e-12, "joined at once");
        let moved = Load { blocks: 66, bytes: 5.5e6, ..Load::default() };
        assert!((time(moved, 2) - 2.0).abs() < 1e-12 && (time(moved, 4) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn every_capability_has_figures() {
        for cc in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)] {
            assert!(figures(cc).all().iter().all(|f| f.value > 0.0));
        }
    }
}
