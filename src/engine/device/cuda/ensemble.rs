//! Models of several threads whose steps are made by the same launches.
//!
//! The time of a small step is that of its launches, and most of the GPU is idle meanwhile. Models of one kind have the same launches on
//! other numbers; so their memory is laid out alike, [`MODEL_STRIDE`] bytes apart, and gridDim.z of one launch counts
//! models (kernels/per_model.cuh). Each block does what it does when its model is alone, so the bits are the same.
//!
//! ```text
//! memory   [ model 0 ........ | model 1 ........ | model 2 ........ ]   one allocation, a part for every member
//! thread   run ─ table ─ ask ┐
//! thread   run ─ table ─ ask ┼─► all have asked: members in a row whose launches differ by the stride alone run together,
//! thread   run ─ table ─ ask ┘   launched by the first of them; the others go on when it has
//! ```
//!
//! A thread knows nothing of the others: it runs a function, and waits a moment if others are about to run theirs. Who does not
//! come in time is not waited for, and what cannot run together runs alone: that changes the time, no number.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUstream;

use super::commons::Commons;
use super::driver::{Address, Driver, Launch};
use super::lower::{DataLaunch, Placed};
use super::params::{MAX_MODELS, MODEL_STRIDE};
use crate::engine::device::{Sharing, fresh_number};
use crate::engine::error::{Choice, Error, Result};

/// Arrays begin at multiples of so many bytes, as those of an allocation of their own.
const ALIGN: u64 = 256;

/// The launches of a function that is bound to memory, as other threads may look at them: with the addresses that they would
/// have if its member were the first. So models of one kind show the same.
pub(crate) struct CanonicalLaunches {
    /// No other has it.
    pub number: u64,
    launches: Vec<CanonicalLaunch>,
    /// Launches and words of their parameters where the data sets are named: of every model its own.
    data: Vec<(usize, usize)>,
}

struct CanonicalLaunch {
    kernel: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    params: Box<[u64]>,
    waits: Vec<usize>,
}

impl CanonicalLaunches {
    /// Of launches that are lowered as if the member were the first.
    pub fn of(launches: &[Placed], data: &[DataLaunch]) -> CanonicalLaunches {
        let launch = |placed: &Placed| {
            let Launch { kernel, grid, threads, shared, ref params, .. } = placed.launch;
            CanonicalLaunch { kernel, grid, threads, shared, params: params.clone(), waits: placed.waits.clone() }
        };
        let data = data.iter().map(|usage| (usage.launch, usage.field / size_of::<u64>())).collect();
        CanonicalLaunches { number: fresh_number(), launches: launches.iter().map(launch).collect(), data }
    }

    /// Whether these are the launches of the other, but for the data sets.
    fn is_like(&self, other: &CanonicalLaunches) -> bool {
        let is_data = |launch: usize, word: usize| {
            self.data.iter().any(|&(l, from)| l == launch && (from..from + MAX_MODELS).contains(&word))
        };
        let same = |(i, (own, other)): (usize, (&CanonicalLaunch, &CanonicalLaunch))| {
            let words = own.params.iter().zip(&other.params).enumerate();
            (own.kernel, own.grid, own.threads, own.shared) == (other.kernel, other.grid, other.threads, other.shared)
                && own.params.len() == other.params.len()
                && own.waits == other.waits
                && words.into_iter().all(|(word, (own, other))| own == other || is_data(i, word))
        };
        self.data == other.data
            && self.launches.len() == other.launches.len()
            && self.launches.iter().zip(&other.launches).enumerate().all(same)
    }
}

/// The launches of `placed`, those of the first of `models`, for all of them.
pub(super) fn for_all(placed: &[Placed], models: &[Arc<CanonicalLaunches>]) -> Vec<Launch> {
    let mut launches: Vec<Launch> = placed.iter().map(|placed| placed.launch.clone()).collect();
    for launch in &mut launches {
        launch.grid[2] = models.len() as u32;
    }
    for &(launch, word) in &models[0].data {
        for (model, canonical) in models.iter().enumerate() {
            launches[launch].params[word + model] = canonical.launches[launch].params[word];
        }
    }
    launches
}

/// A run that a member asks for.
struct Awaiting {
    canonical: Arc<CanonicalLaunches>,
    steps: usize,
}

/// What a member that has asked is to do.
enum Turn {
    /// To launch for these models, its own first.
    Launch(Vec<Arc<CanonicalLaunches>>),
    /// To go on: another has launched for it, or could not.
    Launched(bool),
}

#[derive(Default)]
struct Meeting {
    /// The members that are taken.
    taken: BTreeSet<usize>,
    asked: BTreeMap<usize, Awaiting>,
    turns: HashMap<usize, Turn>,
    /// The members for which another launches.
    led: HashMap<usize, Vec<usize>>,
    sharing: Sharing,
}

impl Meeting {
    /// Deals out what was asked for: members in a row together, where their launches allow it.
    fn deal(&mut self) {
        let mut asked = std::mem::take(&mut self.asked).into_iter().peekable();
        while let Some((first, of_first)) = asked.next() {
            let mut group = vec![of_first.canonical];
            while let Some((_, next)) = asked.next_if(|(member, next)| {
                *member == first + group.len()
                    && group.len() < MAX_MODELS
                    && next.steps == of_first.steps
                    && next.canonical.is_like(&group[0])
            }) {
                group.push(next.canonical);
            }
            self.sharing.runs += group.len() as u64;
            self.sharing.launched += 1;
            self.led.insert(first, (first + 1..first + group.len()).collect());
            self.turns.insert(first, Turn::Launch(group));
        }
    }

    /// `leader` has launched for those that it leads, or could not.
    fn launched(&mut self, leader: usize, done: bool) {
        for member in self.led.remove(&leader).unwrap_or_default() {
            self.turns.insert(member, Turn::Launched(done));
        }
    }

    fn all_have_asked(&self) -> bool {
        !self.asked.is_empty() && self.asked.len() == self.taken.len()
    }
}

/// A GPU for several models. See the [module](self).
pub(crate) struct EnsembleGpu {
    members: usize,
    /// How long a run waits for those of others.
    patience: Duration,
    commons: Commons,
    meeting: Mutex<Meeting>,
    changed: Condvar,
}

impl EnsembleGpu {
    /// Memory for `members` models on GPU number `ordinal`.
    ///
    /// # Errors
    /// [`Error::Argument`] for none or more than [`MAX_MODELS`]; [`Error::Device`] without a GPU, or without memory.
    pub fn new(ordinal: usize, members: usize, patience: Duration) -> Result<Arc<EnsembleGpu>> {
        if !(1..=MAX_MODELS).contains(&members) {
            return Err(Error::argument("models", members, format!("1 to {MAX_MODELS} on a GPU at the same time")));
        }
        let driver = Driver::open(ordinal, None)?;
        let commons = Commons::new(&driver, members * MODEL_STRIDE as usize, "models that share launches");
        let commons = commons.map_err(|error| match error {
            Error::Device { device, reason, .. } => {
                let each = MODEL_STRIDE >> 20;
                let remedy = format!("train fewer at the same time: each needs {each} MiB, and room for its data");
                Error::Device { device, reason, remedy: Choice::FewerAtOnce.remedy(remedy) }
            }
            other => other,
        })?;
        let (meeting, changed) = (Mutex::default(), Condvar::new());
        Ok(Arc::new(EnsembleGpu { members, patience, commons, meeting, changed }))
    }

    /// What was run so far.
    pub fn sharing(&self) -> Sharing {
        self.lock().sharing
    }

    /// Takes a member that is free.
    ///
    /// # Errors
    /// [`Error::Argument`] when none is.
    pub fn enter(self: &Arc<EnsembleGpu>) -> Result<EnsembleMember> {
        let mut meeting = self.lock();
        let free = (0..self.members).find(|member| !meeting.taken.contains(member));
        let expected = || format!("{}, as many as there is room for", self.members);
        let number = free.ok_or_else(|| Error::argument("models", self.members + 1, expected()))?;
        meeting.taken.insert(number);
        Ok(EnsembleMember { ensemble: self.clone(), number, used: RefCell::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Meeting> {
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one model: a part of the memory, and a voice in the meeting.
pub(crate) struct EnsembleMember {
    ensemble: Arc<EnsembleGpu>,
    number: usize,
    /// The places that are taken, by their begin, with their ends.
    used: RefCell<BTreeMap<Address, Address>>,
}

impl EnsembleMember {
    pub fn stream(&self) -> CUstream {
        self.ensemble.commons.stream()
    }

    /// How far behind the first member it is, in bytes.
    pub fn offset(&self) -> Address {
        self.number as u64 * MODEL_STRIDE
    }

    fn begin(&self) -> Address {
        self.ensemble.commons.memory() + self.offset()
    }

    /// The first place with room for so many bytes, if there is one. Models that ask for the same get places that differ by
    /// the stride.
    pub fn take(&self, bytes: usize) -> Option<Address> {
        let (mut at, mut used) = (self.begin(), self.used.borrow_mut());
        let end = at + MODEL_STRIDE;
        let bytes = (bytes.max(1) as u64).next_multiple_of(ALIGN);
        for (&begin, &next) in used.iter() {
            if begin - at >= bytes {
                break;
            }
            at = next;
        }
        if end - at < bytes {
            return None;
        }
        used.insert(at, at + bytes);
        Some(at)
    }

    /// Whether the place was one of this member; now it is free.
    pub fn give_back(&self, place: Address) -> bool {
        self.used.borrow_mut().remove(&place).is_some()
    }

    /// Runs `steps` steps of a function with the launches `canonical`: calls `launch` with all models for which this thread is to
    /// launch, its own first, or waits until another has launched for this one.
    ///
    /// # Errors
    /// Those of `launch`; [`Error::Device`] when the other could not.
    pub fn run(
        &self,
        canonical: &Arc<CanonicalLaunches>,
        steps: usize,
        launch: impl FnOnce(&[Arc<CanonicalLaunches>]) -> Result<()>,
    ) -> Result<()> {
        let mut meeting = self.ensemble.lock();
        meeting.asked.insert(self.number, Awaiting { canonical: canonical.clone(), steps });
        let patience = self.ensemble.patience;
        let until = Instant::now() + patience;
        let turn = loop {
            if let Some(turn) = meeting.turns.remove(&self.number) {
                break turn;
            }
            let late = meeting.asked.contains_key(&self.number) && Instant::now() >= until;
            if late || meeting.all_have_asked() {
                meeting.deal();
                self.ensemble.changed.notify_all();
                continue;
            }
            let waited = self.ensemble.changed.wait_timeout(meeting, patience);
            meeting = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(meeting);
        match turn {
            Turn::Launch(models) => {
                let launched = launch(&models);
                self.ensemble.lock().launched(self.number, launched.is_ok());
                self.ensemble.changed.notify_all();
                launched
            }
            Turn::Launched(true) => Ok(()),
            Turn::Launched(false) => Err(Error::Device {
                device: "cuda".into(),
                reason: "the launch that was made for several models failed; the first of them says why".into(),
                remedy: Choice::FewerAtOnce.remedy("see the error of the other model, or train fewer at the same time"),
            }),
        }
    }
}

impl Drop for EnsembleMember {
    /// Nobody waits for this one any more.
    fn drop(&mut self) {
        let mut meeting = self.ensemble.lock();
        meeting.taken.remove(&self.number);
        // Of a thread that panicked while it launched.
        meeting.launched(self.number, false);
        if meeting.all_have_asked() {
            meeting.deal();
        }
        self.ensemble.changed.notify_all();
    }
}
