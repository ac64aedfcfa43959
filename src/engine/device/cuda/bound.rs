//! A plan's launches for one memory, and the graphs they are run as.

use std::rc::Rc;
use std::sync::Arc;

use super::driver::{DeviceBuffer, Driver, Launch, LaunchGraph, LaunchNode};
use super::ensemble::{CanonicalLaunches, for_all};
use super::lower::{DataLaunch, Lowered, Placed};
use super::memory::{DeviceData, DeviceMemory};
use crate::engine::device::call::Call;
use crate::engine::device::check_rows;
use crate::engine::error::Result;
use crate::engine::ops::layout::Lookup;

/// Steps in the larger of the two recorded graphs, among which the host's cost of a launch is shared out.
const UNROLL: usize = 8;

pub(super) struct BoundPlan {
    /// The number of the memory.
    pub memory: u64,
    pub launches: Vec<Placed>,
    /// Those that end a step.
    last: Vec<usize>,
    data: Vec<DataLaunch>,
    /// The versions of the data sets that the launches point to.
    versions: Vec<u64>,
    pub lookups: Vec<Lookup>,
    /// What was run last.
    graphs: Option<Recorded>,
    /// In an ensemble.
    as_first: Option<AsFirst>,
    _shared: Option<DeviceBuffer>,
}

/// Graphs of one step and of [`UNROLL`] steps, recorded when they are first needed.
struct Recorded {
    /// The numbers of the models whose steps they make; none where it is this plan's alone.
    models: Vec<u64>,
    one: Option<LaunchGraph>,
    many: Option<LaunchGraph>,
}

impl BoundPlan {
    /// The launches bound to the memory of this number, with the memory of their shared sums, and in an ensemble as they would
    /// be in the first member.
    pub fn new(memory: u64, lowered: Lowered, as_first: Option<Lowered>, shared: Option<DeviceBuffer>) -> BoundPlan {
        BoundPlan {
            memory,
            last: lowered.last(),
            launches: lowered.launches,
            versions: vec![0; lowered.data.len()],
            data: lowered.data,
            lookups: lowered.lookups,
            graphs: None,
            as_first: as_first.map(AsFirst::new),
            _shared: shared,
        }
    }

    /// Points the launches to the data sets, if they have moved.
    ///
    /// # Errors
    /// [`Error::Slot`](crate::engine::error::Error::Slot) when one is missing, or ends before the steps of `call` do.
    pub fn find_data(&mut self, memory: &DeviceMemory, call: &Call<'_>, batch_rows: usize) -> Result<()> {
        for (at, usage) in self.data.iter().enumerate() {
            let data = memory.data(&usage.slot, usage.cols)?;
            let slot: &str = &usage.slot;
            check_rows(slot, data.rows(), call.rows.cursor, call.steps, batch_rows)?;
            if self.versions[at] != data.version {
                self.launches[usage.launch].launch.params = usage.params(data);
                self.as_first.iter_mut().for_each(|as_first| as_first.find_data(at, data));
                self.versions[at] = data.version;
                // The recorded graphs hold the old address.
                self.graphs = None;
            }
        }
        Ok(())
    }

    /// What other models of an ensemble see of it.
    pub fn canonical(&mut self) -> Option<Arc<CanonicalLaunches>> {
        self.as_first.as_mut().map(AsFirst::canonical)
    }

    /// Runs `steps` steps: of this plan, or of all `models`, of which it is the first.
    ///
    /// # Errors
    /// From the driver.
    pub fn replay(&mut self, driver: &Rc<Driver>, models: &[Arc<CanonicalLaunches>], steps: usize) -> Result<()> {
        let numbers: Vec<u64> = models.iter().skip(1).map(|canonical| canonical.number).collect();
        let graphs = match self.graphs.take() {
            Some(graphs) if graphs.models == numbers => graphs,
            _ => Recorded { models: numbers, one: None, many: None },
        };
        let Recorded { one, many, .. } = self.graphs.insert(graphs);
        let together;
        let launches: Vec<&Launch> = if models.len() > 1 {
            together = for_all(&self.launches, models);
            together.iter().collect()
        } else {
            self.launches.iter().map(|placed| &placed.launch).collect()
        };
        let record = |steps: usize| driver.graph(&nodes(&self.launches, &launches, &self.last, steps));
        let (of_many, of_one) = (steps / UNROLL, steps % UNROLL);
        for (graph, unrolled, times) in [(many, UNROLL, of_many), (one, 1, of_one)] {
            if times > 0 && graph.is_none() {
                *graph = Some(record(unrolled)?);
            }
            (0..times).try_for_each(|_| graph.as_ref().expect("recorded above").replay())?;
        }
        Ok(())
    }
}

/// The launches of `steps` steps. A step begins when those launches of the one before are over that end it.
fn nodes<'a>(placed: &[Placed], launches: &[&'a Launch], last: &[usize], steps: usize) -> Vec<LaunchNode<'a>> {
    let waits = |step: usize, placed: &Placed| -> Vec<usize> {
        let first = step * launches.len();
        match placed.waits.is_empty() && step > 0 {
            true => last.iter().map(|i| first - launches.len() + i).collect(),
            false => placed.waits.iter().map(|i| first + i).collect(),
        }
    };
    let all =
        (0..steps).flat_map(|step| placed.iter().zip(launches).map(move |(placed, launch)| (step, placed, launch)));
    all.map(|(step, placed, launch)| LaunchNode { launch, waits: waits(step, placed), urgent: placed.urgent }).collect()
}

/// The launches as they would be in the first member of an ensemble.
struct AsFirst {
    launches: Vec<Placed>,
    data: Vec<DataLaunch>,
    /// What the others see; made anew when a data set has moved.
    canonical: Option<Arc<CanonicalLaunches>>,
}

impl AsFirst {
    fn new(Lowered { launches, data, .. }: Lowered) -> AsFirst {
        AsFirst { launches, data, canonical: None }
    }

    fn find_data(&mut self, at: usize, data: &DeviceData) {
        let usage = &self.data[at];
        self.launches[usage.launch].launch.params = usage.params(data);
        self.canonical = None;
    }

    fn canonical(&mut self) -> Arc<CanonicalLaunches> {
        self.canonical.get_or_insert_with(|| Arc::new(CanonicalLaunches::of(&self.launches, &self.data))).clone()
    }
}
