//! A plan's launches for one memory, and the graphs they are run as.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::driver::{DeviceBuffer, Driver, Launch, LaunchGraph, LaunchNode};
use super::ensemble::{CanonicalLaunches, for_all};
use super::lower::{DataLaunch, Lowered, Placed, RunPosition, last};
use super::memory::{DeviceData, DeviceMemory};
use crate::engine::device::call::Call;
use crate::engine::device::check_rows;
use crate::engine::error::Result;
use crate::engine::ops::layout::Lookup;

/// Steps in the larger of the recorded graphs, among which the host's cost of a launch is shared out. It is even, so that the
/// next graph begins with a batch in the same place.
const UNROLL: usize = 8;

/// The launches of a plan: those of a step, and, if its batch is gathered during the step before, those of every second step,
/// which have it in another place, and those that gather the first one.
pub(super) struct Launches {
    pub all: Vec<Placed>,
    pub data: Vec<DataLaunch>,
    before: Range<usize>,
    even: Range<usize>,
    /// The even ones again, if there are no others.
    odd: Range<usize>,
}

impl Launches {
    /// Of even steps; and, where batches are gathered ahead, of what comes before the first step, and of odd ones.
    pub fn of(even: Lowered, before_and_odd: Option<[Lowered; 2]>) -> Launches {
        let mut launches = Launches { all: Vec::new(), data: Vec::new(), before: 0..0, even: 0..0, odd: 0..0 };
        launches.even = launches.add(even);
        launches.odd = launches.even.clone();
        if let Some([before, odd]) = before_and_odd {
            launches.before = launches.add(before);
            launches.odd = launches.add(odd);
        }
        launches
    }

    fn add(&mut self, lowered: Lowered) -> Range<usize> {
        let first = self.all.len();
        self.all.extend(lowered.launches);
        let mut data = lowered.data;
        data.iter_mut().for_each(|usage| usage.launch += first);
        self.data.append(&mut data);
        first..self.all.len()
    }

    /// Where those of a position are. What they wait for is counted from the first of them.
    fn range(&self, position: RunPosition) -> Range<usize> {
        match position {
            RunPosition::Before => self.before.clone(),
            RunPosition::Even => self.even.clone(),
            RunPosition::Odd => self.odd.clone(),
        }
    }

    fn alternate(&self) -> bool {
        self.odd != self.even
    }
}

pub(super) struct BoundPlan {
    /// The number of the memory.
    pub memory: u64,
    launches: Launches,
    /// The versions of the data sets that the launches point to.
    versions: Vec<u64>,
    pub lookups: Vec<Lookup>,
    /// What was run last.
    graphs: Option<Recorded>,
    /// In an ensemble.
    as_first: Option<AsFirst>,
    _shared: Option<DeviceBuffer>,
}

/// Some steps of a run, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Portion {
    /// Whether the batch of the first is gathered before it.
    gathers_first: bool,
    /// Whether the first has an odd number.
    odd: bool,
    /// One, or [`UNROLL`].
    steps: usize,
}

/// Graphs of portions, recorded when they are first needed.
struct Recorded {
    /// The numbers of the models whose steps they make; none where it is this plan's alone.
    models: Vec<u64>,
    graphs: HashMap<Portion, LaunchGraph>,
}

impl BoundPlan {
    /// The launches bound to the memory of this number, with the memory of their shared sums, and in an ensemble as they would
    /// be in the first member.
    pub fn new(
        memory: u64,
        launches: Launches,
        lookups: Vec<Lookup>,
        as_first: Option<Launches>,
        shared: Option<DeviceBuffer>,
    ) -> BoundPlan {
        let as_first = as_first.map(|launches| AsFirst { launches, canonical: None });
        let versions = vec![0; launches.data.len()];
        BoundPlan { memory, launches, versions, lookups, graphs: None, as_first, _shared: shared }
    }

    /// The launches of a step with an even number.
    pub fn step(&self) -> &[Placed] {
        &self.launches.all[self.launches.even.clone()]
    }

    /// Those that come before the first step of a run.
    pub fn before(&self) -> &[Placed] {
        &self.launches.all[self.launches.before.clone()]
    }

    /// Points the launches to the data sets, if they have moved.
    ///
    /// # Errors
    /// [`Error::Slot`](crate::engine::error::Error::Slot) when one is missing, or ends before the steps of `call` do.
    pub fn find_data(&mut self, memory: &DeviceMemory, call: &Call<'_>, batch_rows: usize) -> Result<()> {
        for (at, usage) in self.launches.data.iter().enumerate() {
            let data = memory.data(&usage.slot, usage.cols)?;
            let slot: &str = &usage.slot;
            check_rows(slot, data.rows(), call.rows.cursor, call.steps, batch_rows)?;
            if self.versions[at] != data.version {
                usage.fill(data, &mut self.launches.all[usage.launch].launch.params);
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

    /// Runs `steps` steps, the first of a run: of this plan, or of all `models`, of which it is the first.
    ///
    /// # Errors
    /// From the driver.
    pub fn replay(&mut self, driver: &Rc<Driver>, models: &[Arc<CanonicalLaunches>], steps: usize) -> Result<()> {
        let numbers: Vec<u64> = models.iter().skip(1).map(|canonical| canonical.number).collect();
        let recorded = match self.graphs.take() {
            Some(recorded) if recorded.models == numbers => recorded,
            _ => Recorded { models: numbers, graphs: HashMap::new() },
        };
        let graphs = &mut self.graphs.insert(recorded).graphs;
        let together;
        let launches: Vec<&Launch> = if models.len() > 1 {
            together = for_all(&self.launches.all, models);
            together.iter().collect()
        } else {
            self.launches.all.iter().map(|placed| &placed.launch).collect()
        };
        for portion in portions(steps, self.launches.alternate()) {
            let graph = match graphs.entry(portion) {
                Entry::Occupied(recorded) => recorded.into_mut(),
                Entry::Vacant(none) => none.insert(driver.graph(&nodes(&self.launches, &launches, portion))?),
            };
            graph.replay()?;
        }
        Ok(())
    }
}

/// The steps of a run in portions.
fn portions(steps: usize, alternate: bool) -> Vec<Portion> {
    let (mut portions, mut at) = (Vec::new(), 0);
    while at < steps {
        let now = if steps - at >= UNROLL { UNROLL } else { 1 };
        portions.push(Portion { gathers_first: alternate && at == 0, odd: alternate && at % 2 == 1, steps: now });
        at += now;
    }
    portions
}

/// The launches of a portion. A step begins when those launches of the one before are over that end it.
fn nodes<'a>(of: &Launches, launches: &[&'a Launch], portion: Portion) -> Vec<LaunchNode<'a>> {
    let mut nodes: Vec<LaunchNode<'a>> = Vec::new();
    let step = |step: usize| if step % 2 == 1 { RunPosition::Odd } else { RunPosition::Even };
    let steps = (0..portion.steps).map(|i| step(i + usize::from(portion.odd)));
    let mut before: Vec<usize> = Vec::new();
    for position in portion.gathers_first.then_some(RunPosition::Before).into_iter().chain(steps) {
        let (first, range) = (nodes.len(), of.range(position));
        let placed = &of.all[range.clone()];
        for (placed, launch) in placed.iter().zip(&launches[range]) {
            let waits = match placed.waits.is_empty() {
                true => before.clone(),
                false => placed.waits.iter().map(|i| first + i).collect(),
            };
            nodes.push(LaunchNode { launch, waits, urgent: placed.urgent });
        }
        before = last(placed).into_iter().map(|i| first + i).collect();
    }
    nodes
}

/// The launches as they would be in the first member of an ensemble.
struct AsFirst {
    launches: Launches,
    /// What the others see; made anew when a data set has moved.
    canonical: Option<Arc<CanonicalLaunches>>,
}

impl AsFirst {
    fn find_data(&mut self, at: usize, data: &DeviceData) {
        let usage = &self.launches.data[at];
        usage.fill(data, &mut self.launches.all[usage.launch].launch.params);
        self.canonical = None;
    }

    fn canonical(&mut self) -> Arc<CanonicalLaunches> {
        let Launches { all, data, .. } = &self.launches;
        self.canonical.get_or_insert_with(|| Arc::new(CanonicalLaunches::of(all, data))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::DeviceKernel;
    use super::super::figures::Load;
    use super::*;

    /// Launches of one step, each with those that it waits for. What a launch is, its number of threads says.
    fn lowered(launches: &[(u32, &[usize])]) -> Lowered {
        let placed = |&(threads, waits): &(u32, &[usize])| {
            let (function, params) = (DeviceKernel::none(), Box::new([]));
            let launch = Launch { function, kernel: "", grid: [1; 3], threads, shared: 0, params };
            let (waits, load) = (waits.to_vec(), Load::default());
            Placed { launch, steps: Vec::new(), part: None, waits, urgent: false, ends_step: None, load }
        };
        let launches = launches.iter().map(placed).collect();
        Lowered { launches, data: Vec::new(), lookups: Vec::new(), workspaces: Vec::new() }
    }

    /// The launches of a portion and what each waits for, by their threads.
    fn edges(of: &Launches, portion: Portion) -> Vec<(u32, Vec<u32>)> {
        let launches: Vec<&Launch> = of.all.iter().map(|placed| &placed.launch).collect();
        let nodes = nodes(of, &launches, portion);
        let threads = |i: &usize| nodes[*i].launch.threads;
        nodes.iter().map(|node| (node.launch.threads, node.waits.iter().map(threads).collect())).collect()
    }

    /// What a step waits for is over when it begins: all that nothing else in the step before waits for, and the first batch.
    #[test]
    fn steps_wait_for_the_ends_of_those_before() {
        // A gather for the next step, and two launches one after the other.
        let even = lowered(&[(1, &[]), (2, &[]), (3, &[1])]);
        let of = Launches::of(even, Some([lowered(&[(9, &[])]), lowered(&[(11, &[]), (12, &[]), (13, &[1])])]));
        let portion = |gathers_first, odd, steps| Portion { gathers_first, odd, steps };
        let first = [(9, vec![]), (1, vec![9]), (2, vec![9]), (3, vec![2])];
        assert_eq!(edges(&of, portion(true, false, 1)), first);
        let then = [(11, vec![1, 3]), (12, vec![1, 3]), (13, vec![12])];
        assert_eq!(edges(&of, portion(true, false, 2)), [&first[..], &then].concat());
        let alone = [(11, vec![]), (12, vec![]), (13, vec![12])];
        let again = [(1, vec![11, 13]), (2, vec![11, 13]), (3, vec![2])];
        assert_eq!(edges(&of, portion(false, true, 2)), [&alone[..], &again].concat());
        // Without a batch all steps are the same, one after the other.
        let of = Launches::of(lowered(&[(1, &[]), (2, &[0])]), None);
        assert_eq!(edges(&of, portion(false, false, 2)), [(1, vec![]), (2, vec![1]), (1, vec![2]), (2, vec![1])]);
    }

    /// Every graph begins with the batch where the one before has left it, and the first gathers its own.
    #[test]
    fn portions_follow_one_another() {
        let found = |steps, alternate| -> Vec<(bool, bool, usize)> {
            portions(steps, alternate)
                .iter()
                .map(|portion| (portion.gathers_first, portion.odd, portion.steps))
                .collect()
        };
        assert_eq!(found(1, true), [(true, false, 1)]);
        assert_eq!(found(3, true), [(true, false, 1), (false, true, 1), (false, false, 1)]);
        assert_eq!(found(18, true), [(true, false, 8), (false, false, 8), (false, false, 1), (false, true, 1)]);
        assert_eq!(found(10, false), [(false, false, 8), (false, false, 1), (false, false, 1)]);
        assert_eq!(UNROLL % 2, 0);
    }
}
